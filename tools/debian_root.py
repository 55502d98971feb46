"""Folders with packages of a Debian release, which mmdebstrap fills from the mirror that apt uses on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ATTEMPTS, PAUSE_SECONDS = 3, 10  # a mirror may be busy


def is_available() -> bool:
    """Whether such folders can be made here."""
    return shutil.which("mmdebstrap") is not None and shutil.which("apt-get") is not None


def mirror() -> str:
    """Return the mirror of apt's own Debian packages."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    for uri in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise RuntimeError("apt is not configured with a Debian mirror; run `apt-get update`")


def make(target: Path, suite: str, packages: Sequence[str], *options: str, variant: str) -> None:
    """Fill a folder, or an archive if its name ends with .tar. RuntimeError: no attempt succeeded."""
    unfinished = target.with_name(f"unfinished-{target.name}")
    command = ["mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}", *options]
    command.append(
        '--aptopt=Acquire::Check-Valid-Until "false"'
    )  # a mirror may be weeks behind; signatures are checked
    command += [suite, str(unfinished), mirror()]
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        _remove(unfinished)
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
        if done.returncode == 0:
            _remove(target)
            unfinished.rename(target)
            return
        print(*done.stderr.splitlines()[-10:], f"{suite}: attempt {attempt} failed", sep="\n", file=sys.stderr)
        time.sleep(PAUSE_SECONDS * (attempt < ATTEMPTS))
    _remove(unfinished)
    raise RuntimeError(f"mmdebstrap cannot install {', '.join(packages)} from {suite}")


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
