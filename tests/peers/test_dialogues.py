"""The differential suite: every file of tests/dialogues against a real postscreen and against fastscreen."""

import asyncio
from dataclasses import dataclass

import pytest

from peers import dialogue, profiles
from peers.lab import Lab
from peers.match import compare
from peers.player import Player
from peers.sides import Side

DIALOGUES = dialogue.load(profiles.DIALOGUES)


@dataclass
class Played:
    """Both transcripts of one dialogue."""

    theirs: list[str]
    ours: list[str]
    missing: list[str]
    """What the dialogue expects and postscreen did not say."""


@pytest.fixture(scope="module")
def played(lab: Lab, request: pytest.FixtureRequest) -> dict[str, Played]:
    """Play all dialogues that this run selected, at the same time, against both."""
    chosen = [
        item.callspec.params["each"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.name.startswith("test_same_as_postscreen[")
    ]
    ours = lab.fastscreen([each.service for each in chosen])
    theirs = [lab.postscreen(each.service) for each in chosen]

    async def play(each: dialogue.Dialogue, side: Side) -> tuple[list[str], list[str]]:
        player = Player(lab.namespace, each, side)
        return await player.play(), player.missing

    async def play_all() -> list[tuple[list[str], list[str]]]:
        return await asyncio.gather(*(play(*pair) for pair in zip(chosen + chosen, theirs + ours, strict=True)))

    transcripts = asyncio.run(play_all())
    return {
        each.name: Played(transcripts[at][0], transcripts[len(chosen) + at][0], transcripts[at][1])
        for at, each in enumerate(chosen)
    }


@pytest.mark.parametrize("each", DIALOGUES, ids=lambda each: each.name)
def test_same_as_postscreen(each: dialogue.Dialogue, played: dict[str, Played]) -> None:
    """The client sees the same, the log says the same, apart from the differences the file states."""
    result = played[each.name]
    assert not result.missing, f"the dialogue is wrong: postscreen never sent {result.missing}\n" + "\n".join(result.theirs)
    difference = compare(each, result.theirs, result.ours)
    if difference:
        pytest.fail(f"postscreen (-) and fastscreen (+) differ:\n{difference}", pytrace=False)


def test_enough_dialogues() -> None:
    """The suite stays as large as it was promised to be."""
    assert len(DIALOGUES) >= 60
