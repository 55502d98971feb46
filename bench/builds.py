"""Two builds of fastscreen with the same clients, in turn in one run: does a change cost CPU?

    python -m bench.builds ../previous/.venv/bin/fastscreen known new-greet new-deep

Exit code 1: a row could not be measured, or its median ratio is above --limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench import measure, netns, programs
from bench.fastscreen import COMMAND, Fastscreen
from bench.programs import BenchError
from bench.rows import ROWS, Row

THIS, OTHER = "this build", "other build"


def main() -> int:
    """Measure the rows, print a table, return the exit code."""
    rows = {row.name: row for row in ROWS if isinstance(row, Row)}
    parser = argparse.ArgumentParser(prog="python -m bench.builds", description="Compare two builds of fastscreen.")
    parser.add_argument("command", type=Path, help="the other build's fastscreen command")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows (default: known); one of {', '.join(rows)}")
    parser.add_argument("--rounds", type=int, default=9, help="how often each build is loaded (default: 9)")
    parser.add_argument("--clients", type=int, help="upper limit for the clients of each round: a quick check")
    parser.add_argument("--limit", type=float, default=1.02, help="highest ratio that is accepted (default: 1.02)")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(rows)}")
    if not options.command.is_file():
        parser.error(f"{options.command}: not a file; expected the fastscreen command of another build")
    command = options.command.absolute()
    code = 0
    with tempfile.TemporaryDirectory(prefix="fastscreen-builds-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        print("| row | this build, µs per connection | other build | ratio, pair by pair |\n| --- | --- | --- | --- |")
        for row_name in options.rows or ["known"]:
            row = measure.smaller(rows[row_name], options.clients)
            sides = [
                measure.Side(THIS, Fastscreen(folder / f"{row.name}-this", row.settings, COMMAND), row.held),
                measure.Side(OTHER, Fastscreen(folder / f"{row.name}-other", row.settings, command), row.held),
            ]
            result = measure.alternating(row, sides, folder, built, options.rounds)
            if result.problem:
                print(f"bench: {row.name}: {result.problem}", file=sys.stderr)
                code = 1
                continue
            ratio = _show(row, result)
            if ratio > options.limit:
                print(f"bench: {row.name}: ratio {ratio:.3f}; expected at most {options.limit:g}", file=sys.stderr)
                code = 1
    return code


def _show(row: Row, result: measure.Result) -> float:
    """Print a row of the table; return its median ratio."""
    ours, theirs = ([sample.total for sample in result.samples[key]] for key in (THIS, OTHER))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    cells = [row.name, f"{median(ours):.2f}", f"{median(theirs):.2f}"]
    cells.append(f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"| {' | '.join(cells)} |", flush=True)
    return median(ratios)


if __name__ == "__main__":
    sys.exit(main())
