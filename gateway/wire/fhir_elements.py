"""Small pieces of FHIR made of DICOM attributes: moments, codes, identifiers, references. Nothing here is a resource.

Every function answers None, '' or nothing where DICOM says nothing; `said_only` then leaves the element out, because
an empty element is no FHIR.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.domain.attributes import TAG, Attributes
from gateway.domain.coding_schemes import CODING_SCHEMES, known_designator
from gateway.domain.identifiers import Identifier
from gateway.domain.outbound_converters import EXPONENT_MOST, Setting, said, ts
from gateway.domain.performed_table import REQUIREMENTS, Requirement
from gateway.wire.fhir_release import Release

DCM = "http://dicom.nema.org/resources/ontology/DCM"
DICOM_UID = "urn:dicom:uid"
"""The system of identifiers that are DICOM UIDs; their values are `urn:oid:UID`."""
IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
UCUM = "http://unitsofmeasure.org"

_SYSTEMS: Mapping[str, str] = {
    row.designator: row.systems[0] if row.systems else f"urn:oid:{row.oid}"
    for row in CODING_SCHEMES
    if row.systems or row.oid
}


def _tags(rows: tuple[Requirement, ...]) -> Iterator[tuple[str, str]]:
    for row in rows:
        yield row.keyword, row.tag
        yield from _tags(row.items)


_TAG: Mapping[str, str] = {**TAG, **dict(_tags(REQUIREMENTS))}
_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+", re.ASCII)
_FRACTION = re.compile(r"\d\d:?\d\d:?\d\d(\.\d{1,6})", re.ASCII)
"""Of a TM: what HL7 v2's TS, by which the offset is found, leaves out."""
_TS = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?([+-]\d\d)(\d\d))?", re.ASCII)


def said_only(value: Any) -> Any:
    """The value without elements that say nothing, at any depth; None where nothing is left."""
    if isinstance(value, Mapping):
        kept = {key: left for key, each in value.items() if (left := said_only(each)) is not None}
        return kept or None
    if isinstance(value, list | tuple):
        return [left for each in value if (left := said_only(each)) is not None] or None
    return None if value == "" else value


# ---- reading attributes ----


def _values(attributes: Attributes, keyword: str) -> list[Any]:
    tag = _TAG.get(keyword, keyword)
    return list((attributes.get(tag) or {}).get("Value") or ())


def words(attributes: Attributes, tag: str) -> str:
    """The first value of an attribute as text; its keyword stands as well as its tag."""
    found = _values(attributes, tag)
    return said(found[0]) if found else ""


def items(attributes: Attributes, tag: str) -> Iterator[Attributes]:
    """The items of a sequence."""
    yield from (each for each in _values(attributes, tag) if isinstance(each, dict))


def people(attributes: Attributes, tag: str) -> Iterator[str]:
    """Names of persons as people write them: prefix, given names, family name, suffix.

    Of a name in several scripts it is the Latin one, else the first that is there.
    """
    for value in _values(attributes, tag):
        scripts = [value.get(each) for each in _SCRIPTS] if isinstance(value, dict) else [value]
        name = str(next(filter(None, scripts), ""))
        family, given, middle, prefix, suffix = ([part.strip() for part in name.split("^")] + [""] * 5)[:5]
        if spoken := " ".join(filter(None, (prefix, given, middle, family, suffix))):
            yield spoken


_SCRIPTS = ("Alphabetic", "Ideographic", "Phonetic")
"""The component groups of a PN (PS3.5 6.2.1)."""


# ---- moments ----


def moment(attributes: Attributes, date: str, time: str, zone: tzinfo | None) -> str:
    """DA and TM of these tags as a dateTime with the department's offset; a date alone where there is no time."""
    day, clock = words(attributes, date), words(attributes, time)
    found = next((each[0][0] for each in ts(day, clock, Setting(zone=zone))), "")
    parts = _TS.fullmatch(found)
    if parts is None:  # a time whose offset nobody knows is no dateTime
        return f"{found[:4]}-{found[4:6]}-{found[6:8]}" if found[:8].isdigit() and len(found) >= 8 else ""
    year, month, of_month, hour, minute, second, offset_h, offset_min = parts.groups()
    if hour is None:
        return f"{year}-{month}-{of_month}"
    exact = _FRACTION.fullmatch(clock)
    fraction = exact[1] if exact else ""
    return f"{year}-{month}-{of_month}T{hour}:{minute}:{second or '00'}{fraction}{offset_h}:{offset_min}"


def instant(at: datetime) -> str:
    """A moment with its offset, to the millisecond."""
    return at.isoformat(timespec="milliseconds")


# ---- codes ----


NO_SCHEMES: Mapping[str, str] = {}


