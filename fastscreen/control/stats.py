"""The verbs that add up what the workers count: status, cache.stats, dnsbl."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastscreen import __version__
from fastscreen.control import scoring
from fastscreen.control.context import ServerContext
from fastscreen.control.protocol import RequestError
from fastscreen.control.worker_rpc import Lists, Stats
from fastscreen.core import latency_percentile
from fastscreen.dns.health.state import State
from fastscreen.process.reload_state import Attempts

Map = dict[str, Any]

_DNS = ("asked", "answered", "timed_out", "ignored", "in_flight", "kept")
_OWN = (
    "sessions",
    "handoffs",
    "tls",
    "clients",
    "accepted",
    "handed",
    "stress",
    "accepting",
    "stages",
    "lost_log_lines",
    "stale_events",
)
_SUMMED = ("asked", "answered", "listed", "unique", "timed_out", "errors")


async def status(context: ServerContext) -> Map:
    answers = await context.worker_rpc.ask_all(Stats())
    workers = [_worker(at, answer) for at, answer in enumerate(answers) if answer is not None]
    limits = context.config.limits
    shown: Map = {
        "time": time.time(),
        "started": context.started,
        "version": __version__,
        "hostname": context.config.hostname,
        "pid": context.pid,
        "mode": context.config.mode,
        "bypass_until": context.bypass.until,
        "limits": {
            "pre_queue": sum(context.pre_queue(at) for at in range(len(context.worker_rpc))),
            "post_queue": limits.post_queue,
            "client_connection_count": limits.client_connection_count,
        },
        "counts": context.rings.counts(),
        "workers": workers,
        "cache": None,
        "lists": len(context.domains),
        "lists_out": [context.shown.get(domain, domain) for domain in context.domains if domain in context.lists_out],
    }
    shown["conditions"] = [
        {"kind": one.kind.label, "since": one.since, "text": context.masked(one.text), "remedy": one.kind.remedy}
        for one in context.conditions()
    ]
    shown["reload"] = outcome(context, context.reload_state.reload)
    shown["reopen"] = outcome(context, context.reload_state.reopen)
    shown["restart"] = outcome(context, context.reload_state.restart)
    with contextlib.suppress(RequestError):
        shown["cache"] = await cache(context, answers)
    if missing := [at + 1 for at, answer in enumerate(answers) if answer is None]:
        shown["missing"] = missing
    return shown


def outcome(context: ServerContext, attempts: Attempts) -> Map | None:
    """How the last reload (or reopening of the log, or refused restart) ended; before the first: as the start did."""
    last = attempts.read()
    if last is None:
        return None
    return {
        "begun": last.begun,
        "finished": last.finished,
        "ok": last.ok,
        "text": context.masked(last.text),
        "time": last.time or None,
        "success_time": last.success_time or context.started,
    }


def _worker(at: int, answer: Map) -> Map:
    return {
        "number": at + 1,
        "pid": answer["pid"],
        **{name: answer[name] for name in _OWN},
        "dns": {name: answer[f"dns_{name}"] for name in _DNS},
        "rss": _rss(answer["pid"]),
        "cpu": _cpu(answer["pid"]),
    }


def _rss(pid: int) -> int:
    """Octets; 0: it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpu(pid: int) -> float:
    """Seconds since its start."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def cache(context: ServerContext, answers: Sequence[Map | None]) -> Map:
    """answers: the workers' counters. RequestError: there is no cache, or it cannot be read."""
    found = await context.cached(lambda store: store.stats(context.enabled, time.time()))
    there = [answer for answer in answers if answer is not None]
    found["hits"] = sum(answer["cache_hits"] for answer in there)
    found["misses"] = sum(answer["cache_misses"] for answer in there)
    return found


# ---- lists


def by_name(context: ServerContext, answer: Sequence[Map]) -> dict[str, Map]:
    """A worker's counters by a list's name as it is shown: `dnsbl.reply_map` may give one name to many lists.

    answer: its answer to `Lists`. A worker may have other lists just now, while a reload is under way.
    """
    found: dict[str, Map] = {}
    for domain, one in zip(context.domains, answer, strict=False):
        name = context.shown.get(domain, domain)
        if one["list"] == name:
            total = found.setdefault(name, dict.fromkeys(_SUMMED, 0))
            for field in _SUMMED:
                total[field] += one[field]
    return found


async def dnsbl(context: ServerContext) -> Map:
    answers = await context.worker_rpc.ask_all(Lists())
    missing = [at + 1 for at, answer in enumerate(answers) if answer is None]
    lists = []
    for at, domain in enumerate(context.domains):
        name = context.shown.get(domain, domain)
        # A worker that has other lists just now (a reload is under way) is left out.
        counted = [answer[at] for answer in answers if answer and at < len(answer) and answer[at]["list"] == name]
        total: Map = {field: sum(one[field] for one in counted) for field in _SUMMED}
        health = context.list_health(domain)
        latency = [sum(column) for column in zip(*(one["latency"] for one in counted), strict=True)]
        lists.append(
            {
                "list": name,
                "sites": [
                    {"filter": scoring.filter_text(site), "weight": site.weight}
                    for site in context.config.dnsbl.sites
                    if site.domain == domain
                ],
                **total,
                "p50": latency_percentile(latency, 0.5),
                "p95": latency_percentile(latency, 0.95),
                "state": health.state.name.lower()
                if health.state is not State.WELL
                else context.recent.state(context.config, f"{at} {domain}", total, latency),
                "why": health.why.text if health.state is State.OUT else "",
            }
        )
    config = context.config.dnsbl
    shown = {"threshold": config.threshold, "allowlist_threshold": config.allowlist_threshold, "lists": lists}
    return shown | {"missing": missing} if missing else shown
