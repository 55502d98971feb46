# Passes that other hosts know. A client that enters its greet wait is asked about; when an answer comes in time and
# leaves nothing to test, its wait ends at once. Passes of this host are passed on. A process of its own talks to the
# server (fastscreen/cluster/): here are only packets to it and from it. Nothing waits for it, and the way of a known
# client does not change.
#
# Packets, of at most CLUSTER_PACKET bytes, begin with a letter. `L`, look up: items of a length and a key. `K`, keep,
# and `F`, found: items of a kind, a length and a key, a length and a record. Keys and records are the cache's.

cdef enum:
    CLUSTER_PACKET = 4096           # bytes
    CLUSTER_WAITING = 64            # packets for which the socket has no room; then one is dropped
    CLUSTER_TURNS = 64              # packets that are read in one batch of events
    CLUSTER_PASS = 0                # the only kind so far
    CLUSTER_ITEM = 3 + 17 + RECORD_SIZE

cdef int64_t CLUSTER_GATHER = 5000          # µs: so long are look-ups gathered: clients wait for their answers
cdef int64_t CLUSTER_GATHER_KEPT = 50000    # and records: nobody waits, and a larger packet costs less
cdef int64_t CLUSTER_ANSWERED = 60000000    # µs: so long a client with further sessions is not asked about again


cdef struct ClusterPacket:
    ClusterPacket* next
    uint32_t size
    char bytes[CLUSTER_PACKET]


