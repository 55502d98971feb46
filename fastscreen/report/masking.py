"""Masks secret query keys in the names of DNS lists, everywhere in a report.

`dnsbl.reply_map` defines how a list is shown. A log may contain lists that are missing there, so the known forms of
query keys are masked as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

MASK = "***"

_BEFORE = r"(?<![\w.@+=-])"
_FORMS = re.compile(
    # Spamhaus DQS: KEY.zen.dq.spamhaus.net; Abusix: KEY.combined.mail.abusix.zone; URIBL: KEY.df.uribl.com
    rf"{_BEFORE}[\w-]+(?=\.[\w-]+\.dq\.spamhaus\.net\b|\.[\w-]+\.mail\.abusix\.zone\b|\.df\.uribl\.com\b)"
    # any other: a label as long as a key, which list names never are, before a name of two or more labels
    rf"|{_BEFORE}(?=[\w]*[a-z])\w{{20,63}}(?=\.[\w-]+\.[a-z][\w-]+)",
    re.IGNORECASE | re.ASCII,
)

Record = TypeVar("Record")


class Masking:
    """Masks texts. reply_map: the domain of a list, and the name to show instead."""

    def __init__(self, reply_map: Mapping[str, str]) -> None:
        # the longest first, because one name may be the end of another
        self._shown = sorted(
            ((domain, shown) for domain, shown in reply_map.items() if domain != shown), key=lambda pair: -len(pair[0])
        )

    def text(self, text: str) -> str:
        """The text without keys."""
        for domain, shown in self._shown:
            text = text.replace(domain, shown)
        return _FORMS.sub(MASK, text) if "." in text else text

    def record(self, record: Record) -> Record:
        """The record with all texts masked. The counts of names that become equal are added."""
        return msgspec.convert(self._value(msgspec.to_builtins(record)), type(record))

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            made: dict[str, Any] = {}
            for key, item in value.items():
                shown = self.text(key)
                made[shown] = made[shown] + item if isinstance(made.get(shown), int) else self._value(item)
            return made
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value
