"""What follows from a score below the threshold: a deferral, another MTA, slow replies."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fastscreen import config
from fastscreen.core import HISTORY_FIELDS, TESTS, deferred_at, history_read, read_record, write_record
from fastscreen.screening import policy
from robust.conftest import Start
from robust.control import Map
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.historycore import Client, Core
from robust.proxymta import Connection, ProxyMta
from robust.test_score_helo import LATER

SCORE = [test.key for test in TESTS].index("score")
MAIL = b"MAIL FROM:<a@b.test>"
RCPT = b"RCPT TO:<c@d.test>"
BAD = (b"EHLO localhost", MAIL, RCPT)
GOOD = (b"EHLO a.provider-host.se", MAIL, RCPT)
GREETED = b"220 mx.test"
DAY = 86400

Make = Callable[..., "SlowCore"]


@pytest.fixture
def strict(folder: Path) -> Iterator[FakeMta]:
    """The MTA for doubtful clients."""
    made = FakeMta(folder / "strict")
    yield made
    made.close()


@pytest.fixture
def make(folder: Path, mta: FakeMta) -> Iterator[Make]:
    """Make a core; slow_by may be a part of a second here."""
    with ExitStack() as opened:

        def made(settings: Map, slow_by: float = 0, **more: Any) -> "SlowCore":
            return SlowCore(folder, opened, settings, slow_by=slow_by, **more)

        yield made


class SlowCore(Core):
    """A core with a log that is kept, and delays of parts of a second."""

    def __init__(self, *args: Any, slow_by: float, **more: Any) -> None:
        self.slow_by = slow_by
        self.said: list[str] = []
        self.failing = False
        super().__init__(*args, **more)

    def build(self, settings: Map) -> policy.Built:
        load = config.load

        def fractional(path: Path) -> config.Config:
            loaded = load(path)
            return replace(loaded, score=replace(loaded.score, slow_by=self.slow_by)) if self.slow_by else loaded

        config.load = fractional
        try:
            return super().build(settings)
        finally:
            config.load = load

    def keep(self, key: bytes, record: bytes) -> None:
        if not self.failing:
            super().keep(key, record)

    def lines(self) -> list[str]:
        self.said += [line.split("]: ", 1)[1] for line in self.log.lines().decode().splitlines()]
        return self.said

    def stamp(self) -> int:
        """The stamp of the score test in the only record."""
        (record,) = self.stored.values()
        stamps = read_record(record)
        assert stamps is not None
        return stamps[SCORE]

    def age(self, seconds: int) -> None:
        """As if the deferral had been so much earlier."""
        ((key, record),) = self.stored.items()
        stamps = list(read_record(record) or ())
        assert deferred_at(stamps[SCORE])
        stamps[SCORE] -= seconds // 4
        self.stored[key] = write_record(stamps)


def scored(threshold: int = 4, action: str = "enforce", **score: object) -> dict[str, Any]:
    keys = {"action": action, "helo_reserved": 2, **score}
    return {"score": keys, "dnsbl": {"threshold": threshold, "action": "enforce"}, "greet": {"banner": ""}}


def said(core: "SlowCore", *lines: bytes, source: str = "127.1.0.1") -> bytes:
    """The reply to the last line of a session, which ends with QUIT."""
    client = core.connect(source)
    client.until(lambda got: got.startswith(b"220 ") and got.endswith(b"\n"))
    answer = client.ask(*lines)
    client.ask(b"QUIT")
    client.hang_up()
    return answer


def greeting(core: "SlowCore", source: str = "127.1.0.1") -> bytes:
    client = core.connect(source)
    got = client.until(lambda got: got.endswith(b"\n"))
    client.hang_up()
    core.end()
    return got


def serve(connection: Connection, _: int) -> None:
    """An MTA that accepts every recipient."""
    connection.send(b"220 mta\r\n")
    with contextlib.suppress(EOFError, OSError):
        while line := connection.line():
            connection.send(ProxyMta.OFFER if line.startswith(b"EHLO") else b"250 accepted\r\n")


# ---- defer_from


def test_deferred_once(make: Make) -> None:
    core = make(scored(defer_from=2))
    assert said(core, *BAD) == LATER
    row = core.row()
    assert (row["outcome"], row["verdict"], row["score"]) == ("deferred", 450, 2)
    assert "score_deferred" in row["marks"]
    assert not {"new", "passed"} & row["marks"]
    assert abs(deferred_at(core.stamp()) - time.time()) < 10
    assert next(line for line in core.lines() if line.startswith("DEFERRED")).endswith(": score 2: helo_reserved 2")
    before = core.stamp()
    core.age(52)
    assert said(core, *BAD) == LATER  # too early; the time counts from the first one on
    assert core.row()["marks"] >= {"score_deferred"}
    assert core.stamp() == before - 13
    core.age(12)
    assert greeting(core) == FROM_MTA
    assert core.row()["outcome"] == "handed_off"
    assert core.stamp() > time.time() + 20 * DAY  # a pass as any other
    assert greeting(core) == FROM_MTA


def test_below_it_nothing_changes(make: Make) -> None:
    core = make(scored(defer_from=2))
    assert said(core, *GOOD) == LATER
    row = core.row()
    assert row["marks"] >= {"new", "passed"}
    assert "score_deferred" not in row["marks"]
    assert not [line for line in core.lines() if "DEFERRED" in line]
    assert greeting(core) == FROM_MTA


def test_from_the_threshold_on_it_is_rejected(make: Make) -> None:
    core = make(scored(3, defer_from=2, helo_reserved=3))
    assert said(core, *BAD).startswith(b"550 5.7.1")
    assert "score_deferred" not in core.row()["marks"]


def test_after_two_days_it_is_new(make: Make) -> None:
    core = make(scored(defer_from=2))
    said(core, *BAD)
    core.age(2 * DAY + 8)
    assert said(core, *BAD) == LATER
    assert [row["marks"] >= {"score_deferred"} for row in core.rows(2)] == [True, True]
    assert abs(deferred_at(core.stamp()) - time.time()) < 10


def test_a_clock_that_jumped_back(make: Make) -> None:
    core = make(scored(defer_from=2))
    said(core, *BAD)
    core.age(-3600)
    assert greeting(core) == FROM_MTA


def test_lists_count(make: Make, dns: FakeDns) -> None:
    """The score includes the DNS lists; with defer_from alone, the score test is made as well."""
    dns.zones["bl.test"] = listed("127.0.0.2")
    settings = scored(defer_from=1, helo_reserved=0)
    settings["dnsbl"] |= {"sites": ["bl.test*1"]}
    core = make(settings, dns=dns)
    assert said(core, *GOOD) == LATER
    assert "score_deferred" in core.row()["marks"]
    assert next(line for line in core.lines() if line.startswith("DEFERRED")).endswith(": score 1: dnsbl 1")


def test_a_later_recipient(make: Make) -> None:
    """A score that rises during the session takes the pass back."""
    core = make(scored(defer_from=2, rcpt_many=2, rcpt_many_from=2))
    assert said(core, *GOOD, RCPT) == LATER
    assert "score_deferred" in core.row()["marks"]
    assert deferred_at(core.stamp())


def test_it_is_stored_at_once(make: Make) -> None:
    """A worker that dies now does not make it lose its deferral; but no pass is stored before the session has ended."""
    core = make(scored(defer_from=2) | {"deep": {"bare_newline": "enforce"}})
    client = core.connect()
    client.until(lambda got: got.endswith(b"\n"))
    client.ask(*BAD)
    stamps = read_record(*core.stored.values())
    assert stamps is not None
    assert deferred_at(stamps[SCORE])
    assert max(stamps) < time.time()


@pytest.mark.parametrize("problem", ["lost", "raises", "none"])
def test_without_a_cache_nobody_is_deferred(make: Make, problem: str) -> None:
    core = make(scored(defer_from=2))
    core.failing = True
    if problem == "raises":
        core.keep = lambda *_: 1 / 0  # type: ignore[assignment]
    if problem == "none":
        with ProxyMta(serve) as mta:
            core = make(scored(defer_from=2) | {"handoff": {"continue_to": mta.target}})
            core.failing = True
            assert said(core, *BAD) == b"250 accepted\r\n"
            core.end()
        return
    assert said(core, *BAD) == LATER
    assert core.row()["marks"] >= {"new", "passed"}


def test_a_known_client_is_not_deferred(make: Make) -> None:
    """Its pass has expired."""
    core = make(scored(defer_from=2))
    said(core, *GOOD)
    ((key, record),) = core.stored.items()
    expired = int(time.time()) - 5
    core.stored[key] = write_record([stamp if stamp < 10 else expired for stamp in read_record(record) or ()])
    assert said(core, *BAD) == LATER
    assert [row["marks"] >= {"score_deferred"} for row in core.rows(2)] == [False, False]
    assert greeting(core) == FROM_MTA


def test_where_it_would_continue(make: Make) -> None:
    with ProxyMta(serve) as mta:
        core = make(scored(defer_from=2) | {"handoff": {"continue_to": mta.target}})
        assert said(core, *GOOD, source="127.1.0.2") == b"250 accepted\r\n"
        rows = [core.row()]
        core.stored.clear()
        assert said(core, *BAD) == LATER
        rows.append(core.row())
        core.age(64)
        assert said(core, *BAD) == b"250 accepted\r\n"
        rows.append(core.row())
        assert [row["outcome"] for row in rows] == ["continued", "deferred", "continued"]
        assert [row["marks"] >= {"score_deferred"} for row in rows] == [False, True, False]
        assert mta.came == 2


def test_its_retry_is_judged_where_it_continues(make: Make, dns: FakeDns) -> None:
    """A list knows it meanwhile."""
    with ProxyMta(serve) as mta:
        settings = scored(defer_from=2) | {"handoff": {"continue_to": mta.target}}
        settings["dnsbl"] |= {"sites": ["bl.test*2"]}
        core = make(settings, dns=dns)
        assert said(core, *BAD) == LATER
        core.age(64)
        dns.zones["bl.test"] = listed("127.0.0.2")
        core.row()
        second = make(settings, dns=dns)  # another worker, without the lists' answers
        second.stored = core.stored
        ((key, record),) = second.stored.items()
        stamps = list(read_record(record) or ())
        stamps[1] = 1  # the pass of the lists has expired
        second.stored[key] = write_record(stamps)
        assert said(second, *BAD).startswith(b"550 5.7.1")


def test_another_worker_admits_it(make: Make) -> None:
    first, second = make(scored(defer_from=2)), make(scored(defer_from=2))
    second.stored = first.stored
    said(first, *BAD)
    first.end()
    assert said(second, *BAD) == LATER
    first.age(64)
    assert greeting(second) == FROM_MTA


@pytest.mark.parametrize("action", ["shadow", "ignore"])
def test_deferral_in_shadow(make: Make, action: str) -> None:
    core = make(scored(defer_from=2, action=action))
    assert said(core, *BAD, RCPT) == LATER
    row = core.row()
    shown = [line for line in core.lines() if line.startswith("SHADOW")]
    assert row["marks"] >= {"new", "passed"}
    assert "score_deferred" not in row["marks"]
    if action == "shadow":
        assert (row["spared"], len(shown)) == (450, 1)
        assert shown[0].endswith("would have replied: 450 4.3.2 Service currently unavailable")
    else:
        assert not shown
    assert greeting(core) == FROM_MTA


def test_a_reload_turns_it_off(make: Make) -> None:
    """A session keeps the keys that it began with; the next has the others."""
    core = make(scored(defer_from=2))
    client = core.connect()
    client.until(lambda got: got.endswith(b"\n"))
    client.ask(*BAD[:2])
    core.screener.use_policy(core.build(scored()).policy)
    client.ask(RCPT)
    client.hang_up()
    assert "score_deferred" in core.row()["marks"]
    assert said(core, *BAD) == LATER  # without continue_to, its first session ends so in any case
    assert core.row()["marks"] >= {"passed"}
    assert greeting(core) == FROM_MTA


# ---- doubtful_to


def doubtful(folder: Path, to: str = "", **handoff: object) -> dict[str, Any]:
    settings = scored(helo_reserved=0, doubtful_from=2)
    settings["dnsbl"] |= {"sites": ["bl.test*2"]}
    return settings | {"handoff": {"doubtful_to": to or f"pass:{folder / 'strict'}", **handoff}}


def lists(dns: FakeDns, *last: int) -> None:
    for number in last:
        dns.zones[f"{number}.0.1.127.bl.test"] = listed("127.0.0.2")


def test_doubtful_clients_have_their_own_mta(
    make: Make, folder: Path, mta: FakeMta, strict: FakeMta, dns: FakeDns
) -> None:
    lists(dns, 1)
    strict.start()
    core = make(doubtful(folder), dns=dns)
    assert greeting(core, "127.1.0.2") == FROM_MTA
    assert (len(mta.taken), len(strict.taken)) == (1, 0)
    assert greeting(core) == FROM_MTA
    assert (len(mta.taken), len(strict.taken)) == (1, 1)
    assert strict.taken[0]["client_address"] == "127.1.0.1"
    assert [row["marks"] >= {"doubtful"} for row in core.rows(2)] == [False, True]
    (line,) = [line for line in core.lines() if line.startswith("DOUBTFUL")]
    assert line.endswith(f" to {folder / 'strict'}: score 2")
    assert greeting(core) == FROM_MTA  # it is known now
    assert (len(mta.taken), len(strict.taken)) == (2, 1)


def test_doubtful_clients_are_relayed(make: Make, folder: Path, mta: FakeMta, dns: FakeDns) -> None:
    lists(dns, 1)
    with ProxyMta(serve) as strict:
        core = make(doubtful(folder, strict.target), dns=dns)
        assert said(core, *GOOD) == b"250 accepted\r\n"
        row = core.row()
        assert (row["outcome"], strict.came, len(mta.taken)) == ("relayed", 1, 0)
        assert greeting(core) == FROM_MTA


def test_their_mta_is_missing(make: Make, folder: Path, mta: FakeMta, dns: FakeDns) -> None:
    """421, and never the other MTA; when the client comes back, it is known."""
    lists(dns, 1)
    core = make(doubtful(folder), dns=dns)
    assert greeting(core) == b"421 4.3.2 All server ports are busy\r\n"
    row = core.row()
    assert (row["outcome"], len(mta.taken)) == ("failed", 0)
    assert any(f"cannot connect to service {folder / 'strict'}: " in line for line in core.lines())
    assert greeting(core) == FROM_MTA


def test_their_mta_delays_nobody_else(make: Make, folder: Path, mta: FakeMta, strict: FakeMta, dns: FakeDns) -> None:
    """Its socket is full: they wait, up to half of limits.post_queue, and the others do not."""
    lists(dns, *range(1, 30))
    strict.start(0, accepting=False)
    core = make(doubtful(folder) | {"limits": {"post_queue": 8}}, dns=dns)
    waiting = [core.connect(f"127.1.0.{number}") for number in range(1, 11)]
    core.run_until(lambda: core.screener.handoffs == 4, "the queue to be full")
    refused = [client.until(lambda got: got.startswith(b"421")) for client in waiting[4:]]
    assert len(refused) == 6
    before = time.monotonic()
    assert greeting_of(core, "127.1.0.40") == FROM_MTA
    assert time.monotonic() - before < 5
    strict.accept()
    for client in waiting[:4]:
        assert client.until(lambda got: got.endswith(b"\n")) == FROM_MTA


def greeting_of(core: "SlowCore", source: str) -> bytes:
    client = core.connect(source)
    return client.until(lambda got: got.endswith(b"\n"))


def test_doubtful_sessions_continue_elsewhere(make: Make, folder: Path) -> None:
    with ProxyMta(serve) as usual, ProxyMta(serve) as strict:
        settings = scored(doubtful_from=2) | {
            "handoff": {"continue_to": usual.target, "doubtful_to": strict.target, "to": usual.target}
        }
        core = make(settings)
        assert said(core, *BAD) == b"250 accepted\r\n"
        row = core.row()
        assert (row["outcome"], usual.came, strict.came) == ("continued", 0, 1)
        assert "doubtful" in row["marks"]
        assert any(f" to 127.0.0.1:{strict.port}: score 2" in line for line in core.lines())
        assert said(core, *GOOD, source="127.1.0.2") == b"250 accepted\r\n"
        assert (usual.came, strict.came) == (1, 1)
        assert said(core, *BAD) == b"250 accepted\r\n"  # known
        assert (usual.came, strict.came) == (2, 1)


def test_deferred_clients_that_come_back_are_still_doubtful(make: Make) -> None:
    """As they are new: else the deferral would open the way around the MTA with stricter rules."""
    with ProxyMta(serve) as usual, ProxyMta(serve) as strict:
        settings = scored(defer_from=2, doubtful_from=2) | {
            "handoff": {"continue_to": usual.target, "doubtful_to": strict.target, "to": usual.target}
        }
        core = make(settings)
        assert said(core, *BAD) == LATER
        core.age(64)
        assert said(core, *BAD) == b"250 accepted\r\n"
        assert (usual.came, strict.came) == (0, 1)
        assert said(core, *BAD) == b"250 accepted\r\n"  # known
        assert (usual.came, strict.came) == (1, 1)


def test_the_other_mta_is_missing_where_sessions_continue(make: Make, folder: Path) -> None:
    with ProxyMta(serve) as usual, ProxyMta(serve) as strict:
        strict.stop()
        settings = scored(doubtful_from=2) | {
            "handoff": {"continue_to": usual.target, "doubtful_to": strict.target, "to": usual.target}
        }
        core = make(settings)
        assert said(core, *BAD) == LATER
        assert (core.row()["outcome"], usual.came) == ("deferred", 0)
        assert said(core, *BAD) == b"250 accepted\r\n"


def test_doubtful_in_shadow(make: Make, folder: Path, mta: FakeMta, strict: FakeMta, dns: FakeDns) -> None:
    lists(dns, 1)
    strict.start()
    settings = doubtful(folder)
    settings["score"]["action"] = "shadow"
    core = make(settings, dns=dns)
    assert greeting(core) == FROM_MTA
    assert (len(mta.taken), len(strict.taken)) == (1, 0)
    assert "doubtful" not in core.row()["marks"]
    (line,) = [line for line in core.lines() if line.startswith("SHADOW")]
    assert line.endswith(f": would have gone to {folder / 'strict'}: score 2")


# ---- slow_from

BY = 0.4
DEEP = {"pipelining": "enforce", "bare_newline": "ignore", "non_smtp_command": "ignore"}


def slow(**more: Any) -> dict[str, Any]:
    return scored(slow_from=2) | {"deep": DEEP} | more


def begun(core: "SlowCore", source: str = "127.1.0.1", hello: bytes = b"EHLO localhost") -> Client:
    client = core.connect(source)
    client.until(lambda got: got.endswith(b"\n"))
    client.ask(hello)
    return client


def held(core: "SlowCore") -> int:
    count: int = core.screener.stats()["slowed"]
    return count


def test_replies_are_slow(make: Make) -> None:
    core = make(slow(), BY)
    client = begun(core)
    before = time.monotonic()
    assert client.ask(MAIL) == b"250 2.1.0 Ok\r\n"
    assert time.monotonic() - before >= BY
    assert client.ask(RCPT) == LATER
    assert 2 * BY <= time.monotonic() - before < 2 * BY + 5
    assert held(core) == 1
    client.ask(b"QUIT")
    client.hang_up()
    row = core.row()
    assert (row["outcome"], row.get("failed", ())) == ("deferred", ())
    assert row["marks"] >= {"slowed", "passed", "new"}
    assert held(core) == 0
    assert len([line for line in core.lines() if line.startswith("SLOWED")]) == 1


def test_others_are_not(make: Make) -> None:
    core = make(slow(), 10)
    before = time.monotonic()
    client = begun(core, hello=b"EHLO a.provider-host.se")
    assert client.ask(MAIL, RCPT) == LATER
    assert time.monotonic() - before < 5
    client.hang_up()
    assert "slowed" not in core.row()["marks"]


def test_commands_during_the_delay_are_no_pipelining(make: Make) -> None:
    """The engine would have replied in time. What came together is judged as ever."""
    core = make(slow(), BY)
    client = begun(core)
    client.socket.sendall(MAIL + b"\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    client.socket.sendall(b"RSET\r\n" + MAIL + b"\r\n")
    client.socket.sendall(RCPT + b"\r\n")
    got = client.reply(4)
    assert got.endswith(LATER)
    client.hang_up()
    row = core.row()
    assert "failed" not in row
    assert "found" not in row
    assert (row["outcome"], row["commands"]) == ("deferred", 5)


@pytest.mark.parametrize("second", [False, True])
def test_pipelining_of_slowed_clients(make: Make, second: bool) -> None:
    core = make(slow(), BY)
    client = begun(core)
    lines = MAIL + b"\r\n" + RCPT + b"\r\n" + b"QUIT\r\n"
    if second:  # the line after one that has waited
        client.ask(MAIL)
        lines = RCPT + b"\r\nQUIT\r\n"
    client.socket.sendall(lines)
    got = client.rest()
    assert b"550 5.5.1 Protocol error" in got
    assert core.row()["failed"] == ("pipelining",)


def test_pieces_of_a_line_do_not_wait(make: Make) -> None:
    core = make(slow(), BY)
    client = begun(core)
    before = time.monotonic()
    for at in range(len(MAIL)):
        client.socket.sendall(MAIL[at : at + 1])
        for _ in range(3):
            core.run()
            time.sleep(0.002)
    assert held(core) == 0
    client.socket.sendall(b"\r\n")
    assert client.reply() == b"250 2.1.0 Ok\r\n"
    assert time.monotonic() - before < BY + 5
    client.hang_up()
    core.row()


@pytest.mark.parametrize("lines", [b"", MAIL + b"\r\nQUIT\r\n", b"QUIT\r\n"])
def test_hang_up_during_the_delay(make: Make, lines: bytes) -> None:
    """It ends the wait: what was sent before is executed, as ever, and the slot is free at once."""
    core = make(slow() | {"deep": {**DEEP, "pipelining": "ignore"}}, 20)
    client = begun(core)
    client.socket.sendall(b"NOOP\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    client.socket.sendall(lines)
    before = time.monotonic()
    client.hang_up()
    row = core.row()
    assert time.monotonic() - before < 10
    assert held(core) == 0
    assert row["commands"] == 2 + lines.count(b"\n")
    assert ("hung_up" in row["marks"]) == (not lines)


def test_half_close_during_the_delay(make: Make) -> None:
    core = make(slow(), 20)
    client = begun(core)
    client.socket.sendall(b"QUIT\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    before = time.monotonic()
    client.socket.shutdown(1)
    assert client.rest() == b"221 2.0.0 Bye\r\n"
    assert time.monotonic() - before < 10
    core.row()


def test_a_flood_during_the_delay(make: Make) -> None:
    """Nothing is read meanwhile, so the kernel stops the client; another one is served."""
    core = make(slow(), BY)
    client = begun(core)
    client.socket.sendall(b"NOOP\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1 << 26:
            sent += client.socket.send(b"NOOP\r\n" * 4096)
    assert sent < 1 << 26
    assert said(core, *GOOD, source="127.1.0.2") == LATER
    client.until(lambda got: got.count(b"250 ") >= 3)
    client.hang_up()
    core.rows(2)
    assert held(core) == 0


def test_a_thousand_slowed_sessions(make: Make) -> None:
    """They delay nobody; one more is not slowed."""
    core = make(slow(limits={"pre_queue": 8000, "client_connection_count": 0}), 20)
    clients = []
    for number in range(1001):
        client = core.connect(f"127.2.{number // 200}.{number % 200 + 1}")
        client.socket.sendall(b"")
        clients.append(client)
        if number % 50 == 0:
            core.run()
    for client in clients:
        client.until(lambda got: got.endswith(b"\n"))
    for client in clients:
        client.socket.sendall(b"EHLO localhost\r\n")
    for client in clients:
        client.reply()
    for client in clients[:1000]:
        client.socket.sendall(b"NOOP\r\n")
    core.run_until(lambda: held(core) == 1000, "all to wait")
    before = time.monotonic()
    assert clients[1000].ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert said(core, *GOOD, source="127.1.0.2") == LATER
    assert time.monotonic() - before < 10
    for client in clients:
        client.hang_up()
    core.end()
    assert held(core) == 0


def test_a_quarter_of_the_pre_queue(make: Make) -> None:
    core = make(slow(limits={"pre_queue": 40}), 20)
    clients = [begun(core, f"127.1.0.{number}") for number in range(1, 13)]
    for client in clients:
        client.socket.sendall(b"NOOP\r\n")
    for client in clients[10:]:
        assert client.reply() == b"250 2.0.0 Ok\r\n"
    assert held(core) == 10


def test_never_longer_than_half_a_minute(make: Make) -> None:
    """A delay that would not fit is none."""
    core = make(slow(), 30.5)
    client = begun(core)
    assert client.ask(MAIL, RCPT) == LATER
    client.hang_up()
    assert "slowed" not in core.row()["marks"]


def test_the_time_for_a_command_begins_with_the_reply(make: Make) -> None:
    core = make(slow(engine={"command_time_limit": "1s", "stress_command_time_limit": "1s"}), 0.7)
    client = begun(core)
    for _ in range(3):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            core.run()
            time.sleep(0.01)
        assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert client.rest().startswith(b"421 4.4.2 ")  # and it ends
    assert "time_limit" in core.row()["marks"]


def test_the_dialect_is_the_client_s_own(make: Make) -> None:
    """The delay does not count as the client's."""
    core = make(slow(), BY)
    client = begun(core)
    client.ask(b"NOOP", b"NOOP", b"NOOP", b"NOOP")
    client.hang_up()
    core.end()
    (((_, _, packed, _, _),), _) = core.reader.read(10)
    core.reader.done()
    found = history_read(0, b"\x7f\1\0\1", packed)
    assert found is not None
    word = dict(zip(HISTORY_FIELDS, found, strict=True))["dialect"]
    assert 1 << (word >> 27) - 1 < BY * 1e6  # the class of the median: 1 + the number of its bits


