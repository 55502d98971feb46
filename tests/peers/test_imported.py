"""An imported configuration behaves like postscreen with the same main.cf."""

import dataclasses

import pytest

from peers import dialogue, imported, postfix, profiles
from peers.dialogue import Dialogue
from peers.lab import Lab
from peers.match import compare
from peers.playing import Result, play

# dialogues of other profiles that play with these as well
ALSO = {
    "imported-howto": [
        "deep-pass",
        "deep-pass-6",
        "allowlisted",
        "mynetworks",
        "dunno",
        "denylist-drop",
        "pregreet-enforce",
        "dnsbl-enforce",
        "dnsbl-both",
        "bare-newline-enforce",
        "pipelining-enforce",
        "hangup-after-rcpt",
        "hangup-early",
    ],
    "imported-full": ["allowlisted", "mynetworks", "hangup-early", "quit-first"],
}
# One octet of a client's address is the dialogue's number: those of tests/dialogues end below 240.
_NUMBERS = range(254, 239, -1)


def chosen() -> list[Dialogue]:
    """All dialogues, each with different addresses."""
    others = {each.name: each for each in dialogue.load(profiles.DIALOGUES)}
    found = dialogue.load(imported.FOLDER)
    for profile, names in ALSO.items():
        found += [
            dataclasses.replace(others[name], name=f"{profile.removeprefix('imported-')}-{name}", profile=profile)
            for name in names
        ]
    return [
        dataclasses.replace(each, number=_NUMBERS[at % len(_NUMBERS)], round=at // len(_NUMBERS))
        for at, each in enumerate(found)
    ]


CHOSEN = chosen()


@pytest.fixture(scope="module")
def played(lab: Lab) -> dict[str, tuple[Result, dict[int, Result]]]:
    """Play them all at the same time; return postscreen's results, and ours by the number of workers."""
    sides = [lab.postscreen(each.service) for each in CHOSEN]
    for count in postfix.WORKERS:
        sides += lab.fastscreen([each.service for each in CHOSEN], count)
    results = play(lab, list(zip(CHOSEN * (1 + len(postfix.WORKERS)), sides, strict=True)))
    size = len(CHOSEN)
    return {
        each.name: (results[at], {count: results[size * part + at] for part, count in enumerate(postfix.WORKERS, 1)})
        for at, each in enumerate(CHOSEN)
    }


@pytest.mark.parametrize("workers", postfix.WORKERS)
@pytest.mark.parametrize("each", CHOSEN, ids=lambda each: str(each.name))
def test_same_as_postscreen(
    lab: Lab, each: Dialogue, workers: int, played: dict[str, tuple[Result, dict[int, Result]]]
) -> None:
    """The client gets the same replies and the log has the same lines, apart from the stated differences."""
    theirs, ours = played[each.name]
    if theirs.missing:
        shown = "\n".join(theirs.transcript)
        pytest.fail(f"the dialogue is wrong, postscreen did not play it:\n{shown}", pytrace=False)
    if difference := compare(each, theirs.transcript, ours[workers].transcript, lab.postfix.version, workers):
        pytest.fail(f"postscreen (-) and fastscreen, workers: {workers} (+), differ:\n{difference}", pytrace=False)


def test_numbers_are_free() -> None:
    """Other tests do not use the addresses of these dialogues."""
    assert len(dialogue.load(profiles.DIALOGUES)) < min(_NUMBERS) - 1
    assert {each.settings == {} and each.profile in imported.names() for each in CHOSEN} == {True}
