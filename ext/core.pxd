# Struct layouts and state enums of the core. The functions are in the parts that core.pyx includes;
# the Python interface is documented in core.pyi.

from cpython.ref cimport PyObject
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


# ---- address.pyx

# An endpoint. An IPv4 address fills the first four bytes; IPv4-mapped IPv6 is IPv4 here (reference 2.8).
cdef struct Address:
    uint8_t ip[16]          # network byte order; unused bytes are zero
    uint16_t port           # host byte order
    uint8_t family          # 4 or 6


# Addresses that share their first bits count as one client.
cdef struct Prefix:
    uint8_t ipv4            # bits, 32: the whole address
    uint8_t ipv6            # bits, 128: the whole address


# The beginning of each entry that is kept per client address; `AddressTable` finds it.
cdef struct AddressEntry:
    AddressEntry* next      # in the bucket
    uint64_t hash
    Address address         # the port is 0


# ---- networks.pyx

# An address of either family as a number; an IPv4 address fills the lowest 32 bits.
cdef struct Ip:
    uint64_t high
    uint64_t low


# Addresses first..last, both included, that a rule of a network table matches.
cdef struct NetworkRange:
    Ip first
    Ip last
    int32_t rule            # its position in the file: the first match wins
    int32_t result


cdef struct NetworkRanges:
    NetworkRange* items
    Py_ssize_t count
    Py_ssize_t capacity


# The addresses that an if-block of a network table, or a single pattern, matches: disjoint ranges in ascending order.
cdef struct NetworkScope:
    Ip[34] firsts           # IF_DEPTH + 2
    Ip[34] lasts
    int count
    uint8_t family          # 4 or 6; 0: both, each from 0 to its end
    Py_ssize_t line


# Ranges that are compiled for a search: segment i of a family reaches from its first address to before that of i + 1.
cdef struct NetworkSegments:
    uint32_t* ipv4_firsts
    int32_t* ipv4_results           # of a range; -1: the segment is in none
    Py_ssize_t ipv4_count
    Ip* ipv6_firsts
    int32_t* ipv6_results
    Py_ssize_t ipv6_count


# A compiled network table.
# find() is its lookup from C: int32_t find(self, const Address* address) noexcept nogil
cdef class NetworkTable:
    cdef readonly list results
    cdef readonly list warnings
    cdef int32_t rules
    cdef NetworkSegments segments   # results: index into `results`

    cdef int32_t find(self, const Address* address) noexcept nogil


# ---- dns_packet.pyx

cdef enum:
    DNS_ADDRESSES = 32      # kept of one answer: more do not fit into a datagram of 512 bytes
    DNS_NAME_TEXT = 256     # bytes for a name as text, with the NUL


cdef enum DnsVerdict:
    DNS_OURS                # the answer to our query, whatever its rcode
    DNS_NOT_OURS            # to be ignored: the true answer may still come
    DNS_MALFORMED


# The answer to an A query. TTLs are in seconds; -1: the record is missing.
cdef struct DnsAnswer:
    uint32_t[DNS_ADDRESSES] addresses   # network byte order
    uint8_t count
    uint8_t rcode
    bint truncated          # ask again over TCP; no records were read
    int32_t ttl             # the smallest of the A records
    int32_t soa_ttl         # the smallest of the SOA records in the authority section
    int32_t negative_ttl    # the smaller of soa_ttl and SOA MINIMUM (RFC 2308 5)


# ---- proxy_header.pyx

cdef enum ProxyState:
    PROXY_INCOMPLETE        # valid so far
    PROXY_MALFORMED
    PROXY_CLIENT            # it names the client and the server
    PROXY_LOCAL             # a connection of the load balancer's own


cdef struct ProxyHeader:
    uint32_t length         # bytes
    Address client
    Address server
    const char* problem     # of a malformed header


# ---- timers.pyx

cdef enum TimerKind:
    TIMER_GREET             # the greet wait is over
    TIMER_COMMAND           # the time to receive one command line is over
    TIMER_HANDOFF           # the MTA did not accept the client
    TIMER_CONFIRM           # find the clients that the MTA has accepted
    TIMER_MTA               # the MTA's socket stayed full; its queue has the clients that wait for the MTA
    TIMER_MTA_RETRY         # try the full socket again
    TIMER_QUERY             # one try of a DNS query is over
    TIMER_LOOKUP            # forget a client's DNSBL answers
    TIMER_ROTATE            # replace the oldest DNS socket
    TIMER_ACCEPT            # accept again after descriptors ran out
    TIMER_DRAIN             # the time to finish after SIGTERM is over
    TIMER_RELAY             # an MTA does not answer a connect, a relay is idle, or a side does not end
    TIMER_RELAY_TOTAL       # a relay has lasted too long; part of Relay
    TIMER_CONTINUE          # an MTA does not answer for a session that continues there
    TIMER_PROXY             # the time for a PROXY header is over
    TIMER_RATE              # the minute of a client's or a network's connections is over
    TIMER_CLUSTER           # a packet to the cluster process has been gathered for long enough
    TIMER_SLOW              # the reply to a doubtful client has waited for long enough


