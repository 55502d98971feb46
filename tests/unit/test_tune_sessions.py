"""`fastscreen tune --sessions`: labeled sessions of any origin, and files that are something else."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fastscreen.cli import main
from fastscreen.config import load
from fastscreen.tune import foreign
from fastscreen.tune.foreign import ForeignError

CONFIG = """\
hostname = "mx.example"
[dnsbl]
sites = ["zen.example=127.0.0.[2..11]*3", "bl.example*2", "allow.example*-4"]
threshold = 3
allowlist_threshold = -4
[greet]
action = "enforce"
[score]
helo_not_qualified = 1
"""
SESSION: dict[str, Any] = {"time": "2026-11-01T00:00:00Z", "ip": "192.0.2.1", "label": "bad"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fastscreen.toml"
    file.write_text(CONFIG)
    return file


def write(folder: Path, *sessions: dict[str, Any] | str) -> Path:
    file = folder / "sessions.jsonl"
    file.write_text(
        "".join((each if isinstance(each, str) else json.dumps(SESSION | each)) + "\n" for each in sessions)
    )
    return file


def tune(capsys: pytest.CaptureFixture[str], config: Path, file: Path, *words: str) -> tuple[dict[str, Any], str]:
    assert main(["tune", "-c", str(config), "--sessions", str(file), "--json", *words]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


@pytest.mark.parametrize(
    ("session", "caught"),
    [
        ({}, False),
        ({"lists": {"zen.example": ["127.0.0.4"]}}, True),
        ({"lists": {"ZEN.example.": "127.0.0.4"}}, True),
        ({"lists": {"zen.example": ["127.0.0.20"]}}, False),
        ({"lists": {"bl.example": ["127.0.0.2"]}}, False),
        ({"lists": {"bl.example": ["127.0.0.2"]}, "helo": "user-pc"}, True),
        ({"lists": {"bl.example": ["127.0.0.2"]}, "helo": "mail.a-host.se"}, False),
        ({"lists": {"zen.example": ["127.0.0.4"], "allow.example": ["127.0.0.2"]}}, False),
        ({"findings": ["pregreet"]}, True),
        ({"findings": ["pregreet"], "lists": {"allow.example": ["127.0.0.2"]}}, False),
        ({"findings": ["pipelining"]}, False),  # the test is off
        ({"lists": {"unknown.example": ["127.0.0.2"]}}, False),
    ],
)
def test_a_session(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], session: dict[str, Any], caught: bool
) -> None:
    found, _ = tune(capsys, config, write(tmp_path, session))
    assert found["all"]["sessions"]["bad"] == {"count": 1, "caught": int(caught)}
    assert found["all"]["addresses"]["good"] == {"count": 0, "caught": 0}


def test_sessions_and_addresses(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address counts once, and is caught if one of its sessions is."""
    listed = {"lists": {"zen.example": ["127.0.0.4"]}}
    file = write(
        tmp_path, listed, {}, {}, {"ip": "2001:db8::1", "label": "good"} | listed, {"ip": "::ffff:192.0.2.1"},
        {"ip": "192.0.2.9", "label": "good", "tls": "unused"},
    )  # fmt: skip
    found, _ = tune(capsys, config, file)
    assert found["all"]["sessions"] == {"good": {"count": 2, "caught": 1}, "bad": {"count": 4, "caught": 1}}
    assert found["all"]["addresses"] == {"good": {"count": 2, "caught": 1}, "bad": {"count": 1, "caught": 1}}
    assert found["all"]["shown"]["tls:unused"]["good_addresses"] == 1
    found, _ = tune(capsys, config, file, "--set", "dnsbl.threshold=4")
    assert found["all"]["sessions"]["bad"]["caught"] == 0


