"""The device registry: entries of `devices.yaml`, the directory they mean, and the `Devices` made of it.

A directory comes from `devices.yaml` or from LDAP; the file in which the last one of LDAP is kept has the form of
`devices.yaml`. `directory_of` and `entries_of` are each other's inverse. What is wrong with a directory is found by
`domain.directory_checks`; here is decided what of it is served nevertheless.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.device_settings import TLS_SUITES, AEPart, AESettings, ConnectionSettings, DeviceSettings, DevicesFile
from gateway.domain.access import (
    EVERYTHING,
    OPEN,
    Access,
    CertificateRule,
    CertificateRuleKind,
    Permission,
    certificate_rule,
    network_of,
)
from gateway.domain.devices import PLAIN, CalledWorklist, CharacterSets, Device, Devices, MPPSAnswers, Profile
from gateway.domain.directory import (
    NO_RULES,
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Rules,
    TransferCapability,
)
from gateway.profile_settings import OWN_AE_TITLE
from gateway.security_settings import DeviceGroupSettings
from gateway.wire.charsets import DEFINED_TERMS

_DICOM, _HL7 = "dicom", "hl7"
"""What the connections of an entry with `host` are called."""


# ---- entries -> directory ----


def directory_of(file: DevicesFile) -> Directory:
    """The directory that these entries describe."""
    return Directory(tuple(map(_device_entry, file.devices)))


def _device_entry(said: DeviceSettings) -> DeviceEntry:
    connections = _connections(said)
    aes: Sequence[AEPart] = said.aes or ((said,) if said.ae_title else ())
    return DeviceEntry(
        name=said.name or said.ae_title,
        installed=said.installed,
        description=said.description,
        manufacturer=said.manufacturer,
        model=said.model,
        software_versions=said.software_versions,
        station_name=said.station_name,
        serial_number=said.serial_number,
        institution_names=said.institutions,
        institution_addresses=said.institution_addresses,
        departments=said.departments,
        issuer_of_patient_id=said.issuer_of_patient_id,
        primary_types=said.types,
        related_devices=said.related_devices,
        authorized_certificates=said.authorized_certificates,
        own_certificates=said.own_certificates,
        fingerprints=said.fingerprints,
        connections=connections,
        aes=tuple(_network_ae(each, connections) for each in aes),
    )


def _connections(said: DeviceSettings) -> tuple[NetworkConnection, ...]:
    if said.host is None:
        return tuple(map(_connection, said.connections))
    return _of_host(said.host, said.port, _suites(said), said.hl7_port, called=bool(said.ae_title or said.aes))


def _of_host(
    host: str, port: int | None, suites: tuple[str, ...], hl7_port: int | None, *, called: bool
) -> tuple[NetworkConnection, ...]:
    """The connections of an entry with `host`. One without AEs may have HL7 alone."""
    hl7 = NetworkConnection(_HL7, host, hl7_port, protocol=Protocol.HL7)
    if not called and port is None and hl7_port is not None:
        return (hl7,)
    dicom = NetworkConnection(_DICOM, host, port, suites)
    return (dicom,) if hl7_port is None else (dicom, hl7)


def _connection(said: ConnectionSettings) -> NetworkConnection:
    return NetworkConnection(said.name, said.host, said.port, _suites(said), said.installed, said.protocol)


def _suites(said: ConnectionSettings | DeviceSettings) -> tuple[str, ...]:
    return said.tls_suites or (TLS_SUITES if said.tls else ())


def _network_ae(said: AEPart, connections: Sequence[NetworkConnection]) -> NetworkAE:
    several = isinstance(said, AESettings)
    named = said.connections if isinstance(said, AESettings) else None
    names = _every_dicom(connections) if named is None else named
    return NetworkAE(
        ae_title=said.ae_title,
        connections=names,
        initiator=said.initiator is not False,
        acceptor=_has_port(names, connections) if said.acceptor is None else said.acceptor,
        description=said.description if several else "",  # of an entry with one AE it is the device's
        clusters=(said.group, *said.groups) if said.group else said.groups,
        preferred_called=said.preferred_called,
        preferred_calling=said.preferred_calling,
        character_sets=said.character_sets,
        installed=said.installed if isinstance(said, AESettings) else None,
        capabilities=tuple(
            _shared_capability(each.sop_class, each.role, each.transfer_syntaxes, each.name)
            for each in said.capabilities
        ),
        rules=_rules(said),
    )


_shared_capability = lru_cache(maxsize=4096)(TransferCapability)
"""Ten thousand devices offer much the same: each capability is held once."""


def _rules(said: AEPart) -> Rules:
    if said.model_fields_set.isdisjoint(_RULES):
        return NO_RULES
    return Rules(
        profile=said.profile,
        sees=said.sees,
        sites=said.sites,
        mpps_strict=said.mpps_strict,
        mpps_answers=said.mpps_answers,
        may=tuple(map(str, said.may)),
        addresses=said.addresses,
        certificates=said.certificates,
        called=said.called,
        tls_required=said.tls_required,
        users=said.users,
    )


_RULES = tuple(field for field in Rules.__dataclass_fields__)


def _every_dicom(connections: Iterable[NetworkConnection]) -> tuple[str, ...]:
    return tuple([each.name for each in connections if each.protocol is Protocol.DICOM])


def _has_port(names: Collection[str], connections: Iterable[NetworkConnection]) -> bool:
    return any(each.port is not None for each in connections if each.name in names)


# ---- directory -> entries ----


def entries_of(directory: Directory) -> dict[str, Any]:
    """The directory as plain data, each entry in its shortest form: what `devices.yaml` would say."""
    return {"devices": [_entry(device) for device in directory.devices]}


def _entry(device: DeviceEntry) -> dict[str, Any]:
    alone = device.aes[0] if len(device.aes) == 1 else None
    if alone is not None and not _fits_short(alone, device):
        alone = None
    title = alone.ae_title if alone is not None else ""
    entry: dict[str, Any] = {"ae_title": title, "name": "" if device.name == title else device.name}
    entry["description"] = device.description
    entry |= _addresses(device)
    if alone is not None:
        entry |= _ae(alone, device.connections)
    entry |= {
        "types": device.primary_types,
        "station_name": device.station_name,
        "manufacturer": device.manufacturer,
        "model": device.model,
        "software_versions": device.software_versions,
        "serial_number": device.serial_number,
        "institutions": device.institution_names,
        "institution_addresses": device.institution_addresses,
        "departments": device.departments,
        "issuer_of_patient_id": device.issuer_of_patient_id,
        "related_devices": device.related_devices,
        "authorized_certificates": device.authorized_certificates,
        "own_certificates": device.own_certificates,
        "fingerprints": {name: list(digits) for name, digits in device.fingerprints.items()},
    }
    if alone is None:
        entry["aes"] = [_ae_of_several(ae, device.connections) for ae in device.aes]
    return _said(entry) | ({} if device.installed else {"installed": False})


def _fits_short(ae: NetworkAE, device: DeviceEntry) -> bool:
    """Whether an entry with one AE says all of it."""
    return not ae.description and ae.installed is None and ae.connections == _every_dicom(device.connections)


def _addresses(device: DeviceEntry) -> dict[str, Any]:
    """`host` and its ports where they say the same as the list of connections."""
    connections = device.connections
    if not connections:
        return {}
    by_name = {each.name: each for each in connections}
    dicom, hl7 = by_name.get(_DICOM), by_name.get(_HL7)
    host, port = connections[0].host, dicom.port if dicom else None
    suites, hl7_port = dicom.tls_suites if dicom else (), hl7.port if hl7 else None
    if connections == _of_host(host, port, suites, hl7_port, called=bool(device.aes)):
        return {"host": host, "port": port, **_tls(suites), "hl7_port": hl7_port}
    return {"connections": [_connection_entry(each) for each in connections]}


def _connection_entry(connection: NetworkConnection) -> dict[str, Any]:
    return _said(
        {
            "name": connection.name,
            "host": connection.host,
            "port": connection.port,
            **_tls(connection.tls_suites),
            "installed": connection.installed,
            "protocol": "" if connection.protocol is Protocol.DICOM else connection.protocol.value,
        }
    )


def _tls(suites: tuple[str, ...]) -> dict[str, Any]:
    return {"tls": True} if suites == TLS_SUITES else {"tls_suites": suites}


def _ae_of_several(ae: NetworkAE, connections: Sequence[NetworkConnection]) -> dict[str, Any]:
    named = list(ae.connections) if ae.connections != _every_dicom(connections) else None
    fixed: dict[str, Any] = {} if named is None else {"connections": named}  # an empty list says something
    return (
        _said({"ae_title": ae.ae_title, "description": ae.description, "installed": ae.installed})
        | fixed
        | _said(_ae(ae, connections))
    )


def _ae(ae: NetworkAE, connections: Sequence[NetworkConnection]) -> dict[str, Any]:
    rules = ae.rules
    return {
        "group": ae.clusters[0] if ae.clusters else "",
        "groups": ae.clusters[1:],
        "sites": rules.sites,
        "profile": rules.profile,
        "sees": rules.sees.value if rules.sees else None,
        "mpps_strict": rules.mpps_strict or None,
        "mpps_answers": None if rules.mpps_answers is MPPSAnswers.STATUS else rules.mpps_answers.value,
        "character_sets": ae.character_sets,
        "may": rules.may,
        "addresses": rules.addresses,
        "certificates": rules.certificates,
        "called": rules.called,
        "tls_required": rules.tls_required or None,
        "users": rules.users or None,
        "initiator": None if ae.initiator else False,
        "acceptor": None if ae.acceptor == _has_port(ae.connections, connections) else ae.acceptor,
        "preferred_called": ae.preferred_called,
        "preferred_calling": ae.preferred_calling,
        "capabilities": [_capability(each) for each in ae.capabilities],
    }


def _capability(capability: TransferCapability) -> dict[str, Any]:
    return _said(
        {
            "name": capability.name,
            "sop_class": capability.sop_class,
            "role": capability.role.value,
            "transfer_syntaxes": capability.transfer_syntaxes,
        }
    )


def _said(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing; tuples as lists."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in entry.items()
        if value is not None and value not in ("", (), [], {})
    }


# ---- directory -> registry ----


_NO_GROUPS: Mapping[str, Rules] = {}


def group_rules(said: Mapping[str, DeviceGroupSettings]) -> Mapping[str, Rules]:
    """The bounds of each group, in the form of those of an AE."""
    return {
        name: Rules(
            may=tuple(map(str, group.may)),
            addresses=group.addresses,
            certificates=group.certificates,
            called=group.called,
            tls_required=group.tls_required,
            users=group.users,
        )
        for name, group in said.items()
    }


def bounded(entry: DeviceEntry, ae: NetworkAE, groups: Mapping[str, Rules]) -> NetworkAE:
    """The AE with what its groups say where it says nothing itself; of several groups the first that says it counts.

    The certificates that the directory has of a device are said by it. TLS and users cannot be said to be needless.
    """
    theirs = [groups[name] for name in ae.clusters if name in groups] if groups else ()
    if not theirs:
        return ae
    own, pinned = ae.rules, any(entry.fingerprints.get(each) for each in entry.own_certificates)
    certificates = own.certificates or _first(each.certificates for each in theirs)
    return replace(
        ae,
        rules=replace(
            own,
            may=own.may or _first(each.may for each in theirs),
            addresses=own.addresses or _first(each.addresses for each in theirs),
            certificates=own.certificates if pinned else certificates,
            called=own.called or _first(each.called for each in theirs),
            tls_required=own.tls_required or bool(certificates) or any(each.tls_required for each in theirs),
            users=own.users or any(each.users for each in theirs),
        ),
    )


def _first(said: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return next(filter(None, said), ())


def registry(
    directory: Directory,
    profiles: Iterable[Profile],
    worklists: Sequence[CalledWorklist],
    *,
    accept_unknown: bool,
    ask: bool = False,
    not_served: Collection[str] = (),
    groups: Mapping[str, Rules] = _NO_GROUPS,
) -> Devices:
    """The registry of all AEs. Known and not served are those that call nobody by the directory, and `not_served`:
    what it says of them cannot be relied on. As strangers they might be let in, with everything. `groups` are the
    bounds of each group's devices."""
    shelf = {profile.name: profile for profile in profiles}
    bent: dict[tuple[Any, ...], Profile] = {}
    callers = []
    for entry in directory.devices:
        for ae in entry.aes:
            profile = _bent(shelf.get(ae.rules.profile, PLAIN), ae, bent)
            served = ae.initiator and ae.ae_title not in not_served
            callers.append(device(entry, bounded(entry, ae, groups), profile, served=served))
    return Devices.of(
        callers, accept_unknown=accept_unknown, profiles=shelf.values(), worklists=worklists, ask=ask
    )  # fmt: skip


