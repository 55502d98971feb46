"""`fastscreen tune` on a history: what it prints, and what it says when it cannot."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import historyfiles
import msgspec
import pytest
from historyfiles import NOON, SETTINGS, deferred, known, listed, row

from fastscreen.cli import main
from fastscreen.cli import tune as command
from fastscreen.core import SCORERS
from fastscreen.history.day import Row
from fastscreen.history.settings import TestSettings, encode, number
from fastscreen.tune.suggest import Weights

DEEP = ("pipelining", "non_smtp_command", "bare_newline")
LISTED: dict[str, Any] = {"needed": ("pregreet", "dnsbl", *DEEP, "score"), "made": ("pregreet", "dnsbl", *DEEP)}
DEFERRED: dict[str, Any] = {"needed": LISTED["needed"], "made": LISTED["needed"]}
NO_MASK = (
    "fastscreen: note: no configuration says whether addresses are cut (history.mask); they count as whole; "
    "use -c FILE\n"
)
ROWS = [
    *(listed(at, f"192.0.2.{at}", 1, 3, **LISTED) for at in range(1, 6)),
    *(listed(600 + at, f"192.0.2.{at}", 3, 5, **LISTED) for at in range(1, 3)),
    *(deferred(at, f"198.51.100.{at}", **DEFERRED) for at in range(1, 9)),
    *(known(300 + at, f"198.51.100.{at}") for at in range(1, 9)),
    deferred(20, "203.0.113.1", **DEFERRED, listed=2, lists_total=2, lists_lowest=2, lists_highest=2),
    known(400, "203.0.113.1"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "USUAL_FILE", tmp_path / "missing.toml")
    return historyfiles.make(tmp_path / "history", ROWS, parts=2)


def tune(capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    assert main(["tune", "--path", str(folder), *words]) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_settings_in_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a configuration, those of the history."""
    out, err = tune(capsys, folder, "--json")
    found = json.loads(out)
    assert err == NO_MASK
    assert found["warnings"] == []
    assert found["happened"] == found["would"]
    assert found["cannot_be_judged"] == {}
    assert found["happened"]["rejected"] == {"sessions": 7, "clients": 5}
    assert (found["sessions"], found["clients"], found["good"]) == (25, 14, 9)
    assert found["settings"] == {"source": "recorded settings", "changed": {}, "not_judged": []}
    assert found["memory"] > 0
    text, _ = tune(capsys, folder)
    assert "25 sessions of 14 clients\nSettings: those of recorded settings, unchanged\n" in text
    assert "Changes                                sessions\n  none\n" in text


def test_another_threshold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = tune(capsys, folder, "--set", "dnsbl.threshold=2", "--json")
    found = json.loads(out)
    assert found["would"]["rejected"] == {"sessions": 8, "clients": 6}
    assert found["cannot_be_judged"] == {"test": 1}, "the client would have been tested when it came back"
    assert found["collateral"]["would"]["rejected"] == {"sessions": 1, "clients": 1}
    assert found["collateral"]["happened"]["rejected"] == {"sessions": 0, "clients": 0}
    assert found["examples"]["collateral"] == [{"client": "203.0.113.1", "kinds": ["retried", "on_list"]}]
    text, _ = tune(capsys, folder, "--set", "dnsbl.threshold=2")
    assert "  dnsbl.threshold = 2  (instead of 3)\n" in text
    assert re.search("\n  deferred → rejected +1\n", text)
    assert "    share of good clients                            0.0 %                11.1 %\n" in text
    assert "Good clients that would only now be rejected, up to 10 of them\n  203.0.113.1 " in text
    assert "             1  a test was not made, or not to its end\n" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_contributions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = tune(capsys, folder, "--json")
    features = {each["name"]: each for each in json.loads(out)["features"]}
    assert {key: features["list:zen.example"][key] for key in ("sessions", "clients", "decisive", "good")} == {
        "sessions": 7, "clients": 5, "decisive": 7, "good": 0}  # fmt: skip
    assert (features["list:bl.example"]["sessions"], features["list:bl.example"]["good"]) == (3, 1)


