"""When changed table files are read again, with the clock and the files of the test's."""

from pathlib import Path

from fastscreen.tables import open_table
from fastscreen.tables.file_watch import LOOK_SECONDS, RESTLESS_SECONDS, RETRY_SECONDS, TableWatch, Version, look_at
from fastscreen.tables.lines import recorded_files
from fastscreen.tables.mynetworks import read_networks


class Disk:
    """Files with versions, a clock, and a watch that is asked whenever it wants to be."""

    def __init__(self) -> None:
        self.files: dict[str, int | None] = {"a": 1, "b": 1}
        self.used: dict[str, Version] = {"a": _version(1), "b": _version(1)}
        self.now = 100.0
        self.watch = TableWatch(self._look_at)
        assert self.look() == []

    def _look_at(self, path: str) -> Version | None:
        number = self.files[path]
        return None if number is None else _version(number)

    def look(self) -> list[str]:
        """One look, when it is due."""
        self.now = max(self.now, self.watch.due)
        return self.watch.look(self.now, self.used)

    def read(self) -> None:
        self.used = {path: _version(number) for path, number in self.files.items() if number is not None}
        self.watch.read()


def _version(number: int) -> Version:
    return (number, 0, 0, 0)


def test_a_changed_file_is_read_when_it_is_at_rest() -> None:
    disk = Disk()
    disk.files["a"] = 2
    assert disk.look() == []
    disk.files["a"] = 3
    assert disk.look() == []
    assert disk.look() == ["a"]
    disk.read()
    assert disk.look() == []
    assert disk.watch.due == disk.now + LOOK_SECONDS
    assert disk.watch.look(disk.now + LOOK_SECONDS / 2, {"a": _version(9)}) == []  # not due


def test_several_at_a_time() -> None:
    disk = Disk()
    disk.files["b"] = 2
    disk.look()
    disk.files["a"] = 2
    assert disk.look() == []
    assert disk.look() == ["a", "b"]


def test_a_broken_edit_is_tried_once_until_the_file_changes_again() -> None:
    disk = Disk()
    disk.files["a"] = 2
    disk.look()
    assert disk.look() == ["a"]
    disk.watch.refused(disk.now)
    for _ in range(int(RETRY_SECONDS / LOOK_SECONDS) - 1):
        assert disk.look() == []
    disk.files["a"] = 3
    assert disk.look() == []
    assert disk.look() == ["a"]


def test_a_broken_edit_is_tried_after_a_while_for_its_cause_may_be_in_another_file() -> None:
    disk = Disk()
    disk.files["a"] = 2
    disk.look()
    assert disk.look() == ["a"]
    disk.watch.refused(disk.now)
    disk.now += RETRY_SECONDS
    assert disk.look() == ["a"]
    disk.watch.refused(disk.now)
    assert disk.look() == []


def test_taken_back_is_read_too_for_the_fault_is_over() -> None:
    disk = Disk()
    disk.files["a"] = None
    disk.look()
    assert disk.look() == ["a"]
    disk.watch.refused(disk.now)
    disk.files["a"] = 1
    assert disk.look() == []
    assert disk.look() == ["a"]
    disk.read()
    assert disk.look() == []


def test_one_that_never_rests_is_read_after_all() -> None:
    disk = Disk()
    number, began = 1, disk.now
    while True:
        number += 1
        disk.files["a"] = number
        if disk.look():
            break
    assert RESTLESS_SECONDS <= disk.now - began <= RESTLESS_SECONDS + 2 * LOOK_SECONDS
    disk.read()
    disk.files["a"] = number + 1
    assert disk.look() == []


def test_every_file_that_is_read_is_recorded_also_those_that_files_name(tmp_path: Path) -> None:
    outer, inner, table = tmp_path / "outer", tmp_path / "inner", tmp_path / "table"
    inner.write_text("192.0.2.0/24\n")
    outer.write_text(f"198.51.100.1\n{inner}\n")
    table.write_text("192.0.2.1 permit\n")
    with recorded_files() as files:
        read_networks([str(outer)], "access.mynetworks")
        open_table(f"cidr:{table}")
        open_table(f"texthash:{table}")
        open_table("inline:{a=b}")
    assert set(files) == {str(outer), str(inner), str(table)}
    assert all(look_at(path) == version for path, version in files.items())
    table.chmod(0o600)
    table.write_text("192.0.2.2 permit\n")
    assert look_at(str(table)) != files[str(table)]
    open_table(f"cidr:{table}")
    assert len(files) == 3
    assert look_at(str(tmp_path / "none")) is None
