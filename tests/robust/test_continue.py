"""`handoff.continue_to`: a client that passes the deep tests continues with an MTA, however that behaves."""

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import GREETING, TEASER, Client, Screener, merge, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_control import connected, eventually

DEEP = {"deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}}
LATER = b"450 4.3.2 Service currently unavailable\r\n"
OFFER = ProxyMta.OFFER.removesuffix(b"\r\n")


def going_on(*targets: str, **more: object) -> dict[str, object]:
    return {**DEEP, "handoff": {"continue_to": list(targets), **more}}


def until_rcpt(client: Client, *, mail: bytes = b"MAIL FROM:<a@client.test>") -> None:
    assert client.read() == TEASER + GREETING
    assert client.ask(b"EHLO client.test").startswith(b"250-mx.example.test\r\n")
    assert client.ask(mail) == b"250 2.1.0 Ok\r\n"


def played(connection: Connection, rcpt: bytes, mail: bytes = b"250 2.1.0 Ok") -> None:
    """The MTA's side up to RCPT, with these replies."""
    connection.send(b"220 mta ESMTP\r\n")
    connection.expect(b"EHLO client.test", OFFER)
    connection.expect(b"MAIL FROM:<a@client.test>", mail)
    if mail.startswith(b"250"):
        connection.expect(b"RCPT TO:<b@here.test>", rcpt)


def serve_on(connection: Connection) -> None:
    with contextlib.suppress(EOFError):
        while connection.line() != b"QUIT":
            connection.send(b"250 the MTA says so\r\n")
        connection.send(b"221 bye from the MTA\r\n")


def test_same_session(start: Start, folder: Path) -> None:
    """The message comes as it was sent, dots, bare LF and CR and all; the pass is stored, the next one is PASS OLD."""
    message = b"Subject: x\r\n\r\n..\r\n.\nMAIL FROM:<smuggled@x>\n.\r\x0d.\r\0\xff\r\n" * 3
    got: list[bytes] = []
    clients: list[tuple[str, int] | None] = []

    def serve(connection: Connection, _: int) -> None:
        clients.append(connection.client)
        played(connection, b"250 2.1.5 Ok")
        connection.expect(b"DATA", b"354 go")
        data = b""
        while not data.endswith(b"\r\n.\r\n"):
            data += connection.socket.recv(1)
        got.append(data)
        connection.send(b"250 2.0.0 queued\r\n")
        serve_on(connection)

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target), {"cache": {"path": str(folder / "cache")}})
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 2.1.5 Ok\r\n"
            assert client.ask(b"DATA") == b"354 go\r\n"
            client.send(message + b".\r\n")
            assert client.read() == b"250 2.0.0 queued\r\n"
            assert client.ask(b"QUIT") == b"221 bye from the MTA\r\n"
            assert client.read() == b""
            assert clients == [client.socket.getsockname()]
            target = re.escape(mta.target.removeprefix("proxy:"))
            screener.line(rf"]: CONTINUE from {client.pattern} to {target}: 250 2\.1\.5 Ok$")
            assert [line.split("]: ", 1)[1].split(" ")[0] for line in screener.lines(client.pattern)] == [
                "CONNECT",
                "PASS",
                "CONTINUE",
            ]
            screener.line(rf"PASS NEW {client.pattern}$")
        assert got == [message + b".\r\n"]
        with screener.connect() as client:
            assert client.read() == FROM_MTA  # handoff.to is pass:
            screener.line(rf"PASS OLD {client.pattern}$")


TAKEN = [b"250 2.1.5 Ok", b"250-2.1.5 one\r\n250-2.1.5 two\r\n250 2.1.5 three", b"251 will forward"]
REFUSED = [b"450 4.2.0 <b@here.test>: greylisted", b"550-5.1.1 no\r\n550 5.1.1 such user"]


