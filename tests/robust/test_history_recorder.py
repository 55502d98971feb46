"""The recorder next to real workers: no session is missing or there twice, whatever is killed, full, damaged or
restarted, and mail never waits for it.
"""

import collections
import contextlib
import ctypes
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from historyring import minutes, stored
from peers import needs

from fastscreen.core import HISTORY_FIELDS, HISTORY_OUTCOMES, history_read
from fastscreen.history import day
from robust import harness
from robust.conftest import Alter, Start
from robust.control import Control
from robust.fakemta import GREETING, FakeMta
from robust.harness import COMMAND, Client, Screener, wait_until
from robust.reachable import wrap
from robust.test_restart import load, restart

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}, "limits": {"post_queue": 2000}}
TWO = {"listen": {"addresses": ["127.9.0.1:0"], "workers": 2}}
SOURCES = [f"127.7.{at}.{number}" for at in range(8) for number in range(1, 26)]
LOST_SECONDS = 1.0  # at most, when all processes are killed


@pytest.fixture(autouse=True)
def executable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screener's user can execute the program, as a restart does."""
    monkeypatch.setattr(harness, "COMMAND", wrap(COMMAND, folder))


@pytest.fixture
def begin(start: Start, folder: Path, mta: FakeMta) -> Start:
    """Start a screener that records."""
    mta.start(2000)
    own = {"history": {"path": str(folder / "history")}, "control": {"path": str(folder / "control")}}
    return lambda *settings: start(KNOWN, own, *settings)


class Clients:
    """Known clients, which the MTA greets. ended: source and port of each, and when it had ended (s since 1970)."""

    def __init__(self, screener: Screener) -> None:
        self._address = screener.address
        self._lock = threading.Lock()
        self._turn = 0.0  # s, monotonic: of the latest one of a load
        self.ended: list[tuple[str, int, float]] = []
        self.outcomes: collections.Counter[str] = collections.Counter()

    def run(self, source: str) -> str:
        with Client(self._address, source) as client:
            port = client.socket.getsockname()[1]
            seen = client.read().decode()
        with self._lock:
            if seen == GREETING.decode():
                self.ended.append((source, port, time.time()))
        return seen

    @contextlib.contextmanager
    def load(self, threads: int = 4) -> Iterator[None]:
        """Until the end of the block, at most 1,000 per second: the rings have room for 16 s of that, per worker."""
        with load(self._run_in_turn, SOURCES, self.outcomes, threads):
            yield

    def _run_in_turn(self, source: str) -> str:
        with self._lock:
            self._turn = max(self._turn + 0.001, time.monotonic())
            pause = self._turn - time.monotonic()
        time.sleep(max(0.0, pause))
        return self.run(source)


def recorder(screener: Screener) -> int:
    """The recorder's process; 0: it does not run."""
    with contextlib.suppress(OSError):
        for pid in screener.workers():
            if Path(f"/proc/{pid}/comm").read_text() == "fastscreen-hist\n":
                return pid
    return 0


def running(screener: Screener, *before: int) -> int:
    """Wait for a recorder other than these."""
    wait_until(lambda: recorder(screener) not in (0, *before), "the recorder to start")
    return recorder(screener)


Connections = collections.Counter[tuple[str, int]]


def recorded(folder: Path) -> Connections:
    """How many sessions there are of each source and port (which may be used again)."""
    found: Connections = collections.Counter()
    for number, client, record in stored(folder / "history"):
        fields = dict(zip(HISTORY_FIELDS, history_read(number, client, record) or (), strict=True))
        found[".".join(map(str, client)), fields["client_port"]] += 1
    return found


def connections(clients: Clients, until: float = math.inf) -> Connections:
    """The same of clients that had ended by then."""
    return collections.Counter((source, port) for source, port, ended in clients.ended if ended < until)


