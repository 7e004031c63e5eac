"""Table F.7.2-1 of PS3.4: what each attribute of a performed procedure step may do, by tag and occasion.

Every attribute rule is in `REQUIREMENTS`; `performed_rules` applies it, and the reference manual prints it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row of table F.7.2-1.

    `on_create` and `on_set` are SCU/SCP requirement types; `on_set` is 'not allowed' for what only N-CREATE may
    say; `in_final` is the type that holds once the step is COMPLETED or DISCONTINUED, '' where the creation's does.
    """

    tag: str
    keyword: str
    vr: str
    on_create: str
    on_set: str
    in_final: str
    items: tuple["Requirement", ...] = ()

    @property
    def settable(self) -> bool:
        return self.on_set != NOT_ALLOWED


NOT_ALLOWED = "not allowed"

# Rows of items that recur: coded entry, hierarchic designator (issuer), reference to an instance.
_MACROS = {
    "code": """
00080100 CodeValue SH 1C/1C
00080102 CodingSchemeDesignator SH 1C/1C
00080103 CodingSchemeVersion SH 1C/1C
00080104 CodeMeaning LO {meaning}
""",
    "hd": """
00400031 LocalNamespaceEntityID UT 1C/1C
00400032 UniversalEntityID UT 1C/1C
00400033 UniversalEntityIDType CS 1C/1C
""",
    "sop": """
00081150 ReferencedSOPClassUID UI 1/1
00081155 ReferencedSOPInstanceUID UI 1/1
""",
}

# Depth-marked tag, keyword, VR, N-CREATE, N-SET ('-' not allowed), final state ('.' as created), [macro of its items].
# `coded` is a coded entry whose meaning is mandatory; in `code` it is optional (tables F.7.2-1a to f).
_ROWS = """
00080005 SpecificCharacterSet CS 1C/1C 1C/1C .
00400270 ScheduledStepAttributesSequence SQ 1/1 - .
>0020000D StudyInstanceUID UI 1/1 - .
>00081110 ReferencedStudySequence SQ 2/2 - . sop
>00080050 AccessionNumber SH 2/2 - .
>00080051 IssuerOfAccessionNumberSequence SQ 3/3 - . hd
>00402016 PlacerOrderNumberImagingServiceRequest LO 3/3 - .
>00400026 OrderPlacerIdentifierSequence SQ 3/3 - . hd
>00402017 FillerOrderNumberImagingServiceRequest LO 3/3 - .
>00400027 OrderFillerIdentifierSequence SQ 3/3 - . hd
>00401001 RequestedProcedureID SH 2/2 - .
>00321064 RequestedProcedureCodeSequence SQ 3/3 - . coded
>00321060 RequestedProcedureDescription LO 2/2 - .
>00400009 ScheduledProcedureStepID SH 2/2 - .
>00400007 ScheduledProcedureStepDescription LO 2/2 - .
>00400008 ScheduledProtocolCodeSequence SQ 2/2 - . coded
00100010 PatientName PN 2/2 - .
00100020 PatientID LO 2/2 - .
00100021 IssuerOfPatientID LO 3/3 - .
00100024 IssuerOfPatientIDQualifiersSequence SQ 3/3 - .
>00400032 UniversalEntityID UT 3/3 - .
>00400033 UniversalEntityIDType CS 1C/1C - .
00101002 OtherPatientIDsSequence SQ 3/3 - .
>00100020 PatientID LO 3/3 - .
>00100021 IssuerOfPatientID LO 3/3 - .
>00100024 IssuerOfPatientIDQualifiersSequence SQ 3/3 - .
>00100022 TypeOfPatientID CS 3/3 - .
00100030 PatientBirthDate DA 2/2 - .
00100040 PatientSex CS 2/2 - .
00081120 ReferencedPatientSequence SQ 2/2 - . sop
00380010 AdmissionID LO 3/3 - .
00380014 IssuerOfAdmissionIDSequence SQ 3/3 - . hd
00380060 ServiceEpisodeID LO 3/3 - .
00380064 IssuerOfServiceEpisodeIDSequence SQ 3/3 - . hd
00380062 ServiceEpisodeDescription LO 3/3 - .
00400253 PerformedProcedureStepID SH 1/1 - .
00400241 PerformedStationAETitle AE 1/1 - .
00400242 PerformedStationName SH 2/2 - .
00400243 PerformedLocation SH 2/2 - .
00400244 PerformedProcedureStepStartDate DA 1/1 - .
00400245 PerformedProcedureStepStartTime TM 1/1 - .
00400252 PerformedProcedureStepStatus CS 1/1 3/1 .
00400254 PerformedProcedureStepDescription LO 2/2 3/2 .
00400255 PerformedProcedureTypeDescription LO 2/2 3/2 .
00081032 ProcedureCodeSequence SQ 2/2 3/2 . code
00401012 ReasonForPerformedProcedureCodeSequence SQ 3/3 3/3 . coded
00400250 PerformedProcedureStepEndDate DA 2/2 3/1 1
00400251 PerformedProcedureStepEndTime TM 2/2 3/1 1
00400280 CommentsOnThePerformedProcedureStep ST 3/3 3/3 .
00400281 PerformedProcedureStepDiscontinuationReasonCodeSequence SQ 3/3 3/3 . coded
00080060 Modality CS 1/1 - .
00200010 StudyID SH 2/2 - .
00400260 PerformedProtocolCodeSequence SQ 2/2 3/2 . code
00400340 PerformedSeriesSequence SQ 2/2 3/1 1
>00081050 PerformingPhysicianName PN 2/2 2/2 2
>00181030 ProtocolName LO 1/1 1/1 1
>00081070 OperatorsName PN 2/2 2/2 2
>0020000E SeriesInstanceUID UI 1/1 1/1 1
>0008103E SeriesDescription LO 2/2 2/2 2
>00080054 RetrieveAETitle AE 2/2 2/2 2
>0040A494 ArchiveRequested CS 3/3 3/3 .
>00081140 ReferencedImageSequence SQ 2/2 2/2 2
>>00081150 ReferencedSOPClassUID UI 1/1 1/1 .
>>00081155 ReferencedSOPInstanceUID UI 1/1 1/1 .
>>00400512 ContainerIdentifier LO 3/3 3/3 .
>>00400560 SpecimenDescriptionSequence SQ 3/3 3/3 .
>>>00400551 SpecimenIdentifier LO 1/1 1/1 .
>>>00400554 SpecimenUID UI 1/1 1/1 .
>00400220 ReferencedNonImageCompositeSOPInstanceSequence SQ 2/2 2/2 2 sop
00400300 TotalTimeOfFluoroscopy US 3/3 3/3 .
00400301 TotalNumberOfExposures US 3/3 3/3 .
00400302 EntranceDose US 3/3 3/3 .
0018115E ImageAndFluoroscopyAreaDoseProduct DS 3/3 3/3 .
0040030E ExposureDoseSequence SQ 3/3 3/3 .
00400320 BillingProcedureStepSequence SQ 3/3 3/3 . code
00400321 FilmConsumptionSequence SQ 3/3 3/3 .
00400324 BillingSuppliesAndDevicesSequence SQ 3/3 3/3 .
"""


