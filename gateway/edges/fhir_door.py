"""The door of our FHIR server: who asks, what of it is known, and whether that may be done.

What may live here: admitting or turning away one HTTP request, by a token of ours, by a certificate, or on loopback.
Tokens are given by `smart_tokens`. Nothing here reads a body but that of a token request.

    fhir_caller_denied   reason, client (its name in the settings), remote_host, method, text

Neither the log nor an answer says anything that stood in a token, an assertion or a query.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.types import Scope as ASGIScope

from gateway.domain.access import Certificate, certificate_rule, fits, in_networks, is_this_machine, network_of
from gateway.domain.rates import Rates
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.scopes import ANY_TYPE, LETTERS, Scope, granted, permits, scopes, text_of
from gateway.edges.flood import Flood
from gateway.edges.metrics import Tally
from gateway.edges.own_site import Fault, loopback_fault, page_fault
from gateway.edges.smart_client_keys import ClientKeys
from gateway.edges.smart_tokens import (
    AccessTokens,
    Asked,
    AssertionChecks,
    TokenAnswer,
    TokenError,
    given,
    refused,
    request_of,
)
from gateway.fhir_settings import FHIRClientSettings, FHIRSettings
from gateway.smart_keys import ASSERTION_ALGORITHMS
from gateway.workflow.audience import ON_LOOPBACK

REALM = "fhir"
TOKENS_PER_S = 10
"""Token requests of one address a second, more get 429: each costs a signature check, and a client needs one in five
minutes."""

_EVERYTHING = (Scope(ANY_TYPE, LETTERS),)
_CERTIFICATE = "certificate"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Knock:
    """What is known of a request before its body is read. Names of headers are in lower case.

    `certificate` is what the caller showed and TLS verified; `encrypted` says that it came by TLS, or through a proxy
    on this machine that says so.
    """

    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    peer: str = ""
    encrypted: bool = False
    certificate: Certificate | None = None

    @classmethod
    def of(cls, scope: ASGIScope) -> "Knock":
        """The request of this ASGI scope; what listens puts the certificate into its state."""
        client = scope.get("client")
        return cls(
            scope["method"],
            scope["path"],
            scope.get("query_string", b"").decode("latin-1"),
            [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
            client[0] if client else "",
            scope.get("scheme") == "https",
            scope.get("state", {}).get(_CERTIFICATE),
        )

    def all_of(self, name: str) -> list[str]:
        """Every value of this header."""
        return [value for header, value in self.headers if header == name]


@dataclass(frozen=True, slots=True)
class Authorised:
    """Who asks (its name in the settings), and what it may do by the scopes of its token, or of the settings."""

    client: str
    scopes: tuple[Scope, ...] = _EVERYTHING

    def may(self, resource_type: str, letters: str) -> bool:
        """Whether all of these letters (`domain.scopes.LETTERS`) are permitted for this type; `*`: for every type."""
        return permits(self.scopes, resource_type, letters)


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a request is not answered: HTTP status, headers that go with it, and words for an OperationOutcome."""

    status: int
    refusal: Refusal
    headers: Mapping[str, str] = field(default_factory=dict)


