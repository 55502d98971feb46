"""Parses the log lines of postscreen or fastscreen, dnsblog and tlsproxy (reference 6): blocks of lines become rows.

One regular expression parses a block in one call. Each of its parts is anchored to the previous part, from the start of
the line, so that text from a client, which comes later in a line, cannot fake an event. Repetitions are possessive
where possible (with a `+` after them), so that lines that do not match fail fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from fastscreen.report.formats import PRIORITY, STAMP, normalize

Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""A line: time stamp, zone, program (empty for an ident without one), then one of
verb, number, `[ADDRESS]:PORT`, address, rest of the line;
address, `DOMAIN as ANSWER` of a DNS list's answer;
severity and text; any other text.
Missing parts are empty. All parts are empty for lines of other programs and for text that is not a log line."""


class Kind(IntEnum):
    """The kind of event in a line."""

    CONNECT = 0
    DISCONNECT = 1
    PASS_NEW = 2
    PASS_OLD = 3
    ALLOWLISTED = 4
    DENYLISTED = 5
    VETO = 6
    BYPASSED = 7
    PREGREET = 8
    DNSBL = 9
    PIPELINING = 10
    NON_SMTP = 11
    BARE_NEWLINE = 12
    TIME_LIMIT = 13
    COUNT_LIMIT = 14
    LENGTH_LIMIT = 15
    NO_RCPT = 16
    HANGUP = 17
    REJECT_RCPT = 18
    REJECT_CONNECT = 19
    CONTINUE = 20
    RELAY_LIMIT = 21
    SHADOW = 22
    LISTED = 23
    TLS_CONNECT = 24
    TLS_DISCONNECT = 25
    TLS_FAILED = 26
    STRESS = 27
    CLEANUP = 28
    WARNING = 29
    OTHER = 30


_VERBS: dict[bytes, Kind] = {
    b"CONNECT": Kind.CONNECT,
    b"DISCONNECT": Kind.DISCONNECT,
    b"PASS NEW": Kind.PASS_NEW,
    b"PASS OLD": Kind.PASS_OLD,
    b"ALLOWLISTED": Kind.ALLOWLISTED,
    b"WHITELISTED": Kind.ALLOWLISTED,
    b"DENYLISTED": Kind.DENYLISTED,
    b"BLACKLISTED": Kind.DENYLISTED,
    b"ALLOWLIST VETO": Kind.VETO,
    b"WHITELIST VETO": Kind.VETO,
    b"BYPASSED": Kind.BYPASSED,
    b"PREGREET": Kind.PREGREET,
    b"DNSBL rank": Kind.DNSBL,
    b"DNSBL UNSURE rank": Kind.DNSBL,
    b"HANGUP": Kind.HANGUP,
    b"NOQUEUE: reject: RCPT": Kind.REJECT_RCPT,
    b"NOQUEUE: reject: CONNECT": Kind.REJECT_CONNECT,
    b"reject: connect": Kind.REJECT_CONNECT,
    b"COMMAND PIPELINING": Kind.PIPELINING,
    b"NON-SMTP COMMAND": Kind.NON_SMTP,
    b"BARE NEWLINE": Kind.BARE_NEWLINE,
    b"COMMAND TIME LIMIT": Kind.TIME_LIMIT,
    b"COMMAND COUNT LIMIT": Kind.COUNT_LIMIT,
    b"COMMAND LENGTH LIMIT": Kind.LENGTH_LIMIT,
    b"DATA without valid RCPT": Kind.NO_RCPT,
    b"BDAT without valid RCPT": Kind.NO_RCPT,
    b"CONTINUE": Kind.CONTINUE,
    b"RELAY TIME LIMIT": Kind.RELAY_LIMIT,
    b"SHADOW": Kind.SHADOW,
}
VERBS = {verb: int(kind) for verb, kind in _VERBS.items()}  # plain numbers are faster
"""The beginning of a line about a client, and its Kind."""

FIRST_STAMP = re.compile(rb"^(?:\{\"time\":\")?" + STAMP + rb"[ \"]", re.MULTILINE)
_CLIENT = rb"(\[([0-9a-fA-F.:]{2,45}+)\]:\d{1,5}+)"


def pattern(*names: str) -> re.Pattern[bytes]:
    """The expression for a block of whole lines; `findall` returns a Row for each line.

    It accepts NAME/postscreen, NAME/dnsblog and NAME/tlsproxy with any name (in Postfix `syslog_name`, which may be a
    `multi_instance_name` and may contain the name of a service), and `fastscreen`. names: more idents, such as
    `log.ident` of a configuration.
    """
    idents = b"|".join(re.escape(each.encode()) for each in ("fastscreen", *names) if each)
    program = rb"(?:(?:[^\s\[/]{1,200}+/){1,9}+(postscreen|dnsblog|tlsproxy)|(?:%b))\[\d{1,10}\]: " % idents
    verbs = b"|".join(re.escape(verb) for verb in VERBS)
    texts = (
        rb"(%b)(?: (\d{1,9}))?(?: after \d[\d.]*)?(?: from| for)? %b(.*)" % (verbs, _CLIENT),
        rb"addr ([0-9a-fA-F.:]{2,45}) listed by domain (\S{1,255} as \d[\d.]{6,14})(?=\n)",
        rb"(warning|error|fatal|panic): (.*)",
        rb"(.*)",
    )
    line = rb"%b \S{1,255}+ %b%b(?:%b)\n|.*\n" % (STAMP, PRIORITY, program, b"|".join(texts))
    return re.compile(line)


def reader(*names: str) -> Callable[[bytes], list[Row]]:
    """A function that parses a block of whole lines in any known format. names: as for `pattern`."""
    rows = pattern(*names).findall
    return lambda block: rows(normalize(block))
