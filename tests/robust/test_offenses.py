"""The memory of offenses in a running daemon: what clients do counts later, for them and for their neighbors."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fastscreen.cli import main
from robust.conftest import Start
from robust.control import Map, conditions
from robust.fakedns import FakeDns, failing, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import GREETING, TEASER, Client, Screener, merge, wait_until
from robust.test_control import connected
from robust.test_metrics import samples, scraped

GOOD = b"mail.provider-host.se"
LATER = b"450 4.3.2 Service currently unavailable\r\n"
SCORE = {"seen_address": 3, "seen_network": 3, "seen_min": 3}


def poor(source: str) -> bytes:
    return f"550 5.7.1 Service unavailable; client [{source}] blocked: poor reputation\r\n".encode()


def settings(folder: Path, **score: object) -> list[Map]:
    return [
        {"score": {"action": "enforce", "memory": str(folder / "offenses"), **SCORE, **score}},
        {"dnsbl": {"threshold": 3, "action": "enforce"}, "greet": {"action": "enforce"}},
        {"cache": {"path": str(folder / "cache")}, "control": {"path": str(folder / "control")}},
    ]


def offend(screener: Screener, *sources: str) -> None:
    """Clients that talk before they are greeted."""
    for source in sources:
        with screener.connect(source) as client:
            client.send(b"EHLO early\r\n")
            screener.line(f"PREGREET .*{client.pattern}")


def recipient(screener: Screener, source: str, name: bytes = GOOD) -> tuple[bytes, list[str]]:
    """The reply to a recipient of a client that behaves, and the log's lines about evidence."""
    with screener.connect(source) as client:
        assert client.read() == TEASER + GREETING
        assert client.ask(b"EHLO " + name).startswith(b"250")
        assert client.ask(b"MAIL FROM:<a@b.test>") == b"250 2.1.0 Ok\r\n"
        reply = client.ask(b"RCPT TO:<c@d.test>")
        client.ask(b"QUIT")
        screener.line(f"DISCONNECT {client.pattern}")
        return reply, evidence(screener, client)


def evidence(screener: Screener, client: Client) -> list[str]:
    return [
        line.split("SCORE from ", 1)[1].split(": ", 1)[1] for line in screener.lines(f"SCORE from {client.pattern}")
    ]


def written(folder: Path, *, bad: int = 0, good: int = 0) -> None:
    """Wait until so much was written since the start, to a file that the workers have open."""

    def is_written() -> bool:
        with connected(folder / "control") as control:
            status = control.ok("status")
        memory = status["memory"]
        maps = [Path(f"/proc/{worker['pid']}/maps").read_text() for worker in status["workers"]]
        is_open = all(f"{folder}/offenses\n" in text for text in maps)
        return bool(memory["running"] and memory["bad"] >= bad and memory["good"] >= good and is_open)

    wait_until(is_written, "the memory is not written")


def command(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["reputation", *words, "--socket", str(folder / "control")])
    return code, capsys.readouterr().out


def test_neighbors_of_offenders(start: Start, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = str(folder / "run" / "metrics")
    screener = start(*settings(folder), {"metrics": {"listen": f"unix:{metrics}"}})
    assert recipient(screener, "127.1.0.9") == (LATER, [])  # passes: it is not judged again
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    with screener.connect("127.1.0.9") as client:
        assert client.read() == FROM_MTA
        screener.line(f"PASS OLD {client.pattern}")
    written(folder, bad=3, good=1)
    text = "127.1.0.0/24: 3 of 4 addresses bad in 28 days"
    reply, found = recipient(screener, "127.1.0.4")
    assert (reply, found) == (poor("127.1.0.4"), [f"seen_network +3: {text}"])
    screener.line(r"SCORE rank 3 for \[127.1.0.4\].*: seen_network 3")
    assert recipient(screener, "127.1.5.4") == (LATER, [])
    with connected(folder / "control") as control:
        story = control.ok("story", address="127.1.0.4")
        told = control.ok("explain", address="127.1.0.7")
        status = control.ok("status")["memory"]
    assert f"seen_network: {text}".encode() in [
        event["text"] for event in story["events"] if event["kind"] == "evidence"
    ]
    assert f"{text}, +3 (seen_network)" in [step["text"] for step in told["steps"] if step["step"] == "memory"]
    assert told["evidence"] == [{"scorer": "seen_network", "weight": 3, "text": text}]
    assert (told["verdict"], told["reply"]) == ("rejected", poor("127.1.0.7").decode().rstrip())
    assert [each["subject"] for each in story["memory"]] == ["127.1.0.0/24"]
    assert story["seen"] == [{"scorer": "seen_network", "weight": 3, "text": text}]
    assert (status["entries"], status["max_entries"], status["dropped"]) == (1, 1_000_000, 0)
    assert samples(scraped(metrics))["fastscreen_offenses_bad_total", ""] == status["bad"]

    code, out = command(capsys, folder, "list")
    assert code == 0
    assert out.startswith("127.1.0.0/24           bad  3 of 4 addresses bad, good share 25 %")
    code, out = command(capsys, folder, "get", "127.1.0.1")
    assert code == 0
    assert out.splitlines()[0].startswith("127.1.0.1              bad  bad 1.0, good 0.0, last bad 20")
    code, out = command(capsys, folder, "get", "127.1.0.0/24")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["127.1.0.1", "bad"], ["127.1.0.2", "bad"], ["127.1.0.3", "bad"], ["127.1.0.9", "-"]
    ]  # fmt: skip
    code, out = command(capsys, folder, "export")
    exported = [json.loads(line) for line in out.splitlines()]
    assert [(each["subject"], each["is_bad"], len(each["members"])) for each in exported] == [("127.1.0.0/24", True, 4)]
    assert command(capsys, folder, "get", "192.0.2.1") == (1, "")
    assert command(capsys, folder, "delete", "127.1.0.1") == (0, "1 entry changed or deleted\n")
    assert recipient(screener, "127.1.0.5") == (LATER, [])  # two are left


