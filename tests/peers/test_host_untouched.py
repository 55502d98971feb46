"""The peers do not change the host while they run, and leave nothing behind."""

from pathlib import Path

from peers.lab import Lab


def test_host_sees_nothing(lab: Lab) -> None:
    """The host has neither the namespace's addresses and ports, nor its resolv.conf, nor a mount of it."""
    assert "127.0.53.1" not in Path("/etc/resolv.conf").read_text()
    assert "fastscreen-" not in Path("/proc/self/mountinfo").read_text()
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    assert not any(int(address.split(":")[1], 16) in lab.ports.values() for address in listening)
    assert "20010db8" not in Path("/proc/net/if_inet6").read_text()
