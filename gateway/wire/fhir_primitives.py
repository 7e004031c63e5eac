"""The primitive types of FHIR: how each is written in JSON, and what text it may be (datatypes.html).

One table. A check answers '' or what is wrong, in words that quote nothing of the value.
"""

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

Check = Callable[[Any], str]

STRING_CHARACTERS_MAX = 1_048_576  # datatypes.html: 1024*1024
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no string may have: XML has no way to write it."""
_SOLID = r"[^\s\x00-\x1f\ufffe\uffff]+"
_DATE = r"(?P<year>[0-9]{4})(?:-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?"
_OFFSET = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"


class Primitive(NamedTuple):
    """`kind` is how JSON has it: a string, a number or a boolean. XML always has text."""

    kind: type
    check: Check
    example: str
    """What a good one looks like."""


def _text(value: Any) -> str:
    if type(value) is not str:
        return "is no JSON string"
    if len(value) > STRING_CHARACTERS_MAX:
        return "is longer than a string of FHIR may be (1048576 characters)"
    if not value or value.isspace():
        return "is empty"
    return "has a control character" if NOT_TEXT.search(value) else ""


def _matching(pattern: str, words: str) -> Check:
    fits = re.compile(pattern, re.ASCII).fullmatch

    def check(value: Any) -> str:
        if type(value) is str and fits(value):
            return ""
        return _text(value) or words

    return check


_uri = _matching(_SOLID, "has a blank in it")


def _calendar(pattern: str, words: str) -> Check:
    fits = re.compile(pattern, re.ASCII).fullmatch

    def check(value: Any) -> str:
        found = fits(value) if type(value) is str else None
        if found is None:
            return _text(value) or words
        year, month, day = found["year"], found["month"], found["day"]
        try:
            date(int(year), int(month or 1), int(day or 1))
        except ValueError:
            return "is no day of the calendar"
        return ""

    return check


def _boolean(value: Any) -> str:
    return "" if type(value) is bool else "is no boolean: true or false, in JSON without quotes"


def _integer(least: int, most: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is not int:
            return "is no whole number, in JSON without quotes"
        return "" if least <= value <= most else f"is not between {least} and {most}"

    return check


def _integer64(value: Any) -> str:
    if type(value) is not str or not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value):
        return "is no string of digits"
    return "" if -(2**63) <= int(value) < 2**63 else "has more than 64 bits"


def _decimal(value: Any) -> str:
    return "" if type(value) in (int, Decimal, float) else "is no number, in JSON without quotes"


def _base64(value: Any) -> str:
    if type(value) is not str:
        return "is no JSON string"
    try:
        bare = "".join(value.split()).encode("ascii")
        return "" if bare and binascii.a2b_base64(bare, strict_mode=True) is not None else "is empty"
    except ValueError:
        return "is no base64"


_MOST = 2**31 - 1

PRIMITIVES: Mapping[str, Primitive] = {
    "boolean": Primitive(bool, _boolean, "true"),
    "integer": Primitive(int, _integer(-(2**31), _MOST), "3"),
    "unsignedInt": Primitive(int, _integer(0, _MOST), "3"),
    "positiveInt": Primitive(int, _integer(1, _MOST), "3"),
    "integer64": Primitive(str, _integer64, '"3"'),
    "decimal": Primitive(Decimal, _decimal, "1.50"),
    "string": Primitive(str, _text, "some words"),
    "markdown": Primitive(str, _text, "some words"),
    "xhtml": Primitive(str, _text, '<div xmlns="http://www.w3.org/1999/xhtml">some words</div>'),
    "code": Primitive(str, _matching(rf"{_SOLID}( {_SOLID})*", "has blanks that a code may not have"), "active"),
    "id": Primitive(str, _matching(r"[A-Za-z0-9.-]{1,64}", "is no id: 1 to 64 of A-Z a-z 0-9 - and ."), "a1b2-c3"),
    "uri": Primitive(str, _uri, "urn:oid:1.2.3"),
    "url": Primitive(str, _uri, "https://ehr.hospital.example/fhir"),
    "canonical": Primitive(str, _uri, "http://hospital.example/StructureDefinition/order|1.0"),
    "oid": Primitive(str, _matching(r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+", "is no OID as a URI"), "urn:oid:1.2.3"),
    "uuid": Primitive(
        str,
        _matching(r"urn:uuid:[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "is no UUID as a URI"),
        "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    ),
    "base64Binary": Primitive(str, _base64, "SGk="),
    "date": Primitive(str, _calendar(rf"{_DATE})?)?", "is no date"), "2026-11-23"),
    "dateTime": Primitive(
        str,
        _calendar(rf"{_DATE}(?:T{_CLOCK}{_OFFSET})?)?)?", "is no date, or date and time with seconds and offset"),
        "2026-11-23T10:00:00+01:00",
    ),
    "instant": Primitive(
        str,
        _calendar(rf"{_DATE}T{_CLOCK}{_OFFSET}))", "is no date and time with seconds and offset"),
        "2026-11-23T10:00:00+01:00",
    ),
    "time": Primitive(str, _matching(_CLOCK, "is no time with seconds"), "10:00:00"),
}
"""Every primitive type of R4, R4B and R5."""
