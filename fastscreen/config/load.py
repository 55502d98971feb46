"""From a TOML file, from nothing, and from the environment to a `Config`."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import msgspec

from fastscreen.config import environment, suggest, syntax
from fastscreen.config.errors import ConfigError
from fastscreen.config.keys import KEYS, TABLES, Key
from fastscreen.config.kinds import MAX_BANNER, Address, DoubtfulTo, Hostname, SeveralErrors, one_of
from fastscreen.config.model import Config, Endpoint, ProxyPort
from fastscreen.core import TESTS
from fastscreen.escaping import escape_text, quoted

_NAME = re.compile(r"\$(?:\{([a-z_]+)\}|([a-z_]+)|(\$)|())")
EMPTY = '"", '
MAX_SLOW = 30  # s: what the replies of a session may be delayed together (ext/score_responses.pyx)
BUILT_IN = "built-in settings"
"""The source of the configuration that `fastscreen run` has without a file."""

_BUILT_IN = {
    "listen.addresses": ["127.0.0.1:2525"],
    "handoff.to": "sink:",
    "greet.action": "enforce",
    **{f"deep.{test.key}": "enforce" for test in TESTS if test.stage == "dialogue" and not test.own},
}


def load(path: Path) -> Config:
    """Read and check a file, and the keys in the environment. Raises ConfigError with all mistakes.

    What the file names is not opened.
    """
    source = escape_text(str(path), 4096)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}; expected a TOML file") from None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}: line {line}: not UTF-8; expected a TOML file") from None
    variables, mistakes = environment.read()
    return _parse(text, source, variables, mistakes)


def parse(text: str, source: str, changes: Mapping[str, object] | None = None) -> Config:
    """The same of a file's text only. source: its name in messages. changes: values of keys, in place of the text's."""
    return _parse(text, source, {}, (), changes)


def _parse(
    text: str,
    source: str,
    variables: Mapping[str, object],
    problems: Sequence[str],
    changes: Mapping[str, object] | None = None,
) -> Config:
    """variables: values of keys from the environment, in place of the text's. problems: what is wrong with others."""
    raw, mistakes = syntax.read(text)
    problems = [*(f"{source}: {mistake}" for mistake in mistakes), *problems]
    if raw is None:
        raise ConfigError(*problems)
    places = syntax.places(text)
    replaced = _replace(raw, {**variables, **(changes or {})})
    for key in replaced:
        places.pop(key, None)
    return _build(raw, source, problems, places, set(variables) & replaced - set(changes or {}))


def _replace(raw: dict[str, object], values: Mapping[str, object]) -> set[str]:
    """Put values of keys into what a file says; return those that were put in.

    What a file has in place of a table is a mistake of its own.
    """
    replaced = set()
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        section = raw.setdefault(table, {}) if table else raw
        if isinstance(section, dict):
            section[name] = value
            replaced.add(key)
    return replaced


