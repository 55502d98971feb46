"""The scorers of HELO names against a model of them in plain Python."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.config import load
from fastscreen.core import SCORERS, Policy, evidence_in
from fastscreen.screening import policy

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

HOSTNAME = "mx1.provider-host.se"
SERVER = "198.51.100.7"
RESERVED = (
    "test", "example", "invalid", "localhost", "localdomain", "local", "internal", "onion", "alt", "home.arpa",
    "example.com", "example.net", "example.org",
)  # fmt: skip
LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = re.compile(rb"%b(?:\.%b)*" % (LABEL, LABEL))
LITERAL = re.compile(rb"\[(%b):[!-Z^-~]+\]" % LABEL)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy with our host name."""
    file = tmp_path_factory.mktemp("helo") / "fastscreen.toml"
    file.write_text(f'hostname = "{HOSTNAME}"\n')
    return policy.build(load(Path(file)), "/nowhere", print).policy


# ---- the model


def model(text: bytes, peer: str) -> list[str]:
    found = []
    kind = kind_of(text)
    if kind != "name":
        found.append(f"helo_{kind}")
    named = address_of(text)
    if named == ipaddress.ip_address(SERVER) if named else text.lower() == HOSTNAME.encode():
        found.append("helo_ours")
    client = ipaddress.ip_address(peer)
    if kind != "address" and len(text) <= 255 and any(re.search(each, text, re.IGNORECASE) for each in forms(client)):
        found.append("helo_client_address")
    elif kind != "address" and len(text) <= 255 and client.version == 6:
        digits = re.sub(rb"[-._]", b"", text.lower())
        nibbles = client.packed.hex().encode()
        if nibbles in digits or nibbles[::-1] in digits:
            found.append("helo_client_address")
    return found


def kind_of(text: bytes) -> str:
    if address_of(text):
        return "address"
    if (literal := LITERAL.fullmatch(text)) and has_letter(literal[1]):
        return "address"
    labels = text.split(b".")
    if len(text) > 255 or not DOMAIN.fullmatch(text) or not has_letter(labels[-1]):
        return "not_qualified"
    name = text.decode().lower()
    if any(name == reserved or name.endswith("." + reserved) for reserved in RESERVED):
        return "reserved"
    return "name" if len(labels) > 1 else "not_qualified"


def has_letter(label: bytes) -> bool:
    return re.search(rb"[A-Za-z-]", label) is not None


def address_of(text: bytes) -> Ip | None:
    if len(text) >= 2 and text[:1] == b"[" and text[-1:] == b"]":
        text = text[1:-1]
        if text[:5].lower() == b"ipv6:" and len(text) > 5:
            text = text[5:]
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if b"%" in text:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def forms(client: Ip) -> list[bytes]:
    """Regular expressions for a client's address in a name."""
    if client.version == 4:
        made = []
        for octets in (list(client.packed), list(client.packed)[::-1]):
            made.append("[-._x]".join(f"0{{0,{3 - len(str(each))}}}{each}" for each in octets))
            made.append("".join(f"{each:03}" for each in octets))
        decimal = [rf"(?<![0-9]){each}(?![0-9])" for each in made]
        hexadecimal = [bytes(client.packed).hex(), bytes(client.packed[::-1]).hex()]
        return [each.encode() for each in [*decimal, *(f"(?<![0-9a-f]){each}(?![0-9a-f])" for each in hexadecimal)]]
    groups = [f"{int(group, 16):x}" for group in client.exploded.split(":")]
    usual = socket.inet_ntop(socket.AF_INET6, client.packed).replace(":", "-")
    return [f"(?<![0-9a-f]){re.escape(each)}(?![0-9a-f])".encode() for each in (usual, "-".join(groups))]


# ---- names, odd and usual

PEERS = st.sampled_from(["192.0.2.1", "1.2.3.4", "10.200.30.255", "2001:db8::25", "2001:db8:a:b:c:d:e:f", "::1"])
PARTS = st.sampled_from(
    ["mail", "mx1", "-", ".", "..", "_", "x", "X", "[", "]", "IPv6:", "ipv6:", "tag:", ":", "::", "localhost",
     "localdomain", "example", "com", "org", "net", "test", "internal", "home.arpa", "a" * 63, "a" * 64, "0", "00",
     "1", "2", "3", "4", "192", "192.0.2.1", "1.2.0.192", "192-0-2-1", "192x0x2x1", "192000002001", "001002003004",
     "c0000201", "C0000201", "010200c0", "10", "200", "30", "255", "256", "1000", "2001-db8--25",
     "2001-db8-a-b-c-d-e-f",
     "20010db8000000000000000000000025", "2001:db8::25", "5.2.0.0", HOSTNAME, HOSTNAME.upper(), SERVER, "::ffff:",
     "\xe9", "%eth0", "\x7f", "se", "host"]
)  # fmt: skip
NAMES = st.lists(PARTS, max_size=9).map("".join).map(lambda text: text.encode("latin-1")) | st.binary(max_size=300)