def coding(item: Attributes, own: Mapping[str, str] = NO_SCHEMES) -> dict[str, Any] | None:
    """A code sequence item as a Coding; None where it has no code. `own` are a site's systems by designator."""
    code = words(item, "CodeValue") or words(item, "LongCodeValue") or words(item, "URNCodeValue")
    if not code:
        return None
    scheme = words(item, "CodingSchemeDesignator")
    made: dict[str, Any] | None = said_only(
        {
            "system": system_of_scheme(scheme, own), "version": words(item, "CodingSchemeVersion"), "code": code,
            "display": words(item, "CodeMeaning"),
        }
    )  # fmt: skip
    return made


def system_of_scheme(scheme: str, own: Mapping[str, str] = NO_SCHEMES) -> str:
    """The FHIR system of a coding scheme designator, a site's `own` ones first; '' for one that nobody knows."""
    return own.get(scheme, "") or _SYSTEMS.get(known_designator(scheme, {}), "")


def concept(
    attributes: Attributes, tag: str, text: str = "", own: Mapping[str, str] = NO_SCHEMES
) -> dict[str, Any] | None:
    """All items of a code sequence as one CodeableConcept, with this text."""
    found: dict[str, Any] | None = said_only(
        {"coding": [coding(each, own) for each in items(attributes, tag)], "text": text}
    )
    return found


def concepts(attributes: Attributes, tag: str, own: Mapping[str, str] = NO_SCHEMES) -> list[dict[str, Any]]:
    """Each item of a code sequence as a CodeableConcept of its own."""
    found = (coding(each, own) for each in items(attributes, tag))
    return [{"coding": [each], **({"text": each["display"]} if "display" in each else {})} for each in found if each]


def modality(code: str, release: Release) -> dict[str, Any] | None:
    """A modality: a Coding, from R5 on a CodeableConcept."""
    if not code:
        return None
    found = {"system": DCM, "code": code}
    return {"coding": [found]} if release is Release.R5 else found


# ---- identifiers and references ----


def is_uid(text: str) -> bool:
    """Whether a text is a UID as PS3.5 9.1 has it: what is none cannot be said in FHIR."""
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def uid_identifier(uid: str) -> dict[str, Any] | None:
    """A DICOM UID as an Identifier (imagingstudy.html of the specification)."""
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"} if is_uid(uid) else None


def typed_identifier(number: Identifier | None, code: str, systems: Mapping[str, str]) -> dict[str, Any] | None:
    """A number with its type (HL7 table 0203), and the system of its issuer where that is known."""
    if number is None or not number.value:
        return None
    made: dict[str, Any] | None = said_only(
        {
            "type": {"coding": [{"system": IDENTIFIER_TYPES, "code": code}]},
            "system": system_of_issuer(number.issuer, systems),
            "value": number.value,
            "assigner": {"display": number.issuer} if not system_of_issuer(number.issuer, systems) else None,
        }
    )
    return made


def issuer_of(attributes: Attributes, tag: str) -> str:
    """The authority that an HL7v2 Hierarchic Designator (PS3.3 10.14) names: its universal ID, else its local name."""
    item: Attributes = next(items(attributes, tag), {})
    return words(item, "UniversalEntityID") or words(item, "LocalNamespaceEntityID")


def system_of_issuer(issuer: str, systems: Mapping[str, str]) -> str:
    """The FHIR system of an authority: as it is configured, else its OID or URI; '' where it is but a name."""
    if known := systems.get(issuer, ""):
        return known
    if is_uid(issuer):
        return f"urn:oid:{issuer}"
    return issuer if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", issuer) else ""


def named_identifier(text: str, value: str) -> dict[str, Any] | None:
    """An identifier of which nobody but the modality knows the system: its type says in words what it is."""
    return {"type": {"text": text}, "value": value} if value else None


def logical(of_type: str, identifier: Mapping[str, Any] | None, display: str = "") -> dict[str, Any] | None:
    """A reference by identifier, for what is held elsewhere or nowhere."""
    if identifier is None and not display:
        return None
    made: dict[str, Any] | None = said_only({"type": of_type, "identifier": identifier, "display": display})
    return made


def station(ae_title: str, name: str = "") -> dict[str, Any] | None:
    """The Device that did something, by its AE title."""
    return logical("Device", named_identifier("AE title", ae_title), name)


def quantity(value: str, unit: str, code: str) -> dict[str, Any] | None:
    """A number with its UCUM unit; None where it is no number."""
    number = _number(value)
    return None if number is None else {"value": number, "unit": unit, "system": UCUM, "code": code}


def _number(text: str) -> int | Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > EXPONENT_MOST:
        return None
    return int(number) if number == number.to_integral_value() else number


def whole(text: str) -> int | None:
    """A number of pieces; None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
