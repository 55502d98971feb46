"""The verbs that only read."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fastscreen import cachekey
from fastscreen.config.changes import fingerprints
from fastscreen.config.load import BUILT_IN
from fastscreen.core import read_records
from fastscreen.hub import explain, figures, scoring, shapes, talkers
from fastscreen.hub.connection import Caller
from fastscreen.hub.doors import door
from fastscreen.hub.feed import RATE_MOST, RECENT_MOST, Feed
from fastscreen.hub.filters import compiled, network_term
from fastscreen.hub.frames import Request
from fastscreen.hub.house import House
from fastscreen.hub.questions import Live, Stats
from fastscreen.hub.rings import Map

STORY_MOST = 500  # events
WARNINGS_MOST = 200
NAME_SECONDS = 2.0  # that `explain` waits for a client's name, while it asks the lists

Text = Annotated[str, Meta(max_length=1024)]


class Nothing(Struct, forbid_unknown_fields=True):
    pass


class Address(Struct, forbid_unknown_fields=True):
    address: Annotated[str, Meta(max_length=100)]


class Explain(Struct, forbid_unknown_fields=True):
    """server: where the client is said to come in; empty: wherever it may pass."""

    address: Annotated[str, Meta(max_length=100)]
    server: Annotated[str, Meta(max_length=100)] = ""


class Sessions(Struct, forbid_unknown_fields=True):
    filter: Text = ""
    sort: Literal["age", "new", "score", "address"] = "age"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class Events(Struct, forbid_unknown_fields=True):
    filter: Text = ""
    rate: Annotated[int, Meta(ge=1, le=RATE_MOST)] = 200
    recent: Annotated[int, Meta(ge=0, le=RECENT_MOST)] = 100


class Cancel(Struct, forbid_unknown_fields=True):
    of: int | float


class Clients(Struct, forbid_unknown_fields=True):
    by: Literal["address", "network"] = "address"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class CacheList(Struct, forbid_unknown_fields=True):
    prefix: Annotated[str, Meta(max_length=100)] = ""
    after: Annotated[str, Meta(max_length=100)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


async def status(house: House, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await figures.status(house)


async def config(house: House, wanted: Nothing, caller: Caller, request: Request) -> Map:
    """The configuration in force, so that a file can be compared with it; no value can be read from the answer."""
    source = house.config.source
    return {
        "source": source if source == BUILT_IN else str(Path(source).absolute()),
        "fingerprints": fingerprints(house.config),
    }


async def sessions(house: House, wanted: Sessions, caller: Caller, request: Request) -> Map:
    chosen = compiled(wanted.filter, house.names.now)
    answers = await house.crew.ask_all(Live(chosen.terms, wanted.sort, wanted.limit))
    total = matched = 0
    found: list[Map] = []
    for worker, answer in enumerate(answers):
        if answer is not None:
            total += answer[0]
            if chosen.worker(worker + 1):
                matched += answer[1]
                found += [shapes.session(worker, record) for record in read_records(answer[2])]
    match wanted.sort:
        case "age":
            found.sort(key=lambda one: -one["age"])
        case "new":
            found.sort(key=lambda one: one["age"])
        case "score":
            found.sort(key=lambda one: (one["score"] is None, -(one["score"] or 0), -one["age"]))
        case "address":
            found.sort(key=lambda one: (len(packed := ipaddress.ip_address(one["address"]).packed), packed))
    missing = [worker + 1 for worker, answer in enumerate(answers) if answer is None]
    first = [one | {"name": house.name(one["address"])} for one in found[: wanted.limit]]
    shown = {"total": total, "matched": matched, "sessions": first}
    return shown | {"missing": missing} if missing else shown


async def events(house: House, wanted: Events, caller: Caller, request: Request) -> Map:
    chosen = compiled(wanted.filter, house.names.now)
    heads = house.rings.heads()
    recent = await house.rings.recent(chosen, chosen.filter(), wanted.recent, heads) if wanted.recent else []
    caller.follow(request.id, Feed(house.rings, chosen, wanted.rate, heads), recent)
    return {}


async def cancel(house: House, wanted: Cancel, caller: Caller, request: Request) -> Map:
    return {"cancelled": caller.cancel(wanted.of)}


async def story(house: House, wanted: Address, caller: Caller, request: Request) -> Map:
    address = shapes.address(wanted.address)
    chosen = compiled("").with_term(network_term(shapes.network(address)))
    happened = await house.rings.recent(chosen, chosen.filter(), STORY_MOST, house.rings.heads())
    about = await house.about(address)
    stamps = await house.stamps(address, about)
    live = await sessions(house, Sessions(filter=address, limit=100), caller, request)
    said: list[Any] = next((answer["lists"] for answer in about if answer and answer["lists"]), [])
    return {
        "address": address,
        "name": house.name(address),
        "events": happened,
        "begins": house.rings.begins(),
        "cache": None if stamps is None else shapes.stamps_shown(stamps),
        "sessions": live["sessions"],
        "lists": [
            {
                "list": name,
                "state": state,
                "answers": answers,
                "weight": _weight(house, at, name, answers),
            }
            for at, (name, state, answers, _) in enumerate(said)
        ],
    }


def _weight(house: House, at: int, name: str, answers: list[str]) -> int:
    """What a worker's list number `at` adds to the score. Two may have one name, and a reload may have moved them."""
    named = [number for number, shown in enumerate(house.names.now) if shown == name]
    if not named:
        return 0
    return scoring.weight(house.config.dnsbl.sites, house.domains[at if at in named else named[0]], answers)


