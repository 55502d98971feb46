"""fastscreen history on folders of its own: the table, a client's life, JSON, CSV, export; names of hostile clients."""

import csv
import io
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import historyfiles
import pyarrow.parquet as parquet
import pytest
from historyfiles import NOON, deferred, known, listed, row
from msgspec.structs import replace

from fastscreen.cli import history, main
from fastscreen.history import export
from fastscreen.history.day import COUNT_BITS, file_of
from fastscreen.history.fields import NAMES
from fastscreen.history.settings import encode, number

HOSTILE = (
    b"'; DROP TABLE sessions; --",
    b'"quoted", and, commas',
    b"\x1b[2J\x1b]0;title\x07",
    b"line\r\nbreak\x00",
    b"=HYPERLINK(\"http://evil.example\")",
    b"+1", b"-2+3", b"@SUM(1)", b"\\134", b"\\", b"\xff\xfe\x80", "ä\u202egnp".encode(), b"%s%n", b"<script>", b" ",
)  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [listed(at, "203.0.113.9", name=name, client_port=1000 + at) for at, name in enumerate(HOSTILE)]
    rows += [deferred(100), known(400), known(460), known(520), deferred(600, "192.0.2.7"), known(700, "192.0.2.8")]
    return historyfiles.make(tmp_path / "history", rows)


def run(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str, str]:
    code = main(["history", "--path", str(folder), *words])
    return code, *capsys.readouterr()


# ---- names of hostile clients


@pytest.mark.parametrize("way", [[], ["--json"], ["--csv"], ["203.0.113.9"], ["export", "--format", "csv"]])
def test_nothing_of_a_name_reaches_a_terminal(folder: Path, way: list[str]) -> None:
    command = [sys.executable, "-m", "fastscreen", "history", "--path", str(folder), *way]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert all(32 <= octet <= 126 or octet == 10 for octet in shown)
    assert rb"\033[2J" in shown.replace(rb"\\", b"\\")


def unescaped(text: str) -> bytes:
    """The bytes of C escapes."""
    letters = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "\\": 92}
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda found: bytes([int(found[1], 8) if len(found[1]) == 3 else letters[found[1].decode()]]),
        text.encode("ascii"),
    )


