"""fastscreen status: what fastscreen is doing now, and its counters since the start."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Iterator

import msgspec

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.control import client
from fastscreen.control.messages import Cluster, Feedback, Memory, Recorder, Status, StatusRequest
from fastscreen.core import TESTS
from fastscreen.format import moment, plural, red, size, span

EXAMPLES = f"""\
examples:
  fastscreen status
  fastscreen status --watch              refresh every 2 s, with rates; Ctrl-C ends it
  fastscreen status --json | jq .counts.pregreet

The keys of --json are listed in docs/glossary.md.

{control_socket.EXIT_CODES}
"""

WIDTH = 80
_MIN_PAUSE = 0.2  # s
_CLEAR = "\x1b[H\x1b[2J"
_ROWS = (
    ("clients", ("connect", "cached", "allowlisted", "denylisted", "busy", "bypassed")),
    ("tests", (*(test.event for test in TESTS if test.event == test.key), "command_limit")),
    ("results", ("passed", "handed_off", "continued", "handoff_failed", "rejected", "shadow_rejected", "hangup")),
    ("dnsbl", ("rank", "listed", "list_failed")),
)
_RESPONSES = ("score_deferred", "doubtful", "slowed")
_NAMES = {
    "rank": "clients scored",
    "listed": "listings",
    "list_failed": "failed queries",
    "shadow_rejected": "rejected in shadow mode",
    "score_deferred": "deferred once",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "status",
        help=COMMANDS["status"],
        description="Show what a running fastscreen is doing, and its counters since the start.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    control_socket.add_socket(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead (with --watch: one per line)"
    )
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=pause, const=2.0, help="refresh every SECONDS (default: 2)"
    )
    parser.set_defaults(run=run)


def pause(text: str) -> float:
    """The interval of --watch."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _MIN_PAUSE <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, at least {_MIN_PAUSE}")
    return seconds


@control_socket.guarded
def run(arguments: argparse.Namespace) -> int:
    """Ask, show, and return the exit code."""
    path = control_socket.socket_path(arguments)
    before: Status | None = None
    while True:
        answer = client.ask_raw(path, StatusRequest())
        status: Status = client.record(Status, answer)
        if arguments.json:
            print(control_socket.as_json(answer, indent=None if arguments.watch else 2), flush=True)
        else:
            if arguments.watch and sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            print("\n".join(lines(status, before)), flush=True)
        if not arguments.watch:
            return 0
        before = status
        time.sleep(arguments.watch)
        if not arguments.json and not sys.stdout.isatty():
            print()


def lines(status: Status, before: Status | None = None) -> Iterator[str]:
    """The status for people, in 80 columns; with rates since `before`."""
    workers = plural(len(status.workers), "worker")
    head = f"fastscreen {status.version}, process {status.pid}, up {span(status.time - status.started)}, {workers}"
    if len(status.hostname) + 2 + len(head) <= WIDTH:
        yield f"{status.hostname}  {head}"
    else:
        yield status.hostname
        yield head
    yield from (red(line) for line in warnings(status))
    yield ""
    stages: dict[str, int] = {}
    for worker in status.workers:
        for stage, count in worker.stages.items():
            stages[stage] = stages.get(stage, 0) + count
    held = sum(worker.sessions for worker in status.workers)
    now = [plural(held, "session")] + [f"{stage} {count:,}" for stage, count in stages.items() if count]
    if in_tls := sum(worker.tls for worker in status.workers):
        now.append(f"in TLS {in_tls:,}")
    yield from row("now", now)
    if status.limits:
        yield from row("limits", [f"{name} {value:,}" for name, value in status.limits.items()])
    yield from _reload(status)
    for title, kinds in _ROWS:
        yield from row(title, [counted(status, before, kind) for kind in kinds])
    if any(status.counts.get(kind) for kind in _RESPONSES):
        yield from row("score", [counted(status, before, kind) for kind in _RESPONSES])
    queries = sum(worker.dns.queries for worker in status.workers)
    flight = sum(worker.dns.in_flight for worker in status.workers)
    yield from row("", [plural(status.lists, "list"), f"queries {queries:,}", f"in flight {flight:,}"])
    if status.cache is not None and status.cache.path:
        cache = status.cache
        looked = cache.hits + cache.misses
        limit = f" of {size(cache.max_size)}" if cache.max_size else ""
        ratio = [f"hits {100 * cache.hits / looked:.1f} %"] if looked else []
        yield from row("cache", [plural(cache.entries, "entry", "entries"), size(cache.size) + limit, *ratio])
    else:
        yield from row("cache", ["disabled"])
    if status.cluster is not None:
        yield from _cluster(status.cluster, any(one.kind == "cluster" for one in status.conditions))
    if status.history is not None:
        yield from _history(status.history, any(one.kind == "history" for one in status.conditions))
    if status.memory is not None:
        yield from _memory(status.memory, any(one.kind == "offenses" for one in status.conditions))
    if status.feedback is not None:
        yield from _feedback(status.feedback, any(one.kind == "feedback" for one in status.conditions))
    yield ""
    yield "worker      pid sessions    handoffs   accepted  handed off    CPU s   memory"
    for worker in status.workers:
        yield (
            f"{worker.number:>6} {worker.pid:>8} {worker.sessions:>8,} {worker.handoffs:>11,} {worker.accepted:>10,}"
            f" {worker.handed_off:>11,} {worker.cpu:>8.1f} {size(worker.rss):>8}"
        )


