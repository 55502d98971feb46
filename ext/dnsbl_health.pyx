# The health of the lists. A list that is not healthy is not queried, or its answers are ignored, until it is healthy
# again (fastscreen/dns/health/). The state is in memory that all processes share; the core only decides that a list has
# to be probed.
#
# When a list begins to list the whole world, its answers show it: the share of clients that it lists rises suddenly.
# This is Page's test (CUSUM) for a biased coin: each answer adds the logarithm of how much more likely it is if the
# share of clients that are not listed has halved, and the sum, never below 0, is the evidence for it. A list that lists
# 5 % of the clients is suspected after 17 hits in a row, one that lists 80 % after 340.

from libc.math cimport log as logarithm

cdef enum:
    USUAL_ANSWERS = 2048            # the number of answers that define the usual share
    LEAST_ANSWERS = 200             # fewer answers are not evidence
    CALM_SECONDS = 60               # a list that was probed is not suspected again before this time
    WINDOW_SECONDS = 60             # a network counts once in this time, and once in each suspicion
    WINDOW_NETWORKS = 8192          # an eighth of the filter; to suspect a list of nearly all clients takes 4,000
cdef double SURPRISE = 40.0         # e^40 to 1: waves of listed clients are usual as well
cdef double RAREST = 0.02           # a smaller share is taken for this: a first hit is not a sudden rise


cdef inline bint list_is_well(const List* list) noexcept nogil:
    return list.health == NULL or list.health.state == HEALTH_WELL


cdef inline bint list_is_suspected(const List* list) noexcept nogil:
    return list.health != NULL and list.health.state == HEALTH_SUSPECT


cdef inline bint reply_is_doubtful(const List* list, const Reply* reply) noexcept nogil:
    """The list has the client, but is suspected to list all clients."""
    return list_is_suspected(list) and reply.state == REPLY_LISTED and reply_is_valid(list, reply)


cdef inline bint list_is_asked(const List* list) noexcept nogil:
    return list.health == NULL or list.health.state != HEALTH_OUT


cdef inline bint reply_counts(const List* list, const Reply* reply) noexcept nogil:
    """True if a list's answer may count: the list is healthy, and has been since it gave the answer. A suspected list
    may list too many clients, but its 'not listed' still counts."""
    if reply.state == REPLY_NOT_LISTED and list_is_suspected(list):
        return reply_is_valid(list, reply)
    if reply.state != REPLY_LISTED and reply.state != REPLY_NOT_LISTED:
        return False
    return list_is_well(list) and reply_is_valid(list, reply)


cdef inline bint reply_is_valid(const List* list, const Reply* reply) noexcept nogil:
    """False for an answer from before the list was enabled again."""
    return list.health == NULL or reply.answered >= list.health.since


cdef void list_watch(Screener core, List* list, uint32_t network, bint listed) noexcept:
    """Count an answer. After a sudden rise of the share of hits, clients that the list has are deferred until the list
    has been probed. Each network counts once, so one host with a listed network cannot cause a sudden rise."""
    cdef double usual = min(max(list.usual, RAREST), 1 - RAREST)
    cdef uint32_t now = <uint32_t> (core.now // MICROSECONDS)
    if list.health == NULL or not network_has_say(list, network, now):
        return
    list.surprise = max(0.0, list.surprise + logarithm((1 + usual) / 2 / usual if listed else 0.5))
    list.seen = min(list.seen + 1, <uint32_t> USUAL_ANSWERS)
    list.usual += ((1.0 if listed else 0.0) - list.usual) / list.seen
    if list.surprise < SURPRISE:
        return
    list.surprise = 0
    if list.seen < LEAST_ANSWERS or list.health.state != HEALTH_WELL or now < list.health.calm_until:
        return
    list.health.calm_until = now + CALM_SECONDS
    list.health.state = HEALTH_SUSPECT
    core.log.begin(PRIORITY_WARNING, False)
    core.log.put("warning: list ")
    core.log.put(list.shown)
    core.log.put(" suddenly lists many more clients than the ")
    core.log.put_number(<int64_t> (100 * usual + 0.5))
    core.log.put("% that it did: clients that it lists are deferred until it has been probed")
    core.log.end()


cdef bint network_has_say(List* list, uint32_t network, uint32_t now) noexcept nogil:
    """Whether no client of this network has been counted yet. The filter is cleared now and then, but not while a
    suspicion grows, unless it is full."""
    cdef uint32_t bit = network % (64 * NETWORK_WORDS)
    cdef uint64_t* word = &list.had_say[bit // 64]
    if list.networks >= WINDOW_NETWORKS or (list.surprise == 0 and now >= list.window_until):
        memset(list.had_say, 0, sizeof(list.had_say))
        list.networks = 0
        list.surprise = 0
        list.window_until = now + WINDOW_SECONDS
    if word[0] >> bit % 64 & 1:
        return False
    word[0] |= <uint64_t> 1 << bit % 64
    list.networks += 1
    return True
