"""Log lines: stamp, host and ident, the text, and what is not printable replaced.

The text is given ready as `str`, which is encoded each time; the core puts its own together from pieces in place.
"""

import os

import pytest

from bench.micro.conftest import Measure
from bench.micro.samples import addresses
from fastscreen.core import Log

COUNT = 1_000


@pytest.mark.parametrize("rfc3339", [False, True], ids=["traditional", "rfc3339"])
def test_line(measure: Measure, rfc3339: bool) -> None:
    log = Log("postfix/postscreen", rfc3339=rfc3339, host="mx", pid=os.getpid())
    texts = [f"CONNECT from [{address}]:51234 to [192.0.2.25]:25" for address in addresses(3, COUNT)]

    def write() -> bytes:
        for text in texts:
            log.info(text)
        return log.lines()

    stamp = "RFC 3339 time stamp" if rfc3339 else "traditional time stamp"
    lines = measure(f"log: formatting a line, {stamp}", COUNT, write).splitlines()
    assert [line.partition(b"]: ")[2].decode() for line in lines] == texts


def test_hostile_line(measure: Measure) -> None:
    """An escape character in every tenth byte."""
    log = Log("postfix/postscreen", host="mx", pid=os.getpid())
    text = "NOQUEUE: \x1b" * 20

    def write() -> bytes:
        for _ in range(COUNT):
            log.info(text)
        return log.lines()

    lines = measure("log: formatting a line with control characters", COUNT, write).splitlines()
    assert len(lines) == COUNT
    assert all(b"\x1b" not in line and line.endswith(b"NOQUEUE: ?" * 20) for line in lines)
