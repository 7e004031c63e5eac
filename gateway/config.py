"""The configuration: frozen settings, and the site built from them (mappings, catalogue, devices, issuers).

Unknown keys are errors, and every problem is reported at once with file, line and hint, so that `gateway check`
and a refused start say the same. Reading files is all that happens here; nothing listens and nothing is opened.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator
from tzlocal import get_localzone

from gateway.described_devices import Around, Described
from gateway.destinations import DestinationSettings, of_feeds, share_a_listener
from gateway.domain.devices import CalledWorklist, Devices
from gateway.domain.directory import Directory
from gateway.domain.directory_checks import Known
from gateway.domain.identifiers import Issuer, Issuers, clashes
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.problem import Problem, did_you_mean, one_of
from gateway.fhir_files import Listening, fhir_problems, mapping_problems, server_problems
from gateway.fhir_settings import FHIRSettings
from gateway.identity_files import identity_problems
from gateway.mapping_files import MappingFolder, MappingRecipe, StationNamed, load_mappings
from gateway.security_settings import (
    ClockSettings,
    DeviceGroupSettings,
    LDAPSettings,
    LimitsSettings,
    ListenerTLSSettings,
    SenderAccess,
    TLSSettings,
    UsersSettings,
    tls_of,
)
from gateway.setting_types import Charset, MessageTypes, Name, Port, Zone
from gateway.wire.er7 import HEADER_FIELDS, HEADER_REQUIRED
from gateway.wire.er7_writer import MessageWriter
from gateway.yaml_files import AEText, Strict, line_of, load_yaml, read_strict

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _header_fields(numbers: tuple[int, ...]) -> tuple[int, ...]:
    unknown = [str(number) for number in numbers if number not in HEADER_FIELDS]
    if unknown:
        known = ", ".join(map(str, HEADER_FIELDS))
        raise ValueError(f"{', '.join(unknown)} cannot be insisted on; the fields of MSH that can are {known}")
    return numbers


def _senders(said: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [sender for sender in said if sender.count("|") > 1 or not sender.strip("|")]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no sender: write APPLICATION|FACILITY, or APPLICATION for any facility")
    return said


class ConfigError(Exception):
    """Everything wrong with a site's files at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


