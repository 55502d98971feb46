"""Selects the postscreen services of master.cf that become one configuration."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.escaping import escape_text
from fastscreen.postfix import listening
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.settings import Postfix, Settings
from fastscreen.postfix.translate import OtherService, Translated, translate

# Keys in which merged services may differ: the file contains the ports of all, and one log name and cache.
_PER_SERVICE = {"listen.addresses", "listen.proxy", "log.ident", "cache.path"}


class Selection(Struct, frozen=True):
    """service: the one whose settings are imported; None without a postscreen service. others: those whose ports
    are added. todo: notes about the remaining ones.
    """

    service: Service | None
    others: list[OtherService] = []
    todo: list[str] = []


def select(postfix: Postfix, name: str | None) -> Selection | str:
    """Select all services that fit together, or only `name`. Returns an error text if `name` does not exist.

    Raises ReadError.
    """
    found = postfix.postscreens()
    if name is not None:
        named = [each for each in found if name in (each.name, each.full_name)]
        if not named:
            names = ", ".join(escape_text(each.name) for each in found)
            return f"--service {escape_text(name)}: not a postscreen service in master.cf; expected {names or 'none'}"
        rest = [each for each in found if each != named[0]]
        return Selection(
            named[0],
            todo=[
                f"{escape_text(each.full_name)} is not in this file, because of --service {escape_text(name)}"
                for each in rest
            ],
        )
    if not found:
        return Selection(None)
    broken = {each.full_name: why for each in found if (why := _why_unreadable(postfix, each))}
    if len(broken) < len(found):
        found = [each for each in found if each.full_name not in broken]
    first = min(
        found, key=lambda each: (bool(_protocol(postfix, each)), not listening.is_smtp(each), found.index(each))
    )
    values = _values(postfix, first)
    others: list[OtherService] = []
    todo = [f"{escape_text(name)} is not in this file: {why}" for name, why in broken.items()]
    for each in found:
        if each == first:
            continue
        shown = escape_text(each.full_name)
        differ = [key for key, value in _values(postfix, each).items() if value != values[key]]
        if any(key not in _PER_SERVICE for key in differ):
            keys = ", ".join(key for key in differ if key not in _PER_SERVICE)
            again = f"fastscreen import-postfix --service {escape_text(each.name)}"
            todo.append(f"{shown} is not in this file, because other settings differ ({keys}): use {again}")
            continue
        others.append(OtherService(each, postfix.settings(each)))
        if "log.ident" in differ:
            todo.append(f"{shown} used another name in the log; log.ident is that of {escape_text(first.full_name)}")
    return Selection(first, others, todo)


def _why_unreadable(postfix: Postfix, service: Service) -> str:
    """What is wrong with a value that is needed to import a service; empty if nothing is."""
    try:
        _protocol(postfix, service)
        tlsproxy(postfix, postfix.settings(service))
    except ReadError as error:
        return str(error)
    return ""


def tlsproxy(postfix: Postfix, settings: Settings) -> Settings:
    """The settings of the tlsproxy service that a postscreen service uses. Raises ReadError."""
    return postfix.settings(postfix.service(settings.value("tlsproxy_service_name"), "unix"))


def _protocol(postfix: Postfix, service: Service) -> str:
    return postfix.settings(service).value("postscreen_upstream_proxy_protocol")


def _values(postfix: Postfix, service: Service) -> dict[str, object]:
    seen = postfix.settings(service)
    made: Translated = translate(seen, tlsproxy(postfix, seen), service)
    return {entry.key.key: entry.value for entry in made.entries}
