"""The recorder: the process that stores the sessions of all workers. They never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from msgspec import Struct

from fastscreen.config import Config, ConfigError
from fastscreen.core import OffenseRules
from fastscreen.feedback.feedback import Feedback
from fastscreen.feedback.state import FeedbackState
from fastscreen.history.drain import Drain
from fastscreen.history.ring import Ring
from fastscreen.history.state import HistoryState
from fastscreen.history.writer import BUSY, HistoryWriter
from fastscreen.offenses import packets
from fastscreen.offenses.packets import Merge, Record, Resend
from fastscreen.offenses.rules import load_rules, rules_of
from fastscreen.offenses.state import OffenseState
from fastscreen.offenses.writer import OffenseWriter
from fastscreen.process import child
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Ready
from fastscreen.process.log_output import LogTarget
from fastscreen.process.startup import ForkedProcess

TURN_SECONDS = 0.5  # between two turns: what is lost when all processes are killed
BUSY_SECONDS = 0.1  # while a ring is filled so fast that it might overflow
MORE_SECONDS = 0.05  # between two turns of reading the MTA's log, while more is waiting
CLEAN_UP_SECONDS = 60
END_TURNS = 20  # at the end, for sessions that do not fit into one turn
ORPHAN_SECONDS = 40.0  # after the supervisor was killed: workers let their clients finish in 30 s
PACKETS = 64  # of the cluster process that are read at a time
QUIET_SECONDS = 3.0  # without a heartbeat of a worker, after which all have ended


class RecorderArgs(Struct, frozen=True):
    """What the recorder has. channel: to the supervisor. heartbeat: a byte that changes every second.

    rings: of the workers. pulses: their heartbeats. state: where it writes how it is doing. offense_state: the same for
    the memory of offenses; offense_mark: which file of it is in use (`use_mark`). feedback_state: for the MTA's log.
    cluster: its end of the pair to the cluster process; None: there are no other hosts.
    """

    channel: socket
    heartbeat: memoryview
    conditions: Conditions
    rings: Sequence[Ring]
    pulses: memoryview
    state: HistoryState
    offense_state: OffenseState
    offense_mark: memoryview
    feedback_state: FeedbackState
    cluster: socket | None = None


class RecorderProcess(ForkedProcess):
    """The process from start to end."""

    NAME = "fastscreen-hist"
    NICENESS = 10  # all else goes first

    def __init__(self, config: Config, target: LogTarget, args: RecorderArgs) -> None:
        super().__init__(config, target, args.channel, args.heartbeat)
        self._args = args
        self._feedback: Feedback | None = None

    async def start(self) -> None:
        self._offenses = self._new_offenses()
        learn = self._offenses.add if self._offenses is not None else None
        self._writer: HistoryWriter | Drain
        if self._config.history.path or learn is None:
            self._writer = HistoryWriter(
                self._config.history,
                self._args.rings,
                self._args.conditions,
                info=self._info,
                warn=self._warn,
                learn=learn,
            )
        else:
            self._writer = Drain(self._args.rings, learn)
        self._follow_log(self._config)
        self._work = asyncio.get_running_loop().create_task(self._record())
        self._reading = asyncio.get_running_loop().create_task(self._read_log())
        self.report(Ready())

    def _new_offenses(self) -> OffenseWriter | None:
        """The writer of the memory of offenses, if there is one. Its thread runs."""
        rules = self._rules(self._config)
        if rules is None:
            return None
        loop = asyncio.get_running_loop()

        def info(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._info, text)

        def warn(text: str) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._warn, text)

        cluster = self._args.cluster
        writer = OffenseWriter(
            self._config,
            rules,
            self._args.conditions,
            info=info,
            warn=warn,
            share=self._share if cluster is not None else None,
            mark=self._args.offense_mark,
        )
        writer.start()
        if cluster is not None:
            loop.add_reader(cluster.fileno(), self._errors.guard("a packet of the cluster process", self._take_packets))
        return writer

    # ---- other hosts

    def _share(self, records: list[Record]) -> None:
        """Called in the writer's thread. A socket that is full loses them: they are shared when they change again."""
        assert self._args.cluster is not None
        for packet in packets.encode_changed(records):
            with contextlib.suppress(OSError):
                self._args.cluster.send(packet, MSG_DONTWAIT | MSG_NOSIGNAL)

    def _take_packets(self) -> None:
        assert self._args.cluster is not None and self._offenses is not None
        for _ in range(PACKETS):
            try:
                packet = self._args.cluster.recv(packets.PACKET_MAX + 1, MSG_DONTWAIT)
            except OSError:
                return
            if not packet:
                asyncio.get_running_loop().remove_reader(self._args.cluster.fileno())
                return
            with contextlib.suppress(ValueError):
                match packets.decode(packet):
                    case Merge(records):
                        self._offenses.merge(records)
                    case Resend(since):
                        self._offenses.resend(since)

    def _rules(self, config: Config) -> OffenseRules | None:
        """The supervisor has read the AS file a moment ago. If it is gone, its networks are not known for now."""
        try:
            return load_rules(config)
        except ConfigError as error:
            self._warn(str(error))
            return rules_of(config, None)

    async def _record(self) -> None:
        while True:
            used = self._writer.turn()
            await asyncio.sleep(BUSY_SECONDS if used >= BUSY else TURN_SECONDS)

    def _follow_log(self, config: Config) -> None:
        """Let the memory of offenses learn from the MTA's log, if that is configured."""
        if self._feedback is not None and not config.feedback.log:
            self._feedback.close()
            self._feedback = None
            self._args.feedback_state.clear()
        elif self._feedback is not None:
            self._feedback.configure(config.feedback)
        elif config.feedback.log and self._offenses is not None:
            self._feedback = Feedback(
                config.feedback, self._args.conditions, self._offenses.note, info=self._info, warn=self._warn
            )
        if self._offenses is not None:
            self._offenses.unknown = self._feedback.add if self._feedback is not None else None

    async def _read_log(self) -> None:
        while True:
            more = self._feedback.turn() if self._feedback is not None else False
            await asyncio.sleep(MORE_SECONDS if more else TURN_SECONDS)

    def makes_progress(self) -> bool:
        if self._work.done() or self._reading.done():
            return False
        return self._offenses is None or self._offenses.is_alive

    async def housekeeping(self, second: int) -> None:
        if second % CLEAN_UP_SECONDS == 1:
            self._writer.clean_up()
        self._write_state()
        self._log.flush()

    def _write_state(self) -> None:
        self._args.state.write(self._writer.stats())
        if self._offenses is not None:
            self._args.offense_state.write(self._offenses.stats())
        if self._feedback is not None:
            self._args.feedback_state.write(self._feedback.stats())

    async def close(self) -> None:
        """Store what is there."""
        self._work.cancel()
        for _ in range(END_TURNS):
            self._writer.turn()
            if self._writer.is_drained:
                break
        self._reading.cancel()
        if self._feedback is not None:
            self._feedback.close()
        if self._offenses is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._offenses.close)
        self._write_state()
        self._writer.close()

    def supervisor_ended(self) -> None:
        """It was killed: otherwise it says stop, once the workers have ended. They let their clients finish."""
        self._orphan = asyncio.get_running_loop().create_task(self._outlive_workers())

    async def _outlive_workers(self) -> None:
        """Record until the last worker has ended."""
        before, quiet, lasted = b"", 0.0, 0.0
        while quiet < QUIET_SECONDS and lasted < ORPHAN_SECONDS:
            await asyncio.sleep(child.TICK)
            now = bytes(self._args.pulses)
            quiet = quiet + child.TICK if now == before else 0.0
            before, lasted = now, lasted + child.TICK
        self.end()

    def take(self, config: Config, descriptors: list[int]) -> None:
        """Retention, mask and the rules of the memory follow the new configuration."""
        self._writer.configure(config.history)
        if self._offenses is not None and (rules := self._rules(config)) is not None:
            self._offenses.configure(config, rules)
            self._follow_log(config)
