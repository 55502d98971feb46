"""Build the core with AddressSanitizer and UndefinedBehaviorSanitizer, once for each state of its sources.

`python tests/sanitizer/build.py` builds it when it is not there, and prints the folder for PYTHONPATH. It is the
source tree by links, but for the core.
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


def sources() -> str:
    """What the core is built of."""
    files = [*sorted((ROOT / "ext").glob("*.p[yx]*")), ROOT / "setup.py"]
    state = hashlib.sha256(f"{sys.version} {SANITIZERS}".encode())
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()


def build() -> Path:
    """The folder for PYTHONPATH. One process builds, others wait. CalledProcessError: it cannot be built."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, stamp = sources(), BUILD / "sources"
        core = f"core{sysconfig.get_config_var('EXT_SUFFIX')}"
        if not stamp.exists() or stamp.read_text() != wanted:
            command = [sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
            folders = ["--build-temp", str(BUILD / "temp"), "--build-lib", str(BUILD / "built")]
            environment = {**os.environ, "FASTSCREEN_SANITIZE": SANITIZERS}
            environment.pop("LD_PRELOAD", None)
            subprocess.run([*command, *folders], cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
            stamp.write_text(wanted)
        return linked(core)


def linked(core: str) -> Path:
    """A package that is the one in the source tree, with the core that was built here."""
    package = BUILD / "package" / "fastscreen"
    package.mkdir(parents=True, exist_ok=True)
    entries = {each.name: each for each in (ROOT / "fastscreen").iterdir() if each.suffix != ".so"}
    entries[core] = BUILD / "built" / "fastscreen" / core
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
    """For a program that is to use this core.

    Leaks are not looked for (the interpreter itself leaves memory); pymalloc would hide what lies next to an object;
    without PYTHONSAFEPATH the core of the source tree would be imported.
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
