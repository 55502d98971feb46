"""/metrics over HTTP/1.0 for Prometheus (docs/metrics.md): the numbers of `status` and `dnsbl` as metric families.

One answer per connection, few at a time, each within a time limit. A scrape asks the workers what `status` and `dnsbl`
ask them; these answers are shared and spaced (worker_rpc.py), so that a worker gets at most two requests in half a
second, however often it is scraped.

Names and labels have the shape of the Postfix exporter's postscreen metrics, so that its dashboards need only a new
prefix. A worker's counters have its number as a label: in a sum over workers, Prometheus would take a restarted worker,
or a missing answer, for a restart of all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from fastscreen.control import messages, stats
from fastscreen.control.context import ServerContext
from fastscreen.control.worker_rpc import Lists, Stats
from fastscreen.core import RANK_BOUNDS, TESTS
from fastscreen.process.conditions import Kind as ConditionKind

Map = dict[str, Any]
Kind = type[CounterMetricFamily] | type[GaugeMetricFamily]

_FAILED_TESTS = tuple(test.event for test in TESTS if test.event == test.key)  # "rank" comes whatever the score

MAX_SCRAPERS = 8
MAX_REQUEST = 8192  # bytes, headers and all
TIMEOUT = 10.0  # s for a request to come, and for its answer to be read
_NO_BODY = b"Content-Length: 0\r\nConnection: close\r\n\r\n"


async def serve(context: ServerContext, listener: socket.socket) -> asyncio.Server:
    """Serve at a listening socket, TCP or Unix."""
    server = _Server(context)
    if listener.family == socket.AF_UNIX:
        # The path is the supervisor's: after a restart it already leads to the new server's socket.
        return await asyncio.start_unix_server(server.called, sock=listener, limit=MAX_REQUEST, cleanup_socket=False)
    return await asyncio.start_server(server.called, sock=listener, limit=MAX_REQUEST)


class _Server:
    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._scrapers: dict[asyncio.StreamWriter, bool] = {}
        """The oldest first; whether it has asked."""

    async def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._scrapers) >= MAX_SCRAPERS and not self._make_room():
            writer.transport.abort()
            return
        self._scrapers[writer] = False
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT):
                    request = await _request(reader)
                if writer not in self._scrapers:
                    return
                self._scrapers[writer] = True
                writer.write(await self._answer(request))
                writer.close()
                async with asyncio.timeout(TIMEOUT):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._scrapers.pop(writer, None)

    def _make_room(self) -> bool:
        """Hang up on the caller that has been silent for longest, or else on one that does not read its answer."""
        silent = (writer for writer, asked in self._scrapers.items() if not asked)
        deaf = (writer for writer in self._scrapers if writer.transport.get_write_buffer_size())
        victim = next(silent, None) or next(deaf, None)
        if victim is not None:
            del self._scrapers[victim]
            victim.transport.abort()
        return victim is not None

    async def _answer(self, request: tuple[bytes, bytes] | None) -> bytes:
        if request is None:
            return b"HTTP/1.0 400 Bad Request\r\n" + _NO_BODY
        method, path = request
        if method not in (b"GET", b"HEAD"):
            return b"HTTP/1.0 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n" + _NO_BODY
        if path.partition(b"?")[0] != b"/metrics":
            return b"HTTP/1.0 404 Not Found\r\n" + _NO_BODY
        context = self._context
        body = generate_latest(await _snapshot(context))
        head = f"HTTP/1.0 200 OK\r\nContent-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (body if method == b"GET" else b"")


async def _snapshot(context: ServerContext) -> Snapshot:
    status, dnsbl = await stats.status(context), await stats.dnsbl(context)
    answers, lists = (
        await context.worker_rpc.ask_all(Stats()),
        await context.worker_rpc.ask_all(Lists()),
    )  # the same answers again
    workers = {
        str(at + 1): Worker(about, stats.by_name(context, listed or []))
        for at, (about, listed) in enumerate(zip(answers, lists, strict=True))
        if about is not None
    }
    return Snapshot(status, dnsbl, context.rings.details(), workers)


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Method and path, once the headers have ended; None if the request is invalid or too long."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    words = head.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return None
    return words[0], words[1]


# ---- metric families


class Worker(Struct, frozen=True):
    """One worker. stats: its answer to `Stats`. lists: its lists' counters by name."""

    stats: Map
    lists: Mapping[str, Map]


