# Continue: a client that passes the deep tests with its first RCPT does not get a 450. Instead, fastscreen connects to
# an MTA and repeats the client's HELO or EHLO, MAIL and RCPT, one after the other. The client gets the MTA's reply to
# RCPT, and from then on the session is relayed. Until then, further input from the client waits in the kernel. If no
# MTA answers, the client gets a 450 after all, and nothing is lost: the tests that it passed are stored when it leaves.
#
# The client's MAIL has already been answered with 250. If the MTA refuses that MAIL, the client has a transaction that
# the MTA does not have, so the session is not relayed. The connection to the MTA is closed, and the engine answers
# every command of this transaction with the MTA's reply to MAIL. The next transaction is sent to the MTA again.

cdef enum:
    # EHLO keywords (ehlo_keywords.py) that an MTA must announce if they were announced to the client
    KEYWORDS_PROMISED = 1 << 0 | 1 << 4 | 1 << 11 | 1 << 13     # 8BITMIME, SIZE, DSN, CHUNKING
    KEYWORD_SMTPUTF8 = 1 << 12
    SAID_TEXT = 200                 # characters of an MTA's reply in a log line
    FREE_REFUSALS = 1000            # RCPT commands after a refused MAIL that command_count_limit does not count
    CHUNK_DIGITS = 20               # of a BDAT chunk's size (RFC 3030 section 2)

cdef const char* LINE_END = b"\r\n"


# ---- what the client said

cdef void continue_note(Dialogue* dialogue, const Line* line, bint new_sender) noexcept:
    """Keep a line that the engine has accepted, to repeat it to the MTA."""
    if line.command == CMD_MAIL and new_sender:
        continue_keep(&dialogue.mail, line)
    elif line.command in (CMD_HELO, CMD_EHLO) and has_argument(line):
        continue_keep(&dialogue.hello, line)


cdef bint has_argument(const Line* line) noexcept nogil:
    cdef uint32_t at
    for at in range(line.word + line.word_length, line.length):
        if line.text[at] != c" ":
            return True
    return False


cdef void continue_keep(char** target, const Line* line) noexcept:
    """Keep a line, or NULL if it contains a character that some software takes for the end of a line: the MTA must not
    read it as two lines."""
    cdef const char* text = line.text + line.word
    cdef size_t size = line.length - line.word
    if fit_for_mta(text, size):
        keep_text(target, text, size)
    else:
        free(target[0])
        target[0] = NULL


cdef bint fit_for_mta(const char* text, size_t size) noexcept nogil:
    return memchr(text, 0, size) == NULL and memchr(text, c"\r", size) == NULL and memchr(text, c"\n", size) == NULL


# ---- the beginning

cdef bint continue_begin(Screener core, Session* session, const Line* line, const char* rest, const char* end) noexcept:
    """Ask an MTA about this RCPT. False: the engine answers it."""
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking
    if not continue_may(session, line):
        return False
    session.flags |= CONTINUE_TRIED
    asking = asking_new(line, rest, end)
    if asking == NULL:
        return False
    if (<Policy> session.policy).doubtful_targets is not None:
        doubtful_begin(core, session, True)
    dialogue.asking = asking
    core.timers.cancel(&session.timer)
    session_watch(core, session, False)
    session_enter(core, session, STAGE_CONTINUE)
    if relay_try(core, session, True) == HANDOFF_DONE:
        line_release(&dialogue.lines)           # a line that was received in pieces is kept there; now in `asking`
        return True
    continue_log_failed(core, session, strerror(errno))
    continue_back(core, session)
    asking_free(dialogue)
    return False


cdef bint continue_may(Session* session, const Line* line) noexcept:
    """Every test was passed, and all commands can be repeated."""
    cdef Dialogue* dialogue = session.dialogue
    if session.failed or session.flags & (DENYLIST_FAIL | NO_FORWARD | MTA_GONE | CONTINUE_TRIED):
        return False
    if session.flags & DEFERRED and not (<Policy> session.policy).responses_shadow:
        return False
    if needs_dialogue(session):
        return False
    if dialogue.sender == NULL or dialogue.mail == NULL or dialogue.helo != NULL and dialogue.hello == NULL:
        return False
    return (memchr(line.text, c":", line.length) != NULL
            and fit_for_mta(line.text + line.word, line.length - line.word))


