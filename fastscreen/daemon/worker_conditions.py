"""Lasting faults that a worker sees in its own counters: the MTA, the resolvers, descriptors.

They are updated once per second; the core only counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastscreen.config import Config
from fastscreen.config.model import Pass, Proxy
from fastscreen.process.conditions import Conditions, Kind

MTA_FAILURES = 3  # clients in a row that could not be handed off
RESOLVER_UNKNOWN_SECONDS = 600.0  # without a query, after which the state of the resolvers is unknown


class WorkerConditions:
    """Those of one worker. events: the counters of its ring before it started. Times are s, monotonic."""

    def __init__(self, conditions: Conditions, events: Mapping[str, int]) -> None:
        self._conditions = conditions
        self._events = events
        self._stats: Mapping[str, Any] = {"dns_asked": 0, "dns_heard": 0, "descriptor_shortages": 0}
        self._failures = 0
        self._silent_since: float | None = None
        self._asked_at = 0.0
        self._short = False

    def update(self, now: float, config: Config, stats: Mapping[str, Any], events: Mapping[str, int]) -> None:
        """Begin and end conditions. stats: of the Screener; events: how many of each kind there have been."""
        self._update_mta(config, events)
        self._update_resolvers(now, config, stats)
        self._update_descriptors(stats)
        self._stats, self._events = stats, events

    def _update_mta(self, config: Config, events: Mapping[str, int]) -> None:
        def more(*kinds: str) -> int:
            return sum(events[kind] - self._events[kind] for kind in kinds)

        if more("handed_off", "continued"):
            self._failures = 0
            self._conditions.end(Kind.MTA)
        elif failed := more("handoff_failed", "continue_failed"):
            self._failures += failed
            if self._failures >= MTA_FAILURES:
                self._conditions.begin(
                    Kind.MTA,
                    f"clients cannot be handed off to {_target(config)}; they get 4xx replies and retry",
                )

    def _update_resolvers(self, now: float, config: Config, stats: Mapping[str, Any]) -> None:
        asked = stats["dns_asked"] > self._stats["dns_asked"]
        if asked:
            self._asked_at = now
        if stats["dns_heard"] > self._stats["dns_heard"] or now > self._asked_at + RESOLVER_UNKNOWN_SECONDS:
            self._silent_since = None
            self._conditions.end(Kind.RESOLVER)
        elif asked and self._silent_since is None:
            self._silent_since = now
        if self._silent_since is not None and now >= self._silent_since + config.greet.wait:
            named = ", ".join(map(str, config.dnsbl.resolvers)) or "those of resolv.conf"
            self._conditions.begin(
                Kind.RESOLVER, f"no resolver answers DNS questions ({named}); until one does, DNS lists are ignored"
            )

    def _update_descriptors(self, stats: Mapping[str, Any]) -> None:
        """Each client that leaves lets another in: the shortage is over after two updates without one."""
        more = stats["descriptor_shortages"] > self._stats["descriptor_shortages"]
        short = more or (self._short and not stats["accepting"])
        if short:
            self._conditions.begin(
                Kind.DESCRIPTORS, "out of file descriptors; new clients wait in the kernel until a session ends"
            )
        elif not self._short:
            self._conditions.end(Kind.DESCRIPTORS)
        self._short = short


def _target(config: Config) -> str:
    to = config.handoff.to
    if isinstance(to, Pass):
        return f"pass:{to.path}"
    if isinstance(to, Proxy):
        return "proxy:" + ",".join(str(target) for target in to.targets)
    return "the embedded sink"
