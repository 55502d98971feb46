"""From PEM files and settings to what OpenSSL works by."""

from __future__ import annotations

import os
import re
import ssl
import warnings
from collections.abc import Iterable, Sequence

from msgspec import Struct

from fastscreen.config.model import Tls
from fastscreen.escaping import escape_text

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n.*?-----END \1-----", re.DOTALL)
_KEY = b"PRIVATE KEY"
_CERTIFICATE = b"CERTIFICATE"
_REASONS = {
    "KEY_VALUES_MISMATCH": "private key and certificate do not belong together",
    "NO_CERTIFICATE_ASSIGNED": "private key and certificate are not of the same kind",
    "KEY_TYPE_MISMATCH": "private key and certificate are not of the same kind",
    "EE_KEY_TOO_SMALL": "the key is too small for the system's OpenSSL",
    "CA_MD_TOO_WEAK": "the signature is too weak for the system's OpenSSL",
}


class ContextError(Exception):
    """A setting of [tls] that cannot be used; the text is one line, the key first."""


class Chain(Struct):
    """One private key with its certificates, the server's own first. files: where they stand; key: PEM."""

    files: list[str]
    key: bytes = b""
    certificates: list[bytes] = []

    @property
    def where(self) -> str:
        return escape_text(" and ".join(dict.fromkeys(self.files)), 500)


def chains(files: Iterable[tuple[str, bytes]]) -> list[Chain]:
    """Put keys and certificates together: a key, then its chain (as Postfix wants it), or the chain, then its key.

    ContextError: a key or a certificate lacks its counterpart.
    """
    made: list[Chain] = []
    key_first = True
    for path, content in files:
        blocks = list(_BLOCK.finditer(content))
        if not any(block[1].endswith((_KEY, _CERTIFICATE)) for block in blocks):
            raise ContextError(f"tls.certificates: {escape_text(path)}: neither a key nor a certificate; expected PEM")
        for block in blocks:
            is_key = block[1].endswith(_KEY)
            if not is_key and not block[1].endswith(_CERTIFICATE):
                continue
            if not made or (made[-1].key and (is_key or not key_first)):
                made.append(Chain([]))
                key_first = is_key
            made[-1].files.append(path)
            if is_key:
                made[-1].key = block[0] + b"\n"
            else:
                made[-1].certificates.append(block[0] + b"\n")
    for chain in made:
        if not chain.key or not chain.certificates:
            missing = "private key" if chain.certificates else "certificate"
            raise ContextError(
                f"tls.certificates: {chain.where}: missing {missing}; expected a key followed by its chain"
            )
    return made


def new_context(settings: Tls, found: Sequence[Chain]) -> ssl.SSLContext:
    """A server's context. ContextError: what is wrong."""
    if not found:
        raise ContextError("tls.certificates: none, but tls.level wants TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 1  # with none, a client with Nagle's algorithm waits 40 ms for what it has sent
    oldest, newest = settings.protocols
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old versions: the operator's decision
        context.minimum_version = ssl.TLSVersion(oldest or ssl.TLSVersion.MINIMUM_SUPPORTED)
        context.maximum_version = ssl.TLSVersion(newest or ssl.TLSVersion.MAXIMUM_SUPPORTED)
    try:
        context.set_ciphers(settings.ciphers)
    except ssl.SSLError:
        raise ContextError(f"tls.ciphers: OpenSSL knows no cipher in {escape_text(settings.ciphers, 200)!r}") from None
    for chain in found:
        _load(context, chain)
    return context


def _load(context: ssl.SSLContext, chain: Chain) -> None:
    """OpenSSL's Python module only reads files: one in memory, for as long as it takes."""

    def encrypted() -> str:
        raise ContextError(
            f"tls.certificates: {chain.where}: the private key is encrypted; expected an unencrypted key"
        )

    memory = os.memfd_create("fastscreen chain")
    try:
        content = chain.key + b"".join(chain.certificates)
        os.write(memory, content)
        context.load_cert_chain(f"/proc/self/fd/{memory}", password=encrypted)
    except ssl.SSLError as error:
        why = _REASONS.get(error.reason or "", "") or f"OpenSSL cannot use it: {error.reason or 'bad PEM'}"
        raise ContextError(f"tls.certificates: {chain.where}: {why}") from None
    except OSError as error:
        raise ContextError(f"tls.certificates: {chain.where}: {error.strerror} (/proc is needed)") from None
    finally:
        os.close(memory)
