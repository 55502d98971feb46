"""Checks the files in dist/: `python -m tools.check_wheels`. `make check-wheels` runs it.

Each wheel: its tag is right for what the core needs (auditwheel), for another architecture too; the core is for the
machine that the name says, and calls the same functions of Python on each architecture. Each wheel for an installed
Python: it is installed into an empty virtual environment, without a compiler, and screens one client. The installed
size is measured. For root, a Python that is not installed, or is for another architecture, comes from Debian: the wheel
is started in a folder that mmdebstrap fills, and qemu-user-static runs the programs of the other architecture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from operator import attrgetter
from pathlib import Path

from tools import debian_root, python_headers

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/wheels/check"
MAX_MEGABYTES = 60
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0"}
SECONDS, EMULATED_SECONDS = 60, 600
# In a mount namespace, of which nothing remains.
ENTER = """
for each in dev proc sys; do mkdir -p "$1/$each"; mount --rbind /$each "$1/$each"; done
mkdir -p "$1/tmp"; mount -t tmpfs tmpfs "$1/tmp"
exec chroot "$@"
"""


class CheckError(Exception):
    """A wheel is wrong. str(): how."""


def parts(wheel: Path) -> tuple[str, str]:
    """Return the Python and the architecture that a wheel's name says: `3.12`, `aarch64`."""
    found = re.fullmatch(r"fastscreen-[^-]+-cp3([0-9]+)-cp3\1-manylinux_[0-9]+_[0-9]+_(\w+)\.whl", wheel.name)
    if found is None:
        raise CheckError(f"{wheel.name}: unexpected name")
    return f"3.{found[1]}", found[2]


def check_tag(wheel: Path) -> None:
    """The tag is what auditwheel finds that the core needs, or asks for more."""
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    text = " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    found = re.search(r'the following platform tag: "manylinux_([0-9]+)_([0-9]+)_(\w+)"', text)
    named = re.search(r"manylinux_([0-9]+)_([0-9]+)_(\w+)\.whl", wheel.name)
    if found is None or named is None or found[3] != named[3]:
        raise CheckError(f"{wheel.name}: auditwheel finds no such tag: {text[:500]}")
    if (int(found[1]), int(found[2])) > (int(named[1]), int(named[2])):
        raise CheckError(f"{wheel.name}: auditwheel finds that it needs glibc {found[1]}.{found[2]}")


def python_functions(wheel: Path) -> set[str]:
    """Return the functions of Python that the core calls. CheckError: it is for another machine, or needs more."""
    # Only with the extra `release`.
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    version, machine = parts(wheel)
    name = f"fastscreen/core.cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    with zipfile.ZipFile(wheel) as packed:
        cores = [each for each in packed.namelist() if each.endswith(".so")]
        if cores != [name]:
            raise CheckError(f"{wheel.name}: has {', '.join(cores)}; expected {name}")
        core = ELFFile(BytesIO(packed.read(name)))
    if core["e_machine"] != MACHINES[machine] or core["e_type"] != "ET_DYN":
        raise CheckError(f"{wheel.name}: the core is for {core['e_machine']}")
    dynamic, table = core.get_section_by_name(".dynamic"), core.get_section_by_name(".dynsym")
    if not isinstance(dynamic, DynamicSection) or not isinstance(table, SymbolTableSection):
        raise CheckError(f"{wheel.name}: the core is not a shared library")
    needed = set(map(attrgetter("needed"), dynamic.iter_tags("DT_NEEDED")))
    if needed - LIBRARIES:
        raise CheckError(f"{wheel.name}: the core needs {', '.join(sorted(needed - LIBRARIES))}")
    symbols = list(table.iter_symbols())
    if not any(symbol.name == "PyInit_core" and symbol["st_shndx"] != "SHN_UNDEF" for symbol in symbols):
        raise CheckError(f"{wheel.name}: the core has no PyInit_core")
    missing = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}
    return {name for name in missing if name.startswith(("Py", "_Py"))}


def install(wheel: Path | str, python: Path, folder: Path) -> Path:
    """Install a wheel into an empty virtual environment, from wheels only. Returns its `fastscreen`."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    environment = {**os.environ, "CC": "false", "PIP_ONLY_BINARY": ":all:"}
    done = subprocess.run([*pip, str(wheel)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CheckError(f"pip cannot install {wheel}: {done.stderr[-2000:]}")
    return folder / "bin/fastscreen"


def screen_once(command: Sequence[str | Path], state: Path, named: str | Path, *, seconds: int = SECONDS) -> str:
    """Start the daemon with built-in settings and be its client. Returns its version.

    named: the folder `state` in the words of the command.
    """
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("FASTSCREEN_")},
        "XDG_STATE_HOME": str(named),
        "XDG_RUNTIME_DIR": str(named),
        "FASTSCREEN_ENVIRONMENT": "read",
        "FASTSCREEN_LISTEN__ADDRESSES": f'["127.0.0.1:{port}"]',
        "FASTSCREEN_GREET__WAIT": "1s",
    }
    state.mkdir(exist_ok=True)
    with (state / "output").open("w") as output:
        daemon = subprocess.Popen([*command, "run"], cwd="/", env=environment, stdout=output, stderr=output)
    try:
        try:
            said = _talk(port, seconds, daemon)
        except OSError as error:
            raise CheckError(f"{command[0]}: {error}: {(state / 'output').read_text()[-2000:]}") from None
        if said != ["220", "250", "221"]:
            raise CheckError(f"{command[0]}: a client got {said}")
        control = ["status", "--socket", f"{named}/fastscreen/control", "--json"]
        done = subprocess.run([*command, *control], capture_output=True, text=True)
        if done.returncode or json.loads(done.stdout)["counts"]["connect"] != 1:
            raise CheckError(f"{command[0]}: status: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    finally:
        daemon.terminate()
        daemon.wait(seconds)
    return version


def emulator(machine: str) -> Path | None:
    """Return the program that runs another architecture's programs, or None."""
    found = shutil.which(f"qemu-{machine}-static")
    return Path(found) if found else None


