# DNSBL: all lists of a client are asked at once, in batches, over a pool of connected sockets (reference 4).
#
# A client's answers are one Lookup, shared by its sessions and kept for a while after them: the same question is
# never on its way twice. What the lists said becomes a score only when a session asks for it.

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    struct sockaddr_storage:
        pass
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        uint32_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr* address, uint32_t size)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags)
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    const int SOCK_DGRAM, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_TRUNC, MSG_PEEK

cdef extern from "<sys/random.h>" nogil:
    Py_ssize_t getrandom(void* buffer, size_t size, unsigned int flags)

cdef enum:
    DNS_BATCH = 32                  # datagrams a system call
    DNS_QUERY_SIZE = 280            # header, a name of 255 octets, type and class
    DNS_ANSWER_SIZE = 4096          # more is no answer to a question without EDNS
    DNS_POOL = 8                    # sockets a resolver: what a forger must guess is one of these ports and the id
    DNS_IN_FLIGHT = 8192            # questions on their way; the others wait
    DNS_BUCKETS = 8192
    DNS_SENDS = 3                   # a question is sent this often, each time a try later
    KEPT_LOOKUPS = 50000            # clients whose answers are kept after they left
    KEEP_SECONDS = 300
    WARNING_SECONDS = 60            # a list's failures are told once in this time

cdef int64_t ROTATE_TIME = 10 * 1000000


@cython.final
@cython.no_gc_clear                     # sessions that are left are freed with it: see Screener
cdef class Dnsbl:
    """The resolvers, the questions on their way and the clients' answers of one process."""

    cdef AddressTable lookups
    cdef size_t kept                # lookups without a session
    cdef Resolver* resolvers        # a ring; the first is the one to ask
    cdef DnsSocket* gone            # sockets to free at the end of this batch of events
    cdef Query** buckets
    cdef Query* unsent_head
    cdef Query* unsent_tail
    cdef uint32_t in_flight
    cdef Timer rotate
    cdef uint16_t ids[256]          # random numbers, fetched in bulk
    cdef int ids_left
    cdef uint8_t* scratch           # DNS_BATCH questions or answers
    cdef dict elsewhere             # token of a question that is asked over TCP: its address
    cdef uint64_t token
    cdef object ask_over_tcp        # callable(token, name): answer with Screener.tcp_answer
    cdef readonly uint64_t asked, answered, timed_out, forged

    def __cinit__(self):
        self.lookups = AddressTable()
        self.elsewhere = {}
        self.buckets = <Query**> calloc(DNS_BUCKETS, sizeof(Query*))
        self.scratch = <uint8_t*> malloc(DNS_BATCH * DNS_ANSWER_SIZE)
        if self.buckets == NULL or self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buckets)
        free(self.scratch)


# ---- a client's answers

cdef Lookup* lookup_join(Screener core, Session* session) noexcept:
    """Give a session its client's answers, asking the lists whose answer is not there. NULL: out of memory."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Lists lists = (<Policy> session.policy).lists
    cdef AddressEntry* entry = dnsbl.lookups.find(&session.peer)
    cdef Lookup* lookup = lookup_of(entry) if entry != NULL else NULL
    cdef bint shared
    cdef int at
    cdef Reply* reply
    if lookup != NULL and lookup.lists != <PyObject*> lists:
        # a reload changed the lists: sessions that began before it keep the old answers
        dnsbl.lookups.remove(&lookup.entry)
        lookup.detached = True
        if lookup.sessions == 0:
            core.timers.cancel(&lookup.timer)
            dnsbl.kept -= 1
            lookup_free(core, lookup)
        lookup = NULL
    if lookup == NULL:
        lookup = lookup_new(core, lists, &session.peer)
        if lookup == NULL:
            return NULL
    shared = lookup.sessions > 0
    if not shared and lookup.timer.queue != NULL:
        core.timers.cancel(&lookup.timer)
        dnsbl.kept -= 1
    lookup.sessions += 1
    session.lookup = lookup
    session.lookup_next = lookup.waiting
    session.lookup_prev = NULL
    if lookup.waiting != NULL:
        lookup.waiting.lookup_prev = session
    lookup.waiting = session
    if shared:
        return lookup
    for at in range(lists.list_count):
        reply = &lookup.replies[at]
        if reply.state == REPLY_ASKED:
            continue
        if reply.kept_until > core.now // MICROSECONDS:
            if reply.state == REPLY_LISTED:
                log_listed(core, lookup, at)
            continue
        reply_clear(reply)
        if query_new(core, lookup, at):
            reply.state = REPLY_ASKED
            lookup.pending += 1
    return lookup


cdef void lookup_leave(Screener core, Session* session) noexcept:
    """A session is over; its client's answers are kept for others and for later."""
    cdef Lookup* lookup = session.lookup
    cdef Lookup* oldest
    if lookup == NULL:
        return
    if session.lookup_prev != NULL:
        session.lookup_prev.lookup_next = session.lookup_next
    else:
        lookup.waiting = session.lookup_next
    if session.lookup_next != NULL:
        session.lookup_next.lookup_prev = session.lookup_prev
    session.lookup = NULL
    lookup.sessions -= 1
    if lookup.sessions:
        return
    if not lookup.detached and not core.timers.arm(
            &lookup.timer, TIMER_LOOKUP, KEEP_SECONDS * MICROSECONDS, core.now):
        core.dnsbl.lookups.remove(&lookup.entry)
        lookup.detached = True
    if lookup.detached:
        lookup_free(core, lookup)
        return
    core.dnsbl.kept += 1
    if core.dnsbl.kept > KEPT_LOOKUPS:
        oldest = <Lookup*> lookup.timer.queue.head
        lookup_forget(core, oldest)


