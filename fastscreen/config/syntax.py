"""TOML with the mistakes that people make: each is named with its line and the remedy, and reading goes on after it."""

from __future__ import annotations

import re
import tomllib

from fastscreen.config.keys import TABLES
from fastscreen.config.suggest import assignment, key_named, toml, value_for
from fastscreen.escaping import escape_text

MAX_PROBLEMS = 20  # each costs another reading of the file
_LOOK_BACK = 50  # lines of a value that does not end
_LINE = 80  # characters of a line that are shown
_MENDED = 300  # and of what should stand there

_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*([=:])\s*(.*?)\s*", re.DOTALL)
_HEADER = re.compile(r"\s*\[+\s*([A-Za-z0-9_.-]+)\s*\]*\s*(?:#.*)?")
_ITEM = re.compile(r"""\s*([^\s"',\[\]{}=#]+)\s*,?\s*(?:#.*)?""")  # of a list that has a line for each
_LIST = re.compile(r"\s*[A-Za-z0-9_.-]+\s*=\s*\[")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\s*=(?!=)")
_PLACE = re.compile(r"(.*) \((?:at line ([0-9]+),.*|at end of document)\)", re.DOTALL)
_AGAIN = "given again in line "


def read(text: str) -> tuple[dict[str, object] | None, list[str]]:
    """What a file says, and its mistakes (`line N: TEXT: problem; expected ...`).

    With mistakes the first is what the other lines say; None: too much is wrong to tell.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    problems: list[str] = []
    while len(problems) < MAX_PROBLEMS:
        try:
            raw = tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError as error:
            number, problem = _mend(lines, str(error))
            problems.append(problem)
            if not number:
                return None, problems
        except RecursionError:
            return None, [*problems, "nested too deeply; expected a TOML file"]
        else:
            return {name: value for name, value in raw.items() if not name.startswith(_AGAIN)}, problems
    return None, problems


def places(text: str) -> dict[str, int]:
    """The line of each key (`table.key`) and each table, from 1, as far as simple means can tell."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.fullmatch(line):
            table = header[1]
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{table}.{key[1]}" if table else key[1], number)
    return found


def _mend(lines: list[str], error: str) -> tuple[int, str]:
    """Replace or empty the line that is wrong. Its number, 0: no way to go on; and the problem."""
    found = _PLACE.fullmatch(error)
    what, at = (found[1], int(found[2] or len(lines))) if found else (error, len(lines))
    first = _beginning(lines, at)
    line = lines[first - 1]
    shown = _shown(lines, first)
    table = _table(lines, first)
    if header := _HEADER.fullmatch(line):
        return _mend_header(lines, first, header[1], what)
    if first == at and (given := _ASSIGNMENT.fullmatch(line)) and not _is_toml(line):
        name, sign, rest = given[1], given[2], re.split(r"(?:^|\s)#", given[3])[0].strip()
        key = key_named(table, name)
        if not rest:
            lines[first - 1] = ""
            return first, f"{shown}no value; expected {f'{name} = {key.default}' if key else 'a value'}"
        value = value_for(key, rest)
        if value is not None and _is_plain(rest):
            mended = f"{name} = {toml(value)}"
            if key is None or key.name == name:
                lines[first - 1] = mended
            else:  # Postfix's name: told here, and not a second time
                lines[first - 1] = ""
                mended = assignment(key.key, value)
            return first, f"{shown}{_why(sign, rest, value)}; expected {escape_text(mended, _MENDED)}"
    if first < at and _LIST.match(line) and (item := _ITEM.fullmatch(lines[at - 1])):
        shown = _shown(lines, at)
        lines[at - 1] = f"{toml(item[1])},"
        return at, f"{shown}text needs quotes; expected {escape_text(lines[at - 1], _MENDED)}"
    last = at - 1 if found and found[2] else len(lines)
    for place in range(first - 1, max(first, last)):
        lines[place] = ""
    ended = "" if at == first else f" in line {at}, or this does not end"
    problem = f"{shown}{escape_text(what)}{ended}; expected {_expected(table, line)}"
    return (0 if not line.strip() else first), problem


def _shown(lines: list[str], number: int) -> str:
    return f"line {number}: {escape_text(lines[number - 1].strip(), _LINE)}: "


def _table(lines: list[str], number: int) -> str:
    """The table that a line belongs to."""
    above = (_HEADER.fullmatch(lines[place]) for place in range(number - 2, -1, -1))
    return next((header[1] for header in above if header), "")


def _mend_header(lines: list[str], number: int, name: str, what: str) -> tuple[int, str]:
    shown = _shown(lines, number)
    if _is_toml(lines[number - 1]):  # alone it is right: it is there twice
        lines[number - 1] = f'["{_AGAIN}{number}"]'
        return number, f"{shown}{escape_text(what)}; expected each table once"
    lines[number - 1] = f"[{name}]" if name in TABLES else f'["{_AGAIN}{number}"]'
    return number, f"{shown}{escape_text(what)}; expected [{escape_text(name)}]"


def _beginning(lines: list[str], at: int) -> int:
    """The line where the statement begins that ends wrongly at this one."""
    for before in range(at - 1, max(-1, at - 1 - _LOOK_BACK), -1):
        if _is_toml("\n".join(lines[:before])):
            return before + 1
    return at


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True


def _is_plain(text: str) -> bool:
    """Whether this is text that only lacks its quotes: nothing that TOML begins or ends with stands in it."""
    return not re.search(r"[={}\x00-\x08\x0a-\x1f]", text) or re.fullmatch(r"[\w.-]+=[\w.;\[\]*-]+", text) is not None


def _why(sign: str, given: str, value: object) -> str:
    if sign == ":":
        return '":" in place of "="'
    match value:
        case bool() | int():
            return "not TOML"
        case list():
            return "a list needs brackets, and text needs quotes"
    return "text needs quotes" if given[0] not in "\"'\u201c\u201e\u2018" else "not the quotes of TOML"


def _expected(table: str, line: str) -> str:
    given = _ASSIGNMENT.fullmatch(line)
    key = key_named(table, given[1]) if given else None
    return key.kind.expected if key is not None else "a TOML file"
