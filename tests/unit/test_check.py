"""fastscreen check, and the frame of the command line."""

from __future__ import annotations

import array
import contextlib
import grp
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastscreen import __version__
from fastscreen.cli import main
from fastscreen.cli.check_mta import ProbeError, try_pass

MTA_GREETING = b"220-mx.test one moment\r\n220 mx.test ESMTP\r\n"


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never switch the user of this process, because that cannot be undone."""
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")
    monkeypatch.setattr("fastscreen.cli.check_access._bridges", list)


class Mta:
    """Receives one hand-off (reference 8), and replies with some bytes."""

    def __init__(self, path: Path, says: bytes) -> None:
        self.path = path
        self.attributes = b""
        self.heard = b""
        self._says = says
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(10)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        channel, _ = self._listener.accept()
        with channel:
            data, control, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
            assert data == b"\0"
            fds = array.array("i", control[0][2])
            while not self.attributes.endswith(b"\0\0"):
                self.attributes += channel.recv(4096)
        with socket.socket(fileno=fds[0]) as client:
            client.settimeout(10)
            client.sendall(self._says)
            if not self._says:
                return
            with contextlib.suppress(ConnectionError):
                self.heard = client.recv(4096)
                client.sendall(b"221 2.0.0 Bye\r\n")

    def end(self) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def mta(tmp_path: Path) -> Iterator[Callable[[bytes], Mta]]:
    started: list[Mta] = []

    def start(says: bytes) -> Mta:
        started.append(Mta(tmp_path / "smtpd", says))
        return started[-1]

    yield start
    for each in started:
        each.end()


class Resolver:
    """Answers every question with one response code; stays silent when that is None."""

    def __init__(self, code: int | None) -> None:
        self._code = code
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            if not question:
                return
            if self._code is not None:
                flags = (0x8180 | self._code).to_bytes(2, "big")
                self._socket.sendto(question[:2] + flags + question[4:6] + bytes(6) + question[12:], client)

    def end(self) -> None:
        host, port = self._socket.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (host, port))
        self._thread.join(10)
        self._socket.close()


def config(folder: Path, text: str) -> Path:
    file = folder / "fastscreen.toml"
    control = "" if "[control]" in text else f'[control]\npath = "{folder}/control"\n'
    file.write_text(f'hostname = "mx.test"\n{text}{control}')
    return file


def whole(folder: Path, resolver: str = "", handoff: str = "") -> Path:
    """A configuration with valid files."""
    (folder / "access").write_text("192.0.2.0/24 permit\n")
    dnsbl = f'[dnsbl]\nsites = ["bl.test"]\nresolvers = ["{resolver}"]\n' if resolver else ""
    return config(
        folder,
        f'user = ""\n[access]\nlist = ["cidr:{folder}/access"]\n[cache]\npath = "{folder}/cache"\n'
        f'[log]\nto = "file:{folder}/log"\n[handoff]\nto = "{handoff or "sink:"}"\n{dnsbl}',
    )


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = whole(tmp_path)
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["check", "-v", "-c", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"ok: access.list: cidr:{tmp_path}/access\n" in out
    assert "ok: handoff.to: the embedded sink\n" in out
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "log").exists()


def test_one_line_for_each_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "access").write_text("192.0.2.1/24 permit\n192.0.2.2 OK\n")
    (tmp_path / "cache").mkdir()
    file = config(
        tmp_path,
        f'[access]\nlist = ["cidr:{tmp_path}/access"]\n[cache]\npath = "{tmp_path}/cache"\n'
        f'[log]\nto = "file:{tmp_path}/none/log"\n[handoff]\nto = "sink:"\n'
        '[engine]\nreject_footer = "$nonsense"\n',
    )
    assert main(["check", "-c", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{file}: ").partition(":")[0] for line in lines] == [
        "access.list",
        "access.list",
        "engine.reject_footer",
        "cache.path",
        "log.to",
    ]
    assert "line 1" in lines[0]
    assert 'unknown command: "OK"' in lines[1]
    assert lines[3].endswith("/cache is not a file")
    assert lines[4].endswith(f"the folder {tmp_path}/none does not exist")


def test_the_memory_of_offenses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "offenses").mkdir()
    (tmp_path / "as.csv").write_text("192.0.2.0/24,64500\nnonsense\n")
    file = config(
        tmp_path,
        f'[score]\nmemory = "{tmp_path}/offenses"\nas_file = "{tmp_path}/as.csv"\n[cache]\npath = ""\n'
        '[handoff]\nto = "sink:"\n',
    )
    assert main(["check", "-c", str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: score.as_file: {tmp_path}/as.csv: 1 line ignored (2); expected first,last,number or network,number",
        f"{file}: score.memory: {tmp_path}/offenses is not a file",
    ]
    (tmp_path / "as.csv").unlink()
    assert main(["check", "-c", str(file)]) == 2
    assert "score.as_file" in capsys.readouterr().err


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a user without rights, who cannot write to folders named `closed`."""
    access = os.access
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getegid", lambda: 54321)
    monkeypatch.setattr(os, "getgroups", lambda: [54321])
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: Path(path).name != "closed" and access(path, mode, **more)
    )


