# Descriptors in epoll sets. An epoll registration belongs to the open file description, not to the descriptor: it
# outlives close() for as long as another process holds that description (a worker that passed the descriptor, an MTA,
# a TLS process, the kernel's queue of passed descriptors, a child forked meanwhile). So a descriptor leaves its set
# before it is closed or passed, and an event carries a slot of this table and the slot's generation, never a pointer:
# an event of a registration that has ended finds nothing, whatever its cause.

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count, int milliseconds)
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET, EPOLLONESHOT

cdef enum Tag:                      # the kind of object that an event is for, in its low bits
    TAG_CLIENT
    TAG_MTA
    TAG_MTAS
    TAG_LISTENER
    TAG_DNS
    TAG_TIMER
    TAG_ARRIVAL
    TAG_PROBE
    TAG_CLUSTER

cdef enum:
    WATCH_TAG_BITS = 4
    WATCH_SLOT_BITS = 28
    WATCH_SLOTS_MAX = 1 << WATCH_SLOT_BITS
    WATCH_NO_SLOT = 0               # never used


@cython.final
cdef class WatchTable:
    """The registrations of one process, in all of its epoll sets."""

    cdef WatchSlot* slots
    cdef uint32_t capacity
    cdef uint32_t used              # slots that were ever in use, and WATCH_NO_SLOT
    cdef uint32_t free              # the last one released: the next to be used
    cdef readonly uint32_t count    # in use
    cdef uint64_t batch             # counts calls of `wait`
    cdef readonly uint64_t stale    # events of registrations that had ended before their batch began

    def __cinit__(self):
        self.used = 1
        if not self.grow():
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)

    cdef bint grow(self) noexcept:
        cdef uint32_t capacity = 2 * self.capacity or 64
        cdef WatchSlot* slots
        if capacity > WATCH_SLOTS_MAX:
            return False
        slots = <WatchSlot*> realloc(self.slots, capacity * sizeof(WatchSlot))
        if slots == NULL:
            return False
        memset(slots + self.capacity, 0, (capacity - self.capacity) * sizeof(WatchSlot))
        self.slots = slots
        self.capacity = capacity
        return True

    cdef bint watch(self, Watch* watch, int epoll, int fd, uint32_t events, void* owner, Tag tag) noexcept:
        """Watch a descriptor for these events, or change its events. False: out of memory, and nothing has changed."""
        cdef epoll_event event
        cdef uint32_t slot = watch.slot
        if watch.events == events:
            return True
        if not watch.events:
            slot = self.take(owner)
            if slot == WATCH_NO_SLOT:
                return False
        event.events = events
        event.data.u64 = <uint64_t> self.slots[slot].generation << 32 | slot << WATCH_TAG_BITS | tag
        if epoll_ctl(epoll, EPOLL_CTL_MOD if watch.events else EPOLL_CTL_ADD, fd, &event) < 0:
            if not watch.events:
                self.release(slot)
            return False
        watch.epoll = epoll
        watch.fd = fd
        watch.slot = slot
        watch.events = events
        return True

    cdef void unwatch(self, Watch* watch) noexcept:
        """Remove a descriptor from its set. Call this before it is closed or passed, whether it is in a set or not."""
        cdef epoll_event event
        if watch.events:
            epoll_ctl(watch.epoll, EPOLL_CTL_DEL, watch.fd, &event)
            self.end(watch)

    cdef void end(self, Watch* watch) noexcept:
        """The same after an EPOLLONESHOT event, which has disabled the registration: saves a system call."""
        self.release(watch.slot)
        watch.events = 0

    cdef uint32_t take(self, void* owner) noexcept:
        """A slot, or WATCH_NO_SLOT."""
        cdef uint32_t slot = self.free
        if slot != WATCH_NO_SLOT:
            self.free = self.slots[slot].next_free
        else:
            if self.used == self.capacity and not self.grow():
                return WATCH_NO_SLOT
            slot = self.used
            self.used += 1
        self.slots[slot].owner = owner
        self.count += 1
        return slot

    cdef void release(self, uint32_t slot) noexcept:
        self.slots[slot].owner = NULL
        self.slots[slot].generation += 1
        self.slots[slot].released = self.batch
        self.slots[slot].next_free = self.free
        self.free = slot
        self.count -= 1

    cdef int wait(self, int epoll, epoll_event* events, int count) noexcept:
        """Call epoll_wait without waiting. Return the number of events, never less than 0."""
        self.batch += 1
        return max(epoll_wait(epoll, events, count, 0), 0)

    cdef void* owner(self, uint64_t data) noexcept:
        """What an event is for. NULL: its registration has ended."""
        cdef WatchSlot* slot = &self.slots[data >> WATCH_TAG_BITS & (WATCH_SLOTS_MAX - 1)]
        if slot.generation == data >> 32:
            return slot.owner
        if slot.released < self.batch:
            self.stale += 1         # otherwise it ended in this batch, which was fetched before
        return NULL


cdef inline Tag tag_of(uint64_t data) noexcept nogil:
    return <Tag> (data & ((1 << WATCH_TAG_BITS) - 1))


cdef bint watch_always(int epoll, int fd, uint32_t events, Tag tag) noexcept nogil:
    """Watch an internal descriptor that its tag alone identifies. False: errno is set."""
    cdef epoll_event event
    event.events = events
    event.data.u64 = tag
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0


cdef void unwatch_always(int epoll, int fd) noexcept nogil:
    cdef epoll_event event
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event)
