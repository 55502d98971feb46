"""The listening sockets: bound once, kept over reloads; one for each worker, and a client is always the same one's."""

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct

from fastscreen.config.model import Endpoint, Prefix

BACKLOG = socket.SOMAXCONN
WHOLE = Prefix(32, 64)

_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_DETACH_REUSEPORT_BPF = 68
# Classic BPF (linux/filter.h), as far as it is needed here.
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_TO_X = 0x07  # BPF_MISC | BPF_TAX
_STORE, _LOAD = 0x02, 0x60  # BPF_ST; BPF_LD | BPF_MEM
_AND, _XOR, _MULTIPLY, _SHIFT, _REMAINDER = 0x54, 0xA4, 0x24, 0x74, 0x94  # BPF_ALU | ... | BPF_K
_XOR_X = 0xAC  # BPF_ALU | BPF_XOR | BPF_X
_RETURN = 0x16  # BPF_RET | BPF_A
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets count from the IP header
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8


def has_ipv6() -> bool:
    """Whether the kernel has it."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def new_key() -> int:
    """What the choice of a client's worker depends on. Random: nobody outside can find addresses that fall to one."""
    return int.from_bytes(os.urandom(8), "big")


def listen(
    address: Endpoint, workers: int, key: int, prefix: Prefix = WHOLE, *, by_client: bool = True
) -> list[socket.socket]:
    """Bind and listen: a socket for each worker. OSError: with the address in its text.

    key: of `new_key`, one for all addresses of a daemon: a client is the same worker's at each of them. With several
    workers, a client that connects before all sockets listen, some ms, may fall to another one than later. prefix: bits
    of its address that choose. by_client=False: where all come from a balancer; the kernel spreads them out.

    The backlog is as long as the kernel allows (net.core.somaxconn): a burst waits there. SO_KEEPALIVE is inherited
    by every client's socket (reference 2.1).
    """
    opened: list[socket.socket] = []
    try:
        if workers == 1:
            opened.append(_bound(address, shared=False))
            opened[0].listen(BACKLOG)
            return opened
        # Another program of the same user with SO_REUSEPORT would share our port unnoticed: try without it.
        _bound(address, shared=False).close()
        for _ in range(workers):
            opened.append(_bound(address, shared=True))
            opened[-1].listen(BACKLOG)
            if len(opened) == 1:
                address = Endpoint(address.host, opened[0].getsockname()[1])
                if by_client:
                    choose_by_client(opened[0], workers, key, prefix)
        return opened
    except OSError as error:
        for listener in opened:
            listener.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None


def _bound(address: Endpoint, *, shared: bool) -> socket.socket:
    version = ipaddress.ip_address(address.host).version
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, address.port))
    except OSError:
        listener.close()
        raise
    return listener


def choose_by_client(first: socket.socket, workers: int, key: int, prefix: Prefix) -> None:
    """Let the kernel pick the socket of the group by the client's address alone (IPv6: its /64). OSError."""
    program = _program(first.family == socket.AF_INET6, workers, key, prefix)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions, and where they are
    described = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    try:
        first.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)
    except OSError as error:
        raise OSError(
            error.errno or errno.EINVAL, "SO_ATTACH_REUSEPORT_CBPF: " + os.strerror(error.errno or 0)
        ) from None


def choose_freely(first: socket.socket) -> None:
    """Let the kernel pick as it likes, as for a port that is a balancer's now."""
    with contextlib.suppress(OSError):  # no program is attached
        first.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


def _program(ipv6: bool, workers: int, key: int, prefix: Prefix) -> bytes:
    """A keyed hash of the source address, modulo the number of workers. core.worker_of calculates the same."""
    mask, factor = key & 0xFFFFFFFF, key >> 32 | 1
    fold = [(_TO_X, 0), (_SHIFT, 16), (_XOR_X, 0)]  # the product's high bits depend on all of its factor's
    mixed = [(_XOR, mask), *fold, (_MULTIPLY, factor), *fold, (_MULTIPLY, factor), *fold]
    source = _NETWORK_HEADER + (_IPV6_SOURCE if ipv6 else _IPV4_SOURCE)
    bits = min(prefix.ipv6, 64) if ipv6 else prefix.ipv4
    steps = [(_LOAD_WORD, source), (_AND, _leading(bits)), *mixed]
    if ipv6:
        # The second word is masked before the first one's hash is mixed in: the kernel's scratch memory keeps that.
        steps += [(_STORE, 0), (_LOAD_WORD, source + 4), (_AND, _leading(bits - 32)), (_TO_X, 0), (_LOAD, 0)]
        steps += [(_XOR_X, 0), *mixed]
    steps += [(_REMAINDER, workers), (_RETURN, 0)]
    return b"".join(struct.pack("HBBI", code, 0, 0, operand) for code, operand in steps)


def _leading(bits: int) -> int:
    """A word with so many of its highest bits set."""
    return 0xFFFFFFFF << (32 - min(max(bits, 0), 32)) & 0xFFFFFFFF


def inbox() -> tuple[socket.socket, socket.socket]:
    """Both ends of a worker's inbox: clients accepted by another worker are sent there (ext/worker_routing.pyx)."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends
