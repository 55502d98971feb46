"""The names of clients in the view: which names are shown, and how many are looked up and kept."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from fastscreen.control.client_names import AT_A_TIME, KNOWN_SECONDS, REMEMBERED, UNKNOWN_SECONDS, ClientNames
from fastscreen.control.ptr import is_hostname


@pytest.mark.parametrize("name", ["mx.example.test", "localhost", "a_b.Example-1.x", "1.2.3.4.in-addr.arpa", "x" * 63])
def test_a_name_that_may_be_shown(name: str) -> None:
    assert is_hostname(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a.", ".a", "-a.test", "a-.test", "192.0.2.1", "7", "a b.test", "a\x1b[2J.test", "[bold]x.test",
     "a\n", "a.test\n", "ä.test", "x" * 64, "x." * 127 + "yy", b"mx.example.test", r"a\032b.test", "a\0b"],
)  # fmt: skip
def test_a_name_that_may_not(name: object) -> None:
    assert not is_hostname(name)


class Look:
    """A lookup that waits until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, asyncio.Future[str]] = {}

    async def __call__(self, address: str) -> str:
        self.asked.append(address)
        self.answers[address] = asyncio.get_running_loop().create_future()
        return await self.answers[address]

    async def answer(self, address: str, name: str) -> None:
        self.answers.pop(address).set_result(name)
        for _ in range(3):
            await asyncio.sleep(0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        look, clock = Look(), Clock()
        asyncio.run(test(ClientNames(look, clock), look, clock))

    del run.__wrapped__  # pytest would take its arguments for fixtures
    return run


@looped
async def test_it_is_there_a_moment_later_and_asked_for_once(names: ClientNames, look: Look, clock: Clock) -> None:
    for _ in range(3):
        assert names.name("192.0.2.1") == ""
        await asyncio.sleep(0)
    assert look.asked == ["192.0.2.1"]
    await look.answer("192.0.2.1", "mx.test")
    assert names.name("192.0.2.1") == "mx.test"
    clock.now += KNOWN_SECONDS - 1
    assert names.name("192.0.2.1") == "mx.test"
    await asyncio.sleep(0)
    assert len(look.asked) == 1


@looped
async def test_it_is_asked_for_again_in_time(names: ClientNames, look: Look, clock: Clock) -> None:
    """No name sooner than a name; the old one is shown meanwhile, unless it is very old."""
    names.name("192.0.2.1")
    names.name("192.0.2.2")
    await asyncio.sleep(0)
    await look.answer("192.0.2.1", "mx.test")
    await look.answer("192.0.2.2", "")
    clock.now += UNKNOWN_SECONDS
    assert [names.name("192.0.2.1"), names.name("192.0.2.2")] == ["mx.test", ""]
    await asyncio.sleep(0)
    assert look.asked[2:] == ["192.0.2.2"]
    clock.now += KNOWN_SECONDS
    assert names.name("192.0.2.1") == "mx.test"
    await asyncio.sleep(0)
    assert look.asked[3:] == ["192.0.2.1"]
    clock.now += KNOWN_SECONDS
    assert names.name("192.0.2.1") == ""
    await look.answer("192.0.2.1", "")
    assert names.name("192.0.2.1") == ""


@looped
async def test_so_many_at_a_time(names: ClientNames, look: Look, clock: Clock) -> None:
    addresses = [f"192.0.2.{number}" for number in range(3 * AT_A_TIME)]
    for address in addresses:
        names.name(address)
    await asyncio.sleep(0)
    assert look.asked == addresses[:AT_A_TIME]
    await look.answer(addresses[0], "mx.test")
    for address in addresses:
        names.name(address)
    await asyncio.sleep(0)
    assert look.asked[AT_A_TIME:] == [addresses[AT_A_TIME]]
    assert await names.found(addresses[-1], 60.0) == ""  # not looked up: not waited for
    names.close()


@looped
async def test_so_many_are_kept(names: ClientNames, look: Look, clock: Clock) -> None:
    for number in range(REMEMBERED + 1):
        names.name(str(number))
        await asyncio.sleep(0)
        await look.answer(str(number), "mx.test")
    assert names.name("1") == "mx.test"
    assert names.name("0") == ""
    await asyncio.sleep(0)
    await look.answer("0", "mx.test")
    assert names.name("1") == ""
    names.close()


@looped
async def test_it_can_be_waited_for(names: ClientNames, look: Look, clock: Clock) -> None:
    waiting = asyncio.ensure_future(names.found("192.0.2.1", 60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    await look.answer("192.0.2.1", "mx.test")
    assert await waiting == "mx.test"
    assert await names.found("192.0.2.2", 0.0) == ""
    names.close()


@looped
async def test_a_look_up_that_fails_is_no_name(names: ClientNames, look: Look, clock: Clock) -> None:
    names.name("192.0.2.1")
    await asyncio.sleep(0)
    look.answers["192.0.2.1"].set_exception(OSError("no more descriptors"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert names.name("192.0.2.1") == ""
    await asyncio.sleep(0)
    assert len(look.asked) == 1
