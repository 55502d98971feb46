# The table of autonomous systems that `score.as_file` names: ranges of addresses and the number of the AS that
# announces them. Each line is `first,last,number` or `network/bits,number`; tabs may stand for commas, fields may be
# quoted, and more fields may follow. Where ranges overlap, the smallest counts.

cdef enum:
    AS_LINE = 256               # bytes of a line that are looked at
    AS_BAD_LINES = 5            # that a warning names
    AS_RANGES_MAX = 1 << 22     # of one address family


# What came of a line.
cdef enum AsLine:
    AS_LINE_RANGE
    AS_LINE_SKIPPED             # empty, a comment, or addresses that no AS announces
    AS_LINE_BAD
    AS_LINE_NO_MEMORY


@cython.final
cdef class AsTable:
    """See core.pyi."""

    cdef readonly list warnings
    cdef readonly Py_ssize_t ranges
    cdef NetworkSegments segments   # results: the number of the AS

    def __cinit__(self, bytes text not None, str source not None):
        cdef NetworkRanges ipv4, ipv6
        cdef Py_ssize_t[AS_BAD_LINES] bad
        cdef Py_ssize_t bad_count = 0
        cdef const char* begin = text
        cdef Py_ssize_t size = len(text)
        cdef bint complete
        memset(&ipv4, 0, sizeof(ipv4))
        memset(&ipv6, 0, sizeof(ipv6))
        self.warnings = []
        try:
            with nogil:
                complete = as_read(begin, size, &ipv4, &ipv6, bad, &bad_count)
            if not complete:
                raise MemoryError
            self.ranges = ipv4.count + ipv6.count
            self.compile(&ipv4, 4)
            self.compile(&ipv6, 6)
        finally:
            free(ipv4.items)
            free(ipv6.items)
        if bad_count:
            lines = ", ".join(str(bad[index]) for index in range(min(bad_count, <Py_ssize_t> AS_BAD_LINES)))
            more = ", ..." if bad_count > AS_BAD_LINES else ""
            self.warnings.append(
                f"{source}: {bad_count} line{'' if bad_count == 1 else 's'} ignored ({lines}{more}); expected "
                "first,last,number or network,number")
        if self.ranges == 0:
            self.warnings.append(f"{source}: no AS is known: the file has no line of the form first,last,number or "
                                 "network,number")

    def __dealloc__(self):
        segments_free(&self.segments)

    cdef int compile(self, NetworkRanges* ranges, uint8_t family) except -1:
        cdef Py_ssize_t at
        with nogil:
            if ranges.count:
                qsort(ranges.items, ranges.count, sizeof(NetworkRange), _compare_span)
            for at in range(ranges.count):
                ranges.items[at].rule = <int32_t> at
        return segments_compile(&self.segments, ranges, family)

    cdef uint32_t find(self, const Address* address) noexcept nogil:
        """The number of the AS; 0: not known."""
        cdef int32_t number = segments_find(&self.segments, address)
        return 0 if number == -1 else <uint32_t> number

    def lookup(self, bytes client not None):
        cdef Address address
        if len(client) not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        memset(&address, 0, sizeof(address))
        address.family = 4 if len(client) == 4 else 6
        memcpy(address.ip, <const char*> client, len(client))
        return self.find(&address)

    def __len__(self):
        return self.ranges


cdef int _compare_span(const void* one, const void* other) noexcept nogil:
    """The smaller range first."""
    cdef Ip left = _span(<const NetworkRange*> one)
    cdef Ip right = _span(<const NetworkRange*> other)
    return _below(right, left) - _below(left, right)


cdef inline Ip _span(const NetworkRange* ranges) noexcept nogil:
    cdef Ip span
    span.low = ranges.last.low - ranges.first.low
    span.high = ranges.last.high - ranges.first.high - (ranges.last.low < ranges.first.low)
    return span


