"""`fastscreen setup` in front of a real Postfix, and `setup --undo`, which restores every byte."""

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers import needs, processes
from peers.namespace import Namespace
from peers.postfix import DAEMONS, settled
from peers.screener import COMMAND

# In a separate mount namespace, because these paths are the host's.
_PLACES = "for folder in /run /var/lib /var/log; do mount -t tmpfs none $folder || exit 1; done"
_MASTER = """\
# the services of a small server
{listener}
postlog   unix-dgram n - n - 1 postlogd
dnsblog   unix  -  -  n  -  0  dnsblog
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  300 1 qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
anvil     unix  -  -  n  -  1  anvil
proxymap  unix  -  -  n  -  -  proxymap
{handoff}# the last line has no line end"""
_POSTSCREEN = "smtp      inet  n       -       n       -       1       postscreen"
_SMTPD = "smtp\tinet  n       -       n       -       -       smtpd\n  -o { smtpd_banner = $myhostname ESMTP Postfix }"
_PASS = "smtpd     pass  -       -       n       -       -       smtpd\n"
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = mx.example.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.1.0.1
inet_protocols = ipv4
alias_maps =
mydestination =
smtpd_peername_lookup = no
postscreen_cache_map = lmdb:{folder}/data/cache
"""
_SAYS = """
import socket, sys
try:
    with socket.create_connection(("127.1.0.1", 25), 10) as client:
        client.settimeout(10)
        print(client.recv(200).decode("latin-1"))
        client.sendall(b"QUIT\\r\\n")
except OSError as error:
    print(error)
"""
# `setup`, killed at its first call of a function
_KILLED_IN = """
import os, sys
from fastscreen.cli import main, setup_service
def killed(*arguments, **more):
    os._exit(9)
setattr({where}, {name!r}, killed)
sys.exit(main(sys.argv[1:]))
"""

_DOES_NOT_START = """
import sys
from fastscreen.cli import main, setup_service
def first(addresses, *arguments):
    setup_service.fastscreen_command = lambda: ["/bin/sh", "-c", "echo no space left >&2; exit 1"]
    return True
