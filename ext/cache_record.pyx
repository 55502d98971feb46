# The cache's records (reference 7.1): five stamps as a msgpack array. Read and written here in the one form that
# fastscreen writes; whatever else a record may be is fastscreen/cache/writer.py's affair.

cdef enum:
    RECORD_SIZE = 1 + TESTS * 9     # octets, at most


cdef bint record_read(const uint8_t* at, size_t size, int64_t* stamps) noexcept nogil:
    """Five stamps from an array of five unsigned integers with nothing behind it. False: it is something else."""
    cdef const uint8_t* end = at + size
    cdef uint64_t number
    cdef int test, width
    if size == 0 or at[0] != 0x90 + TESTS:
        return False
    at += 1
    for test in range(TESTS):
        if at == end:
            return False
        number = at[0]
        at += 1
        if number > 0x7F:                       # not the number itself, but how wide it is: cc, cd, ce, cf
            if not 0xCC <= number <= 0xCF:
                return False
            width = 1 << (number - 0xCC)
            if end - at < width:
                return False
            number = 0
            while width:
                number = number << 8 | at[0]
                at += 1
                width -= 1
            if number >> 63:
                return False
        stamps[test] = <int64_t> number
    return at == end


cdef size_t record_write(const int64_t* stamps, uint8_t* record) noexcept nogil:
    """Write the record of five stamps, none negative, into RECORD_SIZE octets; return its length."""
    cdef uint8_t* at = record
    cdef int test, shift
    at[0] = 0x90 + TESTS
    at += 1
    for test in range(TESTS):
        shift = 0
        if stamps[test] > 0x7F:
            shift = 32 if stamps[test] >> 32 == 0 else 64
            at[0] = 0xCE if shift == 32 else 0xCF
            at += 1
        else:
            at[0] = <uint8_t> stamps[test]
            at += 1
        while shift:
            shift -= 8
            at[0] = <uint8_t> (stamps[test] >> shift)
            at += 1
    return at - record


def read_record(bytes record):
    cdef int64_t stamps[TESTS]
    if not record_read(<const uint8_t*> <const char*> record, len(record), stamps):
        return None
    return tuple([stamps[test] for test in range(TESTS)])


def write_record(stamps):
    cdef uint8_t record[RECORD_SIZE]
    cdef int64_t numbers[TESTS]
    cdef int test
    if len(stamps) != TESTS or min(stamps) < 0:
        raise ValueError("a record has five stamps, none negative")
    for test in range(TESTS):
        numbers[test] = stamps[test]
    return (<char*> record)[:record_write(numbers, record)]
