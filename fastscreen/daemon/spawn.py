"""How a process under the supervisor begins: forked, without what is another's, and what each kind does."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fastscreen import __version__
from fastscreen.allowlist import process as refresh
from fastscreen.cache import use_mark
from fastscreen.cluster import files
from fastscreen.control.cache_store import Store
from fastscreen.control.offense_store import OffenseAdmin
from fastscreen.control.server import ControlArgs, ControlServer
from fastscreen.core import HistoryReader
from fastscreen.daemon.cluster_parts import ClusterParts, lifetimes
from fastscreen.daemon.history_parts import HistoryParts
from fastscreen.daemon.resources import Resources, close_all
from fastscreen.daemon.tasks import Steps
from fastscreen.daemon.worker import PeerWorkers, Worker, WorkerArgs
from fastscreen.process import ipc, memory, signals
from fastscreen.process.child import Child, ChildState
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Report
from fastscreen.process.warning_ring import WarningRing
from fastscreen.tls.process import TlsArgs, TlsProcess

START_SECONDS = 40.0  # opening the cache may wait for another process


class NoReport:
    """A process did not report in time."""


def start_worker(resources: Resources, child: Child, *, look_over_cache: bool) -> None:
    """Fork a worker. The child never returns from here. OSError: no descriptors or processes."""
    mark = resources.mark(child)
    use_mark.clear(mark)
    if resources.history is not None:
        use_mark.clear(resources.history.mark(child.number))
    fork(resources, child, lambda channel: _worker_main(resources, child, channel, mark, look_over_cache))
    child.expect(ChildState.STARTING, time.monotonic() + START_SECONDS)


def start_tls(resources: Resources, child: Child) -> None:
    """Fork a TLS process. OSError: as above."""
    resources.tls_ready[child.number] = 0
    fork(resources, child, lambda channel: _tls_main(resources, child, channel))
    child.expect(ChildState.STARTING, time.monotonic() + START_SECONDS)


def start_cluster(resources: Resources, parts: ClusterParts) -> None:
    """Fork the process that shares passes with other hosts. OSError: as above."""
    parts.state.clear()
    fork(resources, parts.child, lambda channel: _cluster_main(resources, parts, channel))
    parts.child.expect(ChildState.STARTING, time.monotonic() + START_SECONDS)


def start_recorder(resources: Resources, parts: HistoryParts) -> None:
    """Fork the recorder of the history. OSError: as above."""
    use_mark.clear(parts.mark())
    parts.feedback_state.clear()
    fork(resources, parts.child, lambda channel: _recorder_main(resources, parts, channel))
    parts.child.expect(ChildState.STARTING, time.monotonic() + START_SECONDS)


def start_control(resources: Resources) -> None:
    """Fork the control server. Nothing waits for it: mail does not depend on it. OSError: as above."""
    fork(resources, resources.control_process, lambda channel: _control_main(resources, channel))


def start_refresh(resources: Resources) -> None:
    """Fork a refresh of the lists. It ends when it is done; nothing waits for it. OSError: as above."""
    fork(resources, resources.refresher, lambda channel: _refresh_main(resources))


def fork(resources: Resources, child: Child, work: Callable[[socket.socket], int]) -> None:
    """Let a new process do `work` with its end of a channel. OSError: no descriptors or processes."""
    child.close_channel()
    ours, channel = ipc.pair()
    resources.target.log.flush()  # what is still to be written is not the child's
    with channel:
        try:
            with resources.oom.for_fork():
                memory.freeze()
                pid = os.fork()
                if not pid:
                    ours.close()
                    _child_main(resources, lambda: work(channel))
        except OSError:
            ours.close()
            raise
        child.assign(pid, ours)


def run_in_child(
    resources: Resources, work: Callable[[socket.socket], int], seconds: float
) -> Steps[Report | NoReport | None]:
    """Let a child do what may fail or never end, and return its report; None: it ended without one. OSError: as above.

    Nobody waits: the supervisor's loop goes on meanwhile, and buries the child.
    """
    child = Child("trial")
    fork(resources, child, work)
    child.expect(ChildState.STARTING, time.monotonic() + seconds)
    resources.trials.append(child)
    try:
        while child.pid and child.last_report is None:
            if time.monotonic() >= child.deadline:
                return NoReport()
            yield
        return child.last_report
    finally:
        child.close_channel()
        child.kill()
        child.deadline = math.inf
        if not child.pid and child in resources.trials:
            resources.trials.remove(child)


def _child_main(resources: Resources, work: Callable[[], int]) -> NoReturn:
    """In the child: do this, and end."""
    code = 70  # EX_SOFTWARE
    try:
        # Not SIG_IGN, which the child's own children would inherit.
        for number in signals.FOR_SUPERVISOR:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.BLOCKED)
        if resources.signals is not None:
            resources.signals.close()
        if resources.oom.fd >= 0:
            os.close(resources.oom.fd)
        for child in [*resources.everyone, *resources.former, *resources.trials]:
            child.close_channel()
        if resources.key_reader is not None:
            resources.key_reader.close()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _worker_main(
    resources: Resources, child: Child, channel: socket.socket, mark: memoryview, look_over_cache: bool
) -> int:
    """What a worker does, with nothing in its hands that is another's."""
    number = child.number
    close_server_sockets(resources)
    own = {}
    for address, group in resources.groups.items():
        own[address] = group[number]
        close_all(listener for listener in group if listener is not own[address])
    close_all(receiving for at, (_, receiving) in enumerate(resources.inboxes) if at != number)
    close_all(server_ends for server_ends, _ in resources.rpc_pairs)
    close_all(workers for at, (_, workers) in enumerate(resources.rpc_pairs) if at != number)
    close_keys(resources)
    resources.tls_pair[1].close()
    own_cluster = resources.cluster.worker_pairs[number][0] if resources.cluster is not None else None
    close_cluster(resources, own_cluster)
    target = resources.target.for_child()
    target.log.on_warning = WarningRing(resources.warning_rings[number]).write
    args = WorkerArgs(
        number,
        len(resources.children),
        channel,
        mark,
        resources.rings[number],
        resources.rpc_pairs[number][1] if resources.rpc_pairs else None,
        look_over_cache,
        resources.tls_pair[0],
        resources.tls_ready,
        PeerWorkers(resources.key, resources.inboxes),
        resources.health,
        resources.heartbeat(child),
        new_conditions(resources.condition_memory[number]),
        own_cluster,
        resources.history.rings[number] if resources.history is not None else None,
        resources.history.mark(number) if resources.history is not None else None,
    )
    target.watch(args.conditions)
    return Worker(resources.config, resources.tables, own, target, args).run()


