# Judges recorded sessions again under other settings (fastscreen/tune/, docs/tune.md). A session is played by the rules
# of session.pyx, greet.pyx, dnsbl.pyx and smtp_engine.pyx twice: with the settings that it had, which must give the
# result that was recorded, and with the others. What the client did, what the lists answered and what the MTA said is
# as recorded. A result that needs something that was not observed is unknown, and says why.
#
# The cache is not played. At each connect a record says which tests the real cache spared the client. Per key of the
# cache, only the passes that the other settings make different are kept: see JudgeKey. So the settings in force make no
# difference anywhere.
#
# Sessions come in the order of their ends and are judged in the order of their beginnings: they wait for those that
# began before them and are not over.

# A client that failed a test counts as rejected, whether or not it waited for its reply: what it would have waited for
# is not known.
cdef enum:
    JUDGED_LEFT             # without a verdict, and without having failed
    JUDGED_HANDED_OFF       # by descriptor, relayed or continued
    JUDGED_DEFERRED         # 450, or the lists fail it, but might not
    JUDGED_REJECTED         # it failed a test with the action enforce or drop, or is denied
    JUDGED_BUSY
    JUDGED_FAILED           # the MTA was not reached
    JUDGED_UNKNOWN
    JUDGE_RESULTS

JUDGED = ("left", "handed_off", "deferred", "rejected", "busy", "failed", "unknown")

cdef enum:
    WHY_JUDGED
    WHY_VERSION             # the record is not of this version
    WHY_SETTINGS            # the settings that the session had are not known
    WHY_DIFFERENT           # by these settings, the rules give another result than the one that was recorded
    WHY_TEST                # a test was not made, or not to its end
    WHY_LIST                # a list was not asked
    WHY_CUT                 # a list's answers, the lists, or the HELO name are cut in the record
    WHY_ENDED               # the session ended before it showed what is needed
    WHY_ORDER               # two things happened, in an unknown order
    WHY_PASS                # depends on a pass, which an earlier session earned or not, or which may have expired
    WHY_LIMIT               # a limit turned the client away before it was tested
    WHY_ROOM                # more clients than are followed
    JUDGE_REASONS

JUDGE_REASON_KEYS = ("judged", "version", "settings", "different", "test", "list", "cut", "ended", "order", "pass",
                     "limit", "room")

cdef enum:
    GOOD_RETRIED = 1 << 0   # came back within a day after a 450, and passed
    GOOD_ACCEPTED = 1 << 1  # the MTA accepted a message
    GOOD_ALLOWED = 1 << 2   # on an allow list
    GOOD_KNOWN = 1 << 3     # handed off in sessions that are 30 days apart
    GOOD = 0x0F
    BAD_MTA = 1 << 4        # the MTA rejected a recipient or a message
    BAD_LISTED = 1 << 5     # a list with a positive weight has begun to list it
    BAD_TEST = 1 << 6       # it failed a test of the protocol
    BAD_ON_LIST = 1 << 7    # a list with a positive weight lists it

JUDGE_KINDS = ("retried", "accepted", "allowed", "known", "mta", "listed", "test", "on_list")

cdef int64_t JUDGE_EARLY = 50 * 1000        # µs: what a greet wait may be shorter, because of clocks

cdef enum:
    JUDGE_LISTS = 64
    JUDGE_FEATURES = JUDGE_LISTS + SCORER_COUNT + TEST_COUNT
    JUDGE_SITES = 64                # whose weights are searched
    JUDGE_CLIENTS = 1 << 23         # that are followed
    JUDGE_BLOCK = 1 << 12           # of them are allocated together
    JUDGE_WINDOW = 7200             # s: so long a session waits for those that began before it
    JUDGE_HELD = 1 << 20            # sessions that wait, at most
    JUDGE_SMALL = 104               # bytes of a packed record that fit a small slot
    JUDGE_DAY = 86400
    JUDGE_MONTH = 30 * JUDGE_DAY
    JUDGE_FOREVER = 400 * JUDGE_DAY     # longer than a pass may be valid (s)
    JUDGE_SLACK = 2                 # s: what a greet wait may take longer, and a relay to begin
    GREET_NONE = 0                  # the client was not in the greet wait
    GREET_LEFT = 1                  # it left
    GREET_DROPPED = 2               # disconnected when it talked
    GREET_ALLOWED = 3               # an allow list may have ended the wait early
    GREET_ENDED = 4


cdef enum Sure:
    SURE_NO
    SURE_YES
    NOT_SURE


# A site of the settings, with the number that its list has in the record.
cdef struct JudgeSite:
    int list                # -1: it was not asked
    int feature             # its list's number: in the settings to judge by, or of all lists in those that were had
    int32_t weight
    const uint8_t* octets


cdef struct JudgeRules:
    uint32_t enabled        # tests
    int actions[TEST_COUNT]
    int64_t ttl[TEST_COUNT]         # s
    int denylist_action
    bint shadow, continues
    int32_t threshold, allow_threshold
    int32_t weights[SCORER_COUNT]
    int64_t brief_ttl, dnsbl_min_ttl, dnsbl_max_ttl     # s
    int64_t greet_wait      # µs
    Prefix prefix
    JudgeSite* sites
    int site_count


# What is known about a session, whatever the settings.
cdef struct JudgeFacts:
    const HistoryRecord* record
    uint32_t needed         # tests that the real cache did not spare
    bint tested             # it got as far as the tests
    int greet               # GREET_*
    bint talked             # PREGREET
    bint dialogue           # the dialogue was observed
    int cut_by              # the deep test that ended the dialogue; -1
    bint recipient          # it sent RCPT in the dialogue
    bint answered           # that RCPT was complete
    bint allowed            # MARK_LISTS_ALLOW
    bint late_name          # the evidence came after the recipient
    bint same_score         # the settings have the scorers and the threshold that the session had
    bint same_sites         # the settings have the lists and weights that the session had
    bint same_signs         # the lists and the signs of their weights
    bint fewer_signs        # a part of these
    bint real_positive      # the lists' total was above 0
    const JudgeRules* real


# The lists' part of the score. What is not known makes it an interval.
cdef struct JudgeScore:
    int64_t least, most
    int64_t under           # what silent lists could take away
    int64_t over            # what suspect lists could add
    bint complete           # every list had answered, or failed
    bint unsettled
    bint cut                # the interval has other causes than lists that were not asked
    uint64_t hits           # lists that count, by feature


cdef struct Judged:
    int result
    int reason
    int reply               # code; 0: none; -1: unknown
    bint to_mta             # the MTA decides
    uint32_t earned         # tests that are passed in this session
    uint32_t brief          # those of them that hold for brief_ttl
    bint raised             # an allow list raises all passes
    uint32_t unsure         # tests of which it is unknown whether they are passed
    uint32_t failed         # tests, and the denylist
    Sure doubt              # whether the score that fails it could change
    bint scored             # the lists' answers are known
    uint32_t evidence
    JudgeScore lists
    int64_t ttl_least, ttl_most     # s, of a pass of the lists
    bint waited             # to the end of the greet wait: no pass before


# The passes of a key of the cache, where the other settings make a difference. Each test has a base, and two times (s
# since 1970). Base EQUAL: needed where it is needed in reality; but not until `sure`, and until `maybe` only a test
# that is needed in reality is known. Otherwise: not needed until `sure`, needed after `maybe`, unknown between them.
cdef struct JudgePasses:
    uint32_t sure[TEST_COUNT]
    uint32_t maybe[TEST_COUNT]
    uint8_t equal           # tests, one bit each


cdef struct JudgeKey:
    uint8_t key[18]         # family, address, prefix
    bint stored             # the cache has a record of this network, where the other settings have another prefix
    uint32_t pending        # 1 + index of the first session whose passes may not be stored yet; 0: none
    JudgePasses passes


cdef enum JudgeChange:
    PASS_KEPT
    PASS_EARNED
    PASS_RAISED             # valid at least until then
    PASS_PERHAPS


# What a session does to the pass of a test: it ends between two times (s since 1970).
cdef struct JudgeOp:
    int change
    uint32_t least, most


# What a session does to passes, while it may still go on when another one begins.
cdef struct JudgePending:
    int64_t earliest, latest        # µs since 1970
    uint32_t next
    uint8_t touched         # tests, one bit each
    bint replaces           # a record of a network: nothing from before remains
    JudgeOp real[TEST_COUNT]
    JudgeOp other[TEST_COUNT]


cdef struct JudgeClient:
    uint8_t ip[16]
    uint8_t family
    uint8_t kinds           # JudgeKind
    uint8_t happened        # results, one bit each
    uint8_t would
    uint8_t missed[2]       # JudgeKind of misses, in reality and otherwise
    uint32_t features       # scorers and tests that hit it
    uint32_t deferred_at    # s since 1970
    uint32_t handed_at      # the first time
    uint64_t on_lists       # by number of all lists, at their last answers
    uint64_t lists          # that have hit it
    uint64_t chain          # 1 + number of its last admitted session; 0: none
    uint32_t rejected[2]    # sessions, in reality and otherwise
    uint32_t deferred[2]
    uint32_t handed[2]
    uint32_t unknown


cdef struct JudgeAdmitted:
    uint32_t time
    uint32_t weight
    uint64_t before         # 1 + the client's one before
    uint8_t admitted        # bit 0: in reality, bit 1: otherwise


# A session that waits for its turn.
cdef struct JudgeSlot:
    JudgeSlot* next
    int64_t number          # its row's
    int64_t began           # µs since 1970
    uint16_t size
    uint8_t client_size
    uint8_t client[16]
    uint8_t packed[1]


cdef struct JudgePattern:
    uint64_t sites
    uint32_t scorers


# ---- tables

cdef inline uint64_t judge_hash(const uint8_t* at, size_t size) noexcept nogil:
    cdef uint64_t found = 0x9E3779B97F4A7C15
    cdef uint64_t word
    while size:
        word = 0
        memcpy(&word, at, min(size, <size_t> 8))
        found = (found ^ word) * <uint64_t> 0xFF51AFD7ED558CCD
        found ^= found >> 32
        at += min(size, <size_t> 8)
        size -= min(size, <size_t> 8)
    return found


