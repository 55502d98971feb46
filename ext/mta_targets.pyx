# The MTAs behind a relay: which one is next, and which are skipped for a while because they did not answer. Targets are
# not probed: a target that failed gets one client from time to time, so that no MTA logs connections without a client.

cdef enum:
    TARGETS_MAX = 16
    SOCKADDR_MAX = 128              # struct sockaddr_storage
cdef int64_t DOWN_TIME = 10 * 1000000           # µs: how long a target that did not answer is skipped


cdef struct Target:
    const char* label
    const char* name            # struct sockaddr
    uint32_t size
    int family
    int32_t weight              # 0: in order
    int32_t credit              # for the choice by weight
    int64_t down_until          # µs, monotonic; 0: it answered last time
    uint32_t keywords           # EHLO keywords that it announced (ehlo_keywords.py)


@cython.final
cdef class Targets:
    """See core.pyi."""

    cdef Target targets[TARGETS_MAX]
    cdef readonly int count
    cdef readonly int version
    cdef bint weighted
    cdef list kept              # owns what the C structs point to
    cdef list offers            # the last reply of each to EHLO
    cdef bytes labels           # of all of them
    cdef public object on_offer

    def __init__(self, targets, int version=2):
        cdef bytes label, name
        cdef int at
        targets = list(targets)
        if not 0 < len(targets) <= TARGETS_MAX:
            raise ValueError(f"{len(targets)} targets; expected 1 to {<int> TARGETS_MAX}")
        if version not in (1, 2):
            raise ValueError(f"version {version} of the PROXY protocol; expected 1 or 2")
        self.kept = []
        for at, (text, name, weight) in enumerate(targets):
            if not 2 < len(name) <= SOCKADDR_MAX or weight < 0:
                raise ValueError(f"{text!r} is not a valid target")
            label = text.encode()
            self.kept += [label, name]
            self.targets[at].label = label
            self.targets[at].name = name
            self.targets[at].size = len(name)
            self.targets[at].family = (<const uint16_t*> <const char*> name)[0]
            self.targets[at].weight = weight
            self.weighted = self.weighted or weight > 0
        self.count = len(targets)
        self.offers = [b""] * self.count
        self.version = version
        self.labels = b", ".join(self.kept[::2])

    def choose(self, int64_t now, uint32_t tried=0):
        return self.pick(now, tried)

    def failed(self, int at, int64_t now):
        if not 0 <= at < self.count:
            raise ValueError(f"target {at} does not exist")
        self.down(at, now)

    def answered(self, int at):
        if not 0 <= at < self.count:
            raise ValueError(f"target {at} does not exist")
        self.up(at)

    def learn(self, int at, bytes reply):
        if not 0 <= at < self.count:
            raise ValueError(f"target {at} does not exist")
        if self.offers[at] != reply:
            if self.on_offer is not None:
                self.targets[at].keywords = self.on_offer(at, reply)
            self.offers[at] = reply

    cdef int pick(self, int64_t now, uint32_t tried) noexcept:
        """The target for one client; -1 if none is left. tried: the targets that have failed for it, as bits."""
        cdef int at, chosen = self.pick_of(now, tried)
        if chosen < 0:
            for at in range(self.count):        # all are down: wait for one of them instead of rejecting clients
                if not tried & <uint32_t> 1 << at:
                    return at
        elif self.targets[chosen].down_until:
            self.targets[chosen].down_until = now + DOWN_TIME       # others wait for the result of this client
        return chosen

    cdef int pick_of(self, int64_t now, uint32_t tried) noexcept:
        """Of the targets that are not down, the first, or, by weight, the one that is furthest behind its share."""
        cdef int at, chosen = -1
        cdef int64_t total = 0
        for at in range(self.count):
            if tried & <uint32_t> 1 << at or self.targets[at].down_until > now:
                continue
            if not self.weighted:
                return at
            total += self.targets[at].weight
            self.targets[at].credit += self.targets[at].weight
            if chosen < 0 or self.targets[at].credit > self.targets[chosen].credit:
                chosen = at
        if chosen >= 0:
            self.targets[chosen].credit -= <int32_t> total
        return chosen

    cdef inline void down(self, int at, int64_t now) noexcept:
        self.targets[at].down_until = now + DOWN_TIME

    cdef inline void up(self, int at) noexcept:
        self.targets[at].down_until = 0
