"""Turns a configuration into what the core decides by: opens every table that it names."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from fastscreen.config import ConfigError
from fastscreen.config.model import Action, Config, Dnsbl, Endpoint, Pass, Proxy, ProxyPort, Site
from fastscreen.core import TESTS, AccessStep, Lists, NetworkTable, OffenseRules, Policy, Targets
from fastscreen.dns.health.state import HealthTable
from fastscreen.history import settings as history
from fastscreen.mta.capabilities import Capabilities, MtaCapabilities
from fastscreen.mta.ehlo_keywords import Keyword
from fastscreen.offenses.rules import load_rules
from fastscreen.process.descriptor_limits import WHOLE
from fastscreen.process.descriptor_limits import Share as Share
from fastscreen.process.descriptor_limits import worker_limits as worker_limits
from fastscreen.screening.access_list import Ask, Networks, Step, Word, load_access, load_networks, membership
from fastscreen.screening.command_tables import CommandFilter, ForbiddenCommands
from fastscreen.screening.ehlo_reply import Ehlo
from fastscreen.screening.reject_footer import Footer
from fastscreen.sockaddr import packed_ip, packed_path
from fastscreen.tables import TableError, open_table
from fastscreen.tables.lines import recorded_files
from fastscreen.tables.mynetworks import NetworkList

OF_THE_MTA = (
    Keyword.SIZE
    | Keyword.VRFY
    | Keyword.ETRN
    | Keyword.ENHANCEDSTATUSCODES
    | Keyword.EIGHTBITMIME
    | Keyword.DSN
    | Keyword.SMTPUTF8
    | Keyword.CHUNKING
    | Keyword.REQUIRETLS
)
"""What a session needs of the MTA that it goes on with, if its client was told of it."""

DEEP_TESTS = tuple(test.key for test in TESTS if test.stage == "dialogue" and not test.own)
"""Those that postscreen has, by their keys."""

ALL = ("0.0.0.0/0", "::/0")


class Built(Struct, frozen=True):
    """A policy, and what was odd in the tables that it was read from (a line each).

    offers: of the MTAs that sessions go on with, to be asked for; None: there are none.
    proxies: by address, who may send a PROXY header there, and the time for it in s.
    description: of the settings, for the history.
    """

    policy: Policy
    warnings: tuple[str, ...]
    proxies: dict[Endpoint, tuple[AccessStep, int]]
    offers: MtaCapabilities | None = None
    description: bytes = b""


def worker_count(config: Config) -> int:
    """How many workers the configuration asks for; `auto`: as many as there are cores for this process."""
    return config.listen.workers or len(os.sched_getaffinity(0))


class Tables:
    """A configuration with the tables that it names, opened. ConfigError: all that cannot be.

    They are read once: a process that was forked later compiles its policy by the same content, whatever became of the
    files. files: those that were read, with their versions.
    """

    def __init__(self, config: Config) -> None:
        with recorded_files() as self.files:
            self._read(config)

    def _read(self, config: Config) -> None:
        self._config = config
        interfaces = config.access.allowlist_interfaces
        engine = config.engine
        networks: list[NetworkList] = []
        problems: list[str] = []
        with _collected(config, problems):
            networks.append(load_networks(config, "access.allowlist_interfaces", interfaces))
            self.interfaces = networks[-1].table
            """Where a client may pass."""
        self._trusted: dict[ProxyPort, NetworkTable] = {}
        for port in config.listen.proxy:
            with _collected(config, problems):
                networks.append(load_networks(config, "listen.proxy: trusted", port.trusted))
                self._trusted[port] = networks[-1].table
        with _collected(config, problems):
            self.access = load_access(config)
        with _collected(config, problems):
            self._footer = Footer(engine, config.hostname)
        with _collected(config, problems):
            self._forbidden = ForbiddenCommands(engine.forbidden_commands)
        with _collected(config, problems):
            self._command_filter = CommandFilter(engine.command_filter)
        with _collected(config, problems):
            self._ehlo = Ehlo(engine, config.hostname, config.tls.level != "none")
        map_warnings: list[str] = []
        with _collected(config, problems):
            self.shown, map_warnings = shown_names(config.dnsbl)
        with _collected(config, problems):
            self.rules = load_rules(config)
            """Of the memory of offenses; None: it is disabled."""
        if problems:
            raise ConfigError(*problems)
        self._parts = (self.access, self._footer, self._forbidden, self._command_filter, self._ehlo)
        self._warnings = (
            *(warning for part in self._parts for warning in part.warnings),
            *(warning for each in networks for warning in each.warnings),
            *map_warnings,
            *_as_warnings(self.rules),
            *_shadow_warnings(config),
            *_response_warnings(config),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd in the tables and in the mode, a line each."""
        return self._warnings

    def policy(
        self, mta: str, warn: Callable[[str], object], share: Share = WHOLE, health: HealthTable | None = None
    ) -> Built:
        """Compile the policy.

        mta: path of the Unix socket that takes clients. warn: is told what a table finds odd later, at a look-up.
        share: the worker's part of the limits. health: how the DNS lists are; without, all count.
        """
        config = self._config
        limits = worker_limits(config, share)
        handoff = config.handoff
        offers = None
        if handoff.continue_to is not None:
            self._use_offer(None)
            asked_too = handoff.doubtful_to.targets if isinstance(handoff.doubtful_to, Proxy) else ()
            mtas = Proxy((*handoff.continue_to.targets, *asked_too))
            offers = MtaCapabilities(mtas, handoff.proxy_version, self._use_offer)
        asked = _Asked(self, warn)
        tests = {test.key: _test(config, test.key) for test in TESTS}
        description = history.encode(history.described(config, tests, self.shown))
        doubtful_to = handoff.doubtful_to
        doubtful_targets = None
        if isinstance(doubtful_to, Proxy):
            before = len(handoff.continue_to.targets) if handoff.continue_to is not None else 0
            doubtful_targets = _targets(doubtful_to, handoff.proxy_version, offers, before)
        policy = Policy(
            hostname=config.hostname,
            teaser=f"220-{config.greet.banner}\r\n".encode() if config.greet.banner else b"",
            greeting=f"220 {config.banner}\r\n".encode(),
            access=[_step(step) for step in self.access.steps],
            denylist_action=config.access.denylist_action,
            tests=list(tests.values()),
            weights=config.weights,
            rcpt_many_from=config.score.rcpt_many_from,
            greet_wait=(config.greet.wait, config.greet.stress_wait),
            command_time=(config.engine.command_time_limit, config.engine.stress_command_time_limit),
            lists=_lists(config, self.shown, health),
            threshold=config.dnsbl.threshold,
            allowlist_threshold=config.dnsbl.allowlist_threshold,
            dnsbl_min_ttl=config.dnsbl.min_ttl,
            dnsbl_max_ttl=config.dnsbl.max_ttl,
            dnsbl_timeout=config.dnsbl.timeout,
            client_limit=config.limits.client_connection_count,
            client_rate=config.limits.client_connection_rate,
            network_rate=config.limits.client_network_rate,
            pre_queue=limits.pre_queue,
            post_queue=limits.post_queue,
            mta=mta,
            line_limit=config.engine.line_length_limit,
            command_limit=config.engine.command_count_limit,
            helo_required=config.engine.helo_required,
            vrfy_disabled=config.engine.disable_vrfy_command,
            soft_bounce=config.engine.soft_bounce,
            smtputf8=config.engine.smtputf8,
            respectful=config.log.respectful,
            external_form=config.log.address_format == "external",
            tls_level=config.tls.level,
            tls_sessions=share.of(config.tls.sessions),
            footer=asked.add_footer if self._footer.active else None,
            forbidden=self._forbidden.match,
            command_filter=asked.filtered if config.engine.command_filter else None,
            ehlo_for=asked.ehlo_for,
            targets=_targets(handoff.to, handoff.proxy_version) if isinstance(handoff.to, Proxy) else None,
            continue_targets=_targets(handoff.continue_to, handoff.proxy_version, offers),
            relay_limit=limits.relay,
            relay_idle=handoff.relay_idle_limit,
            relay_time=handoff.relay_time_limit,
            continue_time=handoff.continue_time_limit,
            # Nobody is asked for the server's address where every one will do.
            interfaces=None if config.access.allowlist_interfaces == ALL else membership(self.interfaces),
            cache_prefix=config.cache.prefix,
            client_prefix=config.limits.prefix,
            shadow=config.shadow,
            settings=history.number(description),
            rules=self.rules,
            responses={
                "shadow": config.score.action is Action.SHADOW,
                "defer_from": config.score.defer_from,
                "slow_from": config.score.slow_from,
                "slow_by": config.score.slow_by,
                "doubtful_from": config.score.doubtful_from,
                "doubtful_to": doubtful_to.path if isinstance(doubtful_to, Pass) else "",
                "doubtful_targets": doubtful_targets,
            }
            if config.responds
            else None,
        )
        proxies = {
            address: (membership(self._trusted[port]), port.timeout)
            for address, port in config.listen.ports.items()
            if port is not None
        }
        return Built(policy, (*self._warnings, *limits.warnings), proxies, offers, description)

    def _use_offer(self, offer: Capabilities | None) -> None:
        """What clients are told that may go on with an MTA. None: it is not known yet what that announces."""
        if offer is None:
            # No limit for SIZE: a sender whose message is larger would bounce it before the MTA is asked.
            self._ehlo.use(Keyword.CHUNKING, 0)
        else:
            self._ehlo.use(OF_THE_MTA & ~offer.keywords, offer.size)


