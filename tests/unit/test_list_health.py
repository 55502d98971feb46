"""The state of lists: the shared table, what one probe finds, and what follows from several."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from robust.fakedns import FakeDns, listed, looked_up
from robust.harness import TIMEOUT

from fastscreen.config import Config, load
from fastscreen.core import Lists
from fastscreen.dns.dnsbl_names import question
from fastscreen.dns.health import state
from fastscreen.dns.health.monitor import AT_ONCE, EARLY, NONE_HAS_ENTRIES, Monitor
from fastscreen.dns.health.probe import Finding, Outcome, Prober, Reply, probe
from fastscreen.dns.health.runner import HealthRunner
from fastscreen.dns.health.state import HealthTable, State, Why
from fastscreen.dns.resolver import Nameserver

ABSENT, SILENT, FAILED = Reply(Outcome.ABSENT), Reply(Outcome.SILENT), Reply(Outcome.FAILED)


def answered(*addresses: str) -> Reply:
    return Reply(Outcome.ANSWERED, addresses)


# ---- the table


def make(*domains: str, clock: Callable[[], float] = time.monotonic) -> HealthTable:
    made = HealthTable(memoryview(bytearray(state.SIZE)), clock)
    made.claim(domains)
    return made


def test_places_stay_and_are_found_by_others() -> None:
    ours = make("a.test", "b.test", clock=lambda: 100.9)
    ours.set("b.test", State.OUT, Why.SILENT)
    theirs = HealthTable(ours.memory)
    assert theirs.get("b.test") == state.Health(State.OUT, Why.SILENT, 100)
    assert theirs.get("a.test") == state.Health()
    places = theirs.slots(["a.test", "b.test", "c.test"])
    assert set(places) == {"a.test", "b.test"}
    theirs.claim(["c.test", "b.test"])
    assert theirs.slots(["a.test", "b.test"]) == places
    assert ours.get("b.test").state is State.OUT


def test_places_of_lists_that_are_gone_are_taken() -> None:
    made = make(*(f"{number}.test" for number in range(state.SLOTS)))
    made.set("7.test", State.OUT)
    others = [f"{number}.other" for number in range(state.SLOTS - 1)]
    made.claim(others, in_use=["7.test"])
    assert made.get("7.test").state is State.OUT
    assert len(made.slots(others)) == state.SLOTS - 1
    assert not made.slots(["8.test"])
    assert made.get("8.test") == state.Health()
    made.set("0.other", State.OUT)
    assert made.get("0.other").state is State.OUT
    assert HealthTable(made.memory).get("0.other").state is State.OUT


def test_a_place_is_found_at_once() -> None:
    """It is asked for each second and list, in the loop that screens: looking through all places is for new lists."""

    class Counting(HealthTable):
        looked = 0

        def _key_at(self, at: int) -> int:
            self.looked += 1
            return super()._key_at(at)

    made = Counting(memoryview(bytearray(state.SIZE)))
    domains = [f"{number}.test" for number in range(256)]
    made.claim(domains)
    made.slots(domains)
    made.looked = 0
    for domain in domains:
        made.get(domain)
    assert made.looked == len(domains)


def test_without_a_place_a_list_counts() -> None:
    made = make()
    made.set("a.test", State.OUT)
    made.note_test_entry("a.test")
    assert made.get("a.test") == state.Health()


def test_when_answers_count_again() -> None:
    """Those from before a list was put back do not; those from before a suspicion that was wrong do."""
    now = [50.0]
    made = make("a.test", clock=lambda: now[0])
    made.set("a.test", State.SUSPECT)
    made.set("a.test", State.WELL)
    assert made.get("a.test").since == 0
    made.set("a.test", State.OUT, Why.EMPTY)
    now[0] = 70.5
    made.set("a.test", State.WELL)
    assert made.get("a.test").since == 71


def test_the_core_takes_only_places_in_the_memory() -> None:
    memory = memoryview(bytearray(state.SIZE))
    Lists([("a.test", None, 1)], {}, memory, {"a.test": state.SIZE - 32})
    for place in (state.SIZE - 8, state.SIZE, 4):
        with pytest.raises(ValueError, match="no place"):
            Lists([("a.test", None, 1)], {}, memory, {"a.test": place})


# ---- one probe


@pytest.mark.parametrize(
    ("listed", "unlisted", "unlisted6", "why", "detail"),
    [
        (answered("127.0.0.2"), ABSENT, ABSENT, Why.NOTHING, "lists 127.0.0.2 and not 127.0.0.1"),
        (answered("127.0.0.2"), answered("127.0.0.2"), ABSENT, Why.LISTS_ALL, "127.0.0.1 is listed as 127.0.0.2"),
        (answered("127.0.0.2"), ABSENT, answered("127.0.0.4"), Why.LISTS_ALL, "::ffff:7f00:1 is listed as 127.0.0.4"),
        (answered("127.255.255.254"), answered("127.255.255.254"), ABSENT, Why.REFUSES, "127.255.255.254"),
        (answered("127.0.0.2"), answered("127.255.255.252"), ABSENT, Why.REFUSES, "127.255.255.252 for 127.0.0.1"),
        (answered("192.0.2.80"), answered("192.0.2.80"), answered("192.0.2.80"), Why.PARKED, "192.0.2.80"),
        (SILENT, SILENT, SILENT, Why.SILENT, ""),
        (answered("127.0.0.2"), SILENT, SILENT, Why.SILENT, ""),
        (FAILED, FAILED, FAILED, Why.FAILS, ""),
        (ABSENT, ABSENT, ABSENT, Why.EMPTY, ""),
        (answered("127.0.0.2"), ABSENT, SILENT, Why.NOTHING, ""),
    ],
)
def test_probe(listed: Reply, unlisted: Reply, unlisted6: Reply, why: Why, detail: str) -> None:
    replies = {
        question("127.0.0.2", "bl.test"): listed,
        question("127.0.0.1", "bl.test"): unlisted,
        question("::ffff:7f00:2", "bl.test"): ABSENT,
        question("::ffff:7f00:1", "bl.test"): unlisted6,
    }

    async def ask(name: str) -> Reply:
        return replies.pop(name, unlisted)

    found = asyncio.run(probe("bl.test", ask))
    assert found.why is why
    assert detail in found.detail
    assert found.tested == (why is Why.NOTHING)
    assert not replies


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (SILENT, Why.SILENT),
        (FAILED, Why.FAILS),
        (answered("127.255.255.255"), Why.REFUSES),
        (answered("192.0.2.80"), Why.PARKED),
        (answered("127.0.0.2"), Why.NOTHING),
        (ABSENT, Why.NOTHING),
    ],
)
def test_what_a_resolver_kept_is_not_what_the_list_says(said: Reply, why: Why) -> None:
    """The resolver has cached old test entries, so the probe also queries a name that cannot be cached."""
    kept = {question(client, "bl.test"): ABSENT for client in ("127.0.0.1", "::ffff:7f00:2", "::ffff:7f00:1")}
    kept[question("127.0.0.2", "bl.test")] = answered("127.0.0.2")
    new: list[str] = []

    async def ask(name: str) -> Reply:
        if name not in kept:
            new.append(name)
        return kept.get(name, said)

    assert [asyncio.run(probe("bl.test", ask)).why for _ in range(3)] == [why] * 3
    assert all(name.endswith(".127.bl.test") for name in new)
    assert len(new) == 3
    assert len(set(new)) > 1


def test_a_list_of_ipv6_addresses_alone() -> None:
    """Its test entry is the other one; without that it is empty."""
    replies = {question("::ffff:7f00:2", "bl.test"): answered("127.0.0.2")}

    async def ask(name: str) -> Reply:
        return replies.get(name, ABSENT)

    assert asyncio.run(probe("bl.test", ask)) == Finding(
        tested=True, detail="lists ::ffff:7f00:2 and not ::ffff:7f00:1"
    )
    replies.clear()
    assert asyncio.run(probe("bl.test", ask)).why is Why.EMPTY


@pytest.mark.parametrize(("delay", "seconds", "outcome"), [(1.3, 10.0, Outcome.ANSWERED), (3.0, 1.0, Outcome.SILENT)])
def test_a_slow_list_is_not_silent(delay: float, seconds: float, outcome: Outcome) -> None:
    """When others answer at once, either."""
    dns = FakeDns({"quick.test": listed("127.0.0.2"), "slow.test": looked_up(listed("127.0.0.2"), delay)})

    async def ask() -> Reply:
        host, _, port = dns.endpoint.rpartition(":")
        prober = Prober([Nameserver(host, int(port))], seconds)
        try:
            for number in range(5):
                assert (await prober.ask(f"{number}.0.0.127.quick.test")).outcome is Outcome.ANSWERED
            return await prober.ask("2.0.0.127.slow.test")
        finally:
            await prober.close()

    try:
        assert asyncio.run(ask()).outcome is outcome
    finally:
        dns.close()


def test_over_quota_at_dnswl() -> None:
    async def ask(name: str) -> Reply:
        return answered("127.0.0.255")

    assert asyncio.run(probe("list.dnswl.org", ask)).why is Why.REFUSES
    assert asyncio.run(probe("other.test", ask)).why is Why.LISTS_ALL


def test_the_names_of_rfc_5782() -> None:
    assert question("127.0.0.2", "bl.test") == "2.0.0.127.bl.test"
    assert question("::FFFF:7F00:1", "bl.test") == "1.0.0.0.0.0.f.7.f.f.f.f." + "0." * 20 + "bl.test"


# ---- several


class MonitorUnderTest:
    """A monitor of lists with simulated probe results and a simulated clock."""

    def __init__(self, *domains: str, interval: float = 300.0, chance: Callable[[], float] = lambda: 0.5) -> None:
        self.now = 1000.0
        self.found: dict[str, Finding | Exception] = {domain: Finding(tested=True) for domain in domains}
        self.table = make(*domains, clock=lambda: self.now)
        self.probed: list[tuple[float, str]] = []
        self.warnings: list[str] = []
        self.infos: list[str] = []
        self.watch = Monitor(
            self.table, self._probe, lambda domain: f"<{domain}>", self.warnings.append, self.infos.append, interval,
            lambda: self.now, chance,
        )  # fmt: skip
        self.watch.use(domains)

    async def _probe(self, domain: str) -> Finding:
        self.probed.append((self.now, domain))
        found = self.found[domain]
        if isinstance(found, Exception):
            raise found
        return found

    def passes(self, seconds: float) -> None:
        """Let time pass in steps of one second."""
        asyncio.run(self._pass(seconds))

    async def _pass(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await self.watch.turn()
            self.now += 1

    def states(self) -> list[State]:
        return [self.table.get(domain).state for domain in self.found]


def test_well_lists_are_probed_by_the_clock() -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(900)
    assert [when for when, domain in monitor.probed if domain == "a.test"] == [1000, 1285, 1570, 1855]
    assert not monitor.warnings
    assert not monitor.infos


@pytest.mark.parametrize("why", [Why.LISTS_ALL, Why.REFUSES, Why.PARKED])
def test_one_proof_is_enough(why: Why) -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.found["a.test"] = Finding(why, detail="so and so")
    monitor.passes(300)
    assert monitor.states() == [State.OUT, State.WELL]
    (line,) = monitor.warnings
    assert line == f"list <a.test> {why.text} (so and so): it is disabled until a probe succeeds"
    monitor.passes(3000)
    assert len(monitor.warnings) == 1  # it stays disabled, and this is not logged again


@pytest.mark.parametrize("why", [Why.SILENT, Why.FAILS, Why.EMPTY])
def test_silence_takes_two(why: Why) -> None:
    """Still within two intervals."""
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.found["a.test"] = Finding(why)
    monitor.passes(285)
    assert monitor.states() == [State.WELL, State.WELL]
    monitor.passes(40)
    assert monitor.states() == [State.OUT, State.WELL]
    assert len(monitor.warnings) == 1


def test_one_lost_probe_is_nothing() -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.found["a.test"] = Finding(Why.SILENT)
    monitor.passes(280)
    monitor.found["a.test"] = Finding(tested=True)
    monitor.passes(600)
    assert not monitor.warnings


def test_it_comes_back_when_it_was_well_twice() -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.found["a.test"] = Finding(Why.LISTS_ALL)
    monitor.passes(1)
    monitor.found["a.test"] = Finding(tested=True)
    monitor.passes(290)
    assert monitor.states()[0] is State.OUT
    monitor.passes(40)
    assert monitor.states()[0] is State.WELL
    assert monitor.warnings[1:] == ["list <a.test> is healthy again: it is enabled"]


def test_when_no_list_answers_it_is_not_the_lists() -> None:
    monitor = MonitorUnderTest("a.test", "b.test", "c.test")
    monitor.passes(10)
    for domain in monitor.found:
        monitor.found[domain] = Finding(Why.SILENT)
    monitor.passes(900)
    assert monitor.states() == [State.WELL] * 3
    assert monitor.warnings == ["no DNS list answers: the resolver does not work, or this host is offline"]
    monitor.found["a.test"] = Finding(tested=True)
    monitor.passes(900)
    assert monitor.states() == [State.WELL, State.OUT, State.OUT]
    assert "DNS lists answer again" in monitor.infos


@pytest.mark.parametrize("why", [Why.SILENT, Why.FAILS])
def test_nor_when_they_are_probed_at_other_times(why: Why) -> None:
    """After hours each has its own: the one whose turn comes first is judged by what the others say then."""
    monitor = MonitorUnderTest(*(f"{number}.test" for number in range(6)), chance=random.Random(3).random)
    monitor.passes(4 * 3600)
    times = {when for when, _ in monitor.probed[-6:]}
    assert max(times) - min(times) > 60
    monitor.found |= dict.fromkeys(monitor.found, Finding(why))
    monitor.passes(400)
    assert monitor.states() == [State.WELL] * 6
    assert monitor.warnings == ["no DNS list answers: the resolver does not work, or this host is offline"]
    monitor.probed.clear()
    monitor.passes(1500)
    assert len(monitor.probed) <= 6 * 6, "they are not all asked again for each"
    monitor.found |= dict.fromkeys(monitor.found, Finding(tested=True))
    monitor.found["3.test"] = Finding(why)
    monitor.passes(400)
    assert monitor.states() == [State.WELL] * 3 + [State.OUT] + [State.WELL] * 2


def test_no_answer_to_the_first_probes_is_told_early() -> None:
    """Before they time out, and only once: the same problem is not logged again at the time-out."""
    now = 0.0
    lines: list[str] = []

    async def watched() -> None:
        nonlocal now
        found = asyncio.get_running_loop().create_future()

        async def look(domain: str) -> Finding:
            result: Finding = await asyncio.shield(found)
            return result

        watch = Monitor(make("a.test", "b.test"), look, str, lines.append, lines.append, 300, lambda: now)
        watch.use(["a.test", "b.test"])
        turns = []
        for now in (0.0, EARLY - 1, EARLY, EARLY + 1):
            turns.append(asyncio.create_task(watch.turn()))
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(lines) == (now >= EARLY)
        found.set_result(Finding(Why.SILENT))
        await asyncio.gather(*turns)
        for _ in range(3):
            now += 300
            await watch.turn()
        assert len(lines) == 1
        found = asyncio.get_running_loop().create_future()
        found.set_result(Finding(tested=True))
        now += 300
        await watch.turn()

    asyncio.run(asyncio.wait_for(watched(), TIMEOUT))
    assert lines[0].startswith("no DNS list has answered its first probe for 5 s: the resolver does not work, or ")
    assert lines[1:] == ["DNS lists answer again"]


def test_many_at_once_are_told_once_each() -> None:
    """No list is used any more: one line per list, however long."""
    monitor = MonitorUnderTest(*(f"{number}.test" for number in range(8)))
    monitor.passes(10)
    monitor.found |= dict.fromkeys(monitor.found, Finding(Why.REFUSES))
    monitor.passes(4 * 3600)
    assert monitor.states() == [State.OUT] * 8
    assert len(monitor.warnings) == 8


def test_a_probe_that_breaks_ends_nothing() -> None:
    """For example without free descriptors. It is logged once, and a suspect list is probed later."""
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.table.set("a.test", State.SUSPECT)
    monitor.found |= dict.fromkeys(monitor.found, OSError("Too many open files"))
    monitor.passes(600)
    assert monitor.states() == [State.SUSPECT, State.WELL]
    assert monitor.warnings == ["list <a.test> cannot be probed: OSError: Too many open files"]
    monitor.found |= dict.fromkeys(monitor.found, Finding(tested=True))
    monitor.passes(30)
    assert monitor.states() == [State.WELL] * 2


def test_a_slow_probe_keeps_no_suspicion_waiting() -> None:
    """Nor does it begin twice."""
    table_ = make("slow.test", "b.test")
    now = 0.0
    found = Finding(tested=True)
    lines: list[str] = []
    probed: list[str] = []

    async def look(domain: str) -> Finding:
        probed.append(domain)
        if domain == "slow.test":
            await asyncio.Event().wait()
        return found

    async def watched() -> None:
        nonlocal found, now
        watch = Monitor(table_, look, str, lines.append, lines.append, 300, lambda: now)
        watch.use(["slow.test", "b.test"])
        first = asyncio.create_task(watch.turn())
        await asyncio.sleep(0)
        table_.set("b.test", State.SUSPECT)
        async with asyncio.timeout(TIMEOUT):
            while table_.get("b.test").state is State.SUSPECT:  # by the first turn, which is not over
                await asyncio.sleep(0)
        for step in (AT_ONCE, 300):
            now += step
            table_.set("b.test", State.SUSPECT)
            await watch.turn()
            assert table_.get("b.test").state is State.WELL
        found = Finding(Why.LISTS_ALL)
        now += 300
        await watch.turn()
        first.cancel()

    asyncio.run(asyncio.wait_for(watched(), TIMEOUT))
    assert table_.get("b.test").state is State.OUT
    assert probed.count("slow.test") == 1


def test_a_list_that_waits_to_be_judged_is_not_asked_again() -> None:
    """One slow probe delays two lists, and the second one had already missed a probe."""
    domains = ("first.test", "second.test", "slow.test")
    table_ = make(*domains)
    now = 0.0
    dead: set[str] = set()
    asked: Counter[str] = Counter()
    lines: list[str] = []

    async def watched() -> None:
        nonlocal now
        slow = asyncio.Event()

        async def look(domain: str) -> Finding:
            if domain in dead:
                asked[domain] += 1
                return Finding(Why.FAILS)
            if dead and domain == "slow.test":
                await slow.wait()
            return Finding(tested=True)

        watch = Monitor(table_, look, str, lines.append, lines.append, 2, lambda: now, lambda: 1.0)
        watch.use(domains)
        await watch.turn()
        turns: list[asyncio.Task[None]] = []
        for step, domain in enumerate(["first.test", "", "second.test", "", ""]):
            now = 2.0 + step / 2
            dead.update({domain} - {""})
            turns.append(asyncio.create_task(watch.turn()))
            for _ in range(20):
                await asyncio.sleep(0)
        assert not lines
        slow.set()
        await asyncio.gather(*turns)

    asyncio.run(asyncio.wait_for(watched(), TIMEOUT))
    assert [table_.get(domain).state for domain in domains] == [State.OUT, State.OUT, State.WELL]
    assert asked == {"first.test": 2, "second.test": 2}


def test_a_single_silent_list_is_out() -> None:
    monitor = MonitorUnderTest("a.test")
    monitor.found["a.test"] = Finding(Why.SILENT)
    monitor.passes(60)
    assert monitor.states() == [State.OUT]


def test_a_list_without_test_entries_counts() -> None:
    """The operator's own list; if it listed every address, this would still be noticed."""
    monitor = MonitorUnderTest("a.test")
    monitor.found["a.test"] = Finding(Why.EMPTY)
    monitor.passes(2000)
    assert monitor.states() == [State.WELL]
    assert len(monitor.infos) == 1
    assert not monitor.warnings
    monitor.found["a.test"] = Finding(Why.LISTS_ALL)
    monitor.passes(300)
    assert monitor.states() == [State.OUT]


