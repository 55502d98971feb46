"""The core of fastscreen, from accept to verdict and hand-off (Cython; see ext/).

"Reference" is docs/postscreen-behavior.md, the description of postscreen's behavior that the project follows. An RFC is
named where it applies.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, final

class StampCache(Protocol):
    """What the core needs from a cache (reference 7). All calls come from the event loop's thread."""

    def record(self, key: bytes) -> bytes | None:
        """Return the record of a packed address (4 or 16 bytes), or None if it is not in the cache."""

    def lookup(self, key: bytes) -> tuple[int, ...] | None:
        """Return one stamp for each of TESTS, whatever the record contains.

        A stamp is in seconds since 1970; 0 means never passed, 1 means disabled.
        """

    def keep(self, key: bytes, record: bytes) -> None:
        """Store a record that `write_record` made."""

    def end_batch(self) -> None:
        """A batch of events is complete: release what lookups hold."""

@final
class NetworkTable:
    """A compiled table of networks in Postfix's cidr_table(5) format. The first matching rule in file order wins.

    text: the table. Rules are `ADDRESS RESULT` or `NETWORK/LENGTH RESULT` (brackets around the address are allowed),
    `!` before the pattern negates it, `if PATTERN` ... `endif` nest up to 32 deep. An IPv4 pattern never matches an
    IPv6 client, and an IPv6 pattern never matches an IPv4 client, negated or not. Lines that begin with white space
    continue the previous line.
    source: the name of the table in warnings.

    A bad line is skipped with a warning and never raises an exception. The memory of a table grows with the number of
    its rules (16 bytes per IPv4 rule, 40 per IPv6 rule, at most 32 times that inside nested negated blocks), and the
    time of a lookup with the logarithm of that number.
    """

    def __init__(self, text: bytes, source: str) -> None: ...
    @property
    def results(self) -> list[str]:
        """The distinct results, in the order of their first appearance. Bytes that are not UTF-8 become surrogates."""

    @property
    def warnings(self) -> list[str]:
        """One warning for each bad line of the text, with source and line number; at most 101."""

    def lookup(self, address: str) -> str | None:
        """Return the result for an IPv4 or IPv6 address; None if no rule matches or `address` is not an address.

        IPv4-mapped IPv6 (::ffff:192.0.2.1) is looked up as IPv4, like everywhere in the core (reference 2.8).
        """

    def __len__(self) -> int:
        """The number of rules, without bad lines, if and endif."""

class DnsReply(NamedTuple):
    """The answer to an A query. TTLs are in seconds; -1 if the record is missing."""

    rcode: int
    truncated: bool
    """Ask again over TCP; no records were read."""
    addresses: tuple[str, ...]
    """In the order of the answer, the first 32."""
    ttl: int
    """The smallest TTL of the A records."""
    soa_ttl: int
    """The smallest TTL of the SOA records in the authority section. A pass stamp uses it (reference 4.3)."""
    negative_ttl: int
    """How long 'not listed' may be kept: the smaller of soa_ttl and SOA MINIMUM (RFC 2308 5)."""

def read_record(record: bytes) -> tuple[int, ...] | None:
    """Return the stamps of a cache record, one for each of TESTS; a missing stamp is 1.

    A record is a msgpack array of 1 to 15 unsigned integers below 2^63. Return None if `record` is anything else.
    """

def write_record(stamps: Sequence[int]) -> bytes:
    """Return a cache record with these stamps, one for each of TESTS.

    ValueError: too many or too few stamps, or a negative one. OverflowError: a stamp of 2^63 or more.
    """

class ProxyHeaderRead(NamedTuple):
    """A PROXY header. client, server: (address, port), or None for a connection of the load balancer's own (LOCAL)."""

    length: int
    """Size in bytes. The bytes after it are from the client."""
    client: tuple[str, int] | None
    server: tuple[str, int] | None

def proxy_header(data: bytes) -> ProxyHeaderRead | None:
    """Read the PROXY header, version 1 or 2, at the beginning of `data`. Return None if it is not complete yet.

    ValueError: the header is malformed; the text is postscreen's (reference 6.4). A header has at most 536 bytes.
    """

def cache_key_of(address: str, prefix: tuple[int, int]) -> bytes:
    """Return the cache's key of a client. prefix: the prefix lengths for IPv4 and IPv6.

    The key is the address in 4 or 16 bytes. If the prefix is shorter than the address, the host bits are zero and one
    more byte, the prefix length, follows. ValueError: not an address, or not a valid prefix length.
    """

def worker_of(client: str, count: int, key: int, prefix: tuple[int, int]) -> int:
    """Return the number of the worker (from 0, below `count`) that serves a client, calculated with a 64-bit hash key.

    Clients with the same prefix have the same worker. Only the first 64 bits of an IPv6 address are used. ValueError:
    not an address.
    """

def dns_query(id: int, address: str, domain: str) -> bytes:
    """Return the query with an id from 0 to 65535 for an address at a DNS list (RFC 5782 2.1, 2.4).

    ValueError: not an address, or the domain is not a DNS name or is too long. The core builds its queries with the
    same code.
    """

