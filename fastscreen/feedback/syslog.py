"""One line of a log: who wrote it, and what it says. From a file of syslogd or postlogd, or an entry of the journal."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

MAX_TEXT = 2048
"""Characters of a line that are looked at. Postfix truncates what clients send long before that."""

_HEADER = re.compile(
    r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})?) "
    r"(\S{1,255}) ([^\s\[\]:]{1,128})\[([0-9]{1,10})\]: "
)
"""`Nov 30 15:45:04 mx1 postfix/smtpd[1234]: `, also with a time in the form of RFC 3339."""


class Line(Struct, frozen=True):
    """A line. host, program and pid are its writer's; program: as Postfix's `syslog_name` and the name of the daemon.

    text: each character is a byte. A line without a known header has only text.
    """

    host: str
    program: str
    pid: int
    text: str

    @property
    def said(self) -> str:
        """As an operator's expression sees it: `rspamd[1234]: text`."""
        return f"{self.program}[{self.pid}]: {self.text}" if self.program else self.text


def of_file(raw: bytes) -> Line:
    """A line of a file, without its end."""
    text = raw[:MAX_TEXT].decode("latin-1")
    found = _HEADER.match(text)
    if found is None:
        return Line("", "", 0, text)
    return Line(found[1], found[2], int(found[3]), text[found.end() :])


def of_journal(raw: bytes) -> Line | None:
    """An entry of the journal in JSON. None: it is not one, or it has no text."""
    try:
        entry = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    text = _text(entry.get("MESSAGE"))
    if text is None:
        return None
    number = _text(entry.get("SYSLOG_PID")) or _text(entry.get("_PID")) or "0"
    pid = int(number) if number.isascii() and number.isdigit() and len(number) <= 10 else 0
    program = _text(entry.get("SYSLOG_IDENTIFIER")) or ""
    return Line(_text(entry.get("_HOSTNAME")) or "", program[:128], pid, text[:MAX_TEXT])


def _text(value: Any) -> str | None:
    """A field. The journal shows bytes that are not UTF-8 as a list of numbers, and what is too long as null."""
    if isinstance(value, str):
        return value[:MAX_TEXT].encode("utf-8", "replace").decode("latin-1")
    if isinstance(value, list) and all(isinstance(each, int) and 0 <= each <= 255 for each in value):
        return bytes(value[:MAX_TEXT]).decode("latin-1")
    return None
