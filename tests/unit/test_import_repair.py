"""fastscreen import-postfix: what the daemon would refuse is omitted with something to do; the file always starts."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastscreen import config
from fastscreen.cli import import_postfix, main
from fastscreen.config import Config
from fastscreen.postfix import settings as postfix_settings
from fastscreen.postfix import verify
from fastscreen.postfix.verify import Problem, Result
from fastscreen.screening import policy

MASTER = "smtp inet n - n - 1 postscreen\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder, on a machine without postconf, with a log daemon; the daemon's user is this one."""
    monkeypatch.setattr(postfix_settings, "postconf_program", lambda: None)
    log = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(log))
    monkeypatch.setattr(verify, "SYSLOG_SOCKET", str(log))
    monkeypatch.setattr(verify, "user_of", lambda config: "")
    monkeypatch.setattr(import_postfix, "user_of", lambda config: "")
    (tmp_path / "master.cf").write_text(MASTER)
    return tmp_path


class Made:
    """One run with --json and --output."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], main_cf: str) -> None:
        (folder / "main.cf").write_text(main_cf)
        self.path = folder / "made.toml"
        words = ["--config-dir", str(folder), "--output", str(self.path), "--force", "--json"]
        assert main(["import-postfix", *words]) == 0
        report = json.loads(capsys.readouterr().out)
        self.values: dict[str, Any] = {each["key"]: each["value"] for each in report["keys"]}
        self.todo = [
            f"{each['key']}: {note['text']}" for each in report["keys"] for note in each["notes"] if note["todo"]
        ]
        self.config = config.load(self.path)
        assert verify.verify(self.path.read_text()).problems == []

    def says(self, key: str, *parts: str) -> bool:
        """Whether one to-do line contains all of these."""
        return any(line.startswith(f"{key}: ") and all(part in line for part in parts) for line in self.todo)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A key and its certificate."""
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(chain)],
        check=True,
        capture_output=True,
    )
    return key, chain


def test_ciphers_that_openssl_does_not_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quotes typed by hand belong to the value in main.cf."""
    key, chain = certificate(folder, "mx")
    made = Made(
        folder,
        capsys,
        f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {chain}\nsmtpd_tls_key_file = {key}\n"
        'smtpd_tls_ciphers = medium\ntls_medium_cipherlist = "ECDHE-RSA-AES128-GCM-SHA256"\n',
    )
    assert made.values["tls.ciphers"] is None
    assert made.values["tls.level"] == "may"
    assert made.values["tls.certificates"] == [str(key), str(chain)]
    assert made.says("tls.ciphers", "omitted: ", "OpenSSL knows no cipher in")


@pytest.mark.parametrize("wrong", ["other key", "missing", "no key", "no PEM", "a folder"])
def test_certificates_that_cannot_be_used(wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, chain = certificate(folder, "mx")
    other, _ = certificate(folder, "other")
    (folder / "text").write_text("hello\n")
    first = {"other key": other, "missing": folder / "gone", "no key": chain, "no PEM": folder / "text"}
    made = Made(
        folder,
        capsys,
        f"smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {chain}\n"
        f"smtpd_tls_key_file = {first.get(wrong, folder)}\n",
    )
    assert made.values["tls.certificates"] is None
    assert made.values["tls.level"] == "none"
    assert made.says("tls.certificates", "omitted: ", str(chain))
    assert made.says("tls.level", "STARTTLS is disabled")


def test_tables_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each goes alone; the others stay, in their order."""
    (folder / "good.cidr").write_text("192.0.2.1 permit\n")
    os.mkfifo(folder / "pipe")
    made = Made(
        folder,
        capsys,
        f"postscreen_access_list = permit_mynetworks, cidr:{folder}/gone, cidr:{folder}/good.cidr,\n"
        f"  pcre:{folder}/pipe, cidr:{folder}, hash:{folder}/indexed, inline:{{}}, reject\n"
        f"mynetworks = 127.0.0.0/8, /{folder}/nets, 10.0.0.0/8\n"
        f"postscreen_command_filter = pcre:{folder}/filter\npostscreen_dnsbl_reply_map = texthash:{folder}/map\n"
        f"postscreen_discard_ehlo_keyword_address_maps = cidr:{folder}/ehlo, cidr:{folder}/good.cidr\n"
        f"postscreen_reject_footer_maps = regexp:{folder}/footers\n"
        f"postscreen_forbidden_commands = GET, regexp:{folder}/commands, POST, /{folder}/words\n",
    )
    assert made.values["access.list"] == ["permit_mynetworks", f"cidr:{folder}/good.cidr", "reject"]
    assert made.values["access.mynetworks"] == ["127.0.0.0/8", "10.0.0.0/8"]
    assert made.values["engine.discard_ehlo_keyword_address_maps"] == [f"cidr:{folder}/good.cidr"]
    assert made.values["engine.forbidden_commands"] == ["GET", "POST"]
    for name in ("gone", "pipe", "indexed.txt"):
        assert made.says("access.list", "omitted: ", f"{folder}/{name}")
    assert made.says("access.list", f"postmap -s hash:{folder}/indexed > {folder}/indexed.txt")
    assert made.says("access.mynetworks", "omitted: ", f"{folder}/nets", "No such file")
    for key in ("engine.command_filter", "dnsbl.reply_map", "engine.reject_footer_maps"):
        assert not made.values[key]
        assert made.says(key, "omitted: ", str(folder))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "master.cf").write_text(MASTER)
        yield folder


