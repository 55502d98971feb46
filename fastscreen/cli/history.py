"""fastscreen history: search the recorded sessions, tell a client's life, export."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastscreen.atomicfile import default_mode
from fastscreen.cli import COMMANDS
from fastscreen.cli.control_socket import USUAL_FILE
from fastscreen.config import ConfigError, load
from fastscreen.escaping import printable
from fastscreen.filter_terms import Network
from fastscreen.format import plural
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.day import Row
from fastscreen.history.export import FORMATS, MissingError, csv_text, json_line, write
from fastscreen.history.fields import NAMES, cells
from fastscreen.history.filter import Query, query
from fastscreen.history.life import Life
from fastscreen.history.session import Session
from fastscreen.history.table import Table

EXAMPLES = """\
examples:
  fastscreen history                                   the latest sessions
  fastscreen history since:yesterday until:09:30 'score>=3'
  fastscreen history day:yesterday outcome:rejected list:zen helo:*.example
  fastscreen history 192.0.2.1                         all that is known of a client: its life
  fastscreen history 192.0.2.0/24 since:3d
  fastscreen history since:2h mta:5* --json | jq -r .address
  fastscreen history since:1h -outcome:handed_off -192.0.2.0/24
  fastscreen history export --format parquet -o november.parquet since:2026-11-01 until:2026-12-01

The terms of a filter are separated by spaces, and all must match; - before a term negates it (before plain text, only
after --). docs/history.md lists all terms. With nothing but an address or a network, and times, the command tells what
happened to that client.

exit codes: 0 done (also if no session matches), 1 the history cannot be read, or not all of it, or the file cannot be
written, 2 wrong usage, filter or configuration
"""

DEFAULT_LIMIT = 200
_PROGRESS = 500_000  # sessions to be read, from which progress is shown on a terminal
_PROGRESS_STEP = 0.5  # s
_WITH_VALUE = frozenset(("--path", "-c", "--config", "--limit", "--format", "-o", "--output"))
_NEGATED = re.compile(r"-(?!-)(?:[a-z]+[:<>=]|[0-9a-fA-F]*[.:][0-9a-fA-F.:]*(?:/|$)|\"|.* )", re.DOTALL)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "history",
        help=COMMANDS["history"],
        description="Search the recorded sessions, tell what happened to a client, or export sessions to a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "terms",
        nargs="*",
        metavar="TERM",
        help="the terms of a filter; first `export` to write sessions to a file (docs/history.md)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--path", metavar="DIR", type=Path, help="the folder of the history")
    which.add_argument("-c", "--config", metavar="FILE", type=Path, help="use history.path of this configuration")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_count,
        help=f"only the latest N sessions (default: {DEFAULT_LIMIT} in a table, otherwise all; 0: all)",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object per line")
    shown.add_argument("--csv", action="store_true", help="print CSV, with the names of the columns in the first line")
    shown.add_argument("--table", action="store_true", help="print a table, also of one client's sessions")
    export = parser.add_argument_group("with export")
    export.add_argument("--format", choices=FORMATS, help="the format of the file; parquet needs pyarrow")
    export.add_argument("-o", "--output", metavar="FILE", help="the file (default: standard output)")
    parser.set_defaults(run=run)


def arranged(words: Sequence[str]) -> list[str]:
    """The words of the command line as argparse needs them: options first, wherever they were, then the terms.

    A negated term such as `-outcome:left` looks like options.
    """
    options: list[str] = []
    terms: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word == "--":
            terms += rest
        elif not word.startswith("-") or word == "-" or _NEGATED.match(word):
            terms.append(word)
        else:
            name = word.partition("=")[0]
            known = any(each.startswith(name) for each in _WITH_VALUE)
            options.append(word if known else word.partition(" ")[0])  # with spaces, argparse would see a term
            if word in _WITH_VALUE and (value := next(rest, None)) is not None:
                options.append(value)
    return [*words[:1], *options, "--", *terms]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a number; expected a whole number from 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Search, show, and return the exit code."""
    exports = arguments.terms[:1] == ["export"]
    terms = arguments.terms[1:] if exports else arguments.terms
    if problem := _misused(arguments, exports):
        print(f"fastscreen: {problem}", file=sys.stderr)
        return 2
    warnings: list[str] = []
    try:
        archive = Archive(_folder(arguments), lambda line: _warn(line, warnings))
        archive.days()  # a folder that is missing is told before a filter that is wrong
        chosen = query(" ".join(terms), time.time(), archive.all_list_names)
    except (ConfigError, ValueError) as error:
        for line in error.problems if isinstance(error, ConfigError) else (str(error),):
            print(f"fastscreen: {printable(line)}", file=sys.stderr)
        return 2
    except ArchiveError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    reader = _Reader(archive, chosen)
    try:
        if exports:
            done = _export(reader, arguments)
        elif chosen.alone and chosen.network is not None and not (arguments.json or arguments.csv or arguments.table):
            done = _life(reader, archive, chosen.network, arguments)
        else:
            done = _list(reader, chosen.network, arguments)
    except ArchiveError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    if unreadable := reader.unreadable + archive.unreadable:
        _warn(
            f"{plural(unreadable, 'session')} omitted: recorded by another version of fastscreen, or damaged", warnings
        )
    return 1 if warnings and done == 0 else done


