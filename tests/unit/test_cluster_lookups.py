"""Look-ups of several workers: gathered, merged, bounded in number and age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from fastscreen.cluster import lookups
from fastscreen.cluster.lookups import Answer, Lookups, Refused


class Loop:
    """A clock, timers that are called by hand, and the real loop's tasks."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.create_task = asyncio.get_running_loop().create_task

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        timer = (self.now + delay, callback)
        self.timers.append(timer)

        class Handle:
            def cancel(_) -> None:
                if timer in self.timers:
                    self.timers.remove(timer)

        return Handle()

    async def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
            await settle()
        self.now = end
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Fixture:
    def __init__(self, budget: float = 1.0) -> None:
        self.loop = Loop()
        self.asked: list[list[bytes]] = []
        self.answers: list[Answer] = []
        self.futures: list[asyncio.Future[Sequence[object]]] = []
        self.is_open = True
        self.held = False
        self.lookups = Lookups(
            self.fetch,
            self.answers.extend,
            lambda: self.is_open,
            budget,
            self.loop.time,
            self.loop,  # type: ignore[arg-type]
        )

    async def fetch(self, keys: Sequence[bytes]) -> Sequence[object]:
        self.asked.append(list(keys))
        if self.held:
            self.futures.append(asyncio.get_running_loop().create_future())
            return await self.futures[-1]
        return [b"value of " + key for key in keys]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def names(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def test_questions_of_five_milliseconds_are_one_batch() -> None:
    async def work() -> None:
        fixture = Fixture()
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.004)
        fixture.lookups.ask(1, names(2, 3))
        assert fixture.asked == []
        await fixture.loop.pass_time(0.001)
        assert fixture.asked == [names(1, 2, 3)]
        assert fixture.answers == [([0], b"1", b"value of 1"), ([1], b"2", b"value of 2"), ([1], b"3", b"value of 3")]
        assert len(fixture.lookups) == 0 and fixture.loop.timers == []

    run(work())


def test_a_full_batch_is_sent_at_once() -> None:
    async def work() -> None:
        fixture = Fixture()
        fixture.lookups.ask(0, names(*range(250)))
        await settle()
        assert [len(batch) for batch in fixture.asked] == [100, 100, 50]
        assert len(fixture.answers) == 250

    run(work())


def test_who_asks_for_the_same_client_shares_the_answer() -> None:
    async def work() -> None:
        fixture = Fixture()
        fixture.held = True
        fixture.lookups.ask(0, names(1))
        fixture.lookups.ask(1, names(1))
        await fixture.loop.pass_time(0.01)
        fixture.lookups.ask(2, names(1, 1))  # it is on its way
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.01)
        assert fixture.asked == [names(1)]
        fixture.futures[0].set_result([b"x"])
        await settle()
        assert fixture.answers == [([0, 1, 2], b"1", b"x")]
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.01)
        assert len(fixture.asked) == 2

    run(work())


def test_an_answer_after_the_budget_is_dropped() -> None:
    async def work() -> None:
        fixture = Fixture(budget=1)
        fixture.held = True
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.6)
        fixture.lookups.ask(0, names(2))
        await fixture.loop.pass_time(0.5)
        for future, value in zip(fixture.futures, (b"late", b"in time"), strict=True):
            future.set_result([value])
        await settle()
        assert fixture.answers == [([0], b"2", b"in time")]
        assert fixture.lookups.late == 1
        assert len(fixture.lookups) == 0

    run(work())


def test_what_is_not_found_is_not_delivered() -> None:
    async def work() -> None:
        fixture = Fixture()
        fixture.held = True
        fixture.lookups.ask(0, names(1, 2))
        await fixture.loop.pass_time(0.01)
        fixture.futures[0].set_result([None, None])
        await settle()
        assert fixture.answers == []

    run(work())