class DICOMSettings(Strict):
    """The DICOM listener."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: Port = Field(11112, description="TCP port of worklist and MPPS")
    associations_max: int = Field(256, ge=1, le=10_000, description="served at once; more are told to come back")
    associations_per_address_max: int = Field(64, ge=1, le=10_000, description="from one network address")
    idle_s: float = Field(600, gt=0, le=86_400, description="an association that says nothing for so long is aborted")
    plain: bool = Field(True, description="whether `port` is served; false once every device uses TLS")
    tls: ListenerTLSSettings | None = Field(None, description="TLS on a port of its own, 2762 by custom")


class HL7Settings(SenderAccess):
    """One MLLP listener and how its messages are read."""

    name: Name = Field(description="names the listener in the archive, the history of steps and the logs")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: Port = Field(2575, description="TCP port, MLLP")
    mapping: Name = Field("ihe-swf", description="rule set in mappings/hl7v2 that reads this sender")
    charset: Charset = Field("", description="MSH-18 value assumed when a message declares none; ASCII if empty")
    issuer: str = Field("", description="authority of identifiers that name none")
    site: str = Field("", description="whose orders these are, where one gateway serves several sites")
    uncovered: Literal["refuse", "hold"] = Field("refuse", description="an order that no procedure rule completes")
    repeat: Literal["answer", "refuse"] = Field("answer", description="a control ID used before for another message")
    ignore: MessageTypes = Field((), description="message types archived and acknowledged, e.g. ADT^A02, SIU")
    accept_test: bool = Field(False, description="whether messages with processing ID T are processed")
    senders: Annotated[tuple[str, ...], AfterValidator(_senders)] = Field(
        (), description="APPLICATION|FACILITY (MSH-3, MSH-4) or APPLICATION taken here; empty: any"
    )
    charset_override: Charset = Field("", description="MSH-18 value used whatever the message declares")
    header_required: Annotated[tuple[int, ...], AfterValidator(_header_fields)] = Field(
        HEADER_REQUIRED, description="fields of MSH that may not be empty"
    )
    timezone: Zone = Field("", description="zone of MSH-7 where it names no offset; default: the department's")
    keys: dict[str, Literal["reject", "generate"] | dict[Literal["derive"], str]] = Field(
        {}, description="what to do for a key the order lacks, whatever the mapping says, e.g. AccessionNumber: reject"
    )
    out_of_order: Literal["sort", "arrival"] = Field(
        "sort", description="a message made earlier than what is held: fill what is unknown, or count as newest"
    )
    cancel_started: Literal["refuse", "discontinue"] = Field("refuse", description="a cancel after the start")
    unsaid_steps: Literal["keep", "cancel"] = Field("keep", description="a change leaves out a step ordered before")
    linked_patients: Literal["note", "merge"] = Field("note", description="a link of two patients (A24)")
    merged_patient: Literal["redirect", "refuse"] = Field("redirect", description="a later message uses a merged ID")
    validate_messages: Literal["tolerant", "strict"] = Field(
        "tolerant", alias="validate", description="strict: refuse what is not built as the standard says"
    )
    answer: Literal["ack", "order"] = Field("ack", description="order: ORR, ORG or ORI with an ORC for each order")
    acknowledge_to: str = Field("", description="destination of application acknowledgements (MSH-16)")
    mllp_release: Literal[1, 2] = Field(1, description="2: a commit byte (ACK, NAK) before each answer")
    frame_bytes_max: int = Field(1_048_576, ge=1024, le=64 * 1_048_576, description="longest message taken")
    plain: bool = Field(True, description="whether `port` is served; false once every sender uses TLS")
    tls: ListenerTLSSettings | None = Field(None, description="TLS on a port of its own")


class ArchiveSettings(Strict):
    """How long messages are kept. Those of open orders stay whatever these say."""

    days: int = Field(0, ge=0, le=36_500, description="days after which a message is deleted, 0: never")
    messages_max: int = Field(0, ge=0, description="newest messages kept, 0: any number")


class HTTPSettings(Strict):
    """Health, metrics and the desk's API."""

    host: str = Field("127.0.0.1", description="address to listen on; whoever reaches it reads health and metrics")
    port: Port = Field(8080, description="TCP port of /health/live, /health/ready, /metrics; /api on loopback only")
    plain: bool = Field(True, description="whether `port` is served; false once everybody uses TLS")
    tls: ListenerTLSSettings | None = Field(None, description="TLS on a port of its own")


class DevicesSettings(Strict):
    """The device registry, and what to do with a caller that is not in it."""

    file: str = Field("", description="the registry, such as devices.yaml; empty: there is none")
    profiles: str = Field("", description="the profiles its entries name, such as profiles.yaml; empty: there are none")
    unknown: Literal["accept", "reject", "ask"] | None = Field(
        None,
        description="ask: reject, and list who knocked for `gateway devices approve`; "
        "default: accept on loopback if no `site` is named and devices are not those of LDAP, else reject",
    )
    ldap: LDAPSettings | None = Field(None, description="a directory of devices, in place of `file`")
    own_host: str = Field(
        "", description="host name or address by which others reach this gateway, for `gateway devices` publish and "
        "dns; empty: that of each listener, or the machine's name where it listens on every address"
    )  # fmt: skip
    groups: dict[str, DeviceGroupSettings] = Field(
        {}, description="bounds of all devices of a group, by its name; what a device says itself goes before them"
    )


class WorklistSettings(Strict):
    """One worklist of several, chosen by the called AE title."""

    ae_title: AEText = Field(description="the AE title that devices call for this list")
    description: str = Field("", description="for people")
    sites: tuple[str, ...] = Field((), description="only orders of these sites; empty: of every site")
    groups: tuple[str, ...] = Field((), description="only steps of stations in these device groups; empty: all")
    modalities: tuple[str, ...] = Field((), description="only these modalities, e.g. CT, MR; empty: all")


