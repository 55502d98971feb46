"""Scorers of what a client does in the session: TLS that is not used, many recipients, recipients that the MTA rejects;
and scorers with a negative weight, which must have spoken before a client is rejected."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fastscreen.history import session
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, HOSTNAME, TEASER, Client
from robust.historycore import Client as CoreClient
from robust.historycore import Core
from robust.proxymta import Connection, ProxyMta
from robust.test_score_helo import LATER, blocked, words
from robust.tlsclient import certificates

NO_TLS = blocked("poor reputation")  # spammers are not told what to change
MANY = blocked("too many recipients")
RCPT = b"RCPT TO:<c@d.test>"
MAIL = b"MAIL FROM:<a@b.test>"

Make = Callable[..., Core]


def tls(folder: Path, level: str = "may") -> Map:
    return {"tls": {"level": level, "certificates": certificates(folder)}}


def scored(weights: Mapping[str, object], threshold: int = 1, **dnsbl: object) -> Map:
    return {"score": {"action": "enforce", **weights}, "dnsbl": {"threshold": threshold, "action": "enforce", **dnsbl}}


def asked(client: Client, *lines: bytes) -> bytes:
    """One line after the other, from the greeting on; the last reply."""
    assert client.read() == TEASER + GREETING
    for line in lines:
        answer = client.ask(line)
    return answer


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made = FakeMta(folder / "core-mta")
    made.start()
    with ExitStack() as opened:
        yield lambda settings=None, **more: Core(folder, opened, settings, **more)
    made.close()


# ---- no_tls


def test_mail_without_tls(start: Start, folder: Path) -> None:
    screener = start(scored({"no_tls": 1}), tls(folder))
    with screener.connect() as client:
        assert asked(client, b"EHLO a.se", MAIL, RCPT) == NO_TLS
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        screener.line(f"DISCONNECT {client.pattern}")
        assert words(screener, client)[1:] == [
            "SCORE from CLIENT: no_tls +1: MAIL without TLS",
            "SCORE rank 1 for CLIENT: no_tls 1",
            "DISCONNECT CLIENT",
        ]


@pytest.mark.parametrize("hello", [(b"HELO a.se",), ()])
def test_it_was_not_announced(start: Start, folder: Path, hello: tuple[bytes, ...]) -> None:
    screener = start(scored({"no_tls": 1}), tls(folder))
    with screener.connect() as client:
        assert asked(client, *hello, MAIL, RCPT) == LATER
        assert not screener.lines("SCORE")


def test_without_a_certificate(start: Start) -> None:
    screener = start(scored({"no_tls": 1}))
    with screener.connect() as client:
        assert asked(client, b"EHLO a.se", MAIL, RCPT) == LATER


def test_tls_that_is_not_available(make: Make, folder: Path) -> None:
    """The client tried: 454. It must not be punished for that."""
    core = make(scored({"no_tls": 1}) | tls(folder))
    client = core.connect()
    client.until(lambda got: b"220 mx.test" in got)
    assert client.ask(b"EHLO a.se", b"STARTTLS").startswith(b"454 ")
    assert client.ask(b"EHLO a.se", MAIL, RCPT) == LATER
    client.hang_up()
    found = core.row()
    assert "evidence" not in found


def test_tls_after_mail(make: Make, folder: Path) -> None:
    """With tls.level = encrypt, MAIL without TLS is refused; the client then does as it is told."""
    core = make(scored({"no_tls": 1}) | tls(folder, "encrypt"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    core.screener.use_tls(ours.fileno(), memoryview(b"\1"))
    client = core.connect()
    client.until(lambda got: b"220 mx.test" in got)
    assert client.ask(b"EHLO a.se", MAIL).startswith(b"530 ")
    assert client.ask(b"STARTTLS").startswith(b"220 ")
    _, (passed, plaintext), _, _ = socket.recv_fds(theirs, 100, 2)
    inside = CoreClient(core, socket.socket(fileno=plaintext))
    inside.socket.setblocking(False)
    assert inside.ask(b"EHLO a.se", MAIL, RCPT) == LATER
    inside.hang_up()
    os.close(passed)
    found = core.row()
    ours.close()
    theirs.close()
    assert (found["tls"], found.get("evidence"), found["outcome"]) == ("used", None, "deferred")


def test_everything_in_the_record(make: Make, folder: Path) -> None:
    core = make(scored({"no_tls": 2, "helo_reserved": 1}, 9) | tls(folder))
    client = core.connect()
    client.until(lambda got: b"220 mx.test" in got)
    client.ask(b"EHLO localhost", MAIL, RCPT, b"QUIT")
    client.hang_up()
    found = core.row()
    assert (found["evidence"], found["score"]) == (("helo_reserved", "no_tls"), 3)


# ---- rcpt_many


def test_many_recipients(start: Start) -> None:
    """From the recipient on that reaches the number."""
    screener = start(scored({"rcpt_many": 3, "rcpt_many_from": 3}, 3))
    with screener.connect() as client:
        assert asked(client, b"EHLO a.se", MAIL, RCPT) == LATER
        assert client.ask(RCPT) == LATER
        assert client.ask(RCPT) == client.ask(RCPT) == MANY
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        screener.line(f"DISCONNECT {client.pattern}")
        assert words(screener, client)[1:] == [
            "SCORE from CLIENT: rcpt_many +3: 3 recipients",
            "SCORE rank 3 for CLIENT: rcpt_many 3",
            "DISCONNECT CLIENT",
        ]
        assert not screener.lines("PASS")


def test_many_transactions(start: Start) -> None:
    """They count per session, also without MAIL; but a verdict needs MAIL."""
    screener = start(scored({"rcpt_many": 1, "rcpt_many_from": 3}))
    with screener.connect() as client:
        assert asked(client, b"EHLO a.se", RCPT) == b"503 5.5.1 Error: need MAIL command\r\n"
        assert client.ask(RCPT) == client.ask(RCPT) == b"503 5.5.1 Error: need MAIL command\r\n"
        assert not screener.lines("SCORE rank")
        client.ask(MAIL)
        assert client.ask(RCPT) == MANY


def test_no_pass_without_mail(start: Start, folder: Path, mta: FakeMta) -> None:
    """The score test is passed with a recipient: no scorer of MAIL can be avoided by leaving before it."""
    screener = start(scored({"no_tls": 1}), tls(folder), {"cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        assert asked(client, b"EHLO a.se", RCPT) == b"503 5.5.1 Error: need MAIL command\r\n"
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        screener.line(f"DISCONNECT {client.pattern}")
    assert not screener.lines("PASS NEW")
    with screener.connect() as client:  # it has passed the greet wait only
        assert client.read() == GREETING
        for line in (b"EHLO a.se", MAIL, RCPT):
            answer = client.ask(line)
        assert answer == NO_TLS


# ---- rcpt_rejected, and recipients of relayed sessions


def serve(connection: Connection, _: int) -> None:
    """An MTA that rejects recipients with "bad" for good, and those with "later" for now."""
    connection.send(b"220 mta\r\n")
    with contextlib.suppress(EOFError, OSError):
        while line := connection.line():
            answer = b"550 5.1.1 no\r\n" if b"bad" in line else b"450 no\r\n" if b"later" in line else b"250 ok\r\n"
            connection.send(ProxyMta.OFFER if line.startswith(b"EHLO") else answer)


def relayed(core: Core, *names: bytes) -> dict[str, Any]:
    client = core.connect()
    client.until(lambda got: b"220 " in got)
    client.ask(b"EHLO a.se", MAIL, *(b"RCPT TO:<%b@d.test>" % name for name in names), b"QUIT")
    client.hang_up()
    (ended, address, packed, _, _) = rows(core)
    return fields(ended, address, packed)


def rows(core: Core) -> tuple[int, bytes, bytes, int, int]:
    core.end()
    found, lost = core.reader.read(10)
    core.reader.done()
    assert (len(found), lost) == (1, 0)
    return found[0]


def fields(ended: int, address: bytes, packed: bytes) -> dict[str, Any]:

    found = session.read(ended, address, packed, None)
    assert found is not None
    return {name: getattr(found, name) for name in found.__struct_fields__}


@pytest.mark.parametrize(
    ("names", "answered", "refused", "found"),
    [
        ((b"bad", b"bad"), 2, 2, False),
        ((b"bad", b"bad", b"c"), 3, 2, True),
        ((b"bad", b"c", b"bad", b"c"), 4, 2, True),
        ((b"bad", b"bad", b"c", b"c", b"c"), 5, 2, False),
        ((b"later", b"later", b"later"), 3, 0, False),
    ],
)
@pytest.mark.parametrize("way", ["continued", "relayed"])
def test_rejected_recipients(
    make: Make, way: str, names: tuple[bytes, ...], answered: int, refused: int, found: bool
) -> None:
    with ProxyMta(serve) as mta:
        to = {"continue_to": mta.target} if way == "continued" else {"to": mta.target}
        core = make(scored({"rcpt_rejected": 2}) | {"handoff": to, "greet": {"banner": ""}})
        if way == "relayed":  # known from now on
            client = core.connect()
            client.until(lambda got: b"220 " in got)
            client.ask(b"EHLO a.se", MAIL, RCPT, b"QUIT")
            client.hang_up()
            rows(core)
        row = relayed(core, *names)
        assert row["outcome"] == way
        assert (row["mta_recipients"], row["mta_refused"]) == (answered, refused)
        assert row["evidence"] == (("rcpt_rejected",) if found else ())
        assert row["score"] == (2 if found else None if way == "relayed" else row["score"])
        if way == "continued":
            assert row["dialect"].split()[:-1] == ["EHLO", "upper", "quit"]


def test_rejected_recipients_without_history(start: Start) -> None:
    """The log has them, once; and permitted clients are not judged."""
    with ProxyMta(serve) as mta:
        screener = start(
            scored({"rcpt_rejected": 1, "rcpt_many": 1, "rcpt_many_from": 3}),
            {"handoff": {"continue_to": mta.target, "to": mta.target}},
            {"access": {"list": ["inline:{ { 127.1.0.2 = permit } }"]}},
        )
        for source in ("127.1.0.2", "127.1.0.1"):
            with screener.connect(source) as client:
                if source == "127.1.0.1":
                    client.read()
                else:
                    assert client.read() == b"220 mta\r\n"
                for line in (b"EHLO a.se", MAIL, *[b"RCPT TO:<bad@d.test>"] * 3, RCPT):
                    client.ask(line)
        screener.line(r"SCORE from \[127.1.0.1\]:\d+: rcpt_rejected .1: 3 of 4 recipients$")
        screener.line(r"SCORE from \[127.1.0.1\]:\d+: rcpt_many .1: 4 recipients$")
        assert len(screener.lines("SCORE")) == 2


# ---- negative weights


def test_a_list_and_a_session_that_saves_the_client(start: Start, dns: FakeDns, folder: Path, mta: FakeMta) -> None:
    """The lists reach the threshold. A scorer with a negative weight has not spoken then: the verdict waits for it."""
    dns.zones["1.0.1.127.bl.test"] = listed("127.0.0.2")
    sites = {"sites": ["bl.test*3"], "resolvers": [dns.endpoint], "min_ttl": "60s"}
    screener = start(scored({"helo_ours": -2}, 3, **sites), {"cache": {"path": str(folder / "cache")}})
    with screener.connect() as client:
        assert asked(client, b"EHLO " + HOSTNAME.encode(), MAIL, RCPT) == LATER
        client.ask(b"QUIT")
        screener.line(f"PASS NEW {client.pattern}")
        assert not screener.lines("DNSBL rank")
    with screener.connect() as client:
        assert client.read() == FROM_MTA


@pytest.mark.parametrize("action", ["enforce", "drop"])
def test_a_session_that_does_not_save_it(start: Start, dns: FakeDns, action: str) -> None:
    """It is rejected for good at its recipient, once they have spoken, and with a 450 before that."""
    dns.zones["bl.test"] = listed("127.0.0.2")
    sites = {"sites": ["bl.test*3"], "resolvers": [dns.endpoint]}
    screener = start(scored({"helo_ours": -2}, 3, **sites), {"dnsbl": {"action": action}})
    code = "521" if action == "drop" else "550"
    with screener.connect() as client:
        answer = asked(client, b"EHLO a.se", MAIL, RCPT)
        assert answer == f"{code} 5.7.1 Service unavailable; client [127.1.0.1] blocked using bl.test\r\n".encode()
        screener.line(f"DNSBL rank 3 for {client.pattern}$")
    with screener.connect("127.1.0.2") as client:
        code = "421" if action == "drop" else "450"
        answer = asked(client, MAIL, RCPT)
        assert answer == f"{code} 4.7.1 Service unavailable; client [127.1.0.2] blocked using bl.test\r\n".encode()


def test_a_score_far_above_the_threshold_does_not_wait(start: Start, dns: FakeDns) -> None:
    dns.zones["bl.test"] = listed("127.0.0.2")
    sites = {"sites": ["bl.test*9"], "resolvers": [dns.endpoint]}
    screener = start(scored({"helo_ours": -2}, 3, **sites), {"dnsbl": {"action": "drop"}})
    with screener.connect() as client:
        assert client.read() == TEASER + b"521 5.7.1 Service unavailable; client [127.1.0.1] blocked using bl.test\r\n"


def test_other_evidence_and_a_negative_weight(start: Start, folder: Path) -> None:
    """MAIL in plaintext speaks for a client here: before that, a HELO name alone does not reject it."""
    screener = start(scored({"no_tls": -2, "helo_reserved": 3}, 3), tls(folder))
    with screener.connect() as client:
        assert asked(client, b"EHLO localhost", RCPT).startswith(b"503 ")
        assert not screener.lines("SCORE rank")
        client.ask(MAIL)
        assert client.ask(RCPT) == LATER
        screener.line(f"SCORE from {client.pattern}: no_tls -2: MAIL without TLS$")
    with screener.connect("127.1.0.2") as client:
        assert asked(client, b"HELO localhost", MAIL, RCPT) == blocked("HELO name is reserved", source="127.1.0.2")


def test_without_weights(start: Start, mta: FakeMta) -> None:
    """With all weights 0, there is no dialogue and no line."""
    screener = start({"dnsbl": {"threshold": 1, "action": "enforce"}, "score": {"rcpt_many_from": 2}})
    with screener.connect() as client:
        assert client.read() == TEASER + FROM_MTA
        assert [line.split()[0] for line in words(screener, client)] == ["CONNECT", "PASS"]
