"""`fastscreen check`: how a file differs from the configuration that a running fastscreen uses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from commands.conftest import Server
from commands.fakeserver import Error
from fastscreen.cli import main
from fastscreen.config import load
from fastscreen.config.changes import fingerprints


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in which nothing is wrong."""
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")
    path = tmp_path / "fastscreen.toml"
    path.write_text(
        f'hostname = "mx.test"\n[listen]\naddresses = ["127.0.0.1:0"]\n[handoff]\nto = "sink:"\n'
        f'[cache]\npath = "{tmp_path}/cache"\n[control]\npath = "{tmp_path}/control"\n'
    )
    return path


def running(file: Path, source: Path | None = None) -> dict[str, Any]:
    """What a fastscreen answers that has read this file."""
    return {"config": {"source": str(source or file), "fingerprints": fingerprints(load(file))}}


def test_the_same_configuration(file: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    asked = server(running(file)).asked
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    assert asked == [{"do": "config"}]
    assert main(["check", "-v", "-c", str(file)]) == 0
    assert "ok: running fastscreen: uses the same configuration\n" in capsys.readouterr().out


def test_each_difference_is_a_line_with_what_applies_it(
    file: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference is not an error in the file: `check && reload` continues."""
    server(running(file))
    text = file.read_text().replace('/cache"', '/other"')
    file.write_text(f'user = "root"\n{text}[greet]\nwait = "3s"\n')
    assert main(["check", "-c", str(file)]) == 0
    differs = "differs from the running fastscreen; to apply it,"
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: user: {differs} stop and start fastscreen",
        f"{file}: greet.wait: {differs} run `fastscreen reload`",
        f"{file}: cache.path: {differs} run `fastscreen restart`",
    ]
    assert main(["check", "--json", "-c", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["what"] for one in found["checks"] if "differs" in one["detail"]] == [
        "user",
        "greet.wait",
        "cache.path",
    ]


def test_another_file(file: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server(running(file, file.with_name("running.toml")))
    file.write_text(f'{file.read_text()}[greet]\nwait = "3s"\n')
    assert main(["check", "-c", str(file)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{file}: running fastscreen: it reads another file, {file.with_name('running.toml')}"
    assert second.startswith(f"{file}: greet.wait: differs")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Error("'config': no such verb; there are status"), "not compared: 'config': no such verb"),
        (7, "not compared: not fastscreen's protocol"),
        (None, "nothing to compare with"),
    ],
)
def test_a_fastscreen_that_cannot_be_compared(
    answer: Any, said: str, file: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    if answer is not None:
        server({"config": answer})
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["check", "-v", "-c", str(file)]) == 0
    assert re.search(f"ok: running fastscreen: .*{said}", capsys.readouterr().out)