class Reason(StrEnum):
    """Why a request is turned away, as metrics and log have it."""

    NO_PROOF = "fhir no proof"
    API_KEY = "fhir api key"
    TOKEN = "fhir token"  # noqa: S105  (a word)
    CERTIFICATE = "fhir certificate"
    ADDRESS = "fhir address"
    PLAIN = "fhir plain"
    PAGE = "fhir page"
    RATE = "fhir rate"
    SCOPE = "fhir scope"
    ASSERTION = "fhir assertion"
    NOTIFICATION = "fhir notification"


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What the door goes by: the settings, the folder that paths in them are relative to, whether the server listens on
    loopback alone, and the file of authorities (PEM) of the whole gateway, '' for those of the machine."""

    fhir: FHIRSettings
    folder: Path
    loopback: bool
    ca: str = ""


class Door:
    """Admits requests by the settings as they are now. For one event loop."""

    def __init__(
        self,
        settings: DoorSettings,
        tally: Tally,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds of the epoch, `monotonic` seconds that only grow."""
        self._tally, self._clock, self._monotonic = tally, clock, monotonic
        self._tokens = AccessTokens()
        self._checks = AssertionChecks(started_at=clock())
        self._knocks = Rates(TOKENS_PER_S)
        self._flood = Flood()
        self._rates = Rates(0)
        self._keys: dict[FHIRClientSettings, ClientKeys] = {}
        self.serve(settings)

    def serve(self, settings: DoorSettings) -> None:
        """Go by these from now on. Assertions that were used stay so, and tokens hold for the clients that are left;
        keys that have not moved are not fetched anew."""
        self._settings = settings
        limit = settings.fhir.limits.requests_per_s
        if limit != self._rates.per_s:
            self._rates = Rates(limit)
        before = self._keys
        self._keys = {}
        for client in settings.fhir.clients:
            if client.client_id:
                keys = before.get(client)
                is_same = keys is not None and keys.comes_from(settings.folder, settings.ca)
                self._keys[client] = keys if keys is not None and is_same else ClientKeys(
                    client, settings.folder, settings.ca, self._monotonic
                )  # fmt: skip

    async def close(self) -> None:
        """Tell what the log has not been told."""
        self._flood.flush()

    # --- requests ---------------------------------------------------------------------------------------------------

    def admit(self, knock: Knock) -> Authorised | TurnedAway:
        """Who asks, or why it is not answered. What it may do is asked of `Authorised.may` or `forbidden`."""
        found = self._proved(knock)
        if isinstance(found, TurnedAway):
            return found
        if not self._rates.allows(found.client, self._monotonic()):
            wait_s = ceil(1 / self._rates.per_s)
            return self._turned(
                knock, Reason.RATE, 429, "it asks more often than it may (fhir.limits.requests_per_s)",
                f"ask again in {wait_s} s", found.client, {"Retry-After": str(wait_s)}, RefusalKind.TRANSIENT,
            )  # fmt: skip
        return found

    def forbidden(self, knock: Knock, who: Authorised, resource_type: str, letters: str) -> TurnedAway | None:
        """Why this may not be done to resources of this type; None: it may."""
        if who.may(resource_type, letters):
            return None
        is_type = resource_type.isascii() and resource_type.isalpha()  # it stands in an address, and goes into a header
        wanted = Scope(resource_type if is_type else ANY_TYPE, letters)
        return self._turned(
            knock, Reason.SCOPE, 403, f"that needs the scope {wanted}; granted is {text_of(who.scopes) or 'nothing'}",
            "ask for a token with it; where it is not given, the gateway's fhir.clients.scopes does not allow it",
            who.client, {"WWW-Authenticate": f'Bearer realm="{REALM}", error="insufficient_scope", scope="{wanted}"'},
        )  # fmt: skip

    def notifier(self, knock: Knock, knows: Callable[[str], bool] | None, client: str) -> TurnedAway | None:
        """Why a notification of another server is not taken; None: it is.

        `knows` says whether an Authorization header has the secret that was agreed on, None where there is no such
        feed; `client` is the client of ours that this server may prove itself as instead, '' for none.
        """
        said = knock.all_of("authorization")
        if knows is not None and len(said) == 1 and knows(said[0]):
            if self._travels_in_clear(knock):
                return self._turned(knock, Reason.PLAIN, 403, _IN_CLEAR.text, _IN_CLEAR.hint)
            return None
        if client:
            who = self._proved(knock)
            if isinstance(who, TurnedAway):
                return who
            if who.client == client:
                return None
        return self._turned(
            knock, Reason.NOTIFICATION, 401, "this is not the server that was asked to notify us",
            "send Authorization: Bearer with the secret of the feed (fhir.feeds.subscription)", "", _challenge(),
        )  # fmt: skip

    def _proved(self, knock: Knock) -> Authorised | TurnedAway:
        """By the first proof that the request brings; one that is wrong is not made good by another."""
        fault = _api_key(knock)
        if fault is not None:
            return self._turned(knock, Reason.API_KEY, 401, fault.text, fault.hint, "", _challenge())
        said = knock.all_of("authorization")
        if said:
            return self._by_token(knock, said)
        if knock.certificate is not None:
            client = next((each for each in self._settings.fhir.clients
                           if not each.client_id and _certificate_fits(each, knock.certificate)), None)  # fmt: skip
            if client is not None:
                fault = page_fault(dict(knock.headers))
                if fault is not None:
                    return self._turned(knock, Reason.PAGE, 403, fault.text, fault.hint, client.name)
                return self._misplaced(knock, client) or Authorised(client.name, _scopes_of(client))
        return self._without_proof(knock)

    def _without_proof(self, knock: Knock) -> Authorised | TurnedAway:
        fhir = self._settings.fhir
        if fhir.asks_for_proof or not self._settings.loopback:
            why = "nothing here is open without authentication"
            if knock.certificate is not None:
                why = "no client of the gateway's fhir.clients is let in by the certificate that was shown alone"
            return self._turned(
                knock, Reason.NO_PROOF, 401, why, "send Authorization: Bearer with a token that POST /fhir/token gives "
                "(SMART Backend Services), or call with a client certificate over TLS", "", _challenge(),
            )  # fmt: skip
        fault = loopback_fault(knock.peer, dict(knock.headers))
        if fault is not None:
            return self._turned(knock, Reason.PAGE, 403, fault.text, fault.hint)
        return Authorised(ON_LOOPBACK)

    def _by_token(self, knock: Knock, said: Sequence[str]) -> Authorised | TurnedAway:
        token = said[0].partition(" ")[2].strip()
        if len(said) > 1:
            return self._bad_token(knock, "there are several Authorization headers")
        if self._travels_in_clear(knock):
            return self._turned(knock, Reason.PLAIN, 403, _IN_CLEAR.text, _IN_CLEAR.hint)
        claims = self._tokens.read(token, self._audience, self._clock())
        if isinstance(claims, str):
            return self._bad_token(knock, claims)
        client = self._client(claims.client_id)
        if client is None:
            return self._bad_token(knock, "its client is none of the gateway's fhir.clients any more")
        if claims.fingerprint and (knock.certificate is None or knock.certificate.fingerprint != claims.fingerprint):
            return self._bad_token(knock, "it is bound to the certificate it was given with, and another or none came",
                                   client.name)  # fmt: skip
        return self._misplaced(knock, client) or Authorised(client.name, granted(claims.scopes, _scopes_of(client)))

    def _misplaced(self, knock: Knock, client: FHIRClientSettings) -> TurnedAway | None:
        """Turn away one that comes from elsewhere, or without the certificate, that it is bound to."""
        strange = _strange(knock, client)
        if strange is None:
            return None
        return self._turned(knock, strange.reason, 403, strange.fault.text, strange.fault.hint, client.name)

    def _bad_token(self, knock: Knock, why: str, client: str = "") -> TurnedAway:
        return self._turned(
            knock, Reason.TOKEN, 401, f"the token is not taken: {why}", "ask POST /fhir/token for a new one", client,
            _challenge("invalid_token", why),
        )  # fmt: skip

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def token(self, knock: Knock, body: bytes) -> TokenAnswer:
        """The answer to `POST /fhir/token` with this body."""
        try:
            return await self._token(knock, body)
        except TokenError as error:
            reason = Reason.RATE if error.status == 429 else Reason.ASSERTION
            self._told(knock, reason, error.text, error.client)
            return refused(error)

    async def _token(self, knock: Knock, body: bytes) -> TokenAnswer:
        if not self._knocks.allows(knock.peer, self._monotonic()):
            raise TokenError("temporarily_unavailable", "too many token requests from this address", 429,
                             headers={"Retry-After": "1"})  # fmt: skip
        if self._travels_in_clear(knock):
            raise TokenError("invalid_request", f"{_IN_CLEAR.text}: {_IN_CLEAR.hint}", 403)
        asked = request_of(body, knock.all_of("content-type"), knock.all_of("authorization"))
        client = await self._client_of(knock, asked)
        strange = _strange(knock, client)
        if strange is not None:
            raise TokenError("invalid_client", f"{strange.fault.text}: {strange.fault.hint}", client=client.name)
        self._checks.use(asked.assertion, self._clock(), client.name)
        allowed = granted(scopes(asked.scope), _scopes_of(client))
        if not allowed:
            raise TokenError(
                "invalid_scope",
                f"none of the scopes is for this client, which may have {text_of(_scopes_of(client))}",
                client=client.name,
            )
        seconds = self._settings.fhir.token_s
        fingerprint = knock.certificate.fingerprint if knock.certificate is not None else ""
        issued = self._tokens.issue(
            client.client_id, allowed, self._audience, fingerprint, int(self._clock()), seconds
        )  # fmt: skip
        return given(issued, seconds, allowed)

    async def _client_of(self, knock: Knock, asked: Asked) -> FHIRClientSettings:
        """The client whose assertion it is, all of it checked but whether it was used before. Raises TokenError."""
        client = self._client(asked.assertion.issuer)
        if client is None:
            raise TokenError("invalid_client", "no client of the gateway has this client_id (iss)")
        if asked.client_id not in ("", client.client_id):
            raise TokenError("invalid_client", "client_id is not that of the assertion", client=client.name)
        keys = await self._keys[client].keys(asked.assertion.key_id)
        self._checks.check(asked.assertion, client, keys, self._token_urls(knock), self._clock())
        return client

    def _client(self, client_id: str) -> FHIRClientSettings | None:
        return next((each for each in self._keys if each.client_id == client_id), None)

    @property
    def _audience(self) -> str:
        return self._settings.fhir.url or REALM

    def _travels_in_clear(self, knock: Knock) -> bool:
        """Whether others on the way can read along. Where others reach us by https:// and this comes without, a proxy
        in front of us has taken TLS off."""
        return not (knock.encrypted or is_this_machine(knock.peer) or self._settings.fhir.url.startswith("https://"))

    def _token_urls(self, knock: Knock) -> tuple[str, ...]:
        """What assertions may be for. Host says what its sender likes, and would let in those for other servers: where
        the settings have no address of ours it counts only if it names this machine."""
        base = self.base_of(knock)
        try:
            named = bool(self._settings.fhir.url) or is_this_machine(urlsplit(base).hostname or "")
        except ValueError:
            named = False
        return (f"{base}/token",) if named else ()

    def base_of(self, knock: Knock) -> str:
        """The address of /fhir as it is configured, else as it was called: without a slash at its end."""
        if self._settings.fhir.url:
            return self._settings.fhir.url
        host = next(iter(knock.all_of("host")), "")
        return f"{'https' if knock.encrypted else 'http'}://{host}/fhir"

    def configuration(self, knock: Knock) -> dict[str, Any]:
        """`.well-known/smart-configuration`, the same below each base."""
        return {
            "token_endpoint": f"{self.base_of(knock)}/token",
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
            "grant_types_supported": ["client_credentials"],
            "scopes_supported": [f"system/*.{LETTERS}", "system/*.rs", "system/*.read", "system/*.write"],
            "code_challenge_methods_supported": ["S256"],  # required of every server, also where nobody signs in
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
            "tls_client_certificate_bound_access_tokens": True,
        }

    # --- telling ----------------------------------------------------------------------------------------------------

    def _turned(
        self,
        knock: Knock,
        reason: Reason,
        status: int,
        text: str,
        hint: str,
        client: str = "",
        headers: Mapping[str, str] | None = None,
        kind: RefusalKind | None = None,
    ) -> TurnedAway:
        self._told(knock, reason, text, client)
        kind = kind or (RefusalKind.NOT_PROVEN if status == 401 else RefusalKind.NOT_AUTHORISED)
        return TurnedAway(status, Refusal(kind, "", text, hint), headers or {})

    def _told(self, knock: Knock, reason: Reason, text: str, client: str) -> None:
        self._tally.caller_denied(reason.value)
        if self._flood.lets("fhir_caller_denied", reason.value):
            _log.warning(
                "fhir_caller_denied", reason=reason.value.removeprefix("fhir "), client=client, remote_host=knock.peer,
                method=knock.method, text=text,
            )  # fmt: skip


