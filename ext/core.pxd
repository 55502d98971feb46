# Struct layouts and state enums of the core. The functions are in the parts that core.pyx includes;
# what Python sees is documented in core.pyi.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


# An endpoint. An IPv4 address fills the first four octets; IPv4-mapped IPv6 is IPv4 here (reference 2.8).
cdef struct Address:
    uint8_t ip[16]          # network byte order; unused octets are zero
    uint16_t port           # host byte order
    uint8_t family          # 4 or 6


# An address of either family as a number; an IPv4 address fills the lowest 32 bits.
cdef struct Ip:
    uint64_t high
    uint64_t low


# Addresses first..last, both included, that a rule of a network table answers for.
cdef struct NetworkRange:
    Ip first
    Ip last
    int32_t rule            # its place in the file: the first match wins
    int32_t result


cdef struct NetworkRanges:
    NetworkRange* items
    Py_ssize_t count
    Py_ssize_t capacity


# What an if-block of a network table, or a pattern by itself, lets through: disjoint ranges in ascending order.
cdef struct NetworkScope:
    Ip[34] firsts           # IF_DEPTH + 2
    Ip[34] lasts
    int count
    uint8_t family          # 4 or 6; 0: both, each from 0 to its end
    Py_ssize_t line


# A compiled network table: segment i of a family reaches from its first address to before that of i + 1.
# find() is its look-up from C: int32_t find(self, const Address* address) noexcept nogil
cdef class NetworkTable:
    cdef readonly list results
    cdef readonly list warnings
    cdef int32_t rules
    cdef uint32_t* ipv4_firsts
    cdef int32_t* ipv4_results      # index into results; -1: no rule matches
    cdef Py_ssize_t ipv4_count
    cdef Ip* ipv6_firsts
    cdef int32_t* ipv6_results
    cdef Py_ssize_t ipv6_count

    cdef int compile(self, const NetworkRanges* ranges, uint8_t family) except -1
    cdef int32_t find(self, const Address* address) noexcept nogil


# ---- dns.pyx

cdef enum:
    DNS_ADDRESSES = 32      # kept of one answer: a datagram of 512 octets has no room for more
    DNS_NAME_TEXT = 256     # octets for a name as text, with the NUL


cdef enum DnsVerdict:
    DNS_OURS                # the answer to our question, of whatever rcode
    DNS_NOT_OURS            # to be ignored: the true answer may still come
    DNS_MALFORMED


# What the answer to an A query says. TTLs are seconds; -1: no such record.
cdef struct DnsAnswer:
    uint32_t[DNS_ADDRESSES] addresses   # network byte order, as they came
    uint8_t count
    uint8_t rcode
    bint truncated          # ask again over TCP; no records were read
    int32_t ttl             # the smallest of the A records
    int32_t soa_ttl         # the smallest of the SOA records in the authority section
    int32_t negative_ttl    # the smaller of that and SOA MINIMUM (RFC 2308 5)
