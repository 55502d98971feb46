"""Records in a server that anybody may write to: only what a known secret has signed for a client is believed."""

import hashlib
import ipaddress
import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.cache.interfaces import Network
from fastscreen.cache.stamps import DISABLED, TESTS, Stamps
from fastscreen.cluster import packets, records, secrets, tombstones
from fastscreen.cluster.packets import Found, Item, Keep, LookUp
from fastscreen.cluster.records import SKEW, TIME_MAX, Lifetime, Lifetimes, Reason, SharedPass, sign_pass, verify_pass
from fastscreen.cluster.tombstones import Tombstone

NOW = 1_800_000_000
DAY = 86400
OURS = secrets.parse(b"the secret of this cluster\n", "FILE")
OTHERS = secrets.parse(b"a secret of another cluster", "FILE")
ALL: Lifetimes = (Lifetime(30 * DAY, 30 * DAY),) * TESTS

SIZES = st.sampled_from([4, 16])
KEYS = SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size)) | SIZES.flatmap(
    lambda size: st.builds(
        lambda address, bits: address + bytes([bits]),
        st.binary(min_size=size, max_size=size),
        st.integers(0, 8 * size - 1),
    )
)
STAMP = st.just(DISABLED) | st.integers(0, NOW + 60 * DAY) | st.integers(0, 2**63 - 1)
STAMPS = st.tuples(*[STAMP] * TESTS)
HOSTS = st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True)
LIFETIME = st.none() | st.integers(1, 60 * DAY).map(lambda longest: Lifetime(min(60, longest), longest))
LIFETIMES = st.tuples(*[LIFETIME] * TESTS)


def verified(key: bytes, value: object, *, lifetimes: Lifetimes = ALL, now: float = NOW) -> SharedPass | Reason:
    return verify_pass(OURS, key, value, lifetimes, now=now, deleted=-math.inf)


def signed(key: bytes, stamps: Stamps, host: str = "mx1", stored: float = NOW) -> bytes:
    return sign_pass(OURS, key, stamps, host=host, stored=stored)


@given(KEYS, st.tuples(*[st.integers(NOW + 1, NOW + 30 * DAY)] * TESTS), HOSTS, st.integers(NOW - DAY, NOW + SKEW))
def test_a_pass_comes_back(key: bytes, stamps: Stamps, host: str, stored: int) -> None:
    value = signed(key, stamps, host, stored)
    assert len(value) <= records.VALUE_MAX
    assert verified(key, value) == SharedPass(
        tuple(min(stamp, stored + SKEW + 30 * DAY) for stamp in stamps), host, stored
    )


@given(KEYS, STAMPS, HOSTS, st.integers(-5, TIME_MAX + 5), LIFETIMES, st.integers(0, TIME_MAX))
def test_a_pass_is_worth_no_more_than_one_of_our_own(
    key: bytes, stamps: Stamps, host: str, stored: int, lifetimes: Lifetimes, now: int
) -> None:
    found = verified(key, signed(key, stamps, host, stored), lifetimes=lifetimes, now=now)
    if isinstance(found, Reason):
        assert found in (Reason.FUTURE, Reason.EXPIRED)
        return
    assert max(found.stamps) > now
    for stamp, ours, lifetime in zip(stamps, found.stamps, lifetimes, strict=True):
        if lifetime is None:
            assert ours == DISABLED
        else:
            assert ours <= min(stamp, now + lifetime.longest, max(0, stored) + SKEW + lifetime.longest)


@given(KEYS, STAMPS, HOSTS, st.data())
def test_any_changed_byte_is_noticed(key: bytes, stamps: Stamps, host: str, data: st.DataObject) -> None:
    value = bytearray(signed(key, stamps, host))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    assert verified(key, bytes(value)) in (Reason.BAD_MAC, Reason.NEWER, Reason.FOREIGN)
    if at > 0:
        assert verified(key, bytes(value)) is not Reason.NEWER


