"""What `fastscreen check` says of an access list that lets everyone through."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastscreen.cli import check_access
from fastscreen.cli.check_access import Bridge, Found, checked_access
from fastscreen.config import load


def found(tmp_path: Path, text: str, *bridges: Bridge) -> list[Found]:
    path = tmp_path / "c.toml"
    path.write_text(f"[access]\n{text}\n")
    return list(checked_access(load(path), lambda: list(bridges)))


@pytest.mark.parametrize(
    ("text", "family", "where"),
    [
        ('mynetworks = ["127.0.0.0/8", "0.0.0.0/0"]', "IPv4", "access.mynetworks"),
        ('mynetworks = ["!192.0.2.1", "0.0.0.0/1", "128.0.0.0/1"]', "IPv4", "access.mynetworks"),
        ('mynetworks = ["::/0"]', "IPv6", "access.mynetworks"),
        ('list = ["permit"]', "IPv4", "access.list, permit"),
        ('list = ["cidr:{{192.0.2.1 reject}, {0.0.0.0/0 permit}}"]', "IPv4", "access.list, cidr:"),
        ('list = ["static:permit"]', "IPv4", "access.list, static:permit"),
    ],
)
def test_everyone_is_permitted(text: str, family: str, where: str, tmp_path: Path) -> None:
    ((key, well, said, _),) = found(tmp_path, text)
    assert (key, well) == ("access.list", False)
    assert said.startswith(f"every {family} client is permitted ({where}")
    assert said.endswith("so no client is tested")


def test_networks_of_a_file_count(tmp_path: Path) -> None:
    (tmp_path / "nets").write_text("0.0.0.0/0\n")
    assert found(tmp_path, f'mynetworks = ["{tmp_path}/nets"]')[0][2].startswith("every IPv4 client")


@pytest.mark.parametrize(
    "text",
    [
        'mynetworks = ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "2001:db8::/32"]',
        'mynetworks = ["0.0.0.0/0"]\nlist = ["reject"]',
        'mynetworks = ["!0.0.0.0/0", "0.0.0.0/0"]',
        'list = ["cidr:{{0.0.0.0/0 reject}}", "permit_mynetworks"]',
        "",
    ],
)
def test_nothing_is_said_of_usual_lists(text: str, tmp_path: Path) -> None:
    assert found(tmp_path, text) == []


@pytest.mark.parametrize("network", ["172.17.0.0/16", "172.17.0.1", "10.88.0.0/16", "10.0.2.0/24"])
def test_a_container_engines_own_network(network: str, tmp_path: Path) -> None:
    ((_, well, said, told),) = found(tmp_path, f'mynetworks = ["127.0.0.0/8", "{network}"]')
    assert well and told
    assert "bridge) is permitted (permit_mynetworks)" in said
    assert said.endswith("all clients may have this address, and no client is tested")


def test_a_bridge_of_this_machine(tmp_path: Path) -> None:
    ours = Bridge("10.5.0.1", "the bridge br0")
    ((_, _, said, _),) = found(tmp_path, 'mynetworks = ["10.0.0.0/8"]', ours)
    assert said.startswith("10.5.0.1 (the bridge br0) is permitted")
    assert found(tmp_path, 'mynetworks = ["192.0.2.0/24"]', ours) == []


def test_the_default_route_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "route"
    gateway = int.from_bytes(socket.inet_aton("172.18.0.1"), "little" if sys.byteorder == "little" else "big")
    table.write_text(f"Iface Destination Gateway\neth0 00000000 {gateway:08X} 0003\neth0 000012AC 00000000 0001\n")
    monkeypatch.setattr(check_access, "Path", lambda name: table if name == "/proc/net/route" else Path(name))
    assert check_access._gateways() == ["172.18.0.1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bridges_are_found_in_a_namespace() -> None:
    """A real bridge, in a separate network namespace."""
    program = "from fastscreen.cli import check_access; print([(b.address, b.what) for b in check_access._bridges()])"
    script = (
        "mount -t sysfs none /sys && ip link add br-test type bridge && ip address add 10.9.8.1/24 dev br-test && "
        f"{sys.executable} -c '{program}'"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", script], capture_output=True, text=True, timeout=60
    )
    assert "('10.9.8.1', 'the bridge br-test')" in done.stdout, done.stderr
