# What an MTA replies in a relayed session, as far as the history records it: the last code, accepted messages, rejected
# recipients. Commands and replies are matched in order, because clients send several commands at a time. Bytes are only
# looked at: lines are not kept beyond their first bytes, message text is skipped. Once the session is encrypted, or its
# commands and replies can no longer be matched, nothing is known about it.

cdef extern from *:
    """
    #include <string.h>
    """
    const void* memmem(const void* text, size_t size, const void* wanted, size_t length) noexcept nogil

cdef enum:
    TEXT_TAIL = 512                 # bytes at the end of a full read in which the end of a message is looked for


cdef enum RelayCommand:
    SENT_OTHER
    SENT_GREETING               # not a command: the MTA begins
    SENT_MAIL
    SENT_RCPT
    SENT_DATA
    SENT_TEXT                   # not a command: the message after DATA
    SENT_CHUNK                  # BDAT
    SENT_LAST_CHUNK
    SENT_STARTTLS
    SENT_QUIT


cdef inline void count_up(uint16_t* number) noexcept nogil:
    if number[0] < 0xFFFF:
        number[0] += 1


cdef void replies_end(RelayReplies* replies) noexcept nogil:
    """Nothing is known about this session."""
    replies.followed = False
    replies.reply = replies.accepted = replies.rejected = replies.answered = replies.refused = 0


cdef void replies_expect(RelayReplies* replies, RelayCommand command) noexcept nogil:
    """The MTA will reply to this command, after the previous ones."""
    cdef uint32_t count = replies.run_count
    if count and replies.runs[count - 1].command == command and replies.runs[count - 1].times < 0xFFFF:
        replies.runs[count - 1].times += 1
    elif count == RELAY_RUNS:
        replies_end(replies)
    else:
        replies.runs[count].command = <uint8_t> command
        replies.runs[count].times = 1
        replies.run_count += 1


cdef RelayCommand replies_next(RelayReplies* replies) noexcept nogil:
    """The command that the MTA has replied to now."""
    cdef RelayCommand command = <RelayCommand> replies.runs[0].command
    if replies.run_count == 0:
        return SENT_OTHER           # nobody asked: 421, for example
    replies.runs[0].times -= 1
    if replies.runs[0].times == 0:
        replies.run_count -= 1
        memmove(&replies.runs[0], &replies.runs[1], replies.run_count * sizeof(RelayRun))
    return command


cdef const char* replies_line(RelayLine* line, const char* at, const char* end, size_t room) noexcept nogil:
    """Read up to the end of a line, and keep its first bytes. Return where the next one begins, NULL: it is cut."""
    cdef const char* newline = <const char*> memchr(at, c"\n", end - at)
    cdef const char* stop = newline if newline != NULL else end
    cdef size_t kept = min(<size_t> (stop - at), room - line.size)
    memcpy(line.text + line.size, at, kept)
    line.size += <uint8_t> kept
    return newline + 1 if newline != NULL else NULL


# ---- the client's bytes

cdef void replies_from_client(RelayReplies* replies, const char* at, size_t size, uint64_t position) noexcept nogil:
    """Look for commands. position: bytes that the client has sent before."""
    cdef const char* start = at
    cdef const char* end = at + size
    while replies.followed:
        if position + (at - start) < replies.chunk_end:
            at = start + min(replies.chunk_end - position, <uint64_t> size)
        if at == end:
            return
        if replies.in_text:
            at = text_end(at, end, size)
            replies.in_text = at == NULL
            if at == NULL:
                return
            continue
        at = replies_line(&replies.command, at, end, sizeof(replies.command.text))
        if at == NULL:
            return
        replies_command(replies, position + (at - start))
        replies.command.size = 0


cdef const char* text_end(const char* at, const char* end, size_t size) noexcept nogil:
    """Where the first command after the message begins. In a full read, which is the middle of a large message, only
    the last bytes are looked at; otherwise, the MTA's reply is the end. NULL: the text goes on."""
    cdef const char* tail = at if size < RELAY_FEED else end - min(<size_t> (end - at), <size_t> TEXT_TAIL)
    cdef const char* found = <const char*> memmem(tail, end - tail, "\r\n.\r\n", 5)
    return found + 5 if found != NULL else NULL


cdef void replies_command(RelayReplies* replies, uint64_t position) noexcept nogil:
    """A line of the client is complete; the next one begins at this position."""
    cdef const char* text = replies.command.text
    cdef uint32_t size = replies.command.size
    cdef RelayCommand command = SENT_OTHER
    cdef Line line
    if size >= 4:
        if strncasecmp(text, "RCPT", 4) == 0:
            command = SENT_RCPT
            count_up(&replies.recipients)
        elif strncasecmp(text, "MAIL", 4) == 0:
            command = SENT_MAIL
        elif strncasecmp(text, "DATA", 4) == 0:
            command = SENT_DATA
        elif strncasecmp(text, "QUIT", 4) == 0:
            command = SENT_QUIT
            replies.quit = True
        elif strncasecmp(text, "BDAT", 4) == 0:
            memset(&line, 0, sizeof(line))
            line.text = text
            line.length = size - (text[size - 1] == c"\r")
            line.word_length = 4
            chunk_size(&line, &replies.chunk_end)
            replies.chunk_end += position
            command = SENT_CHUNK
            if line.length > 9 and strncasecmp(text + line.length - 5, " LAST", 5) == 0:
                command = SENT_LAST_CHUNK
        elif size >= 8 and strncasecmp(text, "STARTTLS", 8) == 0:
            command = SENT_STARTTLS
    replies_expect(replies, command)