BROKEN: dict[str, str] = {
    "{": "not JSON",
    "[" * 5000: "not JSON",
    "[]": "not a JSON object",
    '"x"': "not a JSON object",
    json.dumps(SESSION | {"label": "spam"}): "label: expected good or bad",
    json.dumps({key: SESSION[key] for key in ("time", "ip")}): "label: expected good or bad",
    json.dumps(SESSION | {"time": "yesterday"}): "time: expected seconds since 1970",
    json.dumps(SESSION | {"time": True}): "time: expected seconds since 1970",
    json.dumps(SESSION | {"time": 1e30}): "time: expected seconds since 1970",
    json.dumps(SESSION | {"time": float("nan")}): "time: expected seconds since 1970",
    json.dumps(SESSION | {"ip": "192.0.2.256"}): "ip: expected an IP address",
    json.dumps(SESSION | {"ip": 3221225985}): "ip: expected an IP address",
    json.dumps(SESSION | {"helo": ["x"]}): "helo: expected a string",
    json.dumps(SESSION | {"tls": "1.1"}): "tls: expected one of none, unused, used, 1.2, 1.3",
    json.dumps(SESSION | {"findings": ["dnsbl"]}): "findings: expected a list of pregreet,",
    json.dumps(SESSION | {"findings": "pregreet"}): "findings: expected a list of pregreet,",
    json.dumps(SESSION | {"lists": ["zen.example"]}): "lists: expected an object",
    json.dumps(SESSION | {"lists": {"zen.example": ["::1"]}}): "lists: expected an object",
    json.dumps(SESSION | {"lists": {"zen.example": [{}]}}): "lists: expected an object",
    json.dumps(SESSION | {"asn": "AS1.2"}): "asn: expected the number of an AS",
    json.dumps(SESSION | {"asn": True}): "asn: expected the number of an AS",
    json.dumps(SESSION | {"asn": 1 << 32}): "asn: expected the number of an AS",
    json.dumps(SESSION | {"helo": "x" * 70000}): "longer than 65536 bytes",
}


def test_broken_lines_are_counted_and_named_once(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*BROKEN, *BROKEN]
    file = write(tmp_path, {}, *lines, {}, "", "   ")
    file.write_bytes(file.read_bytes() + b"\xff\xfe\n")
    found, said = tune(capsys, config, file)
    assert found["all"]["sessions"]["bad"]["count"] == 2
    assert sum(each["count"] for each in found["broken"]) == len(lines) + 1
    for line, problem in BROKEN.items():
        (named,) = [
            each for each in said.splitlines() if problem in each and f"line {lines.index(line) + 2}:" in each
        ] or [next(each for each in said.splitlines() if problem in each)]
        assert "more like it; ignored" in named
    assert len(said.splitlines()) == len(found["broken"]) <= len(set(BROKEN.values())) + 2
    assert "x" * 100 not in said


