"""Faults of neighbors: name servers, MTAs, clients in great number, the control socket's callers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator

import msgpack  # type: ignore[import-untyped]

from soak.faults import fault
from soak.settings import ADDRESS, PORT
from soak.smtp import GoneError, Smtp
from soak.world import World

DNS_GRACE = 75.0  # dnsbl.min_ttl is 60 s; a list needs two good probes to come back
_SILENT = "a DNS list or resolver is silent or returns errors"
_DEAD_LIST = "a DNS list dies"
_MTA_FULL = "the MTA's socket is full"
_MTA_GONE = "the MTA's socket is missing or refuses"
_MTA_SLOW = "the MTA is slow or defers"
_FLOOD = "clients come in great number"
_CONTROL = "hostile callers at the control socket"


@fault(_SILENT, 5, 20, spares_known=True, grace=DNS_GRACE, name="dns_silent", which="nameserver", mode="silent")
@fault(_SILENT, 5, 15, spares_known=True, grace=DNS_GRACE, name="dns_errors", which="nameserver", mode="servfail")
@fault(_SILENT, 5, 15, spares_known=True, grace=DNS_GRACE, name="dns_slow", which="nameserver", mode="slow")
@fault(
    _DEAD_LIST,
    5,
    15,
    spares_known=True,
    grace=DNS_GRACE,
    name="dns_lists_the_world",
    which="nameserver",
    mode="lists-world",
)
@fault(_MTA_SLOW, 5, 12, name="mta_slow", which="mta", mode="slow")
@fault(_MTA_SLOW, 3, 8, name="mta_defers", which="mta", mode="defers")
async def _mode(world: World, which: str, mode: str) -> AsyncIterator[str]:
    (world.folder / f"{which}.mode").write_text(mode)
    yield mode
    (world.folder / f"{which}.mode").write_text("ok")


@fault(_SILENT, 5, 15, spares_known=True, grace=DNS_GRACE)
async def resolver_dead(world: World) -> AsyncIterator[str]:
    """Its port answers with an ICMP error."""
    world.nameserver.kill()
    world.nameserver.wait()
    yield "killed"
    world.nameserver = world.start_role("nameserver")


@fault(_MTA_GONE, 3, 10, name="mta_refuses", remove=False)
@fault(_MTA_GONE, 3, 10, name="mta_missing", remove=True)
async def _mta_gone(world: World, remove: bool) -> AsyncIterator[str]:
    world.mta.kill()
    world.mta.wait()
    if remove:
        (world.folder / "mta/pass").unlink(missing_ok=True)
    yield "killed; its socket " + ("is removed" if remove else "refuses")
    world.mta = world.start_role("mta")


@fault(_MTA_FULL, 5, 20)
async def mta_full(world: World) -> AsyncIterator[str]:
    """It stands still, and its backlog fills."""
    world.mta.send_signal(signal.SIGSTOP)
    yield "stopped"
    world.mta.send_signal(signal.SIGCONT)


@fault(_FLOOD, 4, 8)
async def silent_flood(world: World) -> AsyncIterator[str]:
    """Clients that connect and wait."""
    held = []
    for number in range(3000):
        client = socket.socket()
        client.setblocking(False)
        client.bind((f"127.81.{number // 200}.{number % 200 + 1}", 0))
        client.connect_ex((ADDRESS, PORT))
        held.append(client)
        if number % 50 == 49:
            await asyncio.sleep(0.01)
    yield f"{len(held)} silent clients"
    for number, client in enumerate(held):
        client.close()
        if number % 100 == 99:
            await asyncio.sleep(0.005)


@fault(_FLOOD, 4, 10)
async def tls_flood(world: World) -> AsyncIterator[str]:
    """Clients that stop in the middle of their handshake."""

    async def stall(client: Smtp, number: int) -> None:
        try:
            await client.open(20)
            await client.reply(20)
            await client.ask("EHLO x", 20)
            if (await client.ask("STARTTLS", 20))[0] == 220 and number % 2:
                client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        except GoneError:
            pass

    clients = [Smtp(f"127.82.{number // 200}.{number % 200 + 1}") for number in range(300)]
    stalling = asyncio.gather(*map(stall, clients, range(len(clients))))
    await asyncio.sleep(4)
    yield f"{len(clients)} clients in the handshake"
    await stalling
    for client in clients:
        client.close()


@fault(_CONTROL, 4, 8, spares_known=True)
async def control_flood(world: World) -> AsyncIterator[str]:
    """Garbage, subscriptions that nobody reads, expensive requests."""

    def frame(request: dict[str, object]) -> bytes:
        body: bytes = msgpack.packb(request)
        return len(body).to_bytes(4, "big") + body

    requests = (
        os.urandom(4000),
        b"".join(frame({"id": number, "do": "events", "rate": 2000, "recent": 1000}) for number in range(8))
        + b"".join(frame({"id": 100 + number, "do": "sessions", "limit": 1000}) for number in range(100)),
        b"".join(frame({"id": number, "do": "explain", "address": "127.3.3.3"}) for number in range(8)),
    )
    callers = []
    for number in range(60):
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        callers.append(caller)
        try:
            caller.connect(str(world.folder / "control/socket"))
            caller.send(requests[number % len(requests)])
        except OSError:
            continue
    yield f"{len(callers)} callers"
    for caller in callers:
        caller.close()
