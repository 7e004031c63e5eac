"""The worklist's attributes: one table of keys, and the small vocabulary for reading and writing them.

The table drives the mapping (which targets exist), the matcher (what may be a key), the answer (which type rule a
return key follows) and the conformance text. Attribute sets are held in the DICOM JSON Model (PS3.18 annex F):
eight upper-case hex digits -> {"vr": ..., "Value": [...]}; it describes itself, so private and unknown attributes
keep their VR, and needs no DICOM library.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

Element: TypeAlias = dict[str, Any]
Attributes: TypeAlias = dict[str, Element]


class Level(StrEnum):
    """Which thing of the real world an attribute describes (PS3.4 K.6.1.2.2)."""

    PATIENT = "patient"
    VISIT = "visit"
    ORDER = "imaging service request"
    PROCEDURE = "requested procedure"
    STEP = "scheduled procedure step"
    NESTED = "inside a sequence"
    IDENTIFIER = "identifier"


class Matching(StrEnum):
    """What the worklist SCP does with a key value (PS3.4 Table K.6-1, and RAD TF-2 4.5 where it asks for more).

    A value in a key of `UNIVERSAL` or `NEVER` excludes nothing; the attribute is returned all the same.
    """

    REQUIRED = "R"
    OPTIONAL = "O"
    UNIVERSAL = "U"
    NEVER = "-"


class MatchKind(StrEnum):
    """How a key with a value is compared (PS3.4 C.2.2.2). A key without one is universal, whatever its kinds."""

    SINGLE_VALUE = "single value"
    WILD_CARD = "wild card"
    RANGE = "range"
    UID_LIST = "list of UID"
    SEQUENCE = "sequence"
    UNIVERSAL = "universal only"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row: `return_type` is the return key type of Table K.6-1 (1, 2, 3, 1C, 2C)."""

    tag: str
    keyword: str
    vr: str
    level: Level
    matching: Matching
    return_type: str

    @property
    def is_matched(self) -> bool:
        """Whether a value in this key can exclude an item."""
        return self.matching in (Matching.REQUIRED, Matching.OPTIONAL)


