"""Certificates of every kind that a gateway meets, also those that nobody should make; fresh for each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass
class Made:
    """A certificate with its key, as objects and as files (`NAME.pem`, `NAME.key`)."""

    certificate: x509.Certificate
    key: PrivateKeyTypes
    pem: Path
    key_file: Path


class Maker:
    """An authority that signs whatever it is asked to."""

    def __init__(self, folder: Path, name: str = "Hospital CA", file: str = "ca", above: "Maker | None" = None) -> None:
        self.folder, self.name = folder, name
        self.own = self.issue(file, name, ca=True, signer=above, hosts=())
        self.ca = self.own.pem

    def issue(
        self,
        file: str,
        common_name: str = "CT1",
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        *,
        ca: bool = False,
        signer: "Maker | None" = None,
        self_signed: bool = False,
        from_: datetime = NOW - DAY,
        until: datetime = NOW + 365 * DAY,
        rsa_bits: int = 0,
        usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    ) -> Made:
        key: PrivateKeyTypes = (
            rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        above = signer or (None if self_signed or ca else self)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.own.certificate.subject if above else subject)
            .public_key(key.public_key())  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(from_)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if hosts:
            names = [x509.IPAddress(ip_address(each)) if each[0].isdigit() else x509.DNSName(each) for each in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usages and not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(above.own.key if above else key, hashes.SHA256())  # type: ignore[arg-type]
        made = Made(certificate, key, self.folder / f"{file}.pem", self.folder / f"{file}.key")
        made.pem.write_bytes(certificate.public_bytes(Encoding.PEM))
        made.key_file.touch(0o600)
        made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return made

    def revoking(
        self, file: str, *revoked: Made, from_: datetime = NOW - DAY, until: datetime = NOW + 30 * DAY
    ) -> Path:
        """A file with this authority's revocation list."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.own.certificate.subject)
        builder = builder.last_update(from_).next_update(until)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - DAY).build())
        path = self.folder / f"{file}.pem"
        path.write_bytes(builder.sign(self.own.key, hashes.SHA256()).public_bytes(Encoding.PEM))  # type: ignore[arg-type]
        return path
