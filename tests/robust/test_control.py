"""The control socket of a real fastscreen: answers, rights, and hostile callers."""

import contextlib
import itertools
import os
import re
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from robust.conftest import Start
from robust.control import Closed, Control, Map
from robust.fakedns import FakeDns, listed, not_listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta, folder_for
from robust.harness import ADDRESS, TEASER, USER, Screener, merge, wait_until
from robust.test_workers import owner

TWO = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": 2}}
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
WORKERS = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path, folder: Path) -> dict[str, Any]:
    return {"control": {"path": str(path)}, "cache": {"path": str(folder / "cache")}}


def connected(path: Path) -> Control:
    """Wait for the control server: the daemon's start does not."""
    found: list[Control] = []

    def there() -> bool:
        with contextlib.suppress(OSError, Closed):
            found.append(Control(path))
        return bool(found)

    wait_until(there, "the control server")
    return found[0]


def eventually(control: Control, verb: str, wanted: Any, **arguments: Any) -> Map:
    """Ask until `wanted(answer)`; the control server may return the same answer for 0.5 s."""
    answers: list[Map] = []

    def right() -> bool:
        answers.append(control.ok(verb, **arguments))
        return bool(wanted(answers[-1]))

    wait_until(right, lambda: f"{verb}: {answers[-1]}")
    return answers[-1]


def control_server_of(screener: Screener, control: Control) -> int:
    """The pid of the control server: the child that is not a worker."""
    workers = {worker["pid"] for worker in control.ok("status")["workers"]}
    (control_server,) = set(screener.workers()) - workers
    return control_server


# ---- what it says


@WORKERS
def test_all_of_it_is_seen(start: Start, path: Path, settings: Map, dns: FakeDns, workers: int) -> None:
    """A listed client: counters, session, list, story, cache, top talkers."""
    dns.zones = {"bl.test": listed("127.0.0.2"), "wl.test": not_listed()}
    lists = {
        "sites": ["secret.bl.test=127.0.0.[2..11]*3", "wl.test*-2"],
        "threshold": 3,
        "action": "enforce",
        "resolvers": [dns.endpoint],
        "reply_map": "inline:{secret.bl.test=bl.test}",
    }
    listen = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}}
    screener = start(settings, listen, {"dnsbl": lists})
    with connected(path) as control, screener.connect("127.1.0.1") as client:
        assert control.hello["protocol"] == 1
        assert control.hello["pid"] == screener.pid
        assert control.hello["workers"] == workers
        assert control.hello["rights"] == ["read", "act"]
        assert client.read().startswith(TEASER)
        client.ask(b"EHLO client.example")
        status = eventually(control, "status", lambda answer: answer["counts"]["command"] == 1)
        assert status["counts"]["connect"] == 1
        assert [worker["number"] for worker in status["workers"]] == list(range(1, workers + 1))
        assert sum(worker["stages"]["dialogue"] for worker in status["workers"]) == 1
        assert all(worker["rss"] > 1 << 20 for worker in status["workers"])
        assert status["limits"]["pre_queue"] == 1000
        assert status["cache"]["misses"] == 1
        sessions = control.ok("sessions", filter="failed:dnsbl score>=3 127.1.0.0/24 stage:dialogue age>0.5")
        assert (sessions["total"], sessions["matched"]) == (1, 1)
        (session,) = sessions["sessions"]
        assert (session["address"], session["score"], session["failed"]) == ("127.1.0.1", 3, ["dnsbl"])
        assert session["command"] == b"EHLO client.example"
        assert control.ok("sessions", filter=f"-worker:{session['worker']}")["matched"] == 0
        story = control.ok("story", address="127.1.0.1")
        kinds = [event["kind"] for event in story["events"]]
        assert kinds == ["connect", "greet", "listed", "rank", "dialogue", "command", "reply"]
        by_kind = {event["kind"]: event for event in story["events"]}
        assert by_kind["listed"]["number"] == "127.0.0.2"
        assert by_kind["listed"]["list"] == "bl.test"
        assert by_kind["command"]["text"] == b"EHLO client.example"
        assert by_kind["rank"]["number"] == 3
        assert story["complete_since"] == story["events"][0]["time"]
        assert story["cache"] is None
        assert {one["list"]: (one["state"], one["weight"]) for one in story["lists"]} == {
            "bl.test": ("listed", 3),
            "wl.test": ("not_listed", 0),
        }
        dnsbl = control.ok("dnsbl")
        assert dnsbl["threshold"] == 3
        one = dnsbl["lists"][0]
        assert one["list"] == "bl.test"
        assert (one["queries"], one["answers"], one["listed"], one["unique"], one["state"]) == (1, 1, 1, 1, "ok")
        assert one["sites"] == [{"filter": "127.0.0.[2..11]", "weight": 3}]
        assert 0 < one["p50"] <= one["p95"]
        (talker,) = control.ok("clients", by="network")["clients"]
        assert (talker["client"], talker["connects"]) == ("127.1.0.0/24", 1)
        explained = control.ok("explain", address="127.1.0.1")
        assert "secret" not in str((status, sessions, story, dnsbl, explained))


