"""Settings profiles: one definition, from which both postscreen's parameters and fastscreen's TOML are made.

A profile is a nested mapping as in fastscreen's configuration file, `{"greet": {"action": "enforce"}}`. `$tables` in
a text stands for the folder with the lookup tables of `profiles.toml`.
"""

import tomllib
from pathlib import Path
from typing import Any

Settings = dict[str, Any]

DIALOGUES = Path(__file__).parent.parent / "dialogues"
DEEP_TESTS = ("pipelining", "non_smtp_command", "bare_newline")

# our key -> postscreen's parameter; what is not here (listen, cache, log, resolvers) the lab sets on each side
PARAMETERS = {
    "hostname": "myhostname",
    "banner": "smtpd_banner",
    "handoff.service": "smtpd_service_name",  # a socket below private/, put into [handoff] to
    "access.list": "postscreen_access_list",
    "access.mynetworks": "mynetworks",
    "access.allowlist_interfaces": "postscreen_allowlist_interfaces",
    "access.denylist_action": "postscreen_denylist_action",
    "greet.wait": "postscreen_greet_wait",
    "greet.banner": "postscreen_greet_banner",
    "greet.action": "postscreen_greet_action",
    "greet.ttl": "postscreen_greet_ttl",
    "dnsbl.sites": "postscreen_dnsbl_sites",
    "dnsbl.threshold": "postscreen_dnsbl_threshold",
    "dnsbl.allowlist_threshold": "postscreen_dnsbl_allowlist_threshold",
    "dnsbl.action": "postscreen_dnsbl_action",
    "dnsbl.reply_map": "postscreen_dnsbl_reply_map",
    "dnsbl.timeout": "postscreen_dnsbl_timeout",
    "dnsbl.min_ttl": "postscreen_dnsbl_min_ttl",
    "dnsbl.max_ttl": "postscreen_dnsbl_max_ttl",
    "deep.pipelining_ttl": "postscreen_pipelining_ttl",
    "deep.non_smtp_command_ttl": "postscreen_non_smtp_command_ttl",
    "deep.bare_newline_ttl": "postscreen_bare_newline_ttl",
    "deep.pipelining_after_fail": "postscreen_pipelining_action",
    "deep.non_smtp_command_after_fail": "postscreen_non_smtp_command_action",
    "deep.bare_newline_after_fail": "postscreen_bare_newline_action",
    "engine.forbidden_commands": "postscreen_forbidden_commands",
    "engine.command_count_limit": "postscreen_command_count_limit",
    "engine.command_time_limit": "postscreen_command_time_limit",
    "engine.line_length_limit": "line_length_limit",
    "engine.command_filter": "postscreen_command_filter",
    "engine.helo_required": "postscreen_helo_required",
    "engine.disable_vrfy_command": "postscreen_disable_vrfy_command",
    "engine.discard_ehlo_keywords": "postscreen_discard_ehlo_keywords",
    "engine.discard_ehlo_keyword_address_maps": "postscreen_discard_ehlo_keyword_address_maps",
    "engine.message_size_limit": "message_size_limit",
    "engine.smtputf8": "smtputf8_enable",
    "engine.soft_bounce": "soft_bounce",
    "engine.reject_footer": "postscreen_reject_footer",
    "engine.reject_footer_maps": "postscreen_reject_footer_maps",
    "engine.expansion_filter": "postscreen_expansion_filter",
    "tls.level": "postscreen_tls_security_level",
    "tls.certificates": "tlsproxy_tls_chain_files",  # of the whole Postfix, not of one postscreen
    "limits.client_connection_count": "postscreen_client_connection_count_limit",
    "limits.pre_queue": "postscreen_pre_queue_limit",
    "limits.post_queue": "postscreen_post_queue_limit",
    "log.respectful": "respectful_logging",
    "log.delay_resolution": "delay_logging_resolution_limit",
    "log.address_format": "info_log_address_format",
}


def load() -> tuple[dict[str, Settings], dict[str, str]]:
    """Read profiles.toml; return the profiles, each merged over `base`, and the lookup tables (name: content)."""
    with (DIALOGUES / "profiles.toml").open("rb") as file:
        document = tomllib.load(file)
    tables: dict[str, str] = document.pop("tables")
    base: Settings = document.pop("base")
    return {name: merge(base, own) for name, own in document.items()}, tables


def merge(under: Settings, over: Settings) -> Settings:
    """Return `under` with the keys of `over` put over it, table by table."""
    merged = dict(under)
    for key, value in over.items():
        merged[key] = merge(under.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def with_setting(settings: Settings, key: str, value: object) -> Settings:
    """Return the settings with one dotted key changed."""
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return merge(settings, nested)


def to_postscreen(settings: Settings) -> dict[str, str]:
    """Return the parameters, as text for master.cf's `-o`. ValueError names a key without a counterpart."""
    parameters: dict[str, str] = {}
    for key, value in _flat(settings).items():
        if key.removeprefix("deep.") in DEEP_TESTS:
            parameter = "postscreen_" + key.removeprefix("deep.")
            parameters[f"{parameter}_enable"] = "no" if value == "off" else "yes"
            if value != "off":
                parameters[f"{parameter}_action"] = value
        elif key == "listen.trusted":  # a PROXY header comes first; fastscreen's side is in screener.py
            parameters["postscreen_upstream_proxy_protocol"] = "haproxy"
        elif key == "engine.announce_vrfy":
            parameters["disable_vrfy_command"] = _text(not value)
        elif key in PARAMETERS:
            parameters.setdefault(PARAMETERS[key], _text(value))
        else:
            raise ValueError(f"profile key {key} lacks a postscreen parameter in profiles.py")
    return parameters


def to_toml(settings: Settings) -> str:
    """Return the settings as fastscreen reads them."""
    plain = [f"{key} = {_toml(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for name, table in settings.items():
        if isinstance(table, dict):
            plain += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join([*plain, ""])


def replaced(settings: Settings, placeholder: str, text: str) -> Settings:
    """Return the settings with a placeholder replaced in every text."""

    def each(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(placeholder, text)
        if isinstance(value, list):
            return [each(item) for item in value]
        if isinstance(value, dict):
            return {key: each(item) for key, item in value.items()}
        return value

    return {key: each(value) for key, value in settings.items()}


def _flat(settings: Settings, prefix: str = "") -> Settings:
    flat: Settings = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\' else c for c in value)
        return f'"{escaped}"'
    return str(value)