@pytest.mark.parametrize(
    ("to", "answer"), [("RCPT", each) for each in TAKEN + REFUSED] + [("MAIL", each) for each in REFUSED]
)
def test_the_answer_is_the_mtas(start: Start, to: str, answer: bytes) -> None:
    """To the RCPT, and it has the word from then on; or that to MAIL when it was refused (test_continue_refused)."""

    def serve(connection: Connection, _: int) -> None:
        played(connection, answer, answer if to == "MAIL" else b"250 ok")
        serve_on(connection)

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == answer + b"\r\n"
            further = answer if to == "MAIL" else b"250 the MTA says so"
            assert client.ask(b"RCPT TO:<c@here.test>") == further + b"\r\n"
            assert client.ask(b"QUIT") == (b"221 2.0.0 Bye" if to == "MAIL" else b"221 bye from the MTA") + b"\r\n"
            line = screener.line(rf"CONTINUE from {client.pattern} to ")
            assert ("MAIL refused" in line) == (to == "MAIL")


@pytest.mark.parametrize("to", ["MAIL", "RCPT"])
def test_an_mta_that_answers_421_has_hung_up(start: Start, to: str) -> None:
    with ProxyMta(lambda mta, _: played(mta, b"421 4.3.0 bye", b"421 4.3.0 bye" if to == "MAIL" else b"250 k")) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"421 4.3.0 bye\r\n"
            assert client.read() == b""


def up_to(*answers: bytes) -> Callable[[Connection, int], None]:
    """The MTA sends these replies, one per command, and then disconnects."""

    def serve(connection: Connection, _: int) -> None:
        for number, answer in enumerate(answers):
            if number:
                connection.line()
            connection.send(answer)

    return serve


def then_silent(*answers: bytes) -> Callable[[Connection, int], None]:
    """The same, but then the MTA is silent."""

    def serve(connection: Connection, number: int) -> None:
        up_to(*answers)(connection, number)
        connection.rest()

    return serve


FAILING: dict[str, tuple[Callable[[Connection, int], None], str]] = {
    "closes at once": (up_to(), "connection closed by the MTA|Connection reset by peer|connection lost"),
    "closes after greeting": (up_to(b"220 mta\r\n"), "connection closed by the MTA|connection lost"),
    "closes in the greeting": (up_to(b"220-mta\r\n22"), "connection closed by the MTA"),
    "closes after EHLO": (up_to(b"220 mta\r\n", OFFER + b"\r\n"), "connection closed by the MTA|connection lost"),
    "closes after MAIL": (up_to(b"220 mta\r\n", OFFER + b"\r\n", b"250 k\r\n"), "closed by the MTA|connection lost"),
    "closes in the answer": (
        up_to(b"220 mta\r\n", OFFER + b"\r\n", b"250 k\r\n", b"250-2.1.5 almost\r\n"),
        "connection closed by the MTA",
    ),
    "no slots": (up_to(b"421 too many\r\n"), "the MTA said 421 too many"),
    "refuses the client": (up_to(b"554-no\r\n554 \x1b[31mway\r\n"), r"the MTA said 554-no\\r\\n554 \\033\[31mway"),
    "refuses EHLO": (up_to(b"220 mta\r\n", b"502 what?\r\n"), r"the MTA said 502 what\?"),
    "speaks HTTP": (up_to(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the MTA's reply is not SMTP"),
    "never ends its reply": (up_to(b"220-x\r\n" * 2000), "the MTA's reply is not SMTP"),
    "never ends its line": (up_to(b"220-" + b"x" * 20000), "the MTA's reply is not SMTP"),
    "mixes codes": (up_to(b"220-a\r\n250 b\r\n"), "the MTA's reply is not SMTP"),
    "says go on to RCPT": (
        up_to(b"220 mta\r\n", OFFER + b"\r\n", b"250 k\r\n", b"354 go\r\n"),
        "the MTA said 354 go",
    ),
    "is silent": (then_silent(), "Connection timed out"),
    "is silent after MAIL": (then_silent(b"220 mta\r\n", OFFER + b"\r\n"), "Connection timed out"),
}


@pytest.mark.parametrize("how", FAILING)
def test_without_an_mta_the_session_is_as_before(start: Start, how: str, folder: Path) -> None:
    """450 to this RCPT and the next one; the pass is stored, and no connection stays open."""
    serve, why = FAILING[how]
    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target, continue_time_limit="1s"), {"cache": {"path": str(folder / "cache")}})
        wait_until(lambda: mta.locals == 1, "the MTA to be asked what it announces")
        descriptors = screener.descriptors()
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == LATER
            assert client.ask(b"RCPT TO:<c@here.test>") == LATER
            assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
            assert mta.came == 1
            assert re.search(why, screener.line(rf"CONTINUE from {client.pattern} failed: "))
            screener.line(rf"PASS NEW {client.pattern}")
            screener.line(rf"DISCONNECT {client.pattern}")
        wait_until(lambda: screener.descriptors() <= descriptors, "the connection to be closed")
        with screener.connect() as client:
            assert client.read() == FROM_MTA


