"""Plays one dialogue against one screener and writes down what the client saw and what was logged."""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable

from peers.dialogue import Dialogue, Step
from peers.logbook import Line
from peers.namespace import Namespace
from peers.sides import Side

TIMEOUT = 15.0  # how long an expected line or close may take; a dialogue that is right never waits so long
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SETTLE = 8.0  # how long the log may take to end a session; longer is not a failure, but the transcript shows it


class Connection:
    """One client connection; a task reads all that comes."""

    def __init__(self, number: int, handle: socket.socket, address: str) -> None:
        self.number, self.address, self._socket = number, address, handle
        self.began = time.monotonic()
        self.reached = self.began  # when the last expected line, or the end, was seen
        self.port: int = handle.getsockname()[1]
        self.received = b""
        self.end = ""  # "closed" or "reset", by the server
        self.left = False  # the client has ended it
        self._seen = 0
        self._news = asyncio.Event()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.handshake = ""  # "done" or "failed"
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.end:
            try:
                data = await loop.sock_recv(self._socket, 65536)
            except (ConnectionResetError, BrokenPipeError):
                self.end = "reset"
            else:
                if self._tls is None:
                    self.received += data
                    self.end = "" if data else "closed"
                else:
                    await self._decrypt(self._tls, data)
            self._news.set()

    async def _decrypt(self, tls: ssl.SSLObject, data: bytes) -> None:
        """The bytes received in TLS; an end without close_notify is marked."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        try:
            if not self.handshake:
                tls.do_handshake()
                self.handshake = "done"
            while got := tls.read(65536):
                self.received += got
            self.end = "closed"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.handshake = self.handshake or "failed"
            self.end = "cut off"
        await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._send(data)

    async def shake_hands(self) -> bool:
        """Begin TLS, without a look at the certificate; False when it does not come about."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        await self._flush()
        return await self._until(lambda: bool(self.handshake or self.end)) and self.handshake == "done"

    async def _until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + TIMEOUT
        while not condition():
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                return False
        self.reached = time.monotonic()
        return True

    async def expect(self, prefix: bytes) -> bool:
        """Wait for a whole line that begins so, after the last one expected; False when none came."""

        def found() -> bool:
            at = self._seen
            while (end := self.received.find(b"\n", at)) >= 0:
                if self.received.startswith(prefix, at):
                    self._seen = end + 1
                    return True
                at = end + 1
            return False

        matched = False

        def done() -> bool:
            nonlocal matched
            matched = matched or found()
            return matched or bool(self.end)

        return await self._until(done) and matched

    async def closed(self) -> bool:
        """Wait for the server's end of the connection; False when it does not come."""
        return await self._until(lambda: bool(self.end))

    async def send(self, data: bytes) -> None:
        """Send; an ended connection swallows it."""
        if self._tls is None or self.handshake != "done":
            await self._send(data)
            return
        self._tls.write(data)
        await self._flush()

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self._socket, data), TIMEOUT)
        except (OSError, TimeoutError):
            return

    async def introduce(self, form: str, client: str) -> None:
        """Send a PROXY header that names a client: from now on the connection is that one's."""
        if form == "local":
            await self.send(SIGNATURE + b"\x20\x00\x00\x00")
            return
        self.address, self.port = client, 40000 + self.number
        server = "2001:db8::25" if ":" in client else "198.51.100.7"
        if form == "v1":
            family = "TCP6" if ":" in client else "TCP4"
            await self.send(f"PROXY {family} {client} {server} {self.port} 25\r\n".encode())
            return
        ends = ipaddress.ip_address(client).packed + ipaddress.ip_address(server).packed
        content = (
            ends + struct.pack("!HH", self.port, 25) + (b"\x04\x00\x02xy\x05\x00\x01z" if form == "v2-tlv" else b"")
        )
        family_octet = 0x21 if ":" in client else 0x11
        await self.send(SIGNATURE + struct.pack("!BBH", 0x21, family_octet, len(content)) + content)

    def half_close(self) -> None:
        """End our direction only; an ended connection has none."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def leave(self, *, reset: bool = False) -> None:
        """Close it, with FIN or RST."""
        if self.left:
            return
        self.left = True
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Player:
    """One dialogue against one side; `play` returns the transcript."""

    def __init__(self, namespace: Namespace, dialogue: Dialogue, side: Side) -> None:
        self._namespace, self._dialogue, self._side = namespace, dialogue, side
        self._connections: list[Connection] = []
        self._named: dict[str, Connection] = {}
        self._notes: dict[int, list[str]] = {}
        self._before = 0  # how many lines the screener had logged before
        self._broken = ""
        self.missing: list[str] = []
        """Expected lines that never came: against the real postscreen, a mistake in the dialogue."""

    async def play(self) -> list[str]:
        """Play it through; return the lines of the transcript, by which two sides are compared."""
        self._before = len(self._side.lines())
        try:
            for step in self._dialogue.steps:
                await self._do(step)
            for connection in self._connections:
                await connection.leave()
            await self._settle({connection.address for connection in self._connections})
        except OSError as error:  # nobody listens any more
            self._broken = f"cannot go on: {error}"
        finally:
            for connection in self._connections:
                await connection.leave()
        return self._transcript()

    async def _do(self, step: Step) -> None:
        if step.verb == "connect":
            self._named[step.name] = await self._connect(self._dialogue.address(step.client), backup=step.backup)
            return
        if step.verb == "hold":
            for index in range(step.count):
                held = await self._connect(self._dialogue.address(step.client, index))
                await self._expect(held, b"220")
            return
        if step.verb == "pause":
            await asyncio.sleep(step.seconds)
            return
        connection = self._named[step.name]
        if step.verb == "proxy":
            await connection.introduce(step.data.decode(), self._dialogue.address(step.client))
        elif step.verb == "send":
            await connection.send(step.data)
        elif step.verb == "expect":
            await self._expect(connection, step.data)
        elif step.verb == "handshake":
            if not await connection.shake_hands():
                self._miss(connection, "the end of the handshake")
        elif step.verb == "closed":
            if not await connection.closed():
                self._miss(connection, "the end of the connection")
        elif step.verb == "close":
            await connection.leave()
        elif step.verb == "reset":
            await connection.leave(reset=True)
        elif step.verb == "half-close":
            connection.half_close()
        elif step.verb == "settled":
            await self._settle({connection.address})
        else:  # within, not-before
            took = connection.reached - connection.began
            kept = took <= step.seconds if step.verb == "within" else took >= step.seconds
            self._note(connection, f"{step.verb} {step.seconds:g}: " + ("yes" if kept else "no"))

    async def _connect(self, address: str, *, backup: bool = False) -> Connection:
        mine = [connection for connection in self._connections if connection.address == address]
        if mine and all(connection.left or connection.end for connection in mine):
            for connection in mine:
                await connection.leave()
            await self._settle({address})
        ipv6 = ":" in address
        # the log tells an address's connections apart by port alone: the kernel may give a port again
        taken = {connection.port for connection in mine}
        while True:
            handle = self._namespace.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
            handle.bind((address, 0))
            if handle.getsockname()[1] not in taken:
                break
            handle.close()
        handle.setblocking(False)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = self._side.address6 if ipv6 else self._side.backup if backup else self._side.address
        target = (host, self._side.port)
        await asyncio.get_running_loop().sock_connect(handle, target)
        connection = Connection(len(self._connections) + 1, handle, address)
        self._connections.append(connection)
        return connection

    async def _expect(self, connection: Connection, prefix: bytes) -> None:
        if not await connection.expect(prefix):
            self._miss(connection, repr(prefix.decode("latin-1")))

    async def _settle(self, addresses: set[str]) -> None:
        end = time.monotonic() + SETTLE
        for address in addresses:
            count = sum(connection.address == address for connection in self._connections)
            while not self._side.settled(address, count) and time.monotonic() < end:
                await asyncio.sleep(0.05)
        # a session that was handed off has ended in smtpd's log; the screener's may be written a little later
        lines = -1
        while lines < (lines := len(self._side.lines())) and time.monotonic() < end:
            await asyncio.sleep(0.15)

    def _note(self, connection: Connection, text: str) -> None:
        self._notes.setdefault(connection.number, []).append(text)

    def _miss(self, connection: Connection, what: str) -> None:
        self._note(connection, f"never came: {what}")
        self.missing.append(f"connection {connection.number}: {what}")

    def _transcript(self) -> list[str]:
        lines = []
        for each in self._connections:
            received = each.received.decode("latin-1").splitlines(keepends=True)
            lines += [f"{each.number}< " + self._normal_reply(each, line) for line in received]
            lines += [f"{each.number}  {note}" for note in self._notes.get(each.number, [])]
            lines.append(f"{each.number}  {each.end or 'left open'}")
        if self._broken:
            lines += [self._broken, *self._side.last_words().splitlines()]
        ours = {each.address for each in self._connections}
        side, alone = self._side, self._dialogue.alone
        # the line about the cache's cleanup is not about a session, and its time is unrelated
        own = [line for line in side.lines()[self._before :] if not line.text.startswith("cache ")]
        lines += ["postscreen: " + self._normal(line) for line in own if alone or line.address in ours]
        lines += sorted("dnsblog: " + line.text for line in side.dnsblog_lines() if line.address in ours)
        lines += ["tlsproxy: " + self._normal(line) for line in side.tlsproxy_lines() if line.address in ours]
        # two clients' smtpd processes log in no particular order
        served = sorted((line for line in side.smtpd_lines() if line.address in ours), key=lambda line: line.address)
        lines += ["smtpd: " + line.text for line in served]
        return lines

    def _normal(self, line: Line) -> str:
        """Put in place of what must differ: the client's port, our own address, times that passed."""
        port = self._side.port
        text = line.text.replace(f"to [{self._side.address}]:{port}", "to [SERVER]:PORT")
        text = text.replace(f"to [{self._side.address6}]:{port}", "to [SERVER]:PORT")
        text = text.replace(f"to [{self._side.backup}]:{port}", "to [BACKUP]:PORT")
        for each in self._connections:
            text = text.replace(f"[{each.address}]:{each.port}", f"[{each.address}]:#{each.number}")
            text = text.replace(f"[{each.address}]{each.port}:", f"[{each.address}]#{each.number}:")
        return _LOCALTIME.sub("LOCALTIME", _AFTER.sub(r"\1after T from", text))

    def _normal_reply(self, connection: Connection, line: str) -> str:
        text = line.encode("unicode_escape").decode("ascii")
        # the only place where a reply has a port or a time
        if self._dialogue.settings.get("engine.reject_footer") or self._dialogue.profile == "imported-full":
            text = re.sub(rf"\b{connection.port}\b", f"#{connection.number}", _LOCALTIME.sub("LOCALTIME", text))
        return text


_AFTER = re.compile(r"^(HANGUP |PREGREET \d+ )after (?:0|[1-9]\d*|\d+\.\d{1,2}) from")
_LOCALTIME = re.compile(r"[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d")