def in_debian(wheel: Path, version: str, machine: str) -> tuple[str, float]:
    """Start a wheel with the Python of a Debian release. Returns its version, and the size of what was installed."""
    root = BUILD / f"debian-{version}-{machine}"
    foreign = machine != platform.machine()
    if not (root / f"usr/bin/python{version}").exists():
        packages = ["base-files", f"python{version}-minimal", f"libpython{version}-stdlib"]
        architecture = f"--architectures={python_headers.DEBIAN_NAMES[machine]}"
        debian_root.make(root, python_headers.SUITES[version], packages, "--mode=root", architecture, variant="extract")
    installed, python = root / "installed", [f"/usr/bin/python{version}"]
    if foreign and (program := emulator(machine)):
        shutil.copy(program, root / "emulator")
        python.insert(0, "/emulator")
    shutil.rmtree(installed, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(installed)]
    pip += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version, "--no-compile"]
    for each in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
        pip += ["--platform", f"{each}_{machine}"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    if done.returncode:
        raise CheckError(f"pip cannot install {wheel}: {done.stderr[-2000:]}")
    size = _size(installed) / 1e6
    shutil.rmtree(root / "state", ignore_errors=True)
    command = ["env", "PYTHONPATH=/installed", "PYTHONDONTWRITEBYTECODE=1", "unshare", "--mount", "sh", "-ec", ENTER]
    command += ["sh", str(root), *python, "-P", "-m", "fastscreen"]
    seconds = EMULATED_SECONDS if foreign else SECONDS
    return screen_once(command, root / "state", "/state", seconds=seconds), size


def _talk(port: int, seconds: int, daemon: subprocess.Popen[bytes]) -> list[str]:
    """Greeting, EHLO and QUIT. Returns the codes of the replies. Raises OSError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), seconds)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline or daemon.poll() is not None:
                raise
            time.sleep(0.05)
    codes = []
    with client, client.makefile("rwb", buffering=0) as stream:
        for command in (b"", b"EHLO client.example\r\n", b"QUIT\r\n"):
            stream.write(command)
            while (line := stream.readline())[3:4] == b"-":
                pass
            codes.append(line[:3].decode())
    return codes


def megabytes(folder: Path, *, python: Path) -> float:
    """Return the size of what is installed, without pip and without compiled Python files."""
    empty = folder.with_name(f"{folder.name}-empty")
    shutil.rmtree(empty, ignore_errors=True)
    subprocess.run([python, "-m", "venv", empty], check=True)
    size = _size(folder) - _size(empty)
    shutil.rmtree(empty)
    return size / 1e6


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if "__pycache__" not in path.parts)


def checked(folder: Path) -> Iterator[str]:
    """Check everything; a line for each result. CheckError."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise CheckError(f"{folder} has no wheels; run `make wheels`")
    calls: dict[str, dict[str, set[str]]] = {}
    for wheel in wheels:
        version, machine = parts(wheel)
        check_tag(wheel)
        calls.setdefault(version, {})[machine] = python_functions(wheel)
        yield f"ok: {wheel.name}: tag, machine and libraries"
    for version, machines in calls.items():
        first, *others = machines.values()
        for other in others:
            if first != other:
                raise CheckError(f"{version}: the cores call other functions: {', '.join(sorted(first ^ other))}")
    for wheel in wheels:
        version, machine = parts(wheel)
        foreign = machine != platform.machine()
        try:
            if foreign:
                raise python_headers.NotFoundError(f"this machine is {platform.machine()}")
            python = python_headers.interpreter(version)
        except python_headers.NotFoundError as error:
            by_debian = version in python_headers.SUITES and debian_root.is_available() and os.geteuid() == 0
            if not by_debian or (foreign and emulator(machine) is None):
                yield f"not run: {wheel.name}: {error}"
                continue
            said, size = in_debian(wheel, version, machine)
            where = f"Debian {python_headers.SUITES[version]}{', emulated' * foreign}"
        else:
            venv = BUILD / version
            command = install(wheel, python, venv)
            said = screen_once([command], venv / "state", venv / "state")
            size = megabytes(venv, python=python)
            where = str(python)
        if size > MAX_MEGABYTES:
            raise CheckError(f"{wheel.name}: {size:.1f} MB are installed; expected at most {MAX_MEGABYTES}")
        yield f"ok: {wheel.name}: {said}, installed and run ({where}), {size:.1f} MB"


def main(arguments: list[str]) -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist")
    try:
        for line in checked(parser.parse_args(arguments).folder):
            print(line, flush=True)
    except (CheckError, subprocess.SubprocessError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
