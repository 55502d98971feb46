"""How every command tells what is wrong with a configuration."""

from __future__ import annotations

import sys

from fastscreen.config import ConfigError


def print_problems(error: Exception) -> None:
    """One line on standard error for each problem of a configuration, or for another error."""
    for line in error.problems if isinstance(error, ConfigError) else (str(error),):
        print(f"fastscreen: {line}", file=sys.stderr)
