"""The Cython build; everything else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("FASTSCREEN_SANITIZE")  # "address,undefined": the build of `make fuzz`
OPTIMIZE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O2"]  # what a packager wants comes before ours

core = Extension(
    "fastscreen.core",
    ["ext/core.pyx"],
    depends=[str(path) for path in sorted(Path("ext").glob("*.p[yx]*"))],
    extra_compile_args=[*OPTIMIZE, "-Wall", "-Wno-unused-function"]
    + ([f"-fsanitize={SANITIZE}", "-g", "-O1", "-fno-omit-frame-pointer"] if SANITIZE else []),  # -O2 takes minutes
    extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE else [],
)


class BuildCore(build_ext):
    """Cython runs when something is built, and not for a source archive or metadata."""

    def build_extensions(self) -> None:
        (made,) = cythonize(
            [core],
            include_path=[".", "ext"],
            compiler_directives={
                "language_level": "3",
                "boundscheck": False,
                "wraparound": False,
                "cdivision": True,
                "initializedcheck": False,
                "embedsignature": False,
            },
        )
        core.sources = made.sources
        super().build_extensions()


setup(ext_modules=[core], cmdclass={"build_ext": BuildCore})
