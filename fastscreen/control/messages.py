"""The messages of the control protocol (docs/control.md), for the control server and for every client of it.

First the answers, then the requests: a request knows its verb and the kind of its answer. In an answer only what
identifies a thing is mandatory; all else has a default, because another version of fastscreen may say less or more.
`zone` is the protocol's `list`, the name of a DNSBL. Times are seconds since 1970, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, field

from fastscreen.core import SCORERS as SCORERS
from fastscreen.core import TESTS as TESTS

PROTOCOL = 1
MAX_RATE = 2000  # events per second and subscription
MAX_RECENT = 2000  # events
MAX_PAGE = 1000  # sessions, clients or cache entries of one answer
MAX_RECORDED = 500  # recorded sessions of one answer
MAX_MOMENT = 2**40  # s since 1970
MAX_STEPS = 1500  # of one answer to `history.minutes`: the minutes of a day of 25 hours

AnswerKind = TypeVar("AnswerKind")

ClientText = Any
"""What a client sent: bytes on the wire, printable text with C escapes after `client.record`."""
Expiry = float | str
"""Until when a test counts as passed; "new" (not passed yet) or "disabled"."""
PassedUntil = dict[str, Expiry]
"""By test."""


class Hello(Struct, frozen=True):
    """The greeting. rights: "read", and "act" for callers that may change something."""

    fastscreen: str = ""
    protocol: int = PROTOCOL
    rights: list[str] = []
    pid: int = 0
    workers: int = 0
    hostname: str = ""
    started: float = 0.0


class Reply(Struct, frozen=True):
    """What follows a greeting: the answer to request `id` (`ok` or `error`), or events that it has subscribed to."""

    id: int | float | UnsetType = UNSET
    ok: Any = UNSET
    error: str | UnsetType = UNSET
    events: list[Any] | UnsetType = UNSET
    lost: int | UnsetType = UNSET


# ---- status


class Dns(Struct, frozen=True):
    """A worker's queries to DNSBLs. cached: clients whose answers are still valid."""

    queries: int = 0
    answers: int = 0
    timeouts: int = 0
    ignored_packets: int = 0
    in_flight: int = 0
    cached: int = 0


class Worker(Struct, frozen=True):
    """One worker. rss: bytes. cpu: seconds. stale_events: of closed connections; each one is a bug."""

    number: int
    pid: int
    sessions: int = 0
    handoffs: int = 0
    tls: int = 0
    clients: int = 0
    accepted: int = 0
    handed_off: int = 0
    stress: bool = False
    accepting: bool = True
    stages: dict[str, int] = {}
    dns: Dns = Dns()
    log_lines_lost: int = 0
    stale_events: int = 0
    rss: int = 0
    cpu: float = 0.0


class Expiring(Struct, frozen=True):
    """How many entries expire within a time; 0.0: they have expired."""

    within: float
    entries: int


class CacheStats(Struct, frozen=True):
    """size, map_size, max_size: bytes. hits, misses: since the start."""

    path: str = ""
    entries: int = 0
    size: int = 0
    map_size: int = 0
    max_size: int = 0
    hits: int = 0
    misses: int = 0
    expiring: list[Expiring] = []


class Condition(Struct, frozen=True):
    """A fault that holds now. remedy: what the operator can do."""

    kind: str
    since: float = 0.0
    text: str = ""
    remedy: str = ""


class Outcome(Struct, frozen=True):
    """How the last reload, reopening of the log or refused restart ended. begun, finished: their numbers since the
    start. ok, text, time: of the last one that has ended; time is None before the first.
    """

    begun: int = 0
    finished: int = 0
    ok: bool = True
    text: str = ""
    time: float | None = None
    success_time: float = 0.0


class ClusterPeer(Struct, frozen=True):
    """Another host of the cluster. seen: by its clock. away: it has not been seen for a minute."""

    name: str
    seen: float
    version: str = ""
    away: bool = False


class ClusterOffenses(Struct, frozen=True):
    """Records of offenses that hosts share, each about a network."""

    stored: int = 0
    """In the server."""
    found: int = 0
    """In the server, and added to the memory of offenses of this host."""
    queue: int = 0
    """Still to be stored."""
    dropped: int = 0
    """For which the queue had no room; they are stored later."""


