"""fastscreen import-postfix: how each parameter is converted, and the notes about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastscreen import config
from fastscreen.cli import import_postfix, main
from fastscreen.config.keys import KEYS
from fastscreen.config.postfix_names import USED
from fastscreen.postfix import settings as postfix_settings
from fastscreen.postfix.no_counterpart import NO_COUNTERPART
from fastscreen.postfix.verify import Result

MASTER = """\
smtp      inet  n       -       y       -       1       postscreen
smtpd     pass  -       -       y       -       -       smtpd
dnsblog   unix  -       -       y       -       0       dnsblog
tlsproxy  unix  -       -       y       -       0       tlsproxy
"""

# reference 1.2 to 1.4: every parameter that postscreen, dnsblog and tlsproxy read as their own
PARAMETERS = """
postscreen_access_list postscreen_denylist_action postscreen_blacklist_action postscreen_allowlist_interfaces
postscreen_whitelist_interfaces postscreen_upstream_proxy_protocol postscreen_upstream_proxy_timeout
postscreen_client_connection_count_limit postscreen_pre_queue_limit postscreen_post_queue_limit
postscreen_greet_banner postscreen_greet_wait postscreen_greet_action postscreen_greet_ttl postscreen_dnsbl_sites
postscreen_dnsbl_threshold postscreen_dnsbl_allowlist_threshold postscreen_dnsbl_whitelist_threshold
postscreen_dnsbl_action postscreen_dnsbl_reply_map postscreen_dnsbl_timeout postscreen_dnsbl_min_ttl
postscreen_dnsbl_max_ttl postscreen_dnsbl_ttl postscreen_pipelining_enable postscreen_pipelining_action
postscreen_pipelining_ttl postscreen_non_smtp_command_enable postscreen_non_smtp_command_action
postscreen_non_smtp_command_ttl postscreen_bare_newline_enable postscreen_bare_newline_action
postscreen_bare_newline_ttl postscreen_forbidden_commands postscreen_command_count_limit
postscreen_command_time_limit postscreen_command_filter postscreen_helo_required postscreen_disable_vrfy_command
postscreen_discard_ehlo_keywords postscreen_discard_ehlo_keyword_address_maps postscreen_reject_footer
postscreen_reject_footer_maps postscreen_expansion_filter postscreen_tls_security_level postscreen_use_tls
postscreen_enforce_tls postscreen_cache_map postscreen_cache_cleanup_interval postscreen_cache_retention_time
postscreen_watchdog_timeout dnsblog_service_name tlsproxy_service_name smtpd_service_name respectful_logging
smtpd_banner postscreen_starttls_timeout dnsblog_reply_delay dns_ncache_ttl_fix_enable tlsproxy_watchdog_timeout
tlsproxy_use_tls tlsproxy_enforce_tls mynetworks myhostname mail_name inet_protocols message_size_limit
line_length_limit smtputf8_enable soft_bounce info_log_address_format delay_logging_resolution_limit
default_process_limit max_idle ipc_timeout data_directory queue_directory mail_owner
parent_domain_matches_subdomains compatibility_level smtpd_client_connection_count_limit smtpd_forbidden_commands
smtpd_helo_required disable_vrfy_command smtpd_discard_ehlo_keywords smtpd_discard_ehlo_keyword_address_maps
smtpd_reject_footer smtpd_reject_footer_maps smtpd_expansion_filter smtpd_tls_security_level smtpd_use_tls
smtpd_enforce_tls
"""
OF_TLS = """
always_issue_session_ids ask_ccert CAfile CApath ccert_verifydepth cert_file chain_files ciphers dcert_file
dh1024_param_file dh512_param_file dkey_file eccert_file eckey_file eecdh_grade enable_rpk exclude_ciphers
fingerprint_digest key_file loglevel loglevel_maps mandatory_ciphers mandatory_exclude_ciphers mandatory_protocols
protocols req_ccert trace_size_limit
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder, on a machine without postconf that has all that is named (see test_import_settle.py)."""
    monkeypatch.setattr(postfix_settings, "postconf_program", lambda: None)
    monkeypatch.setattr(import_postfix, "verify", lambda text: Result([]))
    monkeypatch.setattr(import_postfix, "user_of", lambda config: "")
    (tmp_path / "master.cf").write_text(MASTER)
    return tmp_path


class Made:
    """One run of the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], main_cf: str, *words: str) -> None:
        (folder / "main.cf").write_text(main_cf)
        self.code = main(["import-postfix", "--config-dir", str(folder), *words])
        self.out, self.err = capsys.readouterr()
        if self.code == 0 and not words:
            (folder / "made.toml").write_text(self.out)
            self.config = config.load(folder / "made.toml")
            self.raw: dict[str, Any] = tomllib.loads(self.out)

    def get(self, key: str) -> Any:
        """What the file sets; None: it leaves the default."""
        table, _, name = key.rpartition(".")
        return (self.raw.get(table, {}) if table else self.raw).get(name)

    def above(self, key: str) -> str:
        """The comment above a key."""
        lines = self.out.splitlines()
        table, _, name = key.rpartition(".")
        start = lines.index(f"[{table}]") if table else 0
        at = next(at for at in range(start, len(lines)) if lines[at].lstrip("#").startswith(f"{name} ="))
        first = at
        while lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(lines[first:at])