WILD_CARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Where `*` and `?` are wild cards (PS3.4 C.2.2.2.4)."""

_KINDS_BY_VR: Mapping[str, tuple[MatchKind, ...]] = {
    "SQ": (MatchKind.SEQUENCE,),
    "UI": (MatchKind.SINGLE_VALUE, MatchKind.UID_LIST),
    **dict.fromkeys(("DA", "TM", "DT"), (MatchKind.SINGLE_VALUE, MatchKind.RANGE)),
    **dict.fromkeys(WILD_CARD_VRS, (MatchKind.SINGLE_VALUE, MatchKind.WILD_CARD)),
}


def matching_kinds(attribute: Attribute) -> tuple[MatchKind, ...]:
    """How a value in this key is compared, for the conformance statement."""
    if attribute.matching is Matching.NEVER:
        return (MatchKind.NONE,)
    if attribute.matching is Matching.UNIVERSAL:
        return (MatchKind.UNIVERSAL,)
    return _KINDS_BY_VR.get(attribute.vr, (MatchKind.SINGLE_VALUE,))


_ROWS = """
00400001 ScheduledStationAETitle AE STEP R 1
00400002 ScheduledProcedureStepStartDate DA STEP R 1
00400003 ScheduledProcedureStepStartTime TM STEP R 1
00080060 Modality CS STEP R 1
00400006 ScheduledPerformingPhysicianName PN STEP R 2
00400007 ScheduledProcedureStepDescription LO STEP O 1C
00400010 ScheduledStationName SH STEP O 2
00400011 ScheduledProcedureStepLocation SH STEP O 2
0018990C ReferencedDefinedProtocolSequence SQ STEP O 3
0018990D ReferencedPerformedProtocolSequence SQ STEP O 3
00400008 ScheduledProtocolCodeSequence SQ STEP O 1C
00400012 PreMedication LO STEP O 2C
00400009 ScheduledProcedureStepID SH STEP O 1
00321070 RequestedContrastAgent LO STEP O 2C
00400020 ScheduledProcedureStepStatus CS STEP O 3
00400004 ScheduledProcedureStepEndDate DA STEP O 3
00400005 ScheduledProcedureStepEndTime TM STEP O 3
0040000B ScheduledPerformingPhysicianIdentificationSequence SQ STEP O 3
00400400 CommentsOnTheScheduledProcedureStep LT STEP O 3
00102210 AnatomicalOrientationType CS STEP O 3
00400500 ScheduledSpecimenSequence SQ PROCEDURE O 3
22000005 BarcodeValue LT PROCEDURE O 3
00401001 RequestedProcedureID SH PROCEDURE R 1
00321060 RequestedProcedureDescription LO PROCEDURE O 1C
00321064 RequestedProcedureCodeSequence SQ PROCEDURE O 1C
0020000D StudyInstanceUID UI PROCEDURE O 1
00080020 StudyDate DA PROCEDURE O 3
00080030 StudyTime TM PROCEDURE O 3
00081110 ReferencedStudySequence SQ PROCEDURE O 2
00401003 RequestedProcedurePriority SH PROCEDURE O 2
00401004 PatientTransportArrangements LO PROCEDURE O 2
00401002 ReasonForTheRequestedProcedure LO PROCEDURE O 3
0040100A ReasonForRequestedProcedureCodeSequence SQ PROCEDURE O 3
00401400 RequestedProcedureComments LT PROCEDURE O 3
00401005 RequestedProcedureLocation LO PROCEDURE O 3
00401008 ConfidentialityCode LO PROCEDURE O 3
00401009 ReportingPriority SH PROCEDURE O 3
00401010 NamesOfIntendedRecipientsOfResults PN PROCEDURE O 3
00401011 IntendedRecipientsOfResultsIdentificationSequence SQ PROCEDURE O 3
00080050 AccessionNumber SH PROCEDURE R 2
00080051 IssuerOfAccessionNumberSequence SQ PROCEDURE O 3
00321032 RequestingPhysician PN ORDER O 2
00080090 ReferringPhysicianName PN ORDER O 2
00402400 ImagingServiceRequestComments LT ORDER O 3
00321031 RequestingPhysicianIdentificationSequence SQ ORDER O 3
00080096 ReferringPhysicianIdentificationSequence SQ ORDER O 3
00080092 ReferringPhysicianAddress ST ORDER O 3
00080094 ReferringPhysicianTelephoneNumbers SH ORDER O 3
00321033 RequestingService LO ORDER O 3
00321034 RequestingServiceCodeSequence SQ ORDER O 3
00402004 IssueDateOfImagingServiceRequest DA ORDER O 3
00402005 IssueTimeOfImagingServiceRequest TM ORDER O 3
00402016 PlacerOrderNumberImagingServiceRequest LO ORDER O 3
00400026 OrderPlacerIdentifierSequence SQ ORDER O 3
00402017 FillerOrderNumberImagingServiceRequest LO ORDER O 3
00400027 OrderFillerIdentifierSequence SQ ORDER O 3
00402008 OrderEnteredBy PN ORDER O 3
00402009 OrderEntererLocation SH ORDER O 3
00402010 OrderCallbackPhoneNumber SH ORDER O 3
00402011 OrderCallbackTelecomInformation LT ORDER O 3
00380010 AdmissionID LO VISIT O 2
00380014 IssuerOfAdmissionIDSequence SQ VISIT O 3
00080080 InstitutionName LO VISIT O 3
00080081 InstitutionAddress ST VISIT O 3
00080082 InstitutionCodeSequence SQ VISIT O 3
00081040 InstitutionalDepartmentName LO VISIT O 3
00081041 InstitutionalDepartmentTypeCodeSequence SQ VISIT O 3
00380060 ServiceEpisodeID LO VISIT O 3
00380064 IssuerOfServiceEpisodeIDSequence SQ VISIT O 3
00380062 ServiceEpisodeDescription LO VISIT O 3
00321066 ReasonForVisit UT VISIT O 3
00321067 ReasonForVisitCodeSequence SQ VISIT O 3
00380300 CurrentPatientLocation LO VISIT O 2
00380008 VisitStatusID CS VISIT O 3
00380400 PatientInstitutionResidence LO VISIT O 3
00384000 VisitComments LT VISIT O 3
00380016 RouteOfAdmissions LO VISIT O 3
00380020 AdmittingDate DA VISIT O 3
00380021 AdmittingTime TM VISIT O 3
00081080 AdmittingDiagnosesDescription LO VISIT O 3
00081084 AdmittingDiagnosesCodeSequence SQ VISIT O 3
0008009C ConsultingPhysicianName PN VISIT O 3
00081120 ReferencedPatientSequence SQ VISIT O 2
00100010 PatientName PN PATIENT R 1
00100020 PatientID LO PATIENT R 1
00100021 IssuerOfPatientID LO PATIENT O 3
00100022 TypeOfPatientID CS PATIENT O 3
00100024 IssuerOfPatientIDQualifiersSequence SQ PATIENT O 3
00101002 OtherPatientIDsSequence SQ PATIENT O 3
00100030 PatientBirthDate DA PATIENT O 2
00100032 PatientBirthTime TM PATIENT O 3
00100040 PatientSex CS PATIENT O 2
00100101 PatientPrimaryLanguageCodeSequence SQ PATIENT O 3
00101030 PatientWeight DS PATIENT O 2
00101020 PatientSize DS PATIENT O 3
00403001 ConfidentialityConstraintOnPatientDataDescription LO PATIENT O 2
00101001 OtherPatientNames PN PATIENT O 3
00101005 PatientBirthName PN PATIENT O 3
00101060 PatientMotherBirthName PN PATIENT O 3
00101090 MedicalRecordLocator LO PATIENT O 3
00101100 ReferencedPatientPhotoSequence SQ PATIENT O 3
00100027 GroupOfPatientsIdentificationSequence SQ PATIENT O 3
00101010 PatientAge AS PATIENT O 3
00102160 EthnicGroup SH PATIENT O 3
00101040 PatientAddress LO PATIENT O 3
00102154 PatientTelephoneNumbers SH PATIENT O 3
00102155 PatientTelecomInformation LT PATIENT O 3
00102180 Occupation SH PATIENT O 3
001021F0 PatientReligiousPreference LO PATIENT O 3
00101080 MilitaryRank LO PATIENT O 3
00101081 BranchOfService LO PATIENT O 3
00102150 CountryOfResidence LO PATIENT O 3
00102152 RegionOfResidence LO PATIENT O 3
00104000 PatientComments LT PATIENT O 3
00102201 PatientSpeciesDescription LO PATIENT O 3
00102292 PatientBreedDescription LO PATIENT O 3
00102297 ResponsiblePerson PN PATIENT O 3
00102298 ResponsiblePersonRole CS PATIENT O 3
00380500 PatientState LO PATIENT O 2
001021C0 PregnancyStatus US PATIENT O 2
00102000 MedicalAlerts LO PATIENT O 2
00102110 Allergies LO PATIENT O 2
00380050 SpecialNeeds LO PATIENT O 2
00380100 PertinentDocumentsSequence SQ PATIENT U 3
001021B0 AdditionalPatientHistory LT PATIENT O 3
001021D0 LastMenstrualDate DA PATIENT O 3
001021A0 SmokingStatus CS PATIENT O 3
00102203 PatientSexNeutered CS PATIENT O 3
00400100 ScheduledProcedureStepSequence SQ NESTED R 1
00080100 CodeValue SH NESTED O 1C
00080102 CodingSchemeDesignator SH NESTED O 1C
00080103 CodingSchemeVersion SH NESTED O 3
00080104 CodeMeaning LO NESTED O 3
00080119 LongCodeValue UC NESTED O 1C
00080120 URNCodeValue UR NESTED O 1C
00080121 EquivalentCodeSequence SQ NESTED O 3
00400440 ProtocolContextSequence SQ NESTED - 3
0040A040 ValueType CS NESTED - 1
0040A043 ConceptNameCodeSequence SQ NESTED - 1
0040A120 DateTime DT NESTED - 1C
0040A121 Date DA NESTED - 1C
0040A122 Time TM NESTED - 1C
0040A123 PersonName PN NESTED - 1C
0040A124 UID UI NESTED - 1C
0040A160 TextValue UT NESTED - 1C
0040A168 ConceptCodeSequence SQ NESTED - 1C
0040A30A NumericValue DS NESTED - 1C
004008EA MeasurementUnitsCodeSequence SQ NESTED - 1C
00081199 ReferencedSOPSequence SQ NESTED - 1C
00400031 LocalNamespaceEntityID UT NESTED O 3
00400032 UniversalEntityID UT NESTED O 3
00400033 UniversalEntityIDType CS NESTED O 3
00400035 IdentifierTypeCode CS NESTED O 3
00400036 AssigningFacilitySequence SQ NESTED O 3
00400039 AssigningJurisdictionCodeSequence SQ NESTED O 3
0040003A AssigningAgencyOrDepartmentCodeSequence SQ NESTED O 3
00401101 PersonIdentificationCodeSequence SQ NESTED O 1
00401102 PersonAddress ST NESTED O 3
00401103 PersonTelephoneNumbers LO NESTED O 3
00401104 PersonTelecomInformation LT NESTED O 3
00081150 ReferencedSOPClassUID UI NESTED O 1
00081155 ReferencedSOPInstanceUID UI NESTED O 1
00400512 ContainerIdentifier LO NESTED O 1
00400518 ContainerTypeCodeSequence SQ NESTED - 2
00400560 SpecimenDescriptionSequence SQ NESTED O 1
00400551 SpecimenIdentifier LO NESTED O 1
00400554 SpecimenUID UI NESTED O 1
00100102 PatientPrimaryLanguageModifierCodeSequence SQ NESTED O 3
0040A170 PurposeOfReferenceCodeSequence SQ NESTED - 2
00420010 DocumentTitle ST NESTED - 2
0040E001 HL7InstanceIdentifier ST NESTED - 1
0040E010 RetrieveURI UR NESTED - 3
00080005 SpecificCharacterSet CS IDENTIFIER - 1C
00080201 TimezoneOffsetFromUTC SH IDENTIFIER - 1C
0040A390 HL7StructuredDocumentReferenceSequence SQ IDENTIFIER - 1C
"""


def _row(line: str) -> Attribute:
    tag, keyword, vr, level, matching, return_type = line.split()
    return Attribute(tag, keyword, vr, Level[level], Matching(matching), return_type)


ATTRIBUTES: tuple[Attribute, ...] = tuple(_row(line) for line in _ROWS.strip().splitlines())
BY_TAG: Mapping[str, Attribute] = {attribute.tag: attribute for attribute in ATTRIBUTES}
BY_KEYWORD: Mapping[str, Attribute] = {attribute.keyword: attribute for attribute in ATTRIBUTES}
TAG: Mapping[str, str] = {attribute.keyword: attribute.tag for attribute in ATTRIBUTES}
_VR: Mapping[str, str] = {attribute.keyword: attribute.vr for attribute in ATTRIBUTES}

SPS_SEQUENCE = TAG["ScheduledProcedureStepSequence"]
STEP_TYPE_1 = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledProcedureStepID",
)

# Longest value in characters (PS3.5 table 6.2-1); VRs without a row are not bounded here.
LENGTH_MAX: Mapping[str, int] = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "IS": 12, "LO": 64, "LT": 10240, "PN": 64, "SH": 16, "ST": 1024,
    "TM": 14, "UI": 64,
}  # fmt: skip


def element(keyword: str, *values: Any) -> Element:
    """The element of a table attribute with these values; with none, a zero-length element."""
    vr = _VR[keyword]
    return {"vr": vr, "Value": [*values]} if values else {"vr": vr}


def values(attributes: Mapping[str, Element], keyword: str) -> list[Any]:
    """All values of an attribute; empty where it is absent or has none."""
    held = attributes.get(TAG[keyword])
    return list(held.get("Value") or ()) if held else []


def text(attributes: Mapping[str, Element], keyword: str) -> str:
    """The first value as text ('' where there is none); a person name as its component groups."""
    held = attributes.get(TAG[keyword])
    found = held.get("Value") if held else None
    if not found:
        return ""
    first = found[0]
    if type(first) is str:
        return first
    if first is None:
        return ""
    return person_name_text(first) if isinstance(first, dict) else str(first)


def person_name_text(value: Mapping[str, Any]) -> str:
    """`Alphabetic=Ideographic=Phonetic` without trailing empty groups (PS3.5 6.2.1.2)."""
    groups = (str(value.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
    return "=".join(groups).rstrip("=")


def person_name_value(name: str) -> dict[str, str]:
    """The DICOM JSON form of a person name given as its component groups."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    return {group: part for group, part in groups if part}