cdef bint as_read(const char* at, Py_ssize_t size, NetworkRanges* ipv4, NetworkRanges* ipv6, Py_ssize_t* bad,
                  Py_ssize_t* bad_count) noexcept nogil:
    """Read the lines. bad: the numbers of the first ones that are not of use. False: out of memory."""
    cdef const char* end = at + size
    cdef const char* stop
    cdef char line[AS_LINE]
    cdef Py_ssize_t number = 0
    cdef size_t length
    cdef AsLine what
    cdef bint begun = False     # a first line may name the columns
    while at < end:
        number += 1
        stop = <const char*> memchr(at, c"\n", end - at)
        if stop == NULL:
            stop = end
        length = min(<size_t> (stop - at), <size_t> (AS_LINE - 1))
        memcpy(line, at, length)
        line[length] = 0
        at = stop + 1
        what = as_line(line, ipv4, ipv6)
        if what == AS_LINE_NO_MEMORY:
            return False
        if what == AS_LINE_BAD and begun:
            if bad_count[0] < AS_BAD_LINES:
                bad[bad_count[0]] = number
            bad_count[0] += 1
        begun = begun or what != AS_LINE_SKIPPED
    return True


cdef char* as_field(char** at) noexcept nogil:
    """The next field, without quotes and blanks around it."""
    cdef char* begin = at[0]
    cdef char* end
    while begin[0] in (c" ", c"\""):
        begin += 1
    end = begin
    while end[0] and end[0] not in (c",", c"\t"):
        end += 1
    at[0] = end + 1 if end[0] else end
    while end > begin and (end - 1)[0] in (c" ", c"\"", c"\r"):
        end -= 1
    end[0] = 0
    return begin


cdef int64_t as_decimal(const char* text, int64_t most) noexcept nogil:
    """-1: not a number from 0 to `most`."""
    cdef int64_t number = 0
    if text[0] == 0:
        return -1
    while text[0]:
        if not c"0" <= text[0] <= c"9":
            return -1
        number = 10 * number + text[0] - c"0"
        if number > most:
            return -1
        text += 1
    return number


cdef AsLine as_line(char* at, NetworkRanges* ipv4, NetworkRanges* ipv6) noexcept nogil:
    cdef Address first, last
    cdef NetworkRange found
    cdef NetworkRanges* ranges
    cdef char* network = as_field(&at)
    cdef char* slash
    cdef char* text
    cdef int64_t bits, number
    cdef int most
    if network[0] in (0, c"#"):
        return AS_LINE_SKIPPED
    slash = strchr(network, c"/")
    if slash != NULL:
        slash[0] = 0
    if not address_parse(network, &first):
        return AS_LINE_BAD
    most = 32 if first.family == 4 else 128
    found.first = _ip(first.ip, most // 8)
    if slash != NULL:
        bits = as_decimal(slash + 1, most)
        if bits < 0:
            return AS_LINE_BAD
        found.first.low &= ~_low_bits(<int> (most - bits))
        found.first.high &= ~_low_bits(<int> (most - bits - 64))
        found.last.low = found.first.low | _low_bits(<int> (most - bits))
        found.last.high = found.first.high | _low_bits(<int> (most - bits - 64))
    else:
        if not address_parse(as_field(&at), &last) or last.family != first.family:
            return AS_LINE_BAD
        found.last = _ip(last.ip, most // 8)
        if _below(found.last, found.first):
            return AS_LINE_BAD
    text = as_field(&at)
    if text[0] | 32 == c"a" and text[1] | 32 == c"s":
        text += 2
    number = as_decimal(text, <int64_t> 0xFFFFFFFE)
    if number < 0:
        return AS_LINE_BAD
    if number == 0:
        return AS_LINE_SKIPPED
    found.result = <int32_t> <uint32_t> number
    ranges = ipv4 if first.family == 4 else ipv6
    return AS_LINE_RANGE if as_append(ranges, &found) else AS_LINE_NO_MEMORY


cdef bint as_append(NetworkRanges* ranges, const NetworkRange* found) noexcept nogil:
    cdef NetworkRange* items
    cdef Py_ssize_t capacity = max(2 * ranges.capacity, <Py_ssize_t> 1024)
    if ranges.count == ranges.capacity:
        if ranges.count >= AS_RANGES_MAX:
            return False
        items = <NetworkRange*> realloc(ranges.items, capacity * sizeof(NetworkRange))
        if items == NULL:
            return False
        ranges.items = items
        ranges.capacity = capacity
    ranges.items[ranges.count] = found[0]
    ranges.count += 1
    return True