@pytest.mark.parametrize(
    "name",
    [
        *PARAMETERS.split(),
        *(f"{prefix}_tls_{name}" for name in OF_TLS.split() for prefix in ("postscreen", "tlsproxy")),
    ],
)
def test_every_parameter_has_a_counterpart_or_is_named_without(name: str) -> None:
    of_keys = {known for key in KEYS for known in (*key.parameters, *key.parents)}
    assert (name in of_keys or name in USED) != (name in NO_COUNTERPART)


def test_without_settings_the_defaults_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What Postfix and fastscreen take unasked and differ in: where the log goes, under which name, respect in it."""
    made = Made(folder, capsys, "")
    assert made.raw.pop("log") == {"to": "syslog", "ident": "postfix/postscreen", "respectful": False}
    assert made.raw.pop("engine") == {"smtputf8": False}
    assert not any(made.raw.values())
    assert "TO DO" in made.above("access.mynetworks")
    for key in ("cache.prefix_ipv6", "limits.client_connection_prefix_ipv6"):
        assert "128 gives postscreen's behavior" in made.above(key)


CASES = [
    ("myhostname = mx.example.com", "hostname", "mx.example.com"),
    ("smtpd_banner = $mail_name $$ costs", "banner", "Postfix $$ costs"),
    ("x = 1\nsmtpd_banner = a${x? b}${x?{ c }}${y:  d}", "banner", "a b c   d"),
    ("mail_owner = mail", "user", "mail"),
    ("queue_directory = /q\nsmtpd_service_name = behind", "handoff.to", "pass:/q/private/behind"),
    (
        "mynetworks = 127.0.0.0/8, [::1]/128\n  !10.0.0.1",
        "access.mynetworks",
        ["127.0.0.0/8", "[::1]/128", "!10.0.0.1"],
    ),
    ("postscreen_blacklist_action = DROP", "access.denylist_action", "drop"),
    ("postscreen_denylist_action = drop\npostscreen_blacklist_action = enforce", "access.denylist_action", "drop"),
    (
        "postscreen_whitelist_interfaces = !192.0.2.8 static:all",
        "access.allowlist_interfaces",
        ["!192.0.2.8", "0.0.0.0/0", "::/0"],
    ),
    ("postscreen_access_list = Permit_MyNetworks, reject", "access.list", ["permit_mynetworks", "reject"]),
    ("postscreen_greet_banner =", "greet.banner", ""),
    ("postscreen_greet_wait = ${stress?{1}:{4}}s", "greet.wait", "4s"),
    ("postscreen_greet_wait = ${stress?{1}:{4}}s", "greet.stress_wait", "1s"),
    ("postscreen_greet_ttl = 2", "greet.ttl", "2d"),
    ("postscreen_greet_ttl = 90mh", "greet.ttl", "90m"),
    ("postscreen_dnsbl_ttl = 3", "dnsbl.max_ttl", "3h"),
    ("postscreen_dnsbl_whitelist_threshold = -2", "dnsbl.allowlist_threshold", -2),
    ("postscreen_dnsbl_threshold = 0", "dnsbl.threshold", 1),
    (
        "x = b.example*2\npostscreen_dnsbl_sites = a.example=127.0.0.[2;4..6]*3, $x",
        "dnsbl.sites",
        ["a.example=127.0.0.[2;4..6]*3", "b.example*2"],
    ),
    ("postscreen_pipelining_enable = yes", "deep.pipelining", "enforce"),
    ("postscreen_pipelining_enable = yes\npostscreen_pipelining_action = continue", "deep.pipelining", "continue"),
    ("postscreen_pipelining_action = drop", "deep.pipelining_after_fail", "drop"),
    ("postscreen_pipelining_action = drop", "deep.pipelining", "off"),
    (
        "smtpd_forbidden_commands = GET, inline:{{A = x} {B = y}}",
        "engine.forbidden_commands",
        ["GET", "inline:{{A = x} {B = y}}"],
    ),
    (r"smtpd_reject_footer = \c $localtime", "engine.reject_footer", r"\c $localtime"),
    ("f = text\npostscreen_reject_footer = ${f}", "engine.reject_footer", "text"),
    (r"smtpd_expansion_filter = \t\40a", "engine.expansion_filter", r"\t\40a"),
    ("disable_vrfy_command = yes\npostscreen_disable_vrfy_command = no", "engine.announce_vrfy", False),
    ("soft_bounce = yes", "engine.soft_bounce", True),
    ("default_process_limit = 500", "limits.pre_queue", 500),
    ("smtpd_client_connection_count_limit = 7", "limits.client_connection_count", 7),
    ("postscreen_cache_map =", "cache.path", ""),
    ("postscreen_cache_cleanup_interval = 0", "cache.cleanup_interval", "0h"),
    ("myhostname = mx.a.example\nsmtpd_banner = $mydomain", "banner", "a.example"),
    ("mydomain = b.example\nmyhostname = mx.$mydomain\nsmtpd_banner = $myhostname", "banner", "mx.b.example"),
    ("myhostname = mx", "hostname", "mx"),
    ("myhostname = mx\nsmtpd_banner = $mydomain", "banner", "localdomain"),
    ("maillog_file = /var/log/maillog", "log.to", "file:/var/log/maillog"),
    ("maillog_file = /dev/stdout", "log.to", "stderr"),
    ("compatibility_level = 3.6", "log.respectful", None),
    ("multi_instance_name = postfix-in", "log.ident", "postfix-in/postscreen"),
    ("inet_interfaces = loopback-only\ninet_protocols = ipv4", "listen.addresses", ["127.0.0.1:25"]),
    ("inet_interfaces = 192.0.2.1, [2001:db8::1]", "listen.addresses", ["192.0.2.1:25", "[2001:db8::1]:25"]),
]


@pytest.mark.parametrize(("main_cf", "key", "value"), CASES)
def test_a_setting_becomes(
    main_cf: str, key: str, value: object, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(folder, capsys, main_cf + "\n")
    assert made.get(key) == value


def test_a_log_that_postfix_rotates_is_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "  log.to: `postfix logrotate` creates this file again as root's"
    assert told in Made(folder, capsys, "maillog_file = /var/log/maillog\n").err.partition("To do:")[2]
    assert told not in Made(folder, capsys, "maillog_file = /dev/stdout\n").err


def test_the_summary_is_in_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "myhostname = mx.a.example\npostscreen_dnsbl_threshold = 3\n")
    rows = [line for line in made.err.splitlines() if " -> " in line]
    assert len(rows) > 1
    assert len({row.index(" -> ") for row in rows}) == 1
    assert "  postscreen_dnsbl_threshold -> dnsbl.threshold 3" in rows


def test_options_of_the_service_win(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(
        "127.0.0.1:2525 inet n - y - 1 postscreen -v\n"
        "  -o postscreen_greet_wait=9s\n# between\n  -o { mynetworks = 10.0.0.0/8, 192.0.2.0/24 }\n"
        "  -osyslog_name=postfix/in\n"
    )
    made = Made(folder, capsys, "postscreen_greet_wait = 3s\nmynetworks =\n")
    assert made.get("greet.wait") == "9s"
    assert made.get("access.mynetworks") == ["10.0.0.0/8", "192.0.2.0/24"]
    assert made.get("listen.addresses") == ["127.0.0.1:2525"]
    assert made.get("log.ident") == "postfix/in/postscreen"
    assert made.above("greet.wait") == "# postscreen_greet_wait = 9s (-o of 127.0.0.1:2525/inet)"


def test_several_postscreens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(f"{MASTER}10025 inet n - y - 1 postscreen -o postscreen_greet_wait=1s\n")
    made = Made(folder, capsys, "")
    assert made.get("listen.addresses") is None and made.get("greet.wait") is None
    todo = made.err.partition("To do:\n")[2]
    assert "10025/inet is not in this file, because other settings differ (greet.wait, greet.stress_wait)" in todo
    assert "use fastscreen import-postfix --service 10025" in todo
    assert "dnsblog" not in made.err.partition("master.cf (- out")[2]  # the other one still needs it
    picked = Made(folder, capsys, "", "--service", "10025")
    assert picked.code == 0 and 'wait = "1s"' in picked.out
    assert "smtp/inet is not in this file, because of --service 10025" in picked.err.partition("To do:\n")[2]
    assert "dnsblog" not in picked.err.partition("master.cf (- out")[2]
    unknown = Made(folder, capsys, "", "--service", "none")
    assert unknown.code == 2
    assert "--service none: not a postscreen service in master.cf; expected smtp, 10025" in unknown.err


def test_postscreens_that_differ_in_their_ports_come_into_one_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Postfix the balancer's port needs a separate postscreen service; fastscreen has both ports."""
    (folder / "master.cf").write_text(
        "10025 inet n - y - 1 postscreen -o postscreen_upstream_proxy_protocol=haproxy -o syslog_name=postfix/lb\n"
        "  -o postscreen_upstream_proxy_timeout=7s -o postscreen_cache_map=lmdb:/x/of-balancers\n"
        f"{MASTER}127.0.0.1:2525 inet n - y - 1 postscreen\n"
    )
    made = Made(folder, capsys, "inet_interfaces = 192.0.2.1, 127.0.0.1\npostscreen_cache_map = lmdb:/x/cache\n")
    assert made.get("listen.addresses") == ["192.0.2.1:25", "127.0.0.1:25", "127.0.0.1:2525"]
    assert made.get("listen.proxy") == [
        {"addresses": ["192.0.2.1:10025", "127.0.0.1:10025"], "trusted": ["0.0.0.0/0", "::/0"], "timeout": "7s"}
    ]
    assert made.get("log.ident") == "postfix/postscreen"
    todo = made.err.partition("To do:\n")[2].partition("\n\n")[0]
    assert "10025/inet used another name in the log; log.ident is that of smtp/inet" in todo
    assert todo.count("fastscreen cache import lmdb:/x/") == 2
    off = [line for line in made.err.splitlines() if line.startswith("  +#")]
    assert {line.split()[0] for line in off} >= {"+#smtp", "+#10025", "+#127.0.0.1:2525", "+#dnsblog"}