class Cluster(Struct, frozen=True):
    """The exchange of passes with other hosts. connected: the server can be used, since `since`; problem: why not.

    round_trip, queue_age: seconds. The numbers are since the start of the cluster process, those of the workers
    (asked, found, ended, late, worker_packets_dropped) since theirs.
    """

    running: bool = False
    """Whether the cluster process has told about itself."""
    connected: bool = False
    since: float = 0.0
    problem: str = ""
    server: str = ""
    role: str = ""
    name: str = ""
    """Of this host."""
    round_trip: float = 0.0
    asked: int = 0
    """New clients that the workers have asked about."""
    found: int = 0
    """Answers that came in time."""
    ended: int = 0
    """Greet waits that such an answer has ended."""
    late: int = 0
    """Answers that came too late."""
    unanswered: int = 0
    """Questions that the server has not answered within the budget, so that the workers got no answer."""
    worker_packets_dropped: int = 0
    stored: int = 0
    """Passes that the server has acknowledged."""
    queue: int = 0
    """Passes that are still to be stored."""
    queue_bytes: int = 0
    queue_age: float = 0.0
    queue_dropped: int = 0
    packets_dropped: int = 0
    """Answers that a worker did not take."""
    ignored: dict[str, int] = {}
    """Records of other hosts that were not used, by reason."""
    resync: bool = False
    """Passes of the local cache are being stored again."""
    deletions: int = 0
    """Deletions that are remembered, so that deleted records do not return."""
    offenses: ClusterOffenses | None = None
    """None: this host has no memory of offenses."""
    peers: list[ClusterPeer] = []


class Recorder(Struct, frozen=True):
    """The recording of sessions for the history. recording: they are being stored, since `since`; problem: why not.

    sessions, lost: since the start of the daemon. error, error_time: what went wrong last, even if it is over.
    """

    running: bool = False
    """Whether the recorder has told about itself."""
    recording: bool = False
    since: float = 0.0
    problem: str = ""
    sessions: int = 0
    """Stored."""
    lost: int = 0
    """Overwritten before they could be stored."""
    waiting: int = 0
    """Still to be stored."""
    bytes: int = 0
    """Of all files."""
    max_size: int = 0
    days: int = 0
    oldest: float = 0.0
    """The begin of the oldest day; 0: there is none."""
    set_aside: int = 0
    """Files that were damaged."""
    file: str = ""
    """The name of the one that was written last."""
    error: str = ""
    error_time: float = 0.0


class Memory(Struct, frozen=True):
    """The memory of offenses. entries: networks and AS. bytes: of its file. problem: why nothing is written.

    bad, good: since the start: how often clients were written for an offense, and for good conduct.
    """

    running: bool = False
    """Whether the recorder has told about it."""
    problem: str = ""
    entries: int = 0
    max_entries: int = 0
    bytes: int = 0
    bad: int = 0
    good: int = 0
    dropped: int = 0
    """Entries, for lack of room."""
    lost: int = 0
    """Clients that could not be kept until they were written."""
    waiting: int = 0
    """Clients that are still to be written."""
    lag: float = 0.0
    """How long the first of them has waited."""
    systems: int = 0
    """Ranges in the file of autonomous systems."""
    merged: int = 0
    """Entries that were changed by what other hosts of a cluster know."""
    unshared: int = 0
    """Changed entries that are not shared with other hosts for now, because too many changed."""


class Feedback(Struct, frozen=True):
    """The MTA's log, from which the memory of offenses learns. log: where it is. problem: why it is not read.

    The numbers count since the start of the recorder. accepted, rejected, spam, other: sessions whose outcome was
    learned. unknown: sessions about whose end the log said nothing. foreign: the MTA's sessions that fastscreen did not
    hand off; of these, ambiguous ones belong to an address that had several.
    """

    log: str = ""
    running: bool = False
    """Whether the recorder has told about it."""
    problem: str = ""
    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    spam: int = 0
    other: int = 0
    unknown: int = 0
    foreign: int = 0
    ambiguous: int = 0
    waiting: int = 0
    """Sessions whose outcome may still come."""
    behind: int = 0
    """Bytes of the log that are still to be read."""
    skipped: int = 0
    """Bytes that were never read, because there were too many."""
    slow: int = 0
    """Lines for which `feedback.spam` needed too long."""


