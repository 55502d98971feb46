# The dummy SMTP engine: tests after the SMTP handshake (reference 5). It never accepts mail; at RCPT, a client gets its
# verdict, and has passed if it followed the protocol.

cdef enum:
    FEED_SIZE = 4096                # bytes per read (5.2)
    PEEK_SIZE = 1023                # how many early bytes are read (3)
    LOGGED_TEXT = 100               # characters of a peer's text in a log line
    UNSENT_LIMIT = 65536            # replies kept for a client that does not read
    LINE_LIMIT = 16384              # upper limit of line_length_limit

# EHLO keywords that the engine needs; the bits are from ehlo_keywords.py.
cdef enum:
    KEYWORD_STARTTLS = 1 << 9
    KEYWORD_CHUNKING = 1 << 13


cdef void dialogue_begin(Screener core, Session* session) noexcept:
    """Greet, and wait for commands (5.1)."""
    cdef Policy policy = <Policy> session.policy
    session.dialogue = <Dialogue*> calloc(1, sizeof(Dialogue))
    if session.dialogue == NULL:
        session_farewell(core, session, NO_RESOURCES)
        return
    session_enter(core, session, STAGE_DIALOGUE)
    session.began = session.dialogue.dialect.replied = core.now
    if session.flags & MTA_GONE:
        session.todo &= ~DEEP_TESTS
    elif fails(session):
        session.todo |= DEEP_TESTS & ~OWN_TESTS
    session.made |= <uint16_t> (session.todo & DEEP_TESTS & ~session.done)
    if not session.failed & bit(PREGREET) and not session_send(core, session, policy.greeting):
        session_hung_up(core, session)
        return
    if not session_watch(core, session, True):
        session_farewell(core, session, NO_RESOURCES)
        return
    event(core, session, EVENT_DIALOGUE)
    seen_hear(core, session)
    core.timers.arm(&session.timer, TIMER_COMMAND, policy.command_time[core.stress], core.now)


cdef void dialogue_readable(Screener core, Session* session, uint32_t events) noexcept:
    """Something happened: read, unless a line waits."""
    if session.dialogue.held != NULL:
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            slow_end(core, session)
        return
    session.dialogue.unjudged = False
    dialogue_read(core, session)


cdef void dialogue_read(Screener core, Session* session) noexcept:
    """Read once, and execute every complete line (5.2)."""
    cdef Py_ssize_t got = recv(session.fd, core.feed, FEED_SIZE, MSG_DONTWAIT)
    if got <= 0:
        if got == 0 or errno not in (EAGAIN, EINTR):
            session_hung_up(core, session)
        return
    dialogue_feed(core, session, tls_begun(session, core.feed) if session.tls == HISTORY_TLS_FAILED else core.feed,
                  core.feed + got)


