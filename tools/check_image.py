"""Starts the image in dist/ with podman, and is its client: `python -m tools.check_image`. `make check-image` runs it.

Read-only, without capabilities and without a network (the client runs in the container), so that it works rootless
wherever user namespaces do. For root, `--user NAME` runs podman as another user. crun needs cgroups of version 2; where
both versions are mounted, root enters a mount namespace with only that one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from fastscreen import __version__
from tools.build_wheels import ROOT

NAME = f"localhost/fastscreen:{__version__}"
CONTAINER = "fastscreen-check"
SECONDS = 60
CLIENT = """
import socket
with socket.create_connection(("127.0.0.1", 2525), 10) as client, client.makefile("rwb", 0) as stream:
    for command in (b"", b"EHLO client.example\\r\\n", b"QUIT\\r\\n"):
        stream.write(command)
        while (line := stream.readline())[3:4] == b"-":
            pass
        print(line[:3].decode())
"""
WRITER = """
import pathlib
for folder in ("/", "/etc/fastscreen", "/opt/fastscreen", "/usr", "/var/lib/fastscreen"):
    try:
        pathlib.Path(folder, "new").touch()
    except OSError:
        continue
    print(folder)
"""
RUN = (
    # Docker and Kubernetes give a read-only container no /tmp.
    *("--read-only", "--read-only-tmpfs=false"),
    *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"),
    # Without systemd there is nothing that could run the health check; it is run here.
    *("--health-interval", "disable", "--cgroups", "disabled", "--env", "FASTSCREEN_HANDOFF__TO=sink:"),
    *("--env", "FASTSCREEN_GREET__WAIT=1s", "--env", "FASTSCREEN_HOSTNAME=mx.check.example"),
)


class CheckError(Exception):
    """The image is wrong. str(): how."""


class Podman:
    """podman, as this user or another one."""

    def __init__(self, user: str) -> None:
        options = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"]
        self._command = [*(["runuser", "--user", user, "--"] if user else []), "podman", *options]

    def __call__(self, *arguments: str) -> str:
        """Run a command and return its output. CheckError."""
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise CheckError(f"podman {arguments[0]}: {done.stderr[-2000:]}")
        return done.stdout + (done.stderr if arguments[0] == "logs" else "")


def check(podman: Podman, archive: Path) -> str:
    """Start the image and look at it. Returns what was found."""
    podman("load", "--quiet", "--input", str(archive))
    podman("rm", "--force", "--ignore", CONTAINER)
    try:
        podman("run", "--detach", "--name", CONTAINER, *RUN, NAME)
        deadline = time.monotonic() + SECONDS
        while "daemon started" not in podman("logs", CONTAINER):
            if time.monotonic() > deadline:
                raise CheckError(f"no start within {SECONDS} s: {podman('logs', CONTAINER)[-2000:]}")
            time.sleep(0.2)
        podman("healthcheck", "run", CONTAINER)
        inside = ("exec", CONTAINER, "/opt/fastscreen/bin/python", "-c")
        if (codes := podman(*inside, CLIENT).split()) != ["220", "250", "221"]:
            raise CheckError(f"a client got {codes}")
        if (writable := podman(*inside, WRITER).split()) != ["/var/lib/fastscreen"]:
            raise CheckError(f"these can be written: {writable}")
        status = json.loads(podman("exec", CONTAINER, "fastscreen", "status", "--json"))
        found = (status["version"], status["hostname"], status["mode"])
        if found != (__version__, "mx.check.example", "shadow") or status["counts"]["connect"] != 1:
            raise CheckError(f"unexpected status: {found}, {status['counts']}")
        podman("exec", CONTAINER, "fastscreen", "check", "-c", "/etc/fastscreen/fastscreen.toml")
        podman("stop", "--time", "20", CONTAINER)
        if "stopped" not in (log := podman("logs", CONTAINER)):
            raise CheckError(f"no orderly stop: {log[-2000:]}")
        (size,) = podman("image", "inspect", NAME, "--format", "{{.Size}}").split()
        user = podman("info", "--format", "{{.Host.Security.Rootless}}").strip()
    finally:
        podman("rm", "--force", "--ignore", CONTAINER)
        podman("rmi", "--force", NAME)
    return f"{'rootless' if user == 'true' else 'as root'}, {int(size) / 1e6:.0f} MB"


def main(arguments: list[str]) -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--user", default="", metavar="NAME", help="run podman as this user")
    parser.add_argument("archive", type=Path, nargs="?")
    options = parser.parse_args(arguments)
    if os.geteuid() == 0 and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        mounted = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
        own = [sys.executable, "-m", "tools.check_image", *arguments]
        return subprocess.run(["unshare", "--mount", "sh", "-ec", f'{mounted}\nexec "$@"', "sh", *own]).returncode
    archive = options.archive or next((ROOT / "dist").glob(f"fastscreen-{__version__}-image-*.tar"), None)
    if archive is None:
        print("failed: no image in dist/; run `make image`", file=sys.stderr)
        return 1
    try:
        print(f"ok: {archive.name}: {check(Podman(options.user), archive)}")
    except (CheckError, OSError) as error:
        print(f"failed: {archive.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
