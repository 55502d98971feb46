"""A mail server's log to measure and test `fastscreen report` with: the lines of a screener and of its MTA.

All of it is random with a fixed seed. Sessions overlap, as they do; clients that are told 450 come again, some from
another address of their network. A part of the clients say what looks like log lines.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

START = 1_795_996_800  # 2026-11-30 00:00:00 UTC
LISTS = (("zen.example", "127.0.0.4"), ("bl2.example", "127.0.0.2"), ("spam.example", "127.0.0.2"))
ALLOWED = ("allow.example", "127.0.5.2")
LINES_A_SECOND = 100  # 1 GB is then about a day
HOST = "mx1"

_BOTS = 300_000

_RCPT = "from=<{sender}>, to=<{recipient}>, proto=ESMTP, helo=<{helo}>"
_FORGED = (
    "x]:1: 550 5.7.1 forged; from=<>",
    "postfix/postscreen[1]: PASS NEW [192.0.2.1]:1",
    "DISCONNECT [192.0.2.1]:25",
)
_SAID = ("EHLO ylmf-pc\\r\\n", "EHLO User\\r\\n", "GET / HTTP/1.1\\r\\nHost: mx1\\r\\n", *_FORGED)


def traditional(second: int) -> str:
    """A stamp as syslog's."""
    at = time.localtime(second)
    return f"{time.strftime('%b', at)} {at.tm_mday:2d} {time.strftime('%H:%M:%S', at)}"


