"""Checks for access lists that permit every client."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from fastscreen.config import Config
from fastscreen.escaping import escape_text
from fastscreen.screening.access_list import AccessList, load_access

Found = tuple[str, bool, str, bool]  # the fields of check.Check

# Addresses all over the Internet. A list that permits all of them permits every client.
_STRANGERS = {
    "IPv4": [f"{first}.97.31.{200 - first // 2}" for first in (1, 8, 23, 45, 64, 77, 91, 104, 123, 151, 185, 203, 222)],
    "IPv6": [f"{first}::97:31" for first in ("2001:200", "2400:cb00", "2600:1f00", "2800:3f0", "2a00:1450", "2c0f:f0")],
}
# Default networks of container engines.
_BRIDGES = {
    "172.17.0.0/16": "Docker's",
    "10.88.0.0/16": "Podman's",
    "10.0.2.0/24": "that of rootless containers",
    "10.0.3.0/24": "LXC's",
}
_PRIVATE = [ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]  # RFC 1918
_SIOCGIFADDR = 0x8915  # netdevice(7)
_IN_CONTAINER = ("/.dockerenv", "/run/.containerenv")


class Bridge(Struct, frozen=True):
    """A source address that a container may see for all clients. what: what uses the address."""

    address: str
    what: str


def checked_access(config: Config, bridges: Callable[[], list[Bridge]] | None = None) -> Iterator[Found]:
    """Whether any clients are tested at all. Raises ConfigError if a table cannot be read."""
    access = load_access(config)
    for family, strangers in _STRANGERS.items():
        found = [access.find(address) for address in strangers]
        if all(each.decision == "permit" for each in found):
            step = found[0].step
            where = "access.mynetworks" if step == "permit_mynetworks" else f"access.list, {escape_text(step, 200)}"
            yield "access.list", False, f"every {family} client is permitted ({where}), so no client is tested", True
            return
    for bridge in (bridges or _bridges)() + _usual(config.access.mynetworks):
        decided = access.find(bridge.address)
        if decided.decision == "permit":
            yield "access.list", True, _bridge_detail(bridge, access, decided.step), True
            return


def _bridge_detail(bridge: Bridge, access: AccessList, step: str) -> str:
    return (
        f"{bridge.address} ({bridge.what}) is permitted ({escape_text(step, 200)}); if the port is forwarded to a "
        "container, all clients may have this address, and no client is tested"
    )


def _usual(networks: Sequence[str]) -> list[Bridge]:
    """The configured networks that belong to a container engine."""
    found = []
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            continue  # a file or an exclusion
        for bridge, whose in _BRIDGES.items():
            if isinstance(network, ipaddress.IPv4Network) and network.subnet_of(ipaddress.IPv4Network(bridge)):
                found.append(Bridge(str(network[1] if network.num_addresses > 1 else network[0]), f"{whose} bridge"))
    return found


def _bridges() -> list[Bridge]:
    """The bridges of this machine; in a container, its default gateway."""
    found = [
        Bridge(address, f"the bridge {escape_text(path.name)}")
        for path in sorted(Path("/sys/class/net").glob("*"))
        if (path / "bridge").is_dir() and (address := _address_of(path.name))
    ]
    if "container" in os.environ or any(Path(each).exists() for each in _IN_CONTAINER):
        private = [each for each in _gateways() if any(ipaddress.ip_address(each) in network for network in _PRIVATE)]
        found += [Bridge(gateway, "the gateway of this container") for gateway in private]
    return found


def _address_of(interface: str) -> str:
    """The IPv4 address of an interface, or empty."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", os.fsencode(interface)[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(reply[20:24])


def _gateways() -> list[str]:
    """The gateways of default routes. /proc/net/route has addresses in host byte order (proc(5))."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return []
    routes = [line.split() for line in lines]
    return [
        socket.inet_ntoa(struct.pack("=I", int(route[2], 16)))
        for route in routes
        if len(route) > 2 and route[1] == "00000000" and route[2] != "00000000"
    ]
