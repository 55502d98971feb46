"""Builds the source archive and the wheels in dist/: `python -m tools.build_wheels`. `make wheels` runs it.

Everything is built from the last commit. The source archive is built first, and a wheel from it with this machine's
compiler; this shows that the archive is complete, and provides all files of the wheels except for the core. Then zig
compiles the core for each Python and architecture, for the C library of the manylinux tag. The same commit gives the
same bytes: all times are that of the commit (or SOURCE_DATE_EPOCH), and no path of this machine gets into a file.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from tools import python_headers

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/wheels"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 28)  # Debian 10, RHEL 8: the oldest systems with a Python 3.11 that the dependencies have wheels for
FLAGS = (
    *("-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-shared", "-g0", "-s", "-mcpu=baseline", "-Wl,--build-id=none"),
    *("-fno-sanitize=undefined", "-Wall", "-Wno-unused-function", "-Wno-unreachable-code"),
)


def source_date() -> str:
    """Return the time for all files: SOURCE_DATE_EPOCH, or that of the last commit."""
    return os.environ.get("SOURCE_DATE_EPOCH") or _output("git", "log", "-1", "--format=%ct")


def build_source_archive(folder: Path, date: str) -> Path:
    """Build the source archive from the last commit."""
    source = BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(source, filter="tar")
    _build("--sdist", source, source / "dist", date)
    (built,) = (source / "dist").glob("*.tar.gz")
    folder.mkdir(parents=True, exist_ok=True)
    normalize(built, folder / built.name, int(date))
    return folder / built.name


def normalize(archive: Path, target: Path, date: int) -> None:
    """Rewrite a source archive without the time, the user and the order of its making."""
    with (
        tarfile.open(archive) as before,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=date) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for member in sorted(before.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            after.addfile(member, before.extractfile(member) if member.isfile() else None)


def build_base(archive: Path, date: str) -> tuple[Path, Path]:
    """Build a wheel from the source archive with this machine's compiler. Returns it, and the core as C."""
    folder = BUILD / "base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="tar")
    (source,) = folder.iterdir()
    _build("--wheel", source, folder / "dist", date)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel, source / "ext/core.c"


def compile_core(core: Path, target: Path, version: str, machine: str) -> str:
    """Compile the core for a Python and an architecture. Returns which headers were used. NotFoundError."""
    include = python_headers.folders(version, machine, BUILD / "headers")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}", *FLAGS]
    command += [f"-I{folder}" for folder in include]
    # A relative name, as the name is part of the result.
    subprocess.run([*command, core.name, "-o", str(target)], cwd=core.parent, check=True)
    return f"Python {python_headers.release_of(include[0])}"


def pack(base: Path, core: Path, folder: Path, version: str, machine: str, date: str) -> Path:
    """Make a wheel of the files of another one and a core."""
    content = BUILD / "content"
    shutil.rmtree(content, ignore_errors=True)
    _wheel("unpack", "--dest", str(content), str(base))
    (tree,) = content.iterdir()
    for old in tree.glob("fastscreen/core.*.so"):
        old.unlink()
    shutil.copy(core, tree / "fastscreen" / core_name(version, machine))
    (tags,) = tree.glob("*.dist-info/WHEEL")
    tags.write_text(re.sub(r"(?m)^Tag: .*$", f"Tag: {tag(version, machine)}", tags.read_text()))
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    _wheel("pack", "--dest-dir", str(folder), str(tree), date=date)
    (wheel,) = folder.glob(f"*-{tag(version, machine)}.whl")
    return wheel


def core_name(version: str, machine: str) -> str:
    """Return the file name under which this Python finds the core."""
    return f"core.cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"


def tag(version: str, machine: str) -> str:
    """Return the last part of a wheel's name."""
    python = f"cp{version.replace('.', '')}"
    return f"{python}-{python}-manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"


def _build(what: str, source: Path, folder: Path, date: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", what, "--outdir", str(folder), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": date, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _wheel(*command: str, date: str = "") -> None:
    environment = {**os.environ, **({"SOURCE_DATE_EPOCH": date} if date else {})}
    subprocess.run([sys.executable, "-m", "wheel", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def build(folder: Path, pythons: Iterable[str], machines: Iterable[str]) -> list[str]:
    """Build everything. Returns a line for each wheel that cannot be built here."""
    date = source_date()
    archive = build_source_archive(folder, date)
    print(archive.name, flush=True)
    for stale in folder.glob("*.whl"):
        stale.unlink()
    base, core = build_base(archive, date)
    missing = []
    for version in pythons:
        for machine in machines:
            target = BUILD / "cores" / core_name(version, machine)
            try:
                headers = compile_core(core, target, version, machine)
            except python_headers.NotFoundError as error:
                missing.append(f"{tag(version, machine)}: {error}")
                continue
            print(f"{pack(base, target, folder, version, machine, date).name} (headers: {headers})", flush=True)
    return missing


def main(arguments: list[str]) -> int:
    """Build, and return 1 if a wheel is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--pythons", default=" ".join(PYTHONS), help="such as '3.11 3.13'")
    parser.add_argument("--machines", default=" ".join(MACHINES))
    options = parser.parse_args(arguments)
    missing = build(options.output, options.pythons.split(), options.machines.split())
    for line in missing:
        print(f"not built: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
