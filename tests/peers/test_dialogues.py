"""The differential suite: every file of tests/dialogues against a real postscreen and against fastscreen."""

import pytest

from peers import dialogue, postfix, profiles
from peers.lab import Lab
from peers.match import compare
from peers.playing import Both, play_both

DIALOGUES = dialogue.load(profiles.DIALOGUES)
PLAYED = [(each.name, count) for count in postfix.WORKERS for each in DIALOGUES if count == 1 or not each.divided]


@pytest.fixture(scope="module")
def played(lab: Lab, request: pytest.FixtureRequest) -> dict[str, Both]:
    """Play all dialogues that this run selected, at the same time, against both."""
    selected = {item.name for item in request.session.items}
    chosen = [
        each
        for each in DIALOGUES
        if any(f"test_same_as_postscreen[{each.name}-{count}]" in selected for count in postfix.WORKERS)
    ]
    return {both.dialogue.name: both for both in play_both(lab, chosen, postfix.WORKERS)}


@pytest.mark.parametrize(("name", "workers"), PLAYED)
def test_same_as_postscreen(lab: Lab, name: str, workers: int, played: dict[str, Both]) -> None:
    """The client gets the same replies and the log has the same lines, apart from the stated differences."""
    both = played[name]
    if both.theirs.missing:
        shown = "\n".join(both.theirs.transcript)
        pytest.fail(f"the dialogue is wrong, postscreen did not play it:\n{shown}", pytrace=False)
    ours = both.ours[workers].transcript
    if difference := compare(both.dialogue, both.theirs.transcript, ours, lab.postfix.version, workers):
        pytest.fail(f"postscreen (-) and fastscreen, workers: {workers} (+), differ:\n{difference}", pytrace=False)


def test_enough_dialogues() -> None:
    """The suite stays as large as it was promised to be."""
    assert len(DIALOGUES) >= 60
    assert len([count for _, count in PLAYED if count == 2]) >= len(DIALOGUES) - 5
