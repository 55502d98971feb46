"""Which postscreen services of master.cf come into one configuration."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.escaping import escape_text
from fastscreen.postfix import listening
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.settings import Postfix, Settings
from fastscreen.postfix.translate import Other, Translated, translate

# What may differ: one file has all ports, one name in the log and one cache.
_OF_A_PORT = {"listen.addresses", "listen.proxy", "log.ident", "cache.path"}


class Picked(Struct, frozen=True):
    """service: the one whose settings count; None: there is no postscreen. others: whose ports come into the same file.

    todo: what becomes of the rest.
    """

    service: Service | None
    others: list[Other] = []
    todo: list[str] = []


def pick(postfix: Postfix, name: str | None) -> Picked | str:
    """name: the one that is asked for, alone. A text: there is none of this name. Raises ReadError."""
    found = postfix.postscreens()
    if name is not None:
        named = [each for each in found if name in (each.name, each.full_name)]
        if not named:
            names = ", ".join(escape_text(each.name) for each in found)
            return f"master.cf has no postscreen service {escape_text(name)}; it has: {names or 'none'}"
        rest = [each for each in found if each != named[0]]
        return Picked(
            named[0],
            todo=[
                f"{escape_text(each.full_name)} is not in this file: only {escape_text(name)} was asked for"
                for each in rest
            ],
        )
    if not found:
        return Picked(None)
    broken = {each.full_name: why for each in found if (why := _why_unreadable(postfix, each))}
    if len(broken) < len(found):
        found = [each for each in found if each.full_name not in broken]
    first = min(
        found, key=lambda each: (bool(_protocol(postfix, each)), not listening.is_smtp(each), found.index(each))
    )
    values = _values(postfix, first)
    others: list[Other] = []
    todo = [f"{escape_text(name)} is not in this file: {why}" for name, why in broken.items()]
    for each in found:
        if each == first:
            continue
        shown = escape_text(each.full_name)
        differ = [key for key, value in _values(postfix, each).items() if value != values[key]]
        if any(key not in _OF_A_PORT for key in differ):
            keys = ", ".join(key for key in differ if key not in _OF_A_PORT)
            again = f"fastscreen import-postfix --service {escape_text(each.name)}"
            todo.append(f"{shown} is not in this file, for it has settings of its own ({keys}): {again} makes another")
            continue
        others.append(Other(each, postfix.settings(each)))
        if "log.ident" in differ:
            todo.append(f"{shown} logged under another name; log.ident is {escape_text(first.full_name)}'s")
    return Picked(first, others, todo)


def _why_unreadable(postfix: Postfix, service: Service) -> str:
    """What is wrong with a value without which nothing can be made of a service; empty: nothing."""
    try:
        _protocol(postfix, service)
        tlsproxy(postfix, postfix.settings(service))
    except ReadError as error:
        return str(error)
    return ""


def tlsproxy(postfix: Postfix, settings: Settings) -> Settings:
    """What the service sees that makes a postscreen's handshakes. Raises ReadError."""
    return postfix.settings(postfix.called(settings.value("tlsproxy_service_name"), "unix"))


def _protocol(postfix: Postfix, service: Service) -> str:
    return postfix.settings(service).value("postscreen_upstream_proxy_protocol")


def _values(postfix: Postfix, service: Service) -> dict[str, object]:
    seen = postfix.settings(service)
    made: Translated = translate(seen, tlsproxy(postfix, seen), service)
    return {entry.key.key: entry.value for entry in made.entries}
