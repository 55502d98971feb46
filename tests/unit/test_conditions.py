"""Conditions: lasting problems, in shared memory."""

import random

import pytest

from fastscreen.process.conditions import SIZE, TEXT_MAX, Condition, Conditions, Kind


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_condition_keeps_its_start_until_it_ends() -> None:
    clock = Clock()
    memory = memoryview(bytearray(SIZE))
    ours, theirs = Conditions(memory, clock), Conditions(memory)
    assert ours.begin(Kind.CACHE, "no room")
    clock.now = 1060.0
    assert not ours.begin(Kind.CACHE, "still\nno room")
    assert theirs.read() == [Condition(Kind.CACHE, 1000.0, "still no room")]
    assert ours.end(Kind.CACHE)
    assert not ours.end(Kind.CACHE)
    assert theirs.read() == []
    assert ours.begin(Kind.CACHE, "again")
    assert theirs.read() == [Condition(Kind.CACHE, 1060.0, "again")]


def test_conditions_do_not_meet_and_clear_removes_all() -> None:
    conditions = Conditions(memoryview(bytearray(SIZE)), Clock())
    for kind in Kind:
        conditions.begin(kind, "ä" * TEXT_MAX)
    assert [one.kind for one in conditions.read()] == list(Kind)
    assert all(len(one.text.encode()) >= TEXT_MAX - 2 for one in conditions.read())
    conditions.end(Kind.MTA)
    assert Kind.MTA not in {one.kind for one in conditions.read()}
    conditions.clear()
    assert conditions.read() == []


def test_a_half_written_condition_is_not_shown() -> None:
    memory = bytearray(SIZE)
    Conditions(memoryview(memory), Clock()).begin(Kind.LOG, "lines are lost")
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(memory)
        damaged[Kind.LOG * 512 + chance.randrange(28)] ^= 1 + chance.randrange(255)
        assert Conditions(memoryview(damaged)).read() == []


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_a_label_and_a_remedy(kind: Kind) -> None:
    assert kind.label.isidentifier()
    assert kind.remedy and "\n" not in kind.remedy
