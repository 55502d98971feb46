"""Certificates for the tests, made with openssl where they are needed; keys are P-256 or RSA."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from peers import needs


def make(folder: Path, name: str = "mx", kind: str = "ec", days: int = 30) -> tuple[Path, Path]:
    """Make a self-signed certificate; return the paths of key and certificate. days: below 0: it has expired."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    how = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["rsa:2048"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    openssl = needs.program("openssl")
    command = [openssl, "req", "-x509", "-nodes", "-newkey", *how, *files]
    command += ["-subj", f"/CN={name}.example.test", "-days", str(max(days, 1))]
    subprocess.run(command, check=True, capture_output=True)
    if days < 0:  # which req refuses, and x509 since OpenSSL 3.6
        _sign_again(openssl, folder, key, certificate, datetime.now(UTC) + timedelta(days=days))
    key.chmod(0o600)
    return key, certificate


def _sign_again(openssl: str, folder: Path, key: Path, certificate: Path, end: datetime) -> None:
    """Give a certificate another end, with a certificate authority in a folder of its own."""
    files = folder / f"{certificate.stem}.ca"
    files.mkdir()
    (files / "index").touch()
    (files / "config").write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {files}/index\nnew_certs_dir = {files}\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n"
    )
    times = ["-startdate", f"{end - timedelta(days=1):%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}"]
    command = [openssl, "ca", "-batch", "-notext", "-config", str(files / "config"), "-keyfile", str(key)]
    command += ["-cert", str(certificate), "-ss_cert", str(certificate), "-out", str(certificate)]
    subprocess.run([*command, *times], check=True, capture_output=True)
