"""A pipe without a reader, a full disk, a restarting syslogd: fastscreen never waits, and counts lost lines."""

import mmap
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from peers import needs

from fastscreen.core import LOG_TURN_SIZE, Log, LogTurn
from robust.conftest import Start
from robust.control import conditions
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import COMMAND, TIMEOUT, USER, Client, Screener, wait_until

CLIENTS = 3500
LIMIT = 1 << 20
"""What the log keeps while nothing can be written."""


def new_log() -> Log:
    return Log("postfix/postscreen", host="mx", pid=7)


def fill(log: Log, lines: int, text: str = "x" * 200) -> None:
    for number in range(lines):
        log.info(f"{number} {text}")


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def test_pipe_that_nobody_reads_does_not_block() -> None:
    """Lines up to the limit are kept; further lines are lost as a whole, and their number is logged."""
    log = new_log()
    with pipe() as (reading, writing):
        log.open(writing)
        for _ in range(40):
            fill(log, 250)
            log.flush()
        lost = log.lost
        assert lost > 0
        os.set_blocking(reading, False)
        got = b""
        for _ in range(10000):
            log.flush()
            try:
                got += os.read(reading, 1 << 20)
            except BlockingIOError:
                break
    lines = got.decode().splitlines()
    assert lines[-1].endswith(f"]: warning: {lost} log lines were lost: too slow")
    assert len(lines) + lost == 40 * 250 + 1
    assert all(re.fullmatch(r"\w+ +\d+ [\d:]+ mx postfix/postscreen\[7\]: \d+ x{200}", line) for line in lines[:-1])
    assert LIMIT < len(got) < LIMIT + 100_000  # 64 KiB of it the pipe itself
    assert log.lost == 0


def test_line_that_does_not_fit_is_left_out_whole() -> None:
    """A long part that finds no room takes the short ones behind it with it."""
    log = new_log()
    fill(log, 10000, "y" * 1000)
    assert log.lost > 0
    before = log.lost
    log.warning("z" * 1999)
    log.info("")
    text = log.lines()
    assert len(text) <= LIMIT
    assert before < log.lost
    assert all(line.endswith((b"y" * 1000, b"]: ")) for line in text.splitlines())


def test_full_disk_is_told_when_there_is_room_again() -> None:
    log = new_log()
    with Path("/dev/full").open("wb", buffering=0) as full, pipe() as (reading, writing):
        log.open(full.fileno())
        for _ in range(20):
            fill(log, 500)
            log.flush()
        lost = log.lost
        assert lost > 0
        log.open(writing)
        os.set_blocking(reading, False)
        got = b""
        for _ in range(1000):
            log.flush()
            try:
                got += os.read(reading, 1 << 20)
            except BlockingIOError:
                break
    assert got.count(b"\n") + lost == 20 * 500 + 1
    assert b": warning: %d log lines were lost: " % lost in got.splitlines()[-1]


def test_syslog_gets_a_datagram_a_line() -> None:
    log = new_log()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.settimeout(5)
        log.open(ours.fileno(), syslog=True)
        log.info("one")
        log.warning("two \x1b[2J\n\x9b three")
        log.flush()
        assert re.fullmatch(rb"<22>\w+ +\d+ [\d:]+ postfix/postscreen\[7\]: one", theirs.recv(4096))
        said = theirs.recv(4096)
        assert re.fullmatch(rb"<20>\w+ +\d+ [\d:]+ postfix/postscreen\[7\]: warning: two \?\[2J\?\?\?? three", said)


def test_syslog_that_nobody_reads_does_not_block() -> None:
    log = new_log()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        log.open(ours.fileno(), syslog=True)
        for _ in range(40):
            fill(log, 250)
            log.flush()
        lost = log.lost
        assert lost > 0
        theirs.setblocking(False)
        got = []
        while True:
            log.flush()
            try:
                got.append(theirs.recv(4096))
            except BlockingIOError:
                break
    assert len(got) + lost == 40 * 250 + 1
    assert b": warning: %d log lines were lost: " % lost in got[-1]


