"""Entries of LDAP, and what they say as values of `domain.directory`. Nothing here talks to a server.

Reading is tolerant: classes and attributes that are not known here do not count (PS3.15 H.1.2), what dcm4chee adds is
understood where our model has a place for it, and an entry that lacks what it must have is a problem with its DN, not
the end of the others. An AE whose device or bounds cannot be read becomes one of a device that is not installed: known,
so that nobody takes it for a stranger, and not served. The other way is `ldap_changes`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from gateway.domain.devices import MPPSAnswers, Sees
from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Role,
    Rules,
    TransferCapability,
)
from gateway.domain.directory_checks import legal_ae_title
from gateway.domain.problem import Problem
from gateway.edges import ldap_schema as schema
from gateway.wire.distinguished_names import DN, DNError, Part, parse_dn

SOURCE = "LDAP"

_FOREIGN_PROTOCOLS = {"DICOM": Protocol.DICOM, "HL7": Protocol.HL7, "HL7_MLLP2": Protocol.HL7}
"""dcmProtocol of dcm4che -> ours. Connections of other protocols, such as HTTP or SYSLOG, are none of ours."""

Values = tuple[bytes, ...]
Key = tuple[frozenset[Part], ...]
Identity = tuple[str, ...]
"""What a part of a device is to our model, whatever its DN: `device`, or a connection, AE or transfer capability."""
_W = TypeVar("_W", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its name, and its attributes by name in lower case."""

    dn: DN
    attributes: Mapping[str, Values]

    def is_a(self, object_class: str) -> bool:
        """Whether it is of the class."""
        return object_class.lower() in _classes(self.attributes.get("objectclass", ()))


@lru_cache(maxsize=1024)  # ten thousand devices have four sorts of entries
def _classes(values: Values) -> frozenset[str]:
    return frozenset(each.decode("ascii", "replace").lower() for each in values)


@dataclass(frozen=True, slots=True)
class Reading:
    """What entries say, and what is wrong with single ones."""

    directory: Directory
    problems: tuple[Problem, ...]


def entry_of(dn: str, attributes: Mapping[str, Iterable[bytes]]) -> Entry:
    """An entry as a server gave it; options such as `;binary` do not count. Raises DNError."""
    merged: dict[str, Values] = {}
    for name, values in attributes.items():
        key = name.partition(";")[0].lower()
        merged[key] = merged.get(key, ()) + tuple(values)
    return Entry(parse_dn(dn), merged)


class _Reader:
    """One entry's attributes as values; what is missing or unusable is noted with its DN."""

    def __init__(self, entry: Entry, problems: list[Problem]) -> None:
        self.entry = entry
        self._problems = problems

    def problem(self, text: str, hint: str = "") -> None:
        self._problems.append(Problem(SOURCE, str(self.entry.dn), text, hint))

    def texts(self, name: str) -> tuple[str, ...]:
        found = []
        for value in self.entry.attributes.get(name.lower(), ()):
            try:
                found.append(value.decode())
            except UnicodeDecodeError:
                self.problem(f"{name} is not UTF-8 and does not count", "write it anew")
        return tuple(found)

    def text(self, name: str) -> str:
        values = self.texts(name)
        return values[0] if values else ""

    def must(self, name: str, then: str) -> str:
        value = self.text(name)
        if not value.strip():
            self.problem(f"it has no {name}, which the standard demands; {then}", f"add {name}")
            return ""
        return value

    def flag(self, name: str) -> bool | None:
        value = self.text(name).upper()
        if value in ("", "TRUE", "FALSE"):
            return value == "TRUE" if value else None
        self.problem(f"{name} is neither TRUE nor FALSE and does not count", "write TRUE or FALSE")
        return None

    def must_flag(self, name: str, assumed: bool) -> bool:
        value = self.flag(name)
        if value is not None:
            return value
        if name.lower() not in self.entry.attributes:
            then = str(assumed).upper()
            self.problem(f"it has no {name}, which the standard demands; {then} is assumed", f"add {name}")
        return assumed

    def word(self, name: str, words: type[_W]) -> _W | None:
        value = self.text(name)
        for word in words:
            if value.lower() == word.value.lower():
                return word
        if value:
            self.problem(f"{name} is {value!r} and does not count", f"one of: {', '.join(words)}")
        return None

    def names(self, name: str) -> tuple[DN, ...]:
        found = []
        for text in self.texts(name):
            try:
                found.append(parse_dn(text))
            except DNError as fault:
                self.problem(f"{name} holds what is no DN: {fault}", "name an entry")
        return tuple(found)


