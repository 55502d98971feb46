"""The judge of the history against the core: random clients meet a core, and then another one with other settings."""

import random
from collections import Counter
from pathlib import Path

import pytest

from fastscreen.core import HISTORY_FIELDS, HISTORY_MARKS, HISTORY_OUTCOMES, STAGES, history_read
from fastscreen.history.day import COUNT_BITS
from robust import judgedtraffic as traffic
from robust.fakedns import FakeDns
from robust.fakemta import FakeMta


def by_chance(row: traffic.Row) -> bool:
    """A client that left while it waited for the MTA, or before the lists had answered: when exactly is chance."""
    fields = history_read(row[0] >> COUNT_BITS, row[1], row[2])
    assert fields is not None
    found = dict(zip(HISTORY_FIELDS, fields, strict=True))
    left = HISTORY_OUTCOMES[found["outcome"]] == "left"
    return STAGES[found["stage"]] == "queued" or (left and STAGES[found["stage"]] == "greet" and bool(found["unasked"]))


def was_unsure(row: traffic.Row) -> bool:
    """Whether every list has answered in the end, but one only after the verdict, because the machine was busy."""
    fields = history_read(row[0] >> COUNT_BITS, row[1], row[2])
    assert fields is not None
    found = dict(zip(HISTORY_FIELDS, fields, strict=True))
    unsure = found["marks"] >> HISTORY_MARKS.index("unsure") & 1
    return bool(unsure) and not found["silent"] and not found["unasked"]


@pytest.mark.parametrize("seed", [4, 10, 13, 21, 29, 102])
def test_what_another_core_does(folder: Path, seed: int) -> None:
    """By the settings that the sessions had, every result is predicted. By those of another core, what that core then
    does to the same clients; the rest is unknown, and says why.
    """
    rng = random.Random(seed)
    before = traffic.settings(rng)
    after = traffic.other(rng, before)
    rounds = traffic.visits(rng, 50, 2, apart=traffic.apart(before, after))
    zones = traffic.zones(rng, sorted({visit.address for visitors in rounds for visit in visitors}))
    dns, mta = FakeDns(zones), FakeMta(folder / "mta")
    mta.start()
    try:
        one = traffic.play(folder, before, dns, rounds)
        other = traffic.play(folder, after, dns, rounds)
    finally:
        dns.close()
        mta.close()
    for seen in (one, other):
        for visitors in traffic.judged(seen, seen.description):
            assert [result for result in visitors.values() if result[0] != result[1]] == []
    counts: Counter[str] = Counter()
    wrong, late = [], 0
    disturbed = traffic.disturbed(one) | traffic.disturbed(other)
    assert len(disturbed) < 10
    happened = traffic.judged(other, other.description)
    for at, visitors in enumerate(traffic.judged(one, other.description)):
        assert visitors.keys() == happened[at].keys()
        for address, (_, would, _, why) in visitors.items():
            counts[why] += 1
            if would in ("unknown", happened[at][address][0]) or address in disturbed:
                continue
            if {would, happened[at][address][0]} == {"rejected", "deferred"} and was_unsure(other.rows[at][address]):
                late += 1
            elif not by_chance(one.rows[at][address]) and not by_chance(other.rows[at][address]):
                wrong.append((at, address, would, happened[at][address][0]))
    assert wrong == []
    assert late < 3
    assert counts["judged"] > counts.total() // 2, counts
    assert not counts.keys() & {"version", "settings", "different", "room", "limit", "cut"}, counts
