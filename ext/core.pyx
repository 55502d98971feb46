# The core: accept to verdict and hand-off. One extension, because calls inside it are inlined.
# Read session.pyx first: it is the way of a connection from top to bottom.

cimport cython
from libc.string cimport memcmp, memcpy, memmove, memset

include "address.pyx"
include "networks.pyx"
include "dns.pyx"
