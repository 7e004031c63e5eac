"""Where each attribute of a performed procedure step goes in FHIR, or why it goes nowhere.

`CARRIED` names every attribute of table F.7.2-1 (`domain.performed_table`) that is no item of a macro, once; the
reference page is printed from it, and a test puts a value of its own into each attribute and reads it at the paths of
its row. `fhir_performance` and `fhir_status` do what it says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.domain.performed_table import REQUIREMENTS, Requirement
from gateway.wire.fhir_release import Release


@dataclass(frozen=True, slots=True)
class Place:
    """An element where a value goes: FHIRPath over the names that JSON has. `when` says when, '' for always.

    `r5` is the path from R5 on, '' where it is the same.
    """

    path: str
    r5: str = ""
    when: str = ""

    def of(self, release: Release) -> str:
        """The path in this release."""
        return self.r5 if self.r5 and release is Release.R5 else self.path


@dataclass(frozen=True, slots=True)
class Carried:
    """A row: the attribute as `Sequence.Attribute` with the places where its value goes, or why it goes nowhere.

    `why` is '' where that needs no word.
    """

    attribute: str
    places: tuple[Place, ...] = ()
    why: str = ""


def _to(attribute: str, *places: Place | str, why: str = "") -> Carried:
    return Carried(attribute, tuple(each if isinstance(each, Place) else Place(each) for each in places), why)


def _no(attribute: str, why: str) -> Carried:
    return Carried(attribute, (), why)


_EHR = "the EHR's own Patient is referred to; what the modality said of it is checked against the order, not told"
_ORDER = "the order is referred to (basedOn); these are its own words, copied"
_NUMBER_OF_ORDER = "the order is referred to by its own number, as its sender wrote it"

_SERIES = "PerformedSeriesSequence"
_STEPS = "ScheduledStepAttributesSequence"
_IMAGES = f"{_SERIES}.ReferencedImageSequence"

_ACSN = "ImagingStudy.identifier.where(type.coding.code = 'ACSN')"
_UNNUMBERED = "where the order has no accession number of its own"
_UNHELD = "where the Patient is held by no FHIR server that is known; as the order has it"
_NO_VISIT = "where the order says no encounter"
_UNSAID = "where nothing says what was performed"
_ONE_STUDY = "where it was performed for one study alone"


def _subjects(element: str) -> tuple[Place, ...]:
    kinds = ("Procedure", "ImagingStudy", "Observation")
    return tuple(Place(f"{kind}.subject.identifier.{element}", when=_UNHELD) for kind in kinds)


def _visits(element: str) -> tuple[Place, ...]:
    kinds = ("Procedure", "ImagingStudy", "Observation")
    return tuple(Place(f"{kind}.encounter.identifier.{element}", when=_NO_VISIT) for kind in kinds)


def _stations(below: str) -> tuple[Place, ...]:
    """Whoever did it, as each resource refers to it. In R5 a Device owns no Task."""
    return (
        Place(f"Procedure.performer.actor.where(type = 'Device').{below}"),
        Place(f"ImagingStudy.series.performer.actor.where(type = 'Device').{below}", when=_ONE_STUDY),
        Place(f"Observation.device.{below}"),
        Place(f"Provenance.agent.where(type.coding.code = 'performer').who.{below}"),
        Place(f"Task.owner.{below}", f"Task.output.where(type.text = 'Performed station').valueReference.{below}",
              "where nobody owns it"),
    )  # fmt: skip


def _people(function: str) -> tuple[Place, ...]:
    at = f"performer.where(function.coding.code = '{function}').actor.display"
    return Place(f"Procedure.{at}"), Place(f"ImagingStudy.series.{at}", when=_ONE_STUDY)


def _series(element: str) -> Place:
    return Place(f"ImagingStudy.series.{element}", when=_ONE_STUDY)


def _period(end: str) -> tuple[Place, ...]:
    return (
        Place(f"Procedure.performedPeriod.{end}", f"Procedure.occurrencePeriod.{end}"),
        Place(f"Task.executionPeriod.{end}"),
        Place(f"Observation.effectivePeriod.{end}"),
    )


def _measured(text: str, *codes: str) -> tuple[Place, ...]:
    """A component by its words, with its value, its unit and its code."""
    at = f"Observation.component.where(code.text = '{text}')"
    found = (f"{at}.valueQuantity.value", f"{at}.valueQuantity.code", *(f"{at}.code.coding.code" for _ in codes))
    return tuple(map(Place, found))


_STUDY_CODES = Place("ImagingStudy.procedureCode.coding", "ImagingStudy.procedure.concept.coding")

CARRIED: tuple[Carried, ...] = (
    _no("SpecificCharacterSet", "FHIR is UTF-8"),
    _to(_STEPS, "Procedure.basedOn.reference", "ImagingStudy.basedOn.reference", "Observation.basedOn.reference"),
    _to(f"{_STEPS}.StudyInstanceUID", "ImagingStudy.identifier.where(system = 'urn:dicom:uid').value"),
    _no(f"{_STEPS}.ReferencedStudySequence", "of a retired SOP class, and no more than the study's UID"),
    _to(f"{_STEPS}.AccessionNumber", Place(f"{_ACSN}.value", when=_UNNUMBERED)),
    _to(f"{_STEPS}.IssuerOfAccessionNumberSequence", Place(f"{_ACSN}.system", when=_UNNUMBERED)),
    _no(f"{_STEPS}.PlacerOrderNumberImagingServiceRequest", _NUMBER_OF_ORDER),
    _no(f"{_STEPS}.OrderPlacerIdentifierSequence", _NUMBER_OF_ORDER),
    _no(f"{_STEPS}.FillerOrderNumberImagingServiceRequest", _NUMBER_OF_ORDER),
    _no(f"{_STEPS}.OrderFillerIdentifierSequence", _NUMBER_OF_ORDER),
    _no(f"{_STEPS}.RequestedProcedureID", _ORDER),
    _to(f"{_STEPS}.RequestedProcedureCodeSequence", Place("Procedure.code.coding", when=_UNSAID)),
    _to(f"{_STEPS}.RequestedProcedureDescription", Place("Procedure.code.text", when=_UNSAID)),
    _no(f"{_STEPS}.ScheduledProcedureStepID", "the Task is found by it, and has it as its own identifier"),
    _no(f"{_STEPS}.ScheduledProcedureStepDescription", _ORDER),
    _no(f"{_STEPS}.ScheduledProtocolCodeSequence", _ORDER),
    _no("PatientName", _EHR),
    _to("PatientID", *_subjects("value")),
    _to("IssuerOfPatientID", *_subjects("system")),
    _to("IssuerOfPatientIDQualifiersSequence", *_subjects("system")),
    _to("IssuerOfPatientIDQualifiersSequence.UniversalEntityID", *_subjects("system")),
    _no("IssuerOfPatientIDQualifiersSequence.UniversalEntityIDType", "says what the one before is"),
    _no("OtherPatientIDsSequence", _EHR),
    _no("OtherPatientIDsSequence.PatientID", _EHR),
    _no("OtherPatientIDsSequence.IssuerOfPatientID", _EHR),
    _no("OtherPatientIDsSequence.IssuerOfPatientIDQualifiersSequence", _EHR),
    _no("OtherPatientIDsSequence.TypeOfPatientID", _EHR),
    _no("PatientBirthDate", _EHR),
    _no("PatientSex", _EHR),
    _no("ReferencedPatientSequence", "of a retired SOP class"),
    _to("AdmissionID", *_visits("value")),
    _to("IssuerOfAdmissionIDSequence", *_visits("system")),
    _no("ServiceEpisodeID", "Procedure and ImagingStudy have no episode; the encounter leads to it"),
    _no("IssuerOfServiceEpisodeIDSequence", "likewise"),
    _no("ServiceEpisodeDescription", "likewise"),
    _to("PerformedProcedureStepID", "Procedure.identifier.where(type.text = 'Performed Procedure Step ID').value"),
    _to("PerformedStationAETitle", *_stations("identifier.value")),
    _to("PerformedStationName", *_stations("display")),
    _to("PerformedLocation", "Procedure.location.display", "ImagingStudy.location.display"),
    _to("PerformedProcedureStepStartDate", *_period("start"), "ImagingStudy.started"),
    _to("PerformedProcedureStepStartTime", *_period("start"), "ImagingStudy.started"),
    _to("PerformedProcedureStepStatus", "Procedure.status", "ImagingStudy.status", "Observation.status", "Task.status",
        "ServiceRequest.status", "Appointment.status"),
    _to("PerformedProcedureStepDescription", "Procedure.code.text", "ImagingStudy.description"),
    _to("PerformedProcedureTypeDescription", "Procedure.note.text.where(startsWith('Procedure type: '))",
        Place("Procedure.code.text", when="where there is no description")),
    _to("ProcedureCodeSequence", "Procedure.code.coding", _STUDY_CODES),
    _to("ReasonForPerformedProcedureCodeSequence",
        Place("Procedure.reasonCode.coding", "Procedure.reason.concept.coding")),
    _to("PerformedProcedureStepEndDate", *_period("end"), "Provenance.occurredDateTime"),
    _to("PerformedProcedureStepEndTime", *_period("end"), "Provenance.occurredDateTime"),
    _to("CommentsOnThePerformedProcedureStep", "Procedure.note.text"),
    _to("PerformedProcedureStepDiscontinuationReasonCodeSequence", "Procedure.statusReason.coding",
        Place("Task.statusReason.coding", "Task.statusReason.concept.coding"),
        Place("Appointment.cancelationReason.coding", "Appointment.cancellationReason.coding",
              "where it is cancelled")),
    _to("Modality", Place("ImagingStudy.modality.code", "ImagingStudy.modality.coding.code"),
        Place("ImagingStudy.series.modality.code", "ImagingStudy.series.modality.coding.code", _ONE_STUDY)),
    _to("StudyID", "ImagingStudy.identifier.where(type.text = 'Study ID').value"),
    _to("PerformedProtocolCodeSequence", _STUDY_CODES),
    _to(_SERIES, _series("uid"), Place("ImagingStudy.numberOfSeries", when=_ONE_STUDY)),
    _to(f"{_SERIES}.PerformingPhysicianName", *_people("PPRF")),
    _to(f"{_SERIES}.ProtocolName", Place("ImagingStudy.series.description",
                                         when="in brackets behind the series description")),
    _to(f"{_SERIES}.OperatorsName", *_people("SPRF")),
    _to(f"{_SERIES}.SeriesInstanceUID", _series("uid")),
    _to(f"{_SERIES}.SeriesDescription", _series("description")),
    _to(f"{_SERIES}.RetrieveAETitle", _series("endpoint.identifier.where(type.text = 'AE title').value")),
    _no(f"{_SERIES}.ArchiveRequested", "a wish of the modality to the archive; FHIR has no element for it"),
    _to(_IMAGES, _series("instance.uid"), _series("numberOfInstances"),
        Place("ImagingStudy.numberOfInstances", when=_ONE_STUDY)),
    _to(f"{_IMAGES}.ReferencedSOPClassUID", _series("instance.sopClass.code")),
    _to(f"{_IMAGES}.ReferencedSOPInstanceUID", _series("instance.uid")),
    _to(f"{_IMAGES}.ContainerIdentifier",
        _series("specimen.identifier.where(type.text = 'Container identifier').value"),
        Place("ImagingStudy.series.specimen.display", when="where it names specimens")),
    _to(f"{_IMAGES}.SpecimenDescriptionSequence", _series("specimen.identifier.value")),
    _to(f"{_IMAGES}.SpecimenDescriptionSequence.SpecimenIdentifier", _series("specimen.display")),
    _to(f"{_IMAGES}.SpecimenDescriptionSequence.SpecimenUID",
        _series("specimen.identifier.where(system = 'urn:dicom:uid').value")),
    _to(f"{_SERIES}.ReferencedNonImageCompositeSOPInstanceSequence", _series("instance.uid")),
    _to("TotalTimeOfFluoroscopy", *_measured("Total Fluoro Time", "113730")),
    _to("TotalNumberOfExposures", *_measured("Total number of exposures")),
    _to("EntranceDose", *_measured("Entrance dose")),
    _to("ImageAndFluoroscopyAreaDoseProduct", *_measured("Dose Area Product Total", "113722")),
    _to("ExposureDoseSequence", "Observation.component.where(code.text.endsWith(', exposure 1')).valueQuantity.value",
        "Observation.component.where(code.text.endsWith(', exposure 1')).valueString",
        why="each exposure has its number"),
    _to("BillingProcedureStepSequence", "Procedure.note.text.where(startsWith('Billing: '))",
        why="a ChargeItem would start billing there, which is not a modality's to do"),
    _to("FilmConsumptionSequence", Place("Procedure.usedCode.text", "Procedure.used.concept.text")),
    _to("BillingSuppliesAndDevicesSequence",
        Place("Procedure.usedCode.coding", "Procedure.used.concept.coding"),
        Place("Procedure.usedCode.text", "Procedure.used.concept.text", "the quantity behind the meaning")),
)  # fmt: skip

OURS: tuple[Carried, ...] = (
    _to("SOP Instance UID", "Procedure.identifier.where(system = 'urn:dicom:uid').value",
        "Observation.identifier.where(system = 'urn:dicom:uid').value",
        "Task.output.where(type.text = 'Modality Performed Procedure Step').valueIdentifier.value",
        "Provenance.entity.what.identifier.value"),
    _to("(0018,0015) Body Part Examined",
        Place("ImagingStudy.series.bodySite.display", "ImagingStudy.series.bodySite.concept.coding.display",
              "where no region has a code")),
    _to("(0008,2218) Anatomic Region Sequence",
        Place("ImagingStudy.series.bodySite.code", "ImagingStudy.series.bodySite.concept.coding.code")),
    _to("(0020,0060) Laterality",
        Place("ImagingStudy.series.laterality.code", "ImagingStudy.series.laterality.coding.code")),
    _to("(0020,0013) Instance Number", "ImagingStudy.series.instance.number"),
)  # fmt: skip
"""What is carried beside the attributes of that table, where it is said."""

_MACROS = frozenset(
    ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "LocalNamespaceEntityID",
     "UniversalEntityID", "UniversalEntityIDType")
)  # fmt: skip
"""Items of macros: they go with the sequence that they are in."""


def attributes(rows: tuple[Requirement, ...] = REQUIREMENTS, within: str = "") -> Iterator[str]:
    """Every attribute of table F.7.2-1 as `CARRIED` names it, but for the items of macros in sequences of codes,
    issuers and references."""
    for row in rows:
        yield f"{within}{row.keyword}"
        kind = {each.keyword for each in row.items}
        is_macro = bool(kind) and (kind <= _MACROS) and row.keyword != "IssuerOfPatientIDQualifiersSequence"
        is_reference = kind == {"ReferencedSOPClassUID", "ReferencedSOPInstanceUID"}
        if not is_macro and not is_reference:
            yield from attributes(row.items, f"{within}{row.keyword}.")
