"""What changes in Postfix when fastscreen replaces postscreen: master.cf, and checks that fastscreen already makes."""

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
_REJECTING = ("enforce", "drop")
_BY_DOMAIN = re.compile(r"(?:reject_rhsbl|permit_rhswl)_\w+")


class Change(Struct, frozen=True):
    """A change of a service in master.cf. before and after are its lines; before is empty if the service is added."""

    service: str
    why: str
    before: list[str]
    after: list[str]


class Finding(Struct, frozen=True):
    """An item of a restriction list. parameter: the list, with the service if the list is set in master.cf."""

    parameter: str
    item: str
    why: str


class Advice(Struct, frozen=True):
    """changes: of master.cf. remove, keep: items that should and should not be removed from the restrictions."""

    changes: list[Change]
    remove: list[Finding]
    keep: list[Finding]


class Screening(Struct, frozen=True):
    """The tests of the imported configuration. deep_tests: whether any is enabled; a new client that passes them gets a
    450 reply or continues. dnsbl_action: dnsbl.action. domains: those of dnsbl.sites.
    """

    deep_tests: bool
    dnsbl_action: str
    domains: frozenset[str]


def advise(
    postfix: Postfix, settings: Settings, service: Service | None, listeners: Sequence[Service], screening: Screening
) -> Advice:
    """service: the postscreen service, if any. listeners: the services on the port: postscreen, otherwise smtpd."""
    remove: list[Finding] = []
    keep: list[Finding] = []
    smtpd = postfix.service(settings.value("smtpd_service_name"), "pass")
    main = postfix.settings(None)
    restrictions = dict.fromkeys((*RESTRICTIONS, *_words(_value(main, "smtpd_restriction_classes"))))
    lists = [("", main, list(restrictions))]
    if smtpd is not None:
        own = [name for name in restrictions if name in smtpd.options]
        lists.append((f" (-o of {smtpd.full_name})", postfix.settings(smtpd), own))
    for where, values, names in lists:
        for name in names:
            _review(f"{name}{where}", _value(values, name), screening, remove, keep)
    return Advice(_changes(postfix, settings, service, listeners, smtpd), remove, keep)


def _value(settings: Settings, name: str) -> str:
    """The value of a parameter that postscreen does not read, and that cannot keep it from starting."""
    try:
        return settings.value(name)
    except ReadError:
        return ""


def _words(text: str) -> list[str]:
    try:
        return words(text)
    except MacroError:
        return []


def _review(parameter: str, text: str, screening: Screening, remove: list[Finding], keep: list[Finding]) -> None:
    items = _words(text)
    for at, item in enumerate(items):
        following = items[at + 1] if at + 1 < len(items) else ""
        if item.lower() in _BY_ADDRESS:
            why = _condition(screening, following, rejects=item.lower() == "reject_rbl_client")
            remove.append(Finding(parameter, f"{item} {following}".strip(), why))
        elif _BY_DOMAIN.fullmatch(item.lower()):
            why = "this list contains domains, and fastscreen only queries addresses"
            keep.append(Finding(parameter, f"{item} {following}".strip(), why))
        elif item.lower() == "check_policy_service" and _GREYLISTING.search(following):
            if screening.deep_tests:
                why = (
                    "greylisting: the deep tests have already made new clients come back, or Continue was used instead"
                )
                remove.append(Finding(parameter, f"{item} {following}", why))
            else:
                why = "greylisting: not needed once deep tests are enabled"
                keep.append(Finding(parameter, f"{item} {following}", why))


def _condition(screening: Screening, site: str, *, rejects: bool) -> str:
    """Why a lookup can be removed, or what has to be done before that."""
    first = []
    if site.strip("{} ").partition("=")[0].lower() not in screening.domains:
        first.append("add this list to dnsbl.sites" + ("" if rejects else ", with a negative weight"))
    if rejects and screening.dnsbl_action not in _REJECTING:
        first.append(f'set dnsbl.action to "enforce" ("{screening.dnsbl_action}" rejects no clients)')
    return f"first {', and '.join(first)}" if first else "fastscreen already queries this list"


def _changes(
    postfix: Postfix, settings: Settings, service: Service | None, listeners: Sequence[Service], smtpd: Service | None
) -> list[Change]:
    """Free the port; remove dnsblog and tlsproxy with the last postscreen service; keep or add `smtpd pass`."""
    changes = [_commented_out(listener, "fastscreen uses its port") for listener in listeners]
    others = [each for each in postfix.postscreens() if each not in listeners]
    reuse = _reuses_connections(postfix, settings)
    for each in postfix.services:
        if others or each.command not in ("dnsblog", "tlsproxy") or (each.command == "tlsproxy" and reuse):
            continue
        changes.append(_commented_out(each, "only used by postscreen"))
    if smtpd is None:
        name = settings.value("smtpd_service_name")
        chroot = listeners[0].chroot if listeners else "-"
        added = [f"{name:<9} pass  -       -       {chroot:<7} -       -       smtpd"]
        if listeners and service is None:  # then these are options of smtpd, not of postscreen
            added += map(_option, listeners[0].options.items())
        changes.append(Change(f"{name}/pass", "receives the clients that fastscreen hands off", [], added))
    return changes


def _reuses_connections(postfix: Postfix, settings: Settings) -> bool:
    """Whether outgoing mail uses tlsproxy, according to main.cf or an option of a service."""
    names = ("smtp_tls_connection_reuse", "lmtp_tls_connection_reuse")
    own = [each.options[name] for each in postfix.services for name in names if name in each.options]
    return any(value.lower() != "no" for value in [*(_value(settings, name) for name in names), *own])


def _option(option: tuple[str, str]) -> str:
    name, value = option
    plain = len(value.split()) == 1 and value == value.strip() and not value.startswith("{")
    return f"  -o {name}={value}" if plain or not value else f"  -o {{ {name} = {value} }}"


def _commented_out(service: Service, why: str) -> Change:
    return Change(service.full_name, why, list(service.line.physical), commented(service.line))


def diff(changes: list[Change], *, reverse: bool) -> list[str]:
    """The changed lines with - and +. reverse: how to undo the changes."""
    lines: list[str] = []
    for change in changes:
        before, after = (change.after, change.before) if reverse else (change.before, change.after)
        lines += [f"-{escape_text(line, 500)}" for line in before]
        lines += [f"+{escape_text(line, 500)}" for line in after]
    return lines
