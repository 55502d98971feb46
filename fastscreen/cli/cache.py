"""fastscreen cache: show, delete, export and import cached test results."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

import msgspec

from fastscreen.cli import COMMANDS, cache_export, cache_import, control_socket
from fastscreen.control import client
from fastscreen.control.messages import (
    MAX_PAGE,
    CacheDeleteRequest,
    CacheEntry,
    CacheGetRequest,
    CacheListRequest,
    CacheStatsRequest,
)
from fastscreen.format import expiry, plural, size, span

EXAMPLES = f"""\
examples:
  fastscreen cache get 192.0.2.1
  fastscreen cache list 192.0.2.0/24
  fastscreen cache delete 192.0.2.1            it is tested again at its next connection
  fastscreen cache export > cache.jsonl        then, on the new host: fastscreen cache import < cache.jsonl
  fastscreen cache import lmdb:/var/lib/postfix/postscreen_cache        postscreen's cache
  fastscreen cache export --format postmap > passes                     for postscreen's cache
  fastscreen cache stats --json | jq .entries

{control_socket.EXIT_CODES}
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "cache",
        help=COMMANDS["cache"],
        description="Show, delete, export and import the cached test results of clients.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="get|list|delete|export|import|stats", required=True)
    get = ways.add_parser("get", help="show one client; exit code 1 when it is not in the cache")
    get.add_argument("address", type=control_socket.address, metavar="IP")
    get.set_defaults(run=run_get)
    listing = ways.add_parser("list", help="show the clients of a network, or all")
    listing.add_argument("prefix", type=control_socket.network, nargs="?", metavar="NETWORK")
    listing.set_defaults(run=run_list)
    delete = ways.add_parser("delete", help="delete a client, or all clients of a network")
    delete.add_argument("prefix", type=control_socket.network, metavar="IP|NETWORK")
    delete.set_defaults(run=run_delete)
    cache_export.add_export(ways, run_export)
    cache_import.add_import(ways)
    stats = ways.add_parser("stats", help="show size, hits, and what expires when")
    stats.set_defaults(run=run_stats)
    for way in (get, listing, delete, stats):
        control_socket.add_socket(way)
    get.add_argument("--json", action="store_true", help="print one JSON object instead")
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")
    stats.add_argument("--json", action="store_true", help="print one JSON object instead")


@control_socket.guarded
def run_get(arguments: argparse.Namespace) -> int:
    """Print one entry; exit code 1 when it is missing."""
    entry = client.ask(control_socket.socket_path(arguments), CacheGetRequest(arguments.address))
    if entry is None:
        print(f"{arguments.address} is not in the cache", file=sys.stderr)
        return 1
    now = time.time()
    print(json.dumps(msgspec.to_builtins(entry)) if arguments.json else "\n".join(shown(entry, now)))
    return 0


@control_socket.guarded
def run_list(arguments: argparse.Namespace) -> int:
    """Print the entries of a network."""
    now = time.time()
    for entry in entries(control_socket.socket_path(arguments), arguments.prefix or ""):
        print(json.dumps(msgspec.to_builtins(entry)) if arguments.json else summary(entry, now))
    return 0


@control_socket.guarded
def run_delete(arguments: argparse.Namespace) -> int:
    """Delete, and print how many there were."""
    prefix = arguments.prefix
    wanted = CacheDeleteRequest(prefix=prefix) if "/" in prefix else CacheDeleteRequest(address=prefix)
    answer = client.ask(control_socket.socket_path(arguments), wanted)
    more = "; time ran out, run it again for the rest" if answer.more else ""
    cluster = control_socket.elsewhere(answer)
    print(f"{plural(answer.deleted, 'entry', 'entries')} deleted{cluster}{more}")
    return 0


@control_socket.guarded
def run_export(arguments: argparse.Namespace) -> int:
    """Write every entry as a line."""
    cache_export.write(entries(control_socket.socket_path(arguments), ""), arguments.format)
    return 0


@control_socket.guarded
def run_stats(arguments: argparse.Namespace) -> int:
    """Print the figures of the cache."""
    stats = client.ask(control_socket.socket_path(arguments), CacheStatsRequest())
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(stats), indent=2))
        return 0
    print(f"file      {stats.path}")
    print(f"entries   {stats.entries:,}")
    limit = f" of at most {size(stats.max_size)}" if stats.max_size else ""  # another version may omit it
    print(f"size      {size(stats.size)}{limit}")
    looked = stats.hits + stats.misses
    print(f"lookups   {looked:,}" + (f", {100 * stats.hits / looked:.1f} % found" if looked else ""))
    for part in stats.expiring:
        when = f"expire within {span(part.within)}" if part.within else "have expired"
        print(f"expiry    {part.entries:,} {when}")
    return 0


def entries(path: str, prefix: str) -> Iterator[CacheEntry]:
    """All entries of a network, page by page. Raises ControlError."""
    after = ""
    while True:
        page = client.ask(path, CacheListRequest(prefix, after, MAX_PAGE))
        yield from page.entries
        if not page.more or not page.entries:
            return
        after = page.entries[-1].address


def shown(entry: CacheEntry, now: float) -> Iterator[str]:
    """One entry, a line for each test."""
    yield entry.address
    for test, stamp in entry.passed_until.items():
        yield f"  {test:<17} {expiry(stamp, now)}"


def summary(entry: CacheEntry, now: float) -> str:
    """One entry in a line: the number of valid passes, and which expires first."""
    passed = {test: stamp - now for test, stamp in entry.passed_until.items() if not isinstance(stamp, str)}
    valid = {test: left for test, left in passed.items() if left >= 0}
    parts = [plural(len(valid), "valid pass", "valid passes")]
    if valid:
        first = min(valid, key=lambda test: valid[test])
        parts.append(f"{first} expires first, in {span(valid[first])}")
    if len(passed) > len(valid):
        parts.append(f"{len(passed) - len(valid)} expired")
    return f"{entry.address:<15}  {', '.join(parts)}"
