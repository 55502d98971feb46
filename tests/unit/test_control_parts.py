"""Parts of the control server that need no process: frames, warnings, list names, scores, a list's state."""

import random
import re
from pathlib import Path

import msgspec
import pytest
from cachefixture import stamps

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.config import default
from fastscreen.config.sites import parse_site
from fastscreen.control import frames, protocol
from fastscreen.control.cache_store import Store, StoreError
from fastscreen.control.dnsbl_lookup import Said
from fastscreen.control.events import ListNames, Rings
from fastscreen.control.list_state import ListStates
from fastscreen.control.messages import Expiring, Reply
from fastscreen.control.scoring import Score, filter_text, score, weight
from fastscreen.core import EVENTS
from fastscreen.dns.dnsbl_names import is_listing, question
from fastscreen.process.warning_ring import MAX_TEXT, SIZE, WARNINGS, WarningRing

PAGE = Path(__file__).resolve().parents[2] / "docs/control.md"


def test_frames() -> None:
    frame = protocol.pack(Reply(1, ok={}))
    assert msgspec.msgpack.decode(frame[4:]) == {"id": 1, "ok": {}}
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert protocol.request(msgspec.msgpack.encode({"id": 2.5, "do": "x", "more": [1]})) == protocol.Request(
        2.5, "x", {"more": [1]}
    )
    with pytest.raises(protocol.RequestError, match="ask for less"):
        protocol.pack(Reply(1, ok=b"x" * frames.MAX_FROM_DAEMON))
    for head in (b"\0\0\0\0", b"\0\1\0\1", b"\xff\xff\xff\xff"):
        with pytest.raises(frames.FrameError):
            frames.body_length(head, frames.MAX_TO_DAEMON)
    assert frames.body_length(b"\0\1\0\0", frames.MAX_TO_DAEMON) == 65536


def test_warnings_are_kept_in_order_and_bounded() -> None:
    memory = memoryview(bytearray(SIZE))
    book = WarningRing(memory)
    for number in range(WARNINGS + 50):
        book.write(b"warning: %d" % number)
    assert [text for _, text in book.read()] == [str(number) for number in range(50, WARNINGS + 50)]
    successor = WarningRing(memory)
    successor.write("ä".encode() * MAX_TEXT)
    texts = [text for _, text in book.read()]
    assert texts[0] == "51"
    assert texts[-1].startswith("ää")
    assert len(texts) == WARNINGS


