# Scorers of the memory of offenses: what the client's address, its neighbors and its AS did in the past weeks. They are
# asked once per session, when the dialogue begins; a client with a valid pass, on an allow list, or with a good history
# of its own is not judged by its neighbors.

cdef enum:
    SEEN_SCORERS = 3
    SEEN_TEXT = 160
    SEEN_AS_TIMES = 10          # an AS is so much larger than a network

cdef int64_t SEEN_DAY = 86400 * <int64_t> 1000000   # µs
cdef int[SEEN_SCORERS] SEEN_NUMBERS = [SCORER_SEEN_ADDRESS, SCORER_SEEN_NETWORK, SCORER_SEEN_AS]


cdef struct Seen:
    uint32_t found                              # scorers, one bit each
    char[SEEN_SCORERS][SEEN_TEXT] texts         # the evidence


# What the memory has about a client. good: a good history of its own; the rest is not looked up then.
cdef struct SeenCounts:
    bint good
    OffenseCount near           # its /24 or /64
    OffenseCount wide           # its /48
    OffenseCount system         # its AS


cdef void seen_hear(Screener core, Session* session) noexcept:
    """Let the scorers of the memory speak."""
    cdef Policy policy = <Policy> session.policy
    cdef uint32_t asked = policy.weighted & HEARD_SCORERS[<int> HEARD_MEMORY]
    cdef Seen seen
    cdef const char* text
    cdef int at
    session.heard |= <uint8_t> bit(<int> HEARD_MEMORY)
    if not asked or core.memory is None or policy.rules is None or not session.todo & ~session.done & bit(SCORE):
        return
    try:
        seen_find(core.memory, policy.rules, asked, &session.peer, <int> (core.wall // SEEN_DAY), &seen)
    except Exception as error:
        core.problem("look-up in the memory of offenses", error)
        return
    if not seen.found & asked:
        return
    session.evidence |= seen.found & asked
    session.score = <int32_t> session_score(core, session).total
    for at in range(SEEN_SCORERS):
        if seen.found & asked & bit(SEEN_NUMBERS[at]):
            text = seen.texts[at]
            evidence_found(core, session, SEEN_NUMBERS[at], text, strlen(text))


cdef int seen_find(memory, OffenseRules rules, uint32_t asked, const Address* peer, int today, Seen* seen) except -1:
    """Look a client up. asked: scorers whose result is wanted."""
    cdef SeenCounts counts
    cdef uint32_t number = 0
    cdef bint six = peer.family == 6
    memset(seen, 0, sizeof(Seen))
    if asked & bit(SCORER_SEEN_AS) and rules.as_table is not None:
        number = rules.as_table.find(peer)
    seen_look(memory, rules, asked, peer, number, rules.seen_min, today, &counts)
    if counts.good:
        return 0
    if offense_is_bad(counts.near.own_bad, counts.near.own_good):
        seen.found |= bit(SCORER_SEEN_ADDRESS)
        seen_address_text(peer, &counts.near, seen.texts[0])
    if asked & bit(SCORER_SEEN_NETWORK):
        if seen_counts(&counts.near, rules.seen_min):
            seen.found |= bit(SCORER_SEEN_NETWORK)
            seen_network_text(peer, 64 if six else 24, &counts.near, rules.days, seen.texts[1])
        elif seen_counts(&counts.wide, rules.seen_min):
            seen.found |= bit(SCORER_SEEN_NETWORK)
            seen_network_text(peer, 48, &counts.wide, rules.days, seen.texts[1])
    if seen_as_counts(&counts.system, rules.seen_min, rules.as_share):
        seen.found |= bit(SCORER_SEEN_AS)
        snprintf(seen.texts[2], SEEN_TEXT, "AS%u: %d of %d addresses bad in %d days", <unsigned int> number,
                 counts.system.bad, counts.system.known, rules.as_days)
    return 0


cdef int seen_look(memory, OffenseRules rules, uint32_t asked, const Address* peer, uint32_t number, int least,
                   int today, SeenCounts* counts) except -1:
    """What the memory has about a client, its networks and its AS (number; 0: not known). The /48 of an IPv6 address is
    only looked up if fewer than `least` of its neighbors count."""
    cdef bint six = peer.family == 6
    memset(counts, 0, sizeof(SeenCounts))
    seen_count(memory, rules, c"6" if six else c"4", peer, today, &counts.near)
    counts.good = offense_is_good(counts.near.own_bad, counts.near.own_good)
    if counts.good:
        return 0
    if asked & bit(SCORER_SEEN_NETWORK) and six and not seen_counts(&counts.near, least):
        seen_count(memory, rules, c"w", peer, today, &counts.wide)
    if asked & bit(SCORER_SEEN_AS) and number:
        seen_as(memory, rules, number, today, &counts.system)
    return 0


cdef inline bint seen_counts(const OffenseCount* count, int least) noexcept nogil:
    """Whether neighbors count: enough of them are bad, and at least half of those that are known."""
    return count.bad >= least and 2 * count.bad >= count.known


cdef inline bint seen_as_counts(const OffenseCount* count, int least, int share) noexcept nogil:
    """The same for an AS. share: of its addresses, in percent."""
    return count.bad >= SEEN_AS_TIMES * least and 100 * <int64_t> count.bad >= share * <int64_t> count.known


cdef int seen_count(memory, OffenseRules rules, char kind, const Address* peer, int today,
                    OffenseCount* count) except -1:
    cdef uint8_t[16] key
    cdef uint32_t number
    cdef size_t size = offense_key(peer.ip, kind, key, &number)
    cdef bytes value = memory.record((<char*> key)[:size])
    if value is None:
        memset(count, 0, sizeof(OffenseCount))
    else:
        offense_count(<const uint8_t*> <const char*> value, len(value), number, rules, today, count)
    return 0


cdef int seen_as(memory, OffenseRules rules, uint32_t number, int today, OffenseCount* count) except -1:
    cdef uint8_t[5] key
    cdef OffenseSums sums
    cdef bytes value = memory.record((<char*> key)[:offense_as_key(number, key)])
    if value is None or not offense_as_sums(<const uint8_t*> <const char*> value, len(value), &sums):
        return 0
    count.bad = <int> (rules.as_weight(sums.bad, today, sums.bad_day) / OFFENSE_UNIT)
    count.known = count.bad + <int> (rules.as_weight(sums.good, today, sums.good_day) / OFFENSE_UNIT + 0.5)
    return 0


# ---- the evidence in words

cdef void seen_address_text(const Address* peer, const OffenseCount* count, char* text) noexcept nogil:
    cdef char address[64]
    cdef int bad = <int> (10 * count.own_bad / OFFENSE_UNIT + 0.5)
    cdef int good = <int> (10 * count.own_good / OFFENSE_UNIT + 0.5)
    cdef size_t size
    cdef const char* unit = "days"
    address[address_text(peer, address)] = 0
    size = <size_t> snprintf(text, SEEN_TEXT, "%s: bad %d.%d, good %d.%d, ", address, bad // 10, bad % 10,
                             good // 10, good % 10)
    if count.own_days == 0:
        snprintf(&text[size], SEEN_TEXT - size, "today")
        return
    if count.own_days == 1:
        unit = "day"
    snprintf(&text[size], SEEN_TEXT - size, "%d %s ago", count.own_days, unit)


cdef void seen_network_text(const Address* peer, int bits, const OffenseCount* count, int days,
                            char* text) noexcept nogil:
    """An event has room for 68 bytes, so the longest network leaves no room for what its members are."""
    cdef Address network = peer[0]
    cdef char address[64]
    cdef const char* members = " addresses"
    memset(&network.ip[bits // 8], 0, 16 - bits // 8)
    address[address_text(&network, address)] = 0
    if bits == 48:
        members = " /64"
    elif bits == 64:
        members = ""
    snprintf(text, SEEN_TEXT, "%s/%d: %d of %d%s bad in %d days", address, bits, count.bad, count.known, members, days)


def seen_in(memory, OffenseRules rules, str address, int today):
    cdef Address peer
    cdef Seen seen
    cdef int at
    if not address_parse(address.encode(), &peer):
        raise ValueError(f"not an address: {address!r}")
    seen_find(memory, rules, HEARD_SCORERS[<int> HEARD_MEMORY], &peer, today, &seen)
    return [(SCORERS[SEEN_NUMBERS[at]].key, (<const char*> seen.texts[at]).decode())
            for at in range(SEEN_SCORERS) if seen.found & bit(SEEN_NUMBERS[at])]
