"""The text of an SPF record, RFC 7208 sections 4.5, 4.6 and 12. Nothing is asked here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from msgspec import Struct

from fastscreen.allowlist.networks import Network
from fastscreen.escaping import escape_text, quoted

MECHANISMS = ("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists")

_VERSION = re.compile(rb"v=spf1(?: |\Z)", re.IGNORECASE)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.ASCII)
_MECHANISM = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9_.-]*)([:/].*)?", re.ASCII)
_PREFIXES = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?", re.ASCII)
_MACRO = re.compile(r"%(?:\{[slodiphcrtv][0-9]*r?[-.+,/_=]*\}|[%_-])", re.ASCII | re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
_TOP_LABEL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


class SpfError(Exception):
    """A record that gives no networks. kind: as RFC 7208 section 2.6 names it: none, temperror, permerror."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Mechanism(Struct, frozen=True):
    """text: as written. qualifier: one of `+-~?`. domain: empty = the record's own. network: of ip4 and ip6.

    ipv4, ipv6: bits of an address that a and mx compare. macro: what it matches depends on the client.
    """

    text: str
    qualifier: str
    name: str
    domain: str = ""
    ipv4: int = 32
    ipv6: int = 128
    network: Network | None = None
    macro: bool = False


class Record(Struct, frozen=True):
    """mechanisms: in order, up to `all`; those after it are ignored. redirect: None if the record does not have one."""

    mechanisms: tuple[Mechanism, ...]
    redirect: Mechanism | None


def select(texts: Iterable[bytes], domain: str) -> str:
    """The SPF record among a name's TXT records, each put together from its strings. SpfError: none, or several."""
    found = [text for text in texts if _VERSION.match(text)]
    if not found:
        raise SpfError("none", f"{domain}: no SPF record")
    if len(found) > 1:
        raise SpfError("permerror", f"{domain}: {len(found)} SPF records")
    try:
        return found[0].decode("ascii")
    except UnicodeDecodeError:
        raise SpfError("permerror", f"{domain}: the SPF record is not ASCII") from None


def parse(text: str, domain: str) -> Record:
    """SpfError (permerror): anything in it is not as RFC 7208 section 12 has it, wherever it stands."""
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    ended = False
    for term in text.split(" ")[1:]:
        if not term:
            continue
        if modifier := _MODIFIER.fullmatch(term):
            name = modifier[1].lower()
            if name in ("redirect", "exp") and name in modifiers:
                raise _bad(term, domain, "there twice")
            modifiers[name] = modifier[2]
            continue
        mechanism = _mechanism(term, domain)
        if not ended:
            mechanisms.append(mechanism)
        ended = ended or mechanism.name == "all"
    redirect = None
    if modifiers.get("exp"):  # unused here, but an error in it counts (section 4.6); an empty one is ignored (6.2)
        _domain(modifiers["exp"], f"exp={modifiers['exp']}", domain)
    if "redirect" in modifiers:
        term = f"redirect={modifiers['redirect']}"
        target, macro = _domain(modifiers["redirect"], term, domain)
        redirect = None if ended else Mechanism(term, "+", "redirect", target, macro=macro)
    return Record(tuple(mechanisms), redirect)


def _mechanism(term: str, domain: str) -> Mechanism:
    found = _MECHANISM.fullmatch(term)
    if found is None or (name := found[2].lower()) not in MECHANISMS:
        raise _bad(term, domain, "not an SPF mechanism")
    qualifier, argument = found[1] or "+", found[3] or ""
    if name in ("ip4", "ip6"):
        return Mechanism(term, qualifier, name, network=_network(name, argument, term, domain))
    if name == "all":
        if argument:
            raise _bad(term, domain, "all takes no argument")
        return Mechanism(term, qualifier, name)
    ipv4, ipv6 = 32, 128
    if name in ("a", "mx"):
        # The shortest part that is followed by prefix lengths: a domain-spec may contain slashes, too.
        split = _PREFIXES.fullmatch(argument)
        assert split is not None
        argument = split[1]
        ipv4, ipv6 = int(split[2] or 32), int(split[3] or 128)
        if ipv4 > 32 or ipv6 > 128:
            raise _bad(term, domain, "no such prefix length")
    if argument and not argument.startswith(":"):
        raise _bad(term, domain, "expected a domain or a prefix length")
    if not argument:
        if name in ("include", "exists"):
            raise _bad(term, domain, "a domain is missing")
        return Mechanism(term, qualifier, name, "", ipv4, ipv6)
    target, macro = _domain(argument[1:], term, domain)
    return Mechanism(term, qualifier, name, target, ipv4, ipv6, macro=macro)


def _network(name: str, argument: str, term: str, domain: str) -> Network:
    """Bits behind the prefix are dropped, as every SPF check does."""
    address, slash, length = argument[1:].partition("/")
    try:
        if not argument.startswith(":") or (slash and not re.fullmatch(r"0|[1-9][0-9]{0,2}", length, re.ASCII)):
            raise ValueError
        if name == "ip4":
            return ipaddress.IPv4Network(f"{address}/{length or 32}", strict=False)
        if "%" in address:
            raise ValueError
        return ipaddress.IPv6Network(f"{address}/{length or 128}", strict=False)
    except ValueError:
        raise _bad(term, domain, "no network") from None


def _domain(text: str, term: str, domain: str) -> tuple[str, bool]:
    """A domain-spec (section 7.1), and whether it has macros."""
    if "%" in text:
        if "%" in _MACRO.sub("", text):
            raise _bad(term, domain, "no macro")
        return text, True
    name = text.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or len(labels) < 2 or not _TOP_LABEL.fullmatch(labels[-1]):
        raise _bad(term, domain, "no domain")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(term, domain, "no domain")
    return name.lower(), False


def _bad(term: str, domain: str, why: str) -> SpfError:
    return SpfError("permerror", f"{escape_text(domain)}: {quoted(term)}: {why}")
