"""What the verbs work with: the settings, the workers, their rings, the cache's file, the warnings."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fastscreen import policy
from fastscreen.access import AccessList, load_access
from fastscreen.config import Config, ConfigError
from fastscreen.core import Log
from fastscreen.hub.bypass import Bypass
from fastscreen.hub.crew import Crew
from fastscreen.hub.explain import Known
from fastscreen.hub.frames import RequestError
from fastscreen.hub.liststate import ListStates
from fastscreen.hub.lookups import Said
from fastscreen.hub.questions import About
from fastscreen.hub.rings import ListNames, Rings
from fastscreen.hub.store import Store, StoreError
from fastscreen.hub.verdict import Limits
from fastscreen.tables import TableError
from fastscreen.warningbook import WarningBook

Result = TypeVar("Result")


class House:
    """One hub's. pid, started: the supervisor's, s since 1970. books: everybody's warnings."""

    def __init__(
        self, config: Config, log: Log, crew: Crew, memory: Sequence[memoryview], books: Sequence[WarningBook],
        pid: int, started: float,
    ) -> None:  # fmt: skip
        self.log = log
        self.crew = crew
        self.books = books
        self.pid = pid
        self.started = started
        self.names = ListNames(())
        self.rings = Rings(memory, self.names)
        self.bypass = Bypass(self.rings.readers, self.warn)
        self.store: Store | None = None
        self._thread = ThreadPoolExecutor(1, "cache")
        self.recent = ListStates()
        self.configure(config)

    def warn(self, text: str) -> None:
        self.log.warning(text)
        self.log.flush()

    # ---- settings

    def configure(self, config: Config) -> None:
        """Take over settings. A table that cannot be read (any more) is told to those who ask for what needs it."""
        self.config = config
        self.shown: dict[str, str] = {}
        self.access = AccessList()
        self.trouble = ""
        try:
            self.shown, _ = policy.shown_names(config.dnsbl)
            self.access = load_access(config)
        except (ConfigError, TableError) as error:
            self.trouble = str(error)
        self.domains = list(dict.fromkeys(site.domain for site in config.dnsbl.sites))
        self.recent.forget()
        self.names.change(time.time(), [self.shown.get(domain, domain) for domain in self.domains])
        # The cache's path takes effect when the daemon is started again, and then this process is another one.
        if self.store is None and config.cache.path:
            self.store = Store(Path(config.cache.path))
        self.enabled = tuple(at for at, on in enumerate(policy.enabled_tests(config)) if on)

    def masked(self, text: str) -> str:
        """A text without the secret parts of DNSBL names, as far as `dnsbl.reply_map` hides them."""
        for domain, shown in self.shown.items():
            text = text.replace(domain, shown)
        return text

    def share(self, worker: int) -> policy.Share:
        return policy.Share(worker, len(self.crew))

    def pre_queue(self, worker: int) -> int:
        return policy.pre_queue_limit(self.config, self.share(worker))[0]

    # ---- the cache's file

    async def cached(self, work: Callable[[Store], Result]) -> Result:
        """Do something with the cache's file, in its thread. RequestError."""
        if self.store is None:
            raise RequestError("cache: cache.path is empty: there is none")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self.store)
        except StoreError as error:
            raise RequestError(str(error)) from None

    async def stamps(self, address: str, about: Sequence[Any]) -> tuple[int, ...] | None:
        """A client's record, as a worker would see it. about: the workers' answers."""
        for answer in about:
            if answer is not None and answer["record"] is not None:
                return tuple(answer["record"])
        if self.store is None:
            return None
        key = ipaddress.ip_address(address).packed
        with contextlib.suppress(RequestError):
            return await self.cached(lambda store: store.get(key))
        return None

    async def about(self, address: str) -> list[Any]:
        return await self.crew.ask_all(About(address))

    async def known(self, address: str, stats: Sequence[Any]) -> Known:
        """What is known of a client. stats: the workers' counters."""
        about = await self.about(address)
        worker = next((at for at, answer in enumerate(about) if answer and (answer["client"] or answer["lists"])), None)
        here = about[worker] if worker is not None else None
        sessions, shared = (here["client"] or (0, None)) if here else (0, None)
        kept: dict[str, Said] = {}
        for domain, (_, state, answers, seconds) in zip(self.domains, here["lists"] if here else (), strict=False):
            if state in ("listed", "not listed") and (seconds > 0 or sessions):
                kept[domain] = Said(state, tuple(answers))
        stamps = tuple(max(0, stamp) for stamp in shared) if shared else await self.stamps(address, about)
        return Known(sessions, stamps, kept, self._limits(worker, stats))

    def _limits(self, worker: int | None, stats: Sequence[Any]) -> Limits:
        """Of a worker; when it is not known whose the client is, of the one that has the least to do."""
        every = [
            Limits(
                answer["sessions"],
                answer["handoffs"],
                self.pre_queue(at),
                self.share(at).of(self.config.limits.post_queue),
                answer["stress"],
            )
            for at, answer in enumerate(stats)
            if answer is not None and worker in (None, at)
        ]
        return min(every, key=lambda limits: limits.sessions, default=Limits(0, 0, 1, 1, False))

    def close(self) -> None:
        self.bypass.close()
        self.crew.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
