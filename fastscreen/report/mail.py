"""A report by mail: handed to sendmail, or where there is none to the mail server of this machine."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

SMTP = ("localhost", 25)
_USUAL = "/usr/sbin:/usr/lib:/usr/bin"
_SECONDS = 60


class MailError(Exception):
    """The mail was not taken. The text is one line."""


def recipient(text: str) -> str:
    """An address as --mail-to takes it. Raises ValueError."""
    try:
        address = Address(addr_spec=text) if "@" in text else Address(username=text)
    except (MessageError, ValueError, IndexError) as error:
        raise ValueError(f"{text!r} is no mail address: {error}") from None
    if not address.username or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no mail address; expected user@domain, or a user of this machine")
    return address.addr_spec


def send(text: str, subject: str, to: str, host: str, *, sendmail: str | None = None) -> None:
    """Send a text. sendmail: the program; None: the one that is installed. Raises MailError."""
    message = EmailMessage()
    message["From"] = f"fastscreen report <root@{host}>" if "." in host else "fastscreen report <root>"
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=host)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 5: nobody's vacation answers it
    message.set_content(text, cte="quoted-printable")
    program = sendmail or shutil.which("sendmail") or shutil.which("sendmail", path=_USUAL)
    if program:
        _pipe(program, message)
    else:
        _smtp(message)


def _pipe(program: str, message: EmailMessage) -> None:
    command = [program, "-t", "-oi"]
    try:
        done = subprocess.run(command, input=message.as_bytes(), capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MailError(f"{program}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise MailError(f"{program}: exit code {done.returncode}{f': {said}' if said else ''}")


def _smtp(message: EmailMessage) -> None:
    try:
        with smtplib.SMTP(*SMTP, timeout=_SECONDS) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise MailError(f"no sendmail program, and localhost port 25: {error}") from error
