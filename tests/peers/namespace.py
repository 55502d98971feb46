"""A mount and network namespace of the tests' own: every 127/8 address, 2001:db8::/32, port 25 and 53 are free in it.

Nothing of the host changes: the namespace lives as long as one `sleep` process, and its resolv.conf is bind-mounted
inside it only.
"""

import ctypes
import os
import socket
import subprocess
import threading
from pathlib import Path

from peers import needs, processes

CLONE_NEWNET = 0x40000000

# Every address of 127/8 and of the IPv6 documentation range can be bound; those that servers listen on are on the
# interface because Postfix looks for them there.
_SETUP = """
set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind
ip -6 route add local 2001:db8::/32 dev lo
for address in 127.1.0.1/32 127.1.0.2/32 127.2.0.1/32 127.2.0.2/32; do ip address add $address dev lo; done
for address in 2001:db8::1/128 2001:db8::2:1/128 2001:db8::2:2/128; do ip address add $address dev lo; done
mount --bind {resolv_conf} /etc/resolv.conf
echo ready
exec sleep infinity
"""


class Namespace:
    """The namespace; `inside` is the command prefix that runs a program in it."""

    def __init__(self, resolv_conf: Path) -> None:
        needs.root("mount and network namespaces")
        unshare = needs.program("unshare")
        needs.program("ip")
        script = _SETUP.format(resolv_conf=resolv_conf)
        self._holder = subprocess.Popen(
            [unshare, "--mount", "--net", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if said != b"ready\n":
            rest = self._holder.stdout.read()
            self._holder.wait()
            raise RuntimeError(f"cannot make a namespace: {(said + rest).decode(errors='replace').strip()}")
        self.inside = ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--"]

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Make a socket that belongs to the namespace; it may be used from anywhere."""
        made: list[socket.socket] = []
        failed: list[OSError] = []

        def make() -> None:  # setns(2) moves the calling thread alone, and this thread ends here
            handle = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.socket(family, kind))
            except OSError as error:
                failed.append(error)
            finally:
                os.close(handle)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def close(self) -> None:
        """End the namespace's own process; what still runs inside must have been stopped before."""
        processes.stop(self._holder)
        if self._holder.stdout is not None:
            self._holder.stdout.close()
