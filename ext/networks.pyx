# Access tables in Postfix's cidr_table(5) format.
#
# Each rule becomes the ranges of addresses that it matches (`!` and `if` are intersections of ranges) and its position
# in the file. A sweep over the ends of the ranges, with a heap of the open ones, then cuts the address space into
# segments with one result each, so that a lookup is one binary search, however long the table and deep its nesting.

cdef enum:
    IF_DEPTH = 32               # deeper blocks are rejected: each level may split every rule in it once more
    RANGES_MAX = 1 << 22        # of one address family; 200 MB while they are compiled
    WARNINGS_MAX = 100          # a file that is not a table must not flood the log
    QUOTE_MAX = 60              # bytes of a bad line in a warning


cdef inline bint _is_space(char octet) noexcept nogil:
    return octet == 32 or 9 <= octet <= 13


cdef inline bint _keyword(const char* line, const char* word, size_t size) noexcept nogil:
    """Whether the line starts with this word, case-insensitively, and not with a longer one."""
    cdef char after
    if strncasecmp(line, word, size):
        return False
    after = line[size] | 32
    return not (c"a" <= after <= c"z" or c"0" <= line[size] <= c"9")


cdef inline bint _below(Ip one, Ip other) noexcept nogil:
    return one.high < other.high or (one.high == other.high and one.low < other.low)


cdef inline Ip _following(Ip ip) noexcept nogil:
    ip.low += 1
    if ip.low == 0:
        ip.high += 1
    return ip


cdef inline Ip _preceding(Ip ip) noexcept nogil:
    if ip.low == 0:
        ip.high -= 1
    ip.low -= 1
    return ip


cdef inline uint64_t _low_bits(int count) noexcept nogil:
    """A number whose lowest `count` bits are set; 0 and less: none, 64 and more: all."""
    if count <= 0:
        return 0
    return (<uint64_t> 0xFFFFFFFFFFFFFFFF) >> (64 - min(count, 64))


cdef inline Ip _ip(const uint8_t* octets, int size) noexcept nogil:
    """An address in network byte order, of 4 or 16 bytes, as a number."""
    cdef Ip ip
    cdef int at
    ip.high = ip.low = 0
    for at in range(size):
        ip.high = ip.high << 8 | ip.low >> 56
        ip.low = ip.low << 8 | octets[at]
    return ip


cdef inline Ip _last_ip(uint8_t family) noexcept nogil:
    cdef Ip ip
    ip.high = _low_bits(64 if family == 6 else 0)
    ip.low = _low_bits(64 if family == 6 else 32)
    return ip


cdef str _quoted(const char* text):
    """A part of the file in a form that is safe in a log or on a terminal."""
    cdef bytes piece = text
    cdef str shown = repr(piece[:QUOTE_MAX])
    return f'"{shown[2:len(shown) - 1]}{"..." if len(piece) > QUOTE_MAX else ""}"'


cdef int _compare_first(const void* one, const void* other) noexcept nogil:
    cdef const NetworkRange* left = <const NetworkRange*> one
    cdef const NetworkRange* right = <const NetworkRange*> other
    return _below(right.first, left.first) - _below(left.first, right.first)


