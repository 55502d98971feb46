"""Certificates for the tests, made with openssl where they are needed; keys are P-256 or RSA."""

import subprocess
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
    if days < 0:  # which req refuses
        command = [openssl, "x509", "-in", str(certificate), "-signkey", str(key), "-out", str(certificate)]
        subprocess.run([*command, "-days", str(days)], check=True, capture_output=True)
    key.chmod(0o600)
    return key, certificate
