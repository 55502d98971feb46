"""What each kind of client in the demo does. All of it ends by itself; what is random is seeded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from fastscreen.demo import cast
from fastscreen.demo.talk import SmtpClient

Server = tuple[str, int]
Behaviour = Callable[[Server, str, Random], Awaitable[None]]
"""Where to connect to, the client's own address, and its luck."""

GREEDY_AT_ONCE = 14
_RECIPIENTS = (b"ann@mx.demo.example", b"info@mx.demo.example", b"sales@mx.demo.example", b"joe.smith@mx.demo.example")
_EARLY = (
    b"EHLO win-4f2k.drone.example\r\n",
    b"HELO 127.0.0.1\r\nMAIL FROM:<prize@lottery.example>\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on the wrong port
    b"EHLO \x1b]0;x\x07[@click=app.quit]x[/]\r\n",  # aims at whoever looks at the log
    b"SSH-2.0-Go\r\n",
)


async def sender(server: Server, address: str, random: Random) -> None:
    """A mail server: when told to come back, it does."""
    name = b"mail%d.good.example" % int(address.rpartition(".")[2])
    recipient = random.choice(_RECIPIENTS)
    for wait in (random.uniform(0.5, 2.0), random.uniform(2.0, 5.0), 0.0):
        async with SmtpClient(server, address) as talk:
            if not (await talk.greeted()).startswith(b"220"):
                return
            await talk.ask(b"EHLO " + name)
            await talk.ask(b"MAIL FROM:<news@good.example>")
            told = await talk.ask(b"RCPT TO:<" + recipient + b">")
            if told.startswith(b"250"):
                await talk.ask(b"DATA")
                await talk.ask(b"Subject: hello\r\nFrom: news@good.example\r\n\r\nHello.\r\n.")
            await talk.ask(b"QUIT")
        if not told.startswith(b"4"):
            return
        await asyncio.sleep(wait)


async def pregreeter(server: Server, address: str, random: Random) -> None:
    """Talks before it is greeted, and then goes on with its script."""
    async with SmtpClient(server, address) as talk:
        await talk.teased()
        await asyncio.sleep(random.uniform(0.0, 0.6))
        early = random.choice(_EARLY)
        talk.say(early)
        if not early.endswith(b"\n"):  # no command, so no answer to it ever comes
            await asyncio.sleep(random.uniform(2.0, 5.0))
            return
        await talk.hear()
        await talk.ask(b"MAIL FROM:<prize@lottery.example>")
        await talk.ask(b"RCPT TO:<" + random.choice(_RECIPIENTS) + b">")
        await asyncio.sleep(random.uniform(0.0, 1.0))


async def pipeliner(server: Server, address: str, random: Random) -> None:
    """Waits for the greeting, and for nothing after it."""
    async with SmtpClient(server, address) as talk:
        await talk.greeted()
        recipient = random.choice(_RECIPIENTS)
        talk.say(b"EHLO bulk.example\r\nMAIL FROM:<offer@bulk.example>\r\nRCPT TO:<" + recipient + b">\r\nDATA\r\n")
        await talk.closed()


async def bare_newline(server: Server, address: str, random: Random) -> None:
    """A script that ends its lines with LF alone."""
    async with SmtpClient(server, address) as talk:
        await talk.greeted()
        for command in (b"EHLO script.example", b"MAIL FROM:<cron@script.example>", b"RCPT TO:<ann@mx.demo.example>"):
            talk.say(command + b"\n")
            await talk.hear()
        talk.say(b"QUIT\n")
        await talk.closed()


async def listed(server: Server, address: str, random: Random) -> None:
    """A spammer with manners: only lists know it."""
    async with SmtpClient(server, address) as talk:
        if not (await talk.greeted()).startswith(b"220"):
            return
        await talk.ask(b"EHLO pharm%d.spam.example" % random.randrange(100))
        await talk.ask(b"MAIL FROM:<pills@spam.example>")
        for recipient in random.sample(_RECIPIENTS, 2):
            await talk.ask(b"RCPT TO:<" + recipient + b">")
        await talk.ask(b"QUIT")


async def http_probe(server: Server, address: str, random: Random) -> None:
    """Looks for a web server or an open proxy, half of them without waiting for anything."""
    async with SmtpClient(server, address) as talk:
        if int(address.rpartition(".")[2]) % 2:
            await talk.greeted()
        else:
            await talk.teased()
        talk.say(
            random.choice(
                (
                    b"GET / HTTP/1.1\r\nHost: mx.demo.example\r\nUser-Agent: scan/2\r\n\r\n",
                    b"CONNECT mx.demo.example:25 HTTP/1.0\r\n\r\n",
                )
            )
        )
        await talk.closed()


async def slow(server: Server, address: str, random: Random) -> None:
    """Types with one finger, and falls asleep."""
    async with SmtpClient(server, address) as talk:
        await talk.greeted()
        for letter in b"EHLO tarpit.example":
            talk.say(bytes((letter,)))
            await asyncio.sleep(random.uniform(0.2, 0.6))
        await talk.ask(b"")
        await asyncio.sleep(random.uniform(10.0, 30.0))
        await talk.ask(b"QUIT")


async def impatient(server: Server, address: str, random: Random) -> None:
    """Hangs up when it is not served at once."""
    async with SmtpClient(server, address) as talk:
        await talk.teased()
        await asyncio.sleep(random.uniform(0.1, 1.5))


async def greedy(server: Server, address: str, random: Random) -> None:
    """More connections at a time than one client may have."""
    await asyncio.gather(*(impatient(server, address, random) for _ in range(GREEDY_AT_ONCE)), return_exceptions=True)


async def bot(server: Server, address: str, random: Random) -> None:
    """One of a wave: the half of them in a hurry."""
    await (pregreeter if random.random() < 0.5 else listed)(server, address, random)


BEHAVIOURS: dict[cast.Part, Behaviour] = {
    cast.SENDER: sender,
    cast.LARGE_SENDER: sender,
    cast.OWN: sender,
    cast.BANNED: listed,
    cast.PREGREETER: pregreeter,
    cast.PIPELINER: pipeliner,
    cast.BARE_NEWLINE: bare_newline,
    cast.LISTED: listed,
    cast.HTTP_PROBE: http_probe,
    cast.SLOW: slow,
    cast.IMPATIENT: impatient,
    cast.GREEDY: greedy,
    cast.BOTNET: bot,
}
