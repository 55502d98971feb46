# Which recorded sessions a filter chooses (fastscreen/history/filter.py): the terms, compiled, on the packed records of
# a database, before anything is made of them in Python.

cdef enum HistoryField:
    HISTORY_CLIENT          # networks: family, first, last
    HISTORY_SERVER
    HISTORY_SCORE           # numbers: operator, value
    HISTORY_LASTED
    HISTORY_COMMANDS
    HISTORY_RECIPIENTS
    HISTORY_PORT
    HISTORY_WORKER
    HISTORY_STAGE           # one of several: value has a bit for each
    HISTORY_OUTCOME
    HISTORY_TLS_USE
    HISTORY_FOUND           # sets: one of the bits of value
    HISTORY_MADE
    HISTORY_EVIDENCE
    HISTORY_MARK
    HISTORY_FAILED          # the same, and value_of_marks
    HISTORY_VERDICT         # codes: ranges
    HISTORY_REPLY
    HISTORY_SPARED
    HISTORY_MTA
    HISTORY_LIST            # patterns: they become bits for each number of settings
    HISTORY_HELO            # text
    HISTORY_TEXT

cdef enum:
    HISTORY_RANGES = 16     # of one term
    HISTORY_TERM_TEXT = 64  # bytes

cdef dict HISTORY_FIELD_NUMBERS = {
    "client": HISTORY_CLIENT, "server": HISTORY_SERVER, "score": HISTORY_SCORE, "lasted": HISTORY_LASTED,
    "commands": HISTORY_COMMANDS, "recipients": HISTORY_RECIPIENTS, "port": HISTORY_PORT, "worker": HISTORY_WORKER,
    "stage": HISTORY_STAGE, "outcome": HISTORY_OUTCOME, "tls": HISTORY_TLS_USE, "found": HISTORY_FOUND,
    "made": HISTORY_MADE, "evidence": HISTORY_EVIDENCE, "mark": HISTORY_MARK, "failed": HISTORY_FAILED,
    "verdict": HISTORY_VERDICT, "reply": HISTORY_REPLY, "spared": HISTORY_SPARED, "mta": HISTORY_MTA,
    "list": HISTORY_LIST, "helo": HISTORY_HELO, "text": HISTORY_TEXT}


cdef struct HistoryTerm:
    HistoryField field
    FilterOperator operator
    bint negated
    int family
    int length              # of text; number of ranges
    int64_t value
    uint32_t value_of_marks
    uint32_t settings       # those for which value has the bits of a list term; 0: none yet
    uint8_t[16] first
    uint8_t[16] last
    uint16_t[HISTORY_RANGES] low
    uint16_t[HISTORY_RANGES] high
    char[HISTORY_TERM_TEXT] text


@cython.final
cdef class HistoryFilter:
    """A conjunction of terms on recorded sessions, compiled (see core.pyi)."""

    cdef HistoryTerm terms[TERMS]
    cdef int count
    cdef list patterns          # of list terms, by term
    cdef dict masks             # of list terms, by term and settings
    cdef object lists
    cdef readonly uint64_t unreadable

    def __init__(self, terms=(), lists=None):
        if len(terms) > TERMS:
            raise ValueError(f"more than {<int> TERMS} terms")
        self.patterns = []
        self.masks = {}
        self.lists = lists
        for field, operator, value, negated in terms:
            self.patterns.append(value)
            self.add(&self.terms[self.count], field, operator, value, negated)
            self.count += 1

    cdef add(self, HistoryTerm* term, str field, str operator, value, bint negated):
        cdef bytes text
        memset(term, 0, sizeof(HistoryTerm))
        term.field = <HistoryField> <int> HISTORY_FIELD_NUMBERS[field]
        term.operator = {"=": EQUAL, "<": BELOW, "<=": AT_MOST, ">": ABOVE, ">=": AT_LEAST}[operator]
        term.negated = negated
        if term.field <= HISTORY_SERVER:
            term.family, first, last = value
            memcpy(term.first, <const char*> <bytes> first, 16)
            memcpy(term.last, <const char*> <bytes> last, 16)
        elif term.field < HISTORY_FAILED:
            term.value = value
        elif term.field == HISTORY_FAILED:
            term.value, term.value_of_marks = value
        elif term.field < HISTORY_LIST:
            if len(value) > HISTORY_RANGES:
                raise ValueError(f"{field}: more than {<int> HISTORY_RANGES} codes")
            for low, high in value:
                term.low[term.length] = low
                term.high[term.length] = high
                term.length += 1
        elif term.field > HISTORY_LIST:
            text = value
            if len(text) > HISTORY_TERM_TEXT:
                raise ValueError(f"{field}: longer than {<int> HISTORY_TERM_TEXT} bytes")
            term.length = len(text)
            memcpy(term.text, <const char*> text, term.length)

    def chosen(self, list rows):
        """The rows that match."""
        cdef HistoryRecord record
        cdef bytes client, packed
        cdef list found = []
        for row in rows:
            _, address, text = <tuple> row
            if type(address) is not bytes or type(text) is not bytes:
                self.unreadable += 1        # a damaged file
                continue
            client, packed = address, text
            # no term is about the time: that is a range of numbers
            if not history_unpack_into(&record, 0, <const uint8_t*> <const char*> client, len(client),
                                       <const uint8_t*> <const char*> packed, len(packed)):
                self.unreadable += 1
            elif self.matches(&record):
                found.append(row)
        return found

    cdef bint matches(self, const HistoryRecord* record) except -1:
        cdef HistoryTerm* term
        cdef bint found
        cdef int at
        for at in range(self.count):
            term = &self.terms[at]
            if term.field == HISTORY_LIST:
                if term.settings != record.settings or term.settings == 0:
                    term.value = <int64_t> self.lists_of(at, record.settings)
                    term.settings = record.settings
                found = ((record.listed | record.doubtful) & <uint64_t> term.value) != 0
            else:
                found = history_term_matches(term, record)
            if found == term.negated:       # both are 0 or 1
                return False
        return True

    cdef uint64_t lists_of(self, int at, uint32_t settings) except? 0:
        """The lists of a list term, one bit each, as these settings number them."""
        cdef uint64_t mask
        known = self.masks.get((at, settings))
        if known is None:
            known = self.lists(self.patterns[at], settings)
            self.masks[at, settings] = known
        mask = known
        return mask


