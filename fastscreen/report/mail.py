"""Sends a report by mail, with sendmail or, if that is missing, by SMTP to localhost."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

SMTP = ("localhost", 25)
_SENDMAIL_PATH = "/usr/sbin:/usr/lib:/usr/bin"
_TIMEOUT = 60  # s


class MailError(Exception):
    """The mail could not be sent. The message is one line."""


def recipient(text: str) -> str:
    """Parse the argument of --mail-to. Raises ValueError."""
    try:
        address = Address(addr_spec=text) if "@" in text else Address(username=text)
    except (MessageError, ValueError, IndexError) as error:
        raise ValueError(f"{text!r} is not a mail address: {error}") from None
    if not address.username or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not a mail address; expected user@domain, or a user of this machine")
    return address.addr_spec


def send(text: str, subject: str, to: str, host: str, *, sendmail: str | None = None) -> None:
    """Send a text. sendmail: the program; None for the installed one. Raises MailError."""
    message = EmailMessage()
    message["From"] = f"fastscreen report <root@{host}>" if "." in host else "fastscreen report <root>"
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=host)
    message["Auto-Submitted"] = "auto-generated"  # prevents automatic replies (RFC 3834 section 5)
    message.set_content(text, cte="quoted-printable")
    program = sendmail or shutil.which("sendmail") or shutil.which("sendmail", path=_SENDMAIL_PATH)
    if program:
        _pipe(program, message)
    else:
        _smtp(message)


def _pipe(program: str, message: EmailMessage) -> None:
    command = [program, "-t", "-oi"]
    try:
        done = subprocess.run(command, input=message.as_bytes(), capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MailError(f"{program}: {error}") from error
    if done.returncode:
        output = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise MailError(f"{program}: exit code {done.returncode}{f': {output}' if output else ''}")


def _smtp(message: EmailMessage) -> None:
    try:
        with smtplib.SMTP(*SMTP, timeout=_TIMEOUT) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise MailError(f"sendmail is missing, and localhost port 25 failed: {error}") from error
