"""fastscreen check on [tls]: which files are loaded, when certificates expire, and who can read the files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import certificate

from fastscreen.cli import main


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never switch the user of this process, because that cannot be undone."""
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")


def config(folder: Path, tls: str, user: str = "") -> Path:
    file = folder / "fastscreen.toml"
    file.write_text(
        f'hostname = "mx.test"\nuser = "{user}"\n[cache]\npath = ""\n[handoff]\nto = "sink:"\n'
        f'[log]\nto = "stderr"\n[tls]\nlevel = "may"\n{tls}'
    )
    return file


def test_what_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, chain = certificate.make(tmp_path, days=90)
    file = config(tmp_path, f'certificates = ["{key}", "{chain}"]')
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["check", "-v", "-c", str(file)]) == 0
    assert f"ok: tls.certificates: {key} and {chain}: expires on 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tls", "what"),
    [
        ('certificates = ["{soon.key}", "{soon.pem}"]', "tls.certificates: {soon.key} and {soon.pem}: expires on 20"),
        ('certificates = ["{old.key}", "{old.pem}"]', "tls.certificates: {old.key} and {old.pem}: expired on 20"),
        ('certificates = ["{mx.key}", "{soon.pem}"]', "private key and certificate do not belong together"),
        (
            'certificates = ["{mx.key}"]',
            "tls.certificates: {mx.key}: missing certificate; expected a key followed",
        ),
        ('certificates = ["/nonexistent"]', "tls.certificates: /nonexistent: No such file or directory"),
        ('certificates = ["{mx.key}", "{mx.pem}"]\nciphers = "NONSENSE"', "tls.ciphers: OpenSSL knows no cipher in"),
    ],
)
def test_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], tls: str, what: str) -> None:
    certificate.make(tmp_path, days=90)
    certificate.make(tmp_path, "soon", days=3)
    certificate.make(tmp_path, "old", days=-1)
    for name in ("mx.key", "mx.pem", "soon.key", "soon.pem", "old.key", "old.pem"):
        tls = tls.replace(f"{{{name}}}", str(tmp_path / name))
        what = what.replace(f"{{{name}}}", str(tmp_path / name))
    file = config(tmp_path, tls)
    assert main(["check", "-c", str(file)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: ")
    assert what in out
    assert out.count("\n") == 1


def test_level_without_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, "")
    assert main(["check", "-c", str(file)]) == 2
    assert (
        f"fastscreen: {file}: tls.certificates: the list is empty, but tls.level is may; expected"
        in capsys.readouterr().err
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that any user can reach."""
    made = Path(tempfile.mkdtemp(prefix="fastscreen-check-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_keys_that_only_root_may_read(folder: Path) -> None:
    """They can be used; the output says which process reads a new file."""
    key, chain = certificate.make(folder)
    file = config(folder, f'certificates = ["{key}", "{chain}"]', "nobody")
    command = [str(Path(sys.executable).parent / "fastscreen"), "check", "-v", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ok: tls.certificates: {key} and {chain}: expires on 20" in done.stdout
    only = "only root may read this file; a process with that right reads a new file at SIGHUP"
    assert f"ok: tls.certificates: {key}: {only}\n" in done.stdout
    assert f"{chain}: {only}" not in done.stdout
