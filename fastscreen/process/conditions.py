"""Faults that last: what is wrong now, since when, and what the operator can do, in memory that all processes share.

A warning says that something happened. A condition says that it still holds: it begins, it ends, and between the two
the log, `status`, the metrics and the live view all show it. Each process writes its own conditions; the control server
reads all of them.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

_SLOT = 512  # bytes: checksum, start, length of the text, text
_HEAD = struct.Struct("<IdH")
TEXT_MAX = _SLOT - _HEAD.size


class Kind(IntEnum):
    """What is affected. The name, in lower case, is the label in metrics and JSON; the number is the slot."""

    CONFIG = 0
    TABLES = 1
    LOG = 2
    CACHE = 3
    MTA = 4
    RESOLVER = 5
    CERTIFICATES = 6
    TLS = 7
    CONTROL = 8
    METRICS = 9
    ALLOWLIST = 10
    WORKER = 11
    DESCRIPTORS = 12
    LISTEN = 13
    DISK = 14
    CLUSTER = 15
    CLUSTER_RECORDS = 16
    CLUSTER_CLOCK = 17
    CLUSTER_NAME = 18
    HISTORY = 19
    HISTORY_FILES = 20
    OFFENSES = 21
    FEEDBACK = 22

    @property
    def label(self) -> str:
        """As JSON, metrics and events name it."""
        return self.name.lower()

    @property
    def remedy(self) -> str:
        """What the operator can do about it; one line."""
        return _REMEDIES[self]


SIZE = len(Kind) * _SLOT
"""Bytes of memory for the conditions of one process."""

_REMEDIES = {
    Kind.CONFIG: "run `fastscreen check`, correct the file, then `fastscreen reload`",
    Kind.TABLES: "correct the file; it is read again when it changes",
    Kind.LOG: "make room on the disk, repair the path in log.to or start what reads it; retried automatically",
    Kind.CACHE: "make room on the disk, or repair the path in cache.path; retried automatically",
    Kind.MTA: "start the mail server, or correct handoff.to; retried with each client",
    Kind.RESOLVER: "start the resolver, or correct dnsbl.resolvers or resolv.conf; retried automatically",
    Kind.CERTIFICATES: "correct the files in tls.certificates, then `fastscreen reload`",
    Kind.TLS: "see the log; the process is started again automatically",
    Kind.CONTROL: "free the path in control.path; retried automatically",
    Kind.METRICS: "free the address in metrics.listen; retried automatically",
    Kind.ALLOWLIST: "see the log; the last good list stays in use and the refresh is retried",
    Kind.WORKER: "see the log; the process is started again automatically",
    Kind.DESCRIPTORS: "raise the limit on open files (LimitNOFILE=) or lower limits.pre_queue",
    Kind.LISTEN: "free the address, or remove it from listen.addresses",
    Kind.DISK: "make room on the disk",
    Kind.CLUSTER: "start the server, or correct the keys of [cluster]; retried automatically",
    Kind.CLUSTER_RECORDS: "give all hosts the same cluster.secret_file, and let nobody else write to the server",
    Kind.CLUSTER_CLOCK: "set the clock of this host, or that of the cluster's server; compared again automatically",
    Kind.CLUSTER_NAME: "give each host its own cluster.name, then `fastscreen restart`",
    Kind.HISTORY: "make room on the disk, or repair the folder in history.path; retried automatically",
    Kind.HISTORY_FILES: "move the files out of history.path to repair or keep them, or delete them",
    Kind.OFFENSES: "make room on the disk, or repair the path in score.memory; retried automatically",
    Kind.FEEDBACK: "let fastscreen's user read the log, or correct feedback.log; retried automatically",
}


class Condition(Struct, frozen=True):
    """One fault that holds now. since: s since 1970. text: one line: what is wrong, what fastscreen does about it."""

    kind: Kind
    since: float
    text: str


class Conditions:
    """The conditions of one process. `begin`, `end` and `clear` belong to it (or to its parent after its end); `read`
    to any process. A slot that is half written fails its checksum and is not returned.

    memory: SIZE bytes, zero at first. clock: s since 1970.
    """

    def __init__(self, memory: memoryview, clock: Callable[[], float] = time.time) -> None:
        self._memory = memory
        self._clock = clock

    def begin(self, kind: Kind, text: str) -> bool:
        """Set a condition, or change its text and keep its start. True when it did not hold before: log it then."""
        before = self._at(kind)
        since = before.since if before is not None else self._clock()
        encoded = " ".join(text.split()).encode("utf-8", "backslashreplace")[:TEXT_MAX]
        body = _HEAD.pack(0, since, len(encoded))[4:] + encoded
        at = kind * _SLOT
        self._memory[at : at + 4 + len(body)] = zlib.crc32(body).to_bytes(4, "little") + body
        return before is None

    def end(self, kind: Kind) -> bool:
        """Remove a condition. True when it held."""
        held = self._at(kind) is not None
        at = kind * _SLOT
        self._memory[at : at + _HEAD.size] = bytes(_HEAD.size)
        return held

    def clear(self) -> None:
        """Remove all of them: the process has ended, and its successor finds out for itself."""
        for kind in Kind:
            self.end(kind)

    def read(self) -> list[Condition]:
        """What holds now, in the order of `Kind`."""
        return [found for kind in Kind if (found := self._at(kind)) is not None]

    def _at(self, kind: Kind) -> Condition | None:
        slot = bytes(self._memory[kind * _SLOT : (kind + 1) * _SLOT])
        total, since, length = _HEAD.unpack_from(slot)
        body = slot[4 : _HEAD.size + min(length, TEXT_MAX)]
        if not since or total != zlib.crc32(body):
            return None
        return Condition(kind, since, body[_HEAD.size - 4 :].decode("utf-8", "replace"))
