# Struct layouts and state enums of the core. The functions are in the parts that core.pyx includes;
# what Python sees is documented in core.pyi.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


# An endpoint. An IPv4 address fills the first four octets; IPv4-mapped IPv6 is IPv4 here (reference 2.8).
cdef struct Address:
    uint8_t ip[16]          # network byte order; unused octets are zero
    uint16_t port           # host byte order
    uint8_t family          # 4 or 6
