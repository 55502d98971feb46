"""What differs between two settings, in words."""

from __future__ import annotations

from collections.abc import Iterator

from fastscreen.escaping import printable
from fastscreen.history.settings import HistorySettings

_PLAIN = {
    "threshold": "dnsbl.threshold",
    "allowlist_threshold": "dnsbl.allowlist_threshold",
    "dnsbl_min_ttl": "dnsbl.min_ttl",
    "dnsbl_max_ttl": "dnsbl.max_ttl",
    "denylist_action": "access.denylist_action",
    "greet_wait": "greet.wait",
}
_SWITCHES = {
    "shadow": "shadow mode",
    "soft_bounce": "engine.soft_bounce",
    "continues": "Continue",
    "relays": "relaying to the MTA",
}


def changes(old: HistorySettings, new: HistorySettings) -> Iterator[str]:
    """Each difference that the history knows of."""
    for field, key in _PLAIN.items():
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield f"{key} {before} → {after}"
    for field, what in _SWITCHES.items():
        if getattr(old, field) != getattr(new, field):
            yield f"{what} {'on' if getattr(new, field) else 'off'}"
    if old.prefix != new.prefix:
        yield "prefixes of networks in the cache"
    for key in dict.fromkeys((*old.tests, *new.tests)):
        was, test = old.tests.get(key), new.tests.get(key)
        if was is None or test is None or was.enabled != test.enabled:
            yield f"test {key} {'on' if test is not None and test.enabled else 'off'}"
        elif was.action != test.action:
            yield f"{key}.action {was.action} → {test.action}"
        elif was.ttl != test.ttl:
            yield f"{key}.ttl {was.ttl} s → {test.ttl} s"
    for key in dict.fromkeys((*old.weights, *new.weights)):
        if old.weights.get(key, 0) != new.weights.get(key, 0):
            yield f"score.{key} {old.weights.get(key, 0)} → {new.weights.get(key, 0)}"
    yield from _sites(old, new)


def _sites(old: HistorySettings, new: HistorySettings) -> Iterator[str]:
    before, after = _by_list(old), _by_list(new)
    for name in dict.fromkeys((*before, *after)):
        shown = printable(name)
        if name not in after:
            yield f"list {shown} removed"
        elif name not in before:
            yield f"list {shown} added ({after[name]})"
        elif before[name] != after[name]:
            yield f"list {shown}: {before[name]} → {after[name]}"


def _by_list(settings: HistorySettings) -> dict[str, str]:
    """The filters and weights of each list, as in `dnsbl.sites`."""
    found: dict[str, list[str]] = {}
    for site in settings.sites:
        if site.list < len(settings.lists):
            text = f"{f'={site.filter}' if site.filter else ''}*{site.weight}"
            found.setdefault(settings.lists[site.list], []).append(text)
    return {name: ", ".join(texts) for name, texts in found.items()}
