"""What the operator probably meant: a value as TOML has it, or a key by another name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches

from fastscreen.config.keys import KEYS, Key
from fastscreen.config.postfix_names import key_meant

_BY_NAME = {key.key: key for key in KEYS}
_FLAGS = {"yes": True, "on": True, "true": True, "1": True, "no": False, "off": False, "false": False, "0": False}
_QUOTES = " \t\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_MAX_ITEMS = 100

# Words from other programs, which none of the rules below would lead to the right place.
_HINTS = {
    "log.level": "log levels do not exist; expected log_level = 1 in [tls] to log TLS handshakes, or nothing",
    "log.verbose": "log levels do not exist; expected log_level = 1 in [tls] to log TLS handshakes, or nothing",
    "log.file": 'expected to = "file:/PATH"',
    "log.path": 'expected to = "file:/PATH"',
    "log.facility": "the facility is always mail",
}


def toml(value: object) -> str:
    """A value that tomllib gave, as TOML on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{ " + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + " }"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def value_for(key: Key | None, given: object) -> object | None:
    """A value that the key takes (None: any key), made of what was given in another form; None: nothing fits."""
    for candidate in _candidates(given):
        if key is None:
            return candidate
        try:
            key.kind.parse(candidate)
        except ValueError:
            continue
        return candidate
    return None


def _candidates(given: object) -> list[object]:
    if not isinstance(given, str):
        found = [given]
        if isinstance(given, bool):  # Postfix's test is on or off; ours has the action as its value
            found.append("enforce" if given else "off")
        return found if isinstance(given, bool | list) else [*found, str(given)]
    text = given.strip(_QUOTES)
    found = [text]
    if text.lower() in _FLAGS:
        found += [_FLAGS[text.lower()], "enforce" if _FLAGS[text.lower()] else "off"]
    if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        found.append(int(text))
    items = [item.strip(_QUOTES) for item in re.split(r"[\s,]+", text.removeprefix("[").removesuffix("]"))]
    return [*found, [item for item in items if item][:_MAX_ITEMS]]


def assignment(key: str, value: object) -> str:
    """`action = "enforce" in [greet]`. value: None is for one that the operator has to write."""
    found = _BY_NAME[key]
    shown = toml(value) if value is not None else found.default
    return f"{found.name} = {shown}" + (f" in [{found.table}]" if found.table else " at the top of the file")


def for_unknown(table: str, name: str, given: object, names: Sequence[str]) -> str:
    """What to write instead of an unknown name in a table ("": at the top); empty: unknown.

    names: those that may stand there.
    """
    full = f"{table}.{name}" if table else name
    if full in _HINTS:
        return _HINTS[full]
    meant = key_meant(table, name)
    if not meant and not table and name.replace("_", ".", 1) in _BY_NAME:
        meant = name.replace("_", ".", 1)
    if meant:
        return f"this is Postfix's name; expected {assignment(meant, value_for(_BY_NAME[meant], given))}"
    near = get_close_matches(name, names, 1)
    if near:
        return f'did you mean "{near[0]}"?'
    similar = get_close_matches(name, [key.name for key in KEYS], 3, 0.8)
    elsewhere = sorted(key.key for key in KEYS if key.name in similar and _fits(key, given))
    return f'did you mean "{elsewhere[0]}"?' if elsewhere else ""


def _fits(key: Key, given: object) -> bool:
    try:
        key.kind.parse(given)
    except ValueError:
        return False
    return True


def key_named(table: str, name: str) -> Key | None:
    """The key of this name in a table, or the one that is meant by Postfix's name."""
    full = f"{table}.{name}" if table else name
    return _BY_NAME.get(full) or _BY_NAME.get(key_meant(table, name))
