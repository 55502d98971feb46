"""The configuration as the rest of the program sees it: frozen records, every value parsed and checked.

Times are whole seconds, sizes are bytes. Nothing here knows about files, TOML or defaults; see `load` and `names`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct, defstruct

from fastscreen.core import SCORERS, TESTS


class Action(StrEnum):
    """What follows a failed test (reference 2.6).

    OFF: only for deep tests, the test is not made. SHADOW: as IGNORE, and the log has what ENFORCE would have replied.
    """

    OFF = "off"
    IGNORE = "ignore"
    SHADOW = "shadow"
    ENFORCE = "enforce"
    DROP = "drop"


class Endpoint(Struct, frozen=True):
    """An IP address (IPv4 or IPv6 text, no brackets) and a port; port 0 is any free one, for listeners only."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Prefix(NamedTuple):
    """How many bits of an IPv4 and of an IPv6 address make a client."""

    ipv4: int = 32
    ipv6: int = 128


RATE_NETWORK = Prefix(24, 48)
"""What limits.client_network_rate counts by: RATE_IPV4 and RATE_IPV6 of ext/rates.pyx."""


class Site(Struct, frozen=True):
    """One entry of `dnsbl.sites` (reference 4.1).

    domain: the list's domain as written, no final dot.
    octets: None when every answer counts; else four sets of octet values, one for each octet of the answer in its
        written order. A set is 32 bytes: value v is a member when ``octets[i][v >> 3] >> (v & 7) & 1``.
    weight: added once when an answer matches; negative for allow lists, 0 is legal.
    """

    domain: str
    octets: tuple[bytes, bytes, bytes, bytes] | None
    weight: int

    def matches(self, address: bytes) -> bool:
        """Whether a 4-byte answer passes the filter."""
        return self.octets is None or all(
            members[value >> 3] >> (value & 7) & 1 for members, value in zip(self.octets, address, strict=True)
        )


class Pass(Struct, frozen=True, tag="pass"):
    """Hand-off of the descriptor over a Unix stream socket (reference 8)."""

    path: str


class Sink(Struct, frozen=True, tag="sink"):
    """Hand-off to the embedded server that accepts and discards."""


class Target(Struct, frozen=True):
    """One MTA that reads the PROXY protocol: an endpoint, or the path of a Unix socket. weight: 0 = in order."""

    where: Endpoint | str
    weight: int = 0

    def __str__(self) -> str:
        return f"unix:{self.where}" if isinstance(self.where, str) else str(self.where)


class Proxy(Struct, frozen=True, tag="proxy"):
    """Clients are relayed to one of these; the first that answers, or each by its weight."""

    targets: tuple[Target, ...]


class LogFile(Struct, frozen=True, tag="file"):
    """Append to a file, opened again at SIGHUP."""

    path: str


class LogSyslog(Struct, frozen=True, tag="syslog"):
    """The local syslog socket, facility mail."""


class LogStderr(Struct, frozen=True, tag="stderr"):
    """Standard error."""


class ProxyPort(Struct, frozen=True):
    """Ports where a PROXY header comes first. trusted: who may send it, as `mynetworks`. timeout: for the header."""

    addresses: tuple[Endpoint, ...]
    trusted: tuple[str, ...]
    timeout: int


class Listen(Struct, frozen=True):
    """workers: how many processes; 0 = as many as the machine has cores."""

    addresses: tuple[Endpoint, ...]
    proxy: tuple[ProxyPort, ...]
    workers: int

    @property
    def ports(self) -> dict[Endpoint, ProxyPort | None]:
        """Every address, in order; with what is asked for there before anything else."""
        plain: dict[Endpoint, ProxyPort | None] = dict.fromkeys(self.addresses)
        return plain | {address: port for port in self.proxy for address in port.addresses}


class Handoff(Struct, frozen=True):
    """continue_to: None = deep tests end with a 450. doubtful_to: None = doubtful clients go where all others go.
    proxy_version: of the header, 1 or 2.
    """

    to: Pass | Sink | Proxy
    continue_to: Proxy | None
    doubtful_to: Pass | Proxy | None
    proxy_version: int
    relay_idle_limit: int
    relay_time_limit: int
    continue_time_limit: int


class Access(Struct, frozen=True):
    """`list`, `mynetworks`, `allowlist_interfaces` are text here: `screening.access_list` opens what they name."""

    list: tuple[str, ...]
    mynetworks: tuple[str, ...]
    allowlist_interfaces: tuple[str, ...]
    denylist_action: Action


class Allowlist(Struct, frozen=True):
    """groups, providers, exclude: see `fastscreen.config.providers`. path: empty = none. interval: 0 = never."""

    groups: tuple[str, ...]
    providers: tuple[str, ...]
    domains: tuple[str, ...]
    exclude: tuple[str, ...]
    path: str
    interval: int


