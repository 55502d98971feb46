"""The verb `explain`: gathers what a verdict about an address depends on, and says what would happen to it now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence

from msgspec import Struct

from fastscreen.cache import keys
from fastscreen.config import Config
from fastscreen.control import dnsbl_lookup, scoring
from fastscreen.control.cluster_client import SharedRecord
from fastscreen.control.dnsbl_lookup import Said
from fastscreen.control.messages import (
    AccessDecision,
    CachedAnswer,
    CachedTest,
    Event,
    Evidence,
    ExplainedList,
    Explanation,
    Site,
)
from fastscreen.control.mx_policy import Arrival
from fastscreen.control.protocol import expiry, list_state
from fastscreen.control.verdict import TESTS, Facts, Limits, judge
from fastscreen.core import cache_key_of
from fastscreen.dns.resolver import nameservers
from fastscreen.escaping import escape_bytes
from fastscreen.screening import policy
from fastscreen.screening.access_list import AccessList

SEEN = ("seen_address", "seen_network", "seen_as")
"""Scorers of the memory of offenses: what they say changes without the client, so they are asked again."""

MAX_SECONDS = 7.0  # s for the lists, so that the caller has not given up


class Known(Struct, frozen=True):
    """What the workers and the cache's file know of an address. sessions: that share its stamps. relayed: so many of
    these are. counted: that count for its limit. rate, network_rate: connections within the minute, of the client and
    its network. kept: lists' answers that they would use again.
    """

    sessions: int
    relayed: int
    counted: int
    rate: int
    network_rate: int
    stamps: tuple[int, ...] | None
    kept: dict[str, Said]
    limits: Limits


async def explain(
    config: Config, access: AccessList, shown: dict[str, str], known: Known, bypass_until: float | None, address: str,
    arrival: Arrival, out: frozenset[str], suspect: frozenset[str], happened: Sequence[Event],
    cluster: Awaitable[SharedRecord | None], seen: Sequence[Evidence] = (),
) -> Explanation:  # fmt: skip
    """address: in the core's form. arrival: where it comes in. out: lists whose answers are ignored now. suspect: lists
    whose listings are unsure. happened: events of the client that are evidence. cluster: what it knows of the client.
    seen: what the memory of offenses has against it now.
    """
    sites = config.dnsbl.sites
    domains = config.dnsbl.domains
    wait = config.greet.stress_wait if known.limits.stress else config.greet.wait
    seconds = min(MAX_SECONDS, config.dnsbl.timeout, wait)
    live, shared = await asyncio.gather(dnsbl_lookup.ask_lists(address, domains, nameservers(config), seconds), cluster)
    found = await asyncio.get_running_loop().run_in_executor(None, access.find, address)
    used = live | {domain: said for domain, said in known.kept.items() if domain in live}
    counting = {domain: said for domain, said in used.items() if domain not in out}
    facts = Facts(
        address=address,
        now=int(time.time()),
        access=found,
        bypassed=bypass_until is not None,
        sessions=known.sessions,
        relayed=known.relayed,
        counted=known.counted,
        rate=known.rate,
        network_rate=known.network_rate,
        stamps=known.stamps,
        score=scoring.score(sites, counting, suspect) if sites else None,
        asked=len(counting),
        shown=shown,
        limits=known.limits,
        key=keys.shown(cache_key_of(address, config.cache.prefix)),
        arrival=arrival,
        evidence=tuple(_last_evidence(config, happened)),
        seen=tuple(each for each in seen if each.weight),
        shared=shared,
        kept=counting.keys() <= known.kept.keys(),
    )
    verdict = judge(config, facts)
    return Explanation(
        address=address,
        time=time.time(),
        verdict=verdict.verdict,
        reply=verdict.reply,
        wait=verdict.wait,
        tests=verdict.tests,
        steps=verdict.steps,
        access=AccessDecision(found.decision, found.step or None, found.result),
        bypass_until=bypass_until,
        sessions=known.sessions,
        cache=_cached(config, known.stamps, facts.now),
        lists=[
            _list(
                config,
                shown,
                domain,
                live[domain],
                domain in known.kept,
                used[domain],
                domain not in out,
                domain in suspect,
            )
            for domain in domains
        ],
        evidence=[*facts.seen, *facts.evidence],
        score=facts.score.total if facts.score is not None else None,
        threshold=config.dnsbl.threshold,
        allowlist_threshold=config.dnsbl.allowlist_threshold,
        cluster=shared.message() if shared is not None else None,
    )


def _last_evidence(config: Config, happened: Sequence[Event]) -> Iterator[Evidence]:
    """Of the last of the client's sessions that has any, by the weights of now; what it said last counts."""
    if not happened:
        return
    last = happened[-1]
    found = {}
    for event in happened:
        if (event.worker, event.session) == (last.worker, last.session):
            scorer, _, text = escape_bytes(event.text).partition(": ")
            found[scorer] = text
    for scorer in last.evidence:
        if config.weights.get(scorer) and scorer not in SEEN:
            yield Evidence(scorer, config.weights[scorer], found.get(scorer, ""))


def _cached(config: Config, stamps: tuple[int, ...] | None, now: int) -> dict[str, CachedTest] | None:
    if stamps is None:
        return None
    enabled = policy.enabled_tests(config)
    return {
        name: CachedTest(expiry(stamp), now <= stamp, on)
        for name, stamp, on in zip(TESTS, stamps, enabled, strict=True)
    }


def _list(
    config: Config, shown: dict[str, str], domain: str, live: Said, kept: bool, used: Said, asked: bool, suspect: bool
) -> ExplainedList:
    """kept: a worker has an answer that it would use instead of a query; `used` is that, or the live one. asked: the
    list is not disabled. suspect: its listings are uncertain.
    """
    counted = asked and not (suspect and used.state == "listed")
    return ExplainedList(
        zone=shown.get(domain, domain),
        state=list_state(live.state),
        answers=list(live.addresses),
        seconds=live.took,
        sites=[
            Site(scoring.filter_text(site), site.weight, scoring.matches(site, used.addresses))
            for site in config.dnsbl.sites
            if site.domain == domain
        ],
        weight=scoring.weight(config.dnsbl.sites, domain, used.addresses) if counted else 0,
        counted=counted,
        suspect=suspect,
        cached=CachedAnswer(list_state(used.state), list(used.addresses)) if kept else None,
    )
