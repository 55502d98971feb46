# The tests before the SMTP handshake, and the score (reference 2.5, 3, 4). While a client waits for its greeting, it
# must be silent, and the DNS lists are queried about it; then its score decides. Meanwhile other hosts may turn out to
# have passed it (cluster.pyx), which ends the wait.

# ---- the greet wait

cdef void greet_begin(Screener core, Session* session) noexcept:
    """Send half a greeting, query the lists, and wait."""
    cdef Policy policy = <Policy> session.policy
    session_enter(core, session, STAGE_GREET)
    session.began = core.now
    session.made = <uint16_t> (session.todo & GREET_TESTS)
    event(core, session, EVENT_GREET, policy.greet_wait[core.stress])
    if session.todo & bit(PREGREET) and not session_send(core, session, policy.teaser):
        session_hung_up(core, session)
        return
    if not session_watch(core, session, session.todo & bit(PREGREET)):
        session_farewell(core, session, NO_RESOURCES)
        return
    core.timers.arm(&session.timer, TIMER_GREET, policy.greet_wait[core.stress], core.now)
    if core.cluster.accepts:
        cluster_ask(core, session)
    if session.todo & bit(DNSBL) and lookup_join(core, session) != NULL and session.lookup.pending == 0:
        greet_dnsbl_done(core, session)


cdef void greet_readable(Screener core, Session* session, uint32_t events) noexcept:
    """The client sent something before its turn, or left. Nothing is consumed: the MTA or the engine reads it later."""
    cdef Policy policy = <Policy> session.policy
    cdef Py_ssize_t got
    if not events & EPOLLIN or (session.failed | session.done) & bit(PREGREET):
        session_hung_up(core, session)
        return
    got = recv(session.fd, core.feed, PEEK_SIZE, MSG_PEEK | MSG_DONTWAIT)
    if got <= 0:
        if got == 0 or errno not in (EAGAIN, EINTR):
            session_hung_up(core, session)
        return
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put(TEST_TABLE[PREGREET].log_words)
    core.log.put(" ")
    core.log.put_number(got)
    core.log.put(" after ")
    core.log.put_delay(core.now - session.began)
    core.log.put(" from ")
    core.log.put_address(&session.peer)
    core.log.put(": ")
    core.log.put_escaped(core.feed, got, LOGGED_TEXT)
    core.log.end()
    session.failed |= bit(PREGREET)
    session.found |= bit(PREGREET)
    session.done |= bit(PREGREET)
    event_said(core, session, EVENT_PREGREET, got, core.feed, got)
    shadow_step(core, session, PREGREET)
    if policy.actions[PREGREET] == ACTION_DROP:
        session_farewell(core, session, PROTOCOL_ERROR, OUTCOME_REJECTED)
        return
    if policy.actions[PREGREET] == ACTION_ENFORCE:
        session.flags |= NO_FORWARD
        session.verdict = VERDICT_PROTOCOL
    session_watch(core, session, False)
    if session.todo & ~session.done & bit(DNSBL):
        return                                  # the lists have the rest of the greet wait
    greet_end(core, session)


cdef void greet_dnsbl_done(Screener core, Session* session) noexcept:
    """Every list has answered: an allowlist may end the greet wait (4.5)."""
    cdef Score score
    if session.stage != STAGE_GREET or session.done & bit(DNSBL):
        return
    session.done |= bit(DNSBL)
    score = session_score(core, session)
    session.score = <int32_t> score.total
    if score_allows(session, &score):
        allow_all(core, session, score.ttl)
    if not session.todo & ~session.done & bit(PREGREET):
        greet_end(core, session)


cdef bint score_allows(Session* session, const Score* score) noexcept:
    cdef Policy policy = <Policy> session.policy
    return (policy.allow_threshold < 0 and score.highest <= policy.allow_threshold
            and score.highest < policy.threshold and not fails(session))


