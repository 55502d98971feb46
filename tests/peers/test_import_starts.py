"""Configurations imported from any main.cf pass the check and run, wherever the real postscreen does."""

import errno
import os
import pwd
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from postfixfiles import Files, files, folder_with

from fastscreen import config
from fastscreen.config import Endpoint
from peers import needs, processes
from peers.namespace import Namespace
from peers.postfix import DAEMONS, settled
from peers.screener import COMMAND

# In a separate mount namespace, because the default paths of the cache and the control socket are the host's.
_PLACES = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib"
_MASTER = """\
postlog unix-dgram n - n - 1 postlogd
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
"""
_SAYS = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[4])) as client:
        client.settimeout(float(sys.argv[4]))
        client.sendall(sys.argv[3].encode())
        print(client.recv(200).decode("latin-1"))
except OSError:
    pass
"""
HEADER = "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n"  # where none is expected it is early talk
_TAKEN = re.compile(r"/postscreen\[[0-9]+\]: CONNECT from \[")
MASTER = "smtp inet n - n - 1 postscreen\n"


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    resolv_conf = tmp_path_factory.mktemp("import") / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    needs.program("postfix")
    needs.program("postfix-pcre")
    made = Namespace(resolv_conf)
    subprocess.run([*made.inside, "sh", "-c", _PLACES], check=True)
    yield made
    made.close()


def says(namespace: Namespace, where: Endpoint, seconds: float, header: str = "") -> str:
    """The first words of a server; empty: there are none in this time."""
    command = [*namespace.inside, "python3", "-c", _SAYS, where.host, str(where.port), header, str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Instance:
    """One configuration folder, complete enough for a real Postfix."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self.folder = folder
        self.made = folder / "fastscreen.toml"
        owner = pwd.getpwnam("postfix")
        for name in ("queue", "data", *(f"queue/{each}" for each in ("pid", "private", "public", "maildrop"))):
            (folder / name).mkdir(mode=0o755)
            os.chown(folder / name, 0 if name in ("queue", "queue/pid") else owner.pw_uid, 0)
        own = f"queue_directory = {folder}/queue\ndata_directory = {folder}/data\nmail_owner = postfix\n"
        own += f"maillog_file = {folder}/mail.log\nmaillog_file_prefixes = {folder}\nmydomain = example.test\n"
        own += f"postscreen_cache_map = btree:{folder}/data/cache\nmyhostname = mx.example.test\n"
        with (folder / "main.cf").open("a") as main:
            main.write(own)
        settled(folder / "main.cf")
        with (folder / "master.cf").open("a") as master:
            master.write(_MASTER)

    def postscreen_serves(self) -> bool:
        """Whether the real one takes a client at port 25. Where it refuses to start, master has it wait."""
        log = self.folder / "mail.log"
        master = processes.start(
            [str(DAEMONS / "master"), "-d", "-c", str(self.folder)],
            self.folder / "master.output",
            inside=self._namespace.inside,
        )
        try:
            for _ in range(40):
                says(self._namespace, Endpoint("127.0.0.1", 25), 0.2, HEADER)
                text = log.read_text(errors="replace") if log.exists() else ""
                if _TAKEN.search(text):
                    return True
                if master.poll() is not None or "fatal: " in text:
                    return False
            return False
        finally:
            processes.stop(master)
            # In its own session, a postscreen that has logged "fatal" sleeps for one second, with its sockets open.
            processes.wait_until(self._port_is_free, "postscreen to end", 60)

    def _port_is_free(self) -> bool:
        with self._namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
            try:
                probe.bind(("0.0.0.0", 25))
                probe.listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
            return True

    def imports(self) -> str:
        """Run the command; return what is to do."""
        command = [str(COMMAND), "import-postfix", "--config-dir", str(self.folder), "--output", str(self.made)]
        done = subprocess.run([*self._namespace.inside, *command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr.partition("To do:\n")[2].partition("\n\n")[0]

    def is_checked(self) -> None:
        """`check` may find fault with what is missing on this machine, but not with the configuration."""
        command = [*self._namespace.inside, str(COMMAND), "check", "-c", str(self.made)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr

    def fastscreen_serves(self) -> str:
        """Run it; return its first words at its first port. It fails when the daemon ends instead."""
        made = config.load(self.made)
        where, port = next((each for each in made.listen.ports.items() if ":" not in each[0].host), (None, None))
        output = self.folder / "run.output"
        daemon = processes.start([str(COMMAND), "run", "-c", str(self.made)], output, inside=self._namespace.inside)
        try:
            if where is None:
                where, port = next(iter(made.listen.ports.items()))
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)
            header = HEADER if port is not None else ""
            found = ""

            def spoke() -> bool:
                nonlocal found
                assert daemon.poll() is None, output.read_text()
                found = says(self._namespace, Endpoint(host, where.port), 5, header)
                return bool(found)

            processes.wait_until(spoke, "fastscreen", 120)
            return found
        finally:
            assert processes.stop(daemon, 60) == 0, output.read_text()


LISTS = "postscreen_dnsbl_sites = zen.example.org*3 # free for 100k\n"
CIPHERS = (
    "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = @/mx.pem\nsmtpd_tls_key_file = @/mx.key\n"
    'smtpd_tls_ciphers = medium\ntls_medium_cipherlist = "ECDHE-RSA-AES128-GCM-SHA256"\n'
)
OTHER_KEY = "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = @/mx.pem\nsmtpd_tls_key_file = @/other.key\n"
NETWORKS = "mynetworks = 127.0.0.0/8 @/nets 192.0.2.0/255.255.255.0\n"
TABLES = "postscreen_access_list = permit_mynetworks, cidr:@/bad.cidr, cidr:@/gone, hash:@/gone\n"


@example(Files(CIPHERS, MASTER))
@example(Files(OTHER_KEY, MASTER))
@example(Files(NETWORKS, MASTER))
@example(Files(TABLES, MASTER))
@example(Files(LISTS, MASTER))
@example(Files("inet_interfaces = 198.51.100.7\n", MASTER))
@example(Files("", f"{MASTER}10025 inet n - n - 1 postscreen -o postscreen_upstream_proxy_protocol=haproxy\n"))
@given(files())
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_it_serves_where_postscreen_does(namespace: Namespace, made: Files) -> None:
    with folder_with(made) as folder:
        instance = Instance(namespace, folder)
        theirs = instance.postscreen_serves()
        try:
            todo = instance.imports()
        except AssertionError:
            assert not theirs  # files of which Postfix makes nothing, either
            return
        # 421: a known client, because the MTA is missing now
        assert instance.fastscreen_serves()[:3] in ("220", "421"), todo


@pytest.mark.parametrize("main", [CIPHERS, OTHER_KEY, NETWORKS, TABLES, "inet_interfaces = 198.51.100.7\n"])
def test_what_is_written_is_checked(namespace: Namespace, main: str) -> None:
    with folder_with(Files(main, MASTER)) as folder:
        instance = Instance(namespace, folder)
        assert instance.imports()
        instance.is_checked()


def test_postconf_refuses_the_addresses_of_another_machine(namespace: Namespace) -> None:
    """As when the new MX is made ready from the files of the old one."""
    with folder_with(Files("inet_interfaces = 198.51.100.7\npostscreen_greet_wait = 7s\n", MASTER)) as folder:
        instance = Instance(namespace, folder)
        asked = subprocess.run(["postconf", "-c", str(folder), "-x"], capture_output=True, text=True)
        assert asked.returncode != 0
        todo = instance.imports()
        assert "read without postconf" in todo
        assert "198.51.100.7 is not an address of this machine" in todo
        assert config.load(instance.made).greet.wait == 7


def test_folder_is_removed() -> None:
    """The generated files are nobody's afterwards."""
    with folder_with(Files("", MASTER)) as folder:
        assert folder.is_relative_to(tempfile.gettempdir())
    assert not folder.exists()
