"""What MTAs announce, and what is announced to clients."""

import asyncio
from asyncio import StreamWriter
from unittest.mock import Mock

import pytest

from fastscreen import config
from fastscreen.config.model import Endpoint, Proxy, Target
from fastscreen.mta import capabilities
from fastscreen.mta.capabilities import Capabilities, MtaCapabilities, own_header, parse_capabilities
from fastscreen.mta.ehlo_keywords import Keyword
from fastscreen.screening.ehlo_reply import Ehlo

POSTFIX = (
    b"250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"
)


@pytest.mark.parametrize(
    ("reply", "keywords", "size"),
    [
        (b"250 SIZE\r\n", Keyword(0), None),  # the first line is a name
        (b"250-x\r\n250 SIZE\r\n", Keyword.SIZE, 0),
        (b"250-x\r\n250-size 12\r\n250 8bitmime\r\n", Keyword.SIZE | Keyword.EIGHTBITMIME, 12),
        (b"250-x\r\n250-SIZE 1e9\r\n250 DSN,CHUNKING\r\n", Keyword.SIZE, 0),
        (b"250-x\r\n250-\xff\xfe\r\n250 \r\n", Keyword(0), None),
        (b"250-x\r\n250 silent-discard\r\n", Keyword(0), None),
    ],
)
def test_parse(reply: bytes, keywords: Keyword, size: int | None) -> None:
    assert parse_capabilities(reply) == Capabilities(keywords, size)


def test_parse_a_real_one() -> None:
    offer = parse_capabilities(POSTFIX)
    assert offer.size == 10240000
    assert Keyword.STARTTLS | Keyword.CHUNKING | Keyword.SMTPUTF8 in offer.keywords
    assert Keyword.AUTH not in offer.keywords


@pytest.mark.parametrize(
    ("own", "mta", "header"),
    [
        (("127.0.0.1", 4000), ("127.0.0.2", 25), b"PROXY TCP4 127.0.0.1 127.0.0.2 4000 25\r\n"),
        (("::1", 4000, 0, 0), ("::1", 25, 0, 0), b"PROXY TCP6 ::1 ::1 4000 25\r\n"),
        ("", "/run/mta", b"PROXY UNKNOWN\r\n"),
    ],
)
def test_a_connection_of_our_own_is_said_to_be_so(own: object, mta: object, header: bytes) -> None:
    """In version 1 with its ends where it has some: Haraka refuses UNKNOWN."""
    writer = Mock(spec=StreamWriter)
    writer.get_extra_info.side_effect = {"sockname": own, "peername": mta}.__getitem__
    assert own_header(writer) == header


def test_clients_are_told_what_all_have() -> None:
    used: list[Capabilities] = []
    two = Proxy((Target(Endpoint("192.0.2.1", 25)), Target(Endpoint("192.0.2.2", 25))))
    offers = MtaCapabilities(two, 2, used.append)
    keywords = offers.learn(0, POSTFIX)
    assert keywords == int(parse_capabilities(POSTFIX).keywords)
    offers.learn(1, b"250-b\r\n250-SIZE\r\n250 CHUNKING\r\n")
    offers.learn(1, b"250-c\r\n250-SIZE\r\n250 CHUNKING\r\n")  # another name is not a change
    assert used[1:] == [Capabilities(Keyword.SIZE | Keyword.CHUNKING, 10240000)]


@pytest.mark.parametrize(
    "first",
    [
        [b"220-" + b"x" * 100_000],  # a line without an end
        [b"220 x\r\n", b"250-" + b"x\r\n250-" * 5_000],
        [b"554 no\r\n"],
        [b"HTTP/1.1 400 no\r\n"],
        [],
    ],
)
def test_an_mta_is_asked_again_whatever_it_said(first: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has announced something; afterwards it may hang up without a reply."""
    monkeypatch.setattr(capabilities, "RETRY", 0.0)
    answers = [first, [b"220 x\r\n", POSTFIX]]
    used: list[Capabilities] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(16)
        for answer in answers.pop(0):
            writer.write(answer)
            await reader.readline()
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            target = Target(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]))
            await MtaCapabilities(Proxy((target,)), 2, used.append).ask("mx.test")

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert used == [parse_capabilities(POSTFIX)]
    assert answers == []


def test_the_reply_to_ehlo() -> None:
    """Extensions that the MTA lacks are not announced, and BDAT is refused; nothing is logged."""
    ehlo = Ehlo(config.default().engine, "mx.test")
    before = ehlo.default.reply
    ehlo.use(Keyword.CHUNKING | Keyword.DSN, 77)
    lines = ehlo.default.reply.split(b"\r\n")
    assert b"250-SIZE 77" in lines
    assert not {line[4:] for line in lines} & {b"CHUNKING", b"DSN"}
    assert Keyword.CHUNKING in ehlo.default.discard
    assert ehlo.default.log is None
    ehlo.use(Keyword(0), None)
    assert ehlo.default.reply == before
