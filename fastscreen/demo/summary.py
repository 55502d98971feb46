"""What a demo without a view has seen, and whether that is all that it had to see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

EXPECTED = {
    "connect": "connections",
    "allowlisted": "of the allow list, handed off at once",
    "denylisted": "of the deny list",
    "greet": "made to wait",
    "pregreet": "talked too soon",
    "listed": "answers of lists against or for a client",
    "pipelining": "did not wait for replies",
    "non_smtp_command": "spoke HTTP",
    "bare_newline": "ended lines with LF alone",
    "hangup": "left while they were tested",
    "busy": "rejected by a limit",
    "passed": "passed every test",
    "cached": "came back and were known",
    "handed_off": "handed off to the mail server",
}
"""What must appear, and what is said of it."""


def lines(counts: Mapping[str, int]) -> Iterator[str]:
    """The summary for people."""
    for kind, meaning in EXPECTED.items():
        yield f"{counts.get(kind, 0):>7,}  {kind:<17} {meaning}"


def missing(counts: Mapping[str, int]) -> list[str]:
    """The kinds of events that must appear and did not."""
    return [kind for kind in EXPECTED if not counts.get(kind, 0)]