def test_two_lists_that_are_shown_alike(start: Start, path: Path, settings: Map, dns: FakeDns) -> None:
    """Each has its own weight and counts."""
    dns.zones = {"one.bl.test": listed("127.0.0.2"), "two.bl.test": listed("127.0.0.3")}
    lists = {
        "sites": ["one.bl.test*3", "two.bl.test*1"],
        "threshold": 9,
        "resolvers": [dns.endpoint],
        "reply_map": "inline:{one.bl.test=bl.test, two.bl.test=bl.test}",
    }
    screener = start(settings, {"dnsbl": lists})
    with connected(path) as control, screener.connect("127.1.0.1"):
        eventually(control, "status", lambda answer: answer["counts"]["listed"] == 2)
        story = control.ok("story", address="127.1.0.1")
        assert [(one["list"], one["weight"]) for one in story["lists"]] == [("bl.test", 3), ("bl.test", 1)]
        assert [one["sites"][0]["weight"] for one in control.ok("dnsbl")["lists"]] == [3, 1]


def test_turned_away(start: Start, path: Path, settings: Map, mta: FakeMta) -> None:
    """Once for each rejected client, for any reason, even if it did not wait for the reply; never for others."""
    access = {"access": {"list": ["inline:{127.3.0.1=reject, 127.7.0.1=permit}"], "denylist_action": "drop"}}
    limits = {"limits": {"client_connection_count": 1}, "deep": {"pipelining": "enforce"}}
    screener = start(settings, access, limits)
    with connected(path) as control:

        def turned_away(sessions: int) -> int:
            answer = eventually(
                control, "status", lambda it: it["counts"]["disconnect"] + it["counts"]["handed_off"] == sessions
            )
            counted: int = answer["counts"]["rejected"]
            return counted

        with screener.connect("127.7.0.1") as client:
            assert client.read() == FROM_MTA
        with screener.connect("127.1.0.1") as client:
            assert client.read().startswith(TEASER)
            for line in (b"EHLO client.example", b"MAIL FROM:<a@client.example>", b"RCPT TO:<b@example>", b"QUIT"):
                client.ask(line)
        with screener.connect("127.1.0.2"):
            pass
        assert turned_away(3) == 0
        with screener.connect("127.3.0.1") as client:
            assert client.read().startswith(b"521 ")
        assert turned_away(4) == 1
        with screener.connect("127.1.0.3") as client:
            client.send(b"EHLO too.early\r\n")
            screener.line(r"PREGREET .* from \[127.1.0.3\]")
        assert turned_away(5) == 2
        with screener.connect("127.1.0.4") as client:
            client.send(b"EHLO too.early\r\n")
            screener.line(r"PREGREET .* from \[127.1.0.4\]")
            client.ask(b"MAIL FROM:<a@client.example>")
            client.ask(b"RCPT TO:<b@example>")
            client.ask(b"QUIT")
        assert turned_away(6) == 3
        with screener.connect("127.1.0.5"), screener.connect("127.1.0.5") as client:
            assert client.read().startswith(b"421 ")
        assert turned_away(8) == 4
        mta.close()
        with screener.connect("127.7.0.1") as client:
            assert client.read().startswith(b"421 ")
        assert eventually(control, "status", lambda it: it["counts"]["handoff_failed"])["counts"]["rejected"] == 5


