# The pending queries and their sockets. What an answer means for a client is decided in dnsbl.pyx.
#
# Queries are sent and answers received in batches. A datagram that does not answer one of our queries, byte for byte,
# is ignored.

# ---- queries

cdef bint query_new(Screener core, Lookup* lookup, uint16_t list) noexcept:
    """Create a query and queue it. False: out of memory."""
    cdef Query* query = <Query*> calloc(1, sizeof(Query))
    cdef Policy policy = core.policy
    if query == NULL:
        return False
    query.lookup = lookup
    query.list = list
    query.asked = core.now
    query.deadline = core.now + policy.dnsbl_timeout
    query.try_time = policy.dnsbl_try
    query.resolver = core.dnsbl.resolvers
    if not core.timers.arm(&query.timer, TIMER_QUERY, policy.dnsbl_try, core.now):
        free(query)
        return False
    lookup.replies[list].query = query
    lookup.lists_of[list].asked += 1
    core.dnsbl.asked += 1
    query_admit(core, query)
    return True


cdef void query_renew(Screener core, Query* query) noexcept:
    """A client came back while its query is unanswered: send the query again, with its full time limit."""
    query.deadline = core.now + core.policy.dnsbl_timeout
    query.refused = 0
    core.timers.arm(&query.timer, TIMER_QUERY, query.try_time, core.now)
    if query.token:
        return
    query.sends = 0
    query_withdraw(core.dnsbl, query)
    query_give_up_place(core, query)
    query.resolver = core.dnsbl.resolvers
    query.waited = False
    query_admit(core, query)


# ---- room: each list has a budget of pending queries, which the networks of clients share in turn

cdef void query_admit(Screener core, Query* query) noexcept:
    """Send a query if there is room, or let it wait for its network's turn."""
    cdef List* list = &query.lookup.lists_of[query.list]
    cdef Share* share = &list.shares[query.lookup.network % SHARES]
    if list.in_flight < list.budget and share.head == NULL and share_may_ask(list, share):
        query_grant(core, list, share, query)
        return
    query.place = PLACE_WAITING
    query.waited = True
    query.next = NULL
    query.prev = share.tail
    if share.tail != NULL:
        share.tail.next = query
    else:
        share.head = query
    share.tail = query
    share_join_round(list, share)


