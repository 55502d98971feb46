# The core: accept to verdict and hand-off. One extension, because calls inside it are inlined.
# Read session.pyx first: it follows a connection from top to bottom.

import os
from itertools import islice

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
include "smtp_replies.pyx"
include "test_table.pyx"
include "score_table.pyx"
include "timers.pyx"
include "watches.pyx"
include "batching.pyx"
include "client_prefix.pyx"
include "client_table.pyx"
include "cache_record.pyx"
include "smtp_lines.pyx"
include "dns_packet.pyx"
include "proxy_header.pyx"
include "log.pyx"
include "event_ring.pyx"
include "dialect.pyx"
include "saved_syn.pyx"
include "history_record.pyx"
include "history_filter.pyx"
include "history_ring.pyx"
include "as_table.pyx"
include "offense_record.pyx"
include "access.pyx"
include "mta_targets.pyx"
include "proxy_send.pyx"
include "policy.pyx"
include "dnsbl_health.pyx"
include "dnsbl.pyx"
include "dns_queries.pyx"
include "rates.pyx"
include "cluster.pyx"
include "history_session.pyx"
include "session.pyx"
include "greet.pyx"
include "score_seen.pyx"
include "score_responses.pyx"
include "fd_passing.pyx"
include "proxy_accept.pyx"
include "smtp_engine.pyx"
include "mta_handoff.pyx"
include "starttls.pyx"
include "history_replies.pyx"
include "mta_relay.pyx"
include "mta_continue.pyx"
include "worker_routing.pyx"
include "snapshot.pyx"
include "screener.pyx"
include "history_judge_types.pyx"
include "history_judge_table.pyx"
include "history_judge_score.pyx"
include "history_judge_session.pyx"
include "history_judge_passes.pyx"
include "history_judge.pyx"
include "history_weights.pyx"
include "labeled_sessions.pyx"
