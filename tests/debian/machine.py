"""A Debian in namespaces of its own, booted by its own systemd: what `apt install` and an operator meet there.

Nothing is a stand-in: process 1 is the systemd of the release, in a root of its packages, with its own network, where
only the loopback device exists. What it does not have is a kernel of its own, and CAP_SYS_RESOURCE where the host has
not got it (OOMScoreAdjust= is then ignored).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools import debian_root
from tools.debian_package import CACHE

# What the tests use, and what the package depends on, so that apt needs no network
PACKAGES = ("systemd-sysv", "dbus", "python3", "procps", "swaks", "logrotate", "fail2ban", "man-db", "postfix")
BOOT_SECONDS = 60.0
SNAPSHOT_IGNORES = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/log",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/cache",
    "/host",
)

_BOOT = """
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mkdir -p "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom tty; do
    touch "$root/dev/$each"
    mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for each in dev/shm run tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$each"; done
chmod 755 "$root/run"
mkdir -p "$root/run/lock" "$root/host"
mount --bind "$2" "$root/host"
ip link set lo up
hostname mx
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
rmdir /old
# As systemd has it without container=: it mounts what LoadCredential= needs in a namespace of its own.
mount --make-rshared /
exec env -i container=namespace PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
"""


def root_of(suite: str, kind: str, packages: Sequence[str]) -> Path:
    """Return a new folder with a root of the release; its archive is made once."""
    archive = CACHE / f"{kind}-{suite}.tar"
    if not archive.exists():
        debian_root.make(archive, suite, packages, variant="minbase")
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{suite}-", dir=CACHE))
    folder.chmod(0o755)
    subprocess.run(["tar", "--numeric-owner", "-xf", archive, "-C", folder], check=True)
    return folder


def bare(suite: str) -> Path:
    """Return a root with essential packages and apt."""
    return root_of(suite, "bare", ["ca-certificates"])


class Machine:
    """A root, and systemd in it after `boot`. `shared` is its folder /host."""

    def __init__(self, suite: str, shared: Path) -> None:
        self.root = root_of(suite, "machine", PACKAGES)
        self._shared = shared
        self._unshare: subprocess.Popen[bytes] | None = None
        self.init = 0
        (self.root / "etc/hostname").write_text("mx\n")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost mx.example.com mx\n")

    def boot(self) -> None:
        """Start systemd and wait until it has started everything."""
        command = ["unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--kill-child"]
        command += ["sh", "-c", _BOOT, "sh", str(self.root), str(self._shared)]
        self._unshare = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        wait_until(lambda: bool(children.read_text().split()), "unshare", BOOT_SECONDS)
        self.init = int(children.read_text().split()[0])
        wait_until(
            lambda: self.run("systemctl", "is-system-running") in ("running\n", "degraded\n"), "systemd", BOOT_SECONDS
        )

    def enter(self, *namespaces: str) -> list[str]:
        """Return what a command begins with to run in these namespaces, such as --net; with none, in all of them."""
        return [
            "nsenter",
            f"--target={self.init}",
            *(namespaces or ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")),
        ]

    def run(self, *command: str, check: bool = False) -> str:
        """Run a command as root; return what it printed, with its messages. check: AssertionError if it fails."""
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"]
        environment += ["DEBIAN_FRONTEND=noninteractive"]
        done = subprocess.run(
            [*self.enter(), *environment, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def sh(self, script: str) -> str:
        """Run a script that must succeed."""
        return self.run("sh", "-ec", script, check=True)

    def install(self, package: Path) -> str:
        """`apt-get install` of a file, also of an older version; a configuration file that was changed is kept."""
        options = ["-o", "Dpkg::Options::=--force-confold", "--no-install-recommends", "--allow-downgrades"]
        return self.run("apt-get", "install", "-y", *options, f"/host/{package.name}", check=True)

    def snapshot(self) -> set[str]:
        """Return all files, with their owners and modes, and the lines of the user database."""
        prune = " -o ".join(f"-path {folder}" for folder in SNAPSHOT_IGNORES)
        listed = self.sh(
            f"find / -xdev \\( {prune} \\) -prune -o -printf '%p %U:%G %m\\n'\n"
            "find /var/log /var/cache /run /tmp -path /run/systemd -prune -o -name '*fastscreen*' -print\n"
            "cat /etc/passwd /etc/group"
        )
        return {line for line in listed.splitlines() if not line.split(" ")[0].endswith("-")}  # passwd- and the like

    def close(self) -> None:
        """End everything in it, and remove it."""
        if self._unshare is not None:
            if self.init:
                os.kill(self.init, signal.SIGKILL)
            self._unshare.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until a condition holds. AssertionError: it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not in {seconds:.0f} s"
        time.sleep(0.05)
