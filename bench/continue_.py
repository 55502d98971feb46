"""A new client until an MTA has its mail: in one session (Continue), or in a second one after a 450."""

import contextlib
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import clients, compared, mta
from bench.compared import Result, Sample
from bench.fastscreen import Fastscreen
from bench.postscreen import Postscreen
from bench.programs import BenchError
from bench.rows import COMES_BACK, CONTINUES, POSTSCREEN, Continue
from bench.screener import Screener

_WARM_CLIENTS = 500
_BACK_CONCURRENT = 32
_NEW, _OLD, _CONTINUED = b": PASS NEW [127.", b": PASS OLD [127.", b": CONTINUE from [127."


def run(row: Continue, folder: Path, programs: dict[str, Path], rounds: int) -> Result:
    """Measure the three ways, in turn. A client that comes back is handed off by descriptor, the cheapest way."""
    result = Result(row)
    try:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(mta.running(programs["mta"]))
            goes_on = replace(row.settings, continue_to=port)
            servers: dict[str, Screener] = {
                CONTINUES: Fastscreen(folder / f"{row.name}-continue", goes_on),
                COMES_BACK: Fastscreen(folder / f"{row.name}-fastscreen", row.settings),
                POSTSCREEN: Postscreen(folder / f"{row.name}-postscreen", row.settings),
            }
            for server in servers.values():
                stack.enter_context(compared.ready(server))
                stack.enter_context(clients.receiver(programs["receiver"], server.mta_socket))
                _load(row, server, programs, min(_WARM_CLIENTS, row.clients))
            time.sleep(compared.SETTLE_SECONDS)
            sides = {name: partial(_sample, row, server, programs) for name, server in servers.items()}
            compared.take(result, rounds, sides)
    except BenchError as error:
        result.problem = str(error)
        result.samples.clear()
    return result


def _load(row: Continue, server: Screener, programs: dict[str, Path], count: int) -> float:
    continues = bool(server.settings.continue_to)
    group = clients.new(server, "message" if continues else "deep", count, row.concurrent, row.rate)
    if continues:
        group = replace(group, size=row.size, messages=1)
    outcome = clients.load(group, server, programs["load"])
    clients.check(outcome, server)
    seconds = float(outcome["seconds"])
    if not continues:
        time.sleep(compared.SETTLE_SECONDS)  # passes are in the cache by then
        back = replace(group, kind="pass", concurrent=_BACK_CONCURRENT, rate=0)
        outcome = clients.load(back, server, programs["load"])
        clients.check(outcome, server)
        seconds += float(outcome["seconds"])
    return seconds


def _sample(row: Continue, server: Screener, programs: dict[str, Path]) -> Sample:
    log_size = server.log_size()
    sample = compared.counted(server, lambda: _load(row, server, programs, row.clients), row.clients, row.clients)
    for line in (_NEW, _CONTINUED if server.settings.continue_to else _OLD):
        logged = server.count_in_log(line, log_size)
        if logged != row.clients:
            said = line.decode().strip(": [127.")
            raise BenchError(f"{server.name}: {logged} of {row.clients} clients were logged as {said!r}")
    return sample
