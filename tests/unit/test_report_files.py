"""Which logs are read, in what order, and in what pieces."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fastscreen.report import files
from fastscreen.report.files import LogError, LogFile, default_files, open_sorted


def content(path: Path) -> list[bytes]:
    log = LogFile(str(path))
    try:
        return list(log.blocks(lambda octets: None))
    finally:
        log.close()


def test_plain_and_compressed_are_the_same_whatever_their_names(tmp_path: Path) -> None:
    text = b"".join(b"line %d\n" % number for number in range(300_000))
    (tmp_path / "plain").write_bytes(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text[:1_000_000]) + gzip.compress(text[1_000_000:]))
    assert b"".join(content(tmp_path / "plain")) == b"".join(content(tmp_path / "packed")) == text
    assert all(block.endswith(b"\n") for block in content(tmp_path / "packed"))
    text = text[: text.index(b"\n", 400_000) + 1]
    for pack in (lzma.compress, bz2.compress):
        (tmp_path / "packed").write_bytes(pack(text[:100_000]) + pack(text[100_000:]))
        assert b"".join(content(tmp_path / "packed")) == text
    (tmp_path / "packed").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(LogError, match="compressed with zstd; use zstdcat"):
        content(tmp_path / "packed")


def test_a_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "mail.log").write_bytes(b"one\n")
    (tmp_path / "maillog").symlink_to("mail.log")
    (opened,) = open_sorted([str(tmp_path / "mail.log"), str(tmp_path / "maillog")])
    opened.close()


def test_a_last_line_without_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo")
    assert b"".join(content(tmp_path / "log")) == b"one\ntwo\n"


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50])
def test_lines_are_whole_wherever_a_block_ends(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    (tmp_path / "log").write_bytes(b"one\n\ntwo two\nthree\n")
    blocks = content(tmp_path / "log")
    assert b"".join(blocks) == b"one\n\ntwo two\nthree\n"
    assert all(each.endswith(b"\n") for each in blocks)


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "MAX_LINE", 128)
    (tmp_path / "log").write_bytes(b"before\n" + b"x" * 100_000 + b"\nafter\n" + b"y" * 1000)
    blocks = content(tmp_path / "log")
    assert b"".join(blocks) == b"before\nafter\n"


def test_oldest_first_whatever_the_names_and_times_of_the_files(tmp_path: Path) -> None:
    for name, stamp in (("mail.log", b"Nov 22"), ("mail.log.1", b"Nov 21"), ("mail.log.2.gz", b"Nov 20"), ("no", b"")):
        line = b"no stamp\n" + (stamp + b" 08:00:00 mx1 x[1]: y\n" if stamp else b"")
        (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
        os.utime(tmp_path / name, (1_795_500_000, 1_795_500_000))
    names = [str(tmp_path / name) for name in ("mail.log", "no", "mail.log.1", "mail.log.2.gz", "mail.log")]
    opened = open_sorted(names)
    assert [Path(log.name).name for log in opened] == ["mail.log.2.gz", "mail.log.1", "mail.log", "no"]
    for log in opened:
        log.close()


def test_json_is_put_in_order_too(tmp_path: Path) -> None:
    for name, day in (("log", 22), ("log.1", 21)):
        (tmp_path / name).write_text(f'{{"time":"2026-11-{day}T08:00:00.123456+00:00","host":"mx1"}}\n')
    opened = open_sorted([str(tmp_path / name) for name in ("log", "log.1")])
    assert [Path(log.name).name for log in opened] == ["log.1", "log"]
    for log in opened:
        log.close()


def test_usual_names(tmp_path: Path) -> None:
    for name in ("mail.log", "mail.log.2.gz", "maillog", "maillog-20261122", "syslog"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "mail.log.2.gz", (1000, 1000))
    assert [Path(name).name for name in default_files(tmp_path, 2000)] == ["mail.log", "maillog", "maillog-20261122"]


def test_a_name_that_leads_nowhere_any_more(tmp_path: Path) -> None:
    """Rotation may take a file away between the reading of the folder and that of the file."""
    (tmp_path / "mail.log").write_bytes(b"")
    (tmp_path / "mail.log.1").symlink_to("gone")
    assert [Path(name).name for name in default_files(tmp_path, 0)] == ["mail.log"]


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        LogError, match=r"mail\.log\* and maillog\* are missing; name the log files, or - for standard input"
    ):
        default_files(tmp_path, 0)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file"):
        LogFile(str(tmp_path / "none"))
    with pytest.raises(LogError, match=r"folder|directory"):
        LogFile(str(tmp_path))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(3_000_000))[:2_000_000])
    with pytest.raises(LogError, match="cannot be read"):
        content(tmp_path / "cut.gz")


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, partial(bz2.compress, compresslevel=1)], ids=["gz", "xz", "bz2"]
)
@pytest.mark.parametrize("broken", [False, True], ids=["cut", "broken"])
def test_what_comes_before_the_harm_is_read(pack: Callable[[bytes], bytes], broken: bool, tmp_path: Path) -> None:
    text = b"".join(b"line %d %b\n" % (number, os.urandom(9).hex().encode()) for number in range(20_000))
    whole = pack(text)
    (tmp_path / "log").write_bytes(whole[: len(whole) * 3 // 4] + bytes(1000) * broken)
    log = LogFile(str(tmp_path / "log"))
    blocks = []
    with pytest.raises(LogError, match="cannot be read"):
        for block in log.blocks(lambda octets: None):
            blocks.append(block)
    log.close()
    read = b"".join(blocks)
    assert 100_000 < len(read) < len(text)
    assert text.startswith(read[: read.rindex(b"\n", 0, -1)])


def test_how_far_it_has_come(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"some line\n" * 500_000)
    told: list[int] = []
    log = LogFile(str(tmp_path / "log"))
    for _ in log.blocks(told.append):
        pass
    log.close()
    assert sum(told) == log.size == 5_000_000
    assert len(told) > 3


def test_standard_input(tmp_path: Path) -> None:
    program = "from fastscreen.report.files import LogFile\nfor each in LogFile('-').blocks(print): print(len(each))"
    result = subprocess.run(
        [sys.executable, "-c", program], input=gzip.compress(b"a\nb\n"), capture_output=True, check=True
    )
    assert result.stdout == b"4\n"
