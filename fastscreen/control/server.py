"""The hub's process: serves the control socket beside the workers. It may end at any time and be started anew."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Sequence

import uvloop
from msgspec import Struct

from fastscreen import __version__
from fastscreen.config import Config
from fastscreen.control import commands, metrics, protocol
from fastscreen.control.callers import CALLERS_MAX, Callers
from fastscreen.control.context import ServerContext
from fastscreen.control.protocol import Request
from fastscreen.control.session import Caller
from fastscreen.control.worker_rpc import WorkerRpc
from fastscreen.dns.health.state import HealthTable
from fastscreen.process import child, ipc
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Reload, ReopenLog
from fastscreen.process.log_output import LogTarget
from fastscreen.process.loop_errors import LoopErrors
from fastscreen.process.reload_state import ReloadState
from fastscreen.process.warning_ring import WarningRing
from fastscreen.screening import policy

_PR_SET_NAME = 15
SWEEP_SECONDS = 0.5
END_SECONDS = 2.0  # for the callers' connections to be over, at the end
NAME = b"fastscreen-hub"  # as top and ps show it, at most 15 octets
NICENESS = 10  # where there is not CPU enough, mail goes first


class ControlArgs(Struct, frozen=True):
    """What the control server is started with. pid, started: the supervisor's, s since 1970. channel: to it. control:
    the listening socket. rpc, rings: by worker. warning_rings: of the workers, the supervisor, the control server.
    tables: as the workers have them. key: chooses a client's worker. health: of the DNS lists. heartbeat: a byte that
    changes every second while the loop runs. condition_memory: in the order of warning_rings.
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


class Hub:
    """One hub from start to end, in a process of its own that is already the user without rights."""

    def __init__(self, settings: Config, target: LogTarget, args: ControlArgs) -> None:
        self._config = settings
        self._target = target
        self._args = args
        self._exit_code = 0
        self._errors = LoopErrors(target.log, self._give_up)
        self._callers = Callers()
        self._served: set[Caller] = set()

    def run(self) -> int:
        """Serve until the supervisor says so, or is gone."""
        os.nice(NICENESS)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        self._errors.install(loop)
        self._ended = asyncio.Event()
        args = self._args
        warning_rings = [WarningRing(memory) for memory in args.warning_rings]
        self._house = ServerContext(
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
        )
        loop.add_reader(args.channel.fileno(), self._errors.guard("an order of the supervisor", self._ordered))
        beating = loop.create_task(self._beat())
        sweeping = loop.create_task(self._sweep())
        servers = []
        if args.control is not None:
            servers.append(await asyncio.start_unix_server(self._called, sock=args.control, limit=protocol.MAX_IN))
        if args.metrics is not None:
            servers.append(await metrics.serve(self._house, args.metrics))
        await self._ended.wait()
        for server in servers:
            server.close()
        self._callers.end_all()
        end = loop.time() + END_SECONDS
        while self._served and loop.time() < end:
            await asyncio.sleep(0.01)
        await self._house.close()
        beating.cancel()
        sweeping.cancel()
        self._target.close()
        return self._exit_code

    def _give_up(self) -> None:
        self._exit_code = 1
        self._ended.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(child.TICK)
            child.beat(self._args.heartbeat)
            self._target.tick()

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

    def _hello(self) -> protocol.Map:
        return {
            "fastscreen": __version__,
            "protocol": 1,
            "pid": self._args.pid,
            "workers": len(self._args.rings),
            "hostname": self._config.hostname,
            "started": self._args.started,
        }

    async def _answer(self, caller: Caller, request: Request) -> object:
        return await commands.answer(self._house, caller, request)

    # ---- the supervisor's orders

    def _ordered(self) -> None:
        try:
            order, descriptors = ipc.receive_order(self._args.channel)
        except BlockingIOError:
            return
        match order:
            case ReopenLog():
                self._target.reopen()  # what goes wrong, the supervisor tells
            case Reload():
                self._config, _ = ipc.read_settings(descriptors[0])
                self._house.configure(self._config)
            case _:
                asyncio.get_running_loop().remove_reader(self._args.channel.fileno())
                self._ended.set()
