"""The one table of configuration keys: default, kind of value, and postscreen's names for the same thing.

The loader, the reload, `docs/configuration.md`, `contrib/fastscreen.toml`, the man page and the import of a main.cf all
read it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fastscreen.config import cluster_kinds, feedback_kinds, history_kinds, kinds, list_kinds, tls_kinds
from fastscreen.config.model import Action
from fastscreen.core import SCORERS, TESTS, Scorer, Test

_TEST = kinds.ActionOf(Action.IGNORE, Action.SHADOW, Action.ENFORCE, Action.DROP)
_DEEP = kinds.ActionOf(Action.OFF, Action.IGNORE, Action.SHADOW, Action.ENFORCE, Action.DROP)
_FILTER = (
    r'"\\t !\"#$%&'
    r"'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
    '"'
)


class Restart(StrEnum):
    """What it takes for a new value of a key to take effect. The text is Markdown; empty: a reload is enough."""

    NOT_NEEDED = ""
    IF_SWITCHED = "With several workers, a change between `0` and another value takes effect after a restart."
    """Any other change takes effect after a reload."""
    NEEDED = "Takes effect after a restart."
    STOP_AND_START = "Takes effect after a stop and a start; `fastscreen restart` is not enough."


class Key(Struct, frozen=True):
    """One key.

    key: `table.key`, or the key alone at the top of the file.
    default: the default as TOML; it loads to the value that an omitted key has.
    kind: how the value is read; for a time, `kind.unit` is the unit of a number without one.
    about: one or two complete sentences, and one for each special value (Markdown).
    parameters: postscreen's names, today's first, then the old ones; empty when postscreen has none.
    parents: what these default to in main.cf, nearest first.
    restart: whether a reload keeps the old value.
    """

    key: str
    default: str
    kind: kinds.Kind
    about: str
    parameters: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    restart: Restart = Restart.NOT_NEEDED

    @property
    def table(self) -> str:
        """The TOML table, empty for the top of the file."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]


TABLES = {
    "": "Name, mode and user of the server.",
    "listen": "Where clients connect.",
    "handoff": "Where clients go after they have passed the tests.",
    "access": "Permanent allow and deny rules, by client address only.",
    "allowlist": "Networks of large senders, which fastscreen takes from their SPF records and writes to a file for "
    "`access.list` ([allowlist.md](allowlist.md)).",
    "denylist": "Networks of domains whose mail is unwanted, also taken from SPF records "
    "([allowlist.md](allowlist.md)).",
    "greet": "The pregreet test, which finds clients that talk before the server has greeted them.",
    "dnsbl": "DNS block lists and allow lists.",
    "deep": "Tests after the greeting. Without `handoff.continue_to`, a new client that passes them gets a 450 reply "
    "and has to connect again.",
    "score": "Evidence from the session, which counts together with the DNS lists ([score.md](score.md)).",
    "engine": "The dummy SMTP engine, which talks to clients during deep tests and after they have failed a test.",
    "tls": "STARTTLS in the dummy SMTP engine ([tls.md](tls.md)). Clients that are handed off use TLS with the MTA.",
    "cache": "The record of clients that have passed.",
    "cluster": "Passes and offenses that several hosts share through a Valkey or Redis server "
    "([cluster.md](cluster.md)).",
    "history": "The history: a record of each session, kept for weeks ([history.md](history.md)).",
    "feedback": "The MTA's log, from which the memory of offenses learns what became of clients that were handed off "
    "([score.md](score.md#feedback-from-the-mtas-log)).",
    "limits": "Limits on connections and sessions.",
    "control": "The control socket, which `fastscreen tui`, `status` and other commands connect to "
    "([control.md](control.md)).",
    "metrics": "Counters for Prometheus ([metrics.md](metrics.md)).",
    "log": "The log.",
}


def _deep_keys(test: Test) -> tuple[Key, Key, Key]:
    """The keys of a deep test, from the core's table of tests (ext/test_table.pyx)."""
    key, parameter = f"deep.{test.key}", f"postscreen_{test.key}"
    return (
        Key(
            key,
            '"off"',
            _DEEP,
            f"Action for clients that {test.about}. `off` disables the test.",
            (f"{parameter}_enable", f"{parameter}_action"),
        ),
        Key(
            f"{key}_after_fail",
            f'"{test.action}"',
            _TEST,
            f"Action for clients that fail the {test.label} test after they have failed another test. It applies only "
            f"while `{key}` is `off`.",
            (f"{parameter}_action",),
        ),
        Key(
            f"{key}_ttl",
            f'"{test.ttl}"',
            kinds.Time("d"),
            f"How long a pass of the {test.label} test stays valid.",
            (f"{parameter}_ttl",),
        ),
    )


def _weight_key(scorer: Scorer) -> Key:
    """The key of a scorer, from the core's table of scorers (ext/score_table.pyx)."""
    about = f"Weight that is added to the score of clients that {scorer.about}. `0` disables the scorer."
    # Once a client is relayed, a lower score no longer helps it.
    least = 0 if scorer.stage == "relay" else -1000
    return Key(f"score.{scorer.key}", "0", kinds.Number(least, 1000), about)


