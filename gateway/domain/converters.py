"""Converters: the closed table of ways from a source value to a DICOM value.

Each is a pure function of one repetition (or, where its row says `joint`, of all of them) and its setting. It
answers a value of the DICOM JSON Model, None where the source says nothing, DELETE where it says "no value",
`Noted` where something is worth telling, or raises Unconvertible. Clauses: spec of HL7 chapter 2A types, PS3.5 6.2.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, code_item, element
from gateway.domain.coding_schemes import known_designator
from gateway.domain.problem import did_you_mean
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import NULL, Repetition


class Unconvertible(Exception):  # noqa: N818  (reads as what the value is)
    """The value cannot be used. `component` counts from where reading began; 0 means the whole repetition."""

    def __init__(self, kind: RefusalKind, text: str, hint: str = "", component: int = 0) -> None:
        self.kind, self.text, self.hint, self.component = kind, text, hint, component
        super().__init__(str(kind))  # never the text, which may quote a patient's value


class Deletion(Enum):
    """The one value of DELETE."""

    DELETE = "delete"


DELETE: Final = Deletion.DELETE


class Noted(NamedTuple):
    """A value (None: nothing) with a remark for the answer's recipient."""

    value: Any
    note: str


class Setting(NamedTuple):
    """What a rule tells its converter. `start` is the component at which reading began, `unit` the value beside.

    Times that name their offset from UTC are converted to the wall clock of `zone`, if there is one. `uris`: the source
    names coding schemes by URIs, which fit no designator; one that no table names is told as `scheme`, with a note.
    """

    vr: str = "LO"
    start: int = 1
    scheme: str = "99LOCAL"
    schemes: Mapping[str, str] = {}
    table: Mapping[str, str] = {}
    table_name: str = ""
    unknown: str = "refuse"
    unit: str = ""
    zone: tzinfo | None = None
    uris: bool = False


@dataclass(frozen=True, slots=True)
class Converter:
    """A row of the table: a name for rule files, the value representations it can feed, and the function.

    `row` tells for traces which row of a table gave the value of a repetition.
    """

    name: str
    function: Callable[..., Any]
    vrs: frozenset[str]
    joint: bool = False
    row: Callable[[Repetition, Setting], str] | None = None

    @property
    def summary(self) -> str:
        """The function's docstring, for documentation and `explain`."""
        return " ".join((self.function.__doc__ or "").split())


# ---- text ---------------------------------------------------------------------------------------------------

_KEEPS_LINES = frozenset({"LT", "ST", "UT"})
_ONE_LINE_SEPARATED = frozenset({"LO", "SH", "PN", "CS", "AE", "UC"})  # backslash separates their values (PS3.5 6.2)


def part(repetition: Repetition, component: int, subcomponent: int = 1) -> str:
    """The text at a position counted from 1; '' where there is none or it is the HL7 null."""
    try:
        text = repetition[component - 1][subcomponent - 1]
    except IndexError:
        return ""
    return "" if text == NULL else text.strip()


def clean(text: str, vr: str) -> str:
    """Text as this VR may hold it: no control characters, no value separator, lines only where lines may be."""
    if not text.isprintable():
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        line_break = "\n" if vr in _KEEPS_LINES else " "
        text = "".join(
            (line_break if character == "\n" else " " if character == "\t" else "")
            if unicodedata.category(character) == "Cc"
            else character
            for character in text
        )
        if vr in _KEEPS_LINES:
            text = text.replace("\n", "\r\n")  # PS3.5 6.1.2.3: a line ends with CR LF
    if "\\" in text and vr in _ONE_LINE_SEPARATED:
        text = text.replace("\\", "/")
    return text.strip()


