"""A plug-in for coverage.py that supports the files included by ext/core.pyx; Cython's needs a C file for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coverage.plugin_support import Plugins
from Cython.Coverage import Plugin

C_FILE = "FASTSCREEN_CORE_C"  # environment variable with the path of the generated core.c
EXT = Path(__file__).resolve().parents[1] / "ext"


class CorePlugin(Plugin):
    """Maps every file in ext/ to the C file of the core."""

    def _find_source_files(self, filename: str) -> tuple[str | None, str | None]:
        if Path(filename).parent == EXT:
            return os.environ[C_FILE], None
        return None, None

    def find_executable_files(self, src_dir: str) -> Iterator[str]:
        """The files in ext/, so that reports contain those that were not executed."""
        if Path(src_dir) == EXT:
            yield from map(str, sorted(EXT.glob("*.pyx")))


def coverage_init(reg: Plugins, options: dict[str, Any]) -> None:
    """Called by coverage.py."""
    plugin = CorePlugin()
    reg.add_configurer(plugin)
    reg.add_file_tracer(plugin)
