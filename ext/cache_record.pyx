# The cache's records (reference 7.1): a stamp for each test, in the order of the table of tests, as a msgpack array.
# This file reads and writes only the form that fastscreen writes; other forms are read by fastscreen/cache/writer.py.
#
# A record may be shorter or longer than the table of tests is now. Stamps that an older version did not write are those
# of disabled tests; stamps of a newer version are skipped. At its end, disabled tests beyond postscreen's five are not
# written, so a record does not grow before a new test is in use, and an older version, which skips them as well, reads
# the others.

cdef enum:
    RECORD_STAMPS = 15              # that a record can have: the maximum of a msgpack array with a header of one byte
    RECORD_LEAST = 5                # and that it has
    RECORD_SIZE = 1 + TEST_COUNT * 9    # bytes, at most
    STAMP_DISABLED = 1


cdef bint record_read(const uint8_t* at, size_t size, int64_t* stamps) noexcept nogil:
    """Read stamps from an array of unsigned integers with nothing after it. False: it is something else."""
    cdef const uint8_t* end = at + size
    cdef uint64_t number
    cdef int count, test, width
    if size == 0 or not 0x90 < at[0] <= 0x90 + RECORD_STAMPS:
        return False
    count = at[0] - 0x90
    at += 1
    for test in range(count):
        if at == end:
            return False
        number = at[0]
        at += 1
        if number > 0x7F:                       # not the number itself, but its width: cc, cd, ce, cf
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
        if test < TEST_COUNT:
            stamps[test] = <int64_t> number
    for test in range(count, TEST_COUNT):
        stamps[test] = STAMP_DISABLED
    return at == end


cdef size_t record_write(const int64_t* stamps, uint8_t* record) noexcept nogil:
    """Write the record of these stamps, none negative, into RECORD_SIZE bytes; return its length."""
    cdef uint8_t* at = record
    cdef int test, shift
    cdef int count = TEST_COUNT
    while count > RECORD_LEAST and stamps[count - 1] == STAMP_DISABLED:
        count -= 1
    at[0] = <uint8_t> (0x90 + count)
    at += 1
    for test in range(count):
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
    cdef int64_t stamps[TEST_COUNT]
    cdef int test
    if not record_read(<const uint8_t*> <const char*> record, len(record), stamps):
        return None
    return tuple([stamps[test] for test in range(TEST_COUNT)])


def write_record(stamps):
    cdef uint8_t record[RECORD_SIZE]
    cdef int64_t numbers[TEST_COUNT]
    cdef int test
    if len(stamps) != TEST_COUNT or min(stamps) < 0:
        raise ValueError(f"a record has {<int> TEST_COUNT} stamps, none negative")
    for test in range(TEST_COUNT):
        numbers[test] = stamps[test]
    return (<char*> record)[:record_write(numbers, record)]