def test_a_period(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = tune(capsys, folder, "--since", f"@{NOON + 500}", "--json")
    assert json.loads(out)["sessions"] == 2
    out, _ = tune(capsys, folder, "--until", f"@{NOON + 60}", "--json")
    assert json.loads(out)["sessions"] == 14
    _, err = tune(capsys, folder, "--since", "2030-01-01", code=1)
    assert "no sessions in this period" in err
    _, err = tune(capsys, folder, "--since", "@20", "--until", "@10", code=2)
    assert "--since is not before --until" in err
    _, err = tune(capsys, folder, "--until", "tomorow", code=2)
    assert err.startswith("fastscreen: --until tomorow is not a time; expected now, today")


def test_a_configuration(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings are those in force, and it says where the history is."""
    file = tmp_path / "fastscreen.toml"
    sites = '["zen.example=127.0.0.[2..11]*3", "bl.example*2", "allow.example*-2"]'
    file.write_text(f'hostname = "mx.example"\n[dnsbl]\nsites = {sites}\nthreshold = 9\n[history]\npath = "{folder}"\n')
    assert main(["tune", "-c", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"]["source"], found["sessions"]) == (str(file), 25)
    other = tmp_path / "other.toml"
    other.write_text(f'hostname = "mx.example"\n[dnsbl]\nsites = {sites}\nthreshold = 8\n[greet]\nwait = "9s"\n')
    assert main(["tune", "-c", str(file), "--with", str(other), "--json"]) == 0
    printed = capsys.readouterr()
    assert "also has other values of greet.wait, which tune cannot judge" in printed.err
    assert json.loads(printed.out)["settings"]["changed"] == {"dnsbl.threshold": {"in_force": "9", "tried": "8"}}
    file.write_text('hostname = "mx.example"\n')
    assert main(["tune", "-c", str(file)]) == 2
    assert "history.path is empty; expected the folder of the history" in capsys.readouterr().err


def test_cut_addresses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(f'hostname = "mx.example"\n[history]\npath = "{folder}"\nmask = "/24 /48"\n')
    assert main(["tune", "-c", str(file), "--json"]) == 0
    assert "clients of one network count as one" in capsys.readouterr().err
    other = tmp_path / "other.toml"
    other.write_text('hostname = "mx.example"\n')
    assert main(["tune", "-c", str(file), "--with", str(other), "--json"]) == 0
    assert "clients of one network count as one" in capsys.readouterr().err, "the addresses are those recorded"
    _, err = tune(capsys, folder, "--with", str(other))
    assert NO_MASK in err, "it does not say how they were recorded"
    _, err = tune(capsys, folder, "--with", str(file))
    assert "clients of one network count as one" in err
    assert NO_MASK not in err


def test_a_suggestion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = tune(capsys, folder, "--suggest", "--json")
    found = json.loads(out)
    assert found["period"]["first"] < found["split"] < found["period"]["last"]
    assert found["suggestion"]["clients"]["first_two_thirds"]["in_force"]["bad"] == 5
    assert found["suggestion"]["clients"]["first_two_thirds"]["suggested"]["good"] == 0
    text, _ = tune(capsys, folder, "--suggest", "--max-collateral", "50%")
    assert "Suggestion" in text and "The last third with the suggestion\n" in text


def weights(*lists: int, **scorers: int) -> Weights:
    return Weights(3, (*lists, *(scorers.get(scorer.key, 0) for scorer in SCORERS[1:])))


WITHOUT_LISTS = msgspec.structs.replace(
    SETTINGS,
    lists=(),
    sites=(),
    allowlist_threshold=0,
    continues=True,
    tests={
        **SETTINGS.tests,
        "dnsbl": TestSettings(False, "enforce", 60),
        "score": TestSettings(True, "shadow", 86400),
    },
    weights={"helo_reserved": 1},
)


def scored(second: float, client: str, *evidence: str, **fields: Any) -> Row:
    """A session that was judged without lists, and continued with the MTA."""
    tests = ("pregreet", *DEEP, "score")
    usual: dict[str, Any] = {"outcome": "continued", "stage": "relay", "needed": tests, "made": tests, "score": 0}
    usual |= {"name": b"localhost" if evidence else b"mail.provider.se", "evidence": evidence, "recipients": 1}
    usual |= {"settings": number(encode(WITHOUT_LISTS)), "commands": 3, "verdict": 250, "mta_recipients": 1}
    return row(second, client, **usual | {"marks": ("new", "passed", "esmtp")} | fields)


def without_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *rows: Row) -> Path:
    """Their history."""
    monkeypatch.setattr(command, "USUAL_FILE", tmp_path / "missing.toml")
    packed = encode(WITHOUT_LISTS)
    return historyfiles.make(tmp_path / "history", rows, {number(packed): packed})


def test_scores_without_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the other scorers, so they are all known."""
    folder = without_lists(
        tmp_path,
        monkeypatch,
        *(scored(at, f"192.0.2.{at}", "helo_reserved", mta_rejected=1) for at in range(1, 6)),
        *(scored(100 + at, f"198.51.100.{at}", mta_accepted=1) for at in range(1, 9)),
        *(scored(9000 + at, f"203.0.113.{at}", "helo_reserved", mta_rejected=1) for at in range(1, 4)),
    )
    found = json.loads(tune(capsys, folder, "--suggest", "--json")[0])["suggestion"]
    first, last = (found["clients"][part]["suggested"] for part in ("first_two_thirds", "last_third"))
    assert (first["bad"], first["bad_of"], first["good"], first["good_of"]) == (5, 5, 0, 8)
    assert (last["bad"], last["bad_of"]) == (3, 3)


def test_a_score_without_consequences_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [scored(at, f"192.0.2.{at}", "helo_reserved", mta_rejected=1) for at in range(1, 6)]
    folder = without_lists(tmp_path, monkeypatch, *rows)
    out, err = tune(capsys, folder, "--set", "score.helo_reserved=3", "--json")
    assert json.loads(out)["would"]["rejected"]["sessions"] == 0
    note = "fastscreen: note: by {}, the score rejects no client; add --set {} to see whom it would reject\n"
    assert note.format("score.action", "score.action=enforce") in err
    changes = ("--set", "score.helo_reserved=3", "--set", "score.action=enforce")
    out, err = tune(capsys, folder, *changes, "--json")
    assert json.loads(out)["would"]["rejected"]["sessions"] == 5
    assert "rejects no client" not in err
    _, err = tune(capsys, folder, *changes, "--set", "mode=shadow")
    assert note.format("mode", "mode=screen") in err
    _, err = tune(capsys, folder, "--set", "score.helo_reserved=0")
    assert "rejects no client" not in err


@pytest.mark.parametrize(
    "suggested",
    [weights(0, 0, 0), weights(3, 2, -2, helo_not_qualified=1)],
    ids=["no lists", "a session that cannot be judged then"],
)
def test_a_suggestion_does_not_change_who_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, suggested: Weights
) -> None:
    """Which clients of the last third are good or bad, and how many are rejected in force, is the same for all."""
    score: dict[str, Any] = dict.fromkeys(("score", "lists_total", "lists_lowest", "lists_highest"), 2)
    rows = [
        *(listed(at, f"192.0.2.{at // 100}", 1, 3, **LISTED) for at in (0, 600, 900)),
        deferred(910, "198.51.100.1", **DEFERRED | score, listed=2, answers=((1, 127 << 24 | 2),), name=b"x" * 63),
    ]
    folder = historyfiles.make(tmp_path / "history", rows)
    monkeypatch.setattr(command, "USUAL_FILE", tmp_path / "missing.toml")
    monkeypatch.setattr(command, "suggest", lambda *_, **__: suggested)
    out, _ = tune(capsys, folder, "--suggest", "--json")
    assert json.loads(out)["suggestion"]["clients"]["last_third"]["in_force"] == {
        "good": 0, "good_of": 0, "bad": 1, "bad_of": 2}  # fmt: skip


def test_a_suggestion_with_other_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is compared with what is tried, and says so."""
    text, _ = tune(capsys, folder, "--suggest", "--set", "dnsbl.threshold=2")
    assert "  dnsbl.threshold = 2  (instead of 3)\n" in text
    assert re.search(r"\nClients that the score rejects +tried +suggested\n", text)
    out, _ = tune(capsys, folder, "--suggest", "--set", "dnsbl.threshold=2", "--json")
    assert set(json.loads(out)["suggestion"]["clients"]["last_third"]) == {"tried", "suggested"}
    text, _ = tune(capsys, folder, "--suggest")
    assert "Settings: those of recorded settings, unchanged\n" in text
    assert re.search(r"\nClients that the score rejects +in force +suggested\n", text)


def test_a_suggestion_says_which_scorers_lose_their_weight(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "suggest", lambda *_, **__: weights(3, 2, -2, helo_reserved=1))
    out, _ = tune(capsys, folder, "--suggest", "--json")
    assert json.loads(out)["suggestion"]["toml"].endswith("\n[score]\nhelo_address = 0\nhelo_reserved = 1\n")


def test_labels_are_those_of_the_recorded_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list that is removed does not change which clients are good or bad."""
    before, _ = tune(capsys, folder, "--json")
    after, _ = tune(capsys, folder, "--set", "dnsbl.sites=bl.example*-2", "--json")
    assert [json.loads(before)[key] for key in ("good", "bad")] == [json.loads(after)[key] for key in ("good", "bad")]


def test_a_progress_bar(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal only."""
    monkeypatch.setattr(command, "_MIN_PROGRESS", 1)
    _, err = tune(capsys, folder, "--json")
    assert err == NO_MASK
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, err = tune(capsys, folder, "--json")
    assert "judging" in err and "25/25" in err


def test_a_damaged_day(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, the rest is judged, and the exit code says that something is missing."""
    (damaged,) = folder.glob("*.2.sqlite")
    damaged.write_bytes(b"x" * 5000)
    out, err = tune(capsys, folder, "--json", code=1)
    found = json.loads(out)
    assert found["sessions"] == 13
    (warning,) = found["warnings"]
    assert "damaged" in warning
    assert f"fastscreen: warning: {warning}\n" in err
    out, _ = tune(capsys, folder, "--suggest", "--json", code=1)
    assert json.loads(out)["warnings"] == [warning]
    text, _ = tune(capsys, folder, code=1)
    assert "13 sessions of " in text


def test_no_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = tune(capsys, tmp_path / "nothing", code=1)
    assert "missing; expected the folder of history.path" in err
    (tmp_path / "empty").mkdir()
    _, err = tune(capsys, tmp_path / "empty", code=1)
    assert "no sessions in this period" in err


@pytest.mark.parametrize(
    ("share", "value"), [("0.1%", 0.001), ("1 %", 0.01), ("0.25", 0.25), ("0", 0.0), ("101%", None), ("x", None)]
)
def test_shares(share: str, value: float | None, capsys: pytest.CaptureFixture[str]) -> None:
    if value is None:
        with pytest.raises(SystemExit):
            main(["tune", "--max-collateral", share])
        assert "is not a share" in capsys.readouterr().err
    else:
        assert command._share(share) == value
