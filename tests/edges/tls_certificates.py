"""A certificate authority for one test, good certificates of it, and every bad kind that a peer may show."""

import ipaddress
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Shown:
    """Files in PEM: a certificate and its key."""

    certificate: str
    key: str
    serial: int = 0


@dataclass
class TestAuthority:
    """Signs in a folder of its own; `rsa_bits` 0 for keys of the curve P-256."""

    __test__ = False  # pytest takes every class named so for one

    folder: Path
    name: str = "Site CA"
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = _name(self.name)
        self.certificate = (
            _builder(name, name, self.key.public_key(), NOW - 400 * DAY, NOW + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.file = str(self.folder / "ca.pem")
        Path(self.file).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        days: tuple[int, int] = (-1, 30),
        rsa_bits: int = 0,
        usage: x509.ObjectIdentifier | None = None,
        file: str = "",
    ) -> Shown:
        """A certificate valid from and until so many days from now, for this name and for loopback."""
        key: Key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _name(name), self.certificate.subject, key.public_key(), NOW + days[0] * DAY, NOW + days[1] * DAY
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return self._write(file or name, builder.sign(self.key, hashes.SHA256()), key)

    def issue_by_sha1(self, name: str) -> Shown:
        """A certificate signed as none is any more; the test is skipped where OpenSSL is not installed."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        made, authority = Shown(str(self.folder / "sha1.pem"), str(self.folder / "sha1.key")), self.folder / "ca.key"
        authority.write_bytes(_pem(self.key))
        subprocess.run(
            [
                "openssl", "req", "-x509", "-sha1", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-keyout", made.key, "-out", made.certificate, "-subj", f"/CN={name}", "-days", "1",
                "-addext", "basicConstraints=critical,CA:FALSE", "-CA", self.file, "-CAkey", str(authority),
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return made

    def self_signed(self, name: str) -> Shown:
        """A certificate that nobody but itself has signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name(name), _name(name), key.public_key(), NOW - DAY, NOW + DAY).sign(key, hashes.SHA256())
        return self._write(name, made, key)

    def revoke(self, *serials: int, days: tuple[int, int] = (-1, 7), file: str = "crl.pem") -> str:
        """A revocation list of these."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(NOW + days[0] * DAY).next_update(NOW + days[1] * DAY)
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        made = builder.sign(self.key, hashes.SHA256())
        path = self.folder / file
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def _write(self, name: str, certificate: x509.Certificate, key: Key) -> Shown:
        pem, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(_pem(key))
        return Shown(str(pem), str(secret), certificate.serial_number)


CLIENT_USE = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_USE = ExtendedKeyUsageOID.SERVER_AUTH


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, since: datetime,
    until: datetime,
) -> x509.CertificateBuilder:  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip
