# The parser for the PROXY header, versions 1 and 2: bytes in; addresses and the header's length out. No sockets, no
# clock. What is malformed, and the texts for it, follow the reference (2.8, 6.4); but a header may arrive in pieces.

cdef enum:
    PROXY_HEADER_MOST = 536         # bytes, as in the reference
    PROXY_V2_FIXED = 16             # bytes before the addresses of version 2

cdef const char* PROXY_V1_START = "PROXY "
cdef const char* PROXY_V2_SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"
cdef size_t PROXY_V2_SIGNATURE_SIZE = 12


cdef ProxyState proxy_header_read(const char* data, size_t size, ProxyHeader* header) noexcept nogil:
    """Read a header at the beginning of the received bytes."""
    memset(header, 0, sizeof(ProxyHeader))
    if proxy_begins(data, size, PROXY_V1_START, 6):
        return proxy_read_v1(data, size, header)
    if proxy_begins(data, size, PROXY_V2_SIGNATURE, PROXY_V2_SIGNATURE_SIZE):
        return proxy_read_v2(<const uint8_t*> data, size, header)
    return proxy_bad(header, "short protocol header" if size < PROXY_V2_FIXED else "unrecognized protocol header")


cdef const char* proxy_header_lacks(const char* data, size_t size) noexcept nogil:
    """The problem of a header that ends too early."""
    if size >= 6 and memcmp(data, PROXY_V1_START, 6) == 0:
        return "missing protocol header terminator"
    return "short protocol header" if size < PROXY_V2_FIXED else "short version 2 protocol header"


cdef inline bint proxy_begins(const char* data, size_t size, const char* start, size_t length) noexcept nogil:
    """True while the received bytes are `start`, a prefix of it, or empty."""
    return memcmp(data, start, min(size, length)) == 0


cdef inline ProxyState proxy_bad(ProxyHeader* header, const char* problem) noexcept nogil:
    header.problem = problem
    return PROXY_MALFORMED


# ---- version 1: one line of text

cdef ProxyState proxy_read_v1(const char* data, size_t size, ProxyHeader* header) noexcept nogil:
    cdef size_t room = min(size, <size_t> PROXY_HEADER_MOST)
    cdef const char* end = <const char*> memchr(data, c"\n", room)
    cdef const char* at = data
    cdef char word[64]
    cdef uint8_t family
    if memchr(data, 0, (end - data) if end != NULL else room) != NULL:
        return proxy_bad(header, "missing protocol header terminator")
    if end == NULL:
        if size < PROXY_HEADER_MOST:
            return PROXY_INCOMPLETE
        return proxy_bad(header, "missing protocol header terminator")
    proxy_word(&at, end, word)                  # PROXY
    proxy_word(&at, end, word)
    if strcasecmp(word, "TCP4") == 0:
        family = 4
    elif strcasecmp(word, "TCP6") == 0:
        family = 6
    else:
        return proxy_bad(header, "bad or missing protocol type")
    if not proxy_address(&at, end, family, &header.client):
        return proxy_bad(header, "bad or missing client address")
    if not proxy_address(&at, end, family, &header.server):
        return proxy_bad(header, "bad or missing server address")
    if not proxy_port(&at, end, &header.client.port):
        return proxy_bad(header, "bad or missing client port")
    if not proxy_port(&at, end, &header.server.port):
        return proxy_bad(header, "bad or missing server port")
    header.length = <uint32_t> (end + 1 - data)
    return PROXY_CLIENT


cdef void proxy_word(const char** at, const char* end, char* word) noexcept nogil:
    """The next word, NUL-terminated; empty at the end of the line, and if it is longer than any valid word."""
    cdef const char* start
    while at[0] < end and (at[0][0] == c" " or at[0][0] == c"\r"):
        at[0] += 1
    start = at[0]
    while at[0] < end and at[0][0] != c" " and at[0][0] != c"\r":
        at[0] += 1
    word[0] = 0
    if at[0] - start < 64:
        memcpy(word, start, at[0] - start)
        word[at[0] - start] = 0


cdef bint proxy_address(const char** at, const char* end, uint8_t family, Address* address) noexcept nogil:
    cdef char word[64]
    proxy_word(at, end, word)
    if family == 6:
        return strchr(word, c":") != NULL and address_parse(word, address)
    return strchr(word, c":") == NULL and address_parse(word, address)


cdef bint proxy_port(const char** at, const char* end, uint16_t* port) noexcept nogil:
    cdef char word[64]
    cdef uint32_t number = 0
    cdef int digit = 0
    proxy_word(at, end, word)
    if word[0] == 0 or word[0] == c"0" and word[1]:
        return False
    while word[digit]:
        if digit == 5 or not c"0" <= word[digit] <= c"9":
            return False
        number = number * 10 + word[digit] - c"0"
        digit += 1
    if number > 65535:
        return False
    port[0] = <uint16_t> number
    return True


# ---- version 2: binary

cdef ProxyState proxy_read_v2(const uint8_t* data, size_t size, ProxyHeader* header) noexcept nogil:
    cdef size_t length
    if size > PROXY_V2_SIGNATURE_SIZE and data[12] >> 4 != 2:
        return proxy_bad(header, "unrecognized protocol version")
    if size < PROXY_V2_FIXED:
        return PROXY_INCOMPLETE
    length = data[14] << 8 | data[15]
    header.length = <uint32_t> (PROXY_V2_FIXED + length)
    if header.length > PROXY_HEADER_MOST:
        return proxy_bad(header, "short version 2 protocol header")
    if size < header.length:
        return PROXY_INCOMPLETE
    if data[12] & 15 == 0:
        return PROXY_LOCAL
    if data[12] & 15 != 1:
        return proxy_bad(header, "bad command in proxy header")
    if data[13] == 0x11:
        if length < 12:
            return proxy_bad(header, "short address field")
        proxy_endpoint(data + 16, data + 24, 4, &header.client)
        proxy_endpoint(data + 20, data + 26, 4, &header.server)
    elif data[13] == 0x21:
        if length < 36:
            return proxy_bad(header, "short address field")
        proxy_endpoint(data + 16, data + 48, 16, &header.client)
        proxy_endpoint(data + 32, data + 50, 16, &header.server)
    else:
        return proxy_bad(header, "unsupported network protocol")
    return PROXY_CLIENT


cdef void proxy_endpoint(const uint8_t* ip, const uint8_t* port, int size, Address* address) noexcept nogil:
    memset(address, 0, sizeof(Address))
    memcpy(address.ip, ip, size)
    address.port = port[0] << 8 | port[1]
    address.family = 4 if size == 4 else 6
    address_unmap(address)


# ---- for tests

def proxy_header(bytes data not None):
    """See core.pyi."""
    cdef ProxyHeader header
    cdef ProxyState state = proxy_header_read(data, len(data), &header)
    cdef char client[64]
    cdef char server[64]
    if state == PROXY_MALFORMED:
        raise ValueError(header.problem.decode())
    if state == PROXY_INCOMPLETE:
        return None
    if state == PROXY_LOCAL:
        return ProxyHeaderRead(header.length, None, None)
    return ProxyHeaderRead(
        header.length,
        (client[:address_text(&header.client, client)].decode(), header.client.port),
        (server[:address_text(&header.server, server)].decode(), header.server.port))


ProxyHeaderRead = namedtuple("ProxyHeaderRead", "length client server")
