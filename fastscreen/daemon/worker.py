"""A worker: it gives the core, which does the screening, its sockets, cache, resolvers and settings. While mail flows
nothing else runs in Python."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from fastscreen.cache.interfaces import StampCache
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.config import Config, ConfigError
from fastscreen.config.model import Endpoint, Pass, Proxy
from fastscreen.control.worker_rpc import RequestHandler
from fastscreen.core import AccessStep, EventReader, Screener
from fastscreen.daemon.worker_conditions import WorkerConditions
from fastscreen.dns import resolver
from fastscreen.dns.health.runner import HealthRunner
from fastscreen.dns.health.state import HealthTable
from fastscreen.dns.resolver import Nameserver, TcpResolver, askable, named_in, nameservers
from fastscreen.escaping import one_line
from fastscreen.history.settings import MAX_SIZE
from fastscreen.mta.capabilities import MtaCapabilities
from fastscreen.offenses.reader import OffenseReader
from fastscreen.process import ipc
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Failed, Ready
from fastscreen.process.log_output import LogTarget
from fastscreen.process.startup import ForkedProcess
from fastscreen.screening import policy

RESOLVERS_SECONDS = 10  # between two checks of resolv.conf
MAX_TCP_QUERIES = 200  # at a time: a truncated answer costs 30 times as much as another

if TYPE_CHECKING:
    from fastscreen.mta.sink import Sink


class PeerWorkers(Struct, frozen=True):
    """How clients reach the worker that they belong to. key: chooses a client's worker. inboxes: by worker, the sending
    end and the receiving end, of which a worker uses its own.
    """

    key: int
    inboxes: Sequence[tuple[socket.socket, socket.socket]]


class WorkerArgs(Struct, frozen=True):
    """What a worker is started with.

    number: from 0, of `count` workers. channel: to the supervisor. mark: shared memory (`use_mark`) that says which
    cache file is in use, so that the supervisor knows where a worker crashed. events: memory for the ring of events,
    which outlives the worker. rpc: requests of the control server. look_over_cache: read the file in a child first.
    tls: where clients go after STARTTLS; tls_ready: one byte for each TLS process, 1 while it accepts clients. peers:
    the other workers. health: of the DNS lists. heartbeat: a byte that changes every second while the core works.
    conditions: of this process. cluster: to the cluster process; None: there is none. history: memory for the ring of
    sessions that have ended (HISTORY_RING_SIZE), which outlives the worker; None: no history is recorded. offense_mark:
    as `mark`, for the memory of offenses.
    """

    number: int
    count: int
    channel: socket.socket
    mark: memoryview
    events: memoryview
    rpc: socket.socket | None
    look_over_cache: bool
    tls: socket.socket
    tls_ready: memoryview
    peers: PeerWorkers
    health: HealthTable
    heartbeat: memoryview
    conditions: Conditions
    cluster: socket.socket | None = None
    history: memoryview | None = None
    offense_mark: memoryview | None = None

    @property
    def share(self) -> policy.Share:
        return policy.Share(self.number, self.count)


class Worker(ForkedProcess):
    """One worker from start to end."""

    def __init__(
        self,
        config: Config,
        tables: policy.Tables,
        listeners: dict[Endpoint, socket.socket],
        target: LogTarget,
        args: WorkerArgs,
    ) -> None:
        super().__init__(config, target, args.channel, args.heartbeat)
        self._tables = tables
        self._listeners = listeners
        self._args = args
        self._sink: Sink | None = None
        self._stopping = self._hurrying = False
        self._reloading: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._capability_query: asyncio.Task[None] | None = None
        self._list_health: HealthRunner | None = None
        self._offenses: OffenseReader | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._screen = self._errors.guard("screening", self._run_batch)
        self._own_events = EventReader(args.events)
        self._conditions = WorkerConditions(args.conditions, self._own_events.counts())

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        mta = self._mta_socket(self._config)
        built = self._tables.policy(mta, self._log.warning, self._args.share, self._args.health)
        self._cache = self._open_cache(loop)
        self._screener = Screener(
            built.policy,
            self._log,
            self._cache,
            on_truncated=self._query_over_tcp,
            on_drained=self.end,
            events=self._args.events,
        )
        self._screener.use_tls(self._args.tls.fileno(), self._args.tls_ready)
        self._use_resolvers(self._config)
        self._use_cluster(self._config)
        self._use_history(built, self._config)
        if self._config.score.memory:
            self._offenses = OffenseReader(Path(self._config.score.memory), self._args.offense_mark)
            self._offenses.check()
            self._screener.use_memory(self._offenses)
        if inboxes := self._args.peers.inboxes:
            sending = [end.fileno() for end, _ in inboxes]
            prefix = self._config.worker_prefix
            inbox = inboxes[self._args.number][1].fileno()
            self._screener.join_crew(self._args.number, self._args.peers.key, prefix, sending, inbox)
        for address, listener in self._listeners.items():
            self._listen(listener, built.proxies.get(address))
        guard = self._errors.guard
        loop.add_reader(self._screener.fileno(), self._screen)
        loop.add_reader(self._screener.relay_fileno(), guard("relaying", self._screener.run_relays))
        if self._args.rpc is not None:
            handler = RequestHandler(self._args.rpc, self._screener, self._cache, self._config.cache.prefix, self._log)
            loop.add_reader(
                self._args.rpc.fileno(), guard("a request of the control server", handler.serve, vital=False)
            )
        self._query_capabilities(built.offers, self._config)
        if self._args.number == 0:
            self._list_health = HealthRunner(self._args.health, self._warn_and_flush, self._log.info)
            self._list_health.configure(self._config, self._tables.shown)
        self.report(Ready())

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._screener.fileno())
        loop.remove_reader(self._screener.relay_fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._screener.use_cluster(-1)  # sends the last passes
        self._screener.end_history()
        self._query_capabilities(None, self._config)
        if self._list_health is not None:
            self._list_health.stop()
        await self._resolver.close()
        if self._cache is not None:
            self._cache.close()
        if self._offenses is not None:
            self._offenses.close()
        if self._sink is not None:
            self._sink.stop()

    def _run_batch(self) -> None:
        """One batch of events. The next begins with the next event, or after the pause that the core wants; with the
        next event, too, when this one fails."""
        loop = asyncio.get_running_loop()
        paused = self._pause is not None
        self._pause = None
        pause = 0.0
        try:
            pause = self._screener.run()
        finally:
            if pause:
                self._pause = loop.call_later(pause, self._screen)
            if pause and not paused:
                loop.remove_reader(self._screener.fileno())
            elif paused and not pause:
                loop.add_reader(self._screener.fileno(), self._screen)

    def _listen(self, listener: socket.socket, proxy: tuple[AccessStep, int] | None) -> None:
        """proxy: who may send a PROXY header, and the time for it; None: no header is sent there."""
        if proxy is None:
            self._screener.listen(listener.fileno())
        else:
            self._screener.listen(listener.fileno(), trusted=proxy[0], header_time=proxy[1])

    def _mta_socket(self, settings: Config) -> str:
        """The socket for hand-off by descriptor: the configured one, or the embedded sink's; "": not used."""
        if isinstance(settings.handoff.to, Pass):
            return settings.handoff.to.path
        if isinstance(settings.handoff.to, Proxy):
            return ""
        if self._sink is None:
            try:  # here, because its library is large and rarely needed; see daemon/preload.py
                from fastscreen.mta.sink import Sink
            except ImportError as error:
                raise ConfigError(f"handoff.to: the sink cannot be loaded: {error}; restart fastscreen") from None
            self._sink = Sink(self._log.warning)
            self._sink_path = str(self._sink.start(settings.hostname))
        return self._sink_path

    def _open_cache(self, loop: asyncio.AbstractEventLoop) -> StampCache | None:
        """The cache, or None if the configuration disables it. It deals with problems of its file itself."""
        settings = self._config.cache
        if not settings.path:
            return None
        cache = LmdbCache(
            settings.path,
            warn=self._log.warning,
            log=self._log.info,
            wake=loop.call_soon_threadsafe,
            enabled=policy.enabled_tests(self._config),
            cleanup_interval=self._cleanup_interval(self._config),
            retention=settings.retention,
            max_size=settings.max_size,
            keep_free=settings.keep_free,
            mark=self._args.mark,
            look_over=self._args.look_over_cache,
            first=self._args.number == 0,
            conditions=self._args.conditions,
        )
        cache.open()
        cache.start()
        return cache

    def _cleanup_interval(self, settings: Config) -> int:
        """One worker cleans up for all."""
        return settings.cache.cleanup_interval if self._args.number == 0 else 0

    def makes_progress(self) -> bool:
        """Since the last heartbeat, the loop has called its readers, and the core has completed a batch and checked its
        relays. An idle core is woken up for that.
        """
        return self._screener.probe()

    async def housekeeping(self, second: int) -> None:
        if self._ended.is_set():
            return
        self._update_conditions()
        if self._offenses is not None:
            self._offenses.check()
        if second % RESOLVERS_SECONDS == 0:
            await self._follow_resolv_conf()

    def _update_conditions(self) -> None:
        now = asyncio.get_running_loop().time()
        self._conditions.update(now, self._config, self._screener.stats(), self._own_events.counts())

    def _warn_and_flush(self, text: str) -> None:
        """Write the line now, neither with the core's next line nor at the next tick."""
        self._log.warning(text)
        self._log.flush()

    def _use_cluster(self, settings: Config) -> None:
        """Exchange passes with other hosts, as far as the configuration says. Offenses of a client's network are looked
        up with its pass; the cluster process gives them to the recorder.
        """
        if self._args.cluster is not None:
            cluster = settings.cluster
            accepts = "passes" in cluster.accept or ("offenses" in cluster.accept and bool(settings.score.memory))
            shares = "passes" in cluster.share
            self._screener.use_cluster(
                self._args.cluster.fileno(), budget=cluster.budget, accepts=accepts, shares=shares
            )

    def _use_history(self, built: policy.Built, settings: Config) -> None:
        """Record sessions for the recorder, together with the settings that they are judged by."""
        if self._args.history is not None:
            number, known = self._args.number + 1, settings.history.known
            size = len(built.description)
            if size > MAX_SIZE and number == 1:  # the others see the same
                self._log.warning(
                    f"history: sessions are recorded without their settings, which have {size} bytes, more than "
                    f"{MAX_SIZE}: names of lists are not shown; configure fewer dnsbl.sites"
                )
            # The memory of offenses alone needs no fingerprints.
            self._screener.use_history(
                self._args.history, number, known, built.description, fingerprints=bool(settings.history.path)
            )

    # ---- DNS beyond the core's own queries

    def _use_resolvers(self, settings: Config) -> None:
        """Ask the configuration's resolvers, or the system's."""
        self._follows_resolv_conf = not settings.dnsbl.resolvers
        servers, problems = askable(nameservers(settings))
        for problem in problems if self._args.number == 0 else ():  # the others see the same
            self._log.warning(problem)
        # None that can be asked: as when none is named. What is refused there is told as any list's silence is.
        self._use_servers(servers or askable([Nameserver("127.0.0.1")])[0])

    def _use_servers(self, servers: dict[Nameserver, bytes]) -> None:
        self._servers = servers
        self._resolver = TcpResolver(list(servers))
        self._screener.use_resolvers(servers.values())

    async def _follow_resolv_conf(self) -> None:
        """The system may learn of its resolvers when this runs already. A file that names none may just be written."""
        if not self._follows_resolv_conf:
            return
        servers, _ = askable(named_in(resolver.RESOLV_CONF))
        if not servers or servers == self._servers:
            return
        before = self._resolver
        self._use_servers(servers)
        if self._list_health is not None:
            self._log.info(f"resolvers of {resolver.RESOLV_CONF} now: {', '.join(map(str, servers))}")
            self._list_health.probe_again()
        await before.close()

    def _query_over_tcp(self, token: int, name: str) -> None:
        """A DNSBL answer did not fit a datagram."""
        if len(self._tasks) >= MAX_TCP_QUERIES:
            raise RuntimeError(f"more than {MAX_TCP_QUERIES} truncated DNSBL answers at a time")
        task = asyncio.get_running_loop().create_task(self._run_tcp_query(token, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_tcp_query(self, token: int, name: str) -> None:
        addresses, ttl = None, -1
        try:
            answer = await self._resolver.query_a(name)
            if answer.outcome != "failed":
                addresses = [socket.inet_aton(text) for text in answer.addresses]
            ttl = -1 if answer.ttl is None else answer.ttl
        except Exception as error:  # as good as no answer, and the client is not kept waiting for it
            self._errors.report("DNS over TCP", error)
        self._screener.tcp_answer(token, addresses, ttl, ttl)

    # ---- capabilities of the MTAs

    def _query_capabilities(self, offers: MtaCapabilities | None, settings: Config) -> None:
        """Query these MTAs instead of the previous ones."""
        if self._capability_query is not None:
            self._capability_query.cancel()
            self._capability_query = None
        if offers is not None:
            self._capability_query = asyncio.get_running_loop().create_task(offers.ask(settings.hostname))

    # ---- the supervisor's orders

    def reload(self, descriptors: list[int]) -> None:
        """One at a time. The supervisor waits for the report, but not for ever."""
        self._reloading = asyncio.get_running_loop().create_task(self._answer_reload(self._reloading, descriptors))

    def stop(self, *, successor: bool) -> None:
        if successor:
            self.write_through()
        self._stop(hurry=not successor, successor=successor)

    def write_through(self) -> None:
        if self._cache is not None:
            self._cache.write_through()

    def supervisor_ended(self) -> None:
        if not self._stopping:
            self._log.warning("the supervisor has ended: stopping")
            self._stop()

    def _stop(self, *, hurry: bool = False, successor: bool = False) -> None:
        """First: no new clients, those in hand finish (see `Screener.drain`). Again, without more hurry: end."""
        if self._stopping and (self._hurrying or not hurry):
            self.end()
            return
        self._stopping, self._hurrying = True, hurry
        self._screener.drain(hurry=hurry, successor=successor)
        # Closed, they refuse: a client that only waited in the kernel would not try another MX.
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    async def _answer_reload(self, before: asyncio.Task[None] | None, descriptors: list[int]) -> None:
        if before is not None:
            await before
        report: ipc.Report = Ready()
        try:
            await self._reload(descriptors)
        except Exception as error:  # whatever it is: the old one stays
            report = Failed(one_line(error))
        self._log.flush()
        self.report(report)

    async def _reload(self, descriptors: list[int]) -> None:
        """Take over new settings, or keep the old ones whole. Clients under test notice nothing."""
        loop = asyncio.get_running_loop()
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
        try:
            settings, addresses = ipc.read_settings(descriptors[0])
            if len(addresses) != len(sockets):
                raise OSError(errno.EMFILE, "no descriptors for the new addresses")
            mta = self._mta_socket(settings)
            tables = await loop.run_in_executor(None, policy.Tables, settings)
            built = tables.policy(mta, self._log.warning, self._args.share, self._args.health)
        except BaseException:
            for listener in sockets:
                listener.close()
            raise
        if self._stopping:
            for listener in sockets:
                listener.close()
            return
        before, now = self._config.listen.ports, settings.listen.ports
        for address in set(self._listeners) - set(now):
            self._screener.unlisten(self._listeners[address].fileno())
            self._listeners.pop(address).close()
        for address, listener in self._listeners.items():
            # With PROXY, the trusted may stand in a file, and that may have changed.
            if before[address] is not None or now[address] is not None:
                self._screener.unlisten(listener.fileno())
                self._listen(listener, built.proxies.get(address))
        for address, listener in zip(addresses, sockets, strict=True):
            if address in self._listeners:  # forked during this reload, it has had this one from the start
                listener.close()
                continue
            self._listeners[address] = listener
            self._listen(listener, built.proxies.get(address))
        if settings.dnsbl.resolvers != self._config.dnsbl.resolvers or not settings.dnsbl.resolvers:
            asked = self._resolver
            self._use_resolvers(settings)
            await asked.close()
        if self._cache is not None:
            self._cache.configure(
                policy.enabled_tests(settings),
                self._cleanup_interval(settings),
                settings.cache.retention,
                settings.cache.max_size,
                settings.cache.keep_free,
            )
        self._use_history(built, settings)
        self._screener.use_policy(built.policy)
        self._use_cluster(settings)
        self._query_capabilities(built.offers, settings)
        if self._list_health is not None:
            self._list_health.configure(settings, tables.shown)
        self._config = settings
