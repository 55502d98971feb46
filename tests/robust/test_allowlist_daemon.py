"""The running daemon refreshes its lists, and a failed refresh never affects clients."""

import os
import signal
from pathlib import Path

import pytest
from peers import needs

from fastscreen.allowlist import state
from robust.conftest import Alter, Start
from robust.control import Control, Map
from robust.fakedns import Answer, Behaviour, FakeDns, Question, failing, record, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import TEASER, Screener, merge, wait_until
from robust.test_proxy_port import settings as proxy
from robust.test_proxy_port import through, v1

TXT = 16


def says(text: str) -> Behaviour:
    """A TXT record; no such name for other questions."""

    def behave(question: Question) -> list[Answer]:
        if question.kind != TXT:
            return [Answer(question.packet[:2] + b"\x81\x83" + question.packet[4:])]
        return [Answer(record(question, TXT, bytes([len(text)]) + text.encode()))]

    return behave


def listing(folder: Path, dns: FakeDns, *domains: str, interval: str = "1d") -> Map:
    path = folder / "lists" / "allowlist.cidr"
    return merge(
        proxy(),
        {
            "access": {"list": [f"cidr:{path}"]},
            "allowlist": {"domains": list(domains), "path": str(path), "interval": interval},
            "dnsbl": {"resolvers": [dns.endpoint]},
        },
    )


def refreshes(screener: Screener) -> list[int]:
    """The pids of its refreshes, which is one at most."""
    found = []
    for pid in screener.workers():
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "fastscreen-list\n":
                found.append(pid)
        except OSError:  # it has just ended
            continue
    return found


def is_let_in(screener: Screener, address: str) -> bool:
    with through(screener, v1(address)) as client:
        return client.read() == FROM_MTA


def is_tested(screener: Screener, address: str) -> bool:
    with through(screener, v1(address)) as client:
        return client.read() == TEASER + FROM_MTA


@pytest.fixture
def lists(folder: Path) -> Path:
    """The folder of the lists, as a package would make it."""
    made = folder / "lists"
    made.mkdir()
    os.chown(made, folder.stat().st_uid, folder.stat().st_gid)
    return made


@pytest.mark.parametrize("workers", [1, 2])
def test_from_nothing_to_a_client_that_is_let_in(start: Start, folder: Path, dns: FakeDns, workers: int) -> None:
    """Neither table nor folder are there before; every worker reads the table when it changed."""
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(listing(folder, dns, "big.example"), {"listen": {"workers": workers}})
    screener.line(r"allowlist: 1 network added, 0 removed: big.example \+1 -0$")
    screener.line("tables read again$")
    for last in range(1, 9):
        assert is_let_in(screener, f"8.8.8.{last}")
    screener.line(r"ALLOWLISTED \[8\.8\.8\.1\]:5000$")
    assert not screener.lines("warning")
    wait_until(lambda: not refreshes(screener), "the refresh to end")


