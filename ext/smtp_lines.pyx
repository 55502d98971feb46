# The line parser: bytes in, lines and findings out. No sockets, no clock, no state from earlier lines.
#
# A line ends with CRLF or a bare LF (reference 5.2). The session decides whether bytes after a line are pipelining, or
# early bytes are pregreet.

cdef const char** COMMAND_NAMES = [
    "CONNECT", "UNIMPLEMENTED", "HELO", "EHLO", "STARTTLS", "XCLIENT", "XFORWARD", "AUTH", "MAIL", "RCPT", "DATA",
    "BDAT", "RSET", "NOOP", "VRFY", "ETRN", "QUIT",
]
cdef uint32_t* COMMAND_LENGTHS = [7, 13, 4, 4, 8, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]


cdef int command_of(const char* word, uint32_t length) noexcept nogil:
    """Find a word in the command table, case-insensitively."""
    cdef int command
    cdef char initial
    if length != 4 and length != 7 and length != 8:
        return CMD_UNIMPLEMENTED
    initial = word[0] & ~0x20                   # a letter as a capital; most words differ here
    for command in range(CMD_HELO, CMD_QUIT + 1):
        if (COMMAND_NAMES[command][0] == initial and COMMAND_LENGTHS[command] == length
                and strncasecmp(word, COMMAND_NAMES[command], length) == 0):
            return command
    return CMD_UNIMPLEMENTED


cdef bint utf8_valid(const char* text, uint32_t length) noexcept nogil:
    """RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF."""
    cdef const uint8_t* at = <const uint8_t*> text
    cdef const uint8_t* end = at + length
    cdef uint8_t low, high
    cdef int more
    while at < end:
        if at[0] < 0x80:
            at += 1
            continue
        low = 0x80
        high = 0xBF
        if 0xC2 <= at[0] <= 0xDF:
            more = 1
        elif 0xE0 <= at[0] <= 0xEF:
            more = 2
            if at[0] == 0xE0:
                low = 0xA0
            elif at[0] == 0xED:
                high = 0x9F
        elif 0xF0 <= at[0] <= 0xF4:
            more = 3
            if at[0] == 0xF0:
                low = 0x90
            elif at[0] == 0xF4:
                high = 0x8F
        else:
            return False
        if end - at <= more or not low <= at[1] <= high:
            return False
        at += 2
        more -= 1
        while more:
            if not 0x80 <= at[0] <= 0xBF:
                return False
            at += 1
            more -= 1
    return True


cdef bint header_label(const char* word, uint32_t length) noexcept nogil:
    """True for one or more printable characters and a colon (RFC 5322 2.2), as in "Subject:"."""
    cdef uint32_t at
    for at in range(length):
        if word[at] == c":":
            return at > 0
        if not 33 <= <uint8_t> word[at] <= 126:
            return False
    return False


cdef void line_read(Line* line) noexcept nogil:
    """Find the first word, the command and the findings of a line whose text and length are set."""
    cdef const uint8_t* text = <const uint8_t*> line.text
    cdef uint32_t at, end = line.length
    cdef bint high = False
    cdef const char* word
    at = 0
    while at < line.length:
        if at + 8 <= line.length and eight_printable(line.text + at):
            at += 8
            continue
        if text[at] >= 0x80:
            high = True
        elif text[at] < 32 or text[at] == 127:
            if text[at] == 0:
                line.findings |= FOUND_NUL
                if end > at:
                    end = at                # parsing stops here (reference 5.2)
            elif text[at] != c"\t":
                line.findings |= FOUND_CONTROL
        at += 1
    at = 0
    while at < end and text[at] == c" ":
        at += 1
    line.word = at
    while at < end and text[at] != c" ":
        at += 1
    line.word_length = at - line.word
    word = line.text + line.word
    line.command = command_of(word, line.word_length)
    if line.command == CMD_UNIMPLEMENTED and header_label(word, line.word_length):
        line.findings |= FOUND_HEADER_LABEL
    if high and not utf8_valid(line.text, end):
        line.findings |= FOUND_BAD_UTF8_LINE
        if line.command == CMD_UNIMPLEMENTED and not utf8_valid(word, line.word_length):
            line.findings |= FOUND_BAD_UTF8_WORD


cdef bint line_hold(LineState* state, const char* data, size_t size) noexcept nogil:
    """Keep the beginning of a line. False: out of memory."""
    cdef char* held
    cdef size_t capacity = state.length + size
    if capacity > state.capacity:
        capacity = (capacity + 63) & ~<size_t> 63
        held = <char*> realloc(state.held, capacity)
        if held == NULL:
            return False
        state.held = held
        state.capacity = <uint32_t> capacity
    memcpy(state.held + state.length, data, size)
    state.length += <uint32_t> size
    return True


cdef void line_release(LineState* state) noexcept nogil:
    """Forget the held line: a silent client does not occupy memory for its next line."""
    free(state.held)
    state.held = NULL
    state.length = state.capacity = 0


cdef int line_next(LineState* state, const char** at, const char* end, uint32_t limit, Line* line) noexcept nogil:
    """Take the next line from the feed.

    1: `line` is set and `at` moved after it (line_release must be called if the line was held); 0: the feed ended
    inside a line, which is held; -1: out of memory. A line with more than `limit` bytes, including CR and LF, is
    returned as far as it was received, with FOUND_TOO_LONG; the rest of it is meaningless.
    """
    cdef size_t rest = end - at[0]
    cdef const char* newline = <const char*> memchr(at[0], c"\n", rest) if rest else NULL
    cdef size_t size = newline - at[0] + 1 if newline != NULL else rest
    cdef bint too_long = state.length + size > limit
    if newline == NULL and not too_long:
        return 0 if rest == 0 or line_hold(state, at[0], size) else -1
    if too_long:
        size = limit - state.length
    if state.length:
        if not line_hold(state, at[0], size):
            return -1
        line.text = state.held
        line.length = state.length
    else:
        line.text = at[0]
        line.length = <uint32_t> size
    at[0] += size
    line.findings = FOUND_MORE if at[0] < end else 0
    if too_long:
        line.findings |= FOUND_TOO_LONG
    else:
        line.length -= 1
        if line.length and line.text[line.length - 1] == c"\r":
            line.length -= 1
        else:
            line.findings |= FOUND_BARE_NEWLINE
    line_read(line)
    return 1


cdef class LineStates:
    """The line parser for tests, fuzzers and benchmarks; the session uses the functions above."""

    cdef LineState state
    cdef uint32_t limit
    cdef bint over

    def __cinit__(self, uint32_t limit=2048):
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self.limit = limit

    def __dealloc__(self):
        line_release(&self.state)

    def feed(self, bytes data):
        lines = []
        cdef const char* at = data
        cdef const char* end = at + len(data)
        cdef Line line
        cdef int got
        while not self.over:
            got = line_next(&self.state, &at, end, self.limit, &line)
            if got < 0:
                raise MemoryError
            if got == 0:
                break
            self.over = line.findings & FOUND_TOO_LONG
            lines.append((
                line.text[:line.length],
                line.text[line.word:line.word + line.word_length],
                COMMAND_NAMES[line.command].decode(),
                line.findings,
            ))
            line_release(&self.state)
        return lines

    def count(self, bytes data):
        cdef const char* at = data
        cdef const char* end = at + len(data)
        cdef Line line
        cdef size_t count = 0
        with nogil:
            while not self.over and line_next(&self.state, &at, end, self.limit, &line) == 1:
                self.over = line.findings & FOUND_TOO_LONG
                line_release(&self.state)
                count += 1
        return count

    @property
    def held(self):
        return self.state.length