def fit(text: str, vr: str, cut: bool) -> Any:
    """Cleaned text within the length of its VR, as a value, a Noted cut value, or None for nothing left.

    Raises Unconvertible where it is too long and may not be cut, or no code string (CS).
    """
    if not text.isalnum():  # nothing in letters and digits to clean
        text = clean(text, vr)
    if not text:
        return None
    if vr == "CS":
        text = text.upper()
        if not _CODE_STRING.fullmatch(text) and len(text) <= LENGTH_MAX["CS"]:
            raise Unconvertible(
                RefusalKind.BAD_VALUE, f"{text!r} is not a code string: only A-Z, 0-9, blank and _ may be in it",
                "translate it with a code table",
            )  # fmt: skip
    limit = LENGTH_MAX.get(vr)
    if limit is None or len(text) <= limit:
        return text
    if cut:
        return Noted(text[:limit].rstrip(), f"cut to {limit} characters")
    raise Unconvertible(
        RefusalKind.TOO_LONG, f"{len(text)} characters, but DICOM allows {limit} ({vr})",
        "shorten it at the source; it is never cut silently",
    )  # fmt: skip


_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")


def text(repetition: Repetition, setting: Setting) -> str | None:
    """The text of the first component read; cleaned and bounded for the attribute's VR."""
    return part(repetition, 1) or None


def all_text(repetition: Repetition, setting: Setting) -> str | None:
    """All components and subcomponents that are not empty, joined by blanks."""
    positions = ((n, m) for n, parts in enumerate(repetition, 1) for m in range(1, len(parts) + 1))
    joined = " ".join(found for n, m in positions if (found := part(repetition, n, m)))
    return joined or None


def identifier_text(value: str, limit: int) -> str:
    """An identifier, whole or refused: never cut, never altered (RAD TF-2 2.4). Raises Unconvertible."""
    if len(value) > limit:
        raise Unconvertible(
            RefusalKind.TOO_LONG, f"{len(value)} characters, but DICOM allows {limit}",
            "identifiers are never cut: send a shorter one, or map another field", 1,
        )  # fmt: skip
    if "\\" in value or not value.isprintable():
        raise Unconvertible(
            RefusalKind.BAD_VALUE, "an identifier holds a backslash or a control character", "send it without", 1
        )
    return value


# ---- names --------------------------------------------------------------------------------------------------

_REPRESENTATION = {"A": "Alphabetic", "I": "Ideographic", "P": "Phonetic"}


def _script(name: str) -> str:
    """The component group that a name's letters belong to (PS3.5 6.2.1.2, annexes H and I)."""
    group = "Alphabetic"
    if name.isascii():
        return group
    for character in name:
        if character < "\u1100":
            continue
        if "\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf" or character >= "\U00020000":
            return "Ideographic"
        if (
            "\u3040" <= character <= "\u30ff"
            or "\uff66" <= character <= "\uff9f"
            or "\uac00" <= character <= "\ud7a3"
            or "\u1100" <= character <= "\u11ff"
        ):
            group = "Phonetic"
    return group


def _name_part(text: str) -> str:
    if not text or text.isalpha():  # nearly always, so nothing to clean
        return text
    return "" if text == NULL else clean(text.replace("^", " ").replace("=", " "), "PN")


def _name(repetition: Repetition, components: Sequence[int], degree: int) -> str:
    """The five components of a PN in its own order (family, given, middle, prefix, suffix); degree joins suffix."""
    said = len(repetition)
    parts = [_name_part(repetition[component - 1][0]) if component <= said else "" for component in components]
    title = _name_part(repetition[degree - 1][0]) if degree <= said else ""
    if title:
        parts[4] = f"{parts[4]} {title}".strip()
    name = "^".join(parts).rstrip("^")
    if len(name) > LENGTH_MAX["PN"]:
        raise Unconvertible(
            RefusalKind.TOO_LONG, f"a name of {len(name)} characters, but DICOM allows 64 a component group",
            "shorten it at the source",
        )  # fmt: skip
    return name


_NOT_IN_USE = frozenset({"M", "NOUSE"})  # a maiden name and a former one stand for a person who has no other
_XPN_ORDER = (1, 2, 3, 5, 4)  # HL7 has suffix before prefix, DICOM prefix before suffix


def _names_by_type(repetitions: Sequence[Repetition]) -> dict[str, dict[str, str]]:
    """Name type (HL7 table 0200) -> component groups of the repetitions with that type."""
    names: dict[str, dict[str, str]] = {}
    for repetition in repetitions:
        name = _name(repetition, _XPN_ORDER, 6)
        if not name:
            continue
        groups = names.setdefault(part(repetition, 7).upper(), {})
        declared = _REPRESENTATION.get(part(repetition, 8).upper(), "Alphabetic")
        if declared != "Alphabetic":
            groups[declared] = name
            continue
        # An A or an untagged name with letters of another script belongs to that script's group.
        fitting = _script(name)
        groups.setdefault(fitting if fitting not in groups else "Alphabetic", name)
    return names


