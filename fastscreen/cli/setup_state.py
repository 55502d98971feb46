"""What `fastscreen setup` has written: a small file next to the configuration, which `setup --undo` reads."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from fastscreen.atomicfile import replace_file, sync_folder
from fastscreen.escaping import escape_text

NAME = "setup.json"
_MODE = 0o600  # it contains what the files had before
_VERSION = 1


class StateError(Exception):
    """The state cannot be read, or a file cannot be written. The message is one line."""


class Found(Enum):
    """What is in a file now."""

    BEFORE = "as it was before setup"
    WRITTEN = "as setup wrote it"
    CHANGED = "changed since"


class FileChange(Struct):
    """One file that setup changes. before: its content, or None if it did not exist. written: SHA-256 of everything
    that setup writes there, step by step. access: its user, group and mode before, if setup changes these too.
    """

    path: str
    before: bytes | None
    written: list[str] = []
    access: tuple[int, int, int] | None = None

    def found(self) -> Found:
        """What is there now. Raises StateError."""
        content = content_of(Path(self.path))
        if content == self.before:
            return Found.BEFORE
        if content is not None and digest(content) in self.written:
            return Found.WRITTEN
        return Found.CHANGED

    def put(self, content: bytes | None, *, mode: int = 0o640, owner: tuple[int, int] | None = None) -> None:
        """Write the file, or delete it. Raises StateError.

        An existing file keeps its owner, group and mode, unless setup changes these; then they are restored with the
        content.
        """
        path = Path(self.path)
        try:
            if content is None:
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
                return
            if content == self.before and self.access is not None:
                owner, mode = self.access[:2], self.access[2]
            elif path.exists() and self.access is None:
                before = path.stat()
                owner, mode = (before.st_uid, before.st_gid), stat.S_IMODE(before.st_mode)
            replace_file(path, content, mode=mode, owner=owner)
        except OSError as error:
            raise StateError(f"{escape_text(self.path, 500)}: cannot be written: {error.strerror}") from None


class State(Struct):
    """Everything that setup changes, recorded before it is changed.

    config, master: the files; master is None without Postfix. postfix: its configuration folder. listen: the addresses
    that fastscreen takes over from Postfix; proxied: with the PROXY protocol. folder_made: the configuration's folder
    is new. drop_in: the file for systemd's unit; drop_in_folder_made: its folder is new. units: systemd units that were
    enabled. started: fastscreen was started, by systemd or without it.
    """

    config: FileChange
    master: FileChange | None = None
    postfix: str = ""
    listen: list[str] = []
    proxied: bool = False
    folder_made: bool = False
    drop_in: FileChange | None = None
    drop_in_folder_made: bool = False
    units: list[str] = []
    started: bool = False
    version: int = _VERSION

    def save(self) -> None:
        """Write it to the disk. Raises StateError."""
        path = path_of(Path(self.config.path))
        try:
            replace_file(path, msgspec.json.format(msgspec.json.encode(self)) + b"\n", mode=_MODE)
        except OSError as error:
            raise StateError(f"{escape_text(str(path), 500)}: cannot be written: {error.strerror}") from None


def path_of(config: Path) -> Path:
    """The state file of a configuration."""
    return config.with_name(NAME)


def load(config: Path) -> State | None:
    """The state next to a configuration; None: setup has not run, or was reverted. Raises StateError."""
    path = path_of(config)
    content = content_of(path)
    if content is None:
        return None
    shown = escape_text(str(path), 500)
    try:
        state = msgspec.json.decode(content, type=State)
    except msgspec.DecodeError as error:
        raise StateError(f"{shown}: damaged: {error}; revert by hand as docs/setup.md describes") from None
    if state.version != _VERSION:
        raise StateError(f"{shown}: written by another version of fastscreen; use that version for --undo")
    if Path(state.config.path) != config:
        raise StateError(f"{shown}: is about {escape_text(state.config.path, 500)}; expected -c with this path")
    return state


def forget(state: State) -> None:
    """Delete the state, and its folder if setup made that and nothing else is in it. Raises StateError."""
    path = path_of(Path(state.config.path))
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        if state.folder_made:
            path.parent.rmdir()
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise StateError(f"{escape_text(str(path), 500)}: cannot be deleted: {error.strerror}") from None


def content_of(path: Path) -> bytes | None:
    """A file's content; None if it does not exist. Raises StateError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{escape_text(str(path), 500)}: cannot be read: {error.strerror}") from None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def real(path: Path) -> Path:
    """The file itself, without symbolic links in its path: it is replaced, not the link."""
    return Path(os.path.realpath(path))
