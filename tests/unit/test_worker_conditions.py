"""Which counters of a worker cause a condition, and when it ends."""

from typing import Any

import msgspec
import pytest

from fastscreen import config
from fastscreen.config import Config
from fastscreen.daemon.worker_conditions import MTA_FAILURES, RESOLVER_UNKNOWN_SECONDS, WorkerConditions
from fastscreen.process.conditions import SIZE, Conditions, Kind


class Worker:
    """Simulated counters, checked once per second."""

    def __init__(self) -> None:
        self.conditions = Conditions(memoryview(bytearray(SIZE)))
        self.config: Config = config.default()
        self.now = 1000.0
        self.stats: dict[str, Any] = {"dns_asked": 0, "dns_heard": 0, "descriptor_shortages": 0, "accepting": True}
        self.events = {"handed_off": 7, "continued": 1, "handoff_failed": 9, "continue_failed": 2}
        self.lasting = WorkerConditions(self.conditions, dict(self.events))

    def tick(self, **more: int) -> dict[Kind, str]:
        """A second in which counters grow by so much."""
        self.now += 1
        for name, number in more.items():
            counters = self.stats if name in self.stats else self.events
            counters[name] += number
        self.lasting.update(self.now, self.config, dict(self.stats), dict(self.events))
        return {one.kind: one.text for one in self.conditions.read()}


def test_what_was_counted_before_is_no_news() -> None:
    assert Worker().tick() == {}


@pytest.mark.parametrize("failed", ["handoff_failed", "continue_failed"])
@pytest.mark.parametrize("success", ["handed_off", "continued"])
def test_mta(failed: str, success: str) -> None:
    worker = Worker()
    for _ in range(MTA_FAILURES - 1):
        assert worker.tick(**{failed: 1}) == {}
        assert worker.tick() == {}
    assert worker.tick(**{success: 1}) == {}
    for _ in range(MTA_FAILURES - 1):
        assert worker.tick(**{failed: 1}) == {}
    assert "the embedded sink" in worker.tick(**{failed: 1})[Kind.MTA]
    assert Kind.MTA in worker.tick()
    assert worker.tick(**{success: 1, failed: 1}) == {}


def test_resolver() -> None:
    """No answer of any kind for the greet wait; whatever is heard ends it."""
    worker = Worker()
    wait = worker.config.greet.wait
    assert wait > 2
    assert worker.tick(dns_asked=3) == {}
    for _ in range(wait - 1):
        assert worker.tick() == {}
    assert "no resolver answers" in worker.tick()[Kind.RESOLVER]
    assert Kind.RESOLVER in worker.tick(dns_asked=1)
    assert worker.tick(dns_heard=1) == {}
    for _ in range(2 * wait):
        assert worker.tick(dns_asked=1, dns_heard=1) == {}
    worker.config = msgspec.structs.replace(worker.config, greet=msgspec.structs.replace(worker.config.greet, wait=2))
    worker.tick(dns_asked=1)
    worker.tick(dns_asked=1)
    assert Kind.RESOLVER in worker.tick(dns_asked=1)


def test_nothing_is_known_of_resolvers_that_nobody_asks() -> None:
    worker = Worker()
    worker.tick(dns_asked=1)
    for _ in range(worker.config.greet.wait):
        worker.tick()
    for _ in range(int(RESOLVER_UNKNOWN_SECONDS) - worker.config.greet.wait):
        assert Kind.RESOLVER in worker.tick()
    assert worker.tick() == {}


def test_descriptors() -> None:
    """It begins with a shortage, lasts while accepting is paused, and ends after two checks without either."""
    worker = Worker()
    assert Kind.DESCRIPTORS in worker.tick(descriptor_shortages=1)
    assert Kind.DESCRIPTORS in worker.tick()
    assert Kind.DESCRIPTORS in worker.tick(descriptor_shortages=1)
    worker.stats["accepting"] = False
    for _ in range(5):
        assert Kind.DESCRIPTORS in worker.tick()
    worker.stats["accepting"] = True
    assert Kind.DESCRIPTORS in worker.tick()
    assert worker.tick() == {}
    worker.stats["accepting"] = False  # a burst: the MTA has had no time yet
    assert worker.tick() == {}
