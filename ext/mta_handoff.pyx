# Hand-off by descriptor: the MTA gets the client's socket over a Unix socket, with its address, and serves it as if it
# had accepted it (reference 8). If the socket is full, the hand-off waits; if it is missing or refuses, the client gets
# a reply immediately.

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef int64_t HANDOFF_TIME = 100 * 1000000       # 8.1 step 5
cdef int64_t CONFIRM_TIME = 100 * 1000          # how long the end of a hand-off may wait for the next batch
cdef int64_t MTA_TIME = 10 * 1000000            # how long a hand-off waits for a full socket
cdef int64_t DOUBTFUL_TIME = 10 * 1000000 + 1   # the same for doubtful clients: another time is another queue
cdef int64_t MTA_BUSY_TIME = 200 * 1000         # how long a burst waits in the kernel before the reply is 'busy'
cdef int64_t MTA_RETRY_TIME = 5 * 1000          # there is no event when a full socket has room again


cdef enum Handoff:
    HANDOFF_DONE
    HANDOFF_RELAYED         # the client is relayed until it leaves
    HANDOFF_FULL
    HANDOFF_FAILED          # connect failed; errno is set
    HANDOFF_NOT_PASSED      # sendmsg failed; errno is set


cdef void handoff_begin(Screener core, Session* session) noexcept:
    """Queue a client for the MTA; it is passed at the end of this batch of events."""
    core.handoffs += 1
    if core.handoffs == core.policy.post_queue:
        core.mta_busy_since = core.now
    session.flags |= COUNTED_HANDOFF
    session_enter(core, session, STAGE_MTA)
    if session.flags & DOUBTFUL:
        core.doubtful += 1
    if not core.timers.arm(&session.timer, TIMER_MTA, DOUBTFUL_TIME if session.flags & DOUBTFUL else MTA_TIME,
                           core.now):
        errno_set(ENOMEM)
        handoff_tried(core, session, HANDOFF_FAILED)


cdef inline void handoff_uncount(Screener core, Session* session) noexcept:
    """A hand-off is over, whatever came of it."""
    core.handoffs -= 1
    if session.flags & DOUBTFUL:
        core.doubtful -= 1


cdef void handoff_all(Screener core) noexcept:
    """Pass the queued clients. Doubtful ones have a queue of their own: their MTA may be slower than the others'."""
    handoff_queue(core, core.timers.queue(TIMER_MTA, MTA_TIME))
    if core.doubtful:
        handoff_queue(core, core.timers.queue(TIMER_MTA, DOUBTFUL_TIME))


cdef void handoff_queue(Screener core, TimerQueue* queue) noexcept:
    """Pass the clients of a queue, in order, until the MTA's socket is full."""
    cdef Session* session
    cdef Handoff got
    if queue == NULL or queue.head == NULL:
        return
    core.log.flush()                # PASS is in the log before the MTA can log anything
    while queue.head != NULL:
        session = <Session*> queue.head
        got = handoff_try(core, session)
        if got == HANDOFF_FULL:
            handoff_hold(core, queue)
            return
        if got == HANDOFF_RELAYED:
            continue
        core.timers.cancel(&session.timer)
        handoff_tried(core, session, got)


cdef void handoff_hold(Screener core, TimerQueue* queue) noexcept:
    """The socket is full: let up to limits.post_queue clients wait, and try again soon."""
    cdef Session* session = <Session*> queue.tail
    cdef Session* before
    while session != NULL and not session.flags & HELD_FOR_MTA:
        before = <Session*> session.timer.prev
        if core.handoffs > (<Policy> session.policy).post_queue or not session_watch(core, session, False):
            core.timers.cancel(&session.timer)
            handoff_give_up(core, session)
        session.flags |= HELD_FOR_MTA
        session = before
    if core.mta_retry.queue == NULL:
        core.timers.arm(&core.mta_retry, TIMER_MTA_RETRY, MTA_RETRY_TIME, core.now)


cdef void handoff_give_up(Screener core, Session* session) noexcept:
    """The socket was full for too long, or for too many."""
    errno_set(EAGAIN)
    handoff_tried(core, session, HANDOFF_FAILED)


