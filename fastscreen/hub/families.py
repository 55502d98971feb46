"""What /metrics shows (docs/metrics.md): the counters of `status` and `dnsbl`, as Prometheus' families of samples.

Names and labels have the shape of the Postfix exporter's postscreen metrics, so that its boards need a new prefix only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fastscreen.core import RANK_BOUNDS

Map = dict[str, Any]

_FAILED_TESTS = ("pregreet", "pipelining", "non_smtp_command", "bare_newline")  # kinds of events, in that order


class Snapshot:
    """One moment's numbers. status, dnsbl: as the verbs answer; details: as `Rings.details`."""

    def __init__(self, status: Map, dnsbl: Map, details: Map) -> None:
        self._status = status
        self._dnsbl = dnsbl
        self._details = details

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order of docs/metrics.md."""
        yield from self._front_door()
        yield from self._mta()
        yield from self._lists()
        yield from self._workers()
        yield from self._daemon()

    def _front_door(self) -> Iterator[Metric]:
        counts, details = self._status["counts"], self._details
        yield _counter("connects", "Clients that connected", counts["connect"])
        yield _counters("connects_rejected", "Clients turned away by a limit", "reason", details["busy"])
        new = details["passed_new"]
        passes = {"NEW": new, "OLD": counts["passed"] - new + counts["cached"]}
        yield _counters("passes", "Clients with a PASS line", "type", passes)
        failed = {kind: counts[kind] for kind in _FAILED_TESTS}
        failed |= {f"command_{which}_limit": number for which, number in details["limits"].items()}
        yield _counters("tests_failed", "Failed tests", "test", failed)
        yield _counter("hangups", "Clients that left", counts["hangup"])
        found = {"allowlisted": counts["allowlisted"], "denylisted": counts["denylisted"]}
        yield _counters("access_list_matches", "Clients that the access list decided on", "action", found)
        yield _counters("messages_rejected", "Recipients refused by the dummy engine", "code", details["rejected"])
        yield _counter("turned_away", "Sessions that ended with a refusal, whatever the reason", counts["turned_away"])
        yield _counter("spared", "Refusals that shadow mode left out", counts["spared"])
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
        lists = self._dnsbl["lists"]
        for field, about in (
            ("asked", "Questions to a list"),
            ("answered", "Answers of a list"),
            ("listed", "Answers of a list that list the client"),
            ("unique", "Clients that no other list has listed"),
            ("timed_out", "Questions without an answer in time"),
            ("errors", "Answers that are errors"),
        ):
            yield _counters(f"dnsbl_{field}", about, "list", {one["list"]: one[field] for one in lists})
        latency = GaugeMetricFamily(
            "fastscreen_dnsbl_latency_seconds", "Time to a list's answer since the start", labels=("list", "quantile")
        )
        states = GaugeMetricFamily("fastscreen_dnsbl_up", "0: a list is out, suspected or failing", labels=("list",))
        for one in lists:
            for quantile, value in (("0.5", one["p50"]), ("0.95", one["p95"])):
                if value is not None:
                    latency.add_metric((one["list"], quantile), value)
            states.add_metric((one["list"],), one["state"] not in ("failing", "suspect", "out"))
        yield latency
        yield states
        workers = self._status["workers"]
        for field, about in (
            ("asked", "Questions to the resolvers"),
            ("answered", "Answers of the resolvers"),
            ("timed_out", "Questions that no resolver answered in time"),
            ("ignored", "Packets that answer no question"),
        ):
            yield _counter(f"resolver_{field}", about, sum(one["dns"][field] for one in workers))
        yield _gauge("resolver_in_flight", "Questions on their way", sum(one["dns"]["in_flight"] for one in workers))
        yield _gauge("resolver_kept", "Clients whose answers are kept", sum(one["dns"]["kept"] for one in workers))

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
            yield _of_each(GaugeMetricFamily, f"worker_{name}", about, workers, field)
        for name, about, field in (
            ("accepted", "Connections accepted by the worker's process", "accepted"),
            ("log_lines_lost", "Log lines that could not be written", "lost_log_lines"),
            ("cpu_seconds", "Processor time", "cpu"),
        ):
            yield _of_each(CounterMetricFamily, f"worker_{name}", about, workers, field)
        limits = self._status["limits"]
        yield _gauge("pre_queue_limit", "Sessions under test at most", limits["pre_queue"])
        yield _gauge("post_queue_limit", "Hand-offs in flight at most", limits["post_queue"])
        yield _gauge("workers", "Workers that answered", len(workers))

    def _daemon(self) -> Iterator[Metric]:
        status = self._status
        if (cache := status["cache"]) is not None:
            yield _counter("cache_hits", "Clients found in the cache", cache["hits"])
            yield _counter("cache_misses", "Clients not found in it", cache["misses"])
            yield _gauge("cache_entries", "Clients in the cache", cache["entries"])
            yield _gauge("cache_size_bytes", "Size of its file", cache["size"])
        yield _gauge(
            "bypass_until_seconds", "When the bypass ends, since 1970; 0: it is off", status["bypass_until"] or 0
        )
        yield _gauge("start_time_seconds", "When the daemon started, since 1970", status["started"])
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


def _of_each(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], name: str, about: str, workers: Iterable[Map], field: str
) -> Metric:
    family = kind(f"fastscreen_{name}", about, labels=("worker",))
    for one in workers:
        family.add_metric((str(one["number"]),), float(one[field]))
    return family


def _ranks(counts: Iterable[int], total: int) -> Metric:
    """A histogram's buckets hold what the smaller ones hold, too."""
    buckets = []
    seen = 0
    for bound, number in zip((*(f"{bound}.0" for bound in RANK_BOUNDS), "+Inf"), counts, strict=True):
        seen += number
        buckets.append((bound, float(seen)))
    return HistogramMetricFamily("fastscreen_dnsbl_rank", "Scores when the greet wait ended", buckets, float(total))
