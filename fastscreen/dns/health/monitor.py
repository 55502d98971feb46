"""Looks after the lists of one daemon: probes them by the clock and on suspicion, and says what does not count."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from fastscreen.dns.health.probe import Finding
from fastscreen.dns.health.state import HealthTable, State, Why
from fastscreen.escaping import unexpected

TICK = 1.0  # s: how soon a suspicion is looked into
SOON = 30.0  # s: how soon a probe that failed is made again, at the latest
EARLY = 5.0  # s: nothing came back from any list at the start: that is told before the probes are given up
AT_ONCE = 5.0  # s: between two probes that one suspicion asks for
NONE_HAS_ENTRIES = (
    "no DNS list has its test entry 127.0.0.2, so no client may ever be listed: check whether the resolver removes "
    "answers in 127.0.0.0/8 (unbound's private-address, dnsmasq's stop-dns-rebind)"
)
_CERTAIN = (Why.LISTS_ALL, Why.REFUSES, Why.PARKED)
"""What one probe proves. What else fails may be the way, and takes two in succession."""


class _List(Struct):
    """last, due: s, monotonic, of the last probe and the next. ill, well: probes in succession that ended so. why,
    detail: of the last. probing: the one on its way. broken: the last could not be made.
    waits: to be judged, until it is known what the others say. began: s, monotonic, of the probe on its way.
    """

    domain: str
    due: float
    last: float | None = None
    ill: int = 0
    well: int = 0
    why: Why = Why.NOTHING
    detail: str = ""
    untested: bool = False
    probing: asyncio.Task[None] | None = None
    broken: bool = False
    waits: bool = False
    began: float = 0.0

    @property
    def deaf(self) -> bool:
        """Nothing came back, which may be the resolver's fault."""
        return self.why in (Why.SILENT, Why.FAILS)


