"""fastscreen reload, reopen, restart, stop: they wait for the outcome and report it."""

import itertools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands.conftest import Ask, Server
from commands.fakeserver import HELLO, Error, FakeServer
from commands.test_status import STATUS
from fastscreen.cli import main, orders

DONE = {"begun": 3, "finished": 3, "ok": True, "text": "", "time": 1763851600.0, "success_time": 1763851600.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PAUSE", 0.01)


def outcomes(what: str, *later: dict[str, Any]) -> Callable[[object], dict[str, Any]]:
    """Answers to `status`, one after the other; the last one again and again."""
    each = itertools.chain([DONE], later, itertools.repeat(later[-1]))
    return lambda request: {**STATUS, what: next(each)}


UNDER_WAY = {**DONE, "begun": 4}
EARLIER = {**DONE, "begun": 5, "finished": 4, "ok": False, "text": "another one's"}


@pytest.mark.parametrize(("what", "text"), [("reload", "configuration reloaded"), ("reopen", "log reopened")])
def test_a_good_outcome(server: Server, ask: Ask, what: str, text: str) -> None:
    """That of this attempt, not of one that was under way already."""
    good = {**DONE, "begun": 5, "finished": 5, "text": text}
    daemon = server({what: {"number": 5}, "status": outcomes(what, UNDER_WAY, EARLIER, good)})
    assert ask(what) == (0, f"{text}\n", "")
    assert [one["do"] for one in daemon.asked] == ["status", what, "status", "status", "status"]


@pytest.mark.parametrize("what", ["reload", "reopen"])
def test_a_refusal(server: Server, ask: Ask, what: str) -> None:
    bad = {**DONE, "begun": 5, "finished": 5, "ok": False, "text": "it will not\x1b do"}
    server({what: {"number": 5}, "status": outcomes(what, bad)})
    assert ask(what) == (1, "", "fastscreen: it will not\\033 do\n")


def test_json(server: Server, ask: Ask) -> None:
    bad = {**DONE, "begun": 4, "finished": 4, "ok": False, "text": "no"}
    server({"reload": {"number": 4}, "status": outcomes("reload", bad)})
    code, printed, _ = ask("reload", "--json")
    assert (code, json.loads(printed)) == (1, {"ok": False, "text": "no"})


@pytest.mark.parametrize("what", ["reload", "reopen", "restart", "stop"])
def test_no_outcome_in_time(server: Server, ask: Ask, what: str) -> None:
    answer = {"number": 4, "pid": HELLO["pid"], "started": STATUS["started"]}
    server({what: answer, "status": outcomes(what, UNDER_WAY)})
    code, printed, said = ask(what, "--timeout", "0.1")
    assert (code, printed) == (1, "")
    assert said.startswith(f"fastscreen: {what}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["reload", "reopen"])
def test_started_again_meanwhile(server: Server, ask: Ask, what: str) -> None:
    """The numbers of another daemon are not those that were waited for."""
    answers = itertools.chain([STATUS], itertools.repeat({**STATUS, "started": 1.0, what: {**DONE, "finished": 99}}))
    server({what: {"number": 4}, "status": lambda request: next(answers)})
    code, _, said = ask(what)
    assert (code, "was restarted meanwhile" in said) == (1, True)


def test_restart_waits_for_the_new_one(server: Server, ask: Ask) -> None:
    answers = itertools.chain([STATUS] * 3, itertools.repeat({**STATUS, "started": 1763851599.0, "version": "0.2.0"}))
    server({"restart": {"pid": 4711, "started": STATUS["started"]}, "status": lambda request: next(answers)})
    assert ask("restart") == (0, "restarted: fastscreen 0.2.0, process 4711\n", "")


@pytest.mark.parametrize("left", [False, True])
def test_stop_waits_for_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], left: bool) -> None:
    """The socket is gone, or nobody listens at it."""
    path = tmp_path / "control"
    daemon = FakeServer(path, {"stop": {"pid": 4711, "started": 1.0}})

    def end() -> None:
        daemon.__exit__()
        if not left:
            path.unlink()

    thread = threading.Timer(0.3, end)
    thread.start()
    try:
        assert main(["stop", "--socket", str(path)]) == 0
    finally:
        thread.join()
    assert capsys.readouterr().out == "stopped: process 4711\n"


@pytest.mark.parametrize(
    ("what", "instead", "number"),
    [
        ("reload", "systemctl reload fastscreen", "SIGHUP"),
        ("reopen", "systemctl kill -s USR1 --kill-whom=main fastscreen", "SIGUSR1"),
        ("restart", "systemctl restart fastscreen", "SIGUSR2"),
        ("stop", "systemctl stop fastscreen", "SIGTERM"),
    ],
)
def test_nobody_there(ask: Ask, what: str, instead: str, number: str) -> None:
    """It says how to do it without the control socket."""
    code, printed, said = ask(what)
    assert (code, printed) == (1, "")
    assert "no such socket" in said
    assert instead in said
    assert number in said
    assert said.count("\n") == 1


def test_without_the_right(server: Server, ask: Ask) -> None:
    server({"stop": Error("stop: only root and postfix may act")})
    assert ask("stop") == (1, "", "fastscreen: stop: only root and postfix may act\n")


def test_a_broken_file_is_no_obstacle(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """To reload is what one does after a mistake, and the answer is then the daemon's."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(f'[control]\npath = "{tmp_path}/control"\n[greet]\naction = enforce\n')
    bad = {**DONE, "begun": 4, "finished": 4, "ok": False, "text": "line 4: Invalid value"}
    server({"reload": {"number": 4}, "status": outcomes("reload", bad)})
    assert main(["reload", "-c", os.fspath(file)]) == 1
    assert "fastscreen: line 4: Invalid value\n" in capsys.readouterr().err
