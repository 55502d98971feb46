"""The values of [tls]."""

from ssl import TLSVersion
from typing import Any

import pytest

from fastscreen.config.tls_kinds import PemFile, Protocols


@pytest.mark.parametrize(
    ("text", "range_"),
    [
        (">=TLSv1.2", (TLSVersion.TLSv1_2, 0)),
        (">=tlsv1", (TLSVersion.TLSv1, 0)),
        ("<=TLSv1.2", (0, TLSVersion.TLSv1_2)),
        (">=TLSv1.2, <=TLSv1.3", (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3)),
        (">=TLSv1.3 <=TLSv1.3", (TLSVersion.TLSv1_3, TLSVersion.TLSv1_3)),
    ],
)
def test_protocols(text: str, range_: tuple[int, int]) -> None:
    assert Protocols().parse(text) == range_


@pytest.mark.parametrize(
    "value", ["", "TLSv1.2", ">=SSLv3", ">=TLSv1.3,<=TLSv1.2", ">=TLSv1 >=TLSv1.2", "!TLSv1", ">=TLSv9", ",", 12, []]
)
def test_no_protocols(value: Any) -> None:
    with pytest.raises(ValueError, match=r"; expected "):
        Protocols().parse(value)


def test_pem_file() -> None:
    assert PemFile().parse("/etc/ssl/mx.pem") == "/etc/ssl/mx.pem"
    for bad in ("", "mx.pem", 5):
        with pytest.raises(ValueError, match=r"expected an absolute path"):
            PemFile().parse(bad)
