"""What changes in Postfix when fastscreen takes postscreen's place: master.cf, and checks that a screener has done."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from fastscreen.escaping import escape_text
from fastscreen.postfix.files import ReadError, Service, commented
from fastscreen.postfix.settings import Postfix, Settings
from fastscreen.screening.macros import MacroError, words

RESTRICTIONS = tuple(
    f"smtpd_{name}_restrictions" for name in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)
_GREYLISTING = re.compile(r"grey|gray|sqlgrey|gld\b|:10023\b|:60000\b|:2501\b", re.IGNORECASE)
_BY_ADDRESS = ("reject_rbl_client", "permit_dnswl_client")
_REFUSING = ("enforce", "drop")
_BY_DOMAIN = re.compile(r"(?:reject_rhsbl|permit_rhswl)_\w+")


class Change(Struct, frozen=True):
    """A service in master.cf. before and after: its lines; before is empty when the service is to be added."""

    service: str
    why: str
    before: list[str]
    after: list[str]


class Finding(Struct, frozen=True):
    """Something in a restriction list. parameter: which, and of which service when it is not main.cf's."""

    parameter: str
    item: str
    why: str


class Advice(Struct, frozen=True):
    """changes: of master.cf. go: what should leave the restrictions, stay: what looks like it and should not."""

    changes: list[Change]
    go: list[Finding]
    stay: list[Finding]


class Work(Struct, frozen=True):
    """What the screener will do. deep: whether deep tests are on, which end with a 450 or Continue for a new client.
    action: dnsbl.action. lists: the domains of dnsbl.sites.
    """

    deep: bool
    action: str
    lists: frozenset[str]


def advise(
    postfix: Postfix, settings: Settings, service: Service | None, doors: Sequence[Service], work: Work
) -> Advice:
    """service: the postscreen, if there is one. doors: what has the port: that, else smtpds."""
    go: list[Finding] = []
    stay: list[Finding] = []
    handed = postfix.called(settings.value("smtpd_service_name"), "pass")
    of_all = postfix.settings(None)
    restrictions = dict.fromkeys((*RESTRICTIONS, *_words(_value(of_all, "smtpd_restriction_classes"))))
    seen = [("", of_all, list(restrictions))]
    if handed is not None:
        own = [name for name in restrictions if name in handed.options]
        seen.append((f" (-o of {handed.full_name})", postfix.settings(handed), own))
    for where, of, names in seen:
        for name in names:
            _look(f"{name}{where}", _value(of, name), work, go, stay)
    return Advice(_changes(postfix, settings, service, doors, handed), go, stay)


def _value(settings: Settings, name: str) -> str:
    """Of a parameter that postscreen does not read: it starts whatever that says."""
    try:
        return settings.value(name)
    except ReadError:
        return ""


def _words(text: str) -> list[str]:
    try:
        return words(text)
    except MacroError:
        return []


def _look(parameter: str, text: str, work: Work, go: list[Finding], stay: list[Finding]) -> None:
    items = _words(text)
    for at, item in enumerate(items):
        following = items[at + 1] if at + 1 < len(items) else ""
        if item.lower() in _BY_ADDRESS:
            why = _instead(work, following, rejects=item.lower() == "reject_rbl_client")
            go.append(Finding(parameter, f"{item} {following}".strip(), why))
        elif _BY_DOMAIN.fullmatch(item.lower()):
            why = "a list of domains: a screener sees addresses only"
            stay.append(Finding(parameter, f"{item} {following}".strip(), why))
        elif item.lower() == "check_policy_service" and _GREYLISTING.search(following):
            if work.deep:
                why = (
                    "greylisting: the deep tests have made new clients come again already, or let them on with Continue"
                )
                go.append(Finding(parameter, f"{item} {following}", why))
            else:
                why = "greylisting: needed no more once deep tests are on"
                stay.append(Finding(parameter, f"{item} {following}", why))


def _instead(work: Work, asked: str, *, rejects: bool) -> str:
    """Why a look-up can go, or what comes first: until then nothing else does what it does."""
    first = []
    if asked.strip("{} ").partition("=")[0].lower() not in work.lists:
        first.append("put this list into dnsbl.sites" + ("" if rejects else ", with a weight below 0"))
    if rejects and work.action not in _REFUSING:
        first.append(f'set dnsbl.action to "enforce" ("{work.action}" turns nobody away)')
    return f"first {', and '.join(first)}" if first else "fastscreen has asked this list already"


def _changes(
    postfix: Postfix, settings: Settings, service: Service | None, doors: Sequence[Service], handed: Service | None
) -> list[Change]:
    """The port goes; dnsblog and tlsproxy go with the last postscreen; `smtpd pass` stays, or comes."""
    changes = [_off(door, "fastscreen has its port") for door in doors]
    others = [each for each in postfix.postscreens() if each not in doors]
    reuse = _is_reused(postfix, settings)
    for each in postfix.services:
        if others or each.command not in ("dnsblog", "tlsproxy") or (each.command == "tlsproxy" and reuse):
            continue
        changes.append(_off(each, "postscreen's helper, of no use without it"))
    if handed is None:
        name = settings.value("smtpd_service_name")
        chroot = doors[0].chroot if doors else "-"
        added = [f"{name:<9} pass  -       -       {chroot:<7} -       -       smtpd"]
        if doors and service is None:  # its options are smtpd's; those of a postscreen are not
            added += map(_option, doors[0].options.items())
        changes.append(Change(f"{name}/pass", "takes the clients that fastscreen hands on", [], added))
    return changes


def _is_reused(postfix: Postfix, settings: Settings) -> bool:
    """Whether mail goes out through tlsproxy, in main.cf or by a service's own option."""
    names = ("smtp_tls_connection_reuse", "lmtp_tls_connection_reuse")
    own = [each.options[name] for each in postfix.services for name in names if name in each.options]
    return any(said.lower() != "no" for said in [*(_value(settings, name) for name in names), *own])


def _option(option: tuple[str, str]) -> str:
    name, value = option
    plain = len(value.split()) == 1 and value == value.strip() and not value.startswith("{")
    return f"  -o {name}={value}" if plain or not value else f"  -o {{ {name} = {value} }}"


def _off(service: Service, why: str) -> Change:
    return Change(service.full_name, why, list(service.line.physical), commented(service.line))


def lines(changes: list[Change], back: bool) -> list[str]:
    """For people: what to make of which lines; back: the other way round."""
    told: list[str] = []
    for change in changes:
        before, after = (change.after, change.before) if back else (change.before, change.after)
        told += [f"-{escape_text(line, 500)}" for line in before]
        told += [f"+{escape_text(line, 500)}" for line in after]
    return told