@pytest.mark.parametrize(
    ("action", "more", "verdict"),
    [
        ("enforce", {}, "rejected"),
        ("enforce", {"engine": {"soft_bounce": True}}, "rejected"),
        ("drop", {}, "dropped"),
        ("shadow", {}, "reconnect"),
        ("ignore", {}, "reconnect"),
        ("enforce", {"mode": "shadow"}, "passed"),
        ("enforce", {"dnsbl": {"threshold": 6, "allowlist_threshold": -2}, "score": {"defer_from": 5}}, "reconnect"),
        ("enforce", {"dnsbl": {"threshold": 6}, "score": {"defer_from": 5, "seen_network": 4}}, "rejected"),
        ("enforce", {"dnsbl": {"sites": ["bl.test*2", "wl.test*-2"]}}, "deferred"),
        ("drop", {"dnsbl": {"sites": ["bl.test*2", "wl.test*-2"]}}, "deferred"),
        ("enforce", {"score": {"seen_network": -1}}, "reconnect"),
        ("enforce", {"dnsbl": {"threshold": 1}, "score": {"seen_network": -2}}, "reconnect"),
        ("enforce", {"dnsbl": {"threshold": 1}, "score": {"seen_network": -1}}, "rejected"),
        ("enforce", {"dnsbl": {"threshold": 1, "action": "ignore"}, "score": {"seen_network": -1}}, "rejected"),
    ],
)
def test_explain_agrees(start: Start, folder: Path, dns: FakeDns, action: str, more: Map, verdict: str) -> None:
    """The lists and the memory together."""
    for number in (7, 8):
        dns.zones[f"{number}.0.1.127.bl.test"] = listed("127.0.0.2")
        dns.zones[f"{number}.0.1.127.wl.test"] = failing()
    lists = {"dnsbl": {"sites": ["bl.test*2"], "resolvers": [dns.endpoint], "threshold": 4}}
    screener = start(*settings(folder), lists, {"score": {"action": action}}, more)
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    with connected(folder / "control") as control:
        told = control.ok("explain", address="127.1.0.7")
    assert told["verdict"] == verdict
    with screener.connect("127.1.0.7") as client:
        if verdict == "passed":
            assert client.read().endswith(FROM_MTA)
            return
        assert client.read() == TEASER + GREETING
        client.ask(b"EHLO " + GOOD)
        client.ask(b"MAIL FROM:<a@b.test>")
        assert client.ask(b"RCPT TO:<c@d.test>") == told["reply"].encode() + b"\r\n"
        if action == "drop":
            assert client.read() == b""
    screener.line(f"DISCONNECT {client.pattern}$")
    shadow = screener.lines(f"SHADOW from {client.pattern}: would have replied: (.*)$")
    assert bool(shadow) == (action == "shadow")
    for line in shadow:
        reply = line.split("would have replied: ")[1]
        assert f"shadow mode: without it, the reply would be {reply}" in [step["text"] for step in told["steps"]]


def test_own_offense_and_reload(start: Start, folder: Path) -> None:
    """A reload changes the rules for what is stored."""
    screener = start(*settings(folder, seen_network=0))
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    reply, found = recipient(screener, "127.1.0.1")
    assert (reply, found) == (poor("127.1.0.1"), ["seen_address +3: 127.1.0.1: bad 1.0, good 0.0, today"])
    assert recipient(screener, "127.1.0.4") == (LATER, [])
    screener.reload(merged(settings(folder, seen_min=4, seen_address=0)))
    assert recipient(screener, "127.1.0.5") == (LATER, [])
    screener.reload(merged(settings(folder, seen_min=3, memory_half_life="5d")))
    assert recipient(screener, "127.1.0.6")[1] == ["seen_network +3: 127.1.0.0/24: 3 of 3 addresses bad in 10 days"]


