"""The core of fastscreen, from accept to verdict and hand-off (Cython; see ext/).

"Reference" is the description of postscreen's behaviour that the project follows; an RFC is named where one rules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, final

class StampCache(Protocol):
    """What the core asks of a cache (reference 7). All calls come from the loop's thread."""

    def record(self, key: bytes) -> bytes | None:
        """The record of a packed address (4 or 16 octets), None when there is none."""

    def lookup(self, key: bytes) -> tuple[int, ...] | None:
        """A stamp for each of TESTS, whatever is in the record: s since 1970, 0 never passed, 1 disabled."""

    def keep(self, key: bytes, record: bytes) -> None:
        """Keep a record of write_record's."""

    def end_batch(self) -> None:
        """A batch of events is over: let go of what look-ups hold."""

@final
class NetworkTable:
    """A compiled table of networks in Postfix's CIDR form, cidr_table(5): the first rule that matches, in file order.

    text: the table. Rules are `ADDRESS RESULT` or `NETWORK/LENGTH RESULT` (brackets around the address are allowed),
    `!` before the pattern negates it, `if PATTERN` ... `endif` nest up to 32 deep. An IPv4 pattern never matches an
    IPv6 client nor the other way round, negated or not. Lines that begin with white space continue the one before.
    source: what the warnings call the table.

    A bad line is skipped and gets a warning; it never raises. The memory of a table grows with the number of its
    rules (16 octets an IPv4 rule, 40 an IPv6 rule, at most 32 times that inside nested negated blocks), the time of
    a look-up with the logarithm.
    """

    def __init__(self, text: bytes, source: str) -> None: ...
    @property
    def results(self) -> list[str]:
        """The distinct results, in the order of their first appearance; octets that are not UTF-8 are surrogates."""

    @property
    def warnings(self) -> list[str]:
        """One line for each bad line of the text, with source and line number; at most 101."""

    def lookup(self, address: str) -> str | None:
        """Return the result for an IPv4 or IPv6 address; None when no rule matches or it is no address.

        IPv4-mapped IPv6 (::ffff:192.0.2.1) is looked up as IPv4, as the core treats it everywhere (reference 2.8).
        """

    def __len__(self) -> int:
        """The number of rules, without bad lines, if and endif."""

class DnsReply(NamedTuple):
    """What the answer to an A query says. TTLs are seconds; -1: no such record."""

    rcode: int
    truncated: bool
    """Ask again over TCP; no records were read."""
    addresses: tuple[str, ...]
    """In the order of the answer, the first 32."""
    ttl: int
    """The smallest of the A records."""
    soa_ttl: int
    """The smallest of the SOA records in the authority section: what a pass stamp goes by (reference 4.3)."""
    negative_ttl: int
    """How long 'not listed' may be kept: the smaller of that and SOA MINIMUM (RFC 2308 5)."""

def read_record(record: bytes) -> tuple[int, ...] | None:
    """The stamps of a cache record, one for each of TESTS; those that are missing are 1.

    A record is a msgpack array of 1 to 15 unsigned integers below 2^63. None: it is something else.
    """

def write_record(stamps: Sequence[int]) -> bytes:
    """A cache record of a stamp for each of TESTS.

    ValueError: too many or too few, or a negative one; OverflowError: 2^63 or more.
    """

class ProxyHeaderRead(NamedTuple):
    """A PROXY header. client, server: (address, port); None: the balancer speaks for itself (LOCAL)."""

    length: int
    """Octets; what follows is the client's."""
    client: tuple[str, int] | None
    server: tuple[str, int] | None

def proxy_header(data: bytes) -> ProxyHeaderRead | None:
    """Read the PROXY header, version 1 or 2, that data begins with; None: it is not whole yet.

    ValueError: it is malformed, in the reference's words (6.4). It is at most 536 octets long.
    """

def cache_key_of(address: str, prefix: tuple[int, int]) -> bytes:
    """The cache's key of a client: 4 or 16 octets, or 5 or 17 when the prefix (of IPv4, of IPv6) is no whole address.

    Then the host's bits are zero, and the last octet is the prefix. ValueError: no address, or no such prefix.
    """

