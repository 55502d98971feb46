# The tests before the SMTP handshake, and the score (reference 2.5, 3, 4). While a client waits for its greeting, it must
# be silent, and the DNS lists are asked about it; then its score decides.

# ---- the greet wait

cdef void greet_begin(Screener core, Session* session) noexcept:
    """Say half a greeting, ask the lists, wait."""
    cdef Policy policy = <Policy> session.policy
    session_enter(core, session, STAGE_GREET)
    session.began = core.now
    event(core, session, EVENT_GREET, policy.greet_wait[core.stress])
    if session.flags & bits(TODO, PREGREET) and not session_send(core, session, policy.teaser):
        session_hung_up(core, session)
        return
    if not session_watch(core, session, session.flags & bits(TODO, PREGREET)):
        session_turn_away(core, session, NO_RESOURCES)
        return
    core.timers.arm(&session.timer, TIMER_GREET, policy.greet_wait[core.stress], core.now)
    if session.flags & bits(TODO, DNSBL) and lookup_join(core, session) != NULL and session.lookup.pending == 0:
        greet_dnsbl_done(core, session)


cdef void greet_readable(Screener core, Session* session, uint32_t events) noexcept:
    """The client talked before its turn, or left. Nothing is consumed: the MTA or the engine reads it later."""
    cdef Policy policy = <Policy> session.policy
    cdef Py_ssize_t got
    if not events & EPOLLIN or session.flags & bits(FAIL | DONE, PREGREET):
        session_hung_up(core, session)
        return
    got = recv(session.fd, core.feed, PEEK_SIZE, MSG_PEEK | MSG_DONTWAIT)
    if got <= 0:
        if got == 0 or errno not in (EAGAIN, EINTR):
            session_hung_up(core, session)
        return
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put("PREGREET ")
    core.log.put_number(got)
    core.log.put(" after ")
    core.log.put_delay(core.now - session.began)
    core.log.put(" from ")
    core.log.put_address(&session.peer)
    core.log.put(": ")
    core.log.put_escaped(core.feed, got, LOGGED_TEXT)
    core.log.end()
    session.flags |= bits(FAIL | DONE, PREGREET)
    event_said(core, session, EVENT_PREGREET, got, core.feed, got)
    shadow_step(core, session, PREGREET, PROTOCOL_ERROR, PROTOCOL_REFUSED)
    if policy.actions[PREGREET] == ACTION_DROP:
        session_turn_away(core, session, PROTOCOL_ERROR)
        return
    if policy.actions[PREGREET] == ACTION_ENFORCE:
        session.flags |= NO_FORWARD
        session.verdict = VERDICT_PROTOCOL
    session_watch(core, session, False)
    if session.flags & bits(TODO, DNSBL) and not session.flags & bits(DONE, DNSBL):
        return                                  # the lists have the rest of the greet wait
    greet_end(core, session)


cdef void greet_dnsbl_done(Screener core, Session* session) noexcept:
    """Every list has answered: an allow list may end the greet wait (4.5)."""
    cdef Score score
    if session.stage != STAGE_GREET or session.flags & bits(DONE, DNSBL):
        return
    session.flags |= bits(DONE, DNSBL)
    score = lookup_score(core, session)
    session.score = score.total
    if score_allows(session, &score):
        allow_all(core, session, score.ttl)
    if not session.flags & bits(TODO, PREGREET) or session.flags & bits(DONE, PREGREET):
        greet_end(core, session)


cdef bint score_allows(Session* session, const Score* score) noexcept:
    cdef Policy policy = <Policy> session.policy
    return (policy.allow_threshold < 0 and score.highest <= policy.allow_threshold
            and score.highest < policy.threshold and not session.flags & ANY_FAIL)


cdef void allow_all(Screener core, Session* session, int64_t ttl) noexcept:
    """An allow list vouches for the client: every other test counts as passed (4.5)."""
    cdef int64_t until = wall_seconds() + ttl
    cdef int test
    for test in range(TESTS):
        if test == DNSBL:
            continue
        if session.flags & bits(TODO, test) and not session.flags & bits(PASS, test):
            session.flags |= bits(DONE | PASS, test)
        if session.client.stamps[test] < until:
            session.client.stamps[test] = until


cdef void greet_end(Screener core, Session* session) noexcept:
    """The greet wait is over: judge (2.5)."""
    cdef Policy policy = <Policy> session.policy
    cdef int64_t now = wall_seconds()
    cdef Score score
    core.timers.cancel(&session.timer)
    if session.flags & bits(TODO, PREGREET):
        if not session.flags & bits(FAIL | DONE, PREGREET):
            session.client.stamps[PREGREET] = now + policy.ttl[PREGREET]
            session.flags |= bits(PASS, PREGREET)
        elif session.flags & bits(FAIL, PREGREET) and policy.actions[PREGREET] == ACTION_IGNORE:
            session.flags &= ~bits(FAIL, PREGREET)
    if session.flags & bits(TODO, DNSBL):
        score = lookup_score(core, session)
        lookup_leave(core, session)
        session.score = score.total
        event(core, session, EVENT_RANK, score.total)
        if score_allows(session, &score):
            allow_all(core, session, score.ttl)
        if score.highest < policy.threshold:
            session.client.stamps[DNSBL] = now + score.ttl
            session.flags |= bits(PASS, DNSBL)
        elif not greet_dnsbl_failed(core, session, &score):
            return
    if session.flags & NO_FORWARD or needs_dialogue(session):
        dialogue_begin(core, session)
    else:
        session_conclude(core, session)


cdef bint greet_dnsbl_failed(Screener core, Session* session, const Score* score) noexcept:
    """The client is listed, or may be. False: the session is over."""
    cdef Policy policy = <Policy> session.policy
    cdef bint unsure = score.lowest < policy.threshold
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put("DNSBL rank " if score.total >= policy.threshold else "DNSBL UNSURE rank ")
    core.log.put_number(score.total if score.total >= policy.threshold else score.highest)
    core.log.put(" for ")
    core.log.put_address(&session.peer)
    core.log.end()
    session.list = score.top
    if policy.spared[DNSBL] != ACTION_IGNORE:
        shadow_step(core, session, DNSBL, listed_text(session, b"421 4.7.1" if unsure else b"521 5.7.1"),
                    listed_text(session, b"450 4.7.1" if unsure else b"550 5.7.1"))
    if policy.actions[DNSBL] == ACTION_IGNORE:
        return True
    session.flags |= bits(FAIL, DNSBL) | NO_FORWARD
    session.verdict = VERDICT_DNSBL_UNSURE if unsure else VERDICT_DNSBL
    if policy.actions[DNSBL] == ACTION_ENFORCE:
        return True
    session_turn_away(core, session, listed_text(session, b"421 4.7.1" if unsure else b"521 5.7.1"))
    return False


cdef bytes listed_text(Session* session, bytes code):
    """What a client is told that `session.list` lists; or may be listed, by a list that could not be asked."""
    cdef char text[64]
    if session.list < 0:
        return code[:4] + NOT_NOW
    return b"%b Service unavailable; client [%b] blocked using %b\r\n" % (
        code, text[:address_text(&session.peer, text)],
        (<Policy> session.policy).lists.lists[session.list].shown)
