"""Converters of outbound mappings: the closed table of ways from a DICOM value or a fact to an HL7 v2 field.

Each is a pure function of one value of the DICOM JSON Model, the value that goes with it (`with:`), and its setting. It
answers the repetitions that the value makes, none where it says nothing. What is no value of its kind (a date that is
none) says nothing: a message to others is not withheld for it, unless a rule says `missing: refuse`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.domain.attributes import TAG, Attributes
from gateway.domain.converters import Unconvertible
from gateway.domain.outbound_fields import CODE_TYPES, NUMBER_TYPES, TEXT_TYPES, Target, field_type
from gateway.domain.refusal import RefusalKind
from gateway.domain.report import taken_apart
from gateway.domain.source import Repetition


class Setting(NamedTuple):
    """What a rule tells its converter. `zone` gives the offset of times, where it is known."""

    table: Mapping[str, str] = {}
    table_name: str = ""
    unknown: str = "refuse"
    zone: tzinfo | None = None


Convert = Callable[[Any, Any, Setting], list[Repetition]]


@dataclass(frozen=True, slots=True)
class OutboundConverter:
    """A row of the table: a name for rule files, the value representations it reads ('' is a fact or a number), the
    HL7 types it writes (none: any), and what may stand beside it (`with:`), as people read it."""

    name: str
    function: Convert
    vrs: frozenset[str]
    types: frozenset[str] = frozenset()
    beside: str = ""
    simple: bool = True
    """Whether it gives one text, which fits any component of any field."""
    zoned: bool = False
    """Whether it needs to know the department's wall clock."""

    @property
    def summary(self) -> str:
        """The function's docstring, for documentation and `explain`."""
        return " ".join((self.function.__doc__ or "").split())

    def fits(self, target: Target) -> bool:
        """Whether it can write there."""
        kind = field_type(target).type
        if target.component:
            return self.simple or (self.name == "code" and target.component == 4 and kind in (*CODE_TYPES, "varies"))
        return not self.types or kind in self.types or kind == "varies"


def said(value: Any) -> str:
    """A value as text; a number without a needless fraction, a code or name by what names it."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, dict):
        return _code_parts(value)[0] or str(value.get("Alphabetic") or "")
    return "" if value is None else str(value).strip(" \0")


def one(text: str) -> list[Repetition]:
    """A repetition of one component; none where there is no text."""
    return [((text,),)] if text else []


def from_text(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """The text as it is."""
    return one(said(value))


EXPONENT_MOST = 30
"""Of a number: beyond it no quantity is, and zeros without end would be written."""


def from_number(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """A number in plain decimals, because HL7 knows no exponent (v2.5.1, 2.A.47); what is none says nothing."""
    text = said(value)
    if not _NUMBER.fullmatch(text):
        return []
    number = Decimal(text)
    return one(format(number, "f") if abs(number.adjusted()) <= EXPONENT_MOST else "")


_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)


def from_fact(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """A fact with its components and repetitions, which it has as HL7 wants them."""
    return list(taken_apart(str(value)))


# ---- names ----

_GROUPS: Mapping[str, str] = {"Alphabetic": "A", "Ideographic": "I", "Phonetic": "P"}


def _name_parts(name: str) -> tuple[str, str, str, str, str]:
    """Family, given, further names, suffix, prefix: HL7's order (DICOM has the prefix before the suffix)."""
    family, given, middle, prefix, suffix = ([part.strip() for part in name.split("^")] + [""] * 5)[:5]
    return family, given, middle, suffix, prefix


def _groups(value: Any) -> list[tuple[str, str]]:
    """(representation code, name) of each component group that says anything."""
    held = value if isinstance(value, dict) else {"Alphabetic": str(value)}
    found = ((letter, str(held.get(group) or "")) for group, letter in _GROUPS.items())
    return [(letter, name) for letter, name in found if name.strip("^ ")]


