# The record of a session, written when the session ends. What the session does not keep for its own purposes is noted
# as it happens: in fields of Session, or in a HistoryPart that few sessions need. Without a history, nothing is
# computed.

cdef HistoryPart* history_part(Screener core, Session* session) noexcept:
    """What the history keeps of a session before its end. NULL: no history is recorded, or out of memory."""
    if session.part == NULL and core.history.header != NULL:
        session.part = <HistoryPart*> calloc(1, sizeof(HistoryPart))
    return session.part


cdef void history_lists(Screener core, Session* session) noexcept:
    """Keep the lists' answers, as the score has them now. MARK_LISTS_JUDGED: a list that has not answered by now does
    not count; otherwise, its answer is unknown."""
    cdef Lists lists = (<Policy> session.policy).lists
    cdef Lookup* lookup = session.lookup
    cdef HistoryPart* part
    cdef List* list
    cdef Reply* reply
    cdef uint64_t one
    cdef int at
    if core.history.header == NULL:
        return
    if lists.list_count > HISTORY_LISTS:
        session.marks |= MARK_LISTS_CUT
    for at in range(min(lists.list_count, <int> HISTORY_LISTS)):
        list = &lists.lists[at]
        reply = &lookup.replies[at] if lookup != NULL else NULL
        if reply != NULL and reply.state == REPLY_NOT_LISTED and reply_counts(list, reply):
            continue
        part = history_part(core, session)
        if part == NULL:
            return
        one = <uint64_t> 1 << at
        if reply == NULL or reply_is_unasked(reply) \
                or reply.state == REPLY_ASKED and not session.marks & MARK_LISTS_JUDGED:
            part.unasked |= one
        elif reply.state == REPLY_LISTED and (reply_counts(list, reply) or reply_is_doubtful(list, reply)):
            if reply_counts(list, reply):
                part.listed |= one
            else:
                part.doubtful |= one
            history_answers(session, at, reply)
        else:
            part.silent |= one


cdef void history_answers(Session* session, int list, const Reply* reply) noexcept nogil:
    """Keep the addresses that a list returned, while there is room."""
    cdef HistoryPart* part = session.part
    cdef const uint32_t* addresses = &reply.one if reply.count == 1 else reply.many
    cdef int at
    for at in range(reply.count):
        if part.answer_count == HISTORY_ANSWERS:
            session.marks |= MARK_ANSWERS_CUT
            return
        part.answers[part.answer_count] = <uint32_t> list << 24 | ntohl(addresses[at]) & 0xFFFFFF
        part.answer_count += 1


cdef void history_dialogue(Screener core, Session* session) noexcept:
    """Keep what is known from the dialogue, before it is freed or forgotten."""
    cdef Dialogue* dialogue = session.dialogue
    cdef HistoryPart* part = history_part(core, session) if dialogue != NULL else NULL
    if part == NULL:
        return
    part.commands = dialogue.received
    part.dialect = dialect_word(&dialogue.dialect)
    if dialogue.esmtp:
        session.marks |= MARK_ESMTP
    if dialogue.helo != NULL:
        part.name_length = history_name(dialogue.helo, part.name)


cdef inline uint8_t history_name(const char* helo, char* name) noexcept nogil:
    """Copy what there is room for; return its length."""
    cdef size_t size = min(strlen(helo), <size_t> HISTORY_NAME)
    memcpy(name, helo, size)
    return <uint8_t> size


cdef inline void history_decide(Session* session, HistoryOutcome outcome) noexcept nogil:
    """The last reply is the verdict about the client. REJECTED: by its code, the client may come back."""
    session.told = session.reply
    if outcome == OUTCOME_REJECTED and session.reply < 500:
        outcome = OUTCOME_DEFERRED
    session.outcome = <uint8_t> outcome


cdef void history_refused(Screener core, Session* session, int code) noexcept:
    """An MTA that a session should continue with has refused MAIL: it gave the verdict."""
    cdef HistoryPart* part = history_part(core, session)
    session.outcome = OUTCOME_CONTINUED
    session.told = 0
    if part == NULL:
        return
    part.mta_reply = <uint16_t> code
    if code >= 500:
        count_up(&part.mta_rejected)


# ---- the record

cdef void history_end(Screener core, Session* session) noexcept:
    """A session ends: write its record. A load balancer's health check has none, as it is not logged."""
    cdef HistoryRing ring = core.history
    cdef HistoryHeader* header = ring.header
    cdef HistoryRecord* record
    cdef uint32_t weight = 1
    if header == NULL or session.quiet:
        return
    if session.lookup != NULL:
        history_lists(core, session)
    header.sessions += 1
    if session.marks & MARK_CACHED and ring.known != 1:
        ring.unrecorded += 1
        if ring.known == 0 or ring.unrecorded < ring.known:
            return
        ring.unrecorded = 0
        weight = ring.known
    record = &ring.records[header.head & ring.mask]
    publish(&record.sequence, 0)
    before_writing()                # no reader may see the new content under the old number
    history_fill(core, session, record)
    record.weight = weight
    record.worker = ring.worker
    publish(&record.sequence, header.head + 1)
    publish(&header.head, header.head + 1)


