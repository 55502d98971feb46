"""The logs that `fastscreen report` reads by default: the daemon's file, otherwise the journal, otherwise mail.log."""

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
TIMEOUT = 120.0  # s for listing the idents of the journal, and for journalctl to exit after its output has ended
FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME"
_POSTSCREEN_IDENT = re.compile(r"[^\s\[]{1,200}/(?:postscreen|dnsblog|tlsproxy)")
_MAX_IDENTS = 200


def own_files(to: ToFile | LogSyslog | LogStderr, since: float) -> list[str]:
    """The file of `log.to` and its rotated predecessors that were written after `since` (s since 1970).

    Empty if the daemon does not log to a file. Raises LogError if the file is missing.
    """
    if not isinstance(to, ToFile):
        return []
    path = Path(to.path)
    found: dict[str, float] = {}
    with suppress(OSError):
        for each in sorted(path.parent.iterdir()):
            rest = each.name.removeprefix(path.name)
            if rest != each.name and (not rest or rest[0] in ".-"):
                with suppress(FileNotFoundError):  # rotated in the meantime
                    known = each.stat()
                    if stat.S_ISREG(known.st_mode):
                        found[str(each)] = known.st_mtime
    if not found:
        raise LogError(
            f"log.to: {printable(to.path)} is missing; expected the daemon's log file, or name the log files"
        )
    return [name for name, written in found.items() if written >= since]


class Journal:
    """The entries of the journal with the given idents, read through journalctl."""

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
            raise LogError(f"journal: {JOURNALCTL} cannot be started: {error.strerror}") from error
        self.log = LogFile("journal", cast(BinaryIO, self._process.stdout))

    def close(self) -> None:
        """Stop journalctl. Raises LogError if it failed or does not exit."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        try:
            code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise LogError(f"journal: {JOURNALCTL} does not exit") from None
        if code > 0:
            raise LogError(f"journal: {JOURNALCTL} failed with exit code {code}")


def journal_idents(*names: str) -> list[str]:
    """The idents in the journal that belong to postscreen or fastscreen. Empty if there are none or journalctl fails.

    names: idents of fastscreen, as in `log.ident`.
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
    own = {"fastscreen", *names}
    return sorted({ident for ident in idents if ident in own or _POSTSCREEN_IDENT.fullmatch(ident)})[:_MAX_IDENTS]
