# When the next batch begins. To be woken costs more than a client does, and so does waking the MTA and the clients one
# by one: whoever is asleep has to be fetched from another processor, with cold caches. So a screener that is woken
# often for little lets a moment's events come together first, as network cards do with their interrupts. Who comes
# after a quiet time does not wait; a screener that is full does not either, for its batches grow by themselves.

cdef enum:
    PACE_FEW = 4                    # work (clients, events, timers) of a batch that was hardly worth its wake-up
    PACE_ENOUGH = 4                 # that must come in a pause
    PACE_ROUND = 20                 # windows: how long without a look at what batches are without pauses
    PACE_VAIN_MAX = 6
cdef int64_t PACE_PAUSE = 10000     # µs: a tenth of what a person calls at once
cdef int64_t PACE_WINDOW = 100000   # µs: how often it is decided anew


@cython.final
cdef class Pace:
    """See core.pyi."""

    PAUSE = PACE_PAUSE

    cdef int64_t began              # µs, monotonic: this window
    cdef uint32_t work, batches     # in it
    cdef uint32_t pausing           # windows with pauses left
    cdef uint32_t resting           # windows left until pauses are tried again
    cdef uint32_t vain              # how often in a row they were in vain

    def __init__(self, int64_t now):
        self.began = now

    def after(self, uint32_t work, int64_t now):
        return self.pause(work, now)

    cdef int64_t pause(self, uint32_t work, int64_t now) noexcept:
        """After a batch: how long (µs) the next one is to wait."""
        self.work += work
        self.batches += 1
        if now - self.began >= PACE_WINDOW:
            self.decide(now)
        return PACE_PAUSE if self.pausing else 0

    cdef void decide(self, int64_t now) noexcept:
        """Begin a new window, with pauses or without."""
        cdef bint gathers = self.work * PACE_PAUSE >= PACE_ENOUGH * (now - self.began)
        if self.pausing and not gathers:
            # Clients that come when another was served: a pause holds all of them up and gathers none.
            self.vain = min(self.vain + 1, <uint32_t> PACE_VAIN_MAX)
            self.pausing = 0
            self.resting = 1 << self.vain
        elif self.pausing:
            self.vain = 0
            self.pausing -= 1
        elif self.resting:
            self.resting -= 1
        elif gathers and self.work < PACE_FEW * self.batches:
            self.pausing = PACE_ROUND
        self.began = now
        self.work = self.batches = 0