cdef void lookup_forget(Screener core, Lookup* lookup) noexcept:
    """Its time is over, or there are too many."""
    core.timers.cancel(&lookup.timer)
    core.dnsbl.kept -= 1
    core.dnsbl.lookups.remove(&lookup.entry)
    lookup.detached = True
    lookup_free(core, lookup)


cdef inline Lookup* lookup_of(AddressEntry* entry) noexcept nogil:
    return <Lookup*> (<char*> entry - <size_t> &(<Lookup*> NULL).entry)


cdef Lookup* lookup_new(Screener core, Lists lists, const Address* address) noexcept:
    cdef size_t size = sizeof(Lookup) + lists.list_count * sizeof(Reply)
    cdef Lookup* lookup = <Lookup*> calloc(1, size)
    if lookup == NULL:
        return NULL
    lookup.count = lists.list_count
    lookup.lists = <PyObject*> lists
    Py_INCREF(lists)
    core.dnsbl.lookups.add(&lookup.entry, address)
    return lookup


cdef void lookup_free(Screener core, Lookup* lookup) noexcept:
    """Free a lookup that no session holds; the last of its answers on their way does it if there are any."""
    cdef int at
    if lookup.pending:
        return
    for at in range(lookup.count):
        reply_clear(&lookup.replies[at])
    Py_DECREF(<Lists> lookup.lists)
    free(lookup)


cdef void reply_clear(Reply* reply) noexcept nogil:
    if reply.count > 1:
        free(reply.many)
    memset(reply, 0, sizeof(Reply))


cdef void lookup_replied(Screener core, Lookup* lookup) noexcept:
    """One list has answered or failed. When all have, the sessions that wait for it are told."""
    cdef Session* session
    cdef Session* following
    lookup.pending -= 1
    if lookup.pending:
        return
    if lookup.detached and lookup.sessions == 0:
        lookup_free(core, lookup)
        return
    session = lookup.waiting
    while session != NULL:
        following = session.lookup_next         # greet_dnsbl_done may take the session out of this line
        greet_dnsbl_done(core, session)
        session = following