@WORKERS
def test_events_as_they_happen(start: Start, path: Path, settings: Map, workers: int) -> None:
    """Earlier events, new events, the filter, and the end of the subscription."""
    listen = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}}
    screener = start(settings, listen, KNOWN)
    with connected(path) as control:
        for number in range(1, 6):
            with screener.connect(f"127.7.0.{number}") as client:
                assert client.read() == FROM_MTA
        eventually(control, "status", lambda answer: answer["counts"]["connect"] == 5)
        control.send({"id": "no number", "do": "events"})
        with pytest.raises(Closed):
            while True:
                assert "error" in control.read()
    with connected(path) as control:
        control.send({"id": 7.5, "do": "events", "filter": "kind:connect,allowlisted -127.7.0.3", "recent": 6})
        assert control.read() == {"id": 7.5, "ok": {}}
        before = control.read()
        assert before["id"] == 7.5
        assert before["lost"] == 0
        assert len(before["events"]) == 6
        assert "127.7.0.3" not in {event["address"] for event in before["events"]}
        with screener.connect("127.7.0.3") as client:
            assert client.read() == FROM_MTA
        with screener.connect("127.7.0.9") as client:
            assert client.read() == FROM_MTA
        seen: list[Map] = []
        while len(seen) < 2:
            seen += control.read()["events"]
        assert [(event["kind"], event["address"]) for event in seen] == [
            ("connect", "127.7.0.9"),
            ("allowlisted", "127.7.0.9"),
        ]
        assert control.ok("cancel", of=7.5) == {"cancelled": True}
        assert control.ok("cancel", of=7.5) == {"cancelled": False}


def test_what_is_beyond_the_rate_is_counted(start: Start, path: Path, settings: Map, mta: FakeMta) -> None:
    screener = start(settings, KNOWN)
    with connected(path) as control:
        control.send({"id": 1, "do": "events", "filter": "kind:connect", "rate": 4, "recent": 0})
        assert control.read()["ok"] == {}
        for number in range(60):
            with screener.connect(f"127.7.1.{number + 1}") as client:
                assert client.read() == FROM_MTA
        events = lost = 0
        while events + lost < 60:
            batch = control.read()
            events += len(batch["events"])
            lost += batch["lost"]
        assert events + lost == 60
        assert lost > 0


def test_warnings_outlive_who_wrote_them(start: Start, path: Path, settings: Map) -> None:
    """Of the supervisor, of a worker that is gone, of the control server; without what dnsbl.reply_map hides."""
    lists = {
        "sites": ["secret.bl.test"],
        "resolvers": ["127.9.53.77:5353"],
        "timeout": "1s",
        "reply_map": "inline:{secret.bl.test=bl.test}",
    }
    screener = start(settings, {"dnsbl": lists})
    screener.may_lose_workers = True
    with connected(path) as control, screener.connect("127.1.0.1") as client:
        assert client.read().startswith(TEASER)
        screener.line("reply timeout")
        (victim,) = [worker["pid"] for worker in control.ok("status")["workers"]]
        os.kill(victim, signal.SIGKILL)
        screener.line("worker 1 is process")
        texts = [warning["text"] for warning in control.ok("warnings")["warnings"]]
        assert any("was killed by SIGKILL" in text for text in texts)
        assert "dnsblog reply timeout 1s for bl.test" in texts


# ---- the cache


