"""Other forms of log lines, made what `lines` reads: RFC 5424, journalctl's JSON, fastscreen's own JSON, lines that the
syslog daemon has counted instead of written.

Each is known by what stands at the beginning of a line or behind its ident: what clients said is further on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder

STAMP = rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?"

MOST_REPEATED = 1_000
"""A line that the daemon has counted is counted so often at most: a block of such lines has to fit into memory."""

_HEAD = rb"%b \S{1,255}+ [\w./-]{1,120}+\[\d{1,10}\]: " % STAMP
_OWN = b'{"time":"'
_OWN_LINE = re.compile(rb"^(?:%b)?(\{\"time\":\".*\})$" % _HEAD, re.MULTILINE)
_JOURNAL = b'"__REALTIME_TIMESTAMP"'
_JOURNAL_LINE = re.compile(rb"^\{.*\}$", re.MULTILINE)
# <PRI>VERSION STAMP HOST APP-NAME PROCID MSGID STRUCTURED-DATA MSG; rsyslog leaves a second space before MSG
_DATA = rb"(?:-|(?:\[(?:[^\]\\]|\\.)*+\])++)"
_RFC5424_LINE = re.compile(
    rb"^<\d{1,3}>1 (\S{1,40}+ \S{1,255}+ [\w./-]{1,120}+) (?:(\d{1,10})|-) \S{1,32}+ %b ++(?:\xef\xbb\xbf)?" % _DATA,
    re.MULTILINE,
)
_PRIORITY = re.compile(rb"^<\d{1,3}>(?=[A-Z\d])", re.MULTILINE)
_REPEATED = b"]: message repeated "
_REPEATED_LINE = re.compile(rb"^(%b)message repeated (\d{1,9}) times: \[ (.*)\]$" % _HEAD, re.MULTILINE)


class _Own(Struct):
    time: str
    host: str
    program: str
    pid: int
    message: str


class _Entry(Struct):
    """What journald knows of a line; a message that is no UTF-8 is a list of octets."""

    when: str = field(name="__REALTIME_TIMESTAMP")
    program: str = field(name="SYSLOG_IDENTIFIER")
    message: str | list[int] = field(name="MESSAGE")
    host: str = field(name="_HOSTNAME", default="-")
    pid: str = field(name="SYSLOG_PID", default="")
    own_pid: str = field(name="_PID", default="0")


_OWN_OBJECTS = Decoder(_Own)
_ENTRIES = Decoder(_Entry)


def usual(block: bytes) -> bytes:
    """Whole lines in the form of a log file. What is in none of these forms stays as it is."""
    if b"\r" in block:  # quicker to find than two octets
        block = block.replace(b"\r\n", b"\n")
    if _JOURNAL in block:
        block = _JOURNAL_LINE.sub(_safely(_of_journal), block)
    # A file is of one form, or of another from some line on; to look for these in every line would take twice as long.
    if block.startswith(b"<") or block.startswith(b"<", block.rfind(b"\n", 0, -1) + 1):
        block = _PRIORITY.sub(b"", _RFC5424_LINE.sub(_of_rfc5424, block))
    if _OWN in block:
        block = _OWN_LINE.sub(_safely(_of_own), block)
    if _REPEATED in block:
        block = _REPEATED_LINE.sub(_of_repeated, block)
    return block


def _safely(make: Callable[[re.Match[bytes]], bytes]) -> Callable[[re.Match[bytes]], bytes]:
    """A line that only looks like an object stays as it is."""

    def made(line: re.Match[bytes]) -> bytes:
        try:
            return make(line).replace(b"\n", b"?")
        except (DecodeError, ValueError, OverflowError):
            return line[0]

    return made


def _of_own(line: re.Match[bytes]) -> bytes:
    found = _OWN_OBJECTS.decode(line[3])
    return f"{found.time} {found.host} {found.program}[{found.pid}]: {found.message}".encode()


def _of_journal(line: re.Match[bytes]) -> bytes:
    found = _ENTRIES.decode(line[0])
    when = datetime.fromtimestamp(int(found.when) // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = found.message.encode() if isinstance(found.message, str) else bytes(found.message)
    return f"{when} {found.host} {found.program}[{found.pid or found.own_pid}]: ".encode() + said


def _of_rfc5424(line: re.Match[bytes]) -> bytes:
    return b"%b[%b]: " % (line[1], line[2] or b"0")


def _of_repeated(line: re.Match[bytes]) -> bytes:
    """So often as it says: the first of them was written before."""
    times = min(int(line[4]), MOST_REPEATED)
    return b"\n".join([line[1] + line[5]] * times)
