"""What a record still knows of the evidence for a score: the weights and what was judged, not the text of the log."""

from __future__ import annotations

import ipaddress

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
            return f"{session.address} had committed offenses"
        case "seen_network":
            return f"enough neighbors in {_networks(session.address)} had committed offenses"
        case "seen_as":
            return "enough addresses of its AS had committed offenses"
    return f"{label}: {escape_bytes(session.helo)}" if key.startswith("helo_") and session.helo else label


def _networks(address: str) -> str:
    """The networks in which neighbors are. Which of two it was is not recorded."""
    if ":" not in address:
        return str(ipaddress.ip_network(f"{address}/24", strict=False))
    near, wide = (ipaddress.ip_network(f"{address}/{bits}", strict=False) for bits in (64, 48))
    return f"{near} or {wide}"
