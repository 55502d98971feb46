"""The workers' rings of events, as one, and events as the control socket shows them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastscreen.control.filters import Chosen
from fastscreen.control.messages import Event
from fastscreen.core import FINDINGS, FIRST_EVIDENCE, SCORERS, TESTS, EventReader, Filter

if TYPE_CHECKING:
    from fastscreen.core import EventTuple

Map = dict[str, Any]

_SECONDS = {"greet", "handed_off", "hangup", "disconnect"}  # their number is in µs
_CLIENTS_OWN = {"command", "evidence", *(test.event for test in TESTS if not test.own)}  # their text is the client's
_PLAIN = {
    "connect",
    "vetoed",
    "pregreet",
    "rank",
    "score",
    "evidence",
    "score_deferred",
    "doubtful",
    "slowed",
    "relayed",
    "stress_on",
    "stress_off",
}
_LIMITS = {1: "time", 2: "count", 3: "length"}
_SLICE = 8192  # records between two looks at what else is to be done
_EPOCHS = 8


class ListNames:
    """The DNSBL lists' names as they are shown, by the index that events have; a reload may change them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._epochs: list[tuple[float, tuple[str, ...]]] = [(0.0, tuple(names))]

    @property
    def now(self) -> tuple[str, ...]:
        return self._epochs[-1][1]

    def change(self, when: float, names: Sequence[str]) -> None:
        """From `when` on (s since 1970) these are the names."""
        if tuple(names) != self.now:
            self._epochs = [*self._epochs[1 - _EPOCHS :], (when, tuple(names))]

    def name(self, index: int, when: float) -> str | None:
        """None: no list, or one that is not known any more."""
        names = next((names for since, names in reversed(self._epochs) if since <= when), ())
        return names[index] if 0 <= index < len(names) else None


class Rings:
    def __init__(self, memory: Sequence[memoryview], names: ListNames) -> None:
        self.readers = [EventReader(each) for each in memory]
        self._names = names

    def heads(self) -> list[int]:
        return [reader.head for reader in self.readers]

    def counts(self) -> dict[str, int]:
        """How many events of each kind there were since the start, and sessions that were `rejected`."""
        total: Counter[str] = Counter()
        for reader in self.readers:
            total.update(reader.counts())
        return dict(total)

    def details(self) -> Map:
        """What `EventReader.details` has, of all workers."""
        total: Map = _sum([reader.details() for reader in self.readers])
        return total

    async def recent(self, chosen: Chosen, wanted: Filter, most: int, heads: Sequence[int]) -> list[Event]:
        """The latest events up to `heads` that match, the oldest first."""
        found: list[tuple[EventTuple, int]] = []
        for worker, reader in enumerate(self.readers):
            if chosen.worker(worker + 1):
                found += [(event, worker) for event in await _latest(reader, wanted, most, heads[worker])]
        found.sort(key=lambda pair: pair[0][1])
        return [self.shown(worker, event) for event, worker in found[len(found) - min(most, len(found)) :]]

    def complete_since(self) -> float | None:
        """From when on nothing is missing, in s since 1970; None: nothing has happened yet."""
        oldest: list[float] = []
        overtaken: list[float] = []
        everything = Filter()
        for reader in self.readers:
            head = reader.head
            if head == 0:
                continue
            since = max(0, head - reader.capacity + 1)
            events, _, _, _ = reader.read(since, everything, 1)
            if events:
                (overtaken if since else oldest).append(events[0][1])
        return max(overtaken) if overtaken else min(oldest, default=None)

    def shown(self, worker: int, event: EventTuple) -> Event:
        """An event as the socket has it. worker: from 0."""
        sequence, when, kind, session, address, port, stage, findings, score, index, number, text = event
        return Event(
            worker=worker + 1,
            sequence=sequence,
            time=when,
            kind=kind,
            session=session,
            address=address,
            port=port,
            stage=stage if session and stage != "gone" else None,
            failed=failed(findings),
            evidence=evidence(findings),
            score=score,
            zone=self._names.name(index, when),
            number=_number(kind, number),
            text=_text(kind, text),
        )


def _sum(parts: Sequence[Any]) -> Any:
    """Numbers, or maps and lists of them, added up."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: _sum([part[name] for part in parts]) for name in first}
    if isinstance(first, list):
        return [sum(column) for column in zip(*parts, strict=True)]
    return sum(parts)


def failed(findings: int) -> list[str]:
    """The names of failed tests."""
    return [name for bit, name in enumerate(FINDINGS) if findings >> bit & 1]


def evidence(findings: int) -> list[str]:
    """The keys of scorers that have found something."""
    return [scorer.key for bit, scorer in enumerate(SCORERS, FIRST_EVIDENCE) if findings >> bit & 1]


def _number(kind: str, number: int) -> int | float | str | None:
    if kind in _PLAIN:
        return number
    if kind in _SECONDS:
        return number / 1e6
    if kind == "listed":
        return ".".join(str(octet) for octet in (number & 0xFFFFFFFF).to_bytes(4, "little"))
    if kind == "list_failed":
        return "timeout" if number else "error"
    if kind == "command_limit":
        return _LIMITS.get(number)
    if kind == "passed":
        return "new" if number else "old"
    return None


def _text(kind: str, text: bytes) -> bytes | str | None:
    if kind in _CLIENTS_OWN:
        return text
    return text.decode("ascii", "backslashreplace") if text else None


async def _latest(reader: EventReader, wanted: Filter, most: int, head: int) -> list[EventTuple]:
    """The last `most` events up to `head` that match, without reading more of the ring than is needed."""
    found: list[EventTuple] = []
    window = 1024
    until = head
    while until > 0 and len(found) < most and head - until < reader.capacity:
        since = max(0, until - window)
        found = reader.read(since, wanted, window, until)[0] + found
        until = since
        window = min(2 * window, _SLICE)
        await asyncio.sleep(0)
    return found[max(0, len(found) - most) :]