class QuerySettings(Strict):
    """The worklist queries that are kept, so that an empty list can be explained."""

    per_device: int = Field(200, ge=0, le=10_000, description="newest queries kept of each AE title; 0: none")
    days: int = Field(30, ge=1, le=3650, description="days after which a kept query is deleted")


class IssuerSettings(Strict):
    """One assigning authority under all its names."""

    name: str = Field(description="what the gateway calls this authority")
    hl7: tuple[str, ...] = Field((), description="namespaces it has in HL7 messages")
    oid: tuple[str, ...] = Field((), description="its universal IDs")
    dicom: tuple[str, ...] = Field((), description="how DICOM attributes name it as issuer")
    fhir: tuple[str, ...] = Field((), description="systems of its identifiers in FHIR")


class ExpirySettings(Strict):
    """The nightly expiry of steps that nobody performed."""

    after_days: int = Field(7, ge=1, le=3650, description="days after the scheduled day")
    at: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        "02:30", description="time of the department's night"
    )


class AssumedSettings(Strict):
    """Steps of devices that never report, taken as done some time after their planned start."""

    after_min: int = Field(0, ge=0, le=10_080, description="minutes after the planned start; 0: never")
    stations: tuple[AEText, ...] = Field((), description="AE titles; a step planned at others too is left alone")

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if self.after_min and not self.stations:
            raise ValueError("name the stations that never report: of all others it would be wrong")
        return self


class ReconciliationSettings(Strict):
    """When performed steps and the lack of them are a matter for a person, and what counts in place of MPPS."""

    overdue_after_h: int = Field(4, ge=0, le=8760, description="hours after its start a step is listed as overdue")
    unfinished_after_h: int = Field(24, ge=1, le=8760, description="hours after which one in progress is unfinished")
    assume_completed: AssumedSettings = AssumedSettings()
    availability: Literal["completes", "ignored"] = Field(
        "completes", description="an Instance Availability Notification of a study that no MPPS is held for"
    )


_MAPPINGS = "mappings"