def test_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table stays where it is when its type is read; an indexed file becomes its text; others are named."""
    (folder / "known").write_text("192.0.2.1 permit\n")
    made = Made(
        folder,
        capsys,
        f"postscreen_access_list = cidr:/etc/a.cidr, hash:{folder}/known, lmdb:/nowhere/x, mysql:/etc/m.cf, permit\n",
    )
    assert made.get("access.list") == [
        "cidr:/etc/a.cidr",
        f"texthash:{folder}/known",
        "texthash:/nowhere/x.txt",
        "permit",
    ]
    told = " ".join(made.above("access.list").replace("\n#", "").split())
    assert "TO DO: lmdb:/nowhere/x: create the text file first: postmap -s lmdb:/nowhere/x > /nowhere/x.txt" in told
    assert "TO DO: mysql:/etc/m.cf is omitted" in told
    assert "access.list: mysql:/etc/m.cf is omitted" in made.err


def test_a_relative_table_is_the_queue_directorys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Postfix's daemons run; ours runs anywhere."""
    made = Made(folder, capsys, "queue_directory = /q\npostscreen_access_list = cidr:etc/a, inline:{a=b}, static:x\n")
    assert made.get("access.list") == ["cidr:/q/etc/a", "inline:{a=b}", "static:x"]


