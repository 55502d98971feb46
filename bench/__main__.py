"""`make bench`: fastscreen compared with postscreen and HAProxy on this machine."""

import argparse
import importlib
import importlib.util
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import (
    burst,
    continue_,
    machine,
    measure,
    memory,
    netns,
    programs,
    publish,
    relay,
    report,
    results,
    tls,
    viewer,
)
from bench.figures import Figure
from bench.rows import ROWS, AnyRow, Continue, Memory, Relay, Row, Tls, Viewer

RESULTS = Path(__file__).parent / "results"
MICRO = "micro"  # the figures of the core's parts alone, bench/micro


def main() -> int:
    names = [row.name for row in ROWS] + ([MICRO] if importlib.util.find_spec("bench.micro") else [])
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog="example: python -m bench --rounds 3 known"
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to measure (default: all): {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="number of times each screener is loaded (default: 5)")
    parser.add_argument(
        "--clients", type=int, help="upper limit for the clients of each round and for held clients: a quick check"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for latest.md and latest.json")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also write docs/benchmark.* and the table in README; if rows are named, only these are replaced there",
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(names):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {', '.join(names)}")
    if options.publish and options.clients is not None:
        parser.error("--publish needs a run at full size; omit --clients")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))  # nothing that was started stays behind
    described = machine.describe()
    began = time.monotonic()
    measured: list[results.Result] = []
    figures: list[Figure] = []
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fastscreen-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            netns.enter(folder)
            built = programs.build(folder)
        except programs.BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        for row in ROWS:
            if not options.rows or row.name in options.rows:
                print(f"{time.monotonic() - began:5.0f} s  {row.title} ...", file=sys.stderr)
                measured.append(_run(_smaller(row, options.clients), folder, built, options.rounds))
        if MICRO in names and (not options.rows or MICRO in options.rows):
            print(f"{time.monotonic() - began:5.0f} s  {MICRO} ...", file=sys.stderr)
            try:
                figures += importlib.import_module("bench.micro").run(folder)
            except Exception as error:  # whatever it is, the rows that were measured are shown
                problems[MICRO] = f"{type(error).__name__}: {error}"
    data = results.as_json(measured, figures, problems, described, options.rounds)
    text = report.as_markdown(data)
    print(text)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "latest.md").write_text(text)
    (options.results / "latest.json").write_text(json.dumps(data, indent=1) + "\n")
    if options.publish:
        publish.write(data, Path(__file__).parents[1], whole=not options.rows)
    return 1 if results.failed(data) else 0


def _smaller(row: AnyRow, clients: int | None) -> AnyRow:
    if clients is None:
        return row
    if isinstance(row, Row):
        return measure.smaller(row, clients)
    return replace(row, clients=min(row.clients, clients))


def _run(row: AnyRow, folder: Path, built: dict[str, Path], rounds: int) -> results.Result:
    if isinstance(row, Row):
        return measure.run(row, folder, built, rounds)
    if isinstance(row, Memory):
        return memory.run(row, folder, built, rounds)
    if isinstance(row, Viewer):
        return viewer.run(row, folder, built, rounds)
    if isinstance(row, Relay):
        return relay.run(row, folder, built, rounds)
    if isinstance(row, Continue):
        return continue_.run(row, folder, built, rounds)
    if isinstance(row, Tls):
        return tls.run(row, folder, built, rounds)
    return burst.run(row, folder, built, rounds)


if __name__ == "__main__":
    sys.exit(main())
