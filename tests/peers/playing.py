"""Plays dialogues against one side or both, all at the same time."""

import asyncio
import dataclasses

from peers.dialogue import Dialogue
from peers.lab import Lab
from peers.player import Player
from peers.sides import Side

STAGGER = 0.01  # s between the starts of two dialogues: a burst would hold up what the first ones time
TIMES = 3  # a dialogue that postscreen did not play: on a busy machine its pauses can be too short for postscreen


@dataclasses.dataclass
class Result:
    """One dialogue played against one side."""

    transcript: list[str]
    missing: list[str]
    """What the dialogue expects and the side never sent."""


@dataclasses.dataclass
class Both:
    """One dialogue, with the addresses it was played from, and its results on both sides; ours by number of workers."""

    dialogue: Dialogue
    theirs: Result
    ours: dict[int, Result]


def play(lab: Lab, pairs: list[tuple[Dialogue, Side]]) -> list[Result]:
    """Play each dialogue against its side; return the results in the same order."""

    async def one(at: int, dialogue: Dialogue, side: Side) -> Result:
        await asyncio.sleep(at * STAGGER)
        player = Player(lab.namespace, dialogue, side)
        return Result(await player.play(), player.missing)

    async def all_of_them() -> list[Result]:
        return await asyncio.gather(*(one(at, *pair) for at, pair in enumerate(pairs)))

    return asyncio.run(all_of_them())


def play_both(lab: Lab, dialogues: list[Dialogue], workers: tuple[int, ...] = (1,)) -> list[Both]:
    """Play each dialogue against postscreen and fastscreen, from addresses that this run did not use before.

    Both play it again only if postscreen did not play it.
    """
    found = _play_both(lab, dialogues, workers)
    for _ in range(TIMES - 1):
        if again := [at for at, both in enumerate(found) if both.theirs.missing]:
            for at, both in zip(again, _play_both(lab, [dialogues[at] for at in again], workers), strict=True):
                found[at] = both
    return found


def _play_both(lab: Lab, dialogues: list[Dialogue], workers: tuple[int, ...]) -> list[Both]:
    number = next(lab.rounds)
    fresh = [dataclasses.replace(each, round=number) for each in dialogues]
    sides = [lab.postscreen(each.service) for each in fresh]
    for count in workers:
        sides += lab.fastscreen([each.service for each in fresh], count)
    results = play(lab, list(zip(fresh * (1 + len(workers)), sides, strict=True)))
    ours = {count: results[at * len(fresh) :][: len(fresh)] for at, count in enumerate(workers, 1)}
    return [
        Both(each, theirs, {count: played[at] for count, played in ours.items()})
        for at, (each, theirs) in enumerate(zip(fresh, results[: len(fresh)], strict=True))
    ]
