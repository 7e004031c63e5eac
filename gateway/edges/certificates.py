"""Certificates, keys and revocation lists: reading them, and the facts that people and rules go by.

What may live here: what can be said of such a file by itself and of two of them held against each other. Nothing here
connects to anybody or makes a certificate. The only importer of `cryptography.x509` beside `site_authority`.
"""

import hashlib
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.domain.access import Certificate
from gateway.wire.tls_profiles import RSA_BITS_MIN

EC_BITS_MIN = 224
WEAK_HASHES = frozenset({"md2", "md4", "md5", "sha1"})

FILE_BYTES_MAX = 4 * 1_048_576
"""A bundle of every public authority has a quarter of a MiB; what is longer is some other file."""


_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What `cryptography` raises about certificates and lists that it does not understand; some are no ValueErrors."""


class CertificateFileError(Exception):
    """A file is not what it should be; the text says in words why, and which file, never what is in it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself."""

    subject: str
    """As RFC 4514 writes it, `CN=CT1,O=Hospital`."""
    issuer: str
    common_name: str
    serial: int
    fingerprint: str
    """SHA-256 of the DER form, hex, lower case."""
    not_before: datetime
    not_after: datetime
    key: str
    """`RSA 2048`, `EC secp256r1`, `Ed25519`."""
    key_bits: int
    """0 where the kind of key has only one size."""
    signature: str
    """The hash it is signed with, `sha256`; '' for kinds that have none of their own."""
    authority: bool
    """Whether it may sign others (basicConstraints)."""
    usages: tuple[str, ...]
    """Extended key usages, `server`, `client` or their OID; empty: any."""
    names: tuple[str, ...]
    """DNS names and addresses for which it is (subjectAltName)."""
    self_signed: bool

    @property
    def pin(self) -> str:
        """As `certificates:` in devices.yaml takes it."""
        return f"sha256:{self.fingerprint}"

    def __str__(self) -> str:
        return f"{self.subject or 'no subject'}, valid until {self.not_after:%Y-%m-%d}"


# --- what rules go by -------------------------------------------------------------------------------------------------


def certificate_of(der: bytes) -> Certificate:
    """What a peer showed, as access rules see it.

    A certificate that OpenSSL took and that is not understood here bears no names, so that only a rule of its
    fingerprint fits it. Several common names are none: it would be up to the issuer's taste which of them counts.
    """
    fingerprint = hashlib.sha256(der).hexdigest()
    try:
        read = x509.load_der_x509_certificate(der)
        return Certificate(fingerprint, _common_name(read.subject), _names(read))
    except _UNREADABLE:
        return Certificate(fingerprint)


# --- reading ----------------------------------------------------------------------------------------------------------


def certificates_in(file: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate in this PEM or DER file, in its order. Raises CertificateFileError, also if there is none."""
    data = content_of(file)
    found = tuple(_read(file, "certificate", block) for block in blocks_of(data, "CERTIFICATE"))
    if not found and data[:1] == b"\x30":
        return (_from_der(file, data),)
    if not found:
        raise CertificateFileError(f"{file}: holds no certificate ({_instead(data)})")
    return found


