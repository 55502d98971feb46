# The operator's settings in the form that the core needs. A Policy never changes; a reload creates a new one, and a
# session keeps the one that it began with.

cdef int64_t MICROSECONDS = 1000000

cdef enum:
    SITES = 256                     # more lists than this are a mistake in the configuration
    WEIGHT = 1000000


@cython.final
cdef class Lists:
    """The DNSBL sites, compiled: every distinct domain is queried once, whatever the number of its filters."""

    cdef List* lists
    cdef Site* sites
    cdef int list_count
    cdef int site_count
    cdef readonly tuple source
    cdef list kept              # owns what the C structs point to
    cdef uint8_t[::1] health

    def __init__(self, sites, shown, health=None, slots=None, int budget=LIST_IN_FLIGHT):
        cdef int at
        cdef bytes name, wire, mask, text
        self.source = (tuple(sites), tuple(sorted(shown.items())), tuple(sorted(slots.items())) if slots else ())
        self.kept = []
        domains = list(dict.fromkeys(domain for domain, _, _ in self.source[0]))
        if len(self.source[0]) > SITES or any(abs(weight) > WEIGHT for _, _, weight in self.source[0]):
            raise ValueError(f"more than {<int> SITES} sites, or a weight beyond {<int> WEIGHT}")
        self.lists = <List*> calloc(len(domains) + 1, sizeof(List))
        self.sites = <Site*> calloc(len(self.source[0]) + 1, sizeof(Site))
        if self.lists == NULL or self.sites == NULL:
            raise MemoryError
        self.list_count = len(domains)
        for at, domain in enumerate(domains):
            name = domain.encode()
            wire = dns_wire_name(domain)
            text = shown.get(domain, domain).encode()
            self.kept += [name, wire, text]
            self.lists[at].name = name
            self.lists[at].wire = <const uint8_t*> <const char*> wire
            self.lists[at].wire_size = len(wire)
            self.lists[at].shown = text
            if health is not None and domain in slots:
                self.health = health
                if slots[domain] % 8 or slots[domain] + <int> sizeof(Health) > self.health.shape[0]:
                    raise ValueError(f"no place {slots[domain]} for the health of a list")
                self.lists[at].health = <Health*> &self.health[<Py_ssize_t> slots[domain]]
            self.lists[at].budget = max(1, min(budget, DNS_IN_FLIGHT // <int> len(domains)))
            self.lists[at].shares = <Share*> calloc(SHARES, sizeof(Share))
            if self.lists[at].shares == NULL:
                raise MemoryError
            self.lists[at].is_dnswl = domain.lower().rstrip(".").endswith("dnswl.org")
        for at, (domain, octets, weight) in enumerate(self.source[0]):
            self.sites[at].list = domains.index(domain)
            self.sites[at].weight = weight
            if octets is not None:
                mask = octets
                if len(mask) != 128:
                    raise ValueError("a filter is four sets of 256 bits")
                self.kept.append(mask)
                self.sites[at].octets = <const uint8_t*> <const char*> mask
        self.site_count = len(self.source[0])

    def __dealloc__(self):
        cdef int at
        if self.lists != NULL:
            for at in range(self.list_count):
                free(self.lists[at].shares)
        free(self.lists)
        free(self.sites)

    def __eq__(self, other):
        return isinstance(other, Lists) and self.source == other.source

    def __hash__(self):
        return hash(self.source)


cdef dict ACTIONS = {
    "ignore": ACTION_IGNORE, "enforce": ACTION_ENFORCE, "drop": ACTION_DROP, "shadow": ACTION_ENFORCE}


cdef bytes mta_label(str path):
    """How the log names a socket."""
    _, private, name = path.rpartition("/private/")
    return f"private/{name}".encode() if private else os.fsencode(path)


cdef int action_number(action) except -1:
    return ACTIONS[action]


@cython.final
cdef class Policy:
    """All settings of a session (see core.pyi)."""

    cdef bytes hostname, teaser, greeting, mta_label
    cdef bytes mta_path
    cdef list access
    cdef AccessStep interfaces      # the server addresses where a client may pass; None: all
    cdef Prefix cache_prefix, count_prefix
    cdef bint counts_apart          # the two differ
    cdef int denylist_action
    cdef uint32_t enabled           # enabled tests, one bit each
    cdef int actions[TEST_COUNT]
    cdef int spared[TEST_COUNT + 1]  # for each test and the denylist: the action that shadow mode suppresses
    cdef bint shadow                # no client is rejected
    cdef int64_t ttl[TEST_COUNT]    # s; unused for DNSBL, where each answer has a TTL
    cdef uint32_t weighted          # scorers with a weight, one bit each
    cdef int32_t weights[SCORER_COUNT]
    cdef int32_t weights_below      # the sum of the negative ones
    cdef int32_t rcpt_many_from
    cdef int64_t min_ttl            # s: how long an ignored failure of a deep test counts as passed
    cdef int64_t greet_wait[2]      # µs, normal and in stress mode
    cdef int64_t command_time[2]    # µs
    cdef Lists lists
    cdef int32_t threshold, allow_threshold
    cdef int64_t dnsbl_min_ttl, dnsbl_max_ttl, dnsbl_timeout, dnsbl_try
    cdef uint32_t client_rate, network_rate     # connections within rate_time, 0: no limit
    cdef int64_t rate_time                      # µs
    cdef int32_t client_limit, pre_queue, post_queue, stress_on, stress_off
    cdef uint32_t line_limit
    cdef int32_t command_limit
    cdef bint helo_required, vrfy_disabled, soft_bounce, smtputf8, respectful, external_form
    cdef int tls_level
    cdef int32_t tls_sessions
    cdef object footer, forbidden, command_filter, ehlo_for
    cdef Targets targets            # None: clients that passed are handed off by descriptor
    cdef Targets continue_targets   # None: deep tests end with a 450
    cdef int64_t relay_idle, relay_time, continue_time      # µs
    cdef int32_t relay_limit
    cdef uint32_t settings          # their number in the history
    cdef OffenseRules rules         # None: the memory of offenses is not asked
    cdef bint responses_shadow      # the next keys only lead to log lines
    cdef int32_t defer_from, slow_from, doubtful_from   # scores; 0: never
    cdef int64_t slow_by            # µs
    cdef int32_t slow_limit         # sessions that are slowed at a time
    cdef int32_t doubtful_queue     # hand-offs of doubtful clients under way
    cdef bytes doubtful_path, doubtful_label
    cdef Targets doubtful_targets   # None: they are handed off by descriptor

    def __init__(self, *, str hostname, bytes teaser, bytes greeting, access, denylist_action,
                 tests, greet_wait, command_time, Lists lists, int threshold, int allowlist_threshold, dnsbl_min_ttl,
                 dnsbl_max_ttl, dnsbl_timeout, int client_limit, int pre_queue, int post_queue, str mta,
                 int line_limit, int command_limit, bint helo_required, bint vrfy_disabled, bint soft_bounce,
                 bint smtputf8, bint respectful, bint external_form, str tls_level,
                 int tls_sessions, footer, forbidden, command_filter, ehlo_for,
                 Targets targets=None, Targets continue_targets=None, relay_limit=1000, relay_idle=660,
                 relay_time=21600, continue_time=120, AccessStep interfaces=None, cache_prefix=(32, 128),
                 client_prefix=(32, 128), bint shadow=False, uint32_t client_rate=0, uint32_t network_rate=0,
                 rate_time=60, weights=None, int rcpt_many_from=20, uint32_t settings=0, OffenseRules rules=None,
                 responses=None):
        cdef int test
        self.hostname = hostname.encode()
        self.teaser = teaser
        self.greeting = greeting
        self.access = list(access)
        self.interfaces = interfaces
        prefix_set(&self.cache_prefix, cache_prefix)
        prefix_set(&self.count_prefix, client_prefix)
        self.counts_apart = tuple(cache_prefix) != tuple(client_prefix)
        self.shadow = shadow
        self.denylist_action = self.decide(DENYLIST, denylist_action)
        for test, (enabled, action, ttl) in enumerate(tests):
            self.enabled |= bit(test) if enabled else 0
            self.actions[test] = self.decide(test, action)
            self.ttl[test] = int(ttl)
        self.min_ttl = min(int(dnsbl_min_ttl), *(
            int(ttl) for test, (enabled, _, ttl) in enumerate(tests)
            if test != DNSBL and (enabled or not TESTS[test].own)))
        for test in range(SCORER_LISTS + 1, SCORER_COUNT):
            self.weights[test] = (weights or {}).get(SCORERS[test].key, 0)
            self.weighted |= bit(test) if self.weights[test] else 0
            self.weights_below += min(0, self.weights[test])
        self.rcpt_many_from = rcpt_many_from
        for test in range(2):
            self.greet_wait[test] = int(greet_wait[test] * MICROSECONDS)
            self.command_time[test] = int(command_time[test] * MICROSECONDS)
        self.lists = lists
        self.threshold = threshold
        self.allow_threshold = allowlist_threshold
        self.dnsbl_min_ttl = int(dnsbl_min_ttl)
        self.dnsbl_max_ttl = int(dnsbl_max_ttl)
        self.dnsbl_timeout = int(dnsbl_timeout * MICROSECONDS)
        # A try lasts about a second, and a whole number of tries fills the time exactly.
        self.dnsbl_try = self.dnsbl_timeout // max(2, self.dnsbl_timeout // MICROSECONDS)
        self.client_limit = client_limit
        self.client_rate = client_rate
        self.network_rate = network_rate
        self.rate_time = int(rate_time * MICROSECONDS)
        self.pre_queue = pre_queue
        self.post_queue = post_queue
        self.stress_on = <int32_t> (<int64_t> pre_queue * 9 // 10)
        self.stress_off = <int32_t> (<int64_t> pre_queue * 7 // 10)
        self.mta_path = os.fsencode(mta)
        self.mta_label = mta_label(mta)
        if len(self.mta_path) > 107:
            raise ValueError(f"the socket's path is longer than 107 bytes: {mta}")
        if not 0 < line_limit <= LINE_LIMIT:
            raise ValueError(f"a line limit of {line_limit} is not between 1 and {<int> LINE_LIMIT}")
        self.line_limit = line_limit
        self.command_limit = command_limit
        self.helo_required = helo_required
        self.vrfy_disabled = vrfy_disabled
        self.soft_bounce = soft_bounce
        self.smtputf8 = smtputf8
        self.respectful = respectful
        self.external_form = external_form
        self.tls_level = tls_level_number(tls_level)
        self.tls_sessions = tls_sessions
        self.footer = footer
        self.forbidden = forbidden
        self.command_filter = command_filter
        self.ehlo_for = ehlo_for
        self.targets = targets
        self.continue_targets = continue_targets
        self.relay_limit = relay_limit
        self.relay_idle = int(relay_idle * MICROSECONDS)
        self.relay_time = int(relay_time * MICROSECONDS)
        self.continue_time = int(continue_time * MICROSECONDS)
        self.settings = settings
        self.rules = rules
        self.respond(responses or {})
        if targets is not None:
            self.mta_label = targets.labels

    cdef int respond(self, dict responses) except -1:
        """What follows from a score (score_responses.pyx)."""
        cdef str doubtful_to = responses.get("doubtful_to", "")
        self.responses_shadow = responses.get("shadow", False) or self.shadow
        self.defer_from = responses.get("defer_from", 0)
        self.slow_from = responses.get("slow_from", 0)
        self.slow_by = int(responses.get("slow_by", 1) * MICROSECONDS)
        self.slow_limit = max(1, min(self.pre_queue // 4, <int32_t> SLOW_SESSIONS))
        self.doubtful_from = responses.get("doubtful_from", 0)
        self.doubtful_queue = max(1, self.post_queue // 2)
        self.doubtful_targets = responses.get("doubtful_targets")
        self.doubtful_path = os.fsencode(doubtful_to)
        if len(self.doubtful_path) > 107:
            raise ValueError(f"the socket's path is longer than 107 bytes: {doubtful_to}")
        self.doubtful_label = mta_label(doubtful_to) if self.doubtful_targets is None else self.doubtful_targets.labels
        return 0

    cdef int decide(self, int test, action) except -1:
        """The action after a failed test, and the action without shadow mode."""
        cdef int number = action_number(action)
        if not self.shadow and action != "shadow":
            self.spared[test] = ACTION_IGNORE
            return number
        self.spared[test] = number
        return ACTION_IGNORE

    def keep_lists(self, Policy before):
        """Keep equal lists of the previous policy, so that a reload does not forget answers."""
        if self.lists == before.lists:
            self.lists = before.lists