# ---- the MTA's bytes

cdef void replies_from_mta(RelayReplies* replies, const char* at, size_t size) noexcept nogil:
    """Look for replies. A reply may have several lines; the last one has no hyphen after the code."""
    cdef const char* end = at + size
    cdef const char* text = replies.said.text
    cdef int code
    while replies.followed and at != end:
        at = replies_line(&replies.said, at, end, 4)
        code = reply_code(text) if replies.said.size >= 3 else -1
        if code < 0 and (at != NULL or replies.said.size >= 3):
            replies_end(replies)
            return
        if at == NULL:
            return
        if replies.said.size == 3 or text[3] == c" " or text[3] == c"\r":
            replies_read(replies, code)
        elif text[3] != c"-":
            replies_end(replies)
        replies.said.size = 0


cdef void replies_read(RelayReplies* replies, int code) noexcept nogil:
    """A reply of the MTA is complete."""
    cdef RelayCommand command = replies_next(replies)
    cdef bint refused = code >= 500
    if command == SENT_QUIT or code == 221:
        return
    replies.reply = <uint16_t> code
    if command == SENT_STARTTLS and code < 300:
        replies_end(replies)
    elif command == SENT_MAIL or command == SENT_RCPT:
        replies.has_recipient = command == SENT_RCPT and (replies.has_recipient or code < 300)
        if refused:
            count_up(&replies.rejected)
        if command == SENT_RCPT:
            count_up(&replies.answered)
            if refused:
                count_up(&replies.refused)
    elif command == SENT_DATA and code == 354:
        replies_insert_text(replies)
    elif code == 354:
        replies_end(replies)            # to a DATA that was not seen
    elif command == SENT_TEXT or command == SENT_LAST_CHUNK:
        replies.in_text = False
        if code < 300:
            count_up(&replies.accepted)
        elif refused and replies.has_recipient:
            count_up(&replies.rejected)
        replies.has_recipient = False
    elif (command == SENT_DATA or command == SENT_CHUNK) and refused and replies.has_recipient:
        count_up(&replies.rejected)     # but not the reply that there are no recipients
        replies.has_recipient = False


cdef void replies_insert_text(RelayReplies* replies) noexcept nogil:
    """The message follows: the next reply is about it, whatever the client has sent after DATA."""
    if replies.run_count == RELAY_RUNS:
        replies_end(replies)
        return
    memmove(&replies.runs[1], &replies.runs[0], replies.run_count * sizeof(RelayRun))
    replies.runs[0].command = SENT_TEXT
    replies.runs[0].times = 1
    replies.run_count += 1
    replies.in_text = True


# ---- the relay's calls

cdef inline void replies_begin(Screener core, Relay* relay, RelayCommand first) noexcept:
    """From now on, bytes are relayed. first: what the MTA will reply to."""
    cdef uint32_t weighted = (<Policy> relay.session.policy).weighted
    if relay.replies != NULL:
        return
    if core.history.header == NULL and not weighted & (HEARD_SCORERS[<int> HEARD_REPLIES]
                                                       | HEARD_SCORERS[<int> HEARD_RECIPIENTS]):
        return
    relay.replies = <RelayReplies*> calloc(1, sizeof(RelayReplies))
    if relay.replies != NULL:
        relay.replies.followed = True
        replies_expect(relay.replies, first)


cdef inline void replies_hear(Relay* relay, Side source, const char* data, size_t size) noexcept:
    """Bytes are relayed; those before are counted in the flow already."""
    if relay.replies == NULL or not relay.replies.followed:
        return
    if source == FROM_MTA:
        replies_from_mta(relay.replies, data, size)
    else:
        replies_from_client(relay.replies, data, size, relay.flows[<int> FROM_CLIENT].moved)


cdef inline void replies_miss(Relay* relay, Side source) noexcept:
    """Bytes were relayed unseen, and are counted in the flow. Only message text may be among them."""
    cdef RelayReplies* replies = relay.replies
    if replies == NULL:
        return
    if source == FROM_MTA or not replies.in_text and relay.flows[<int> FROM_CLIENT].moved > replies.chunk_end:
        replies_end(replies)


def replies_in(parts):
    cdef Relay relay
    cdef bytes data
    cdef bint from_client
    cdef RelayReplies replies
    memset(&relay, 0, sizeof(relay))
    memset(&replies, 0, sizeof(replies))
    relay.replies = &replies
    replies.followed = True
    replies_expect(&replies, SENT_GREETING)
    for from_client, data in parts:
        replies_hear(&relay, FROM_CLIENT if from_client else FROM_MTA, data, len(data))
        relay.flows[<int> FROM_CLIENT if from_client else <int> FROM_MTA].moved += len(data)
    return replies.reply, replies.accepted, replies.rejected, replies.recipients, bool(replies.followed)
