"""The differential suite: every file of tests/dialogues against a real postscreen and against fastscreen."""

import pytest

from peers import dialogue, profiles
from peers.lab import Lab
from peers.match import compare
from peers.playing import Both, play_both

DIALOGUES = dialogue.load(profiles.DIALOGUES)


@pytest.fixture(scope="module")
def played(lab: Lab, request: pytest.FixtureRequest) -> dict[str, Both]:
    """Play all dialogues that this run selected, at the same time, against both."""
    selected = {item.name for item in request.session.items}
    chosen = [each for each in DIALOGUES if f"test_same_as_postscreen[{each.name}]" in selected]
    return {both.dialogue.name: both for both in play_both(lab, chosen)}


@pytest.mark.parametrize("name", [each.name for each in DIALOGUES])
def test_same_as_postscreen(name: str, played: dict[str, Both]) -> None:
    """The client sees the same, the log says the same, apart from the differences the file states."""
    both = played[name]
    if both.theirs.missing:
        shown = "\n".join(both.theirs.transcript)
        pytest.fail(f"the dialogue is wrong, postscreen did not play it:\n{shown}", pytrace=False)
    if difference := compare(both.dialogue, both.theirs.transcript, both.ours.transcript):
        pytest.fail(f"postscreen (-) and fastscreen (+) differ:\n{difference}", pytrace=False)


def test_enough_dialogues() -> None:
    """The suite stays as large as it was promised to be."""
    assert len(DIALOGUES) >= 60