def test_names_can_be_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From JSON, CSV and Parquet, every byte can be got back; no cell of the CSV is a formula."""
    _, shown, _ = run(capsys, folder, "203.0.113.9", "--json")
    assert [unescaped(json.loads(line)["helo"]) for line in shown.splitlines()] == list(HOSTILE)
    _, shown, _ = run(capsys, folder, "203.0.113.9", "--csv")
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [unescaped(each["helo"]) for each in rows] == list(HOSTILE)
    assert len(shown.splitlines()) == len(HOSTILE) + 1
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for each in rows for cell in each.values())
    file = folder.parent / "out.parquet"
    assert run(capsys, folder, "export", "--format", "parquet", "-o", str(file), "203.0.113.9")[0] == 0
    assert [unescaped(name) for name in parquet.read_table(file).column("helo").to_pylist()] == list(HOSTILE)


@pytest.mark.parametrize(
    "term",
    ["helo:'*", "'; DROP TABLE sessions;", '"DROP TABLE"', "helo:*)*", "' OR 1=1", "helo:\\033*", "%", "x' UNION"],
)
def test_sql_in_a_filter_is_text(folder: Path, capsys: pytest.CaptureFixture[str], term: str) -> None:
    code, _, _ = run(capsys, folder, term, "--json")
    assert code == 0
    assert len(run(capsys, folder, "--json")[1].splitlines()) == len(HOSTILE) + 6


def test_a_name_is_found_as_it_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern, count in (
        (r"helo:\033\[2J*", 0),
        (r"helo:\033[2J*", 1),
        (r"helo:\\134", 1),
        (r"helo:\377*", 1),
        ("helo:=*", 1),
    ):
        assert len(run(capsys, folder, pattern, "--json")[1].splitlines()) == count, pattern


# ---- the table


def shown_on(width: int, *words: str) -> list[str]:
    """What the command prints on a terminal of this width."""
    leader, follower = pty.openpty()
    command = [
        "sh",
        "-c",
        f'stty cols {width} && exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "fastscreen",
        "history",
        *words,
    ]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=subprocess.DEVNULL, env=environment | {"LC_ALL": "C.UTF-8"}
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:
        pass  # the terminal is closed
    os.close(leader)
    assert process.wait() == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("width", [40, 80, 100, 120, 160, 250])
def test_the_table_fits_the_terminal(tmp_path: Path, width: int) -> None:
    address = "2001:db8:1234:5678:9abc:def0:1234:5678"
    rows = [listed(1, lists=3, name=b"n" * 63), listed(2, address, lists=7, name=b"m" * 63)]
    folder = historyfiles.make(tmp_path / "h", rows)
    lines = shown_on(width, "--path", str(folder))
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:2] == ["ended", "client"]
    assert lines[1].startswith("11-22 12:00:01")
    if width >= 80:
        assert address in lines[2] and "dnsbl" in lines[1] and "nnn" in lines[1]
        assert lines[0].index("HELO") == lines[1].index("nnn")
    assert ("lists" in lines[0].split()) == (width >= 120)
    assert ("zen.example,bl.example" in lines[1]) == (width >= 250)


def test_the_newest_are_last_and_a_limit_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, said = run(capsys, folder, "--limit", "2", "--table")
    assert code == 0
    assert [line.split()[1:3] for line in shown.splitlines()[1:]] == [
        ["12:10:00", "192.0.2.7"],
        ["12:11:40", "192.0.2.8"],
    ]
    assert said == "fastscreen: only the latest 2 sessions; --limit N shows more, --limit 0 all\n"
    _, shown, said = run(capsys, folder, "--limit", "0")
    assert (len(shown.splitlines()), said) == (len(HOSTILE) + 7, "")
    _, shown, said = run(capsys, folder, "--json", "--limit", "1")
    assert [json.loads(line)["address"] for line in shown.splitlines()] == ["192.0.2.8"]
    assert "only the latest 1 session;" in said


def test_many_sessions_are_cut_in_the_table_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(at) for at in range(250)])
    _, shown, said = run(capsys, folder)
    assert len(shown.splitlines()) == 201 and "only the latest 200 sessions" in said
    assert len(run(capsys, folder, "--json")[1].splitlines()) == 250
    assert len(run(capsys, folder, "--csv")[1].splitlines()) == 251


def test_terms_and_options_in_any_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def addresses(*words: str) -> list[str]:
        code, shown, said = run(capsys, folder, *words)
        assert code == 0, said
        return [json.loads(line)["address"] for line in shown.splitlines()]

    late = f"since:@{NOON + 590}"
    assert addresses(late, "--json", "outcome:deferred") == ["192.0.2.7"]
    assert addresses("--json", late, "-outcome:deferred") == ["192.0.2.8"]
    assert addresses("-192.0.2.7", "--json", "--limit", "5", late) == ["192.0.2.8"]
    assert addresses("-192.0.2.0/24", late, "--json") == []
    assert addresses(f"{late} -score=0", "--json") == ["192.0.2.8"]
    assert addresses("-score>=0 -mta:5*", "--json", late) == ["192.0.2.8"]
    assert addresses("--json", late, "--", "-mail") == ["192.0.2.8"]
    assert addresses("--json", late, "mail") == ["192.0.2.7"]


def test_nothing_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, folder, "score>=99") == (0, "", "fastscreen: no session matches\n")
    assert run(capsys, folder, "score>=99", "--json") == (0, "", "fastscreen: no session matches\n")


def test_a_folder_with_a_space_is_no_term(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spaced = folder.rename(folder.with_name("my history"))
    assert main(["history", f"--path={spaced}", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(HOSTILE) + 6
    for wrong in (f"--pathh={spaced}", "--mail from"):
        with pytest.raises(SystemExit, match="2"):
            main(["history", f"--path={spaced}", wrong])
        assert "unrecognized arguments: --" in capsys.readouterr().err


def test_nothing_found_of_a_client_whose_address_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = historyfiles.make(tmp_path / "h", [known(0, "192.0.2.0")])
    config = tmp_path / "fastscreen.toml"
    text = f'hostname = "mx.example"\n[handoff]\nto = "sink:"\n[history]\npath = "{folder}"\n'
    hint = 'fastscreen: no session matches; history.mask = "/24 /48" cuts addresses: search for '
    without = "fastscreen: no session matches\n"
    for mask, words, said in (
        ('mask = "/24 /48"', ["192.0.2.1"], f"{hint}192.0.2.0/24\n"),
        ('mask = "/24 /48"', ["192.0.2.1", "--json"], f"{hint}192.0.2.0/24\n"),
        ('mask = "/24 /48"', ["2001:db8::1"], f"{hint}2001:db8::/48\n"),
        ('mask = "/24 /48"', ["198.51.100.0/24"], without),
        ('mask = "/24 /48"', ["helo:none"], without),
        ("", ["192.0.2.1"], without),
    ):
        config.write_text(text + mask)
        assert main(["history", "-c", str(config), *words]) == 0
        assert capsys.readouterr().err == said


# ---- what is wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["outcome:refused"], "filter: outcome:refused is unknown; expected left, handed_off"),
        (["list:nowhere"], "filter: list:nowhere is unknown; there are zen.example, bl.example, allow.example"),
        (["since:tomorrow"], "filter: since:tomorrow is not a time; expected now, today"),
        (["export"], "history export: --format is missing; expected jsonl, csv, parquet"),
        (["export", "--format", "csv", "--json"], "history export: --json, --csv and --table are not for export"),
        (["--format", "csv"], "--format is only for `history export`; use --json or --csv"),
        (["-o", "x"], "-o is only for `history export`"),
    ],
)
def test_wrong_usage(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, shown, problem = run(capsys, folder, *words)
    assert (code, shown) == (2, "")
    assert problem.startswith(f"fastscreen: {said}") and problem.count("\n") == 1


def test_no_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert run(capsys, missing) == (1, "", f"fastscreen: {missing}: missing; expected the folder of history.path\n")
    assert main(["history", "-c", str(tmp_path / "x.toml")]) == 2
    assert "x.toml" in capsys.readouterr().err


def test_a_damaged_day(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(folder, (NOON + 86400) * 1_000_000)
    path.write_bytes(b"x" * 8192)
    code, shown, said = run(capsys, folder, "192.0.2.8")
    assert code == 1 and "handed off to the MTA" in shown
    assert said == f"fastscreen: warning: {path}: damaged (file is not a database); sessions of this day are missing\n"


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for least, shown in ((1, True), (1000, False)):
        monkeypatch.setattr(history, "_PROGRESS", least)
        monkeypatch.setattr(history, "_PROGRESS_STEP", 0.0)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["history", "--path", str(folder), "score>=3"]) == 0
        said = terminal.getvalue()
        assert ("\r 99 % of 21 sessions read" in said) == shown
        assert said.endswith("\r\x1b[K") == shown
        assert capsys.readouterr().out.count("\n") == len(HOSTILE) + 1


# ---- the report


def test_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> tuple[int, str, str]:
        return main(["report", "--history", str(folder), *words]), *capsys.readouterr()

    code, shown, said = told("--json")
    assert (code, said) == (0, "")
    found = json.loads(shown)
    assert (found["source"], found["totals"]["connect"], found["lines"]) == ("history", 21, 21)
    assert found["outcomes"]["rejected"] == len(HOSTILE)
    assert json.loads(told("--json", "-d", "2026-11-21")[1])["totals"] == {}
    for words in (["-d", "2026-11-22"], ["-q"]):
        code, shown, said = told(*words)
        assert (code, said) == (0, "") and "sessions from Nov 22 11:59:53 to" in shown
    page = folder.parent / "report.html"
    assert told("--html", str(page))[0] == 0
    assert "sessions from 2026-11-22 11:59" in page.read_text() and "log lines" not in page.read_text()
    file_of(folder, (NOON + 86400) * 1_000_000).write_bytes(b"x" * 8192)
    code, shown, said = told()
    assert code == 1 and "damaged (file is not a database)" in said and "damaged (" in shown.partition("Notes")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "today", "--what-if", "threshold=3"], "not together with --what-if (use `fastscreen tune`)"),
        (["--rej-add-from"], "not together with --rej-add-from"),
        (["--syslog-name", "x"], "not together with --syslog-name"),
    ],
)
def test_a_report_from_the_history_lacks_options(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["report", "--history", str(folder), *words]) == 2
    assert capsys.readouterr().err == f"fastscreen: report --history: {said}\n"
    assert main(["report", "--history", str(folder / "missing")]) == 1
    assert "missing; expected the folder of history.path" in capsys.readouterr().err
    assert main(["report", "/var/log/mail.log", "--history", str(folder)]) == 2
    assert capsys.readouterr().err == "fastscreen: report --history: not together with FILE\n"


def test_the_folder_of_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder.parent / "fastscreen.toml"
    usual = 'hostname = "mx.example"\n[handoff]\nto = "sink:"\n'
    for text, code, said in (
        (f'{usual}[history]\npath = "{folder}"\n', 0, ""),
        (f'{usual}nonsense = 1\n[history]\npath = "{folder}"\n', 0, "note: "),
        (usual, 2, "history.path is empty"),
        (f"{usual}nonsense = 1", 2, "nonsense"),
    ):
        config.write_text(text)
        for command in (["history", "-c", str(config)], ["report", "--json", "--history", "-c", str(config)]):
            if code == 0 and said and command[0] == "report":
                continue  # a report needs the names of the lists
            assert main(command) == code, text
            shown, problem = capsys.readouterr()
            assert said in problem and (code == 0) == bool(shown)


def test_records_of_another_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = sqlite3.connect(file_of(folder, NOON * 1_000_000))
    writer.execute("UPDATE sessions SET record = x'02' || substr(record, 2) WHERE id % 2 = 0 AND id < ?",
                   ((NOON + 2) * 1_000_000 << COUNT_BITS,))  # fmt: skip
    count = writer.total_changes
    writer.commit()
    writer.close()
    assert count == 2
    for words, shown in ((["--limit", "0"], 19), (["score>=3"], len(HOSTILE) - 2)):
        code, table, said = run(capsys, folder, *words)
        assert (code, len(table.splitlines()) - 1) == (1, shown)
        assert (
            said == "fastscreen: warning: 2 sessions omitted: recorded by another version of fastscreen, or damaged\n"
        )


# ---- a client's life


def test_responses_to_a_score_are_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks = ("new", "passed", "score_deferred", "slowed")
    rows = [deferred(1, marks=marks), row(2, outcome="continued", stage="relay", marks=("passed", "doubtful"))]
    historyfiles.make(tmp_path / "h", rows)
    _, shown, _ = run(capsys, tmp_path / "h")
    assert [line for line in shown.splitlines() if " passed,score,slowed " in line]
    assert [line for line in shown.splitlines() if " doubtful" in line]


def test_a_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(historyfiles.SETTINGS, threshold=5, shadow=True)
    rows = [
        listed(-7200),
        listed(0, lists=3, score=5, name=b"other-pc"),
        deferred(600),
        known(900),
        *(known(960 + 60 * at) for at in range(5)),
        row(2000, outcome="relayed", stage="relay", marks=("cached", "passed"), mta_reply=550, mta_accepted=1,
            mta_rejected=2, tls="1.3", recipients=3),
        listed(90_000, score=5, outcome="handed_off", failed=(), spared=550, settings=number(encode(other)),
               marks=("spared", "lists_judged")),
    ]  # fmt: skip
    folder = tmp_path / "h"
    historyfiles.make(
        folder, rows, {historyfiles.NUMBER: encode(historyfiles.SETTINGS), number(encode(other)): encode(other)}
    )
    code, shown, said = run(capsys, folder, "192.0.2.1")
    assert (code, said) == (0, "")
    assert (
        shown
        == """\