def dns_answer(packet: bytes, query: bytes) -> DnsReply | None:
    """Decode a datagram that was received after a query from `dns_query`.

    Return None if it is not a reply, or has a different id or question: the true answer may still come. ValueError: it
    is the reply to this query, but malformed. TTLs with the top bit set are read as 0 (RFC 2181 8).
    """

@final
class LineStates:
    """The line parser of one client, without I/O: bytes in, lines and findings out (reference 5.2, 5.3).

    limit: the maximal length of a line in bytes, including its CR and LF.
    """

    def __init__(self, limit: int = 2048) -> None: ...
    def feed(self, data: bytes) -> list[tuple[bytes, bytes, str, int]]:
        """Return the lines that end in this data: (line without CRLF or LF, first word, command, findings).

        The command is "UNIMPLEMENTED" for a word that is not in the command table. Findings are a combination of: 0x01
        bare newline, 0x02 too long (the line is returned as far as it was received, and no line is returned after it),
        0x04 NUL, 0x08 a control character other than TAB, 0x10 the word is a header label, 0x20 the line is not UTF-8,
        0x40 the word is neither a command nor UTF-8, 0x80 more bytes of this data follow the line.
        """

    def count(self, data: bytes) -> int:
        """Like `feed`, but only count the lines, without creating a Python object for each."""

    @property
    def held(self) -> int:
        """The number of bytes held of a line that has not ended."""

LOG_TURN_SIZE: int
"""Bytes of memory for a `LogTurn`."""

@final
class Log:
    """Log lines of one process (reference 6), composed in memory and written once per batch of events.

    ident: "postfix/postscreen" or any other name; DNSBL answers are logged as ".../dnsblog". host: the host name in the
    lines of a file. rfc3339: use time stamps with microseconds and time zone instead of traditional ones (syslog always
    has traditional ones). delay_resolution: decimals of "after T", 0 to 6. Up to 1 MiB that cannot be written is kept;
    then lines are lost, and their number is logged.
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
        """Write to this descriptor from now on; the caller keeps ownership of it. syslog: a connected datagram socket.

        turn: shared with the other processes that write to the same file. Anything but a regular file is written to
        only while it accepts bytes. A line that was cut short in the previous file is written again in full.
        """

    def let_go(self) -> None:
        """Forget the descriptor; lines are kept until the next `open`."""

    def info(self, text: str) -> None:
        """Add a line; characters that are not printable become "?"."""

    def warning(self, text: str) -> None:
        """Add a line that begins with "warning: "."""

    def flush(self) -> None: ...
    def lines(self) -> bytes:
        """Return the lines that are not written yet, and forget them."""

    on_warning: Callable[[bytes], object] | None
    """Called with the text of each warning, without time stamp and ident. It must return quickly, and it is not called
    again after it has raised an exception."""

    @property
    def disconnected(self) -> bool:
        """The log daemon has closed the syslog socket: call `open` with a new one."""

    @property
    def lost(self) -> int:
        """Lines lost since the last time this was logged."""

    @property
    def lost_total(self) -> int:
        """Lines lost since the start."""

    @property
    def problem(self) -> int:
        """errno of the last write; 0 if it succeeded, or if the reader was not ready."""

    @property
    def kept(self) -> int:
        """The number of bytes that could not be written yet."""

@final
class LogTurn:
    """A lock for processes that write to the same log file.

    A line that was cut short by a full disk is completed before another process writes. A process that stops or dies
    while it holds the lock does not block the others.

    memory: LOG_TURN_SIZE bytes that all processes share, initially zero. One process creates it, the others inherit it.
    """

    def __init__(self, memory: memoryview) -> None: ...
    def hold(self) -> bool:
        """Take the lock and keep it (for tests)."""

    def release(self) -> None:
        """Release the lock (for tests)."""

@final
class AccessStep:
    """One step of the permanent access list (reference 1.2, postscreen_access_list).

    With a table of networks, there is one decision for each result of the table, and clients that no rule matches
    continue with the next step. Without a table, there is one decision for all clients. A decision is "permit",
    "reject", "dunno" (end of the list, no decision), "next" (continue with the next step), or a callable that is called
    with the address and returns one of these words. ValueError: the number of decisions is wrong.
    """

    def __init__(
        self, decisions: Sequence[str | Callable[[str], str]], networks: NetworkTable | None = None
    ) -> None: ...

@final
class Lists:
    """DNSBL sites (reference 4.1): (domain, filter, weight) in the order of the configuration.

    A filter is None or 128 bytes: four sets of 256 bits, one for each octet of an answer. shown: the names that SMTP
    replies contain instead of the domains. Equal Lists share their kept answers across a reload. health, slots: shared
    memory with the health of the lists, and the position of each domain in it; without it, every list is used. budget:
    how many queries to one list may be pending at a time; the core's limit for all lists together may reduce it.
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
    """All settings of a session; immutable. Times are in seconds.

    teaser, greeting: complete replies with CRLF; an empty teaser disables the pregreet test.
    Actions are "ignore", "enforce", "drop", or "shadow": like "ignore", but the log has what "enforce" would have
    replied.
    tests: (enabled, action, ttl) for each of TESTS. The action of a disabled deep test applies after the client has
    failed another test (reference 2.6).
    greet_wait, command_time: normal and under stress. mta: path of the Unix socket where the MTA accepts clients.
    footer(reply, address, port) -> reply: called for replies that begin with 4 or 5; None: no footer.
    forbidden(word) -> bool. command_filter(line) -> None, or the line to execute instead and a text to log.
    ehlo_for(address, in_tls) -> (reply, discarded keywords as bits of ehlo_keywords.Keyword, text to log or empty).
    tls_level: "none", "may" or "encrypt"; tls_sessions: how many sessions may use TLS at a time.
    interfaces: permits the server addresses where a client may pass (MX policy); None: all addresses.
    cache_prefix, client_prefix: prefix lengths (IPv4, IPv6) for the cache, and for counting a client's connections.
    client_rate, network_rate: how many connections within rate_time are accepted from an unknown client, and from its
    network; 0: unlimited.
    shadow: no client is rejected; the log has the clients that would have been rejected.
    weights: the scorers' weights by key; 0 for scorers that are missing. rcpt_many_from: RCPT commands from which
    `rcpt_many` applies. rules: of the memory of offenses; None: its scorers do not speak.
    responses: to a score below the threshold: "shadow", "defer_from", "slow_from", "slow_by", "doubtful_from" as in
    `[score]`, "doubtful_to" the path of a socket, or "doubtful_targets". What is missing is disabled.
    settings: the number of these settings in the history (fastscreen/history/settings.py).
    ValueError: a value is not valid; the text is one line.
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
        rcpt_many_from: int = 20,
        settings: int = 0,
        rules: OffenseRules | None = None,
        responses: Mapping[str, object] | None = None,
    ) -> None: ...

@final
class Targets:
    """MTAs that read the PROXY protocol, at most 16, each as (label for logs, struct sockaddr, weight). The weights are
    either all 0 (the first target that answers is used) or all greater. version: of the PROXY header. ValueError: a
    target is not valid.

    on_offer(at, reply): called when target `at` replied to EHLO differently from the last time; returns its keywords as
    bits. Times are monotonic, in µs.
    """

    on_offer: Callable[[int, bytes], int] | None
    def __init__(self, targets: Iterable[tuple[str, bytes, int]], version: int = 2) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def version(self) -> int: ...
    def choose(self, now: int, tried: int = 0) -> int:
        """Return the target for a client; -1 if none is left. tried: the targets that have failed for it, as bits."""

    def failed(self, at: int, now: int) -> None:
        """The target did not answer: prefer the others for 10 s. ValueError: `at` is not a target."""

    def answered(self, at: int) -> None:
        """The target is up. ValueError: `at` is not a target."""

    def learn(self, at: int, reply: bytes) -> None:
        """Remember the target's reply to EHLO. ValueError: `at` is not a target."""

