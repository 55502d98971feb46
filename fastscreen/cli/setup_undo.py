"""fastscreen setup --undo: puts everything back as it was before setup, also after an interrupted one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastscreen.cli import setup_service as service
from fastscreen.cli.setup_service import PostfixCommand, ServiceError
from fastscreen.cli.setup_state import FileChange, Found, State, StateError, content_of, forget
from fastscreen.config import Endpoint, kinds
from fastscreen.escaping import escape_text, printable
from fastscreen.postfix import files, listening, master_cf
from fastscreen.postfix.files import ReadError

Tell = Callable[[str], None]


class Refused(Exception):
    """Nothing was changed. lines: why, and what to do."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def undo(state: State, *, keep_changed: bool, tell: Tell) -> None:
    """Revert, or change nothing: Refused. Raises StateError and ServiceError with the reason if it failed halfway.

    keep_changed: leave files as they are that somebody has changed since.

    The order keeps port 25 served: master.cf is written first, because Postfix reads it only at its reload; if that
    fails, fastscreen still has the port. Postfix is reloaded only after the port is free: it ends when it finds a port
    in use.
    """
    kept = _kept(state, keep_changed)
    revert_services(state, tell, kept)
    config = state.config
    if config not in kept:
        before = config.found() is Found.BEFORE
        config.put(config.before)
        if not before:
            tell(f"{'deleted' if config.before is None else 'restored'}: {escape_text(config.path, 500)}")
    forget(state)


def revert_services(state: State, tell: Tell, kept: Sequence[FileChange] = ()) -> None:
    """master.cf, fastscreen, its unit, and Postfix as before. Raises StateError, ServiceError."""
    master = state.master
    postfix = PostfixCommand(Path(state.postfix)) if state.postfix else None
    listen = addresses_of(state)
    written = None
    if master is not None and master not in kept and master.found() is Found.WRITTEN:
        written = content_of(Path(master.path))
        master.put(master.before)
        tell(f"restored: {escape_text(master.path, 500)}")
    if state.started:
        _stop(state, tell)
    if state.drop_in is not None and state.drop_in not in kept:
        _remove_drop_in(state, state.drop_in, tell)
    if state.started or written is not None:
        _wait_for_port(state, listen, written, tell)
    state.started, state.units = False, []
    state.save()
    if postfix is not None and master is not None and not postfix.is_running():
        tell("Postfix is not running; it reads master.cf when it starts")
    elif postfix is not None and master is not None:
        if strangers := service.users_of(listen) - service.OF_POSTFIX:
            raise ServiceError(f"{_in_use(listen)}, and Postfix would end at its reload: stop {', '.join(strangers)}")
        postfix.reload()
        tell("reloaded: Postfix")
        if listen:
            service.wait_for_greeting(listen[0], lambda: "", proxied=state.proxied)
            tell(f"Postfix answers at {listen[0]}")


def _wait_for_port(state: State, listen: list[Endpoint], written: bytes | None, tell: Tell) -> None:
    """Wait until fastscreen has released the port: Postfix would end if it found the port in use.

    It may still have the port itself, if setup was interrupted before.
    """
    if not state.started and service.users_of(listen) & {"master"}:
        return
    if service.wait_until_free(listen, service.FREE_TIME, tell):
        return
    if state.master is not None and written is not None:
        state.master.put(written)
    raise ServiceError(f"{_in_use(listen)}: end that program")


def _in_use(listen: Sequence[Endpoint]) -> str:
    by = ", ".join(sorted(service.users_of(listen)))
    return f"{' and '.join(map(str, listen))}: in use{f' by {by}' if by else ''}"


def addresses_of(state: State) -> list[Endpoint]:
    """Those that fastscreen took over from Postfix."""
    return [kinds.Address(25).parse(each) for each in state.listen]


def _stop(state: State, tell: Tell) -> None:
    if state.units:
        service.disable(state.units)
    else:
        service.stop(Path(state.config.path))
    tell("stopped: fastscreen")


def _remove_drop_in(state: State, drop_in: FileChange, tell: Tell) -> None:
    """Raises StateError, ServiceError. Also after an interruption, when systemd may still have to read its units."""
    if drop_in.found() is Found.WRITTEN:
        drop_in.put(drop_in.before)
        tell(f"{'deleted' if drop_in.before is None else 'restored'}: {escape_text(drop_in.path, 500)}")
    if state.drop_in_folder_made:
        with contextlib.suppress(OSError):  # it has other files, or was never made
            Path(drop_in.path).parent.rmdir()
    service.reload_units()


def _kept(state: State, keep_changed: bool) -> list[FileChange]:
    """Files that were changed since and stay as they are. Raises Refused."""
    lines: list[str] = []
    kept: list[FileChange] = []
    for change in (state.config, state.master, state.drop_in):
        if change is None or change.found() is not Found.CHANGED:
            continue
        kept.append(change)
        shown = escape_text(change.path, 500)
        if change is state.master:
            lines.append(f"{shown}: was changed after setup; undo would lose that change")
            lines += _what_to_do(state, change)
        else:
            lines.append(f"{shown}: was changed after setup; undo would lose that change")
            lines.append(
                "  to keep it: fastscreen setup --undo --keep-changed; otherwise delete the file, and run --undo again"
                if change.before is None
                else "  to keep it: fastscreen setup --undo --keep-changed"
            )
    if not lines:
        return []
    if not keep_changed:
        raise Refused([*lines, "nothing was changed"])
    if state.master in kept and state.listen and not _serves_smtp(Path(state.postfix)):
        assert state.master is not None
        raise Refused(
            [
                f"{escape_text(state.master.path, 500)}: no service listens on port 25, so mail could not arrive",
                *_what_to_do(state, state.master),
                "nothing was changed",
            ]
        )
    return kept


def _what_to_do(state: State, master: FileChange) -> list[str]:
    """How to go back to Postfix by hand: the lines in which the file differs from the one before setup."""
    now = content_of(Path(master.path)) or b""
    found = master_cf.unified(now, master.before or b"", master.path)
    return [
        "  make these changes as far as they are those of setup, then run: fastscreen setup --undo --keep-changed",
        *(f"    {line}" for line in found),
    ]


def _serves_smtp(folder: Path) -> bool:
    """Whether Postfix has a service on port 25."""
    path = folder / "master.cf"
    try:
        services = files.services(files.read(path), escape_text(str(path), 500))
    except ReadError:
        return False
    return any(each.kind == "inet" and listening.is_smtp(each) for each in services) or bool(
        [each for each in services if each.command == "postscreen"]
    )


def run(state: State, *, keep_changed: bool, tell: Tell) -> int:
    """Undo, report, return the exit code."""
    try:
        undo(state, keep_changed=keep_changed, tell=tell)
    except Refused as error:
        for line in error.lines:
            print(f"fastscreen: {line}", file=sys.stderr)
        return 1
    except (StateError, ServiceError) as error:
        print(f"fastscreen: {printable(str(error))}; fix this, and run fastscreen setup --undo again", file=sys.stderr)
        return 1
    return 0
