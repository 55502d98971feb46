# Connections whose client is not known yet: on a port where a PROXY header is expected (reference 2.3 step 0, 2.8).
# They are in no queue and in no log line. The header is peeked at until it is complete; then exactly its bytes are
# read, so that the bytes after it are left for the pregreet test and the MTA.

cdef const char* PROXY_READ = "warning: haproxy read: "


# A connection that waits for its header, or for the rest of it.
cdef struct Arrival:
    Timer timer             # first
    Arrival* next           # all of them; or those that are freed at the end of this batch
    Arrival* prev
    int fd                  # -1: gone
    Watch watch
    Address peer            # the balancer
    Address server          # where it connected


cdef void arrival_begin(Screener core, int fd, const Address* peer, const Address* server,
                        const Listener* listener) noexcept:
    """A connection to a PROXY port. The header of an untrusted peer is not read."""
    cdef Arrival* arrival
    if access_step(core, <AccessStep> listener.trusted, peer) != ACCESS_PERMIT:
        core.log.begin(PRIORITY_WARNING, False)
        core.log.put(PROXY_READ)
        core.log.put("not trusted: ")
        core.log.put_address(peer)
        core.log.end()
        refuse(fd)
        return
    if arrival_read(core, fd, peer, server, NULL):
        return
    if arrivals_full(core):
        core.log.begin(PRIORITY_INFO, False)
        core.log.put("reject: connect from ")
        core.log.put_address(peer)
        core.log.put(": all screening ports busy")
        core.log.end()
        farewell(fd, SCREENING_BUSY)
        return
    arrival = <Arrival*> calloc(1, sizeof(Arrival))
    if arrival == NULL:
        refuse(fd)
        return
    arrival.fd = fd
    arrival.peer = peer[0]
    arrival.server = server[0]
    arrival.next = core.arriving
    if arrival.next != NULL:
        arrival.next.prev = arrival
    core.arriving = arrival
    core.arrivals += 1
    # Edge-triggered: a partial header stays in the socket, and only further bytes are an event.
    if not core.watches.watch(
            &arrival.watch, core.epoll, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, arrival, TAG_ARRIVAL
    ) or not core.timers.arm(&arrival.timer, TIMER_PROXY, listener.header_time, core.now):
        arrival_leave(core, arrival)
        refuse(fd)


cdef inline bint arrivals_full(Screener core) noexcept:
    """Waiting connections count as clients under test. When these have reached their limit, there is still room for as
    many connections as may wait for the MTA, because known clients cannot be recognized before their header."""
    return (core.arrivals >= core.policy.post_queue
            and core.arrivals + unrelayed(core) - core.handoffs >= core.policy.pre_queue)


cdef void arrival_event(Screener core, Arrival* arrival) noexcept:
    """More bytes have arrived, or the peer has left."""
    if arrival_read(core, arrival.fd, &arrival.peer, &arrival.server, arrival):
        arrival_leave(core, arrival)


cdef void arrival_time_over(Screener core, Arrival* arrival) noexcept:
    cdef int fd = arrival.fd
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put(PROXY_READ)
    core.log.put("time limit exceeded")
    core.log.end()
    arrival_leave(core, arrival)
    refuse(fd)


cdef void arrival_leave(Screener core, Arrival* arrival) noexcept:
    """Forget a connection, but not its descriptor. Its memory is freed at the end of this batch."""
    core.timers.cancel(&arrival.timer)
    core.watches.unwatch(&arrival.watch)
    if arrival.prev != NULL:
        arrival.prev.next = arrival.next
    else:
        core.arriving = arrival.next
    if arrival.next != NULL:
        arrival.next.prev = arrival.prev
    core.arrivals -= 1
    arrival.fd = -1
    arrival.next = core.arrived
    core.arrived = arrival


cdef void arrivals_sweep(Screener core) noexcept:
    cdef Arrival* arrival
    while core.arrived != NULL:
        arrival = core.arrived
        core.arrived = arrival.next
        free(arrival)


cdef void arrivals_end(Screener core, bint told) noexcept:
    """No connection waits for a header any longer."""
    cdef int fd
    while core.arriving != NULL:
        fd = core.arriving.fd
        arrival_leave(core, core.arriving)
        if told:
            refuse(fd)
        else:
            close(fd)


cdef bint arrival_read(Screener core, int fd, const Address* peer, const Address* server,
                       Arrival* waits) noexcept:
    """Look for the header. True: the descriptor is closed or in use elsewhere. waits: in the epoll set, or NULL."""
    cdef ProxyHeader header
    cdef ProxyState state
    cdef Py_ssize_t got
    cdef bint ended = False
    while True:
        got = recv(fd, core.feed, PROXY_HEADER_MOST, MSG_PEEK | MSG_DONTWAIT)
        if got < 0 and errno in (EAGAIN, EINTR):
            return False
        if got <= 0:
            arrival_unwatch(core, waits)
            close(fd)               # a load balancer's health check, or a client that left: log nothing
            return True
        state = proxy_header_read(core.feed, got, &header)
        if state != PROXY_INCOMPLETE:
            break
        if ended:
            arrival_unwatch(core, waits)
            arrival_refuse(core, fd, proxy_header_lacks(core.feed, got), got)
            return True
        # Look again if no more bytes can arrive: the rest may have arrived together with the end.
        ended = peer_has_ended(fd)
        if not ended:
            return False
    arrival_unwatch(core, waits)
    if state == PROXY_MALFORMED:
        if is_quit(core.feed, got):
            farewell(fd, b"221 2.0.0 Bye\r\n")
        else:
            arrival_refuse(core, fd, header.problem, got)
        return True
    if recv(fd, core.feed, header.length, MSG_DONTWAIT) != <Py_ssize_t> header.length:
        refuse(fd)
        return True
    if state == PROXY_CLIENT and address_equal(&header.client, peer):
        state = PROXY_LOCAL         # HAProxy's health check in version 1, which cannot express it
    if state == PROXY_LOCAL:
        if recv(fd, core.feed, 1, MSG_PEEK | MSG_DONTWAIT) == 0:
            close(fd)
            return True
        header.client = peer[0]
        header.server = server[0]
    if crew_pass(core, fd, &header.client, &header.server, state == PROXY_LOCAL):
        close(fd)
    else:
        session_begin(core, fd, &header.client, &header.server, state == PROXY_LOCAL, state == PROXY_CLIENT)
    return True


cdef inline void arrival_unwatch(Screener core, Arrival* arrival) noexcept:
    if arrival != NULL:
        core.watches.unwatch(&arrival.watch)


cdef void arrival_refuse(Screener core, int fd, const char* problem, size_t size) noexcept:
    """The received bytes, in core.feed, are not a PROXY header."""
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put(PROXY_READ)
    core.log.put(problem)
    core.log.put(": ")
    core.log.put_escaped(core.feed, size, 4 * PROXY_HEADER_MOST)
    core.log.end()
    refuse(fd)


cdef bint peer_has_ended(int fd) noexcept nogil:
    """Whether the peer has closed its direction, so that no more bytes can arrive."""
    cdef pollfd ready
    ready.fd = fd
    ready.events = POLLRDHUP
    return poll(&ready, 1, 0) == 1


cdef bint is_quit(const char* data, size_t size) noexcept nogil:
    """QUIT alone: a health check that speaks SMTP and does not know that this port expects a header."""
    return (size == 6 and strncasecmp(data, "QUIT\r\n", 6) == 0) or (size == 5 and strncasecmp(data, "QUIT\n", 5) == 0)
