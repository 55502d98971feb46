"""The commands of the control protocol: who answers each request, first those that read, then those that act."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.config.changes import fingerprints
from fastscreen.config.load import BUILT_IN
from fastscreen.control import explain, history, messages, protocol, scoring, stats, top_clients
from fastscreen.control.bypass import MAX_SECONDS
from fastscreen.control.context import ServerContext
from fastscreen.control.event_feed import Feed
from fastscreen.control.filters import compiled, network_term
from fastscreen.control.mx_policy import arrival
from fastscreen.control.offense_search import Wanted
from fastscreen.control.protocol import Request, RequestError
from fastscreen.control.session import Caller
from fastscreen.control.worker_rpc import Live, Remember, Stats
from fastscreen.core import read_records
from fastscreen.escaping import one_line, unexpected
from fastscreen.process.reload_state import Attempts

if TYPE_CHECKING:
    from fastscreen.core import EventTuple

MAX_EVIDENCE = 100  # events that `explain` looks at
MAX_STORY = 500  # events
MAX_WARNINGS = 200
MAX_EXPLAINED = 5  # recorded sessions in `explain`
HISTORY_SECONDS = 2.0  # how long `explain` waits for them
NAME_SECONDS = 2.0  # how long `explain` waits for a client's name while it queries the lists


Result = TypeVar("Result")


class Call(NamedTuple):
    """A request under way. id: as its caller numbered it."""

    context: ServerContext
    caller: Caller
    id: int | float


Handler = Callable[[Call, Any], Awaitable[Any]]


class Command(Struct, frozen=True):
    """acts: it changes something. large: its answer may take megabytes while it is made, so only a few are made at a
    time.
    """

    request: type[messages.Request[Any]]
    handler: Handler
    acts: bool = False
    large: bool = False


async def answer(context: ServerContext, caller: Caller, request: Request) -> Any:
    """What `ok` is. Raises RequestError."""
    command = COMMANDS.get(request.verb)
    if command is None:
        raise RequestError(f"{request.verb[:40]!a} is unknown; expected {', '.join(COMMANDS)}")
    if command.acts and not caller.may_act:
        raise RequestError(f"{request.verb}: only root and fastscreen's user may act; this is user {caller.uid}")
    try:
        wanted = msgspec.convert(request.arguments, command.request)
    except msgspec.ValidationError as error:
        raise RequestError(f"{request.verb}: {one_line(error)}") from None
    try:
        call = Call(context, caller, request.id)
        if not command.large:
            return await command.handler(call, wanted)
        async with context.turns[caller.may_act]:
            return await command.handler(call, wanted)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(one_line(error)) from None
    except Exception as error:  # whatever it is: the others are still served
        context.warn(f"control socket: {request.verb}: {unexpected(error)}")
        raise RequestError(f"{request.verb}: failed; see the log") from None


# ---- reading


async def status(call: Call, wanted: messages.StatusRequest) -> messages.Status:
    return await stats.status(call.context)


async def config(call: Call, wanted: messages.ConfigRequest) -> messages.RunningConfig:
    """The configuration in force, so that a file can be compared with it; no value can be read from the answer."""
    source = call.context.config.source
    return messages.RunningConfig(
        source if source == BUILT_IN else str(Path(source).absolute()), fingerprints(call.context.config)
    )


async def sessions(call: Call, wanted: messages.SessionsRequest) -> messages.Sessions:
    context = call.context
    chosen = compiled(wanted.filter, context.names.now)
    answers = await context.worker_rpc.ask_all(Live(chosen.terms, wanted.sort, wanted.limit))
    total = matched = 0
    found: list[tuple[int, EventTuple]] = []
    for worker, answer in enumerate(answers):
        if answer is not None:
            total += answer[0]
            if chosen.worker(worker + 1):
                matched += answer[1]
                found += [(worker, record) for record in read_records(answer[2])]
    found.sort(key=lambda one: _ORDERS[wanted.sort](one[1]))
    return messages.Sessions(
        total=total,
        matched=matched,
        sessions=[
            protocol.session(worker, record, context.name(record[4])) for worker, record in found[: wanted.limit]
        ],
        missing_workers=stats.missing(answers),
    )


def _by_address(record: EventTuple) -> Any:
    packed = ipaddress.ip_address(record[4]).packed
    return len(packed), packed


# By an EventTuple: 4 is the address, 8 the score, 10 the age.
_ORDERS: dict[str, Callable[[EventTuple], Any]] = {
    "age": lambda record: -record[10],
    "new": lambda record: record[10],
    "score": lambda record: (record[8] is None, -(record[8] or 0), -record[10]),
    "address": _by_address,
}


async def events(call: Call, wanted: messages.EventsRequest) -> dict[str, Any]:
    rings = call.context.rings
    chosen = compiled(wanted.filter, call.context.names.now)
    heads = rings.heads()
    recent = await rings.recent(chosen, chosen.filter(), wanted.recent, heads) if wanted.recent else []
    call.caller.follow(call.id, Feed(rings, chosen, wanted.rate, heads), recent)
    return {}


async def cancel(call: Call, wanted: messages.CancelRequest) -> messages.Cancelled:
    return messages.Cancelled(call.caller.cancel(wanted.of))


async def story(call: Call, wanted: messages.StoryRequest) -> messages.Story:
    context = call.context
    address = protocol.address(wanted.address)
    chosen = compiled("").with_term(network_term(protocol.network(address)))
    happened = await context.rings.recent(chosen, chosen.filter(), MAX_STORY, context.rings.heads())
    about = await context.about(address)
    stamps = await context.stamps(address, about)
    live = await sessions(call, messages.SessionsRequest(filter=address, limit=100))
    memory, found = await _remembered(context, address)
    said: list[Any] = next((answer["lists"] for answer in about if answer and answer["lists"]), [])
    return messages.Story(
        address=address,
        name=context.name(address),
        events=happened,
        complete_since=context.rings.complete_since(),
        cache=None if stamps is None else protocol.passed_until(stamps),
        sessions=live.sessions,
        lists=[
            messages.ListAnswer(
                zone=name,
                state=protocol.list_state(state),
                answers=answers,
                weight=_weight(context, at, name, answers),
            )
            for at, (name, state, answers, _) in enumerate(said)
        ],
        memory=memory,
        seen=found,
    )


def _weight(context: ServerContext, at: int, name: str, answers: list[str]) -> int:
    """What a worker's list number `at` adds to the score. Two may have one name, and a reload may have moved them."""
    named = [number for number, shown in enumerate(context.names.now) if shown == name]
    if not named:
        return 0
    return scoring.weight(context.config.dnsbl.sites, context.domains[at if at in named else named[0]], answers)


