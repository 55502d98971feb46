# One recorded session under other settings: the rules of session.pyx, greet.pyx and smtp_engine.pyx, with what is
# known about it.

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


cdef inline bint judge_limited(const JudgeRules* rules, const HistoryRecord* record, Judged* judged) noexcept nogil:
    """A client has too many connections. True: that is the result. Shadow mode would have let it go on, but what it
    then does is not recorded if it was turned away."""
    if not rules.shadow:
        judged_as(judged, JUDGED_BUSY, 421)
        return True
    if record.outcome == OUTCOME_BUSY:
        judged_unknown(judged, WHY_LIMIT)
        return True
    return False


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
    if marks & MARK_CLIENT_LIMIT and judge_limited(rules, record, judged):
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
    if marks & MARK_RATE_LIMIT and judge_limited(rules, record, judged):
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
    judged.scored = rules.site_count == 0 and facts.recipient     # else no scorer has heard anything
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
