"""The folder of the history: which files it has, and what is damaged set aside under another name."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from msgspec import Struct

from fastscreen.history import day
from fastscreen.history.day import Part

SET_ASIDE = ".damaged"
_SIDECAR = re.compile(r"(.+?)(?:-wal|-shm|-journal)")
_DAMAGED = re.compile(rf"(.+){re.escape(SET_ASIDE)}[0-9]*")
_DRAFT = re.compile(r"\..+\.([0-9]+)\.new(?:-journal|-wal|-shm)?")


class Entry(Struct, frozen=True):
    """A file of the history. size: bytes, with what SQLite keeps next to it. is_damaged: it was set aside."""

    path: Path
    part: Part
    size: int
    is_damaged: bool = False


def entries(folder: Path) -> list[Entry]:
    """All files of the history, the oldest first. OSError."""
    sizes: dict[str, int] = {}
    with os.scandir(folder) as found:
        for each in found:
            with contextlib.suppress(FileNotFoundError):
                if each.is_file(follow_symlinks=False):
                    sizes[each.name] = each.stat(follow_symlinks=False).st_size
    totals: dict[str, int] = {}
    for name, size in sizes.items():
        sidecar = _SIDECAR.fullmatch(name)
        owner = sidecar[1] if sidecar is not None and sidecar[1] in sizes else name
        totals[owner] = totals.get(owner, 0) + size
    entries = []
    for name, size in totals.items():
        damaged = _DAMAGED.fullmatch(name)
        part = day.part_of(folder / (damaged[1] if damaged is not None else name))
        if part is not None:
            entries.append(Entry(folder / name, part, size, damaged is not None))
    return sorted(entries, key=lambda entry: (entry.part, entry.path.name))


def next_part(folder: Path, found: Sequence[Entry], wanted: date) -> Part:
    """A part of a day that does not exist, neither in use nor set aside, and of which nothing is left: SQLite would
    take what is next to the file for its own. A name that is not a file's is not used either.
    """
    part = Part(wanted, max((entry.part.number for entry in found if entry.part.day == wanted), default=0) + 1)
    while any(os.path.lexists(each) for each in day.with_sidecars(part.path(folder))):
        part = Part(wanted, part.number + 1)
    return part


def last_part(found: Sequence[Entry], wanted: date) -> Path | None:
    """The last part of a day."""
    of_day = [entry for entry in found if entry.part.day == wanted and not entry.is_damaged]
    return of_day[-1].path if of_day else None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, with what SQLite keeps next to it. Return its new name. OSError."""
    number = 1
    while (target := path.with_name(f"{path.name}{SET_ASIDE}{number if number > 1 else ''}")).exists():
        number += 1
    path.rename(target)
    for sidecar, renamed in zip(day.with_sidecars(path)[1:], day.with_sidecars(target)[1:], strict=True):
        with contextlib.suppress(FileNotFoundError):
            sidecar.rename(renamed)
    return target


def remove_remains(folder: Path) -> None:
    """Remove drafts of processes that were killed, and what SQLite kept next to files that are gone. OSError."""
    for path in folder.iterdir():
        sidecar = _SIDECAR.fullmatch(path.name)
        owner = folder / sidecar[1] if sidecar is not None else None
        is_left = owner is not None and day.part_of(owner) is not None and not owner.exists()
        draft = _DRAFT.fullmatch(path.name)
        if is_left or (draft is not None and not Path("/proc", draft[1]).exists()):
            path.unlink(missing_ok=True)