# Timers of one kind and duration expire in the order in which they were armed: a FIFO without searching.
cdef struct TimerQueue:
    Timer* head
    Timer* tail
    TimerQueue* next
    int64_t duration        # µs
    TimerKind kind


# The first member of the struct that it belongs to.
cdef struct Timer:
    Timer* next
    Timer* prev
    TimerQueue* queue       # NULL: not armed
    int64_t deadline        # µs, monotonic


# ---- watches.pyx

# A descriptor in an epoll set.
cdef struct Watch:
    uint32_t events         # 0: it is not in a set
    uint32_t slot           # of the WatchTable
    int32_t epoll           # the set
    int32_t fd


cdef struct WatchSlot:
    void* owner             # the object that its events are for; NULL: unused
    uint64_t released       # the batch in which its last registration ended
    uint32_t generation     # counts its registrations
    uint32_t next_free


# ---- smtp_lines.pyx

cdef enum Finding:
    FOUND_BARE_NEWLINE = 0x01       # LF without CR before it
    FOUND_TOO_LONG = 0x02           # more bytes than the limit before the line ended
    FOUND_NUL = 0x04
    FOUND_CONTROL = 0x08            # another control character than NUL or TAB
    FOUND_HEADER_LABEL = 0x10       # the word is not a command and looks like "Subject:"
    FOUND_BAD_UTF8_LINE = 0x20
    FOUND_BAD_UTF8_WORD = 0x40      # the word is not a command and not UTF-8
    FOUND_MORE = 0x80               # bytes of this feed follow the line


# The commands in the dummy engine's table, and the two other values of `where` in the log (reference 5.3).
cdef enum:
    AT_CONNECT
    CMD_UNIMPLEMENTED
    CMD_HELO
    CMD_EHLO
    CMD_STARTTLS
    CMD_XCLIENT
    CMD_XFORWARD
    CMD_AUTH
    CMD_MAIL
    CMD_RCPT
    CMD_DATA
    CMD_BDAT
    CMD_RSET
    CMD_NOOP
    CMD_VRFY
    CMD_ETRN
    CMD_QUIT


cdef struct Line:
    const char* text        # without its CRLF or LF; valid until the next call
    uint32_t length
    uint32_t word           # where the first word begins
    uint32_t word_length
    uint32_t findings       # Finding bits
    int command             # one of the above


# The beginning of a line that was incomplete at the end of an earlier feed.
cdef struct LineState:
    char* held              # NULL: nothing is held
    uint32_t length
    uint32_t capacity


# ---- dnsbl.pyx

cdef enum ReplyState:
    REPLY_NONE              # not queried, or no longer kept
    REPLY_ASKED
    REPLY_LISTED
    REPLY_NOT_LISTED
    REPLY_FAILED            # timeout, SERVFAIL, or an answer that is not a listing


# The answer of one list for one client.
cdef struct Reply:
    uint32_t kept_until     # s, monotonic: queried again after this
    uint32_t valid_until    # s, monotonic: from the list's TTL; 0: the TTL is missing
    uint32_t answered       # s, monotonic
    uint8_t state           # ReplyState
    uint8_t count
    uint8_t timed_out
    uint8_t unasked         # not queried, for lack of room or memory: nothing is known about the client
    uint32_t one            # the address, in network byte order, if count is 1
    uint32_t* many          # the addresses if count is above 1
    Query* query            # the query while REPLY_ASKED


# All lists' answers for one client, shared by its sessions and kept a while after them (reference 4.2).
cdef struct Lookup:
    Timer timer             # first: armed while no session holds it
    AddressEntry entry
    PyObject* lists         # the lists of these answers; a reference is held
    List* lists_of          # the same, for the counters
    Session* waiting        # sessions that hold it
    bint detached           # no longer in the table
    uint32_t network        # keyed hash of the client's network: see NETWORK_IPV4
    uint32_t sessions
    uint16_t pending
    uint16_t count
    Reply replies[1]        # `count` of them


# How a query counts for its list's budget.
cdef enum Place:
    PLACE_NONE
    PLACE_WAITING           # no room yet: in the queue of its network
    PLACE_GRANTED           # counted in List.in_flight
    PLACE_ABANDONED         # no session waits for the answer: counted in List.abandoned, and never sent again


# The queries to one list about the clients of one network. Networks with equal hashes share one.
cdef struct Share:
    Query* head             # queries that wait for room, the oldest first
    Query* tail
    Share* next             # in the list's round of networks
    uint32_t in_flight      # queries that have room
    bint in_round


