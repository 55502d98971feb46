"""The tally of log lines: totals by hour, and the results of clients and sessions.

Memory is limited: after CLIENTS clients, lines of other clients only count in the totals, and `beyond` is the number of
their connections. A client takes at most 0.6 kB, including its network.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from fastscreen import core
from fastscreen.escaping import MAX_TEXT, printable
from fastscreen.report.counts import Counts
from fastscreen.report.lines import KIND_NAMES, TEST_KINDS, VERBS, Kind, Row
from fastscreen.report.networks import prefix_of
from fastscreen.report.timestamps import Clock

CLIENTS = 1_000_000
MAX_OPEN = 200_000  # sessions that have not ended
MAX_DURATION = 7200  # s: no session under test lasts longer (20 commands of at most 300 s)
SETTLED = 600  # s: at the end of the log, an older session that has not ended was handed off to the MTA
TEXTS = 10_000  # different texts of each kind
MAILBOXES = 100_000  # different senders, and recipients
MAILS = 100_000  # different pairs of sender and recipient that were deferred
DETAILS = 200_000  # different pairs of reason and client
ANSWERS = 4096  # different answers of lists
ANSWER_SETS = 100_000  # different sets of answers
MAX_UNTESTED = 1  # s: a known client without due tests is handed off within this time
LOOKUP_TIME = 10  # s: the answers for one session arrive within this time
HOUR = 3600  # s
SLOT = 900  # s; a fraction of an hour, because time zones may differ by quarters of an hour

_KINDS = len(KIND_NAMES)
_CONNECT, _LISTED = int(Kind.CONNECT), int(Kind.LISTED)
LABELS = {test.key: test.label for test in core.TESTS}
_FINDINGS: dict[int, str] = {
    Kind.DENYLISTED: "denylist",
    **{TEST_KINDS[key]: label for key, label in LABELS.items()},
    Kind.TIME_LIMIT: "command time limit",
    Kind.COUNT_LIMIT: "command count limit",
    Kind.LENGTH_LIMIT: "command length limit",
}
TESTS = ("denylist", *LABELS.values())
"""The tests for which a client is rejected."""

LIMITS = ("command time limit", "command count limit", "command length limit", "connections", "server busy")
DEFERRED = "come again"
"""The reason of a 450 reply: the client passed the deep tests, or connected to an address where clients cannot pass."""

# Replies that contain the reason. For others, such as `5.5.1 Protocol error`, it is the failed test.
_REPLIES = (
    (b" blocked using ", LABELS["dnsbl"]),
    (b" blocked: ", LABELS["score"]),
    (b" 5.3.2 ", "denylist"),
    (b"450 4.3.2 ", DEFERRED),
    (b" too many connections", "connections"),
    (b" ports are busy", "server busy"),
)
_TOO_MANY = (b": too many connections", b": connection rate limit exceeded")
_SCORERS = {scorer.key.encode(): 1 << at for at, scorer in enumerate(core.SCORERS) if at}
_TLS_VERBS = {
    b"CONNECT": Kind.TLS_CONNECT,
    b"DISCONNECT": Kind.TLS_DISCONNECT,
}
_MAIL_REFUSED = re.compile(rb" to \S+: MAIL refused: ")
# from=<sender>, to=<recipient>, proto=P, helo=<name>: a quoted local part may have any of these in it.
_MAILBOX = rb'([^"<>]*+(?:"(?:\\.|[^"\\])*+"[^"<>]*+)*+)'
_ENVELOPE = re.compile(rb"; from=<%b>, to=<%b>, proto=" % (_MAILBOX, _MAILBOX))


class Network(Struct, eq=False, gc=False):
    """The state of a network.

    away: how often one of its clients was deferred. back: how often that client came back itself. waiting: deferred
    clients since the last connection from the network.
    """

    away: int = 0
    back: int = 0
    clients: int = 0
    connections: int = 0
    handed: int = 0
    refused: int = 0
    waiting: list[Client] | None = None


class Client(Struct, eq=False, gc=False):
    """The state of a client.

    away: when it was deferred (0: never, or it came back). neighbour: after how long another address of its network
    came back (-1: never). elsewhere: after how long a client of another network was deferred for the same sender and
    recipient (-1: never). instead: the address that came back. failed: the last test for which it was rejected;
    failed_at, rank: when, and its rank then. passed_after: after how long it was handed off (-1: never).
    answers, answered: the last answers of the lists, and when. lists: all lists that ever listed it, as bits.
    reached: whether its last session reached the threshold (None: not tested). evidence: of all scorers that ever found
    something, as bits.
    """

    address: bytes
    network: Network
    away: int = 0
    neighbour: int = -1
    elsewhere: int = -1
    instead: bytes = b""
    failed: str = ""
    failed_at: int = 0
    rank: int = 0
    passed_after: int = -1
    handed: int = 0
    lists: int = 0
    answers: tuple[int, ...] = ()
    answered: int = 0
    reached: bool | None = None
    evidence: int = 0


class Session(Struct, eq=False, gc=False):
    """A session that has not ended. handed: counted as handed off. answered: by an MTA that rejected the MAIL command.
    code: of the last rejected recipient."""

    began: int
    client: Client
    where: bytes
    test: str = ""
    code: int = 0
    rank: int = 0
    refused: str = ""
    handed: bool = False
    answered: bool = False
    hung: bool = False
    passed: bool = False
    judged: bool = False
    shadow: str = ""


Handler: TypeAlias = Callable[[Client, int, bytes, bytes, bytes], None]
"""Handles a line: client, time, `[ADDRESS]:PORT`, number, rest of the line."""


class Tally:
    """Counts rows of log lines, in the order in which they were written.

    since, until: only count lines in this period, s since 1970. with_senders: store the sender with a rejected client.
    clients: maximum number of clients with details.
    """

    def __init__(
        self,
        since: float = 0,
        until: float = float("inf"),
        *,
        with_senders: bool = False,
        clients: int = CLIENTS,
    ) -> None:
        self._since = since
        self._until = until
        self._with_senders = with_senders
        self._max_clients = clients
        self.lines = 0
        self.undated = 0
        self.other_days = 0
        self.first = 0
        self.last = 0
        self.slots: dict[int, list[int]] = {}
        self.turned: dict[int, Counter[str]] = {}
        self.handed: Counter[int] = Counter()
        self.clients: dict[bytes, Client] = {}
        self.networks: dict[bytes, Network] = {}
        self.sessions: dict[bytes, Session] = {}
        self.beyond = 0
        self.cut_short = 0
        self.begun_before = 0
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.spite: Counter[str] = Counter()
        self.ranks: Counter[int] = Counter()
        self.reject_codes: Counter[int] = Counter()
        self.times_away = 0
        self.returns: Counter[int] = Counter()
        self._mails: dict[tuple[bytes, bytes], Client] = {}
        self.unnamed_mails = 0
        self.answer_ids: dict[bytes, int] = {}
        self.answer_texts: list[tuple[str, str]] = []
        self.answer_counts: list[int] = []
        self.list_ids: dict[str, int] = {}
        self.unnamed_answers = 0
        self._list_bits: list[int] = []
        self.judgements: Counts[tuple[tuple[int, ...], bool]] = Counts(ANSWER_SETS)
        self.shadow: Counter[str] = Counter()
        self.shadow_handed: Counter[str] = Counter()
        self.shadow_replies: Counts[bytes] = Counts(TEXTS)
        self.details: Counts[tuple[bytes, bytes, bytes]] = Counts(DETAILS)
        self.senders: Counts[bytes] = Counts(MAILBOXES)
        self.recipients: Counts[bytes] = Counts(MAILBOXES)
        self.warnings: Counts[str] = Counts(TEXTS)
        self.words: Counts[tuple[str, bytes]] = Counts(TEXTS)
        self.evidence: Counts[bytes] = Counts(TEXTS)
        self.evidence_clients: Counter[bytes] = Counter()
        self.evidence_failed: Counter[bytes] = Counter()
        self.continued: Counts[str] = Counts(TEXTS)
        self._opened: deque[Session] = deque()
        self._on = self._handlers()

    # ---- lines

    def add(self, rows: list[Row], clock: Clock) -> None:
        """Count the lines of a block."""
        last_stamp = last_zone = b""
        when: int | None = None
        dropped = True
        slot: list[int] = []
        clients = self.clients
        handlers = self._on
        verbs = VERBS
        self.lines += len(rows)
        for stamp, zone, program, verb, number, where, address, rest, listed, answer, severity, said, other in rows:
            if not stamp:
                continue
            if stamp != last_stamp or zone != last_zone:
                last_stamp, last_zone = stamp, zone
                when = clock.second(stamp, zone)
                dropped = when is None or not self._since <= when < self._until
                if when is not None and not dropped:
                    slot = self._slot(when)
            if dropped or when is None:
                if when is None:
                    self.undated += 1
                else:
                    self.other_days += 1
                continue
            if verb and program != b"tlsproxy":
                kind = verbs[verb]
                slot[kind] += 1
                client = clients.get(address) or self._client(address)
                if client is not None:
                    handlers[kind](client, when, where, number, rest)
                elif kind == _CONNECT:
                    self.beyond += 1
            elif listed:
                slot[_LISTED] += 1
                self._listed(listed, answer, when)
            else:
                slot[self._unnamed(program, verb, severity, said, other)] += 1

    def event(self, when: int, kind: int, address: bytes, where: bytes, number: bytes, rest: bytes) -> None:
        """Count one line about a client, with its parts as in Row. when: s since 1970."""
        if not self._since <= when < self._until:
            self.other_days += 1
            return
        self._slot(when)[kind] += 1
        client = self.clients.get(address) or self._client(address)
        if client is not None:
            self._on[kind](client, when, where, number, rest)
        elif kind == _CONNECT:
            self.beyond += 1

    def other(self, when: int, kind: int) -> None:
        """Count one line that is about no client."""
        if self._since <= when < self._until:
            self._slot(when)[kind] += 1

    def listed(self, when: int, address: bytes, answer: bytes) -> None:
        """Count one answer of a list: `DOMAIN as ANSWER`."""
        if self._since <= when < self._until:
            self._slot(when)[_LISTED] += 1
            self._listed(address, answer, when)

    def shadowed(self, when: int, address: bytes, where: bytes, test: str) -> None:
        """Count one line about shadow mode: what the client would have been rejected for."""
        if self._since <= when < self._until:
            self._slot(when)[Kind.SHADOW] += 1
            self._shadow_for(test, where)

    def finish(self) -> None:
        """End the tally. Sessions that have not ended were handed off, except those that may still be under test."""
        for session in self._opened:
            if self.sessions.get(session.where) is session:
                if session.handed or session.passed or self.last - session.began > SETTLED:
                    self._over(session.client, session)
                else:
                    self.cut_short += 1
                    if session.rank and not session.judged:
                        self._judge(session.client, session)
        self.sessions.clear()
        self._opened.clear()
        self._mails.clear()
        for network in self.networks.values():
            network.waiting = None

    def _slot(self, when: int) -> list[int]:
        self.last = max(self.last, when)
        self.first = min(self.first or when, when)
        number = when // SLOT
        slot = self.slots.get(number)
        if slot is None:
            slot = self.slots[number] = [0] * _KINDS
        return slot

    def _client(self, address: bytes) -> Client | None:
        if len(self.clients) >= self._max_clients:
            return None
        prefix = prefix_of(address)
        if prefix is None:
            return None
        network = self.networks.get(prefix)
        if network is None:
            network = self.networks[prefix] = Network()
        network.clients += 1
        client = self.clients[address] = Client(address, network)
        return client

    def _unnamed(self, program: bytes, verb: bytes, severity: bytes, said: bytes, other: bytes) -> int:
        """The kind of a line without a client, or of another program."""
        if verb:
            return _TLS_VERBS.get(verb, Kind.OTHER)
        if severity:
            self.warnings.add(f"{text_of(program or b'postscreen')}: {text_of(severity)}: {text_of(said)}")
            return Kind.WARNING
        if other.startswith((b"entering STRESS mode", b"leaving STRESS mode")):
            return Kind.STRESS
        if program == b"tlsproxy" and other.startswith(b"TLS handshake failed"):
            return Kind.TLS_FAILED
        if other.startswith(b"cache ") and b" full cleanup: " in other:
            return Kind.CLEANUP
        return Kind.OTHER

    # ---- lines about a client; the arguments are those of Handler

    def _handlers(self) -> list[Handler]:
        handlers: list[Handler] = [self._nothing] * _KINDS
        handlers[Kind.CONNECT] = self._connect
        handlers[Kind.DISCONNECT] = self._disconnect
        handlers[Kind.PASS_NEW] = self._passed
        handlers[Kind.PASS_OLD] = self._pass_old
        for kind in (Kind.ALLOWLISTED, Kind.BYPASSED):
            handlers[kind] = self._at_once
        for finding, test in _FINDINGS.items():
            handlers[finding] = self._found(test)
        handlers[TEST_KINDS["pregreet"]] = self._pregreet
        handlers[TEST_KINDS["non_smtp_command"]] = self._non_smtp
        handlers[TEST_KINDS["dnsbl"]] = self._dnsbl
        handlers[TEST_KINDS["score"]] = self._score
        handlers[Kind.HANGUP] = self._hangup
        handlers[Kind.REJECT_RCPT] = self._reject_rcpt
        handlers[Kind.REJECT_CONNECT] = self._reject_connect
        handlers[Kind.CONTINUE] = self._continue
        handlers[Kind.SHADOW] = self._shadowed
        handlers[Kind.EVIDENCE] = self._evidence
        return handlers

    def _nothing(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """A line that is only counted."""

    def _connect(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        network = client.network
        network.connections += 1
        if network.waiting or client.away:
            self._back(client, when)
        sessions = self.sessions
        before = sessions.get(where)
        if before is not None:
            self._over(client, before)  # without a DISCONNECT: handed off
        session = sessions[where] = Session(when, client, where)
        opened = self._opened
        opened.append(session)
        while opened[0].began < when - MAX_DURATION or len(opened) > MAX_OPEN:
            oldest = opened.popleft()
            if sessions.get(oldest.where) is oldest:
                del sessions[oldest.where]
                self._over(oldest.client, oldest)

    def _disconnect(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.pop(where, None)
        if session is None:
            self.begun_before += 1
            return
        if not session.judged:
            self._judge(client, session)
        if session.answered:
            pass
        elif session.handed:  # the MTA did not accept it
            self.outcomes["handed"] -= 1
            self.handed[session.began // SLOT] -= 1
            client.handed -= 1
            client.network.handed -= 1
            self.outcomes["not taken"] += 1
        elif session.shadow and session.shadow == (session.refused or session.test) and not session.code:
            self.outcomes["hung up" if session.hung else "left"] += 1  # it was not rejected
        elif session.refused:
            self._refused(client, session, when, session.refused)
        elif session.code // 100 == 4 and session.test not in TESTS:
            self.outcomes["away"] += 1
            self._count_rejection(when, DEFERRED)
        elif session.test or session.code:
            self._refused(client, session, when, session.test or "other")
        elif session.hung:
            self.outcomes["hung up"] += 1
        else:
            self.outcomes["left"] += 1

    def _passed(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.get(where)
        if session is not None:
            session.passed = True
            if not session.judged:
                self._judge(client, session)

    def _pass_old(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """A known client: handed off at once, or after tests that were due again, which may have ended with 450."""
        session = self.sessions.get(where)
        if session is not None and (session.code or when - session.began > MAX_UNTESTED):
            self._passed(client, when, where, number, rest)
        else:
            self._at_once(client, when, where, number, rest)

    def _at_once(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.get(where)
        if session is not None and not session.handed:
            session.judged = client.answered < session.began  # a known client, unless a test was due
            self._handed(client, session)

    def _found(self, test: str) -> Handler:
        limit = test in LIMITS

        def found(client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
            session = self.sessions.get(where)
            if session is not None and not (limit and session.test):
                session.test = test

        return found

    def _pregreet(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        self.words.add(("pregreet", rest[2:]))
        session = self.sessions.get(where)
        if session is not None:
            session.test = "pregreet"

    def _non_smtp(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        self.words.add((LABELS["non_smtp_command"], rest.partition(b": ")[2]))
        session = self.sessions.get(where)
        if session is not None:
            session.test = LABELS["non_smtp_command"]

    def _dnsbl(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        rank = int(number or 0)
        self.ranks[rank] += 1
        session = self.sessions.get(where)
        if session is not None:
            session.test = "dnsbl"
            session.rank = rank

    def _hangup(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.get(where)
        if session is not None:
            session.hung = True

    def _reject_rcpt(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """`: 550 5.7.1 text; from=<a>, to=<b>, proto=ESMTP, helo=<c>`"""
        end = rest.find(b"; from=<")
        reply = rest[2:end] if end >= 0 else rest[2:]
        envelope = _ENVELOPE.match(rest, end) if end >= 0 else None
        code = int(reply[:3]) if reply[:3].isdigit() else 0
        self.reject_codes[code] += 1
        sender = recipient = b""
        if envelope:
            sender, recipient = envelope.groups()
            self.senders.add(sender)
            self.recipients.add(recipient)
        session = self.sessions.get(where)
        if session is not None:
            session.code = code
            if code // 100 == 4 and session.test not in TESTS:
                self._defer(client, when, sender, recipient)
        who = (_reason(reply, client), client.address, sender if self._with_senders else b"")
        self.details.add(who)

    def _defer(self, client: Client, when: int, sender: bytes, recipient: bytes) -> None:
        if not client.away:
            client.away = when
            client.neighbour = client.elsewhere = -1
            if client.network.waiting is None:
                client.network.waiting = []
            client.network.waiting.append(client)
            self.times_away += 1
            client.network.away += 1
        if not sender:
            return  # bounces of all senders have the same empty address
        mail = sender, recipient
        before = self._mails.get(mail)
        if before is None and len(self._mails) >= MAILS:
            self.unnamed_mails += 1
            return
        self._mails[mail] = client
        if before is not None and before.network is not client.network and before.away and before.elsewhere < 0:
            before.elsewhere = max(0, when - before.away)
            if before.neighbour < 0:
                before.instead = client.address

    def _reject_connect(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.get(where)
        if session is not None:
            session.refused = "connections" if rest in _TOO_MANY else "server busy"

    def _continue(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        session = self.sessions.get(where)
        if rest.startswith(b" failed: "):
            self.outcomes["continue failed"] += 1
            return
        if session is None or not session.handed:  # a session may continue again after a rejected MAIL
            self.outcomes["continued"] += 1
        if session is not None:
            session.answered = _MAIL_REFUSED.match(rest) is not None
            if not session.handed:
                self._handed(client, session)

    def _shadowed(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """`: would have replied: 550 5.7.1 text`"""
        session = self.sessions.get(where)
        reply = rest.partition(b": would have replied: ")[2]
        if not reply:
            self._slot(when)[Kind.SHADOW] -= 1  # a response to the score: no rejection
            return
        test = next((test for text, test in _REPLIES if text in reply), "")
        test = test or (session.test if session is not None else "") or "other"
        self._shadow_for(test, where)
        self.shadow_replies.add(_reason(reply, client))

    def _shadow_for(self, test: str, where: bytes) -> None:
        self.shadow[test] += 1
        session = self.sessions.get(where)
        if session is not None:
            session.shadow = test

    def _evidence(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """`: helo_address +2: 192.0.2.1`"""
        scorer = rest[2:].partition(b" ")[0]
        self.evidence.add(scorer)
        one = _SCORERS.get(scorer, 0)
        if one and not client.evidence & one:
            client.evidence |= one
            self.evidence_clients[scorer] += 1

    def _score(self, client: Client, when: int, where: bytes, number: bytes, rest: bytes) -> None:
        """`: dnsbl 3, helo_address 2`"""
        session = self.sessions.get(where)
        if session is not None:
            session.test = LABELS["score"]
        for part in rest[2:].split(b", "):
            scorer = part.partition(b" ")[0]
            if scorer in _SCORERS:
                self.evidence_failed[scorer] += 1

    # ---- results of sessions

    def _over(self, client: Client, session: Session) -> None:
        """A session without a DISCONNECT was handed off to the MTA."""
        if not session.judged:
            self._judge(client, session)
        if not session.handed:
            self._handed(client, session)
        if session.test:
            self.spite[session.test] += 1
        if session.shadow:
            self.shadow_handed[session.shadow] += 1

    def _handed(self, client: Client, session: Session) -> None:
        session.handed = True
        self.outcomes["handed"] += 1
        self.handed[session.began // SLOT] += 1
        client.handed += 1
        client.network.handed += 1
        if client.failed and client.passed_after < 0 and not session.test:
            client.passed_after = max(0, session.began - client.failed_at)

    def _refused(self, client: Client, session: Session, when: int, why: str) -> None:
        self.outcomes["refused"] += 1
        self.refusals[why] += 1
        self._count_rejection(when, why)
        client.network.refused += 1
        if why in TESTS:
            client.failed = why
            client.failed_at = when
            client.rank = session.rank
            client.passed_after = -1

    def _count_rejection(self, when: int, why: str) -> None:
        turned = self.turned.get(when // SLOT)
        if turned is None:
            turned = self.turned[when // SLOT] = Counter()
        turned[why] += 1

    def _back(self, client: Client, when: int) -> None:
        """A connection from a network or client that was deferred."""
        network = client.network
        if client.away:
            delay = max(0, when - client.away)  # the clock may be set back
            self.returns[delay if delay < HOUR else delay // 60 * 60] += 1
            client.away = 0
            network.back += 1
        for other in network.waiting or ():
            if other is not client and other.away and other.neighbour < 0:
                other.neighbour = max(0, when - other.away)
                other.instead = client.address
        network.waiting = None

    # ---- lists

    def _listed(self, address: bytes, answer: bytes, when: int) -> None:
        """`addr ADDRESS listed by domain DOMAIN as ANSWER`"""
        number = self.answer_ids.get(answer)
        if number is None:
            if len(self.answer_ids) >= ANSWERS:
                self.unnamed_answers += 1
                return
            number = self._new_answer(answer)
        self.answer_counts[number] += 1
        client = self.clients.get(address) or self._client(address)
        if client is None:
            return
        client.lists |= self._list_bits[number]
        if when - client.answered > LOOKUP_TIME:
            client.answers = (number,)
        elif number not in client.answers:
            client.answers += (number,)
        client.answered = when

    def _new_answer(self, answer: bytes) -> int:
        number = self.answer_ids[answer] = len(self.answer_ids)
        domain, _, value = text_of(answer).partition(" as ")
        self.answer_texts.append((domain, value))
        self.answer_counts.append(0)
        self._list_bits.append(1 << self.list_ids.setdefault(domain, len(self.list_ids)))
        return number

    def _judge(self, client: Client, session: Session) -> None:
        """Store what was known when the score of a session was calculated."""
        session.judged = True
        reached = session.rank > 0
        answered = client.answered >= session.began
        if reached or answered or session.passed:
            if not reached and client.answered < session.began - LOOKUP_TIME:
                client.answers = ()  # from an earlier session; answers for a concurrent session are valid for this one
            client.reached = reached
            self.judgements.add((tuple(sorted(client.answers)), reached))


def _reason(reply: bytes, client: Client) -> bytes:
    """A reply without the client's address."""
    return reply.replace(b" [" + client.address + b"]", b"", 1)


def text_of(octets: bytes) -> str:
    """Text of the log as printable ASCII."""
    if octets.isascii() and (text := octets.decode("ascii")).isprintable() and len(text) <= MAX_TEXT:
        return text
    return printable(octets.decode("utf-8", "backslashreplace"))
