# The table of tests: everything that is stored, configured, logged or displayed for each test follows from its row. In
# the core these are bits and stamps by number; in Python (core.TESTS), keys of the configuration, stamps of the cache,
# findings, filter words, metrics, rows of the view and lines of the report. docs/extending.md has the steps to add a
# test.

from collections import namedtuple

Test = namedtuple("Test", "key label log_words event stage action ttl about own")


# When a deep test sees a line. At one moment, tests with a higher number come first (reference 5.3).
cdef enum Moment:
    NOT_ON_LINES            # a test before the SMTP handshake
    ON_LINE                 # as the line came, before the command filter
    ON_COMMAND              # once its command is known
    ON_RECIPIENT            # at RCPT, if the line has passed the others
    MOMENTS


# Whether the client fails by this line; if so, the hook has logged what the client did, and made the event. rest, end:
# what came after the line; before: the command before it.
ctypedef bint (*LineHook)(Screener core, Session* session, Line* line, const char* rest, const char* end,
                          int before) noexcept


cdef struct TestRow:
    const char* key         # in the configuration, the cache's export, findings, metrics and filters
    const char* label       # its name for people
    const char* log_words   # the beginning of its log line
    EventKind event         # of a failure
    const char* kind        # that event's name
    Stage stage             # when it is made
    Moment moment
    LineHook hook           # of a deep test
    const char* farewell    # reply to a client that is disconnected at once; NULL: blocked_text
    Action action           # of a disabled deep test, for clients that failed another test
    const char* ttl         # how long a pass is valid, unless the configuration says otherwise
    const char* about       # what clients that fail this test do, for the documentation
    bint own                # not one of postscreen's: it leaves no trace while it is disabled


# In the order of their numbers.
cdef TestRow[TEST_COUNT] TEST_TABLE = [
    TestRow(
        key="pregreet", label="pregreet", log_words="PREGREET", event=EVENT_PREGREET, kind="pregreet",
        stage=STAGE_GREET, moment=NOT_ON_LINES, hook=NULL, farewell=PROTOCOL_ERROR,
        action=ACTION_IGNORE, ttl="1d", own=False,
        about="send data before they are greeted"),
    TestRow(
        key="dnsbl", label="dnsbl", log_words="DNSBL rank", event=EVENT_RANK, kind="rank",
        stage=STAGE_GREET, moment=NOT_ON_LINES, hook=NULL, farewell=NULL,
        action=ACTION_IGNORE, ttl="1h", own=False,
        about="have a DNSBL score of `dnsbl.threshold` or more"),
    TestRow(
        key="pipelining", label="pipelining", log_words="COMMAND PIPELINING", event=EVENT_PIPELINING, kind="pipelining",
        stage=STAGE_DIALOGUE, moment=ON_COMMAND, hook=pipelining_found, farewell=PROTOCOL_ERROR,
        action=ACTION_ENFORCE, ttl="30d", own=False,
        about="send a command before they have received the reply to the previous one"),
    TestRow(
        key="non_smtp_command", label="non-SMTP command", log_words="NON-SMTP COMMAND", event=EVENT_NON_SMTP_COMMAND,
        kind="non_smtp_command", stage=STAGE_DIALOGUE, moment=ON_COMMAND, hook=non_smtp_found,
        farewell=BREAK_RULES,
        action=ACTION_DROP, ttl="30d", own=False,
        about="send something other than SMTP, such as HTTP requests, message headers, or the words in "
              "`engine.forbidden_commands`"),
    TestRow(
        key="bare_newline", label="bare newline", log_words="BARE NEWLINE", event=EVENT_BARE_NEWLINE,
        kind="bare_newline", stage=STAGE_DIALOGUE, moment=ON_LINE, hook=bare_newline_found,
        farewell=PROTOCOL_ERROR,
        action=ACTION_IGNORE, ttl="30d", own=False,
        about="end a line with LF alone instead of CR LF"),
    TestRow(
        key="score", label="score", log_words="SCORE rank", event=EVENT_SCORE, kind="score",
        stage=STAGE_DIALOGUE, moment=ON_RECIPIENT, hook=score_found, farewell=NULL,
        action=ACTION_IGNORE, ttl="30d", own=True,
        about="have a score of `dnsbl.threshold` or more at a recipient"),
]


cdef inline uint32_t bit(int number) noexcept nogil:
    """A set of one."""
    return <uint32_t> 1 << number


cdef uint32_t tests_of(Stage stage) noexcept:
    """The tests of a stage, one bit each."""
    cdef uint32_t found = 0
    cdef int test
    for test in range(TEST_COUNT):
        if TEST_TABLE[test].stage == stage:
            found |= bit(test)
    return found


cdef uint32_t tests_on(Moment moment) noexcept:
    """The tests that see a line at a moment."""
    cdef uint32_t found = 0
    cdef int test
    for test in range(TEST_COUNT):
        if TEST_TABLE[test].moment == moment:
            found |= bit(test)
    return found


cdef uint32_t tests_of_our_own() noexcept:
    cdef uint32_t found = 0
    cdef int test
    for test in range(TEST_COUNT):
        if TEST_TABLE[test].own:
            found |= bit(test)
    return found


cdef uint32_t GREET_TESTS = tests_of(STAGE_GREET)
cdef uint32_t DEEP_TESTS = tests_of(STAGE_DIALOGUE)
cdef uint32_t OWN_TESTS = tests_of_our_own()
cdef uint32_t[MOMENTS] MOMENT_TESTS = [tests_on(NOT_ON_LINES), tests_on(ON_LINE), tests_on(ON_COMMAND),
                                       tests_on(ON_RECIPIENT)]


cdef object test_tuple(const TestRow* row):
    return Test(row.key.decode(), row.label.decode(), row.log_words.decode(), row.kind.decode(),
                "greet" if row.stage == STAGE_GREET else "dialogue", ("ignore", "enforce", "drop")[<int> row.action],
                row.ttl.decode(), row.about.decode(), bool(row.own))


cdef tuple test_tuples():
    cdef int test
    return tuple([test_tuple(&TEST_TABLE[test]) for test in range(TEST_COUNT)])


TESTS = test_tuples()