def assert_all_recorded(clients: Clients, folder: Path, others: Connections | None = None) -> None:
    """Neither is one missing, nor is one there twice. others: sessions of other clients."""
    wanted = connections(clients) + (others or collections.Counter())
    wait_until(lambda: wanted <= recorded(folder), lambda: f"these sessions: {wanted - recorded(folder)}", 5)
    assert recorded(folder) == wanted
    assert sum(minutes(folder / "history").values()) == wanted.total()


def conditions(folder: Path) -> dict[str, str]:
    """What holds, by kind."""
    with Control(folder / "control") as control:
        return {one["kind"]: one["text"] for one in control.ok("status")["conditions"]}


def status(folder: Path) -> dict[str, Any]:
    with Control(folder / "control") as control:
        found: dict[str, Any] = control.ok("status")["history"]
        return found


def test_what_is_shown(begin: Start, folder: Path) -> None:
    metrics = folder / "metrics"
    screener = begin({"metrics": {"listen": f"unix:{metrics}"}, "history": {"max_size": "64M"}})
    clients = Clients(screener)
    for source in SOURCES[:3]:
        clients.run(source)
    with screener.connect("127.1.0.1") as client:
        client.send(b"EHLO x\r\n")
        client.read()
    wait_until(lambda: status(folder)["sessions"] == 4, "the sessions in the status")
    found = status(folder)
    assert (found["running"], found["recording"], found["lost"], found["waiting"], found["days"]) == (
        True,
        True,
        0,
        0,
        1,
    )
    assert 0 < found["bytes"] < found["max_size"] == 64 << 20 and found["error"] == "" == found["problem"]
    text = subprocess.run(
        [COMMAND, "status", "--socket", folder / "control"], capture_output=True, text=True, check=True
    ).stdout
    assert "history  recording since " in text and "recorded 4   lost 0   1 day   " in text
    scraped = subprocess.run(
        ["curl", "-s", "--unix-socket", metrics, "http://x/metrics"], capture_output=True, text=True, check=True
    ).stdout
    assert "fastscreen_history_up 1.0" in scraped and "fastscreen_history_sessions_total 4.0" in scraped
    (path,) = day.files(folder / "history")
    owner = (folder / "control").stat().st_uid
    assert {(file.stat().st_mode & 0o777, file.stat().st_uid) for file in path.parent.iterdir()} == {(0o600, owner)}
    assert (path.parent.stat().st_mode & 0o777, path.parent.stat().st_uid) == (0o700, owner)
    outcomes = {HISTORY_OUTCOMES[outcome]: count for (_, outcome, _), count in minutes(folder / "history").items()}
    assert outcomes == {"handed_off": 3, "left": 1}
    pid = recorder(screener)
    nice = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])
    assert nice == os.getpriority(os.PRIO_PROCESS, screener.pid) + 10
    sockets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
    assert len([name for name in sockets if name.startswith("socket:")]) == 3, "the supervisor's, and uvloop's pair"


def test_the_recorder_is_killed_under_load(begin: Start, folder: Path) -> None:
    """Again and again: nothing is lost, nothing is stored twice, and no client notices."""
    screener = begin(TWO)
    clients = Clients(screener)
    pid = 0
    with clients.load():
        for at in range(4):  # it is started again after 0, 1, 2 and 4 s, for which the rings have room
            pid = running(screener, pid)
            time.sleep(0.1 + 0.17 * at)
            os.kill(pid, signal.SIGKILL)
        running(screener, pid)
    assert set(clients.outcomes) == {GREETING.decode()}
    assert len(clients.ended) > 300
    assert_all_recorded(clients, folder)
    assert len(screener.lines(r"recorder \(process \d+\) was killed by SIGKILL: it is started again")) == 4
    wait_until(lambda: "history" in conditions(folder), "the condition")
    assert "sessions may be lost meanwhile" in conditions(folder)["history"]
    wait_until(lambda: status(folder)["running"], "the status")
    assert status(folder)["lost"] == 0


