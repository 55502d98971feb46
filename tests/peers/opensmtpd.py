"""A private real OpenSMTPD behind the PROXY protocol: own configuration, queue, log and mailbox."""

import os
import socket
import subprocess
import sys
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


# One that sends all mail to one server.
_SENDER = """\
queue ttl 1h
listen on {address} port {port} hostname {helo}
action "out" relay host "{scheme}://{server}:{to}" helo {helo} src {source}
match from any for any action "out"
"""
_SUBMIT = """
import smtplib, sys
address, port, sender, recipient = sys.argv[1:]
with smtplib.SMTP(address, int(port), "submit.test") as smtp:
    smtp.sendmail(sender, recipient, "Subject: x\\r\\n\\r\\nx\\r\\n")
"""


class OpenSmtpd:
    """The daemon, running."""

    sender_refused = "554 5.7.1 not from you"
    recipient_refused = "550 Invalid recipient: <nobody@elsewhere.test>"
    taken = "250 2.1.5 Destination address valid: Recipient ok"
    asked = "smtp disconnected reason=quit"
    chunking = False

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        command = _command(folder)
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
        self._process = _started(namespace, command, configuration, self.log, ("127.0.0.1", 10025))

    def logged(self, source: str) -> bool:
        """Tell whether the log has a connection of this client."""
        return f"smtp connected address={source} " in self.log.read_text()

    def close(self) -> None:
        """Stop the parent, which ends all its processes."""
        processes.stop(self._process)


class OpenSmtpdSender:
    """One that sends all mail to one server, from `source`. tls: if it is offered."""

    submission = ("127.2.0.3", 2526)

    def __init__(
        self, namespace: Namespace, folder: Path, server: str, port: int, helo: str, *, tls: bool = False
    ) -> None:
        self.source = "127.22.0.2" if tls else "127.22.0.1"
        command = _command(folder)
        self._inside = namespace.inside
        configuration = folder / "smtpd.conf"
        address, submission = self.submission
        configuration.write_text(
            _SENDER.format(
                address=address,
                port=submission,
                helo=helo,
                server=server,
                to=port,
                source=self.source,
                scheme="smtp" if tls else "smtp+notls",
            )
        )
        self._process = _started(namespace, command, configuration, folder / "smtpd.log", self.submission)

    def send(self, sender: str, recipient: str) -> None:
        """Have it queue a message, which it sends at once."""
        address, port = self.submission
        command = [*self._inside, sys.executable, "-c", _SUBMIT, address, str(port), sender, recipient]
        subprocess.run(command, check=True, timeout=60)

    def close(self) -> None:
        """Stop the parent, which ends all its processes."""
        processes.stop(self._process)


def _command(folder: Path) -> list[str]:
    """Unpack it into a new folder; return what runs it, but for its options."""
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
    return [*unpacked.seeing(folder, places), str(program)]


def _started(
    namespace: Namespace, command: list[str], configuration: Path, log: Path, where: tuple[str, int]
) -> subprocess.Popen[bytes]:
    """Start it, and wait until it listens at `where`."""
    process = processes.start([*command, "-d", "-f", str(configuration)], log, inside=namespace.inside)

    def started() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"OpenSMTPD ended ({process.returncode}): {log.read_text()}")
        with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(where) == 0

    try:
        processes.wait_until(started, "OpenSMTPD")
    except BaseException:
        processes.stop(process)
        raise
    return process
