# The core: accept to verdict and hand-off. One extension, because calls inside it are inlined.
# Read session.pyx first: it is the way of a connection from top to bottom.

include "address.pyx"