def proxy_header_for(version: int, peer: tuple[str, int], server: tuple[str, int]) -> bytes:
    """Return the PROXY header with the addresses of this client and server. ValueError: not an address."""

def read_reply(text: bytes) -> tuple[int, int] | None:
    """Return the size in bytes and the code of the first SMTP reply in `text`, or None if the reply is incomplete.

    ValueError: not an SMTP reply.
    """

@final
class Pace:
    """Decides when the next batch of events begins; `now` is monotonic, in µs.

    Frequent batches with little work cost more in wake-ups (of the screener, and therefore of sleeping clients and the
    MTA) than in work. In this case events are collected: the next batch begins after PAUSE µs. The decision is made
    again every 100 ms.
    """

    PAUSE: int

    def __init__(self, now: int) -> None: ...
    def after(self, work: int, now: int) -> int:
        """A batch is complete. work: accepted clients, events, timers. Return the delay of the next batch, in µs."""

@final
class Screener:
    """The screener of one process. Its `fileno` is an epoll set. The event loop calls `run` when it is readable, or
    later if the last call requested a delay.

    on_truncated(token, name): a DNSBL answer did not fit into a datagram; look up the A records of `name` by other
    means and call `tcp_answer`. on_drained(): called after `drain`, when the last session has ended. events: writable
    memory for the ring of events, usually shared with the process of an EventReader; None: no events are written.
    OSError: out of descriptors.
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
        """Transfer what relayed sessions have to transfer, up to a limit."""

    def run(self) -> float:
        """Handle what has happened, up to a limit. Return the minimum delay until the next call, in seconds (Pace)."""

    def probe(self) -> bool:
        """Wake both epoll sets. Return whether `run` and `run_relays` have both completed a batch that included the
        previous probe; the first call returns True."""

    def listen(self, fd: int, *, trusted: AccessStep | None = None, header_time: float = 0) -> None:
        """Accept clients from this listening, non-blocking socket; the caller keeps ownership of it.

        trusted: connections begin with a PROXY header, which is accepted from peers that this step permits, and must
        arrive within header_time seconds.
        """

    def join_crew(self, number: int, key: int, prefix: tuple[int, int], inboxes: Sequence[int], inbox: int) -> None:
        """Become worker `number`. inboxes: the sending end of each worker's inbox, ordered by worker number.

        Clients that a PROXY header names are passed to their worker (`worker_of`); other workers pass our clients to
        `inbox`. The caller keeps ownership of all descriptors.
        """

    def unlisten(self, fd: int) -> None:
        """Stop accepting clients from this socket. ValueError: `listen` was not called for it."""

    def use_policy(self, policy: Policy) -> None:
        """Use this policy for new connections. Clients under test keep the policy that they began with."""

    def use_tls(self, fd: int, ready: memoryview) -> None:
        """Pass clients that send STARTTLS to the TLS processes through this SOCK_SEQPACKET socket. The caller keeps
        ownership of it.

        A packet is the client's name for the log, `[address]:port`, with two descriptors: the client, and the end of a
        pair of stream sockets for its plaintext. ready: one byte for each process, 1 while it accepts clients.
        """

    def use_cluster(self, fd: int, *, budget: float = 1, accepts: bool = True, shares: bool = True) -> None:
        """Exchange packets with the cluster process through this SOCK_SEQPACKET socket of the caller. -1: none.

        budget: seconds after which an answer is ignored. accepts: clients that begin their greet wait are asked about.
        shares: passes are told to other hosts. ext/cluster.pyx describes the packets. OSError: no memory in the kernel.
        """

    def use_history(
        self,
        memory: memoryview | None,
        worker: int,
        known: int,
        description: bytes = b"",
        *,
        fingerprints: bool = True,
    ) -> None:
        """Record each session that ends, in this memory (HISTORY_RING_SIZE bytes, writable, shared with a
        HistoryReader). None: no longer.

        worker: its number, from 1. known: of so many sessions of clients whose passes were cached, one is recorded,
        with this weight; 0: none is. description: of the settings whose number is `Policy(settings=...)`; call this
        before `use_policy`. fingerprints: records have the SMTP dialect and the SYN packet. ValueError: the memory is
        too small.
        """

    def use_memory(self, memory: OffenseSource | None) -> None:
        """Look clients up in this memory of offenses, if the policy has rules for it. None: no longer."""

    def end_history(self) -> None:
        """Record the sessions that have not ended: this process ends before them."""

    def use_resolvers(self, addresses: Iterable[bytes]) -> None:
        """Query these resolvers, in this order. Each is a packed struct sockaddr. DNSBL lists need at least one."""

    def tcp_answer(self, token: int, addresses: Sequence[bytes] | None, ttl: int, keep: int) -> None:
        """The answer to `on_truncated`: packed addresses, empty for "not listed", None for an error.

        ttl, keep: how long the pass and the answer are valid, in seconds; -1 if unknown. A late answer is ignored.
        """

    def drain(self, *, hurry: bool = False, successor: bool = False) -> None:
        """Stop accepting clients; existing sessions have 30 s to finish.

        hurry: clients that only wait (greet wait, dialogue, PROXY header) get a 421 after 1 s. successor: another
        process serves the clients of the inbox. May be called again with `hurry`.
        """

    def stats(self) -> dict[str, Any]:
        """Return the counters of this process. `stages`: sessions by stage. `stale_events`: events of descriptors that
        had been closed or passed to another process (such events are ignored, and each is a bug in the core).

        A hand-off that the MTA confirmed in the last 0.1 s may still be counted.
        """

    def live(self, wanted: Filter, order: str, limit: int) -> tuple[int, int, bytes]:
        """Return the number of sessions, how many of them match, and the first `limit` of these, packed for
        `read_records`.

        order: "age", "new", "score" or "address". The kind of each record is "session"; `number` is its age in µs;
        `text` is the beginning of the client's last line, or only the name of the command if the line is no longer in
        the ring.
        """

    def lists(self) -> list[dict[str, Any]]:
        """Return the counters of each DNSBL list since the start; `latency` is for `latency_percentile`."""

    def answers(self, address: str) -> list[tuple[str, str, list[str], int]]:
        """Return the lists' answers for a client that are still kept. ValueError: not an address.

        Each is (list, state, answers, seconds until the list is queried again). The state is "unknown", "asked",
        "listed", "not listed" or "failed".
        """

    def client(self, address: str) -> tuple[int, tuple[int, ...] | None, int, int] | None:
        """Return (number of sessions, stamps, number of relayed sessions, number of sessions that count for the limit)
        of a client, by the policy's prefixes, or None if it is not connected.

        The sessions under test share the stamps (-1: not read); they are None if no session is under test. ValueError:
        not an address.
        """

    def rates_of(self, address: str) -> tuple[int, int]:
        """Return how many connections of a client, and of its network, currently count for `client_rate` and
        `network_rate`. ValueError: not an address.
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
"""The kinds of events by number. The first is empty; the last, "session", is for live sessions."""
STAGES: tuple[str, ...]
RANK_BOUNDS: tuple[int, ...]
"""The upper bounds of the scores in each bucket of `EventReader.details()["ranks"]`."""
FINDINGS: tuple[str, ...]
"""What a client can fail, by bit: the keys of TESTS, then the denylist and the MX policy."""

