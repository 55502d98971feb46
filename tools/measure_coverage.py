"""Measures how much of the Python and Cython code the tests execute: `python -m tools.measure_coverage [TEST ...]`.

The core is built with line tracing in build/coverage. Subprocesses are measured as well, except those that end with
SIGKILL. Two reports are printed, for Python and for ext/, and build/coverage/html shows every line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "coverage"
TESTS = ("tests/unit", "tests/property", "tests/commands", "tests/robust")
# These measure memory or time, which line tracing changes.
EXCLUDED = ("many_clients", "many_relayed", "micro")

CONFIGURATION = f"""\
[run]
plugins = tools.cython_coverage
core = ctrace
source =
    {ROOT}/fastscreen
    {ROOT}/tui
    {ROOT}/ext
data_file = {BUILD}/data/coverage
parallel = true
sigterm = true
patch = subprocess, fork, _exit, execv
disable_warnings = no-data-collected, module-not-measured, couldnt-parse, no-ctracer

[report]
skip_empty = true
ignore_errors = true
exclude_also =
    if TYPE_CHECKING:
    raise AssertionError

[html]
directory = {BUILD}/html
"""


def build() -> dict[str, str]:
    """Build the core with line tracing. Returns the environment for using it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from sanitizer.build import build_variant

    sources = BUILD / "c"
    package = build_variant(BUILD, "line tracing", {**os.environ, "FASTSCREEN_TRACE": str(sources)})
    return {
        "FASTSCREEN_CORE_C": str(sources / "ext" / "core.c"),
        "PYTHONPATH": f"{package}:{ROOT}",
        "PYTHONSAFEPATH": "1",
    }


def main(tests: list[str]) -> int:
    """Run the tests and print the reports. Returns the exit code of pytest."""
    environment = {**os.environ, **build()}
    data = BUILD / "data"
    data.mkdir(exist_ok=True)
    data.chmod(0o1777)  # the daemon's user writes there as well
    for old in data.iterdir():
        old.unlink()
    configuration = BUILD / "coveragerc"
    configuration.write_text(CONFIGURATION)

    def coverage(*words: str) -> int:
        command = [sys.executable, "-m", "coverage", words[0], f"--rcfile={configuration}", *words[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    excluded = [f"--ignore=tests/robust/test_{name}.py" for name in EXCLUDED]
    code = coverage("run", "-m", "pytest", "-p", "no:cacheprovider", "-n", "4", *(tests or TESTS), *excluded)
    coverage("combine", "--quiet")
    print("\nPython:")
    coverage("report", "--include=fastscreen/*,tui/*", "--sort=cover")
    print("\next/:")
    coverage("report", "--include=ext/*", "--sort=cover")
    coverage("html", "--quiet")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
