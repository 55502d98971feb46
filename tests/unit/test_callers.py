"""The limits of the control socket: which callers are accepted, which are closed, and how much memory all may use."""

from fastscreen.control.callers import BUSY_SECONDS, CALLERS_MAX, HELD_MAX, QUIET_SECONDS, RESERVED, USER_MAX, Callers

NOW = 1000.0
ROOT, OWN, MEMBER, OTHER = 0, 990, 1001, 1002


class Fake:
    """A caller. reads: it reads a stream of events. busy: one of its requests is in progress."""

    def __init__(self, uid: int, last_active: float = NOW, *, reads: bool = False, held: int = 0) -> None:
        self.uid = uid
        self.rank = {ROOT: 2, OWN: 1}.get(uid, 0)
        self.idle = not reads
        self.follows = reads
        self.last_active = last_active
        self.held = held
        self.overdue_at = float("inf")
        self.ended = False

    def is_overdue(self, now: float) -> bool:
        return now >= self.overdue_at

    def end(self) -> None:
        self.ended = True
        self.held = 0


def test_the_longest_idle_makes_room() -> None:
    callers = Callers()
    idle = [Fake(ROOT, NOW - number) for number in range(CALLERS_MAX - 1)]
    reader = Fake(ROOT, NOW - 1000, reads=True)
    assert all(callers.admit(one, NOW) for one in (*idle, reader))
    assert callers.admit(Fake(ROOT), NOW)
    assert [one.ended for one in idle] == [*([False] * (CALLERS_MAX - 2)), True]
    assert not reader.ended
    assert len(callers) == CALLERS_MAX


def test_subscribers_that_read_stay() -> None:
    callers = Callers()
    readers = [Fake(ROOT, reads=True) for _ in range(CALLERS_MAX)]
    assert all(callers.admit(one, NOW) for one in readers)
    assert not callers.admit(Fake(ROOT), NOW)
    assert not any(one.ended for one in readers)
    assert not callers.admit(Fake(ROOT), NOW + QUIET_SECONDS)
    assert callers.admit(Fake(ROOT), NOW + QUIET_SECONDS + 0.1)  # nothing was heard of them


def test_requests_under_way_are_no_shelter() -> None:
    """They are closed for a caller with full rights after 1 s, and never for a read-only caller."""
    callers = Callers()
    busy = [Fake(ROOT, NOW - number / 10) for number in range(CALLERS_MAX)]
    for one in busy:
        one.idle = False
        assert callers.admit(one, NOW - 3.1)
    newcomer = Fake(ROOT)
    assert not callers.admit(newcomer, NOW - 3.1 + BUSY_SECONDS)
    assert callers.admit(newcomer, NOW)
    assert [one.ended for one in busy].index(True) == CALLERS_MAX - 1
    assert not callers.admit(Fake(MEMBER), NOW)


def test_places_are_kept_for_callers_that_may_act() -> None:
    callers = Callers()
    members = [Fake(uid, reads=True) for uid in range(1001, 1001 + CALLERS_MAX - RESERVED)]
    assert all(callers.admit(one, NOW) for one in members)
    assert not callers.admit(Fake(5000), NOW)
    for _ in range(RESERVED):
        assert callers.admit(Fake(OWN, reads=True), NOW)
    assert not any(one.ended for one in members)
    # And when those are taken, too, those that may only read make room, and then fastscreen's user for root.
    assert callers.admit(Fake(OWN, reads=True), NOW)
    assert sum(one.ended for one in members) == 1
    for _ in range(CALLERS_MAX):
        assert callers.admit(Fake(ROOT, reads=True), NOW)
    assert not callers.admit(Fake(OWN), NOW)
    assert len(callers) == CALLERS_MAX


def test_one_user_has_a_share() -> None:
    callers = Callers()
    mine = [Fake(MEMBER, NOW + number) for number in range(USER_MAX)]
    other = Fake(OTHER, NOW - 1000)
    assert all(callers.admit(one, NOW) for one in (other, *mine))
    assert callers.admit(Fake(MEMBER), NOW)
    assert mine[0].ended
    assert not other.ended
    for one in mine:
        one.idle = False
    busy = Callers()
    assert all(busy.admit(Fake(MEMBER, reads=True), NOW) for _ in range(USER_MAX))
    assert not busy.admit(Fake(MEMBER), NOW)
    assert busy.admit(Fake(OTHER), NOW)


def test_the_user_with_most_callers_makes_room() -> None:
    callers = Callers()
    few = [Fake(MEMBER, NOW - 1000) for _ in range(USER_MAX - 1)]
    many = [Fake(OTHER, NOW) for _ in range(USER_MAX)]
    one = Fake(1003, NOW - 1000)
    assert all(callers.admit(each, NOW) for each in (*few, *many, one))
    assert callers.admit(Fake(1004), NOW)
    assert sum(each.ended for each in many) == 1
    assert not one.ended
    assert not any(each.ended for each in few)


def test_memory_of_all_together() -> None:
    callers = Callers()
    hoarders = [Fake(MEMBER, held=HELD_MAX // 8) for _ in range(7)]
    modest = Fake(OTHER, held=1000)
    assert all(callers.admit(one, NOW) for one in (*hoarders, modest))
    callers.make_room(1000)
    assert not any(one.ended for one in hoarders)
    callers.make_room(HELD_MAX // 8)
    assert sum(one.ended for one in hoarders) == 1
    assert not modest.ended


def test_overdue_callers_end() -> None:
    callers = Callers()
    late, early = Fake(ROOT), Fake(ROOT)
    late.overdue_at = NOW + 1
    assert callers.admit(late, NOW)
    assert callers.admit(early, NOW)
    callers.sweep(NOW + 0.9)
    assert not late.ended
    callers.sweep(NOW + 1)
    assert late.ended
    assert not early.ended
    assert len(callers) == 1
