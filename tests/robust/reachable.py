"""Lets the daemon's user execute the interpreter even if it is in a folder that only root can read, as /root/.pyenv.

A restart executes the program as that user. In a new mount namespace, closed folders on the path are replaced by open
ones that contain only what is needed. Without such folders, nothing is done.
"""

import sys
from pathlib import Path

from robust.harness import COMMAND, USER


def closed_folder(path: Path) -> Path | None:
    """The highest folder on the way that others may not enter."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def needed() -> set[Path]:
    """What the program is made of."""
    roots = {Path(sys.base_prefix), Path(sys.prefix), COMMAND.parent, Path(__file__).resolve().parents[2]}
    return {found.resolve() for found in roots}


def lines(folder: Path) -> list[str]:
    """Shell commands that open the way, with `folder` for what is out of the way meanwhile."""
    commands: list[str] = []
    entries: dict[Path, set[str]] = {}
    for path in needed() if USER else ():
        if (closed := closed_folder(path)) is not None:
            entries.setdefault(closed, set()).add(path.relative_to(closed).parts[0])
    for number, (closed, names) in enumerate(sorted(entries.items())):
        aside = folder / f"aside{number}"
        aside.mkdir(exist_ok=True)
        commands += [f"mount --rbind '{closed}' '{aside}'", f"mount -t tmpfs -o mode=0755 none '{closed}'"]
        for name in sorted(names):
            commands += [f"mkdir '{closed / name}'", f"mount --rbind '{aside / name}' '{closed / name}'"]
    return commands


def wrap(program: Path, folder: Path) -> Path:
    """A program that runs this one where its user can execute it. It keeps its process ID."""
    commands = lines(folder)
    if not commands:
        return program
    wrapper = folder / "reachable"
    inner = folder / "reachable.inner"
    inner.write_text("#!/bin/sh\nset -e\n" + "\n".join(commands) + f"\nexec '{program}' \"$@\"\n")
    wrapper.write_text(f"#!/bin/sh\nexec unshare -m '{inner}' \"$@\"\n")
    for made in (wrapper, inner):
        made.chmod(0o755)
    return wrapper
