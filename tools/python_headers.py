"""The header files of each supported Python, for the architectures that wheels are built for.

Those of Debian's packages are preferred: they exist for each architecture, and are the same on every machine. For
a Python that no Debian release has, those of an installed `python3.N` are used. Their pyconfig.h is that of this
machine; for the other architecture it differs only in macros that no public header of Python 3.11 or later uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools import debian_root

SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


class NotFoundError(Exception):
    """The headers of a Python cannot be had here. str(): why."""


def folders(version: str, machine: str, cache: Path) -> list[Path]:
    """Return what a compiler needs in its include path. cache: where headers from packages are kept."""
    if version in SUITES and debian_root.is_available():
        return _from_debian(version, machine, cache / f"python{version}-{machine}")
    return [_from_interpreter(version)]


def _from_debian(version: str, machine: str, folder: Path) -> list[Path]:
    own = folder / f"python{version}"
    if not (own / "Python.h").exists():
        root = folder.with_name(f"{folder.name}-root")
        package = f"libpython{version}-dev"
        debian_root.make(
            root, SUITES[version], [package], f"--architectures={DEBIAN_NAMES[machine]}", variant="extract"
        )
        include, architecture = root / "usr/include", f"{machine}-linux-gnu/python{version}"
        # Without the rest of that folder, which has the C library's headers: the compiler has its own.
        shutil.copytree(include / architecture, folder / architecture, dirs_exist_ok=True)
        shutil.copytree(include / f"python{version}", own, dirs_exist_ok=True)
        shutil.rmtree(root)
    return [own, folder]


def interpreter(version: str) -> Path:
    """Find an installed Python: on PATH, or among those of pyenv and uv. NotFoundError: there is none."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = [*pyenv.glob(f"versions/{version}*"), *(Path.home() / ".local/share/uv/python").glob(f"cpython-{version}.*")]
    for folder in [*map(Path, os.environ.get("PATH", "").split(":")), *(each / "bin" for each in sorted(kept))]:
        found = folder / name
        # pyenv's shims exist for every version, and work for the selected ones.
        if found.is_file() and not subprocess.run([found, "-c", "import venv"], capture_output=True).returncode:
            return found
    raise NotFoundError(f"{name} is not installed")


def _from_interpreter(version: str) -> Path:
    command = [str(interpreter(version)), "-c", "import sysconfig; print(sysconfig.get_path('include'))"]
    found = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    if not (found / "Python.h").exists():
        raise NotFoundError(f"{found} has no Python.h")
    return found


def release_of(folder: Path) -> str:
    """Return the version of the Python that headers are of, such as `3.13.5`."""
    found = re.search(r'^#define PY_VERSION\s+"([^"]+)"', (folder / "patchlevel.h").read_text(), re.MULTILINE)
    if found is None:
        raise NotFoundError(f"{folder} has no version")
    return found[1]