def xpn(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """PN to XPN, the legal name (type L): suffix before prefix; each of several component groups a repetition with its
    representation code (A, I or P)."""
    groups = _groups(value)
    return [
        _trimmed((*_name_parts(name), "", "L", letter if len(groups) > 1 or letter != "A" else ""))
        for letter, name in groups
    ]


def xcn(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """PN to XCN; with its identification sequence beside it the ID and the scheme that gave it (component 9)."""
    identifier, authority = _identified(beside)
    groups = _groups(value)
    if not groups:
        return []
    parts = _name_parts(groups[0][1])
    return [_trimmed((identifier, *parts, "", "", authority))]


def ndl(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """PN to NDL: the name as subcomponents of the first component, behind an empty ID."""
    groups = _groups(value)
    parts = ["", *_name_parts(groups[0][1])] if groups else []
    while parts and not parts[-1]:
        parts.pop()
    return [(tuple(parts),)] if parts else []


def _identified(item: Any) -> tuple[str, str]:
    codes = item.get(TAG["PersonIdentificationCodeSequence"], {}).get("Value") if isinstance(item, dict) else None
    if not codes or not isinstance(codes[0], dict):
        return "", ""
    code, _, scheme = _code_parts(codes[0])
    return code, scheme if code else ""


def _trimmed(components: tuple[str, ...]) -> Repetition:
    while len(components) > 1 and not components[-1]:
        components = components[:-1]
    return tuple((component,) for component in components)


# ---- codes and identifiers ----


def _first(item: Attributes, keyword: str) -> str:
    held = item.get(TAG[keyword], {}).get("Value")
    return said(held[0]) if held else ""


def _code_parts(item: Any) -> tuple[str, str, str]:
    if not isinstance(item, dict):
        return "", "", ""
    code = _first(item, "CodeValue") or _first(item, "LongCodeValue") or _first(item, "URNCodeValue")
    return code, _first(item, "CodeMeaning"), _first(item, "CodingSchemeDesignator")


def code(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """A code item to CE or CWE: code, meaning, scheme; its first equivalent code as the alternate one."""
    parts = _code_parts(value)
    if not parts[0]:
        return []
    equivalent = value.get(TAG["EquivalentCodeSequence"], {}).get("Value") or [{}]
    return [_trimmed((*parts, *_code_parts(equivalent[0])))]


def code_value(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """The value of a code item, without meaning and scheme."""
    return one(_code_parts(value)[0])


def code_meaning(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """The meaning of a code item, as text."""
    return one(_code_parts(value)[1])


def issuer_of(item: Any) -> tuple[str, str, str]:
    """Namespace, universal ID and its type of an HD macro item (PS3.3 10.14)."""
    if not isinstance(item, dict):
        return "", "", ""
    keywords = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
    namespace, universal_id, kind = (_first(item, keyword) for keyword in keywords)
    return namespace, universal_id, kind


def ei(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """An identifier to EI; with its issuer sequence beside it namespace, universal ID and type."""
    return [_trimmed((said(value), *issuer_of(beside)))] if said(value) else []


def cx(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """An identifier to CX; with its issuer sequence beside it the assigning authority (component 4)."""
    if not said(value):
        return []
    authority = _trimmed(issuer_of(beside))
    return [((said(value),), ("",), ("",), tuple(part[0] for part in authority))]


# ---- dates and times ----


def _digits(value: Any) -> str:
    return said(value).replace(".", "").replace("-", "").replace(":", "")


def _date(value: Any) -> str:
    text = _digits(value)
    if len(text) != 8 or not text.isascii() or not text.isdigit():
        return ""
    try:
        datetime(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return ""
    return text


def date(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """DA to a date, eight digits."""
    return one(_date(value))


def _clock(value: Any) -> str:
    """HHMM or HHMMSS of a TM; '' for what is none. Fractions are left out: HL7's places for them are read by few."""
    digits = said(value).replace(":", "").split(".")[0]
    if not digits.isascii() or not digits.isdigit() or len(digits) not in (2, 4, 6):
        return ""
    hour, minute, second = int(digits[:2]), int(digits[2:4] or 0), int(digits[4:6] or 0)
    return digits.ljust(4, "0") if hour < 24 and minute < 60 and second < 61 else ""


def time(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """TM to a time of day."""
    return one(_clock(value))


def offset_at(moment: str, zone: tzinfo | None) -> str:
    """The offset of a wall clock from UTC, as +0100, at a moment of it (12 or 14 digits); '' where it is not known."""
    if zone is None or len(moment) < 12:
        return ""
    month, day, hour, minute = (int(moment[at : at + 2]) for at in (4, 6, 8, 10))
    return stamp_offset(datetime(int(moment[:4]), month, day, hour, minute, tzinfo=zone))


def stamp_offset(at: datetime) -> str:
    """The offset of a time that has a zone, as +0100."""
    minutes = int((at.utcoffset() or timedelta()).total_seconds() // 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{sign}{minutes // 60:02}{minutes % 60:02}"


def stamp(at: datetime) -> str:
    """A time that has a zone as HL7 TS, to the second, with its offset."""
    return at.strftime("%Y%m%d%H%M%S") + stamp_offset(at)


def ts(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """A date, with its time beside it, to TS with the offset of the department's wall clock; a date alone stays one."""
    text = said(value)
    if len(text) > 10:  # DT: date and time in one, perhaps with its own offset
        main = text.split("+")[0]
        main = main if main.count("-") == 0 else main[: main.rindex("-")]
        day, clock, offset = _date(main[:8]), _clock(main[8:]), text[len(main) :]
    else:
        day, clock, offset = _date(value), _clock(beside) if beside is not None else "", ""
    if not day or not clock:
        return one(day)
    return one(f"{day}{clock}{offset or offset_at(day + clock, setting.zone)}")


# ---- tables ----


def from_table(value: Any, beside: Any, setting: Setting) -> list[Repetition]:
    """What a code table of mappings/codes says of the text; an empty value or `-` says nothing."""
    text = said(value)
    found = setting.table.get(text.upper())
    if found is not None:
        return one(found.strip("-") and found)
    if setting.unknown == "refuse":
        raise Unconvertible(
            RefusalKind.UNKNOWN_CODE, f"{text!r} is not in table {setting.table_name}",
            f"add it to mappings/codes/{setting.table_name}.csv, or say unknown: keep or omit",
        )  # fmt: skip
    return one(text if setting.unknown == "keep" else "")


_TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT", "IS", "DS"})
_NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US", ""})
_TEXTS = frozenset({*TEXT_TYPES, *CODE_TYPES, "EI", "CX", "HD", "PL", "XAD", "XTN", "XON", "XCN", "DLN", "FC", "EIP",
                    "CQ", "SPS", "PT", "VID"})  # fmt: skip

OUTBOUND_CONVERTERS: Mapping[str, OutboundConverter] = {
    row.name: row
    for row in (
        OutboundConverter("text", from_text, _TEXT_VRS | {""}, _TEXTS),
        OutboundConverter("number", from_number, _NUMBER_VRS, NUMBER_TYPES | TEXT_TYPES),
        OutboundConverter("hl7", from_fact, frozenset({""}), simple=True),
        OutboundConverter("xpn", xpn, frozenset({"PN"}), frozenset({"XPN"}), simple=False),
        OutboundConverter("xcn", xcn, frozenset({"PN"}), frozenset({"XCN"}), "its identification sequence", False),
        OutboundConverter("ndl", ndl, frozenset({"PN"}), frozenset({"NDL"}), simple=False),
        OutboundConverter("code", code, frozenset({"SQ"}), CODE_TYPES, simple=False),
        OutboundConverter("code-value", code_value, frozenset({"SQ"}), _TEXTS),
        OutboundConverter("code-meaning", code_meaning, frozenset({"SQ"}), _TEXTS),
        OutboundConverter("ei", ei, frozenset({"LO", "SH", "UI"}), frozenset({"EI"}), "its issuer sequence", False),
        OutboundConverter("cx", cx, frozenset({"LO", "SH"}), frozenset({"CX"}), "its issuer sequence", False),
        OutboundConverter("date", date, frozenset({"DA"}), frozenset({"TS", "DT", "ST"})),
        OutboundConverter("time", time, frozenset({"TM"}), frozenset({"TM", "ST"})),
        OutboundConverter("ts", ts, frozenset({"DA", "DT"}), frozenset({"TS", "ST"}), "its time", zoned=True),
    )
}
"""The converters that a rule may name."""

TABLE = OutboundConverter("table", from_table, _TEXT_VRS | {""}, _TEXTS)

DEFAULT: Mapping[str, str] = {
    "PN": "xpn", "SQ": "code", "DA": "date", "TM": "time", "DT": "ts",
    **dict.fromkeys(_NUMBER_VRS - {"DS", "IS", ""}, "number"),
    "DS": "number", "IS": "number", "": "hl7",
    **dict.fromkeys(_TEXT_VRS - {"DA", "TM", "DT", "DS", "IS"}, "text"),
}  # fmt: skip
"""The converter of a value representation, where a rule names none and it fits the target."""


def default_for(vr: str, target: Target) -> OutboundConverter | None:
    """The converter that a rule without one has; None where it has to name one."""
    able = [row for row in OUTBOUND_CONVERTERS.values() if vr in row.vrs and row.fits(target)]
    usual = OUTBOUND_CONVERTERS.get(DEFAULT.get(vr, ""))
    return usual if usual in able else able[0] if len(able) == 1 else None
