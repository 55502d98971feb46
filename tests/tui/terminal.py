"""A real terminal: a tmux server of the test's own with one program in it, its keys and what it shows."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from peers import needs

TIMEOUT = 60.0  # s: a bound on hanging, not on speed

# The terminal's settings before and after; then the pane stays, to be looked at.
_SHELL = """
stty -g > {folder}/before
{command}
echo $? > {folder}/code.new
stty -g > {folder}/after
mv {folder}/code.new {folder}/code
exec cat
"""


class Terminal:
    """Runs a command in tmux, with 80x24 cells and 16 colors, during the `with` block."""

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """folder: an empty one. environment: of the command alone, besides our own."""
        self._folder = folder
        self._tmux = [needs.program("tmux"), "-u", "-S", str(folder / "server"), "-f", str(folder / "tmux.conf")]
        inner = shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), *command])
        (folder / "shell").write_text(_SHELL.format(folder=shlex.quote(str(folder)), command=inner))
        # TERM=screen has 16 colors. Escape differs from Alt by the delay: none.
        (folder / "tmux.conf").write_text("set -g default-terminal screen\nset -sg escape-time 0\n")

    def __enter__(self) -> Self:
        theirs = {"TMUX", "TMUX_PANE", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
        environment = {name: value for name, value in os.environ.items() if name not in theirs}
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", "80", "-y", "24", "sh", str(self._folder / "shell")],
            env={**environment, "LC_ALL": "C.UTF-8"},
            check=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do("kill-server")

    def _do(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._do("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text, all at once."""
        self._do("send-keys", "-l", text)

    def resize(self, width: int, height: int) -> None:
        self._do("resize-window", "-x", str(width), "-y", str(height))

    def rows(self) -> list[str]:
        """What is seen, line by line."""
        return self._do("capture-pane", "-p").splitlines()

    def mode(self, flag: str) -> bool:
        """A mode of the terminal, by tmux's name of it."""
        return self._do("display-message", "-p", f"#{{{flag}}}").strip() == "1"

    def until(self, found: Callable[[list[str]], object], what: str) -> list[str]:
        """Wait until what is seen is as it should be; return that. AssertionError: it never was."""
        end = time.monotonic() + TIMEOUT
        while not found(rows := self.rows()):
            if time.monotonic() > end:
                raise AssertionError(f"after {TIMEOUT:g} s still no {what} in:\n" + "\n".join(rows))
            time.sleep(0.05)
        return rows

    def sees(self, *words: str) -> list[str]:
        """Wait until all of this is seen at once."""
        return self.until(lambda rows: all(any(word in row for row in rows) for word in words), f"{words}")

    def ended(self) -> tuple[int, bool]:
        """Wait for the end of the command: its exit code, and whether the terminal's settings are as they were."""
        code = self._folder / "code"
        self.until(lambda _: code.exists(), "end of the command")
        before, after = (self._folder / name for name in ("before", "after"))
        return int(code.read_text()), before.read_text() == after.read_text()