class Denylist(Struct, frozen=True):
    """path: empty = none."""

    domains: tuple[str, ...]
    path: str


class Greet(Struct, frozen=True):
    """banner: text after `220-`; empty = no pregreet test (reference 1.2)."""

    banner: str
    wait: int
    stress_wait: int
    action: Action
    ttl: int


class Dnsbl(Struct, frozen=True):
    """resolvers: empty = those of resolv.conf. reply_map: `type:table` or empty. allowlist_threshold: >= 0 = off.

    probe_interval: between two looks at each list, 0 = never.
    """

    sites: tuple[Site, ...]
    threshold: int
    allowlist_threshold: int
    action: Action
    reply_map: str
    timeout: int
    min_ttl: int
    max_ttl: int
    resolvers: tuple[Endpoint, ...]
    probe_interval: int

    @property
    def domains(self) -> tuple[str, ...]:
        """Each list once, in the order of the sites."""
        return tuple(dict.fromkeys(site.domain for site in self.sites))


if TYPE_CHECKING:

    class Deep(Struct, frozen=True):
        """Of each deep test X that postscreen has: `X`, `X_ttl`, and `X_after_fail`, the action of a test that is `OFF`
        but made all the same, because another test failed.
        """

        def __getattr__(self, name: str) -> Any: ...

    class Score(Struct, frozen=True):
        """action, ttl: of the score test. rcpt_many_from: for the scorer of that name. defer_from, doubtful_from,
        slow_from: 0 = off. memory: the file of the memory of offenses; empty = none. slow_by, memory_half_life,
        as_half_life: s. seen_min: bad addresses before neighbors count. seen_as_share: percent. as_file: empty = none.
        The other fields are the weights of the core's scorers, by their keys.
        """

        action: Action
        ttl: int
        rcpt_many_from: int
        defer_from: int
        doubtful_from: int
        slow_from: int
        slow_by: int
        memory: str
        memory_half_life: int
        memory_max_entries: int
        seen_min: int
        seen_as_share: int
        as_half_life: int
        as_file: str

        def __getattr__(self, name: str) -> Any: ...

else:
    _DEEP_FIELDS = [
        field
        for test in TESTS
        if test.stage == "dialogue" and not test.own
        for field in ((test.key, Action), (f"{test.key}_after_fail", Action), (f"{test.key}_ttl", int))
    ]
    Deep = defstruct("Deep", _DEEP_FIELDS, frozen=True, module=__name__)
    _MEMORY_FIELDS = [
        ("memory", str),
        ("memory_half_life", int),
        ("memory_max_entries", int),
        ("seen_min", int),
        ("seen_as_share", int),
        ("as_half_life", int),
        ("as_file", str),
    ]
    _RESPONSES = [("defer_from", int), ("doubtful_from", int), ("slow_from", int), ("slow_by", int)]
    _WEIGHTS = [(scorer.key, int) for scorer in SCORERS[1:]]
    Score = defstruct(
        "Score",
        [("action", Action), ("ttl", int), ("rcpt_many_from", int), *_RESPONSES, *_WEIGHTS, *_MEMORY_FIELDS],
        frozen=True,
        module=__name__,
    )


class Engine(Struct, frozen=True):
    """The dummy SMTP engine. Tables and templates stay text here; expansion_filter: the bytes that are allowed."""

    forbidden_commands: tuple[str, ...]
    command_count_limit: int
    command_time_limit: int
    stress_command_time_limit: int
    line_length_limit: int
    command_filter: str
    helo_required: bool
    disable_vrfy_command: bool
    announce_vrfy: bool
    discard_ehlo_keywords: tuple[str, ...]
    discard_ehlo_keyword_address_maps: tuple[str, ...]
    message_size_limit: int
    smtputf8: bool
    soft_bounce: bool
    reject_footer: str
    reject_footer_maps: tuple[str, ...]
    expansion_filter: bytes


class Tls(Struct, frozen=True):
    """level: none, may or encrypt. certificates: files. protocols: the oldest and the newest, as `ssl.TLSVersion` has
    them; the newest 0 = any. sessions: of all workers together; handshakes: of each process. log_level: 0 or 1.
    """

    level: str
    certificates: tuple[str, ...]
    protocols: tuple[int, int]
    ciphers: str
    sessions: int
    handshakes: int
    handshake_time: int
    processes: int
    log_level: int


class Cache(Struct, frozen=True):
    """path: file of the cache; empty = no cache. cleanup_interval: 0 = never. max_size: bytes. keep_free: percent of
    the file system. prefix_*: bits of an address."""

    path: str
    cleanup_interval: int
    retention: int
    max_size: int
    keep_free: int
    prefix_ipv4: int
    prefix_ipv6: int

    @property
    def prefix(self) -> Prefix:
        return Prefix(self.prefix_ipv4, self.prefix_ipv6)