@given(KEYS, STAMPS, st.data())
def test_it_can_neither_be_cut_off_nor_go_on(key: bytes, stamps: Stamps, data: st.DataObject) -> None:
    value = signed(key, stamps)
    cut = data.draw(st.integers(0, len(value) - 1))
    assert verified(key, value[:cut]) in (Reason.BAD_MAC, Reason.FOREIGN)
    assert verified(key, value + data.draw(st.binary(min_size=1, max_size=9))) is Reason.BAD_MAC


@given(KEYS, KEYS, STAMPS)
def test_it_is_of_one_client(key: bytes, other: bytes, stamps: Stamps) -> None:
    if key != other:
        assert verified(other, signed(key, stamps)) is Reason.BAD_MAC


@given(KEYS, STAMPS)
def test_it_is_of_one_cluster(key: bytes, stamps: Stamps) -> None:
    value = sign_pass(OTHERS, key, stamps, host="mx1", stored=NOW)
    assert verified(key, value) is Reason.BAD_MAC
    # Neither is it believed when it claims to be signed with our secret.
    assert verified(key, value[:1] + bytes([OURS.key_id]) + value[2:]) is Reason.BAD_MAC


@given(KEYS, st.tuples(*[st.integers(NOW + 1, NOW + DAY)] * TESTS), st.integers(-1000, 1000))
def test_it_does_not_outlive_its_deletion(key: bytes, stamps: Stamps, after: int) -> None:
    value = signed(key, stamps, stored=NOW)
    found = verify_pass(OURS, key, value, ALL, now=NOW, deleted=NOW + after)
    assert (found is Reason.DELETED) == (after >= 0)


@given(KEYS, st.tuples(*[st.integers(NOW + 1, NOW + DAY)] * TESTS), st.integers(0, 2000))
def test_clocks_may_differ_by_minutes(key: bytes, stamps: Stamps, ahead: int) -> None:
    found = verified(key, signed(key, stamps, stored=NOW + ahead))
    assert (found is Reason.FUTURE) == (ahead > SKEW)


@given(KEYS, st.binary(max_size=600) | st.none() | st.integers() | st.text())
def test_no_value_raises(key: bytes, value: object) -> None:
    assert isinstance(verified(key, value), Reason)


@given(KEYS, st.binary(max_size=80), st.integers(0, TIME_MAX))
def test_a_member_may_sign_anything(key: bytes, body: bytes, stored: int) -> None:
    """A newer version may have more in a record; whatever it is, it does not raise."""
    name = records.record_name(key)
    value = records.seal(OURS, records.PASS_LABEL, name, body, expiry=NOW, stored=stored, host="mx1")
    found = verified(key, value)
    assert isinstance(found, Reason) or len(found.stamps) == TESTS


def test_a_pass_as_the_first_version_signs_it() -> None:
    """Hosts of all versions must read it; this is made without the code that is tested."""
    secret = b"the secret of this cluster"
    record = bytes.fromhex("95ce6b5a0b80ce6b5a0b81010101")
    expiry = 0x6B5A0B81
    text = bytes([1, hashlib.blake2b(secret).digest()[0]]) + struct.pack(">IIB", expiry, NOW, 3) + b"mx1" + record
    name = b"p:c0000201"
    signed_text = b"fastscreen pass 1" + bytes([0, len(name)]) + name + text
    value = text + hashlib.blake2b(signed_text, digest_size=16, key=secret).digest()
    stamps = (expiry - 1, expiry, 1, 1, 1, *(1,) * (TESTS - 5))
    assert signed(b"\xc0\x00\x02\x01", stamps) == value
    found = verify_pass(OURS, b"\xc0\x00\x02\x01", value, ALL, now=NOW, deleted=-math.inf)
    assert found == SharedPass((*(min(stamp, NOW + 30 * DAY) for stamp in stamps),), "mx1", NOW)


@given(st.integers(2, 15), st.binary(min_size=40, max_size=100))
def test_newer_versions_are_told_apart(version: int, rest: bytes) -> None:
    assert verified(b"abcd", bytes([version]) + rest) is Reason.NEWER


# ---- deletions


