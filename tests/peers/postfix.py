"""A private real Postfix: own configuration, queue, data and log; many postscreen services under one master."""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peers import needs, pages, postfixroot, processes
from peers.namespace import Namespace

DAEMONS = Path("/usr/lib/postfix/sbin")
ADDRESS = "127.1.0.1"
ADDRESS6 = "2001:db8::1"
BACKUP = "127.1.0.2"
HOSTNAME = "mx.example.test"
MAIL_DOMAIN = "delivered.test"

# every service a postscreen and the delivery of one message need; no chroot
_MASTER = """\
postlog   unix-dgram n - n - 1 postlogd
dnsblog   unix  -  -  n  -  0  dnsblog -o max_idle=1000s
tlsproxy  unix  -  -  n  -  0  tlsproxy
cleanup   unix  n  -  n  -  0  cleanup -o message_size_limit={size}
qmgr      unix  n  -  n  300 1 qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
flush     unix  n  -  n  1000? 0 flush
proxymap  unix  -  -  n  -  -  proxymap
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
discard   unix  -  -  n  -  -  discard
virtual   unix  -  n  n  -  -  virtual -o virtual_mailbox_limit=0
anvil     unix  -  -  n  -  1  anvil
tlsmgr    unix  -  -  n  1000? 1 tlsmgr
scache    unix  -  -  n  -  1  scache
{smtpd}  pass -  -  n  -  -  smtpd -o syslog_name={smtpd}
one-ps    pass  -  -  n  -  1  smtpd -o syslog_name={smtpd}
{proxied}  -o message_size_limit={size}
  -o smtpd_sender_restrictions=inline:{{{{refused@client.test=554 5.7.1 not from you}}}},pcre:{turned_away}
  -o smtpd_delay_reject=no
"""
_MASTER_OF_OURS = """\
{smtpd}  pass -  -  n  -  -  smtpd -o syslog_name={smtpd}
one-{side}  pass  -  -  n  -  1  smtpd -o syslog_name={smtpd}
"""

_TURNED_AWAY = "{{/^mail4/ 452 4.3.1 no room}, {/^mail5/ 552 5.3.1 no room}}"

# what `postfix check` would make; it wants a log daemon that runs already
_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "saved")
_OTHERS = ("trace", "private", "public")

START_SECONDS = 60.0
PAGE = "mta-postfix.md"
PROXIED = "127.0.0.1:10025"  # an smtpd that reads the PROXY protocol, as in the page; so do the other MTAs
MOST = 100_000_000  # bytes of a message there
SMTPD = "handoff-ps"  # where postscreen hands off, and the syslog name of that smtpd

DNSBLOGS = 60
"""Processes that are started before any dialogue: hundreds begin at once, and master starts one after the other."""

WORKERS = (1, 2)
"""With how many workers fastscreen is played."""


def smtpd_of_ours(workers: int) -> str:
    """Where fastscreen with so many workers hands off, and the syslog name of that smtpd."""
    return f"handoff-fs{workers}"


@dataclass(frozen=True)
class Service:
    """One postscreen: its port at ADDRESS and ADDRESS6, its parameters. Its syslog name is `ps-NAME`."""

    name: str
    port: int
    parameters: Mapping[str, str]


