"""`fastscreen report --json`: its keys (docs/glossary.md), where they differ from the fields of the records."""

from __future__ import annotations

from typing import Any

import msgspec

from fastscreen.report.summary import Summary

OUTCOMES = {
    "handed": "handed_off",
    "away": "deferred",
    "refused": "rejected",
    "not taken": "handoff_failed",
    "hung up": "hung_up",
    "continue failed": "continue_failed",
}


def as_builtins(summary: Summary) -> dict[str, Any]:
    """A report as JSON has it."""
    found: dict[str, Any] = msgspec.to_builtins(summary)
    found["outcomes"] = {OUTCOMES.get(name, name): number for name, number in found["outcomes"].items()}
    found["suspects"] = [each | {"why": _word(each["why"])} for each in found["suspects"]]
    found["suspect_counts"] = {_word(why): number for why, number in found["suspect_counts"].items()}
    return found


def _word(text: str) -> str:
    return text.replace(" ", "_")
