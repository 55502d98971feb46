"""How the last reload, reopening of the log and restart ended, in memory that all processes share.

The supervisor writes, the control server reads: so `fastscreen reload` can wait for its own reload and say how it went,
and a refused one stays visible (as condition CONFIG and in the metrics) until a good one.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable

from msgspec import Struct

from fastscreen.process.conditions import Conditions, Kind

_SLOT = 1024  # bytes: checksum, record, text
_RECORD = struct.Struct("<QQddBH")
TEXT_MAX = _SLOT - 4 - _RECORD.size
SIZE = 3 * _SLOT
"""Bytes of memory for all three."""


class Outcome(Struct, frozen=True):
    """begun: how many have begun since the start. finished: the number of the last one that is over, `ok` how it ended,
    `text` in one line, `time` when; s since 1970, 0: there was none. success_time: of the last good one.
    """

    begun: int = 0
    finished: int = 0
    ok: bool = True
    text: str = ""
    time: float = 0.0
    success_time: float = 0.0


class Attempts:
    """Attempts of one kind. memory: one slot, zero at first. A half-written slot fails its checksum."""

    def __init__(self, memory: memoryview, clock: Callable[[], float] = time.time) -> None:
        self._memory = memory
        self._clock = clock

    def begin(self) -> None:
        """One begins now."""
        last = self.read() or Outcome()
        self._write(Outcome(last.begun + 1, last.finished, last.ok, last.text, last.time, last.success_time))

    def end(self, ok: bool, text: str) -> None:
        """The one that began last is over."""
        last, now = self.read() or Outcome(), self._clock()
        self._write(Outcome(last.begun, last.begun, ok, text, now, now if ok else last.success_time))

    def read(self) -> Outcome | None:
        """None: it is just being written."""
        slot = bytes(self._memory)
        if not any(slot[: 4 + _RECORD.size]):
            return Outcome()
        begun, finished, when, success, ok, length = _RECORD.unpack_from(slot, 4)
        body = slot[4 : 4 + _RECORD.size + min(length, TEXT_MAX)]
        if zlib.crc32(body) != int.from_bytes(slot[:4], "little"):
            return None
        text = body[_RECORD.size :].decode("utf-8", "replace")
        return Outcome(begun, finished, bool(ok), text, when, success)

    def _write(self, it: Outcome) -> None:
        text = " ".join(it.text.split()).encode("utf-8", "backslashreplace")[:TEXT_MAX]
        body = _RECORD.pack(it.begun, it.finished, it.time, it.success_time, it.ok, len(text)) + text
        self._memory[: 4 + len(body)] = zlib.crc32(body).to_bytes(4, "little") + body


class ReloadState:
    """All three, of one daemon. memory: SIZE bytes, initially zero. A successful restart never ends here: the new
    daemon uses different memory.
    """

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.reload = Attempts(memory[:_SLOT])
        self.reopen = Attempts(memory[_SLOT : 2 * _SLOT])
        self.restart = Attempts(memory[2 * _SLOT : SIZE])

    def accepted(self, conditions: Conditions, text: str) -> None:
        """A reload that began has ended well."""
        conditions.end(Kind.CONFIG)
        self.reload.end(True, text)

    def refused(self, conditions: Conditions, why: str) -> None:
        """A reload that began has failed: the settings stay as they were."""
        conditions.begin(Kind.CONFIG, f"{why}; the previous configuration stays in use")
        self.reload.end(False, why)
