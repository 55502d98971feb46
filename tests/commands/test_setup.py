"""fastscreen setup: questions, answers and refusals; tests/peers/test_setup.py has the real Postfix."""

import json
import os
import pty
import pwd
import socket
import stat
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from fastscreen.cli import main, setup_apply, setup_plan, setup_service, setup_state, setup_undo, setup_unit
from fastscreen.cli.setup_plan import Answers, Plan
from fastscreen.cli.setup_questions import NoAnswer, Questions, yes_or_no
from fastscreen.cli.setup_service import Account, ServiceError
from fastscreen.cli.setup_state import FileChange, State
from fastscreen.cli.setup_unit import Unit
from fastscreen.config import Endpoint, parse

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


# ---- systemd; tests/debian has the real one


def _plan(text: str, user: str) -> Plan:
    config = parse(text, "test")
    return Plan(text, user, Answers(), config, list(config.listen.ports), False)


_CERTIFICATES = """
hostname = "mx.example.com"
[listen]
addresses = ["127.0.0.1:2525"]
[handoff]
to = "proxy:127.0.0.1:10025"
[tls]
level = "may"
certificates = ["/etc/tls/key%1.pem", "/etc/tls/chain.pem"]
"""


@pytest.fixture
def unit_of(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The properties of the unit."""
    found = {"User": "daemon", "Group": "daemon", "StateDirectory": "fastscreen", "LogsDirectory": "a b"}
    monkeypatch.setattr(setup_service, "systemd_units", lambda config: ["fastscreen.service"])

    def properties(unit: str, names: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(names, "") | found

    monkeypatch.setattr(setup_service, "unit_properties", properties)
    return found


@pytest.mark.parametrize(
    ("group", "rights", "expected"),
    [
        (
            0,
            (),
            [
                "LoadCredential=certificate-1.pem:/etc/tls/key%%1.pem",
                "LoadCredential=certificate-2.pem:/etc/tls/chain.pem",
            ],
        ),
        (
            9999,
            (),
            [
                "LoadCredential=certificate-1.pem:/etc/tls/key%%1.pem",
                "LoadCredential=certificate-2.pem:/etc/tls/chain.pem",
            ],
        ),
        (9999, (9999,), ["SupplementaryGroups=9999"]),
        (0, (None,), []),
    ],
    ids=["root", "closed-folder", "group", "everybody"],
)
def test_the_drop_in_of_the_unit(
    unit_of: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    group: int,
    rights: tuple[int | None, ...],
    expected: list[str],
) -> None:
    """Another user, and what this user needs to read the key: nothing, a group, or copies of all files."""

    class About:
        st_gid = group

    def can_read(account: Account, path: str, more: list[int]) -> bool:
        return path.endswith("chain.pem") or None in rights or any(each in rights for each in more)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup_unit, "_can_read", can_read)
    monkeypatch.setattr(Path, "stat", lambda path: About())
    plan = _plan(_CERTIFICATES, "nobody")
    unit = setup_unit.add_unit(plan, Path("/etc/fastscreen/fastscreen.toml"))
    assert unit is not None and unit.account is not None
    lines = [line for line in unit.drop_in.splitlines() if line[0] not in "#["]
    assert lines == ["User=nobody", f"Group={setup_unit._group_name(pwd.getpwnam('nobody').pw_gid)}", *expected]
    assert (unit.account.name, unit.account.groups[-1:] == [9999]) == ("nobody", "SupplementaryGroups=9999" in lines)
    assert unit.folders == ["/var/lib/fastscreen", "/var/log/a", "/var/log/b"]
    copies = [
        "/run/credentials/fastscreen.service/certificate-1.pem",
        "/run/credentials/fastscreen.service/certificate-2.pem",
    ]
    assert unit.credentials is (list(plan.config.tls.certificates) == copies) is (len(expected) == 2)
    assert parse(plan.text, "test").tls.certificates == plan.config.tls.certificates


def test_a_unit_that_needs_no_drop_in(unit_of: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    unit = setup_unit.add_unit(_plan(_CERTIFICATES, "daemon"), Path("/etc/fastscreen/fastscreen.toml"))
    assert unit is not None and unit.account is not None and not unit.drop_in
    unit_of["User"] = "nobody"
    with pytest.raises(ServiceError, match="another drop-in sets User=nobody; expected daemon"):
        setup_unit.verify_account(unit)
    unit_of["User"] = ""
    assert setup_unit.add_unit(_plan(_CERTIFICATES, "daemon"), Path("/x")) == Unit(["fastscreen.service"])


def test_only_the_configuration_names_the_drop_in(
    setup: Setup, unit_of: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--config-only", "--yes", *MTA, "--listen", "2525")
    assert "fastscreen.service needs" not in setup(*words)[1]
    assert setup("--undo")[0] == 0
    unit_of["SupplementaryGroups"] = "no-such-group"
    assert "the group no-such-group of the unit does not exist" in setup(*words)[1]
    assert setup.path.exists()
    assert setup("--undo")[0] == 0
    monkeypatch.setattr(setup_unit, "add_unit", lambda plan, path: Unit(["fastscreen.service"], drop_in="[Service]"))
    assert f"fastscreen.service needs {setup_unit.DROP_IN} to run this" in setup(*words)[1]
    assert not setup_unit.DROP_IN.exists()


def test_problems_of_folders_that_systemd_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while the daemon cannot write there: a damaged file in a usable folder is a problem."""
    checks = [
        {"what": "cache.path", "ok": False, "detail": f"{tmp_path}/made/cache: damaged"},
        {"what": "control.path", "ok": False, "detail": f"{tmp_path}/missing/control: no such folder"},
        {"what": "user", "ok": False, "detail": f"{tmp_path}/missing2/x"},
    ]
    printed = CompletedProcess([], 1, json.dumps({"checks": checks}).encode(), b"")
    monkeypatch.setattr(setup_service, "_as_account", lambda *_: printed)
    # Only root could do it as another user; tests/debian does.
    monkeypatch.setattr(setup_service, "can_access", lambda account, path, how: os.access(path, os.W_OK))
    (tmp_path / "made").mkdir()
    account = Account("root", os.getuid(), os.getgid(), [])
    folders = [str(tmp_path / "made"), str(tmp_path / "missing")]
    fatal, others = setup_service.checked(tmp_path / "x.toml", account, folders=folders)
    assert others == [f"cache.path: {tmp_path}/made/cache: damaged"]
    assert fatal == [f"user: {tmp_path}/missing2/x"]


def test_a_unit_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is what the daemon said itself, not what systemd says about it."""
    said = {
        "systemctl": 'case $1 in restart) echo "See journalctl -xe for details." >&2; exit 1;; esac',
        "journalctl": "case \"$*\" in *_SYSTEMD_UNIT=a.service) printf 'fastscreen: x.toml: \\033[1m';; esac",
    }
    for name, text in said.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ServiceError) as raised:
        setup_service.enable(["a.service"])
    assert str(raised.value) == (
        "systemctl restart a.service: See journalctl -xe for details.; fastscreen: x.toml: \\x1b[1m"
    )
    (tmp_path / "journalctl").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match=r"details\.$"):
        setup_service.enable(["a.service"])


def test_the_drop_in_is_recorded_before_it_is_written(
    tmp_path: Path, unit_of: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was done of it, it is undone, and a file of another author keeps the folder."""
    path = tmp_path / "fastscreen.service.d" / "setup.conf"
    state = State(FileChange(str(tmp_path / "fastscreen.toml"), None))
    reloads: list[bool] = []
    monkeypatch.setattr(setup_unit, "DROP_IN", path)
    monkeypatch.setattr(setup_service, "reload_units", lambda: reloads.append(path.exists()))
    unit = Unit(["fastscreen.service"], Account("daemon", pwd.getpwnam("daemon").pw_uid, 0, []), [], "[Service]\n")

    def put(change: FileChange, content: bytes | None, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileChange, "put", put)
        with pytest.raises(KeyboardInterrupt):
            setup_apply._adapt(unit, state, print)
    recorded = setup_state.load(tmp_path / "fastscreen.toml")
    assert recorded is not None and recorded.drop_in is not None and recorded.drop_in_folder_made
    setup_undo._remove_drop_in(recorded, recorded.drop_in, print)
    assert not path.parent.exists() and reloads == [False]

    setup_apply._adapt(unit, state, print)
    assert path.read_text() == "[Service]\n" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert reloads.pop() is True and state.drop_in is not None
    path.with_name("other.conf").write_text("")
    setup_undo._remove_drop_in(state, state.drop_in, print)
    assert [each.name for each in path.parent.iterdir()] == ["other.conf"] and reloads.pop() is False


def test_a_changed_drop_in_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "setup.conf"
    path.write_text("mine")
    state = State(FileChange(str(tmp_path / "x"), None), drop_in=FileChange(str(path), None, ["0"]))
    with pytest.raises(setup_undo.Refused, match="was changed after setup"):
        setup_undo._kept(state, False)
    assert setup_undo._kept(state, True) == [state.drop_in]


def test_the_rights_of_an_existing_configuration_come_back(tmp_path: Path) -> None:
    path = tmp_path / "fastscreen.toml"
    path.write_bytes(b"before")
    path.chmod(0o600)
    change = FileChange(str(path), b"before", [], (os.getuid(), os.getgid(), 0o600))
    change.put(b"after", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    change.put(b"before")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"220-mx ESMTP\r\n|220 mx ESMTP\r\n", ""),
        (b"220-mx ESMTP\r\n", "closed before the greeting"),
        (b"220-mx ESMTP\r\n|421 4.3.2 No system resources\r\n", "replied 421 4.3.2 No system resources; expected 220"),
    ],
)
def test_the_teaser_is_not_the_greeting(reply: bytes, problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                for piece in reply.split(b"|"):
                    client.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            address = Endpoint("127.0.0.1", server.getsockname()[1])
            if problem:
                with pytest.raises(ServiceError, match=problem):
                    setup_service.verify_handoff(address, 0)
            else:
                setup_service.verify_handoff(address, 0)
        finally:
            thread.join()
