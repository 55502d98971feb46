"""The host names of the demo's clients, and their addresses."""

from __future__ import annotations

import re

from fastscreen.demo import client_kinds

_DOMAINS = {
    client_kinds.SENDER: "post.example",
    client_kinds.LARGE_SENDER: "out.newsletter.example",
    client_kinds.OWN: "demo.example",
    client_kinds.LISTED: "dynamic.example",
    client_kinds.BOTNET: "dsl.example",
    client_kinds.SLOW: "tarpit.example",
}
_POINTER = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3}\.[0-9]{1,3})\.in-addr\.arpa", re.ASCII)
_NAME = re.compile(r"host-([0-9]{1,3})-([0-9]{1,3})\.([a-z.]+)", re.ASCII)


def pointer_of(question: str) -> str | None:
    """The host name for a name under in-addr.arpa, or None."""
    found = _POINTER.fullmatch(question)
    if found is None:
        return None
    network = ".".join(reversed(found[3].split(".")))
    if network == client_kinds.IMPATIENT.network:
        return f"host-0-1.{_DOMAINS[client_kinds.SENDER]}"  # a false name: this host has another address
    domain = next((domain for kind, domain in _DOMAINS.items() if kind.network == network), None)
    return f"host-{found[2]}-{found[1]}.{domain}" if domain else None


def address(name: str) -> str | None:
    """The address of a host name, or None."""
    found = _NAME.fullmatch(name)
    kind = next((kind for kind, domain in _DOMAINS.items() if found and domain == found[3]), None)
    if found is None or kind is None or max(int(found[1]), int(found[2])) > 255:
        return None
    return f"{kind.network}.{int(found[1])}.{int(found[2])}"
