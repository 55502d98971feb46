"""A restart in place: what is executed, and what is inherited."""

import errno
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from fastscreen.config import Config, default
from fastscreen.config.model import Endpoint, LogFile
from fastscreen.daemon import handover, restart, takeover
from fastscreen.daemon.handover import InheritedChild, InheritedReader, InheritedSocket, State
from fastscreen.daemon.resources import Resources
from fastscreen.process.conditions import Kind
from fastscreen.tls import certificates


def state(**fields: object) -> State:
    made = State(
        format=handover.FORMAT,
        dumpable=1,
        config=msgspec.msgpack.encode(default()),
        workers=2,
        key=7,
        groups=((Endpoint("127.0.0.1", 25), (10, 11)), (Endpoint("::1", 25), (12, 13))),
        activated=(),
        inboxes=((14, 15), (16, 17)),
        certificate_paths=("/key.pem",),
        certificate_files=(18,),
        certificate_stamps=((1, 2, 3, 4),),
        key_reader=None,
        control=InheritedSocket(19, "/run/control", ""),
        metrics=None,
        log=20,
        health=b"",
        bypass=0.0,
        oom_inherited=0,
        oom_own=-500,
        oom=-1,
        children=(InheritedChild("worker", "worker 1", 0, 4711, 21, is_stopping=False),),
    )
    return msgspec.structs.replace(made, **fields)


def test_every_descriptor_is_passed_on() -> None:
    assert sorted(state().descriptors) == list(range(10, 22))
    assert 22 in state(metrics=InheritedSocket(22, "", "")).descriptors
    assert 23 in state(key_reader=InheritedReader(4712, 23, ("/key.pem",))).descriptors
    assert -1 not in state(log=-1, oom=-1).descriptors


def test_state_survives_the_way() -> None:
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(state()), type=State)
    assert there == state()
    assert msgspec.msgpack.decode(there.config, type=type(default())) == default()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    made = tmp_path / "fastscreen"
    made.write_text("#!/usr/bin/python3\n")
    made.chmod(0o755)
    return made


def test_a_script_is_executed_itself(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    """Its first line may name another interpreter since the upgrade."""
    monkeypatch.setattr(sys, "argv", [str(script), "run", "-c", "x"])
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3.11", str(script), "run", "-c", "x"])
    assert handover.command() == [str(script), "run", "-c", "x"]
    script.chmod(0o644)
    if os.geteuid() != 0 or not os.access(script, os.X_OK):
        assert handover.command() == [sys.executable, str(script), "run", "-c", "x"]


@pytest.mark.parametrize("words", [["-m", "fastscreen", "run"], ["-I", "-X", "dev", "-m", "fastscreen", "run"]])
def test_a_module_is_run_as_before(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/fastscreen/__main__.py", "run"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", *words])
    assert handover.command() == [sys.executable, *words]


@pytest.mark.parametrize("value", ["", "x", "-1", "99999999", "1e3"])
def test_a_variable_that_is_not_ours(monkeypatch: pytest.MonkeyPatch, capsys: object, value: str) -> None:
    """Whatever somebody sets: a usual start."""
    monkeypatch.setenv(handover.STATE, value)
    monkeypatch.setenv(handover.TRIAL, value)
    assert handover.receive() == (None, -1)
    assert handover.STATE not in os.environ
    assert handover.TRIAL not in os.environ


def test_a_file_that_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xc1 odd")
    monkeypatch.setenv(handover.STATE, str(os.open(tmp_path / "file", os.O_RDONLY)))
    assert handover.receive() == (None, -1)


def test_an_execve_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "command", lambda: ["/nonexistent/fastscreen"])
    reading, writing = os.pipe2(os.O_CLOEXEC)
    before = set(Path("/proc/self/fd").iterdir())
    left = {"groups": (), "inboxes": (), "certificate_files": (), "control": None, "children": ()}
    with pytest.raises(FileNotFoundError):
        handover.execute(state(log=reading, **left), writing)
    assert not os.get_inheritable(reading)
    assert not os.get_inheritable(writing)
    # Meanwhile those of earlier tests may be closed, by pycares's thread, too.
    assert set(Path("/proc/self/fd").iterdir()) <= before
    os.close(reading)
    os.close(writing)


def with_log(path: Path) -> Config:
    return msgspec.structs.replace(default(), log=msgspec.structs.replace(default().log, to=LogFile(str(path))))


def test_a_log_that_was_never_open_and_cannot_be_opened(tmp_path: Path) -> None:
    """The trial refuses the restart; after it, lines are kept and opening is retried."""
    resources = Resources(with_log(tmp_path / "missing" / "log"))
    before = state(log=-1, config=msgspec.msgpack.encode(resources.config))
    with pytest.raises(OSError, match=r"log\.to"):
        takeover._take_log(resources, before, strict=True)
    (warning,) = takeover._take_log(resources, before, strict=False)
    assert "No such file or directory" in warning
    resources.target.log.info("kept")
    resources.target.tick()
    (tmp_path / "missing").mkdir()
    resources.target.tick()
    assert "kept" in (tmp_path / "missing" / "log").read_text()
    resources.target.close()


