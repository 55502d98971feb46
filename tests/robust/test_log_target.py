"""A log that nobody reads, a full disk, a syslog that comes and goes: nobody waits, and lost lines are counted."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fastscreen.core import Log
from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import COMMAND, Client, Screener, wait_until

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
    """Up to the limit lines wait; then they are lost whole, in one piece, and their number is told."""
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
