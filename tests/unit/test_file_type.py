"""What a path leads to, also for a user that may not look."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen.cli import cache_import, control_socket
from fastscreen.config import ConfigError, parse
from fastscreen.postfix import verify
from fastscreen.process.file_type import file_type

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def out_of_reach() -> Iterator[Path]:
    """A file, seen by a user that may not enter its folder."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "closed" / "inner"
        folder.mkdir(parents=True)
        folder.parent.chmod(0o700)
        (folder / "file").touch()
        os.seteuid(65534)
        try:
            yield folder / "file"
        finally:
            os.seteuid(0)


def test_types(tmp_path: Path) -> None:
    file, link, loop, address = (tmp_path / name for name in ("file", "link", "loop", "socket"))
    file.touch()
    link.symlink_to(file)
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
    assert [file_type(path) for path in (file, link, address, tmp_path)] == [
        stat.S_IFREG, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFDIR,
    ]  # fmt: skip
    assert file_type(link, follow_symlinks=False) == stat.S_IFLNK
    assert [file_type(path) for path in (tmp_path / "none", file / "inner", loop)] == [0, 0, 0]


@needs_root
def test_a_file_out_of_reach_is_not_missing(out_of_reach: Path) -> None:
    with pytest.raises(PermissionError):
        file_type(out_of_reach)


@needs_root
def test_a_socket_out_of_reach_is_tried(out_of_reach: Path) -> None:
    assert control_socket.is_there(str(out_of_reach))


@needs_root
def test_a_configuration_out_of_reach_is_not_replaced_by_the_defaults(
    out_of_reach: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "USUAL_FILE", out_of_reach)
    with pytest.raises(ConfigError, match="Permission denied"):
        cache_import._configuration(Namespace(config=None, socket=None))


@needs_root
def test_a_log_out_of_reach_stays_in_an_imported_configuration(out_of_reach: Path) -> None:
    """The daemon opens it as root."""
    (problem,) = verify._log(parse(f'[log]\nto = "file:{out_of_reach}"\n', "test"))
    assert (problem.denied, problem.text) == (True, f"{out_of_reach}: Permission denied")