def worker_of(client: str, count: int, key: int, prefix: tuple[int, int]) -> int:
    """The worker, from 0, of so many that a client falls to by a key of 64 bits, which is all that share the prefix.

    Of IPv6 no more than 64 bits count. ValueError: no address.
    """

def dns_query(id: int, address: str, domain: str) -> bytes:
    """Return the query of id 0..65535 for an address at a DNS list (RFC 5782 2.1, 2.4).

    ValueError: no address, or a domain that is no name or too long. The core builds its queries with the same code.
    """

def dns_answer(packet: bytes, query: bytes) -> DnsReply | None:
    """Decode a datagram that came in reply to a query of dns_query's.

    None: it is no reply or has another id or question, so the true answer may still come. ValueError: it is the reply,
    but malformed. TTLs with the top bit set are read as 0 (RFC 2181 8).
    """

@final
class LineStates:
    """The line states of one client, pure: bytes in, lines and findings out (reference 5.2, 5.3).

    limit: octets that a line may have, its CR and LF included.
    """

    def __init__(self, limit: int = 2048) -> None: ...
    def feed(self, data: bytes) -> list[tuple[bytes, bytes, str, int]]:
        """The lines that end in this feed: (line without CRLF or LF, first word, command, findings).

        The command is "UNIMPLEMENTED" for a word outside the command table. Findings, or-ed: 0x01 bare newline, 0x02
        too long (the line as far as it came; nothing more is returned from then on), 0x04 NUL, 0x08 other control
        character than TAB, 0x10 the word is a header label, 0x20 the line is not UTF-8, 0x40 the word is no command
        and not UTF-8, 0x80 bytes of this feed remain behind the line.
        """

    def count(self, data: bytes) -> int:
        """As feed, but only counts the lines: no Python object is made for any of them."""

    @property
    def held(self) -> int:
        """Octets held of a line that has not ended."""

LOG_TURN_SIZE: int
"""Bytes of memory for a `LogTurn`."""

@final
class Log:
    """Log lines of one process (reference 6): put together in memory, written once a batch of events.

    ident: "postfix/postscreen" or any other; DNSBL answers are logged as ".../dnsblog". host: as it stands in a file's
    lines. rfc3339: stamps with microseconds and zone, otherwise (and in syslog) traditional ones. delay_resolution:
    decimals of "after T", 0 to 6. What cannot be written is kept up to 1 MiB; then lines are lost, and their number
    is logged.
    """

    def __init__(
        self,
        ident: str,
        *,
        rfc3339: bool = False,
        json: bool = False,
        delay_resolution: int = 2,
        host: str,
        pid: int,
    ) -> None: ...
    def open(self, fd: int, *, syslog: bool = False, turn: LogTurn | None = None) -> None:
        """Write to this descriptor from now on; it stays the caller's. syslog: a connected datagram socket.

        turn: shared with the other processes that write there. Anything but a regular file is written to only when it
        takes bytes. A line that was cut in the file before is written again, whole.
        """

    def let_go(self) -> None:
        """Forget the descriptor; lines are kept until the next `open`."""

    def info(self, text: str) -> None:
        """Add a line; what is not printable becomes "?"."""

    def warning(self, text: str) -> None:
        """Add a line that begins with "warning: "."""

    def flush(self) -> None: ...
    def lines(self) -> bytes:
        """Take what is not yet written."""

    on_warning: Callable[[bytes], object] | None
    """Is told the text of each warning, without stamp and ident; may take next to no time. An error ends that."""

    @property
    def disconnected(self) -> bool:
        """The log daemon behind syslog's socket went away: `open` is due with a new one."""

    @property
    def lost(self) -> int:
        """Lines lost since the last time this was logged."""

    @property
    def lost_total(self) -> int:
        """Lines lost since the start."""

    @property
    def problem(self) -> int:
        """errno of the last write; 0 when it went well, or when the reader was not ready."""

    @property
    def kept(self) -> int:
        """Bytes that could not be written yet."""