def reading_of(entries: Iterable[Entry], certificates: Mapping[Key, Values] | None = None) -> Reading:
    """The devices among these entries; `certificates` are those (DER) of entries that devices refer to."""
    problems: list[Problem] = []
    below: dict[Key, list[Entry]] = defaultdict(list)
    devices: list[Entry] = []
    parents: set[Key] = set()
    parts: list[tuple[Entry, str]] = []
    for entry in entries:
        below[entry.dn.parent.key].append(entry)
        if entry.is_a(schema.DEVICE):
            devices.append(entry)
            parents.add(entry.dn.key)
        elif entry.is_a(schema.CONNECTION) or entry.is_a(schema.NETWORK_AE):
            parts.append((entry, "device"))
            if entry.is_a(schema.NETWORK_AE):
                parents.add(entry.dn.key)
        elif entry.is_a(schema.CAPABILITY):
            parts.append((entry, "AE"))
    lost: list[Entry] = []
    for entry, what in parts:
        if entry.dn.parent.key not in parents:
            _Reader(entry, problems).problem(f"it stands right below no {what} and {_THEN}", "move it there")
            lost.append(entry)
    read: list[DeviceEntry] = []
    for entry in devices:
        device = _device(entry, below, certificates or {}, problems)
        if device is not None:
            read.append(device)
        else:
            lost += below.get(entry.dn.key, [])
    read += _not_served(lost, {ae.ae_title for device in read for ae in device.aes})
    return Reading(Directory(tuple(sorted(read, key=lambda device: device.name))), tuple(problems))


_THEN = "does not count; AE titles of it are known and not served"


def _not_served(lost: Iterable[Entry], known: set[str]) -> Iterator[DeviceEntry]:
    """The AEs among entries that belong to no device that can be read, but for those that another device has too."""
    for entry in lost:
        title = _Reader(entry, []).text("dicomAETitle").strip() if entry.is_a(schema.NETWORK_AE) else ""
        if legal_ae_title(title) and title not in known:
            known.add(title)
            yield DeviceEntry(str(entry.dn), installed=False, aes=(NetworkAE(title, acceptor=False),))


def certificate_names(entries: Iterable[Entry]) -> dict[Key, DN]:
    """The entries of certificates that devices among these refer to."""
    ignored: list[Problem] = []
    return {
        dn.key: dn
        for entry in entries
        if entry.is_a(schema.DEVICE)
        for name in ("dicomAuthorizedNodeCertificateReference", "dicomThisNodeCertificateReference")
        for dn in _Reader(entry, ignored).names(name)
    }


def places_of(entries: Sequence[Entry]) -> tuple[DeviceEntry, dict[Identity, Entry]]:
    """The device that the first of these entries is, and the entry of each of its parts that can be read.

    Raises ValueError where the first is no device that can be read.
    """
    ignored: list[Problem] = []
    below: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        below[entry.dn.parent.key].append(entry)
    device = _device(entries[0], below, {}, ignored)
    if device is None:
        raise ValueError(f"{entries[0].dn} is no device that can be read")
    children = below.get(entries[0].dn.key, [])
    by_key = {each.dn.key: each for each in children}
    places: dict[Identity, Entry] = {("device",): entries[0]}
    connections = _connections(children, ignored)
    for key, connection in connections:
        places[("connection", connection.name)] = by_key[key]
    names = {key: connection.name for key, connection in connections}
    for entry in children:
        ae = _ae(entry, device.name, names, below, ignored) if entry.is_a(schema.NETWORK_AE) else None
        if ae is None or places.setdefault(("ae", ae.ae_title), entry) is not entry:
            continue
        for each in below.get(entry.dn.key, []):
            capability = _capability(each, ignored) if each.is_a(schema.CAPABILITY) else None
            if capability is not None:
                places.setdefault(capability_identity(ae.ae_title, capability), each)
    return device, places


def capability_identity(ae_title: str, each: TransferCapability) -> Identity:
    """What a transfer capability of an AE is to our model."""
    return "capability", ae_title, each.sop_class, each.role.value, each.name


