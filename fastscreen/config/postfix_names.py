"""Which keys of ours a parameter of Postfix becomes: for the import, and for a file in which Postfix's names stand."""

from __future__ import annotations

from fastscreen.config.keys import KEYS

TLS_PREFIXES = ("postscreen_tls_", "tlsproxy_tls_", "smtpd_tls_")

_OF_TLS = {
    **dict.fromkeys(
        ("cert_file", "key_file", "eccert_file", "eckey_file", "dcert_file", "dkey_file", "chain_files"),
        "tls.certificates",
    ),
    **dict.fromkeys(("ciphers", "mandatory_ciphers", "exclude_ciphers", "mandatory_exclude_ciphers"), "tls.ciphers"),
    **dict.fromkeys(("protocols", "mandatory_protocols"), "tls.protocols"),
    "loglevel": "tls.log_level",
    "security_level": "tls.level",
}

# Parameters that become a key that does not bear their name.
USED = {
    "compatibility_level": "log.respectful, engine.smtputf8",
    "data_directory": "`fastscreen cache import`",
    "default_cache_db_type": "`fastscreen cache import`",
    "inet_interfaces": "listen.addresses",
    "inet_protocols": "listen.addresses",
    "mail_name": "banner",
    "mydomain": "hostname, banner",
    "queue_directory": "handoff.to",
    "postscreen_enforce_tls": "tls.level",
    "postscreen_use_tls": "tls.level",
    "smtpd_enforce_tls": "tls.level",
    "smtpd_use_tls": "tls.level",
    "tlsproxy_enforce_tls": "tls.level",
    "tlsproxy_use_tls": "tls.level",
    **{f"{prefix}{name}": key for prefix in TLS_PREFIXES for name, key in _OF_TLS.items()},
}

_BY_NAME = {key.key: key for key in KEYS}


def keys_of(parameter: str) -> list[str]:
    """The keys that a parameter becomes, in the table's order; empty if it lacks a counterpart or is not Postfix's."""
    found = [key.key for key in KEYS if parameter in key.parameters]
    found += [key.key for key in KEYS if parameter in key.parents]
    found += [name for name in USED.get(parameter, "").split(", ") if name in _BY_NAME]
    return list(dict.fromkeys(found))


def key_meant(table: str, name: str) -> str:
    """The key that is meant by Postfix's name, whole or without its prefix, in a table ("": at the top); "": none.

    `postscreen_greet_action` anywhere, `pipelining_enable` in [deep], `dnsbl_sites` at the top.
    """
    prefixes = ["", "postscreen_", f"postscreen_{table}_", "smtpd_"] + (list(TLS_PREFIXES) if table == "tls" else [])
    for prefix in dict.fromkeys(prefixes):
        found = keys_of(prefix + name)
        own = [key for key in found if not table or key.startswith(f"{table}.")]
        if own or (found and not prefix):
            return (own or found)[0]
    return ""
