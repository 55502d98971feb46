"""Keys from environment variables, for containers: FASTSCREEN_DNSBL__THRESHOLD=3 is dnsbl.threshold.

Off unless FASTSCREEN_ENVIRONMENT is `read`: a variable that happens to be in a shell must not change what a command
does. Two underscores stand between the table and the name, so that the variables that Docker and Kubernetes make for
a service named fastscreen (FASTSCREEN_SERVICE_HOST, FASTSCREEN_PORT_25_TCP) are never taken for keys.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches

from fastscreen.config.keys import KEYS
from fastscreen.escaping import escape_text, quoted

PREFIX = "FASTSCREEN_"
SWITCH = "FASTSCREEN_ENVIRONMENT"
READ, IGNORE = "read", "ignore"
_TOML_STARTS = "\"'[{"


def variable(key: str) -> str:
    """Return the variable of a key."""
    return PREFIX + key.replace(".", "__").upper()


VARIABLES = {variable(key.key): key.key for key in KEYS}


def read(environment: Mapping[str, str] | None = None) -> tuple[dict[str, object], list[str]]:
    """Return the value of each key that has a variable, as tomllib gives it, and the mistakes."""
    environment = os.environ if environment is None else environment
    switch = environment.get(SWITCH, "")
    if switch in ("", IGNORE):
        return {}, []
    if switch != READ:
        return {}, [f"environment: {SWITCH}: {quoted(switch)} is unknown; expected {READ} or {IGNORE}"]
    values: dict[str, object] = {}
    problems: list[str] = []
    for name, text in sorted(environment.items()):
        if name == SWITCH or not name.startswith(PREFIX):
            continue
        try:
            if name in VARIABLES:
                if text:  # Compose and Kubernetes set a variable to nothing if its source is not set
                    values[VARIABLES[name]] = _value(text)
            else:
                _check_unknown(name)
        except ValueError as error:
            problems.append(f"environment: {escape_text(name, 100)}: {error}")
    return values, problems


def _value(text: str) -> object:
    """TOML if it is TOML, else text, which needs no quotes here. Raises ValueError."""
    try:
        # In a table of its own, so that further lines are not taken for further keys.
        found = tomllib.loads(f"value = {text}\n")
        if list(found) == ["value"]:
            return found["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    if text.lstrip()[:1] in set(_TOML_STARTS):
        raise ValueError(f"{quoted(text)} is not a TOML value; expected text, or a value as in the file")
    return text


def _check_unknown(name: str) -> None:
    """Raises ValueError if a variable is meant for fastscreen; others are not its business."""
    by_single = {known.replace("__", "_"): known for known in VARIABLES}
    if name.upper() in VARIABLES or name.upper() in by_single:
        wanted = name.upper() if name.upper() in VARIABLES else by_single[name.upper()]
        raise ValueError(f"unknown name; expected {wanted}")
    if "__" not in name.removeprefix(PREFIX).lstrip("_"):
        return
    near = get_close_matches(name, VARIABLES, 1, 0.8)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ValueError(f"unknown name{hint}; expected {PREFIX}TABLE__KEY, such as {variable('dnsbl.threshold')}")
