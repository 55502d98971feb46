# How a client speaks SMTP to the dummy engine, for the history: the case of its words, blanks, brackets, parameters,
# commands and delays. Programs differ in these, whatever they call themselves. Nothing is judged by it.
#
# A record has one number: a bit for each trait, and in the uppermost five bits the class of the median delay between a
# reply and the next command: 0 none, 1 + the number of bits of that delay in µs otherwise. A screener that gathers
# events (batching.pyx) measures up to 10 ms too much.

cdef enum DialectTrait:
    DIALECT_UPPER = 1 << 0          # verbs in upper case
    DIALECT_LOWER = 1 << 1          # in lower case; mixed case is both
    DIALECT_HELO = 1 << 2
    DIALECT_EHLO = 1 << 3
    DIALECT_FALLBACK = 1 << 4       # HELO after EHLO
    DIALECT_STARTTLS = 1 << 5
    DIALECT_CLEAR_MAIL = 1 << 6     # MAIL without TLS
    DIALECT_LABEL = 1 << 7          # "From:" and "To:" are not in upper case
    DIALECT_BLANK = 1 << 8          # a blank after "FROM:" or "TO:"
    DIALECT_NO_BRACKET = 1 << 9     # an address without < before it
    DIALECT_BLANKS = 1 << 10        # more than one blank between two words
    DIALECT_TRAILING = 1 << 11      # a blank at the end of a line
    DIALECT_SIZE = 1 << 12          # parameters of MAIL
    DIALECT_BODY = 1 << 13
    DIALECT_PARAMETER = 1 << 14     # another one
    DIALECT_RSET = 1 << 15
    DIALECT_NOOP = 1 << 16
    DIALECT_DATA = 1 << 17          # DATA or BDAT
    DIALECT_AUTH = 1 << 18
    DIALECT_OTHER = 1 << 19         # another command, or none
    DIALECT_QUIT = 1 << 20

cdef enum:
    DELAY_SHIFT = 27
    DELAY_CLASSES = 30              # 0 to 29 bits: up to nine minutes

HISTORY_DIALECT = (
    "upper", "lower", "helo", "ehlo", "fallback", "starttls", "clear_mail", "label", "blank", "no_bracket", "blanks",
    "trailing", "size", "body", "parameter", "rset", "noop", "data", "auth", "other", "quit")


cdef void dialect_hear(Dialect* dialect, const Line* line, bint in_tls, int64_t now) noexcept nogil:
    """Note a line as the client sent it."""
    cdef const char* text = line.text + line.word
    cdef const char* end = line.text + line.length
    cdef uint32_t traits = 0
    cdef int delay = delay_class(now - dialect.replied)
    if dialect.delays[delay] < 0xFF:
        dialect.delays[delay] += 1
    if end > text and is_blank((end - 1)[0]):
        traits |= DIALECT_TRAILING
    if line.command == CMD_UNIMPLEMENTED:
        dialect.traits |= traits | DIALECT_OTHER
        return
    traits |= verb_traits(text, line.word_length)
    text += line.word_length
    if end - text > 1 and is_blank(text[1]):
        traits |= DIALECT_BLANKS
    if line.command == CMD_MAIL:
        if not in_tls:
            traits |= DIALECT_CLEAR_MAIL
        traits |= path_traits(text, end)
    elif line.command == CMD_RCPT:
        traits |= path_traits(text, end) & ~<uint32_t> (DIALECT_SIZE | DIALECT_BODY | DIALECT_PARAMETER)
    elif line.command == CMD_HELO:
        traits |= DIALECT_FALLBACK | DIALECT_HELO if dialect.traits & DIALECT_EHLO else DIALECT_HELO
    elif line.command == CMD_EHLO:
        traits |= DIALECT_EHLO
    elif line.command == CMD_STARTTLS:
        traits |= DIALECT_STARTTLS
    elif line.command == CMD_RSET:
        traits |= DIALECT_RSET
    elif line.command == CMD_NOOP:
        traits |= DIALECT_NOOP
    elif line.command == CMD_DATA or line.command == CMD_BDAT:
        traits |= DIALECT_DATA
    elif line.command == CMD_AUTH:
        traits |= DIALECT_AUTH
    elif line.command == CMD_QUIT:
        traits |= DIALECT_QUIT
    else:
        traits |= DIALECT_OTHER
    dialect.traits |= traits


cdef inline bint is_blank(char octet) noexcept nogil:
    return octet == c" " or octet == c"\t"


cdef inline uint32_t verb_traits(const char* verb, uint32_t length) noexcept nogil:
    """The verb consists of letters."""
    cdef uint32_t at
    cdef uint32_t traits = 0
    for at in range(length):
        traits |= DIALECT_LOWER if verb[at] & 0x20 else DIALECT_UPPER
    return traits


cdef uint32_t path_traits(const char* at, const char* end) noexcept nogil:
    """What follows the verb of MAIL or RCPT: `FROM:<address> PARAMETERS`."""
    cdef uint32_t traits = 0
    while at < end and at[0] != c":":
        if c"a" <= at[0] <= c"z":
            traits |= DIALECT_LABEL
        at += 1
    if end - at < 2:
        return traits
    at += 1
    if is_blank(at[0]):
        traits |= DIALECT_BLANK
        while at < end and is_blank(at[0]):
            at += 1
    if at == end:
        return traits
    if at[0] != c"<":
        traits |= DIALECT_NO_BRACKET
    while at < end and not is_blank(at[0]):
        at += 1
    while at < end:
        if end - at > 1 and is_blank(at[1]):
            traits |= DIALECT_BLANKS
        while at < end and is_blank(at[0]):
            at += 1
        if at == end:
            break
        if end - at >= 5 and strncasecmp(at, "SIZE=", 5) == 0:
            traits |= DIALECT_SIZE
        elif end - at >= 5 and strncasecmp(at, "BODY=", 5) == 0:
            traits |= DIALECT_BODY
        else:
            traits |= DIALECT_PARAMETER
        while at < end and not is_blank(at[0]):
            at += 1
    return traits


# ---- delays

cdef inline int delay_class(int64_t delay) noexcept nogil:
    """The number of bits of a time in µs."""
    cdef int bits = 0
    while delay > 0 and bits < DELAY_CLASSES - 1:
        delay >>= 1
        bits += 1
    return bits


cdef uint32_t dialect_word(const Dialect* dialect) noexcept nogil:
    """The number for the record; 0: the client said nothing."""
    cdef uint32_t total = 0
    cdef uint32_t below = 0
    cdef int which
    for which in range(DELAY_CLASSES):
        total += dialect.delays[which]
    if total == 0:
        return 0
    for which in range(DELAY_CLASSES):
        below += dialect.delays[which]
        if 2 * below >= total:
            break
    return dialect.traits | <uint32_t> (which + 1) << DELAY_SHIFT


cdef inline bint sent_in_clear(const HistoryRecord* record) noexcept nogil:
    """What the scorer no_tls judges."""
    return (record.tls == HISTORY_TLS_UNUSED
            and record.dialect & (DIALECT_CLEAR_MAIL | DIALECT_STARTTLS) == DIALECT_CLEAR_MAIL)


def dialect_of(lines, int times=1):
    cdef Dialect dialect
    cdef Line line
    cdef bytes text
    cdef int _time
    memset(&dialect, 0, sizeof(dialect))
    for delay, in_tls, text in lines:
        memset(&line, 0, sizeof(line))
        line.text = text
        line.length = <uint32_t> len(text)
        line_read(&line)
        for _time in range(times):
            dialect_hear(&dialect, &line, in_tls, delay)
    return dialect_word(&dialect)