cdef inline void history_fill(Screener core, Session* session, HistoryRecord* record) noexcept:
    """All but the sequence number, the weight and the worker."""
    cdef Policy policy = <Policy> session.policy
    memset(<char*> record + sizeof(record.sequence), 0, sizeof(HistoryRecord) - sizeof(record.sequence))
    record.ended = core.wall
    record.began = core.wall - max(0, core.now - session.accepted)
    memcpy(record.client, session.peer.ip, 16)
    memcpy(record.server, session.server.ip, 16)
    record.client_port = session.peer.port
    record.server_port = session.server.port
    record.family = session.peer.family
    record.proxied = session.proxied
    record.stage = session.stage
    record.outcome = session.outcome
    record.tls = session.tls
    if record.tls == HISTORY_TLS_NONE and session.flags & TLS_ANNOUNCED:
        record.tls = HISTORY_TLS_UNUSED
    record.needed = session.needed
    record.made = session.made
    record.found = session.found
    record.failed = <uint16_t> session.failed
    if policy.actions[PREGREET] == ACTION_IGNORE:
        record.failed &= ~<uint16_t> bit(PREGREET)      # the end of the greet wait would have cleared it
    record.reply = session.reply
    record.verdict = session.told
    record.spared = session.spared
    record.settings = policy.settings
    record.marks = session.marks | history_marks(session)
    record.evidence = session.evidence
    record.score = session.score
    record.lists_total = session.lists_total
    record.lists_lowest = session.lists_lowest
    record.lists_highest = session.lists_highest
    record.pass_seconds = session.pass_seconds
    record.recipients = session.recipients
    memcpy(record.syn, session.syn, sizeof(record.syn))
    if session.stage == STAGE_HANDED and session.outcome != OUTCOME_FAILED:
        record.outcome = OUTCOME_HANDED_OFF
    if session.part != NULL:
        history_fill_part(record, session.part)
    if session.dialogue != NULL:
        history_fill_dialogue(record, session.dialogue)
    if session.stage == STAGE_RELAY:
        history_fill_relay(record, session.relay)


cdef inline uint32_t history_marks(const Session* session) noexcept nogil:
    """The marks that a session has as flags."""
    cdef uint32_t marks = 0
    if session.flags & VETOED:
        marks |= MARK_VETOED
    if session.flags & UNSURE:
        marks |= MARK_UNSURE
    if session.flags & HUNG_UP:
        marks |= MARK_HUNG_UP
    if session.flags & TURNED_AWAY:
        marks |= MARK_TURNED_AWAY
    return marks


cdef void history_fill_part(HistoryRecord* record, const HistoryPart* part) noexcept nogil:
    record.listed = part.listed
    record.doubtful = part.doubtful
    record.silent = part.silent
    record.unasked = part.unasked
    memcpy(record.answers, part.answers, sizeof(record.answers))
    record.answer_count = part.answer_count
    record.commands = part.commands
    record.dialect = part.dialect
    record.mta_reply = part.mta_reply
    record.mta_rejected = part.mta_rejected
    record.name_length = part.name_length
    memcpy(record.name, part.name, sizeof(part.name))


cdef void history_fill_dialogue(HistoryRecord* record, const Dialogue* dialogue) noexcept nogil:
    """The end of a session that was not relayed."""
    record.commands = dialogue.received
    record.dialect = dialect_word(&dialogue.dialect)
    if dialogue.esmtp:
        record.marks |= MARK_ESMTP
    if dialogue.helo != NULL:
        memset(record.name, 0, sizeof(record.name))
        record.name_length = history_name(dialogue.helo, record.name)


cdef void history_fill_relay(HistoryRecord* record, const Relay* relay) noexcept nogil:
    """The end of a session that was relayed."""
    cdef const RelayReplies* replies = relay.replies
    record.outcome = OUTCOME_CONTINUED if relay.continues else OUTCOME_RELAYED
    if replies == NULL:
        return
    record.recipients = <uint16_t> min(<uint32_t> record.recipients + replies.recipients, <uint32_t> 0xFFFF)
    record.mta_rejected = <uint16_t> min(<uint32_t> record.mta_rejected + replies.rejected, <uint32_t> 0xFFFF)
    record.mta_accepted = replies.accepted
    record.mta_reply = replies.reply
    record.mta_recipients = replies.answered
    record.mta_refused = replies.refused
    if replies.quit and record.dialect:
        record.dialect |= DIALECT_QUIT
