# The screener of one process: one epoll set with every listener, client and DNS socket, which is itself a reader of the
# event loop. One call of `run` handles a batch of events; Python sees no more than that call, and how long the next is
# to wait (pace.pyx). That the MTA took a client is news that can wait for the next batch: those sockets are in a second
# set, which wakes nobody.

from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.time cimport CLOCK_MONOTONIC, itimerspec, time_t
from posix.unistd cimport close, read

cdef extern from "<errno.h>" nogil:
    int errno
    const int ETOOMANYREFS

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count, int milliseconds)
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* old)
    const int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t number)

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, sockaddr* address, uint32_t* size, int flags)
    int getsockname(int fd, sockaddr* address, uint32_t* size)
    int setsockopt(int fd, int level, int option, const void* value, uint32_t size)
    Py_ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "<netinet/tcp.h>" nogil:
    const int IPPROTO_TCP, TCP_NODELAY, TCP_QUICKACK

cdef enum:
    ACCEPT_BATCH = 64
    EVENT_BATCH = 256

cdef enum Tag:                      # what an event's pointer points to, in its low bits
    TAG_CLIENT
    TAG_MTAS
    TAG_LISTENER
    TAG_DNS
    TAG_TIMER
    TAG_ARRIVAL

cdef int64_t ACCEPT_RETRY_TIME = 1000000
cdef int64_t DRAIN_TIME = 30 * 1000000          # what is in hand at SIGTERM has this long to finish

cdef bytes NO_RESOURCES = b"421 4.3.2 No system resources\r\n"
cdef bytes SCREENING_BUSY = b"421 4.3.2 All screening ports are busy\r\n"
cdef bytes MTA_BUSY = b"421 4.3.2 All server ports are busy\r\n"
cdef bytes TOO_MANY = b"421 4.7.0 Error: too many connections\r\n"
cdef bytes LATER = b"450 4.3.2 Service currently unavailable\r\n"
cdef bytes DENIED = b"550 5.3.2 Service currently unavailable\r\n"
cdef bytes DENIED_AT_ONCE = b"521 5.3.2 Service currently unavailable\r\n"
cdef bytes PROTOCOL_REFUSED = b"550 5.5.1 Protocol error\r\n"
cdef bytes PROTOCOL_ERROR = b"521 5.5.1 Protocol error\r\n"
cdef bytes BREAK_RULES = b"521 5.7.0 Error: I can break rules, too. Goodbye.\r\n"
cdef bytes NOT_IMPLEMENTED = b"502 5.5.1 Error: command not implemented\r\n"
cdef bytes NO_RECIPIENTS = b"554 5.5.1 Error: no valid recipients\r\n"
cdef bytes HELO_FIRST = b"503 5.5.1 Error: send HELO/EHLO first\r\n"
cdef bytes OK = b"250 2.0.0 Ok\r\n"