def test_the_control_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str], somebody: None) -> None:
    """What `run` would only warn of: then there is nothing to ask."""
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir()
    group = grp.getgrgid(0).gr_name
    long = f"{tmp_path}/" + "x" * 100
    for text, wrong in {
        f'path = "{tmp_path}/control"': None,
        f'path = "{tmp_path}/run/fastscreen/control"': None,
        'path = ""': None,
        f'path = "{tmp_path}/{"x" * (106 - len(str(tmp_path)))}"': None,
        f'path = "{long}"': f"control.path: {long}: {len(long)} bytes; expected at most 107",
        f'path = "{tmp_path}/file"': f"control.path: {tmp_path}/file: exists, but is not a socket",
        f'path = "{tmp_path}/file/control"': f"control.path: {tmp_path}/file/control: {tmp_path}/file is not a folder",
        f'path = "{tmp_path}/closed/control"': f"control.path: {tmp_path}/closed/control: user 54321 may not write to "
        f"{tmp_path}/closed",
        f'path = "{tmp_path}/closed/run/control"': f"control.path: {tmp_path}/closed/run/control: user 54321 may not "
        f"write to {tmp_path}/closed",
        f'path = "{tmp_path}/control"\ngroup = "no-such"': 'control.group: the group "no-such" does not exist',
        f'path = "{tmp_path}/control"\ngroup = "{group}"': f'control.group: user 54321 is not in group "{group}"',
    }.items():
        file = config(tmp_path, f'handoff = {{to = "sink:"}}\ncache = {{path = ""}}\n[control]\n{text}\n')
        assert main(["check", "-c", str(file)]) == (0 if wrong is None else 1), text
        assert capsys.readouterr() == ("" if wrong is None else f"{file}: {wrong}\n", "")
    assert not (tmp_path / "run").exists()


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "-c", str(whole(tmp_path, handoff=f"pass:{tmp_path}/none"))]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [check["what"] for check in found["checks"] if not check["ok"]] == ["handoff.to"]


@pytest.mark.parametrize("text", ["[greet]\nwait = 0\n", '[access]\nlist = ["cidr:/nowhere"]\n'])
def test_a_configuration_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    file = config(tmp_path, text + '[handoff]\nto = "sink:"\n')
    assert main(["check", "-c", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fastscreen: {file}: ")
    assert err.count("\n") == 1
    assert main(["check", "--json", "-c", str(file)]) == 2
    assert json.loads(capsys.readouterr().out)["checks"][0]["detail"] == err.removeprefix("fastscreen: ").strip()


def test_the_mta_says_220(tmp_path: Path, mta: Callable[[bytes], Mta]) -> None:
    server = mta(MTA_GREETING)
    assert try_pass(str(server.path), 5) == "220 mx.test ESMTP"
    server.end()
    assert server.heard == b"QUIT\r\n"
    names = server.attributes.split(b"\0")[0:8:2]
    assert names == [b"client_address", b"client_port", b"server_address", b"server_port"]
    assert server.attributes.split(b"\0")[1] == b"127.0.0.1"


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        (b"554 5.7.1 \x1b[31mno\r\n", r"replied 554 5.7.1 \\x1b\[31mno; expected 220"),
        (b"", "closed the connection without a greeting"),
        (b"220-x\r\n" * 1000, "greeting of the MTA is too long"),
    ],
)
def test_the_mta_says_something_else(tmp_path: Path, mta: Callable[[bytes], Mta], says: bytes, wrong: str) -> None:
    with pytest.raises(ProbeError, match=wrong):
        try_pass(str(mta(says).path), 5)


def test_the_mtas_socket_is_missing_or_refuses(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"No such file or directory; is Postfix running"):
        try_pass(str(tmp_path / "none"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(ProbeError, match=r"Connection refused; is Postfix running\?"):
        try_pass(str(tmp_path / "left"))


@pytest.mark.parametrize(("code", "wrong"), [(0, ""), (3, ""), (2, "SERVFAIL"), (5, "REFUSED")])
def test_resolvers(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, wrong: str) -> None:
    server = Resolver(code)
    try:
        assert main(["check", "-v", "-c", str(whole(tmp_path, server.address))]) == (1 if wrong else 0)
    finally:
        server.end()
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if f"dnsbl.resolvers: {server.address}: " in line)
    assert wrong in line


def test_nobody_behind_a_resolvers_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*unused.getsockname())
    assert main(["check", "-c", str(whole(tmp_path, address))]) == 1
    assert "connection refused" in capsys.readouterr().out


