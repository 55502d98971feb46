"""fastscreen check on [allowlist] and [denylist]."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from peers import needs

from fastscreen.cli import main
from fastscreen.cli.check_allowlist import checked_allowlists
from fastscreen.config import load


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never switch the user of this process, because that cannot be undone."""
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")


def config(folder: Path, *, named: bool = True, interval: str = "1d") -> Path:
    file = folder / "fastscreen.toml"
    path = folder / "allowlist.cidr"
    named_as = f'"cidr:{path}"' if named else ""
    file.write_text(
        f'hostname = "mx.test"\n[cache]\npath = ""\n[control]\npath = ""\n[handoff]\nto = "sink:"\n[access]\n'
        f'list = [{named_as}]\n[allowlist]\nproviders = ["google"]\npath = "{path}"\ninterval = "{interval}"\n'
    )
    return file


def test_a_table_that_the_daemon_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The systemd unit runs the check before start, so what the daemon can do without must not be an error."""
    file = config(tmp_path)
    assert main(["check", "-c", str(file)]) == 0
    path = tmp_path / "allowlist.cidr"
    assert capsys.readouterr().out == (
        f"{file}: allowlist.path: {path}: does not exist yet; fastscreen creates it at start\n"
    )
    assert not path.exists()


def test_a_table_that_nobody_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, interval="0")
    assert main(["check", "-c", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"fastscreen: {file}: allowlist.path: {tmp_path}/allowlist.cidr is missing; "
        f"create it with `fastscreen allowlist refresh -c {file}`\n"
    )


def test_what_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path)
    (tmp_path / "allowlist.cidr").write_text("8.8.8.0/24\tpermit\n")
    assert main(["check", "-v", "-c", str(file)]) == 0
    assert f"ok: allowlist.path: {tmp_path}/allowlist.cidr\n" in capsys.readouterr().out


def test_a_table_that_nobody_reads_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, named=False)
    path = tmp_path / "allowlist.cidr"
    assert main(["check", "-c", str(file)]) == 0
    assert (
        capsys.readouterr().out
        == f'{file}: allowlist.path: {path}: not used; access.list does not contain "cidr:{path}"\n'
    )


@pytest.mark.parametrize("order", [("deny", "allow"), ("allow", "deny"), ("deny",)])
def test_a_denylist_above_the_allowlist_is_told(tmp_path: Path, order: tuple[str, ...]) -> None:
    file = tmp_path / "fastscreen.toml"
    named = ", ".join(f'"cidr:{tmp_path}/{each}"' for each in order)
    file.write_text(
        f'[access]\nlist = [{named}]\n[allowlist]\nproviders = ["google"]\npath = "{tmp_path}/allow"\n'
        f'[denylist]\ndomains = ["a.example"]\npath = "{tmp_path}/deny"\n'
    )
    *_, (key, well, detail, told) = checked_allowlists(load(file), False)
    assert (key, well, told) == ("denylist.path", True, True)
    assert ("before the allowlist" in detail) == (order == ("deny", "allow"))


def test_a_folder_without_rights() -> None:
    needs.root("a folder that another user may not write to")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-check-"))  # pytest's own are closed to others
    folder.chmod(0o755)
    settings, by_hand = load(config(folder)), load(config(folder, interval="0"))
    to_be_made = msgspec.structs.replace(
        settings, allowlist=msgspec.structs.replace(settings.allowlist, path=f"{folder}/made/later/allowlist.cidr")
    )
    os.seteuid(65534)
    try:
        for root in (False, True):
            ((key, well, detail, _),) = checked_allowlists(settings, root)
            assert (key, well) == ("allowlist.path", False)
            assert detail.endswith(f"cannot create files in {folder}, or the folder does not exist")
        ((_, also_well, _, _),) = checked_allowlists(by_hand, False)
        ((_, made_by_root, _, _),) = checked_allowlists(to_be_made, True)
        ((_, made_by_user, _, _),) = checked_allowlists(to_be_made, False)
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)
    assert (also_well, made_by_root, made_by_user) == (True, True, False)
