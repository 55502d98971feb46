"""When a certificate ends, and whether that is worth a word."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from fastscreen.tls.context import Chain, ContextError

EXPIRES_SOON_DAYS = 7


def validity(chain: Chain, now: datetime) -> tuple[bool, str]:
    """Whether it is valid for another week, and a text with its end. ContextError: not a certificate."""
    ends = not_after(chain)
    word = "expired" if ends <= now else "expires"
    return (ends - now).days >= EXPIRES_SOON_DAYS, f"{chain.where}: {word} on {ends:%Y-%m-%d}"


def not_after(chain: Chain) -> datetime:
    """When the server's own certificate ends (RFC 5280 4.1.2.5). ContextError: not a certificate."""
    try:
        der = ssl.PEM_cert_to_DER_cert(chain.certificates[0].decode().replace("TRUSTED ", ""))
        return _time(*_second_of(_validity(der)))
    except (ValueError, IndexError):
        raise ContextError(f"tls.certificates: {chain.where}: not an X.509 certificate") from None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """DER: tag, beginning and end of the contents of the element at an offset."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    if at + length > len(der):
        raise ValueError("cut short")
    return tag, at, at + length


def _validity(der: bytes) -> bytes:
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # tbsCertificate
    tag, _, end = _element(der, at)
    before = 4 if tag == 0xA0 else 3  # version (if any), serialNumber, signature, issuer
    for _ in range(before):
        _, _, at = _element(der, at)
    _, start, end = _element(der, at)
    return der[start:end]


def _second_of(validity: bytes) -> tuple[int, bytes]:
    _, _, at = _element(validity, 0)
    tag, start, end = _element(validity, at)
    return tag, validity[start:end]


def _time(tag: int, text: bytes) -> datetime:
    """UTCTime (two digits of the year: 1950 to 2049) or GeneralizedTime."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == 0x17:
        digits = ("20" if int(digits[:2]) < 50 else "19") + digits
    # Not strptime: it imports a module, and as the user Python's own files may be out of reach.
    month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(digits[:4]), month, day, hour, minute, second, tzinfo=UTC)