class Test(NamedTuple):
    """A row of the table of tests (ext/test_table.pyx)."""

    key: str
    """Its name in the configuration, the cache, findings, filters and metrics."""
    label: str
    """Its name for people."""
    log_words: str
    """The beginning of the log line of a failure."""
    event: str
    """The kind of the event of a failure; "rank" comes with every score."""
    stage: str
    """When the test is made: "greet" or "dialogue"."""
    action: str
    """The action of a disabled deep test for clients that failed another test."""
    ttl: str
    """How long a pass is valid by default, as written in the configuration."""
    about: str
    """What clients that fail this test do (Markdown)."""
    own: bool
    """Not one of postscreen's tests: it leaves no trace while it is disabled."""

TESTS: tuple[Test, ...]
"""In the order of the cache's stamps."""

class Scorer(NamedTuple):
    """A row of the table of scorers (ext/score_table.pyx)."""

    key: str
    """Its name in the configuration, the log, events, filters and metrics."""
    label: str
    """What is wrong, in the words of the replies."""
    about: str
    """What the clients with this evidence do (Markdown)."""
    stage: str
    """The stage in which its result is final: "greet", "dialogue", or "relay" if the client cannot be rejected then."""

SCORERS: tuple[Scorer, ...]
"""By number. The first stands for the DNS lists, which have their own weights."""
FIRST_EVIDENCE: int
"""The bit of an event's findings that stands for the first scorer."""

