"""fastscreen cache export: as JSON lines, or as text from which postmap loads postscreen's cache."""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from fastscreen.cache.stamps import DISABLED, NEW
from fastscreen.cli import control_socket
from fastscreen.control.messages import CacheEntry
from fastscreen.core import TESTS
from fastscreen.format import plural

FORMATS = ("json", "postmap")

EXAMPLES = f"""\
examples:
  fastscreen cache export > cache.jsonl        then, on the new host: fastscreen cache import < cache.jsonl
  fastscreen cache export --format postmap > passes                              for the way back to postscreen
  setpriv --reuid postfix --regid postfix --clear-groups postmap -ir lmdb:/var/lib/postfix/postscreen_cache < passes

With --format postmap, each line has the form of a record in postscreen's cache: the client's address, and for each of
postscreen's five tests until when its pass is valid. Omitted, and counted on standard error, is what postscreen cannot
store: networks that share a record (by default each IPv6 /64), passes of tests that postscreen does not have, and
clients without any other pass. docs/import.md describes the way back.

{control_socket.EXIT_CODES}
"""

_SPECIAL = {"new": NEW, "disabled": DISABLED}
_THEIRS = tuple(test.key for test in TESTS if not test.own)
_OURS = tuple(test.key for test in TESTS if test.own)


def add_export(ways: argparse._SubParsersAction[argparse.ArgumentParser], run: Any) -> None:
    """Add `export` to `fastscreen cache`."""
    parser = ways.add_parser(
        "export",
        help="write all entries to standard output",
        description="Write all entries to standard output, as JSON lines or in the form of postscreen's cache.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="json",
        metavar="json|postmap",
        help="JSON lines (the default), or the lines that `postmap -i` reads into postscreen's cache",
    )
    control_socket.add_socket(parser)
    parser.set_defaults(run=run)


class Omitted(Struct):
    """What postscreen cannot store. written: the number of records that it can."""

    written: int = 0
    networks: int = 0
    without_pass: int = 0
    own_passes: int = 0

    def summary(self) -> str:
        """One line, with a count for each reason."""
        parts = [f"{plural(self.written, 'client')} written"]
        if self.networks:
            parts.append(f"{plural(self.networks, 'network')} omitted (postscreen stores single addresses only)")
        if self.without_pass:
            parts.append(f"{plural(self.without_pass, 'client')} omitted (no pass of a test that postscreen has)")
        if self.own_passes:
            named = ", ".join(_OURS)
            parts.append(f"{plural(self.own_passes, 'pass', 'passes')} omitted (postscreen has no test {named})")
        return "; ".join(parts)


def json_lines(entries: Iterable[CacheEntry]) -> Iterator[str]:
    """Each entry as a JSON object."""
    return (json.dumps(msgspec.to_builtins(entry)) for entry in entries)


def postmap_lines(entries: Iterable[CacheEntry], omitted: Omitted) -> Iterator[str]:
    """Each entry as postscreen's record `ADDRESS STAMP;STAMP;STAMP;STAMP;STAMP` (reference 7.1)."""
    for entry in entries:
        if "/" in entry.address:
            omitted.networks += 1
            continue
        stamps = {test: _stamp(value) for test, value in entry.passed_until.items()}
        omitted.own_passes += sum(stamps.get(test, DISABLED) > DISABLED for test in _OURS)
        theirs = [stamps.get(test, DISABLED) for test in _THEIRS]
        if max(theirs) <= DISABLED:
            omitted.without_pass += 1
            continue
        omitted.written += 1
        yield f"{ipaddress.ip_address(entry.address)}\t{';'.join(map(str, theirs))}"


def write(entries: Iterable[CacheEntry], form: str) -> None:
    """Print the entries; with "postmap", the counts go to standard error."""
    omitted = Omitted()
    for line in postmap_lines(entries, omitted) if form == "postmap" else json_lines(entries):
        print(line)
    if form == "postmap":
        sys.stdout.flush()
        print(omitted.summary(), file=sys.stderr)


def _stamp(value: float | str) -> int:
    """A time in whole seconds, or postscreen's number for a special value; an unknown one counts as disabled."""
    return _SPECIAL.get(value, DISABLED) if isinstance(value, str) else int(value)