def test_a_reply_map_that_knows_some_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Resolver(3)
    file = whole(tmp_path, server.address)
    text = file.read_text().replace('["bl.test"]', '["key.bl.test", "wl.test"]\nreply_map = "inline:{key.bl.test=bl}"')
    file.write_text(text)
    try:
        assert main(["check", "-v", "-c", str(file)]) == 0
    finally:
        server.end()
    assert "ok: dnsbl.reply_map: no entry for wl.test, so replies show this name" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_as_root_everything_is_tried_as_the_daemons_user(tmp_path: Path) -> None:
    # pytest's own folders are closed to others: the table is there for root only
    file = whole(tmp_path)
    file.write_text(file.read_text().replace('user = ""', 'user = "nobody"'))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from fastscreen.cli import main; sys.exit(main())",
            "check",
            "-c",
            str(file),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        done.stderr == f"fastscreen: {file}: access.list: cidr:{tmp_path}/access: cannot be read: Permission denied\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_what_the_daemons_user_cannot_even_look_at_is_told() -> None:
    """The socket is made by root, the other files are used by the user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        file = config(
            folder,
            f'user = "nobody"\nhandoff = {{to = "sink:"}}\ncache = {{path = "{closed}/a/b"}}\n'
            f'log = {{to = "file:{closed}/a/log"}}\n[control]\npath = "{closed}/a/control"\ngroup = "daemon"\n',
        )
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from fastscreen.cli import main; sys.exit(main())",
                "check",
                "-v",
                "-c",
                str(file),
            ],
            capture_output=True,
            text=True,
        )
    lines = done.stdout.splitlines()
    assert f"{file}: cache.path: {closed}/a/b: user nobody: Permission denied" in lines
    assert f"{file}: log.to: {closed}/a/log: user nobody: Permission denied" in lines
    assert f"ok: control.path: {closed}/a/control will be created by root" in lines
    assert "ok: control.group: members of daemon may read" in lines
    assert (done.returncode, done.stderr) == (1, "")


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastscreen {__version__}\n"
    for words in (["--help"], ["check", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["check"], ["check", "--nonsense"]])
def test_wrong_usage_is_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: fastscreen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("port", "trusted", "line", "code"),
    [
        ("127.0.0.1:10025", "127.0.0.0/8", "127.0.0.1:10025: every local user can claim any client address", 0),
        ("[::1]:10025", "::1", "[::1]:10025: every local user can claim any client address", 0),
        ("0.0.0.0:10025", "0.0.0.0/0", "0.0.0.0:10025: every local user can claim any client address", 0),
        (
            "127.0.0.1:10025",
            "10.0.0.0/8",
            "127.0.0.1:10025: only this machine can connect, but it is not in trusted",
            1,
        ),
        ("10.0.0.1:10025", "10.0.0.0/8", "", 0),
        ("10.0.0.1:10025", "127.0.0.0/8", "", 0),
    ],
)
def test_a_proxy_port_on_loopback_trusts_everybody_here(
    port: str, trusted: str, line: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notice, but not a problem, because a balancer may run on the same machine."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(
        f'[[listen.proxy]]\naddresses = ["{port}"]\ntrusted = ["{trusted}"]\n[handoff]\nto = "sink:"\n'
        f'[cache]\npath = "{tmp_path}/cache"\n[limits]\npre_queue = 10\n'
    )
    assert main(["check", "-c", str(file)]) == code
    said = capsys.readouterr().out
    assert said == (f"{file}: listen.proxy: {line}\n" if line else "")


_OUT_OF_REACH = """
import sys
from fastscreen.cli import check, main
check.user_of = lambda config: "somebody"
check.become = lambda user: sys.meta_path.clear()
sys.exit(main(["check", "-v", "-c", sys.argv[1]]))
"""


def test_as_the_user_python_may_be_out_of_reach(tmp_path: Path, mta: Callable[[bytes], Mta]) -> None:
    """A Python below root's home: after it has become the user, check can import nothing more."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(
        f'hostname = "mx.test"\n[listen]\naddresses = ["127.0.0.1:0"]\n[handoff]\nto = "pass:{tmp_path}/smtpd"\n'
        '[cache]\npath = ""\n[control]\npath = ""\n[engine]\nreject_footer = "ask us"\n'
        '[dnsbl]\nsites = ["dnsbl.sorbs.net"]\nresolvers = ["127.0.0.1:1"]\n'
    )
    mta(MTA_GREETING)
    run = subprocess.run([sys.executable, "-c", _OUT_OF_REACH, file], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (1, "")
    assert f"ok: handoff.to: {tmp_path}/smtpd: 220 mx.test ESMTP" in run.stdout
    assert "dnsbl.sorbs.net: closed in June 2024" in run.stdout
    assert "ok: engine.reject_footer: ask us\n" in run.stdout
