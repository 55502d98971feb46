"""The settings that `fastscreen tune` judges by: keys as in the configuration, and errors for people."""

from pathlib import Path

import pytest

from fastscreen.config import ConfigError, load
from fastscreen.config.keys import KEYS
from fastscreen.history.settings import HistorySettings, described
from fastscreen.screening.policy import settings_by_test
from fastscreen.tune.settings import JUDGED, RECORDED, description, toml_of, tried

FILE = """\
hostname = "mx.example"
[dnsbl]
sites = ["zen.example=127.0.0.[2..11]*3", "bl.example*2", "allow.example*-4"]
threshold = 3
action = "enforce"
[deep]
pipelining = "enforce"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "fastscreen.toml"
    made.write_text(FILE)
    return made


def test_nothing_is_changed(file: Path) -> None:
    found = tried(file, None, ())
    config = load(file)
    assert found.settings == described(config, settings_by_test(config), {})
    assert (found.changed, found.unjudged, found.hostname) == ((), (), "mx.example")


def test_values(file: Path) -> None:
    changes = ("dnsbl.threshold=5", "greet.action = drop", "deep.pipelining=off", "score.helo_address=2",
               "engine.soft_bounce=true", "mode=shadow", "cache.prefix_ipv4=24")  # fmt: skip
    found = tried(file, None, changes)
    assert found.settings.threshold == 5
    assert found.settings.tests["pregreet"].action == "drop"
    assert not found.settings.tests["pipelining"].enabled
    assert found.settings.weights == {"helo_address": 2}
    assert (found.settings.soft_bounce, found.settings.shadow, found.settings.prefix) == (True, True, (24, 64))
    assert ("dnsbl.threshold", "3", "5") in found.changed


@pytest.mark.parametrize(
    ("change", "domains"),
    [
        ('dnsbl.sites=["a.example*2"]', ["a.example*2"]),
        ("dnsbl.sites=a.example*2, b.example", ["a.example*2", "b.example*1"]),
        ("dnsbl.sites=", []),
        ("dnsbl.sites+=c.example*1", ["zen.example*3", "bl.example*2", "allow.example*-4", "c.example*1"]),
        ("dnsbl.sites+=zen.example*1", ["bl.example*2", "allow.example*-4", "zen.example*1"]),
        ("dnsbl.sites-=bl.example allow.example", ["zen.example*3"]),
    ],
)
def test_sites(file: Path, change: str, domains: list[str]) -> None:
    found = tried(file, None, (change,)).settings
    assert [f"{found.lists[site.list]}*{site.weight}" for site in found.sites] == domains


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("threshold", "--set threshold: not a setting; expected KEY=VALUE"),
        ("dnsbl.treshold=4", '--set dnsbl.treshold: unknown key, did you mean "dnsbl.threshold"?'),
        ("greet.wait=2s", "--set greet.wait: cannot be judged: a time or limit"),
        ("greet.ttl=2d", "--set greet.ttl: cannot be judged: a time or limit"),
        (
            "limits.pre_queue=5",
            "--set limits.pre_queue: cannot be judged: it depends on what happened at the same moment",
        ),
        (
            "access.list=permit",
            "--set access.list: cannot be judged: the history has the result of the access list only",
        ),
        ("handoff.continue_to=proxy:x:25", "--set handoff.continue_to: cannot be judged: what another MTA"),
        ("log.ident=x", "--set log.ident: cannot be judged: it does not change a verdict"),
        ("dnsbl.threshold=x", '--set: dnsbl.threshold: "x" is not a whole number'),
        ("dnsbl.threshold=0", "--set: dnsbl.threshold: 0 is out of range"),
        ("dnsbl.sites=a b=c", "--set: dnsbl.sites: item 2: bad DNSBL filter syntax"),
        ("dnsbl.sites-=x.example", "no such list in dnsbl.sites"),
        ("dnsbl.threshold+=1", "only dnsbl.sites has += and -="),
        ("mode=off", '--set: mode: unknown value "off"'),
    ],
)
def test_mistakes(file: Path, change: str, problem: str) -> None:
    with pytest.raises((ValueError, ConfigError)) as error:
        tried(file, None, (change,))
    lines = error.value.problems if isinstance(error.value, ConfigError) else (str(error.value),)
    assert problem in lines[0]
    assert "\n" not in lines[0] and "(line" not in lines[0]


def test_another_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "next.toml"
    other.write_text(
        FILE.replace("threshold = 3", "threshold = 4") + '[greet]\nwait = "9s"\nttl = "2d"\n[log]\nident = "x"\n'
    )
    found = tried(file, other, ("deep.pipelining=drop",))
    assert (found.settings.threshold, found.settings.tests["pipelining"].action) == (4, "drop")
    assert [key for key, _, _ in found.changed] == ["dnsbl.threshold", "deep.pipelining"]
    assert found.unjudged == ("greet.wait", "greet.ttl"), "what may change a verdict, and cannot be judged"


def recorded(file: Path) -> HistorySettings:
    config = load(file)
    return described(config, settings_by_test(config), {"zen.example": "a list"})


def test_recorded_settings(file: Path) -> None:
    """Without a configuration, the newest recorded settings are those in force."""
    had = recorded(file)
    had = HistorySettings(
        **{key: getattr(had, key) for key in had.__struct_fields__} | {"lists": ("z.test", "b.test", "w.test")}
    )
    assert tried(had, None, ()).settings == had
    found = tried(had, None, ("dnsbl.threshold=9",))
    assert found.source == RECORDED
    assert found.settings.threshold == 9
    assert found.settings.sites == had.sites
    assert "threshold = 3" in toml_of(had)


def test_every_key_that_can_be_judged_exists() -> None:
    assert set(JUDGED) <= {key.key for key in KEYS}


def test_the_core_takes_it(file: Path) -> None:
    found = description(tried(file, None, ()).settings)
    assert found["sites"][0][0] == 0
    mask = found["sites"][0][1]
    assert mask is not None and len(mask) == 128
    assert found["tests"][1] == (True, "enforce", 3600)
