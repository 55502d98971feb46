"""Another Postfix than the installed one for the differential tests: that of another Debian release, in a folder.

`python tests/peers/postfixroot.py build SUITE FOLDER` builds it with mmdebstrap, from the mirror that apt uses here.
With FASTSCREEN_TEST_POSTFIX=FOLDER in the environment, Postfix runs in it; everything else is this machine's.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

VARIABLE = "FASTSCREEN_TEST_POSTFIX"
PACKAGES = ("postfix", "postfix-lmdb", "postfix-pcre")
ATTEMPTS, PAUSE_SECONDS = 3, 10  # to build a root; a mirror may be busy
PAGE = Path(__file__).parents[2] / "docs/postscreen-behavior.md"

Version = tuple[int, ...]

# The users and the mounts of this machine: the lab's own folder has the same path and the same owners on both sides.
_MOUNTS = """
set -e
root=$1 folder=$2
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
for file in passwd group resolv.conf; do mount --bind "/etc/$file" "$root/etc/$file"; done
"""


def chosen() -> Path | None:
    """Return the root to take Postfix from; None for the installed one."""
    value = os.environ.get(VARIABLE)
    return Path(value).resolve() if value else None


def prefix(root: Path | None) -> list[str]:
    """Return what a command of Postfix begins with to run in the root."""
    return [] if root is None else ["chroot", str(root)]


def enter(root: Path | None, folder: Path, inside: list[str]) -> list[str]:
    """Make `folder` visible in the root, in the namespace that `inside` enters; return what a command begins with."""
    if root is None:
        return inside
    command = [*inside, "sh", "-c", _MOUNTS, "sh", str(root), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cannot use {root}: {done.stderr.strip()}")
    return [*inside, *prefix(root)]


def version(root: Path | None) -> Version:
    """Return the version of its Postfix: 3.10.4 is (3, 10, 4)."""
    command = [*prefix(root), "/usr/sbin/postconf", "-dh", "mail_version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parsed(said.strip())


def parsed(text: str) -> Version:
    """Read a version; a snapshot's date is ignored. ValueError: it is not one."""
    match = re.match(r"\d+(\.\d+)+", text)
    if match is None:
        raise ValueError(f"not a Postfix version: {text!r}")
    return tuple(map(int, match[0].split(".")))


def described() -> set[Version]:
    """Return the releases, without patch level, that the page about postscreen's behavior compares."""
    section = PAGE.read_text().partition('<a id="12"></a>')[2].partition('<a id="13"></a>')[0]
    return {parsed(each)[:2] for each in re.findall(r"^\| Postfix (\d\S*)", section, re.MULTILINE)}


def build(suite: str, folder: Path) -> None:
    """Build a root with the packages of a Debian suite. RuntimeError: no attempt succeeded."""
    mirror = _mirror()
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command.append(
        '--aptopt=Acquire::Check-Valid-Until "false"'
    )  # a mirror may be weeks behind; signatures are checked
    command.append('--customize-hook=touch "$1/etc/resolv.conf"')  # to be mounted over
    for attempt in range(1, ATTEMPTS + 1):
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run([*command, suite, str(unfinished), mirror], capture_output=True, text=True)
        if done.returncode == 0:
            unfinished.rename(folder)
            return
        print(*done.stderr.splitlines()[-10:], f"{suite}: attempt {attempt} failed", sep="\n", file=sys.stderr)
        time.sleep(PAUSE_SECONDS * (attempt < ATTEMPTS))
    shutil.rmtree(unfinished, ignore_errors=True)
    raise RuntimeError(f"mmdebstrap cannot build {suite}")


def _mirror() -> str:
    """Return the mirror of apt's own Debian packages."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    for uri in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise RuntimeError("apt is not configured with a Debian mirror (apt-get update?)")


def main() -> int:
    """Build a root, or tell by the exit code whether the page describes its Postfix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("suite", help="trixie, sid, ...")
    building.add_argument("folder", type=Path)
    commands.add_parser("described").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    try:
        if arguments.command == "build":
            folder.parent.mkdir(parents=True, exist_ok=True)
            build(arguments.suite, folder)
        found = version(folder)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    known = found[:2] in described()
    note = "" if known else f", which {PAGE.name} does not describe yet"
    print(f"{folder}: Postfix {'.'.join(map(str, found))}{note}")
    return 0 if known or arguments.command == "build" else 1


if __name__ == "__main__":
    sys.exit(main())
