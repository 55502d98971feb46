"""What `fastscreen check` says about [history]."""

import os
from pathlib import Path

import pytest

from fastscreen import config
from fastscreen.cli.check_history import checked_history
from fastscreen.history import day


def check(path: Path | str, *, root: bool = False, max_size: str = "16M") -> list[tuple[object, ...]]:
    found = config.parse(f'[history]\npath = "{path}"\nmax_size = "{max_size}"\n', "x.toml")
    return [(*each, False)[:4] for each in checked_history(found, root, "user nobody")]


def test_no_history() -> None:
    assert check("") == []


@pytest.mark.parametrize("root", [False, True])
def test_a_folder_that_will_be_made(tmp_path: Path, root: bool) -> None:
    first, space = check(tmp_path / "a" / "b", root=root)
    assert first == ("history.path", True, f"{tmp_path / 'a' / 'b'} will be created", False)
    assert space[:2] == ("history.max_size", True)


def test_what_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    first, _ = check(tmp_path / "file" / "history")
    assert first == ("history.path", False, f"{tmp_path / 'file'} is not a directory", False)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    first, _ = check(tmp_path / "history")
    text = f"{tmp_path / 'history'}: user nobody may not write to {tmp_path}"
    assert first == ("history.path", False, text, False)


def test_its_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    names = ("2026-11-28.sqlite", "2026-11-29.sqlite", "2026-11-30.sqlite")
    for name in names:
        day.create(tmp_path / name).close()
    (tmp_path / names[0]).rename(tmp_path / f"{names[0]}.damaged")
    with (tmp_path / names[1]).open("r+b") as file:
        file.seek(60)
        file.write(b"\0\0\0\2")
    (tmp_path / names[2]).write_bytes(b"x")
    files = check(tmp_path)[:-1]
    assert files[:4] == [
        ("history.path", True, f"{tmp_path}: others than its owner may use it; expected mode 0700", True),
        (
            "history.path",
            True,
            f"{tmp_path / names[0]}.damaged: was damaged and set aside; its sessions are not shown",
            True,
        ),
        ("history.path", True, f"{tmp_path / names[1]}: version 2; expected 1; its sessions are not shown", True),
        ("history.path", False, f"{tmp_path / names[2]}: file is not a database", False),
    ]
    assert str(files[4][2]).startswith(f"{tmp_path}: 3 files, ") and len(files) == 5
    assert {path.name for path in tmp_path.iterdir()} == {f"{names[0]}.damaged", *names[1:]}, "nothing is changed"


def test_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    found = list(os.statvfs(tmp_path))
    found[1], found[2], found[4] = 4096, 8192, 6144  # 32 MiB, of which 24 MiB are free and 8 are left to others
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    assert check(tmp_path)[-1] == (
        "history.max_size",
        True,
        "16.8 MB of the file system may be used; 8.4 MB is left to others",
        False,
    )
    assert check(tmp_path, max_size="64M")[-1] == (
        "history.max_size",
        False,
        "the files may become 67.1 MB larger, but only 16.8 MB of the file system may be used, "
        "because 8.4 MB is left to others; older files are deleted",
        False,
    )