cdef void allow_all(Screener core, Session* session, int64_t ttl) noexcept:
    """The client is allowlisted: every other test counts as passed (4.5)."""
    cdef int64_t until = wall_seconds() + ttl
    cdef uint32_t others = ((<Policy> session.policy).enabled | ~OWN_TESTS) & ~bit(DNSBL)
    cdef int test
    session.marks |= MARK_LISTS_ALLOW
    for test in range(TEST_COUNT):
        if not others & bit(test):
            continue
        if session.todo & ~session.passed & bit(test):
            session.passed |= bit(test)
            session.done |= bit(test)
        if session.client.stamps[test] < until:
            session.client.stamps[test] = until


cdef void greet_shared(Screener core, Session* session) noexcept:
    """Another host has passed the client: no test is repeated that it passed there. When nothing is left to wait for,
    the greet wait is over. What the client failed here counts all the same, and so do the lists' answers."""
    cdef uint32_t answered = session.todo & session.done & bit(DNSBL)
    if session.stage != STAGE_GREET or fails(session):
        return
    session.todo = answered
    session.flags &= ~(IS_NEW | WAS_DEFERRED)
    tests_needed(session)
    session.passed &= session.todo
    session.made &= <uint16_t> session.todo
    session.marks |= MARK_SHARED
    if not session.todo & bit(DNSBL) and session.lookup != NULL:
        history_lists(core, session)
        lookup_leave(core, session)
    if session.todo & GREET_TESTS & ~session.done:
        session_watch(core, session, session.todo & bit(PREGREET))
        return
    core.cluster.ended += 1
    if session.todo:
        greet_end(core, session)
        return
    core.timers.cancel(&session.timer)
    log_about(core, session, "PASS OLD ")
    event(core, session, EVENT_CACHED, 1)
    session.marks |= MARK_CACHED | MARK_PASSED
    handoff_begin(core, session)


cdef void greet_end(Screener core, Session* session) noexcept:
    """The greet wait is over: decide (2.5)."""
    cdef Policy policy = <Policy> session.policy
    cdef int64_t now = wall_seconds()
    cdef Score score
    core.timers.cancel(&session.timer)
    cluster_leave(session)
    if session.todo & bit(PREGREET):
        if not (session.failed | session.done) & bit(PREGREET):
            session.client.stamps[PREGREET] = now + policy.ttl[PREGREET]
            session.passed |= bit(PREGREET)
        elif session.failed & bit(PREGREET) and policy.actions[PREGREET] == ACTION_IGNORE:
            session.failed &= ~bit(PREGREET)
    if session.todo & bit(DNSBL):
        score = session_score(core, session)
        session.marks |= MARK_LISTS_JUDGED | (MARK_UNSETTLED if score.unsettled else 0)
        session.pass_seconds = <uint32_t> score.ttl
        history_lists(core, session)
        lookup_leave(core, session)
        session.score = <int32_t> score.total
        event(core, session, EVENT_RANK, score.total)
        if score_allows(session, &score):
            allow_all(core, session, score.ttl)
        if score.highest < policy.threshold:
            session.client.stamps[DNSBL] = now + score.ttl
            session.passed |= bit(DNSBL)
        elif session_may_save(session, &score):
            session.lists_open = True
        elif not greet_dnsbl_failed(core, session, &score):
            return
    if session.flags & NO_FORWARD or needs_dialogue(session):
        dialogue_begin(core, session)
    else:
        session_conclude(core, session)


cdef bint greet_dnsbl_failed(Screener core, Session* session, const Score* score) noexcept:
    """The client is listed, or may be. False: the session has ended."""
    cdef Policy policy = <Policy> session.policy
    log_rank(core, session, DNSBL, score)
    core.log.end()
    session.found |= bit(DNSBL)
    shadow_step(core, session, DNSBL)
    if policy.actions[DNSBL] == ACTION_IGNORE:
        return True
    session.failed |= bit(DNSBL)
    session.flags |= NO_FORWARD
    session.verdict = VERDICT_SCORE
    if policy.actions[DNSBL] == ACTION_ENFORCE:
        return True
    session_farewell(core, session, blocked_text(session, True), OUTCOME_REJECTED)
    return False


cdef inline bint session_may_save(const Session* session, const Score* score) noexcept:
    """Scorers with a negative weight may still bring the score of a listed client below the threshold."""
    cdef Policy policy = <Policy> session.policy
    return (policy.weights_below < 0 and session.todo & ~session.done & bit(SCORE) != 0 and not fails(session)
            and score.total + policy.weights_below < policy.threshold)


