"""FHIR values as the HL7 v2 data types that correspond to them: the v2-to-FHIR data type maps, backwards.

So converters, code tables, edits and picks read both alike, and the same order by HL7 and by FHIR gives the same item.
One table, from FHIR's type to a repetition; what has no row is no value, and no rule may end at it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.domain.identifiers import Issuers
from gateway.domain.source import NULL, Repetition

_Made = Callable[[Any, Issuers], Repetition]
_HD = tuple[str, str, str]


class DataType(NamedTuple):
    """A row: the type of FHIR, that of HL7 v2, which component is which, and how it is made."""

    name: str
    hl7: str
    components: str
    made: _Made


def repetition(value: Any, datatype: str, issuers: Issuers) -> Repetition:
    """The value as one repetition of a field; () where it says nothing, or its type has no row."""
    row = DATATYPES.get(datatype)
    if row is None:
        return ()
    made = row.made(value, issuers)
    return made if any(map(any, made)) else ()


def is_readable(datatype: str) -> bool:
    """Whether a rule can take a value of this type."""
    return datatype in DATATYPES


# ---- small things ----


def _text(said: Any) -> str:
    """A text; what HL7 takes for a null is not one in FHIR, and deletes nothing."""
    return said if isinstance(said, str) and said != NULL else ""


def _texts(said: Any) -> Sequence[str]:
    return [text for each in said if (text := _text(each))] if isinstance(said, list) else ()


def _maps(said: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in said if isinstance(each, Mapping)] if isinstance(said, list) else ()


def _map(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {}


def _components(*texts: str) -> Repetition:
    """Components without subcomponents; empty ones at the end go."""
    last = len(texts)
    while last and not texts[last - 1]:
        last -= 1
    return tuple([(text,) for text in texts[:last]])


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:f}" if hasattr(value, "as_tuple") else str(value)


# ---- primitives ----


def _plain(value: Any, issuers: Issuers) -> Repetition:
    return _components(_text(value) if isinstance(value, str) else _number(value))


_MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?", re.ASCII)


def moment(text: str) -> str:
    """A date, dateTime or instant as HL7 writes it; what is none stays, for a converter to refuse."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return text
    *clock, fraction, offset = (group or "" for group in found.groups())
    exact = f".{fraction[:4]}" if fraction else ""
    return "".join(clock) + exact + ("+0000" if offset == "Z" else offset.replace(":", ""))


def _moment(value: Any, issuers: Issuers) -> Repetition:
    return _components(moment(_text(value)))


def _time(value: Any, issuers: Issuers) -> Repetition:
    found = _CLOCK.fullmatch(_text(value))
    if found is None:
        return _components(_text(value))
    *clock, fraction = (group or "" for group in found.groups())
    return _components("".join(clock) + (f".{fraction[:4]}" if fraction else ""))


def _period(value: Any, issuers: Issuers) -> Repetition:
    return _components(moment(_text(value.get("start"))), moment(_text(value.get("end"))))


# ---- codes ----