def xpn(repetitions: Sequence[Repetition], setting: Setting) -> list[Any]:
    """XPN to PN: prefix and suffix swapped, degree appended to the suffix; the legal name (type L) before others;
    repetitions with representation codes A, I, P joined into one name; CJK to group 2, kana and Hangul to group 3."""
    names = _names_by_type(repetitions)
    legal = names.pop("", {}) | names.pop("L", {})  # a name without a type is the legal one, in another writing or not
    rest = (names[kind] for kind in sorted(names, key=_NOT_IN_USE.__contains__))
    found = legal or next(rest, {})
    return [_in_group_order(found)] if found else []


def xpn_birth(repetitions: Sequence[Repetition], setting: Setting) -> list[Any]:
    """XPN repetitions of type M (maiden name) to PN, for PatientBirthName."""
    names = _names_by_type([repetition for repetition in repetitions if part(repetition, 7).upper() == "M"])
    return [_in_group_order(groups) for groups in names.values()]


def xpn_other(repetitions: Sequence[Repetition], setting: Setting) -> list[Any]:
    """XPN repetitions of other types (alias, nickname and so on) to PN values, for OtherPatientNames."""
    others = [repetition for repetition in repetitions if part(repetition, 7).upper() not in ("L", "M", "", "D", "U")]
    return [_in_group_order(groups) for groups in _names_by_type(others).values()]


def _in_group_order(groups: Mapping[str, str]) -> dict[str, str]:
    return {group: groups[group] for group in _REPRESENTATION.values() if group in groups}


def xcn(repetition: Repetition, setting: Setting) -> dict[str, str] | None:
    """XCN to PN: components 2, 3, 4, 6, 5, degree 7 appended to the suffix; an ID alone is no name."""
    name = _name(repetition, (2, 3, 4, 6, 5), 7)
    return {_script(name): name} if name else None


def ndl(repetition: Repetition, setting: Setting) -> dict[str, str] | None:
    """NDL to PN: the name is in the subcomponents of component 1 (OBR-34); a plain XCN there is read as one."""
    if len(repetition[0]) > 1:
        return xcn(tuple((subcomponent,) for subcomponent in repetition[0]), setting)
    second = part(repetition, 2)
    return xcn(repetition, setting) if second and not second[0].isdigit() else None


def xcn_identification(repetition: Repetition, setting: Setting) -> Attributes | Noted | None:
    """XCN ID and authority to a Person Identification item (PS3.3 10.1), the authority as its local coding scheme."""
    identifier = part(repetition, 1)
    if not identifier:
        return None
    authority = part(repetition, 9)
    name = " ".join(filter(None, (_name_part(part(repetition, 3)), _name_part(part(repetition, 2)))))
    scheme, note = _designator(authority, setting)
    code = code_item(identifier_text(identifier, 64), scheme, name)
    item: Attributes = {TAG["PersonIdentificationCodeSequence"]: element("PersonIdentificationCodeSequence", code)}
    if authority:
        item[TAG["InstitutionName"]] = element("InstitutionName", clean(authority, "LO"))
    return Noted(item, note) if note else item


# ---- identifiers --------------------------------------------------------------------------------------------


class Assigned(NamedTuple):
    """An identifier as sent: value, authority (HD: namespace, universal ID, its type) and identifier type code."""

    value: str
    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""
    type_code: str = ""
    facility: tuple[str, str, str] = ("", "", "")
    jurisdiction: Repetition = ()
    agency: Repetition = ()


