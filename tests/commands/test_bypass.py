"""fastscreen bypass."""

import time

import pytest

from commands.conftest import Ask, Server
from commands.fakeserver import Error


def test_on(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    daemon = server({"bypass": {"until": 1763849861.0}})
    code, printed, said = ask("bypass", "on", "--for", "30m")
    assert code == 0
    assert printed == "The bypass is on until 2025-11-22 22:17:41, for 30 min. `fastscreen bypass off` ends it.\n"
    assert said == "WARNING: until then every client reaches the mail server untested\n"
    assert daemon.asked == [{"do": "bypass", "seconds": 1800}]


def test_off(server: Server, ask: Ask) -> None:
    daemon = server({"bypass": {"until": None}})
    assert ask("bypass", "off") == (0, "The bypass is off: clients are tested.\n", "")
    assert daemon.asked == [{"do": "bypass", "seconds": 0}]


def test_without_the_right(server: Server, ask: Ask) -> None:
    server({"bypass": Error("bypass: only root and postfix may act")})
    assert ask("bypass", "on", "--for", "1h") == (1, "", "fastscreen: bypass: only root and postfix may act\n")


@pytest.mark.parametrize("words", [["on"], ["on", "--for", "25h"], ["on", "--for", "0s"], ["on", "--for", "soon"], []])
def test_wrong_usage(words: list[str], ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("bypass", *words)
    assert stopped.value.code == 2
