"""From a TOML file to a Config, and the one line that a mistake gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastscreen.config import (
    Action,
    ConfigError,
    Endpoint,
    LogFile,
    LogStderr,
    Pass,
    Proxy,
    Sink,
    Site,
    Target,
    default,
    load,
)
from fastscreen.config.kinds import Octets

ISSUE = """
hostname = "mx.example.test"
banner = "mx.example.test ESMTP Postfix"
[listen]
addresses = ["127.0.0.1:2530"]
[handoff]
to = "pass:/var/spool/postfix/private/smtpd"
[access]
list = ["permit_mynetworks", "cidr:/etc/fastscreen/access.cidr"]
mynetworks = ["192.0.2.0/24"]
denylist_action = "enforce"
[greet]
wait = "2s"
action = "enforce"
ttl = "1d"
[dnsbl]
sites = ["bl1.rbl.test*3", "bl2.rbl.test=127.0.0.[2..11]*2", "wl.rbl.test*-4"]
threshold = 3
allowlist_threshold = -2
action = "enforce"
resolvers = ["127.0.0.1:53"]
[deep]
pipelining = "enforce"
non_smtp_command = "enforce"
bare_newline = "enforce"
[cache]
path = "/var/lib/fastscreen/cache"
[limits]
client_connection_count = 50
pre_queue = 10000
post_queue = 1000
[log]
to = "file:/var/log/fastscreen.log"
ident = "postfix/postscreen"
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "fastscreen.toml"


def mistake(toml: Path, text: str) -> str:
    """The line that a configuration with a mistake gets."""
    toml.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load(toml)
    line = str(caught.value)
    assert line.startswith(f"{toml}: ")
    assert line.isprintable()
    return line.removeprefix(f"{toml}: ")


def test_a_whole_configuration(toml: Path) -> None:
    toml.write_text(ISSUE)
    config = load(toml)
    assert config.source == str(toml)
    assert config.hostname == "mx.example.test"
    assert config.greet.banner == config.banner == "mx.example.test ESMTP Postfix"
    assert config.listen.addresses == (Endpoint("127.0.0.1", 2530),)
    assert config.handoff.to == Pass("/var/spool/postfix/private/smtpd")
    assert (config.greet.wait, config.greet.stress_wait, config.greet.ttl) == (2, 2, 86400)
    assert [site.weight for site in config.dnsbl.sites] == [3, 2, -4]
    assert config.dnsbl.resolvers == (Endpoint("127.0.0.1", 53),)
    assert config.deep.pipelining is Action.ENFORCE
    assert config.log.to == LogFile("/var/log/fastscreen.log")


def test_left_out_keys_have_postscreens_defaults(toml: Path) -> None:
    toml.write_text('hostname = "mx.example.test"\n')
    config = load(toml)
    assert config.banner == "mx.example.test ESMTP Postfix"
    assert config.listen.addresses == (Endpoint("0.0.0.0", 25), Endpoint("::", 25))
    assert config.access.denylist_action is config.greet.action is config.dnsbl.action is Action.IGNORE
    assert (config.greet.wait, config.greet.stress_wait) == (6, 2)
    assert config.deep.pipelining is config.deep.non_smtp_command is config.deep.bare_newline is Action.OFF
    assert config.deep.pipelining_after_fail is Action.ENFORCE
    assert config.deep.non_smtp_command_after_fail is Action.DROP
    assert config.deep.bare_newline_after_fail is Action.IGNORE
    assert (config.dnsbl.min_ttl, config.dnsbl.max_ttl, config.dnsbl.timeout) == (60, 3600, 10)
    assert (config.cache.cleanup_interval, config.cache.retention) == (43200, 604800)
    assert (config.engine.command_count_limit, config.engine.command_time_limit) == (20, 300)


def test_built_in_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    config = default()
    assert config.control.path == f"{tmp_path}/fastscreen/control"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default().control.path == "/run/user/1000/fastscreen/control"
    assert config.listen.addresses == (Endpoint("127.0.0.1", 2525),)
    assert config.handoff.to == Sink()
    assert config.log.to == LogStderr()
    assert config.log.ident == "fastscreen"
    assert config.cache.path == f"{tmp_path}/fastscreen/cache"
    assert config.access.mynetworks == ()
    assert {config.greet.action, config.deep.pipelining, config.deep.non_smtp_command, config.deep.bare_newline} == {
        Action.ENFORCE
    }


def test_a_relative_state_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default().cache.path == f"{tmp_path}/.local/state/fastscreen/cache"


PROXY = "[[listen.proxy]]\naddresses = ['10.0.0.1:25']\ntrusted = ['10.0.0.0/24']\n"