def cx(repetition: Repetition) -> Assigned:
    """A CX: ID, authority in component 4, type in 5, facility in 6, jurisdiction in 9, agency in 10."""
    if len(repetition) == 4:  # nearly always
        return Assigned(part(repetition, 1), part(repetition, 4, 1), part(repetition, 4, 2), part(repetition, 4, 3))
    return Assigned(
        part(repetition, 1),
        part(repetition, 4, 1), part(repetition, 4, 2), part(repetition, 4, 3),
        part(repetition, 5),
        (part(repetition, 6, 1), part(repetition, 6, 2), part(repetition, 6, 3)),
        _components_of(repetition, 9),
        _components_of(repetition, 10),
    )  # fmt: skip


def ei(repetition: Repetition) -> Assigned:
    """An EI: ID, namespace, universal ID, its type."""
    if len(repetition) == 2:  # nearly always
        return Assigned(part(repetition, 1), part(repetition, 2))
    return Assigned(part(repetition, 1), part(repetition, 2), part(repetition, 3), part(repetition, 4))


def _components_of(repetition: Repetition, component: int) -> Repetition:
    """The subcomponents of a component, as components of their own."""
    if component > len(repetition) or not any(repetition[component - 1]):
        return ()
    return tuple((subcomponent,) for subcomponent in repetition[component - 1])


# ---- codes --------------------------------------------------------------------------------------------------


def scheme_designator(scheme: str, setting: Setting) -> str:
    """The DICOM designator of a coding scheme as sent: by table, 99... and HL7nnnn as they are, others made local.

    Raises Unconvertible where a local name does not fit the 16 characters of a designator, and for a URI.
    """
    if not scheme:
        return setting.scheme
    known = known_designator(scheme, setting.schemes)
    if known:
        return known
    if setting.uris and ":" in scheme:  # a short one would fit, and name nothing that anybody could look up
        raise Unconvertible(
            RefusalKind.UNKNOWN_CODE, f"coding scheme {scheme!r} has no designator",
            "give it one in mappings/codes/coding-schemes.csv", 3,
        )  # fmt: skip
    designator = clean(scheme, "SH")
    if not scheme.upper().startswith(("99", "HL7")):
        designator = f"99{designator}"
    if len(designator) > LENGTH_MAX["SH"]:
        raise Unconvertible(
            RefusalKind.TOO_LONG, f"coding scheme {scheme!r} does not fit the 16 characters of a designator",
            "give it a designator in mappings/codes/coding-schemes.csv", 3,
        )  # fmt: skip
    return designator


def _designator(scheme: str, setting: Setting) -> tuple[str, str]:
    """The designator of a coding scheme, and what is to be told of it. Raises Unconvertible."""
    try:
        return scheme_designator(scheme, setting), ""
    except Unconvertible as problem:
        if not setting.uris:
            raise
        return setting.scheme, f"{problem.text}; told as {setting.scheme}: {problem.hint}"


def _code(repetition: Repetition, at: int, version_at: int, setting: Setting) -> tuple[Attributes | None, str]:
    """The code item of a triplet, and what is to be told of it."""
    value = part(repetition, at)
    if not value:
        return None, ""
    designator, note = _designator(part(repetition, at + 2), setting)
    version = part(repetition, version_at) if 0 < version_at <= len(repetition) else ""
    # A version only where the designator alone is ambiguous (PS3.3 8.2).
    needed = designator in {"BI", "L"} or designator.startswith("99")
    meaning = clean(part(repetition, at + 1), "LO")
    return code_item(clean(value, "SH"), designator, meaning, version[:16] if needed else ""), note


def code(repetition: Repetition, setting: Setting) -> Attributes | Noted | None:
    """CE, CWE or CNE to a code item: the triplet read (code, text, scheme). Text without a code is no code."""
    if setting.uris:
        item, note = _code(repetition, *_triplets(repetition, setting)[0], setting)
    else:
        version_at = {1: 7, 4: 5}.get(setting.start, 0)  # CWE.7 is the first triplet's version, CWE.8 the second's
        item, note = _code(repetition, 1, version_at, setting)
    return Noted(item, note) if note else item


def code_with_alternate(repetition: Repetition, setting: Setting) -> Attributes | Noted | None:
    """CE, CWE or CNE to a code item, the alternate triplet (components 4 to 6) as its equivalent code (PS3.3 8.9)."""
    if setting.uris:
        return _code_with_known_alternate(repetition, setting)
    first, note = _code(repetition, 1, 7, setting)
    second, other_note = _code(repetition, 4, 8, setting)
    item = first or second
    if first is not None and second is not None:
        item = first | {TAG["EquivalentCodeSequence"]: element("EquivalentCodeSequence", second)}
    return Noted(item, note or other_note) if note or other_note else item


