"""How a server's errors are shown, and what counts as its time."""

import pytest

from fastscreen.cluster.store import plain_error, read_time

OOM = "OOM command not allowed when used memory > 'maxmemory'"
OF_6 = "Error running script (call to f_1cd57a40bff01e862218bfba8f39097644b89e82): @user_script:19: @user_script: 19: "
OF_7 = " script: 1cd57a40bff01e862218bfba8f39097644b89e82, on @user_script:19."


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"{OF_6}-{OOM}.", OOM),
        (f"{OOM}.{OF_7}", OOM),
        (f"{OF_6}WRONGTYPE Operation against a key", "WRONGTYPE Operation against a key"),
        (f"WRONGTYPE Operation against a key{OF_7}", "WRONGTYPE Operation against a key"),
        ("NOPERM this user has no permissions", "NOPERM this user has no permissions"),
        ("\x1b[2J\n", "\\x1b[2J\\n"),
    ],
)
def test_an_error_without_its_place_in_the_script(said: str, shown: str) -> None:
    assert plain_error(said) == shown


def test_a_long_error_is_cut() -> None:
    assert len(plain_error("x" * 10_000)) <= 203


def test_a_time() -> None:
    assert read_time([b"1764500000", b"250000"]) == 1764500000.25
    assert read_time([b"0", b"0"]) == 0


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"1764500000",
        [],
        [b"1764500000"],
        [b"1764500000", b"1", b"2"],
        [1764500000, 1],
        [b"x", b"1"],
        [b"-1", b"0"],
        [b"4294967296", b"0"],
        [b"9" * 300, b"0"],
        [b"1764500000", b"9" * 300],
        [float("inf"), float("nan")],
        ValueError("NOPERM"),
    ],
    ids=repr,
)
def test_what_cannot_be_a_time(reply: object) -> None:
    with pytest.raises(ValueError):
        read_time(reply)