async def dnsbl(call: Call, wanted: messages.DnsblRequest) -> messages.Dnsbl:
    return await stats.dnsbl(call.context)


async def clients(call: Call, wanted: messages.ClientsRequest) -> messages.Clients:
    return await top_clients.top_clients(call.context.rings, wanted.by == "network", wanted.limit)


async def warnings(call: Call, wanted: messages.WarningsRequest) -> messages.Warnings:
    context = call.context
    found = sorted(
        (warning for ring in context.warning_rings for warning in ring.read()), key=lambda warning: warning[0]
    )
    return messages.Warnings([messages.Warning(when, context.masked(text)) for when, text in found[-MAX_WARNINGS:]])


async def explained(call: Call, wanted: messages.ExplainRequest) -> messages.Explanation:
    context = call.context
    address = protocol.address(wanted.address)
    server = protocol.address(wanted.server) if wanted.server else ""
    if context.trouble:
        raise ValueError(context.trouble)
    known = await context.known(address, await context.worker_rpc.ask_all(Stats()))
    where = arrival(context.config, context.interfaces, address, server)
    chosen = compiled("kind:evidence").with_term(network_term(protocol.network(address)))
    happened = await context.rings.recent(chosen, chosen.filter(), MAX_EVIDENCE, context.rings.heads())
    explanation, name, recorded = await asyncio.gather(
        explain.explain(
            context.config,
            context.access,
            context.shown,
            known,
            context.bypass.until,
            address,
            where,
            context.lists_unhealthy - context.lists_suspect,
            context.lists_suspect,
            happened,
            context.shared_record(address),
            await _seen_now(context, address),
        ),
        context.name_found(address, NAME_SECONDS),
        _recorded(call, address),
    )
    return msgspec.structs.replace(explanation, name=name, history=recorded)


