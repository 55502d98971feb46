"""Monitors the lists of one daemon: probes them regularly and on suspicion, and disables those that fail."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from fastscreen.dns.health.probe import Finding
from fastscreen.dns.health.state import HealthTable, State, Why
from fastscreen.escaping import unexpected

TICK = 1.0  # s: interval of checks for suspicions and due probes
SOON = 30.0  # s: maximum time until a failed probe is repeated
EARLY = 5.0  # s: if no list answers at the start, the warning does not wait until the probes time out
AT_ONCE = 5.0  # s: between two probes because of the same suspicion
NONE_HAS_ENTRIES = (
    "no DNS list has its test entry 127.0.0.2, so no client may ever be listed: check whether the resolver removes "
    "answers in 127.0.0.0/8 (unbound's private-address, dnsmasq's stop-dns-rebind)"
)
_CERTAIN = (Why.LISTS_ALL, Why.REFUSES, Why.PARKED)
"""Proved by one probe. Other failures may be due to the network, so they need two probes in succession."""


class _List(Struct):
    """last, due: s, monotonic, of the last probe and the next. failures, successes: number in succession. why, detail:
    of the last probe. probing: the probe that is running; began: its start, s, monotonic. broken: the last probe could
    not be made. waits: its state is not updated until the other lists have been probed.
    """

    domain: str
    due: float
    last: float | None = None
    failures: int = 0
    successes: int = 0
    why: Why = Why.NOTHING
    detail: str = ""
    untested: bool = False
    probing: asyncio.Task[None] | None = None
    broken: bool = False
    waits: bool = False
    began: float = 0.0

    @property
    def is_unanswered(self) -> bool:
        """Whether the last probe got no useful answer, which may be the resolver's fault."""
        return self.why in (Why.SILENT, Why.FAILS)


