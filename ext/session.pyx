# A connection from top to bottom: accept, checks at connect, (the greet wait, in greet.pyx, the dummy engine, in
# smtp_engine.pyx,) conclusion, hand-off (in mta_handoff.pyx) or disconnect. Section numbers are the reference's.

# ---- accept

cdef void listener_readable(Screener core, Listener* listener) noexcept:
    """Accept waiting connections, up to a limit, so that a burst does not delay clients under test."""
    cdef sockaddr_storage name
    cdef uint32_t size
    cdef int fd, left = ACCEPT_BATCH
    cdef Address peer, server
    if listener == &core.inbox:
        inbox_readable(core, listener.fd)
        return
    while left and not core.accept_paused:
        left -= 1
        if core.handoffs >= core.policy.post_queue and core.now < core.mta_busy_since + MTA_BUSY_TIME:
            core.pause_accept(MTA_BUSY_TIME)    # a burst: the MTA had no time yet to accept the earlier clients
            return
        size = sizeof(name)
        fd = accept4(listener.fd, <sockaddr*> &name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                core.tell("accept", f"accept: {os.strerror(errno)}: no new client until another leaves")
                core.pause_accept(ACCEPT_RETRY_TIME)
            elif errno not in (ECONNABORTED, EINTR):
                return
            continue
        server = listener.address
        if not address_of(&name, &peer) or (listener.wildcard and not server_address(fd, &server)):
            refuse(fd)              # 2.3 step 1
        elif listener.trusted != NULL:
            arrival_begin(core, fd, &peer, &server, listener)
        else:
            session_begin(core, fd, &peer, &server)
    core.more = core.more or left == 0


cdef void refuse(int fd) noexcept:
    """Reject a connection without a session."""
    farewell(fd, NO_RESOURCES)


cdef void farewell(int fd, bytes reply) noexcept:
    send(fd, <const char*> reply, len(reply), MSG_DONTWAIT | MSG_NOSIGNAL)
    close(fd)


cdef bint server_address(int fd, Address* address) noexcept:
    cdef sockaddr_storage name
    cdef uint32_t size = sizeof(name)
    return getsockname(fd, <sockaddr*> &name, &size) == 0 and address_of(&name, address)


# ---- checks at connect (2.3)

cdef void session_begin(Screener core, int fd, const Address* peer, const Address* server, bint quiet=False,
                        bint proxied=False) noexcept:
    """Decide whether a new connection is rejected, handed off to the MTA, or tested. quiet: see Session. proxied: a
    PROXY header has named the client."""
    cdef Policy policy = core.policy
    cdef Session* session = session_new(core, fd, peer, server)
    cdef int decision
    if session == NULL:
        refuse(fd)
        return
    session.quiet = quiet
    session.proxied = proxied
    if not quiet:
        log_connect(core, session)
    event(core, session, EVENT_CONNECT, server.port)
    stress_rise(core)
    if core.stress:
        session.marks |= MARK_STRESS
    if policy.client_limit > 0 and <int32_t> session_count(session) > policy.client_limit:
        session.marks |= MARK_CLIENT_LIMIT
        log_begin(core, session, "NOQUEUE: reject: CONNECT from ")
        core.log.put(": too many connections")
        core.log.end()
        if not policy.shadow:
            event(core, session, EVENT_BUSY, 1, "too many connections", 20)
            session_farewell(core, session, TOO_MANY, OUTCOME_BUSY)
            return
        shadow_tell(core, session, TOO_MANY)
    if core.handoffs >= policy.post_queue or policy.targets is not None and core.relays >= policy.relay_limit:
        log_begin(core, session, "NOQUEUE: reject: CONNECT from ")
        core.log.put(": all server ports busy")
        core.log.end()
        event(core, session, EVENT_BUSY, 2, "all server ports busy", 21)
        session.marks |= MARK_SERVER_PORTS
        session_farewell(core, session, MTA_BUSY, OUTCOME_BUSY)
        return
    decision = access_decision(core, policy, peer)
    if decision == ACCESS_PERMIT:
        log_about(core, session, "ALLOWLISTED " if policy.respectful else "WHITELISTED ")
        event(core, session, EVENT_ALLOWLISTED)
        session.marks |= MARK_ALLOWLISTED
        handoff_begin(core, session)
        return
    if decision == ACCESS_REJECT:
        log_aloud(core, session)
        log_about(core, session, "DENYLISTED " if policy.respectful else "BLACKLISTED ")
        event(core, session, EVENT_DENYLISTED)
        session.marks |= MARK_DENYLISTED
        shadow_step(core, session, DENYLIST)
        if policy.denylist_action == ACTION_DROP:
            session_farewell(core, session, DENIED_AT_ONCE, OUTCOME_REJECTED)
            return
        if policy.denylist_action == ACTION_ENFORCE:
            session.flags |= DENYLIST_FAIL | NO_FORWARD
            session.verdict = VERDICT_DENYLISTED
    elif core.bypassing():
        log_about(core, session, "BYPASSED ")
        event(core, session, EVENT_BYPASSED)
        session.marks |= MARK_BYPASSED
        handoff_begin(core, session)
        return
    if session.flags & DENYLIST_FAIL:
        tests_all_needed(session)       # not by the record, which others in its network may share
    elif stamps_unread(session) and stamps_look_up(core, session):
        session.client.looked_up = True
        tests_needed(session)
        if session.todo & bit(SCORE) and policy.defer_from:
            deferral_over(core, session)
        if not session.todo:
            log_about(core, session, "PASS OLD ")
            event(core, session, EVENT_CACHED)
            session.marks |= MARK_CACHED | MARK_PASSED
            handoff_begin(core, session)
            return
    else:
        if stamps_unread(session):
            session.client.looked_up = True
            memset(session.client.stamps, 0, sizeof(session.client.stamps))
        tests_needed(session)
    session.needed = <uint16_t> session.todo
    if (policy.client_rate or policy.network_rate) and not session.quiet and rate_exceeded(core, peer):
        log_begin(core, session, "NOQUEUE: reject: CONNECT from ")
        core.log.put(": connection rate limit exceeded")
        core.log.end()
        session.marks |= MARK_RATE_LIMIT
        if not policy.shadow:
            event(core, session, EVENT_BUSY, 4, "connection rate limit exceeded", 30)
            session_farewell(core, session, TOO_MANY, OUTCOME_BUSY)
            return
        shadow_tell(core, session, TOO_MANY)
    if policy.interfaces is not None and access_step(core, policy.interfaces, server) != ACCESS_PERMIT:
        session.flags |= VETOED                         # the MX policy
        log_about(core, session, "ALLOWLIST VETO " if policy.respectful else "WHITELIST VETO ")
        event(core, session, EVENT_VETOED, server.port)
        if policy.shadow:
            shadow_tell(core, session, LATER)
        else:
            session.flags |= NO_FORWARD
    if unrelayed(core) - core.handoffs > policy.pre_queue:
        log_begin(core, session, "reject: connect from ")
        core.log.put(": all screening ports busy")
        core.log.end()
        session.marks |= MARK_SCREENING_PORTS
        if not policy.shadow:
            event(core, session, EVENT_BUSY, 3, "all screening ports busy", 24)
            session_farewell(core, session, SCREENING_BUSY, OUTCOME_BUSY)
            return
        shadow_tell(core, session, SCREENING_BUSY)
        handoff_begin(core, session)
        return
    if core.history.fingerprints and not proxied:
        syn_take(fd, session.syn)
    if session.todo & GREET_TESTS:
        greet_begin(core, session)
    elif session.todo or session.flags & NO_FORWARD:
        dialogue_begin(core, session)
    else:
        session_conclude(core, session)


cdef inline bint screened_alone(Session* session) noexcept:
    """This is the client's only session, apart from relayed sessions, which are no longer tested."""
    return session.client.sessions - session.client.relayed == 1


cdef inline bint stamps_unread(Session* session) noexcept:
    """Whether the client's record must be looked up: by its only session (reference 2.3), or by the first one that is
    not from a denied address."""
    return screened_alone(session) or not session.client.looked_up


cdef void tests_all_needed(Session* session) noexcept:
    """All enabled tests are needed, as for a client that is not in the cache."""
    session.flags |= IS_NEW
    session.todo = (<Policy> session.policy).enabled


cdef void tests_needed(Session* session) noexcept:
    """Which tests this client needs now, by the stamps of its record (2.4)."""
    cdef Policy policy = <Policy> session.policy
    cdef int64_t now = wall_seconds()
    cdef int test
    for test in range(TEST_COUNT):
        if session.client.stamps[test] == 0:
            session.flags |= IS_NEW
        if policy.enabled & bit(test) and now > session.client.stamps[test]:
            session.todo |= bit(test)
    if deferral_time(session.client.stamps[SCORE]):
        session.flags |= WAS_DEFERRED


cdef bint stamps_look_up(Screener core, Session* session) noexcept:
    """Read the client's record from the cache into memory (7.1). False: it is not in the cache."""
    cdef int64_t* stamps = session.client.stamps
    cdef bytes record, text
    cdef uint8_t key[17]
    cdef int test
    cdef size_t size
    if core.cache is None:
        return False
    try:
        size = cache_key(&core.policy.cache_prefix, &session.client.entry.address, key)
        text = (<char*> key)[:size]
        record = core.cache.record(text)
        if record is None and not prefix_is_whole(&core.policy.cache_prefix, session.peer.family):
            # The network's record is missing: there may be one from before the cache used prefixes.
            size = whole_key(&session.peer, key)
            text = (<char*> key)[:size]
            record = core.cache.record(text)
        if record is None:
            core.cache_misses += 1
            return False
        core.cache_hits += 1
        if not record_read(<const uint8_t*> <const char*> record, len(record), stamps):
            for test, stamp in enumerate(core.cache.lookup(text)):
                stamps[test] = stamp
        return True
    except Exception as error:
        core.problem("cache lookup", error)
        return False


# ---- shadow mode: what would have been replied

cdef void shadow_step(Screener core, Session* session, int test) noexcept:
    """A test failed (or the denylist has the client). If only shadow mode prevents a rejection, log the reply that the
    client would have received."""
    cdef int spared = (<Policy> session.policy).spared[test]
    if spared != ACTION_IGNORE:
        shadow_tell(core, session, refusal(session, test, spared == ACTION_DROP))


cdef void shadow_tell(Screener core, Session* session, bytes reply) noexcept:
    if (<Policy> session.policy).soft_bounce:
        reply = softened(reply)
    session.marks |= MARK_SPARED
    if session.spared not in (421, 521):        # it would have been the last reply
        session.spared = <uint16_t> reply_code(reply)
    log_begin(core, session, "SHADOW from ")
    core.log.put(": would have replied: ")
    core.log.put_bytes(reply, len(reply) - 2)
    core.log.end()
    event(core, session, EVENT_SPARED, 0, reply, len(reply) - 2)


cdef inline bint fails(const Session* session) noexcept nogil:
    """There is evidence against the client: it passes no test."""
    return (session.failed | (session.flags & BARRED)) != 0


cdef inline bint needs_dialogue(Session* session) noexcept:
    """True if a deep test is needed and not passed yet."""
    return session.todo & DEEP_TESTS & ~session.passed != 0


# ---- conclusion (2.7)

cdef void session_conclude(Screener core, Session* session) noexcept:
    """No test is left: log and store what was passed, then hand off the client."""
    session_remember(core, session)
    if session.flags & NO_FORWARD:
        session_part(core, session)
        return
    if (<Policy> session.policy).doubtful_from and not doubtful_begin(core, session, False):
        return
    handoff_begin(core, session)


cdef void session_farewell(Screener core, Session* session, bytes reply,
                           HistoryOutcome outcome=OUTCOME_LEFT) noexcept:
    """Send the last reply to a client; the tests that it passed before are stored. outcome: LEFT if the reply is not
    about the client; a verdict from before remains."""
    session.flags |= NO_FORWARD
    if reply[0] != c"2":            # not for the reply to QUIT
        count_turned_away(core, session)
    session_remember(core, session)
    send_at_once(session.fd)
    session_reply(core, session, reply)
    if reply is NO_RESOURCES:
        outcome = OUTCOME_FAILED
    if outcome != OUTCOME_LEFT:
        history_decide(session, outcome)
    elif not session.told and reply[0] != c"2":
        session.told = session.reply
    session_part(core, session)


cdef void session_hung_up(Screener core, Session* session) noexcept:
    """The client left, or cannot be written to: the tests that it passed still count."""
    log_hangup(core, session)
    event(core, session, EVENT_HANGUP, core.now - session.began)
    session.flags |= NO_FORWARD | HUNG_UP
    session_remember(core, session)
    session_part(core, session)


cdef void session_remember(Screener core, Session* session) noexcept:
    """Log the pass and store it, once per session."""
    cdef Policy policy = <Policy> session.policy
    if fails(session):
        session.passed = 0
    if session.flags & CONCLUDED or not session.passed:
        return
    session.flags |= CONCLUDED
    if session.passed == session.todo:
        if session.flags & IS_NEW and session.client.new_logged == 0:
            session.client.new_logged += 1
            log_about(core, session, "PASS NEW ")
            event(core, session, EVENT_PASSED, True)
            session.marks |= MARK_PASSED | MARK_NEW
        else:
            session.marks |= MARK_PASSED
            log_about(core, session, "PASS OLD ")
            event(core, session, EVENT_PASSED, False)
    stamps_keep(core, session.client, policy, True)


cdef void stamps_keep(Screener core, const Client* client, Policy policy, bint share) noexcept:
    """Write a client's record to the cache. share: other hosts may learn of it."""
    cdef int64_t stamps[TEST_COUNT]
    cdef uint8_t record[RECORD_SIZE]
    cdef uint8_t key[17]
    cdef size_t key_size, size
    cdef int test
    for test in range(TEST_COUNT):
        stamps[test] = client.stamps[test]
        if stamps[test] < 0 or stamps[test] == 0 and not policy.enabled & bit(test):
            stamps[test] = 1
    key_size = cache_key(&policy.cache_prefix, &client.entry.address, key)
    size = record_write(stamps, record)
    if share:
        cluster_keep(core, key, key_size, record, size)
    if core.cache is None:
        return
    try:
        core.cache.keep((<char*> key)[:key_size], (<char*> record)[:size])
    except Exception as error:
        core.problem("cache update", error)


cdef void session_part(Screener core, Session* session) noexcept:
    """End a session that was not handed off."""
    if session.verdict != VERDICT_LATER:
        count_turned_away(core, session)
    log_about(core, session, "DISCONNECT ")
    event(core, session, EVENT_DISCONNECT, core.now - session.accepted)
    session_free(core, session)


# ---- the session itself

cdef Session* session_new(Screener core, int fd, const Address* peer, const Address* server) noexcept:
    """NULL: out of memory."""
    cdef Session* session = <Session*> calloc(1, sizeof(Session))
    if session == NULL:
        return NULL
    session.client = client_join(core.clients, peer, &core.policy.cache_prefix)
    if session.client == NULL:
        free(session)
        return NULL
    if core.policy.counts_apart:
        session.count = count_join(core.counts, peer, &core.policy.count_prefix)
        if session.count == NULL:
            client_leave(core.clients, session.client)
            free(session)
            return NULL
    session.fd = fd
    session.mta = -1
    session.peer = peer[0]
    session.server = server[0]
    session.accepted = session.began = core.now
    session.score = NO_SCORE
    session.list = -1
    core.last_number = core.last_number + 1 or 1
    session.number = core.last_number
    session.policy = <PyObject*> core.policy
    Py_INCREF(core.policy)
    session.next = core.all
    if core.all != NULL:
        core.all.prev = session
    core.all = session
    core.sessions += 1
    core.accepted += 1
    core.stages[session.stage] += 1
    return session


cdef inline void session_enter(Screener core, Session* session, Stage stage) noexcept:
    core.stages[session.stage] -= 1
    session.stage = stage
    core.stages[<int> stage] += 1


cdef void session_free(Screener core, Session* session) noexcept:
    """Close and forget a session; its memory is freed at the end of this batch, because callers may still use it."""
    history_end(core, session)
    free(session.part)
    session.part = NULL
    core.timers.cancel(&session.timer)
    lookup_leave(core, session)
    cluster_leave(session)
    relay_free(core, session)
    dialogue_free(session)
    session_unwatch(core, session)
    if session.fd >= 0:
        close(session.fd)
        session.fd = -1
    if session.mta >= 0:
        close(session.mta)
        session.mta = -1
    if session.flags & COUNTED_HANDOFF:
        handoff_uncount(core, session)
    slow_leave(core, session)
    if session.flags & IN_TLS:
        core.in_tls -= 1
    client_leave(core.clients, session.client)
    if session.count != NULL:
        count_leave(core.counts, session.count)
    if session.prev != NULL:
        session.prev.next = session.next
    else:
        core.all = session.next
    if session.next != NULL:
        session.next.prev = session.prev
    core.sessions -= 1
    stress_fall(core)
    Py_DECREF(<Policy> session.policy)
    session.policy = NULL
    core.stages[session.stage] -= 1
    session.stage = STAGE_GONE
    session.next = core.gone
    core.gone = session


cdef bint session_watch(Screener core, Session* session, bint reading) noexcept:
    """Watch for a hang-up, and for bytes if wanted. False: the kernel is out of memory for it."""
    cdef uint32_t events = EPOLLRDHUP | (EPOLLIN if reading else 0)
    return core.watches.watch(&session.watch, core.epoll, session.fd, events, session, TAG_CLIENT)


cdef void session_unwatch(Screener core, Session* session) noexcept:
    """Call this before a descriptor is closed or passed on."""
    core.watches.unwatch(&session.watch)


cdef void session_event(Screener core, Session* session, uint32_t events) noexcept:
    """Something happened on the client's descriptor."""
    if session.stage == STAGE_GREET:
        greet_readable(core, session, events)
    elif session.stage == STAGE_DIALOGUE:
        dialogue_readable(core, session, events)
    elif session.stage in (STAGE_MTA, STAGE_CONTINUE) and events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        session_hung_up(core, session)


# ---- replies

cdef void session_reply(Screener core, Session* session, bytes reply) noexcept:
    """Send a reply, with soft_bounce and footer applied (5.8, 5.9). It is lost if the client does not accept it."""
    cdef Policy policy = <Policy> session.policy
    cdef char text[64]
    if policy.soft_bounce:
        reply = softened(reply)
    if policy.footer is not None and reply[0] in (c"4", c"5"):
        try:
            reply = policy.footer(reply, text[:address_text(&session.peer, text)].decode(), session.peer.port)
        except Exception as error:
            core.problem("reject footer", error)
    session.reply = <uint16_t> max(0, reply_code(reply))
    event(core, session, EVENT_REPLY, 0, reply, len(reply) - 2)
    session_send(core, session, reply)


cdef bytes softened(bytes reply):
    """soft_bounce: 5xx 5.x.x becomes 4xx 4.x.x."""
    if reply[:1] != b"5":
        return reply
    return b"4" + reply[1:4] + (b"4" if reply[4:5] == b"5" else reply[4:5]) + reply[5:]


cdef bint session_send(Screener core, Session* session, bytes data) noexcept:
    """Write; what the client does not accept now is sent before the next reply (5.10). False: the client is gone."""
    cdef Dialogue* dialogue = session.dialogue
    cdef const char* text = data
    cdef size_t size = len(data)
    cdef Py_ssize_t sent = 0
    if dialogue != NULL and dialogue.unsent_length:
        if not dialogue_keep(dialogue, text, size):
            return False
        sent = send(session.fd, dialogue.unsent, dialogue.unsent_length, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            dialogue.unsent_length -= <uint32_t> sent
            memmove(dialogue.unsent, dialogue.unsent + sent, dialogue.unsent_length)
        return sent >= 0 or errno == EAGAIN
    sent = send(session.fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0 and errno != EAGAIN:
        return False
    sent = max(sent, 0)
    if <size_t> sent < size and dialogue != NULL:
        return dialogue_keep(dialogue, text + sent, size - sent)
    return True


cdef void send_at_once(int fd) noexcept:
    """Call this before a last reply. If bytes of the client's stay unread, the close is a reset, and the client loses a
    reply that the kernel holds back until an earlier one is acknowledged (RFC 896)."""
    cdef int on = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))


# ---- stress (2.9)

cdef inline int32_t unrelayed(Screener core) noexcept:
    """The number of sessions that are work for the screener."""
    return core.sessions - core.relayed


cdef void stress_rise(Screener core) noexcept:
    if core.stress or unrelayed(core) < core.policy.stress_on:
        return
    core.stress = True
    log_stress(core, "entering")
    event_about(core, EVENT_STRESS_ON, NULL, -1, unrelayed(core))


cdef void stress_fall(Screener core) noexcept:
    if not core.stress or unrelayed(core) > core.policy.stress_off:
        return
    core.stress = False
    log_stress(core, "leaving")
    event_about(core, EVENT_STRESS_OFF, NULL, -1, unrelayed(core))


# ---- log lines that several steps write (6.2)

cdef void log_stress(Screener core, const char* what) noexcept:
    core.log.begin(PRIORITY_INFO, False)
    core.log.put(what)
    core.log.put(" STRESS mode with ")
    core.log.put_number(unrelayed(core))
    core.log.put(" connections")
    core.log.end()


cdef void log_connect(Screener core, Session* session) noexcept:
    core.log.begin(PRIORITY_INFO, False)
    core.log.put("CONNECT from ")
    core.log.put_address(&session.peer)
    core.log.put(" to ")
    core.log.put_address(&session.server)
    core.log.end()


cdef void log_aloud(Screener core, Session* session) noexcept:
    """A session has something to log, so it is not a health check: log it from its beginning."""
    if session.quiet:
        session.quiet = False
        log_connect(core, session)


cdef void log_begin(Screener core, Session* session, const char* what) noexcept:
    """Begin a line about a session: its words, then [address]:port."""
    log_aloud(core, session)
    core.log.begin(PRIORITY_INFO, False)
    core.log.put(what)
    core.log.put_address(&session.peer)


cdef void log_about(Screener core, Session* session, const char* what) noexcept:
    if session.quiet:
        return
    log_begin(core, session, what)
    core.log.end()


cdef void log_hangup(Screener core, Session* session) noexcept:
    if session.quiet:
        return
    core.log.begin(PRIORITY_INFO, False)
    core.log.put("HANGUP after ")
    core.log.put_delay(core.now - session.began)
    core.log.put(" from ")
    core.log.put_address(&session.peer)
    core.log.put(" in tests ")
    core.log.put("after" if session.dialogue != NULL else "before")
    core.log.put(" SMTP handshake")
    core.log.end()
