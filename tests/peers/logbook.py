"""Reading a growing mail log, split by service and client address."""

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    r"(?P<head>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+) (?P<name>\S+)/(?P<program>\w+)\[\d+\]: (?P<text>.*)"
)
_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]+)\]|addr (\S+) listed by")
_QUERY = re.compile(r"DNS query (\d+)\.(\d+)\.(\d+)\.(\d+)\.")


@dataclass(frozen=True)
class Line:
    """One line: syslog name (before the slash), program (behind it), text, the first client address in the text."""

    name: str
    program: str
    text: str
    address: str
    head: str
    """Date, time and host."""


class Logbook:
    """The lines of one file in traditional form; `unparsed` keeps what is not such a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[tuple[str, str], list[Line]] = {}
        self.unparsed: list[str] = []
        self._at = 0
        self._rest = b""

    def of(self, name: str, program: str) -> list[Line]:
        """Return the lines so far with a syslog name and program."""
        self._poll()
        return list(self._lines.get((name, program), ()))

    def _poll(self) -> None:
        """Read what was appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        for raw in whole:
            text = raw.decode("utf-8", "backslashreplace")
            match = _LINE.fullmatch(text)
            if match is None:
                self.unparsed.append(text)
                continue
            text = match["text"]
            line = Line(match["name"], match["program"], text, _client(text), match["head"])
            self._lines.setdefault((line.name, line.program), []).append(line)


def _client(text: str) -> str:
    if query := _QUERY.search(text):
        return ".".join(reversed(query.groups()))
    found = _ADDRESS.search(text)
    return next(filter(None, found.groups()), "") if found else ""
