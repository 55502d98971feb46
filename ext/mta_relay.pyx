# The relay: a client that passed is connected through to an MTA that reads the PROXY protocol. Bytes are transferred
# unchanged in both directions. When one side ends, the other side's connection is shut down in this direction, and may
# still send. Bytes that one side does not accept are kept in a buffer or a pipe, and the other side is not read
# meanwhile.
#
# Relays have a separate epoll set, which is a second reader of the event loop: relayed bytes do not wait for the pauses
# in which the screener collects events (batching.pyx).

cdef extern from "<fcntl.h>" nogil:
    Py_ssize_t splice(int source, int64_t* source_at, int sink, int64_t* sink_at, size_t size, unsigned int flags)
    int pipe2(int* ends, int flags)
    int fcntl(int fd, int command, int argument)
    const int F_SETPIPE_SZ, O_NONBLOCK
    const unsigned int SPLICE_F_MOVE, SPLICE_F_NONBLOCK

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    const int SHUT_WR, MSG_MORE

cdef enum:
    RELAY_FEED = 16384              # bytes per read; the same number may be unsent
    PIPE_SIZE = 262144              # of a pipe, for larger transfers
    PIPES = 64                      # at most: 16 MiB of the 64 MiB for all pipes of a user (pipe-user-pages-soft)
    RELAY_TURNS = 4                 # batches before the event loop continues: peers answer during a batch
    FLOW_TURN = 1048576             # bytes before it is the turn of other relays

cdef int64_t CONNECT_TIME = 5 * 1000000         # µs: how long a target may take to answer a connect
cdef int64_t LINGER_TIME = 30 * 1000000         # how long a client may take to end after the MTA has


# ---- the connection to an MTA

cdef Handoff relay_try(Screener core, Session* session, bint continues) noexcept:
    """Connect to the first reachable target. Done: the relay continues automatically, or calls relay_failed."""
    cdef Policy policy = <Policy> session.policy
    cdef Relay* relay
    if core.relays >= policy.relay_limit:
        errno_set(EUSERS)
        return HANDOFF_FAILED
    relay = <Relay*> calloc(1, sizeof(Relay))
    if relay == NULL:
        errno_set(ENOMEM)
        return HANDOFF_FAILED
    core.relays += 1
    session.relay = relay
    relay.session = session
    relay.began = core.now
    relay.continues = continues
    if continues:
        core.timers.arm(&relay.total, TIMER_CONTINUE, policy.continue_time, core.now)
    relay.flows[<int> FROM_CLIENT].pipe[0] = relay.flows[<int> FROM_MTA].pipe[0] = -1
    return relay_next(core, session)


cdef inline Targets relay_targets(Session* session):
    cdef Policy policy = <Policy> session.policy
    if session.flags & DOUBTFUL:
        return policy.doubtful_targets
    return policy.continue_targets if session.relay.continues else policy.targets


cdef Handoff relay_next(Screener core, Session* session) noexcept:
    """Try the targets that were not tried yet. If the result is not 'done', the relay is freed, and errno is set."""
    cdef Relay* relay = session.relay
    cdef Targets targets = relay_targets(session)
    cdef bint full = False
    cdef int at
    while True:
        at = targets.pick(core.now, relay.tried)
        if at < 0:
            break
        relay.tried |= <uint32_t> 1 << at
        relay.target = at
        relay.state = RELAY_CONNECTING
        if relay_connect(core, session, targets):
            return HANDOFF_DONE
        if session.mta < 0:
            relay.problem = errno   # no descriptor: the target is not the cause, and another one may leave a descriptor
            full = True
            break
        if errno == EAGAIN and targets.targets[at].family == AF_UNIX:
            relay.problem = errno   # the target is up, but its queue is full
            full = True
            relay_close(core, session)
            continue
        relay_missed(core, session, strerror(errno))
    at = relay.problem
    relay_free(core, session)
    errno_set(at)
    return HANDOFF_FULL if full else HANDOFF_FAILED


