# What the history keeps of a session: the record in memory, its packed form on disk, and both as a tuple for Python.
#
# Packed: the version, then a set of the numbers that are not 0 (a variable-length number, bit i for field i of
# HISTORY_NUMBERS), these numbers, the server's address if bit 0 of the next byte is set, the HELO name. The client's
# address and the time of the end are columns of their own in the database (fastscreen/history/day.py).
#
# A variable-length number has seven bits per byte, the lowest first; the highest bit says that more follow. Signed
# numbers are folded: 0, -1, 1, -2 ...
#
# `settings` is a number that stands for all settings which a verdict depends on: the first four bytes of the BLAKE2b
# hash of their description (fastscreen/history/settings.py), never 0.

cdef enum:
    HISTORY_VERSION = 1
    HISTORY_PACKED = 512            # bytes, at most

HISTORY_OUTCOMES = ("left", "handed_off", "relayed", "continued", "deferred", "rejected", "busy", "failed")
HISTORY_TLS = ("none", "unused", "used", "1.2", "1.3", "failed")
HISTORY_MARKS = (
    "allowlisted", "denylisted", "cached", "shared", "bypassed", "vetoed", "spared", "unsure", "new", "passed",
    "hung_up", "esmtp", "lists_allow", "lists_judged", "unsettled", "answers_cut", "lists_cut", "time_limit",
    "count_limit", "length_limit", "client_limit", "server_ports", "screening_ports", "rate_limit", "turned_away",
    "stress", "score_deferred", "doubtful", "slowed")

# The numbers of the packed form, in the order of their bits; that order is the format. New ones go to the end.
HISTORY_NUMBERS = (
    "lasted", "listed", "doubtful", "silent", "unasked", "client_port", "server_port", "worker", "proxied", "stage",
    "outcome", "tls", "needed", "made", "found", "failed", "reply", "verdict", "spared", "mta_reply", "mta_accepted",
    "mta_rejected", "commands", "recipients", "settings", "marks", "evidence", "score", "lists_total", "lists_lowest",
    "lists_highest", "pass_seconds", "weight", "dialect", "syn_ip", "syn_tcp", "syn_options", "mta_recipients",
    "mta_refused")
cdef enum:
    HISTORY_NUMBER_COUNT = 39
HISTORY_FIELDS = ("ended", "client", *HISTORY_NUMBERS, "answers", "server", "name")


cdef void history_numbers(const HistoryRecord* record, uint64_t* number) noexcept nogil:
    """The numbers of a record, HISTORY_NUMBER_COUNT of them, in order."""
    number[0] = <uint64_t> max(0, record.ended - record.began)
    number[1] = record.listed
    number[2] = record.doubtful
    number[3] = record.silent
    number[4] = record.unasked
    number[5] = record.client_port
    number[6] = record.server_port
    number[7] = record.worker
    number[8] = record.proxied
    number[9] = record.stage
    number[10] = record.outcome
    number[11] = record.tls
    number[12] = record.needed
    number[13] = record.made
    number[14] = record.found
    number[15] = record.failed
    number[16] = record.reply
    number[17] = record.verdict
    number[18] = record.spared
    number[19] = record.mta_reply
    number[20] = record.mta_accepted
    number[21] = record.mta_rejected
    number[22] = record.commands
    number[23] = record.recipients
    number[24] = record.settings
    number[25] = record.marks
    number[26] = record.evidence
    number[27] = 0 if record.score == NO_SCORE else 1 + fold(record.score)
    number[28] = fold(record.lists_total)
    number[29] = fold(record.lists_lowest)
    number[30] = fold(record.lists_highest)
    number[31] = record.pass_seconds
    number[32] = record.weight - 1      # 0 wraps, and comes back
    number[33] = record.dialect
    number[34] = record.syn[0]
    number[35] = record.syn[1]
    number[36] = record.syn[2]
    number[37] = record.mta_recipients
    number[38] = record.mta_refused


