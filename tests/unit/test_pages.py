"""The pages that list what the code has: commands, metrics, the control protocol and the view. Each lists all of it,
and nothing that is not there.
"""

from __future__ import annotations

import argparse
import re
import shlex
import types
import typing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.core import Metric
from textual.binding import Binding

from fastscreen.cli import parser
from fastscreen.control import messages
from fastscreen.control.commands import COMMANDS as VERBS
from fastscreen.control.metrics import Snapshot, Worker
from fastscreen.core import EVENTS, FINDINGS, STAGES
from fastscreen.process.conditions import Kind
from fastscreen.tui import dialogs, table, view
from fastscreen.tui.app import Viewer
from fastscreen.tui.views import VIEWS, key_of
from fastscreen.tui.views.heat import HeatMap
from tools import man_pages

DOCS = Path(__file__).resolve().parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def code(text: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^ *```.*?^ *```", "", text))


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all tables, without their heads."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def first_cells(text: str, head: str) -> list[str]:
    """What stands in backticks in the first column of the table with this head."""
    (found,) = re.findall(rf"(?m)^\| {re.escape(head)} \|.*\n\| ---.*\n((?:\|.*\n)+)", text)
    return [name for row in rows(found) for name in code(row[0])]


# ---- commands.md


def commands(of: argparse.ArgumentParser, path: str = "fastscreen") -> Iterator[tuple[str, set[str]]]:
    """Each command that does something, with the options it takes."""
    inner = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        helps = (argparse._HelpAction,)
        yield path, {word for one in of._actions if not isinstance(one, helps) for word in one.option_strings}
    for action in inner:
        for name, command in action.choices.items():
            yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands(parser()))


def test_the_table_of_options_is_up_to_date() -> None:
    assert man_pages.with_options(page("commands.md")) == page("commands.md"), "run: make docs"


def test_the_table_of_options_has_every_option() -> None:
    listed = {code(row[0])[0]: row[1] for row in rows(page("commands.md")) if len(row) == 2 and code(row[0])}
    for path, options in COMMANDS.items():
        assert {words.split()[0] for words in code(listed[path]) if words.startswith("-")} == options, path


def test_every_command_is_described() -> None:
    """In the first table, which says what each of them does. `cache list`, `stats`: several may share a row."""
    described = set()
    (first_table,) = re.findall(r"(?m)\A(?:(?!\|).*\n)*((?:\|.*\n)+)", page("commands.md"))
    for row in rows(first_table):
        command = ""
        for words in code(row[0]):
            words = re.sub(r"^fastscreen ", "", words)
            first = words.split()[0]
            within = f"fastscreen {command} {first}"
            if within in COMMANDS:
                described.add(within)
            else:
                command = first
                described |= {f"fastscreen {first}", f"fastscreen {' '.join(words.split()[:2])}"} & set(COMMANDS)
    assert described == set(COMMANDS)


