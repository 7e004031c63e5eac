"""A performed step in which a modality says everything that table F.7.2-1 has; the people are invented."""

from typing import Any

from pydicom.datadict import tag_for_keyword

from gateway.domain.attributes import Attributes, person_name_value
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus
from gateway.wire.dicom_json import dictionary_vr

UID, STUDY, SERIES = "2.25.5550001", "2.25.990001", "2.25.880001"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def attributes(said: dict[str, Any]) -> Attributes:
    """Keyword or tag -> value, list of values or items."""
    made: Attributes = {}
    for name, value in said.items():
        number = tag_for_keyword(name)
        tag = f"{number:08X}" if number is not None else name
        vr = dictionary_vr(tag)
        values = value if isinstance(value, list) else [value]
        if vr == "SQ":
            values = [attributes(item) for item in values]
        elif vr == "PN":
            values = [person_name_value(each) for each in values]
        made[tag] = {"vr": vr, "Value": values}
    return made


def code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    """A coded entry."""
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


EVERYTHING: dict[str, Any] = {
    "ScheduledStepAttributesSequence": [
        {"StudyInstanceUID": STUDY, "AccessionNumber": "A1", "RequestedProcedureID": "RP1",
         "RequestedProcedureDescription": "CT head", "ScheduledProcedureStepID": "SPS1"},
    ],
    "PatientName": "Invented^Person", "PatientID": "P1",
    "AdmissionID": "V1",
    "PerformedProcedureStepID": "PPS1", "PerformedStationAETitle": "CT1", "PerformedStationName": "Scanner 1",
    "PerformedLocation": "Room 3", "PerformedProcedureStepStartDate": "20260705",
    "PerformedProcedureStepStartTime": "093000.5", "PerformedProcedureStepStatus": "COMPLETED",
    "PerformedProcedureStepDescription": "CT head native", "PerformedProcedureTypeDescription": "Neuro",
    "ProcedureCodeSequence": [code("CTHEAD", "99LOCAL", "CT of the head"), code("24725-4", "LN", "CT Head")],
    "ReasonForPerformedProcedureCodeSequence": [code("25064002", "SCT", "Headache")],
    "PerformedProcedureStepEndDate": "20260705", "PerformedProcedureStepEndTime": "094500",
    "CommentsOnThePerformedProcedureStep": "went well", "Modality": "CT", "StudyID": "S1",
    "PerformedProtocolCodeSequence": [code("PROT1", "99LOCAL", "Head routine")],
    "PerformedSeriesSequence": [
        {"PerformingPhysicianName": "Doe^Jane^^Dr.", "ProtocolName": "Head routine",
         "OperatorsName": ["Roe^Richard", "Poe^Polly"], "SeriesInstanceUID": SERIES,
         "SeriesDescription": "axial", "RetrieveAETitle": ["PACS"], "BodyPartExamined": "HEAD", "Laterality": "L",
         "ReferencedImageSequence": [
             {"ReferencedSOPClassUID": CT_IMAGE, "ReferencedSOPInstanceUID": "2.25.7700001", "InstanceNumber": "1",
              "ContainerIdentifier": "C1", "SpecimenDescriptionSequence": [
                  {"SpecimenIdentifier": "SP1", "SpecimenUID": "2.25.6600001"}]},
             {"ReferencedSOPClassUID": CT_IMAGE, "ReferencedSOPInstanceUID": "2.25.7700002"},
         ],
         "ReferencedNonImageCompositeSOPInstanceSequence": [
             {"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "ReferencedSOPInstanceUID": "2.25.7700003"}]},
    ],
    "TotalTimeOfFluoroscopy": "120", "TotalNumberOfExposures": "3", "EntranceDose": "2",
    "ImageAndFluoroscopyAreaDoseProduct": "12.5",
    "ExposureDoseSequence": [{"RadiationMode": "PULSED", "KVP": "80", "ExposureTime": "12.5"}],
    "BillingProcedureStepSequence": [code("70450", "C4", "CT head without contrast")],
    "FilmConsumptionSequence": [{"NumberOfFilms": "2", "MediumType": "BLUE FILM", "FilmSizeID": "14INX17IN"}],
    "BillingSuppliesAndDevicesSequence": [
        {"QuantitySequence": [{"Quantity": "50"}],
         "BillingItemSequence": [code("CM1", "99LOCAL", "Contrast medium")]}],
}  # fmt: skip


def performed(
    state: MPPSState = MPPSState.COMPLETED, but: dict[str, Any] | None = None, **fields: Any
) -> PerformedStep:  # fmt: skip
    """The performed step in this state, with these attributes in place of the sample's (None takes one away)."""
    said = {**EVERYTHING, "PerformedProcedureStepStatus": state.value, **(but or {})}
    held = attributes({key: value for key, value in said.items() if value is not None})
    return PerformedStep(fields.pop("uid", UID), state, held, "CT1", 1, fields.pop("steps", (1,)), **fields)


def order(*statuses: SPSStatus) -> Order:
    """An order of one procedure whose steps have these statuses; their numbers count from 1."""
    steps = tuple(Step(n, f"SPS{n}", status, {}) for n, status in enumerate(statuses or (SPSStatus.COMPLETED,), 1))
    procedure = Procedure(1, STUDY, "RP1", Identifier("A1", "RIS"), attributes({}), steps)
    return Order(1, 1, None, Identifier("PL1", "EHR"), Identifier("F1", "RIS"), {}, (procedure,))
