"""Worklist matching (PS3.4 K.2.2.2 and C.2.2.2): query keys -> a predicate that decides and can explain itself.

The query is compiled once and then asked of every candidate. The store only narrows (`Narrowing`), the predicate
decides. Keys and items are both Attributes in the DICOM JSON Model; nothing here knows about bytes. A key that cannot
be one is refused; a held value that is broken is met by no key and breaks nothing.

What the standard leaves to the implementation, and the conformance statement has to declare:

- Person names: `gateway.domain.names`. Dates and times: `gateway.domain.moments`.
- Wild cards work in every text key, also where single value matching would do (station, modality, patient ID).
- Start date and start time that are ranges of the same form make one interval; other pairs are two tests.
- A query with a Timezone Offset From UTC and a start time means that offset's clock, negotiated or not (K.5.1): the
  item's start is moved there before date and time are tested. A start date alone is the department's day. Other dates
  with times are not moved.
- A private attribute, or one outside the table, is compared where an item holds it and ignored elsewhere. Private
  attributes are the same if creator and element number are, whatever block either side reserved.
- A key of the table in the wrong place (Modality beside the step sequence) is no key; `Query.notes` says so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta, tzinfo
from typing import Any, TypeAlias

from gateway.domain.attributes import (
    BY_TAG,
    SPS_SEQUENCE,
    TAG,
    WILD_CARD_VRS,
    Attributes,
    Element,
    Level,
    held_tag,
    is_private,
    private_creator,
)
from gateway.domain.elements import (
    NUMBERS,
    first_of,
    given,
    items_of,
    number_of,
    strip_of,
    text_of,
    texts_of,
    values_of,
)
from gateway.domain.keys import coordinates, is_no_key, keyword_of, known_key, level_inside
from gateway.domain.mismatch import NO_VALUE, Mismatch, beside, hint
from gateway.domain.moments import (
    FIRST,
    LAST,
    MomentError,
    Span,
    backwards,
    date_span,
    date_test,
    date_time_test,
    held_date,
    held_time,
    moved,
    offset_of,
    other_day,
    time_span,
    time_test,
)
from gateway.domain.names import name_prefix, name_test
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.wildcards import glob, is_pattern
from gateway.domain.worklist import LISTED, SPSStatus


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Index bounds for the store: each may hide only items that the matcher would refuse as well.

    Starts are 14 digits of wall clock, inclusive; '' or empty means unbounded. `patient_name_prefix` is what one of
    the entries of `names.name_index` begins with. `specific` bounds nothing: it says whether the query names a start
    date, a patient or an order, also where no index serves (`*Doe`).
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
    sites: frozenset[str] = frozenset()
    statuses: frozenset[SPSStatus] = LISTED
    specific: bool = False


@dataclass(frozen=True, slots=True)
class MatchingRules:
    """What was negotiated for an association, and what a device's profile bends.

    `zone` is the department's zone: what scheduled times are the wall clock of, where an item holds no offset of its
    own. `timezone_adjusted` and `fuzzy_names` are the extended negotiation of PS3.4 K.5.1; an offset in the query
    counts for matching also where the adjustment was not negotiated, so that flag changes no match. `empty_values`
    lets a key of two quotation marks ask for items without a value (C.2.2.2.7). `whole_names` makes components that
    a name key leaves out mean empty.
    """

    fuzzy_names: bool = False
    timezone_adjusted: bool = False
    zone: tzinfo | None = None
    empty_values: bool = False
    whole_names: bool = False


LITERAL = MatchingRules()
"""Nothing negotiated, nothing bent."""

EMPTY_VALUE = '""'
"""The key value that asks for items without a value, where `empty_values` is on."""

_Accepts: TypeAlias = Callable[[Any], bool]

# The store indexes one value of each of these, and the standard allows one: further values do not count.
_ONE_VALUED = frozenset(
    TAG[keyword]
    for keyword in (
        "Modality", "PatientID", "PatientName", "AccessionNumber", "RequestedProcedureID", "StudyInstanceUID",
        "ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime",
    )
)  # fmt: skip
# A query with one of these asks for somebody or some day, and not for whatever there is.
_SPECIFIC = frozenset(
    TAG[keyword]
    for keyword in (
        "PatientName", "PatientID", "OtherPatientIDsSequence", "AdmissionID", "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID",
        "StudyInstanceUID", "ScheduledProcedureStepID", "ScheduledProcedureStepStartDate",
    )
)  # fmt: skip
_DATE, _TIME = TAG["ScheduledProcedureStepStartDate"], TAG["ScheduledProcedureStepStartTime"]
_STATUS = TAG["ScheduledProcedureStepStatus"]
_OFFSET = TAG["TimezoneOffsetFromUTC"]

# -- keys


@dataclass(frozen=True, slots=True)
class _ValueKey:
    """A key with a value: any value held may meet it.

    `when_absent` is the answer for an item that lacks the attribute, `when_empty` for one that has no value in it.
    """

    tag: str
    vr: str
    place: str
    asked: tuple[str, ...]
    accepts: _Accepts
    rules: MatchingRules
    when_absent: bool = False
    when_empty: bool = False
    one_valued: bool = False

    def matches(self, attributes: Attributes) -> bool:
        held = attributes.get(self.tag)
        if held is None:
            return self.when_absent
        values = values_of(held, self.vr)
        if self.one_valued:
            values = values[:1]
        accepts = self.accepts
        for value in values:
            if value is not None and value != "" and accepts(value):
                return True
        return self.when_empty and not any(given(values))

    def mismatches(self, attributes: Attributes) -> tuple[Mismatch, ...]:
        if self.matches(attributes):
            return ()
        held = tuple(given(values_of(attributes.get(self.tag), self.vr)))
        if self.when_empty:
            told = "the key asks for items without a value"
        else:
            rules = self.rules
            told = hint(self.vr, self.asked, held, fuzzy=rules.fuzzy_names, whole=rules.whole_names)
        return (Mismatch(self.place, keyword_of(self.tag), "\\".join(self.asked), "\\".join(held), told),)


@dataclass(frozen=True, slots=True)
class _StartKey:
    """Start date and start time that make one interval (PS3.4 C.2.2.2.5.4, Table K.6-1), as 20 digits."""

    place: str
    asked: str
    interval: Span

    def matches(self, attributes: Attributes) -> bool:
        start = _start_digits(attributes)
        return bool(start) and self.interval.lowest <= start <= self.interval.highest

    def mismatches(self, attributes: Attributes) -> tuple[Mismatch, ...]:
        if self.matches(attributes):
            return ()
        start = _start_digits(attributes)
        told = beside(self.interval, start) if start else NO_VALUE
        return (Mismatch(self.place, "start", self.asked, _start_text(attributes), f"date and time are one; {told}"),)


@dataclass(frozen=True, slots=True)
class _ZonedStart:
    """Start date and time as the query's own offset from UTC has them. Asked of the whole item, not of its step."""

    asked: timedelta
    said: str
    zone: tzinfo | None
    keys: "tuple[_Key, ...]"

    def matches(self, attributes: Attributes) -> bool:
        return any(_all_match(self.keys, self._moved(step, attributes)) for step in items_of(attributes, SPS_SEQUENCE))

    def mismatches(self, attributes: Attributes) -> tuple[Mismatch, ...]:
        if self.matches(attributes):
            return ()
        step = next(iter(items_of(attributes, SPS_SEQUENCE)), {})
        there = self._moved(step, attributes)
        found = (mismatch for key in self.keys for mismatch in key.mismatches(there))
        held = _start_text(step)
        return tuple(
            replace(mismatch, hint=f"on the clock of the query, which is at {self.said}; here it is {held}; "
                                   f"{mismatch.hint}".removesuffix("; "))
            for mismatch in found
        )  # fmt: skip

    def _moved(self, step: Attributes, attributes: Attributes) -> Attributes:
        """The step's start on the query's clock; as it is where it is none, or nobody knows which clock it is on."""
        own = offset_of(text_of(first_of(attributes, _OFFSET)).strip(" \0"))
        held = self.zone if own is None else own
        start = _start_digits(step)
        if not start or held is None:
            return step
        day, time = moved(start[:8], start[8:], held, self.asked)
        return {_DATE: {"vr": "DA", "Value": [day]}, _TIME: {"vr": "TM", "Value": [f"{time[:6]}.{time[6:]}"]}}