def test_events_have_the_numbers_that_the_page_says() -> None:
    _, _, table = PAGE.read_text().partition("\n| kind | what happened | `number` | `text` |\n")
    rows = re.findall(r"^\| (`.+?`) \| .+? \|(.*?)\|.*\|$", table.partition("\n\n")[0], re.MULTILINE)
    numbers = {kind: number for kinds, number in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert set(numbers) == set(EVENTS[1:-1])
    rings = Rings([], ListNames(["a"]))
    for kind, number in numbers.items():
        event = rings.shown(0, (1, 1.0, kind, 1, "192.0.2.1", 2525, "greet", 0, None, 0, 1, b""))
        assert (event.number is not None) == bool(number.strip()), kind


def test_a_half_written_warning_is_left_out() -> None:
    memory = memoryview(bytearray(SIZE))
    WarningRing(memory).write(b"warning: one")
    WarningRing(memory).write(b"warning: another one")
    whole = bytes(memory)
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(whole)
        at = chance.randrange(640 * 3)
        damaged[at] ^= 1 + chance.randrange(255)
        assert {text for _, text in WarningRing(memoryview(damaged)).read()} <= {"one", "another one"}


def test_list_names_belong_to_a_time() -> None:
    names = ListNames(["a", "b"])
    names.change(100.0, ["b"])
    names.change(200.0, ["b"])
    assert names.name(0, 99.9) == "a"
    assert names.name(0, 100.0) == "b"
    assert names.name(1, 100.0) is None
    assert names.name(-1, 99.0) is None
    assert names.now == ("b",)


def test_scores() -> None:
    """As in the core: a filter without a matching answer counts 0; allow lists that do not answer make it unsure."""
    sites = [parse_site(text) for text in ("a.test*2", "a.test=127.0.0.[4..9]*3", "b.test*2", "wl.test*-4")]
    said = {"a.test": Said("listed", ("127.0.0.4",)), "b.test": Said("failed"), "wl.test": Said("not listed")}
    assert score(sites, said) == Score(5, 5, 5, "a.test")
    assert score(sites, said | {"wl.test": Said("failed")}) == Score(5, 1, 5, "a.test")
    assert score(sites, said | {"wl.test": Said("listed", ("127.0.5.1",))}) == Score(1, 1, 1, "a.test")
    # A suspect list: whom it lists may be listed, whom it does not list is not; one that vouches does not, for now.
    assert score(sites, said, {"a.test"}) == Score(0, 0, 5, "", "a.test")
    assert score(sites, said | {"a.test": Said("not listed")}, {"a.test"}) == Score(0, 0, 0, "")
    allowed = said | {"wl.test": Said("listed", ("127.0.5.1",))}
    assert score(sites, allowed, {"wl.test"}) == Score(5, 1, 5, "a.test")
    assert weight(sites, "a.test", ["127.0.0.2"]) == 2
    assert score(sites, {}) == Score(0, -4, 0, "")


@pytest.mark.parametrize("pattern", ["127.0.0.[2..11;200]", "127.0.[0..255].1", "127.[1;3;5].0.0", "127.0.0.1"])
def test_a_filter_reads_as_it_was_written(pattern: str) -> None:
    assert filter_text(parse_site(f"a.test={pattern}")) == pattern


def test_what_lists_are_asked() -> None:
    assert question("192.0.2.1", "bl.test") == "1.2.0.192.bl.test"
    assert question("2001:db8::1", "bl.test").endswith(".8.b.d.0.1.0.0.2.bl.test")
    assert is_listing("127.0.0.2", "bl.test")
    assert not is_listing("127.255.255.254", "bl.test")
    assert not is_listing("192.0.2.1", "bl.test")
    assert not is_listing("127.0.0.255", "list.dnswl.org")


def test_a_lists_state_is_a_recent_one() -> None:
    now = 0.0
    states = ListStates(lambda: now)
    config = default()

    def state(asked: int, answered: int, failed: int, slow: int = 0) -> str:
        total = {"queries": asked, "answers": answered, "timeouts": failed, "errors": 0}
        latency = [0] * 96
        latency[0] = answered - slow
        latency[80] = slow  # s
        return states.state(config, "list", total, latency)

    assert state(0, 0, 0) == "unused"
    assert state(100, 100, 0) == "ok"
    now = 30.0
    assert state(110, 104, 6) == "ok"
    now = 100.0
    assert state(120, 106, 14) == "failing"
    now = 200.0
    assert state(140, 126, 14) == "ok"
    now = 300.0
    assert state(240, 226, 14, slow=10) == "slow"


def test_stamps_there_and_back() -> None:
    record = stamps(0, 1, 1795390250, 1, 0)
    assert protocol.stamps(protocol.passed_until(record)) == record
    for wrong in ({"pregreet": "soon"}, {"pregreet": True}, {"pregreet": -5}, {"colour": 1.0}):
        with pytest.raises(protocol.RequestError):
            protocol.stamps(wrong)


def test_the_store_beside_a_cache(tmp_path: Path) -> None:
    """The control server's access to the file: keys of both lengths, one prefix, records that are not written yet."""
    path = tmp_path / "cache"
    with pytest.raises(StoreError, match="does not exist yet"):
        Store(path).get(b"\xc0\0\2\1")
    cache = LmdbCache(path, warn=print, log=print, wake=lambda callback: callback(), cleanup_interval=0)
    cache.open()
    keys = [bytes([192, 0, 2, host]) for host in range(10)] + [bytes([192, 0, 2, 5]) + bytes(12), bytes([192, 0, 3, 0])]
    for key in keys:
        cache.store(key, stamps(9))
    assert cache.pending(keys[3]) == stamps(9)
    cache.turn()
    cache.close()
    store = Store(path)
    network = protocol.network("192.0.2.0/24")
    entries, more = store.entries(network, b"", 100)
    assert ([key for key, _ in entries], more) == (keys[:10], False)
    entries, more = store.entries(None, b"", 5)
    assert ([key for key, _ in entries], more) == (sorted(keys)[:5], True)
    assert [key for key, _ in store.entries(None, entries[-1][0], 100)[0]] == sorted(keys)[5:]
    assert store.stats((0,), 8.0).expiring[:2] == [Expiring(0.0, 0), Expiring(3600.0, 12)]
    store.put([(keys[0], stamps(8))])
    assert store.delete(network, lambda found: found == stamps(9)) == (1, False)
    assert store.get(keys[0]) is None
    assert store.delete(network) == (9, False)
    assert store.get(keys[1]) is None
    assert store.stats((0,), 8.0).entries == 2
    store.put([(keys[0], stamps(0))])
    assert store.get(keys[0]) == stamps(0)
    store.close()


def test_the_store_follows_a_reload_of_max_size(tmp_path: Path) -> None:
    """As shown by `cache stats`, and as applied to the file."""
    path = tmp_path / "cache"
    cache = LmdbCache(path, warn=print, log=print, wake=lambda callback: callback(), cleanup_interval=0)
    cache.open()
    cache.turn()
    cache.close()
    store = Store(path, 1 << 20)
    assert store.stats((0,), 8.0).map_size == 1 << 20
    store.max_size = 1 << 22
    found = store.stats((0,), 8.0)
    assert (found.max_size, found.map_size) == (1 << 22, 1 << 22)
    store.close()


def test_what_is_not_written_yet_can_be_taken_back(tmp_path: Path) -> None:
    cache = LmdbCache(tmp_path / "cache", warn=print, log=print, wake=lambda callback: callback(), cleanup_interval=0)
    cache.open()
    one, two, three = (bytes([192, 0, 2, host]) for host in (1, 2, 3))
    for key in (one, two, three):
        cache.store(key, stamps(9))
    cache.turn()  # in the file now, and kept in memory for batches that began before
    cache.store(two, stamps(10))
    assert cache.forget(one, two) >= 2
    assert cache.lookup(one) is None
    assert cache.lookup(two) is None
    assert cache.pending(two) is None
    assert cache.replace([(three, stamps(11)), (b"\x01\x01\x01\x01", stamps(1))]) == 1
    cache.end_batch()
    cache.turn()
    cache.turn()
    cache.turn()
    assert [cache.lookup(key) for key in (one, two, three)] == [None, None, stamps(11)]
    cache.close()
