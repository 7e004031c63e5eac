"""Dates, times and offsets from UTC, in query keys and as held (PS3.5 6.2, PS3.4 C.2.2.2.1.3 and C.2.2.2.5).

Dates are 8 digits, times 12 (to the microsecond); both compare as text. The bounds of an interval are the same text
filled up with zeros and with nines: a leap second lies below the nines like any other. What a key cannot be is told
by `MomentError`; a held value that is no moment is none, and met by no key.
"""

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, TypeAlias

MomentTest: TypeAlias = Callable[[Any], bool]

FIRST, LAST = "", "\uffff"
"""Before and behind every date and time: the open ends of a range."""

_DATE_FORM = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)", re.ASCII)
_TIME_FORM = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DATE_TIME_FORM = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)
_OFFSET_FORM = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


class MomentError(ValueError):
    """A key that is no date or time. `text` says what is wrong with it, `hint` what to send."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


@dataclass(frozen=True, slots=True)
class Span:
    """A date or time key: the first and last text it takes; `form` is 'one', 'from-to', 'from' or 'to'."""

    form: str
    lowest: str
    highest: str


def held_date(value: Any) -> str:
    """A held DA as 8 digits; '' where it is none."""
    if not isinstance(value, str):
        return ""
    if len(value) == 8 and value.isascii() and value.isdigit():  # as nearly all are
        return value
    form = _DATE_FORM.fullmatch(value)
    return "".join(form.groups()) if form else ""


def held_time(value: Any) -> str:
    """A held TM as 12 digits; '' where it is none."""
    if not isinstance(value, str):
        return ""
    if len(value) == 6 and value.isascii() and value.isdigit():
        return value + "000000"
    form = _TIME_FORM.fullmatch(value)
    return "".join(part or "" for part in form.groups()).ljust(12, "0") if form else ""


def date_span(text: str) -> Span:
    """The days of a DA key, single or range, whichever end is first. Raises MomentError."""
    return _span(text, _date_of, 8, "the key is no date", "send YYYYMMDD or a range of it")


def time_span(text: str) -> Span:
    """The times of day of a TM key: one of less precision is the interval it names. Raises MomentError."""
    return _span(text, _time_of, 12, "the key is no time", "send HHMMSS or a range of it")


def _span(text: str, read: Callable[[str], str | None], width: int, wrong: str, hint: str) -> Span:
    start, dash, end = (part.strip(" \0") for part in text.partition("-"))
    first, last = (read(part) if part else "" for part in (start, end))
    if first is None or last is None or not (start or end):
        raise MomentError(wrong, hint)
    lowest = first.ljust(width, "0") if start else FIRST
    if not dash:
        return Span("one", lowest, first.ljust(width, "9"))
    highest = last.ljust(width, "9") if end else LAST
    return Span("from-to" if start and end else "from" if start else "to", lowest, highest)


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


def date_test(text: str) -> MomentTest:
    """The test of a held DA. Raises MomentError."""
    return _span_test(date_span(text), held_date)


def time_test(text: str) -> MomentTest:
    """The test of a held TM. Raises MomentError."""
    return _span_test(time_span(text), held_time)


def backwards() -> MomentError:
    """What is wrong with a range whose end is before its start."""
    return MomentError(
        "the range ends before it starts", "a range of times over midnight needs a range of dates beside it"
    )


def _span_test(span: Span, read: Callable[[Any], str]) -> MomentTest:
    if span.lowest > span.highest:
        raise backwards()
    lowest, highest = span.lowest, span.highest

    def test(held: Any) -> bool:
        value = read(held)
        return bool(value) and lowest <= value <= highest

    return test


def other_day(day: str, days: int, time: str) -> str:
    """A moment of the day so many days later (or earlier), as digits; '' beyond the ends of the calendar."""
    try:
        other = date(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(days=days)
    except (OverflowError, ValueError):
        return ""
    return other.isoformat().replace("-", "") + time


# -- offsets from UTC


def offset_of(text: str) -> timedelta | None:
    """A Timezone Offset From UTC (0008,0201): +HHMM or -HHMM, from -1200 to +1400, never -0000 (PS3.3 C.12.1.1.8).

    None where it is no such offset.
    """
    form = _OFFSET_FORM.fullmatch(text)
    if form is None or int(form[3]) > 59 or text == "-0000":
        return None
    minutes = (int(form[2]) * 60 + int(form[3])) * (-1 if form[1] == "-" else 1)
    return timedelta(minutes=minutes) if -12 * 60 <= minutes <= 14 * 60 else None


def offset_at(wall: datetime, zone: tzinfo) -> timedelta:
    """The zone's offset at a naive wall clock time, in whole minutes.

    An hour that comes twice is its first; one that is left out counts by the offset before it (PEP 495, fold 0).
    """
    offset = zone.utcoffset(wall.replace(tzinfo=zone)) or timedelta()
    return timedelta(minutes=round(offset / timedelta(minutes=1)))


def moved(day: str, time: str, held: tzinfo | timedelta, asked: timedelta) -> tuple[str, str]:
    """A held date and time, as digits, on the clock of another offset; unchanged where there is no such moment.

    `held` is the zone or the offset that they are the wall clock of.
    """
    try:
        wall = datetime(int(day[:4]), int(day[4:6]), int(day[6:]), int(time[:2]), int(time[2:4]))
        there = wall - (held if isinstance(held, timedelta) else offset_at(wall, held)) + asked
    except (ValueError, OverflowError):
        return day, time
    date_digits = f"{there.year:04}{there.month:02}{there.day:02}"
    return date_digits, f"{there.hour:02}{there.minute:02}{time[4:]}"  # seconds stay: offsets are whole minutes


# -- DT


@dataclass(frozen=True, slots=True)
class _DateTime:
    """A DT as the first and last microsecond it names, and its offset from UTC; None where it is not told."""

    first: int
    last: int
    offset: timedelta | None


def date_time_test(text: str, asked: timedelta | None = None, zone: tzinfo | None = None) -> MomentTest:
    """The test of a held DT, for a key that is one or a range. Raises MomentError.

    `asked` is the offset of a key that names none, `zone` is what a held value that names none is the wall clock of.
    Offsets are applied where both sides have one, else both are taken as they are.
    """
    start, end = _date_time_ends(text, asked)

    def test(held: Any) -> bool:
        value = _date_time(held.strip(" \0")) if isinstance(held, str) else None
        if value is None:
            return False
        offset = value.offset
        if offset is None and zone is not None:
            offset = offset_at(datetime.min + value.first * _MICROSECOND, zone)
        return (
            start is None or _shared(start.first, start.offset, offset) <= _shared(value.first, offset, start.offset)
        ) and (end is None or _shared(value.first, offset, end.offset) <= _shared(end.last, end.offset, offset))

    return test


def _shared(count: int, own: timedelta | None, other: timedelta | None) -> int:
    """Microseconds on the clock that both sides of a comparison have: UTC where both know their offset."""
    return count if own is None or other is None else count - own // _MICROSECOND


def _date_time_ends(text: str, asked: timedelta | None) -> tuple[_DateTime | None, _DateTime | None]:
    """The ends of a DT key; the same one twice where it is no range."""
    one = _date_time(text)
    if one is not None:
        one = _with_offset(one, asked)
        return one, one
    for dash in re.finditer("-", text):  # one of an offset, or the one between the ends
        start, end = (part.strip(" ") for part in (text[: dash.start()], text[dash.end() :]))
        ends = [_date_time(part) if part else None for part in (start, end)]
        if (start or end) and all(
            found is not None or not part for found, part in zip(ends, (start, end), strict=True)
        ):
            first, last = (_with_offset(found, asked) if found else None for found in ends)
            if (
                first
                and last
                and _shared(first.first, first.offset, last.offset) > _shared(last.last, last.offset, first.offset)
            ):
                raise backwards()
            return first, last
    raise MomentError("the key is no date and time", "send YYYYMMDDHHMMSS or a range of it")


def _with_offset(moment: _DateTime, asked: timedelta | None) -> _DateTime:
    return moment if moment.offset is not None else _DateTime(moment.first, moment.last, asked)


def _date_time(text: str) -> _DateTime | None:
    """A DT by its meaning; None where it is none. A `-` behind the digits begins an offset only if it is one."""
    form = _DATE_TIME_FORM.fullmatch(text)
    if form is None:
        return None
    *parts, fraction, zone = form.groups()
    offset = offset_of(zone) if zone else None
    if zone and offset is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in parts)
    if year is None:
        return None
    leap = second == 60
    try:
        first = datetime(
            year, month if month is not None else 1, day if day is not None else 1, hour or 0, minute or 0,
            59 if leap else second or 0, 999_999 if leap else int((fraction or "").ljust(6, "0")),
        )  # fmt: skip
    except ValueError:
        return None
    start = (first - datetime.min) // _MICROSECOND
    return _DateTime(start, start + _width(first, parts, fraction, leap) - 1, offset)


def _width(first: datetime, parts: list[str | None], fraction: str | None, leap: bool) -> int:
    """How many microseconds a DT of this precision names."""
    if leap:
        return 1
    if fraction:
        return int(10 ** (6 - len(fraction)))
    given = sum(part is not None for part in parts)
    if given == 1:
        days = 366 if calendar.isleap(first.year) else 365
    elif given == 2:
        days = calendar.monthrange(first.year, first.month)[1]
    else:
        return (24 * 3600, 3600, 60, 1)[given - 3] * 1_000_000
    return days * 24 * 3600 * 1_000_000
