"""Tokens of our FHIR server (SMART Backend Services, RFC 6749, RFC 7523): what is asked, checked, and given.

What may live here: token requests, the checks of an assertion, access tokens, and the answers of RFC 6749. Who the
clients are and where their keys come from is `fhir_door`'s and `smart_client_keys`'. Words quote nothing that was sent.
"""

import base64
import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import jwt
from jwt.exceptions import InvalidSignatureError, PyJWTError

from gateway.domain.scopes import Scope, scopes, text_of
from gateway.edges.identity_memory import UsedOnce
from gateway.edges.token_proofs import LEEWAY_S, TOKEN_BYTES_MAX
from gateway.fhir_settings import FHIRClientSettings
from gateway.identity_keys import VerifyingKey
from gateway.smart_keys import ASSERTION_ALGORITHMS

ASSERTION_S_MAX = 300
"""How far ahead the end of an assertion may be (SMART 2: no more than five minutes)."""

BODY_BYTES_MAX = 32_768
"""Longest token request: an assertion of `TOKEN_BYTES_MAX`, and scopes."""
FIELDS_MAX = 16
NUMBER_CHARACTERS_MAX = 256
"""Of the `jti` that is remembered."""

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class TokenError(Exception):
    """Why no token is given: an error of RFC 6749 5.2, words, HTTP status, and the client's name in the settings."""

    def __init__(
        self, error: str, text: str, status: int = 400, client: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.error, self.text, self.status, self.client, self.headers = error, text, status, client, headers or {}
        super().__init__(f"{error}: {text}")


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assertion:
    """What an assertion says of itself, before anything of it is believed."""

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def issuer(self) -> str:
        """`iss`, '' where it is no text."""
        return _text(self.claims.get("iss"))

    @property
    def key_id(self) -> str:
        """`kid`, '' where it is no text."""
        return _text(self.header.get("kid"))

    @property
    def number(self) -> str:
        """`jti`, '' where it is no text."""
        return _text(self.claims.get("jti"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A token request."""

    assertion: Assertion
    scope: str
    client_id: str = ""


def request_of(body: bytes, content_types: Sequence[str], authorizations: Sequence[str]) -> Asked:
    """What a token request asks. Raises TokenError."""
    if authorizations:
        raise TokenError(
            "invalid_client",
            "a client proves itself by client_assertion (private_key_jwt) alone, not by an Authorization header",
            401,
            headers={"WWW-Authenticate": 'Bearer realm="fhir"'},
        )
    form = _form(body, content_types)
    if form.get("grant_type") != "client_credentials":
        error = "unsupported_grant_type" if form.get("grant_type") else "invalid_request"
        raise TokenError(error, "grant_type has to be client_credentials")
    if "client_secret" in form:
        raise TokenError("invalid_client", "secrets are not taken: register a key pair and send client_assertion")
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise TokenError("invalid_request", f"client_assertion_type has to be {ASSERTION_TYPE}")
    if not form.get("client_assertion"):
        raise TokenError("invalid_request", "client_assertion is missing: a JWT signed with the client's private key")
    return Asked(_assertion(form["client_assertion"]), form.get("scope", ""), form.get("client_id", ""))


def _form(body: bytes, content_types: Sequence[str]) -> dict[str, str]:
    kind = content_types[0].partition(";")[0].strip().lower() if len(content_types) == 1 else ""
    if kind != "application/x-www-form-urlencoded":
        raise TokenError("invalid_request", "Content-Type has to be application/x-www-form-urlencoded")
    if len(body) > BODY_BYTES_MAX:
        raise TokenError("invalid_request", f"the body is longer than {BODY_BYTES_MAX} bytes", 413)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise TokenError("invalid_request", "the body is no form, or has too many fields") from None
    form = dict(fields)
    if len(form) < len(fields):
        raise TokenError("invalid_request", "a field is there twice")
    return form


def _assertion(text: str) -> Assertion:
    if len(text) > TOKEN_BYTES_MAX:
        raise TokenError("invalid_client", f"client_assertion is longer than {TOKEN_BYTES_MAX} bytes")
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except (ValueError, PyJWTError, RecursionError):
        raise TokenError("invalid_client", "client_assertion is no JSON Web Token, or has extensions (crit)") from None
    return Assertion(text, header, claims)


# --- what is checked --------------------------------------------------------------------------------------------------


class AssertionChecks:
    """Whether an assertion proves that its client asks, once.

    Assertions that were used are remembered until they end, in this process alone. So that none is good again after a
    restart, those that were made before it are not taken: by `iat`, or where that is not said, as if they had been made
    five minutes before their end.
    """

    def __init__(self, started_at: float) -> None:
        """`started_at` in seconds of the epoch."""
        self._started_at = math.floor(started_at)
        self._used = UsedOnce()

    def check(
        self, assertion: Assertion, client: FHIRClientSettings, keys: Iterable[VerifyingKey], audiences: Iterable[str],
        now: float,
    ) -> None:  # fmt: skip
        """All but whether it was used. `keys` are those of its `kid`. Raises TokenError."""
        why = (
            _header_fault(assertion.header, client)
            or _signature_fault(assertion, keys)
            or _claims_fault(assertion, frozenset(audiences), now)
            or self._age_fault(assertion.claims)
        )
        if why:
            raise TokenError("invalid_client", f"the assertion is not taken: {why}", client=client.name)

    def use(self, assertion: Assertion, now: float, client: str) -> None:
        """Use one that was checked. Raises TokenError."""
        why = self._used.use(assertion.issuer, assertion.number, assertion.claims["exp"] + LEEWAY_S, now)
        if why:
            raise TokenError("invalid_client", why.replace("ask its issuer for a new one", "sign a new one"),
                             client=client)  # fmt: skip

    def _age_fault(self, claims: Mapping[str, Any]) -> str:
        made_at = claims.get("iat", claims["exp"] - ASSERTION_S_MAX)
        if made_at >= self._started_at:
            return ""
        return "it may have been used before the gateway was started anew: sign a new one, with its time (iat)"


def _header_fault(header: Mapping[str, Any], client: FHIRClientSettings) -> str:
    if header.get("alg") not in ASSERTION_ALGORITHMS:
        return f"its algorithm (alg) is none that is taken: {' or '.join(ASSERTION_ALGORITHMS)}"
    if str(header.get("typ", "JWT")).upper() != "JWT":
        return "its type (typ) is not JWT"
    if not _text(header.get("kid")):
        return "it names no key (kid)"
    if "jku" in header and header["jku"] != client.jwks:
        return "its jku is not the address that is registered (fhir.clients.jwks)"
    return ""


def _signature_fault(assertion: Assertion, keys: Iterable[VerifyingKey]) -> str:
    algorithm = assertion.header["alg"]
    fitting = [each for each in keys if algorithm in each.algorithms]
    if not fitting:
        return "the key of its name (kid) is of another kind (kty, alg) than its algorithm"
    for each in fitting:
        try:
            jwt.decode(assertion.text, each.key, algorithms=[algorithm], options=_SIGNATURE_ALONE)
        except InvalidSignatureError:
            continue
        except PyJWTError:
            return "its signature cannot be checked"
        return ""
    return "the key of its name (kid) did not make its signature: it was changed, or others signed it"


_SIGNATURE_ALONE: Any = dict.fromkeys(
    ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"), False
)


def _claims_fault(assertion: Assertion, audiences: frozenset[str], now: float) -> str:
    claims = assertion.claims
    if claims.get("sub") != assertion.issuer:
        return "its subject (sub) is not its issuer (iss): both are the client_id"
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(audience, str) or audience not in audiences:
        return f"it is for somebody else: aud has to be {' or '.join(sorted(audiences))} alone"
    if not _is_time(claims.get("exp")):
        return "it never ends (exp)"
    if any(name in claims and not _is_time(claims[name]) for name in ("nbf", "iat")):
        return "its times are no numbers (nbf, iat)"
    if claims["exp"] <= now - LEEWAY_S:
        return "it has expired (exp)"
    if claims["exp"] > now + ASSERTION_S_MAX + LEEWAY_S:
        return f"it holds for too long: exp is at most {ASSERTION_S_MAX} s ahead"
    if any(claims.get(name, now) > now + LEEWAY_S for name in ("nbf", "iat")):
        return "it is not valid yet (nbf, iat): compare the clocks of client and gateway"
    if not 0 < len(assertion.number) <= NUMBER_CHARACTERS_MAX:
        return "it has no number of its own (jti)"
    return ""


def _is_time(said: object) -> bool:
    """Whether it is a number of seconds; JSON has numbers that are longer than any time."""
    return isinstance(said, int | float) and not isinstance(said, bool) and abs(said) < _TIME_MAX


_TIME_MAX = 10**12


def _text(said: object) -> str:
    return said if isinstance(said, str) else ""


# --- what is given ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token of ours says. `fingerprint` is that of the certificate it is bound to (SHA-256, hex)."""

    client_id: str
    scopes: tuple[Scope, ...]
    fingerprint: str = ""


class AccessTokens:
    """Access tokens: JWTs (RFC 9068 type) under a key that this process made at its start, for no eyes but its own.

    HTTP is served by one process, however many workers there are. A restart ends every token, at most five minutes
    early: clients are answered 401 and ask for a new one. So no key has to be kept anywhere, and none can be lost.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def issue(
        self, client_id: str, scopes: Iterable[Scope], audience: str, fingerprint: str, now: int, seconds: int
    ) -> str:
        """A token for so many seconds from `now` (of the epoch), bound to this certificate where there is one."""
        claims: dict[str, Any] = {
            "iss": audience, "aud": audience, "sub": client_id, "client_id": client_id, "scope": text_of(scopes),
            "iat": now, "exp": now + seconds, "jti": secrets.token_hex(8),
        }  # fmt: skip
        if fingerprint:
            claims["cnf"] = {"x5t#S256": _thumbprint(fingerprint)}
        return jwt.encode(claims, self._key, _OWN_ALGORITHM, headers={"typ": _OWN_TYPE})

    def read(self, token: str, audience: str, now: float) -> Claims | str:
        """What a token says that we gave, for this audience and for now; else why it is none."""
        if not token or len(token) > TOKEN_BYTES_MAX or not token.isascii():
            return "it is empty, too long or no token"
        try:
            said: dict[str, Any] = jwt.decode(token, self._key, algorithms=[_OWN_ALGORITHM], options=_SIGNATURE_ALONE)
            is_ours = jwt.get_unverified_header(token).get("typ") == _OWN_TYPE
        except (ValueError, PyJWTError, RecursionError):
            return "the gateway did not give it, or was started anew since"
        if not is_ours or said.get("aud") != audience:
            return "it is for somebody else"
        if now >= said["exp"]:
            return "it has expired"
        bound = said.get("cnf", {}).get("x5t#S256", "")
        return Claims(said["client_id"], scopes(said["scope"]), _fingerprint(bound) if bound else "")


_OWN_ALGORITHM = "HS256"
"""Made and checked with the same key by the same process. What others sign is never checked by it."""
_OWN_TYPE = "at+jwt"


def _thumbprint(fingerprint: str) -> str:
    """As RFC 8705 3.1 has a certificate."""
    return base64.urlsafe_b64encode(bytes.fromhex(fingerprint)).rstrip(b"=").decode()


def _fingerprint(thumbprint: str) -> str:
    return base64.urlsafe_b64decode(thumbprint + "=").hex()


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """An HTTP answer of the token endpoint."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def given(token: str, seconds: int, scopes: Iterable[Scope]) -> TokenAnswer:
    """The token, for so many seconds and these scopes."""
    return _answer(200, {
        "access_token": token, "token_type": "bearer", "expires_in": seconds, "scope": text_of(scopes),
    })  # fmt: skip


def refused(error: TokenError) -> TokenAnswer:
    """Why there is none (RFC 6749 5.2)."""
    said = {"error": error.error, "error_description": _DESCRIPTION.sub("'", error.text)}
    return _answer(error.status, said, error.headers)


_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


def _answer(status: int, said: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> TokenAnswer:
    fixed = {"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"}
    return TokenAnswer(status, {**fixed, **(headers or {})}, json.dumps(said).encode())
