# Connections within a minute, by client and by network (limits.client_connection_rate, limits.client_network_rate). As
# in Postfix's anvil, a minute begins with a client's first connection and ends 60 s later; then its record is removed.
# Known clients and allow-listed ones are not counted: they never get here.

cdef enum:
    RATE_RECORDS = 65536            # then the oldest record is removed: its minute is nearly over
    RATE_IPV4 = 24                  # bits of a network
    RATE_IPV6 = 48                  # the network of one site


# Connections of one client or network within its minute.
cdef struct Rate:
    Timer timer             # must be first: the timer of the minute
    AddressEntry entry
    uint32_t count
    bint of_network         # the table that it is in


@cython.final
cdef class Rates:
    cdef AddressTable clients
    cdef AddressTable networks

    def __cinit__(self):
        self.clients = AddressTable()
        self.networks = AddressTable()


cdef inline Rate* rate_of(AddressEntry* entry) noexcept nogil:
    return <Rate*> (<char*> entry - <size_t> &(<Rate*> NULL).entry)


cdef uint32_t rate_count(Screener core, const Address* peer, const Prefix* prefix, bint of_network) noexcept:
    """Count a connection; return how many that makes within the minute. 0: out of memory."""
    cdef AddressTable table = core.rates.networks if of_network else core.rates.clients
    cdef Address masked
    cdef const Address* address = prefixed(peer, prefix, &masked)
    cdef AddressEntry* entry = table.find(address)
    cdef Rate* rate
    if entry != NULL:
        rate = rate_of(entry)
        rate.count += 1
        return rate.count
    rate = <Rate*> calloc(1, sizeof(Rate))
    if rate == NULL:
        return 0
    if not core.timers.arm(&rate.timer, TIMER_RATE, core.policy.rate_time, core.now):
        free(rate)
        return 0
    rate.of_network = of_network
    rate.count = 1
    table.add(&rate.entry, address)
    if core.rates.clients.count + core.rates.networks.count > RATE_RECORDS:
        rate_over(core, <Rate*> rate.timer.queue.head)
    return 1


cdef void rate_over(Screener core, Rate* rate) noexcept:
    """The minute is over, or there are too many records."""
    cdef AddressTable table = core.rates.networks if rate.of_network else core.rates.clients
    core.timers.cancel(&rate.timer)
    table.remove(&rate.entry)
    free(rate)


cdef bint rate_exceeded(Screener core, const Address* peer) noexcept:
    """Count a connection of an unknown client. True: the client or its network has exceeded its limit."""
    cdef Policy policy = core.policy
    cdef Prefix network
    cdef bint exceeded = False
    if policy.client_rate:
        exceeded = rate_count(core, peer, &policy.count_prefix, False) > policy.client_rate
    if policy.network_rate:
        rate_network(&network)
        exceeded = rate_count(core, peer, &network, True) > policy.network_rate or exceeded
    return exceeded


cdef inline void rate_network(Prefix* prefix) noexcept nogil:
    prefix.ipv4 = RATE_IPV4
    prefix.ipv6 = RATE_IPV6


cdef tuple rates_now(Screener core, str address):
    """How many connections of a client, and of its network, currently count."""
    cdef Address wanted, masked
    cdef Prefix network
    cdef AddressEntry* client
    cdef AddressEntry* neighbours
    if "\0" in address or not address_parse(address.encode(), &wanted):
        raise ValueError(f"{address!r} is not an address")
    rate_network(&network)
    client = core.rates.clients.find(prefixed(&wanted, &core.policy.count_prefix, &masked))
    neighbours = core.rates.networks.find(prefixed(&wanted, &network, &masked))
    return (rate_of(client).count if client != NULL else 0, rate_of(neighbours).count if neighbours != NULL else 0)