NETWORKS = st.integers(0, 32).flatmap(
    lambda bits: st.binary(min_size=4, max_size=4).map(lambda ip: ipaddress.ip_network((ip, bits), strict=False))
) | st.integers(0, 128).flatmap(
    lambda bits: st.binary(min_size=16, max_size=16).map(lambda ip: ipaddress.ip_network((ip, bits), strict=False))
)


@given(NETWORKS, HOSTS, st.integers(NOW - DAY, NOW + SKEW))
def test_a_deletion_comes_back(network: Network, host: str, time: int) -> None:
    tombstone = Tombstone(network, time, host)
    value = tombstones.sign(OURS, tombstone, 31 * DAY)
    assert tombstones.verify(OURS, value, NOW) == tombstone
    assert tombstones.verify(OTHERS, value, NOW) is Reason.BAD_MAC
    assert isinstance(tombstones.verify(OURS, value, NOW + 40 * DAY), Reason)


@given(NETWORKS, KEYS, st.data())
def test_what_signs_passes_signs_no_deletion(network: Network, key: bytes, data: st.DataObject) -> None:
    value = bytearray(tombstones.sign(OURS, Tombstone(network, NOW, "mx1"), 31 * DAY))
    assert verified(key, bytes(value)) is Reason.BAD_MAC
    assert tombstones.verify(OURS, signed(key, (NOW,) * TESTS), NOW) is Reason.BAD_MAC
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    assert isinstance(tombstones.verify(OURS, bytes(value), NOW), Reason)


@given(st.binary(max_size=600) | st.none())
def test_no_deletion_raises(value: object) -> None:
    assert isinstance(tombstones.verify(OURS, value, NOW), Reason)


@given(st.lists(st.tuples(NETWORKS, st.integers(0, 1000)), max_size=20), st.lists(KEYS, max_size=20), st.data())
def test_deletions_are_found_by_client(
    some: list[tuple[Network, int]], clients: list[bytes], data: st.DataObject
) -> None:
    table = tombstones.Tombstones()
    latest: dict[Network, int] = {}
    for network, time in some:
        assert table.add(Tombstone(network, time, "mx1"), b"") == (time > latest.get(network, -1))
        latest[network] = max(time, latest.get(network, -1))
    before = data.draw(st.integers(0, 1000))
    table.expire(before)
    latest = {network: time for network, time in latest.items() if time >= before}
    assert len(table) == len(latest)
    for network in list(latest)[:5]:  # addresses that are in one of them
        clients.append(network.network_address.packed)
    for key in clients:
        # A key that is wider than the network stands for clients that were not deleted, too.
        bits = key[-1] if len(key) in (5, 17) else 8 * len(key)
        some_of = [(network, time) for network, time in latest.items() if network.prefixlen <= bits]
        expected = max((time for network, time in some_of if tombstones.covers(network, key)), default=-math.inf)
        assert table.deleted_at(key) == expected


# ---- packets


ITEM = st.builds(Item, st.just(0), KEYS, st.binary(max_size=255))


@given(st.lists(ITEM, max_size=60), st.lists(KEYS, max_size=400))
def test_packets_come_back(items: list[Item], keys: list[bytes]) -> None:
    for encode, kind in ((packets.encode_keep, Keep), (packets.encode_found, Found)):
        read = [packets.decode(packet) for packet in encode(items)]
        assert all(type(packet) is kind for packet in read)
        assert [item for packet in read for item in packet[0]] == items
    asked = packets.encode_look_up(keys)
    assert all(len(packet) <= packets.PACKET_MAX for packet in asked)
    assert [key for packet in asked for key in packets.decode(packet)[0]] == keys


@given(st.binary(max_size=5000) | st.builds(bytes.__add__, st.sampled_from([b"L", b"K", b"F"]), st.binary(max_size=80)))
def test_a_packet_is_read_whole_or_refused(packet: bytes) -> None:
    try:
        found = packets.decode(packet)
    except ValueError:
        return
    encode = {LookUp: packets.encode_look_up, Keep: packets.encode_keep, Found: packets.encode_found}[type(found)]
    assert encode(found[0]) == [packet]  # type: ignore[operator]
