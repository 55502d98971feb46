"""What the verbs work with: the settings, the workers, their rings, the cache's file, the warnings."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fastscreen.cache.interfaces import Network
from fastscreen.config import Config, ConfigError, Prefix
from fastscreen.control.bypass import Bypass
from fastscreen.control.cache_store import Store, StoreError
from fastscreen.control.client_names import ClientNames
from fastscreen.control.cluster_client import ClusterClient, SharedRecord
from fastscreen.control.dnsbl_lookup import Said
from fastscreen.control.events import ListNames, Rings
from fastscreen.control.explain import Known
from fastscreen.control.history import HistoryReader
from fastscreen.control.list_state import ListStates
from fastscreen.control.offense_store import OffenseStore, OffenseStoreError
from fastscreen.control.protocol import RequestError
from fastscreen.control.ptr import Reverse
from fastscreen.control.verdict import Limits
from fastscreen.control.worker_rpc import About, Forget, WorkerRpc
from fastscreen.core import Log, NetworkTable, OffenseRules, cache_key_of, worker_of
from fastscreen.dns.health.state import Health, HealthTable, State
from fastscreen.dns.resolver import Nameserver, nameservers
from fastscreen.feedback.state import FeedbackState
from fastscreen.history.state import HistoryState
from fastscreen.offenses.rules import load_rules
from fastscreen.offenses.state import OffenseState
from fastscreen.process.conditions import Condition, Conditions
from fastscreen.process.reload_state import ReloadState
from fastscreen.process.warning_ring import WarningRing
from fastscreen.screening import policy
from fastscreen.screening.access_list import AccessList, load_access, load_networks
from fastscreen.tables import TableError

Result = TypeVar("Result")

LARGE_AT_A_TIME = 2  # large answers that are made at a time


class ServerContext:
    """One control server's. pid, started: the supervisor's, s since 1970. warning_rings: the warnings of every process.
    tables: as the workers have them, even if the files changed. key: chooses a client's worker. health: of DNS lists.
    cluster_requests, cluster_state: to the cluster process, and its memory; None: there is none. history_state: the
    recorder's memory; None: no history is recorded. offense_state, feedback_state: the same for the memory of offenses,
    and for the MTA's log.
    """

    def __init__(
        self, config: Config, log: Log, worker_rpc: WorkerRpc, memory: Sequence[memoryview],
        warning_rings: Sequence[WarningRing], pid: int, started: float, tables: policy.Tables, key: int,
        health: HealthTable, conditions: Sequence[Conditions], reload_state: ReloadState,
        cluster_requests: socket.socket | None = None, cluster_state: memoryview | None = None,
        history_state: memoryview | None = None, offense_state: memoryview | None = None,
        feedback_state: memoryview | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        self.worker_rpc = worker_rpc
        self.cluster: ClusterClient | None = None
        """None: the daemon was started without a cluster."""
        if cluster_requests is not None and cluster_state is not None:
            self.cluster = ClusterClient(cluster_requests, cluster_state, self.forget)
        self.recorder = HistoryState(history_state) if history_state is not None and config.history.path else None
        """None: the daemon was started without a history."""
        self.offenses: OffenseStore | None = None
        """None: there is no memory of offenses."""
        self.feedback_state = FeedbackState(feedback_state) if feedback_state is not None else None
        self.offense_state = OffenseState(offense_state) if offense_state is not None and config.score.memory else None
        self.warning_rings = warning_rings
        self.pid = pid
        self.health = health
        self._conditions = conditions
        self.reload_state = reload_state
        self.started = started
        self.names = ListNames(())
        self.rings = Rings(memory, self.names)
        self.bypass = Bypass(self.rings.readers, self.warn)
        self.store: Store | None = None
        self._thread = ThreadPoolExecutor(1, "cache")
        self.history = HistoryReader("", self.warn)
        self.recent = ListStates()
        self._reverse = Reverse(())
        self._client_names = ClientNames(self._reverse.name)
        self._closing: set[asyncio.Task[None]] = set()
        self._key = key
        self.turns = {may_act: asyncio.Semaphore(LARGE_AT_A_TIME) for may_act in (False, True)}
        """For large answers: callers that may act do not wait for those that may only read."""
        self.trouble = ""
        self._use(config, tables.shown, tables.access, tables.interfaces, tables.rules)

    def warn(self, text: str) -> None:
        self.log.warning(text)
        self.log.flush()

    # ---- settings

    def configure(self, config: Config) -> None:
        """Apply settings as each worker does, by reading the tables. A table that cannot be read is reported in the
        answers that need it.
        """
        shown: dict[str, str] = {}
        access = AccessList()
        interfaces = self.interfaces
        rules = self.offenses.rules if self.offenses is not None else None
        self.trouble = ""
        try:
            shown, _ = policy.shown_names(config.dnsbl)
            access = load_access(config)
            interfaces = load_networks(config, "access.allowlist_interfaces", config.access.allowlist_interfaces).table
            rules = load_rules(config)
        except (ConfigError, TableError) as error:
            self.trouble = str(error)
        self._use(config, shown, access, interfaces, rules)

    def _use(
        self,
        config: Config,
        shown: dict[str, str],
        access: AccessList,
        interfaces: NetworkTable,
        rules: OffenseRules | None,
    ) -> None:
        self.config = config
        self.interfaces = interfaces
        self.shown = shown
        self.access = access
        self.domains = list(config.dnsbl.domains)
        self.recent.forget()
        self.names.change(time.time(), [self.shown.get(domain, domain) for domain in self.domains])
        # cache.path takes effect after a restart, and then this process is another one.
        if self.store is not None:
            self.store.max_size = config.cache.max_size
        elif config.cache.path:
            self.store = Store(Path(config.cache.path), config.cache.max_size)
        if self.history.folder != config.history.path:
            self.history.close()
            self.history = HistoryReader(config.history.path, self.warn)
        if rules is not None and self.offenses is not None:
            self.offenses.rules = rules
        elif rules is not None and config.score.memory:
            self.offenses = OffenseStore(Path(config.score.memory), rules)
        self.enabled = tuple(at for at, on in enumerate(policy.enabled_tests(config)) if on)
        self._ask_names_of(nameservers(config))

    def masked(self, text: str) -> str:
        """A text without the secret parts of DNSBL names, as far as `dnsbl.reply_map` hides them."""
        for domain, shown in self.shown.items():
            text = text.replace(domain, shown)
        return text

    def list_health(self, domain: str) -> Health:
        """The health that the workers use."""
        return self.health.get(domain) if self.config.dnsbl.probe_interval else Health()

    @property
    def lists_unhealthy(self) -> frozenset[str]:
        """The domains of lists that are disabled or suspect now."""
        return frozenset(domain for domain in self.domains if self.list_health(domain).state is not State.WELL)

    @property
    def lists_suspect(self) -> frozenset[str]:
        """Of these: the domains that are queried, and whose listings are uncertain."""
        return frozenset(domain for domain in self.domains if self.list_health(domain).state is State.SUSPECT)

    def conditions(self) -> list[Condition]:
        """What holds now in any process: one for each kind and text, the earliest first."""
        found: dict[tuple[int, str], Condition] = {}
        for one in (each for process in self._conditions for each in process.read()):
            before = found.setdefault((one.kind, one.text), one)
            if one.since < before.since:
                found[one.kind, one.text] = one
        return sorted(found.values(), key=lambda one: one.since)

    def share(self, worker: int) -> policy.Share:
        return policy.Share(worker, len(self.worker_rpc))

    def pre_queue(self, worker: int) -> int:
        return policy.worker_limits(self.config, self.share(worker)).pre_queue

    # ---- the cache's file

    async def cached(self, work: Callable[[Store], Result]) -> Result:
        """Do something with the cache's file, in its thread. RequestError."""
        if self.store is None:
            raise RequestError("cache: disabled (cache.path is empty)")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self.store)
        except StoreError as error:
            raise RequestError(str(error)) from None

    async def remembered(self, work: Callable[[OffenseStore], Result]) -> Result:
        """Do something with the memory of offenses, in the same thread. RequestError."""
        if self.offenses is None:
            raise RequestError("memory of offenses: disabled (score.memory is empty)")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self.offenses)
        except OffenseStoreError as error:
            raise RequestError(str(error)) from None

    async def forget_elsewhere(self, network: Network) -> bool | None:
        """Have the other hosts of a cluster forget a network, if they share offenses. Return what `Deleted` has.

        RequestError.
        """
        kinds = {*self.config.cluster.share, *self.config.cluster.accept}
        if self.cluster is None or self.offenses is None or "offenses" not in kinds:
            return None
        return await self.cluster.forget(network)

    async def forget(self, network: Network) -> list[Any]:
        """Have the workers forget what they have not written yet; return how many records each had."""
        return await self.worker_rpc.ask_all(Forget(network.network_address.packed, network.broadcast_address.packed))

    async def shared_record(self, address: str) -> SharedRecord | None:
        """What the cluster knows of a client, within a time limit. None: no cluster is configured."""
        if self.cluster is None:
            return None
        key = cache_key_of(address, self.config.cache.prefix)
        return await self.cluster.known(key, accepts="passes" in self.config.cluster.accept)

    async def stamps(self, address: str, about: Sequence[Any]) -> tuple[int, ...] | None:
        """A client's record, as a worker would see it. about: the workers' answers."""
        for answer in about:
            if answer is not None and answer["record"] is not None:
                return tuple(answer["record"])
        if self.store is None:
            return None
        key = cache_key_of(address, self.config.cache.prefix)
        whole = cache_key_of(address, Prefix())  # of a time when the cache went by whole addresses
        with contextlib.suppress(RequestError):
            found = await self.cached(lambda store: store.get(key))
            return found if found is not None or key == whole else await self.cached(lambda store: store.get(whole))
        return None

    async def about(self, address: str) -> list[Any]:
        return await self.worker_rpc.ask_all(About(address))

    async def known(self, address: str, stats: Sequence[Any]) -> Known:
        """What is known of a client. stats: the workers' counters."""
        about = await self.about(address)
        worker = worker_of(address, len(self.worker_rpc), self._key, self.config.worker_prefix)
        here = about[worker]
        sessions, shared, relayed, counted = (here["client"] or (0, None, 0, 0)) if here else (0, None, 0, 0)
        rates = here["rates"] if here else (0, 0)
        kept: dict[str, Said] = {}
        for domain, (_, state, answers, seconds) in zip(self.domains, here["lists"] if here else (), strict=False):
            if state in ("listed", "not listed") and (seconds > 0 or sessions):
                kept[domain] = Said(state, tuple(answers))
        stamps = tuple(max(0, stamp) for stamp in shared) if shared else await self.stamps(address, about)
        return Known(sessions, relayed, counted, rates[0], rates[1], stamps, kept, self._limits(worker, stats[worker]))

    def _limits(self, worker: int, answer: Any) -> Limits:
        """Of a worker. answer: its counters; None: it gave none, so it counts as one that has just started."""
        if answer is None:
            answer = {"sessions": 0, "handoffs": 0, "relayed": 0, "relays": 0, "stress": False}
        sessions, handoffs, relays = answer["sessions"] - answer["relayed"], answer["handoffs"], answer["relays"]
        limits = policy.worker_limits(self.config, self.share(worker))
        return Limits(sessions, handoffs, relays, limits.pre_queue, limits.post_queue, limits.relay, answer["stress"])

    # ---- clients' names

    def _ask_names_of(self, servers: Sequence[Nameserver]) -> None:
        if list(servers) == self._reverse.nameservers:
            return
        self._client_names.close()
        self._closing.add(closing := asyncio.ensure_future(self._reverse.close()))
        closing.add_done_callback(self._closing.discard)
        self._reverse = Reverse(servers)
        self._client_names = ClientNames(self._reverse.name)

    def name(self, address: str) -> str:
        """A client's name as far as it is known; to ask for it is to have it looked up."""
        return self._client_names.name(address) if self.config.control.names else ""

    async def name_found(self, address: str, seconds: float) -> str:
        """The same, after waiting so long for it."""
        return await self._client_names.found(address, seconds) if self.config.control.names else ""

    # ----

    async def close(self) -> None:
        self._client_names.close()
        await asyncio.gather(self._reverse.close(), *self._closing)
        self.bypass.close()
        if self.cluster is not None:
            self.cluster.close()
        self.worker_rpc.close()
        self.history.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
