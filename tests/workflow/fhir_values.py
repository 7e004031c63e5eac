"""What a modality says of each attribute of table F.7.2-1, and what is read of it in FHIR; the people are invented.

`CASES` has roads for every row of `fhir_performed_table`. A road says the attribute with a value that nothing else has,
in the N-CREATE where only that may say it and else in the N-SET, and what is then read at the places of the row, in
their order. Of an attribute that is not carried it says the mark that must be nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STUDY, OTHER_STUDY = "2.25.990001", "2.25.990002"
UID, SERIES, IMAGE = "2.25.5550001", "2.25.880001", "2.25.7700001"
CT_IMAGE, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"
Values = Sequence[Any]


@dataclass(frozen=True)
class Road:
    """What is said in place of the sample's, by keyword or tag, and `told`: the values at each place, by its number.

    `by_fhir`: the order came by FHIR. `cancelled`: it is cancelled behind it. `patient` is the patient of the order.
    """

    said: Mapping[str, Any]
    told: Mapping[int, Values] = field(default_factory=dict)
    nowhere: str = ""
    state: str = "COMPLETED"
    by_fhir: bool = True
    cancelled: bool = False
    patient: tuple[str, str] = ("P1", "HOSPITAL")


def code(value: str, meaning: str = "as its code says", scheme: str = "99PROC") -> dict[str, Any]:
    """A coded entry."""
    said = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
    return {**said, "CodingSchemeVersion": VERSION} if scheme == "99PROC" else said


VERSION = "2026-77"
SCHEMES = {"99PROC": "http://hospital.example/codes/procedures"}
"""The site's own coding schemes."""


def coding(value: str, meaning: str = "as its code says") -> dict[str, Any]:
    """The same in FHIR, of the site's own scheme."""
    return {"system": SCHEMES["99PROC"], "version": VERSION, "code": value, "display": meaning}


def step(**but: Any) -> dict[str, Any]:
    """An item of the Scheduled Step Attributes Sequence, for the first step of the order."""
    return {
        "StudyInstanceUID": STUDY, "AccessionNumber": "", "RequestedProcedureID": "RP1",
        "RequestedProcedureDescription": "", "ScheduledProcedureStepID": "SPS1",
        "ScheduledProcedureStepDescription": "", "ReferencedStudySequence": [], "ScheduledProtocolCodeSequence": [],
        **but,
    }  # fmt: skip


def image(**but: Any) -> dict[str, Any]:
    """An item of the Referenced Image Sequence."""
    return {"ReferencedSOPClassUID": CT_IMAGE, "ReferencedSOPInstanceUID": IMAGE, **but}


def series(**but: Any) -> dict[str, Any]:
    """An item of the Performed Series Sequence, with one image."""
    return {
        "PerformingPhysicianName": "", "ProtocolName": "Routine", "OperatorsName": "", "SeriesInstanceUID": SERIES,
        "SeriesDescription": "", "RetrieveAETitle": "", "ReferencedImageSequence": [image()],
        "ReferencedNonImageCompositeSOPInstanceSequence": [], **but,
    }  # fmt: skip


CREATED: Mapping[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192", "ScheduledStepAttributesSequence": [step()],
    "PatientName": "Invented^Person", "PatientID": "P1", "PatientBirthDate": "", "PatientSex": "",
    "ReferencedPatientSequence": [], "PerformedProcedureStepID": "PPS1", "PerformedStationAETitle": "CT1",
    "PerformedStationName": "", "PerformedLocation": "", "PerformedProcedureStepStartDate": "20260705",
    "PerformedProcedureStepStartTime": "093000", "PerformedProcedureStepStatus": "IN PROGRESS",
    "PerformedProcedureStepDescription": "", "PerformedProcedureTypeDescription": "", "ProcedureCodeSequence": [],
    "PerformedProcedureStepEndDate": "", "PerformedProcedureStepEndTime": "", "Modality": "CT", "StudyID": "",
    "PerformedProtocolCodeSequence": [], "PerformedSeriesSequence": [],
}  # fmt: skip
ENDED: Mapping[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192", "PerformedProcedureStepEndDate": "20260705",
    "PerformedProcedureStepEndTime": "094500", "PerformedSeriesSequence": [series()], "TotalNumberOfExposures": 1,
}  # fmt: skip
"""What a modality has to say, and a dose, so that there is an Observation."""


def _road(said: Mapping[str, Any], *told: Values, **more: Any) -> list[Road]:
    """One road by which every place of the row is reached; where only one value is given, all of them have it."""
    return [Road(said, dict(enumerate(told)) if len(told) > 1 else {-1: told[0]}, **more)]


