"""`fastscreen check` queries every DNS list, and knows which ones are closed."""

import socket
from pathlib import Path

import pytest

from fastscreen.cli import main
from fastscreen.cli.check_dns import checked_lists, checked_resolvers
from fastscreen.config import load
from fastscreen.dns.health import known_lists
from fastscreen.dns.health.monitor import NONE_HAS_ENTRIES
from robust.fakedns import FakeDns, listed, not_listed, silent


@pytest.fixture
def configured(tmp_path: Path, dns: FakeDns, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fastscreen.cli.check_dns.TIMEOUT", 2.0)
    dns.zones |= {
        "1.0.0.127.good.test": not_listed(),
        "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.good.test": not_listed(),
        "good.test": listed("127.0.0.2"),
        "world.test": listed("127.0.0.4"),
        "silent.test": silent,
        "dnsbl.sorbs.net": not_listed(),
        "b.barracudacentral.org": not_listed(),
    }
    file = tmp_path / "fastscreen.toml"
    sites = [
        "good.test*3",
        "world.test",
        "silent.test",
        "own.test",
        "dnsbl.sorbs.net",
        "b.barracudacentral.org=127.0.0.2",
    ]
    file.write_text(f'hostname = "mx.test"\n[dnsbl]\nsites = {sites!r}\nresolvers = ["{dns.endpoint}"]\n')
    return file


def test_every_list_is_looked_at(configured: Path) -> None:
    found = {detail.split(":")[0]: (ok, detail) for _, ok, detail, *_ in checked_lists(load(configured))}
    assert found["good.test"] == (True, "good.test: lists 127.0.0.2 and not 127.0.0.1")
    assert not found["world.test"][0]
    assert "may list every address (127.0.0.1 is listed as 127.0.0.4)" in found["world.test"][1]
    assert found["silent.test"] == (False, "silent.test: does not answer")
    assert found["own.test"][0]
    assert "the test entry 127.0.0.2 (RFC 5782) is missing" in found["own.test"][1]
    assert found["dnsbl.sorbs.net"] == (False, "dnsbl.sorbs.net: closed in June 2024; remove it")
    assert not found["b.barracudacentral.org"][0]
    assert found["b.barracudacentral.org"][1].endswith("it only answers registered resolvers: barracudacentral.org/rbl")


def test_what_the_resolver_said(configured: Path) -> None:
    ((key, ok, detail, *_),) = checked_resolvers(load(configured))
    assert (key, ok) == ("dnsbl.resolvers", True)
    assert detail.endswith(": 1 record")


def test_a_resolver_that_takes_listings_out(tmp_path: Path, dns: FakeDns) -> None:
    """The test entries of all lists are missing."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(f'hostname = "mx.test"\n[dnsbl]\nsites = ["a.test", "b.test"]\nresolvers = ["{dns.endpoint}"]\n')
    assert list(checked_lists(load(file)))[2:] == [("dnsbl.resolvers", True, NONE_HAS_ENTRIES, True)]


def test_as_a_command(configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")  # a change of the user cannot be undone
    assert main(["check", "-c", str(configured)]) == 1
    out = capsys.readouterr().out
    assert f"{configured}: dnsbl.sites: dnsbl.sorbs.net: closed in June 2024; remove it\n" in out
    assert "good.test" not in out


def test_a_public_resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fastscreen.toml"
    sites = ["zen.spamhaus.org", "bl.test", "list.dnswl.org*-2"]
    file.write_text(f'hostname = "mx.test"\n[dnsbl]\nsites = {sites!r}\nresolvers = ["9.9.9.9"]\n')
    monkeypatch.setattr("fastscreen.cli.check_dns.try_resolver", lambda resolver, domain: "1 record")
    details = [detail for _, ok, detail, *_ in checked_resolvers(load(file)) if not ok]
    assert details == [
        "9.9.9.9:53: is a public resolver, and is refused by zen.spamhaus.org, list.dnswl.org; use your own resolver"
    ]


def test_what_is_known() -> None:
    assert known_lists.obituary("dnsbl.SORBS.net.") == "closed in June 2024"
    assert known_lists.obituary("sorbs.net.example") == ""
    assert known_lists.obituary("notsorbs.net") == ""
    assert known_lists.registry("b.barracudacentral.org")
    assert not known_lists.registry("zen.spamhaus.org")
    assert known_lists.refused(["zen.spamhaus.org"], "127.0.0.1") == []


def test_public_resolvers_are_addresses() -> None:
    for resolver in known_lists._KNOWN.refuses_public_resolvers.resolvers:
        family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
        assert socket.inet_ntop(family, socket.inet_pton(family, resolver)) == resolver
