"""fastscreen report --what-if predicts what fastscreen does with those settings."""

import itertools
import threading
from pathlib import Path

from fastscreen.cli.report import read
from fastscreen.report.tally import Tally
from fastscreen.report.what_if import Settings, WhatIf, rejudge, settings_of
from robust.conftest import Start
from robust.fakedns import FakeDns, listed, not_listed
from robust.fakemta import FakeMta
from robust.harness import Screener

ANSWERS = {
    "bl1.test": (listed("127.0.0.2"), listed("127.0.0.4", "127.0.0.9"), not_listed()),
    "bl2.test": (listed("127.0.0.2"), listed("127.0.0.11"), not_listed()),
    "wl.test": (listed("127.0.5.1"), not_listed()),
}
THEN = ("threshold=3", "site=bl1.test*3", "site=bl2.test*2", "site=wl.test*-2")
IF_SO = ("threshold=4", "site=bl1.test=127.0.0.[2..4]*3", "site=bl2.test=127.0.0.[2..4]*4", "site=wl.test*-1")


def settings(words: tuple[str, ...]) -> dict[str, object]:
    """The command line's words as a configuration."""
    threshold, *sites = (word.partition("=")[2] for word in words)
    return {"dnsbl": {"threshold": int(threshold), "sites": sites, "action": "drop"}}


def refused(screener: Screener, sources: list[str]) -> set[str]:
    """Connect all clients at once, and return those that were not handed off."""
    found: set[str] = set()

    def come(source: str) -> None:
        with screener.connect(source) as client:
            if client.read().startswith(b"5"):
                found.add(source)

    threads = [threading.Thread(target=come, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def judged(log: Path, words: tuple[str, ...]) -> WhatIf:
    tally = Tally()
    assert read([str(log)], tally) == []
    return rejudge(tally, settings_of(words, Settings()))


def test_it_says_what_then_is_done(start: Start, folder: Path, dns: FakeDns, mta: FakeMta) -> None:
    sources = []
    for number, chosen in enumerate(itertools.product(*ANSWERS.values()), 1):
        sources.append(f"127.1.9.{number}")
        for zone, answer in zip(ANSWERS, chosen, strict=True):
            dns.zones[f"{number}.9.1.127.{zone}"] = answer
    common = {"dnsbl": {"resolvers": [dns.endpoint]}, "greet": {"banner": ""}}
    screener = start(common, settings(THEN))
    before = refused(screener, sources)
    screener.stop()
    log = folder / "then"
    screener.log.replace(log)
    found = judged(log, IF_SO)
    after = refused(start(common, settings(IF_SO)), sources)
    assert {each.client for each in found.no_longer_clients} == before - after != set()
    assert {each.client for each in found.newly_clients} == after - before != set()
    assert found.still == len(before & after) > 0
    assert found.neither + found.newly == len(sources) - len(before)
    assert found.unknown == 0
    as_it_was = judged(log, THEN)
    assert (as_it_was.still, as_it_was.no_longer, as_it_was.newly) == (len(before), 0, 0)
