"""The settings to judge by: a configuration, or the newest recorded settings, with changes of single keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastscreen.config import ConfigError, environment, load
from fastscreen.config.keys import KEYS
from fastscreen.config.kinds import ListOf, shown
from fastscreen.config.load import parse
from fastscreen.config.model import Config
from fastscreen.config.sites import parse_site
from fastscreen.core import SCORERS, TESTS
from fastscreen.escaping import escape_text, quoted
from fastscreen.history.settings import HistorySettings, described, filter_text
from fastscreen.screening.policy import settings_by_test, shown_names

if TYPE_CHECKING:
    from fastscreen.core import JudgeDescription

NO_FILE = "/dev/null"
"""Stands for the files of the memory and of AS, which only need names: the memory is not looked up."""
RECORDED = "recorded settings"
"""The source of settings that come from the history itself."""

_DEEP = [test.key for test in TESTS if test.stage == "dialogue" and not test.own]
JUDGED = (
    "mode",
    "access.denylist_action",
    "greet.banner",
    "greet.action",
    "dnsbl.sites",
    "dnsbl.threshold",
    "dnsbl.allowlist_threshold",
    "dnsbl.action",
    *(f"deep.{key}{suffix}" for key in _DEEP for suffix in ("", "_after_fail")),
    "score.action",
    *(f"score.{scorer.key}" for scorer in SCORERS[1:]),
    "score.rcpt_many_from",
    "score.memory_half_life",
    "score.as_half_life",
    "score.seen_min",
    "score.seen_as_share",
    "engine.soft_bounce",
    "cache.prefix_ipv4",
    "cache.prefix_ipv6",
)
"""The keys that can be judged."""

_KNOWN = {key.key: key for key in KEYS}
_CHANGE = re.compile(r"\s*([A-Za-z0-9_.-]+?)\s*(\+=|-=|=)(.*)", re.DOTALL)
_SEPARATORS = re.compile(r"[,\s]+")
_REASONS = (
    (re.compile(r"score\.(memory|as_file|memory_max_entries)"), "the history has what the memory said, not what was in "
     "it"),
    (re.compile(r"score\.ttl|.*(_ttl|\.ttl|timeout|interval|wait|_time|_limit|budget)"), "a time or limit: the history "
     "does not say what clients would have done with another one"),
    (re.compile(r"limits\..*|listen\..*|tls\..*"), "it depends on what happened at the same moment on this server"),
    (re.compile(r"access\..*|allowlist\..*|denylist\..*"), "the history has the result of the access list only"),
    (re.compile(r"score\.(defer_from|doubtful_from|slow_from|slow_by)"), "what clients would have done after another "
     "reply is not known"),
    (re.compile(r"handoff\..*"), "what another MTA would have replied is not known"),
    (re.compile(r"engine\..*"), "the history does not have the commands"),
)  # fmt: skip
_MAX_SHOWN = 60


class Tried(msgspec.Struct, frozen=True):
    """Settings to judge by. hostname: for HELO names. changed: keys, with their values in force and tried.

    mask: history.mask of the settings in force, which says how addresses were recorded. configured: it is that of a
    configuration.
    """

    source: str
    config: Config
    settings: HistorySettings
    hostname: str
    changed: tuple[tuple[str, str, str], ...] = ()
    unjudged: tuple[str, ...] = ()
    mask: tuple[int, int] | None = None
    configured: bool = True


def tried(base: Path | HistorySettings, other: Path | None, changes: Sequence[str]) -> Tried:
    """Apply the changes (`KEY=VALUE`, `KEY+=VALUE` or `KEY-=VALUE`). other: a configuration that replaces the base.

    unjudged: keys in which `other` differs, although they cannot be judged. ConfigError, ValueError, TableError.
    """
    if isinstance(base, Path):
        source, text = str(base), None
        before = load(base)
    else:
        source, text = RECORDED, toml_of(base)
        before = parse(text, source)
    after = load(other) if other is not None else before
    if changes:
        given: dict[str, object] = {}
        if other is not None or text is None:
            text = (other or Path(source)).read_text()
            given, _ = environment.read()  # load() has refused mistakes
        after = parse(text, "--set", {**given, **_values(changes, after)})
    different = [key.key for key in KEYS if value_of(before, key.key) != value_of(after, key.key)]
    found = _described(after)
    if not isinstance(base, Path):
        found = _with_recorded(found, _described(before), base)
    return Tried(
        str(other or source),
        after,
        found,
        after.hostname,
        tuple(
            (key, as_text(value_of(before, key)), as_text(value_of(after, key))) for key in different if key in JUDGED
        ),
        tuple(key for key in different if key not in JUDGED and _matters(key) and value_of(after, key) != NO_FILE),
        (before if isinstance(base, Path) else after).history.mask,
        isinstance(base, Path) or after.history.mask is not None,
    )


def _described(config: Config) -> HistorySettings:
    names, _ = shown_names(config.dnsbl)
    return described(config, settings_by_test(config), names)


def _with_recorded(after: HistorySettings, before: HistorySettings, recorded: HistorySettings) -> HistorySettings:
    """What was not changed is as recorded, also if no configuration would lead to it."""
    unchanged = {
        key: getattr(recorded, key)
        for key in HistorySettings.__struct_fields__
        if key != "tests" and getattr(after, key) == getattr(before, key)
    }
    if "sites" in unchanged:
        unchanged["lists"] = recorded.lists
    tests = {
        key: recorded.tests.get(key, found) if found == before.tests[key] else found
        for key, found in after.tests.items()
    }
    return msgspec.structs.replace(after, **unchanged, tests=tests)


def _matters(key: str) -> bool:
    """Whether a key may change a verdict."""
    return any(
        key.startswith(f"{table}.") for table in ("greet", "dnsbl", "deep", "score", "engine", "limits")
    ) or key in (
        "handoff.continue_to",
        "access.list",
        "access.mynetworks",
        "access.allowlist_interfaces",
    )


def value_of(config: Config, key: str) -> Any:
    """The value of a key in a configuration."""
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def as_text(value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        words = [site_text(each) if hasattr(each, "octets") else str(each) for each in value]
        text = ", ".join(words)
        return text if len(text) <= _MAX_SHOWN else f"{len(words)} entries"
    return str(value) if value != "" else '""'


def site_text(site: Any) -> str:
    """A site in the notation of `dnsbl.sites`."""
    octets = "" if site.octets is None else f"={filter_text(site.octets)}"
    return f"{site.domain}{octets}*{site.weight}"


def _values(changes: Sequence[str], before: Config) -> dict[str, object]:
    """The value of each changed key, as in TOML. ValueError: a change is not one, or cannot be judged."""
    found: dict[str, object] = {}
    for change in changes:
        parts = _CHANGE.fullmatch(change)
        if parts is None:
            raise ValueError(
                f"--set {escape_text(change)}: not a setting; expected KEY=VALUE, such as dnsbl.threshold=4"
            )
        key, operator, value = parts[1], parts[2], parts[3].strip()
        _check(key)
        if operator == "=":
            found[key] = _value(key, value)
        elif key == "dnsbl.sites":
            sites = found.get(key) or [site_text(site) for site in before.dnsbl.sites]
            assert isinstance(sites, list)
            found[key] = _other_sites(sites, operator, _items(value))
        else:
            raise ValueError(f"--set {key}{operator}: expected {key}=VALUE; only dnsbl.sites has += and -=")
    if _asks_memory({key.removeprefix("score."): value for key, value in found.items()}):
        for key in ("memory", "as_file"):
            if not getattr(before.score, key):
                found[f"score.{key}"] = NO_FILE
    return found


def _check(key: str) -> None:
    """ValueError: the key is unknown, or cannot be judged."""
    if key in JUDGED:
        return
    if key not in _KNOWN:
        near = get_close_matches(key, JUDGED, 1, 0.7)
        hint = f', did you mean "{near[0]}"?' if near else ";"
        raise ValueError(f"--set {escape_text(key)}: unknown key{hint} expected one of {', '.join(JUDGED)}")
    why = next((why for pattern, why in _REASONS if pattern.fullmatch(key)), "it does not change a verdict")
    raise ValueError(f"--set {key}: cannot be judged: {why}; expected one of {', '.join(JUDGED)}")


def _value(key: str, text: str) -> object:
    """A value as TOML, or as text if it is not TOML. Lists may also be written as words."""
    kind = _KNOWN[key].kind
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    if isinstance(kind, ListOf) and isinstance(value, str):
        return _items(value)
    return value


def _items(text: str) -> list[object]:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    if isinstance(value, str):
        return [word for word in _SEPARATORS.split(value) if word]
    return value if isinstance(value, list) else [value]


def _other_sites(sites: list[object], operator: str, words: list[object]) -> list[object]:
    """New sites of a domain replace its old ones; `-=` removes the sites of a domain."""
    domains = set()
    for word in words:
        if not isinstance(word, str):
            raise ValueError(
                f"--set dnsbl.sites{operator}: {shown(word)} is not a string; expected domain[=filter][*weight]"
            )
        domains.add(parse_site(word).domain)
    kept = [site for site in sites if not (isinstance(site, str) and parse_site(site).domain in domains)]
    if operator == "-=":
        if len(kept) == len(sites):
            raise ValueError(f"--set dnsbl.sites-={quoted(' '.join(map(str, words)))}: no such list in dnsbl.sites")
        return kept
    return [*kept, *words]


# ---- for the core


def description(settings: HistorySettings) -> JudgeDescription:
    """Settings as HistoryJudge takes them."""
    tests = []
    for test in TESTS:
        one = settings.tests.get(test.key)
        tests.append((one.enabled, one.action, one.ttl) if one is not None else (False, "ignore", 0))
    return {
        "lists": settings.lists,
        "sites": [(site.list, _mask(site.filter), site.weight) for site in settings.sites],
        "tests": tests,
        "weights": settings.weights,
        "denylist_action": settings.denylist_action,
        "shadow": settings.shadow,
        "soft_bounce": settings.soft_bounce,
        "continues": settings.continues,
        "threshold": settings.threshold,
        "allowlist_threshold": settings.allowlist_threshold,
        "dnsbl_min_ttl": settings.dnsbl_min_ttl,
        "dnsbl_max_ttl": settings.dnsbl_max_ttl,
        "greet_wait": settings.greet_wait,
        "prefix": settings.prefix,
        "rcpt_many_from": settings.rcpt_many_from,
        "memory": (settings.memory_half_life, settings.as_half_life, settings.seen_min, settings.seen_as_share),
    }


def _mask(text: str) -> bytes | None:
    if not text:
        return None
    octets = parse_site(f"list.example={text}").octets
    return None if octets is None else b"".join(octets)


# ---- from the history


def toml_of(settings: HistorySettings) -> str:
    """Recorded settings as a configuration with the keys that can be judged. What they do not say is the default."""
    tests = settings.tests
    values: dict[str, Mapping[str, object]] = {
        "": {"mode": "shadow" if settings.shadow else "screen", "hostname": "localhost"},
        "access": {"denylist_action": settings.denylist_action},
        "greet": {
            "action": tests["pregreet"].action,
            "wait": f"{max(1, round(settings.greet_wait))}s",
            "ttl": _seconds(tests["pregreet"].ttl),
        }
        | ({} if tests["pregreet"].enabled else {"banner": ""}),
        "dnsbl": {
            "sites": [_recorded_site(settings, at) for at in range(len(settings.sites))],
            "threshold": settings.threshold,
            "allowlist_threshold": settings.allowlist_threshold,
            "action": tests["dnsbl"].action,
            "min_ttl": _seconds(settings.dnsbl_min_ttl),
            "max_ttl": _seconds(settings.dnsbl_max_ttl),
        },
        "deep": {
            name: value
            for key in _DEEP
            for name, value in (
                (key, tests[key].action if tests[key].enabled else "off"),
                (f"{key}_ttl", _seconds(tests[key].ttl)),
                *(() if tests[key].enabled else ((f"{key}_after_fail", tests[key].action),)),
            )
        },
        "score": {
            "action": tests["score"].action,
            "ttl": _seconds(tests["score"].ttl),
            "rcpt_many_from": settings.rcpt_many_from,
            "memory_half_life": _seconds(settings.memory_half_life),
            "as_half_life": _seconds(settings.as_half_life),
            "seen_min": settings.seen_min,
            "seen_as_share": settings.seen_as_share,
            **({"memory": NO_FILE, "as_file": NO_FILE} if _asks_memory(settings.weights) else {}),
            **settings.weights,
        },
        "engine": {"soft_bounce": settings.soft_bounce},
        "cache": {"prefix_ipv4": settings.prefix[0], "prefix_ipv6": settings.prefix[1]},
        "handoff": {"continue_to": "proxy:127.0.0.1:25"} if settings.continues else {},
    }
    lines = []
    for table, keys in values.items():
        lines += [f"[{table}]"] if table else []
        # Strings, numbers, booleans and lists of strings are the same in JSON and TOML.
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def _asks_memory(weights: Mapping[str, object]) -> bool:
    return any(weights.get(key) for key in ("seen_address", "seen_network", "seen_as"))


def _seconds(seconds: int) -> str:
    return f"{max(1, seconds)}s"


def _recorded_site(settings: HistorySettings, at: int) -> str:
    site = settings.sites[at]
    return f"{settings.lists[site.list]}{f'={site.filter}' if site.filter else ''}*{site.weight}"


__all__ = ["JUDGED", "RECORDED", "ConfigError", "Tried", "description", "toml_of", "tried"]