class Settings(Strict):
    """`gateway.yaml`."""

    ae_title: AEText = Field("GATEWAY", description="our own AE title; without `worklists` any called one is answered")
    tls: TLSSettings = TLSSettings()
    store: str = Field("sqlite:///gateway.db", description="the database")
    dicom: DICOMSettings = DICOMSettings()
    hl7: tuple[HL7Settings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()
    archive: ArchiveSettings = ArchiveSettings()
    http: HTTPSettings = HTTPSettings()
    fhir: FHIRSettings | None = Field(None, description="FHIR orders in, FHIR status out; empty: FHIR is not spoken")
    devices: DevicesSettings = DevicesSettings()
    worklists: tuple[WorklistSettings, ...] = ()
    queries: QuerySettings = QuerySettings()
    workers: int = Field(0, ge=0, le=64, description="processes beside this one that answer DICOM; 0: this one does")
    mappings: str = Field(_MAPPINGS, description="folder of rule sets, code tables and the procedure catalogue")
    timezone: Zone = Field("", description="the department's wall clock, e.g. Europe/Berlin; default: the machine's")
    issuers: tuple[IssuerSettings, ...] = ()
    expiry: ExpirySettings = ExpirySettings()
    performed: ReconciliationSettings = ReconciliationSettings()
    users: UsersSettings = UsersSettings()
    limits: LimitsSettings = LimitsSettings()
    clock: ClockSettings = ClockSettings()

    @property
    def sites(self) -> frozenset[str]:
        """Every site whose orders come here: by a listener of HL7 v2, to our FHIR server, or from one of its feeds."""
        named = [listener.site for listener in self.hl7]
        if self.fhir is not None:
            named += [self.fhir.site, *(feed.site for feed in self.fhir.feeds)]
        return frozenset(filter(None, named))

    @field_validator("hl7")
    @classmethod
    def _distinct(cls, listeners: tuple[HL7Settings, ...]) -> tuple[HL7Settings, ...]:
        for what in ("name", "port"):
            seen = [getattr(listener, what) for listener in listeners]
            if len(set(seen)) < len(seen):
                raise ValueError(f"two listeners share a {what}")
        return listeners

    @field_validator("destinations")
    @classmethod
    def _told_apart(cls, destinations: tuple[DestinationSettings, ...]) -> tuple[DestinationSettings, ...]:
        seen = [destination.name for destination in destinations]
        if len(set(seen)) < len(seen):
            raise ValueError("two destinations share a name")
        return destinations


@dataclass(frozen=True)
class Site:
    """A complete, checked configuration: what the service runs on, replaced whole on reload."""

    file: Path
    settings: Settings
    store_url: str
    mappings: Mapping[str, FieldMapping] = field(repr=False)
    devices: Devices = field(repr=False)
    issuers: Issuers = field(repr=False)
    mapping_content: Callable[[str], str] = field(default=lambda name: "", repr=False)
    """The name of a mapping -> what it is made of, for `mapping_files.mapping_of`."""
    doubts: tuple[Problem, ...] = ()
    """What is likely a mistake and does no harm to the rest: `gateway check` tells it, nothing else stops for it."""
    outbound: Mapping[str, MessageWriter] = field(default_factory=dict, repr=False)
    outbound_content: Callable[[str], str] = field(default=lambda name: "", repr=False)
    """As `mapping_content`, for `mapping_files.outbound_of`."""
    recipe: MappingRecipe = field(default_factory=MappingRecipe, repr=False)
    """What `mappings` are made of, for other processes."""
    directory: Directory = field(default_factory=Directory, repr=False)
    """Every device that is described, as it was read; `devices` are those of them that call, as they are served."""
    destinations_said: tuple[DestinationSettings, ...] = ()
    """Destinations as the file says them; those of `settings` have their addresses from the directory."""
    device_doubts: tuple[Problem, ...] = ()
    """Those of `doubts` that are about the devices as they are described."""

    @property
    def default_issuer(self) -> str:
        """Whose patient IDs are meant where nobody says: the feeds' authority if they agree on one."""
        issuers = {listener.issuer for listener in self.settings.hl7}
        return issuers.pop() if len(issuers) == 1 else ""

    @cached_property
    def zone(self) -> ZoneInfo:
        """The department's zone, with its summer times: what is configured, else the machine's."""
        return ZoneInfo(self.settings.timezone) if self.settings.timezone else get_localzone()

    def mapping(self, listener: HL7Settings) -> FieldMapping:
        """How this listener's messages are read: its mapping, with the key policies of its own."""
        return self.mappings[self.mapping_name(listener)]

    def mapping_name(self, listener: HL7Settings) -> str:
        """By which name `mappings` has it."""
        return _variant(listener) if listener.keys else listener.mapping

    def wall_clock(self, now: datetime) -> datetime:
        """The department's wall clock at this moment."""
        return now.astimezone(self.zone)


def load_site(file: Path, mappings: Path | None = None, *, devices: bool = True, fhir: bool | None = None) -> Site:
    """Read and check everything `gateway.yaml` points to; with `mappings` as if that were its mappings folder, and
    without `devices` as if none were described, for whoever mends what describes them. The rule sets of FHIR are read
    where FHIR is spoken; with `fhir` in any case, and where that is False when the first of them is asked for: it takes
    two seconds, which a command that has nothing to do with them need not wait for.

    Raises ConfigError with every problem.
    """
    problems: list[Problem] = []
    settings = read_strict(file, Settings, problems)
    base = file.parent
    if settings is None:  # the mistakes in the mappings are told with it, if they are where they mostly are
        if (mappings or base / _MAPPINGS).is_dir():
            load_mappings(mappings or base / _MAPPINGS, Issuers(), problems)
        raise ConfigError(list(dict.fromkeys(problems)))
    file_problems = _Cross(file, settings, problems)
    issuers = file_problems.issuers()
    now = settings.fhir is not None if fhir is None else fhir
    place, variants = mappings or base / settings.mappings, _variants(settings)
    folder = load_mappings(place, issuers, problems, variants, fhir=now)
    file_problems.destinations(folder.outbound_names)
    file_problems.mappings(folder.names)
    if now:
        file_problems.fhir_mappings(folder.names, folder.mappings)
    file_problems.keys()
    file_problems.listeners()
    file_problems.users()
    file_problems.fhir()
    feeds = settings.fhir.feeds if settings.fhir is not None else ()
    settings = settings.model_copy(update={"destinations": of_feeds(settings.destinations, feeds)})
    described = Described(base, _around(settings), problems, directory=None if devices else Directory())
    said = settings.destinations
    if devices:
        registered = described.registry()
        settings = settings.model_copy(update={"destinations": described.addressed(file_problems.at, said)})
    else:  # what they would contradict is the matter of whoever mends them
        registered = Devices.of((), accept_unknown=False, profiles=described.profiles)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))  # a base's mistake is found by each mapping that extends it
    store_url = _store_url(base, settings.store)
    doubts = (
        *described.doubts,
        *_unregistered(folder.stations, registered, "" if described.ldap else described.source),
        *_told_nobody(file, settings),
        *_fhir_unnamed(file, settings),
    )
    later = None if fhir is not False else _Later(folder, place, issuers, variants)
    return Site(
        file, settings, store_url, folder.mappings if later is None else later, registered, issuers,
        folder.content if later is None else later.content, doubts, folder.outbound,
        folder.outbound_content, folder.recipe, described.directory, said, tuple(described.doubts),
    )  # fmt: skip


