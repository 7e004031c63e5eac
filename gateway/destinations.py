"""The settings of destinations: whom the gateway tells something, what, and how."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.domain.order import ORDER_STATUSES, OrderControl
from gateway.domain.progress import Progress
from gateway.setting_types import Charset, MessageTypes, Name, Port
from gateway.yaml_files import AEText, Strict

NOTHING = "nothing"
"""Says that something is not told."""


def _order_controls(said: dict[Progress, str]) -> dict[Progress, str]:
    for progress, told in said.items():
        control, _, status = told.partition(" ")
        if told != NOTHING and (control not in set(OrderControl) or status not in ORDER_STATUSES):
            raise ValueError(f"{progress}: {told!r} is no order control with an order status, such as `SC CM`")
    return said


class StatusSettings(Strict):
    """What a destination is told of how orders get on (RAD-3)."""

    mapping: Name = Field("status-orm", description="rule set in mappings/outbound that writes the messages")
    tell: Annotated[dict[Progress, str], AfterValidator(_order_controls)] = Field(
        {}, description="ORC-1 and ORC-5 to tell it by, as `SC CM`, or `nothing`; what is not named as in the reference"
    )
    sites: tuple[str, ...] = Field((), description="only orders of these sites; empty: of every site")
    listeners: tuple[str, ...] | None = Field(
        None,
        alias="from",
        description="names of the listeners by which its own messages come: what they change is not told back to it, "
        "nor what a message with its `application` in MSH-3 changes; null: every listener where there is only one, or "
        "no other destination is told status",
    )


def own_listeners(said: StatusSettings, every: Sequence[str], told: int) -> frozenset[str]:
    """The listeners by which a destination speaks itself.

    `every` are the names of all that take HL7, `told` is how many destinations are told status.
    """
    if said.listeners is not None:
        return frozenset(said.listeners)
    return frozenset(every if len(every) == 1 or told == 1 else ())


def share_a_listener(status: Sequence[StatusSettings], every: Sequence[str]) -> bool:
    """Whether several are told status, none says by which listener it speaks, and there is only one.

    Then what one of them changes by its messages is told to nobody.
    """
    return len(status) > 1 and len(every) == 1 and all(said.listeners is None for said in status)


class PassOnSettings(Strict):
    """What a destination gets of the messages that listeners receive and accept."""

    mapping: Name | Literal[""] = Field("", description="rule set in mappings/outbound; empty: the bytes as they came")
    types: MessageTypes = Field((), description="message types, e.g. ADT, ORM^O01; empty: all")
    listeners: tuple[str, ...] = Field((), description="names of listeners; empty: all")


class PerformedSettings(Strict):
    """A DICOM destination of performed steps: Image Manager or Order Filler (RAD-6, RAD-7)."""

    ae_title: AEText = Field(description="the AE title it is called by")
    calling_ae_title: AEText | Literal[""] = Field("", description="what we call ourselves there; empty: `ae_title`")
    sends: Literal["received", "coerced", "events"] = Field(
        "received",
        description="received: as the modality sent it; coerced: patient and order as the worklist has them; "
        "events: only that something happened (MPPS Notification)",
    )


class DestinationTLS(Strict):
    """TLS on the way to a destination."""

    ca: str = Field(description="file of the certificates (PEM) one of which must have signed the destination's")
    certificate: str = Field("", description="file of our certificate (PEM), for those that ask for one")
    key: str = Field("", description="file of its private key (PEM)")
    host_name: str = Field("", description="name its certificate must bear; empty: `host`")


class DestinationSettings(Strict):
    """Somebody who is told something: by HL7 v2 over MLLP, or with `performed` by DICOM."""

    name: Name = Field(description="names the destination in the outbox, the archive and the logs")
    host: str = Field(description="its address")
    port: Port = Field(description="its TCP port")
    tls: DestinationTLS | None = Field(None, description="encrypt and check the destination's certificate")
    status: StatusSettings | None = Field(None, description="told how orders get on")
    pass_on: PassOnSettings | None = Field(None, description="gets messages that were received")
    performed: PerformedSettings | None = Field(None, description="gets performed steps, by DICOM")
    application: str = Field("", description="MSH-5 of messages written for it")
    facility: str = Field("", description="MSH-6 of messages written for it")
    answer_timeout_s: float = Field(30, gt=0, le=3600, description="for its answer; then the message is sent again")
    charset: Charset = Field("UNICODE UTF-8", description="MSH-18 value that messages to it are written in")
    mllp_release: Literal[1, 2] = Field(1, description="2: it confirms each message by a commit byte before it answers")
    unanswered: Literal["repeat", "park"] = Field(
        "repeat", description="a message that was sent and not answered; park where repeats do harm"
    )
    errors_max: int = Field(8, ge=1, le=1000, description="negative answers to one message, after which it is parked")
    retry_most_s: float = Field(60, ge=1, le=3600, description="longest pause between two tries")
    pause_s: float = Field(0, ge=0, le=60, description="seconds left to it between two messages")

    @model_validator(mode="after")
    def _one_protocol(self) -> Self:
        if self.performed and (self.status or self.pass_on):
            raise ValueError("performed steps go by DICOM, status and messages by HL7: make them two destinations")
        return self


_TOLD = frozenset({"status", "pass_on", "performed", "application", "facility", "charset"})
"""What of a destination a running service changes: what is told, and how it is written."""


def connection_of(place: DestinationSettings) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """What of a destination needs a restart: where it is and how it is spoken to."""
    performed = place.performed
    titles = (performed.ae_title, performed.calling_ae_title) if performed is not None else None
    return place.model_dump(exclude=set(_TOLD)), titles


def reloaded(
    running: Iterable[DestinationSettings], said: Iterable[DestinationSettings]
) -> tuple[DestinationSettings, ...]:
    """The destinations that a running service tells something after a reload.

    They have the connections of before. One that is not in the file any more, or is there with the other protocol, is
    told nothing new; what waits for it is sent until the restart. A new one is told from the restart on.
    """
    by_name = {place.name: place for place in said}
    pairs = ((place, by_name[place.name]) for place in running if place.name in by_name)
    return tuple(_told(place, new) for place, new in pairs if (place.performed is None) is (new.performed is None))


def _told(running: DestinationSettings, new: DestinationSettings) -> DestinationSettings:
    told = {name: getattr(new, name) for name in _TOLD}
    if running.performed is not None and new.performed is not None:
        told["performed"] = running.performed.model_copy(update={"sends": new.performed.sends})
    return running.model_copy(update=told)