192.0.2.1

2026-11-22 09:59:53  rejected with 550 after 7.0 s
    failed the dnsbl test
    listed by zen.example (127.0.0.2)
    score 3, threshold 3 (dnsbl 3)
    HELO user-pc, 5 commands, 1 recipient

2026-11-22 11:59:53  rejected with 550 after 7.0 s
    came back after 1 h 59 min
    changed since then: listed by bl.example (127.0.0.2)
    changed since then: its HELO name
    failed the dnsbl test
    listed by zen.example (127.0.0.2), bl.example (127.0.0.2)
    score 5, threshold 3 (dnsbl 5)
    HELO other-pc, 5 commands, 1 recipient

2026-11-22 12:09:53  deferred with 450 after 7.0 s
    came back after 9 min 53 s
    changed since then: no longer listed by zen.example, bl.example
    changed since then: its HELO name
    passed the tests (PASS NEW)
    HELO mail.example, 5 commands, 1 recipient

2026-11-22 12:14:59  handed off to the MTA after 0 ms
    came back after 5 min
    known (PASS OLD)
    5 more sessions like this until 2026-11-22 12:20:00, each after 1 min

2026-11-22 12:33:19  relayed to the MTA after 1.0 s
    came back after 13 min 19 s
    known (PASS OLD)
    TLS 1.3, 3 recipients
    the MTA's last reply 550, 1 message accepted, 2 rejected with 5xx