async def _seen_now(context: ServerContext, address: str) -> list[messages.Evidence]:
    """What the memory of offenses has against a client. Without a memory, or if it cannot be read: nothing."""
    if context.offenses is None:
        return []
    try:
        return await seen(context, address)
    except RequestError:
        return []


async def _remembered(
    context: ServerContext, address: str
) -> tuple[list[messages.Reputation] | None, list[messages.Evidence]]:
    """What the memory of offenses knows of a client, and what it has against it. None: as above."""
    if context.offenses is None:
        return None, []
    try:
        found = await context.remembered(lambda store: store.of_address(address))
    except RequestError:
        return None, []
    return found, await _seen_now(context, address)


async def _recorded(call: Call, address: str) -> list[messages.HistorySession] | None:
    """A client's latest recorded sessions. None: none are recorded, or they cannot be read in time."""
    wanted = messages.HistorySessionsRequest(address=address, limit=MAX_EXPLAINED)
    try:
        async with asyncio.timeout(HISTORY_SECONDS):
            return (await history_sessions(call, wanted)).sessions
    except (RequestError, TimeoutError):
        return None


# ---- the past


async def history_covered(call: Call, wanted: messages.HistoryRequest) -> messages.History:
    reader = call.context.history
    return await _past(call, reader.covered) if reader.folder else messages.History()


async def history_minutes(call: Call, wanted: messages.HistoryMinutesRequest) -> messages.HistoryMinutes:
    return await _past(call, history.minutes(wanted))


async def history_sessions(call: Call, wanted: messages.HistorySessionsRequest) -> messages.HistorySessions:
    address = protocol.address(wanted.address) if wanted.address else ""
    wanted = msgspec.structs.replace(wanted, address=address)
    return await _past(call, history.sessions(wanted, time.time(), call.context.config.history.mask))


async def history_clients(call: Call, wanted: messages.HistoryClientsRequest) -> messages.PastClients:
    return await _past(call, history.clients(wanted, time.time()))


async def _past(call: Call, work: history.Work[Result]) -> Result:
    return await call.context.history.read(work, uid=call.caller.uid, may_act=call.caller.may_act)


# ---- the cache


async def cache_stats(call: Call, wanted: messages.CacheStatsRequest) -> messages.CacheStats:
    return await stats.cache(call.context, await call.context.worker_rpc.ask_all(Stats()))


async def cache_get(call: Call, wanted: messages.CacheGetRequest) -> messages.CacheEntry | None:
    context = call.context
    address = protocol.address(wanted.address)
    stamps = await context.stamps(address, await context.about(address))
    shown = keys.shown(protocol.client_key(address, context.config.cache.prefix))
    return None if stamps is None else messages.CacheEntry(shown, protocol.passed_until(stamps))


async def cache_list(call: Call, wanted: messages.CacheListRequest) -> messages.CacheEntries:
    """The content of the file; what the workers have learned in the last second may not be there yet."""
    network = protocol.network(wanted.prefix) if wanted.prefix else None
    after = protocol.key(wanted.after) if wanted.after else b""
    entries, more = await call.context.cached(lambda store: store.entries(network, after, wanted.limit))
    shown = [messages.CacheEntry(keys.shown(key), protocol.passed_until(stamps)) for key, stamps in entries]
    return messages.CacheEntries(shown, more, time.time())


async def reputation_get(call: Call, wanted: messages.ReputationGetRequest) -> messages.Reputations:
    """The writer adds what sessions of the last second did."""
    context = call.context
    subject = protocol.reputation_subject(wanted.subject)
    evidence: list[messages.Evidence] = []
    if isinstance(subject, int):
        number = subject
        found = await context.remembered(lambda store: store.of_system(number))
    elif subject.num_addresses > 1:
        network = subject
        found = await context.remembered(lambda store: store.of_network(network))
    else:
        address = str(subject.network_address)
        found = await context.remembered(lambda store: store.of_address(address))
        evidence = await seen(context, address)
    return _reputations(context, found, evidence=evidence)


async def seen(context: ServerContext, address: str) -> list[messages.Evidence]:
    """What the scorers of the memory find against an address, by the weights of now."""
    weights = context.config.weights
    texts = await context.remembered(lambda store: store.evidence(address))
    return [messages.Evidence(scorer, weights[scorer], text) for scorer, text in texts]


