"""The name server that resolv.conf names: asks rbldnsd, and for some zones misbehaves as lists do."""

import selectors
import socket
import threading
import time

from peers import rbldnsd
from peers.namespace import Namespace

ADDRESS = "127.0.53.1"

SERVFAIL = 2
NXDOMAIN = 3

# the last labels of the name asked -> what happens
BEHAVIOUR: dict[str, str] = {
    "dead.rbl.test": "no answer",
    "fail.rbl.test": "SERVFAIL",
    "slow.rbl.test": "listed, after SLOW seconds",
}
SLOW = 1.5  # well within the greet wait, and long after what a dialogue does meanwhile


class NameServer:
    """A UDP server on 127.0.53.1 port 53 of the namespace, in a thread."""

    def __init__(self, namespace: Namespace) -> None:
        self._server = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind((ADDRESS, 53))
        self._lists = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._lists.connect((rbldnsd.ADDRESS, 53))
        self._waker, self._wake = socket.socketpair()
        self.asked: dict[str, int] = {}
        """How often each name was asked, lower case."""
        self._thread = threading.Thread(target=self._serve, name="nameserver")
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and close its sockets."""
        self._wake.send(b"x")
        self._thread.join()
        for each in (self._server, self._lists, self._waker, self._wake):
            each.close()

    def _serve(self) -> None:
        waiting: dict[int, tuple[bytes, tuple[str, int]]] = {}  # our id -> the question's id, who asked
        later: list[tuple[float, bytes, tuple[str, int]]] = []
        serial = 0
        with selectors.DefaultSelector() as selector:
            for each in (self._server, self._lists, self._waker):
                selector.register(each, selectors.EVENT_READ)
            while True:
                timeout = max(0.0, later[0][0] - time.monotonic()) if later else None
                ready = [key.fileobj for key, _ in selector.select(timeout)]
                while later and later[0][0] <= time.monotonic():
                    _, answer, client = later.pop(0)
                    self._server.sendto(answer, client)
                if self._waker in ready:
                    return
                if self._server in ready:
                    question, client = self._server.recvfrom(4096)
                    name, end = _name(question)
                    self.asked[name] = self.asked.get(name, 0) + 1
                    zone = ".".join(name.split(".")[-3:])
                    if zone == "dead.rbl.test":
                        pass
                    elif zone == "fail.rbl.test":
                        self._server.sendto(_reply(question, end, SERVFAIL), client)
                    elif zone == "slow.rbl.test":
                        later.append((time.monotonic() + SLOW, _reply(question, end, 0, "127.0.0.2"), client))
                    elif name.endswith((".rbl.test", *rbldnsd.ZONES)):
                        serial = (serial + 1) % 65536
                        waiting[serial] = (question[:2], client)
                        self._lists.send(serial.to_bytes(2, "big") + question[2:])
                    else:
                        self._server.sendto(_reply(question, end, NXDOMAIN), client)
                if self._lists in ready:
                    try:
                        answer = self._lists.recv(4096)
                    except OSError:
                        continue
                    if asked := waiting.pop(int.from_bytes(answer[:2], "big"), None):
                        self._server.sendto(asked[0] + answer[2:], asked[1])


def _name(question: bytes) -> tuple[str, int]:
    """Return the name asked, lower case, and where the question section ends."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii").lower())
        at += 1 + question[at]
    return ".".join(labels), at + 5


def _reply(question: bytes, end: int, code: int, address: str | None = None) -> bytes:
    records = b""
    if address is not None:
        records = b"\xc0\x0c\x00\x01\x00\x01" + (300).to_bytes(4, "big") + b"\x00\x04" + socket.inet_aton(address)
    counts = b"\x00\x01" + (b"\x00\x01" if records else b"\x00\x00") + b"\x00\x00\x00\x00"
    return question[:2] + bytes([0x81, 0x80 | code]) + counts + question[12:end] + records