def merge(held: Mapping[str, Element], said: Mapping[str, Element]) -> Attributes:
    """What is held after a feed spoke: silence keeps a value, a zero-length element deletes it."""
    merged = {**held, **said}
    for tag, spoken in said.items():
        if not spoken.get("Value"):
            del merged[tag]
    return merged


def is_private_creator(tag: str) -> bool:
    """Whether the tag reserves a block of private elements (PS3.5 7.8.1)."""
    return tag[3] in "13579BDF" and tag[4:6] == "00" and tag[6:] >= "10"


def is_private(tag: str) -> bool:
    """Whether the tag is a private data element, which means something only together with its creator."""
    return tag[3] in "13579BDF" and tag[4:6] != "00"


def private_creator(attributes: Mapping[str, Element], tag: str) -> str:
    """Who reserved the block of a private element in this data set or item; '' where nobody did."""
    return _creator(attributes.get(f"{tag[:4]}00{tag[4:6]}"))


def held_tag(attributes: Mapping[str, Element], tag: str, creator: str) -> str | None:
    """Under which tag a data set or item holds a private element of this creator; None where it does not.

    Two writers may reserve different blocks for the same creator: only creator and last byte say which element it is.
    Who names no creator means what is held under the same tag, for there is nothing else to go by.
    """
    if not creator:
        return tag if tag in attributes else None
    for each, held in attributes.items():
        if each[:6] == f"{tag[:4]}00" and is_private_creator(each) and _creator(held) == creator:
            found = f"{tag[:4]}{each[6:]}{tag[6:]}"
            if found in attributes:
                return found
    return None