def _misused(arguments: argparse.Namespace, exports: bool) -> str:
    """What is wrong with the options together; empty: nothing."""
    if exports:
        if arguments.format is None:
            return f"history export: --format is missing; expected {', '.join(FORMATS)}"
        if arguments.json or arguments.csv or arguments.table:
            return "history export: --json, --csv and --table are not for export; use --format"
        return ""
    if arguments.output is not None:
        return "-o is only for `history export`"
    return "--format is only for `history export`; use --json or --csv" if arguments.format is not None else ""


def _warn(line: str, warnings: list[str]) -> None:
    warnings.append(line)
    print(f"fastscreen: warning: {line}", file=sys.stderr)


def _folder(arguments: argparse.Namespace) -> Path:
    """The folder of the history. Raises ConfigError."""
    if arguments.path is not None:
        return Path(arguments.path)
    file = arguments.config if arguments.config is not None else USUAL_FILE
    if arguments.config is None and not os.access(file, os.R_OK):
        raise ConfigError(
            f"{file}: missing or unreadable; name the folder of the history with --path DIR, or use -c FILE"
        )
    return folder_of(file)


def folder_of(file: Path) -> Path:
    """history.path of a configuration, also of one with errors (a note on stderr says so). Raises ConfigError."""
    try:
        path = str(load(file).history.path)
    except ConfigError as error:
        found = _lenient_path(file)
        if found is None:
            raise
        print(f"fastscreen: note: {error} (run `fastscreen check`; using history.path {found})", file=sys.stderr)
        path = found
    if not path:
        raise ConfigError(f"{file}: history.path is empty, so no history is recorded; or name a folder with --path DIR")
    return Path(path)


def _lenient_path(file: Path) -> str | None:
    """history.path of a file whose other keys may be wrong."""
    try:
        with file.open("rb") as opened:
            found = tomllib.load(opened).get("history", {}).get("path")
    except (OSError, tomllib.TOMLDecodeError, AttributeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, str) and found.startswith("/") else None


class _Reader:
    """Reads what a filter chooses, and shows progress on a terminal if that takes long."""

    def __init__(self, archive: Archive, chosen: Query) -> None:
        self._archive = archive
        self._query = chosen
        self.unreadable = 0

    def rows(self, limit: int) -> tuple[list[Row] | Iterator[Row], bool]:
        """The rows, oldest first: all, or at most the latest `limit` ones, and whether there are more."""
        if not limit:
            return self._pages(newest_first=False), False
        latest: deque[Row] = deque()
        for row in self._pages(newest_first=True):
            if len(latest) == limit:
                return list(latest), True
            latest.appendleft(row)
        return list(latest), False

    def sessions(self, rows: Iterable[Row]) -> Iterator[Session]:
        """The sessions of rows."""
        for row in rows:
            session = self._archive.session(row)
            if session is None:
                self.unreadable += 1
            else:
                yield session

    def _pages(self, *, newest_first: bool) -> Iterator[Row]:
        progress = _Progress()
        if sys.stderr.isatty() and (newest_first or not sys.stdout.isatty()):  # not among what is printed meanwhile
            progress.total = self._archive.count(self._query.since, self._query.until)
        try:
            for page in self._archive.pages(self._query, newest_first=newest_first, seen=progress.add):
                yield from page
        finally:
            progress.end()