cdef void relay_missed(Screener core, Session* session, const char* why) noexcept:
    """This target did not answer, or not like an MTA: prefer the others for a while."""
    cdef Relay* relay = session.relay
    cdef Targets targets = relay_targets(session)
    relay.problem = errno or ECONNRESET
    targets.down(relay.target, core.now)
    if relay.continues or relay.tried + 1 < <uint32_t> 1 << targets.count:      # otherwise handoff_tried logs it
        relay_warn(core, targets, relay.target, why)
    relay_close(core, session)


cdef void relay_warn(Screener core, Targets targets, int at, const char* why) noexcept:
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: cannot connect to service ")
    core.log.put(targets.targets[at].label)
    core.log.put(": ")
    core.log.put(why)
    core.log.end()


cdef bint relay_connect(Screener core, Session* session, Targets targets) noexcept:
    """Begin to connect. False: this target is unreachable, and errno is set."""
    cdef const Target* target = &targets.targets[session.relay.target]
    session.mta = core.spare_socket(target.family)
    if session.mta < 0:
        return False
    if target.family != AF_UNIX:
        acknowledge_later(session.mta)
    if connect(session.mta, <const sockaddr*> target.name, target.size) < 0 and errno != EINPROGRESS:
        return False
    if target.family != AF_UNIX:
        send_at_once(session.mta)
    if relay_greet(session, targets):
        relay_connected(core, session)
        return True
    if errno != EAGAIN or not relay_watch(core, session, FROM_MTA, EPOLLOUT):
        return False
    return core.timers.arm(&session.timer, TIMER_RELAY, CONNECT_TIME, core.now)


cdef void acknowledge_later(int fd) noexcept:
    """The header follows immediately and acknowledges the connect (tcp(7)): this saves a packet for both ends."""
    cdef int off = 0
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof(off))