class Status(Struct, frozen=True):
    """bypass_until: None while the bypass is off. missing_workers: those that did not answer in time.
    lists_unhealthy: DNSBLs that are disabled or suspect. conditions: the earliest first.
    """

    time: float
    started: float
    version: str
    hostname: str
    pid: int
    mode: str = "screen"
    bypass_until: float | None = None
    limits: dict[str, int] = {}
    counts: dict[str, int] = {}
    workers: list[Worker] = []
    missing_workers: list[int] = []
    cache: CacheStats | None = None
    lists: int = 0
    lists_unhealthy: list[str] = []
    conditions: list[Condition] = []
    reload: Outcome | None = None
    reopen: Outcome | None = None
    restart: Outcome | None = None
    cluster: Cluster | None = None
    """None: no cluster is configured."""
    history: Recorder | None = None
    """None: no history is recorded."""
    memory: Memory | None = None
    """None: there is no memory of offenses."""
    feedback: Feedback | None = None
    """None: the MTA's log is not read."""


class RunningConfig(Struct, frozen=True):
    """The configuration in force. source: its file. fingerprints: of each key's value."""

    source: str = ""
    fingerprints: dict[str, str] = {}


# ---- sessions and events


class Session(Struct, frozen=True):
    """age: seconds. command: what the client said last. name: empty when it has none, or none is known yet."""

    address: str
    worker: int = 0
    session: int = 0
    port: int = 0
    stage: str = ""
    failed: list[str] = []
    evidence: list[str] = []
    score: int | None = None
    age: float = 0.0
    command: ClientText = ""
    name: str = ""


class Sessions(Struct, frozen=True):
    """total: all sessions. matched: those that match the filter; `sessions` has the first of them."""

    total: int = 0
    matched: int = 0
    sessions: list[Session] = []
    missing_workers: list[int] = []


class Event(Struct, frozen=True):
    """What happened. session: 0 for an event of an address, not of a session. number, text: by kind."""

    time: float
    kind: str
    worker: int = 0
    sequence: int = 0
    session: int = 0
    address: str = ""
    port: int = 0
    stage: str | None = None
    failed: list[str] = []
    evidence: list[str] = []
    score: int | None = None
    zone: str | None = field(default=None, name="list")
    number: int | float | str | None = None
    text: ClientText = None


class ListAnswer(Struct, frozen=True):
    """What a DNSBL answered about a client. weight: what that adds to the score."""

    zone: str = field(name="list")
    state: str = "unknown"
    answers: list[str] = []
    weight: int = 0


class Evidence(Struct, frozen=True):
    """What a scorer found in the client's last session. text: what it judged."""

    scorer: str
    weight: int = 0
    text: str = ""


class ReputationMember(Struct, frozen=True):
    """An address of a network, or a /64 of a /48. As below."""

    subject: str
    bad: float = 0.0
    good: float = 0.0
    is_bad: bool = False
    last_bad: float = 0.0
    last_good: float = 0.0


class Reputation(Struct, frozen=True):
    """What the memory of offenses knows of an address, a network or an AS.

    kind: "address", "network" or "as". bad, good: the weights of an address today; 1.0 is one offense today.
    bad_members, known_members: addresses of a network or AS, or /64s of a /48. is_bad: a scorer would say so. last_bad,
    last_good: the days, 0.0: never. system: the AS of a network, 0: not known.
    """

    subject: str
    kind: str = ""
    bad: float = 0.0
    good: float = 0.0
    bad_members: int = 0
    known_members: int = 0
    is_bad: bool = False
    last_bad: float = 0.0
    last_good: float = 0.0
    members: list[ReputationMember] = []
    system: int = 0


class Story(Struct, frozen=True):
    """One client. complete_since: events before that may be missing. memory: what the memory of offenses knows of it,
    of its networks and of its AS; None: there is no memory. seen: what scorers of the memory find against it now.
    """

    address: str
    name: str = ""
    events: list[Event] = []
    complete_since: float | None = None
    cache: PassedUntil | None = None
    sessions: list[Session] = []
    lists: list[ListAnswer] = []
    memory: list[Reputation] | None = None
    seen: list[Evidence] = []