class _Progress:
    """A line on a terminal that says how many sessions were read. total: 0 if nothing is to be shown."""

    def __init__(self) -> None:
        self.total = 0
        self._read = 0
        self._next = time.monotonic() + _PROGRESS_STEP
        self._shown = False

    def add(self, count: int) -> None:
        """So many more were read."""
        self._read += count
        if self.total >= _PROGRESS and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_STEP
            self._shown = True
            percent = min(99, 100 * self._read // self.total)
            print(f"\r{percent:3d} % of {self.total:,} sessions read", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _list(reader: _Reader, network: Network | None, arguments: argparse.Namespace) -> int:
    """Print the sessions, the newest last."""
    plain = arguments.json or arguments.csv
    limit = arguments.limit if arguments.limit is not None else 0 if plain else DEFAULT_LIMIT
    rows, more = reader.rows(limit)
    count = 0
    table = None if plain else Table(_width())
    if arguments.csv:
        print(csv_text([list(NAMES)]), end="")
    for session in reader.sessions(rows):
        if table is not None and count == 0:
            print(table.head())
        if arguments.json:
            print(json_line(session))
        elif arguments.csv:
            print(csv_text([cells(session)]), end="")
        elif table is not None:
            print(table.row(session))
        count += 1
    if more:
        print(
            f"fastscreen: only the latest {plural(limit, 'session')}; --limit N shows more, --limit 0 all",
            file=sys.stderr,
        )
    elif not count:
        _nothing(network, arguments)
    return 0


def _nothing(network: Network | None, arguments: argparse.Namespace) -> None:
    """Say that no session matches; for a client whose address is recorded only in part, what to search for."""
    hint = ""
    if network is not None and (mask := _mask(arguments)) is not None:
        bits = mask[network.version == 6]
        if network.prefixlen > bits:
            cut = network.supernet(new_prefix=bits)
            hint = f'; history.mask = "/{mask[0]} /{mask[1]}" cuts addresses: search for {cut}'
    print(f"fastscreen: no session matches{hint}", file=sys.stderr)


def _mask(arguments: argparse.Namespace) -> tuple[int, int] | None:
    """history.mask of the configuration that named the folder. None: not set, or not known."""
    if arguments.path is not None:
        return None
    try:
        return load(arguments.config if arguments.config is not None else USUAL_FILE).history.mask
    except ConfigError:
        return None


def _width() -> int | None:
    """Of the terminal; None if standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _life(reader: _Reader, archive: Archive, network: Network, arguments: argparse.Namespace) -> int:
    """Print what happened to a client, or to those of a network."""
    limit = arguments.limit or 0
    rows, more = reader.rows(limit)
    several = network.num_addresses > 1
    life = Life(archive.settings, several)
    name = str(network) if several else str(network.network_address)
    print(name)
    if more:
        print(f"(only the latest {plural(limit, 'session')})")
    for line in life.lines(reader.sessions(rows)):
        print(line)
    if not life.sessions:
        _nothing(network, arguments)
    return 0


def _export(reader: _Reader, arguments: argparse.Namespace) -> int:
    """Write the sessions to a file."""
    if arguments.output is None and arguments.format == "parquet" and sys.stdout.isatty():
        print("fastscreen: history export: Parquet is not for a terminal; use -o FILE", file=sys.stderr)
        return 2
    rows, _ = reader.rows(arguments.limit or 0)
    try:
        with _output(arguments.output) as to:
            count = write(reader.sessions(rows), arguments.format, to)
    except MissingError as error:
        print(f"fastscreen: history export: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        name = arguments.output or "standard output"
        print(f"fastscreen: {printable(name)}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    if arguments.output is not None:
        print(f"fastscreen: {plural(count, 'session')} written to {printable(arguments.output)}", file=sys.stderr)
    return 0


@contextmanager
def _output(name: str | None) -> Iterator[BinaryIO]:
    """The file that is written, which appears under its name when it is complete; or standard output. OSError."""
    if name is None or name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():  # /dev/stdout
        with path.open("wb") as device:
            yield device
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    mode = path.stat().st_mode & 0o777 if path.exists() else default_mode() & 0o600
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
