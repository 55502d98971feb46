"""Print the transcripts of dialogues: `python tests/peers/show.py [--ours] NAME...` (all without a name), as root."""

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from peers.lab import Lab
from peers.match import compare
from peers.player import Player


async def _play(lab: Lab, names: list[str], ours: bool) -> None:
    chosen = [each for each in lab.dialogues if not names or any(name in each.name for name in names)]
    players = [Player(lab.namespace, each, lab.postscreen(each.service)) for each in chosen]
    if ours:
        sides = lab.fastscreen([each.service for each in chosen])
        players += [Player(lab.namespace, each, side) for each, side in zip(chosen, sides, strict=True)]
    transcripts = await asyncio.gather(*(player.play() for player in players))
    for at, each in enumerate(chosen):
        missing = "".join(f"   NEVER CAME: {what}" for what in players[at].missing)
        print(f"== {each.name}{missing}")
        print("\n".join(transcripts[at]))
        if ours:
            print("-- fastscreen:", compare(each, transcripts[at], transcripts[len(chosen) + at]) or "the same")
        print()


def main() -> None:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", action="store_true", help="play against fastscreen too, and compare")
    parser.add_argument("names", nargs="*", help="parts of dialogue names")
    arguments = parser.parse_args()
    lab = Lab()
    try:
        asyncio.run(_play(lab, arguments.names, arguments.ours))
    finally:
        lab.close()


if __name__ == "__main__":
    main()
