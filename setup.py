"""The Cython build; everything else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("FASTSCREEN_SANITIZE")  # "address,undefined": the build of `make fuzz`
TRACE = os.environ.get("FASTSCREEN_TRACE")  # a folder for C files: the build of `make coverage`, which traces lines
OPTIMIZE = (
    [] if "-O" in os.environ.get("CFLAGS", "") else ["-O0" if TRACE else "-O2"]
)  # a packager's choice has priority

core = Extension(
    "fastscreen.core",
    ["ext/core.pyx"],
    depends=[str(path) for path in sorted(Path("ext").glob("*.p[yx]*"))],
    extra_compile_args=[*OPTIMIZE, "-Wall", "-Wno-unused-function"]
    + ([f"-fsanitize={SANITIZE}", "-g", "-O1", "-fno-omit-frame-pointer"] if SANITIZE else []),  # -O2 takes minutes
    define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
    extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE else [],
)


class BuildCore(build_ext):
    """Runs Cython only if something is built, and not for a source archive or metadata."""

    def build_extensions(self) -> None:
        (built,) = cythonize(
            [core],
            include_path=[".", "ext"],
            build_dir=TRACE,
            compiler_directives={
                "linetrace": bool(TRACE),
                "language_level": "3",
                "boundscheck": False,
                "wraparound": False,
                "cdivision": True,
                "initializedcheck": False,
                "embedsignature": False,
            },
        )
        core.sources = built.sources
        super().build_extensions()


setup(ext_modules=[core], cmdclass={"build_ext": BuildCore})
