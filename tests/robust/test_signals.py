"""SIGHUP and SIGTERM while clients are in every stage, and kill -9."""

import signal
import time
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.fakedns import FakeDns, listed, silent
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta, fill
from robust.harness import ADDRESS, GREETING, TEASER, Client, merge, wait_until

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
DEEP = {"deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"}}


def with_cache(folder: Path) -> dict[str, dict[str, str]]:
    return {"cache": {"path": str(folder / "cache")}}


def refused(address: tuple[str, int]) -> bool:
    try:
        Client(address, "127.7.0.1").reset()
    except ConnectionError:
        return True
    return False


def pass_deep(client: Client) -> None:
    client.ask(b"EHLO me")
    assert client.ask(b"MAIL FROM:<a@example.test>") == b"250 2.1.0 Ok\r\n"
    assert client.ask(b"RCPT TO:<b@example.test>") == b"450 4.3.2 Service currently unavailable\r\n"
    assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"


def test_clients_under_test_notice_no_reload(start: Start, folder: Path, mta: FakeMta, dns: FakeDns) -> None:
    """Those in the greet wait, in a command and behind RCPT go on with their settings, and their pass is stored."""
    dns.zones["slow.test"] = listed("127.0.0.2", delay=1.5)
    dnsbl = {"dnsbl": {"sites": ["slow.test*1"], "threshold": 9, "resolvers": [dns.endpoint], "timeout": "5s"}}
    settings = merge(KNOWN, DEEP, dnsbl, with_cache(folder), {"greet": {"wait": "2s"}})
    screener = start(settings)
    talking = screener.connect("127.1.0.1")
    assert talking.read() == TEASER + GREETING
    assert talking.ask(b"EHLO me").startswith(b"250-mx.example.test\r\n")
    talking.send(b"MAIL FR")
    behind = screener.connect("127.1.0.2")
    waiting = screener.connect("127.1.0.3")
    assert behind.socket.recv(len(TEASER)) == TEASER
    assert waiting.socket.recv(len(TEASER)) == TEASER
    other = {
        "hostname": "new.example.test",
        "banner": "new banner",
        "greet": {"wait": "1s", "banner": "new teaser"},
        "deep": {"pipelining": "off", "non_smtp_command": "off", "bare_newline": "off"},
        "dnsbl": {"sites": ["other.test*1"], "threshold": 1, "action": "drop", "resolvers": [dns.endpoint]},
    }
    screener.reload(merge(settings, other))
    new = screener.connect("127.1.0.4")
    assert new.read() == b"220-new teaser\r\n" + FROM_MTA
    for client in (behind, waiting):
        assert client.read() == GREETING
    talking.send(b"OM:<a@example.test>\r\n")
    assert talking.read() == b"250 2.1.0 Ok\r\n"
    assert talking.ask(b"RCPT TO:<b@example.test>").startswith(b"450 4.3.2")
    assert talking.ask(b"HELO x") == b"250 mx.example.test\r\n"
    assert talking.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    pass_deep(behind)
    screener.reload()
    pass_deep(waiting)
    for client in (talking, behind, waiting):
        screener.line(rf"PASS NEW {client.pattern}")
        again = screener.connect(client.name[1:].partition("]")[0])
        assert again.read() == FROM_MTA
        screener.line(rf"PASS OLD {again.pattern}")
    assert dns.count("other.test") > 0


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ('[greet]\nwait = "soon"\n', "greet.wait"),
        ("[gr", "screener.toml"),
        ('[greet]\nwate = "2s"\n', "wate"),
        ('[access]\nlist = ["cidr:/nonexistent/table"]\n', "/nonexistent/table"),
        ('[listen]\naddresses = ["192.0.2.1:25"]\n', "192.0.2.1:25"),
        (f'[handoff]\nto = "pass:/{"x" * 120}"\n', "handoff.to"),
        (f'[dnsbl]\nsites = ["{"a." * 110}test"]\n', "a.a."),
        ("\0\xff", "screener.toml"),
    ],
)
def test_broken_configuration_is_refused(start: Start, mta: FakeMta, broken: str, where: str) -> None:
    """One line that says what and where; the old one stays, whole."""
    screener = start(KNOWN)
    screener.config.write_bytes(f'hostname = "new.example.test"\n{broken}'.encode("latin-1"))
    line = screener.reload(expected="warning: configuration not taken over: ")
    assert where in line
    with screener.connect("127.7.0.1") as known:
        assert known.read() == FROM_MTA
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    assert len(screener.lines("configuration not taken over")) == 1
    screener.reload({"banner": "mended"})
    with screener.connect("127.1.0.2") as client:
        assert client.read() == b"220-mended\r\n" + FROM_MTA


