"""URLs of Valkey and Redis servers, as `cluster.server` has them."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

PORT = 6379
SCHEMES = {"valkey": False, "valkeys": True, "redis": False, "rediss": True}
"""Whether the connection uses TLS."""
EXPECTED = "expected valkey://HOST:PORT, valkeys://HOST:PORT, redis://, rediss:// or unix:///PATH"


class ServerUrl(Struct, frozen=True):
    """A server: host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = PORT
    path: str = ""
    database: int = 0
    tls: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server_url(text: str) -> ServerUrl:
    """ValueError: one line, what is wrong and what is expected."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or PORT
    except ValueError:
        raise ValueError(f"not a URL; {EXPECTED}") from None
    if url.username is not None or url.password is not None:
        raise ValueError("has credentials, which others may read; expected them in cluster.password_file")
    if url.scheme == "unix":
        path = unquote(url.path)
        database = dict(parse_qsl(url.query)).get("db", "0")
        if host or not path.startswith("/"):
            raise ValueError("not an absolute path; expected unix:///PATH")
        return ServerUrl(path=path, database=_database(database))
    if url.scheme not in SCHEMES or not host or url.query or url.fragment:
        raise ValueError(f"not the URL of a server; {EXPECTED}")
    return ServerUrl(host, port, database=_database(url.path.strip("/") or "0"), tls=SCHEMES[url.scheme])


def _database(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 1 << 16):
        raise ValueError("the database is not a number; expected valkey://HOST:PORT/NUMBER")
    return int(text)
