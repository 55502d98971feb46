"""Joins the sessions of the MTA's log to those that were handed off, for the memory of offenses."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from fastscreen.config.feedback_kinds import JOURNAL
from fastscreen.config.model import Feedback as Settings
from fastscreen.escaping import unexpected
from fastscreen.feedback import postfix, syslog
from fastscreen.feedback.handoffs import HandOff, HandOffs, Unknown
from fastscreen.feedback.journal import Journal
from fastscreen.feedback.log_file import LogFile
from fastscreen.feedback.mta_sessions import (
    JOIN_SECONDS,
    MAX_SESSIONS,
    OFFENSE,
    QUEUE_SECONDS,
    MtaSession,
    MtaSessions,
)
from fastscreen.feedback.source import Source, SourceError
from fastscreen.feedback.spam import LINE_SECONDS, SpamExpression, Verdict
from fastscreen.feedback.state import FeedbackStats
from fastscreen.format import size
from fastscreen.process.conditions import Conditions, Kind

SPAM_SECONDS = 30.0  # for which an accepted message waits for a verdict, if there is an expression for verdicts
RETRY_SECONDS = 30.0  # at most, between attempts to read the log; the first ones are sooner
WARN_SECONDS = 60.0  # between two warnings about lines that were skipped
SHORTEST = 24  # bytes of a line that may say something

Conduct = tuple[int, int]
Note = Callable[[dict[bytes, Conduct]], object]
"""`OffenseWriter.note`."""


def open_source(settings: Settings) -> Source:
    """The log that is configured."""
    if settings.log == JOURNAL:
        return Journal(everything=bool(settings.spam))
    return LogFile(settings.log)


class Feedback:
    """One recorder's. note: takes what clients did, by address. info, warn: log one line. timer: s, monotonic."""

    def __init__(
        self,
        settings: Settings,
        conditions: Conditions,
        note: Note,
        *,
        info: Callable[[str], object],
        warn: Callable[[str], object],
        timer: Callable[[], float] = time.monotonic,
        source: Callable[[Settings], Source] = open_source,
    ) -> None:
        self._conditions = conditions
        self._note = note
        self._info = info
        self._warn = warn
        self._timer = timer
        self._new_source = source
        self._hand_offs = HandOffs()
        self._sessions = MtaSessions()
        self._settling: deque[tuple[float, MtaSession]] = deque()
        self._joined: dict[tuple[bytes, int], MtaSession] = {}  # the oldest first
        self._found: dict[bytes, Conduct] = {}
        self._counts: Counter[str] = Counter()
        self._warn_at = 0.0
        self._told = 0
        self._trouble = ""
        self._use(settings)

    def configure(self, settings: Settings) -> None:
        """Follow a new configuration."""
        if settings != self._settings:
            self._counts["skipped"] += self._source.skipped
            self._source.close()
            self._end_trouble()
            self._use(settings)

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._source = self._new_source(settings)
        self._read = syslog.of_journal if settings.log == JOURNAL else syslog.of_file
        self._spam = SpamExpression(settings.spam) if settings.spam else None
        self._settle_seconds = SPAM_SECONDS if settings.spam else 0.0
        self._slow_told = False
        self._attempts = 0
        self._retry_at = 0.0

    def add(self, sessions: Sequence[Unknown]) -> None:
        """Sessions have reached the MTA."""
        now = self._timer()
        for session in sessions:
            if (gone := self._hand_offs.add(session, now)) is not None:
                self._give_up(gone)

    # ---- a turn

    def turn(self) -> bool:
        """Read what is new. Return whether more is waiting. Never raises."""
        now = self._timer()
        if now >= self._retry_at:
            try:
                self._take(self._source.read(), now)
                self._recovered()
            except SourceError as error:
                self._fail(str(error), now)
            except Exception as error:
                self._fail(unexpected(error), now)
        self._settle(now)
        self._tell(now)
        self._publish()
        return self._source.behind > 0

    def _take(self, lines: list[bytes], now: float) -> None:
        self._counts["lines"] += len(lines)
        if self._spam is not None:
            self._spam.begin_turn()
        for raw in lines:
            if len(raw) < SHORTEST:
                continue
            line = self._read(raw)
            if line is None:
                continue
            event = postfix.read(line)
            if event is not None:
                self._sessions.take(line, event, now)
            elif self._spam is not None and (verdict := self._spam.find(line.said)) is not None:
                self._take_verdict(verdict, now)

    def _take_verdict(self, verdict: Verdict, now: float) -> None:
        """A message is spam."""
        client = verdict.client
        if verdict.queue:
            session = self._sessions.of_message(verdict.queue, now)
            if session is None or (client is not None and not _agree(session.client, client)):
                return
        else:
            assert client is not None
            if (waiting := self._hand_offs.find(client)) is not None:
                waiting.is_spam = True
                return
            session = self._joined.get((client.address, client.port))
        if session is not None and not session.is_spam:
            session.is_spam = True
            if session.hand_off is not None:  # joined; it may have counted as accepted before
                self._judge(session)

    # ---- sessions that have ended

    def _settle(self, now: float) -> None:
        ended = self._sessions.ended
        while ended and ended[0].ended + JOIN_SECONDS <= now:
            session = ended.popleft()
            if not self._join(session):
                continue
            if session.accepted and not session.is_spam and len(self._settling) < MAX_SESSIONS:
                self._settling.append((session.ended + self._settle_seconds, session))
            else:
                self._judge(session)
        while self._settling and self._settling[0][0] <= now:
            if not (session := self._settling.popleft()[1]).is_judged:
                self._judge(session)
        for gone in self._hand_offs.expired(now):
            self._give_up(gone)
        self._sessions.forget_old(now)
        while self._joined and next(iter(self._joined.values())).ended + QUEUE_SECONDS < now:
            del self._joined[next(iter(self._joined))]

    def _join(self, session: MtaSession) -> bool:
        if self._hand_offs.is_ambiguous(session.client):
            self._counts["ambiguous"] += 1
        session.hand_off = self._hand_offs.take(session.client, session.ended)
        if session.hand_off is None:
            self._counts["foreign"] += 1
            return False
        session.is_spam = session.is_spam or session.hand_off.is_spam
        self._joined.pop(key := (session.hand_off.address, session.hand_off.port), None)
        if len(self._joined) >= MAX_SESSIONS:
            del self._joined[next(iter(self._joined))]
        self._joined[key] = session
        return True

    def _judge(self, session: MtaSession) -> None:
        """Let the memory learn what became of a session that was handed off."""
        assert session.hand_off is not None
        bad, good = session.conduct
        what = "spam" if session.is_spam else "rejected" if bad else "accepted" if good else "other"
        self._counts[what] += 1
        session.is_judged = True
        self._put(session.hand_off.address, bad, good)

    def _give_up(self, session: HandOff) -> None:
        """The log said nothing of its end: the session counts as without feedback."""
        if session.is_spam:
            self._counts["spam"] += 1
            self._put(session.address, OFFENSE if session.may_be_bad else 0, 0)
        else:
            self._counts["unknown"] += 1
            self._put(session.address, 0, session.good)

    def _put(self, address: bytes, bad: int, good: int) -> None:
        if bad or good:
            before = self._found.get(address, (0, 0))
            self._found[address] = (max(bad, before[0]), max(good, before[1]))

    def _publish(self) -> None:
        if self._found:
            found, self._found = self._found, {}
            self._note(found)

    # ---- what goes wrong

    def _fail(self, text: str, now: float) -> None:
        self._retry_at = now + min(2.0**self._attempts, RETRY_SECONDS)
        self._attempts = min(self._attempts + 1, 10)
        text = f"feedback.log: {text}"
        self._conditions.begin(Kind.FEEDBACK, f"{text}; outcomes of sessions are not known")
        if text != self._trouble:
            self._trouble = text
            self._warn(f"{text}; retried automatically")

    def _recovered(self) -> None:
        self._attempts = 0
        if self._trouble:
            self._end_trouble()
            self._info("feedback.log: is read again")

    def _end_trouble(self) -> None:
        self._trouble = ""
        self._conditions.end(Kind.FEEDBACK)

    def _tell(self, now: float) -> None:
        skipped = self._counts["skipped"] + self._source.skipped
        if skipped > self._told and now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            self._warn(f"feedback.log: {size(skipped - self._told)} skipped: the log grows faster than it can be read")
            self._told = skipped
        if self._spam is not None and self._spam.slow and not self._slow_told:
            self._slow_told = True
            self._warn(
                f"feedback.spam: the expression needs more than {LINE_SECONDS * 1000:.0f} ms for a line, or too long "
                "for all of them: such lines do not match"
            )

    # ---- for the recorder

    def stats(self) -> FeedbackStats:
        """How it is doing."""
        names = ("lines", "accepted", "rejected", "spam", "other", "unknown", "foreign", "ambiguous")
        return FeedbackStats(
            problem=self._trouble,
            **{name: self._counts[name] for name in names},
            waiting=len(self._hand_offs) + len(self._settling),
            behind=self._source.behind,
            skipped=self._counts["skipped"] + self._source.skipped,
            slow=self._counts["slow"] + (self._spam.slow if self._spam is not None else 0),
        )

    def close(self) -> None:
        """Judge what is known, and let the other sessions count as without feedback."""
        self.turn()
        while self._sessions.ended:
            session = self._sessions.ended.popleft()
            if self._join(session):
                self._judge(session)
        while self._settling:
            if not (session := self._settling.popleft()[1]).is_judged:
                self._judge(session)
        for gone in self._hand_offs.all():
            self._give_up(gone)
        self._publish()
        self._source.close()
        self._end_trouble()


def _agree(session: postfix.Client, verdict: postfix.Client) -> bool:
    ports = (session.port, verdict.port)
    return session.address == verdict.address and (0 in ports or ports[0] == ports[1])
