"""The sessions that an MTA has, and whose outcome is not known yet."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from fastscreen.feedback.postfix import Client

WAIT_SECONDS = 900.0  # for the outcome: a client that sends little by little is not remembered for longer
MAX_SESSIONS = 50_000  # the oldest go first
LATE_SECONDS = 1.5  # after the end of a session in the log, within which the recorder learns of it

Unknown = tuple[bytes, int, int, bool]
"""A session as `offenses_in` has it: the client's address and port, how good it was without an outcome, and whether it
may have committed an offense (False: access.list permits the client)."""


class HandOff(Struct):
    """A session. seen: when the recorder learned of it (s, monotonic). good, may_be_bad: see `Unknown`. is_spam: a
    verdict about this client said so."""

    seen: float
    address: bytes
    port: int
    good: int
    may_be_bad: bool
    is_spam: bool = False


class HandOffs:
    """A bounded table. What leaves it without an outcome is returned, to count as before."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max = max_sessions
        self._all: OrderedDict[tuple[bytes, int], HandOff] = OrderedDict()  # the oldest first
        self._ports: dict[bytes, set[int]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, session: Unknown, now: float) -> HandOff | None:
        """Return the session that had this address and port before, or for which there is no room."""
        address, port, good, may_be_bad = session
        gone = self._take(address, port)
        if len(self._all) >= self._max:
            gone = self._take(*next(iter(self._all)))
        self._all[address, port] = HandOff(now, address, port, good, may_be_bad)
        self._ports.setdefault(address, set()).add(port)
        return gone

    def expired(self, now: float) -> list[HandOff]:
        """Remove and return those that have waited long enough."""
        found = []
        while self._all:
            key = next(iter(self._all))
            if self._all[key].seen + WAIT_SECONDS > now:
                break
            if (gone := self._take(*key)) is not None:
                found.append(gone)
        return found

    def all(self) -> list[HandOff]:
        """Remove and return all."""
        found = list(self._all.values())
        self._all.clear()
        self._ports.clear()
        return found

    def take(self, client: Client, ended: float) -> HandOff | None:
        """Remove and return the session of a client that an MTA has said good-bye to. ended: when the log said so.

        If the log has no ports, the client must have had a single session, otherwise it is not known which one this is.
        """
        if client.port:
            return self._take(client.address, client.port)
        ports = self._ports.get(client.address, ())
        if len(ports) != 1:
            return None
        (port,) = ports
        if self._all[client.address, port].seen > ended + LATE_SECONDS:
            return None
        return self._take(client.address, port)

    def find(self, client: Client) -> HandOff | None:
        """The session of a client with this port."""
        return self._all.get((client.address, client.port))

    def is_ambiguous(self, client: Client) -> bool:
        """Whether `take` cannot decide between several sessions."""
        return not client.port and len(self._ports.get(client.address, ())) > 1

    def _take(self, address: bytes, port: int) -> HandOff | None:
        found = self._all.pop((address, port), None)
        if found is not None:
            ports = self._ports[address]
            ports.discard(port)
            if not ports:
                del self._ports[address]
        return found