@cython.final
cdef class ClusterLink:
    """A worker's connection to the cluster process. fd: a SOCK_SEQPACKET socket; -1: not connected."""

    cdef int fd
    cdef int64_t budget             # µs: an answer that comes later is ignored
    cdef bint accepts, shares
    cdef Timer gather
    cdef Timer gather_kept
    cdef ClusterPacket* asking      # the packets that are being filled, NULL: none
    cdef ClusterPacket* keeping
    cdef ClusterPacket* first       # those that are full, or due, in their order
    cdef ClusterPacket* last
    cdef uint32_t waiting
    cdef uint64_t asked             # clients
    cdef uint64_t found             # answers in time
    cdef uint64_t ended             # greet waits that an answer has ended
    cdef uint64_t late              # answers that were ignored
    cdef uint64_t dropped           # packets

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        cdef ClusterPacket* packet
        free(self.asking)
        free(self.keeping)
        while self.first != NULL:
            packet = self.first
            self.first = packet.next
            free(packet)

    cdef ClusterPacket* room(self, ClusterPacket** filling, char letter, size_t size) noexcept:
        """The packet to add an item of this size to. NULL: out of memory."""
        if filling[0] != NULL and filling[0].size + size > CLUSTER_PACKET:
            self.queue(filling)
        if filling[0] == NULL:
            filling[0] = <ClusterPacket*> malloc(sizeof(ClusterPacket))
            if filling[0] == NULL:
                return NULL
            filling[0].next = NULL
            filling[0].bytes[0] = letter
            filling[0].size = 1
        return filling[0]

    cdef void queue(self, ClusterPacket** filling) noexcept:
        """A packet is full, or due: it goes to the end of the line."""
        cdef ClusterPacket* packet = filling[0]
        if packet == NULL:
            return
        filling[0] = NULL
        if self.last != NULL:
            self.last.next = packet
        else:
            self.first = packet
        self.last = packet
        self.waiting += 1
        if self.waiting > CLUSTER_WAITING:
            self.drop()

    cdef void drop(self) noexcept:
        """Drop the oldest look-ups, which are worth nothing after the budget, or else the oldest records."""
        cdef ClusterPacket* before = self.first
        self.dropped += 1
        if before.bytes[0] != c"L":
            while before.next != NULL and before.next.bytes[0] != c"L":
                before = before.next
            if before.next != NULL:
                self.take(&before.next, before)
                return
        self.take(&self.first, NULL)

    cdef void take(self, ClusterPacket** at, ClusterPacket* before) noexcept:
        """Free a packet of the line. before: the one before it."""
        cdef ClusterPacket* packet = at[0]
        at[0] = packet.next
        if self.last == packet:
            self.last = before
        self.waiting -= 1
        free(packet)

    cdef void flush(self) noexcept:
        """Send all that the socket takes, before it is closed."""
        self.queue(&self.asking)
        self.queue(&self.keeping)
        self.send()

    cdef bint send(self) noexcept:
        """Send the packets in the line. False: some of them have to wait."""
        while self.first != NULL:
            if send(self.fd, self.first.bytes, self.first.size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
                return False
            self.take(&self.first, NULL)
        return True


# ---- to the cluster process

cdef void cluster_ask(Screener core, Session* session) noexcept:
    """A greet wait begins: ask about the client, once for all of its sessions that wait."""
    cdef ClusterLink cluster = core.cluster
    cdef Client* client = session.client
    cdef ClusterPacket* packet
    if not cluster.accepts or fails(session) or session.flags & NO_FORWARD:
        return
    if client.answered and core.now - client.asked < CLUSTER_ANSWERED:
        return
    session.asking_next = client.asking
    if client.asking != NULL:
        client.asking.asking_prev = session
    client.asking = session
    session.flags |= ASKS_CLUSTER
    if client.asked and core.now - client.asked < cluster.budget:
        return
    packet = cluster.room(&cluster.asking, c"L", 1 + 17)
    if packet == NULL:
        return
    client.asked = core.now
    client.answered = False
    packet.bytes[packet.size] = <char> cache_key(
        &core.policy.cache_prefix, &client.entry.address, <uint8_t*> packet.bytes + packet.size + 1)
    packet.size += 1 + <uint8_t> packet.bytes[packet.size]
    cluster.asked += 1
    cluster_gather(core)


cdef void cluster_leave(Session* session) noexcept:
    """The session does not wait for an answer any more."""
    if not session.flags & ASKS_CLUSTER:
        return
    session.flags &= ~ASKS_CLUSTER
    if session.asking_prev != NULL:
        session.asking_prev.asking_next = session.asking_next
    else:
        session.client.asking = session.asking_next
    if session.asking_next != NULL:
        session.asking_next.asking_prev = session.asking_prev
    session.asking_next = session.asking_prev = NULL


cdef void cluster_keep(Screener core, const uint8_t* key, size_t key_size, const uint8_t* record, size_t size) noexcept:
    """Pass a record on to the other hosts."""
    cdef ClusterLink cluster = core.cluster
    cdef ClusterPacket* packet
    cdef char* at
    if not cluster.shares:
        return
    packet = cluster.room(&cluster.keeping, c"K", CLUSTER_ITEM)
    if packet == NULL:
        return
    at = packet.bytes + packet.size
    at[0] = CLUSTER_PASS
    at[1] = <char> key_size
    memcpy(at + 2, key, key_size)
    at += 2 + key_size
    at[0] = <char> size
    memcpy(at + 1, record, size)
    packet.size += <uint32_t> (3 + key_size + size)
    if cluster.gather_kept.queue == NULL:
        core.timers.arm(&cluster.gather_kept, TIMER_CLUSTER, CLUSTER_GATHER_KEPT, core.now)


cdef void cluster_gather(Screener core) noexcept:
    """Something is to be sent, soon."""
    if core.cluster.gather.queue == NULL:
        core.timers.arm(&core.cluster.gather, TIMER_CLUSTER, CLUSTER_GATHER, core.now)


cdef void cluster_send(Screener core, const Timer* timer) noexcept:
    """The time to gather is over. What does not fit into the socket is sent later."""
    cdef ClusterLink cluster = core.cluster
    if timer == &cluster.gather:
        cluster.queue(&cluster.asking)
    else:
        cluster.queue(&cluster.keeping)
    if cluster.fd >= 0 and not cluster.send():
        cluster_gather(core)


# ---- from the cluster process

cdef void cluster_readable(Screener core) noexcept:
    """Answers have come."""
    cdef uint8_t packet[CLUSTER_PACKET]
    cdef Py_ssize_t size
    cdef int _turn
    for _turn in range(CLUSTER_TURNS):
        size = recv(core.cluster.fd, packet, sizeof(packet), MSG_DONTWAIT)
        if size == 0:               # after a restart: nobody holds the other end any more
            cluster_close(core)
        if size <= 0:
            return
        cluster_answers(core, packet, packet + size)


cdef void cluster_close(Screener core) noexcept:
    """The cluster process has ended for good: clients are screened without it."""
    cdef ClusterLink cluster = core.cluster
    unwatch_always(core.epoll, cluster.fd)
    cluster.fd = -1
    cluster.accepts = cluster.shares = False


cdef void cluster_answers(Screener core, const uint8_t* at, const uint8_t* end) noexcept:
    """One packet. It ends with the first item that is not whole."""
    cdef const uint8_t* key
    cdef size_t key_size
    if at[0] != c"F":
        return
    at += 1
    while end - at >= 3:
        key = at + 2
        key_size = at[1]
        if <size_t> (end - key) <= key_size or <size_t> (end - key) < key_size + 1 + key[key_size]:
            return
        if at[0] == CLUSTER_PASS:
            cluster_found(core, key, key_size, key + key_size + 1, key[key_size])
        at = key + key_size + 1 + key[key_size]


cdef void cluster_found(Screener core, const uint8_t* key, size_t key_size, const uint8_t* record,
                        size_t size) noexcept:
    """Another host has passed this client. Its stamps count as far as they are later than ours."""
    cdef ClusterLink cluster = core.cluster
    cdef Client* client = client_of_key(core, key, key_size)
    cdef Session* session
    cdef int64_t stamps[TEST_COUNT]
    cdef int64_t now = wall_seconds()
    cdef int test
    cdef bint later = False
    if client == NULL:
        return                      # it has left: it is asked about again when it returns
    if not client.asked or client.answered or core.now - client.asked >= cluster.budget:
        cluster.late += 1
        return
    if not record_read(record, size, stamps):
        return
    client.answered = True
    cluster.found += 1
    for test in range(TEST_COUNT):
        if core.policy.enabled & bit(test) and stamps[test] > now and stamps[test] > client.stamps[test]:
            client.stamps[test] = stamps[test]
            later = True
    if not later:
        return
    for test in range(TEST_COUNT):
        if client.stamps[test] == 0:    # as if the record had been in the cache: the client is not a new one
            client.stamps[test] = max(stamps[test], <int64_t> 1)
    stamps_keep(core, client, core.policy, False)
    client.sessions += 1            # the end of its last session would free it
    while client.asking != NULL:
        session = client.asking
        cluster_leave(session)
        greet_shared(core, session)
    client_leave(core.clients, client)


cdef Client* client_of_key(Screener core, const uint8_t* key, size_t size) noexcept:
    """The client with this key in the cache. NULL: all of its sessions have ended."""
    cdef Address address
    cdef Client* client
    cdef uint8_t own[17]
    if size not in (4, 5, 16, 17):
        return NULL
    memset(&address, 0, sizeof(address))
    address.family = 4 if size < 16 else 6
    memcpy(address.ip, key, 4 if size < 16 else 16)
    client = <Client*> core.clients.find(&address)
    if client == NULL or cache_key(&core.policy.cache_prefix, &client.entry.address, own) != size \
            or memcmp(own, key, size) != 0:
        return NULL
    return client
