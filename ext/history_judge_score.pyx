# The lists' part of a recorded session's score under other settings: the rules of lookup_score in dnsbl.pyx.

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
