# What is kept for each client address, found by hash. The hash is keyed: its buckets cannot be chosen from outside,
# though an IPv6 client chooses its address freely.


@cython.final
cdef class AddressTable:
    cdef AddressEntry** buckets
    cdef uint64_t mask
    cdef size_t count
    cdef uint64_t key[2]

    def __cinit__(self):
        cdef bytes key = os.urandom(16)
        memcpy(self.key, <const char*> key, 16)
        self.mask = 1023
        self.buckets = <AddressEntry**> calloc(self.mask + 1, sizeof(AddressEntry*))
        if self.buckets == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buckets)          # the callers own the entries

    cdef uint64_t hash(self, const Address* address) noexcept:
        cdef uint64_t half[2]
        cdef uint64_t hash
        memcpy(half, address.ip, 16)
        hash = (half[0] ^ self.key[0]) * <uint64_t> 0x9E3779B97F4A7C15
        hash = (hash ^ (hash >> 29) ^ half[1] ^ self.key[1]) * <uint64_t> 0xBF58476D1CE4E5B9
        hash = (hash ^ (hash >> 32) ^ address.family) * <uint64_t> 0x94D049BB133111EB
        return hash ^ (hash >> 31)

    cdef AddressEntry* find(self, const Address* address) noexcept:
        cdef uint64_t hash = self.hash(address)
        cdef AddressEntry* entry = self.buckets[hash & self.mask]
        while entry != NULL:
            if (entry.hash == hash and entry.address.family == address.family
                    and memcmp(entry.address.ip, address.ip, 16) == 0):
                return entry
            entry = entry.next
        return NULL

    cdef void add(self, AddressEntry* entry, const Address* address) noexcept:
        if self.count > self.mask:
            self.grow()
        entry.address = address[0]
        entry.address.port = 0
        entry.hash = self.hash(address)
        entry.next = self.buckets[entry.hash & self.mask]
        self.buckets[entry.hash & self.mask] = entry
        self.count += 1

    cdef void remove(self, AddressEntry* entry) noexcept:
        cdef AddressEntry** at = &self.buckets[entry.hash & self.mask]
        while at[0] != entry:
            at = &at[0].next
        at[0] = entry.next
        self.count -= 1

    cdef void grow(self) noexcept:
        cdef uint64_t mask = self.mask * 2 + 1
        cdef AddressEntry** buckets = <AddressEntry**> calloc(mask + 1, sizeof(AddressEntry*))
        cdef AddressEntry* entry
        cdef uint64_t bucket
        if buckets == NULL:
            return                  # the chains get longer, which does no harm
        for bucket in range(self.mask + 1):
            while self.buckets[bucket] != NULL:
                entry = self.buckets[bucket]
                self.buckets[bucket] = entry.next
                entry.next = buckets[entry.hash & mask]
                buckets[entry.hash & mask] = entry
        free(self.buckets)
        self.buckets = buckets
        self.mask = mask


cdef Client* client_join(AddressTable clients, const Address* peer, const Prefix* prefix) noexcept:
    """The record of this client, with one more session. NULL: out of memory."""
    cdef Address masked
    cdef const Address* address = prefixed(peer, prefix, &masked)
    cdef Client* client = <Client*> clients.find(address)
    cdef int test
    if client == NULL:
        client = <Client*> calloc(1, sizeof(Client))
        if client == NULL:
            return NULL
        for test in range(TEST_COUNT):
            client.stamps[test] = -1
        clients.add(&client.entry, address)
    client.sessions += 1
    return client


cdef void client_leave(AddressTable clients, Client* client) noexcept:
    client.sessions -= 1
    if client.sessions == 0:
        clients.remove(&client.entry)
        free(client)


cdef inline const Address* prefixed(const Address* address, const Prefix* prefix, Address* masked) noexcept nogil:
    """The address under which a client with this prefix is counted. `masked` is memory for it."""
    if prefix_is_whole(prefix, address.family):
        return address
    masked[0] = address[0]
    prefix_mask(prefix, masked)
    return masked


cdef Count* count_join(AddressTable counts, const Address* peer, const Prefix* prefix) noexcept:
    """One more session of this network. NULL: out of memory."""
    cdef Address masked
    cdef const Address* address = prefixed(peer, prefix, &masked)
    cdef Count* count = <Count*> counts.find(address)
    if count == NULL:
        count = <Count*> calloc(1, sizeof(Count))
        if count == NULL:
            return NULL
        counts.add(&count.entry, address)
    count.sessions += 1
    return count


cdef void count_leave(AddressTable counts, Count* count) noexcept:
    count.sessions -= 1
    if count.sessions == 0:
        counts.remove(&count.entry)
        free(count)


cdef inline uint32_t session_count(const Session* session) noexcept nogil:
    """The number of sessions that count for limits.client_connection_count, including this one."""
    return session.count.sessions if session.count != NULL else session.client.sessions
