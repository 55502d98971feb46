"""A client that continues in TLS after STARTTLS."""

import shutil
import ssl
from pathlib import Path
from typing import Any

from peers import certificate

from robust.harness import TIMEOUT, USER, Client


def certificates(folder: Path, name: str = "mx") -> list[str]:
    """Make a key and its certificate, which the user that the screener becomes can read: `tls.certificates`."""
    chain = certificate.make(folder, name)
    for path in chain:
        if USER:
            shutil.chown(path, USER)
    return [str(path) for path in chain]


def context(**settings: Any) -> ssl.SSLContext:
    """A client's context that checks no names; `settings` are its attributes."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def begin(client: Client) -> None:
    """EHLO and STARTTLS; the handshake is next."""
    assert b"250-STARTTLS\r\n" in client.ask(b"EHLO me.example")
    assert client.ask(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"


def secure(client: Client, **settings: Any) -> ssl.SSLSocket:
    """Make the handshake; from now on the client talks TLS."""
    wrapped = context(**settings).wrap_socket(client.socket, server_hostname="mx.example.test")
    wrapped.settimeout(TIMEOUT)
    client.socket = wrapped
    return wrapped
