"""How a server's errors are shown."""

import pytest

from fastscreen.cluster.store import plain_error

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
