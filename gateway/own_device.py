"""Our own entry for a directory of devices (PS3.15 H.1.4.3): what this gateway is, where it listens, what it offers.

All of it comes from the settings and from the tables that the code runs on; the conformance statement is made of the
same tables.
"""

import socket
from collections.abc import Iterator
from importlib.metadata import version

from gateway.config import DICOMSettings, HL7Settings, Settings, own_name
from gateway.destinations import DestinationSettings
from gateway.domain.directory import (
    DeviceEntry,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Role,
    TransferCapability,
)
from gateway.edges import performed_channel
from gateway.security_settings import TLSSettings, tls_of
from gateway.wire import upper_layer
from gateway.wire.charsets import DEFINED_TERMS
from gateway.wire.host_ports import is_loopback
from gateway.wire.tls_profiles import PROFILES, Version
from gateway.workflow.ports import DeliveryKind

DEVICE_TYPE = "DSS"
"""Department System Scheduler (PS3.16 CID 30): who schedules procedure steps and manages worklists."""

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  (what a listener on every address is written as)

_SENT_AS = {DeliveryKind.PERFORMED: Role.SCU, DeliveryKind.NOTIFICATION: Role.SCP}
"""Of events we are the SCP although we ask for the association (PS3.4 F.9)."""


def own_device(settings: Settings) -> DeviceEntry:
    """The device that this gateway is by its settings."""
    host = settings.devices.own_host
    dicom = tuple(_listening("dicom", settings.dicom, settings.tls, host))
    connections = list(dicom)
    for listener in settings.hl7:
        connections += _listening(f"hl7-{listener.name}", listener, settings.tls, host, Protocol.HL7)
    return DeviceEntry(
        name=own_name(settings),
        description="Modality worklist and MPPS gateway",
        model="modality-gateway",
        software_versions=(version("modality-gateway"), upper_layer.IMPLEMENTATION_VERSION_NAME),
        primary_types=(DEVICE_TYPE,),
        connections=tuple(connections),
        aes=tuple(_aes(settings, tuple(each.name for each in dicom))),
    )


def _listening(
    name: str,
    listener: DICOMSettings | HL7Settings,
    common: TLSSettings,
    said: str,
    protocol: Protocol = Protocol.DICOM,
) -> Iterator[NetworkConnection]:
    """Where others reach a listener: `said`, else its address, or this machine's name where it has every address."""
    host = said or (socket.getfqdn() if listener.host in _EVERY_ADDRESS else listener.host)
    if listener.plain:
        yield NetworkConnection(name, host, listener.port, protocol=protocol)
    if listener.tls:
        profile = PROFILES[tls_of(common, listener.tls).profile or "bcp195"]
        suites = dict.fromkeys(suite for each in reversed(Version) for suite in profile.suites_of(each))
        yield NetworkConnection(f"{name}-tls", host, listener.tls.port, tuple(suites), protocol=protocol)


def unreachable(entry: DeviceEntry) -> tuple[str, ...]:
    """Why others would not find our device by this entry, for people: connections that lead back to whoever asks."""
    return tuple(
        f"others would look for us at {each.host} ({each.name}), which is whatever machine asks"
        for each in entry.connections
        if is_loopback(each.host)
    )


REACHED_HINT = "say by `devices.own_host` which name or address they reach us by, and listen there"


def _aes(settings: Settings, connections: tuple[str, ...]) -> Iterator[NetworkAE]:
    """An AE for each AE title that is answered, and for each that we call others by."""
    answered = [each.ae_title for each in settings.worklists] or [settings.ae_title]
    described = {each.ae_title: each.description for each in settings.worklists}
    calling = {settings.ae_title: {_verified()}}
    for place in settings.destinations:
        if place.performed is not None:
            title = place.performed.calling_ae_title or settings.ae_title
            calling.setdefault(title, set()).add(_sent(place))
    for title in dict.fromkeys((*answered, *calling)):
        served = offered() if title in answered else ()
        asked = sorted(calling.get(title, ()), key=lambda each: (each.sop_class, each.role))
        yield NetworkAE(
            title,
            connections,
            initiator=bool(asked),
            acceptor=bool(served),
            description=described.get(title, ""),
            character_sets=DEFINED_TERMS,
            capabilities=(*served, *asked),
        )


def offered() -> tuple[TransferCapability, ...]:
    """What every AE of ours that is called offers as SCP."""
    return tuple(
        TransferCapability(uid, Role.SCP, upper_layer.TRANSFER_SYNTAXES) for uid in upper_layer.SOP_CLASSES
    )  # fmt: skip


def _verified() -> TransferCapability:
    """C-ECHO to others, as `gateway devices echo` does."""
    return TransferCapability(upper_layer.VERIFICATION, Role.SCU, upper_layer.TRANSFER_SYNTAXES)


def _sent(place: DestinationSettings) -> TransferCapability:
    """What a destination of performed steps is called with."""
    events = place.performed is not None and place.performed.sends == "events"
    kind = DeliveryKind.NOTIFICATION if events else DeliveryKind.PERFORMED
    sop_class, syntaxes = performed_channel.SOP_CLASS_OF[kind], performed_channel.TRANSFER_SYNTAXES
    return TransferCapability(sop_class, _SENT_AS[kind], tuple(syntaxes))
