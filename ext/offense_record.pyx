# The memory of offenses (fastscreen/offenses/): its records, and the rules by which they are written and read.
#
# A record is about a network and has a member for each of its addresses that a session ended for. The key is a letter
# and the first bytes of the address:
#
#   "4"  3 bytes, an IPv4 /24; a member is an address, by its last byte
#   "6"  8 bytes, an IPv6 /64; a member is an address, by a hash of its last 8 bytes (4 bytes)
#   "w"  6 bytes, an IPv6 /48; a member is a /64, by its last 2 bytes
#   "a"  4 bytes, an AS by its number, most significant byte first: two sums, no members
#
# The value, all numbers little-endian: the version, the size of a member's number (0 for an AS), the count of members
# in 2 bytes; then each member: its number, its weights `bad` and `good` in 1/256, and the days since 1970 of the last
# of each. The sums of an AS are `bad` and `good` in 4 bytes each and their days.
#
# Days count, not sessions: an address that sends much would otherwise be bad for the few messages that were rejected,
# and an address could become good within an hour.
#
# A weight halves with each half-life. What is stored is the weight on its day; it decays when it is read, so nothing
# has to be written for that, and another half-life applies at once. A day in the future, left by a clock that was
# wrong, counts as today.

from libc.math cimport exp2

cdef enum:
    OFFENSE_VERSION = 1
    OFFENSE_HEADER = 4              # bytes
    OFFENSE_AS_SIZE = 16            # bytes, of the record of an AS
    OFFENSE_DAYS = 4096             # a weight of this age is 0
    OFFENSE_UNIT = 256              # the weight of a day with an offense, and of a day with an accepted message
    OFFENSE_BAD_MOST = 7 * 256      # less than twice OFFENSE_GOOD_MOST: with both every day, an address is not bad
    OFFENSE_GOOD_MOST = 4 * 256     # good conduct outweighs a few days with offenses, however long it lasted
    OFFENSE_WEAK = 64               # a day on which a client was handed off, and nothing more is known
    OFFENSE_WEAK_MOST = 2 * 256     # of such days
    OFFENSE_LEAST = 64              # what one offense weighs after two half-lives: less is not bad
    OFFENSE_KNOWN = 16              # the same for a day of OFFENSE_WEAK: less is not known
    OFFENSE_NETWORK_SIZE = 4 + 256 * 9  # bytes of the largest record
    OFFENSE_WIDE_MOST = 4           # /64s of a /48 that count in its AS: one customer often has all of them


# How a session counts in favor of a client.
cdef enum OffenseGood:
    OFFENSE_NOT_GOOD
    OFFENSE_HANDED_OFF              # the outcome is unknown
    OFFENSE_ACCEPTED                # the MTA accepted a message


cdef class OffenseRules:
    """See core.pyi."""

    cdef readonly int64_t half_life
    cdef readonly int64_t as_half_life
    cdef readonly int seen_min
    cdef readonly int as_share
    cdef readonly AsTable as_table
    cdef readonly int days
    cdef readonly int as_days
    cdef float[OFFENSE_DAYS] factors    # by age in days
    cdef float[OFFENSE_DAYS] as_factors

    def __init__(self, half_life=14 * 86400, int seen_min=3, AsTable as_table=None, as_half_life=90 * 86400,
                 int as_share=90):
        cdef int age
        for seconds in (half_life, as_half_life):
            if not 86400 <= seconds <= 3650 * 86400:
                raise ValueError(f"a half-life of {seconds} s")
        if seen_min < 1 or not 1 <= as_share <= 100:
            raise ValueError(f"at least {seen_min} addresses, or {as_share} % of an AS")
        self.half_life = half_life
        self.as_half_life = as_half_life
        self.as_share = as_share
        self.seen_min = seen_min
        self.as_table = as_table
        self.days = max(1, round(2 * half_life / 86400))
        self.as_days = max(1, round(2 * as_half_life / 86400))
        for age in range(OFFENSE_DAYS):
            self.factors[age] = <float> exp2(-age * 86400.0 / self.half_life)
            self.as_factors[age] = <float> exp2(-age * 86400.0 / self.as_half_life)

    cdef inline float weight(self, uint32_t stored, int today, int day) noexcept nogil:
        """What a stored weight is today."""
        cdef int age = max(0, today - day)
        return stored * self.factors[age] if age < OFFENSE_DAYS else 0

    cdef inline float as_weight(self, uint32_t stored, int today, int day) noexcept nogil:
        """The same for the sums of an AS."""
        cdef int age = max(0, today - day)
        return stored * self.as_factors[age] if age < OFFENSE_DAYS else 0