cdef void dialogue_feed(Screener core, Session* session, const char* at, const char* end) noexcept:
    """Execute every complete line."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef Line line
    cdef int lines
    while True:
        if policy.slow_from and slow_begin(core, session, at, end):
            return
        if dialogue.chunk:
            at = refusal_skip(dialogue, at, end)
        lines = line_next(&dialogue.lines, &at, end, policy.line_limit, &line)
        if lines < 0:
            session_farewell(core, session, NO_RESOURCES)
        if lines <= 0 or not dialogue_line(core, session, &line, at, end):
            return
        line_release(&dialogue.lines)
        dialogue.dialect.replied = core.now
        core.timers.arm(&session.timer, TIMER_COMMAND, policy.command_time[core.stress], core.now)


cdef bint dialogue_line(Screener core, Session* session, Line* line, const char* rest, const char* end) noexcept:
    """Judge one line and execute it, in the order of 5.3. False: the rest of this read is not judged."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef int before = dialogue.where
    cdef bytes _kept            # owns the text of a line that the command filter replaced
    cdef bint going, had_sender
    event_said(core, session, EVENT_COMMAND, line.findings, line.text, line.length)
    count_up(&dialogue.received)
    if core.history.fingerprints:
        dialect_hear(&dialogue.dialect, line, session.flags & IN_TLS != 0, core.now)
    if line.findings & FOUND_TOO_LONG:
        session.marks |= MARK_LENGTH_LIMIT
        event(core, session, EVENT_LIMIT, 3)
        log_begin(core, session, "COMMAND LENGTH LIMIT from ")
        core.log.put(" after ")
        core.log.put(COMMAND_NAMES[before])
        core.log.end()
        session_farewell(core, session, unavailable(policy))
        return False
    if not deep_tests(core, session, ON_LINE, line, rest, end, before):
        return False
    if policy.command_filter is not None and not (policy.smtputf8 and line.findings & FOUND_BAD_UTF8_LINE):
        _kept = dialogue_filter(core, session, line)
    dialogue.where = line.command
    if line.command == CMD_RCPT:
        count_up(&session.recipients)
    if session.flags & MTA_GONE and line.command != CMD_QUIT:
        session_farewell(core, session, NO_RESOURCES)
        return False
    if not deep_tests(core, session, ON_COMMAND, line, rest, end, before):
        return False
    if line.command == CMD_RCPT:
        recipients_heard(core, session)
        if session.lists_open and not lists_settle(core, session):
            return False
        if not deep_tests(core, session, ON_RECIPIENT, line, rest, end, before):
            return False
        if policy.defer_from:
            deferral_judge(core, session)
        deep_passed(session)
    if not refusal_answers_freely(core, dialogue, line.command):
        dialogue.commands += 1
    if <int64_t> dialogue.commands > policy.command_limit and line.command != CMD_QUIT:
        log_begin(core, session, "COMMAND COUNT LIMIT from ")
        core.log.put(" after ")
        core.log.put(COMMAND_NAMES[before])
        core.log.end()
        event(core, session, EVENT_LIMIT, 2)
        session.marks |= MARK_COUNT_LIMIT
        session_farewell(core, session, unavailable(policy))
        return False
    if policy.continue_targets is None:
        return dialogue_execute(core, session, line)
    if dialogue.refusal != NULL and refusal_covers(session, line):
        return refusal_reply(core, session)
    if line.command == CMD_RCPT and continue_begin(core, session, line, rest, end):
        return False                # the MTA answers
    had_sender = dialogue.sender != NULL
    going = dialogue_execute(core, session, line)
    if going:
        continue_note(dialogue, line, not had_sender and dialogue.sender != NULL)
    return going


cdef void dialogue_time_over(Screener core, Session* session) noexcept:
    cdef Policy policy = <Policy> session.policy
    log_begin(core, session, "COMMAND TIME LIMIT from ")
    core.log.put(" after ")
    core.log.put(COMMAND_NAMES[session.dialogue.where])
    core.log.end()
    event(core, session, EVENT_LIMIT, 1)
    session.marks |= MARK_TIME_LIMIT
    session_farewell(core, session, b"421 4.4.2 %b Error: timeout exceeded\r\n" % policy.hostname)


cdef bytes unavailable(Policy policy):
    return b"421 %b Service unavailable - try again later\r\n" % policy.hostname


# ---- the deep tests (2.6)

cdef inline bint deep_tests(Screener core, Session* session, Moment moment, Line* line, const char* rest,
                            const char* end, int before) noexcept:
    """Make the tests of a moment. False: the session has ended."""
    cdef uint32_t active = session.todo & ~session.done & MOMENT_TESTS[<int> moment]
    cdef int test = TEST_COUNT
    while active:
        test -= 1
        if not active & bit(test):
            continue
        active &= ~bit(test)
        if TEST_TABLE[test].hook(core, session, line, rest, end, before) and not deep_failed(core, session, test):
            return False
    return True


cdef void deep_passed(Session* session) noexcept:
    """At RCPT: tests that the client has not failed are passed, until it fails one after all. The score test judges a
    recipient, which needs MAIL."""
    cdef Policy policy = <Policy> session.policy
    cdef uint32_t tests = session.todo & DEEP_TESTS & ~(session.passed | session.failed)
    cdef int64_t now
    cdef int test
    if session.dialogue.sender == NULL or session.flags & DEFERRED and not policy.responses_shadow:
        tests &= ~bit(SCORE)
    if not tests:
        return
    now = wall_seconds()
    session.passed |= tests
    for test in range(TEST_COUNT):
        if tests & bit(test):
            session.client.stamps[test] = now + policy.ttl[test]