@dataclass(frozen=True, slots=True)
class _SequenceKey:
    """One held item has to meet all keys of the request's item (PS3.4 C.2.2.2.6).

    `when_none`: all that is asked for is that values are empty, which a sequence without items meets.
    """

    tag: str
    place: str
    keys: "tuple[_Key, ...]"
    when_absent: bool = False
    when_none: bool = False

    def matches(self, attributes: Attributes) -> bool:
        if attributes.get(self.tag) is None:
            return self.when_absent or self.when_none
        items = items_of(attributes, self.tag)
        keys = self.keys
        for item in items:
            if _all_match(keys, item):
                return True
        return self.when_none and not items

    def mismatches(self, attributes: Attributes) -> tuple[Mismatch, ...]:
        if self.matches(attributes):
            return ()
        items = items_of(attributes, self.tag)
        if len(items) == 1:
            return tuple(mismatch for key in self.keys for mismatch in key.mismatches(items[0]))
        asked = ", ".join(
            f"{mismatch.keyword} {mismatch.asked!r}" for key in self.keys for mismatch in key.mismatches({})
        )
        held = f"{len(items)} items" if items else ""
        return (
            Mismatch(self.place, keyword_of(self.tag), asked, held, "one item has to meet all keys of the sequence"),
        )


@dataclass(frozen=True, slots=True)
class _PrivateKey:
    """A key that means something only together with its creator. Ignored for an item that does not hold it."""

    tag: str
    creator: str
    key: "_ValueKey | _SequenceKey"

    def matches(self, attributes: Attributes) -> bool:
        held = held_tag(attributes, self.tag, self.creator)
        return held is None or self.key.matches({self.tag: attributes[held]})

    def mismatches(self, attributes: Attributes) -> tuple[Mismatch, ...]:
        held = held_tag(attributes, self.tag, self.creator)
        return () if held is None else self.key.mismatches({self.tag: attributes[held]})


