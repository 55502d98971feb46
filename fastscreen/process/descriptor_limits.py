"""How the limit on open files is divided: among clients under test, hand-offs and relayed sessions."""

from __future__ import annotations

import resource

from msgspec import Struct

from fastscreen.config.model import Config, Proxy

# Descriptors that are not for clients: log, cache, resolvers' sockets, the loop's own, and a reserve.
RESERVED_DESCRIPTORS = 100
PIPE_DESCRIPTORS = 128  # PIPES of ext/mta_relay.pyx, two ends each
MIN_PRE_QUEUE = 10  # postscreen's lower bound, too
MIN_RELAY = 10
MIN_HANDOFFS = 100  # hand-offs and relayed sessions: so many known clients pass even where descriptors are few
FEW_CLIENTS = 100  # under test: fewer are worth a warning, though nobody asked for more
MANY_CLIENTS = 10_000  # for which root raises the limit of open files, where nobody asked for a number


class Share(Struct, frozen=True):
    """One worker's part of what is limited for all: `number` (from 0) of `count`."""

    number: int = 0
    count: int = 1

    def of(self, limit: int) -> int:
        """The shares of all workers add up to the limit; nobody's is less than 1."""
        return max(1, limit // self.count + (self.number < limit % self.count))


WHOLE = Share()


class Limits(Struct, frozen=True):
    """The limits of one worker. warnings: a line for each key of which all workers get less than is configured."""

    pre_queue: int
    post_queue: int
    relay: int
    warnings: list[str]


def relays(config: Config) -> bool:
    """Whether sessions are relayed."""
    handoff = config.handoff
    return isinstance(handoff.to, Proxy) or isinstance(handoff.doubtful_to, Proxy) or handoff.continue_to is not None


def worker_limits(config: Config, share: Share = WHOLE) -> Limits:
    """Divide the descriptors. Each limit gets what it asks for, or an equal part of the rest, whichever is less.

    So neither many hand-offs nor many silent clients use up all descriptors, which would keep known clients out.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = _Requested(config, share)
    free = max(0, soft - asked.fixed)
    wants = {"pre_queue": asked.pre_queue or free, "post_queue": asked.each_handoff * asked.post_queue}
    if relays(config):
        wants["relay"] = 2 * asked.relay if asked.relay else free // 2
    parts = _divided(free, wants)
    safe = share.of(MIN_HANDOFFS)
    pre_queue = max(min(asked.pre_queue or MIN_PRE_QUEUE, MIN_PRE_QUEUE), parts["pre_queue"])
    post_queue = max(parts["post_queue"] // asked.each_handoff, min(asked.post_queue, safe))
    least_relay = min(asked.relay, safe) if asked.relay else MIN_RELAY
    relay = max(least_relay, parts.get("relay", 2 * asked.relay or free // 2) // 2)
    needed = asked.descriptors(FEW_CLIENTS)
    warnings = []
    for name, configured, got, wanted, what in (
        ("pre_queue", config.limits.pre_queue, pre_queue, asked.pre_queue or FEW_CLIENTS, "clients can be under test"),
        ("post_queue", config.limits.post_queue, post_queue, asked.post_queue, "hand-offs can be in flight"),
        ("relay", config.limits.relay, relay, asked.relay, "sessions can be relayed"),
    ):
        if got < wanted:
            key = f"limits.{name} {configured}" if configured else f"limits.{name}"
            each = " in each worker" if share.count > 1 else ""
            remedy = f"raise that to {needed} (systemd: LimitNOFILE={needed}), or lower this key"
            warnings.append(f"{key}: only {got} {what}{each}: the limit on open files is {soft}; {remedy}")
    return Limits(pre_queue, post_queue, relay, warnings)


def wanted_descriptors(config: Config, share: Share = WHOLE) -> int:
    """How many a worker would have where it may have any number."""
    return _Requested(config, share).descriptors(MANY_CLIENTS)


class _Requested:
    """What the configuration asks for, for one worker; 0: as many as possible. fixed: descriptors of nobody's session.

    each_handoff: descriptors, for as many connections may wait for a PROXY header when clients under test have taken
    all others.
    """

    def __init__(self, config: Config, share: Share) -> None:
        limits = config.limits
        self.pre_queue = share.of(limits.pre_queue) if limits.pre_queue else 0
        self.post_queue = share.of(limits.post_queue)
        self.relay = share.of(limits.relay) if limits.relay else 0
        self.relays = relays(config)
        self.each_handoff = 2 if config.listen.proxy else 1
        self.fixed = RESERVED_DESCRIPTORS + len(config.listen.ports) + (share.count if share.count > 1 else 0)
        self.fixed += PIPE_DESCRIPTORS if self.relays else 0

    def descriptors(self, clients: int) -> int:
        """All together. clients: how many of each kind stand for "as many as possible"."""
        relayed = 2 * (self.relay or clients) if self.relays else 0
        return self.fixed + (self.pre_queue or clients) + self.each_handoff * self.post_queue + relayed


def _divided(free: int, wants: dict[str, int]) -> dict[str, int]:
    """Max-min fairness: who wants less than an equal part gets it, and the others share the rest."""
    parts: dict[str, int] = {}
    for left, name in zip(range(len(wants), 0, -1), sorted(wants, key=lambda name: wants[name]), strict=True):
        parts[name] = min(wants[name], free // left)
        free -= parts[name]
    return parts
