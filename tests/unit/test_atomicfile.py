"""Files that are replaced whole, or not at all."""

import os
import stat
from pathlib import Path

import pytest

from fastscreen.atomicfile import default_mode, replace_file, sole_writer


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o600)
    with path.open() as reader:
        replace_file(path, b"after")
        assert reader.read() == "before"  # a process that has it open keeps the old file
    assert path.read_bytes() == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory") as caught:
        replace_file(tmp_path / "none" / "file", b"x")
    assert caught.value.filename == str(tmp_path / "none" / "file")


def test_one_refresh_at_a_time(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(BlockingIOError), sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        pass


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"first", overwrite=False)
    with pytest.raises(FileExistsError) as caught:
        replace_file(path, b"second", overwrite=False)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"x", mode=0o640, owner=(65534, 1))
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 65534, 1)


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError, match="No space left") as caught:
            replace_file(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_two_writers_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second writer begins and ends while the first is not finished: each has its own new file."""
    path = tmp_path / "file"
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        replace_file(path, b"second")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    replace_file(path, b"first")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_mode_of_a_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert default_mode() == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