cdef void continue_back(Screener core, Session* session) noexcept:
    """Continue with the dummy engine."""
    cdef Policy policy = <Policy> session.policy
    session_enter(core, session, STAGE_DIALOGUE)
    session_watch(core, session, True)
    session.dialogue.dialect.replied = core.now
    core.timers.arm(&session.timer, TIMER_COMMAND, policy.command_time[core.stress], core.now)


# ---- the MTA's side

cdef void continue_connected(Screener core, Session* session) noexcept:
    """The MTA has the PROXY header: wait for its greeting. If the epoll set is full, the time limit ends this."""
    session.dialogue.asking.step = ASK_GREETING
    session.dialogue.asking.length = 0
    relay_watch(core, session, FROM_MTA, EPOLLIN)


cdef void continue_readable(Screener core, Session* session) noexcept:
    """The MTA sent something."""
    cdef Asking* asking = session.dialogue.asking
    cdef Py_ssize_t got = recv(session.mta, asking.reply + asking.length, REPLY_LIMIT - asking.length, MSG_DONTWAIT)
    cdef int32_t size
    cdef int code
    if got <= 0:
        if got == 0 or errno not in (EAGAIN, EINTR):
            continue_missed(core, session, "connection closed by the MTA")
        return
    asking.length += <uint32_t> got
    while True:
        size = reply_size(asking.reply, asking.length, &code)
        if size < 0:
            continue_missed(core, session, "the MTA's reply is not SMTP")
        if size <= 0 or not continue_step(core, session, size, code):
            return
        asking.length -= size
        memmove(asking.reply, asking.reply + size, asking.length)


cdef bint continue_step(Screener core, Session* session, int32_t size, int code) noexcept:
    """One reply is complete. False: nothing more is sent to the MTA."""
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking = dialogue.asking
    cdef int kind = code // 100
    if asking.step == ASK_RCPT and kind != 3:
        continue_go(core, session)
        return False
    if asking.step == ASK_MAIL and kind > 3:
        continue_mail_refused(core, session, size, code)
        return False
    if kind != 2:
        continue_refused(core, session, asking.reply, size)
        return False
    if asking.step == ASK_HELLO and not continue_offers(core, session, size):
        continue_refused(core, session, NULL, 0)
        return False
    if asking.step == ASK_GREETING and dialogue.hello != NULL:
        return continue_say(core, session, ASK_HELLO, dialogue.hello)
    if asking.step == ASK_MAIL:
        return continue_say(core, session, ASK_RCPT, asking.rcpt)
    return continue_say(core, session, ASK_MAIL, dialogue.mail)


