# The table of scorers. A client's score is the sum of their results: the DNS lists first, then what a session shows. A
# scorer has a weight, `[score] KEY`, 0 by default, and answers yes or no. What it found is evidence, which has the name
# KEY in the log, the events, `explain` and the view.
#
# To add a scorer: its number and its row here, and code in the hook of what it judges (HEARD_HOOKS), such as
# hello_evidence in score_helo.pyx. A weight in `[score]` follows from the row. For a new kind of evidence also a value
# of Heard, a hook in a new file that is included below, entries in HEARD_HOOKS and HEARD_SCORERS, and a call of
# scorers_hear where it is heard. Then `make build`, tests and a row in docs/score.md: docs/extending.md.

Scorer = namedtuple("Scorer", "key label about stage")


# The numbers of the scorers: one bit each in a session's evidence.
cdef enum:
    SCORER_LISTS            # the DNS lists, which have their own weights
    SCORER_HELO_ADDRESS
    SCORER_HELO_NOT_QUALIFIED
    SCORER_HELO_RESERVED
    SCORER_HELO_OURS
    SCORER_HELO_CLIENT_ADDRESS
    SCORER_NO_TLS
    SCORER_RCPT_MANY
    SCORER_RCPT_REJECTED
    SCORER_SEEN_ADDRESS
    SCORER_SEEN_NETWORK
    SCORER_SEEN_AS
    SCORER_COUNT


# What a scorer judges. For each there is an entry in HEARD_HOOKS and HEARD_SCORERS.
cdef enum Heard:
    HEARD_FROM_LISTS
    HEARD_HELLO             # the name in HELO or EHLO; the last one counts
    HEARD_MAIL              # the MAIL command; the last one counts
    HEARD_RECIPIENTS        # the number of recipients so far
    HEARD_REPLIES           # the MTA's replies in a relayed session, at its end
    HEARD_MEMORY            # not a text: the memory of offenses (score_seen.pyx)
    HEARD_KINDS


# The scorers that find evidence, one bit each, in a text or in the session. asked: the scorers with a weight; others
# may be in the result.
ctypedef uint32_t (*HeardHook)(Policy policy, const Session* session, uint32_t asked, const char* text,
                               size_t size) noexcept


cdef struct ScorerRow:
    const char* key         # in the configuration, the log, events, filters and metrics
    const char* label       # what is wrong, for the operator
    const char* reason      # the same in replies: nothing that tells spammers what to change; NULL: the label
    const char* about       # what the clients with this evidence do, for the documentation
    Heard heard
    Stage stage             # the stage from which on its result is final


# In the order of their numbers.
cdef ScorerRow[SCORER_COUNT] SCORER_TABLE = [
    ScorerRow(
        key="dnsbl", label="listed", reason=NULL, about="are on a DNS list",
        heard=HEARD_FROM_LISTS, stage=STAGE_GREET),
    ScorerRow(
        key="helo_address", label="HELO name is an address", reason=NULL,
        about="name an IP address in HELO or EHLO, with or without brackets",
        heard=HEARD_HELLO, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="helo_not_qualified", label="HELO name is not fully qualified", reason=NULL,
        about="do not name a fully qualified domain name in HELO or EHLO",
        heard=HEARD_HELLO, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="helo_reserved", label="HELO name is reserved", reason=NULL,
        about="name a reserved domain in HELO or EHLO, such as `localhost` or `example.com` (RFC 2606, RFC 6761)",
        heard=HEARD_HELLO, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="helo_ours", label="HELO name is ours", reason=NULL,
        about="use the host name or the address of this server in HELO or EHLO",
        heard=HEARD_HELLO, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="helo_client_address", label="HELO name contains the client's address", reason=NULL,
        about="have their own IP address in the name in HELO or EHLO, as hosts with dynamic addresses do",
        heard=HEARD_HELLO, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="no_tls", label="TLS not used", reason="poor reputation",
        about="send MAIL without TLS although STARTTLS was announced to them",
        heard=HEARD_MAIL, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="rcpt_many", label="too many recipients", reason=NULL,
        about="send `score.rcpt_many_from` or more RCPT commands in a session",
        heard=HEARD_RECIPIENTS, stage=STAGE_RELAY),
    ScorerRow(
        key="rcpt_rejected", label="recipients rejected", reason=NULL,
        about="send at least three recipients in a relayed session, of which the MTA rejects at least half",
        heard=HEARD_REPLIES, stage=STAGE_RELAY),
    ScorerRow(
        key="seen_address", label="poor reputation", reason="poor reputation",
        about="have committed offenses from this address in the past weeks",
        heard=HEARD_MEMORY, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="seen_network", label="poor reputation", reason="poor reputation",
        about="have neighbors in their network (/24, or /64 and /48) of which `seen_min` or more, and at least half, "
        "have committed offenses in the past weeks",
        heard=HEARD_MEMORY, stage=STAGE_DIALOGUE),
    ScorerRow(
        key="seen_as", label="poor reputation", reason="poor reputation",
        about="belong to an autonomous system of which ten times `seen_min` or more addresses, and at least "
        "`seen_as_share` percent, have committed offenses in the past months",
        heard=HEARD_MEMORY, stage=STAGE_DIALOGUE),
]

cdef HeardHook HEARD_HOOKS[HEARD_KINDS]
HEARD_HOOKS[:] = [NULL, hello_evidence, mail_evidence, recipients_evidence, replies_evidence, NULL]


cdef uint32_t scorers_of(Heard heard) noexcept:
    """The scorers that judge this kind of text, one bit each."""
    cdef uint32_t found = 0
    cdef int scorer
    for scorer in range(SCORER_COUNT):
        if SCORER_TABLE[scorer].heard == heard:
            found |= bit(scorer)
    return found


cdef uint32_t[HEARD_KINDS] HEARD_SCORERS = [
    scorers_of(HEARD_FROM_LISTS), scorers_of(HEARD_HELLO), scorers_of(HEARD_MAIL), scorers_of(HEARD_RECIPIENTS),
    scorers_of(HEARD_REPLIES), scorers_of(HEARD_MEMORY)]


cdef inline bint scorer_is_final(int scorer, const Session* session) noexcept nogil:
    """Whether this scorer has heard what it judges, in a stage in which its result is final."""
    return (session.stage >= <int> SCORER_TABLE[scorer].stage
            and session.heard & bit(<int> SCORER_TABLE[scorer].heard) != 0)


cdef tuple scorer_tuples():
    cdef const ScorerRow* row
    cdef int scorer
    cdef list found = []
    for scorer in range(SCORER_COUNT):
        row = &SCORER_TABLE[scorer]
        found.append(Scorer(row.key.decode(), row.label.decode(), row.about.decode(),
                            "greet" if row.stage == STAGE_GREET else
                            "dialogue" if row.stage == STAGE_DIALOGUE else "relay"))
    return tuple(found)


SCORERS = scorer_tuples()

include "score_helo.pyx"
include "score_session.pyx"
