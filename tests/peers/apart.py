"""Ten real minutes of a partition: `PYTHONPATH=tests .venv/bin/python -m peers.apart`. Needs root, for its namespaces.

Three hosts share a server. One of them is cut off for so long, under a steady load at all hosts. Meanwhile clients are
deleted on both sides, and the host that is cut off is restarted. When the network is back, both sides must converge,
which is verified key by key.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from robust.fakemta import GREETING
from robust.harness import COMMAND

from peers.cluster_hosts import (
    Host,
    Load,
    Network,
    RemoteServer,
    Site,
    Visit,
    addresses,
    key_of,
    lacks,
    stamps_of,
    stored,
    until,
    visits,
)

MINUTES = 10.5  # passes wait for ten minutes to be stored: some are dropped, and sent again from the cache's file
RATE = 20.0  # clients per second
KNOWN = 60  # clients that all hosts know
DELETED = 30  # clients that are deleted, on each side
RETURN_SECONDS = 10.0  # a client comes again after this
CONVERGED_SECONDS = 60.0  # in which both sides must converge
CUT, CONNECTED, OTHER = range(3)  # hosts


class Planned(NamedTuple):
    """A client of the load. kind: known, new, or again: after it has passed somewhere."""

    kind: str
    host: int
    at: float  # s, monotonic


class Traffic:
    """Which client goes where, and what came of it."""

    def __init__(self, hosts: list[Host], known: list[str], new: Iterable[str], seed: int) -> None:
        self._hosts = hosts
        self._known = known
        self._new = iter(new)
        self._dice = random.Random(seed)
        self._passed: list[tuple[float, str]] = []
        self.planned: dict[str, list[Planned]] = {}

    def plan(self, number: int) -> tuple[Host, str]:
        now, host = time.monotonic(), self._dice.randrange(len(self._hosts))
        draw = self._dice.random()
        if draw < 0.4:
            return self._take("known", self._dice.choice(self._known), host, now)
        if draw < 0.6 and self._passed and self._passed[0][0] < now - RETURN_SECONDS:
            return self._take("again", self._passed.pop(0)[1], host, now)
        source = next(self._new)
        self._passed.append((now, source))
        return self._take("new", source, host, now)

    def _take(self, kind: str, source: str, host: int, now: float) -> tuple[Host, str]:
        self.planned.setdefault(source, []).append(Planned(kind, host, now))
        return self._hosts[host], source

    def plan_of(self, visit: Visit) -> Planned:
        return min(self.planned[visit.source], key=lambda each: abs(each.at - visit.began))

    def passed(self) -> list[str]:
        """Clients of the load that were unknown."""
        return [source for source, plans in self.planned.items() if plans[0].kind == "new"]

    def passed_twice(self) -> set[str]:
        """Of them, those that may have passed on both sides."""
        return {
            source
            for source, plans in self.planned.items()
            if plans[0].kind == "new" and len({plan.host == CUT for plan in plans}) == 2
        }

    def wrong(self, done: list[Visit], healed: float, converged: float) -> list[Visit]:
        """Visits that did not go as they must."""
        return [each for each in done if not self._is_right(each, healed, converged)]

    def _is_right(self, visit: Visit, healed: float, converged: float) -> bool:
        plan, first = self.plan_of(visit), self.planned[visit.source][0]
        if plan.kind == "known":
            return visit.said == GREETING and visit.is_shared
        if plan.kind == "new":
            return visit.is_tested
        if healed - 5 < visit.began < converged:
            return visit.is_in_time
        is_apart = (plan.host == CUT) != (first.host == CUT) and visit.began < healed
        return visit.is_tested if is_apart else visit.is_shared


class Report:
    """Lines with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)


def run(folder: Path, minutes: float, rate: float, seed: int) -> None:
    """AssertionError: something did not go as it must."""
    say = Report()
    with Site(folder) as site:
        network = site.keep(Network(folder, 3))
        server = site.keep(RemoteServer(folder / "server", network))
        for number, namespace in enumerate(network.hosts):
            site.add(f"mx{number + 1}", {"server": server.url}, workers=1 + number % 2, namespace=namespace)
        site.start()
        for host in site.hosts:
            host.connected()
        say(f"mx1 (1 worker), mx2 (2), mx3 (1), and Redis {server.client.info('server')['redis_version']} are running")
        _run(site.hosts, network, server, minutes, rate, seed, say)


