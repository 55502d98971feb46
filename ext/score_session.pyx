# Scorers of what a client does in the session: whether it uses TLS, and its recipients. They judge the session itself;
# the text is only for the log.

cdef enum:
    REJECTED_FROM = 3               # recipients; fewer say nothing about the client


# ---- TLS

cdef uint32_t mail_evidence(Policy policy, const Session* session, uint32_t asked, const char* text,
                            size_t size) noexcept:
    """The evidence against a client that sends MAIL. One that tried TLS in vain did what it could."""
    if session.flags & (TLS_ANNOUNCED | IN_TLS) == TLS_ANNOUNCED and not session.dialogue.tls_failed:
        return bit(SCORER_NO_TLS)
    return 0


cdef inline void mail_heard(Screener core, Session* session) noexcept:
    scorers_hear(core, session, HEARD_MAIL, b"MAIL without TLS", 16)


# ---- recipients

cdef uint32_t recipients_evidence(Policy policy, const Session* session, uint32_t asked, const char* text,
                                  size_t size) noexcept:
    """The evidence against a client with so many RCPT commands."""
    return bit(SCORER_RCPT_MANY) if recipients_so_far(session) >= <uint32_t> policy.rcpt_many_from else 0


cdef inline uint32_t recipients_so_far(const Session* session) noexcept nogil:
    if session.relay == NULL or session.relay.replies == NULL:
        return session.recipients
    return session.recipients + session.relay.replies.recipients


cdef inline void recipients_heard(Screener core, Session* session) noexcept:
    """At a RCPT command. Only the one that reaches the number, and those after it, change anything."""
    cdef Policy policy = <Policy> session.policy
    if (policy.weighted & ~session.evidence & bit(SCORER_RCPT_MANY)
            and recipients_so_far(session) >= <uint32_t> policy.rcpt_many_from):
        scorers_say(core, session, HEARD_RECIPIENTS, recipients_so_far(session), 0)


cdef void scorers_say(Screener core, Session* session, Heard heard, uint32_t count, uint32_t of) noexcept:
    """Let scorers judge numbers of recipients."""
    cdef char text[64]
    cdef int size
    if of:
        size = snprintf(text, sizeof(text), "%u of %u recipients", count, of)
        scorers_judge(core, session, heard, text, size)
    else:
        size = snprintf(text, sizeof(text), "%u recipients", count)
        scorers_hear(core, session, heard, text, size)


# ---- the MTA's replies to them

cdef uint32_t replies_evidence(Policy policy, const Session* session, uint32_t asked, const char* text,
                               size_t size) noexcept:
    """The evidence against a client whose recipients the MTA has rejected."""
    cdef const RelayReplies* replies = session.relay.replies
    if replies.answered >= REJECTED_FROM and 2 * <uint32_t> replies.refused >= replies.answered:
        return bit(SCORER_RCPT_REJECTED)
    return 0


cdef void replies_heard(Screener core, Session* session) noexcept:
    """A relayed session ends. Its client can no longer be rejected: this is for the log, the history and the events.
    Clients that the operator or an allow list permits are not judged."""
    cdef RelayReplies* replies = session.relay.replies
    cdef uint32_t weighted = (<Policy> session.policy).weighted
    if replies == NULL or not weighted or session.marks & (MARK_ALLOWLISTED | MARK_BYPASSED | MARK_LISTS_ALLOW):
        return
    recipients_heard(core, session)
    if weighted & bit(SCORER_RCPT_REJECTED) and replies.refused:
        scorers_say(core, session, HEARD_REPLIES, replies.refused, replies.answered)