# One query, waiting or pending.
cdef struct Query:
    Timer timer             # first: ends one try
    Query* next             # in its bucket, or in its network's queue
    Query* prev             # in its network's queue
    Query* unsent_next      # in the list of queries to send; it may be in a queue at the same time
    Lookup* lookup
    int64_t deadline        # µs, monotonic
    int64_t try_time        # µs
    int64_t asked           # µs, monotonic: when it was created
    int64_t sent            # µs, monotonic
    Resolver* resolver
    DnsSocket* socket       # NULL: not pending
    uint64_t token          # not 0: truncated, and repeated over TCP
    uint16_t list           # index into Lists
    uint16_t id
    uint8_t sends
    uint32_t refused        # marks of the resolvers that cannot answer
    uint8_t place           # Place
    bint waited             # for room: it had less time than others, so a missing answer is not a sign of a problem
    bint lined_up           # sent at the end of this batch


cdef struct DnsSocket:
    DnsSocket* next
    Resolver* resolver
    int fd                  # -1: closed
    Watch watch
    uint32_t in_flight
    bint retired            # sends nothing more, closed after its last answer


cdef struct Resolver:
    Resolver* next          # the one to query after a timeout: a ring
    DnsSocket* sockets
    uint32_t socket_count
    uint32_t address_size
    uint32_t mark           # its own bit; the 32nd and all after it share one
    int64_t answered        # µs, monotonic: when it last sent a real answer
    char address[128]       # sockaddr_storage


# One item of postscreen_dnsbl_sites (reference 4.1).
cdef struct Site:
    uint16_t list
    int32_t weight
    const uint8_t* octets   # 4 × 256 bits, or NULL: any answer


cdef enum HealthState:
    HEALTH_WELL
    HEALTH_SUSPECT          # queried, but its answers are ignored until it has been probed
    HEALTH_OUT              # not queried; its answers are ignored


# The health of a list, in memory that all processes share (fastscreen/dns/health/state.py).
cdef struct Health:
    uint64_t key            # of its domain; 0: unused
    uint32_t state          # HealthState
    uint32_t since          # s, monotonic: earlier answers are ignored
    uint32_t why            # table.py's own
    uint32_t seen_well      # the same
    uint32_t calm_until     # s, monotonic: not suspected again before this time, by any process


cdef enum:
    LATENCY_BUCKETS = 80
    NETWORK_WORDS = 1024    # of the filter of networks that were counted: 65,536 bits


cdef struct List:
    const char* name
    const uint8_t* wire     # the name in wire format, with its root label
    uint16_t wire_size
    const char* shown       # the name in SMTP replies (postscreen_dnsbl_reply_map)
    bint is_dnswl           # 127.0.0.255 means 'over quota'
    uint32_t warned         # s, monotonic: when its last warning was logged
    uint32_t unlogged       # warnings since then
    uint64_t asked, answered, listed, timed_out, errors
    uint64_t unique         # clients that no other list knows
    Health* health          # NULL: it is not monitored, and always counts
    double usual            # the usual share of its answers that list the client
    double surprise         # the evidence for a different share so far
    uint32_t seen           # the number of answers that `usual` is based on
    uint32_t window_until   # s, monotonic: counted networks may be counted again after this
    uint32_t networks       # how many were counted
    uint64_t[NETWORK_WORDS] had_say     # a bit for the hash of each
    int64_t unheard_since   # µs, monotonic: of its first query since its last answer; 0: no query was sent
    uint32_t budget         # pending queries at a time
    uint32_t in_flight      # pending queries with a waiting session
    uint32_t abandoned      # pending queries without one
    Share* shares           # SHARES of them, by the hash of the network
    Share* round_head       # networks that have a waiting query and may send it, in turn
    Share* round_tail
    uint32_t latency[LATENCY_BUCKETS]   # answers by their latency: see snapshot.pyx


cdef struct Score:
    bint unsettled          # a list was not queried, or is suspect: its TTL is 0
    int64_t total
    int64_t lowest          # the lowest possible total once every list and scorer has a result
    int64_t highest         # the total if every blocklist that is suspect, or was not queried, counted
    int64_t ttl             # s, of a pass of the lists
    int32_t top             # the list to name, -1: none
    int32_t scorer          # the heaviest against the client


# ---- session.pyx

# The tests, in the order of the cache record (reference 2.4), which has room for 15; test_table.pyx describes each.
cdef enum:
    PREGREET
    DNSBL
    PIPELINING
    NON_SMTP_COMMAND
    BARE_NEWLINE
    SCORE
    TEST_COUNT
    DENYLIST = TEST_COUNT   # not a test: an index after them, where something is kept for each test and the denylist


cdef enum Action:
    ACTION_IGNORE
    ACTION_ENFORCE
    ACTION_DROP


