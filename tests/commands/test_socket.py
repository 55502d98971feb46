"""Which socket is asked, and what is said when that fails."""

import io
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from commands.conftest import Ask, Server
from commands.fakeserver import HELLO, Error, FakeServer
from commands.test_status import STATUS
from fastscreen.cli import control_socket, main, tui
from fastscreen.control import client


@pytest.fixture(autouse=True)
def usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the usual configuration file, which is missing."""
    file = tmp_path / "usual.toml"
    monkeypatch.setattr(control_socket, "USUAL_FILE", file)
    return file


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(words)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fastscreen: ")
    assert printed.err.count("\n") == 1
    return code, printed.err


def test_the_configuration_names_the_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fastscreen.toml").write_text(f'[control]\npath = "{tmp_path}/other"\n')
    with FakeServer(tmp_path / "other", {"status": STATUS}) as server:
        assert main(["status", "-c", str(tmp_path / "fastscreen.toml")]) == 0
    assert server.asked == [{"do": "status"}]
    assert "mx.example.test" in capsys.readouterr().out


def test_without_an_option_the_usual_places_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEFAULT_PATH", str(tmp_path / "first"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "fastscreen").mkdir()
    code, said = failure(capsys, "status")
    assert code == 1
    assert f"{tmp_path}/first or {tmp_path}/fastscreen/control" in said
    with FakeServer(tmp_path / "fastscreen/control", {"status": STATUS}) as built_in:
        assert main(["status"]) == 0
        with FakeServer(tmp_path / "first", {"status": STATUS}) as system:
            assert main(["status"]) == 0
    assert len(built_in.asked) == len(system.asked) == 1


def test_the_usual_configuration_names_the_socket(
    tmp_path: Path, usual_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the built-in one, though somebody is there."""
    monkeypatch.setattr(client, "DEFAULT_PATH", str(tmp_path / "first"))
    usual_file.write_text(f'[control]\npath = "{tmp_path}/other"\n')
    with FakeServer(tmp_path / "first", {"status": STATUS}) as built_in:
        with FakeServer(tmp_path / "other", {"status": STATUS}) as server:
            assert main(["status"]) == 0
        capsys.readouterr()
        code, said = failure(capsys, "status")
        assert (code, f"{tmp_path}/other: connection refused" in said) == (1, True)
    assert (len(server.asked), len(built_in.asked)) == (1, 0)


