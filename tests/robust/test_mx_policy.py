"""MX policy: a client cannot pass at the backup address; a client that passed at the primary may use both."""

import re
from pathlib import Path

from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import GREETING, TEASER, Client, Screener
from robust.test_control import connected

PRIMARY, BACKUP = "127.9.0.1", "127.9.0.2"


def settings(folder: Path) -> Map:
    ports = [{"addresses": ["127.9.0.9:0"], "trusted": ["127.60.0.0/16"]}]
    return {
        "listen": {"addresses": [f"{PRIMARY}:0", f"{BACKUP}:0"], "proxy": ports, "workers": 2},
        "access": {"allowlist_interfaces": [f"!{BACKUP}", "!198.51.100.2", "0.0.0.0/0"]},
        "cache": {"path": str(folder / "cache")},
        "control": {"path": str(folder / "run" / "control")},
    }


def at(screener: Screener, host: str) -> tuple[str, int]:
    found = re.search(rf"{re.escape(host)}:(\d+)", screener.lines(" daemon started ")[-1])
    assert found
    return (host, int(found[1]))


def vetoed(client: Client) -> bool:
    """Refused for now, with every test made, by the dummy engine."""
    assert client.read() == TEASER + GREETING
    client.ask(b"HELO client.example")
    client.ask(b"MAIL FROM:<a@b.example>")
    return client.ask(b"RCPT TO:<c@d.example>") == b"450 4.3.2 Service currently unavailable\r\n"


def test_the_backup_passes_nobody(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(settings(folder))
    for _ in range(2):
        with Client(at(screener, BACKUP), "127.1.0.1") as client:
            assert vetoed(client)
            screener.line(f"ALLOWLIST VETO {client.pattern}$")
        screener.line(f"DISCONNECT {client.pattern}$")
    assert not screener.lines("PASS")
    with Client(at(screener, PRIMARY), "127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    screener.line(r"PASS NEW .127\.1\.0\.1")
    with Client(at(screener, BACKUP), "127.1.0.1") as client:
        assert client.read() == FROM_MTA
    screener.line(r"PASS OLD .127\.1\.0\.1")
    assert len(screener.lines("VETO")) == 2


def test_a_balancers_header_says_where(start: Start, folder: Path, mta: FakeMta) -> None:
    """The address that the client connected to is the header's."""
    screener = start(settings(folder))
    with Client(at(screener, "127.9.0.9"), "127.60.0.1") as client:
        client.send(b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 25\r\n")
        assert vetoed(client)
    with Client(at(screener, "127.9.0.9"), "127.60.0.1") as client:
        client.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 5001 25\r\n")
        assert client.read() == TEASER + FROM_MTA
    assert len(screener.lines(r"ALLOWLIST VETO .192\.0\.2\.1.:5000")) == 1


def test_explain_says_where(start: Start, folder: Path) -> None:
    start(settings(folder))
    with connected(folder / "run" / "control") as control:
        at_backup = control.ok("explain", address="192.0.2.1", server=BACKUP)
        assert (at_backup["verdict"], at_backup["reply"]) == ("vetoed", "450 4.3.2 Service currently unavailable")
        assert control.ok("explain", address="192.0.2.1", server=PRIMARY)["verdict"] == "passed"
        anywhere = control.ok("explain", address="192.0.2.1")
        assert anywhere["verdict"] == "passed"
        assert [step["step"] for step in anywhere["steps"]] == ["access", "cache", "interface", "greet", "handoff"]


def test_explain_knows_when_all_doors_are_closed(start: Start, folder: Path) -> None:
    """One listening address, and nobody passes there."""
    closed: Map = {"listen": {"addresses": [f"{BACKUP}:0"], "proxy": []}}
    start(settings(folder), closed)
    with connected(folder / "run" / "control") as control:
        assert control.ok("explain", address="192.0.2.1")["verdict"] == "vetoed"
