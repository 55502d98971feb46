# The current state for the view and other readers: sessions, lists and a client's answers. Called about once per
# second.

cdef enum SessionOrder:
    ORDER_AGE                   # the oldest first
    ORDER_NEW
    ORDER_SCORE                 # the highest first
    ORDER_ADDRESS


cdef struct Ranked:
    Session* session
    SessionOrder order


cdef int ranked_before(const void* one, const void* other) noexcept nogil:
    cdef const Session* a = (<const Ranked*> one).session
    cdef const Session* b = (<const Ranked*> other).session
    cdef SessionOrder order = (<const Ranked*> one).order
    cdef int by = 0
    if order == ORDER_SCORE:
        by = (b.score > a.score) - (b.score < a.score)
    elif order == ORDER_ADDRESS:
        by = a.peer.family - b.peer.family or memcmp(a.peer.ip, b.peer.ip, 16)
    elif order == ORDER_NEW:
        by = (b.accepted > a.accepted) - (b.accepted < a.accepted)
    return by or (a.accepted > b.accepted) - (a.accepted < b.accepted)


cdef tuple live_sessions(Screener core, Filter wanted, str order, int limit):
    """(how many there are, how many match, the first `limit` of them as records one after the other)."""
    cdef SessionOrder by = {"age": ORDER_AGE, "new": ORDER_NEW, "score": ORDER_SCORE, "address": ORDER_ADDRESS}[order]
    cdef Ranked* found = <Ranked*> malloc((core.sessions + 1) * sizeof(Ranked))
    cdef Session* session = core.all
    cdef Event record
    cdef int count = 0
    cdef int at
    if found == NULL:
        raise MemoryError
    try:
        while session != NULL:
            session_record(core, session, &record)
            if wanted.matches(&record):
                found[count].session = session
                found[count].order = by
                count += 1
            session = session.next
        qsort(found, count, sizeof(Ranked), ranked_before)
        packed = bytearray()
        for at in range(min(limit, count)):
            session_record(core, found[at].session, &record)
            packed += (<char*> &record)[:sizeof(Event)]
        return core.sessions, count, bytes(packed)
    finally:
        free(found)


cdef void session_record(Screener core, Session* session, Event* record) noexcept:
    """The current state of a session, in the form of an event."""
    memset(record, 0, sizeof(Event))
    record.kind = EVENT_SESSION
    record.sequence = 1
    record.time = core.wall
    record.number = core.now - session.accepted
    record.session = session.number
    record.score = session.score
    record.list = -1
    record.stage = session.stage
    record.findings = findings_of(session)
    record.family = session.peer.family
    record.port = session.peer.port
    memcpy(record.ip, session.peer.ip, 16)
    session_said(core.ring, session, record)


cdef void session_said(EventRing ring, Session* session, Event* record) noexcept:
    """The client's last line, from the ring; the command's name if it is no longer there. Relayed: the bytes."""
    cdef const Event* source
    cdef const char* name
    cdef uint64_t sequence
    if session.stage == STAGE_RELAY:
        record.length = <uint8_t> snprintf(
            record.text, sizeof(record.text), "%llu in, %llu out",
            <unsigned long long> session.relay.flows[<int> FROM_CLIENT].moved,
            <unsigned long long> session.relay.flows[<int> FROM_MTA].moved)
        return
    if session.said == 0:
        return
    sequence = ring.header.head - <uint32_t> (ring.header.head - session.said)
    source = &ring.events[(sequence - 1) & ring.mask]
    if source.sequence == sequence and source.session == session.number:
        record.length = source.length
        memcpy(record.text, source.text, source.length)
    elif session.dialogue != NULL and session.dialogue.where != AT_CONNECT:
        name = COMMAND_NAMES[session.dialogue.where]
        record.length = <uint8_t> strlen(name)
        memcpy(record.text, name, record.length)


# ---- lists

cdef int latency_bucket(int64_t microseconds) noexcept nogil:
    """Four buckets per octave from 16 µs on: a percentile is exact to 20 %."""
    cdef int octave = 0
    cdef int64_t rest = max(microseconds, 16) // 16
    while rest > 1:
        rest //= 2
        octave += 1
    rest = max(microseconds, 16) - ((<int64_t> 16) << octave)
    return min(4 * octave + <int> (rest * 4 // ((<int64_t> 16) << octave)), LATENCY_BUCKETS - 1)


cdef double bucket_end(int bucket) noexcept nogil:
    """The longest time in a bucket, in s."""
    return 16e-6 * (1 << bucket // 4) * (1 + (bucket % 4 + 1) / 4.0)


cdef list live_lists(Lists lists):
    cdef int at
    return [list_numbers(&lists.lists[at]) for at in range(lists.list_count)]


cdef dict list_numbers(const List* one):
    cdef int at
    return {
        "list": one.shown.decode(), "asked": one.asked, "answered": one.answered, "listed": one.listed,
        "unique": one.unique, "timed_out": one.timed_out, "errors": one.errors,
        "latency": [one.latency[at] for at in range(LATENCY_BUCKETS)]}


def latency_percentile(counts, double share):
    cdef int at = 0
    cdef double wanted = sum(counts) * share
    cdef double seen = 0
    if wanted == 0:
        return None
    for at in range(len(counts)):
        seen += counts[at]
        if seen >= wanted:
            break
    return bucket_end(at)


cdef list live_answers(Screener core, str address):
    """The kept answers of each list for a client: (list, state, answers, seconds until it is queried again)."""
    cdef Address wanted
    cdef AddressEntry* entry
    cdef Lookup* lookup
    cdef Reply* reply
    cdef const uint32_t* addresses
    cdef Address answer
    cdef char text[64]
    cdef int at, number
    cdef list found = []
    if "\0" in address or not address_parse(address.encode(), &wanted):
        raise ValueError(f"{address!r} is not an address")
    entry = core.dnsbl.lookups.find(&wanted)
    if entry == NULL:
        return found
    lookup = lookup_of(entry)
    answer.family = 4
    for at in range(lookup.count):
        reply = &lookup.replies[at]
        addresses = &reply.one if reply.count == 1 else reply.many
        answers = []
        for number in range(reply.count):
            memcpy(answer.ip, &addresses[number], 4)
            answers.append(text[:address_text(&answer, text)].decode())
        state = ("unknown", "asked", "listed", "not listed", "failed")[reply.state]
        kept = max(0, <int64_t> reply.kept_until - core.now // MICROSECONDS)
        found.append((lookup.lists_of[at].shown.decode(), state, answers, kept))
    return found


cdef tuple live_client(Screener core, str address):
    """(sessions, the stamps that sessions under test share, relayed sessions, sessions that count for the limit);
    None: the client is not connected."""
    cdef Address wanted, masked
    cdef Client* client
    cdef Count* count = NULL
    cdef uint32_t counted
    cdef Policy policy = core.policy
    cdef int test
    if "\0" in address or not address_parse(address.encode(), &wanted):
        raise ValueError(f"{address!r} is not an address")
    client = <Client*> core.clients.find(prefixed(&wanted, &policy.cache_prefix, &masked))
    if policy.counts_apart:
        count = <Count*> core.counts.find(prefixed(&wanted, &policy.count_prefix, &masked))
    counted = count.sessions if count != NULL else client.sessions if client != NULL and not policy.counts_apart else 0
    if client == NULL:
        return (0, None, 0, counted) if counted else None
    stamps = tuple([client.stamps[test] for test in range(TEST_COUNT)]) if client.sessions > client.relayed else None
    return client.sessions, stamps, client.relayed, counted
