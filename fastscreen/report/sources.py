"""Which logs `fastscreen report` reads when none is named: the daemon's own, else the journal, else the usual files."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from fastscreen.config.model import LogFile as ToFile
from fastscreen.config.model import LogStderr, LogSyslog
from fastscreen.escaping import printable
from fastscreen.report.files import LogError, LogFile

JOURNALCTL = "journalctl"
TIMEOUT = 120.0  # s to list the journal's idents, and to end after its output has
FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME"
_OURS = re.compile(r"[^\s\[]{1,200}/(?:postscreen|dnsblog|tlsproxy)")
_MAX_IDENTS = 200


def own_files(to: ToFile | LogSyslog | LogStderr, since: float) -> list[str]:
    """The file of `log.to` with its rotated predecessors that were written to after `since` (s since 1970).

    Empty when the daemon does not log to a file. LogError: it does, and there is none.
    """
    if not isinstance(to, ToFile):
        return []
    path = Path(to.path)
    found: dict[str, float] = {}
    with suppress(OSError):
        for each in sorted(path.parent.iterdir()):
            rest = each.name.removeprefix(path.name)
            if rest != each.name and (not rest or rest[0] in ".-"):
                with suppress(FileNotFoundError):  # rotated away since
                    known = each.stat()
                    if stat.S_ISREG(known.st_mode):
                        found[str(each)] = known.st_mtime
    if not found:
        raise LogError(f"{printable(to.path)} (log.to): missing; expected the daemon's log, or name the log files")
    return [name for name, written in found.items() if written >= since]


class Journal:
    """journald's entries of all idents that a screener has, as a log to read. Start it, read it, close it."""

    def __init__(self, idents: list[str], since: float) -> None:
        """Raises LogError."""
        command = [JOURNALCTL, "-q", "--no-pager", "-o", "json", f"--output-fields={FIELDS}"]
        command += [f"--since=@{int(since)}"] if since > 0 else []
        command += [f"--identifier={ident}" for ident in idents]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise LogError(f"the journal: {JOURNALCTL} cannot be started: {error.strerror}") from error
        self.log = LogFile("the journal", cast(BinaryIO, self._process.stdout))

    def close(self) -> None:
        """End it. Raises LogError: it failed, or does not end."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        try:
            code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise LogError(f"the journal: {JOURNALCTL} does not end") from None
        if code > 0:
            raise LogError(f"the journal: {JOURNALCTL} ended with exit code {code}")


def journal_idents(*names: str) -> list[str]:
    """The idents of a screener that the journal has entries of. Empty: none, or there is no journal.

    names: whole idents of fastscreen's.
    """
    if shutil.which(JOURNALCTL) is None:
        return []
    try:
        listed = subprocess.run(
            [JOURNALCTL, "-q", "--no-pager", "-F", "SYSLOG_IDENTIFIER"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    idents = listed.stdout.decode(errors="replace").splitlines()
    ours = {"fastscreen", *names}
    return sorted({ident for ident in idents if ident in ours or _OURS.fullmatch(ident)})[:_MAX_IDENTS]
