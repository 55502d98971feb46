"""The package in Debian, with systemd and Postfix: installed, upgraded under load, downgraded, removed, purged."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peers import certificate

from debian.machine import Machine, bare, wait_until
from fastscreen import __version__
from tools import debian_package

CONFIG = "/etc/fastscreen/fastscreen.toml"
LOG = "/var/log/fastscreen/fastscreen.log"
PAGE = Path(__file__).resolve().parents[2] / "docs/debian.md"
LOAD = Path(__file__).with_name("load.py")
LOAD_SECONDS = 8.0  # before the upgrade, and after it
MAX_KB = 60 * 1024
DOCUMENTED = """
hostname = "mx.example.com"
mode = "shadow"

[listen]
addresses = ["0.0.0.0:25"]

[handoff]
to = "pass:/var/spool/postfix/public/smtpd"

[greet]
action = "enforce"
wait = "2s"

[log]
to = "file:/var/log/fastscreen/fastscreen.log"
"""


def commands_of_the_page(heading: str) -> str:
    """Return the commands below a heading of docs/debian.md."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL))


def configure(machine: Machine) -> None:
    """Put fastscreen in front of Postfix, with the commands of the page."""
    machine.sh("postconf -e 'mydestination = mx.example.com, localhost' 'inet_protocols = ipv4'")
    with (machine.root / CONFIG[1:]).open("w") as file:
        file.write(DOCUMENTED)
    machine.sh(commands_of_the_page("In front of Postfix, by hand"))


DROP_IN = "/etc/systemd/system/fastscreen.service.d/setup.conf"
MASTER = "etc/postfix/master.cf"
MAIL = re.compile(r"/var/(spool/postfix|lib/postfix|mail)|/etc/postfix")
GREETING = """
import socket
with socket.create_connection(("127.0.0.1", 25), 20) as client:
    client.settimeout(20)
    print(client.makefile().readline().strip())
    client.sendall(b"QUIT\\r\\n")
"""
# `setup`, killed at its first call of a function
KILLED = """
import os, sys
from fastscreen.cli import main, setup_service
def killed(*arguments, **more):
    os._exit(9)
setattr(setup_service, {name!r}, killed)
sys.exit(main(["setup", {option!r}]))
"""


def postfix_as_debian_configures_it(machine: Machine) -> None:
    """Only the name is set, because nobody was there to be asked for it at the installation."""
    machine.sh("postconf -e 'myhostname = mx.example.com' 'mydestination = mx.example.com, localhost'; postfix reload")
    wait_until(lambda: greeting(machine).startswith("220 mx.example.com ESMTP Postfix (Debian"), "Postfix")


def greeting(machine: Machine) -> str:
    """Return the first line that a client reads."""
    return machine.run("python3", "-c", GREETING).strip().splitlines()[-1]


def set_up(machine: Machine, *words: str, code: int = 0) -> str:
    """Run `fastscreen setup`; return what it printed."""
    said = machine.sh(f"fastscreen setup {' '.join(words)} && echo exit code 0 || echo exit code $?")
    assert f"exit code {code}" in said, said
    return said


def assert_as_before(machine: Machine, master: bytes) -> None:
    """Nothing of what `setup` does for systemd and Postfix is there."""
    assert (machine.root / MASTER).read_bytes() == master
    assert not (machine.root / DROP_IN[1:]).parent.exists()
    assert machine.sh("systemctl show --value --property User fastscreen.service") == "fastscreen\n"
    for word in ("is-active", "is-enabled"):
        assert machine.run("systemctl", word, "fastscreen.service") in ("inactive\n", "disabled\n")
    assert greeting(machine).startswith("220")
    assert "fastscreen" not in machine.sh("ps -eo comm")


def deliver(machine: Machine, subject: str, *words: str) -> None:
    """Send a message through port 25, and see it in the mailbox."""
    headers = f"--h-Subject {subject} --from a@example.org --to root@mx.example.com --timeout 30"
    assert "queued as" in machine.sh(f"swaks --server 127.0.0.1 {headers} {' '.join(words)}")
    wait_until(lambda: f"Subject: {subject}" in machine.run("cat", "/var/mail/root"), "the delivered message")


def main_pid(machine: Machine) -> str:
    return machine.sh("systemctl show --value --property MainPID fastscreen.service").strip()


def version(machine: Machine) -> str:
    """Return that of the daemon that runs."""
    return str(json.loads(machine.sh("fastscreen status --json 2> /dev/null"))["version"])


