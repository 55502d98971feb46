"""Searches weights that reject as many bad clients as possible, and at most a given share of the good ones.

Coordinate ascent on whole numbers, from several starts: one weight is changed at a time, to the best value, then two
together, until nothing gets better. There is no chance in it, and the number of steps is limited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import NormalDist

from msgspec import Struct

from fastscreen.core import WeightSearch

THRESHOLDS = (2, 3, 4, 5, 6, 8, 10)
"""That are tried, after the one in force: a larger one allows finer differences between weights."""
MAX_STEPS = 20_000
MAX_WORK = 3_000_000_000
"""Steps times the size of the patterns: about 10 s."""
CONFIDENCE = 0.8
_MIN_STEPS = 200
_MANY = 200  # good clients within a limit: the normal distribution is close enough

Group = tuple[Sequence[int], int, int]
"""Patterns that clients showed, and the number of good and of bad ones."""


class Weights(Struct, frozen=True):
    """weights: of each feature; a negative one is that of an allow list."""

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


Guard = tuple[Sample, float]
"""Other clients, and the share of the good ones among them that may be rejected."""


def with_margin(most: float, good: int, confidence: float = CONFIDENCE) -> float:
    """The share of so many good clients that may be rejected, so that `most` is true of others with this confidence:
    those that were seen are a sample. If there are too few for that, 0."""
    limit = most * good
    if limit > _MANY:
        return (limit - NormalDist().inv_cdf(confidence) * math.sqrt(limit)) / good
    allowed, term, total = 0, math.exp(-limit), 0.0
    for count in range(math.ceil(limit) + 1):
        total += term
        if total > 1 - confidence:
            break
        allowed = count
        term *= limit / (count + 1)
    return (allowed + 0.5) / good if allowed else 0.0


def suggest(
    clients: Sample,
    before: Weights,
    most: float,
    advance: Callable[[float], None] = lambda share: None,
    *,
    guard: Guard | None = None,
    capped: Collection[int] = (),
    work: int = MAX_WORK,
) -> Weights:
    """The best weights that were found. before: those in force; a negative weight stays negative or becomes 0.

    most: the share of good clients that may be rejected, 0 to 1. advance: called with the share that is done. guard:
    holds as well. capped: features that must not reach the threshold alone. work: as MAX_WORK.
    """
    limits = ((clients, most), *((guard,) if guard is not None else ()))
    size = sum(each.size for each, _ in limits)
    thresholds = tuple(dict.fromkeys((before.threshold, *THRESHOLDS)))
    steps = max(_MIN_STEPS, min(MAX_STEPS, work // size)) // len(thresholds)
    best, best_rank = before, _rank(limits, before, before)
    for at, threshold in enumerate(thresholds):
        tops = [threshold - 1 if place in capped else threshold for place in range(len(before.weights))]
        for start in _starts(before, threshold):
            lowered = [min(weight, top) for weight, top in zip(start, tops, strict=True)]
            search = _Search(limits, before, threshold, lowered, tops, steps // 3)
            found = search.run()
            rank = _rank(limits, found, before)
            if rank > best_rank:
                best, best_rank = found, rank
        advance((at + 1) / len(thresholds))
    return best


Rank = tuple[bool, int, int, int, int]


def _rank(limits: Sequence[Guard], found: Weights, before: Weights) -> Rank:
    """Within the limits; then many bad clients, few good ones, small changes. limits: the first are the clients."""
    good, bad = limits[0][0].hit(found.weights, found.threshold)
    changes = sum(1 for new, old in zip(found.weights, before.weights, strict=True) if new != old)
    allowed = good <= limits[0][1] * limits[0][0].good
    for others, most in limits[1:]:
        if not allowed:
            break
        hit = others.hit(found.weights, found.threshold)[0]
        allowed = hit <= most * others.good
    return allowed, bad if allowed else -good, -good if allowed else bad, -changes, -sum(map(abs, found.weights))


def _starts(before: Weights, threshold: int) -> list[tuple[int, ...]]:
    """The weights in force in proportion, none, and half of the threshold for each."""
    scaled = tuple(round(weight * threshold / before.threshold) for weight in before.weights)
    half = tuple(-threshold if weight < 0 else (threshold + 1) // 2 for weight in before.weights)
    return [scaled, (0,) * len(scaled), half]


class _Search:
    def __init__(
        self,
        limits: Sequence[Guard],
        before: Weights,
        threshold: int,
        start: Sequence[int],
        tops: Sequence[int],
        steps: int,
    ) -> None:
        self._limits, self._before, self._threshold, self._tops = limits, before, threshold, tops
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
        return [-2 * value if negative else min(value, self._tops[place]) for value in values]

    def _rank_of(self, weights: Sequence[int]) -> Rank:
        return _rank(self._limits, Weights(self._threshold, tuple(weights)), self._before)
