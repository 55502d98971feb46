"""docs/compatibility.md promises that names are only added. None of those in interface.json may be missing.

For a release, and after a change that the page allows, run this file with FASTSCREEN_INTERFACE=write.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import types
import typing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastscreen import __version__
from fastscreen.cache import lmdb_file
from fastscreen.cache.stamps import pack_stamps, parse_stamps
from fastscreen.cli import parser
from fastscreen.cluster import records
from fastscreen.config.keys import KEYS
from fastscreen.control import filters, messages
from fastscreen.control.commands import COMMANDS
from fastscreen.control.metrics import Snapshot, Worker
from fastscreen.core import EVENTS, FINDINGS, HISTORY_MARKS, HISTORY_OUTCOMES, HISTORY_TLS, SCORERS, STAGES, TESTS
from fastscreen.history import day
from fastscreen.history import fields as session_fields
from fastscreen.history import filter as history_filter
from fastscreen.process.conditions import Kind
from fastscreen.report.summary import Summary

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("interface.json")
PAGE = (ROOT / "docs/compatibility.md").read_text()

Tree = dict[str, Any]


def options(of: argparse.ArgumentParser, path: str = "fastscreen") -> Iterator[tuple[str, list[str]]]:
    inner = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield path, sorted({word for action in of._actions for word in action.option_strings})
    for action in inner:
        for name, command in action.choices.items():
            yield from options(command, f"{path} {name}")


def fields(kind: Any, path: str = "") -> Iterator[str]:
    """The fields of a record, and of the records in it: `workers.dns.queries`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            name = f"{path}.{field.encode_name}" if path else field.encode_name
            yield name
            yield from fields(field.type, name)
    elif isinstance(kind, types.UnionType | types.GenericAlias) or typing.get_origin(kind) is not None:
        for inner in typing.get_args(kind):
            yield from fields(inner, path)


class Numbers(defaultdict[str, Any]):
    """A number for whatever is asked for."""

    def __init__(self, **more: Any) -> None:
        super().__init__(int, more)


def metrics() -> Tree:
    status = messages.Status(
        1.0, 0.0, "1", "mx.example", 1, counts=Numbers(), limits=Numbers(), cache=messages.CacheStats(),
        workers=[messages.Worker(1, 2, stages=dict.fromkeys(STAGES, 0))], reload=messages.Outcome(),
        cluster=messages.Cluster(running=True, ignored={"bad_mac": 0}), history=messages.Recorder(running=True),
    )  # fmt: skip
    details = Numbers(
        busy={"too_many_connections": 0}, limits={"time": 0}, rejected={"450": 0}, ranks=[0] * 12, rank_sum=0,
        passed_new=0, evidence={"helo_address": 0},
    )  # fmt: skip
    lists = messages.Dnsbl(lists=[messages.DnsblList("a.example", p50=0.1, p95=0.2, state="ok")])
    workers = {"1": Worker(Numbers(), {"a.example": Numbers()})}
    return {
        family.name: {
            "type": family.type,
            "labels": sorted({label for sample in family.samples for label in sample.labels}),
            "samples": sorted({sample.name for sample in family.samples}),
        }
        for family in Snapshot(status, lists, details, workers).collect()
    }


def interface() -> Tree:
    """Every name that the page promises to keep."""
    return {
        "keys": sorted(key.key for key in KEYS),
        "defaults": {key.key: key.default for key in KEYS},
        "commands": dict(sorted(options(parser()))),
        "greeting": sorted(set(fields(messages.Hello))),
        "event": sorted(set(fields(messages.Event))),
        "control commands": {
            name: {
                "request": sorted(set(fields(command.request))),
                "answer": sorted(set(fields(command.request.answer))),
            }
            for name, command in sorted(COMMANDS.items())
        },
        "event kinds": sorted(set(EVENTS) - {"", "session"}),
        "stages": sorted(set(STAGES) - {"gone"}),
        "failed tests": sorted(FINDINGS),
        "evidence": sorted(scorer.key for scorer in SCORERS),
        "conditions": sorted(kind.label for kind in Kind),
        "outcomes": list(HISTORY_OUTCOMES),
        "fields of a session": list(session_fields.NAMES),
        "marks of a session": sorted(session_fields.MARKS.get(mark, mark) for mark in HISTORY_MARKS),
        "use of TLS": list(HISTORY_TLS),
        "filters": {"events": sorted(filters._FIELDS), "history": sorted(history_filter._FIELDS)},
        "report": sorted(set(fields(Summary))),
        "metrics": metrics(),
    }


