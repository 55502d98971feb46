"""The verbs that change something."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Any

from msgspec import Meta, Struct

from fastscreen.cache import keys
from fastscreen.control import serializers
from fastscreen.control.bypass import MOST_SECONDS
from fastscreen.control.context import House
from fastscreen.control.protocol import Request, RequestError
from fastscreen.control.questions import Forget, Remember
from fastscreen.control.session import Caller
from fastscreen.process.reload_state import Attempts

Map = dict[str, Any]
Text = Annotated[str, Meta(max_length=100)]


class Delete(Struct, forbid_unknown_fields=True):
    address: Text = ""
    prefix: Text = ""


class Entry(Struct):
    address: Text
    stamps: Map


class Import(Struct, forbid_unknown_fields=True):
    entries: list[Entry]


class Bypass(Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, Meta(ge=0)]


class Order(Struct, forbid_unknown_fields=True):
    """One that takes nothing."""


async def reload(house: House, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the configuration read again. `status` tells how that ended: `reload.finished` reaches `number` then."""
    return _attempt(house, caller, "reload", house.reload_state.reload, signal.SIGHUP)


async def reopen(house: House, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the log opened again; as above, with `reopen.finished`."""
    return _attempt(house, caller, "reopen", house.reload_state.reopen, signal.SIGUSR1)


async def restart(house: House, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the daemon replace itself by a new one, which takes over the listening sockets. When that is refused,
    `restart.finished` in `status` reaches `number`.
    """
    attempt = _attempt(house, caller, "restart", house.reload_state.restart, signal.SIGUSR2)
    return {"pid": house.pid, "started": house.started, **attempt}


async def stop(house: House, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the daemon stop: clients in hand may finish. A second time: at once."""
    _signal(house, caller, "stop", signal.SIGTERM)
    return {"pid": house.pid, "started": house.started}


def _attempt(house: House, caller: Caller, what: str, attempts: Attempts, number: signal.Signals) -> Map:
    """Signal, and say the number of the attempt that can have seen everything that was written before now."""
    last = attempts.read()
    if last is None:
        raise RequestError(f"{what}: the state of the last one is just being written: ask again")
    _signal(house, caller, what, number)
    return {"number": last.begun + 1}


def _signal(house: House, caller: Caller, what: str, number: signal.Signals) -> None:
    """Signal the supervisor."""
    if os.getppid() != house.pid:
        raise RequestError(f"{what}: the supervising process is gone")
    house.log.info(f"{what} requested by user {caller.uid}")
    house.log.flush()
    try:
        os.kill(house.pid, number)
    except OSError as error:
        raise RequestError(f"{what}: the supervising process cannot be signaled: {error.strerror}") from None


async def delete(house: House, wanted: Delete, caller: Caller, request: Request) -> Map:
    """From the file, and from what the workers have not written yet."""
    if bool(wanted.address) == bool(wanted.prefix):
        raise RequestError("cache.delete: an address or a prefix is wanted")
    named = serializers.network(serializers.address(wanted.address) if wanted.address else wanted.prefix)
    network = keys.widened(named, house.config.cache.prefix)
    forget = Forget(network.network_address.packed, network.broadcast_address.packed)
    unwritten = await house.crew.ask_all(forget)
    deleted, more = await house.cached(lambda store: store.delete(network))
    house.log.info(f"cache: user {caller.uid} deleted {network}: {deleted} entries")
    house.log.flush()
    # What was on its way to the file may have been there or not: it is counted once when one client is meant.
    if named.num_addresses == 1:
        deleted = min(1, deleted + sum(number or 0 for number in unwritten))
    return {"deleted": deleted, "more": more}


async def import_(house: House, wanted: Import, caller: Caller, request: Request) -> Map:
    """Into the file; what the workers have not written yet must not undo it."""
    prefix = house.config.cache.prefix
    records = [
        (serializers.client_key(each.address, prefix), serializers.stamps_read(each.stamps)) for each in wanted.entries
    ]
    await house.cached(lambda store: store.put(records))
    await house.crew.ask_all(Remember(records))
    house.log.info(f"cache: user {caller.uid} imported {len(records)} entries")
    house.log.flush()
    return {"stored": len(records)}


async def bypass(house: House, wanted: Bypass, caller: Caller, request: Request) -> Map:
    if not wanted.seconds <= MOST_SECONDS:
        raise RequestError(f"bypass: {wanted.seconds:g} s; expected at most {MOST_SECONDS:g}, a day")
    return {"until": house.bypass.switch(wanted.seconds, caller.uid)}