cdef bint deep_failed(Screener core, Session* session, int test) noexcept:
    """Apply the test's action. False: the session has ended."""
    cdef Policy policy = <Policy> session.policy
    session.passed &= ~bit(test)
    session.failed |= bit(test)
    session.found |= bit(test)
    session.done |= bit(test)
    session.client.stamps[test] = 1
    shadow_step(core, session, test)
    if policy.actions[test] == ACTION_DROP:
        session_farewell(core, session, refusal(session, test, True), OUTCOME_REJECTED)
        return False
    if policy.actions[test] == ACTION_ENFORCE:
        session.flags |= NO_FORWARD
        session.verdict = VERDICT_SCORE if TEST_TABLE[test].farewell == NULL else VERDICT_PROTOCOL
        return True
    session.failed &= ~bit(test)
    session.passed |= bit(test)
    session.client.stamps[test] = wall_seconds() + policy.min_ttl
    return True


cdef bint bare_newline_found(Screener core, Session* session, Line* line, const char* rest, const char* end,
                             int before) noexcept:
    if not line.findings & FOUND_BARE_NEWLINE:
        return False
    log_failed(core, session, BARE_NEWLINE)
    core.log.put(" after ")
    core.log.put_escaped(line.text, min(line.length, <uint32_t> LOGGED_TEXT), 4 * LOGGED_TEXT)
    core.log.end()
    event(core, session, EVENT_BARE_NEWLINE, 0, line.text, line.length)
    return True


cdef bint non_smtp_found(Screener core, Session* session, Line* line, const char* rest, const char* end,
                         int before) noexcept:
    if line.command != CMD_UNIMPLEMENTED or not not_smtp(core, <Policy> session.policy, line):
        return False
    log_non_smtp(core, session, line, before)
    event(core, session, EVENT_NON_SMTP_COMMAND, 0, line.text, line.length)
    return True


cdef bint pipelining_found(Screener core, Session* session, Line* line, const char* rest, const char* end,
                           int before) noexcept:
    if rest >= end or line.command == CMD_BDAT or session.dialogue.unjudged:
        return False
    log_failed(core, session, PIPELINING)
    core.log.put(" after ")
    core.log.put_printable(line.text + line.word, min(line.word_length, <uint32_t> LOGGED_TEXT))
    core.log.put(": ")
    core.log.put_escaped(rest, min(<size_t> (end - rest), <size_t> LOGGED_TEXT), 4 * LOGGED_TEXT)
    core.log.end()
    event(core, session, EVENT_PIPELINING, 0, rest, end - rest)
    return True


cdef void log_failed(Screener core, Session* session, int test) noexcept:
    """Begin the line of a failed test: its words, then the client."""
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put(TEST_TABLE[test].log_words)
    core.log.put(" from ")
    core.log.put_address(&session.peer)


cdef bint not_smtp(Screener core, Policy policy, Line* line) noexcept:
    """True for a header label, a word that is not UTF-8, or a forbidden command."""
    if line.findings & FOUND_HEADER_LABEL or policy.smtputf8 and line.findings & FOUND_BAD_UTF8_WORD:
        return True
    if policy.forbidden is None:
        return False
    try:
        return policy.forbidden(line.text[line.word:line.word + line.word_length])
    except Exception as error:
        core.problem("forbidden_commands", error)
        return False


cdef bytes dialogue_filter(Screener core, Session* session, Line* line):
    """postscreen_command_filter: replace the line. The caller keeps what is returned as long as the line."""
    cdef Policy policy = <Policy> session.policy
    cdef bytes text = line.text[:line.length].partition(b"\0")[0]
    cdef bytes replaced, logged
    try:
        filtered = policy.command_filter(text)
    except Exception as error:
        core.problem("command_filter", error)
        return None
    if filtered is None:
        return None
    replaced, logged = filtered
    replaced = replaced[:LINE_LIMIT - 1]
    log_begin(core, session, "")
    core.log.put(": ")
    core.log.put_bytes(logged, len(logged))
    core.log.end()
    line.text = replaced
    line.length = <uint32_t> len(replaced)
    line.findings &= FOUND_MORE | FOUND_BARE_NEWLINE
    line_read(line)
    return replaced