@needs_root
def test_a_table_that_only_root_may_read(
    open_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon reads it as its user."""
    folder = open_folder
    monkeypatch.setattr(postfix_settings, "postconf_program", lambda: None)
    for name, mode in (("secret", 0o600), ("open", 0o644)):
        (folder / name).write_text("192.0.2.1 permit\n")
        (folder / name).chmod(mode)
    made = Made(
        folder,
        capsys,
        f"mail_owner = nobody\nmaillog_file = /dev/stdout\n"
        f"postscreen_access_list = cidr:{folder}/secret, cidr:{folder}/open\n",
    )
    assert made.values["user"] == "nobody"
    assert made.values["access.list"] == [f"cidr:{folder}/open"]
    assert made.says("access.list", f"cidr:{folder}/secret", "Permission denied")
    assert made.path.stat().st_gid != 0  # at SIGHUP the user reads it, too
    assert made.path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("owner", ["no-such-user", "root"])
def test_a_user_that_the_daemon_cannot_become(
    owner: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if owner == "root" and os.geteuid() != 0:
        owner = "no-such-user"
    monkeypatch.undo()
    monkeypatch.setattr(postfix_settings, "postconf_program", lambda: None)
    made = Made(folder, capsys, f"mail_owner = {owner}\nmaillog_file = /dev/stdout\n")
    assert made.values["user"] is None
    assert made.says("user", f'omitted: "{owner}": ')


def test_bad_lines_of_tables_are_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "nets").write_text("192.0.2.11\nsmarthost.example.net\n")
    (folder / "access").write_text("192.0.2.1 permit\nnonsense here\n")
    made = Made(
        folder, capsys, f"mynetworks = 127.0.0.0/8, {folder}/nets\npostscreen_access_list = cidr:{folder}/access\n"
    )
    assert made.values["access.mynetworks"] == ["127.0.0.0/8", f"{folder}/nets"]
    assert made.says("access.mynetworks", f"{folder}/nets, line 2: ", '"smarthost.example.net"', "skipped")
    assert made.says("access.list", f"{folder}/access, line 2: ", "skipped")


def test_a_netmask_is_to_do_with_the_prefix_length(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "mynetworks = 127.0.0.0/8 192.0.2.0/255.255.255.0\n")
    assert made.values["access.mynetworks"] == ["127.0.0.0/8"]
    assert made.says("access.mynetworks", "192.0.2.0/255.255.255.0 is omitted", '"192.0.2.0/24"')


def test_a_comment_behind_a_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(
        folder,
        capsys,
        "postscreen_dnsbl_sites = zen.example.org*3 # free for 100k\n"
        "mynetworks = 127.0.0.0/8 # ours\npostscreen_greet_action = enforce # from Monday\n"
        "postscreen_dnsbl_threshold = 3 #was 2\npostscreen_greet_wait = 7s # long\nsmtpd_banner = mx # 1\n",
    )
    assert made.values["dnsbl.sites"] == ["zen.example.org*3"]
    assert made.values["access.mynetworks"] == ["127.0.0.0/8"]
    assert made.values["greet.action"] == "enforce"
    assert made.values["dnsbl.threshold"] == 3
    assert made.values["greet.wait"] == "7s"
    assert made.values["banner"] == "mx # 1"
    assert len([line for line in made.todo if line.startswith("dnsbl.sites: ")]) == 1
    assert made.says("dnsbl.sites", "# free for 100k")
    for key in ("access.mynetworks", "greet.action", "dnsbl.threshold"):
        assert made.says(key, "#", "does not allow comments")


def test_a_word_without_a_dot_is_no_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "postscreen_dnsbl_sites = zen.example.org*3 free*2 localhost=127.0.0.2\n")
    assert made.values["dnsbl.sites"] == ["zen.example.org*3"]
    assert made.says("dnsbl.sites", "free*2 is omitted")
    assert made.says("dnsbl.sites", "localhost=127.0.0.2 is omitted")


def test_more_lists_than_there_may_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = [f"l{number}.example" for number in range(260)]
    made = Made(folder, capsys, f"postscreen_dnsbl_sites = {', '.join(sites)}\n")
    assert made.values["dnsbl.sites"] == sites[:256]
    for site in sites[256:]:
        assert made.says("dnsbl.sites", f'omitted: "{site}"')


def test_addresses_of_another_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(folder, capsys, "inet_interfaces = 127.0.0.1, 198.51.100.7\n")
    assert made.values["listen.addresses"] == ["127.0.0.1:25"]
    assert made.says("listen.addresses", 'omitted: "198.51.100.7:25": 198.51.100.7 is not an address of this machine')
    (folder / "master.cf").write_text("198.51.100.7:2525 inet n - n - 1 postscreen\n")
    alone = Made(folder, capsys, "")
    assert alone.values["listen.addresses"] == ["0.0.0.0:2525", "[::]:2525"]
    assert alone.says("listen.addresses", "all items are omitted")


def test_a_balancers_port_at_an_address_of_another_machine_stays_a_balancers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PROXY header at another port would be taken for early talk, from everyone."""
    proxy = "inet n - n - 1 postscreen -o postscreen_upstream_proxy_protocol=haproxy\n"
    (folder / "master.cf").write_text(f"198.51.100.7:2525 {proxy}")
    made = Made(folder, capsys, "")
    assert made.values["listen.addresses"] == []
    assert made.values["listen.proxy"][0]["addresses"] == ["0.0.0.0:2525", "[::]:2525"]
    assert made.says("listen.proxy", 'omitted: "198.51.100.7:2525"')


@pytest.mark.parametrize("timeout", ["soon", "0", "99999999999"])
def test_a_balancers_port_without_a_valid_timeout(
    timeout: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(
        folder,
        capsys,
        f"postscreen_upstream_proxy_protocol = haproxy\npostscreen_upstream_proxy_timeout = {timeout}\n",
    )
    assert made.values["listen.proxy"][0]["timeout"] == "5s"
    assert made.says("listen.proxy", f"postscreen_upstream_proxy_timeout = {timeout} is omitted")


def test_one_unknown_protocol_leaves_the_other_ports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option = "postscreen -o postscreen_upstream_proxy_protocol"
    (folder / "master.cf").write_text(
        f"{MASTER}2525 inet n - n - 1 {option}=haproxy\n2526 inet n - n - 1 {option}=other\n"
    )
    made = Made(folder, capsys, "")
    assert [port["addresses"][0] for port in made.values["listen.proxy"]] == ["0.0.0.0:2525"]
    assert made.says("listen.proxy", "2526/inet is omitted: upstream_proxy_protocol = other is not known")


def test_an_unknown_port_leaves_the_other_ports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option = "postscreen -o postscreen_upstream_proxy_protocol=haproxy"
    (folder / "master.cf").write_text(f"{MASTER}2525 inet n - n - 1 {option}\n[] inet n - n - 1 {option}\n")
    made = Made(folder, capsys, "")
    assert [port["addresses"][0] for port in made.values["listen.proxy"]] == ["0.0.0.0:2525"]
    assert made.says("listen.proxy", "[]: unknown port; add the addresses yourself")


def test_an_address_that_all_addresses_cover(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both cannot be bound, in Postfix, either."""
    proxy = "inet n - n - 1 postscreen -o postscreen_upstream_proxy_protocol=haproxy\n"
    (folder / "master.cf").write_text(f"{MASTER}127.0.0.1:2525 {proxy}127.0.0.1:25 {MASTER.removeprefix('smtp ')}")
    made = Made(folder, capsys, "")
    assert made.values["listen.addresses"] == ["0.0.0.0:25", "[::]:25"]
    assert made.values["listen.proxy"][0]["addresses"] == ["127.0.0.1:2525"]
    assert made.says("listen.addresses", 'omitted: "127.0.0.1:25": 127.0.0.1:25 is included in the wildcard address')


@pytest.mark.parametrize("path", ["{0}/gone/maillog", "{0}", "{0}/link"])
def test_a_log_that_cannot_be_written(path: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link").symlink_to(folder / "elsewhere")
    made = Made(folder, capsys, f"maillog_file = {path.format(folder)}\n")
    assert made.values["log.to"] is None
    assert made.says("log.to", "omitted: ", path.format(folder))


def test_no_log_daemon(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SYSLOG_SOCKET", str(folder / "gone"))
    made = Made(folder, capsys, "")
    assert made.values["log.to"] is None
    assert made.says("log.to", 'omitted: "syslog": ', "syslogd is not listening")


def test_a_table_that_is_never_read_to_its_end(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is only named in a file, so the key is found by omitting one key after the other."""
    monkeypatch.setattr(verify, "TIMEOUT", 2.0)
    os.mkfifo(folder / "pipe")
    (folder / "nets").write_text(f"10.0.0.0/8\n{folder}/pipe\n")
    made = Made(folder, capsys, f"mynetworks = {folder}/nets\npostscreen_greet_wait = 7s\n")
    assert made.values["access.mynetworks"] is None
    assert made.values["greet.wait"] == "7s"
    assert made.says("access.mynetworks", "omitted: ", "cannot be read in 2 s")


def test_what_this_user_may_not_look_at_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon starts as root, so an unprivileged user cannot check this."""
    denied = Problem("access.list", "cidr:/secret: cannot be read: Permission denied", denied=True)
    monkeypatch.setattr(import_postfix, "verify", lambda text: Result([denied]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (folder / "main.cf").write_text("postscreen_access_list = cidr:/secret\n")
    assert main(["import-postfix", "--config-dir", str(folder)]) == 0
    told = capsys.readouterr()
    assert 'list = ["cidr:/secret"]' in told.out
    assert "access.list: not checked, because this user lacks the rights: cidr:/secret: " in told.err


def test_an_error_of_our_own_is_a_problem_of_the_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key without which it does not happen goes."""
    tables = policy.Tables

    def broken(config: Config) -> policy.Tables:
        if config.greet.wait == 7:
            raise MemoryError("too much")
        return tables(config)

    monkeypatch.setattr(policy, "Tables", broken)
    made = Made(folder, capsys, "postscreen_greet_wait = 7s\npostscreen_dnsbl_timeout = 8s\n")
    assert (made.values["greet.wait"], made.values["dnsbl.timeout"]) == (None, "8s")
    assert made.says("greet.wait", 'omitted: "7s": MemoryError: too much')


# ---- the file


def write(folder: Path, name: str = "made.toml", *words: str) -> int:
    (folder / "main.cf").write_text("")
    return main(["import-postfix", "--config-dir", str(folder), "--output", str(folder / name), *words])


def test_a_symbolic_link_is_never_followed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "target").write_text("precious\n")
    (folder / "made.toml").symlink_to(folder / "target")
    assert write(folder, "made.toml", "--force") == 1
    assert "made.toml: cannot be written: a symbolic link; name the file itself" in capsys.readouterr().err
    assert (folder / "target").read_text() == "precious\n"
    (folder / "dangling").symlink_to(folder / "nowhere")
    assert write(folder, "dangling") == 1
    assert not (folder / "nowhere").exists()


def test_what_is_no_file_is_not_replaced(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert write(folder, "pipe", "--force") == 1
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o640), (0o600, 0o600), (0o640, 0o640), (0o666, 0o640)])
def test_the_mode_is_never_wider_than_before(before: int, after: int, folder: Path) -> None:
    (folder / "made.toml").write_text("")
    (folder / "made.toml").chmod(before)
    assert write(folder, "made.toml", "--force") == 0
    assert (folder / "made.toml").stat().st_mode & 0o777 == after


