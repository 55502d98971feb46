"""Checks of [feedback]: whether the daemon's user can read the MTA's log."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from fastscreen.config import Config
from fastscreen.config.feedback_kinds import JOURNAL
from fastscreen.escaping import escape_text
from fastscreen.feedback.journal import COMMAND
from fastscreen.process.file_type import file_type

JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))
_GROUP = "add this user to a group that may, such as adm"
_JOURNAL_GROUP = "add this user to the group systemd-journal"

Found = tuple[str, bool, str]
"""The fields of check.Check."""


def checked_feedback(config: Config, user: str) -> Iterator[Found]:
    """As the daemon's user. user: who this is."""
    if not config.feedback.log:
        return
    yield _journal(user) if config.feedback.log == JOURNAL else _file(config.feedback.log, user)


def _file(log: str, user: str) -> Found:
    path, name = Path(log), escape_text(log)
    try:
        kind = file_type(path)
        if not kind:
            return "feedback.log", False, f"{name} does not exist"
        if kind != stat.S_IFREG:
            return "feedback.log", False, f"{name} is not a file"
        if not os.access(path, os.R_OK, effective_ids=True):
            return "feedback.log", False, f"{name}: {user} may not read it; {_GROUP}"
    except OSError as error:
        return "feedback.log", False, f"{name}: {user}: {error.strerror}"
    return "feedback.log", True, name


def _journal(user: str) -> Found:
    if shutil.which(COMMAND[0]) is None:
        return "feedback.log", False, f"{COMMAND[0]} is not installed; expected systemd, or the path of a file"
    there = [path for path in JOURNALS if path.is_dir()]
    if not there:
        return "feedback.log", False, "there is no journal"
    # Each user may read its own journal. The one of the system is in a folder per machine, together with it.
    files = [file for path in there for file in path.glob("*/system.journal")]
    if not any(os.access(file, os.R_OK, effective_ids=True) for file in files):
        return "feedback.log", False, f"journal: {user} may not read it; {_JOURNAL_GROUP}"
    return "feedback.log", True, "journal"
