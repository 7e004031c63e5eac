"""The public keys and certificates that sign tokens and assertions, read from the files that a site has of them.

What may live here: reading and checking these files. A private or shared key is refused wherever it stands.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from gateway.wire.tls_profiles import RSA_BITS_MIN

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

KEYS_MAX = 64
"""Keys in one file: a provider shows a handful."""

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, and the signature algorithms (RFC 7518) that it may be used with: never one with a shared key."""

    key: PublicKey
    algorithms: tuple[str, ...]
    key_id: str = ""


def read_keys(path: Path) -> tuple[VerifyingKey, ...]:
    """The public keys of a JWKS (RFC 7517) or PEM file. Raises OSError, or ValueError with words."""
    content = path.read_bytes()
    keys = tuple(_jwks(content) if content.lstrip().startswith(b"{") else _pem_keys(content))
    return _some(keys, "holds no public key")


def published_keys(content: bytes) -> tuple[VerifyingKey, ...]:
    """The public keys of a JWKS that somebody else shows: those that cannot be used are passed over (RFC 7517 5).

    Raises ValueError with words where there is none.
    """
    keys: list[VerifyingKey] = []
    for number, each in enumerate(_shown(content), 1):
        with suppress(ValueError):
            keys.append(_jwk(each, f"key {number}"))
    return _some(tuple(keys), "holds no public key that can be used")


def _some(keys: tuple[VerifyingKey, ...], none: str) -> tuple[VerifyingKey, ...]:
    if not keys:
        raise ValueError(none)
    if len(keys) > KEYS_MAX:
        raise ValueError(f"holds more than {KEYS_MAX} keys")
    return keys


def _jwks(content: bytes) -> Iterator[VerifyingKey]:
    return (_jwk(each, f"key {number}") for number, each in enumerate(_shown(content), 1))


def _shown(content: bytes) -> Sequence[dict[str, Any]]:
    """What a JWKS holds for signatures."""
    try:
        shown = [dict(each) for each in json.loads(content)["keys"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError('is no JWKS: {"keys": [...]}') from None
    return [each for each in shown if each.get("use", "sig") == "sig"]


def _jwk(said: dict[str, Any], which: str) -> VerifyingKey:
    readers = {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}
    kind = str(said.get("kty"))
    if kind not in readers:
        raise ValueError(f"{which} is of kind {kind}; only public keys are taken: RSA, EC, OKP")
    if "d" in said:
        raise ValueError(f"{which} is a private key; keep it with its owner, and put the public one here")
    try:
        key: Any = readers[kind](said)
    except (InvalidKeyError, ValueError, TypeError):
        raise ValueError(f"{which} cannot be read") from None
    algorithms = _algorithms(key, which)
    if "alg" in said:
        algorithms = tuple(each for each in algorithms if each == said["alg"])
        if not algorithms:
            raise ValueError(f"{which} names an algorithm that its kind does not have")
    return VerifyingKey(key, algorithms, str(said.get("kid", "")))


def _pem_keys(content: bytes) -> Iterator[VerifyingKey]:
    for number, block in enumerate(_PEM_BLOCK.finditer(content), 1):
        which, label = f"block {number}", block[1]
        if b"PRIVATE" in label:
            raise ValueError(f"{which} is a private key; keep it with its owner, and put the public one here")
        try:
            if label == b"CERTIFICATE":
                key: Any = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                key = load_pem_public_key(block[0])
        except ValueError:
            raise ValueError(f"{which} cannot be read") from None
        yield VerifyingKey(key, _algorithms(key, which))


def _algorithms(key: object, which: str) -> tuple[str, ...]:
    if isinstance(key, RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            raise ValueError(f"{which} has {key.key_size} bits; RSA needs {RSA_BITS_MIN}")
        return _RSA_ALGORITHMS
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVE_ALGORITHMS:
        return (_CURVE_ALGORITHMS[key.curve.name],)
    if isinstance(key, Ed25519PublicKey):
        return ("EdDSA",)
    raise ValueError(f"{which} is of a kind that is not taken: RSA, P-256, P-384, P-521 or Ed25519")


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file. Raises OSError, or ValueError with words."""
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except ValueError:
        raise ValueError("holds no certificate in PEM form") from None
