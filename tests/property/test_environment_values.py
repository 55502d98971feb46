"""Any value that a file can have can be given in a variable, and any text in a variable is a value or an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastscreen.config import Config, ConfigError, environment, parse
from fastscreen.config.keys import KEYS, Key
from fastscreen.config.load import _parse
from fastscreen.config.suggest import toml

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


DEPENDENT = {
    "hostname": ("banner", "greet.banner", "cluster.name"),
    "banner": ("greet.banner",),
    "engine.disable_vrfy_command": ("engine.announce_vrfy",),
    "cluster.server": ("cluster.name",),
    "cluster.sentinels": ("cluster.name",),
}
"""Keys whose default is made of another key."""


def assigned(key: Key, value: str) -> str:
    return f"[{key.table}]\n{key.name} = {value}\n" if key.table else f"{key.name} = {value}\n"


def different(one: Config, other: Config) -> Iterator[str]:
    for key in KEYS:
        tables = (getattr(config, key.table) if key.table else config for config in (one, other))
        first, second = (getattr(table, key.name) for table in tables)
        if first != second:
            yield key.key


def read(key: Key, text: str) -> tuple[dict[str, object], list[str]]:
    return environment.read({environment.SWITCH: environment.READ, environment.variable(key.key): text})


@given(key=st.sampled_from(KEYS))
def test_each_default_in_a_variable(key: Key) -> None:
    values, problems = read(key, key.default)
    assert problems == []
    assert _parse("", "FILE", values, problems) == parse(assigned(key, key.default), "FILE")


@given(key=st.sampled_from(KEYS), text=TEXT.filter(bool))
def test_text_is_the_same_with_and_without_quotes(key: Key, text: str) -> None:
    quoted = read(key, toml(text))
    assert quoted == ({key.key: text}, [])
    if text.lstrip()[:1] not in set("\"'[{"):
        (plain,) = read(key, text)[0].values()
        assert plain == text or not isinstance(plain, str)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(key=st.sampled_from(KEYS), text=TEXT)
def test_any_text(key: Key, text: str) -> None:
    """Another key is never affected, and an error is one line that names the variable."""
    values, problems = read(key, text)
    assert set(values) <= {key.key}
    try:
        config = _parse("", str(Path("/FILE")), values, problems)
    except ConfigError as error:
        assert error.problems[0].startswith(("environment: ", "/FILE: "))
        assert all(line.isprintable() for line in error.problems)
    else:
        assert set(different(config, parse("", "/FILE"))) <= {key.key, *DEPENDENT.get(key.key, ())}
