"""The names of the demo's addresses, and the way back."""

from __future__ import annotations

import re

from fastscreen.demo import cast

_DOMAINS = {
    cast.SENDER: "post.example",
    cast.LARGE_SENDER: "out.newsletter.example",
    cast.OWN: "demo.example",
    cast.LISTED: "dynamic.example",
    cast.BOTNET: "dsl.example",
    cast.SLOW: "tarpit.example",
}
_POINTER = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3}\.[0-9]{1,3})\.in-addr\.arpa", re.ASCII)
_NAME = re.compile(r"host-([0-9]{1,3})-([0-9]{1,3})\.([a-z.]+)", re.ASCII)


def pointed(question: str) -> str | None:
    """What a name under in-addr.arpa points to; None: nothing."""
    found = _POINTER.fullmatch(question)
    if found is None:
        return None
    network = ".".join(reversed(found[3].split(".")))
    if network == cast.IMPATIENT.network:
        return f"host-0-1.{_DOMAINS[cast.SENDER]}"  # an impostor: that host has another address
    domain = next((domain for part, domain in _DOMAINS.items() if part.network == network), None)
    return f"host-{found[2]}-{found[1]}.{domain}" if domain else None


def address(name: str) -> str | None:
    """The address of a host; None: there is none of this name."""
    found = _NAME.fullmatch(name)
    part = next((part for part, domain in _DOMAINS.items() if found and domain == found[3]), None)
    if found is None or part is None or max(int(found[1]), int(found[2])) > 255:
        return None
    return f"{part.network}.{int(found[1])}.{int(found[2])}"