_Key: TypeAlias = "_ValueKey | _StartKey | _ZonedStart | _SequenceKey | _PrivateKey"


def _all_match(keys: Iterable[_Key], attributes: Attributes) -> bool:
    for key in keys:  # noqa: SIM110  (`all` costs as much again as a key does)
        if not key.matches(attributes):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled query. Made by `compile_query`. `notes` say what was odd about the keys; they hold no values."""

    _keys: tuple[_Key, ...] = field(repr=False)
    _status: _ValueKey | None = field(repr=False)
    _narrowing: Narrowing = field(repr=False)
    notes: tuple[str, ...] = ()

    def matches(self, attributes: Attributes, status: SPSStatus | None = None) -> bool:
        """Whether an item with these attributes answers the query.

        `status` is the step's, where the attributes do not hold it; only a status key looks at it.
        """
        if not _all_match(self._keys, attributes):
            return False
        return self._status is None or self._status.matches(_status_attributes(attributes, status))

    def mismatches(self, attributes: Attributes, status: SPSStatus | None = None) -> tuple[Mismatch, ...]:
        """Every key that the item fails, with what was asked and what is held; empty where it matches."""
        found = [mismatch for key in self._keys for mismatch in key.mismatches(attributes)]
        if self._status is not None:
            found += self._status.mismatches(_status_attributes(attributes, status))
        return tuple(found)

    def explain(self, attributes: Attributes, status: SPSStatus | None = None) -> tuple[str, ...]:
        """The mismatches as sentences. They hold patient data: for console and command line, never for a log."""
        return tuple(map(str, self.mismatches(attributes, status)))

    def narrowing(self) -> Narrowing:
        """What the store may go by to hide items that cannot match."""
        return self._narrowing


def _status_attributes(attributes: Attributes, status: SPSStatus | None) -> Attributes:
    if status is not None:
        return {_STATUS: {"vr": "CS", "Value": [str(status)]}}
    return next(iter(items_of(attributes, SPS_SEQUENCE)), {})


# -- compiling


@dataclass(slots=True)
class _Asking:
    """A query while it is compiled: what goes for all of its keys, and what was found wrong and odd so far."""

    rules: MatchingRules
    offset: timedelta | None = None
    said_offset: str = ""
    zoned: _ZonedStart | None = None
    problems: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, place: str, text: str, hint: str) -> None:
        self.problems.append(Refusal(RefusalKind.UNUSABLE_QUERY, place, text, hint))


def compile_query(keys: Attributes, rules: MatchingRules = LITERAL) -> Query:
    """The query with these keys.

    Raises Refused (UNUSABLE_QUERY) with the place of every key that cannot be one: a date or time that is none, a
    range that ends before it starts, a sequence of several items.
    """
    asking = _Asking(rules)
    _take_offset(keys, asking)
    compiled = _compile(keys, "", Level.PATIENT, asking)
    if asking.problems:
        raise Refused(*asking.problems)
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
    if asking.zoned is not None:
        parts.append(asking.zoned)
    narrowing = replace(_narrowing_of(keys, status, asking), specific=not _SPECIFIC.isdisjoint(_tags(parts)))
    return Query(tuple(parts), status, narrowing, tuple(asking.notes))


def _tags(keys: Iterable[_Key]) -> Iterator[str]:
    """What is asked for on top and of the step."""
    for key in keys:
        if isinstance(key, _ZonedStart) or (isinstance(key, _SequenceKey) and key.tag == SPS_SEQUENCE):
            yield from _tags(key.keys)
        elif isinstance(key, _StartKey):
            yield _DATE
        else:
            yield key.tag


def item_matcher(keys: Attributes, rules: MatchingRules = LITERAL) -> Callable[[Attributes], bool] | None:
    """Which items of a sequence a key with this item selects for the answer; None where it selects all of them.

    Raises Refused (UNUSABLE_QUERY) as `compile_query` does.
    """
    asking = _Asking(rules)
    compiled = tuple(_compile(keys, "", Level.NESTED, asking))
    if asking.problems:
        raise Refused(*asking.problems)
    if not compiled:
        return None
    return lambda item: _all_match(compiled, item)


def _take_offset(keys: Attributes, asking: _Asking) -> None:
    said = next(iter(texts_of(keys.get(_OFFSET), "SH")), "")
    asking.offset, asking.said_offset = offset_of(said), said
    if said and asking.offset is None:
        asking.notes.append(
            f"{coordinates(_OFFSET)} TimezoneOffsetFromUTC is no offset (+HHMM or -HHMM, -1200 to +1400) and ignored"
        )


def _compile(keys: Attributes, place: str, level: Level, asking: _Asking) -> list[_Key]:
    """The keys that ask for something, at one level of nesting."""
    compiled: list[_Key] = []
    if level is Level.STEP:
        compiled += _start_keys(keys, place, asking)
    for tag in sorted(keys):
        key = keys[tag]
        if ("Value" not in key and "InlineBinary" not in key) or is_no_key(tag):
            continue  # universal matching
        if level is Level.STEP and tag in (_DATE, _TIME):
            continue
        here = place + coordinates(tag)
        known = known_key(tag, level)
        attribute = BY_TAG.get(tag)
        if attribute is not None and not known:
            where = "inside" if attribute.level is Level.STEP else "outside"
            if attribute.level is not Level.NESTED:
                asking.notes.append(
                    f"{here} {attribute.keyword} is a key {where} the Scheduled Procedure Step Sequence, "
                    "and ignored where it is"
                )
            continue
        if attribute is not None and not attribute.is_matched:
            continue
        made = _key(tag, key, here, known, asking)
        if made is not None:
            compiled.append(_PrivateKey(tag, private_creator(keys, tag), made) if is_private(tag) else made)
    return compiled


def _key(tag: str, key: Element, place: str, known: bool, asking: _Asking) -> "_ValueKey | _SequenceKey | None":
    """One key; None where it is universal, or was refused."""
    attribute = BY_TAG.get(tag)
    vr = attribute.vr if attribute else str(key.get("vr"))
    if vr != "SQ":
        return _value_key(tag, vr, key, place, known, asking)
    if key.get("vr") != "SQ" and values_of(key):
        asking.refuse(place, "the key is no sequence", "send it as a sequence (SQ)")
        return None
    items = items_of({tag: key}, tag)
    if len(items) > 1:
        asking.refuse(place, f"a sequence key has {len(items)} items", "send at most one item")
        return None
    nested = tuple(_compile(items[0], f"{place}[0]/", level_inside(tag), asking)) if items else ()
    if not nested:
        return None
    empty = all(isinstance(each, _ValueKey) and each.when_empty for each in nested)
    return _SequenceKey(tag, place, nested, when_absent=not known, when_none=empty)


def _value_key(tag: str, vr: str, key: Element, place: str, known: bool, asking: _Asking) -> _ValueKey | None:
    values = texts_of(key, vr)
    if not values or any(set(value.strip(" ")) == {"*"} for value in values):
        return None  # no value, or a lone star in any VR: universal
    asked = tuple(given(values_of(key, vr)))
    for_empty = asking.rules.empty_values and EMPTY_VALUE in values
    if for_empty:
        values = [value for value in values if value != EMPTY_VALUE]
    try:
        accepts = _accepts(vr, values, asking) if values else lambda held: False
    except MomentError as error:
        asking.refuse(place, error.text, error.hint)
        return None
    return _ValueKey(
        tag, vr, place, asked, accepts, asking.rules,
        when_absent=for_empty or not known, when_empty=for_empty, one_valued=tag in _ONE_VALUED,
    )  # fmt: skip


def _accepts(vr: str, values: Sequence[str], asking: _Asking) -> _Accepts:
    """The test of one held value. Raises MomentError."""
    if vr in ("DA", "TM", "DT"):
        if len(values) > 1:
            raise MomentError("a date or time key has several values", "send one value or a range")
        if vr == "DT":
            return date_time_test(values[0], asking.offset, asking.rules.zone)
        return date_test(values[0]) if vr == "DA" else time_test(values[0])
    if vr == "PN":
        rules = asking.rules
        return _any_of([name_test(value, fuzzy=rules.fuzzy_names, whole=rules.whole_names) for value in values])
    if vr in NUMBERS:
        return _any_of([_number_test(value) for value in values])
    if vr in WILD_CARD_VRS or vr == "UN":
        return _any_of([_text_test(value, vr) for value in values])
    return _one_of(frozenset(values))  # single value, and list of UID (C.2.2.2.2)


def _any_of(tests: Sequence[_Accepts]) -> _Accepts:
    if len(tests) == 1:
        return tests[0]
    return lambda held: any(test(held) for test in tests)


def _one_of(wanted: frozenset[str]) -> _Accepts:
    return lambda held: text_of(held).strip(" \0") in wanted


def _text_test(wanted: str, vr: str) -> _Accepts:
    strip = strip_of(vr)
    if not is_pattern(wanted):
        return lambda held: held == wanted or strip(text_of(held), " \0") == wanted
    met = glob(wanted)
    return lambda held: met(strip(text_of(held), " \0"))


def _number_test(wanted: str) -> _Accepts:
    """By value where both are numbers: `70.5` is `70.50`."""
    number = number_of(wanted)
    if number is None:
        return _one_of(frozenset({wanted}))
    return lambda held: number_of(text_of(held)) == number


# -- start date and time


def _start_keys(step: Attributes, place: str, asking: _Asking) -> list[_Key]:
    """The keys of the step's start: one interval where both are ranges of one form, else two tests."""
    keys: list[_Key] = []
    day, time = _start_spans(step, asking.rules)
    if day is not None and time is not None and day.form == time.form != "one":
        interval = Span(day.form, day.lowest + time.lowest, day.highest + time.highest)
        here = place + coordinates(_TIME)
        if interval.lowest > interval.highest:
            error = backwards()
            asking.refuse(here, error.text, error.hint)
        keys.append(_StartKey(here, " ".join(texts_of(step[_DATE], "DA") + texts_of(step[_TIME], "TM")), interval))
    else:
        for tag, vr in ((_DATE, "DA"), (_TIME, "TM")):
            made = _value_key(tag, vr, step.get(tag, {}), place + coordinates(tag), True, asking)
            if made is not None:
                keys.append(made)
    if asking.offset is None or time is None:
        return keys
    asking.zoned = _ZonedStart(asking.offset, asking.said_offset, asking.rules.zone, tuple(keys))
    return []