def test_missing_configuration_is_refused(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN)
    screener.config.unlink()
    screener.reload(expected="warning: configuration not taken over: ")
    with screener.connect("127.7.0.1") as known:
        assert known.read() == FROM_MTA


def test_whatever_goes_wrong_in_a_reload_is_told(start: Start, folder: Path, mta: FakeMta) -> None:
    """A configuration that is not a file, and one that is nested too deeply for the parser."""
    screener = start(KNOWN)
    screener.config.unlink()
    screener.config.mkdir()
    screener.reload(expected="warning: configuration not taken over: ")
    screener.config.rmdir()
    screener.config.write_text("x = " + "[" * 100000)
    assert screener.reload(expected="warning: configuration not taken over: ") != ""
    screener.line("warning: configuration not taken over: ", 2)
    with screener.connect("127.7.0.1") as known:
        assert known.read() == FROM_MTA


def test_many_signals_at_once_end_with_the_newest_settings(start: Start, mta: FakeMta) -> None:
    screener = start()
    for number in range(30):
        screener.configure({"banner": f"number {number}"})
        screener.signal(signal.SIGHUP)
        time.sleep(0.003)

    def banner() -> bytes:
        with screener.connect("127.1.0.1") as client:
            return client.socket.recv(100)

    end = time.monotonic() + 10
    while (said := banner()) != b"220-number 29\r\n" and time.monotonic() < end:
        time.sleep(0.05)
    assert said == b"220-number 29\r\n"


def test_log_is_opened_again(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(KNOWN)
    with screener.connect("127.7.0.1") as client:
        assert client.read() == FROM_MTA
    rotated = folder / "screener.log.1"
    screener.log.rename(rotated)
    with screener.connect("127.7.0.2") as client:
        assert client.read() == FROM_MTA
    screener.signal(signal.SIGHUP)
    screener.line("configuration reloaded")
    assert b"[127.7.0.2]" in rotated.read_bytes()
    with screener.connect("127.7.0.3") as client:
        assert client.read() == FROM_MTA
        screener.line(f"ALLOWLISTED {client.pattern}")
        assert client.name.encode() not in rotated.read_bytes()


def test_listeners_are_added_and_removed(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN)
    first = screener.address
    held = screener.connect("127.1.0.1")
    assert held.socket.recv(len(TEASER)) == TEASER
    second = ("127.9.0.2", first[1])
    added = f"127.9.0.2:{first[1]}"
    screener.reload(merge(KNOWN, {"listen": {"addresses": [f"{ADDRESS}:0", added]}}))
    for address in (first, second):
        with Client(address, "127.7.0.1") as known:
            assert known.read() == FROM_MTA
    screener.reload(merge(KNOWN, {"listen": {"addresses": [added]}}))
    with Client(second, "127.7.0.1") as known:
        assert known.read() == FROM_MTA
    with pytest.raises(ConnectionRefusedError):
        Client(first, "127.7.0.1")
    assert held.read() == FROM_MTA


def test_lists_changed_with_answers_kept_and_on_their_way(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """Kept answers of lists that are no more asked, and questions on their way, are forgotten with care."""
    dns.zones["first.test"] = listed("127.0.0.2")
    dns.zones["second.test"] = listed("127.0.0.3")
    dns.zones["mute.test"] = silent

    def sites(*names: str) -> dict[str, object]:
        return {"dnsbl": {"sites": list(names), "threshold": 99, "resolvers": [dns.endpoint], "timeout": "2s"}}

    quick = {"greet": {"wait": "1s"}}
    screener = start(quick, sites("first.test"))
    for turn in range(4):
        names = ["second.test", "mute.test"] if turn % 2 == 0 else ["first.test"]
        clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 11)]
        screener.line(r"PASS (NEW|OLD) ", 20 * turn + 10)
        for client in clients:
            assert client.read() == TEASER + FROM_MTA
        # Some are under test while the lists change, some left kept answers, some come back.
        clients = [screener.connect(f"127.1.0.{number}") for number in range(6, 16)]
        screener.reload(merge(quick, sites(*names)))
        for client in clients:
            assert client.read() == TEASER + FROM_MTA
    # The time of what was armed for freed answers: two timeouts of the mute list.
    screener.line("dnsblog reply timeout 2s for mute.test")
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA


