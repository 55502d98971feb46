"""Other forms of log lines, made what `lines` reads: RFC 5424, journalctl's JSON, fastscreen's own JSON, what container
tools put in front of a line or around it, lines that the syslog daemon has counted instead of written.

Each is known by what stands at the beginning of a line or behind its ident: what clients said is further on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder

STAMP = rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?"

PRIORITY = rb"(?:[a-z]\w{1,9}\.[a-z]{3,7} )?+"
"""Facility and severity in front of the ident: `mail.info`, as BusyBox's syslogd and OpenWrt's logread write them."""

MAX_REPEATED = 1_000
"""A line that the daemon has counted is counted so often at most: a block of such lines has to fit into memory."""

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
# and podman, `STAMP ` of docker logs -t: in front of a line with a stamp of its own.
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
    """A line of a json-file of Docker: what a container wrote, with its newline."""

    log: str


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


_DOCKER_OBJECTS = Decoder(_Docker)
_OWN_OBJECTS = Decoder(_Own)
_ENTRIES = Decoder(_Entry)


def usual(block: bytes) -> bytes:
    """Whole lines in the form of a log file. What is in none of these forms stays as it is."""
    if b"\r" in block:  # quicker to find than two octets
        block = block.replace(b"\r\n", b"\n")
    # A file is of one form, or of another from some line on; to look for these in every line would take twice as long.
    edges = 0, block.rfind(b"\n", 0, -1) + 1
    if any(block.startswith(_DOCKER, at) for at in edges):
        block = _DOCKER_LINE.sub(_safely(_of_docker), block)
        edges = 0, block.rfind(b"\n", 0, -1) + 1
    if any((found := _CONTAINER.match(block, at)) is not None and found.end() > at for at in edges):
        block = _CONTAINER.sub(b"", block)
        edges = 0, block.rfind(b"\n", 0, -1) + 1
    if _JOURNAL in block:
        block = _JOURNAL_LINE.sub(_safely(_of_journal), block)
    if any(block.startswith(b"<", at) for at in edges):
        block = _NUMBER.sub(b"", _RFC5424_LINE.sub(_of_rfc5424, block))
    if any(_LOGREAD_LINE.match(block, at) for at in edges):
        block = _LOGREAD_LINE.sub(rb"\1 - ", block)
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


def _of_docker(line: re.Match[bytes]) -> bytes:
    return _DOCKER_OBJECTS.decode(line[0]).log.rstrip("\r\n").encode()


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
    times = min(int(line[4]), MAX_REPEATED)
    return b"\n".join([line[1] + line[5]] * times)
