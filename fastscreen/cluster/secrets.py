"""The secrets that all hosts of a cluster share, and what is made with them: message authentication codes."""

from __future__ import annotations

import hashlib
import hmac

from msgspec import Struct

MAC_SIZE = 16
LEAST = 16  # bytes of a secret
MOST = 1024
_KEY_MAX = hashlib.blake2b.MAX_KEY_SIZE


class SecretsError(ValueError):
    """The secret file cannot be used; one line."""


class Secret(Struct, frozen=True):
    """One secret. key_id: which one signed a record; other secrets may have the same."""

    key_id: int
    key: bytes


class Secrets(Struct, frozen=True):
    """The first secret signs, all of them verify."""

    known: tuple[Secret, ...]

    @property
    def key_id(self) -> int:
        """Of the secret that signs."""
        return self.known[0].key_id

    def sign(self, text: bytes) -> bytes:
        """The MAC of the secret that signs."""
        return _mac(self.known[0].key, text)

    def verify(self, key_id: int, text: bytes, mac: bytes) -> bool:
        """Whether one of the secrets with this ID has made the MAC."""
        return any(hmac.compare_digest(_mac(secret.key, text), mac) for secret in self.known if secret.key_id == key_id)


def _mac(key: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=MAC_SIZE, key=key).digest()


def parse(content: bytes, path: str) -> Secrets:
    """Read a secret file: one secret per line, one or two of them. SecretsError names the file, never what is in it."""
    lines = [line.strip() for line in content[: 4 * MOST].splitlines()]
    found = [line for line in lines if line]
    if not 1 <= len(found) <= 2 or len(content) > 4 * MOST:
        what = "is empty" if not found else "has more than two lines"
        raise SecretsError(f"cluster.secret_file: {path}: {what}; expected one secret, or the new and the old one")
    for number, line in enumerate(found, 1):
        if not LEAST <= len(line) <= MOST:
            raise SecretsError(
                f"cluster.secret_file: {path}: secret {number} has {len(line)} bytes; expected {LEAST} to {MOST}, "
                "as from `openssl rand -hex 32`"
            )
    if len(set(found)) != len(found):
        raise SecretsError(f"cluster.secret_file: {path}: both secrets are the same; expected the new and the old one")
    return Secrets(tuple(_secret(line) for line in found))


def _secret(text: bytes) -> Secret:
    digest = hashlib.blake2b(text).digest()
    return Secret(digest[0], text if len(text) <= _KEY_MAX else digest)
