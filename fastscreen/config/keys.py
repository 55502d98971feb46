"""The one table of configuration keys: default, kind of value, and postscreen's names for the same thing.

The loader, `docs/configuration.md`, `contrib/fastscreen.toml` and the import of a main.cf all read it.
"""

from __future__ import annotations

from msgspec import Struct

from fastscreen.config import kinds, list_kinds, tls_kinds
from fastscreen.config.model import Action

_TEST = kinds.ActionOf(Action.IGNORE, Action.SHADOW, Action.ENFORCE, Action.DROP)
_DEEP = kinds.ActionOf(Action.OFF, Action.IGNORE, Action.SHADOW, Action.ENFORCE, Action.DROP)
_FILTER = (
    r'"\\t !\"#$%&'
    r"'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
    '"'
)


class Key(Struct, frozen=True):
    """One key.

    key: `table.key`, or the key alone at the top of the file.
    default: the default as TOML; it loads to what a left-out key gives.
    kind: how the value is read; for a time, `kind.unit` is the unit of a number without one.
    about: one sentence (Markdown).
    parameters: postscreen's names, today's first, then the old ones; empty when postscreen has none.
    parents: what these default to in main.cf, nearest first.
    """

    key: str
    default: str
    kind: kinds.Kind
    about: str
    parameters: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The TOML table, empty for the top of the file."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]


TABLES = {
    "": "The server's name and user.",
    "listen": "Where clients come in.",
    "handoff": "Where clients go that passed.",
    "access": "Permanent allow and deny list, by client address only.",
    "allowlist": "The networks of big senders, from their SPF records, in a file for `access.list` "
    "([allowlist.md](allowlist.md)).",
    "denylist": "The same for domains whose networks are to be turned away.",
    "greet": "The pregreet test: a client that talks before it was greeted.",
    "dnsbl": "DNS block and allow lists.",
    "deep": "The tests after the greeting. Without `handoff.continue_to` they cost a good new client one 450.",
    "engine": "The dummy SMTP engine that talks to clients under deep tests and to those that failed.",
    "tls": "STARTTLS in the dummy engine ([tls.md](tls.md)). Clients that are handed on talk TLS with the MTA.",
    "cache": "What is remembered of clients that passed.",
    "limits": "How much at a time.",
    "control": "The socket where `fastscreen tui`, `status` and others ask ([control.md](control.md)).",
    "metrics": "Counters for Prometheus ([metrics.md](metrics.md)).",
    "log": "The log.",
}

