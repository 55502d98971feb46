"""Runs the watch over the lists in the first worker: with its loop, its resolvers and its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fastscreen.config import Config
from fastscreen.dns.health.monitor import Monitor
from fastscreen.dns.health.probe import TIMEOUT, Finding, Prober, probe
from fastscreen.dns.health.state import HealthTable
from fastscreen.dns.resolver import Nameserver, nameservers

AT_A_TIME = 16  # lists that are probed: each costs c-ares a thread and some descriptors


class HealthRunner:
    """warn, info: take a line for the log."""

    def __init__(self, table: HealthTable, warn: Callable[[str], object], info: Callable[[str], object]) -> None:
        self._table, self._warn, self._info = table, warn, info
        self._servers: list[Nameserver] = []
        self._shown: Mapping[str, str] = {}
        self._config: Config | None = None
        self._watch: Monitor | None = None
        self._interval = 0
        self._running: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(AT_A_TIME)

    def configure(self, config: Config, shown: Mapping[str, str]) -> None:
        """Take over settings. shown: the lists' names as they may be told."""
        before, self._servers, self._shown = self._servers, list(nameservers(config)), shown
        self._config = config
        if self._interval != config.dnsbl.probe_interval and self._running is not None:
            self._running.cancel()
            self._running = self._watch = None
        self._interval = config.dnsbl.probe_interval
        if not self._interval:
            return
        if self._watch is None:
            self._watch = Monitor(self._table, self._probe, self._name, self._warn, self._info, self._interval)
            self._running = asyncio.get_running_loop().create_task(self._watch.run())
        # With other resolvers nothing of what was found need be true.
        self._watch.use(config.dnsbl.domains, probe_all=before != self._servers)

    def probe_again(self) -> None:
        """The system has other resolvers."""
        if self._config is not None:
            self.configure(self._config, self._shown)

    def _name(self, domain: str) -> str:
        return self._shown.get(domain, domain)

    async def _probe(self, domain: str) -> Finding:
        async with self._room:
            prober = Prober(self._servers, min(TIMEOUT, self._interval))  # a new one each time: c-ares keeps answers
            try:
                return await probe(domain, prober.ask)
            finally:
                await prober.close()

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
