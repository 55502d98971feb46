"""DNS lists as RFC 5782 has them: the name that is asked for an address, and which answers mean 'listed'."""

from __future__ import annotations

import ipaddress


def question(address: str, domain: str) -> str:
    """The name that a list is asked for (sections 2.1, 2.4)."""
    return f"{ipaddress.ip_address(address).reverse_pointer.rsplit('.', 2)[0]}.{domain}"


def is_listing(answer: str, domain: str) -> bool:
    """False for an address that cannot mean 'listed' (the core's rule, ext/dns_queries.pyx)."""
    one, two, three, four = ipaddress.IPv4Address(answer).packed
    if one != 127 or (two, three) == (255, 255):
        return False
    return not (domain.lower().rstrip(".").endswith("dnswl.org") and (two, three, four) == (0, 0, 255))
