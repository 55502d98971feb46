"""Continue, when the MTA refuses MAIL: the client was told 250 to it, so its whole transaction gets the MTA's reply."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.harness import Client, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_continue import FAILING, LATER, OFFER, going_on, played, serve_on, until_rcpt

NO_PIPELINING = {"deep": {"pipelining": "off"}}
REFUSALS = [
    b"452 4.3.1 Insufficient system storage",
    b"451-4.7.1 mail\r\n451 4.7.1 not now",
    b"552 5.3.4 Message size exceeds fixed limit",
    b"555 5.5.4 Unsupported option: REQUIRETLS",
]
"""What an MTA says to MAIL: no room, its policy, its own SIZE, a parameter that it does not know."""


class Refusing:
    """An MTA that gives the first connections these replies to MAIL, and takes the mail of the next one."""

    def __init__(self, *refusals: bytes) -> None:
        self.refusals = refusals
        self.heard: list[list[bytes]] = []
        """The lines of each connection, up to QUIT or the end."""

    def __call__(self, connection: Connection, number: int) -> None:
        said: list[bytes] = []
        self.heard.append(said)
        connection.send(b"220 mta ESMTP\r\n")
        mail = False
        with contextlib.suppress(EOFError):
            while (line := connection.line()) != b"QUIT":
                said.append(line)
                word = line[:4].upper()
                reply = OFFER if word == b"EHLO" else b"250 2.0.0 the MTA says so"
                if word == b"MAIL" and number < len(self.refusals):
                    reply = self.refusals[number]
                elif word == b"RCPT" and not mail:
                    reply = b"503 5.5.1 Error: need MAIL command"
                mail = mail or (word == b"MAIL" and reply.startswith(b"250"))
                connection.send(reply + b"\r\n")
            said.append(line)
            connection.send(b"221 bye from the MTA\r\n")


def goes_on(client: Client) -> None:
    """A new transaction of the same session is the MTA's."""
    assert client.ask(b"MAIL FROM:<good@client.test>") == b"250 2.1.0 Ok\r\n"
    for number in range(3):
        assert client.ask(b"RCPT TO:<%d@here.test>" % number) == b"250 2.0.0 the MTA says so\r\n"
    assert client.ask(b"QUIT") == b"221 bye from the MTA\r\n"
    assert client.read() == b""


@pytest.mark.parametrize("recipients", [1, 2, 50])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_recipient_gets_the_reply_to_mail(start: Start, refusal: bytes, recipients: int) -> None:
    """As many as there are, and DATA; then the session goes on with the MTA, which has heard each line once."""
    mta = Refusing(refusal)
    with ProxyMta(mta) as listening:
        screener = start(going_on(listening.target))
        with screener.connect() as client:
            until_rcpt(client)
            for number in range(recipients):
                assert client.ask(b"RCPT TO:<%d@here.test>" % number) == refusal + b"\r\n"
            assert client.ask(b"DATA") == refusal + b"\r\n"
            assert client.ask(b"RSET") == b"250 2.0.0 Ok\r\n"
            goes_on(client)
            passed, refused, went_on = (line.split("]: ", 1)[1] for line in screener.lines(client.pattern)[1:])
            assert passed.startswith("PASS NEW ")
            assert ": MAIL refused: " + refusal.decode().replace("\r\n", "\\r\\n") in refused
            assert went_on.endswith(": 250 2.0.0 the MTA says so")
        wait_until(lambda: len(mta.heard) == 2, "both connections")
    assert mta.heard[0] == [b"EHLO client.test", b"MAIL FROM:<a@client.test>", b"QUIT"]
    assert mta.heard[1] == [
        b"EHLO client.test",
        b"MAIL FROM:<good@client.test>",
        *(b"RCPT TO:<%d@here.test>" % number for number in range(3)),
        b"QUIT",
    ]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_pipelined(start: Start, refusal: bytes) -> None:
    """With the recipients in the first packet and after it, in front of a DATA that must not be told 354."""
    with ProxyMta(Refusing(refusal)) as mta:
        screener = start(going_on(mta.target), NO_PIPELINING)
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"".join(b"RCPT TO:<%d@here.test>\r\n" % number for number in range(50)) + b"DATA\r\nRSET\r\n")
            assert [client.read() for _ in range(51)] == [refusal + b"\r\n"] * 51
            assert client.read() == b"250 2.0.0 Ok\r\n"
            goes_on(client)


