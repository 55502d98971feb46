"""A separate process with clients that leave at any moment: `python load.py KIND SECONDS SEED HOST PORT`.

Each connection comes through a balancer, whose PROXY header (version 2) names an address in 127.36.10.0/18; that
address decides which worker has it. What a client does and where it breaks off is chance, by the seed. The process
prints how many connections it made. KIND:

    hasty      a dialogue of random commands that does not wait for replies
    leave      send the header and close: the descriptor is passed to another worker as its client goes
    mail       a dialogue with a RCPT that Continue passes on, and a message
    tls        the same after STARTTLS
    known      a client that is relayed at once, and a message
    shared     a client that the cluster may know: its greet wait may end early
    overlap    up to six sessions of one client, most of which leave while the cluster is asked about it
"""

import contextlib
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BALANCER = "127.36.0.9"
THREADS = 12
NETWORKS = {"known": 37, "shared": 38, "overlap": 39}  # 127.X.0.0/16; of the others 127.36.0.0/16
TIMEOUT = 8.0  # s: a bound on hanging


class Left(Exception):
    """The client broke off here."""


class Client:
    """One connection. `step` is where it may end: closed, reset, or half-closed first."""

    def __init__(self, where: tuple[str, int], dice: random.Random, address: bytes) -> None:
        self.where = where
        self.dice = dice
        self.address = address
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        self.socket.bind((BALANCER, 0))
        self.socket.connect(where)
        self.header = SIGNATURE + b"\x21\x11\0\x0c" + address + bytes((127, 36, 0, 1)) + dice.randbytes(2) + b"\0\x19"

    def step(self, chance: float = 0.12) -> None:
        if self.dice.random() < chance:
            with contextlib.suppress(OSError):
                if self.dice.random() < 0.3:
                    self.socket.shutdown(socket.SHUT_WR)
                if self.dice.random() < 0.5:
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Left

    def send(self, data: bytes) -> None:
        """In one piece, or in two; or break off between these."""
        at = self.dice.randrange(len(data)) if self.dice.random() < 0.2 else 0
        if at:
            self.socket.sendall(data[:at])
            self.step()
        self.socket.sendall(data[at:])
        self.step()

    def read(self) -> bytes:
        """One reply, or b"" at the end."""
        reply = b""
        while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] == b"-":
            got = self.socket.recv(4096)
            if not got:
                raise Left
            reply += got
        self.step()
        return reply

    def talk(self, *lines: bytes) -> None:
        for line in lines:
            self.send(line + b"\r\n")
            self.read()


def leave(client: Client) -> None:
    with contextlib.suppress(Left):
        client.send(client.header)


def mail(client: Client) -> None:
    client.send(client.header)
    client.read()
    client.talk(b"EHLO load.test")
    message(client)


HASTE = (
    b"EHLO load.test", b"HELO load.test", b"MAIL FROM:<a@load.test>", b"RCPT TO:<b@here.test>", b"DATA", b"RSET",
    b"mail from: a@load.test  SIZE=1 BODY=8BITMIME ", b"BDAT 3", b"STARTTLS", b"NOOP", b"x" * 5000, b"",
)  # fmt: skip


def hasty(client: Client) -> None:
    """In pieces, with and without pauses, and at times more than is read at once."""
    dice = client.dice
    client.send(client.header)
    client.read()
    lines = [b"EHLO load.test", *dice.choices(HASTE, k=dice.randrange(12)), b"QUIT", b""]
    text = b"\r\n".join(lines)
    while text:
        size = dice.choice((1, 30, 300, 5000))
        client.socket.sendall(text[:size])
        text = text[size:]
        time.sleep(dice.choice((0.0, 0.0, 0.01, 0.07)))
        client.step(0.04)
    while True:
        client.read()


def tls(client: Client) -> None:
    client.send(client.header)
    client.read()
    client.talk(b"EHLO load.test", b"STARTTLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client.socket = context.wrap_socket(client.socket, do_handshake_on_connect=False)
    client.step()
    client.socket.do_handshake()
    client.talk(b"EHLO inside.test")
    message(client)


def message(client: Client) -> None:
    client.talk(b"MAIL FROM:<a@load.test>", b"RCPT TO:<b@here.test>", b"DATA")
    client.send(client.dice.randbytes(client.dice.choice((10, 5000, 200_000))) + b"\r\n.\r\n")
    client.talk(b"QUIT")


def overlap(client: Client) -> None:
    """The sessions begin within a few milliseconds, and leave before the answer, with it, or after it."""
    sessions = [client]
    with contextlib.ExitStack() as stack:
        for _ in range(client.dice.randrange(6)):
            other = Client(client.where, client.dice, client.address)
            stack.callback(other.socket.close)
            sessions.append(other)
        for each in sessions:
            each.socket.sendall(each.header)
            if client.dice.random() < 0.3:
                time.sleep(client.dice.random() * 0.01)
        client.dice.shuffle(sessions)
        for each in sessions:
            time.sleep(client.dice.choice((0.0, 0.001, 0.01, 0.03)))
            with contextlib.suppress(Left, OSError):
                if client.dice.random() < 0.2:
                    each.send(b"EHLO early.test\r\n")
                each.step(0.8)
                each.read()
            each.socket.close()


KINDS = {"hasty": hasty, "leave": leave, "mail": mail, "tls": tls, "known": mail, "shared": mail, "overlap": overlap}


def address(kind: str, dice: random.Random) -> bytes:
    """A client's. Few of them for sessions that overlap, so that those of several threads do."""
    third = 10 + dice.randrange(1 if kind == "overlap" else 100)
    return bytes((127, NETWORKS.get(kind, 36), third, 1 + dice.randrange(50 if kind == "overlap" else 250)))


def connections(kind: str, dice: random.Random, where: tuple[str, int], end: float) -> Iterator[None]:
    """One after the other, until a time."""
    while time.monotonic() < end:
        try:
            client = Client(where, dice, address(kind, dice))
        except OSError:  # a full queue
            time.sleep(0.01)
            continue
        with contextlib.suppress(Left, OSError), contextlib.closing(client.socket):
            KINDS[kind](client)
        with contextlib.suppress(OSError):
            client.socket.close()
        yield


def main(kind: str, seconds: str, seed: str, host: str, port: str) -> None:
    end = time.monotonic() + float(seconds)
    made = []

    def work(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        for _ in connections(kind, dice, (host, int(port)), end):
            made.append(1)
            if kind == "leave" and len(made) % 20 == 0:
                time.sleep(0.004)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1 if kind == "leave" else THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
