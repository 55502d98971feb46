"""A command that measures the same fastscreen with something and without it, in turn, each row with its own limit."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench import measure, netns, programs
from bench.fastscreen import Fastscreen
from bench.measure import Sample
from bench.programs import BenchError
from bench.rows import ROWS, Row

BY_NAME = {row.name: row for row in ROWS if isinstance(row, Row)}


@dataclass(frozen=True)
class Limited:
    """A row, and how much it may cost, as a ratio to the same without (0: no such limit)."""

    row: Row
    ratio: float = 0.0


L = TypeVar("L", bound=Limited)
Samples = dict[str, list[Sample]]
"""Of each side, by its key."""


def main(
    name: str,
    about: str,
    rows: Mapping[str, L],
    columns: Sequence[str],
    sides: Callable[[L, Path], dict[str, Fastscreen]],
    judge: Callable[[L, Samples], int],
) -> int:
    """Measure the rows, print a table, return the exit code.

    sides: the daemons of a row by their keys, each with a folder of its own. judge: prints a row's lines, and returns 1
    if it is above a limit.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: all): {', '.join(rows)}")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side is loaded (default: 7)")
    parser.add_argument("--clients", type=int, help="upper limit for the clients of each round: a quick check")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(rows)}")
    code = 0
    with tempfile.TemporaryDirectory(prefix=f"fastscreen-{name}-", dir="/tmp") as created:
        folder = Path(created)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
            print_line(columns)
            print_line(["---"] * len(columns))
            for row_name in options.rows or rows:
                limited = rows[row_name]
                limited = replace(limited, row=measure.smaller(limited.row, options.clients))
                held = limited.row.held
                both = [measure.Side(key, daemon, held) for key, daemon in sides(limited, folder).items()]
                result = measure.alternating(limited.row, both, folder, built, options.rounds)
                if result.problem:
                    complain(limited, result.problem)
                    code = 1
                else:
                    code |= judge(limited, result.samples)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return code


def print_line(cells: Sequence[str]) -> None:
    """A line of the table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def complain(limited: Limited, problem: str) -> None:
    """What is wrong with a row."""
    print(f"bench: {limited.row.name}: {problem}", file=sys.stderr)


def ratio_of(on: Sequence[float], off: Sequence[float]) -> tuple[float, str]:
    """The median of the ratios, pair by pair, and the same as text with the smallest and the largest."""
    ratios = [each / other for each, other in zip(on, off, strict=True)]
    return median(ratios), f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