# ---- the layout

cdef inline uint32_t offense_number(const uint8_t* at, int size) noexcept nogil:
    cdef uint32_t number = 0
    cdef int index
    for index in range(size):
        number |= <uint32_t> at[index] << (8 * index)
    return number


cdef inline void offense_put(uint8_t* at, int size, uint32_t number) noexcept nogil:
    cdef int index
    for index in range(size):
        at[index] = <uint8_t> (number >> (8 * index))


cdef inline int offense_members(const uint8_t* value, size_t size) noexcept nogil:
    """How many members a record has; -1: it is not a record of a network."""
    cdef int count
    if size < OFFENSE_HEADER or value[0] != OFFENSE_VERSION or value[1] not in (1, 2, 4):
        return -1
    count = <int> offense_number(value + 2, 2)
    return count if size == OFFENSE_HEADER + <size_t> count * (value[1] + 8) else -1


cdef inline void offense_get(const uint8_t* value, int index, OffenseMember* member) noexcept nogil:
    cdef int size = value[1]
    cdef const uint8_t* at = value + OFFENSE_HEADER + index * (size + 8)
    member.number = offense_number(at, size)
    member.bad = <uint16_t> offense_number(at + size, 2)
    member.good = <uint16_t> offense_number(at + size + 2, 2)
    member.bad_day = <uint16_t> offense_number(at + size + 4, 2)
    member.good_day = <uint16_t> offense_number(at + size + 6, 2)


cdef inline void offense_set(uint8_t* value, int index, const OffenseMember* member) noexcept nogil:
    cdef int size = value[1]
    cdef uint8_t* at = value + OFFENSE_HEADER + index * (size + 8)
    offense_put(at, size, member.number)
    offense_put(at + size, 2, member.bad)
    offense_put(at + size + 2, 2, member.good)
    offense_put(at + size + 4, 2, member.bad_day)
    offense_put(at + size + 6, 2, member.good_day)


cdef inline int offense_room(int size) noexcept nogil:
    """How many members a record may have."""
    return 256 if size == 1 else 64 if size == 2 else 32


cdef inline uint32_t interface_hash(const uint8_t* low) noexcept nogil:
    """Of the last 8 bytes of an IPv6 address."""
    cdef uint64_t mixed
    memcpy(&mixed, low, 8)
    mixed = (mixed ^ mixed >> 33) * <uint64_t> 0xFF51AFD7ED558CCD
    mixed = (mixed ^ mixed >> 33) * <uint64_t> 0xC4CEB9FE1A85EC53
    return <uint32_t> (mixed ^ mixed >> 33)


cdef inline size_t offense_key(const uint8_t* ip, char kind, uint8_t* key, uint32_t* number) noexcept nogil:
    """The key of the record of an address's network, and the address's number in it. Return the size of the key."""
    key[0] = <uint8_t> kind
    if kind == c"4":
        memcpy(key + 1, ip, 3)
        number[0] = ip[3]
        return 4
    if kind == c"6":
        memcpy(key + 1, ip, 8)
        number[0] = interface_hash(ip + 8)
        return 9
    memcpy(key + 1, ip, 6)
    number[0] = <uint32_t> ip[6] | <uint32_t> ip[7] << 8
    return 7


cdef inline size_t offense_as_key(uint32_t number, uint8_t* key) noexcept nogil:
    cdef int index
    key[0] = c"a"
    for index in range(4):
        key[1 + index] = <uint8_t> (number >> (24 - 8 * index))
    return 5