def _creator(held: Any) -> str:
    said = held.get("Value") if isinstance(held, dict) else None
    return said[0].strip(" \0") if isinstance(said, list) and said and isinstance(said[0], str) else ""


def at_level(attributes: Mapping[str, Element], levels: Iterable[Level]) -> Attributes:
    """The table attributes of these levels; attributes that the table does not know belong to none."""
    wanted = frozenset(levels)
    return {tag: held for tag, held in attributes.items() if tag in BY_TAG and BY_TAG[tag].level in wanted}


# An order has some ten coded entries and issuers, so their parts are not looked up by keyword each time.
_CODE_VALUE, _LONG_CODE_VALUE, _URN_CODE_VALUE = TAG["CodeValue"], TAG["LongCodeValue"], TAG["URNCodeValue"]
_SCHEME, _SCHEME_VERSION = TAG["CodingSchemeDesignator"], TAG["CodingSchemeVersion"]
_CODE_MEANING = TAG["CodeMeaning"]
_NAMESPACE, _UNIVERSAL_ID = TAG["LocalNamespaceEntityID"], TAG["UniversalEntityID"]
_UNIVERSAL_ID_TYPE = TAG["UniversalEntityIDType"]
_CODE_VALUE_CHARACTERS_MAX, _CODE_MEANING_CHARACTERS_MAX = LENGTH_MAX["SH"], LENGTH_MAX["LO"]


