"""A private real Exim behind the PROXY protocol: own configuration, spool, log and mailbox."""

import os
from pathlib import Path

from peers import needs, pages, processes, unpacked
from peers.namespace import Namespace
from peers.postfix import HOSTNAME, MAIL_DOMAIN, MOST

PAGE = "mta-exim.md"
USER = "Debian-exim"

# Beside the lines of the page: where its files are, who is refused, and a mailbox.
_CONFIGURATION = """\
exim_user = {user}
exim_group = {user}
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/spool/exim.pid
primary_hostname = {hostname}
{page}
message_size_limit = {size}
log_selector = +smtp_connection +smtp_no_mail
host_lookup =
keep_environment =
deliver_drop_privilege = true
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt

begin acl
mail:
  deny senders = refused@client.test
       message = not from you
  defer senders = ^mail4
        message = 452 4.3.1 no room
  deny senders = ^mail5
       message = 552 5.3.1 no room
  accept
rcpt:
  require message = relay not permitted
          domains = {domain}
  accept

begin routers
inbox:
  driver = accept
  transport = file

begin transports
file:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
"""


class Exim:
    """The daemon, running."""

    sender_refused = "550 not from you"
    recipient_refused = "550 relay not permitted"
    taken = "250 Accepted"
    asked = "no MAIL in SMTP connection"
    chunking = True

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        needs.root("a private Exim in a namespace")
        folder.mkdir(mode=0o755)
        program = unpacked.unpack(folder / "package", ("exim4-daemon-heavy", "exim4-base"), "usr/sbin/exim4")
        seeing = unpacked.seeing(folder, {})
        self.log = folder / "log" / "mainlog"
        self.mailbox = folder / "mail"
        owner = unpacked.uid(folder, USER)
        for path in (folder / "spool", folder / "log", self.mailbox):
            path.mkdir(mode=0o755)
            os.chown(path, owner, owner)
        configuration = folder / "exim.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                user=USER,
                program=program,
                folder=folder,
                hostname=HOSTNAME,
                page=pages.block(PAGE, "hosts_proxy ="),
                size=MOST,
                domain=MAIL_DOMAIN,
            )
        )
        self._errors = folder / "exim.stderr"
        command = [*seeing, str(program), "-C", str(configuration), "-bdf", "-q1m"]
        self._process = processes.start(command, self._errors, inside=namespace.inside)

        def started() -> bool:
            if self._process.poll() is not None:
                said = "".join(path.read_text() for path in (self._errors, self.log) if path.exists())
                raise RuntimeError(f"Exim ended ({self._process.returncode}): {said}")
            return self.log.exists() and "daemon started" in self.log.read_text()

        try:
            processes.wait_until(started, "Exim")
        except BaseException:
            self.close()
            raise

    def logged(self, source: str) -> bool:
        """Tell whether the log has a message from this client."""
        return f" <= sender@client.test H=(client.test) [{source}] " in self.log.read_text()

    def close(self) -> None:
        """Stop the daemon. Deliveries in progress are completed."""
        processes.stop(self._process)