def test_when_no_list_has_test_entries_it_is_the_resolver() -> None:
    """It is logged once, and again after it was different in between."""
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.found = dict.fromkeys(monitor.found, Finding(Why.EMPTY))
    monitor.passes(2000)
    assert monitor.warnings == [NONE_HAS_ENTRIES]
    assert monitor.states() == [State.WELL, State.WELL]
    monitor.found["a.test"] = Finding(tested=True)
    monitor.passes(400)
    assert monitor.warnings == [NONE_HAS_ENTRIES]


@pytest.mark.parametrize("after", [1, 10])
def test_a_suspicion_is_looked_into_at_once(after: int) -> None:
    """Also when the list has just been probed."""
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(after)
    monitor.table.set("a.test", State.SUSPECT)
    monitor.passes(1)
    assert monitor.states() == [State.WELL, State.WELL]
    assert monitor.infos == ["list <a.test> has passed its probe: it is enabled again"]
    assert monitor.probed[-1] == (1000 + after, "a.test")


@pytest.mark.parametrize(("found", "state"), [(Why.LISTS_ALL, State.OUT), (Why.SILENT, State.SUSPECT)])
def test_a_suspicion_that_is_right(found: Why, state: State) -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.table.set("a.test", State.SUSPECT)
    monitor.found["a.test"] = Finding(found)
    monitor.passes(1)
    assert monitor.states() == [state, State.WELL]
    monitor.passes(AT_ONCE)
    assert monitor.states() == [State.OUT, State.WELL]


