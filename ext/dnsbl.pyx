# DNSBL: all lists are queried for a client at once, in batches, over a pool of connected sockets (reference 4).
#
# A client's answers are one Lookup, shared by its sessions and kept for a while after them: the same query is
# never pending twice. The score is calculated from the lists' answers when a session needs it.

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
    DNS_BATCH = 32                  # datagrams per system call
    DNS_QUERY_SIZE = 280            # header, a name of 255 bytes, type and class
    DNS_ANSWER_SIZE = 4096          # a longer datagram cannot answer a query without EDNS
    DNS_POOL = 8                    # sockets per resolver: a forger must guess one of these ports and the id
    LIST_IN_FLIGHT = 8192           # pending queries per list for which a session waits; further queries wait
    SOCKET_IN_FLIGHT = 49152        # over one socket: a free id is found quickly
    DNS_IN_FLIGHT = 131072          # to all lists together: a quarter of the ids of one resolver's sockets
    ABANDONED_PART = 4              # of a list's budget, in addition, for queries without a waiting session
    SHARE_PART = 4                  # one network has at most this part of a list's pending queries
    SHARES = 1024                   # networks with their own queue, per list
    NETWORK_IPV4 = 24               # the smallest network that is routed
    NETWORK_IPV6 = 64               # the smallest network that a host gets
    DNS_BUCKETS = 8192
    DNS_SENDS = 3                   # how often a query is sent to the only resolver, once per try
    DNS_SENDS_MOST = 60             # to several resolvers together
    KEPT_LOOKUPS = 50000            # clients whose answers are kept after they have left
    KEPT_SHARE = KEPT_LOOKUPS // 64     # of one network, once half of KEPT_LOOKUPS are in use
    KEPT_NETWORKS = 4096
    KEEP_SECONDS = 300
    WARNING_SECONDS = 60            # a list's failures are logged once in this time

cdef int64_t ROTATE_TIME = 10 * 1000000
cdef int64_t SILENT_TIME = 5 * 1000000      # no resolver has answered for this time: log a warning


@cython.final
@cython.no_gc_clear                     # remaining sessions are freed with it: see Screener
cdef class Dnsbl:
    """The resolvers, the pending queries and the clients' answers of one process."""

    cdef WatchTable watches
    cdef AddressTable lookups
    cdef size_t kept                # lookups without a session
    cdef uint16_t* kept_of          # the same by the hash of their network
    cdef Resolver* resolvers        # a ring; the first one is queried
    cdef DnsSocket* gone            # sockets to free at the end of this batch of events
    cdef Query** buckets
    cdef Query* unsent_head
    cdef Query* unsent_tail
    cdef uint32_t in_flight
    cdef Timer rotate
    cdef uint16_t ids[256]          # random numbers, fetched in bulk
    cdef int ids_left
    cdef uint8_t* scratch           # DNS_BATCH queries or answers
    cdef dict elsewhere             # token of a query that is repeated over TCP: its address
    cdef uint64_t token
    cdef bint silence_told          # no resolver answers
    cdef readonly uint64_t asked, answered, timed_out, forged, heard

    def __cinit__(self, WatchTable watches):
        self.watches = watches
        self.lookups = AddressTable()
        self.elsewhere = {}
        self.buckets = <Query**> calloc(DNS_BUCKETS, sizeof(Query*))
        self.scratch = <uint8_t*> malloc(DNS_BATCH * DNS_ANSWER_SIZE)
        self.kept_of = <uint16_t*> calloc(KEPT_NETWORKS, sizeof(uint16_t))
        if self.buckets == NULL or self.scratch == NULL or self.kept_of == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buckets)
        free(self.scratch)
        free(self.kept_of)


# ---- a client's answers

cdef Lookup* lookup_join(Screener core, Session* session) noexcept:
    """Give a session its client's answers, and query the lists whose answer is missing. NULL: out of memory."""
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
            lookup_take_back(core, lookup)
            lookup_free(core, lookup)
        lookup = NULL
    if lookup == NULL:
        lookup = lookup_new(core, lists, &session.peer)
        if lookup == NULL:
            return NULL
    shared = lookup.sessions > 0
    if not shared and lookup.timer.queue != NULL:
        lookup_take_back(core, lookup)
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
        if not list_is_asked(&lists.lists[at]):
            continue
        if reply.state == REPLY_ASKED:
            query_renew(core, reply.query)
            continue
        if reply.kept_until > core.now // MICROSECONDS and reply_is_valid(&lists.lists[at], reply):
            if reply.state == REPLY_LISTED:
                log_listed(core, lookup, at)
            continue
        reply_clear(reply)
        if query_new(core, lookup, at):
            reply.state = REPLY_ASKED
            lookup.pending += 1
        else:
            reply.unasked = True
    return lookup


