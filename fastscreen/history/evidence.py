"""What a record still knows of the evidence for a score: the weights and what was judged, not the text of the log."""

from __future__ import annotations

from fastscreen.core import SCORERS
from fastscreen.escaping import escape_bytes
from fastscreen.format import plural
from fastscreen.history.session import Session

_LABELS = {scorer.key: scorer.label for scorer in SCORERS}


def evidence_texts(session: Session) -> dict[str, str]:
    """The evidence in a recorded session, by scorer."""
    return {key: _text(session, key) for key in session.evidence}


def _text(session: Session, key: str) -> str:
    label = _LABELS.get(key, key)
    match key:
        case "no_tls":
            return "TLS not used although it was announced"
        case "rcpt_many":
            return f"{label}: {plural(session.recipients, 'recipient')}"
        case "rcpt_rejected":
            return f"the MTA rejected {session.mta_refused} of {plural(session.mta_recipients, 'recipient')}"
        case "seen_address":
            return "its address had committed offenses"
        case "seen_network":
            networks = "/64 or /48" if ":" in session.address else "/24"  # the recorded address may be shortened
            return f"enough neighbors in its {networks} had committed offenses"
        case "seen_as":
            return "enough addresses of its AS had committed offenses"
    return f"{label}: {escape_bytes(session.helo)}" if key.startswith("helo_") and session.helo else label