cdef void history_take(HistoryRecord* record, const uint64_t* number) noexcept nogil:
    """The reverse, with `ended` in place. Numbers that do not fit lose their upper bits."""
    record.began = record.ended - <int64_t> number[0]
    record.listed = number[1]
    record.doubtful = number[2]
    record.silent = number[3]
    record.unasked = number[4]
    record.client_port = <uint16_t> number[5]
    record.server_port = <uint16_t> number[6]
    record.worker = <uint8_t> number[7]
    record.proxied = <uint8_t> number[8]
    record.stage = <uint8_t> number[9]
    record.outcome = <uint8_t> number[10]
    record.tls = <uint8_t> number[11]
    record.needed = <uint16_t> number[12]
    record.made = <uint16_t> number[13]
    record.found = <uint16_t> number[14]
    record.failed = <uint16_t> number[15]
    record.reply = <uint16_t> number[16]
    record.verdict = <uint16_t> number[17]
    record.spared = <uint16_t> number[18]
    record.mta_reply = <uint16_t> number[19]
    record.mta_accepted = <uint16_t> number[20]
    record.mta_rejected = <uint16_t> number[21]
    record.commands = <uint16_t> number[22]
    record.recipients = <uint16_t> number[23]
    record.settings = <uint32_t> number[24]
    record.marks = <uint32_t> number[25]
    record.evidence = <uint32_t> number[26]
    record.score = NO_SCORE if number[27] == 0 else <int32_t> unfold(number[27] - 1)
    record.lists_total = <int32_t> unfold(number[28])
    record.lists_lowest = <int32_t> unfold(number[29])
    record.lists_highest = <int32_t> unfold(number[30])
    record.pass_seconds = <uint32_t> number[31]
    record.weight = <uint32_t> (number[32] + 1)
    record.dialect = <uint32_t> number[33]
    record.syn[0] = <uint32_t> number[34]
    record.syn[1] = <uint32_t> number[35]
    record.syn[2] = <uint32_t> number[36]
    record.mta_recipients = <uint16_t> number[37]
    record.mta_refused = <uint16_t> number[38]


cdef inline uint64_t fold(int64_t number) noexcept nogil:
    return (<uint64_t> number << 1) ^ <uint64_t> (number >> 63)


cdef inline int64_t unfold(uint64_t number) noexcept nogil:
    return <int64_t> (number >> 1) ^ -<int64_t> (number & 1)


cdef inline size_t varint_write(uint8_t* at, uint64_t number) noexcept nogil:
    cdef size_t size = 0
    while number > 0x7F:
        at[size] = <uint8_t> (number & 0x7F | 0x80)
        number >>= 7
        size += 1
    at[size] = <uint8_t> number
    return size + 1


cdef inline const uint8_t* varint_read(const uint8_t* at, const uint8_t* end, uint64_t* number) noexcept nogil:
    """Read a number; return where it ends, or NULL if it is cut or longer than 64 bits."""
    cdef int shift = 0
    number[0] = 0
    while at < end and shift < 64:
        number[0] |= <uint64_t> (at[0] & 0x7F) << shift
        if at[0] < 0x80:
            return at + 1
        at += 1
        shift += 7
    return NULL


cdef size_t history_pack(const HistoryRecord* record, uint8_t* packed) noexcept nogil:
    """Write the packed form into HISTORY_PACKED bytes; return its length."""
    cdef uint64_t[HISTORY_NUMBER_COUNT] number
    cdef uint64_t present = 0
    cdef uint8_t* at = packed
    cdef int index
    cdef size_t ip_size = 4 if record.family == 4 else 16
    cdef int answers = min(record.answer_count, <int> HISTORY_ANSWERS)
    cdef size_t name = min(<size_t> record.name_length, <size_t> HISTORY_NAME)
    history_numbers(record, number)
    for index in range(HISTORY_NUMBER_COUNT):
        if number[index]:
            present |= <uint64_t> 1 << index
    at[0] = HISTORY_VERSION
    at += 1
    at += varint_write(at, present)
    for index in range(HISTORY_NUMBER_COUNT):
        if number[index]:
            at += varint_write(at, number[index])
    at[0] = <uint8_t> answers
    at += 1
    memcpy(at, record.answers, 4 * answers)
    at += 4 * answers
    memcpy(at, record.server, ip_size)
    at += ip_size
    memcpy(at, record.name, name)
    return at + name - packed


