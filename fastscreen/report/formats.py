"""Converts other log formats to the one that `lines` reads: RFC 5424, the JSON of journalctl and of fastscreen, what
container tools add to a line, and `message repeated N times` of syslog daemons.

Formats are recognized by the beginning of a line or the text right after the ident, never by text from clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder

STAMP = rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?"

PRIORITY = rb"(?:[a-z]\w{1,9}\.[a-z]{3,7} )?+"
"""Facility and severity before the ident: `mail.info`, as written by BusyBox's syslogd and OpenWrt's logread."""

MAX_REPEATED = 1_000
"""Upper limit for how often a repeated line counts, because the expanded block has to fit into memory."""

_HEAD = rb"%b \S{1,255}+ %b[^\s\[]{1,200}+\[\d{1,10}\]: " % (STAMP, PRIORITY)
_OWN = b'{"time":"'
_OWN_LINE = re.compile(rb"^(?:%b)?(\{\"time\":\".*\})$" % _HEAD, re.MULTILINE)
_JOURNAL = b'"__REALTIME_TIMESTAMP"'
_JOURNAL_LINE = re.compile(rb"^\{.*\}$", re.MULTILINE)
# <PRI>VERSION STAMP HOST APP-NAME PROCID MSGID STRUCTURED-DATA MSG; rsyslog leaves a second space before MSG
_DATA = rb"(?:-|(?:\[(?:[^\]\\]|\\.)*+\])++)"
_RFC5424_LINE = re.compile(
    rb"^<\d{1,3}>1 (\S{1,40}+ \S{1,255}+ [^\s\[]{1,200}+) (?:(\d{1,10})|-) \S{1,32}+ %b ++(?:\xef\xbb\xbf)?" % _DATA,
    re.MULTILINE,
)
_NUMBER = re.compile(rb"^<\d{1,3}>(?=[A-Z\d])", re.MULTILINE)
# `SERVICE-1  | ` of docker compose, `[pod/NAME/CONTAINER] ` of kubectl; `STAMP stdout F ` in the files of CRI runtimes
# and podman, `STAMP ` of docker logs -t: before a line that has its own time stamp.
_CONTAINER = re.compile(
    rb"^(?:[\w.-]{1,120}+ *+\| ?|\[pod/[^\]\n]{1,300}+\] )?+"
    rb"(?:\d{4}-\d\d-\d\dT[\d:.]{8,18}+(?:Z|[+-]\d\d:?\d\d) (?:std(?:out|err) [FP] )?+)?"
    rb"(?=(?:%b[ \"]|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d |\{\"|<\d{1,3}>))" % STAMP,
    re.MULTILINE,
)
_DOCKER = b'{"log":"'
_DOCKER_LINE = re.compile(rb"^\{\"log\":\".*\}$", re.MULTILINE)
_LOGREAD_LINE = re.compile(
    rb"^[A-Z][a-z]{2} ([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) \d{4} (?=[a-z]\w{1,9}\.)", re.MULTILINE
)
_REPEATED = b"]: message repeated "
_REPEATED_LINE = re.compile(rb"^(%b)message repeated (\d{1,9}) times: \[ (.*)\]$" % _HEAD, re.MULTILINE)


class _Docker(Struct):
    """A line of Docker's json-file: a line of the container's output, with its newline."""

    log: str


class _Own(Struct):
    time: str
    host: str
    program: str
    pid: int
    message: str


class _Entry(Struct):
    """journald's fields of a line. A message that is not valid UTF-8 is a list of bytes."""

    when: str = field(name="__REALTIME_TIMESTAMP")
    program: str = field(name="SYSLOG_IDENTIFIER")
    message: str | list[int] = field(name="MESSAGE")
    host: str = field(name="_HOSTNAME", default="-")
    pid: str = field(name="SYSLOG_PID", default="")
    own_pid: str = field(name="_PID", default="0")


_DOCKER_OBJECTS = Decoder(_Docker)
_OWN_OBJECTS = Decoder(_Own)
_ENTRIES = Decoder(_Entry)


def normalize(block: bytes) -> bytes:
    """Convert whole lines to the syslog format. Lines in unknown formats stay unchanged."""
    if b"\r" in block:  # faster than searching for two bytes
        block = block.replace(b"\r\n", b"\n")
    # A file has one format, or changes it once. Checking every line would take twice as long.
    edges = 0, block.rfind(b"\n", 0, -1) + 1
    if any(block.startswith(_DOCKER, at) for at in edges):
        block = _DOCKER_LINE.sub(_or_unchanged(_from_docker), block)
        edges = 0, block.rfind(b"\n", 0, -1) + 1
    if any((found := _CONTAINER.match(block, at)) is not None and found.end() > at for at in edges):
        block = _CONTAINER.sub(b"", block)
        edges = 0, block.rfind(b"\n", 0, -1) + 1
    if _JOURNAL in block:
        block = _JOURNAL_LINE.sub(_or_unchanged(_from_journal), block)
    if any(block.startswith(b"<", at) for at in edges):
        block = _NUMBER.sub(b"", _RFC5424_LINE.sub(_from_rfc5424, block))
    if any(_LOGREAD_LINE.match(block, at) for at in edges):
        block = _LOGREAD_LINE.sub(rb"\1 - ", block)
    if _OWN in block:
        block = _OWN_LINE.sub(_or_unchanged(_from_own_json), block)
    if _REPEATED in block:
        block = _REPEATED_LINE.sub(_from_repeated, block)
    return block


def _or_unchanged(make: Callable[[re.Match[bytes]], bytes]) -> Callable[[re.Match[bytes]], bytes]:
    """Keep lines unchanged that only look like a JSON object."""

    def converted(line: re.Match[bytes]) -> bytes:
        try:
            return make(line).replace(b"\n", b"?")
        except (DecodeError, ValueError, OverflowError):
            return line[0]

    return converted


def _from_docker(line: re.Match[bytes]) -> bytes:
    return _DOCKER_OBJECTS.decode(line[0]).log.rstrip("\r\n").encode()


def _from_own_json(line: re.Match[bytes]) -> bytes:
    found = _OWN_OBJECTS.decode(line[3])
    return f"{found.time} {found.host} {found.program}[{found.pid}]: {found.message}".encode()


def _from_journal(line: re.Match[bytes]) -> bytes:
    found = _ENTRIES.decode(line[0])
    when = datetime.fromtimestamp(int(found.when) // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = found.message.encode() if isinstance(found.message, str) else bytes(found.message)
    return f"{when} {found.host} {found.program}[{found.pid or found.own_pid}]: ".encode() + message


def _from_rfc5424(line: re.Match[bytes]) -> bytes:
    return b"%b[%b]: " % (line[1], line[2] or b"0")


def _from_repeated(line: re.Match[bytes]) -> bytes:
    """Repeat the line as often as it says; the first occurrence has its own line."""
    times = min(int(line[4]), MAX_REPEATED)
    return b"\n".join([line[1] + line[5]] * times)