cdef enum SessionFlag:
    IS_NEW = 1 << 0         # one of the stamps says 'never passed'
    DENYLIST_FAIL = 1 << 1
    VETOED = 1 << 2         # connected to an address where no client may pass (reference 2.3 step 7)
    NO_FORWARD = 1 << 3
    HUNG_UP = 1 << 4
    MTA_GONE = 1 << 5       # hand-off failed after a teaser: one command, then 421 (reference 8.5)
    CONCLUDED = 1 << 6      # PASS is logged and stored
    COUNTED_HANDOFF = 1 << 7
    HELD_FOR_MTA = 1 << 8   # watched while the MTA's socket is full
    TURNED_AWAY = 1 << 9    # counted as rejected
    IN_TLS = 1 << 10        # `fd` is the plaintext socket: a TLS process has the client
    CONTINUE_TRIED = 1 << 11    # an MTA was asked once; every further RCPT gets a 450
    UNSURE = 1 << 12        # the score reaches the threshold, or would; a further result could change it
    ASKS_CLUSTER = 1 << 13  # in its greet wait, and in its client's list of sessions that wait for the cluster
    TLS_ANNOUNCED = 1 << 14  # STARTTLS, in a reply to EHLO
    DEFERRED = 1 << 15      # for its score (score_responses.pyx); in shadow mode, it would be
    DOUBTFUL = 1 << 16      # passes to the MTA for doubtful clients
    SLOWED = 1 << 17        # counted in Screener.slowed
    SLOW_TOLD = 1 << 18     # the log has that it is slowed, or would be
    WAS_DEFERRED = 1 << 19  # for its score, in an earlier session, and has not passed the score test since
    BARRED = DENYLIST_FAIL | VETOED     # passes no test, whatever the results


cdef enum Stage:
    STAGE_GREET             # tests before the SMTP handshake
    STAGE_DIALOGUE          # tests after the SMTP handshake
    STAGE_MTA               # queued for the MTA
    STAGE_HANDED            # passed to the MTA, which has not confirmed yet
    STAGE_CONTINUE          # an MTA is asked about the client's first RCPT
    STAGE_RELAY             # relayed to an MTA, and from it
    STAGE_GONE              # freed at the end of this batch of events


# The reply to RCPT.
cdef enum Verdict:
    VERDICT_LATER           # 450 4.3.2: the tests are not over
    VERDICT_DENYLISTED      # 550 5.3.2
    VERDICT_PROTOCOL        # 550 5.5.1
    VERDICT_SCORE           # 550 5.7.1, or 450 where UNSURE: names what brought the score over the threshold


# Sessions of a network, if they are counted by a different prefix than that of the cache.
cdef struct Count:
    AddressEntry entry      # first
    uint32_t sessions


# One for each client address with a session (reference 2.2), or network (cache.prefix_*).
cdef struct Client:
    AddressEntry entry      # first
    uint32_t sessions
    uint32_t new_logged     # PASS NEW is logged once
    uint32_t relayed        # sessions of these that are relayed
    bint looked_up          # in the cache, for these sessions
    bint answered           # the cluster has answered
    int64_t asked           # µs, monotonic: when the cluster was asked; 0: never
    Session* asking         # those of the sessions that wait for its answer
    int64_t stamps[TEST_COUNT]  # s since 1970: when a pass ends; 0 never, 1 disabled, -1 not read (reference 7.1)


cdef struct Session:
    Timer timer             # first
    Session* next           # all sessions
    Session* prev
    Session* lookup_next    # sessions that share a Lookup
    Session* lookup_prev
    Session* asking_next    # sessions of the client that wait for the cluster
    Session* asking_prev
    Client* client
    Count* count            # NULL: counted with the client
    Lookup* lookup
    Dialogue* dialogue
    Relay* relay
    PyObject* policy        # the one it began with, also after a reload; a reference is held
    int64_t accepted        # µs, monotonic
    int64_t began           # µs, monotonic: start of the current tests
    int32_t fd              # -1: passed on
    int32_t mta             # -1, or the hand-off's socket, or the relay's
    uint32_t flags          # SessionFlag
    uint32_t todo           # tests that are needed, one bit each; never cleared by a test itself
    uint32_t failed         # tests that have failed: final
    uint32_t passed         # tests that have passed; of a deep test until something fails after all
    uint32_t done           # tests whose result is final; a deep test is skipped from here on
    uint32_t number         # from 1; its number in events
    int32_t score           # NO_SCORE until the lists have answered, or another scorer has found something
    int32_t lists_total     # the lists' part of it, what that could become at least, and at most
    int32_t lists_lowest
    int32_t lists_highest
    uint32_t evidence       # scorers that have found evidence, one bit each
    uint8_t stage           # Stage
    uint8_t verdict         # Verdict
    int16_t list            # that VERDICT_SCORE names; -1: none
    uint8_t scorer          # that VERDICT_SCORE names
    uint8_t heard           # what the scorers have heard of this session, one bit for each Heard
    uint8_t lists_open      # they reach the threshold, but what the session shows may still lower the score
    uint16_t recipients     # RCPT commands in the dummy engine
    uint8_t quiet           # a load balancer's own: not logged unless it does more than a health check
    uint8_t proxied         # for the history, see HistoryRecord
    uint8_t outcome         # HistoryOutcome, unless the last stage decides it
    uint8_t tls             # HistoryTls; from an accepted STARTTLS on
    Watch watch             # of `fd`, except while a relay reads it; of `mta` once the MTA was given the client
    uint32_t said           # the low half of the sequence of the event with the client's last line; 0: no line
    Address peer
    Address server
    # For the history, see HistoryRecord:
    uint16_t needed
    uint16_t made
    uint16_t found
    uint16_t reply
    uint16_t told           # `verdict` there
    uint16_t spared
    uint32_t marks          # HistoryMark, apart from those that are in `flags`
    uint32_t pass_seconds
    uint32_t[3] syn         # saved_syn.pyx
    HistoryPart* part       # NULL: nothing


