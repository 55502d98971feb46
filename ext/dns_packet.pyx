# DNSBL queries and their answers in wire format (RFC 1035, RFC 5782). No sockets, no clock, no state.
#
# Only the parts that a DNSBL needs are implemented: A queries with one question, and the addresses and TTLs of an
# answer. Names in an answer are skipped and never expanded, so compression can neither loop nor cost time.

from collections import namedtuple

from libc.stdlib cimport free, malloc

cdef enum:
    DNS_HEADER_SIZE = 12
    DNS_RECORD_SIZE = 10            # type, class, TTL and length, after the name
    DNS_NAME_MAX = 255              # bytes of a name, including its lengths and the root (RFC 1035 2.3.4)
    DNS_LABEL_MAX = 63
    DNS_REVERSED_MAX = 64           # bytes of a reversed IPv6 address, 32 labels; IPv4 needs at most 16
    DNS_TYPE_A = 1
    DNS_TYPE_CNAME = 5
    DNS_TYPE_SOA = 6
    DNS_CLASS_IN = 1
    DNS_CNAMES_MAX = 10             # the longest chain that postscreen follows (reference 4.3)


cdef bytes dns_wire_name(str domain):
    """Return the domain of a list in wire format. ValueError: the domain is not valid.

    A domain that leaves no room for a reversed IPv6 address is rejected here, not when the first such client connects.
    """
    cdef bytearray wire = bytearray()
    for label in domain.removesuffix(".").split("."):
        if not label.isascii() or not label.replace("-", "x").replace("_", "x").isalnum() or label.strip("-") != label:
            raise ValueError(f"{domain!r} is not a DNS name; expected letters, digits, _ and inner - with dots between")
        if len(label) > DNS_LABEL_MAX:
            raise ValueError(f"{domain!r} is not a DNS name: a label is longer than {<int> DNS_LABEL_MAX} characters")
        wire.append(len(label))
        wire += label.encode()
    wire.append(0)
    if len(wire) > DNS_NAME_MAX - DNS_REVERSED_MAX:
        room = DNS_NAME_MAX - DNS_REVERSED_MAX - 2
        raise ValueError(f"{domain!r} is too long for a DNS list: at most {room} characters")
    return bytes(wire)


cdef size_t dns_build(
    uint8_t* packet, size_t capacity, uint16_t id, const Address* address, const uint8_t* domain, size_t domain_size
) noexcept nogil:
    """Write the query for the address at a list, whose domain is in wire format; return its size.

    0: the name would be longer than 255 bytes, or the query longer than `capacity`.
    """
    cdef uint8_t reversed_labels[DNS_REVERSED_MAX]
    cdef size_t labels = _reverse(address, reversed_labels)
    cdef size_t size = DNS_HEADER_SIZE + labels + domain_size + 4
    if labels + domain_size > DNS_NAME_MAX or size > capacity:
        return 0
    memset(packet, 0, DNS_HEADER_SIZE)
    packet[0] = id >> 8
    packet[1] = id & 0xFF
    packet[2] = 0x01                # recursion desired
    packet[5] = 1                   # questions
    memcpy(packet + DNS_HEADER_SIZE, reversed_labels, labels)
    memcpy(packet + DNS_HEADER_SIZE + labels, domain, domain_size)
    packet[size - 4] = 0
    packet[size - 3] = DNS_TYPE_A
    packet[size - 2] = 0
    packet[size - 1] = DNS_CLASS_IN
    return size


cdef size_t _reverse(const Address* address, uint8_t* labels) noexcept nogil:
    """Write the reversed octets (IPv4) or nibbles (IPv6) as labels (RFC 5782 2.1, 2.4); return their size in bytes."""
    cdef size_t at = 0
    cdef size_t start
    cdef int octet
    cdef uint8_t value
    if address.family == 6:
        for octet in range(15, -1, -1):
            value = address.ip[octet]
            labels[at] = labels[at + 2] = 1
            labels[at + 1] = b"0123456789abcdef"[value & 15]
            labels[at + 3] = b"0123456789abcdef"[value >> 4]
            at += 4
        return at
    for octet in range(3, -1, -1):
        value = address.ip[octet]
        start = at
        at += 1
        if value >= 100:
            labels[at] = c"0" + value // 100
            at += 1
        if value >= 10:
            labels[at] = c"0" + value // 10 % 10
            at += 1
        labels[at] = c"0" + value % 10
        at += 1
        labels[start] = <uint8_t> (at - start - 1)
    return at


cdef DnsVerdict dns_decode(
    const uint8_t* packet, size_t size, const uint8_t* query, size_t query_size, DnsAnswer* answer
) noexcept nogil:
    """Decode a datagram that was received after a query from `dns_build`.

    DNS_NOT_OURS: not a reply, or it has a different id or question; ignore it, the true answer may still come.
    DNS_MALFORMED: the reply to this query, but its records are malformed. DNS_OURS: `answer` is filled; a truncated
    answer has its records missing.
    """
    cdef size_t at
    answer.rcode = answer.count = 0
    answer.truncated = False
    answer.ttl = answer.soa_ttl = answer.negative_ttl = -1
    if query_size <= DNS_HEADER_SIZE or size < query_size:
        return DNS_NOT_OURS
    if _number16(packet) != _number16(query) or packet[2] & 0xF8 != 0x80 or _number16(packet + 4) != 1:
        return DNS_NOT_OURS         # a different id or opcode, a query, or not one question
    # Lengths, type and class are not letters, so folding the case of all bytes only folds the case of the name.
    for at in range(DNS_HEADER_SIZE, query_size):
        if _lower(packet[at]) != _lower(query[at]):
            return DNS_NOT_OURS
    answer.rcode = packet[3] & 0x0F
    answer.truncated = packet[2] & 0x02 != 0
    if answer.truncated or _decode_records(packet, size, query_size, answer):
        return DNS_OURS
    return DNS_MALFORMED


