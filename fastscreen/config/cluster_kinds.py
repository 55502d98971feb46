"""Kinds of value of the [cluster] table."""

from __future__ import annotations

import re

from fastscreen.config import server_url
from fastscreen.config.kinds import Text
from fastscreen.config.model import Endpoint
from fastscreen.escaping import quoted

KINDS = ("passes", "offenses")
"""What hosts can share."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?", re.ASCII)
_PREFIX = re.compile(r"[!-~]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]{0,63}", re.ASCII)


class ServerUrl:
    """The URL of a Valkey or Redis server; empty: none."""

    expected = '"valkey://HOST:PORT", "valkeys://HOST:PORT" (TLS), "redis://...", "rediss://...", "unix:///PATH", or ""'

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value)
        if text:
            try:
                server_url.parse_server_url(text)
            except ValueError as error:
                # Without the URL: it may have a password.
                raise ValueError(f"{str(error).partition(';')[0]}; expected {self.expected}") from None
        return text


class Sentinel:
    """A Sentinel's name or address, with or without a port."""

    expected = 'a host name or an IP address with or without a port, such as "sentinel1.example.com:26379"'
    PORT = 26379

    def parse(self, value: object) -> Endpoint:
        text = Text(self.expected).parse(value)
        found = _HOST.fullmatch(text)
        port = int(found[3]) if found and found[3] else self.PORT
        if found is None or not 1 <= port <= 65535:
            raise ValueError(f"bad address {quoted(text)}; expected {self.expected}")
        return Endpoint(found[1] or found[2], port)


class KeyPrefix:
    """How the keys in the server begin."""

    expected = "1 to 64 printable ASCII characters without spaces"

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value)
        if not _PREFIX.fullmatch(text):
            raise ValueError(f"bad prefix {quoted(text)}; expected {self.expected}")
        return text


class HostLabel:
    """What other hosts call this one."""

    expected = 'at most 63 letters, digits, "-", "_" and "."; "" stands for the host name'

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value)
        if not _NAME.fullmatch(text):
            raise ValueError(f"bad name {quoted(text)}; expected {self.expected}")
        return text
