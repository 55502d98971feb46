# The screener of one process: one epoll set with every listener, client and DNS socket, which is itself a reader of the
# event loop. One call of `run` handles a batch of events and returns the minimum delay of the next call
# (batching.pyx). A hand-off that the MTA confirms can wait for the next batch: those sockets are in a second set, which
# does not wake the process.

from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.time cimport CLOCK_MONOTONIC, itimerspec, time_t
from posix.unistd cimport close, read

cdef extern from "<errno.h>" nogil:
    int errno
    const int ETOOMANYREFS

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    int eventfd_write(int fd, uint64_t value)
    const int EFD_NONBLOCK, EFD_CLOEXEC

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
    int getsockopt(int fd, int level, int option, void* value, uint32_t* size)
    Py_ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "<netinet/tcp.h>" nogil:
    const int IPPROTO_TCP, TCP_NODELAY, TCP_QUICKACK

cdef enum:
    ACCEPT_BATCH = 64
    EVENT_BATCH = 256

cdef enum:
    CATCH_UP_ROUNDS = 16            # reads of pending events after a stall, and more with many clients

cdef int64_t STALL_TIME = 50 * 1000             # µs: longer than a batch and its pause
cdef int64_t ON_TIME = 2 * 1000                 # µs: the usual delay of a timer that wakes the process
cdef int64_t ACCEPT_RETRY_TIME = 1000000
cdef int64_t DRAIN_TIME = 30 * 1000000          # how long sessions have to finish after SIGTERM
cdef int64_t WAITING_TIME = 1000000             # the same, in a hurry, for clients that only wait