cdef Score lookup_score(Screener core, Session* session) noexcept:
    """Add up what the lists have said so far (reference 4.4)."""
    cdef Policy policy = <Policy> session.policy
    cdef Lists lists = policy.lists
    cdef Lookup* lookup = session.lookup
    cdef Score score
    cdef Site* site
    cdef Reply* reply
    cdef int at
    cdef int32_t heaviest = 0
    cdef int64_t pass_ttl = -1, fail_ttl = -1, ttl
    cdef bint matched
    score.total = score.lowest = 0
    score.top = -1
    for at in range(lists.site_count):
        site = &lists.sites[at]
        reply = NULL
        if lookup != NULL:
            reply = &lookup.replies[site.list]
        if reply == NULL or reply.state not in (REPLY_LISTED, REPLY_NOT_LISTED):
            if site.weight < 0:
                score.lowest += site.weight
            if reply != NULL and reply.state == REPLY_FAILED and not reply.timed_out:
                pass_ttl = fail_ttl = 0         # an error has no TTL: the shortest pass (reference 4.3, 4.4)
            continue
        matched = reply.state == REPLY_LISTED and reply_matches(reply, site.octets)
        if matched:
            score.total += site.weight
            if score.top < 0 or site.weight > heaviest:
                heaviest = site.weight
                score.top = site.list
        ttl = max(0, <int64_t> reply.valid_until - core.now // MICROSECONDS)
        if (site.weight > 0) == (reply.state == REPLY_LISTED):
            fail_ttl = ttl if fail_ttl < 0 else min(fail_ttl, ttl)
        else:
            pass_ttl = ttl if pass_ttl < 0 else min(pass_ttl, ttl)
    score.lowest += score.total
    ttl = fail_ttl if score.total > 0 else pass_ttl
    score.ttl = min(max(ttl, policy.dnsbl_min_ttl), policy.dnsbl_max_ttl)
    return score


cdef bint reply_matches(const Reply* reply, const uint8_t* octets) noexcept nogil:
    """True when any of the addresses passes the filter."""
    cdef const uint32_t* addresses = &reply.one if reply.count == 1 else reply.many
    cdef const uint8_t* address
    cdef int at, octet
    cdef bint passes
    if octets == NULL:
        return reply.count > 0
    for at in range(reply.count):
        address = <const uint8_t*> &addresses[at]
        passes = True
        for octet in range(4):
            if not octets[32 * octet + address[octet] // 8] & (1 << address[octet] % 8):
                passes = False
                break
        if passes:
            return True
    return False


# ---- questions

cdef bint query_new(Screener core, Lookup* lookup, uint16_t list) noexcept:
    """Line up a question. False: out of memory."""
    cdef Query* query = <Query*> calloc(1, sizeof(Query))
    cdef Policy policy = core.policy
    if query == NULL:
        return False
    query.lookup = lookup
    query.list = list
    query.deadline = core.now + policy.dnsbl_timeout
    query.try_time = policy.dnsbl_try
    query.resolver = core.dnsbl.resolvers
    if not core.timers.arm(&query.timer, TIMER_QUERY, policy.dnsbl_try, core.now):
        free(query)
        return False
    core.dnsbl.asked += 1
    query_line_up(core.dnsbl, query)
    return True


cdef void query_line_up(Dnsbl dnsbl, Query* query) noexcept:
    query.next = NULL
    query.lined_up = True
    if dnsbl.unsent_tail != NULL:
        dnsbl.unsent_tail.next = query
    else:
        dnsbl.unsent_head = query
    dnsbl.unsent_tail = query


cdef void query_withdraw(Dnsbl dnsbl, Query* query) noexcept:
    """Forget that this question was sent: an answer to it is not ours any more."""
    cdef Query** at
    if query.socket == NULL:
        return
    at = &dnsbl.buckets[query.id % DNS_BUCKETS]
    while at[0] != query:
        at = &at[0].next
    at[0] = query.next
    query.socket.in_flight -= 1
    dnsbl.in_flight -= 1
    if query.socket.retired:
        socket_retire(dnsbl, query.socket)
    query.socket = NULL


cdef Query* query_find(Dnsbl dnsbl, DnsSocket* socket, uint16_t id) noexcept:
    cdef Query* query = dnsbl.buckets[id % DNS_BUCKETS]
    while query != NULL and (query.id != id or query.socket != socket):
        query = query.next
    return query


cdef void query_end(Screener core, Query* query) noexcept:
    """The reply is noted, or never will be."""
    cdef Lookup* lookup = query.lookup
    core.timers.cancel(&query.timer)
    query_withdraw(core.dnsbl, query)
    if query.token:
        core.dnsbl.elsewhere.pop(query.token, None)
    if query.lined_up:
        query.lookup = NULL                     # dnsbl_flush frees it
    else:
        free(query)
    lookup_replied(core, lookup)


cdef void query_try_over(Screener core, Query* query) noexcept:
    """No answer in this try: ask again, the next resolver if this one is silent, until the time is over."""
    cdef Resolver* resolver = query.resolver
    cdef Reply* reply = &query.lookup.replies[query.list]
    if core.now + 1000 >= query.deadline:
        reply.state = REPLY_FAILED
        reply.timed_out = True
        core.dnsbl.timed_out += 1
        log_timeout(core, query)
        query_end(core, query)
        return
    core.timers.arm(&query.timer, TIMER_QUERY, query.try_time, core.now)
    if query.token or query.lined_up or query.sends >= DNS_SENDS:
        return
    if resolver.answered < query.sent and core.dnsbl.resolvers == resolver:
        core.dnsbl.resolvers = resolver.next    # it has said nothing since: others begin with the next one
    query_withdraw(core.dnsbl, query)
    query.resolver = resolver.next
    query_line_up(core.dnsbl, query)


cdef void dnsbl_flush(Screener core) noexcept:
    """Send what is lined up, as far as the bound on questions in flight allows."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef mmsghdr messages[DNS_BATCH]
    cdef iovec parts[DNS_BATCH]
    cdef Query* query
    cdef DnsSocket* socket
    cdef List* list
    cdef int count
    cdef size_t size
    cdef uint8_t* packet
    while dnsbl.unsent_head != NULL and dnsbl.in_flight < DNS_IN_FLIGHT:
        count = 0
        socket = NULL
        memset(messages, 0, sizeof(messages))
        while count < DNS_BATCH and dnsbl.unsent_head != NULL:
            query = dnsbl.unsent_head
            if query.lookup != NULL and socket != NULL and query.resolver != socket.resolver:
                break
            dnsbl.unsent_head = query.next
            if dnsbl.unsent_head == NULL:
                dnsbl.unsent_tail = NULL
            query.lined_up = False
            if query.lookup == NULL:            # ended while it waited
                free(query)
                continue
            if socket == NULL:
                socket = resolver_socket(core, query.resolver)
                if socket == NULL:
                    continue                    # no descriptor: the next try comes
            list = &(<Lists> query.lookup.lists).lists[query.list]
            query.id = dns_random(dnsbl)
            while query_find(dnsbl, socket, query.id) != NULL:
                query.id = dns_random(dnsbl)
            packet = dnsbl.scratch + count * DNS_QUERY_SIZE
            size = dns_build(packet, DNS_QUERY_SIZE, query.id, &query.lookup.entry.address, list.wire, list.wire_size)
            if size == 0:
                continue                        # the configuration refused such names
            query.socket = socket
            query.sent = core.now
            query.sends += 1
            query.next = dnsbl.buckets[query.id % DNS_BUCKETS]
            dnsbl.buckets[query.id % DNS_BUCKETS] = query
            socket.in_flight += 1
            dnsbl.in_flight += 1
            parts[count].iov_base = packet
            parts[count].iov_len = size
            messages[count].msg_hdr.msg_iov = &parts[count]
            messages[count].msg_hdr.msg_iovlen = 1
            count += 1
        if count and sendmmsg(socket.fd, messages, count, 0) < 0 and errno == ECONNREFUSED:
            sendmmsg(socket.fd, messages, count, 0)     # that was the report of an earlier datagram's fate


cdef void dnsbl_readable(Screener core, DnsSocket* socket) noexcept:
    """Take the answers that have come."""
    cdef mmsghdr messages[DNS_BATCH]
    cdef iovec parts[DNS_BATCH]
    cdef uint8_t* packet
    cdef int at, count
    memset(messages, 0, sizeof(messages))
    for at in range(DNS_BATCH):
        parts[at].iov_base = core.dnsbl.scratch + at * DNS_ANSWER_SIZE
        parts[at].iov_len = DNS_ANSWER_SIZE
        messages[at].msg_hdr.msg_iov = &parts[at]
        messages[at].msg_hdr.msg_iovlen = 1
    count = recvmmsg(socket.fd, messages, DNS_BATCH, MSG_DONTWAIT, NULL)
    for at in range(count):
        packet = core.dnsbl.scratch + at * DNS_ANSWER_SIZE
        if messages[at].msg_hdr.msg_flags & MSG_TRUNC or messages[at].msg_len < 12:
            core.dnsbl.forged += 1
        else:
            dnsbl_datagram(core, socket, packet, messages[at].msg_len)


cdef void dnsbl_datagram(Screener core, DnsSocket* socket, const uint8_t* packet, size_t size) noexcept:
    """Judge one datagram: what does not answer a question of ours, word for word, is as if it never came."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Query* query = query_find(dnsbl, socket, <uint16_t> (packet[0] << 8 | packet[1]))
    cdef uint8_t question[DNS_QUERY_SIZE]
    cdef List* list
    cdef DnsAnswer answer
    cdef size_t question_size
    cdef int got
    if query == NULL:
        dnsbl.forged += 1
        return
    list = &(<Lists> query.lookup.lists).lists[query.list]
    question_size = dns_build(question, DNS_QUERY_SIZE, query.id, &query.lookup.entry.address, list.wire,
                              list.wire_size)
    got = dns_decode(packet, size, question, question_size, &answer)
    if got == DNS_NOT_OURS:
        dnsbl.forged += 1
        return
    socket.resolver.answered = core.now
    if got == DNS_MALFORMED:
        query_refused(core, query, "Malformed or unexpected name server reply")
    elif answer.truncated:
        query_over_tcp(core, query)
    elif answer.rcode not in (0, 3):
        query_refused(core, query, "Host not found, try again" if answer.rcode == 2 else "Non-recoverable error")
    else:
        if answer.rcode == 3:
            answer.count = 0                    # no such name: whatever else it says
        query_answered(core, query, answer.addresses, answer.count,
                       answer.ttl if answer.count else answer.soa_ttl,
                       answer.ttl if answer.count else answer.negative_ttl)


cdef void query_answered(Screener core, Query* query, const uint32_t* addresses, int count, int64_t ttl,
                         int64_t keep) noexcept:
    """Note what a list said. ttl and keep are seconds, -1: none given."""
    cdef Lookup* lookup = query.lookup
    cdef Reply* reply = &lookup.replies[query.list]
    cdef List* list = &(<Lists> lookup.lists).lists[query.list]
    cdef uint32_t listing[DNS_ADDRESSES]
    cdef const uint8_t* octets
    cdef int at, kept = 0
    for at in range(count):
        octets = <const uint8_t*> &addresses[at]
        if answer_is_listing(octets, list):
            listing[kept] = addresses[at]
            kept += 1
        else:
            log_no_listing(core, query, octets)
    core.dnsbl.answered += 1
    if count and not kept:
        reply.state = REPLY_FAILED              # 'you are blocked' says nothing of the client
        query_end(core, query)
        return
    if kept > 1:
        reply.many = <uint32_t*> malloc(kept * sizeof(uint32_t))
        if reply.many == NULL:
            kept = 1
        else:
            memcpy(reply.many, listing, kept * sizeof(uint32_t))
    if kept == 1:
        reply.one = listing[0]
    reply.count = kept
    reply.state = REPLY_LISTED if kept else REPLY_NOT_LISTED
    reply.valid_until = <uint32_t> (core.now // MICROSECONDS + max(ttl, 0))
    reply.kept_until = <uint32_t> (core.now // MICROSECONDS + min(max(keep, 0), KEEP_SECONDS))
    if kept:
        log_listed(core, lookup, query.list)
    query_end(core, query)


cdef bint answer_is_listing(const uint8_t* octets, const List* list) noexcept nogil:
    """False for an address that cannot mean 'listed': outside 127/8, or a list's way to say 'go away'."""
    if octets[0] != 127:
        return False
    if octets[1] == 255 and octets[2] == 255:
        return False                            # Spamhaus: wrong name, public resolver, too many questions
    return not (list.is_dnswl and octets[1] == 0 and octets[2] == 0 and octets[3] == 255)


cdef void query_refused(Screener core, Query* query, const char* why) noexcept:
    """This resolver does not know: another may."""
    if query.resolver.next == query.resolver or query.sends >= DNS_SENDS:
        query_failed(core, query, why)
        return
    query_withdraw(core.dnsbl, query)
    query.resolver = query.resolver.next
    query_line_up(core.dnsbl, query)


cdef void query_failed(Screener core, Query* query, const char* why) noexcept:
    """No resolver knows. Counts as not listed (reference 4.3)."""
    query.lookup.replies[query.list].state = REPLY_FAILED
    log_lookup_error(core, query, why)
    query_end(core, query)


cdef void query_over_tcp(Screener core, Query* query) noexcept:
    """The answer did not fit a datagram: the general resolver asks again. The time limit stays."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef char name[DNS_NAME_TEXT]
    if query.token:
        return
    query_withdraw(dnsbl, query)
    dnsbl.token += 1
    query.token = dnsbl.token
    query_name(query, name)
    try:
        dnsbl.elsewhere[query.token] = <size_t> query
        core.ask_over_tcp(query.token, name.decode())
    except Exception as error:
        core.problem("DNS over TCP", error)
        query_failed(core, query, "Malformed or unexpected name server reply")


# ---- sockets

cdef uint16_t dns_random(Dnsbl dnsbl) noexcept:
    """An id that nobody can foresee."""
    if dnsbl.ids_left == 0:
        while getrandom(dnsbl.ids, sizeof(dnsbl.ids), 0) != sizeof(dnsbl.ids):
            pass
        dnsbl.ids_left = 256
    dnsbl.ids_left -= 1
    return dnsbl.ids[dnsbl.ids_left]


cdef DnsSocket* resolver_socket(Screener core, Resolver* resolver) noexcept:
    """One of the resolver's sockets, by chance. NULL: none can be opened."""
    cdef DnsSocket* socket
    cdef uint32_t skip
    while resolver.socket_count < DNS_POOL:
        if not socket_open(core, resolver):
            break
    if resolver.socket_count == 0:
        return NULL
    skip = dns_random(core.dnsbl) % resolver.socket_count
    socket = resolver.sockets
    while skip:
        socket = socket.next
        skip -= 1
    return socket


cdef bint socket_open(Screener core, Resolver* resolver) noexcept:
    """Add a connected socket on a port that the kernel picks at random."""
    cdef DnsSocket* made = <DnsSocket*> calloc(1, sizeof(DnsSocket))
    cdef const sockaddr* address = <const sockaddr*> resolver.address
    if made == NULL:
        return False
    made.fd = socket((<const uint16_t*> resolver.address)[0], SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if made.fd < 0 or connect(made.fd, address, resolver.address_size) < 0 or not core.watch(
            made.fd, EPOLLIN, made, TAG_DNS):
        if made.fd >= 0:
            close(made.fd)
        free(made)
        return False
    made.resolver = resolver
    made.next = resolver.sockets
    resolver.sockets = made
    resolver.socket_count += 1
    return True


cdef void dnsbl_rotate(Screener core) noexcept:
    """Replace the oldest socket of each resolver, so that a port is not worth guessing at for long."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Resolver* resolver = dnsbl.resolvers
    cdef DnsSocket** at
    cdef DnsSocket* oldest
    core.timers.arm(&dnsbl.rotate, TIMER_ROTATE, ROTATE_TIME, core.now)
    if core.accept_paused:
        return                          # the descriptor would go to a client, and in the end none were left
    while resolver != NULL:
        at = &resolver.sockets
        while at[0] != NULL and at[0].next != NULL:
            at = &at[0].next
        if at[0] != NULL:
            oldest = at[0]
            at[0] = NULL
            resolver.socket_count -= 1
            socket_retire(dnsbl, oldest)
        resolver = resolver.next
        if resolver == dnsbl.resolvers:
            break


cdef void socket_retire(Dnsbl dnsbl, DnsSocket* socket) noexcept:
    """Close a socket with the last answer that it waits for; it is freed at the end of the batch of events."""
    socket.retired = True
    if socket.in_flight or socket.fd < 0:
        return
    close(socket.fd)
    socket.fd = -1
    socket.next = dnsbl.gone
    dnsbl.gone = socket


cdef void dnsbl_set_resolvers(Screener core, list addresses):
    """Ask these from now on; questions on their way are asked anew. Items are packed sockaddr structures."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Resolver* old = dnsbl.resolvers
    cdef Resolver* first = NULL
    cdef Resolver* last = NULL
    cdef Resolver* made
    cdef bytes packed
    cdef Query* query
    cdef TimerQueue* queue = core.timers.queues
    cdef Timer* timer
    cdef int bucket
    cdef DnsSocket* socket
    for packed in addresses:
        made = <Resolver*> calloc(1, sizeof(Resolver))
        if made == NULL:
            raise MemoryError
        made.address_size = min(len(packed), <int> sizeof(made.address))
        memcpy(made.address, <const char*> packed, made.address_size)
        if first == NULL:
            first = made
        else:
            last.next = made
        last = made
    if last != NULL:
        last.next = first
    dnsbl.resolvers = first
    for bucket in range(DNS_BUCKETS):
        while dnsbl.buckets[bucket] != NULL:
            query = dnsbl.buckets[bucket]
            query_withdraw(dnsbl, query)
            query_line_up(dnsbl, query)
    # Not all of them are in one of the lines above: some wait for a descriptor, some are asked over TCP.
    while queue != NULL:
        timer = queue.head if queue.kind == TIMER_QUERY else NULL
        while timer != NULL:
            (<Query*> timer).resolver = first
            timer = timer.next
        queue = queue.next
    made = old
    while made != NULL:
        first = made.next
        while made.sockets != NULL:
            socket = made.sockets
            made.sockets = socket.next
            socket_retire(dnsbl, socket)
        free(made)
        made = first if first != old else NULL


cdef void dnsbl_sweep(Dnsbl dnsbl) noexcept:
    """Free the sockets that were closed in this batch of events."""
    cdef DnsSocket* socket
    while dnsbl.gone != NULL:
        socket = dnsbl.gone
        dnsbl.gone = socket.next
        free(socket)


# ---- what the log says (reference 6.4)

cdef void query_name(Query* query, char* name) noexcept:
    """The name that is asked, as text, into DNS_NAME_TEXT octets."""
    cdef uint8_t packet[DNS_QUERY_SIZE]
    cdef List* list = &(<Lists> query.lookup.lists).lists[query.list]
    cdef size_t at = 12
    cdef size_t length = 0
    cdef uint8_t label
    dns_build(packet, DNS_QUERY_SIZE, 0, &query.lookup.entry.address, list.wire, list.wire_size)
    while packet[at]:
        label = packet[at]
        memcpy(name + length, packet + at + 1, label)
        name[length + label] = c"."
        length += label + 1
        at += label + 1
    name[length - 1 if length else 0] = 0


cdef void log_listed(Screener core, Lookup* lookup, int list) noexcept:
    cdef Reply* reply = &lookup.replies[list]
    cdef const uint32_t* addresses = &reply.one if reply.count == 1 else reply.many
    cdef Address address
    cdef char text[64]
    cdef int at
    for at in range(reply.count):
        core.log.begin(PRIORITY_INFO, True)
        core.log.put("addr ")
        core.log.put_bytes(text, address_text(&lookup.entry.address, text))
        core.log.put(" listed by domain ")
        core.log.put((<Lists> lookup.lists).lists[list].name)
        core.log.put(" as ")
        address.family = 4
        memcpy(address.ip, &addresses[at], 4)
        core.log.put_bytes(text, address_text(&address, text))
        core.log.end()


cdef bint list_quiet(Screener core, List* list) noexcept:
    """A list's failures are told once a while: a dead list on a busy host would be the whole log."""
    cdef uint32_t now = <uint32_t> (core.now // MICROSECONDS)
    if list.warned and now < list.warned + WARNING_SECONDS:
        list.unlogged += 1
        return True
    if list.unlogged:
        core.log.begin(PRIORITY_INFO, True)
        core.log.put_number(list.unlogged)
        core.log.put(" more failed lookups of domain ")
        core.log.put(list.name)
        core.log.put(" since its last warning")
        core.log.end()
    list.warned = now
    list.unlogged = 0
    return False


cdef void log_timeout(Screener core, Query* query) noexcept:
    cdef List* list = &(<Lists> query.lookup.lists).lists[query.list]
    if list_quiet(core, list):
        return
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: dnsblog reply timeout ")
    core.log.put_number(core.policy.dnsbl_timeout // MICROSECONDS)
    core.log.put("s for ")
    core.log.put(list.name)
    core.log.end()


cdef void log_lookup_error(Screener core, Query* query, const char* why) noexcept:
    cdef char name[DNS_NAME_TEXT]
    if list_quiet(core, &(<Lists> query.lookup.lists).lists[query.list]):
        return
    query_name(query, name)
    core.log.begin(PRIORITY_WARNING, True)
    core.log.put("warning: dnsblog_query: lookup error for DNS query ")
    core.log.put(name)
    core.log.put(": Host or domain name not found. Name service error for name=")
    core.log.put(name)
    core.log.put(" type=A: ")
    core.log.put(why)
    core.log.end()


cdef void log_no_listing(Screener core, Query* query, const uint8_t* octets) noexcept:
    cdef char text[64]
    cdef Address address
    cdef List* list = &(<Lists> query.lookup.lists).lists[query.list]
    if list_quiet(core, list):
        return
    address.family = 4
    memcpy(address.ip, octets, 4)
    core.log.begin(PRIORITY_WARNING, True)
    core.log.put("warning: domain ")
    core.log.put(list.name)
    core.log.put(" answered ")
    core.log.put_bytes(text, address_text(&address, text))
    core.log.put(", which is not a listing: ignored")
    core.log.end()
