# An MTA's reply: octets in, its size and code out. No socket, no memory of what came before.

cdef enum:
    REPLY_LIMIT = 8192              # octets of one reply, all of its lines


cdef int32_t reply_size(const char* text, size_t size, int* code) noexcept nogil:
    """The octets of the first reply, with its last line's end, and its code. 0: not complete; -1: it is no reply."""
    cdef const char* at = text
    cdef const char* end = text + size
    cdef const char* newline
    cdef int found
    code[0] = 0
    while at < end:
        newline = <const char*> memchr(at, c"\n", end - at)
        if newline == NULL:
            break
        if newline - at < 3:
            return -1
        found = reply_code(at)
        if found < 0 or code[0] and found != code[0]:
            return -1
        code[0] = found
        if at[3] == c" " or at[3] == c"\n" or at[3] == c"\r":
            return <int32_t> (newline + 1 - text) if newline + 1 - text <= REPLY_LIMIT else -1
        if at[3] != c"-":
            return -1
        at = newline + 1
    return 0 if size < REPLY_LIMIT else -1


cdef inline int reply_code(const char* text) noexcept nogil:
    """Three digits, the first from 2 to 5; -1: they are not."""
    if not c"2" <= text[0] <= c"5" or not c"0" <= text[1] <= c"9" or not c"0" <= text[2] <= c"9":
        return -1
    return 100 * (text[0] - c"0") + 10 * (text[1] - c"0") + text[2] - c"0"


def read_reply(bytes text):
    cdef int code
    cdef int32_t size = reply_size(text, len(text), &code)
    if size < 0:
        raise ValueError("no reply")
    return (size, code) if size else None