@pytest.mark.parametrize(
    ("text", "key", "wrong", "expected"),
    [
        ('[greet]\nwait = "0s"', "greet.wait", '"0s"', 'at least "1s"'),
        ("[greet]\nwait = true", "greet.wait", "true is not a time", "unit s, m, h, d or w"),
        ("[greet]\nwait = 1.5", "greet.wait", "1.5", "whole number"),
        ('[greet]\nwait = "30mh"', "greet.wait", '"30mh"', "whole number"),
        ('[greet]\naction = "off"', "greet.action", '"off"', '"ignore", "shadow", "enforce" or "drop"'),
        ('[deep]\npipelining = "on"', "deep.pipelining", '"on"', '"off", "ignore", "shadow", "enforce" or "drop"'),
        ("[dnsbl]\nthreshold = 0", "dnsbl.threshold", "0 is out of range", "at least 1"),
        ('[dnsbl]\nthreshold = "3"', "dnsbl.threshold", '"3" is not a whole number', "at least 1"),
        ("[limits]\npre_queue = 9", "limits.pre_queue", "9", "0 or a whole number of at least 10"),
        ("[limits]\npost_queue = 4", "limits.post_queue", "4", "at least 5"),
        ("[limits]\npost_queue = 99999999999999999999", "limits.post_queue", "99999999999999999999", "at least 5"),
        ('[dnsbl]\nsites = ["a.test*x"]', "dnsbl.sites", 'bad DNSBL weight factor "x" in "a.test*x"', "a whole number"),
        ('[dnsbl]\nsites = ["a.test=1.2.3"]', "dnsbl.sites", "bad DNSBL filter syntax: 3 octets", "from 0 to 255"),
        ('[dnsbl]\nsites = ["a..test"]', "dnsbl.sites", 'bad DNSBL domain name "a..test"', "domain[="),
        ('[listen]\naddresses = ["::1:25"]', "listen.addresses", '"::1:25"', '"[2001:db8::1]:25"'),
        ('[listen]\naddresses = ["127.0.0.1"]', "listen.addresses", '"127.0.0.1"', '"192.0.2.1:25"'),
        ('[listen]\naddresses = ["127.0.0.1:65536"]', "listen.addresses", "65536", '"192.0.2.1:25"'),
        ("[listen]\naddresses = []", "listen.addresses", "the list is empty", '"192.0.2.1:25"'),
        ("[listen]\nproxy = [1]", "listen.proxy", "item 1: 1 is not a table", 'trusted = ["NETWORK"]'),
        ("[[listen.proxy]]\naddresses = ['127.0.0.1:1']", "listen.proxy", "trusted: missing", "a network"),
        ("[[listen.proxy]]\ntrusted = ['::1']", "listen.proxy", "item 1: addresses: missing", '"192.0.2.1:25"'),
        ("[[listen.proxy]]\ntimout = '5s'", "listen.proxy", '"timout": unknown name', "addresses, trusted or timeout"),
        (f"{PROXY}timeout = '0s'", "listen.proxy", 'timeout: time "0s" is out of range', '"1s"'),
        (f"{PROXY}{PROXY}", "listen.proxy", "10.0.0.1:25 occurs twice", "each address once"),
        (f"listen.addresses = ['10.0.0.1:25']\n{PROXY}", "listen.proxy", "10.0.0.1:25 occurs twice", "once"),
        ("[access]\nallowlist_interfaces = []", "access.allowlist_interfaces", "the list is empty", "a network"),
        ("[cache]\nprefix_ipv4 = 7", "cache.prefix_ipv4", "7 is out of range", "from 8 to 32"),
        ("[limits]\nclient_connection_prefix_ipv6 = 129", "limits.client_connection_prefix_ipv6", "129", "16 to 128"),
        ('[listen]\naddresses = "127.0.0.1:25"', "listen.addresses", "not a list", "a list in which"),
        ('[dnsbl]\nresolvers = ["127.0.0.1:0"]', "dnsbl.resolvers", "127.0.0.1:0", "[2001:db8::1]:53"),
        ('[handoff]\nto = "pass:relative"', "handoff.to", '"pass:relative"', '"sink:"'),
        ('[handoff]\nto = "proxy:mx.test:25"', "handoff.to", '"proxy:mx.test:25"', '"proxy:IP:PORT"'),
        ('[handoff]\nto = "proxy:192.0.2.1:0"', "handoff.to", '"proxy:192.0.2.1:0"', '"proxy:IP:PORT"'),
        ('[handoff]\nto = ["proxy:192.0.2.1:25", "sink:"]', "handoff.to", 'bad target "sink:"', '"proxy:IP:PORT"'),
        ("[handoff]\nto = []", "handoff.to", "0 targets", "1 to 16"),
        ('[handoff]\ncontinue_to = "pass:/x"', "handoff.continue_to", '"pass:/x"', '"proxy:IP:PORT"'),
        ('[handoff]\ncontinue_to = "proxy:unix:x"', "handoff.continue_to", '"proxy:unix:x"', "unix:/PATH"),
        ('[handoff]\ncontinue_to = "proxy:[::1]:25*0"', "handoff.continue_to", '"proxy:[::1]:25*0"', "1 to 1000"),
        (
            '[handoff]\ncontinue_to = ["proxy:[::1]:25*1", "proxy:[::1]:26"]',
            "handoff.continue_to",
            "some targets have a weight and others do not",
            "*WEIGHT",
        ),
        (
            '[handoff]\ncontinue_to = ["proxy:[::1]:25", "proxy:[0::1]:25"]',
            "handoff.continue_to",
            "a target occurs twice",
            "*WEIGHT",
        ),
        ("[handoff]\nproxy_version = 3", "handoff.proxy_version", "3 is out of range", "from 1 to 2"),
        ('[log]\nto = "file:x"', "log.to", '"file:x"', '"file:/PATH", "syslog" or "stderr"'),
        ('[log]\nident = "a b"', "log.ident", '"a b"', "without spaces"),
        ('[log]\nstamps = "iso"', "log.stamps", '"iso"', '"traditional" or "rfc3339"'),
        ('[access]\nlist = ["permitt"]', "access.list", '"permitt"', '"permit", "reject", "dunno"'),
        ('[access]\nmynetworks = ["192.0.2.1/24"]', "access.mynetworks", "non-null host address bits", "192.0.2.0/24"),
        ('[access]\nmynetworks = ["cidr:/x"]', "access.mynetworks", "is a table, which belongs", '"/FILE"'),
        ('[engine]\ncommand_filter = "x"', "engine.command_filter", '"x" is not a table', "cidr, texthash"),
        ("[engine]\nhelo_required = 1", "engine.helo_required", "1 is not a Boolean", "true or false"),
        ('[engine]\nexpansion_filter = "\\\\q"', "engine.expansion_filter", "bad escape", "octal"),
        ('banner = "$mail_name"', "banner", '"$mail_name"', "$hostname"),
        ('banner = "a\\r\\nb"', "banner", "control characters", "printable ASCII"),
        ('banner = "é"', "banner", "not ASCII", "printable ASCII"),
        ("banner = 1979-05-27", "banner", "a date or time is not a string", "printable ASCII"),
        ('hostname = "a b"', "hostname", '"a b"', "letters, digits"),
        ('[cache]\npath = "relative"', "cache.path", '"relative"', "absolute path"),
    ],
)
def test_a_mistake_gets_one_line(toml: Path, text: str, key: str, wrong: str, expected: str) -> None:
    line = mistake(toml, text)
    assert line.startswith(f"{key}: ")
    assert wrong in line
    assert expected in line.partition("; expected ")[2]
    assert "allowed" not in line
    assert "left out" not in line


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("[greet]\nwat = 1", "greet.wat", 'did you mean "wait"?'),
        ("[gret]\nwait = 1", "gret", 'did you mean "greet"?'),
        ("wait = 1", "wait", 'did you mean "greet.wait"?'),
        ("[greet]\nthreshold = 1", "greet.threshold", 'did you mean "dnsbl.threshold"?'),
        ("[xyzzy]", "xyzzy", "expected listen, handoff"),
        ('"" = 1', '""', "expected listen, handoff"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(toml: Path, text: str, key: str, meant: str) -> None:
    line = mistake(toml, text)
    assert line.startswith(f"{key}: unknown name")
    assert meant in line


def test_a_table_given_as_a_value(toml: Path) -> None:
    assert mistake(toml, "greet = 3").startswith("greet: not a table")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\nx = [1", 3),
        ("\n[greet]\nwait = = 3", 3),
        ('banner = "a\x1bb"', 1),
        ("\n\n# \udcff\n", 3),
        ("[greet]\n[greet]\n", 2),
    ],
)
def test_what_is_not_toml_gets_its_line_number(toml: Path, text: str, line: int) -> None:
    assert mistake(toml, text).startswith(f"line {line}: ")


