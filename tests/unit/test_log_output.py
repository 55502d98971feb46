"""Where the log goes: what cannot be opened or written is tried again, and shown as a condition."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.config import Config
from fastscreen.config.model import LogFile, LogSyslog
from fastscreen.process import log_output
from fastscreen.process.conditions import SIZE, Conditions, Kind
from fastscreen.process.log_output import LogTarget

Shown = Callable[[], list[str]]


def settings_for(to: LogFile | LogSyslog) -> Config:
    own = config.default()
    return msgspec.structs.replace(own, log=msgspec.structs.replace(own.log, to=to))


def watched(target: LogTarget) -> Shown:
    """What the conditions of this process say of the log."""
    conditions = Conditions(memoryview(bytearray(SIZE)), lambda: 1.0)
    target.watch(conditions)
    return lambda: [one.text for one in conditions.read() if one.kind is Kind.LOG]


def fill(target: LogTarget, lines: int) -> None:
    for number in range(lines):
        target.log.info(f"{number} " + "x" * 1000)


def test_fifo_without_a_reader_is_opened_later(tmp_path: Path) -> None:
    """Lines are kept, and the problem is logged once, as soon as possible."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    target = LogTarget(settings_for(LogFile(str(fifo))))
    shown = watched(target)
    text = f"log.to: {fifo}: no process reads this FIFO"
    assert (target.problem, target.needs_tick) == (text, True)
    assert shown() == [f"{text}: lines are kept in memory, up to 1 MiB"]
    target.log.info("kept")
    target.tick()
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    target.tick()
    assert shown() == []
    assert not target.needs_tick
    lines = os.read(reading, 65536).decode().splitlines()
    assert [line.partition("]: ")[2] for line in lines] == ["kept", f"log opened again; it had failed: {text}"]
    os.close(reading)
    target.log.info("nobody is there")
    target.tick()
    assert shown() == [f"log.to: {fifo}: Broken pipe: lines are kept in memory, up to 1 MiB"]
    target.close()


def test_lost_lines_are_counted_while_they_are_lost(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    target = LogTarget(settings_for(LogFile(str(fifo))))
    shown = watched(target)
    fill(target, 2000)
    target.tick()
    lost = target.log.lost
    assert lost > 0
    assert shown() == [f"log.to: {fifo}: no process reads this FIFO: {lost} lines lost so far"]
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    target.tick()
    assert shown() == [f"log.to: {fifo}: {target.log.lost} lines lost so far: the reader is too slow"]
    lost = target.log.lost
    got = b""
    while target.needs_tick:
        got += os.read(reading, 1 << 20)
        target.tick()
    got += os.read(reading, 1 << 20)
    assert shown() == []
    assert got.count(b"]: warning: %d log lines were lost: " % lost) == 1
    assert got.count(b" xxx") + lost == 2000
    assert (target.log.lost, target.log.lost_total) == (0, lost)
    os.close(reading)
    target.close()


def test_what_is_lost_at_the_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that found no room, and those that were kept."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    target = LogTarget(settings_for(LogFile(str(fifo))))
    fill(target, 2000)
    assert target.log.lost > 0
    target.close()
    said = f"log.to: {fifo}: no process reads this FIFO: 2000 log lines were lost at the end"
    assert capsys.readouterr().err == f"fastscreen: {said}\n"
    target = LogTarget(settings_for(LogFile("/dev/full")))
    target.log.info("kept")
    target.close()
    said = "log.to: /dev/full: No space left on device: 1 log lines were lost at the end"
    assert capsys.readouterr().err == f"fastscreen: {said}\n"


def test_the_old_file_stays_until_the_new_one_can_be_opened(tmp_path: Path) -> None:
    """It is logged once, in the old file; later the new file is opened automatically."""
    log, old = tmp_path / "log", tmp_path / "old"
    target = LogTarget(settings_for(LogFile(str(log))))
    shown = watched(target)
    log.rename(old)
    log.mkdir()
    for _ in range(2):
        target.reopen()
        target.tick()
        target.log.info("said")
    rest = "lines still go to the file that was open before"
    text = f"log.to: {log}: Is a directory"
    assert shown() == [f"{text}: {rest}"]
    target.log.flush()
    assert old.read_text().count(f"warning: log not opened again: {text}: {rest}") == 1
    assert old.read_text().count("]: said") == 2
    log.rmdir()
    target.tick()
    assert shown() == []
    assert log.read_text().count(f"log opened again; it had failed: {text}") == 1
    target.close()


def test_children_show_it_and_leave_telling_it_to_the_supervisor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    target = LogTarget(settings_for(LogFile(str(log))))
    child = target.for_child()
    shown = watched(child)
    old = log.rename(tmp_path / "old")
    log.mkdir()
    child.reopen()
    assert len(shown()) == 1
    assert old.read_text() == ""
    log.rmdir()
    child.tick()
    assert shown() == []
    assert log.read_text() == ""


def test_what_waiting_does_not_mend_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=f"log.to: {tmp_path}: Is a directory"):
        LogTarget(settings_for(LogFile(str(tmp_path))))
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    with pytest.raises(OSError, match=f"log.to: {path}: No such device or address"):
        LogTarget(settings_for(LogFile(str(path))))


def test_log_daemon_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setattr(log_output, "SYSLOG_SOCKET", str(path))
    target = LogTarget(settings_for(LogSyslog()))
    shown = watched(target)
    target.log.info("kept")
    target.tick()
    assert shown() == [f"log.to: {path}: No such file or directory: lines are kept in memory, up to 1 MiB"]
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(str(path))
            daemon.settimeout(10)
            target.tick()
            assert shown() == []
            assert daemon.recv(4096).endswith(b"]: kept")
        target.log.info("kept")
        target.tick()
        path.unlink()
        target.tick()
        assert shown() != []
    target.close()
