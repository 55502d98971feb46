"""Two workers and IPv6: a client may choose any address of its /64, and is the same worker's with all of them."""

import re
import socket
import subprocess
import sys

import pytest

from fastscreen.config.model import Prefix
from fastscreen.core import worker_of
from fastscreen.daemon.listeners import WHOLE
from peers.lab import Lab
from peers.processes import wait_until

SERVICE = "early"

KEY = 0xFEDCBA9876543210
CHOSEN = f"""
import select, socket, sys
from fastscreen.config.model import Endpoint, Prefix
from fastscreen.daemon.listeners import listen
listeners = listen(Endpoint("2001:db8::2:1", 0), 3, {KEY}, Prefix(32, int(sys.argv[1])))
for source in sys.argv[2:]:
    with socket.socket(socket.AF_INET6) as client:
        client.bind((source, 0))
        client.connect(listeners[0].getsockname())
        for at, one in enumerate(listeners):
            if select.select([one], [], [], 0)[0]:
                print(at)
                one.accept()[0].close()
"""


def test_all_of_a_64_fall_to_one_worker(lab: Lab) -> None:
    """By the pid of the CONNECT lines: one worker a network, and each worker has some of 16 networks."""
    (side,) = lab.fastscreen([SERVICE], 2)
    owners: list[set[str]] = []
    for network in range(16):
        hosts = (host.to_bytes(8, "big") for host in (1, 0xFFFF, 0x1234567890))
        prefix = bytes.fromhex(f"20010db800aa{network:04x}")
        owners.append({owner(lab, side.address6, side.port, prefix + host) for host in hosts})
    assert all(len(pids) == 1 for pids in owners)
    assert len(set.union(*owners)) == 2


def owner(lab: Lab, host: str, port: int, source: bytes) -> str:
    """Connect from an address; return the pid of the worker that accepted it."""
    name = socket.inet_ntop(socket.AF_INET6, source)
    line = re.compile(rf"\[(\d+)\]: CONNECT from \[{re.escape(name)}\]")
    log = lab.screener(SERVICE, 2).log
    with lab.namespace.socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.bind((name, 0))
        client.connect((host, port))
        assert client.recv(4) == b"220-"
        wait_until(lambda: bool(line.search(log.read_text())), f"CONNECT from {name}")
    found = line.search(log.read_text())
    assert found
    return found[1]


@pytest.mark.parametrize("prefix", [WHOLE, Prefix(32, 48), Prefix(32, 29)])
def test_worker_of_is_the_kernels_choice(lab: Lab, prefix: Prefix) -> None:
    """The control server calculates the same worker as the kernel, for many addresses."""
    sources = [f"2001:db8:{number * 911:x}:{number * 577:x}::{number:x}" for number in range(1, 61)]
    command = [*lab.namespace.inside, sys.executable, "-c", CHOSEN, str(prefix.ipv6), *sources]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stderr == ""
    assert [int(line) for line in run.stdout.split()] == [worker_of(source, 3, KEY, prefix) for source in sources]
