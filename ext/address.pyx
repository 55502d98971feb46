# Endpoints as the core keeps them, and their text form as it is logged (reference 7.1).

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* source, char* text, uint32_t size)
    int inet_pton(int family, const char* text, void* target)

cdef extern from "<sys/socket.h>" nogil:
    const int AF_INET, AF_INET6, AF_UNIX


cdef uint32_t address_text(const Address* address, char* text) noexcept nogil:
    """Write the address without port and brackets, NUL-terminated, into 46 bytes; return its length."""
    cdef uint32_t at = 0
    cdef int octet
    cdef uint8_t value
    if address.family == 6:
        inet_ntop(AF_INET6, address.ip, text, 46)
        while text[at]:
            at += 1
        return at
    for octet in range(4):
        value = address.ip[octet]
        if value >= 100:
            text[at] = 48 + value // 100
            at += 1
        if value >= 10:
            text[at] = 48 + value // 10 % 10
            at += 1
        text[at] = 48 + value % 10
        text[at + 1] = c"."
        at += 2
    text[at - 1] = 0
    return at - 1


cdef bint address_parse(const char* text, Address* address) noexcept nogil:
    """Read a bare IPv4 or IPv6 address; the port stays 0. False when it is neither."""
    memset(address, 0, sizeof(Address))
    if inet_pton(AF_INET, text, address.ip) == 1:
        address.family = 4
        return True
    if inet_pton(AF_INET6, text, address.ip) == 1:
        address.family = 6
        address_unmap(address)
        return True
    return False


cdef inline bint address_equal(const Address* one, const Address* other) noexcept nogil:
    """The same endpoint: address and port."""
    return one.family == other.family and one.port == other.port and memcmp(one.ip, other.ip, 16) == 0


cdef void address_unmap(Address* address) noexcept nogil:
    """Turn ::ffff:a.b.c.d into a.b.c.d."""
    cdef int octet
    for octet in range(10):
        if address.ip[octet]:
            return
    if address.family == 6 and address.ip[10] == 0xFF and address.ip[11] == 0xFF:
        memcpy(address.ip, address.ip + 12, 4)
        memset(address.ip + 4, 0, 12)
        address.family = 4
