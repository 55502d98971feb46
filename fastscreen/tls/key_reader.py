"""Reads renewed private keys that only root may read, after the daemon has given up root's rights.

It is a separate process that is forked before that. When the supervisor asks, it reads the files that
`tls.certificates` named at the start, and no others, and returns copies of them. It has the daemon user's ID and one
capability, to read files, and one socket to the supervisor, which sends it only a number. It cannot be traced, and
cannot start a program.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from fastscreen.process import prctl
from fastscreen.process.safe_open import Account, account, acting_as, open_to_read
from fastscreen.tls import certificates
from fastscreen.tls.certificates import Certificates, Stamp

NAME = "fastscreen-keys"  # as ps and top show it
ANSWER_SECONDS = 5.0
_PACKET_MAX = 65536
_DESCRIPTORS_MAX = 253  # as the kernel (SCM_MAX_FD)

_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_OVERRIDE = 1 << 1
_CAP_DAC_READ_SEARCH = 1 << 2


class _Answer(Struct):
    """To question `number`: the files' stamps, with their copies' descriptors, or what went wrong."""

    number: int
    stamps: list[Stamp] = []
    error: int = 0
    text: str = ""
    path: str = ""


class KeyReader:
    """The supervisor's end. pid: the process. end: its socket. paths: the files that it reads.

    A successor of the supervisor makes one of these three again: the process goes on.
    """

    def __init__(self, pid: int, end: socket.socket, paths: Sequence[str]) -> None:
        self.pid = pid
        self.end = end
        self.paths = tuple(paths)
        self._number = int.from_bytes(os.urandom(4), "little")  # answers for a predecessor must not match

    def read(self, paths: Sequence[str]) -> Certificates:
        """Copies of these files. OSError (with the file's name): it cannot be read, or was not named at the start."""
        for path in paths:
            if path not in self.paths:
                raise OSError(errno.EACCES, "only root may read it, and it was not named at the start", path)
        answer, descriptors = self._ask()
        try:
            if answer.error:
                raise OSError(answer.error, answer.text, answer.path)
            if len(descriptors) != len(self.paths) or len(answer.stamps) != len(self.paths):
                raise OSError(errno.EMFILE, "no descriptors for its copy", paths[0])
            wanted = [self.paths.index(path) for path in paths]
            copies = [os.dup(descriptors[at]) for at in wanted]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return Certificates(paths, copies, [answer.stamps[at] for at in wanted])

    def _ask(self) -> tuple[_Answer, list[int]]:
        self._number += 1
        by = time.monotonic() + ANSWER_SECONDS
        try:
            self.end.settimeout(ANSWER_SECONDS)
            self.end.send(self._number.to_bytes(8, "little"))
            while True:
                self.end.settimeout(max(0.001, by - time.monotonic()))
                packet, descriptors, _, _ = socket.recv_fds(self.end, _PACKET_MAX, _DESCRIPTORS_MAX)
                if not packet:
                    raise OSError(errno.EPIPE, "")
                answer = msgspec.msgpack.decode(packet, type=_Answer)
                if answer.number == self._number:
                    return answer, descriptors
                for descriptor in descriptors:  # of a question whose answer came too late
                    os.close(descriptor)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"not read in {ANSWER_SECONDS:g} s", self.paths[0]) from None
        except (OSError, msgspec.DecodeError):
            text = "only root may read it, and the process that reads root's keys has ended"
            raise OSError(errno.EACCES, text, self.paths[0]) from None

    def close(self) -> None:
        """Let go of the process: it ends when nobody holds this socket any more."""
        self.end.close()


def read_files(paths: Sequence[str], user: str, reader: KeyReader | None = None) -> Certificates:
    """Copy the files, as root for the user that the process becomes, if it is root. OSError, with the file's name.

    reader: what a supervisor before this one has started; it is asked for what this process may not read.
    """
    who = account(user) if os.geteuid() == 0 else None
    try:
        return certificates.read(paths, lambda path: open_to_read(path, who, acting_as))
    except PermissionError:
        if reader is None:
            raise
        return reader.read(paths)


def start(paths: Sequence[str], user: str) -> KeyReader | None:
    """Fork the process, as root before it becomes the user. None: there is nothing that it could do better. OSError."""
    who = account(user) if os.geteuid() == 0 else None
    if who is None or not paths:
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _run(theirs.fileno(), tuple(paths), who)
    theirs.close()
    return KeyReader(pid, ours, paths)


# ---- in the process


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def _run(end: int, paths: tuple[str, ...], who: Account) -> NoReturn:
    code = 70  # EX_SOFTWARE
    try:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the supervisor decides when it ends
        _close_all_but(end)
        _serve(socket.socket(fileno=end), paths, who, _give_up_rights(who))
        code = 0
    finally:
        os._exit(code)


def _close_all_but(end: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard != end:
            os.dup2(nothing, standard)
    os.closerange(3, end)
    os.closerange(end + 1, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def _give_up_rights(who: Account) -> int:
    """Become the user, and keep at most one capability, which is returned: a bit; 0: none, but root's own files."""
    prctl.forbid_new_privileges()
    prctl.set_name(NAME)
    prctl.keep_capabilities()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sets = (_Sets * 2)()
    _checked(_libc.capget(ctypes.byref(_Header(_CAPABILITY_VERSION, 0)), sets))
    # A container may have the second, which is more, without the first.
    kept = next((each for each in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if sets[0].permitted & each), 0)
    if kept:
        os.setgroups(sorted(who.groups))
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    _set_capabilities(kept, kept)
    prctl.forbid_tracing()  # the user's other processes must not read its memory
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return kept


def _set_capabilities(effective: int, permitted: int) -> None:
    sets = (_Sets * 2)(_Sets(effective, permitted, 0), _Sets(0, 0, 0))
    _checked(_libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION, 0)), sets))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _serve(end: socket.socket, paths: tuple[str, ...], who: Account, kept: int) -> None:
    @contextlib.contextmanager
    def as_user(_: Account) -> Iterator[None]:
        if not kept:
            raise PermissionError(errno.EACCES, "the user may change this path, so root does not follow it")
        _set_capabilities(0, kept)
        try:
            yield
        finally:
            _set_capabilities(kept, kept)

    encode: Any = msgspec.msgpack.encode
    while question := end.recv(8):
        number = int.from_bytes(question, "little")
        try:
            found = certificates.read(paths, lambda path: open_to_read(path, who, as_user))
        except OSError as error:
            answer = _Answer(number, [], error.errno or errno.EIO, str(error.strerror)[:500], str(error.filename))
            end.send(encode(answer))
            continue
        socket.send_fds(end, [encode(_Answer(number, list(found.stamps)))], found.descriptors)
        found.close()