def _tls_main(resources: Resources, child: Child, channel: socket.socket) -> int:
    """What a TLS process does."""
    number = child.number
    close_server_sockets(resources)
    for group in resources.groups.values():
        close_all(group)
    for pair in (*resources.inboxes, *resources.rpc_pairs):
        close_all(pair)
    resources.tls_pair[0].close()
    close_cluster(resources)
    target = resources.target.for_child("tlsproxy")
    target.log.on_warning = WarningRing(resources.warning_rings[len(resources.children) + number]).write
    assert resources.certificates is not None
    ready = resources.tls_ready[number : number + 1]
    conditions = new_conditions(resources.condition_memory[len(resources.children) + number])
    args = TlsArgs(
        number, channel, resources.tls_pair[1], ready, resources.certificates, resources.heartbeat(child), conditions
    )
    target.watch(args.conditions)
    return TlsProcess(resources.config, target, args).run()


def _cluster_main(resources: Resources, parts: ClusterParts, channel: socket.socket) -> int:
    """What the cluster process does: clients are out of its reach, and all keys but that of the records."""
    close_server_sockets(resources)
    for group in resources.groups.values():
        close_all(group)
    for pair in (*resources.inboxes, *resources.rpc_pairs, resources.tls_pair):
        close_all(pair)
    close_keys(resources)
    own = [cluster_end for _, cluster_end in parts.worker_pairs]
    close_cluster(resources, *own, parts.requests[1], parts.offenses[1])
    at = len(resources.children) + len(resources.tls)
    target = resources.target.for_child()
    target.log.on_warning = WarningRing(resources.warning_rings[at]).write
    from fastscreen.cluster.deletion_file import DeletionFile
    from fastscreen.cluster.process import ClusterArgs, ClusterProcess  # its library is large: see preload.py

    config = resources.config
    cache = Path(config.cache.path) if config.cache.path else None
    offenses = Path(config.score.memory) if config.score.memory else None
    args = ClusterArgs(
        channel=channel,
        heartbeat=resources.heartbeat(parts.child),
        conditions=new_conditions(resources.condition_memory[at]),
        workers=own,
        control=parts.requests[1],
        state=parts.state,
        files=lambda: files.read(config.cluster),
        lifetimes=lifetimes,
        cache=Store(cache, config.cache.max_size) if cache is not None else None,
        deletions=DeletionFile(cache) if cache is not None else None,
        version=__version__,
        offenses=parts.offenses[1],
        memory=OffenseAdmin(offenses) if offenses is not None else None,
        memory_deletions=DeletionFile(offenses) if offenses is not None else None,
    )
    target.watch(args.conditions)
    return ClusterProcess(resources.config, target, args).run()


