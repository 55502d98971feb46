"""Which users may have changed the target of a path."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import needs

from fastscreen.process import safe_open
from fastscreen.process.safe_open import Account, acting_as, located, may_others_write, may_write, open_to_read

NOBODY = Account(65534, 65534, frozenset({65534}))


def folder_like(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "others", "user"),
    [
        (0o755, 0, 0, False, False),
        (0o775, 0, 0, False, False),
        (0o775, 0, 4, True, False),
        (0o775, 0, 65534, True, True),
        (0o755, 0, 65534, False, False),
        (0o777, 0, 0, True, True),
        (0o755, 65534, 0, True, True),
        (0o555, 65534, 0, True, True),  # it is the owner's to change the mode
        (0o700, 1, 1, True, False),
    ],
)
def test_who_may_write_to_a_folder(mode: int, uid: int, gid: int, others: bool, user: bool) -> None:
    folder = folder_like(mode, uid, gid)
    assert (may_others_write(folder), may_write(folder, NOBODY)) == (others, user)


@given(st.integers(0, 0o1777), st.sampled_from([0, 1, 65534]), st.sampled_from([0, 1, 65534]))
def test_what_the_user_may_write_to_others_may(mode: int, uid: int, gid: int) -> None:
    folder = folder_like(mode, uid, gid)
    assert may_others_write(folder) or not may_write(folder, NOBODY)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of root's that all users can read."""
    needs.root("files of several owners")
    made = tmp_path_factory.mktemp("roots")
    opened = [each for each in (made, *made.parents) if each.stat().st_uid == 0 and each.stat().st_mode & 0o77 == 0]
    for each in opened:
        each.chmod(0o711)
    yield made
    for each in opened:
        each.chmod(0o700)


def told(path: Path, who: Account | None = NOBODY) -> str:
    """What is known about a path, as text."""
    with located(str(path), who) as location:
        words = ("root_only", "safe_from_user", "untrusted_link", "user_link")
        true = [word for word in words if getattr(location, word)]
        return " ".join(["there" if location.found is not None else "new", *true])


def test_paths_that_lead_where_root_says(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "link").symlink_to("deep/../file")
    (folder / "deep").mkdir()
    (folder / "deep/absolute").symlink_to(folder / "link")
    for path in (folder / "file", folder / "link", folder / "deep/absolute", folder / "deep/.."):
        assert told(path) == "there root_only safe_from_user"
        assert told(path, None) == "there root_only safe_from_user"
    assert told(folder / "deep/new") == "new root_only safe_from_user"
    with located(str(folder / "deep/absolute"), NOBODY) as location:
        assert location.name == "file"
        assert os.path.samestat(os.fstat(location.folder), folder.stat())


def test_paths_that_another_user_may_have_changed(folder: Path) -> None:
    for name, uid in (("users", 65534), ("thirds", 1)):
        own = folder / name
        own.mkdir()
        (own / "link").symlink_to(folder / "users")
        (own / "file").touch()
        os.chown(own, uid, uid)
    assert told(folder / "users/file") == "there"
    assert told(folder / "users/new") == "new"
    assert told(folder / "users/link/file") == "there untrusted_link user_link"
    assert told(folder / "thirds/file") == "there safe_from_user"
    assert told(folder / "thirds/new") == "new safe_from_user"
    assert told(folder / "thirds/link/file") == "there untrusted_link"


def test_sticky_folders(folder: Path) -> None:
    """In /tmp all users can create files, but only the owner can replace one."""
    folder.chmod(0o1777)
    for name, uid in (("roots", 0), ("users", 65534), ("thirds", 1)):
        (folder / name).touch()
        os.chown(folder / name, uid, uid)
    assert told(folder / "roots") == "there root_only safe_from_user"
    assert told(folder / "users") == "there"
    assert told(folder / "thirds") == "there safe_from_user"
    assert told(folder / "new") == "new"
    folder.chmod(0o755)


def test_paths_without_an_end(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        told(folder / "one")
    with pytest.raises(FileNotFoundError):
        told(folder / "none/file")
    (folder / "file").touch()
    with pytest.raises(NotADirectoryError):
        told(folder / "file/file")


def test_links_of_proc_are_left_to_the_kernel() -> None:
    with located("/proc/self/fd/0", None) as location:
        assert (location.magic, location.name) == (True, "0")


@pytest.mark.parametrize("where", ["roots", "users"])
def test_what_is_read_for_a_user(folder: Path, where: str) -> None:
    """Root's own file is read in any folder; in a user's folder, a file is not read through a link of either kind."""
    place = folder / where
    place.mkdir()
    secret = folder / "secret"
    own = place / "own"
    for file in (secret, own):
        file.touch()
        file.chmod(0o600)
    (place / "link").symlink_to(secret)
    (place / "second").hardlink_to(secret)
    if where == "users":
        os.chown(place, 65534, 65534)
    os.close(open_to_read(str(own), NOBODY, acting_as))
    for name in ("link", "second"):
        path = str(place / name)
        if where == "roots":
            os.close(open_to_read(path, NOBODY, acting_as))
        else:
            with pytest.raises(PermissionError):
                open_to_read(path, NOBODY, acting_as)
    assert os.geteuid() == 0


def test_folder_that_is_replaced_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the step into it: what was judged is what is entered."""
    (folder / "one").mkdir()
    (folder / "other").mkdir()
    enter = safe_open._enter

    def swapped(location: safe_open.Location, name: str) -> None:
        if name == "one":
            (folder / "one").rmdir()
            (folder / "other").rename(folder / "one")
        enter(location, name)

    monkeypatch.setattr(safe_open, "_enter", swapped)
    with pytest.raises(OSError, match="replaced meanwhile"):
        told(folder / "one/file")
