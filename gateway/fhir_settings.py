"""The settings of FHIR: our own server, who may call it, the servers orders are fetched from.

What may live here: models of `fhir:` in `gateway.yaml`, checked as far as this part can be checked by itself.
"""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.domain.access import is_this_machine
from gateway.domain.scopes import scope
from gateway.security_settings import CertificateRules, Networks
from gateway.setting_types import Name
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import IMAGING_CATEGORIES
from gateway.yaml_files import Strict


def _http_url(said: str) -> str:
    parts = urlsplit(said)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.port == 0:
        raise ValueError(f"{said!r} is no http:// or https:// address without query and fragment")
    return said.rstrip("/")


HTTPAddress = Annotated[str, AfterValidator(_http_url)]


def _scope(said: str) -> str:
    if scope(said) is None:
        raise ValueError(f"{said!r} is no scope such as system/ServiceRequest.cruds or system/*.read")
    return said


Scope = Annotated[str, AfterValidator(_scope)]
"""A scope of SMART 2 (`system/ServiceRequest.cruds`) or 1 (`system/ServiceRequest.write`)."""


class FHIRClientSettings(Strict):
    """A system that may call our FHIR server: by tokens of SMART Backend Services, by its certificate, or by both."""

    name: Name = Field(description="names it in the archive and the logs")
    client_id: str = Field("", max_length=256, description="what it calls itself; empty: it comes by certificate only")
    jwks: str = Field("", description="its public keys: a file (.json), or an https:// address that it publishes")
    jwks_ca: str = Field("", description="file of the certificates (PEM) that sign that address; empty: those of `tls`")
    certificates: CertificateRules = Field(
        (), description="what its TLS certificate must be one of: sha256:, subject: or name:; alone in place of a token"
    )
    addresses: Networks = Field((), description="addresses or networks it calls from; empty: any")
    scopes: tuple[Scope, ...] = Field(
        ("system/*.cruds",), description="all that it may do, as in system/ServiceRequest.cruds"
    )
    notify: tuple[HTTPAddress, ...] = Field(
        (), description="addresses that its Subscriptions may name, or begin with; empty: any https:// address of the "
        "Internet, and none of the own network"
    )  # fmt: skip

    @model_validator(mode="after")
    def _proves_itself(self) -> Self:
        if bool(self.client_id) != bool(self.jwks):
            raise ValueError("a client with a `client_id` has `jwks`, and the other way round")
        if not self.client_id and not self.certificates:
            raise ValueError("say how it proves who it is: `client_id` and `jwks`, or `certificates`")
        return self


FETCHING = "system/*.rs"
"""What has to be granted where resources are read and searched for."""
SUBSCRIBING = f"{FETCHING} system/Subscription.crus"
"""Where a Subscription of ours is made as well, kept alive and changed."""
WRITING = "system/*.crus"
"""Where status is written: each change is of what was read before, and some are of what a search finds."""


class FHIRCredentials(Strict):
    """How we prove who we are to another FHIR server: SMART Backend Services."""

    client_id: str = Field(min_length=1, description="what that server calls us")
    key: str = Field(description="file of our private key (PEM or JWK), RSA or EC P-384")
    key_id: str = Field("", description="`kid` of that key; empty: its thumbprint (RFC 7638)")
    token_url: HTTPAddress | Literal[""] = Field(
        "", description="where tokens are given; empty: as its .well-known/smart-configuration says"
    )
    scope: str = Field(
        "", description=f"what is asked for, scopes with blanks between; empty: {FETCHING} to fetch, {SUBSCRIBING} "
        f"where a subscription is made there as well, {WRITING} to write status (destinations)"
    )  # fmt: skip


class FHIRTLS(Strict):
    """TLS on the way to another FHIR server."""

    ca: str = Field("", description="file of the certificates (PEM) that sign its own; empty: those of the machine")
    crl: str = Field("", description="file of revocation lists (PEM) of those; empty: revocation is not checked")
    certificate: str = Field("", description="file of our certificate (PEM), for servers that ask for one")
    key: str = Field("", description="file of its private key (PEM)")


class PollSettings(Strict):
    """Asking another server again and again for what has changed."""

    every_s: float = Field(60, ge=1, le=86_400, description="seconds between two looks")
    overlap_s: float = Field(
        120, ge=0, le=86_400, description="seconds that each look goes back behind the last one: more than the clocks "
        "of that server's parts differ"
    )  # fmt: skip
    page: int = Field(100, ge=1, le=1000, description="_count of a page")
    pages_max: int = Field(1000, ge=1, le=100_000, description="pages of one look, more are taken by the next one")
    search: tuple[str, ...] = Field(
        (
            "ServiceRequest?category=http://snomed.info/sct|363679005&_include=ServiceRequest:subject"
            "&_include=ServiceRequest:requester&_include=ServiceRequest:encounter",
        ),
        min_length=1,
        description="searches, each TYPE?parameters; _lastUpdated, _sort and _count are put to them",
    )


