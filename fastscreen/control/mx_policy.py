"""Where a client comes in, for `explain`: whether it may pass there (access.allowlist_interfaces)."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from fastscreen.config.model import Config
from fastscreen.core import NetworkTable
from fastscreen.screening.access_list import member
from fastscreen.screening.policy import ALL


class Arrival(Struct, frozen=True):
    """server: the address where it comes in; empty: any. open: a client may pass there. others: not everywhere."""

    server: str = ""
    open: bool = True
    others: bool = False


def arrival(config: Config, interfaces: NetworkTable, client: str, server: str) -> Arrival:
    """server: where the client is said to come in; empty: wherever it may pass, if there is such an address."""
    if config.access.allowlist_interfaces == ALL:
        return Arrival(server)
    if server:
        return Arrival(server, member(interfaces, server))
    version = ipaddress.ip_address(client).version
    ours = [ipaddress.ip_address(address.host) for address in config.listen.ports]
    named = [str(address) for address in ours if address.version == version and not address.is_unspecified]
    # A balancer names the address itself, and a wildcard is all of the machine's.
    sure = bool(named) and not config.listen.proxy and not any(address.is_unspecified for address in ours)
    closed = [address for address in named if not member(interfaces, address)]
    if sure and len(closed) == len(named):
        return Arrival(closed[0], False)
    return Arrival("", True, True)