cdef void _heap_push(NetworkRange** heap, Py_ssize_t size, NetworkRange* item) noexcept nogil:
    """Add to a binary heap of `size` ranges, the earliest rule on top."""
    cdef Py_ssize_t at = size
    while at > 0 and item.rule < heap[(at - 1) // 2].rule:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = item


cdef void _heap_pop(NetworkRange** heap, Py_ssize_t size) noexcept nogil:
    """Remove the top of a heap of `size` ranges."""
    cdef NetworkRange* item = heap[size - 1]
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t child = 1
    while child < size - 1:
        if child + 1 < size - 1 and heap[child + 1].rule < heap[child].rule:
            child += 1
        if item.rule <= heap[child].rule:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = item


cdef Py_ssize_t _sweep(
    NetworkRange* ranges, Py_ssize_t count, Ip last, NetworkRange** heap, Ip* firsts, int32_t* results
) noexcept nogil:
    """Cut the address space 0..last into segments with one result each; return their number, at most 2 * count + 1.

    `heap` has room for `count` pointers. The ranges are sorted in place.
    """
    cdef Py_ssize_t opened = 0
    cdef Py_ssize_t open_now = 0
    cdef Py_ssize_t segments = 0
    cdef int32_t result
    cdef Ip at, stop
    at.high = at.low = 0
    if count:
        qsort(ranges, count, sizeof(NetworkRange), _compare_first)
    while True:
        while opened < count and not _below(at, ranges[opened].first):
            _heap_push(heap, open_now, ranges + opened)
            open_now += 1
            opened += 1
        # A range below the top may have ended as well: it is dropped when it gets to the top, and has no effect before.
        while open_now and _below(heap[0].last, at):
            _heap_pop(heap, open_now)
            open_now -= 1
        if open_now:
            result = heap[0].result
            stop = heap[0].last
        else:
            result = -1
            stop = last
        if segments == 0 or results[segments - 1] != result:
            firsts[segments] = at
            results[segments] = result
            segments += 1
        if opened < count and not _below(stop, ranges[opened].first):
            at = ranges[opened].first
        elif _below(stop, last):
            at = _following(stop)
        else:
            return segments


@cython.final
@cython.internal
cdef class NetworkReader:
    """Reads the text of a table into ranges; exists only while a NetworkTable is created."""

    cdef const char* text
    cdef Py_ssize_t size
    cdef Py_ssize_t at              # of the first physical line not yet read
    cdef Py_ssize_t lines           # physical lines read
    cdef char* line                 # the current logical line, NUL-terminated
    cdef Py_ssize_t line_size
    cdef Py_ssize_t line_number     # where it starts, from 1
    cdef NetworkScope[IF_DEPTH + 1] scopes  # 0: outside every if
    cdef Py_ssize_t depth
    cdef NetworkRanges ipv4
    cdef NetworkRanges ipv6
    cdef int32_t rules
    cdef str source
    cdef list results
    cdef dict result_numbers
    cdef list warnings
    cdef Py_ssize_t unshown_warnings

    def __cinit__(self, bytes text not None, str source not None):
        self.text = text
        self.size = len(text)
        self.line = <char*> malloc(self.size + 1)
        if self.line == NULL:
            raise MemoryError
        self.source = source
        self.results = []
        self.result_numbers = {}
        self.warnings = []
        self.scopes[0].count = 1
        self.scopes[0].firsts[0].high = self.scopes[0].firsts[0].low = 0
        self.scopes[0].lasts[0] = _last_ip(6)

    def __dealloc__(self):
        free(self.line)
        free(self.ipv4.items)
        free(self.ipv6.items)

    cdef int warn(self, str what, Py_ssize_t line) except -1:
        if len(self.warnings) < WARNINGS_MAX:
            self.warnings.append(f"cidr table {self.source}, line {line}: {what}")
        else:
            self.unshown_warnings += 1
        return 0

    cdef int read(self) except -1:
        cdef Py_ssize_t level
        while self.next_line():
            self.read_line()
        for level in range(1, min(self.depth, <Py_ssize_t> IF_DEPTH) + 1):
            self.warn("if without endif", self.scopes[level].line)
        if self.unshown_warnings:
            self.warnings.append(f"cidr table {self.source}: {self.unshown_warnings} more such warnings")
        return 0

    cdef bint next_line(self) noexcept:
        """Join the next logical line; False at the end of the text.

        A line that starts with white space continues the previous one, also across blank lines and comments.
        """
        cdef Py_ssize_t stop, start
        cdef const char* newline
        self.line_size = 0
        while self.at < self.size:
            newline = <const char*> memchr(self.text + self.at, c"\n", self.size - self.at)
            stop = newline - self.text if newline != NULL else self.size
            start = self.at
            while start < stop and _is_space(self.text[start]):
                start += 1
            if start < stop and self.text[start] != c"#":
                if self.line_size == 0:
                    self.line_number = self.lines + 1
                elif start == self.at:
                    break
                memcpy(self.line + self.line_size, self.text + self.at, stop - self.at)
                self.line_size += stop - self.at
            self.at = stop + 1
            self.lines += 1
        while self.line_size and _is_space(self.line[self.line_size - 1]):
            self.line_size -= 1
        self.line[self.line_size] = 0
        return self.line_size > 0

    cdef int read_line(self) except -1:
        cdef char* at = self.line
        cdef char* pattern
        cdef bint negated = False
        cdef bint is_if
        if memchr(at, 0, self.line_size) != NULL:
            return self.warn("NUL in a line: line skipped", self.line_number)
        if _is_space(at[0]):
            return self.warn(f"white space before the first rule, {_quoted(at)}: line skipped", self.line_number)
        if _keyword(at, b"endif", 5):
            if at[5]:
                return self.warn(f"text after endif, {_quoted(at + 5)}: line skipped", self.line_number)
            if self.depth == 0:
                return self.warn("endif without if: line skipped", self.line_number)
            self.depth -= 1
            return 0
        is_if = _keyword(at, b"if", 2)
        if is_if:
            at += 2
        while at[0] == c"!" or _is_space(at[0]):
            negated ^= at[0] == c"!"
            at += 1
        pattern = at
        if is_if:
            return self.open_if(pattern, negated)
        while at[0] and not _is_space(at[0]):
            at += 1
        while _is_space(at[0]):
            at[0] = 0
            at += 1
        return self.add_rule(pattern, negated, at)

    cdef int open_if(self, char* pattern, bint negated) except -1:
        cdef NetworkScope own
        if self.depth < IF_DEPTH:
            if not self.read_pattern(pattern, negated, &own):
                return 0
            self.narrow(&own, self.scopes + self.depth, self.scopes + self.depth + 1)
            self.scopes[self.depth + 1].line = self.line_number
        elif self.depth == IF_DEPTH:
            self.warn(f"if nested deeper than {<int> IF_DEPTH} levels: skipped up to its endif", self.line_number)
        self.depth += 1
        return 0

    cdef int add_rule(self, char* pattern, bint negated, const char* result) except -1:
        cdef NetworkScope own, answered
        cdef NetworkRanges* ranges
        cdef NetworkRange* items
        cdef int32_t number
        cdef int part
        if self.depth > IF_DEPTH or not self.read_pattern(pattern, negated, &own):
            return 0
        if result[0] == 0:
            return self.warn(f"no result after {_quoted(pattern)}: line skipped", self.line_number)
        self.narrow(&own, self.scopes + self.depth, &answered)
        ranges = &self.ipv6 if own.family == 6 else &self.ipv4
        if ranges.count + answered.count > ranges.capacity:
            if ranges.capacity >= RANGES_MAX:
                return self.warn(f"more than {<int> RANGES_MAX} networks: line skipped", self.line_number)
            ranges.capacity = max(2 * ranges.capacity, <Py_ssize_t> 256)
            items = <NetworkRange*> realloc(ranges.items, ranges.capacity * sizeof(NetworkRange))
            if items == NULL:
                raise MemoryError
            ranges.items = items
        number = self.result_number(result)
        for part in range(answered.count):
            ranges.items[ranges.count].first = answered.firsts[part]
            ranges.items[ranges.count].last = answered.lasts[part]
            ranges.items[ranges.count].rule = self.rules
            ranges.items[ranges.count].result = number
            ranges.count += 1
        self.rules += 1
        return 0

    cdef int32_t result_number(self, const char* result) except -1:
        cdef bytes text = result
        number = self.result_numbers.get(text)
        if number is None:
            number = self.result_numbers[text] = len(self.results)
            self.results.append(text.decode("utf-8", "surrogateescape"))
        return number

    cdef void narrow(self, const NetworkScope* own, const NetworkScope* scope, NetworkScope* both) noexcept:
        """Intersect the addresses that a pattern matches with those that the enclosing blocks match.

        Prefixes are nested or disjoint: a pattern adds at most one range to those of its scope (IF_DEPTH + 2 in all).
        """
        cdef int mine, outer
        cdef Ip first, last
        both.family = own.family
        both.count = 0
        if scope.family and scope.family != own.family:
            return
        for mine in range(own.count):
            for outer in range(scope.count):
                first = scope.firsts[outer] if _below(own.firsts[mine], scope.firsts[outer]) else own.firsts[mine]
                last = scope.lasts[outer] if _below(scope.lasts[outer], own.lasts[mine]) else own.lasts[mine]
                if not _below(last, first):
                    both.firsts[both.count] = first
                    both.lasts[both.count] = last
                    both.count += 1

    cdef bint read_pattern(self, char* pattern, bint negated, NetworkScope* own) except -1:
        """Read ADDRESS, NETWORK/LENGTH or [NETWORK]/LENGTH in place; warn and return False for any other text."""
        cdef Address address
        cdef char* mark
        cdef uint8_t family
        cdef int width
        cdef int length
        cdef Ip first, host_bits, last
        if pattern[0] == 0:
            self.warn("no address or network: line skipped", self.line_number)
            return False
        if pattern[0] == c"[":
            mark = strchr(pattern, c"]")
            if mark == NULL or (mark[1] != 0 and mark[1] != c"/"):
                self.warn(f"{_quoted(pattern)} is not [address] or [network]/length: line skipped", self.line_number)
                return False
            memmove(pattern, pattern + 1, mark - pattern - 1)
            memmove(mark - 1, mark + 1, strlen(mark + 1) + 1)
        family = 6 if strchr(pattern, c":") != NULL else 4
        width = 128 if family == 6 else 32
        mark = strchr(pattern, c"/")
        length = width
        if mark != NULL:
            length = self.read_length(mark + 1)
            if length < 0 or length > width:
                self.warn(f"prefix length in {_quoted(pattern)} is not 0 to {width}: line skipped", self.line_number)
                return False
            mark[0] = 0
        memset(&address, 0, sizeof(Address))
        if inet_pton(AF_INET6 if family == 6 else AF_INET, pattern, address.ip) != 1:
            self.warn(f"{_quoted(pattern)} is not an IPv4 or IPv6 address: line skipped", self.line_number)
            return False
        first = _ip(address.ip, width // 8)
        host_bits.high = _low_bits(width - length - 64)
        host_bits.low = _low_bits(width - length)
        if first.high & host_bits.high or first.low & host_bits.low:
            self.warn(f"bits set behind the prefix of {_quoted(pattern)}/{length}: line skipped", self.line_number)
            return False
        last.high = first.high | host_bits.high
        last.low = first.low | host_bits.low
        own.family = family
        own.count = 0
        if not negated:
            own.firsts[0] = first
            own.lasts[0] = last
            own.count = 1
            return True
        # Negated, it still matches addresses of its own family only (as seen with Postfix).
        if first.high or first.low:
            own.firsts[0].high = own.firsts[0].low = 0
            own.lasts[0] = _preceding(first)
            own.count = 1
        if _below(last, _last_ip(family)):
            own.firsts[own.count] = _following(last)
            own.lasts[own.count] = _last_ip(family)
            own.count += 1
        return True

    cdef int read_length(self, const char* digits) noexcept:
        """The number in a text of decimal digits, leading zeros included; -1 for other texts, and from 1,000 on."""
        cdef int length = 0
        if digits[0] == 0:
            return -1
        while digits[0]:
            if not c"0" <= digits[0] <= c"9" or length > 99:
                return -1
            length = length * 10 + digits[0] - 48
            digits += 1
        return length


# ---- segments of the address space

cdef int segments_compile(NetworkSegments* segments, const NetworkRanges* ranges, uint8_t family) except -1:
    """Fill those of one address family, once. Other threads may run, so clients do not wait for a reload."""
    cdef Py_ssize_t count = ranges.count
    cdef Py_ssize_t found, at
    cdef NetworkRange** heap = <NetworkRange**> malloc((count + 1) * sizeof(NetworkRange*))
    cdef Ip* firsts = <Ip*> malloc((2 * count + 1) * sizeof(Ip))
    cdef int32_t* results = <int32_t*> malloc((2 * count + 1) * sizeof(int32_t))
    cdef uint32_t* ipv4_firsts = NULL
    if family == 4:
        ipv4_firsts = <uint32_t*> malloc((2 * count + 1) * sizeof(uint32_t))
    if heap == NULL or firsts == NULL or results == NULL or (family == 4 and ipv4_firsts == NULL):
        free(heap)
        free(firsts)
        free(results)
        free(ipv4_firsts)
        raise MemoryError
    with nogil:
        found = _sweep(ranges.items, count, _last_ip(family), heap, firsts, results)
        free(heap)
        if family == 4:
            for at in range(found):
                ipv4_firsts[at] = <uint32_t> firsts[at].low
            free(firsts)
    if family == 4:
        segments.ipv4_firsts = ipv4_firsts
        segments.ipv4_results = results
        segments.ipv4_count = found
    else:
        segments.ipv6_firsts = firsts
        segments.ipv6_results = results
        segments.ipv6_count = found
    return 0


cdef inline int32_t segments_find(const NetworkSegments* segments, const Address* address) noexcept nogil:
    """The result of the segment that an address is in, or -1."""
    cdef Py_ssize_t base = 0
    cdef Py_ssize_t count, half
    cdef Ip ip
    cdef uint32_t ipv4
    if address.family == 4:
        ipv4 = <uint32_t> _ip(address.ip, 4).low
        count = segments.ipv4_count
        while count > 1:
            half = count // 2
            if segments.ipv4_firsts[base + half] <= ipv4:
                base += half
            count -= half
        return segments.ipv4_results[base]
    ip = _ip(address.ip, 16)
    count = segments.ipv6_count
    while count > 1:
        half = count // 2
        if not _below(ip, segments.ipv6_firsts[base + half]):
            base += half
        count -= half
    return segments.ipv6_results[base]


cdef void segments_free(NetworkSegments* segments) noexcept:
    free(segments.ipv4_firsts)
    free(segments.ipv4_results)
    free(segments.ipv6_firsts)
    free(segments.ipv6_results)


@cython.final
cdef class NetworkTable:
    def __cinit__(self, bytes text not None, str source not None):
        reader = NetworkReader(text, source)
        reader.read()
        self.rules = reader.rules
        self.results = reader.results
        self.warnings = reader.warnings
        segments_compile(&self.segments, &reader.ipv4, 4)
        segments_compile(&self.segments, &reader.ipv6, 6)

    def __dealloc__(self):
        segments_free(&self.segments)

    cdef int32_t find(self, const Address* address) noexcept nogil:
        """Index into `results` of the first rule that matches, or -1."""
        return segments_find(&self.segments, address)

    def lookup(self, str address not None):
        cdef Address parsed
        cdef bytes text = address.encode("utf-8", "replace")
        cdef int32_t found
        if <size_t> len(text) != strlen(text) or not address_parse(text, &parsed):
            return None
        found = self.find(&parsed)
        return self.results[found] if found >= 0 else None

    def __len__(self):
        return self.rules
