"""fastscreen report, from the command line: what it prints, writes, sends, and how it fails."""

import gzip
import json
import os
import stat
import subprocess
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from reportlog import A, come_again, connect, known, line, listed

from bench.ports import free_port
from fastscreen.cli import main
from fastscreen.cli import report as command
from fastscreen.report import mail, sources

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
        "        1   handed off to the mail server\n",
        "        1   deferred with 450\n",
        "Rejections by test\n------------------\n        1   pregreet\n        1   dnsbl\n",
        "          1        1        1   zen.example\n",
        "        1   came back from the same address, half of them within 9 min 53 s\n",
        "  450 4.3.2 Service currently unavailable (total: 1)\n        1   192.0.2.1 (a@example.com)\n",
        "        1   EHLO ylmf\\r\\n\n",
        "        1   postscreen: warning: dnsblog reply timeout 10s for zen.example\n",
    ):
        assert part in text
    assert "log lines from 2026-11-2" in text


def test_handed_off_clients_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients that failed a test, or skipped all tests, but were handed off, are counted here and nowhere else."""
    log = tmp_path / "log"
    found = connect(0) + line(1, f"PREGREET 11 after 0.1 from {A}: EHLO x\\r\\n")
    log.write_bytes(found + connect(900, "[192.0.2.9]:1") + line(900, "BYPASSED [192.0.2.9]:1"))
    assert main(["report", str(log)]) == 0
    text = capsys.readouterr().out
    assert (
        "        0      continued after the deep tests\n"
        "        1      not tested, because of a bypass\n"
        "        1      failed a test (with action ignore, or in shadow mode)\n"
        "        0   deferred with 450\n"
    ) in text
    assert text.count("because of a bypass") == 1


def test_problems_first_and_quiet(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", log, "--problems-first", "-q", "-h", "0", "-u", "0"]) == 0
    text = capsys.readouterr().out
    assert (
        text.index("Grand Totals") < text.index("Rejected recipients") < text.index("Warnings") < text.index("Per-Hour")
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
    assert found["deferred"]["returned"] == 1
    assert found["what_if"]["no_longer_rejected"] == 1
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
    assert "mail.log* and maillog* are missing" in capsys.readouterr().err


def test_another_syslog_name(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(log).write_bytes(b"".join(LOG).replace(b" postfix/postscreen[", b" mx["))
    assert main(["report", log, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["connect"] == 0
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
    port = free_port()
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        monkeypatch.setattr(mail, "SMTP", ("127.0.0.1", port))
        monkeypatch.setattr("shutil.which", lambda *words, **more: None)
        assert main(["report", log, "--mail-to", "postmaster@example.com"]) == 0
    finally:
        server.stop()
    assert b"Subject: Screening report of " in mailbox.content


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
    assert "        1   rejected then and with these settings\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-d", "tomorrow"], "is not a day; expected today, yesterday, week"),
        (["-h", "x"], "is not a number"),
        (["--mail-to", "a b@c"], "is not a mail address"),
        (["--mail-to", "a@b\nBcc: c"], "is not a mail address"),
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


LOGS = Path(__file__).parent.parent / "logs"


@pytest.mark.parametrize("name", ["multi-dash", "compose", "cri", "docker-json", "busybox"])
def test_logs_of_containers_and_small_systems(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(LOGS / f"{name}.log"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["connect"] == 3


def test_a_form_that_cannot_be_read(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, whatever else was read, with exit code 1; not of what has nothing of a screener in it."""
    unknown, other = tmp_path / "unknown.log", tmp_path / "other.log"
    unknown.write_bytes(b"".join(b"at noon: " + line for line in b"".join(LOG).splitlines(keepends=True)))
    other.write_bytes(b"Nov 22 08:06:46 mx1 postfix/smtpd[7]: connect from x\n")
    for more in ([], [log], [str(other)]):
        assert main(["report", str(unknown), *more, "--json"]) == 1
        printed = capsys.readouterr()
        assert f"{unknown}: contains lines of postscreen or fastscreen in an unknown format; expected" in printed.err
        assert (json.loads(printed.out)["totals"].get("connect", 0) == 4) == (more == [log])
        assert any("in an unknown format" in note for note in json.loads(printed.out)["notes"])
    assert main(["report", str(other), "-d", "2001-01-01"]) == 0
    assert main(["report", log, "-d", "2001-01-01"]) == 0
    assert capsys.readouterr().err == ""


