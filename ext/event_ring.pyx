# Events: what happened to which client, as records of fixed size in a ring of shared memory. The writer takes no lock,
# creates no object and never waits. A reader, in another process, that is too slow loses the oldest events and learns
# how many.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from *:
    """
    #include <stdint.h>
    static inline void publish(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    static inline uint64_t published(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void in_order(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    """
    void publish(uint64_t* at, uint64_t value) noexcept nogil
    uint64_t published(const uint64_t* at) noexcept nogil
    void in_order() noexcept nogil

cdef enum:
    RING_HEADER = 4096              # bytes before the first record
    RING_VERSION = 4
    TERMS = 32                      # of a filter
    NO_SCORE = -0x7FFFFFFF          # the lists have not answered yet

# By EventKind and Stage: the names on the control socket. Those of failed tests are in the table of tests.
cdef dict TEST_EVENTS = {<int> TEST_TABLE[number].event: TESTS[number].event for number in range(TEST_COUNT)}
EVENTS = tuple([TEST_EVENTS.get(number, name) for number, name in enumerate((
    "", "connect", "allowlisted", "denylisted", "cached", "busy", "bypassed", "greet", None, "listed", "list_failed",
    None, "dialogue", "command", None, None, None, "command_limit", "reply", "passed", "handed_off", "handoff_failed",
    "hangup", "disconnect", "stress_on", "stress_off", "continued", "continue_failed", "relayed", "vetoed",
    "shadow_rejected", None, "evidence", "score_deferred", "doubtful", "slowed", "session"))])
STAGES = ("greet", "dialogue", "queued", "handoff", "continue", "relay", "gone")
BUSY = ("", "too_many_connections", "server_ports_busy", "screening_ports_busy", "connection_rate")
LIMITS = ("", "time", "count", "length")
cdef int[11] RANKS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15]       # a bucket contains scores up to its bound
RANK_BOUNDS = tuple(RANKS)
FINDINGS = (*(test.key for test in TESTS), "denylisted", "vetoed")
cdef enum:
    EVIDENCE_SHIFT = 16             # in an event's findings, scorers come after the tests
FIRST_EVIDENCE = <int> EVIDENCE_SHIFT


cdef inline uint32_t findings_of(const Session* session) noexcept nogil:
    """What a client has failed, one bit for each of FINDINGS; from EVIDENCE_SHIFT on, the evidence of scorers."""
    cdef uint32_t found = session.failed | session.evidence << EVIDENCE_SHIFT
    if session.flags & DENYLIST_FAIL:
        found |= bit(TEST_COUNT)
    if session.flags & VETOED:
        found |= bit(TEST_COUNT + 1)
    return found


# ---- writing

