"""Postfix and Exim as senders: each message comes from a different address; the result of each recipient is logged."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Container
from pathlib import Path

from peers import needs, processes, unpacked
from peers.namespace import Namespace
from peers.postfix import DAEMONS, settled

HELO = "client.test"
SUBMISSION = "127.2.0.2", 2525  # where the Postfix takes messages to send
CASES = 16  # messages, at most; each has its own address and transport

_MASTER = """\
postlog   unix-dgram n - n - 1 postlogd
cleanup   unix  n  -  n  -  0  cleanup
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
anvil     unix  -  -  n  -  1  anvil
tlsmgr    unix  -  -  n  1000? 1 tlsmgr
scache    unix  -  -  n  -  1  scache
{address}:{port} inet n - n - - smtpd
"""
_SUBMIT = """
import smtplib, sys
address, port, sender, *recipients = sys.argv[1:]
with smtplib.SMTP(address, int(port), "submit.test") as smtp:
    smtp.sendmail(sender, recipients, "Subject: x\\r\\n\\r\\nx\\r\\n")
"""

_EXIM = """\
exim_user = {user}
exim_group = {user}
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
primary_hostname = {name}
host_lookup =
keep_environment =

begin routers
back:
  driver = redirect
  domains = {helo}
  data = :blackhole:
out:
  driver = manualroute
  route_list = * {server}
  self = send
  transport = smtp

begin transports
smtp:
  driver = smtp
  port = {port}
  interface = SOURCE
  helo_data = {name}
  hosts_avoid_tls = NO_TLS