def test_what_postscreen_does_not_read_stops_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "smtp_tls_connection_reuse = $ x\nsmtpd_recipient_restrictions = ${\n")
    assert made.code == 0


def test_one_postscreen_that_cannot_be_read_leaves_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(f"2525 inet n - y - 1 postscreen -o tlsproxy_service_name=$-\n{MASTER}")
    made = Made(folder, capsys, "inet_interfaces = 192.0.2.1\n")
    assert made.get("listen.addresses") == ["192.0.2.1:25"]
    assert "2525/inet is not in this file: tlsproxy_service_name = $-: empty macro name" in made.err


def test_names_that_only_postfix_itself_knows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of the folder is known; a note says that other names are replaced with nothing."""
    made = Made(
        folder,
        capsys,
        "postscreen_access_list = cidr:$config_directory/a.cidr, cidr:${meta_directory}/$default_database_type\n"
        "smtpd_banner = $myhostname ESMTP ($mail_version) ${stress?{busy}}${nobody:{!}}\n"
        "postscreen_dnsbl_sites = $key.zen.example*2, b.example\n",
    )
    assert made.get("access.list") == [f"cidr:{folder}/a.cidr", f"cidr:{folder}/hash"]
    assert made.get("dnsbl.sites") == ["b.example"]
    todo = [line.strip() for line in made.err.partition("To do:\n")[2].splitlines() if " is not set on" in line]
    assert todo == [
        "banner: $mail_version is not set on this machine, and is replaced with nothing",
        "banner: $myhostname is not set on this machine, and is replaced with nothing",
        "dnsbl.sites: $key is not set on this machine, and is replaced with nothing",
    ]


def test_the_proxy_protocol_of_an_smtpd_at_the_port(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the header would be a pregreet violation, and every client would be rejected."""
    smtpd = "smtp inet n - y - - smtpd -o smtpd_upstream_proxy_protocol=haproxy\n"
    (folder / "master.cf").write_text(smtpd)
    made = Made(folder, capsys, "")
    assert made.get("listen.addresses") == []
    assert made.get("listen.proxy")[0]["addresses"] == ["0.0.0.0:25", "[::]:25"]
    assert "smtpd_upstream_proxy_protocol = haproxy (-o of smtp/inet)" in made.above("listen.proxy")
    (folder / "master.cf").write_text(MASTER)  # postscreen does not look at it
    assert Made(folder, capsys, "smtpd_upstream_proxy_protocol = haproxy\n").get("listen.proxy") is None


