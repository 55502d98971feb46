"""Several workers on one address: which worker serves a client, deaths of workers, and commands for all workers."""

import contextlib
import os
import pwd
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from bench.ports import free_port
from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, TEASER, TIMEOUT, USER, Client, Screener, merge, wait_until

TWO = {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": 2}}
KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}


def owner(screener: Screener, client: Client) -> int:
    """The pid of the worker that accepted a client."""
    found = re.search(r"postscreen\[(\d+)\]: CONNECT", screener.line(rf"CONNECT from {client.pattern}"))
    assert found
    return int(found[1])


def address_of(screener: Screener, pid: int) -> str:
    """A client address in 127.7/16 that falls to this worker."""
    for number in range(1, 250):
        with screener.connect(f"127.7.9.{number}") as client:
            assert client.read() == FROM_MTA
            if owner(screener, client) == pid:
                return f"127.7.9.{number}"
    raise AssertionError(f"no client falls to worker {pid}")


def test_a_client_is_always_the_same_workers(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN, TWO)
    owners: dict[str, set[int]] = {}
    for _ in range(3):
        for number in range(1, 101):
            with screener.connect(f"127.7.0.{number}") as client:
                assert client.read() == FROM_MTA
                owners.setdefault(f"127.7.0.{number}", set()).add(owner(screener, client))
    assert all(len(one) == 1 for one in owners.values())
    assert set.union(*owners.values()) == set(screener.workers())


def test_a_client_is_the_same_workers_at_every_address(start: Start, mta: FakeMta) -> None:
    """Limits for a client count it wherever it comes in, also where the daemon listens since a reload only."""
    addresses = ["127.9.0.1:0", "127.9.0.2:0"]
    screener = start(KNOWN, {"listen": {"addresses": addresses, "workers": 2}})
    pattern = r"daemon started .* listening on 127\.9\.0\.1:(\d+), 127\.9\.0\.2:(\d+)$"
    found = re.search(pattern, screener.line("daemon started"))
    assert found
    third = free_port("127.9.0.3")
    ports = [int(found[1]), int(found[2]), third]
    screener.reload(merge(KNOWN, {"listen": {"addresses": [*addresses, f"127.9.0.3:{third}"], "workers": 2}}))
    owners: dict[str, set[int]] = {}
    for number, port in enumerate(ports, 1):
        for source in (f"127.7.0.{host}" for host in range(1, 26)):
            with Client((f"127.9.0.{number}", port), source) as client:
                assert client.read() == FROM_MTA
                owners.setdefault(source, set()).add(owner(screener, client))
    assert all(len(one) == 1 for one in owners.values())
    assert set.union(*owners.values()) == set(screener.workers())


def test_many_clients_are_shared_out(start: Start, mta: FakeMta) -> None:
    """Counted in the log: no worker has less than a quarter of 400 addresses."""
    screener = start(KNOWN, TWO)
    for number in range(400):
        with screener.connect(f"127.7.{number >> 7}.{number & 127}") as client:
            assert client.read() == FROM_MTA
    pids = [line.partition("postscreen[")[2].partition("]")[0] for line in screener.lines("CONNECT from ")]
    assert len(pids) == 400
    assert {pid: pids.count(pid) >= 100 for pid in set(pids)} == {str(pid): True for pid in screener.workers()}


# ---- a worker dies


def test_the_queue_of_a_dead_worker_waits_for_its_successor(start: Start, mta: FakeMta) -> None:
    """Its clients had connected and were not accepted yet: all of them are served."""
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    victim = screener.workers()[0]
    source = address_of(screener, victim)
    os.kill(victim, signal.SIGSTOP)
    waiting = [screener.connect(source) for _ in range(45)]
    assert all(client.silent() for client in waiting)
    os.kill(victim, signal.SIGKILL)
    for client in waiting:
        assert client.read() == FROM_MTA
        client.socket.close()
    assert victim not in screener.workers()
    assert len(screener.workers()) == 2
    assert len(screener.lines(r"warning: worker \d .* was killed by SIGKILL: it is started again")) == 1