def key_in(file: Path) -> PrivateKeyTypes:
    """The private key in this PEM file. Raises CertificateFileError."""
    data = content_of(file)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise CertificateFileError(
            f"{file}: the key is encrypted, and the service could not ask for its passphrase; "
            "keep it unencrypted, readable for the service alone"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateFileError(f"{file}: holds no private key ({_instead(data)})") from None


def lists_in(file: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """Every revocation list in this PEM file.

    Raises CertificateFileError, also if there is none, or anything else: TLS would trust certificates in it.
    """
    data = content_of(file)
    blocks = blocks_of(data, "X509 CRL")
    if not blocks:
        raise CertificateFileError(f"{file}: holds no revocation list ({_instead(data)})")
    if data.count(b"-----BEGIN ") > len(blocks):
        raise CertificateFileError(
            f"{file}: holds something beside revocation lists, and whoever is in it would be trusted ({_instead(data)})"
        )
    try:
        return tuple(x509.load_pem_x509_crl(block) for block in blocks)
    except _UNREADABLE:
        raise CertificateFileError(f"{file}: a revocation list in it is damaged") from None


def content_of(file: Path) -> bytes:
    """What is in the file. Raises CertificateFileError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CertificateFileError(f"{file}: {(error.strerror or type(error).__name__).lower()}") from error
    if len(data) > FILE_BYTES_MAX:
        raise CertificateFileError(f"{file}: is too long for a file of certificates")
    return data


def blocks_of(data: bytes, kind: str) -> list[bytes]:
    """The PEM blocks of this kind, such as `CERTIFICATE`, as they stand in the file."""
    name = re.escape(kind.encode())
    return re.findall(rb"-----BEGIN %s-----.*?-----END %s-----" % (name, name), data, re.DOTALL)


def holds_key(data: bytes) -> bool:
    """Whether there is a private key of any kind in it."""
    return b"PRIVATE KEY-----" in data


def _instead(data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    kinds = [kind.decode() for kind in re.findall(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", data)]
    if kinds:
        return f"it holds: {', '.join(dict.fromkeys(kinds))}"
    if data[:1] == b"\x30":
        return _instead_in_der(data)
    return "it is no PEM file"


def _instead_in_der(data: bytes) -> str:
    for read, what, command in (
        (x509.load_der_x509_crl, "a revocation list", "crl"), (x509.load_der_x509_certificate, "a certificate", "x509"),
    ):  # fmt: skip
        with suppress(*_UNREADABLE):
            read(data)
            return f"it is {what} in DER form; convert it: openssl {command} -inform DER -in FILE -out NEW"
    return "it is no PEM file; a PKCS#12 file (.p12, .pfx) has to be converted first"


def _read(file: Path, what: str, block: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block)
    except _UNREADABLE:
        raise CertificateFileError(f"{file}: a {what} in it is damaged") from None


def _from_der(file: Path, data: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except _UNREADABLE:
        raise CertificateFileError(f"{file}: holds no certificate ({_instead(data)})") from None


# --- facts ------------------------------------------------------------------------------------------------------------


def facts_of(read: x509.Certificate | bytes) -> Facts:
    """What the certificate (or its DER form) says.

    Raises ValueError where it is damaged, or has extensions that are not understood here, as OpenSSL may do.
    """
    try:
        return _facts_of(x509.load_der_x509_certificate(read) if isinstance(read, bytes) else read)
    except _UNREADABLE as error:
        raise ValueError("its extensions are damaged, or of a form that is not understood here") from error


def is_odd(certificate: x509.Certificate) -> bool:
    """Whether `facts_of` could not say what it is."""
    try:
        facts_of(certificate)
    except ValueError:
        return True
    return False


def ending_of(certificate: x509.Certificate) -> tuple[str, datetime, str]:
    """Subject, end and fingerprint, without what can be odd about it. Raises ValueError where even those are."""
    fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return certificate.subject.rfc4514_string(), certificate.not_valid_after_utc, fingerprint


def _facts_of(certificate: x509.Certificate) -> Facts:
    kind, bits = _key(certificate)
    constraints = _extension(certificate, x509.BasicConstraints)
    return Facts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        common_name=_common_name(certificate.subject),
        serial=certificate.serial_number,
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=kind,
        key_bits=bits,
        signature=_hash(certificate),
        authority=constraints is not None and constraints.ca,
        usages=_usages(certificate),
        names=_names(certificate),
        self_signed=issued_by(certificate, certificate),
    )


def weaknesses(facts: Facts, shown_by_server: bool = True) -> tuple[str, ...]:
    """What devices may refuse about the certificate of a peer, in words; without when it is valid."""
    found = []
    if facts.key.startswith("RSA") and facts.key_bits < RSA_BITS_MIN:
        found.append(f"its key has {facts.key_bits} bits; less than {RSA_BITS_MIN} is refused (RFC 9325 4.5)")
    if facts.key.startswith("EC") and facts.key_bits < EC_BITS_MIN:
        found.append(f"its key has {facts.key_bits} bits; less than {EC_BITS_MIN} is refused (RFC 9325 4.5)")
    if facts.key.startswith("DSA"):
        found.append("its key is of kind DSA, which TLS 1.3 does not know")
    if facts.signature in WEAK_HASHES:
        found.append(f"it is signed with {facts.signature.upper()}, which is refused")
    if facts.authority:
        found.append("it is an authority's (it may sign others), where a device's own is wanted")
    if shown_by_server and not facts.authority and not facts.names:
        found.append("it bears no host name or address (subjectAltName), so nobody can check whose it is")
    return tuple(found)


def allows(facts: Facts, role: str) -> bool:
    """Whether it may be shown as `server` or as `client` (extendedKeyUsage)."""
    return not facts.usages or role in facts.usages or "any" in facts.usages


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed it and the names agree; not whether the authority may sign."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def path_to(
    certificate: x509.Certificate, others: Iterable[x509.Certificate], trusted: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...] | None:
    """From the certificate to one that is trusted, by way of the others; None where it does not get there.

    Only who signed whom; validity, usages and revocation are TLS's to check.
    """
    roots, between = tuple(trusted), tuple(others)
    path = [certificate]
    while path[-1] not in roots:
        last = path[-1]
        above = next((each for each in (*roots, *between) if each not in path and issued_by(last, each)), None)
        if above is None:
            return None
        path.append(above)
    return tuple(path)


def fits_key(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether this is the key of this certificate."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def others_may_read(file: Path) -> bool:
    """Whether others than its owner and group can read this file of a key, or more than its owner change it."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP))


def signed_by(listed: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether a revocation list is the authority's."""
    if listed.issuer != authority.subject:
        return False
    try:
        return listed.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # refused by TypeError
    except _UNREADABLE:
        return False


def ders_of(file: Path) -> list[bytes]:
    """The DER forms of the certificates in a file. Raises CertificateFileError."""
    return [each.public_bytes(Encoding.DER) for each in certificates_in(file)]


def _common_name(name: x509.Name) -> str:
    said = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(said[0].value) if len(said) == 1 else ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    said = _extension(certificate, x509.SubjectAlternativeName)
    if said is None:
        return ()
    addresses = (str(each) for each in said.get_values_for_type(x509.IPAddress))
    return (*said.get_values_for_type(x509.DNSName), *addresses)


_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}


def _usages(certificate: x509.Certificate) -> tuple[str, ...]:
    said = _extension(certificate, x509.ExtendedKeyUsage)
    return tuple(_USAGES.get(each, each.dotted_string) for each in said) if said is not None else ()


_Kind = TypeVar("_Kind", x509.BasicConstraints, x509.SubjectAlternativeName, x509.ExtendedKeyUsage)


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key(certificate: x509.Certificate) -> tuple[str, int]:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "of an unknown kind", 0
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}", key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}", key.key_size
    name = type(key).__name__.strip("_").removesuffix("PublicKey")
    return name, int(getattr(key, "key_size", 0))


def _hash(certificate: x509.Certificate) -> str:
    try:
        used = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:  # such as MD2
        return certificate.signature_algorithm_oid.dotted_string
    return used.name if used is not None else ""
