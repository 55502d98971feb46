# What follows from a score that does not reach the threshold: a new client is deferred once, passes to an MTA for
# doubtful clients, or gets its replies late. All of it only with `score.action = "enforce"` or "drop"; with "shadow",
# the log has what would have happened.

cdef enum:
    DEFERRAL_SHIFT = 2
    SLOW_SESSIONS = 1000            # that are slowed at a time, at most
    SLOW_TOTAL = 30000              # ms that the lines of a session wait, all together

cdef int64_t DEFERRAL_FIRST = <int64_t> 1 << 28
cdef int64_t DEFERRAL_END = <int64_t> 1 << 30
cdef int64_t DEFERRAL_LEAST = 60                # s: a client that comes back earlier is deferred again
cdef int64_t DEFERRAL_MOST = 2 * 86400          # s: one that comes back later, too


# ---- deferring a client once
#
# A deferral is kept in the client's record in the cache, as the stamp of the score test: its time in s since 1970,
# divided by 4. As a stamp, that is a date between 1978 and 2004: for whatever else reads the record, other hosts and
# older versions among them, it is a pass that has expired, and any real pass is later. Without a cache that keeps it,
# no client is deferred.

cdef inline int64_t deferral_time(int64_t stamp) noexcept nogil:
    """When the client was deferred, in s since 1970. 0: it was not."""
    return stamp << DEFERRAL_SHIFT if DEFERRAL_FIRST <= stamp < DEFERRAL_END else 0


cdef inline int64_t deferral_stamp(int64_t time) noexcept nogil:
    """Rounded up: nobody is admitted earlier than after DEFERRAL_LEAST."""
    return (time + (1 << DEFERRAL_SHIFT) - 1) >> DEFERRAL_SHIFT


cdef inline bint deferral_ends(int64_t age) noexcept nogil:
    """Whether a client that comes back after this time (s) is admitted. After a clock has jumped back, it is."""
    return DEFERRAL_LEAST <= age <= DEFERRAL_MOST or age < -(1 << DEFERRAL_SHIFT)


cdef void deferral_judge(Screener core, Session* session) noexcept:
    """At a recipient: defer a new client with a high score below the threshold, unless it was deferred before."""
    cdef Policy policy = <Policy> session.policy
    cdef Score score
    cdef char parts[512]
    cdef size_t length
    if (session.flags & DEFERRED or session.verdict != VERDICT_LATER or session.dialogue.sender == NULL
            or not session.todo & ~session.done & bit(SCORE) or fails(session)):
        return
    score = session_score(core, session)
    if not policy.defer_from <= score.total < policy.threshold:
        return
    if not session.flags & (IS_NEW | WAS_DEFERRED):
        return
    if policy.responses_shadow:
        session.flags |= DEFERRED
        shadow_tell(core, session, LATER)
        return
    if not deferral_keep(core, session):
        return
    session.flags |= DEFERRED
    session.marks |= MARK_SCORE_DEFERRED
    session.passed &= ~bit(SCORE)
    length = score_parts(session, parts, sizeof(parts))
    log_response(core, session, "DEFERRED from ", NULL, <int32_t> score.total)
    core.log.put(": ")
    core.log.put_bytes(parts, length)
    core.log.end()
    event(core, session, EVENT_SCORE_DEFERRED, score.total, parts, length)


cdef bint deferral_keep(Screener core, Session* session) noexcept:
    """Store that the client is deferred now. False: it was deferred before and is admitted, or it cannot be stored:
    then it is not deferred, because otherwise it would be so each time that it comes back."""
    cdef Policy policy = <Policy> session.policy
    cdef int64_t now = wall_seconds()
    cdef int64_t stamps[TEST_COUNT]
    cdef uint8_t record[RECORD_SIZE]
    cdef uint8_t key[17]
    cdef int64_t since
    cdef int test
    cdef bytes name, found
    if core.cache is None:
        return False
    try:
        name = (<char*> key)[:cache_key(&policy.cache_prefix, &session.client.entry.address, key)]
        for test in range(TEST_COUNT):
            stamps[test] = 0 if policy.enabled & bit(test) else STAMP_DISABLED
        found = core.cache.record(name)
        if found is not None and not record_read(<const uint8_t*> <const char*> found, len(found), stamps):
            for test, stamp in enumerate(core.cache.lookup(name)):
                stamps[test] = stamp
        since = deferral_time(stamps[SCORE])
        if stamps[SCORE] >= now or since and deferral_ends(now - since):
            return False
        if not since or now - since > DEFERRAL_MOST:
            since = now
            stamps[SCORE] = deferral_stamp(now)
        # Not the passes of this session: they are stored when it has ended without a failure.
        found = (<char*> record)[:record_write(stamps, record)]
        core.cache.keep(name, found)
        if core.cache.record(name) != found:
            return False
    except Exception as error:
        core.problem("deferral", error)
        return False
    session.client.stamps[SCORE] = stamps[SCORE]
    return True


cdef void deferral_over(Screener core, Session* session) noexcept:
    """At connect, without continue_to: a client that was deferred and comes back in time has passed the score test.
    With continue_to, its new session is judged, and goes on."""
    cdef Policy policy = <Policy> session.policy
    cdef int64_t since = deferral_time(session.client.stamps[SCORE])
    cdef int64_t now = wall_seconds()
    if not since or policy.continue_targets is not None or not deferral_ends(now - since):
        return
    session.todo &= ~bit(SCORE)
    session.client.stamps[SCORE] = now + policy.ttl[SCORE]
    stamps_keep(core, session.client, policy, True)


