"""What the commands on the control socket share: which socket, JSON, and how a failure is reported."""

from __future__ import annotations

import argparse
import contextlib
import functools
import ipaddress
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastscreen import config
from fastscreen.cli.problems import print_problems
from fastscreen.config import ConfigError, environment
from fastscreen.config.socket_path import lenient_path
from fastscreen.control import client
from fastscreen.control.client import Absent, ControlError, Unreachable
from fastscreen.control.messages import Deleted
from fastscreen.escaping import cleaned, printable
from fastscreen.process.file_type import file_type

USUAL_FILE = Path("/etc/fastscreen/fastscreen.toml")
ANOTHER = "(to choose another socket: --socket PATH or -c FILE)"
EXIT_CODES = "exit codes: 0 done, 1 failed or no fastscreen answers, 2 wrong usage or configuration"


def add_socket(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the options that choose the control socket, or several."""
    action = "append" if several else "store"
    more = "; may be repeated" if several else ""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--socket", metavar="PATH", action=action, help=f"the control socket{more}")
    which.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        action=action,
        help=f"use control.path of this configuration{more}",
    )


def socket_path(arguments: argparse.Namespace) -> str:
    """The chosen socket. Raises Unreachable."""
    if arguments.socket is not None:
        return str(arguments.socket)
    return configured(arguments.config) if arguments.config is not None else usual_path()


def socket_paths(arguments: argparse.Namespace) -> list[str]:
    """The chosen sockets. Raises Unreachable."""
    if arguments.socket:
        return [str(path) for path in arguments.socket]
    return [configured(file) for file in arguments.config] if arguments.config else [usual_path()]


def usual_path() -> str:
    """The socket when none is named: that of the usual configuration, or a built-in one if that file is missing.

    A file that this user may not read counts as missing: members of control.group need no right to read it.
    """
    return configured(USUAL_FILE) if os.access(USUAL_FILE, os.R_OK) else _built_in_path()


def configured(file: Path) -> str:
    """control.path of a configuration, also of one with errors (a note on stderr says so). Raises Unreachable."""
    try:
        if file.exists() and not file.is_file():  # opening a FIFO would block
            raise ConfigError(f"{file}: not a regular file; expected a TOML file")
        path = config.load(file).control.path
    except (ConfigError, OSError) as error:
        found = environment.read()[0].get("control.path", lenient_path(file))
        path = found if isinstance(found, str) else _built_in_path()
        where = f"; using the control socket {path}" if path else ""
        print(f"fastscreen: note: {error} (run `fastscreen check`{where})", file=sys.stderr)
    if not path:
        raise Unreachable(f"{file}: control.path is empty, so the control socket is disabled")
    return path


def _built_in_path() -> str:
    """The socket of a daemon without control.path. Raises Absent."""
    usual = [client.DEFAULT_PATH]
    with contextlib.suppress(ConfigError):  # the host's name may not be a valid one
        usual.append(config.default().control.path)
    for path in usual:
        if path and is_there(path):
            return path
    raise Absent(f"no control socket at {' or '.join(dict.fromkeys(usual))}; is fastscreen running?")


def is_there(path: str) -> bool:
    """Whether the path exists; also when this user may not look, so that connecting gives the reason."""
    try:
        return file_type(Path(path)) != 0
    except OSError:
        return True


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command, with its failures as one line on stderr and an exit code."""

    @functools.wraps(run)
    def wrapper(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except ConfigError as error:
            print_problems(error)
            return 2
        except Absent as error:
            print(f"fastscreen: {printable(str(error))} {ANOTHER}", file=sys.stderr)
            return 1
        except ControlError as error:
            print(f"fastscreen: {printable(str(error))}", file=sys.stderr)
            # A filter that cannot be read is the caller's mistake, as a wrong option is.
            return 2 if str(error).startswith("filter: ") else 1

    return wrapper


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of an answer; bytes become text with C escapes, as in the log."""
    return json.dumps(cleaned(value), indent=indent)


def address(text: str) -> str:
    """An IP address as argparse reads it, in its usual form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not an IP address") from None


def network(text: str) -> str:
    """A network, or an address, as argparse reads it."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{printable(str(error))}; example: 192.0.2.0/24") from None
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)


def elsewhere(answer: Deleted) -> str:
    """What becomes of a deletion on the other hosts of a cluster, as the end of a sentence."""
    if answer.cluster is None:
        return ""
    if answer.cluster:
        return "; the cluster's server has the deletion for the other hosts"
    return "; the cluster's server cannot be used now: the other hosts delete when it can be used again"