def test_forged_helo_name(start: Start, folder: Path) -> None:
    """The name of somebody else neither helps the client that uses it, nor harms its owner."""
    screener = start(*settings(folder, helo_ours=3), {"hostname": "mx.here-host.se"})
    forgers = [f"127.1.0.{number}" for number in range(1, 4)]
    for source in forgers:
        with screener.connect(source) as client:
            client.send(b"EHLO " + GOOD + b"\r\n")
            screener.line(f"PREGREET .*{client.pattern}")
    written(folder, bad=3)
    assert recipient(screener, "127.1.0.4") == (
        poor("127.1.0.4"),
        ["seen_network +3: 127.1.0.0/24: 3 of 3 addresses bad in 28 days"],
    )
    assert recipient(screener, "127.2.0.4") == (LATER, [])  # the owner of the name
    assert recipient(screener, "127.2.0.5", b"[127.1.0.1]") == (LATER, [])
    assert recipient(screener, "127.1.0.5", b"[127.2.0.4]")[0] == poor("127.1.0.5")
    reply, found = recipient(screener, "127.2.0.6", b"MX.here-host.SE")
    assert reply.endswith(b"blocked: HELO name is ours\r\n")
    assert found == ["helo_ours +3: MX.here-host.SE"]


def test_memory_outlives_the_processes(start: Start, folder: Path) -> None:
    screener = start(*settings(folder), {"listen": {"workers": 2}})
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    screener.may_lose_workers = True
    for pid in screener.workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: recipient_or_nothing(screener, "127.1.0.4") == poor("127.1.0.4"), "nothing is remembered")


def test_damaged_file_is_replaced_and_no_client_notices(start: Start, folder: Path) -> None:
    screener = start(*settings(folder))
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    path = folder / "offenses"
    os.truncate(path, 4096)
    screener.line(r"score.memory lmdb:.* is damaged or foreign .*: moved to .*/offenses.damaged-[0-9]+, a new file")
    with connected(folder / "control") as control:
        worker = control.ok("status")["workers"][0]["pid"]
    wait_until(lambda: ".damaged-" not in Path(f"/proc/{worker}/maps").read_text(), "the worker keeps the old file")
    offend(screener, "127.1.0.4")
    written(folder, bad=4)
    wait_until(lambda: path.stat().st_size > 4096, "no new file")
    wait_until(lambda: recipient(screener, "127.1.0.4")[0] == poor("127.1.0.4"), "the new file is not used")
    assert not conditions(folder / "control")


def test_folder_that_cannot_be_used(start: Start, folder: Path) -> None:
    """Nothing is remembered, which is a condition, and mail goes on."""
    path = folder / "offenses"
    path.mkdir()
    screener = start(*settings(folder))
    screener.line("score.memory lmdb:.*: cannot be opened: not a regular file; nothing new is learned")
    assert "offenses" in conditions(folder / "control")
    offend(screener, "127.1.0.1")
    assert recipient(screener, "127.1.0.2") == (LATER, [])
    path.rmdir()
    screener.line("score.memory lmdb:.*: works again")
    written(folder, bad=1)  # what was seen meanwhile
    wait_until(lambda: not conditions(folder / "control"), "the condition does not end")


def test_nothing_is_looked_up_without_a_weight(start: Start, folder: Path) -> None:
    screener = start(*settings(folder, seen_address=0, seen_network=0))
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA  # no deep test
    assert not screener.lines("SCORE")


def test_allow_list_wins(start: Start, folder: Path) -> None:
    table = folder / "access"
    table.write_text("127.1.0.7 permit\n")
    screener = start(*settings(folder), {"access": {"list": [f"cidr:{table}"]}})
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    with screener.connect("127.1.0.7") as client:
        assert client.read() == FROM_MTA
        screener.line(f"ALLOWLISTED {client.pattern}")


def test_history_and_memory_get_the_same_sessions(start: Start, folder: Path) -> None:
    """`history.mask` is about the history; the memory needs the whole address."""
    history = {"path": str(folder / "history"), "mask": "/16 /32"}
    screener = start(*settings(folder), {"history": history})
    offend(screener, "127.1.0.1", "127.1.0.2", "127.1.0.3")
    written(folder, bad=3)
    assert recipient(screener, "127.1.0.4")[0] == poor("127.1.0.4")
    with connected(folder / "control") as control:
        assert control.ok("status")["history"]["sessions"] >= 3


def merged(parts: list[Map]) -> Map:
    return merge(*parts)


def recipient_or_nothing(screener: Screener, source: str) -> bytes:
    """A worker that has just started may not know the file yet, or refuse the connection."""
    try:
        return recipient(screener, source)[0]
    except (OSError, EOFError, AssertionError):
        return b""
