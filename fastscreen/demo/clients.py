"""What each kind of client in the demo does. Every session ends automatically. Random values are seeded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from fastscreen.demo import client_kinds
from fastscreen.demo.smtp import SmtpClient

Server = tuple[str, int]
Behavior = Callable[[Server, str, Random], Awaitable[None]]
"""Arguments: the server, the client's address, and a random number generator."""

GREEDY_CONNECTIONS = 14
_RECIPIENTS = (b"ann@mx.demo.example", b"info@mx.demo.example", b"sales@mx.demo.example", b"joe.smith@mx.demo.example")
_EARLY_TEXTS = (
    b"EHLO win-4f2k.drone.example\r\n",
    b"HELO 127.0.0.1\r\nMAIL FROM:<prize@lottery.example>\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on the wrong port
    b"EHLO \x1b]0;x\x07[@click=app.quit]x[/]\r\n",  # an attack on terminals that show the log
    b"SSH-2.0-Go\r\n",
)


async def sender(server: Server, address: str, random: Random) -> None:
    """A mail server, which comes back when it is deferred."""
    name = b"mail%d.good.example" % int(address.rpartition(".")[2])
    recipient = random.choice(_RECIPIENTS)
    for wait in (random.uniform(0.5, 2.0), random.uniform(2.0, 5.0), 0.0):
        async with SmtpClient(server, address) as smtp:
            if not (await smtp.greeting()).startswith(b"220"):
                return
            await smtp.ask(b"EHLO " + name)
            await smtp.ask(b"MAIL FROM:<news@good.example>")
            reply = await smtp.ask(b"RCPT TO:<" + recipient + b">")
            if reply.startswith(b"250"):
                await smtp.ask(b"DATA")
                await smtp.ask(b"Subject: hello\r\nFrom: news@good.example\r\n\r\nHello.\r\n.")
            await smtp.ask(b"QUIT")
        if not reply.startswith(b"4"):
            return
        await asyncio.sleep(wait)


async def pregreeter(server: Server, address: str, random: Random) -> None:
    """Sends before the greeting, and then continues its script."""
    async with SmtpClient(server, address) as smtp:
        await smtp.teaser()
        await asyncio.sleep(random.uniform(0.0, 0.6))
        early = random.choice(_EARLY_TEXTS)
        smtp.send(early)
        if not early.endswith(b"\n"):  # not a complete command, so there is never a reply
            await asyncio.sleep(random.uniform(2.0, 5.0))
            return
        await smtp.read_reply()
        await smtp.ask(b"MAIL FROM:<prize@lottery.example>")
        await smtp.ask(b"RCPT TO:<" + random.choice(_RECIPIENTS) + b">")
        await asyncio.sleep(random.uniform(0.0, 1.0))


async def pipeliner(server: Server, address: str, random: Random) -> None:
    """Waits for the greeting, but not for replies."""
    async with SmtpClient(server, address) as smtp:
        await smtp.greeting()
        recipient = random.choice(_RECIPIENTS)
        smtp.send(b"EHLO bulk.example\r\nMAIL FROM:<offer@bulk.example>\r\nRCPT TO:<" + recipient + b">\r\nDATA\r\n")
        await smtp.wait_closed()


async def bare_newline(server: Server, address: str, random: Random) -> None:
    """Ends its lines with a bare LF."""
    async with SmtpClient(server, address) as smtp:
        await smtp.greeting()
        for command in (b"EHLO script.example", b"MAIL FROM:<cron@script.example>", b"RCPT TO:<ann@mx.demo.example>"):
            smtp.send(command + b"\n")
            await smtp.read_reply()
        smtp.send(b"QUIT\n")
        await smtp.wait_closed()


async def listed(server: Server, address: str, random: Random) -> None:
    """A spammer that follows the protocol: only the DNS lists detect it."""
    async with SmtpClient(server, address) as smtp:
        if not (await smtp.greeting()).startswith(b"220"):
            return
        await smtp.ask(b"EHLO pharm%d.spam.example" % random.randrange(100))
        await smtp.ask(b"MAIL FROM:<pills@spam.example>")
        for recipient in random.sample(_RECIPIENTS, 2):
            await smtp.ask(b"RCPT TO:<" + recipient + b">")
        await smtp.ask(b"QUIT")


async def http_probe(server: Server, address: str, random: Random) -> None:
    """Looks for a web server or an open proxy. Half of these clients do not wait for the greeting."""
    async with SmtpClient(server, address) as smtp:
        if int(address.rpartition(".")[2]) % 2:
            await smtp.greeting()
        else:
            await smtp.teaser()
        smtp.send(
            random.choice(
                (
                    b"GET / HTTP/1.1\r\nHost: mx.demo.example\r\nUser-Agent: scan/2\r\n\r\n",
                    b"CONNECT mx.demo.example:25 HTTP/1.0\r\n\r\n",
                )
            )
        )
        await smtp.wait_closed()


async def slow(server: Server, address: str, random: Random) -> None:
    """Sends one byte at a time, and then pauses."""
    async with SmtpClient(server, address) as smtp:
        await smtp.greeting()
        for letter in b"EHLO tarpit.example":
            smtp.send(bytes((letter,)))
            await asyncio.sleep(random.uniform(0.2, 0.6))
        await smtp.ask(b"")
        await asyncio.sleep(random.uniform(10.0, 30.0))
        await smtp.ask(b"QUIT")


async def impatient(server: Server, address: str, random: Random) -> None:
    """Hangs up during the greet wait."""
    async with SmtpClient(server, address) as smtp:
        await smtp.teaser()
        await asyncio.sleep(random.uniform(0.1, 1.5))


async def greedy(server: Server, address: str, random: Random) -> None:
    """Opens more simultaneous connections than allowed."""
    await asyncio.gather(
        *(impatient(server, address, random) for _ in range(GREEDY_CONNECTIONS)), return_exceptions=True
    )


async def bot(server: Server, address: str, random: Random) -> None:
    """A member of a botnet: half of them are pregreeters."""
    await (pregreeter if random.random() < 0.5 else listed)(server, address, random)


BEHAVIORS: dict[client_kinds.ClientKind, Behavior] = {
    client_kinds.SENDER: sender,
    client_kinds.LARGE_SENDER: sender,
    client_kinds.OWN: sender,
    client_kinds.BANNED: listed,
    client_kinds.PREGREETER: pregreeter,
    client_kinds.PIPELINER: pipeliner,
    client_kinds.BARE_NEWLINE: bare_newline,
    client_kinds.LISTED: listed,
    client_kinds.HTTP_PROBE: http_probe,
    client_kinds.SLOW: slow,
    client_kinds.IMPATIENT: impatient,
    client_kinds.GREEDY: greedy,
    client_kinds.BOTNET: bot,
}