def _run(
    hosts: list[Host], network: Network, server: RemoteServer, minutes: float, rate: float, seed: int, say: Report
) -> None:
    known = addresses(0, KNOWN)
    gone_there, gone_here, again = addresses(1, DELETED), addresses(2, DELETED), addresses(3, DELETED)
    before = [*known, *gone_there, *gone_here, *again]
    for host in hosts:
        done = visits(*((host, each) for each in before))
        assert all(each.is_tested if host is hosts[CUT] else each.is_shared for each in done), done
        host.wait_for_cache(*before)
        until(lambda: len(stored(server)) == len(before), "the first passes")
    say(f"{len(before)} clients passed at mx1, and are known everywhere")
    traffic = Traffic(hosts, known, addresses(10, 50_000), seed)
    with Load(rate, traffic.plan) as load:
        with network.cut(CUT):
            cut = time.monotonic()
            say("mx1 is cut off from the server")
            hosts[CUT].wait_for_condition()
            say(f"mx1: {hosts[CUT].condition()}")
            _sleep(cut + minutes * 30)
            say(_deleted(hosts[CONNECTED], "127.101.0.0/16", "the cluster's server has the deletion"))
            say(_deleted(hosts[CONNECTED], "127.103.0.0/16", "the cluster's server has the deletion"))
            say(_deleted(hosts[CUT], "127.102.0.0/16", "the cluster's server cannot be used now"))
            subprocess.run(
                [str(COMMAND), "restart", "-c", str(hosts[CUT].config)], check=True, stdout=subprocess.DEVNULL
            )
            say("mx1 is restarted")
            _sleep(time.monotonic() + 5)
            done = visits(*((hosts[OTHER], each) for each in again))
            assert all(each.is_tested for each in done), "deleted clients are tested again on the side of the server"
            say(f"{len(again)} of the clients deleted at mx2 passed again at mx3")
            _sleep(cut + minutes * 60)
            queue = hosts[CUT].cluster_status()
            assert not hosts[CONNECTED].condition()
            assert not hosts[OTHER].condition()
        healed = time.monotonic()
        say(
            f"the network is back after {healed - cut:.0f} s; mx1 had {queue['queue']} passes in its queue, the oldest "
            f"for {queue['queue_age']:.0f} s, and had dropped {queue['queue_dropped']}"
        )
        hosts[CUT].wait_for_end()
        say("mx1 is connected again")
        until(lambda: not lacks(server, *hosts), lambda: f"passes: {lacks(server, *hosts)[:9]}", CONVERGED_SECONDS)
        gone = [*gone_there, *gone_here]
        until(lambda: not _known(hosts, gone), lambda: f"deletions: {_known(hosts, gone)}", CONVERGED_SECONDS)
        converged = time.monotonic()
        say(f"both sides have converged, {converged - healed:.1f} s after the network was back")
        _sleep(converged + 20)
    kinds = Counter(
        min(traffic.planned[each.source], key=lambda p: abs(p.at - each.began)).kind for each in load.visits
    )
    say(f"the load is over: {len(load.visits)} connections: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    wrong = traffic.wrong(load.visits, healed, converged)
    assert not wrong, (len(wrong), wrong[:9])
    say("each was served as it must be: known ones at once, new ones after the greet wait, none was rejected or late")
    passed = traffic.passed()
    for host in hosts:  # of the last clients of the load
        host.wait_for_cache(*(each.source for each in load.visits if each.host == host.name))
    until(lambda: not lacks(server, *hosts), lambda: f"passes: {lacks(server, *hosts)[:9]}")
    _verify_keys(hosts, server, [*known, *again, *passed], traffic.passed_twice(), say)
    _verify_visits(hosts, [*known, *again, *passed], gone, say)


def _verify_keys(hosts: list[Host], server: RemoteServer, passed: list[str], both: set[str], say: Report) -> None:
    """Every pass of every host is in the server, and the later one of those made on both sides."""
    values, caches = stored(server), [host.passes() for host in hosts]
    for source in passed:
        key = key_of(source)
        assert key in values, f"{source} is missing from the server"
        found = [cache[key] for cache in caches if key in cache]
        assert found, f"{source} is in no cache"
        assert stamps_of(key, values[key]) == max(found), f"{source}: the server does not have the latest pass"
        assert source in both or len(set(found)) == 1, f"{source} passed more than once"
    extra = {key for cache in caches for key in cache} - {key_of(source) for source in passed}
    assert not extra, f"deleted clients that are in a cache: {extra}"
    say(f"{len(passed)} passes are in the server, key by key as in the caches; {len(both)} were made on both sides")


def _verify_visits(hosts: list[Host], passed: list[str], deleted: list[str], say: Report) -> None:
    """PASS OLD everywhere; deleted clients are tested wherever they come first."""
    new = [host.clients("PASS NEW") for host in hosts]
    for first in range(0, len(passed), 100):
        for host in hosts:
            done = visits(*((host, each) for each in passed[first : first + 100]))
            assert all(each.is_shared for each in done), [each for each in done if not each.is_shared][:9]
    for host, before in zip(hosts, new, strict=True):
        assert host.clients("PASS NEW") == before, "nobody is tested again"
        host.wait_for_lines("PASS OLD", *passed)
    say(f"each of them is PASS OLD at each host ({len(hosts) * len(passed)} connections)")
    pairs = [(hosts[number % len(hosts)], source) for number, source in enumerate(deleted)]
    done = visits(*pairs)
    assert all(each.is_tested for each in done), [each for each in done if not each.is_tested][:9]
    say(f"{len(deleted)} deleted clients, half of them on each side, are tested, a third of them at each host")


def _sleep(until_time: float) -> None:
    time.sleep(max(0.0, until_time - time.monotonic()))


def _deleted(host: Host, network: str, expected: str) -> str:
    command = [str(COMMAND), "cache", "delete", network, "-c", str(host.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert expected in done.stdout, done.stdout
    return f"{host.name}: cache delete {network}: {done.stdout.strip()}"


def _known(hosts: list[Host], sources: list[str]) -> set[str]:
    """Of these clients, those that a host still knows."""
    caches = [host.passes() for host in hosts]
    return {source for source in sources for cache in caches if key_of(source) in cache}


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers.apart", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"without the server (default: {MINUTES:g})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"clients per second (default: {RATE:g})")
    parser.add_argument("--seed", type=int, default=1, help="which client comes when (default: 1)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-apart-"))  # reachable for the hosts' user
    folder.chmod(0o755)
    try:
        run(folder, arguments.minutes, arguments.rate, arguments.seed)
    except (AssertionError, RuntimeError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