cdef bint relay_greet(Session* session, Targets targets) noexcept:
    """Send the PROXY header to the MTA. False: errno is set; EAGAIN: it is not connected yet."""
    cdef char header[PROXY_HEADER_SIZE]
    cdef size_t size = proxy_header_write(header, targets.version, &session.peer, &session.server)
    cdef Py_ssize_t sent = send(session.mta, header, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if 0 <= sent < <Py_ssize_t> size:
        errno_set(ENOBUFS)
    return sent == <Py_ssize_t> size


cdef void relay_connected(Screener core, Session* session) noexcept:
    """The MTA has the PROXY header: relay, or ask it first."""
    cdef Relay* relay = session.relay
    if relay.continues:
        relay.state = RELAY_ASKING
        continue_connected(core, session)
        return
    relay_targets(session).up(relay.target)
    core.handed += 1
    event(core, session, EVENT_HANDED, core.now - relay.began)
    replies_begin(core, relay, SENT_GREETING)
    relay_flow(core, session)


cdef void relay_flow(Screener core, Session* session) noexcept:
    """Relay bytes from now on."""
    cdef Policy policy = <Policy> session.policy
    cdef Relay* relay = session.relay
    slow_leave(core, session)
    if session.flags & COUNTED_HANDOFF:
        session.flags &= ~COUNTED_HANDOFF
        handoff_uncount(core, session)
        if core.accept_paused and core.handoffs == core.policy.post_queue - 1:
            core.resume_accept()    # a burst was waiting for room
    session_unwatch(core, session)
    session_enter(core, session, STAGE_RELAY)
    history_dialogue(core, session)
    dialogue_free(session)
    relay.state = RELAY_FLOWING
    core.relayed += 1
    session.client.relayed += 1
    stress_fall(core)
    core.relay_news = True
    send_at_once(session.fd)
    core.timers.arm(&relay.total, TIMER_RELAY_TOTAL, policy.relay_time, core.now)
    core.timers.arm(&session.timer, TIMER_RELAY, policy.relay_idle, core.now)
    flow_unsent(core, &relay.flows[<int> FROM_CLIENT], session.mta)
    flow_unsent(core, &relay.flows[<int> FROM_MTA], session.fd)
    relay_settle(core, session)


cdef void relay_connect_ready(Screener core, Session* session) noexcept:
    """The connect has succeeded or failed."""
    if relay_greet(session, relay_targets(session)):
        core.timers.cancel(&session.timer)
        relay_connected(core, session)
    elif errno != EAGAIN:
        relay_missed(core, session, strerror(errno))
        relay_retry(core, session)


cdef void relay_retry(Screener core, Session* session) noexcept:
    """Try the next target; if none is left, reply that no MTA is available."""
    cdef bint continues = session.relay.continues
    cdef Handoff got
    core.relay_news = True
    core.timers.cancel(&session.timer)
    got = relay_next(core, session)
    if got == HANDOFF_DONE:
        return
    if continues:
        continue_failed(core, session, strerror(errno))
    else:
        handoff_tried(core, session, HANDOFF_FAILED)


cdef void relay_time_over(Screener core, Session* session) noexcept:
    """A connect took too long, nothing was transferred for too long, or a side does not end."""
    cdef Relay* relay = session.relay
    if relay.state == RELAY_CONNECTING:
        errno_set(ETIMEDOUT)
        relay_missed(core, session, strerror(ETIMEDOUT))
        relay_retry(core, session)
        return
    if not relay.lingers:
        relay_log_limit(core, session)
    relay_end(core, session)


cdef void relay_log_limit(Screener core, Session* session) noexcept:
    log_begin(core, session, "RELAY TIME LIMIT from ")
    core.log.put(" after ")
    core.log.put_number(session.relay.flows[<int> FROM_CLIENT].moved)
    core.log.put(" bytes in, ")
    core.log.put_number(session.relay.flows[<int> FROM_MTA].moved)
    core.log.put(" bytes out")
    core.log.end()


# ---- bytes

cdef void relay_event(Screener core, Session* session, Side side, uint32_t events) noexcept:
    """Something happened on one side's descriptor."""
    cdef Relay* relay = session.relay
    if relay.state == RELAY_CONNECTING:
        relay_connect_ready(core, session)
        return
    if relay.state == RELAY_ASKING:
        continue_readable(core, session)
        return
    if not relay.lingers:
        core.timers.arm(&session.timer, TIMER_RELAY, (<Policy> session.policy).relay_idle, core.now)
    if events & (EPOLLIN | EPOLLHUP | EPOLLERR) and relay.watches[<int> side].events & EPOLLIN:
        flow_move(core, session, side, (events & EPOLLRDHUP) != 0)
    if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and relay.watches[<int> side].events & EPOLLOUT:
        flow_move(core, session, FROM_MTA if side == FROM_CLIENT else FROM_CLIENT, False)
    relay_settle(core, session)


cdef inline bint flow_waits(const Flow* flow) noexcept:
    return flow.length != 0 or flow.piped != 0


cdef void flow_move(Screener core, Session* session, Side source, bint ends) noexcept:
    """Relay in one direction what the source has and the sink accepts, up to a limit.

    ends: the end follows the available bytes. It is read and passed on immediately, in one packet with the last bytes.
    """
    cdef Flow* flow = &session.relay.flows[<int> source]
    cdef int from_fd = session.fd if source == FROM_CLIENT else session.mta
    cdef int to_fd = session.mta if source == FROM_CLIENT else session.fd
    cdef uint64_t until = flow.moved + FLOW_TURN
    cdef Py_ssize_t got
    while flow_unsent(core, flow, to_fd) and not flow.ended and flow.moved < until:
        if flow.pipe[0] >= 0:
            got = splice(from_fd, NULL, flow.pipe[1], NULL, PIPE_SIZE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        else:
            got = recv(from_fd, core.relay_feed, RELAY_FEED, MSG_DONTWAIT)
        if got <= 0:
            if got < 0 and errno in (EAGAIN, EINTR):
                flow_release_pipe(core, flow)
                return
            flow.ended = True       # an error has the same result: half a message is worthless
        elif flow.pipe[0] >= 0:
            flow.moved += got
            flow.piped = <uint32_t> got
            replies_miss(session.relay, source)
        else:
            replies_hear(session.relay, source, core.relay_feed, got)
            flow.moved += got
            flow_send(flow, to_fd, core.relay_feed, got, MSG_MORE if ends and got < RELAY_FEED else 0)
            if got == RELAY_FEED and not flow.length and not flow.lost:
                flow_take_pipe(core, flow)      # the source has more
            elif got < RELAY_FEED and not ends:
                return              # the next read would find nothing


cdef void flow_send(Flow* flow, int to_fd, const char* data, size_t size, int more) noexcept:
    """Send, and keep what is not accepted."""
    cdef Py_ssize_t sent
    if flow.lost:
        return
    sent = send(to_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL | more)
    if sent < 0 and errno not in (EAGAIN, EINTR):
        flow.lost = True
        return
    sent = max(sent, 0)
    if <size_t> sent < size and not flow_keep(flow, data + sent, size - sent):
        flow.lost = flow.ended = True


cdef bint flow_keep(Flow* flow, const char* data, size_t size) noexcept:
    """Add to what is unsent. False: out of memory."""
    cdef char* kept = <char*> malloc(flow.length + size)
    if kept == NULL:
        return False
    if flow.length:
        memcpy(kept, flow.kept + flow.at, flow.length)
    memcpy(kept + flow.length, data, size)
    free(flow.kept)
    flow.kept = kept
    flow.at = 0
    flow.length += <uint32_t> size
    return True


cdef bint flow_unsent(Screener core, Flow* flow, int to_fd) noexcept:
    """Send what is left. True: nothing is left."""
    cdef Py_ssize_t sent
    while flow_waits(flow) and not flow.lost:
        if flow.length:
            sent = send(to_fd, flow.kept + flow.at, flow.length, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            sent = splice(flow.pipe[0], NULL, to_fd, NULL, flow.piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if sent < 0 and errno in (EAGAIN, EINTR):
            return False
        if sent <= 0:
            flow.lost = True
        elif flow.length:
            flow.length -= <uint32_t> sent
            flow.at += <uint32_t> sent
        else:
            flow.piped -= <uint32_t> sent
    if flow.lost:
        flow_release_pipe(core, flow)
        flow.length = 0
    if not flow.length and flow.kept != NULL:
        free(flow.kept)
        flow.kept = NULL
    return True


cdef void flow_take_pipe(Screener core, Flow* flow) noexcept:
    """For large transfers: the kernel moves pages without copying. Without a pipe, continue as before."""
    if core.pipe_count:
        core.pipe_count -= 1
        flow.pipe[0] = core.pipes[2 * core.pipe_count]
        flow.pipe[1] = core.pipes[2 * core.pipe_count + 1]
        return
    if core.pipes_made == PIPES or core.now < core.no_pipe_until:
        return
    if pipe2(flow.pipe, O_NONBLOCK | O_CLOEXEC) < 0:
        flow.pipe[0] = -1
        core.no_pipe_until = core.now + MICROSECONDS
        return
    core.pipes_made += 1
    if fcntl(flow.pipe[1], F_SETPIPE_SZ, PIPE_SIZE) < PIPE_SIZE:
        flow_close_pipe(core, flow)             # the user has too many pipes: further ones would have one page each
        core.no_pipe_until = core.now + MICROSECONDS


cdef void flow_release_pipe(Screener core, Flow* flow) noexcept:
    """Return an empty pipe to the others, for the next relay that needs one."""
    if flow.pipe[0] < 0:
        return
    if flow.piped:
        flow_close_pipe(core, flow)
        return
    core.pipes[2 * core.pipe_count] = flow.pipe[0]
    core.pipes[2 * core.pipe_count + 1] = flow.pipe[1]
    core.pipe_count += 1
    flow.pipe[0] = -1


cdef void flow_close_pipe(Screener core, Flow* flow) noexcept:
    close(flow.pipe[0])
    close(flow.pipe[1])
    core.pipes_made -= 1
    flow.pipe[0] = -1
    flow.piped = 0


# ---- ends

cdef void relay_settle(Screener core, Session* session) noexcept:
    """Pass ends on, and watch each side for what it can do now."""
    cdef Relay* relay = session.relay
    cdef Flow* inward = &relay.flows[<int> FROM_CLIENT]
    cdef Flow* outward = &relay.flows[<int> FROM_MTA]
    if outward.lost:
        relay_end(core, session)    # the client no longer accepts anything: half a session is useless to the MTA
        return
    if flow_over(inward) and flow_over(outward):
        relay_end(core, session)    # closing both passes on the ends that were not passed on yet
        return
    relay_pass_end(inward, session.mta)
    relay_pass_end(outward, session.fd)
    if (outward.shut or inward.lost) and not relay.lingers:
        # Read what the client still sends for a while: a close with unread bytes could lose its last reply.
        relay.lingers = True
        core.timers.arm(&session.timer, TIMER_RELAY, LINGER_TIME, core.now)
    if not (relay_watch(core, session, FROM_CLIENT, flow_events(inward, outward))
            and relay_watch(core, session, FROM_MTA, flow_events(outward, inward))):
        relay_end(core, session)


cdef inline bint flow_over(const Flow* flow) noexcept:
    return flow.ended and (flow.lost or not flow_waits(flow))


cdef void relay_pass_end(Flow* flow, int to_fd) noexcept:
    if flow_over(flow) and not flow.shut:
        flow.shut = True
        shutdown(to_fd, SHUT_WR)


cdef inline uint32_t flow_events(const Flow* source, const Flow* sink) noexcept:
    """The epoll events for a side that is the source of one flow and the sink of the other."""
    cdef uint32_t events = 0
    if not source.ended and not flow_waits(source):
        events |= EPOLLIN | EPOLLRDHUP
    if flow_waits(sink):
        events |= EPOLLOUT
    return events


cdef bint relay_watch(Screener core, Session* session, Side side, uint32_t events) noexcept:
    """Watch one side for these events. Without any, remove it from the set, which would report its end repeatedly."""
    cdef Watch* watch = &session.relay.watches[<int> side]
    cdef int fd = session.fd if side == FROM_CLIENT else session.mta
    if events == 0:
        core.watches.unwatch(watch)
        return True
    return core.watches.watch(watch, core.relay_set, fd, events, session,
                              TAG_CLIENT if side == FROM_CLIENT else TAG_MTA)


cdef void relay_close(Screener core, Session* session) noexcept:
    """Close the connection to the MTA; the session may continue."""
    core.watches.unwatch(&session.relay.watches[<int> FROM_MTA])
    if session.mta >= 0:
        close(session.mta)
        session.mta = -1
        core.reserve()


cdef void relay_end(Screener core, Session* session) noexcept:
    """End a relayed session."""
    cdef char text[24]
    cdef uint32_t length = number_text(session.relay.flows[<int> FROM_MTA].moved, text)
    replies_heard(core, session)
    event(core, session, EVENT_RELAYED, session.relay.flows[<int> FROM_CLIENT].moved, text, length)
    session_free(core, session)


cdef void relay_free(Screener core, Session* session) noexcept:
    """Free the relay of a session and close its connection to the MTA."""
    cdef Relay* relay = session.relay
    cdef int at
    if relay == NULL:
        return
    relay_close(core, session)
    core.watches.unwatch(&relay.watches[<int> FROM_CLIENT])
    core.timers.cancel(&relay.total)
    for at in range(2):
        flow_release_pipe(core, &relay.flows[at])
        free(relay.flows[at].kept)
    if relay.state == RELAY_FLOWING:
        core.relayed -= 1
        session.client.relayed -= 1
    core.relays -= 1
    core.relay_news = True
    session.relay = NULL
    free(relay.replies)
    free(relay)