def test_syslog_that_went_away() -> None:
    """Nothing raises, nothing blocks; what was kept goes to the next socket."""
    log = new_log()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.open(ours.fileno(), syslog=True)
    theirs.close()
    log.info("kept")
    log.flush()
    with ours:
        new, reading = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with new, reading:
            reading.settimeout(5)
            log.open(new.fileno(), syslog=True)
            log.flush()
            assert reading.recv(4096).endswith(b"]: kept")


def test_process_whose_log_nobody_reads(start: Start, folder: Path, mta: FakeMta) -> None:
    """The log is a pipe with a reader that sleeps: clients are served by the thousand, and it catches up later."""
    fifo = folder / "fifo"
    os.mkfifo(fifo, 0o666)
    fifo.chmod(0o666)
    known = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
    screener = start(known, {"listen": {"addresses": ["127.9.0.1:0"]}})
    address = screener.address
    fixed: dict[str, object] = {
        "hostname": "m" * 63 + ".test",  # long lines: fewer clients fill the log
        "listen": {"addresses": [f"{address[0]}:{address[1]}"]},
        "log": {"to": f"file:{fifo}", "ident": "x" * 64},
    }
    screener.stop()
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        serve_unread(Screener(folder, {**known, **fixed}), address, reading)
    finally:
        os.close(reading)


def serve_unread(screener: Screener, address: tuple[str, int], reading: int) -> None:
    process = subprocess.Popen([str(COMMAND), "run", "-c", str(screener.config)], start_new_session=True)
    screener.process = process
    try:
        got = bytearray()

        def started() -> bool:
            with suppress(BlockingIOError):
                got.extend(os.read(reading, 1 << 20))
            return b"daemon started" in got

        wait_until(started, "the start")
        served = 0
        end = time.monotonic() + 60
        # Once the log holds what it can, it is read: every client makes it write some more.
        while b" log lines were lost: " not in got and time.monotonic() < end:
            with Client(address, f"127.7.{served % 250}.1") as client:
                assert client.read() == FROM_MTA
            served += 1
            if served > CLIENTS:
                with suppress(BlockingIOError):
                    got.extend(os.read(reading, 1 << 20))
        found = re.search(rb"warning: (\d+) log lines were lost: too slow\n", got)
        assert found
        written = got[: found.start()].count(b"\n") - got[: found.start()].count(b"daemon started")
        assert 0 <= 2 * served - int(found[1]) - written <= 4  # the last clients' lines may follow behind it
    finally:
        screener.stop()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_process_whose_disk_is_full(start: Start, folder: Path, mta: FakeMta) -> None:
    """The log is rotated onto a full disk and back: clients are served, the rest of the lines comes later."""
    known = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}
    screener = start(known)
    log = screener.log
    aside = folder / "aside"
    log.rename(aside)
    log.symlink_to("/dev/full")
    with screener.connect("127.7.0.1") as client:
        assert client.read() == FROM_MTA
    screener.signal(signal.SIGHUP)
    for _ in range(20):
        with screener.connect("127.7.0.2") as client:
            assert client.read() == FROM_MTA
    log.unlink()
    screener.reload()
    with screener.connect("127.7.0.3") as client:
        assert client.read() == FROM_MTA
        screener.line(f"ALLOWLISTED {client.pattern}")
    assert (
        len(screener.lines(r"ALLOWLISTED \[127\.7\.0\.2\]")) + aside.read_bytes().count(b"ALLOWLISTED [127.7.0.2]")
        == 20
    )


def test_lines_of_two_workers_on_one_pipe_stay_whole() -> None:
    """A write ends where a line does: else the rest of a client's words could pass for a line of another's."""
    with pipe() as (reading, writing):
        logs = [Log("x", host="h", pid=pid) for pid in (1, 2)]
        for log in logs:
            log.open(writing)
        got = b""
        for number in range(2000):
            for log in logs:
                log.info(f"{number} " + "a" * (number % 300))
                if number % 50 == 49:
                    log.flush()
            os.set_blocking(reading, False)
            with suppress(BlockingIOError):
                got += os.read(reading, 3000)
        while True:
            for log in logs:
                log.flush()
            try:
                got += os.read(reading, 65536)
            except BlockingIOError:
                break
    lines = got.decode().splitlines()
    assert len(lines) == 4000
    for pid in (1, 2):
        mine = [line.partition(": ")[2] for line in lines if f" x[{pid}]: " in line]
        assert mine == [f"{number} " + "a" * (number % 300) for number in range(2000)]