class Postfix:
    """The instance, running."""

    sender_refused = "554 5.7.1 <refused@client.test>: Sender address rejected: not from you"
    recipient_refused = "554 5.7.1 <nobody@elsewhere.test>: Relay access denied"
    taken = "250 2.1.5 Ok"
    asked = "quit=1"
    chunking = True

    def __init__(self, namespace: Namespace, folder: Path, services: list[Service], chain: tuple[Path, Path]) -> None:
        """chain: files of the private key and the certificate of tlsproxy. Run in `postfixroot.chosen()`."""
        needs.root("a private Postfix")
        needs.program("postfix")
        needs.program("postfix-lmdb")
        needs.program("postfix-pcre")
        self.config, self.queue = folder / "etc", folder / "queue"
        self.log, self.mailbox = folder / "mail.log", folder / "mail" / "inbox"
        self._data = folder / "data"
        owner = pwd.getpwnam("postfix")
        reader = pwd.getpwnam("nobody")
        for path in (folder, self.config, self.queue, self._data, self.mailbox.parent):
            path.mkdir(mode=0o755, exist_ok=True)
        os.chown(self._data, owner.pw_uid, owner.pw_gid)
        os.chown(self.mailbox.parent, reader.pw_uid, reader.pw_gid)
        (self.queue / "pid").mkdir(mode=0o755)
        for name in _QUEUES + _OTHERS:
            (self.queue / name).mkdir(mode=0o700)
            os.chown(self.queue / name, owner.pw_uid, owner.pw_gid)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self._data),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(folder),
            "inet_interfaces": f"{ADDRESS}, {ADDRESS6}, {BACKUP}",
            "inet_protocols": "all",
            "myhostname": HOSTNAME,
            "mynetworks": "",
            "mydestination": "",
            "alias_maps": "",
            "local_recipient_maps": "",
            "default_transport": "error:5.1.2 no mail leaves the test",
            "relay_transport": "error:5.1.2 no mail leaves the test",
            "virtual_mailbox_domains": MAIL_DOMAIN,
            "virtual_mailbox_base": str(self.mailbox.parent),
            "virtual_mailbox_maps": "static:inbox/",
            "virtual_uid_maps": f"static:{reader.pw_uid}",
            "virtual_gid_maps": f"static:{reader.pw_gid}",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": "0",
            "default_process_limit": "200",
            "tlsproxy_tls_security_level": "may",
            "tlsproxy_tls_chain_files": ", ".join(map(str, chain)),
        }
        root = postfixroot.chosen()
        self.version = postfixroot.version(root)
        self._inside = postfixroot.enter(root, folder.parent, namespace.inside)
        (self.config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        settled(self.config / "main.cf")
        proxied = pages.block(PAGE, "smtpd_upstream_proxy_protocol=")
        lines = [_MASTER.format(smtpd=SMTPD, proxied=proxied, size=MOST, turned_away=_TURNED_AWAY)]
        lines += [_MASTER_OF_OURS.format(smtpd=smtpd_of_ours(count), side=f"fs{count}") for count in WORKERS]
        for service in services:
            own = {
                "syslog_name": f"ps-{service.name}",
                "smtpd_service_name": SMTPD,
                "postscreen_cache_map": f"lmdb:{self.cache(service.name)}",
                **service.parameters,
            }
            options = "".join(_option(name, value.replace("$side", "ps")) for name, value in own.items())
            lines.append(f"{service.port} inet n - n - 1 postscreen\n{options}")
        (self.config / "master.cf").write_text("".join(lines))
        self._errors = folder / "master.stderr"
        self._master = processes.start(
            [str(DAEMONS / "master"), "-d", "-c", str(self.config)], self._errors, inside=self._inside
        )
        self._full = _full_socket(self.queue / "private" / "full")
        self.ours = {count: self.queue / "private" / smtpd_of_ours(count) for count in WORKERS}
        """The socket that takes descriptors from fastscreen."""

        def started() -> bool:
            if self._master.poll() is not None:
                said = "".join(path.read_text() for path in (self._errors, self.log) if path.exists())
                raise RuntimeError(f"Postfix ended ({self._master.returncode}): {said}")
            return self.ours[1].exists() and self.log.exists() and "daemon started" in self.log.read_text()

        processes.wait_until(started, "Postfix")
        if services:
            self._start_dnsblogs()

    def _start_dnsblogs(self) -> None:
        """Keep them busy, each with a connection without a request, until there are so many."""
        with contextlib.ExitStack() as held:
            for _ in range(DNSBLOGS):
                client = held.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(self.queue / "private" / "dnsblog"))
            processes.wait_until(
                lambda: processes.children(self._master.pid, "dnsblog") >= DNSBLOGS, "dnsblog", START_SECONDS
            )

    def cache(self, service: str) -> Path:
        """Return the path of a service's cache, without `.lmdb`."""
        return self._data / f"cache-{service}"

    def stamps(self, service: str) -> dict[str, str]:
        """Read a service's cache: client address to the five stamps as postscreen writes them (reference 7.1)."""
        run = subprocess.run(
            [*self._inside, "postmap", "-c", str(self.config), "-s", f"lmdb:{self.cache(service)}"],
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise RuntimeError(f"postmap: {run.stderr}")
        return dict(line.split("\t", 1) for line in run.stdout.splitlines())

    def logged(self, source: str) -> bool:
        """Tell whether the log has a connection of this client at the port that reads the PROXY protocol."""
        return any(
            f"]: connect from unknown[{source}]" in line and " postfix/smtpd[" in line
            for line in self.log.read_text().splitlines()
        )

    def mails(self) -> list[str]:
        """Return the messages in the mailbox."""
        return [path.read_text() for path in sorted(self.mailbox.glob("new/*"))]

    def reload(self) -> None:
        """Have all processes read their settings and open the log again."""
        self._master.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Stop the master, which ends all its processes."""
        for each in self._full:
            each.close()
        processes.stop(self._master)
        with contextlib.suppress(ProcessLookupError):  # what of its process group outlived it
            os.killpg(self._master.pid, 9)


def settled(main_cf: Path) -> None:
    """Make it a minute old: who reads one that was just written, every program of Postfix, first waits 2 s."""
    a_minute_ago = time.time() - 60
    os.utime(main_cf, (a_minute_ago, a_minute_ago))


def _option(name: str, value: str) -> str:
    return f"  -o {{ {name} = {value} }}\n" if value else f"  -o {name}=\n"


def _full_socket(path: Path) -> list[socket.socket]:
    """Make a listening socket whose backlog is full, and that never accepts."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(0)
    made = [listener]
    while True:
        client = socket.socket(socket.AF_UNIX)
        made.append(client)
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return made
