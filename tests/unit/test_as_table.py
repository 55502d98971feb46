"""The file of autonomous systems: its forms, its mistakes, and the same answers as a plain search."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.config import Config, ConfigError
from fastscreen.core import AsTable
from fastscreen.offenses import rules
from fastscreen.tables.lines import recorded_files


def number(table: AsTable, address: str) -> int:
    return table.lookup(ipaddress.ip_address(address).packed)


def table(text: str) -> AsTable:
    return AsTable(text.encode(), "as.csv")


def test_forms_of_lines() -> None:
    found = table(
        "network,autonomous_system_number,autonomous_system_organization\n"
        '192.0.2.0/24,64500,"Example, Inc."\r\n'
        "\n# a comment\n"
        "198.51.100.0,198.51.100.127,AS64501\n"
        '"2001:db8::","2001:db8:ffff:ffff:ffff:ffff:ffff:ffff","64502","x"\n'
        "203.0.113.0\t203.0.113.255\t64503\tSE\tExample\n"
        "10.0.0.0,10.255.255.255,0,not announced\n"
        "2001:db9::/33,4294967294"
    )
    assert found.warnings == []
    assert len(found) == 5
    expected = {
        "192.0.1.255": 0, "192.0.2.0": 64500, "192.0.2.255": 64500, "192.0.3.0": 0, "198.51.100.127": 64501,
        "198.51.100.128": 0, "203.0.113.9": 64503, "10.1.1.1": 0, "0.0.0.0": 0, "255.255.255.255": 0,
        "2001:db8::25": 64502, "2001:db9:7fff::1": 4294967294, "2001:db9:8000::1": 0, "::": 0,
    }  # fmt: skip
    assert {address: number(found, address) for address in expected} == expected


def test_smallest_range_counts() -> None:
    found = table("10.1.2.0/24,3\n10.0.0.0/8,1\n10.1.0.0/16,2\n10.1.2.3,10.1.2.3,4\n")
    assert [number(found, f"10.{rest}") for rest in ("9.9.9", "1.9.9", "1.2.9", "1.2.3", "1.2.4")] == [1, 2, 3, 4, 3]


def test_host_bits_are_ignored() -> None:
    assert number(table("10.1.2.3/8,5\n"), "10.200.0.1") == 5


@pytest.mark.parametrize(
    "line",
    [
        "10.0.0.0/33,1", "10.0.0.0/,1", "10.0.0.0/8,", "10.0.0.0/8", "10.0.0.0/8,x", "10.0.0.0/8,4294967295",
        "10.0.0.0/8,-1", "10.0.0.9,10.0.0.1,1", "10.0.0.0,2001:db8::,1", "10.0.0.0,,1", "x" * 5000, "10.0.0.0,10.0.0.1",
        "10.0.0.0/8,99999999999999999999999", "é", "10.0.0.0/8\0,1",
    ],
)  # fmt: skip
def test_wrong_lines_are_named(line: str) -> None:
    found = table(f"192.0.2.0/24,1\n{line}\n192.0.3.0/24,2\n")
    assert found.warnings == ["as.csv: 1 line ignored (2); expected first,last,number or network,number"]
    assert (number(found, "192.0.2.1"), number(found, "192.0.3.1"), number(found, "10.0.0.0")) == (1, 2, 0)


def test_file_of_another_kind() -> None:
    found = table("hello\n" * 10)
    assert found.warnings == [
        "as.csv: 9 lines ignored (2, 3, 4, 5, 6, ...); expected first,last,number or network,number",
        "as.csv: no AS is known: the file has no line of the form first,last,number or network,number",
    ]
    assert table("").warnings[0].startswith("as.csv: no AS is known")


@pytest.mark.parametrize("seed", range(20))
def test_same_answers_as_a_plain_search(seed: int) -> None:
    chance = random.Random(seed)
    ranges = []
    for _ in range(chance.randrange(1, 60)):
        first = chance.randrange(1 << 12)
        ranges.append((first, min(first + chance.choice((0, 1, 7, 300)), 0xFFF), chance.randrange(1, 1 << 32 - 1)))
    for base, size in ((0x0A000000, 4), (0x20010DB8 << 96, 16)):
        kind = ipaddress.IPv4Address if size == 4 else ipaddress.IPv6Address
        found = table("".join(f"{kind(base + first)},{kind(base + last)},{system}\n" for first, last, system in ranges))
        for offset in range(0, 1 << 12, 3):
            spans = {last - first: system for first, last, system in reversed(ranges) if first <= offset <= last}
            expected = {0} if not spans else {
                system for first, last, system in ranges if first <= offset <= last and last - first == min(spans)
            }  # fmt: skip
            assert found.lookup((base + offset).to_bytes(size)) in expected


# ---- in a configuration


def with_file(path: Path) -> Config:
    settings = config.default()
    score = msgspec.structs.replace(settings.score, memory="/var/lib/fastscreen/offenses", as_file=str(path))
    return msgspec.structs.replace(settings, score=score)


def test_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "as.csv"
    path.write_text("192.0.2.0/24,1\n")
    with recorded_files() as files:
        first = rules.load_rules(with_file(path))
    assert list(files) == [str(path)]
    with recorded_files() as again:
        second = rules.load_rules(with_file(path))
    assert again == files  # a reload watches it, too
    assert first is not None
    assert second is not None
    assert first.as_table is second.as_table  # not read again
    path.with_suffix(".new").write_text("192.0.2.0/24,2\n")
    path.with_suffix(".new").replace(path)
    third = rules.load_rules(with_file(path))
    assert third is not None
    assert third.as_table is not None
    assert number(third.as_table, "192.0.2.1") == 2


def test_a_new_version_without_any_as_is_refused(tmp_path: Path) -> None:
    """A web page instead of the file, or nothing."""
    path = tmp_path / "as.csv"
    path.write_text("192.0.2.0/24,1\n")
    rules.load_rules(with_file(path))
    path.write_text("<html>404</html>\n")
    with pytest.raises(
        ConfigError, match=r"score.as_file: .*as\.csv: no AS is known: the file has no line of the form"
    ):
        rules.load_rules(with_file(path))
    path.write_text("")
    with pytest.raises(ConfigError, match="no AS is known"):
        rules.load_rules(with_file(path))
    other = tmp_path / "other.csv"  # at a start, or of a new path, there is nothing to keep
    other.write_text("")
    found = rules.load_rules(with_file(other))
    assert found is not None
    assert found.as_table is not None
    assert found.as_table.warnings


def test_a_file_with_too_many_ranges_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "as.csv"
    path.write_bytes(b"192.0.2.0/24,1\n" * ((1 << 22) + 1))
    with pytest.raises(ConfigError, match=r"score.as_file: .*/as\.csv: too large; expected at most 4 million ranges"):
        rules.load_rules(with_file(path))


@pytest.mark.parametrize("name", ["as.csv", "as.mmdb"])
def test_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"score.as_file: .*/{name}: cannot be read: No such file or directory"):
        rules.load_rules(with_file(tmp_path / name))


def test_mmdb(tmp_path: Path) -> None:
    path = tmp_path / "as.mmdb"
    path.write_bytes(
        database({"::192.0.2.0/120": {"autonomous_system_number": 64500}, "2001:db8::/32": {"asn": "AS64501"},
                  "::10.0.0.0/104": {"autonomous_system_organization": "none"}})
    )  # fmt: skip
    found = rules.load_rules(with_file(path))
    assert found is not None
    assert found.as_table is not None
    addresses = ("192.0.2.77", "192.0.3.1", "2001:db8:1::1", "10.0.0.1", "2001:db9::1")
    assert [number(found.as_table, each) for each in addresses] == [64500, 0, 64501, 0, 0]
    assert found.as_table.warnings == []


def database(networks: dict[str, dict[str, object]]) -> bytes:
    """A database in MaxMind's format, version 2."""
    nodes: list[list[object]] = [[None, None]]
    data = b""
    for network, fields in networks.items():
        parsed = ipaddress.IPv6Network(network)
        bits = f"{int(parsed.network_address):0128b}"[: parsed.prefixlen]
        at = 0
        for bit in map(int, bits[:-1]):
            if nodes[at][bit] is None:
                nodes.append([None, None])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]  # type: ignore[assignment]
        nodes[at][int(bits[-1])] = str(len(data))
        data += encoded(fields)
    tree = b""
    for side in (side for node in nodes for side in node):
        value = len(nodes) if side is None else side if isinstance(side, int) else len(nodes) + 16 + int(str(side))
        tree += value.to_bytes(3)
    about = {
        "node_count": encoded(len(nodes)), "record_size": short(24), "ip_version": short(6), "database_type": "test",
        "languages": [], "binary_format_major_version": short(2), "binary_format_minor_version": short(0),
        "build_epoch": bytes([8, 2]) + (1).to_bytes(8), "description": {},
    }  # fmt: skip
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


def short(number: int) -> bytes:
    """A 16-bit number."""
    return bytes([5 << 5 | 2]) + number.to_bytes(2)


def encoded(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return bytes([2 << 5 | len(value)]) + value.encode() if len(value) < 29 else (
                bytes([2 << 5 | 29, len(value) - 29]) + value.encode()
            )  # fmt: skip
        case int():
            return bytes([6 << 5 | 4]) + value.to_bytes(4)
        case list():
            return bytes([len(value), 4]) + b"".join(map(encoded, value))
        case dict():
            return bytes([7 << 5 | len(value)]) + b"".join(encoded(each) for item in value.items() for each in item)
    raise TypeError


def test_mmdb_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "as.mmdb"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match=r"score.as_file: .*as\.mmdb: cannot be read: Error opening database"):
        rules.load_rules(with_file(path))


def test_no_memory_no_rules(tmp_path: Path) -> None:
    assert rules.load_rules(config.default()) is None