def test_deep_nesting_is_one_line_too(toml: Path) -> None:
    assert "nested too deeply" in mistake(toml, "a=" + "[" * 10000)


def test_bytes_of_the_file_are_escaped_in_the_message(toml: Path) -> None:
    assert r"\x1b]0;x\x07\u202e" in mistake(toml, r"[greet]" + "\n" + r'wait = "\u001b]0;x\u0007\u202e"')
    assert len(mistake(toml, f'[greet]\nwait = "{"x" * 100_000}"')) < 500


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file or directory; "):
        load(tmp_path / "nothing.toml")


@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb"])
def test_a_binary_table_is_refused_with_the_way_to_convert_it(toml: Path, kind: str) -> None:
    line = mistake(toml, f'[access]\nlist = ["{kind}:/etc/x"]')
    assert f"postmap -s {kind}:/etc/x > /etc/x.txt" in line
    assert "texthash:/etc/x.txt" in line


def test_targets_of_a_relay(toml: Path) -> None:
    toml.write_text(
        '[handoff]\nto = "proxy:192.0.2.1:25"\n'
        'continue_to = ["proxy:[2001:db8::1]:10025*3", "proxy:unix:/run/a*b/socket*12"]\n'
    )
    handoff = load(toml).handoff
    assert handoff.to == Proxy((Target(Endpoint("192.0.2.1", 25)),))
    assert handoff.continue_to == Proxy(
        (Target(Endpoint("2001:db8::1", 10025), 3), Target("/run/a*b/socket", 12)),
    )
    assert [str(target) for target in handoff.continue_to.targets] == ["[2001:db8::1]:10025", "unix:/run/a*b/socket"]


