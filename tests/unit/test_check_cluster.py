"""fastscreen check and [cluster], as far as it takes no server; and starts without the packages that it needs."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastscreen.cli import check_cluster
from fastscreen.cli.check_cluster import checked_cluster
from fastscreen.config import Config, ConfigError, default, load
from fastscreen.daemon.preload import missing_for_cluster, preload

SECRET = "the secret of these hosts\n"


def configured(folder: Path, port: int = 1, **keys: str) -> Config:
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    keys = {"server": f"redis://127.0.0.1:{port}", "secret_file": str(secret)} | keys
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    file = folder / "fastscreen.toml"
    file.write_text(f'hostname = "mx1.test"\n[cluster]\n{lines}')
    return load(file)


def found(config: Config) -> list[tuple[str, bool, str]]:
    return [(each[0], each[1], each[2]) for each in checked_cluster(config, "")]


def test_without_a_cluster() -> None:
    assert found(default()) == []
    assert missing_for_cluster(default()) == ""


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        [(key, ok, detail)] = found(configured(tmp_path, port))
    assert (key, ok) == ("cluster.server", False)
    assert detail.startswith(f"127.0.0.1:{port}: ")
    assert "refused" in detail


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_cluster, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert found(configured(tmp_path, port)) == [("cluster.server", False, "the server takes longer than 0.3 s")]


def test_files(tmp_path: Path) -> None:
    """Each that cannot be read is a line; then, what is wrong in them."""
    gone = str(tmp_path / "gone")
    lines = found(configured(tmp_path, secret_file=gone, password_file=gone, ca_file=gone))
    assert lines == [
        (f"cluster.{key}", False, f"{gone}: No such file or directory")
        for key in ("secret_file", "password_file", "ca_file")
    ]
    short = tmp_path / "short"
    short.write_text("short\n")
    [(key, ok, detail)] = found(configured(tmp_path, secret_file=str(short)))
    assert (key, ok) == ("cluster.secret_file", False)
    assert detail.startswith(f"{short}: secret 1 has 5 bytes; expected ")
    short.chmod(0o644)
    words = tmp_path / "words"
    words.write_text("no certificate\n")
    for path in (words, Path("/dev/null")):
        [(key, ok, detail)] = found(configured(tmp_path, ca_file=str(path)))
        assert (key, ok, detail) == ("cluster.ca_file", False, f"{path}: no valid certificate in PEM format")


def test_a_secret_that_everybody_can_read(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    first, *_ = checked_cluster(config, "")
    assert first == (
        "cluster.secret_file",
        True,
        f"{tmp_path}/secret: every local user can read it; expected mode 0640 or 0600",
        True,
    )


@pytest.mark.parametrize("package", ["redis", "hiredis"])
def test_packages_that_are_not_installed(tmp_path: Path, package: str) -> None:
    """`run` and `check` say in one line what to install; without a cluster, nothing is missing."""
    file = configured(tmp_path).source
    program = (
        f"import sys; sys.modules[{package!r}] = None; from fastscreen.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "-c", file], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"fastscreen: {file}: cluster.server: ")
    assert package in line
    assert line.endswith("expected an installation with `pip install 'fastscreen[cluster]'`")
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "-c", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "cluster" in line]
    assert line.startswith(f"{file}: cluster.server: ")
    assert line.endswith("'fastscreen[cluster]'`")


def test_sentinels_without_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path)
    lines = Path(config.source).read_text().splitlines()
    lines = [line for line in lines if not line.startswith("server")]
    Path(config.source).write_text("\n".join([*lines, 'sentinels = ["127.0.0.1:26379"]', 'master = "mail"\n']))
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ConfigError, match=r"cluster\.sentinels: .*hiredis"):
        preload(load(Path(config.source)))