@given(NAMES, PEERS)
def test_the_core_agrees_with_the_model(settings: Policy, text: bytes, peer: str) -> None:
    assert evidence_in("hello", text, peer, SERVER, settings) == model(text, peer)


@given(
    st.ip_addresses(v=4) | st.ip_addresses(network="2001:db8::/32"),
    st.integers(0, 11),
    st.sampled_from(["", "host-", "a.", "x"]),
)
def test_an_address_in_a_name_is_found(settings: Policy, client: Ip, form: int, before: str) -> None:
    """However a provider writes it."""
    octets = list(client.packed) if form % 2 else list(client.packed)[::-1]
    digits = client.packed.hex()
    if client.version == 4:
        texts = [separator.join(map(str, octets)) for separator in "-._x"]
        texts += ["-".join(f"{each:03}" for each in octets), "".join(f"{each:03}" for each in octets)]
        texts.append(bytes(octets).hex())
    else:
        groups = client.exploded.split(":")
        texts = [digits, digits[::-1], "-".join(groups), ".".join(digits[::-1]), str(client).replace(":", "-")]
        texts.append("-".join(f"{int(group, 16):x}" for group in groups))
    name = f"{before}{texts[form % len(texts)]}.dyn.provider-host.se"
    assert "helo_client_address" in evidence_in("hello", name.encode(), str(client), SERVER, settings), name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail.provider-host.se", []),
        ("MAIL.Provider-Host.SE", []),
        ("xn--bcher-kva.provider-host.se", []),
        ("3com.se", []),
        ("[192.0.2.1]", ["helo_address"]),
        ("192.0.2.1", ["helo_address"]),
        ("[IPv6:2001:db8::25]", ["helo_address"]),
        ("[2001:db8::25]", ["helo_address"]),
        ("2001:db8::25", ["helo_address"]),
        ("[198.51.100.7]", ["helo_address", "helo_ours"]),
        ("[::ffff:198.51.100.7]", ["helo_address", "helo_ours"]),
        ("mx1.provider-host.se", ["helo_ours"]),
        ("MX1.PROVIDER-HOST.SE", ["helo_ours"]),
        ("mail", ["helo_not_qualified"]),
        ("user-pc", ["helo_not_qualified"]),
        ("my_host.provider-host.se", ["helo_not_qualified"]),
        ("mail.provider-host.se.", ["helo_not_qualified"]),
        ("mail..se", ["helo_not_qualified"]),
        ("-mail.se", ["helo_not_qualified"]),
        ("1.2.3", ["helo_not_qualified"]),
        ("[192.0.2.1", ["helo_not_qualified", "helo_client_address"]),
        ("[nonsense]", ["helo_not_qualified"]),
        ("localhost", ["helo_reserved"]),
        ("localhost.localdomain", ["helo_reserved"]),
        ("host.example.com", ["helo_reserved"]),
        ("notexample.com", []),
        ("192-0-2-1.dyn.provider-host.se", ["helo_client_address"]),
        ("1.2.0.192.dyn.provider-host.se", ["helo_client_address"]),
        ("host-c0000201.provider-host.se", ["helo_client_address"]),
        ("192-0-2-10.dyn.provider-host.se", []),
        ("192-0-2-1", ["helo_not_qualified", "helo_client_address"]),
    ],
)
def test_names(settings: Policy, text: str, found: list[str]) -> None:
    assert evidence_in("hello", text.encode(), "192.0.2.1", SERVER, settings) == found


def test_every_scorer_is_one_of_these() -> None:
    """Of HELO names; the lists come first."""
    assert [scorer.key for scorer in SCORERS][:6] == [
        "dnsbl", "helo_address", "helo_not_qualified", "helo_reserved", "helo_ours", "helo_client_address"
    ]  # fmt: skip