def test_a_recipient_in_pieces_is_answered_once(start: Start) -> None:
    """The next command of the client is a separate line, whether fastscreen or the MTA replies to it."""
    with ProxyMta(up_to()) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"RCPT TO:<b@")
            wait_until(lambda: unread(client) == 0, "the first piece to be read")
            client.send(b"here.test>\r\n")
            assert client.read() == LATER
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
            assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
            assert mta.came == 1
            assert len(screener.lines("NOQUEUE: reject: RCPT")) == 1


def unread(client: Client) -> int:
    """The number of bytes that the other side has not read yet."""
    host, port = client.socket.getsockname()
    number = "".join(f"{octet:02X}" for octet in reversed(socket.inet_aton(host))) + f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, queues, *_ = line.split()
        if remote == number:
            return int(queues.partition(":")[2], 16)
    raise AssertionError("the connection is gone")


def test_a_refusing_mta(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
    screener = start(going_on(f"proxy:{target}"))
    with screener.connect() as client:
        until_rcpt(client)
        assert client.ask(b"RCPT TO:<b@here.test>") == LATER
        screener.line(f"warning: cannot connect to service {target}: Connection refused")
        screener.line(rf"CONTINUE from {client.pattern} failed: Connection refused")


@pytest.mark.parametrize("how", ["no slots", "closes after greeting", "speaks HTTP"])
def test_another_mta_is_asked(start: Start, how: str) -> None:
    def serve(connection: Connection, _: int) -> None:
        played(connection, b"250 from the second")
        serve_on(connection)

    with ProxyMta(FAILING[how][0]) as first, ProxyMta(serve) as second:
        screener = start(going_on(first.target, second.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 from the second\r\n"
        assert (first.came, second.came) == (1, 1)


def test_a_greeting_in_pieces_and_late(start: Start) -> None:
    def serve(connection: Connection, _: int) -> None:
        for piece in (b"220-mt", b"a\r\n22", b"0 late\r\n"):
            time.sleep(0.5)
            connection.send(piece)
        connection.expect(b"EHLO client.test", OFFER)
        connection.expect(b"MAIL FROM:<a@client.test>", b"250 ok")
        connection.expect(b"RCPT TO:<b@here.test>", b"250 ok")
        serve_on(connection)

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 ok\r\n"


@pytest.mark.parametrize("answering", [True, False])
def test_what_the_client_sends_meanwhile_comes_in_order(start: Start, answering: bool) -> None:
    """Part of it with the RCPT and part after it, for the MTA or the dummy engine."""
    asked = threading.Event()
    go = threading.Event()

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        connection.expect(b"EHLO client.test", OFFER)
        connection.expect(b"MAIL FROM:<a@client.test>", b"250 ok")
        assert connection.line() == b"RCPT TO:<b@here.test>"
        asked.set()
        assert go.wait(20)
        if answering:
            assert connection.held == b""  # nothing of the rest before it has answered
            connection.send(b"250 first\r\n")
            for line in (b"RCPT TO:<c@here.test>", b"NOOP", b"RSET", b"QUIT"):
                connection.expect(line, b"250 to " + line)

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target), {"deep": {"pipelining": "off"}})
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"RCPT TO:<b@here.test>\r\nRCPT TO:<c@here.test>\r\nNO")
            assert asked.wait(20)
            client.send(b"OP\r\nRSET\r\nQUIT\r\n")
            go.set()
            said = client.read_all()
    if answering:
        assert said == b"250 first\r\n250 to RCPT TO:<c@here.test>\r\n250 to NOOP\r\n250 to RSET\r\n250 to QUIT\r\n"
    else:
        assert said == 2 * LATER + 2 * b"250 2.0.0 Ok\r\n" + b"221 2.0.0 Bye\r\n"


