"""The search for weights: against every combination where that is possible, and within its limits."""

import itertools
import random

import pytest

from fastscreen.core import WeightSearch
from fastscreen.tune.suggest import Sample, Weights, sample, suggest, with_margin


def test_hits() -> None:
    search = WeightSearch(3, [[0], [1, 2], []], [((0,), 5, 0), ((0, 1), 0, 7), ((2,), 100, 100)])
    assert search.hit([3, 0, 0], 3) == (5, 7), "one of its patterns is enough"
    assert search.hit([0, 2, 1], 3) == (0, 7)
    assert search.hit([0, 0, 0], 1) == (0, 0)
    assert search.hit([0, 0, 0], 0) == (105, 107)
    for wrong in ([[3]], [[-1]]):
        with pytest.raises(ValueError, match="feature"):
            WeightSearch(3, wrong, [])
    with pytest.raises(ValueError, match="pattern 1 of 1"):
        WeightSearch(3, [[0]], [((1,), 1, 1)])
    with pytest.raises(ValueError, match="2 weights instead of 3"):
        search.hit([1, 2], 1)


def random_sample(rng: random.Random, count: int) -> Sample:
    patterns = [[at for at in range(count) if rng.random() < 0.4] for _ in range(12)]
    groups = [((at,), rng.randrange(3), rng.randrange(20)) for at in range(12)]
    return Sample(count, patterns, groups)


@pytest.mark.parametrize("seed", range(12))
def test_as_good_as_trying_everything(seed: int) -> None:
    """With few features, nearly as many bad clients are found as by all combinations of weights."""
    rng = random.Random(seed)
    clients = random_sample(rng, 4)
    before = Weights(4, (2, 2, 1, 1))
    found = suggest(clients, before, 0.2)
    good, bad = clients.hit(found.weights, found.threshold)
    assert good <= 0.2 * clients.good
    best = max(
        clients.hit(weights, 6)[1]
        for weights in itertools.product(range(7), repeat=4)
        if clients.hit(weights, 6)[0] <= 0.2 * clients.good
    )
    assert bad >= 0.9 * best
    assert suggest(clients, before, 0.2) == found, "the same every time"


def test_two_that_only_help_together() -> None:
    """Each alone hits good clients."""
    patterns = [[0], [1], [0, 1]]
    clients = Sample(2, patterns, [((0,), 10, 0), ((1,), 10, 0), ((2,), 0, 50)])
    found = suggest(clients, Weights(3, (0, 0)), 0.0)
    assert clients.hit(found.weights, found.threshold) == (0, 50)


def test_an_allow_list_stays_one() -> None:
    clients = Sample(2, [[0], [0, 1]], [((0,), 0, 50), ((1,), 50, 0)])
    found = suggest(clients, Weights(3, (1, -1)), 0.0)
    assert clients.hit(found.weights, found.threshold) == (0, 50)
    assert found.weights[1] <= 0


def test_nothing_better_is_no_change() -> None:
    clients = Sample(1, [[0]], [((0,), 10, 10)])
    assert suggest(clients, Weights(3, (0,)), 0.0) == Weights(3, (0,))


def test_the_limit_comes_first() -> None:
    """Weights in force that reject too many good clients are reduced."""
    clients = Sample(2, [[0], [1]], [((0,), 10, 100), ((1,), 0, 5)])
    found = suggest(clients, Weights(1, (1, 1)), 0.001)
    assert clients.hit(found.weights, found.threshold) == (0, 5)


def test_from_the_judge() -> None:
    """Sites, then scorers: the first scorer stands for the lists."""
    found = sample(2, 3, [(0b01, 0), (0b10, 0b100)], {(0,): (1, 2), (0, 1): (0, 3)})
    assert (found.good, found.bad) == (1, 5)
    assert found.hit((1, 0, 0, 0), 1) == (1, 5)
    assert found.hit((0, 1, 0, 1), 2) == (0, 3)


def test_a_margin_for_chance() -> None:
    """So many good clients may be rejected that more of them would be seen if the limit were missed."""
    for good, most, allowed in ((1000, 0.005, 2), (430, 0.005, 0), (100, 0.001, 0), (20_000, 0.005, 91), (10, 1.0, 6)):
        share = with_margin(most, good)
        assert int(share * good) == allowed
        assert share <= most
    assert with_margin(0.0, 1000) == with_margin(0.1, 0) == 0.0
    # A limit of 2 %, and 2 % is true: seldom more is seen than is allowed, and seldom much less.
    rng = random.Random(1)
    seen = [sum(rng.random() < 0.02 for _ in range(500)) for _ in range(2000)]
    allowed = int(with_margin(0.02, 500) * 500)
    assert 0.1 < sum(each <= allowed for each in seen) / len(seen) < 0.2


def hit(clients: Sample, found: Weights) -> tuple[int, int]:
    return clients.hit(found.weights, found.threshold)


def test_a_guard() -> None:
    """Other clients for which the limit holds as well."""
    clients = Sample(2, [[0], [1]], [((0,), 0, 50), ((1,), 0, 40)])
    guard = Sample(2, [[0], [1]], [((0,), 10, 0), ((1,), 0, 1)])
    assert hit(clients, suggest(clients, Weights(3, (0, 0)), 0.0)) == (0, 90)
    assert hit(clients, suggest(clients, Weights(3, (0, 0)), 0.0, guard=(guard, 0.0))) == (0, 40)


def test_what_neighbors_did_is_never_enough() -> None:
    clients = Sample(2, [[0], [0, 1]], [((0,), 0, 50), ((1,), 0, 10)])
    assert hit(clients, suggest(clients, Weights(3, (0, 0)), 0.0)) == (0, 60)
    found = suggest(clients, Weights(3, (0, 0)), 0.0, capped=(0,))
    assert found.weights[0] < found.threshold
    assert hit(clients, found) == (0, 10)