class Files:
    """A certificate that this user may not read, as far as `read_files` can tell."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "key.pem"
        self.path.write_text("key")
        self.settings = msgspec.structs.replace(
            default(), tls=msgspec.structs.replace(default().tls, certificates=(str(self.path),))
        )

        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(self.path))

        self.before = certificates.read([str(self.path)])
        monkeypatch.setattr(takeover, "read_files", refused)

    def state(self, reader: InheritedReader | None) -> State:
        return state(
            certificate_paths=self.before.paths,
            certificate_files=self.before.descriptors,
            certificate_stamps=self.before.stamps,
            key_reader=reader,
        )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


def reader() -> InheritedReader:
    return InheritedReader(4712, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0].detach(), ("/key.pem",))


def test_old_certificates_after_the_key_readers_end_are_no_secret(files: Files) -> None:
    resources = Resources(files.settings)
    (warning,) = takeover._take_certificates(resources, files.state(None), strict=False)
    assert warning.endswith("stay in use; to renew them, stop and start fastscreen")
    assert resources.early_conditions == [(Kind.CERTIFICATES, warning)]
    assert resources.certificates is not None
    assert resources.certificates.contents() == [(str(files.path), b"key")]
    resources.certificates.close()


@pytest.mark.parametrize("renewed", [False, True])
def test_old_certificates_are_told_when_the_files_are_newer(files: Files, renewed: bool) -> None:
    if renewed:
        files.path.write_text("another key")
    resources = Resources(files.settings)
    warnings = takeover._take_certificates(resources, files.state(reader()), strict=False)
    assert (len(warnings), len(resources.early_conditions)) == ((1, 1) if renewed else (0, 0))
    assert resources.certificates is not None
    assert resources.key_reader is not None
    resources.certificates.close()
    resources.key_reader.close()


def test_what_needs_a_stop_and_a_start_keeps_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the settings in force would not be what `fastscreen check` compares a file with. All else is taken over."""
    for name in ("_take_log", "_take_ports", "_take_certificates"):
        monkeypatch.setattr(takeover, name, lambda *_: [])
    before = default()
    wanted = msgspec.structs.replace(
        before,
        control=msgspec.structs.replace(before.control, group="root"),
        listen=msgspec.structs.replace(before.listen, workers=3),
        cache=msgspec.structs.replace(before.cache, path="/elsewhere"),
    )
    resources = Resources(wanted)
    warnings = takeover.adopt(resources, state(workers=1), strict=True)
    assert (resources.config.control.group, resources.config.listen.workers) == ("", 1)
    assert resources.config.cache.path == "/elsewhere"
    assert [warning.partition(" changed: ")[0] for warning in warnings] == ["control.group", "listen.workers"]
    other = Resources(wanted)
    takeover.adopt(other, state(workers=1, config=msgspec.msgpack.encode({"of": "another version"})), strict=True)
    assert other.config == wanted


def test_an_address_of_the_socket_unit_cannot_be_removed_by_a_restart(tmp_path: Path) -> None:
    """The previous configuration stays in use, and the reason is reported."""
    file = tmp_path / "fastscreen.toml"
    file.write_text('[listen]\naddresses = ["127.0.0.1:2526"]\n')
    before = state(activated=(Endpoint("127.0.0.1", 2525),))
    settings, problem = takeover.settings_of(before, file)
    assert settings == default()
    assert "127.0.0.1:2525 missing, which systemd's socket unit listens on" in problem
    file.write_text('[listen]\naddresses = ["127.0.0.1:2526", "127.0.0.1:2525"]\n')
    assert takeover.settings_of(before, file)[1] == ""


def test_processes_whose_channel_is_closed_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were ordered to stop: the program after the next one still ends them at their time."""
    resources = Resources(default())
    deadline = time.monotonic() + 7.0
    for number, (kind, channel) in enumerate((("tls", -1), ("control", -1), ("worker", socket.socket().detach()))):
        inherited = InheritedChild(
            kind, kind, 0, 4711 + number, channel, is_stopping=kind == "worker", deadline=deadline
        )
        resources.former.append(restart.former_child(inherited))
    passed: list[InheritedChild] = []
    monkeypatch.setattr(resources.refresher, "kill", lambda: None)
    resources.target = SimpleNamespace(log=SimpleNamespace(flush=lambda: None))  # type: ignore[assignment]
    monkeypatch.setattr(restart, "_state", lambda _, children: passed.extend(children))
    monkeypatch.setattr(handover, "execute", lambda _: 0)
    restart.become_new_program(resources)
    assert [(one.kind, one.pid, one.deadline, one.channel < 0) for one in passed] == [
        ("tls", 4711, deadline, True),
        ("control", 4712, deadline, True),
        ("worker", 4713, deadline, False),
    ]
    assert -1 not in state(children=tuple(passed)).descriptors
    assert [child.deadline for child in map(restart.former_child, passed[:2])] == [deadline, deadline]
    for each in resources.former:
        each.close_channel()