2026-11-23 12:59:53  handed off to the MTA after 7.0 s
    came back after 1 d
    changed since then: the settings: dnsbl.threshold 3 → 5, shadow mode on
    failed the dnsbl test, which was ignored
    would have been rejected with 550 without shadow mode
    listed by zen.example (127.0.0.2)
    score 5, threshold 5 (dnsbl 5)
    HELO user-pc, 5 commands, 1 recipient

11 sessions from 2026-11-22 09:59:53 to 2026-11-23 13:00:00: 7 handed off, 2 rejected, 1 deferred, 1 relayed
"""
    )
    _, shown, _ = run(capsys, folder, "192.0.2.1", "--limit", "1")
    assert shown.splitlines()[:2] == ["192.0.2.1", "(only the latest 1 session)"]
    assert shown.splitlines()[-1].startswith("1 session from ")


def test_a_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which address came in place of which."""
    _, shown, _ = run(capsys, folder, "192.0.2.0/24", f"since:@{NOON + 590}")
    assert (
        shown
        == """\
192.0.2.0/24

2026-11-22 12:09:53  192.0.2.7        deferred with 450 after 7.0 s
    passed the tests (PASS NEW)
    HELO mail.example, 5 commands, 1 recipient

2026-11-22 12:11:39  192.0.2.8        handed off to the MTA after 0 ms
    came 1 min 40 s after 192.0.2.7 was deferred
    known (PASS OLD)

2 sessions of 2 addresses from 2026-11-22 12:09:53 to 2026-11-22 12:11:40: 1 deferred, 1 handed off
"""
    )