class Monitor:
    """Decides when the state of a list changes; the states themselves are in the table.

    probe: probes one list. shown: a list's name without secrets. warn, info: log a line. interval: s.
    clock: s, monotonic. chance: between 0 and 1, so that many hosts do not probe at the same time.
    """

    def __init__(
        self, table: HealthTable, probe: Callable[[str], Awaitable[Finding]], shown: Callable[[str], str],
        warn: Callable[[str], object], info: Callable[[str], object], interval: float,
        clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._table, self._probe, self._shown, self._warn, self._info = table, probe, shown, warn, info
        self._interval = interval
        self._clock, self._chance = clock, chance
        self._lists: dict[str, _List] = {}
        self._warned_unanswered = self._warned_early = self._warned_problem = self._warned_untested = False

    def use(self, domains: Iterable[str], *, probe_all: bool = False) -> None:
        """Monitor these lists. New ones are probed at once; probe_all: the others, too."""
        now = self._clock()
        self._lists = {domain: self._lists.get(domain, _List(domain, now)) for domain in domains}
        if probe_all:
            for one in self._lists.values():
                one.due = now

    async def run(self) -> None:
        """Run until cancelled. Turns overlap, so that a list with slow probes does not delay the others."""
        async with asyncio.TaskGroup() as turns:
            while True:
                turns.create_task(self.turn())
                await asyncio.sleep(TICK)

    async def turn(self) -> None:
        """Probe the lists that are due, and update their states."""
        now = self._clock()
        self._warn_early(now)
        due = [one for one in self._lists.values() if one.due <= now or self._is_urgent(one, now)]
        await asyncio.gather(*(self._round(one, now) for one in due if one.probing is None and not one.waits))

    async def _round(self, one: _List, began: float) -> None:
        """Probe one list, and update its state."""
        await self._look(one)
        if not self._is_given_up(one):
            self._settle(one)
            return
        # Is it this list, or the resolver? Probe the other lists, too: their last answers may be minutes old.
        one.waits = True
        rest = [
            other for other in self._lists.values() if not other.waits and (other.last is None or other.last < began)
        ]  # those that wait have just been probed
        await asyncio.gather(*(self._look_in_passing(other) for other in rest))
        for each in (one, *rest):
            if each.waits:
                self._settle(each)

    async def _look_in_passing(self, one: _List) -> None:
        await self._look(one)
        if self._is_given_up(one):
            one.waits = True
        else:
            self._settle(one)

    def _is_given_up(self, one: _List) -> bool:
        """Whether it would be disabled because it does not answer."""
        return one.is_unanswered and one.failures >= 2 and self._table.get(one.domain).state is not State.OUT

    def _settle(self, one: _List) -> None:
        one.waits = False
        self._warn_unanswered()
        if not one.broken:
            self._update_state(one)

    async def _look(self, one: _List) -> None:
        """Probe it; if a probe is running, wait for that one."""
        if one.probing is None:
            one.began = self._clock()
            one.probing = asyncio.create_task(self._run_probe(one))
        await one.probing

    async def _run_probe(self, one: _List) -> None:
        try:
            self._take(one, await self._probe(one.domain))
        except Exception as error:  # the lists are monitored in any case
            one.broken = True
            one.last = self._clock()
            one.due = one.last + min(self._interval, SOON)
            if not self._warned_problem:
                self._warn(f"list {self._shown(one.domain)} cannot be probed: {unexpected(error)}")
            self._warned_problem = True
        else:
            one.broken = self._warned_problem = False
        finally:
            one.probing = None

    def _is_urgent(self, one: _List, now: float) -> bool:
        """Whether it is suspected: then it is probed at once, or after AT_ONCE if the last probe did not decide."""
        if self._table.get(one.domain).state is not State.SUSPECT:
            return False
        is_new = one.failures == 0 and not one.broken  # the suspicion began after the last probe
        return is_new or one.last is None or now >= one.last + AT_ONCE

    def _take(self, one: _List, finding: Finding) -> None:
        """Record what a probe found, and when the next is due."""
        health = self._table.get(one.domain)
        why = finding.why
        if finding.tested:
            one.untested = False
            self._table.note_test_entry(one.domain)
        if why is Why.EMPTY and not health.had_test_entry:
            # As far as is known, it never had one. It may be a private list. Its health cannot be determined.
            if not one.untested:
                self._info(
                    f"list {self._shown(one.domain)} lacks the test entry 127.0.0.2 (RFC 5782): it cannot be probed"
                )
            one.untested, why = True, Why.NOTHING
        self._warn_untested()
        one.why, one.detail = why, finding.detail
        one.failures = one.failures + 1 if why is not Why.NOTHING else 0
        one.successes = one.successes + 1 if why is Why.NOTHING else 0
        wait = self._interval * (0.9 + 0.1 * self._chance())
        if (one.failures == 1 and why not in _CERTAIN) or (one.successes == 1 and health.state is State.OUT):
            wait = min(self._interval / 2, SOON)
        one.last = self._clock()
        one.due = one.last + wait

    def _no_list_answers(self) -> bool:
        """Whether no list answers, which is then not the fault of the lists."""
        probed = [one for one in self._lists.values() if one.last is not None]
        return len(probed) > 1 and all(one.is_unanswered for one in probed)

    def _some_list_answers(self) -> bool:
        return any(one.last is not None and not one.is_unanswered for one in self._lists.values())

    def _warn_early(self, now: float) -> None:
        """Warn while all first probes are still running, because an operator waits for the first mail."""
        first = [one for one in self._lists.values() if one.probing is not None and one.last is None]
        if self._warned_early or not first or len(first) < len(self._lists):
            return
        if all(now >= one.began + EARLY for one in first):
            self._warned_early = True
            self._warn(
                f"no DNS list has answered its first probe for {EARLY:.0f} s: the resolver does not work, or this host "
                "is offline; clients pass as if no list contained them; check dnsbl.resolvers"
            )

    def _warn_unanswered(self) -> None:
        unanswered = self._no_list_answers()
        if unanswered and not self._warned_unanswered and all(one.failures >= 2 for one in self._lists.values()):
            self._warned_unanswered = True
            if self._warned_early:
                return
            self._warn("no DNS list answers: the resolver does not work, or this host is offline")
        elif (self._warned_unanswered or self._warned_early) and not unanswered and self._some_list_answers():
            self._warned_unanswered = self._warned_early = False
            self._info("DNS lists answer again")

    def _warn_untested(self) -> None:
        """One list without a test entry may be a private one. If all lack it, the resolver removes answers."""
        untested = len(self._lists) > 1 and all(one.untested for one in self._lists.values())
        if untested and not self._warned_untested:
            self._warn(NONE_HAS_ENTRIES)
        self._warned_untested = untested

    def _update_state(self, one: _List) -> None:
        """Disable a list, or enable it again."""
        health, name = self._table.get(one.domain), self._shown(one.domain)
        if one.why is not Why.NOTHING:
            sure = one.why in _CERTAIN or (one.failures >= 2 and not (one.is_unanswered and self._no_list_answers()))
            if sure and health.state is not State.OUT:
                detail = f" ({one.detail})" if one.detail else ""
                self._warn(f"list {name} {one.why.text}{detail}: it is disabled until a probe succeeds")
            if sure:
                self._table.set(one.domain, State.OUT, one.why)
        elif health.state is State.SUSPECT:
            self._table.set(one.domain, State.WELL)
            self._info(f"list {name} has passed its probe: it is enabled again")
        elif health.state is State.OUT and one.successes >= 2:
            self._table.set(one.domain, State.WELL)
            self._warn(f"list {name} is healthy again: it is enabled")