async def reputation_list(call: Call, wanted: messages.ReputationListRequest) -> messages.Reputations:
    """What is found within a moment; a search that is not over goes on with the next request."""
    within = protocol.reputation_subject(wanted.within) if wanted.within else None
    if within is not None and wanted.kind == "as":
        raise RequestError("reputation.list: within: expected only with networks")
    search = Wanted(wanted.kind, wanted.sort, within)
    found, number, more = await call.context.remembered(lambda store: store.worst(search, wanted.start, wanted.limit))
    return msgspec.structs.replace(_reputations(call.context, found, more=more), found=number)


async def reputation_export(call: Call, wanted: messages.ReputationExportRequest) -> messages.Reputations:
    try:
        after = bytes.fromhex(wanted.after)
    except ValueError:
        raise RequestError("reputation.export: after: expected `next` of the page before") from None
    found, place = await call.context.remembered(lambda store: store.page(None, after, wanted.limit))
    return _reputations(call.context, found, more=bool(place), place=place)


def _reputations(
    context: ServerContext,
    found: list[messages.Reputation],
    *,
    more: bool = False,
    place: bytes = b"",
    evidence: Sequence[messages.Evidence] = (),
) -> messages.Reputations:
    days = context.offenses.rules.days if context.offenses is not None else 0
    return messages.Reputations(found, more, place.hex(), list(evidence), days, time.time())


# ---- acting


async def reload(call: Call, wanted: messages.ReloadRequest) -> messages.Begun:
    """Have the configuration read again. The outcome is in `status` when `reload.finished` has reached `number`."""
    return messages.Begun(_attempt(call, "reload", call.context.reload_state.reload, signal.SIGHUP))


async def reopen(call: Call, wanted: messages.ReopenRequest) -> messages.Begun:
    """Have the log opened again; as above, with `reopen.finished`."""
    return messages.Begun(_attempt(call, "reopen", call.context.reload_state.reopen, signal.SIGUSR1))


async def restart(call: Call, wanted: messages.RestartRequest) -> messages.Daemon:
    """Have the daemon replace itself by a new one, which takes over the listening sockets. When that is refused,
    `restart.finished` in `status` reaches `number`.
    """
    context = call.context
    number = _attempt(call, "restart", context.reload_state.restart, signal.SIGUSR2)
    return messages.Daemon(context.pid, context.started, number)


async def stop(call: Call, wanted: messages.StopRequest) -> messages.Daemon:
    """Have the daemon stop: clients in hand may finish. A second time: at once."""
    _signal(call, "stop", signal.SIGTERM)
    return messages.Daemon(call.context.pid, call.context.started)


def _attempt(call: Call, what: str, attempts: Attempts, number: signal.Signals) -> int:
    """Signal, and return the number of the first attempt that sees everything written before now."""
    last = attempts.read()
    if last is None:
        raise RequestError(f"{what}: the state of the last one is being written: ask again")
    _signal(call, what, number)
    return last.begun + 1


def _signal(call: Call, what: str, number: signal.Signals) -> None:
    """Signal the supervisor."""
    context = call.context
    if os.getppid() != context.pid:
        raise RequestError(f"{what}: the supervising process has ended")
    context.log.info(f"{what} requested by user {call.caller.uid}")
    context.log.flush()
    try:
        os.kill(context.pid, number)
    except OSError as error:
        raise RequestError(f"{what}: the supervising process cannot be signaled: {error.strerror}") from None


async def cache_delete(call: Call, wanted: messages.CacheDeleteRequest) -> messages.Deleted:
    """From the file, from what the workers have not written yet, and from the other hosts of a cluster."""
    if bool(wanted.address) == bool(wanted.prefix):
        raise RequestError("cache.delete: expected either an address or a prefix")
    context = call.context
    named = protocol.network(protocol.address(wanted.address) if wanted.address else wanted.prefix)
    network = keys.widened(named, context.config.cache.prefix)
    # The cluster first, so that no worker learns of a deleted pass again; nothing here waits for its server.
    elsewhere = asyncio.ensure_future(context.cluster.delete(network)) if context.cluster is not None else None
    try:
        unwritten = await context.forget(network)
        deleted, more = 0, False
        if context.store is not None or elsewhere is None:
            deleted, more = await context.cached(lambda store: store.delete(network))
        context.log.info(f"cache: user {call.caller.uid} deleted {network}: {deleted} {_entries(deleted)}")
        context.log.flush()
    finally:
        if elsewhere is not None:
            await asyncio.gather(elsewhere, return_exceptions=True)
    sent = elsewhere.result() if elsewhere is not None else None
    # An unwritten record may have been in the file as well: it is counted once when one client is meant.
    if named.num_addresses == 1:
        deleted = min(1, deleted + sum(number or 0 for number in unwritten))
    return messages.Deleted(deleted, more, sent)


