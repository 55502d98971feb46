"""Print the transcripts of dialogues: `python tests/peers/show.py [--theirs] NAME...` (all without a name), as root."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from peers.lab import Lab
from peers.match import compare
from peers.playing import Result, play, play_both


def _show(name: str, theirs: Result, difference: str | None) -> None:
    print(f"== {name}" + "".join(f"   NEVER CAME: {what}" for what in theirs.missing))
    print("\n".join(theirs.transcript))
    if difference is not None:
        print("-- fastscreen:", difference or "the same, or as stated")
    print()


def main() -> None:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", action="store_true", help="play against postscreen alone")
    parser.add_argument("names", nargs="*", help="parts of dialogue names")
    arguments = parser.parse_args()
    lab = Lab()
    try:
        names = arguments.names or [""]
        chosen = [each for each in lab.dialogues if any(name in each.name for name in names)]
        if arguments.theirs:
            for each, theirs in zip(chosen, play(lab, [(d, lab.postscreen(d.service)) for d in chosen]), strict=True):
                _show(each.name, theirs, None)
        else:
            for both in play_both(lab, chosen):
                ours = both.ours[1].transcript
                difference = compare(both.dialogue, both.theirs.transcript, ours, lab.postfix.version)
                _show(both.dialogue.name, both.theirs, difference)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
