"""Where a service of master.cf listens, from its name, inet_interfaces and inet_protocols."""

from __future__ import annotations

import ipaddress
import re
import socket

from fastscreen.escaping import escape_text
from fastscreen.postfix.files import Service

_NAME = re.compile(r"(?:\[([^\]]*)\]:|([^\[\]]*):)?([^:\[\]]+)")
_PROTOCOLS = ("all", "ipv4", "ipv6")
_WELL_KNOWN = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}


def smtpd_listeners(services: list[Service]) -> list[Service]:
    """The smtpd services on the SMTP port, however the port and the addresses are written."""
    smtpds = [each for each in services if (each.kind, each.command) == ("inet", "smtpd")]
    names = [(each, _NAME.fullmatch(each.name)) for each in smtpds]
    return [each for each, found in names if found and _port(found[3]) == _WELL_KNOWN["smtp"]]


def is_smtp(service: Service) -> bool:
    """Whether a service listens on the SMTP port."""
    found = _NAME.fullmatch(service.name)
    return found is not None and _port(found[3]) == _WELL_KNOWN["smtp"]


def addresses(service: Service | None, interfaces: list[str], protocols: list[str]) -> tuple[list[str], list[str]]:
    """`IP:PORT` of each address, and a list of problems. service: None stands for `smtp inet`."""
    found = _NAME.fullmatch(service.name if service else "smtp")
    problems: list[str] = []
    port = _port(found[3]) if found else None
    if found is None or port is None:
        return [], [f"{escape_text(service.name) if service else 'smtp'}: unknown port; add the addresses yourself"]
    host = found[1] if found[1] is not None else found[2]
    wanted = [host] if host else interfaces
    versions = _versions(protocols)
    unknown = [name for name in protocols if name.lower() not in _PROTOCOLS]
    if unknown:
        problems.append(f"inet_protocols = {escape_text(unknown[0])} is omitted: Postfix rejects it as well")
        versions = versions or {4, 6}
    listed: list[str] = []
    if wanted == [] and found:
        problems.append("inet_interfaces is empty, which Postfix rejects as well: all addresses are used instead")
    for name in wanted:
        for address in _addresses(name, versions, problems):
            listed.append(f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
    return list(dict.fromkeys(listed)), problems


def _port(name: str) -> int | None:
    if name.isascii() and name.isdecimal():
        return int(name) if 0 < int(name) < 65536 else None
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        return _WELL_KNOWN.get(name)


def _versions(protocols: list[str]) -> set[int]:
    names = {name.lower() for name in protocols}
    return {4, 6} if not names or "all" in names else {int(name[-1]) for name in names if name in ("ipv4", "ipv6")}


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(name: str, versions: set[int], problems: list[str]) -> list[Address]:
    """The addresses of `all`, `loopback-only`, an address or a host name, in the enabled IP versions."""
    special = {"all": ("0.0.0.0", "::"), "loopback-only": ("127.0.0.1", "::1")}
    texts: list[str] = list(special.get(name.lower(), ()))
    if not texts:
        bare = name.removeprefix("[").removesuffix("]")
        try:
            texts = [str(ipaddress.ip_address(bare))]
        except ValueError:
            try:
                texts = [str(answer[4][0]) for answer in socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)]
            except (OSError, UnicodeError):
                problems.append(
                    f"{escape_text(bare)}: this name does not resolve on this machine; add the addresses yourself"
                )
                return []
    found = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
    return [address for address in found if address.version in versions]