@needs_root
def test_the_owner_is_that_of_the_file_before(folder: Path) -> None:
    (folder / "made.toml").write_text("")
    os.chown(folder / "made.toml", 65534, 1)
    assert write(folder, "made.toml", "--force") == 0
    found = (folder / "made.toml").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 1, 0o640)


@needs_root
def test_a_file_that_the_daemon_cannot_read_at_sighup_is_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_postfix, "user_of", lambda config: "nobody")
    (folder / "made.toml").write_text("")
    assert write(folder, "made.toml", "--force") == 0
    assert "made.toml: user nobody cannot read it at SIGHUP; run: chgrp nogroup " in capsys.readouterr().err
    (folder / "made.toml").unlink()
    assert write(folder) == 0
    assert "SIGHUP" not in capsys.readouterr().err
    assert (folder / "made.toml").stat().st_gid == 65534


def test_descriptors_are_not_left_open(folder: Path) -> None:
    gc.collect()  # what earlier tests left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert write(folder) == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_python_needs_no_module_after_it_became_the_user() -> None:
    """That user may be unable to read Python's files."""
    program = (
        "import sys\nfrom fastscreen.postfix import verify\n"
        "before = set(sys.modules)\nverify._check('')\n"
        "late = sorted(set(sys.modules) - before)\nassert not late, late\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
