"""Writes the manual pages, from what --help shows and from the table of keys: `python -m tools.man_pages`.

fastscreen.1 has every command in one page; fastscreen.toml.5 every key. roff as man(7) has it.
"""

from __future__ import annotations

import argparse
import re
from itertools import groupby
from pathlib import Path

from fastscreen import __version__
from fastscreen.cli import parser
from fastscreen.config.keys import KEYS, TABLES, Key

FOLDER = Path(__file__).resolve().parents[1] / "contrib/man"
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_MARK = re.compile(r"(``? ?)(.+?)( ?\1)|\*\*(.+?)\*\*")


def command_page() -> str:
    """fastscreen(1)."""
    top = parser()
    lines = [
        _head("FASTSCREEN", 1),
        ".SH NAME",
        r"fastscreen \- lets only those SMTP clients through that behave like mail servers",
        ".SH SYNOPSIS",
        ".B fastscreen",
        r"[\fB\-\-version\fR] \fICOMMAND\fR \&...",
        ".SH DESCRIPTION",
        roff(top.description or ""),
        ".SH COMMANDS",
    ]
    lines += _commands(top, "fastscreen")
    lines += [".SH EXIT STATUS", "0 all is well, 1 it failed, 2 wrong usage or configuration."]
    lines += [".SH FILES", *_files()]
    lines += [".SH EXAMPLES", *_as_it_stands(_body(top.epilog or ""))[1:]]
    lines += [".SH SEE ALSO", r".BR fastscreen.toml (5)"]
    return "\n".join(lines) + "\n"


def key_page() -> str:
    """fastscreen.toml(5)."""
    lines = [
        _head("FASTSCREEN.TOML", 5),
        ".SH NAME",
        r"fastscreen.toml \- configuration of fastscreen",
        ".SH DESCRIPTION",
        "One TOML file. Every key may be left out; it then has the default shown here. Times are whole numbers with a",
        r"unit, as \(dq90s\(dq, \(dq10m\(dq, \(dq12h\(dq, \(dq30d\(dq; sizes are octets.",
        r"\fBfastscreen check \-c\fR \fIFILE\fR says what is wrong with it.",
    ]
    for table, keys in groupby(KEYS, lambda key: key.table):
        lines += [f".SH {roff(f'[{table}]' if table else 'AT THE TOP OF THE FILE')}", roff(_plain(TABLES[table]))]
        for key in keys:
            lines += _key(key)
    lines += [".SH SEE ALSO", ".BR fastscreen (1)"]
    return "\n".join(lines) + "\n"


def _key(key: Key) -> list[str]:
    lines = [".TP", rf"\fB{roff(key.name)}\fR = {roff(key.default)}", _sentences(key.about), ".br"]
    lines.append(f"Allowed: {roff(_plain(key.kind.allowed))}")
    if key.parameters:
        lines += [".br", f"In Postfix: {roff(', '.join(key.parameters))}"]
    return lines


def _commands(parent: argparse.ArgumentParser, path: str) -> list[str]:
    lines: list[str] = []
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                lines += [f".SS {roff(f'{path} {name}')}", roff(inner.description or "")]
                lines += _options(inner)
                lines += _as_it_stands(_body(inner.epilog or ""))
                lines += _commands(inner, f"{path} {name}")
    return lines


def _options(of: argparse.ArgumentParser) -> list[str]:
    lines: list[str] = []
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if action.option_strings:
            words = ", ".join(rf"\fB{roff(word)}\fR" for word in action.option_strings)
            words += rf" \fI{roff(value)}\fR" if action.nargs != 0 else ""
        else:
            words = rf"\fI{roff(value)}\fR"
        about = (action.help or "") % {**vars(action), "prog": of.prog}
        lines += [".TP", words, roff(about) or r"\&"]
    return lines


def _files() -> list[str]:
    found = []
    for path, about in (
        ("/etc/fastscreen/fastscreen.toml", "the configuration"),
        ("/var/lib/fastscreen/", "the cache"),
        ("/run/fastscreen/control", "the control socket"),
    ):
        found += [".TP", rf"\fI{roff(path)}\fR", about]
    return found


def _head(name: str, section: int) -> str:
    return f'.TH {name} {section} "" "fastscreen {__version__}"'


def _body(epilog: str) -> str:
    """The examples, without the word itself."""
    return re.sub(r"\Aexamples?:\n", "", epilog).rstrip("\n")


def _as_it_stands(text: str) -> list[str]:
    return [".PP", ".nf", *(roff(line) or r"\&" for line in text.split("\n")), ".fi"] if text else []


def _sentences(markdown: str) -> str:
    return roff(_plain(markdown))


def _plain(markdown: str) -> str:
    return _MARK.sub(lambda found: found[2] or found[4], _LINK.sub(r"\1", markdown))


def roff(text: str) -> str:
    """Text as it is to be seen: no character of it is roff's own. Lines that would be requests are none."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    )
    text = text.replace("'", "\\(aq").replace("…", "...").replace("–", "\\(en")
    return "\n".join(rf"\&{line}" if line[:1] == "." else line.rstrip() for line in text.split("\n"))


def main() -> None:
    """Write both."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "fastscreen.1").write_text(command_page())
    (FOLDER / "fastscreen.toml.5").write_text(key_page())


if __name__ == "__main__":
    main()
