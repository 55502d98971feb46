# Descriptors through a Unix socket (SCM_RIGHTS): to the MTA, to a TLS process, from worker to worker.

from libc.stddef cimport size_t

cdef extern from "<sys/socket.h>" nogil:
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level, cmsg_type
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    unsigned char* CMSG_DATA(cmsghdr* header)
    size_t CMSG_LEN(size_t size)
    Py_ssize_t sendmsg(int fd, const msghdr* message, int flags)
    Py_ssize_t recvmsg(int fd, msghdr* message, int flags)
    const int SOL_SOCKET, SCM_RIGHTS, MSG_CMSG_CLOEXEC


cdef Py_ssize_t rights_send(int channel, void* data, size_t size, const int* descriptors, int count) noexcept nogil:
    """Send data, not empty, with one or two descriptors, without waiting. Return the result of sendmsg."""
    cdef msghdr message
    cdef iovec part
    cdef size_t control[8]          # CMSG_SPACE for two descriptors, aligned
    cdef cmsghdr* header
    part.iov_base = data
    part.iov_len = size
    memset(&message, 0, sizeof(message))
    memset(control, 0, sizeof(control))
    message.msg_iov = &part
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CMSG_LEN(count * sizeof(int))
    header = CMSG_FIRSTHDR(&message)
    header.cmsg_level = SOL_SOCKET
    header.cmsg_type = SCM_RIGHTS
    header.cmsg_len = CMSG_LEN(count * sizeof(int))
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int))
    return sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL)


cdef Py_ssize_t rights_receive(int channel, void* data, size_t size, int* descriptor) noexcept nogil:
    """Receive data and a descriptor (-1 if it is missing), without waiting. Return the result of recvmsg."""
    cdef msghdr message
    cdef iovec part
    cdef size_t control[8]
    cdef cmsghdr* header
    cdef Py_ssize_t got
    descriptor[0] = -1
    part.iov_base = data
    part.iov_len = size
    memset(&message, 0, sizeof(message))
    message.msg_iov = &part
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = sizeof(control)
    got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
    if got > 0:
        header = CMSG_FIRSTHDR(&message)
        if header != NULL and header.cmsg_level == SOL_SOCKET and header.cmsg_type == SCM_RIGHTS:
            memcpy(descriptor, CMSG_DATA(header), sizeof(int))
    return got
