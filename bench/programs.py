"""The helper programs in C, compiled for each run into the run's own folder."""

import shutil
import subprocess
from pathlib import Path


class BenchError(Exception):
    """A row or the whole run cannot be measured; the text gives the reason."""


def build(folder: Path) -> dict[str, Path]:
    """Compile each C file in this folder; return the programs by name."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("C compiler not found: install gcc")
    programs = {}
    for source in sorted(Path(__file__).parent.glob("*.c")):
        program = folder / source.stem
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
        programs[source.stem] = program
    return programs