def evidence_in(
    heard: Literal["hello", "mail", "recipients", "replies"],
    text: bytes,
    peer: str,
    server: str,
    policy: Policy,
    *,
    announced: bool = False,
    in_tls: bool = False,
    tls_failed: bool = False,
    recipients: int = 0,
    answered: int = 0,
    refused: int = 0,
    times: int = 1,
) -> list[str]:
    """Return the keys of the scorers that find evidence in a text or a session, whatever their weights are.

    heard: what they judge; only "hello", for a HELO name, reads the text. peer, server: addresses. announced,
    tls_failed: STARTTLS was announced, and answered with 454. recipients: RCPT commands. answered, refused: recipients
    that the MTA has answered, and of these, rejected. times: how often they judge. ValueError: not an address.
    """

# ---- the memory of offenses (ext/offense_record.pyx, score_seen.pyx, as_table.pyx)

class OffenseSource(Protocol):
    """What the core needs of the memory. All calls come from the event loop's thread."""

    def record(self, key: bytes) -> bytes | None:
        """The record with this key, or None."""

    def end_batch(self) -> None:
        """A batch of events is over: release what look-ups hold."""

@final
class AsTable:
    """The AS of each address, from a text of lines `first,last,number` or `network,number`.

    source: what warnings call it. MemoryError: too large.
    """

    warnings: list[str]
    ranges: int
    def __new__(cls, text: bytes, source: str) -> AsTable: ...
    def __len__(self) -> int:
        """The number of ranges."""

    def lookup(self, client: bytes) -> int:
        """The number of the AS of an address of 4 or 16 bytes; 0: not known."""

class OffenseRules:
    """How offenses count. half_life, as_half_life: s, at least a day. seen_min: other addresses of a network that must
    be bad. as_share: of the addresses of an AS, in percent.

    ValueError: out of range.
    """

    half_life: int
    as_half_life: int
    seen_min: int
    as_share: int
    as_table: AsTable | None
    days: int
    """How long a single offense counts: two half-lives."""
    as_days: int

    def __init__(
        self,
        half_life: float = ...,
        seen_min: int = 3,
        as_table: AsTable | None = None,
        as_half_life: float = ...,
        as_share: int = 90,
    ) -> None: ...

def offenses_in(
    rows: Iterable[tuple[int, bytes, bytes, int, int]],
    threshold: int,
    weights: Mapping[str, int],
    unknown: list[tuple[bytes, int, int, bool]] | None = None,
) -> dict[bytes, tuple[int, int]]:
    """What clients did in sessions that have ended, by their addresses: the weight of the worst offense in 1/256, and
    the best conduct: 0 nothing good, 1 handed off, 2 a message was accepted.

    rows: of a HistoryReader. threshold: of the score, which counts without the parts of the memory's own scorers.
    weights: of these. unknown: sessions are added here that reached an MTA, and whose outcome is not known, instead of
    being counted: address, port, best conduct as above, and whether it may have committed an offense.
    """

def offense_keys(client: bytes) -> tuple[tuple[bytes, int, int], ...]:
    """For each record that an address of 4 or 16 bytes belongs to: its key, the size of a member's number in it, and
    the number that stands for the address."""

def offense_as(number: int) -> bytes:
    """The key of the record of an AS."""

def offense_add(
    value: bytes | None, size: int, number: int, bad: int, good: int, today: int, rules: OffenseRules
) -> tuple[bytes, float, float]:
    """A record with what a member did, and what that adds to `bad` and `good` of its AS, in 1/256.

    Of a /48 (size 2), only four /64s add to its AS, and none that takes the place of another.

    value: the record before. bad, good: as `offenses_in` has them. today: days since 1970.
    """

def offense_add_as(value: bytes | None, bad: float, good: float, today: int, rules: OffenseRules) -> bytes:
    """The record of an AS with more in its sums."""

def offense_read(
    value: bytes, today: int, rules: OffenseRules
) -> list[tuple[int, float, float, int, int, bool]] | None:
    """The members of a record: number, weights of bad and good as of today, last days of each, and whether it is bad.

    None: it is not a record. For an AS: one member with its sums.
    """

