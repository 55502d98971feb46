"""Compares two transcripts, with the differences that a dialogue states for a version of Postfix."""

import difflib
import re

from peers.dialogue import CLIENTS, Dialogue
from peers.postfixroot import Version

_LOGGED = "postscreen: "
_CONNECTION = re.compile(r"\]:?#(\d+)")  # in place of the client's port: peers/player.py


def compare(dialogue: Dialogue, theirs: list[str], ours: list[str], version: Version, workers: int = 1) -> str:
    """Return an empty text when the transcripts differ as stated and nowhere else, or else the diff to show.

    Several workers log in no particular order, so then the lines of each connection are compared separately.
    """
    arranged = _by_connection if workers > 1 else list
    lines = list(difflib.ndiff(arranged(theirs), arranged(ours)))
    removed = [line[2:] for line in lines if line.startswith("- ")]
    added = [line[2:] for line in lines if line.startswith("+ ")]
    stated = [each for each in dialogue.differences if each.holds(version)]
    stated_removed = arranged([_filled(dialogue, line) for each in stated for line in each.theirs])
    stated_added = arranged([_filled(dialogue, line) for each in stated for line in each.ours])
    if removed == stated_removed and added == stated_added:
        return ""
    shown = [line for line in lines if not line.startswith("? ")]
    if stated:
        shown += ["stated:", *(f"- {line}" for line in stated_removed), *(f"+ {line}" for line in stated_added)]
    return "\n".join(shown)


def _by_connection(lines: list[str]) -> list[str]:
    """Sort the screener's log lines by connection; the other lines stay where they are."""

    def key(line: str) -> tuple[int, str]:
        number = _CONNECTION.search(line)
        return (int(number[1]), "") if number else (0, line)

    logged = iter(sorted((line for line in lines if line.startswith(_LOGGED)), key=key))
    return [next(logged) if line.startswith(_LOGGED) else line for line in lines]


def _filled(dialogue: Dialogue, line: str) -> str:
    line = line.replace("$client", dialogue.address(dialogue.client))
    for client in sorted(CLIENTS, key=len, reverse=True):
        backwards = ".".join(reversed(dialogue.address(client).split(".")))
        line = line.replace(f"$reversed-{client}", backwards)
        line = line.replace(f"${client}", dialogue.address(client))
    return line