class SubscriptionSettings(Strict):
    """Being told by another server what has changed."""

    criteria: str = Field(
        "ServiceRequest?category=http://snomed.info/sct|363679005",
        description="search (R4) of what is wanted; with `topic` the filters, as ServiceRequest?category=...",
    )
    topic: str = Field("", description="canonical URL of a SubscriptionTopic: R5, or the backport for R4 and R4B")
    content: Literal["empty", "id-only", "full-resource"] = Field("id-only", description="what notifications hold")
    secret: str = Field(
        "", description="what the server sends with each notification as Authorization: Bearer; write ${NAME} to take "
        "it from the environment; empty: one is made at each start", repr=False,
    )  # fmt: skip
    client: Name | Literal[""] = Field(
        "", description="name in `clients`: the server may also notify us with its proof in place of the secret"
    )
    heartbeat_s: int = Field(300, ge=0, le=86_400, description="seconds between two heartbeats, 0: none")
    register_there: bool = Field(True, description="whether the Subscription is created there; false: somebody did")


class FHIRFeedSettings(Strict):
    """Another FHIR server from which orders are fetched."""

    name: Name = Field(description="names it in the archive, the history of steps and the logs")
    url: HTTPAddress = Field(description="its base address, such as https://emr.hospital.example/fhir")
    release: Release = Field(Release.R4, description="the release it speaks: R4, R4B or R5")
    mapping: Name | Literal[""] = Field("", description="rule set in mappings/fhir; empty: that of our own server")
    issuer: str = Field("", description="authority of identifiers that name none; empty: as our own server has it")
    site: str = Field("", description="whose orders these are, where one gateway serves several sites")
    poll: PollSettings | None = Field(None, description="ask again and again")
    subscription: SubscriptionSettings | None = Field(None, description="be told")
    credentials: FHIRCredentials | None = Field(None, description="SMART Backend Services; empty: none are asked for")
    tls: FHIRTLS = FHIRTLS()
    timeout_s: float = Field(30, gt=0, le=600, description="for any one answer")

    @property
    def needed_scope(self) -> str:
        """What has to be granted there, for fetching and for making the subscription."""
        return SUBSCRIBING if self.subscription is not None and self.subscription.register_there else FETCHING


class FHIRLimitsSettings(Strict):
    """How much one request may hold. What goes beyond is refused in words."""

    body_bytes_max: int = Field(16 * 1_048_576, ge=1024, le=256 * 1_048_576, description="longest body taken")
    depth_max: int = Field(40, ge=8, le=200, description="elements inside each other")
    entries_max: int = Field(1000, ge=1, le=100_000, description="entries of one Bundle")
    page_max: int = Field(500, ge=1, le=10_000, description="most resources on one page of a search")
    requests_per_s: float = Field(0, ge=0, description="requests of one client a second, more get 429; 0: any number")


class FHIRSettings(Strict):
    """Our FHIR server, below /fhir of `http`, and the servers that orders are fetched from."""

    release: Release = Field(
        Release.R4, description="what /fhir itself is; /fhir/r4, /fhir/r4b and /fhir/r5 are always"
    )
    mapping: Name = Field("imaging-order", description="rule set in mappings/fhir that reads R4 and R4B")
    mapping_r5: Name = Field("imaging-order-r5", description="rule set in mappings/fhir that reads R5")
    url: HTTPAddress | Literal[""] = Field(
        "", description="base address as others see it, such as https://gateway.hospital.example/fhir; empty: as each "
        "caller names it, from which clients with keys get tokens on this machine alone"
    )  # fmt: skip
    images: HTTPAddress | Literal[""] = Field(
        "", description="base address of the archive by DICOMweb, told with each ImagingStudy; empty: none is told"
    )
    issuer: str = Field("", description="authority of identifiers that name none")
    site: str = Field("", description="whose orders these are, where one gateway serves several sites")
    uncovered: Literal["refuse", "hold"] = Field("refuse", description="an order that no procedure rule completes")
    cancel_started: Literal["refuse", "discontinue"] = Field(
        "discontinue", description="an order that is revoked after the start"
    )
    categories: tuple[str, ...] = Field(
        IMAGING_CATEGORIES,
        description="categories of orders for imaging, SYSTEM|CODE or CODE; one of another is kept and not scheduled, "
        "one without a category counts as imaging",
    )  # fmt: skip
    clients: tuple[FHIRClientSettings, ...] = ()
    token_s: int = Field(300, ge=30, le=300, description="seconds for which a token of ours holds")
    limits: FHIRLimitsSettings = FHIRLimitsSettings()
    feeds: tuple[FHIRFeedSettings, ...] = ()
    notify_tls: FHIRTLS = Field(FHIRTLS(), description="TLS on the way to those who subscribed with our server")

    @property
    def asks_for_proof(self) -> bool:
        """Whether everybody has to prove who it is, programs on this machine as well. Without clients nobody can; where
        others see the server (`url`), what a proxy here passes on would else count as this machine's own."""
        return bool(self.clients) or not is_this_machine(urlsplit(self.url or "http://localhost").hostname or "")

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        for what, names in (("clients", [each.name for each in self.clients]),
                            ("feeds", [each.name for each in self.feeds])):  # fmt: skip
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} share a name")
        ids = [each.client_id for each in self.clients if each.client_id]
        if len(set(ids)) < len(ids):
            raise ValueError("two clients share a client_id")
        reserved = {release.base for release in Release} | {"fhir"}
        taken = next((each.name for each in self.feeds if each.name in reserved), "")
        if taken:
            raise ValueError(f"feeds: {taken!r} is a name of our own server")
        return self
