"""The expression for log lines, with generated lines and with random bytes."""

from hypothesis import given
from hypothesis import strategies as some

from fastscreen.report.lines import TEST_KINDS, VERBS, pattern
from fastscreen.report.tally import Tally
from fastscreen.report.timestamps import Clock

READ = pattern().findall
ADDRESSES = some.ip_addresses().map(str)
PORTS = some.integers(1, 65535)
STAMPS = some.sampled_from(["Nov 22 08:06:46", "2026-11-22T08:06:46.5+01:00", "2026-11-22T08:06:46+0100"])
OTHERS = (b"PASS", b"DNSBL", b"SCORE", b"PREGREET", b"HANGUP")
WITH_FROM = sorted(verb.decode() for verb in VERBS if not verb.startswith(OTHERS))
# What a client may say: anything printable, and with preference what logs are made of.
SAID = some.lists(
    some.sampled_from(
        ["postfix/postscreen[1]: ", "DISCONNECT ", "[192.0.2.9]:25", " from ", ": ", "; from=<", "\\r\\n"]
    )
    | some.text(some.characters(min_codepoint=32, max_codepoint=126), max_size=9),
    max_size=12,
).map("".join)


@given(STAMPS, some.sampled_from(WITH_FROM), ADDRESSES, PORTS, SAID)
def test_a_line_is_read_as_it_was_made(stamp: str, verb: str, address: str, port: int, said: str) -> None:
    (row,) = READ(f"{stamp} mx1 postfix/postscreen[1]: {verb} from [{address}]:{port}: {said}\n".encode())
    assert (row[3], row[5], row[6]) == (verb.encode(), f"[{address}]:{port}".encode(), address.encode())
    assert row[7] == f": {said}".encode()


@given(ADDRESSES, PORTS, SAID)
def test_what_is_said_is_never_another_event(address: str, port: int, said: str) -> None:
    tally = Tally()
    text = f"Nov 22 08:06:46 mx1 postfix/postscreen[1]: PREGREET 9 after 0.1 from [{address}]:{port}: {said}\n"
    tally.add(READ(text.encode()), Clock(1_795_348_800))
    (slot,) = tally.slots.values()
    assert slot[TEST_KINDS["pregreet"]] == sum(slot) == 1
    assert list(tally.clients) == [address.encode()]


@given(some.binary(max_size=300).filter(lambda octets: b"\n" not in octets), STAMPS)
def test_any_octets_behind_the_head_are_one_row(octets: bytes, stamp: str) -> None:
    tally = Tally()
    rows = READ(f"{stamp} mx1 postfix/postscreen[1]: ".encode() + octets + b"\n" + octets + b"\n")
    assert len(rows) == 2
    tally.add(rows, Clock(1_795_348_800))
    tally.finish()


@given(some.binary(max_size=2000))
def test_there_is_a_row_for_each_line(octets: bytes) -> None:
    assert len(READ(octets + b"\n")) == octets.count(b"\n") + 1
