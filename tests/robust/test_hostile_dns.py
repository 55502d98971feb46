"""Hostile, slow and silent name servers, and their effect on the score of a client."""

import itertools
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robust.conftest import Alter, Start
from robust.fakedns import (
    Answer,
    Behaviour,
    FakeDns,
    Question,
    failing,
    listed,
    looked_up,
    not_listed,
    reply,
    silent,
)
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, TEASER, Client, Screener, wait_until

BLOCKED = b"550 5.7.1 Service unavailable; client [%b] blocked using %b\r\n"
UNSURE = b"450 4.7.1 Service unavailable; client [%b] blocked using %b\r\n"


def lists(dns: FakeDns, *sites: str, **more: object) -> dict[str, dict[str, object]]:
    settings: dict[str, object] = {"sites": list(sites), "action": "enforce", "resolvers": [dns.endpoint]}
    return {"dnsbl": settings | more}


def verdict(screener: Screener, source: str = "127.1.0.1") -> bytes:
    """The reply to RCPT for a well-behaved client, or the greeting of the MTA if it is handed off."""
    with screener.connect(source) as client:
        return verdict_of(client)


def verdict_of(client: Client) -> bytes:
    if (greeting := client.read()) == TEASER + FROM_MTA:
        return FROM_MTA
    assert greeting in (TEASER + GREETING, GREETING)
    client.ask(b"EHLO me")
    client.ask(b"MAIL FROM:<a@example.test>")
    said = client.ask(b"RCPT TO:<b@example.test>")
    client.ask(b"QUIT")
    return said


def forged(question: Question) -> list[Answer]:
    """Answers with all ids but the right one, and with other questions; they claim that the client is listed."""
    genuine = reply(question, "127.0.0.2")
    other = bytearray(genuine)
    other[13] ^= 1
    kind = bytearray(genuine)
    kind[question.end - 3] = 16
    wrong = [
        *(
            reply(question, "127.0.0.2", identity=bytes([question.packet[0] ^ bit, question.packet[1]]))
            for bit in (1, 128)
        ),
        reply(question, "127.0.0.2", identity=bytes([question.packet[0], question.packet[1] ^ 1])),
        bytes(other),
        bytes(kind),
        genuine[:4] + b"\x00\x00" + genuine[6:],  # no question
        genuine[:2] + b"\x01\x00" + genuine[4:],  # a question, not a reply
        genuine[:11],
        b"",
        question.packet,
    ]
    return [Answer(packet) for packet in wrong]


def test_forged_answers_are_as_if_they_never_came(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """The true answer may still come, and counts."""
    dns.zones["forged.test"] = lambda question: [*forged(question), *not_listed()(question)]
    dns.zones["both.test"] = lambda question: [*forged(question), *listed("127.0.0.4")(question)]
    screener = start(lists(dns, "forged.test", "both.test*0"))
    assert verdict(screener) == FROM_MTA
    assert screener.lines("listed by domain forged.test") == []
    line = r" postfix/dnsblog\[\d+\]: addr 127\.1\.0\.1 listed by domain both\.test as 127\.0\.0\.4$"
    assert len(screener.lines(line)) == 1
    assert len(screener.lines("listed by domain")) == 1


def loop_to_itself(question: Question) -> bytes:
    """The name of the answer is a pointer to itself."""
    here = struct.pack("!H", 0xC000 | question.end)
    return reply(question, "127.0.0.2").replace(b"\xc0\x0c\x00\x01", here + b"\x00\x01")


def loop_of_two(question: Question) -> bytes:
    head = reply(question, "127.0.0.2")[: question.end]
    first = struct.pack("!H", 0xC000 | question.end + 2)
    second = struct.pack("!H", 0xC000 | question.end)
    return head + first + second + struct.pack("!HHIH", 1, 1, 300, 4) + b"\x7f\x00\x00\x02"


def pointer_outside(question: Question) -> bytes:
    return reply(question, "127.0.0.2").replace(b"\xc0\x0c\x00\x01", b"\xff\xff\x00\x01")


def cut(question: Question) -> bytes:
    return reply(question, "127.0.0.2")[:-1]


def more_records_than_there_are(question: Question) -> bytes:
    packet = bytearray(reply(question, "127.0.0.2"))
    packet[6:8] = b"\xff\xff"
    return bytes(packet)


def address_of_two_octets(question: Question) -> bytes:
    return reply(question, "127.0.0.2").replace(b"\x00\x04\x7f\x00\x00\x02", b"\x00\x02\x7f\x00")


def endless_chain(question: Question) -> bytes:
    record = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 300, 2) + b"\xc0\x0c"
    head = bytearray(reply(question))
    head[6:8] = struct.pack("!H", 60)
    return bytes(head) + record * 60


