"""Who is told what: the destinations of a site, as the use cases that cause messages need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.report import Header, Report


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
class Audience:
    """All of them."""

    status: tuple[StatusTarget, ...] = ()
    passed_on: tuple[PassOnTarget, ...] = ()
    performed: tuple[PerformedTarget, ...] = ()


NOBODY = Audience()
