"""The rows of docs/sizing.md: many held clients are divided, and a limit on open files that is too low is named."""

import ipaddress
import resource

import pytest

from bench import clients, measure
from bench.capacity import CAPACITIES
from bench.programs import BenchError


@pytest.mark.parametrize(("hard", "enough"), [(16_999, False), (17_000, True)])
def test_each_process_holds_a_part(monkeypatch: pytest.MonkeyPatch, hard: int, enough: bool) -> None:
    """30,000 clients at two workers, held by two load generators."""
    row = CAPACITIES["held-30000"].row
    monkeypatch.setattr(resource, "getrlimit", lambda which: (hard, hard))
    if enough:
        measure.need_descriptors(row.held, row.settings.workers)
        return
    with pytest.raises(BenchError, match=r"the limit on open files is 16999 \(ulimit -Hn\), 17000 are needed"):
        measure.need_descriptors(row.held, row.settings.workers)


def test_one_worker_needs_all() -> None:
    with pytest.raises(BenchError, match="30002000 are needed"):
        measure.need_descriptors(30_000_000)


def test_no_address_is_held_twice() -> None:
    first, second = clients.held("silent", 15_000), clients.held("silent", 15_000, 15_000)
    assert ipaddress.IPv4Address(first.first) + first.sources == ipaddress.IPv4Address(second.first)
