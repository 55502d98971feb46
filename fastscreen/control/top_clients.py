"""The verb `clients`: who connects most, by what the rings hold."""

from __future__ import annotations

import asyncio
import heapq
import ipaddress

from fastscreen.control.events import Rings
from fastscreen.control.messages import Clients, TopClient
from fastscreen.core import EVENTS, FIRST_EVIDENCE, EventReader, Filter

_SLICE = 4096  # events between two looks at what else is to be done
_COUNTED = ("connect", "passed", "cached", "disconnect", "handed_off")
_COLUMN = {"connect": 0, "passed": 1, "cached": 1, "disconnect": 2, "handed_off": 3}


async def top_clients(rings: Rings, by_network: bool, limit: int) -> Clients:
    """`failed` counts sessions that ended here after they had failed a test."""
    wanted = Filter([("kind", "=", sum(1 << EVENTS.index(kind) for kind in _COUNTED), False)])
    found: dict[str, list[int]] = {}
    for reader in rings.readers:
        await _count(reader, wanted, found, by_network)
    top = heapq.nlargest(limit, found.items(), key=lambda one: one[1])
    return Clients(rings.complete_since(), [TopClient(client, *row) for client, row in top])


async def _count(reader: EventReader, wanted: Filter, found: dict[str, list[int]], by_network: bool) -> None:
    head = reader.head
    at = max(0, head - reader.capacity)
    networks: dict[str, str] = {}
    while at < head:
        end = min(head, at + _SLICE)
        events, _, _, _ = reader.read(at, wanted, _SLICE, end)
        for _, _, kind, _, address, _, _, findings, *_ in events:
            if kind == "disconnect" and not findings & (1 << FIRST_EVIDENCE) - 1:
                continue
            client = address
            if by_network:
                client = networks.get(address) or networks.setdefault(address, network_of(address))
            found.setdefault(client, [0, 0, 0, 0])[_COLUMN[kind]] += 1
        at = end
        await asyncio.sleep(0)


def network_of(address: str) -> str:
    """Its /24 or /64."""
    bits = 64 if ":" in address else 24
    return str(ipaddress.ip_network((address, bits), strict=False))