def test_proxy_protocol(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "postscreen_upstream_proxy_protocol = haproxy\npostscreen_upstream_proxy_timeout = 7\n")
    assert made.get("listen.addresses") == []
    assert made.get("listen.proxy") == [
        {"addresses": ["0.0.0.0:25", "[::]:25"], "trusted": ["0.0.0.0/0", "::/0"], "timeout": "7s"}
    ]
    assert "listen.proxy: Postfix trusts every client" in made.err


def test_without_a_balancers_port_there_is_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "postscreen_upstream_proxy_protocol = haproxy2\n")
    assert made.config.listen.addresses and not made.config.listen.proxy
    assert "  listen.proxy: omitted: " in made.err


@pytest.mark.parametrize("protocol", ["", "haproxy"])
def test_protocols_that_postfix_refuses(protocol: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, f"postscreen_upstream_proxy_protocol = {protocol}\ninet_protocols = none\n")
    assert [str(address) for address in made.config.listen.ports] == ["0.0.0.0:25", "[::]:25"]
    assert bool(made.config.listen.proxy) == bool(protocol)
    assert "inet_protocols = none is omitted: Postfix rejects it as well" in made.err.partition("To do:\n")[2]


def test_without_certificates_there_is_no_tls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = relative.pem\n")
    assert made.raw["tls"]["level"] == "none"
    assert "  tls.level: STARTTLS is disabled, because it needs certificates" in made.err


TLS = [
    ("smtpd_tls_security_level = may", {}),  # no certificate: STARTTLS could not work
    ("smtpd_use_tls = yes\nsmtpd_tls_cert_file = /c\nsmtpd_tls_key_file = /k", {"certificates": ["/k", "/c"]}),
    ("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /both", {"certificates": ["/both"]}),
    (
        "smtpd_tls_security_level = verify\ntlsproxy_tls_chain_files = /one /two\nsmtpd_tls_cert_file = /old",
        {"level": "encrypt", "certificates": ["/one", "/two"]},
    ),
    (
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /c\nsmtpd_tls_protocols = !SSLv2 !SSLv3, !TLSv1",
        {"certificates": ["/c"], "protocols": ">=TLSv1.1"},
    ),
    (
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = /c\nsmtpd_tls_protocols = >=TLSv1.3\n"
        "smtpd_tls_mandatory_protocols = TLSv1.2\nsmtpd_tls_mandatory_exclude_ciphers = aNULL, RC4",
        {
            "level": "encrypt",
            "certificates": ["/c"],
            "protocols": ">=TLSv1.2, <=TLSv1.2",
            "ciphers": "DEFAULT:!aNULL:!RC4",
        },
    ),
    (
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /c\ntls_medium_cipherlist = HIGH\n"
        "smtpd_tls_loglevel = 3\nsmtpd_starttls_timeout = 20s",
        {"certificates": ["/c"], "ciphers": "HIGH", "log_level": 1, "handshake_time": "20s"},
    ),
]


@pytest.mark.parametrize(("main_cf", "expected"), TLS)
def test_tls(main_cf: str, expected: dict[str, object], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, main_cf + "\n")
    level = "may" if expected else "none"
    assert made.raw["tls"] == {"level": level, **expected}


def test_tlsproxys_own_options_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(
        MASTER.replace("0       tlsproxy", "0       tlsproxy -o tlsproxy_tls_chain_files=/own")
    )
    assert Made(folder, capsys, "smtpd_tls_security_level = may\n").get("tls.certificates") == ["/own"]