def test_lists_that_change() -> None:
    monitor = MonitorUnderTest("a.test", "b.test")
    monitor.passes(10)
    monitor.watch.use(["b.test"])
    monitor.passes(600)
    assert [domain for when, domain in monitor.probed if when > 1000] == ["b.test"] * 2


def test_a_reload_that_matters_to_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other resolvers all are probed at once; without lists, none is any more."""
    probed: list[str] = []

    async def look(domain: str, _: object) -> Finding:
        probed.append(domain)
        return Finding(tested=True)

    monkeypatch.setattr("fastscreen.dns.health.runner.probe", look)
    monkeypatch.setattr("fastscreen.dns.health.monitor.TICK", 0.001)

    def settings(resolver: str, *sites: str) -> Config:
        text = f'hostname = "mx.test"\n[dnsbl]\nresolvers = ["{resolver}"]\nsites = {list(sites)!r}\n'
        (tmp_path / "c.toml").write_text(text)
        return load(tmp_path / "c.toml")

    async def until(number: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(probed) < number:
                await asyncio.sleep(0.001)

    async def reloaded() -> None:
        caretaker = HealthRunner(make("a.test", "b.test"), print, print)
        caretaker.configure(settings("127.0.0.1", "a.test"), {})
        await until(1)
        caretaker.configure(settings("127.0.0.1", "a.test", "b.test"), {})
        await until(2)
        caretaker.configure(settings("127.0.0.2", "a.test", "b.test"), {})
        await until(4)
        caretaker.configure(settings("127.0.0.3"), {})
        await asyncio.sleep(0.05)
        caretaker.stop()

    asyncio.run(reloaded())
    assert sorted(probed) == ["a.test", "a.test", "b.test", "b.test"]