@pytest.mark.parametrize(
    ("said", "hello", "mail"),
    [
        ([b"HELO old.test", b"MAIL FROM:<>"], b"HELO old.test", b"MAIL FROM:<>"),
        ([b"MAIL FROM:<a@b>"], None, b"MAIL FROM:<a@b>"),
        ([b"ehlo  a b  c", b"mail from: <a@b> SIZE=9 body=8bitmime"], b"ehlo  a b  c", None),
        ([b"EHLO one", b"MAIL FROM:<a@b>", b"EHLO two", b"MAIL FROM:<c@d>"], b"EHLO two", b"MAIL FROM:<c@d>"),
        ([b"EHLO one", b"EHLO", b"EHLO  ", b"MAIL FROM:<a@b>"], b"EHLO one", b"MAIL FROM:<a@b>"),
        ([b"EHLO x", b"MAIL FROM:<a@b>", b"RSET", b"NOOP", b"MAIL FROM:<c@d>"], b"EHLO x", b"MAIL FROM:<c@d>"),
        ([b"EHLO x", b"MAIL FROM:<a@b>", b"MAIL FROM:<c@d>"], b"EHLO x", b"MAIL FROM:<a@b>"),
        ([b"EHLO x", b"MAIL oops", b"MAIL FROM:<a@b> SMTPUTF8"], b"EHLO x", b"MAIL FROM:<a@b> SMTPUTF8"),
        ([b"  EHLO x", b"MAIL FROM:<\xc3\xa9@b>  "], b"EHLO x", b"MAIL FROM:<\xc3\xa9@b>  "),
    ],
)
def test_the_mta_hears_the_clients_own_words(
    start: Start, said: list[bytes], hello: bytes | None, mail: bytes | None
) -> None:
    heard: list[bytes] = []

    def serve(connection: Connection, _: int) -> None:
        connection.send(b"220 mta\r\n")
        with contextlib.suppress(EOFError):
            while line := connection.line():
                heard.append(line)
                connection.send(OFFER + b"\r\n" if line[:4].upper() == b"EHLO" else b"250 ok\r\n")

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            client.read()
            for line in said:
                client.ask(line)
            assert client.ask(b"RCPT TO:<b@here.test> NOTIFY=NEVER") == b"250 ok\r\n"
        wanted = [hello, mail or said[-1], b"RCPT TO:<b@here.test> NOTIFY=NEVER"]
        assert heard == [line for line in wanted if line is not None]


@pytest.mark.parametrize(
    "said",
    [
        [b"EHLO x\0y", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>"],
        [b"EHLO x", b"MAIL FROM:<a@b>\0", b"RCPT TO:<c@d>"],
        [b"EHLO x", b"MAIL FROM:<a@b> \rRCPT TO:<x@y>", b"RCPT TO:<c@d>"],
        [b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>\r x"],
        [b"EHLO \r x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>"],
    ],
)
def test_what_could_be_two_lines_for_the_mta_is_not_played(start: Start, said: list[bytes]) -> None:
    with ProxyMta(lambda *_: None) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            client.read()
            for line in said:
                reply = client.ask(line)
            assert reply == LATER
            assert mta.came == 0


def test_a_client_that_fails_is_not_continued(start: Start) -> None:
    with ProxyMta(lambda *_: None) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"NOOP\r\nRCPT TO:<b@here.test>\r\n")
            assert client.read() == b"250 2.0.0 Ok\r\n"
            assert client.read() == b"550 5.5.1 Protocol error\r\n"
        with screener.connect() as client:
            client.send(b"EHLO early\r\n")
            assert client.read().startswith(TEASER + b"250-mx.example.test\r\n")  # it is not greeted any further
            client.ask(b"MAIL FROM:<a@client.test>")
            assert client.ask(b"RCPT TO:<b@here.test>") == b"550 5.5.1 Protocol error\r\n"
        assert mta.came == 0
        assert screener.lines("CONTINUE") == []


def test_a_client_that_leaves_while_the_mta_is_asked(start: Start) -> None:
    gone = threading.Event()

    def serve(connection: Connection, _: int) -> None:
        connection.rest()
        gone.set()

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        wait_until(lambda: mta.locals == 1, "the MTA to be asked what it announces")
        descriptors = screener.descriptors()
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"RCPT TO:<b@here.test>\r\n")
            wait_until(lambda: mta.came == 1, "the MTA to be asked")
        screener.line(rf"HANGUP after .* from {client.pattern} in tests after SMTP handshake")
        assert gone.wait(20)
        wait_until(lambda: screener.descriptors() <= descriptors, "the session to be gone")