@pytest.mark.parametrize(
    "packet",
    [
        loop_to_itself,
        loop_of_two,
        pointer_outside,
        cut,
        more_records_than_there_are,
        address_of_two_octets,
        endless_chain,
    ],
)
def test_malformed_answer_lists_nobody(
    start: Start, mta: FakeMta, dns: FakeDns, packet: Callable[[Question], bytes]
) -> None:
    dns.zones["bad.test"] = lambda question: [Answer(packet(question))]
    screener = start(lists(dns, "bad.test"))
    assert verdict(screener) == FROM_MTA
    screener.line(
        r" postfix/dnsblog\[\d+\]: warning: dnsblog_query: lookup error for DNS query 1\.0\.1\.127\.bad\.test: "
    )
    assert screener.lines("listed by domain") == []


@pytest.mark.parametrize("size", [4097, 65000])
def test_huge_datagram_is_ignored(start: Start, mta: FakeMta, dns: FakeDns, size: int) -> None:
    def huge(question: Question) -> list[Answer]:
        return [Answer(reply(question, "127.0.0.2") + b"\0" * size), Answer(reply(question, "127.0.0.3"))]

    dns.zones["huge.test"] = huge
    screener = start(lists(dns, "huge.test"))
    before = screener.status("RssAnon")
    for number in range(1, 4):
        source = f"127.1.0.{number}"
        assert verdict(screener, source) == BLOCKED % (source.encode(), b"huge.test")
    assert len(screener.lines(r"as 127\.0\.0\.3$")) == 3
    assert screener.lines(r"as 127\.0\.0\.2$") == []
    assert screener.status("RssAnon") - before < 1024


