"""How systemd runs fastscreen, and the drop-in with which its unit can hand off clients and read the TLS keys."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from fastscreen.cli import setup_plan, setup_service
from fastscreen.cli.setup_plan import Plan, PlanError
from fastscreen.cli.setup_service import Account
from fastscreen.config import ConfigError, Pass, parse
from fastscreen.escaping import escape_text
from fastscreen.postfix import output

DROP_IN = Path("/etc/systemd/system/fastscreen.service.d/setup.conf")
CREDENTIALS = Path("/run/credentials/fastscreen.service")
_PROPERTIES = ("User", "Group", "SupplementaryGroups", "RuntimeDirectory", "StateDirectory", "LogsDirectory")
_FOLDERS = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "LogsDirectory": "/var/log"}
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # from services with ProtectHome= and PrivateTmp=
_NAMES = ("", "root", "0")  # of the user as which a unit without User= starts


class Unit(Struct):
    """The units that run fastscreen. account: as which the daemon starts; None: root, and it switches its user.

    folders: those that systemd gives to this user when it starts the unit. drop_in: what is to be written, or nothing.
    credentials: whether the unit reads copies of the TLS keys.
    """

    units: list[str]
    account: Account | None = None
    folders: list[str] = []
    drop_in: str = ""
    credentials: bool = False


class _Keys(Struct):
    """What the unit needs to read the files of the certificates: groups, or copies."""

    groups: list[int] = []
    credentials: list[str] = []


def add_unit(plan: Plan, config: Path) -> Unit | None:
    """Return how systemd would run the plan; None: it would not. The plan gets the paths of the keys' copies.

    Without root, nobody can tell which files the unit could read, so the drop-in has no line for the keys. Raises
    PlanError, ServiceError.
    """
    units = setup_service.systemd_units(config)
    if not units:
        return None
    found = setup_service.unit_properties(units[0], _PROPERTIES)
    if found["User"] in _NAMES:
        return Unit(units)
    wanted = plan.user or _user_of_postfix(plan) or found["User"]
    changed = _uid(wanted) != _uid(found["User"])
    groups = [_gid(each) for each in found["SupplementaryGroups"].split()]
    account = _account(wanted, "" if changed else found["Group"], groups)
    files = list(plan.config.tls.certificates)
    keys = _keys(files, lambda path, more: _can_read(account, path, more)) if os.geteuid() == 0 else _Keys()
    account.groups += keys.groups
    lines = [f"User={wanted}", f"Group={_group_name(account.gid)}"] if changed else []
    if keys.groups:
        lines.append(f"SupplementaryGroups={' '.join(map(_group_name, keys.groups))}")
    if keys.credentials:
        lines.append("# Copies for the unit, made at its start: after a renewal, run systemctl restart fastscreen")
        lines += [f"LoadCredential={name}:{_escaped(path)}" for name, path in zip(keys.credentials, files, strict=True)]
        _use(plan, files, [str(CREDENTIALS / name) for name in keys.credentials])
    head = ["# Made by fastscreen setup; fastscreen setup --undo removes it", "[Service]"]
    return Unit(
        units,
        account,
        [f"{parent}/{name}" for key, parent in _FOLDERS.items() for name in found[key].split()],
        "\n".join([*head, *lines, ""]) if lines else "",
        bool(keys.credentials),
    )


def _user_of_postfix(plan: Plan) -> str:
    """As the plan of root has it; without root, fastscreen would not switch its user."""
    if plan.config.user or not isinstance(plan.config.handoff.to, Pass):
        return plan.config.user
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(setup_plan.POSTFIX).pw_name
    return ""


def verify_account(unit: Unit) -> None:
    """Check that systemd will start the unit as planned. Raises ServiceError: another drop-in says something else."""
    if unit.account is None:
        return
    found = setup_service.unit_properties(unit.units[0], _PROPERTIES[:2])
    if found["User"] in _NAMES or _uid(found["User"]) != unit.account.uid:
        raise setup_service.ServiceError(
            f"{unit.units[0]}: another drop-in sets User={escape_text(found['User'], 100)}; expected "
            f"{escape_text(unit.account.name, 100)}; see systemctl cat {unit.units[0]}"
        )


def _keys(files: Sequence[str], can_read: Callable[[str, list[int]], bool]) -> _Keys:
    """The files belong together, so either all of them are copied or none."""
    needed: list[int] = []
    for path in files:
        if not can_read(path, []):
            group = Path(path).stat().st_gid
            if group == 0 or not can_read(path, [group]):
                return _Keys(credentials=[f"certificate-{number}.pem" for number in range(1, len(files) + 1)])
            needed.append(group)
    return _Keys(groups=list(dict.fromkeys(needed)))


def _can_read(account: Account, path: str, more: list[int]) -> bool:
    """Whether the unit can read a file with further groups."""
    if os.path.realpath(path).startswith(tuple(f"{folder}/" for folder in _HIDDEN)):
        return False
    return setup_service.can_access(account, path, "-r", more)


def _use(plan: Plan, files: Sequence[str], copies: Sequence[str]) -> None:
    """Let the configuration name the copies. Raises PlanError."""
    before, after = (f"\ncertificates = {output.value(list(each))}\n" for each in (files, copies))
    plan.text = plan.text.replace(before, after)
    try:
        plan.config = parse(plan.text, "setup")
    except ConfigError as error:
        raise PlanError(f"fastscreen would not start with these answers: {error}") from None
    assert list(plan.config.tls.certificates) == list(copies)


def _escaped(path: str) -> str:
    """A path in a unit file. Raises PlanError."""
    if not path.isprintable() or path.endswith(("\\", " ")):
        raise PlanError(f"{escape_text(path, 300)}: expected a path that a systemd unit can contain")
    return path.replace("%", "%%")


def _account(user: str, group: str, groups: list[int]) -> Account:
    """Raises PlanError."""
    try:
        entry = pwd.getpwuid(_uid(user))
        gid = _gid(group) if group else entry.pw_gid
        return Account(entry.pw_name, entry.pw_uid, gid, [*os.getgrouplist(entry.pw_name, gid), *groups])
    except KeyError:
        raise PlanError(f"the user {escape_text(user, 100)} of the unit does not exist") from None


def _uid(user: str) -> int:
    """Raises PlanError."""
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise PlanError(f"the user {escape_text(user, 100)} of the unit does not exist") from None


def _gid(group: str) -> int:
    """Raises PlanError."""
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise PlanError(f"the group {escape_text(group, 100)} of the unit does not exist") from None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
