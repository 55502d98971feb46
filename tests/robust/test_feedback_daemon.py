"""Feedback in a running daemon: it is enabled, changed and disabled by a reload, and its log is missing at first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import Screener, wait_until
from robust.test_control import connected
from robust.test_offenses import merged


def settings(folder: Path, log: str) -> list[Map]:
    return [
        {"score": {"memory": str(folder / "offenses")}, "greet": {"wait": "1s"}, "feedback": {"log": log}},
        {"cache": {"path": str(folder / "cache")}, "control": {"path": str(folder / "control")}},
    ]


def asked(folder: Path, command: str, **arguments: object) -> Map:
    with connected(folder / "control") as control:
        found: Map = control.ok(command, **arguments)
        return found


def visit(screener: Screener, source: str) -> int:
    """A client that is handed off; return its port."""
    with screener.connect(source) as client:
        assert FROM_MTA in client.read() + client.read()
        screener.line(f"PASS (NEW|OLD) {client.pattern}")
        found = re.search(r"\]:(\d+)", client.pattern)
        assert found
        return int(found[1])


def rejected(log: Path, source: str, port: int) -> None:
    client = f"unknown[{source}]:{port}"
    texts = [f"NOQUEUE: reject: RCPT from {client}: 550 5.1.1 no"] * 3 + [
        f"disconnect from {client} rcpt=0/3 commands=3"
    ]
    with log.open("a") as file:
        file.writelines(f"Nov 30 15:57:11 mx postfix/smtpd[1]: {text}\n" for text in texts)


def weights(folder: Path, source: str) -> tuple[float, float]:
    with connected(folder / "control") as control:
        answer = control.ask("reputation.get", subject=source)
    if "error" in answer:  # nobody has offended so far
        assert answer["error"].endswith("the file does not exist yet")
        return (0.0, 0.0)
    found: list[Any] = answer["ok"]["reputations"]
    one = next((each for each in found if each["subject"] == source), None)
    return (one["bad"], one["good"]) if one else (0.0, 0.0)


def test_reload(start: Start, folder: Path) -> None:
    first, second = folder / "first.log", folder / "second.log"
    screener = start(*settings(folder, ""))
    assert asked(folder, "status")["feedback"] is None
    visit(screener, "127.1.0.1")
    wait_until(lambda: weights(folder, "127.1.0.1") == (0.0, 0.25), "a hand-off does not count")

    screener.reload(merged(settings(folder, str(first))))
    screener.line(f"feedback.log: {first}: cannot be read: No such file or directory; retried automatically")
    assert [each["kind"] for each in asked(folder, "status")["conditions"]] == ["feedback"]
    port = visit(screener, "127.1.0.2")
    rejected(first, "127.1.0.2", port)
    first.chmod(0o644)
    screener.line("feedback.log: is read again")
    wait_until(lambda: weights(folder, "127.1.0.2") == (1.0, 0.0), "a rejection is not learned")
    assert asked(folder, "status")["conditions"] == []

    port = visit(screener, "127.1.0.3")
    second.touch(0o644)
    screener.reload(merged(settings(folder, str(second))))
    wait_until(lambda: asked(folder, "status")["feedback"]["log"] == str(second), "the reload")
    rejected(second, "127.1.0.3", port)
    wait_until(lambda: weights(folder, "127.1.0.3") == (1.0, 0.0), "nothing is learned from the second log")

    visit(screener, "127.1.0.4")
    screener.reload(merged(settings(folder, "")))
    wait_until(lambda: weights(folder, "127.1.0.4") == (0.0, 0.25), "a session that waits is lost by the reload")
    assert asked(folder, "status")["feedback"] is None
