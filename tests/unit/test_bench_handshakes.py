"""The measurement of handshakes works, whatever it finds."""

from pathlib import Path

from bench.micro import handshakes


def test_every_kind_is_measured(tmp_path: Path) -> None:
    found = handshakes.figures(tmp_path, handshakes=2)
    assert {figure.name for figure in found} == {
        "tls-p-256-tls-1.3",
        "tls-p-256-tls-1.3-resumed",
        "tls-p-256-tls-1.2",
        "tls-p-256-tls-1.2-resumed",
        "tls-rsa-2048-tls-1.3",
        "tls-rsa-2048-tls-1.2",
    }
    assert all(figure.value > 0 for figure in found)
