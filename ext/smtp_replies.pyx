# The replies to clients, and which of them a session gets; and the parser for an MTA's reply: bytes in, its size and
# code out. session_reply in session.pyx sends the replies.
#
# RCPT and VRFY (in smtp_engine.pyx) get `450 4.3.2` while session.verdict is VERDICT_LATER, as it is at first. The deny
# list (session.pyx), the greet tests and the score (greet.pyx) and the deep tests (smtp_engine.pyx) change the verdict.

cdef bytes NO_RESOURCES = b"421 4.3.2 No system resources\r\n"
cdef bytes SCREENING_BUSY = b"421 4.3.2 All screening ports are busy\r\n"
cdef bytes MTA_BUSY = b"421 4.3.2 All server ports are busy\r\n"
cdef bytes TOO_MANY = b"421 4.7.0 Error: too many connections\r\n"
cdef bytes CLOSING = b"421 4.3.2 Service currently unavailable\r\n"     # fastscreen is stopping
cdef bytes LATER = b"450 4.3.2 Service currently unavailable\r\n"       # to RCPT and VRFY in a dialogue (verdict_text)
cdef bytes DENIED = b"550 5.3.2 Service currently unavailable\r\n"
cdef bytes DENIED_AT_ONCE = b"521 5.3.2 Service currently unavailable\r\n"
cdef bytes PROTOCOL_REFUSED = b"550 5.5.1 Protocol error\r\n"
cdef const char* PROTOCOL_ERROR = b"521 5.5.1 Protocol error\r\n"
cdef const char* BREAK_RULES = b"521 5.7.0 Error: I can break rules, too. Goodbye.\r\n"
cdef bytes NOT_IMPLEMENTED = b"502 5.5.1 Error: command not implemented\r\n"
cdef bytes NO_RECIPIENTS = b"554 5.5.1 Error: no valid recipients\r\n"
cdef bytes HELO_FIRST = b"503 5.5.1 Error: send HELO/EHLO first\r\n"
cdef bytes OK = b"250 2.0.0 Ok\r\n"
cdef bytes NOT_NOW = b"4.3.2 Service currently unavailable\r\n"     # after 421 or 450


# ---- which reply

cdef bytes verdict_text(Session* session):
    """The reply to RCPT and VRFY: `450 4.3.2` unless the client is denied or failed a test (2.6)."""
    if session.verdict == VERDICT_LATER:
        return LATER
    if session.verdict == VERDICT_DENYLISTED:
        return DENIED
    if session.verdict == VERDICT_PROTOCOL:
        return PROTOCOL_REFUSED
    return blocked_text(session, False)


cdef bytes refusal(Session* session, int test, bint at_once):
    """The reply to a client that has failed a test or is denied: at_once, or else at RCPT."""
    if test == DENYLIST:
        return DENIED_AT_ONCE if at_once else DENIED
    if TEST_TABLE[test].farewell == NULL:
        return blocked_text(session, at_once)
    if at_once:
        return TEST_TABLE[test].farewell
    return PROTOCOL_REFUSED


cdef bytes blocked_text(Session* session, bint at_once):
    """The reply to a client whose score reaches the threshold, or may: it names the reason."""
    cdef char text[64]
    cdef bint unsure = session.flags & UNSURE
    cdef const ScorerRow* scorer = &SCORER_TABLE[session.scorer]
    cdef bytes code = ((b"421 4.7.1" if unsure else b"521 5.7.1") if at_once else
                       (b"450 4.7.1" if unsure else b"550 5.7.1"))
    cdef bytes address = text[:address_text(&session.peer, text)]
    if session.scorer != SCORER_LISTS:
        return b"%b Service unavailable; client [%b] blocked: %b\r\n" % (
            code, address, scorer.label if scorer.reason == NULL else scorer.reason)
    if session.list < 0:
        return code[:4] + NOT_NOW
    return b"%b Service unavailable; client [%b] blocked using %b\r\n" % (
        code, address, (<Policy> session.policy).lists.lists[session.list].shown)


# ---- an MTA's reply

cdef enum:
    REPLY_LIMIT = 8192              # bytes of one reply, including all of its lines


cdef int32_t reply_size(const char* text, size_t size, int* code) noexcept nogil:
    """The size in bytes of the first reply, including the end of its last line, and its code. 0: incomplete; -1: not a
    reply."""
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
    """The code: three digits, the first from 2 to 5; -1: not a code."""
    if not c"2" <= text[0] <= c"5" or not c"0" <= text[1] <= c"9" or not c"0" <= text[2] <= c"9":
        return -1
    return 100 * (text[0] - c"0") + 10 * (text[1] - c"0") + text[2] - c"0"


def read_reply(bytes text):
    cdef int code
    cdef int32_t size = reply_size(text, len(text), &code)
    if size < 0:
        raise ValueError("no reply")
    return (size, code) if size else None
