"""A certificate authority in a folder, for a pilot: its own certificate, those of devices, and a revocation list.

What may live here: making and revoking certificates. What such an authority is and is not: docs/adr/0015. The folder
holds `ca.pem`, `ca.key` (readable for its owner alone), `crl.pem`, and in `issued` every certificate that it signed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.edges.certificates import (
    CertificateFileError,
    certificates_in,
    content_of,
    issued_by,
    lists_in,
    signed_by,
)
from gateway.whole_files import write_whole

AUTHORITY_DAYS = 3650
DEVICE_DAYS = 730
"""IHE ATNA advises against more than about two years."""
LIST_DAYS = 90
"""A list that is older is not believed and everybody is refused, so there has to be time to renew it."""
BACKDATED = timedelta(days=1)
"""Clocks of modalities are late as often as early."""

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

KEYS = ("rsa2048", "rsa3072", "ec256")
"""Kinds of keys; RSA with 2048 bits is what every device knows."""


_LOST = (
    "put it back from a backup, or from the gateway, where `crl` names a copy; with neither `gateway certs crl --anew` "
    "begins an empty one, and whoever was revoked has to be revoked again"
)
"""An empty list in place of a lost one would let everybody in again whose key was stolen, and say nothing of it."""


class AuthorityError(Exception):
    """Something that this authority cannot or will not do, in words."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate shall be for. `common_name` is what `subject:` rules compare, an AE title mostly."""

    common_name: str
    hosts: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    server: bool = True
    client: bool = True
    days: int = DEVICE_DAYS
    key: str = "rsa2048"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and, where it was made here, its key."""

    certificate: x509.Certificate
    authority: x509.Certificate
    key: SigningKey | None = field(default=None, repr=False)

    def pem(self) -> bytes:
        """The certificate; its authority's is with everybody who trusts it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """The key, unencrypted. Raises AuthorityError where the device made it itself."""
        return _key_pem(self._key(), NoEncryption())

    def pkcs12(self, name: str, passphrase: bytes, old: bool = False) -> bytes:
        """Certificate, key and authority in one file under a passphrase.

        `old` is for consoles that know 3DES and SHA-1 only, such as Windows before 2019.
        """
        form: KeySerializationEncryption = BestAvailableEncryption(passphrase)
        if old:
            builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(50_000)
            builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            form = builder.hmac_hash(hashes.SHA1()).build(passphrase)  # noqa: S303 -- the form is that of 1999
        return pkcs12.serialize_key_and_certificates(
            name.encode(), self._key(), self.certificate, [self.authority], form
        )

    def _key(self) -> SigningKey:
        if self.key is None:
            raise AuthorityError("the device made its key itself, so it is not here")
        return self.key