def test_numbers_are_times_in_the_keys_own_unit(toml: Path) -> None:
    toml.write_text('[greet]\nwait = 6\nttl = 2\n[dnsbl]\nmax_ttl = "2"\n[cache]\ncleanup_interval = 0\n')
    config = load(toml)
    assert (config.greet.wait, config.greet.ttl, config.dnsbl.max_ttl) == (6, 2 * 86400, 7200)
    assert config.cache.cleanup_interval == 0


def test_actions_in_any_case_and_continue(toml: Path) -> None:
    toml.write_text('[greet]\naction = "Continue"\n[dnsbl]\naction = "DROP"\n[deep]\npipelining = "Off"\n')
    config = load(toml)
    assert (config.greet.action, config.dnsbl.action, config.deep.pipelining) == (
        Action.IGNORE,
        Action.DROP,
        Action.OFF,
    )


def test_names_in_banners(toml: Path) -> None:
    toml.write_text('hostname = "h.test"\nbanner = "${hostname} costs $$5"\n[greet]\nbanner = "teaser of $banner"\n')
    config = load(toml)
    assert config.banner == "h.test costs $5"
    assert config.greet.banner == "teaser of h.test costs $5"


def test_an_empty_teaser_stays_empty(toml: Path) -> None:
    toml.write_text('[greet]\nbanner = ""\n')
    assert load(toml).greet.banner == ""


def test_a_banner_too_long_for_a_reply_line(toml: Path) -> None:
    assert "at most 506" in mistake(toml, f'hostname = "{"a" * 60}.test"\nbanner = "{"$hostname" * 10}"')


def test_vrfy_is_announced_unless_disabled(toml: Path) -> None:
    toml.write_text("[engine]\ndisable_vrfy_command = true\n")
    assert load(toml).engine.announce_vrfy is False
    toml.write_text("[engine]\ndisable_vrfy_command = true\nannounce_vrfy = true\n")
    assert load(toml).engine.announce_vrfy is True


def test_addresses_of_resolvers(toml: Path) -> None:
    toml.write_text(
        '[dnsbl]\nresolvers = ["192.0.2.1", "192.0.2.1:5353", "2001:DB8::1", "[2001:db8::1]", "[::1]:54"]\n'
    )
    assert list(map(str, load(toml).dnsbl.resolvers)) == [
        "192.0.2.1:53",
        "192.0.2.1:5353",
        "[2001:db8::1]:53",
        "[2001:db8::1]:53",
        "[::1]:54",
    ]


def test_site_filters(toml: Path) -> None:
    toml.write_text('[dnsbl]\nsites = ["a.test=127.0.[0..255].[2;4;6..8]*-2", "b.test=[127.0.0.[1;2]]", "c.test*0"]\n')
    one, two, three = load(toml).dnsbl.sites
    assert one.weight == -2
    assert [n for n in range(256) if one.matches(bytes([127, 0, 9, n]))] == [2, 4, 6, 7, 8]
    assert not one.matches(bytes([128, 0, 0, 2]))
    assert two.matches(bytes([127, 0, 0, 1]))
    assert not two.matches(bytes([127, 0, 0, 3]))
    assert three == Site("c.test", None, 0)


def test_octets_of_the_expansion_filter() -> None:
    assert Octets().parse(r"\t\40!\"\\") == b'\t !"\\'


def test_the_issues_configuration_loads_uncommented_too(toml: Path) -> None:
    toml.write_text(re.sub(r"(?m)$", "   # comment", ISSUE))
    assert load(toml).limits.pre_queue == 10000
