"""Build the core with AddressSanitizer and UndefinedBehaviorSanitizer, if its sources have changed.

`python tests/sanitizer/build.py` builds it and prints a folder for PYTHONPATH. The folder contains the core, and links
to the rest of the source tree. `make coverage` builds another variant with the same functions.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitizer"
SANITIZERS = "address,undefined"


def build() -> Path:
    """Build the core and return the folder for PYTHONPATH. Raises CalledProcessError."""
    environment = {**os.environ, "FASTSCREEN_SANITIZE": SANITIZERS}
    environment.pop("LD_PRELOAD", None)
    return build_variant(BUILD, SANITIZERS, environment)


def build_variant(folder: Path, variant: str, environment: dict[str, str]) -> Path:
    """Build a variant of the core, and return the folder for PYTHONPATH. One process builds, others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, stamp = _state(variant), folder / "sources"
        if not stamp.exists() or stamp.read_text() != wanted:
            command = ["nice", sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
            folders = ["--build-temp", str(folder / "temp"), "--build-lib", str(folder / "built")]
            subprocess.run([*command, *folders], cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
            stamp.write_text(wanted)
        return _linked(folder)


def _state(variant: str) -> str:
    """A hash of everything that the core is built from."""
    files = [*sorted((ROOT / "ext").glob("*.p[yx]*")), ROOT / "setup.py"]
    state = hashlib.sha256(f"{sys.version} {variant}".encode())
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()


def _linked(folder: Path) -> Path:
    """Make a package of links to the source tree, except for the core, which was built in the folder."""
    core = f"core{sysconfig.get_config_var('EXT_SUFFIX')}"
    package = folder / "package" / "fastscreen"
    package.mkdir(parents=True, exist_ok=True)
    entries = {each.name: each for each in (ROOT / "fastscreen").iterdir() if each.suffix != ".so"}
    entries[core] = folder / "built" / "fastscreen" / core
    entries.pop("__pycache__", None)
    for stale in package.iterdir():
        if stale.is_symlink() and stale.name not in entries:
            stale.unlink()
    for name, target in entries.items():
        link = package / name
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return package.parent


def environment(folder: Path) -> dict[str, str]:
    """The environment of a program that uses this core.

    Leaks are not checked, because the interpreter does not free all memory. pymalloc would hide overflows of objects.
    Without PYTHONSAFEPATH, the core of the source tree would be imported.
    """
    library = [os.environ.get("CC", "cc"), "-print-file-name=libasan.so"]
    return {
        "LD_PRELOAD": subprocess.run(library, capture_output=True, text=True, check=True).stdout.strip(),
        "PYTHONPATH": str(folder),
        "PYTHONSAFEPATH": "1",
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--environment"]:
        for key, value in environment(build()).items():
            print(f"{key}={value}")
    else:
        print(build())