KEYS = (
    Key(
        "mode",
        '"screen"',
        kinds.Choice("screen", "shadow"),
        "`shadow`: everything is measured and logged as always, but nobody is turned away; a `SHADOW` line tells who "
        "would have been ([shadow.md](shadow.md)).",
    ),
    Key(
        "hostname",
        '""',
        kinds.Hostname(),
        "Name of this server in replies; empty: the machine's full name.",
        ("myhostname",),
    ),
    Key(
        "banner",
        '"$hostname ESMTP Postfix"',
        kinds.Banner("$hostname"),
        "Text of the dummy engine's `220`.",
        ("smtpd_banner",),
    ),
    Key(
        "user",
        '""',
        kinds.Ident(empty=True),
        "User to become once the sockets are bound, when started as root; empty: `postfix` when `handoff.to` is "
        "`pass:` and such a user exists, else no change.",
        ("mail_owner",),
    ),
    Key(
        "listen.addresses",
        '["0.0.0.0:25", "[::]:25"]',
        kinds.ListOf(kinds.Address(), most=100, distinct=True),
        "Addresses and ports to listen on; port 0: any free one. Empty only with `listen.proxy`.",
    ),
    Key(
        "listen.proxy",
        "[]",
        kinds.ListOf(kinds.ProxyPort(), most=100),
        "Ports of load balancers: whoever connects there sends a PROXY header first, v1 or v2, which names the client. "
        "Written as a table `[[listen.proxy]]` for each ([proxy.md](proxy.md)).",
        ("postscreen_upstream_proxy_protocol", "postscreen_upstream_proxy_timeout"),
    ),
    Key(
        "listen.workers",
        "1",
        kinds.Workers(),
        "Screening processes; `auto`: one for each core. A client's address (IPv6: its /64, or as much as the prefixes "
        "of `cache` and `limits` say) always falls to the same one, so that all that is kept of a client stays exact. "
        "`limits.pre_queue` and `limits.post_queue` are divided among them.",
    ),
    Key(
        "handoff.to",
        '"pass:/var/spool/postfix/private/smtpd"',
        kinds.HandoffTo(),
        "`pass:` and Postfix's socket of the service `smtpd pass`; `proxy:` and an MTA's port that reads the PROXY "
        "protocol ([continue.md](continue.md)), or several; or `sink:`, the embedded server that accepts and discards.",
        ("smtpd_service_name",),
    ),
    Key(
        "handoff.continue_to",
        '""',
        kinds.ProxyTo(),
        "An MTA's port that reads the PROXY protocol, or several: a client that ends the deep tests well goes on with "
        "it in the same session ([continue.md](continue.md)); empty: it gets a 450 and must come again.",
    ),
    Key(
        "handoff.proxy_version",
        "2",
        kinds.Number(1, 2),
        "Version of the PROXY header that is sent.",
    ),
    Key(
        "handoff.relay_idle_limit",
        '"11m"',
        kinds.Time(),
        "A relayed session ends when nothing moved for so long. A client waits up to 10 minutes for the answer to its "
        "message (RFC 5321 4.5.3.2.6).",
    ),
    Key(
        "handoff.relay_time_limit",
        '"6h"',
        kinds.Time("h"),
        "And when it has lasted so long.",
    ),
    Key(
        "handoff.continue_time_limit",
        '"120s"',
        kinds.Time(),
        "How long MTAs may take, all in all, until one has answered the RCPT of a session that is to go on; then 450. "
        "A client waits 5 minutes (RFC 5321 4.5.3.2.3).",
    ),
    Key(
        "access.list",
        '["permit_mynetworks"]',
        kinds.ListOf(kinds.AccessItem()),
        "First decision wins; a table's result is such a list itself, without tables. A client that is permitted is "
        "handed on at once.",
        ("postscreen_access_list",),
    ),
    Key(
        "access.mynetworks",
        "[]",
        kinds.ListOf(kinds.Network()),
        "What `permit_mynetworks` permits. Postfix's default is the machine's own addresses; here nobody is trusted "
        "unasked. An entry of a `/FILE` that is not a network is skipped with a warning.",
        ("mynetworks",),
    ),
    Key(
        "access.allowlist_interfaces",
        '["0.0.0.0/0", "::/0"]',
        kinds.ListOf(kinds.Network(), least=1),
        "The server's addresses where a client may pass (MX policy). A client that is not known yet and comes in at "
        "another one, such as that of a backup MX, is tested, refused with 450, and has passed nothing.",
        ("postscreen_allowlist_interfaces", "postscreen_whitelist_interfaces"),
    ),
    Key(
        "access.denylist_action",
        '"ignore"',
        _TEST,
        "What a client gets that the list rejects.",
        ("postscreen_denylist_action", "postscreen_blacklist_action"),
    ),
    Key(
        "allowlist.groups",
        "[]",
        kinds.ListOf(list_kinds.Group(), distinct=True),
        "Groups of providers, all of each; `fastscreen allowlist list` shows who is in which.",
    ),
    Key(
        "allowlist.providers",
        "[]",
        kinds.ListOf(list_kinds.Provider(), distinct=True),
        "Single providers, by name.",
    ),
    Key(
        "allowlist.domains",
        "[]",
        kinds.ListOf(list_kinds.Domain(), most=500, distinct=True),
        "Other domains.",
    ),
    Key(
        "allowlist.exclude",
        "[]",
        kinds.ListOf(list_kinds.Provider(domains=True), distinct=True),
        "Providers and domains that are left out, whatever names them.",
    ),
    Key(
        "allowlist.path",
        '"/var/lib/fastscreen/allowlist.cidr"',
        kinds.FilePath(),
        "The file, in a folder that fastscreen's user may write to; empty: none. `access.list` has to name it as "
        "`cidr:` and this path.",
    ),
    Key(
        "allowlist.interval",
        '"1d"',
        kinds.Time("h", 0),
        "Time between two refreshes of the running daemon, here and of `denylist`, up to a tenth longer at random; 0: "
        "none, `fastscreen allowlist refresh` does it.",
    ),
    Key(
        "denylist.domains",
        "[]",
        kinds.ListOf(list_kinds.Domain(), most=500, distinct=True),
        "Domains.",
    ),
    Key(
        "denylist.path",
        '"/var/lib/fastscreen/denylist.cidr"',
        kinds.FilePath(),
        "The file, as `allowlist.path`.",
    ),
    Key(
        "greet.banner",
        '"$banner"',
        kinds.Banner("$hostname and $banner", empty=True),
        "Text of the teaser, `220-`; empty: no pregreet test.",
        ("postscreen_greet_banner",),
        ("smtpd_banner",),
    ),
    Key(
        "greet.wait",
        '"6s"',
        kinds.Time(),
        "How long a client must be silent, and how long DNS lists may take.",
        ("postscreen_greet_wait",),
    ),
    Key(
        "greet.stress_wait",
        '"2s"',
        kinds.Time(),
        "The same under stress (when nine tenths of `limits.pre_queue` are used).",
        ("postscreen_greet_wait",),
    ),
    Key(
        "greet.action",
        '"ignore"',
        _TEST,
        "What a client gets that talks too soon.",
        ("postscreen_greet_action",),
    ),
    Key(
        "greet.ttl",
        '"1d"',
        kinds.Time("d"),
        "How long a pass is valid.",
        ("postscreen_greet_ttl",),
    ),
    Key(
        "dnsbl.sites",
        "[]",
        kinds.ListOf(kinds.SitePattern(), empty="[] is no DNSBL test"),
        "Lists to ask: `domain[=filter][*weight]`; a negative weight is for allow lists.",
        ("postscreen_dnsbl_sites",),
    ),
    Key(
        "dnsbl.threshold",
        "1",
        kinds.Number(1),
        "A client with this score or more fails.",
        ("postscreen_dnsbl_threshold",),
    ),
    Key(
        "dnsbl.allowlist_threshold",
        "0",
        kinds.Number(-kinds.MAX_INT),
        "When negative: a client with this score or less skips all other tests.",
        ("postscreen_dnsbl_allowlist_threshold", "postscreen_dnsbl_whitelist_threshold"),
    ),
    Key(
        "dnsbl.action",
        '"ignore"',
        _TEST,
        "What a client gets that fails.",
        ("postscreen_dnsbl_action",),
    ),
    Key(
        "dnsbl.reply_map",
        '""',
        kinds.TableName(optional=True),
        "Table from a list's domain to the name shown in replies, to keep query keys secret.",
        ("postscreen_dnsbl_reply_map",),
    ),
    Key(
        "dnsbl.timeout",
        '"10s"',
        kinds.Time(),
        "How long one answer may take.",
        ("postscreen_dnsbl_timeout",),
    ),
    Key(
        "dnsbl.min_ttl",
        '"60s"',
        kinds.Time(),
        "A pass is valid at least this long, whatever the DNS says.",
        ("postscreen_dnsbl_min_ttl",),
    ),
    Key(
        "dnsbl.max_ttl",
        '"1h"',
        kinds.Time("h"),
        "And at most this long.",
        ("postscreen_dnsbl_max_ttl", "postscreen_dnsbl_ttl"),
    ),
    Key(
        "dnsbl.resolvers",
        "[]",
        kinds.ListOf(kinds.Address(53), empty="[] is those of /etc/resolv.conf"),
        "DNS resolvers to ask, in order; empty: those of `/etc/resolv.conf`, which is looked at every 10 s.",
    ),
    Key(
        "dnsbl.probe_interval",
        '"5m"',
        kinds.Time("s", 0),
        "Interval between probes of each list's test entries. A list that is not healthy is not asked, and ignored, "
        "until it is; clients that a suspect list has are deferred ([lists.md](lists.md)). `0` disables probing.",
    ),
    Key(
        "deep.pipelining",
        '"off"',
        _DEEP,
        "A client that sends a command before it has the answer to the one before.",
        ("postscreen_pipelining_enable", "postscreen_pipelining_action"),
    ),
    Key(
        "deep.pipelining_after_fail",
        '"enforce"',
        _TEST,
        "Action of this test when it is off, on a client that failed another test.",
        ("postscreen_pipelining_action",),
    ),
    Key(
        "deep.pipelining_ttl",
        '"30d"',
        kinds.Time("d"),
        "How long a pass is valid.",
        ("postscreen_pipelining_ttl",),
    ),
    Key(
        "deep.non_smtp_command",
        '"off"',
        _DEEP,
        "A client that sends what is not SMTP: HTTP, message headers, forbidden commands.",
        ("postscreen_non_smtp_command_enable", "postscreen_non_smtp_command_action"),
    ),
    Key(
        "deep.non_smtp_command_after_fail",
        '"drop"',
        _TEST,
        "Action of this test when it is off, on a client that failed another test.",
        ("postscreen_non_smtp_command_action",),
    ),
    Key(
        "deep.non_smtp_command_ttl",
        '"30d"',
        kinds.Time("d"),
        "How long a pass is valid.",
        ("postscreen_non_smtp_command_ttl",),
    ),
    Key(
        "deep.bare_newline",
        '"off"',
        _DEEP,
        "A client that ends a line with LF alone.",
        ("postscreen_bare_newline_enable", "postscreen_bare_newline_action"),
    ),
    Key(
        "deep.bare_newline_after_fail",
        '"ignore"',
        _TEST,
        "Action of this test when it is off, on a client that failed another test.",
        ("postscreen_bare_newline_action",),
    ),
    Key(
        "deep.bare_newline_ttl",
        '"30d"',
        kinds.Time("d"),
        "How long a pass is valid.",
        ("postscreen_bare_newline_ttl",),
    ),
    Key(
        "engine.forbidden_commands",
        '["CONNECT", "GET", "POST", "regexp:{{/^[^A-Z]/ Bogus}}"]',
        kinds.ListOf(kinds.Word()),
        "Words that are no SMTP command: of those that the engine does not know, these fail the non-SMTP test.",
        ("postscreen_forbidden_commands",),
        ("smtpd_forbidden_commands",),
    ),
    Key(
        "engine.command_count_limit",
        "20",
        kinds.Number(1),
        "Commands in a session.",
        ("postscreen_command_count_limit",),
    ),
    Key(
        "engine.command_time_limit",
        '"300s"',
        kinds.Time(),
        "Time for one command line.",
        ("postscreen_command_time_limit",),
    ),
    Key(
        "engine.stress_command_time_limit",
        '"10s"',
        kinds.Time(),
        "The same under stress.",
        ("postscreen_command_time_limit",),
    ),
    Key(
        "engine.line_length_limit",
        "2048",
        kinds.Number(512, 16384),
        "Octets in a command line.",
        ("line_length_limit",),
    ),
    Key(
        "engine.command_filter",
        '""',
        kinds.TableName(optional=True),
        "Table that rewrites command lines.",
        ("postscreen_command_filter",),
    ),
    Key(
        "engine.helo_required",
        "false",
        kinds.Flag(),
        "Whether MAIL and ETRN need a HELO or EHLO before.",
        ("postscreen_helo_required",),
        ("smtpd_helo_required",),
    ),
    Key(
        "engine.disable_vrfy_command",
        "false",
        kinds.Flag(),
        "Answer VRFY with 502.",
        ("postscreen_disable_vrfy_command",),
        ("disable_vrfy_command",),
    ),
    Key(
        "engine.announce_vrfy",
        "true",
        kinds.Flag(),
        "Whether EHLO shows VRFY; left out: unless `disable_vrfy_command`.",
        ("disable_vrfy_command",),
    ),
    Key(
        "engine.discard_ehlo_keywords",
        "[]",
        kinds.ListOf(kinds.Text()),
        "EHLO keywords not to announce; `silent-discard`: without a log line.",
        ("postscreen_discard_ehlo_keywords",),
        ("smtpd_discard_ehlo_keywords",),
    ),
    Key(
        "engine.discard_ehlo_keyword_address_maps",
        "[]",
        kinds.ListOf(kinds.TableName()),
        "Tables from the client's address to such keywords, in place of `discard_ehlo_keywords`.",
        ("postscreen_discard_ehlo_keyword_address_maps",),
        ("smtpd_discard_ehlo_keyword_address_maps",),
    ),
    Key(
        "engine.message_size_limit",
        "10240000",
        kinds.Number(0, 2**63 - 1),
        "Octets in the EHLO SIZE line; 0: SIZE alone.",
        ("message_size_limit",),
    ),
    Key(
        "engine.smtputf8",
        "true",
        kinds.Flag(),
        "Announce SMTPUTF8, and treat command words that are not UTF-8 as non-SMTP.",
        ("smtputf8_enable",),
    ),
    Key(
        "engine.soft_bounce",
        "false",
        kinds.Flag(),
        "Turn every 5xx into 4xx.",
        ("soft_bounce",),
    ),
    Key(
        "engine.reject_footer",
        '""',
        kinds.Text(),
        r"Text added to 4xx and 5xx replies; `\n` begins a line, `\c` at the start continues the reply's own, "
        "`$client_address`, `$client_port`, `$localtime`, `$server_name` are replaced.",
        ("postscreen_reject_footer",),
        ("smtpd_reject_footer",),
    ),
    Key(
        "engine.reject_footer_maps",
        "[]",
        kinds.ListOf(kinds.TableName()),
        "Tables from the reply's text to a footer, in place of `reject_footer` when one matches.",
        ("postscreen_reject_footer_maps",),
        ("smtpd_reject_footer_maps",),
    ),
    Key(
        "engine.expansion_filter",
        _FILTER,
        kinds.Octets(),
        "Characters allowed in what a footer's `$name` becomes; others become `_`.",
        ("postscreen_expansion_filter",),
        ("smtpd_expansion_filter",),
    ),
    Key(
        "tls.level",
        '"none"',
        kinds.Choice("none", "may", "encrypt"),
        "Whether clients under test are offered STARTTLS; `encrypt`: whether they must use it.",
        ("postscreen_tls_security_level",),
        ("smtpd_tls_security_level",),
    ),
    Key(
        "tls.certificates",
        "[]",
        kinds.ListOf(tls_kinds.PemFile(), most=20),
        "PEM files with private keys and certificate chains, in the order in which Postfix wants them: a key, then its "
        "chain. Read as root at the start; at SIGHUP as the user, or by a process that may still read root's files.",
        ("postscreen_tls_chain_files", "tlsproxy_tls_chain_files"),
        ("smtpd_tls_chain_files",),
    ),
    Key(
        "tls.protocols",
        '">=TLSv1.2"',
        tls_kinds.Protocols(),
        "TLS versions that are spoken. The system's OpenSSL may allow less.",
        ("postscreen_tls_protocols", "tlsproxy_tls_protocols"),
        ("smtpd_tls_protocols",),
    ),
    Key(
        "tls.ciphers",
        '"DEFAULT"',
        kinds.Text("a cipher list as OpenSSL has it (`man openssl-ciphers`)", 1000),
        "Ciphers of TLS 1.2 and older; those of TLS 1.3 are OpenSSL's.",
        ("tls_medium_cipherlist",),
    ),
    Key(
        "tls.sessions",
        "1000",
        kinds.Number(1, 100000),
        "Sessions in TLS at a time, relayed ones included; further ones are told `454`. Divided among the workers.",
    ),
    Key(
        "tls.handshakes",
        "100",
        kinds.Number(1, 10000),
        "Handshakes at a time in one process; further clients wait for their turn.",
    ),
    Key(
        "tls.handshake_time",
        '"30s"',
        kinds.Time(),
        "Time for a handshake, waiting for its turn included.",
        ("postscreen_starttls_timeout",),
        ("smtpd_starttls_timeout",),
    ),
    Key(
        "tls.processes",
        "1",
        kinds.Number(1, 64),
        "TLS processes. They run at a lower priority than the screening itself.",
    ),
    Key(
        "tls.log_level",
        "0",
        kinds.Number(0, 1),
        "1: a line with protocol and cipher of each handshake, or why it failed.",
        ("postscreen_tls_loglevel", "tlsproxy_tls_loglevel"),
        ("smtpd_tls_loglevel",),
    ),
    Key(
        "cache.path",
        '"/var/lib/fastscreen/cache"',
        kinds.FilePath(),
        "File of the cache; its folder is made when it is missing; empty: no cache, everyone is new each time.",
        ("postscreen_cache_map",),
    ),
    Key(
        "cache.cleanup_interval",
        '"12h"',
        kinds.Time("h", 0),
        "Time between two searches for expired entries; 0: never.",
        ("postscreen_cache_cleanup_interval",),
    ),
    Key(
        "cache.retention",
        '"7d"',
        kinds.Time("d"),
        "How long an expired entry is kept, so that its client is not new again.",
        ("postscreen_cache_retention_time",),
    ),
    Key(
        "cache.max_size",
        '"1G"',
        kinds.Size("1M", "1024G"),
        "Upper limit for the size of the cache's file, in bytes or with a unit `K`, `M` or `G` (1024³ bytes). When the "
        "file is nearly full, expired entries are dropped first, then those that expire first; 1 GiB holds about 7 "
        "million clients. The file never shrinks: the space of dropped entries is used again.",
    ),
    Key(
        "cache.keep_free",
        "5",
        kinds.Number(0, 90),
        "Percentage of the file system that the cache leaves free, for example for the mail queue. With less free, "
        "the file does not grow: entries are dropped as with `max_size`. `0` disables this limit.",
    ),
    Key(
        "cache.prefix_ipv4",
        "32",
        kinds.Number(8, 32),
        "Bits of a client's IPv4 address that the cache goes by: with 24, all of a /24 share what one of them passed, "
        "so that a sender's pool is not tested address by address. A change takes effect at the next start.",
    ),
    Key(
        "cache.prefix_ipv6",
        "64",
        kinds.Number(16, 128),
        "The same for IPv6. A host may use any address of its /64, so all of them are one client by default. With "
        "`128` each address is tested by itself, as postscreen does.",
    ),
    Key(
        "limits.client_connection_count",
        "50",
        kinds.Number(0),
        "Sessions of one client address at a time; 0: any number.",
        ("postscreen_client_connection_count_limit",),
        ("smtpd_client_connection_count_limit",),
    ),
    Key(
        "limits.client_connection_prefix_ipv4",
        "32",
        kinds.Number(8, 32),
        "Bits of an IPv4 address that make one client for `client_connection_count`. A change takes effect at the next "
        "start.",
    ),
    Key(
        "limits.client_connection_prefix_ipv6",
        "64",
        kinds.Number(16, 128),
        "The same for IPv6. With `128` each address is counted by itself, as postscreen does; a host that changes its "
        "address within its /64 then evades the limit.",
    ),
    Key(
        "limits.client_connection_rate",
        "0",
        kinds.Number(0, 1000000),
        "Connections per minute that one client may make; further ones get a 421. A client is an address, or a network "
        "by `client_connection_prefix_ipv4` and `_ipv6`. Clients that the access list permits, and clients that the "
        "cache knows, are neither counted nor limited. `0` disables the limit.",
    ),
    Key(
        "limits.client_network_rate",
        "0",
        kinds.Number(0, 1000000),
        "Connections per minute that all clients of one network may make together: an IPv4 /24, an IPv6 /48. The "
        "exceptions are those of `client_connection_rate`. `0` disables the limit. With several workers, switching it "
        "on or off takes effect after a restart.",
    ),
    Key(
        "limits.pre_queue",
        "0",
        kinds.Number(10, also=0),
        "Sessions under test at a time. `0` takes what the limit of open files leaves.",
        ("postscreen_pre_queue_limit",),
        ("default_process_limit",),
    ),
    Key(
        "limits.post_queue",
        "100",
        kinds.Number(5),
        "Hand-offs in flight at a time.",
        ("postscreen_post_queue_limit",),
        ("default_process_limit",),
    ),
    Key(
        "limits.relay",
        "0",
        kinds.Number(1, also=0),
        "Relayed sessions at a time, those included for which an MTA is being asked; 0: from the limit of open files, "
        "of which each takes two.",
    ),
    Key(
        "control.path",
        '"/run/fastscreen/control"',
        kinds.FilePath(),
        "The control socket; its folder is made when it is missing; empty: none.",
    ),
    Key(
        "control.group",
        '""',
        kinds.Ident(empty=True),
        "Group whose members may read at the control socket; root and the screening user may read and act.",
    ),
    Key(
        "control.names",
        "true",
        kinds.Flag(),
        "Whether the names of clients are looked up (PTR, and back) while somebody looks at them.",
    ),
    Key(
        "metrics.listen",
        '""',
        kinds.ListenAt(),
        "Where `/metrics` is served; empty: nowhere. A change takes effect at the next start.",
    ),
    Key(
        "log.to",
        '"stderr"',
        kinds.LogTo(),
        "Where the log goes. A file is opened again at SIGHUP and by `fastscreen reopen`.",
        ("maillog_file",),
    ),
    Key(
        "log.ident",
        '"fastscreen"',
        kinds.Ident(),
        "Name in front of each line; with `postfix/postscreen`, tools that read postscreen's log read this one.",
        ("syslog_name",),
    ),
    Key(
        "log.stamps",
        '"traditional"',
        kinds.Choice("traditional", "rfc3339"),
        "Form of the time stamps in a file or on standard error.",
    ),
    Key(
        "log.format",
        '"text"',
        kinds.Choice("text", "json"),
        "Form of the lines: postscreen's, or a JSON object each ([logs.md](logs.md)). A change takes effect at the "
        "next start.",
    ),
    Key(
        "log.respectful",
        "true",
        kinds.Flag(),
        "`ALLOWLISTED`, `DENYLISTED`; false: `WHITELISTED`, `BLACKLISTED`.",
        ("respectful_logging",),
    ),
    Key(
        "log.delay_resolution",
        "2",
        kinds.Number(0, 6),
        "Decimals of delays in `PREGREET` and `HANGUP` lines, at most.",
        ("delay_logging_resolution_limit",),
    ),
    Key(
        "log.address_format",
        '"external"',
        kinds.Choice("external", "internal"),
        "Form of `from=` and `to=`: with quotes where mail needs them, or without.",
        ("info_log_address_format",),
    ),
)