def configured(folder: Path, to: str, more: str = "") -> Path:
    path = folder / "fastscreen.toml"
    path.write_text(f'[log]\nto = "{to}"\n{more}')
    return path


def fake_journalctl(folder: Path, idents: list[str], entries: list[tuple[str, str]], code: int = 0) -> None:
    """journalctl with these idents, and these idents' messages."""
    lines = [
        json.dumps(
            {"__REALTIME_TIMESTAMP": "1795348800000000", "SYSLOG_IDENTIFIER": ident, "_PID": "7", "MESSAGE": message}
        )
        for ident, message in entries
    ]
    (folder / "idents").write_text("".join(f"{ident}\n" for ident in idents))
    (folder / "entries").write_text("".join(f"{line}\n" for line in lines))
    program = folder / "journalctl"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *" -F "*) cat {folder}/idents;; *) echo "$@" > {folder}/asked; cat {folder}/entries; '
        f"exit {code};; esac\n"
    )
    program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a journal, with an old mail.log of one connection, and no configuration."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "mail.log").write_bytes(connect(0))
    monkeypatch.setattr(command, "LOGS", tmp_path / "var")
    monkeypatch.setattr(command, "USUAL_FILE", tmp_path / "fastscreen.toml")
    monkeypatch.setattr(sources, "JOURNALCTL", str(tmp_path / "bin" / "journalctl"))
    return tmp_path


def connections(capsys: pytest.CaptureFixture[str], *words: str) -> int:
    assert main(["report", "--json", *words]) == 0
    return int(json.loads(capsys.readouterr().out)["totals"].get("connect", 0))


