"""A private real OpenSMTPD behind the PROXY protocol: own configuration, queue, log and mailbox."""

import os
import socket
from pathlib import Path

from peers import needs, pages, processes, unpacked
from peers.namespace import Namespace
from peers.postfix import HOSTNAME, MAIL_DOMAIN, MOST

PAGE = "mta-opensmtpd.md"

# Beside the line of the page: who is refused, and a mailbox.
_CONFIGURATION = """\
filter "not-you" phase mail-from match mail-from {{ "refused@client.test" }} reject "554 5.7.1 not from you"
smtp max-message-size {size}
{listen} hostname {hostname} filter "not-you"
action "inbox" maildir "{folder}/mail"
match from any for domain {domain} action "inbox"
"""


class OpenSmtpd:
    """The daemon, running."""

    sender_refused = "554 5.7.1 not from you"
    recipient_refused = "550 Invalid recipient: <nobody@elsewhere.test>"
    taken = "250 2.1.5 Destination address valid: Recipient ok"
    asked = "smtp disconnected reason=quit"
    chunking = False

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        needs.root("a private OpenSMTPD in a namespace")
        folder.mkdir(mode=0o755)
        program = unpacked.unpack(folder / "package", ("opensmtpd",), "usr/sbin/smtpd")
        # Its paths are built in. Nothing else runs with these in its place.
        places = {
            folder / "package/usr/libexec": "/usr/libexec",
            folder / "lib": "/var/lib",
            folder / "spool": "/var/spool",
            folder / "run": "/run",
        }
        (folder / "lib/opensmtpd/empty").mkdir(parents=True)
        (folder / "lib/opensmtpd").chmod(0o711)
        (folder / "spool/smtpd").mkdir(parents=True)
        (folder / "spool/smtpd").chmod(0o711)
        (folder / "run").mkdir()
        seeing = unpacked.seeing(folder, places)
        self.log = folder / "smtpd.log"
        self.mailbox = folder / "mail"
        self.mailbox.mkdir()
        owner = unpacked.uid(folder, "inbox")
        os.chown(self.mailbox, owner, owner)
        configuration = folder / "smtpd.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                size=MOST,
                listen=pages.block(PAGE, "listen on").splitlines()[0],
                hostname=HOSTNAME,
                folder=folder,
                domain=MAIL_DOMAIN,
            )
        )
        command = [*seeing, str(program), "-d", "-f", str(configuration)]
        self._process = processes.start(command, self.log, inside=namespace.inside)

        def started() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"OpenSMTPD ended ({self._process.returncode}): {self.log.read_text()}")
            with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                return probe.connect_ex(("127.0.0.1", 10025)) == 0

        try:
            processes.wait_until(started, "OpenSMTPD")
        except BaseException:
            self.close()
            raise

    def logged(self, source: str) -> bool:
        """Tell whether the log has a connection of this client."""
        return f"smtp connected address={source} " in self.log.read_text()

    def close(self) -> None:
        """Stop the parent, which ends all its processes."""
        processes.stop(self._process)
