"""PEM files to a context: keys and certificates are matched, and errors are one line."""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from peers import certificate, needs

from fastscreen.config import default
from fastscreen.config.model import Tls
from fastscreen.tls import certificates
from fastscreen.tls.context import ContextError, chains, new_context
from fastscreen.tls.expiry import not_after

SETTINGS = default().tls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two certificates with their keys: mx (P-256) and rsa."""
    made = tmp_path_factory.mktemp("pem")
    certificate.make(made)
    certificate.make(made, "rsa", "rsa")
    return made


def files(folder: Path, *names: str) -> list[tuple[str, bytes]]:
    return [(name, b"".join((folder / part).read_bytes() for part in name.split("+"))) for name in names]


def settings(**changes: object) -> Tls:
    return msgspec.structs.replace(SETTINGS, **changes)


@pytest.mark.parametrize(
    "names",
    [
        ("mx.key", "mx.pem"),
        ("mx.pem", "mx.key"),
        ("mx.key+mx.pem",),
        ("mx.pem+mx.key",),
        ("mx.key", "mx.pem", "rsa.key", "rsa.pem"),
        ("mx.pem", "mx.key", "rsa.pem", "rsa.key"),
        ("mx.key+mx.pem+rsa.key+rsa.pem",),
        ("mx.pem+mx.key", "rsa.pem+rsa.key"),
        ("mx.key", "mx.pem+rsa.pem", "rsa.key+rsa.pem"),
    ],
)
def test_order_of_keys_and_certificates(folder: Path, names: tuple[str, ...]) -> None:
    """A key and its chain in either order, in one file or several, as Postfix wants them and as others write them."""
    found = chains(files(folder, *names))
    assert len(found) == 1 + any("rsa.key" in name for name in names)
    context = new_context(SETTINGS, found)
    assert context.num_tickets == 1
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("mx.key",), "tls.certificates: mx.key: missing certificate;"),
        (("mx.pem",), "tls.certificates: mx.pem: missing private key;"),
        (("mx.key", "mx.pem", "rsa.key"), "tls.certificates: rsa.key: missing certificate;"),
        (("empty",), "tls.certificates: empty: neither a key nor a certificate"),
        (("mx.key", "other.pem"), "mx.key and other.pem: private key and certificate do not belong together"),
        (("mx.key", "rsa.pem"), "mx.key and rsa.pem: private key and certificate"),
        (("mx.key", "bad.pem"), "mx.key and bad.pem: OpenSSL cannot use it"),
        (("encrypted.key", "mx.pem"), "encrypted.key and mx.pem: the private key is encrypted"),
    ],
)
def test_what_does_not_fit(folder: Path, names: tuple[str, ...], what: str) -> None:
    certificate.make(folder, "other")
    (folder / "empty").write_text("nothing\n")
    (folder / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    command = [needs.program("openssl"), "pkey", "-in", "mx.key", "-aes256", "-passout", "pass:x", "-out"]
    subprocess.run([*command, "encrypted.key"], cwd=folder, check=True, capture_output=True)
    with pytest.raises(ContextError) as caught:
        new_context(SETTINGS, chains(files(folder, *names)))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ciphers_and_versions(folder: Path) -> None:
    found = chains(files(folder, "mx.key", "mx.pem"))
    with pytest.raises(ContextError, match=r"^tls\.ciphers: OpenSSL knows no cipher in 'NONSENSE'$"):
        new_context(settings(ciphers="NONSENSE"), found)
    with pytest.raises(ContextError, match=r"^tls\.certificates: none"):
        new_context(SETTINGS, [])
    only = new_context(settings(protocols=(int(ssl.TLSVersion.TLSv1_3), int(ssl.TLSVersion.TLSv1_3))), found)
    assert (only.minimum_version, only.maximum_version) == (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
    old = new_context(settings(protocols=(int(ssl.TLSVersion.TLSv1), 0)), found)
    assert (old.minimum_version, old.maximum_version) == (ssl.TLSVersion.TLSv1, ssl.TLSVersion.MAXIMUM_SUPPORTED)


@pytest.mark.parametrize("days", [-1, 30, 3650, 40000])
def test_when_a_certificate_ends(tmp_path: Path, days: int) -> None:
    """In both forms of time: UTCTime up to 2049, GeneralizedTime after it."""
    certificate.make(tmp_path, days=days)
    (chain,) = chains(files(tmp_path, "mx.key", "mx.pem"))
    assert abs(not_after(chain) - (datetime.now(UTC) + timedelta(days=days))) < timedelta(minutes=5)


def test_whole_chain_is_shown(tmp_path: Path) -> None:
    """A client that knows the root alone believes a name: the certificate between the two comes with the server's."""
    openssl = needs.program("openssl")
    new = [openssl, "req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]

    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    authority = ["-addext", "basicConstraints=critical,CA:TRUE"]
    run(*new, "-x509", "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root")
    for name, by, extension in (("middle", "root", authority), ("mx", "middle", ["-addext", "subjectAltName=DNS:mx"])):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", *extension)
        signed = ["-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-copy_extensions", "copy"]
        run(openssl, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    server = new_context(SETTINGS, chains(files(tmp_path, "mx.key", "mx.pem+middle.pem")))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default context wants more extensions since Python 3.13
    client.load_verify_locations(tmp_path / "root.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname="mx"), server.wrap_bio(there, back, server_side=True)]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    shown = ends[0].getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "mx"),),)


def test_no_certificate_after_all(folder: Path) -> None:
    (chain,) = chains(files(folder, "mx.key", "mx.pem"))
    for der in (b"", b"\x30", b"\x30\x05\x30\x03\x02\x01", bytes(200)):
        chain.certificates = [ssl.DER_cert_to_PEM_cert(der).encode()]
        with pytest.raises(ContextError, match=r"not an X\.509 certificate"):
            not_after(chain)


def test_files_are_copied(tmp_path: Path) -> None:
    """Later changes or removal of the files do not matter."""
    file = tmp_path / "key"
    content = bytes(range(256)) * 1000
    file.write_bytes(content)
    copied = certificates.read([str(file)])
    file.unlink()
    assert copied.contents() == [(str(file), content)]
    copied.close()


@pytest.mark.parametrize("what", ["missing", "folder", "fifo", "large"])
def test_what_is_no_file(tmp_path: Path, what: str) -> None:
    """A FIFO does not block, and no copy is left."""
    good, path = tmp_path / "good", tmp_path / what
    good.write_text("x")
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "large":
        path.write_bytes(bytes(certificates.MAX_SIZE + 1))
    gc.collect()  # what earlier tests left open
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match=what) as caught:
        certificates.read([str(good), str(path)])
    assert caught.value.filename == str(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
