"""Two minutes of `make soak` with a fixed seed, and the parts of it that can be looked at alone."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peers import needs

from soak import nameserver, nemesis
from soak.faults import FAULTS
from soak.probes import Probes
from soak.process_faults import takes_signal
from soak.settings import Options
from soak.traffic import Traffic
from soak.world import World

TESTS = Path(__file__).resolve().parents[1]
ARCHITECTURE = TESTS.parent / "docs/architecture.md"
SEED = 7
MINUTES = 2


def test_two_minutes() -> None:
    needs.root("its namespaces")
    needs.program("unshare")
    needs.program("ip")
    needs.program("openssl")
    command = [sys.executable, "-m", "soak", "--minutes", str(MINUTES), "--seed", str(SEED)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


def test_the_failure_table_names_every_fault() -> None:
    """So that the page and the soak cannot part."""
    text = ARCHITECTURE.read_text()
    assert [name for name in FAULTS if f"`{name}`" not in text] == []


def test_the_tests_that_the_page_names_exist() -> None:
    named = re.findall(r"`((?:unit|robust|property)/\w+\.py)(?:::(\w+))?`", ARCHITECTURE.read_text())
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}" in (TESTS / file).read_text()


def drawn(tmp_path: Path, seed: int) -> list[list[str]]:
    """The first faults of a run, whatever else draws random numbers."""
    world = World(Options(tmp_path, 15, seed, 60, 2, "pass"))
    schedule = nemesis.Nemesis(world, Probes(world, Traffic(world)))
    names = []
    for _ in range(50):
        names.append(schedule._draw())
        world.chance.randbytes(random.randrange(100))
    return names


def test_a_seed_reproduces_the_schedule(tmp_path: Path) -> None:
    assert drawn(tmp_path, 7) == drawn(tmp_path, 7)
    assert drawn(tmp_path, 7) != drawn(tmp_path, 8)
    everything = [name for names in drawn(tmp_path, 7) for name in names]
    assert set(everything) == set(FAULTS)  # each once before any comes twice


def test_faults_can_be_chosen_by_name() -> None:
    assert nemesis.chosen(["mta_full", "log_fifo"], ["log_fifo"], 1) == ["mta_full"]
    assert "worker_hangs" in nemesis.chosen([], [], 15)
    assert "worker_hangs" not in nemesis.chosen([], [], 2)
    with pytest.raises(ValueError, match="unknown fault 'nonsense'"):
        nemesis.chosen(["nonsense"], [], 1)


@pytest.mark.parametrize(
    ("name", "mode", "listed"),
    [
        ("2.0.0.127.bl1.test", "ok", True),
        ("9.0.66.127.bl2.test", "ok", True),
        ("9.0.10.127.bl1.test", "ok", False),
        ("9.0.10.127.bl1.test", "lists-world", True),
        ("9.0.66.127.wl.test", "ok", False),
    ],
)
def test_what_the_lists_say(name: str, mode: str, listed: bool) -> None:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = bytes(12) + labels + b"\0\0\1\0\1"
    answer = nameserver.reply(question, mode)
    assert answer is not None
    assert int.from_bytes(answer[6:8], "big") == listed
    assert nameserver.reply(question, "silent") is None


def test_signals_that_a_process_takes() -> None:
    program = "import signal, sys; signal.signal(signal.SIGUSR2, print); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert takes_signal(child.pid, 12)
        assert not takes_signal(child.pid, 10)
    finally:
        child.communicate()
