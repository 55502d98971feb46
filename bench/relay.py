"""Known clients relayed to an MTA, compared with HAProxy: CPU per connection, or per MB of messages."""

import contextlib
import time
from functools import partial
from pathlib import Path

from bench import clients, compared, mta
from bench.clients import ClientGroup
from bench.compared import Result, Sample
from bench.fastscreen import Fastscreen
from bench.haproxy import Haproxy
from bench.programs import BenchError
from bench.rows import FASTSCREEN, HAPROXY, HAPROXY_SPLICE, Relay
from bench.screener import Settings
from bench.server import Server

_KNOWN = b": PASS OLD [127.1."
_WARM_CLIENTS = 500


def run(row: Relay, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure one row: fastscreen, HAProxy as installed, HAProxy with splice, in turn, all with the same MTA."""
    result = Result(row)
    try:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(mta.running(programs["mta"]))
            settings = Settings(greet_wait=1, relay_to=port)
            ours = Fastscreen(folder / f"{row.name}-fastscreen", settings)
            servers: dict[str, Server] = {
                FASTSCREEN: ours,
                HAPROXY: Haproxy(folder / f"{row.name}-haproxy", port, splice=False),
                HAPROXY_SPLICE: Haproxy(folder / f"{row.name}-splice", port, splice=True),
            }
            for server in servers.values():
                stack.enter_context(compared.ready(server))
            first = ClientGroup("quit", row.sources, row.sources, sources=row.sources)
            clients.check(clients.load(first, ours, programs["load"]), ours)
            for server in servers.values():
                _load(row, server, programs, min(_WARM_CLIENTS, row.clients))
            time.sleep(compared.SETTLE_SECONDS)
            sides = {name: partial(_sample, row, server, programs) for name, server in servers.items()}
            compared.take(result, rounds, sides)
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def _load(row: Relay, server: Server, programs: dict[str, Path], count: int) -> float:
    group = ClientGroup(row.kind, count, row.concurrent, sources=row.sources, size=row.size, messages=row.messages)
    outcome = clients.load(group, server, programs["load"])
    clients.check(outcome, server)
    return float(outcome["seconds"])


def _sample(row: Relay, server: Server, programs: dict[str, Path]) -> Sample:
    log_size = server.log_size() if isinstance(server, Fastscreen) else 0
    units = row.clients * row.messages * row.size / 1e6 if row.size else row.clients
    sample = compared.counted(server, lambda: _load(row, server, programs, row.clients), row.clients, units)
    if isinstance(server, Fastscreen):
        logged = server.count_in_log(_KNOWN, log_size)
        if logged != row.clients:
            raise BenchError(f"{server.name}: {logged} of {row.clients} clients were logged as PASS OLD")
    return sample