def test_no_other_command_or_option_is_named() -> None:
    text = page("commands.md")
    for words in re.findall(r"\bfastscreen ((?:[a-z][a-z-]*)(?: [a-z]+)?)(?=[ `])", " ".join(code(text))):
        assert any(f"{path} ".startswith(f"fastscreen {words.split()[0]} ") for path in COMMANDS), words
    options = {option for each in COMMANDS.values() for option in each} | {"--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options


# ---- metrics.md


class Numbers(defaultdict[str, Any]):
    """A number for whatever is asked for, some of it of another kind."""

    def __init__(self, **more: Any) -> None:
        super().__init__(int, more)


def families() -> list[Metric]:
    lists = messages.Dnsbl(lists=[messages.DnsblList("a.example", p50=0.1, p95=0.2, state="ok")])
    status = messages.Status(
        1.0, 0.0, "1", "mx.example", 1, counts=Numbers(), limits=Numbers(), cache=messages.CacheStats(),
        workers=[messages.Worker(1, 2, stages=dict.fromkeys(STAGES, 0))], reload=messages.Outcome(),
        cluster=messages.Cluster(running=True, ignored={"bad_mac": 0}, offenses=messages.ClusterOffenses()),
        history=messages.Recorder(running=True),
        memory=messages.Memory(running=True),
        feedback=messages.Feedback(running=True),
    )  # fmt: skip
    details = Numbers(
        busy={"too_many_connections": 0}, limits={"time": 0}, rejected={"450": 0}, ranks=[0] * 12, rank_sum=0,
        passed_new=0, evidence={"helo_address": 0},
    )  # fmt: skip
    workers = {"1": Worker(Numbers(), {"a.example": Numbers()})}
    return list(Snapshot(status, lists, details, workers).collect())


def full_name(family: Metric) -> str:
    name = family.name.removeprefix("fastscreen_")
    return f"{name}_total" if family.type == "counter" else name


def test_every_metric_is_listed_and_no_other() -> None:
    assert sorted(first_cells(page("metrics.md"), "metric")) == sorted(map(full_name, families()))


def test_the_labels_of_each_metric() -> None:
    shown = {name: row[1] for row in rows(page("metrics.md")) for name in code(row[0])}
    for family in families():
        for label in {label for sample in family.samples for label in sample.labels}:
            assert f"`{label}`" in shown[full_name(family)], (family.name, label)


def test_no_other_metric_is_named() -> None:
    names = {f"fastscreen_{full_name(family)}" for family in families()}
    found = set(re.findall(r"\bfastscreen_[a-z_]*[a-z]", page("metrics.md")))
    assert found <= names


def test_every_kind_of_condition_is_listed() -> None:
    (row,) = (row for row in rows(page("metrics.md")) if "`condition`" in row[0])
    assert {kind.label for kind in Kind} <= {word for cell in row for word in code(cell)}


# ---- control.md


def fields(kind: Any, *, deep: bool = True) -> set[str]:
    """The names of the fields of a record. deep: and of the records in it."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        found = {field.encode_name for field in msgspec.structs.fields(kind)}
        return found.union(*(fields(field.type) for field in msgspec.structs.fields(kind))) if deep else found
    if isinstance(kind, types.UnionType | types.GenericAlias) or typing.get_origin(kind) is not None:
        return set().union(*map(fields, typing.get_args(kind)))
    return set()


def entries(text: str) -> dict[str, str]:
    """The text about each verb on the page: its own section, or an item in a list of several verbs."""
    found: dict[str, str] = {}
    for section in re.split(r"(?m)^##", text[text.index("## Commands for reading") :]):
        head, _, body = section.partition("\n")
        verbs = code(head)
        if len(verbs) == 1:
            found[verbs[0]] = body
        else:
            for item in re.split(r"(?m)^\* ", body)[1:]:
                names = re.match(r"(?:`[a-z.]+`(?:, )?)+ ", item)
                found |= dict.fromkeys(code(names[0]) if names else (), item)
    return found


def test_every_verb_is_described_and_no_other() -> None:
    assert set(entries(page("control.md"))) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_and_field_of_a_verb_is_described(verb: str) -> None:
    """The verb's own arguments and fields in its description; those of nested structures may be described elsewhere."""
    text = page("control.md")
    own, answer = entries(text)[verb], VERBS[verb].request.answer
    for name in fields(VERBS[verb].request, deep=False) | fields(answer, deep=False):
        assert f'"{name}"' in own, name
    for name in fields(VERBS[verb].request) | fields(answer):
        assert f'"{name}"' in text, name


@pytest.mark.parametrize("kind", [messages.Hello, messages.Event])
def test_every_field_of_the_greeting_and_of_an_event_is_described(kind: Any) -> None:
    for name in fields(kind):
        assert f'"{name}"' in page("control.md"), name


def test_no_field_or_value_is_described_that_the_code_does_not_have() -> None:
    """Whatever stands in quotation marks is a field of a record or a text in the code."""
    words = set(re.findall(r'"([a-z_]+)"', page("control.md")))
    words -= set().union(
        *(fields(kind) for kind in vars(messages).values()), *(fields(verb.request) for verb in VERBS.values())
    )
    sources = [*(DOCS.parent / "fastscreen/control").glob("*.py"), *(DOCS.parent / "ext").glob("*.pyx")]
    texts = set(re.findall(r'"([a-z_]+)"', "\n".join(source.read_text() for source in sources)))
    assert words - texts == set()


def test_every_kind_of_event_is_listed_and_no_other() -> None:
    assert sorted(first_cells(page("control.md"), "kind")) == sorted(set(EVENTS) - {"", "session"})


def test_stages_and_tests_are_listed() -> None:
    text = page("control.md")
    assert set(STAGES) - {"gone"} <= set(code(text))
    assert set(FINDINGS) <= set(code(text)) | set(re.findall(r'"([a-z_]+)"', text))


# ---- tui.md


NAMES = {
    "slash": "/",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "question_mark": "?",
    "colon": ":",
}
"""Textual's names of keys that the page shows as they are on the keyboard."""


def keys() -> set[str]:
    """Every key that is bound anywhere, as a person names it."""
    owners: list[Any] = [
        *(Viewer, dialogs.Confirm, dialogs.Ask, dialogs.Help, table.Table, view.Entry, HeatMap),
        *VIEWS,
    ]
    bound = {Viewer.COMMAND_PALETTE_BINDING}
    for owner in owners:
        for binding in owner.__dict__.get("BINDINGS", ()):
            bound |= set(binding.key.split(",") if isinstance(binding, Binding) else binding[0].split(","))
    return {NAMES.get(key, key).lower() if len(key) > 1 else key for key in bound}


def test_every_key_is_listed_and_no_other() -> None:
    named = {word.lower() if len(word) > 1 else word for word in code(page("tui.md"))}
    assert keys() - named == set()
    likely = {word for word in named if len(word) == 1 or word.startswith("ctrl")} - {"'"}  # that is for spreadsheets
    assert likely - keys() == set()


def test_every_screen_is_listed_with_its_key() -> None:
    listed = [(code(row[0]), row[1]) for row in rows(page("tui.md")) if re.fullmatch(r"`[\dw]`", row[0])]
    assert listed == [([key_of(at)], each.title) for at, each in enumerate(VIEWS)]


# ---- all pages: the commands to copy, and what troubleshooting.md quotes

_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def copied_commands(text: str) -> Iterator[str]:
    """Each call of fastscreen in a code block, without comments and redirections."""
    for language, block in _BLOCK.findall(text):
        for part in re.split(r"\n|\||&&|;|\$\(", block) if language in ("", "sh") else ():
            found = re.match(r" *(?:\S*/)?(fastscreen [a-z-][^#>)]*)", part)
            if found is not None and "──" not in part:  # that is a drawing
                yield found[1]


def inline_commands(text: str) -> Iterator[str]:
    """Those in the text that have an argument."""
    return (words for words in code(text) if re.match(r"fastscreen [a-z]+ (?:[\w ]+ )?[-/\dA-Z]", words))


PAGES = sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])