@WORKERS
def test_cache_verbs(start: Start, path: Path, settings: Map, workers: int, mta: FakeMta) -> None:
    """Imported, known at once, deleted, new again: also when the worker has not written yet."""
    listen = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}}
    screener = start(settings, listen)
    later = time.time() + 3600
    with connected(path) as control:
        entries: list[Map] = [
            {"address": f"127.1.{network}.{host}", "passed_until": {"pregreet": later}}
            for network in (0, 1)
            for host in (1, 2)
        ]
        entries.append({"address": "2001:db8::1", "passed_until": {"pregreet": "new"}})
        eventually(control, "status", lambda answer: answer["cache"] is not None)
        assert control.ok("cache.import", entries=entries) == {"stored": 5}
        assert control.ok("cache.stats")["entries"] == 5
        assert control.ok("cache.stats")["expiring"][1] == {"within": 3600.0, "entries": 5}
        got = control.ok("cache.get", address="127.1.0.1")
        assert got["passed_until"] == {
            "pregreet": float(int(later)),
            "dnsbl": "disabled",
            "pipelining": "disabled",
            "non_smtp_command": "disabled",
            "bare_newline": "disabled",
            "score": "disabled",
        }
        assert control.ok("cache.get", address="127.1.0.77") is None
        listing = control.ok("cache.list", prefix="127.1.0.0/24")
        assert [entry["address"] for entry in listing["entries"]] == ["127.1.0.1", "127.1.0.2"]
        paged: list[str] = []
        while (page := control.ok("cache.list", limit=2, after=paged[-1] if paged else ""))["entries"]:
            paged += [entry["address"] for entry in page["entries"]]
            if not page["more"]:
                break
        assert sorted(paged) == sorted(
            str(entry["address"]).replace("2001:db8::1", "2001:db8::/64") for entry in entries
        )
        with screener.connect("127.1.0.1") as client:
            assert client.read() == FROM_MTA
        assert control.ok("cache.delete", prefix="127.1.0.0/24")["deleted"] == 2
        assert control.ok("cache.delete", address="127.1.1.1")["deleted"] == 1
        assert control.ok("cache.delete", address="127.1.1.1")["deleted"] == 0
        with screener.connect("127.1.0.1") as client:
            assert client.read() == TEASER + FROM_MTA
        # It has passed just now: what is in the worker's memory is seen, and goes with the file's.
        assert control.ok("cache.get", address="127.1.0.1") is not None
        assert control.ok("cache.delete", address="127.1.0.1")["deleted"] == 1
        assert control.ok("cache.get", address="127.1.0.1") is None
        screener.line(r"PASS NEW \[127.1.0.1\]")
        with screener.connect("127.1.0.1") as client:
            assert client.read() == TEASER + FROM_MTA
        screener.line(r"PASS NEW \[127.1.0.1\]", 2)
        assert "127.1.1.2" in {entry["address"] for entry in control.ok("cache.list")["entries"]}


def test_without_a_cache(start: Start, path: Path) -> None:
    start({"control": {"path": str(path)}})
    with connected(path) as control:
        assert control.ok("status")["cache"] is None
        assert "cache.path is empty" in control.error("cache.stats")


def test_explain_goes_by_the_limits_of_the_clients_worker(start: Start, path: Path, mta: FakeMta) -> None:
    """Also for an unknown client, if one worker is full and the other is not."""
    screener = start({"control": {"path": str(path)}, "greet": {"wait": "100s"}, "limits": {"pre_queue": 10}}, TWO)
    with connected(path) as control, contextlib.ExitStack() as held:
        full = 0  # the worker that five clients fill
        sessions = 0
        for number in itertools.count(1):
            client = screener.connect(f"127.1.0.{number}")
            full = full or owner(screener, client)
            if owner(screener, client) == full:
                held.enter_context(client)
                assert client.socket.recv(100) == TEASER
                sessions += 1
                if sessions == 5:
                    break
            else:
                client.socket.close()
        eventually(control, "status", lambda answer: sum(one["sessions"] for one in answer["workers"]) == sessions)
        new = [f"127.1.1.{number}" for number in range(1, 21)]
        verdicts = {source: control.ok("explain", address=source)["verdict"] for source in new}
        assert set(verdicts.values()) == {"busy", "passed"}
        for source, verdict in verdicts.items():
            with screener.connect(source) as client:
                told = client.socket.recv(100)
            assert told.startswith(b"421 " if verdict == "busy" else TEASER), (source, verdict)
            # It has gone again, so that the next one finds as much room.
            screener.line(rf"(HANGUP|DISCONNECT|NOQUEUE).*\[{re.escape(source)}\]")


