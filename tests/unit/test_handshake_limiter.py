"""Who makes a handshake, who waits, and who gives up a place."""

from fastscreen.tls.handshake_limiter import TURN_SECONDS, HandshakeLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limiter(places: int) -> tuple[HandshakeLimiter[int], list[int], Clock]:
    begun: list[int] = []
    clock = Clock()
    return HandshakeLimiter(places, begun.append, clock), begun, clock


def test_in_the_order_of_their_coming() -> None:
    made, begun, _ = limiter(2)
    for who in range(5):
        made.enter(who)
    assert (begun, made.waiting) == ([0, 1], 3)
    made.leave(3)
    made.leave(1)
    made.leave(0)
    assert (begun, made.waiting) == ([0, 1, 2, 4], 0)
    made.leave(9)
    made.enter(5)
    assert begun[-1] == 4
    made.leave(2)
    assert begun[-1] == 5


def test_who_takes_long_gives_up_the_place() -> None:
    """But only to those who wait, and the first to come is the first to go, whatever its client does."""
    made, begun, clock = limiter(2)
    made.enter(0)
    clock.now += TURN_SECONDS / 2
    made.enter(1)
    clock.now += TURN_SECONDS / 2
    made.admit()
    assert begun == [0, 1]
    made.enter(2)
    assert begun == [0, 1, 2]
    made.enter(3)
    assert begun == [0, 1, 2]
    clock.now += TURN_SECONDS / 2
    made.admit()
    assert begun == [0, 1, 2, 3]
    made.leave(1)  # without a place it went on all the same
    made.enter(4)
    assert begun == [0, 1, 2, 3]
    made.leave(2)
    assert begun == [0, 1, 2, 3, 4]