def _preferred(concept: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The codings with a code, the one that a person chose first."""
    coded = [each for each in _maps(concept.get("coding")) if _text(each.get("code"))]
    return sorted(coded, key=lambda each: each.get("userSelected") is not True)


def _triplet(coding: Mapping[str, Any], text: str = "") -> tuple[str, str, str]:
    return _text(coding.get("code")), _text(coding.get("display")) or text, _text(coding.get("system"))


def _coding(value: Any, issuers: Issuers) -> Repetition:
    return _components(*_triplet(value), "", "", "", _text(value.get("version")))


_MORE_CODINGS_MAX = 5
"""Of the codings of a concept, beside two. HL7 has place for one; more are a habit of terminology servers."""


def _concept(value: Any, issuers: Issuers) -> Repetition:
    nothing: Mapping[str, Any] = {}
    first, second, *more = [*_preferred(value), nothing, nothing]
    text = _text(value.get("text"))
    return _components(
        *_triplet(first, text), *_triplet(second), _text(first.get("version")), _text(second.get("version")), text,
        *(said for coding in more[:_MORE_CODINGS_MAX] for said in _triplet(coding)),
    )  # fmt: skip


def _concept_or_reference(value: Any, issuers: Issuers) -> Repetition:
    concept = value.get("concept")
    if isinstance(concept, Mapping):
        return _concept(concept, issuers)
    return _reference(_map(value.get("reference")), issuers)


# ---- identifiers ----

_OID = "urn:oid:"
_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


def authority(identifier: Mapping[str, Any], issuers: Issuers) -> _HD:
    """Who issued an identifier, as an HD: namespace, universal ID and its type; nothing where no system is named."""
    system = _text(identifier.get("system"))
    if not system:
        return "", "", ""
    name = issuers.resolve_system(system)
    known = name != system or name in issuers
    namespace = name if known else _text(_map(identifier.get("assigner")).get("display"))
    if system.startswith(_OID):
        return namespace, system.removeprefix(_OID), "ISO"
    return (namespace, "", "") if known else (namespace, system, "URI")


def _type_code(identifier: Mapping[str, Any]) -> str:
    """The code of HL7 table 0203, else the first there is."""
    codings = _maps(_map(identifier.get("type")).get("coding"))
    ours = [each for each in codings if each.get("system") == _TYPES] or codings
    return _text(ours[0].get("code")) if ours else ""


def _hd(issuer: _HD) -> tuple[str, ...]:
    return issuer if issuer[1] else issuer[:1]


def _identifier(value: Any, issuers: Issuers) -> Repetition:
    issuer, code = authority(value, issuers), _type_code(value)
    number = (_text(value.get("value")),)
    if not number[0]:
        return ()
    if not code:
        return (number, ("",), ("",), _hd(issuer)) if any(issuer) else (number,)
    return number, ("",), ("",), _hd(issuer), (code,)


# ---- people, places ----

_NAME_TYPES: Mapping[str, str] = {
    "official": "L", "usual": "D", "maiden": "M", "nickname": "N", "anonymous": "S", "temp": "T", "old": "NOUSE",
}  # fmt: skip
"""HumanName.use -> HL7 table 0200."""
_REPRESENTATIONS: Mapping[str, str] = {"ABC": "A", "IDE": "I", "SYL": "P"}
_REPRESENTATION_URL = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_PREFERRED = ("official", "usual")


def _name_parts(name: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Family, given, further given names, suffix, prefix; a name that is only a text is a family name."""
    given = _texts(name.get("given"))
    parts = (
        _text(name.get("family")), given[0] if given else "", " ".join(given[1:]),
        " ".join(_texts(name.get("suffix"))), " ".join(_texts(name.get("prefix"))),
    )  # fmt: skip
    return parts if parts[0] or parts[1] else (_text(name.get("text")), "", "", "", "")


def _name(value: Any, issuers: Issuers) -> Repetition:
    codes = (
        _REPRESENTATIONS.get(_text(each.get("valueCode")), "")
        for each in _maps(value.get("extension"))
        if each.get("url") == _REPRESENTATION_URL
    )
    parts = _name_parts(value)
    if not any(parts):
        return ()
    return _components(*parts, "", _NAME_TYPES.get(_text(value.get("use")), ""), next(codes, ""))


def _person(value: Any, issuers: Issuers) -> Repetition:
    """A Practitioner (or anybody with names and identifiers) as an XCN."""
    names = sorted(_maps(value.get("name")), key=_turn)
    identifiers = [each for each in _maps(value.get("identifier")) if _text(each.get("value"))]
    return _xcn(names[0] if names else {}, identifiers[0] if identifiers else {}, issuers)


def _turn(name: Mapping[str, Any]) -> int:
    use = _text(name.get("use"))
    return _PREFERRED.index(use) if use in _PREFERRED else 3 if use in ("old", "maiden") else 2


def _xcn(name: Mapping[str, Any], identifier: Mapping[str, Any], issuers: Issuers) -> Repetition:
    parts = [(part,) for part in (_text(identifier.get("value")), *_name_parts(name), "", "")]
    made = *parts, _hd(authority(identifier, issuers))
    return made if any(made[8]) else _components(*(part for (part,) in parts))


def _reference(value: Any, issuers: Issuers) -> Repetition:
    return _xcn({"text": value.get("display")}, _map(value.get("identifier")), issuers)


def _role(value: Any, issuers: Issuers) -> Repetition:
    identifiers = _maps(value.get("identifier"))
    person = _map(value.get("practitioner"))
    identifier = _map(person.get("identifier")) or (identifiers[0] if identifiers else {})
    return _xcn({"text": person.get("display")}, identifier, issuers)


def _organization(value: Any, issuers: Issuers) -> Repetition:
    found = [each for each in _maps(value.get("identifier")) if _text(each.get("value"))]
    if not found:
        return _components(_text(value.get("name")))
    blank, name, number = ("",), (_text(value.get("name")),), (_text(found[0].get("value")),)
    return name, blank, blank, blank, blank, _hd(authority(found[0], issuers)), blank, blank, blank, number


def _location(value: Any, issuers: Issuers) -> Repetition:
    return _components(_text(value.get("name")) or _text(value.get("description")))


def _address(value: Any, issuers: Issuers) -> Repetition:
    lines = _texts(value.get("line"))
    parts = (
        lines[0] if lines else "", ", ".join(lines[1:]), *(_text(value.get(each)) for each in
        ("city", "state", "postalCode", "country")),
    )  # fmt: skip
    return _components(*parts) if any(parts) else _components(_text(value.get("text")))


_USES: Mapping[str, str] = {"home": "PRN", "work": "WPN", "mobile": "PRN", "temp": "VHN"}
_EQUIPMENT: Mapping[str, str] = {"phone": "PH", "fax": "FX", "pager": "BP", "sms": "CP"}


def _contact_point(value: Any, issuers: Issuers) -> Repetition:
    number, system = _text(value.get("value")), _text(value.get("system"))
    use = _text(value.get("use"))
    if not number:
        return ()
    if system in ("email", "url"):
        return _components("", "NET", "Internet" if system == "email" else "", number)
    return _components(number, _USES.get(use, ""), "CP" if use == "mobile" else _EQUIPMENT.get(system, ""))


def _quantity(value: Any, issuers: Issuers) -> Repetition:
    if value.get("value") is None:
        return ()
    return _components(_number(value["value"]), _text(value.get("unit")) or _text(value.get("code")))


def _annotation(value: Any, issuers: Issuers) -> Repetition:
    return _components(_text(value.get("text")))


def _of_map(made: _Made) -> _Made:
    """The same, of nothing where the value is no map: resources that are held may be older than our checks."""

    def safe(value: Any, issuers: Issuers) -> Repetition:
        return made(value, issuers) if isinstance(value, Mapping) else ()

    return safe


def _rows(names: str, hl7: str, components: str, made: _Made) -> list[DataType]:
    return [DataType(name, hl7, components, made) for name in names.split()]


_XCN = "value of its (first) identifier ^ family ^ given ^ further given names ^ suffix ^ prefix ^^^ authority (HD)"
DATATYPES: Mapping[str, DataType] = {
    row.name: row
    for row in (
        *_rows("string code id markdown uri url canonical oid uuid", "ST", "the text as it is, `urn:oid:` too", _plain),
        *_rows("boolean", "ST", "`true` or `false`", _plain),
        *_rows("integer integer64 positiveInt unsignedInt decimal", "NM", "the number", _plain),
        *_rows("date dateTime instant", "DTM", "as exact as it is said, with its offset from UTC", _moment),
        *_rows("time", "TM", "hours, minutes, seconds", _time),
        *_rows("Period", "DR", "start ^ end", _of_map(_period)),
        *_rows("HumanName", "XPN", "family ^ given ^ further given names ^ suffix ^ prefix ^^ name type (by `use`) ^ "
               "A, I or P (extension iso21090-EN-representation); a name that is only a text is the family name",
               _of_map(_name)),
        *_rows("Identifier", "CX", "value ^^^ authority (HD: namespace & universal ID & its type) ^ identifier type, "
               "of HL7 table 0203 if there is one", _of_map(_identifier)),
        *_rows("Coding", "CWE", "code ^ display ^ system ^^^^ version", _of_map(_coding)),
        *_rows("CodeableConcept", "CWE", "code ^ display (else text) ^ system of the coding that somebody selected, "
               "else of the first ^ the same of the next coding ^ their versions ^ text ^ the same of further codings",
               _of_map(_concept)),
        *_rows("CodeableReference", "CWE", "as its concept, without one as its Reference",
               _of_map(_concept_or_reference)),
        *_rows("Address", "XAD", "first line ^ further lines ^ city ^ state ^ postal code ^ country; else the text",
               _of_map(_address)),
        *_rows("ContactPoint", "XTN", "number ^ use ^ equipment; an e-mail address or URL is component 4",
               _of_map(_contact_point)),
        *_rows("Quantity Age Count Distance Duration", "CQ", "value ^ unit (else code)", _of_map(_quantity)),
        *_rows("Annotation", "ST", "its text", _of_map(_annotation)),
        *_rows("Reference", "XCN", "value of its identifier ^ its display ^^^^^^^ authority (HD)", _of_map(_reference)),
        *_rows("Practitioner RelatedPerson", "XCN", f"{_XCN}; the name whose use is official, then usual",
               _of_map(_person)),
        *_rows("PractitionerRole", "XCN", "as the reference to its practitioner; the person is behind "
               "`practitioner.resolve()`", _of_map(_role)),
        *_rows("Organization", "XON", "name ^^^^^ authority (HD) ^^^^ value of its first identifier",
               _of_map(_organization)),
        *_rows("Location", "PL", "name (else description)", _of_map(_location)),
    )
}  # fmt: skip
"""FHIR's data types, and the resources that people and places are, as rules read them."""
