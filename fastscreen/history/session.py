"""One recorded session, with names instead of numbers."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING

from msgspec import Struct

from fastscreen.core import (
    HISTORY_MARKS,
    HISTORY_OUTCOMES,
    HISTORY_TLS,
    SCORERS,
    STAGES,
    TESTS,
    history_read,
)
from fastscreen.history.fingerprint import dialect_text, syn_text
from fastscreen.history.settings import HistorySettings

if TYPE_CHECKING:
    from fastscreen.core import HistoryTuple


class ListAnswer(Struct, frozen=True):
    """What a list said: listed, with addresses; doubtful (listed, but the list was suspect); silent; or unasked."""

    name: str
    state: str
    addresses: tuple[str, ...] = ()


class Session(Struct, frozen=True, kw_only=True):
    """A session. Times are in s since 1970, `lasted` in s. Lists that did not list the client are left out.

    needed, made, found, failed: keys of tests (ext/core.pxd, HistoryRecord). lists_total: the lists' part of the score,
    followed by what it could have become. parts: each scorer's part.
    name: the HELO name, as the client sent it. settings: their number; parts and list names need them. dialect, syn:
    see fingerprint.py; empty if not known. mta_recipients, mta_refused: RCPT commands that the MTA answered, and of
    these, rejected.
    """

    began: float
    ended: float
    lasted: float
    address: str
    port: int
    server: str
    server_port: int
    worker: int
    proxied: bool
    stage: str
    outcome: str
    reply: int
    verdict: int
    spared: int
    tls: str
    needed: tuple[str, ...]
    made: tuple[str, ...]
    found: tuple[str, ...]
    failed: tuple[str, ...]
    marks: tuple[str, ...]
    lists: tuple[ListAnswer, ...]
    score: int | None
    lists_total: int
    lists_lowest: int
    lists_highest: int
    parts: dict[str, int]
    evidence: tuple[str, ...]
    helo: bytes
    commands: int
    recipients: int
    mta_reply: int
    mta_accepted: int
    mta_rejected: int
    mta_recipients: int
    mta_refused: int
    dialect: str
    syn: str
    weight: int
    settings: int


_TESTS = tuple(test.key for test in TESTS)
_SCORERS = tuple(scorer.key for scorer in SCORERS)


def read(ended: int, client: bytes, packed: bytes, settings: HistorySettings | None) -> Session | None:
    """Decode a row. ended: µs since 1970. None: it is not of this version. Without settings, lists are numbers."""
    found = history_read(ended, client, packed)
    return None if found is None else named(found, settings)


def named(found: HistoryTuple, settings: HistorySettings | None) -> Session:
    """A record's tuple (HISTORY_FIELDS) with names."""
    (
        ended, client, lasted, listed, doubtful, silent, unasked, port, server_port, worker, proxied, stage, outcome,
        tls, needed, made, failed_found, failed, reply, verdict, spared, mta_reply, mta_accepted, mta_rejected,
        commands, recipients, number, marks, evidence, score, lists_total, lowest, highest, _, weight, dialect, syn_ip,
        syn_tcp, syn_options, mta_recipients, mta_refused, answers, server, name,
    ) = found  # fmt: skip
    parts: dict[str, int] = {}
    if lists_total:
        parts[_SCORERS[0]] = lists_total
    weights = settings.weights if settings is not None else {}
    for key in _names(evidence, _SCORERS):
        parts[key] = weights.get(key, 0)
    return Session(
        began=(ended - lasted) / 1e6,
        ended=ended / 1e6,
        lasted=lasted / 1e6,
        address=address_text(client),
        port=port,
        server=address_text(server),
        server_port=server_port,
        worker=worker,
        proxied=bool(proxied),
        stage=_name(STAGES, stage),
        outcome=_name(HISTORY_OUTCOMES, outcome),
        reply=reply,
        verdict=verdict,
        spared=spared,
        tls=_name(HISTORY_TLS, tls),
        needed=_names(needed, _TESTS),
        made=_names(made, _TESTS),
        found=_names(failed_found, _TESTS),
        failed=_names(failed, _TESTS),
        marks=_names(marks, HISTORY_MARKS),
        lists=_lists(settings, listed, doubtful, silent, unasked, answers),
        score=score,
        lists_total=lists_total,
        lists_lowest=lowest,
        lists_highest=highest,
        parts=parts,
        evidence=_names(evidence, _SCORERS),
        helo=name,
        commands=commands,
        recipients=recipients,
        mta_reply=mta_reply,
        mta_accepted=mta_accepted,
        mta_rejected=mta_rejected,
        mta_recipients=mta_recipients,
        mta_refused=mta_refused,
        dialect=dialect_text(dialect),
        syn=syn_text(syn_ip, syn_tcp, syn_options),
        weight=weight,
        settings=number,
    )


def address_of(packed: bytes) -> IPv4Address | IPv6Address:
    """The address of 4 or 16 bytes."""
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)


def address_text(packed: bytes) -> str:
    """The same as text, as in the log."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _lists(
    settings: HistorySettings | None,
    listed: int,
    doubtful: int,
    silent: int,
    unasked: int,
    answers: tuple[tuple[int, int], ...],
) -> tuple[ListAnswer, ...]:
    names = settings.lists if settings is not None else ()
    found = []
    for bit in range((listed | doubtful | silent | unasked).bit_length()):
        for state, mask in (("listed", listed), ("doubtful", doubtful), ("silent", silent), ("unasked", unasked)):
            if mask >> bit & 1:
                addresses = tuple(address_text(address.to_bytes(4)) for number, address in answers if number == bit)
                found.append(ListAnswer(names[bit] if bit < len(names) else f"list {bit + 1}", state, addresses))
                break
    return tuple(found)


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)


@lru_cache(4096)
def _names(mask: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """Bits without a name are a newer version's."""
    return tuple(name for bit, name in enumerate(names) if mask >> bit & 1)