def _start_spans(step: Attributes, rules: MatchingRules) -> tuple[Span | None, Span | None]:
    """The spans of start date and start time; None for a key that is universal, unsound or asks for no value."""
    return _span(step, _DATE, date_span, rules), _span(step, _TIME, time_span, rules)


def _span(step: Attributes, tag: str, read: Callable[[str], Span], rules: MatchingRules) -> Span | None:
    values = texts_of(step.get(tag), BY_TAG[tag].vr)
    if len(values) != 1 or set(values[0]) == {"*"} or (rules.empty_values and values[0] == EMPTY_VALUE):
        return None
    try:
        return read(values[0])
    except MomentError:  # reported when the key itself is compiled
        return None


def _start_digits(step: Attributes) -> str:
    """The held start as 20 digits of wall clock; '' where date or time are none."""
    day, time = held_date(first_of(step, _DATE)), held_time(first_of(step, _TIME))
    return day + time if day and time else ""


def _start_text(step: Attributes) -> str:
    return " ".join(filter(None, (text_of(first_of(step, _DATE)), text_of(first_of(step, _TIME)))))


# -- narrowing


def _narrowing_of(keys: Attributes, status: _ValueKey | None, asking: _Asking) -> Narrowing:
    step = next(iter(items_of(keys, SPS_SEQUENCE)), {})
    start_from, start_to = _start_bounds(step, asking)
    statuses = LISTED
    if status is not None:
        statuses = frozenset(each for each in LISTED if status.accepts(str(each))) or LISTED
    rules = asking.rules
    return Narrowing(
        station_ae_titles=frozenset(_exact(step, "ScheduledStationAETitle", rules)),
        start_from=start_from,
        start_to=start_to,
        modality=_exact_one(step, "Modality", rules),
        patient_id=_exact_one(keys, "PatientID", rules),
        patient_name_prefix=_name_prefix(keys, rules),
        accession_number=_exact_one(keys, "AccessionNumber", rules),
        requested_procedure_id=_exact_one(keys, "RequestedProcedureID", rules),
        study_instance_uids=frozenset(_exact(keys, "StudyInstanceUID", rules)),
        sps_id=_exact_one(step, "ScheduledProcedureStepID", rules),
        statuses=statuses,
    )


