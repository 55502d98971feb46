"""POSIX and Perl regular expressions, as Postfix's regexp: and pcre: tables have them, in the syntax of `regex`.

Both dialects differ from `regex` in places where a pattern would silently mean something else: a backslash in a POSIX
bracket expression is itself, `a*?` is not lazy there, `$` is the very end of the text, `[[a]` is not a nested set.
"""

from __future__ import annotations

import re

_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]*(?:,[0-9]*)?\}")
_COUNT = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")
_NAMED = re.compile(r"\[:\^?[a-z]+:\]|\[=.=\]|\[\..\.\]")
_CLASSES = {
    *("alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph"),
    *("lower", "print", "punct", "space", "upper", "word", "xdigit"),
}
_GNU_ANCHORS = {"b": r"\b", "B": r"\B", "<": r"\m", ">": r"\M", "`": r"\A", "'": r"\Z"}
_PERL_ANCHORS = frozenset("AbBGzZ")
_SETS = frozenset("dDhHsSvVwW")
_END = r"(?=\n?\Z)"


def from_posix(pattern: str, extended: bool = True, lines: bool = False) -> str:
    """Translate an extended (ERE) or basic (BRE) expression; `lines`: ^ and $ at newlines, which . does not match.

    Raises ValueError with what is wrong.
    """
    out: list[str] = []
    at = 0
    depth = 0
    start_of: list[int] = []  # where in `out` each open group starts
    atom = -1  # where in `out` the last atom starts; -1: none to repeat
    while at < len(pattern):
        char = pattern[at]
        escape = char == "\\"
        if escape:
            if at + 1 == len(pattern):
                raise ValueError("Trailing backslash")
            char = pattern[at + 1]
        width = 2 if escape else 1
        # In a BRE these are operators with the backslash, in an ERE without it.
        operator = char in "(){}|+?" and escape != extended
        if char == "[" and not escape:
            text, at = _posix_set(pattern, at, lines)
            atom = len(out)
            out.append(text)
            continue
        if operator and char == "(":
            depth += 1
            start_of.append(len(out))
            out.append("(")
            atom = -1
        elif operator and char == ")" and (depth or not extended):
            if not depth:
                raise ValueError("Unmatched ) or \\)")
            depth -= 1
            out.append(")")
            atom = start_of.pop()
        elif operator and char == "|":
            out.append("|")
            atom = -1
        elif (operator and char in "+?{") or (char == "*" and not escape):
            if atom < 0 and extended:
                raise ValueError("Invalid preceding regular expression")
            if atom < 0:  # a BRE's first * is itself
                atom = len(out)
                out.append(re.escape(char))
                at += width
                continue
            count, at = _posix_count(pattern, at, width, char, extended)
            # A quantifier after a quantifier repeats what came before as a whole.
            out[atom:] = ["(?:" + "".join(out[atom:]) + ")" + count]
            continue
        elif not escape and char == "^" and (extended or not out or out[-1] in ("(", "|")):
            atom = -1
            out.append("(?m:^)" if lines else r"\A")
        elif not escape and char == "$" and (extended or pattern[at + 1 : at + 3] in ("", r"\)", r"\|")):
            atom = -1
            out.append("(?m:$)" if lines else r"\Z")
        elif not escape and char == ".":
            atom = len(out)
            out.append(r"[^\n]" if lines else r"(?s:.)")
        elif escape and char in "wWsS":
            atom = len(out)
            out.append("\\" + char)
        elif escape and char in _GNU_ANCHORS:
            atom = -1
            out.append(_GNU_ANCHORS[char])
        elif escape and char.isascii() and char in "123456789":
            atom = len(out)
            out.append(f"(?:\\{char})")
        else:
            atom = len(out)
            out.append(re.escape(char))
        at += width
    if depth:
        raise ValueError("Unmatched ( or \\(")
    return "".join(out)


def _posix_count(pattern: str, at: int, width: int, char: str, extended: bool) -> tuple[str, int]:
    """A quantifier in the syntax of `regex` and where it ends."""
    if char != "{":
        return char, at + width
    close = "}" if extended else "\\}"
    end = pattern.find(close, at)
    if end < 0:
        raise ValueError("Unmatched \\{")
    found = _COUNT.fullmatch("{" + pattern[at + width : end] + "}")
    if not found or not (found[1] or found[2]):
        raise ValueError("Invalid content of \\{\\}")
    low, high = found[1] or "0", found[3] if found[2] else (found[1] or "0")
    if int(low) > 32767 or (high and not int(low) <= int(high) <= 32767):
        raise ValueError("Invalid content of \\{\\}")
    return f"{{{low},{high}}}", end + len(close)


