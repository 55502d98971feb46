"""`PYTHONPATH=tests .venv/bin/python -m soak`: see --help. Needs root, for its namespaces."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from soak.faults import FAULTS
from soak.nemesis import chosen
from soak.run import run
from soak.settings import Options

_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def main() -> int:
    """Exit code: 0, 1 when an invariant did not hold, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="soak", description="Run fastscreen under mixed traffic and faults, and check what must hold."
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="which faults come when (default: 1)")
    parser.add_argument("--rate", type=float, default=60.0, help="clients per second (default: 60)")
    parser.add_argument("--workers", type=int, default=2, help="of fastscreen (default: 2)")
    parser.add_argument("--handoff", choices=("pass", "proxy"), help="default: pass for odd seeds, proxy for even ones")
    parser.add_argument("--faults", default="", metavar="A,B", help="only these")
    parser.add_argument("--without", default="", metavar="A,B", help="not these")
    parser.add_argument("--list", action="store_true", help="show the faults and end")
    parser.add_argument("--keep", action="store_true", help="keep the folder, also after a run without a violation")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        for fault in FAULTS.values():
            print(f"{fault.name:34} {fault.least:g}-{fault.most:g} s{', long' if fault.long else ''}: {fault.row}")
        return 0
    names, without = (tuple(filter(None, text.split(","))) for text in (arguments.faults, arguments.without))
    try:
        chosen(names, without, arguments.minutes)
    except ValueError as error:
        parser.error(str(error))
    if arguments.inside is not None:
        handoff = arguments.handoff or ("pass" if arguments.seed % 2 else "proxy")
        return _inside(
            Options(
                arguments.inside,
                arguments.minutes,
                arguments.seed,
                arguments.rate,
                arguments.workers,
                handoff,
                names,
                without,
            )
        )
    if os.geteuid() != 0:
        parser.error("needs root, for its namespaces")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-soak-"))
    folder.chmod(0o755)
    command = [*_UNSHARE, sys.executable, "-m", "soak", *sys.argv[1:], "--inside", str(folder)]
    code = subprocess.call(command)
    if code or arguments.keep:
        print(f"evidence: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _inside(options: Options) -> int:
    """As process 1 of the namespace: reap orphaned processes, and return the exit code of the run."""
    child = os.fork()
    if not child:
        os._exit(_guarded(options))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _guarded(options: Options) -> int:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not: that a client wrote to a connection that ended
    try:
        return asyncio.run(run(options))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        _keep_logs(options.folder)
        sys.stdout.flush()


def _keep_logs(folder: Path) -> None:
    """Its file system ends with the namespace."""
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    for path in (folder / "log").glob("log*"):
        if path.is_file():
            shutil.copy(path, kept)


if __name__ == "__main__":
    sys.exit(main())