class Snapshot:
    """The numbers of one moment. details: as `Rings.details`. workers: by number."""

    def __init__(
        self, status: messages.Status, dnsbl: messages.Dnsbl, details: Map, workers: Mapping[str, Worker]
    ) -> None:
        self._status = status
        self._answers = workers
        self._dnsbl = dnsbl
        self._details = details

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order of docs/metrics.md."""
        yield from self._clients()
        yield from self._mta()
        yield from self._lists()
        yield from self._workers()
        yield from self._cluster()
        yield from self._history()
        yield from self._memory()
        yield from self._feedback()
        yield from self._daemon()

    def _clients(self) -> Iterator[Metric]:
        counts, details = self._status.counts, self._details
        yield _counter("connects", "Clients that connected", counts["connect"])
        yield _counters("connects_rejected", "Clients rejected by a limit", "reason", details["busy"])
        new = details["passed_new"]
        passes = {"new": new, "old": counts["passed"] - new + counts["cached"]}
        yield _counters("passes", "Clients with a PASS line", "type", passes)
        failed = {kind: counts[kind] for kind in _FAILED_TESTS}
        failed |= {f"command_{which}_limit": number for which, number in details["limits"].items()}
        yield _counters("tests_failed", "Failed tests", "test", failed)
        yield _counters("evidence", "Sessions in which a scorer found something", "scorer", details["evidence"])
        yield _counter("hangups", "Clients that hung up during the tests", counts["hangup"])
        found = {"allow": counts["allowlisted"], "deny": counts["denylisted"]}
        yield _counters("access_list_matches", "Clients that the access list permitted or rejected", "action", found)
        yield _counters(
            "messages_rejected", "Recipients rejected by the dummy SMTP engine", "code", details["rejected"]
        )
        yield _counter("rejected", "Sessions that were rejected, for any reason", counts["rejected"])
        would_be = counts["shadow_rejected"]
        yield _counter("shadow_rejected", "Clients that would have been rejected without shadow mode", would_be)
        responses = {key: counts[key] for key in ("score_deferred", "doubtful", "slowed")}
        yield _counters("score_responses", "Clients by what followed from a high score", "response", responses)
        yield _counter("vetoed", "Clients that connected to an address where no client passes", counts["vetoed"])
        yield _counter("bypassed", "Clients handed off untested during the bypass", counts["bypassed"])
        yield _ranks(details["ranks"], details["rank_sum"])

    def _mta(self) -> Iterator[Metric]:
        counts = self._status.counts
        yield _counter("handoffs", "Clients that the MTA accepted", counts["handed_off"])
        yield _counter("handoffs_failed", "Clients that no MTA accepted", counts["handoff_failed"])
        yield _counter("continued", "Sessions continued with the MTA at their first recipient", counts["continued"])
        yield _counter(
            "continue_failed", "Sessions that could not be continued because no MTA answered", counts["continue_failed"]
        )
        yield _counter("relayed", "Relayed sessions that have ended", counts["relayed"])

    def _lists(self) -> Iterator[Metric]:
        for field, about in (
            ("queries", "Queries to a list"),
            ("answers", "Answers of a list"),
            ("listed", "Answers that list the client"),
            ("unique", "Clients that no other list has listed"),
            ("timeouts", "Queries without an answer in time"),
            ("errors", "Answers that are errors"),
        ):
            family = CounterMetricFamily(f"fastscreen_dnsbl_{field}", about, labels=("worker", "list"))
            for number, worker in self._answers.items():
                for name, counted in worker.lists.items():
                    family.add_metric((number, name), counted[field])
            yield family
        took = "fastscreen_dnsbl_latency_seconds"
        latency = Metric(took, "Time to a list's answer since the start", "summary")  # quantiles make it one
        up = GaugeMetricFamily(
            "fastscreen_dnsbl_up", "0: the list has failed during the last minute, or is disabled", labels=("list",)
        )
        counts = GaugeMetricFamily(
            "fastscreen_dnsbl_in_score",
            "0: the list is disabled and ignored, or suspect: clients that it lists are deferred",
            labels=("list",),
        )
        for name, lists in self._lists_by_name().items():
            for quantile, field in (("0.5", "p50"), ("0.95", "p95")):
                if values := [getattr(one, field) for one in lists if getattr(one, field) is not None]:
                    latency.add_sample(took, {"list": name, "quantile": quantile}, max(values))
            states = {one.state for one in lists}
            up.add_metric((name,), not states & {"failing", "disabled"})
            counts.add_metric((name,), not states & {"suspect", "disabled"})
        yield latency
        yield up
        yield counts
        for field, about in (
            ("queries", "Queries to the resolvers"),
            ("answers", "Answers of the resolvers"),
            ("timeouts", "Queries that no resolver answered in time"),
            ("ignored_packets", "Packets that answer no query"),
        ):
            yield self._of_each(CounterMetricFamily, f"resolver_{field}", about, field)
        yield self._of_each(
            GaugeMetricFamily, "resolver_queries_in_flight", "Queries without an answer yet", "in_flight"
        )
        yield self._of_each(
            GaugeMetricFamily, "resolver_cached_clients", "Clients with DNSBL answers in memory", "cached"
        )

    def _lists_by_name(self) -> dict[str, list[messages.DnsblList]]:
        """`dnsbl.reply_map` may give one name to several lists: together they have the state of the worst of them."""
        found: dict[str, list[messages.DnsblList]] = {}
        for one in self._dnsbl.lists:
            found.setdefault(one.zone, []).append(one)
        return found

    def _of_each(self, kind: Kind, name: str, about: str, field: str) -> Metric:
        """A field of each worker's DNS counters."""
        values = {str(worker.number): getattr(worker.dns, field) for worker in self._status.workers}
        return _of_workers(kind, name, about, values)

    def _workers(self) -> Iterator[Metric]:
        workers = self._status.workers
        stages = GaugeMetricFamily("fastscreen_sessions", "Sessions by stage", labels=("worker", "stage"))
        for one in workers:
            for stage, number in one.stages.items():
                stages.add_metric((str(one.number), stage), number)
        yield stages
        for name, about, field in (
            ("tls_sessions", "Sessions in TLS", "tls"),
            ("clients", "Client addresses with a session", "clients"),
            ("stress", "1: in stress mode", "stress"),
            ("accepting", "0: accepting is paused because file descriptors have run out", "accepting"),
            ("resident_memory_bytes", "Resident memory", "rss"),
        ):
            yield _of_workers(
                GaugeMetricFamily, f"worker_{name}", about, {str(one.number): getattr(one, field) for one in workers}
            )
        for name, about, field in (
            ("accepted", "Connections accepted by the worker's process", "accepted"),
            ("log_lines_lost", "Log lines that could not be written", "log_lines_lost"),
            ("cpu_seconds", "CPU time", "cpu"),
        ):
            yield _of_workers(
                CounterMetricFamily, f"worker_{name}", about, {str(one.number): getattr(one, field) for one in workers}
            )
        limits = self._status.limits
        yield _gauge("pre_queue_limit", "Maximum number of sessions under test", limits["pre_queue"])
        yield _gauge("post_queue_limit", "Maximum number of hand-offs in flight", limits["post_queue"])
        yield _gauge("workers", "Workers that answered", len(workers))

    def _cluster(self) -> Iterator[Metric]:
        cluster = self._status.cluster
        if cluster is None:
            return
        up = cluster.running and cluster.connected
        yield _gauge("cluster_up", "1: the cluster's server can be used", up)
        for name, about, field in (
            ("lookups", "New clients that the cluster was asked about", "cluster_asked"),
            ("found", "New clients whose pass the cluster returned in time", "cluster_found"),
            ("waits_ended", "Greet waits that such a pass has ended", "cluster_ended"),
            ("answers_late", "Answers that a worker ignored because they were late", "cluster_late"),
            ("worker_packets_dropped", "Packets that the cluster process did not take in time", "cluster_dropped"),
        ):
            values = {number: worker.stats[field] for number, worker in self._answers.items()}
            yield _of_workers(CounterMetricFamily, f"cluster_{name}", about, values)
        if not cluster.running:
            return
        yield _gauge("cluster_round_trip_seconds", "Time of the last PING to the server and back", cluster.round_trip)
        for name, about, value in (
            ("unanswered", "Lookups that the server did not answer within cluster.budget", cluster.unanswered),
            ("stored", "Passes that the server has acknowledged", cluster.stored),
            ("queue_dropped", "Passes dropped from the queue, to be sent later from the cache", cluster.queue_dropped),
            ("packets_dropped", "Packets with answers that a worker did not take in time", cluster.packets_dropped),
        ):
            yield _counter(f"cluster_{name}", about, value)
        yield _gauge("cluster_queue_records", "Passes that are still to be stored", cluster.queue)
        yield _gauge("cluster_queue_bytes", "Memory that they take", cluster.queue_bytes)
        yield _gauge("cluster_queue_age_seconds", "How long the oldest of them has been waiting", cluster.queue_age)
        yield _counters("cluster_records_ignored", "Records that were not used", "reason", cluster.ignored)
        if (offenses := cluster.offenses) is not None:
            yield _counter("cluster_offenses_stored", "Networks whose offenses the server has taken", offenses.stored)
            yield _counter("cluster_offenses_found", "Networks whose offenses came from other hosts", offenses.found)
            yield _counter(
                "cluster_offenses_dropped", "Networks that are stored later, for lack of room", offenses.dropped
            )
            yield _gauge("cluster_offenses_queue", "Networks that are still to be stored", offenses.queue)
        peers = GaugeMetricFamily("fastscreen_cluster_peers", "Other hosts of the cluster", labels=("state",))
        away = sum(peer.away for peer in cluster.peers)
        peers.add_metric(("present",), len(cluster.peers) - away)
        peers.add_metric(("away",), away)
        yield peers

    def _history(self) -> Iterator[Metric]:
        history = self._status.history
        if history is None:
            return
        yield _gauge("history_up", "1: sessions are being recorded", history.running and history.recording)
        if not history.running:
            return
        yield _counter("history_sessions", "Sessions recorded since the start", history.sessions)
        yield _counter("history_lost", "Sessions lost before they could be recorded", history.lost)
        yield _gauge("history_waiting", "Sessions that are still to be recorded", history.waiting)
        yield _gauge("history_size_bytes", "Size of all files of the history", history.bytes)
        yield _gauge("history_days", "Days that have sessions in the history", history.days)
        yield _gauge(
            "history_oldest_time_seconds", "When the oldest of them began, in seconds since 1970", history.oldest
        )
        yield _gauge("history_set_aside", "Damaged files that were set aside", history.set_aside)

    def _memory(self) -> Iterator[Metric]:
        memory = self._status.memory
        if memory is None:
            return
        yield _gauge("offenses_up", "1: the memory of offenses is being written", memory.running and not memory.problem)
        if not memory.running:
            return
        yield _gauge("offenses_entries", "Networks and autonomous systems in the memory of offenses", memory.entries)
        yield _gauge("offenses_entries_limit", "Maximum number of them", memory.max_entries)
        yield _gauge("offenses_as_ranges", "Ranges in the file of autonomous systems", memory.systems)
        yield _gauge("offenses_size_bytes", "Size of its file", memory.bytes)
        yield _counter("offenses_bad", "How often an address was written for an offense", memory.bad)
        yield _counter("offenses_good", "How often an address was written for good conduct", memory.good)
        yield _counter("offenses_dropped", "Entries dropped for lack of room", memory.dropped)
        yield _counter("offenses_lost", "Addresses that could not be kept until they were written", memory.lost)
        yield _gauge("offenses_waiting", "Addresses that are still to be written", memory.waiting)
        yield _gauge("offenses_lag_seconds", "How long the first of them has been waiting", memory.lag)
        yield _counter("offenses_merged", "Entries changed by what other hosts of a cluster know", memory.merged)
        yield _counter("offenses_unshared", "Changed entries that other hosts do not learn of for now", memory.unshared)

    def _feedback(self) -> Iterator[Metric]:
        feedback = self._status.feedback
        if feedback is None:
            return
        yield _gauge("feedback_up", "1: the MTA's log is being read", feedback.running and not feedback.problem)
        if not feedback.running:
            return
        outcomes = CounterMetricFamily(
            "fastscreen_feedback_sessions", "Sessions of the MTA, by what its log says of them", labels=("outcome",)
        )
        for outcome in ("accepted", "rejected", "spam", "other", "unknown", "foreign", "ambiguous"):
            outcomes.add_metric((outcome,), getattr(feedback, outcome))
        yield outcomes
        yield _gauge("feedback_waiting", "Sessions whose outcome may still come", feedback.waiting)
        yield _counter("feedback_lines", "Lines of the log that were read", feedback.lines)
        yield _gauge("feedback_behind_bytes", "Bytes of the log that are still to be read", feedback.behind)
        yield _counter("feedback_skipped_bytes", "Bytes of the log that were skipped", feedback.skipped)
        yield _counter("feedback_slow", "Lines for which feedback.spam needed too long", feedback.slow)

    def _daemon(self) -> Iterator[Metric]:
        status = self._status
        yield _gauge("shadow", "1: in shadow mode, no client is rejected", status.mode == "shadow")
        if (cache := status.cache) is not None:
            for name, about in (
                ("cache_hits", "Clients found in the cache"),
                ("cache_misses", "Clients not found in it"),
            ):
                values = {number: worker.stats[name] for number, worker in self._answers.items()}
                yield _of_workers(CounterMetricFamily, name, about, values)
            yield _gauge("cache_entries", "Clients in the cache", cache.entries)
            yield _gauge("cache_size_bytes", "Size of the cache file", cache.size)
        until = status.bypass_until or 0
        yield _gauge("bypass_end_time_seconds", "When the bypass ends, in seconds since 1970; 0: it is off", until)
        yield _gauge("start_time_seconds", "When the daemon started, in seconds since 1970", status.started)
        if (reload := status.reload) is not None:
            yield _gauge("config_last_reload_successful", "0: the last reload was refused", reload.ok)
            yield _gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration in force was loaded, in seconds since 1970",
                reload.success_time,
            )
        held = GaugeMetricFamily("fastscreen_condition", "1: a fault of this kind holds now", labels=("kind",))
        since = GaugeMetricFamily(
            "fastscreen_condition_start_time_seconds",
            "When it began, in seconds since 1970; 0: it does not hold",
            labels=("kind",),
        )
        began: dict[str, float] = {}
        for one in status.conditions:
            began.setdefault(one.kind, one.since)  # the earliest comes first
        for kind in ConditionKind:
            held.add_metric((kind.label,), kind.label in began)
            since.add_metric((kind.label,), began.get(kind.label, 0.0))
        yield held
        yield since
        build = GaugeMetricFamily("fastscreen_build_info", "Always 1", labels=("version",))
        build.add_metric((status.version,), 1)
        yield build


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"fastscreen_{name}", about, value=value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fastscreen_{name}", about, value=value)


def _counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"fastscreen_{name}", about, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family


def _of_workers(kind: Kind, name: str, about: str, values: Mapping[str, float]) -> Metric:
    family = kind(f"fastscreen_{name}", about, labels=("worker",))
    for number, value in values.items():
        family.add_metric((number,), float(value))
    return family


def _ranks(counts: Iterable[int], total: int) -> Metric:
    """A histogram's buckets hold what the smaller ones hold, too."""
    buckets = []
    seen = 0
    for bound, number in zip((*(f"{bound}.0" for bound in RANK_BOUNDS), "+Inf"), counts, strict=True):
        seen += number
        buckets.append((bound, float(seen)))
    return HistogramMetricFamily("fastscreen_dnsbl_rank", "Scores at the end of the greet wait", buckets, float(total))