def offense_merge(
    value: bytes | None, other: bytes, size: int, today: int, rules: OffenseRules
) -> tuple[bytes | None, float, float] | None:
    """A record with what another host knows of its network, and what that adds to its AS as in `offense_add`.

    Of each member, the heavier weight stays, so that merging a record twice, or in another order, changes nothing.
    size: of a member's number. None: `other` is not such a record.
    """

def offense_summary(value: bytes, today: int, rules: OffenseRules) -> tuple[int, int, float, int] | None:
    """How many members are bad, how many are known, the weight of the heaviest, the last day. None: not a record."""

def offense_tidy(value: bytes, today: int, rules: OffenseRules) -> bytes | None:
    """A record without what has decayed, and without days in the future. None: nothing is left."""

def offense_without(value: bytes, numbers: Container[int]) -> bytes | None:
    """A record without these members. None: nothing is left."""

def seen_in(memory: OffenseSource, rules: OffenseRules, address: str, today: int) -> list[tuple[str, str]]:
    """The scorers of the memory that find evidence against an address, each with its evidence in words.

    ValueError: not an address.
    """

EventTuple = tuple[int, float, str, int, str, int, str, int, int | None, int, int, bytes]
"""(sequence, seconds since 1970, kind, session, address, port, stage, findings as bits, score, list's index or -1,
number, text)"""

@final
class EventReader:
    """Reads the ring of a worker's events from another process, without the worker's help.

    memory: the `events` argument of the worker's Screener.
    """

    def __init__(self, memory: memoryview) -> None: ...
    @property
    def head(self) -> int:
        """The sequence number of the newest event; 0: no event yet."""

    @property
    def capacity(self) -> int:
        """How many events the ring holds."""

    bypass_until: float
    """Until this time, in seconds since 1970, every client is handed off untested. ValueError: the memory is
    read-only."""

    def counts(self) -> dict[str, int]:
        """Return the number of events of each kind since the ring was created, and `rejected`, the number of sessions
        that were rejected for any reason.
        """

    def details(self) -> dict[str, Any]:
        """Return the counts in more detail: {"busy": {reason: n}, "limits": {which: n}, "passed_new": n, "rejected":
        {code: recipients}, "ranks": a number for each of RANK_BOUNDS and one for scores above the last, "rank_sum": n,
        "evidence": {scorer: times}}.
        """

    def read(self, after: int, wanted: Filter, limit: int, until: int = 0) -> tuple[list[EventTuple], int, int, int]:
        """Return the first `limit` matching events after sequence number `after`: (events, head, lost, skipped).

        until: the last sequence number to read; 0 means the newest. head: where to continue. lost: events that were
        overwritten before they were read, matching or not. skipped: matching events beyond the limit.
        """

@final
class Filter:
    """A conjunction of at most 32 terms (field, operator, value, negated). ValueError, KeyError: a term is not valid.

    Fields with a number: score, age (µs, live sessions only), port, session, number; with operators = < <= > >=. With a
    mask of bits: kind (by EVENTS), stage (by STAGES), finding (by FINDINGS). "network": (family 4 or 6, first and last
    address in 16 bytes each, IPv4 in the first four). "list": indexes. "text": at most 64 bytes, case-insensitive.
    """

    def __init__(self, terms: Sequence[tuple[str, str, Any, bool]] = ()) -> None: ...
    def __call__(self, record: bytes) -> bool:
        """Return whether a packed record matches."""

HISTORY_FIELDS: tuple[str, ...]
"""The names of what a HistoryTuple has."""
HISTORY_NUMBERS: tuple[str, ...]
"""Those of HISTORY_FIELDS that are numbers in the packed form, in the order of their bits."""
HISTORY_OUTCOMES: tuple[str, ...]
"""How sessions end, by number (HistoryOutcome in ext/core.pxd)."""
HISTORY_MARKS: tuple[str, ...]
"""What is noted about a session, by bit (HistoryMark in ext/core.pxd)."""
HISTORY_DIALECT: tuple[str, ...]
"""The traits of how a client speaks SMTP, by bit (ext/dialect.pyx)."""
HISTORY_SYN_OPTIONS: tuple[str, ...]
"""The kinds of TCP options, by number (ext/saved_syn.pyx)."""

HISTORY_TLS: tuple[str, ...]
"""How a session used TLS, by number."""

HistoryTuple = tuple[Any, ...]
"""A recorded session: HISTORY_FIELDS. `ended` is in µs since 1970, `lasted` in µs, addresses are packed, tests,
scorers and lists are bits, `score` is None if it is not known, `answers` are (list, address as a number)."""

def history_read(ended: int, client: bytes, packed: bytes) -> HistoryTuple | None:
    """Unpack a record. ended: µs since 1970. client: 4 or 16 bytes. None: it is not one of this version."""

def history_write(fields: Sequence[Any]) -> bytes:
    """Pack a HistoryTuple. ValueError: an address, a name or the number of answers is impossible.

    A number that does not fit its field (HistoryRecord in ext/core.pxd) loses its upper bits.
    """