_IN_CLEAR = Fault("tokens travel over TLS alone", "call https://, or say fhir.url where a proxy speaks TLS for us")


def _challenge(error: str = "", description: str = "") -> Mapping[str, str]:
    """WWW-Authenticate by RFC 6750 3: without an error where nothing was shown."""
    said = f', error="{error}", error_description="{description}"' if error else ""
    return {"WWW-Authenticate": f'Bearer realm="{REALM}"{said}'}


_KEYS_IN_HEADERS = ("x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token")
_KEYS_IN_QUERIES = frozenset(("apikey", "api_key", "api-key", "access_token"))


def _api_key(knock: Knock) -> Fault | None:
    """Whether it comes with an API key or a password: whoever reads one once has it for good."""
    hint = "register a key pair (fhir.clients with `jwks`) and ask POST /fhir/token, or use a client certificate"
    if any(knock.all_of(name) for name in _KEYS_IN_HEADERS):
        return Fault("API keys are not taken", hint)
    for said in knock.all_of("authorization"):
        scheme = said.partition(" ")[0].lower()
        if scheme != "bearer":
            what = "passwords (Basic)" if scheme == "basic" else "API keys"
            return Fault(f"{what} are not taken, only Authorization: Bearer", hint)
    names = {each.partition("=")[0].lower() for each in knock.query.split("&")}
    if names & _KEYS_IN_QUERIES:
        return Fault("neither API keys nor tokens are taken from the query, where logs would keep them", hint)
    return None


@dataclass(frozen=True, slots=True)
class _Strange:
    reason: Reason
    fault: Fault


def _strange(knock: Knock, client: FHIRClientSettings) -> _Strange | None:
    """Whether it does not come as this client is bound to come: from its addresses, with its certificate."""
    if client.addresses and not in_networks(knock.peer, [network_of(each) for each in client.addresses]):
        return _Strange(Reason.ADDRESS, Fault(
            f"{client.name} calls from an address that is not its own",
            "see fhir.clients.addresses of the gateway; behind a proxy it is the proxy's",
        ))  # fmt: skip
    if client.certificates and not _certificate_fits(client, knock.certificate):
        return _Strange(Reason.CERTIFICATE, Fault(
            f"{client.name} has to come with its own TLS certificate as well",
            "see fhir.clients.certificates of the gateway",
        ))  # fmt: skip
    return None


def _certificate_fits(client: FHIRClientSettings, certificate: Certificate | None) -> bool:
    return any(fits(certificate_rule(each), certificate) for each in client.certificates)


def _scopes_of(client: FHIRClientSettings) -> tuple[Scope, ...]:
    return scopes(" ".join(client.scopes))
