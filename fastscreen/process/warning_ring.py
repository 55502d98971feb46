"""The last warnings of each process, in memory that outlives it: the log cannot be asked, and may be anywhere."""

from __future__ import annotations

import struct
import time
import zlib

WARNINGS = 200  # of one process
_SLOT = 640  # bytes: CRC, sequence, time, length, text
_HEAD = struct.Struct("<IQdH")
MAX_TEXT = _SLOT - _HEAD.size
SIZE = WARNINGS * _SLOT  # bytes of a ring


class WarningRing:
    """One process calls `write`, any process may call `read`. A record that is half written has a wrong checksum and is
    omitted.
    """

    def __init__(self, memory: memoryview) -> None:
        """memory: SIZE bytes, initially zero, or the ring of another process to continue."""
        self._memory = memory
        self._sequence = max((sequence for sequence, _, _ in self._records()), default=0)

    def write(self, text: bytes) -> None:
        """Take note of a warning; for Log.on_warning. What is too long is cut."""
        text = text.removeprefix(b"warning: ")[:MAX_TEXT]
        self._sequence += 1
        at = self._sequence % WARNINGS * _SLOT
        body = _HEAD.pack(0, self._sequence, time.time(), len(text))[4:] + text
        self._memory[at : at + 4 + len(body)] = zlib.crc32(body).to_bytes(4, "little") + body

    def read(self) -> list[tuple[float, str]]:
        """(s since 1970, text), the oldest first."""
        return [(when, text) for _, when, text in sorted(self._records())]

    def _records(self) -> list[tuple[int, float, str]]:
        found = []
        for at in range(0, SIZE, _SLOT):
            slot = bytes(self._memory[at : at + _SLOT])
            total, sequence, when, length = _HEAD.unpack_from(slot)
            body = slot[4 : _HEAD.size + length]
            if sequence and total == zlib.crc32(body):
                found.append((sequence, when, body[_HEAD.size - 4 :].decode("utf-8", "replace")))
        return found
