"""A private real Exim behind the PROXY protocol: own configuration, spool, log and mailbox."""

import os
import pwd
from pathlib import Path

from peers import needs, processes
from peers.namespace import Namespace

ADDRESS = "127.1.0.1"
PORT = 2497
MAIL_DOMAIN = "delivered.test"

# As in docs/continue.md, and what a mailbox in a file needs.
_CONFIGURATION = """\
exim_user = {user}
exim_group = {group}
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
primary_hostname = mx.example.test
local_interfaces = {address}.{port}
daemon_smtp_ports = {port}
hosts_proxy = 127.0.0.0/8
tls_advertise_hosts =
chunking_advertise_hosts = *
message_size_limit = 100M
smtp_accept_max = 200
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
never_users =
deliver_drop_privilege = true
queue_only_load =
domainlist here = {domain}
acl_smtp_rcpt = rcpt
acl_smtp_mail = mail

begin acl
mail:
  deny senders = refused@client.test
       message = not from you
  accept
rcpt:
  require domains = +here
          message = relay not permitted
  accept

begin routers
inbox:
  driver = accept
  domains = +here
  transport = file

begin transports
file:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  user = {user}
  group = {group}
  message_size_limit = 0
"""


class Exim:
    """The daemon, running."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        needs.root("a private Exim in a namespace")
        program = needs.program("exim4")
        owner = pwd.getpwnam("nobody")
        self.folder = folder
        self.log = folder / "log" / "mainlog"
        self.mailbox = folder / "mail"
        for path in (folder, folder / "spool", folder / "log", self.mailbox):
            path.mkdir(mode=0o755, exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        configuration = folder / "exim.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                user="nobody",
                group="nogroup",
                program=program,
                folder=folder,
                address=ADDRESS,
                port=PORT,
                domain=MAIL_DOMAIN,
            )
        )
        self._errors = folder / "exim.stderr"
        self._process = processes.start(
            [program, "-C", str(configuration), "-bdf", "-q1s"], self._errors, inside=namespace.inside
        )

        def started() -> bool:
            if self._process.poll() is not None:
                said = "".join(path.read_text() for path in (self._errors, self.log) if path.exists())
                raise RuntimeError(f"Exim ended ({self._process.returncode}): {said}")
            return self.log.exists() and "daemon started" in self.log.read_text()

        processes.wait_until(started, "Exim")

    def close(self) -> None:
        processes.stop(self._process)