class SiteAuthority:
    """The authority whose files are in `folder`."""

    def __init__(self, folder: Path, passphrase: bytes = b"") -> None:
        """Raises CertificateFileError or AuthorityError, which say what is missing."""
        self.folder = folder
        self.certificate = certificates_in(folder / "ca.pem")[0]
        self._key = _signing_key(folder / "ca.key", passphrase)

    @classmethod
    def make(
        cls, folder: Path, name: str, passphrase: bytes = b"", days: int = AUTHORITY_DAYS, key: str = "rsa3072"
    ) -> "SiteAuthority":
        """A new one. Raises AuthorityError where there is one already, OSError where nothing can be written."""
        if (folder / "ca.key").exists() or (folder / "ca.pem").exists():
            raise AuthorityError(f"{folder} holds an authority already; its certificates would all become worthless")
        made = _new_key(key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        at = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(made.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(made.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - BACKDATED)
            .not_valid_after(at + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_others=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        certificate = builder.sign(made, hashes.SHA256())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "issued").mkdir(exist_ok=True)
        form: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        write_whole(folder / "ca.key", _key_pem(made, form), secret=True)
        write_whole(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))
        authority = cls(folder, passphrase)
        authority.renew_list()
        return authority

    def issue(self, wanted: Wanted) -> Issued:
        """A certificate with a key that is made here."""
        key = _new_key(wanted.key)
        return Issued(self._sign(wanted, key.public_key()), self.certificate, key)

    def issue_for(self, wanted: Wanted, request: bytes) -> Issued:
        """A certificate for a key that a device made itself, by its request (PKCS#10, PEM).

        Names, usages and time are ours to say; of the request only the key counts. Raises AuthorityError.
        """
        try:
            read = x509.load_pem_x509_csr(request)
            valid = read.is_signature_valid
        except ValueError:
            raise AuthorityError("this is no certificate request (BEGIN CERTIFICATE REQUEST)") from None
        if not valid:
            raise AuthorityError("the certificate request is damaged: its signature is wrong")
        key = read.public_key()
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise AuthorityError("the request has a key that devices do not understand; make one with RSA or EC")
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
            raise AuthorityError(f"the request has a key of {key.key_size} bits; less than 2048 is refused everywhere")
        return Issued(self._sign(wanted, key), self.certificate)

    def _sign(self, wanted: Wanted, key: CertificateIssuerPublicKeyTypes) -> x509.Certificate:
        if wanted.server and not (wanted.hosts or wanted.addresses):
            raise AuthorityError("a server's certificate needs a host name or address that callers use for it")
        at = datetime.now(UTC)
        until = min(at + timedelta(days=wanted.days), self.certificate.not_valid_after_utc)
        if until <= at:
            raise AuthorityError("the authority itself has expired; make a new one in another folder")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * wanted.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * wanted.client
        try:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
            names = [
                *(x509.DNSName(host) for host in wanted.hosts),
                *(x509.IPAddress(each) for each in wanted.addresses),
            ]
        except ValueError as error:
            raise AuthorityError(f"this cannot stand in a certificate: {error}") from None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(at - BACKDATED, self.certificate.not_valid_before_utc))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_others=False, rsa_key=isinstance(key, rsa.RSAPublicKey)), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.folder / "issued").mkdir(exist_ok=True)
        kept = self.folder / "issued" / f"{certificate.serial_number:040x}.pem"
        write_whole(kept, certificate.public_bytes(Encoding.PEM))
        return certificate

    def issued(self) -> Iterator[x509.Certificate]:
        """Every certificate that was signed here, in no order. Raises CertificateFileError."""
        for file in (self.folder / "issued").glob("*.pem"):
            yield from certificates_in(file)

    def of_name(self, name: str) -> list[x509.Certificate]:
        """Those signed for this common name that are neither expired nor revoked."""
        at, revoked = datetime.now(UTC), self.revoked()
        return [
            each
            for each in self.issued()
            if each.not_valid_after_utc > at
            and each.serial_number not in revoked
            and name in {said.value for said in each.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
        ]

    def revoked(self) -> frozenset[int]:
        """Serial numbers of what was revoked."""
        listed = self._list()
        return frozenset(each.serial_number for each in listed) if listed is not None else frozenset()

    def revoke(self, certificates: Sequence[x509.Certificate], days: int = LIST_DAYS) -> x509.CertificateRevocationList:
        """Put them on the list and renew it.

        Raises AuthorityError for one of another authority, whatever that calls itself, and as `renew_list`.
        """
        for each in certificates:
            if not issued_by(each, self.certificate):
                namesake = each.issuer == self.certificate.subject
                raise AuthorityError(
                    f"{each.subject.rfc4514_string()} was signed by {'another ' if namesake else ''}"
                    f"{each.issuer.rfc4514_string()}, which alone can revoke it"
                )
        return self.renew_list(days, [each.serial_number for each in certificates])

    def renew_list(
        self, days: int = LIST_DAYS, more: Sequence[int] = (), *, anew: bool = False
    ) -> x509.CertificateRevocationList:
        """The revocation list anew, with `more` serial numbers on it; what was on it stays.

        Raises AuthorityError where that is lost, unless `anew` forgets it, and CertificateFileError where it is
        damaged.
        """
        at = datetime.now(UTC)
        before = None if anew else self._list()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at - BACKDATED)
            .next_update(at + timedelta(days=days))
            .add_extension(x509.CRLNumber(int(at.timestamp()) if anew else _number(before) + 1), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for each in before or ():
            builder = builder.add_revoked_certificate(each)
        known = {each.serial_number for each in before or ()}
        for serial in sorted(set(more) - known):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
            builder = builder.add_revoked_certificate(entry.build())
        listed = builder.sign(self._key, hashes.SHA256())
        write_whole(self.folder / "crl.pem", listed.public_bytes(Encoding.PEM))
        return listed

    def _list(self) -> x509.CertificateRevocationList | None:
        file = self.folder / "crl.pem"
        if not file.exists():
            if any((self.folder / "issued").glob("*.pem")):
                raise AuthorityError(f"there is no {file}, and with it who was revoked is lost: {_LOST}")
            return None
        try:
            listed = lists_in(file)[0]
        except CertificateFileError as error:
            raise CertificateFileError(f"{error}, and with it who was revoked is lost: {_LOST}") from error
        if not signed_by(listed, self.certificate):
            raise AuthorityError(f"{file} is the list of another authority: {_LOST}")
        return listed

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _signing_key(file: Path, passphrase: bytes) -> SigningKey:
    data = content_of(file)
    try:
        key = load_pem_private_key(data, passphrase if b"ENCRYPTED" in data else None)
    except TypeError:
        raise AuthorityError(f"{file} is under a passphrase") from None
    except ValueError:
        raise AuthorityError(f"{file} cannot be opened: it is damaged, or the passphrase is another") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CertificateFileError(f"{file}: is a key of a kind that nothing is signed with here")
    return key


def _new_key(kind: str) -> SigningKey:
    if kind == "ec256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa")))


def _key_pem(key: SigningKey, form: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form)


def _number(listed: x509.CertificateRevocationList | None) -> int:
    if listed is None:
        return 0
    try:
        return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _usage(*, signs_others: bool, rsa_key: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        content_commitment=False,
        key_encipherment=rsa_key,  # suites without Diffie-Hellman, of old devices
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )
