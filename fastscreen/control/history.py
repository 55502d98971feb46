"""The recorded sessions, for callers of the control socket: read in threads of their own, each time within limits.

A read that takes too long stops at the next page and says how far it came. A thread that hangs, because the disk does,
keeps its turn; later callers are then refused, and everything else is still answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from heapq import nsmallest
from pathlib import Path
from typing import TypeVar

import msgspec

from fastscreen.config.sites import parse_site
from fastscreen.control.messages import (
    MAX_STEPS,
    History,
    HistoryClientsRequest,
    HistoryMinutes,
    HistoryMinutesRequest,
    HistorySession,
    HistorySessions,
    HistorySessionsRequest,
    HistorySum,
    ListAnswer,
    PastClient,
    PastClients,
)
from fastscreen.control.protocol import RequestError
from fastscreen.core import HISTORY_FIELDS, HISTORY_OUTCOMES, history_read
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.day import COUNT_BITS, Row, with_sidecars
from fastscreen.history.evidence import evidence_texts
from fastscreen.history.filter import Query, query
from fastscreen.history.session import Session, address_of
from fastscreen.history.settings import HistorySettings

Result = TypeVar("Result")

READS_AT_A_TIME = 2  # of callers that may act, and of all others
TURN_SECONDS = 3.0  # to wait for one's turn
READ_SECONDS = 4.0  # after which a read stops with what it has
LOST_SECONDS = 8.0  # after which nothing is expected of it any more
LATE_SECONDS = 1.0  # for a part that is longer than expected, after READ_SECONDS
PART_SECONDS = 0.2  # a read of many sessions goes back in parts that take about so long
FIRST_PART = 600.0  # s of history
DAY = 86_400.0
MAX_BYTES = 800_000  # of the sessions of one answer, which must fit into a frame
MAX_CLIENTS = 100_000  # that are counted in one answer
_CHECK = 4096  # sums between two looks at the clock
_OUTCOME = HISTORY_FIELDS.index("outcome")
_WEIGHT = HISTORY_FIELDS.index("weight")
_NETWORK_BYTES = {4: 3, 16: 8}


class LateError(Exception):
    """The time for a read is over, or its caller has left."""


class Limit:
    """The time that a read may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._cancelled = False

    @property
    def over(self) -> bool:
        return self._cancelled or time.monotonic() >= self._end

    def cancel(self) -> None:
        """Nobody waits for the answer."""
        self._cancelled = True

    def check(self, rows: int = 0) -> None:
        """Raises LateError when even the part that was begun must end."""
        if self._cancelled or time.monotonic() >= self._end + LATE_SECONDS:
            raise LateError


Work = Callable[[Archive, Limit], Result]


