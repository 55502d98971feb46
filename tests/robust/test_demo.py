"""The real fastscreen demo, commands that use it, and its clean-up however it ends."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from fastscreen.cli import main
from fastscreen.control.client import ask
from fastscreen.control.messages import StatusRequest
from fastscreen.demo import client_kinds, settings, summary
from fastscreen.demo.processes import Processes
from robust.harness import COMMAND, TIMEOUT, wait_until
from robust.leftovers import processes_of

START = 90.0  # s

Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(folder: Path) -> Iterator[Begin]:
    """Start a demo. After a failed test it is killed, which ends all its processes."""
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [COMMAND, "demo", *words],
                env={**os.environ, "TMPDIR": str(folder)},
                # a shell may have started the tests in the background, with Ctrl-C ignored
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_headless_it_sees_all_that_belongs_to_the_play(begin: Begin, folder: Path) -> None:
    process = begin("--headless", "--seconds", "8")
    printed, said = process.communicate(timeout=START + 30)
    assert (process.returncode, said) == (0, ""), printed
    lines = printed.splitlines()
    assert lines[0].startswith("2 workers in ")
    counts = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[1:]}
    assert set(counts) == set(summary.EXPECTED)
    assert min(counts.values()) > 0
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def test_what_did_not_appear_is_named(begin: Begin, folder: Path) -> None:
    """In one second no client can pass a greet wait of two."""
    process = begin("--headless", "--seconds", "1")
    _, said = process.communicate(timeout=START)
    assert process.returncode == 1
    assert said.startswith("fastscreen: demo: missing events: ")
    assert "passed" in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_nothing_is_left_whatever_ends_it(number: signal.Signals, code: int, begin: Begin, folder: Path) -> None:
    process = begin("--headless", "--seconds", "600")
    control = f"fastscreen-demo-*/{settings.CONTROL}"
    wait_until(lambda: any(folder.glob(control)) or process.poll() is not None, "the demo to start", START)
    wait_until(lambda: len(processes_of(folder)) > 3, "its processes", START)
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    wait_until(lambda: processes_of(folder) == [], lambda: f"the end of {processes_of(folder)}", 60)
    if number != signal.SIGKILL:
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as made:
        yield made


def asked(capsys: pytest.CaptureFixture[str], processes: Processes, *words: str) -> tuple[int, str, str]:
    code = main([*words, "--socket", processes.control])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def seen(processes: Processes, kind: str) -> bool:
    processes.check()
    return bool(ask(processes.control, StatusRequest()).counts.get(kind))


def test_status(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    wait_until(lambda: seen(processes, "handed_off"), "a client to be handed off")
    code, printed, _ = asked(capsys, processes, "status")
    assert code == 0
    assert "2 workers" in printed
    assert max(map(len, printed.splitlines())) <= 80
    found = json.loads(asked(capsys, processes, "status", "--json")[1])
    assert found["counts"]["connect"] > 0
    assert {worker["number"] for worker in found["workers"]} == {1, 2}


def test_events_of_a_client_that_is_expected(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    wait_until(lambda: seen(processes, "non_smtp_command"), "an HTTP probe")
    probe = client_kinds.HTTP_PROBE.address(0)
    words = ("events", f"--filter=kind:non_smtp_command {probe}", "--recent", "1", "--count", "1")
    code, printed, _ = asked(capsys, processes, *words)
    assert code == 0
    assert f" {probe}:" in printed
    event = json.loads(asked(capsys, processes, *words, "--json")[1])
    assert (event["address"], event["kind"]) == (probe, "non_smtp_command")
    assert asked(capsys, processes, "events", "--filter=score>")[0] == 2


def test_events_of_every_kind_can_be_shown(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("cached", "handed_off", "denylisted", "list_failed", "hangup", "busy"):
        wait_until(partial(seen, processes, kind), kind)
    code, printed, said = asked(capsys, processes, "events", "--recent", "1000", "--count", "1000")
    assert (code, len(printed.splitlines()), said) == (0, 1000, "")
    assert all(line.isascii() and line.isprintable() for line in printed.splitlines())


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        (client_kinds.OWN, {"allowlisted"}),
        (client_kinds.BANNED, {"rejected", "busy"}),
        (client_kinds.LISTED, {"rejected", "deferred", "busy"}),
        (client_kinds.LARGE_SENDER, {"passed", "cached", "busy"}),
    ],
)
def test_explain(
    kind: client_kinds.ClientKind, verdicts: set[str], processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    """`busy` while a wave is under way."""
    code, printed, _ = asked(capsys, processes, "explain", kind.address(kind.members - 1), "--json")
    assert code == 0
    assert json.loads(printed)["verdict"] in verdicts
    code, printed, _ = asked(capsys, processes, "explain", kind.address(kind.members - 1))
    assert code == 0
    assert "\naccess " in printed


def test_the_cache_of_a_client_from_passing_to_being_forgotten_and_carried_back(
    processes: Processes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = "192.0.2.77"  # nobody in the run: nothing changes it meanwhile
    stamps = {"pregreet": 4102444800.0, "dnsbl": "new", "pipelining": "disabled"}
    lines = tmp_path / "cache.jsonl"
    lines.write_text(json.dumps({"address": address, "passed_until": stamps}) + "\n")
    with lines.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        assert asked(capsys, processes, "cache", "import")[2] == "1 of 1 entry stored\n"

    def known() -> bool:
        return asked(capsys, processes, "cache", "get", address)[0] == 0

    wait_until(known, "the imported client")
    entry = json.loads(asked(capsys, processes, "cache", "get", address, "--json")[1])
    assert entry["passed_until"] | stamps == entry["passed_until"]
    assert json.loads(asked(capsys, processes, "cache", "list", "192.0.2.0/24", "--json")[1]) == entry
    exported = asked(capsys, processes, "cache", "export")[1].splitlines()
    assert entry in [json.loads(line) for line in exported]
    assert asked(capsys, processes, "cache", "delete", address)[1] == "1 entry deleted\n"
    wait_until(lambda: not known(), "the client to be forgotten")
    code, printed, _ = asked(capsys, processes, "cache", "stats")
    assert code == 0
    assert "entries" in printed


def test_bypass(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, processes, "bypass", "on", "--for", "1h")[0] == 0
    assert "BYPASS: every client is handed off untested" in asked(capsys, processes, "status")[1]
    wait_until(lambda: seen(processes, "bypassed"), "a client that bypasses the tests")
    assert asked(capsys, processes, "bypass", "off")[0] == 0
    assert "BYPASS" not in asked(capsys, processes, "status")[1]
