"""`fastscreen check` with an MTA behind the PROXY protocol."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastscreen.cli import main
from robust.proxymta import ProxyMta


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never switch the user of this process, because that cannot be undone."""
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")


def configured(folder: Path, to: str, continue_to: str, version: int = 2) -> Path:
    file = folder / "fastscreen.toml"
    file.write_text(
        f'hostname = "mx.test"\n[cache]\npath = ""\n[handoff]\nto = "{to}"\ncontinue_to = "{continue_to}"\n'
        f"proxy_version = {version}\n"
    )
    return file


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_mta_announces(tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int) -> None:
    with ProxyMta(lambda *_: None) as mta:
        assert main(["check", "-v", "-c", str(configured(tmp_path, mta.target, mta.target, version))]) == 0
    out = capsys.readouterr().out
    for key in ("to", "continue_to"):
        assert f"ok: handoff.{key}: 127.0.0.1:{mta.port}: announces 8BITMIME, SIZE, DSN" in out
    assert (mta.came, mta.locals) == (0, 2)


def test_starttls_is_a_problem_for_continue_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ProxyMta(lambda *_: None) as mta:
        mta.offer = b"250-mta\r\n250 STARTTLS\r\n"
        assert main(["check", "-c", str(configured(tmp_path, mta.target, mta.target))]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert ": handoff.continue_to: " in line
    assert "offers STARTTLS" in line


def closes(connection: socket.socket) -> None:
    connection.recv(16)


def says(what: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(16)
        connection.sendall(what)

    return serve


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (closes, "does the port accept the PROXY protocol?"),
        (says(b"554 \x1b[31mno\r\n"), "the MTA sent 554 instead of 220"),
        (says(b"HTTP/1.1 400\r\n"), "the MTA sent no reply"),
        (says(b"220-" + b"x" * 70_000), "the MTA sent a line without an end"),
    ],
)
def test_what_is_no_mta_behind_proxy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], serve: Callable[[socket.socket], None], problem: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=once)
        thread.start()
        target = f"proxy:127.0.0.1:{listener.getsockname()[1]}"
        assert main(["check", "-c", str(configured(tmp_path, target, ""))]) == 1
        thread.join()
    assert problem in capsys.readouterr().out


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(configured(tmp_path, f"proxy:unix:{tmp_path}/none", ""))]) == 1
    assert "No such file or directory" in capsys.readouterr().out