KEYS = (
    Key(
        "mode",
        '"screen"',
        kinds.Choice("screen", "shadow"),
        "With `screen`, clients that fail a test are treated as configured. With `shadow`, clients are tested and "
        "logged as usual, but none is rejected for a failed test; a `SHADOW` line in the log shows the reply that was "
        "withheld ([shadow.md](shadow.md)).",
    ),
    Key(
        "hostname",
        '""',
        kinds.Hostname(),
        "Name of this server in SMTP replies. If the value is empty, the full host name of the machine is used.",
        ("myhostname",),
    ),
    Key(
        "banner",
        '"$hostname ESMTP Postfix"',
        kinds.Banner("$hostname"),
        "Text of the `220` greeting that the dummy SMTP engine sends.",
        ("smtpd_banner",),
    ),
    Key(
        "user",
        '""',
        kinds.Ident(empty=True),
        "User that fastscreen changes to after it has opened its sockets, if it was started as root. If the value is "
        "empty and `handoff.to` or `handoff.doubtful_to` is `pass:`, this is the user `postfix`, if it exists; in all "
        "other cases, an empty value keeps the user that fastscreen was started as.",
        ("mail_owner",),
        restart=Restart.STOP_AND_START,
    ),
    Key(
        "listen.addresses",
        '["0.0.0.0:25", "[::]:25"]',
        kinds.ListOf(kinds.Address(), most=100, distinct=True),
        "Addresses and ports that fastscreen listens on. Port `0` selects any free port. The list may be empty only "
        "if `listen.proxy` has an address.",
    ),
    Key(
        "listen.proxy",
        "[]",
        kinds.ListOf(kinds.ProxyPort(), most=100),
        "Ports for load balancers, which send the client's address in a PROXY protocol header (version 1 or 2) before "
        "any other data. Each entry is a separate `[[listen.proxy]]` table ([proxy.md](proxy.md)).",
        ("postscreen_upstream_proxy_protocol", "postscreen_upstream_proxy_timeout"),
    ),
    Key(
        "listen.workers",
        "1",
        kinds.Workers(),
        "Number of screening processes, among which `limits.pre_queue` and `limits.post_queue` are divided. All "
        "connections from one address (IPv6: from one /64, or from a shorter prefix set in `cache` or `limits`) go to "
        "the same process, so the limits for each client stay exact. `auto` starts one process for each CPU core.",
        restart=Restart.STOP_AND_START,
    ),
    Key(
        "handoff.to",
        '"pass:/var/spool/postfix/private/smtpd"',
        kinds.HandoffTo(),
        "Destination of clients that passed the tests. `pass:` takes the path of the socket of Postfix's `smtpd pass` "
        "service. `proxy:` takes a port of an MTA that reads the PROXY protocol, or several of them "
        "([continue.md](continue.md)). `sink:` is the built-in server, which accepts and discards all mail.",
        ("smtpd_service_name",),
    ),
    Key(
        "handoff.continue_to",
        '""',
        kinds.ProxyTo(optional=True),
        "Port of an MTA that reads the PROXY protocol, or several of them; a client that passes the deep tests "
        "continues there in the same session ([continue.md](continue.md)). If the value is empty, such a client gets "
        "a 450 reply and has to connect again.",
    ),
    Key(
        "handoff.doubtful_to",
        '""',
        kinds.DoubtfulTo(),
        "Destination of new clients that passed the tests with a score of `score.doubtful_from` or more, such as a "
        "port of the MTA with stricter rules ([score.md](score.md#responses)). It takes the same forms as "
        "`handoff.to`, without `sink:`. Sessions that continue go there only if it is `proxy:`. If the value is empty, "
        "these clients go where all others go.",
    ),
    Key(
        "handoff.proxy_version",
        "2",
        kinds.Number(1, 2),
        "Version of the PROXY protocol header that fastscreen sends to MTAs.",
    ),
    Key(
        "handoff.relay_idle_limit",
        '"11m"',
        kinds.Time(),
        "A relayed session ends when neither side has sent data for this time. The default leaves room for clients "
        "that wait 10 minutes for the reply to their message (RFC 5321, section 4.5.3.2.6).",
    ),
    Key(
        "handoff.relay_time_limit",
        '"6h"',
        kinds.Time("h"),
        "Maximum duration of a relayed session.",
    ),
    Key(
        "handoff.continue_time_limit",
        '"120s"',
        kinds.Time(),
        "Time limit for the MTAs in `handoff.continue_to`, all together, to answer the RCPT command of a session that "
        "continues there; after that, the client gets a 450 reply. Clients wait 5 minutes for this reply (RFC 5321, "
        "section 4.5.3.2.3).",
    ),
    Key(
        "access.list",
        '["permit_mynetworks"]',
        kinds.ListOf(kinds.AccessItem()),
        "Permanent allow and deny rules for client addresses; the first rule that decides wins, and a permitted "
        "client is handed off without tests. The result of a table lookup may itself be a list of rules, but it "
        "cannot name further tables.",
        ("postscreen_access_list",),
    ),
    Key(
        "access.mynetworks",
        "[]",
        kinds.ListOf(kinds.Network()),
        "Networks that `permit_mynetworks` permits; unlike Postfix, fastscreen trusts no network by default. An entry "
        "in a `/FILE` that is not a network is skipped with a warning.",
        ("mynetworks",),
    ),
    Key(
        "access.allowlist_interfaces",
        '["0.0.0.0/0", "::/0"]',
        kinds.ListOf(kinds.Network(), least=1),
        "Addresses of this server at which a new client can pass the tests (MX policy). A new client that connects to "
        "another address, such as that of a backup MX, is tested, rejected with a 450 reply, and gets no pass.",
        ("postscreen_allowlist_interfaces", "postscreen_whitelist_interfaces"),
    ),
    Key(
        "access.denylist_action",
        '"ignore"',
        _TEST,
        "Action for clients that `access.list` rejects. With `ignore`, such a client is logged as `DENYLISTED` and "
        "tested like any other.",
        ("postscreen_denylist_action", "postscreen_blacklist_action"),
    ),
    Key(
        "allowlist.groups",
        "[]",
        kinds.ListOf(list_kinds.Group(), distinct=True),
        "Groups of providers whose networks are allowed. `fastscreen allowlist list` shows the members of each group.",
    ),
    Key(
        "allowlist.providers",
        "[]",
        kinds.ListOf(list_kinds.Provider(), distinct=True),
        "Individual providers whose networks are allowed.",
    ),
    Key(
        "allowlist.domains",
        "[]",
        kinds.ListOf(list_kinds.Domain(), most=500, distinct=True),
        "Other domains whose networks are allowed.",
    ),
    Key(
        "allowlist.exclude",
        "[]",
        kinds.ListOf(list_kinds.Provider(domains=True), distinct=True),
        "Providers and domains that are excluded, even if another key of this table selects them.",
    ),
    Key(
        "allowlist.path",
        '"/var/lib/fastscreen/allowlist.cidr"',
        kinds.FilePath(),
        "File that the networks are written to, in a directory that belongs to fastscreen's user. It takes effect "
        "only if `access.list` names it as `cidr:` followed by this path. An empty value disables the file.",
    ),
    Key(
        "allowlist.interval",
        '"1d"',
        kinds.Time("h", 0),
        "Interval between refreshes of this file and that of `denylist` by the running daemon, plus up to 10 % random "
        "jitter. `0` disables these refreshes; `fastscreen allowlist refresh` is then the only way to update the "
        "files.",
    ),
    Key(
        "denylist.domains",
        "[]",
        kinds.ListOf(list_kinds.Domain(), most=500, distinct=True),
        "Domains whose networks are denied.",
    ),
    Key(
        "denylist.path",
        '"/var/lib/fastscreen/denylist.cidr"',
        kinds.FilePath(),
        "File that the networks are written to, in a directory that belongs to fastscreen's user. It takes effect "
        "only if `access.list` names it as `cidr:` followed by this path. An empty value disables the file.",
    ),
    Key(
        "greet.banner",
        '"$banner"',
        kinds.Banner("$hostname and $banner", empty=True),
        "Text of the teaser, the first `220-` line of the greeting, after which a correct client waits for the rest. "
        "An empty value disables the pregreet test.",
        ("postscreen_greet_banner",),
        ("smtpd_banner",),
    ),
    Key(
        "greet.wait",
        '"6s"',
        kinds.Time(),
        "Time that a client under test must stay silent before fastscreen completes the greeting. This is also the "
        "time limit for DNS lists to answer: answers that arrive later do not change the verdict.",
        ("postscreen_greet_wait",),
    ),
    Key(
        "greet.stress_wait",
        '"2s"',
        kinds.Time(),
        "Time that a client under test must stay silent under stress, in place of `greet.wait`. Stress begins when "
        "nine tenths of `limits.pre_queue` are in use, and ends at seven tenths.",
        ("postscreen_greet_wait",),
    ),
    Key(
        "greet.action",
        '"ignore"',
        _TEST,
        "Action for clients that fail the pregreet test because they send data too early.",
        ("postscreen_greet_action",),
    ),
    Key(
        "greet.ttl",
        '"1d"',
        kinds.Time("d"),
        "How long a pass of the pregreet test stays valid.",
        ("postscreen_greet_ttl",),
    ),
    Key(
        "dnsbl.sites",
        "[]",
        kinds.ListOf(kinds.SitePattern()),
        "DNS lists to query, each written as `domain[=filter][*weight]`. A filter selects the answers that count; the "
        "weight is 1 if it is omitted, and negative for an allow list. An empty list disables the DNSBL test.",
        ("postscreen_dnsbl_sites",),
    ),
    Key(
        "dnsbl.threshold",
        "1",
        kinds.Number(1),
        "Clients with this score or a higher one fail: the DNSBL test if the DNS lists alone reach it, or the score "
        "test ([score.md](score.md)).",
        ("postscreen_dnsbl_threshold",),
    ),
    Key(
        "dnsbl.allowlist_threshold",
        "0",
        kinds.Number(-kinds.MAX_INT),
        "If this is negative, clients with this DNSBL score or a lower one skip all other tests. `0` or a higher "
        "value disables this.",
        ("postscreen_dnsbl_allowlist_threshold", "postscreen_dnsbl_whitelist_threshold"),
    ),
    Key(
        "dnsbl.action",
        '"ignore"',
        _TEST,
        "Action for clients that fail the DNSBL test. `score.action` is that of the score test.",
        ("postscreen_dnsbl_action",),
    ),
    Key(
        "dnsbl.reply_map",
        '""',
        kinds.TableName(optional=True),
        "Table that maps the domain of a DNS list to the name shown in SMTP replies, to keep query keys secret. If "
        "the value is empty, replies show the domain itself.",
        ("postscreen_dnsbl_reply_map",),
    ),
    Key(
        "dnsbl.timeout",
        '"10s"',
        kinds.Time(),
        "Time limit for a single DNSBL lookup. A value above `greet.wait` does not make clients wait longer.",
        ("postscreen_dnsbl_timeout",),
    ),
    Key(
        "dnsbl.min_ttl",
        '"60s"',
        kinds.Time(),
        "Lower limit for how long a DNSBL pass stays valid, which depends on the TTL of the DNS answers.",
        ("postscreen_dnsbl_min_ttl",),
    ),
    Key(
        "dnsbl.max_ttl",
        '"1h"',
        kinds.Time("h"),
        "Upper limit for how long a DNSBL pass stays valid, which depends on the TTL of the DNS answers.",
        ("postscreen_dnsbl_max_ttl", "postscreen_dnsbl_ttl"),
    ),
    Key(
        "dnsbl.resolvers",
        "[]",
        kinds.ListOf(kinds.Address(53)),
        "DNS resolvers to query, in order of preference. An empty list selects those in `/etc/resolv.conf`, which is "
        "read again every 10 seconds.",
    ),
    Key(
        "dnsbl.probe_interval",
        '"5m"',
        kinds.Time("s", 0),
        "Interval between probes of each DNS list, which query its test entries. A list that is found unhealthy is "
        "neither queried nor counted until it is healthy again; a client that would be rejected only because of a list "
        "whose hits have suddenly risen is deferred ([lists.md](lists.md)). `0` disables all of this.",
    ),
    *(key for test in TESTS if test.stage == "dialogue" and not test.own for key in _deep_keys(test)),
    Key(
        "score.action",
        '"shadow"',
        _TEST,
        "Action for clients that fail the score test. The default only logs what would have been replied "
        "([shadow.md](shadow.md)).",
    ),
    Key(
        "score.ttl",
        '"30d"',
        kinds.Time("d"),
        "How long a pass of the score test stays valid. The test is enabled if at least one weight in this table, or "
        "`score.defer_from`, is not `0`.",
    ),
    *(_weight_key(scorer) for scorer in SCORERS[1:]),
    Key(
        "score.rcpt_many_from",
        "20",
        kinds.Number(2, 65535),
        "Number of RCPT commands in a session from which `score.rcpt_many` applies.",
    ),
    Key(
        "score.defer_from",
        "0",
        kinds.Number(0),
        "A new client with this score or a higher one, but below `dnsbl.threshold`, is deferred once with a 450 reply, "
        "also if it would continue with `handoff.continue_to`. It is admitted if it connects again after 60 seconds or "
        "more, and within two days ([score.md](score.md#responses)). `0` disables this.",
    ),
    Key(
        "score.doubtful_from",
        "0",
        kinds.Number(0),
        "New clients that pass the tests with this score or a higher one go to `handoff.doubtful_to`. `0` disables "
        "this.",
    ),
    Key(
        "score.slow_from",
        "0",
        kinds.Number(0),
        "The dummy SMTP engine replies slowly to clients with this score or a higher one. `0` disables this.",
    ),
    Key(
        "score.slow_by",
        '"1s"',
        kinds.Time(),
        "Delay of each reply to these clients, at most 30 seconds. All replies of a session together are delayed by 30 "
        "seconds at most.",
    ),
    Key(
        "score.memory",
        '""',
        kinds.FilePath(),
        "File of the memory of offenses, such as `/var/lib/fastscreen/offenses`: what addresses and networks did in "
        "the past weeks ([score.md](score.md#the-memory-of-offenses)). An empty value disables it; `seen_address`, "
        "`seen_network` and `seen_as` need it.",
        restart=Restart.NEEDED,
    ),
    Key(
        "score.memory_half_life",
        '"14d"',
        kinds.Time("d", least=86400),
        "After this time, an offense weighs half as much as before. Addresses count for two half-lives after a single "
        "offense, and for almost five after many.",
    ),
    Key(
        "score.memory_max_entries",
        "1_000_000",
        kinds.Number(1000, 100_000_000),
        "Maximum number of networks and autonomous systems in the memory. When there are more, those with the lightest "
        "and oldest records are dropped. A million entries take 100 to 150 MB on disk.",
    ),
    Key(
        "score.seen_min",
        "3",
        kinds.Number(1, 256),
        "How many other addresses of a network must be bad before `seen_network` applies. `seen_as` applies from ten "
        "times as many addresses of an autonomous system.",
    ),
    Key(
        "score.seen_as_share",
        "90",
        kinds.Number(1, 100),
        "Percentage of the known addresses of an autonomous system that must be bad before `seen_as` applies.",
    ),
    Key(
        "score.as_half_life",
        '"90d"',
        kinds.Time("d", least=86400),
        "After this time, what is remembered of an autonomous system weighs half as much as before. Autonomous systems "
        "change hands less often than addresses.",
    ),
    Key(
        "score.as_file",
        '""',
        kinds.FilePath(),
        "File that says which autonomous system (AS) an address belongs to, for `seen_as`: lines of the form "
        "`first,last,number` or `network,number`, or a database in MaxMind's format with a name that ends in `.mmdb`. "
        "Changes of the file are applied automatically. An empty value disables `seen_as`.",
    ),
    Key(
        "engine.forbidden_commands",
        '["CONNECT", "GET", "POST", "regexp:{{/^[^A-Z]/ Bogus}}"]',
        kinds.ListOf(kinds.Word()),
        "Words that fail the non-SMTP command test when a client sends them as a command. A command that the dummy "
        "SMTP engine knows never fails the test.",
        ("postscreen_forbidden_commands",),
        ("smtpd_forbidden_commands",),
    ),
    Key(
        "engine.command_count_limit",
        "20",
        kinds.Number(1),
        "Maximum number of commands in one session with the dummy SMTP engine. The next command ends the session with "
        "a 421 reply, unless it is QUIT.",
        ("postscreen_command_count_limit",),
    ),
    Key(
        "engine.command_time_limit",
        '"300s"',
        kinds.Time(),
        "Time limit for a client to send one command line.",
        ("postscreen_command_time_limit",),
    ),
    Key(
        "engine.stress_command_time_limit",
        '"10s"',
        kinds.Time(),
        "Time limit for a client to send one command line under stress, in place of `engine.command_time_limit`. "
        "Stress begins when nine tenths of `limits.pre_queue` are in use, and ends at seven tenths.",
        ("postscreen_command_time_limit",),
    ),
    Key(
        "engine.line_length_limit",
        "2048",
        kinds.Number(512, 16384),
        "Maximum length of a command line, in bytes.",
        ("line_length_limit",),
    ),
    Key(
        "engine.command_filter",
        '""',
        kinds.TableName(optional=True),
        "Table that rewrites command lines before they are interpreted. An empty value disables rewriting.",
        ("postscreen_command_filter",),
    ),
    Key(
        "engine.helo_required",
        "false",
        kinds.Flag(),
        "Whether clients must send HELO or EHLO before MAIL or ETRN.",
        ("postscreen_helo_required",),
        ("smtpd_helo_required",),
    ),
    Key(
        "engine.disable_vrfy_command",
        "false",
        kinds.Flag(),
        "Whether VRFY is rejected with a 502 reply.",
        ("postscreen_disable_vrfy_command",),
        ("disable_vrfy_command",),
    ),
    Key(
        "engine.announce_vrfy",
        "true",
        kinds.Flag(),
        "Whether the reply to EHLO announces VRFY. If the key is omitted, VRFY is announced unless "
        "`engine.disable_vrfy_command` is true.",
        ("disable_vrfy_command",),
    ),
    Key(
        "engine.discard_ehlo_keywords",
        "[]",
        kinds.ListOf(kinds.Text()),
        "Keywords that are omitted from the reply to EHLO. The special keyword `silent-discard` suppresses the log "
        "line about that.",
        ("postscreen_discard_ehlo_keywords",),
        ("smtpd_discard_ehlo_keywords",),
    ),
    Key(
        "engine.discard_ehlo_keyword_address_maps",
        "[]",
        kinds.ListOf(kinds.TableName()),
        "Tables that map a client address to keywords that are omitted from the reply to EHLO. A match replaces "
        "`engine.discard_ehlo_keywords` for that client.",
        ("postscreen_discard_ehlo_keyword_address_maps",),
        ("smtpd_discard_ehlo_keyword_address_maps",),
    ),
    Key(
        "engine.message_size_limit",
        "10240000",
        kinds.Number(0, 2**63 - 1),
        "Maximum message size, in bytes, that the reply to EHLO announces. `0` announces the SIZE keyword without a "
        "limit.",
        ("message_size_limit",),
    ),
    Key(
        "engine.smtputf8",
        "true",
        kinds.Flag(),
        "Whether the reply to EHLO announces SMTPUTF8. If it does, a command name that is not valid UTF-8 also fails "
        "the non-SMTP command test.",
        ("smtputf8_enable",),
    ),
    Key(
        "engine.soft_bounce",
        "false",
        kinds.Flag(),
        "Whether every 5xx reply is changed to a 4xx reply.",
        ("soft_bounce",),
    ),
    Key(
        "engine.reject_footer",
        '""',
        kinds.Text(),
        r"Text that is appended to 4xx and 5xx replies. `\n` starts a new line, and `\c` at the beginning continues "
        "the last line of the reply; `$client_address`, `$client_port`, `$localtime` and `$server_name` are replaced "
        "with their values.",
        ("postscreen_reject_footer",),
        ("smtpd_reject_footer",),
    ),
    Key(
        "engine.reject_footer_maps",
        "[]",
        kinds.ListOf(kinds.TableName()),
        "Tables that map the text of a reply to a footer. A match replaces `engine.reject_footer` for that reply.",
        ("postscreen_reject_footer_maps",),
        ("smtpd_reject_footer_maps",),
    ),
    Key(
        "engine.expansion_filter",
        _FILTER,
        kinds.Octets(),
        "Characters that are allowed in the values that replace `$name` in a footer. All other characters become `_`.",
        ("postscreen_expansion_filter",),
        ("smtpd_expansion_filter",),
    ),
    Key(
        "tls.level",
        '"none"',
        kinds.Choice("none", "may", "encrypt"),
        "Whether clients under test can use STARTTLS: `none` does not offer it, `may` offers it, and `encrypt` "
        "requires it.",
        ("postscreen_tls_security_level",),
        ("smtpd_tls_security_level",),
    ),
    Key(
        "tls.certificates",
        "[]",
        kinds.ListOf(tls_kinds.PemFile(), most=20),
        "PEM files with private keys and their certificate chains, each key before its chain. If fastscreen is started "
        "as root, only root needs to be able to read them: they are read before fastscreen changes its user, and a "
        "helper process that keeps this right reads them again at a reload ([tls.md](tls.md)).",
        ("postscreen_tls_chain_files", "tlsproxy_tls_chain_files"),
        ("smtpd_tls_chain_files",),
    ),
    Key(
        "tls.protocols",
        '">=TLSv1.2"',
        tls_kinds.Protocols(),
        "TLS versions that are accepted. The system's OpenSSL configuration may restrict them further.",
        ("postscreen_tls_protocols", "tlsproxy_tls_protocols"),
        ("smtpd_tls_protocols",),
    ),
    Key(
        "tls.ciphers",
        '"DEFAULT"',
        kinds.Text("a cipher list in OpenSSL's format (see `man openssl-ciphers`)", 1000),
        "Ciphers for TLS 1.2 and older versions. The ciphers for TLS 1.3 are always those of OpenSSL.",
        ("tls_medium_cipherlist",),
    ),
    Key(
        "tls.sessions",
        "1000",
        kinds.Number(1, 100000),
        "Maximum number of simultaneous TLS sessions, including relayed ones, divided among the workers. Further "
        "clients get a `454` reply to STARTTLS.",
    ),
    Key(
        "tls.handshakes",
        "100",
        kinds.Number(1, 10000),
        "Maximum number of simultaneous TLS handshakes in one TLS process. Further clients wait.",
    ),
    Key(
        "tls.handshake_time",
        '"30s"',
        kinds.Time(),
        "Time limit for a TLS handshake, including the time that the client waits for it to begin.",
        ("postscreen_starttls_timeout",),
        ("smtpd_starttls_timeout",),
    ),
    Key(
        "tls.processes",
        "1",
        kinds.Number(1, 64),
        "Number of TLS processes. They run at a lower priority than the screening processes.",
        restart=Restart.NEEDED,
    ),
    Key(
        "tls.log_level",
        "0",
        kinds.Number(0, 1),
        "With `1`, the log shows the protocol and cipher of each TLS handshake, or the reason for its failure. `0` "
        "disables these lines.",
        ("postscreen_tls_loglevel", "tlsproxy_tls_loglevel"),
        ("smtpd_tls_loglevel",),
    ),
    Key(
        "cache.path",
        '"/var/lib/fastscreen/cache"',
        kinds.FilePath(),
        "File of the cache; its directory is created if it does not exist. An empty value disables the cache, so that "
        "clients are tested each time they connect.",
        ("postscreen_cache_map",),
        restart=Restart.NEEDED,
    ),
    Key(
        "cache.cleanup_interval",
        '"12h"',
        kinds.Time("h", 0),
        "Interval between removals of expired entries. `0` disables them.",
        ("postscreen_cache_cleanup_interval",),
    ),
    Key(
        "cache.retention",
        '"7d"',
        kinds.Time("d"),
        "How long an expired entry stays in the cache. A client that returns within this time is tested again, but is "
        "logged as `PASS OLD` instead of `PASS NEW` when it passes.",
        ("postscreen_cache_retention_time",),
    ),
    Key(
        "cache.max_size",
        '"1G"',
        kinds.Size("1M", "1024G"),
        "Upper limit for the size of the cache file, in bytes or with the unit `K`, `M` or `G` (powers of 1024); 1 "
        "GiB holds about 7 million clients. When the file is nearly full, expired entries are dropped first, then "
        "those that expire first. The file never shrinks, but the space of dropped entries is reused.",
    ),
    Key(
        "cache.keep_free",
        "5",
        kinds.Number(0, 90),
        "Percentage of the file system that the cache leaves free, for example for the mail queue. When less space is "
        "free, the file does not grow; entries are dropped as with `cache.max_size`. `0` disables this limit.",
    ),
    Key(
        "cache.prefix_ipv4",
        "32",
        kinds.Number(8, 32),
        "Number of leading bits of an IPv4 address that identify a client in the cache. With `24`, all addresses of a "
        "/24 network share one entry, so that a sender with many addresses is not tested for each of them.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cache.prefix_ipv6",
        "64",
        kinds.Number(16, 128),
        "Number of leading bits of an IPv6 address that identify a client in the cache. The default treats a /64 "
        "network as one client, because a host can use any address in it. `128` identifies each address separately, "
        "as postscreen does.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.server",
        '""',
        cluster_kinds.ServerUrl(),
        "URL of the server: `valkey://HOST:PORT`, or `valkeys://` for TLS; `redis://` and `rediss://` mean the same. "
        "`unix:///PATH` is a local socket. `/NUMBER` at the end selects a database. An empty value disables the "
        "cluster, unless `cluster.sentinels` is set.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.sentinels",
        "[]",
        kinds.ListOf(cluster_kinds.Sentinel(), most=16, distinct=True),
        "Sentinels that know which server is the primary, each a host name or an address, with port 26379 unless "
        "another is given. They take the place of `cluster.server`.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.master",
        '""',
        kinds.Ident(empty=True),
        "Name that the Sentinels have for the primary. It is needed if `cluster.sentinels` is set.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.password_file",
        '""',
        kinds.FilePath(),
        "File with the password for the server, or with `USER:PASSWORD`. It is read at startup. An empty value means "
        "that the server needs no password.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.ca_file",
        '""',
        kinds.FilePath(),
        "PEM file with the certificates of the authorities that may have issued the server's certificate. An empty "
        "value selects those of the system. With Sentinels, the file makes all connections use TLS.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.prefix",
        '"fastscreen:"',
        cluster_kinds.KeyPrefix(),
        "First characters of every key in the server. Clusters that share a server need different prefixes.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.name",
        '""',
        cluster_kinds.HostLabel(),
        "Name of this host in the cluster; each host needs a different one. An empty value stands for `hostname`.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.secret_file",
        '""',
        kinds.FilePath(),
        "File with the secret that all hosts of the cluster have in common, a line of at least 16 characters. A second "
        "line may have the previous secret, which is still accepted. Records that are not signed with one of them are "
        "ignored. It is needed if the cluster is enabled, and read at startup.",
        restart=Restart.NEEDED,
    ),
    Key(
        "cluster.budget",
        '"1s"',
        kinds.Time(),
        "How long a new client's pass may take to arrive from the server. A later answer is ignored.",
    ),
    Key(
        "cluster.share",
        '["passes"]',
        kinds.ListOf(kinds.Choice(*cluster_kinds.KINDS), distinct=True),
        "Kinds of records that this host stores in the server. `offenses` are changes of its memory of offenses "
        "(`score.memory`).",
    ),
    Key(
        "cluster.accept",
        '["passes"]',
        kinds.ListOf(kinds.Choice(*cluster_kinds.KINDS), distinct=True),
        "Kinds of records of other hosts that this host uses. `offenses` are read together with the pass of a new "
        "client, and added to the memory of offenses (`score.memory`).",
    ),
    Key(
        "history.path",
        '""',
        kinds.FilePath(),
        "Directory of the history, such as `/var/lib/fastscreen/history`; it is created if it does not exist. An empty "
        "value disables the history.",
        restart=Restart.NEEDED,
    ),
    Key(
        "history.keep",
        '"30d"',
        kinds.Time("d"),
        "How long sessions are kept. Those of a day are deleted together, when the whole day is older than this.",
    ),
    Key(
        "history.max_size",
        '"4G"',
        kinds.Size("16M", "1024G"),
        "Upper limit for the size of all files of the history, in bytes or with the unit `K`, `M` or `G` (powers of "
        "1024); 1 GiB holds about 8 million sessions. The oldest sessions are deleted first, in steps of an eighth of "
        "this size.",
    ),
    Key(
        "history.known",
        '"all"',
        history_kinds.Known(),
        "Which sessions of known clients (`PASS OLD` from the cache) are recorded. With `sample 1/10`, every tenth is "
        "recorded and counts as ten. `none` records none of them.",
    ),
    Key(
        "history.mask",
        '""',
        history_kinds.Mask(),
        "How many leading bits of a client's IPv4 and IPv6 address are recorded, for privacy. The other bits become "
        "zero, also where the HELO name is an address literal, so that clients of one network can no longer be "
        "distinguished. An empty value records whole addresses.",
    ),
    Key(
        "feedback.log",
        '""',
        feedback_kinds.LogSource(),
        "Log of the MTA, such as `/var/log/mail.log`, or `journal` for systemd's journal. fastscreen's user must be "
        "allowed to read it. It needs `score.memory`. An empty value disables feedback.",
    ),
    Key(
        "feedback.spam",
        '""',
        feedback_kinds.SpamExpression(),
        "Regular expression for lines of this log that call a message spam. It is matched from the name of the program "
        "on, and its groups name the message: `(?P<queue>...)` its queue ID, or `(?P<address>...)` and `(?P<port>...)` "
        "the client. One line may take at most 5 ms. If the value is empty, there are no such lines.",
    ),
    Key(
        "limits.client_connection_count",
        "50",
        kinds.Number(0),
        "Maximum number of simultaneous connections from one client; further ones get a 421 reply. `0` disables the "
        "limit.",
        ("postscreen_client_connection_count_limit",),
        ("smtpd_client_connection_count_limit",),
    ),
    Key(
        "limits.client_connection_prefix_ipv4",
        "32",
        kinds.Number(8, 32),
        "Number of leading bits of an IPv4 address that identify a client for `limits.client_connection_count` and "
        "`limits.client_connection_rate`.",
        restart=Restart.NEEDED,
    ),
    Key(
        "limits.client_connection_prefix_ipv6",
        "64",
        kinds.Number(16, 128),
        "Number of leading bits of an IPv6 address that identify a client for `limits.client_connection_count` and "
        "`limits.client_connection_rate`. `128` identifies each address separately, as postscreen does; a host can "
        "then evade the limits by changing its address within a /64.",
        restart=Restart.NEEDED,
    ),
    Key(
        "limits.client_connection_rate",
        "0",
        kinds.Number(0, 1000000),
        "Maximum number of connections per minute from one client; further ones get a 421 reply. Clients that "
        "`access.list` permits or that the cache knows are neither counted nor limited. `0` disables the limit.",
    ),
    Key(
        "limits.client_network_rate",
        "0",
        kinds.Number(0, 1000000),
        "Maximum number of connections per minute from all clients of one network (IPv4 /24 or IPv6 /48) together; "
        "further ones get a 421 reply. Clients that `access.list` permits or that the cache knows are neither counted "
        "nor limited. `0` disables the limit.",
        restart=Restart.IF_SWITCHED,
    ),
    Key(
        "limits.pre_queue",
        "0",
        kinds.Number(10, also=0),
        "Maximum number of simultaneous sessions under test; further clients that need tests get a 421 reply. `0` "
        "derives it from the limit on open files.",
        ("postscreen_pre_queue_limit",),
        ("default_process_limit",),
    ),
    Key(
        "limits.post_queue",
        "100",
        kinds.Number(5),
        "Maximum number of simultaneous hand-offs to the MTA; while they are in progress, new connections get a 421 "
        "reply.",
        ("postscreen_post_queue_limit",),
        ("default_process_limit",),
    ),
    Key(
        "limits.relay",
        "0",
        kinds.Number(1, also=0),
        "Maximum number of simultaneous relayed sessions, including those that wait for an MTA to answer. `0` derives "
        "it from the limit on open files, of which each session needs two.",
    ),
    Key(
        "control.path",
        '"/run/fastscreen/control"',
        kinds.FilePath(),
        "Path of the control socket; its directory is created if it does not exist. An empty value disables the "
        "control socket.",
        restart=Restart.NEEDED,
    ),
    Key(
        "control.group",
        '""',
        kinds.Ident(empty=True),
        "Group whose members may read from the control socket; only root and fastscreen's user may also act. If the "
        "value is empty, this is the primary group of fastscreen's user.",
        restart=Restart.STOP_AND_START,
    ),
    Key(
        "control.names",
        "true",
        kinds.Flag(),
        "Whether the host names of clients are looked up (PTR records, confirmed by a forward lookup) while somebody "
        "views these clients.",
    ),
    Key(
        "metrics.listen",
        '""',
        kinds.ListenAt(),
        "Address and port, or path of a Unix socket, at which `/metrics` is served. An empty value disables metrics.",
        restart=Restart.NEEDED,
    ),
    Key(
        "log.to",
        '"stderr"',
        kinds.LogTo(),
        "Destination of the log. A log file is opened again on SIGHUP and by `fastscreen reopen`.",
        ("maillog_file",),
        restart=Restart.NEEDED,
    ),
    Key(
        "log.ident",
        '"fastscreen"',
        kinds.Ident(),
        "Program name at the beginning of each log line. With `postfix/postscreen`, tools that read postscreen's log "
        "can read this one too.",
        ("syslog_name",),
        restart=Restart.NEEDED,
    ),
    Key(
        "log.stamps",
        '"traditional"',
        kinds.Choice("traditional", "rfc3339"),
        "Format of the time stamps in a log file or on standard error.",
        restart=Restart.NEEDED,
    ),
    Key(
        "log.format",
        '"text"',
        kinds.Choice("text", "json"),
        "Format of the log lines: `text` is postscreen's own, and `json` writes one JSON object per line "
        "([logs.md](logs.md)).",
        restart=Restart.NEEDED,
    ),
    Key(
        "log.respectful",
        "true",
        kinds.Flag(),
        "Whether log lines say `ALLOWLISTED` and `DENYLISTED`. If this is false, they say `WHITELISTED` and "
        "`BLACKLISTED`.",
        ("respectful_logging",),
    ),
    Key(
        "log.delay_resolution",
        "2",
        kinds.Number(0, 6),
        "Maximum number of decimal places of the delays in `PREGREET` and `HANGUP` lines.",
        ("delay_logging_resolution_limit",),
        restart=Restart.NEEDED,
    ),
    Key(
        "log.address_format",
        '"external"',
        kinds.Choice("external", "internal"),
        "Format of the mail addresses in `from=` and `to=`. `external` quotes the local part where SMTP requires it "
        "(RFC 5321, section 4.1.2); `internal` writes it without quotes.",
        ("info_log_address_format",),
    ),
)
