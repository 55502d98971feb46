"""Judges labeled sessions (foreign.py): plays them through the memory of offenses, adds up scores, searches weights.

The memory learns labels, not verdicts, as in shadow mode. So what sessions show does not depend on the weights, and
weights can be searched without playing the sessions again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import msgspec
from msgspec import Struct

from fastscreen.config.model import Config
from fastscreen.core import SCORERS, OffenseRules
from fastscreen.tune.foreign import FINDINGS, LABELS, Labeled
from fastscreen.tune.suggest import MAX_WORK, Sample, Share, Weights, suggest, with_margin

DELAY = 3600
"""Seconds until the memory learns the label of a session."""
SEEN_MIN = (1, 2, 3, 5)
AS_SHARE = (50, 75, 90)
HALF_LIFE = (14 * 86400, 30 * 86400)
AS_HALF_LIFE = (90 * 86400, 180 * 86400, 365 * 86400)
"""Values that are tried, next to those in force."""

_GAIN = 0.01  # of the bad addresses: what another value of one of these must catch in addition
_ROUNDS = 3
_WARM_CONFIDENCE = 0.7  # fewer addresses than in all of the time
_SEARCHES = 8  # share the work of one: they are many, and what sessions show without lists is little
_SCORERS = tuple(scorer.key for scorer in SCORERS)
_SEEN_ADDRESS, _SEEN_NETWORK, _SEEN_AS = (
    1 << _SCORERS.index(key) for key in ("seen_address", "seen_network", "seen_as")
)


class MemorySettings(Struct, frozen=True):
    """How the memory of offenses counts, by the names of the keys in `[score]`. Half-lives in s, a share in percent."""

    memory_half_life: int
    as_half_life: int
    seen_min: int
    seen_as_share: int


def memory_of(config: Config) -> MemorySettings:
    """The settings of a configuration."""
    return MemorySettings(*(getattr(config.score, key) for key in MemorySettings.__struct_fields__))


def weights_of(config: Config) -> Weights:
    """The weights of the sites, then of the scorers after the lists."""
    scorers = tuple(config.weights[key] for key in _SCORERS[1:])
    return Weights(config.dnsbl.threshold, tuple(site.weight for site in config.dnsbl.sites) + scorers)


# ---- what sessions show


class Shape(Struct, frozen=True):
    """All that a session shows. sites: by index, scorers, findings: one bit each. unused: TLS was offered. failed: a
    test whose action is enforce or drop."""

    sites: int
    scorers: int
    findings: int
    unused: bool
    failed: bool


Groups = dict[tuple[Shape, ...], tuple[int, int]]
"""What addresses showed: for each set of shapes, how many good and how many bad ones."""


class Part(Struct, frozen=True):
    """The sessions of a part of the time. sessions: how many have a shape, good and bad."""

    sessions: dict[Shape, tuple[int, int]]
    groups: Groups

    @property
    def good(self) -> int:
        """The number of good addresses."""
        return sum(good for good, _ in self.groups.values())

    @property
    def bad(self) -> int:
        """The number of bad addresses."""
        return sum(bad for _, bad in self.groups.values())


class Player:
    """Plays sessions through the memory of offenses. memory: the settings in force.

    delay: s until a label is known. most: records of the memory. advance: called with numbers of sessions.
    """

    def __init__(
        self,
        labeled: Labeled,
        memory: MemorySettings,
        delay: float,
        most: int,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._labeled = labeled
        self._delay = delay
        self._most = most
        self._least_values = sorted({memory.seen_min, *SEEN_MIN})
        self._shares = sorted({memory.seen_as_share, *AS_SHARE})
        self._advance = advance
        self._offending = bytes(pattern.findings != 0 for pattern in labeled.patterns)
        self._played: tuple[int, int] | None = None
        self.dropped = 0

    def part(self, memory: MemorySettings, begin: float = 0.0, end: float = float("inf")) -> Part:
        """What the sessions of a time (s since 1970) show. Only other half-lives need another round."""
        sessions = self._labeled.sessions
        if self._played != (memory.memory_half_life, memory.as_half_life):
            rules = OffenseRules(memory.memory_half_life, as_half_life=memory.as_half_life)
            self.dropped = sessions.play(
                rules, self._least_values, self._shares, self._delay, self._most, self._offending, self._advance
            )
            self._played = memory.memory_half_life, memory.as_half_life
        first, last = sessions.before(begin), sessions.before(end)
        counts: dict[Shape, tuple[int, int]] = {}
        for (pattern, seen, is_good), count in sessions.shapes(first, last).items():
            shape = self._shape(memory, pattern, seen)
            good, bad = counts.get(shape, (0, 0))
            counts[shape] = (good + count, bad) if is_good else (good, bad + count)
        shown, sets = sessions.groups(first, last)
        # Several numbers stand for one shape, because what the memory shows is kept for several settings.
        shapes = [self._shape(memory, *each) for each in shown]
        order = {shape: at for at, shape in enumerate(counts)}
        groups: Groups = {}
        for members, (good, bad) in sets.items():
            key = tuple(sorted({shapes[member] for member in members}, key=order.__getitem__))
            before = groups.get(key, (0, 0))
            groups[key] = before[0] + good, before[1] + bad
        return Part(counts, groups)

    def _shape(self, memory: MemorySettings, number: int, seen: int) -> Shape:
        """seen: see LabeledSessions.shapes."""
        pattern = self._labeled.patterns[number]
        least = self._least_values.index(memory.seen_min)
        scorers = pattern.scorers
        scorers |= _SEEN_ADDRESS if seen & 1 else 0
        scorers |= _SEEN_NETWORK if seen >> 1 & 7 > least else 0
        if seen >> 4 & 7 > least and seen >> 7 & 7 > self._shares.index(memory.seen_as_share):
            scorers |= _SEEN_AS
        return Shape(pattern.sites, scorers, pattern.findings, pattern.unused, pattern.failed)


# ---- scores


class Feature(Struct):
    """A list, scorer or test. Pairs are of good and bad ones. decisive: addresses that are caught, and would not be
    without it. both: sessions that also show another one."""

    sessions: list[int]
    addresses: list[int]
    decisive: list[int]
    both: dict[str, int]


class Judged(Struct, frozen=True):
    """Sessions and addresses, all and caught, by label; and what they show, by name."""

    sessions: dict[str, list[int]]
    addresses: dict[str, list[int]]
    features: dict[str, Feature]


class Judge:
    """Adds up scores. config: for the names of lists and the allow list threshold."""

    def __init__(self, config: Config) -> None:
        self._domains = [site.domain for site in config.dnsbl.sites]
        self._allow = config.dnsbl.allowlist_threshold

    def judge(self, part: Part, weights: Weights) -> Judged:
        """What is caught, and what shows it."""
        caught = {shape: self._is_caught(shape, weights) for shape in part.sessions}
        names = {shape: self._names(shape) for shape in part.sessions}
        sessions = {label: [0, 0] for label in LABELS}
        addresses = {label: [0, 0] for label in LABELS}
        features = {
            name: Feature([0, 0], [0, 0], [0, 0], {}) for name in sorted(set(chain.from_iterable(names.values())))
        }
        for shape, counts in part.sessions.items():
            for label, count in zip(LABELS, counts, strict=True):
                sessions[label][0] += count
                sessions[label][1] += count * caught[shape]
            for name in names[shape]:
                feature = features[name]
                _add(feature.sessions, counts)
                for other in names[shape]:
                    if other != name:
                        feature.both[other] = feature.both.get(other, 0) + sum(counts)
        without: dict[tuple[Shape, str], bool] = {}
        for members, counts in part.groups.items():
            catching = [shape for shape in members if caught[shape]]
            for label, count in zip(LABELS, counts, strict=True):
                addresses[label][0] += count
                addresses[label][1] += count * bool(catching)
            for name in set(chain.from_iterable(names[shape] for shape in members)):
                _add(features[name].addresses, counts)
                if catching and not any(self._without(shape, name, names, weights, without) for shape in catching):
                    _add(features[name].decisive, counts)
        return Judged(sessions, addresses, features)

    def _without(
        self,
        shape: Shape,
        name: str,
        names: dict[Shape, list[str]],
        weights: Weights,
        known: dict[tuple[Shape, str], bool],
    ) -> bool:
        """Whether a session is caught without a feature. known: what was found before."""
        if name not in names[shape]:
            return True
        key = shape, name
        if key not in known:
            known[key] = self._is_caught(shape, weights, name)
        return known[key]

    def _is_caught(self, shape: Shape, weights: Weights, without: str = "") -> bool:
        lists = rest = 0
        for at, weight in enumerate(weights.weights):
            site = at < len(self._domains)
            number = at if site else at - len(self._domains) + 1
            if not (shape.sites if site else shape.scorers) >> number & 1:
                continue
            if without != (f"list:{self._domains[number]}" if site else f"scorer:{_SCORERS[number]}"):
                lists += weight if site else 0
                rest += 0 if site else weight
        if self._allow < 0 and lists <= self._allow:
            return False
        failed = shape.failed and (without[:5] != "test:" or shape.findings != 1 << FINDINGS.index(without[5:]))
        return failed or lists + rest >= weights.threshold

    def _names(self, shape: Shape) -> list[str]:
        names = [f"list:{domain}" for at, domain in enumerate(self._domains) if shape.sites >> at & 1]
        names += [f"scorer:{key}" for at, key in enumerate(_SCORERS) if shape.scorers >> at & 1]
        names += [f"test:{key}" for at, key in enumerate(FINDINGS) if shape.findings >> at & 1]
        names += ["tls:unused"] if shape.unused else []
        return list(dict.fromkeys(names))


def _add(pair: list[int], more: Sequence[int]) -> None:
    pair[0] += more[0]
    pair[1] += more[1]


def share(found: Judged) -> Share:
    """The addresses that are caught, of all."""
    (good_of, good), (bad_of, bad) = found.addresses["good"], found.addresses["bad"]
    return Share(good, good_of, bad, bad_of)


# ---- the search


def neighbors(count: int) -> tuple[int, ...]:
    """The scorers of neighbors, by place among so many weights. Nobody is to be rejected for what these did alone."""
    places = range(count - len(_SCORERS) + 1, count)
    return tuple(place for place, key in zip(places, _SCORERS[1:], strict=True) if key in ("seen_network", "seen_as"))


def sample(part: Part, count: int) -> Sample:
    """For the search: the addresses, by what their sessions show that fail no test. count: of the weights. The search
    does not know dnsbl.allowlist_threshold: a client counts as rejected although an allow list may let it pass.
    """
    sites = count - len(_SCORERS) + 1
    numbers = {shape: at for at, shape in enumerate(shape for shape in part.sessions if not shape.failed)}
    patterns = [
        [at for at in range(sites) if shape.sites >> at & 1]
        + [sites + at - 1 for at in range(1, len(_SCORERS)) if shape.scorers >> at & 1]
        for shape in numbers
    ]
    groups: dict[tuple[int, ...], list[int]] = {}
    for members, counts in part.groups.items():
        if key := tuple(numbers[shape] for shape in members if shape in numbers):
            _add(groups.setdefault(key, [0, 0]), counts)
    return Sample(count, patterns, ((members, good, bad) for members, (good, bad) in groups.items()))


class Suggested(Struct, frozen=True):
    """What was found."""

    weights: Weights
    memory: MemorySettings


def search(
    player: Player,
    before: Weights,
    memory: MemorySettings,
    most: float,
    period: tuple[float, float],
    advance: Callable[[int], None] = lambda count: None,
) -> Suggested:
    """Search weights and how the memory counts, on the sessions of a period. most: the share of good addresses that may
    be caught. advance: called for each search.

    In the first half of the period the memory is nearly empty, and catches less than it would: so the limit holds for
    the second half as well.
    """
    middle = sum(period) / 2
    found: dict[MemorySettings, tuple[int, Weights]] = {}

    def rated(settings: MemorySettings) -> tuple[int, Weights]:
        """How many bad addresses the best weights catch."""
        if settings not in found:
            count = len(before.weights)
            whole = sample(player.part(settings, *period), count)
            warm = sample(player.part(settings, middle, period[1]), count)
            weights = suggest(
                whole,
                before,
                with_margin(most, whole.good),
                guard=(warm, with_margin(most, warm.good, _WARM_CONFIDENCE)),
                capped=neighbors(count),
                work=MAX_WORK // _SEARCHES,
            )
            good, bad = whole.hit(weights.weights, weights.threshold)
            found[settings] = bad if good <= most * whole.good else -good, weights
            advance(1)
        return found[settings]

    best = memory
    bad = max(1, player.part(memory, *period).bad)
    for _ in range(_ROUNDS):
        start = best
        for key, values in _tried(memory):
            for value in values:
                other = msgspec.structs.replace(best, **{key: value})
                if rated(other)[0] > rated(best)[0] + _GAIN * bad:
                    best = other
        if best == start:
            break
    return Suggested(rated(best)[1], best)


def _tried(memory: MemorySettings) -> Iterable[tuple[str, Sequence[int]]]:
    """The values of each setting, those in force first. Half-lives come last: each needs a round of all sessions."""
    yield "seen_min", SEEN_MIN
    yield "seen_as_share", AS_SHARE
    yield "as_half_life", AS_HALF_LIFE
    yield "memory_half_life", HALF_LIFE
