# The PROXY header that is sent to an MTA, with the addresses of the client and the server. Addresses in, bytes out.

cdef enum:
    PROXY_HEADER_SIZE = 108         # the longest of version 1, with its CRLF and a NUL; version 2 takes 52 at most

cdef const char* PROXY_TCP4 = b"PROXY TCP4 "
cdef const char* PROXY_TCP6 = b"PROXY TCP6 "
cdef const char* MAPPED = b"::ffff:"


cdef size_t proxy_header_write(char* header, int version, const Address* peer, const Address* server) noexcept nogil:
    """Write the header of this version (1 or 2) into PROXY_HEADER_SIZE bytes; return its length."""
    cdef bint six = peer.family == 6 or server.family == 6
    if version == 1:
        return proxy_write_text(header, six, peer, server)
    memcpy(header, PROXY_V2_SIGNATURE, PROXY_V2_SIGNATURE_SIZE)
    header[12] = 0x21                           # version 2, PROXY
    header[13] = 0x21 if six else 0x11          # TCP over IPv6, IPv4
    header[14] = 0
    if six:
        header[15] = 36
        proxy_write_address(header + 16, peer)
        proxy_write_address(header + 32, server)
        proxy_write_port(header + 48, peer.port)
        proxy_write_port(header + 50, server.port)
        return 52
    header[15] = 12
    memcpy(header + 16, peer.ip, 4)
    memcpy(header + 20, server.ip, 4)
    proxy_write_port(header + 24, peer.port)
    proxy_write_port(header + 26, server.port)
    return 28


cdef size_t proxy_write_text(char* header, bint six, const Address* peer, const Address* server) noexcept nogil:
    cdef size_t length = 11
    memcpy(header, PROXY_TCP6 if six else PROXY_TCP4, length)
    length += proxy_write_address_text(header + length, six, peer)
    length += proxy_write_address_text(header + length, six, server)
    length += number_text(peer.port, header + length)
    header[length] = c" "
    length += 1 + number_text(server.port, header + length + 1)
    header[length] = c"\r"
    header[length + 1] = c"\n"
    return length + 2


cdef size_t proxy_write_address_text(char* text, bint six, const Address* address) noexcept nogil:
    """Write the address and a space. Next to an IPv6 address, an IPv4 address is written as IPv6 (RFC 4291 2.5.5.2)."""
    cdef size_t length = 0
    if six and address.family == 4:
        memcpy(text, MAPPED, 7)
        length = 7
    length += address_text(address, text + length)
    text[length] = c" "
    return length + 1


cdef void proxy_write_address(char* octets, const Address* address) noexcept nogil:
    """Write 16 bytes; an IPv4 address is mapped to IPv6."""
    if address.family == 6:
        memcpy(octets, address.ip, 16)
        return
    memset(octets, 0, 10)
    memset(octets + 10, 0xFF, 2)
    memcpy(octets + 12, address.ip, 4)


cdef void proxy_write_port(char* octets, uint16_t port) noexcept nogil:
    octets[0] = <char> (port >> 8)
    octets[1] = <char> port


def proxy_header_for(int version, tuple peer, tuple server):
    cdef Address peer_address, server_address
    cdef char header[PROXY_HEADER_SIZE]
    for (host, port), address in ((peer, "peer"), (server, "server")):
        if "\0" in host or not 0 <= port <= 0xFFFF:
            raise ValueError(f"{host!r} and {port} are not a valid {address} address")
    if not address_parse(peer[0].encode(), &peer_address) or not address_parse(server[0].encode(), &server_address):
        raise ValueError(f"{peer[0]!r} or {server[0]!r} is not an address")
    peer_address.port = peer[1]
    server_address.port = server[1]
    return header[:proxy_header_write(header, version, &peer_address, &server_address)]