async def dnsbl(house: House, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await figures.dnsbl(house)


async def clients(house: House, wanted: Clients, caller: Caller, request: Request) -> Map:
    return await talkers.talkers(house.rings, wanted.by == "network", wanted.limit)


async def warnings(house: House, wanted: Nothing, caller: Caller, request: Request) -> Map:
    found = sorted((warning for book in house.books for warning in book.read()), key=lambda warning: warning[0])
    return {"warnings": [{"time": when, "text": house.masked(text)} for when, text in found[-WARNINGS_MOST:]]}


async def explained(house: House, wanted: Explain, caller: Caller, request: Request) -> Map:
    address = shapes.address(wanted.address)
    server = shapes.address(wanted.server) if wanted.server else ""
    if house.trouble:
        raise ValueError(house.trouble)
    known = await house.known(address, await house.crew.ask_all(Stats()))
    where = door(house.config, house.interfaces, address, server)
    explained, name = await asyncio.gather(
        explain.explain(
            house.config,
            house.access,
            house.shown,
            known,
            house.bypass.until,
            address,
            where,
            house.lists_out - house.lists_suspect,
            house.lists_suspect,
        ),
        house.name_found(address, NAME_SECONDS),
    )
    return explained | {"name": name}


async def cache_stats(house: House, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await figures.cache(house, await house.crew.ask_all(Stats()))


async def cache_get(house: House, wanted: Address, caller: Caller, request: Request) -> Map | None:
    address = shapes.address(wanted.address)
    stamps = await house.stamps(address, await house.about(address))
    shown = cachekey.shown(shapes.client_key(address, house.config.cache.prefix))
    return None if stamps is None else {"address": shown, "stamps": shapes.stamps_shown(stamps)}


async def cache_list(house: House, wanted: CacheList, caller: Caller, request: Request) -> Map:
    """What stands in the file; what the workers learnt in the last second may not be there yet."""
    network = shapes.network(wanted.prefix) if wanted.prefix else None
    after = shapes.key(wanted.after) if wanted.after else b""
    entries, more = await house.cached(lambda store: store.entries(network, after, wanted.limit))
    shown = [{"address": cachekey.shown(key), "stamps": shapes.stamps_shown(stamps)} for key, stamps in entries]
    return {"entries": shown, "more": more, "time": time.time()}
