"""fastscreen setup: questions, answers and refusals; tests/peers/test_setup.py has the real Postfix."""

import os
import pty
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastscreen.cli import main, setup_plan, setup_service, setup_state
from fastscreen.cli.setup_questions import NoAnswer, Questions, yes_or_no
from fastscreen.config import parse

MTA = ("--mta", "127.0.0.1:10025")


class Setup:
    """The command with its own configuration, on a machine without Postfix."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "etc" / "fastscreen.toml"
        self._folder, self._capsys = folder, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = main(["setup", "-c", str(self.path), "--config-dir", str(self._folder / "postfix"), *words])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Setup]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup_plan, "verify", lambda text: parse(text, "test") and _Sound())
    monkeypatch.setattr(setup_plan, "_user", lambda: "")
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield Setup(tmp_path, capsys)


class _Sound:
    problems: tuple[()] = ()


def test_no_question_hangs_without_a_terminal(setup: Setup) -> None:
    code, _, error = setup()
    assert code == 2
    assert "standard input is not a terminal" in error and "--yes" in error
    assert not setup.path.parent.exists()


def test_an_answer_without_a_default_is_named(setup: Setup) -> None:
    code, _, error = setup("--yes")
    assert (code, error) == (
        2,
        "fastscreen: Which mail server is behind fastscreen?: no default was found; expected --mta\n",
    )


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--mta", "postfix", "Postfix's files were not found"),
        ("--mta", "mail", "expected postfix or HOST:PORT"),
        ("--listen", "0", ""),
        ("--listen", "70000", "--listen 70000"),
        ("--networks", "192.0.2.0/33", "--networks 192.0.2.0/33"),
        ("--lists", "bl.example*x", "--lists bl.example*x"),
        ("--certificate", "/nowhere", "/nowhere: not a file"),
    ],
)
def test_wrong_answers(setup: Setup, option: str, value: str, problem: str) -> None:
    words = dict([MTA, ("--listen", "2525"), (option, value)])
    code, _, error = setup("--show", *(word for pair in words.items() for word in pair))
    assert (code == 2 and problem in error) if problem else code == 0


def test_a_port_in_use_is_no_answer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_service, "is_free", lambda address: address.port != 2525)
    monkeypatch.setattr(setup_service, "users_of", lambda addresses: {"exim4"})
    code, _, error = setup("--show", *MTA, "--listen", "2525")
    assert code == 2
    assert error == "fastscreen: --listen 2525: 0.0.0.0:2525 is in use by exim4; port 25 is free\n"


def test_show_writes_nothing(setup: Setup) -> None:
    code, printed, _ = setup("--show", *MTA, "--listen", "2525")
    assert code == 0
    assert "must read the PROXY protocol" in printed
    assert not setup.path.parent.exists()


def test_only_the_configuration_and_back(setup: Setup) -> None:
    words = ("--listen", "127.0.0.1:2525", "--networks", "192.0.2.0/24", "--lists", "bl.example*2,list.example*-1")
    assert setup("--config-only", "--yes", *MTA, *words)[0] == 0
    made = tomllib.loads(setup.path.read_text())
    assert made["mode"] == "shadow"
    assert made["listen"] == {"addresses": ["127.0.0.1:2525"]}
    assert made["handoff"] == {"to": "proxy:127.0.0.1:10025"}
    assert made["access"]["mynetworks"] == ["192.0.2.0/24"]
    assert made["dnsbl"] == {"sites": ["bl.example*2", "list.example*-1"], "action": "enforce"}
    assert (setup.path.stat().st_mode & 0o777, setup_state.path_of(setup.path).stat().st_mode & 0o777) == (0o640, 0o600)
    assert setup("--undo")[0] == 0
    assert not setup.path.parent.exists()


def test_an_existing_configuration_is_refused_or_restored(setup: Setup) -> None:
    setup.path.parent.mkdir()
    setup.path.write_text('hostname = "mine"\n')
    code, _, error = setup("--config-only", "--yes", *MTA, "--listen", "2525")
    assert code == 1 and "exists already; use --force" in error
    assert setup("--config-only", "--yes", "--force", *MTA, "--listen", "2525")[0] == 0
    assert setup("--undo")[0] == 0
    assert setup.path.read_text() == 'hostname = "mine"\n'
    assert [each.name for each in setup.path.parent.iterdir()] == [setup.path.name]


def test_the_configuration_of_a_new_package_is_replaced(setup: Setup) -> None:
    setup.path.parent.mkdir()
    setup.path.write_text('mode = "shadow"\n[listen]\naddresses = []\n')
    assert setup("--config-only", "--yes", *MTA, "--listen", "2525")[0] == 0
    assert setup_plan.is_unused(b"# only comments\n")
    assert not setup_plan.is_unused(b'[listen]\naddresses = ["0.0.0.0:25"]\n')


def test_a_damaged_state_is_refused(setup: Setup) -> None:
    assert setup("--config-only", "--yes", *MTA, "--listen", "2525")[0] == 0
    state = setup_state.path_of(setup.path)
    state.write_text(state.read_text()[:-20])
    code, _, error = setup("--undo")
    assert code == 1 and "setup.json: damaged" in error
    assert setup.path.exists()


def test_undo_needs_root(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert setup("--undo")[0] == 1


def test_without_root_it_only_shows(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, printed, _ = setup("--yes", *MTA, "--listen", "2525")
    assert code == 0 and printed.startswith("This is what setup would do as root")
    assert not setup.path.parent.exists()


def test_questions_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong answer is asked again; an empty one is the default; the end of the input ends it."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(master, b"maybe\nyes\n\n\x04")
        questions = Questions(ask=True)
        assert questions.answer("Do it?", "--yes", None, "no", yes_or_no) is True
        assert "1/6  Do it?" in (printed := capsys.readouterr().out) and "expected yes or no" in printed
        assert questions.answer("Again?", "--yes", None, "no", yes_or_no) is False
        with pytest.raises(NoAnswer, match="the input ended at this question; expected an answer, or --yes"):
            questions.answer("Last?", "--yes", None, "no", yes_or_no)
    os.close(master)
