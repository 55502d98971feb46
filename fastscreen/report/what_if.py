"""Applies other DNSBL settings to a log: which clients would have been rejected."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from fastscreen.config.model import Site
from fastscreen.config.sites import parse_site
from fastscreen.report.tally import Tally

EXPECTED = "expected threshold=N, allowlist_threshold=N, site=domain[=filter][*weight]"
_MAX_EXAMPLES = 20  # clients that are listed


class Settings(Struct, frozen=True):
    """The settings to apply. allowlist_threshold: disabled unless negative."""

    sites: tuple[Site, ...] = ()
    threshold: int = 1
    allowlist_threshold: int = 0


class Rejudged(Struct, frozen=True):
    """A client whose result changes, with the last answers of the lists, and their rank with the other settings."""

    client: str
    answers: tuple[str, ...]
    rank: int


class WhatIf(Struct, frozen=True):
    """Number of tested sessions by their logged and their new result. unknown: rejected, but without a logged answer.

    no_longer, newly: would no longer be rejected, or only now. allowed: would pass all tests because of allow lists.
    without_site: lists in the log that are not in the settings and count 0. without_answers: sites without an answer in
    the log, because they were not queried or did not list any client.
    """

    sites: tuple[str, ...]
    threshold: int
    allowlist_threshold: int
    still: int
    no_longer: int
    newly: int
    neither: int
    unknown: int
    allowed: int
    no_longer_clients: tuple[Rejudged, ...]
    newly_clients: tuple[Rejudged, ...]
    without_site: tuple[str, ...]
    without_answers: tuple[str, ...]


def settings_of(words: Sequence[str], base: Settings) -> Settings:
    """Apply the arguments of --what-if. The new sites of a domain replace its old ones. Raises ValueError."""
    threshold, allowlist_threshold = base.threshold, base.allowlist_threshold
    sites: list[Site] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "site":
            sites.append(parse_site(value))
        elif key in ("threshold", "allowlist_threshold"):
            try:
                number = int(value)
            except ValueError:
                raise ValueError(f"{word}: not a whole number; {EXPECTED}") from None
            if key == "threshold" and number < 1:
                raise ValueError(f"{word}: out of bounds; expected a whole number from 1")
            if key == "threshold":
                threshold = number
            else:
                allowlist_threshold = number
        else:
            hint = "" if "=" in word else " (log files come before --what-if)"
            raise ValueError(f"{word}: unknown setting{hint}; {EXPECTED}")
    named = {site.domain for site in sites}
    kept = tuple(site for site in base.sites if site.domain not in named)
    return Settings(kept + tuple(sites), threshold, allowlist_threshold)


def rejudge(tally: Tally, settings: Settings) -> WhatIf:
    """Apply the settings to every tested session."""
    answers = [(domain, _octets(value)) for domain, value in tally.answer_texts]
    ranks: dict[tuple[int, ...], int] = {}

    def rank(numbers: tuple[int, ...]) -> int:
        if numbers not in ranks:
            ranks[numbers] = rank_of((answers[number] for number in numbers), settings.sites)
        return ranks[numbers]

    counts = {"still": 0, "no_longer": 0, "newly": 0, "neither": 0, "unknown": 0, "allowed": 0}
    for (numbers, reached), count in tally.judgements:
        if reached and not numbers:
            counts["unknown"] += count
            continue
        would = rank(numbers) >= settings.threshold
        counts[("still" if would else "no_longer") if reached else ("newly" if would else "neither")] += count
        if settings.allowlist_threshold < 0 and not would and rank(numbers) <= settings.allowlist_threshold:
            counts["allowed"] += count

    def changed(reached: bool) -> Iterator[Rejudged]:
        for address, client in tally.clients.items():
            if client.answers and client.reached == reached:
                new_rank = rank(tuple(sorted(client.answers)))
                if (new_rank >= settings.threshold) != reached:
                    texts = tuple(" as ".join(tally.answer_texts[number]) for number in client.answers)
                    yield Rejudged(address.decode(), texts, new_rank)

    named = {site.domain for site in settings.sites}
    return WhatIf(
        tuple(_shown(site) for site in settings.sites),
        settings.threshold,
        settings.allowlist_threshold,
        **counts,
        no_longer_clients=_first(changed(True)),
        newly_clients=_first(changed(False)),
        without_site=tuple(domain for domain in tally.list_ids if domain not in named),
        without_answers=tuple(sorted(named - set(tally.list_ids))),
    )


def rank_of(answers: Iterable[tuple[str, bytes]], sites: Sequence[Site]) -> int:
    """Add up the weights of the sites that match (reference 4.4): each once, however many answers match."""
    found: dict[str, list[bytes]] = {}
    for domain, address in answers:
        found.setdefault(domain, []).append(address)
    return sum(site.weight for site in sites if any(site.matches(address) for address in found.get(site.domain, ())))


def _octets(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return bytes(4)


def _shown(site: Site) -> str:
    return f"{site.domain}{'=[filter]' if site.octets else ''}*{site.weight}"


def _first(found: Iterator[Rejudged]) -> tuple[Rejudged, ...]:
    return tuple(each for each, _ in zip(found, range(_MAX_EXAMPLES), strict=False))