# ---- a FIFO that nobody reads


def served(screener: Screener) -> bool:
    """Whether a known client is handed off."""
    try:
        with Client(screener.address, "127.7.0.1") as client:
            return client.read() == FROM_MTA
    except OSError:
        return False


KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16"]}}


def test_start_with_a_fifo_that_nobody_reads(start: Start, folder: Path, mta: FakeMta) -> None:
    """No process waits in open(): clients are served, the condition is shown, lines come when there is a reader."""
    fifo, control = folder / "fifo", folder / "control"
    os.mkfifo(fifo, 0o666)
    fifo.chmod(0o666)
    before = start(KNOWN, {"listen": {"addresses": ["127.9.0.1:0"]}})
    before.stop()  # its port is free
    host, port = before.address
    listen = {"addresses": [f"{host}:{port}"], "workers": 2}
    own: dict[str, object] = {"listen": listen, "control": {"path": str(control)}, "log": {"to": f"file:{fifo}"}}
    screener = Screener(folder, {**KNOWN, **own})
    screener.address = before.address
    screener.process = subprocess.Popen(
        [str(COMMAND), "run", "-c", str(screener.config)], start_new_session=True, stderr=subprocess.PIPE
    )
    assert screener.process.stderr is not None
    try:
        wait_until(lambda: served(screener), "a client to be served")
        text = f"log.to: {fifo}: no process reads this FIFO"
        assert screener.process.stderr.readline().decode() == f"fastscreen: warning: {text}; retried every second\n"
        wait_until(lambda: conditions(control).get("log", "").startswith(text), "the condition")
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        got = bytearray()

        def arrived() -> bool:
            with suppress(BlockingIOError):
                got.extend(os.read(reading, 1 << 20))
            return b"daemon started" in got and b"ALLOWLISTED [127.7.0.1]" in got

        wait_until(arrived, lambda: f"the lines: {bytes(got)!r}")
        wait_until(lambda: conditions(control) == {}, "the end of the condition")
        os.close(reading)
        screener.process.terminate()
        assert screener.process.wait(TIMEOUT) == 0
    finally:
        screener.process.stderr.close()
        screener.process.kill()
        screener.process.wait()


def test_reload_with_a_fifo_that_nobody_reads(start: Start, folder: Path) -> None:
    """The old file stays in use; workers are replaced meanwhile; then the new file is found without a signal."""
    control = folder / "control"
    screener = start(KNOWN, {"listen": {"workers": 2}, "control": {"path": str(control)}})
    screener.may_lose_workers = True
    old = screener.log.rename(folder / "old")
    os.mkfifo(screener.log, 0o666)
    screener.log.chmod(0o666)
    screener.signal(signal.SIGHUP)
    text = f"log.to: {screener.log}: no process reads this FIFO"
    rest = "lines still go to the file that was open before"
    wait_until(lambda: f"warning: log not opened again: {text}: {rest}\n" in old.read_text(), old.read_text)
    wait_until(lambda: conditions(control).get("log") == f"{text}: {rest}", "the condition")
    wait_until(lambda: " configuration reloaded" in old.read_text(), old.read_text)  # its child is not killed, too
    for pid in screener.workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: old.read_text().count(" is process ") == 2, old.read_text)
    assert served(screener)
    screener.log.unlink()
    screener.log.touch()
    if USER:
        shutil.chown(screener.log, USER)
    screener.line(f"log opened again; it had failed: {re.escape(text)}$")
    wait_until(lambda: conditions(control) == {}, "the end of the condition")
    assert served(screener)
    screener.line(r"ALLOWLISTED \[127\.7\.0\.1\]")
    assert old.read_text().count("log not opened again") == 1


# ---- lines of several processes in one file


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Limit the size of files of this process: a longer write is a short write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BASE = 1 << 24
"""Octets of the file before the test's: nothing else that pytest writes is so long."""


