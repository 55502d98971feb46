"""fastscreen cache: what it remembers of clients: look, delete, carry to another host."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

import msgspec

from fastscreen.cli import cache_import, control_socket
from fastscreen.control import client
from fastscreen.control.messages import CacheEntries, CacheEntry, CacheStats, Deleted, Stamp, record
from fastscreen.format import moment, size, span

EXAMPLES = f"""\
examples:
  fastscreen cache get 192.0.2.1
  fastscreen cache list 192.0.2.0/24
  fastscreen cache delete 192.0.2.1            it is tested again when it comes back
  fastscreen cache export > cache.jsonl        and on the new host: fastscreen cache import < cache.jsonl
  fastscreen cache import lmdb:/var/lib/postfix/postscreen_cache        what postscreen knew
  fastscreen cache stats --json | jq .entries

{control_socket.EXIT_CODES}
"""

_PAGE = 1000  # entries asked for at a time


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "cache",
        help="what is remembered of clients",
        description="Look at what fastscreen remembers of clients, delete from it, carry it to another host.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="get|list|delete|export|import|stats", required=True)
    get = ways.add_parser("get", help="one client; exit code 1 when it is not known")
    get.add_argument("address", type=control_socket.address, metavar="IP")
    get.set_defaults(run=run_get)
    listing = ways.add_parser("list", help="the clients of a network, or all")
    listing.add_argument("prefix", type=control_socket.network, nargs="?", metavar="NETWORK")
    listing.set_defaults(run=run_list)
    delete = ways.add_parser("delete", help="forget a client, or all of a network")
    delete.add_argument("prefix", type=control_socket.network, metavar="IP|NETWORK")
    delete.set_defaults(run=run_delete)
    export = ways.add_parser("export", help="write all as JSON lines to standard output")
    export.set_defaults(run=run_export)
    cache_import.add_import(ways)
    stats = ways.add_parser("stats", help="size, hits, what expires when")
    stats.set_defaults(run=run_stats)
    for way in (get, listing, delete, export, stats):
        control_socket.add_socket(way)
    get.add_argument("--json", action="store_true", help="print one JSON object instead")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    stats.add_argument("--json", action="store_true", help="print one JSON object instead")


@control_socket.told
def run_get(arguments: argparse.Namespace) -> int:
    """Print one entry; exit code 1: there is none."""
    answer = client.ask(control_socket.socket_path(arguments), "cache.get", address=arguments.address)
    if answer is None:
        print(f"{arguments.address} is not in the cache", file=sys.stderr)
        return 1
    entry = record(CacheEntry, answer)
    now = time.time()
    print(json.dumps(msgspec.to_builtins(entry)) if arguments.json else "\n".join(shown(entry, now)))
    return 0


@control_socket.told
def run_list(arguments: argparse.Namespace) -> int:
    """Print the entries of a network."""
    now = time.time()
    for entry in entries(control_socket.socket_path(arguments), arguments.prefix or ""):
        print(json.dumps(msgspec.to_builtins(entry)) if arguments.json else summary(entry, now))
    return 0


@control_socket.told
def run_delete(arguments: argparse.Namespace) -> int:
    """Delete, and say how many there were."""
    wanted = {"prefix" if "/" in arguments.prefix else "address": arguments.prefix}
    answer = control_socket.asked(control_socket.socket_path(arguments), "cache.delete", Deleted, **wanted)
    print(f"{answer.deleted:,} deleted")
    return 0


@control_socket.told
def run_export(arguments: argparse.Namespace) -> int:
    """Write every entry as a line."""
    for entry in entries(control_socket.socket_path(arguments), ""):
        print(json.dumps(msgspec.to_builtins(entry)))
    return 0


@control_socket.told
def run_stats(arguments: argparse.Namespace) -> int:
    """Print the figures of the cache."""
    stats = control_socket.asked(control_socket.socket_path(arguments), "cache.stats", CacheStats)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(stats), indent=2))
        return 0
    print(f"file      {stats.path}")
    print(f"entries   {stats.entries:,}")
    limit = f" of at most {size(stats.max_size)}" if stats.max_size else ""  # an older daemon does not say
    print(f"size      {size(stats.size)}{limit}")
    looked = stats.hits + stats.misses
    print(f"look-ups  {looked:,}" + (f", {100 * stats.hits / looked:.1f} % found" if looked else ""))
    for part in stats.expiring:
        print(f"expiring  {part.entries:,} {f'within {span(part.within)}' if part.within else 'already'}")
    return 0


def entries(path: str, prefix: str) -> Iterator[CacheEntry]:
    """All entries of a network, page by page. Raises ControlError."""
    after = ""
    while True:
        page = control_socket.asked(path, "cache.list", CacheEntries, prefix=prefix, after=after, limit=_PAGE)
        yield from page.entries
        if not page.more or not page.entries:
            return
        after = page.entries[-1].address


def shown(entry: CacheEntry, now: float) -> Iterator[str]:
    """One entry, a line for each test."""
    yield entry.address
    for test, stamp in entry.stamps.items():
        yield f"  {test:<17} {expiry(stamp, now)}"


def summary(entry: CacheEntry, now: float) -> str:
    """One entry in a line: how many passes are valid, and which of them ends first."""
    passed = {test: stamp - now for test, stamp in entry.stamps.items() if not isinstance(stamp, str)}
    valid = {test: left for test, left in passed.items() if left >= 0}
    parts = [f"{len(valid)} valid"]
    if valid:
        first = min(valid, key=lambda test: valid[test])
        parts.append(f"the first ({first}) for {span(valid[first])}")
    if len(passed) > len(valid):
        parts.append(f"{len(passed) - len(valid)} expired")
    return f"{entry.address:<15}  {', '.join(parts)}"


def expiry(stamp: Stamp, now: float) -> str:
    """When a pass ends or has ended."""
    if isinstance(stamp, str):
        return "never passed" if stamp == "never" else stamp
    if stamp >= now:
        return f"passed, valid until {moment(stamp)} ({span(stamp - now)} more)"
    return f"expired {moment(stamp)} ({span(now - stamp)} ago)"
