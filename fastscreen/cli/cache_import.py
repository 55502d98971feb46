"""fastscreen cache import: import exported entries, or postscreen's cache."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from fastscreen import config
from fastscreen.cache import merge
from fastscreen.cli import control_socket
from fastscreen.config import Config
from fastscreen.control import client
from fastscreen.control.messages import CacheEntry, CacheImportRequest, ImportedEntry
from fastscreen.escaping import printable
from fastscreen.format import plural
from fastscreen.postfix import cache_dump
from fastscreen.process.privileges import PrivilegeError, become, give_folder, user_of

EXAMPLES = f"""\
examples:
  fastscreen cache import < cache.jsonl                                       the output of fastscreen cache export
  fastscreen cache import lmdb:/var/lib/postfix/postscreen_cache              postscreen's cache
  fastscreen cache import --dry-run btree:/var/lib/postfix/postscreen_cache   only count the entries
  ssh old postmap -s btree:/var/lib/postfix/postscreen_cache | fastscreen cache import

JSON lines are sent to the running fastscreen. postscreen's entries are written to the cache file, whether fastscreen is
running or not: name its configuration with -c, as root or fastscreen's user. Where both caches know a test, the later
expiry time is kept.

{control_socket.EXIT_CODES}
"""

_BATCH = 200  # entries sent at a time: a frame to fastscreen has at most 64 KiB


def add_import(ways: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import` to `fastscreen cache`."""
    parser = ways.add_parser(
        "import",
        help="import exported entries, or postscreen's cache",
        description="Read JSON lines (from `fastscreen cache export`) or KEY VALUE lines (from `postmap -s`) from "
        "standard input, or read postscreen's cache itself.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", nargs="?", metavar="TYPE:PATH", help="postscreen's cache, in the form of postscreen_cache_map"
    )
    parser.add_argument("--dry-run", action="store_true", help="read and count, but store nothing")
    control_socket.add_socket(parser)
    parser.set_defaults(run=run_import)


@control_socket.guarded
def run_import(arguments: argparse.Namespace) -> int:
    """The first line shows which kind of input it is."""
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
        print(f"fastscreen: {printable(str(error))}; nothing was imported", file=sys.stderr)
        return 1
    if arguments.dry_run:
        print(f"{plural(len(read), 'entry', 'entries')} would be stored", file=sys.stderr)
        return 0
    stored = 0
    for first in range(0, len(read), _BATCH):
        stored += client.ask(path, CacheImportRequest(read[first : first + _BATCH])).stored
    print(f"{stored:,} of {plural(len(read), 'entry', 'entries')} stored", file=sys.stderr)
    return 0


def _import_postscreen(arguments: argparse.Namespace, lines: Iterable[str]) -> int:
    """Into the file, as fastscreen's user."""
    settings = _configuration(arguments)
    if not settings.cache.path:
        print(f"fastscreen: {settings.source}: cache.path is empty, so the cache is disabled", file=sys.stderr)
        return 1
    try:
        taken = cache_dump.parse(lines, time.time(), settings.cache.prefix, _progress("read"))
    except cache_dump.SourceError as error:
        print(f"fastscreen: {printable(str(error))}", file=sys.stderr)
        return 1
    for line in taken.examples:
        print(f"fastscreen: skipped a damaged entry: {printable(line)}", file=sys.stderr)
    skipped = f"{taken.expired:,} expired, {taken.damaged:,} damaged"
    if arguments.dry_run:
        print(f"{plural(len(taken.records), 'entry', 'entries')} would be stored; skipped: {skipped}", file=sys.stderr)
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
    stored = f"{done.new:,} added, {done.later:,} extended, {done.same:,} unchanged"
    print(f"{stored}; skipped: {skipped}", file=sys.stderr)
    return 1 if taken.damaged and not taken.records else 0


def _configuration(arguments: argparse.Namespace) -> Config:
    """Which file, user and prefixes. Raises ConfigError."""
    if arguments.config is not None:
        return config.load(arguments.config)
    if arguments.socket is not None:
        raise config.ConfigError(
            "--socket: postscreen's entries are written to the cache file; expected -c FILE instead"
        )
    usual = control_socket.USUAL_FILE
    return config.load(usual) if control_socket.is_there(str(usual)) else config.default()


def _progress(what: str) -> Callable[[int], None]:
    """A progress line on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        print(f"\r{done:,} {what}\r", end="", file=sys.stderr, flush=True)

    return show


def _warn(text: str) -> None:
    print(f"fastscreen: warning: {printable(text)}", file=sys.stderr)


def parsed(lines: Iterable[str]) -> Iterator[ImportedEntry]:
    """Entries from JSON lines, checked. Raises ValueError with the number of the line."""
    for number, line in enumerate(lines, 1):
        if len(line) > cache_dump.MAX_LINE:
            raise ValueError(f"line {number}: longer than {cache_dump.MAX_LINE} characters")
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=CacheEntry)
            address = control_socket.network(entry.address)
            for test, stamp in entry.passed_until.items():
                if isinstance(stamp, str) and stamp not in ("new", "deferred", "disabled"):
                    raise ValueError(f'{test}: "{stamp}"; expected a time in seconds since 1970, "new" or "disabled"')
        except (msgspec.DecodeError, argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from None
        yield ImportedEntry(address, entry.passed_until)