def dialect_of(lines: Iterable[tuple[int, bool, bytes]], times: int = 1) -> int:
    """Return a record's number for a client that sends these lines to the dummy engine.

    lines: (delay in µs, in TLS, text without the end of the line). times: how often each is noted.
    """

def syn_in(packet: bytes, times: int = 1) -> tuple[int, int, int]:
    """Read a SYN packet from its IP header on; return a record's three numbers. times: how often it is read."""

def replies_in(parts: Iterable[tuple[bool, bytes]]) -> tuple[int, int, int, int, bool]:
    """Follow a session that is relayed from its beginning, as the history does.

    parts: (from the client, bytes) in the order in which they are relayed. Return (code of the MTA's last reply, except
    to QUIT; accepted messages; rejected recipients and messages; RCPT commands; whether commands and replies still
    match). Codes and the numbers before the last two are 0 if they do not, or after STARTTLS.
    """

@final
class HistoryFilter:
    """A conjunction of at most 32 terms (field, operator, value, negated) on recorded sessions. ValueError, KeyError: a
    term is not valid.

    Fields with a number: score, lasted (µs), commands, recipients, port, worker; with operators = < <= > >=. With a
    mask of bits: stage, outcome, tls, found, made, evidence, mark. "failed": masks of tests and of marks. "verdict",
    "reply", "spared", "mta": (first, last) code of at most 16 ranges. "client", "server": as "network" of Filter.
    "helo": a pattern with * and ?; "text": a part of the HELO name; at most 64 bytes, case-insensitive. "list": any
    value.

    lists: called with the value of a "list" term and the number of settings; returns the lists as a mask of bits.
    """

    def __init__(
        self, terms: Sequence[tuple[str, str, Any, bool]] = (), lists: Callable[[Any, int], int] | None = None
    ) -> None: ...
    @property
    def unreadable(self) -> int:
        """How many rows had a record of another version."""

    def chosen(self, rows: list[tuple[int, bytes, bytes]]) -> list[tuple[int, bytes, bytes]]:
        """Return the rows of the database that match (fastscreen/history/day.py)."""

HISTORY_RING_SIZE: int
"""Bytes of memory for a HistoryReader and the Screener of one worker: room for 16,384 sessions."""

HistoryRow = tuple[int, bytes, bytes, int, int]
"""A session: (end in µs since 1970, the client's address in 4 or 16 bytes, packed record, outcome, 1 if every pass was
cached). The record has the rest, including its weight."""

@final
class HistoryReader:
    """Reads the sessions that ended in a worker, from another process, without the worker's help.

    memory: the `memory` argument of `Screener.use_history`, writable. Its position is kept there, so that a reader
    continues where its predecessor ended. One reader at a time. ValueError: the memory is too small.
    """

    def __init__(self, memory: memoryview) -> None: ...
    def read(self, limit: int) -> tuple[list[HistoryRow], int]:
        """Return the first `limit` sessions after `tail`, and the number of those before them that were overwritten.

        The position stays the same until `done`.
        """

    def done(self) -> None:
        """What `read` returned is stored: move `tail`, and add to `lost`."""

    def settings(self) -> bytes | None:
        """Return the description of the worker's current settings (fastscreen/history/settings.py).

        None: there is none, it is too long (64 KiB), or the worker was killed while it wrote it.
        """

    @property
    def generation(self) -> int:
        """Changes whenever the worker publishes settings. 0: it has not done so yet."""

    @property
    def capacity(self) -> int:
        """How many records the ring holds."""

    @property
    def head(self) -> int:
        """The sequence number of the newest record; 0: no record yet."""

    @property
    def tail(self) -> int:
        """The sequence number of the last record that was read and stored."""

    @property
    def lost(self) -> int:
        """How many records were overwritten before they were read, up to `tail`."""

    @property
    def written(self) -> int:
        """How many records the worker has written: the same as `head`."""

    @property
    def sessions(self) -> int:
        """How many sessions have ended, including those of known clients that were not recorded."""

class JudgeDescription(TypedDict):
    """Settings for HistoryJudge: those of fastscreen/history/settings.py. sites: (list, filter as 128 bytes or None,
    weight). tests: (enabled, action, seconds), in the order of TESTS. memory: what the evidence of the memory of
    offenses depends on."""

    lists: Sequence[str]
    sites: list[tuple[int, bytes | None, int]]
    tests: list[tuple[bool, str, int]]
    weights: Mapping[str, int]
    denylist_action: str
    shadow: bool
    soft_bounce: bool
    continues: bool
    threshold: int
    allowlist_threshold: int
    dnsbl_min_ttl: int
    dnsbl_max_ttl: int
    greet_wait: float
    prefix: tuple[int, int]
    rcpt_many_from: NotRequired[int]
    memory: NotRequired[tuple[int, ...]]

JUDGED: tuple[str, ...]
"""Results of sessions for HistoryJudge. "rejected": the client failed a test whose action is enforce or drop, or is
denied. "unknown": cannot be judged from the record."""
JUDGE_KINDS: tuple[str, ...]
"""What HistoryJudge knows about clients: why they are good, then why they are bad."""
JUDGE_REASON_KEYS: tuple[str, ...]
"""Why a session cannot be judged, in the order of JudgeReason in ext/history_judge.pyx."""