class Monitor:
    """The state of each list is in the table; what is here only says when it changes.

    probe: looks at one list. shown: a list's name as it may be told. warn, info: take a line for the log. interval: s.
    clock: s, monotonic. chance: between 0 and 1, so that many hosts do not ask at the same time.
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

    def use(self, domains: Iterable[str], *, anew: bool = False) -> None:
        """Look after these lists. Those that are new are probed at once; anew: the others, too."""
        now = self._clock()
        self._lists = {domain: self._lists.get(domain, _List(domain, now)) for domain in domains}
        if anew:
            for one in self._lists.values():
                one.due = now

    async def run(self) -> None:
        """Until cancelled. A list that is slow to probe keeps no other waiting: turns overlap."""
        async with asyncio.TaskGroup() as turns:
            while True:
                turns.create_task(self.turn())
                await asyncio.sleep(TICK)

    async def turn(self) -> None:
        """Probe those whose time it is, and judge by what is found."""
        now = self._clock()
        self._warn_early(now)
        due = [one for one in self._lists.values() if one.due <= now or self._is_urgent(one, now)]
        await asyncio.gather(*(self._round(one, now) for one in due if one.probing is None and not one.waits))

    async def _round(self, one: _List, began: float) -> None:
        """Probe one list, and judge by what is found."""
        await self._look(one)
        if not self._is_given_up(one):
            self._settle(one)
            return
        # Is it this list, or the resolver? What the others said minutes ago does not tell.
        one.waits = True
        rest = [
            other for other in self._lists.values() if not other.waits and (other.last is None or other.last < began)
        ]  # who waits has just been asked
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
        """It would be taken out because nothing comes back."""
        return one.deaf and one.ill >= 2 and self._table.get(one.domain).state is not State.OUT

    def _settle(self, one: _List) -> None:
        one.waits = False
        self._warn_unanswered()
        if not one.broken:
            self._update_state(one)

    async def _look(self, one: _List) -> None:
        """Probe it; if a probe is on its way, wait for that one."""
        if one.probing is None:
            one.began = self._clock()
            one.probing = asyncio.create_task(self._run_probe(one))
        await one.probing

    async def _run_probe(self, one: _List) -> None:
        try:
            self._take(one, await self._probe(one.domain))
        except Exception as error:  # whatever it is, the lists are looked after
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
        """It is suspected: that does not wait, but for a moment when the last probe could not tell."""
        if self._table.get(one.domain).state is not State.SUSPECT:
            return False
        told = one.ill == 0 and not one.broken  # then the suspicion is a new one
        return told or one.last is None or now >= one.last + AT_ONCE

    def _take(self, one: _List, finding: Finding) -> None:
        """Note what a probe found, and when the next is due."""
        health = self._table.get(one.domain)
        why = finding.why
        if finding.tested:
            one.untested = False
            self._table.note_well(one.domain)
        if why is Why.EMPTY and not health.seen_well:
            # It never had one, as far as is known: a list of one's own, perhaps. Whether it is well cannot be told.
            if not one.untested:
                self._info(
                    f"list {self._shown(one.domain)} has no test entry 127.0.0.2 (RFC 5782): it cannot be probed"
                )
            one.untested, why = True, Why.NOTHING
        self._warn_untested()
        one.why, one.detail = why, finding.detail
        one.ill = one.ill + 1 if why is not Why.NOTHING else 0
        one.well = one.well + 1 if why is Why.NOTHING else 0
        wait = self._interval * (0.9 + 0.1 * self._chance())
        if (one.ill == 1 and why not in _CERTAIN) or (one.well == 1 and health.state is State.OUT):
            wait = min(self._interval / 2, SOON)
        one.last = self._clock()
        one.due = one.last + wait

    def _no_list_answers(self) -> bool:
        """Then it is not the lists."""
        probed = [one for one in self._lists.values() if one.last is not None]
        return len(probed) > 1 and all(one.deaf for one in probed)

    def _some_list_answers(self) -> bool:
        return any(one.last is not None and not one.deaf for one in self._lists.values())

    def _warn_early(self, now: float) -> None:
        """The first probes are still on their way, all of them: an operator waits for the first mail."""
        first = [one for one in self._lists.values() if one.probing is not None and one.last is None]
        if self._warned_early or not first or len(first) < len(self._lists):
            return
        if all(now >= one.began + EARLY for one in first):
            self._warned_early = True
            self._warn(
                f"no DNS list has answered its first probe for {EARLY:.0f} s: the resolver does not work, or this host "
                "has no network; clients pass as if no list contained them; check dnsbl.resolvers"
            )

    def _warn_unanswered(self) -> None:
        deaf = self._no_list_answers()
        if deaf and not self._warned_unanswered and all(one.ill >= 2 for one in self._lists.values()):
            self._warned_unanswered = True
            if self._warned_early:
                return
            self._warn("no DNS list answers: the resolver does not work, or this host has no network")
        elif (self._warned_unanswered or self._warned_early) and not deaf and self._some_list_answers():
            self._warned_unanswered = self._warned_early = False
            self._info("DNS lists answer again")

    def _warn_untested(self) -> None:
        """One list without may be of one's own; where all are, it is the resolver."""
        untested = len(self._lists) > 1 and all(one.untested for one in self._lists.values())
        if untested and not self._warned_untested:
            self._warn(NONE_HAS_ENTRIES)
        self._warned_untested = untested

    def _update_state(self, one: _List) -> None:
        """Take a list out, or put it back."""
        health, name = self._table.get(one.domain), self._shown(one.domain)
        if one.why is not Why.NOTHING:
            sure = one.why in _CERTAIN or (one.ill >= 2 and not (one.deaf and self._no_list_answers()))
            if sure and health.state is not State.OUT:
                detail = f" ({one.detail})" if one.detail else ""
                self._warn(f"list {name} {one.why.text}{detail}: it is disabled until a probe succeeds")
            if sure:
                self._table.set(one.domain, State.OUT, one.why)
        elif health.state is State.SUSPECT:
            self._table.set(one.domain, State.WELL)
            self._info(f"list {name} has passed its probe: it is enabled again")
        elif health.state is State.OUT and one.well >= 2:
            self._table.set(one.domain, State.WELL)
            self._warn(f"list {name} is healthy again: it is enabled")
