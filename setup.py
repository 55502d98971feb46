"""The Cython build; everything else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("FASTSCREEN_SANITIZE")  # "address,undefined": the build of `make fuzz`

core = Extension(
    "fastscreen.core",
    ["ext/core.pyx"],
    depends=[str(path) for path in sorted(Path("ext").glob("*.p[yx]*"))],
    extra_compile_args=["-O2", "-Wall", "-Wno-unused-function"]
    + ([f"-fsanitize={SANITIZE}", "-g", "-O1", "-fno-omit-frame-pointer"] if SANITIZE else []),  # -O2 takes minutes
    extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE else [],
)

setup(
    ext_modules=cythonize(
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
)