# ---- reading

cdef inline bint offense_is_bad(float bad, float good) noexcept nogil:
    return bad >= OFFENSE_LEAST - 0.5 and bad > 2 * good


cdef inline bint offense_is_good(float bad, float good) noexcept nogil:
    """A good delivery history: nothing that neighbors did counts."""
    return good >= 2 * OFFENSE_UNIT and good > bad


cdef bint offense_count(const uint8_t* value, size_t size, uint32_t own, OffenseRules rules, int today,
                        OffenseCount* count) noexcept nogil:
    """Look for an address, and count its neighbors. False: this is not a record of a network."""
    cdef int members = offense_members(value, size)
    cdef int index
    cdef float bad, good
    cdef OffenseMember member
    memset(count, 0, sizeof(OffenseCount))
    for index in range(members):
        offense_get(value, index, &member)
        bad = rules.weight(member.bad, today, member.bad_day)
        good = rules.weight(member.good, today, member.good_day)
        if member.number == own:
            count.own_bad = bad
            count.own_good = good
            count.own_days = max(0, today - member.bad_day)
        elif offense_is_bad(bad, good):
            count.bad += 1
            count.known += 1
        elif bad >= OFFENSE_KNOWN - 0.5 or good >= OFFENSE_KNOWN - 0.5:
            count.known += 1
    return members >= 0


# ---- writing

cdef void offense_add_to(OffenseMember* member, uint32_t bad, int good, int today, OffenseRules rules,
                         OffenseChange* change) noexcept nogil:
    """A session, or several of one turn. change: what an AS gets, so that each address counts there once: as bad when
    it has committed an offense and is bad now, as good when it has done well and is not."""
    cdef float bad_before = rules.weight(member.bad, today, member.bad_day)
    cdef float good_before = rules.weight(member.good, today, member.good_day)
    cdef bint was_bad = offense_is_bad(bad_before, good_before)
    cdef bint was_good = member.good and not was_bad
    cdef float of_bad = OFFENSE_UNIT, of_good = OFFENSE_UNIT
    cdef bint more_good = offense_add_good(member, good, good_before, today, was_good, &of_good, rules)
    cdef float sum
    memset(change, 0, sizeof(OffenseChange))
    bad = min(bad, <uint32_t> OFFENSE_UNIT)
    if bad:
        if was_bad:
            of_bad -= rules.as_weight(OFFENSE_UNIT, today, member.bad_day)
        if member.bad and member.bad_day == today:
            sum = max(bad_before, <float> bad)
        else:
            sum = min(bad_before + bad, <float> OFFENSE_BAD_MOST)
        member.bad = <uint16_t> (sum + 0.5)
        member.bad_day = <uint16_t> today
    if offense_is_bad(rules.weight(member.bad, today, member.bad_day),
                      rules.weight(member.good, today, member.good_day)):
        change.bad = of_bad if bad else 0
    elif more_good:
        change.good = of_good


cdef bint offense_add_good(OffenseMember* member, int good, float before, int today, bint was_good, float* change,
                           OffenseRules rules) noexcept nogil:
    """Add good conduct, once per day. change: reduced by what an AS has of it already. False: nothing is added."""
    if good == OFFENSE_NOT_GOOD or good == OFFENSE_HANDED_OFF and member.good and member.good_day == today:
        return False
    if good == OFFENSE_HANDED_OFF and before >= OFFENSE_WEAK_MOST:
        return False
    if was_good:
        change[0] -= rules.as_weight(OFFENSE_UNIT, today, member.good_day)
    if good == OFFENSE_HANDED_OFF:
        before = min(before + OFFENSE_WEAK, <float> OFFENSE_WEAK_MOST)
    elif member.good and member.good_day == today:
        before = max(before, <float> OFFENSE_UNIT)
    else:
        before = min(before + OFFENSE_UNIT, <float> OFFENSE_GOOD_MOST)
    member.good = <uint16_t> (before + 0.5)
    member.good_day = <uint16_t> today
    return True