cdef bint lists_settle(Screener core, Session* session) noexcept:
    """At a recipient: the lists had reached the threshold, and now the scorers with a negative weight have spoken. The
    others count for the score test only. False: the session has ended."""
    cdef Policy policy = <Policy> session.policy
    cdef Score score
    if session.dialogue.sender == NULL:
        return True                     # this is not a recipient: they have not heard MAIL
    session.lists_open = False
    score = session_score(core, session, True)
    if score.highest >= policy.threshold:
        return session.verdict != VERDICT_LATER or greet_dnsbl_failed(core, session, &score)
    session.client.stamps[DNSBL] = wall_seconds() + session.pass_seconds
    session.passed |= bit(DNSBL)
    return True


# ---- the score

cdef Score session_score(Screener core, Session* session, bint only_negative=False) noexcept:
    """The sum of all scorers for a client, or of the lists and those with a negative weight. The lists' part is fixed
    at the end of the greet wait."""
    cdef Policy policy = <Policy> session.policy
    cdef Score score
    cdef int scorer
    cdef int32_t weight, heaviest = 0
    if session.stage == STAGE_GREET and session.todo & bit(DNSBL):
        score = lookup_score(core, session)
        session.lists_total = <int32_t> score.total
        session.lists_lowest = <int32_t> score.lowest
        session.lists_highest = <int32_t> score.highest
        session.list = <int16_t> score.top
    else:
        score.total = session.lists_total
        score.lowest = session.lists_lowest
        score.highest = session.lists_highest
        score.top = session.list
        score.ttl = 0
        score.unsettled = False
    score.scorer = SCORER_LISTS
    if not policy.weighted or not (session.todo & bit(SCORE) or session.evidence):
        return score
    for scorer in range(SCORER_LISTS + 1, SCORER_COUNT):
        weight = policy.weights[scorer]
        if only_negative and weight >= 0:
            continue
        if session.evidence & bit(scorer):
            score.total += weight
            score.lowest += weight
            score.highest += weight
            if weight > heaviest:
                heaviest = weight
                score.scorer = scorer
        elif weight < 0 and not scorer_is_final(scorer, session):
            score.lowest += weight
    return score


cdef inline void scorers_hear(Screener core, Session* session, Heard heard, const char* text, size_t size) noexcept:
    """Let scorers judge a client under test, unless it has failed the score test already. text: what they judge, or
    describes it in the log."""
    if (<Policy> session.policy).weighted & HEARD_SCORERS[<int> heard] and session.todo & ~session.done & bit(SCORE):
        scorers_judge(core, session, heard, text, size)


cdef void scorers_judge(Screener core, Session* session, Heard heard, const char* text, size_t size) noexcept:
    """The result replaces the earlier one."""
    cdef Policy policy = <Policy> session.policy
    cdef uint32_t asked = policy.weighted & HEARD_SCORERS[<int> heard]
    cdef uint32_t before = session.evidence
    cdef int scorer
    session.heard |= <uint8_t> bit(<int> heard)
    session.evidence &= ~HEARD_SCORERS[<int> heard]
    session.evidence |= HEARD_HOOKS[<int> heard](policy, session, asked, text, size) & asked
    if session.evidence == before:
        return
    session.score = <int32_t> session_score(core, session).total
    for scorer in range(SCORER_COUNT):
        if session.evidence & ~before & bit(scorer):
            evidence_found(core, session, scorer, text, size)


cdef void evidence_found(Screener core, Session* session, int scorer, const char* text, size_t size) noexcept:
    cdef int32_t weight = (<Policy> session.policy).weights[scorer]
    cdef char shown[80]
    cdef int length
    log_begin(core, session, "SCORE from ")
    core.log.put(": ")
    core.log.put(SCORER_TABLE[scorer].key)
    core.log.put(" +" if weight > 0 else " ")
    core.log.put_number(weight)
    core.log.put(": ")
    core.log.put_escaped(text, min(size, <size_t> LOGGED_TEXT), 4 * LOGGED_TEXT)
    core.log.end()
    length = snprintf(shown, sizeof(shown), "%s: %.*s", SCORER_TABLE[scorer].key, <int> min(size, <size_t> LOGGED_TEXT),
                      text)
    event(core, session, EVENT_EVIDENCE, weight, shown, min(<size_t> length, sizeof(shown) - 1))
    if core.ring.header != NULL:
        core.ring.header.evidence[scorer] += 1