def is_foreign_connection(entry: Entry) -> bool:
    """Whether it is a connection for a protocol that is none of ours, such as HTTP."""
    return entry.is_a(schema.CONNECTION) and _protocol(_Reader(entry, []), False) is None


def references(entry: Entry) -> dict[Key, bytes]:
    """The connections that an entry, of whatever class, refers to: by the key of their DN, as it says them."""
    found: dict[Key, bytes] = {}
    for value in entry.attributes.get("dicomnetworkconnectionreference", ()):
        with suppress(ValueError):
            found[parse_dn(value.decode()).key] = value
    return found


def _device(
    entry: Entry, below: Mapping[Key, list[Entry]], certificates: Mapping[Key, Values], problems: list[Problem]
) -> DeviceEntry | None:
    said = _Reader(entry, problems)
    name = said.must("dicomDeviceName", f"the device {_THEN}")
    if not name:
        return None
    children = below.get(entry.dn.key, [])
    connections = _connections(children, problems)
    by_key = {key: connection.name for key, connection in connections}
    aes = [_ae(each, name, by_key, below, problems) for each in children if each.is_a(schema.NETWORK_AE)]
    authorized = said.names("dicomAuthorizedNodeCertificateReference")
    own = said.names("dicomThisNodeCertificateReference")
    for dn in (*authorized, *own):
        if not certificates.get(dn.key):
            said.problem(
                f"it refers to the certificate of {dn}, where none can be read",
                "store it there as userCertificate;binary and let our account read it",
            )
    return DeviceEntry(
        name=name,
        installed=said.must_flag("dicomInstalled", assumed=True),
        description=said.text("dicomDescription"),
        manufacturer=said.text("dicomManufacturer"),
        model=said.text("dicomManufacturerModelName"),
        software_versions=said.texts("dicomSoftwareVersion"),
        station_name=said.text("dicomStationName"),
        serial_number=said.text("dicomDeviceSerialNumber"),
        institution_names=said.texts("dicomInstitutionName"),
        institution_addresses=said.texts("dicomInstitutionAddress"),
        departments=said.texts("dicomInstitutionDepartmentName"),
        issuer_of_patient_id=said.text("dicomIssuerOfPatientID"),
        primary_types=said.texts("dicomPrimaryDeviceType"),
        related_devices=tuple(map(str, said.names("dicomRelatedDeviceReference"))),
        authorized_certificates=tuple(map(str, authorized)),
        own_certificates=tuple(map(str, own)),
        fingerprints={
            str(dn): tuple(hashlib.sha256(der).hexdigest() for der in certificates[dn.key])
            for dn in (*authorized, *own)
            if certificates.get(dn.key)
        },
        connections=tuple(sorted((each for _, each in connections), key=lambda each: each.name)),
        aes=tuple(sorted((ae for ae in aes if ae is not None), key=lambda ae: ae.ae_title)),
    )


def _connections(children: Sequence[Entry], problems: list[Problem]) -> list[tuple[Key, NetworkConnection]]:
    """The connections of a device that speak what we know, by the key of their DN."""
    ignored: list[Problem] = []
    hl7 = {
        dn.key
        for each in children
        if each.is_a("hl7Application")
        for dn in _Reader(each, ignored).names("dicomNetworkConnectionReference")
    }
    found: list[tuple[Key, NetworkConnection]] = []
    for each in children:
        if not each.is_a(schema.CONNECTION):
            continue
        said = _Reader(each, problems)
        protocol = _protocol(said, each.dn.key in hl7)
        if protocol is None:
            continue
        host = said.must("dicomHostname", "the connection is left out")
        if not host:
            continue
        port = _port(said)
        name = _connection_name(each)
        if any(name == other.name for _, other in found):
            said.problem(f"another connection of the device is called {name} too; this one is left out", "rename it")
            continue
        found.append(
            (
                each.dn.key,
                NetworkConnection(
                    name, host, port, said.texts("dicomTLSCipherSuite"), said.flag("dicomInstalled"), protocol
                ),
            )
        )
    return found


def _connection_name(entry: Entry) -> str:
    """Its cn; without one host and port, which then name the entry."""
    silent = _Reader(entry, [])
    port = silent.text("dicomPort")
    return silent.text("cn") or silent.text("dicomHostname") + (f":{port}" if port else "")


