"""Plays one dialogue against one screener and writes down what the client saw and what was logged."""

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable

from peers.dialogue import Dialogue, Step
from peers.logbook import Line
from peers.namespace import Namespace
from peers.sides import Side

PATIENCE = 15.0  # how long an expected line or close may take; a dialogue that is right never waits so long
SETTLE = 8.0  # how long the log may take to end a session; longer is no failure, the transcript shows it


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
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.end:
            try:
                data = await loop.sock_recv(self._socket, 65536)
            except (ConnectionResetError, BrokenPipeError):
                self.end = "reset"
            else:
                self.received += data
                if not data:
                    self.end = "closed"
            self._news.set()

    async def _until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + PATIENCE
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
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self._socket, data), PATIENCE)
        except (OSError, TimeoutError):
            return

    def half_close(self) -> None:
        """End our direction only."""
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
            self._named[step.name] = await self._connect(self._dialogue.address(step.client))
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
        if step.verb == "send":
            await connection.send(step.data)
        elif step.verb == "expect":
            await self._expect(connection, step.data)
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

    async def _connect(self, address: str) -> Connection:
        mine = [connection for connection in self._connections if connection.address == address]
        if mine and all(connection.left or connection.end for connection in mine):
            for connection in mine:
                await connection.leave()
            await self._settle({address})
        ipv6 = ":" in address
        handle = self._namespace.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        handle.setblocking(False)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.bind((address, 0))
        target = (self._side.address6 if ipv6 else self._side.address, self._side.port)
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
        # the line about the cache's cleanup is not about a session, and comes at a time of its own
        own = [line for line in side.lines()[self._before :] if not line.text.startswith("cache ")]
        lines += ["postscreen: " + self._normal(line) for line in own if alone or line.address in ours]
        lines += sorted("dnsblog: " + line.text for line in side.dnsblog_lines() if line.address in ours)
        # two clients' smtpd processes log in no particular order
        served = sorted((line for line in side.smtpd_lines() if line.address in ours), key=lambda line: line.address)
        lines += ["smtpd: " + line.text for line in served]
        return lines

    def _normal(self, line: Line) -> str:
        """Put in place of what must differ: the client's port, our own address, times that passed."""
        text = line.text.replace(f"to [{self._side.address}]:", "to [SERVER]:")
        text = text.replace(f"to [{self._side.address6}]:", "to [SERVER]:")
        for each in self._connections:
            text = text.replace(f"[{each.address}]:{each.port}", f"[{each.address}]:#{each.number}")
            text = text.replace(f"[{each.address}]{each.port}:", f"[{each.address}]#{each.number}:")
        return _LOCALTIME.sub("LOCALTIME", _AFTER.sub(r"\1after T from", text))

    def _normal_reply(self, connection: Connection, line: str) -> str:
        text = line.encode("unicode_escape").decode("ascii")
        if self._dialogue.settings.get("engine.reject_footer"):  # the only place where a reply has a port or a time
            text = re.sub(rf"\b{connection.port}\b", f"#{connection.number}", _LOCALTIME.sub("LOCALTIME", text))
        return text


_AFTER = re.compile(r"^(HANGUP |PREGREET \d+ )after (?:0|[1-9]\d*|\d+\.\d{1,2}) from")
_LOCALTIME = re.compile(r"[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d")
