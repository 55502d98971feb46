# Labeled sessions for `fastscreen tune --sessions`: kept without an object for each, put in order, and played through
# the memory of offenses with the code that the recorder and the workers use.

cdef enum:
    LABELED_ADDRESSES = 1 << 25     # that are counted
    LABELED_LEVELS = 7              # values of a setting that are tried at once
    LABELED_CHUNK = 1 << 16         # sessions between reports of progress
    LABELED_DROP = 4096             # records of which the lightest are dropped, if there are too many


# One session. number: of its line, so that the order of the file decides between sessions of the same time.
cdef struct LabeledRow:
    double time                     # s since 1970
    uint32_t number
    uint32_t address                # number of the address
    uint32_t system                 # AS; 0: not known
    uint32_t pattern                # what it shows by itself, good sessions in the highest bit
    uint16_t seen                   # what the memory of offenses showed, see seen_levels


cdef enum:
    LABELED_GOOD = 1 << 30


cdef struct LabeledAddress:
    uint8_t ip[16]
    uint8_t family


@cython.final
cdef class LabeledSessions:
    """See core.pyi."""

    cdef LabeledRow* rows
    cdef size_t count, room
    cdef bint ordered
    cdef JudgeTable addresses

    def __cinit__(self):
        self.addresses = JudgeTable()
        self.addresses.prepare(sizeof(LabeledAddress), sizeof(LabeledAddress), LABELED_ADDRESSES)
        self.ordered = True

    def __dealloc__(self):
        free(self.rows)

    def __len__(self):
        return self.count

    def add(self, double time, bytes client, uint32_t system, uint32_t pattern, bint good):
        """See core.pyi."""
        cdef LabeledAddress address
        cdef LabeledRow* row
        cdef char* found
        cdef size_t room
        if len(client) not in (4, 16) or pattern >= LABELED_GOOD or not 0 <= time < 5e9:
            raise ValueError("not a session")
        if self.count == self.room:
            room = max(2 * self.room, <size_t> 1024)
            if room > <size_t> 0xFFFFFFFF:
                raise MemoryError("too many sessions")
            row = <LabeledRow*> realloc(self.rows, room * sizeof(LabeledRow))
            if row == NULL:
                raise MemoryError
            self.rows = row
            self.room = room
        memset(&address, 0, sizeof(address))
        memcpy(address.ip, <const char*> client, len(client))
        address.family = 4 if len(client) == 4 else 6
        found = self.addresses.find(<const uint8_t*> &address)
        if found == NULL:
            found = self.addresses.add(<const uint8_t*> &address)
            if found == NULL:
                raise MemoryError("too many addresses")
            row = &self.rows[self.count]
            row.address = <uint32_t> (self.addresses.count - 1)
        else:
            row = &self.rows[self.count]
            row.address = self.addresses.number(found)
        row.time = time
        row.number = <uint32_t> self.count
        row.system = system
        row.pattern = pattern | (<uint32_t> LABELED_GOOD if good else 0)
        row.seen = 0
        self.ordered = self.ordered and (self.count == 0 or self.rows[self.count - 1].time <= time)
        self.count += 1

    def sort(self):
        """See core.pyi."""
        if not self.ordered:
            with nogil:
                qsort(self.rows, self.count, sizeof(LabeledRow), labeled_order)
        self.ordered = True

    def time(self, size_t at):
        """See core.pyi."""
        if at >= self.count:
            raise IndexError(at)
        return self.rows[at].time

    def before(self, double time):
        """See core.pyi."""
        cdef size_t low = 0, high = self.count, middle
        while low < high:
            middle = (low + high) // 2
            if self.rows[middle].time < time:
                low = middle + 1
            else:
                high = middle
        return low

    # ---- the memory

    def play(self, OffenseRules rules, least_values, share_values, double delay, size_t most, bytes offending, advance):
        """See core.pyi."""
        cdef LabeledMemory memory = LabeledMemory(rules, most)
        cdef int[LABELED_LEVELS] least
        cdef int[LABELED_LEVELS] shares
        cdef size_t at, taught = 0
        cdef LabeledRow* row
        cdef LabeledRow* past
        cdef Address peer
        cdef SeenCounts counts
        cdef int least_count = labeled_values(least_values, least)
        cdef int share_count = labeled_values(share_values, shares)
        cdef uint32_t asked = bit(SCORER_SEEN_ADDRESS) | bit(SCORER_SEEN_NETWORK) | bit(SCORER_SEEN_AS)
        self.sort()
        for at in range(self.count):
            row = &self.rows[at]
            while taught < at and self.rows[taught].time + delay <= row.time:
                past = &self.rows[taught]
                self.peer_of(past, &peer)
                memory.learn(&peer, past.system, offending, past.pattern, labeled_day(past.time + delay))
                taught += 1
            self.peer_of(row, &peer)
            seen_look(memory, rules, asked, &peer, row.system, 0x7FFFFFFF, labeled_day(row.time), &counts)
            row.seen = seen_levels(&counts, least, least_count, shares, share_count)
            if at % LABELED_CHUNK == LABELED_CHUNK - 1:
                advance(<int> LABELED_CHUNK)
        return memory.dropped

    cdef void peer_of(self, const LabeledRow* row, Address* peer) noexcept nogil:
        cdef LabeledAddress* address = <LabeledAddress*> self.addresses.item(row.address)
        memset(peer, 0, sizeof(Address))
        peer.family = address.family
        memcpy(peer.ip, address.ip, 16)

    # ---- counts

    def shapes(self, size_t first, size_t last):
        """See core.pyi."""
        cdef size_t at
        cdef uint64_t key
        counts = {}
        for at in range(first, min(last, self.count)):
            key = <uint64_t> self.rows[at].pattern << 16 | self.rows[at].seen
            counts[key] = counts.get(key, 0) + 1
        return {(each >> 16 & (LABELED_GOOD - 1), each & 0xFFFF, each >> 46 != 0): count
                for each, count in counts.items()}

    def groups(self, size_t first, size_t last):
        """See core.pyi."""
        cdef uint64_t* pairs
        cdef size_t at, count
        cdef uint64_t this
        numbers = {}
        shapes = []
        groups = {}
        last = min(last, self.count)
        count = last - first if last > first else 0
        pairs = <uint64_t*> malloc((count + 1) * sizeof(uint64_t))
        if pairs == NULL:
            raise MemoryError
        try:
            for at in range(count):
                this = <uint64_t> (self.rows[first + at].pattern & ~<uint32_t> LABELED_GOOD) << 16 \
                    | self.rows[first + at].seen
                number = numbers.get(this)
                if number is None:
                    number = numbers[this] = len(shapes)
                    shapes.append((this >> 16, this & 0xFFFF))
                if number >= LABELED_GOOD:
                    raise MemoryError("too many kinds of sessions")
                pairs[at] = (<uint64_t> self.rows[first + at].address << 32 | <uint32_t> <long> number
                             | (<uint64_t> LABELED_GOOD if self.rows[first + at].pattern & LABELED_GOOD else 0))
            with nogil:
                qsort(pairs, count, sizeof(uint64_t), labeled_pair_order)
            has = []
            for at in range(count + 1):
                if at == count or at and pairs[at] >> 30 != pairs[at - 1] >> 30:
                    if has:
                        key = tuple(has)
                        both = groups.get(key)
                        if both is None:
                            both = groups[key] = [0, 0]
                        both[0 if pairs[at - 1] & LABELED_GOOD else 1] += 1
                    has = []
                if at < count and (not has or pairs[at] != pairs[at - 1]):
                    has.append(pairs[at] & (LABELED_GOOD - 1))
        finally:
            free(pairs)
        return shapes, {key: tuple(both) for key, both in groups.items()}