def _of_step(*told: Values, **said: Any) -> list[Road]:
    return _road({"ScheduledStepAttributesSequence": [step(**said)]}, *told)


def _of_series(*told: Values, **said: Any) -> list[Road]:
    return _road({"PerformedSeriesSequence": [series(**said)]}, *told)


def _of_image(*told: Values, **said: Any) -> list[Road]:
    return _of_series(*told, ReferencedImageSequence=[image(**said)])


def _nowhere(mark: str, **said: Any) -> list[Road]:
    return [Road(said, nowhere=mark)]


def _step_nowhere(mark: str, **said: Any) -> list[Road]:
    return _nowhere(mark, ScheduledStepAttributesSequence=[step(**said)])


def _dose(keyword: str, said: Any, *told: Values) -> list[Road]:
    return _road({"TotalNumberOfExposures": None, keyword: said}, *told)


_OTHER_IDS = "OtherPatientIDsSequence"
_STEPS, _SERIES = "ScheduledStepAttributesSequence", "PerformedSeriesSequence"
_IMAGES = f"{_SERIES}.ReferencedImageSequence"
_SECOND = {"StudyInstanceUID": OTHER_STUDY, "RequestedProcedureID": "RP2", "ScheduledProcedureStepID": "SPS2"}
_OF_EHR = {"by_fhir": False}
_QUALIFIED = {"IssuerOfPatientIDQualifiersSequence": [{"UniversalEntityID": "1.2.77", "UniversalEntityIDType": "ISO"}]}
_SPECIMEN = {"SpecimenIdentifier": "SP77", "SpecimenUID": "2.25.6600077"}
_REASON = "PerformedProcedureStepDiscontinuationReasonCodeSequence"

_DCM = {
    "system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110501", "display": "as its code says",
}  # fmt: skip

