"""Kinds of value of the [history] table."""

from __future__ import annotations

import re

from fastscreen.config.kinds import Text
from fastscreen.escaping import quoted

MAX_SAMPLE = 1_000_000
_SAMPLE = re.compile(r"sample 1/([1-9][0-9]{0,6})", re.ASCII)
_MASK = re.compile(r"/([0-9]{1,2}) /([0-9]{1,3})", re.ASCII)


class Known:
    """Which sessions of known clients are recorded: of how many one; 0: none."""

    expected = f'"all", "none", or "sample 1/N" with N up to {MAX_SAMPLE:,}'

    def parse(self, value: object) -> int:
        text = Text(self.expected).parse(value).lower()
        if text in ("all", "none"):
            return int(text == "all")
        found = _SAMPLE.fullmatch(text)
        if found is None or int(found[1]) > MAX_SAMPLE:
            raise ValueError(f"unknown value {quoted(text)}; expected {self.expected}")
        return int(found[1])


class Mask:
    """How many bits of an IPv4 and of an IPv6 address are kept; empty: all."""

    expected = 'two prefix lengths, such as "/24 /48", from "/8 /16" to "/32 /128", or ""'

    def parse(self, value: object) -> tuple[int, int] | None:
        text = Text(self.expected).parse(value)
        if not text:
            return None
        found = _MASK.fullmatch(text)
        bits = (int(found[1]), int(found[2])) if found else (0, 0)
        if not (8 <= bits[0] <= 32 and 16 <= bits[1] <= 128):
            raise ValueError(f"bad mask {quoted(text)}; expected {self.expected}")
        return bits
