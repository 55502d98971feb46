# Continue: a client that ends the deep tests well with its first RCPT is not told 450. An MTA is connected to and told
# what the client said, HELO or EHLO, MAIL, RCPT, one after the other; its answer to the RCPT is the client's, and from
# there on the session is relayed. While the MTA is asked, what the client sends waits in the kernel. When no MTA
# answers, the client gets its 450 after all, and nothing is lost: what it passed is remembered when it goes.

cdef enum:
    # EHLO keywords, as ehlo.py numbers them, that an MTA must have if the client was told of them
    KEYWORDS_PROMISED = 1 << 0 | 1 << 4 | 1 << 11 | 1 << 13     # 8BITMIME, SIZE, DSN, CHUNKING
    KEYWORD_SMTPUTF8 = 1 << 12
    SAID_TEXT = 200                 # characters of an MTA's reply in a log line

cdef const char* LINE_END = b"\r\n"


# ---- what the client said

cdef void continue_note(Dialogue* dialogue, const Line* line, bint new_sender) noexcept:
    """Keep a line that the MTA is to be told, once the engine has accepted it."""
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
    """NULL is kept of a line that holds what ends a line for somebody: it must not become two for the MTA."""
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
    """Ask an MTA about this RCPT. False: the engine is to answer."""
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking
    if not continue_may(session, line):
        return False
    session.flags |= CONTINUE_TRIED
    asking = asking_new(line, rest, end)
    if asking == NULL:
        return False
    dialogue.asking = asking
    core.timers.cancel(&session.timer)
    session_watch(core, session, False)
    session_enter(core, session, STAGE_CONTINUE)
    if relay_try(core, session, True) == HANDOFF_DONE:
        line_release(&dialogue.lines)           # one that came in pieces is kept there; `asking` has it now
        return True
    continue_log_failed(core, session, strerror(errno))
    continue_back(core, session)
    asking_free(dialogue)
    return False


cdef bint continue_may(Session* session, const Line* line) noexcept:
    """Every test has ended well, and all that was said can be said again."""
    cdef Dialogue* dialogue = session.dialogue
    if session.flags & (ALL_FAIL | DENYLIST_FAIL | NO_FORWARD | MTA_GONE | CONTINUE_TRIED) or needs_dialogue(session):
        return False
    if dialogue.sender == NULL or dialogue.mail == NULL or dialogue.helo != NULL and dialogue.hello == NULL:
        return False
    return (memchr(line.text, c":", line.length) != NULL
            and fit_for_mta(line.text + line.word, line.length - line.word))


cdef void continue_back(Screener core, Session* session) noexcept:
    """The dummy engine goes on."""
    cdef Policy policy = <Policy> session.policy
    session_enter(core, session, STAGE_DIALOGUE)
    session_watch(core, session, True)
    core.timers.arm(&session.timer, TIMER_COMMAND, policy.command_time[core.stress], core.now)


# ---- the MTA's side

cdef void continue_connected(Screener core, Session* session) noexcept:
    """The MTA knows who the client is: it is to greet. A set without room leaves it to the time limit."""
    session.dialogue.asking.step = ASK_GREETING
    session.dialogue.asking.length = 0
    relay_watch(core, session, FROM_MTA, EPOLLIN)


cdef void continue_readable(Screener core, Session* session) noexcept:
    """The MTA said something."""
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
            continue_missed(core, session, "what came is no SMTP reply")
        if size <= 0 or not continue_step(core, session, size, code // 100):
            return
        asking.length -= size
        memmove(asking.reply, asking.reply + size, asking.length)


cdef bint continue_step(Screener core, Session* session, int32_t size, int kind) noexcept:
    """One reply is complete. False: the MTA is asked no more."""
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking = dialogue.asking
    cdef bint last = asking.step == ASK_MAIL and kind != 2 or asking.step == ASK_RCPT
    if last and kind != 3:
        continue_go(core, session)
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
    """Tell the MTA one line of the client's."""
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
    """Learn what the MTA announces. False: the client was told of more."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef Targets targets = policy.continue_targets
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
    """The MTA has the last word on the RCPT, and on all that follows."""
    cdef Relay* relay = session.relay
    cdef Dialogue* dialogue = session.dialogue
    cdef Asking* asking = dialogue.asking
    cdef Targets targets = relay_targets(session)
    cdef uint32_t shown = asking.length
    while shown and asking.reply[shown - 1] in (c"\r", c"\n"):
        shown -= 1
    session_remember(core, session)
    log_begin(core, session, "CONTINUE from ")
    core.log.put(" to ")
    core.log.put(targets.targets[relay.target].label)
    core.log.put(": MAIL refused: " if asking.step == ASK_MAIL else ": ")
    core.log.put_escaped(asking.reply, min(shown, <uint32_t> SAID_TEXT), 4 * SAID_TEXT)
    core.log.end()
    event(core, session, EVENT_CONTINUED, 0, asking.reply, shown)
    core.handed += 1
    targets.up(relay.target)
    if (dialogue.unsent_length and not flow_keep(&relay.flows[<int> FROM_MTA], dialogue.unsent, dialogue.unsent_length)
            or not flow_keep(&relay.flows[<int> FROM_MTA], asking.reply, asking.length)
            or asking.rest_length
            and not flow_keep(&relay.flows[<int> FROM_CLIENT], asking.rest, asking.rest_length)):
        session_turn_away(core, session, NO_RESOURCES)
        return
    relay.flows[<int> FROM_MTA].moved = asking.length
    relay.flows[<int> FROM_CLIENT].moved = asking.rest_length
    relay_flow(core, session)


cdef void continue_missed(Screener core, Session* session, const char* why) noexcept:
    """The MTA broke off, or speaks no SMTP."""
    errno_set(0)
    relay_missed(core, session, why)
    continue_next(core, session, why)


cdef void continue_refused(Screener core, Session* session, const char* said, int32_t size) noexcept:
    """The MTA does not want this client now, or (NULL) announces less than the client was told."""
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
    """No MTA answers: the engine does, and then reads on."""
    cdef Asking* asking = session.dialogue.asking
    cdef uint32_t rest = min(asking.rest_length, <uint32_t> FEED_SIZE)
    cdef Line line
    session.dialogue.asking = NULL
    core.relay_news = True
    continue_log_failed(core, session, why)
    continue_back(core, session)
    memset(&line, 0, sizeof(line))
    line.text = asking.rcpt
    line.length = <uint32_t> strlen(asking.rcpt)
    line_read(&line)
    memcpy(core.feed, asking.rest, rest)
    if dialogue_execute(core, session, &line):
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
