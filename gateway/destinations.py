"""The settings of destinations: whom the gateway tells something, what, and how: by HL7 v2, DICOM or FHIR.

Where a destination is may stand in the directory of devices; `addressed` looks it up there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol
from gateway.domain.order import ORDER_STATUSES, OrderControl
from gateway.domain.problem import one_of
from gateway.domain.progress import Progress
from gateway.fhir_settings import FHIRTLS, FHIRCredentials, FHIRFeedSettings, HTTPAddress
from gateway.setting_types import Charset, MessageTypes, Name, Port
from gateway.wire.fhir_release import Release
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

    mapping: Name = Field(
        "status-orm", description="rule set in mappings/outbound that writes the messages; with `fhir` none does"
    )
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

    ae_title: AEText | Literal[""] = Field("", description="the AE title it is called by; empty: that of `device`")
    calling_ae_title: AEText | Literal[""] = Field("", description="what we call ourselves there; empty: `ae_title`")
    sends: Literal["received", "coerced", "events"] = Field(
        "received",
        description="received: as the modality sent it; coerced: patient and order as the worklist has them; "
        "events: only that something happened (MPPS Notification)",
    )


Told = Literal["ServiceRequest", "Task", "Appointment", "Procedure", "ImagingStudy", "Observation", "Provenance"]


class FHIRDestination(Strict):
    """A FHIR server that is told how orders get on."""

    feed: Name | Literal[""] = Field("", description="one of `fhir.feeds`: its address, credentials and TLS are used")
    url: HTTPAddress | Literal[""] = Field("", description="base address of the server, where it is no feed")
    release: Release = Field(Release.R4, description="the release it speaks, where it is no feed")
    credentials: FHIRCredentials | None = Field(None, description="SMART Backend Services, where it is no feed")
    tls: FHIRTLS = FHIRTLS()
    resources: tuple[Told, ...] = Field(
        ("ServiceRequest", "Task", "Procedure", "ImagingStudy", "Observation", "Provenance"), min_length=1,
        description="what is written there; ServiceRequest, Task and Appointment only where they are there already; "
        "Observation is the radiation dose",
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if bool(self.feed) == bool(self.url):
            raise ValueError("fhir: say which server, by `feed` or by `url`")
        return self


class DestinationTLS(Strict):
    """TLS on the way to a destination."""

    ca: str = Field(description="file of the certificates (PEM) one of which must have signed the destination's")
    crl: str = Field("", description="file of revocation lists (PEM) of those; empty: revocation is not checked")
    certificate: str = Field("", description="file of our certificate (PEM), for those that ask for one")
    key: str = Field("", description="file of its private key (PEM)")
    host_name: str = Field("", description="name its certificate must bear; empty: `host`")


class DestinationSettings(Strict):
    """Somebody who is told something: by HL7 v2 over MLLP, with `performed` by DICOM, with `fhir` by FHIR."""

    name: Name = Field(description="names the destination in the outbox, the archive and the logs")
    device: str = Field(
        "",
        description="in place of `host` and `port`: who it is in the directory of devices, by AE title where it gets "
        "performed steps, by the name of a device with an HL7 connection else",
    )
    host: str = Field("", description="its address")
    port: Port | Literal[0] = Field(0, description="its TCP port")
    tls: DestinationTLS | None = Field(None, description="encrypt and check the destination's certificate")
    status: StatusSettings | None = Field(None, description="told how orders get on")
    pass_on: PassOnSettings | None = Field(None, description="gets messages that were received")
    performed: PerformedSettings | None = Field(None, description="gets performed steps, by DICOM")
    fhir: FHIRDestination | None = Field(None, description="told how orders get on in FHIR, over HTTP")
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
        if self.performed and (self.status or self.pass_on or self.fhir):
            raise ValueError("performed steps go by DICOM, all else by HL7 or FHIR: make them two destinations")
        if self.fhir and self.pass_on:
            raise ValueError("messages are passed on by HL7, status by FHIR: make them two destinations")
        return self

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.device and (self.host or self.port):
            raise ValueError("`device` says where it is: leave out `host` and `port`, or leave out `device`")
        if self.fhir is not None:
            if self.device or self.host or self.port or self.tls:
                raise ValueError("`fhir` says where it is: leave out `device`, `host`, `port` and `tls`")
            return self
        if not self.device and not (self.host and self.port):
            raise ValueError("say where it is: `host` and `port`, or `device` as the directory of devices has it")
        if self.performed is not None and not (self.performed.ae_title or self.device):
            raise ValueError("performed: say the `ae_title` that it is called by")
        return self

    @property
    def is_addressed(self) -> bool:
        """Whether it is known where it is. One named by `device` is not before the directory was read once."""
        return bool(self.host or self.fhir)

    @property
    def whereabouts(self) -> str:
        """Where it is, for people."""
        if self.fhir is not None:
            return self.fhir.url or f"the server of feed {self.fhir.feed}"
        return f"{self.host}:{self.port}" if self.is_addressed else f"{self.device}, not in the directory yet"


class NotInDirectory(Exception):  # noqa: N818  (reads as what happened)
    """The directory does not say where a destination is. `hint` is what to do about it."""

    def __init__(self, text: str, hint: str) -> None:
        self.hint = hint
        super().__init__(text)


def addressed(
    place: DestinationSettings, directory: Directory, tls: DestinationTLS | None
) -> DestinationSettings:  # fmt: skip
    """The destination with host, port, TLS and AE title as the directory has them; others are as they were.

    A connection that says it speaks TLS goes before one that does not, where there is something to check its
    certificate by: the destination's own `tls`, else the `tls` given here. Raises NotInDirectory.
    """
    if not place.device:
        return place
    title, connections = _dicom(place, directory) if place.performed else ("", _hl7(place, directory))
    tls = place.tls or tls
    encrypted = [each for each in connections if each.tls]
    plain = [each for each in connections if not each.tls]
    if place.tls and not encrypted:
        raise NotInDirectory(
            f"{place.device} takes no TLS by the directory, and `tls` asks for it",
            "give its connection a cipher suite in the directory, or leave out `tls`",
        )
    if not (plain or tls):
        raise NotInDirectory(
            f"{place.device} takes nothing but TLS by the directory",
            "say by `tls: {ca: ...}` whose signature its certificate must bear, here or once for all",
        )
    chosen = encrypted[0] if encrypted and tls else plain[0]
    performed = place.performed
    if performed is not None:
        performed = performed.model_copy(update={"ae_title": performed.ae_title or title})
    return place.model_copy(
        update={
            "host": chosen.host, "port": chosen.port, "tls": tls if chosen.tls else None, "performed": performed,
        }
    )  # fmt: skip


def _dicom(place: DestinationSettings, directory: Directory) -> tuple[str, Sequence[NetworkConnection]]:
    """The AE title to call, and the connections that take associations for it."""
    found = directory.device_of(place.device)
    if found is None:
        titles = [ae.ae_title for device in directory.devices for ae in device.aes]
        raise NotInDirectory(f"there is no AE title {place.device!r} in the directory", one_of(place.device, titles))
    device, ae = found
    connections = tuple(_accepting(device, ae))
    if not connections:
        raise NotInDirectory(
            f"{place.device} takes no associations by the directory",
            "give it `acceptor`, and a connection with a port that is installed",
        )
    return ae.ae_title, connections


def _accepting(device: DeviceEntry, ae: NetworkAE) -> Iterator[NetworkConnection]:
    if ae.acceptor and device.is_installed(ae.installed):
        yield from (each for each in device.connections_of(ae) if each.port and each.protocol is Protocol.DICOM)


def _hl7(place: DestinationSettings, directory: Directory) -> Sequence[NetworkConnection]:
    name = place.device.casefold()  # names of devices have no case, as in LDAP
    device = next((each for each in directory.devices if each.name.casefold() == name), None)
    if device is None:
        names = [each.name for each in directory.devices]
        raise NotInDirectory(f"there is no device {place.device!r} in the directory", one_of(place.device, names))
    connections = tuple(
        each
        for each in device.connections
        if each.protocol is Protocol.HL7 and each.port and device.is_installed(each.installed)
    )
    if not connections:
        raise NotInDirectory(
            f"{place.device} takes no HL7 by the directory",
            "give it a connection with `protocol: HL7` and a port that is installed",
        )
    return connections


_TOLD = frozenset({"status", "pass_on", "performed", "application", "facility", "charset"})
"""What of a destination a running service changes: what is told, and how it is written."""


def of_feeds(
    places: Iterable[DestinationSettings], feeds: Iterable[FHIRFeedSettings]
) -> tuple[DestinationSettings, ...]:  # fmt: skip
    """The destinations, those that are servers of feeds with the address, release, credentials and TLS of these."""
    by_name = {feed.name: feed for feed in feeds}
    return tuple(_of_feed(place, by_name) for place in places)


def _of_feed(place: DestinationSettings, feeds: Mapping[str, FHIRFeedSettings]) -> DestinationSettings:
    feed = feeds.get(place.fhir.feed) if place.fhir is not None else None
    if place.fhir is None or feed is None:
        return place
    server = {"url": feed.url, "release": feed.release, "credentials": feed.credentials, "tls": feed.tls}
    return place.model_copy(
        update={"fhir": place.fhir.model_copy(update=server), "answer_timeout_s": feed.timeout_s}
    )  # fmt: skip


def connection_of(place: DestinationSettings) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """What of a destination needs a restart: where it is and how it is spoken to."""
    performed = place.performed
    titles = (performed.ae_title, performed.calling_ae_title) if performed is not None else None
    return place.model_dump(exclude=set(_TOLD)), titles


def reloaded(
    running: Iterable[DestinationSettings], said: Iterable[DestinationSettings]
) -> tuple[DestinationSettings, ...]:
    """The destinations that a running service tells something after a reload.

    They have the connections of before, but for those that follow the directory. One that is not in the file any more,
    or is there with the other protocol, is told nothing new; what waits for it is sent until the restart. A new one is
    told from the restart on.
    """
    by_name = {place.name: place for place in said}
    pairs = ((place, by_name[place.name]) for place in running if place.name in by_name)
    return tuple(
        new if follows(place, new) else _told(place, new)
        for place, new in pairs
        if (place.performed is None) is (new.performed is None)
    )


def follows(running: DestinationSettings, new: DestinationSettings) -> bool:
    """Whether the running service goes where the new settings say: the directory does, and did before, and so does
    FHIR, whose feeds follow a reload as well."""
    same_protocol = (running.performed is None) is (new.performed is None)
    by_fhir = running.fhir is not None and new.fhir is not None
    return by_fhir or (bool(running.device and new.device) and same_protocol)


def _told(running: DestinationSettings, new: DestinationSettings) -> DestinationSettings:
    told = {name: getattr(new, name) for name in _TOLD}
    if running.performed is not None and new.performed is not None:
        told["performed"] = running.performed.model_copy(update={"sends": new.performed.sends})
    return running.model_copy(update=told)
