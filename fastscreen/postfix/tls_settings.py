"""postscreen's TLS settings: the level is postscreen's, the rest tlsproxy's (in Postfix 3.12 also postscreen's)."""

from __future__ import annotations

import re

from fastscreen.config.tls_kinds import VERSIONS
from fastscreen.escaping import escape_text
from fastscreen.postfix.settings import Settings
from fastscreen.screening.macros import words

_ENCRYPT = ("fingerprint", "verify", "secure")
_PAIRS = ("eccert_file", "eckey_file"), ("cert_file", "key_file"), ("dcert_file", "dkey_file")
_BOUND = re.compile(r"(>=|<=)(.*)")
_GRADES = ("high", "medium")
_BY_NAME = {name.lower(): name for name in VERSIONS}
_OLD = ("sslv2", "sslv3")

Notes = list[tuple[str, bool]]
"""Notes for the operator, each with whether it asks for action."""


def of_tlsproxy(settings: Settings, tlsproxy: Settings, name: str) -> str:
    """The value of `tlsproxy_tls_NAME`, or of `postscreen_tls_NAME` if that is set."""
    if settings.origin(f"postscreen_tls_{name}"):
        return settings.value(f"postscreen_tls_{name}")
    return tlsproxy.value(f"tlsproxy_tls_{name}")


def level(settings: Settings, tlsproxy: Settings) -> tuple[str, Notes]:
    """The level (none, may or encrypt), and notes."""
    said = settings.value("postscreen_tls_security_level").lower()
    notes: Notes = []
    if said in _ENCRYPT:
        notes.append((f"{said} means encrypt here, as in postscreen", False))
        said = "encrypt"
    elif not said:
        on = {name: settings.value(f"postscreen_{name}").lower() == "yes" for name in ("enforce_tls", "use_tls")}
        said = "encrypt" if on["enforce_tls"] else "may" if on["use_tls"] else "none"
    if said not in ("none", "may", "encrypt"):
        raise ValueError(f"postscreen_tls_security_level = {escape_text(said)} is rejected by Postfix as well")
    if said != "none" and not certificates(settings, tlsproxy)[0]:
        notes.append((f"{said} in Postfix, but without a certificate tlsproxy would answer STARTTLS with 454", False))
        said = "none"
    return said, notes


def certificates(settings: Settings, tlsproxy: Settings) -> tuple[list[str], Notes]:
    """The files with keys and certificate chains, each key before its chain."""
    chains = words(of_tlsproxy(settings, tlsproxy, "chain_files"))
    if chains:
        return chains, []
    files: list[str] = []
    for cert, key in _PAIRS:
        chain = of_tlsproxy(settings, tlsproxy, cert)
        if not chain or chain == "none":
            continue
        secret = of_tlsproxy(settings, tlsproxy, key)
        files += [secret, chain] if secret and secret != chain else [chain]
    return files, [("each key, then its chain", False)] if files else []


def _in_effect(settings: Settings, tlsproxy: Settings, name: str) -> str:
    """Of a pair such as `protocols` and `mandatory_protocols`, the name that is used at the current level."""
    return f"mandatory_{name}" if level(settings, tlsproxy)[0] == "encrypt" else name


def _is_set(settings: Settings, tlsproxy: Settings, name: str) -> bool:
    own = settings.origin(f"postscreen_tls_{name}", f"smtpd_tls_{name}")
    return (own or tlsproxy.origin(f"tlsproxy_tls_{name}", f"smtpd_tls_{name}")) is not None


def protocols(settings: Settings, tlsproxy: Settings) -> tuple[str | None, Notes]:
    """The range of versions; a list of names, as used before Postfix 3.6, is converted to a range."""
    name = _in_effect(settings, tlsproxy, "protocols")
    if not _is_set(settings, tlsproxy, name):
        return None, [("not set in Postfix, where the default is >=TLSv1; the oldest version here is TLS 1.2", False)]
    text = of_tlsproxy(settings, tlsproxy, name)
    items = [item for item in re.split(r"[\s,:]+", text) if item]
    bounds = {found[1]: found[2] for item in items if (found := _BOUND.fullmatch(item))}
    excluded = {item[1:].lower() for item in items if item.startswith("!")}
    included = {item.lower() for item in items if not item.startswith(("!", ">", "<"))}
    names = list(_BY_NAME)
    unknown = [item for item in (excluded | included) if item not in (*names, *_OLD)]
    if unknown:
        raise ValueError(f"unknown TLS version {escape_text(unknown[0])}")
    low, high = (_index(bounds.get(sign, ""), end) for sign, end in ((">=", 0), ("<=", len(names) - 1)))
    allowed = [
        name
        for at, name in enumerate(names)
        if low <= at <= high and name not in excluded and (not included or name in included)
    ]
    if not allowed:
        raise ValueError(f"{escape_text(text)} excludes every TLS version")
    first, last = allowed[0], allowed[-1]
    between = names[names.index(first) : names.index(last) + 1]
    notes: Notes = []
    if between != allowed:
        gaps = ", ".join(sorted(set(between) - set(allowed)))
        notes.append((f"the versions must be a range without gaps, so {gaps} is enabled as well", True))
    range_ = f">={_BY_NAME[first]}" + ("" if last == names[-1] else f", <={_BY_NAME[last]}")
    return range_, notes


def _index(version: str, default: int) -> int:
    """The index of a bound among the versions; SSL counts as the oldest."""
    version = version.strip().lower()
    if not version:
        return default
    if version in _OLD:
        return 0
    if version not in _BY_NAME:
        raise ValueError(f"unknown TLS version {escape_text(version)}")
    return list(_BY_NAME).index(version)


def ciphers(settings: Settings, tlsproxy: Settings) -> tuple[str | None, Notes]:
    """OpenSSL's default list, unless another one is set in Postfix."""
    name = _in_effect(settings, tlsproxy, "ciphers")
    excluding = ["exclude_ciphers"] + (["mandatory_exclude_ciphers"] if name != "ciphers" else [])
    grade = of_tlsproxy(settings, tlsproxy, name).lower()
    listed = f"tls_{grade}_cipherlist"
    chosen = tlsproxy.origin(listed) is not None or (_is_set(settings, tlsproxy, name) and grade != "medium")
    excluded = [
        item for each in excluding for item in re.split(r"[\s,:]+", of_tlsproxy(settings, tlsproxy, each)) if item
    ]
    if not chosen and not excluded:
        return None, []
    if chosen and grade not in _GRADES:
        return None, [(f"the grade {escape_text(grade)} is omitted: OpenSSL's defaults are suitable for mail", True)]
    base = tlsproxy.value(listed) if chosen else "DEFAULT"
    return ":".join([base, *(f"!{item}" for item in excluded)]), []
