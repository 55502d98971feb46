"""The past over the control socket of a real daemon that records a history."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from robust.conftest import Start
from robust.control import Control, Map
from robust.fakedns import FakeDns, listed
from robust.harness import TEASER, Screener
from robust.test_control import connected, eventually

PREGREETER = "127.1.0.1"
OTHER = "127.2.0.1"
HOSTILE = b"x\x1b[2J'; DROP TABLE sessions;--"


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path, folder: Path) -> Map:
    return {
        "control": {"path": str(path)},
        "cache": {"path": str(folder / "cache")},
        "history": {"path": str(folder / "history")},
    }


def recorded(control: Control, address: str, **wanted: Any) -> list[Map]:
    """A client's sessions, when they are on disk."""
    answer = eventually(control, "history.sessions", lambda answer: answer["sessions"], address=address, **wanted)
    sessions: list[Map] = answer["sessions"]
    return sessions


def listed_client(screener: Screener, address: str, name: bytes = HOSTILE) -> None:
    """A session of a client that the lists have, to its end."""
    with screener.connect(address) as client:
        assert client.read().startswith(TEASER)
        client.ask(b"EHLO " + name)
        client.ask(b"MAIL FROM:<a@example.com>")
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"550 5.7.1")
        client.ask(b"QUIT")


def test_a_session_is_found_again(start: Start, path: Path, settings: Map, dns: FakeDns) -> None:
    dns.zones["bl.test"] = listed("127.0.0.2")
    lists = {"sites": ["bl.test*3"], "threshold": 3, "action": "enforce", "resolvers": [dns.endpoint]}
    screener = start(settings, {"dnsbl": lists})
    begin = time.time()
    listed_client(screener, PREGREETER)
    with connected(path) as control:
        (session,) = recorded(control, PREGREETER)
        assert begin <= session["began"] < session["ended"] <= time.time()
        assert (session["outcome"], session["verdict"], session["stage"]) == ("rejected", 550, "dialogue")
        assert (session["score"], session["threshold"], session["failed"]) == (3, 3, ["dnsbl"])
        assert session["parts"] == {"dnsbl": 3}
        assert session["lists"] == [{"list": "bl.test", "state": "listed", "answers": ["127.0.0.2"], "weight": 3}]
        assert isinstance(session["helo"], bytes)
        assert session["recipients"] == 1
        # All requests agree, also by a filter, in both directions of time.
        span = {"since": begin, "until": begin + 600}
        for text in ("failed:dnsbl list:bl.test", "score>=3", f"{PREGREETER} outcome:rejected", "verdict:5*"):
            assert control.ok("history.sessions", filter=text, **span)["sessions"] == [session], text
            assert control.ok("history.sessions", filter=text, since=begin + 600)["sessions"] == []
            assert control.ok("history.sessions", filter=text, until=begin - 1)["sessions"] == []
        sums = control.ok("history.minutes", **span)["sums"]
        assert [each["outcomes"] for each in sums] == [{"rejected": 1}]
        assert sums[0]["time"] == session["ended"] // 60 * 60
        clients = control.ok("history.clients", **span)
        assert clients["clients"] == [{"client": PREGREETER, "sessions": 1, "outcomes": {"rejected": 1}}]
        covered = eventually(control, "history", lambda answer: answer["last"] is not None)
        assert (covered["last"], covered["days"] >= 1, covered["problem"]) == (session["ended"], True, "")
        assert covered["path"] == str(settings["history"]["path"])
        explained = control.ok("explain", address=PREGREETER)
        assert explained["history"] == [session]
        assert control.ok("explain", address=OTHER)["history"] == []


def test_nothing_is_recorded(start: Start, path: Path, settings: Map) -> None:
    del settings["history"]
    start(settings)
    with connected(path) as control:
        assert control.ok("history")["path"] == ""
        for verb, arguments in (
            ("history.minutes", {"since": 0, "until": 60}),
            ("history.sessions", {}),
            ("history.clients", {"since": 0, "until": 60}),
        ):
            assert control.error(verb, **arguments) == "history: disabled (history.path is empty)"
        assert control.ok("explain", address=OTHER)["history"] is None


def test_wrong_requests_have_errors(start: Start, path: Path, settings: Map) -> None:
    start(settings)
    with connected(path) as control:
        for verb, arguments, why in (
            ("history.minutes", {"since": 0, "until": 1e9}, "more than 1500 steps"),
            ("history.minutes", {"since": 0, "until": 60, "step": 61}, "step"),
            ("history.minutes", {"since": -1, "until": 60}, "since"),
            ("history.minutes", {"since": 0, "until": 1e300}, "until"),
            ("history.sessions", {"filter": "score>"}, "a number is missing"),
            ("history.sessions", {"filter": "x" * 1025}, "filter"),
            ("history.sessions", {"address": "nonsense"}, "is not an address"),
            ("history.sessions", {"address": "192.0.2.0/24"}, "is not one address"),
            ("history.sessions", {"before": -1}, "before"),
            ("history.sessions", {"limit": 501}, "limit"),
            ("history.clients", {"since": 0, "until": 60, "by": "name"}, "by"),
        ):
            assert why in control.error(verb, **arguments), (verb, arguments)
        assert control.ok("history.sessions", before=(1 << 64) - 1)["sessions"] == []
        assert control.ok("history.sessions", since=2.0**40, until=1)["sessions"] == []
        assert control.ok("history.minutes", since=2.0**40 - 60, until=2.0**40)["sums"] == []


def test_a_day_that_hangs_holds_up_nothing_else(start: Start, path: Path, settings: Map, folder: Path) -> None:
    """A FIFO in the place of a day is like a disk that does not answer: opening it never returns."""
    screener = start(settings)
    with connected(path) as control:
        with screener.connect(OTHER) as client:
            assert client.read().startswith(TEASER)
        recorded(control, OTHER)
    os.mkfifo(folder / "history" / "2001-01-01.sqlite", 0o666)
    os.chown(folder / "history" / "2001-01-01.sqlite", *owner(folder / "history"))
    askers = [Control(path) for _ in range(4)]
    for asker in askers:
        asker.send({"id": 1, "do": "history.sessions", "since": 0, "until": 1e9})
    with connected(path) as control:
        begin = time.monotonic()
        assert control.ok("status")["time"]
        assert control.ok("clients")
        assert time.monotonic() - begin < 2
        errors = [asker.read()["error"] for asker in askers]
    for asker in askers:
        asker.socket.close()
    assert sum("no answer from the disk within 8 s" in error for error in errors) == 2
    assert sum("other requests are being answered" in error for error in errors) == 2


def owner(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_uid, found.st_gid
