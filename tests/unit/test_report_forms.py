"""Forms that lines come in elsewhere: each is read as the line of the log file that it would have been."""

import json
from pathlib import Path

import pytest

from fastscreen.report.files import in_order
from fastscreen.report.forms import MOST_REPEATED, usual
from fastscreen.report.lines import reader

TEXT = b"PREGREET 11 after 0.1 from [192.0.2.1]:5: EHLO <22>1 x\\r\\n"
LISTED = b"addr 192.0.2.1 listed by domain bl.example as 127.0.0.2"
ROW = (b"PREGREET", b"11", b"[192.0.2.1]:5", b"192.0.2.1", b": EHLO <22>1 x\\r\\n")


def entry(**fields: object) -> bytes:
    known: dict[str, object] = {
        "__CURSOR": "s=1",
        "MESSAGE": TEXT.decode(),
        "SYSLOG_IDENTIFIER": "postfix/postscreen",
        "_PID": "811",
        "__REALTIME_TIMESTAMP": "1795766401123456",
        "_HOSTNAME": "mx1",
    }
    return json.dumps({name: value for name, value in (known | fields).items() if value is not None}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"<22>1 2026-11-27T08:00:01.123456+00:00 mx1 postfix/postscreen 811 - -  %b" % TEXT,
        b"<22>1 2026-11-27T08:00:01Z mx1 postfix/postscreen - ID47 - \xef\xbb\xbf%b" % TEXT,
        b'<22>1 2026-11-27T08:00:01+00:00 mx1 postfix/postscreen 811 - [a b="\\"\\] c"][d] %b' % TEXT,
        b"<22>2026-11-27T08:00:01+0000 mx1 postfix/postscreen[811]: %b" % TEXT,
        b"2026-11-27T08:00:01+0000 mx1 postfix/postscreen[811]: %b\r" % TEXT,
        entry(),
        entry(SYSLOG_PID="811", _PID=None, _HOSTNAME=None),
        entry(MESSAGE=list(TEXT)),
    ],
)
def test_forms(line: bytes) -> None:
    other = b"2026-11-27T08:00:00Z mx1 cron[1]: x"
    for lines in ((line,), (other, line), (line, other)):
        rows = reader()(b"\n".join(lines) + b"\n")
        found = rows.pop(lines.index(line))
        assert not any(field for row in rows for field in row)
        assert found[0] == b"2026-11-27T08:00:01"
        assert found[3:8] == ROW


@pytest.mark.parametrize(
    "line",
    [
        entry(MESSAGE=None),
        entry(__REALTIME_TIMESTAMP="soon"),
        entry(__REALTIME_TIMESTAMP="9" * 40),
        entry(MESSAGE=[256]),
        b'{"__REALTIME_TIMESTAMP"}',
        b"<22>1 2026-11-27T08:00:01Z mx1 postfix/smtpd 811 - - NOQUEUE: <22>1 2026-11-27T08:00:01Z mx1 "
        b"postfix/postscreen 811 - - " + TEXT,
        b"2026-11-27T08:00:01Z mx1 x[1]: " + entry(),
        b"2026-11-27T08:00:01Z mx1 x[1]: postfix/postscreen[811]: message repeated 3 times: [ " + TEXT + b"]",
    ],
)
def test_what_only_looks_like_one(line: bytes) -> None:
    assert [any(row[2:]) for row in reader()(line + b"\n")] == [False]


def test_a_journal_s_message_of_two_lines_is_one() -> None:
    assert len(reader()(entry(MESSAGE="a\nDISCONNECT [192.0.2.9]:1") + b"\n")) == 1


def test_a_line_that_was_counted_instead_of_written() -> None:
    head = b"Nov 27 08:00:01 mx1 postfix/dnsblog[811]: "
    rows = reader()(head + LISTED + b"\n" + head + b"message repeated 3 times: [ " + LISTED + b"]\n")
    assert [row[8:10] for row in rows] == [(b"192.0.2.1", b"bl.example as 127.0.0.2")] * 4


def test_how_often_is_bounded() -> None:
    line = b"Nov 27 08:00:01 mx1 postfix/dnsblog[811]: message repeated 999999999 times: [ x]\n"
    assert usual(line).count(b"\n") == MOST_REPEATED


def test_they_are_put_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(entry() + b"\n")
    (tmp_path / "b").write_bytes(b"<22>1 2026-11-26T08:00:01Z mx1 postfix/postscreen 811 - - " + TEXT + b"\n")
    opened = in_order([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [Path(log.name).name for log in opened] == ["b", "a"]
    for log in opened:
        log.close()