def assert_valid(command: str) -> None:
    words = ["192.0.2.1" if word == "IP" else word for word in shlex.split(command)]
    try:
        parser().parse_args(words[1:])
    except SystemExit as end:  # argparse has printed why
        assert end.code == 0, command


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_command_to_copy_is_valid(path: Path) -> None:
    for command in copied_commands(path.read_text()):
        assert_valid(command)


def test_each_command_of_troubleshooting_is_valid() -> None:
    inline, copied = (list(find(page("troubleshooting.md"))) for find in (inline_commands, copied_commands))
    assert "fastscreen bypass on --for 30m" in inline
    assert "fastscreen status " in copied  # before a pipe
    assert len(inline) >= 8
    for command in inline:
        assert_valid(command)


def test_the_conditions_that_troubleshooting_quotes() -> None:
    text = page("troubleshooting.md")
    quoted = set(re.findall(r"conditions? `([A-Z_]+)`", text)) | set(re.findall(r"(?m)^([A-Z_]+): ", text))
    assert len(quoted) >= 8
    assert quoted <= {kind.name for kind in Kind}


def test_the_log_lines_that_troubleshooting_quotes() -> None:
    """Those about limits, as the core writes them: `NOQUEUE` is only in some of them."""
    source = "".join(path.read_text() for path in (DOCS.parent / "ext").glob("*.pyx"))
    quoted = re.findall(r"^\* `(NOQUEUE: )?(reject: \w+ from )…(: [a-z ]+)`", page("troubleshooting.md"), re.MULTILINE)
    assert len(quoted) == 3
    for queue, start, end in quoted:
        assert re.search(rf'"{queue}{start}.*\n.*\n?.*"{end}"', source), (queue, start, end)