def missing(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """What was there and is not, and values that are others."""
    if isinstance(before, dict):
        for name, value in before.items():
            if name not in now:
                yield f"{path}{name}"
            else:
                yield from missing(value, now[name], f"{path}{name}: ")
    elif isinstance(before, list):
        yield from (f"{path}{name}" for name in before if name not in now)
    elif before != now:
        yield f"{path}{before}, now {now}"


@pytest.fixture(scope="module")
def recorded() -> Tree:
    if os.environ.get("FASTSCREEN_INTERFACE") == "write":
        FILE.write_text(json.dumps({"version": __version__, **interface()}, indent=1) + "\n")
    found: Tree = json.loads(FILE.read_text())
    found.pop("version")
    return found


def test_no_name_is_missing(recorded: Tree) -> None:
    assert list(missing({**recorded, "defaults": {}}, interface())) == [], "docs/compatibility.md says what is allowed"


def test_no_default_has_changed(recorded: Tree) -> None:
    """A new default is allowed in a minor release: record it, and name it in CHANGELOG.md under Changed."""
    assert list(missing(recorded["defaults"], interface()["defaults"])) == []


def test_a_release_is_recorded(recorded: Tree) -> None:
    """All that a release has, so that a later version cannot remove it unnoticed."""
    released = re.search(rf"(?m)^## \[{re.escape(__version__)}\] - ", (ROOT / "CHANGELOG.md").read_text())
    if released:
        assert list(missing({**interface(), "defaults": {}}, recorded)) == [], "record it: see the top of this file"
        assert json.loads(FILE.read_text())["version"] == __version__


def test_a_missing_name_is_noticed(recorded: Tree) -> None:
    now = interface()
    now["keys"].remove("dnsbl.threshold")
    del now["control commands"]["status"]
    now["control commands"]["explain"]["answer"].remove("verdict")
    now["metrics"]["fastscreen_sessions"]["labels"].remove("stage")
    assert sorted(missing(recorded, now)) == [
        "control commands: explain: answer: verdict",
        "control commands: status",
        "keys: dnsbl.threshold",
        "metrics: fastscreen_sessions: labels: stage",
    ]


# ---- formats of files and of the wire, as 1.0.0 writes them


def test_a_record_of_the_cache() -> None:
    """The stamps of postscreen's five tests, and of the score test."""
    assert [test.key for test in TESTS][:5] == ["pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline"]
    stamps = (1764500768, 1764500769, 1, 0, 1764500770)
    record = bytes.fromhex("95ce692c2520ce692c25210100ce692c2522")
    assert parse_stamps(record)[:5] == stamps
    assert pack_stamps((*stamps, *(1,) * (len(TESTS) - 5))) == record


def test_a_day_of_the_history(tmp_path: Path) -> None:
    """The tables and columns of the files, which other programs may read (docs/history.md)."""
    path = tmp_path / "2026-11-30.sqlite"
    day.create(path).close()
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    assert columns == {
        "settings": ["number", "description"],
        "sessions": ["id", "client", "record"],
        "chunks": ["number", "through"],
        "clients": ["chunk", "client", "id"],
        "minutes": ["minute", "outcome", "cached", "sessions"],
        "made": ["after"],
    }


def test_versions_of_the_formats() -> None:
    """As the page says; a new one needs a new major release, or a reader of the old one."""
    rows = dict(re.findall(r"(?m)^\| (.+?) \| ([0-9]+) \|", PAGE))
    assert int(rows["control protocol"]) == messages.PROTOCOL
    assert bytes([int(rows["records of the cache"])]) == lmdb_file.CACHE.version
    assert bytes([int(rows["memory of offenses"])]) == lmdb_file.MEMORY.version
    assert int(rows["files of the history"]) == day.VERSION
    assert int(rows["records of the cluster"]) == records.VERSION
