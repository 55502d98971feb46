"""SIGHUP for the TLS processes: the files of `tls.certificates` are read again, as the user that fastscreen became.

What only root may read, the process reads that was started for that (`keyreader.py`).
"""

from __future__ import annotations

import os
import socket
import time

import msgspec

from fastscreen.config import Config
from fastscreen.config.model import Tls
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.spawn import NoReport, run_in_child
from fastscreen.daemon.tasks import Steps
from fastscreen.process import ipc
from fastscreen.process.child import ChildState
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, Ready
from fastscreen.tls.certificates import Certificates
from fastscreen.tls.context import ContextError
from fastscreen.tls.key_reader import read_files
from fastscreen.tls.process import prepared

ANSWER_SECONDS = 10.0


def renew(resources: Resources, before: Tls) -> Steps[None]:
    """Hand new settings, and the certificates as they are now, to the TLS processes.

    What cannot be read or used leaves what is in use, in every process and for those to come, with a warning.

    before: what was in force until now.
    """
    settings = resources.config.tls
    now = resources.certificates
    if settings.level == "none" or not settings.certificates:  # nobody needs them: nothing is wrong with them
        if now is not None and not settings.certificates:
            now.close()
            resources.certificates = None
        resources.conditions.end(Kind.CERTIFICATES)
        return
    try:
        found = read_files(settings.certificates, "", resources.key_reader)
    except OSError as error:
        # Log rotation sends SIGHUP every day: do not warn each time that only root may read unchanged files.
        if now is None or not isinstance(error, PermissionError) or not now.unchanged(settings.certificates):
            _warn(resources, f"tls.certificates: {error.filename}: {error.strerror}")
        if now is None:
            return
        found = now
    problem = yield from _problem(resources, _with(resources.config, settings, found), found)
    if problem is not None:
        _warn(resources, problem)
        if found is not now:
            found.close()
        settings = msgspec.structs.replace(settings, protocols=before.protocols, ciphers=before.ciphers)
        if now is None:
            resources.config = msgspec.structs.replace(resources.config, tls=settings)
            return
        found = now
    resources.config, resources.certificates = _with(resources.config, settings, found), found
    if now is not None and found is not now:
        now.close()
    if found is not now:
        resources.conditions.end(Kind.CERTIFICATES)
    _hand_out(resources, found)


def reader_ended(resources: Resources, how: str) -> None:
    """The process that reads root's keys is no more, and nobody has the rights to start it again."""
    reader, resources.key_reader = resources.key_reader, None
    if reader is None:
        return
    reader.close()
    missed = [path for path in reader.paths if not os.access(path, os.R_OK)]
    if missed:
        text = (
            f"tls.certificates: the process that reads root's keys {how}: to renew {missed[0]}, stop and start "
            "fastscreen (fastscreen restart is not enough), or let the user's group read it"
        )
        resources.warn(text)
        resources.conditions.begin(Kind.CERTIFICATES, text)


def _with(config: Config, settings: Tls, found: Certificates) -> Config:
    return msgspec.structs.replace(config, tls=msgspec.structs.replace(settings, certificates=found.paths))


def _problem(resources: Resources, config: Config, found: Certificates) -> Steps[str | None]:
    """Why no process could use them; None: one can. A child finds out, as the supervisor never has a key."""
    try:
        report = yield from run_in_child(resources, lambda theirs: _prepare(config, found, theirs), ANSWER_SECONDS)
    except OSError as error:
        return f"no process to check the certificates: {error.strerror}"
    match report:
        case Failed(why):
            return why
        case NoReport():
            return f"tls.certificates: not loaded in {ANSWER_SECONDS:g} s"
        case None:
            return "the process that checked the certificates was killed"
    return None


def _prepare(config: Config, found: Certificates, answer: socket.socket) -> int:
    try:
        prepared(config, found)
    except ContextError as error:
        ipc.send(answer, Failed(str(error)[:1000]))
        return 1
    ipc.send(answer, Ready())
    return 0


def _hand_out(resources: Resources, found: Certificates) -> None:
    """Give them to the processes that are there. One that does not take them is started again, and has them then."""
    by = time.monotonic() + ANSWER_SECONDS
    for child in resources.tls:
        if not child.pid or child.channel is None:
            continue
        try:
            ipc.send_reload(child.channel, resources.config, {}, found.descriptors)
        except OSError:
            child.kill()
        else:
            child.expect(ChildState.RELOADING, by)


def _warn(resources: Resources, problem: str) -> None:
    rest = "the previous settings stay in use" if resources.certificates is not None else "TLS is disabled"
    resources.warn(f"[tls] not taken over: {problem}: {rest}")
    resources.conditions.begin(Kind.CERTIFICATES, f"[tls] not taken over: {problem}: {rest}")
