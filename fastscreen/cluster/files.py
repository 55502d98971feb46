"""The files that the cluster process needs, as they are read before it connects."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from fastscreen.cluster import secrets
from fastscreen.cluster.secrets import Secrets
from fastscreen.config import ConfigError
from fastscreen.config.model import ClusterConfig

MAX_SIZE = 1 << 20  # bytes of a file


class Files(Struct, frozen=True):
    """user, password: for the server; empty: none. certificates: of the authorities that sign the server's, PEM."""

    secrets: Secrets
    user: str = ""
    password: str = ""
    certificates: str = ""


def read(cluster: ClusterConfig) -> Files:
    """Read them from the paths in the configuration. OSError (with the file's name), ConfigError."""
    if not cluster.secret_file:
        raise ConfigError("cluster.secret_file: missing; expected a file with a secret that all hosts share")
    return parse(
        cluster,
        _content(cluster.secret_file),
        _content(cluster.password_file) if cluster.password_file else b"",
        _content(cluster.ca_file) if cluster.ca_file else b"",
    )


def parse(cluster: ClusterConfig, secret: bytes, password: bytes = b"", certificates: bytes = b"") -> Files:
    """The same from the files' contents, for a process that cannot read them itself. ConfigError."""
    try:
        found = secrets.parse(secret, cluster.secret_file)
        user, text = _credentials(password, cluster.password_file) if cluster.password_file else ("", "")
        return Files(found, user, text, certificates.decode("ascii", "replace"))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_SIZE)


def _credentials(content: bytes, path: str) -> tuple[str, str]:
    """One line: `password` or `user:password`."""
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"cluster.password_file: {path}: not UTF-8; expected PASSWORD or USER:PASSWORD") from None
    if len(lines) != 1 or not lines[0]:
        raise ValueError(f"cluster.password_file: {path}: has {len(lines)} lines; expected PASSWORD or USER:PASSWORD")
    user, colon, password = lines[0].partition(":")
    return (user, password) if colon else ("", user)
