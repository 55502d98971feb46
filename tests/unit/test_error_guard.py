"""Unexpected exceptions in the supervisor's loop are logged, with a rate limit, and cause a short pause."""

import pytest

from fastscreen.daemon.error_guard import LOG_SECONDS, MAX_PARTS, PAUSE_SECONDS, ErrorGuard


def fail(text: str) -> None:
    raise RuntimeError(text)


def test_each_part_is_logged_once_a_minute() -> None:
    now = [0.0]
    lines: list[str] = []
    guard = ErrorGuard(lines.append, lambda: now[0])
    for _ in range(10):
        assert not guard.call("one", fail, "x")
        assert not guard.call("other", fail, "y")
    assert len(lines) == 2
    assert lines[0].startswith("internal error in one: RuntimeError: x (test_error_guard.py, line ")
    assert lines[0].endswith("; the supervisor goes on")
    now[0] = LOG_SECONDS
    guard.call("one", fail, "z")
    assert "RuntimeError: z" in lines[2]
    assert ", 9 more times since the last such line; " in lines[2]


def test_a_turn_with_a_fault_is_followed_by_a_pause() -> None:
    guard = ErrorGuard(lambda _: None, lambda: 0.0)
    assert guard.call("one", lambda: None)
    guard.end_turn(5.0)
    assert guard.pause_until(5.0) == 0.0
    guard.call("one", fail, "x")
    guard.end_turn(5.0)
    assert guard.pause_until(5.0) == 5.0 + PAUSE_SECONDS
    assert guard.pause_until(5.0 + PAUSE_SECONDS) == 0.0


def test_a_log_that_fails_is_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    guard = ErrorGuard(fail, lambda: 0.0)
    assert not guard.call("one", fail, "x")
    assert "RuntimeError" in capsys.readouterr().err


def test_memory_is_bounded() -> None:
    lines: list[str] = []
    guard = ErrorGuard(lines.append, lambda: 0.0)
    for number in range(3 * MAX_PARTS):
        guard.call(f"part {number}", fail, "x")
    assert len(guard._logged) <= MAX_PARTS


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_end_that_is_wanted_is_an_end(error: type[BaseException]) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(error):
        ErrorGuard(lambda _: None).call("one", leave)