cdef void lookup_leave(Screener core, Session* session) noexcept:
    """A session has ended; its client's answers are kept for other sessions and for later."""
    cdef Lookup* lookup = session.lookup
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
    if lookup.sessions == 0:
        lookup_keep(core, lookup)


cdef void lookup_keep(Screener core, Lookup* lookup) noexcept:
    """No session waits any longer: drop the queries that are not sent yet, and keep the answers for later."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef uint16_t* kept_of = &dnsbl.kept_of[lookup.network % KEPT_NETWORKS]
    cdef bint wanted = not lookup.detached
    cdef int at
    if wanted:
        for at in range(lookup.count):
            if lookup.replies[at].state == REPLY_ASKED:
                query_abandon(core, lookup.replies[at].query)
        # A flood from one network must not displace the kept answers of others.
        wanted = lookup_is_of_use(lookup) and (dnsbl.kept < KEPT_LOOKUPS // 2 or kept_of[0] < KEPT_SHARE)
    if not wanted or not core.timers.arm(&lookup.timer, TIMER_LOOKUP, KEEP_SECONDS * MICROSECONDS, core.now):
        if not lookup.detached:
            dnsbl.lookups.remove(&lookup.entry)
        lookup_free(core, lookup)
        return
    dnsbl.kept += 1
    kept_of[0] += 1
    if dnsbl.kept > KEPT_LOOKUPS:
        lookup_forget(core, <Lookup*> lookup.timer.queue.head)


cdef bint lookup_is_of_use(const Lookup* lookup) noexcept nogil:
    """A list has answered for the client, or still may."""
    cdef int at
    for at in range(lookup.count):
        if lookup.replies[at].state in (REPLY_ASKED, REPLY_LISTED, REPLY_NOT_LISTED):
            return True
    return False


cdef void lookup_take_back(Screener core, Lookup* lookup) noexcept:
    """A lookup is no longer one of those that are kept for later."""
    core.timers.cancel(&lookup.timer)
    core.dnsbl.kept -= 1
    core.dnsbl.kept_of[lookup.network % KEPT_NETWORKS] -= 1


cdef void lookup_forget(Screener core, Lookup* lookup) noexcept:
    """A lookup's time is over, or there are too many lookups."""
    lookup_take_back(core, lookup)
    core.dnsbl.lookups.remove(&lookup.entry)
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
    lookup.lists_of = lists.lists
    lookup.network = network_hash(core.dnsbl, address)
    Py_INCREF(lists)
    core.dnsbl.lookups.add(&lookup.entry, address)
    return lookup


cdef void lookup_free(Screener core, Lookup* lookup) noexcept:
    """Free a lookup that no session holds, and its queries: their answers will be ignored."""
    cdef int at
    for at in range(lookup.count):
        if lookup.replies[at].state == REPLY_ASKED:
            query_free(core, lookup.replies[at].query)
        reply_clear(&lookup.replies[at])
    Py_DECREF(<Lists> lookup.lists)
    free(lookup)


cdef uint32_t network_hash(Dnsbl dnsbl, const Address* address) noexcept:
    """A keyed hash, so that a client cannot choose networks that share a queue with another client's network."""
    cdef Prefix prefix
    cdef Address network = address[0]
    prefix.ipv4 = NETWORK_IPV4
    prefix.ipv6 = NETWORK_IPV6
    prefix_mask(&prefix, &network)
    return <uint32_t> (dnsbl.lookups.hash(&network) >> 32)


cdef void reply_clear(Reply* reply) noexcept nogil:
    if reply.count > 1:
        free(reply.many)
    memset(reply, 0, sizeof(Reply))


cdef void lookup_replied(Screener core, Lookup* lookup) noexcept:
    """One list has answered or failed. After the last one, notify the sessions that wait."""
    cdef Session* session
    cdef Session* following
    lookup.pending -= 1
    if lookup.pending:
        return
    lookup_count_unique(lookup)
    if lookup.sessions == 0 and not lookup_is_of_use(lookup):
        lookup_forget(core, lookup)
        return
    session = lookup.waiting
    while session != NULL:
        following = session.lookup_next         # greet_dnsbl_done may remove the session from this queue
        greet_dnsbl_done(core, session)
        session = following


cdef void lookup_count_unique(Lookup* lookup) noexcept nogil:
    """Count a client that is on one list only, for that list."""
    cdef int at, only = -1
    for at in range(lookup.count):
        if lookup.replies[at].state == REPLY_LISTED:
            if only >= 0:
                return
            only = at
    if only >= 0:
        lookup.lists_of[only].unique += 1