def test_the_tests_are_over(start: Start) -> None:
    """A client that has passed is not failed for what it sends behind a refusal: a relayed one would not be, either."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<first@here.test>") == REFUSALS[0] + b"\r\n"
            client.send(b"RCPT TO:<b@here.test>\nBOGUS\r\nRCPT TO:<c@here.test>\r\nRSET\r\n")
            assert client.read() == REFUSALS[0] + b"\r\n"
            assert client.read() == b"502 5.5.2 Error: command not recognized\r\n"
            assert client.read() == REFUSALS[0] + b"\r\n"
            assert client.read() == b"250 2.0.0 Ok\r\n"
            goes_on(client)
        assert screener.lines("PIPELINING|NON-SMTP|BARE NEWLINE") == []


@pytest.mark.parametrize("between", [[b"RSET"], [], [b"EHLO client.test"], [b"HELO client.test"], [b"NOOP", b"RSET"]])
def test_a_refused_transaction_ends(start: Start, between: list[bytes]) -> None:
    """With RSET, EHLO, HELO, or another MAIL: the MTA never had one, so that one is not nested."""
    with ProxyMta(Refusing(*REFUSALS[:2])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            for refusal in REFUSALS[:2]:
                for _ in range(2):
                    assert client.ask(b"RCPT TO:<b@here.test>") == refusal + b"\r\n"
                for line in between:
                    assert client.ask(line).startswith(b"250")
                if between:
                    assert client.ask(b"RCPT TO:<b@here.test>") == b"503 5.5.1 Error: need MAIL command\r\n"
                if refusal is not REFUSALS[1]:
                    assert client.ask(b"MAIL FROM:<a@client.test>") == b"250 2.1.0 Ok\r\n"
            goes_on(client)


def test_other_commands_leave_the_refusal(start: Start) -> None:
    """Neither NOOP nor a greeting without a name ends a transaction."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"
            for line in (b"NOOP", b"VRFY b", b"EHLO", b"HELO", b"XCLIENT ADDR=192.0.2.1"):
                client.ask(line)
                assert client.ask(b"RCPT TO:<c@here.test>") == REFUSALS[0] + b"\r\n"
            assert client.ask(b"MAIL FROM") == b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
            assert client.ask(b"RCPT TO:<c@here.test>") == b"503 5.5.1 Error: need MAIL command\r\n"
            goes_on(client)


CHUNK = b"MAIL FROM:<smuggled@client.test>\r\nRCPT TO:<x@here.test>\r\nQUIT\r\n"


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_refused_chunk_is_no_command(start: Start, pieces: int) -> None:
    """BDAT gets the reply, and its data is discarded, however it is split into packets."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"
            sent = b"BDAT %d LAST\r\n%bBDAT 0 LAST\r\nNOOP\r\n" % (len(CHUNK), CHUNK)
            for at in range(pieces):
                client.send(sent[at * len(sent) // pieces : (at + 1) * len(sent) // pieces])
            assert client.read() == REFUSALS[0] + b"\r\n"
            assert client.read() == REFUSALS[0] + b"\r\n"
            assert client.read() == b"250 2.0.0 Ok\r\n"
            assert client.ask(b"RSET") == b"250 2.0.0 Ok\r\n"
            goes_on(client)


def test_a_large_refused_chunk(start: Start) -> None:
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"
            client.send(b"BDAT 3000000\r\n" + b"RSET\r\n" * 500_000)
            assert client.read() == REFUSALS[0] + b"\r\n"
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"


@pytest.mark.parametrize("size", [b"", b"x", b"-1", b"1x", b"99999999999999999999", b"1" * 40, b"LAST"])
def test_a_chunk_without_a_size_ends_the_session(start: Start, size: bytes) -> None:
    """Nobody can tell where the message ends and commands begin."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"
            assert client.ask(b"BDAT " + size)[:1] == b"5"
            assert client.read() == b""


def test_bounded(start: Start) -> None:
    """A thousand recipients are answered, then they count for command_count_limit; transactions always do."""
    with ProxyMta(Refusing(*REFUSALS[:1] * 100)) as mta:
        screener = start(going_on(mta.target), NO_PIPELINING)
        with screener.connect() as client:
            until_rcpt(client)
            told = 0
            for _ in range(11):
                client.send(b"RCPT TO:<b@here.test>\r\n" * 100)
                for _ in range(100):
                    told += client.read() == REFUSALS[0] + b"\r\n"
            screener.line(rf"COMMAND COUNT LIMIT from {client.pattern} after RCPT")
            assert 1000 < told <= 1020
        with screener.connect("127.1.0.3") as client:
            until_rcpt(client)
            asked = 0
            while client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n":
                asked += 1
                if client.ask(b"MAIL FROM:<a@client.test>") != b"250 2.1.0 Ok\r\n":
                    break
            assert asked <= 20
            screener.line(rf"COMMAND COUNT LIMIT from {client.pattern}")


