"""An MTA that takes clients by descriptor (`pass`) and by PROXY header, and counts: `python -m soak.mta FOLDER`.

It writes a journal, a line each, before it answers: `H via ip port time` for a client that it was given, `M id sum via
ip port` for a message that it accepts. FOLDER/mta.mode: `ok`, `slow`, `defers`.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import os
import re
import socket
import sys
import time
from pathlib import Path

from soak.settings import ADDRESS, MTA_PORT

BACKLOG = 100
IDLE_SECONDS = 120.0
_EHLO = "250-mta\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250-DSN\r\n250-CHUNKING\r\n250 SMTPUTF8"


class Mta:
    """The server. Everything happens in one loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mode = "ok"
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until it is killed."""
        path = self._folder / "mta/pass"
        path.unlink(missing_ok=True)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(str(path))
        path.chmod(0o666)
        unix.listen(BACKLOG)
        unix.setblocking(False)
        asyncio.get_running_loop().add_reader(unix.fileno(), self._accept, unix)
        server = await asyncio.start_server(self._proxied, ADDRESS, MTA_PORT, backlog=BACKLOG)
        async with server:
            while True:
                with contextlib.suppress(OSError):
                    self._mode = (self._folder / "mta.mode").read_text().strip() or "ok"
                await asyncio.sleep(0.1)

    def _note(self, *words: object) -> None:
        os.write(self._journal, (" ".join(map(str, words)) + "\n").encode())

    # ---- clients by descriptor

    def _accept(self, unix: socket.socket) -> None:
        for _ in range(50):
            try:
                local, _ = unix.accept()
            except OSError:
                return
            task = asyncio.get_running_loop().create_task(self._passed(local))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _passed(self, local: socket.socket) -> None:
        descriptors, attributes = await receive(local)
        if not descriptors:
            return
        client = socket.socket(fileno=descriptors[0])
        client.setblocking(False)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(sock=client)
            address, port = attributes.get("client_address", "?"), attributes.get("client_port", "?")
            await self._dialogue(reader, writer, "pass", address, port)

    # ---- clients behind a PROXY header

    async def _proxied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readexactly(16), 30)
            rest = await reader.readexactly(int.from_bytes(head[14:16], "big"))
        except (asyncio.IncompleteReadError, OSError, TimeoutError):
            writer.close()
            return
        if head[12] == 0x21 and len(rest) >= 12:
            address, port = socket.inet_ntoa(rest[:4]), int.from_bytes(rest[8:10], "big")
            await self._dialogue(reader, writer, "proxy", address, str(port))
        else:
            await self._dialogue(reader, writer, "", "local", "0")

    async def _dialogue(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, via: str, address: str, port: str
    ) -> None:
        if via:
            self._note("H", via, address, port, f"{time.monotonic():.3f}")

        async def say(text: str) -> None:
            if self._mode == "slow":
                await asyncio.sleep(1.0)
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        try:
            if self._mode == "defers":
                await say("421 4.3.2 mta: not now")
                return
            await say("220 mta ESMTP")
            while line := await asyncio.wait_for(reader.readline(), IDLE_SECONDS):
                match line[:4].upper():
                    case b"EHLO":
                        await say(_EHLO)
                    case b"DATA":
                        await say("354 go on")
                        body = await asyncio.wait_for(reader.readuntil(b"\r\n.\r\n"), IDLE_SECONDS)
                        found = re.search(rb"X-Id: (\S+)", body)
                        name = found[1].decode() if found else "?"
                        self._note("M", name, hashlib.sha256(body).hexdigest()[:16], via, address, port)
                        await say("250 2.0.0 Ok: queued")
                    case b"QUIT":
                        await say("221 2.0.0 Bye")
                        return
                    case _:
                        await say("250 2.1.0 Ok")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()


async def receive(local: socket.socket) -> tuple[array.array[int], dict[str, str]]:
    """A client's descriptor and its attributes, as Postfix's `pass` service gets them."""
    loop = asyncio.get_running_loop()
    local.setblocking(False)
    data, descriptors = b"", array.array("i")
    try:
        while not data.endswith(b"\0\0"):
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(local.fileno(), _set, ready)
            await asyncio.wait_for(ready, 10)
            loop.remove_reader(local.fileno())
            got, ancillary, _, _ = local.recvmsg(4096, socket.CMSG_SPACE(4))
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(content)
            if not got:
                break
            data += got
    except (OSError, TimeoutError):
        pass
    finally:
        loop.remove_reader(local.fileno())
        local.close()
    words = data[1:-2].decode("ascii", "replace").split("\0")
    return descriptors, dict(zip(words[::2], words[1::2], strict=False))


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


if __name__ == "__main__":
    asyncio.run(Mta(Path(sys.argv[1])).serve())