# How a client speaks SMTP (dialect.pyx).
cdef struct Dialect:
    uint32_t traits         # DialectTrait
    int64_t replied         # µs, monotonic: the last reply
    uint8_t[32] delays      # commands, by the number of bits of their delay in µs


# The dummy engine's part of a session (reference 5).
cdef struct Dialogue:
    LineState lines
    char* helo              # NULL: none yet
    char* sender
    char* hello             # the last HELO or EHLO line, unchanged; NULL: no line, or it cannot be repeated
    char* mail              # the last MAIL line, the same
    Asking* asking          # NULL: no MTA is being asked
    char* refusal           # the MTA's reply to MAIL, including line ends; NULL: no MTA has refused it
    uint32_t refusal_length
    int64_t refused_until   # µs, monotonic: RCPT commands after this count for the command limit again
    uint32_t refused        # RCPT commands of this session that did not count
    uint64_t chunk          # bytes of a refused BDAT chunk that are still to come
    char* unsent            # replies that the client does not read
    uint32_t unsent_length
    uint32_t discarded      # EHLO keywords (bits of ehlo_keywords.py)
    uint32_t commands
    uint16_t received       # commands, for the history
    uint8_t where           # a command
    bint esmtp
    bint tls_failed         # STARTTLS was answered with 454
    char* held              # what was read, from a line that waits on; NULL: no line waits (score_responses.pyx)
    uint16_t held_length
    uint16_t slowed         # s that its lines have waited
    uint8_t slow_over       # no further line waits
    uint8_t waited          # the next line has waited
    uint8_t unjudged        # what is executed came while a line waited: it says nothing about pipelining
    Dialect dialect         # for the history


# ---- mta_relay.pyx and mta_continue.pyx

# The source of bytes; the descriptor of that side.
cdef enum Side:
    FROM_CLIENT
    FROM_MTA


cdef enum RelayState:
    RELAY_CONNECTING
    RELAY_ASKING            # a session continues: its commands are repeated to the MTA
    RELAY_FLOWING


# One direction of a relay. Unsent bytes are in `kept` or in the pipe, and nothing is read meanwhile.
cdef struct Flow:
    char* kept
    uint32_t length         # unsent bytes of `kept`, from `at` on
    uint32_t at
    uint32_t piped          # unsent bytes in the pipe
    int pipe[2]             # -1: none
    uint8_t ended           # its source has ended
    uint8_t shut            # its sink was shut down
    uint8_t lost            # its sink accepts nothing any longer: further bytes are discarded
    uint64_t moved          # bytes read


cdef enum:
    RELAY_RUNS = 8


# Commands of one kind, one after the other, that the MTA has not replied to yet.
cdef struct RelayRun:
    uint16_t times
    uint8_t command         # RelayCommand


# The beginning of a line.
cdef struct RelayLine:
    uint8_t size
    char text[40]


# What the history records of a relayed session (history_replies.pyx).
cdef struct RelayReplies:
    bint followed           # False: bytes are not looked at
    bint in_text            # the client sends a message
    bint has_recipient      # the MTA has accepted a recipient of it
    bint quit               # the client has sent QUIT
    uint16_t reply          # the last code, except to QUIT
    uint16_t accepted       # messages
    uint16_t rejected       # recipients and messages
    uint16_t recipients     # RCPT commands
    uint16_t answered       # of these, by the MTA
    uint16_t refused        # of these, with 5xx
    uint16_t run_count
    RelayRun runs[RELAY_RUNS]
    uint64_t chunk_end      # the client's bytes before this position are message text (BDAT)
    RelayLine command       # that the client is sending
    RelayLine said          # the same for the MTA's reply


