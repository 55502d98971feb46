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


@pytest.mark.parametrize("version", [0, 3, -1])
def test_unknown_version_of_the_protocol(version: int) -> None:
    with pytest.raises(ValueError, match=f"version {version} of the PROXY protocol; expected 1 or 2"):
        Targets([("mta", packed_ip("192.0.2.1", 25), 0)], version)


def test_number_of_targets_is_limited() -> None:
    assert targets(*[0] * 16).count == 16
    with pytest.raises(ValueError, match="17 targets; expected 1 to 16"):
        targets(*[0] * 17)


@pytest.mark.parametrize("at", [-1, 2, 2**31 - 1])
def test_a_number_that_is_not_a_target(at: int) -> None:
    """The C array is not touched: the two real ones stay in use."""
    two = targets(0, 0)
    with pytest.raises(ValueError, match=f"target {at} does not exist"):
        two.failed(at, 0)
    with pytest.raises(ValueError, match=f"target {at} does not exist"):
        two.answered(at)
    with pytest.raises(ValueError, match=f"target {at} does not exist"):
        two.learn(at, b"250 a\r\n")
    assert two.choose(0) == 0


def test_by_weight_an_mta_that_comes_back_has_its_share_again() -> None:
    """Not all clients of the time when it was away; and one client at a time tries it before."""
    two = targets(1, 1)
    two.failed(0, 0)
    assert [two.choose(SECOND) for _ in range(100)] == [1] * 100
    assert [two.choose(10 * SECOND) for _ in range(10)].count(0) == 1
    two.answered(0)
    assert Counter(two.choose(10 * SECOND) for _ in range(100)) == {0: 50, 1: 50}


def test_an_mta_that_fails_again_waits_again() -> None:
    two = targets(0, 0)
    two.failed(0, 0)
    assert two.choose(10 * SECOND) == 0
    two.failed(0, 11 * SECOND)
    assert two.choose(20 * SECOND) == 1
    assert two.choose(21 * SECOND) == 0


def test_a_reply_that_could_not_be_learned_is_offered_again() -> None:
    two = targets(0, 0)
    offered: list[bytes] = []

    def fail(_: int, reply: bytes) -> int:
        offered.append(reply)
        raise RuntimeError

    two.on_offer = fail
    for _ in range(2):
        with pytest.raises(RuntimeError):
            two.learn(0, b"250 a\r\n")
    assert len(offered) == 2


@pytest.mark.parametrize(
    ("peer", "server", "problem"),
    [
        (("192.0.2.1", -1), ("192.0.2.2", 25), "'192.0.2.1' and -1 are not a valid peer address"),
        (("192.0.2.1", 65536), ("192.0.2.2", 25), "'192.0.2.1' and 65536 are not a valid peer address"),
        (("192.0.2.1", 1), ("192.0.2.2", 65536), "'192.0.2.2' and 65536 are not a valid server address"),
        (("192.0.2.1", 1), ("192.0.2.2\0", 25), "are not a valid server address"),
        (("192.0.2.1", 1), ("mx.example", 25), "'192.0.2.1' or 'mx.example' is not an address"),
    ],
)
def test_no_header_for_a_wrong_port_or_server(peer: tuple[str, int], server: tuple[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        proxy_header_for(1, peer, server)
