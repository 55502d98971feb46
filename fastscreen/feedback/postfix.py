"""The lines of Postfix that say what became of a client.

Whatever a client sends stands behind fixed text: after the address in brackets, or after the queue ID. So everything is
read from the left, from the first character on, and nothing is searched for. A host name before the address is one
that Postfix has verified, or "unknown"; neither has blanks or brackets.
"""

from __future__ import annotations

import re
import socket

from msgspec import Struct

from fastscreen.feedback.syslog import Line

_CLIENT = r"[A-Za-z0-9._-]{1,255}\[(?:IPv6:)?([0-9a-fA-F.:]{2,45})\](?::([0-9]{1,5}))?"
_QUEUE = r"[0-9A-Za-z]{5,31}"
_CONNECT = re.compile(rf"connect from {_CLIENT}$")
_DISCONNECT = re.compile(rf"disconnect from {_CLIENT}((?: [a-z_]{{1,20}}=[0-9/]{{1,21}}){{0,32}})$")
_QUEUED = re.compile(rf"({_QUEUE}): client={_CLIENT}(?:,|$)")
_REFUSED = re.compile(
    rf"(?:NOQUEUE|({_QUEUE})): (?:milter-)?(reject|discard|hold): "
    rf"(?:CONNECT|HELO|EHLO|MAIL|RCPT|DATA|BDAT|END-OF-MESSAGE) from {_CLIENT}: ([245]?)"
)
_REFUSED_BY_PROXY = re.compile(r"(?:\w{5,31}: )?proxy-reject: END-OF-MESSAGE(?: from [^\s:]{1,300})?: ([45])")
_MILTER = re.compile(rf"({_QUEUE}): milter-(reject|discard|hold): [A-Z-]{{1,20}} from {_CLIENT}: ([45]?)")
_CHECKS = re.compile(rf"({_QUEUE}): (reject|discard|hold): (?:(?:mime-|nested-)?header|body|content) ")
_ACTIVE = re.compile(rf"({_QUEUE}): from=<.*>, size=[0-9]+, nrcpt=[0-9]+ \(queue active\)$")
_MAPPED = bytes(10) + b"\xff\xff"
_COUNTER = re.compile(r"([a-z_]+)=([0-9]{1,9})(?:/([0-9]{1,9}))?(?: |$)")


class Client(Struct, frozen=True):
    """address: 4 or 16 bytes. port: 0 if the line has none."""

    address: bytes
    port: int = 0


class Connected(Struct, frozen=True):
    """An smtpd has a new client."""

    client: Client


class Disconnected(Struct, frozen=True):
    """An smtpd's client has left. accepted: DATA commands that succeeded; recipients: RCPT commands, -1: unknown."""

    client: Client
    accepted: int = 0
    recipients: int = -1


class Queued(Struct, frozen=True):
    """An smtpd has begun a message, which has this queue ID from now on."""

    client: Client
    queue: str


class Refused(Struct, frozen=True):
    """A recipient or a message was rejected with 5xx, or (discarded) thrown away or put on hold. client: None: not
    said; then it is the client of the smtpd, or of the message with this queue ID."""

    client: Client | None = None
    queue: str = ""
    discarded: bool = False


class Active(Struct, frozen=True):
    """A message is in the queue: it was accepted."""

    queue: str


Event = Connected | Disconnected | Queued | Refused | Active


def read(line: Line) -> Event | None:
    """What a line says about a client. None: nothing of interest."""
    daemon = line.program.rpartition("/")[2]
    if daemon == "smtpd":
        return _of_smtpd(line.text)
    if daemon == "cleanup":
        return _of_cleanup(line.text)
    if daemon in ("qmgr", "nqmgr") and (found := _ACTIVE.match(line.text)):
        return Active(found[1])
    return None


def _of_smtpd(text: str) -> Event | None:
    if found := _CONNECT.match(text):
        client = client_of(found[1], found[2])
        return Connected(client) if client is not None else None
    if found := _DISCONNECT.match(text):
        client = client_of(found[1], found[2])
        return _disconnected(client, found[3]) if client is not None else None
    if found := _QUEUED.match(text):
        client = client_of(found[2], found[3])
        return Queued(client, found[1]) if client is not None else None
    if found := _REFUSED.match(text):
        client = client_of(found[3], found[4])
        discarded = found[2] != "reject"
        if client is None or (found[5] != "5" and not discarded):
            return None
        return Refused(client, found[1] or "", discarded)
    if (found := _REFUSED_BY_PROXY.match(text)) and found[1] == "5":
        return Refused()
    return None


def _of_cleanup(text: str) -> Event | None:
    """A message that a milter or header_checks do not let in. The text of a header stands before the client's address
    there, so only the queue ID is used."""
    if found := _MILTER.match(text):
        discarded = found[2] != "reject"
        return Refused(queue=found[1], discarded=discarded) if discarded or found[5] == "5" else None
    if found := _CHECKS.match(text):
        return Refused(queue=found[1], discarded=found[2] != "reject")
    return None


def _disconnected(client: Client, counters: str) -> Disconnected:
    """`data=1`: all of them succeeded; `data=0/1`: none of one did. Postfix before 3.0 has no counters."""
    accepted, recipients = 0, -1
    for name, done, total in _COUNTER.findall(counters):
        if name == "data":
            accepted = int(done)
        elif name == "rcpt":
            recipients = int(total or done)
    return Disconnected(client, accepted, recipients)


def client_of(address: str, port: str | None) -> Client | None:
    """None: this is not an address, or not a port."""
    number = int(port) if port else 0
    if number > 0xFFFF:
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None
    return Client(packed.removeprefix(_MAPPED) if len(packed) == 16 else packed, number)
