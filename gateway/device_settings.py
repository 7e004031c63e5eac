"""The models of `devices.yaml`: the attributes of PS3.15 Annex H, and how this gateway treats an AE.

An entry is short, with one AE (`ae_title`), or has a list of them (`aes`). What an entry means as a device of the
directory, and how a device is written as an entry, is in `registry`.
"""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from gateway.domain.devices import MPPSAnswers, Sees
from gateway.domain.directory import Protocol, Role
from gateway.security_settings import CertificateRules, Networks, Permissions
from gateway.setting_types import Port
from gateway.wire.tls_profiles import PROFILES, Version
from gateway.yaml_files import AEText, Strict

TLS_SUITES = tuple(sorted(PROFILES["bcp195"].suites_of(Version.TLS_1_2)))
"""What `tls: true` stands for: the suites that PS3.15 B.12 demands, in the order of their names, as LDAP has none."""

Text = Annotated[str, StringConstraints(min_length=1)]
AETextOrNone = Annotated[str, StringConstraints(max_length=16, strip_whitespace=True, pattern=r"^[ -\[\]-~]*$")]
HostName = Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=255)]
UIDText = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$", max_length=64)]
SuiteName = Annotated[str, StringConstraints(pattern=r"^(TLS|SSL)_[A-Z0-9_]+$")]


class CapabilitySettings(Strict):
    """A SOP class in one role (dicomTransferCapability)."""

    name: str = Field("", description="cn of its entry in LDAP; empty: it is found by SOP class and role")
    sop_class: UIDText = Field(description="UID of the SOP class")
    role: Role = Field(description="SCU or SCP; one that is both has two entries")
    transfer_syntaxes: tuple[UIDText, ...] = Field(min_length=1, description="UIDs of its transfer syntaxes")


class ConnectionSettings(Strict):
    """An address of a device (dicomNetworkConnection)."""

    name: Text = Field(description="what `connections` of an AE names it by")
    host: HostName = Field(description="host name or address")
    port: Port | None = Field(None, description="TCP port; none where the device only calls")
    tls: bool = Field(False, description="whether only TLS may be spoken on it, with the suites of PS3.15 B.12")
    tls_suites: tuple[SuiteName, ...] = Field((), description="TLS with these suites, e.g. TLS_RSA_WITH_AES_128_...")
    installed: bool | None = Field(None, description="whether it is there; null: as its device")
    protocol: Protocol = Field(Protocol.DICOM, description="what is spoken on it")


class AEPart(Strict):
    """What is said of one application entity, in an entry of one or in a list."""

    ae_title: AETextOrNone = ""
    description: str = Field("", description="for people")
    group: str = Field("", description="devices that share their work, for `sees: group` and called worklists")
    groups: tuple[Text, ...] = Field((), description="further groups it is in (dicomApplicationCluster)")
    sites: tuple[str, ...] = Field((), description="sites whose orders it may see; empty: every site's")
    profile: str = Field("", description="the entry of profiles.yaml that bends its rules; empty: none")
    sees: Sees | None = Field(None, description="in place of what its profile says; without a profile: all")
    mpps_strict: bool = Field(False, description="refuse incomplete MPPS instead of mending them")
    mpps_answers: MPPSAnswers = Field(
        MPPSAnswers.STATUS,
        description="what its MPPS are answered with: status, or dataset for devices that want the attributes back",
    )
    character_sets: tuple[Text, ...] = Field(
        (), description="defined terms it can receive, e.g. ISO_IR 100; for answers where its profile names none"
    )
    may: Permissions = Field((), description="all that it may do; empty: everything")
    addresses: Networks = Field((), description="addresses or networks it calls from; empty: any")
    certificates: CertificateRules = Field(
        (), description="what its certificate must be one of: sha256:, subject: or name:; empty: any trusted, or none"
    )
    called: tuple[AEText, ...] = Field((), description="AE titles of ours it may call; empty: any")
    tls_required: bool = Field(False, description="whether it is refused without TLS, though its address has none")
    users: bool = Field(False, description="whether each association must name a user who proves to be one")
    initiator: bool | None = Field(None, description="whether it calls others; null: yes")
    acceptor: bool | None = Field(None, description="whether it is called by others; null: if it has a port")
    preferred_called: tuple[AEText, ...] = Field((), description="AE titles it prefers to call; a hint")
    preferred_calling: tuple[AEText, ...] = Field((), description="AE titles it prefers to be called by; a hint")
    capabilities: tuple[CapabilitySettings, ...] = ()