def test_what_cannot_be_taken_over_is_named_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(
        folder,
        capsys,
        "postscreen_greet_action = explode\npostscreen_dnsbl_sites = good.example, bad.example=1.2*3\n"
        "mynetworks = 192.0.2.1/24, hash:/etc/nets\npostscreen_greet_wait = soon\npostscreen_helo_required = maybe\n"
        "postscreen_command_count_limit = many\npostscreen_new_thing = 1\npostscreen_watchdog_timeout = 20s\n"
        "tlsproxy_client_level = may\nsyslog_facility = local1\n",
    )
    assert made.get("dnsbl.sites") == ["good.example"]
    for key in ("greet.action", "greet.wait", "engine.helo_required", "engine.command_count_limit"):
        assert made.get(key) is None
        assert f"  {key}: omitted: " in made.err
    assert made.get("access.mynetworks") == []
    assert "postscreen_new_thing (main.cf): unknown: mistyped, or from a newer Postfix" in made.err
    assert "postscreen_watchdog_timeout (main.cf): the supervisor restarts workers" in made.err
    assert "tlsproxy_client_level (main.cf): only for outgoing mail" in made.err
    assert "syslog_facility (main.cf): fastscreen always uses the facility mail" in made.err
    assert "# postscreen_new_thing = 1 (main.cf): unknown" in made.out


def test_master_and_the_way_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = MASTER.replace("1       postscreen", "1       postscreen\n  -o x=y\n# a comment")
    (folder / "master.cf").write_text(text)
    report = json.loads(Made(folder, capsys, "", "--json").out)
    assert [change["service"] for change in report["master_cf"]] == ["smtp/inet", "dnsblog/unix", "tlsproxy/unix"]
    assert report["master_cf"][0]["after"] == [
        "#smtp      inet  n       -       y       -       1       postscreen",
        "#  -o x=y",
    ]
    changed = text
    for change in report["master_cf"]:
        changed = changed.replace("\n".join(change["before"]), "\n".join(change["after"]))
    (folder / "master.cf").write_text(changed)
    again = postfix_settings.read(folder, None)
    assert [service.full_name for service in again.services] == ["smtpd/pass"]
    for change in report["master_cf"]:
        changed = changed.replace("\n".join(change["after"]), "\n".join(change["before"]))
    assert changed == text


def test_what_smtpd_and_the_outgoing_side_need_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(MASTER.replace("smtpd     pass", "#smtpd     pass"))
    report = json.loads(Made(folder, capsys, "smtp_tls_connection_reuse = yes\n", "--json").out)
    assert [change["service"] for change in report["master_cf"]] == ["smtp/inet", "dnsblog/unix", "smtpd/pass"]
    assert report["master_cf"][-1]["before"] == []
    assert report["master_cf"][-1]["after"][0].split() == ["smtpd", "pass", "-", "-", "y", "-", "-", "smtpd"]


def test_tlsproxy_stays_for_a_service_with_its_own_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(f"{MASTER}relay unix - - n - - smtp\n  -o smtp_tls_connection_reuse=yes\n")
    report = json.loads(Made(folder, capsys, "", "--json").out)
    assert [change["service"] for change in report["master_cf"]] == ["smtp/inet", "dnsblog/unix"]


