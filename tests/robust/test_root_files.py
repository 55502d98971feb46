"""Root opens, makes and gives away files where an unprivileged user may plant links, and is led nowhere by them."""

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import certificate, needs

from robust.conftest import Start
from robust.harness import COMMAND, TIMEOUT, USER, Screener, wait_until
from robust.tlsclient import certificates

SECRET = "root:secret\n"


@pytest.fixture
def roots() -> Iterator[Path]:
    """A folder of root's that everybody may look into, with a file in it that nobody but root may read."""
    needs.root("files of root's")
    made = Path(tempfile.mkdtemp(prefix="fastscreen-roots-"))
    made.chmod(0o755)
    secret = made / "shadow"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    yield made
    shutil.rmtree(made)


def state(folder: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """What is in a folder, and whose."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        one = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(one.st_mode) else b""
        found[str(path)] = (one.st_mode, one.st_uid, one.st_gid, one.st_nlink, content)
    return found


def run(folder: Path, settings: dict[str, object], log: Path | None = None) -> tuple[int, str]:
    """Start it, end it as soon as it has started. Return the exit code and what it said.

    log: where it says that it has; None: as soon as root has done what root does.
    """
    screener = Screener(folder, settings)
    process = subprocess.Popen(
        [str(COMMAND), "run", "-c", str(screener.config)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    proc = Path(f"/proc/{process.pid}")

    def settled() -> bool:
        """What is done as root is over as soon as there are workers."""
        if process.poll() is not None:
            return True
        if log is not None:
            return log.exists() and b"daemon started" in log.read_bytes()
        root = not settings.get("user", USER) or "\nUid:\t0\t" not in (proc / "status").read_text()
        return root and bool((proc / f"task/{process.pid}/children").read_text().split())

    wait_until(settled, "fastscreen to start or to end")
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(TIMEOUT), said


def whose(path: Path) -> str:
    return pwd.getpwuid(path.stat().st_uid).pw_name


@pytest.mark.parametrize("planted", ["file", "folder", "dangling", "hard link"])
def test_log_that_is_a_planted_link(folder: Path, roots: Path, planted: str) -> None:
    """The user of the log's folder gets neither the file nor a new one."""
    log = folder / "screener.log"
    if planted == "file":
        log.symlink_to(roots / "shadow")
    elif planted == "folder":
        (folder / "logs").symlink_to(roots)
        log = folder / "logs/shadow"
    elif planted == "dangling":
        log.symlink_to(roots / "new")
    else:
        log.hardlink_to(roots / "shadow")
    before = state(roots)
    code, said = run(folder, {"log": {"to": f"file:{log}"}})
    assert state(roots) == before
    assert (code, said) == (1, f"fastscreen: log.to: {log}: {said.rpartition(': ')[2]}")
    check = [str(COMMAND), "check", "-c", str(folder / "screener.toml")]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert ": log.to: " in checked.stdout
    assert state(roots) == before


def test_log_that_is_a_planted_link_where_root_stays_root(folder: Path, roots: Path) -> None:
    """Without a configured user, root does not append to its own files through a folder of another user."""
    log = folder / "screener.log"
    log.symlink_to(roots / "shadow")
    before = state(roots)
    code, said = run(folder, {"user": "", "log": {"to": f"file:{log}"}, "handoff": {"to": "proxy:127.0.0.1:9"}})
    assert state(roots) == before
    assert code == 1
    assert said == f"fastscreen: log.to: {log}: a symbolic link in a folder that others may write to\n"


def test_log_of_the_user_that_is_there_already(start: Start, folder: Path) -> None:
    """In the user's own folder the user's own link is as good as a file; a file that root has left is given away."""
    needs.root("gives files away")
    target = folder / "target.log"
    target.touch()
    shutil.chown(target, USER)
    (folder / "screener.log").symlink_to(target)
    start().stop()
    assert b"daemon started" in target.read_bytes()
    assert whose(target) == USER
    (folder / "screener.log").unlink()
    (folder / "screener.log").touch()
    start()
    assert whose(folder / "screener.log") == USER


@pytest.mark.parametrize("group", ["root", "daemon"])
def test_log_in_roots_folder(folder: Path, roots: Path, group: str) -> None:
    """Made for the user; also where a group may write that the user is not in, as in Debian's /var/log. Root's own link
    leads on; devices stay whose they are."""
    shutil.chown(roots, group=group)
    roots.chmod(0o775)
    log = roots / "fastscreen.log"
    assert run(folder, {"log": {"to": f"file:{log}"}}, log) == (0, "")
    assert (whose(log), log.stat().st_mode & 0o777) == (USER, 0o640)
    device = roots / "device"
    subprocess.run(["mknod", str(device), "c", "1", "3"], check=True)
    device.chmod(0o666)
    assert run(folder, {"log": {"to": f"file:{device}"}}) == (0, "")
    assert whose(device) == "root"
    roots.chmod(0o755)
    shutil.chown(roots, group="root")
    link = roots / "link.log"
    link.symlink_to(log)
    log.unlink()
    assert run(folder, {"log": {"to": f"file:{link}"}}, log) == (0, "")
    assert whose(log) == USER


def test_standard_output_as_a_file(folder: Path) -> None:
    """/dev/stdout is a link, and what it leads to only the kernel knows."""
    screener = Screener(folder, {"log": {"to": "file:/dev/stdout"}})
    reading, writing = os.pipe()
    with subprocess.Popen(
        [str(COMMAND), "run", "-c", str(screener.config)], stdout=writing, start_new_session=True
    ) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as output:
            assert b"daemon started" in output.readline()
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("key", ["cache.path", "control.path", "metrics.listen"])
def test_folders_behind_a_planted_link(folder: Path, roots: Path, key: str) -> None:
    """No folder is made there, none given away, no socket bound."""
    (folder / "link").symlink_to(roots)
    table, name = key.split(".")
    for path in (folder / "link/deep/er/it", folder / "link/it"):
        before = state(roots)
        code, said = run(folder, {table: {name: f"unix:{path}" if key == "metrics.listen" else str(path)}})
        assert state(roots) == before
        assert code == (1 if key == "cache.path" and "deep" in str(path) else 0), said


def test_control_socket_in_the_users_folder(start: Start, folder: Path) -> None:
    """A socket that was left is replaced; a group that the user is not in may be given it."""
    needs.root("gives files away")
    path = folder / "control"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    shutil.chown(path, USER)
    screener = start({"control": {"path": str(path), "group": "daemon"}})
    wait_until(path.is_socket, "the control socket")
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (pwd.getpwnam(USER).pw_uid, grp.getgrnam("daemon").gr_gid)
    assert found.st_mode & 0o777 == 0o660
    assert screener.lines("control.path") == []


def test_folders_that_are_made(start: Start, folder: Path, roots: Path) -> None:
    """The last one is the user's, those above it are root's in root's folder."""
    start({"cache": {"path": str(roots / "var/lib/cache")}, "control": {"path": str(roots / "run/fs/control")}})
    assert [whose(roots / name) for name in ("var", "var/lib", "run", "run/fs")] == ["root", USER, "root", USER]
    assert (roots / "var/lib").stat().st_mode & 0o777 == 0o750


def test_key_that_is_a_planted_link(folder: Path, roots: Path) -> None:
    """Root reads its own key where root has put it, and not what the user's link leads to."""
    key, chain = certificate.make(roots, "roots")
    (folder / "link.key").symlink_to(key)
    settings = {"level": "may", "certificates": [str(folder / "link.key"), str(chain)]}
    code, said = run(folder, {"tls": settings})
    assert (code, said) == (1, f"fastscreen: tls.certificates: {folder / 'link.key'}: Permission denied\n")
    certificates(folder)
    (roots / "link.key").symlink_to(key)
    settings["certificates"] = [str(roots / "link.key"), str(chain)]
    assert run(folder, {"tls": settings})[0] == 0


def test_hanging_open(folder: Path) -> None:
    """A FIFO as key or log is refused or waited for elsewhere: root does not wait in open()."""
    fifo = folder / "fifo"
    os.mkfifo(fifo, 0o666)
    code, said = run(folder, {"tls": {"level": "may", "certificates": [str(fifo)]}})
    assert (code, said) == (1, f"fastscreen: tls.certificates: {fifo}: not a file\n")