@contextlib.contextmanager
def load(screener: Screener, sources: list[str], outcomes: dict[str, int]) -> Iterator[None]:
    """Known clients, each address again and again, until the end of the block; what they saw is counted."""
    done = threading.Event()
    counting = threading.Lock()

    def serve(mine: list[str]) -> None:
        while not done.is_set():
            for source in mine:
                seen = connect_once(screener, source)
                with counting:
                    outcomes[seen] = outcomes.get(seen, 0) + 1

    threads = [threading.Thread(target=serve, args=(sources[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def connect_once(screener: Screener, source: str) -> str:
    try:
        client = screener.connect(source)
    except OSError as error:
        return f"connect: {type(error).__name__}"
    with client:
        try:
            return client.read().decode()
        except TimeoutError:
            return "waited for ever"


def test_kill_9_under_load(start: Start, folder: Path, mta: FakeMta) -> None:
    """No connect is refused, nobody waits for ever, and who had passed is known to the successor."""
    mta.start(2000)
    screener = start({"cache": {"path": str(folder / "cache")}, "limits": {"post_queue": 2000}}, TWO)
    screener.may_lose_workers = True
    sources = [f"127.1.{at}.{number}" for at in range(4) for number in range(1, 26)]
    clients = [screener.connect(source) for source in sources]
    for client in clients:
        assert client.read() == TEASER + FROM_MTA
        client.socket.close()
    time.sleep(2.2)  # what was passed is written once a second
    outcomes: dict[str, int] = {}
    begun = len(screener.lines("PASS"))
    with load(screener, sources, outcomes):
        for _ in range(2):
            for victim in screener.workers():
                time.sleep(0.4)
                replaced = len(screener.lines(r"worker \d is process"))
                os.kill(victim, signal.SIGKILL)
                screener.line(r"worker \d is process \d+ now", replaced + 1)
        time.sleep(0.4)
    served = outcomes.pop(FROM_MTA.decode(), 0)
    cut = outcomes.pop("", 0)  # accepted, and not yet the MTA's, when its worker was killed
    assert outcomes == {}
    assert served > 100
    assert cut <= 4 * 8
    screener.line("PASS OLD", served)
    assert not screener.lines("PASS NEW")[len(sources) :]
    assert begun == len(sources)
    assert {source for source in sources if screener.lines(rf"PASS OLD \[{source}\]")} == set(sources)


def test_a_worker_that_keeps_dying_is_not_started_all_the_time(start: Start, mta: FakeMta) -> None:
    """The first time at once, then after a pause; the other worker serves its clients meanwhile."""
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    other = screener.workers()[1]
    source = address_of(screener, other)
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    (again,) = set(screener.workers()) - {other}
    killed = time.monotonic()
    os.kill(again, signal.SIGKILL)
    with screener.connect(source) as client:
        assert client.read() == FROM_MTA
    screener.line("worker 1 is process .* now", 2)
    assert time.monotonic() - killed >= 0.9
    assert len(screener.lines("worker 1 .* was killed")) == 2


def test_two_deaths_in_the_cache(start: Start, folder: Path, mta: FakeMta) -> None:
    """A file that passes all checks but kills workers is moved aside; the pass is stored again."""
    path = folder / "cache"
    screener = start({"cache": {"path": str(path)}})
    screener.may_lose_workers = True
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    wait_until(lambda: stored(path) == 1, "the pass to be written")
    for death in (1, 2):
        (worker,) = screener.workers()
        environment = lmdb.open(str(path), subdir=False, map_size=1 << 30)
        with environment.begin(write=True):  # the worker's writer waits here, which is in the cache
            with screener.connect(f"127.1.1.{death}") as client:
                assert client.read() == TEASER + FROM_MTA
            time.sleep(2.2)
            os.kill(worker, signal.SIGSEGV)
            screener.line(r"worker 1 .* was killed by SIGSEGV", death)
        environment.close()
        screener.line("worker 1 is process .* now", death)
        assert len(screener.lines("two workers crashed")) == (death == 2)
    line = screener.line(
        "warning: cache lmdb:.*: two workers crashed while they used it: moved to .*, a new file is created"
    )
    aside = Path(line.partition("moved to ")[2].partition(",")[0])
    assert stored(aside) == 1
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    wait_until(lambda: stored(path) == 1, "the pass to be written to the new file")


def test_deaths_by_another_file_are_not_held_against_this_one(start: Start, folder: Path, mta: FakeMta) -> None:
    """The file that killed two workers was replaced by its operator meanwhile: the new one stays where it is."""
    path = folder / "cache"
    screener = start({"cache": {"path": str(path)}})
    screener.may_lose_workers = True
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    wait_until(lambda: stored(path) == 1, "the pass to be written")
    for death in (1, 2):
        (worker,) = screener.workers()
        environment = lmdb.open(str(path), subdir=False, map_size=1 << 30)
        with environment.begin(write=True):
            with screener.connect(f"127.1.1.{death}") as client:
                assert client.read() == TEASER + FROM_MTA
            time.sleep(2.2)
            if death == 2:
                new = folder / "new"
                new.write_bytes(path.read_bytes())
                new.chmod(0o666)
                path.rename(folder / "old")
                (folder / "cache-lock").unlink()
                new.rename(path)
                inode = path.stat().st_ino
            os.kill(worker, signal.SIGSEGV)
            screener.line(r"worker 1 .* was killed by SIGSEGV", death)
        environment.close()
        screener.line("worker 1 is process .* now", death)
    os.kill(screener.workers()[0], signal.SIGKILL)  # what was to be done about the file is done before its successor
    screener.line("worker 1 is process .* now", 3)
    assert not screener.lines("two workers crashed|cannot be moved")
    assert path.stat().st_ino == inode


def stored(path: Path) -> int:
    """How many clients' records the file has."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as reading:
        return sum(len(key) == 4 for key, _ in reading.cursor())


def test_without_its_supervisor_a_worker_ends(start: Start, mta: FakeMta) -> None:
    """It would keep the port from the next fastscreen: clients in hand finish, nobody new comes in."""
    screener = start({"greet": {"wait": "2s"}}, TWO)
    client = screener.connect("127.1.0.1")
    assert client.socket.recv(len(TEASER)) == TEASER
    workers = screener.workers()
    assert screener.process is not None
    screener.process.kill()
    screener.process.wait()
    assert client.read() == FROM_MTA
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers to end")
    assert len(screener.lines("warning: the supervisor has ended: stopping")) == 2
    with pytest.raises(ConnectionRefusedError):
        screener.connect("127.1.0.2")
    screener.process = None


# ---- all workers apply changes


def test_sighup_acts_on_all(start: Start, mta: FakeMta) -> None:
    """New settings, a new address and a removed one: applied by every worker, and logged once."""
    screener = start(KNOWN, TWO)
    before = screener.address
    sources = [address_of(screener, pid) for pid in screener.workers()]
    screener.log.rename(screener.log.with_suffix(".1"))
    other = {"listen": {"addresses": [f"{ADDRESS}:0", "127.9.0.2:0"]}}
    screener.configure(merge(KNOWN, TWO, other, {"greet": {"banner": "new"}, "access": {"list": []}}))
    screener.signal(signal.SIGHUP)
    screener.line(" configuration reloaded")
    for source in sources:
        with screener.connect(source) as client:
            assert client.read() == b"220-new\r\n" + FROM_MTA
    assert screener.address == before
    port = free_port_of(screener, "127.9.0.2")
    for number in range(20):
        with Client(("127.9.0.2", port), f"127.8.0.{number + 1}") as client:
            assert client.socket.recv(9) == b"220-new\r\n"
    assert len({line.partition("[")[2].partition("]")[0] for line in screener.lines("CONNECT .* to .127.9.0.2")}) == 2
    screener.reload(merge(KNOWN, TWO))
    with pytest.raises(ConnectionRefusedError):
        Client(("127.9.0.2", port), "127.8.0.1")
    assert len(screener.lines("configuration reloaded")) == 2


def free_port_of(screener: Screener, address: str) -> int:
    """The port that it took at an address with port 0."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    own = {str(descriptor.readlink()) for descriptor in Path(f"/proc/{screener.pid}/fd").iterdir()}
    for line in Path(f"/proc/{screener.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        host, _, port = fields[1].partition(":")
        # others that listen there now belong to tests that run in parallel
        if host == wanted and fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
            return int(port, 16)
    raise AssertionError(f"nobody listens on {address}")


def test_a_successor_has_the_new_settings(start: Start, mta: FakeMta) -> None:
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    source = address_of(screener, screener.workers()[0])
    screener.reload(merge(KNOWN, TWO, {"greet": {"banner": "new"}, "access": {"list": []}}))
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    with screener.connect(source) as client:
        assert client.read() == b"220-new\r\n" + FROM_MTA


def test_a_successor_does_not_need_the_tables_any_more(start: Start, folder: Path, mta: FakeMta) -> None:
    """They were read once: one that was removed since is missed at the next reload, not by a successor."""
    table = folder / "access.cidr"
    table.write_text("127.7.0.0/16 permit\n")
    screener = start({"access": {"list": [f"cidr:{table}"]}}, TWO)
    screener.may_lose_workers = True
    victim = screener.workers()[0]
    source = address_of(screener, victim)
    table.unlink()
    os.kill(victim, signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    with screener.connect(source) as client:
        assert client.read() == FROM_MTA
        assert owner(screener, client) not in (victim, 0)
    screener.reload(expected="warning: configuration not taken over: .*access.cidr")


def test_what_only_a_new_start_changes_stays_for_a_successor(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start({"cache": {"path": str(folder / "cache")}}, TWO)
    screener.may_lose_workers = True
    (folder / "new").mkdir()
    screener.reload(merge({"cache": {"path": str(folder / "new/cache")}}, {"listen": {**TWO["listen"], "workers": 3}}))
    assert len(screener.lines("cache.path changed|listen.workers changed")) == 2
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    assert len(screener.workers()) == 2
    for pid in screener.workers():
        assert str(folder / "cache") in Path(f"/proc/{pid}/maps").read_text()
    assert not list((folder / "new").iterdir())


def test_no_process_for_a_successor(start: Start, mta: FakeMta) -> None:
    """fork fails: the other worker goes on, and it is tried again."""
    if os.geteuid() != 0:
        pytest.skip("needs a separate user, whose processes can be limited")
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    victim, other = screener.workers()
    source = address_of(screener, other)
    limit_processes(screener, "1:")
    os.kill(victim, signal.SIGKILL)
    screener.line("warning: no process for worker 1: ")
    with screener.connect(source) as client:
        assert client.read() == FROM_MTA
    limit_processes(screener, f"{resource.getrlimit(resource.RLIMIT_NPROC)[1]}:")
    screener.line("worker 1 is process .* now")


def limit_processes(screener: Screener, limit: str) -> None:
    """Set the soft limit of the supervisor's, as its own user may."""
    entry = pwd.getpwnam(USER)
    command = ["prlimit", f"--pid={screener.pid}", f"--nproc={limit}"]
    subprocess.run(command, check=True, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGRTMIN + 6])
def test_a_death_by_any_signal(start: Start, mta: FakeMta, number: int) -> None:
    """Shown in the log by name, or by number if it is unnamed."""
    screener = start(KNOWN)
    screener.may_lose_workers = True
    os.kill(screener.workers()[0], number)
    screener.line(rf"worker 1 .* was killed by (SIGSEGV|signal {int(number)}): it is started again")
    screener.line("worker 1 is process .* now")


def test_a_worker_that_hangs(start: Start, mta: FakeMta) -> None:
    """A reload waits for its answer, but not the signals that say stop; a second one ends the worker, too."""
    screener = start(KNOWN, TWO)
    os.kill(screener.workers()[0], signal.SIGSTOP)
    screener.signal(signal.SIGHUP)
    time.sleep(0.3)
    began = time.monotonic()
    screener.signal(signal.SIGTERM)
    screener.line(" stopping: clients in hand may finish")
    screener.signal(signal.SIGTERM)
    assert screener.wait() == 0
    assert time.monotonic() - began < TIMEOUT
    assert len(screener.lines("warning: worker 1 did not stop: killed")) == 1


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_is_replaced(start: Start, mta: FakeMta) -> None:
    """Its loop stands still, so nobody would serve its clients, nor those that come after them."""
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    first, second = screener.workers()[:2]
    source = address_of(screener, first)
    os.kill(first, signal.SIGSTOP)
    with screener.connect(source) as client:  # it waits in the socket, whichever process serves that
        screener.line(rf"warning: worker 1 \(process {first}\) hangs: killed$")
        screener.line(rf"warning: worker 1 \(process {first}\) was killed by SIGKILL: it is started again$")
        assert client.read() == FROM_MTA
    assert second in screener.workers()


def test_a_table_that_is_never_read_to_its_end(start: Start, folder: Path, mta: FakeMta) -> None:
    """A pipe, or a dead network disk: workers serve and are replaced, and SIGTERM ends it all the same."""
    screener = start(KNOWN, TWO)
    os.mkfifo(folder / "pipe")
    (folder / "pipe").chmod(0o666)
    screener.configure(merge(KNOWN, TWO, {"access": {"list": [f"cidr:{folder / 'pipe'}"]}}))
    screener.signal(signal.SIGHUP)
    time.sleep(0.3)
    with screener.connect("127.7.0.1") as client:
        assert client.read() == FROM_MTA
    screener.signal(signal.SIGTERM)
    screener.line("warning: configuration not taken over: fastscreen is being stopped$")
    assert screener.wait() == 0


def test_deaths_are_seen_though_the_parent_ignored_them(start: Start, folder: Path, mta: FakeMta) -> None:
    """SIGCHLD as SIG_IGN is inherited from some launchers."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        screener = start(KNOWN)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    screener.may_lose_workers = True
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 is process .* now")


def test_sigterm_acts_on_all(start: Start, mta: FakeMta) -> None:
    """Clients that only wait get a 421 from both, new clients are not accepted, and the end is logged once."""
    screener = start({"greet": {"wait": "100s"}}, TWO)
    clients = [screener.connect(f"127.1.0.{number}") for number in range(1, 21)]
    for client in clients:
        assert client.socket.recv(len(TEASER)) == TEASER
    assert len({owner(screener, client) for client in clients}) == 2
    screener.signal(signal.SIGTERM)
    screener.line("stopping: clients in hand may finish")
    wait_until(lambda: refused(screener), "nobody to be let in")
    for client in clients:
        assert client.read_all() == b"421 4.3.2 Service currently unavailable\r\n"
    assert screener.wait() == 0
    assert len(screener.lines("daemon stopped")) == 1


def refused(screener: Screener) -> bool:
    try:
        screener.connect("127.1.1.1").reset()
    except ConnectionError:
        return True
    return False


def test_a_signal_to_every_process_counts_once(start: Start, mta: FakeMta) -> None:
    """Ctrl-C in a terminal and a service manager's SIGTERM reach the workers as well: nobody is cut off without a
    word.
    """
    screener = start({"greet": {"wait": "100s"}}, TWO)
    client = screener.connect("127.1.0.1")
    assert client.socket.recv(len(TEASER)) == TEASER
    os.killpg(screener.pid, signal.SIGTERM)
    assert client.read_all() == b"421 4.3.2 Service currently unavailable\r\n"
    assert screener.wait() == 0


def test_divided_limits(start: Start, mta: FakeMta) -> None:
    """Ten sessions under test for both together: five each; a limit for each client is each client's."""
    settings = {"greet": {"wait": "100s", "stress_wait": "100s"}, "limits": {"pre_queue": 10}}
    screener = start(settings, TWO)
    held: dict[int, int] = {}
    clients = []
    for number in range(1, 61):
        client = screener.connect(f"127.1.0.{number}")
        clients.append(client)
        worker = owner(screener, client)
        busy = held.get(worker, 0) >= 5
        held[worker] = held.get(worker, 0) + 1
        expected = b"421 4.3.2 All screening ports are busy\r\n" if busy else TEASER
        assert client.socket.recv(100) == expected
    assert len(held) == 2


def test_the_port_of_another_fastscreen_is_refused(start: Start, folder: Path, mta: FakeMta) -> None:
    """SO_REUSEPORT would let two of the same user share a port, and clients, unnoticed."""
    screener = start(TWO)
    other = folder / "other"
    other.mkdir()
    address = "{}:{}".format(*screener.address)
    for workers in (1, 2):
        second = Screener(other, {"listen": {"addresses": [address], "workers": workers}})
        with pytest.raises(AssertionError, match=f"cannot listen on {address}: Address already in use"):
            second.start()
        second.output.unlink()


def test_what_keeps_a_worker_from_starting_is_told_once(start: Start, folder: Path, mta: FakeMta) -> None:
    """A table that cannot be opened: exit code 2, one line."""
    screener = Screener(folder, merge(TWO, {"access": {"list": ["cidr:/nonexistent/table"]}}))
    with pytest.raises(AssertionError, match="/nonexistent/table"):
        screener.start()
    assert screener.wait() == 2
    assert screener.output.read_text().count("\n") == 1
