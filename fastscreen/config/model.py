"""The configuration as the rest of the program sees it: frozen records, every value parsed and checked.

Times are whole seconds, sizes are bytes. Nothing here knows about files, TOML or defaults; see `load` and `names`.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Action(StrEnum):
    """What follows a failed test (reference 2.6); `OFF` only for deep tests: the test is not made."""

    OFF = "off"
    IGNORE = "ignore"
    ENFORCE = "enforce"
    DROP = "drop"


class Endpoint(Struct, frozen=True):
    """An IP address (IPv4 or IPv6 text, no brackets) and a port; port 0 is any free one, for listeners only."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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


class LogFile(Struct, frozen=True, tag="file"):
    """Append to a file, opened again at SIGHUP."""

    path: str


class LogSyslog(Struct, frozen=True, tag="syslog"):
    """The local syslog socket, facility mail."""


class LogStderr(Struct, frozen=True, tag="stderr"):
    """Standard error."""


class Listen(Struct, frozen=True):
    """workers: how many processes; 0 = as many as the machine has cores."""

    addresses: tuple[Endpoint, ...]
    workers: int


class Handoff(Struct, frozen=True):
    to: Pass | Sink


class Access(Struct, frozen=True):
    """`list` and `mynetworks` stay text here: `fastscreen.access` opens what they name."""

    list: tuple[str, ...]
    mynetworks: tuple[str, ...]
    denylist_action: Action


class Greet(Struct, frozen=True):
    """banner: text after `220-`; empty = no pregreet test (reference 1.2)."""

    banner: str
    wait: int
    stress_wait: int
    action: Action
    ttl: int


class Dnsbl(Struct, frozen=True):
    """resolvers: empty = those of resolv.conf. reply_map: `type:table` or empty. allowlist_threshold: >= 0 = off."""

    sites: tuple[Site, ...]
    threshold: int
    allowlist_threshold: int
    action: Action
    reply_map: str
    timeout: int
    min_ttl: int
    max_ttl: int
    resolvers: tuple[Endpoint, ...]


class Deep(Struct, frozen=True):
    """`X_after_fail`: the action of a test that is `OFF` but made all the same, because another test failed."""

    pipelining: Action
    pipelining_after_fail: Action
    pipelining_ttl: int
    non_smtp_command: Action
    non_smtp_command_after_fail: Action
    non_smtp_command_ttl: int
    bare_newline: Action
    bare_newline_after_fail: Action
    bare_newline_ttl: int


class Engine(Struct, frozen=True):
    """The dummy SMTP engine. Tables and templates stay text here; expansion_filter: the allowed octets."""

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


class Cache(Struct, frozen=True):
    """path: file of the cache; empty = no cache. cleanup_interval: 0 = never."""

    path: str
    cleanup_interval: int
    retention: int


class Limits(Struct, frozen=True):
    """client_connection_count: 0 = no limit. pre_queue: 0 = from the descriptor limit."""

    client_connection_count: int
    pre_queue: int
    post_queue: int


class Control(Struct, frozen=True):
    """path: the control socket; empty = none. group: whose members may read; empty = nobody's.

    names: look up the names of clients that somebody looks at.
    """

    path: str
    group: str
    names: bool


class Log(Struct, frozen=True):
    to: LogFile | LogSyslog | LogStderr
    ident: str
    stamps: str
    respectful: bool
    delay_resolution: int
    address_format: str


class Config(Struct, frozen=True):
    """Everything. source: the file's name for messages. user: empty = the default rule of `fastscreen.privileges`."""

    source: str
    hostname: str
    banner: str
    user: str
    listen: Listen
    handoff: Handoff
    access: Access
    greet: Greet
    dnsbl: Dnsbl
    deep: Deep
    engine: Engine
    cache: Cache
    limits: Limits
    control: Control
    log: Log
