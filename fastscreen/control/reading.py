"""The verbs that only read."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fastscreen.cache import keys
from fastscreen.config.changes import fingerprints
from fastscreen.config.load import BUILT_IN
from fastscreen.control import explain, scoring, serializers, stats, top_clients
from fastscreen.control.context import ServerContext
from fastscreen.control.event_feed import MAX_RATE, MAX_RECENT, Feed
from fastscreen.control.events import Map
from fastscreen.control.filters import compiled, network_term
from fastscreen.control.mx_policy import arrival
from fastscreen.control.protocol import Request
from fastscreen.control.session import Caller
from fastscreen.control.worker_rpc import Live, Stats
from fastscreen.core import read_records

MAX_EVIDENCE = 100  # events that `explain` looks at
MAX_STORY = 500  # events
MAX_WARNINGS = 200
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
    rate: Annotated[int, Meta(ge=1, le=MAX_RATE)] = 200
    recent: Annotated[int, Meta(ge=0, le=MAX_RECENT)] = 100


class Cancel(Struct, forbid_unknown_fields=True):
    of: int | float


class Clients(Struct, forbid_unknown_fields=True):
    by: Literal["address", "network"] = "address"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class CacheList(Struct, forbid_unknown_fields=True):
    prefix: Annotated[str, Meta(max_length=100)] = ""
    after: Annotated[str, Meta(max_length=100)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


async def status(context: ServerContext, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await stats.status(context)


async def config(context: ServerContext, wanted: Nothing, caller: Caller, request: Request) -> Map:
    """The configuration in force, so that a file can be compared with it; no value can be read from the answer."""
    source = context.config.source
    return {
        "source": source if source == BUILT_IN else str(Path(source).absolute()),
        "fingerprints": fingerprints(context.config),
    }


async def sessions(context: ServerContext, wanted: Sessions, caller: Caller, request: Request) -> Map:
    chosen = compiled(wanted.filter, context.names.now)
    answers = await context.worker_rpc.ask_all(Live(chosen.terms, wanted.sort, wanted.limit))
    total = matched = 0
    found: list[Map] = []
    for worker, answer in enumerate(answers):
        if answer is not None:
            total += answer[0]
            if chosen.worker(worker + 1):
                matched += answer[1]
                found += [serializers.session(worker, record) for record in read_records(answer[2])]
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
    first = [one | {"name": context.name(one["address"])} for one in found[: wanted.limit]]
    shown = {"total": total, "matched": matched, "sessions": first}
    return shown | {"missing": missing} if missing else shown


async def events(context: ServerContext, wanted: Events, caller: Caller, request: Request) -> Map:
    chosen = compiled(wanted.filter, context.names.now)
    heads = context.rings.heads()
    recent = await context.rings.recent(chosen, chosen.filter(), wanted.recent, heads) if wanted.recent else []
    caller.follow(request.id, Feed(context.rings, chosen, wanted.rate, heads), recent)
    return {}


async def cancel(context: ServerContext, wanted: Cancel, caller: Caller, request: Request) -> Map:
    return {"cancelled": caller.cancel(wanted.of)}


async def story(context: ServerContext, wanted: Address, caller: Caller, request: Request) -> Map:
    address = serializers.address(wanted.address)
    chosen = compiled("").with_term(network_term(serializers.network(address)))
    happened = await context.rings.recent(chosen, chosen.filter(), MAX_STORY, context.rings.heads())
    about = await context.about(address)
    stamps = await context.stamps(address, about)
    live = await sessions(context, Sessions(filter=address, limit=100), caller, request)
    said: list[Any] = next((answer["lists"] for answer in about if answer and answer["lists"]), [])
    return {
        "address": address,
        "name": context.name(address),
        "events": happened,
        "begins": context.rings.begins(),
        "cache": None if stamps is None else serializers.stamps_shown(stamps),
        "sessions": live["sessions"],
        "lists": [
            {
                "list": name,
                "state": state,
                "answers": answers,
                "weight": _weight(context, at, name, answers),
            }
            for at, (name, state, answers, _) in enumerate(said)
        ],
    }


def _weight(context: ServerContext, at: int, name: str, answers: list[str]) -> int:
    """What a worker's list number `at` adds to the score. Two may have one name, and a reload may have moved them."""
    named = [number for number, shown in enumerate(context.names.now) if shown == name]
    if not named:
        return 0
    return scoring.weight(context.config.dnsbl.sites, context.domains[at if at in named else named[0]], answers)


async def dnsbl(context: ServerContext, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await stats.dnsbl(context)


async def clients(context: ServerContext, wanted: Clients, caller: Caller, request: Request) -> Map:
    return await top_clients.talkers(context.rings, wanted.by == "network", wanted.limit)


async def warnings(context: ServerContext, wanted: Nothing, caller: Caller, request: Request) -> Map:
    found = sorted(
        (warning for book in context.warning_rings for warning in book.read()), key=lambda warning: warning[0]
    )
    return {"warnings": [{"time": when, "text": context.masked(text)} for when, text in found[-MAX_WARNINGS:]]}


async def explained(context: ServerContext, wanted: Explain, caller: Caller, request: Request) -> Map:
    address = serializers.address(wanted.address)
    server = serializers.address(wanted.server) if wanted.server else ""
    if context.trouble:
        raise ValueError(context.trouble)
    known = await context.known(address, await context.worker_rpc.ask_all(Stats()))
    where = arrival(context.config, context.interfaces, address, server)
    chosen = compiled("kind:evidence").with_term(network_term(serializers.network(address)))
    happened = await context.rings.recent(chosen, chosen.filter(), MAX_EVIDENCE, context.rings.heads())
    explained, name = await asyncio.gather(
        explain.explain(
            context.config,
            context.access,
            context.shown,
            known,
            context.bypass.until,
            address,
            where,
            context.lists_out - context.lists_suspect,
            context.lists_suspect,
            happened,
        ),
        context.name_found(address, NAME_SECONDS),
    )
    return explained | {"name": name}


async def cache_stats(context: ServerContext, wanted: Nothing, caller: Caller, request: Request) -> Map:
    return await stats.cache(context, await context.worker_rpc.ask_all(Stats()))


async def cache_get(context: ServerContext, wanted: Address, caller: Caller, request: Request) -> Map | None:
    address = serializers.address(wanted.address)
    stamps = await context.stamps(address, await context.about(address))
    shown = keys.shown(serializers.client_key(address, context.config.cache.prefix))
    return None if stamps is None else {"address": shown, "stamps": serializers.stamps_shown(stamps)}


async def cache_list(context: ServerContext, wanted: CacheList, caller: Caller, request: Request) -> Map:
    """What stands in the file; what the workers learnt in the last second may not be there yet."""
    network = serializers.network(wanted.prefix) if wanted.prefix else None
    after = serializers.key(wanted.after) if wanted.after else b""
    entries, more = await context.cached(lambda store: store.entries(network, after, wanted.limit))
    shown = [{"address": keys.shown(key), "stamps": serializers.stamps_shown(stamps)} for key, stamps in entries]
    return {"entries": shown, "more": more, "time": time.time()}
