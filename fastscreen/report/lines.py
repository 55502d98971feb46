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

from fastscreen.core import TESTS
from fastscreen.report.formats import PRIORITY, STAMP, normalize

Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""A line: time stamp, zone, program (empty for an ident without one), then one of
verb, number, `[ADDRESS]:PORT`, address, rest of the line;
address, `DOMAIN as ANSWER` of a DNS list's answer;
severity and text; any other text.
Missing parts are empty. All parts are empty for lines of other programs and for text that is not a log line."""


class Kind(IntEnum):
    """The kind of event in a line, unless it is a failed test."""

    CONNECT = 0
    DISCONNECT = 1
    PASS_NEW = 2
    PASS_OLD = 3
    ALLOWLISTED = 4
    DENYLISTED = 5
    VETO = 6
    BYPASSED = 7
    TIME_LIMIT = 8
    COUNT_LIMIT = 9
    LENGTH_LIMIT = 10
    NO_RCPT = 11
    HANGUP = 12
    REJECT_RCPT = 13
    REJECT_CONNECT = 14
    CONTINUE = 15
    RELAY_LIMIT = 16
    SHADOW = 17
    LISTED = 18
    TLS_CONNECT = 19
    TLS_DISCONNECT = 20
    TLS_FAILED = 21
    STRESS = 22
    CLEANUP = 23
    WARNING = 24
    OTHER = 25
    EVIDENCE = 26
    SCORE_DEFERRED = 27
    DOUBTFUL = 28
    SLOWED = 29


TEST_KINDS = {test.key: number for number, test in enumerate(TESTS, len(Kind))}
"""The same for lines of failed tests, by test."""

KIND_NAMES = (*(kind.name.lower() for kind in Kind), *TEST_KINDS)

_VERBS: dict[bytes, int] = {
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
    b"HANGUP": Kind.HANGUP,
    b"NOQUEUE: reject: RCPT": Kind.REJECT_RCPT,
    b"NOQUEUE: reject: CONNECT": Kind.REJECT_CONNECT,
    b"reject: connect": Kind.REJECT_CONNECT,
    b"COMMAND TIME LIMIT": Kind.TIME_LIMIT,
    b"COMMAND COUNT LIMIT": Kind.COUNT_LIMIT,
    b"COMMAND LENGTH LIMIT": Kind.LENGTH_LIMIT,
    b"DATA without valid RCPT": Kind.NO_RCPT,
    b"BDAT without valid RCPT": Kind.NO_RCPT,
    b"CONTINUE": Kind.CONTINUE,
    b"RELAY TIME LIMIT": Kind.RELAY_LIMIT,
    b"SHADOW": Kind.SHADOW,
    b"SCORE": Kind.EVIDENCE,
    b"DEFERRED": Kind.SCORE_DEFERRED,
    b"DOUBTFUL": Kind.DOUBTFUL,
    b"SLOWED": Kind.SLOWED,
    **{test.log_words.encode(): TEST_KINDS[test.key] for test in TESTS},
    **{test.log_words.replace(" rank", " UNSURE rank").encode(): TEST_KINDS[test.key] for test in TESTS},
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