class HistoryReader:
    """folder: of the days' files; empty: nothing is recorded. warn: called with lines for the log."""

    def __init__(self, folder: str, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._loop = asyncio.get_running_loop()
        self._warn = warn
        self._archive = Archive(Path(folder), self._problem)
        self._threads = ThreadPoolExecutor(2 * READS_AT_A_TIME, "history")
        self._turns = {may_act: asyncio.Semaphore(READS_AT_A_TIME) for may_act in (False, True)}
        self._users: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))

    async def read(self, work: Work[Result], *, uid: int, may_act: bool) -> Result:
        """Do something with the archive, in a thread. RequestError: disabled, busy, unreadable, or the disk hangs.

        uid: the caller's. One user that may not act gets one turn at a time.
        """
        if not self.folder:
            raise RequestError("history: disabled (history.path is empty)")
        turns = [self._turns[True]] if may_act else [self._users[uid], self._turns[False]]
        taken: list[asyncio.Semaphore] = []
        try:
            async with asyncio.timeout(TURN_SECONDS):
                for turn in turns:
                    await turn.acquire()
                    taken.append(turn)
        except BaseException as error:
            _release(taken)
            if isinstance(error, TimeoutError):
                raise RequestError("history: other requests are being answered; try again") from None
            raise
        limit = Limit(READ_SECONDS)
        future = self._loop.run_in_executor(self._threads, work, self._archive, limit)
        future.add_done_callback(lambda done: _ended(done, taken))
        try:
            return await asyncio.wait_for(asyncio.shield(future), LOST_SECONDS)
        except TimeoutError:
            raise RequestError(f"history: {self.folder}: no answer from the disk within {LOST_SECONDS:g} s") from None
        except LateError:
            raise RequestError("history: this took too long; ask for less") from None
        except ArchiveError as error:
            raise RequestError(f"history: {error}") from None
        finally:
            limit.cancel()

    def _problem(self, line: str) -> None:
        """A file cannot be read. Called in a thread, once for each file until it can be read again."""
        self._loop.call_soon_threadsafe(self._warn, f"history: {line}")

    def covered(self, archive: Archive, limit: Limit) -> History:
        """Answers `history`."""
        days = archive.days()
        size = 0
        for day in days:
            for path in (each for part in day.paths for each in with_sidecars(part)):
                with contextlib.suppress(OSError):  # it has none, or was deleted
                    size += path.stat().st_size
        first = next((minute[0] * 60.0 for day in days for minute in archive.minutes(day.since, day.until)), None)
        last = None
        for day in reversed(days):
            for page in archive.pages(Query(day.since, day.until), newest_first=True, seen=limit.check):
                last = _time(page[0][0])
                break
            if last is not None:
                break
        return History(self.folder, first, last, len(days), size, archive.problem())

    def close(self) -> None:
        """Do not wait for reads under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _release(turns: list[asyncio.Semaphore]) -> None:
    for turn in turns:
        turn.release()


def _ended(done: asyncio.Future[Result], turns: list[asyncio.Semaphore]) -> None:
    """A thread is free again, perhaps long after its caller was refused."""
    _release(turns)
    if not done.cancelled():
        done.exception()  # its caller has got it, or has left


# ---- answers, each made in a thread


def minutes(wanted: HistoryMinutesRequest) -> Work[HistoryMinutes]:
    """Answers `history.minutes`. RequestError: too many steps."""
    since, until = int(wanted.since) // 60 * 60, -(-int(wanted.until) // 60) * 60
    if until - since > MAX_STEPS * wanted.step:
        raise RequestError(f"history.minutes: more than {MAX_STEPS} steps; expected a shorter span or a longer step")

    def work(archive: Archive, limit: Limit) -> HistoryMinutes:
        found: dict[int, Counter[int]] = {}
        complete = True
        for number, (minute, outcome, cached, sessions) in enumerate(
            archive.minutes(since * 1_000_000, until * 1_000_000)
        ):
            if number % _CHECK == 0 and limit.over:
                complete = False
                break
            counts = found.setdefault((minute * 60 - since) // wanted.step, Counter())
            counts[outcome] += sessions
            counts[-1] += sessions * cached
        sums = [
            HistorySum(float(since + at * wanted.step), _by_outcome(counts), counts[-1])
            for at, counts in sorted(found.items())
        ]
        return HistoryMinutes(float(since), float(until), wanted.step, sums, complete)

    return work


def sessions(wanted: HistorySessionsRequest, now: float, mask: tuple[int, int] | None = None) -> Work[HistorySessions]:
    """Answers `history.sessions`. mask: `history.mask`: a client's sessions are those of its address, in full or cut.

    The work raises ValueError: the filter is wrong.
    """
    named, clients = wanted.address, frozenset[bytes]()
    if wanted.address and mask is not None:
        address = ipaddress.ip_address(wanted.address)
        network = ipaddress.ip_network((address, mask[address.version == 6]), strict=False)
        named, clients = str(network), frozenset((address.packed, network.network_address.packed))

    def work(archive: Archive, limit: Limit) -> HistorySessions:
        chosen = _query(f"{named} {wanted.filter}", wanted.since, wanted.until, now, archive)
        rows: list[Row] = []
        searched = None
        for page, stopped in _backwards(archive, chosen, limit, wanted.before):
            rows += [row for row in page if row[1] in clients] if clients else page
            if len(rows) > wanted.limit:
                break
            searched = stopped
        following = searched or 0
        if len(rows) > wanted.limit:
            rows = rows[: wanted.limit]
            following = rows[-1][0]
        weights, size = _Weights(), 0
        found: list[HistorySession] = []
        for row in rows:
            if (session := archive.session(row)) is None:
                continue
            message = _message(row[0], session, archive, weights)
            size += len(msgspec.msgpack.encode(message))
            if size > MAX_BYTES and found:
                return HistorySessions(found, found[-1].id)
            found.append(message)
        return HistorySessions(found, following, _time(searched))

    return work


def clients(wanted: HistoryClientsRequest, now: float) -> Work[PastClients]:
    """Answers `history.clients`. The work raises ValueError: the filter is wrong."""

    def work(archive: Archive, limit: Limit) -> PastClients:
        chosen = _query(wanted.filter, wanted.since, wanted.until, now, archive)
        found: dict[bytes, list[int]] = {}
        searched = None
        for page, stopped in _backwards(archive, chosen, limit):
            for number, client, packed in page:
                record = history_read(number >> COUNT_BITS, client, packed)
                if record is not None:
                    key = client[: _NETWORK_BYTES[len(client)]] if wanted.by == "network" else client
                    if (counts := found.get(key)) is None:
                        counts = found[key] = [0] * (len(HISTORY_OUTCOMES) + 1)
                    counts[min(record[_OUTCOME], len(HISTORY_OUTCOMES))] += record[_WEIGHT]
            searched = stopped
            if len(found) > MAX_CLIENTS:
                searched = page[-1][0]
                break
        # Not sorted: that would be one long step, during which the loop cannot go on.
        most = nsmallest(wanted.limit, found.items(), key=lambda one: (-sum(one[1]), len(one[0]), one[0]))
        return PastClients(
            [PastClient(_client(key), sum(counts), _by_outcome(dict(enumerate(counts)))) for key, counts in most],
            len(found),
            sum(sum(counts) for counts in found.values()),
            _time(searched),
        )

    return work


def _time(number: int | None) -> float | None:
    """When the session with this number ended."""
    return None if number is None else (number >> COUNT_BITS) / 1e6


def _query(text: str, since: float, until: float, now: float, archive: Archive) -> Query:
    """What a filter chooses within a span. until: 0: now."""
    chosen = query(text, now, archive.all_list_names)
    first = max(chosen.since, round(since * 1e6))
    last = min(chosen.until, round((until or now + 1) * 1e6))
    return msgspec.structs.replace(chosen, since=first, until=max(first, last))


def _backwards(
    archive: Archive, chosen: Query, limit: Limit, before: int = 0
) -> Iterator[tuple[list[Row], int | None]]:
    """Pages of what a query chooses, the newest first. before: not 0: only sessions with lower numbers.

    If time runs out, the last page has a number as well, to go on before. Raises LateError: nothing could be read.
    """
    if before:
        chosen = msgspec.structs.replace(chosen, until=min(chosen.until, (before >> COUNT_BITS) + 1))
    days = archive.days()
    if not days:
        return
    end, since = min(chosen.until, days[-1].until), max(chosen.since, days[0].since)
    part = DAY if chosen.network is not None else FIRST_PART
    reached = 0
    while end > since:
        begin, started = max(since, end - round(part * 1e6)), time.monotonic()
        here = msgspec.structs.replace(chosen, since=begin, until=end)
        try:
            for rows in archive.pages(here, newest_first=True, seen=limit.check):
                page = [row for row in rows if row[0] < before] if before else rows
                if page:
                    yield page, None
                    reached = page[-1][0]
                    if limit.over:
                        yield [], reached
                        return
        except LateError:
            if not reached:
                raise
            yield [], reached
            return
        end = begin
        reached = end << COUNT_BITS
        if limit.over and end > since:
            yield [], reached
            return
        if time.monotonic() - started < PART_SECONDS:
            part *= 2


def _by_outcome(counts: Mapping[int, int]) -> dict[str, int]:
    return {
        HISTORY_OUTCOMES[outcome] if outcome < len(HISTORY_OUTCOMES) else str(outcome): sessions
        for outcome, sessions in sorted(counts.items())
        if outcome >= 0 and sessions
    }


def _client(key: bytes) -> str:
    """An address, or a /24 or /64 network."""
    if len(key) in _NETWORK_BYTES:
        return str(address_of(key))
    whole = key.ljust(4 if len(key) == 3 else 16, b"\0")
    return str(ipaddress.ip_network((whole, 8 * len(key))))


# ---- a session as a message


class _Weights:
    """What answers of lists add to the score, by the settings of the session."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, tuple[str, ...]], int] = {}

    def of(self, number: int, settings: HistorySettings | None, zone: str, addresses: tuple[str, ...]) -> int:
        key = (number, zone, addresses)
        if key not in self._known:
            self._known[key] = _weight(settings, zone, addresses) if settings is not None else 0
        return self._known[key]