def test_sessions_at_the_same_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = historyfiles.make(tmp_path / "h", [deferred(7), deferred(8, lasted=5_000_000)])
    _, shown, _ = run(capsys, folder, "192.0.2.1")
    assert "    began before its previous session had ended\n" in shown


def test_a_life_of_any_length_needs_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network with more clients than are remembered, and a client with sessions that differ."""
    rows = [known(at, f"10.{at >> 8}.{at & 255}.1") for at in range(12_000)]
    folder = historyfiles.make(tmp_path / "h", rows)
    code, shown, _ = run(capsys, folder, "10.0.0.0/8")
    assert code == 0
    assert shown.splitlines()[-1].startswith("12,000 sessions of more than 10,000 addresses from ")


# ---- export


def test_formats_have_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {}
    for form in export.FORMATS:
        files[form] = tmp_path / f"out.{form}"
        code, _, said = run(capsys, folder, "export", "--format", form, "-o", str(files[form]), "-outcome:rejected")
        assert (code, said) == (0, f"fastscreen: 6 sessions written to {files[form]}\n")
        assert files[form].stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    rows = list(csv.DictReader(files["csv"].open()))
    table = parquet.read_table(files["parquet"])
    assert [tuple(each) for each in lines] == [NAMES] * 6
    assert tuple(rows[0]) == tuple(table.column_names) == NAMES
    for line, cells, found in zip(lines, rows, table.to_pylist(), strict=True):
        assert (float(cells["ended"]), found["ended"].timestamp()) == (line["ended"], line["ended"])
        for name in ("address", "port", "outcome", "helo", "tls", "settings", "weight", "stage"):
            assert (cells[name], found[name]) == (str(line[name]), line[name])
        for name in ("verdict", "score", "reply", "mta_reply"):
            assert (cells[name], found[name]) == ("" if line[name] is None else str(line[name]), line[name])
        for name in ("made", "marks", "found"):
            assert (cells[name].split(), found[name]) == (line[name], line[name])


def test_lists_in_each_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [listed(0, lists=3, score=5, silent=4, evidence=("helo_address",))]
    folder = historyfiles.make(tmp_path / "h", rows)
    _, shown, _ = run(capsys, folder, "--json")
    line = json.loads(shown)
    assert line["lists"] == [
        {"list": "zen.example", "state": "listed", "answers": ["127.0.0.2"]},
        {"list": "bl.example", "state": "listed", "answers": ["127.0.0.2"]},
        {"list": "allow.example", "state": "silent", "answers": []},
    ]
    assert line["parts"] == {"dnsbl": 5, "helo_address": 2}
    (cells,) = csv.DictReader(io.StringIO(run(capsys, folder, "--csv")[1]))
    assert cells["lists"] == "zen.example=127.0.0.2 bl.example=127.0.0.2 allow.example:silent"
    assert cells["parts"] == "dnsbl=5 helo_address=2"
    file = tmp_path / "out.parquet"
    run(capsys, folder, "export", "--format", "parquet", "-o", str(file))
    (found,) = parquet.read_table(file).to_pylist()
    assert found["lists"] == line["lists"] and dict(found["parts"]) == line["parts"]


def test_row_groups_are_written_as_they_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ROW_GROUP", 100)
    folder = historyfiles.make(tmp_path / "h", [known(at) for at in range(250)])
    file = tmp_path / "out.parquet"
    assert run(capsys, folder, "export", "--format", "parquet", "-o", str(file))[0] == 0
    found = parquet.ParquetFile(file)
    assert [found.metadata.row_group(at).num_rows for at in range(found.num_row_groups)] == [100, 100, 50]


def test_export_without_pyarrow(folder: Path, tmp_path: Path) -> None:
    """The other formats do not need it."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')")
    command = [sys.executable, "-m", "fastscreen", "history", "--path", str(folder), "export", "--format"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = subprocess.run([*command, "parquet", "-o", str(tmp_path / "out")], capture_output=True, env=environment)
    assert (told.returncode, told.stdout) == (1, b"")
    assert told.stderr.startswith(
        b"fastscreen: history export: --format parquet: pyarrow is missing; install it with `pip install"
    )
    assert not [each for each in tmp_path.iterdir() if "out" in each.name], "nothing is left"
    assert subprocess.run([*command, "jsonl"], capture_output=True, env=environment).returncode == 0


def test_a_file_that_cannot_be_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, folder, "export", "--format", "jsonl", "-o", str(tmp_path / "no" / "file"))
    assert (code, said) == (1, f"fastscreen: {tmp_path}/no/file: cannot be written: No such file or directory\n")
    for form in export.FORMATS:
        code, _, said = run(capsys, folder, "export", "--format", form, "-o", "/dev/full")
        assert (code, said) == (1, "fastscreen: /dev/full: cannot be written: No space left on device\n"), form


def test_an_interrupted_export_leaves_the_old_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.csv"
    file.write_text("old")
    file.chmod(0o640)

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "_csv_lines", interrupted)
        assert run(capsys, folder, "export", "--format", "csv", "-o", str(file))[0] == 130
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir() if "out" in each.name] == ["out.csv"]
    assert run(capsys, folder, "export", "--format", "csv", "-o", str(file))[0] == 0
    assert file.read_text().startswith("began,ended,") and file.stat().st_mode & 0o777 == 0o640


def test_the_reader_of_a_pipe_leaves(folder: Path) -> None:
    command = f"{sys.executable} -m fastscreen history --path {folder} export --format jsonl | head -n 1"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (told.stderr, told.stdout.count("\n")) == ("", 1)