class Shared:
    """Several processes' logs, as it were, that end in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn = LogTurn(memoryview(mmap.mmap(-1, LOG_TURN_SIZE)))
        path.touch()
        os.truncate(path, BASE)
        self.descriptors: list[int] = []

    def open(self, log: Log, path: Path | None = None) -> Log:
        self.descriptors.append(os.open(path or self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        log.open(self.descriptors[-1], turn=self.turn)
        return log

    def new(self) -> Log:
        return self.open(Log("x", host="h", pid=1))

    def lines(self) -> list[str]:
        """The lines of the file without ident and pid; "cut: ..." is the beginning of an incomplete line."""
        *whole, rest = self.path.read_bytes()[BASE:].decode().split("\n")
        assert rest == ""
        return [line.partition("]: ")[2] for line in whole]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    made = Shared(tmp_path / "log")
    yield made
    for descriptor in made.descriptors:
        os.close(descriptor)


def cut(log: Log, shared: Shared) -> None:
    """Have a line of this log cut after "one", as by a full disk."""
    log.info("one two")
    end = shared.path.stat().st_size + len("Jan  1 00:00:00 h x[1]: one")
    with room_for(end):
        log.flush()
    assert shared.path.stat().st_size == end


def test_nothing_comes_between_the_parts_of_a_cut_line(shared: Shared) -> None:
    """Others wait for the one whose line it is; a line that did not fit at all is not cut."""
    first, second = shared.new(), shared.new()
    cut(first, shared)
    second.info("three")
    with room_for(shared.path.stat().st_size):
        first.flush()
        second.flush()
    second.flush()
    assert (first.kept > 0, second.kept > 0) == (True, True)
    first.flush()
    second.flush()
    assert shared.lines() == ["one two", "three"]


def test_a_process_that_does_not_complete_its_line_holds_up_nobody(shared: Shared) -> None:
    """It is stopped, or dead: the cut line is ended, and comes again whole if it comes at all."""
    first, second, third = shared.new(), shared.new(), shared.new()
    cut(first, shared)
    second.info("three")

    def written() -> bool:
        second.flush()
        return second.kept == 0

    wait_until(written, "the other process to write")
    third.info("four")
    third.flush()
    first.flush()
    assert shared.lines() == ["one", "three", "four", "one two"]


def test_a_cut_line_comes_again_in_the_next_file(shared: Shared, tmp_path: Path) -> None:
    """Rotation: no file begins with the rest of a line, or ends with the beginning of one. Processes that already write
    to another file do not wait."""
    first, second = shared.new(), shared.new()
    cut(first, shared)
    next_file = tmp_path / "next"
    shared.open(second, next_file)
    second.info("three")
    second.flush()
    with room_for(shared.path.stat().st_size):
        shared.open(first, next_file)
    first.flush()
    assert shared.lines() == []
    assert [line.partition("]: ")[2] for line in next_file.read_text().splitlines()] == ["three", "one two"]


def test_what_another_program_has_written_behind_a_cut_line_stays(shared: Shared) -> None:
    """Only what is ours is taken off the file's end."""
    log = shared.new()
    cut(log, shared)
    with shared.path.open("ab") as file:
        file.write(b" other\n")
    end = shared.path.stat().st_size
    with room_for(end):
        log.flush()
    log.let_go()
    assert shared.lines() == ["one other", ""]


def test_two_files_with_cut_lines(shared: Shared, tmp_path: Path) -> None:
    """While some have opened the next file and others have not, both may be cut."""
    first, second, third = shared.new(), shared.new(), shared.new()
    cut(first, shared)
    old, shared.path = shared.path, tmp_path / "next"
    shared.path.touch()
    os.truncate(shared.path, BASE)
    shared.open(second)
    cut(second, shared)
    shared.path = old
    third.info("three")
    for log in (third, first, second):
        log.flush()
    lines = shared.lines()
    assert sorted(line for line in lines if line.startswith("one two") or "three" in line)[0] == "one two"
    shared.path = tmp_path / "next"
    assert shared.lines() == ["one two"]


