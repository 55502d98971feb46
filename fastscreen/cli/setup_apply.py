"""Carries out the plan of `fastscreen setup`, in an order that keeps port 25 served, and reverts it if a step fails."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from fastscreen.cli import import_postfix, setup_undo, setup_unit
from fastscreen.cli import setup_service as service
from fastscreen.cli.setup_plan import MasterChange, Plan
from fastscreen.cli.setup_service import Background, PostfixCommand, ServiceError
from fastscreen.cli.setup_state import FileChange, State, StateError, content_of, digest, real
from fastscreen.cli.setup_unit import Unit
from fastscreen.escaping import escape_text, printable

MODE = 0o640
_FOLDER_MODE = 0o755
_DROP_IN_MODE = 0o644

Tell = Callable[[str], None]


class ApplyError(Exception):
    """A step failed. The message is one line."""


def write_configuration(plan: Plan, path: Path) -> State:
    """Write the configuration and its state. Raises StateError, ApplyError."""
    text = plan.text.encode()
    config = FileChange(str(path), content_of(path), [digest(text)], _access_to_change(plan, path))
    state = State(config, folder_made=not path.parent.exists())
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ApplyError(f"{escape_text(str(path.parent), 500)}: cannot be created: {error.strerror}") from None
    state.save()
    owner = (0, pwd.getpwnam(plan.user).pw_gid) if plan.user and os.geteuid() == 0 else None
    config.put(text, mode=MODE, owner=owner)
    return state


def _access_to_change(plan: Plan, path: Path) -> tuple[int, int, int] | None:
    """Who may read the existing configuration, if the daemon's user may not."""
    if os.geteuid() != 0 or not path.exists() or not import_postfix.unreadable_for(plan.user, path):
        return None
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def apply(plan: Plan, state: State, tell: Tell, unit: Unit | None = None) -> None:
    """Put fastscreen into operation. Raises ApplyError after everything but the configuration was reverted.

    1. master.cf gets the service that receives clients; Postfix still has the port. 2. systemd's unit gets what it
    needs. 3. `check` hands off a client, as the user of the unit. 4. Postfix releases the port. 5. fastscreen starts,
    and must hand off a client. If a step fails, or is interrupted, Postfix has its port again.
    """
    path = Path(state.config.path)
    background: list[Background] = []
    try:
        _steps(plan, state, path, tell, background, unit)
    except (ServiceError, StateError, ApplyError) as error:
        _revert(state, tell, background)
        raise ApplyError(str(error)) from None
    except BaseException:
        _revert(state, tell, background)
        raise


def _steps(plan: Plan, state: State, path: Path, tell: Tell, background: list[Background], unit: Unit | None) -> None:
    postfix = None
    change = plan.master
    if change is not None:
        postfix = _running(change)
        master = FileChange(str(real(change.path)), change.before, [digest(change.ready), digest(change.after)])
        if change.ready != change.before:
            _record(plan, state, change, master)
            _change(change, master, change.before, change.ready, postfix)
            tell(f"added to {escape_text(master.path, 500)}: the service that receives clients from fastscreen")
    if unit is not None:
        _adapt(unit, state, tell)
        fatal, others = service.checked(path, unit.account, folders=unit.folders, credentials=unit.credentials)
    else:
        fatal, others = service.checked(path)
    for problem in others:
        tell(f"check: {problem}")
    if fatal:
        raise ApplyError("check: " + "; ".join(fatal))
    tell("check: the mail server answers, and fastscreen can start")
    if change is not None and change.takes_port:
        _record(plan, state, change, master)
        _change(change, master, change.ready, change.after, postfix)
        tell(f"changed {escape_text(master.path, 500)}: Postfix releases its port")
    if not service.wait_until_free(plan.listen, service.FREE_TIME, tell):
        by = ", ".join(sorted(service.users_of(plan.listen)))
        raise ApplyError(f"{' and '.join(map(str, plan.listen))}: still in use{f' by {by}' if by else ''}")
    state.started, state.units = True, unit.units if unit else []
    state.save()
    if unit is not None:
        service.enable(unit.units)
    else:
        background.append(Background(path))
    failure = background[0].failure if background else lambda: ""
    service.wait_for_greeting(plan.listen[0], failure, proxied=plan.proxied)
    if not plan.proxied:
        service.verify_handoff(plan.listen[0], plan.config.greet.wait)
    tell(f"started: fastscreen answers at {plan.listen[0]}, and hands off clients")


def _adapt(unit: Unit, state: State, tell: Tell) -> None:
    """Write the drop-in. Raises StateError, ServiceError."""
    if unit.drop_in:
        path, text = setup_unit.DROP_IN, unit.drop_in.encode()
        state.drop_in = FileChange(str(path), content_of(path), [digest(text)])
        state.drop_in_folder_made = not path.parent.exists()
        state.save()
        try:
            path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{escape_text(str(path.parent), 500)}: cannot be created: {error.strerror}") from None
        state.drop_in.put(text, mode=_DROP_IN_MODE)
        service.reload_units()
        tell(f"wrote {escape_text(str(path), 500)}")
    setup_unit.verify_account(unit)


def _record(plan: Plan, state: State, change: MasterChange, master: FileChange) -> None:
    """Before master.cf is changed: what --undo has to do."""
    state.master, state.postfix = master, str(change.folder)
    state.listen = [str(each) for each in plan.listen] if change.takes_port else []
    state.proxied = plan.proxied
    state.save()


def _running(change: MasterChange) -> PostfixCommand | None:
    """Postfix, if it runs; otherwise it reads its files when it starts."""
    postfix = PostfixCommand(change.folder)
    return postfix if postfix.is_running() else None


def _change(
    change: MasterChange, master: FileChange, before: bytes, after: bytes, postfix: PostfixCommand | None
) -> None:
    if content_of(Path(master.path)) != before:
        raise ApplyError(f"{escape_text(str(change.path), 500)}: was changed meanwhile; run setup again")
    master.put(after)
    if postfix is not None:
        postfix.check()
        postfix.reload()


def _revert(state: State, tell: Tell, background: list[Background]) -> None:
    """Back to Postfix. The configuration stays, for a second try."""
    tell("reverting, so that clients reach the mail server as before")
    try:
        for each in background:
            each.terminate()
        setup_undo.revert_services(state, tell)
    except (StateError, ServiceError) as error:
        print(f"fastscreen: {printable(str(error))}; run: fastscreen setup --undo", file=sys.stderr)