class Limits(Struct, frozen=True):
    """client_connection_count, _rate, client_network_rate: 0 = no limit; rates are connections per minute.

    pre_queue, relay: 0 = from the descriptor limit.
    """

    client_connection_count: int
    client_connection_prefix_ipv4: int
    client_connection_prefix_ipv6: int
    client_connection_rate: int
    client_network_rate: int
    pre_queue: int
    post_queue: int
    relay: int

    @property
    def prefix(self) -> Prefix:
        """By which connections of a client are counted."""
        return Prefix(self.client_connection_prefix_ipv4, self.client_connection_prefix_ipv6)


class Control(Struct, frozen=True):
    """path: the control socket; empty = none. group: whose members may read; empty = nobody's.

    names: look up the names of clients that somebody looks at.
    """

    path: str
    group: str
    names: bool


class Metrics(Struct, frozen=True):
    """listen: an endpoint, or the path of a Unix socket; None = off."""

    listen: Endpoint | str | None


class Log(Struct, frozen=True):
    """format: text or json."""

    to: LogFile | LogSyslog | LogStderr
    ident: str
    stamps: str
    format: str
    respectful: bool
    delay_resolution: int
    address_format: str


class ClusterConfig(Struct, frozen=True):
    """A server that several hosts share passes through.

    server: its URL, see `server_url`; empty = none. sentinels: addresses or names of Sentinels, which know the server
    called `master`; TLS is used for both if ca_file is set. password_file, ca_file, secret_file: empty = none. name: of
    this host; empty = `hostname`. budget: how long an answer is awaited. share, accept: kinds of records.
    """

    server: str = ""
    sentinels: tuple[Endpoint, ...] = ()
    master: str = ""
    password_file: str = ""
    ca_file: str = ""
    prefix: str = "fastscreen:"
    name: str = ""
    secret_file: str = ""
    budget: int = 1
    share: tuple[str, ...] = ("passes",)
    accept: tuple[str, ...] = ("passes",)

    @property
    def enabled(self) -> bool:
        return bool(self.server or self.sentinels)


class History(Struct, frozen=True):
    """path: a folder; empty = no history. keep: s. max_size: bytes of all files. known: of so many sessions of clients
    whose passes were cached, one is recorded; 0 = none. mask: bits of an IPv4 and of an IPv6 address that are recorded;
    None = all.
    """

    path: str = ""
    keep: int = 2_592_000
    max_size: int = 4 << 30
    known: int = 1
    mask: tuple[int, int] | None = None


class Feedback(Struct, frozen=True):
    """log: a file, or "journal"; empty = no feedback. spam: a regular expression; empty = none."""

    log: str = ""
    spam: str = ""


class Config(Struct, frozen=True):
    """Everything. source: the file's name for messages. user: empty = the default of `process.privileges`.

    mode: "screen", or "shadow": no client is rejected.
    """

    source: str
    mode: str
    hostname: str
    banner: str
    user: str
    listen: Listen
    handoff: Handoff
    access: Access
    allowlist: Allowlist
    denylist: Denylist
    greet: Greet
    dnsbl: Dnsbl
    deep: Deep
    score: Score
    engine: Engine
    tls: Tls
    cache: Cache
    cluster: ClusterConfig
    history: History
    feedback: Feedback
    limits: Limits
    control: Control
    metrics: Metrics
    log: Log

    @property
    def shadow(self) -> bool:
        return self.mode == "shadow"

    def follows(self, action: Action) -> Action:
        """What follows where this action is configured: nothing in shadow mode."""
        return Action.IGNORE if action is Action.SHADOW or (self.shadow and action is not Action.OFF) else action

    def deep_action(self, test: str) -> Action:
        """Of a deep test, by its key: in shadow mode it is made only if the session can go on with an MTA."""
        action: Action = getattr(self.deep, test)
        return Action.OFF if self.shadow and self.handoff.continue_to is None else action

    @property
    def weights(self) -> dict[str, int]:
        """What each scorer adds to the score, apart from the lists."""
        return {scorer.key: getattr(self.score, scorer.key) for scorer in SCORERS[1:]}

    @property
    def scores(self) -> bool:
        """Whether the score test is made. In shadow mode it needs an MTA to continue with, as every deep test."""
        wanted = any(self.weights.values()) or self.score.defer_from > 0
        return wanted and not (self.shadow and self.handoff.continue_to is None)

    @property
    def responds(self) -> bool:
        """Whether anything but the threshold follows from the score, if only in the log."""
        return self.score.action is not Action.IGNORE

    @property
    def worker_prefix(self) -> Prefix:
        """What of an address says which worker's the client is: all that share a record or a count are one's."""
        cache, count = self.cache.prefix, self.limits.prefix
        rate = RATE_NETWORK if self.limits.client_network_rate else Prefix(32, 64)
        return Prefix(min(cache.ipv4, count.ipv4, rate.ipv4), min(cache.ipv6, count.ipv6, rate.ipv6))