def _posix_set(pattern: str, at: int, lines: bool) -> tuple[str, int]:
    """A bracket expression, in which a backslash is a character like any other."""
    body = at + 1
    negated = pattern.startswith("^", body)
    body += negated
    out: list[str] = []
    first = True
    while True:
        if body >= len(pattern):
            raise ValueError("Unmatched [, [^, [:, [., or [=")
        if pattern[body] == "]" and not first:
            break
        first = False
        low, body = _posix_member(pattern, body)
        if len(low) > 1:  # a class
            out.append(low)
            continue
        if pattern.startswith("-", body) and not pattern.startswith("-]", body):
            high, body = _posix_member(pattern, body + 1)
            if len(high) > 1 or low > high:
                raise ValueError("Invalid range end")
            out.append(f"{_member(low)}-{_member(high)}")
        else:
            out.append(_member(low))
    if negated and lines:
        out.append(r"\n")
    return f"[{'^' if negated else ''}{''.join(out)}]", body + 1


def _posix_member(pattern: str, at: int) -> tuple[str, int]:
    """One character, or a whole `[:class:]`, and where it ends."""
    found = _NAMED.match(pattern, at)
    if not found:
        if at >= len(pattern):
            raise ValueError("Unmatched [, [^, [:, [., or [=")
        return pattern[at], at + 1
    if found[0][1] == ":":
        if found[0][2] == "^":
            raise ValueError("Invalid character class name")
        return _class(found[0]), found.end()
    return found[0][2], found.end()


def _class(text: str) -> str:
    name = text[2:-2].removeprefix("^")
    if name not in _CLASSES:
        raise ValueError("Invalid character class name")
    return text


def _member(char: str) -> str:
    r"""A character in a set; `regex` gives a meaning to doubled punctuation there."""
    return re.escape(char) if char.isalnum() or char == "_" else f"\\x{ord(char):02x}" if char < "\x7f" else char


def from_perl(pattern: str, dollar_end_only: bool = False, lines: bool = False, ungreedy: bool = False) -> str:
    r"""Translate a Perl expression: sets, `$`, `\z`, `\Z`, `\Q...\E`, and the ungreedy flag; all else is the same."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            escape = pattern[at : at + 2]
            if escape == r"\Q":
                end = pattern.find(r"\E", at)
                end = len(pattern) if end < 0 else end
                out.append(re.escape(pattern[at + 2 : end]))
                at = end + 2
                continue
            out.append({r"\z": r"\Z", r"\Z": _END, r"\E": "", r"\e": r"\x1b"}.get(escape, escape))
            at += 2
            if escape[1:] in _PERL_ANCHORS:
                _refuse_quantifier(pattern, at)
        elif char == "[":
            text, at = _perl_set(pattern, at)
            out.append(text)
        elif char == "$":
            out.append("$" if lines else r"\Z" if dollar_end_only else _END)
            at += 1
            _refuse_quantifier(pattern, at)
        elif char == "^":
            out.append("^")
            at += 1
            _refuse_quantifier(pattern, at)
        elif pattern.startswith("(?#", at):
            end = pattern.find(")", at)
            at = len(pattern) if end < 0 else end + 1
        elif char == "(" and at + 1 < len(pattern) and pattern[at + 1] == "?":
            out.append("(?")  # not a quantifier
            at += 2
        elif ungreedy and (found := _QUANTIFIER.match(pattern, at)) and found[0] not in ("{}", "{,}"):
            at = found.end()
            if pattern.startswith("?", at):
                at += 1
                out.append(found[0])
            elif pattern.startswith("+", at):
                at += 1
                out.append(found[0] + "+")
            else:
                out.append(found[0] + "?")
        else:
            out.append(char)
            at += 1
    return "".join(out)


def _refuse_quantifier(pattern: str, at: int) -> None:
    found = _QUANTIFIER.match(pattern, at)
    if found and found[0] not in ("{}", "{,}"):
        raise ValueError("quantifier does not follow a repeatable item")


def _perl_set(pattern: str, at: int) -> tuple[str, int]:
    body = at + 1
    negated = pattern.startswith("^", body)
    body += negated
    out: list[str] = []
    first = True
    while body < len(pattern) and (pattern[body] != "]" or first):
        first = False
        found = _NAMED.match(pattern, body)
        if found and found[0][1] == ":":
            out.append(_class(found[0]))
            body = found.end()
        elif pattern[body] == "\\":
            escape = pattern[body : body + 2]
            out.append({r"\e": r"\x1b"}.get(escape, escape))
            body += 2
            if escape[1:] in _SETS and pattern.startswith("-", body) and not pattern.startswith("-]", body):
                raise ValueError("invalid range in character class")
        elif pattern[body] == "-":
            out.append("-" if out and not pattern.startswith("-]", body) else r"\-")
            body += 1
        else:
            out.append(_member(pattern[body]))
            body += 1
    if body >= len(pattern):
        raise ValueError("missing terminating ] for character class")
    return f"[{'^' if negated else ''}{''.join(out)}]", body + 1
