"""A refresh: every provider is looked up, and what comes is taken, or the last good result kept."""

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

AT_A_TIME = 8  # providers, each with one question on its way: a small host's resolver takes them
PROVIDER_SECONDS = 120.0  # for all its questions; one takes 15 s at most
LIST_SECONDS = 780.0  # for all providers: both lists end before the daemon kills the process (`schedule.MAX_SECONDS`)
FEW = (256, 65536)  # IPv4 addresses and IPv6 networks of /64: a /24 and a /48
_MAX_WHY = 3  # reasons in a line
REFUSED_SHOWN = 50  # networks a provider; a record that is all wrong need not be repeated


class Change(Struct, frozen=True):
    """What a refresh did to one provider.

    added, removed: networks of the table. problem: why there is no good result now; empty: there is.
    unreachable: no name server answered, which says nothing of the provider. sudden: a good result, of another size.
    left_out, refused: what was not so at the last refresh.
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
    left_out: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Looked(Struct, frozen=True):
    """What the DNS says of one provider, judged."""

    networks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
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
    """Look all up, several at a time. Never raises for what comes from outside.

    now: s since 1970. accept: names of providers that may shrink or grow this time. denied: they are turned away.
    """
    room = asyncio.Semaphore(AT_A_TIME)
    end = asyncio.get_running_loop().time() + LIST_SECONDS

    async def in_turn(source: Source) -> Looked:
        async with room:
            return await look_up(source, ask, end)

    looked = await asyncio.gather(*(in_turn(source) for source in sources))
    providers: dict[str, Entry] = {}
    changes = []
    for source, found in zip(sources, looked, strict=True):
        last = before.providers.get(source.name)
        entry, sudden = decided(source, last, found, now, source.name in accept, denied)
        providers[source.name] = entry
        changes.append(_change(source, last, entry, found.unreachable, sudden))
    gone = [name for name in before.providers if name not in providers]
    changes += [Change(name, before.providers[name].group, 0, removed=before.providers[name].networks) for name in gone]
    return State(refreshed=now, providers=providers), changes


async def look_up(source: Source, ask: Questions, end: float) -> Looked:
    """The networks of all domains of a provider. One domain without a good result: there is none.

    end: when there must be a result, by the loop's clock.
    """
    found: list[Network] = []
    left_out: list[str] = []
    own_end = asyncio.get_running_loop().time() + PROVIDER_SECONDS
    try:
        async with asyncio.timeout_at(min(own_end, end)):
            for domain in source.domains:
                flat = await flatten(domain, ask)
                found += flat.networks
                left_out += flat.left_out
    except SpfError as error:
        return Looked(problem=str(error), unreachable=error.kind == "temperror")
    except TimeoutError:
        within = f"{PROVIDER_SECONDS:g} s" if own_end <= end else f"the {LIST_SECONDS:g} s of a whole list"
        return Looked(problem=f"not looked up within {within}", unreachable=True)
    except Exception as error:  # one provider's records, whatever is in them, keep no other from being refreshed
        return Looked(problem=f"{type(error).__name__}: {escape_text(str(error))}")
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
        why = [*(f"refused {text}" for text in refused), *(f"omitted {text}" for text in left_out)]
        problem = "its records have no network that can be used" + (f": {', '.join(why[:_MAX_WHY])}" if why else "")
    return Looked(tuple(str(network) for network in kept), tuple(left_out), tuple(refused), problem)


def decided(
    source: Source, last: Entry | None, found: Looked, now: float, accept: bool, denied: bool
) -> tuple[Entry, bool]:
    """What is known of a provider after a look-up, and whether its result was not taken because of its size."""
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
        return Entry(source.group, source.domains, found.networks, now, now, "", found.left_out, found.refused), False
    # The last result was of the domains that it was looked up for: with others, the next good one is no shrinking.
    return structs.replace(last, group=source.group, tried=now, problem=problem), sudden


def shrank(before: Sequence[Network], after: Sequence[Network]) -> bool:
    """Whether less than half of the addresses are left, of IPv4's or of IPv6's; of both aggregated networks."""
    return any(2 * now < then for then, now in zip(networks.extent(before), networks.extent(after), strict=True))


def grew(before: Sequence[Network], after: Sequence[Network]) -> bool:
    """Whether there are more than twice the addresses, of IPv4's or of IPv6's, and not just a few.

    Whoever is denied writes the record himself, and may put the networks of others there.
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
        tuple(each for each in entry.left_out if each not in had.left_out),
        tuple(each for each in entry.refused if each not in had.refused),
    )