def test_slow_in_shadow(make: Make) -> None:
    core = make(slow(score={"action": "shadow", "helo_reserved": 2, "slow_from": 2}), 20)
    client = begun(core)
    assert client.ask(MAIL, RCPT) == LATER
    client.hang_up()
    assert "slowed" not in core.row()["marks"]
    (line,) = [line for line in core.lines() if line.startswith("SHADOW")]
    assert line.endswith(": would have been slowed: score 2")


def test_slow_sessions_continue(make: Make) -> None:
    """The line that is handed on has waited, too; the MTA's replies do not wait."""
    with ProxyMta(serve) as mta:
        core = make(slow(handoff={"continue_to": mta.target}), BY)
        client = begun(core)
        before = time.monotonic()
        assert client.ask(MAIL, RCPT) == b"250 accepted\r\n"
        assert time.monotonic() - before >= 2 * BY
        assert held(core) == 0
        before = time.monotonic()
        assert client.ask(RCPT) == b"250 accepted\r\n"
        client.hang_up()
        assert core.row()["outcome"] == "continued"


def test_a_reload_during_the_delay(make: Make) -> None:
    core = make(slow(), BY)
    client = begun(core)
    client.socket.sendall(MAIL + b"\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    core.slow_by = 0
    core.screener.use_policy(core.build(scored()).policy)
    assert client.reply() == b"250 2.1.0 Ok\r\n"
    assert client.ask(RCPT) == LATER
    client.hang_up()
    core.row()


def test_a_stop_during_the_delay(make: Make) -> None:
    core = make(slow(), 20)
    client = begun(core)
    client.socket.sendall(MAIL + b"\r\n")
    core.run_until(lambda: held(core) == 1, "the line to wait")
    core.screener.drain(hurry=True)
    assert client.rest() == b"421 4.3.2 Service currently unavailable\r\n"
    core.run_until(lambda: core.drained, "the end")
    assert held(core) == 0


# ---- a daemon


def test_it_survives_a_restart(start: Start, folder: Path, mta: FakeMta) -> None:
    """The deferral is in the cache's file: the next process knows it, and does not defer from a new time."""
    cache = {"cache": {"path": str(folder / "cache")}}
    settings = {"score": {"action": "enforce", "helo_reserved": 2, "defer_from": 2}, "dnsbl": {"threshold": 4}}
    screener = start(settings, cache)
    with screener.connect() as client:
        client.read()
        assert client.ask(b"EHLO localhost").startswith(b"250")
        client.ask(MAIL)
        assert client.ask(RCPT) == LATER
        screener.line(f"DEFERRED from {client.pattern}: score 2: helo_reserved 2$")
        client.ask(b"QUIT")
        screener.line(f"DISCONNECT {client.pattern}")
    screener.stop()
    screener.start()
    with screener.connect() as client:
        client.read()
        assert client.ask(b"EHLO localhost").startswith(b"250")
        client.ask(MAIL)
        assert client.ask(RCPT) == LATER
        screener.line(f"DEFERRED from {client.pattern}")
        client.ask(b"QUIT")
    assert not screener.lines("PASS NEW")