class _Later(dict[str, FieldMapping]):
    """The rule sets of HL7 v2, and those of FHIR once one is asked for by its name. Raises ConfigError where they have
    problems, KeyError where there is none of that name."""

    def __init__(
        self, known: MappingFolder, place: Path, issuers: Issuers, variants: Mapping[str, Mapping[str, Any]]
    ) -> None:
        super().__init__(known.mappings)
        self._known = known
        self._load = partial(_whole_folder, place, issuers, variants)

    def __missing__(self, name: str) -> FieldMapping:
        self._complete()
        if name not in self:
            raise KeyError(name)
        return self[name]

    def content(self, name: str) -> str:
        """As `MappingFolder.content`."""
        if name not in self._known.names:
            self._complete()
        return self._known.content(name)

    def _complete(self) -> None:
        self._known = self._load()
        self.update(self._known.mappings)


def _whole_folder(place: Path, issuers: Issuers, variants: Mapping[str, Mapping[str, Any]]) -> MappingFolder:
    problems: list[Problem] = []
    folder = load_mappings(place, issuers, problems, variants)
    if problems:
        raise ConfigError(problems)
    return folder


def with_snapshot(site: Site) -> Site:
    """The site with the devices that were read from LDAP last; all else as it is, whatever its files say by now.

    `doubts` are those about the devices. A destination that the directory has lost is left where it was. Raises
    ConfigError where the devices cannot be used with the rest of the site.
    """
    problems: list[Problem] = []
    described = Described(site.file.parent, _around(site.settings), problems, tuple(site.devices.profiles.values()))
    devices = described.registry()
    at = _Cross(site.file, site.settings, problems).at
    running = {each.name: each for each in site.settings.destinations}
    places = described.addressed(at, site.destinations_said, running)
    if problems:
        raise ConfigError(problems)
    doubts = tuple(described.doubts)
    return replace(
        site, settings=site.settings.model_copy(update={"destinations": places}), devices=devices,
        directory=described.directory, doubts=doubts, device_doubts=doubts,
    )  # fmt: skip


def with_devices_of(site: Site, directory: Directory, source: str) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """What would be wrong, and what is doubtful, if this directory were the site's file of devices; `source` names it
    in problems."""
    problems: list[Problem] = []
    profiles = tuple(site.devices.profiles.values())
    described = Described(site.file.parent, _around(site.settings), problems, profiles, directory, source)
    described.registry()
    described.addressed(_Cross(site.file, site.settings, problems).at, site.destinations_said)
    return problems, described.doubts


def known_to(site: Site) -> Known:
    """What entries of devices may name at this site."""
    return _around(site.settings).known(site.devices.profiles.values())


def own_name(settings: Settings) -> str:
    """The name of our own device in a directory."""
    ldap = settings.devices.ldap
    return (ldap.device if ldap else "") or settings.ae_title