@final
class LogTurn:
    """Lets the processes that write to one log file write one at a time, so that a line that a full disk has cut is
    completed before another process writes. A process that stops or dies meanwhile holds up nobody.

    memory: LOG_TURN_SIZE bytes that all processes share, zero at first. One process makes it, the others inherit it.
    """

    def __init__(self, memory: memoryview) -> None: ...
    def hold(self) -> bool:
        """Take the lock and keep it (for tests)."""

    def release(self) -> None:
        """Give the lock back (for tests)."""

@final
class AccessStep:
    """One step of the permanent access list (reference 1.2, postscreen_access_list).

    With a table of networks: a decision for each of its results, for clients that it knows. Without: one decision for
    everybody. A decision is "permit", "reject", "dunno" (end of the list, no decision), "next" (go on with the next
    step), or a callable that is asked with the address and returns one of these words. ValueError: too many or few.
    """

    def __init__(
        self, decisions: Sequence[str | Callable[[str], str]], networks: NetworkTable | None = None
    ) -> None: ...

@final
class Lists:
    """DNSBL sites (reference 4.1): (domain, filter, weight) in the order of the configuration.

    A filter is None or 128 octets: four sets of 256 bits, one for each octet of an answer. shown: the names that SMTP
    replies give instead of the domains. Equal Lists share their kept answers over a reload. health: shared memory with
    how the lists are, and where in it each domain is; without, every list counts. budget: questions to one list that
    are on their way at a time; the core's own bound on those to all lists may lower it.
    """

    def __init__(
        self,
        sites: Iterable[tuple[str, bytes | None, int]],
        shown: Mapping[str, str],
        health: memoryview | None = None,
        slots: Mapping[str, int] | None = None,
        budget: int = 8192,
    ) -> None: ...

@final
class Policy:
    """All settings of a session; never changes. Times are seconds.

    teaser, greeting: whole replies with CRLF; an empty teaser switches the pregreet test off.
    Actions are "ignore", "enforce", "drop", or "shadow": as "ignore", but the log has what "enforce" would have said.
    tests: (on, action, ttl) of each of TESTS; the action of a deep test that is off counts once the client failed
    another test (reference 2.6).
    greet_wait, command_time: normal and under stress. mta: path of the Unix socket that takes clients.
    footer(reply, address, port) -> reply: for replies that begin with 4 or 5; None: no footer.
    forbidden(word) -> bool. command_filter(line) -> None, or the line to execute instead and what to log of that.
    ehlo_for(address, in_tls) -> (reply, discarded keywords as ehlo.Keyword has them, what to log or empty).
    tls_level: "none", "may" or "encrypt"; tls_sessions: how many may be in TLS at a time.
    interfaces: permits the server addresses where a client may pass (MX policy); None: all.
    cache_prefix, client_prefix: bits (IPv4, IPv6) that the cache, and the count of a client's connections, go by.
    client_rate, network_rate: connections within rate_time of a client that is not known, and of its network; 0: any
    number.
    shadow: nobody is turned away, the log tells who would have been.
    weights: of scorers, by key; 0 for those that are not named.
    ValueError: a value that cannot be used, in one line.
    """

    def __init__(
        self,
        *,
        hostname: str,
        teaser: bytes,
        greeting: bytes,
        access: Sequence[AccessStep],
        denylist_action: str,
        tests: Sequence[tuple[bool, str, int]],
        greet_wait: tuple[float, float],
        command_time: tuple[float, float],
        lists: Lists,
        threshold: int,
        allowlist_threshold: int,
        dnsbl_min_ttl: int,
        dnsbl_max_ttl: int,
        dnsbl_timeout: float,
        client_limit: int,
        pre_queue: int,
        post_queue: int,
        mta: str,
        line_limit: int,
        command_limit: int,
        helo_required: bool,
        vrfy_disabled: bool,
        soft_bounce: bool,
        smtputf8: bool,
        respectful: bool,
        external_form: bool,
        tls_level: str,
        tls_sessions: int,
        footer: Callable[[bytes, str, int], bytes] | None,
        forbidden: Callable[[bytes], bool] | None,
        command_filter: Callable[[bytes], tuple[bytes, bytes] | None] | None,
        ehlo_for: Callable[[str, bool], tuple[bytes, int, bytes]],
        targets: Targets | None = None,
        continue_targets: Targets | None = None,
        relay_limit: int = 1000,
        relay_idle: float = 660,
        relay_time: float = 21600,
        continue_time: float = 120,
        interfaces: AccessStep | None = None,
        cache_prefix: tuple[int, int] = (32, 128),
        client_prefix: tuple[int, int] = (32, 128),
        client_rate: int = 0,
        network_rate: int = 0,
        rate_time: int = 60,
        shadow: bool = False,
        weights: Mapping[str, int] | None = None,
    ) -> None: ...

