"""fastscreen report, from the command line: what it prints, writes, sends, and how it fails."""

import gzip
import json
import socket
import stat
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from reportlog import A, come_again, connect, known, line, listed

from fastscreen.cli import main
from fastscreen.cli import report as command
from fastscreen.report import mail

LOG = (
    come_again(0),
    known(600),
    listed(700, "zen.example as 127.0.0.2", client="[198.51.100.9]:3333", rank=3),
    connect(800, "[203.0.113.5]:1"),
    line(801, "PREGREET 11 after 0.1 from [203.0.113.5]:1: EHLO ylmf\\r\\n"),
    line(801, "DISCONNECT [203.0.113.5]:1"),
    line(900, "warning: dnsblog reply timeout 10s for zen.example"),
)


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "mail.log"
    path.write_bytes(b"".join(LOG))
    return str(path)


def test_text(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--iso-date-time", "--rej-add-from"]) == 0
    text = capsys.readouterr().out
    for part in (
        "        4   connections\n",
        "        1   handed on to the mail server\n",
        "        1   turned away for now (450)\n",
        "Turned away, by test\n--------------------\n        1   pregreet\n        1   dnsbl\n",
        "          1        1        1   zen.example\n",
        "        1   came again from the same address, half of them within 9 min 53 s\n",
        "  450 4.3.2 Service currently unavailable (total: 1)\n        1   192.0.2.1 (a@example.com)\n",
        "        1   EHLO ylmf\\r\\n\n",
        "        1   postscreen: warning: dnsblog reply timeout 10s for zen.example\n",
    ):
        assert part in text
    assert "log lines from 2026-11-2" in text


def test_who_was_handed_on_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those in spite of a test, or of all tests, are among them, not elsewhere."""
    log = tmp_path / "log"
    found = connect(0) + line(1, f"PREGREET 11 after 0.1 from {A}: EHLO x\\r\\n")
    log.write_bytes(found + connect(900, "[192.0.2.9]:1") + line(900, "BYPASSED [192.0.2.9]:1"))
    assert main(["report", str(log)]) == 0
    text = capsys.readouterr().out
    assert (
        "        0      continued after the deep tests\n"
        "        1      untested: the bypass was on\n"
        "        1      though a test found something (action ignore, or shadow mode)\n"
        "        0   turned away for now (450)\n"
    ) in text
    assert text.count("bypass was on") == 1


def test_problems_first_and_quiet(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--problems-first", "-q", "-h", "0", "-u", "0"]) == 0
    text = capsys.readouterr().out
    assert (
        text.index("Grand Totals") < text.index("Recipients refused") < text.index("Warnings") < text.index("Per-Hour")
    )
    assert "none" not in text
    assert "Senders" not in text
    assert "192.0.2.0/24" not in text


def test_replies_are_cut_unless_all_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = "550 5.7.1 Service unavailable; client [192.0.2.1] blocked using a-long-name.of-a-list.example"
    log = tmp_path / "log"
    log.write_bytes(
        connect(0) + line(7, f"NOQUEUE: reject: RCPT from {A}: {reply}; from=<a@b>, to=<c@d>, proto=SMTP, helo=<>")
    )
    whole = "550 5.7.1 Service unavailable; client blocked using a-long-name.of-a-list.example (total: 1)"
    assert main(["report", str(log)]) == 0
    assert whole not in (cut := capsys.readouterr().out)
    assert "550 5.7.1 Service unavailable; client blocked using a-lon... (total: 1)" in cut
    assert main(["report", str(log), "--verbose-msg-detail"]) == 0
    assert whole in capsys.readouterr().out


def test_json(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--json", "--what-if", "threshold=4", "site=zen.example*3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["connect"] == 4
    assert found["away"]["back"] == 1
    assert found["what_if"]["no_longer"] == 1
    assert found["lists"][0]["replies"] == {"127.0.0.2": 1}


def test_days(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--json", "-d", "2026-11-20..2026-11-21"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"].get("connect", 0) == 0
    assert main(["report", log, "--json", "-d", "2026-11-21..2026-11-23"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["connect"] == 4


def test_the_usual_files(log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "LOGS", Path(log).parent)
    assert main(["report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["connect"] == 4
    Path(log).unlink()
    assert main(["report"]) == 1
    assert "no mail.log* or maillog* in" in capsys.readouterr().err


def test_another_syslog_name(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(log).write_bytes(b"".join(LOG).replace(b" postfix/", b" mx/"))
    assert main(["report", log, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"] == {}
    assert main(["report", log, "--json", "--syslog-name", "mx"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["connect"] == 4


def fake_sendmail(folder: Path, code: int = 0) -> Path:
    program = folder / "sendmail"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/arguments\ncat > {folder}/mail\necho no room >&2\nexit {code}\n'
    )
    program.chmod(0o755)
    return program


def test_by_mail(log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_sendmail(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert main(["report", log, "--mail-to", "postmaster@example.com"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "arguments").read_text() == "-t -oi\n"
    message = message_from_bytes((tmp_path / "mail").read_bytes(), policy=default)
    assert message["To"] == "postmaster@example.com"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "        4   connections\n" in message.get_body().get_content()  # type: ignore[union-attr]


def test_nothing_logged_is_no_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sendmail(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "log").write_text("Nov 22 08:06:46 mx1 postfix/smtpd[7]: connect from x[192.0.2.1]\n")
    assert main(["report", str(tmp_path / "log"), "--mail-to", "postmaster"]) == 0
    assert not (tmp_path / "mail").exists()


def test_a_mail_that_is_not_taken(
    log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_sendmail(tmp_path, code=75)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert main(["report", log, "--mail-to", "postmaster"]) == 1
    error = capsys.readouterr().err
    assert error == f"fastscreen: the report was not sent: {tmp_path}/sendmail: exit code 75: no room\n"


class Mailbox:
    def __init__(self) -> None:
        self.content = b""

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        self.content = envelope.content  # type: ignore[attr-defined]
        return "250 Ok"


def test_without_sendmail_by_smtp(log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        monkeypatch.setattr(mail, "SMTP", ("127.0.0.1", port))
        monkeypatch.setattr("shutil.which", lambda *words, **more: None)
        assert main(["report", log, "--mail-to", "postmaster@example.com"]) == 0
    finally:
        server.stop()
    assert b"Subject: Front door of " in mailbox.content


def test_a_page_takes_the_place_of_an_old_one(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    page.write_text("old")
    page.chmod(0o640)
    assert main(["report", log, "--html", str(page)]) == 0
    assert capsys.readouterr().out == ""
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mail.log", "report.html"]


def test_a_page_that_cannot_be_written(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--html", str(tmp_path / "none" / "report.html")]) == 1
    assert capsys.readouterr().err.startswith(f"fastscreen: {tmp_path}/none/report.html: cannot be written: ")


def test_what_if_on_a_configuration(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = tmp_path / "fastscreen.toml"
    configuration.write_text('[dnsbl]\nsites = ["zen.example*3"]\nthreshold = 3\n')
    assert main(["report", log, "-c", str(configuration), "--what-if", "threshold=3"]) == 0
    assert "        1   refused then and with these settings\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-d", "tomorrow"], "is no day; allowed: today, yesterday, week"),
        (["-h", "x"], "is no number"),
        (["--mail-to", "a b@c"], "is no mail address"),
        (["--mail-to", "a@b\nBcc: c"], "is no mail address"),
    ],
)
def test_wrong_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", *words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--what-if", "treshold=4"],
        ["--what-if", "site=a*b"],
        ["--what-if", "threshold=4"],  # of no list at all
        ["-c", "/nonexistent"],
    ],
)
def test_wrong_settings(log: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, *words]) == 2
    assert capsys.readouterr().err.startswith("fastscreen: ")


def test_a_log_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"fastscreen: {tmp_path}/none: cannot be read: No such file or directory\n"


def test_a_log_that_is_cut_short_is_told_of_and_reported_on(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "mail.log.1.gz"
    packed.write_bytes(gzip.compress(b"x\n" * 99)[:-9])
    assert main(["report", str(packed), log]) == 1
    out, error = capsys.readouterr()
    assert "        4   connections\n" in out
    assert error.startswith(f"fastscreen: {packed}: cannot be read: Compressed file ended")
    assert error.removeprefix("fastscreen: ") in out


def test_help_is_not_h(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--help"])
    assert ended.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_nothing_of_a_client_s_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    hostile = "\x1b]0;title\x07\x9b31m\u202ereversed"
    reject = (
        f"NOQUEUE: reject: RCPT from {A}: 550 5.5.1 {hostile}; from=<{hostile}>, to=<{hostile}>, proto=SMTP, helo=<>"
    )
    lines = [
        connect(0),
        line(1, f"PREGREET 9 after 1 from {A}: {hostile}"),
        line(2, reject),
        line(3, f"warning: {hostile}"),
    ]
    log.write_bytes(b"".join(lines) + line(4, f"addr 192.0.2.1 listed by domain {hostile} as 127.0.0.2", "dnsblog"))
    for words in ([], ["--json"], ["--verbose-msg-detail", "--rej-add-from"]):
        assert main(["report", str(log), *words]) == 0
        text = capsys.readouterr().out
        assert all(32 <= ord(character) < 127 or character in "\n–" for character in text)
