"""JSON Web Tokens (RFC 7519) as user identities: whether one is signed by somebody we believe, for us, and for now.

What may live here: the checks of tokens, each by PyJWT, and their words. The words quote nothing of a token, so that
they may go to a log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from gateway.edges.identity_memory import WatchedFile
from gateway.identity_keys import VerifyingKey

ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)  # fmt: skip
"""Signatures that are believed (RFC 7518). Never `none`; never HS256 and its kin, which would take a public key for a
shared secret."""

TOKEN_BYTES_MAX = 16_384
"""The longest token that is looked at; others are a few kilobytes."""

LEEWAY_S = 30
"""How far clocks may differ: the gateway warns of its own at one second."""

NAME_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fault` is "" where it is in order."""

    what: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What all checks of a token or assertion found. It proves something only where `fault` is ""."""

    findings: tuple[Finding, ...]
    name: str = ""

    @property
    def fault(self) -> str:
        """The first thing that is wrong."""
        return next((each.fault for each in self.findings if each.fault), "")


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Whose tokens are believed, for which audience, by which keys."""

    issuer: str
    audience: str
    keys: WatchedFile[tuple[VerifyingKey, ...]]


def check_token(token: bytes, issuers: Sequence[TokenIssuer]) -> Checked:
    """Everything that is to be said of a token."""
    if len(token) > TOKEN_BYTES_MAX:
        return Checked((Finding("form", f"the token is longer than {TOKEN_BYTES_MAX} bytes"),))
    try:
        text = token.decode("ascii").strip()
        header = jwt.get_unverified_header(text)
        claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    except (ValueError, PyJWTError):
        return Checked(
            (
                Finding(
                    "form",
                    "it is no JSON Web Token, three parts in base64url with dots between, or it has extensions (crit)",
                ),
            )
        )
    known = [each for each in issuers if each.issuer == claims.get("iss")]
    if not known:
        return Checked((Finding("form"), Finding("issuer", "nobody whose tokens are taken has issued it (iss)")))
    checked = [_by(text, header, claims, each) for each in known]
    return next((each for each in checked if not each.fault), checked[0])


def _by(text: str, header: dict[str, Any], claims: dict[str, Any], issuer: TokenIssuer) -> Checked:
    """By one of those with this issuer: they may differ in audience and keys."""
    key, fault = _key_of(text, header, issuer)
    name = claims.get("preferred_username") or claims.get("sub")
    is_named = isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX
    findings = (
        Finding("form"),
        Finding("issuer"),
        Finding("signature", fault),
        Finding("audience", _audience_fault(text, key, issuer)),
        Finding("time", _time_fault(text, key)),
        Finding("user", "" if is_named else "it names no user (preferred_username or sub)"),
    )
    return Checked(findings, str(name) if is_named else "")


def _key_of(text: str, header: dict[str, Any], issuer: TokenIssuer) -> tuple[VerifyingKey | None, str]:
    """The key that made the signature, or why none of those we know did."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return None, "its algorithm (alg) is none that is taken: RS, PS or ES with 256, 384 or 512, or EdDSA"
    file = issuer.keys.path.name
    keys = issuer.keys.content()
    if not keys:
        return None, f"{file} holds no key that can be used: see `gateway check`"
    if key_id is not None and any(each.key_id for each in keys):
        keys = tuple(each for each in keys if each.key_id in (key_id, ""))
        if not keys:
            return None, f"{file} has no key of its name (kid): fetch the issuer's keys anew"
    keys = tuple(each for each in keys if algorithm in each.algorithms)
    if not keys:
        return None, f"{file} has no key for its algorithm (alg)"
    for each in keys:
        try:
            _verified(text, each)
        except InvalidSignatureError:
            continue
        except PyJWTError:
            return None, "its signature cannot be checked"
        return each, ""
    return None, f"no key in {file} made its signature: it was changed, or others signed it"


def _audience_fault(text: str, key: VerifyingKey | None, issuer: TokenIssuer) -> str:
    try:
        _verified(text, key, audience=issuer.audience, issuer=issuer.issuer, verify_aud=True, verify_iss=True)
    except MissingRequiredClaimError:
        return "it says not for whom it is (aud)"
    except PyJWTError:
        return "it is for somebody else (aud)"
    return ""


def _time_fault(text: str, key: VerifyingKey | None) -> str:
    try:
        _verified(text, key, verify_exp=True, verify_nbf=True, verify_iat=True, require=["exp"])
    except MissingRequiredClaimError:
        return "it never expires (exp)"
    except ExpiredSignatureError:
        return "it has expired (exp)"
    except ImmatureSignatureError:
        return "it is not valid yet (nbf or iat): compare the clocks of its issuer and the gateway"
    except PyJWTError:
        return "its times are no numbers (exp, nbf, iat)"
    return ""


_OFF = dict.fromkeys(
    ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"), False
)


def _verified(
    text: str, key: VerifyingKey | None, audience: str | None = None, issuer: str | None = None, **wanted: Any
) -> None:
    """Have PyJWT check the signature, where there is a key, and what is wanted. Raises PyJWTError."""
    options: Any = {**_OFF, **wanted, "verify_signature": key is not None}
    jwt.decode(
        text,
        "" if key is None else key.key,
        algorithms=[] if key is None else list(key.algorithms),
        options=options,
        audience=audience,
        issuer=issuer,
        leeway=LEEWAY_S,
    )