_TRIPLETS = ((1, 7), (4, 8), *((at, 0) for at in range(10, 25, 3)))
"""Where codes and their versions are in a CWE; what FHIR has more of than two follows behind the original text."""


def _triplets(repetition: Repetition, setting: Setting) -> list[tuple[int, int]]:
    """The triplets that have a code, those of a scheme that somebody knows before the others; at least one."""
    coded = [each for each in _TRIPLETS if part(repetition, each[0])]
    known = [each for each in coded if known_designator(part(repetition, each[0] + 2), setting.schemes)]
    return [*known, *(each for each in coded if each not in known)] or [_TRIPLETS[0]]


def _code_with_known_alternate(repetition: Repetition, setting: Setting) -> Attributes | Noted | None:
    """The same of FHIR's codings: the first two whose schemes are known. An unknown one is told only alone."""
    first, *others = _triplets(repetition, setting)
    item, note = _code(repetition, *first, setting)
    if item is None or not others:
        return Noted(item, note) if note else item
    second, second_note = _code(repetition, *others[0], setting)
    if second is None or note or second_note:
        return Noted(item, note or f"left out beside another code: {second_note}")
    return item | {TAG["EquivalentCodeSequence"]: element("EquivalentCodeSequence", second)}


class CodeTable(dict[str, str]):
    """A code table, with the lines of its file that its rows are on."""

    def __init__(self, rows: Mapping[str, str], lines: Mapping[str, int]) -> None:
        super().__init__(rows)
        self.lines = lines


def _table_row(repetition: Repetition, setting: Setting) -> str:
    table, code = setting.table, part(repetition, 1).upper()
    return f"line {table.lines[code]}" if isinstance(table, CodeTable) and code in table.lines else ""


def from_table(repetition: Repetition, setting: Setting) -> Any:
    """The value that a code table gives; an empty one deletes, `-` is as if nothing had been sent."""
    sent = part(repetition, 1)
    if not sent:
        return None
    found = setting.table.get(sent.upper())
    if found is None:
        if setting.unknown == "keep":
            return sent
        if setting.unknown == "omit":
            return Noted(None, f"{sent!r} is not in table {setting.table_name}; left out")
        raise Unconvertible(
            RefusalKind.UNKNOWN_CODE, f"{sent!r} is not in table {setting.table_name}",
            f"{_likely(sent.upper(), setting.table)}; or add it to mappings/codes/{setting.table_name}.csv", 1,
        )  # fmt: skip
    if found == "-":
        return None
    return found or DELETE


def _likely(code: str, table: Mapping[str, str]) -> str:
    return did_you_mean(code, table) or f"known are {', '.join(sorted(table))[:200]}"


# ---- dates and times ----------------------------------------------------------------------------------------

_TIMESTAMP = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d):?(\d\d)(?::?(\d\d)([.,]\d{1,9})?)?\s?([Zz]|[+-]\d\d(?::?\d\d)?)?)?)?",
    re.ASCII,
)


class Timestamp(NamedTuple):
    """A TS or DTM: as many parts as were sent ('' for the rest), by the wall clock of its sender."""

    year: str
    month: str
    day: str
    hour: str
    minute: str
    second: str
    fraction: str
    offset: str


def _as_hl7(*parts: str) -> str:
    """The parts of an ISO 8601 time as HL7 writes it."""
    *clock, fraction, offset = parts
    offset = "+0000" if offset in ("Z", "z") else offset.replace(":", "").ljust(5, "0") if offset else ""
    return "".join(clock) + fraction.replace(",", ".")[:7] + offset