cdef Score lookup_score(Screener core, Session* session) noexcept:
    """Add up the lists' answers so far (reference 4.4)."""
    cdef Policy policy = <Policy> session.policy
    cdef Lists lists = policy.lists
    cdef Lookup* lookup = session.lookup
    cdef Score score
    cdef Site* site
    cdef List* list
    cdef Reply* reply
    cdef int at
    cdef int32_t heaviest = 0, heaviest_suspect = 0, suspect_top = -1
    cdef int64_t pass_ttl = -1, fail_ttl = -1, ttl
    cdef bint matched, unsettled = False
    score.total = score.lowest = score.highest = 0
    score.top = -1
    for at in range(lists.site_count):
        site = &lists.sites[at]
        list = &lists.lists[site.list]
        reply = NULL
        if lookup != NULL:
            reply = &lookup.replies[site.list]
        unsettled = unsettled or list_is_suspected(list)
        if reply == NULL or reply_is_unasked(reply):
            unsettled = True
            if site.weight < 0:
                score.lowest += site.weight
            else:
                score.highest += site.weight
            continue
        if not reply_counts(list, reply):
            if site.weight < 0:
                score.lowest += site.weight
            elif reply_is_doubtful(list, reply) and reply_matches(reply, site.octets):
                score.highest += site.weight
                if suspect_top < 0 or site.weight > heaviest_suspect:
                    heaviest_suspect = site.weight
                    suspect_top = site.list
            if (reply.state == REPLY_FAILED and not reply.timed_out
                    or reply.state in (REPLY_LISTED, REPLY_NOT_LISTED)    # from before it was put back
                    or not list_is_well(list)):
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
    score.highest += score.total
    if score.total < policy.threshold:
        score.top = suspect_top
    ttl = fail_ttl if score.total > 0 else pass_ttl
    score.unsettled = unsettled
    # A client that is handed off while a list is being probed is tested again the next time: a burst of listed clients,
    # which makes a list suspect, must not earn a pass for other clients.
    score.ttl = 0 if unsettled else min(max(ttl, policy.dnsbl_min_ttl), policy.dnsbl_max_ttl)
    return score


cdef inline bint reply_is_unasked(const Reply* reply) noexcept nogil:
    """The query was not sent in time, for lack of room: the list's answer is unknown."""
    return reply.unasked or (reply.state == REPLY_ASKED and query_is_unasked(reply.query))


cdef inline bint query_is_unasked(const Query* query) noexcept nogil:
    return query.waited or (query.sends == 0 and not query.token)


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


# ---- what the log says (reference 6.4)

cdef void query_name(Query* query, char* name) noexcept:
    """Write the name in a query, as text, into DNS_NAME_TEXT bytes."""
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
        event_about(core, EVENT_LISTED, &lookup.entry.address, list, addresses[at])


cdef bint list_quiet(Screener core, List* list) noexcept:
    """Log a list's failures only once in a while: a dead list on a busy host would fill the log."""
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


cdef void log_unasked(Screener core, Query* query) noexcept:
    cdef List* list = &(<Lists> query.lookup.lists).lists[query.list]
    if list_quiet(core, list):
        return
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: list ")
    core.log.put(list.shown)
    core.log.put(" was not asked about every client: ")
    core.log.put_number(list.budget)
    core.log.put(" questions are on their way, or one network has asked too many; those clients are deferred")
    core.log.end()


cdef bint resolvers_are_silent(Screener core, Lists lists) noexcept:
    """No list has answered for a while, whichever resolver was queried: the cause is not the lists."""
    cdef int at
    cdef int64_t since
    for at in range(lists.list_count):
        since = lists.lists[at].unheard_since
        if list_is_asked(&lists.lists[at]) and (since == 0 or core.now < since + SILENT_TIME):
            return False
    return True


cdef void log_silence(Screener core) noexcept:
    """No resolver answers, or a resolver answers again."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Resolver* resolver = dnsbl.resolvers
    cdef Address address
    if not dnsbl.silence_told:
        core.log.begin(PRIORITY_INFO, False)
        core.log.put("DNS resolvers answer again")
        core.log.end()
        return
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: no DNS resolver has answered for ")
    core.log.put_number(SILENT_TIME // MICROSECONDS)
    core.log.put(" s:")
    while resolver != NULL:
        if address_of(<const sockaddr_storage*> resolver.address, &address):
            core.log.put(" ")
            core.log.put_address(&address)
        resolver = resolver.next
        if resolver == dnsbl.resolvers:
            break
    core.log.put("; clients pass as if no list had them until one answers; check dnsbl.resolvers and the network")
    core.log.end()


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
