"""fastscreen completion: completion scripts for shells, from the same parser as --help."""

from __future__ import annotations

import argparse

import shtab

from fastscreen.cli import COMMANDS
from fastscreen.cli import parser as every_command

SHELLS = ("bash", "zsh", "fish")

EXAMPLES = """\
examples:
  fastscreen completion bash > /usr/share/bash-completion/completions/fastscreen
  fastscreen completion zsh > /usr/local/share/zsh/site-functions/_fastscreen
  fastscreen completion fish > /etc/fish/completions/fastscreen.fish
  eval "$(fastscreen completion bash)"         for the current shell
"""

_FILES = frozenset(("FILE", "PATH"))
_FOLDERS = frozenset(("DIR",))


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help=COMMANDS["completion"],
        description="Print a script that lets the shell complete fastscreen's commands and options.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="bash|zsh|fish")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    top = every_command()
    _complete_files(top, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(top, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Mark the options that take a file, or a folder."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner, file, folder)
        elif action.metavar in _FILES:
            action.complete = file  # type: ignore[attr-defined]  # shtab's own attribute
        elif action.metavar in _FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
