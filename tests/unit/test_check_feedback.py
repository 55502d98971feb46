"""What `fastscreen check` says about [feedback]."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fastscreen import config
from fastscreen.cli import check_feedback
from fastscreen.cli.check_feedback import checked_feedback


def check(log: Path | str) -> list[tuple[str, bool, str]]:
    text = f'[score]\nmemory = "/x/offenses"\n[feedback]\nlog = "{log}"\n' if log else ""
    return list(checked_feedback(config.parse(text, "x.toml"), "user nobody"))


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "mail.log"
    assert check("") == []
    assert check(log) == [("feedback.log", False, f"{log} does not exist")]
    log.mkdir()
    assert check(log) == [("feedback.log", False, f"{log} is not a file")]
    log.rmdir()
    log.touch()
    assert check(log) == [("feedback.log", True, str(log))]
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    text = f"{log}: user nobody may not read it; add this user to a group that may, such as adm"
    assert check(log) == [("feedback.log", False, text)]


def test_a_folder_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(check_feedback, "file_type", refused)
    assert check(tmp_path) == [("feedback.log", False, f"{tmp_path}: user nobody: Permission denied")]


def test_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    text = "journalctl is not installed; expected systemd, or the path of a file"
    assert check("journal") == [("feedback.log", False, text)]
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/journalctl")
    monkeypatch.setattr(check_feedback, "JOURNALS", (tmp_path / "journal", tmp_path / "none"))
    assert check("journal") == [("feedback.log", False, "there is no journal")]
    file = tmp_path / "journal" / "0123456789abcdef" / "system.journal"
    file.parent.mkdir(parents=True)
    text = "journal: user nobody may not read it; add this user to the group systemd-journal"
    assert check("journal") == [("feedback.log", False, text)]
    file.touch()
    assert check("journal") == [("feedback.log", True, "journal")]
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert check("journal") == [("feedback.log", False, text)]
