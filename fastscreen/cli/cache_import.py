"""fastscreen cache import: entries that fastscreen exported, or postscreen's own cache."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastscreen import config
from fastscreen.cache import merge
from fastscreen.cli import control_socket
from fastscreen.config import Config
from fastscreen.control.messages import CacheEntry, Stored
from fastscreen.escaping import printable
from fastscreen.postfix import cache_dump
from fastscreen.process.privileges import PrivilegeError, become, give_folder, user_of

EXAMPLES = f"""\
examples:
  fastscreen cache import < cache.jsonl                                       what fastscreen cache export wrote
  fastscreen cache import lmdb:/var/lib/postfix/postscreen_cache              postscreen's cache
  fastscreen cache import --dry-run btree:/var/lib/postfix/postscreen_cache   how much that would be
  ssh old postmap -s btree:/var/lib/postfix/postscreen_cache | fastscreen cache import

JSON lines go to the running fastscreen. What postscreen knew goes into the file itself, whether fastscreen runs or
not: name its configuration with -c, and be root or the user that screens. The later stamp of each test stays.

{control_socket.EXIT_CODES}
"""

_BATCH = 200  # entries sent at a time: a frame to fastscreen has at most 64 KiB


def add_import(ways: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import` to the ways of `fastscreen cache`."""
    parser = ways.add_parser(
        "import",
        help="entries that export wrote, or postscreen's cache",
        description="Read JSON lines, as export writes them, or KEY VALUE lines, as postmap -s does, from stdin; "
        "or postscreen's cache itself.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", nargs="?", metavar="TYPE:PATH", help="postscreen's cache, as postscreen_cache_map has it"
    )
    parser.add_argument("--dry-run", action="store_true", help="read and count, store nothing")
    control_socket.add_socket(parser)
    parser.set_defaults(run=run_import)


@control_socket.told
def run_import(arguments: argparse.Namespace) -> int:
    """What it is shows in its first line."""
    if arguments.source is not None:
        return _import_postscreen(arguments, cache_dump.read_lines(arguments.source, cache_dump.postmap_program()))
    lines = cache_dump.truncated_lines(sys.stdin)
    first = next((line for line in lines if line.strip()), "")
    everything = itertools.chain([first] if first else [], lines)
    if first.startswith("{") or not first:
        return _import_json(arguments, everything)
    return _import_postscreen(arguments, everything)


def _import_json(arguments: argparse.Namespace, lines: Iterable[str]) -> int:
    """Read all, then send all: a file with a mistake in it changes nothing. Exit code 1: it has one."""
    path = "" if arguments.dry_run else control_socket.socket_path(arguments)
    try:
        read = list(parsed(lines))
    except ValueError as error:
        print(f"fastscreen: {printable(str(error))}; nothing is imported", file=sys.stderr)
        return 1
    if arguments.dry_run:
        print(f"{len(read):,} would be stored", file=sys.stderr)
        return 0
    stored = 0
    for first in range(0, len(read), _BATCH):
        stored += control_socket.asked(path, "cache.import", Stored, entries=read[first : first + _BATCH]).stored
    print(f"{stored:,} of {len(read):,} stored", file=sys.stderr)
    return 0


def _import_postscreen(arguments: argparse.Namespace, lines: Iterable[str]) -> int:
    """Into the file, as the user that screens."""
    settings = _configuration(arguments)
    if not settings.cache.path:
        print(f'fastscreen: {settings.source}: cache.path = "": there is no cache', file=sys.stderr)
        return 1
    try:
        taken = cache_dump.parse(lines, time.time(), settings.cache.prefix, _progress("read"))
    except cache_dump.SourceError as error:
        print(f"fastscreen: {printable(str(error))}", file=sys.stderr)
        return 1
    for line in taken.examples:
        print(f"fastscreen: damaged, left out: {printable(line)}", file=sys.stderr)
    left_out = f"{taken.expired:,} expired, {taken.damaged:,} damaged"
    if arguments.dry_run:
        print(f"{len(taken.records):,} would be stored; left out: {left_out}", file=sys.stderr)
        return 0
    path = Path(settings.cache.path)
    try:
        user = user_of(settings) if os.geteuid() == 0 else ""
        give_folder(path.parent, user)
        if user:
            become(user)  # the file and its lock are the daemon's
        done = merge.merge(path, taken.records, _progress("stored"), _warn, max_size=settings.cache.max_size)
    except OSError as error:
        print(f"fastscreen: {error.strerror or error}", file=sys.stderr)
        return 1
    except (PrivilegeError, merge.MergeError) as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    stored = f"{done.new:,} new, {done.later:,} made later, {done.same:,} known already"
    print(f"{stored}; left out: {left_out}", file=sys.stderr)
    return 1 if taken.damaged and not taken.records else 0


def _configuration(arguments: argparse.Namespace) -> Config:
    """Which file, user and prefixes. Raises ConfigError."""
    if arguments.config is not None:
        return config.load(arguments.config)
    if arguments.socket is not None:
        raise config.ConfigError("--socket: postscreen's records go into the file; name the configuration with -c FILE")
    return config.load(control_socket.USUAL_FILE) if control_socket.USUAL_FILE.exists() else config.default()


def _progress(what: str) -> Callable[[int], None]:
    """A line on a terminal that is written over; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda done: None

    def told(done: int) -> None:
        print(f"\r{done:,} {what}\r", end="", file=sys.stderr, flush=True)

    return told


def _warn(text: str) -> None:
    print(f"fastscreen: warning: {printable(text)}", file=sys.stderr)


def parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Entries from JSON lines, checked. ValueError: which line, and what is wrong."""
    for number, line in enumerate(lines, 1):
        if len(line) > cache_dump.MAX_LINE:
            raise ValueError(f"line {number}: longer than {cache_dump.MAX_LINE} characters")
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=CacheEntry)
            address = control_socket.network(entry.address)
            for test, stamp in entry.stamps.items():
                if isinstance(stamp, str) and stamp not in ("never", "disabled"):
                    raise ValueError(f'{test}: "{stamp}" is no time, and not "never" or "disabled"')
        except (msgspec.DecodeError, argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from None
        yield {"address": address, "stamps": entry.stamps}
