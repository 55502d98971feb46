"""Unexpected exceptions in the supervisor's loop: logged, not too often, and paid for with a short pause."""

import pytest

from fastscreen.daemon.supervisor_errors import LOG_SECONDS, MAX_KINDS, PAUSE_SECONDS, Faults


def fail(text: str) -> None:
    raise RuntimeError(text)


def test_each_part_is_logged_once_a_minute() -> None:
    now = [0.0]
    lines: list[str] = []
    faults = Faults(lines.append, lambda: now[0])
    for _ in range(10):
        assert not faults.guard("one", fail, "x")
        assert not faults.guard("other", fail, "y")
    assert len(lines) == 2
    assert lines[0].startswith("internal error in one: RuntimeError: x (test_supervisor_errors.py, line ")
    assert lines[0].endswith("; the supervisor goes on")
    now[0] = LOG_SECONDS
    faults.guard("one", fail, "z")
    assert "RuntimeError: z" in lines[2]
    assert ", 9 more times since the last such line; " in lines[2]


def test_a_turn_with_a_fault_is_followed_by_a_pause() -> None:
    faults = Faults(lambda _: None, lambda: 0.0)
    assert faults.guard("one", lambda: None)
    faults.end_turn(5.0)
    assert faults.pause(5.0) == 0.0
    faults.guard("one", fail, "x")
    faults.end_turn(5.0)
    assert faults.pause(5.0) == 5.0 + PAUSE_SECONDS
    assert faults.pause(5.0 + PAUSE_SECONDS) == 0.0


def test_a_log_that_fails_is_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    faults = Faults(fail, lambda: 0.0)
    assert not faults.guard("one", fail, "x")
    assert "RuntimeError" in capsys.readouterr().err


def test_memory_is_bounded() -> None:
    lines: list[str] = []
    faults = Faults(lines.append, lambda: 0.0)
    for number in range(3 * MAX_KINDS):
        faults.guard(f"part {number}", fail, "x")
    assert len(faults._logged) <= MAX_KINDS


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_end_that_is_wanted_is_an_end(error: type[BaseException]) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(error):
        Faults(lambda _: None).guard("one", leave)
