"""Writes the manual pages, from what --help shows and from the table of keys: `python -m tools.man_pages`.

fastscreen.1 has every command in one page; fastscreen.toml.5 every key. roff as man(7) has it. The table of options in
docs/commands.md is written with them.
"""

from __future__ import annotations

import argparse
import re
from itertools import groupby
from pathlib import Path

from fastscreen import __version__
from fastscreen.cli import parser
from fastscreen.config.keys import KEYS, TABLES, Key, Restart
from tools.config_docs import linked, spans

FOLDER = Path(__file__).resolve().parents[1] / "contrib/man"
COMMANDS_PAGE = Path(__file__).resolve().parents[1] / "docs/commands.md"
_OPTIONS_BEGIN, _OPTIONS_END = "<!-- options: written by `make docs` -->\n", "<!-- end of options -->\n"


def command_page() -> str:
    """fastscreen(1)."""
    top = parser()
    lines = [
        _head("FASTSCREEN", 1),
        ".SH NAME",
        r"fastscreen \- screens SMTP clients in front of a mail server",
        ".SH SYNOPSIS",
        ".B fastscreen",
        r"[\fB\-\-version\fR] \fICOMMAND\fR \&...",
        ".SH DESCRIPTION",
        prose(top.description or ""),
        ".SH COMMANDS",
    ]
    lines += _commands(top, "fastscreen")
    lines += [".SH EXIT STATUS", "0: success. 1: failure. 2: incorrect usage or configuration."]
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
        "The configuration is one TOML file. Every key may be omitted; it then has the default shown here. Times are",
        r"whole numbers with a unit, such as \(dq90s\(dq, \(dq10m\(dq, \(dq12h\(dq or \(dq30d\(dq. Sizes are in bytes.",
        r"\fBfastscreen check \-c\fR \fIFILE\fR reports what is wrong with the file.",
        ".SH ENVIRONMENT",
        r"\fBFASTSCREEN_ENVIRONMENT\fR=read takes keys from the environment as well, with priority over the file:",
        r"\fBFASTSCREEN_DNSBL__THRESHOLD\fR=3 is threshold in [dnsbl], and \fBFASTSCREEN_HOSTNAME\fR is hostname. See",
        "docs/configuration.md.",
    ]
    for table, keys in groupby(KEYS, lambda key: key.table):
        lines += [f".SH {roff(f'[{table}]' if table else 'AT THE TOP OF THE FILE')}", prose(TABLES[table])]
        for key in keys:
            lines += _key(key)
    lines += [".SH SEE ALSO", ".BR fastscreen (1)"]
    return "\n".join(lines) + "\n"


def _key(key: Key) -> list[str]:
    lines = [".TP", rf"\fB{roff(key.name)}\fR = {roff(key.default)}", prose(key.about), ".br"]
    lines.append(f"Expected: {prose(key.kind.expected)}")
    if key.parameters:
        lines += [".br", f"In Postfix: {roff(', '.join(key.parameters))}"]
    if key.restart is not Restart.NOT_NEEDED:
        lines += [".br", prose(key.restart)]
    return lines


def _commands(parent: argparse.ArgumentParser, path: str) -> list[str]:
    lines: list[str] = []
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                lines += [f".SS {roff(f'{path} {name}')}", prose(inner.description or "")]
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
        lines += [".TP", words, prose(about) or r"\&"]
    return lines


# ---- docs/commands.md


def with_options(page: str) -> str:
    """The page of commands, with its table of options as the parser has them."""
    before, rest = page.split(_OPTIONS_BEGIN)
    rows = ["| command | arguments and options |", "| --- | --- |", *_option_rows(parser(), "fastscreen")]
    return before + _OPTIONS_BEGIN + "\n".join(rows) + "\n" + _OPTIONS_END + rest.split(_OPTIONS_END)[1]


def _option_rows(of: argparse.ArgumentParser, path: str) -> list[str]:
    shown = ", ".join(f"`{words}`" for action in of._actions for words in _words(action)).replace("|", r"\|")
    inner = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    rows = [f"| `{path}` | {shown} |"] if shown or not inner else []
    return rows + [
        row
        for action in inner
        for name, command in action.choices.items()
        for row in _option_rows(command, f"{path} {name}")
    ]


def _words(action: argparse.Action) -> list[str]:
    """An argument, or an option in all its forms; none of --help."""
    if isinstance(action, argparse._SubParsersAction | argparse._HelpAction) or action.help == argparse.SUPPRESS:
        return []
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.nargs == "?":
        value = f"[{value}]"
    elif action.nargs in ("*", "+"):
        value = f"{value} ..." if action.nargs == "+" else f"[{value} ...]"
    if not action.option_strings:
        return [value]
    *others, last = action.option_strings
    return [*others, last if action.nargs == 0 else f"{last} {value}"]


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
    return [".PP", ".nf", *(prose(line) or r"\&" for line in text.split("\n")), ".fi"] if text else []


def prose(text: str) -> str:
    """Markdown as roff: code is bold, a link is the path of the page."""
    found = []
    for kind, part in spans(text):
        shown = _characters(linked(part) if kind == "link" else part)
        found.append(rf"\fB{shown}\fR" if kind == "code" else shown)
    return _lines("".join(found))


def roff(text: str) -> str:
    """Text that is shown exactly as it is."""
    return _lines(_characters(text))


def _characters(text: str) -> str:
    """No character has a meaning for roff."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    )
    return text.replace("'", "\\(aq").replace("…", "...").replace("–", "\\(en")


def _lines(text: str) -> str:
    """No line is a request, even if it begins like one."""
    return "\n".join(rf"\&{line}" if line[:1] == "." else line.rstrip() for line in text.split("\n"))


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "fastscreen.1").write_text(command_page())
    (FOLDER / "fastscreen.toml.5").write_text(key_page())
    COMMANDS_PAGE.write_text(with_options(COMMANDS_PAGE.read_text()))


if __name__ == "__main__":
    main()
