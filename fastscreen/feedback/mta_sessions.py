"""What Postfix's lines say about its sessions, collected until each is judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from fastscreen.feedback.handoffs import HandOff
from fastscreen.feedback.postfix import Active, Client, Connected, Disconnected, Event, Queued, Refused
from fastscreen.feedback.syslog import Line

MAX_SESSIONS = 20_000  # of smtpd processes, and of messages in the queue; the oldest go first
JOIN_SECONDS = 2.0  # after the end: the recorder learns of a session within this time, and qmgr has logged its message
QUEUE_SECONDS = 900.0  # for which a queue ID is remembered after the end of the session
OFFENSE = 256  # a day with an offense, as `offenses_in` weighs it
ACCEPTED = 2
REJECTED_MANY = 3  # recipients or messages, and the client guesses addresses (OFFENSE_REJECTED)


class MtaSession:
    """One client of an smtpd. hand_off: the session of ours that it is; None: not known (yet)."""

    __slots__ = (
        "accepted", "client", "discarded", "ended", "hand_off", "is_judged", "is_spam", "recipients", "rejected"
    )  # fmt: skip

    def __init__(self, client: Client) -> None:
        self.client = client
        self.accepted = 0
        self.rejected = 0
        self.recipients = -1
        self.discarded = self.is_spam = self.is_judged = False
        self.ended = 0.0
        self.hand_off: HandOff | None = None

    @property
    def conduct(self) -> tuple[int, int]:
        """The weight of the offense, and how good the client was: as for relayed sessions (ext/offense_record.pyx)."""
        hand_off = self.hand_off
        if hand_off is None or not hand_off.may_be_bad:
            bad = 0
        elif self.is_spam or (self.rejected >= REJECTED_MANY and 2 * self.rejected >= self.recipients):
            bad = OFFENSE
        else:
            bad = OFFENSE // 2 if self.rejected and not self.accepted else 0
        good = ACCEPTED if self.accepted and not self.discarded and not self.is_spam and bad != OFFENSE else 0
        return bad, good


class MtaSessions:
    """A bounded number of them. Sessions that have ended wait in `ended` until they can be joined."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max = max_sessions
        self._open: dict[Hashable, MtaSession] = {}
        self._queue: dict[str, tuple[float, MtaSession]] = {}
        self.ended: deque[MtaSession] = deque()

    def take(self, line: Line, event: Event, now: float) -> None:
        """Follow a line."""
        process = (line.host, line.program, line.pid)
        match event:
            case Connected(client):
                self._put(process, MtaSession(client))
            case Queued(client, queue):
                self._remember(queue, self._of(process, client), now)
            case Refused(client, queue, discarded):
                found = self._open.get(process) if client is None and not queue else None
                if client is not None:
                    found = self._of(process, client)
                elif queue:
                    found = self.of_message(queue, now)
                if found is not None and discarded:
                    found.discarded = True
                elif found is not None:
                    found.rejected += 1
            case Active(queue):
                if (found := self.of_message(queue, now)) is not None:
                    found.accepted += 1
            case Disconnected(client, accepted, recipients):
                self._end(process, self._of(process, client), accepted, recipients, now)

    def _end(self, process: Hashable, session: MtaSession, accepted: int, recipients: int, now: float) -> None:
        self._open.pop(process, None)
        session.accepted = max(session.accepted, accepted)
        session.recipients = recipients
        session.ended = now
        if len(self.ended) < self._max:
            self.ended.append(session)

    def of_message(self, queue: str, now: float) -> MtaSession | None:
        """The session in which a message with this queue ID came."""
        found = self._queue.get(queue)
        return found[1] if found is not None and found[0] + QUEUE_SECONDS >= now else None

    def _of(self, process: Hashable, client: Client) -> MtaSession:
        """The session of an smtpd. Without a line about its begin, it begins now."""
        found = self._open.get(process)
        if found is None or found.client != client:
            found = self._put(process, MtaSession(client))
        return found

    def _put(self, process: Hashable, session: MtaSession) -> MtaSession:
        self._open.pop(process, None)
        if len(self._open) >= self._max:
            del self._open[next(iter(self._open))]
        self._open[process] = session
        return session

    def _remember(self, queue: str, session: MtaSession, now: float) -> None:
        self._queue.pop(queue, None)
        if len(self._queue) >= self._max:
            del self._queue[next(iter(self._queue))]
        self._queue[queue] = (now, session)

    def forget_old(self, now: float) -> None:
        """Forget messages that came long ago."""
        while self._queue:
            key = next(iter(self._queue))
            if self._queue[key][0] + QUEUE_SECONDS >= now:
                break
            del self._queue[key]
