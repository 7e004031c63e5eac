"""A device that has every attribute of the model, for whoever reads or writes one."""

from gateway.domain.devices import MPPSAnswers, Sees
from gateway.domain.directory import (
    DeviceEntry,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Role,
    Rules,
    TransferCapability,
)
from gateway.wire.upper_layer import MODALITY_WORKLIST

WHOLE = DeviceEntry(
    "ct1",
    description="in the basement",
    manufacturer="Invented",
    model="Tube 3",
    software_versions=("1", "1a"),
    station_name="CT-1",
    serial_number="007",
    institution_names=("Hôpital",),
    institution_addresses=("Road 1",),
    departments=("Radiology",),
    issuer_of_patient_id="HOSP",
    primary_types=("CT", "PET"),
    related_devices=("cn=ups,dc=hospital,dc=example",),
    connections=(
        NetworkConnection("dicom", "ct1.hosp.example", 104),
        NetworkConnection("dicom-tls", "ct1.hosp.example", 2762, ("TLS_AES_128_GCM_SHA256",), installed=False),
        NetworkConnection("hl7", "ct1.hosp.example", 2575, protocol=Protocol.HL7),
        NetworkConnection("out", "ct1.hosp.example"),
    ),
    aes=(
        NetworkAE(
            "CT1", ("dicom-tls", "dicom"), True, True, "scanner", ("ct", "all"), ("GATEWAY",), ("PACS",),
            ("ISO_IR 100", "ISO_IR 192"), True,
            (TransferCapability(MODALITY_WORKLIST, Role.SCU, ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")),
             TransferCapability(MODALITY_WORKLIST, Role.SCP, ("1.2.840.10008.1.2",), "odd one")),
            Rules("old-ct", Sees.GROUP, ("north",), True, MPPSAnswers.DATASET, ("worklist", "mpps"), ("10.0.0.0/8",),
                  ("subject:ct1",), ("GATEWAY",), True, True),
        ),
        NetworkAE("CT1_STORE", ("dicom",), installed=False),
    ),
)  # fmt: skip