class AESettings(AEPart):
    """One of several application entities of a device (dicomNetworkAE)."""

    ae_title: AEText = Field(description="what it calls itself; case counts")
    connections: tuple[str, ...] | None = Field(
        None, description="names of connections of its device; null: every one that speaks DICOM"
    )
    installed: bool | None = Field(None, description="whether it is there; null: as its device")


class DeviceSettings(AEPart):
    """One entry of `devices.yaml` (dicomDevice)."""

    ae_title: AETextOrNone = Field(
        "", description="what the device calls itself; case counts; of one with several AEs: under `aes`"
    )
    name: str = Field("", description="name of the device; empty: `ae_title`")
    host: HostName | None = Field(None, description="its host name or address, for calls to it")
    port: Port | None = Field(None, description="its TCP port of DICOM; none where it only calls")
    tls: bool = Field(False, description="whether only TLS may be spoken with it, with the suites of PS3.15 B.12")
    tls_suites: tuple[SuiteName, ...] = Field((), description="TLS with these suites, e.g. TLS_RSA_WITH_AES_128_...")
    hl7_port: Port | None = Field(None, description="its TCP port of HL7 (MLLP)")
    installed: bool = Field(True, description="false: known, and not served")
    types: tuple[Text, ...] = Field((), description="codes of DICOM CID 30, e.g. CT")
    station_name: str = Field("", description="Station Name (0008,1010)")
    manufacturer: str = Field("", description="Manufacturer (0008,0070)")
    model: str = Field("", description="Manufacturer's Model Name (0008,1090)")
    software_versions: tuple[Text, ...] = Field((), description="Software Versions (0018,1020)")
    serial_number: str = Field("", description="Device Serial Number (0018,1000)")
    institutions: tuple[Text, ...] = Field((), description="Institution Name (0008,0080)")
    institution_addresses: tuple[Text, ...] = Field((), description="Institution Address (0008,0081)")
    departments: tuple[Text, ...] = Field((), description="Institutional Department Name (0008,1040)")
    issuer_of_patient_id: str = Field("", description="Issuer of Patient ID (0010,0021) it means where it names none")
    related_devices: tuple[Text, ...] = Field((), description="DNs of entries that describe it elsewhere")
    authorized_certificates: tuple[Text, ...] = Field((), description="DNs of certificates that may call it")
    own_certificates: tuple[Text, ...] = Field((), description="DNs of certificates it shows")
    fingerprints: dict[str, tuple[str, ...]] = Field(
        {},
        description="DN of a certificate and its SHA-256 fingerprints; those of its own are asked of a caller by TLS",
    )
    connections: tuple[ConnectionSettings, ...] = Field((), description="its addresses, in place of `host`")
    aes: tuple[AESettings, ...] = Field((), description="its application entities, in place of `ae_title`")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        said = self.model_fields_set
        if self.ae_title and "aes" in said:
            raise ValueError("it has `ae_title` and `aes`: write the one AE under `aes` too, or only `ae_title`")
        if not self.ae_title and not self.name:
            raise ValueError("it needs an `ae_title`, or a `name` and `aes`")
        misplaced = sorted(said & _OF_ONE_AE) if not self.ae_title else ()
        if misplaced:
            raise ValueError(f"{', '.join(misplaced)} is said of an AE: write it under `aes`")
        if self.host is None and not said.isdisjoint(_OF_HOST):
            raise ValueError(
                f"{', '.join(sorted(said & _OF_HOST))} needs a `host`; to ask a caller for TLS write tls_required: true"
            )
        if self.host is not None and self.connections:
            raise ValueError("it has `host` and `connections`: write that host as one of the connections")
        return self


class DevicesFile(Strict):
    """`devices.yaml`."""

    devices: tuple[DeviceSettings, ...] = ()


_OF_ONE_AE = frozenset(AEPart.model_fields) - {"ae_title", "description"}
_OF_HOST = frozenset({"port", "tls", "tls_suites", "hl7_port"})
