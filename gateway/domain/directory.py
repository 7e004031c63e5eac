"""Devices as a configuration directory describes them: PS3.15 Annex H, whether they stand in a file or in LDAP.

A directory is read whole, checked whole and then replaced whole (design D7). What a running gateway goes by, the
registry of callers, is `devices`; it is made from a directory. Here are the entries as the standard has them, what we
add to them, and what can be wrong with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.devices import MPPSAnswers, Sees


class Role(StrEnum):
    """dicomTransferRole."""

    SCU = "SCU"
    SCP = "SCP"


class Protocol(StrEnum):
    """What is spoken on a connection. The standard knows DICOM; others are the extension that dcm4chee has."""

    DICOM = "DICOM"
    HL7 = "HL7"


@dataclass(frozen=True, slots=True)
class NetworkConnection:
    """An address of a device (dicomNetworkConnection, PS3.15 table H.1-7).

    `port` is None where the device only initiates. Any suite in `tls_suites` says that TLS must be used on it.
    `installed` None: as the device.
    """

    name: str
    host: str
    port: int | None = None
    tls_suites: tuple[str, ...] = ()
    installed: bool | None = None
    protocol: Protocol = Protocol.DICOM

    @property
    def tls(self) -> bool:
        """Whether only TLS may be spoken on it."""
        return bool(self.tls_suites)


@dataclass(frozen=True, slots=True)
class TransferCapability:
    """A SOP class in one role, and its transfer syntaxes, as UIDs (dicomTransferCapability, table H.1-9)."""

    sop_class: str
    role: Role
    transfer_syntaxes: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """How this gateway treats an AE: what no attribute of the standard says. In LDAP: our auxiliary class.

    `may` names what it may do (`access.Permission`); empty: everything. `addresses` are networks (CIDR) or addresses
    it calls from, empty: any. `certificates` are what its certificate must be one of (`access.CertificateRule` as
    text), empty: any that is trusted. `called` are AE titles it may call, empty: any of ours.
    """

    profile: str = ""
    sees: Sees | None = None
    sites: tuple[str, ...] = ()
    mpps_strict: bool = False
    mpps_answers: MPPSAnswers = MPPSAnswers.STATUS
    may: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    tls_required: bool = False
    users: bool = False
    """Whether each association must name a user who proves to be one (PS3.7 D.3.3.7)."""


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class NetworkAE:
    """An application entity of a device (dicomNetworkAE, table H.1-8). `connections` are names in its device.

    `clusters` (dicomApplicationCluster) groups AEs; the first is what the registry calls the device's group.
    `character_sets` are those the AE can receive; none: ISO_IR 6 alone.
    """

    ae_title: str
    connections: tuple[str, ...] = ()
    initiator: bool = True
    acceptor: bool = False
    description: str = ""
    clusters: tuple[str, ...] = ()
    preferred_called: tuple[str, ...] = ()
    preferred_calling: tuple[str, ...] = ()
    character_sets: tuple[str, ...] = ()
    installed: bool | None = None
    capabilities: tuple[TransferCapability, ...] = ()
    rules: Rules = NO_RULES


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device (dicomDevice, table H.1-6): a machine with its connections and application entities.

    `authorized_certificates` and `own_certificates` are DNs of entries that hold certificates; `fingerprints` are
    those of the certificates found there (SHA-256, hex, lower case), by DN.
    """

    name: str
    installed: bool = True
    description: str = ""
    manufacturer: str = ""
    model: str = ""
    software_versions: tuple[str, ...] = ()
    station_name: str = ""
    serial_number: str = ""
    institution_names: tuple[str, ...] = ()
    institution_addresses: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    issuer_of_patient_id: str = ""
    primary_types: tuple[str, ...] = ()
    """CID 30 codes, such as CT."""
    related_devices: tuple[str, ...] = ()
    authorized_certificates: tuple[str, ...] = ()
    own_certificates: tuple[str, ...] = ()
    fingerprints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    connections: tuple[NetworkConnection, ...] = ()
    aes: tuple[NetworkAE, ...] = ()

    def connections_of(self, ae: NetworkAE) -> tuple[NetworkConnection, ...]:
        """The connections that it names and that are installed, in its order."""
        named = {each.name: each for each in self.connections}
        return tuple(
            named[name] for name in ae.connections if name in named and self.is_installed(named[name].installed)
        )

    def must_use_tls(self, ae: NetworkAE) -> bool:
        """Whether who calls itself so has to come by TLS: its rules say so or name certificates, or every connection
        of it is TLS (dicomTLSCipherSuite). That the directory has a certificate of it demands nothing."""
        connections = self.connections_of(ae)
        everywhere = bool(connections) and all(each.tls for each in connections)
        return ae.rules.tls_required or bool(ae.rules.certificates) or everywhere

    def is_installed(self, part: bool | None) -> bool:
        """Whether an AE or connection that says this about itself is there: without a word it is as its device."""
        return self.installed if part is None else part and self.installed


@dataclass(frozen=True, slots=True)
class Directory:
    """Every device of one source, as it was read at once."""

    devices: tuple[DeviceEntry, ...] = ()

    def device_of(self, ae_title: str) -> tuple[DeviceEntry, NetworkAE] | None:
        """The AE of that title and its device."""
        for device in self.devices:
            for ae in device.aes:
                if ae.ae_title == ae_title:
                    return device, ae
        return None