@cython.final
cdef class EventRing:
    """The ring of one worker, in memory that outlives it. Without memory no event is written."""

    cdef Py_buffer memory
    cdef RingHeader* header
    cdef Event* events
    cdef uint64_t mask

    def __init__(self, memory=None):
        cdef uint64_t room
        cdef int64_t bypass_until
        if memory is None:
            return
        PyObject_GetBuffer(memory, &self.memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
        room = ring_room(self.memory.len)
        self.header = <RingHeader*> self.memory.buf
        self.events = <Event*> (<char*> self.memory.buf + RING_HEADER)
        self.mask = room - 1
        if self.header.version != RING_VERSION:
            bypass_until = self.header.bypass_until     # it may be set already, after a restart
            if self.header.version != 0:        # new memory is empty, and not accessed before it is needed
                memset(self.memory.buf, 0, self.memory.len)
                self.header.bypass_until = bypass_until
            self.header.capacity = room
            self.header.version = RING_VERSION

    def __dealloc__(self):
        if self.header != NULL:
            PyBuffer_Release(&self.memory)


cdef uint64_t ring_room(Py_ssize_t size) except 0:
    """How many records fit: a power of two."""
    cdef uint64_t room = 1
    if size < RING_HEADER + <Py_ssize_t> sizeof(Event):
        raise ValueError(f"an event ring of {size} bytes is too small")
    while RING_HEADER + 2 * room * sizeof(Event) <= <uint64_t> size:
        room *= 2
    return room


cdef void event(Screener core, Session* session, EventKind kind, int64_t number=0, const char* text=NULL,
                size_t length=0) noexcept:
    """Something happened to a session."""
    cdef Event* record = event_begin(core, kind, &session.peer)
    if record == NULL:
        return
    record.session = session.number
    record.stage = session.stage
    record.findings = findings_of(session)
    record.score = session.score
    event_end(core, record, number, text, length)


cdef void event_said(Screener core, Session* session, EventKind kind, int64_t number, const char* text,
                     size_t length) noexcept:
    """The same for a client's line: the session remembers its position in the ring, and need not keep the line."""
    event(core, session, kind, number, text, length)
    if core.ring.header != NULL:
        session.said = <uint32_t> core.ring.header.head


cdef void count_turned_away(Screener core, Session* session) noexcept:
    """A session ends with a rejection, for any reason. It is only counted: the reason has an event already."""
    if session.flags & TURNED_AWAY:
        return
    session.flags |= TURNED_AWAY
    if core.ring.header != NULL:
        core.ring.header.turned_away += 1


cdef void count_rejected(Screener core, bint for_good) noexcept:
    """A recipient was rejected by the dummy engine."""
    if core.ring.header != NULL:
        core.ring.header.rejected[for_good] += 1


cdef void event_about(Screener core, EventKind kind, const Address* address, int16_t list=-1, int64_t number=0,
                      const char* text=NULL) noexcept:
    """Something happened that does not belong to a session."""
    cdef Event* record = event_begin(core, kind, address)
    if record == NULL:
        return
    record.session = 0
    record.stage = STAGE_GONE
    record.findings = 0
    record.score = NO_SCORE
    record.list = list
    event_end(core, record, number, text, strlen(text) if text != NULL else 0)


cdef Event* event_begin(Screener core, EventKind kind, const Address* address) noexcept:
    cdef EventRing ring = core.ring
    cdef Event* record
    if ring.header == NULL:
        return NULL
    ring.header.counts[<int> kind] += 1
    record = &ring.events[ring.header.head & ring.mask]
    publish(&record.sequence, 0)
    in_order()                      # no reader may see the new content under the old number
    record.kind = kind
    record.time = core.wall
    record.list = -1
    if address != NULL:
        record.family = address.family
        record.port = address.port
        memcpy(record.ip, address.ip, 16)
    else:
        record.family = 0
    return record


cdef void event_end(Screener core, Event* record, int64_t number, const char* text, size_t length) noexcept:
    cdef RingHeader* header = core.ring.header
    cdef int bucket = 0
    record.number = number
    if record.kind == EVENT_RANK:
        while bucket < 11 and number > RANKS[bucket]:
            bucket += 1
        header.ranks[bucket] += 1
        header.rank_sum += number
    elif record.kind == EVENT_PASSED:
        header.passed_new += number
    elif record.kind == EVENT_LIMIT:
        header.limits[number & 3] += 1
    elif record.kind == EVENT_BUSY:
        header.busy[number & 7] += 1
    record.length = <uint8_t> min(length, sizeof(record.text))
    if record.length:
        memcpy(record.text, text, record.length)
    if length > sizeof(record.text):
        memcpy(record.text + sizeof(record.text) - 3, <const char*> "...", 3)
    publish(&record.sequence, header.head + 1)
    publish(&header.head, header.head + 1)


# ---- reading

@cython.final
cdef class EventReader:
    """Reads the ring of a worker from another process (see core.pyi)."""

    cdef Py_buffer memory
    cdef const RingHeader* header
    cdef const Event* events
    cdef uint64_t mask
    cdef bint writable

    def __init__(self, memory):
        cdef int flags = PyBUF_SIMPLE
        self.writable = not memory.readonly
        PyObject_GetBuffer(memory, &self.memory, flags | (PyBUF_WRITABLE if self.writable else 0))
        self.header = <const RingHeader*> self.memory.buf
        self.events = <const Event*> (<char*> self.memory.buf + RING_HEADER)
        self.mask = ring_room(self.memory.len) - 1

    def __dealloc__(self):
        if self.header != NULL:
            PyBuffer_Release(&self.memory)

    @property
    def head(self):
        return published(&self.header.head)

    @property
    def capacity(self):
        return self.mask + 1

    def counts(self):
        found = {name: self.header.counts[at] for at, name in enumerate(EVENTS) if name and name != "session"}
        found["rejected"] = self.header.turned_away
        return found

    def details(self):
        cdef int at
        return {
            "busy": {name: self.header.busy[at] for at, name in enumerate(BUSY) if name},
            "limits": {name: self.header.limits[at] for at, name in enumerate(LIMITS) if name},
            "passed_new": self.header.passed_new,
            "rejected": {"450": self.header.rejected[0], "550": self.header.rejected[1]},
            "ranks": [self.header.ranks[at] for at in range(len(RANK_BOUNDS) + 1)],
            "rank_sum": self.header.rank_sum,
            "evidence": {scorer.key: self.header.evidence[at] for at, scorer in enumerate(SCORERS) if at},
        }

    @property
    def bypass_until(self):
        return self.header.bypass_until / 1e6

    @bypass_until.setter
    def bypass_until(self, double until):
        if not self.writable:
            raise ValueError("this memory is for reading")
        (<RingHeader*> self.header).bypass_until = <int64_t> (until * 1e6)

    def read(self, uint64_t after, Filter wanted, int limit, uint64_t until=0):
        cdef uint64_t head = published(&self.header.head)
        cdef uint64_t end = min(head, until) if until else head
        cdef uint64_t at = after + 1
        cdef uint64_t lost = 0
        cdef uint64_t skipped = 0
        cdef Event record
        cdef list found = []
        if at > head + 1:
            at = head + 1           # the ring was created again
        if head > self.mask and at <= head - self.mask:
            lost = max(min(head - self.mask, end + 1), at) - at
            at = head - self.mask
        while at <= end:
            if wanted.count == 0 and len(found) >= limit:
                skipped += end + 1 - at         # all of the rest match
                break
            if not self.copy(at, &record):
                lost += 1
            elif wanted.matches(&record):
                if len(found) < limit:
                    found.append(event_tuple(&record))
                else:
                    skipped += 1
            at += 1
        return found, end, lost, skipped

    cdef bint copy(self, uint64_t sequence, Event* record) noexcept:
        """False: the writer was faster."""
        cdef const Event* source = &self.events[(sequence - 1) & self.mask]
        if published(&source.sequence) != sequence:
            return False
        memcpy(record, source, sizeof(Event))
        in_order()
        return published(&source.sequence) == sequence


cdef tuple event_tuple(const Event* record):
    cdef char text[64]
    cdef Address address
    address.family = record.family
    memcpy(address.ip, record.ip, 16)
    return (
        record.sequence, record.time / 1e6, EVENTS[record.kind], record.session,
        text[:address_text(&address, text)].decode() if record.family else "", record.port,
        STAGES[record.stage], record.findings, None if record.score == NO_SCORE else record.score,
        record.list, record.number, record.text[:record.length])


def read_records(bytes packed, Filter wanted=None):
    cdef const Event* records = <const Event*> <const char*> packed
    cdef Py_ssize_t at
    return [event_tuple(&records[at]) for at in range(len(packed) // <Py_ssize_t> sizeof(Event))
            if wanted is None or wanted.matches(&records[at])]


# ---- choosing

@cython.final
cdef class Filter:
    """A conjunction of terms, compiled (see core.pyi)."""

    cdef FilterTerm terms[TERMS]
    cdef int count

    def __init__(self, terms=()):
        if len(terms) > TERMS:
            raise ValueError(f"more than {<int> TERMS} terms")
        for field, operator, value, negated in terms:
            self.add(&self.terms[self.count], field, operator, value, negated)
            self.count += 1

    cdef add(self, FilterTerm* term, str field, str operator, value, bint negated):
        cdef bytes text
        cdef int number
        term.negated = negated
        term.operator = {"=": EQUAL, "<": BELOW, "<=": AT_MOST, ">": ABOVE, ">=": AT_LEAST}[operator]
        if field == "network":
            term.field = FIELD_NETWORK
            term.family, first, last = value
            memcpy(term.first, <const char*> <bytes> first, 16)
            memcpy(term.last, <const char*> <bytes> last, 16)
        elif field == "text":
            term.field = FIELD_TEXT
            text = value[:64]
            term.length = len(text)
            memcpy(term.text, <const char*> text, term.length)
        elif field == "list":
            term.field = FIELD_LIST
            memset(term.text, 0, sizeof(term.text))
            for index in value:
                if not 0 <= index < 8 * <int> sizeof(term.text):
                    raise ValueError(f"list {index} does not exist")
                number = index
                term.text[number // 8] = <char> (term.text[number // 8] | 1 << number % 8)
        else:
            term.field = {
                "score": FIELD_SCORE, "age": FIELD_AGE, "stage": FIELD_STAGE, "kind": FIELD_KIND,
                "finding": FIELD_FINDING, "session": FIELD_SESSION, "port": FIELD_PORT,
                "number": FIELD_NUMBER}[field]
            term.value = value

    def __call__(self, bytes record):
        if len(record) != sizeof(Event):
            raise ValueError("not a record")
        return self.matches(<const Event*> <const char*> record)

    cdef bint matches(self, const Event* record) noexcept:
        cdef int at
        for at in range(self.count):
            if term_matches(&self.terms[at], record) == self.terms[at].negated:     # both are 0 or 1
                return False
        return True


cdef bint term_matches(const FilterTerm* term, const Event* record) noexcept nogil:
    """1 or 0. A bint is a C int, which keeps any other number unchanged and loses the upper half of a 64-bit mask."""
    cdef int64_t value
    if term.field == FIELD_NETWORK:
        return (record.family == term.family and memcmp(record.ip, term.first, 16) >= 0
                and memcmp(record.ip, term.last, 16) <= 0)
    if term.field == FIELD_TEXT:
        return text_found(record.text, record.length, term.text, term.length)
    if term.field == FIELD_LIST:
        return 0 <= record.list < 8 * <int> sizeof(term.text) and (
            (<uint8_t> term.text[record.list // 8] >> record.list % 8 & 1) != 0)
    if term.field == FIELD_KIND:
        return (term.value >> record.kind & 1) != 0
    if term.field == FIELD_STAGE:
        return record.session != 0 and (term.value >> record.stage & 1) != 0
    if term.field == FIELD_FINDING:
        return (record.findings & term.value) != 0
    if term.field == FIELD_SCORE:
        if record.score == NO_SCORE:
            return False
        value = record.score
    elif term.field == FIELD_AGE:
        if record.kind != EVENT_SESSION:
            return False
        value = record.number
    elif term.field == FIELD_SESSION:
        value = record.session
    elif term.field == FIELD_PORT:
        value = record.port
    else:
        value = record.number
    if term.operator == EQUAL:
        return value == term.value
    if term.operator == BELOW:
        return value < term.value
    if term.operator == AT_MOST:
        return value <= term.value
    if term.operator == ABOVE:
        return value > term.value
    return value >= term.value


cdef bint text_found(const char* text, size_t size, const char* wanted, size_t length) noexcept nogil:
    """Whether `text` contains `wanted`, case-insensitively."""
    cdef size_t at
    for at in range(size - length + 1 if size >= length else 0):
        if strncasecmp(text + at, wanted, length) == 0:
            return True
    return False