@contextlib.contextmanager
def _collected(config: Config, problems: list[str]) -> Iterator[None]:
    """A table that cannot be opened is one more problem: all of them are told at once."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems
    except TableError as error:
        problems.append(f"{config.source}: {error}")


class _Asked:
    """What the core asks while a client waits. It may bring new warnings: tables other than cidr are searched then."""

    def __init__(self, tables: Tables, warn: Callable[[str], object]) -> None:
        self._tables = tables
        self._warn = warn
        self._told = set(tables._warnings)

    def _tell(self) -> None:
        for part in self._tables._parts:
            for warning in part.warnings:
                if warning not in self._told:
                    self._told.add(warning)
                    self._warn(warning)

    def add_footer(self, reply: bytes, address: str, port: int) -> bytes:
        reply = self._tables._footer.apply(reply, address, port, time.time())
        self._tell()
        return reply

    def filtered(self, line: bytes) -> tuple[bytes, bytes] | None:
        replaced, logged = self._tables._command_filter.apply(line)
        self._tell()
        return None if logged is None else (replaced, logged.encode("utf-8", "surrogateescape"))

    def ehlo_for(self, address: str, in_tls: bool) -> tuple[bytes, int, bytes]:
        answer = self._tables._ehlo.for_client(address, in_tls)
        self._tell()
        return answer.reply, answer.discard, (answer.log or "").encode()


def build(
    config: Config, mta: str, warn: Callable[[str], object], share: Share = WHOLE, health: HealthTable | None = None
) -> Built:
    """Open the tables and compile the policy. ConfigError: a table cannot be opened."""
    return Tables(config).policy(mta, warn, share, health)


def _shadow_warnings(config: Config) -> list[str]:
    """Shadow mode is a warning at every start, because it rejects nobody and is easily forgotten."""
    if not config.shadow:
        return []
    unmade = [f"deep.{test}" for test in DEEP_TESTS if config.deep_action(test) is not getattr(config.deep, test)]
    unmade += [f"score.{key}" for key, weight in config.weights.items() if weight and not config.scores]
    if not unmade:
        return ["mode is shadow: no client is rejected"]
    return [
        "mode is shadow: no client is rejected; these tests are not made, because in shadow mode they need "
        f"handoff.continue_to: {', '.join(unmade)}"
    ]


def _response_warnings(config: Config) -> list[str]:
    """Responses to the score that do nothing."""
    score, handoff = config.score, config.handoff
    used = [f"score.{key}" for key in ("defer_from", "doubtful_from", "slow_from") if getattr(score, key)]
    if used and not config.responds:
        are = "are" if len(used) > 1 else "is"
        return [f"score.action is ignore: {', '.join(used)} {are} ignored"]
    found = []
    if score.defer_from and not config.cache.path:
        found.append("cache.path is empty: no client is deferred by score.defer_from")
    deep = config.scores or any(config.deep_action(test) is not Action.OFF for test in DEEP_TESTS)
    if score.doubtful_from and handoff.continue_to is None and deep:
        found.append(
            "handoff.doubtful_to is not used: new clients get a 450 after the deep tests and are known when they come "
            "back; set handoff.continue_to as well"
        )
    elif score.doubtful_from and handoff.continue_to is not None and isinstance(handoff.doubtful_to, Pass) and deep:
        found.append(
            "handoff.doubtful_to is not used: sessions can only continue with an MTA that reads the PROXY protocol; "
            "use proxy: instead of pass:"
        )
    return found


def _as_warnings(rules: OffenseRules | None) -> list[str]:
    return list(rules.as_table.warnings) if rules is not None and rules.as_table is not None else []


def _targets(
    proxy: Proxy | None, version: int, offers: MtaCapabilities | None = None, before: int = 0
) -> Targets | None:
    """before: targets that `offers` knows before these."""
    if proxy is None:
        return None
    targets = Targets([(str(target), _packed(target.where), target.weight) for target in proxy.targets], version)
    if offers is not None:
        targets.on_offer = lambda at, reply: offers.learn(before + at, reply)
    return targets


def _step(step: Step) -> AccessStep:
    match step:
        case Networks(_, table, decisions):
            return AccessStep(decisions, table)
        case Ask(_, decide, _):
            return AccessStep([decide])
        case Word(decision):
            return AccessStep([decision])


def _lists(config: Config, shown: dict[str, str], health: HealthTable | None) -> Lists:
    sites = [_site(site) for site in config.dnsbl.sites]
    try:
        if health is None or not config.dnsbl.probe_interval:
            return Lists(sites, shown)
        return Lists(sites, shown, health.memory, health.slots(config.dnsbl.domains))
    except ValueError as error:
        raise ConfigError(f"{config.source}: dnsbl.sites: {error}") from None


def _site(site: Site) -> tuple[str, bytes | None, int]:
    return site.domain, None if site.octets is None else b"".join(site.octets), site.weight


def shown_names(dnsbl: Dnsbl) -> tuple[dict[str, str], list[str]]:
    """The domains as SMTP replies name them: a query key in a domain is nobody's business (reference 4.7)."""
    if not dnsbl.reply_map:
        return {}, []
    table = open_table(dnsbl.reply_map, "dnsbl.reply_map")
    names = {site.domain: table.lookup(site.domain) or site.domain for site in dnsbl.sites}
    return names, list(table.warnings)


