# What the judge of recorded sessions (history_judge.pyx) keeps: results and reasons, rules, facts, passes, clients.

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
    WHY_MEMORY              # the memory of offenses was not asked, or by other settings
    JUDGE_REASONS

JUDGE_REASON_KEYS = ("judged", "version", "settings", "different", "test", "list", "cut", "ended", "order", "pass",
                     "limit", "room", "memory")

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


# Scorers whose evidence only the memory has: it is not in the record unless they were asked.
cdef uint32_t MEMORY_SCORERS = HEARD_SCORERS[<int> HEARD_MEMORY]


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
    uint32_t many_from      # recipients
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
