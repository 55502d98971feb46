"""What is measured, as data. docs/benchmark.md explains it to readers."""

from dataclasses import dataclass

from bench.lists import ZONES
from bench.screener import Settings


@dataclass(frozen=True)
class Row:
    """CPU per connection of one kind of client (kinds.h).

    `clients` connect in each round, `concurrent` is how many are open at a time, and `rate` how many connect per second
    (0: as fast as `concurrent` permits). Known clients use `sources` addresses that have passed before; each new client
    uses an address that was never used in the run. `held` silent clients are connected all the time. `line` is what
    the log must have for every client. `main` rows are in README and the picture.
    """

    name: str
    title: str
    kind: str
    settings: Settings
    line: bytes
    new: bool = True
    refused: bool = False
    clients: int = 20_000
    concurrent: int = 32
    rate: int = 0
    sources: int = 200
    held: int = 0
    main: bool = False
    aim: float | None = None  # for the ratio fastscreen / postscreen


@dataclass(frozen=True)
class Memory:
    """Memory per held client, for one kind of client that stays connected. `aim` is for fastscreen, in kB."""

    name: str
    title: str
    kind: str
    settings: Settings
    clients: int = 5000
    rounds: int = 3  # at most
    aim: float = 0.6


@dataclass(frozen=True)
class Viewer:
    """What the live view costs the screener at full load: known clients, with the view attached and without, in turn.

    The view shows the screen that `key` opens; it is ready when it has drawn `shows`.
    """

    name: str
    title: str
    key: bytes
    shows: bytes
    settings: Settings
    clients: int = 120_000
    concurrent: int = 32
    sources: int = 200


@dataclass(frozen=True)
class Burst:
    """`clients` connections within one second, each by a new client that waits at most `seconds` for the teaser."""

    name: str
    title: str
    settings: Settings
    tuned_process_limit: int
    clients: int = 10_000
    seconds: int = 20
    rounds: int = 3  # at most


FASTSCREEN, HAPROXY, HAPROXY_SPLICE = "fastscreen", "HAProxy", "HAProxy, splice-auto"
CONTINUES, COMES_BACK, POSTSCREEN = "fastscreen, Continue", "fastscreen, 450", "postscreen, 450"
TLS, PLAINTEXT = "fastscreen, TLS", "fastscreen, plaintext"


@dataclass(frozen=True)
class Relay:
    """CPU of known clients that are relayed to an MTA, compared with HAProxy.

    Each client sends `messages` of `size` bytes, and CPU is per MB; or none, and CPU is per connection. `aim` is for
    the ratio of fastscreen to the cheaper of HAProxy's settings.
    """

    name: str
    title: str
    kind: str
    clients: int
    concurrent: int
    size: int = 0
    messages: int = 0
    sources: int = 200
    main: bool = True
    aim: float | None = 1.0

    @property
    def per(self) -> str:
        return "MB" if self.size else "connection"


@dataclass(frozen=True)
class Continue:
    """CPU per new client until an MTA has its mail of `size` bytes: in one session, or in a second one after a 450."""

    name: str
    title: str
    settings: Settings
    clients: int
    rate: int
    size: int
    concurrent: int = 8000
    main: bool = False
    aim: float | None = None
    per: str = "client"


@dataclass(frozen=True)
class Tls:
    """CPU of clients under test in TLS: per connection, compared with postscreen, or per relayed MB (`size`)."""

    name: str
    title: str
    clients: int
    concurrent: int
    size: int = 0
    main: bool = False
    aim: float | None = None

    @property
    def per(self) -> str:
        return "MB" if self.size else "connection"


Compared = Relay | Continue | Tls
AnyRow = Row | Memory | Viewer | Burst | Compared


# Length of the listen queues of postscreen and dnsblog. The default of 100 overflows as soon as postscreen waits for
# its disk (it syncs each new pass). Clients or their lookups are then lost, and a row that expects all of them fails.
_TUNED = 10_000
_KNOWN = b": PASS OLD [127.1."
_NEW = b": PASS NEW [127."
# Stress mode would begin at nine tenths of the limit and shorten the greet wait. New clients wait for 6 s, the default
# of both.
_HOLDING = Settings(greet_wait=1, limit=16_000)
_VIEWED = Settings(greet_wait=1, control=True)
VIEW_GOAL = 1.03  # fastscreen's CPU per connection: with the view attached / without
FLAT_AIM = 1.15  # fastscreen's CPU: with held clients / without