@lru_cache(maxsize=256)  # one message names the same few times in many fields
def timestamp(sent: str) -> Timestamp:
    """A TS or DTM (or ISO 8601, which some send) taken apart. Raises Unconvertible for what is no real time."""
    iso = _ISO_8601.fullmatch(sent)
    if iso is not None:
        sent = _as_hl7(*(group or "" for group in iso.groups()))
    match = _TIMESTAMP.fullmatch(sent)
    if match is None:
        raise Unconvertible(RefusalKind.BAD_VALUE, f"{sent!r} is not a date or time", "send YYYYMMDDHHMMSS[+ZZZZ]", 1)
    found = Timestamp(*(group or "" for group in match.groups()))
    real = found.hour < "24" and found.minute < "60" and found.second < "60"
    try:
        date(int(found.year), int(found.month or "1"), int(found.day or "1"))
    except ValueError:
        real = False
    if found.offset and not ("0000" <= found.offset[1:] <= "1400" and found.offset[3:] < "60"):
        real = False
    if not real:
        raise Unconvertible(RefusalKind.BAD_VALUE, f"{sent!r} is not a date or time that exists", "correct it", 1)
    return found


@lru_cache(maxsize=256)
def _in_zone(found: Timestamp, zone: tzinfo) -> Timestamp:
    """The same moment by the wall clock of the zone; what names no time of day or no offset is that clock's already."""
    if not found.hour or not found.offset:
        return found
    minutes = int(found.offset[1:3]) * 60 + int(found.offset[3:])
    sent = timezone(timedelta(minutes=-minutes if found.offset[0] == "-" else minutes))
    parts = (found.year, found.month, found.day, found.hour, found.minute or "0", found.second or "0")
    year, month, day, hour, minute, second = map(int, parts)
    try:
        here = datetime(year, month, day, hour, minute, second, tzinfo=sent).astimezone(zone)
    except (OverflowError, ValueError):  # the first and the last day that a calendar can name
        return found
    stamp = here.strftime("%Y%m%d%H%M%S").zfill(14)  # years before 1000 come without zeros
    return Timestamp(
        stamp[:4], stamp[4:6], stamp[6:8], stamp[8:10], stamp[10:12] if found.minute or stamp[10:12] != "00" else "",
        stamp[12:] if found.second else "", found.fraction, here.strftime("%z")[:5],
    )  # fmt: skip


def _here(sent: str, setting: Setting) -> Timestamp:
    """A TS or DTM by the department's wall clock (HL7 chapter 2A TS; design D13)."""
    found = timestamp(sent)
    return _in_zone(found, setting.zone) if found.offset and setting.zone is not None else found


def _told(value: str, sent: str, setting: Setting) -> Any:
    """The time, with a note where the clock it was sent by is not the department's."""
    if setting.zone is None:
        return value
    offset, here = timestamp(sent).offset, _here(sent, setting).offset
    if offset == here or not offset:
        return value
    return Noted(value, f"sent by a clock of UTC{offset}; converted to the department's, UTC{here}")


def date_of(repetition: Repetition, setting: Setting) -> str | None:
    """The date of a TS, DTM or DT, by the department's clock if it names another. A partial one is refused."""
    sent = part(repetition, 1)
    if not sent:
        return None
    found = _here(sent, setting)
    if not found.day:
        raise Unconvertible(RefusalKind.BAD_VALUE, f"{sent!r} names no day", "send YYYYMMDD", 1)
    return found.year + found.month + found.day


def birth_date(repetition: Repetition, setting: Setting) -> Any:
    """A date of birth; a partial one (year, month) cannot be a DICOM date and is left out with a note."""
    sent = part(repetition, 1)
    if not sent:
        return None
    found = timestamp(sent)
    if not found.day:
        return Noted(None, "a partial date of birth cannot be shown in DICOM; left out")
    return found.year + found.month + found.day


def time_of(repetition: Repetition, setting: Setting) -> Any:
    """The time of a TS or DTM by the department's wall clock; nothing where only a date was sent."""
    sent = part(repetition, 1)
    found = _here(sent, setting) if sent else None
    return _told(_time(found), sent, setting) if found and found.hour else None


def start_time(repetition: Repetition, setting: Setting) -> Any:
    """The time of a scheduled start by the department's wall clock; a date alone starts at midnight, with a note."""
    sent = part(repetition, 1)
    if not sent:
        return None
    found = _here(sent, setting)
    if not found.hour:
        return Noted("000000", "the start has no time of day; taken as midnight")
    return _told(_time(found), sent, setting)