def _reload(status: Status) -> Iterator[str]:
    """The last reload, which may have left values that need a restart. One that failed is among the conditions."""
    last = status.reload
    if last is not None and last.ok and last.time is not None:
        yield from _wrapped("reload", f"{moment(last.time)}: {last.text}")


def _cluster(cluster: Cluster, is_condition: bool) -> Iterator[str]:
    """The exchange of passes with other hosts. is_condition: its problem is among the conditions."""
    asked = [
        f"asked {cluster.asked:,}",
        f"found {cluster.found:,}" + (f" ({100 * cluster.found / cluster.asked:.1f} %)" if cluster.asked else ""),
        f"waits ended {cluster.ended:,}",
        f"late {cluster.late + cluster.unanswered:,}",
    ]
    if not cluster.running:
        yield from row("cluster", ["the cluster process is not running"])
        yield from row("", asked)
        return
    if cluster.connected:
        where = f"{cluster.server} ({cluster.role})" if cluster.role else cluster.server
        state = f"connected to {where} since {moment(cluster.since)}, round trip {1000 * cluster.round_trip:.1f} ms"
    else:
        state = f"not connected since {moment(cluster.since)}"
    if cluster.problem and not is_condition:
        state += f": {cluster.problem}"
    yield from _wrapped("cluster", f"{cluster.name}: {state}")
    yield from row("", asked)
    queue = f"queue {cluster.queue:,}"
    if cluster.queue:
        queue += f" ({size(cluster.queue_bytes)}, {span(cluster.queue_age)})"
    stored = [f"stored {cluster.stored:,}", queue, f"dropped {cluster.queue_dropped:,}"]
    if cluster.resync:
        stored.append("storing the cache's passes again")
    if lost := cluster.packets_dropped + cluster.worker_packets_dropped:
        stored.append(f"packets dropped {lost:,}")
    ignored = sum(cluster.ignored.values())
    reasons = ", ".join(f"{name} {count:,}" for name, count in cluster.ignored.items() if count)
    stored.append(f"ignored {ignored:,}")
    yield from row("", stored)
    if reasons:
        yield from _wrapped("", f"records ignored: {reasons}")
    if (offenses := cluster.offenses) is not None and any(msgspec.structs.astuple(offenses)):
        counts = [f"offenses found {offenses.found:,}", f"stored {offenses.stored:,}", f"queue {offenses.queue:,}"]
        yield from row("", [*counts, *([f"dropped {offenses.dropped:,}"] if offenses.dropped else [])])
    peers = [f"{peer.name} (away since {moment(peer.seen)})" if peer.away else peer.name for peer in cluster.peers]
    yield from _wrapped("", f"peers: {', '.join(peers) or 'none seen yet'}")


def _history(history: Recorder, is_condition: bool) -> Iterator[str]:
    """The recording of sessions. is_condition: its problem is among the conditions."""
    if not history.running:
        yield from row("history", ["the recorder is not running"])
        return
    state = f"{'recording' if history.recording else 'suspended'} since {moment(history.since)}"
    if history.problem and not is_condition:
        state += f": {history.problem}"
    yield from _wrapped("history", state)
    sessions = [f"recorded {history.sessions:,}", f"lost {history.lost:,}"]
    if history.waiting:
        sessions.append(f"waiting {history.waiting:,}")
    days = [plural(history.days, "day"), f"{size(history.bytes)} of {size(history.max_size)}"]
    if history.set_aside:
        days.append(f"damaged files {history.set_aside}")
    yield from row("", [*sessions, *days])
    if history.error and history.error != history.problem:
        yield from _wrapped("", f"last error, {moment(history.error_time)}: {history.error}")


