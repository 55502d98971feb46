# STARTTLS: the client's socket is passed to a TLS process, and the session continues with the plaintext from there
# (reference 5.7). The core does not speak TLS, so a handshake cannot delay other clients.

cdef extern from "<sys/socket.h>" nogil:
    int socketpair(int domain, int type, int protocol, int* pair)

cdef bytes TLS_UNAVAILABLE = b"454 4.7.0 TLS not available due to local problem\r\n"


cdef enum TlsLevel:
    TLS_NONE
    TLS_MAY
    TLS_ENCRYPT             # before STARTTLS, no command that has an effect


cdef int tls_level_number(level) except -1:
    return {"none": TLS_NONE, "may": TLS_MAY, "encrypt": TLS_ENCRYPT}[level]


cdef inline bint tls_missing(Session* session, int command) noexcept:
    """True for a command that needs TLS first, in a session without (5.3 step 12)."""
    if (<Policy> session.policy).tls_level != TLS_ENCRYPT or session.flags & IN_TLS:
        return False
    return command in (CMD_MAIL, CMD_RCPT, CMD_DATA, CMD_BDAT, CMD_RSET, CMD_VRFY, CMD_ETRN)


cdef bint dialogue_starttls(Screener core, Session* session, size_t arguments) noexcept:
    """Answer STARTTLS. False: TLS begins, and what the client sent after the command is discarded."""
    cdef Policy policy = <Policy> session.policy
    cdef const char* problem
    if arguments:
        session_reply(core, session, b"501 5.5.4 Syntax: STARTTLS\r\n")
        return True
    if session.flags & IN_TLS:
        session_reply(core, session, b"554 5.5.1 Error: TLS already active\r\n")
        return True
    if policy.tls_level == TLS_NONE or session.dialogue.discarded & KEYWORD_STARTTLS:
        session_reply(core, session, NOT_IMPLEMENTED)
        return True
    problem = starttls_begin(core, session)
    if problem != NULL:
        session.dialogue.tls_failed = True
        core.tell(problem.decode(), f"STARTTLS: {problem.decode()}: answered 454")
        session_reply(core, session, TLS_UNAVAILABLE)
        return True
    return False


cdef const char* starttls_begin(Screener core, Session* session) noexcept:
    """Pass the client to a TLS process and send the reply. NULL: done, or the client is gone; otherwise the problem."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    cdef int pair[2]
    cdef int problem = 0
    if memchr(core.tls_ready, 1, core.tls_processes) == NULL:
        return "no TLS process is ready"
    if core.in_tls >= policy.tls_sessions:
        return "as many sessions as tls.sessions allows have TLS"
    if dialogue.unsent_length:
        return "a client does not read its replies"
    if socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0:
        return strerror(errno)
    session_unwatch(core, session)
    if tls_pass(core.tls_fd, session, pair[1]) < 0:
        problem = errno
    close(pair[1])
    if problem:
        close(pair[0])
        if not session_watch(core, session, True):
            session_hung_up(core, session)
            return NULL
        if problem in (EAGAIN, ETOOMANYREFS):
            return "the TLS processes do not keep up"
        return strerror(problem)
    # The TLS process sends nothing before the handshake is over, so this is the last plaintext.
    session_reply(core, session, b"220 2.0.0 Ready to start TLS\r\n")
    close(session.fd)
    session.fd = pair[0]
    session.flags |= IN_TLS
    session.tls = HISTORY_TLS_FAILED    # until tls_begun
    core.in_tls += 1
    if dialogue.unsent_length or not session_watch(core, session, True):
        session_hung_up(core, session)
        return NULL
    history_dialogue(core, session)
    dialogue_forget(dialogue)
    line_release(&dialogue.lines)
    core.timers.arm(&session.timer, TIMER_COMMAND, policy.command_time[core.stress], core.now)
    return NULL


cdef inline const char* tls_begun(Session* session, const char* at) noexcept nogil:
    """The TLS process sends one byte when the handshake is over, before the client's data: the low byte of the
    protocol's number (RFC 8446 4.1.3). Return where the data begins."""
    session.tls = (HISTORY_TLS_12 if at[0] == 3 else
                   HISTORY_TLS_13 if at[0] == 4 else HISTORY_TLS_USED)
    return at + 1


cdef void dialogue_forget(Dialogue* dialogue) noexcept nogil:
    """Commands before TLS could be from an attacker (RFC 3207 4.2): they are not repeated to an MTA, either."""
    free(dialogue.helo)
    free(dialogue.hello)
    free(dialogue.mail)
    dialogue.helo = dialogue.hello = dialogue.mail = NULL
    dialogue_reset(dialogue)


cdef Py_ssize_t tls_pass(int tls, Session* session, int plaintext) noexcept nogil:
    """Send one packet: the client's name for the log, with its descriptor and that of the plaintext socket."""
    cdef char text[80]
    cdef int descriptors[2]
    cdef size_t length = 1
    text[0] = c"["
    length += address_text(&session.peer, text + length)
    text[length] = c"]"
    text[length + 1] = c":"
    length += 2
    length += number_text(session.peer.port, text + length)
    descriptors[0] = session.fd
    descriptors[1] = plaintext
    return rights_send(tls, text, length, descriptors, 2)
