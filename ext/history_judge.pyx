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
    cdef uint32_t looser            # scorers of the memory that would speak more often: evidence stays evidence
    cdef uint32_t stricter          # those that would speak less often
    cdef uint32_t unlike            # those of which neither is known
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
        rules.many_from = description.get("rcpt_many_from", 20)
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

    cdef int compare_memory(self, real, other) except -1:
        """Each: half-life, that of AS, least number of addresses, and share of an AS. Without these, they are alike."""
        cdef int number = 0, share = 0
        if not real or not other:
            return 0
        if real[0] != other[0]:
            self.unlike = MEMORY_SCORERS
            return 0
        number = (other[2] > real[2]) - (other[2] < real[2])
        share = (other[3] > real[3]) - (other[3] < real[3])
        self.looser = bit(SCORER_SEEN_NETWORK) if number < 0 else 0
        self.stricter = bit(SCORER_SEEN_NETWORK) if number > 0 else 0
        if real[1] != other[1] or number * share < 0:
            self.unlike = bit(SCORER_SEEN_AS)
        elif number + share:
            if number + share < 0:
                self.looser |= bit(SCORER_SEEN_AS)
            else:
                self.stricter |= bit(SCORER_SEEN_AS)
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
    cdef uint32_t remembered        # scorers of the memory that any settings have asked
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
        case.compare_memory(real.get("memory", ()), other.get("memory", ()))
        case.same_prefix = tuple(real["prefix"]) == tuple(other["prefix"])
        keys = ("tests", "weights", "denylist_action", "shadow", "continues", "threshold", "allowlist_threshold",
                "dnsbl_min_ttl", "dnsbl_max_ttl")
        case.same = (case.same_sites and case.same_prefix and all(real[key] == other[key] for key in keys)
                     and not weighted(&case.other) & (case.looser | case.stricter | case.unlike)
                     and (case.real.many_from == case.other.many_from
                          or not weighted(&case.other) & bit(SCORER_RCPT_MANY)))
        self.remembered |= weighted(&case.real) & MEMORY_SCORERS
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
        if case is None or happened == JUDGED_UNKNOWN or record.marks & MARK_SCORE_DEFERRED:
            # A client that was deferred for its score might have been admitted: that depends on the time.
            judged_unknown(&other, WHY_SETTINGS if case is None else
                           WHY_VERSION if happened == JUDGED_UNKNOWN else WHY_DIFFERENT)
            self.smear(&record, None)
            return self.count(&record, client, happened, &other, weight, number)
        judge_facts(&facts, &record, &case.real)
        facts.same_sites = case.same_sites
        facts.same_signs = case.same_signs
        facts.same_score = case.same_score
        facts.fewer_signs = case.fewer_signs
        evidence = self.evidence_of(&record, case, &cut)
        self.by_own(case, &facts, evidence, &real)
        if record.needed & ~case.real.enabled or not judge_agrees(&record, happened, &real):
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
        if case.real.many_from != case.other.many_from and facts.record.stage != STAGE_RELAY:
            evidence = evidence & ~bit(SCORER_RCPT_MANY) | facts.record.evidence & bit(SCORER_RCPT_MANY)
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
        """Play it by the others. What the memory of offenses would have said may be unknown: the result is known if it
        is the same for every answer."""
        cdef uint32_t unheard = weighted(&case.other) & unheard_memory(case, facts.record)
        cdef uint32_t part = unheard
        cdef Judged found
        self.by_tests(case, facts, needed, unknown, evidence & ~unheard, cut, judged)
        while part and judged.result != JUDGED_UNKNOWN:
            self.by_tests(case, facts, needed, unknown, evidence & ~unheard | part, cut, &found)
            judged_both(judged, &found, WHY_MEMORY, needed | unknown)
            part = (part - 1) & unheard
        return 0

    cdef int by_tests(self, JudgeCase case, JudgeFacts* facts, uint32_t needed, uint32_t unknown, uint32_t evidence,
                      bint cut, Judged* judged) except -1:
        """unknown: tests of which it is unknown whether they are needed: the result is known if it is the same for all
        of them."""
        cdef uint32_t asked = weighted(&case.other)
        cdef uint32_t unweighted = asked & ~weighted(&case.real)
        cdef bint unheard = unweighted & ~MEMORY_SCORERS and (cut or (
            unweighted & bit(SCORER_HELO_CLIENT_ADDRESS) and not prefix_is_whole(&self.mask, facts.record.family)))
        cdef Judged found
        cdef uint32_t part = unknown
        judge_session(&case.other, facts, needed | unknown, evidence & asked, unheard, judged)
        while part:
            part = (part - 1) & unknown
            judge_session(&case.other, facts, needed | part, evidence & asked, unheard, &found)
            if not judged_both(judged, &found, WHY_PASS, needed | unknown):
                break
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

    cdef uint32_t evidence_of(self, const HistoryRecord* record, JudgeCase case, bint* cut) noexcept:
        """The evidence of all scorers before the verdict, of those without a weight from what is in the record. cut:
        the name may be longer."""
        cdef Session session
        cdef uint32_t asked = weighted(&case.real) if record.made & bit(SCORE) else 0
        cdef uint32_t others = HEARD_SCORERS[<int> HEARD_HELLO] & ~asked
        cdef uint32_t found = record.evidence & asked
        cut[0] = False
        if not asked & bit(SCORER_NO_TLS) and sent_in_clear(record):
            found |= bit(SCORER_NO_TLS)
        if not asked & bit(SCORER_RCPT_MANY) or case.real.many_from != case.other.many_from:
            found &= ~bit(SCORER_RCPT_MANY)
            if record.recipients >= case.other.many_from:
                found |= bit(SCORER_RCPT_MANY)
        if record.stage == STAGE_RELAY:
            found &= ~(bit(SCORER_RCPT_MANY) | bit(SCORER_RCPT_REJECTED))   # judged at the end
        if not record.name_length:
            return found
        memset(&session, 0, sizeof(session))
        session.peer.family = session.server.family = record.family
        memcpy(session.peer.ip, record.client, 16)
        memcpy(session.server.ip, record.server, 16)
        cut[0] = record.name_length == HISTORY_NAME
        return found | others & hello_evidence(
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
        if facts.recipient and self.remembered & unheard_memory(case, facts.record):
            return 0            # it would look as if the memory had said nothing
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
        pair[0] = self.clients.number(<char*> client)
        pair[1] = self.patterns.number(found)
        if self.shown.find(<const uint8_t*> pair) == NULL and self.shown.add(<const uint8_t*> pair) == NULL:
            raise MemoryError
        return 0

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


cdef inline uint32_t unheard_memory(JudgeCase case, const HistoryRecord* record) noexcept nogil:
    """Scorers of the memory of which it is unknown whether they would have found evidence."""
    cdef uint32_t asked = weighted(&case.real) if record.made & bit(SCORE) else 0
    return MEMORY_SCORERS & (~asked | case.unlike | case.looser & ~record.evidence | case.stricter & record.evidence)


cdef bint judged_both(Judged* judged, const Judged* found, int why, uint32_t needed) noexcept nogil:
    """What is true of two results. False: they differ, so it is not known; needed: tests that may be passed or not."""
    if found.result != judged.result or found.to_mta != judged.to_mta:
        judged_unknown(judged, why)
        judged.unsure |= needed
        return False
    judged.unsure |= found.unsure | (found.earned ^ judged.earned) | (found.brief ^ judged.brief)
    if found.reply != judged.reply:
        judged.reply = -1
    return True


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
