"""fastscreen stores the same stamps as postscreen for the same sessions.

Other parts of the two caches may differ (difference `cache-format`).
"""

import functools
import time

import pytest

from fastscreen.cache.stamps import DISABLED, POSTSCREEN_TESTS
from peers import dialogue, profiles
from peers.lab import Lab
from peers.playing import play_both

# dialogue -> how long each of the five passes is worth, in s from the session on; 0 and 1 are the special stamps
EXPECTED: dict[str, tuple[int, ...]] = {
    # not listed: the smallest TTL of the SOA records of the lists with a weight above zero
    "new-client-early": (86400, 90, 1, 1, 1),
    "new-client-6": (86400, 90, 1, 1, 1),
    # listed below the threshold: the score is above zero, so the TTL is that of what failed it, and 60 s at least
    "dnsbl-below-threshold": (86400, 60, 1, 1, 1),
    # allowed: this TTL for all five, also those it saved the client from and those that are off
    "dnsbl-allowed": (90, 90, 90, 90, 90),
    "dnsbl-allowed-deep": (600, 600, 600, 600, 600),
    "dnsbl-min-ttl": (86400, 300, 1, 1, 1),
    "dnsbl-max-ttl": (86400, 70, 1, 1, 1),
    "dnsbl-long-ttl": (86400, 3600, 1, 1, 1),
    "deep-pass": (86400, 1, 2592000, 2592000, 2592000),
    # only the greet test ended
    "hangup-after-banner": (86400, 1, 0, 0, 0),
    # ignored deep tests are passed for the shortest of all TTLs
    "bare-newline-ignore": (86400, 1, 2592000, 2592000, 60),
    "defaults-new-client": (86400, 1, 1, 1, 1),
}
TOLERANCE = 5  # s; a stamp counts from the end of its test

CHOSEN = [each for each in dialogue.load(profiles.DIALOGUES) if each.name in EXPECTED]


@pytest.fixture(scope="module")
def stamps(lab: Lab) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], float]]:
    """Play the dialogues; return postscreen's and fastscreen's stamps of each client, and when they were read."""
    began = time.time()
    played = play_both(lab, CHOSEN)
    found = {}
    for each in (both.dialogue for both in played):
        address = each.address(each.client)
        theirs = tuple(map(int, lab.postfix.stamps(each.service)[address].split(";")))
        ours = lab.screener(each.service).stamps_written(address, functools.partial(same, theirs))
        found[each.name] = (theirs, ours, began)
    return found


def same(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Special stamps alike, the others as good as."""
    return len(theirs) == POSTSCREEN_TESTS <= len(ours) and all(
        their == our if their in (0, 1) else abs(their - our) <= TOLERANCE
        for their, our in zip(theirs, ours, strict=False)
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_stamps(name: str, stamps: dict[str, tuple[tuple[int, ...], tuple[int, ...], float]]) -> None:
    """Both store the same stamps, and those the reference's rules ask for."""
    theirs, ours, began = stamps[name]
    assert same(theirs, ours), (theirs, ours)
    assert set(ours[POSTSCREEN_TESTS:]) == {DISABLED}
    for wanted, their in zip(EXPECTED[name], theirs, strict=True):
        if wanted in (0, 1):
            assert their == wanted
        else:
            assert -TOLERANCE <= their - began - wanted <= 60
