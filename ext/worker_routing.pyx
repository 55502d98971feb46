# The other workers. A client is always served by the same worker. On a plain port the kernel ensures this
# (listeners.py). A client that a PROXY header names is passed on here, with its descriptor, to the worker that the same
# keyed hash selects. Each worker has an inbox, a Unix socket whose sending end all workers hold.

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t ntohl(uint32_t number)


# The message with a descriptor from worker to worker: both are the same program, so it is a plain struct.
cdef struct Passed:
    Address client
    Address server
    uint8_t quiet


cdef inline uint32_t crew_mixed(uint32_t word, uint64_t key) noexcept nogil:
    cdef uint32_t factor = <uint32_t> (key >> 32) | 1
    word ^= <uint32_t> key
    word ^= word >> 16
    word *= factor
    word ^= word >> 16
    word *= factor
    return word ^ word >> 16


cdef uint32_t crew_worker_of(const Address* client, uint32_t count, uint64_t key, const Prefix* prefix) noexcept nogil:
    """The worker, from 0, that serves a client: the kernel gets the same result with the program in listeners.py."""
    cdef Address masked = client[0]
    cdef uint32_t words[2]
    cdef uint32_t found
    prefix_mask(prefix, &masked)
    memcpy(words, masked.ip, 8)
    found = crew_mixed(ntohl(words[0]), key)
    if masked.family == 6:
        found = crew_mixed(found ^ ntohl(words[1]), key)
    return found % count


def worker_of(str client not None, uint32_t count, uint64_t key, lengths):
    """See core.pyi."""
    cdef Address address
    cdef Prefix prefix
    prefix_set(&prefix, lengths)
    if "\0" in client or not address_parse(client.encode(), &address):
        raise ValueError(f"{client!r} is not an address")
    return crew_worker_of(&address, count, key, &prefix)


cdef bint crew_pass(Screener core, int fd, const Address* client, const Address* server, bint quiet) noexcept:
    """Pass a client to its worker. False: it is this worker, or the other worker does not accept clients now."""
    cdef Passed passed
    cdef uint32_t worker
    if core.crew_count < 2 or core.draining:
        return False
    worker = crew_worker_of(client, core.crew_count, core.crew_key, &core.crew_prefix)
    if worker == core.crew_number:
        return False
    memset(&passed, 0, sizeof(passed))
    passed.client = client[0]
    passed.server = server[0]
    passed.quiet = quiet
    if rights_send(core.crew_inboxes[worker], &passed, sizeof(passed), &fd, 1) < 0:
        return False
    core.passed_on += 1
    return True


cdef bint inbox_readable(Screener core, int inbox) noexcept:
    """Accept our clients that connected to another worker, up to a limit. True: no more are waiting."""
    cdef Passed passed
    cdef int fd, left = ACCEPT_BATCH
    while left and not core.accept_paused:
        left -= 1
        core.reserve()
        if core.spare < 0:
            core.pause_accept(ACCEPT_RETRY_TIME)
            return False
        # Without a free descriptor, recvmsg would read the message and lose the client: use the reserve for it.
        close(core.spare)
        core.spare = -1
        if not inbox_take(inbox, &passed, &fd):
            core.reserve()
            return True
        if fd >= 0:
            session_begin(core, fd, &passed.client, &passed.server, passed.quiet, not passed.quiet)
    core.reserve()
    return False


cdef bint inbox_take(int inbox, Passed* passed, int* fd) noexcept nogil:
    """Read one message. False: no message is waiting. fd -1: the message is not from one of our workers."""
    cdef Py_ssize_t got = rights_receive(inbox, passed, sizeof(Passed), fd)
    if got <= 0:
        return False
    if got != sizeof(Passed) and fd[0] >= 0:
        close(fd[0])
        fd[0] = -1
    return True