cdef struct Relay:
    Timer total             # first
    Session* session
    Flow flows[2]           # by Side
    Watch watches[2]        # each side in the epoll set of relays
    uint32_t tried          # targets, one bit each
    int32_t problem         # errno of the last target that failed; 0: no target has failed
    int64_t began           # µs, monotonic
    int16_t target
    uint8_t state           # RelayState
    uint8_t continues       # the targets are those of continue_to
    uint8_t lingers         # the MTA has ended: the client has a moment to read the last bytes
    RelayReplies* replies   # NULL: nobody wants to know


# The commands that are repeated to an MTA, one after the other.
cdef enum AskStep:
    ASK_GREETING
    ASK_HELLO
    ASK_MAIL
    ASK_RCPT


cdef struct Asking:
    char* reply             # the received part of the current reply; REPLY_LIMIT bytes
    uint32_t length
    char* rcpt              # the client's line, without its end
    char* rest              # what the client sent after it
    uint32_t rest_length
    uint8_t step            # AskStep


cdef struct Listener:
    Listener* next
    int fd
    Watch watch
    bint wildcard           # the server's address differs from client to client
    Address address
    PyObject* trusted       # an AccessStep, a reference is held: peers that may send a PROXY header, or NULL
    int64_t header_time     # µs for that header


# ---- event_ring.pyx

# The kind of an event; event_ring.pyx has the names that the control socket uses.
cdef enum EventKind:
    EVENT_NONE
    EVENT_CONNECT           # number: the server's port
    EVENT_ALLOWLISTED
    EVENT_DENYLISTED
    EVENT_CACHED            # every pass is still valid: handed off at once; number: 1 if another host told so
    EVENT_BUSY              # rejected; number: see BUSY in event_ring.pyx; text: the same
    EVENT_BYPASSED          # handed off untested: the panic switch
    EVENT_GREET             # the greet wait begins; number: µs
    EVENT_PREGREET          # number: bytes; text: their beginning
    EVENT_LISTED            # list, number: the answer, as a number in network byte order
    EVENT_LIST_FAILED       # list; number: 1 timeout, 0 error
    EVENT_RANK              # number: the score
    EVENT_DIALOGUE          # the dummy engine begins
    EVENT_COMMAND           # text: the line; number: its findings
    EVENT_PIPELINING        # text: the early bytes
    EVENT_NON_SMTP_COMMAND  # text: the line
    EVENT_BARE_NEWLINE      # text: the line
    EVENT_LIMIT             # number: 1 time, 2 count, 3 length
    EVENT_REPLY             # text: the reply
    EVENT_PASSED            # number: 1 for the first time (PASS NEW)
    EVENT_HANDED            # the MTA has confirmed; number: µs that it took
    EVENT_HANDOFF_FAILED    # text: why
    EVENT_HANGUP            # number: µs since the current tests began
    EVENT_DISCONNECT        # number: µs since CONNECT
    EVENT_STRESS_ON         # number: sessions
    EVENT_STRESS_OFF
    EVENT_CONTINUED         # an MTA answered; text: its reply to the RCPT, or to MAIL if it refused that
    EVENT_CONTINUE_FAILED   # text: why
    EVENT_RELAYED           # a relay ended; number: bytes from the client; text: bytes to it
    EVENT_VETOED            # connected to an address where no client may pass
    EVENT_SPARED            # shadow mode; text: the reply that the client would have received
    EVENT_SCORE             # the score reaches the threshold at RCPT; number: the score; text: its parts
    EVENT_EVIDENCE          # number: the weight; text: the scorer and what it judged
    EVENT_SCORE_DEFERRED    # number: the score; text: its parts
    EVENT_DOUBTFUL          # passes to the MTA for doubtful clients; number: the score; text: the MTA
    EVENT_SLOWED            # from now on; number: the score
    EVENT_SESSION           # not an event: the state of a session; number: its age in µs, text: its last line
    EVENT_KINDS


# One record of the ring: two cache lines.
cdef struct Event:
    uint64_t sequence       # from 1; 0 while it is written
    int64_t time            # µs since 1970: of the batch of events
    int64_t number
    uint32_t session        # from 1, in its worker; 0: no session
    int32_t score           # NO_SCORE: not known
    uint32_t findings       # failed tests, one bit each
    uint16_t port
    int16_t list            # -1: none
    uint8_t kind            # EventKind
    uint8_t family          # 4, 6, 0: no address
    uint8_t stage           # Stage
    uint8_t length          # of the text
    uint8_t ip[16]
    char text[68]