class TopClient(Struct, frozen=True):
    """client: an address or a network. failed: sessions that ended here after they had failed a test."""

    client: str
    connects: int = 0
    passed: int = 0
    failed: int = 0
    handed_off: int = 0


class Clients(Struct, frozen=True):
    """complete_since: as in a story."""

    complete_since: float | None = None
    clients: list[TopClient] = []


class Warning(Struct, frozen=True):
    """A warning of the log."""

    time: float
    text: str


class Warnings(Struct, frozen=True):
    """The latest since the start."""

    warnings: list[Warning] = []


class Cancelled(Struct, frozen=True):
    """Whether there was such a subscription."""

    cancelled: bool = False


# ---- DNSBLs


class Site(Struct, frozen=True):
    """An entry of `dnsbl.sites`. filter: of the answers; None when every answer counts. matched: in `explain`."""

    filter: str | None = None
    weight: int = 0
    matched: bool | UnsetType = UNSET


class DnsblList(Struct, frozen=True):
    """Counts since the start. unique: listings that no other list had. p50, p95: seconds. reason: it is disabled."""

    zone: str = field(name="list")
    sites: list[Site] = []
    queries: int = 0
    answers: int = 0
    listed: int = 0
    unique: int = 0
    timeouts: int = 0
    errors: int = 0
    p50: float | None = None
    p95: float | None = None
    state: str = ""
    reason: str = ""


class Dnsbl(Struct, frozen=True):
    """The lists in the order of the configuration."""

    threshold: int = 0
    allowlist_threshold: int = 0
    lists: list[DnsblList] = []
    missing_workers: list[int] = []


# ---- the history


class History(Struct, frozen=True):
    """The recorded sessions. path: of the folder; empty: nothing is recorded. first, last: when the first and the last
    of them ended; None: there is none. problem: why the history cannot be read, or not all of it.
    """

    path: str = ""
    first: float | None = None
    last: float | None = None
    days: int = 0
    size: int = 0
    problem: str = ""


class HistorySum(Struct, frozen=True):
    """The sessions that ended within a step that begins at `time`, by outcome. cached: of these, sessions of known
    clients.
    """

    time: float
    outcomes: dict[str, int] = {}
    cached: int = 0


class HistoryMinutes(Struct, frozen=True):
    """Steps without a session are omitted. complete: False: time ran out before all was read."""

    since: float
    until: float
    step: int
    sums: list[HistorySum] = []
    complete: bool = True


class HistorySession(Struct, frozen=True):
    """A recorded session. id: rises with the time of its end. lasted: seconds. verdict: code of the reply to the last
    recipient, or of the one that ended the session; reply: of the last reply; 0: none. shadow_reply: the code that
    shadow mode prevented. needed: tests for which there was no pass; made, found, failed: those that were made, found
    something, and count as failed. parts: of the score, by scorer. threshold: of the score, then. texts: of
    the evidence, as far as it is known, by scorer. weight: the number of sessions that it stands for.
    """

    id: int
    address: str
    began: float = 0.0
    ended: float = 0.0
    lasted: float = 0.0
    port: int = 0
    server: str = ""
    server_port: int = 0
    worker: int = 0
    proxied: bool = False
    stage: str = ""
    outcome: str = ""
    verdict: int = 0
    reply: int = 0
    shadow_reply: int = 0
    tls: str = ""
    needed: list[str] = []
    made: list[str] = []
    found: list[str] = []
    failed: list[str] = []
    marks: list[str] = []
    lists: list[ListAnswer] = []
    score: int | None = None
    threshold: int | None = None
    parts: dict[str, int] = {}
    evidence: list[str] = []
    texts: dict[str, str] = {}
    helo: ClientText = ""
    commands: int = 0
    recipients: int = 0
    mta_reply: int = 0
    mta_accepted: int = 0
    mta_rejected: int = 0
    mta_recipients: int = 0
    mta_refused: int = 0
    dialect: str = ""
    syn: str = ""
    weight: int = 1


class HistorySessions(Struct, frozen=True):
    """The newest first. next: ask again with this as `before` for what follows; 0: nothing follows. searched: the time
    back to which sessions were read, when time ran out before the page was full.
    """

    sessions: list[HistorySession] = []
    next: int = 0
    searched: float | None = None


