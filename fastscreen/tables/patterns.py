"""Tables of regular expressions: regexp_table(5) and pcre_table(5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

import regex
from msgspec import Struct

from fastscreen.escaping import escape_text, quoted
from fastscreen.tables import braces, dialect
from fastscreen.tables.lines import logical_lines, read_text

LOOKUP_TIME = 0.05
"""Maximum duration of one lookup in seconds; a pattern that takes longer does not match."""

_MACRO = re.compile(r"\$(?:(\$)|\{([^}]*)\}|\(([^)]*)\)|([A-Za-z0-9_]+)|())")
_WORD = re.compile(r"(if|endif)(?=[^A-Za-z0-9]|$)", re.IGNORECASE)


class _Rule(Struct, frozen=True):
    """pattern None: ENDIF. result None: IF; then `skip` is the number of the rule after its ENDIF."""

    number: int
    pattern: regex.Pattern[str] | None
    negated: bool
    result: tuple[str | int, ...] | None
    skip: int = 0


class Patterns:
    """regexp:FILE, pcre:FILE, or either with rules in the name: `regexp:{{/pattern/ result}, ...}`.

    The rules are tried in order. A lookup takes at most LOOKUP_TIME, whatever the patterns and the key.
    """

    def __init__(self, spec: str, name: str) -> None:
        self.spec = spec
        self.warnings: list[str] = []
        self._perl = spec.startswith("pcre:")
        self._title = f"{'pcre' if self._perl else 'regexp'} map {escape_text(name)}"
        self._slow: set[int] = set()
        text = braces.rules(spec, name) if name.startswith("{") else read_text(spec, name)
        # Postfix matches bytes, so each character of a pattern and of a key is a byte here.
        self._rules = self._read(_octets(text))

    @property
    def results(self) -> list[str]:
        plain = [rule.result for rule in self._rules if rule.result is not None]
        texts = ("".join(map(str, parts)) for parts in plain if all(isinstance(part, str) for part in parts))
        return list(dict.fromkeys(map(_text, texts)))

    def lookup(self, key: str) -> str | None:
        end = monotonic() + LOOKUP_TIME
        key = _octets(key)
        at = 0
        rules = self._rules
        while at < len(rules):
            rule = rules[at]
            at += 1
            if rule.pattern is None:
                continue
            try:
                found = rule.pattern.search(key, timeout=max(end - monotonic(), 0.001))
            except TimeoutError:
                if rule.number not in self._slow:
                    self._slow.add(rule.number)
                    self.warnings.append(
                        f"{self._title}, line {rule.number}: pattern needs more than {LOOKUP_TIME * 1000:.0f} ms for a "
                        "key: no match"
                    )
                if rule.result is None:
                    at = rule.skip
                continue
            if (found is not None) == rule.negated:
                if rule.result is None:
                    at = rule.skip
                continue
            if rule.result is not None:
                parts = (part if isinstance(part, str) else (found and found[part]) or "" for part in rule.result)
                return _text("".join(parts))
        return None

    def _read(self, text: str) -> list[_Rule]:
        rules: list[_Rule] = []
        open_ifs: list[int] = []
        for number, line in logical_lines(text, self._title, self.warnings):

            def warn(what: str, number: int = number) -> None:
                self.warnings.append(f"{self._title}, line {number}: {what}")

            try:
                word = _WORD.match(line)
                if word and word[1].lower() == "endif":
                    if line[word.end() :].strip():
                        warn("ignoring extra text after ENDIF")
                    if not open_ifs:
                        warn("ignoring ENDIF without matching IF")
                        continue
                    rules.append(_Rule(number, None, False, None))
                    _close(rules, open_ifs.pop())
                elif word:
                    negated, pattern, _, rest = self._pattern(line[word.end() :], warn)
                    if rest:
                        warn(f"ignoring extra text after IF statement: {quoted(rest)}")
                        warn("do not prepend whitespace to statements between IF and ENDIF")
                    open_ifs.append(len(rules))
                    rules.append(_Rule(number, pattern, negated, None))
                elif line[0].isalnum():
                    warn("ignoring unrecognized request")
                else:
                    negated, pattern, groups, rest = self._pattern(line, warn)
                    if not rest:
                        warn("no replacement text: using empty string")
                    rules.append(_Rule(number, pattern, negated, _replacement(rest, groups, negated)))
            except (ValueError, regex.error, OverflowError, RecursionError) as error:
                warn(f"{escape_text(str(error))}: skipping this rule")
        while open_ifs:
            start = open_ifs.pop()
            self.warnings.append(f"{self._title}, line {rules[start].number}: IF has no matching ENDIF")
            _close(rules, start)
        return rules

    def _pattern(self, text: str, warn: Callable[[str], None]) -> tuple[bool, regex.Pattern[str], int, str]:
        """Split `[!]/pattern/flags rest`: negated, the compiled pattern, the number of its groups, rest."""
        text = text.lstrip()
        negated = False
        while text.startswith("!"):
            negated = not negated
            text = text[1:].lstrip()
        kind = "pcre" if self._perl else "regexp"
        if not text:
            raise ValueError(f"no {kind} delimiter")
        delimiter = text[0]
        if delimiter.isalnum() or delimiter == "\\":
            raise ValueError(f"bad {kind} delimiter {quoted(delimiter)}")
        end = 1
        while end < len(text) and text[end] != delimiter:
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            raise ValueError(f"no closing {kind} delimiter {quoted(delimiter)}")
        source = text[1:end]
        flags, _, rest = re.sub(r"\s", " ", text[end + 1 :], count=1).partition(" ")
        compiled = self._compile(source, flags, kind, warn)
        return negated, compiled, compiled.groups, rest.strip()

    def _compile(self, source: str, flags: str, kind: str, warn: Callable[[str], None]) -> regex.Pattern[str]:
        on = {"i"} | ({"s"} if self._perl else {"x"})
        known = "imsxAEU" if self._perl else "imx"
        for flag in flags:
            if flag == "X" and self._perl:
                warn('ignoring obsolete regexp option "X"')
            elif flag not in known:
                raise ValueError(f"unknown regexp option {quoted(flag)}")
            else:
                on ^= {flag}
        options = regex.V1 | regex.ASCII | (regex.IGNORECASE if "i" in on else 0)
        if not self._perl:
            # POSIX takes the leftmost match, and of those the longest.
            translated = dialect.from_posix(source, "x" in on, "m" in on)
            return regex.compile(translated, options | regex.POSIX)
        options |= (regex.MULTILINE if "m" in on else 0) | (regex.DOTALL if "s" in on else 0)
        options |= regex.VERBOSE if "x" in on else 0
        translated = dialect.from_perl(source, "E" in on, "m" in on, "U" in on)
        return regex.compile(rf"\A(?:{translated})" if "A" in on else translated, options)


def _octets(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _text(octets: str) -> str:
    return octets.encode("latin-1").decode("utf-8", "surrogateescape")


def _close(rules: list[_Rule], start: int) -> None:
    """Let the IF at `start` skip to the end of the rules read so far."""
    old = rules[start]
    rules[start] = _Rule(old.number, old.pattern, old.negated, old.result, len(rules))


def _replacement(text: str, groups: int, negated: bool) -> tuple[str | int, ...]:
    """Split a result into text and group numbers. Raises ValueError as Postfix words it."""
    parts: list[str | int] = []
    at = 0
    for found in _MACRO.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[1]:
            parts.append("$")
            continue
        name = found[2] or found[3] or found[4] or ""
        if not name:
            raise ValueError(f"empty macro name: {quoted(text)}: bad replacement syntax")
        if not (name.isascii() and name.isdigit()):
            raise ValueError(f"non-numeric replacement index {quoted(name)}: bad replacement syntax")
        if negated:
            raise ValueError("$number found in negative match replacement text")
        if not 1 <= int(name[:9]) <= groups:
            raise ValueError(f"out of range replacement index {quoted(name)}")
        parts.append(int(name))
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")
