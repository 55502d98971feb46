# The table of scorers. A client's score is the sum of what they say: the DNS lists first, then whatever a session
# shows. A scorer has a weight, `[score] KEY`, 0 by default, and says yes or no; what it found is evidence, which the
# log, the events, `explain` and the view name by the key. docs/extending.md has the steps to add one.

Scorer = namedtuple("Scorer", "key label about stage")


# The numbers of the scorers: a bit each in a session's evidence.
cdef enum:
    SCORER_LISTS            # the DNS lists: they have weights of their own, and say how much
    SCORER_COUNT


# What a scorer judges.
cdef enum Heard:
    HEARD_FROM_LISTS
    HEARD_HELLO             # the name in HELO or EHLO; the last one counts
    HEARD_KINDS


# The scorers that find something in what was heard, a bit each. asked: those that have a weight; others may be in it.
ctypedef uint32_t (*HeardHook)(Policy policy, const Session* session, uint32_t asked, const char* text,
                               size_t size) noexcept


cdef struct ScorerRow:
    const char* key         # in the configuration, the log, events, filters and metrics
    const char* label       # in replies: what is wrong
    const char* about       # what the clients do, for the documentation
    Heard heard
    Stage stage             # from here on, what it says is final


# In the order of their numbers.
cdef ScorerRow[SCORER_COUNT] SCORER_TABLE = [
    ScorerRow(
        key="dnsbl", label="listed", about="are on a DNS list",
        heard=HEARD_FROM_LISTS, stage=STAGE_GREET),
]

cdef HeardHook HEARD_HOOKS[HEARD_KINDS]
HEARD_HOOKS[:] = [NULL, NULL]


cdef uint32_t scorers_of(Heard heard) noexcept:
    """The scorers that judge this, a bit each."""
    cdef uint32_t found = 0
    cdef int scorer
    for scorer in range(SCORER_COUNT):
        if SCORER_TABLE[scorer].heard == heard:
            found |= bit(scorer)
    return found


cdef uint32_t[HEARD_KINDS] HEARD_SCORERS = [scorers_of(HEARD_FROM_LISTS), scorers_of(HEARD_HELLO)]


cdef inline bint scorer_is_final(int scorer, int stage) noexcept nogil:
    """Whether a session in this stage has nothing more to show to this scorer before it is judged."""
    return stage >= <int> SCORER_TABLE[scorer].stage


cdef tuple scorer_tuples():
    cdef const ScorerRow* row
    cdef int scorer
    cdef list found = []
    for scorer in range(SCORER_COUNT):
        row = &SCORER_TABLE[scorer]
        found.append(Scorer(row.key.decode(), row.label.decode(), row.about.decode(),
                            "greet" if row.stage == STAGE_GREET else "dialogue"))
    return tuple(found)


SCORERS = scorer_tuples()