def test_a_process_that_stops_or_dies_while_it_writes(shared: Shared) -> None:
    """A lock that is not given back is waited for once, and a moment only; a dead process's is free."""
    log = shared.new()
    assert shared.turn.hold()
    for number in range(200):
        log.info(str(number))
        log.flush()
    shared.turn.release()
    child = os.fork()
    if child == 0:
        shared.turn.hold()
        os._exit(0)
    os.waitpid(child, 0)
    log.info("200")
    log.flush()
    assert shared.lines() == [str(number) for number in range(201)]
    assert shared.turn.hold()
    shared.turn.release()


WRITER = """
import os, sys, time
from fastscreen.core import Log, LogTurn, LOG_TURN_SIZE
import mmap
turn = LogTurn(memoryview(mmap.mmap(-1, LOG_TURN_SIZE)))
path, processes, lines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(processes):
    if os.fork() == 0:
        break
else:
    for _ in range(processes):
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    sys.exit()
log = Log("x", host="h", pid=number)
log.open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), turn=turn)
for line in range(lines):
    log.info(f"{line} " + "y" * (line * 7 % 300))
    if line % 3 == 0:
        log.flush()
    while log.kept > 500_000:       # nothing is to be lost: it waits for room
        time.sleep(0.001)
        log.flush()
while log.kept:
    log.flush()
    time.sleep(0.01)
assert log.lost == 0
"""

FULL_AND_EMPTY = """
import os, subprocess, sys, time
folder, processes, lines = sys.argv[1:4]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=True)
with open(folder + "/filler", "ab", buffering=0) as file:
    while True:
        try:
            file.write(bytes(4096))
        except OSError:
            break
    writers = subprocess.Popen([sys.executable, "-c", sys.argv[4], folder + "/log", processes, lines])
    left, fills = file.tell(), 0
    while writers.poll() is None:
        left = max(0, left - (1 << 18))
        file.truncate(left)
        fills += left > 0
        while left and writers.poll() is None and os.statvfs(folder).f_bfree:
            time.sleep(0.001)
assert writers.returncode == 0
assert fills > 20, fills
with open(folder + "/log", "rb") as log:
    sys.stdout.buffer.write(log.read())
"""


def test_full_disk_and_several_processes(tmp_path: Path) -> None:
    """A full disk repeatedly gets a little space, which four processes fill to the last byte: every line is complete
    and written once, and the lines of each process are in order."""
    needs.root("a separate file system")
    unshare = needs.program("unshare")
    processes, lines = 4, 30000
    command = [unshare, "-m", sys.executable, "-c", FULL_AND_EMPTY, str(tmp_path), str(processes), str(lines), WRITER]
    written = subprocess.run(command, capture_output=True, check=True, timeout=300).stdout.decode().splitlines()
    for number in range(processes):
        own = [line.partition("]: ")[2] for line in written if f" x[{number}]: " in line]
        assert own == [f"{line} " + "y" * (line * 7 % 300) for line in range(lines)]
    assert len(written) == processes * lines
    assert all(re.fullmatch(r"\w+ +\d+ [\d:]+ h x\[\d\]: \d+ y*", line) for line in written)


def test_socket_that_is_read_slowly_does_not_block() -> None:
    """Standard error is a stream socket under systemd: two that find room at a time do not both have it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        logs = [Log("x", host="h", pid=pid) for pid in (1, 2)]
        turn = LogTurn(memoryview(mmap.mmap(-1, LOG_TURN_SIZE)))
        for log in logs:
            log.open(ours.fileno(), turn=turn)
        for number in range(3000):
            for log in logs:
                log.info(f"{number} " + "a" * (number % 300))
                log.flush()
        assert all(log.kept for log in logs)
        theirs.setblocking(False)
        got = b""
        while any(log.kept for log in logs) or not got.endswith(b"2999 " + b"a" * 299 + b"\n"):
            for log in logs:
                log.flush()
            with suppress(BlockingIOError):
                got += theirs.recv(65536)
        with suppress(BlockingIOError):
            while True:
                got += theirs.recv(65536)
    for pid in (1, 2):
        own = [line.partition("]: ")[2] for line in got.decode().splitlines() if f" x[{pid}]: " in line]
        assert own == [f"{number} " + "a" * (number % 300) for number in range(3000)]
