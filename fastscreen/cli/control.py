"""What the commands on the control socket share: which socket, typed answers, and how a failure is told."""

from __future__ import annotations

import argparse
import functools
import ipaddress
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastscreen import client, config
from fastscreen.answers import Record, record
from fastscreen.client import ControlError, Unreachable
from fastscreen.config import ConfigError
from fastscreen.escape import cleaned, printable

EXIT_CODES = "exit codes: 0 done, 1 it failed or nobody is there, 2 wrong usage or configuration"


def add_socket(parser: argparse.ArgumentParser) -> None:
    """The options that say which fastscreen is meant."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--socket", metavar="PATH", help="the control socket")
    which.add_argument("-c", "--config", metavar="FILE", type=Path, help="take control.path of this configuration")


def socket_path(arguments: argparse.Namespace) -> str:
    """The socket to ask. Raises ConfigError, Unreachable."""
    if arguments.socket is not None:
        return str(arguments.socket)
    if arguments.config is not None:
        path = config.load(arguments.config).control.path
        if not path:
            raise Unreachable(f'{arguments.config}: control.path = "": this fastscreen has no control socket')
        return path
    usual = list(dict.fromkeys((client.DEFAULT_PATH, config.default().control.path)))
    for path in usual:
        if path and is_there(path):
            return path
    raise Unreachable(f"no control socket at {' or '.join(filter(None, usual))}; is fastscreen running? See --socket")


def is_there(path: str) -> bool:
    """Whether something is there; also when this user may not look, so that whoever connects is told so."""
    try:
        return Path(path).exists()
    except OSError:
        return True


def told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same command with its failures as one line on stderr, and their exit code."""

    @functools.wraps(run)
    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except ConfigError as error:
            print(f"fastscreen: {error}", file=sys.stderr)
            return 2
        except ControlError as error:
            print(f"fastscreen: {printable(str(error))}", file=sys.stderr)
            # A filter that cannot be read is the caller's mistake, as a wrong option is.
            return 2 if str(error).startswith("filter: ") else 1

    return guarded


def asked(path: str, verb: str, kind: type[Record], **arguments: Any) -> Record:
    """An answer, checked, with all text of it printable. Raises ControlError."""
    return record(kind, client.ask(path, verb, **arguments))


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of an answer; octets are text with C escapes, as in the log."""
    return json.dumps(cleaned(value), indent=indent)


def address(text: str) -> str:
    """An IP address as argparse reads it, in its usual form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is no IP address") from None


def network(text: str) -> str:
    """A network, or an address, as argparse reads it."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{printable(str(error))}; example: 192.0.2.0/24") from None
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)
