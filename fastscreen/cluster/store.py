"""What is kept in the server, and the connection to it: found, opened and replaced automatically.

Three connections are used, so that look-ups wait for no batch of records, and neither for messages about deletions.
They live and end together.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType
from redis.exceptions import AskError, ClusterDownError, NoScriptError, ReadOnlyError, ResponseError

from fastscreen.cluster.link import Command, Link, StoreError, problem
from fastscreen.cluster.records import SKEW, TIME_MAX, VALUE_MAX, is_host_name, value_max
from fastscreen.cluster.servers import Servers
from fastscreen.config.server_url import ServerUrl
from fastscreen.escaping import escape_text

FIRST_PAUSE = 0.1  # s
LONGEST_PAUSE = 5.0
STABLE = 5.0  # s, after which a connection counts as one that works
HOSTS_SECONDS = 7 * 86400  # for which a host's entry stays
AWAY_SECONDS = 60.0
SAME_CLOCK = 1.0  # s
PEERS_MAX = 100
HOSTS_MAX = 10 * PEERS_MAX
_JSON_MAX = 1000
SCANNED = 1000  # keys that the server looks at for one reply
_MAGIC = re.compile(rb"[*?\[\]\\^-]")
_LOST = (ReadOnlyError, AskError, ClusterDownError)  # with MOVED and MASTERDOWN
_LOST_IN_SCRIPT = ("-READONLY", "-MASTERDOWN", "-CLUSTERDOWN")  # Redis 6.2 has the script's error in its own

_LOOK_UPS, _RECORDS, _OFFENSES = "look-ups", "records", "offenses"
_HOSTS, _HOSTS_COUNT = "to list hosts", "to count hosts"
_DELETIONS, _LIST_DELETIONS = "deletions", "to list deletions"
_SUBSCRIBE, _PUBLISH = "to subscribe to deletions", "to publish deletions"

# What it means if the server refuses these, the worst first
_EFFECTS = {
    _LOOK_UPS: "clients are screened without it",
    _RECORDS: "passes are kept until it takes them",
    _OFFENSES: "offenses of this host are not known to others",
    _DELETIONS: "they are kept until it takes them",
    _LIST_DELETIONS: "clients that other hosts delete stay known here",
    _SUBSCRIBE: "deletions take up to 5 s",
    _PUBLISH: "deletions take up to 5 s",
    _HOSTS: "other hosts are not known",
    _HOSTS_COUNT: "other hosts are not known",
}

# What Redis 7 adds to an error in the script, and what Redis 6.2 does.
_WHERE_IN_SCRIPT = re.compile(
    r"\.? script: [0-9a-f]+, on @.*|^Error running script \(call to f_[0-9a-f]+\): (@user_script: ?\d+: ?)+-?"
)

# KEYS: the hash of hosts, then the records'. ARGV: now, most seconds of life, this host, its entry, a digit for each
# record, and the values. A record stays when it is of this version (its first byte) and does not expire before the new
# one (bytes 3 to 6), unless it would expire later than any record can, or the digit is 1. Of two that expire together,
# the one that was made later (bytes 7 to 10) stays: it is the same client's after another test has been renewed.
_STORE = b"""
local now, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local function number_at(value, at)
    local a, b, c, d = string.byte(value, at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end
local written = 0
for i = 2, #KEYS do
    local value = ARGV[i + 4]
    local expiry, stored = number_at(value, 3), number_at(value, 7)
    local wanted = true
    local found = redis.pcall("GETRANGE", KEYS[i], 0, 9)
    if type(found) == "string" and #found == 10 and string.byte(found, 1) == 1 then
        local known = number_at(found, 3)
        local renewed = known == expiry and number_at(found, 7) < stored
        wanted = known < expiry or renewed or known > now + most or string.sub(ARGV[5], i - 1, i - 1) == "1"
    end
    if wanted then
        redis.call("SET", KEYS[i], value, "EXAT", string.format("%d", math.min(expiry, now + most)))
        written = written + 1
    end
end
return {written, redis.call("HSET", KEYS[1], ARGV[3], ARGV[4])}
"""

# KEYS: the records'. ARGV: for each record the value, its seconds of life, and the end of the value that it takes the
# place of; empty: of none. A record stays if another host has stored one meanwhile. A digit for each record: 1, stored.
_REPLACE = b"""
local written = ""
for i = 1, #KEYS do
    local value, seconds, expected = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local found = redis.pcall("GETRANGE", KEYS[i], -16, -1)
    if type(found) ~= "string" or found == expected then
        redis.call("SET", KEYS[i], value, "EX", seconds)
        written = written .. "1"
    else
        written = written .. "0"
    end
end
return written
"""
_REPLACE_SHA = hashlib.sha1(_REPLACE, usedforsecurity=False).hexdigest().encode()
_STORE_SHA = hashlib.sha1(_STORE, usedforsecurity=False).hexdigest().encode()


def plain_error(text: str) -> str:
    """A server's error without the place in the script, in printable characters."""
    return escape_text(_WHERE_IN_SCRIPT.sub("", text).removesuffix("."), 200)


def read_time(reply: object) -> float:
    """A reply to TIME (s since 1970). ValueError: it is none, or no time that can be."""
    match reply:
        case [bytes(seconds), bytes(microseconds)] if len(seconds) <= 10 and len(microseconds) <= 6:
            if 0 <= (found := int(seconds) + int(microseconds) / 1e6) <= TIME_MAX:
                return found
    raise ValueError("not a time")


class HostEntry(Struct, frozen=True):
    """What a host says about itself. time: s since 1970, when, by its own clock.

    acknowledged: all of its passes up to then are stored (s since 1970, by the server's clock).
    deleted: the deletions up to this score have been made here. id: of the process, at random. offenses: this host's
    records of offenses up to then were shared (s since 1970, by the server's clock); UNSET: none.
    """

    time: float = 0.0
    version: str = ""
    acknowledged: float = 0.0
    deleted: float = 0.0
    id: str = ""
    offenses: float | UnsetType = UNSET

    @property
    def is_possible(self) -> bool:
        """Whether its times can be times. Others may write there."""
        return all(0 <= when <= TIME_MAX for when in (self.time, self.acknowledged, self.deleted, self.offenses or 0.0))


class Replacement(NamedTuple):
    """A record to store. name: as in Write. seconds: it lives so long. expected: the last MAC_SIZE bytes of the value
    whose place it takes; empty: there was none.
    """

    name: bytes
    value: bytes
    seconds: int
    expected: bytes


class Write(NamedTuple):
    """A record to store. name: its key, without the cluster's prefix. force: replace any other."""

    name: bytes
    value: bytes
    force: bool


class StoreStatus(Struct, frozen=True):
    """connected: the server can be used. since: s since 1970, of that. problem: why it cannot, or refuses records."""

    connected: bool
    since: float
    problem: str
    server: str
    role: str
    round_trip: float
    effect: str
    """What the problem means."""


class Listener(Protocol):
    """What follows the connection. The methods must not raise."""

    def connected(self) -> None:
        """The server can be used."""

    def disconnected(self, why: str) -> None:
        """It cannot; also: another attempt to connect has failed."""

    def published(self, value: bytes) -> None:
        """A deletion, signed."""


class Backoff:
    """Pauses between attempts: twice as long each time, and a random part of that."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._next = FIRST_PAUSE

    def reset(self) -> None:
        """It worked."""
        self._next = FIRST_PAUSE

    def pause(self) -> float:
        """The next pause (s)."""
        longest, self._next = self._next, min(2 * self._next, LONGEST_PAUSE)
        return longest * (0.5 + 0.5 * self._chance())


_entry = msgspec.json.Decoder(HostEntry).decode


class Store:
    """prefix: of all keys. most: s for which a record may live. clock: s since 1970. `run` connects and reconnects.

    All other methods raise StoreError: at once when the server is not connected, otherwise within TIMEOUT.
    """

    def __init__(
        self,
        servers: Servers,
        prefix: str,
        listener: Listener,
        *,
        clock: Callable[[], float] = time.time,
        backoff: Backoff | None = None,
    ) -> None:
        self._servers = servers
        self._prefix = prefix.encode()
        self._listener = listener
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._channel = self._prefix + b"deleted"
        self._hosts = self._prefix + b"hosts"
        self._reads: Link | None = None
        self._writes: Link | None = None
        self._messages: Link | None = None
        self._where: ServerUrl | None = None
        self._since = clock()
        self._problem = ""
        self._refused: dict[str, str] = {}  # what the server refuses now, and how it says so
        self._subscription: ResponseError | None = None  # why the server refused it
        self._unpublished = b""  # a deletion that the server has refused to publish
        self._crowded = ""
        self._hosts_cursor = b"0"
        self._role = ""
        self._round_trip = 0.0
        self.ahead = 0.0
        """By how much the server's clock is ahead of this host's (s), at most SKEW: a server is not believed more."""
        self.difference = 0.0
        """The same as it was measured last, however large."""
        self.oversized = 0
        """Values that were ignored because no record is so long."""

    @property
    def is_connected(self) -> bool:
        return self._reads is not None and not self._reads.lost.done()

    def status(self) -> StoreStatus:
        """How it goes."""
        if not self.is_connected:
            text, effect = self._problem, "clients are screened without it"
        elif self._refused:
            worst = next(what for what in _EFFECTS if what in self._refused)
            text, effect = self._refused[worst], _EFFECTS[worst]
        else:
            text, effect = (
                self._crowded,
                "other hosts are not shown, and those that have been gone for a week are removed",
            )
        return StoreStatus(
            connected=self.is_connected,
            since=self._since,
            problem=text,
            effect=effect,
            server=str(self._where) if self._where is not None else "",
            role=self._role,
            round_trip=self._round_trip,
        )

    # ---- the connection

    async def run(self) -> None:
        """Connect, and connect again, until it is cancelled."""
        try:
            while True:
                try:
                    links = await self._connect()
                except StoreError as error:
                    self._problem = str(error)
                    self._listener.disconnected(self._problem)
                else:
                    await self._serve(links)
                await asyncio.sleep(self._backoff.pause())
        finally:
            await self._close()

    async def _serve(self, links: tuple[Link, Link, Link]) -> None:
        self._reads, self._writes, self._messages = links
        self._since = self._clock()
        self._problem = self._crowded = ""
        self._refused.clear()
        self._unpublished = b""
        self._show_subscription(links[2])
        self._listener.connected()
        started = time.monotonic()
        await asyncio.wait([link.lost for link in links], return_when=asyncio.FIRST_COMPLETED)
        self._problem = next(str(link.lost.result()) for link in links if link.lost.done())
        await self._close()
        self._since = self._clock()
        self._role = ""
        self._listener.disconnected(self._problem)
        if time.monotonic() - started >= STABLE:
            self._backoff.reset()

    async def _close(self) -> None:
        links = (self._reads, self._writes, self._messages)
        self._reads = self._writes = self._messages = None
        for link in links:
            if link is not None:
                await link.close()

    async def _connect(self) -> tuple[Link, Link, Link]:
        """The first server that is not a replica. StoreError: all are replicas."""
        failure = StoreError("no server")
        for where in await self._servers.find():
            self._where = where
            try:
                return await self._open(where)
            except StoreError as error:
                failure = error
        raise failure

    async def _open(self, where: ServerUrl) -> tuple[Link, Link, Link]:
        links = (
            self._servers.link(where),
            self._servers.link(where),
            self._servers.link(where, self._take_message),
        )
        try:
            for link in links:
                await link.open()
            self._role = await self._role_of(links[0], where)
            await self._subscribe(links[2])
        except BaseException:
            for link in links:
                await link.close()
            raise
        return links

    async def _subscribe(self, link: Link) -> None:
        """To deletions. Without the permission, they are only found by looking for them."""
        [reply] = await link.call((b"SUBSCRIBE", self._channel))
        self._subscription = reply if isinstance(reply, ResponseError) else None

    def _show_subscription(self, link: Link) -> None:
        if self._subscription is not None:
            self._error(link, self._subscription, _SUBSCRIBE)
        else:
            self._refused.pop(_SUBSCRIBE, None)

    async def _role_of(self, link: Link, where: ServerUrl) -> str:
        sent, sent_at = time.perf_counter(), self._clock()
        pong, role, now = await link.call((b"PING",), (b"ROLE",), (b"TIME",))
        self._round_trip = time.perf_counter() - sent
        self._compare_clocks(now, sent_at)
        if isinstance(pong, ResponseError):
            raise StoreError(problem(pong, str(where)))
        if not isinstance(role, list) or not role:
            return "unknown"  # a user who may not ask; a replica refuses the first record
        if role[0] != b"master":
            raise StoreError(f"{where}: is a replica, which takes no records")
        return "primary"

    def _compare_clocks(self, reply: Any, sent_at: float) -> None:
        """Small differences are left alone, so that times of this host stay in order."""
        try:
            ahead = read_time(reply) - (sent_at + self._clock()) / 2
        except ValueError:  # the user may not ask
            return
        self.difference = ahead
        ahead = max(-SKEW, min(ahead, SKEW))
        if abs(ahead - self.ahead) > SAME_CLOCK:
            self.ahead = ahead

    def _take_message(self, message: Any) -> None:
        if isinstance(message, list) and len(message) == 3 and message[0] == b"message":
            value = message[2]
            if isinstance(value, bytes) and len(value) <= VALUE_MAX:
                self._listener.published(value)
            else:
                self.oversized += 1

    async def keep_alive(self) -> None:
        """Due every few seconds: measure the round trip, and find out whether the server is still the right one."""
        reads, messages, where = self._reads, self._messages, self._where
        if reads is None or messages is None:
            return
        sent, sent_at = time.perf_counter(), self._clock()
        _, now = await reads.call((b"PING",), (b"TIME",))
        self._round_trip = time.perf_counter() - sent
        self._compare_clocks(now, sent_at)
        if self._subscription is None:
            messages.ping_subscription()
        else:
            await self._subscribe(messages)
            self._show_subscription(messages)
        if self._unpublished:  # hosts that know it ignore it
            await self._publish(self._unpublished)
        if self._servers.has_sentinels:
            with contextlib.suppress(StoreError):  # without Sentinels, the server is as good as before
                found = await self._servers.find()
                if found and where not in found:
                    reads.lose(StoreError(f"{where}: another server has taken over"))

    # ---- commands

    async def get(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys; None where a record is missing or cannot be one."""
        [reply] = await self._call(self._reads, (b"MGET", *(self._prefix + name for name in names)), what=_LOOK_UPS)
        if not isinstance(reply, list) or len(reply) != len(names):
            raise self._malformed(self._reads)
        return [None if value is None else self._value(value, name) for value, name in zip(reply, names, strict=True)]

    def _value(self, value: Any, name: bytes = b"") -> bytes | None:
        if isinstance(value, bytes) and (len(value) <= VALUE_MAX or len(value) <= value_max(name)):
            return value
        self.oversized += 1
        return None

    async def get_to_replace(self, names: Sequence[bytes]) -> list[bytes | None]:
        """As `get`, on the connection that stores records."""
        keys = [self._prefix + name for name in names]
        [reply] = await self._call(self._writes, (b"MGET", *keys), what=_OFFENSES)
        if not isinstance(reply, list) or len(reply) != len(names):
            raise self._malformed(self._writes)
        return [value if isinstance(value, bytes) else None for value in reply]

    async def replace(self, writes: Sequence[Replacement]) -> list[bool]:
        """Store records, each unless another host has stored one since the one that it takes the place of was read."""
        keys = [self._prefix + write.name for write in writes]
        rest: Command = (len(keys), *keys, *(part for write in writes for part in write[1:]))
        try:
            [reply] = await self._call(self._writes, (b"EVALSHA", _REPLACE_SHA, *rest), what=_OFFENSES)
        except NoScriptError:
            [reply] = await self._call(self._writes, (b"EVAL", _REPLACE, *rest), what=_OFFENSES)
        if not isinstance(reply, bytes) or len(reply) != len(writes):
            raise self._malformed(self._writes)
        return [digit == 49 for digit in reply]

    async def put(self, writes: Sequence[Write], most: int, host: str, entry: HostEntry) -> tuple[int, bool]:
        """Store records, unless later ones are there, and this host's entry with them.

        Return how many were stored, and whether the host had no entry.
        """
        keys = [self._prefix + write.name for write in writes]
        force = bytes(49 if write.force else 48 for write in writes)
        about = (int(self._clock()), most, host, msgspec.json.encode(entry), force)
        rest: Command = (len(keys) + 1, self._hosts, *keys, *about, *(write.value for write in writes))
        try:
            [reply, _] = await self._call(
                self._writes, (b"EVALSHA", _STORE_SHA, *rest), (b"EXPIRE", self._hosts, HOSTS_SECONDS), what=_RECORDS
            )
        except NoScriptError:
            [reply] = await self._call(self._writes, (b"EVAL", _STORE, *rest), what=_RECORDS)
        match reply:
            case [int(stored), int(is_new)]:
                return stored, bool(is_new)
        raise self._malformed(self._writes)

    @property
    def is_crowded(self) -> bool:
        """Whether there were more hosts than a cluster can have when `hosts` was called last."""
        return bool(self._crowded)

    async def hosts(self, own: str = "") -> Mapping[str, HostEntry]:
        """What all hosts say about themselves. Entries that cannot be read are left out.

        If there are more hosts than a cluster can have: this host (own), and some of the others, each time the next.
        """
        [count] = await self._call(self._writes, (b"HLEN", self._hosts), what=_HOSTS_COUNT)
        if not isinstance(count, int):
            raise self._malformed(self._writes)
        if count > HOSTS_MAX:
            self._crowded = f"{self._where}: {self._hosts.decode()} has {count} hosts, more than {HOSTS_MAX}"
            scan, text = await self._call(
                self._writes,
                (b"HSCAN", self._hosts, self._hosts_cursor, b"COUNT", HOSTS_MAX),
                (b"HGET", self._hosts, own),
            )
            match scan:
                case [bytes(cursor), list(reply)]:
                    self._hosts_cursor = cursor
                    reply += [own.encode(), text]
                case _:
                    raise self._malformed(self._writes)
        else:
            self._crowded = ""
            [reply] = await self._call(self._writes, (b"HGETALL", self._hosts), what=_HOSTS)
        if not isinstance(reply, list) or len(reply) % 2:
            raise self._malformed(self._writes)
        found: dict[str, HostEntry] = {}
        for name, text in zip(reply[::2], reply[1::2], strict=True):
            if isinstance(name, bytes) and isinstance(text, bytes) and len(text) <= _JSON_MAX and name.isascii():
                with contextlib.suppress(msgspec.MsgspecError):
                    entry = _entry(text)
                    if entry.is_possible and is_host_name(name.decode()):
                        found[name.decode()] = entry
        return found

    async def forget_hosts(self, names: Sequence[str]) -> None:
        """Remove the entries of these hosts."""
        await self._call(self._writes, (b"HDEL", self._hosts, *names))

    async def add_deletion(self, value: bytes, names: Sequence[bytes], most: int, limit: int) -> None:
        """Delete these records; publish a deletion and store it for `most` seconds, at most `limit` of them."""
        score = int(await self.server_time())
        commands: list[Command] = [
            (b"ZADD", self._channel, score, value),
            (b"ZREMRANGEBYSCORE", self._channel, b"-inf", score - most),
            (b"ZREMRANGEBYRANK", self._channel, 0, -limit - 1),
            (b"EXPIRE", self._channel, most),
        ]
        if names:
            commands.insert(0, (b"UNLINK", *(self._prefix + name for name in names)))
        await self._call(self._writes, *commands, what=_DELETIONS)
        await self._publish(value)

    async def _publish(self, value: bytes) -> None:
        """A deletion. If that is refused, other hosts find it in a few seconds."""
        self._unpublished = value
        try:
            await self._call(self._writes, (b"PUBLISH", self._channel, value), what=_PUBLISH)
        except StoreError as error:
            if not error.refused:
                raise
        else:
            self._unpublished = b""

    async def scan(self, cursor: bytes, start: bytes) -> tuple[bytes, list[bytes]]:
        """Some of the keys that begin with this, and the next cursor; b"0" is the first one, and comes after the last.

        A key may come more than once.
        """
        pattern = _MAGIC.sub(rb"\\\g<0>", self._prefix + start) + b"*"
        [reply] = await self._call(self._writes, (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCANNED))
        match reply:
            case [bytes(following), list(found)]:
                size = len(self._prefix)
                return following, [key[size:] for key in found if isinstance(key, bytes)]
        raise self._malformed(self._writes)

    async def remove(self, names: Sequence[bytes]) -> None:
        """Delete these keys."""
        await self._call(self._writes, (b"UNLINK", *(self._prefix + name for name in names)))

    async def deletions(self, limit: int) -> list[tuple[bytes, float]]:
        """The newest deletions, signed, with their scores: the server's time (s since 1970). The oldest first."""
        found: list[tuple[bytes, float]] = []
        for first in range(0, limit, 1000):
            command: Command = (b"ZREVRANGE", self._channel, first, first + 999, b"WITHSCORES")
            [reply] = await self._call(self._writes, command, what=_LIST_DELETIONS)
            if not isinstance(reply, list) or len(reply) > 2000 or len(reply) % 2:
                raise self._malformed(self._writes)
            for value, score in zip(reply[::2], reply[1::2], strict=True):
                with contextlib.suppress(TypeError, ValueError):
                    if isinstance(value, bytes) and len(value) <= VALUE_MAX:
                        found.append((value, float(score)))
            if len(reply) < 2000:
                break
        return found[::-1]

    async def server_time(self) -> float:
        """The server's clock (s since 1970)."""
        [now] = await self._call(self._writes, (b"TIME",))
        try:
            return read_time(now)
        except ValueError:
            raise self._malformed(self._writes) from None

    async def round_trip(self, name: bytes, value: bytes, seconds: int) -> tuple[float, bytes | None]:
        """Store a value for some seconds and read it; return how long that took (s), and what was read."""
        sent = time.perf_counter()
        key = self._prefix + name
        [_, reply] = await self._call(self._writes, (b"SET", key, value, b"EX", seconds), (b"GET", key))
        return time.perf_counter() - sent, None if reply is None else self._value(reply)

    # ---- replies

    async def _call(self, link: Link | None, *commands: Command, what: str = "") -> list[Any]:
        """The replies, none of them an error. NoScriptError: after EVALSHA.

        what: for commands that are repeated; until they succeed, a refusal is a problem.
        """
        if link is None:
            raise StoreError(self._problem or "not connected yet")
        replies = await link.call(*commands)
        for reply in replies:
            if isinstance(reply, NoScriptError) and commands[0][0] == b"EVALSHA":
                raise reply
            if isinstance(reply, Exception):
                raise self._error(link, reply, what)
        self._refused.pop(what, None)
        return replies

    def _error(self, link: Link, error: Exception, what: str) -> StoreError:
        """What an error means: the server has become another, or refuses records for a while."""
        text = str(error)
        shown = f"{self._where}: {plain_error(text)}"
        if isinstance(error, _LOST) or any(code in text for code in _LOST_IN_SCRIPT):
            found = StoreError(shown)
            link.lose(found)
            return found
        refused = f"refuses {what or 'a command'}: {shown}"
        if what:
            self._refused[what] = refused
        return StoreError(refused, refused=True)

    def _malformed(self, link: Link | None) -> StoreError:
        found = StoreError(f"{self._where}: sent a malformed reply")
        if link is not None:
            link.lose(found)
        return found
