"""`make bench`: fastscreen and postscreen side by side on this machine."""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import measure, programs, report
from bench.rows import ROWS

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog="example: python -m bench --rounds 3 known"
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows ({', '.join(row.name for row in ROWS)})")
    parser.add_argument("--rounds", type=int, default=5, help="how often each screener is loaded (default 5)")
    parser.add_argument("--clients", type=int, help="how many clients each time (default: 20000)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for latest.md and latest.json")
    options = parser.parse_args()
    unknown = set(options.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    machine = report.describe()
    results = []
    with tempfile.TemporaryDirectory(prefix="fastscreen-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        try:
            built = programs.build(Path(folder))
        except programs.BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        for row in ROWS:
            if not options.rows or row.name in options.rows:
                print(f"{row.title} ...", file=sys.stderr)
                if options.clients is not None:
                    row = replace(row, clients=options.clients)
                results.append(measure.run(row, Path(folder), built, options.rounds))
    data = report.as_json(results, machine, options.rounds)
    text = report.as_markdown(data)
    print(text)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "latest.md").write_text(text)
    (options.results / "latest.json").write_text(json.dumps(data, indent=1) + "\n")
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