setup_service.wait_until_free = first
sys.exit(main(sys.argv[1:]))
"""


class Instance:
    """A Postfix of its own, and the command."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self.folder = folder
        self.etc = folder / "etc"
        self.master = self.etc / "master.cf"
        self.configuration = folder / "fastscreen" / "fastscreen.toml"
        self._master: subprocess.Popen[bytes] | None = None

    def make(self, listener: str, handoff: str) -> None:
        self.etc.mkdir()
        owner = pwd.getpwnam("postfix")
        for name in ("queue", "data", *(f"queue/{each}" for each in ("pid", "private", "public", "maildrop"))):
            (self.folder / name).mkdir(mode=0o755)
            os.chown(self.folder / name, 0 if name in ("queue", "queue/pid") else owner.pw_uid, 0)
        (self.etc / "main.cf").write_text(_MAIN.format(folder=self.folder))
        settled(self.etc / "main.cf")
        self.master.write_bytes(_MASTER.format(listener=listener, handoff=handoff).encode() + b" \xff")
        self.master.chmod(0o604)
        os.chown(self.master, 0, owner.pw_gid)
        self._master = processes.start(
            [str(DAEMONS / "master"), "-d", "-c", str(self.etc)],
            self.folder / "master.output",
            inside=self._namespace.inside,
        )
        processes.wait_until(lambda: self.greets().startswith("220"), "Postfix", 60)

    def setup(self, *words: str, code: int = 0, program: str = "") -> str:
        """Run the command, and return what it printed."""
        command = [str(COMMAND.parent / "python"), "-c", program] if program else [str(COMMAND)]
        done = subprocess.run(
            [*self._namespace.inside, *command, "setup", "--config-dir", self.etc, "-c", self.configuration, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def greets(self) -> str:
        """What a client reads first."""
        command = [*self._namespace.inside, "python3", "-c", _SAYS]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def status(self) -> str:
        """`fastscreen status`; empty if it does not run."""
        command = [*self._namespace.inside, str(COMMAND), "status", "-c", str(self.configuration)]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def files(self) -> dict[str, tuple[int, int, int, str]]:
        """Owner, group, mode and content of every file of the configuration."""
        found = {}
        for path in sorted(self.etc.iterdir()):
            about = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.name] = (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode), digest)
        return found

    def close(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            command = [*self._namespace.inside, str(COMMAND), "stop", "-c", str(self.configuration)]
            subprocess.run(command, capture_output=True, timeout=60, check=False)
        if self._master is not None:
            processes.stop(self._master)


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A parameter: the service on port 25, and the one that receives clients."""
    needs.program("postfix")
    needs.program("postfix-lmdb")
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    namespace = Namespace(resolv_conf)
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-setup-"))  # pytest's own folder is closed to Postfix's user
    folder.chmod(0o755)
    made = Instance(namespace, folder)
    try:
        subprocess.run([*namespace.inside, "sh", "-c", _PLACES], check=True)
        made.make(*getattr(request, "param", (_POSTSCREEN, _PASS)))
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
        namespace.close()


def test_shows_and_changes_nothing(instance: Instance) -> None:
    before = instance.files()
    said = instance.setup("--show")
    assert f"-{_POSTSCREEN}" in said and f"+#{_POSTSCREEN}" in said
    assert 'mode = "shadow"' in said
    assert instance.files() == before and not instance.configuration.parent.exists()


def _there_and_back(instance: Instance) -> None:
    before = instance.files()
    instance.setup("--yes")
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"  # handed off by fastscreen: a known network
    assert "SHADOW MODE" in instance.status()
    assert instance.files() != before
    assert stat.S_IMODE(instance.configuration.stat().st_mode) == 0o640
    assert "setup has been run already" in instance.setup("--yes", code=1)
    instance.setup("--undo")
    assert instance.files() == before
    assert not instance.configuration.parent.exists() and not instance.status()
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"
    assert "nothing to undo" in instance.setup("--undo", code=1)


def test_undo_restores_every_byte(instance: Instance) -> None:
    _there_and_back(instance)


@pytest.mark.parametrize("instance", [(_SMTPD, "")], indirect=True)
def test_without_postscreen_and_without_the_service_for_clients(instance: Instance) -> None:
    """smtpd itself has the port; the service that receives clients is added first, and tried."""
    said = instance.setup("--show")
    assert "+smtpd     pass" in said and "+  -o { smtpd_banner = $myhostname ESMTP Postfix }" in said
    _there_and_back(instance)


def test_trial_on_another_port(instance: Instance) -> None:
    """Postfix keeps its port, and its files, because it has the service that receives clients already."""
    before = instance.files()
    assert "Postfix needs no change" in instance.setup("--yes", "--listen", "127.1.0.1:2525")
    assert instance.files() == before and instance.status()
    instance.setup("--undo")
    assert instance.files() == before and not instance.status()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("setup_service", "checked"),
        ("setup_service.PostfixCommand", "reload"),
        ("setup_service", "wait_until_free"),
        ("setup_service", "Background"),
        ("setup_service", "wait_for_greeting"),
    ],
)
def test_undo_after_an_interrupted_setup(instance: Instance, where: str, name: str) -> None:
    """The machine fails at that step; fastscreen may run or not, and the port may be open or not."""
    before = instance.files()
    program = _KILLED_IN.format(where=where, name=name)
    if name == "Background":
        program = program.replace("setattr(", "from fastscreen.cli import setup_apply as setup_service\nsetattr(")
    instance.setup("--yes", program=program, code=9)
    instance.setup("--undo")
    assert instance.files() == before
    assert not instance.configuration.parent.exists() and not instance.status()
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"


def test_postfix_has_its_port_again_if_fastscreen_does_not_start(instance: Instance) -> None:
    before = instance.files()
    said = instance.setup("--yes", program=_DOES_NOT_START, code=1)
    assert "reverting" in said and "fastscreen run: no space left" in said
    assert instance.files() == before
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"
    instance.setup("--undo")
    assert not instance.configuration.parent.exists()


@pytest.mark.parametrize("instance", [(_SMTPD, _PASS.replace(" smtpd", " discard"))], indirect=True)
def test_postfix_keeps_its_port_if_its_service_does_not_answer(instance: Instance) -> None:
    before = instance.files()
    said = instance.setup("--yes", code=1)
    assert "check: handoff.to: " in said and "Postfix releases its port" not in said
    assert instance.files() == before
    assert instance.greets().startswith("220")


def test_refuses_to_lose_a_change(instance: Instance) -> None:
    instance.setup("--yes")
    before = instance.master.read_bytes()
    instance.master.write_bytes(before + b"\nmine unix - - n - - error\n")
    said = instance.setup("--undo", code=1)
    assert "was changed after setup" in said and f"+{_POSTSCREEN}" in said and "-mine unix" in said
    assert instance.master.read_bytes().endswith(b"error\n") and instance.status()
    assert "no service listens on port 25" in instance.setup("--undo", "--keep-changed", code=1)
    assert instance.status()
    restored = instance.master.read_bytes().replace(f"#{_POSTSCREEN}".encode(), _POSTSCREEN.encode())
    instance.master.write_bytes(restored)
    instance.setup("--undo", "--keep-changed")
    assert instance.master.read_bytes() == restored and not instance.status()
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"


def test_keeps_a_configuration_that_was_changed(instance: Instance) -> None:
    instance.setup("--yes")
    text = instance.configuration.read_text()
    instance.configuration.write_text(text.replace('mode = "shadow"', 'mode = "screen"'))
    assert "to keep it: fastscreen setup --undo --keep-changed" in instance.setup("--undo", code=1)
    instance.setup("--undo", "--keep-changed")
    assert 'mode = "screen"' in instance.configuration.read_text()
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"


def test_a_stranger_on_the_port_does_not_end_postfix(instance: Instance) -> None:
    """Postfix would end at a reload that finds its port in use."""
    instance.setup("--yes")
    command = [*instance._namespace.inside, str(COMMAND), "stop", "-c", str(instance.configuration)]
    subprocess.run(command, check=True, capture_output=True)
    before = instance.master.read_bytes()
    with instance._namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.1.0.1", 25))
        stranger.listen()
        assert "127.1.0.1:25: in use" in instance.setup("--undo", code=1)
        assert instance.master.read_bytes() == before
    instance.setup("--undo")
    assert instance.greets() == "220 mx.example.test ESMTP Postfix"
