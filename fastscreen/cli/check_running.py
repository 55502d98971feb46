"""Compares a configuration with the one that a running fastscreen uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastscreen.cli import control_socket
from fastscreen.config import Config
from fastscreen.config.changes import changes, fingerprints
from fastscreen.control.client import Absent, ControlError
from fastscreen.control.messages import RunningConfig
from fastscreen.escaping import escape_text

RUNNING = "running fastscreen"
"""What these checks are about, where it is not a key."""


def checked_running(config: Config) -> Iterator[tuple[str, bool, str, bool]]:
    """What differs, and what it takes to apply it. Nothing of this is a fault of the configuration.

    The fastscreen that answers at control.path is asked, so one that uses another path is not found.
    """
    path = config.control.path
    if not path:
        return
    try:
        running = control_socket.asked(path, "config", RunningConfig)
    except Absent:
        yield RUNNING, True, f"none at {escape_text(path)}, nothing to compare with", False
        return
    except ControlError as error:
        yield RUNNING, True, f"not compared: {escape_text(str(error), 500)}", False
        return
    found = changes(running.fingerprints, fingerprints(config))
    if running.source and Path(running.source).resolve() != Path(config.source).resolve():
        yield RUNNING, True, f"it reads another file, {escape_text(running.source, 500)}", bool(found)
    for change in found:
        yield change.key, True, f"differs from the running fastscreen; to apply it, {change.remedy}", True
    if not found:
        yield RUNNING, True, "uses the same configuration", False
