"""The compiled helpers: built anew for each run, into the run's own folder."""

import shutil
import subprocess
from pathlib import Path


class BenchError(Exception):
    """A row, or the whole run, cannot be measured; the text says why."""


def build(folder: Path) -> dict[str, Path]:
    """Compile each C file beside this one; return the programs by name."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler: install gcc")
    programs = {}
    for source in sorted(Path(__file__).parent.glob("*.c")):
        program = folder / source.stem
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
        programs[source.stem] = program
    return programs
