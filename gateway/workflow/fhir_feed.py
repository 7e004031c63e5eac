"""How FHIR of one source is read: everything about a sender that is not in its resources."""

from collections import abc
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any

from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.mapping import Mapping
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_source import Reading
from gateway.workflow.audience import NOBODY, Audience, MessageSource
from gateway.workflow.circumstances import Circumstances

OUR_SERVER = "fhir"
"""The feed of our own server; the others have the names that the settings give them."""


@dataclass(frozen=True, slots=True)
class FHIRFeed:
    """A way of reading FHIR.

    `mappings` read the resources of each release. `issuer` is the authority of identifiers that name none, `server` the
    base URL that absolute references to its own resources begin with ('' where nobody knows), `department` the wall
    clock of scheduled times. `categories` are those of orders for imaging (SYSTEM|CODE or CODE).
    """

    name: str
    mappings: abc.Mapping[Release, Mapping] = field(repr=False)
    mint: Mint = field(repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)
    issuer: str = ""
    site: str = ""
    department: tzinfo = UTC
    server: str = ""
    categories: tuple[str, ...] = ()
    hold_uncovered: bool = False
    discontinue_started: bool = True
    audience: Audience = field(default=NOBODY, repr=False)
    others: abc.Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The site's feeds of HL7 v2 by name: a message that came early by one of them is read as that one reads."""

    def mapping(self, release: Release) -> Mapping:
        """The rule set that reads resources of this release."""
        return self.mappings[release]

    def source(self, release: Release) -> str:
        """Whose name space the ids of resources are of."""
        return release.base if self.name == OUR_SERVER else self.name

    def bases(self, release: Release) -> tuple[str, ...]:
        """The URLs that stand before references to its own resources. Our server has one for each release."""
        if not self.server:
            return ()
        return (f"{self.server}/{release.base}", self.server) if self.name == OUR_SERVER else (self.server,)

    def reading(self, release: Release) -> Reading:
        """What documents are made by."""
        return Reading(release, self.categories, self.issuers)

    def circumstances(self, cause: str, stamp: Stamp, client: str) -> Circumstances:
        """How the events of one request are applied. `client` is who sent it."""
        return Circumstances(
            cause,
            self.mint,
            self.issuers,
            self.issuer,
            site=self.site,
            stamp=stamp,
            discontinue_started=self.discontinue_started,
            audience=self.audience,
            zone=self.department,
            said_by=MessageSource(self.name, client),
        )
