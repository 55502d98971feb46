# The client's SYN packet, for the history: operating systems differ in the time to live, the window and the options of
# TCP. Nothing is judged by it. The kernel keeps the headers of the packet (TCP_SAVE_SYN) while a history is recorded.
#
# A record has three numbers. The first is 0 if nothing is known: behind a load balancer that sends a PROXY header, or
# if the kernel answered with a SYN cookie.
#     0: window << 16 | time to live << 8 | SynFlag
#     1: maximum segment size << 16 | window scale + 1, 0: none
#     2: the kinds of the first eight options in their order, SynOption, four bits each, the first in the lowest ones

cdef extern from "<netinet/tcp.h>" nogil:
    const int TCP_SAVE_SYN, TCP_SAVED_SYN

cdef enum SynFlag:
    SYN_KNOWN = 1 << 0
    SYN_IPV6 = 1 << 1
    SYN_DF = 1 << 2                 # don't fragment
    SYN_CUT = 1 << 3                # an option is longer than the packet, or has an impossible length
    SYN_MORE = 1 << 4               # options than there is room for

cdef enum SynOption:
    SYN_NO_OPTION                   # the end of them
    SYN_MSS
    SYN_SCALE
    SYN_SACK
    SYN_TIMES
    SYN_NOP
    SYN_EOL
    SYN_FAST_OPEN
    SYN_MULTIPATH
    SYN_OTHER

cdef enum:
    SYN_ROOM = 8                    # options in a number
    SYN_HEADERS = 256               # bytes; the kernel keeps a longer packet, and nothing is known about it
    SYN_EXTENSIONS = 8              # extension headers of IPv6 before TCP
    TCP_HEADER = 20

HISTORY_SYN_OPTIONS = ("", "mss", "ws", "sack", "ts", "nop", "eol", "tfo", "mptcp", "other")


cdef void syn_wanted(int listener, bint wanted) noexcept:
    """Let the kernel keep the SYN packets of this listener's clients. On other sockets than TCP, nothing happens."""
    cdef int value = wanted
    setsockopt(listener, IPPROTO_TCP, TCP_SAVE_SYN, &value, sizeof(value))


cdef void syn_take(int fd, uint32_t* syn) noexcept nogil:
    """Read the SYN packet of a connection; the kernel forgets it."""
    cdef uint8_t[SYN_HEADERS] packet
    cdef uint32_t size = sizeof(packet)
    if getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, packet, &size) == 0 and size:
        syn_read(packet, size, syn)


cdef void syn_read(const uint8_t* packet, size_t size, uint32_t* syn) noexcept nogil:
    """Headers from IP on. The client chose every byte of the options."""
    cdef const uint8_t* tcp
    cdef const uint8_t* at
    cdef const uint8_t* end = packet + size
    cdef uint32_t ttl, flags
    syn[0] = syn[1] = syn[2] = 0
    if size < 20:
        return
    if packet[0] >> 4 == 4 and packet[0] & 15 >= 5:
        tcp = packet + 4 * (packet[0] & 15)
        ttl = packet[8]
        flags = SYN_KNOWN | (SYN_DF if packet[6] & 0x40 else 0)
    elif packet[0] >> 4 == 6 and size >= 40:
        tcp = syn_after_extensions(packet, end)
        ttl = packet[7]
        flags = SYN_KNOWN | SYN_IPV6
    else:
        return
    if tcp == NULL or end - tcp < TCP_HEADER:
        return
    at = tcp + TCP_HEADER
    if tcp + 4 * (tcp[12] >> 4) < end:
        end = tcp + 4 * (tcp[12] >> 4)
    syn[0] = <uint32_t> tcp[14] << 24 | <uint32_t> tcp[15] << 16 | ttl << 8 | flags
    syn_options(at, end, syn)


cdef const uint8_t* syn_after_extensions(const uint8_t* packet, const uint8_t* end) noexcept nogil:
    """Where the TCP header of an IPv6 packet begins. NULL: not found."""
    cdef const uint8_t* at = packet + 40
    cdef uint8_t kind = packet[6]
    cdef int _header
    for _header in range(SYN_EXTENSIONS):
        if kind == IPPROTO_TCP:
            return at
        if kind not in (0, 43, 60) or end - at < 8:     # hop-by-hop, routing, destination (RFC 8200 4)
            return NULL
        kind = at[0]
        at += 8 + 8 * <size_t> at[1]
        if at > end:
            return NULL
    return NULL


cdef void syn_options(const uint8_t* at, const uint8_t* end, uint32_t* syn) noexcept nogil:
    cdef SynOption option
    cdef size_t length
    cdef int count = 0
    while at < end:
        length = 1 if at[0] < 2 else at[1] if end - at > 1 else 0
        if length == 0 or length == 1 and at[0] >= 2 or length > <size_t> (end - at):
            syn[0] |= SYN_CUT
            return
        option = SYN_OTHER
        if at[0] == 0:
            option = SYN_EOL
        elif at[0] == 1:
            option = SYN_NOP
        elif at[0] == 2 and length == 4:
            option = SYN_MSS
            syn[1] = syn[1] & 0xFFFF | <uint32_t> at[2] << 24 | <uint32_t> at[3] << 16
        elif at[0] == 3 and length == 3:
            option = SYN_SCALE
            syn[1] = (syn[1] >> 16) << 16 | (<uint32_t> at[2] + 1)
        elif at[0] == 4 and length == 2:
            option = SYN_SACK
        elif at[0] == 8 and length == 10:
            option = SYN_TIMES
        elif at[0] == 34:
            option = SYN_FAST_OPEN
        elif at[0] == 30:
            option = SYN_MULTIPATH
        if count == SYN_ROOM:
            syn[0] |= SYN_MORE
            return
        syn[2] |= <uint32_t> option << 4 * count
        count += 1
        if option == SYN_EOL:
            return
        at += length


def syn_in(bytes packet, int times=1):
    cdef uint32_t[3] syn
    cdef int _time
    for _time in range(times):
        syn_read(<const uint8_t*> <const char*> packet, len(packet), syn)
    return syn[0], syn[1], syn[2]
