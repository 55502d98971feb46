"""Compares two transcripts, with the differences that a dialogue states for a version of Postfix."""

import difflib

from peers.dialogue import CLIENTS, Dialogue
from peers.postfixroot import Version


def compare(dialogue: Dialogue, theirs: list[str], ours: list[str], version: Version) -> str:
    """Return an empty text when the transcripts differ as stated and nowhere else, or else the diff to show."""
    lines = list(difflib.ndiff(theirs, ours))
    removed = [line[2:] for line in lines if line.startswith("- ")]
    added = [line[2:] for line in lines if line.startswith("+ ")]
    stated = [each for each in dialogue.differences if each.holds(version)]
    stated_removed = [_filled(dialogue, line) for each in stated for line in each.theirs]
    stated_added = [_filled(dialogue, line) for each in stated for line in each.ours]
    if removed == stated_removed and added == stated_added:
        return ""
    shown = [line for line in lines if not line.startswith("? ")]
    if stated:
        shown += ["stated:", *(f"- {line}" for line in stated_removed), *(f"+ {line}" for line in stated_added)]
    return "\n".join(shown)


def _filled(dialogue: Dialogue, line: str) -> str:
    line = line.replace("$client", dialogue.address(dialogue.client))
    for client in sorted(CLIENTS, key=len, reverse=True):
        backwards = ".".join(reversed(dialogue.address(client).split(".")))
        line = line.replace(f"$reversed-{client}", backwards)
        line = line.replace(f"${client}", dialogue.address(client))
    return line