def default() -> Config:
    """The built-in settings of `fastscreen run` without a file: try it out on loopback, as any user."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = {
        "cache.path": str(folder / "fastscreen/cache"),
        "control.path": str((Path(runtime) if runtime.startswith("/") else folder) / "fastscreen/control"),
    }
    variables, problems = environment.read()
    raw: dict[str, object] = {}
    _replace(raw, {**_BUILT_IN, **own, **variables})
    return _build(raw, BUILT_IN, problems, variables=set(variables))


def _build(
    raw: dict[str, object],
    source: str,
    problems: Sequence[str] = (),
    places: Mapping[str, int] | None = None,
    variables: Set[str] = frozenset(),
) -> Config:
    """problems: that were found before. places: the line of each key in the file. variables: the keys that are from
    the environment.
    """
    found = _Problems(source, list(problems), places or {}, variables)
    given = _flatten(raw, found)
    parsed: dict[str, object] = {}
    for key in KEYS:
        try:
            parsed[key.key] = key.kind.parse(given[key.key] if key.key in given else default_value(key))
        except ValueError as error:
            for what in error.each if isinstance(error, SeveralErrors) else [str(error)]:
                found.add(key.key, what)
            parsed[key.key] = key.kind.parse(default_value(key))
            found.refused.add(key.key)
    _complete(parsed, given, found)
    if found.lines:
        raise ConfigError(*found.lines)
    tree: dict[str, object] = {"source": source}
    for key in KEYS:
        section = tree.setdefault(key.table, {}) if key.table else tree
        assert isinstance(section, dict)
        section[key.name] = parsed[key.key]
    return msgspec.convert(tree, Config)


class _Problems:
    """The mistakes of one file. refused: keys of which the default stands in for a value that is wrong."""

    def __init__(self, source: str, lines: list[str], places: Mapping[str, int], variables: Set[str]) -> None:
        self.lines = lines
        self.refused: set[str] = set()
        self._source = source
        self._places = places
        self._variables = variables

    def add(self, key: str, what: str, *, at: str = "") -> None:
        """at: the name in the file where it is not `key`."""
        if key in self._variables:
            self.lines.append(f"environment: {environment.variable(key)}: {what}")
            return
        number = self._places.get(at or key)
        self.lines.append(f"{self._source}: {key}: {what}" + (f" (line {number})" if number else ""))


def default_value(key: Key) -> object:
    """The default as tomllib gives it."""
    return tomllib.loads(f"value = {key.default}")["value"]


def _flatten(raw: dict[str, object], found: _Problems) -> dict[str, object]:
    """`{"greet": {"wait": 6}}` to `{"greet.wait": 6}`; an unknown name is a problem."""
    known = {key.key for key in KEYS}
    given: dict[str, object] = {}
    for name, value in raw.items():
        if name in known:
            given[name] = value
        elif name not in TABLES or name == "":
            top = [*TABLES, *(key.key for key in KEYS if not key.table)]
            _add_unknown(found, "", name, suggest.for_unknown("", name, value, top), top)
        elif not isinstance(value, dict):
            found.add(name, f"not a table; expected [{name}] and its keys in the lines below")
        else:
            for inner, item in value.items():
                if f"{name}.{inner}" in known:
                    given[f"{name}.{inner}"] = item
                else:
                    names = [key.name for key in KEYS if key.table == name]
                    _add_unknown(found, name, inner, suggest.for_unknown(name, inner, item, names), names)
    return given


def _add_unknown(found: _Problems, table: str, name: str, hint: str, names: list[str]) -> None:
    """A name that is not one of `names`. hint: what was probably meant, or what to write instead."""
    shown = (f"{table}." if table else "") + (escape_text(name) or quoted(name))
    expected = f"; expected {one_of(filter(None, names))}" if "expected" not in hint else ""
    what = f"unknown name{', ' if hint else ''}{escape_text(hint, 1000)}{expected}"
    found.add(shown, what, at=f"{table}.{name}" if table else name)


def machine_name() -> str:
    """The full name of the machine if the resolver knows it, else its short name; "localhost" only as a last resort."""
    full = socket.getfqdn()
    return full if "." in full and not full.startswith("localhost") else socket.gethostname()


def _complete(parsed: dict[str, object], given: dict[str, object], found: _Problems) -> None:
    """Put in what depends on the machine or on other keys."""
    if not parsed["hostname"]:
        name = machine_name()
        try:
            parsed["hostname"] = Hostname().parse(name)
        except ValueError as error:
            found.add("hostname", f"missing, and the name of the machine cannot be used: {error}")
    if not found.refused & {"listen.addresses", "listen.proxy"}:
        _check_addresses(parsed, found)
    names = {"hostname": str(parsed["hostname"])}
    for key in ("banner", "greet.banner"):
        try:
            parsed[key] = names[key] = _expand(str(parsed[key]), names)
        except ValueError as error:
            found.add(key, str(error))
            names[key] = ""
    if parsed["tls.level"] != "none" and not parsed["tls.certificates"] and "tls.certificates" not in found.refused:
        found.add(
            "tls.certificates", f"the list is empty, but tls.level is {parsed['tls.level']}; expected at least one file"
        )
    _check_cluster(parsed, found)
    _check_memory(parsed, found)
    _check_responses(parsed, found)
    if parsed["denylist.path"] and parsed["denylist.path"] == parsed["allowlist.path"]:
        found.add("denylist.path", "this is also allowlist.path; expected another file")
    if "engine.announce_vrfy" not in given:
        parsed["engine.announce_vrfy"] = not parsed["engine.disable_vrfy_command"]


def _check_cluster(parsed: dict[str, object], found: _Problems) -> None:
    """A cluster has one way to its server, and a secret."""
    if not parsed["cluster.server"] and not parsed["cluster.sentinels"]:
        return
    if parsed["cluster.server"] and parsed["cluster.sentinels"]:
        found.add("cluster.server", "cluster.sentinels is set as well; expected one of the two")
    if parsed["cluster.sentinels"] and not parsed["cluster.master"] and "cluster.master" not in found.refused:
        found.add("cluster.master", "missing; expected the name that the Sentinels have for the primary")
    if not parsed["cluster.secret_file"] and "cluster.secret_file" not in found.refused:
        found.add("cluster.secret_file", "missing; expected a file with a secret that all hosts of the cluster have")
    for key in ("cluster.share", "cluster.accept"):
        kinds: tuple[str, ...] = msgspec.convert(parsed[key], tuple[str, ...])
        if "offenses" in kinds and not parsed["score.memory"] and "score.memory" not in found.refused:
            found.add("score.memory", f'missing, but {key} has "offenses"; expected the path of a file')
            break
    if not parsed["cluster.name"]:
        parsed["cluster.name"] = str(parsed["hostname"])[:63]


def _check_memory(parsed: dict[str, object], found: _Problems) -> None:
    """Scorers of the memory have one to look into."""
    weighted = [key for key in ("seen_address", "seen_network", "seen_as") if parsed[f"score.{key}"]]
    if weighted and not parsed["score.memory"] and "score.memory" not in found.refused:
        found.add(
            "score.memory",
            f"missing, but score.{weighted[0]} is {parsed[f'score.{weighted[0]}']}; expected the path of a file",
        )
    if parsed["score.seen_as"] and not parsed["score.as_file"] and "score.as_file" not in found.refused:
        found.add(
            "score.as_file", f"missing, but score.seen_as is {parsed['score.seen_as']}; expected the path of a file"
        )
    if parsed["score.memory"] and parsed["score.memory"] == parsed["cache.path"]:
        found.add("score.memory", "this is also cache.path; expected another file")
    if parsed["feedback.log"] and not parsed["score.memory"] and "score.memory" not in found.refused:
        found.add("score.memory", "missing, but feedback.log is set; expected the path of a file")
    if parsed["feedback.spam"] and not parsed["feedback.log"] and "feedback.log" not in found.refused:
        found.add("feedback.log", 'missing, but feedback.spam is set; expected an absolute path or "journal"')


def _check_responses(parsed: dict[str, object], found: _Problems) -> None:
    """A response below the threshold needs a score that a client can have there, and a place to send clients to."""

    def number(key: str) -> int:
        return int(str(parsed[key]))

    threshold = number("dnsbl.threshold")
    for key in ("score.defer_from", "score.doubtful_from"):
        if number(key) >= threshold and not {key, "dnsbl.threshold"} & found.refused:
            most = f"expected 1 to {threshold - 1}, or 0 to disable it" if threshold > 1 else "expected 0"
            found.add(key, f"{number(key)} is not below dnsbl.threshold, which is {threshold}; {most}")
    if not {"score.doubtful_from", "handoff.doubtful_to"} & found.refused:
        score, to = number("score.doubtful_from"), parsed["handoff.doubtful_to"]
        if score and to is None:
            what = f"missing, but score.doubtful_from is {score}; expected {DoubtfulTo.expected.removeprefix(EMPTY)}"
            found.add("handoff.doubtful_to", what)
        elif to is not None and not score:
            found.add("score.doubtful_from", "missing, but handoff.doubtful_to is set; expected a score from 1 on")
    if number("score.slow_by") > MAX_SLOW and "score.slow_by" not in found.refused:
        found.add("score.slow_by", f'{number("score.slow_by")}s is out of range; expected at most "{MAX_SLOW}s"')


def _check_addresses(parsed: dict[str, object], found: _Problems) -> None:
    """There is at least one address to listen on, and none is both a PROXY port and something else."""
    plain: tuple[Endpoint, ...] = msgspec.convert(parsed["listen.addresses"], tuple[Endpoint, ...])
    ports: tuple[ProxyPort, ...] = msgspec.convert(parsed["listen.proxy"], tuple[ProxyPort, ...])
    if not plain and not ports:
        what = "the list is empty, and so is listen.proxy"
        found.add("listen.addresses", f"{what}; expected a list in which each item is {Address().expected}")
    everyone = [*plain, *(address for port in ports for address in port.addresses)]
    if len(everyone) > 100:
        found.add("listen", f"{len(everyone)} addresses; expected at most 100")
    for place, address in enumerate(everyone):
        if address in everyone[:place] and place >= len(plain):
            found.add("listen.proxy", f"{address} occurs twice; expected each address once")


def _expand(text: str, names: Mapping[str, str]) -> str:
    """Replace `$name`, `${name}` and `$$`. Raises ValueError."""

    def one(found: re.Match[str]) -> str:
        name = found[1] or found[2] or ""
        if found[3]:
            return "$"
        if name not in names:
            known = one_of([*(f"${each}" for each in names), "$$ for a $ sign"])
            raise ValueError(f"unknown name {quoted(found[0])}; expected {known}")
        return names[name]

    expanded = _NAME.sub(one, text)
    if len(expanded) > MAX_BANNER:
        raise ValueError(f"{len(expanded)} characters; expected at most {MAX_BANNER}")
    return expanded
