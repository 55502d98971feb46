"""fastscreen bypass."""

import time

import pytest

from commands.conftest import Ask, Hub
from commands.fakehub import Error


def test_on(hub: Hub, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    daemon = hub({"bypass": {"until": 1763849861.0}})
    code, printed, said = ask("bypass", "on", "--for", "30m")
    assert code == 0
    assert printed == "bypass is on until 2025-11-22 22:17:41, for 30 min; `fastscreen bypass off` ends it\n"
    assert said == "WARNING: every client reaches the mail server untested until then\n"
    assert daemon.asked == [{"do": "bypass", "seconds": 1800}]


def test_off(hub: Hub, ask: Ask) -> None:
    daemon = hub({"bypass": {"until": None}})
    assert ask("bypass", "off") == (0, "bypass is off: clients are tested\n", "")
    assert daemon.asked == [{"do": "bypass", "seconds": 0}]


def test_without_the_right(hub: Hub, ask: Ask) -> None:
    hub({"bypass": Error("bypass: only root and postfix may act")})
    assert ask("bypass", "on", "--for", "1h") == (1, "", "fastscreen: bypass: only root and postfix may act\n")


@pytest.mark.parametrize("words", [["on"], ["on", "--for", "25h"], ["on", "--for", "0s"], ["on", "--for", "soon"], []])
def test_wrong_usage(words: list[str], ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("bypass", *words)
    assert stopped.value.code == 2