class PastClient(Struct, frozen=True):
    """A client, or a network, of the history. outcomes: its sessions by how they ended."""

    client: str
    sessions: int = 0
    outcomes: dict[str, int] = {}


class PastClients(Struct, frozen=True):
    """The clients with most sessions. sessions, total: of all clients. searched: as in `HistorySessions`."""

    clients: list[PastClient] = []
    total: int = 0
    sessions: int = 0
    searched: float | None = None


# ---- explain


class Step(Struct, frozen=True):
    """One step of the decision, in words."""

    step: str
    text: str


class AccessDecision(Struct, frozen=True):
    """decision: "permit", "reject" or None. step: the entry of `access.list` that decided. result: what it says."""

    decision: str | None = None
    step: str | None = None
    result: str | None = None


class CachedTest(Struct, frozen=True):
    """What the cache holds about one test. enabled: the test is made."""

    until: Expiry
    valid: bool
    enabled: bool = True


class CachedAnswer(Struct, frozen=True):
    """A list's earlier answer, which a worker uses instead of a query."""

    state: str
    answers: list[str] = []


class ExplainedList(Struct, frozen=True):
    """A DNSBL queried now. weight: what its answer adds to the score. seconds: until the answer came. counted: the
    answer counts. suspect: its listings are uncertain until the list has been probed.
    """

    zone: str = field(name="list")
    state: str
    answers: list[str] = []
    seconds: float | None = None
    sites: list[Site] = []
    weight: int = 0
    counted: bool = True
    suspect: bool = False
    cached: CachedAnswer | None = None


class ClusterPass(Struct, frozen=True):
    """What the cluster knows of a client. host: the one that stored it. stored: by that host's clock.

    passed_until: as it would be used here.
    """

    host: str = ""
    stored: float | None = None
    passed_until: PassedUntil = {}
    problem: str = ""
    """Why it is not known, or not used; empty when it is."""


class Explanation(Struct, frozen=True):
    """What would happen to a client now. reply: the final reply to it; None when the mail server gets the client.
    wait: the longest time until it is greeted. tests: those that would be made.
    """

    address: str
    verdict: str
    steps: list[Step]
    name: str = ""
    time: float = 0.0
    reply: str | None = None
    wait: int | None = None
    tests: list[str] = []
    access: AccessDecision = AccessDecision()
    bypass_until: float | None = None
    sessions: int = 0
    cache: dict[str, CachedTest] | None = None
    lists: list[ExplainedList] = []
    evidence: list[Evidence] = []
    score: int | None = None
    threshold: int = 0
    allowlist_threshold: int = 0
    cluster: ClusterPass | None = None
    """None: no cluster is configured."""
    history: list[HistorySession] | None = None
    """The client's latest recorded sessions, the newest first; None: they are not known."""


# ---- the cache


class CacheEntry(Struct, frozen=True):
    """A client, or a network of clients, in the cache."""

    address: str
    passed_until: PassedUntil


class CacheEntries(Struct, frozen=True):
    """Some entries, and whether more follow."""

    entries: list[CacheEntry]
    more: bool = False
    time: float = 0.0


class Deleted(Struct, frozen=True):
    """The number of entries, and whether time ran out before all were deleted."""

    deleted: int
    more: bool = False
    cluster: bool | None = None
    """Whether the server of the cluster has the deletion already; False: it gets it later; None: no cluster."""


class Stored(Struct, frozen=True):
    """The number of entries."""

    stored: int


# ---- the memory of offenses


class Reputations(Struct, frozen=True):
    """more: not all has been looked at yet, or there is a next page, after `next`. found: how many have a bad member,
    of which these are some. evidence: what the scorers find against an address now. days: how long a single offense
    counts.
    """

    reputations: list[Reputation] = []
    more: bool = False
    next: str = ""
    evidence: list[Evidence] = []
    days: int = 0
    time: float = 0.0
    found: int = 0


# ---- commands that change something


class Bypass(Struct, frozen=True):
    """until: None when the bypass is off."""

    until: float | None = None


class Begun(Struct, frozen=True):
    """Answer to `reload` and `reopen`. number: of the attempt, as `Outcome.finished` counts them."""

    number: int


