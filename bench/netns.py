"""A mount and network namespace for the run: every 127.x address and port is free there, and the host is not affected.

Its resolv.conf names the bench's own DNS server, because postscreen's dnsblog asks whom the system asks.
"""

import ctypes
import os
import subprocess
from pathlib import Path

from bench.programs import BenchError

RESOLVER = "127.0.53.1"

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000


def enter(folder: Path) -> None:
    """Move this process and its future children there permanently. BenchError: not root, or the kernel refuses."""
    if os.geteuid() != 0:
        raise BenchError("must be run as root, for Postfix's master and a network namespace")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise BenchError(f"cannot make a namespace: {os.strerror(ctypes.get_errno())}")
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {RESOLVER}\noptions timeout:5 attempts:2\n")
    _run_command("mount", "--make-rprivate", "/")
    _run_command("mount", "--bind", str(resolv_conf), "/etc/resolv.conf")
    _run_command("ip", "link", "set", "lo", "up")


def _run_command(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed: install Debian's packages iproute2 and util-linux") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(command)}: {error.stderr.strip()}") from None
