"""The fastscreen command: a module for each subcommand, with `add_parser(subparsers)` and `run(arguments) -> int`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from fastscreen import __version__
from fastscreen.cli.output import allow_any_locale

COMMANDS = (
    *("run", "demo", "tui", "status", "explain", "events", "cache", "report"),
    *("bypass", "reload", "reopen", "restart", "stop"),
    *("allowlist", "import-postfix", "check", "completion"),
)

EXAMPLES = """\
examples:
  fastscreen demo                                    see it at work, with clients of every kind
  fastscreen run                                     try it on 127.0.0.1:2525, without a configuration
  fastscreen check -c /etc/fastscreen/fastscreen.toml
  fastscreen run -c /etc/fastscreen/fastscreen.toml
  fastscreen tui                                     watch it in a terminal
  fastscreen status
  fastscreen explain 192.0.2.1
  fastscreen report -d yesterday

exit codes: 0 all is well, 1 it failed, 2 wrong usage or configuration
"""


def parser(*commands: str) -> argparse.ArgumentParser:
    """The parser with these of COMMANDS in it; with all when none is named."""
    top = argparse.ArgumentParser(
        prog="fastscreen",
        description="Lets only those SMTP clients through to the mail server that behave like mail servers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"fastscreen {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands or COMMANDS:
        importlib.import_module("fastscreen.cli." + command.replace("-", "_")).add_parser(subparsers)
    return top


def main(words: Sequence[str] | None = None, *, interruptible: bool = False) -> int:
    """Run the command line; return the exit code: 0, 1 (it failed), 2 (wrong usage or configuration), 130 (Ctrl-C).

    interruptible: SIGINT has its default action until now; the command gets KeyboardInterrupt, to tidy up.
    """
    words = sys.argv[1:] if words is None else words
    allow_any_locale()
    # only what the command needs is imported: some are run every minute, and run stays
    wanted = [word for word in words[:1] if word in COMMANDS]
    arguments = parser(*wanted).parse_args(words)
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