def _memory(memory: Memory, is_condition: bool) -> Iterator[str]:
    """The memory of offenses. is_condition: its problem is among the conditions."""
    if not memory.running:
        yield from row("offenses", ["the recorder is not running"])
        return
    entries = f"{plural(memory.entries, 'entry', 'entries')} of {memory.max_entries:,}"
    written = [f"bad {memory.bad:,}", f"good {memory.good:,}"]
    if memory.dropped:
        written.append(f"dropped {memory.dropped:,}")
    if memory.lost:
        written.append(f"lost {memory.lost:,}")
    if memory.merged:
        written.append(f"from other hosts {memory.merged:,}")
    if memory.unshared:
        written.append(f"not shared {memory.unshared:,}")
    if memory.systems:
        written.append(f"AS ranges {memory.systems:,}")
    yield from row("offenses", [entries, size(memory.bytes), *written])
    if memory.problem and not is_condition:
        yield from _wrapped("", memory.problem)


def _feedback(feedback: Feedback, is_condition: bool) -> Iterator[str]:
    """What was learned from the MTA's log. is_condition: its problem is among the conditions."""
    if not feedback.running:
        yield from row("feedback", ["the recorder is not running"])
        return
    outcomes = [f"{name} {getattr(feedback, name):,}" for name in ("accepted", "rejected", "spam", "other", "unknown")]
    yield from row("feedback", [*outcomes, f"waiting {feedback.waiting:,}"])
    log = [f"lines {feedback.lines:,}"]
    rare = {"foreign": feedback.foreign, "ambiguous": feedback.ambiguous, "slow": feedback.slow}
    log += [f"{name} {count:,}" for name, count in rare.items() if count]
    if feedback.behind:
        log.append(f"{size(feedback.behind)} behind")
    if feedback.skipped:
        log.append(f"{size(feedback.skipped)} skipped")
    yield from row("", log)
    if feedback.problem and not is_condition:
        yield from _wrapped("", feedback.problem)


def _wrapped(title: str, text: str) -> Iterator[str]:
    for number, part in enumerate(textwrap.wrap(text, WIDTH - 9, break_on_hyphens=False)):
        yield f"{title if number == 0 else '':<9}{part}"


def warnings(status: Status) -> Iterator[str]:
    """What must not be overlooked."""
    if status.mode == "shadow":
        yield "SHADOW MODE: no client is rejected"
    if status.bypass_until is not None and status.bypass_until > status.time:
        left = span(status.bypass_until - status.time)
        yield f"BYPASS: every client is handed off untested until {moment(status.bypass_until)} ({left} more)"
    if status.lists_unhealthy:
        which = "DNSBL" if len(status.lists_unhealthy) == 1 else "DNSBLS"
        yield f"{which} disabled or suspect: {', '.join(status.lists_unhealthy)}"
    for one in status.conditions:
        text = f"{one.kind.upper()}: {one.text} (since {moment(one.since)})"
        yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        yield from textwrap.wrap(one.remedy, WIDTH, initial_indent="  ", subsequent_indent="  ")
    if stressed := [str(worker.number) for worker in status.workers if worker.stress]:
        yield f"STRESS MODE: {_workers(stressed)}"
    if closed := [str(worker.number) for worker in status.workers if not worker.accepting]:
        yield f"NOT ACCEPTING: {_workers(closed)}"
    if status.missing_workers:
        yield f"NO ANSWER: {_workers(list(map(str, status.missing_workers)))}; these figures are incomplete"
    if lost := sum(worker.log_lines_lost for worker in status.workers):
        yield f"LOG: {plural(lost, 'line')} lost"


def _workers(numbers: list[str]) -> str:
    return f"worker{'s' if len(numbers) != 1 else ''} {', '.join(numbers)}"


def counted(status: Status, before: Status | None, kind: str) -> str:
    """One counter, and its rate."""
    count = status.counts.get(kind, 0)
    text = f"{_NAMES.get(kind, kind)} {count:,}"
    if before is None or status.time <= before.time:
        return text
    rate = max(0, count - before.counts.get(kind, 0)) / (status.time - before.time)
    return f"{text} ({rate:.1f}/s)"


def row(title: str, cells: list[str]) -> list[str]:
    """A title and cells, on as many lines as necessary."""
    # Lines are not broken inside a cell.
    text = "   ".join(cell.replace(" ", "\0") for cell in cells)
    wrapped = textwrap.wrap(text, WIDTH - 9, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{title if first == 0 else '':<9}{part}".replace("\0", " ") for first, part in enumerate(wrapped)]