# ---- another MTA for doubtful clients

cdef bint doubtful_begin(Screener core, Session* session, bint continues) noexcept:
    """A client has passed: a new one with a high score passes to the MTA for such clients. False: the session has
    ended, because that MTA is busy."""
    cdef Policy policy = <Policy> session.policy
    if (session.score < policy.doubtful_from or not session.flags & (IS_NEW | WAS_DEFERRED)
            or session.flags & DOUBTFUL or session.marks & MARK_LISTS_ALLOW):
        return True
    if policy.responses_shadow:
        log_response(core, session, "SHADOW from ", ": would have gone to ", session.score, policy.doubtful_label)
        core.log.end()
        return True
    session.flags |= DOUBTFUL
    session.marks |= MARK_DOUBTFUL
    log_response(core, session, "DOUBTFUL from ", " to ", session.score, policy.doubtful_label)
    core.log.end()
    event(core, session, EVENT_DOUBTFUL, session.score, policy.doubtful_label, len(policy.doubtful_label))
    if continues or core.doubtful < policy.doubtful_queue:
        return True
    handoff_begin(core, session)
    if session.flags & COUNTED_HANDOFF:
        core.timers.cancel(&session.timer)
        errno_set(EAGAIN)
        handoff_tried(core, session, HANDOFF_FAILED)
    return False


cdef void log_response(Screener core, Session* session, const char* what, const char* to, int32_t score,
                       bytes label=b"") noexcept:
    """Begin a line: `DOUBTFUL from [192.0.2.1]:51234 to LABEL: score 3`."""
    log_begin(core, session, what)
    if to != NULL:
        core.log.put(to)
        core.log.put_bytes(label, len(label))
    core.log.put(": score ")
    core.log.put_number(score)


# ---- slow replies
#
# A line of a doubtful client waits before it is executed, and with it what was read after it. Meanwhile nothing is
# read: the kernel keeps what the client sends, as much as its buffer holds. Without the wait, the engine would have
# replied and read it in time, so it is no evidence of pipelining; what was read together with a line still is. A client
# that closes its side need not wait.

cdef bint slow_begin(Screener core, Session* session, const char* at, const char* end) noexcept:
    """Whether the line that begins at `at` waits. If so, the caller reads no further."""
    cdef Policy policy = <Policy> session.policy
    cdef Dialogue* dialogue = session.dialogue
    if dialogue.waited:
        dialogue.waited = False
        return False
    if (session.score < policy.slow_from or at == end or dialogue.slow_over or dialogue.chunk or core.stress
            or memchr(at, c"\n", end - at) == NULL):
        return False
    if policy.responses_shadow:
        if not session.flags & SLOW_TOLD:
            session.flags |= SLOW_TOLD
            log_response(core, session, "SHADOW from ", ": would have been slowed", session.score)
            core.log.end()
        return False
    if dialogue.slowed + policy.slow_by // 1000 > SLOW_TOTAL:
        dialogue.slow_over = True
        slow_leave(core, session)
        return False
    if not session.flags & SLOWED and core.slowed >= policy.slow_limit:
        return False
    dialogue.held = <char*> malloc(end - at)
    if dialogue.held == NULL:
        return False
    if not core.timers.arm(&session.timer, TIMER_SLOW, policy.slow_by, core.now):
        free(dialogue.held)
        dialogue.held = NULL
        return False
    memcpy(dialogue.held, at, end - at)
    dialogue.held_length = <uint16_t> (end - at)
    dialogue.slowed += <uint16_t> (policy.slow_by // 1000)
    dialogue.dialect.replied += policy.slow_by          # the client did not take that time
    session_watch(core, session, False)
    if not session.flags & SLOWED:
        core.slowed += 1
        session.flags |= SLOWED
    if not session.flags & SLOW_TOLD:
        session.flags |= SLOW_TOLD
        session.marks |= MARK_SLOWED
        log_response(core, session, "SLOWED from ", NULL, session.score)
        core.log.end()
        event(core, session, EVENT_SLOWED, session.score)
    return True


cdef void slow_resume(Screener core, Session* session) noexcept:
    """A line has waited: execute it, then read what has come meanwhile."""
    cdef Dialogue* dialogue = session.dialogue
    cdef uint16_t length = dialogue.held_length
    memcpy(core.feed, dialogue.held, length)
    free(dialogue.held)
    dialogue.held = NULL
    dialogue.waited = True
    dialogue_feed(core, session, core.feed, core.feed + length)
    if session.stage != STAGE_DIALOGUE or dialogue.held != NULL:
        return
    dialogue.unjudged = True
    dialogue_read(core, session)
    if session.stage == STAGE_DIALOGUE and dialogue.held == NULL and not session_watch(core, session, True):
        session_farewell(core, session, NO_RESOURCES)


cdef void slow_end(Screener core, Session* session) noexcept:
    """The client has closed its side while a line waits."""
    session.dialogue.slow_over = True
    session.dialogue.dialect.replied -= max(<int64_t> 0, session.timer.deadline - core.now)
    core.timers.cancel(&session.timer)
    slow_leave(core, session)
    slow_resume(core, session)


cdef inline void slow_leave(Screener core, Session* session) noexcept:
    """Another session may be slowed instead of this one."""
    if session.flags & SLOWED:
        session.flags &= ~SLOWED
        core.slowed -= 1


# ---- for the Python side

def deferred_at(int64_t stamp):
    return deferral_time(stamp)