def _macro(name: str, on_set: str) -> tuple[Requirement, ...]:
    """The item rows of a macro; they may be set where the sequence around them may."""
    rows = _MACROS["code" if name == "coded" else name].format(meaning="1/1" if name == "coded" else "3/3")
    parts = [row.split() for row in rows.strip().splitlines()]
    return tuple(
        Requirement(tag, keyword, vr, types, NOT_ALLOWED if on_set == "-" else types, "")
        for tag, keyword, vr, types in parts
    )


def _requirements(rows: Sequence[str], depth: int = 0) -> tuple[Requirement, ...]:
    """The rows of this depth, each with the deeper rows that follow it as its items."""
    found: list[Requirement] = []
    for number, row in enumerate(rows):
        marked, keyword, vr, on_create, on_set, in_final, *macro = row.split()
        if len(marked) - 8 != depth:
            continue
        inner: list[str] = []
        for following in rows[number + 1 :]:
            if len(following.split()[0]) - 8 <= depth:
                break
            inner.append(following)
        items = _macro(macro[0], on_set) if macro else _requirements(inner, depth + 1)
        found.append(
            Requirement(
                marked.lstrip(">"), keyword, vr, on_create, NOT_ALLOWED if on_set == "-" else on_set,
                in_final.strip("."), items,
            )
        )  # fmt: skip
    return tuple(found)


REQUIREMENTS: tuple[Requirement, ...] = _requirements(_ROWS.strip().splitlines())
BY_TAG: Mapping[str, Requirement] = {requirement.tag: requirement for requirement in REQUIREMENTS}