def _protocol(said: _Reader, of_hl7_application: bool) -> Protocol | None:
    """What is spoken on a connection; None for what is none of ours."""
    own = said.word("gatewayProtocol", Protocol)
    if own is not None:
        return own
    foreign = said.text("dcmProtocol")
    if foreign:
        return _FOREIGN_PROTOCOLS.get(foreign.upper())
    return Protocol.HL7 if of_hl7_application else Protocol.DICOM


def _port(said: _Reader) -> int | None:
    text = said.text("dicomPort")
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65_536:
        return int(text)
    said.problem("dicomPort is no TCP port; the connection is taken to only initiate", "write 1 to 65535")
    return None


def _ae(
    entry: Entry,
    device: str,
    connections: Mapping[Key, str],
    below: Mapping[Key, list[Entry]],
    problems: list[Problem],
) -> NetworkAE | None:
    said = _Reader(entry, problems)
    title = said.must("dicomAETitle", "the AE is left out").strip()
    if not title:
        return None
    if not legal_ae_title(title):
        said.problem("dicomAETitle is no AE title; the AE is left out", "1 to 16 letters of ASCII, no backslash")
        return None
    references = said.names("dicomNetworkConnectionReference")
    if not references:
        said.problem(
            "it has no dicomNetworkConnectionReference, which the standard demands; it has no address then",
            "refer to a connection of the device",
        )
    for dn in references:
        if dn.key not in connections:
            said.problem(
                f"it refers to {dn}, which is no usable connection of device {device}", "refer to one of the device"
            )
    usable = tuple(dict.fromkeys(connections[dn.key] for dn in references if dn.key in connections))
    unread = not usable and any(
        "dicomtlsciphersuite" in each.attributes and any(each.dn.key == dn.key for dn in references)
        for each in below.get(entry.dn.parent.key, [])
    )  # it would no longer be held to TLS
    initiator = said.must_flag("dicomAssociationInitiator", assumed=True)
    acceptor = said.must_flag("dicomAssociationAcceptor", assumed=False)
    capabilities = [_capability(each, problems) for each in below.get(entry.dn.key, []) if each.is_a(schema.CAPABILITY)]
    installed = said.flag("dicomInstalled")
    faults_before = len(problems)
    rules = _rules(said)
    if unread or len(problems) > faults_before:
        said.problem("what bounds it cannot be read; it is known and not served", "mend what is told of it above")
        installed = False
    return NetworkAE(
        ae_title=title,
        connections=usable,
        initiator=initiator,
        acceptor=acceptor,
        description=said.text("dicomDescription"),
        clusters=said.texts("dicomApplicationCluster"),
        preferred_called=said.texts("dicomPreferredCalledAETitle"),
        preferred_calling=said.texts("dicomPreferredCallingAETitle"),
        character_sets=said.texts("dicomSupportedCharacterSet"),
        installed=installed,
        capabilities=tuple(
            sorted(
                (each for each in capabilities if each is not None),
                key=lambda each: (each.name, each.sop_class, each.role),
            )
        ),
        rules=rules,
    )


def _capability(entry: Entry, problems: list[Problem]) -> TransferCapability | None:
    said = _Reader(entry, problems)
    sop_class = said.must("dicomSOPClass", "the transfer capability is left out")
    role = said.word("dicomTransferRole", Role)
    if role is None and not said.text("dicomTransferRole"):
        said.must("dicomTransferRole", "the transfer capability is left out")
    syntaxes = said.texts("dicomTransferSyntax")
    if not syntaxes:
        said.must("dicomTransferSyntax", "the transfer capability is left out")
    if not sop_class or role is None or not syntaxes:
        return None
    return TransferCapability(sop_class, role, syntaxes, said.text("cn"))


def _rules(said: _Reader) -> Rules:
    return Rules(
        profile=said.text("gatewayProfile"),
        sees=said.word("gatewaySees", Sees),
        sites=said.texts("gatewaySite"),
        mpps_strict=bool(said.flag("gatewayMPPSStrict")),
        mpps_answers=said.word("gatewayMPPSAnswers", MPPSAnswers) or MPPSAnswers.STATUS,
        may=said.texts("gatewayMay"),
        addresses=said.texts("gatewayAddress"),
        certificates=said.texts("gatewayCertificate"),
        called=said.texts("gatewayCalledAETitle"),
        tls_required=bool(said.flag("gatewayTLSRequired")),
        users=bool(said.flag("gatewayUserRequired")),
    )
