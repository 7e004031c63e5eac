"""Who is told what: the destinations of a site, as the use cases that cause messages need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from gateway.domain.access import is_public
from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.report import Header, Report
from gateway.domain.scopes import Scope, permits
from gateway.wire.fhir_release import Release

ON_LOOPBACK = "loopback"
"""What a program on this machine is called that needs no proof."""


class Outbound(Protocol):
    """An outbound mapping."""

    @property
    def about(self) -> str:
        """What one message is about: `order`, `procedure` or `patient`."""

    @property
    def name(self) -> str:
        """The mapping with its version, for the archive."""

    def message(self, report: Report, header: Header) -> bytes:
        """The HL7 v2 message that tells the report. Raises Refused where a value that it needs is lacking."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How HL7 v2 messages to one destination are written."""

    mapping: Outbound = field(repr=False)
    header: Header = field(default_factory=Header, repr=False)

    def message(self, report: Report, control_id: str, at: datetime) -> bytes:
        """The report as a message with this MSH-10, of this time on the department's wall clock. Raises Refused."""
        return self.mapping.message(report, replace(self.header, control_id=control_id, at=at))


class MessageSource(NamedTuple):
    """Whose a received message is: the listener that it came by, and MSH-3."""

    listener: str = ""
    application: str = ""


NO_MESSAGE = MessageSource()


@dataclass(frozen=True, slots=True)
class StatusTarget:
    """A destination that is told how orders get on (RAD-3). `tells` are ORC-1 and ORC-5; what is not there is not told.

    `sites` are the sites whose orders it is told of; none means every site's. `listeners` are those by which it speaks
    itself (None: all of them), `application` is its MSH-3: what its own messages say of orders is not told back to it.
    """

    destination: str
    writing: Writing = field(repr=False)
    tells: Mapping[Progress, tuple[str, str]] = field(default_factory=lambda: STATUS_TOLD)
    sites: frozenset[str] = frozenset()
    listeners: frozenset[str] | None = None
    application: str = ""

    def said_itself(self, source: MessageSource) -> bool:
        """Whether a message of this source is its own."""
        spoke = self.listeners is None or source.listener in self.listeners
        return spoke or (bool(self.application) and source.application == self.application)


@dataclass(frozen=True, slots=True)
class PassOnTarget:
    """A destination that gets what listeners receive and accept: as it came, or written anew by a mapping.

    `types` are message types as `ADT` or `ORM^O01`, `listeners` names of listeners; none of either means all.
    """

    destination: str
    writing: Writing | None = field(default=None, repr=False)
    types: frozenset[str] = frozenset()
    listeners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PerformedTarget:
    """A DICOM destination that gets performed steps (RAD-6, RAD-7): as received, coerced, or as events (PS3.4 F.9)."""

    destination: str
    sends: Literal["received", "coerced", "events"] = "received"


@dataclass(frozen=True, slots=True)
class FHIRWriting:
    """How status is said in FHIR. `systems` are the identifier systems of issuers, by the registry's names of them.

    `endpoint` is where the images are by DICOMweb, '' where that is not to be said; `gateway` is our AE title;
    `schemes` are the systems of the site's own coding schemes, by designator.
    """

    release: Release = Release.R4
    systems: Mapping[str, str] = field(default_factory=dict, repr=False)
    endpoint: str = ""
    gateway: str = ""
    schemes: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class FHIRTarget:
    """A FHIR server that is told how orders get on. `resources` are the types that are written there.

    `feed` is the feed by which its own orders come, '' where they come by another way: what it says of them itself is
    not told back to it. `tells` and `sites` are as of a `StatusTarget`.
    """

    destination: str
    writing: FHIRWriting = field(repr=False)
    resources: frozenset[str]
    feed: str = ""
    tells: frozenset[Progress] = frozenset(Progress)
    sites: frozenset[str] = frozenset()


class Reach(StrEnum):
    """Where notifications may be sent."""

    NOWHERE = "nowhere"
    PUBLIC = "to addresses of the Internet alone"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True)
class Audience:
    """All of them. `offered` says how our own FHIR server offers status; None where it offers none."""

    status: tuple[StatusTarget, ...] = ()
    passed_on: tuple[PassOnTarget, ...] = ()
    performed: tuple[PerformedTarget, ...] = ()
    fhir: tuple[FHIRTarget, ...] = ()
    offered: FHIRWriting | None = None
    readers: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)
    """What clients of our FHIR server may do, by their names; nobody: whoever reaches it may do everything."""

    notified: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where their Subscriptions may have notifications sent: beginnings of addresses, by the names of clients."""

    def knows(self, client: str) -> bool:
        """Whether there is such a client of our FHIR server now. Where nobody has to prove who it is, only programs on
        this machine call: they are the one client then, and those that proved themselves before are gone."""
        return client in self.readers or (not self.readers and client in ("", ON_LOOPBACK))

    def reach(self, client: str, endpoint: str) -> Reach:
        """Whether a client's Subscription may have notifications sent there. `endpoint` is an address.

        Programs on this machine reach everything themselves.
        """
        if not self.knows(client):
            return Reach.NOWHERE
        allowed = self.notified.get(client, ())
        if not self.readers or any(_begins_with(endpoint, each) for each in allowed):
            return Reach.ANYWHERE
        if allowed or not _may_be_public(endpoint):
            return Reach.NOWHERE
        return Reach.PUBLIC

    def may_read(self, client: str, resource_type: str) -> bool:
        """Whether a client of our FHIR server may read resources of this type."""
        return self.knows(client) and (not self.readers or permits(self.readers[client], resource_type, "r"))

    @property
    def by_fhir(self) -> bool:
        """Whether anybody learns status by FHIR."""
        return bool(self.fhir or self.offered)

    @property
    def told(self) -> bool:
        """Whether anybody learns how orders get on."""
        return bool(self.status or self.by_fhir)


def _begins_with(endpoint: str, allowed: str) -> bool:
    """Whether an address is on the same server as the allowed one, and its path the same or below."""
    one, two = urlsplit(endpoint), urlsplit(allowed)
    if (one.scheme, one.netloc.lower()) != (two.scheme, two.netloc.lower()):
        return False
    steps = unquote(one.path).replace("\\", "/").split("/")
    below = two.path.rstrip("/")
    return ".." not in steps and (one.path == below or one.path.startswith(f"{below}/"))


def _may_be_public(endpoint: str) -> bool:
    """Whether it is https:// to a host of the Internet, as far as its name says: its addresses are looked at later."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").rstrip(".")
    named = any(letter.isalpha() for letter in host) and ":" not in host
    return parts.scheme == "https" and (is_public(host) or (named and "." in host))


NOBODY = Audience()
