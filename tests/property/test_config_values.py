"""Values of the configuration: times, addresses, sites; any invalid input causes a one-line error."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastscreen.config import ConfigError, load
from fastscreen.config.keys import KEYS, TABLES
from fastscreen.config.kinds import UNITS, Address, Octets, Time
from fastscreen.config.sites import parse_site
from fastscreen.escaping import escape_text

TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(number=st.integers(0, 3500), unit=st.sampled_from(["", *UNITS]), default=st.sampled_from(list(UNITS)))
def test_times(number: int, unit: str, default: str) -> None:
    assert Time(default, 0).parse(f"{number}{unit}") == number * UNITS[unit or default]


@given(text=st.text())
def test_no_other_text_is_a_time(text: str) -> None:
    try:
        seconds = Time().parse(text)
    except ValueError:
        return
    assert text[-1:] in "smhdw0123456789"
    assert seconds >= 1


@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    endpoint = Address().parse(text)
    assert (ipaddress.ip_address(endpoint.host), endpoint.port) == (address, port)
    assert str(endpoint) == text


OCTET = st.integers(0, 255)
MEMBERS = st.lists(st.tuples(OCTET, OCTET).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=4)


@given(
    fields=st.lists(OCTET | MEMBERS, min_size=4, max_size=4),
    weight=st.none() | st.integers(-1000, 1000),
    wrapped=st.booleans(),
    addresses=st.lists(st.binary(min_size=4, max_size=4), max_size=5),
)
def test_sites(fields: list[Any], weight: int | None, wrapped: bool, addresses: list[bytes]) -> None:
    """A filter's text means the sets that it was made from."""

    def member(pair: tuple[int, int]) -> str:
        return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}..{pair[1]}"

    texts = [str(field) if isinstance(field, int) else f"[{';'.join(map(member, field))}]" for field in fields]
    pattern = ".".join(texts)
    text = f"bl.test={f'[{pattern}]' if wrapped else pattern}" + ("" if weight is None else f"*{weight}")
    site = parse_site(text)
    assert (site.domain, site.weight) == ("bl.test", 1 if weight is None else weight)
    ranges = [[(field, field)] if isinstance(field, int) else field for field in fields]
    for address in [*addresses, bytes(pairs[0][0] for pairs in ranges)]:
        wanted = all(
            any(low <= value <= high for low, high in pairs) for value, pairs in zip(address, ranges, strict=True)
        )
        assert site.matches(address) == wanted


@given(text=st.text("ab.=*[];0129-", max_size=20) | st.text(max_size=20))
def test_a_site_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        site = parse_site(text)
    except ValueError as error:
        assert str(error).startswith("bad DNSBL ")
        assert str(error).isprintable()
    else:
        assert text.startswith(site.domain)
        assert site.octets is None or [len(octets) for octets in site.octets] == [32] * 4


@given(value=TOML, key=st.sampled_from(KEYS))
def test_any_value_is_read_or_refused_in_one_line(value: object, key: Any) -> None:
    try:
        key.kind.parse(value)
    except ValueError as error:
        assert "expected " in str(error)
        assert str(error).isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.sampled_from(
            [*(f"[{table}]" for table in TABLES if table), *(f"{key.name} = {key.default}" for key in KEYS)]
        )
        | st.text(max_size=20),
        max_size=8,
    )
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, lines: list[str]) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_bytes("\n".join(["hostname = 'mx.test'", *lines]).encode("utf-8", "surrogatepass"))
    try:
        load(file)
    except ConfigError as error:
        assert str(error).startswith(f"{file}: ")
        assert str(error).isprintable()
    else:
        tomllib.loads(file.read_text())


@given(text=st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    assert escape_text(text).isprintable()
    assert len(escape_text(text)) <= 1003


@given(octets=st.binary())
def test_octets_written_as_escapes(octets: bytes) -> None:
    assert Octets().parse("".join(f"\\{octet:03o}" for octet in octets)) == octets


@pytest.mark.parametrize("text", ["127.0.0.[2;4;6..8]", "127.[0..255].0.[1;5..7]"])
def test_the_reference_filters(text: str) -> None:
    assert parse_site(f"a.test={text}").octets is not None
