"""`fastscreen reload`, `reopen` and `stop` against a real daemon; a refused reload stays visible until a good one.

`restart` is in test_restart.py.
"""

import json
import subprocess
from pathlib import Path

import pytest

from robust import harness
from robust.conftest import Start
from robust.control import Map
from robust.fakemta import FakeMta
from robust.harness import TEASER, merge, wait_until
from robust.reachable import wrap
from robust.test_control import connected, eventually
from robust.test_metrics import samples, scraped, there


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path) -> Map:
    return {"control": {"path": str(path)}}


def command(path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    program = [str(harness.COMMAND), *words, "--socket", str(path)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)


def test_a_refused_reload_stays_visible(start: Start, path: Path, settings: Map, folder: Path) -> None:
    place = str(folder / "run" / "metrics")
    settings = merge(settings, {"metrics": {"listen": f"unix:{place}"}})
    screener = start(settings)
    with connected(path) as control:
        wait_until(lambda: there(place), "metrics")
        first = samples(scraped(place))
        assert first["fastscreen_config_last_reload_successful", ""] == 1
        began = first["fastscreen_config_last_reload_success_timestamp_seconds", ""]
        assert began == pytest.approx(control.hello["started"])
        good = screener.config.read_text()
        screener.config.write_text(good + "\n[dnsbl2]\ntreshold = 3\n")
        refused = command(path, "reload")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "configuration not taken over: " in refused.stderr
        assert "dnsbl2" in refused.stderr
        shown = command(path, "status")
        folded = " ".join(shown.stdout.split())
        assert "CONFIG: configuration not taken over: " in folded
        assert "fastscreen reload" in folded  # the remedy
        status = json.loads(command(path, "status", "--json").stdout)
        assert (status["reload"]["ok"], status["reload"]["finished"]) == (False, 1)
        assert [one["kind"] for one in status["conditions"]] == ["config"]
        bad = samples(scraped(place))
        assert bad["fastscreen_config_last_reload_successful", ""] == 0
        assert bad["fastscreen_config_last_reload_success_timestamp_seconds", ""] == began
        assert bad["fastscreen_condition", "config"] == 1
        screener.config.write_text(good)
        accepted = command(path, "reload", "--json")
        assert accepted.returncode == 0
        assert json.loads(accepted.stdout) == {"ok": True, "text": "configuration reloaded"}
        status = eventually(control, "status", lambda answer: answer["reload"]["finished"] == 2)
        assert status["reload"]["ok"]
        assert status["conditions"] == []
        after = samples(scraped(place))
        assert after["fastscreen_config_last_reload_successful", ""] == 1
        assert after["fastscreen_config_last_reload_success_timestamp_seconds", ""] > began
    assert len(screener.lines("reload requested by user 0")) == 2


def test_what_a_reload_cannot_change_is_named_until_a_restart(
    start: Start, path: Path, settings: Map, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` compares the file with the running daemon before and after; the log has one line for each key."""
    monkeypatch.setattr(harness, "COMMAND", wrap(harness.COMMAND, folder))
    cache = {"cache": {"path": str(folder / "cache")}}
    settings = merge(settings, cache, {"access": {"list": ["permit"]}})
    screener = start(settings)
    connected(path).socket.close()

    def differences() -> list[tuple[str, str]]:
        words = [str(harness.COMMAND), "check", "--json", "-c", str(screener.config)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        found = json.loads(done.stdout)["checks"]
        return [
            (one["what"], one["detail"].rpartition("to apply it, ")[2])
            for one in found
            if "differs from the running fastscreen" in one["detail"]
        ]

    assert differences() == []
    other = {
        "greet": {"wait": "2s"},
        "cache": {"path": str(folder / "other"), "retention": "5d"},
        "listen": {"workers": 2},
        "log": {"respectful": False},
    }
    screener.configure(merge(settings, other))
    assert differences() == [
        ("listen.workers", "stop and start fastscreen"),
        ("greet.wait", "run `fastscreen reload`"),
        ("cache.path", "run `fastscreen restart`"),
        ("cache.retention", "run `fastscreen reload`"),
        ("log.respectful", "run `fastscreen reload`"),
    ]
    done = command(path, "reload")
    outcome = (
        "configuration reloaded; a restart of fastscreen is needed to apply cache.path; "
        "a stop and a start of fastscreen is needed to apply listen.workers"
    )
    assert (done.returncode, done.stdout) == (0, f"{outcome}\n")
    assert outcome in " ".join(command(path, "status").stdout.split())
    assert len(screener.lines("cache.path changed: the old value stays in use")) == 1
    assert len(screener.lines("listen.workers changed: the old value stays in use")) == 1
    assert len(screener.lines("changed: ")) == 2
    assert [key for key, _ in differences()] == ["listen.workers", "cache.path"]
    with screener.connect("127.1.0.1"):
        screener.line(r"WHITELISTED \[127\.1\.0\.1\]")
    assert not (folder / "other").exists()
    assert command(path, "restart").returncode == 0
    wait_until(lambda: (folder / "other").exists(), "the new cache")
    assert [key for key, _ in differences()] == ["listen.workers"]


def test_reopen_writes_to_the_new_file(start: Start, path: Path, settings: Map, folder: Path) -> None:
    screener = start(settings)
    connected(path).socket.close()
    moved = folder / "screener.log.1"
    screener.log.rename(moved)
    done = command(path, "reopen")
    assert (done.returncode, done.stdout) == (0, "log reopened\n")
    with screener.connect("127.1.0.1") as client:
        assert client.socket.recv(len(TEASER)) == TEASER
        wait_until(lambda: screener.log.exists() and "CONNECT from [127.1.0.1]" in screener.log.read_text(), "the line")
    assert "CONNECT from" not in moved.read_text()


def test_stop_waits_until_it_has_stopped(start: Start, path: Path, settings: Map) -> None:
    screener = start(settings)
    connected(path).socket.close()
    stopped = command(path, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, f"stopped: process {screener.pid}\n")
    assert not path.exists()
    assert screener.wait() == 0
    again = command(path, "stop")
    assert again.returncode == 1
    assert "systemctl stop fastscreen" in again.stderr


def test_stop_waits_for_clients_in_hand_and_a_second_one_does_not(
    start: Start, path: Path, settings: Map, mta: FakeMta
) -> None:
    """A client without confirmation by the MTA has 30 s; those under test would end after 1 s."""
    mta.keep = True
    screener = start(settings, {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}})
    connected(path).socket.close()
    with screener.connect("127.7.0.1"):
        wait_until(lambda: len(mta.taken) == 1, "the MTA to have the client")
        waiting = command(path, "stop", "--timeout", "1")
        assert waiting.returncode == 1
        assert "run `fastscreen stop` again to end them at once" in waiting.stderr
        assert command(path, "stop", "--timeout", "15").returncode == 0
    assert screener.wait() == 0
