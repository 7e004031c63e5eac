"""Our own private keys for other FHIR servers (SMART Backend Services): reading them, and making a pair.

What may live here: the files of such keys, what we sign with them, and what others are given of them. Public keys of
others are read in `identity_keys`.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from gateway.wire.tls_profiles import RSA_BITS_MIN

ASSERTION_ALGORITHMS = ("RS384", "ES384")
"""Signatures of authentication: the two that SMART App Launch 2 names, of which every client has to be able to make one
and every server to check one. Others are allowed there, and asked of nobody: RS256 is what a library does that was not
told otherwise."""

ASSERTION_S = 240
"""Seconds for which an assertion of ours holds: five minutes are the most (SMART 2), and clocks differ."""

KEY_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of ours, the algorithm it signs by, and its name (`kid`)."""

    key: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)
    key_id: str

    @property
    def algorithm(self) -> str:
        """RS384 or ES384."""
        return "RS384" if isinstance(self.key, RSAPrivateKey) else "ES384"

    @property
    def public_jwk(self) -> Mapping[str, Any]:
        """What others are given."""
        return {**_public_jwk(self.key), "kid": self.key_id, "alg": self.algorithm, "use": "sig",
                "key_ops": ["verify"]}  # fmt: skip

    def assertion(self, client_id: str, audience: str, now: float, seconds: int = ASSERTION_S) -> str:
        """A new JWT that we are this client, to a token endpoint at `audience`; `now` in seconds of the epoch."""
        claims = {"iss": client_id, "sub": client_id, "aud": audience, "iat": int(now), "exp": int(now) + seconds,
                  "jti": secrets.token_hex(16)}  # fmt: skip
        return jwt.encode(claims, self.key, self.algorithm, headers={"kid": self.key_id})


def new_key(key_id: str = "") -> SigningKey:
    """A new pair on P-384, named by its thumbprint where no name is given."""
    return _named(generate_private_key(SECP384R1()), key_id)


def read_signing_key(path: Path, key_id: str = "") -> SigningKey:
    """The private key in this PEM or JWK file; `key_id` goes before what the file calls it.

    Raises OSError, or ValueError with words that quote nothing of the file.
    """
    with path.open("rb") as opened:
        content = opened.read(KEY_BYTES_MAX + 1)
    if len(content) > KEY_BYTES_MAX:
        raise ValueError("is too long for a key")
    if content.lstrip().startswith(b"{"):
        key, named = _from_jwk(content)
    else:
        key, named = _from_pem(content), ""
    if isinstance(key, RSAPrivateKey) and key.key_size >= RSA_BITS_MIN:
        return _named(key, key_id or named)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
        return _named(key, key_id or named)
    raise ValueError(
        f"is of a kind that is not taken: RSA with {RSA_BITS_MIN} bits at least (RS384), or EC P-384 (ES384)"
    )


def pem_of(key: SigningKey) -> str:
    """The private key as a file has it."""
    return key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwks_of(keys: Iterable[SigningKey]) -> str:
    """The public keys as a file that is given to others."""
    return json.dumps({"keys": [each.public_jwk for each in keys]}, indent=2) + "\n"


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The name of a key by RFC 7638: SHA-256 of its required members."""
    required = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}[jwk["kty"]]
    text = json.dumps({name: jwk[name] for name in required}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _named(key: RSAPrivateKey | EllipticCurvePrivateKey, key_id: str) -> SigningKey:
    return SigningKey(key, key_id or thumbprint(_public_jwk(key)))


def _public_jwk(key: RSAPrivateKey | EllipticCurvePrivateKey) -> dict[str, Any]:
    if isinstance(key, RSAPrivateKey):
        said = RSAAlgorithm.to_jwk(key.public_key())
    else:
        said = ECAlgorithm.to_jwk(key.public_key())
    known: dict[str, Any] = json.loads(said)
    return {name: known[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in known}


def _from_jwk(content: bytes) -> tuple[object, str]:
    try:
        said = json.loads(content)
        said = said["keys"][0] if "keys" in said else said
        readers = {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk}
        return readers[said["kty"]](said), str(said.get("kid", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, InvalidKeyError):
        raise ValueError("is no private key in JWK form") from None


def _from_pem(content: bytes) -> object:
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        raise ValueError(
            "is encrypted, and nobody can be asked for its passphrase; store it without one, for the service alone"
        ) from None
    except ValueError:
        raise ValueError("holds no private key: it must be PEM (BEGIN PRIVATE KEY) or a JWK") from None
