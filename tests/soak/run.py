"""A run from start to end, inside of the namespaces."""

from __future__ import annotations

import asyncio
import resource
import signal

from soak import invariants, monitor, report
from soak.bots import Bots
from soak.nemesis import Nemesis
from soak.probes import Probes
from soak.settings import Options
from soak.smtp import now
from soak.traffic import Traffic
from soak.world import World

_SHARES = {"known": 0.5, "new": 0.15, "bots": 0.35}  # of the rate
_DELIVERY_SECONDS = 90.0  # after the last fault
_IDLE_SECONDS = 6.0
_STOP_SECONDS = 60.0


async def run(options: Options) -> int:
    """Exit code: 1 when an invariant did not hold."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    world = World(options)
    world.prepare()
    world.start()
    try:
        if not await world.until_up():
            world.violate("fastscreen does not start")
            return 1
        await _run(world)
    finally:
        world.kill_all()
    return 1 if world.violations else 0


async def _run(world: World) -> None:
    rate = world.options.rate
    traffic = Traffic(world)
    probes = Probes(world, traffic)
    await traffic.make_known()
    await probes.problems()  # their first time: they are known from now on
    if problems := await probes.problems():
        world.violate(f"before the first fault: {problems}")
    background = [
        asyncio.create_task(each)
        for each in (
            monitor.watch(world),
            traffic.known_clients(rate * _SHARES["known"]),
            traffic.new_clients(rate * _SHARES["new"]),
            Bots(world, traffic).come(rate * _SHARES["bots"]),
        )
    ]
    await asyncio.sleep(5)
    first = monitor.sample(world)
    await Nemesis(world, probes).run()
    await asyncio.sleep(3)
    traffic.is_on = False
    end = now() + _DELIVERY_SECONDS
    while traffic.pending and now() < end:
        await asyncio.sleep(0.2)
    if traffic.pending:
        world.violate(
            f"{traffic.pending} messages could not be delivered {_DELIVERY_SECONDS:.0f} s after the last fault"
        )
    for task in [*background, *traffic.tasks]:
        task.cancel()
    await asyncio.sleep(8)  # for the ends of the last connections
    before = monitor.sample(world)
    await asyncio.sleep(_IDLE_SECONDS)
    last = monitor.sample(world)
    invariants.idle(world, before, last, _IDLE_SECONDS)
    status = await world.ask({"do": "status"})
    _judge(world, first, last, status["counts"].get("connect", 0) if status is not None else None)
    await _stop(world)


def _judge(
    world: World, first: dict[int, monitor.Sample], last: dict[int, monitor.Sample], connects: int | None
) -> None:
    journal = invariants.Journal(world)
    facts: dict[str, object] = {"messages": invariants.messages(world, journal)}
    invariants.bots(world, journal)
    invariants.refusals(world)
    facts["known clients under faults of others"] = invariants.latency(world)
    facts["first and last"] = invariants.flat(world, first, last)
    found = invariants.log(world, journal, connects)
    facts["log"] = {"lines": found.lines, "lost": found.lost, "connects": found.connects, "ends": found.ends}
    facts["CONNECT lines and events since the last start"] = [found.since_start, connects]
    report.show(world, facts)


async def _stop(world: World) -> None:
    """SIGTERM ends it, and leaves no process."""
    pids = list(world.all_processes())
    began = now()
    world.kill(world.supervisor, signal.SIGTERM)
    while world.daemon.poll() is None and now() < began + _STOP_SECONDS:
        await asyncio.sleep(0.1)
    if world.daemon.poll() != 0:
        world.violate(f"SIGTERM: exit code {world.daemon.returncode} after {now() - began:.0f} s")
    await asyncio.sleep(0.3)
    left = [pid for pid in pids if pid in world.all_processes() and pid != world.supervisor]
    if left:
        world.violate(f"processes are left: {left}")
