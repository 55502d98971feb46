"""fastscreen report: summarizes logs: which clients connected, the results, and possibly wrong rejections."""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from fastscreen.atomicfile import default_mode, replace_file
from fastscreen.cli import COMMANDS
from fastscreen.cli.control_socket import USUAL_FILE
from fastscreen.cli.history import folder_of
from fastscreen.cli.problems import print_problems
from fastscreen.config import ConfigError, load
from fastscreen.config.model import Config, LogStderr, LogSyslog
from fastscreen.config.model import LogFile as ToFile
from fastscreen.escaping import printable
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.filter import END, Query
from fastscreen.report.days import EXPECTED as DAYS_EXPECTED
from fastscreen.report.days import Days, days
from fastscreen.report.files import LogError, LogFile, default_files, open_sorted
from fastscreen.report.from_history import AFTER, UNKNOWN_TOTALS, FromHistory
from fastscreen.report.json_keys import as_builtins
from fastscreen.report.lines import reader
from fastscreen.report.mail import MailError, recipient, send
from fastscreen.report.masking import Masking
from fastscreen.report.sources import Journal, journal_idents, own_files
from fastscreen.report.summary import Summary, summarize
from fastscreen.report.tally import Tally
from fastscreen.report.text import Style, as_text
from fastscreen.report.what_if import Settings, rejudge, settings_of
from fastscreen.screening.policy import shown_names
from fastscreen.tables import TableError

EXAMPLES = """\
examples:
  fastscreen report -d yesterday                       from the daemon's log file, the journal, or /var/log/mail.log*
  fastscreen report --problems-first /var/log/mail.log.1 /var/log/mail.log.2.gz
  fastscreen report -d week --html /var/www/report.html
  fastscreen report -d yesterday -q --mail-to postmaster@example.com    for a daily timer
  fastscreen report -d yesterday --history             from the recorded sessions (history.path) instead of a log
  fastscreen report --what-if threshold=4 site=bl2.example*1 -c /etc/fastscreen/fastscreen.toml
  journalctl -o short-iso -t postfix/postscreen -t postfix/dnsblog | fastscreen report -

exit codes: 0 success, 1 a log cannot be read to its end, or the report cannot be written or sent,
2 wrong usage or configuration
"""

LOGS = Path("/var/log")
MARKS = b"postscreen[", b"fastscreen["
UNKNOWN_FORM = (
    "contains lines of postscreen or fastscreen in an unknown format; expected a format listed in docs/report.md, or "
    "--syslog-name with the ident"
)
MIN_PROGRESS = 50_000_000  # bytes of logs from which a progress bar is shown on a terminal

