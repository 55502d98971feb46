"""Builds, checks and describes everything that is published: `python -m tools.release`. `make release` runs it.

The result is dist/: source archive, wheels, image, the Debian packages, the components (CycloneDX), and SHA256SUMS.
`--parts` continues a release that failed: `make release PARTS="check-image sums"`. `--compare` builds the source
archive and the wheels once more, in another folder and without the compiler's cache, and compares them with dist/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fastscreen import __version__
from tools import check_wheels
from tools.build_wheels import ROOT, source_date
from tools.python_headers import interpreter

DIST = ROOT / "dist"
BUILD = ROOT / "build/release"
SUMS = "SHA256SUMS"
PARTS = ("wheels", "check-wheels", "image", "check-image", "deb", "test-installed", "sums")
PROGRAMS = {"image": "buildah", "check-image": "podman", "deb": "mmdebstrap"}


class ReleaseError(Exception):
    """Nothing can be released. str(): why."""


def check_changelog() -> None:
    """A commit with the tag of the version has a dated section for it; another commit has what is unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text()
    tags = _output("git", "tag", "--points-at", "HEAD").split()
    is_dated = re.search(rf"(?m)^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", text) is not None
    if f"v{__version__}" in tags and not is_dated:
        raise ReleaseError(f"CHANGELOG.md: no section [{__version__}] with a date, but the commit has its tag")
    if f"v{__version__}" not in tags:
        print(f"note: the commit has no tag v{__version__}, so this is a rehearsal", flush=True)


def check_commit() -> None:
    """All that is published is of one commit, also if a release is continued."""
    built = BUILD / "commit"
    if not built.exists() or built.read_text() != _output("git", "rev-parse", "HEAD"):
        raise ReleaseError("dist/ was not built from this commit; begin again with the part wheels")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def published(folder: Path) -> list[Path]:
    """Return the files that are published, without the checksums."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, as sha256sum writes and `sha256sum --check` reads it."""
    (folder / SUMS).write_text("".join(f"{checksum(path)}  {path.name}\n" for path in published(folder)))


def write_components(folder: Path) -> Path:
    """Write what an installation with the extra `cluster` consists of, as CycloneDX JSON."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = os.uname().machine
    (wheel,) = (path for path in folder.glob("*.whl") if check_wheels.parts(path) == (version, machine))
    venv = BUILD / "components"
    check_wheels.install(f"{wheel}[cluster]", interpreter(version), venv)
    subprocess.run([venv / "bin/python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "pip"], check=True)
    target = folder / f"fastscreen-{__version__}.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--output-format", "JSON", "--mc-type", "application"]
    subprocess.run([*command, "--output-file", str(target), str(venv / "bin/python")], check=True)
    content = json.loads(target.read_text())
    content["metadata"]["component"]["version"] = __version__  # pyproject.toml does not have it
    target.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return target


def compare() -> list[str]:
    """Build once more, elsewhere. Returns the names of files that differ."""
    clone = BUILD / "again"
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / "build").mkdir()
    headers = ROOT / "build/wheels/headers"
    if headers.exists():  # not built, but downloaded
        shutil.copytree(headers, clone / "build/wheels/headers")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": source_date(), "PYTHONPATH": str(clone), "TZ": "Asia/Tokyo"}
    environment |= {f"ZIG_{which}_CACHE_DIR": str(clone / "build/zig") for which in ("GLOBAL", "LOCAL")}
    subprocess.run([sys.executable, "-m", "tools.build_wheels"], cwd=clone, env=environment, check=True, umask=0o077)
    again = {path.name: checksum(path) for path in published(clone / "dist")}
    return [name for name, sum_ in again.items() if not (DIST / name).exists() or checksum(DIST / name) != sum_]


def _run(what: str, *command: str) -> None:
    print(f"== {what}", flush=True)
    if subprocess.run([*command], cwd=ROOT).returncode:
        raise ReleaseError(f"{what} failed")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def release(parts: Sequence[str], *, tests: Sequence[str]) -> None:
    """Build and check everything, or these parts."""
    check_changelog()
    if _output("git", "status", "--porcelain", "--untracked-files=no"):
        raise ReleaseError("there are changes that are not committed; everything is built from the last commit")
    if "wheels" in parts:
        shutil.rmtree(DIST, ignore_errors=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        (BUILD / "commit").write_text(_output("git", "rev-parse", "HEAD"))
    tools = (sys.executable, "-m")
    commands = {
        "wheels": (*tools, "tools.build_wheels"),
        "check-wheels": (*tools, "tools.check_wheels"),
        "image": (*tools, "tools.build_image"),
        "check-image": (*tools, "tools.check_image", "--user", os.environ.get("IMAGE_USER", "")),
        "deb": ("make", "--no-print-directory", "deb"),
        "test-installed": (*tools, "tools.suite_installed", *tests),
    }
    for part in parts:
        check_commit()
        program = PROGRAMS.get(part, "")
        if program and not shutil.which(program):
            print(f"skipped: {part}; {program} is not installed", flush=True)
        elif part in commands:
            _run(part, *commands[part])
        else:
            describe()


def describe() -> None:
    """Write the components, and the checksums of all files."""
    print(f"components: {write_components(DIST).name}", flush=True)
    write_sums(DIST)
    print((DIST / SUMS).read_text(), end="", flush=True)


def main(arguments: list[str]) -> int:
    """Release or compare, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="build again, and compare with dist/")
    parser.add_argument("--parts", default=" ".join(PARTS), help="only these (default: %(default)s)")
    parser.add_argument("--tests", default="-n 6", help="arguments for pytest (default: the whole suite, '-n 6')")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts.split() if part not in PARTS]:
        parser.error(f"--parts: unknown: {', '.join(unknown)}; expected {', '.join(PARTS)}")
    try:
        if options.compare:
            different = compare()
            print(f"different: {', '.join(different)}" if different else "the second build has the same bytes")
            return 1 if different else 0
        release([part for part in PARTS if part in options.parts.split()], tests=options.tests.split())
    except (ReleaseError, check_wheels.CheckError, OSError, subprocess.SubprocessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