ROWS: tuple[AnyRow, ...] = (
    Row(
        name="known",
        title="known client (cached), handed off by descriptor",
        kind="pass",
        settings=Settings(greet_wait=1),
        line=_KNOWN,
        new=False,
        main=True,
        aim=1 / 3,
    ),
    Row(
        name="known-lmdb",
        title="the same, postscreen with an LMDB cache",
        kind="pass",
        settings=Settings(greet_wait=1, postscreen_cache="lmdb"),
        line=_KNOWN,
        new=False,
        aim=1 / 3,
    ),
    Row(
        name="known-one",
        title="the same, one client at a time",
        kind="pass",
        settings=Settings(greet_wait=1),
        line=_KNOWN,
        new=False,
        concurrent=1,
    ),
    Row(
        name="known-workers",
        title="the same, fastscreen with two workers",
        kind="pass",
        settings=Settings(greet_wait=1, workers=2),
        line=_KNOWN,
        new=False,
        aim=1 / 3,
    ),
    Row(
        name="held-8000",
        title="known client while 8,000 silent clients are held",
        kind="pass",
        settings=_HOLDING,
        line=_KNOWN,
        new=False,
        clients=10_000,
        held=8000,
        main=True,
    ),
    Row(
        name="held-14000",
        title="known client while 14,000 silent clients are held",
        kind="pass",
        settings=_HOLDING,
        line=_KNOWN,
        new=False,
        clients=10_000,
        held=14_000,
        main=True,
        aim=1 / 20,
    ),
    Row(
        name="new-dnsbl",
        title="new client, checked against 8 DNS lists, passes",
        kind="pass",
        settings=Settings(greet_wait=6, limit=12_000, lists=ZONES, handoffs=6000, process_limit=_TUNED),
        line=_NEW,
        clients=4000,
        concurrent=4000,
        rate=400,
        main=True,
        aim=1 / 10,
    ),
    Row(
        name="new-greet",
        title="new client, greet test only, passes",
        kind="pass",
        settings=Settings(greet_wait=6, limit=12_000, handoffs=6000, process_limit=_TUNED),
        line=_NEW,
        clients=8000,
        concurrent=8000,
        rate=1000,
        main=True,
        aim=1 / 5,
    ),
    Row(
        name="new-greet-few",
        title="the same, only 100 per second",
        kind="pass",
        settings=Settings(greet_wait=6, limit=12_000, handoffs=6000, process_limit=_TUNED),
        line=_NEW,
        clients=1000,
        concurrent=1000,
        rate=100,
    ),
    Row(
        name="new-deep",
        title="new client, all deep tests (EHLO, MAIL, RCPT, QUIT)",
        kind="deep",
        settings=Settings(greet_wait=6, limit=12_000, deep=True, handoffs=6000, process_limit=_TUNED),
        line=_NEW,
        clients=8000,
        concurrent=8000,
        rate=1000,
        main=True,
        aim=1 / 4,
    ),
    Row(
        name="pregreet",
        title="pregreeter, dropped",
        kind="pregreet",
        settings=Settings(greet_action="drop"),
        line=b": PREGREET ",
        new=False,
        refused=True,
        main=True,
        aim=1 / 3,
    ),
    Viewer(
        name="view-overview",
        title="the live view attached (Overview)",
        key=b"1",
        shows=b"Verdicts",
        settings=_VIEWED,
    ),
    Viewer(
        name="view-events",
        title="the live view attached (Events)",
        key=b"4",
        shows=b"PASS OLD",
        settings=_VIEWED,
    ),
    Memory(
        name="memory-silent",
        title="silent, in the greet wait",
        kind="silent",
        settings=Settings(greet_wait=1800, limit=16_000, process_limit=_TUNED),
    ),
    Memory(
        name="memory-deep",
        title="in the deep tests, after EHLO and MAIL",
        kind="talking",
        settings=Settings(greet_wait=1, deep=True, limit=16_000, process_limit=_TUNED),
    ),
    Memory(
        name="memory-pregreet",
        title="pregreeters with action enforce, in the dialogue",
        kind="early",
        settings=Settings(limit=16_000, process_limit=_TUNED),
    ),
    Burst(
        name="burst",
        title="connections within one second",
        settings=Settings(greet_wait=1800, limit=16_000),
        tuned_process_limit=_TUNED,
    ),
    Relay(
        name="relay-known",
        title="known client (cached), relayed: banner, QUIT",
        kind="quit",
        clients=20_000,
        concurrent=32,
    ),
    Relay(
        name="relay-dialogue",
        title="sessions with 10 messages of 10 kB each",
        kind="message",
        clients=2000,
        concurrent=32,
        size=10_000,
        messages=10,
    ),
    Relay(
        name="relay-bulk",
        title="messages of 10 MB",
        kind="message",
        clients=200,
        concurrent=4,
        size=10_000_000,
        messages=1,
    ),
    Continue(
        name="continue",
        title="new client, all deep tests, sends a message of 10 kB",
        settings=Settings(greet_wait=6, limit=12_000, deep=True, handoffs=6000, process_limit=_TUNED),
        clients=4000,
        rate=500,
        size=10_000,
    ),
    Tls(
        name="tls-handshake",
        title="client under test: EHLO, STARTTLS, full handshake, EHLO, QUIT",
        clients=2000,
        concurrent=16,
    ),
    Tls(
        name="tls-bulk",
        title="message of 10 MB, relayed after all deep tests (Continue)",
        clients=20,
        concurrent=4,
        size=10_000_000,
    ),
)