cdef bint _decode_records(const uint8_t* packet, size_t size, size_t at, DnsAnswer* answer) noexcept nogil:
    """Read the answer and authority sections, beginning at `at`. False: they are malformed."""
    cdef int answers = _number16(packet + 6)
    cdef int authorities = _number16(packet + 8)
    cdef int cnames = 0
    cdef int record
    cdef uint16_t kind, length
    cdef int32_t ttl
    for record in range(answers + authorities):
        at = _name_end(packet, size, at)
        if at == 0 or size - at < DNS_RECORD_SIZE:
            return False
        kind = _number16(packet + at) if _number16(packet + at + 2) == DNS_CLASS_IN else 0
        ttl = _ttl(packet + at + 4)
        length = _number16(packet + at + 8)
        at += DNS_RECORD_SIZE
        if size - at < length:
            return False
        if record >= answers:
            if kind == DNS_TYPE_SOA and not _decode_soa(packet, at + length, at, ttl, answer):
                return False
        elif kind == DNS_TYPE_A:
            if length != 4:
                return False
            if answer.count < DNS_ADDRESSES:
                memcpy(&answer.addresses[answer.count], packet + at, 4)
                answer.count += 1
            answer.ttl = _shorter(answer.ttl, ttl)
        elif kind == DNS_TYPE_CNAME:
            cnames += 1
            if cnames > DNS_CNAMES_MAX:
                return False
        at += length
    return True


cdef bint _decode_soa(const uint8_t* packet, size_t end, size_t at, int32_t ttl, DnsAnswer* answer) noexcept nogil:
    """Read how long 'not listed' may be kept from the data at..end of an SOA record (RFC 2308 5). False: malformed."""
    at = _name_end(packet, end, at)
    if at:
        at = _name_end(packet, end, at)
    if at == 0 or end - at != 20:   # serial, refresh, retry, expire, minimum
        return False
    answer.soa_ttl = _shorter(answer.soa_ttl, ttl)
    answer.negative_ttl = _shorter(answer.negative_ttl, min(ttl, _ttl(packet + at + 16)))
    return True


cdef size_t _name_end(const uint8_t* packet, size_t size, size_t start) noexcept nogil:
    """Return the position after a name; 0 if it is malformed or exceeds `size`.

    A pointer must point to a position before the name that it ends. So a chain of pointers cannot be a loop.
    """
    cdef size_t at = start
    cdef size_t target
    cdef uint8_t length
    while at < size and at - start < DNS_NAME_MAX:
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            if size - at < 2:
                return 0
            target = _number16(packet + at) & 0x3FFF
            if target < DNS_HEADER_SIZE or target >= start:
                return 0
            return at + 2
        if length > DNS_LABEL_MAX:
            return 0
        at += length + 1
    return 0


cdef inline uint16_t _number16(const uint8_t* octets) noexcept nogil:
    return <uint16_t> (octets[0] << 8 | octets[1])


cdef inline int32_t _ttl(const uint8_t* octets) noexcept nogil:
    """In seconds; a TTL with the top bit set is read as 0 (RFC 2181 8)."""
    if octets[0] & 0x80:
        return 0
    return octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]


cdef inline int32_t _shorter(int32_t known, int32_t ttl) noexcept nogil:
    return ttl if known < 0 else min(known, ttl)


cdef inline uint8_t _lower(uint8_t octet) noexcept nogil:
    return octet | 0x20 if c"A" <= octet <= c"Z" else octet


# ---- for tests and benchmarks

DnsReply = namedtuple("DnsReply", "rcode truncated addresses ttl soa_ttl negative_ttl")


def dns_query(uint16_t id, str address not None, str domain not None):
    cdef Address parsed
    cdef uint8_t packet[DNS_HEADER_SIZE + DNS_NAME_MAX + 4]
    cdef bytes wire = dns_wire_name(domain)
    cdef bytes text = address.encode()
    if not address_parse(text, &parsed):
        raise ValueError(f"{address!r} is not an IPv4 or IPv6 address")
    cdef size_t size = dns_build(packet, sizeof(packet), id, &parsed, wire, len(wire))
    return (<const char*> packet)[:size]


def dns_answer(bytes packet not None, bytes query not None):
    cdef DnsAnswer answer
    cdef DnsVerdict verdict
    cdef const uint8_t* octets
    cdef int at
    # Exactly as large as the packet, so that a sanitizer finds a read one byte too far: `bytes` have a NUL at the end.
    cdef uint8_t* copy = <uint8_t*> malloc(len(packet))
    if copy == NULL and packet:
        raise MemoryError
    memcpy(copy, <const char*> packet, len(packet))
    verdict = dns_decode(copy, len(packet), query, len(query), &answer)
    free(copy)
    if verdict == DNS_NOT_OURS:
        return None
    if verdict == DNS_MALFORMED:
        raise ValueError("malformed DNS answer")
    addresses = []
    for at in range(answer.count):
        octets = <const uint8_t*> &answer.addresses[at]
        addresses.append(f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}")
    return DnsReply(
        answer.rcode, bool(answer.truncated), tuple(addresses), answer.ttl, answer.soa_ttl, answer.negative_ttl
    )
