"""SPF records of a real name server, flattened; and pyspf, which judges one address at a time, of the same records."""

import asyncio
import ipaddress
import re
import warnings
from collections.abc import Iterator

import dns.flags
import dns.resolver
import pytest

from fastscreen.allowlist.dns import Dns
from fastscreen.allowlist.flatten import Flat, flatten
from fastscreen.allowlist.networks import Network, aggregated
from fastscreen.allowlist.spf import SpfError
from fastscreen.dns.resolver import Nameserver
from peers.nsd import ADDRESS, ZONES, Nsd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spf

ZONE = (ZONES / "spf.test").read_text()
DOMAINS = [f"{name}.spf.test" for name in dict.fromkeys(re.findall(r"(?m)^([a-z0-9-]+) TXT", ZONE))]
NOBODY = ("203.0.113.200", "2001:db8:ffff::1")
"""In no record, so every mechanism of each is looked at."""

EXPECTED = {
    "ok-plain": "192.0.2.0/24 2001:db8:1::/48",
    "ok-nothing": "",
    "ok-host-bits": "192.0.2.0/24 2001:db8:2::/64",
    "ok-include": "192.0.2.0/25 198.51.100.0/25 2001:db8:1::/48 2001:db8:2::/47",
    "ok-nested": "192.0.2.0/25 203.0.113.1/32 203.0.113.2/31 2001:db8:1::/48",
    "ok-redirect": "192.0.2.0/25 203.0.113.9/32 2001:db8:1::/48",
    "ok-redirect-all": "203.0.113.9/32",
    "ok-a-prefix": "192.0.2.0/24 198.51.100.0/24 203.0.113.4/30 2001:db8:30::/64 2001:db8:40::/48",
    "ok-a-cname": "192.0.2.140/32 198.51.100.140/32 2001:db8:40::140/128",
    "ok-mx-prefix": "192.0.2.128/26 198.51.100.128/26 2001:db8:30::/56 2001:db8:40::/56",
    "ok-hole-in-include": "192.0.2.0/29 192.0.2.16/28 192.0.2.32/27",
    "ok-void-two": "192.0.2.1/32",
    "ok-split": "192.0.2.0/25 198.51.100.0/26 2001:db8:2::/47",
    "ok-large": "192.0.2.0/25 192.0.2.130/32 2001:db8:30::130/128",
    "left-deep": "192.0.2.1/32 192.0.2.2/32",
    "all-included": "192.0.2.1/32",
}


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def flattened(nsd: Nsd) -> dict[str, Flat | SpfError]:
    """Every domain of the zone."""

    async def all_of_them() -> dict[str, Flat | SpfError]:
        ask = Dns([Nameserver(ADDRESS, nsd.port)])
        try:
            found = await asyncio.gather(*(flatten(domain, ask) for domain in DOMAINS), return_exceptions=True)
        finally:
            await ask.close()
        for each in found:
            assert isinstance(each, Flat | SpfError), each
        return dict(zip(DOMAINS, found, strict=True))  # type: ignore[arg-type]

    return asyncio.run(all_of_them())


@pytest.fixture
def judge(nsd: Nsd, monkeypatch: pytest.MonkeyPatch) -> dns.resolver.Resolver:
    """Let pyspf ask the same name server."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [ADDRESS]
    resolver.port = nsd.port
    resolver.cache = dns.resolver.LRUCache()
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    return resolver


def verdict(address: str, domain: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(spf.check2(i=address, s=f"x@{domain}", h="mx.example.test")[0])


def named_networks() -> set[Network]:
    """All that the zone names, and every host's with every prefix length that stands in a record."""
    found: set[Network] = set()
    for text in re.findall(r"ip[46]:([0-9a-f.:]+(?:/[0-9]+)?)", ZONE.replace('" "', ""), re.IGNORECASE):
        try:
            found.add(ipaddress.ip_network(text, strict=False))
        except ValueError:  # those of bad-
            continue
    for kind, lengths in (("A", (24, 26, 28, 30, 32)), ("AAAA", (48, 56, 64, 128))):
        for address in re.findall(rf"(?m) {kind} (\S+)$", ZONE):
            found |= {ipaddress.ip_network((address, length), strict=False) for length in lengths}
    return found


def corners(networks: set[Network]) -> list[str]:
    """An address of each stretch in which no record makes a difference: the ends of all networks, and one beyond."""
    numbers: dict[int, set[int]] = {4: set(), 6: set()}
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        numbers[network.version] |= {first - 1, first, last, last + 1}
    return [str(ipaddress.IPv4Address(each)) for each in sorted(numbers[4])] + [
        str(ipaddress.IPv6Address(each)) for each in sorted(numbers[6])
    ]


