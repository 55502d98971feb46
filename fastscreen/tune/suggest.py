"""Searches weights that reject as many bad clients as possible, and at most a given share of the good ones.

Coordinate ascent on whole numbers, from several starts: one weight is changed at a time, to the best value, then two
together, until nothing gets better. There is no chance in it, and the number of steps is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

from msgspec import Struct

from fastscreen.core import WeightSearch

THRESHOLDS = (2, 3, 4, 5, 6, 8, 10)
"""That are tried, after the one in force: a larger one allows finer differences between weights."""
MAX_STEPS = 20_000
MAX_WORK = 3_000_000_000
"""Steps times the size of the patterns: about 10 s."""
_MIN_STEPS = 200

Group = tuple[Sequence[int], int, int]
"""Patterns that clients showed, and the number of good and of bad ones."""


class Weights(Struct, frozen=True):
    """weights: of each feature. allows: the features with a weight that may be negative, as allow lists have."""

    threshold: int
    weights: tuple[int, ...]


class Share(Struct, frozen=True):
    """Clients that are rejected, of all."""

    good: int
    good_of: int
    bad: int
    bad_of: int


class Sample:
    """The clients of one period."""

    def __init__(self, count: int, patterns: Sequence[Sequence[int]], groups: Iterable[Group]) -> None:
        self.groups = sorted((tuple(members), good, bad) for members, good, bad in groups)
        self.good = sum(group[1] for group in self.groups)
        self.bad = sum(group[2] for group in self.groups)
        self.size = len(patterns) + sum(map(len, patterns)) + sum(len(group[0]) for group in self.groups) + 1
        self._search = WeightSearch(count, patterns, self.groups)

    def hit(self, weights: Sequence[int], threshold: int) -> tuple[int, int]:
        """How many good and bad clients are rejected."""
        return self._search.hit(weights, threshold)

    def share(self, found: Weights) -> Share:
        good, bad = self.hit(found.weights, found.threshold)
        return Share(good, self.good, bad, self.bad)


def sample(
    sites: int,
    scorers: int,
    patterns: Iterable[tuple[int, int]],
    groups: Mapping[tuple[int, ...], tuple[int, int]],
) -> Sample:
    """What HistoryJudge has collected. The features are the sites, then the scorers after the lists."""
    features = [
        [at for at in range(sites) if hit >> at & 1]
        + [sites + at - 1 for at in range(1, scorers) if evidence >> at & 1]
        for hit, evidence in patterns
    ]
    return Sample(sites + scorers - 1, features, ((members, *counts) for members, counts in groups.items()))


def suggest(
    clients: Sample, before: Weights, most: float, advance: Callable[[float], None] = lambda share: None
) -> Weights:
    """The best weights that were found. before: those in force; a negative weight stays negative or becomes 0.

    most: the share of good clients that may be rejected, 0 to 1. advance: called with the share that is done.
    """
    thresholds = tuple(dict.fromkeys((before.threshold, *THRESHOLDS)))
    steps = max(_MIN_STEPS, min(MAX_STEPS, MAX_WORK // clients.size)) // len(thresholds)
    best, best_rank = before, _rank(clients, before, before, most)
    for at, threshold in enumerate(thresholds):
        for start in _starts(before, threshold):
            search = _Search(clients, before, most, threshold, start, steps // 3)
            found = search.run()
            rank = _rank(clients, found, before, most)
            if rank > best_rank:
                best, best_rank = found, rank
        advance((at + 1) / len(thresholds))
    return best


Rank = tuple[bool, int, int, int, int]


def _rank(clients: Sample, found: Weights, before: Weights, most: float) -> Rank:
    """Within the limit; then many bad clients, few good ones, small changes."""
    good, bad = clients.hit(found.weights, found.threshold)
    changes = sum(1 for new, old in zip(found.weights, before.weights, strict=True) if new != old)
    allowed = good <= most * clients.good
    return allowed, bad if allowed else -good, -good if allowed else bad, -changes, -sum(map(abs, found.weights))


def _starts(before: Weights, threshold: int) -> list[tuple[int, ...]]:
    """The weights in force in proportion, none, and half of the threshold for each."""
    scaled = tuple(round(weight * threshold / before.threshold) for weight in before.weights)
    half = tuple(-threshold if weight < 0 else (threshold + 1) // 2 for weight in before.weights)
    return [scaled, (0,) * len(scaled), half]


class _Search:
    def __init__(
        self, clients: Sample, before: Weights, most: float, threshold: int, start: tuple[int, ...], steps: int
    ) -> None:
        self._clients, self._before, self._most, self._threshold = clients, before, most, threshold
        self._weights = list(start)
        self._steps = steps
        self._best = self._rank_of(self._weights)

    def run(self) -> Weights:
        better = True
        while better and self._steps > 0:
            better = self._all((at,) for at in range(len(self._weights)))
            better = better or self._all(combinations(range(len(self._weights)), 2))
        return Weights(self._threshold, tuple(self._weights))

    def _all(self, choices: Iterable[tuple[int, ...]]) -> bool:
        """Try each of them. Whether something got better."""
        found = False
        for places in choices:
            found = self._try(places) or found
        return found

    def _try(self, places: tuple[int, ...]) -> bool:
        """Change the weights at one or two places to the best values."""
        found = None
        for values in self._values(places):
            changed = list(self._weights)
            for place, value in zip(places, values, strict=True):
                changed[place] = value
            if changed == self._weights:
                continue
            if self._steps <= 0:
                break
            self._steps -= 1
            rank = self._rank_of(changed)
            if rank > self._best:
                found, self._best = changed, rank
        if found is None:
            return False
        self._weights = found
        return True

    def _values(self, places: tuple[int, ...]) -> list[tuple[int, ...]]:
        top = self._threshold
        if len(places) == 1:
            return [(value,) for value in self._range(places[0], range(top + 1))]
        halves = sorted({0, top // 2, (top + 1) // 2, top})
        first, second = (self._range(place, halves) for place in places)
        return [(one, other) for one in first for other in second]

    def _range(self, place: int, values: Iterable[int]) -> list[int]:
        negative = self._before.weights[place] < 0
        return [-2 * value if negative else value for value in values]

    def _rank_of(self, weights: Sequence[int]) -> Rank:
        return _rank(self._clients, Weights(self._threshold, tuple(weights)), self._before, self._most)
