"""A control server that is not fastscreen's: docs/control.md over an asyncio Unix server, with a World behind it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from tui.memory_world import Remembered
from tui.past_world import FIRST, Recorded
from tui.world import LISTS, Map, World

DEFAULTS: dict[str, Map] = {
    "sessions": {"filter": "", "sort": "age", "limit": 200},
    "events": {"filter": "", "rate": 200, "recent": 100},
    "clients": {"by": "address", "limit": 50},
    "cache.list": {"prefix": "", "after": "", "limit": 200},
    "history.minutes": {"step": 60},
    "history.sessions": {"since": 0.0, "until": 0.0, "filter": "", "address": "", "before": 0, "limit": 100},
    "history.clients": {"filter": "", "by": "address", "limit": 50},
    "reputation.list": {"kind": "network", "limit": 50, "start": 0, "within": "", "sort": "worst"},
}
"""What a request may omit."""


class Wrong(Exception):
    """A request that is answered with an error."""


class FakeServer:
    """Serves a world at a path. `asked` keeps what was asked; `refused` and `silent` name verbs that go wrong."""

    def __init__(self, path: Path, world: World, rights: tuple[str, ...] = ("read", "act")) -> None:
        self.path = path
        self.world = world
        self.rights = rights
        self.hostname = "mx1.example.com"
        self.asked: list[Map] = []
        self.refused: dict[str, str] = {}
        self.silent: set[str] = set()
        self.instead: dict[str, Any] = {}  # answers that are not what the protocol says
        self.deleted: list[Map] = []
        self.recorded: Recorded | None = Recorded(world.hostile)  # None: nothing is recorded
        self.remembered: Remembered | None = None  # None: there is no memory of offenses
        self.feedback: Map | None = None  # None: the MTA's log is not read
        self.lost = 0  # sent with the next batch of events
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._followers: dict[tuple[asyncio.StreamWriter, int], Map] = {}

    async def __aenter__(self) -> FakeServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Close everything, as a daemon that ends."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        self.path.unlink(missing_ok=True)

    def push(self) -> None:
        """Tell the followers what has happened since the last time."""
        new, self.world.news = self.world.news, []
        for (writer, number), wanted in self._followers.items():
            events = [event for event in new if wanted["match"](event)]
            if events or self.lost:
                send(writer, {"id": number, "events": events[-200:], "lost": self.lost})
        self.lost = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        world = self.world
        hello = {"fastscreen": "0.1.0", "protocol": 1, "rights": list(self.rights), "pid": 4711, "workers": 2}
        name = self.hostname if world.hostile is None else world.bad
        send(writer, {**hello, "hostname": name, "started": world.started})
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                request = msgpack.unpackb(await reader.readexactly(length))
                self.asked.append(request)
                if request["do"] not in self.silent:
                    self._answer(writer, request)
        self._writers.discard(writer)
        self._followers = {key: wanted for key, wanted in self._followers.items() if key[0] is not writer}
        writer.close()

    def _answer(self, writer: asyncio.StreamWriter, request: Map) -> None:
        verb, number = request["do"], request["id"]
        request = {**DEFAULTS.get(verb, {}), **request}
        try:
            if verb in self.refused:
                raise Wrong(self.refused[verb])
            if verb in self.instead:
                send(writer, {"id": number, "ok": self.instead[verb]})
                return
            ok = getattr(self, "_do_" + verb.replace(".", "_"))(request)
        except Wrong as error:
            send(writer, {"id": number, "error": str(error)})
            return
        send(writer, {"id": number, "ok": ok})
        if verb == "events":
            self._followers[writer, number] = {"match": matcher(request["filter"])}
            recent = [event for event in self.world.events if matcher(request["filter"])(event)]
            send(writer, {"id": number, "events": recent[-request["recent"] :], "lost": 0})
            self.world.news.clear()  # they are among the recent ones
        elif verb == "cancel":
            self._followers.pop((writer, request["of"]), None)

    def _do_cancel(self, request: Map) -> Map:
        return {}

    def _do_events(self, request: Map) -> Map:
        matcher(request["filter"])
        return {}

    def _do_status(self, request: Map) -> Map:
        world = self.world
        held = list(world.sessions.values())
        workers = []
        for number in (1, 2):
            mine = [session for session in held if session["worker"] == number]
            stages = {
                stage: sum(s["stage"] == stage for s in mine) for stage in ("greet", "dialogue", "queued", "handoff")
            }
            queue = int(world.time * 7) % 23 // 11
            workers.append(
                {
                    "number": number,
                    "pid": 4711 + number,
                    "sessions": len(mine),
                    "handoffs": queue,
                    "clients": len({s["address"] for s in mine}),
                    "accepted": world.counts["connect"] // 2,
                    "handed_off": world.counts["handed_off"] // 2,
                    "stress": world.stress,
                    "accepting": True,
                    "stages": stages,
                    "dns": {
                        "queries": 7,
                        "answers": 6,
                        "timeouts": 1,
                        "ignored_packets": 0,
                        "in_flight": 3,
                        "cached": 40,
                    },
                    "log_lines_lost": 0,
                    "rss": 31_200_000 + 810_000 * number,
                    "cpu": (world.time - world.started) * 0.021 * number,
                }
            )
        return {
            "time": world.time,
            "started": world.started,
            "version": "0.1.0",
            "pid": 4711,
            "hostname": self.hostname if world.hostile is None else world.bad,
            "bypass_until": world.bypass_until,
            "limits": {"pre_queue": 10_000, "post_queue": 10_000, "client_connection_count": 50},
            "counts": dict(world.counts),
            "workers": [w for w in workers if w["number"] not in world.missing],
            "missing_workers": world.missing,
            "cache": self._do_cache_stats(request),
            "lists": len(LISTS),
            "conditions": world.conditions,
            "cluster": world.cluster_status(),
            "memory": self.remembered.status() if self.remembered is not None else None,
            "feedback": self.feedback,
        }

    def _do_sessions(self, request: Map) -> Map:
        match = matcher(request["filter"])
        found = [self._session(session) for session in self.world.sessions.values() if match(session)]
        keys: dict[str, Callable[[Map], Any]] = {
            "age": lambda s: -s["age"],
            "score": lambda s: -(s["score"] or 0),
            "address": lambda s: int(ipaddress.ip_address(s["address"])),
        }
        found.sort(key=keys[request["sort"]])
        return {"total": len(self.world.sessions), "matched": len(found), "sessions": found[: request["limit"]]}

    def _session(self, session: Map) -> Map:
        return {**{k: v for k, v in session.items() if k != "begins"}, "age": self.world.time - session["begins"]}

    def _do_story(self, request: Map) -> Map:
        address = request["address"]
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise Wrong(f"story: {address!r} is not an address") from None
        events = [event for event in self.world.events if event["address"] == address]
        answers: dict[str, list[str]] = {}
        for event in events:
            if event["kind"] == "listed":
                answers.setdefault(event["list"], []).append(event["number"])
        failing = {name for name, (*_, state) in LISTS.items() if state == "failing"}
        lists = [
            {
                "list": name,
                "state": "listed" if name in answers else "failed" if name in failing else "not_listed",
                "answers": sorted(set(answers.get(name, []))),
                "weight": weight if name in answers else 0,
            }
            for name, (weight, *_) in LISTS.items()
        ]
        since = self.world.events[0]["time"] if self.world.events else None
        return {
            "address": address,
            "name": next((s["name"] for s in self.world.sessions.values() if s["address"] == address), ""),
            "events": events[-500:],
            "complete_since": since,
            "cache": self.world.cache.get(address),
            "lists": lists if events else [],
            "sessions": [self._session(s) for s in self.world.sessions.values() if s["address"] == address],
            "memory": self.remembered.of_address(address) if self.remembered is not None else None,
        }

    def _do_dnsbl(self, request: Map) -> Map:
        lists = []
        for name, (weight, p50, p95, state) in LISTS.items():
            counter = self.world.lists[name]
            lists.append(
                {
                    "list": name if self.world.hostile is None else self.world.bad + name,
                    "sites": [{"filter": None, "weight": weight}],
                    "queries": counter["asked"],
                    "answers": counter["asked"] - counter["timed_out"],
                    "listed": counter["listed"],
                    "unique": counter["unique"],
                    "timeouts": counter["timed_out"],
                    "errors": 0,
                    "p50": p50,
                    "p95": p95,
                    "state": state,
                }
            )
        return {"threshold": 3, "allowlist_threshold": -1, "lists": lists}

    def _do_clients(self, request: Map) -> Map:
        found: dict[str, Map] = {}
        for event in self.world.events:
            client = event["address"]
            if request["by"] == "network":
                client = str(ipaddress.ip_network(f"{client}/{64 if ':' in client else 24}", strict=False))
            row = {"client": client, "connects": 0, "passed": 0, "failed": 0, "handed_off": 0}
            talker = found.setdefault(client, row)
            talker["connects"] += event["kind"] == "connect"
            talker["passed"] += event["kind"] in ("passed", "cached")
            talker["failed"] += event["kind"] == "disconnect" and bool(event["failed"])
            talker["handed_off"] += event["kind"] == "handed_off"
        clients = sorted(found.values(), key=lambda talker: (-talker["connects"], talker["client"]))
        return {"complete_since": self.world.events[0]["time"], "clients": clients[: request["limit"]]}

    def _do_cache_stats(self, request: Map) -> Map:
        steps = [(0.0, 412), (3600.0, 4_120), (86_400.0, 61_302), (604_800.0, 402_117), (2_592_000.0, 744_013)]
        return {
            "path": "/var/lib/fastscreen/cache.lmdb" if self.world.hostile is None else self.world.bad,
            "entries": 1_211_552,
            "size": 142_000_000,
            "map_size": 1_073_741_824,
            "max_size": 1_073_741_824,
            "hits": self.world.counts["cached"],
            "misses": 1_607_886,
            "expiring": [{"within": within, "entries": entries} for within, entries in steps],
        }

    def _do_cache_list(self, request: Map) -> Map:
        match = matcher(request["prefix"])
        addresses = sorted(address for address in self.world.cache if match({"address": address}))
        addresses = [address for address in addresses if address > request["after"]]
        limit = min(request["limit"], 12)
        entries = [{"address": address, "passed_until": self.world.cache[address]} for address in addresses[:limit]]
        return {"entries": entries, "more": len(addresses) > limit}

    def _do_cache_delete(self, request: Map) -> Map:
        match = matcher(request.get("address") or request["prefix"])
        gone = [address for address in self.world.cache if match({"address": address})]
        for address in gone:
            del self.world.cache[address]
        return {"deleted": len(gone)}

    def _do_reputation_list(self, request: Map) -> Map:
        return self._remembered().listed(request)

    def _do_reputation_get(self, request: Map) -> Map:
        return self._remembered().known(request)

    def _do_reputation_delete(self, request: Map) -> Map:
        return self._remembered().delete(request)

    def _remembered(self) -> Remembered:
        if self.remembered is None:
            raise Wrong("memory of offenses: disabled (score.memory is empty)")
        return self.remembered

    def _do_history(self, request: Map) -> Map:
        if self.recorded is None:
            return {}
        return {"path": "/var/lib/fastscreen/history", "first": float(FIRST), "last": self.world.time, "days": 4}

    def _do_history_minutes(self, request: Map) -> Map:
        recorded, since, until, step = self._recorded(), request["since"], request["until"], request["step"]
        sums = recorded.sums(since, until, step, self.world.time)
        return {"since": since, "until": until, "step": step, "sums": sums}

    def _do_history_sessions(self, request: Map) -> Map:
        match, address, before, limit = (
            matcher(request["filter"]),
            request["address"],
            request["before"],
            request["limit"],
        )
        until = request["until"] or self.world.time

        def chosen(session: Map) -> bool:
            return (
                (not address or session["address"] == address)
                and (not before or session["id"] < before)
                and match(session)
            )

        found = []
        for session in self._recorded().sessions(request["since"], until, self.world.time, chosen):
            found.append(session)
            if len(found) > limit:
                break
        return {"sessions": found[:limit], "next": found[limit - 1]["id"] if len(found) > limit else 0}

    def _do_history_clients(self, request: Map) -> Map:
        found: dict[str, Map] = {}
        match = matcher(request["filter"])
        for session in self._recorded().sessions(request["since"], request["until"], self.world.time, match):
            client = session["address"]
            if request["by"] == "network":
                client = str(ipaddress.ip_network(f"{client}/{64 if ':' in client else 24}", strict=False))
            row = found.setdefault(client, {"client": client, "sessions": 0, "outcomes": {}})
            row["sessions"] += 1
            row["outcomes"][session["outcome"]] = row["outcomes"].get(session["outcome"], 0) + 1
        rows = sorted(found.values(), key=lambda row: (-row["sessions"], row["client"]))
        total = sum(row["sessions"] for row in rows)
        return {"clients": rows[: request["limit"]], "total": len(rows), "sessions": total}

    def _recorded(self) -> Recorded:
        if self.recorded is None:
            raise Wrong("history: disabled (history.path is empty)")
        return self.recorded

    def _do_warnings(self, request: Map) -> Map:
        return {"warnings": self.world.warnings}


def matcher(filter: str) -> Callable[[Map], bool]:
    """A part of the filter language. Raises Wrong."""
    tests = [term(word) for word in filter.split()]
    return lambda what: all(test(what) for test in tests)


def term(word: str) -> Callable[[Map], bool]:
    """One term of it. Raises Wrong."""
    name, _, value = word.partition(":")
    if name in ("kind", "stage", "list", "outcome"):
        values = value.split(",")
        return lambda what: what.get(name) in values
    if word.startswith("score>"):
        bound = word.removeprefix("score>").removeprefix("=")
        if not bound.isdigit():
            raise Wrong(f"filter: {word}: a number is missing; example: score>=3")
        return lambda what: what["score"] is not None and what["score"] >= int(bound)
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        octets = word.encode()
        return lambda what: octets in (what.get("text") or what.get("command") or what.get("helo") or b"")
    return lambda what: ipaddress.ip_address(what["address"]) in network


def send(writer: asyncio.StreamWriter, message: Map) -> None:
    """One frame."""
    body = msgpack.packb(message, unicode_errors="surrogateescape")
    writer.write(len(body).to_bytes(4, "big") + body)