def test_answer_after_the_greet_wait_comes_too_late(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """It makes nobody wait; the next connection profits from it."""
    dns.zones["late.test"] = listed("127.0.0.2", delay=1.3)
    screener = start(lists(dns, "late.test"), {"greet": {"wait": "1s"}})
    assert verdict(screener) == FROM_MTA
    screener.line("addr 127.1.0.1 listed by domain late.test as 127.0.0.2")
    asked = dns.count("late.test")
    assert verdict(screener, "127.1.0.1") == BLOCKED % (b"127.1.0.1", b"late.test")
    assert dns.count("late.test") == asked


def test_answer_to_the_first_of_several_tries(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """A list that takes longer than a try, but not than its time: the question was sent again meanwhile."""
    dns.zones["slow.test"] = listed("127.0.0.2", delay=0.8)
    screener = start(lists(dns, "slow.test", timeout="1s"), {"greet": {"wait": "2s"}})
    assert verdict(screener) == BLOCKED % (b"127.1.0.1", b"slow.test")
    assert not screener.lines("reply timeout")
    assert dns.count("slow.test") == 2


def test_answer_after_the_deadline_is_forgotten(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["late.test"] = listed("127.0.0.2", delay=2.5)
    screener = start(lists(dns, "late.test", timeout="2s"))
    assert verdict(screener) == FROM_MTA
    screener.line(r"postfix/postscreen\[\d+\]: warning: dnsblog reply timeout 2s for late.test$")
    time.sleep(0.8)  # until after the answer came
    assert screener.lines("listed by domain") == []
    assert verdict(screener) == FROM_MTA


def test_truncated_answer_is_asked_over_tcp(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    addresses = [f"127.0.1.{number}" for number in range(1, 101)]

    def truncating(question: Question) -> list[Answer]:
        return [Answer(reply(question, *addresses) if question.over_tcp else reply(question, flags=0x8380))]

    dns.zones["big.test"] = truncating
    screener = start(lists(dns, "big.test=127.0.1.7"))
    assert verdict(screener) == BLOCKED % (b"127.1.0.1", b"big.test")
    assert dns.count("big.test") == 1
    assert sum(dns.asked_over_tcp.values()) == 1
    assert 7 <= len(screener.lines("addr 127.1.0.1 listed by domain big.test as 127.0.1.")) <= 100


def test_truncated_answer_without_tcp_lists_nobody(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["big.test"] = lambda question: [] if question.over_tcp else [Answer(reply(question, flags=0x8380))]
    screener = start(lists(dns, "big.test", timeout="2s"))
    assert verdict(screener) == FROM_MTA
    screener.line("reply timeout 2s for big.test|lookup error for DNS query 1.0.1.127.big.test")


@pytest.mark.parametrize("code", [2, 5, 4, 15])
def test_failing_list_lists_nobody(start: Start, mta: FakeMta, dns: FakeDns, code: int) -> None:
    dns.zones["fail.test"] = failing(code)
    screener = start(lists(dns, "fail.test"))
    assert verdict(screener) == FROM_MTA
    screener.line("warning: dnsblog_query: lookup error for DNS query 1.0.1.127.fail.test: ")


def test_failures_do_not_fill_the_log(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["fail.test"] = failing()
    screener = start(lists(dns, "fail.test"))
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 51)]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
    assert dns.count("fail.test") >= 50
    assert len(screener.lines("lookup error")) == 1


@pytest.mark.parametrize("how", ["silent", "refusing", "failing"])
def test_second_resolver_helps_out(start: Start, mta: FakeMta, dns: FakeDns, how: str) -> None:
    """The first says nothing, is not there (ICMP), or answers SERVFAIL: the verdict is the second one's."""
    dns.zones["list.test"] = listed("127.0.0.2")
    first = FakeDns({"list.test": silent if how == "silent" else failing()}, "127.9.53.2")
    if how == "refusing":
        first.close()
    try:
        settings = lists(dns, "list.test", resolvers=[first.endpoint, dns.endpoint])
        screener = start(settings, {"greet": {"wait": "4s"}})
        clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 6)]
        for number, client in enumerate(clients, 1):
            assert verdict_of(client) == BLOCKED % (b"127.1.0.%d" % number, b"list.test")
        assert screener.lines("warning") == []
        if how == "silent":
            # Queries for later clients do not go to the silent resolver first.
            asked = first.count("list.test")
            began = time.monotonic()
            assert asked > 0
            with screener.connect("127.1.0.9") as client:
                screener.line("addr 127.1.0.9 listed by domain list.test")
                assert client.read() == TEASER + GREETING
            assert first.count("list.test") == asked, time.monotonic() - began
    finally:
        if how != "refusing":
            first.close()


@pytest.mark.parametrize(
    "others",
    [
        [silent, None],
        [failing(), None],
        [None, failing()],
        [None, looked_up(listed("127.0.0.2"), 60.0), silent],
    ],
    ids=["silent-slow", "SERVFAIL-slow", "slow-SERVFAIL", "slow-slower-silent"],
)
def test_a_resolver_that_has_to_look_up_first(
    start: Start, mta: FakeMta, dns: FakeDns, others: list[Behaviour | None]
) -> None:
    """It takes longer than a try, and the others are of no use: what it says in the end is heard. None: that one."""
    dns.zones["list.test"] = looked_up(listed("127.0.0.2"), 2.5)
    servers = [dns if each is None else FakeDns({"list.test": each}, "127.9.53.2") for each in others]
    try:
        settings = lists(dns, "list.test", resolvers=[server.endpoint for server in servers], timeout="30s")
        screener = start(settings, {"greet": {"wait": "30s"}})
        for number in (1, 2):
            with screener.connect(f"127.1.0.{number}"):
                screener.line(rf"addr 127\.1\.0\.{number} listed by domain list\.test as 127\.0\.0\.2$")
        assert screener.lines("warning") == []
    finally:
        for server in servers:
            if server is not dns:
                server.close()


def test_all_resolvers_say_that_they_do_not_know(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """Each is asked once."""
    dns.zones["list.test"] = failing()
    other = FakeDns({"list.test": failing(5)}, "127.9.53.2")
    try:
        screener = start(lists(dns, "list.test", resolvers=[dns.endpoint, other.endpoint]))
        assert verdict(screener) == FROM_MTA
        screener.line("warning: dnsblog_query: lookup error for DNS query 1.0.1.127.list.test: ")
        assert (dns.count("list.test"), other.count("list.test")) == (1, 1)
    finally:
        other.close()


def test_resolvers_without_a_way_to_them(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """No socket can be opened for two of them, and there is time for two: the second client does not start again."""
    dns.zones["list.test"] = listed("127.0.0.2")
    unreachable = ["255.255.255.255:53", "255.255.255.255:54"]
    settings = lists(dns, "list.test", resolvers=[*unreachable, dns.endpoint], timeout="2s")
    screener = start(settings, {"greet": {"wait": "3s"}})
    with screener.connect("127.1.0.1"):
        screener.line("warning: dnsblog reply timeout 2s for list.test")
    with screener.connect("127.1.0.2"):
        screener.line("addr 127.1.0.2 listed by domain list.test")


@pytest.fixture
def resolv_conf(folder: Path, dns: FakeDns, alter: Alter) -> Path:
    """What screeners of this test take for the system's, with the port of `dns`, and look at again every second."""
    made = folder / "resolv.conf"
    alter(
        "from pathlib import Path\nfrom fastscreen.daemon import worker\nfrom fastscreen.dns import resolver\n"
        f"resolver.RESOLV_CONF = Path({str(made)!r})\n"
        f"resolver.PORT, worker.RESOLVERS_SECONDS = {dns.endpoint.rpartition(':')[2]}, 1"
    )
    return made


@pytest.mark.parametrize("before", [None, "nameserver 127.9.53.2\n", "nameserver fe80::1%none\n"])
def test_the_system_learns_of_its_resolvers_later(
    start: Start, mta: FakeMta, dns: FakeDns, resolv_conf: Path, before: str | None
) -> None:
    """None was named at the start, or one that is gone, or on a link that is not there yet."""
    for nobody in ("1.0.0.127.", "1.0.0.0.0.0.f.7.f.f.f.f." + "0." * 20):  # its test entries are sound
        dns.zones[f"{nobody}list.test"] = not_listed()
    dns.zones["list.test"] = listed("127.0.0.2")
    if before is not None:
        resolv_conf.write_text(before)
    settings = {"sites": ["list.test"], "action": "enforce", "timeout": "1s", "probe_interval": 300}
    screener = start({"dnsbl": settings}, {"listen": {"workers": 1}})
    assert verdict(screener) == FROM_MTA
    probed = dns.count("list.test")
    resolv_conf.write_text("nameserver 127.9.53.1\n")
    screener.line(rf"resolvers of {resolv_conf} now: {dns.endpoint}$")
    assert verdict(screener, "127.1.0.2") == BLOCKED % (b"127.1.0.2", b"list.test")
    wait_until(lambda: dns.asked["2.0.0.127.list.test"] > 0, "the probes of those that are there now")
    assert probed == 0
    # A file that is just being written is not valid.
    resolv_conf.write_text("")
    time.sleep(2)
    assert verdict(screener, "127.1.0.3") == BLOCKED % (b"127.1.0.3", b"list.test")
    assert len(screener.lines("resolvers of ")) == 1


def test_all_resolvers_refuse(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """No spin, no listing; it works when one is there again."""
    gone = FakeDns(address="127.9.53.2")
    gone.close()
    screener = start(lists(dns, "list.test", resolvers=[gone.endpoint], timeout="2s"))
    used = screener.cpu()
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 51)]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
    screener.line("warning: dnsblog reply timeout 2s for list.test")
    assert screener.cpu() - used < 1.0


def test_an_unreachable_resolver_is_told_within_a_greet_wait(start: Start, mta: FakeMta) -> None:
    """When the first client connects, the log says why no client is listed."""
    gone = FakeDns(address="127.9.53.2")
    settings = lists(gone, "list.test", "other.test")
    gone.zones |= {"list.test": silent, "other.test": silent}
    screener = start(settings, {"greet": {"wait": "20s"}})
    with screener.connect("127.1.0.1"):
        screener.line(r"warning: no DNS resolver has answered for 5 s: .127\.9\.53\.2.:\d+; clients pass as if ")
        assert not screener.lines("PASS")
    gone.zones.clear()
    with screener.connect("127.1.0.2"):
        screener.line("DNS resolvers answer again$")
    gone.close()


def test_one_list_that_is_silent_is_not_taken_for_the_resolver(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["list.test"] = silent
    screener = start(lists(dns, "list.test", "other.test"), {"greet": {"wait": "20s"}})
    with screener.connect("127.1.0.1"):
        screener.line("warning: dnsblog reply timeout 10s for list.test")
    assert len(screener.lines("warning")) == 1


NO_LISTINGS = [
    "126.0.0.2",
    "128.0.0.1",
    "0.0.0.0",
    "192.0.2.1",
    "255.255.255.255",
    "127.255.255.252",
    "127.255.255.254",
]


@pytest.mark.parametrize("address", NO_LISTINGS)
def test_answer_that_is_no_listing_never_scores(start: Start, mta: FakeMta, dns: FakeDns, address: str) -> None:
    """Nor for a list to allow: a resolver that lies would let every client pass."""
    dns.zones["deny.test"] = listed(address)
    dns.zones["allow.test"] = listed(address)
    dns.zones["true.test"] = listed("127.0.0.2", address)
    settings = lists(dns, "deny.test*9", "true.test*2", "allow.test*-9", threshold=2, allowlist_threshold=-1)
    screener = start(settings)
    # What the allow list would have said is not known: 450 and not 550.
    assert verdict(screener) == UNSURE % (b"127.1.0.1", b"true.test")
    screener.line(r"DNSBL rank 2 for \[127\.1\.0\.1\]")
    screener.line(rf"warning: domain deny.test answered {address}, which is not a listing")
    assert len(screener.lines("listed by domain")) == 1


def test_dnswl_over_quota_is_no_listing(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """127.0.0.255 of dnswl.org means 'you ask too much'; of another list it is a listing."""
    dns.zones["list.dnswl.org"] = listed("127.0.0.255")
    dns.zones["other.test"] = listed("127.0.0.255")
    screener = start(lists(dns, "list.dnswl.org*-9", "other.test*2", threshold=2, allowlist_threshold=-1))
    assert verdict(screener) == UNSURE % (b"127.1.0.1", b"other.test")
    assert len(screener.lines("listed by domain")) == 1
    screener.line("warning: domain list.dnswl.org answered 127.0.0.255, which is not a listing")


@pytest.mark.parametrize("how", [silent, failing()], ids=["silent", "SERVFAIL"])
def test_unanswered_allow_list_means_later(
    start: Start, mta: FakeMta, dns: FakeDns, how: Behaviour, folder: object
) -> None:
    """It could have lowered the score: 450 instead of 550 (not in reference 4.5), and nothing is stored."""
    dns.zones["deny.test"] = listed("127.0.0.2")
    dns.zones["allow.test"] = how
    settings = lists(dns, "deny.test*3", "allow.test*-4", threshold=3)
    cache = {"cache": {"path": f"{folder}/cache"}}
    screener = start(settings, cache)
    assert verdict(screener) == UNSURE % (b"127.1.0.1", b"deny.test")
    screener.line(r"NOQUEUE: reject: RCPT from \[127\.1\.0\.1\]:\d+: 450 4\.7\.1 Service unavailable; client ")
    dns.zones["allow.test"] = listed("127.0.0.2")
    assert verdict(screener) == FROM_MTA
    assert len(screener.lines("PASS NEW")) == 1


def test_unanswered_allow_list_means_later_with_drop(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["deny.test"] = listed("127.0.0.2")
    dns.zones["allow.test"] = silent
    screener = start(lists(dns, "deny.test*3", "allow.test*-4", threshold=3, action="drop"))
    with screener.connect() as client:
        expected = b"421 4.7.1 Service unavailable; client [127.1.0.1] blocked using deny.test\r\n"
        assert client.read_all() == TEASER + expected
    assert screener.lines("PASS") == []


def test_unanswered_allow_list_that_could_not_help(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["deny.test"] = listed("127.0.0.2")
    dns.zones["allow.test"] = silent
    screener = start(lists(dns, "deny.test*8", "allow.test*-4", threshold=3))
    assert verdict(screener) == BLOCKED % (b"127.1.0.1", b"deny.test")


def test_lists_are_asked_once_for_sessions_of_one_client(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["one.test"] = listed("127.0.0.2", delay=0.2)
    dns.zones["two.test"] = not_listed()
    screener = start(lists(dns, "one.test", "two.test", "one.test=127.0.0.9*5"))
    clients = [screener.connect("127.1.0.1") for _ in range(20)]
    others = [screener.connect(f"127.1.1.{number}") for number in range(1, 11)]
    for client in clients:
        assert verdict_of(client) == BLOCKED % (b"127.1.0.1", b"one.test")
    assert dns.asked["1.0.1.127.one.test"] == dns.asked["1.0.1.127.two.test"] == 1
    for other in others:
        other.socket.close()
    assert dns.count("one.test") == 11


def test_kept_answer_logs_the_same_and_asks_nobody(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["one.test"] = listed("127.0.0.2", "127.0.0.3", ttl=3600)
    dns.zones["two.test"] = not_listed(3600)
    screener = start(lists(dns, "one.test", "two.test"))
    assert verdict(screener) == BLOCKED % (b"127.1.0.1", b"one.test")
    asked = dns.asked.total()
    assert verdict(screener) == BLOCKED % (b"127.1.0.1", b"one.test")
    assert dns.asked.total() == asked == 2
    assert len(screener.lines(r"addr 127\.1\.0\.1 listed by domain one\.test as 127\.0\.0\.2$")) == 2
    assert len(screener.lines(r"addr 127\.1\.0\.1 listed by domain one\.test as 127\.0\.0\.3$")) == 2
    assert len(screener.lines("DNSBL rank 1 ")) == 2


@pytest.mark.parametrize("positive", [True, False])
def test_answer_is_kept_for_its_ttl(start: Start, mta: FakeMta, dns: FakeDns, positive: bool) -> None:
    """A TTL of 1 s: asked again after it. (That none is kept above 300 s no test of a process can wait for.)"""
    dns.zones["one.test"] = listed("127.0.0.2", ttl=1) if positive else not_listed(1)
    screener = start(lists(dns, "one.test", threshold=2))
    verdict(screener)
    assert dns.count("one.test") == 1
    time.sleep(1.1)
    verdict(screener)
    assert dns.count("one.test") == 2


def test_ids_and_ports_are_not_foreseeable(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    screener = start(lists(dns, *(f"list{number}.test" for number in range(20))))
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 51)]
    wait_until(lambda: dns.asked.total() >= 500, "hundreds of questions")
    ids = [int.from_bytes(each, "big") for each in dns.identities]
    assert len(set(ids)) > 450
    steps = {(after - before) % 65536 for before, after in itertools.pairwise(ids)}
    assert len(steps) > 450
    assert len(dns.ports) >= 4
    for client in clients:
        client.socket.close()


def test_flood_from_the_resolver(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """A thousand answers to each question: the first counts, others are served meanwhile, memory stays."""
    dns.zones["one.test"] = lambda question: listed("127.0.0.2")(question) * 1000
    # Without a teaser the wait ends with the answer, however long that takes here.
    screener = start(lists(dns, "one.test", timeout="60s"), {"greet": {"banner": "", "wait": "60s"}})
    before = screener.status("RssAnon")
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 21)]
    for number, client in enumerate(clients, 1):
        assert verdict_of(client) == BLOCKED % (b"127.1.0.%d" % number, b"one.test")
    assert len(screener.lines("listed by domain one.test")) == 20
    assert screener.status("RssAnon") - before < 2048


def test_clients_leave_before_their_lists_answer(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["slow.test"] = listed("127.0.0.2", "127.0.0.3", delay=0.5)
    dns.zones["mute.test"] = silent
    screener = start(lists(dns, "slow.test", "mute.test", timeout="2s"))
    for number in range(1, 101):
        client = screener.connect(f"127.1.0.{number}")
        assert client.socket.recv(len(TEASER)) == TEASER
        client.reset() if number % 2 else client.socket.close()
    screener.line("HANGUP", 100)
    screener.line("listed by domain slow.test as 127.0.0.2", 100)
    screener.line("reply timeout 2s for mute.test")
    assert verdict(screener, "127.1.0.1") == BLOCKED % (b"127.1.0.1", b"slow.test")


def test_thousands_of_questions_without_an_answer(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """More than may be in flight: the greet wait ends all the same, and memory comes back."""
    for number in range(20):
        dns.zones[f"mute{number}.test"] = silent
    settings = lists(dns, *(f"mute{number}.test" for number in range(20)), timeout="2s")
    screener = start(settings, {"limits": {"pre_queue": 5000, "post_queue": 1000}})
    clients = [screener.connect(f"127.{2 + number // 200}.0.{number % 200 + 1}") for number in range(600)]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
        client.socket.close()
    screener.line("more failed lookups|reply timeout 2s for mute19.test")
    assert verdict(screener, "127.1.0.1") == FROM_MTA


def test_question_of_an_earlier_session_is_asked_again(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """A client comes back while a query of its first session is unanswered; that query is not sent again."""
    dns.zones["deny.test"] = listed("127.0.0.2")
    dns.zones["allow.test"] = silent
    screener = start(lists(dns, "deny.test*3", "allow.test*-4", threshold=3, timeout="60s"))
    assert verdict(screener) == UNSURE % (b"127.1.0.1", b"deny.test")
    time.sleep(2.5)  # until after the last time that it is sent
    dns.zones["allow.test"] = listed("127.0.0.2")
    assert verdict(screener) == FROM_MTA