def test_it_refreshes_by_the_interval(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(listing(folder, dns, "big.example", interval="1s"))
    screener.line("tables read again$")
    assert is_tested(screener, "9.9.9.9")
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 ip4:9.9.9.0/24 -all")
    screener.line(r"big.example \+1 -0$", 2)
    screener.line("tables read again$", 2)
    assert is_let_in(screener, "9.9.9.9")
    asked = dns.asked["big.example"]
    wait_until(lambda: dns.asked["big.example"] >= asked + 2, "two more refreshes")
    assert len(screener.lines("tables read again$")) == 2  # nothing had changed


def test_without_a_resolver_the_last_result_stays(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    dns.zones["other.example"] = says("v=spf1 ip4:9.9.9.9 -all")
    screener = start(listing(folder, dns, "big.example", "other.example", interval="1s"))
    screener.line("tables read again$")
    dns.zones["big.example"] = dns.zones["other.example"] = failing()
    said = screener.line("warning: allowlist: no new result of 2 of 2 providers, the last one stays in use: ")
    assert "big.example (of 20" in said and "): big.example TXT: SERVFAIL, other.example (of 20" in said
    assert is_let_in(screener, "8.8.8.8")
    assert is_let_in(screener, "9.9.9.9")
    assert len(screener.lines("tables read again$")) == 1


def test_the_warning_is_shown_with_the_others(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    dns.zones["big.example"] = failing()
    path = folder / "run" / "control"
    screener = start(listing(folder, dns, "big.example"), {"control": {"path": str(path)}})
    screener.line("warning: allowlist: ")
    with Control(path) as control:
        texts = [warning["text"] for warning in control.ok("warnings")["warnings"]]
    assert any(text.startswith("allowlist: no new result of 1 of 1 providers, the last one stays") for text in texts)


def test_nothing_at_all_could_be_looked_up(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """One warning, and clients are tested as they would be without a list."""
    dns.zones["big.example"] = failing()
    screener = start(listing(folder, dns, "big.example"))
    screener.line(r"warning: allowlist: .*: big.example \(none yet\): big.example TXT: SERVFAIL$")
    assert is_tested(screener, "8.8.8.8")
    assert len(screener.lines("warning")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_refresh_that_dies_harms_nobody(
    start: Start, folder: Path, dns: FakeDns, lists: Path, number: signal.Signals
) -> None:
    dns.zones["big.example"] = silent
    screener = start(listing(folder, dns, "big.example"))
    wait_until(lambda: dns.asked["big.example"] > 0, "the refresh to ask")
    (pid,) = refreshes(screener)
    os.kill(pid, number)
    wait_until(lambda: not refreshes(screener), "the refresh to be gone")
    assert is_tested(screener, "8.8.8.8")
    screener.line(rf"warning: allowlist \(process {pid}\) was killed by {number.name}: the lists stay as they are$")
    assert not [path for path in lists.iterdir() if path.name not in ("allowlist.cidr",)]


def test_what_it_wrote_before_it_died_is_read(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """Else the next refresh would find the table as it should be, and nobody would ever read it."""
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    dns.zones["spam.example"] = silent
    deny = {"denylist": {"domains": ["spam.example"], "path": str(lists / "denylist.cidr")}}
    screener = start(listing(folder, dns, "big.example"), deny)
    wait_until(lambda: dns.asked["spam.example"] > 0, "the refresh to be at the second list")
    (pid,) = refreshes(screener)
    os.kill(pid, signal.SIGKILL)
    screener.line("tables read again$")
    assert is_let_in(screener, "8.8.8.8")


def test_a_refresh_that_does_not_end_is_killed(
    start: Start, folder: Path, dns: FakeDns, lists: Path, alter: Alter
) -> None:
    alter("from fastscreen.allowlist import schedule\nschedule.MAX_SECONDS = 1.0")
    dns.zones["big.example"] = silent
    screener = start(listing(folder, dns, "big.example"))
    screener.line("warning: allowlist: the refresh takes too long: killed; the lists stay as they are$")
    wait_until(lambda: not refreshes(screener), "the refresh to be gone")
    assert is_tested(screener, "8.8.8.8")
    assert len(screener.lines("warning")) == 1


def test_other_lists_at_sighup_are_looked_up_at_once(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """Though a refresh by the old ones is under way."""
    dns.zones["slow.example"] = silent
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(listing(folder, dns, "slow.example"))
    wait_until(lambda: dns.asked["slow.example"] > 0, "the refresh to ask")
    screener.reload(listing(folder, dns, "big.example"))
    screener.line("tables read again$")
    assert is_let_in(screener, "8.8.8.8")
    asked = dns.asked["big.example"]
    screener.reload()
    assert is_let_in(screener, "8.8.8.8")
    assert (dns.asked["big.example"], refreshes(screener)) == (asked, [])
    assert not screener.lines("warning")


def test_lists_that_come_with_a_reload(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(proxy())
    assert is_tested(screener, "8.8.8.8")
    screener.reload(listing(folder, dns, "big.example"))
    screener.line("tables read again$")
    assert is_let_in(screener, "8.8.8.8")
    screener.reload(proxy())
    assert is_tested(screener, "8.8.8.9")


def test_only_the_tables_are_read_again(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """The configuration is not read again, because an operator who edits it will send SIGHUP."""
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(listing(folder, dns, "big.example", interval="1s"))
    screener.line("tables read again$")
    screener.config.write_text("half a li")
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 ip4:9.9.9.0/24 -all")
    screener.line("tables read again$", 2)
    assert is_let_in(screener, "9.9.9.9")


def test_another_table_that_is_gone_meanwhile(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """The tables stay all as they are, and the log tells."""
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    own = folder / "own.cidr"
    own.write_text("1.1.1.1 permit\n")
    settings = listing(folder, dns, "big.example", interval="1s")
    settings["access"]["list"].append(f"cidr:{own}")
    screener = start(settings)
    screener.line("tables read again$")
    own.unlink()
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 ip4:9.9.9.0/24 -all")
    screener.line(f"warning: tables not read again: .*{own}: cannot be read: No such file or directory")
    assert is_let_in(screener, "8.8.8.8")
    assert is_let_in(screener, "1.1.1.1")
    assert is_tested(screener, "9.9.9.9")


def test_a_folder_that_is_not_the_users(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    """The table is there, and cannot be replaced: one warning."""
    needs.root("a folder that the screener's user may not write to")
    (lists / "allowlist.cidr").write_text("1.1.1.1\tpermit\n")
    os.chown(lists, 0, 0)
    dns.zones["big.example"] = says("v=spf1 ip4:8.8.8.0/24 -all")
    screener = start(listing(folder, dns, "big.example"))
    screener.line(f"warning: allowlist: not refreshed: {lists}/allowlist.cidr.state: Permission denied$")
    assert is_let_in(screener, "1.1.1.1")
    assert is_tested(screener, "8.8.8.8")


def test_a_refresh_ends_with_the_daemon(start: Start, folder: Path, dns: FakeDns, lists: Path) -> None:
    dns.zones["big.example"] = silent
    screener = start(listing(folder, dns, "big.example"))
    wait_until(lambda: dns.asked["big.example"] > 0, "the refresh to ask")
    (pid,) = refreshes(screener)
    screener.signal(signal.SIGTERM)
    assert screener.wait() == 0
    assert not Path(f"/proc/{pid}").exists()


def test_no_list_no_process(start: Start, folder: Path, dns: FakeDns, lists: Path, mta: FakeMta) -> None:
    """Nor where the interval is 0: then the table has to be there already."""
    (lists / "allowlist.cidr").write_text("8.8.8.0/24\tpermit\n")
    screener = start(listing(folder, dns, "big.example", interval="0"))
    assert is_let_in(screener, "8.8.8.8")
    assert refreshes(screener) == []
    assert not dns.asked
    assert not state.path_of(lists / "allowlist.cidr").exists()
