"""The fastscreen command."""

import argparse

from fastscreen import __version__
from fastscreen.cli import run


def main() -> int:
    """Run the command line; return the exit code: 0, 1 (it failed), 2 (wrong usage or configuration)."""
    parser = argparse.ArgumentParser(prog="fastscreen", description="Screens SMTP clients in front of a mail server.")
    parser.add_argument("--version", action="version", version=f"fastscreen {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    run.add_parser(subparsers)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))