def test_an_installed_package_changes_nothing(machine: Machine, packages: list[Path]) -> None:
    ports = machine.sh("cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" {print $2}' | sort")
    machine.install(packages[1])
    assert machine.sh("cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" {print $2}' | sort") == ports
    for unit in ("fastscreen.service", "fastscreen.socket"):
        assert machine.run("systemctl", "is-active", unit) == "inactive\n"
        assert machine.run("systemctl", "is-enabled", unit) == "disabled\n"
    assert machine.sh(f"stat -c '%U:%G %a' {CONFIG}") == "root:fastscreen 640\n"
    assert machine.sh("stat -c '%U:%G %a' /run/fastscreen /var/lib/fastscreen /var/log/fastscreen").splitlines() == [
        "fastscreen:fastscreen 755",
        "fastscreen:fastscreen 750",
        "fastscreen:fastscreen 750",
    ]
    assert CONFIG in machine.sh("dpkg-query -W -f '${Conffiles}' fastscreen")
    assert "postdrop" in machine.sh("id -nG fastscreen").split()
    # Nobody but root and the daemon's user can read the configuration.
    assert machine.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", CONFIG).endswith("Permission denied\n")


def test_what_is_in_the_package(machine: Machine, packages: list[Path]) -> None:
    machine.install(packages[1])
    assert machine.sh("fastscreen --version") == f"fastscreen {packages[1].name.split('_')[1].partition('+')[0]}\n"
    assert "fastscreen.toml" in machine.sh("man --where fastscreen fastscreen.toml")
    for path in (
        "/usr/share/bash-completion/completions/fastscreen",
        "/usr/share/zsh/vendor-completions/_fastscreen",
        "/usr/share/fish/vendor_completions.d/fastscreen.fish",
    ):
        assert "import-postfix" in machine.sh(f"cat {path}")
    machine.sh("logrotate --debug /etc/logrotate.d/fastscreen")
    line = "Nov 30 03:00:00 mx fastscreen[7]: DNSBL rank 3 for [192.0.2.1]:2525"
    assert "1 matched" in machine.run("fail2ban-regex", line, "/etc/fail2ban/filter.d/fastscreen.conf")
    machine.sh("systemd-analyze verify fastscreen.service fastscreen.socket")
    machine.sh("fastscreen demo --headless --seconds 5")
    # Without caches, which here are Python's: du counts the blocks of each file.
    size = int(
        machine.sh(
            "dpkg -L fastscreen | xargs -d '\\n' stat -c '%F %s %n' | awk '/^regular/ && !/pycache/ "
            "{sum += $3} END {print int(sum / 1024)}'"
        )
    )
    print(f"installed: {size} kB without caches")
    assert size <= MAX_KB
    # No path of the build, and no Python but Debian's
    assert machine.run("grep", "-rIl", "/build/fastscreen", "/usr/lib/fastscreen", "/usr/bin/fastscreen") == ""


def test_in_front_of_postfix(machine: Machine, packages: list[Path]) -> None:
    machine.install(packages[1])
    configure(machine)
    said = machine.sh("swaks --server 127.0.0.1 --from a@example.org --to root@mx.example.com --timeout 30")
    assert "queued as" in said
    wait_until(lambda: "Subject: test" in machine.run("cat", "/var/mail/root"), "the delivered message")
    assert "PASS NEW [127.0.0.1]" in machine.sh(f"cat {LOG}")
    # It runs as its own user, and so does logrotate.
    assert machine.sh(f"stat -c %U /proc/{main_pid(machine)}") == "fastscreen\n"
    machine.sh(f"logrotate --force /etc/logrotate.d/fastscreen && test -s {LOG}.1")


def upgrade_under_load(machine: Machine, package: Path) -> None:
    """Install a package while clients come and go: nobody notices, and the main process stays the same."""
    before = main_pid(machine)
    load = subprocess.Popen([*machine.enter("--net"), sys.executable, str(LOAD)], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(LOAD_SECONDS)  # clients in every state
        said = machine.install(package)
        assert load.poll() is None, "the load has ended"
        assert version(machine) == package.name.split("_")[1].partition("+")[0], said
        assert main_pid(machine) == before
        time.sleep(LOAD_SECONDS)
        load.terminate()
        found = json.loads(load.communicate()[0])
    finally:
        load.kill()
        load.wait()
    assert found["problems"] == {}
    assert found["complete"] > 200
    log = machine.sh(f"cat {LOG}")
    passed = set(re.findall(r"PASS NEW \[(127\.10\.\S+)\]", log))
    assert passed >= set(found["passed"])
    again = re.findall(r"PASS NEW \[(127\.10\.\S+)\]", log)
    assert len(again) == len(passed), "a pass was lost: the client was tested again"
    print(f"{package.name}: {found['complete']} sessions, {len(passed)} passes")


def test_upgrade_and_downgrade_under_load(machine: Machine, packages: list[Path]) -> None:
    old, new = packages
    machine.install(old)
    configure(machine)
    upgrade_under_load(machine, new)
    # The changed configuration is kept, and the package's new one is next to it.
    assert (machine.root / CONFIG[1:]).read_text() == DOCUMENTED
    assert machine.sh(f"stat -c '%U:%G %a' {CONFIG}") == "root:fastscreen 640\n"
    assert (machine.root / f"{CONFIG[1:]}.dpkg-dist").exists()
    upgrade_under_load(machine, old)


def test_upgrade_with_socket_activation(machine: Machine, packages: list[Path]) -> None:
    old, new = packages
    machine.install(old)
    machine.sh(
        "mkdir -p /etc/systemd/system/fastscreen.socket.d\n"
        "printf '[Socket]\\nListenStream=\\nListenStream=0.0.0.0:25\\n' "
        "> /etc/systemd/system/fastscreen.socket.d/addresses.conf\n"
        "systemctl daemon-reload"
    )
    configure(machine)
    machine.sh(
        "systemctl stop fastscreen.service && systemctl enable --now fastscreen.socket && "
        "systemctl start fastscreen.service"
    )
    upgrade_under_load(machine, new)


def test_an_upgrade_that_would_not_start(machine: Machine, packages: list[Path]) -> None:
    """The running daemon continues, and apt succeeds."""
    old, new = packages
    machine.install(old)
    configure(machine)
    before = main_pid(machine)
    with (machine.root / CONFIG[1:]).open("a") as file:
        file.write("\n[nonsense]\n")
    said = machine.install(new)
    assert "the running daemon continues" in said
    assert version(machine) == old.name.split("_")[1].partition("+")[0]
    assert main_pid(machine) == before
    assert "queued as" in machine.sh(
        "swaks --server 127.0.0.1 --from a@example.org --to root@mx.example.com --timeout 30"
    )


def test_remove_and_purge(machine: Machine, packages: list[Path]) -> None:
    before = machine.snapshot()
    machine.install(packages[1])
    configure(machine)
    machine.sh("swaks --server 127.0.0.1 --from a@example.org --to root@mx.example.com --timeout 30")
    cached = machine.sh("ls /var/lib/fastscreen")
    assert cached
    machine.run("apt-get", "remove", "-y", "fastscreen", check=True)
    assert machine.run("systemctl", "is-active", "fastscreen.service") == "inactive\n"
    assert (machine.root / CONFIG[1:]).read_text() == DOCUMENTED
    assert machine.sh("ls /var/lib/fastscreen") == cached
    machine.run("apt-get", "purge", "-y", "fastscreen", check=True)
    after = machine.snapshot()
    assert sorted(line for line in before ^ after if not MAIL.search(line)) == []


def test_guided_start_and_the_way_back(machine: Machine, packages: list[Path]) -> None:
    """Install, one command, a delivered message; then everything back."""
    postfix_as_debian_configures_it(machine)
    before, master = machine.snapshot(), (machine.root / MASTER).read_bytes()
    machine.install(packages[1])
    new = (machine.root / CONFIG[1:]).read_text()
    shown = machine.sh("setpriv --reuid=nobody --clear-groups fastscreen setup --show")
    assert "User=postfix" in shown and (machine.root / MASTER).read_bytes() == master
    said = set_up(machine, "--yes")
    print(said)
    assert "User=postfix" in said and "check: the mail server answers" in said
    # In Debian 12, Postfix has a certificate, whose key is readable for a group. No other check has found a problem.
    has_certificate = "snakeoil" in machine.run("postconf", "-h", "smtpd_tls_key_file")
    assert ("SupplementaryGroups=ssl-cert" in said) == has_certificate
    assert [line for line in said.splitlines() if line.startswith("* check: ")] == [
        "* check: the mail server answers, and fastscreen can start"
    ]
    deliver(machine, "guided")
    assert "ALLOWLISTED [127.0.0.1]" in machine.sh("journalctl --identifier=postfix/postscreen")
    assert "SHADOW MODE" in machine.sh("fastscreen status")
    assert machine.sh(f"stat -c %U /proc/{main_pid(machine)}") == "postfix\n"
    machine.sh("systemctl restart fastscreen && logrotate --force --state /tmp/state /etc/logrotate.d/fastscreen")
    deliver(machine, "restarted")
    set_up(machine, "--undo")
    assert_as_before(machine, master)
    assert (machine.root / CONFIG[1:]).read_text() == new
    assert machine.sh(f"stat -c '%U:%G %a' {CONFIG}") == "root:fastscreen 640\n"
    deliver(machine, "undone")
    machine.run("apt-get", "purge", "-y", "fastscreen", check=True)
    assert sorted(line for line in before ^ machine.snapshot() if not MAIL.search(line)) == []


def test_guided_start_instead_of_postscreen(machine: Machine, packages: list[Path]) -> None:
    """Debian's own lines for postscreen were activated; the client is tested, because no network is exempt."""
    postfix_as_debian_configures_it(machine)
    swap = r"s/^smtp +inet .* smtpd$/#&/; s/^#((smtp +inet .* postscreen|smtpd +pass|dnsblog|tlsproxy) *)/\1/"
    machine.sh(f"sed -i -E '{swap}' /{MASTER} && postfix check && postfix reload")
    wait_until(lambda: "postscreen" in machine.sh("postconf -M smtp/inet"), "postscreen")
    master = (machine.root / MASTER).read_bytes()
    machine.install(packages[1])
    said = set_up(machine, "--yes", "--networks", "none")
    assert "postscreen" in said
    deliver(machine, "tested")
    assert "PASS NEW [127.0.0.1]" in machine.sh("journalctl --identifier=postfix/postscreen")
    set_up(machine, "--undo")
    assert_as_before(machine, master)


def test_feedback_from_the_journal(machine: Machine, packages: list[Path]) -> None:
    """What Postfix logs about clients that were handed off reaches the memory of offenses."""

    def outcomes() -> tuple[int, int]:
        found = json.loads(machine.sh("fastscreen status --json 2> /dev/null"))["feedback"]
        return found["accepted"], found["rejected"]

    postfix_as_debian_configures_it(machine)
    machine.sh("postconf -e smtpd_client_port_logging=yes && postfix reload")
    machine.install(packages[1])
    set_up(machine, "--yes", "--networks", "none")
    keys = r's,^\[score\],&\nmemory = "/var/lib/fastscreen/offenses",; s,^\[feedback\],&\nlog = "journal",'
    machine.sh(f"sed -i '{keys}' {CONFIG}")
    check = f"setpriv --reuid=postfix --regid=postfix {{}} fastscreen check -v -c {CONFIG}"
    assert "add this user to the group systemd-journal" in machine.run("sh", "-c", check.format("--clear-groups"))
    assert "ok: feedback.log" in machine.run("sh", "-c", check.format("--groups=systemd-journal"))
    drop_in = machine.root / DROP_IN[1:]
    drop_in.with_name("journal.conf").write_text("[Service]\nSupplementaryGroups=systemd-journal\n")
    machine.sh("systemctl daemon-reload && systemctl restart fastscreen")
    wait_until(lambda: outcomes() == (0, 0), "the recorder")
    deliver(machine, "accepted")
    wait_until(lambda: outcomes() == (1, 0), "the accepted message")
    unknown = "swaks --server 127.0.0.1 --from a@example.org --to nobody-here@mx.example.com --timeout 30"
    assert "550 5.1.1" in machine.run("sh", "-c", unknown)
    wait_until(lambda: outcomes() == (1, 1), "the rejected recipient")
    assert "bad 0.5, good 1.0, last bad" in machine.sh("fastscreen reputation get 127.0.0.1")


@pytest.mark.parametrize("group", ["root", "mail"])
def test_guided_start_with_a_key_for_root_or_a_group(machine: Machine, packages: list[Path], group: str) -> None:
    """The unit gets copies of a key that only root can read; otherwise it gets the group that can read it."""
    postfix_as_debian_configures_it(machine)
    folder = machine.root / "etc/postfix/tls"
    folder.mkdir()

    def renew() -> None:
        for path in certificate.make(folder):
            path.chmod(0o600 if group == "root" else 0o640)
        machine.sh(f"chmod 750 /etc/postfix/tls && chown -R root:{group} /etc/postfix/tls")

    renew()
    chain = folder / "mx.pem"
    inside = ["/etc/postfix/tls/mx.key", "/etc/postfix/tls/mx.pem"]
    machine.sh(
        f"postconf -e 'smtpd_tls_security_level = may' 'smtpd_tls_chain_files = {', '.join(inside)}' && postfix reload"
    )
    master = (machine.root / MASTER).read_bytes()
    machine.install(packages[1])
    said = set_up(machine, "--yes")
    print(said)
    assert (f"LoadCredential=certificate-1.pem:{inside[0]}" in said) == (group == "root")
    assert ("systemctl restart fastscreen" in said) == (group == "root")
    assert ("SupplementaryGroups=mail" in said) == (group == "mail")
    assert [line for line in said.splitlines() if line.startswith("* check: ")] == [
        "* check: the mail server answers, and fastscreen can start"
    ]
    assert "fastscreen-tls" in machine.sh("ps -eo comm")
    deliver(machine, "begun")
    before = chain.read_bytes()
    renew()
    assert chain.read_bytes() != before
    machine.sh("systemctl restart fastscreen")
    if group == "root":
        copy = machine.sh("cat /run/credentials/fastscreen.service/certificate-2.pem")
        assert copy == chain.read_text()
    deliver(machine, "renewed")
    set_up(machine, "--undo")
    assert_as_before(machine, master)


def test_interrupted_guided_start(machine: Machine, packages: list[Path]) -> None:
    """Killed at each step that concerns systemd, also on the way back."""
    postfix_as_debian_configures_it(machine)
    master = (machine.root / MASTER).read_bytes()
    machine.install(packages[1])

    def killed(name: str, option: str) -> None:
        program = KILLED.format(name=name, option=option)
        (machine.root / "root/killed.py").write_text(program)
        assert "code 9" in machine.sh("/usr/lib/fastscreen/bin/python /root/killed.py || echo code $?")

    for name in ("reload_units", "checked", "enable", "wait_for_greeting", "verify_handoff"):
        killed(name, "--yes")
        assert (machine.root / DROP_IN[1:]).exists()
        set_up(machine, "--undo")
        assert_as_before(machine, master)
    for name in ("disable", "reload_units", "wait_until_free"):
        set_up(machine, "--yes")
        killed(name, "--undo")
        set_up(machine, "--undo")
        assert_as_before(machine, master)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("User=fastscreen", "another drop-in sets User=fastscreen; expected postfix"),
        ("InaccessiblePaths=/var/spool/postfix/private", "expected 220"),
    ],
)
def test_guided_start_of_a_unit_that_cannot_hand_off(
    machine: Machine, packages: list[Path], line: str, problem: str
) -> None:
    """Postfix has its port again, whether that is found before it released the port or by a client of fastscreen."""
    postfix_as_debian_configures_it(machine)
    machine.install(packages[1])
    master = (machine.root / MASTER).read_bytes()
    other = machine.root / DROP_IN[1:].replace("setup.conf", "zz.conf")
    other.parent.mkdir()
    other.write_text(f"[Service]\n{line}\n")
    said = set_up(machine, "--yes", code=1)
    assert problem in said and "reverting" in said, said
    other.unlink()
    other.parent.rmdir()
    machine.sh("systemctl daemon-reload")
    assert_as_before(machine, master)
    set_up(machine, "--undo")
    deliver(machine, "as-before")


def test_two_builds_are_identical(suite: str, packages: list[Path], tmp_path: Path) -> None:
    (again,) = debian_package.build(suite, [__version__], tmp_path)
    assert filecmp.cmp(packages[1], again, shallow=False)


def test_without_systemd(suite: str, packages: list[Path]) -> None:
    """In a chroot, as in an image that is being built: the maintainer scripts need no systemd that runs."""
    machine = Machine(suite, packages[0].parent)
    try:
        for package in packages:
            target = machine.root / "root" / package.name
            target.write_bytes(package.read_bytes())
        script = "mount -t proc proc /proc\nexport DEBIAN_FRONTEND=noninteractive\n"
        for package in (packages[0], packages[1], packages[0]):
            script += f"dpkg --force-confold -i /root/{package.name}\n"
        script += "test -f /etc/fastscreen/fastscreen.toml\ndpkg --remove fastscreen\ndpkg --purge fastscreen\n"
        script += "! getent passwd fastscreen\n! test -e /etc/fastscreen\n! test -e /var/lib/fastscreen\n"
        command = ["unshare", "--mount", "--pid", "--fork", "--net", "chroot", str(machine.root), "sh", "-ec", script]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    finally:
        machine.close()


def test_two_commands_in_a_bare_debian(suite: str, packages: list[Path]) -> None:
    """With nothing but apt, which fetches from the mirror what the package depends on."""
    root, package = bare(suite), packages[1]
    try:
        shutil.copy(package, root / package.name)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        (root / "etc/apt/apt.conf.d/99test").write_text('Acquire::Check-Valid-Until "false";\n')
        script = "mount -t proc proc /proc\nexport DEBIAN_FRONTEND=noninteractive\napt-get update -qq\n"
        script += f"apt-get install -y --no-install-recommends /{package.name}\n"
        script += "fastscreen demo --headless --seconds 10\n"
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", str(root), "sh", "-ec", script]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    finally:
        shutil.rmtree(root)