def device(entry: DeviceEntry, ae: NetworkAE, profile: Profile = PLAIN, *, served: bool = True) -> Device:
    """The AE as a caller; what bounds it counts only if it is `served`."""
    rules = ae.rules
    return Device(
        ae_title=ae.ae_title,
        description=ae.description or entry.description,
        group=ae.clusters[0] if ae.clusters else "",
        sites=frozenset(rules.sites),
        mpps_strict=rules.mpps_strict,
        profile=profile,
        mpps_answers=rules.mpps_answers,
        access=_access(entry, ae) if served else OPEN,
        installed=served and entry.is_installed(ae.installed),
    )


def _bent(profile: Profile, ae: NetworkAE, bent: dict[tuple[Any, ...], Profile]) -> Profile:
    """The profile with what the AE says itself: its title where `force` asks for it, what it sees, its character sets.

    Equal ones are one: answers are kept by profile.
    """
    force = profile.force and tuple(
        (keyword, value.replace(OWN_AE_TITLE, ae.ae_title)) for keyword, value in profile.force
    )
    sees = ae.rules.sees or profile.sees
    declares = profile.character_sets
    if ae.character_sets and not (declares.declared or declares.fixed):
        declares = _declared(declares, ae.character_sets)
    if (force, sees, declares) == (profile.force, profile.sees, profile.character_sets):
        return profile
    key = (profile, force, sees, declares)
    if key not in bent:
        bent[key] = replace(profile, force=force, sees=sees, character_sets=declares)
    return bent[key]


@lru_cache(maxsize=1024)
def _declared(sets: CharacterSets, said: tuple[str, ...]) -> CharacterSets:
    return replace(sets, declared=tuple(term for term in said if term in DEFINED_TERMS))


def _access(entry: DeviceEntry, ae: NetworkAE) -> Access:
    """What this AE is bound to; the certificates that the directory has of its device bind it once it uses TLS."""
    rules, tls = ae.rules, entry.must_use_tls(ae)
    if rules is NO_RULES and not entry.own_certificates:
        return _TLS_ONLY if tls else OPEN
    return Access(
        may=frozenset(map(Permission, rules.may)) or EVERYTHING,
        networks=tuple(map(network_of, rules.addresses)),
        certificates=tuple(map(certificate_rule, rules.certificates)),
        pinned=tuple(_own_certificates(entry)),
        called=frozenset(rules.called),
        tls_required=tls,
        user_required=rules.users,
    )


_TLS_ONLY = Access(tls_required=True)


def _own_certificates(entry: DeviceEntry) -> Iterable[CertificateRule]:
    for name in entry.own_certificates:
        for fingerprint in entry.fingerprints.get(name, ()):
            yield certificate_rule(f"{CertificateRuleKind.FINGERPRINT}:{fingerprint}")
