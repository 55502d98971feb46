"""The memory of a pass, which the simulator of a cluster uses, in a real redis-server."""

import re

import pytest

from bench import cluster_sim, cluster_sizes
from bench.cluster_model import Rules
from fastscreen.core import TESTS
from peers import needs


def test_memory_of_a_pass() -> None:
    needs.program("redis-server")
    rules = Rules(tuple(test.key for test in TESTS))
    measured = cluster_sizes.measure(rules, 17)
    assert measured.each == pytest.approx(cluster_sizes.PASS_BYTES, rel=0.05)
    assert measured.one < measured.each
    assert 0 < measured.cpu < 0.001


def test_the_command_measures(capsys: pytest.CaptureFixture[str]) -> None:
    needs.program("redis-server")
    assert cluster_sim.main(["--measure", "--hosts", "2", "--clients", "1000", "--days", "1"]) == 0
    text = capsys.readouterr().out
    each = [int(number) for number in re.findall(r"used_memory grows by (\d+) bytes per pass", text)]
    assert len(each) == 2 and each[0] < each[1] < 300  # IPv4, IPv6
    passes, memory = re.findall(r"\| (\d+) \| ([\d.]+) \| [\d.]+ \|$", text, re.MULTILINE)[0]
    assert float(memory) * 1e6 == pytest.approx(int(passes) * each[1], rel=0.02)