cdef inline float offense_total(const OffenseMember* member, OffenseRules rules, int today) noexcept nogil:
    return rules.weight(member.bad, today, member.bad_day) + rules.weight(member.good, today, member.good_day)


cdef int offense_lightest(const uint8_t* value, int count, OffenseRules rules, int today) noexcept nogil:
    """Which member goes when there is no room: the lightest, of equals the oldest."""
    cdef OffenseMember member
    cdef int index, day, found = 0, oldest = 0
    cdef float total, least = 0
    for index in range(count):
        offense_get(value, index, &member)
        total = offense_total(&member, rules, today)
        day = max(member.bad_day, member.good_day)
        if index == 0 or total < least or total == least and day < oldest:
            found, least, oldest = index, total, day
    return found


cdef void offense_limit(const uint8_t* value, int count, int own, bint is_full, int today, OffenseRules rules,
                        OffenseChange* change) noexcept nogil:
    """Whoever has a /48 has 65536 /64s at no cost, and could make a whole AS bad or good. So few of them count there,
    and none that takes the place of another, which has counted."""
    cdef OffenseMember member
    cdef float bad, good
    cdef int index, bad_ones = 0, good_ones = 0
    if value[1] != 2 or change.bad == 0 and change.good == 0:
        return
    for index in range(count):
        if index == own:
            continue
        offense_get(value, index, &member)
        bad = rules.weight(member.bad, today, member.bad_day)
        good = rules.weight(member.good, today, member.good_day)
        if offense_is_bad(bad, good):
            bad_ones += 1
        elif good >= OFFENSE_KNOWN - 0.5:
            good_ones += 1
    if is_full or bad_ones >= OFFENSE_WIDE_MOST:
        change.bad = 0
    if is_full or good_ones >= OFFENSE_WIDE_MOST:
        change.good = 0


def offense_add(value, int size, uint32_t number, uint32_t bad, int good, int today, OffenseRules rules):
    cdef uint8_t[OFFENSE_NETWORK_SIZE] record
    cdef OffenseMember member
    cdef OffenseChange change
    cdef int index, count = 0
    cdef bint is_full = False
    cdef bytes before
    if size not in (1, 2, 4) or not 0 <= today <= 0xFFFF:
        raise ValueError(f"a member's number of {size} bytes, or day {today}")
    record[0] = OFFENSE_VERSION
    record[1] = <uint8_t> size
    if value is not None:
        before = value
        count = offense_members(<const uint8_t*> <const char*> before, len(before))
        if count < 0 or (<const uint8_t*> <const char*> before)[1] != size or count > offense_room(size):
            count = 0               # not a record: begin again
        else:
            memcpy(record, <const char*> before, len(before))
    for index in range(count):
        offense_get(record, index, &member)
        if member.number == number:
            break
    else:
        index = count
        is_full = count == offense_room(size)
        if is_full:
            index = offense_lightest(record, count, rules, today)
        else:
            count += 1
        memset(&member, 0, sizeof(member))
        member.number = number
    offense_add_to(&member, bad, good, today, rules, &change)
    offense_set(record, index, &member)
    offense_limit(record, count, index, is_full, today, rules, &change)
    offense_put(record + 2, 2, count)
    return (<char*> record)[:OFFENSE_HEADER + count * (size + 8)], change.bad, change.good


cdef bint offense_as_sums(const uint8_t* value, size_t size, OffenseSums* sums) noexcept nogil:
    """False: this is not a record of an AS."""
    if size != OFFENSE_AS_SIZE or value[0] != OFFENSE_VERSION or value[1]:
        return False
    sums.bad = offense_number(value + 4, 4)
    sums.good = offense_number(value + 8, 4)
    sums.bad_day = <uint16_t> offense_number(value + 12, 2)
    sums.good_day = <uint16_t> offense_number(value + 14, 2)
    return True


cdef inline uint32_t offense_sum(float before, float more) noexcept nogil:
    """Never below 0, and never beyond what there is room for."""
    return <uint32_t> min(max(before + more, <float> 0) + 0.5, <float> 0xFFFFFF00)