def _around(settings: Settings) -> Around:
    places = settings.devices
    return Around(
        own_name=own_name(settings),
        file=places.file,
        profiles=places.profiles,
        unknown=places.unknown,
        ldap=places.ldap,
        groups=places.groups,
        sites=settings.sites,
        worklists=tuple(
            CalledWorklist(
                each.ae_title, each.description, frozenset(each.sites), frozenset(each.groups),
                frozenset(each.modalities),
            )
            for each in settings.worklists
        ),
        on_loopback=settings.dicom.host in LOOPBACK,
        tls=settings.tls,
    )  # fmt: skip


class _Cross:
    """What only shows when one part of `gateway.yaml` is held against another; each problem with its line."""

    def __init__(self, file: Path, settings: Settings, problems: list[Problem]) -> None:
        self.file, self.settings, self.problems = file, settings, problems

    def problem(self, where: Sequence[str], text: str, hint: str = "") -> None:
        self.problems.append(self.at(where, text, hint))

    def at(self, where: Sequence[str], text: str, hint: str = "") -> Problem:
        """A problem at this place of the file, with its line."""
        return Problem(self.file.name, ".".join(where), text, hint, line_of(load_yaml(self.file, []), where))

    def issuers(self) -> Issuers:
        """The registry of issuers: no name may be two authorities' (design D10)."""
        said = [
            Issuer(each.name, frozenset({*each.hl7, *each.dicom}), frozenset(each.oid), frozenset(each.fhir))
            for each in self.settings.issuers
        ]
        for place, kind, name, owner in clashes(said):
            self.problem(
                ("issuers", str(place)), f"{kind} {name!r} is {owner}'s already",
                "give it to one of them, or make them one authority",
            )  # fmt: skip
        registry = Issuers(said)
        for place, listener in enumerate(self.settings.hl7):
            near = did_you_mean(listener.issuer, registry.known)
            if listener.issuer and listener.issuer not in registry and near:
                self.problem(
                    ("hl7", str(place), "issuer"), f"`issuers` has no authority {listener.issuer!r}",
                    f"{near} Otherwise add it to `issuers`",
                )  # fmt: skip
        return registry

    def destinations(self, outbound: frozenset[str]) -> None:
        """What destinations and listeners name of each other, of the mappings, and of the files beside this one."""
        known = [destination.name for destination in self.settings.destinations]
        listeners = [listener.name for listener in self.settings.hl7]
        sites = self.settings.sites
        for number, place in enumerate(self.settings.destinations):
            at = ("destinations", str(number))
            named = {"status": place.status, "pass_on": place.pass_on}
            for what, said in named.items():
                if said is not None and said.mapping and said.mapping not in outbound:
                    self.problem(
                        (*at, what, "mapping"), f"there is no outbound mapping {said.mapping!r}",
                        one_of(said.mapping, outbound),
                    )  # fmt: skip
            for listener_name in place.pass_on.listeners if place.pass_on else ():
                if listener_name not in listeners:
                    self.problem(
                        (*at, "pass_on", "listeners"), f"there is no listener {listener_name!r}",
                        one_of(listener_name, listeners),
                    )  # fmt: skip
            for listener_name in (place.status.listeners or ()) if place.status else ():
                if listener_name not in listeners:
                    self.problem(
                        (*at, "status", "from"), f"there is no listener {listener_name!r}",
                        one_of(listener_name, listeners),
                    )  # fmt: skip
            for site in place.status.sites if place.status else ():
                if site not in sites:
                    self.problem((*at, "status", "sites"), f"no orders of site {site!r} come here", one_of(site, sites))
            for what in ("ca", "crl", "certificate", "key"):
                name = getattr(place.tls, what, "")
                if name and not (self.file.parent / name).is_file():
                    self.problem((*at, "tls", what), f"there is no file {name}", "paths are relative to this file")
        for number, listener in enumerate(self.settings.hl7):
            if listener.acknowledge_to and listener.acknowledge_to not in known:
                self.problem(
                    ("hl7", str(number), "acknowledge_to"), f"there is no destination {listener.acknowledge_to!r}",
                    one_of(listener.acknowledge_to, known),
                )  # fmt: skip

    def listeners(self) -> None:
        """What listeners show and trust by TLS, and where they listen. What is in the files is found at the start."""
        settings = self.settings
        listeners: list[tuple[tuple[str, ...], DICOMSettings | HL7Settings | HTTPSettings]] = [
            (("dicom",), settings.dicom),
            (("http",), settings.http),
            *((("hl7", str(number)), listener) for number, listener in enumerate(settings.hl7)),
        ]
        used: dict[int, list[tuple[str, tuple[str, ...]]]] = {}
        for at, listener in listeners:
            if not listener.plain and listener.tls is None:
                self.problem(
                    (*at, "plain"), "it listens nowhere: `plain` is false, and there is no `tls`",
                    "say `plain: true`, or give it `tls: {port: ...}`",
                )  # fmt: skip
            if listener.tls is not None:
                self._tls_listener((*at, "tls"), tls_of(settings.tls, listener.tls))
                used.setdefault(listener.tls.port, []).append((listener.host, (*at, "tls", "port")))
            if listener.plain:
                used.setdefault(listener.port, []).append((listener.host, (*at, "port")))
        for block, at in ((settings.tls, ("tls",)), *(
            (listener.tls, (*at, "tls")) for at, listener in listeners if listener.tls is not None
        )):  # fmt: skip
            for what in ("certificate", "key", "ca", "crl"):
                name = getattr(block, what)
                if name and not (self.file.parent / name).is_file():
                    self.problem((*at, what), f"there is no file {name}", "paths are relative to this file")
        for port, places in used.items():
            for place, (host, path) in enumerate(places):
                if any(_overlap(host, other) for other, _ in places[:place]):
                    others = ", ".join(".".join(earlier) for _, earlier in places[:place])
                    self.problem(path, f"port {port} is that of {others} already", "give each a port of its own")

    def _tls_listener(self, at: tuple[str, ...], said: TLSSettings) -> None:
        if not said.certificate:
            self.problem(
                at, "no certificate of ours is named", "name `certificate` and `key` here or in `tls`; `gateway certs` "
                "makes them for a pilot",
            )  # fmt: skip
        if said.clients != "none" and not said.ca:
            self.problem(
                at, f"callers have to show a certificate (clients: {said.clients}), and nobody says whose are trusted",
                "name `ca`, the file of the certificates that sign your devices', or say `clients: none`",
            )  # fmt: skip

    def users(self) -> None:
        """The files that user identities are proved by."""
        for where, text, hint in identity_problems(self.file.parent, self.settings.users, self.problems):
            self.problem(("users", *where), text, hint)

    def fhir(self) -> None:
        """The files of the door of FHIR and of our own proofs to other servers, and what would travel in clear."""
        settings, base = self.settings, self.file.parent
        http = settings.http
        if settings.fhir is not None:
            asks = http.tls is not None and tls_of(settings.tls, http.tls).clients != "none"
            listening = Listening(http.host in LOOPBACK, http.plain, http.tls is not None, asks)
            written_to = {place.fhir.feed for place in settings.destinations if place.fhir is not None}
            for where, text, hint in fhir_problems(base, settings.fhir, listening, written_to):
                self.problem(("fhir", *where), text, hint)
        feeds = [each.name for each in settings.fhir.feeds] if settings.fhir is not None else []
        for number, place in enumerate(settings.destinations):
            if place.fhir is not None:
                at = ("destinations", str(number), "fhir")
                if place.fhir.feed and place.fhir.feed not in feeds:
                    self.problem(
                        (*at, "feed"), f"`fhir.feeds` has no {place.fhir.feed!r}", one_of(place.fhir.feed, feeds)
                    )  # fmt: skip
                for where, text, hint in server_problems(base, place.fhir.url, place.fhir.credentials, place.fhir.tls):
                    self.problem(("destinations", str(number), "fhir", *where), text, hint)

    def mappings(self, known: frozenset[str]) -> None:
        own = {_variant(listener) for listener in self.settings.hl7}
        for place, listener in enumerate(self.settings.hl7):
            if known and listener.mapping not in known:  # without any the folder is the problem
                self.problem(
                    ("hl7", str(place), "mapping"), f"there is no mapping {listener.mapping!r}",
                    one_of(listener.mapping, known - own),
                )  # fmt: skip

    def fhir_mappings(self, known: frozenset[str], mappings: Mapping[str, FieldMapping]) -> None:
        """The rule sets that FHIR is read by."""
        if self.settings.fhir is not None and known:
            languages = {name: each.language for name, each in mappings.items()}
            for where, text, hint in mapping_problems(self.settings.fhir, known, languages):
                self.problem(("fhir", *where), text, hint)

    def keys(self) -> None:
        """Say where a listener's own key policies are wrong: they were found as a rule set's."""
        variants = {_variant(listener): place for place, listener in enumerate(self.settings.hl7) if listener.keys}
        moved = [problem for problem in self.problems if problem.source in variants]
        self.problems[:] = [problem for problem in self.problems if problem.source not in variants]
        for problem in moved:
            key = problem.path.removeprefix("identity.").split(".")[0]
            where = ("hl7", str(variants[problem.source]), "keys", key)
            if all(told.path != ".".join(where) for told in self.problems):  # one is enough for one key
                self.problem(where, problem.text, problem.hint.replace("refuse", "reject"))


