"""What the processes that the supervisor forks have in common: name and priority, event loop, orders and heartbeat.

`ForkedProcess` is the base of the worker, the TLS process and the control server. `run` calls `start`; until `end` the
process takes the supervisor's orders and does its housekeeping every second; then `close` is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from socket import socket
from typing import ClassVar

import uvloop

from fastscreen.config import Config, ConfigError
from fastscreen.escaping import one_line
from fastscreen.process import child, ipc, prctl
from fastscreen.process.ipc import Failed, Ready, Reload, ReopenLog, Stop, WriteThrough
from fastscreen.process.log_output import LogTarget
from fastscreen.process.loop_errors import LoopErrors


def set_name_and_priority(name: str, niceness: int) -> None:
    """name: as `ps` and `top` show it, at most 15 bytes. niceness: above 0, mail goes first where CPU time is short."""
    os.nice(niceness)
    prctl.set_name(name)


class ForkedProcess:
    """One process from start to end. It already runs as the unprivileged user.

    channel: to the supervisor. heartbeat: a byte of shared memory that changes every second while the process works.
    """

    NAME: ClassVar[str] = ""
    """As `ps` and `top` show it; empty: as the supervisor."""
    NICENESS: ClassVar[int] = 0
    REPORTS_START: ClassVar[bool] = True
    """Whether the supervisor waits for a report that the process serves."""

    def __init__(self, config: Config, target: LogTarget, channel: socket, heartbeat: memoryview) -> None:
        self._config = config
        self._target = target
        self._log = target.log
        self._channel = channel
        self._heartbeat = heartbeat
        self._exit_code = 0
        self._errors = LoopErrors(self._log, self._give_up)

    def run(self) -> int:
        """Work until the supervisor says stop or has ended. Return the exit code; a failed start is reported."""
        if self.NAME:
            set_name_and_priority(self.NAME, self.NICENESS)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._main())
        except (OSError, ConfigError, ValueError) as error:
            if not self.REPORTS_START:
                raise
            code = 2 if isinstance(error, ConfigError) else 1
            self.report(Failed(one_line(error), code))
            return code

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        self._errors.install(loop)
        self._ended = asyncio.Event()
        await self.start()
        loop.add_reader(self._channel.fileno(), self._errors.guard("an order of the supervisor", self._take_order))
        tasks = [loop.create_task(self._beat()), loop.create_task(self._tick())]
        await self._ended.wait()
        await self.close()
        for task in tasks:
            task.cancel()
        self._target.close()
        return self._exit_code

    # ---- what a kind of process is

    async def start(self) -> None:
        """Begin to serve, and report that. OSError, ConfigError, ValueError: impossible."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop serving, after `end`."""
        raise NotImplementedError

    def reload(self, descriptors: list[int]) -> None:
        """Take over the configuration in the first descriptor and report that, or keep the old one whole. The other
        descriptors are closed."""
        memory, *others = descriptors
        report: ipc.Report = Ready()
        try:
            config, _ = ipc.read_settings(memory)
            self.take(config, others)
            self._config = config
        except Exception as error:  # whatever it is: the old one stays
            report = Failed(one_line(error))
        for descriptor in others:
            os.close(descriptor)
        self.report(report)

    def take(self, config: Config, descriptors: list[int]) -> None:
        """Follow a new configuration, of a `reload`. Any exception: the old one stays."""
        raise NotImplementedError

    def stop(self, *, successor: bool) -> None:
        """The supervisor says stop; see `ipc.Stop`."""
        self.end()

    def write_through(self) -> None:
        """A restart begins; see `ipc.WriteThrough`."""

    def supervisor_ended(self) -> None:
        """The supervisor has closed the channel: it stops, or was killed."""
        self.end()

    def makes_progress(self) -> bool:
        """Whether the heartbeat changes: not only the loop turns, the process does its work."""
        return True

    async def housekeeping(self, second: int) -> None:
        """What is due every second. second: counted from 1."""

    # ---- for the kinds

    def end(self) -> None:
        """Let the process end."""
        self._ended.set()

    def report(self, report: ipc.Report) -> None:
        """Tell the supervisor how a start or a reload went."""
        with contextlib.suppress(OSError):  # it has ended
            ipc.send(self._channel, report)

    def _info(self, text: str) -> None:
        """Log a line now, not at the next tick."""
        self._log.info(text)
        self._log.flush()

    def _warn(self, text: str) -> None:
        """The same with a warning."""
        self._log.warning(text)
        self._log.flush()

    def _give_up(self) -> None:
        """The process's main work only fails: end, so that the supervisor starts another."""
        self._exit_code = 1
        self.end()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(child.TICK)
            if self.makes_progress():
                child.beat(self._heartbeat)

    async def _tick(self) -> None:
        """Housekeeping; and what the log's reader did not take at once goes out later."""
        for second in itertools.count(1):
            await asyncio.sleep(child.TICK)
            try:
                await self.housekeeping(second)
                self._target.tick()
            except Exception as error:
                self._errors.report("housekeeping", error)

    def _take_order(self) -> None:
        try:
            order, descriptors = ipc.receive_order(self._channel)
        except BlockingIOError:
            return
        match order:
            case ReopenLog():
                self._target.reopen()  # the supervisor logs what goes wrong
            case Reload():
                self.reload(descriptors)
            case Stop(successor):
                self.stop(successor=successor)
            case WriteThrough():
                self.write_through()
            case None:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                self.supervisor_ended()
        self._log.flush()
