"""Tables that change on disk are read again by a running daemon; after a broken edit the old one stays in use."""

import os
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.control import Map
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import TEASER, Screener
from robust.test_control import connected, eventually


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


def table_of(folder: Path, text: str) -> Path:
    """As an editor writes it: another file of the same name."""
    new = folder / "new"
    new.write_text(text)
    new.chmod(0o644)
    return new.replace(folder / "access")


def is_known(screener: Screener, address: str) -> bool:
    with screener.connect(address) as client:
        heard = client.read()
    assert heard.startswith((FROM_MTA, TEASER)), heard
    return heard.startswith(FROM_MTA)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_edit_a_broken_edit_and_its_mending(
    start: Start, folder: Path, path: Path, mta: FakeMta, workers: int
) -> None:
    table_of(folder, "127.1.0.1 permit\n")
    nets = folder / "nets"
    nets.write_text("127.2.0.1\n")
    access = {"list": ["permit_mynetworks", f"cidr:{folder}/access"], "mynetworks": [str(nets)]}
    screener = start(
        {"control": {"path": str(path)}, "access": access, "listen": {"addresses": ["127.0.0.1:0"], "workers": workers}}
    )
    with connected(path) as control:

        def explained(address: str) -> str:
            verdict: str = control.ok("explain", address=address)["verdict"]
            return verdict

        assert explained("127.1.0.2") != "allowlisted"
        table_of(folder, "127.1.0.2 permit\n")
        screener.line(f"tables read again: {folder}/access$")
        assert is_known(screener, "127.1.0.2")
        assert not is_known(screener, "127.1.0.1")
        eventually(control, "explain", lambda it: it["verdict"] == "allowlisted", address="127.1.0.2")

        # A file that mynetworks names, written in place.
        nets.write_text("127.2.0.2\n")
        screener.line(f"tables read again: {folder}/nets$")
        assert is_known(screener, "127.2.0.2")
        # The control server reads the files itself, and later than the workers.
        eventually(control, "explain", lambda it: it["verdict"] == "allowlisted", address="127.2.0.2")

        (folder / "access").unlink()
        warning = screener.line("warning: tables not read again: ")
        assert f"cidr:{folder}/access" in warning
        assert warning.endswith("; the previous ones stay in use")
        status = eventually(control, "status", lambda it: it["conditions"])
        (one,) = status["conditions"]
        assert one["kind"] == "tables"
        assert f"cidr:{folder}/access" in one["text"]
        assert is_known(screener, "127.1.0.2")
        assert explained("127.1.0.2") == "allowlisted"

        table_of(folder, "127.1.0.3 permit\n")
        screener.line(f"tables read again: {folder}/access$", 2)
        eventually(control, "status", lambda it: not it["conditions"])
        assert is_known(screener, "127.1.0.3")
        eventually(control, "explain", lambda it: it["verdict"] == "allowlisted", address="127.1.0.3")
    assert len(screener.lines("tables not read again")) == 1


def test_a_fifo_in_its_place_is_never_opened(start: Start, folder: Path, path: Path, mta: FakeMta) -> None:
    table_of(folder, "127.1.0.1 permit\n")
    screener = start({"control": {"path": str(path)}, "access": {"list": [f"cidr:{folder}/access"]}})
    (folder / "access").unlink()
    os.mkfifo(folder / "access", 0o644)
    warning = screener.line("warning: tables not read again: ")
    assert f"{folder}/access: not a regular file; the previous ones stay in use" in warning
    assert is_known(screener, "127.1.0.1")
    table_of(folder, "127.1.0.2 permit\n")
    screener.line(f"tables read again: {folder}/access$")
    assert is_known(screener, "127.1.0.2")


def test_a_good_reload_ends_it(start: Start, folder: Path, path: Path, mta: FakeMta) -> None:
    table_of(folder, "127.1.0.1 permit\n")
    settings: Map = {"control": {"path": str(path)}}
    screener = start(settings, {"access": {"list": [f"cidr:{folder}/access"]}})
    (folder / "access").unlink()
    screener.line("warning: tables not read again: ")
    with connected(path) as control:
        eventually(control, "status", lambda it: [one["kind"] for one in it["conditions"]] == ["tables"])
        screener.reload(settings)
        eventually(control, "status", lambda it: not it["conditions"])
