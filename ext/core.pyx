# The core: accept to verdict and hand-off. One extension, because calls inside it are inlined.
# Read session.pyx first: it is the way of a connection from top to bottom.

import os

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTCONN
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strchr, strerror, strlen
from posix.strings cimport strncasecmp

include "address.pyx"
include "networks.pyx"
include "timers.pyx"
include "pace.pyx"
include "clients.pyx"
include "record.pyx"
include "lines.pyx"
include "dns.pyx"
include "log.pyx"
include "events.pyx"
include "access.pyx"
include "policy.pyx"
include "dnsbl.pyx"
include "queries.pyx"
include "session.pyx"
include "engine.pyx"
include "handoff.pyx"
include "live.pyx"
include "screener.pyx"