def test_escapes_do_not_reach_the_terminal(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hostile names are judged, and nothing of them is printed."""
    hostile = {"helo": "\x1b]0;x\x07'; DROP TABLE sessions; --", "lists": {"\x1b[2Jzen": ["127.0.0.2"]}}
    file = write(tmp_path, hostile, {"label": "\x1b[2J"})
    assert main(["tune", "-c", str(config), "--sessions", str(file)]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "helo_not_qualified" in printed.out


def test_another_file_is_refused(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lines, problem in (
        (["{"] * 5000, "lines are not sessions; the first, line 1: not JSON"),
        ([""], "no sessions; expected a JSON object per line"),
        (["{}"], "no sessions: line 1: label: expected good or bad"),
    ):
        assert main(["tune", "-c", str(config), "--sessions", str(write(tmp_path, *lines))]) == 1
        assert problem in capsys.readouterr().err
    assert main(["tune", "-c", str(config), "--sessions", str(tmp_path / "missing")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(ForeignError):
        foreign.read(tmp_path, load(config))


def labeled(seed: int, days: int = 90) -> list[dict[str, Any]]:
    """Sessions with known shares: of 1,000 bad addresses, 200 are on both lists, 300 on the second only and have an
    unqualified HELO name, and 135 have a HELO address; of 500 good ones, 25 are on the second list, and 5 have an
    unqualified name.
    """
    rng = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(1000):
        lists = {}
        helo = "mail.provider-host.se"
        if number < 200:
            lists = {"zen.example": ["127.0.0.2"], "bl.example": ["127.0.0.2"]}
        elif number < 500:
            lists, helo = {"bl.example": ["127.0.0.2"]}, "user-pc"
        elif number < 635:
            helo = "[198.51.100.7]"
        tls = "unused" if number % 1000 < 616 else "1.3"
        made.append(
            {"ip": f"10.0.{number // 250}.{number % 250}", "label": "bad", "lists": lists, "helo": helo, "tls": tls}
        )
    for number in range(500):
        lists = {"bl.example": ["127.0.0.2"]} if number < 25 else {}
        helo = "user-pc" if 100 <= number < 105 else "mail.sender-host.se"
        tls = "unused" if number % 50 < 4 else "1.3"
        made.append(
            {"ip": f"10.1.{number // 250}.{number % 250}", "label": "good", "lists": lists, "helo": helo, "tls": tls}
        )
    sessions = [each | {"time": rng.uniform(0, days * 86400)} for each in made for _ in range(rng.randint(1, 3))]
    rng.shuffle(sessions)
    return sessions


def test_a_labeled_set_with_known_figures(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = tune(capsys, config, write(tmp_path, *labeled(1)))
    assert said == ""
    addresses = found["all"]["addresses"]
    assert addresses == {"good": {"count": 500, "caught": 0}, "bad": {"count": 1000, "caught": 500}}
    shown = found["all"]["shown"]
    assert (shown["list:zen.example"]["bad_addresses"], shown["list:bl.example"]["good_addresses"]) == (200, 25)
    assert (shown["scorer:helo_address"]["bad_addresses"], shown["tls:unused"]["bad_addresses"]) == (135, 616)
    assert shown["tls:unused"]["good_addresses"] == 40
    found, _ = tune(capsys, config, write(tmp_path, *labeled(1)), "--set", "dnsbl.threshold=2")
    assert found["all"]["addresses"]["good"]["caught"] == 25


def test_a_suggestion_for_it(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The search finds the HELO address, which no weight uses yet. A list that has good addresses stays below. The
    memory of offenses learns too late to help."""
    late = ("--feedback-delay", "90d")
    found, _ = tune(capsys, config, write(tmp_path, *labeled(2)), "--suggest", "--max-collateral", "0.1%", *late)
    suggestion = found["suggestion"]
    for part in ("first_two_thirds", "last_third"):
        old, new = suggestion["clients"][part]["in_force"], suggestion["clients"][part]["suggested"]
        assert old["bad"] == pytest.approx(0.5 * old["bad_of"], rel=0.1)
        assert new["bad"] == pytest.approx(0.635 * new["bad_of"], rel=0.1)
        assert new["good"] == 0
    assert "helo_address = " in suggestion["toml"]
    caught = found["last_third"]["addresses"]
    assert caught["good"]["caught"] == 0
    assert caught["bad"]["caught"] == suggestion["clients"]["last_third"]["suggested"]["bad"]
    (tmp_path / "suggested.toml").write_text('hostname = "mx.example"\n' + suggestion["toml"])
    again, _ = tune(capsys, tmp_path / "suggested.toml", write(tmp_path, *labeled(2)), *late)
    assert again["all"]["addresses"]["good"]["caught"] == 0


def test_a_suggestion_reports_what_is_caught(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failed tests and the allow list count in its table, although the search does not know them."""
    zen: dict[str, Any] = {"lists": {"zen.example": ["127.0.0.4"]}}
    allowed: dict[str, Any] = {"lists": {"allow.example": ["127.0.0.2"]}, "findings": ["pregreet"]}
    sessions = []
    for at in range(30):
        kind: dict[str, Any] = (zen, {"findings": ["pregreet"]}, {"label": "good"}, {"label": "good"} | allowed)[at % 4]
        sessions.append({"time": 1_795_000_000 + 60 * at, "ip": f"192.0.2.{at}"} | kind)
    file = write(tmp_path, *sessions)
    found, _ = tune(capsys, config, file, "--suggest")
    rows = found["suggestion"]["clients"]
    for key in ("in_force", "suggested"):
        for row in (rows["first_two_thirds"][key], rows["last_third"][key]):
            assert (row["bad"], row["good"]) == (row["bad_of"], 0)
    assert rows["first_two_thirds"]["in_force"]["bad_of"] + rows["last_third"]["in_force"]["bad_of"] == 16
    good = found["last_third"]["addresses"]["good"]
    assert good == {"count": rows["last_third"]["suggested"]["good_of"], "caught": 0}
    assert main(["tune", "-c", str(config), "--sessions", str(file), "--suggest", "--set", "dnsbl.threshold=4"]) == 0
    out = capsys.readouterr().out
    assert "  dnsbl.threshold = 4  (instead of 3)\n" in out
    assert "Addresses that are caught" in out