@cython.final
cdef class JudgeTable:
    """A hash table of items of one size, which begin with their key. They are kept in blocks, and never move."""

    cdef size_t item_size, key_size
    cdef uint32_t* slots            # 1 + number of the item; 0: unused
    cdef uint64_t mask
    cdef readonly uint64_t count
    cdef uint64_t most
    cdef char** blocks
    cdef size_t block_count

    cdef int prepare(self, size_t item_size, size_t key_size, uint64_t most) except -1:
        self.item_size = item_size
        self.key_size = key_size
        self.most = most
        self.mask = 4095
        self.slots = <uint32_t*> calloc(self.mask + 1, sizeof(uint32_t))
        self.blocks = <char**> calloc(most // JUDGE_BLOCK + 1, sizeof(char*))
        if self.slots == NULL or self.blocks == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef size_t at
        for at in range(self.block_count):
            free(self.blocks[at])
        free(self.blocks)
        free(self.slots)

    cdef inline char* item(self, uint64_t number) noexcept nogil:
        return self.blocks[number // JUDGE_BLOCK] + number % JUDGE_BLOCK * self.item_size

    cdef char* find(self, const uint8_t* key) noexcept nogil:
        """NULL: it is not in the table."""
        cdef uint64_t at = judge_hash(key, self.key_size) & self.mask
        cdef char* found
        while self.slots[at]:
            found = self.item(self.slots[at] - 1)
            if memcmp(found, key, self.key_size) == 0:
                return found
            at = (at + 1) & self.mask
        return NULL

    cdef char* add(self, const uint8_t* key) noexcept nogil:
        """A new item, with its key, the rest empty. NULL: the table is full, or there is no memory."""
        cdef uint64_t at
        cdef char* made
        if self.count == self.most or self.count * 2 > self.mask and not self.grow():
            return NULL
        if self.count % JUDGE_BLOCK == 0:
            made = <char*> calloc(JUDGE_BLOCK, self.item_size)
            if made == NULL:
                return NULL
            self.blocks[self.block_count] = made
            self.block_count += 1
        made = self.item(self.count)
        memcpy(made, key, self.key_size)
        self.count += 1
        at = judge_hash(key, self.key_size) & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = <uint32_t> self.count
        return made

    cdef bint grow(self) noexcept nogil:
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint32_t* slots = <uint32_t*> calloc(mask + 1, sizeof(uint32_t))
        cdef uint64_t at, number
        if slots == NULL:
            return False
        for number in range(self.count):
            at = judge_hash(<const uint8_t*> self.item(number), self.key_size) & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = <uint32_t> (number + 1)
        free(self.slots)
        self.slots = slots
        self.mask = mask
        return True

    cdef size_t memory(self) noexcept nogil:
        return (self.mask + 1) * sizeof(uint32_t) + self.block_count * JUDGE_BLOCK * self.item_size


# ---- the lists' part of the score (lookup_score)

cdef void judge_lists(const JudgeRules* rules, const JudgeFacts* facts, JudgeScore* score) noexcept nogil:
    cdef const HistoryRecord* record = facts.record
    cdef const JudgeSite* site
    cdef uint64_t mark
    cdef int at
    memset(score, 0, sizeof(JudgeScore))
    score.complete = True
    for at in range(rules.site_count):
        site = &rules.sites[at]
        if site.list < 0 or site.list >= HISTORY_LISTS:
            judge_widen(score, site.weight)
            score.cut = score.cut or site.list >= 0
            continue
        mark = <uint64_t> 1 << site.list
        if record.unasked & mark:
            score.complete = False
            score.unsettled = True
            if site.weight < 0:
                score.under += site.weight
            else:
                score.over += site.weight
        elif record.silent & mark:
            if site.weight < 0:
                score.under += site.weight
        elif record.doubtful & mark:
            score.unsettled = True
            if site.weight < 0:
                score.under += site.weight
            elif judge_matches(record, site) or record.marks & MARK_ANSWERS_CUT:
                score.over += site.weight
        elif record.listed & mark:
            if judge_matches(record, site):
                score.least += site.weight
                score.most += site.weight
                score.hits |= <uint64_t> 1 << site.feature
            elif record.marks & MARK_ANSWERS_CUT:
                judge_widen(score, site.weight)
                score.cut = True
    if record.marks & MARK_UNSETTLED:
        score.unsettled = True
    if facts.same_sites and record.marks & MARK_LISTS_JUDGED:
        score.least = score.most = record.lists_total
        score.under = record.lists_lowest - <int64_t> record.lists_total
        score.over = record.lists_highest - <int64_t> record.lists_total


cdef inline void judge_widen(JudgeScore* score, int32_t weight) noexcept nogil:
    if weight < 0:
        score.least += weight
    else:
        score.most += weight


cdef bint judge_matches(const HistoryRecord* record, const JudgeSite* site) noexcept nogil:
    """reply_matches."""
    cdef const uint8_t* octets = site.octets
    cdef uint32_t answer
    cdef int at
    if octets == NULL:
        return True
    if not octets[127 // 8] & (1 << 127 % 8):
        return False
    for at in range(record.answer_count):
        answer = record.answers[at]
        if (<int> (answer >> 24) == site.list
                and octets[32 + (answer >> 16 & 0xFF) // 8] & (1 << (answer >> 16 & 0xFF) % 8)
                and octets[64 + (answer >> 8 & 0xFF) // 8] & (1 << (answer >> 8 & 0xFF) % 8)
                and octets[96 + (answer & 0xFF) // 8] & (1 << (answer & 0xFF) % 8)):
            return True
    return False


cdef inline Sure judge_fails(const JudgeRules* rules, const JudgeScore* score, int64_t more) noexcept nogil:
    """Whether the highest score reaches the threshold. more: of other scorers."""
    cdef bint least = score.least + score.over + more >= rules.threshold
    cdef bint most = score.most + score.over + more >= rules.threshold
    return NOT_SURE if least != most else SURE_YES if least else SURE_NO


cdef inline Sure judge_unsure(const JudgeRules* rules, const JudgeScore* score, int64_t more) noexcept nogil:
    """Whether the lowest score is below the threshold."""
    cdef bint least = score.least + score.under + more < rules.threshold
    cdef bint most = score.most + score.under + more < rules.threshold
    return NOT_SURE if least != most else SURE_YES if least else SURE_NO


cdef inline Sure judge_allows(const JudgeRules* rules, const JudgeScore* score) noexcept nogil:
    """score_allows, without what else the client did."""
    cdef bint least, most
    if rules.allow_threshold >= 0:
        return SURE_NO
    least = score.least + score.over <= rules.allow_threshold and score.least + score.over < rules.threshold
    most = score.most + score.over <= rules.allow_threshold and score.most + score.over < rules.threshold
    return NOT_SURE if least != most else SURE_YES if least else SURE_NO


cdef inline int judge_why(const JudgeScore* score) noexcept nogil:
    return WHY_CUT if score.cut else WHY_LIST


# ---- one session

cdef void judged_unknown(Judged* judged, int reason) noexcept nogil:
    judged.result = JUDGED_UNKNOWN
    judged.reason = reason
    judged.reply = -1


cdef void judged_as(Judged* judged, int result, int reply) noexcept nogil:
    judged.result = result
    judged.reply = reply


cdef void judge_facts(JudgeFacts* facts, const HistoryRecord* record, const JudgeRules* real) noexcept nogil:
    """What the record says, whatever the settings. real: those that the session had."""
    cdef uint32_t marks = record.marks
    cdef int test
    memset(facts, 0, sizeof(JudgeFacts))
    facts.record = record
    facts.real = real
    facts.needed = record.needed
    facts.cut_by = -1
    facts.real_positive = record.lists_total > 0
    facts.allowed = marks & MARK_LISTS_ALLOW != 0
    facts.talked = record.found & bit(PREGREET) != 0
    if marks & MARK_DENYLISTED and real.denylist_action != ACTION_IGNORE:
        # A denied client earns no pass, so the cache has none of it.
        facts.needed = real.enabled
    facts.tested = not (
        marks & (MARK_ALLOWLISTED | MARK_BYPASSED) or record.outcome == OUTCOME_BUSY
        or marks & MARK_DENYLISTED and real.denylist_action == ACTION_DROP
        or facts.needed == 0 and (not marks & MARK_DENYLISTED or real.denylist_action == ACTION_IGNORE))
    if facts.tested and facts.needed & GREET_TESTS:
        facts.greet = GREET_ENDED
        if record.stage == STAGE_GREET:
            if marks & MARK_LISTS_JUDGED:
                facts.greet = GREET_ENDED
            elif facts.talked and real.actions[PREGREET] == ACTION_DROP:
                facts.greet = GREET_DROPPED
            else:
                facts.greet = GREET_LEFT
        elif facts.allowed:
            facts.greet = GREET_ALLOWED
    facts.dialogue = facts.tested and record.outcome != OUTCOME_FAILED and (
        record.stage == STAGE_DIALOGUE or record.stage == STAGE_CONTINUE or record.outcome == OUTCOME_CONTINUED)
    if facts.dialogue:
        for test in range(TEST_COUNT):
            if DEEP_TESTS & bit(test) and record.failed & bit(test) and real.actions[test] == ACTION_DROP:
                facts.cut_by = test
        facts.recipient = record.recipients > 0
        facts.answered = facts.recipient and (
            record.verdict % 100 == 50 or record.outcome == OUTCOME_CONTINUED
            or facts.cut_by == SCORE and record.commands > 2)


cdef void judge_session(const JudgeRules* rules, const JudgeFacts* facts, uint32_t needed, uint32_t evidence,
                        bint evidence_cut, Judged* judged) noexcept nogil:
    """Play a session by these rules. needed: tests that the cache does not spare. evidence: of the scorers with a
    weight; evidence_cut: there may be more."""
    cdef const HistoryRecord* record = facts.record
    cdef uint32_t marks = record.marks
    cdef bint denied = False
    cdef bint vetoed, forwarded
    memset(judged, 0, sizeof(Judged))
    # checks at connect: session_begin
    if marks & MARK_SERVER_PORTS and record.outcome == OUTCOME_BUSY:
        judged_as(judged, JUDGED_BUSY, 421)
        return
    if marks & MARK_CLIENT_LIMIT:
        if not rules.shadow:
            judged_as(judged, JUDGED_BUSY, 421)
            return
        if record.outcome == OUTCOME_BUSY:
            judged_unknown(judged, WHY_LIMIT)
            return
    if marks & MARK_ALLOWLISTED:
        judged.to_mta = True
        judged_as(judged, JUDGED_HANDED_OFF, 0)
        return
    if marks & MARK_DENYLISTED:
        judged.failed = bit(DENYLIST) if rules.denylist_action != ACTION_IGNORE else 0
        if rules.denylist_action == ACTION_DROP:
            judged_as(judged, JUDGED_REJECTED, 521)
            return
        denied = rules.denylist_action == ACTION_ENFORCE
    elif marks & MARK_BYPASSED:
        judged.to_mta = True
        judged_as(judged, JUDGED_HANDED_OFF, 0)
        return
    if denied:
        needed = rules.enabled
    elif needed == 0:
        judged.to_mta = True
        judged_as(judged, JUDGED_HANDED_OFF, 0)
        return
    if marks & MARK_RATE_LIMIT:
        if not rules.shadow:
            judged_as(judged, JUDGED_BUSY, 421)
            return
        if record.outcome == OUTCOME_BUSY:
            judged_unknown(judged, WHY_LIMIT)
            return
    vetoed = marks & MARK_VETOED != 0
    forwarded = rules.shadow or not vetoed
    if marks & MARK_SCREENING_PORTS:
        if rules.shadow:
            judged.to_mta = True
            judged_as(judged, JUDGED_HANDED_OFF, 0)
        else:
            judged_as(judged, JUDGED_BUSY, 421)
        return
    if not facts.tested:
        if denied:
            judged_as(judged, JUDGED_REJECTED, -1)
        else:
            judged.unsure = needed
            judged_unknown(judged, WHY_ENDED if marks & MARK_DENYLISTED else WHY_TEST)
        return
    if needed & GREET_TESTS:
        if not judge_greet(rules, facts, needed, denied or vetoed, judged):
            return
    judge_dialogue(rules, facts, needed, denied, vetoed, forwarded, evidence, evidence_cut, judged)


cdef bint judge_greet(const JudgeRules* rules, const JudgeFacts* facts, uint32_t needed, bint barred,
                      Judged* judged) noexcept nogil:
    """The greet wait. False: the result is known, or cannot be."""
    cdef const HistoryRecord* record = facts.record
    cdef uint32_t tests = needed & GREET_TESTS
    cdef bint asks = tests & bit(DNSBL) != 0
    cdef bint talked = facts.talked and tests & bit(PREGREET)
    cdef int action = rules.actions[PREGREET]
    cdef bint early             # nothing is left to wait for when the lists have answered
    cdef Sure sure
    cdef Sure first             # whether the lists answered before the client talked
    if tests & ~facts.needed:
        judged.unsure = needed
        judged_unknown(judged, WHY_TEST)
        return False
    if record.marks & MARK_SHARED and record.outcome in (OUTCOME_HANDED_OFF, OUTCOME_RELAYED, OUTCOME_FAILED):
        # Another host has passed the client meanwhile, with the tests that it needed in reality.
        if needed & ~facts.needed:
            judged.unsure = needed
            judged_unknown(judged, WHY_PASS)
            return False
        judged.to_mta = True
        judged_as(judged, JUDGED_HANDED_OFF, 0)
        return False
    judged.lists.complete = True
    if asks:
        judge_lists(rules, facts, &judged.lists)
        judged.scored = judged.lists.complete or facts.greet == GREET_ENDED or facts.greet == GREET_ALLOWED
        judge_ttl(rules, facts, judged)
        # An allow list
        sure = judge_allows(rules, &judged.lists) if not barred else SURE_NO
        if sure == NOT_SURE:
            judged.unsure = needed
            judged_unknown(judged, judge_why(&judged.lists))
            return False
        if sure == SURE_YES and (judged.lists.complete or facts.greet > GREET_DROPPED):
            if not talked or action == ACTION_IGNORE or facts.greet == GREET_DROPPED:
                first = SURE_YES
            elif facts.real.actions[PREGREET] == ACTION_IGNORE:
                first = NOT_SURE
            elif facts.allowed:
                first = SURE_YES
            else:
                # The lists would have allowed it by the settings that it had, too: it must have talked before.
                first = SURE_NO if (facts.same_sites and facts.same_score
                                    and facts.real.allow_threshold == rules.allow_threshold) else NOT_SURE
            if first == NOT_SURE:
                judged.unsure = needed
                judged_unknown(judged, WHY_ORDER)
                return False
            if first == SURE_YES:
                judged.raised = True
                judged.earned = needed
                judged.to_mta = True
                judged_as(judged, JUDGED_HANDED_OFF, 0)
                return False
    # The client talks, or leaves
    early = (not tests & bit(PREGREET) or talked) and judged.lists.complete
    if talked and action == ACTION_DROP:
        judged.failed |= bit(PREGREET)
        judged_as(judged, JUDGED_REJECTED, 521)
        return False
    if talked and action == ACTION_ENFORCE:
        judged.failed |= bit(PREGREET)
    if facts.greet == GREET_LEFT and not early:
        judged_as(judged, JUDGED_REJECTED if judged.failed else JUDGED_LEFT, 0)
        return False
    if facts.greet == GREET_DROPPED and not early:
        if judged.failed:
            judged_as(judged, JUDGED_REJECTED, -1)
        else:
            judged.unsure = needed
            judged_unknown(judged, WHY_ENDED)
        return False
    if facts.greet == GREET_ALLOWED and tests & bit(PREGREET) and not talked:
        judged.unsure = needed
        judged_unknown(judged, WHY_TEST)
        return False
    # It is over: greet_end
    if tests & bit(PREGREET) and not talked:
        judged.earned |= bit(PREGREET)
        judged.waited = True
    if not asks:
        return True
    sure = judge_fails(rules, &judged.lists, 0)
    if sure == NOT_SURE:
        if rules.actions[DNSBL] == ACTION_IGNORE:
            judged.unsure |= bit(DNSBL)
            return True
        if judged.failed:
            judged_as(judged, JUDGED_REJECTED, -1)
            return False
        judged.unsure = needed
        judged_unknown(judged, judge_why(&judged.lists))
        return False
    if sure == SURE_NO:
        judged.earned |= bit(DNSBL)
        return True
    if rules.actions[DNSBL] == ACTION_IGNORE:
        return True
    judged.failed |= bit(DNSBL)
    judged.doubt = judge_unsure(rules, &judged.lists, 0)
    if rules.actions[DNSBL] == ACTION_ENFORCE:
        return True
    judge_failed(judged, judge_why(&judged.lists), 421 if judged.doubt == SURE_YES else 521)
    return False


cdef void judge_failed(Judged* judged, int why, int reply) noexcept nogil:
    """The client has failed. If only the score fails it, and could still change, it is deferred."""
    judged.earned = judged.brief = judged.unsure = 0
    if judged.failed & ~(bit(DNSBL) | bit(SCORE)) or judged.doubt == SURE_NO:
        judged_as(judged, JUDGED_REJECTED, reply)
    elif judged.doubt == SURE_YES:
        judged_as(judged, JUDGED_DEFERRED, reply)
    else:
        judged_unknown(judged, why)


cdef void judge_ttl(const JudgeRules* rules, const JudgeFacts* facts, Judged* judged) noexcept nogil:
    """How long a pass of the lists is valid. It depends on the answers' TTLs; the record has only the result."""
    judged.ttl_least = 0 if judged.lists.unsettled else rules.dnsbl_min_ttl
    judged.ttl_most = rules.dnsbl_max_ttl
    if (judged.lists.least > 0) == facts.real_positive and judged.lists.least == judged.lists.most:
        if facts.same_signs:
            judged.ttl_least = judged.ttl_most = facts.record.pass_seconds
        elif facts.fewer_signs:         # the shortest TTL of some of them
            judged.ttl_least = max(judged.ttl_least, min(<int64_t> facts.record.pass_seconds, rules.dnsbl_max_ttl))


cdef void judge_dialogue(const JudgeRules* rules, const JudgeFacts* facts, uint32_t needed, bint denied, bint vetoed,
                         bint forwarded, uint32_t evidence, bint evidence_cut, Judged* judged) noexcept nogil:
    """From the end of the greet wait on."""
    cdef const HistoryRecord* record = facts.record
    cdef uint32_t tests = needed & DEEP_TESTS
    cdef uint32_t kept = judged.unsure
    cdef bint failing = judged.failed != 0 or vetoed
    cdef bint unmade = False
    cdef int64_t more = 0
    cdef JudgeScore none
    cdef const JudgeScore* lists = &judged.lists
    cdef Sure sure
    cdef int test, reply
    if not judged.failed and forwarded and not tests:
        judged.to_mta = True            # session_conclude
        if vetoed:
            judged.earned = 0
        judged_as(judged, JUDGED_HANDED_OFF, 0)
        return
    if failing:
        tests |= DEEP_TESTS & ~OWN_TESTS
    for test in range(TEST_COUNT):
        if not tests & bit(test) or test == SCORE or rules.actions[test] == ACTION_IGNORE:
            continue
        unmade = unmade or not facts.dialogue or not record.made & bit(test)
    if not facts.dialogue:
        if judged.failed and not (judged.doubt == SURE_YES and not judged_surely(judged) and unmade):
            judge_failed(judged, judge_why(&judged.lists), -1)
            return
        judged.unsure = kept | needed & ~judged.earned
        judged_unknown(judged, WHY_ENDED if record.stage == STAGE_GREET or vetoed else WHY_TEST)
        return
    reply = 0
    for test in range(TEST_COUNT):
        if not tests & bit(test) or test == SCORE or not record.found & bit(test):
            continue
        if rules.actions[test] == ACTION_IGNORE:
            judged.brief |= bit(test)
            continue
        judged.failed |= bit(test)
        if rules.actions[test] == ACTION_DROP:
            reply = 521
    if unmade and not judged_surely(judged):
        judged.unsure = kept | needed & ~judged.earned
        judged_unknown(judged, WHY_TEST)
        return
    if facts.cut_by >= 0 and facts.cut_by != SCORE and not judged_surely(judged):
        judged.unsure = kept | needed & ~judged.earned
        judged_unknown(judged, WHY_ENDED)       # it would have gone on
        return
    if facts.recipient and tests & bit(SCORE) and not judged.failed & ~DEEP_TESTS:
        if not needed & bit(DNSBL):
            memset(&none, 0, sizeof(none))
            lists = &none
        if evidence_cut and not judged.failed:
            judged.unsure = kept | needed & ~judged.earned
            judged_unknown(judged, WHY_CUT)
            return
        for test in range(SCORER_LISTS + 1, SCORER_COUNT):
            if evidence & bit(test):
                more += rules.weights[test]
        sure = judge_fails(rules, lists, more) if evidence else SURE_NO
        if sure != SURE_NO and facts.late_name:
            if not facts.same_score or not facts.same_sites:
                judged.unsure = kept | needed & ~judged.earned
                judged_unknown(judged, WHY_ORDER)
                return
            sure = SURE_NO
        if judged.failed:
            # Another test has failed it, before the recipient or after it: the end is the same, unless the score would
            # have disconnected it with a reply that leaves room for doubt.
            if sure != SURE_NO and rules.actions[SCORE] == ACTION_DROP and judge_unsure(rules, lists, more) != SURE_NO:
                judged_unknown(judged, WHY_ORDER)
                return
        elif sure == NOT_SURE and rules.actions[SCORE] == ACTION_IGNORE:
            judged.unsure |= bit(SCORE)
        elif sure == NOT_SURE:
            judged.unsure = kept | needed & ~judged.earned
            judged_unknown(judged, judge_why(lists))
            return
        elif sure == SURE_YES and rules.actions[SCORE] == ACTION_IGNORE:
            judged.brief |= bit(SCORE)
        elif sure == SURE_YES:
            judged.failed |= bit(SCORE)
            judged.doubt = judge_unsure(rules, lists, more)
            if rules.actions[SCORE] == ACTION_DROP:
                reply = 421 if judged.doubt == SURE_YES else 521
    if judged.failed:
        if not reply and facts.answered:
            reply = 450 if judged.doubt == SURE_YES and not judged.failed & DEEP_TESTS & ~bit(SCORE) else 550
        judge_failed(judged, judge_why(lists), reply)
        return
    if facts.recipient:
        judged.earned |= tests & needed
    judged.earned |= judged.brief
    if vetoed:
        judged.earned = judged.brief = 0
    if facts.cut_by >= 0:
        judged.unsure |= judged.earned & DEEP_TESTS
    if not facts.answered:
        judged_as(judged, JUDGED_LEFT, 0)
    elif forwarded and rules.continues:
        judged.to_mta = True
        judged_as(judged, JUDGED_HANDED_OFF, 0)
    else:
        judged_as(judged, JUDGED_DEFERRED, 450)


cdef inline bint judged_surely(const Judged* judged) noexcept nogil:
    """Whether it has failed by something that is certain."""
    return judged.failed & ~(bit(DNSBL) | bit(SCORE)) != 0 or judged.failed != 0 and judged.doubt == SURE_NO


# ---- passes

cdef JudgeOp judge_op(const JudgeRules* rules, const JudgeFacts* facts, const Judged* judged, uint32_t needed,
                      int test) noexcept nogil:
    cdef const HistoryRecord* record = facts.record
    cdef int64_t began = record.began // MICROSECONDS
    cdef int64_t latest = began + facts.real.greet_wait // MICROSECONDS + JUDGE_SLACK
    cdef int64_t least = rules.ttl[test]
    cdef int64_t most = least
    cdef JudgeOp op
    op.change = PASS_KEPT
    op.least = op.most = 0
    if not rules.enabled & bit(test):
        return op
    if test == DNSBL or judged.raised:
        least = judged.ttl_least
        most = judged.ttl_most
    elif judged.brief & bit(test):
        least = most = rules.brief_ttl
    if judged.unsure & bit(test):
        op.change = PASS_PERHAPS
        most = max(rules.ttl[test], rules.dnsbl_max_ttl)
    elif judged.raised and not needed & bit(test):
        op.change = PASS_RAISED
    elif judged.earned & bit(test):
        op.change = PASS_EARNED
    else:
        return op
    if DEEP_TESTS & bit(test) and not judged.raised:
        latest = max(latest, record.ended // MICROSECONDS + 1)
    op.least = <uint32_t> (began + least)
    op.most = <uint32_t> (latest + most)
    return op


cdef inline bint same_op(const JudgeOp* one, const JudgeOp* other) noexcept nogil:
    return one.change == other.change and one.least == other.least and one.most == other.most


cdef void judge_merge(JudgePasses* passes, int test, const JudgeOp* real, const JudgeOp* other) noexcept nogil:
    """Apply what a session does to a pass in reality, and by the other settings."""
    cdef uint8_t mark = <uint8_t> bit(test)
    cdef bint equal = passes.equal & mark
    cdef uint32_t* sure = &passes.sure[test]
    cdef uint32_t* maybe = &passes.maybe[test]
    if other.change == PASS_EARNED:
        if same_op(real, other):
            passes.equal |= mark
            sure[0] = maybe[0] = 0
        else:
            passes.equal &= ~mark
            sure[0] = other.least
            maybe[0] = other.most
    elif other.change == PASS_RAISED:
        if not equal:
            sure[0] = max(sure[0], other.least)
            maybe[0] = max(maybe[0], other.most)
        elif real.change == PASS_KEPT:
            sure[0] = max(sure[0], other.least)
            maybe[0] = max(maybe[0], other.most)
        elif not same_op(real, other):
            passes.equal &= ~mark
            sure[0] = other.least
            maybe[0] = other.most + JUDGE_FOREVER
    elif other.change == PASS_PERHAPS:
        passes.equal &= ~mark
        maybe[0] = max(maybe[0], other.most)
    elif equal and real.change == PASS_EARNED:
        passes.equal &= ~mark
        maybe[0] = sure[0]
    elif equal and real.change != PASS_KEPT:
        maybe[0] = max(maybe[0], real.most)


cdef inline bint judge_is_plain(const JudgePasses* passes, int test) noexcept nogil:
    """No difference to reality is left."""
    return passes.equal & bit(test) and not passes.sure[test] and not passes.maybe[test]


cdef void judge_read(const JudgePasses* passes, uint32_t enabled, uint32_t real, uint32_t now, uint32_t* needed,
                     uint32_t* unknown) noexcept nogil:
    """Which tests are needed by passes; real: those that were needed in reality."""
    cdef int test
    cdef uint32_t mark
    for test in range(TEST_COUNT):
        mark = bit(test)
        if not enabled & mark or now <= passes.sure[test]:
            continue
        if passes.equal & mark:
            if real & mark:
                needed[0] |= mark
            elif now <= passes.maybe[test]:
                unknown[0] |= mark
        elif now > passes.maybe[test]:
            needed[0] |= mark
        else:
            unknown[0] |= mark


# ---- the judge

@cython.final
cdef class JudgeCase:
    """The settings that sessions had (see core.pyi), and those to judge by in the numbering of their lists."""

    cdef JudgeRules real
    cdef JudgeRules other
    cdef bint same                  # they make no difference
    cdef bint same_sites
    cdef bint same_signs
    cdef bint fewer_signs
    cdef bint same_score
    cdef bint same_prefix
    cdef list kept

    def __cinit__(self):
        self.kept = []

    def __dealloc__(self):
        free(self.real.sites)
        free(self.other.sites)

    cdef int fill(self, JudgeRules* rules, description, numbers) except -1:
        cdef int at
        cdef bytes octets
        memset(rules, 0, sizeof(JudgeRules))
        tests = description["tests"]
        if len(tests) != TEST_COUNT:
            raise ValueError(f"{len(tests)} tests instead of {<int> TEST_COUNT}")
        rules.shadow = description["shadow"]
        rules.brief_ttl = rules.dnsbl_min_ttl = description["dnsbl_min_ttl"]
        rules.dnsbl_max_ttl = description["dnsbl_max_ttl"]
        for at, (enabled, action, ttl) in enumerate(tests):
            rules.enabled |= bit(at) if enabled else 0
            rules.actions[at] = ACTION_IGNORE if rules.shadow or action == "shadow" else action_number(action)
            rules.ttl[at] = ttl
            if at != DNSBL and (enabled or not TESTS[at].own):
                rules.brief_ttl = min(rules.brief_ttl, <int64_t> ttl)
        action = description["denylist_action"]
        rules.denylist_action = ACTION_IGNORE if rules.shadow or action == "shadow" else action_number(action)
        rules.continues = description["continues"]
        rules.threshold = description["threshold"]
        rules.allow_threshold = description["allowlist_threshold"]
        for at, scorer in enumerate(SCORERS):
            rules.weights[at] = description["weights"].get(scorer.key, 0)
        rules.greet_wait = int(description["greet_wait"] * MICROSECONDS)
        prefix_set(&rules.prefix, description["prefix"])
        rules.site_count = len(description["sites"])
        rules.sites = <JudgeSite*> calloc(rules.site_count + 1, sizeof(JudgeSite))
        if rules.sites == NULL:
            raise MemoryError
        for at, (number, mask, weight) in enumerate(description["sites"]):
            rules.sites[at].list = numbers[number]
            rules.sites[at].feature = min(<int> number, JUDGE_LISTS - 1)
            rules.sites[at].weight = weight
            if mask is not None:
                octets = mask
                if len(octets) != 128:
                    raise ValueError("a filter is four sets of 256 bits")
                self.kept.append(octets)
                rules.sites[at].octets = <const uint8_t*> <const char*> octets
        return 0


@cython.final
cdef class HistoryJudge:
    """See core.pyi."""

    cdef object other
    cdef int count_bits             # of a row's number, below the time of its end
    cdef Prefix mask                # bits of clients' addresses that were recorded
    cdef list lists
    cdef dict names                 # of all lists in the settings that sessions had: numbers
    cdef dict cases
    cdef JudgeCase last
    cdef uint32_t last_number
    cdef Policy policy              # for its host name
    cdef JudgeTable keys
    cdef JudgeTable clients
    cdef JudgeTable patterns        # of which sites and scorers hit a session
    cdef JudgeTable shown           # client and pattern
    cdef JudgePending* pending
    cdef uint32_t pending_count, pending_room, pending_free
    cdef JudgeAdmitted* admitted    # a ring
    cdef uint64_t admitted_first, admitted_next, admitted_mask
    cdef JudgeSlot** buckets        # sessions that wait, by the second of their beginning
    cdef JudgeSlot* small           # free slots
    cdef JudgeSlot** sorted_slots
    cdef size_t sorted_room
    cdef int64_t released           # s since 1970: sessions that began before this have been judged
    cdef readonly uint64_t held, most_held
    cdef uint64_t big_held
    cdef bint started, collecting
    cdef readonly object detail
    cdef uint64_t happened[JUDGE_RESULTS]
    cdef uint64_t moved[JUDGE_RESULTS][JUDGE_RESULTS]
    cdef uint64_t reasons[JUDGE_REASONS]
    cdef uint64_t missed[2][8]      # sessions, in reality and otherwise, by the number of the kind
    cdef uint64_t hits[JUDGE_FEATURES]
    cdef uint64_t unique[JUDGE_FEATURES]
    cdef uint64_t decisive[JUDGE_FEATURES]
    cdef uint64_t both[JUDGE_FEATURES][JUDGE_FEATURES]
    cdef readonly uint64_t sessions, records, late

    def __init__(self, other, hostname, int count_bits, bint detail=False, bint collecting=False, mask=(32, 128)):
        self.other = other
        self.count_bits = count_bits
        prefix_set(&self.mask, mask)
        self.lists = list(other["lists"])
        self.names = {}
        self.cases = {}
        self.policy = Policy.__new__(Policy)
        self.policy.hostname = hostname.encode()
        self.keys = JudgeTable()
        self.keys.prepare(sizeof(JudgeKey), 18, JUDGE_CLIENTS)
        self.clients = JudgeTable()
        self.clients.prepare(sizeof(JudgeClient), 17, JUDGE_CLIENTS)
        self.patterns = JudgeTable()
        self.patterns.prepare(16, 16, JUDGE_CLIENTS)
        self.shown = JudgeTable()
        self.shown.prepare(8, 8, 8 * <uint64_t> JUDGE_CLIENTS)
        self.admitted_mask = 4095
        self.admitted = <JudgeAdmitted*> malloc((self.admitted_mask + 1) * sizeof(JudgeAdmitted))
        self.pending_room = 1024
        self.pending = <JudgePending*> malloc(self.pending_room * sizeof(JudgePending))
        self.buckets = <JudgeSlot**> calloc(2 * JUDGE_WINDOW, sizeof(JudgeSlot*))
        if self.admitted == NULL or self.pending == NULL or self.buckets == NULL:
            raise MemoryError
        self.detail = [] if detail else None
        self.collecting = collecting
        if len(other["sites"]) > JUDGE_SITES and collecting:
            raise ValueError(f"more than {<int> JUDGE_SITES} sites")

    def __dealloc__(self):
        cdef JudgeSlot* slot
        cdef int at
        for at in range(2 * JUDGE_WINDOW):
            while self.buckets != NULL and self.buckets[at] != NULL:
                slot = self.buckets[at]
                self.buckets[at] = slot.next
                free(slot)
        while self.small != NULL:
            slot = self.small
            self.small = slot.next
            free(slot)
        free(self.buckets)
        free(self.sorted_slots)
        free(self.admitted)
        free(self.pending)

    def add_settings(self, uint32_t number, real):
        """See core.pyi."""
        cdef JudgeCase case = JudgeCase()
        cdef int at
        other = self.other
        names = {name: at for at, name in enumerate(real["lists"])}
        case.fill(&case.real, real, range(len(real["lists"])))
        case.fill(&case.other, other, [names.get(name, -1) for name in self.lists])
        for name in real["lists"]:
            self.names.setdefault(name, min(<int> len(self.names), JUDGE_LISTS - 1))
        for at in range(case.real.site_count):
            case.real.sites[at].feature = self.names[real["lists"][case.real.sites[at].list]]

        def sites(of, sign):
            return sorted((of["lists"][at], mask or b"", sign(weight)) for at, mask, weight in of["sites"])

        case.same_sites = sites(real, int) == sites(other, int)
        case.same_signs = sites(real, lambda weight: weight > 0) == sites(other, lambda weight: weight > 0)
        case.fewer_signs = set(sites(other, lambda weight: weight > 0)) <= set(sites(real, lambda weight: weight > 0))
        case.same_score = all(real[key] == other[key] for key in ("weights", "threshold"))
        case.same_prefix = tuple(real["prefix"]) == tuple(other["prefix"])
        keys = ("tests", "weights", "denylist_action", "shadow", "continues", "threshold", "allowlist_threshold",
                "dnsbl_min_ttl", "dnsbl_max_ttl")
        case.same = case.same_sites and case.same_prefix and all(real[key] == other[key] for key in keys)
        self.cases[number] = case
        self.last = None

    # ---- the order of beginnings

    def feed(self, rows):
        """See core.pyi."""
        cdef int64_t number, began, second, ended = 0
        cdef bytes client, packed
        for row in rows:
            number = row[0]
            client = row[1]
            packed = row[2]
            ended = number >> self.count_bits
            began = ended - judge_lasted(<const uint8_t*> <const char*> packed, len(packed))
            second = began // MICROSECONDS
            self.records += 1
            if not self.started:
                self.started = True
                self.released = max(0, ended // MICROSECONDS - JUDGE_WINDOW)
            self.release(ended // MICROSECONDS - JUDGE_WINDOW)
            if second < self.released or second >= self.released + 2 * JUDGE_WINDOW or len(client) not in (4, 16):
                self.late += second < self.released
                self.judge(number, <const uint8_t*> <const char*> client, len(client),
                           <const uint8_t*> <const char*> packed, len(packed))
            else:
                self.hold(number, began, second, client, packed)
                while self.held >= JUDGE_HELD:
                    self.release(self.released + 1)

    def finish(self):
        """See core.pyi."""
        cdef int _second
        for _second in range(2 * JUDGE_WINDOW):
            if not self.held:
                break
            self.release(self.released + 1)

    cdef int hold(self, int64_t number, int64_t began, int64_t second, bytes client, bytes packed) except -1:
        cdef JudgeSlot* slot
        cdef size_t size = len(packed)
        if size <= JUDGE_SMALL and self.small != NULL:
            slot = self.small
            self.small = slot.next
        else:
            slot = <JudgeSlot*> malloc(sizeof(JudgeSlot) + max(size, <size_t> JUDGE_SMALL))
            if slot == NULL:
                raise MemoryError
        slot.number = number
        slot.began = began
        slot.size = <uint16_t> min(size, <size_t> HISTORY_PACKED)
        slot.client_size = <uint8_t> len(client)
        memcpy(slot.client, <const char*> client, slot.client_size)
        memcpy(slot.packed, <const char*> packed, slot.size)
        slot.next = self.buckets[second % (2 * JUDGE_WINDOW)]
        self.buckets[second % (2 * JUDGE_WINDOW)] = slot
        self.held += 1
        if self.held > self.most_held:
            self.most_held = self.held
        return 0

    cdef int release(self, int64_t before) except -1:
        """Judge the sessions that began before this second."""
        cdef JudgeSlot** bucket
        cdef JudgeSlot* slot
        cdef size_t count, at
        while self.released < before:
            if not self.held:
                self.released = before
                return 0
            bucket = &self.buckets[self.released % (2 * JUDGE_WINDOW)]
            self.released += 1
            if bucket[0] == NULL:
                continue
            count = 0
            slot = bucket[0]
            while slot != NULL:
                count += 1
                slot = slot.next
            if count > self.sorted_room:
                free(self.sorted_slots)
                self.sorted_room = 2 * count
                self.sorted_slots = <JudgeSlot**> malloc(self.sorted_room * sizeof(JudgeSlot*))
                if self.sorted_slots == NULL:
                    self.sorted_room = 0
                    raise MemoryError
            slot = bucket[0]
            bucket[0] = NULL
            for at in range(count):
                self.sorted_slots[at] = slot
                slot = slot.next
            qsort(self.sorted_slots, count, sizeof(JudgeSlot*), judge_slot_order)
            for at in range(count):
                slot = self.sorted_slots[at]
                self.judge(slot.number, slot.client, slot.client_size, slot.packed, slot.size)
                self.held -= 1
                if slot.size <= JUDGE_SMALL:
                    slot.next = self.small
                    self.small = slot
                else:
                    free(slot)
        return 0

    # ---- one session

    cdef int judge(self, int64_t number, const uint8_t* address, size_t size, const uint8_t* packed,
                   size_t length) except -1:
        cdef HistoryRecord record
        cdef JudgeFacts facts
        cdef Judged real, other
        cdef JudgeCase case
        cdef JudgeClient* client
        cdef uint32_t needed = 0, unknown = 0, evidence = 0, weight = 1
        cdef bint cut = False
        cdef int happened = JUDGED_UNKNOWN
        memset(&other, 0, sizeof(other))
        if not history_unpack_into(&record, number >> self.count_bits, address, size, packed, length):
            judged_unknown(&other, WHY_VERSION)
            if size in (4, 16):
                memset(&record, 0, sizeof(record))
                record.ended = number >> self.count_bits
                record.family = 4 if size == 4 else 6
                memcpy(record.client, address, size)
                self.smear(&record, None)
            return self.count(NULL, NULL, happened, &other, 1, number)
        weight = record.weight
        case = self.case_of(record.settings)
        happened = judge_happened(&record, &case.real if case is not None else NULL)
        client = self.client_of(&record)
        if client == NULL:
            judged_unknown(&other, WHY_ROOM)
            return self.count(NULL, NULL, happened, &other, weight, number)
        if case is None or happened == JUDGED_UNKNOWN:
            judged_unknown(&other, WHY_SETTINGS if case is None else WHY_VERSION)
            self.smear(&record, None)
            return self.count(&record, client, happened, &other, weight, number)
        judge_facts(&facts, &record, &case.real)
        facts.same_sites = case.same_sites
        facts.same_signs = case.same_signs
        facts.same_score = case.same_score
        facts.fewer_signs = case.fewer_signs
        evidence = self.evidence_of(&record, &case.real, &cut)
        self.by_own(case, &facts, evidence, &real)
        if not judge_agrees(&record, happened, &real):
            judged_unknown(&other, WHY_DIFFERENT)
            if not case.same:
                self.smear(&record, case)
        elif case.same and self.keys.count == 0:
            other = real
            needed = facts.needed
        else:
            self.needed_of(case, &facts, &needed, &unknown)
            self.by_others(case, &facts, needed, unknown, evidence, cut, &other)
            self.passes_of(case, &facts, &real, &other, needed, unknown)
        if other.to_mta and real.to_mta:
            other.result = happened             # the MTA's part is as recorded
        elif other.reply // 100 == 5 and self.other["soft_bounce"]:
            other.reply -= 100
        self.count(&record, client, happened, &other, weight, number)
        if other.reason == WHY_JUDGED:
            self.contributions(case, &facts, &other, client, evidence, weight)
            if self.collecting:
                self.collect(case, &facts, &other, client, evidence)
        return 0

    cdef int by_own(self, JudgeCase case, JudgeFacts* facts, uint32_t evidence, Judged* judged) except -1:
        """Play a session by the settings that it had."""
        cdef JudgeFacts own = facts[0]
        own.same_sites = own.same_signs = own.same_score = True
        judge_session(&case.real, &own, facts.needed, evidence & weighted(&case.real), False, judged)
        if judged.failed & bit(SCORE) and not facts.record.found & bit(SCORE) or (
                facts.recipient and not facts.answered and not facts.record.found & bit(SCORE)):
            # The recipient came before this name, which the client changed.
            own.late_name = facts.late_name = True
            judge_session(&case.real, &own, facts.needed, evidence & weighted(&case.real), False, judged)
        return 0

    cdef int by_others(self, JudgeCase case, JudgeFacts* facts, uint32_t needed, uint32_t unknown, uint32_t evidence,
                       bint cut, Judged* judged) except -1:
        """Play it by the others. unknown: tests of which it is unknown whether they are needed: the result is known if
        it is the same for all of them."""
        cdef uint32_t asked = weighted(&case.other)
        cdef uint32_t unweighted = asked & ~weighted(&case.real)
        cdef bint unheard = unweighted and (cut or (
            unweighted & bit(SCORER_HELO_CLIENT_ADDRESS) and not prefix_is_whole(&self.mask, facts.record.family)))
        cdef Judged found
        cdef uint32_t part = unknown
        judge_session(&case.other, facts, needed | unknown, evidence & asked, unheard, judged)
        while part:
            part = (part - 1) & unknown
            judge_session(&case.other, facts, needed | part, evidence & asked, unheard, &found)
            if found.result != judged.result or found.to_mta != judged.to_mta:
                judged_unknown(judged, WHY_PASS)
                judged.unsure |= needed | unknown
                break
            judged.unsure |= found.unsure | (found.earned ^ judged.earned)
            if found.reply != judged.reply:
                judged.reply = -1
        judged.unsure |= unknown & judged.earned
        return 0

    cdef JudgeCase case_of(self, uint32_t number):
        if self.last is None or number != self.last_number:
            self.last = self.cases.get(number)
            self.last_number = number
        return self.last

    cdef JudgeClient* client_of(self, const HistoryRecord* record) noexcept:
        cdef uint8_t key[17]
        cdef char* found
        memcpy(key, record.client, 16)
        key[16] = record.family
        found = self.clients.find(key)
        if found == NULL:
            found = self.clients.add(key)
        return <JudgeClient*> found

    cdef uint32_t evidence_of(self, const HistoryRecord* record, const JudgeRules* real, bint* cut) noexcept:
        """The evidence of all scorers, of those without a weight from the name in the record. cut: it may be longer."""
        cdef Session session
        cdef uint32_t asked = weighted(real) if record.made & bit(SCORE) else 0
        cdef uint32_t others = HEARD_SCORERS[<int> HEARD_HELLO] & ~asked
        cut[0] = False
        if not record.name_length:
            return record.evidence & asked
        memset(&session, 0, sizeof(session))
        session.peer.family = session.server.family = record.family
        memcpy(session.peer.ip, record.client, 16)
        memcpy(session.server.ip, record.server, 16)
        cut[0] = record.name_length == HISTORY_NAME
        return record.evidence & asked | others & hello_evidence(
            self.policy, &session, others, record.name, record.name_length)

    # ---- the cache

    cdef JudgeKey* key_of(self, const HistoryRecord* record, const Prefix* prefix, bint add) noexcept:
        """NULL: there is no difference to reality, or no room."""
        cdef uint8_t key[18]
        cdef Address address
        cdef char* found
        memset(&address, 0, sizeof(address))
        address.family = record.family
        memcpy(address.ip, record.client, 16)
        prefix_mask(prefix, &address)
        key[0] = record.family
        key[1] = prefix_length(prefix, record.family)
        memcpy(key + 2, address.ip, 16)
        found = self.keys.find(key)
        if found == NULL and add:
            found = self.keys.add(key)
            if found != NULL:
                (<JudgeKey*> found).passes.equal = (1 << TEST_COUNT) - 1
        return <JudgeKey*> found

    cdef int needed_of(self, JudgeCase case, const JudgeFacts* facts, uint32_t* needed, uint32_t* unknown) except -1:
        """Which tests the cache would not have spared the client."""
        cdef const HistoryRecord* record = facts.record
        cdef uint32_t now = <uint32_t> (record.began // MICROSECONDS)
        cdef uint32_t enabled = case.other.enabled
        # Nobody has passed a test that is not made.
        cdef uint32_t real = (facts.needed | ~case.real.enabled) & enabled
        cdef JudgeKey* key
        cdef int test
        if not same_prefix_of(case, record.family):
            key = self.key_of(record, &case.other.prefix, False)
            if key != NULL:
                self.settle(key, record.began, unknown)
                if key.stored:
                    judge_read(&key.passes, enabled, enabled, now, needed, unknown)
                    needed[0] &= ~unknown[0]
                    return 0
            if (not prefix_is_whole(&case.real.prefix, record.family)
                    or prefix_is_whole(&case.other.prefix, record.family)):
                needed[0] = enabled & ~unknown[0]       # there are no such records
                return 0
        key = self.key_of(record, &case.real.prefix, False)
        if key == NULL:
            needed[0] = real
        else:
            self.settle(key, record.began, unknown)
            judge_read(&key.passes, enabled, real, now, needed, unknown)
            if prefix_length(&self.mask, record.family) < prefix_length(&case.real.prefix, record.family):
                for test in range(TEST_COUNT):          # of which client is it?
                    if not judge_is_plain(&key.passes, test):
                        unknown[0] |= bit(test)
        unknown[0] &= enabled
        needed[0] &= ~unknown[0]
        return 0

    cdef void settle(self, JudgeKey* key, int64_t now, uint32_t* unknown) noexcept nogil:
        """Apply the passes that are stored by now; of later ones, it is unknown whether a session sees them."""
        cdef uint32_t* at = &key.pending
        cdef uint32_t this
        cdef JudgePending* pending
        cdef int test
        while at[0]:
            this = at[0]
            pending = &self.pending[this - 1]
            if pending.latest < now:
                if pending.replaces:
                    memset(&key.passes, 0, sizeof(key.passes))
                    key.stored = True
                for test in range(TEST_COUNT):
                    if pending.touched & bit(test):
                        judge_merge(&key.passes, test, &pending.real[test], &pending.other[test])
                at[0] = pending.next
                pending.next = self.pending_free
                self.pending_free = this
                continue
            if pending.earliest <= now:
                unknown[0] |= pending.touched
            at = &pending.next

    cdef JudgePending* later(self, JudgeKey* key) noexcept nogil:
        """A new one, the last of its key. NULL: out of memory."""
        cdef JudgePending* made
        cdef uint32_t this = self.pending_free
        cdef uint32_t* at = &key.pending
        if this:
            self.pending_free = self.pending[this - 1].next
        else:
            if self.pending_count == self.pending_room:
                made = <JudgePending*> realloc(self.pending, 2 * <size_t> self.pending_room * sizeof(JudgePending))
                if made == NULL:
                    return NULL
                self.pending = made
                self.pending_room *= 2
            self.pending_count += 1
            this = self.pending_count
        made = &self.pending[this - 1]
        memset(made, 0, sizeof(JudgePending))
        while at[0]:
            at = &self.pending[at[0] - 1].next
        at[0] = this
        return made

    cdef int passes_of(self, JudgeCase case, const JudgeFacts* facts, const Judged* real, const Judged* other,
                       uint32_t needed, uint32_t unknown) except -1:
        """What the session does to the passes."""
        cdef const HistoryRecord* record = facts.record
        cdef uint32_t began = <uint32_t> (record.began // MICROSECONDS)
        cdef int64_t earliest = record.began
        cdef JudgePending change
        cdef JudgeKey* key = self.key_of(record, &case.real.prefix, False)
        cdef JudgeKey* group
        cdef uint32_t ignored = 0
        cdef bint same_prefix = same_prefix_of(case, record.family)
        cdef bint stores = False
        cdef JudgeOp* mine
        cdef JudgeOp* theirs
        cdef int test
        memset(&change, 0, sizeof(change))
        if real.waited and (other.waited or not other.earned) and not record.marks & MARK_STRESS:
            earliest += case.real.greet_wait - JUDGE_EARLY
        for test in range(TEST_COUNT):
            mine = &change.real[test]
            theirs = &change.other[test]
            if not case.other.enabled & bit(test):
                continue
            mine[0] = judge_op(&case.real, facts, real, facts.needed, test)
            theirs[0] = judge_op(&case.other, facts, other, needed | unknown, test)
            stores = stores or theirs.change != PASS_KEPT
            if not same_prefix:
                theirs.change = PASS_KEPT       # it is stored elsewhere
            if not (mine.change or theirs.change) or same_op(mine, theirs) and (
                    key == NULL or not key.pending and key.passes.equal & bit(test)):
                continue
            change.touched |= bit(test)
        if change.touched and not same_prefix:
            # Once there is a record of the network, those of its addresses are not used any more.
            group = self.key_of(record, &case.other.prefix, False)
            if group != NULL and group.stored:
                change.touched = 0
        if change.touched:
            key = self.key_of(record, &case.real.prefix, True)
            if key != NULL:
                self.settle(key, record.began, &ignored)
            self.store(key, &change, facts, earliest)
        if same_prefix or not stores:
            return 0
        # The record of a network has the stamps of all tests.
        change.replaces = True
        change.touched = <uint8_t> case.other.enabled
        for test in range(TEST_COUNT):
            change.real[test].change = PASS_KEPT
            theirs = &change.other[test]
            theirs[0] = judge_op(&case.other, facts, other, needed | unknown, test)
            if theirs.change == PASS_KEPT and not (needed | unknown) & bit(test):
                theirs.change = PASS_EARNED
                theirs.least = began
                theirs.most = began + JUDGE_FOREVER
        self.store(self.key_of(record, &case.other.prefix, True), &change, facts, earliest)
        return 0

    cdef int store(self, JudgeKey* key, const JudgePending* change, const JudgeFacts* facts,
                   int64_t earliest) except -1:
        cdef const HistoryRecord* record = facts.record
        cdef JudgePending* pending
        cdef uint32_t following
        cdef int64_t over = record.began + facts.real.greet_wait + JUDGE_SLACK * MICROSECONDS
        if key == NULL:
            raise MemoryError("too many clients whose passes differ")
        pending = self.later(key)
        if pending == NULL:
            raise MemoryError
        following = pending.next
        pending[0] = change[0]
        pending.next = following
        pending.earliest = earliest
        pending.latest = record.ended
        if record.stage == STAGE_GREET:
            pending.latest = max(over, record.ended)    # it might have lasted longer
        elif not facts.dialogue:
            pending.latest = min(over, record.ended)    # the passes are stored before a relay begins
        return 0

    cdef int smear(self, const HistoryRecord* record, JudgeCase case) except -1:
        """What a session does to passes is not known."""
        cdef JudgeKey* key
        cdef int test
        cdef uint32_t until
        if case is None:
            if not self.cases:
                return 0
            case = next(iter(self.cases.values()))
        for test in range(2):
            key = self.key_of(record, &case.real.prefix if test == 0 else &case.other.prefix, True)
            if key == NULL:
                raise MemoryError("too many clients whose passes differ")
            if test == 1:
                key.stored = not same_prefix_of(case, record.family)
        for test in range(TEST_COUNT):
            until = <uint32_t> (record.ended // MICROSECONDS + max(case.other.ttl[test], case.other.dnsbl_max_ttl))
            key = self.key_of(record, &case.real.prefix, False)
            key.passes.maybe[test] = max(key.passes.maybe[test], until)
            key = self.key_of(record, &case.other.prefix, False)
            key.passes.maybe[test] = max(key.passes.maybe[test], until)
        return 0

    # ---- counts

    cdef int count(self, const HistoryRecord* record, JudgeClient* client, int happened, const Judged* judged,
                   uint32_t weight, int64_t number) except -1:
        self.sessions += weight
        self.happened[happened] += weight
        self.moved[happened][judged.result] += weight
        self.reasons[judged.reason] += weight
        if self.detail is not None:
            self.detail.append((number, JUDGED[happened], JUDGED[judged.result], judged.reply,
                                JUDGE_REASON_KEYS[judged.reason]))
        if client == NULL:
            return 0
        client.happened |= 1 << happened
        client.would |= 1 << judged.result
        client.rejected[0] += weight if happened == JUDGED_REJECTED else 0
        client.rejected[1] += weight if judged.result == JUDGED_REJECTED else 0
        client.deferred[0] += weight if happened == JUDGED_DEFERRED else 0
        client.deferred[1] += weight if judged.result == JUDGED_DEFERRED else 0
        client.handed[0] += weight if happened == JUDGED_HANDED_OFF else 0
        client.handed[1] += weight if judged.result == JUDGED_HANDED_OFF else 0
        client.unknown += weight if judged.result == JUDGED_UNKNOWN else 0
        return self.learn(record, client, happened, judged, weight)

    cdef int learn(self, const HistoryRecord* record, JudgeClient* client, int happened, const Judged* judged,
                   uint32_t weight) except -1:
        """Which clients are good or bad, by the settings that the session had, and what was missed."""
        cdef uint32_t began = <uint32_t> (record.began // MICROSECONDS)
        cdef JudgeCase case = self.case_of(record.settings)
        cdef const JudgeSite* site
        cdef uint64_t on_lists = 0, answered = 0
        cdef uint8_t bad = 0
        cdef uint8_t admitted = (1 if happened == JUDGED_HANDED_OFF else 0) | (
            2 if judged.result == JUDGED_HANDED_OFF else 0)
        cdef int at
        if happened == JUDGED_HANDED_OFF:
            if client.deferred_at and began <= client.deferred_at + JUDGE_DAY:
                client.kinds |= GOOD_RETRIED
            if client.handed_at == 0:
                client.handed_at = began
            elif began >= client.handed_at + JUDGE_MONTH:
                client.kinds |= GOOD_KNOWN
        elif happened == JUDGED_DEFERRED:
            client.deferred_at = max(client.deferred_at, <uint32_t> (record.ended // MICROSECONDS))
        if record.mta_accepted:
            client.kinds |= GOOD_ACCEPTED
        if record.marks & (MARK_ALLOWLISTED | MARK_LISTS_ALLOW):
            client.kinds |= GOOD_ALLOWED
        if case is not None and record.needed & bit(DNSBL):
            for at in range(case.real.site_count):
                site = &case.real.sites[at]
                if site.list >= HISTORY_LISTS:
                    continue
                if not (record.silent | record.unasked | record.doubtful) >> site.list & 1:
                    answered |= <uint64_t> 1 << site.feature
                if not record.listed >> site.list & 1 or not judge_matches(record, site):
                    continue
                if site.weight < 0:
                    client.kinds |= GOOD_ALLOWED
                elif site.weight > 0:
                    on_lists |= <uint64_t> 1 << site.feature
        if record.mta_rejected:
            bad |= BAD_MTA
        if record.found & ~(bit(DNSBL) | bit(SCORE)):
            bad |= BAD_TEST
        if on_lists:
            client.kinds |= BAD_ON_LIST
        client.kinds |= bad
        # In this session, and in those of the day before
        if admitted and bad:
            self.miss(client, admitted, bad, weight)
        if on_lists & ~client.on_lists and (client.on_lists or client.chain):
            bad |= BAD_LISTED
            client.kinds |= BAD_LISTED
        client.on_lists = client.on_lists & ~answered | on_lists
        if bad and client.chain:
            self.miss_before(client, began, bad)
        elif not bad and admitted:
            self.admit(client, began, admitted, weight)
        return 0

    cdef void miss(self, JudgeClient* client, uint8_t admitted, uint8_t bad, uint32_t weight) noexcept nogil:
        cdef int which, kind
        for which in range(2):
            if not admitted >> which & 1:
                continue
            client.missed[which] |= bad
            for kind in range(8):
                if bad >> kind & 1:             # the first reason counts
                    self.missed[which][kind] += weight
                    break

    cdef void miss_before(self, JudgeClient* client, uint32_t began, uint8_t bad) noexcept nogil:
        """The sessions of the day before were missed."""
        cdef JudgeAdmitted* one
        cdef uint64_t at = client.chain
        while at and at - 1 >= self.admitted_first:
            one = &self.admitted[(at - 1) & self.admitted_mask]
            if one.time + JUDGE_DAY < began:
                break
            self.miss(client, one.admitted, bad, one.weight)
            at = one.before
        client.chain = 0

    cdef int admit(self, JudgeClient* client, uint32_t began, uint8_t admitted, uint32_t weight) except -1:
        """A session that is a miss if its client turns out to be bad within a day."""
        cdef JudgeAdmitted* bigger
        cdef JudgeAdmitted* one
        cdef uint64_t at
        while (self.admitted_first < self.admitted_next
               and self.admitted[self.admitted_first & self.admitted_mask].time + 2 * JUDGE_DAY < began):
            self.admitted_first += 1
        if self.admitted_next - self.admitted_first > self.admitted_mask:
            bigger = <JudgeAdmitted*> malloc(2 * (self.admitted_mask + 1) * sizeof(JudgeAdmitted))
            if bigger == NULL:
                raise MemoryError
            for at in range(self.admitted_first, self.admitted_next):
                bigger[at & (2 * self.admitted_mask + 1)] = self.admitted[at & self.admitted_mask]
            free(self.admitted)
            self.admitted = bigger
            self.admitted_mask = 2 * self.admitted_mask + 1
        one = &self.admitted[self.admitted_next & self.admitted_mask]
        one.time = began
        one.weight = weight
        one.before = client.chain
        one.admitted = admitted
        self.admitted_next += 1
        client.chain = self.admitted_next
        return 0

    cdef int contributions(self, JudgeCase case, const JudgeFacts* facts, const Judged* judged, JudgeClient* client,
                           uint32_t evidence, uint32_t weight) except -1:
        """Which lists, scorers and tests hit the session, and which of them it takes to reject it."""
        cdef const HistoryRecord* record = facts.record
        cdef const JudgeSite* site
        cdef uint32_t others
        cdef int found[JUDGE_FEATURES]
        cdef int64_t parts[JUDGE_FEATURES]
        cdef int64_t more = 0
        cdef int count = 0
        cdef int at, other, feature
        if not facts.tested:
            return 0
        others = evidence & ~bit(SCORER_LISTS) | (
            record.found & case.other.enabled & ~(bit(DNSBL) | bit(SCORE))) << SCORER_COUNT
        if not others and not judged.lists.hits:
            return 0
        for at in range(JUDGE_LISTS):
            if judged.lists.hits >> at & 1:
                found[count] = at
                parts[count] = 0
                for other in range(case.other.site_count):
                    site = &case.other.sites[other]
                    if site.feature == at and site.list >= 0 and judge_matches(record, site):
                        parts[count] += site.weight
                count += 1
        for at in range(SCORER_COUNT + TEST_COUNT):
            if others >> at & 1:
                found[count] = JUDGE_LISTS + at
                parts[count] = case.other.weights[at] if at < SCORER_COUNT else 0
                if judged.failed & bit(SCORE) and at < SCORER_COUNT:
                    more += parts[count]
                count += 1
        client.lists |= judged.lists.hits
        client.features |= others
        for at in range(count):
            feature = found[at]
            self.hits[feature] += weight
            if count == 1:
                self.unique[feature] += weight
            for other in range(count):
                self.both[feature][found[other]] += weight
            if judged.result != JUDGED_REJECTED:
                continue
            if judged.failed == bit(DNSBL) or judged.failed == bit(SCORE):
                if parts[at] > 0 and judged.lists.least + judged.lists.over + more - parts[at] < case.other.threshold:
                    self.decisive[feature] += weight
            elif feature >= JUDGE_LISTS + SCORER_COUNT and judged.failed == bit(feature - JUDGE_LISTS - SCORER_COUNT):
                self.decisive[feature] += weight
        return 0

    cdef int collect(self, JudgeCase case, const JudgeFacts* facts, const Judged* judged, JudgeClient* client,
                     uint32_t evidence) except -1:
        """Keep what the score of this session is made of, if the result depends on it."""
        cdef JudgePattern pattern
        cdef JudgeSite* site
        cdef char* found
        cdef uint32_t pair[2]
        cdef int at
        if not facts.tested or judged.failed & ~(bit(DNSBL) | bit(SCORE)) or not judged.scored:
            return 0
        memset(&pattern, 0, sizeof(pattern))
        for at in range(case.other.site_count):
            site = &case.other.sites[at]
            if (0 <= site.list < HISTORY_LISTS and facts.record.listed >> site.list & 1
                    and judge_matches(facts.record, site)):
                pattern.sites |= <uint64_t> 1 << at
        if facts.recipient:
            pattern.scorers = evidence & ~bit(SCORER_LISTS)
        found = self.patterns.find(<const uint8_t*> &pattern)
        if found == NULL:
            found = self.patterns.add(<const uint8_t*> &pattern)
            if found == NULL:
                raise MemoryError
            memcpy(found, &pattern, sizeof(pattern))
        pair[0] = self.number_of(self.clients, <char*> client)
        pair[1] = self.number_of(self.patterns, found)
        if self.shown.find(<const uint8_t*> pair) == NULL and self.shown.add(<const uint8_t*> pair) == NULL:
            raise MemoryError
        return 0

    cdef uint32_t number_of(self, JudgeTable table, const char* item) noexcept:
        """The number of an item: its key is found again, which is rare enough."""
        cdef uint64_t at = judge_hash(<const uint8_t*> item, table.key_size) & table.mask
        while table.item(table.slots[at] - 1) != item:
            at = (at + 1) & table.mask
        return table.slots[at] - 1

    # ---- results

    def memory(self):
        """See core.pyi."""
        return (self.keys.memory() + self.clients.memory() + self.patterns.memory() + self.shown.memory()
                + (self.admitted_mask + 1) * sizeof(JudgeAdmitted) + self.pending_room * sizeof(JudgePending)
                + self.most_held * (sizeof(JudgeSlot) + JUDGE_SMALL) + 2 * JUDGE_WINDOW * sizeof(JudgeSlot*))

    def summary(self):
        """See core.pyi."""
        cdef uint64_t clients[3][JUDGE_RESULTS]         # in reality, otherwise, and collateral
        cdef uint64_t collateral[2][3]                  # clients that behave well: all, rejected, deferred
        cdef uint64_t good_sessions[2][3]
        cdef uint64_t by_kind[2][2][8]                  # rejected or deferred, in reality or otherwise
        cdef uint64_t missed[2][8]
        cdef uint64_t missed_any[2]
        cdef uint64_t feature_clients[2][JUDGE_FEATURES]
        cdef uint64_t good = 0, bad = 0
        cdef JudgeClient* client
        cdef uint64_t number
        cdef int which, result, kind, at
        memset(clients, 0, sizeof(clients))
        memset(good_sessions, 0, sizeof(good_sessions))
        memset(collateral, 0, sizeof(collateral))
        memset(by_kind, 0, sizeof(by_kind))
        memset(missed, 0, sizeof(missed))
        memset(missed_any, 0, sizeof(missed_any))
        memset(feature_clients, 0, sizeof(feature_clients))
        for number in range(self.clients.count):
            client = <JudgeClient*> self.clients.item(number)
            good += client.kinds & GOOD != 0
            bad += client.kinds & ~GOOD and not client.kinds & GOOD
            for result in range(JUDGE_RESULTS):
                clients[0][result] += client.happened >> result & 1
                clients[1][result] += client.would >> result & 1
            for which in range(2):
                missed_any[which] += client.missed[which] != 0
                for kind in range(8):
                    missed[which][kind] += client.missed[which] >> kind & 1
                if not client.kinds & GOOD:
                    continue
                collateral[which][0] += 1
                collateral[which][1] += client.rejected[which] != 0
                collateral[which][2] += client.deferred[which] != 0
                good_sessions[which][1] += client.rejected[which]
                good_sessions[which][2] += client.deferred[which]
                for kind in range(8):
                    if client.kinds >> kind & 1:
                        by_kind[0][which][kind] += client.rejected[which] != 0
                        by_kind[1][which][kind] += client.deferred[which] != 0
            for at in range(JUDGE_LISTS):
                if client.lists >> at & 1:
                    feature_clients[0][at] += 1
                    feature_clients[1][at] += client.kinds & GOOD != 0
            for at in range(SCORER_COUNT + TEST_COUNT):
                if client.features >> at & 1:
                    feature_clients[0][JUDGE_LISTS + at] += 1
                    feature_clients[1][JUDGE_LISTS + at] += client.kinds & GOOD != 0
        features = []
        for at in range(JUDGE_FEATURES):
            if at < JUDGE_LISTS and at >= <int> len(self.lists):
                continue
            features.append({
                "name": self.feature_name(at), "sessions": self.hits[at], "unique": self.unique[at],
                "decisive": self.decisive[at], "clients": feature_clients[0][at], "good": feature_clients[1][at],
                "both": {self.feature_name(kind): self.both[at][kind] for kind in range(JUDGE_FEATURES)
                         if kind != at and self.both[at][kind]}})
        times = ("happened", "would")
        return {
            "sessions": self.sessions, "records": self.records, "late": self.late,
            "clients": self.clients.count, "good": good, "bad": bad,
            "happened": {JUDGED[at]: (self.happened[at], clients[0][at]) for at in range(JUDGE_RESULTS)},
            "would": {JUDGED[at]: (sum([self.moved[kind][at] for kind in range(JUDGE_RESULTS)]), clients[1][at])
                      for at in range(JUDGE_RESULTS)},
            "moved": {(JUDGED[at], JUDGED[kind]): self.moved[at][kind] for at in range(JUDGE_RESULTS)
                      for kind in range(JUDGE_RESULTS) if self.moved[at][kind]},
            "reasons": {JUDGE_REASON_KEYS[at]: self.reasons[at] for at in range(1, JUDGE_REASONS) if self.reasons[at]},
            "collateral": {
                times[which]: {
                    "rejected": (good_sessions[which][1], collateral[which][1]),
                    "deferred": (good_sessions[which][2], collateral[which][2]),
                    "rejected_by_kind": {JUDGE_KINDS[kind]: by_kind[0][which][kind] for kind in range(4)},
                    "deferred_by_kind": {JUDGE_KINDS[kind]: by_kind[1][which][kind] for kind in range(4)},
                } for which in range(2)},
            "misses": {
                times[which]: {
                    "sessions": sum([self.missed[which][kind] for kind in range(8)]), "clients": missed_any[which],
                    "sessions_by_kind": {JUDGE_KINDS[kind]: self.missed[which][kind] for kind in range(4, 7)},
                    "clients_by_kind": {JUDGE_KINDS[kind]: missed[which][kind] for kind in range(4, 7)},
                } for which in range(2)},
            "features": features,
        }

    def feature_name(self, int at):
        if at < JUDGE_LISTS:
            return "list:" + self.lists[at]
        at -= JUDGE_LISTS
        return "scorer:" + SCORERS[at].key if at < SCORER_COUNT else "test:" + TESTS[at - SCORER_COUNT].key

    def examples(self, str what, int limit):
        """See core.pyi."""
        cdef JudgeClient* client
        cdef uint64_t number
        cdef int size
        cdef bint chosen
        found = []
        for number in range(self.clients.count):
            if <int> len(found) == limit:
                break
            client = <JudgeClient*> self.clients.item(number)
            if what == "collateral":
                chosen = client.kinds & GOOD and client.rejected[1] and not client.rejected[0]
            elif what == "saved":
                chosen = client.rejected[0] and not client.rejected[1] and client.handed[1]
            else:
                chosen = client.missed[1] and not client.missed[0]
            if chosen:
                size = 4 if client.family == 4 else 16
                found.append(((<char*> client.ip)[:size], [
                    JUDGE_KINDS[kind] for kind in range(8) if client.kinds >> kind & 1]))
        return found

    def collected(self):
        """See core.pyi."""
        cdef JudgePattern* pattern
        cdef JudgeClient* client
        cdef uint32_t* pair
        cdef uint64_t number
        cdef int label
        patterns = []
        of_client = {}
        groups = {}
        for number in range(self.patterns.count):
            pattern = <JudgePattern*> self.patterns.item(number)
            patterns.append((pattern.sites, pattern.scorers))
        for number in range(self.shown.count):
            pair = <uint32_t*> self.shown.item(number)
            before = of_client.get(pair[0])
            if before is None:
                of_client[pair[0]] = pair[1]
            elif type(before) is int:
                of_client[pair[0]] = [before, pair[1]]
            else:
                before.append(pair[1])
        for one, has in of_client.items():
            client = <JudgeClient*> self.clients.item(<uint64_t> one)
            label = 0 if client.kinds & GOOD else 1 if client.kinds & ~GOOD else 2
            if label == 2:
                continue
            key = (has,) if type(has) is int else tuple(sorted(has))
            counts = groups.get(key)
            if counts is None:
                counts = groups[key] = [0, 0]
            counts[label] += 1
        return patterns, {key: tuple(counts) for key, counts in groups.items()}


# ---- small parts

cdef inline uint32_t weighted(const JudgeRules* rules) noexcept nogil:
    """The scorers with a weight."""
    cdef uint32_t found = 0
    cdef int scorer
    for scorer in range(SCORER_LISTS + 1, SCORER_COUNT):
        if rules.weights[scorer]:
            found |= bit(scorer)
    return found


cdef inline bint same_prefix_of(JudgeCase case, uint8_t family) noexcept nogil:
    return prefix_length(&case.real.prefix, family) == prefix_length(&case.other.prefix, family)


cdef int judge_happened(const HistoryRecord* record, const JudgeRules* real) noexcept nogil:
    """The result that was recorded. real: NULL: not known."""
    cdef uint8_t outcome = record.outcome
    cdef bint denied = real != NULL and record.marks & MARK_DENYLISTED and real.denylist_action != ACTION_IGNORE
    if outcome in (OUTCOME_HANDED_OFF, OUTCOME_RELAYED, OUTCOME_CONTINUED):
        return JUDGED_HANDED_OFF
    if outcome == OUTCOME_BUSY:
        return JUDGED_BUSY
    if outcome == OUTCOME_FAILED:
        return JUDGED_FAILED
    if outcome not in (OUTCOME_LEFT, OUTCOME_DEFERRED, OUTCOME_REJECTED):
        return JUDGED_UNKNOWN
    if record.failed or denied:
        if record.failed & ~(bit(DNSBL) | bit(SCORE)) or denied or not record.marks & MARK_UNSURE:
            return JUDGED_REJECTED
        return JUDGED_DEFERRED
    if outcome == OUTCOME_REJECTED:
        return JUDGED_REJECTED
    return JUDGED_DEFERRED if outcome == OUTCOME_DEFERRED else JUDGED_LEFT


cdef bint judge_agrees(const HistoryRecord* record, int happened, const Judged* real) noexcept nogil:
    """Whether the rules explain what was recorded. Where the MTA decides, every end of a session is possible."""
    if real.to_mta:
        return happened != JUDGED_BUSY and happened != JUDGED_REJECTED
    return happened == real.result


cdef int64_t judge_lasted(const uint8_t* at, size_t size) noexcept nogil:
    """How long the session of a packed record lasted (µs); 0: the record does not say so."""
    cdef const uint8_t* end = at + size
    cdef uint64_t present, lasted
    if size < 2 or at[0] != HISTORY_VERSION:
        return 0
    at = varint_read(at + 1, end, &present)
    if at == NULL or not present & 1 or varint_read(at, end, &lasted) == NULL or lasted >> 62:
        return 0
    return <int64_t> lasted


cdef int judge_slot_order(const void* one, const void* other) noexcept nogil:
    cdef const JudgeSlot* first = (<JudgeSlot* const*> one)[0]
    cdef const JudgeSlot* second = (<JudgeSlot* const*> other)[0]
    if first.began != second.began:
        return -1 if first.began < second.began else 1
    return -1 if first.number < second.number else first.number > second.number


def hello_found(bytes name, bytes client, str hostname):
    """See core.pyi."""
    cdef Session session
    cdef Policy policy = Policy.__new__(Policy)
    if len(client) not in (4, 16):
        raise ValueError("an address is packed, in 4 or 16 bytes")
    policy.hostname = hostname.encode()
    memset(&session, 0, sizeof(session))
    session.peer.family = 4 if len(client) == 4 else 6
    memcpy(session.peer.ip, <const char*> client, len(client))
    return hello_evidence(policy, &session, HEARD_SCORERS[<int> HEARD_HELLO], name, len(name))


# ---- the search for weights

@cython.final
cdef class WeightSearch:
    """See core.pyi."""

    cdef int count, patterns, groups
    cdef int32_t* starts            # of each pattern's features
    cdef int32_t* features
    cdef int32_t* group_starts
    cdef int32_t* members
    cdef int64_t* good
    cdef int64_t* bad
    cdef int64_t* scores

    def __init__(self, int count, patterns, groups):
        cdef int at, place
        self.count = count
        self.patterns = len(patterns)
        self.groups = len(groups)
        self.starts = <int32_t*> calloc(self.patterns + 1, sizeof(int32_t))
        self.features = <int32_t*> calloc(sum([len(each) for each in patterns]) + 1, sizeof(int32_t))
        self.group_starts = <int32_t*> calloc(self.groups + 1, sizeof(int32_t))
        self.members = <int32_t*> calloc(sum([len(each[0]) for each in groups]) + 1, sizeof(int32_t))
        self.good = <int64_t*> calloc(self.groups + 1, sizeof(int64_t))
        self.bad = <int64_t*> calloc(self.groups + 1, sizeof(int64_t))
        self.scores = <int64_t*> calloc(self.patterns + 1, sizeof(int64_t))
        if (self.starts == NULL or self.features == NULL or self.group_starts == NULL or self.members == NULL
                or self.good == NULL or self.bad == NULL or self.scores == NULL):
            raise MemoryError
        place = 0
        for at, pattern in enumerate(patterns):
            self.starts[at] = place
            for feature in pattern:
                if not 0 <= feature < count:
                    raise ValueError(f"feature {feature} of {count}")
                self.features[place] = feature
                place += 1
        self.starts[self.patterns] = place
        place = 0
        for at, (members, good, bad) in enumerate(groups):
            self.group_starts[at] = place
            for member in members:
                if not 0 <= member < self.patterns:
                    raise ValueError(f"pattern {member} of {self.patterns}")
                self.members[place] = member
                place += 1
            self.good[at] = good
            self.bad[at] = bad
        self.group_starts[self.groups] = place

    def __dealloc__(self):
        free(self.starts)
        free(self.features)
        free(self.group_starts)
        free(self.members)
        free(self.good)
        free(self.bad)
        free(self.scores)

    def hit(self, weights, int64_t threshold):
        """See core.pyi."""
        cdef int64_t[1024] weight
        cdef int64_t good = 0, bad = 0
        cdef int at, place
        if len(weights) != self.count or self.count > 1024:
            raise ValueError(f"{len(weights)} weights instead of {self.count}")
        for at in range(self.count):
            weight[at] = weights[at]
        with nogil:
            for at in range(self.patterns):
                self.scores[at] = 0
                for place in range(self.starts[at], self.starts[at + 1]):
                    self.scores[at] += weight[self.features[place]]
            for at in range(self.groups):
                for place in range(self.group_starts[at], self.group_starts[at + 1]):
                    if self.scores[self.members[place]] >= threshold:
                        good += self.good[at]
                        bad += self.bad[at]
                        break
        return good, bad