def test_questions_wait_for_the_server_no_longer_than_the_budget() -> None:
    async def work() -> None:
        fixture = Fixture(budget=1)
        fixture.is_open = False
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.8)
        fixture.lookups.ask(0, names(2))
        await fixture.loop.pass_time(0.5)
        assert fixture.asked == []
        fixture.lookups.expire()
        assert fixture.lookups.late == 1
        fixture.is_open = True
        fixture.lookups.flush()
        await settle()
        assert fixture.asked == [names(2)]
        assert [answer[1] for answer in fixture.answers] == names(2)

    run(work())


def test_a_lost_connection_asks_again() -> None:
    async def work() -> None:
        fixture = Fixture(budget=1)
        fixture.held = True
        fixture.lookups.ask(3, names(1))
        await fixture.loop.pass_time(0.01)
        fixture.is_open = False
        fixture.futures[0].set_exception(ConnectionError("gone"))
        await settle()
        fixture.held, fixture.is_open = False, True
        fixture.lookups.flush()
        await settle()
        assert fixture.answers == [([3], b"1", b"value of 1")]

    run(work())


def test_a_server_that_only_refuses_is_not_asked_without_end() -> None:
    async def work() -> None:
        fixture = Fixture(budget=1)

        async def refuse(keys: Sequence[bytes]) -> Sequence[object]:
            fixture.asked.append(list(keys))
            raise ConnectionError("refused")

        fixture.lookups._fetch = refuse
        fixture.lookups.ask(0, names(*range(100)))
        await settle()
        assert len(fixture.asked) == 1
        await fixture.loop.pass_time(3)
        assert len(fixture.asked) <= 1 + 1.0 / lookups.GATHER
        assert len(fixture.lookups) == 0
        assert fixture.lookups.late == 100

    run(work())


def test_the_number_of_questions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST", 500)
    monkeypatch.setattr(lookups, "MOST_BATCHES", 2)

    async def work() -> None:
        fixture = Fixture()
        fixture.held = True
        fixture.lookups.ask(0, names(*range(600)))
        await fixture.loop.pass_time(0.1)
        assert len(fixture.asked) == 2, "batches on their way are bounded, too"
        assert len(fixture.lookups) == 500
        assert fixture.lookups.refused == 100
        fixture.lookups.ask(0, names(1, 1000))
        assert fixture.lookups.refused == 101
        for future in fixture.futures:
            future.set_result([None] * 100)
        await settle()
        await fixture.loop.pass_time(0.1)
        assert len(fixture.asked) == 4

    run(work())


def test_a_defect_leaves_no_question_behind() -> None:
    async def work() -> None:
        fixture = Fixture()
        caught: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: caught.append(context["exception"]))

        async def broken(keys: Sequence[bytes]) -> Sequence[object]:
            raise RuntimeError("injected")

        fixture.lookups._fetch = broken
        fixture.lookups.ask(0, names(1))
        await fixture.loop.pass_time(0.01)
        await settle()
        assert len(fixture.lookups) == 0
        assert [str(error) for error in caught] == ["injected"]

    run(work())


def test_a_refused_batch_is_dropped_and_the_next_one_waits() -> None:
    async def work() -> None:
        fixture = Fixture(budget=20)
        fixture.held = True

        async def refuse(number: int) -> None:
            fixture.lookups.ask(0, names(number))
            fixture.lookups.ask(1, names(number))
            await fixture.loop.pass_time(0.01)
            fixture.futures[-1].set_exception(Refused())
            await settle()

        await refuse(1)
        assert (fixture.lookups.late, len(fixture.lookups)) == (2, 0)
        pauses = []
        for number in range(2, 9):
            asked, before = len(fixture.asked), fixture.loop.now
            fixture.lookups.ask(0, names(number))
            while len(fixture.asked) == asked:
                fixture.lookups.flush()
                await fixture.loop.pass_time(0.01)
            pauses.append(round(fixture.loop.now - before, 1))
            fixture.futures[-1].set_exception(Refused())
            await settle()
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
        assert fixture.asked == [names(number) for number in range(1, 9)]
        fixture.lookups.connected()
        fixture.lookups.ask(0, names(9))
        await fixture.loop.pass_time(0.01)
        fixture.futures[-1].set_result([b"x"])
        await settle()
        assert fixture.answers == [([0], b"9", b"x")]

    run(work())
