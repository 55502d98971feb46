# Scorers of the name in HELO or EHLO. A mail server introduces itself with its own name in the DNS or, without such a
# name, with its address in brackets (RFC 5321 4.1.1.1, 4.1.3). Hosts that send spam often use some other name.

cdef enum HelloKind:
    HELLO_NAME              # a domain name of at least two labels
    HELLO_ADDRESS           # an address, with or without brackets
    HELLO_RESERVED          # a name that nobody can own
    HELLO_NOT_QUALIFIED     # a single label, or not a domain name

cdef enum:
    LABEL_MOST = 63         # RFC 1035 2.3.4
    NAME_MOST = 255         # RFC 5321 4.5.3.1.2
    RESERVED = 13

# RFC 2606 and 6761; RFC 6762 (local), 7686 (onion), 8375 (home.arpa), 9476 (alt); internal is ICANN's for private use;
# localdomain is what a host without a name calls its domain.
cdef const char* RESERVED_NAMES[RESERVED]
RESERVED_NAMES[:] = [
    "test", "example", "invalid", "localhost", "localdomain", "local", "internal", "onion", "alt", "home.arpa",
    "example.com", "example.net", "example.org"]
cdef size_t[RESERVED] RESERVED_SIZES = [4, 7, 7, 9, 11, 5, 8, 5, 3, 9, 11, 11, 11]


cdef uint32_t hello_evidence(Policy policy, const Session* session, uint32_t asked, const char* text,
                             size_t size) noexcept:
    """The evidence against a client with this HELO name."""
    cdef Address named
    cdef HelloKind kind = hello_kind(text, size, &named)
    cdef uint32_t found = 0
    if kind == HELLO_ADDRESS:
        found = bit(SCORER_HELO_ADDRESS)
        if named.family and same_ip(&named, &session.server):
            found |= bit(SCORER_HELO_OURS)
        return found
    if kind == HELLO_NOT_QUALIFIED:
        found = bit(SCORER_HELO_NOT_QUALIFIED)
    elif kind == HELLO_RESERVED:
        found = bit(SCORER_HELO_RESERVED)
    if size == <size_t> len(policy.hostname) and strncasecmp(text, policy.hostname, size) == 0:
        found |= bit(SCORER_HELO_OURS)
    if asked & bit(SCORER_HELO_CLIENT_ADDRESS) and size <= NAME_MOST and address_in_name(&session.peer, text, size):
        found |= bit(SCORER_HELO_CLIENT_ADDRESS)
    return found


# ---- what is it?

cdef HelloKind hello_kind(const char* text, size_t size, Address* named) noexcept nogil:
    """named: the address, if it is one; its family is 0 for another literal."""
    cdef int labels
    if hello_address(text, size, named):
        return HELLO_ADDRESS
    named.family = 0
    labels = label_count(text, size)
    if labels == 0:
        return HELLO_ADDRESS if is_literal(text, size) else HELLO_NOT_QUALIFIED
    if is_reserved(text, size):
        return HELLO_RESERVED
    return HELLO_NAME if labels > 1 else HELLO_NOT_QUALIFIED


cdef bint hello_address(const char* text, size_t size, Address* address) noexcept nogil:
    """An address: `[192.0.2.1]` and `[IPv6:2001:db8::1]` as in RFC 5321 4.1.3, or without brackets or tag."""
    cdef char copy[64]
    if size >= 2 and text[0] == c"[" and text[size - 1] == c"]":
        text += 1
        size -= 2
        if size > 5 and strncasecmp(text, "IPv6:", 5) == 0:
            text += 5
            size -= 5
    if size == 0 or size >= sizeof(copy) or not is_digit(text[size - 1]) and memchr(text, c":", size) == NULL:
        return False                # most names end here
    memcpy(copy, text, size)
    copy[size] = 0
    return address_parse(copy, address)


cdef bint is_literal(const char* text, size_t size) noexcept nogil:
    """A General-address-literal (RFC 5321 4.1.3): `[tag:text]`."""
    cdef size_t at, colon = 0
    if size < 5 or text[0] != c"[" or text[size - 1] != c"]":
        return False
    for at in range(1, size - 1):
        if text[at] < 33 or text[at] > 126 or c"[" <= text[at] <= c"]":
            return False
        if colon == 0 and text[at] == c":":
            colon = at
    return 1 < colon < size - 2 and label_count(text + 1, colon - 1) == 1


cdef int label_count(const char* text, size_t size) noexcept nogil:
    """The number of labels of a domain (RFC 5321 4.1.2); 0: not a domain. The last label must contain a letter."""
    cdef size_t at, begun = 0
    cdef int labels = 0
    cdef bint letter = False
    if size == 0 or size > NAME_MOST:
        return 0
    for at in range(size + 1):
        if at == size or text[at] == c".":
            if at == begun or at - begun > LABEL_MOST or text[begun] == c"-" or text[at - 1] == c"-":
                return 0
            labels += 1
            begun = at + 1
            if at < size:
                letter = False
        elif c"a" <= text[at] | 32 <= c"z":
            letter = True
        elif text[at] == c"-":
            letter = True
        elif not c"0" <= text[at] <= c"9":
            return 0
    return labels if letter else 0


cdef bint is_reserved(const char* text, size_t size) noexcept nogil:
    """A reserved name, or a name below one."""
    cdef int which
    cdef size_t length
    for which in range(RESERVED):
        length = RESERVED_SIZES[which]
        if (size == length or size > length and text[size - length - 1] == c".") and strncasecmp(
                text + size - length, RESERVED_NAMES[which], length) == 0:
            return True
    return False


cdef bint same_ip(const Address* one, const Address* other) noexcept nogil:
    return one.family == other.family and memcmp(one.ip, other.ip, 16) == 0