cdef inline bint share_may_ask(const List* list, const Share* share) noexcept nogil:
    return share.in_flight < max(list.budget // SHARE_PART, <uint32_t> 1)


cdef void query_grant(Screener core, List* list, Share* share, Query* query) noexcept:
    query.place = PLACE_GRANTED
    list.in_flight += 1
    share.in_flight += 1
    query_line_up(core.dnsbl, query)


cdef void share_join_round(List* list, Share* share) noexcept nogil:
    """Append a network to the queue of networks if it has a waiting query and may send it."""
    if share.in_round or share.head == NULL or not share_may_ask(list, share):
        return
    share.in_round = True
    share.next = NULL
    if list.round_tail != NULL:
        list.round_tail.next = share
    else:
        list.round_head = share
    list.round_tail = share


cdef void share_remove(Share* share, Query* query) noexcept nogil:
    """Remove a query from its network's queue."""
    if query.prev != NULL:
        query.prev.next = query.next
    else:
        share.head = query.next
    if query.next != NULL:
        query.next.prev = query.prev
    else:
        share.tail = query.prev


cdef void list_grant(Screener core, List* list) noexcept:
    """Give the available room to the networks whose turn it is, one query each."""
    cdef Share* share
    cdef Query* query
    while list.in_flight < list.budget and list.round_head != NULL:
        share = list.round_head
        list.round_head = share.next
        if list.round_head == NULL:
            list.round_tail = NULL
        share.in_round = False
        query = share.head
        if query == NULL or not share_may_ask(list, share):
            continue
        share_remove(share, query)
        query_grant(core, list, share, query)
        share_join_round(list, share)


cdef void query_give_up_place(Screener core, Query* query) noexcept:
    """A query needs its room no longer: give the room to another one."""
    cdef List* list = &query.lookup.lists_of[query.list]
    cdef Share* share = &list.shares[query.lookup.network % SHARES]
    cdef uint8_t place = query.place
    query.place = PLACE_NONE
    if place == PLACE_WAITING:
        share_remove(share, query)
    elif place == PLACE_ABANDONED:
        list.abandoned -= 1
    elif place == PLACE_GRANTED:
        list.in_flight -= 1
        share.in_flight -= 1
        share_join_round(list, share)
        list_grant(core, list)


cdef void query_abandon(Screener core, Query* query) noexcept:
    """No session waits for this query any longer. If it was sent, its answer is kept for later; otherwise it is
    dropped."""
    cdef Lookup* lookup = query.lookup
    cdef List* list = &lookup.lists_of[query.list]
    cdef bint sent = query.sends or query.token
    if query_is_unasked(query) and query.asked < core.now:      # otherwise the client left immediately
        log_unasked(core, query)
    if sent and list.abandoned < list.budget // ABANDONED_PART:
        query_give_up_place(core, query)
        query.place = PLACE_ABANDONED
        list.abandoned += 1
        return
    lookup.pending -= 1
    reply_clear(&lookup.replies[query.list])
    query_free(core, query)


# ---- pending queries

cdef void query_line_up(Dnsbl dnsbl, Query* query) noexcept:
    """Send a query at the end of this batch. `dnsbl_flush` skips queries that have lost their room by then."""
    if query.lined_up:
        return
    query.unsent_next = NULL
    query.lined_up = True
    if dnsbl.unsent_tail != NULL:
        dnsbl.unsent_tail.unsent_next = query
    else:
        dnsbl.unsent_head = query
    dnsbl.unsent_tail = query


cdef void query_withdraw(Dnsbl dnsbl, Query* query) noexcept:
    """Forget that this query was sent: an answer to it will be ignored."""
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
    """A query has ended, with or without a reply."""
    cdef Lookup* lookup = query.lookup
    lookup.replies[query.list].query = NULL
    query_free(core, query)
    lookup_replied(core, lookup)


cdef void query_free(Screener core, Query* query) noexcept:
    core.timers.cancel(&query.timer)
    query_withdraw(core.dnsbl, query)
    query_give_up_place(core, query)
    if query.token:
        core.dnsbl.elsewhere.pop(query.token, None)
    if query.lined_up:
        query.lookup = NULL                     # dnsbl_flush frees it
    else:
        free(query)


cdef void query_try_over(Screener core, Query* query) noexcept:
    """No answer within this try: query again, using the next resolver if this one is silent, until the time limit."""
    cdef Resolver* resolver = query.resolver
    cdef Resolver* following
    cdef Reply* reply = &query.lookup.replies[query.list]
    cdef List* list
    if not core.dnsbl.silence_told and resolvers_are_silent(core, <Lists> query.lookup.lists):
        core.dnsbl.silence_told = True
        log_silence(core)
    if core.now + 1000 >= query.deadline:
        reply.state = REPLY_FAILED
        if query_is_unasked(query):
            reply.unasked = True
            log_unasked(core, query)
            query_end(core, query)
            return
        reply.timed_out = True
        core.dnsbl.timed_out += 1
        list = &query.lookup.lists_of[query.list]
        list.timed_out += 1
        event_about(core, EVENT_LIST_FAILED, &query.lookup.entry.address, query.list, True)
        log_timeout(core, query)
        query_end(core, query)
        return
    core.timers.arm(&query.timer, TIMER_QUERY, query.try_time, core.now)
    if query.token or query.lined_up or query.place == PLACE_WAITING:
        return
    if (query.socket == NULL or resolver.answered < query.sent) and core.dnsbl.resolvers == resolver:
        core.dnsbl.resolvers = resolver.next    # it has been silent since then: others begin with the next one
    if query.place == PLACE_ABANDONED:
        return
    following = resolver_after(query)
    if query.socket != NULL and following == resolver:
        if query.sends < DNS_SENDS:
            query_repeat(core, query)
        return
    # Answers of this resolver to the previous try are ignored from now on, so all are queried in turn until the end.
    if query.sends < DNS_SENDS_MOST:
        query_withdraw(core.dnsbl, query)
        query.resolver = following
        query_line_up(core.dnsbl, query)


cdef Resolver* resolver_after(const Query* query) noexcept nogil:
    """The next resolver to query: the others in turn, except those that have refused. NULL: all have refused."""
    cdef Resolver* resolver = query.resolver
    while True:
        resolver = resolver.next
        if not query.refused & resolver.mark:
            return resolver
        if resolver == query.resolver:
            return NULL


cdef void query_repeat(Screener core, Query* query) noexcept:
    """Send the same query over the same socket: there is only one resolver, and the first answer may be late."""
    cdef uint8_t packet[DNS_QUERY_SIZE]
    cdef List* list = &(<Lists> query.lookup.lists).lists[query.list]
    cdef size_t size = dns_build(packet, DNS_QUERY_SIZE, query.id, &query.lookup.entry.address, list.wire,
                                 list.wire_size)
    if send(query.socket.fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 or not want_of_room():
        query.sends += 1


cdef void dnsbl_flush(Screener core) noexcept:
    """Send the queued queries."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef mmsghdr messages[DNS_BATCH]
    cdef iovec parts[DNS_BATCH]
    cdef Query* queries[DNS_BATCH]
    cdef Query* query
    cdef DnsSocket* socket
    cdef List* list
    cdef int count
    cdef size_t size
    cdef uint8_t* packet
    while dnsbl.unsent_head != NULL:
        count = 0
        socket = NULL
        memset(messages, 0, sizeof(messages))
        while count < DNS_BATCH and dnsbl.unsent_head != NULL:
            query = dnsbl.unsent_head
            if query.lookup != NULL and socket != NULL and query.resolver != socket.resolver:
                break
            dnsbl.unsent_head = query.unsent_next
            if dnsbl.unsent_head == NULL:
                dnsbl.unsent_tail = NULL
            query.lined_up = False
            if query.lookup == NULL:            # ended while it waited
                free(query)
                continue
            if query.place != PLACE_GRANTED:    # its client left, or came back and is waiting for room
                continue
            list = &(<Lists> query.lookup.lists).lists[query.list]
            if list.unheard_since == 0:
                list.unheard_since = core.now
            if socket == NULL:
                socket = resolver_socket(core, query.resolver)
                if socket == NULL:              # it is tried again
                    query.sends += not want_of_room()       # that resolver is unreachable: as if the query were lost
                    continue
            if socket.in_flight >= SOCKET_IN_FLIGHT:    # out of descriptors for other resolvers: it is tried again
                continue
            query.id = dns_random(dnsbl)
            while query_find(dnsbl, socket, query.id) != NULL:
                query.id = dns_random(dnsbl)
            packet = dnsbl.scratch + count * DNS_QUERY_SIZE
            size = dns_build(packet, DNS_QUERY_SIZE, query.id, &query.lookup.entry.address, list.wire, list.wire_size)
            if size == 0:
                continue                        # the configuration rejects such names
            query.socket = socket
            query.sent = core.now
            query.sends += 1
            query.next = dnsbl.buckets[query.id % DNS_BUCKETS]
            dnsbl.buckets[query.id % DNS_BUCKETS] = query
            socket.in_flight += 1
            dnsbl.in_flight += 1
            queries[count] = query
            parts[count].iov_base = packet
            parts[count].iov_len = size
            messages[count].msg_hdr.msg_iov = &parts[count]
            messages[count].msg_hdr.msg_iovlen = 1
            count += 1
        if count:
            datagrams_send(socket.fd, messages, queries, count)


cdef void datagrams_send(int fd, mmsghdr* messages, Query** queries, int count) noexcept nogil:
    """Send queries. Queries that do not fit into the kernel's buffer count as not sent."""
    cdef int at = 0
    cdef int got
    cdef bint again = True
    while at < count:
        got = sendmmsg(fd, messages + at, count - at, MSG_DONTWAIT)
        if got > 0:
            at += got
        elif errno == ECONNREFUSED and again:
            again = False                       # this was the error of an earlier datagram
        else:
            break
    if at < count and want_of_room():
        while at < count:
            queries[at].sends -= 1
            at += 1


cdef inline bint want_of_room() noexcept nogil:
    """The last system call failed because this host is out of some resource."""
    return errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EAGAIN)


cdef void dnsbl_readable(Screener core, DnsSocket* socket) noexcept:
    """Receive the answers that have arrived."""
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
    """Handle one datagram. It is ignored if it does not answer one of our queries, byte for byte."""
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
    dnsbl.heard += 1
    list.unheard_since = 0
    if dnsbl.silence_told:
        dnsbl.silence_told = False
        log_silence(core)
    if got == DNS_MALFORMED:
        query_refused(core, query, "Malformed or unexpected name server reply")
    elif answer.truncated:
        query_over_tcp(core, query)
    elif answer.rcode not in (0, 3):
        query_refused(core, query, "Host not found, try again" if answer.rcode == 2 else "Non-recoverable error")
    else:
        if answer.rcode == 3:
            answer.count = 0                    # NXDOMAIN, whatever else the answer contains
        query_answered(core, query, answer.addresses, answer.count,
                       answer.ttl if answer.count else answer.soa_ttl,
                       answer.ttl if answer.count else answer.negative_ttl)


cdef void query_answered(Screener core, Query* query, const uint32_t* addresses, int count, int64_t ttl,
                         int64_t keep) noexcept:
    """Store a list's answer. ttl and keep are in seconds; -1: unknown."""
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
    list.answered += 1
    list.latency[latency_bucket(core.now - query.asked)] += 1
    if count and not kept:
        reply.state = REPLY_FAILED              # 'you are blocked' tells nothing about the client
        list.errors += 1
        event_about(core, EVENT_LIST_FAILED, &lookup.entry.address, query.list)
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
    reply.answered = <uint32_t> (core.now // MICROSECONDS)
    reply.state = REPLY_LISTED if kept else REPLY_NOT_LISTED
    reply.valid_until = <uint32_t> (core.now // MICROSECONDS + max(ttl, 0))
    reply.kept_until = <uint32_t> (core.now // MICROSECONDS + min(max(keep, 0), KEEP_SECONDS))
    list_watch(core, list, lookup.network, kept > 0)
    if kept:
        list.listed += 1
        log_listed(core, lookup, query.list)
    query_end(core, query)


cdef bint answer_is_listing(const uint8_t* octets, const List* list) noexcept nogil:
    """False for an address that cannot mean 'listed': outside 127/8, or a code with which a list refuses queries."""
    if octets[0] != 127:
        return False
    if octets[1] == 255 and octets[2] == 255:
        return False                            # Spamhaus: wrong name, public resolver, too many queries
    return not (list.is_dnswl and octets[1] == 0 and octets[2] == 0 and octets[3] == 255)


cdef void query_refused(Screener core, Query* query, const char* why) noexcept:
    """This resolver cannot answer; another one may."""
    cdef Resolver* following
    query.refused |= query.resolver.mark
    following = resolver_after(query)
    if following == NULL or query.place == PLACE_ABANDONED:
        query_failed(core, query, why)
        return
    query_withdraw(core.dnsbl, query)
    query.resolver = following
    query_line_up(core.dnsbl, query)


cdef void query_failed(Screener core, Query* query, const char* why) noexcept:
    """No resolver has an answer. This counts as not listed (reference 4.3)."""
    query.lookup.replies[query.list].state = REPLY_FAILED
    query.lookup.lists_of[query.list].errors += 1
    event_about(core, EVENT_LIST_FAILED, &query.lookup.entry.address, query.list)
    log_lookup_error(core, query, why)
    query_end(core, query)


cdef void query_over_tcp(Screener core, Query* query) noexcept:
    """The answer did not fit into a datagram: the general resolver repeats the query, within the same time limit."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef char name[DNS_NAME_TEXT]
    if query.token:
        return
    if query.place == PLACE_ABANDONED:          # no session waits for it
        query_failed(core, query, "Malformed or unexpected name server reply")
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
        query.lookup.replies[query.list].unasked = True
        query_failed(core, query, "Malformed or unexpected name server reply")


# ---- sockets

cdef uint16_t dns_random(Dnsbl dnsbl) noexcept:
    """An unpredictable id."""
    if dnsbl.ids_left == 0:
        while getrandom(dnsbl.ids, sizeof(dnsbl.ids), 0) != sizeof(dnsbl.ids):
            pass
        dnsbl.ids_left = 256
    dnsbl.ids_left -= 1
    return dnsbl.ids[dnsbl.ids_left]


cdef DnsSocket* resolver_socket(Screener core, Resolver* resolver) noexcept:
    """One of the resolver's sockets, at random. NULL: no socket can be opened."""
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
    if made.fd < 0 or connect(made.fd, address, resolver.address_size) < 0 or not core.watches.watch(
            &made.watch, core.epoll, made.fd, EPOLLIN, made, TAG_DNS):
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
    """Replace the oldest socket of each resolver, so that a guessed port is soon useless."""
    cdef Dnsbl dnsbl = core.dnsbl
    cdef Resolver* resolver = dnsbl.resolvers
    cdef DnsSocket** at
    cdef DnsSocket* oldest
    core.timers.arm(&dnsbl.rotate, TIMER_ROTATE, ROTATE_TIME, core.now)
    if core.accept_paused:
        return                          # a client would get the descriptor, and in the end no socket would be left
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
    """Close a socket after its last pending answer; it is freed at the end of the batch of events."""
    socket.retired = True
    if socket.in_flight or socket.fd < 0:
        return
    dnsbl.watches.unwatch(&socket.watch)
    close(socket.fd)
    socket.fd = -1
    socket.next = dnsbl.gone
    dnsbl.gone = socket


cdef void dnsbl_set_resolvers(Screener core, list addresses):
    """Use these resolvers from now on, and send pending queries again. Items are packed sockaddr structures."""
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
    cdef uint32_t mark = 1
    cdef DnsSocket* socket
    for packed in addresses:
        made = <Resolver*> calloc(1, sizeof(Resolver))
        if made == NULL:
            raise MemoryError
        made.mark = mark
        mark = mark << 1 if mark << 1 else mark
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
    # Some queries are in none of the lists above: they wait for a descriptor, or for an answer over TCP.
    while queue != NULL:
        timer = queue.head if queue.kind == TIMER_QUERY else NULL
        while timer != NULL:
            (<Query*> timer).resolver = first
            (<Query*> timer).refused = 0
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