def offense_add_as(value, float bad, float good, int today, OffenseRules rules):
    cdef uint8_t[OFFENSE_AS_SIZE] record
    cdef OffenseSums sums
    cdef bytes before = b"" if value is None else value
    if not 0 <= today <= 0xFFFF:
        raise ValueError(f"day {today}")
    memset(&sums, 0, sizeof(sums))
    memset(record, 0, sizeof(record))
    offense_as_sums(<const uint8_t*> <const char*> before, len(before), &sums)
    if bad > 0:
        sums.bad = offense_sum(rules.as_weight(sums.bad, today, sums.bad_day), bad)
        sums.bad_day = <uint16_t> today
    if good > 0:
        sums.good = offense_sum(rules.as_weight(sums.good, today, sums.good_day), good)
        sums.good_day = <uint16_t> today
    record[0] = OFFENSE_VERSION
    offense_put(record + 4, 4, sums.bad)
    offense_put(record + 8, 4, sums.good)
    offense_put(record + 12, 2, sums.bad_day)
    offense_put(record + 14, 2, sums.good_day)
    return (<char*> record)[:OFFENSE_AS_SIZE]


# ---- what other hosts know

cdef inline void offense_join(uint16_t* weight, uint16_t* day, uint32_t other, int other_day, uint32_t most, int today,
                              OffenseRules rules) noexcept nogil:
    """The heavier of two weights stays, of equal ones the later. Both are of the same days as far as both hosts knew of
    them, so their sum would count a day twice; whatever was joined before changes nothing. What has decayed is not
    joined, whether or not the member is in the record, so that the order makes no difference."""
    cdef float own = rules.weight(weight[0], today, day[0])
    cdef float others
    other = min(other, most)
    other_day = min(other_day, today)
    others = rules.weight(other, today, other_day)
    if others >= OFFENSE_KNOWN - 0.5 and (others > own or others == own and other_day > day[0]):
        weight[0] = <uint16_t> other
        day[0] = <uint16_t> other_day


cdef void offense_join_member(OffenseMember* member, const OffenseMember* other, int today, OffenseRules rules,
                              OffenseChange* change) noexcept nogil:
    """change: what an AS gets, as from `offense_add_to`: each address counts there once, whichever host has seen it."""
    cdef OffenseMember before = member[0]
    cdef float bad = rules.weight(before.bad, today, before.bad_day)
    cdef float good = rules.weight(before.good, today, before.good_day)
    cdef bint was_bad = offense_is_bad(bad, good)
    cdef bint was_good = before.good and not was_bad
    offense_join(&member.bad, &member.bad_day, other.bad, other.bad_day, OFFENSE_BAD_MOST, today, rules)
    offense_join(&member.good, &member.good_day, other.good, other.good_day, OFFENSE_GOOD_MOST, today, rules)
    memset(change, 0, sizeof(OffenseChange))
    if offense_is_bad(rules.weight(member.bad, today, member.bad_day),
                      rules.weight(member.good, today, member.good_day)):
        change.bad = rules.as_weight(OFFENSE_UNIT, today, member.bad_day)
        if was_bad:
            change.bad = max(<float> 0, change.bad - rules.as_weight(OFFENSE_UNIT, today, before.bad_day))
    elif member.good:
        change.good = rules.as_weight(OFFENSE_UNIT, today, member.good_day)
        if was_good:
            change.good = max(<float> 0, change.good - rules.as_weight(OFFENSE_UNIT, today, before.good_day))


