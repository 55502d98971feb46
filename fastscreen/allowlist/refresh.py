"""A refresh: looks up every provider, and uses each new result or keeps the last good one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from msgspec import Struct, structs

from fastscreen.allowlist import networks
from fastscreen.allowlist.flatten import Questions, flatten
from fastscreen.allowlist.networks import Network
from fastscreen.allowlist.spf import SpfError
from fastscreen.allowlist.state import Entry, State
from fastscreen.config.providers import Source
from fastscreen.escaping import escape_text

AT_A_TIME = 8  # providers, each with one query at a time: a small host's resolver can handle that
PROVIDER_SECONDS = 120.0  # for all queries of a provider; one takes 15 s at most
LIST_SECONDS = 780.0  # for all providers: both lists end before the daemon kills the process (`schedule.MAX_SECONDS`)
FEW = (256, 65536)  # IPv4 addresses and IPv6 networks of /64: a /24 and a /48
_MAX_WHY = 3  # reasons per line
REFUSED_SHOWN = 50  # networks per provider; a record that is entirely wrong need not be repeated


class Change(Struct, frozen=True):
    """What a refresh did to one provider.

    added, removed: networks of the table. problem: why the last result is kept; empty if the new one is used.
    unreachable: no name server answered, which says nothing about the provider. sudden: the new result is valid, but
    its size changed too much. omitted, refused: only what the last refresh did not have.
    """

    name: str
    group: str
    count: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str = ""
    unreachable: bool = False
    sudden: bool = False
    good: float = 0.0
    omitted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class LookupResult(Struct, frozen=True):
    """What the DNS has for one provider, after the checks."""

    networks: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    problem: str = ""
    unreachable: bool = False


async def refresh(
    sources: Sequence[Source],
    before: State,
    ask: Questions,
    now: float,
    accept: Collection[str] = (),
    *,
    denied: bool = False,
) -> tuple[State, list[Change]]:
    """Look up all providers, several at a time. Never raises because of data from outside.

    now: s since 1970. accept: providers whose size may change this time. denied: clients in the networks are rejected.
    """
    slots = asyncio.Semaphore(AT_A_TIME)
    end = asyncio.get_running_loop().time() + LIST_SECONDS

    async def look_up_in_slot(source: Source) -> LookupResult:
        async with slots:
            return await look_up(source, ask, end)

    results = await asyncio.gather(*(look_up_in_slot(source) for source in sources))
    providers: dict[str, Entry] = {}
    changes = []
    for source, found in zip(sources, results, strict=True):
        last = before.providers.get(source.name)
        entry, sudden = updated_entry(source, last, found, now, source.name in accept, denied)
        providers[source.name] = entry
        changes.append(_change(source, last, entry, found.unreachable, sudden))
    gone = [name for name in before.providers if name not in providers]
    changes += [Change(name, before.providers[name].group, 0, removed=before.providers[name].networks) for name in gone]
    return State(refreshed=now, providers=providers), changes


async def look_up(source: Source, ask: Questions, end: float) -> LookupResult:
    """The networks of all domains of a provider. If one domain fails, the provider fails.

    end: deadline, by the loop's clock.
    """
    found: list[Network] = []
    omitted: list[str] = []
    own_end = asyncio.get_running_loop().time() + PROVIDER_SECONDS
    try:
        async with asyncio.timeout_at(min(own_end, end)):
            for domain in source.domains:
                flat = await flatten(domain, ask)
                found += flat.networks
                omitted += flat.omitted
    except SpfError as error:
        return LookupResult(problem=str(error), unreachable=error.kind == "temperror")
    except TimeoutError:
        within = f"{PROVIDER_SECONDS:g} s" if own_end <= end else f"the {LIST_SECONDS:g} s of a whole list"
        return LookupResult(problem=f"not looked up within {within}", unreachable=True)
    except Exception as error:  # the records of one provider must not prevent the refresh of others
        return LookupResult(problem=f"{type(error).__name__}: {escape_text(str(error))}")
    objections = {network: networks.objection(network) for network in dict.fromkeys(found)}
    kept = networks.aggregated(network for network, objection in objections.items() if not objection)
    refused = [f"{network} ({objection})" for network, objection in objections.items() if objection]
    if len(refused) > REFUSED_SHOWN:
        refused = [*refused[:REFUSED_SHOWN], f"and {len(refused) - REFUSED_SHOWN} more"]
    problem = ""
    if networks.too_much(kept):
        ipv4, ipv6 = networks.extent(kept)
        problem = f"{ipv4:,} IPv4 addresses and {ipv6:,} IPv6 networks of /64 are too much for one provider"
    elif not kept:
        why = [*(f"refused {text}" for text in refused), *(f"omitted {text}" for text in omitted)]
        problem = "its records do not contain a usable network" + (f": {', '.join(why[:_MAX_WHY])}" if why else "")
    return LookupResult(tuple(str(network) for network in kept), tuple(omitted), tuple(refused), problem)


def updated_entry(
    source: Source, last: Entry | None, found: LookupResult, now: float, accept: bool, denied: bool
) -> tuple[Entry, bool]:
    """A provider's entry after a look-up, and whether the result was not used because its size changed too much."""
    if last is None:
        last = Entry(source.group, source.domains)
    problem, sudden = found.problem, False
    if not problem and not accept and last.good and last.domains == source.domains:
        then, there = networks.parsed(last.networks), networks.parsed(found.networks)
        if sudden := shrank(then, there):
            problem = f"has less than half of its addresses (networks: {len(there)}, before {len(then)})"
        elif sudden := denied and grew(then, there):
            problem = f"has more than twice its addresses (networks: {len(there)}, before {len(then)})"
    if not problem:
        return Entry(source.group, source.domains, found.networks, now, now, "", found.omitted, found.refused), False
    # Keep the domains of the last result: it is not compared with the next one if the configured domains change.
    return structs.replace(last, group=source.group, tried=now, problem=problem), sudden


def shrank(before: Sequence[Network], after: Sequence[Network]) -> bool:
    """Whether less than half of the IPv4 or IPv6 addresses are left. Both arguments are aggregated."""
    return any(2 * now < then for then, now in zip(networks.extent(before), networks.extent(after), strict=True))


def grew(before: Sequence[Network], after: Sequence[Network]) -> bool:
    """Whether the IPv4 or IPv6 addresses have more than doubled, and are more than a few.

    A denied sender publishes the record, and could add networks of others to it.
    """
    both = zip(networks.extent(before), networks.extent(after), FEW, strict=True)
    return any(now > 2 * then and now > few for then, now, few in both)


def _change(source: Source, last: Entry | None, entry: Entry, unreachable: bool, sudden: bool) -> Change:
    had = last if last is not None else Entry(source.group, source.domains)
    before, after = set(had.networks), set(entry.networks)
    return Change(
        source.name,
        source.group,
        len(entry.networks),
        tuple(each for each in entry.networks if each not in before),
        tuple(each for each in had.networks if each not in after),
        entry.problem,
        unreachable,
        sudden,
        entry.good,
        tuple(each for each in entry.omitted if each not in had.omitted),
        tuple(each for each in entry.refused if each not in had.refused),
    )
