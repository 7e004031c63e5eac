"""What has to change in LDAP for a device to stand there as is wanted. Nothing here talks to a server.

Entries are written with the standard's attributes, and our own auxiliary classes where those say nothing. Only what
differs from what was *read* is changed: values, references and whole entries that our model has no place for, or that
cannot be read, stay as they are, since nobody who edits a device here has seen them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.devices import MPPSAnswers
from gateway.domain.directory import (
    NO_RULES,
    DeviceEntry,
    NetworkAE,
    NetworkConnection,
    Protocol,
    TransferCapability,
)
from gateway.domain.directory_checks import legal_ae_title
from gateway.domain.directory_names import called_as_there
from gateway.edges import ldap_schema as schema
from gateway.edges.ldap_entries import (
    Entry,
    Identity,
    Key,
    Values,
    capability_identity,
    is_foreign_connection,
    places_of,
    references,
)
from gateway.wire.distinguished_names import DN, Part, parse_dn


def unwritable(device: DeviceEntry) -> tuple[str, ...]:
    """What the device lacks of what Annex H demands of its entries, in words; () for nothing."""
    faults = []
    names = {each.name for each in device.connections}
    if not device.name.strip():
        faults.append("it has no name")
    faults += [f"connection {each.name} has no host" for each in device.connections if not each.host.strip()]
    for ae in device.aes:
        faults += [
            f"AE {ae.ae_title} names connection {name}, which it has not"
            for name in ae.connections
            if name not in names
        ]
        if not ae.connections:
            faults.append(f"AE {ae.ae_title} has no connection: say the host it is at")
        if not legal_ae_title(ae.ae_title):
            faults.append(f"{ae.ae_title!r} is no AE title")
        faults += [
            f"AE {ae.ae_title} names no transfer syntax for {each.sop_class}"
            for each in ae.capabilities
            if not each.transfer_syntaxes
        ]
    return tuple(faults)


def entries_of(device: DeviceEntry, devices: DN) -> Iterator[Entry]:
    """The entries of a device that stands below `devices`, parents first."""
    return (entry for _, entry in _identified(device, devices, {}))


def _identified(device: DeviceEntry, devices: DN, places: Mapping[Identity, Entry]) -> Iterator[tuple[Identity, Entry]]:
    """The same, by what they are. `places` are entries where parts stand already; others get names of their own."""

    def place(known: Identity, name: DN) -> DN:
        return places[known].dn if known in places else name

    dn = place(("device",), devices.child(("dicomDeviceName", device.name)))
    yield ("device",), Entry(dn, _device_attributes(device))
    at: dict[str, DN] = {}
    for connection in device.connections:
        known: Identity = ("connection", connection.name)
        at[connection.name] = place(known, dn.child(("cn", connection.name)))
        yield known, Entry(at[connection.name], _connection_attributes(connection))
    for ae in device.aes:
        known = ("ae", ae.ae_title)
        ae_dn = place(known, dn.child(("dicomAETitle", ae.ae_title)))
        yield known, Entry(ae_dn, _ae_attributes(ae, [at[name] for name in ae.connections if name in at]))
        for each in ae.capabilities:
            known = capability_identity(ae.ae_title, each)
            yield known, Entry(place(known, ae_dn.child(*_capability_name(each))), _capability_attributes(each))


def _capability_name(each: TransferCapability) -> tuple[Part, ...]:
    if each.name:
        return (("cn", each.name),)
    return ("dicomSOPClass", each.sop_class), ("dicomTransferRole", each.role.value)


def _values(**said: object) -> dict[str, Values]:
    """Attributes with values; those without any are left out."""
    found: dict[str, Values] = {}
    for name, value in said.items():
        each = value if isinstance(value, tuple) else (value,)
        encoded = tuple(_encoded(one) for one in each if one not in ("", None))
        if encoded:
            found[name.lower()] = encoded
    return found


def _encoded(value: object) -> bytes:
    return (str(value).upper() if isinstance(value, bool) else str(value)).encode()


def _device_attributes(device: DeviceEntry) -> dict[str, Values]:
    return _values(
        objectClass=schema.DEVICE,
        dicomDeviceName=device.name,
        dicomInstalled=device.installed,
        dicomDescription=device.description,
        dicomManufacturer=device.manufacturer,
        dicomManufacturerModelName=device.model,
        dicomSoftwareVersion=device.software_versions,
        dicomStationName=device.station_name,
        dicomDeviceSerialNumber=device.serial_number,
        dicomInstitutionName=device.institution_names,
        dicomInstitutionAddress=device.institution_addresses,
        dicomInstitutionDepartmentName=device.departments,
        dicomIssuerOfPatientID=device.issuer_of_patient_id,
        dicomPrimaryDeviceType=device.primary_types,
        dicomRelatedDeviceReference=device.related_devices,
        dicomAuthorizedNodeCertificateReference=device.authorized_certificates,
        dicomThisNodeCertificateReference=device.own_certificates,
    )


def _connection_attributes(connection: NetworkConnection) -> dict[str, Values]:
    other = connection.protocol is not Protocol.DICOM
    return _values(
        objectClass=(schema.CONNECTION, schema.OWN_CONNECTION) if other else schema.CONNECTION,
        cn=connection.name,
        dicomHostname=connection.host,
        dicomPort=connection.port,
        dicomTLSCipherSuite=connection.tls_suites,
        dicomInstalled=connection.installed,
        gatewayProtocol=connection.protocol.value if other else "",
    )


def _ae_attributes(ae: NetworkAE, connections: Sequence[DN]) -> dict[str, Values]:
    rules = ae.rules
    own = rules != NO_RULES
    attributes = _values(
        objectClass=(schema.NETWORK_AE, schema.OWN_AE) if own else schema.NETWORK_AE,
        dicomAETitle=ae.ae_title,
        dicomNetworkConnectionReference=tuple(connections),
        dicomAssociationInitiator=ae.initiator,
        dicomAssociationAcceptor=ae.acceptor,
        dicomDescription=ae.description,
        dicomApplicationCluster=ae.clusters,
        dicomPreferredCalledAETitle=ae.preferred_called,
        dicomPreferredCallingAETitle=ae.preferred_calling,
        dicomSupportedCharacterSet=ae.character_sets,
        dicomInstalled=ae.installed,
    )
    if not own:
        return attributes
    return attributes | _values(
        gatewayProfile=rules.profile,
        gatewaySees=rules.sees,
        gatewaySite=rules.sites,
        gatewayMPPSStrict=rules.mpps_strict or None,
        gatewayMPPSAnswers=rules.mpps_answers if rules.mpps_answers is not MPPSAnswers.STATUS else None,
        gatewayMay=rules.may,
        gatewayAddress=rules.addresses,
        gatewayCertificate=rules.certificates,
        gatewayCalledAETitle=rules.called,
        gatewayTLSRequired=rules.tls_required or None,
        gatewayUserRequired=rules.users or None,
    )


def _capability_attributes(each: TransferCapability) -> dict[str, Values]:
    return _values(
        objectClass=schema.CAPABILITY,
        cn=each.name,
        dicomSOPClass=each.sop_class,
        dicomTransferRole=each.role.value,
        dicomTransferSyntax=each.transfer_syntaxes,
    )


def registry_entry(ae_title: str, root: DN) -> Entry:
    """The entry that reserves an AE title."""
    dn = schema.registry_dn(root).child(("dicomAETitle", ae_title))
    return Entry(dn, _values(objectClass=schema.UNIQUE_AE_TITLE, dicomAETitle=ae_title))


# --- what has to change


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that has other values: attribute in lower case -> (values before, values wanted)."""

    dn: DN
    attributes: Mapping[str, tuple[Values, Values]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes the entries of a device those that are wanted: adds parents first, deletes children first."""

    adds: tuple[Entry, ...] = ()
    changes: tuple[Change, ...] = ()
    deletes: tuple[Entry, ...] = ()


_MANAGED = {
    schema.DEVICE: schema.attributes_of(schema.DEVICE) - {"dicomvendordata"},
    schema.CONNECTION: schema.attributes_of(schema.CONNECTION, schema.OWN_CONNECTION),
    schema.NETWORK_AE: schema.attributes_of(schema.NETWORK_AE, schema.OWN_AE) - {"dicomvendordata"},
    schema.CAPABILITY: schema.attributes_of(schema.CAPABILITY),
}
"""Class -> the attributes that our model has a place for. All others are left as they are."""

_REFERENCES = "dicomnetworkconnectionreference"


def plan_of(device: DeviceEntry, devices: DN, existing: Sequence[Entry]) -> Plan:
    """How to get from the existing entries of the device, if any, to those of `device`, by the smallest change.

    `existing` has the device's own entry first. Raises ValueError, with words, where something foreign stands in the
    way.
    """
    if not existing:
        return Plan(adds=tuple(entries_of(device, devices)))
    read, places = places_of(existing)
    device = called_as_there(device, read)
    by_key = {each.dn.key: each for each in existing}
    said = {entry.dn.key: entry for _, entry in _identified(read, devices, places)}
    stays = dict(places)
    for known, wanted in _identified(device, devices, places):
        have = by_key.get(wanted.dn.key)
        if have is not None and any(
            kind.lower() in _differing(have, said.get(have.dn.key, have), wanted) for kind, _ in have.dn.rdns[0]
        ):
            stays.pop(known, None)  # its name would say something else than it holds: a new entry
    adds: list[Entry] = []
    changes: list[Change] = []
    kept: set[Key] = set()
    for _, wanted in _identified(device, devices, stays):
        have = by_key.get(wanted.dn.key)
        if have is None:
            adds.append(wanted)
            continue
        if is_foreign_connection(have):
            raise ValueError(f"{have.dn} is for another protocol; give the connection of {device.name} another name")
        kept.add(have.dn.key)
        differing = _differing(have, said.get(have.dn.key, have), wanted)
        if differing:
            changes.append(Change(have.dn, differing))
    return Plan(tuple(adds), tuple(changes), _gone(existing, places, kept))


def _gone(existing: Sequence[Entry], places: Mapping[Identity, Entry], kept: set[Key]) -> tuple[Entry, ...]:
    """What was read and is not wanted any more, with all below it, but for connections that a foreign entry uses."""
    unwanted = [entry for entry in places.values() if entry.dn.key not in kept]

    def goes(entry: Entry, gone: Sequence[Entry]) -> bool:
        return any(entry.dn.key == each.dn.key or entry.dn.is_below(each.dn) for each in gone)

    foreign = [each for each in existing if each.dn.key not in kept and not goes(each, unwanted)]
    used = {key for each in foreign for key in references(each)}
    unwanted = [each for each in unwanted if not (each.is_a(schema.CONNECTION) and each.dn.key in used)]
    return deepest_first(each for each in existing if goes(each, unwanted))


def deepest_first(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """In the order in which they can be deleted."""
    return tuple(sorted(entries, key=lambda each: -len(each.dn.rdns)))


def _differing(have: Entry, said: Entry, wanted: Entry) -> dict[str, tuple[Values, Values]]:
    """The attributes that are to be others than `said`, which is what reading made of the entry."""
    managed = next(names for kind, names in _MANAGED.items() if wanted.is_a(kind))
    differing: dict[str, tuple[Values, Values]] = {}
    for name in sorted(managed):
        after = wanted.attributes.get(name, ())
        if _same(name, said.attributes.get(name, ()), after, in_name=bool(have.dn.value(name))):
            continue
        if name == _REFERENCES:
            understood = references(said)
            after += tuple(value for key, value in references(have).items() if key not in understood)
        differing[name] = have.attributes.get(name, ()), after
    missing = tuple(
        each
        for each in wanted.attributes["objectclass"]
        if not have.is_a(each.decode()) and not said.is_a(each.decode())
    )
    if missing:
        classes = have.attributes.get("objectclass", ())
        differing["objectclass"] = classes, classes + missing
    return differing


def _same(name: str, before: Values, after: Values, *, in_name: bool) -> bool:
    if before == after:
        return True
    row = schema.ATTRIBUTES.get(name)
    if row is not None and row.syntax is schema.NAME:
        return _keys(before) == _keys(after)
    if in_name and name != "dicomaetitle":  # another case is the same name
        return [each.lower() for each in before] == [each.lower() for each in after]
    return False


def _keys(values: Values) -> list[object]:
    keys: list[object] = []
    for value in values:
        try:
            keys.append(parse_dn(value.decode()).key)
        except ValueError:
            keys.append(value)
    return keys