def offense_merge(value, bytes other, int size, int today, OffenseRules rules):
    cdef uint8_t[OFFENSE_NETWORK_SIZE] record
    cdef int16_t[256] places        # of members in the record, by the last byte of their numbers; -1: none
    cdef OffenseMember member, found
    cdef OffenseChange change
    cdef const uint8_t* at = <const uint8_t*> <const char*> other
    cdef bytes before = b"" if value is None else value
    cdef int index, number, count, others = offense_members(at, len(other))
    cdef bint is_full
    cdef float more_bad = 0, more_good = 0
    if size not in (1, 2, 4) or not 0 <= today <= 0xFFFF:
        raise ValueError(f"a member's number of {size} bytes, or day {today}")
    if others < 0 or at[1] != size or others > offense_room(size):
        return None
    count = offense_members(<const uint8_t*> <const char*> before, len(before))
    if count < 0 or (<const uint8_t*> <const char*> before)[1] != size or count > offense_room(size):
        count = 0
        record[0] = OFFENSE_VERSION
        record[1] = <uint8_t> size
    else:
        memcpy(record, <const char*> before, len(before))
    memset(places, 0xFF, sizeof(places))
    for index in range(count):
        places[record[OFFENSE_HEADER + index * (size + 8)]] = <int16_t> index
    for number in range(others):
        offense_get(at, number, &member)
        index = offense_place(record, count, places[member.number & 0xFF], member.number)
        if index < count:
            offense_get(record, index, &found)
        else:
            memset(&found, 0, sizeof(found))
            found.number = member.number
        offense_join_member(&found, &member, today, rules, &change)
        if not found.bad and not found.good:
            continue
        is_full = False
        if index == count:
            if count < offense_room(size):
                count += 1
            else:
                index = offense_lightest(record, count, rules, today)
                if not offense_is_heavier(&found, record, index, rules, today):
                    continue
                is_full = True
        offense_set(record, index, &found)
        offense_limit(record, count, index, is_full, today, rules, &change)
        places[found.number & 0xFF] = <int16_t> index
        more_bad += change.bad
        more_good += change.good
    if count == 0:
        return value, 0.0, 0.0
    offense_put(record + 2, 2, count)
    return (<char*> record)[:OFFENSE_HEADER + count * (size + 8)], more_bad, more_good


cdef inline int offense_place(const uint8_t* record, int count, int place, uint32_t number) noexcept nogil:
    """Where a member is; `count`: nowhere. place: of one with the same last byte of its number; -1: none has it."""
    cdef int size = record[1]
    cdef int index
    if place < 0:
        return count
    if size == 1 and record[OFFENSE_HEADER + place * 9] == number:
        return place
    for index in range(count):
        if offense_number(record + OFFENSE_HEADER + index * (size + 8), size) == number:
            return index
    return count


cdef bint offense_is_heavier(const OffenseMember* member, const uint8_t* record, int index, OffenseRules rules,
                             int today) noexcept nogil:
    """Whether a member takes the place of the lightest one."""
    cdef OffenseMember lightest
    offense_get(record, index, &lightest)
    return offense_total(member, rules, today) > offense_total(&lightest, rules, today)


# ---- for Python

def offense_keys(bytes client):
    cdef uint8_t[16] key
    cdef uint32_t number
    cdef size_t size
    cdef const uint8_t* ip = <const uint8_t*> <const char*> client
    if len(client) == 4:
        size = offense_key(ip, c"4", key, &number)
        return (((<char*> key)[:size], 1, number),)
    if len(client) != 16:
        raise ValueError("an address has 4 or 16 bytes")
    size = offense_key(ip, c"6", key, &number)
    found = ((<char*> key)[:size], 4, number)
    size = offense_key(ip, c"w", key, &number)
    return found, ((<char*> key)[:size], 2, number)


def offense_as(uint32_t number):
    cdef uint8_t[5] key
    return (<char*> key)[:offense_as_key(number, key)]


def offense_read(bytes value, int today, OffenseRules rules):
    cdef OffenseMember member
    cdef OffenseSums sums
    cdef const uint8_t* at = <const uint8_t*> <const char*> value
    cdef int index
    cdef float bad, good
    if offense_as_sums(at, len(value), &sums):
        return [(0, rules.as_weight(sums.bad, today, sums.bad_day) / OFFENSE_UNIT,
                 rules.as_weight(sums.good, today, sums.good_day) / OFFENSE_UNIT, sums.bad_day, sums.good_day, False)]
    if offense_members(at, len(value)) < 0:
        return None
    found = []
    for index in range(offense_members(at, len(value))):
        offense_get(at, index, &member)
        bad = rules.weight(member.bad, today, member.bad_day)
        good = rules.weight(member.good, today, member.good_day)
        found.append((member.number, bad / OFFENSE_UNIT, good / OFFENSE_UNIT, member.bad_day, member.good_day,
                      offense_is_bad(bad, good)))
    return found


