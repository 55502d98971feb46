# Networks that count as one client: the cache's records and the count of connections may each be by a prefix instead of
# the whole address (cache.prefix_*, limits.client_connection_prefix_*).


cdef inline uint8_t prefix_length(const Prefix* prefix, uint8_t family) noexcept nogil:
    return prefix.ipv4 if family == 4 else prefix.ipv6


cdef inline bint prefix_is_whole(const Prefix* prefix, uint8_t family) noexcept nogil:
    return prefix_length(prefix, family) == (32 if family == 4 else 128)


cdef void prefix_mask(const Prefix* prefix, Address* address) noexcept nogil:
    """Clear the bits that are not in the prefix."""
    cdef int bits_left = prefix_length(prefix, address.family)
    cdef int octet
    for octet in range(4 if address.family == 4 else 16):
        if bits_left <= 0:
            address.ip[octet] = 0
        elif bits_left < 8:
            address.ip[octet] &= <uint8_t> (0xFF00 >> bits_left)
        bits_left -= 8


cdef inline size_t cache_key(const Prefix* prefix, const Address* address, uint8_t* key) noexcept nogil:
    """Write the cache's key of a masked address into 17 bytes: the address, followed by the prefix length if it is
    shorter than the address. So 192.0.2.0/24 and 192.0.2.0 have different records. Return the length of the key."""
    cdef size_t size = 4 if address.family == 4 else 16
    memcpy(key, address.ip, size)
    if not prefix_is_whole(prefix, address.family):
        key[size] = prefix_length(prefix, address.family)
        size += 1
    return size


cdef inline size_t whole_key(const Address* address, uint8_t* key) noexcept nogil:
    """Write the cache's key of an address without a prefix; return its length."""
    cdef size_t size = 4 if address.family == 4 else 16
    memcpy(key, address.ip, size)
    return size


cdef int prefix_set(Prefix* prefix, lengths) except -1:
    ipv4, ipv6 = lengths
    if not 0 <= ipv4 <= 32 or not 0 <= ipv6 <= 128:
        raise ValueError(f"a prefix of {ipv4} or {ipv6} bits")
    prefix.ipv4 = ipv4
    prefix.ipv6 = ipv6
    return 0


def cache_key_of(str address not None, lengths):
    """See core.pyi."""
    cdef Address parsed
    cdef Prefix prefix
    cdef uint8_t key[17]
    prefix_set(&prefix, lengths)
    if "\0" in address or not address_parse(address.encode(), &parsed):
        raise ValueError(f"{address!r} is not an address")
    prefix_mask(&prefix, &parsed)
    return (<char*> key)[:cache_key(&prefix, &parsed, key)]