def _weight(settings: HistorySettings, zone: str, addresses: tuple[str, ...]) -> int:
    packed = [ipaddress.IPv4Address(address).packed for address in addresses]
    total = 0
    for site in settings.sites:
        if settings.lists[site.list] == zone:
            members = parse_site(f"list.example={site.filter}" if site.filter else "list.example")
            if any(members.matches(address) for address in packed):
                total += site.weight
    return total


def _message(number: int, session: Session, archive: Archive, weights: _Weights) -> HistorySession:
    settings = archive.settings(session.settings)
    return HistorySession(
        id=number,
        address=session.address,
        began=session.began,
        ended=session.ended,
        lasted=session.lasted,
        port=session.port,
        server=session.server,
        server_port=session.server_port,
        worker=session.worker,
        proxied=session.proxied,
        stage=session.stage,
        outcome=session.outcome,
        verdict=session.verdict,
        reply=session.reply,
        shadow_reply=session.spared,
        tls=session.tls,
        needed=list(session.needed),
        made=list(session.made),
        found=list(session.found),
        failed=list(session.failed),
        marks=list(session.marks),
        lists=[
            ListAnswer(
                zone=answer.name,
                state=answer.state,
                answers=list(answer.addresses),
                weight=weights.of(session.settings, settings, answer.name, answer.addresses)
                if answer.state == "listed"
                else 0,
            )
            for answer in session.lists
        ],
        score=session.score,
        threshold=settings.threshold if settings is not None else None,
        parts=session.parts,
        evidence=list(session.evidence),
        texts=evidence_texts(session),
        helo=session.helo,
        commands=session.commands,
        recipients=session.recipients,
        mta_reply=session.mta_reply,
        mta_accepted=session.mta_accepted,
        mta_rejected=session.mta_rejected,
        mta_recipients=session.mta_recipients,
        mta_refused=session.mta_refused,
        dialect=session.dialect,
        syn=session.syn,
        weight=session.weight,
    )
