"""The verbs that change something."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Any

from msgspec import Meta, Struct

from fastscreen.cache import keys
from fastscreen.control import serializers
from fastscreen.control.bypass import MAX_SECONDS
from fastscreen.control.context import ServerContext
from fastscreen.control.protocol import Request, RequestError
from fastscreen.control.session import Caller
from fastscreen.control.worker_rpc import Forget, Remember
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


async def reload(context: ServerContext, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the configuration read again. `status` tells how that ended: `reload.finished` reaches `number` then."""
    return _attempt(context, caller, "reload", context.reload_state.reload, signal.SIGHUP)


async def reopen(context: ServerContext, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the log opened again; as above, with `reopen.finished`."""
    return _attempt(context, caller, "reopen", context.reload_state.reopen, signal.SIGUSR1)


async def restart(context: ServerContext, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the daemon replace itself by a new one, which takes over the listening sockets. When that is refused,
    `restart.finished` in `status` reaches `number`.
    """
    attempt = _attempt(context, caller, "restart", context.reload_state.restart, signal.SIGUSR2)
    return {"pid": context.pid, "started": context.started, **attempt}


async def stop(context: ServerContext, wanted: Order, caller: Caller, request: Request) -> Map:
    """Have the daemon stop: clients in hand may finish. A second time: at once."""
    _signal(context, caller, "stop", signal.SIGTERM)
    return {"pid": context.pid, "started": context.started}


def _attempt(context: ServerContext, caller: Caller, what: str, attempts: Attempts, number: signal.Signals) -> Map:
    """Signal, and say the number of the attempt that can have seen everything that was written before now."""
    last = attempts.read()
    if last is None:
        raise RequestError(f"{what}: the state of the last one is just being written: ask again")
    _signal(context, caller, what, number)
    return {"number": last.begun + 1}


def _signal(context: ServerContext, caller: Caller, what: str, number: signal.Signals) -> None:
    """Signal the supervisor."""
    if os.getppid() != context.pid:
        raise RequestError(f"{what}: the supervising process is gone")
    context.log.info(f"{what} requested by user {caller.uid}")
    context.log.flush()
    try:
        os.kill(context.pid, number)
    except OSError as error:
        raise RequestError(f"{what}: the supervising process cannot be signaled: {error.strerror}") from None


async def delete(context: ServerContext, wanted: Delete, caller: Caller, request: Request) -> Map:
    """From the file, and from what the workers have not written yet."""
    if bool(wanted.address) == bool(wanted.prefix):
        raise RequestError("cache.delete: an address or a prefix is wanted")
    named = serializers.network(serializers.address(wanted.address) if wanted.address else wanted.prefix)
    network = keys.widened(named, context.config.cache.prefix)
    forget = Forget(network.network_address.packed, network.broadcast_address.packed)
    unwritten = await context.worker_rpc.ask_all(forget)
    deleted, more = await context.cached(lambda store: store.delete(network))
    context.log.info(f"cache: user {caller.uid} deleted {network}: {deleted} entries")
    context.log.flush()
    # What was on its way to the file may have been there or not: it is counted once when one client is meant.
    if named.num_addresses == 1:
        deleted = min(1, deleted + sum(number or 0 for number in unwritten))
    return {"deleted": deleted, "more": more}


async def import_(context: ServerContext, wanted: Import, caller: Caller, request: Request) -> Map:
    """Into the file; what the workers have not written yet must not undo it."""
    prefix = context.config.cache.prefix
    records = [
        (serializers.client_key(each.address, prefix), serializers.stamps_read(each.stamps)) for each in wanted.entries
    ]
    await context.cached(lambda store: store.put(records))
    await context.worker_rpc.ask_all(Remember(records))
    context.log.info(f"cache: user {caller.uid} imported {len(records)} entries")
    context.log.flush()
    return {"stored": len(records)}


async def bypass(context: ServerContext, wanted: Bypass, caller: Caller, request: Request) -> Map:
    if not wanted.seconds <= MAX_SECONDS:
        raise RequestError(f"bypass: {wanted.seconds:g} s; expected at most {MAX_SECONDS:g}, a day")
    return {"until": context.bypass.switch(wanted.seconds, caller.uid)}
