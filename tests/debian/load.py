"""Clients that never stop, for an upgrade under load: `python load.py`, until SIGTERM, in the network of the machine.

Each client connects from an address of its own in 127/8, waits for the greeting, sends a message or only the envelope,
and quits; half of the clients come back. After SIGTERM the sessions are completed. It prints one JSON object: how many
sessions were complete, what happened to the others, and which addresses had a complete session.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
from collections import Counter

PORT = 25
CLIENTS = 40  # at the same time
TIMEOUT = 60.0
SLOW = 8.0  # s for which some clients wait in the middle of a session
SEED = 19


class Load:
    """The clients, and what they found."""

    def __init__(self) -> None:
        self.problems: Counter[str] = Counter()
        self.complete = 0
        self.passed: list[str] = []
        self._random = random.Random(SEED)
        self._numbers = itertools.count()

    async def run(self) -> None:
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        await asyncio.gather(*(self._client(end) for _ in range(CLIENTS)))

    async def _client(self, end: asyncio.Event) -> None:
        while not end.is_set():
            if self.passed and self._random.random() < 0.5:
                source = self._random.choice(self.passed)
            else:
                number = next(self._numbers)
                source = f"127.10.{number // 250}.{number % 250 + 1}"
            try:
                await asyncio.wait_for(self._session(source), TIMEOUT)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.problems[f"{type(error).__name__}: {error}"] += 1
            else:
                self.complete += 1
                if source not in self.passed:
                    self.passed.append(source)

    async def _session(self, source: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=(source, 0))
        try:
            await _reply(reader, "220")
            await _say(reader, writer, f"EHLO [{source}]", "250")
            await _say(reader, writer, "MAIL FROM:<sender@example.org>", "250")
            if self._random.random() < 0.2:
                await asyncio.sleep(SLOW)
            await _say(reader, writer, "RCPT TO:<root@mx.example.com>", "250")
            if self._random.random() < 0.2:
                await _say(reader, writer, "DATA", "354")
                await _say(reader, writer, "Subject: load\r\n\r\ntext\r\n.", "250")
            await _say(reader, writer, "QUIT", "221")
        finally:
            writer.close()


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, expected: str) -> None:
    writer.write(line.encode() + b"\r\n")
    await writer.drain()
    await _reply(reader, expected)


async def _reply(reader: asyncio.StreamReader, expected: str) -> None:
    while True:
        line = (await reader.readline()).decode("ascii", "replace")
        if not line:
            raise EOFError(f"closed instead of {expected}")
        if not line.startswith(expected):
            raise ValueError(f"{line.strip()!r} instead of {expected}")
        if line[3:4] != "-":
            return


if __name__ == "__main__":
    load = Load()
    asyncio.run(load.run())
    print(json.dumps({"complete": load.complete, "problems": load.problems, "passed": load.passed}))