cdef void log_non_smtp(Screener core, Session* session, Line* line, int before) noexcept:
    cdef const char* word = line.text + line.word
    cdef const char* rest = word + line.word_length
    cdef const char* end = line.text + line.length
    log_failed(core, session, NON_SMTP_COMMAND)
    core.log.put(" after ")
    core.log.put(COMMAND_NAMES[before])
    core.log.put(": ")
    core.log.put_printable(word, min(line.word_length, <uint32_t> LOGGED_TEXT))
    core.log.put(" ")
    while rest < end and rest[0] == c" ":
        rest += 1
    core.log.put_escaped(rest, min(text_size(rest, end), <size_t> LOGGED_TEXT), 4 * LOGGED_TEXT)
    core.log.end()


cdef inline size_t text_size(const char* text, const char* end) noexcept:
    """The number of bytes before the first NUL (5.2)."""
    cdef const char* nul = <const char*> memchr(text, 0, end - text) if text < end else NULL
    return (nul if nul != NULL else end) - text


# ---- commands (5.4)

cdef bint dialogue_execute(Screener core, Session* session, Line* line) noexcept:
    """Answer one command. False: the session has ended, or now reads from elsewhere."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef int command = line.command
    cdef const char* end = line.text + line.length
    cdef const char* arguments = line.text + line.word + line.word_length
    cdef size_t size
    while arguments < end and arguments[0] == c" ":
        arguments += 1
    size = text_size(arguments, end)
    if command == CMD_MAIL:
        mail_heard(core, session)
    if tls_missing(session, command):
        session_reply(core, session, b"530 5.7.0 Must issue a STARTTLS command first\r\n")
    elif command == CMD_HELO:
        dialogue_helo(core, session, arguments, size)
    elif command == CMD_EHLO:
        dialogue_ehlo(core, session, arguments, size)
    elif command == CMD_STARTTLS:
        return dialogue_starttls(core, session, size)
    elif command == CMD_MAIL:
        dialogue_mail(core, session, arguments, size)
    elif command == CMD_RCPT:
        dialogue_rcpt(core, session, arguments, size)
    elif command == CMD_DATA:
        log_about_rcpt(core, session, "DATA")
        session_farewell(core, session, b"501 5.5.4 Syntax: DATA\r\n" if size else
                         b"503 5.5.1 Error: need RCPT command\r\n" if dialogue.sender == NULL else
                         NO_RECIPIENTS)
        return False
    elif command == CMD_BDAT:
        log_about_rcpt(core, session, "BDAT")
        session_farewell(core, session, NOT_IMPLEMENTED if dialogue.discarded & KEYWORD_CHUNKING else
                         b"501 5.5.4 Syntax: BDAT count [LAST]\r\n" if not size else
                         b"554 5.5.1 Error: need MAIL command\r\n" if dialogue.sender == NULL else
                         NO_RECIPIENTS)
        return False
    elif command == CMD_RSET:
        dialogue_reset(dialogue)
        session_reply(core, session, OK)
    elif command == CMD_NOOP:
        session_reply(core, session, OK)
    elif command == CMD_VRFY:
        session_reply(core, session, b"501 5.5.4 Syntax: VRFY address\r\n" if not size else
                      b"502 5.5.1 VRFY command is disabled\r\n" if policy.vrfy_disabled else
                      verdict_text(session))
    elif command == CMD_ETRN:
        session_reply(core, session, HELO_FIRST if policy.helo_required and dialogue.helo == NULL else
                      b"500 Syntax: ETRN domain\r\n" if not size else
                      b"458 Unable to queue messages\r\n")
    elif command == CMD_QUIT:
        session_farewell(core, session, b"221 2.0.0 Bye\r\n")
        return False
    else:
        session_reply(core, session, b"502 5.5.2 Error: command not recognized\r\n")
    return True


cdef void dialogue_helo(Screener core, Session* session, const char* arguments, size_t size) noexcept:
    if size == 0:
        session_reply(core, session, b"501 Syntax: HELO hostname\r\n")
        return
    dialogue_reset(session.dialogue)
    keep_text(&session.dialogue.helo, arguments, word_size(arguments, size))
    scorers_hear(core, session, HEARD_HELLO, arguments, word_size(arguments, size))
    session_reply(core, session, b"250 %b\r\n" % (<Policy> session.policy).hostname)


cdef void dialogue_ehlo(Screener core, Session* session, const char* arguments, size_t size) noexcept:
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef bytes reply, logged
    cdef char text[64]
    if size == 0:
        session_reply(core, session, b"501 Syntax: EHLO hostname\r\n")
        return
    dialogue_reset(dialogue)
    dialogue.esmtp = True
    keep_text(&dialogue.helo, arguments, word_size(arguments, size))
    scorers_hear(core, session, HEARD_HELLO, arguments, word_size(arguments, size))
    try:
        reply, discarded, logged = policy.ehlo_for(
            text[:address_text(&session.peer, text)].decode(), session.flags & IN_TLS != 0)
        dialogue.discarded = discarded
        if policy.tls_level != TLS_NONE and not (session.flags & IN_TLS or dialogue.discarded & KEYWORD_STARTTLS):
            session.flags |= TLS_ANNOUNCED
        if logged and not session.quiet:
            core.log.begin(PRIORITY_INFO, False)
            core.log.put("[")
            core.log.put(text)
            core.log.put("]")
            core.log.put_number(session.peer.port)
            core.log.put(": ")
            core.log.put_bytes(logged, len(logged))
            core.log.end()
    except Exception as error:
        core.problem("discard_ehlo_keyword_address_maps", error)
        reply = b"250 %b\r\n" % policy.hostname        # it may hide keywords from this client: announce none
    session_reply(core, session, reply)


cdef void dialogue_mail(Screener core, Session* session, const char* arguments, size_t size) noexcept:
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef size_t length
    cdef char address[LINE_LIMIT]
    if policy.helo_required and dialogue.helo == NULL:
        session_reply(core, session, HELO_FIRST)
    elif dialogue.sender != NULL:
        session_reply(core, session, b"503 5.5.1 Error: nested MAIL command\r\n")
    elif not extract_address(arguments, size, address, &length):
        session_reply(core, session, b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n")
    else:
        keep_text(&dialogue.sender, address, length)
        session_reply(core, session, b"250 2.1.0 Ok\r\n")


cdef void dialogue_rcpt(Screener core, Session* session, const char* arguments, size_t size) noexcept:
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef size_t length
    cdef char address[LINE_LIMIT]
    cdef bytes reply, logged
    if dialogue.sender == NULL:
        session_reply(core, session, b"503 5.5.1 Error: need MAIL command\r\n")
        return
    if not extract_address(arguments, size, address, &length):
        session_reply(core, session, b"501 5.5.4 Syntax: RCPT TO:<address>\r\n")
        return
    reply = verdict_text(session)
    logged = softened(reply) if policy.soft_bounce else reply
    count_rejected(core, logged[0] == c"5")
    log_begin(core, session, "NOQUEUE: reject: RCPT from ")
    core.log.put(": ")
    core.log.put_bytes(logged, len(logged) - 2)
    core.log.put("; from=<")
    put_mailbox(core.log, dialogue.sender, strlen(dialogue.sender), policy.external_form)
    core.log.put(">, to=<")
    put_mailbox(core.log, address, length, policy.external_form)
    core.log.put(">, proto=")
    core.log.put("ESMTP" if dialogue.esmtp else "SMTP")
    core.log.put(", helo=<")
    if dialogue.helo != NULL:
        core.log.put(dialogue.helo)
    core.log.put(">")
    core.log.end()
    session_reply(core, session, reply)
    history_decide(session, OUTCOME_REJECTED)


cdef void log_about_rcpt(Screener core, Session* session, const char* command) noexcept:
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put(command)
    core.log.put(" without valid RCPT from ")
    core.log.put_address(&session.peer)
    core.log.end()


# ---- the state of a session

cdef void dialogue_reset(Dialogue* dialogue) noexcept nogil:
    free(dialogue.sender)
    free(dialogue.refusal)
    dialogue.sender = dialogue.refusal = NULL


cdef void dialogue_free(Session* session) noexcept nogil:
    cdef Dialogue* dialogue = session.dialogue
    if dialogue == NULL:
        return
    line_release(&dialogue.lines)
    free(dialogue.helo)
    free(dialogue.sender)
    free(dialogue.hello)
    free(dialogue.mail)
    free(dialogue.asking)
    free(dialogue.refusal)
    free(dialogue.unsent)
    free(dialogue.held)
    free(dialogue)
    session.dialogue = NULL


cdef bint dialogue_keep(Dialogue* dialogue, const char* text, size_t size) noexcept nogil:
    """Keep a reply that the client does not accept now. False: too many replies are kept."""
    cdef char* unsent
    if dialogue.unsent_length + size > UNSENT_LIMIT:
        return False
    unsent = <char*> realloc(dialogue.unsent, dialogue.unsent_length + size)
    if unsent == NULL:
        return False
    memcpy(unsent + dialogue.unsent_length, text, size)
    dialogue.unsent = unsent
    dialogue.unsent_length += <uint32_t> size
    return True


cdef void keep_text(char** target, const char* text, size_t size) noexcept nogil:
    """Replace a kept string. If memory is exhausted, the string is missing, as if the client had not sent it."""
    cdef char* kept = <char*> malloc(size + 1)
    free(target[0])
    if kept != NULL:
        memcpy(kept, text, size)
        kept[size] = 0
    target[0] = kept


cdef size_t word_size(const char* text, size_t size) noexcept nogil:
    cdef const char* space = <const char*> memchr(text, c" ", size)
    return space - text if space != NULL else size


cdef bint extract_address(const char* text, size_t size, char* address, size_t* length) noexcept nogil:
    """Write the address of MAIL or RCPT (5.4, last paragraph). False: the colon is missing."""
    cdef const char* end = text + size
    cdef const char* at = <const char*> memchr(text, c":", size) if size else NULL
    cdef const char* colon
    cdef char stop = c" "
    cdef bint quoted = False
    cdef size_t used = 0
    if at == NULL:
        return False
    at += 1
    while at < end and (at[0] == c" " or 9 <= at[0] <= 13):
        at += 1
    if at < end and at[0] == c"<":
        stop = c">"
        at += 1
    while at < end:
        if at[0] == c"\\":
            at += 1
            if at == end:
                break
        elif at[0] == c"\"":
            quoted = not quoted
            at += 1
            continue
        elif at[0] == stop and not quoted:
            break
        address[used] = at[0]
        used += 1
        at += 1
    if used and address[0] == c"@":
        colon = <const char*> memchr(address, c":", used)
        if colon != NULL:
            used -= colon + 1 - address
            memmove(address, colon + 1, used)
    address[used] = 0
    length[0] = used
    return True


cdef void put_mailbox(Log log, const char* address, size_t length, bint external) noexcept:
    """Log an address in external form: with its local part quoted where RFC 5321 4.1.2 requires it."""
    cdef size_t local = length
    cdef size_t at
    cdef bint plain
    while local and address[local - 1] != c"@":
        local -= 1
    local = local - 1 if local else length
    plain = local == 0 or dot_string(address, local)
    if plain or not external:
        log.put_bytes(address, length)
        return
    log.put("\"")
    for at in range(local):
        if address[at] == c"\"" or address[at] == c"\\" or address[at] == c"\r":
            log.put("\\")
        log.put_bytes(address + at, 1)
    log.put("\"")
    log.put_bytes(address + local, length - local)


cdef bint dot_string(const char* text, size_t length) noexcept nogil:
    """RFC 5321 Dot-string, with UTF-8 (RFC 6531)."""
    cdef size_t at
    cdef uint8_t octet
    if text[0] == c"." or text[length - 1] == c".":
        return False
    for at in range(length):
        octet = text[at]
        if octet == c"." and at + 1 < length and text[at + 1] == c".":
            return False
        if octet <= 32 or octet == 127 or memchr("()<>@,;:\\\"[]", octet, 12) != NULL:
            return False
    return True
