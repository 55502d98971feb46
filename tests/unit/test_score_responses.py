"""Responses to a score: what a configuration may ask for, what the cache keeps, what explain and tune say."""

from pathlib import Path

import msgspec
import pytest

from fastscreen.cache.stamps import DISABLED, NEW, STAMP_MAX, TESTS, first_expiry, is_retained, pack_stamps
from fastscreen.config import ConfigError, load
from fastscreen.config.load import parse
from fastscreen.config.model import Action, Pass, Proxy
from fastscreen.control import protocol
from fastscreen.control.messages import Evidence
from fastscreen.control.mx_policy import Arrival
from fastscreen.control.verdict import LATER, Facts, Limits, judge
from fastscreen.core import TESTS as ALL_TESTS
from fastscreen.core import deferred_at
from fastscreen.history.settings import described
from fastscreen.process.descriptor_limits import relays
from fastscreen.screening.access_list import Found
from fastscreen.screening.policy import Tables, settings_by_test
from fastscreen.tune.settings import tried

SCORE = [test.key for test in ALL_TESTS].index("score")
NOW = 1_796_000_000
DAY = 86400


# ---- the configuration


def test_defaults() -> None:
    config = parse("", "x")
    score = config.score
    assert score.action is Action.SHADOW
    assert (score.defer_from, score.doubtful_from, score.slow_from, score.slow_by) == (0, 0, 0, 1)
    assert config.handoff.doubtful_to is None


def test_each_test_has_its_action() -> None:
    config = parse('[dnsbl]\naction = "drop"\n[score]\naction = "enforce"\nno_tls = 1\n', "x")
    found = settings_by_test(config)
    assert (found["dnsbl"][1], found["score"][1]) == (Action.DROP, Action.ENFORCE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[score]\ndefer_from = 1\n",
            "score.defer_from: 1 is not below dnsbl.threshold, which is 1; expected 0 (line 2)",
        ),
        (
            "[dnsbl]\nthreshold = 3\n[score]\ndefer_from = 3\n",
            "score.defer_from: 3 is not below dnsbl.threshold, which is 3; expected 1 to 2, or 0",
        ),
        (
            '[dnsbl]\nthreshold = 3\n[score]\ndoubtful_from = 5\n[handoff]\ndoubtful_to = "pass:/a"\n',
            "score.doubtful_from: 5 is not below dnsbl.threshold, which is 3; expected 1 to 2, or 0",
        ),
        (
            '[handoff]\ndoubtful_to = "pass:/a"\n',
            "score.doubtful_from: missing, but handoff.doubtful_to is set; expected",
        ),
        (
            "[dnsbl]\nthreshold = 3\n[score]\ndoubtful_from = 2\n",
            "handoff.doubtful_to: missing, but score.doubtful_from is",
        ),
        ('[score]\nslow_by = "31s"\n', 'score.slow_by: 31s is out of range; expected at most "30s" (line 2)'),
        ('[score]\naction = "off"\n', "score.action: "),
        (
            '[handoff]\ndoubtful_to = "sink:"\n',
            'handoff.doubtful_to: bad target "sink:"; expected "", "pass:/PATH", "proxy:',
        ),
        (
            '[handoff]\ndoubtful_to = "smtp"\n',
            'handoff.doubtful_to: bad target "smtp"; expected "", "pass:/PATH", "proxy:',
        ),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, "x")
    assert [each for each in error.value.problems if each.startswith(f"x: {problem}")], error.value.problems
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("to", "kind"), [('"pass:/a"', Pass), ('"proxy:127.0.0.1:26"', Proxy), ('["proxy:127.0.0.1:26"]', Proxy)]
)
def test_forms(to: str, kind: type) -> None:
    text = f"[dnsbl]\nthreshold = 3\n[score]\ndoubtful_from = 2\n[handoff]\ndoubtful_to = {to}\n"
    config = parse(text, "x")
    assert isinstance(config.handoff.doubtful_to, kind)
    assert relays(config) == (kind is Proxy)


WARNINGS = [
    (
        '[score]\naction = "ignore"\ndefer_from = 2\nslow_from = 1\n',
        "score.action is ignore: score.defer_from, score.slow_from are",
    ),
    ('[score]\ndefer_from = 2\n[cache]\npath = ""\n', "cache.path is empty: no client is deferred by score.defer_from"),
    (
        '[score]\nno_tls = 1\ndoubtful_from = 2\n[handoff]\ndoubtful_to = "proxy:127.0.0.1:26"\n',
        "handoff.doubtful_to is not used: new clients get a 450",
    ),
    (
        '[score]\nno_tls = 1\ndoubtful_from = 2\n[handoff]\ndoubtful_to = "pass:/a"\ncontinue_to = "proxy:[::1]:25"\n',
        "handoff.doubtful_to is not used: sessions can only continue",
    ),
    ('[score]\ndoubtful_from = 2\n[handoff]\ndoubtful_to = "pass:/a"\n', ""),
    ("[score]\ndefer_from = 2\nslow_from = 2\n", ""),
]


@pytest.mark.parametrize(("text", "warning"), WARNINGS)
def test_warnings(text: str, warning: str) -> None:
    """Responses that do nothing are named at the start, and by check."""
    found = Tables(parse(f"[dnsbl]\nthreshold = 3\n{text}", "x")).warnings
    assert [each.startswith(warning) for each in found] == ([True] if warning else [])