def rfc3339(second: int) -> str:
    """A stamp with microseconds, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456+00:00", time.gmtime(second))


def lines(seed: int, stamp: Callable[[int], str] = traditional, rate: int = LINES_A_SECOND) -> Iterator[str]:
    """Lines without end, in order of time from START on, each with its newline."""
    world = _World(random.Random(seed), rate)
    second = START
    while True:
        head = f"{stamp(second)} {HOST} postfix/"
        for line in world.second(second):
            yield f"{head}{line}\n"
        second += 1


def write(path: Path, size: int, seed: int = 1, stamp: Callable[[int], str] = traditional) -> None:
    """Write a log of about `size` bytes."""
    with path.open("w", encoding="ascii", buffering=1 << 20) as file:
        left = size
        for line in lines(seed, stamp):
            file.write(line)
            left -= len(line)
            if left <= 0:
                return


class _World:
    """Clients, and what they will do in the next seconds."""

    def __init__(self, source: random.Random, rate: int) -> None:
        self._random = source
        self._sessions = rate / 5.0
        self._coming: defaultdict[int, list[str]] = defaultdict(list)
        self._again: defaultdict[int, list[str]] = defaultdict(list)
        self._known = [self._address() for _ in range(5000)]

    def second(self, second: int) -> list[str]:
        """The lines of this second."""
        source = self._random
        for address in self._again.pop(second, ()):
            self._known_client(second, address)
        for _ in range(int(self._sessions + source.random())):
            kind = source.choices(_KINDS, _SHARES)[0]
            kind(self, second)
        return self._coming.pop(second, [])

    def _bot(self) -> str:
        """One of many clients, each of which comes back repeatedly."""
        number = self._random.randrange(_BOTS) * 2_654_435_761 % (1 << 32)
        return f"{1 + (number >> 24) % 223}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def _address(self) -> str:
        source = self._random
        if source.random() < 0.05:
            return f"2001:db8:{source.randrange(1, 4096):x}::{source.randrange(1, 65536):x}"
        return f"{source.randrange(1, 224)}.{source.randrange(64)}.{source.randrange(64)}.{source.randrange(1, 255)}"

    def _say(self, second: int, text: str, program: str = "postscreen[811]") -> None:
        self._coming[second].append(f"{program}: {text}")

    def _connect(self, second: int, address: str) -> str:
        client = f"[{address}]:{self._random.randrange(1024, 65536)}"
        self._say(second, f"CONNECT from {client} to [198.51.100.7]:25")
        return client

    def _envelope(self) -> str:
        number = self._random.randrange(100_000)
        helo = _FORGED[number % 3].replace(" ", "_") if number % 50 == 0 else f"h{number % 1000}.example"
        return _RCPT.format(sender=f"s{number}@news.example", recipient=f"u{number % 500}@example.net", helo=helo)

    def _listed(self, second: int, address: str) -> None:
        source = self._random
        for number in range(1, 1 + source.choices((1, 2, 3), (5, 3, 2))[0]):
            domain, answer = LISTS[(number + source.randrange(2)) % 3]
            self._say(
                second,
                f"addr {address} listed by domain {domain} as {answer}",
                f"dnsblog[{source.randrange(900, 950)}]",
            )

    def known(self, second: int) -> None:
        self._known_client(second, self._random.choice(self._known))

    def _known_client(self, second: int, address: str) -> None:
        client = self._connect(second, address)
        self._say(second, f"PASS OLD {client}")
        self._delivery(second, address)

    def _delivery(self, second: int, address: str) -> None:
        name = f"mail.example.com[{address}]"
        number = self._random.randrange(1 << 40)
        pid = f"smtpd[{1000 + number % 50}]"
        self._say(second, f"connect from {name}", pid)
        self._say(second, f"{number:X}: client={name}", pid)
        self._say(second + 1, f"{number:X}: message-id=<{number}@news.example>", "cleanup[700]")
        self._say(second + 1, f"{number:X}: from=<s@news.example>, size=4821, nrcpt=1 (queue active)", "qmgr[701]")
        self._say(second + 1, f"disconnect from {name} ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5", pid)

    def fresh(self, second: int) -> None:
        address = self._address()
        client = self._connect(second, address)
        if self._random.random() < 0.1:
            domain, answer = ALLOWED
            self._say(second, f"addr {address} listed by domain {domain} as {answer}", "dnsblog[901]")
        self._say(second + 6, f"PASS NEW {client}")
        self._delivery(second + 6, address)

    def deep(self, second: int) -> None:
        source = self._random
        address = self._address()
        client = self._connect(second, address)
        reply = "450 4.3.2 Service currently unavailable"
        self._say(second + 7, f"NOQUEUE: reject: RCPT from {client}: {reply}; {self._envelope()}")
        self._say(second + 7, f"PASS NEW {client}")
        self._say(second + 7, f"DISCONNECT {client}")
        way = source.random()
        if way < 0.5:
            self._again[second + 8 + int(source.expovariate(1 / 900))].append(address)
        elif way < 0.8 and ":" not in address:
            neighbour = f"{address.rpartition('.')[0]}.{source.randrange(1, 255)}"
            self._again[second + 8 + int(source.expovariate(1 / 900))].append(neighbour)

    def bot(self, second: int) -> None:
        address = self._bot()
        client = self._connect(second, address)
        self._listed(second, address)
        self._say(second + 6, f"DNSBL rank {self._random.randrange(3, 9)} for {client}")
        reply = f"550 5.7.1 Service unavailable; client [{address}] blocked using zen.example"
        self._say(second + 6, f"NOQUEUE: reject: RCPT from {client}: {reply}; {self._envelope()}")
        if self._random.random() < 0.5:
            self._say(second + 6, f"HANGUP after 0.4 from {client} in tests after SMTP handshake")
        self._say(second + 6, f"DISCONNECT {client}")

    def pregreeter(self, second: int) -> None:
        client = self._connect(second, self._bot())
        said = self._random.choice(_SAID)
        self._say(second, f"PREGREET {len(said)} after 0.12 from {client}: {said}")
        self._say(second, f"DISCONNECT {client}")

    def hanger(self, second: int) -> None:
        client = self._connect(second, self._bot())
        self._say(second + 2, f"HANGUP after 1.9 from {client} in tests before SMTP handshake")
        self._say(second + 2, f"DISCONNECT {client}")

    def denied(self, second: int) -> None:
        client = self._connect(second, self._bot())
        self._say(second, f"DENYLISTED {client}")
        self._say(second, f"DISCONNECT {client}")

    def permitted(self, second: int) -> None:
        client = self._connect(second, self._random.choice(self._known))
        self._say(second, f"ALLOWLISTED {client}")

    def rough(self, second: int) -> None:
        client = self._connect(second, self._bot())
        finding = self._random.choice(
            (
                f"NON-SMTP COMMAND from {client} after CONNECT: GET / HTTP/1.1",
                f"COMMAND PIPELINING from {client} after MAIL: RCPT TO:<a@b>\\r\\n",
                f"BARE NEWLINE from {client} after NOOP",
                f"COMMAND COUNT LIMIT from {client} after NOOP",
            )
        )
        self._say(second + 7, finding)
        self._say(second + 7, f"DISCONNECT {client}")

    def group(self, second: int) -> None:
        client = self._connect(second, self._bot())
        why = self._random.choice(("too many connections", "all server ports busy"))
        self._say(second, f"NOQUEUE: reject: CONNECT from {client}: {why}")
        self._say(second, f"DISCONNECT {client}")

    def continued(self, second: int) -> None:
        client = self._connect(second, self._address())
        self._say(second + 7, f"PASS NEW {client}")
        self._say(second + 7, f"CONTINUE from {client} to 127.0.0.1:10025: 250 2.1.5 Ok")

    def house(self, second: int) -> None:
        """Lines of the programs that are not about clients."""
        text, program = self._random.choice(
            (
                ("warning: dnsblog reply timeout 10s for zen.example", "postscreen[811]"),
                ("entering STRESS mode with 90 connections", "postscreen[811]"),
                ("cache lmdb:/var/lib/postfix/ps full cleanup: retained=5 dropped=1 entries", "postscreen[811]"),
                ("CONNECT from [192.0.2.1]:4242", "tlsproxy[820]"),
                ("statistics: max connection rate 1/60s", "anvil[822]"),
            )
        )
        self._say(second, text, program)


_SHARES_OF: dict[Callable[[_World, int], None], float] = {
    _World.known: 20,
    _World.fresh: 8,
    _World.deep: 6,
    _World.bot: 35,
    _World.pregreeter: 12,
    _World.hanger: 8,
    _World.denied: 2,
    _World.permitted: 5,
    _World.rough: 2,
    _World.group: 1,
    _World.continued: 1,
    _World.house: 1,
}
_KINDS = tuple(_SHARES_OF)
_SHARES = tuple(_SHARES_OF.values())