cdef bint history_term_matches(const HistoryTerm* term, const HistoryRecord* record) noexcept nogil:
    """1 or 0, for all terms but those on lists."""
    cdef int64_t value
    cdef int at
    if term.field == HISTORY_CLIENT:
        return history_in_network(term, record.family, record.client)
    if term.field == HISTORY_SERVER:
        return history_in_network(term, record.family, record.server)
    if term.field < HISTORY_STAGE:
        if term.field == HISTORY_SCORE:
            if record.score == NO_SCORE:
                return False
            value = record.score
        elif term.field == HISTORY_LASTED:
            value = record.ended - record.began
        elif term.field == HISTORY_COMMANDS:
            value = record.commands
        elif term.field == HISTORY_RECIPIENTS:
            value = record.recipients
        elif term.field == HISTORY_PORT:
            value = record.client_port
        else:
            value = record.worker
        return history_compares(term, value)
    if term.field < HISTORY_FOUND:
        at = (record.stage if term.field == HISTORY_STAGE else record.outcome if term.field == HISTORY_OUTCOME
              else record.tls)
        return at < 63 and (term.value >> at & 1) != 0
    if term.field == HISTORY_FOUND:
        return (term.value & record.found) != 0
    if term.field == HISTORY_MADE:
        return (term.value & record.made) != 0
    if term.field == HISTORY_EVIDENCE:
        return (term.value & record.evidence) != 0
    if term.field == HISTORY_MARK:
        return (term.value & record.marks) != 0
    if term.field == HISTORY_FAILED:
        return (term.value & record.failed) != 0 or (term.value_of_marks & record.marks) != 0
    if term.field < HISTORY_LIST:
        value = (record.verdict if term.field == HISTORY_VERDICT else record.reply if term.field == HISTORY_REPLY
                 else record.spared if term.field == HISTORY_SPARED else record.mta_reply)
        for at in range(term.length):
            if term.low[at] <= value <= term.high[at]:
                return True
        return False
    if term.field == HISTORY_HELO:
        return glob_matches(term.text, term.length, record.name, record.name_length)
    return text_found(record.name, record.name_length, term.text, term.length)


cdef inline bint history_in_network(const HistoryTerm* term, int family, const uint8_t* address) noexcept nogil:
    return (family == term.family and memcmp(address, term.first, 16) >= 0 and memcmp(address, term.last, 16) <= 0)


cdef inline bint history_compares(const HistoryTerm* term, int64_t value) noexcept nogil:
    if term.operator == EQUAL:
        return value == term.value
    if term.operator == BELOW:
        return value < term.value
    if term.operator == AT_MOST:
        return value <= term.value
    if term.operator == ABOVE:
        return value > term.value
    return value >= term.value


cdef inline char lower(char letter) noexcept nogil:
    return <char> (letter + 32) if c"A" <= letter <= c"Z" else letter


cdef bint glob_matches(const char* pattern, size_t length, const char* text, size_t size) noexcept nogil:
    """Whether the whole text matches a pattern with `*` (any text) and `?` (any byte), case-insensitively.

    Only the last `*` is tried again, so the time is at most length times size.
    """
    cdef size_t at = 0, used = 0, again = 0, after = 0
    cdef bint starred = False
    while used < size:
        if at < length and pattern[at] == c"*":
            starred = True
            at += 1
            after = at
            again = used
        elif at < length and (pattern[at] == c"?" or lower(pattern[at]) == lower(text[used])):
            at += 1
            used += 1
        elif starred:
            again += 1
            used = again
            at = after
        else:
            return False
    while at < length and pattern[at] == c"*":
        at += 1
    return at == length