def test_bounded_in_time(start: Start) -> None:
    """A slow client's recipients count again after `continue_time_limit`: it does not hold its place for long."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target, continue_time_limit="1s"))
        with screener.connect() as client:
            until_rcpt(client)
            told = 0
            while client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n":
                told += 1
                time.sleep(0.05)
            assert told < 200
            screener.line(rf"COMMAND COUNT LIMIT from {client.pattern} after RCPT")


def test_a_client_that_does_not_read_is_left(start: Start) -> None:
    """What it is told is long, and it asks for more and more of it."""
    refusal = b"".join(b"550-" + b"x" * 500 + b"\r\n" for _ in range(14)) + b"550 x"
    with ProxyMta(Refusing(refusal)) as mta:
        screener = start(going_on(mta.target), NO_PIPELINING)
        with screener.connect(receive_buffer=4096) as client:
            until_rcpt(client)
            with contextlib.suppress(ConnectionError):
                for _ in range(10):
                    client.send(b"RCPT TO:<b@here.test>\r\n" * 100)
            screener.line(rf"HANGUP after .* from {client.pattern} in tests after SMTP handshake")


def test_the_reply_is_the_mtas_word_for_word(start: Start) -> None:
    """soft_bounce and the footer are for what the screener itself says."""
    with ProxyMta(Refusing(REFUSALS[2])) as mta:
        screener = start(going_on(mta.target), {"engine": {"soft_bounce": True, "reject_footer": "call us"}})
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[2] + b"\r\n"
            assert client.ask(b"RCPT TO:<c@here.test>") == REFUSALS[2] + b"\r\n"


def test_hostile_text_of_an_mta(start: Start) -> None:
    """NUL, escape sequences, a line that ends in LF alone: the client is told it, the log is not."""
    with ProxyMta(lambda mta, _: played(mta, b"", b"450-\x1b[31m\0red\n450 x")) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            for _ in range(2):
                assert client.ask(b"RCPT TO:<b@here.test>") == b"450-\x1b[31m\0red\n450 x\r\n"
            assert r"MAIL refused: 450-\033[31m\000red\n450 x" in screener.line("MAIL refused")


def test_an_mta_that_says_421_to_mail_and_stays(start: Start) -> None:
    """The client is told so, and its connection ends: it comes back with all its recipients."""

    def serve(connection: Connection, _: int) -> None:
        played(connection, b"", b"421 4.3.2 later")
        connection.rest()

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target), NO_PIPELINING)
        with screener.connect() as client:
            until_rcpt(client)
            client.send(b"RCPT TO:<b@here.test>\r\nRCPT TO:<c@here.test>\r\n")
            assert client.read() == b"421 4.3.2 later\r\n"
            assert client.read() == b""
            screener.line(rf"DISCONNECT {client.pattern}")


@pytest.mark.parametrize("how", ["closes after greeting", "no slots", "is silent", "refuses EHLO"])
def test_an_mta_that_fails_in_the_next_transaction(start: Start, how: str) -> None:
    """It is asked again, and the client gets its 450."""
    fails: Callable[[Connection, int], None] = FAILING[how][0]
    refuses = Refusing(REFUSALS[2])
    with ProxyMta(lambda connection, number: (fails if number else refuses)(connection, number)) as mta:
        screener = start(going_on(mta.target, continue_time_limit="1s"))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[2] + b"\r\n"
            assert client.ask(b"MAIL FROM:<c@client.test>") == b"250 2.1.0 Ok\r\n"
            assert client.ask(b"RCPT TO:<b@here.test>") == LATER
            assert client.ask(b"RCPT TO:<c@here.test>") == LATER
            assert mta.came == 2


def test_a_client_that_leaves(start: Start, folder: Path) -> None:
    """After a refusal: nothing is left open, and its pass is stored."""
    with ProxyMta(Refusing(REFUSALS[0])) as mta:
        screener = start(going_on(mta.target), {"cache": {"path": str(folder / "cache")}})
        wait_until(lambda: mta.locals == 1, "the MTA to be asked what it announces")
        descriptors = screener.descriptors()
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == REFUSALS[0] + b"\r\n"
        screener.line(rf"HANGUP after .* from {client.pattern} in tests after SMTP handshake")
        wait_until(lambda: screener.descriptors() <= descriptors, "everything to be closed")
        with screener.connect() as client:
            assert client.read() == b"220 the MTA itself\r\n"


def test_a_recipient_is_refused_and_the_next_is_not(start: Start) -> None:
    """Then both sides have the transaction, and it is the MTA's."""

    def serve(connection: Connection, _: int) -> None:
        played(connection, b"550 5.1.1 no such user")
        serve_on(connection)

    with ProxyMta(serve) as mta:
        screener = start(going_on(mta.target))
        with screener.connect() as client:
            until_rcpt(client)
            assert client.ask(b"RCPT TO:<b@here.test>") == b"550 5.1.1 no such user\r\n"
            assert client.ask(b"RCPT TO:<c@here.test>") == b"250 the MTA says so\r\n"
            assert client.ask(b"DATA") == b"250 the MTA says so\r\n"
            assert mta.came == 1