# The header before the records.
cdef struct RingHeader:
    uint64_t version
    uint64_t capacity       # records
    uint64_t head           # sequence of the newest
    int64_t bypass_until    # µs since 1970, set from outside: until then every client is handed off untested
    uint64_t counts[64]     # by EventKind
    uint64_t turned_away    # sessions
    uint64_t busy[8]        # by the number of EVENT_BUSY
    uint64_t limits[4]      # by the number of EVENT_LIMIT
    uint64_t passed_new     # PASS NEW
    uint64_t rejected[2]    # recipients rejected temporarily, and permanently
    uint64_t ranks[12]      # by RANK_BOUNDS, the last one for scores above these
    int64_t rank_sum
    uint64_t evidence[32]   # sessions in which a scorer found something, by scorer


cdef enum FilterField:
    FIELD_SCORE
    FIELD_AGE
    FIELD_STAGE
    FIELD_KIND
    FIELD_FINDING
    FIELD_LIST
    FIELD_SESSION
    FIELD_PORT
    FIELD_NUMBER
    FIELD_NETWORK
    FIELD_TEXT


cdef enum FilterOperator:
    EQUAL
    BELOW
    AT_MOST
    ABOVE
    AT_LEAST


# value: a number, or a mask of kinds, stages or findings.
cdef struct FilterTerm:
    FilterField field
    FilterOperator operator
    bint negated
    int64_t value
    uint8_t family
    uint8_t first[16]
    uint8_t last[16]
    char text[64]
    uint8_t length


# ---- history_record.pyx

cdef enum:
    HISTORY_LISTS = 64          # lists whose answers a record has room for
    HISTORY_ANSWERS = 16        # addresses that they returned
    HISTORY_NAME = 63           # bytes of a HELO name


# How a session ended.
cdef enum HistoryOutcome:
    OUTCOME_LEFT            # before a verdict: the client left, time or commands ran out, or the worker stopped
    OUTCOME_HANDED_OFF      # passed to the MTA by descriptor
    OUTCOME_RELAYED         # connected through to an MTA from the beginning
    OUTCOME_CONTINUED       # connected through to an MTA after the deep tests, or the MTA has refused MAIL
    OUTCOME_DEFERRED        # told to come back: 4xx at RCPT, or disconnected with 421 because of a test
    OUTCOME_REJECTED        # failed a test, or denylisted: 5xx at RCPT, or disconnected with 521
    OUTCOME_BUSY            # turned away at connect for a limit: mark BUSY_*
    OUTCOME_FAILED          # the MTA could not be reached, or the screener lacked memory or descriptors
    OUTCOME_COUNT


cdef enum HistoryMark:
    MARK_ALLOWLISTED = 1 << 0       # access.list permits the client
    MARK_DENYLISTED = 1 << 1        # access.list rejects it
    MARK_CACHED = 1 << 2            # every pass was still valid: no test
    MARK_SHARED = 1 << 3            # another host of the cluster had passed it: all tests (and CACHED), or some
    MARK_BYPASSED = 1 << 4          # the panic switch was on
    MARK_VETOED = 1 << 5            # connected to an address where no client may pass
    MARK_SPARED = 1 << 6            # only shadow mode prevented a rejection; `spared` is its code
    MARK_UNSURE = 1 << 7            # the score could still have changed: 450 instead of 550
    MARK_NEW = 1 << 8               # PASS NEW
    MARK_PASSED = 1 << 9            # PASS NEW or PASS OLD, by tests or from the cache
    MARK_HUNG_UP = 1 << 10
    MARK_ESMTP = 1 << 11            # EHLO
    MARK_LISTS_ALLOW = 1 << 12      # the score reached dnsbl.allowlist_threshold
    MARK_LISTS_JUDGED = 1 << 13     # the greet wait was over, and the score was complete
    MARK_UNSETTLED = 1 << 14        # a list was not asked or suspected: the pass was not kept
    MARK_ANSWERS_CUT = 1 << 15      # lists returned more addresses than there is room for
    MARK_LISTS_CUT = 1 << 16        # more lists are configured than there is room for
    MARK_TIME_LIMIT = 1 << 17
    MARK_COUNT_LIMIT = 1 << 18
    MARK_LENGTH_LIMIT = 1 << 19
    MARK_CLIENT_LIMIT = 1 << 20     # too many connections of the client
    MARK_SERVER_PORTS = 1 << 21     # all server ports busy
    MARK_SCREENING_PORTS = 1 << 22  # all screening ports busy
    MARK_RATE_LIMIT = 1 << 23
    MARK_TURNED_AWAY = 1 << 24      # counted as rejected in the metrics
    MARK_STRESS = 1 << 25           # stress mode when the session began
    MARK_SCORE_DEFERRED = 1 << 26   # 450 because of its score, at its recipient
    MARK_DOUBTFUL = 1 << 27         # passed to the MTA for doubtful clients
    MARK_SLOWED = 1 << 28           # replies were delayed


