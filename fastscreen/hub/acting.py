"""The verbs that change something."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from fastscreen import cachekey
from fastscreen.hub import shapes
from fastscreen.hub.bypass import MOST_SECONDS
from fastscreen.hub.connection import Caller
from fastscreen.hub.frames import Request, RequestError
from fastscreen.hub.house import House
from fastscreen.hub.questions import Forget, Remember

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


async def delete(house: House, wanted: Delete, caller: Caller, request: Request) -> Map:
    """From the file, and from what the workers have not written yet."""
    if bool(wanted.address) == bool(wanted.prefix):
        raise RequestError("cache.delete: an address or a prefix is wanted")
    named = shapes.network(shapes.address(wanted.address) if wanted.address else wanted.prefix)
    network = cachekey.widened(named, house.config.cache.prefix)
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
    records = [(shapes.client_key(each.address, prefix), shapes.stamps_read(each.stamps)) for each in wanted.entries]
    await house.cached(lambda store: store.put(records))
    await house.crew.ask_all(Remember(records))
    house.log.info(f"cache: user {caller.uid} imported {len(records)} entries")
    house.log.flush()
    return {"stored": len(records)}


async def bypass(house: House, wanted: Bypass, caller: Caller, request: Request) -> Map:
    if not wanted.seconds <= MOST_SECONDS:
        raise RequestError(f"bypass: {wanted.seconds:g} s; allowed: at most {MOST_SECONDS:g}, a day")
    return {"until": house.bypass.switch(wanted.seconds, caller.uid)}