@cython.final
@cython.no_gc_clear                     # __dealloc__ ends the sessions that are left: it needs what they belong to
cdef class Screener:
    """See core.pyi."""

    cdef Policy policy
    cdef Log log
    cdef object cache
    cdef Timers timers
    cdef AddressTable clients
    cdef AddressTable counts        # where limits.client_connection_prefix_* is not the cache's
    cdef Dnsbl dnsbl
    cdef EventRing ring
    cdef Session* all
    cdef Session* gone              # freed at the end of this batch
    cdef Listener* listeners
    cdef Listener* closed
    cdef Listener inbox             # clients that other workers pass on; fd -1: there are none
    cdef int* crew_inboxes          # where to pass clients on, by worker
    cdef uint32_t crew_count, crew_number
    cdef uint64_t crew_key
    cdef Prefix crew_prefix
    cdef Arrival* arriving          # connections that wait for a PROXY header
    cdef Arrival* arrived           # freed at the end of this batch
    cdef int32_t arrivals
    cdef uint64_t passed_on
    cdef Pace pace
    cdef int epoll, mtas, timer_fd, spare
    cdef int64_t now                # µs, monotonic: when this batch began
    cdef int64_t wall               # µs since 1970, then
    cdef int64_t armed              # µs, monotonic: what timer_fd is set to, -1: nothing
    cdef int64_t mta_busy_since     # µs, monotonic: when limits.post_queue was reached
    cdef Timer mta_retry, confirm, accept_retry, drain_limit
    cdef bint stress, accept_paused, draining
    cdef uint64_t descriptor_shortages          # accepting paused for lack of one
    cdef bint more                  # this batch was cut short by a bound
    cdef readonly int32_t sessions  # all of them, hand-offs included
    cdef readonly int32_t handoffs  # given to the MTA and not confirmed, or waiting for its socket
    cdef readonly uint64_t accepted, handed
    cdef uint64_t cache_hits, cache_misses
    cdef uint32_t last_number       # of a session
    cdef uint32_t stages[STAGE_GONE]    # sessions by Stage
    cdef int relay_set              # the epoll set of relays
    cdef readonly int32_t relays    # ways to MTAs, being made or in use
    cdef readonly int32_t relayed   # sessions on them
    cdef bint relay_news            # a relay began or ended: the batch needs its end
    cdef char* relay_feed           # what the present read of a relay brought
    cdef int pipes[2 * PIPES]       # empty ones
    cdef int pipe_count             # pairs of them
    cdef int pipes_made
    cdef int64_t no_pipe_until      # µs, monotonic: none could be had
    cdef object on_truncated, on_drained
    cdef const uint8_t[:] tls_marks
    cdef const uint8_t* tls_ready   # a byte for each TLS process
    cdef size_t tls_processes
    cdef int tls_fd
    cdef int32_t in_tls             # sessions
    cdef dict told                  # problem: when it was last told (s, monotonic)
    cdef char* feed                 # what the present read brought

    def __cinit__(self):
        self.epoll = self.mtas = self.relay_set = self.timer_fd = self.spare = self.inbox.fd = -1
        self.armed = -1
        self.feed = <char*> malloc(FEED_SIZE)
        self.relay_feed = <char*> malloc(RELAY_FEED)
        if self.feed == NULL or self.relay_feed == NULL:
            raise MemoryError
        self.tls_ready = <const uint8_t*> self.feed     # of no process

    def __init__(self, Policy policy, Log log, cache, *, on_truncated, on_drained, events=None):
        self.policy = policy
        self.log = log
        self.cache = cache
        self.on_truncated = on_truncated
        self.on_drained = on_drained
        self.timers = Timers()
        self.clients = AddressTable()
        self.counts = AddressTable()
        self.dnsbl = Dnsbl()
        self.ring = EventRing(events)
        self.told = {}
        self.look_at_clocks()
        self.pace = Pace(self.now)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.mtas = epoll_create1(EPOLL_CLOEXEC)
        self.relay_set = epoll_create1(EPOLL_CLOEXEC)
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.epoll < 0 or self.mtas < 0 or self.relay_set < 0 or self.timer_fd < 0 or not self.watch(
                self.timer_fd, EPOLLIN, &self.armed, TAG_TIMER):
            raise OSError(errno, os.strerror(errno))
        self.reserve()
        self.timers.arm(&self.dnsbl.rotate, TIMER_ROTATE, ROTATE_TIME, self.now)

    def __dealloc__(self):
        cdef Listener* listener
        while self.all != NULL:
            session_free(self, self.all)
        arrivals_end(self, False)
        self.sweep()
        while self.listeners != NULL:
            listener = self.listeners
            self.listeners = listener.next
            listener_free(listener)
        free(self.crew_inboxes)
        if self.epoll >= 0:
            close(self.epoll)
        if self.mtas >= 0:
            close(self.mtas)
        if self.relay_set >= 0:
            close(self.relay_set)
        while self.pipe_count:
            self.pipe_count -= 1
            close(self.pipes[2 * self.pipe_count])
            close(self.pipes[2 * self.pipe_count + 1])
        if self.timer_fd >= 0:
            close(self.timer_fd)
        if self.spare >= 0:
            close(self.spare)
        free(self.feed)
        free(self.relay_feed)

    def fileno(self):
        return self.epoll

    def relay_fileno(self):
        return self.relay_set

    # ---- a batch of events

    def run(self):
        cdef epoll_event events[EVENT_BATCH]
        cdef int at, count, tag, work
        cdef uint64_t accepted = self.accepted
        cdef int64_t pause
        count = max(epoll_wait(self.epoll, events, EVENT_BATCH, 0), 0)
        self.more = count == EVENT_BATCH
        self.look_at_clocks()
        handoff_confirm_all(self)
        work = self.run_timers()
        # New clients last: one that comes back at once finds the end of its hand-off done.
        for at in range(count):
            tag = events[at].data.u64 & 7
            if tag != TAG_LISTENER:
                self.handle(&events[at])
                work += tag != TAG_TIMER
        for at in range(count):
            if events[at].data.u64 & 7 == TAG_LISTENER:
                self.handle(&events[at])
        self.finish()
        work += <int> (self.accepted - accepted)
        pause = self.pace.pause(work, self.now)
        return 0.0 if self.more else pause / 1e6

    def run_relays(self):
        cdef epoll_event events[EVENT_BATCH]
        cdef int at, count, _turn
        for _turn in range(RELAY_TURNS):
            count = epoll_wait(self.relay_set, events, EVENT_BATCH, 0)
            self.look_at_clocks()
            for at in range(count):
                relay_event(self, <Session*> (events[at].data.u64 & ~<uint64_t> 7), <Side> (events[at].data.u64 & 7),
                            events[at].events)
            if count <= 0:
                break
        if self.relay_news:
            self.relay_news = False
            self.finish()
        else:
            self.arm_timer()

    cdef inline void look_at_clocks(self) noexcept:
        cdef timespec moment
        self.now = monotonic_microseconds()
        clock_gettime(CLOCK_REALTIME, &moment)
        self.wall = <int64_t> moment.tv_sec * 1000000 + moment.tv_nsec // 1000

    cdef inline bint bypassing(self) noexcept:
        """The panic switch is on, until its time is over."""
        return self.ring.header != NULL and self.wall < self.ring.header.bypass_until

    cdef void handle(self, const epoll_event* event) noexcept:
        cdef uint64_t tagged = event.data.u64
        cdef void* what = <void*> (tagged & ~<uint64_t> 7)
        if tagged & 7 == TAG_CLIENT:
            session_event(self, <Session*> what, event.events)
        elif tagged & 7 == TAG_LISTENER:
            listener_readable(self, <Listener*> what)
        elif tagged & 7 == TAG_ARRIVAL:
            arrival_event(self, <Arrival*> what)
        elif tagged & 7 == TAG_DNS and (<DnsSocket*> what).fd >= 0:
            dnsbl_readable(self, <DnsSocket*> what)
        elif tagged & 7 == TAG_TIMER:
            read(self.timer_fd, &tagged, sizeof(tagged))
            self.armed = -1

    cdef finish(self):
        """Do what is done once a batch; TIMER_MTA_RETRY and TIMER_CONFIRM do no more than bring it about."""
        handoff_all(self)
        if self.handoffs and self.confirm.queue == NULL:
            self.timers.arm(&self.confirm, TIMER_CONFIRM, CONFIRM_TIME, self.now)
        dnsbl_flush(self)
        self.sweep()
        self.arm_timer()
        if self.cache is not None:
            self.cache.end_batch()
        self.log.flush()
        if self.draining and self.sessions == 0 and self.arrivals == 0:
            if self.inbox_is_empty():
                self.draining = False
                self.on_drained()
            else:
                self.finish()       # what just began has its part of this batch

    cdef void sweep(self) noexcept:
        """Free what ended in this batch; its events may have named it until now."""
        cdef Session* session
        cdef Listener* listener
        if self.gone != NULL and self.accept_paused:
            self.resume_accept()
        while self.gone != NULL:
            session = self.gone
            self.gone = session.next
            free(session)
        while self.closed != NULL:
            listener = self.closed
            self.closed = listener.next
            listener_free(listener)
        if self.arrived != NULL:
            arrivals_sweep(self)
        dnsbl_sweep(self.dnsbl)

    cdef int run_timers(self) noexcept:
        """Timers before events: early bytes that come with the end of the greet wait are late bytes (2.1). How many."""
        cdef int count = 0
        cdef TimerKind kind
        cdef Timer* timer = self.timers.expired(self.now, &kind)
        while timer != NULL:
            count += 1
            if kind == TIMER_GREET:
                greet_end(self, <Session*> timer)
            elif kind == TIMER_COMMAND:
                dialogue_time_over(self, <Session*> timer)
            elif kind == TIMER_HANDOFF:
                handoff_time_over(self, <Session*> timer)
            elif kind == TIMER_MTA:
                handoff_give_up(self, <Session*> timer)
            elif kind == TIMER_QUERY:
                query_try_over(self, <Query*> timer)
            elif kind == TIMER_LOOKUP:
                lookup_forget(self, <Lookup*> timer)
            elif kind == TIMER_ROTATE:
                dnsbl_rotate(self)
            elif kind == TIMER_ACCEPT:
                self.resume_accept()
            elif kind == TIMER_DRAIN:
                self.turn_all_away()
            elif kind == TIMER_RELAY:
                relay_time_over(self, <Session*> timer)
            elif kind == TIMER_RELAY_TOTAL:
                relay_log_limit(self, (<Relay*> timer).session)
                relay_end(self, (<Relay*> timer).session)
            elif kind == TIMER_CONTINUE:
                continue_time_over(self, (<Relay*> timer).session)
            elif kind == TIMER_PROXY:
                arrival_time_over(self, <Arrival*> timer)
            timer = self.timers.expired(self.now, &kind)
        return count

    cdef void arm_timer(self) noexcept:
        """Set timer_fd to the next deadline; it may ring too early, never too late."""
        cdef int64_t deadline = self.timers.next_deadline()
        cdef itimerspec value
        if deadline < 0 or 0 <= self.armed <= deadline:
            return
        memset(&value, 0, sizeof(value))
        value.it_value.tv_sec = <time_t> (deadline // MICROSECONDS)
        value.it_value.tv_nsec = deadline % MICROSECONDS * 1000
        timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &value, NULL)
        self.armed = deadline

    # ---- the epoll set

    cdef bint watch(self, int fd, uint32_t events, void* what, Tag tag) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.u64 = <uint64_t> what | tag
        return epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) == 0

    cdef bint rewatch(self, int fd, uint32_t events, void* what, Tag tag) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.u64 = <uint64_t> what | tag
        return epoll_ctl(self.epoll, EPOLL_CTL_MOD, fd, &event) == 0

    cdef void unwatch(self, int fd) noexcept:
        cdef epoll_event event
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)

    # ---- listeners and descriptors

    def listen(self, int fd, *, AccessStep trusted=None, double header_time=0):
        cdef sockaddr_storage name
        cdef uint32_t size = sizeof(name)
        cdef Listener* listener = <Listener*> calloc(1, sizeof(Listener))
        cdef int at
        if listener == NULL:
            raise MemoryError
        if getsockname(fd, <sockaddr*> &name, &size) < 0 or not address_of(&name, &listener.address):
            free(listener)
            raise OSError(errno, os.strerror(errno))
        listener.fd = fd
        if trusted is not None:
            Py_INCREF(trusted)
            listener.trusted = <PyObject*> trusted
            listener.header_time = int(header_time * MICROSECONDS)
        listener.wildcard = True
        for at in range(16):
            if listener.address.ip[at]:
                listener.wildcard = False
        listener.next = self.listeners
        self.listeners = listener
        if not self.accept_paused:
            self.watch(fd, EPOLLIN, listener, TAG_LISTENER)

    def unlisten(self, int fd):
        cdef Listener** at = &self.listeners
        cdef Listener* listener
        while at[0] != NULL and at[0].fd != fd:
            at = &at[0].next
        if at[0] == NULL:
            raise ValueError(f"descriptor {fd} is not a listener")
        self.unwatch(fd)
        listener = at[0]
        at[0] = listener.next
        listener.next = self.closed
        self.closed = listener

    def join_crew(self, uint32_t number, uint64_t key, prefix, inboxes, int inbox):
        cdef int at
        cdef int* sending = <int*> calloc(len(inboxes) + 1, sizeof(int))
        if sending == NULL:
            raise MemoryError
        for at in range(len(inboxes)):
            sending[at] = inboxes[at]
        free(self.crew_inboxes)
        self.crew_inboxes = sending
        self.crew_count = len(inboxes)
        self.crew_number = number
        self.crew_key = key
        prefix_set(&self.crew_prefix, prefix)
        self.inbox.fd = inbox
        self.watch_inbox()

    cdef void watch_inbox(self) noexcept:
        if self.inbox.fd >= 0 and not self.accept_paused:
            self.watch(self.inbox.fd, EPOLLIN, &self.inbox, TAG_LISTENER)

    cdef bint inbox_is_empty(self) noexcept:
        """Before this process ends: whoever was passed to it meanwhile is served. False: somebody was."""
        if self.inbox.fd >= 0:
            inbox_readable(self, self.inbox.fd)
        return self.sessions == 0

    cdef void pause_accept(self, int64_t time) noexcept:
        """Let connections wait in the kernel until a client leaves, at most for this time (µs)."""
        cdef Listener* listener = self.listeners
        self.accept_paused = True
        self.descriptor_shortages += time == ACCEPT_RETRY_TIME
        while listener != NULL:
            self.unwatch(listener.fd)
            listener = listener.next
        if self.inbox.fd >= 0:
            self.unwatch(self.inbox.fd)
        self.watch(self.mtas, EPOLLIN, NULL, TAG_MTAS)      # the end of a hand-off makes room
        self.timers.arm(&self.accept_retry, TIMER_ACCEPT, time, self.now)

    cdef void resume_accept(self) noexcept:
        """Accept again, but for the first free descriptor: without it no client could be handed off."""
        cdef Listener* listener = self.listeners
        self.reserve()
        if self.spare < 0:
            self.timers.arm(&self.accept_retry, TIMER_ACCEPT, ACCEPT_RETRY_TIME, self.now)
            return
        self.timers.cancel(&self.accept_retry)
        self.accept_paused = False
        self.unwatch(self.mtas)
        while listener != NULL:
            self.watch(listener.fd, EPOLLIN, listener, TAG_LISTENER)
            listener = listener.next
        self.watch_inbox()

    cdef void reserve(self) noexcept:
        """Keep a descriptor for the one more that a hand-off needs."""
        if self.spare < 0:
            self.spare = open("/dev/null", O_RDONLY | O_CLOEXEC)

    cdef int spare_socket(self, int family) noexcept:
        """A socket for a hand-off, from the reserve if need be. -1: not even that."""
        cdef int fd
        self.reserve()
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0 and self.spare >= 0:
            close(self.spare)
            self.spare = -1
            fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        return fd

    # ---- from outside a batch

    def use_policy(self, Policy policy):
        policy.keep_lists(self.policy)
        self.policy = policy

    def use_tls(self, int fd, const uint8_t[:] ready):
        self.tls_fd = fd
        self.tls_marks = ready
        self.tls_processes = len(ready)
        self.tls_ready = &ready[0] if len(ready) else <const uint8_t*> self.feed

    def use_resolvers(self, addresses):
        dnsbl_set_resolvers(self, list(addresses))
        self.finish()

    def tcp_answer(self, uint64_t token, addresses, int64_t ttl, int64_t keep):
        cdef uint32_t answers[DNS_ADDRESSES]
        cdef int count = 0
        cdef bytes packed
        cdef Query* query
        pointer = self.dnsbl.elsewhere.get(token)
        if pointer is None:
            return
        self.look_at_clocks()
        query = <Query*> <size_t> pointer
        if addresses is None:
            query_failed(self, query, "Host not found, try again")
        else:
            for packed in addresses[:DNS_ADDRESSES]:
                memcpy(&answers[count], <const char*> packed, 4)
                count += 1
            query_answered(self, query, answers, count, ttl, keep)
        self.finish()

    def drain(self):
        self.look_at_clocks()
        while self.listeners != NULL:
            self.unlisten(self.listeners.fd)
        self.draining = True
        self.timers.arm(&self.drain_limit, TIMER_DRAIN, DRAIN_TIME, self.now)
        self.finish()

    cdef void turn_all_away(self) noexcept:
        """The time to finish is over: whoever is still here may come back to the next process."""
        cdef Session* session = self.all
        cdef Session* following
        arrivals_end(self, True)
        while session != NULL:
            following = session.next
            if session.stage == STAGE_RELAY:
                relay_end(self, session)
            elif session.fd >= 0:
                session_turn_away(self, session, b"421 4.3.2 Service currently unavailable\r\n")
            else:
                session_free(self, session)
            session = following

    def stats(self):
        return {
            "sessions": self.sessions,
            "handoffs": self.handoffs,
            "tls": self.in_tls,
            "relayed": self.relayed,
            "relays": self.relays,
            "clients": self.clients.count,
            "stages": {name: self.stages[at] for at, name in enumerate(STAGES[:STAGE_GONE])},
            "accepted": self.accepted,
            "arrivals": self.arrivals,
            "passed_on": self.passed_on,
            "handed": self.handed,
            "stress": bool(self.stress),
            "accepting": not self.accept_paused,
            "descriptor_shortages": self.descriptor_shortages,
            "cache_hits": self.cache_hits,
            "cache_misses": self.cache_misses,
            "dns_asked": self.dnsbl.asked,
            "dns_answered": self.dnsbl.answered,
            "dns_timed_out": self.dnsbl.timed_out,
            "dns_ignored": self.dnsbl.forged,
            "dns_heard": self.dnsbl.heard,
            "dns_in_flight": self.dnsbl.in_flight,
            "dns_kept": self.dnsbl.kept,
        }

    def live(self, Filter wanted, str order, int limit):
        self.look_at_clocks()
        return live_sessions(self, wanted, order, limit)

    def lists(self):
        return live_lists(self.policy.lists)

    def answers(self, str address):
        self.look_at_clocks()
        return live_answers(self, address)

    def client(self, str address):
        return live_client(self, address)

    cdef void ask_over_tcp(self, uint64_t token, str name) except *:
        self.on_truncated(token, name)

    cdef void problem(self, str what, error) noexcept:
        """A part outside the core failed; the client goes on without it."""
        self.tell(what, f"{what}: {type(error).__name__}: {error}")

    cdef void tell(self, str what, str text) noexcept:
        """Warn, once a minute for each kind of problem."""
        cdef int64_t second = self.now // MICROSECONDS
        if second - self.told.get(what, -60) >= 60:
            self.told[what] = second
            self.log.warning(text)


cdef void listener_free(Listener* listener) noexcept:
    if listener.trusted != NULL:
        Py_DECREF(<AccessStep> listener.trusted)
    free(listener)


cdef int64_t monotonic_microseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1000000 + moment.tv_nsec // 1000


cdef int64_t wall_seconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_REALTIME, &moment)
    return moment.tv_sec


cdef void errno_set(int number) noexcept nogil:
    global errno
    errno = number


cdef bint address_of(const sockaddr_storage* name, Address* address) noexcept nogil:
    """An endpoint from the kernel's form. False: neither IPv4 nor IPv6."""
    cdef const sockaddr_in* four = <const sockaddr_in*> name
    cdef const sockaddr_in6* six = <const sockaddr_in6*> name
    memset(address, 0, sizeof(Address))
    if four.sin_family == AF_INET:
        address.family = 4
        address.port = ntohs(four.sin_port)
        memcpy(address.ip, &four.sin_addr, 4)
        return True
    if four.sin_family == AF_INET6:
        address.family = 6
        address.port = ntohs(six.sin6_port)
        memcpy(address.ip, &six.sin6_addr, 16)
        address_unmap(address)
        return True
    return False
