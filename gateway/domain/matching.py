"""Worklist matching (PS3.4 K.2.2.2 and C.2.2.2): query keys -> a predicate that decides and can explain itself.

The query is compiled once and then asked of every candidate. The store only narrows (`Narrowing`), the predicate
decides. Keys and items are both Attributes in the DICOM JSON Model; nothing here knows about bytes.

What the standard leaves to the implementation, and the conformance statement has to declare:

- Person names compare without regard to case and accents, component by component, a key of one component group with
  each group held, a key of several groups group by group. Parts that the key leaves empty match anything
  (`UNNAMED_COMPONENTS_MATCH`). A wild card may also run across the `^` between components.
- Wild cards work in every text key, also where single value matching would do (station, modality, patient ID).
- A time of less precision is the interval it names: `18` as an upper bound is 18:59:59.999999.
- Start date and start time that are ranges of the same form make one interval; other pairs are two tests.
- An attribute outside the table, private ones too, is compared where an item holds it and ignored elsewhere.
- A character that could not be decoded (U+FFFD) matches any one character.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from gateway.domain.attributes import (
    BY_TAG,
    SPS_SEQUENCE,
    TAG,
    Attributes,
    Element,
    Level,
    Matching,
    person_name_text,
    person_name_value,
)
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import LISTED, SPSStatus

UNNAMED_COMPONENTS_MATCH = True
"""Whether `Doe` finds `Doe^Jane`. Who types a family name at a scanner expects to see everyone of that name, and a
list too long is safer than a patient who is not on it; False makes components that the key leaves out mean empty."""

WILD_CARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Where `*` and `?` are wild cards (PS3.4 C.2.2.2.4)."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Index bounds for the store: each may hide only items that the matcher would refuse as well.

    Starts are 14 digits of wall clock, inclusive; '' or empty means unbounded. `patient_name_prefix` is folded by
    `fold_name` and meant for any component group.
    """

    station_ae_titles: frozenset[str] = frozenset()
    start_from: str = ""
    start_to: str = ""
    modality: str = ""
    patient_id: str = ""
    patient_name_prefix: str = ""
    accession_number: str = ""
    requested_procedure_id: str = ""
    study_instance_uids: frozenset[str] = frozenset()
    sps_id: str = ""
    statuses: frozenset[SPSStatus] = LISTED


