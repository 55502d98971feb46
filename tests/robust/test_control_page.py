"""docs/control.md against a real daemon: every field of every answer and event is on the page."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from fastscreen.control.commands import COMMANDS
from robust.conftest import Start
from robust.fakedns import FakeDns, listed
from robust.harness import TEASER
from robust.test_control import connected, eventually

PAGE = Path(__file__).resolve().parents[2] / "docs/control.md"
ACTING = {"cache.delete", "cache.import", "reputation.delete", "bypass", "reload", "reopen", "restart", "stop"}


def names(answer: Any) -> set[str]:
    """The keys of all maps in an answer, but for those that are data: a kind of event, a stage, a test, a key."""
    if isinstance(answer, list):
        return set().union(*map(names, answer))
    if not isinstance(answer, dict):
        return set()
    inner = {
        key: value
        for key, value in answer.items()
        if key not in ("counts", "stages", "fingerprints", "outcomes", "parts")
    }
    return set(answer) | set().union(*map(names, inner.values()))


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


def test_every_field_is_on_the_page(start: Start, path: Path, folder: Path, dns: FakeDns) -> None:
    dns.zones["bl.test"] = listed("127.0.0.2")
    lists = {"sites": ["bl.test=127.0.0.2*3"], "threshold": 9, "resolvers": [dns.endpoint]}
    history = {"path": str(folder / "history")}
    settings = {"control": {"path": str(path)}, "cache": {"path": str(folder / "cache")}, "history": history}
    screener = start(settings, {"dnsbl": lists, "score": {"memory": str(folder / "offenses")}})
    with connected(path) as control:
        with screener.connect("127.1.0.1"):
            screener.line(r"PASS NEW \[127\.1\.0\.1\]")
        eventually(control, "cache.stats", lambda answer: answer["entries"] == 1)
        eventually(control, "history.sessions", lambda answer: answer["sessions"], address="127.1.0.1")
        with screener.connect("127.1.0.3") as early:
            early.send(b"EHLO early\r\n")
            screener.line("PREGREET .*127.1.0.3")
        eventually(control, "status", lambda answer: answer["memory"]["bad"] == 1)
        eventually(control, "reputation.list", lambda answer: answer["reputations"])
        found = {"": names(control.hello)}
        span = {"since": time.time() - 600, "until": time.time() + 60}
        of_a_client = ("story", "explain", "cache.get", "history.sessions")
        arguments: dict[str, dict[str, Any]] = {verb: {"address": "127.1.0.1"} for verb in of_a_client}
        arguments |= dict.fromkeys(("history.minutes", "history.clients"), span)
        arguments["reputation.get"] = {"subject": "127.1.0.0/24"}
        with screener.connect("127.1.0.2") as other:
            assert other.socket.recv(len(TEASER)) == TEASER
            for verb in set(COMMANDS) - ACTING - {"events", "cancel"}:
                found[verb] = names(control.ok(verb, **arguments.get(verb, {})))
        found["bypass"] = names(control.ok("bypass", seconds=0))
        found["cache.delete"] = names(control.ok("cache.delete", address="127.1.0.1"))
        found["reputation.delete"] = names(control.ok("reputation.delete", subject="127.1.0.3"))
        found["reload"] = names(control.ok("reload"))
    assert {"score", "cached"} <= found["explain"]
    assert "score" in found["sessions"]
    assert "helo" in found["explain"] & found["history.sessions"]
    assert "cached" in found["history.minutes"]
    assert "kind" in found["story"]
    assert "members" in found["reputation.get"] & found["reputation.list"] & found["reputation.export"]
    page = PAGE.read_text()
    missing = {verb: {name for name in keys if not re.search(rf'["`]{name}["`]', page)} for verb, keys in found.items()}
    assert {verb: keys for verb, keys in missing.items() if keys} == {}