def _test(config: Config, test: str) -> tuple[bool, Action, int]:
    """Whether a test is made, its action, and how long a pass is valid."""
    match test:
        case "pregreet":
            return bool(config.greet.banner), config.greet.action, config.greet.ttl
        case "dnsbl":
            return bool(config.dnsbl.sites), config.dnsbl.action, config.dnsbl.max_ttl
        case "score":
            return config.scores, config.score.action, config.score.ttl
    action = config.deep_action(test)
    ttl = getattr(config.deep, f"{test}_ttl")
    return (False, getattr(config.deep, f"{test}_after_fail"), ttl) if action is Action.OFF else (True, action, ttl)


def settings_by_test(config: Config) -> dict[str, tuple[bool, Action, int]]:
    """Of each test, by its key: whether it is made, its action, and how long a pass is valid."""
    return {test.key: _test(config, test.key) for test in TESTS}


def enabled_tests(config: Config) -> tuple[bool, ...]:
    """Which tests are on, in the order of the cache record (reference 2.4)."""
    return tuple(_test(config, test.key)[0] for test in TESTS)


def pass_lifetimes(config: Config) -> tuple[tuple[int, int] | None, ...]:
    """How long a pass of each test may be valid (s), at least and at most, in the order of the cache record.

    None: the test is off.
    """
    found: list[tuple[int, int] | None] = []
    for test in TESTS:
        is_on, _, ttl = _test(config, test.key)
        found.append((config.dnsbl.min_ttl if test.key == "dnsbl" else ttl, ttl) if is_on else None)
    return tuple(found)


def _packed(where: Endpoint | str) -> bytes:
    return packed_path(where) if isinstance(where, str) else packed_ip(where.host, where.port)