cdef bint score_found(Screener core, Session* session, Line* line, const char* rest, const char* end,
                      int before) noexcept:
    """At a recipient: whether the evidence of the dialogue brings the score to the threshold. Without evidence, or if
    another test has already decided, there is nothing to judge."""
    cdef Score score
    cdef char parts[512]
    cdef size_t length
    if not session.evidence or session.verdict != VERDICT_LATER or session.dialogue.sender == NULL:
        return False
    score = session_score(core, session)
    if score.highest < (<Policy> session.policy).threshold:
        return False
    length = score_parts(session, parts, sizeof(parts))
    log_rank(core, session, SCORE, &score)
    core.log.put(": ")
    core.log.put_bytes(parts, length)
    core.log.end()
    event(core, session, EVENT_SCORE, score.total, parts, length)
    return True


cdef size_t score_parts(Session* session, char* text, size_t room) noexcept:
    """Add each scorer that contributes, and its part: `dnsbl 3, helo_address 2`."""
    cdef Policy policy = <Policy> session.policy
    cdef const char* separator = ""
    cdef size_t length = 0
    cdef int scorer
    cdef int32_t part
    for scorer in range(SCORER_COUNT):
        part = session.lists_total if scorer == SCORER_LISTS else 0
        if session.evidence & bit(scorer):
            part = policy.weights[scorer]
        if part and length + 64 < room:
            length += snprintf(text + length, room - length, "%s%s %d", separator, SCORER_TABLE[scorer].key, <int> part)
            separator = ", "
    return length


cdef void log_rank(Screener core, Session* session, int test, const Score* score) noexcept:
    """The score reaches the threshold, or may: begin the log line about it, and keep what a reply names."""
    cdef bint reached = score.total >= (<Policy> session.policy).threshold
    session.list = <int16_t> score.top
    session.scorer = <uint8_t> score.scorer
    if score.lowest < (<Policy> session.policy).threshold:
        session.flags |= UNSURE
    else:
        session.flags &= ~UNSURE
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put("DNSBL " if test == DNSBL else "SCORE ")
    core.log.put("rank " if reached else "UNSURE rank ")
    core.log.put_number(score.total if reached else score.highest)
    core.log.put(" for ")
    core.log.put_address(&session.peer)


def evidence_in(str heard, bytes text, str peer, str server, Policy policy, *, bint announced=False, bint in_tls=False,
                bint tls_failed=False, int recipients=0, int answered=0, int refused=0, int times=1):
    cdef Heard kind = {"hello": HEARD_HELLO, "mail": HEARD_MAIL, "recipients": HEARD_RECIPIENTS,
                       "replies": HEARD_REPLIES}[heard]
    cdef Session session
    cdef Dialogue dialogue
    cdef Relay relay
    cdef RelayReplies replies
    cdef uint32_t found = 0
    cdef int _time
    memset(&session, 0, sizeof(session))
    memset(&dialogue, 0, sizeof(dialogue))
    memset(&relay, 0, sizeof(relay))
    memset(&replies, 0, sizeof(replies))
    if not address_parse(peer.encode(), &session.peer) or not address_parse(server.encode(), &session.server):
        raise ValueError(f"not an address: {peer!r} or {server!r}")
    session.dialogue = &dialogue
    session.relay = &relay
    session.flags = (TLS_ANNOUNCED if announced else 0) | (IN_TLS if in_tls else 0)
    dialogue.tls_failed = tls_failed
    session.recipients = recipients
    relay.replies = &replies
    replies.answered = answered
    replies.refused = refused
    for _time in range(times):
        found = HEARD_HOOKS[<int> kind](policy, &session, HEARD_SCORERS[<int> kind], text, len(text))
    return [scorer.key for number, scorer in enumerate(SCORERS) if found >> <int> number & 1]
