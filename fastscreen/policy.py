"""Turns a configuration into what the core decides by: opens every table that it names."""

from __future__ import annotations

import resource
from collections.abc import Callable

from msgspec import Struct

from fastscreen import commands, ehlo
from fastscreen.access import access_steps
from fastscreen.config.model import Action, Config, Deep
from fastscreen.core import Lists, Policy
from fastscreen.footer import Footer
from fastscreen.tables import open_table

# Descriptors that are nobody's client: listeners, log, cache, resolvers' sockets, the loop's own, and some air.
RESERVED_DESCRIPTORS = 100


class Built(Struct, frozen=True):
    """A policy, and what was odd in the tables that it was read from (a line each)."""

    policy: Policy
    warnings: tuple[str, ...]


def build(config: Config, mta: str) -> Built:
    """Open the tables and compile the policy.

    mta: path of the Unix socket that takes clients. ConfigError: a table cannot be opened.
    """
    warnings: list[str] = []
    access = access_steps(config)
    warnings += access.warnings
    footer = Footer(config)
    warnings += footer.warnings
    forbidden = commands.Forbidden(config)
    warnings += forbidden.warnings
    command_filter: Callable[[bytes], bytes | None] | None = None
    if config.engine.command_filter:
        command_filter_object = commands.Filter(config)
        warnings += command_filter_object.warnings
        command_filter = command_filter_object
    replies = ehlo.Replies(config)
    warnings += replies.warnings
    shown: dict[str, str] = {}
    if config.dnsbl.reply_map:
        table = open_table(config.dnsbl.reply_map)
        warnings += table.warnings
        shown = {site.domain: table.lookup(site.domain) or site.domain for site in config.dnsbl.sites}
    deep = config.deep
    policy = Policy(
        hostname=config.hostname,
        teaser=f"220-{config.greet.banner}\r\n".encode() if config.greet.banner else b"",
        greeting=f"220 {config.banner}\r\n".encode(),
        ehlo=replies.default,
        access=access.steps,
        denylist_action=config.access.denylist_action,
        tests=[
            (bool(config.greet.banner), config.greet.action, config.greet.ttl),
            (bool(config.dnsbl.sites), config.dnsbl.action, config.dnsbl.max_ttl),
            _deep(deep, "pipelining"),
            _deep(deep, "non_smtp_command"),
            _deep(deep, "bare_newline"),
        ],
        greet_wait=(config.greet.wait, config.greet.stress_wait),
        command_time=(config.engine.command_time_limit, config.engine.stress_command_time_limit),
        lists=Lists([(site.domain, site.octets and b"".join(site.octets), site.weight) for site in config.dnsbl.sites], shown),
        threshold=config.dnsbl.threshold,
        allowlist_threshold=config.dnsbl.allowlist_threshold,
        dnsbl_min_ttl=config.dnsbl.min_ttl,
        dnsbl_max_ttl=config.dnsbl.max_ttl,
        dnsbl_timeout=config.dnsbl.timeout,
        client_limit=config.limits.client_connection_count,
        pre_queue=config.limits.pre_queue or default_pre_queue(config.limits.post_queue),
        post_queue=config.limits.post_queue,
        mta=mta,
        line_limit=config.engine.line_length_limit,
        command_limit=config.engine.command_count_limit,
        helo_required=config.engine.helo_required,
        vrfy_disabled=config.engine.disable_vrfy_command,
        soft_bounce=config.engine.soft_bounce,
        smtputf8=config.engine.smtputf8,
        respectful=config.log.respectful,
        external_form=config.log.address_format == "external",
        footer=footer if footer else None,
        forbidden=forbidden,
        command_filter=command_filter,
        ehlo_for=replies,
    )
    return Built(policy, tuple(warnings))


def _deep(deep: Deep, test: str) -> tuple[bool, Action, int]:
    action: Action = getattr(deep, test)
    if action is Action.OFF:
        return False, getattr(deep, f"{test}_after_fail"), getattr(deep, f"{test}_ttl")
    return True, action, getattr(deep, f"{test}_ttl")


def default_pre_queue(post_queue: int) -> int:
    """How many clients may be under test when nobody said: as many as there are descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(10, soft - post_queue - RESERVED_DESCRIPTORS)


def enabled_tests(config: Config) -> tuple[bool, ...]:
    """Which of the five tests are on, in the order of the cache record (reference 2.4)."""
    deep = config.deep
    return (
        bool(config.greet.banner),
        bool(config.dnsbl.sites),
        *(test is not Action.OFF for test in (deep.pipelining, deep.non_smtp_command, deep.bare_newline)),
    )