@final
class HistoryJudge:
    """Judges recorded sessions by other settings (docs/tune.md).

    other: the settings. hostname: for HELO names. count_bits: of a row's number, below the time of its end. detail:
    keep the result of each session. collecting: keep what the scores consist of, for WeightSearch. mask: bits of
    clients' addresses that were recorded. ValueError: a setting is not valid. MemoryError: also if the passes of more
    than 8,388,608 clients differ.
    """

    detail: list[tuple[int, str, str, int, str]] | None
    """(number of the row, what happened, what would have, reply code, reason), if wanted. The code is 0 without a reply
    and -1 if it is unknown."""
    sessions: int
    """Including those that a record stands for."""
    records: int
    late: int
    """Sessions that lasted too long to be judged in the order of their beginnings."""
    held: int
    most_held: int

    def __init__(
        self,
        other: JudgeDescription,
        hostname: str,
        count_bits: int,
        detail: bool = False,
        collecting: bool = False,
        mask: tuple[int, int] = (32, 128),
    ) -> None: ...
    def add_settings(self, number: int, real: JudgeDescription) -> None:
        """Name the settings that sessions had, by their number."""

    def feed(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Judge rows of a day's file, in their order. Sessions that began not long ago are kept until `finish`."""

    def finish(self) -> None:
        """Judge the sessions that are kept."""

    def memory(self) -> int:
        """Return the bytes in use."""

    def summary(self) -> dict[str, Any]:
        """Return all counts."""

    def examples(self, what: str, limit: int) -> list[tuple[bytes, list[str]]]:
        """Return clients, with what is known about them: "collateral" (good, and only now rejected), "saved" (no longer
        rejected) or "missed" (only now)."""

    def collected(self) -> tuple[list[tuple[int, int]], dict[tuple[int, ...], tuple[int, int]]]:
        """Return the patterns, as (sites that hit, scorers that hit), one bit each; and for each set of patterns the
        number of good and of bad clients that showed it."""

@final
class WeightSearch:
    """Which clients some weights would reject. count: of the weights. patterns: the weights that each one adds up.
    groups: (patterns that clients showed, good clients, bad clients). ValueError: a number is out of range."""

    def __init__(
        self,
        count: int,
        patterns: Sequence[Sequence[int]],
        groups: Sequence[tuple[Sequence[int], int, int]],
    ) -> None: ...
    def hit(self, weights: Sequence[int], threshold: int) -> tuple[int, int]:
        """Return how many good and how many bad clients have a pattern with at least this sum."""

def deferred_at(stamp: int) -> int:
    """Return when the stamp of the score test says that a client was deferred, in s since 1970; 0: it does not."""

@final
class LabeledSessions:
    """Sessions with a label, in the order of their times from the first `sort` or `play` on.

    MemoryError: too many sessions or addresses.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def add(self, time: float, client: bytes, system: int, pattern: int, good: bool) -> None:
        """Add a session. time: s since 1970. client: 4 or 16 bytes. system: its AS; 0: not known. pattern: number of
        what it shows by itself, below 2^30. ValueError: out of range."""

    def sort(self) -> None:
        """Put them in the order of their times; of the same time, in that in which they were added."""

    def time(self, at: int) -> float:
        """Return the time of a session. IndexError: there is none."""

    def before(self, time: float) -> int:
        """Return how many sessions are before this time."""

    def play(
        self,
        rules: OffenseRules,
        least_values: Sequence[int],
        share_values: Sequence[int],
        delay: float,
        most: int,
        offending: bytes,
        advance: Callable[[int], None],
    ) -> int:
        """Let a memory of offenses, which is empty at first, judge each session, and learn its label `delay` seconds
        later: a bad session is an offense, a good one an accepted message.

        least_values, share_values: of seen_min and seen_as_share, in ascending order, at most 7 each; `shapes` and
        `groups` have the result for all of them. most: records of the memory. offending: for each pattern, whether it
        is an offense whatever the label, as a byte. advance: called with numbers of sessions. Return how many records
        were dropped. ValueError: too many values.
        """

    def shapes(self, first: int, last: int) -> dict[tuple[int, int, bool], int]:
        """Count sessions from one to before another by pattern, what the memory showed, and whether they are good.

        What the memory showed, as bits: 1: the address is bad. 2 to 8: for how many of `least_values` the network is
        bad. 16 to 64: for how many of them the AS has enough bad addresses. 128 to 512: for how many of
        `share_values` their share is large enough.
        """

    def groups(self, first: int, last: int) -> tuple[list[tuple[int, int]], dict[tuple[int, ...], tuple[int, int]]]:
        """Return the pairs of pattern and what the memory showed; and for each set of them the number of good and of
        bad addresses that had it in these sessions. An address with both labels counts as both."""

def hello_found(name: bytes, client: bytes, hostname: str) -> int:
    """Return the scorers that find evidence in a HELO name, one bit each. client: 4 or 16 bytes."""

def read_records(packed: bytes, wanted: Filter | None = None) -> list[EventTuple]:
    """Unpack the records that match."""

def latency_percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the time in seconds within which this share (0 to 1) of a list's answers arrived, or None if there are no
    answers. The result is exact to 20 %."""