def test_the_daemons_own_log(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was rotated away, and not what is only named alike; mail.log when the daemon logs elsewhere."""
    own = machine / "own" / "screen.log"
    own.parent.mkdir()
    own.write_bytes(connect(0, "[192.0.2.1]:1"))
    (own.parent / "screen.log.1").write_bytes(connect(0, "[192.0.2.1]:2"))
    (own.parent / "screen.log-20261121.gz").write_bytes(gzip.compress(connect(0, "[192.0.2.1]:3")))
    (own.parent / "screen.logs").write_bytes(connect(0, "[192.0.2.1]:4"))
    (own.parent / "screen.log.d").mkdir()
    assert connections(capsys) == 1
    file = configured(machine, f"file:{own}")
    assert connections(capsys) == 3
    fake_journalctl(
        machine / "bin", ["fastscreen"], [("fastscreen", "CONNECT from [192.0.2.1]:9 to [192.0.2.2]:25")] * 9
    )
    assert connections(capsys) == 3
    named = machine / "other.toml"
    file.rename(named)
    assert connections(capsys, "-c", str(named)) == 3
    configured(machine, "syslog")
    assert connections(capsys) == 9
    assert connections(capsys, str(machine / "var" / "mail.log")) == 1


def test_the_daemons_log_is_missing(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report must not fall back to a different log, which may be a year old."""
    configured(machine, f"file:{machine}/none.log")
    assert main(["report"]) == 1
    assert f"log.to: {machine}/none.log is missing; expected" in capsys.readouterr().err


def test_the_daemons_ident(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = machine / "own.log"
    own.write_bytes(connect(0).replace(b"postfix/postscreen", b"door"))
    configured(machine, f"file:{own}", 'ident = "door"\n')
    assert connections(capsys) == 1


def test_the_journal(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all idents that a screener has, from the first day that is asked for; without them, mail.log."""
    come = "CONNECT from [192.0.2.1]:9 to [192.0.2.2]:25"
    others = ["sshd", "postfix/smtpd", "x postscreen"]
    fake_journalctl(machine / "bin", others, [("sshd", come)] * 5)
    assert connections(capsys) == 1
    entries = [("postfix-mx-in/postscreen", come), ("fastscreen", come), ("door", come)]
    fake_journalctl(machine / "bin", [*others, *(ident for ident, _ in entries)], entries)
    assert connections(capsys) == 2
    configured(machine, "stderr", 'ident = "door"\n')
    assert connections(capsys, "-d", "2026-11-22") == 3
    asked = (machine / "bin" / "asked").read_text().split()
    assert [word for word in asked if "identifier" in word] == [
        *("--identifier=door", "--identifier=fastscreen", "--identifier=postfix-mx-in/postscreen")
    ]
    assert any(word.startswith("--since=@179") for word in asked)
    fake_journalctl(machine / "bin", ["fastscreen"], [], code=3)
    assert main(["report"]) == 1
    assert "journal: " in capsys.readouterr().err


def test_a_broken_configuration_is_no_hindrance(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless it was named."""
    (machine / "fastscreen.toml").write_text("[log]\nlevel = 3\n")
    assert main(["report", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["totals"]["connect"] == 1
    assert printed.err.startswith("fastscreen: warning: ")
    assert main(["report", "-c", str(machine / "fastscreen.toml")]) == 2


KEY = "abcdefghijklmnopqrstuvwxyz"
SECRET = "s3cr3t.paid.example"


@pytest.mark.parametrize("form", ["text", "--html", "mail", "--json"])
def test_query_keys(
    form: str, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a list that reply_map names, and of one that it does not."""
    blocked = f"550 5.7.1 Service unavailable; client [192.0.2.1] blocked using {KEY}.zen.dq.spamhaus.net"
    log = machine / "log"
    log.write_bytes(
        listed(0, f"{KEY}.zen.dq.spamhaus.net as 127.0.0.2", f"{SECRET} as 127.0.0.3", rank=3)
        + line(7, f"NOQUEUE: reject: RCPT from {A}: {blocked}; from=<a@b>, to=<c@d>, proto=SMTP, helo=<x>")
        + line(8, f"warning: dnsblog reply timeout 10s for {SECRET}")
        + line(8, f"warning: dnsblog reply timeout 10s for {KEY}.xbl.dq.spamhaus.net")
    )
    configured(machine, "syslog", f'[dnsbl]\nreply_map = "inline:{{{SECRET}=paid.example}}"\nsites = ["{SECRET}"]\n')
    words = ["report", str(log), "--verbose-msg-detail", "--what-if", f"site={SECRET}*2"]
    fake_sendmail(machine / "bin")
    monkeypatch.setenv("PATH", str(machine / "bin"), prepend=":")
    page = machine / "page.html"
    more = {"--html": ["--html", str(page)], "mail": ["--mail-to", "a@example.com"], "--json": ["--json"], "text": []}[
        form
    ]
    assert main([*words, *more]) == 0
    shown = capsys.readouterr().out
    if form == "--html":
        shown = page.read_text()
    elif form == "mail":
        message = message_from_bytes((machine / "bin" / "mail").read_bytes(), policy=default)
        shown = message.get_body().get_content()  # type: ignore[union-attr]
    assert "paid.example" in shown
    assert "***.zen.dq.spamhaus.net" in shown
    assert KEY not in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "utf-8"])
@pytest.mark.parametrize("words", [["report", "LOG"], ["report", "--help"], ["demo", "--help"], ["check", "--help"]])
def test_any_locale(words: list[str], encoding: str, tmp_path: Path) -> None:
    """What its character set lacks is written otherwise."""
    log = tmp_path / "log"
    log.write_bytes(come_again(0) + known(1000))
    command = [sys.executable, "-m", "fastscreen", *(str(log) if word == "LOG" else word for word in words)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    if words == ["report", "LOG"]:
        assert ("5–30 min" if encoding == "utf-8" else "5-30 min") in done.stdout.decode(encoding)


def test_a_locale_that_is_ascii(tmp_path: Path) -> None:
    """Also for files that are read and written."""
    log, page = tmp_path / "log", tmp_path / "page"
    log.write_bytes(come_again(0) + known(1000))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for more in ([], ["--html", str(page)]):
        command = [sys.executable, "-m", "fastscreen", "report", str(log), *more]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert "5–30 min" in page.read_text(encoding="utf-8")