def code_item(code: str, scheme: str, meaning: str = "", version: str = "") -> Attributes:
    """A coded entry (PS3.3 8): long codes and URNs in their own attributes, never cut; meaning falls back to code."""
    item: Attributes
    if code.startswith(("urn:", "http:", "https:")):
        item = {_URN_CODE_VALUE: {"vr": "UR", "Value": [code]}}
    elif len(code) <= _CODE_VALUE_CHARACTERS_MAX:
        item = {_CODE_VALUE: {"vr": "SH", "Value": [code]}, _SCHEME: {"vr": "SH", "Value": [scheme]}}
    else:
        item = {_LONG_CODE_VALUE: {"vr": "UC", "Value": [code]}, _SCHEME: {"vr": "SH", "Value": [scheme]}}
    if version:
        item[_SCHEME_VERSION] = {"vr": "SH", "Value": [version]}
    item[_CODE_MEANING] = {"vr": "LO", "Value": [(meaning or code)[:_CODE_MEANING_CHARACTERS_MAX]]}
    return item


def issuer_item(namespace: str, universal_id: str, universal_id_type: str) -> Attributes:
    """An HD macro item (PS3.3 10.14) of what is known; empty where nothing is."""
    item: Attributes = {}
    if namespace:
        item[_NAMESPACE] = {"vr": "UT", "Value": [namespace]}
    if universal_id:
        item[_UNIVERSAL_ID] = {"vr": "UT", "Value": [universal_id]}
        if universal_id_type:
            item[_UNIVERSAL_ID_TYPE] = {"vr": "CS", "Value": [universal_id_type]}
    return item
