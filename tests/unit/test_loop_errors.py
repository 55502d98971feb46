"""What becomes of an exception in a process's event loop."""

import asyncio
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from fastscreen.core import Log
from fastscreen.process import loop_errors
from fastscreen.process.loop_errors import LoopErrors


class Lab:
    """clock: s. gave_up: how often the process was to end."""

    def __init__(self) -> None:
        self.log = Log("x", host="h", pid=1)
        self.clock = 0.0
        self.gave_up = 0
        self.errors = LoopErrors(self.log, self._give_up, lambda: self.clock)

    def _give_up(self) -> None:
        self.gave_up += 1

    def lines(self) -> list[str]:
        return [line.partition("[1]: ")[2] for line in self.log.lines().decode().splitlines()]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def fail() -> NoReturn:
    raise ValueError("a\nb\x1b[31m")


def test_guarded_callback_never_raises_and_is_told_in_one_line(lab: Lab) -> None:
    lab.errors.guard("screening", fail)()
    (line,) = lab.lines()
    assert line.startswith("warning: internal error in screening: ValueError: a b?[31m (loop_errors.py:")
    assert "test_loop_errors.py:" in line
    assert line.endswith(" in fail)")


def test_each_kind_is_told_once_a_minute(lab: Lab) -> None:
    guarded = lab.errors.guard("screening", fail, vital=False)
    for lab.clock in (0.0, 1.0, 59.0):
        guarded()
    lab.errors.guard("relaying", fail)()
    assert len(lab.lines()) == 2
    lab.clock = 60.0
    guarded()
    assert len(lab.lines()) == 1


def test_kinds_are_bounded(lab: Lab) -> None:
    for number in range(3 * loop_errors.MAX_KINDS):
        lab.errors.report(f"kind {number}", ValueError())
    assert len(lab.lines()) == loop_errors.MAX_KINDS
    lab.clock = loop_errors.LOG_SECONDS
    lab.errors.report("one more", ValueError())
    assert len(lab.lines()) == 1


def test_a_callback_that_only_fails_ends_the_process(lab: Lab) -> None:
    guarded = lab.errors.guard("screening", fail)
    for lab.clock in (0.0, 0.1, 0.2, 4.9):
        guarded()
    assert lab.gave_up == 0
    lab.clock = 5.0
    guarded()
    assert lab.gave_up == 1
    assert lab.lines()[-1] == "warning: screening has failed 5 times in a row: this process ends and is started again"


def test_not_for_few_failures_far_apart(lab: Lab) -> None:
    guarded = lab.errors.guard("screening", fail)
    for lab.clock in (0.0, 100.0):
        guarded()
    assert lab.gave_up == 0


def test_a_success_between_is_a_new_beginning(lab: Lab) -> None:
    failing = True

    def sometimes() -> None:
        if failing:
            fail()

    guarded = lab.errors.guard("screening", sometimes)
    for lab.clock in (0.0, 1.0, 2.0, 3.0, 4.0):
        failing = True
        guarded()
        guarded()
        failing = False
        guarded()
    failing = True
    lab.clock = 6.0
    guarded()
    assert lab.gave_up == 0


def test_what_the_process_can_do_without_never_ends_it(lab: Lab) -> None:
    guarded = lab.errors.guard("questions", fail, vital=False)
    for lab.clock in range(100):
        guarded()
    assert lab.gave_up == 0


def test_an_error_that_cannot_be_shown(lab: Lab) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    lab.errors.report("x", Odd())
    assert lab.lines() == ["warning: internal error in x: Odd: ?"]


@pytest.fixture
def hook() -> Iterator[None]:
    before = sys.unraisablehook
    yield
    sys.unraisablehook = before


@pytest.mark.usefixtures("hook")
def test_what_nobody_catches_is_told(lab: Lab) -> None:
    """In a callback of the loop, in a task, and where Python cannot raise."""

    class Gone:
        def __del__(self) -> None:
            fail()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lab.errors.install(loop)
        loop.call_soon(fail)
        task = loop.create_task(asyncio.sleep(0))
        task.add_done_callback(lambda _: fail())
        await asyncio.sleep(0.01)
        Gone()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    lines = lab.lines()
    assert len(lines) == 3
    assert all("ValueError" in line for line in lines)
    assert "__del__" in lines[2]