begin retry
* * F,1d,1h
"""


class PostfixSender:
    """A Postfix that sends all mail to one server. tls: cases that use TLS if it is offered."""

    name = "postfix"

    def __init__(
        self, namespace: Namespace, folder: Path, server: str, port: int, helo: str = HELO, *, tls: Container[int] = ()
    ) -> None:
        needs.root("a private Postfix")
        needs.program("postfix")
        self._inside = namespace.inside
        self._folder = folder
        self._log = folder / "mail.log"
        config, queue, data = folder / "etc", folder / "queue", folder / "data"
        owner = pwd.getpwnam("postfix")
        for path in (folder, config, queue, data):
            path.mkdir(mode=0o755, exist_ok=True)
        os.chown(data, owner.pw_uid, owner.pw_gid)
        (queue / "pid").mkdir(mode=0o755)
        for name in (
            "active",
            "bounce",
            "corrupt",
            "defer",
            "deferred",
            "flush",
            "hold",
            "incoming",
            "maildrop",
            "saved",
            "trace",
            "private",
            "public",
        ):
            (queue / name).mkdir(mode=0o700)
            os.chown(queue / name, owner.pw_uid, owner.pw_gid)
        outs = "".join(f"{{{self._sender(case)}=out{case}:[{server}]:{port}}}, " for case in range(CASES))
        main = {
            "compatibility_level": "3.6",
            "queue_directory": str(queue),
            "data_directory": str(data),
            "maillog_file": str(self._log),
            "maillog_file_prefixes": str(folder),
            "inet_interfaces": SUBMISSION[0],
            "myhostname": helo,
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "alias_maps": "",
            "smtpd_peername_lookup": "no",
            "disable_dns_lookups": "yes",
            "transport_maps": f"inline:{{{HELO}=discard:}}",
            "sender_dependent_default_transport_maps": f"inline:{{{outs}}}",
        }
        (config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        settled(config / "main.cf")
        lines = [_MASTER.format(address=SUBMISSION[0], port=SUBMISSION[1])]
        for case in range(CASES):
            level = "may" if case in tls else "none"
            lines.append(
                f"out{case} unix - - n - - smtp -o smtp_bind_address={self.source(case)} "
                f"-o smtp_tls_security_level={level}\n"
            )
        (config / "master.cf").write_text("".join(lines))
        errors = folder / "master.stderr"
        self._master = processes.start([str(DAEMONS / "master"), "-d", "-c", str(config)], errors, inside=self._inside)

        def started() -> bool:
            if self._master.poll() is not None:
                said = "".join(path.read_text() for path in (errors, self._log) if path.exists())
                raise RuntimeError(f"Postfix ended ({self._master.returncode}): {said}")
            return self._log.exists() and "daemon started" in self._log.read_text()

        processes.wait_until(started, "Postfix to send")

    @staticmethod
    def source(case: int) -> str:
        """The address that a message is sent from."""
        return f"127.17.0.{1 + case}"

    @staticmethod
    def _sender(case: int) -> str:
        return f"mail{5 if case % 2 else 4}-{case}@{HELO}"

    def send(self, case: int, recipients: list[str]) -> dict[str, tuple[str, str]]:
        """Send a message, whose sender is refused for now in even cases and for good in odd ones.

        Returns for each recipient "deferred", "bounced" or "sent", and the server's words.
        """
        command = [*self._inside, sys.executable, "-c", _SUBMIT, SUBMISSION[0], str(SUBMISSION[1])]
        subprocess.run([*command, self._sender(case), *recipients], check=True, timeout=60)
        found: dict[str, tuple[str, str]] = {}

        def told() -> bool:
            for line in self._log.read_text().splitlines():
                result = re.search(r"/smtp\[.* to=<(.*?)>, .*relay=.*, status=(\w+) \((.*)\)$", line)
                if result and result[1] in recipients:
                    found[result[1]] = result[2], result[3]
            return len(found) == len(recipients)

        processes.wait_until(told, f"what became of {len(recipients)} recipients", 60)
        return found

    def close(self) -> None:
        """Stop it."""
        processes.stop(self._master)


class EximSender:
    """An Exim that sends all mail to one server, without a daemon."""

    name = "exim"

    def __init__(
        self, namespace: Namespace, folder: Path, server: str, port: int, helo: str = HELO, *, tls: Container[int] = ()
    ) -> None:
        needs.root("a private Exim in a namespace")
        folder.mkdir(mode=0o755)
        program = unpacked.unpack(folder / "package", ("exim4-daemon-heavy", "exim4-base"), "usr/sbin/exim4")
        self._command = [*namespace.inside, *unpacked.seeing(folder, {}), str(program)]
        owner = unpacked.uid(folder, "Debian-exim")
        for path in (folder / "spool", folder / "log"):
            path.mkdir(mode=0o755)
            os.chown(path, owner, owner)
        self._tls = tls
        self._log = folder / "log" / "mainlog"
        self._configuration = folder / "exim.conf"
        self._configuration.write_text(
            _EXIM.format(
                user="Debian-exim", program=program, folder=folder, helo=HELO, name=helo, server=server, port=port
            )
        )

    @staticmethod
    def source(case: int) -> str:
        """The address that a message is sent from."""
        return f"127.18.0.{1 + case}"

    def send(self, case: int, recipients: list[str]) -> dict[str, tuple[str, str]]:
        """As PostfixSender.send."""
        sender = f"mail{5 if case % 2 else 4}-{case}@{HELO}"
        command = [*self._command, "-C", str(self._configuration), f"-DSOURCE={self.source(case)}", "-odf", "-oi"]
        command.append(f"-DNO_TLS={':' if case in self._tls else '*'}")
        subprocess.run(
            [*command, "-f", sender, *recipients], input="Subject: x\n\nx\n", text=True, check=True, timeout=120
        )
        found: dict[str, tuple[str, str]] = {}
        words = {"==": "deferred", "**": "bounced", "=>": "sent", "->": "sent"}
        for line in self._log.read_text().splitlines():
            result = re.search(r"^\S+ \S+ \S+ (==|\*\*|=>|->) (\S+?@\S+) (.*)$", line)
            if result and result[2].rstrip(":") in recipients:
                found[result[2].rstrip(":")] = words[result[1]], result[3]
        return found

    def close(self) -> None:
        """Nothing runs."""