@cython.final
cdef class LabeledMemory:
    """The memory of offenses, without a file. most: records; when there are more, the lightest of some are dropped, as
    in fastscreen/offenses/store.py."""

    cdef OffenseRules rules
    cdef dict records
    cdef size_t most
    cdef readonly size_t dropped

    def __cinit__(self, OffenseRules rules, size_t most):
        self.rules = rules
        self.records = {}
        self.most = most

    def record(self, key):
        return self.records.get(key)

    cdef int learn(self, const Address* peer, uint32_t system, bytes offending, uint32_t pattern, int today) except -1:
        """A session, by its label. offending: patterns that are offenses whatever their label."""
        cdef bint good = pattern & LABELED_GOOD != 0
        cdef uint32_t shown = pattern & ~<uint32_t> LABELED_GOOD
        cdef bint fails = offending[shown] != 0
        cdef uint32_t bad = OFFENSE_UNIT if fails or not good else 0
        cdef float more_bad = 0, more_good = 0
        for key, size, number in offense_keys((<const char*> peer.ip)[:4 if peer.family == 4 else 16]):
            before = self.records.get(key)
            value, more_bad, more_good = offense_add(
                before, size, number, bad, OFFENSE_ACCEPTED if good and not fails else OFFENSE_NOT_GOOD, today,
                self.rules)
            self.records[key] = value
        if system and (more_bad or more_good):
            key = offense_as(system)
            self.records[key] = offense_add_as(self.records.get(key), more_bad, more_good, today, self.rules)
        if <size_t> len(self.records) > self.most:
            self.drop(today)
        return 0

    cdef int drop(self, int today) except -1:
        cdef size_t enough = self.most - self.most // 16
        while <size_t> len(self.records) > enough:
            chunk = list(islice(self.records.items(), LABELED_DROP))
            weighed = sorted([(*offense_summary(value, today, self.rules)[2:], key) for key, value in chunk])
            doomed = {key for _, _, key in weighed[:max(1, len(weighed) // 8)]}
            for key, value in chunk:        # those that stay come last
                del self.records[key]
                if key not in doomed:
                    self.records[key] = value
            self.dropped += len(doomed)
        return 0


cdef int labeled_values(values, int* found) except -1:
    """Settings that are tried at once, the smallest first."""
    cdef int at
    if not 0 < len(values) <= LABELED_LEVELS or list(values) != sorted(values):
        raise ValueError(f"{values}: expected up to {<int> LABELED_LEVELS} values in ascending order")
    for at in range(<int> len(values)):
        found[at] = values[at]
    return <int> len(values)


cdef inline int labeled_day(double time) noexcept nogil:
    return <int> min(max(time / 86400, <double> 0), <double> 0xFFFF)


cdef uint16_t seen_levels(const SeenCounts* counts, const int* least, int least_count, const int* shares,
                          int share_count) noexcept nogil:
    """The evidence for several settings at once. Bit 0: the address is bad. Then, in 3 bits each: for how many values
    of seen_min the network counts; for how many there are enough bad addresses in the AS; and for how many values of
    seen_as_share their share is large enough."""
    cdef uint16_t found = offense_is_bad(counts.near.own_bad, counts.near.own_good)
    cdef int at, network = 0, system = 0, share = 0
    if counts.good:
        return 0
    for at in range(least_count):
        if seen_counts(&counts.near, least[at]) or seen_counts(&counts.wide, least[at]):
            network = at + 1
        if seen_as_counts(&counts.system, least[at], 0):
            system = at + 1
    for at in range(share_count):
        if system and seen_as_counts(&counts.system, 0, shares[at]):
            share = at + 1
    return <uint16_t> (found | network << 1 | system << 4 | share << 7)


cdef int labeled_order(const void* one, const void* other) noexcept nogil:
    cdef const LabeledRow* first = <const LabeledRow*> one
    cdef const LabeledRow* second = <const LabeledRow*> other
    if first.time != second.time:
        return -1 if first.time < second.time else 1
    return -1 if first.number < second.number else first.number > second.number


cdef int labeled_pair_order(const void* one, const void* other) noexcept nogil:
    cdef uint64_t first = (<const uint64_t*> one)[0]
    cdef uint64_t second = (<const uint64_t*> other)[0]
    return -1 if first < second else first > second