def test_no_more_is_announced_than_the_mta_has(start: Start) -> None:
    """Learned at start and from each continued session. A client to which more was announced is deferred again."""
    lesser = b"250-mta\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250-SIZE 77\r\n250 8BITMIME"

    def serve(connection: Connection, number: int) -> None:
        connection.send(b"220 mta\r\n")
        connection.expect(b"EHLO client.test", lesser)
        if number:
            connection.expect(b"MAIL FROM:<a@client.test>", b"250 ok")
            connection.expect(b"RCPT TO:<b@here.test>", b"250 ok")

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        wait_until(lambda: mta.locals == 1, "the MTA to be asked")
        assert announced(screener, b"CHUNKING") == {
            b"SIZE 1000000", b"8BITMIME", b"DSN", b"SMTPUTF8", b"CHUNKING"
        }  # fmt: skip
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == LATER
            screener.line("failed: the MTA announces less than the client was told")
        assert announced(screener) == {b"SIZE 77", b"8BITMIME"}
        with screener.connect("127.1.0.9") as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 ok\r\n"


def announced(screener: Screener, until: bytes = b"") -> set[bytes]:
    """The output for a client, once it contains `until`."""
    while True:
        with screener.connect("127.1.0.8") as client:
            client.read()
            found = {line[4:] for line in client.ask(b"EHLO x").splitlines()[1:]}
        if not until or until in found:
            return found


def test_without_an_mta_at_the_start_chunking_is_not_announced(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"proxy:127.0.0.1:{listener.getsockname()[1]}"
    found = announced(start(going_on(target)))
    assert b"CHUNKING" not in found
    assert b"8BITMIME" in found
    assert b"SIZE" in found  # without a limit: a sender would bounce what the MTA may take


def test_both_exits_at_once(start: Start, folder: Path) -> None:
    """`to` for known clients, `continue_to` for those that have just passed; a reload removes the second one."""

    def serve(connection: Connection, _: int) -> None:
        played(connection, b"250 gone on")
        serve_on(connection)

    with ProxyMta(serve) as mta:
        settings = merge(going_on(mta.target), {"handoff": {"to": [mta.target]}, "cache": {"path": str(folder / "c")}})
        screener = start(settings)
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 gone on\r\n"
            screener.reload({**screener.settings, "handoff": {"to": [mta.target]}})
            assert client.ask(b"NOOP") == b"250 the MTA says so\r\n"
        with screener.connect() as client:
            assert client.read() == b"220 mta ESMTP\r\n"
        with screener.connect("127.1.0.2") as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == LATER


def test_explain_and_the_live_view(start: Start, folder: Path) -> None:
    """What will happen, what happens, and what has happened."""

    def serve(connection: Connection, _: int) -> None:
        played(connection, b"250 2.1.5 Ok")
        serve_on(connection)

    path = folder / "run" / "control"
    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target), {"control": {"path": str(path)}})
        with connected(path) as control, screener.connect() as client:
            explained = control.ok("explain", address="127.1.0.2")
            assert (explained["verdict"], explained["reply"]) == ("continued", None)
            assert "continued with the MTA" in explained["steps"][-1]["text"]
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"250 2.1.5 Ok\r\n"
            assert client.ask(b"NOOP") == b"250 the MTA says so\r\n"
            said = eventually(control, "sessions", lambda answer: "relay" in str(answer))
            (session,) = said["sessions"]
            assert (session["stage"], session["command"]) == ("relay", b"6 in, 35 out")
            assert eventually(control, "status", lambda answer: answer["workers"][0]["stages"]["relay"] == 1)
            assert client.ask(b"QUIT") == b"221 bye from the MTA\r\n"
            assert client.read() == b""
            client.socket.close()
            counts = eventually(control, "status", lambda answer: answer["counts"]["relayed"])["counts"]
            assert (counts["continued"], counts["continue_failed"], counts["relayed"]) == (1, 0, 1)


def test_a_session_that_is_being_asked_for_ends_at_the_second_sigterm(start: Start) -> None:
    with ProxyMta(then_silent()) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"RCPT TO:<b@here.test>\r\n")
            wait_until(lambda: mta.came == 1, "the MTA to be asked")
            screener.signal(signal.SIGTERM)
            screener.stop()