def _overlap(host: str, other: str) -> bool:
    """Whether two hosts to listen on have an address in common, as far as can be said without looking them up."""
    return host == other or bool({host, other} & {"0.0.0.0", "::", ""})  # noqa: S104  (recognised, not bound)


def _variant(listener: HL7Settings) -> str:
    """The name of a listener's mapping with its own key policies."""
    return f"{listener.mapping}+{listener.name}"


def _variants(settings: Settings) -> dict[str, dict[str, Any]]:
    """For each listener with key policies of its own, the rule set that lays them over its mapping."""
    return {
        _variant(listener): {
            "extends": listener.mapping,
            "identity": {
                key: {"missing": "refuse" if policy == "reject" else policy} for key, policy in listener.keys.items()
            },
        }
        for listener in settings.hl7
        if listener.keys
    }


def _store_url(base: Path, url: str) -> str:
    """SQLite paths are relative to the configuration file."""
    prefix = "sqlite:///"
    return f"{prefix}{(base / url.removeprefix(prefix)).resolve()}" if url.startswith(prefix) else url


def _unregistered(named: Sequence[StationNamed], devices: Devices, registry_file: str) -> Iterator[Problem]:
    """A problem for each station that steps are scheduled to and that would be turned away if it called.

    It may be meant so, as with a room that has no device: the steps are on the lists of others. `registry_file` is
    empty where the registry is LDAP.
    """
    where, add = (registry_file, f"add it to {registry_file}") if registry_file else ("LDAP", "add it in LDAP")
    if devices.accept_unknown or not devices.known:
        return
    for ae_title, source, line in named:
        if ae_title not in devices.known:
            near = did_you_mean(ae_title, devices.known)
            text = f"{ae_title!r} is not in {where}, so this station would not be served"
            hint = f"{near} Otherwise {add}" if near else add
            yield Problem(source, "station_ae_titles", text, hint, line)


def _fhir_unnamed(file: Path, settings: Settings) -> Iterator[Problem]:
    """A problem where others reach our FHIR server, and nobody says by which address."""
    fhir = settings.fhir
    if fhir is not None and fhir.clients and not fhir.url and settings.http.host not in LOOPBACK:
        yield Problem(
            file.name, "fhir.url", "others reach the FHIR server, and what it calls itself in links and notifications "
            "is whatever address a caller named it by", "say the address by which others see /fhir",
        )  # fmt: skip


def _told_nobody(file: Path, settings: Settings) -> Iterator[Problem]:
    """A problem where what one of several systems changes by its messages is told to no other one."""
    told = [place.status for place in settings.destinations if place.status]
    if share_a_listener(told, [listener.name for listener in settings.hl7]):
        yield Problem(
            file.name, "destinations", "what one of them cancels, holds or discontinues by a message is not told to "
            "the others, as it is not known whose messages come by the one listener",
            "give each a listener and say `status: {from: [...]}`, or `from: []` with `application` as in its MSH-3",
        )  # fmt: skip
