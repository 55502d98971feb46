"""Runs tests against an installed wheel: `python -m tools.suite_installed [PYTEST_ARGUMENT ...]`.

The wheel in dist/ for this Python is installed into an empty virtual environment. The tests run in a copy of the last
commit in which fastscreen/ is a link to what was installed, so nothing of the source tree can be imported instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

from tools.build_wheels import ROOT, tag

BUILD = ROOT / "build/installed"
MACHINE = os.uname().machine
# What only looks at the source tree: packages, layers of imports, and whether generated pages are up to date.
SOURCE_ONLY = ("packaging", "imports")


def prepare(dist: Path) -> Path:
    """Install the wheel, and make the copy. Returns the Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (wheel,) = dist.glob(f"*-{tag(version, MACHINE)}.whl")
    venv, tree = BUILD / "venv", BUILD / "tree"
    for folder in (venv, tree):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The build requirements are for tests that build the core again; some tests are of the benchmark.
    subprocess.run(
        [*pip, f"{wheel}[test,bench]", "setuptools>=77", "Cython>=3.2,<4"], check=True, stderr=subprocess.DEVNULL
    )
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(tree, filter="tar")
    # Some tests ask git which files there are.
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tree, check=True)
    shutil.rmtree(tree / "fastscreen")
    (package,) = (venv / "lib").glob("python3*/site-packages/fastscreen")
    (tree / "fastscreen").symlink_to(package)
    return python


def main(arguments: list[str]) -> int:
    """Prepare, run pytest, and return its exit code."""
    python = prepare(ROOT / "dist")
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": str(python.parents[1])}
    environment.pop("PYTHONPATH", None)
    where = "import fastscreen.core; print(fastscreen.core.__file__)"
    found = subprocess.run([python, "-c", where], cwd=BUILD / "tree", check=True, capture_output=True, text=True)
    print(f"testing {found.stdout.strip()}", flush=True)
    ignored = [f"--ignore=tests/unit/test_{name}.py" for name in SOURCE_ONLY]
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *ignored, *arguments]
    return subprocess.run(command, cwd=BUILD / "tree", env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