@final
class Targets:
    """MTAs that read the PROXY protocol: (label for logs, struct sockaddr, weight) each; the weights are all 0 (the
    first that answers) or all above. version: of the header. At most 16. ValueError.

    on_offer(at, reply): target `at` has given another reply to EHLO than the last time; returns its keywords as bits.
    Clocks are monotonic, in µs.
    """

    on_offer: Callable[[int, bytes], int] | None
    def __init__(self, targets: Iterable[tuple[str, bytes, int]], version: int = 2) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def version(self) -> int: ...
    def choose(self, now: int, tried: int = 0) -> int:
        """The target for a client that has tried those of the bits in `tried` in vain; -1: there is no other."""

    def failed(self, at: int, now: int) -> None:
        """It did not answer: for 10 s others go first. ValueError: there is no such target."""

    def answered(self, at: int) -> None:
        """It is up. ValueError: there is no such target."""

    def learn(self, at: int, reply: bytes) -> None:
        """What it said to EHLO. ValueError: there is no such target."""

def proxy_header_for(version: int, peer: tuple[str, int], server: tuple[str, int]) -> bytes:
    """The PROXY header that tells an MTA of this client and where it came in. ValueError: no address."""

def read_reply(text: bytes) -> tuple[int, int] | None:
    """Octets and code of the first SMTP reply in `text`; None: it is not complete. ValueError: it is none."""

@final
class Pace:
    """When the next batch of events is to begin; `now` is monotonic, in µs.

    Batches that come often, each with little work, cost more in wake-ups (of the screener, and by it of sleeping
    clients and MTA) than in work. They are gathered then: the next one waits PAUSE µs. It is decided anew each 100 ms.
    """

    PAUSE: int

    def __init__(self, now: int) -> None: ...
    def after(self, work: int, now: int) -> int:
        """After a batch; work: clients accepted, events, timers. How long the next one is to wait, in µs."""

