"""A session as other programs get it: the names of its fields (docs/glossary.md), for JSON, CSV and Parquet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastscreen.escaping import escape_bytes, printable
from fastscreen.history.session import Session

MARKS = {"spared": "shadow_rejected", "turned_away": "counted_rejected"}
"""Of HISTORY_MARKS, where they have another name for users."""

_FORMULA = ("=", "+", "-", "@")
"""A cell that begins so is a formula for a spreadsheet."""


def record(session: Session) -> dict[str, Any]:
    """A session as one JSON object. Codes are null instead of 0; text of the client is escaped as in the log."""
    return {
        "began": session.began,
        "ended": session.ended,
        "lasted": session.lasted,
        "address": session.address,
        "port": session.port,
        "server": session.server,
        "server_port": session.server_port,
        "worker": session.worker,
        "proxied": session.proxied,
        "stage": session.stage,
        "outcome": session.outcome,
        "verdict": session.verdict or None,
        "reply": session.reply or None,
        "shadow_reply": session.spared or None,
        "needed": list(session.needed),
        "made": list(session.made),
        "found": list(session.found),
        "failed": list(session.failed),
        "marks": [MARKS.get(mark, mark) for mark in session.marks],
        "lists": [
            {"list": printable(answer.name), "state": answer.state, "answers": list(answer.addresses)}
            for answer in session.lists
        ],
        "score": session.score,
        "parts": session.parts,
        "evidence": list(session.evidence),
        "helo": escape_bytes(session.helo),
        "tls": session.tls,
        "commands": session.commands,
        "recipients": session.recipients,
        "mta_reply": session.mta_reply or None,
        "mta_accepted": session.mta_accepted,
        "mta_rejected": session.mta_rejected,
        "mta_recipients": session.mta_recipients,
        "mta_refused": session.mta_refused,
        "dialect": session.dialect,
        "syn": session.syn,
        "weight": session.weight,
        "settings": session.settings,
    }


def cells(session: Session) -> list[str]:
    """A session as the cells of a row, in the order of `NAMES`. What is null in JSON is empty."""
    return [make(value) for make, value in zip(_CELLS, record(session).values(), strict=True)]


def _plain(value: object) -> str:
    return "" if value is None else str(value)


def _seconds(value: float) -> str:
    return f"{value:.6f}"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _words(value: list[str]) -> str:
    return " ".join(value)


def _lists(value: list[dict[str, Any]]) -> str:
    """`zen.example=127.0.0.2,127.0.0.4 bl.example:silent`"""
    return " ".join(
        f"{each['list']}={','.join(each['answers'])}"
        if each["state"] == "listed"
        else f"{each['list']}:{each['state']}"
        for each in value
    )


def _parts(value: dict[str, int]) -> str:
    return " ".join(f"{key}={part}" for key, part in value.items())


def _text(value: str) -> str:
    """Text of the client. Its first character is escaped if a spreadsheet would take the cell for a formula."""
    return f"\\{ord(value[0]):03o}{value[1:]}" if value.startswith(_FORMULA) else value


_FORMS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("began", "ended", "lasted"), _seconds),
    **dict.fromkeys(("needed", "made", "found", "failed", "marks", "evidence"), _words),
    "proxied": _flag,
    "lists": _lists,
    "parts": _parts,
    "helo": _text,
}
NAMES = (
    "began", "ended", "lasted", "address", "port", "server", "server_port", "worker", "proxied", "stage", "outcome",
    "verdict", "reply", "shadow_reply", "needed", "made", "found", "failed", "marks", "lists", "score", "parts",
    "evidence", "helo", "tls", "commands", "recipients", "mta_reply", "mta_accepted", "mta_rejected",
    "mta_recipients", "mta_refused", "dialect", "syn", "weight", "settings",
)  # fmt: skip
"""The fields, in order."""
_CELLS = tuple(_FORMS.get(name, _plain) for name in NAMES)