# Letters that carry their accent in one piece, so that decomposition does not free them of it.
_WHOLE_LETTERS = str.maketrans(
    {"ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)


def fold_name(text: str) -> str:
    """A name, or part of one, without case and accents, for comparing and for the store's index.

    Half-width and full-width forms become one. Marks of combining class 200 and above are accents; those below are
    letters' parts in their scripts (the voicing of kana, vowels of Thai and Hebrew) and stay.
    """
    stripped = text.strip(" ")
    if stripped.isascii():
        return stripped.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", stripped).casefold())
    kept = "".join(letter for letter in decomposed if unicodedata.combining(letter) < 200)
    return unicodedata.normalize("NFC", kept.translate(_WHOLE_LETTERS)).strip(" ")


def folded_groups(name: Mapping[str, str] | str) -> tuple[str, ...]:
    """The folded component groups of a held person name that are not empty: what `patient_name_prefix` is meant for."""
    value = name if isinstance(name, Mapping) else person_name_value(name)
    groups = (fold_name(value.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
    return tuple(group for group in groups if group)


_Accepts: TypeAlias = Callable[[Any], bool]

# The store indexes one value of each of these, and the standard allows one: further values do not count.
_ONE_VALUED = frozenset(
    TAG[keyword]
    for keyword in (
        "Modality", "PatientID", "PatientName", "AccessionNumber", "RequestedProcedureID", "StudyInstanceUID",
        "ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime",
    )
)  # fmt: skip
_DATE, _TIME = TAG["ScheduledProcedureStepStartDate"], TAG["ScheduledProcedureStepStartTime"]
_STATUS = TAG["ScheduledProcedureStepStatus"]


@dataclass(frozen=True, slots=True)
class _ValueKey:
    """A key with a value: any value held may meet it. `lenient` keys are ignored where the item lacks the attribute."""

    tag: str
    place: str
    asked: str
    accepts: _Accepts
    lenient: bool = False

    def matches(self, attributes: Attributes) -> bool:
        held = attributes.get(self.tag)
        if held is None:
            return self.lenient
        values = _values(held)
        if self.tag in _ONE_VALUED:
            values = values[:1]
        accepts = self.accepts
        return any(accepts(value) for value in values if value is not None and value != "")

    def reasons(self, attributes: Attributes) -> tuple[str, ...]:
        if self.matches(attributes):
            return ()
        values = _values(attributes.get(self.tag, {}))
        held = "\\".join(_text(value) for value in values if value is not None)
        return (_reason(f"{self.place} {_name(self.tag)}", self.asked, held),)


@dataclass(frozen=True, slots=True)
class _StartKey:
    """Start date and start time that make one interval (PS3.4 C.2.2.2.5.4, Table K.6-1)."""

    place: str
    asked: str
    lowest: tuple[str, str]
    highest: tuple[str, str]

    def matches(self, attributes: Attributes) -> bool:
        day = _held_date(_first(attributes, _DATE))
        time = _held_time(_first(attributes, _TIME))
        return bool(day) and bool(time) and self.lowest <= (day, time) <= self.highest

    def reasons(self, attributes: Attributes) -> tuple[str, ...]:
        if self.matches(attributes):
            return ()
        held = f"{_first(attributes, _DATE) or ''} {_first(attributes, _TIME) or ''}".strip()
        return (_reason(f"{self.place} start", self.asked, held),)


@dataclass(frozen=True, slots=True)
class _SequenceKey:
    """One held item has to meet all keys of the request's item (PS3.4 C.2.2.2.6)."""

    tag: str
    place: str
    keys: "tuple[_Key, ...]"
    lenient: bool = False

    def matches(self, attributes: Attributes) -> bool:
        held = attributes.get(self.tag)
        if held is None:
            return self.lenient
        return any(_all_match(self.keys, item) for item in _items(attributes, self.tag))

    def reasons(self, attributes: Attributes) -> tuple[str, ...]:
        if self.matches(attributes):
            return ()
        items = _items(attributes, self.tag)
        if len(items) == 1:
            return tuple(reason for key in self.keys for reason in key.reasons(items[0]))
        return (f"{self.place} {_name(self.tag)}: none of {len(items)} items meets all keys",)


def _reason(place: str, asked: str, held: str) -> str:
    return f"{place}: asked for {asked!r}, the item has {repr(held) if held else 'no value'}"


_Key: TypeAlias = "_ValueKey | _StartKey | _SequenceKey"


def _all_match(keys: Iterable[_Key], attributes: Attributes) -> bool:
    return all(key.matches(attributes) for key in keys)


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled query. Made by `compile_query`."""

    _keys: tuple[_Key, ...] = field(repr=False)
    _status: _ValueKey | None = field(repr=False)
    _narrowing: Narrowing = field(repr=False)

    def matches(self, attributes: Attributes, status: SPSStatus | None = None) -> bool:
        """Whether an item with these attributes answers the query.

        `status` is the step's, where the attributes do not hold it; only a status key looks at it.
        """
        if not _all_match(self._keys, attributes):
            return False
        return self._status is None or self._status.matches(_status_attributes(attributes, status))

    def explain(self, attributes: Attributes, status: SPSStatus | None = None) -> tuple[str, ...]:
        """Every key that the item fails, with what was asked and what is held; empty where it matches.

        The text holds patient data: for the console and the command line, never for a log.
        """
        found = [reason for key in self._keys for reason in key.reasons(attributes)]
        if self._status is not None:
            found += self._status.reasons(_status_attributes(attributes, status))
        return tuple(found)

    def narrowing(self) -> Narrowing:
        """What the store may go by to hide items that cannot match."""
        return self._narrowing


def _status_attributes(attributes: Attributes, status: SPSStatus | None) -> Attributes:
    if status is not None:
        return {_STATUS: {"vr": "CS", "Value": [str(status)]}}
    return next(iter(_items(attributes, SPS_SEQUENCE)), {})


def compile_query(keys: Attributes) -> Query:
    """The query with these keys.

    Raises Refused (UNUSABLE_QUERY) with the place of every key that cannot be one: a date or time that is none, a
    range that ends before it starts, a sequence of several items.
    """
    problems: list[Refusal] = []
    compiled = _compile(keys, "", Level.PATIENT, problems)
    if problems:
        raise Refused(*problems)
    status: _ValueKey | None = None
    parts: list[_Key] = []
    for key in compiled:
        if isinstance(key, _SequenceKey) and key.tag == SPS_SEQUENCE:
            inside = [each for each in key.keys if not (isinstance(each, _ValueKey) and each.tag == _STATUS)]
            status = next((each for each in key.keys if isinstance(each, _ValueKey) and each.tag == _STATUS), None)
            if inside:
                parts.append(replace(key, keys=tuple(inside)))
        else:
            parts.append(key)
    return Query(tuple(parts), status, _narrowing_of(keys, status))


def item_matcher(keys: Attributes) -> Callable[[Attributes], bool] | None:
    """Which items of a sequence a key with this item selects for the answer; None where it selects all of them."""
    problems: list[Refusal] = []
    compiled = tuple(_compile(keys, "", Level.NESTED, problems))
    if problems:
        raise Refused(*problems)
    if not compiled:
        return None
    return lambda item: _all_match(compiled, item)


def supported(keys: Attributes) -> bool:
    """Whether every key is one of the table, in its place; if not, answers say so (Pending FF01 instead of FF00)."""
    return _supported(keys, Level.PATIENT)


def _supported(keys: Attributes, level: Level) -> bool:
    for tag, key in keys.items():
        if _is_private_creator(tag):
            continue
        if not known_key(tag, level):
            return False
        inside = Level.STEP if tag == SPS_SEQUENCE else Level.NESTED
        if key["vr"] == "SQ" and not all(_supported(item, inside) for item in _items(keys, tag)):
            return False
    return True


def known_key(tag: str, level: Level) -> bool:
    """Whether the table has this key here: `STEP` in the step's item, `NESTED` in other items, else on top."""
    attribute = BY_TAG.get(tag)
    if attribute is None:
        return False
    if level is Level.NESTED:
        return tag != SPS_SEQUENCE
    if level is Level.STEP:
        return attribute.level is Level.STEP
    return attribute.level not in (Level.STEP, Level.NESTED) or tag == SPS_SEQUENCE


def _is_private_creator(tag: str) -> bool:
    return int(tag[3], 16) % 2 == 1 and tag[4:6] == "00"


def _compile(keys: Attributes, place: str, level: Level, problems: list[Refusal]) -> list[_Key]:
    """The keys that ask for something, at one level of nesting."""
    compiled: list[_Key] = []
    joined = _joined_start(keys, place, problems) if level is Level.STEP else None
    if joined is not None:
        compiled.append(joined)
    for tag in sorted(keys):
        key = keys[tag]
        if "Value" not in key and "InlineBinary" not in key:
            continue  # universal matching
        known = known_key(tag, level)
        if _is_private_creator(tag) or (known and BY_TAG[tag].matching is Matching.NEVER):
            continue
        if joined is not None and tag in (_DATE, _TIME):
            continue
        here = f"{place}({tag[:4]},{tag[4:]})"
        vr = BY_TAG[tag].vr if tag in BY_TAG else key["vr"]
        if vr == "SQ":
            if key["vr"] != "SQ" and _values(key):
                problems.append(_unusable(here, "the key is no sequence", "send it as a sequence (SQ)"))
                continue
            items = _items(keys, tag)
            if len(items) > 1:
                problems.append(_unusable(here, f"a sequence key has {len(items)} items", "send at most one item"))
                continue
            inside = Level.STEP if tag == SPS_SEQUENCE else Level.NESTED
            nested = tuple(_compile(items[0], f"{here}[0]/", inside, problems)) if items else ()
            if nested:
                compiled.append(_SequenceKey(tag, here, nested, lenient=not known))
            continue
        accepts = _accepts(vr, key, here, problems)
        if accepts is not None:
            compiled.append(_ValueKey(tag, here, _asked(key), accepts, lenient=not known))
    return compiled


def _accepts(vr: str, key: Element, place: str, problems: list[Refusal]) -> _Accepts | None:
    """The test of one held value; None for universal matching (no value, or a lone `*` in any VR)."""
    values = [_text(value).strip(" \0") for value in _values(key) if value is not None]
    values = [value for value in values if value]
    if not values or any(set(value) == {"*"} for value in values):
        return None
    if vr == "PN":
        return _any_of([_name_test(value) for value in values])
    if vr in _CLOCK:
        if len(values) > 1:
            problems.append(_unusable(place, "a date or time key has several values", "send one value or a range"))
            return None
        return _CLOCK[vr](values[0], place, problems)
    if vr in ("DS", "IS"):
        return _any_of([_number_test(value) for value in values])
    if vr in WILD_CARD_VRS or vr == "UN":
        return _any_of([_text_test(value) for value in values])
    wanted = frozenset(values)  # single value, and list of UID (C.2.2.2.2)
    return lambda held: _text(held).strip(" \0") in wanted


def _any_of(tests: Sequence[_Accepts]) -> _Accepts:
    if len(tests) == 1:
        return tests[0]
    return lambda held: any(test(held) for test in tests)


def _text_test(wanted: str) -> _Accepts:
    if not _is_pattern(wanted):
        return lambda held: _text(held).strip(" \0") == wanted
    pattern = _glob(wanted)
    return lambda held: pattern.fullmatch(_text(held).strip(" \0")) is not None


def _number_test(wanted: str) -> _Accepts:
    """By value where both are numbers: `70.5` is `70.50`."""
    number = _number(wanted)
    if number is None:
        return _text_test(wanted)
    return lambda held: _number(_text(held)) == number


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


_WILD = re.compile(r"[*?\ufffd]")


def _is_pattern(text: str) -> bool:
    return _WILD.search(text) is not None


def _glob(wanted: str) -> re.Pattern[str]:
    """`*` any run of characters, `?` and U+FFFD any one. Atomic groups keep a key of many stars linear in each star."""
    parts = [
        "".join("." if letter in "?\ufffd" else re.escape(letter) for letter in part)
        for part in re.split(r"\*+", wanted)
    ]
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in parts[1:-1])
    return re.compile(f"{parts[0]}{middle}.*{parts[-1]}", re.DOTALL)


def _name_test(wanted: str) -> _Accepts:
    groups = [_group_test(group) for group in wanted.split("=")[:3]]
    if len(groups) == 1:
        only = groups[0]
        return lambda held: only is None or any(only(group) for group in folded_groups(held))

    def each(held: Any) -> bool:
        value = held if isinstance(held, Mapping) else person_name_value(str(held))
        names = (value.get(group) or "" for group in ("Alphabetic", "Ideographic", "Phonetic"))
        return all(test is None or test(fold_name(name)) for test, name in zip(groups, names, strict=False))

    return each


def _group_test(wanted: str) -> Callable[[str], bool] | None:
    """The test of one folded component group; None for an empty one."""
    components = [part.strip(" ") for part in fold_name(wanted).split("^")]
    while components and not components[-1]:
        components.pop()
    if not components:
        return None
    patterns = [_glob(part) if part else None for part in components]
    open_ended = UNNAMED_COMPONENTS_MATCH or components[-1].endswith("*")
    whole = _glob("^".join(components)) if any("*" in part for part in components) else None

    def test(group: str) -> bool:
        held = [part.strip(" ") for part in group.split("^")]
        held += [""] * (len(patterns) - len(held))
        if all(pattern is None or pattern.fullmatch(part) for pattern, part in zip(patterns, held, strict=False)) and (
            open_ended or not any(held[len(patterns) :])
        ):
            return True
        return whole is not None and whole.fullmatch(group.rstrip("^ ")) is not None

    return test


# Dates are 8 digits, times 12 (to the microsecond); both compare as text. The bounds of an interval are the same
# text filled up with zeros and with nines: a leap second lies below the nines like any other.
_DATE_FORM = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME_FORM = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_DATE_TIME_FORM = re.compile(r"(\d{4}(?:\d\d){0,5}(?:\.\d{1,6})?)([+-]\d{4})?")
_FIRST, _LAST = "", "\uffff"


def _held_date(value: Any) -> str:
    """A held DA as 8 digits; '' where it is none."""
    form = _DATE_FORM.fullmatch(value) if isinstance(value, str) else None
    return "".join(form.groups()) if form else ""


def _held_time(value: Any) -> str:
    """A held TM as 12 digits; '' where it is none."""
    form = _TIME_FORM.fullmatch(value) if isinstance(value, str) else None
    return "".join(part or "" for part in form.groups()).ljust(12, "0") if form else ""


def _date_of(text: str) -> str | None:
    """A date key's end as 8 digits; the form YYYY.MM.DD of before 1993 is tolerated. None where it is no date."""
    form = _DATE_FORM.fullmatch(text)
    if form is None:
        return None
    try:
        date(*map(int, form.groups()))
    except ValueError:
        return None
    return "".join(form.groups())


def _time_of(text: str) -> str | None:
    """The digits of a time key's end, as precise as they are; None where it is no time."""
    form = _TIME_FORM.fullmatch(text)
    if form is None or int(form[1]) > 23 or int(form[2] or 0) > 59 or int(form[3] or 0) > 60:
        return None
    return "".join(part or "" for part in form.groups())


@dataclass(frozen=True, slots=True)
class _Span:
    """A date or time key: the first and last text it takes; `form` is 'one', 'from-to', 'from' or 'to'."""

    form: str
    lowest: str
    highest: str


def _span(
    text: str, place: str, problems: list[Refusal], read: Callable[[str], str | None], width: int, what: str
) -> _Span | None:
    """The span of a DA or TM key, whichever end is first; None with a problem noted where it is none."""
    start, dash, end = (part.strip() for part in text.partition("-"))
    first, last = (read(part) if part else "" for part in (start, end))
    if first is None or last is None or not (start or end):
        problems.append(_unusable(
            place, f"the key is no {what}",
            "send YYYYMMDD or a range of it" if what == "date" else "send HHMMSS or a range of it",
        ))  # fmt: skip
        return None
    lowest = first.ljust(width, "0") if start else _FIRST
    if not dash:
        return _Span("one", lowest, first.ljust(width, "9"))
    highest = last.ljust(width, "9") if end else _LAST
    return _Span("from-to" if start and end else "from" if start else "to", lowest, highest)


def _date_span(key: Element | None, place: str, problems: list[Refusal]) -> _Span | None:
    text = _clock_text(key)
    return _span(text, place, problems, _date_of, 8, "date") if text else None


def _time_span(key: Element | None, place: str, problems: list[Refusal]) -> _Span | None:
    text = _clock_text(key)
    return _span(text, place, problems, _time_of, 12, "time") if text else None


def _clock_text(key: Element | None) -> str:
    """The one value of a date or time key; '' where it is universal."""
    values = [_text(value).strip(" \0") for value in _values(key or {}) if value is not None]
    values = [value for value in values if value]
    return "" if len(values) != 1 or set(values[0]) == {"*"} else values[0]


def _date_test(text: str, place: str, problems: list[Refusal]) -> _Accepts | None:
    return _span_test(_span(text, place, problems, _date_of, 8, "date"), _held_date, place, problems)


def _time_test(text: str, place: str, problems: list[Refusal]) -> _Accepts | None:
    return _span_test(_span(text, place, problems, _time_of, 12, "time"), _held_time, place, problems)


def _span_test(span: _Span | None, read: Callable[[Any], str], place: str, problems: list[Refusal]) -> _Accepts | None:
    if span is None:
        return None
    if span.lowest > span.highest:
        problems.append(_backwards(place))
        return None
    lowest, highest = span.lowest, span.highest

    def test(held: Any) -> bool:
        value = read(held)
        return bool(value) and lowest <= value <= highest

    return test


def _date_time_test(text: str, place: str, problems: list[Refusal]) -> _Accepts | None:
    """A DT key, single or range. Offsets from UTC are applied where both sides give one, else ignored."""
    start = end = _DATE_TIME_FORM.fullmatch(text)
    if start is None:
        half = _DATE_TIME_FORM.pattern
        ends = re.fullmatch(rf"(?P<start>{half})?-(?P<end>{half})?", text)
        start, end = (_DATE_TIME_FORM.fullmatch(ends[part] or "") if ends else None for part in ("start", "end"))
    if start is None and end is None:
        problems.append(_unusable(place, "the key is no date and time", "send YYYYMMDDHHMMSS or a range of it"))
        return None

    def test(held: Any) -> bool:
        form = _DATE_TIME_FORM.fullmatch(_text(held).strip())
        if form is None:
            return False
        return (start is None or _instant(start, form, "0") <= _instant(form, start, "0")) and (
            end is None or _instant(form, end, "0") <= _instant(end, form, "9")
        )

    return test


def _instant(of: re.Match[str], beside: re.Match[str], fill: str) -> tuple[int, str]:
    """(minutes, rest) of a DT, filled up to the microsecond, in UTC where both have an offset."""
    digits = of[1].replace(".", "")
    # Months and days start at 1; a value with nines stays behind every real one of the same start.
    filled = digits + ("0101000000000000" if fill == "0" else "9" * 16)[len(digits) - 4 :]
    year, month, day, hour, minute = (int(filled[a:b]) for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12)))
    minutes = (((year * 12 + month) * 32 + day) * 24 + hour) * 60 + minute
    if of[2] and beside[2]:
        minutes = _utc_minutes(year, month, day, hour, minute, of[2])
    return minutes, filled[12:20]


def _utc_minutes(year: int, month: int, day: int, hour: int, minute: int, offset: str) -> int:
    days = date(max(year, 1), min(max(month, 1), 12), 1).toordinal() + min(day, 31) - 1
    shift = (int(offset[1:3]) * 60 + int(offset[3:5])) * (-1 if offset[0] == "-" else 1)
    return (days * 24 + min(hour, 23)) * 60 + min(minute, 59) - shift


_CLOCK: Mapping[str, Callable[[str, str, list[Refusal]], _Accepts | None]] = {
    "DA": _date_test,
    "TM": _time_test,
    "DT": _date_time_test,
}


def _joined_start(keys: Attributes, place: str, problems: list[Refusal]) -> _StartKey | None:
    """The one interval of start date and time where both are ranges of the same form, else None."""
    spans = _start_spans(keys)
    if spans is None or spans[0].form != spans[1].form or spans[0].form == "one":
        return None
    day, time = spans
    lowest, highest = (day.lowest, time.lowest), (day.highest, time.highest)
    here = f"{place}({_TIME[:4]},{_TIME[4:]})"
    if lowest > highest:
        problems.append(_backwards(here))
    return _StartKey(here, f"{_asked(keys[_DATE])} {_asked(keys[_TIME])}", lowest, highest)


def _start_spans(keys: Attributes) -> tuple[_Span, _Span] | None:
    """The spans of start date and time where both keys are given and sound."""
    if "Value" not in keys.get(_DATE, {}) or "Value" not in keys.get(_TIME, {}):
        return None
    unheard: list[Refusal] = []  # unsound keys are reported when they are compiled one by one
    day = _date_span(keys.get(_DATE), "", unheard)
    time = _time_span(keys.get(_TIME), "", unheard)
    return (day, time) if day and time else None


def _narrowing_of(keys: Attributes, status: _ValueKey | None) -> Narrowing:
    step = next(iter(_items(keys, SPS_SEQUENCE)), {})
    start_from, start_to = _start_bounds(step)
    statuses = LISTED
    if status is not None:
        statuses = frozenset(each for each in LISTED if status.accepts(str(each))) or LISTED
    return Narrowing(
        station_ae_titles=frozenset(_exact(step, "ScheduledStationAETitle")),
        start_from=start_from,
        start_to=start_to,
        modality=_exact_one(step, "Modality"),
        patient_id=_exact_one(keys, "PatientID"),
        patient_name_prefix=_name_prefix(keys),
        accession_number=_exact_one(keys, "AccessionNumber"),
        requested_procedure_id=_exact_one(keys, "RequestedProcedureID"),
        study_instance_uids=frozenset(_exact(keys, "StudyInstanceUID")),
        sps_id=_exact_one(step, "ScheduledProcedureStepID"),
        statuses=statuses,
    )


def _exact(keys: Attributes, keyword: str) -> list[str]:
    """The values of a key that asks for exact ones; none where any of them is a pattern."""
    values = [_text(value).strip(" \0") for value in _values(keys.get(TAG[keyword], {})) if value is not None]
    return [] if any(_is_pattern(value) for value in values) else [value for value in values if value]


def _exact_one(keys: Attributes, keyword: str) -> str:
    values = _exact(keys, keyword)
    return values[0] if len(values) == 1 else ""


def _start_bounds(step: Attributes) -> tuple[str, str]:
    day = _date_span(step.get(_DATE), "", [])
    if day is None:
        return "", ""
    # Up to the midnights around, exclusive of nothing on the days asked for, whatever a held time looks like.
    start_from = _other_day(day.lowest, -1, "999999") if day.lowest != _FIRST else ""
    start_to = _other_day(day.highest, 1, "000000") if day.highest != _LAST else ""
    spans = _start_spans(step)
    if spans and spans[0].form == spans[1].form:  # one interval, or one day and one time: the same bounds
        time = spans[1]
        start_from = day.lowest + time.lowest[:6] if start_from else ""
        start_to = day.highest + time.highest[:6] if start_to else ""
    return start_from, start_to


def _other_day(day: str, step: int, time: str) -> str:
    """A moment of the day before or after, as an index bound; unbounded at the ends of the calendar."""
    try:
        other = date(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(days=step)
        return other.isoformat().replace("-", "") + time
    except OverflowError:
        return ""


def _name_prefix(keys: Attributes) -> str:
    """What the folded group has to begin with: the family name up to a wild card."""
    values = [_text(value) for value in _values(keys.get(TAG["PatientName"], {})) if value]
    if len(values) != 1:
        return ""
    group = next((group for group in values[0].strip(" \0").split("=") if group.strip(" ^")), "")
    return _WILD.split(fold_name(group).split("^")[0])[0].rstrip(" ")


def _items(attributes: Attributes, tag: str) -> list[Attributes]:
    """The items of a sequence, a null one as empty."""
    return [item or {} for item in attributes.get(tag, {}).get("Value") or ()]


def _first(attributes: Attributes, tag: str) -> Any:
    values = _values(attributes.get(tag, {}))
    return values[0] if values else None


def _values(held: Element) -> Sequence[Any]:
    """The values of an element; bytes of unknown VR as the text they most often are."""
    values: Sequence[Any] | None = held.get("Value")
    if values is not None:
        return values
    inline = held.get("InlineBinary")
    if not inline:
        return ()
    try:
        data = base64.b64decode(inline[0] if isinstance(inline, list) else inline)
    except (binascii.Error, ValueError):
        return ()
    return data.decode("latin-1").split("\\")


def _text(value: Any) -> str:
    return person_name_text(value) if isinstance(value, Mapping) else str(value)


def _asked(key: Element) -> str:
    return "\\".join(_text(value) for value in _values(key) if value is not None)


def _name(tag: str) -> str:
    return BY_TAG[tag].keyword if tag in BY_TAG else "attribute outside the table"


def _unusable(place: str, text: str, hint: str) -> Refusal:
    return Refusal(RefusalKind.UNUSABLE_QUERY, place, text, hint)


def _backwards(place: str) -> Refusal:
    return _unusable(
        place, "the range ends before it starts",
        "a range of times over midnight needs a range of dates beside it",
    )  # fmt: skip