cdef bint history_unpack_into(HistoryRecord* record, int64_t ended, const uint8_t* client, size_t client_size,
                              const uint8_t* at, size_t size) noexcept nogil:
    """Read a packed record. False: it is not one of this version."""
    cdef const uint8_t* end = at + size
    cdef uint64_t[HISTORY_NUMBER_COUNT] number
    cdef uint64_t present
    cdef int index
    memset(record, 0, sizeof(HistoryRecord))
    if size < 2 or at[0] != HISTORY_VERSION or client_size not in (4, 16):
        return False
    record.ended = ended
    record.family = 4 if client_size == 4 else 6
    memcpy(record.client, client, client_size)
    at = varint_read(at + 1, end, &present)
    if at == NULL or present >> HISTORY_NUMBER_COUNT:
        return False
    for index in range(HISTORY_NUMBER_COUNT):
        number[index] = 0
        if present >> index & 1:
            at = varint_read(at, end, &number[index])
            if at == NULL:
                return False
    if number[0] >> 62:
        return False
    history_take(record, number)
    if at == end or at[0] > HISTORY_ANSWERS or <size_t> (end - at) < 1 + 4 * <size_t> at[0] + client_size:
        return False
    record.answer_count = at[0]
    at += 1
    memcpy(record.answers, at, 4 * record.answer_count)
    at += 4 * record.answer_count
    memcpy(record.server, at, client_size)
    at += client_size
    if end - at > HISTORY_NAME:
        return False
    record.name_length = <uint8_t> (end - at)
    memcpy(record.name, at, record.name_length)
    return True


cdef tuple history_tuple(const HistoryRecord* record):
    """HISTORY_FIELDS: numbers as they are; score None if unknown; addresses packed; answers as (list, address)."""
    cdef uint64_t[HISTORY_NUMBER_COUNT] number
    cdef int index
    cdef size_t ip_size = 4 if record.family == 4 else 16
    cdef list found = [record.ended, (<const char*> record.client)[:ip_size]]
    history_numbers(record, number)
    for index in range(HISTORY_NUMBER_COUNT):
        found.append(number[index])
    found[2 + 27] = None if record.score == NO_SCORE else record.score
    found[2 + 28] = record.lists_total
    found[2 + 29] = record.lists_lowest
    found[2 + 30] = record.lists_highest
    found[2 + 32] = record.weight
    found.append(tuple([(record.answers[index] >> 24, 127 << 24 | record.answers[index] & 0xFFFFFF)
                        for index in range(record.answer_count)]))
    found.append((<const char*> record.server)[:ip_size])
    found.append(record.name[:record.name_length])
    return tuple(found)


def history_read(int64_t ended, bytes client, bytes packed):
    cdef HistoryRecord record
    if not history_unpack_into(&record, ended, <const uint8_t*> <const char*> client, len(client),
                               <const uint8_t*> <const char*> packed, len(packed)):
        return None
    return history_tuple(&record)


def history_write(fields):
    cdef HistoryRecord record
    cdef uint8_t[HISTORY_PACKED] packed
    cdef uint64_t[HISTORY_NUMBER_COUNT] number
    cdef int index
    cdef bytes client, server, name
    values = dict(zip(HISTORY_FIELDS, fields, strict=True))
    client, server, name = values["client"], values["server"], values["name"]
    if len(client) not in (4, 16) or len(server) != len(client):
        raise ValueError("an address is packed, in 4 or 16 bytes, and both are of one family")
    if len(name) > HISTORY_NAME or len(values["answers"]) > HISTORY_ANSWERS:
        raise ValueError(f"a name of over {<int> HISTORY_NAME} bytes, or over {<int> HISTORY_ANSWERS} answers")
    memset(&record, 0, sizeof(record))
    record.ended = values["ended"]
    record.family = 4 if len(client) == 4 else 6
    memcpy(record.client, <const char*> client, len(client))
    memcpy(record.server, <const char*> server, len(server))
    record.name_length = <uint8_t> len(name)
    memcpy(record.name, <const char*> name, len(name))
    for index, (list_number, address) in enumerate(values["answers"]):
        record.answers[index] = <uint32_t> (list_number << 24 | address & 0xFFFFFF)
    record.answer_count = <uint8_t> len(values["answers"])
    for index, key in enumerate(HISTORY_NUMBERS):
        if key == "score":
            number[index] = 0 if values[key] is None else 1 + fold(<int64_t> values[key])
        elif key in ("lists_total", "lists_lowest", "lists_highest"):
            number[index] = fold(<int64_t> values[key])
        elif key == "weight":
            number[index] = <uint64_t> (<int64_t> values[key] - 1)
        else:
            number[index] = values[key]
    history_take(&record, number)
    return (<char*> packed)[:history_pack(&record, packed)]