def offense_summary(bytes value, int today, OffenseRules rules):
    cdef OffenseMember member
    cdef OffenseSums sums
    cdef OffenseCount count
    cdef const uint8_t* at = <const uint8_t*> <const char*> value
    cdef int index, day = 0
    cdef float heaviest = 0
    if offense_as_sums(at, len(value), &sums):
        count.bad = <int> (rules.as_weight(sums.bad, today, sums.bad_day) / OFFENSE_UNIT + 0.5)
        count.known = count.bad + <int> (rules.as_weight(sums.good, today, sums.good_day) / OFFENSE_UNIT + 0.5)
        heaviest = (rules.as_weight(sums.bad, today, sums.bad_day) + rules.as_weight(sums.good, today, sums.good_day))
        return count.bad, count.known, heaviest / OFFENSE_UNIT, max(sums.bad_day, sums.good_day)
    if not offense_count(at, len(value), <uint32_t> 0xFFFFFFFF, rules, today, &count):
        return None
    if offense_is_bad(count.own_bad, count.own_good):       # an address may have that number, too
        count.bad += 1
    if max(count.own_bad, count.own_good) >= OFFENSE_KNOWN - 0.5:
        count.known += 1
    for index in range(offense_members(at, len(value))):
        offense_get(at, index, &member)
        heaviest = max(heaviest, offense_total(&member, rules, today))
        day = max(day, max(member.bad_day, member.good_day))
    return count.bad, count.known, heaviest / OFFENSE_UNIT, day


def offense_without(bytes value, numbers):
    cdef uint8_t[OFFENSE_NETWORK_SIZE] record
    cdef OffenseMember member
    cdef const uint8_t* at = <const uint8_t*> <const char*> value
    cdef int index, kept = 0, count = offense_members(at, len(value))
    if count < 0 or len(value) > <Py_ssize_t> sizeof(record):
        return None
    memcpy(record, at, OFFENSE_HEADER)
    for index in range(count):
        offense_get(at, index, &member)
        if member.number not in numbers:
            offense_set(record, kept, &member)
            kept += 1
    offense_put(record + 2, 2, kept)
    return (<char*> record)[:OFFENSE_HEADER + kept * (record[1] + 8)] if kept else None