def test_a_usual_configuration_that_is_not_for_us_is_as_good_as_none(
    tmp_path: Path, usual_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEFAULT_PATH", str(tmp_path / "first"))
    usual_file.write_text(f'[control]\npath = "{tmp_path}/other"\n')
    monkeypatch.setattr(os, "access", lambda path, mode: path != usual_file)
    with FakeServer(tmp_path / "first", {"status": STATUS}) as server:
        assert main(["status"]) == 0
    assert len(server.asked) == 1


def test_the_view_has_the_same_rule(
    tmp_path: Path, usual_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several of a kind. Where there is nobody at all it says so; one of two may be away."""
    shown: list[list[str]] = []

    def stopped(paths: list[str]) -> None:
        shown.append(paths)
        raise KeyboardInterrupt

    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for name in ("first", "second"):
        (tmp_path / f"{name}.toml").write_text(f'[control]\npath = "{tmp_path}/{name}"\n')
    usual_file.write_text(f'[control]\npath = "{first}"\n')
    files = ("-c", f"{tmp_path}/first.toml", "-c", f"{tmp_path}/second.toml")
    ways = ((), ("--socket", first, "--socket", second), files)
    for words in ways:
        code, said = failure(capsys, "tui", *words)
        assert code == 1
        assert said == (
            f"fastscreen: {first}: no such socket; is fastscreen running? "
            "(to choose another socket: --socket PATH or -c FILE)\n"
        )
    with monkeypatch.context() as patch:
        patch.setattr(tui, "look", stopped)
        for words in ways:
            assert main(["tui", *words]) == 130
    assert shown == [[first], [first, second], [first, second]]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with FakeServer(tmp_path / "second"):
        code, said = failure(capsys, "tui", *files)
        assert (code, "needs a terminal" in said) == (2, True)


def test_a_configuration_without_a_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text('[control]\npath = ""\n')
    code, said = failure(capsys, "status", "-c", str(file))
    assert (code, "the control socket is disabled" in said) == (1, True)


BROKEN = {
    "unknown key": '[dnsbl]\ntreshold = 3\n[control]\npath = "PATH"\n',
    "wrong value": '[greet]\nwait = "soon"\n[control]\npath = "PATH"\n',
    "not TOML before": '[dnsbl]\nsites = [\n[control]\npath = "PATH" # here\n',
    "not TOML after": "[control]\npath = 'PATH'\n[greet]\naction = enforce\n",
    "dotted": 'control.path = "PATH"\nx = = 1\n',
    "inline": 'control = { group = "adm", path = "PATH" }\nx = = 1\n',
    "not UTF-8": '[control]\npath = "PATH"\n# \xff\n',
    "another path first": '[cache]\npath = "/none"\n[control]\npath = "PATH"\n=\n',
}


@pytest.mark.parametrize("which", [*BROKEN, "missing", "a folder", "a FIFO", "says nothing", "nonsense"])
@pytest.mark.parametrize("usual", [False, True])
def test_operators_are_not_locked_out_by_a_broken_file(
    tmp_path: Path, usual_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, which: str,
    usual: bool,
) -> None:  # fmt: skip
    """`bypass`, `status` and the others need control.path only; where it cannot be found, the usual socket is asked."""
    socket_ = tmp_path / "run"
    monkeypatch.setattr(client, "DEFAULT_PATH", str(tmp_path / "none") if which in BROKEN else str(socket_))
    file = usual_file if usual else tmp_path / "fastscreen.toml"
    match which:
        case "missing":
            pass
        case "a folder":
            file.mkdir()
        case "a FIFO":
            os.mkfifo(file)
        case "says nothing":
            file.write_text("[greet]\n=")
        case "nonsense":
            file.write_text("[control]\npath = 3\n")
        case _:
            file.write_bytes(BROKEN[which].replace("PATH", str(socket_)).encode("latin-1"))
    words = () if usual else ("-c", str(file))
    with FakeServer(socket_, {"status": STATUS, "bypass": {"until": 1e9}}) as server:
        assert main(["bypass", "on", "--for", "1m", *words]) == 0
        said = capsys.readouterr().err
        assert main(["status", *words]) == 0
    assert [one["do"] for one in server.asked] == ["bypass", "status"]
    if not (usual and which == "missing"):
        (note,) = [line for line in said.splitlines() if "note" in line]
        assert note.startswith(f"fastscreen: note: {file}: ")
        assert "`fastscreen check`" in note
        assert str(socket_) in note


def test_with_a_socket_named_no_file_is_read(server: Server, ask: Ask, usual_file: Path) -> None:
    usual_file.write_text("=")
    server({"bypass": {"until": 0.0}})
    assert ask("bypass", "off") == (0, "The bypass is off: clients are tested.\n", "")


def test_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status"], ["events"], ["cache", "stats"], ["bypass", "off"]):
        code, said = failure(capsys, *command, "--socket", str(tmp_path / "none"))
        assert code == 1
        assert "no such socket" in said
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    code, said = failure(capsys, "status", "--socket", str(tmp_path / "left"))
    assert (code, "connection refused" in said) == (1, True)


# Root may do all, so it becomes somebody else first; only then, as others may not be able to read this source tree.
_AS_NOBODY = """
import os, sys
from fastscreen.cli import main, parser
parser("status").format_help()
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(["status", "--socket", sys.argv[1]]))
"""


@pytest.mark.parametrize(("mode", "allowed"), [(0o000, False), (0o666, True)])
def test_no_permission(mode: int, allowed: bool) -> None:
    """In a folder that all can reach: it is the socket itself that is closed, or not."""
    with tempfile.TemporaryDirectory(prefix="fastscreen-commands-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        with FakeServer(folder / "control", {"status": STATUS}) as server:
            server.path.chmod(mode)
            asked = [sys.executable, "-c", _AS_NOBODY, str(server.path)]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    if allowed:
        assert (done.returncode, done.stderr) == (0, "")
        assert "mx.example.test" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"fastscreen: {server.path}: no permission; ")
        assert done.stderr.count("\n") == 1


def test_another_protocol(server: Server, ask: Ask) -> None:
    server({"status": STATUS}, hello={**HELLO, "protocol": 2})
    code, _, said = ask("status")
    assert code == 1
    assert "protocol version 2" in said


def test_an_answer_that_is_none(server: Server, ask: Ask) -> None:
    server({"status": {"time": "soon"}, "cache.get": [1, 2, 3]})
    for words in (["status"], ["cache", "get", "192.0.2.1"]):
        code, printed, said = ask(*words)
        assert (code, printed) == (1, "")
        assert "not fastscreen's protocol" in said
        assert said.count("\n") == 1


def test_an_error_is_told_in_the_daemons_words_and_a_filters_is_wrong_usage(server: Server, ask: Ask) -> None:
    server({"cache.stats": Error("no cache\x1b[2J"), "events": Error("filter: score>: a number is missing")})
    assert ask("cache", "stats") == (1, "", "fastscreen: no cache\\033[2J\n")
    assert ask("events", "--filter=score>") == (2, "", "fastscreen: filter: score>: a number is missing\n")