cdef Handoff handoff_try(Screener core, Session* session) noexcept:
    """Connect to the MTA's socket and pass the client."""
    cdef Policy policy = <Policy> session.policy
    cdef sockaddr_un name
    cdef int mta, problem
    cdef Handoff got
    cdef bytes path = policy.doubtful_path if session.flags & DOUBTFUL else policy.mta_path
    if (policy.doubtful_targets if session.flags & DOUBTFUL else policy.targets) is not None:
        got = relay_try(core, session, False)
        return HANDOFF_RELAYED if got == HANDOFF_DONE else got
    mta = core.spare_socket(AF_UNIX)
    if mta < 0:
        return HANDOFF_FULL
    memset(&name, 0, sizeof(name))
    name.sun_family = AF_UNIX
    memcpy(name.sun_path, <const char*> path, len(path))
    if connect(mta, <const sockaddr*> &name, sizeof(name)) < 0:
        problem = errno
        close(mta)
        core.reserve()              # before a new client takes it: this client needs it at the next attempt
        errno_set(problem)
        return HANDOFF_FULL if problem == EAGAIN else HANDOFF_FAILED
    session_unwatch(core, session)
    if pass_client(mta, session) < 0:
        problem = errno
        close(mta)
        core.reserve()
        session_watch(core, session, False)
        errno_set(problem)
        return HANDOFF_FULL if problem in (EAGAIN, ETOOMANYREFS) else HANDOFF_NOT_PASSED
    session.mta = mta
    return HANDOFF_DONE


cdef Py_ssize_t pass_client(int mta, Session* session) noexcept nogil:
    """Send a NUL byte with the descriptor, and the four attributes, in one call (8.1, 8.4)."""
    cdef char text[256]
    cdef size_t length = 1
    text[0] = 0
    length += attribute(text + length, "client_address", &session.peer, False)
    length += attribute(text + length, "client_port", &session.peer, True)
    length += attribute(text + length, "server_address", &session.server, False)
    length += attribute(text + length, "server_port", &session.server, True)
    text[length] = 0
    return rights_send(mta, text, length + 1, <const int*> &session.fd, 1)


cdef size_t attribute(char* text, const char* name, const Address* address, bint port) noexcept nogil:
    """Write name NUL value NUL (8.3); return its length."""
    cdef size_t length = strlen(name) + 1
    memcpy(text, name, length)
    if port:
        return length + number_text(address.port, text + length) + 1
    return length + address_text(address, text + length) + 1


cdef void handoff_tried(Screener core, Session* session, Handoff got) noexcept:
    """Wait for the MTA to confirm; or log what went wrong and reply to the client (8.5)."""
    cdef int problem = errno
    if got == HANDOFF_DONE:
        # The descriptor in flight keeps the connection open: ours can be closed now.
        close(session.fd)
        session.fd = -1
        core.reserve()
        session_enter(core, session, STAGE_HANDED)
        core.handed += 1
        core.timers.arm(&session.timer, TIMER_HANDOFF, HANDOFF_TIME, core.now)
        # EPOLLONESHOT saves removing the socket from the set, one system call per known client.
        if not core.watches.watch(&session.watch, core.mtas, session.mta, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT,
                                  session, TAG_MTA):
            session_free(core, session)
        return
    session.flags &= ~COUNTED_HANDOFF
    handoff_uncount(core, session)
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: cannot connect to service " if got == HANDOFF_FAILED else
                 "warning: cannot pass connection to service ")
    core.log.put(handoff_label(session))
    core.log.put(": ")
    core.log.put(strerror(problem))
    core.log.end()
    event(core, session, EVENT_HANDOFF_FAILED, 0, strerror(problem), strlen(strerror(problem)))
    session.flags |= NO_FORWARD
    session.outcome = OUTCOME_FAILED
    if session.todo & bit(PREGREET):
        session.flags |= MTA_GONE
        dialogue_begin(core, session)
        return
    # Without a teaser, the log has no session: no DISCONNECT.
    count_turned_away(core, session)
    session_reply(core, session, MTA_BUSY if got == HANDOFF_FAILED else NO_RESOURCES)
    history_decide(session, OUTCOME_FAILED)
    session_free(core, session)


cdef bytes handoff_label(Session* session):
    cdef Policy policy = <Policy> session.policy
    return policy.doubtful_label if session.flags & DOUBTFUL else policy.mta_label


cdef void handoff_confirm_all(Screener core) noexcept:
    """End the sessions of which the MTA closed the Unix socket: it has the client."""
    cdef epoll_event events[EVENT_BATCH]
    cdef Session* session
    cdef int at, count = EVENT_BATCH if core.handoffs else 0
    while count == EVENT_BATCH:
        count = core.watches.wait(core.mtas, events, EVENT_BATCH)
        for at in range(count):
            session = <Session*> core.watches.owner(events[at].data.u64)
            if session == NULL:
                continue
            core.watches.end(&session.watch)
            event(core, session, EVENT_HANDED, core.now - (session.timer.deadline - HANDOFF_TIME))
            session_free(core, session)


cdef void handoff_time_over(Screener core, Session* session) noexcept:
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: timeout sending connection to service ")
    core.log.put(handoff_label(session))
    core.log.end()
    event(core, session, EVENT_HANDOFF_FAILED, 0, "timeout", 7)
    session.outcome = OUTCOME_FAILED
    session_free(core, session)
