"""The summary of a demo without the live view, and a check for missing events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

EXPECTED = {
    "connect": "connections",
    "allowlisted": "on the allow list, handed off at once",
    "denylisted": "on the deny list",
    "greet": "waited for the greeting",
    "pregreet": "sent before the greeting",
    "listed": "answers from DNS block and allow lists",
    "pipelining": "did not wait for replies",
    "non_smtp_command": "sent HTTP instead of SMTP",
    "bare_newline": "ended lines with a bare LF",
    "hangup": "hung up during the tests",
    "busy": "rejected because of a limit",
    "passed": "passed every test",
    "cached": "came back, known from the cache",
    "handed": "handed off to the mail server",
}
"""The expected events, and their meaning."""


def lines(counts: Mapping[str, int]) -> Iterator[str]:
    """The lines of the summary."""
    for kind, meaning in EXPECTED.items():
        yield f"{counts.get(kind, 0):>7,}  {kind:<17} {meaning}"


def missing(counts: Mapping[str, int]) -> list[str]:
    """The expected kinds of events that are missing."""
    return [kind for kind in EXPECTED if not counts.get(kind, 0)]