cdef enum HistoryTls:
    HISTORY_TLS_NONE        # STARTTLS was not announced
    HISTORY_TLS_UNUSED      # announced
    HISTORY_TLS_USED        # another version
    HISTORY_TLS_12
    HISTORY_TLS_13
    HISTORY_TLS_FAILED      # STARTTLS, but the handshake was not completed


# One session, in a ring or in memory: five cache lines. On disk it is packed (history_record.pyx).
cdef struct HistoryRecord:
    uint64_t sequence       # from 1; 0 while it is written
    int64_t began           # µs since 1970
    int64_t ended           # µs since 1970
    uint64_t listed         # lists that list the client, one bit each, by number
    uint64_t doubtful       # lists that list it, but were suspect: their answer did not count
    uint64_t silent         # lists that failed, timed out, or were switched off
    uint64_t unasked        # lists that were not asked for lack of room, or had not answered when the client left
    uint32_t[16] answers    # list << 24 | last three bytes of the address 127.x.y.z as a number; by list
    uint8_t[16] client
    uint8_t[16] server
    uint16_t client_port
    uint16_t server_port
    uint8_t family          # 4 or 6
    uint8_t worker          # from 1
    uint8_t proxied         # 1: by a PROXY header
    uint8_t stage           # the last one: Stage
    uint8_t outcome         # HistoryOutcome
    uint8_t tls             # HistoryTls
    uint8_t answer_count
    uint8_t name_length
    uint16_t needed         # tests that the cache did not spare the client at connect, one bit each
    uint16_t made           # tests that were made, to their end or to the client's
    uint16_t found          # tests that found something, whatever the action
    uint16_t failed         # tests that count as failed at the end
    uint16_t reply          # code of the last reply of the screener, apart from the greeting; 0: none
    uint16_t verdict        # code of the reply to the last RCPT, or of the one that ended the session; 0: none
    uint16_t spared         # code that shadow mode prevented: one that ends the session, or else the last; 0: none
    uint16_t mta_reply      # code of the MTA's last reply, except to QUIT; 0: not relayed
    uint16_t mta_accepted   # messages that the MTA accepted
    uint16_t mta_rejected   # recipients and messages that it rejected (5xx)
    uint16_t commands       # in the dummy engine
    uint16_t recipients     # RCPT commands, in the dummy engine and of a relayed session
    uint32_t settings       # number of the settings: see history_record.pyx
    uint32_t marks          # HistoryMark
    uint32_t evidence       # scorers that found evidence, one bit each
    int32_t score           # NO_SCORE: not known
    int32_t lists_total     # the lists' part
    int32_t lists_lowest    # what it could have become
    int32_t lists_highest
    uint32_t pass_seconds   # how long a pass of the lists would have been valid
    uint32_t weight         # sessions that this record stands for; 1: only this one
    uint32_t dialect        # how it spoke SMTP to the dummy engine: dialect.pyx; 0: not at all
    uint32_t[3] syn         # its SYN packet: saved_syn.pyx; 0: not known
    uint16_t mta_recipients  # RCPT commands that the MTA answered
    uint16_t mta_refused    # of these, with 5xx
    uint32_t[3] reserved
    char[64] name           # the last HELO or EHLO name, NUL-padded


# What the history needs of a session and what is gone at its end, or seldom there.
cdef struct HistoryPart:
    uint64_t listed
    uint64_t doubtful
    uint64_t silent
    uint64_t unasked
    uint32_t[16] answers    # HISTORY_ANSWERS
    uint32_t dialect
    uint16_t commands
    uint16_t mta_reply      # of an MTA that refused MAIL
    uint16_t mta_rejected
    uint8_t answer_count
    uint8_t name_length
    char[63] name           # HISTORY_NAME


# ---- history_ring.pyx

# The header before the description of the settings, which is before the records.
cdef struct HistoryHeader:
    uint64_t version
    uint64_t head           # sequence of the newest record
    uint64_t tail           # sequence of the last one that the recorder has stored
    uint64_t lost           # records that were overwritten before it read them
    uint64_t sessions       # ended, recorded or not
    uint64_t generation     # of the settings; odd while they are written
    uint64_t settings_size  # bytes


# ---- offense_record.pyx

# An address, or a /64, in the record of a network. Weights are in 1/256, on their day (days since 1970).
cdef struct OffenseMember:
    uint32_t number         # of the address in its network
    uint16_t bad
    uint16_t good
    uint16_t bad_day
    uint16_t good_day


# The record of an AS.
cdef struct OffenseSums:
    uint32_t bad
    uint32_t good
    uint16_t bad_day
    uint16_t good_day


# What a record adds to the sums of an AS.
cdef struct OffenseChange:
    float bad
    float good


# What the record of a network says about one of its addresses.
cdef struct OffenseCount:
    float own_bad           # weights of the address itself
    float own_good
    int own_days            # since its last offense
    int bad                 # other addresses
    int known               # the same, good ones included