def test_smtpd_at_the_port_makes_room(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without postscreen, smtpd is moved behind fastscreen, with the same chroot setting."""
    (folder / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    report = json.loads(Made(folder, capsys, "", "--json").out)
    assert [change["after"][0].split() for change in report["master_cf"]] == [
        ["#smtp", "inet", "n", "-", "y", "-", "-", "smtpd"],
        ["smtpd", "pass", "-", "-", "y", "-", "-", "smtpd"],
    ]


@pytest.mark.parametrize("there", [True, False])
def test_what_postscreen_knows_is_to_be_taken_along(
    there: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not there:
        (folder / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    todo = Made(folder, capsys, "postscreen_cache_map = lmdb:/x/cache\n").err.partition("To do:\n")[2]
    assert ("fastscreen cache import lmdb:/x/cache\n" in todo) == there


def test_smtpd_takes_its_options_along(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else mail would go past its content filter."""
    options = "  -o content_filter=scan:[127.0.0.1]:10025\n  -o { smtpd_banner = $myhostname ESMTP }\n  -o x=\n"
    (folder / "master.cf").write_text(f"smtp inet n - n - - smtpd\n{options}")
    change = json.loads(Made(folder, capsys, "", "--json").out)["master_cf"][-1]
    assert change["service"] == "smtpd/pass"
    assert change["after"][0].split() == ["smtpd", "pass", "-", "-", "n", "-", "-", "smtpd"]
    assert "".join(f"{line}\n" for line in change["after"][1:]) == options


def test_a_postscreen_s_options_are_not_smtpd_s(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text("smtp inet n - n - 1 postscreen -o postscreen_greet_wait=3\n")
    assert len(json.loads(Made(folder, capsys, "", "--json").out)["master_cf"][-1]["after"]) == 1


@pytest.mark.parametrize(
    ("names", "listens"),
    [
        (["25"], ["192.0.2.9:25"]),
        (["0.0.0.0:smtp", "[::]:25"], ["0.0.0.0:25", "[::]:25"]),
        (["[2001:db8::1]:25"], ["[2001:db8::1]:25"]),
    ],
)
def test_smtpd_at_the_port_by_any_name(
    names: list[str], listens: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it stays there, and fastscreen cannot have the port. Those at other ports stay."""
    others = "submission inet n - n - - smtpd\n127.0.0.1:2525 inet n - n - - smtpd\n25 unix - - n - - smtp\n"
    (folder / "master.cf").write_text("".join(f"{name} inet n - y - - smtpd\n" for name in names) + others)
    report = json.loads(Made(folder, capsys, "inet_interfaces = 192.0.2.9\n", "--json").out)
    assert [change["service"] for change in report["master_cf"]] == [*(f"{name}/inet" for name in names), "smtpd/pass"]
    assert report["master_cf"][-1]["after"][0].split() == ["smtpd", "pass", "-", "-", "y", "-", "-", "smtpd"]
    assert next(each["value"] for each in report["keys"] if each["key"] == "listen.addresses") == listens


@pytest.mark.parametrize("deep", [False, True])
def test_what_should_go_and_what_should_stay(deep: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "master.cf").write_text(
        MASTER.replace("-       smtpd\n", "-       smtpd\n -o smtpd_client_restrictions=reject_rbl_client,b.example\n")
    )
    made = Made(
        folder,
        capsys,
        f"postscreen_pipelining_enable = {'yes' if deep else 'no'}\n"
        "smtpd_recipient_restrictions = permit_mynetworks, reject_rbl_client a.example=127.0.0.2,\n"
        " permit_dnswl_client w.example, reject_rhsbl_sender d.example, check_policy_service inet:127.0.0.1:10023,\n"
        " check_policy_service unix:private/policyd-spf\n",
        "--json",
    )
    report = json.loads(made.out)
    gone = [each["item"] for each in report["remove"]]
    assert gone[:2] == ["reject_rbl_client a.example=127.0.0.2", "permit_dnswl_client w.example"]
    assert gone[-1] == "reject_rbl_client b.example"
    assert ("check_policy_service inet:127.0.0.1:10023" in gone) == deep
    stays = [each["item"] for each in report["keep"]]
    assert stays[0] == "reject_rhsbl_sender d.example"
    assert not any("policyd-spf" in item for item in gone + stays)
    entry = next(each for each in report["keys"] if each["key"] == "deep.pipelining")
    assert entry["value"] == ("enforce" if deep else "off")


@pytest.mark.parametrize("action", ["ignore", "enforce"])
def test_what_comes_before_a_look_up_goes(action: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise clients would be accepted that were rejected before."""
    made = Made(
        folder,
        capsys,
        f"postscreen_dnsbl_action = {action}\npostscreen_dnsbl_sites = A.example=127.0.0.[2;3]*2 w.example*-1\n"
        "smtpd_restriction_classes = lists\nlists = reject_rbl_client a.example=127.0.0.2\n"
        "smtpd_recipient_restrictions = reject_rbl_client {b.example}, permit_dnswl_client w.example,\n"
        " permit_dnswl_client v.example\n",
        "--json",
    )
    why = {each["item"]: (each["parameter"], each["why"]) for each in json.loads(made.out)["remove"]}
    on = "" if action == "enforce" else 'set dnsbl.action to "enforce" ("ignore" rejects no clients)'
    add = "first add this list to dnsbl.sites"
    all_is_well = "fastscreen already queries this list"
    assert why["reject_rbl_client a.example=127.0.0.2"] == ("lists", f"first {on}" if on else all_is_well)
    assert why["reject_rbl_client {b.example}"][1] == add + (f", and {on}" if on else "")
    assert why["permit_dnswl_client w.example"][1] == all_is_well
    assert why["permit_dnswl_client v.example"][1] == f"{add}, with a negative weight"


def test_continue_is_offered_with_deep_tests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offered = '#continue_to = "proxy:127.0.0.1:10025"'
    assert offered in Made(folder, capsys, "postscreen_bare_newline_enable = yes\n").out.splitlines()
    assert offered not in Made(folder, capsys, "").out.splitlines()


def test_output_is_written_at_once_and_never_over_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out" / "fastscreen.toml"
    assert Made(folder, capsys, "", "--output", str(out)).code == 1
    out.parent.mkdir()
    assert Made(folder, capsys, "", "--output", str(out)).code == 0
    first = out.read_text()
    config.load(out)
    assert out.stat().st_mode & 0o777 == 0o640  # the keys of some lists are secrets
    again = Made(folder, capsys, "postscreen_greet_wait = 1s\n", "--output", str(out))
    assert again.code == 1 and "--force" in again.err and out.read_text() == first
    assert Made(folder, capsys, "postscreen_greet_wait = 1s\n", "--output", str(out), "--force").code == 0
    assert 'wait = "1s"' in out.read_text() and out.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in out.parent.iterdir()] == ["fastscreen.toml"]


def test_an_old_name_beside_the_new_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report explains the result of both lines."""
    main_cf = "postscreen_dnsbl_allowlist_threshold = -1\npostscreen_dnsbl_whitelist_threshold = -5\n"
    made = Made(folder, capsys, main_cf)
    assert made.get("dnsbl.allowlist_threshold") == -1
    reason = "ignored, because postscreen_dnsbl_allowlist_threshold is set as well"
    assert f"postscreen_dnsbl_whitelist_threshold (main.cf): {reason}" in made.err
    assert "is set as well" not in Made(folder, capsys, main_cf.partition("\n")[2]).err


def test_a_name_may_be_a_services(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in half of all main.cf; `$name` reaches no further than letters, digits and _, there as here."""
    main_cf = "policyd-spf_time_limit = 3600\n127.0.0.1:10024_x=1\nb-c = 2\nsmtpd_banner = $b-c ESMTP\n"
    assert Made(folder, capsys, main_cf).get("banner") == "-c ESMTP"


@pytest.mark.parametrize(
    ("main_cf", "master_cf", "said"),
    [
        ("what is this\n", MASTER, "main.cf: line 1: what is this: not of the form NAME = VALUE"),
        ("= value\n", MASTER, "main.cf: line 1: = value: not of the form NAME = VALUE"),
        ("two words = value\n", MASTER, "main.cf: line 1: two words = value: not of the form NAME = VALUE"),
        ("", "smtp inet n\n", "master.cf: line 1: smtp inet n: fewer than 8 fields"),
        ("", "smtp inet n - y - 1 postscreen -o { x = y\n", "master.cf: line 1: no } for {"),
        ("a = $b\nb = $a\nsmtpd_banner = $a\n", MASTER, "leads back to itself"),
        (
            "".join(f"a{at} = $a{at + 1}$a{at + 1}\n" for at in range(40)) + "smtpd_banner = $a0\n",
            MASTER,
            "more than 10000 names in it",
        ),
        ("x = 1\nsmtpd_banner = ${x?{a}:{b}c}\n", MASTER, 'bad text after }: "x?{a}:{b}c"'),
    ],
)
def test_what_cannot_be_read(
    main_cf: str, master_cf: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "master.cf").write_text(master_cf)
    made = Made(folder, capsys, main_cf)
    if made.code == 0:
        assert said in made.err  # of one key: all others are taken over
    else:
        assert (made.code, made.out) == (1, "")
        assert said in made.err and made.err.count("\n") == 1


def test_no_main_cf(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-postfix", "--config-dir", str(folder)]) == 1
    assert capsys.readouterr().err.endswith("main.cf: cannot be read: No such file or directory\n")


def test_hostile_text_stays_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value cannot leave its comment or its string, nor reach the terminal."""
    made = Made(folder, capsys, 'postscreen_reject_footer = "\n\t[log]\n\tto = \x1b[31m\x7f"\nmail_owner = x\x07"\n')
    assert "\x1b" not in made.out + made.err and "\x07" not in made.out + made.err
    assert made.get("log.to") == "syslog"


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "iso-8859-1"},
        {"LC_ALL": "C.UTF-8"},
    ],
    ids=["ascii", "latin-1", "utf-8"],
)
@pytest.mark.parametrize("to_file", [True, False])
def test_what_is_written_is_utf_8_in_any_locale(locale: dict[str, str], to_file: bool, tmp_path: Path) -> None:
    """TOML has to be."""
    (tmp_path / "main.cf").write_bytes("myhostname = mx.example.com\nsmtpd_banner = é ESMTP\n# é\n".encode())
    (tmp_path / "master.cf").write_text("smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n")
    written = tmp_path / "fastscreen.toml"
    command = [sys.executable, "-m", "fastscreen", "import-postfix", "--config-dir", str(tmp_path)]
    command += ["--output", str(written)] if to_file else []
    done = subprocess.run(command, capture_output=True, env={**os.environ, **locale}, check=False)
    assert done.returncode == 0, done.stderr
    text = written.read_bytes() if to_file else done.stdout
    assert "é ESMTP" in text.decode()
    tomllib.loads(text.decode())
