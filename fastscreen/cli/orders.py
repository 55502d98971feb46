"""What `reload`, `reopen`, `restart` and `stop` share: they ask the daemon, wait for the outcome and report it."""

from __future__ import annotations

import argparse
import functools
import json
import socket
import sys
import time
from collections.abc import Callable

from msgspec import Struct

from fastscreen.cli import control_socket
from fastscreen.control import client
from fastscreen.control.client import Absent, ControlError, Unreachable
from fastscreen.control.messages import (
    Begun,
    Outcome,
    Request,
    RestartRequest,
    StatusRequest,
    StopRequest,
)
from fastscreen.escaping import printable

PAUSE = 0.2  # s between two looks


class Order(Struct, frozen=True):
    """One of the commands. without: how to do the same when no control socket answers. seconds: to wait, usually."""

    name: str
    help: str
    description: str
    examples: str
    without: str
    seconds: int
    run: Callable[[str, float], tuple[bool, str]]
    """With the socket's path and the time limit (s, monotonic): whether it went well, and one line. ControlError."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], order: Order) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        order.name,
        help=order.help,
        description=order.description,
        epilog=f"examples:\n{order.examples}\n\n"
        "Only root and fastscreen's user may do this. Without a control socket:\n"
        f"{order.without}\n\nexit codes: 0 done, 1 failed or no fastscreen answers, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    control_socket.add_socket(parser)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=float(order.seconds),
        help=f"how long to wait for the outcome (default: {order.seconds})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=functools.partial(_run, order))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError("expected a number of seconds above 0, at most 86400")
    return seconds


def _run(order: Order, arguments: argparse.Namespace) -> int:
    try:
        path = control_socket.socket_path(arguments)
        ok, text = order.run(path, time.monotonic() + arguments.timeout)
    except Unreachable as error:
        where = f" {control_socket.ANOTHER}" if isinstance(error, Absent) else ""
        ok, text = False, f"{error}{where}; without the control socket: {order.without}"
    except ControlError as error:
        ok, text = False, str(error)
    if arguments.json:
        print(json.dumps({"ok": ok, "text": printable(text)}))
    elif ok:
        print(printable(text))
    if not ok:
        print(f"fastscreen: {printable(text)}", file=sys.stderr)
    return 0 if ok else 1


# ---- waiting


def attempt(request: Request[Begun], path: str, end: float) -> tuple[bool, str]:
    """Ask for `reload` or `reopen`, and wait until that very attempt is over."""
    what = request.verb
    started = client.ask(path, StatusRequest()).started
    number = client.ask(path, request).number
    while time.monotonic() < end:
        time.sleep(PAUSE)
        try:
            status = client.ask(path, StatusRequest())
        except Unreachable:
            continue  # the control server is being restarted
        if status.started != started:
            return False, f"{what}: fastscreen was restarted meanwhile"
        last: Outcome | None = getattr(status, what)
        if last is not None and last.finished >= number:
            return last.ok, last.text
    return False, f"{what}: no outcome yet; it may still be under way: see `fastscreen status` and the log"


def restarted(path: str, end: float) -> tuple[bool, str]:
    """Ask for `restart`, and wait until another daemon answers, or this one has refused."""
    before = client.ask(path, RestartRequest())
    while time.monotonic() < end:
        time.sleep(PAUSE)
        try:
            status = client.ask(path, StatusRequest())
        except Unreachable:
            continue
        if status.started != before.started:
            return True, f"restarted: fastscreen {status.version}, process {status.pid}"
        if before.number and status.restart is not None and status.restart.finished >= before.number:
            return status.restart.ok, status.restart.text
    return False, "restart: no new fastscreen has answered in time; see the log"


def stopped(path: str, end: float) -> tuple[bool, str]:
    """Ask for `stop`, and wait until nothing listens at the socket."""
    before = client.ask(path, StopRequest())
    while time.monotonic() < end:
        time.sleep(PAUSE)
        if not _listens(path):
            return True, f"stopped: process {before.pid}"
    return False, "stop: some sessions have not ended yet; run `fastscreen stop` again to end them at once"


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            return True
        except OSError:
            return False
    return True
