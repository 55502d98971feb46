"""What every forked process does the same way: orders, reports, heartbeat, housekeeping, exit code."""

from __future__ import annotations

import mmap
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastscreen import config
from fastscreen.config import ConfigError
from fastscreen.process import child, ipc, prctl
from fastscreen.process.ipc import Failed, Ready, ReopenLog, Stop, WriteThrough
from fastscreen.process.startup import ForkedProcess

LINES = 4096


class Toy(ForkedProcess):
    """Writes what happens to it into shared memory."""

    NAME = "fastscreen-toy"
    NICENESS = 3

    def __init__(self, notes: mmap.mmap, channel: Any, heartbeat: memoryview, fault: str) -> None:
        log = SimpleNamespace(warning=self.note, info=self.note, flush=lambda: None)
        target = SimpleNamespace(
            log=log, reopen=lambda: self.note("reopen"), tick=lambda: None, close=lambda: self.note("closed")
        )
        super().__init__(config.default(), target, channel, heartbeat)  # type: ignore[arg-type]
        self._notes = notes
        self._fault = fault

    def note(self, text: str) -> None:
        self._notes.write(f"{text}\n".encode())

    async def start(self) -> None:
        if self._fault == "start":
            raise OSError(13, "Permission denied", "/x")
        if self._fault == "config":
            raise ConfigError("FILE: key: wrong")
        self.report(Ready())

    async def close(self) -> None:
        self.note("close")

    def reload(self, descriptors: list[int]) -> None:
        settings, _ = ipc.read_settings(descriptors[0])
        self.note(f"reload {settings.hostname}")
        if self._fault == "reload":
            raise RuntimeError("injected")
        self.report(Ready())

    def write_through(self) -> None:
        self.note("write through")

    def makes_progress(self) -> bool:
        return self._fault != "stuck"

    async def housekeeping(self, second: int) -> None:
        if self._fault == "give up":
            self._give_up()
        if self._fault == "housekeeping":
            raise RuntimeError("injected")


class Run:
    """A toy in its own process."""

    def __init__(self, fault: str = "", toy: type[Toy] = Toy) -> None:
        self.notes = mmap.mmap(-1, LINES)
        self.heartbeat = memoryview(mmap.mmap(-1, 1))
        self.channel, theirs = ipc.pair()
        self.pid = os.fork()
        if not self.pid:
            code = 99
            try:
                self.channel.close()
                code = toy(self.notes, theirs, self.heartbeat, fault).run()
            finally:
                os._exit(code)
        theirs.close()

    def lines(self) -> list[str]:
        return self.notes[:LINES].rstrip(b"\0").decode().splitlines()

    def report(self) -> object:
        self.channel.setblocking(True)
        return wait(lambda: self._report())

    def _report(self) -> object:
        try:
            return ipc.receive_report(self.channel)
        except BlockingIOError:
            return None

    def code(self) -> int:
        """The exit code; -1 while it runs after 5 s."""
        for _ in range(500):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return -1


def wait(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + 5
    while not (result := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return result


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    monkeypatch.setattr(child, "TICK", 0.02)
    runs: list[Run] = []

    def started(fault: str = "", toy: type[Toy] = Toy) -> Run:
        runs.append(Run(fault, toy))
        return runs[-1]

    yield started
    for run in runs:
        if run.pid:
            os.kill(run.pid, 9)
            os.waitpid(run.pid, 0)
        run.channel.close()


def test_orders_in_turn(start: Callable[..., Run]) -> None:
    run = start()
    assert run.report() == Ready()
    ipc.send(run.channel, ReopenLog())
    ipc.send_reload(run.channel, config.default(), {})
    assert run.report() == Ready()
    ipc.send(run.channel, WriteThrough())
    ipc.send(run.channel, Stop())
    assert run.code() == 0
    assert run.lines() == ["reopen", f"reload {config.default().hostname}", "write through", "close", "closed"]


def test_name_and_priority(start: Callable[..., Run]) -> None:
    run = start()
    run.report()
    assert Path(f"/proc/{run.pid}/comm").read_text() == "fastscreen-toy\n"
    assert os.getpriority(os.PRIO_PROCESS, run.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3


def test_it_ends_with_the_supervisor(start: Callable[..., Run]) -> None:
    run = start()
    run.report()
    run.channel.close()
    assert run.code() == 0


@pytest.mark.parametrize(
    ("fault", "report"),
    [("start", Failed("/x: Permission denied", 1)), ("config", Failed("FILE: key: wrong", 2))],
)
def test_a_failed_start_is_reported(start: Callable[..., Run], fault: str, report: Failed) -> None:
    run = start(fault)
    assert run.report() == report
    assert run.code() == report.code


def test_a_start_that_nobody_waits_for(start: Callable[..., Run], capfd: pytest.CaptureFixture[str]) -> None:
    class Quiet(Toy):
        REPORTS_START = False

    run = start("start", Quiet)
    assert run.code() == 99
    assert run._report() is None


def test_the_heart_beats_while_it_works(start: Callable[..., Run]) -> None:
    run, stuck = start(), start("stuck")
    assert run.report() == stuck.report() == Ready()
    assert wait(lambda: run.heartbeat[0] > 3)
    assert stuck.heartbeat[0] == 0


def test_an_exception_ends_neither_orders_nor_housekeeping(start: Callable[..., Run]) -> None:
    run = start("housekeeping")
    run.report()
    assert wait(run.lines)[0].startswith("internal error in housekeeping: RuntimeError: injected (")
    ipc.send(run.channel, ReopenLog())
    assert wait(lambda: "reopen" in run.lines())


def test_an_order_that_fails_is_not_the_last(start: Callable[..., Run]) -> None:
    run = start("reload")
    run.report()
    for _ in range(2):
        ipc.send_reload(run.channel, config.default(), {})
    ipc.send(run.channel, Stop())
    assert run.code() == 0
    reloads = [line for line in run.lines() if line.startswith("reload")]
    assert len(reloads) == 2
    assert any(line.startswith("internal error in an order of the supervisor: RuntimeError") for line in run.lines())


def test_what_gives_up_is_started_again(start: Callable[..., Run]) -> None:
    run = start("give up")
    assert run.code() == 1
    assert run.lines()[-2:] == ["close", "closed"]


def test_prctl_in_a_child() -> None:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            prctl.set_name("a-name-that-is-too-long")
            prctl.forbid_new_privileges()
            prctl.forbid_tracing()
            prctl.keep_capabilities()
            prctl.die_with_parent(9)
            status = Path("/proc/self/status").read_text()
            if "NoNewPrivs:\t1" in status and prctl.dumpable() == 0 and "Name:\ta-name-that-is-\n" in status:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_the_kernel_refuses() -> None:
    with pytest.raises(OSError, match=r"prctl: Invalid argument"):
        prctl.die_with_parent(resource.RLIM_INFINITY & 0xFFFF)