def _time(found: Timestamp) -> str:
    return f"{found.hour}{found.minute or '00'}{found.second or '00'}{found.fraction}"


def utc_offset(repetition: Repetition, setting: Setting) -> Any:
    """The offset from UTC of a timestamp that states one; a timestamp without one deletes an offset stated earlier."""
    sent = part(repetition, 1)
    if not sent:
        return None
    offset = _here(sent, setting).offset
    return "+0000" if offset == "-0000" else offset or DELETE  # PS3.3 C.12.1.1.8: -0000 is not allowed


# ---- people -------------------------------------------------------------------------------------------------

_KILOGRAMS = {"KG": 1.0, "G": 0.001, "GM": 0.001, "LB": 0.45359237, "LBS": 0.45359237, "[LB_AV]": 0.45359237,
              "OZ": 0.028349523125, "[OZ_AV]": 0.028349523125}  # fmt: skip
_METRES = {"M": 1.0, "CM": 0.01, "MM": 0.001, "IN": 0.0254, "[IN_I]": 0.0254, "[IN_US]": 0.0254, "FT": 0.3048,
           "[FT_I]": 0.3048}  # fmt: skip


def weight(repetition: Repetition, setting: Setting) -> Any:
    """A body weight in kilograms; the unit beside it (`with:`) may be kg, g, lb or oz, or their UCUM forms."""
    return _quantity(repetition, setting, _KILOGRAMS, "weight")


def height(repetition: Repetition, setting: Setting) -> Any:
    """A body height in metres; the unit beside it (`with:`) may be m, cm, mm, in or ft, or their UCUM forms."""
    return _quantity(repetition, setting, _METRES, "height")


def _quantity(repetition: Repetition, setting: Setting, units: Mapping[str, float], what: str) -> Any:
    sent = part(repetition, 1)
    if not sent:
        return None
    factor = units.get(setting.unit.upper())
    if factor is None:
        return Noted(None, f"body {what} in unit {setting.unit[:16]!r} is not understood; left out")
    if not _NUMBER.fullmatch(sent):
        return Noted(None, f"body {what} is not a number; left out")
    value = round(float(sent.replace(",", ".")) * factor, 4)
    return value if value > 0 else Noted(None, f"body {what} is not above zero; left out")


_NUMBER = re.compile(r"\d{1,7}([.,]\d{1,6})?", re.ASCII)


def pregnancy(repetitions: Sequence[Repetition], setting: Setting) -> list[Any]:
    """Ambulatory status B6 (HL7 table 0009) to PregnancyStatus 3, definitely pregnant; other codes delete it.

    They say nothing about a pregnancy, but a B6 that is not said any more must not stay.
    """
    codes = [part(repetition, 1).upper() for repetition in repetitions]
    return [3 if "B6" in codes else DELETE] if any(codes) else []


def address(repetition: Repetition, setting: Setting) -> str | None:
    """An XAD as one line: street, other designation, city, state, postal code, country."""
    return ", ".join(found for component in range(1, 7) if (found := part(repetition, component))) or None


def _number(repetition: Repetition) -> str:
    """The telephone number of an XTN: component 1, else country, area, local number and extension (5 to 8)."""
    whole = part(repetition, 1)
    if whole:
        return whole
    country = part(repetition, 5)
    parts = (
        f"+{country.lstrip('+')}" if country else "",
        part(repetition, 6),
        part(repetition, 7),
        part(repetition, 8),
    )
    return " ".join(filter(None, parts))


def phone(repetition: Repetition, setting: Setting) -> Any:
    """The telephone number of an XTN; punctuation goes if it is too long, and one that never fits is left out."""
    number = clean(_number(repetition), setting.vr)
    limit = LENGTH_MAX.get(setting.vr, len(number))
    if len(number) > limit:
        number = re.sub(r"[^0-9+]", "", number)
    if len(number) > limit:
        return Noted(None, "a telephone number is too long for DICOM; left out")
    return number or None


def telecom(repetition: Repetition, setting: Setting) -> str | None:
    """The telephone number or, failing that, the e-mail address of an XTN, of any length."""
    return _number(repetition) or part(repetition, 4) or None