@cython.final
@cython.no_gc_clear                     # __dealloc__ ends the remaining sessions, with all that they refer to
cdef class Screener:
    """See core.pyi."""

    cdef Policy policy
    cdef Log log
    cdef object cache
    cdef object memory              # of offenses; None: there is none
    cdef Timers timers
    cdef WatchTable watches
    cdef AddressTable clients
    cdef AddressTable counts        # where limits.client_connection_prefix_* is not the cache's
    cdef Dnsbl dnsbl
    cdef Rates rates
    cdef ClusterLink cluster
    cdef EventRing ring
    cdef HistoryRing history
    cdef Session* all
    cdef Session* gone              # freed at the end of this batch
    cdef Listener* listeners
    cdef Listener* closed
    cdef Listener inbox             # for clients that other workers pass to this one; fd -1: no inbox
    cdef int* crew_inboxes          # where to pass clients to other workers, by worker number
    cdef uint32_t crew_count, crew_number
    cdef uint64_t crew_key
    cdef Prefix crew_prefix
    cdef Arrival* arriving          # connections that wait for a PROXY header
    cdef Arrival* arrived           # freed at the end of this batch
    cdef int32_t arrivals
    cdef uint64_t passed_on
    cdef Pace pace
    cdef int epoll, mtas, timer_fd, spare
    cdef int probe_fd               # in both sets that the event loop reads
    cdef uint64_t probe_number      # of the last probe
    cdef uint64_t batch_probe       # the last probe that a completed batch has seen
    cdef uint64_t relay_probe       # the same for the set of relays
    cdef bint probe_seen            # in this batch
    cdef int64_t looked             # µs, monotonic: when events were looked at last
    cdef int64_t now                # µs, monotonic: when this batch began
    cdef int64_t wall               # µs since 1970, then
    cdef int64_t armed              # µs, monotonic: what timer_fd is set to, -1: nothing
    cdef int64_t drain_by           # µs, monotonic: when the time to finish is over
    cdef int64_t mta_busy_since     # µs, monotonic: when limits.post_queue was reached
    cdef Timer mta_retry, confirm, accept_retry, drain_limit
    cdef bint stress, accept_paused, draining
    cdef uint64_t descriptor_shortages          # accepting paused for lack of one
    cdef bint more                  # this batch was ended early by a limit
    cdef readonly int32_t sessions  # all of them, hand-offs included
    cdef readonly int32_t handoffs  # given to the MTA and not confirmed, or waiting for its socket
    cdef int32_t doubtful           # those of the hand-offs that are of doubtful clients
    cdef int32_t slowed             # sessions with delayed replies
    cdef readonly uint64_t accepted, handed
    cdef uint64_t cache_hits, cache_misses
    cdef uint32_t last_number       # of a session
    cdef uint32_t stages[STAGE_GONE]    # sessions by Stage
    cdef int relay_set              # the epoll set of relays
    cdef readonly int32_t relays    # connections to MTAs, being established or in use
    cdef readonly int32_t relayed   # sessions on them
    cdef bint relay_news            # a relay began or ended: `finish` is needed
    cdef char* relay_feed           # the bytes of the current read of a relay
    cdef int pipes[2 * PIPES]       # empty ones
    cdef int pipe_count             # pairs of them
    cdef int pipes_made
    cdef int64_t no_pipe_until      # µs, monotonic: no pipe is available before
    cdef object on_truncated, on_drained
    cdef const uint8_t[:] tls_marks
    cdef const uint8_t* tls_ready   # one byte for each TLS process
    cdef size_t tls_processes
    cdef int tls_fd
    cdef int32_t in_tls             # sessions
    cdef dict told                  # problem: when it was last logged (s, monotonic)
    cdef char* feed                 # the bytes of the current read

    def __cinit__(self):
        self.epoll = self.mtas = self.relay_set = self.timer_fd = self.probe_fd = self.spare = self.inbox.fd = -1
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
        self.watches = WatchTable()
        self.clients = AddressTable()
        self.counts = AddressTable()
        self.dnsbl = Dnsbl(self.watches)
        self.rates = Rates()
        self.cluster = ClusterLink()
        self.ring = EventRing(events)
        self.history = HistoryRing()
        self.told = {}
        self.look_at_clocks()
        self.looked = self.now
        self.pace = Pace(self.now)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.mtas = epoll_create1(EPOLL_CLOEXEC)
        self.relay_set = epoll_create1(EPOLL_CLOEXEC)
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        self.probe_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if (self.epoll < 0 or self.mtas < 0 or self.relay_set < 0 or self.timer_fd < 0 or self.probe_fd < 0
                or not watch_always(self.epoll, self.timer_fd, EPOLLIN, TAG_TIMER)
                or not watch_always(self.epoll, self.probe_fd, EPOLLIN | EPOLLET, TAG_PROBE)
                or not watch_always(self.relay_set, self.probe_fd, EPOLLIN | EPOLLET, TAG_PROBE)):
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
        if self.probe_fd >= 0:
            close(self.probe_fd)
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
        cdef int at, count, work = 0
        cdef uint64_t accepted = self.accepted
        cdef int64_t pause
        self.look_at_clocks()
        if self.stood_still():
            work = self.catch_up()
        self.looked = self.now
        count = self.watches.wait(self.epoll, events, EVENT_BATCH)
        self.more = count == EVENT_BATCH
        handoff_confirm_all(self)
        work += self.run_timers()
        # New clients last: for a client that comes back at once, the hand-off before has been completed.
        for at in range(count):
            if tag_of(events[at].data.u64) != TAG_LISTENER:
                work += self.handle(&events[at])
        for at in range(count):
            if tag_of(events[at].data.u64) == TAG_LISTENER:
                self.handle(&events[at])
        self.finish()
        if self.probe_seen:
            self.probe_seen = False
            self.batch_probe = self.probe_number
        work += <int> (self.accepted - accepted)
        pause = self.pace.pause(work, self.now)
        return 0.0 if self.more else pause / 1e6

    def run_relays(self):
        cdef int _turn
        for _turn in range(RELAY_TURNS):
            if self.serve_relays() == 0:
                break
        if self.relay_news:
            self.relay_news = False
            self.finish()
        else:
            self.arm_timer()

    cdef int serve_relays(self) noexcept:
        """Handle the events of relays, up to a limit. Return the number of events."""
        cdef epoll_event events[EVENT_BATCH]
        cdef Session* session
        cdef Tag tag
        cdef int at, count = self.watches.wait(self.relay_set, events, EVENT_BATCH)
        self.look_at_clocks()
        for at in range(count):
            tag = tag_of(events[at].data.u64)
            if tag == TAG_PROBE:
                self.relay_probe = self.probe_number
                continue
            session = <Session*> self.watches.owner(events[at].data.u64)
            if session != NULL:
                relay_event(self, session, FROM_MTA if tag == TAG_MTA else FROM_CLIENT, events[at].events)
        return count

    # ---- after a stall of the process

    cdef inline bint stood_still(self) noexcept:
        """Timers are late, and events were not read for longer than a batch takes: the process or the machine was
        stopped, swapped out or starved."""
        cdef int64_t due
        if self.now - self.looked < STALL_TIME:
            return False
        due = self.timers.next_deadline()
        return due >= 0 and due < self.now - ON_TIME

    cdef int catch_up(self) noexcept:
        """Before late timers expire: handle what peers did in time. Return the amount of work.

        The number of rounds is limited, because a client might never stop sending.
        """
        cdef epoll_event events[EVENT_BATCH]
        cdef int rounds = CATCH_UP_ROUNDS + <int> (self.watches.count // EVENT_BATCH)
        cdef int at, _round, count, served, work = 0
        # Clients last, with the time of that read: what they did while relays were served is not late.
        for _round in range(rounds):
            if self.serve_relays() == 0:
                break
        for _round in range(rounds):
            served = 0
            handoff_confirm_all(self)
            count = self.watches.wait(self.epoll, events, EVENT_BATCH)
            for at in range(count):
                if tag_of(events[at].data.u64) != TAG_LISTENER:     # the batch itself accepts clients
                    served += self.handle(&events[at])
            work += served
            if served == 0:
                break
        handoff_all(self)
        return work

    # ---- self-check

    def probe(self):
        cdef bint answered = self.batch_probe == self.probe_number and self.relay_probe == self.probe_number
        if answered:
            self.probe_number += 1
        eventfd_write(self.probe_fd, 1)     # edge-triggered, and never read: each probe is an event in both sets
        return answered

    cdef inline void look_at_clocks(self) noexcept:
        cdef timespec moment
        self.now = monotonic_microseconds()
        clock_gettime(CLOCK_REALTIME, &moment)
        self.wall = <int64_t> moment.tv_sec * 1000000 + moment.tv_nsec // 1000

    cdef inline bint bypassing(self) noexcept:
        """The panic switch is on, until its time is over."""
        return self.ring.header != NULL and self.wall < self.ring.header.bypass_until

    cdef int handle(self, const epoll_event* event) noexcept:
        """Handle an event. Return its amount of work: 0 or 1."""
        cdef Tag tag = tag_of(event.data.u64)
        cdef uint64_t expirations
        cdef void* owner
        if tag == TAG_TIMER:
            read(self.timer_fd, &expirations, sizeof(expirations))
            self.armed = -1
            return 0
        if tag == TAG_PROBE:
            self.probe_seen = True
            return 0
        if tag == TAG_CLUSTER:
            cluster_readable(self)
            return 1
        if tag == TAG_MTAS:
            return 0                # handoff_confirm_all reads it anyway
        owner = self.watches.owner(event.data.u64)
        if owner == NULL:
            return 0
        if tag == TAG_CLIENT:
            session_event(self, <Session*> owner, event.events)
        elif tag == TAG_LISTENER:
            listener_readable(self, <Listener*> owner)
        elif tag == TAG_ARRIVAL:
            arrival_event(self, <Arrival*> owner)
        elif tag == TAG_DNS:
            dnsbl_readable(self, <DnsSocket*> owner)
        return 1

    cdef void finish(self) noexcept:
        """Do what is done once per batch. TIMER_MTA_RETRY and TIMER_CONFIRM only ensure that a batch takes place.

        Failures outside the core are logged and do not prevent the other steps.
        """
        handoff_all(self)
        if self.handoffs and self.confirm.queue == NULL:
            self.timers.arm(&self.confirm, TIMER_CONFIRM, CONFIRM_TIME, self.now)
        dnsbl_flush(self)
        self.sweep()
        self.arm_timer()
        try:
            if self.cache is not None:
                self.cache.end_batch()
        except Exception as error:
            self.problem("end of the cache's batch", error)
        if self.memory is not None:
            try:
                self.memory.end_batch()
            except Exception as error:
                self.problem("end of the batch of the memory of offenses", error)
        try:
            self.log.flush()
        except Exception as error:
            self.problem("log", error)
        if self.draining and self.sessions == 0 and self.arrivals == 0 and not self.accept_paused:
            if self.inbox_is_empty():
                self.draining = False
                try:
                    self.on_drained()
                except Exception as error:
                    self.problem("end of the drain", error)
            else:
                self.finish()       # sessions that just began are part of this batch

    cdef void sweep(self) noexcept:
        """Free what ended in this batch; callers may have used it until now."""
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
        """Timers before events: bytes that arrive together with the end of the greet wait are not early (2.1). Return
        the number of timers."""
        cdef int count = 0
        cdef TimerKind kind
        cdef Timer* timer = self.timers.expired(self.now, &kind)
        while timer != NULL:
            count += 1
            if kind == TIMER_GREET:
                greet_end(self, <Session*> timer)
            elif kind == TIMER_COMMAND:
                dialogue_time_over(self, <Session*> timer)
            elif kind == TIMER_SLOW:
                slow_resume(self, <Session*> timer)
            elif kind == TIMER_HANDOFF:
                handoff_time_over(self, <Session*> timer)
            elif kind == TIMER_MTA:
                handoff_give_up(self, <Session*> timer)
            elif kind == TIMER_QUERY:
                query_try_over(self, <Query*> timer)
            elif kind == TIMER_LOOKUP:
                lookup_forget(self, <Lookup*> timer)
            elif kind == TIMER_RATE:
                rate_over(self, <Rate*> timer)
            elif kind == TIMER_CLUSTER:
                cluster_send(self, timer)
            elif kind == TIMER_ROTATE:
                dnsbl_rotate(self)
            elif kind == TIMER_ACCEPT:
                self.resume_accept()
            elif kind == TIMER_DRAIN:
                self.drain_time_over()
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
        """Set timer_fd to the next deadline; it may expire too early, never too late."""
        cdef int64_t deadline = self.timers.next_deadline()
        cdef itimerspec value
        if deadline < 0 or 0 <= self.armed <= deadline:
            return
        memset(&value, 0, sizeof(value))
        value.it_value.tv_sec = <time_t> (deadline // MICROSECONDS)
        value.it_value.tv_nsec = deadline % MICROSECONDS * 1000
        timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &value, NULL)
        self.armed = deadline

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
        if self.history.fingerprints:
            self.want_syn(listener, True)
        if not self.accept_paused:
            self.watch_listener(listener)

    def unlisten(self, int fd):
        cdef Listener** at = &self.listeners
        cdef Listener* listener
        while at[0] != NULL and at[0].fd != fd:
            at = &at[0].next
        if at[0] == NULL:
            raise ValueError(f"descriptor {fd} is not a listener")
        listener = at[0]
        self.watches.unwatch(&listener.watch)
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
        self.watches.unwatch(&self.inbox.watch)
        self.inbox.fd = inbox
        if not self.accept_paused:
            self.watch_listener(&self.inbox)

    cdef void want_syn(self, const Listener* listener, bint wanted) noexcept:
        """For the history. A load balancer's SYN packet says nothing about the client."""
        if listener.trusted == NULL:
            syn_wanted(listener.fd, wanted)

    cdef void watch_listener(self, Listener* listener) noexcept:
        self.watches.watch(&listener.watch, self.epoll, listener.fd, EPOLLIN, listener, TAG_LISTENER)

    cdef bint inbox_is_empty(self) noexcept:
        """Before this process ends: serve clients that were passed to it meanwhile. False: there were some, or there
        may be more."""
        return (self.inbox.fd < 0 or inbox_readable(self, self.inbox.fd)) and self.sessions == 0

    cdef void pause_accept(self, int64_t time) noexcept:
        """Let connections wait in the kernel until a client leaves, at most for this time (µs)."""
        cdef Listener* listener = self.listeners
        self.accept_paused = True
        self.descriptor_shortages += time == ACCEPT_RETRY_TIME
        while listener != NULL:
            self.watches.unwatch(&listener.watch)
            listener = listener.next
        self.watches.unwatch(&self.inbox.watch)
        watch_always(self.epoll, self.mtas, EPOLLIN, TAG_MTAS)      # the end of a hand-off frees a descriptor
        self.timers.arm(&self.accept_retry, TIMER_ACCEPT, time, self.now)

    cdef void resume_accept(self) noexcept:
        """Accept again, but keep the first free descriptor: without it no client could be handed off."""
        cdef Listener* listener = self.listeners
        self.reserve()
        if self.spare < 0:
            self.timers.arm(&self.accept_retry, TIMER_ACCEPT, ACCEPT_RETRY_TIME, self.now)
            return
        self.timers.cancel(&self.accept_retry)
        self.accept_paused = False
        unwatch_always(self.epoll, self.mtas)
        while listener != NULL:
            self.watch_listener(listener)
            listener = listener.next
        if self.inbox.fd >= 0:
            self.watch_listener(&self.inbox)

    cdef void reserve(self) noexcept:
        """Reserve the additional descriptor that a hand-off needs."""
        if self.spare < 0:
            self.spare = open("/dev/null", O_RDONLY | O_CLOEXEC)

    cdef int spare_socket(self, int family) noexcept:
        """A socket for a hand-off, from the reserve if necessary. -1: the reserve is in use."""
        cdef int fd
        self.reserve()
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0 and self.spare >= 0:
            close(self.spare)
            self.spare = -1
            fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        return fd

    # ---- calls from outside a batch

    def use_policy(self, Policy policy):
        policy.keep_lists(self.policy)
        self.policy = policy

    def use_tls(self, int fd, const uint8_t[:] ready):
        self.tls_fd = fd
        self.tls_marks = ready
        self.tls_processes = len(ready)
        self.tls_ready = &ready[0] if len(ready) else <const uint8_t*> self.feed

    def use_cluster(self, int fd, *, double budget=1, bint accepts=True, bint shares=True):
        if fd != self.cluster.fd:
            if self.cluster.fd >= 0:
                self.cluster.flush()
                unwatch_always(self.epoll, self.cluster.fd)
                self.cluster.fd = -1
            if fd >= 0 and not watch_always(self.epoll, fd, EPOLLIN, TAG_CLUSTER):
                raise OSError(errno, os.strerror(errno))
            self.cluster.fd = fd
        self.cluster.budget = int(budget * MICROSECONDS)
        self.cluster.accepts = fd >= 0 and accepts
        self.cluster.shares = fd >= 0 and shares

    def use_history(self, memory, int worker, int known, bytes description=b"", *, bint fingerprints=True):
        cdef Listener* listener = self.listeners
        self.history = HistoryRing(memory, worker, known, fingerprints)
        while listener != NULL:
            self.want_syn(listener, self.history.fingerprints)
            listener = listener.next
        if memory is not None:
            self.history.describe(description, len(description))

    def use_memory(self, memory):
        self.memory = memory

    def end_history(self):
        cdef Session* session = self.all
        self.look_at_clocks()
        while session != NULL:
            history_end(self, session)
            session = session.next
        self.history = HistoryRing()

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

    def drain(self, *, hurry=False, successor=False):
        self.look_at_clocks()
        while self.listeners != NULL:
            self.unlisten(self.listeners.fd)
        if successor and self.inbox.fd >= 0:
            self.watches.unwatch(&self.inbox.watch)
            self.inbox.fd = -1
        if not self.draining:
            self.drain_by = self.now + DRAIN_TIME
        self.draining = True
        self.timers.cancel(&self.drain_limit)
        self.timers.arm(&self.drain_limit, TIMER_DRAIN, WAITING_TIME if hurry else DRAIN_TIME, self.now)
        self.finish()

    cdef void drain_time_over(self) noexcept:
        """Disconnect clients that only wait, or, after the time to finish, all clients. They can return to the next
        process."""
        cdef bint all_of_them = self.now >= self.drain_by
        cdef Session* session = self.all
        cdef Session* following
        arrivals_end(self, True)
        while session != NULL:
            following = session.next
            if session.stage in (STAGE_GREET, STAGE_DIALOGUE) and session.fd >= 0:
                session_farewell(self, session, CLOSING)
            elif not all_of_them:
                pass
            elif session.stage == STAGE_RELAY:
                relay_end(self, session)
            elif session.fd >= 0:
                session_farewell(self, session, CLOSING)
            else:
                session_free(self, session)
            session = following
        if not all_of_them:
            self.timers.arm(&self.drain_limit, TIMER_DRAIN, WAITING_TIME, self.now)

    def stats(self):
        return {
            "sessions": self.sessions,
            "handoffs": self.handoffs,
            "tls": self.in_tls,
            "slowed": self.slowed,
            "relayed": self.relayed,
            "relays": self.relays,
            "clients": self.clients.count,
            "stages": {name: self.stages[at] for at, name in enumerate(STAGES[:STAGE_GONE])},
            "accepted": self.accepted,
            "arrivals": self.arrivals,
            "passed_on": self.passed_on,
            "stale_events": self.watches.stale,
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
            "cluster_asked": self.cluster.asked,
            "cluster_found": self.cluster.found,
            "cluster_ended": self.cluster.ended,
            "cluster_late": self.cluster.late,
            "cluster_dropped": self.cluster.dropped,
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

    def rates_of(self, str address):
        return rates_now(self, address)

    cdef void ask_over_tcp(self, uint64_t token, str name) except *:
        self.on_truncated(token, name)

    cdef void problem(self, str what, error) noexcept:
        """A part outside the core failed; the client continues without it."""
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
