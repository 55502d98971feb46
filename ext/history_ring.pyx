# The history's ring: the records of sessions that have ended, in memory that a worker shares with the recorder, which
# writes them to disk (fastscreen/history/). The worker never waits: when the ring is full, the oldest records are
# overwritten, and the recorder learns how many. The position up to which records are on disk is in the ring, so that
# a recorder continues where its predecessor was killed.
#
# Behind the header is room for the description of the worker's settings, which the records refer to by number. It is
# written between two changes of `generation`, which is odd meanwhile.

cdef extern from *:
    """
    static inline void before_writing(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    """
    void before_writing() noexcept nogil    # what was stored before is seen before what is stored from here on

cdef enum:
    HISTORY_RING_VERSION = 1
    HISTORY_HEADER = 4096           # bytes
    HISTORY_SETTINGS = 65536        # bytes for the description of the settings
    HISTORY_RECORDS = 16384
    HISTORY_TRIES = 100             # to read the settings while they change

HISTORY_RING_SIZE = HISTORY_HEADER + HISTORY_SETTINGS + HISTORY_RECORDS * <int> sizeof(HistoryRecord)


cdef uint64_t history_room(Py_ssize_t size) except 0:
    """How many records fit: a power of two."""
    cdef uint64_t room = 1
    cdef uint64_t before = HISTORY_HEADER + HISTORY_SETTINGS
    if size < <Py_ssize_t> (before + sizeof(HistoryRecord)):
        raise ValueError(f"a history ring of {size} bytes is too small")
    while before + 2 * room * sizeof(HistoryRecord) <= <uint64_t> size:
        room *= 2
    return room


cdef HistoryHeader* history_header(Py_buffer* memory) noexcept:
    """The header of a ring. Memory that is new or of another version becomes an empty ring."""
    cdef HistoryHeader* header = <HistoryHeader*> memory.buf
    if header.version != HISTORY_RING_VERSION:
        if header.version != 0:             # new memory is empty, and not accessed before it is needed
            memset(memory.buf, 0, memory.len)
        header.version = HISTORY_RING_VERSION
    return header


# ---- writing

@cython.final
cdef class HistoryRing:
    """The ring of one worker. Without memory, no history is recorded."""

    cdef Py_buffer memory
    cdef HistoryHeader* header
    cdef HistoryRecord* records
    cdef uint64_t mask
    cdef uint8_t worker             # from 1
    cdef uint32_t known             # of so many sessions of known clients one is recorded; 0: none
    cdef uint32_t unrecorded        # such sessions since the last one
    cdef bint fingerprints          # records have the SMTP dialect and the SYN packet

    def __init__(self, memory=None, uint8_t worker=0, uint32_t known=1, bint fingerprints=True):
        cdef uint64_t room
        if memory is None:
            return
        PyObject_GetBuffer(memory, &self.memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            room = history_room(self.memory.len)
        except ValueError:
            PyBuffer_Release(&self.memory)
            raise
        self.header = history_header(&self.memory)
        self.records = <HistoryRecord*> (<char*> self.memory.buf + HISTORY_HEADER + HISTORY_SETTINGS)
        self.mask = room - 1
        self.worker = worker
        self.known = known
        self.fingerprints = fingerprints

    def __dealloc__(self):
        if self.header != NULL:
            PyBuffer_Release(&self.memory)

    cdef void describe(self, const char* description, size_t size) noexcept:
        """Publish the settings. A description for which there is no room is not published."""
        cdef char* room = <char*> self.memory.buf + HISTORY_HEADER
        cdef uint64_t generation = self.header.generation | 1       # odd already: a writer was killed
        if size > HISTORY_SETTINGS:
            size = 0
        publish(&self.header.generation, generation)
        before_writing()
        self.header.settings_size = size
        memcpy(room, description, size)
        publish(&self.header.generation, generation + 1)


# ---- reading

@cython.final
cdef class HistoryReader:
    """Reads the ring of a worker from another process (see core.pyi)."""

    cdef Py_buffer memory
    cdef HistoryHeader* header
    cdef const HistoryRecord* records
    cdef uint64_t mask
    cdef uint64_t end               # of the last read: see `done`
    cdef uint64_t missed            # by it

    def __init__(self, memory):
        cdef uint64_t room
        PyObject_GetBuffer(memory, &self.memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            room = history_room(self.memory.len)
        except ValueError:
            PyBuffer_Release(&self.memory)
            raise
        self.header = history_header(&self.memory)
        self.records = <const HistoryRecord*> (<char*> self.memory.buf + HISTORY_HEADER + HISTORY_SETTINGS)
        self.mask = room - 1
        self.end = self.header.tail

    def __dealloc__(self):
        if self.header != NULL:
            PyBuffer_Release(&self.memory)

    @property
    def capacity(self):
        return self.mask + 1

    @property
    def head(self):
        return published(&self.header.head)

    @property
    def tail(self):
        return published(&self.header.tail)

    @property
    def lost(self):
        return published(&self.header.lost)

    @property
    def written(self):
        return published(&self.header.head)

    @property
    def sessions(self):
        return published(&self.header.sessions)

    @property
    def generation(self):
        return published(&self.header.generation)

    def settings(self):
        cdef uint64_t generation, size
        cdef bytes description
        cdef int _try
        for _try in range(HISTORY_TRIES):
            generation = published(&self.header.generation)
            if generation & 1:
                continue
            size = min(self.header.settings_size, <uint64_t> HISTORY_SETTINGS)
            description = (<char*> self.memory.buf + HISTORY_HEADER)[:size]
            in_order()
            if published(&self.header.generation) == generation:
                return description or None
        return None

    def read(self, int limit):
        cdef uint64_t head = published(&self.header.head)
        cdef uint64_t tail = self.header.tail
        cdef uint64_t at
        cdef HistoryRecord record
        cdef uint8_t[HISTORY_PACKED] packed
        cdef size_t size
        cdef list found = []
        self.missed = 0
        if tail > head:
            tail = head                     # the worker has emptied a ring of another version
        if head - tail > self.mask + 1:
            self.missed = head - tail - (self.mask + 1)
        at = tail + self.missed
        while at < head and len(found) < limit:
            at += 1
            if not self.copy(at, &record):
                self.missed += 1
                continue
            size = history_pack(&record, packed)
            found.append((
                record.ended, (<const char*> record.client)[:4 if record.family == 4 else 16],
                (<const char*> packed)[:size], <int> record.outcome, <int> (record.marks & MARK_CACHED != 0)))
        self.end = at
        return found, self.missed

    def done(self):
        publish(&self.header.lost, self.header.lost + self.missed)
        self.missed = 0
        publish(&self.header.tail, self.end)

    cdef bint copy(self, uint64_t sequence, HistoryRecord* record) noexcept:
        """False: the writer was faster."""
        cdef const HistoryRecord* source = &self.records[(sequence - 1) & self.mask]
        if published(&source.sequence) != sequence:
            return False
        memcpy(record, source, sizeof(HistoryRecord))
        in_order()
        return published(&source.sequence) == sequence