def test_the_networks_are_those_that_pass_with_pyspf(
    flattened: dict[str, Flat | SpfError], judge: dns.resolver.Resolver
) -> None:
    """Between two corners nothing changes for pyspf either: where all corners agree, all addresses do."""
    addresses = corners(named_networks())
    wrong = []
    for domain, flat in flattened.items():
        if isinstance(flat, SpfError) or any("all in" in text for text in flat.omitted):
            continue
        for address in addresses:
            ours = any(ipaddress.ip_address(address) in network for network in flat.networks)
            theirs = verdict(address, domain)
            if ours != (theirs == "pass") or theirs in ("permerror", "temperror", "none"):
                wrong.append(f"{domain} {address}: {'pass' if ours else 'no'}, pyspf: {theirs}")
    assert not wrong, "\n".join(wrong)
    assert len(addresses) > 150


def test_no_network_lies_outside_of_what_the_zone_names(flattened: dict[str, Flat | SpfError]) -> None:
    """Else the corners would not be all there are."""
    named = list(named_networks())
    for domain, flat in flattened.items():
        for network in [] if isinstance(flat, SpfError) else flat.networks:
            assert any(network.version == each.version and network.subnet_of(each) for each in named), domain  # type: ignore[arg-type]


@pytest.mark.parametrize("domain", DOMAINS)
def test_errors_are_those_of_pyspf(
    flattened: dict[str, Flat | SpfError], judge: dns.resolver.Resolver, domain: str
) -> None:
    flat = flattened[domain]
    for address in NOBODY:
        theirs = verdict(address, domain)
        if isinstance(flat, SpfError):
            assert theirs == flat.kind
        elif any("all in" in text for text in flat.omitted):
            assert theirs == "pass"
        else:
            assert theirs in ("fail", "softfail", "neutral")


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_is_what_its_name_says(flattened: dict[str, Flat | SpfError], domain: str) -> None:
    flat = flattened[domain]
    kind = flat.kind if isinstance(flat, SpfError) else "left" if flat.omitted else "ok"
    names = {"ok": "ok", "left": "left", "all": "left", "bad": "permerror", "none": "none", "fail": "temperror"}
    if (wanted := names.get(domain.partition("-")[0])) is not None:
        assert kind == wanted


@pytest.mark.parametrize(("name", "networks"), EXPECTED.items())
def test_the_networks_as_they_are_written(flattened: dict[str, Flat | SpfError], name: str, networks: str) -> None:
    flat = flattened[f"{name}.spf.test"]
    assert isinstance(flat, Flat)
    assert " ".join(str(network) for network in aggregated(flat.networks)) == networks


def test_look_ups_and_voids_are_counted(flattened: dict[str, Flat | SpfError]) -> None:
    counted = {
        name: (flat.lookups, flat.voids)
        for name in ("ok-plain", "ok-nested", "ok-ten", "ok-void-two", "left-ptr")
        if isinstance(flat := flattened[f"{name}.spf.test"], Flat)
    }
    assert counted == {
        "ok-plain": (0, 0),
        "ok-nested": (4, 0),
        "ok-ten": (10, 0),
        "ok-void-two": (2, 2),
        "left-ptr": (2, 0),
    }


def test_what_is_wrong_is_said_with_its_place(flattened: dict[str, Flat | SpfError]) -> None:
    said = {name: str(flattened[f"{name}.spf.test"]) for name in ("bad-loop-far", "bad-twelve", "bad-voids", "fail-a")}
    assert said == {
        "bad-loop-far": "loop: bad-loop-far.spf.test -> bad-loop-back.spf.test -> bad-loop-far.spf.test",
        "bad-twelve": "more than 10 look-ups (RFC 7208 4.6.4), at five.spf.test: a:two.spf.test",
        "bad-voids": "more than 2 look-ups without an answer (RFC 7208 4.6.4), the last of nobody3.spf.test",
        "fail-a": "any.broken.test A: SERVFAIL",
    }


def test_what_depends_on_the_client_is_named(flattened: dict[str, Flat | SpfError]) -> None:
    left = {
        name: flat.omitted
        for name in ("left-deep", "left-include", "left-ptr", "left-redirect", "all-plain")
        if isinstance(flat := flattened[f"{name}.spf.test"], Flat)
    }
    assert left == {
        "left-deep": ["exists:%{i}._listed.spf.test in left-exists.spf.test"],
        "left-include": ["include:%{ir}._clients.spf.test in left-include.spf.test"],
        "left-ptr": ["ptr in left-ptr.spf.test", "ptr:spf.test in left-ptr.spf.test"],
        "left-redirect": ["redirect=%{ir}._clients.spf.test in left-redirect.spf.test"],
        "all-plain": ["+all in all-plain.spf.test"],
    }


def test_the_large_answer_came_over_tcp(nsd: Nsd) -> None:
    assert nsd.ask("ok-large.spf.test", "TXT").flags & dns.flags.TC
