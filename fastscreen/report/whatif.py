"""Other DNSBL settings for what was logged: who would have been refused, and who not."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from fastscreen.config.model import Site
from fastscreen.config.sites import parse_site
from fastscreen.report.tally import Tally

ALLOWED = "expected threshold=N, allowlist_threshold=N, site=domain[=filter][*weight]"
_EXAMPLES = 20  # clients that are named


class Settings(Struct, frozen=True):
    """What clients are judged by. allowlist_threshold: 0 and more: off."""

    sites: tuple[Site, ...] = ()
    threshold: int = 1
    allowlist_threshold: int = 0


class Rejudged(Struct, frozen=True):
    """A client of which the judgement changes: its last answers, and their rank by the other settings."""

    client: str
    answers: tuple[str, ...]
    rank: int


JSON_KEYS = {
    "still": "still_rejected",
    "no_longer": "no_longer_rejected",
    "newly": "newly_rejected",
    "neither": "not_rejected",
    "allowed": "passed_by_allowlist",
    "no_longer_clients": "no_longer_rejected_clients",
    "newly_clients": "newly_rejected_clients",
}
"""Of --json, where they differ from the fields."""


class WhatIf(Struct, frozen=True, rename=JSON_KEYS):
    """Sessions that were tested, by what was and what would be. unknown: refused, but no list's answer is in the log.

    no_longer, newly: the session would no longer be refused, or newly. allowed: would pass all tests, by allow lists.
    without_site: lists in the log that no site names: they count 0. without_answers: sites of which no answer is in the
    log: not asked, or they list nobody.
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
    """Change settings as the command line says. A domain's sites take the place of those it had. Raises ValueError."""
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
                raise ValueError(f"{word}: not a whole number; {ALLOWED}") from None
            if key == "threshold" and number < 1:
                raise ValueError(f"{word}: at least 1")
            if key == "threshold":
                threshold = number
            else:
                allowlist_threshold = number
        else:
            before = "" if "=" in word else " (a log file goes before --what-if)"
            raise ValueError(f"{word}: no such setting{before}; {ALLOWED}")
    named = {site.domain for site in sites}
    kept = tuple(site for site in base.sites if site.domain not in named)
    return Settings(kept + tuple(sites), threshold, allowlist_threshold)


def rejudge(tally: Tally, settings: Settings) -> WhatIf:
    """Judge every session that was tested again."""
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
                by_these = rank(tuple(sorted(client.answers)))
                if (by_these >= settings.threshold) != reached:
                    said = tuple(" as ".join(tally.answer_texts[number]) for number in client.answers)
                    yield Rejudged(address.decode(), said, by_these)

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
    said: dict[str, list[bytes]] = {}
    for domain, octets in answers:
        said.setdefault(domain, []).append(octets)
    return sum(site.weight for site in sites if any(site.matches(octets) for octets in said.get(site.domain, ())))


def _octets(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return bytes(4)


def _shown(site: Site) -> str:
    return f"{site.domain}{'=[filter]' if site.octets else ''}*{site.weight}"


def _first(found: Iterator[Rejudged]) -> tuple[Rejudged, ...]:
    return tuple(each for each, _ in zip(found, range(_EXAMPLES), strict=False))
