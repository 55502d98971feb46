"""A name server with configurable answers for each zone, over UDP and TCP."""

import contextlib
import heapq
import ipaddress
import itertools
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

ADDRESS = "127.9.53.1"


class Question(NamedTuple):
    """One question as it came. name: lower case, no final dot. packet: the whole datagram. end: of its question."""

    name: str
    packet: bytes
    end: int
    over_tcp: bool

    @property
    def kind(self) -> int:
        """Of the records that are asked for."""
        return int.from_bytes(self.packet[self.end - 4 : self.end - 2], "big")


class Answer(NamedTuple):
    """A datagram to send, `delay` s after the question."""

    packet: bytes
    delay: float = 0.0


Behaviour = Callable[[Question], list[Answer]]


def reply(
    question: Question,
    *addresses: str,
    ttl: int = 300,
    code: int = 0,
    soa: int | None = None,
    flags: int = 0x8180,
    identity: bytes | None = None,
) -> bytes:
    """A well-formed reply with these A records; soa: TTL and MINIMUM of an SOA record in the authority section."""
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, ttl, 4) + ipaddress.IPv4Address(each).packed for each in addresses
    )
    authority = b""
    if soa is not None:
        data = b"\x00\x00" + struct.pack("!IIIII", 1, 2, 3, 4, soa)
        authority = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, soa, len(data)) + data
    counts = struct.pack("!HHHH", 1, len(addresses), 1 if authority else 0, 0)
    head = (identity or question.packet[:2]) + struct.pack("!H", flags | code) + counts
    return head + question.packet[12 : question.end] + records + authority


def listed(*addresses: str, ttl: int = 300, delay: float = 0.0) -> Behaviour:
    return lambda question: [Answer(reply(question, *addresses, ttl=ttl), delay)]


def looked_up(behaviour: Behaviour, seconds: float) -> Behaviour:
    """As a resolver: it begins to look a name up at the first question, and answers each when it knows."""
    known: dict[str, float] = {}

    def behave(question: Question) -> list[Answer]:
        now = time.monotonic()
        wait = max(0.0, known.setdefault(question.name, now + seconds) - now)
        return [answer._replace(delay=wait) for answer in behaviour(question)]

    return behave


PTR, AAAA = 12, 28


def pointing(*labels: bytes) -> Behaviour:
    """A PTR record whose name consists of these bytes."""
    data = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return lambda question: [Answer(record(question, PTR, data))]


def record(question: Question, kind: int, data: bytes) -> bytes:
    """A well-formed reply with one record of a kind."""
    head = question.packet[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
    body = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 300, len(data)) + data
    return head + question.packet[12 : question.end] + body


def not_listed(ttl: int = 300, delay: float = 0.0) -> Behaviour:
    return lambda question: [Answer(reply(question, code=3, soa=ttl), delay)]


def failing(code: int = 2) -> Behaviour:
    return lambda question: [Answer(reply(question, code=code))]


def silent(question: Question) -> list[Answer]:
    return []


class FakeDns:
    """Serves `zones` (the end of a name -> behavior) on ADDRESS and a free port; other names are NXDOMAIN."""

    def __init__(self, zones: dict[str, Behaviour] | None = None, address: str = ADDRESS) -> None:
        self.zones: dict[str, Behaviour] = zones or {}
        self.asked: Counter[str] = Counter()
        self.asked_over_tcp: Counter[str] = Counter()
        self.identities: list[bytes] = []
        self.ports: set[int] = set()
        self._udp, self._tcp = _pair(address)
        self.endpoint = "{}:{}".format(*self._udp.getsockname())
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="fake DNS")
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (self._udp, self._tcp, self._waker, self._wake):
            each.close()

    def count(self, zone: str) -> int:
        """How many questions for names of this zone came."""
        return sum(number for name, number in dict(self.asked).items() if name.endswith("." + zone))

    def _serve(self) -> None:
        later: list[tuple[float, int, bytes, tuple[str, int]]] = []
        serial = itertools.count()
        with selectors.DefaultSelector() as selector:
            for each in (self._udp, self._tcp, self._waker):
                selector.register(each, selectors.EVENT_READ)
            while True:
                timeout = max(0.0, later[0][0] - time.monotonic()) if later else None
                ready = [key.fileobj for key, _ in selector.select(timeout)]
                while later and later[0][0] <= time.monotonic():
                    _, _, packet, client = heapq.heappop(later)
                    self._send(packet, client)
                if self._waker in ready:
                    return
                if self._udp in ready:
                    packet, client = self._udp.recvfrom(4096)
                    question = _question(packet, over_tcp=False)
                    self.asked[question.name] += 1
                    self.identities.append(packet[:2])
                    self.ports.add(client[1])
                    for answer in self._behaviour(question)(question):
                        if answer.delay:
                            due = time.monotonic() + answer.delay
                            heapq.heappush(later, (due, next(serial), answer.packet, client))
                        else:
                            self._send(answer.packet, client)
                if self._tcp in ready:
                    connection, _ = self._tcp.accept()
                    with connection, contextlib.suppress(OSError, struct.error):
                        connection.settimeout(2.0)
                        (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                        question = _question(connection.recv(size, socket.MSG_WAITALL), over_tcp=True)
                        self.asked_over_tcp[question.name] += 1
                        answers = self._behaviour(question)(question)
                        for answer in answers:
                            connection.sendall(struct.pack("!H", len(answer.packet)) + answer.packet)
                        if answers:
                            connection.recv(1)  # until the client has read it

    def _behaviour(self, question: Question) -> Behaviour:
        for zone, behaviour in self.zones.items():
            if question.name == zone or question.name.endswith("." + zone):
                return behaviour
        return not_listed()

    def _send(self, packet: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._udp.sendto(packet, client)


def _pair(address: str) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket of the same port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            tcp.bind((address, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen(50)
        return udp, tcp


def _question(packet: bytes, *, over_tcp: bool) -> Question:
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii").lower())
        at += 1 + packet[at]
    return Question(".".join(labels), packet, at + 5, over_tcp)