class Daemon(Struct, frozen=True):
    """Answer to `restart` and `stop`: the daemon that was asked. number: of the attempt to restart."""

    pid: int
    started: float
    number: int = 0


# ---- requests

Address = Annotated[str, Meta(max_length=100)]
FilterText = Annotated[str, Meta(max_length=1024)]
PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
RecordedPageSize = Annotated[int, Meta(ge=1, le=MAX_RECORDED)]
Moment = Annotated[float, Meta(ge=0, le=MAX_MOMENT)]


class Request(Struct, Generic[AnswerKind], frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """verb: `do` in the frame. answer: the kind of `ok` in the answer."""

    verb: ClassVar[str]
    answer: ClassVar[Any]


class StatusRequest(Request[Status], frozen=True):
    """Counters, workers, limits, faults."""

    verb: ClassVar[str] = "status"
    answer: ClassVar[Any] = Status


class ConfigRequest(Request[RunningConfig], frozen=True):
    """The configuration in force, as fingerprints."""

    verb: ClassVar[str] = "config"
    answer: ClassVar[Any] = RunningConfig


class SessionsRequest(Request[Sessions], frozen=True):
    """The sessions that match a filter."""

    verb: ClassVar[str] = "sessions"
    answer: ClassVar[Any] = Sessions

    filter: FilterText = ""
    sort: Literal["age", "new", "score", "address"] = "age"
    limit: PageSize = 200


class EventsRequest(Request[dict[str, Any]], frozen=True):
    """Subscribe to events. rate: at most so many per second. recent: begin with so many of the latest."""

    verb: ClassVar[str] = "events"
    answer: ClassVar[Any] = dict[str, Any]

    filter: FilterText = ""
    rate: Annotated[int, Meta(ge=1, le=MAX_RATE)] = 200
    recent: Annotated[int, Meta(ge=0, le=MAX_RECENT)] = 100


class CancelRequest(Request[Cancelled], frozen=True):
    """End a subscription. of: the `id` of its request."""

    verb: ClassVar[str] = "cancel"
    answer: ClassVar[Any] = Cancelled

    of: int | float


class StoryRequest(Request[Story], frozen=True):
    """All that is known about one client."""

    verb: ClassVar[str] = "story"
    answer: ClassVar[Any] = Story

    address: Address


class DnsblRequest(Request[Dnsbl], frozen=True):
    """The state and the counters of each DNSBL."""

    verb: ClassVar[str] = "dnsbl"
    answer: ClassVar[Any] = Dnsbl


class ClientsRequest(Request[Clients], frozen=True):
    """The clients with most connections."""

    verb: ClassVar[str] = "clients"
    answer: ClassVar[Any] = Clients

    by: Literal["address", "network"] = "address"
    limit: PageSize = 50


class WarningsRequest(Request[Warnings], frozen=True):
    """The latest warnings."""

    verb: ClassVar[str] = "warnings"
    answer: ClassVar[Any] = Warnings


class ExplainRequest(Request[Explanation], frozen=True):
    """What would happen to a client. server: the address that it connects to; empty: one where it may pass."""

    verb: ClassVar[str] = "explain"
    answer: ClassVar[Any] = Explanation

    address: Address
    server: Address = ""


class HistoryRequest(Request[History], frozen=True):
    """What is recorded."""

    verb: ClassVar[str] = "history"
    answer: ClassVar[Any] = History


class HistoryMinutesRequest(Request[HistoryMinutes], frozen=True):
    """How many sessions ended in each step of a span. since, until, step: whole minutes, in seconds."""

    verb: ClassVar[str] = "history.minutes"
    answer: ClassVar[Any] = HistoryMinutes

    since: Moment
    until: Moment
    step: Annotated[int, Meta(ge=60, le=86_400, multiple_of=60)] = 60


class HistorySessionsRequest(Request[HistorySessions], frozen=True):
    """The recorded sessions that ended in a span and match a filter, the newest first. until: 0: now. address: of one
    client. before: go on before this `id`.
    """

    verb: ClassVar[str] = "history.sessions"
    answer: ClassVar[Any] = HistorySessions

    since: Moment = 0.0
    until: Moment = 0.0
    filter: FilterText = ""
    address: Address = ""
    before: Annotated[int, Meta(ge=0)] = 0
    limit: RecordedPageSize = 100


class HistoryClientsRequest(Request[PastClients], frozen=True):
    """The clients of a span with most sessions."""

    verb: ClassVar[str] = "history.clients"
    answer: ClassVar[Any] = PastClients

    since: Moment
    until: Moment
    filter: FilterText = ""
    by: Literal["address", "network"] = "address"
    limit: PageSize = 50


class ReputationGetRequest(Request[Reputations], frozen=True):
    """What the memory of offenses knows. subject: an address, a network, or an AS such as AS64500."""

    verb: ClassVar[str] = "reputation.get"
    answer: ClassVar[Any] = Reputations

    subject: Address


class ReputationListRequest(Request[Reputations], frozen=True):
    """The worst networks or AS. kind: "network" or "as". start: so many worse ones are omitted. within: only
    networks in this one, or of this AS. sort: "worst": those that are bad first, then by bad members; "share": by their
    share; "recent": by the day of the last offense.
    """

    verb: ClassVar[str] = "reputation.list"
    answer: ClassVar[Any] = Reputations

    kind: Literal["network", "as"] = "network"
    limit: PageSize = 50
    start: Annotated[int, Meta(ge=0, le=MAX_PAGE)] = 0
    within: Address = ""
    sort: Literal["worst", "share", "recent"] = "worst"


class ReputationExportRequest(Request[Reputations], frozen=True):
    """Everything, page by page. after: `next` of the page before."""

    verb: ClassVar[str] = "reputation.export"
    answer: ClassVar[Any] = Reputations

    after: Address = ""
    limit: PageSize = 200


class ReputationDeleteRequest(Request[Deleted], frozen=True):
    """Forget an address, the addresses of a network, or the sums of an AS."""

    verb: ClassVar[str] = "reputation.delete"
    answer: ClassVar[Any] = Deleted

    subject: Address


class CacheStatsRequest(Request[CacheStats], frozen=True):
    """The size of the cache, and what expires when."""

    verb: ClassVar[str] = "cache.stats"
    answer: ClassVar[Any] = CacheStats


class CacheGetRequest(Request[CacheEntry | None], frozen=True):
    """One client's entry, or None."""

    verb: ClassVar[str] = "cache.get"
    answer: ClassVar[Any] = CacheEntry | None

    address: Address


class CacheListRequest(Request[CacheEntries], frozen=True):
    """The entries of a network, or all. after: go on after this address."""

    verb: ClassVar[str] = "cache.list"
    answer: ClassVar[Any] = CacheEntries

    prefix: Address = ""
    after: Address = ""
    limit: PageSize = 200


class CacheDeleteRequest(Request[Deleted], frozen=True):
    """Delete one client's entry, or those of a network."""

    verb: ClassVar[str] = "cache.delete"
    answer: ClassVar[Any] = Deleted

    address: Address = ""
    prefix: Address = ""


class ImportedEntry(Struct, frozen=True):
    """An entry to store. passed_until: checked by the server."""

    address: Address
    passed_until: dict[str, Any]


class CacheImportRequest(Request[Stored], frozen=True):
    """Store entries."""

    verb: ClassVar[str] = "cache.import"
    answer: ClassVar[Any] = Stored

    entries: list[ImportedEntry]


class BypassRequest(Request[Bypass], frozen=True):
    """Hand every client off untested for a time; 0 ends that."""

    verb: ClassVar[str] = "bypass"
    answer: ClassVar[Any] = Bypass

    seconds: Annotated[float, Meta(ge=0)]


class ReloadRequest(Request[Begun], frozen=True):
    """Read the configuration and its tables again."""

    verb: ClassVar[str] = "reload"
    answer: ClassVar[Any] = Begun


class ReopenRequest(Request[Begun], frozen=True):
    """Open the log again."""

    verb: ClassVar[str] = "reopen"
    answer: ClassVar[Any] = Begun


class RestartRequest(Request[Daemon], frozen=True):
    """Replace the daemon by a new one, which takes over its sockets."""

    verb: ClassVar[str] = "restart"
    answer: ClassVar[Any] = Daemon


class StopRequest(Request[Daemon], frozen=True):
    """Stop the daemon."""

    verb: ClassVar[str] = "stop"
    answer: ClassVar[Any] = Daemon
