"""What /metrics shows (docs/metrics.md): the counters of `status` and `dnsbl`, as Prometheus' families of samples.

Names and labels have the shape of the Postfix exporter's postscreen metrics, so that its boards need a new prefix only.
What a worker counts has its number as a label: of a sum of workers, Prometheus would take the end of one, or an answer
that is missing, for a start from 0 of all of them, and show what they have counted so far as if it were new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fastscreen.core import RANK_BOUNDS, TESTS
from fastscreen.process.conditions import Kind as ConditionKind

Map = dict[str, Any]
Kind = type[CounterMetricFamily] | type[GaugeMetricFamily]

_FAILED_TESTS = tuple(test.event for test in TESTS if test.event == test.key)  # "rank" comes whatever the score


class Worker(Struct, frozen=True):
    """What one worker says. stats: its answer to `Stats`; lists: its lists' counters by name."""

    stats: Map
    lists: Mapping[str, Map]


class Snapshot:
    """One moment's numbers. status, dnsbl: as the verbs answer; details: as `Rings.details`; workers: by number."""

    def __init__(self, status: Map, dnsbl: Map, details: Map, workers: Mapping[str, Worker]) -> None:
        self._status = status
        self._said = workers
        self._dnsbl = dnsbl
        self._details = details

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order of docs/metrics.md."""
        yield from self._front_door()
        yield from self._mta()
        yield from self._lists()
        yield from self._workers()
        yield from self._args()

    def _front_door(self) -> Iterator[Metric]:
        counts, details = self._status["counts"], self._details
        yield _counter("connects", "Clients that connected", counts["connect"])
        yield _counters("connects_rejected", "Clients turned away by a limit", "reason", details["busy"])
        new = details["passed_new"]
        passes = {"new": new, "old": counts["passed"] - new + counts["cached"]}
        yield _counters("passes", "Clients with a PASS line", "type", passes)
        failed = {kind: counts[kind] for kind in _FAILED_TESTS}
        failed |= {f"command_{which}_limit": number for which, number in details["limits"].items()}
        yield _counters("tests_failed", "Failed tests", "test", failed)
        yield _counters("evidence", "Sessions in which a scorer found something", "scorer", details["evidence"])
        yield _counter("hangups", "Clients that left", counts["hangup"])
        found = {"allow": counts["allowlisted"], "deny": counts["denylisted"]}
        yield _counters("access_list_matches", "Clients that the access list decided on", "action", found)
        yield _counters("messages_rejected", "Recipients refused by the dummy engine", "code", details["rejected"])
        yield _counter("turned_away", "Sessions that ended with a refusal, whatever the reason", counts["turned_away"])
        yield _counter("spared", "Refusals left out by shadow mode, or by a test's action shadow", counts["spared"])
        yield _counter("vetoed", "Clients that came in where nobody passes", counts["vetoed"])
        yield _counter("bypassed", "Clients handed on untested by the bypass", counts["bypassed"])
        yield _ranks(details["ranks"], details["rank_sum"])

    def _mta(self) -> Iterator[Metric]:
        counts = self._status["counts"]
        yield _counter("handoffs", "Clients that an MTA has taken", counts["handed"])
        yield _counter("handoffs_failed", "Clients that no MTA took", counts["handoff_failed"])
        yield _counter("continued", "Sessions that went on with an MTA at their first recipient", counts["continued"])
        yield _counter("continue_failed", "Sessions for which no MTA answered", counts["continue_failed"])
        yield _counter("relayed", "Relayed sessions that are over", counts["relayed"])

    def _lists(self) -> Iterator[Metric]:
        for field, about in (
            ("asked", "Questions to a list"),
            ("answered", "Answers of a list"),
            ("listed", "Answers of a list that list the client"),
            ("unique", "Clients that no other list has listed"),
            ("timed_out", "Questions without an answer in time"),
            ("errors", "Answers that are errors"),
        ):
            family = CounterMetricFamily(f"fastscreen_dnsbl_{field}", about, labels=("worker", "list"))
            for number, worker in self._said.items():
                for name, counted in worker.lists.items():
                    family.add_metric((number, name), counted[field])
            yield family
        took = "fastscreen_dnsbl_latency_seconds"
        latency = Metric(took, "Time to a list's answer since the start", "summary")  # who has quantiles has to be one
        up = GaugeMetricFamily(
            "fastscreen_dnsbl_up", "0: a list is failing, by the last minute, or is out", labels=("list",)
        )
        counts = GaugeMetricFamily(
            "fastscreen_dnsbl_in_score",
            "0: a list is out and ignored, or suspect: clients that it lists are deferred",
            labels=("list",),
        )
        for name, lists in self._lists_by_name().items():
            for quantile, field in (("0.5", "p50"), ("0.95", "p95")):
                if values := [one[field] for one in lists if one[field] is not None]:
                    latency.add_sample(took, {"list": name, "quantile": quantile}, max(values))
            states = {one["state"] for one in lists}
            up.add_metric((name,), not states & {"failing", "out"})
            counts.add_metric((name,), not states & {"suspect", "out"})
        yield latency
        yield up
        yield counts
        for field, about in (
            ("asked", "Questions to the resolvers"),
            ("answered", "Answers of the resolvers"),
            ("timed_out", "Questions that no resolver answered in time"),
            ("ignored", "Packets that answer no question"),
        ):
            yield self._of_each(CounterMetricFamily, f"resolver_{field}", about, f"dns_{field}")
        yield self._of_each(GaugeMetricFamily, "resolver_in_flight", "Questions on their way", "dns_in_flight")
        yield self._of_each(GaugeMetricFamily, "resolver_kept", "Clients whose answers are kept", "dns_kept")

    def _lists_by_name(self) -> dict[str, list[Map]]:
        """`dnsbl.reply_map` may give one name to many lists: as one, they are as well as the least well of them."""
        found: dict[str, list[Map]] = {}
        for one in self._dnsbl["lists"]:
            found.setdefault(one["list"], []).append(one)
        return found

    def _of_each(self, kind: Kind, name: str, about: str, field: str) -> Metric:
        """A field of each worker's answer to `Stats`."""
        return _of_workers(kind, name, about, {number: worker.stats[field] for number, worker in self._said.items()})

    def _workers(self) -> Iterator[Metric]:
        workers = self._status["workers"]
        stages = GaugeMetricFamily("fastscreen_sessions", "Sessions by what they do", labels=("worker", "stage"))
        for one in workers:
            for stage, number in one["stages"].items():
                stages.add_metric((str(one["number"]), stage), number)
        yield stages
        for name, about, field in (
            ("tls_sessions", "Sessions in TLS", "tls"),
            ("clients", "Client addresses that are held", "clients"),
            ("stress", "1: in stress mode", "stress"),
            ("accepting", "0: accepting pauses, descriptors have run out", "accepting"),
            ("resident_memory_bytes", "Memory", "rss"),
        ):
            yield _of_workers(
                GaugeMetricFamily, f"worker_{name}", about, {str(one["number"]): one[field] for one in workers}
            )
        for name, about, field in (
            ("accepted", "Connections accepted by the worker's process", "accepted"),
            ("log_lines_lost", "Log lines that could not be written", "lost_log_lines"),
            ("cpu_seconds", "Processor time", "cpu"),
        ):
            yield _of_workers(
                CounterMetricFamily, f"worker_{name}", about, {str(one["number"]): one[field] for one in workers}
            )
        limits = self._status["limits"]
        yield _gauge("pre_queue_limit", "Sessions under test at most", limits["pre_queue"])
        yield _gauge("post_queue_limit", "Hand-offs in flight at most", limits["post_queue"])
        yield _gauge("workers", "Workers that answered", len(workers))

    def _args(self) -> Iterator[Metric]:
        status = self._status
        yield _gauge("shadow", "1: in shadow mode, nobody is turned away", status["mode"] == "shadow")
        if (cache := status["cache"]) is not None:
            yield self._of_each(CounterMetricFamily, "cache_hits", "Clients found in the cache", "cache_hits")
            yield self._of_each(CounterMetricFamily, "cache_misses", "Clients not found in it", "cache_misses")
            yield _gauge("cache_entries", "Clients in the cache", cache["entries"])
            yield _gauge("cache_size_bytes", "Size of its file", cache["size"])
        yield _gauge(
            "bypass_until_seconds", "When the bypass ends, since 1970; 0: it is off", status["bypass_until"] or 0
        )
        yield _gauge("start_time_seconds", "When the daemon started, since 1970", status["started"])
        if (reload := status["reload"]) is not None:
            yield _gauge("config_last_reload_successful", "0: the last reload was refused", reload["ok"])
            yield _gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration in use was taken over, since 1970",
                reload["success_time"],
            )
        held = GaugeMetricFamily("fastscreen_condition", "1: a fault of this kind holds now", labels=("kind",))
        since = GaugeMetricFamily(
            "fastscreen_condition_start_time_seconds",
            "When it began, since 1970; 0: it does not hold",
            labels=("kind",),
        )
        began: dict[str, float] = {}
        for one in status["conditions"]:
            began.setdefault(one["kind"], one["since"])  # the earliest comes first
        for kind in ConditionKind:
            held.add_metric((kind.label,), kind.label in began)
            since.add_metric((kind.label,), began.get(kind.label, 0.0))
        yield held
        yield since
        build = GaugeMetricFamily("fastscreen_build_info", "Always 1", labels=("version",))
        build.add_metric((status["version"],), 1)
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
    return HistogramMetricFamily("fastscreen_dnsbl_rank", "Scores when the greet wait ended", buckets, float(total))