def _exact(keys: Attributes, keyword: str, rules: MatchingRules) -> list[str]:
    """The values of a key that asks for exact ones; none where any of them is a pattern or asks for no value."""
    attribute = TAG[keyword]
    values = texts_of(keys.get(attribute), BY_TAG[attribute].vr)
    if any(is_pattern(value) or (rules.empty_values and value == EMPTY_VALUE) for value in values):
        return []
    return values


def _exact_one(keys: Attributes, keyword: str, rules: MatchingRules) -> str:
    values = _exact(keys, keyword, rules)
    return values[0] if len(values) == 1 else ""


def _start_bounds(step: Attributes, asking: _Asking) -> tuple[str, str]:
    day, time = _start_spans(step, asking.rules)
    if day is None:
        return "", ""
    if asking.zoned is not None:
        # No two clocks of the world are two days apart.
        start_from = other_day(day.lowest, -2, "000000") if day.lowest != FIRST else ""
        start_to = other_day(day.highest, 2, "999999") if day.highest != LAST else ""
        return start_from, start_to
    # Up to the midnights around, exclusive of nothing on the days asked for, whatever a held time looks like.
    start_from = other_day(day.lowest, -1, "999999") if day.lowest != FIRST else ""
    start_to = other_day(day.highest, 1, "000000") if day.highest != LAST else ""
    if time is not None and day.form == time.form:  # one interval, or one day and one time: the same bounds
        start_from = day.lowest + time.lowest[:6] if start_from else ""
        start_to = day.highest + time.highest[:6] if start_to else ""
    return start_from, start_to


def _name_prefix(keys: Attributes, rules: MatchingRules) -> str:
    values = texts_of(keys.get(TAG["PatientName"]), "PN")
    if len(values) != 1 or (rules.empty_values and values[0] == EMPTY_VALUE):
        return ""
    return name_prefix(values[0], rules.fuzzy_names)
