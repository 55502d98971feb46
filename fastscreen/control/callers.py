"""All callers of the control socket together: who gets a place, who makes room, and how much memory they may hold.

A caller that neither asks nor follows events is idle. When places run out, the one that has been idle for longest makes
room for a newcomer; a caller that follows events and reads them stays. Some places are kept for callers that may act,
so that members of `control.group` can never shut the operator out, and one user of that group never all others.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

CALLERS_MAX = 32
RESERVED = 8  # of these, for callers that may act
USER_MAX = 12  # of the others, for one user
HELD_MAX = 16 << 20  # bytes that wait for all callers together
QUIET_SECONDS = 60.0  # without a sign of life, after which even a subscriber makes room for a caller that may act
BUSY_SECONDS = 1.0  # the same for a caller whose request is under way


class Peer(Protocol):
    """What the choice depends on. Times are s, monotonic."""

    uid: int
    rank: int
    """2: root, 1: fastscreen's user, 0: may only read."""

    @property
    def idle(self) -> bool:
        """It asks nothing, and follows no events or does not take them."""

    @property
    def follows(self) -> bool:
        """It follows events."""

    @property
    def last_active(self) -> float:
        """When it last asked, or took something."""

    @property
    def held(self) -> int:
        """Bytes that wait for it."""

    def is_overdue(self, now: float) -> bool:
        """It has let a time limit pass."""

    def end(self) -> None:
        """Hang up at once, and forget what waits."""


class Callers:
    """The callers that are served now."""

    def __init__(self) -> None:
        self._peers: set[Peer] = set()

    def __len__(self) -> int:
        return len(self._peers)

    def admit(self, newcomer: Peer, now: float) -> bool:
        """Give it a place, if necessary by ending another caller. False: every place is taken."""
        readers = [peer for peer in self._peers if peer.rank == 0]
        candidates: list[Peer] | None = None
        if newcomer.rank == 0 and sum(peer.uid == newcomer.uid for peer in readers) >= USER_MAX:
            candidates = [peer for peer in readers if peer.uid == newcomer.uid]
        elif newcomer.rank == 0 and len(readers) >= CALLERS_MAX - RESERVED:
            candidates = _of_the_greediest(readers)
        elif len(self._peers) >= CALLERS_MAX:
            candidates = [peer for peer in self._peers if peer.rank <= newcomer.rank]
        if candidates is not None:
            victim = _victim(newcomer, candidates, now)
            if victim is None:
                return False
            self._end(victim)
        self._peers.add(newcomer)
        return True

    def leave(self, peer: Peer) -> None:
        """Its connection is over."""
        self._peers.discard(peer)

    def sweep(self, now: float) -> None:
        """End every caller that has let a time limit pass."""
        for peer in [peer for peer in self._peers if peer.is_overdue(now)]:
            self._end(peer)

    def make_room(self, size: int) -> None:
        """`size` more bytes are about to wait: end the callers that hold most, until all hold little enough."""
        while self._peers and sum(peer.held for peer in self._peers) + size > HELD_MAX:
            self._end(max(self._peers, key=lambda peer: peer.held))

    def end_all(self) -> None:
        for peer in list(self._peers):
            self._end(peer)

    def _end(self, peer: Peer) -> None:
        self._peers.discard(peer)
        peer.end()


def _of_the_greediest(peers: list[Peer]) -> list[Peer]:
    """The callers of the user that has most of them."""
    uid, _ = Counter(peer.uid for peer in peers).most_common(1)[0]
    return [peer for peer in peers if peer.uid == uid]


def _victim(newcomer: Peer, candidates: list[Peer], now: float) -> Peer | None:
    """The caller that makes room: an idle one, then one of lower rank, then one that has been quiet for long."""

    def can_go(peer: Peer) -> bool:
        limit = QUIET_SECONDS if peer.follows else BUSY_SECONDS
        quiet = newcomer.rank > 0 and now - peer.last_active > limit
        return peer.idle or peer.rank < newcomer.rank or quiet

    going = [peer for peer in candidates if can_go(peer)]
    return min(going, key=lambda peer: (not peer.idle, peer.rank, peer.last_active), default=None)
