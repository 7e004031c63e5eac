"""A certificate authority for one test, and certificates of it, made by OpenSSL's command line; nothing is kept."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path


def authority(folder: Path) -> Certificate:
    """A new authority; the test is skipped where OpenSSL is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Certificate(folder / "ca.pem", folder / "ca.key")
    _openssl("req", "-x509", *_key(made), "-out", made.certificate, "-subj", "/CN=Test CA", "-days", "1")
    return made


def issued(ca: Certificate, host: str) -> Certificate:
    """A certificate for this host name, signed by the authority."""
    folder = ca.certificate.parent
    made = Certificate(folder / f"{host}.pem", folder / f"{host}.key")
    _openssl(
        "req", "-x509", *_key(made), "-out", made.certificate, "-subj", f"/CN={host}", "-days", "1",
        "-addext", f"subjectAltName=DNS:{host}", "-addext", "basicConstraints=critical,CA:FALSE",
        "-CA", ca.certificate, "-CAkey", ca.key,
    )  # fmt: skip
    return made


def _key(made: Certificate) -> tuple[str | Path, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", made.key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
