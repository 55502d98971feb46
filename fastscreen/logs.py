"""Where the log goes: opens the core's Log on a file, syslog's socket or standard error, and opens it again."""

import contextlib
import os
import pwd
import socket
import stat
from copy import copy

from fastscreen.config.model import Config, LogFile, LogSyslog
from fastscreen.core import Log

SYSLOG_SOCKET = "/dev/log"


class LogTarget:
    """The log of this process. `open` may be called again at any time, by logrotate's SIGHUP above all."""

    def __init__(self, config: Config, inherited: int = -1) -> None:
        """inherited: a descriptor of the target, where it cannot be opened now; -1: open it. OSError: impossible."""
        self.log = new_log(config)
        self._fd = -1
        self._config = config
        if inherited >= 0:
            self._use(inherited)
            self._fd = inherited
        else:
            self.open()

    @property
    def descriptor(self) -> int:
        """What is written to."""
        return self._fd

    def open(self) -> None:
        """Open the target, then let go of the one before. OSError: cannot be opened; the old one stays in use."""
        try:
            self._open()
        except OSError as error:
            raise OSError(error.errno, f"log.to: {error.filename or SYSLOG_SOCKET}: {error.strerror}") from None

    def _open(self) -> None:
        to = self._config.log.to
        if isinstance(to, LogFile):
            fd = os.open(to.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        elif isinstance(to, LogSyslog):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.connect(SYSLOG_SOCKET)
                fd = connection.detach()
        else:
            fd = os.dup(2)
        self._use(fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    def _use(self, fd: int) -> None:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self.log.open(fd, regular=regular, syslog=isinstance(self._config.log.to, LogSyslog))

    def for_child(self, program: str = "") -> "LogTarget":
        """The same target in a process that was forked: with a log of its own, and its own pid.

        program: what the ident ends in, as Postfix's processes have it: `postfix/PROGRAM`.
        """
        child = copy(self)
        child.log = new_log(self._config, program)
        child._use(self._fd)
        return child

    def give_to(self, user: str) -> None:
        """Let the user that the screener becomes open the file again (as root, before becoming that user)."""
        if isinstance(self._config.log.to, LogFile):
            owner = pwd.getpwnam(user)
            with contextlib.suppress(PermissionError):
                os.fchown(self._fd, owner.pw_uid, owner.pw_gid)

    def close(self) -> None:
        """Write what there is."""
        self.log.flush()
        os.close(self._fd)


def new_log(config: Config, program: str = "") -> Log:
    """A Log with the configuration's ident and stamps that is not open yet."""
    ident = config.log.ident
    return Log(
        f"{ident.rpartition('/')[0] or ident}/{program}" if program else ident,
        rfc3339=config.log.stamps == "rfc3339",
        json=config.log.format == "json",
        delay_resolution=config.log.delay_resolution,
        host=config.hostname.partition(".")[0],
        pid=os.getpid(),
    )
