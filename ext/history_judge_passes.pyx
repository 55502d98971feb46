# Passes that other settings make different from those of the real cache, per key of the cache: see JudgeKey.

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
