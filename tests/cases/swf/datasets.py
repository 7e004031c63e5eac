"""Attributes by keyword, as the cases have them, to DICOM JSON; and the requests of a well-behaved modality."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.datadict import tag_for_keyword

from gateway.domain.attributes import Attributes, Element, person_name_value
from gateway.testing import ImagingOrder, Person
from gateway.wire.dicom_json import dictionary_vr


def attributes(said: Mapping[str, Any]) -> Attributes:
    """Keyword -> value, list of values or items, or None for zero length."""
    made: Attributes = {}
    for keyword, value in said.items():
        number = tag_for_keyword(keyword)
        if number is None:
            raise ValueError(f"{keyword} is no keyword")
        tag = f"{number:08X}"
        made[tag] = _element(dictionary_vr(tag), value)
    return made


def tag_of(keyword: str) -> int:
    """The tag of a keyword."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise ValueError(f"{keyword} is no keyword")
    return number


def _element(vr: str, value: Any) -> Element:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if vr == "SQ":
        values = [attributes(item) for item in values]
    elif vr == "PN":
        values = [person_name_value(each) for each in values]
    elif vr in ("US", "UL"):
        values = [int(each) for each in values]
    else:
        values = [str(each) for each in values]
    return {"vr": vr, "Value": values} if values else {"vr": vr}


def code(value: str, scheme: str = "DCM", meaning: str = "as its code says") -> dict[str, str]:
    """A coded entry."""
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def reference(order: ImagingOrder, sps_id: str) -> dict[str, Any]:
    """An item of the Scheduled Step Attributes Sequence, copied from the worklist."""
    return {
        "StudyInstanceUID": order.study_instance_uid, "ReferencedStudySequence": None,
        "AccessionNumber": order.accession, "RequestedProcedureID": order.requested_procedure_id,
        "RequestedProcedureDescription": order.text, "ScheduledProcedureStepID": sps_id,
        "ScheduledProcedureStepDescription": order.text, "ScheduledProtocolCodeSequence": None,
    }  # fmt: skip


UNSCHEDULED = {
    "StudyInstanceUID": "2.25.990001", "ReferencedStudySequence": None, "AccessionNumber": None,
    "RequestedProcedureID": None, "RequestedProcedureDescription": None, "ScheduledProcedureStepID": None,
    "ScheduledProcedureStepDescription": None, "ScheduledProtocolCodeSequence": None,
}  # fmt: skip


def created(person: Person | None, references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An N-CREATE with everything that Table F.7.2-1 asks for; without a person, the patient left empty."""
    return {
        "ScheduledStepAttributesSequence": list(references),
        "PatientName": person.name if person else None, "PatientID": person.patient_id if person else None,
        "PatientBirthDate": f"{person.birth_date:%Y%m%d}" if person else None,
        "PatientSex": person.sex if person else None, "ReferencedPatientSequence": None,
        "PerformedProcedureStepID": "PPS1", "PerformedStationAETitle": "CT1", "PerformedStationName": None,
        "PerformedLocation": None, "PerformedProcedureStepStartDate": "20260705",
        "PerformedProcedureStepStartTime": "093000", "PerformedProcedureStepStatus": "IN PROGRESS",
        "PerformedProcedureStepDescription": None, "PerformedProcedureTypeDescription": None,
        "ProcedureCodeSequence": None, "PerformedProcedureStepEndDate": None, "PerformedProcedureStepEndTime": None,
        "PerformedProcedureStepDiscontinuationReasonCodeSequence": None, "Modality": "CT", "StudyID": None,
        "PerformedProtocolCodeSequence": None, "PerformedSeriesSequence": None,
    }  # fmt: skip


def series(uid: str) -> dict[str, Any]:
    """A performed series without instances."""
    return {
        "PerformingPhysicianName": None, "ProtocolName": "Routine", "OperatorsName": None, "SeriesInstanceUID": uid,
        "SeriesDescription": None, "RetrieveAETitle": None, "ReferencedImageSequence": None,
        "ReferencedNonImageCompositeSOPInstanceSequence": None,
    }  # fmt: skip


def ended(status: str) -> dict[str, Any]:
    """What an N-SET with this final status has besides."""
    if status not in ("COMPLETED", "DISCONTINUED"):
        return {}
    return {
        "PerformedProcedureStepEndDate": "20260705", "PerformedProcedureStepEndTime": "094500",
        "PerformedSeriesSequence": [series("2.25.880001")],
    }  # fmt: skip