# ---- the client's address in it

cdef bint address_in_name(const Address* address, const char* text, size_t size) noexcept nogil:
    """Look at digits and dashes first: most names have too few."""
    cdef size_t at
    cdef uint32_t digits = 0, dashes = 0, decimal = 0
    for at in range(size):
        digits += is_hex(text[at])
        decimal += is_digit(text[at])
        dashes += text[at] == c"-"
    if address.family == 4:
        return decimal >= 4 and ipv4_in_name(address, text, size) or digits >= 8 and hex_in_name(address, text, size)
    return (digits >= 32 or dashes >= 2) and ipv6_in_name(address, text, size)


cdef bint ipv4_in_name(const Address* address, const char* text, size_t size) noexcept nogil:
    """The address's four numbers one after the other, forward or backward, with `-`, `.`, `_` or `x` between them, or
    as twelve digits."""
    cdef uint32_t[4] last
    cdef size_t at = 0
    cdef size_t begun, ended = 0
    cdef uint32_t number
    cdef int octet, count = 0
    memset(last, 0, sizeof(last))
    while at < size:
        if not is_digit(text[at]):
            at += 1
            continue
        begun = at
        number = 0
        while at < size and is_digit(text[at]):
            number = min(10 * number + <uint32_t> (text[at] - c"0"), <uint32_t> 1000)
            at += 1
        if at - begun == 12 and twelve_digits(address, text + begun):
            return True
        if at - begun > 3 or number > 255:
            count = 0
            continue
        count = count + 1 if count and begun == ended + 1 and text[ended] in (c"-", c".", c"_", c"x", c"X") else 1
        ended = at
        for octet in range(3):
            last[octet] = last[octet + 1]
        last[3] = number
        if count >= 4 and is_ipv4(address, last):
            return True
    return False


cdef bint hex_in_name(const Address* address, const char* text, size_t size) noexcept nogil:
    """The address's eight hexadecimal digits, forward or with its octets reversed, and no digit next to them."""
    cdef char digits[8]
    cdef size_t at
    cdef size_t begun = 0
    for at in range(size + 1):
        if at < size and is_hex(text[at]):
            continue
        if at - begun == 8:
            hex_digits(address.ip, 4, digits, False)
            if strncasecmp(text + begun, digits, 8) == 0:
                return True
            hex_digits(address.ip, 4, digits, True)
            if strncasecmp(text + begun, digits, 8) == 0:
                return True
        begun = at + 1
    return False


cdef bint is_ipv4(const Address* address, const uint32_t* numbers) noexcept nogil:
    """The address's four numbers, forward or backward."""
    cdef int octet
    cdef bint forwards = True, backwards = True
    for octet in range(4):
        forwards = forwards and numbers[octet] == address.ip[octet]
        backwards = backwards and numbers[octet] == address.ip[3 - octet]
    return forwards or backwards


cdef bint twelve_digits(const Address* address, const char* text) noexcept nogil:
    cdef uint32_t[4] numbers
    cdef int octet
    for octet in range(4):
        numbers[octet] = (100 * (text[3 * octet] - c"0") + 10 * (text[3 * octet + 1] - c"0")
                          + (text[3 * octet + 2] - c"0"))
    return is_ipv4(address, numbers)


cdef bint ipv6_in_name(const Address* address, const char* text, size_t size) noexcept nogil:
    """The address in its usual form, or as all eight groups, with `-` for the colons; or its 32 digits, forward or
    backward, with or without a separator between them."""
    cdef char dashed[64]
    cdef char digits[32]
    cdef char squeezed[NAME_MOST]
    cdef size_t at, length = 0
    cdef uint32_t group
    for at in range(size):
        if text[at] not in (c"-", c".", c"_"):
            squeezed[length] = text[at]
            length += 1
    hex_digits(address.ip, 16, digits, False)
    if text_found(squeezed, length, digits, 32):
        return True
    hex_digits(address.ip, 16, digits, True)
    if text_found(squeezed, length, digits, 32):
        return True
    length = address_text(address, dashed)
    for at in range(length):
        if dashed[at] == c":":
            dashed[at] = c"-"
    if stands_alone(text, size, dashed, length):
        return True
    length = 0
    for at in range(8):
        group = <uint32_t> address.ip[2 * at] << 8 | address.ip[2 * at + 1]
        length += snprintf(dashed + length, sizeof(dashed) - length, "%x-", group)
    return stands_alone(text, size, dashed, length - 1)


cdef void hex_digits(const uint8_t* octets, int count, char* text, bint reverse) noexcept nogil:
    """Write two digits per byte; in reverse order, by octet for IPv4 and by digit for IPv6, as in the reverse DNS."""
    cdef const char* names = "0123456789abcdef"
    cdef int at, octet
    for at in range(count):
        octet = octets[count - 1 - at] if reverse else octets[at]
        if reverse and count == 16:
            octet = octet >> 4 | (octet & 15) << 4
        text[2 * at] = names[octet >> 4]
        text[2 * at + 1] = names[octet & 15]


cdef bint stands_alone(const char* text, size_t size, const char* wanted, size_t length) noexcept nogil:
    """Whether the text contains the wanted digits, case-insensitively, and no further digit next to them."""
    cdef size_t at
    for at in range(size - length + 1 if size >= length else 0):
        if ((at == 0 or not is_hex(text[at - 1])) and (at + length == size or not is_hex(text[at + length]))
                and strncasecmp(text + at, wanted, length) == 0):
            return True
    return False


cdef inline bint is_digit(char digit) noexcept nogil:
    return c"0" <= digit <= c"9"


cdef inline bint is_hex(char digit) noexcept nogil:
    return c"0" <= digit <= c"9" or c"a" <= digit | 32 <= c"f"
