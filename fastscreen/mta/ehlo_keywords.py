"""Keywords of the reply to EHLO that can be discarded (reference 5.6): what an MTA announces, and what clients get."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntFlag


class Keyword(IntFlag):
    """Keywords that can be discarded, in the order in which they are logged; SILENT is `silent-discard`."""

    EIGHTBITMIME = 1 << 0
    AUTH = 1 << 1
    ETRN = 1 << 2
    PIPELINING = 1 << 3
    SIZE = 1 << 4
    VERP = 1 << 5
    VRFY = 1 << 6
    XCLIENT = 1 << 7
    XFORWARD = 1 << 8
    STARTTLS = 1 << 9
    ENHANCEDSTATUSCODES = 1 << 10
    DSN = 1 << 11
    SMTPUTF8 = 1 << 12
    CHUNKING = 1 << 13
    REQUIRETLS = 1 << 14
    SILENT = 1 << 15


_WORDS = {"8BITMIME" if keyword is Keyword.EIGHTBITMIME else str(keyword.name): keyword for keyword in Keyword}
_WORDS["SILENT-DISCARD"] = _WORDS.pop("SILENT")


def parse_keywords(items: Iterable[str]) -> Keyword:
    """The set of some keywords, each item one or several between commas or white space; unknown ones are ignored."""
    found = Keyword(0)
    for item in items:
        for word in re.split(r"[\s,]+", item):
            found |= _WORDS.get(word.upper(), Keyword(0))
    return found


def keyword_words(discard: Keyword) -> str:
    """The words of a set as they are logged."""
    return ", ".join(word for word, keyword in _WORDS.items() if keyword in discard)
