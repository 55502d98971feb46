"""How large the memory may become. Its file never shrinks: the pages of records that were dropped are used again."""

from __future__ import annotations

_MIN_SIZE = 64 << 20
_RECORD = 1024  # bytes, on average at most: a full IPv4 /24 takes 2.3 KB, a network with one known address 40 bytes


def map_size(max_entries: int) -> int:
    """Bytes of the file's map, which LMDB never exceeds."""
    return max(_MIN_SIZE, max_entries * _RECORD)
