"""Where the log goes: opens the core's Log on a file, syslog's socket or standard error, and opens it again."""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import stat
import sys
from copy import copy

from fastscreen.config.model import Config, LogFile, LogSyslog
from fastscreen.core import LOG_TURN_SIZE, Log, LogTurn
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.safe_open import open_to_append

SYSLOG_SOCKET = "/dev/log"


class LogTarget:
    """The log of this process. What cannot be opened or written is tried again with every `tick`; lines are kept
    meanwhile, up to 1 MiB, and a condition shows it.

    user: whom the process becomes when it is root, "" if nobody. problem: why it cannot be opened now: the first
    attempt is the next `tick`; until then `inherited`, a descriptor of the target, is used (-1: none). OSError: cannot
    be opened, and waiting would not help.
    """

    def __init__(self, config: Config, user: str = "", inherited: int = -1, problem: str = "") -> None:
        self.log = new_log(config)
        self.problem = problem
        """Why the log is not where it should be, in one line; "": it is."""
        self._fd = -1
        self._config = config
        self._user = user
        self._logs_problems = True
        self._conditions: Conditions | None = None
        self._shown = ""
        self._turn = LogTurn(memoryview(mmap.mmap(-1, LOG_TURN_SIZE)))
        if inherited >= 0:
            self._use(inherited)
            self._fd = inherited
        if problem:
            return
        try:
            self.open()
        except OSError as error:
            if not self._may_pass(error):
                raise
            self.problem = str(error.strerror)

    @property
    def descriptor(self) -> int:
        """What is written to; -1: nothing could be opened yet."""
        return self._fd

    def open(self) -> None:
        """Open the target, then let go of the one before. OSError: cannot be opened; the old one stays in use."""
        try:
            self._open()
        except OSError as error:
            why = "no process reads this FIFO" if self._is_fifo(error) else error.strerror
            raise OSError(error.errno, f"log.to: {error.filename or SYSLOG_SOCKET}: {why}") from None
        self.problem = ""

    def reopen(self) -> None:
        """Open the target again, at SIGHUP above all. Failing that, `tick` tries again; the supervisor logs it once."""
        before = self.problem
        try:
            self.open()
        except OSError as error:
            self.problem = str(error.strerror)
            if self._logs_problems and self.problem != before:
                self.log.warning(f"log not opened again: {self.problem}: {self._consequence}")
        else:
            if self._logs_problems and before:
                self.log.info(f"log opened again; it had failed: {before}")
        self.log.flush()
        self._show()

    def tick(self) -> None:
        """Every second: open what could not be opened, write what could not be written, and show how things stand."""
        if self.problem or self.log.disconnected:
            self.reopen()
        else:
            self.log.flush()
            self._show()

    @property
    def needs_tick(self) -> bool:
        """Whether there is something for `tick` to do, for a process that does not call it every second."""
        return bool(self.problem or self._shown or self.log.kept or self.log.disconnected)

    def watch(self, conditions: Conditions) -> None:
        """Show from now on in this process's conditions when lines cannot be written."""
        self._conditions = conditions
        self._show()

    def _show(self) -> None:
        text = self._condition()
        if self._conditions is None or text == self._shown:
            return
        if text:
            self._conditions.begin(Kind.LOG, text)
        else:
            self._conditions.end(Kind.LOG)
        self._shown = text

    def _condition(self) -> str:
        lost, why = self.log.lost, self._why
        if self.problem:
            return f"{self.problem}: {f'{lost} lines lost so far' if lost else self._consequence}"
        if lost:
            return f"{self._name}: {lost} lines lost so far: {why}"
        if self.log.problem and self.log.kept:
            return f"{self._name}: {why}: lines are kept in memory, up to 1 MiB"
        return ""

    @property
    def _why(self) -> str:
        """Why lines are kept."""
        if self.log.problem:
            return os.strerror(self.log.problem)
        if self._fd >= 0 and stat.S_ISREG(os.fstat(self._fd).st_mode):
            return "waiting for another process to complete its line"
        return "the reader is too slow"

    @property
    def _name(self) -> str:
        to = self._config.log.to
        return f"log.to: {to.path if isinstance(to, LogFile) else 'syslog' if isinstance(to, LogSyslog) else 'stderr'}"

    @property
    def _consequence(self) -> str:
        """What becomes of new lines while the target cannot be opened."""
        if self._fd < 0 or self.log.disconnected:
            return "lines are kept in memory, up to 1 MiB"
        return "lines still go to the file that was open before"

    def _may_pass(self, error: OSError) -> bool:
        """Whether it is worth starting without a log: a reader or a log daemon that is not there yet."""
        if isinstance(self._config.log.to, LogSyslog):
            return error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)
        return self._is_fifo(error) or error.errno == errno.EAGAIN  # somebody's lease

    def _is_fifo(self, error: OSError) -> bool:
        to = self._config.log.to
        if error.errno != errno.ENXIO or not isinstance(to, LogFile):
            return False
        try:
            return stat.S_ISFIFO(os.stat(to.path).st_mode)  # noqa: PTH116
        except OSError:
            return False

    def _open(self) -> None:
        to = self._config.log.to
        if isinstance(to, LogFile):
            fd = open_to_append(to.path, self._user)
        elif isinstance(to, LogSyslog):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.connect(SYSLOG_SOCKET)
                fd = connection.detach()
        else:
            fd = os.dup(2)
        self._use(fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    def _use(self, fd: int) -> None:
        self.log.open(fd, syslog=isinstance(self._config.log.to, LogSyslog), turn=self._turn)

    def for_child(self, program: str = "") -> LogTarget:
        """The same target in a forked process, with a separate log and the process's pid.

        program: the last part of the ident, as Postfix's processes have it: `postfix/PROGRAM`.
        """
        child = copy(self)
        child.log = new_log(self._config, program)
        child._logs_problems = False
        child._conditions = None
        child._shown = ""
        if self._fd >= 0:
            child._use(self._fd)
        return child

    def close(self) -> None:
        """Write what there is. What cannot be written is lost: standard error tells how much."""
        self.log.flush()
        why = self._why
        self.log.let_go()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        lost = self.log.lost + self.log.lines().count(b"\n")
        if lost and isinstance(self._config.log.to, LogFile | LogSyslog) and _takes_bytes(2):
            text = self.problem or f"{self._name}: {why}"
            print(f"fastscreen: {text}: {lost} log lines were lost at the end", file=sys.stderr)


def _takes_bytes(fd: int) -> bool:
    """Whether a write of a line does not wait."""
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    return bool(ready.poll(0))


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
