"""One daemon: the connection to it, which is kept up, and its status, which is polled every second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fastscreen.control.client import Client, ControlError, Malformed, Refused, Subscription, Unreachable
from fastscreen.control.messages import AnswerKind, EventsRequest, Hello, Request, Status, StatusRequest
from fastscreen.escaping import printable

PERIOD = 1.0  # s between two polls
HISTORY = 600  # polls that are kept
FIRST_RETRY, LAST_RETRY = 1.0, 15.0  # s


class Sample(NamedTuple):
    """Rates between two polls, and the sessions at the second. rates: events per second, by kind.

    asked, found: look-ups in the cluster, per second.
    """

    time: float
    rates: dict[str, float]
    sessions: int
    handoffs: int
    hits: float  # per second
    misses: float
    cpu: dict[int, float]  # by worker, seconds per second
    asked: float = 0.0
    found: float = 0.0


class Link:
    """A daemon at a path. `up`: it answers. `trouble`: why it does not."""

    def __init__(self, path: str, changed: Callable[[Link], None]) -> None:
        """changed: called when there is something new to show."""
        self.path = path
        self.hello = Hello()
        self.status: Status | None = None
        self.history: deque[Sample] = deque(maxlen=HISTORY)
        self.trouble = "connecting"
        self.retry_in = 0.0
        self._changed = changed
        self._client: Client | None = None
        self._retry = asyncio.Event()

    @property
    def up(self) -> bool:
        return self._client is not None

    @property
    def name(self) -> str:
        """The daemon's host name, or the path while that is unknown."""
        return self.hello.hostname or printable(self.path)

    @property
    def may_act(self) -> bool:
        return self.up and "act" in self.hello.rights

    @property
    def now(self) -> float:
        """The daemon's clock at the last poll; ages are relative to it."""
        return self.status.time if self.status else 0.0

    async def keep(self) -> None:
        """Connect, poll, connect again; until cancelled."""
        wait = FIRST_RETRY
        while True:
            try:
                client = await Client.connect(self.path)
                try:
                    self.hello = client.hello
                    self._take(await client.request(StatusRequest()))
                    self._client, self.trouble, wait = client, "", FIRST_RETRY
                    self._changed(self)
                    while True:
                        await asyncio.sleep(PERIOD)
                        self._take(await client.request(StatusRequest()))
                        self._changed(self)
                finally:
                    self._client = None
                    await client.close()
            except ControlError as error:
                self.trouble = printable(str(error).removeprefix(f"{self.path}: "))
            self.retry_in = wait
            self._changed(self)
            self._retry.clear()
            try:
                await asyncio.wait_for(self._retry.wait(), wait)
            except TimeoutError:
                wait = min(2 * wait, LAST_RETRY)

    def retry(self) -> None:
        """Connect now."""
        self._retry.set()

    async def ask(self, request: Request[AnswerKind]) -> AnswerKind:
        """The answer to a request. Raises ControlError; Refused carries fastscreen's words."""
        if self._client is None:
            raise Unreachable(self.trouble)
        return await self._client.request(request)

    async def subscribe(self, filter: str, recent: int) -> Subscription:
        """Follow events. Raises ControlError."""
        if self._client is None:
            raise Unreachable(self.trouble)
        return await self._client.subscribe(EventsRequest(filter=filter, recent=recent))

    def _take(self, status: Status) -> None:
        before, self.status = self.status, status
        if before is None or before.started != status.started or status.time <= before.time:
            if before is not None and before.started != status.started:
                self.history.clear()
            return
        spent = status.time - before.time
        cpu = {worker.number: worker.cpu for worker in before.workers}
        old, new = before.cache, status.cache
        was, now = before.cluster, status.cluster
        self.history.append(
            Sample(
                time=status.time,
                rates={kind: max(n - before.counts.get(kind, 0), 0) / spent for kind, n in status.counts.items()},
                sessions=sum(worker.sessions for worker in status.workers),
                handoffs=sum(worker.handoffs for worker in status.workers),
                hits=max(new.hits - old.hits, 0) / spent if new and old else 0.0,
                misses=max(new.misses - old.misses, 0) / spent if new and old else 0.0,
                cpu={
                    worker.number: max(worker.cpu - cpu[worker.number], 0.0) / spent
                    for worker in status.workers
                    if worker.number in cpu
                },
                asked=max(now.asked - was.asked, 0) / spent if now and was else 0.0,
                found=max(now.found - was.found, 0) / spent if now and was else 0.0,
            )
        )


__all__ = ["HISTORY", "ControlError", "Link", "Malformed", "Refused", "Sample", "Unreachable"]
