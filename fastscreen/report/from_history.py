"""Counts recorded sessions instead of log lines: each session becomes the lines that the daemon logged about it.

The tally then counts as for a log, so that both reports agree. A record knows when a session began and ended, and what
happened, but not when in between, and not the texts that the client or the daemon sent: UNKNOWN names what is missing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from fastscreen.core import TESTS
from fastscreen.history.session import Session
from fastscreen.history.settings import HistorySettings
from fastscreen.report.lines import TEST_KINDS, Kind
from fastscreen.report.tally import DEFERRED, LABELS, Tally

AHEAD = 900.0  # s: sessions that last longer may be counted after later ones
MAX_LOOKUPS = 100_000  # clients whose latest lookups are remembered
AFTER = 7200.0  # s: sessions that began in the period and ended so long after it are counted, too
UNKNOWN = (
    "senders, recipients and the text of replies",
    "what clients sent",
    "clients that came from another network with the same mail (they count as never returned)",
    "warnings, stress mode and other lines without a client",
    "failed TLS handshakes, time limits of relayed sessions, and attempts to continue that failed",
    "answers of lists that came after the client had left, and sessions that have not ended",
)
"""What the history does not know and the log does."""
UNKNOWN_TOTALS = (
    Kind.NO_RCPT, Kind.RELAY_LIMIT, Kind.TLS_FAILED, Kind.STRESS, Kind.CLEANUP, Kind.WARNING, Kind.OTHER,
)  # fmt: skip

_ORDER = (
    *(test.key for test in TESTS if test.stage == "greet"),
    *(test.key for test in reversed(TESTS) if test.stage == "dialogue" and not test.own),
    *(test.key for test in TESTS if test.stage == "dialogue" and test.own),
)
"""Of tests, as the lines of a session that failed several of them most likely came."""
_DIALOGUE = frozenset(test.key for test in TESTS if test.stage == "dialogue")
_LIMITS = {
    "client_limit": b": too many connections",
    "server_ports": b": all server ports busy",
    "rate_limit": b": connection rate limit exceeded",
    "screening_ports": b": all screening ports busy",
}
_SHADOW_LIMITS = {"client_limit": "connections", "rate_limit": "connections", "screening_ports": "server busy"}
_RESPONSES = {"score_deferred": Kind.SCORE_DEFERRED, "doubtful": Kind.DOUBTFUL, "slowed": Kind.SLOWED}
_ENDS = {"time_limit": Kind.TIME_LIMIT, "count_limit": Kind.COUNT_LIMIT, "length_limit": Kind.LENGTH_LIMIT}
_RANKED = frozenset(("dnsbl", "score"))
_WITH_TLS = frozenset(("used", "1.2", "1.3"))
_RELAYED = frozenset(("relayed", "continued"))
_DROPPED = (521, 421)
"""Codes of replies to clients that are disconnected at once, instead of a reply to a recipient."""

SettingsOf = Callable[[int], HistorySettings | None]


class FromHistory:
    """Feeds a tally. sampled: sessions of which only some are recorded. several: those that failed several tests of the
    dialogue. cut: those with more answers of lists than a record has room for."""

    def __init__(self, tally: Tally, settings: SettingsOf) -> None:
        self._tally = tally
        self._settings = settings
        self._looked_up: dict[str, float] = {}
        self._when = 0
        self._address = self._where = b""
        self.sampled = 0
        self.several = 0
        self.cut = 0

    def add(self, sessions: Iterable[Session]) -> None:
        """Count sessions, which come in the order of their ends."""
        waiting: list[tuple[float, int, Session, bool]] = []
        numbers = count()
        for session in sessions:
            ended = self._tested(session)
            heapq.heappush(waiting, (session.began, next(numbers), session, True))
            heapq.heappush(waiting, (ended, next(numbers), session, False))
            while waiting and waiting[0][0] < session.ended - AHEAD:
                self._count(heapq.heappop(waiting))
        while waiting:
            self._count(heapq.heappop(waiting))
        self._tally.finish()

    def _tested(self, session: Session) -> float:
        """When its tests were over. What is relayed ends when the MTA has finished, perhaps hours later."""
        ended = max(session.began, session.ended)
        if session.outcome not in _RELAYED:
            return ended
        settings = self._settings(session.settings) if session.made else None
        return min(ended, session.began + (settings.greet_wait if settings is not None else 0.0))

    def notes(self) -> Iterator[str]:
        """What is missing or not exact."""
        yield f"not known from a history: {'; '.join(UNKNOWN)}"
        if self.sampled:
            yield f"estimated from a sample: {self.sampled:,} sessions of known clients"
        if self.several:
            yield f"counted for one of several tests of the dialogue that they failed: {self.several:,} sessions"
        if self.cut:
            yield f"with more answers of lists than are recorded: {self.cut:,} sessions"

    def _count(self, entry: tuple[float, int, Session, bool]) -> None:
        when, _, session, begins = entry
        address = session.address.encode()
        self._when, self._address, self._where = int(when), address, b"[%b]:%d" % (address, session.port)
        if begins:
            self._tally.lines += session.weight
            self.sampled += session.weight if session.weight > 1 else 0
            for _ in range(session.weight):
                self._begin(session)
        else:
            for _ in range(session.weight):
                self._end(session)

    def _line(self, kind: int, rest: bytes = b"", number: int = 0) -> None:
        self._tally.event(self._when, kind, self._address, self._where, b"%d" % number if number else b"", rest)

    def _begin(self, session: Session) -> None:
        """What is logged when a client connects (ext/session.pyx)."""
        marks = session.marks
        self._line(Kind.CONNECT)
        for mark in ("client_limit", "server_ports"):
            self._limit(mark, session)
        if "allowlisted" in marks:
            self._line(Kind.ALLOWLISTED)
        if "denylisted" in marks:
            self._line(Kind.DENYLISTED)
            settings = self._settings(session.settings)
            if settings is not None and _is_shadowed(settings, settings.denylist_action):
                self._tally.shadowed(self._when, self._address, self._where, "denylist")
        if "bypassed" in marks:
            self._line(Kind.BYPASSED)
        if "cached" in marks and "shared" not in marks:
            self._line(Kind.PASS_OLD)
        self._limit("rate_limit", session)
        if "vetoed" in marks:
            self._line(Kind.VETO)
            settings = self._settings(session.settings)
            if settings is not None and settings.shadow:
                self._tally.shadowed(self._when, self._address, self._where, DEFERRED)
        self._limit("screening_ports", session)

    def _limit(self, mark: str, session: Session) -> None:
        """A limit that the connection exceeded; in shadow mode, the session went on."""
        if mark in session.marks:
            self._line(Kind.REJECT_CONNECT, _LIMITS[mark])
            if session.outcome != "busy" and mark in _SHADOW_LIMITS:
                self._tally.shadowed(self._when, self._address, self._where, _SHADOW_LIMITS[mark])

    def _end(self, session: Session) -> None:
        """What is logged from the greet wait to the end."""
        marks = session.marks
        self._listed(session)
        settings = self._settings(session.settings)
        for key in _ORDER:
            if key in session.found:
                parts = ", ".join(f"{scorer} {part}" for scorer, part in session.parts.items() if part)
                rest = parts.encode() if key == "score" else b""
                self._line(TEST_KINDS[key], b": %b" % rest, _rank(key, session, settings) if key in _RANKED else 0)
                if (
                    settings is not None
                    and key in settings.tests
                    and _is_shadowed(settings, settings.tests[key].action)
                ):
                    self._tally.shadowed(self._when, self._address, self._where, LABELS[key])
        self.several += len(_DIALOGUE.intersection(session.found)) > 1
        for key in session.evidence:
            self._line(Kind.EVIDENCE, b": %b " % key.encode())
        for mark, kind in _RESPONSES.items():
            if mark in marks:
                self._line(kind)
        if session.tls in _WITH_TLS:
            self._tally.other(self._when, Kind.TLS_CONNECT)
            self._tally.other(self._when, Kind.TLS_DISCONNECT)
        if session.outcome in ("rejected", "deferred") and session.verdict not in _DROPPED:
            for _ in range(session.recipients):
                self._line(Kind.REJECT_RCPT, b": %d" % session.verdict)
        for mark, kind in _ENDS.items():
            if mark in marks:
                self._line(kind)
        if "hung_up" in marks:
            self._line(Kind.HANGUP)
        if "passed" in marks and ("cached" not in marks or "shared" in marks):
            self._line(Kind.PASS_NEW if "new" in marks else Kind.PASS_OLD)
        relayed = session.stage == "relay"
        if session.outcome == "continued":
            self._line(Kind.CONTINUE, b" to MTA: 250" if relayed else b" to MTA: MAIL refused: ")
        unannounced = session.outcome == "failed" and session.stage not in ("greet", "dialogue")
        if session.outcome not in ("handed_off", "relayed") and not relayed and not unannounced:
            self._line(Kind.DISCONNECT)

    def _listed(self, session: Session) -> None:
        """The answers of the lists, which the client's sessions in the greet wait share: they are logged once."""
        if not any(answer.addresses for answer in session.lists):
            return
        self.cut += "answers_cut" in session.marks
        settings = self._settings(session.settings)
        wait = settings.greet_wait if settings is not None else 0.0
        shared = session.began < self._looked_up.get(session.address, 0.0)
        if not shared:
            self._looked_up.pop(session.address, None)
            self._looked_up[session.address] = min(session.ended, session.began + wait)
            if len(self._looked_up) > MAX_LOOKUPS:
                del self._looked_up[next(iter(self._looked_up))]
            for answer in session.lists:
                for address in answer.addresses:
                    self._tally.listed(self._when, self._address, f"{answer.name} as {address}".encode())


def _is_shadowed(settings: HistorySettings, action: str) -> bool:
    """Whether shadow mode, or the action `shadow`, prevented a rejection."""
    return action == "shadow" or (settings.shadow and action in ("enforce", "drop"))


def _rank(key: str, session: Session, settings: HistorySettings | None) -> int:
    """The rank in the log: the score, or what it may have become if only that reaches the threshold."""
    score = session.lists_total if key == "dnsbl" else session.score or 0
    if settings is None or score >= settings.threshold:
        return score
    return score + session.lists_highest - session.lists_total
