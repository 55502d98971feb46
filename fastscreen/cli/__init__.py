"""The fastscreen command: a module for each subcommand, with `add_parser(subparsers)` and `run(arguments) -> int`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from fastscreen import __version__
from fastscreen.cli.output import allow_any_locale

COMMANDS = {
    "run": "run the daemon in the foreground",
    "demo": "demonstrate fastscreen with clients of every kind",
    "tui": "watch a running fastscreen in a terminal",
    "status": "show what a running fastscreen is doing",
    "explain": "show what would happen to a client now, and why",
    "events": "show events as they happen",
    "cache": "show, delete, export and import cached test results",
    "reputation": "show, delete and export what is known of networks",
    "history": "search recorded sessions: what happened to a client, and when",
    "report": "summarize what logs say about a period",
    "tune": "judge recorded sessions by other settings",
    "bypass": "hand every client off untested, for a limited time",
    "reload": "read the configuration and its tables again",
    "reopen": "open the log again, as after its rotation",
    "restart": "replace the running daemon, as after an upgrade",
    "stop": "stop the running daemon",
    "allowlist": "maintain lists of big senders' networks for the access list",
    "setup": "guided start in shadow mode, and the way back",
    "import-postfix": "convert postscreen's configuration",
    "check": "check a configuration and report problems",
    "completion": "print a completion script for a shell",
}
"""Each command and its line in --help."""

EXAMPLES = """\
examples:
  fastscreen demo                                    a demonstration with clients of every kind
  fastscreen run                                     a trial on 127.0.0.1:2525, without a configuration
  fastscreen check -c /etc/fastscreen/fastscreen.toml
  fastscreen run -c /etc/fastscreen/fastscreen.toml
  fastscreen tui                                     watch a running fastscreen in a terminal
  fastscreen status
  fastscreen explain 192.0.2.1
  fastscreen history 192.0.2.1 since:yesterday
  fastscreen report -d yesterday

exit codes: 0 success, 1 failure, 2 wrong usage or configuration
"""


def parser(*commands: str) -> argparse.ArgumentParser:
    """The parser with these of COMMANDS in it; with all when none is named."""
    top, subparsers = _top()
    for command in commands or COMMANDS:
        importlib.import_module("fastscreen.cli." + command.replace("-", "_")).add_parser(subparsers)
    return top


def _outline() -> argparse.ArgumentParser:
    """A parser that only names the commands: for --help, --version and mistakes. It imports none of them."""
    top, subparsers = _top()
    for command, about in COMMANDS.items():
        subparsers.add_parser(command, help=about)
    return top


def _top() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]]:
    top = argparse.ArgumentParser(
        prog="fastscreen",
        description="A screening server in front of an MTA: lets SMTP clients pass that behave like mail servers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"fastscreen {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    return top, subparsers


def main(words: Sequence[str] | None = None, *, interruptible: bool = False) -> int:
    """Run the command line; return the exit code: 0, 1 (it failed), 2 (wrong usage or configuration), 130 (Ctrl-C).

    interruptible: SIGINT has its default action until now; the command gets KeyboardInterrupt, to tidy up.
    """
    words = sys.argv[1:] if words is None else words
    allow_any_locale()
    # Only the module of the command is imported: some commands are run every minute, and `run` stays in memory.
    command = words[0] if words else ""
    chosen = parser(command) if command in COMMANDS else _outline()
    if command == "history":
        from fastscreen.cli.history import arranged

        words = arranged(words)
    arguments = chosen.parse_args(words)
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stdout = None
        return 1
    return int(code)
