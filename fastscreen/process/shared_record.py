"""A record in memory that several processes share: one writes it, the others read it without waiting."""

from __future__ import annotations

import struct
import zlib
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

SIZE = 1 << 16
"""Bytes of the memory."""
_HEAD = struct.Struct("<II")
_READS = 3  # of memory that is being written

Record = TypeVar("Record", bound=Struct)


class SharedRecord(Generic[Record]):
    """A view of the memory. `write` is for one process, `clear` for its parent after its end, `read` for any.

    memory: SIZE bytes, zero at first.
    """

    def __init__(self, memory: memoryview, kind: type[Record]) -> None:
        self._memory = memory
        self._kind = kind

    def write(self, record: Record) -> bool:
        """Replace what is there. False: the record is too long."""
        body = msgspec.msgpack.encode(record)
        if len(body) > SIZE - _HEAD.size:
            return False
        self._memory[: _HEAD.size + len(body)] = _HEAD.pack(zlib.crc32(body), len(body)) + body
        return True

    def clear(self) -> None:
        """The process has ended."""
        self._memory[: _HEAD.size] = bytes(_HEAD.size)

    def read(self) -> Record | None:
        """What was written last. None: nothing was."""
        for _ in range(_READS):
            total, length = _HEAD.unpack_from(self._memory)
            body = bytes(self._memory[_HEAD.size : _HEAD.size + min(length, SIZE)])
            if length and zlib.crc32(body) == total:
                try:
                    return msgspec.msgpack.decode(body, type=self._kind)
                except msgspec.MsgspecError:
                    return None
        return None