def location(repetition: Repetition, setting: Setting) -> str | None:
    """A PL as point of care, room and bed, separated by blanks; the description (component 9) where these are empty."""
    joined = " ".join(found for component in (1, 2, 3) if (found := part(repetition, component)))
    return joined or part(repetition, 9) or None


# ---- worklist keys ------------------------------------------------------------------------------------------

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2: the default repertoire without backslash and controls
_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")


def modality(repetition: Repetition, setting: Setting) -> str | None:
    """A modality code in upper case; it has to be a code string (CS)."""
    return part(repetition, 1).upper() or None


def is_ae_title(title: str) -> bool:
    """Whether PS3.5 6.2 allows this AE title: 1 to 16 characters, no backslash, no control character, not blank."""
    return bool(_AE_TITLE.fullmatch(title)) and bool(title.strip())


def ae_title(repetition: Repetition, setting: Setting) -> str | None:
    """An AE title: at most 16 characters of the default repertoire, no backslash."""
    title = part(repetition, 1)
    if not title:
        return None
    if not is_ae_title(title):
        raise Unconvertible(
            RefusalKind.TOO_LONG if len(title) > LENGTH_MAX["AE"] else RefusalKind.BAD_VALUE,
            f"{title!r} is not an AE title", "at most 16 ASCII characters without backslash", 1,
        )  # fmt: skip
    return title


def uid(repetition: Repetition, setting: Setting) -> str | None:
    """A UID: at most 64 characters, digits and dots, no leading zeros (PS3.5 9.1); FHIR's `urn:oid:` goes."""
    value = part(repetition, 1).removeprefix("urn:oid:")
    if not value:
        return None
    if len(value) > LENGTH_MAX["UI"] or not _UID.fullmatch(value):
        raise Unconvertible(
            RefusalKind.TOO_LONG if len(value) > LENGTH_MAX["UI"] else RefusalKind.BAD_VALUE,
            f"{value[:80]!r} is not a UID", "a UID has digits and dots, no leading zeros, at most 64 characters", 1,
        )  # fmt: skip
    return value


# ---- the table ----------------------------------------------------------------------------------------------

_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE"})
_PN, _SQ, _DA, _TM = frozenset({"PN"}), frozenset({"SQ"}), frozenset({"DA"}), frozenset({"TM"})

CONVERTERS: Mapping[str, Converter] = {
    row.name: row
    for row in (
        Converter("text", text, _TEXTS),
        Converter("all-text", all_text, _TEXTS),
        Converter("xpn", xpn, _PN, joint=True),
        Converter("xpn-birth", xpn_birth, _PN, joint=True),
        Converter("xpn-other", xpn_other, _PN, joint=True),
        Converter("xcn", xcn, _PN),
        Converter("ndl", ndl, _PN),
        Converter("xcn-identification", xcn_identification, _SQ),
        Converter("code", code, _SQ),
        Converter("code-with-alternate", code_with_alternate, _SQ),
        Converter("date", date_of, _DA),
        Converter("birth-date", birth_date, _DA),
        Converter("time", time_of, _TM),
        Converter("start-time", start_time, _TM),
        Converter("utc-offset", utc_offset, frozenset({"SH"})),
        Converter("weight", weight, frozenset({"DS"})),
        Converter("height", height, frozenset({"DS"})),
        Converter("pregnancy", pregnancy, frozenset({"US"}), joint=True),
        Converter("address", address, _TEXTS),
        Converter("phone", phone, _TEXTS),
        Converter("telecom", telecom, _TEXTS),
        Converter("location", location, _TEXTS),
        Converter("modality", modality, frozenset({"CS"})),
        Converter("ae-title", ae_title, frozenset({"AE"})),
        Converter("uid", uid, frozenset({"UI"})),
    )
}
TABLE = Converter("table", from_table, _TEXTS, row=_table_row)
"""The converter behind `convert: {table: name}`."""

DEFAULT_CONVERTER: Mapping[str, str] = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS"), "text"),
    "DA": "date", "TM": "time", "AE": "ae-title", "UI": "uid",
}  # fmt: skip
"""What a rule without `convert:` uses, by the VR of its target; names, codes and numbers have to say."""