async def reputation_delete(call: Call, wanted: messages.ReputationDeleteRequest) -> messages.Deleted:
    """What a client did in the last second may still be written afterwards."""
    context = call.context
    subject = protocol.reputation_subject(wanted.subject)
    sent: bool | None = None
    if isinstance(subject, int):
        number = subject
        deleted, more = await context.remembered(lambda store: store.delete_system(number))
        shown = f"AS{number}"
    else:
        network = subject
        # The cluster first, so that nothing comes back from it.
        elsewhere = asyncio.ensure_future(context.forget_elsewhere(network))
        try:
            deleted, more = await context.remembered(lambda store: store.delete(network))
        finally:
            await asyncio.gather(elsewhere, return_exceptions=True)
        shown = str(network)
        sent = elsewhere.result()
    context.log.info(f"memory of offenses: user {call.caller.uid} deleted {shown}: {deleted} {_entries(deleted)}")
    context.log.flush()
    return messages.Deleted(deleted, more, sent)


async def cache_import(call: Call, wanted: messages.CacheImportRequest) -> messages.Stored:
    """Into the file; what the workers have not written yet must not undo it."""
    context = call.context
    prefix = context.config.cache.prefix
    records = [
        (protocol.client_key(each.address, prefix), protocol.stamps(each.passed_until)) for each in wanted.entries
    ]
    await context.cached(lambda store: store.put(records))
    await context.worker_rpc.ask_all(Remember(records))
    context.log.info(f"cache: user {call.caller.uid} imported {len(records)} {_entries(len(records))}")
    context.log.flush()
    return messages.Stored(len(records))


def _entries(number: int) -> str:
    return "entry" if number == 1 else "entries"


async def bypass(call: Call, wanted: messages.BypassRequest) -> messages.Bypass:
    if not wanted.seconds <= MAX_SECONDS:
        raise RequestError(f"bypass: {wanted.seconds:g} s; expected at most {MAX_SECONDS:g}, one day")
    return messages.Bypass(call.context.bypass.switch(wanted.seconds, call.caller.uid))


# ----

COMMANDS = {
    command.request.verb: command
    for command in (
        Command(messages.StatusRequest, status),
        Command(messages.ConfigRequest, config),
        Command(messages.SessionsRequest, sessions, large=True),
        Command(messages.EventsRequest, events, large=True),
        Command(messages.CancelRequest, cancel),
        Command(messages.StoryRequest, story, large=True),
        Command(messages.DnsblRequest, dnsbl),
        Command(messages.ClientsRequest, clients, large=True),
        Command(messages.WarningsRequest, warnings),
        Command(messages.ExplainRequest, explained),
        Command(messages.HistoryRequest, history_covered),
        Command(messages.HistoryMinutesRequest, history_minutes),
        Command(messages.HistorySessionsRequest, history_sessions),
        Command(messages.HistoryClientsRequest, history_clients),
        Command(messages.ReputationGetRequest, reputation_get),
        Command(messages.ReputationListRequest, reputation_list, large=True),
        Command(messages.ReputationExportRequest, reputation_export, large=True),
        Command(messages.ReputationDeleteRequest, reputation_delete, acts=True),
        Command(messages.CacheStatsRequest, cache_stats),
        Command(messages.CacheGetRequest, cache_get),
        Command(messages.CacheListRequest, cache_list, large=True),
        Command(messages.CacheDeleteRequest, cache_delete, acts=True),
        Command(messages.CacheImportRequest, cache_import, acts=True),
        Command(messages.BypassRequest, bypass, acts=True),
        Command(messages.ReloadRequest, reload, acts=True),
        Command(messages.ReopenRequest, reopen, acts=True),
        Command(messages.RestartRequest, restart, acts=True),
        Command(messages.StopRequest, stop, acts=True),
    )
}