def test_what_tune_cannot_judge(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text("[dnsbl]\nthreshold = 4\n")
    with pytest.raises(ValueError, match=r"score\.defer_from: cannot be judged: what clients would have done after"):
        tried(file, None, ["score.defer_from=2"])
    assert tried(file, None, ["score.action=drop", "score.no_tls=1"]).settings.tests["score"].action == "drop"
    recorded = described(load(file), settings_by_test(load(file)), {})
    assert tried(recorded, None, ["score.no_tls=1"]).settings.tests["score"].action == "shadow"


# ---- the cache


@pytest.mark.parametrize("time_", [NOW, NOW + 1, NOW + 3, 2**30 + 4, 2**32 - 8])
def test_stamps(time_: int) -> None:
    """A deferral is never a pass, for anything that reads it, and a real stamp is never a deferral."""
    stamp = (time_ + 3) >> 2
    assert time_ <= deferred_at(stamp) < time_ + 4
    assert stamp < NOW
    for other in (NEW, DISABLED, 1000, time_, NOW + 400 * DAY, STAMP_MAX):
        assert deferred_at(other) == 0 or other < 2**30


def record(score: int) -> bytes:
    stamps = [NOW + DAY] * TESTS
    stamps[SCORE] = score
    return pack_stamps(tuple(stamps))


def test_cleanup_keeps_a_deferral() -> None:
    """It is as old as the deferral, and not as the date that its stamp seems to be."""
    value = record(NOW >> 2)
    assert is_retained(value, (0, SCORE), NOW - 7 * DAY)
    assert not is_retained(value, (0, SCORE), NOW + 1)
    assert not is_retained(record(NEW), (0, SCORE), NOW - 7 * DAY)
    assert first_expiry(value, (0, SCORE)) == NOW
    assert first_expiry(record(NEW), (0, SCORE)) == NEW


def test_shown() -> None:
    assert protocol.expiry(NOW >> 2) == "deferred"
    assert protocol.expiry(NOW) == NOW
    assert protocol.stamps({"score": "deferred"})[SCORE] == NEW


# ---- explain

SLOW = '[dnsbl]\nthreshold = 4\n[score]\naction = "enforce"\nhelo_reserved = 2\n'
DOUBTFUL = 'doubtful_from = 1\n[handoff]\ndoubtful_to = "pass:/a"\n'
SEEN = Evidence("helo_reserved", 2, "localhost")


def facts(stamps: tuple[int, ...] | None = None) -> Facts:
    return Facts(
        address="192.0.2.1",
        now=NOW,
        access=Found(),
        bypassed=False,
        sessions=0,
        relayed=0,
        counted=0,
        rate=0,
        network_rate=0,
        stamps=stamps,
        score=None,
        asked=0,
        shown={},
        limits=Limits(0, 0, 0, 100, 100, 100, stress=False),
        key="192.0.2.1",
        arrival=Arrival("192.0.2.9", open=True, others=False),
        evidence=(SEEN,),
    )


def steps(text: str) -> list[str]:
    found = judge(parse(SLOW + text, "x"), facts())
    return [each.text for each in found.steps if each.step == "score"]


def test_explain() -> None:
    assert f"score.defer_from is 2: deferred once with {LATER}" in steps("defer_from = 2\n")
    assert not [text for text in steps("defer_from = 3\n") if "defer_from" in text]
    assert "score.slow_from is 1: replies are delayed by 2 s each" in steps('slow_from = 1\nslow_by = "2s"\n')
    assert "score.doubtful_from is 1: if it passes, it goes to handoff.doubtful_to" in steps(DOUBTFUL)
    assert steps("")[0].endswith("dnsbl.threshold is 4, score.action is enforce")


def test_explain_of_a_deferred_client() -> None:
    """It is still a new one, wherever its other passes came from."""
    stamps = [NOW + DAY] * TESTS
    stamps[SCORE] = (NOW - 100) >> 2
    config = parse(SLOW + DOUBTFUL.replace("doubtful_from", "defer_from = 1\ndoubtful_from"), "x")
    doubtful = "score.doubtful_from is 1: if it passes, it goes to handoff.doubtful_to"
    relayed = msgspec.structs.replace(facts(tuple(stamps)), sessions=1)
    assert doubtful in [each.text for each in judge(config, relayed).steps]
    stamps[SCORE] = NOW - 100  # its pass has expired
    relayed = msgspec.structs.replace(relayed, stamps=tuple(stamps))
    assert doubtful not in [each.text for each in judge(config, relayed).steps]


def test_explain_in_shadow() -> None:
    config = parse(SLOW.replace("enforce", "shadow") + "slow_from = 1\n", "x")
    found = judge(config, facts())
    assert found.steps[-2].text == "in shadow mode, only logged: score.slow_from is 1: replies are delayed by 1 s each"
    config = parse(SLOW.replace("enforce", "ignore") + "slow_from = 1\n", "x")
    assert "slow_from" not in str(judge(config, facts()).steps)


@pytest.mark.parametrize(
    ("age", "admitted"), [(0, False), (59, False), (64, True), (2 * DAY, True), (2 * DAY + 4, False), (-3600, True)]
)
def test_explain_a_deferred_client(age: int, admitted: bool) -> None:
    at = NOW - age
    stamps = [NOW + DAY] * TESTS
    stamps[SCORE] = (at + 3) >> 2
    found = judge(parse(SLOW + "defer_from = 2\n", "x"), facts(tuple(stamps)))
    assert found.verdict == ("cached" if admitted else "reconnect")
    assert any("the score test counts as passed" in each.text for each in found.steps) == admitted
    assert any("ago; admitted from 1 minute" in each.text for each in found.steps) != admitted