def test_all_processes_are_killed_under_load(begin: Start, folder: Path) -> None:
    """What ended in the last second may be missing; the files can be read, and recording goes on in them."""
    screener = begin(TWO)
    clients = Clients(screener)
    running(screener)
    with clients.load():
        time.sleep(2.3)
        at = time.time()
        screener.kill()
    before = connections(clients, at - LOST_SECONDS)
    assert before.total() > 100
    found = recorded(folder)
    assert before <= found
    assert sum(minutes(folder / "history").values()) == found.total()
    again = Clients(begin(TWO))
    again.run(SOURCES[0])
    assert_all_recorded(again, folder, found)
    assert len(day.files(folder / "history")) == 1
    with day.connect(day.files(folder / "history")[0]) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_supervisor_is_killed(begin: Start, folder: Path) -> None:
    """The workers let their clients finish, and these are recorded, too."""
    screener = begin({"greet": {"wait": "3s"}})
    pid = running(screener)
    processes = screener.workers()
    client = screener.connect("127.1.0.1")
    time.sleep(0.5)
    assert screener.process is not None
    screener.process.kill()
    screener.process.wait()
    screener.process = None
    time.sleep(1)
    assert not recorded(folder) and Path(f"/proc/{pid}").exists()
    port = client.socket.getsockname()[1]
    client.reset()
    wait_until(lambda: ("127.1.0.1", port) in recorded(folder), "the session to be recorded")
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes), "all processes to end", 60)


def test_restarts_under_load(begin: Start, folder: Path) -> None:
    """The recorder of before stores the sessions of its workers, the new one those of the new workers."""
    screener = begin(TWO)
    clients = Clients(screener)
    running(screener)
    held = [screener.connect(f"127.1.0.{number}") for number in range(1, 4)]
    theirs: Connections = collections.Counter(client.socket.getsockname()[:2] for client in held)
    with clients.load():
        for _ in range(3):
            time.sleep(0.4)
            restart(screener)
    assert set(clients.outcomes) == {GREETING.decode()}
    assert len(clients.ended) > 200
    for client in held:  # they are the first workers'
        client.read()
        client.reset()
    assert_all_recorded(clients, folder, theirs)
    assert len(day.files(folder / "history")) == 1 and not screener.lines("history:|recorder .* (?:killed|ended)")
    wait_until(
        lambda: sum(Path(f"/proc/{pid}/comm").read_text() == "fastscreen-hist\n" for pid in screener.workers()) == 1,
        "the former recorders to end",
        60,
    )


def test_it_stops_when_the_last_session_is_recorded(begin: Start, folder: Path) -> None:
    screener = begin()
    clients = Clients(screener)
    running(screener)
    for source in SOURCES[:50]:
        clients.run(source)
    waiting = screener.connect("127.1.0.1")
    others: Connections = collections.Counter([waiting.socket.getsockname()[:2]])
    time.sleep(0.2)
    screener.stop()
    assert recorded(folder) == connections(clients) + others


def test_reload(begin: Start, folder: Path) -> None:
    screener = begin()
    running(screener)
    clients = Clients(screener)
    clients.run("127.7.0.9")
    wait_until(lambda: recorded(folder).total() == 1, "the first session")
    changed = {**screener.settings, "history": {"path": str(folder / "history"), "mask": "/16 /32", "keep": "1d"}}
    screener.reload(changed)
    clients.run("127.7.3.9")
    wait_until(lambda: recorded(folder).total() == 2, "the second session")
    assert {source for source, _ in recorded(folder)} == {"127.7.0.9", "127.7.0.0"}
    screener.reload({**changed, "history": {"path": str(folder / "other")}})
    assert screener.lines(
        "history.path changed: the old value stays in use; to apply the new one, run `fastscreen restart`"
    )
    restart(screener)
    running(screener)
    Clients(screener).run("127.7.0.9")
    wait_until(lambda: (folder / "other").is_dir() and len(stored(folder / "other")) == 1, "the other folder")