@WORKERS
def test_a_new_hub_knows_the_tables_as_the_workers_do(
    start: Start, path: Path, settings: Map, folder: Path, mta: FakeMta, workers: int
) -> None:
    """A changed or missing table is only used after the next reload."""
    table = folder / "access.cidr"
    table.write_text("127.3.0.1 reject\n")
    listen = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}}
    screener = start(settings, listen, {"access": {"list": [f"cidr:{table}"], "denylist_action": "drop"}})
    screener.may_lose_workers = True
    table.unlink()
    with connected(path) as control:
        control_server = control_server_of(screener, control)
        os.kill(control_server, signal.SIGKILL)
        screener.line(rf"control server \(process {control_server}\) was killed by SIGKILL")
    with connected(path) as control:
        assert control.ok("explain", address="127.3.0.1")["verdict"] == "denylisted"
        table.write_text("127.3.0.2 reject\n")
        screener.reload()
        eventually(control, "explain", lambda answer: answer["verdict"] == "passed", address="127.3.0.1")
        assert control.ok("explain", address="127.3.0.2")["verdict"] == "denylisted"


# ---- acting


@WORKERS
def test_bypass(start: Start, path: Path, settings: Map, workers: int, mta: FakeMta) -> None:
    """A bypass applies to all workers, survives the death of a worker and of the control server, and expires."""
    listen = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}}
    denied = {"access": {"list": ["inline:{127.3.0.1=reject}"], "denylist_action": "drop"}}
    screener = start(settings, listen, denied)
    screener.may_lose_workers = True
    with connected(path) as control:
        assert control.ok("status")["bypass_until"] is None
        assert "86400" in control.error("bypass", seconds=86401)
        assert "bypass" in control.error("bypass", seconds=-1)
        until = control.ok("bypass", seconds=600)["until"]
        assert abs(until - time.time() - 600) < 60
        assert control.ok("status")["bypass_until"] == until
        for number in range(1, 11):
            with screener.connect(f"127.1.0.{number}") as client:
                assert client.read() == FROM_MTA
        with screener.connect("127.3.0.1") as client:
            assert client.read().startswith(b"521 ")
        assert control.ok("explain", address="127.1.0.1")["verdict"] == "bypassed"
        control_server = control_server_of(screener, control)
        for victim in screener.workers():
            os.kill(victim, signal.SIGKILL)
        screener.line(rf"control server \(process {control_server}\) was killed by SIGKILL")
        screener.line(f"worker {workers} is process")
    with connected(path) as control:
        assert eventually(control, "status", lambda answer: len(answer["workers"]) == workers)["bypass_until"] == until
        with screener.connect("127.1.0.1") as client:
            assert client.read() == FROM_MTA
        assert control.ok("bypass", seconds=0) == {"until": None}
        with screener.connect("127.1.0.1") as client:
            assert client.read() == TEASER + FROM_MTA
        control.ok("bypass", seconds=0.5)
        screener.line("bypass has ended")
        with screener.connect("127.1.0.2") as client:
            assert client.read() == TEASER + FROM_MTA
    assert len(screener.lines(rf"bypass switched on by user {os.geteuid()} until ")) == 2
    assert len(screener.lines(rf"bypass switched off by user {os.geteuid()}")) == 1
    assert len(screener.lines("bypass has ended")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_reading_and_acting_are_separate_rights(start: Start, path: Path, settings: Map) -> None:
    """Root and the daemon's user have full rights, the group can read, others are rejected."""
    start(merge(settings, {"control": {"group": "daemon"}}))
    connected(path).socket.close()
    found = path.stat()
    assert oct(found.st_mode & 0o777) == "0o660"
    import grp
    import pwd

    daemon, nobody = grp.getgrnam("daemon").gr_gid, pwd.getpwnam(USER).pw_uid
    assert (found.st_uid, found.st_gid) == (nobody, daemon)

    def others() -> None:
        with Control(path) as control:
            assert control.hello["rights"] == ["read"]
            assert control.ok("status")["workers"]
            for verb, arguments in (
                ("bypass", {"seconds": 60}),
                ("cache.delete", {"prefix": "0.0.0.0/0"}),
                ("cache.import", {"entries": []}),
            ):
                assert "only root and fastscreen's user" in control.error(verb, **arguments)

    def own() -> None:
        with Control(path) as control:
            assert control.hello["rights"] == ["read", "act"]
            assert control.ok("bypass", seconds=0)

    def outsider() -> None:
        with pytest.raises(PermissionError):
            Control(path)

    assert as_somebody(54321, daemon, others) == 0
    assert as_somebody(nobody, daemon, own) == 0
    assert as_somebody(54321, 54321, outsider) == 0


def as_somebody(uid: int, gid: int, work: Any) -> int:
    """Run a function in a process of this user, and return the exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- hostile callers

HOSTILE = {
    "garbage": b"\xff" * 64,
    "no map": msgpack.packb([1, 2, 3]),
    "no id": msgpack.packb({"do": "status"}),
    "no verb": msgpack.packb({"id": 1}),
    "text for an id": msgpack.packb({"id": "1", "do": "status"}),
    "keys that are not text": msgpack.packb({1: 2, "id": 1, "do": "status"}),
    "deep": b"\x82\xa2id\x01\xa2do" + b"\x91" * 60000,
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "no UTF-8": b"\x82\xa2id\x01\xa2do\xa2\xff\xfe",
    "rest": msgpack.packb({"id": 1, "do": "status"}) + b"\x01",
}


def test_hostile_frames(start: Start, path: Path, settings: Map) -> None:
    """An error or the end of the connection, only for this caller."""
    screener = start(settings)
    with connected(path) as bystander:
        for name, body in HOSTILE.items():
            with Control(path) as control:
                control.send_body(body)
                with contextlib.suppress(Closed):
                    assert "error" in control.read(), name
                    control.read()
                    raise AssertionError(f"{name}: still there")
        for head in (0, 65537, 0xFFFFFFFF):
            with Control(path) as control:
                control.socket.sendall(struct.pack("!I", head) + b"x" * 100)
                assert "error" in control.read()
                with pytest.raises(Closed):
                    control.read()
        assert bystander.ok("status")["workers"]
    assert not screener.lines("warning: ")


WRONG: list[tuple[str, Map, str]] = [
    ("nonsense", {}, "is unknown; expected status"),
    ("sessions", {"filter": "score>"}, "a number is missing"),
    ("sessions", {"filter": 5}, "filter"),
    ("sessions", {"limit": 1001}, "limit"),
    ("sessions", {"limit": 2**63}, "limit"),
    ("sessions", {"sort": "colour"}, "sort"),
    ("sessions", {"colour": 1}, "colour"),
    ("story", {}, "address"),
    ("story", {"address": "not one"}, "is not an address"),
    ("story", {"address": "192.0.2.0/24"}, "not one address"),
    ("story", {"address": "x" * 60000}, "address"),
    ("explain", {"address": "::1%lo\n"}, "address"),
    ("events", {"rate": 0}, "rate"),
    ("events", {"filter": "x " * 40}, "32 terms"),
    ("cache.list", {"prefix": "300.1.1.1/8"}, "is not an address"),
    ("cache.delete", {}, "address or a prefix"),
    ("cache.import", {"entries": [{"address": "192.0.2.1", "passed_until": {"colour": 1}}]}, "colour"),
    ("cache.import", {"entries": [{"address": "192.0.2.1", "passed_until": {"pregreet": 2.0**70}}]}, "seconds"),
    ("cache.import", {"entries": [{"address": "192.0.2.1", "passed_until": {"pregreet": float("nan")}}]}, "seconds"),
    ("bypass", {"seconds": float("nan")}, "bypass"),
    ("bypass", {"seconds": float("inf")}, "bypass"),
    ("bypass", {"seconds": True}, "seconds"),
]


def test_wrong_arguments(start: Start, path: Path, settings: Map) -> None:
    """A one-line error, and the connection stays open."""
    screener = start(settings)
    with connected(path) as control:
        for verb, arguments, expected in WRONG:
            assert expected in control.error(verb, **arguments), verb
        assert control.ok("status")["bypass_until"] is None
    assert not screener.lines("warning: ")


def test_32_callers_and_no_more(start: Start, path: Path, settings: Map) -> None:
    """Subscribers of events stay. The 33rd caller gets an error, and the first place that becomes free."""
    start(settings)
    connected(path).socket.close()
    callers: list[Control] = []
    for _ in range(32):
        wait_until(lambda: _greeted(path, callers), "a place")
        callers[-1].ok("events", filter="kind:command_limit")
    with Control(path, greeted=False) as another:
        assert "too many" in another.read()["error"]
        with pytest.raises(Closed):
            another.read()
    for control in callers:
        assert control.ok("status")["workers"]
    callers.pop().socket.close()
    wait_until(lambda: _greeted(path, callers), "the place that became free")
    for control in callers:
        control.socket.close()


def _greeted(path: Path, callers: list[Control]) -> bool:
    control = Control(path, greeted=False)
    if "fastscreen" in control.read():
        callers.append(control)
        return True
    control.socket.close()
    return False


def test_a_caller_that_does_not_read(start: Start, path: Path, settings: Map) -> None:
    """Its unread answers are limited, then it is closed. Events stay in the ring, memory is constant."""
    screener = start(settings, KNOWN)
    with connected(path) as control, Control(path) as slow, Control(path) as greedy:
        control_server = control_server_of(screener, control)
        slow.send({"id": 1, "do": "events", "rate": 2000, "recent": 0})
        assert slow.read()["ok"] == {}
        before = rss_of(control_server)
        body = msgpack.packb({"id": 1, "do": "status"})
        request = struct.pack("!I", len(body)) + body
        greedy.socket.settimeout(0.2)
        dropped = False
        for _ in range(200):
            try:
                greedy.socket.sendall(request * 200)
            except TimeoutError:
                break
            except OSError:
                dropped = True
                break
        for number in range(300):
            with screener.connect(f"127.7.{number // 200}.{number % 200 + 1}") as client:
                assert client.read() == FROM_MTA
        assert eventually(control, "status", lambda answer: answer["counts"]["connect"] == 300)
        assert dropped or control.ok("status")["workers"]
        assert rss_of(control_server) - before < 64 << 20
        # It begins to read: nothing of what happened is missing without a mark.
        seen = 0
        while seen < 300:
            batch = slow.read()
            assert batch["lost"] == 0
            seen += sum(event["kind"] == "connect" for event in batch["events"])


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- the control server's life


def test_the_hub_is_killed(start: Start, path: Path, settings: Map) -> None:
    """Callers see the end and reconnect; SMTP clients are not affected."""
    screener = start(settings, KNOWN, TWO)
    screener.may_lose_workers = True
    for turn in range(2):
        with connected(path) as control:
            control_server = control_server_of(screener, control)
            before = [worker["pid"] for worker in control.ok("status")["workers"]]
            os.kill(control_server, signal.SIGKILL)
            with screener.connect("127.7.0.1") as client:
                assert client.read() == FROM_MTA
            with pytest.raises((Closed, OSError)):
                while True:
                    control.ask("status")
        with connected(path) as control:
            assert [worker["pid"] for worker in control.ok("status")["workers"]] == before
            story = control.ok("story", address="127.7.0.1")
            assert [event["kind"] for event in story["events"]].count("connect") == turn + 1
    assert len(screener.lines(r"control server \(process \d+\) was killed by SIGKILL: it is started again")) == 2


def test_a_worker_is_killed(start: Start, path: Path, settings: Map) -> None:
    """The same connection shows the new worker, and the counts continue."""
    screener = start(settings, KNOWN, TWO)
    screener.may_lose_workers = True
    with connected(path) as control:
        for number in range(1, 41):
            with screener.connect(f"127.7.0.{number}") as client:
                assert client.read() == FROM_MTA
        eventually(control, "status", lambda answer: answer["counts"]["connect"] == 40)
        workers = {worker["number"]: worker["pid"] for worker in control.ok("status")["workers"]}
        os.kill(workers[2], signal.SIGKILL)
        screener.line("worker 2 is process")
        status = eventually(
            control, "status", lambda answer: len(answer["workers"]) == 2 and answer["workers"][1]["pid"] != workers[2]
        )
        assert status["counts"]["connect"] == 40
        assert status["workers"][0]["pid"] == workers[1]
        assert len(control.ok("clients", limit=100)["clients"]) == 40


def test_a_worker_that_stands_still(start: Start, path: Path, settings: Map) -> None:
    """It is shown as missing, and the data of the others arrives in time."""
    start(settings, TWO)
    with connected(path) as control:
        victim = control.ok("status")["workers"][1]["pid"]
        os.kill(victim, signal.SIGSTOP)
        try:
            status = eventually(control, "status", lambda answer: answer["missing_workers"] == [2])
            assert [worker["number"] for worker in status["workers"]] == [1]
            for _ in range(3):
                assert control.ok("sessions")["total"] == 0
        finally:
            os.kill(victim, signal.SIGCONT)
        eventually(control, "status", lambda answer: answer["missing_workers"] == [])


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_stands_still_is_replaced(start: Start, path: Path, settings: Map) -> None:
    screener = start(settings)
    screener.may_lose_workers = True
    with connected(path) as control:
        control_server = control_server_of(screener, control)
    os.kill(control_server, signal.SIGSTOP)
    screener.line(rf"warning: control server \(process {control_server}\) hangs: killed$")
    screener.line(rf"warning: control server \(process {control_server}\) was killed by SIGKILL: it is started again$")
    with connected(path) as control:
        assert control_server_of(screener, control) != control_server


def test_reload_reaches_the_hub(start: Start, path: Path, settings: Map, folder: Path, dns: FakeDns) -> None:
    screener = start(settings, {"dnsbl": {"sites": ["a.test"], "resolvers": [dns.endpoint]}})
    with connected(path) as control:
        assert [one["list"] for one in control.ok("dnsbl")["lists"]] == ["a.test"]
        screener.log.rename(screener.log.with_suffix(".1"))
        screener.reload(merge(settings, {"dnsbl": {"sites": ["b.test", "c.test"], "resolvers": [dns.endpoint]}}))
        eventually(control, "dnsbl", lambda answer: [one["list"] for one in answer["lists"]] == ["b.test", "c.test"])
        control.ok("bypass", seconds=1)
        screener.line("bypass switched on")


# ---- the socket in the file system


def test_a_second_one_does_not_steal_it(start: Start, path: Path, settings: Map, folder: Path) -> None:
    start(settings)
    with connected(path) as control:
        other = folder / "other"
        other.mkdir()
        folder_for(USER, other)
        second = Screener(other, {"control": {"path": str(path)}, "handoff": {"to": f"pass:{folder / 'mta'}"}}).start()
        try:
            second.line(rf"warning: control.path: {path}: another process answers there: no control socket")
            waiting = path.with_name(path.name + ".next")  # until the name is free
            wait_until(waiting.is_socket, "its own socket next to the name")
            assert control.ok("status")["workers"]
            assert connected(path).hello["pid"] == control.hello["pid"]
        finally:
            second.stop()
        assert path.is_socket()


def test_a_dead_socket_is_replaced_and_the_own_one_taken_away(start: Start, path: Path, settings: Map) -> None:
    path.parent.mkdir()
    folder_for(USER, path.parent)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    screener = start(settings)
    connected(path).socket.close()
    screener.stop()
    assert not path.exists()


def test_what_is_no_socket_stays(start: Start, path: Path, settings: Map) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    screener = start(settings)
    screener.line("warning: control.path: .* a file that is not a socket is in its place: no control socket")
    assert path.read_text() == "mine"


def test_an_unknown_group(start: Start, folder: Path, path: Path) -> None:
    screener = Screener(folder, {"control": {"path": str(path), "group": "no-such-group"}})
    with pytest.raises(AssertionError, match=r"control\.group: 'no-such-group' does not exist on this system"):
        screener.start()
    assert screener.wait() == 2
    assert not path.exists()
