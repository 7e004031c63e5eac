"""An invented department in the store's terms: patients, orders and messages with distinct, telling keys."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.domain.attributes import TAG, Attributes, element, person_name_value
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.patient import Patient, Visit
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus
from gateway.workflow.ports import MessageRecord, QueryRecord

NOW = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


def attributes(**held: Any) -> Attributes:
    """Attributes by keyword; a list is several values, None a zero-length element."""
    made: Attributes = {}
    for keyword, value in held.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        made[TAG[keyword]] = element(keyword, *values)
    return made


def patient(number: int = 1, name: str = "Sample^Paula", **more: Any) -> Patient:
    return Patient(
        None,
        (Identifier(f"P{number}", "HOSPITAL"), Identifier(f"ALIAS{number}", "CLINIC")),
        attributes(PatientName=person_name_value(name), PatientID=f"P{number}", PatientSex="F", **more),
    )


def visit(patient_id: int, number: Identifier | None = None, location: str = "WARD 3") -> Visit:
    return Visit(None, patient_id, number, attributes(CurrentPatientLocation=location))


def step(number: int = 1, part: int = 1, stations: Sequence[str] = ("CT1",), start: str = "20261123083000",
         modality: str = "CT", status: SPSStatus = SPSStatus.SCHEDULED) -> Step:  # fmt: skip
    sps_id = f"S{number}.{part}"
    return Step(
        None,
        sps_id,
        status,
        attributes(
            ScheduledStationAETitle=list(stations),
            ScheduledProcedureStepStartDate=start[:8],
            ScheduledProcedureStepStartTime=start[8:],
            Modality=modality,
            ScheduledProcedureStepID=sps_id,
        ),
    )


def procedure(number: int = 1, steps: Sequence[Step] = ()) -> Procedure:
    return Procedure(
        None,
        f"2.25.{number}",
        f"R{number}",
        Identifier(f"A{number}", "HOSPITAL"),
        attributes(StudyInstanceUID=f"2.25.{number}", RequestedProcedureID=f"R{number}", AccessionNumber=f"A{number}"),
        tuple(steps) or (step(number),),
    )


def order(patient_id: int, number: int = 1, visit_id: int | None = None, **parts: Any) -> Order:
    """An order of one procedure with one step; `procedures`, or a step's `stations`, `start`, `modality`, `status`."""
    site = parts.pop("site", "")
    procedures = parts.pop("procedures", None) or (procedure(number, (step(number, **parts),)),)
    return Order(
        None,
        patient_id,
        visit_id,
        Identifier(f"PL{number}", "RIS"),
        Identifier(f"FI{number}", "HOSPITAL"),
        attributes(RequestingPhysician={"Alphabetic": "Example^Otto"}),
        tuple(procedures),
        site,
    )


def query(number: int = 1, calling: str = "CT1", **more: Any) -> QueryRecord:
    return QueryRecord(
        at=more.pop("at", NOW),
        calling_ae_title=calling,
        called_ae_title="GATEWAY",
        remote_host="192.0.2.30",
        transfer_syntax="1.2.840.10008.1.2",
        identifier=more.pop("identifier", b"identifier %d" % number),
        **more,
    )


def message(number: int = 1, disposition: str = "accepted", raw: bytes = b"MSH|^~\\&|", **more: Any) -> MessageRecord:
    return MessageRecord(
        received_at=more.pop("received_at", NOW),
        listener=more.pop("listener", "ris"),
        peer="192.0.2.7:40000",
        sender="RIS|HOSPITAL",
        control_id=more.pop("control_id", f"M{number}"),
        message_type="OMI^O23",
        digest=hashlib.sha256(raw).digest(),
        raw=raw,
        disposition=disposition,
        reasons="",
        answer=b"MSA|AA|",
        mapping="ihe-swf",
        keys=(("patient", f"P{number}"), ("placer", f"PL{number}")),
        **more,
    )


def performed(
    uid: str = "1.2.3", steps: Sequence[int] = (), patient_id: int | None = None, **more: Any
) -> PerformedStep:
    return PerformedStep(
        uid,
        more.pop("state", MPPSState.IN_PROGRESS),
        attributes(Modality="CT"),
        "CT1",
        patient_id,
        tuple(steps),
        **more,
    )
