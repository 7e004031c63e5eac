"""An identity provider for tests: its keys, tokens and assertions, made anew for each run."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import CanonicalizationMethod
from signxml.signer import XMLSigner

ISSUER = "https://idp.example"
AUDIENCE = "https://gateway.example"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
NAMESPACES = {"s": SAML, "d": SIGNATURE}


def certificate_for(key: rsa.RSAPrivateKey, days: int = 1) -> x509.Certificate:
    """A certificate of itself, valid from two days ago until so many days from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp.example")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )


@dataclass
class Provider:
    """Signs what it is told to."""

    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65_537, 2_048))
    curve_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    valid_days: int = 1

    def __post_init__(self) -> None:
        self.certificate = certificate_for(self.key, self.valid_days)

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def write(self, folder: Path) -> None:
        """keys.pem and idp.pem, as a site would have them."""
        curve = self.curve_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "keys.pem").write_bytes(self.public_pem + curve)
        (folder / "idp.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def token(self, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """A good token, but for what is said; None leaves a claim out."""
        now = int(datetime.now(UTC).timestamp())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mta1", "iat": now, "exp": now + 300, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        key: Any = self.curve_key if algorithm == "ES256" else self.key
        return jwt.encode(said, key, algorithm=algorithm, headers=headers).encode()

    def assertion(self, **said: Any) -> bytes:
        """A good assertion, but for what is said; see `unsigned`."""
        return etree.tostring(self.signed(unsigned(**said)))

    def signed(self, assertion: Any, **options: Any) -> Any:
        """The assertion with its signature behind the Issuer, as SAML has it."""
        signer = XMLSigner(c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0, **options)
        placeholder = etree.SubElement(assertion, f"{{{SIGNATURE}}}Signature", Id="placeholder")
        assertion.insert(1, placeholder)
        return signer.sign(assertion, key=self.key, cert=[self.certificate], reference_uri=assertion.get("ID"))


def unsigned(
    *,
    number: str = "_a1",
    issuer: str = ISSUER,
    audience: str | None = AUDIENCE,
    name: str = "mta1",
    since_s: int = -60,
    until_s: int | None = 300,
    method: str = "urn:oasis:names:tc:SAML:2.0:cm:bearer",
    confirmed_until_s: int = 300,
    condition: str = "",
) -> Any:
    """An assertion by its parts; None leaves one out."""
    now = datetime.now(UTC)

    def at(seconds: int) -> str:
        return (now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    until = "" if until_s is None else f'NotOnOrAfter="{at(until_s)}"'
    restriction = (
        ""
        if audience is None
        else f"<s:AudienceRestriction><s:Audience>{audience}</s:Audience></s:AudienceRestriction>"
    )
    return etree.fromstring(
        f'<s:Assertion xmlns:s="{SAML}" ID="{number}" Version="2.0" IssueInstant="{at(min(since_s, 0))}">'
        f"<s:Issuer>{issuer}</s:Issuer>"
        f"<s:Subject><s:NameID>{name}</s:NameID>"
        f'<s:SubjectConfirmation Method="{method}">'
        f'<s:SubjectConfirmationData NotOnOrAfter="{at(confirmed_until_s)}"/></s:SubjectConfirmation></s:Subject>'
        f'<s:Conditions NotBefore="{at(since_s)}" {until}>{restriction}{condition}</s:Conditions></s:Assertion>'
    )