Read = TypeVar("Read")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line. -h has pflogsumm's meaning, so only --help shows the help."""
    parser = subparsers.add_parser(
        "report",
        help=COMMANDS["report"],
        description="Summarize logs of fastscreen or postscreen: clients, results, and possibly wrong rejections.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="logs, as text, .gz, .xz or .bz2, in any order; - is standard input (default: the file of log.to, "
        "otherwise the journal, otherwise mail.log or maillog)",
    )
    parser.add_argument(
        "--history",
        nargs="?",
        const="",
        metavar="DIR",
        help="read the recorded sessions in this folder (default: history.path) instead of logs",
    )
    parser.add_argument("--help", action="help", help="show this help message and exit")
    parser.add_argument("-d", dest="days", metavar="DAY", type=_days, help=f"only these days: {DAYS_EXPECTED}")
    parser.add_argument(
        "--syslog-name", default="", metavar="NAME", help="another ident of fastscreen (log.ident) in these logs"
    )
    shown = parser.add_argument_group("contents, with pflogsumm's options")
    shown.add_argument(
        "-h", dest="hosts", metavar="N", type=_count, default=20, help="show the top N clients; 0: omit (20)"
    )
    shown.add_argument(
        "-u", dest="users", metavar="N", type=_count, default=20, help="show the top N mailboxes; 0: omit (20)"
    )
    shown.add_argument(
        "--reject-detail", metavar="N", type=_count, default=20, help="show the top N of each reply; 0: omit (20)"
    )
    shown.add_argument("-q", dest="quiet", action="store_true", help="omit the headings of empty sections")
    shown.add_argument("--problems-first", action="store_true", help="show problems before the other sections")
    shown.add_argument("--verbose-msg-detail", action="store_true", help="show replies and lists in full")
    shown.add_argument("--rej-add-from", action="store_true", help="show the sender next to each rejected client")
    shown.add_argument("--iso-date-time", action="store_true", help="show dates as 2026-11-22")
    shown.add_argument("--zero-fill", action="store_true", help="show hours without connections")
    where = parser.add_argument_group("output; by default text on standard output")
    where.add_argument("--json", action="store_true", help="print one JSON object (docs/report.md)")
    where.add_argument("--html", metavar="FILE", type=Path, help="write an HTML page in a single file")
    where.add_argument(
        "--mail-to", metavar="ADDRESS", type=_argument(recipient), help="mail the report, unless the log is empty"
    )
    other = parser.add_argument_group("other DNSBL settings")
    other.add_argument(
        "--what-if",
        nargs="+",
        metavar="SETTING",
        help="threshold=N, allowlist_threshold=N, site=domain[=filter][*weight]",
    )
    other.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help=f"configuration with log.to, log.ident and dnsbl.reply_map, and for --what-if (default: {USUAL_FILE})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the logs, show the report, and return the exit code."""
    period: Days | None = arguments.days
    if arguments.history is not None:
        return _run_history(arguments, period)
    try:
        daemon = _daemon(arguments.config)
        settings = _settings(arguments, daemon)
    except (ConfigError, TableError, ValueError) as error:
        print_problems(error)
        return 2
    tally = Tally(
        period.since if period else 0,
        period.until if period else float("inf"),
        with_senders=arguments.rej_add_from,
    )
    try:
        with logs(arguments.files, daemon, period.since if period else 0) as files:
            failed = count(files, tally, arguments.syslog_name, daemon.ident)
    except LogError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    for each in failed:
        print(f"fastscreen: {each}", file=sys.stderr)
    summary = summarize(
        tally,
        host=printable(socket.gethostname()),
        period=str(period or ""),
        hosts=arguments.hosts,
        users=arguments.users,
        details=arguments.reject_detail,
        what_if=rejudge(tally, settings) if settings else None,
        failed=[str(each) for each in failed],
    )
    return _show_masked(summary, daemon.reply_map, arguments, bool(failed))


def _run_history(arguments: argparse.Namespace, period: Days | None) -> int:
    """The same with recorded sessions instead of logs."""
    for given, what in (
        (bool(arguments.files), "FILE"),
        (arguments.what_if is not None, "--what-if (use `fastscreen tune`)"),
        (arguments.rej_add_from, "--rej-add-from"),
        (bool(arguments.syslog_name), "--syslog-name"),
    ):
        if given:
            print(f"fastscreen: report --history: not together with {what}", file=sys.stderr)
            return 2
    warnings: list[str] = []
    try:
        daemon = _daemon(arguments.config)
        folder = Path(arguments.history) if arguments.history else folder_of(arguments.config or USUAL_FILE)
        archive = Archive(folder, warnings.append)
        tally = Tally(period.since if period else 0, period.until if period else float("inf"))
        source = FromHistory(tally, archive.settings)
        until = int((period.until + AFTER) * 1_000_000) if period else END
        with uncollected():
            source.add(archive.sessions(Query(since=period.since * 1_000_000 if period else 0, until=until)))
    except (ConfigError, TableError) as error:
        print_problems(error)
        return 2
    except ArchiveError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    for line in warnings:
        print(f"fastscreen: warning: {line}", file=sys.stderr)
    summary = summarize(
        tally,
        host=printable(socket.gethostname()),
        period=str(period or ""),
        hosts=arguments.hosts,
        users=arguments.users,
        details=arguments.reject_detail,
        failed=[*warnings, *source.notes()],
        missing=UNKNOWN_TOTALS,
    )
    return _show_masked(summary, daemon.reply_map, arguments, bool(warnings))


def _show_masked(
    summary: Summary, reply_map: Mapping[str, str], arguments: argparse.Namespace, incomplete: bool
) -> int:
    """Show the report without secret keys, and return the exit code."""
    summary = Masking(reply_map).record(summary)
    try:
        show(summary, arguments)
        return 1 if incomplete else 0
    except MailError as error:
        print(f"fastscreen: the report was not sent: {printable(str(error))}", file=sys.stderr)
    except OSError as error:
        print(f"fastscreen: {printable(str(error.filename))}: cannot be written: {error.strerror}", file=sys.stderr)
    return 1


@contextmanager
def logs(names: list[str], daemon: Daemon, since: float) -> Iterator[list[LogFile]]:
    """Open the named logs, or by default the daemon's file, the journal, or the default files.

    since: s since 1970; older files are not opened. Raises LogError.
    """
    names = names or own_files(daemon.to, since)
    idents = [] if names else journal_idents(daemon.ident)
    if idents:
        journal = Journal(idents, since)
        try:
            yield [journal.log]
        finally:
            journal.close()
        return
    files = open_sorted(names or default_files(LOGS, since))
    try:
        yield files
    finally:
        for file in files:
            file.close()


def read(names: list[str], tally: Tally, *idents: str) -> list[LogError]:
    """`count` for files with these names. Raises LogError if a file cannot be opened."""
    with logs(names, Daemon(), 0) as files:
        return count(files, tally, *idents)


def count(files: list[LogFile], tally: Tally, *idents: str) -> list[LogError]:
    """Count the lines of all files. idents: more idents, as for `lines.pattern`.

    Returns errors for files that could not be read to their end (the readable part is counted), and for files with
    lines of postscreen or fastscreen in an unknown format.
    """
    rows = reader(*idents)
    failed: list[LogError] = []
    with uncollected():
        try:
            with progress(files) as advance:
                for file in files:
                    known = foreign = False
                    try:
                        for block in file.blocks(advance):
                            found = rows(block)
                            known = known or any(row[0] for row in found)
                            foreign = foreign or (not known and any(mark in block for mark in MARKS))
                            tally.add(found, file.clock)
                    except LogError as error:
                        failed.append(error)
                    if foreign and not known:
                        failed.append(LogError(f"{printable(file.name)}: {UNKNOWN_FORM}"))
        finally:
            tally.finish()
    return failed


@contextmanager
def uncollected() -> Iterator[None]:
    """A tally never has reference cycles, and searching for them takes seconds."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def progress(files: list[LogFile]) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if standard error is a terminal and the files are large."""
    total = sum(file.size for file in files)
    if total < MIN_PROGRESS or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda count: bar.advance(task, count)


def show(summary: Summary, arguments: argparse.Namespace) -> None:
    """Print, write or send it. Raises MailError, OSError."""
    style = Style(
        quiet=arguments.quiet,
        problems_first=arguments.problems_first,
        verbose=arguments.verbose_msg_detail,
        iso_dates=arguments.iso_date_time,
        zero_fill=arguments.zero_fill,
        hosts=arguments.hosts > 0,
        users=arguments.users > 0,
        details=arguments.reject_detail > 0,
    )
    if arguments.html:
        from fastscreen.report.page import as_page

        write_page(arguments.html, as_page(summary))
    if arguments.mail_to and not summary.empty:
        about = f", {summary.period}" if summary.period else ""
        send(as_text(summary, style), f"Screening report of {summary.host}{about}", arguments.mail_to, summary.host)
    if arguments.json:
        print(json.dumps(as_builtins(summary), indent=2))
    elif not arguments.html and not arguments.mail_to:
        print(as_text(summary, style), end="")


def write_page(path: Path, text: str) -> None:
    """Replace a file atomically, or write to a device. OSError."""
    if path.exists() and not path.is_file():  # /dev/stdout
        path.write_text(text, encoding="utf-8")
        return
    mode = path.stat().st_mode & 0o777 if path.exists() else default_mode()
    replace_file(path, text.encode(), mode=mode)


class Daemon(Struct, frozen=True):
    """The daemon's log settings, and the names for its DNS lists. config: None without a configuration."""

    config: Config | None = None
    to: ToFile | LogSyslog | LogStderr = LogSyslog()
    ident: str = ""
    reply_map: Mapping[str, str] = {}


def _daemon(named: Path | None) -> Daemon:
    """The settings of the named configuration, or of the default one if this user can read it.

    Raises ConfigError, TableError. Mistakes in the default configuration only cause a warning, because it was not
    requested.
    """
    file = named if named is not None else USUAL_FILE
    if named is None and not os.access(file, os.R_OK):
        return Daemon()
    try:
        config = load(file)
        return Daemon(config, config.log.to, config.log.ident, shown_names(config.dnsbl)[0])
    except (ConfigError, TableError) as error:
        if named is not None:
            raise
        print(f"fastscreen: warning: {error}; log.to, log.ident and dnsbl.reply_map are ignored", file=sys.stderr)
        return Daemon()


def _settings(arguments: argparse.Namespace, daemon: Daemon) -> Settings | None:
    """The settings for --what-if. Raises ValueError."""
    if arguments.what_if is None:
        return None
    base = Settings()
    if arguments.config is not None and daemon.config is not None:
        dnsbl = daemon.config.dnsbl
        base = Settings(dnsbl.sites, dnsbl.threshold, dnsbl.allowlist_threshold)
    settings = settings_of(arguments.what_if, base)
    if not settings.sites:  # no client would be rejected, which is not useful to know
        raise ValueError("--what-if: without lists; expected a configuration with -c, or lists with site=")
    return settings


def _argument(read_it: Callable[[str], Read]) -> Callable[[str], Read]:
    """A parser of an argument that shows the message of a ValueError unchanged."""

    def parse(text: str) -> Read:
        try:
            return read_it(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _days(text: str) -> Days:
    return _argument(lambda word: days(word, date.fromtimestamp(time.time())))(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; expected a whole number from 0")
    return int(text)
