"""Which records of the memory are still to be shared with other hosts. Only keys are kept: a record that changes again
before its turn is sent once, as it is then.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastscreen.core import OffenseRules, offense_summary
from fastscreen.offenses.packets import Record

RATE = 200
"""Records per second at most."""
MOST = 20_000
"""Keys; then the oldest ones of networks that did nothing bad are dropped."""


class Outbox:
    """For the writer's thread."""

    def __init__(self) -> None:
        self._bad: dict[bytes, None] = {}  # networks in which somebody has committed an offense; they go first
        self._others: dict[bytes, None] = {}
        self.dropped = 0
        """Records that are shared only when they change again, because too many waited."""

    def __len__(self) -> int:
        return len(self._bad) + len(self._others)

    def put(self, keys: Iterable[bytes], *, is_bad: bool) -> None:
        """Records have changed."""
        if is_bad:
            for key in keys:
                self._others.pop(key, None)
                self._bad[key] = None
        else:
            self._others.update((key, None) for key in keys if key not in self._bad)
        while len(self) > MOST:
            some = self._others or self._bad
            del some[next(iter(some))]
            self.dropped += 1

    def take(self, most: int = RATE) -> list[bytes]:
        """The keys whose turn it is."""
        found: list[bytes] = []
        for some in (self._bad, self._others):
            while some and len(found) < most:
                key = next(iter(some))
                del some[key]
                found.append(key)
        return found

    def put_recent(self, records: Iterable[Record], since: int, today: int, rules: OffenseRules) -> None:
        """Those of the records that changed on this day (days since 1970) or later."""
        for key, value in records:
            summary = offense_summary(value, today, rules)
            if key[:1] != b"a" and summary is not None and summary[1] and summary[3] >= since:
                self.put([key], is_bad=summary[0] > 0)
