"""A department to play with: for our own tests and benchmarks, the demo, and a site's own tests.

`site` and `ServiceProcess` lay out and run a gateway as a process of its own; `SimulatedRIS` and `SimulatedModality`
talk to it as its neighbours do, over real HL7 v2 and real DICOM, `SimulatedEHR` over real FHIR; `SimulatedRISReceiver`
and `performed_receiver` are told what happened; `load` sends requests encoded once, faster than any toolkit.
Nothing here imports the service: what is tested is what listens. Every person in it is invented.
"""

from gateway.testing.ehr import EHRRefused, SimulatedEHR, order_bundle
from gateway.testing.modality import SimulatedModality, StatusError, worklist_identifier
from gateway.testing.process import FixedClock, ServiceFailed, ServiceProcess, free_port, site
from gateway.testing.ris import (
    Acknowledgement,
    Draft,
    ImagingOrder,
    Person,
    SimulatedRIS,
    admit,
    appointment,
    bare_orm,
    cancel,
    invented_person,
    merge_patients,
    omg,
    omi,
    rad4_orm,
    register,
    update_patient,
)
from gateway.testing.ris_receiver import ReceivedMessage, SimulatedRISReceiver

__all__ = [
    "Acknowledgement",
    "Draft",
    "EHRRefused",
    "FixedClock",
    "ImagingOrder",
    "Person",
    "ReceivedMessage",
    "ServiceFailed",
    "ServiceProcess",
    "SimulatedEHR",
    "SimulatedModality",
    "SimulatedRIS",
    "SimulatedRISReceiver",
    "StatusError",
    "admit",
    "appointment",
    "bare_orm",
    "cancel",
    "free_port",
    "invented_person",
    "merge_patients",
    "omg",
    "omi",
    "order_bundle",
    "rad4_orm",
    "register",
    "site",
    "update_patient",
    "worklist_identifier",
]