CASES: Mapping[str, list[Road]] = {
    "SpecificCharacterSet": _nowhere("ISO_IR 192", SpecificCharacterSet="ISO_IR 192"),
    _STEPS: _of_step(["ServiceRequest/sr2"], **_SECOND),
    f"{_STEPS}.StudyInstanceUID": _of_step([f"urn:oid:{OTHER_STUDY}"], **_SECOND),
    f"{_STEPS}.ReferencedStudySequence": _step_nowhere(
        "2.25.4077", ReferencedStudySequence=[{"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1",
                                               "ReferencedSOPInstanceUID": "2.25.4077"}]),
    f"{_STEPS}.AccessionNumber": _of_step(["A77"], AccessionNumber="A77"),
    f"{_STEPS}.IssuerOfAccessionNumberSequence": [
        *_of_step(["urn:oid:1.2.77"], AccessionNumber="A77", IssuerOfAccessionNumberSequence=[
            {"UniversalEntityID": "1.2.77", "UniversalEntityIDType": "ISO"}]),
        *_of_step(["https://ris.example/numbers"], AccessionNumber="A77", IssuerOfAccessionNumberSequence=[
            {"LocalNamespaceEntityID": "RIS"}]),
    ],
    f"{_STEPS}.PlacerOrderNumberImagingServiceRequest": _step_nowhere(
        "PL77", PlacerOrderNumberImagingServiceRequest="PL77"),
    f"{_STEPS}.OrderPlacerIdentifierSequence": _step_nowhere(
        "NS77", OrderPlacerIdentifierSequence=[{"LocalNamespaceEntityID": "NS77"}]),
    f"{_STEPS}.FillerOrderNumberImagingServiceRequest": _step_nowhere(
        "FI77", FillerOrderNumberImagingServiceRequest="FI77"),
    f"{_STEPS}.OrderFillerIdentifierSequence": _step_nowhere(
        "NS78", OrderFillerIdentifierSequence=[{"LocalNamespaceEntityID": "NS78"}]),
    f"{_STEPS}.RequestedProcedureID": _step_nowhere("RP1", RequestedProcedureID="RP1"),
    f"{_STEPS}.RequestedProcedureCodeSequence": _of_step(
        [coding("RPC77")], RequestedProcedureCodeSequence=[code("RPC77")]),
    f"{_STEPS}.RequestedProcedureDescription": _of_step(["CT 77"], RequestedProcedureDescription="CT 77"),
    f"{_STEPS}.ScheduledProcedureStepID": _step_nowhere("SPS1", ScheduledProcedureStepID="SPS1"),
    f"{_STEPS}.ScheduledProcedureStepDescription": _step_nowhere(
        "Step 77", ScheduledProcedureStepDescription="Step 77"),
    f"{_STEPS}.ScheduledProtocolCodeSequence": _step_nowhere(
        "SPC77", ScheduledProtocolCodeSequence=[code("SPC77")]),
    "PatientName": _nowhere("Marked", PatientName="Marked^Name"),
    "PatientID": _road({"PatientID": "P77"}, ["P77"], **_OF_EHR, patient=("P77", "HOSPITAL")),
    "IssuerOfPatientID": _road(
        {"IssuerOfPatientID": "CLINIC"}, ["https://clinic.example/patients"], **_OF_EHR, patient=("P1", "CLINIC")),
    "IssuerOfPatientIDQualifiersSequence": _road(_QUALIFIED, ["urn:oid:1.2.77"], **_OF_EHR, patient=("P1", "1.2.77")),
    "IssuerOfPatientIDQualifiersSequence.UniversalEntityID": _road(
        _QUALIFIED, ["urn:oid:1.2.77"], **_OF_EHR, patient=("P1", "1.2.77")),
    "IssuerOfPatientIDQualifiersSequence.UniversalEntityIDType": [
        Road(_QUALIFIED, nowhere='"ISO"', by_fhir=False, patient=("P1", "1.2.77"))
    ],
    _OTHER_IDS: _nowhere("OP77", OtherPatientIDsSequence=[{"PatientID": "OP77"}]),
    f"{_OTHER_IDS}.PatientID": _nowhere("OP77", OtherPatientIDsSequence=[{"PatientID": "OP77"}]),
    f"{_OTHER_IDS}.IssuerOfPatientID": _nowhere(
        "OI77", OtherPatientIDsSequence=[{"PatientID": "OP77", "IssuerOfPatientID": "OI77"}]),
    f"{_OTHER_IDS}.IssuerOfPatientIDQualifiersSequence": _nowhere(
        "1.2.78", OtherPatientIDsSequence=[{"PatientID": "OP77", "IssuerOfPatientIDQualifiersSequence": [
            {"UniversalEntityID": "1.2.78", "UniversalEntityIDType": "ISO"}]}]),
    f"{_OTHER_IDS}.TypeOfPatientID": _nowhere(
        "BARCODE", OtherPatientIDsSequence=[{"PatientID": "OP77", "TypeOfPatientID": "BARCODE"}]),
    "PatientBirthDate": _nowhere("1977", PatientBirthDate="19770707"),
    "PatientSex": _nowhere('"O"', PatientSex="O"),
    "ReferencedPatientSequence": _nowhere("2.25.4078", ReferencedPatientSequence=[
        {"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.1.1", "ReferencedSOPInstanceUID": "2.25.4078"}]),
    "AdmissionID": _road({"AdmissionID": "V77"}, ["V77"]),
    "IssuerOfAdmissionIDSequence": [
        *_road({"AdmissionID": "V77", "IssuerOfAdmissionIDSequence": [
            {"UniversalEntityID": "1.2.77", "UniversalEntityIDType": "ISO"}]}, ["urn:oid:1.2.77"]),
        *_road({"AdmissionID": "V77", "IssuerOfAdmissionIDSequence": [
            {"LocalNamespaceEntityID": "CLINIC"}]}, ["https://clinic.example/patients"]),
    ],
    "ServiceEpisodeID": _nowhere("EP77", ServiceEpisodeID="EP77"),
    "IssuerOfServiceEpisodeIDSequence": _nowhere(
        "NS79", ServiceEpisodeID="EP77", IssuerOfServiceEpisodeIDSequence=[{"LocalNamespaceEntityID": "NS79"}]),
    "ServiceEpisodeDescription": _nowhere("Episode 77", ServiceEpisodeDescription="Episode 77"),
    "PerformedProcedureStepID": _road({"PerformedProcedureStepID": "PPS77"}, ["PPS77"]),
    "PerformedStationAETitle": _road({"PerformedStationAETitle": "CT77"}, ["CT77"]),
    "PerformedStationName": _road({"PerformedStationName": "Scanner 77"}, ["Scanner 77"]),
    "PerformedLocation": _road({"PerformedLocation": "Room 77"}, ["Room 77"]),
    "PerformedProcedureStepStartDate": _road(
        {"PerformedProcedureStepStartDate": "20260127"}, ["2026-01-27T09:30:00+01:00"]),
    "PerformedProcedureStepStartTime": _road(
        {"PerformedProcedureStepStartTime": "081507.25"}, ["2026-07-05T08:15:07.25+02:00"]),
    "PerformedProcedureStepStatus": [
        *_road({}, ["completed"], ["available"], ["final"], ["completed"], ["completed"], ["fulfilled"]),
        *_road({}, ["in-progress"], ["registered"], ["preliminary"], ["in-progress"], ["active"], ["arrived"],
               state="IN PROGRESS"),
        *_road({_REASON: [code("110500", scheme="DCM")]}, ["stopped"], ["available"], ["final"], ["failed"],
               ["revoked"], ["fulfilled"], state="DISCONTINUED"),
        *_road({_REASON: [code("110514", scheme="DCM")]}, ["entered-in-error"], ["entered-in-error"],
               ["entered-in-error"], ["ready"], ["active"], ["arrived"], state="DISCONTINUED"),
    ],
    "PerformedProcedureStepDescription": _road({"PerformedProcedureStepDescription": "Head 77"}, ["Head 77"]),
    "PerformedProcedureTypeDescription": [
        Road({"PerformedProcedureTypeDescription": "Neuro 77", "PerformedProcedureStepDescription": "Head"},
             {0: ["Procedure type: Neuro 77"]}),
        Road({"PerformedProcedureTypeDescription": "Neuro 77"}, {1: ["Neuro 77"]}),
    ],
    "ProcedureCodeSequence": _road(
        {"ProcedureCodeSequence": [code("PC77"), code("PC78")]}, [coding("PC77"), coding("PC78")]),
    "ReasonForPerformedProcedureCodeSequence": _road(
        {"ReasonForPerformedProcedureCodeSequence": [code("RE77"), code("RE78")]}, [coding("RE77"), coding("RE78")]),
    "PerformedProcedureStepEndDate": _road(
        {"PerformedProcedureStepEndDate": "20260706"}, ["2026-07-06T09:45:00+02:00"]),
    "PerformedProcedureStepEndTime": _road(
        {"PerformedProcedureStepEndTime": "101507.5"}, ["2026-07-05T10:15:07.5+02:00"]),
    "CommentsOnThePerformedProcedureStep": _road(
        {"CommentsOnThePerformedProcedureStep": "went\r\nwell 77"}, ["went\r\nwell 77"]),
    _REASON: _road({_REASON: [code("110501", scheme="DCM")]}, [_DCM], state="DISCONTINUED", cancelled=True),
    "Modality": _road({"Modality": "MR"}, ["MR"]),
    "StudyID": _road({"StudyID": "S77"}, ["S77"]),
    "PerformedProtocolCodeSequence": _road(
        {"PerformedProtocolCodeSequence": [code("PP77"), code("PP78")]}, [coding("PP77"), coding("PP78")]),
    _SERIES: _road(
        {_SERIES: [series(), series(SeriesInstanceUID="2.25.880077", ReferencedImageSequence=[])]},
        [SERIES, "2.25.880077"], [2]),
    f"{_SERIES}.PerformingPhysicianName": _of_series(
        ["Dr. Jane Doe77"], PerformingPhysicianName="Doe77^Jane^^Dr."),
    f"{_SERIES}.ProtocolName": [
        *_of_series(["Protocol 77"], ProtocolName="Protocol 77"),
        *_of_series(["axial (Protocol 77)"], ProtocolName="Protocol 77", SeriesDescription="axial"),
    ],
    f"{_SERIES}.OperatorsName": [
        *_of_series(["Richard Roe77", "Polly Poe77"], OperatorsName=["Roe77^Richard", "Poe77^Polly"]),
        *_of_series(["太郎 山田"], OperatorsName=["=山田^太郎"]),
    ],
    f"{_SERIES}.SeriesInstanceUID": _of_series(["2.25.880077"], SeriesInstanceUID="2.25.880077"),
    f"{_SERIES}.SeriesDescription": _of_series(["axial 77 (Routine)"], SeriesDescription="axial 77"),
    f"{_SERIES}.RetrieveAETitle": _of_series(["PACS77", "PACS78"], RetrieveAETitle=["PACS77", "PACS78"]),
    f"{_SERIES}.ArchiveRequested": [Road({_SERIES: [series(ArchiveRequested="YES")]}, nowhere="YES")],
    _IMAGES: _of_series([IMAGE, "2.25.7700077"], [2], [2],
                        ReferencedImageSequence=[image(), image(ReferencedSOPInstanceUID="2.25.7700077")]),
    f"{_IMAGES}.ReferencedSOPClassUID": _of_image(
        ["urn:oid:1.2.840.10008.5.1.4.1.1.4"], ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
    f"{_IMAGES}.ReferencedSOPInstanceUID": _of_image(["2.25.7700077"], ReferencedSOPInstanceUID="2.25.7700077"),
    f"{_IMAGES}.ContainerIdentifier": [
        Road({_SERIES: [series(ReferencedImageSequence=[image(ContainerIdentifier="C77")])]}, {0: ["C77"]}),
        Road({_SERIES: [series(ReferencedImageSequence=[
            image(ContainerIdentifier="C77", SpecimenDescriptionSequence=[_SPECIMEN]),
            image(ReferencedSOPInstanceUID="2.25.7700077", ContainerIdentifier="C78",
                  SpecimenDescriptionSequence=[_SPECIMEN])])]}, {1: ["SP77 in C77", "SP77 in C78"]}),
    ],
    f"{_IMAGES}.SpecimenDescriptionSequence": _of_image(
        ["urn:oid:2.25.6600077"], SpecimenDescriptionSequence=[_SPECIMEN]),
    f"{_IMAGES}.SpecimenDescriptionSequence.SpecimenIdentifier": _of_image(
        ["SP77"], SpecimenDescriptionSequence=[_SPECIMEN]),
    f"{_IMAGES}.SpecimenDescriptionSequence.SpecimenUID": _of_image(
        ["urn:oid:2.25.6600077"], SpecimenDescriptionSequence=[_SPECIMEN]),
    f"{_SERIES}.ReferencedNonImageCompositeSOPInstanceSequence": _of_series(
        ["2.25.7700077"], ReferencedImageSequence=[], ReferencedNonImageCompositeSOPInstanceSequence=[
            {"ReferencedSOPClassUID": SR, "ReferencedSOPInstanceUID": "2.25.7700077"}]),
    "TotalTimeOfFluoroscopy": _dose("TotalTimeOfFluoroscopy", 77, [77], ["s"], ["113730"]),
    "TotalNumberOfExposures": _dose("TotalNumberOfExposures", 77, [77], ["1"]),
    "EntranceDose": _dose("EntranceDose", 77, [77], ["dGy"]),
    "ImageAndFluoroscopyAreaDoseProduct": _dose(
        "ImageAndFluoroscopyAreaDoseProduct", "77.25", [77.25], ["dGy.cm2"], ["113722"]),
    "ExposureDoseSequence": _dose(
        "ExposureDoseSequence", [{"RadiationMode": "PULSED", "KVP": "77", "XRayTubeCurrentInuA": "250000",
                                  "ExposureTime": "12.5", "FilterType": "STRIP", "FilterMaterial": ["MOLY", "ALU"],
                                  "CommentsOnRadiationDose": "low 77"}],
        [77, 250000, 12.5], ["PULSED", "STRIP", "MOLY, ALU", "low 77"]),
    "BillingProcedureStepSequence": _road(
        {"BillingProcedureStepSequence": [code("70477", "CT head 77", "C4")]}, ["Billing: CT head 77 (C4 70477)"]),
    "FilmConsumptionSequence": [
        *_road({"FilmConsumptionSequence": [
            {"NumberOfFilms": "77", "MediumType": "BLUE FILM", "FilmSizeID": "14INX17IN"}]},
            ["BLUE FILM 14INX17IN, 77"]),
        *_road({"FilmConsumptionSequence": [{"NumberOfFilms": "77"}]}, ["Film, 77"]),
    ],
    "BillingSuppliesAndDevicesSequence": _road(
        {"BillingSuppliesAndDevicesSequence": [
            {"BillingItemSequence": [code("CM77", "Contrast medium")],
             "QuantitySequence": [{"Quantity": "77", "MeasuringUnitsSequence": [code("ml", "milliliter", "UCUM")]}]}]},
        [coding("CM77", "Contrast medium")], ["Contrast medium, 77 ml"]),
    "SOP Instance UID": _road({}, [f"urn:oid:{UID}"]),
    "(0018,0015) Body Part Examined": _of_series(["HEAD77"], BodyPartExamined="HEAD77"),
    "(0008,2218) Anatomic Region Sequence": _of_series(["69536077"], AnatomicRegionSequence=[code("69536077")]),
    "(0020,0060) Laterality": _of_series(["7771000"], Laterality="L"),
    "(0020,0013) Instance Number": _of_image([77], InstanceNumber="77"),
}  # fmt: skip
