"""The choice of the next MTA: in order, by weight, and without those that just failed."""

from collections import Counter

import pytest

from fastscreen.core import Targets, proxy_header_for
from fastscreen.sockaddr import packed_ip

SECOND = 1_000_000  # µs


def targets(*weights: int) -> Targets:
    return Targets([(f"mta{at}", packed_ip("192.0.2.1", 25 + at), weight) for at, weight in enumerate(weights)])


def test_in_order_the_first_has_all() -> None:
    assert [targets(0, 0, 0).choose(0) for _ in range(5)] == [0] * 5


def test_one_client_tries_each_once() -> None:
    three = targets(0, 0, 0)
    tried = 0
    order = []
    while (at := three.choose(0, tried)) >= 0:
        tried |= 1 << at
        order.append(at)
        three.failed(at, 0)
    assert order == [0, 1, 2]


def test_one_that_failed_is_passed_over_for_ten_seconds() -> None:
    two = targets(0, 0)
    two.failed(0, 1 * SECOND)
    assert two.choose(10 * SECOND) == 1
    assert two.choose(11 * SECOND) == 0
    assert two.choose(11 * SECOND) == 1  # one client at a time finds out
    two.answered(0)
    assert two.choose(11 * SECOND) == 0


def test_when_all_failed_they_are_tried_all_the_same() -> None:
    two = targets(0, 0)
    two.failed(0, 0)
    two.failed(1, 0)
    assert (two.choose(1), two.choose(1, 0b01), two.choose(1, 0b11)) == (0, 1, -1)


def test_by_weight_each_has_its_share() -> None:
    three = targets(5, 3, 2)
    assert Counter(three.choose(0) for _ in range(1000)) == {0: 500, 1: 300, 2: 200}
    three.failed(0, 0)
    assert Counter(three.choose(0) for _ in range(1000)) == {1: 600, 2: 400}


@pytest.mark.parametrize("wrong", [[], [("x", b"", 0)], [("x", b"\2\0" * 100, 0)], [("x", b"\2\0\0\0", -1)]])
def test_what_is_no_target(wrong: list[tuple[str, bytes, int]]) -> None:
    with pytest.raises(ValueError, match="target"):
        Targets(wrong)


def test_what_is_learnt_is_told_once() -> None:
    two = targets(0, 0)
    told: list[tuple[int, bytes]] = []

    def learn(at: int, reply: bytes) -> int:
        told.append((at, reply))
        return 0

    two.on_offer = learn
    for reply in (b"250 a\r\n", b"250 a\r\n", b"250 b\r\n"):
        two.learn(1, reply)
    assert told == [(1, b"250 a\r\n"), (1, b"250 b\r\n")]


@pytest.mark.parametrize(
    ("version", "peer", "server", "header"),
    [
        (1, "192.0.2.1", "198.51.100.255", b"PROXY TCP4 192.0.2.1 198.51.100.255 65535 25\r\n"),
        (1, "2001:db8::1", "::1", b"PROXY TCP6 2001:db8::1 ::1 65535 25\r\n"),
        (1, "192.0.2.1", "::1", b"PROXY TCP6 ::ffff:192.0.2.1 ::1 65535 25\r\n"),
        (
            2,
            "192.0.2.1",
            "198.51.100.255",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\xff\xff\xff\x00\x19",
        ),
        (
            2,
            "2001:db8::1",
            "192.0.2.1",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8"
            + bytes(11)
            + b"\x01"
            + bytes(10)
            + b"\xff\xff\xc0\x00\x02\x01\xff\xff\x00\x19",
        ),
    ],
)
def test_the_header(version: int, peer: str, server: str, header: bytes) -> None:
    assert proxy_header_for(version, (peer, 65535), (server, 25)) == header


def test_the_longest_header_of_version_1_has_room() -> None:
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    header = proxy_header_for(1, (longest, 65535), (longest, 65535))
    assert header == f"PROXY TCP6 {longest} {longest} 65535 65535\r\n".encode()


@pytest.mark.parametrize("wrong", ["", "x", "192.0.2.1\0", "192.0.2"])
def test_no_header_for_what_is_no_address(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address|not a valid peer address"):
        proxy_header_for(2, (wrong, 1), ("192.0.2.1", 25))
