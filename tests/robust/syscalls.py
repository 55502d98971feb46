"""System calls that fail: what the kernel does when it is out of memory or over a limit, for one thread of a test."""

import ctypes
import errno
import platform
import struct
import threading
from collections.abc import Callable

import pytest

_NUMBERS = {
    "x86_64": {"epoll_ctl": 233, "recvfrom": 45},
    "aarch64": {"epoll_ctl": 21, "recvfrom": 207},
}
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # prctl(2)
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: of a 32-bit word at an offset; jump; end
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # linux/seccomp.h: _FAIL plus the errno


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def with_failing(call: str, argument: int, value: int, error: int, run: Callable[[], object]) -> None:
    """Run a function in a thread where a system call fails if its argument of this number (from 0) has this value."""
    number = _NUMBERS.get(platform.machine(), {}).get(call)
    if number is None:
        pytest.skip(f"the number of {call}(2) on {platform.machine()} is not known here")
    instructions = (
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16 + 8 * argument),  # struct seccomp_data; both machines are little-endian
        (_EQUAL, 0, 1, value),
        (_RETURN, 0, 0, _FAIL | error),
        (_RETURN, 0, 0, _ALLOW),
    )
    text = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    program = _Program(len(instructions), text)
    libc = ctypes.CDLL(None, use_errno=True)
    raised: list[BaseException] = []

    def begin() -> None:
        try:
            for arguments in ((_NO_NEW_PRIVS, 1, 0), (_SET_SECCOMP, _FILTER, ctypes.byref(program))):
                if libc.prctl(*arguments, 0, 0):
                    raise OSError(ctypes.get_errno(), f"prctl {errno.errorcode[ctypes.get_errno()]}")
            run()
        except BaseException as caught:
            raised.append(caught)

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
