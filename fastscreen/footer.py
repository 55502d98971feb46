"""Text added to rejecting replies (reference 5.8)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from fastscreen.config.escape import quoted
from fastscreen.config.model import Engine
from fastscreen.tables import open_table

_REPLY = re.compile(rb"([45][0-9][0-9])(?:[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?= |$))?")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_CLOSING = {"{": "}", "(": ")"}
_WARNINGS = 100


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
        """A reply with CRLF at its end, with the footer that belongs to it; unchanged when there is none.

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
        lines = text.split(b"\r\n")
        first = True
        for piece in template.removesuffix("\\n").split("\\n"):
            joined = first and piece.startswith("\\c")
            first = False
            try:
                added = expand(piece[2:] if joined else piece, values, self._filter, self._warn)
            except ValueError as error:
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
        """Replace what the expansion filter does not allow; octet by octet, as Postfix does."""
        octets = value.encode("utf-8", "surrogateescape")
        return bytes(octet if octet in self._allowed else ord("_") for octet in octets).decode("utf-8", "replace")

    def _warn(self, what: str) -> None:
        if what not in self._warned and len(self._warned) < _WARNINGS:
            self._warned.add(what)
            self.warnings.append(what)


def expand(text: str, values: Mapping[str, str], clean: Callable[[str], str], warn: Callable[[str], None]) -> str:
    """Expand `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`, `${name?{text}:{text}}` and `$$`.

    A value is passed through `clean`, the template's own text is not. An unknown name is told to `warn` and is empty;
    raises ValueError when the text cannot be read.
    """
    out = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        at = dollar + 1
        opening = text[at : at + 1]
        if opening == "$":
            out.append("$")
            at += 1
        elif opening in _CLOSING:
            end = _closing(text, at)
            out.append(_braced(text[at + 1 : end], values, clean, warn))
            at = end + 1
        elif found := _NAME.match(text, at):
            out.append(_value(found[0], values, clean, warn))
            at = found.end()
        else:
            raise ValueError(f"empty macro name: {quoted(text)}")
    out.append(text[at:])
    return "".join(out)


def _braced(text: str, values: Mapping[str, str], clean: Callable[[str], str], warn: Callable[[str], None]) -> str:
    text = text.strip()
    found = _NAME.match(text)
    if not found:
        raise ValueError(f"empty or bad macro name: {quoted(text)}")
    name, rest = found[0], text[found.end() :].lstrip()
    if not rest:
        return _value(name, values, clean, warn)
    if rest[0] not in "?:":
        raise ValueError(f"bad macro name: {quoted(text)}")
    chosen, other = rest[1:].lstrip(), None
    if chosen.startswith("{"):
        end = _closing(chosen, 0)
        other = chosen[end + 1 :].strip()
        chosen = chosen[1:end].strip()
        if other.startswith(":") and rest[0] == "?":
            other = other[1:].strip()
            other = other[1 : _closing(other, 0)].strip() if other.startswith("{") else other
        elif other:
            raise ValueError(f"bad text after }}: {quoted(text)}")
    given = bool(values.get(name))
    if given == (rest[0] == "?"):
        return expand(chosen, values, clean, warn)
    return expand(other, values, clean, warn) if other else ""


def _value(name: str, values: Mapping[str, str], clean: Callable[[str], str], warn: Callable[[str], None]) -> str:
    if name not in values:
        warn(f"unknown macro name {quoted(name)} in expansion request")
        return ""
    return clean(values[name])


def _closing(text: str, at: int) -> int:
    """Where the brace or parenthesis at `at` closes. Raises ValueError."""
    opening, closing = text[at], _CLOSING[text[at]]
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] == opening) - (text[place] == closing)
        if depth == 0:
            return place
    raise ValueError(f"truncated macro reference: {quoted(text)}")
