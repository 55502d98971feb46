"""The verbs that add up what the workers count: status, cache.stats, dnsbl."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastscreen import __version__
from fastscreen.control import scoring
from fastscreen.control.context import ServerContext
from fastscreen.control.messages import CacheStats, Condition, Dns, Dnsbl, DnsblList, Outcome, Site, Status, Worker
from fastscreen.control.protocol import RequestError
from fastscreen.control.recorder_status import feedback_status, memory_status, recorder_status
from fastscreen.control.worker_rpc import Lists, Stats
from fastscreen.core import latency_percentile
from fastscreen.dns.health.state import State
from fastscreen.process.reload_state import Attempts

Map = dict[str, Any]

STATES = {State.WELL: "", State.OUT: "disabled", State.SUSPECT: "suspect"}
"""Of a list's health; a healthy list's state is that of the last minute."""

_COUNTERS = {
    "queries": "asked",
    "answers": "answered",
    "listed": "listed",
    "unique": "unique",
    "timeouts": "timed_out",
    "errors": "errors",
}
"""A list's counters: our name, the core's."""


def missing(answers: Sequence[Any]) -> list[int]:
    """The numbers of the workers that gave no answer."""
    return [at + 1 for at, answer in enumerate(answers) if answer is None]


async def status(context: ServerContext) -> Status:
    answers = await context.worker_rpc.ask_all(Stats())
    limits = context.config.limits
    cache_stats = None
    with contextlib.suppress(RequestError):
        cache_stats = await cache(context, answers)
    return Status(
        time=time.time(),
        started=context.started,
        version=__version__,
        hostname=context.config.hostname,
        pid=context.pid,
        mode=context.config.mode,
        bypass_until=context.bypass.until,
        limits={
            "pre_queue": sum(context.pre_queue(at) for at in range(len(context.worker_rpc))),
            "post_queue": limits.post_queue,
            "client_connection_count": limits.client_connection_count,
        },
        counts=context.rings.counts(),
        workers=[_worker(at, answer) for at, answer in enumerate(answers) if answer is not None],
        missing_workers=missing(answers),
        cache=cache_stats,
        lists=len(context.domains),
        lists_unhealthy=[
            context.shown.get(domain, domain) for domain in context.domains if domain in context.lists_unhealthy
        ],
        conditions=[
            Condition(one.kind.label, one.since, context.masked(one.text), one.kind.remedy)
            for one in context.conditions()
        ],
        reload=outcome(context, context.reload_state.reload),
        reopen=outcome(context, context.reload_state.reopen),
        restart=outcome(context, context.reload_state.restart),
        cluster=context.cluster.stats(answers) if context.cluster is not None else None,
        history=(
            recorder_status(context.recorder, context.config.history.max_size) if context.recorder is not None else None
        ),
        memory=(
            memory_status(context.offense_state, context.config.score.memory_max_entries)
            if context.offense_state is not None
            else None
        ),
        feedback=(
            feedback_status(context.feedback_state, context.config.feedback.log)
            if context.feedback_state is not None and context.config.feedback.log
            else None
        ),
    )


def outcome(context: ServerContext, attempts: Attempts) -> Outcome | None:
    """How the last reload (or reopening of the log, or refused restart) ended; before the first: as the start did."""
    last = attempts.read()
    if last is None:
        return None
    return Outcome(
        begun=last.begun,
        finished=last.finished,
        ok=last.ok,
        text=context.masked(last.text),
        time=last.time or None,
        success_time=last.success_time or context.started,
    )


def _worker(at: int, answer: Map) -> Worker:
    return Worker(
        number=at + 1,
        pid=answer["pid"],
        sessions=answer["sessions"],
        handoffs=answer["handoffs"],
        tls=answer["tls"],
        clients=answer["clients"],
        accepted=answer["accepted"],
        handed_off=answer["handed"],
        stress=answer["stress"],
        accepting=answer["accepting"],
        stages=answer["stages"],
        dns=Dns(
            queries=answer["dns_asked"],
            answers=answer["dns_answered"],
            timeouts=answer["dns_timed_out"],
            ignored_packets=answer["dns_ignored"],
            in_flight=answer["dns_in_flight"],
            cached=answer["dns_kept"],
        ),
        log_lines_lost=answer["lost_log_lines"],
        stale_events=answer["stale_events"],
        rss=_rss(answer["pid"]),
        cpu=_cpu(answer["pid"]),
    )


def _rss(pid: int) -> int:
    """Bytes; 0: it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpu(pid: int) -> float:
    """Seconds since its start."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def cache(context: ServerContext, answers: Sequence[Map | None]) -> CacheStats:
    """answers: the workers' counters. Raises RequestError: the cache is disabled, or cannot be read."""
    found = await context.cached(lambda store: store.stats(context.enabled, time.time()))
    there = [answer for answer in answers if answer is not None]
    return msgspec.structs.replace(
        found,
        hits=sum(answer["cache_hits"] for answer in there),
        misses=sum(answer["cache_misses"] for answer in there),
    )


# ---- lists


def by_name(context: ServerContext, answer: Sequence[Map]) -> dict[str, Map]:
    """A worker's counters by a list's name as it is shown: `dnsbl.reply_map` may give one name to several lists.

    answer: its answer to `Lists`. While a reload is under way, a worker may have other lists.
    """
    found: dict[str, Map] = {}
    for domain, one in zip(context.domains, answer, strict=False):
        name = context.shown.get(domain, domain)
        if one["list"] == name:
            total = found.setdefault(name, dict.fromkeys(_COUNTERS, 0))
            for field, core_field in _COUNTERS.items():
                total[field] += one[core_field]
    return found


async def dnsbl(context: ServerContext) -> Dnsbl:
    answers = await context.worker_rpc.ask_all(Lists())
    config = context.config.dnsbl
    return Dnsbl(
        threshold=config.threshold,
        allowlist_threshold=config.allowlist_threshold,
        lists=[_list(context, at, domain, answers) for at, domain in enumerate(context.domains)],
        missing_workers=missing(answers),
    )


def _list(context: ServerContext, at: int, domain: str, answers: Sequence[Any]) -> DnsblList:
    name = context.shown.get(domain, domain)
    # A worker that has other lists just now (a reload is under way) is omitted.
    counted = [answer[at] for answer in answers if answer and at < len(answer) and answer[at]["list"] == name]
    total = {field: sum(one[core_field] for one in counted) for field, core_field in _COUNTERS.items()}
    health = context.list_health(domain)
    latency = [sum(column) for column in zip(*(one["latency"] for one in counted), strict=True)]
    return DnsblList(
        zone=name,
        sites=[
            Site(scoring.filter_text(site), site.weight) for site in context.config.dnsbl.sites if site.domain == domain
        ],
        **total,
        p50=latency_percentile(latency, 0.5),
        p95=latency_percentile(latency, 0.95),
        state=STATES[health.state] or context.recent.state(context.config, f"{at} {domain}", total, latency),
        reason=health.why.text if health.state is State.OUT else "",
    )