cdef bint continue_say(Screener core, Session* session, AskStep step, const char* text) noexcept:
    """Send one line of the client's to the MTA."""
    cdef iovec parts[2]
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    parts[0].iov_base = <void*> text
    parts[0].iov_len = strlen(text)
    parts[1].iov_base = <void*> LINE_END
    parts[1].iov_len = 2
    message.msg_iov = parts
    message.msg_iovlen = 2
    session.dialogue.asking.step = step
    if sendmsg(session.mta, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == <Py_ssize_t> (parts[0].iov_len + 2):
        return True
    continue_missed(core, session, "connection lost")
    return False


cdef bint continue_offers(Screener core, Session* session, int32_t size) noexcept:
    """Read what the MTA announces. False: more was announced to the client."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef Targets targets = relay_targets(session)
    cdef Target* target = &targets.targets[session.relay.target]
    cdef uint32_t promised = KEYWORDS_PROMISED | (KEYWORD_SMTPUTF8 if policy.smtputf8 else 0)
    if dialogue.hello[0] not in (c"E", c"e"):
        return True
    try:
        targets.learn(session.relay.target, dialogue.asking.reply[:size])
    except Exception as error:
        core.problem("what the MTA announces", error)
    return promised & ~(dialogue.discarded | target.keywords) == 0


# ---- the end

cdef void continue_go(Screener core, Session* session) noexcept:
    """The MTA decides on the RCPT, and on all that follows."""
    cdef Relay* relay = session.relay
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking = dialogue.asking
    continue_answered(core, session, asking.length)
    core.handed += 1
    if (dialogue.unsent_length and not flow_keep(&relay.flows[<int> FROM_MTA], dialogue.unsent, dialogue.unsent_length)
            or not flow_keep(&relay.flows[<int> FROM_MTA], asking.reply, asking.length)
            or asking.rest_length
            and not flow_keep(&relay.flows[<int> FROM_CLIENT], asking.rest, asking.rest_length)):
        session_farewell(core, session, NO_RESOURCES)
        return
    replies_begin(core, relay, SENT_RCPT)
    replies_hear(relay, FROM_MTA, asking.reply, asking.length)
    replies_hear(relay, FROM_CLIENT, asking.rest, asking.rest_length)
    relay.flows[<int> FROM_MTA].moved = asking.length
    relay.flows[<int> FROM_CLIENT].moved = asking.rest_length
    relay_flow(core, session)


cdef void continue_answered(Screener core, Session* session, uint32_t size) noexcept:
    """The MTA's reply goes to the client: the client has passed, and the log has the reply."""
    cdef Asking* asking = session.dialogue.asking
    cdef Targets targets = relay_targets(session)
    while size and asking.reply[size - 1] in (c"\r", c"\n"):
        size -= 1
    session_remember(core, session)
    log_begin(core, session, "CONTINUE from ")
    core.log.put(" to ")
    core.log.put(targets.targets[session.relay.target].label)
    core.log.put(": MAIL refused: " if asking.step == ASK_MAIL else ": ")
    core.log.put_escaped(asking.reply, min(size, <uint32_t> SAID_TEXT), 4 * SAID_TEXT)
    core.log.end()
    event(core, session, EVENT_CONTINUED, 0, asking.reply, size)
    targets.up(session.relay.target)


cdef void continue_mail_refused(Screener core, Session* session, int32_t size, int code) noexcept:
    """The MTA has refused MAIL, which was answered with 250. 421 is the last reply for this client."""
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking = dialogue.asking
    cdef bint hangs_up = code == 421
    continue_answered(core, session, size)
    history_refused(core, session, code)
    refusal_keep(core, session, asking.reply, size)
    if not hangs_up:
        send(session.mta, b"QUIT\r\n", 6, MSG_DONTWAIT | MSG_NOSIGNAL)
    relay_free(core, session)
    if hangs_up:
        send_at_once(session.fd)
        if refusal_reply(core, session):
            session_part(core, session)
        return
    session.flags &= ~CONTINUE_TRIED        # the next transaction may succeed
    session.done |= DEEP_TESTS              # the client has passed, as if it were relayed
    continue_resume(core, session)


cdef void continue_missed(Screener core, Session* session, const char* why) noexcept:
    """The MTA closed the connection, or does not speak SMTP."""
    errno_set(0)
    relay_missed(core, session, why)
    continue_next(core, session, why)


cdef void continue_refused(Screener core, Session* session, const char* said, int32_t size) noexcept:
    """The MTA rejects this client for now, or (NULL) announces less than was announced to the client."""
    cdef char why[256]
    if said == NULL:
        snprintf(why, sizeof(why), "the MTA announces less than the client was told")
    else:
        while size and said[size - 1] in (c"\r", c"\n"):
            size -= 1
        snprintf(why, sizeof(why), "the MTA said %.*s", min(size, <int32_t> SAID_TEXT), said)
    relay_close(core, session)
    continue_next(core, session, why)


cdef void continue_next(Screener core, Session* session, const char* why) noexcept:
    """Ask another MTA, or give up."""
    core.relay_news = True          # a warning was logged
    if relay_next(core, session) != HANDOFF_DONE:
        continue_failed(core, session, why)


cdef void continue_time_over(Screener core, Session* session) noexcept:
    errno_set(ETIMEDOUT)
    relay_missed(core, session, strerror(ETIMEDOUT))
    relay_free(core, session)
    continue_failed(core, session, strerror(ETIMEDOUT))


cdef void continue_failed(Screener core, Session* session, const char* why) noexcept:
    """No MTA answers: the engine does, and continues to read."""
    core.relay_news = True
    continue_log_failed(core, session, why)
    continue_resume(core, session)


cdef void continue_resume(Screener core, Session* session) noexcept:
    """The engine answers the RCPT and what the client sent after it."""
    cdef Asking* asking = session.dialogue.asking
    cdef uint32_t rest = min(asking.rest_length, <uint32_t> FEED_SIZE)
    cdef Line line
    session.dialogue.asking = NULL
    continue_back(core, session)
    memset(&line, 0, sizeof(line))
    line.text = asking.rcpt
    line.length = <uint32_t> strlen(asking.rcpt)
    line_read(&line)
    memcpy(core.feed, asking.rest, rest)
    if refusal_reply(core, session) if session.dialogue.refusal != NULL else dialogue_execute(core, session, &line):
        dialogue_feed(core, session, core.feed, core.feed + rest)
    free(asking)


cdef void continue_log_failed(Screener core, Session* session, const char* why) noexcept:
    log_begin(core, session, "CONTINUE from ")
    core.log.put(" failed: ")
    core.log.put_escaped(why, strlen(why), 4 * SAID_TEXT)
    core.log.end()
    event(core, session, EVENT_CONTINUE_FAILED, 0, why, strlen(why))


cdef Asking* asking_new(const Line* line, const char* rest, const char* end) noexcept:
    """NULL: out of memory. All of it is one block."""
    cdef size_t size = line.length - line.word
    cdef size_t rest_size = end - rest
    cdef Asking* asking = <Asking*> malloc(sizeof(Asking) + REPLY_LIMIT + size + 1 + rest_size)
    if asking == NULL:
        return NULL
    memset(asking, 0, sizeof(Asking))
    asking.reply = <char*> asking + sizeof(Asking)
    asking.rcpt = asking.reply + REPLY_LIMIT
    asking.rest = asking.rcpt + size + 1
    memcpy(asking.rcpt, line.text + line.word, size)
    asking.rcpt[size] = 0
    memcpy(asking.rest, rest, rest_size)
    asking.rest_length = <uint32_t> rest_size
    return asking


cdef void asking_free(Dialogue* dialogue) noexcept nogil:
    free(dialogue.asking)
    dialogue.asking = NULL


# ---- a transaction whose MAIL the MTA has refused

cdef void refusal_keep(Screener core, Session* session, const char* reply, int32_t size) noexcept:
    """Keep the MTA's reply. If memory is exhausted, the reply is missing and the engine replies 450."""
    cdef Dialogue* dialogue = session.dialogue
    keep_text(&dialogue.refusal, reply, size)
    dialogue.refusal_length = size
    dialogue.refused_until = core.now + (<Policy> session.policy).continue_time


cdef bint refusal_covers(Session* session, const Line* line) noexcept:
    """True for a command that belongs to the refused transaction. MAIL ends that transaction and begins another, as
    RSET, HELO and EHLO end it: the MTA never had it, so a new MAIL is not nested."""
    cdef Dialogue* dialogue = session.dialogue
    if line.command == CMD_MAIL:
        dialogue_reset(dialogue)
    if line.command == CMD_BDAT and not dialogue.discarded & KEYWORD_CHUNKING:
        return chunk_size(line, &dialogue.chunk)
    return line.command in (CMD_RCPT, CMD_DATA)


cdef bint refusal_reply(Screener core, Session* session) noexcept:
    """Send the MTA's reply to MAIL unchanged: no footer, no soft_bounce. False: the session has ended."""
    cdef Dialogue* dialogue = session.dialogue
    cdef bytes reply
    if dialogue.refusal == NULL:
        reply = LATER
    else:
        reply = dialogue.refusal[:dialogue.refusal_length]
    session.reply = <uint16_t> reply_code(reply)
    event(core, session, EVENT_REPLY, 0, reply, len(reply) - 2)
    if session_send(core, session, reply):
        return True
    session_hung_up(core, session)
    return False


cdef bint refusal_answers_freely(Screener core, Dialogue* dialogue, int command) noexcept:
    """True for a further recipient that only gets the reason why MAIL was refused: a 421 instead would defer what the
    MTA rejected permanently. The number is limited, and so is the time, by that for which a client may wait for an MTA,
    because command_count_limit does not count these commands."""
    if dialogue.refusal == NULL or command != CMD_RCPT:
        return False
    if dialogue.refused == FREE_REFUSALS or core.now > dialogue.refused_until:
        return False
    dialogue.refused += 1
    return True


cdef const char* refusal_skip(Dialogue* dialogue, const char* at, const char* end) noexcept nogil:
    """Skip the received part of a refused chunk: it is message text. Return where the next command begins."""
    cdef uint64_t size = min(dialogue.chunk, <uint64_t> (end - at))
    dialogue.chunk -= size
    return at + size


cdef bint chunk_size(const Line* line, uint64_t* size) noexcept nogil:
    """The size that a BDAT command announces (RFC 3030 section 2). False: the size is missing."""
    cdef uint32_t at = line.word + line.word_length
    cdef uint32_t first
    size[0] = 0
    while at < line.length and line.text[at] == c" ":
        at += 1
    first = at
    while at < line.length and at - first < CHUNK_DIGITS and c"0" <= line.text[at] <= c"9":
        size[0] = 10 * size[0] + (line.text[at] - c"0")
        at += 1
    if 0 < at - first < CHUNK_DIGITS and (at == line.length or line.text[at] == c" "):
        return True
    size[0] = 0
    return False
