# The core: accept to verdict and hand-off. One extension, because calls inside it are inlined.
# Read session.pyx first: it is the way of a connection from top to bottom.

import os

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport (
    EAGAIN, EBUSY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC,
    ENOTCONN, ETIMEDOUT, EUSERS)
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strchr, strerror, strlen
from posix.strings cimport strcasecmp, strncasecmp

include "address.pyx"
include "networks.pyx"
include "timers.pyx"
include "watches.pyx"
include "pace.pyx"
include "prefix.pyx"
include "clients.pyx"
include "record.pyx"
include "lines.pyx"
include "dns.pyx"
include "proxyheader.pyx"
include "log.pyx"
include "events.pyx"
include "access.pyx"
include "targets.pyx"
include "proxywrite.pyx"
include "replies.pyx"
include "policy.pyx"
include "health.pyx"
include "dnsbl.pyx"
include "queries.pyx"
include "rates.pyx"
include "session.pyx"
include "rights.pyx"
include "arrivals.pyx"
include "engine.pyx"
include "handoff.pyx"
include "starttls.pyx"
include "relay.pyx"
include "continue.pyx"
include "crew.pyx"
include "live.pyx"
include "screener.pyx"
