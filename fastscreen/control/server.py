"""The control server's process: accepts callers on the control socket. `session.py` reads and answers their requests.

The process may end at any time and be restarted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from msgspec import Struct

from fastscreen import __version__
from fastscreen.config import Config
from fastscreen.control import commands, frames
from fastscreen.control.callers import CALLERS_MAX, Callers
from fastscreen.control.context import ServerContext
from fastscreen.control.messages import Hello
from fastscreen.control.protocol import Request
from fastscreen.control.session import Caller
from fastscreen.control.worker_rpc import WorkerRpc
from fastscreen.dns.health.state import HealthTable
from fastscreen.process import ipc
from fastscreen.process.conditions import Conditions
from fastscreen.process.log_output import LogTarget
from fastscreen.process.reload_state import ReloadState
from fastscreen.process.startup import ForkedProcess
from fastscreen.process.warning_ring import WarningRing
from fastscreen.screening import policy

SWEEP_SECONDS = 0.5
END_SECONDS = 2.0  # for the callers' connections to be over, at the end


class ControlArgs(Struct, frozen=True):
    """What the control server is started with. pid, started: the supervisor's, s since 1970. channel: to it. control:
    the listening socket. rpc, rings: by worker. warning_rings: of the workers, the supervisor, the control server.
    tables: as the workers have them. key: chooses a client's worker. health: of the DNS lists. heartbeat: a byte that
    changes every second while the loop runs. condition_memory: in the order of warning_rings. cluster_requests,
    cluster_state: to the cluster process, and its memory; None: there is none. history_state: the recorder's memory;
    None: no history is recorded. offense_state: the same for the memory of offenses; feedback_state: for the MTA's log.
    """

    pid: int
    started: float
    channel: socket.socket
    control: socket.socket | None
    metrics: socket.socket | None
    rpc: Sequence[socket.socket]
    rings: Sequence[memoryview]
    warning_rings: Sequence[memoryview]
    condition_memory: Sequence[memoryview]
    tables: policy.Tables
    key: int
    health: HealthTable
    heartbeat: memoryview
    reload_state: ReloadState
    cluster_requests: socket.socket | None = None
    cluster_state: memoryview | None = None
    history_state: memoryview | None = None
    offense_state: memoryview | None = None
    feedback_state: memoryview | None = None


class ControlServer(ForkedProcess):
    """The control server from start to end, in a separate process that has already dropped its privileges."""

    NAME = "fastscreen-ctl"
    NICENESS = 10  # mail goes first
    REPORTS_START = False

    def __init__(self, config: Config, target: LogTarget, args: ControlArgs) -> None:
        super().__init__(config, target, args.channel, args.heartbeat)
        self._args = args
        self._callers = Callers()
        self._served: set[Caller] = set()

    async def start(self) -> None:
        args = self._args
        warning_rings = [WarningRing(memory) for memory in args.warning_rings]
        self._context = ServerContext(
            self._config,
            self._target.log,
            WorkerRpc(args.rpc),
            args.rings,
            warning_rings,
            args.pid,
            args.started,
            args.tables,
            args.key,
            args.health,
            [Conditions(memory) for memory in args.condition_memory],
            args.reload_state,
            args.cluster_requests,
            args.cluster_state,
            args.history_state,
            args.offense_state,
            args.feedback_state,
        )
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        self._servers = []
        if args.control is not None:
            # The path is the supervisor's: after a restart it already leads to the new server's socket.
            server = await asyncio.start_unix_server(
                self._called, sock=args.control, limit=frames.MAX_TO_DAEMON, cleanup_socket=False
            )
            self._servers.append(server)
        if args.metrics is not None:
            from fastscreen.control import metrics  # prometheus_client: only where it is used

            self._servers.append(await metrics.serve(self._context, args.metrics))

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for server in self._servers:
            server.close()
        self._callers.end_all()
        end = loop.time() + END_SECONDS
        while self._served and loop.time() < end:
            await asyncio.sleep(0.01)
        await self._context.close()
        self._sweeping.cancel()

    # ---- callers

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(reader, writer, os.geteuid(), self._callers.make_room)
        if not self._callers.admit(caller, asyncio.get_running_loop().time()):
            caller.refuse(f"too many connections: {CALLERS_MAX} are in use")
            return
        self._served.add(caller)
        try:
            await caller.serve(self._hello(), self._answer)
        finally:
            self._served.discard(caller)
            self._callers.leave(caller)

    async def _sweep(self) -> None:
        """End callers that let a time limit pass."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._callers.sweep(asyncio.get_running_loop().time())

    def _hello(self) -> Hello:
        return Hello(
            fastscreen=__version__,
            pid=self._args.pid,
            workers=len(self._args.rings),
            hostname=self._config.hostname,
            started=self._args.started,
        )

    async def _answer(self, caller: Caller, request: Request) -> object:
        return await commands.answer(self._context, caller, request)

    # ---- the supervisor's orders

    def reload(self, descriptors: list[int]) -> None:
        self._config, _ = ipc.read_settings(descriptors[0])
        self._context.configure(self._config)
