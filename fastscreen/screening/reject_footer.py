"""Text added to rejecting replies (reference 5.8)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from fastscreen.config.model import Engine
from fastscreen.escaping import quoted
from fastscreen.screening.macros import MacroError, expand
from fastscreen.tables import open_table

_REPLY = re.compile(rb"([45][0-9][0-9])(?:[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?= |$))?")
_WARNINGS = 100


class _Values:
    """What the names of a template stand for. A value is passed through `clean`, the template's own text is not."""

    def __init__(self, values: dict[str, str], clean: Callable[[str], str], warn: Callable[[str], None]) -> None:
        self._values, self._clean, self._warn = values, clean, warn

    def given(self, name: str) -> bool:
        return bool(self._values.get(name))

    def value(self, name: str, depth: int) -> str:
        if name not in self._values:
            self._warn(f"unknown macro name {quoted(name)} in expansion request")
            return ""
        return self._clean(self._values[name])


class Footer:
    """`engine.reject_footer` and `engine.reject_footer_maps` for one configuration."""

    def __init__(self, engine: Engine, hostname: str) -> None:
        """Raises TableError."""
        self._template = engine.reject_footer
        self._maps = [open_table(spec, "engine.reject_footer_maps") for spec in engine.reject_footer_maps]
        self._hostname = hostname
        self._allowed = frozenset(engine.expansion_filter)
        self.warnings: list[str] = []
        self._warned: set[str] = set()  # a template's mistake is told once, not with each reply
        for table in self._maps:
            self.warnings += table.warnings
            table.warnings = self.warnings

    @property
    def active(self) -> bool:
        """False: no reply is ever changed."""
        return bool(self._template or self._maps)

    def apply(self, reply: bytes, client_address: str, client_port: int, now: float) -> bytes:
        """Add the footer to a reply, which ends with CRLF; unchanged if no footer applies.

        now: Unix time, for $localtime. Only replies that start with 4 or 5 have a footer. An unknown name is a warning
        and becomes nothing; a template that cannot be read is a warning and the reply stays.
        """
        if reply[:1] not in b"45" or not reply or not self.active:
            return reply
        text = reply.removesuffix(b"\r\n")
        template = self._template
        for table in self._maps:
            found = table.lookup(text.decode("utf-8", "surrogateescape"))
            if found is not None:
                template = found
                break
        code = _REPLY.match(text[text.rfind(b"\n") + 1 :])
        if not template or not code:
            return reply
        values = {
            "client_address": client_address,
            "client_port": str(client_port),
            "localtime": time.strftime("%b %d %H:%M:%S", time.localtime(now)),
            "server_name": self._hostname,
        }
        names = _Values(values, self._filter, self._warn)
        lines = text.split(b"\r\n")
        first = True
        for piece in template.removesuffix("\\n").split("\\n"):
            joined = first and piece.startswith("\\c")
            first = False
            try:
                added = expand(piece[2:] if joined else piece, names)
            except MacroError as error:
                self._warn(str(error))
                return reply
            words = added.encode("utf-8", "surrogateescape").replace(b"\r", b" ").replace(b"\n", b" ")
            if joined:
                lines[-1] += words
            else:
                lines.append(code[1] + b" " + (code[2] + b" " if code[2] else b"") + words)
        return b"".join(
            line[:3] + (b" " if place == len(lines) - 1 else b"-") + line[4:] + b"\r\n"
            for place, line in enumerate(lines)
        )

    def _filter(self, value: str) -> str:
        """Replace what the expansion filter does not allow; byte by byte, as Postfix does."""
        encoded = value.encode("utf-8", "surrogateescape")
        return bytes(byte if byte in self._allowed else ord("_") for byte in encoded).decode("utf-8", "replace")

    def _warn(self, what: str) -> None:
        if what not in self._warned and len(self._warned) < _WARNINGS:
            self._warned.add(what)
            self.warnings.append(what)