@final
class Screener:
    """The screener of one process. Its `fileno` is an epoll set; the event loop calls `run` when that is readable, or
    later, when the last call said so.

    on_truncated(token, name): a DNSBL answer did not fit a datagram; ask for A records of name by other means and call
    tcp_answer. on_drained(): after drain, the last session has ended. events: writable memory for the ring of events,
    at best shared with an EventReader's process; None: none are written. OSError: no descriptors.
    """

    def __init__(
        self,
        policy: Policy,
        log: Log,
        cache: StampCache | None,
        *,
        on_truncated: Callable[[int, str], object],
        on_drained: Callable[[], object],
        events: memoryview | None = None,
    ) -> None: ...
    def fileno(self) -> int: ...
    def relay_fileno(self) -> int:
        """A second epoll set; the event loop calls `run_relays` when that is readable."""

    def run_relays(self) -> None:
        """Move what relayed sessions have to move, up to a bound."""

    def run(self) -> float:
        """Handle what has happened, up to a bound. Returns how long the next call is to wait at least, in s (Pace)."""

    def probe(self) -> bool:
        """Wake both epoll sets. Returns whether `run` and `run_relays` have each completed a batch with the last probe
        in it; the first call returns True."""

    def listen(self, fd: int, *, trusted: AccessStep | None = None, header_time: float = 0) -> None:
        """Accept clients from this listening, non-blocking socket, which stays the caller's.

        trusted: a PROXY header comes first, from those whom this step permits, within header_time s.
        """

    def join_crew(self, number: int, key: int, prefix: tuple[int, int], inboxes: Sequence[int], inbox: int) -> None:
        """Be worker `number` of as many as there are inboxes (sending ends, by worker).

        Clients that a PROXY header names are passed on to theirs (`worker_of`); ours come in at `inbox`. All
        descriptors stay the caller's.
        """

    def unlisten(self, fd: int) -> None:
        """Accept no more from it. ValueError: it is not one of ours."""

    def use_policy(self, policy: Policy) -> None:
        """Judge new connections by this; those under test keep the policy that they began with."""

    def use_tls(self, fd: int, ready: memoryview) -> None:
        """Clients that say STARTTLS go to the TLS processes through this SOCK_SEQPACKET socket; it stays the caller's.

        A packet is the client's name for the log, `[address]:port`, with two descriptors: the client, and the end of a
        pair of stream sockets where its plaintext is wanted. ready: a byte for each process, 1 while it takes clients.
        """

    def use_cluster(self, fd: int, *, budget: float = 1, accepts: bool = True, shares: bool = True) -> None:
        """Exchange packets with the cluster process through this SOCK_SEQPACKET socket of the caller. -1: none.

        budget: seconds after which an answer is ignored. accepts: clients that begin their greet wait are asked about.
        shares: passes are told to other hosts. ext/cluster.pyx describes the packets. OSError: no memory in the kernel.
        """

    def use_resolvers(self, addresses: Iterable[bytes]) -> None:
        """Ask these resolvers, in order, each a packed struct sockaddr. At least one is needed for DNSBL lists."""

    def tcp_answer(self, token: int, addresses: Sequence[bytes] | None, ttl: int, keep: int) -> None:
        """The answer to on_truncated: packed addresses, empty for "not listed", None for an error.

        ttl, keep: s that the pass and the answer are valid, -1 when unknown. Comes too late: is ignored.
        """

    def drain(self, *, hurry: bool = False, successor: bool = False) -> None:
        """Accept no more; those in hand have 30 s to finish.

        hurry: clients that only wait (greet wait, dialogue, PROXY header) get a 421 after 1 s. successor: another
        process takes the clients of the inbox. May be called again, in a hurry.
        """

    def stats(self) -> dict[str, Any]:
        """Counters of this process; `stages`: sessions by stage; `stale_events`: events of descriptors that were closed
        or passed on before (they are ignored, and each is a fault in the core).

        A hand-off that the MTA confirmed in the last 0.1 s may still be counted.
        """

    def live(self, wanted: Filter, order: str, limit: int) -> tuple[int, int, bytes]:
        """How many sessions there are, how many match, and the first `limit` of those, packed (see read_records).

        order: "age", "new", "score" or "address". The kind of each record is "session", `number` its age in µs, `text`
        the beginning of what the client said last; just the command's name when the ring has lost it.
        """

    def lists(self) -> list[dict[str, Any]]:
        """What is counted for each DNSBL list since the start; `latency`: for latency_percentile."""

    def answers(self, address: str) -> list[tuple[str, str, list[str], int]]:
        """What the lists said of a client, as far as it is kept. ValueError: no address.

        (list, state, answers, s for which it is not asked again); the state is "unknown", "asked", "listed", "not
        listed" or "failed".
        """

    def client(self, address: str) -> tuple[int, tuple[int, ...] | None, int, int] | None:
        """(a client's sessions, the stamps that those under test share (-1: not read), how many are relayed, how many
        sessions count for the limit). By the policy's prefixes. None: there are none.

        None instead of stamps: none is under test. ValueError: no address.
        """

    def rates_of(self, address: str) -> tuple[int, int]:
        """How many connections of a client, and of its network, count for `client_rate` and `network_rate` just now.

        ValueError: no address.
        """

    @property
    def sessions(self) -> int: ...
    @property
    def handoffs(self) -> int: ...
    @property
    def relays(self) -> int: ...
    @property
    def relayed(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def handed(self) -> int: ...

EVENTS: tuple[str, ...]
"""The kinds of events by number; the first is empty, the last one, "session", stands for a live session."""
STAGES: tuple[str, ...]
RANK_BOUNDS: tuple[int, ...]
"""Scores: each bucket of `EventReader.details()["ranks"]` holds those up to its bound."""
FINDINGS: tuple[str, ...]
"""What a client can fail, by bit: the keys of TESTS, then the deny list and the MX policy."""

class Test(NamedTuple):
    """A row of the table of tests (ext/test_table.pyx)."""

    key: str
    """Its name in the configuration, the cache, findings, filters and metrics."""
    label: str
    """For people."""
    log_words: str
    """What the log line of a failure begins with."""
    event: str
    """The kind of the event of a failure; "rank" comes with every score."""
    stage: str
    """When it is made: "greet" or "dialogue"."""
    action: str
    """Of a deep test that is off, for clients that failed another test."""
    ttl: str
    """How long a pass is valid by default, as in the configuration."""
    about: str
    """What the clients that fail do (Markdown)."""
    own: bool
    """Not postscreen's: it leaves no trace where it is off."""

TESTS: tuple[Test, ...]
"""In the order of the cache's stamps."""

class Scorer(NamedTuple):
    """A row of the table of scorers (ext/score_table.pyx)."""

    key: str
    """Its name in the configuration, the log, events, filters and metrics."""
    label: str
    """What is wrong, as replies say it."""
    about: str
    """What the clients do (Markdown)."""
    stage: str
    """Where it has the last word: "greet" or "dialogue"."""

SCORERS: tuple[Scorer, ...]
"""By number; the first are the DNS lists, which have weights of their own."""
FIRST_EVIDENCE: int
"""The bit of an event's findings that stands for the first scorer."""

def evidence_in(heard: str, text: bytes, peer: str, server: str, policy: Policy) -> list[str]:
    """The keys of the scorers that find something, whatever their weights are.

    heard: what it is, "hello" for a HELO name. peer, server: addresses. ValueError: not an address.
    """

EventTuple = tuple[int, float, str, int, str, int, str, int, int | None, int, int, bytes]
"""(sequence, s since 1970, kind, session, address, port, stage, findings as bits, score, list's index or -1, number,
text)"""

@final
class EventReader:
    """Reads the ring of a worker's events from another process, without the worker's help.

    memory: what its Screener was given as `events`.
    """

    def __init__(self, memory: memoryview) -> None: ...
    @property
    def head(self) -> int:
        """The sequence of the newest event; 0: none yet."""

    @property
    def capacity(self) -> int:
        """How many events the ring holds."""

    bypass_until: float
    """s since 1970: until then every client is handed on untested. ValueError: the memory is for reading."""

    def counts(self) -> dict[str, int]:
        """How many events of each kind there were since the ring was made.

        And `rejected`: sessions that were rejected, for any reason.
        """

    def details(self) -> dict[str, Any]:
        """What `counts` has, told apart: {"busy": {reason: n}, "limits": {which: n}, "passed_new": n, "rejected":
        {code: recipients}, "ranks": a number for each of RANK_BOUNDS and one for what is above, "rank_sum": n,
        "evidence": {scorer: times}}.
        """

    def read(self, after: int, wanted: Filter, limit: int, until: int = 0) -> tuple[list[EventTuple], int, int, int]:
        """The first `limit` events behind sequence `after`, up to `until`, that match: (events, head, lost, skipped).

        until: 0 is the newest. head: to go on from. lost: events that were overwritten before they were read, matching
        or not. skipped: events that match beyond the limit.
        """

@final
class Filter:
    """A conjunction of at most 32 terms (field, operator, value, negated). ValueError, KeyError: no such thing.

    Fields with a number: score, age (µs, live sessions only), port, session, number; with operators = < <= > >=. With a
    mask of bits: kind (by EVENTS), stage (by STAGES), finding (by FINDINGS). "network": (family 4 or 6, first and last
    address in 16 octets each, IPv4 in the first four). "list": indexes. "text": at most 64 octets, found in any case.
    """

    def __init__(self, terms: Sequence[tuple[str, str, Any, bool]] = ()) -> None: ...
    def __call__(self, record: bytes) -> bool:
        """Whether a packed record matches."""

def read_records(packed: bytes, wanted: Filter | None = None) -> list[EventTuple]:
    """Take records apart, those that match."""

def latency_percentile(counts: Sequence[int], share: float) -> float | None:
    """The time in s in which this share (0 to 1) of a list's answers came, to a fifth; None: there are none."""
