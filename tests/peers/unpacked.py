"""MTAs that conflict with Postfix: Debian's packages are unpacked, and run in a mount namespace.

Only what the program itself sees is changed: its files where it looks for them, and the users that the package's
installation would have made.
"""

import subprocess
from pathlib import Path

from peers import needs

CACHE = Path(__file__).parent.parent.parent / "build" / "debian-packages"

USERS = ("Debian-exim", "opensmtpd", "opensmtpq")
FIRST_UID = 64901


def unpack(folder: Path, packages: tuple[str, ...], program: str) -> Path:
    """Unpack packages below a folder; return the program's path there. A missing one is handled as by needs.program."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not list(CACHE.glob(f"{package}_*.deb")):
            command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
            done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True)
            if done.returncode:
                needs.miss(f"needs the Debian package {package}: {done.stderr.strip().splitlines()[-1]}")
        archive = max(CACHE.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True, capture_output=True)
    path = folder / program
    linked = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    if absent := [line.split()[0] for line in linked.splitlines() if line.endswith("not found")]:
        needs.miss(f"needs {', '.join(absent)}, on which Debian's {packages[0]} depends (.ci/run installs that)")
    return path


def seeing(folder: Path, mounts: dict[Path, str]) -> list[str]:
    """Return the command prefix that runs a program with its users known, and with files and folders in other places.

    mounts: what is seen at which existing path.
    """
    passwd, group = folder / "passwd", folder / "group"
    users = Path("/etc/passwd").read_text()
    groups = Path("/etc/group").read_text()
    for uid, name in enumerate((*USERS, "inbox"), FIRST_UID):
        if f"\n{name}:" not in users:
            users += f"{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n"
        if f"\n{name}:" not in groups:
            groups += f"{name}:x:{uid}:\n"
    passwd.write_text(users)
    group.write_text(groups)
    every = {passwd: "/etc/passwd", group: "/etc/group", **mounts}
    script = "".join(f"mount --bind {what} {where} && " for what, where in every.items()) + 'exec "$@"'
    return [needs.program("unshare"), "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def uid(folder: Path, name: str) -> int:
    """Return a user's number as a program sees it that was started with `seeing`."""
    lines = (line.split(":") for line in (folder / "passwd").read_text().splitlines())
    return next(int(fields[2]) for fields in lines if fields[0] == name)