def test_resolvers_changed_with_questions_on_their_way(start: Start, mta: FakeMta, dns: FakeDns) -> None:
    """A question without a socket, one on its way and one to come all go to the new resolver."""
    dns.zones["list.test"] = listed("127.0.0.2")

    def resolver(endpoint: str) -> dict[str, object]:
        return {
            "greet": {"wait": "3s"},
            "dnsbl": {"sites": ["list.test"], "threshold": 1, "action": "drop", "resolvers": [endpoint]},
        }

    # No datagram can be sent to this address, so that no socket for it can be opened.
    screener = start(resolver("255.255.255.255:53"))
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 11)]
    for client in clients:
        assert client.socket.recv(len(TEASER)) == TEASER
    screener.reload(resolver(dns.endpoint))
    for client in clients:
        assert b" blocked using list.test\r\n" in client.read_all()
    assert dns.count("list.test") >= 10


def test_first_sigterm_sends_those_away_that_only_wait(start: Start, folder: Path, mta: FakeMta) -> None:
    """They may come back to the next process: the port is not closed for as long as one of them is silent. What they
    had passed already is stored.
    """
    screener = start(DEEP, KNOWN, with_cache(folder), {"greet": {"wait": "100s"}})
    address = screener.address
    waiting = screener.connect("127.1.0.2")
    assert waiting.socket.recv(len(TEASER)) == TEASER
    screener.reload(merge(DEEP, KNOWN, with_cache(folder)))
    talking = screener.connect("127.1.0.1")
    assert talking.read() == TEASER + GREETING
    passing = screener.connect("127.1.0.3")
    assert passing.read() == TEASER + GREETING
    pass_deep(passing)
    screener.signal(signal.SIGTERM)
    screener.line("stopping")
    wait_until(lambda: refused(address), "nobody to be let in")
    for client in (talking, waiting):
        assert client.read_all() == b"421 4.3.2 Service currently unavailable\r\n"
    assert screener.wait() == 0
    screener.line(" daemon stopped$")
    screener.start()
    with screener.connect("127.1.0.3") as again:
        assert again.read() == FROM_MTA
        screener.line(f"PASS OLD {again.pattern}")


def test_first_sigterm_waits_for_the_mta(start: Start, mta: FakeMta) -> None:
    """A client that is lined up for a busy MTA is handed off all the same."""
    fill(mta)
    screener = start(KNOWN)
    known = [screener.connect(f"127.7.0.{number}") for number in range(1, 6)]
    screener.line("CONNECT from", 5)
    screener.signal(signal.SIGTERM)
    screener.line("stopping")
    time.sleep(1.5)  # longer than clients have that only wait
    mta.accept()
    for client in known:
        assert client.read() == FROM_MTA
    assert screener.wait() == 0


def test_second_sigterm_stops_at_once(start: Start, mta: FakeMta) -> None:
    fill(mta)
    screener = start(KNOWN)
    client = screener.connect("127.7.0.1")
    screener.line("CONNECT from")
    screener.signal(signal.SIGTERM)
    screener.line("stopping")
    assert screener.process is not None
    assert screener.process.poll() is None
    screener.signal(signal.SIGTERM)
    assert screener.wait(5.0) == 0
    assert client.read_all() == b""
    assert screener.output.read_text() == ""


def test_sigterm_without_clients_ends(start: Start, mta: FakeMta) -> None:
    screener = start()
    screener.signal(signal.SIGTERM)
    assert screener.wait(5.0) == 0


def test_pass_survives_kill_9(start: Start, folder: Path, mta: FakeMta) -> None:
    """Everything older than the last second or two is there after a restart."""
    screener = start(with_cache(folder))
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 51)]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
    time.sleep(2.2)  # one turn of the writer thread
    screener.kill()
    screener.start()
    for number in range(1, 51):
        with screener.connect(f"127.1.0.{number}") as again:
            assert again.read() == FROM_MTA
            screener.line(f"PASS OLD {again.pattern}")
    assert screener.lines("warning") == []


def test_many_reloads_with_other_times(start: Start, mta: FakeMta) -> None:
    """Timers are kept by their duration: those that are no more in use must not be taken from under a hand-off."""
    screener = start(KNOWN)
    with screener.connect("127.7.0.1") as known:
        assert known.read() == FROM_MTA
    held = []
    for number in range(40):
        screener.reload(merge(KNOWN, {"greet": {"wait": f"{100 + number}s"}}))
        held.append(screener.connect(f"127.1.0.{number + 1}"))
        assert held[-1].socket.recv(len(TEASER)) == TEASER
        for source in range(1, 4):
            with screener.connect(f"127.7.0.{source}") as known:
                assert known.read() == FROM_MTA
    assert screener.lines("warning") == []
    for client in held:
        client.socket.close()
