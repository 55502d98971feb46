# When the next batch begins. A wake-up costs more than serving a client, and so does waking the MTA and the clients one
# by one: a sleeping process is resumed on another processor, with cold caches. So a screener that is woken often for
# little work collects events for a moment first, as network cards do with their interrupts. A client that connects
# after a quiet period does not wait, nor does a client of a busy screener, whose batches grow without pauses.

cdef enum:
    PACE_FEW = 4                    # work (clients, events, timers) of a batch that was not worth its wake-up
    PACE_ENOUGH = 4                 # that must come in a pause
    PACE_ROUND = 20                 # windows with pauses before one without, to measure the batches again
    PACE_VAIN_MAX = 6
cdef int64_t PACE_PAUSE = 10000     # µs: a tenth of what a person calls at once
cdef int64_t PACE_WINDOW = 100000   # µs: interval between decisions


@cython.final
cdef class Pace:
    """See core.pyi."""

    PAUSE = PACE_PAUSE

    cdef int64_t began              # µs, monotonic: this window
    cdef uint32_t work, batches     # in it
    cdef uint32_t pausing           # windows with pauses left
    cdef uint32_t resting           # windows left until pauses are tried again
    cdef uint32_t vain              # how often in a row they were useless

    def __init__(self, int64_t now):
        self.began = now

    def after(self, uint32_t work, int64_t now):
        return self.pause(work, now)

    cdef int64_t pause(self, uint32_t work, int64_t now) noexcept:
        """After a batch: return the delay (µs) of the next one."""
        self.work += work
        self.batches += 1
        if now - self.began >= PACE_WINDOW:
            self.decide(now)
        return PACE_PAUSE if self.pausing else 0

    cdef void decide(self, int64_t now) noexcept:
        """Begin a new window, with pauses or without."""
        cdef bint gathers = self.work * PACE_PAUSE >= PACE_ENOUGH * (now - self.began)
        if self.pausing and not gathers:
            # Each client connects after the previous one was served: a pause delays all of them and collects nothing.
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