def test_a_recorder_that_only_dies(begin: Start, folder: Path, alter: Alter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail goes on, and a condition says what is wrong."""
    alter(
        "import os; from fastscreen.history.writer import HistoryWriter; HistoryWriter.turn = lambda self: os._exit(9)"
    )
    monkeypatch.setattr(harness, "COMMAND", wrap(harness.COMMAND, folder))
    screener = begin(TWO)
    clients = Clients(screener)
    with clients.load():
        wait_until(lambda: "history" in conditions(folder), "the condition")
        wait_until(lambda: len(clients.ended) > 50, "50 clients")
    assert "recorder ended with exit code 9, 2 times within 10 s of its start" in conditions(folder)["history"]
    assert set(clients.outcomes) == {GREETING.decode()}
    assert not screener.lines("worker .* (?:killed|ended)")


def test_a_folder_that_cannot_be_used(begin: Start, folder: Path) -> None:
    """Not even at the start: mail goes on, and sessions are recorded once it can be used."""
    (folder / "history").write_bytes(b"")
    screener = begin()
    clients = Clients(screener)
    clients.run(SOURCES[0])
    wait_until(lambda: "history" in conditions(folder), "the condition")
    assert conditions(folder)["history"].endswith("Not a directory; recording is suspended")
    wait_until(lambda: not status(folder)["recording"], "the status")
    (folder / "history").unlink()
    screener.line("history: sessions are recorded again; 0 sessions lost meanwhile")
    assert_all_recorded(clients, folder)
    wait_until(lambda: "history" not in conditions(folder) and status(folder)["recording"], "the status")
    (folder / "history").chmod(0)
    clients.run(SOURCES[1])
    if os.geteuid() == 0 and harness.USER:
        wait_until(lambda: "history" in conditions(folder), "the condition")
        assert "Permission denied; recording is suspended" in conditions(folder)["history"]
    (folder / "history").chmod(0o700)
    wait_until(lambda: "history" not in conditions(folder), "the end of the condition")
    assert_all_recorded(clients, folder)


def test_files_that_cannot_be_used(begin: Start, folder: Path) -> None:
    """One of a version of the future, which stays as it is, and one that is damaged while the recorder is away."""
    history = folder / "history"
    history.mkdir()
    first = day.file_of(history, time.time_ns() // 1000)
    with contextlib.closing(day.create(first)) as connection:
        connection.execute("PRAGMA user_version = 2")
    for each in (history, first):
        os.chown(each, folder.stat().st_uid, folder.stat().st_gid)
    future = first.read_bytes()
    screener = begin()
    clients = Clients(screener)
    clients.run(SOURCES[0])
    screener.line(rf"warning: history: .*{first.name}: version 2; expected 1; it stays as it is")
    aside = folder / "aside"
    first.rename(aside)  # for the tests' own queries
    assert_all_recorded(clients, folder)
    assert aside.read_bytes() == future
    (second,) = day.files(history)
    wait_until(lambda: status(folder)["sessions"] == len(clients.ended), "the rings to be done with these sessions")
    pid = recorder(screener)
    os.kill(pid, signal.SIGKILL)
    with second.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(second.stat().st_size - 100))
    second.with_name(f"{second.name}-wal").unlink()
    running(screener, pid)
    screener.line(rf"warning: history: .*{second.name}: .*; it is set aside as {second.name}.damaged")
    clients.ended.clear()
    clients.run(SOURCES[1])
    assert_all_recorded(clients, folder)
    wait_until(lambda: "history_files" in conditions(folder), "the condition")
    assert f"{second.name}.damaged" in conditions(folder)["history_files"]
    wait_until(lambda: status(folder)["set_aside"] == 1, "the status")


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    made = folder / "history"
    made.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    owner = folder.stat()
    needs.root("a separate file system")
    options = f"size=4m,uid={owner.st_uid},gid={owner.st_gid},mode=0700".encode()
    if libc.mount(b"fastscreen-test", bytes(made), b"tmpfs", 0, options) != 0:
        needs.miss(f"mount: {os.strerror(ctypes.get_errno())}")
    yield made
    libc.umount2(bytes(made), 2)


def test_a_full_disk(begin: Start, folder: Path, small_disk: Path) -> None:
    """Under load: recording is suspended, says so, and resumes; what fits into the rings is not lost."""
    screener = begin(TWO)
    clients = Clients(screener)
    running(screener)
    wait_until(lambda: len(day.files(small_disk)) == 1, "the file")
    with clients.load():
        time.sleep(0.5)
        filling = small_disk / "filling"
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        wait_until(lambda: "history" in conditions(folder), "the condition")
        assert "recording is suspended" in conditions(folder)["history"]
        wait_until(lambda: not status(folder)["recording"] and status(folder)["waiting"] > 0, "the status")
        filling.unlink()
        screener.line("history: sessions are recorded again; 0 sessions lost meanwhile")
    assert set(clients.outcomes) == {GREETING.decode()}
    assert_all_recorded(clients, folder)
    wait_until(lambda: conditions(folder) == {} and status(folder)["recording"], "the status")
    assert len(screener.lines("warning: history:")) == 1, screener.lines("history:")
    with contextlib.closing(day.connect(day.files(small_disk)[0])) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_size_limit(begin: Start, folder: Path, alter: Alter, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a quota: SQLite's own writes fail."""
    alter(
        "import os; from resource import RLIMIT_FSIZE, setrlimit\n"
        "from fastscreen.history.writer import HistoryWriter\n"
        "turn = HistoryWriter.turn\n"
        f"def limited(self):\n    setrlimit(RLIMIT_FSIZE, (os.path.exists('{folder}/enough') and -1 or 40960, -1))\n"
        "    return turn(self)\n"
        "HistoryWriter.turn = limited"
    )
    monkeypatch.setattr(harness, "COMMAND", wrap(harness.COMMAND, folder))
    screener = begin()
    clients = Clients(screener)
    with clients.load():
        wait_until(lambda: "history" in conditions(folder), "the condition")
    assert "disk I/O error; recording is suspended" in conditions(folder)["history"]
    (folder / "enough").touch()
    screener.line("history: sessions are recorded again; 0 sessions lost meanwhile")
    assert_all_recorded(clients, folder)


def test_a_disk_that_becomes_read_only(begin: Start, folder: Path, small_disk: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    screener = begin()
    clients = Clients(screener)
    running(screener)
    clients.run(SOURCES[0])
    wait_until(lambda: recorded(folder).total() == 1, "the first session")
    # Files that are open for writing keep a file system from that, as a disk with errors does not ask.
    os.kill(recorder(screener), signal.SIGSTOP)
    stopped = recorder(screener)
    os.kill(stopped, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{stopped}").exists(), "the recorder to end")
    assert libc.mount(b"x", bytes(small_disk), b"tmpfs", 32 | 1, b"") == 0, os.strerror(ctypes.get_errno())
    clients.run(SOURCES[1])
    wait_until(lambda: "history" in conditions(folder), "the condition")
    assert "recording is suspended" in conditions(folder)["history"]
    assert libc.mount(b"x", bytes(small_disk), b"tmpfs", 32, b"") == 0
    screener.line("history: sessions are recorded again; 0 sessions lost meanwhile")
    assert_all_recorded(clients, folder)


def test_without_a_history_there_is_no_recorder(start: Start, folder: Path) -> None:
    screener = start(KNOWN, {"control": {"path": str(folder / "control")}})
    with Control(folder / "control") as control:
        assert control.ok("status")["history"] is None
    assert recorder(screener) == 0 and conditions(folder) == {}
