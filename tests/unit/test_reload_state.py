"""How the last reload ended, as another process reads it."""

from fastscreen.process.conditions import SIZE as CONDITIONS_SIZE
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.reload_state import SIZE, TEXT_MAX, Attempts, Outcome, ReloadState


def test_an_attempt_begins_and_ends() -> None:
    now = [100.0]
    memory = memoryview(bytearray(SIZE))
    writer, reader = Attempts(memory, lambda: now[0]), Attempts(memory)
    assert reader.read() == Outcome()
    writer.begin()
    assert reader.read() == Outcome(begun=1)
    now[0] = 101.0
    writer.end(True, "well")
    assert reader.read() == Outcome(1, 1, True, "well", 101.0, 101.0)
    writer.begin()
    assert reader.read() == Outcome(2, 1, True, "well", 101.0, 101.0)
    now[0] = 102.0
    writer.end(False, "two\nlines")
    assert reader.read() == Outcome(2, 2, False, "two lines", 102.0, 101.0)


def test_half_written_is_not_read() -> None:
    memory = memoryview(bytearray(SIZE))
    attempts = Attempts(memory)
    attempts.begin()
    attempts.end(False, "x" * 100)
    memory[60] ^= 1
    assert attempts.read() is None


def test_a_long_text_is_cut() -> None:
    attempts = Attempts(memoryview(bytearray(SIZE)))
    attempts.begin()
    attempts.end(False, "ä" * TEXT_MAX)
    last = attempts.read()
    assert last is not None
    assert len(last.text) >= TEXT_MAX // 2


def test_a_refused_reload_is_a_condition_until_a_good_one() -> None:
    state = ReloadState(memoryview(bytearray(SIZE)))
    conditions = Conditions(memoryview(bytearray(CONDITIONS_SIZE)))
    state.reload.begin()
    state.refused(conditions, "line 3: wrong")
    (one,) = conditions.read()
    assert (one.kind, one.text) == (Kind.CONFIG, "line 3: wrong; the previous configuration stays in use")
    state.reload.begin()
    state.accepted(conditions, "configuration reloaded")
    assert conditions.read() == []
    last = state.reload.read()
    assert last is not None
    assert (last.begun, last.finished, last.ok) == (2, 2, True)
    assert state.reopen.read() == Outcome()