def _recorder_main(resources: Resources, parts: HistoryParts, channel: socket.socket) -> int:
    """What the recorder does: it has neither keys nor sockets, but the one to the cluster process."""
    cluster = resources.cluster.offenses[0] if resources.cluster is not None else None
    _close_all_sockets(resources, cluster)
    at = len(resources.children) + len(resources.tls) + 1
    target = resources.target.for_child()
    target.log.on_warning = WarningRing(resources.warning_rings[at]).write
    from fastscreen.history.recorder import RecorderArgs, RecorderProcess  # SQLite: see preload.py

    args = RecorderArgs(
        channel=channel,
        heartbeat=resources.heartbeat(parts.child),
        conditions=new_conditions(resources.condition_memory[at]),
        rings=[HistoryReader(memory) for memory in parts.rings],
        pulses=resources.pulses[: len(resources.children)],
        state=parts.state,
        offense_state=parts.offense_state,
        offense_mark=parts.mark(),
        feedback_state=parts.feedback_state,
        cluster=cluster,
    )
    target.watch(args.conditions)
    return RecorderProcess(resources.config, target, args).run()


def _refresh_main(resources: Resources) -> int:
    """What a refresh of the lists does: it needs nothing of the daemon's but settings and log."""
    _close_all_sockets(resources)
    target = resources.target.for_child()
    target.log.on_warning = WarningRing(resources.warning_rings[-3]).write
    return refresh.run(resources.config, target, Conditions(resources.condition_memory[-3]))


def new_conditions(region: memoryview) -> Conditions:
    """The conditions of a process that starts: those of its predecessor ended with it."""
    conditions = Conditions(region)
    conditions.clear()
    return conditions


def _close_all_sockets(resources: Resources, *keep: socket.socket | None) -> None:
    """All but the channel to the supervisor and those that this process needs, and the keys."""
    close_server_sockets(resources)
    for group in resources.groups.values():
        close_all(group)
    for pair in (*resources.inboxes, *resources.rpc_pairs, resources.tls_pair):
        close_all(pair)
    close_keys(resources)
    close_cluster(resources, *keep)


def close_server_sockets(resources: Resources) -> None:
    """The sockets that only the control server serves."""
    for bound in (resources.control, resources.metrics):
        if bound is not None:
            bound.listener.close()


def close_keys(resources: Resources) -> None:
    """Close the private keys: a process that talks to strangers must not be able to read them."""
    if resources.certificates is not None:
        resources.certificates.close()


def close_cluster(resources: Resources, *keep: socket.socket | None) -> None:
    """The sockets between the cluster process and the others, but those that this process needs."""
    if resources.cluster is not None:
        resources.cluster.close(*(end for end in keep if end is not None))


def _control_main(resources: Resources, channel: socket.socket) -> int:
    """What the control server does."""
    for group in resources.groups.values():
        close_all(group)
    for ends in resources.inboxes:
        close_all(ends)
    close_all(workers for _, workers in resources.rpc_pairs)
    close_keys(resources)
    close_all(resources.tls_pair)
    parts = resources.cluster
    close_cluster(resources, parts.requests[0] if parts is not None else None)
    target = resources.target.for_child()
    target.log.on_warning = WarningRing(resources.warning_rings[-1]).write
    target.watch(new_conditions(resources.condition_memory[-1]))
    daemon = ControlArgs(
        pid=os.getppid(),
        started=resources.started,
        channel=channel,
        control=resources.control.listener if resources.control is not None else None,
        metrics=resources.metrics.listener if resources.metrics is not None else None,
        rpc=[server_ends for server_ends, _ in resources.rpc_pairs],
        rings=resources.rings,
        warning_rings=resources.warning_rings,
        condition_memory=resources.condition_memory,
        tables=resources.tables,
        key=resources.key,
        health=resources.health,
        heartbeat=resources.heartbeat(resources.control_process),
        reload_state=resources.reload_state,
        cluster_requests=parts.requests[0] if parts is not None else None,
        cluster_state=parts.memory if parts is not None else None,
        history_state=resources.history.memory if resources.history is not None else None,
        offense_state=resources.history.offense_memory if resources.history is not None else None,
        feedback_state=resources.history.feedback_memory if resources.history is not None else None,
    )
    return ControlServer(resources.config, target, daemon).run()
