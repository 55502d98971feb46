"""A client's life as text: each session, what it was told, when it came back, and what changed in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from fastscreen.format import moment, plural, span
from fastscreen.history.changes import changes
from fastscreen.history.session import Session
from fastscreen.history.settings import HistorySettings
from fastscreen.history.wording import details, listing, reasons, result

MAX_CLIENTS = 10_000  # of a network, whose earlier sessions are remembered
_MAX_CHANGES = 6

SettingsOf = Callable[[int], HistorySettings | None]


class _Run(Struct):
    """Sessions of a client, one after the other, in which the same happened."""

    first: Session
    last: Session
    count: int = 0
    shortest: float = 0.0
    longest: float = 0.0


class Life:
    """Sessions become lines, in the order of the sessions' ends. Memory is limited, however many sessions there are.

    several: sessions of more than one address, so that each line has its address.
    """

    def __init__(self, settings: SettingsOf, several: bool) -> None:
        self._settings = settings
        self._several = several
        self._before: dict[str, Session] = {}
        self._run: _Run | None = None
        self._deferred: Session | None = None
        self._outcomes: Counter[str] = Counter()
        self._addresses: set[str] = set()
        self._first = self._last = 0.0
        self.sessions = 0

    def lines(self, sessions: Iterable[Session]) -> Iterator[str]:
        """All of it: a block for each session, and a summary."""
        for session in sessions:
            yield from self._add(session)
        yield from self._end_run()
        yield from self._summary()

    def _add(self, session: Session) -> Iterator[str]:
        before = self._before.pop(session.address, None)
        self._before[session.address] = session
        if len(self._before) > MAX_CLIENTS:
            del self._before[next(iter(self._before))]
        self._count(session)
        run = self._run
        if run is not None and before is run.last and _same(before, session):
            pause = max(0.0, session.began - run.last.ended)
            run.shortest = min(run.shortest, pause) if run.count else pause
            run.longest = max(run.longest, pause)
            run.last = session
            run.count += session.weight
            return
        yield from self._end_run()
        self._run = _Run(session, session)
        yield ""
        address = f"{session.address:<15}  " if self._several else ""
        yield f"{moment(session.began)}  {address}{result(session)} after {_duration(session.lasted)}"
        if session.weight > 1:
            yield f"    stands for {session.weight:,} sessions (history.known)"
        yield from (f"    {text}" for text in self._came_back(session, before))
        yield from (f"    changed since then: {text}" for text in self._changes(session, before))
        yield from (f"    {text}" for text in reasons(session))
        settings = self._settings(session.settings)
        yield from (f"    {text}" for text in details(session, settings.threshold if settings is not None else None))

    def _count(self, session: Session) -> None:
        self.sessions += session.weight
        self._outcomes[session.outcome] += session.weight
        self._first = min(self._first or session.began, session.began)
        self._last = max(self._last, session.ended)
        if len(self._addresses) <= MAX_CLIENTS:
            self._addresses.add(session.address)

    def _came_back(self, session: Session, before: Session | None) -> Iterator[str]:
        """After how long it came back; or another address of its network, after one was deferred."""
        deferred = self._deferred
        if before is not None:
            pause = session.began - before.ended
            if pause < 0:
                yield "began before its previous session had ended"
            else:
                yield f"came back after {_duration(pause)}"
        elif deferred is not None and deferred.address != session.address and session.began >= deferred.ended:
            yield f"came {_duration(session.began - deferred.ended)} after {deferred.address} was deferred"
        if deferred is not None and session.began >= deferred.ended:
            self._deferred = None
        if session.outcome == "deferred":
            self._deferred = session

    def _changes(self, session: Session, before: Session | None) -> Iterator[str]:
        if before is None:
            return
        if session.settings != before.settings:
            old, new = self._settings(before.settings), self._settings(session.settings)
            found = list(changes(old, new)) if old is not None and new is not None else []
            more = f" and {len(found) - _MAX_CHANGES} more" if len(found) > _MAX_CHANGES else ""
            yield f"the settings{': ' if found else ''}{', '.join(found[:_MAX_CHANGES])}{more}"
        if "dnsbl" in before.made and "dnsbl" in session.made:
            was, now = _listed(before), _listed(session)
            if added := [text for name, text in now.items() if name not in was]:
                yield f"listed by {', '.join(added)}"
            if removed := [name for name in was if name not in now]:
                yield f"no longer listed by {', '.join(removed)}"
        if before.helo and session.helo and before.helo != session.helo:
            yield "its HELO name"
        if session.server != before.server:
            yield f"the server address: {before.server} → {session.server}"

    def _end_run(self) -> Iterator[str]:
        run = self._run
        self._run = None
        if run is not None and run.count:
            spans = {_duration(run.shortest), _duration(run.longest)}
            pauses = f"{_duration(run.shortest)} to {_duration(run.longest)}" if len(spans) > 1 else spans.pop()
            more = plural(run.count, "more session", "more sessions")
            yield f"    {more} like this until {moment(run.last.ended)}, each after {pauses}"

    def _summary(self) -> Iterator[str]:
        if not self.sessions:
            return
        words = {"handed_off": "handed off", "busy": "rejected by a limit", "failed": "failed at the hand-off",
                 "left": "without a verdict"}  # fmt: skip
        parts = [f"{count:,} {words.get(outcome, outcome)}" for outcome, count in self._outcomes.most_common()]
        clients = f" of {'more than ' if len(self._addresses) > MAX_CLIENTS else ''}"
        clients = f"{clients}{plural(min(len(self._addresses), MAX_CLIENTS), 'address', 'addresses')}"
        yield ""
        yield (
            f"{plural(self.sessions, 'session')}{clients if self._several else ''} from {moment(self._first)} "
            f"to {moment(self._last)}: {', '.join(parts)}"
        )


_TOLD = (
    "outcome", "verdict", "settings", "found", "failed", "marks", "lists", "score", "evidence", "helo", "tls", "server",
    "mta_reply", "mta_accepted", "mta_rejected",
)  # fmt: skip


def _same(before: Session, session: Session) -> bool:
    """Whether nothing is worth telling again."""
    return session.began >= before.ended and all(getattr(before, field) == getattr(session, field) for field in _TOLD)


def _listed(session: Session) -> dict[str, str]:
    return {answer.name: listing(answer) for answer in session.lists if answer.state in ("listed", "doubtful")}


def _duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)