def offense_tidy(bytes value, int today, OffenseRules rules):
    cdef uint8_t[OFFENSE_NETWORK_SIZE] record
    cdef OffenseMember member
    cdef OffenseSums sums
    cdef const uint8_t* at = <const uint8_t*> <const char*> value
    cdef int index, kept = 0, count = offense_members(at, len(value))
    if not 0 <= today <= 0xFFFF:
        raise ValueError(f"day {today}")
    if offense_as_sums(at, len(value), &sums):
        if (rules.as_weight(sums.bad, today, sums.bad_day) < OFFENSE_UNIT // 2
                and rules.as_weight(sums.good, today, sums.good_day) < OFFENSE_UNIT // 2):
            return None
        memcpy(record, at, OFFENSE_AS_SIZE)
        offense_put(record + 12, 2, min(sums.bad_day, today))
        offense_put(record + 14, 2, min(sums.good_day, today))
        return (<char*> record)[:OFFENSE_AS_SIZE]
    if count < 0 or len(value) > <Py_ssize_t> sizeof(record):
        return None
    memcpy(record, at, OFFENSE_HEADER)
    for index in range(count):
        offense_get(at, index, &member)
        if offense_total(&member, rules, today) >= OFFENSE_KNOWN - 0.5:
            member.bad_day = <uint16_t> min(member.bad_day, today)
            member.good_day = <uint16_t> min(member.good_day, today)
            offense_set(record, kept, &member)
            kept += 1
    offense_put(record + 2, 2, kept)
    return (<char*> record)[:OFFENSE_HEADER + kept * (record[1] + 8)] if kept else None


# ---- what a session says about its client

cdef enum:
    OFFENSE_TESTS = (1 << TEST_COUNT) - 1 & ~(1 << DNSBL | 1 << SCORE)      # of the protocol
    OFFENSE_REJECTED = 3            # recipients that the MTA rejected, and the client guesses addresses


cdef uint32_t offense_bad(const HistoryRecord* record, int64_t score, int32_t threshold) noexcept nogil:
    """The offense in a session, in 1/256. score: without what its neighbors did, so that no offense leads to others."""
    cdef uint32_t bad = 0
    if not record.marks & (MARK_CACHED | MARK_LISTS_ALLOW):
        if record.found & OFFENSE_TESTS:
            return OFFENSE_UNIT
        if (record.found & (1 << DNSBL | 1 << SCORE) and not record.marks & MARK_UNSURE
                and record.score != NO_SCORE and score >= threshold):
            return OFFENSE_UNIT
    if record.mta_rejected >= OFFENSE_REJECTED and 2 * record.mta_rejected >= record.recipients:
        return OFFENSE_UNIT
    if record.mta_rejected and not record.mta_accepted:
        bad = OFFENSE_UNIT // 2     # a mistyped address is not spam
    return bad


cdef int offense_good(const HistoryRecord* record, uint32_t bad) noexcept nogil:
    if record.mta_accepted and bad != OFFENSE_UNIT:
        return OFFENSE_ACCEPTED
    if (bad or record.found or record.marks & MARK_SPARED or record.mta_reply
            or record.outcome not in (OUTCOME_HANDED_OFF, OUTCOME_RELAYED, OUTCOME_CONTINUED)):
        return OFFENSE_NOT_GOOD
    return OFFENSE_HANDED_OFF


cdef inline bint offense_is_unknown(const HistoryRecord* record, uint32_t bad, int good) noexcept nogil:
    """The client reached an MTA, and what became of its mail is not known."""
    return (bad != OFFENSE_UNIT and good != OFFENSE_ACCEPTED and not record.mta_reply and not record.mta_recipients
            and record.outcome in (OUTCOME_HANDED_OFF, OUTCOME_RELAYED, OUTCOME_CONTINUED))


def offenses_in(rows, int32_t threshold, weights, unknown=None):
    cdef HistoryRecord record
    cdef bytes client, packed
    cdef int64_t score
    cdef uint32_t bad
    cdef int good, scorer
    cdef int32_t[SCORER_COUNT] seen
    for scorer in range(SCORER_COUNT):
        seen[scorer] = weights.get(SCORERS[scorer].key, 0) if SCORER_TABLE[scorer].heard == HEARD_MEMORY else 0
    found = {}
    for ended, client, packed, outcome, _ in rows:
        if outcome in (OUTCOME_BUSY, OUTCOME_FAILED):
            continue
        if not history_unpack_into(&record, ended, <const uint8_t*> <const char*> client, len(client),
                                   <const uint8_t*> <const char*> packed, len(packed)):
            continue
        if record.marks & (MARK_BYPASSED | MARK_DENYLISTED):
            continue
        score = record.score
        for scorer in range(SCORER_COUNT):
            if record.evidence & bit(scorer):
                score -= seen[scorer]
        bad = 0 if record.marks & MARK_ALLOWLISTED else offense_bad(&record, score, threshold)
        good = offense_good(&record, bad)
        if unknown is not None and offense_is_unknown(&record, bad, good):
            unknown.append((client, record.client_port, good, not record.marks & MARK_ALLOWLISTED))
            continue
        if bad or good:
            before = found.get(client)
            if before is not None:
                bad = max(bad, <uint32_t> before[0])
                good = max(good, <int> before[1])
            found[client] = (bad, good)
    return found
