"""Dates, times and offsets from UTC: spans, DT keys, and moving a start to another clock."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.moments import (
    MomentError,
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

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "form", "lowest", "highest"),
    [
        ("10", "one", "100000000000", "109999999999"),
        ("1030-", "from", "103000000000", "\uffff"),
        ("-18", "to", "", "189999999999"),
        ("0900 - 1830", "from-to", "090000000000", "183099999999"),
    ],
)
def test_a_time_of_less_precision_is_the_interval_it_names(text: str, form: str, lowest: str, highest: str) -> None:
    span = time_span(text)
    assert (span.form, span.lowest, span.highest) == (form, lowest, highest)


@pytest.mark.parametrize("text", ["", "-", "20261301", "20260229", "2026-07-05", "٢٠٢٦٠٧٠٥", "20260705-x"])
def test_what_is_no_date_is_no_key(text: str) -> None:
    with pytest.raises(MomentError):
        date_span(text)


@pytest.mark.parametrize(("read", "text"), [(date_test, "20260706-20260705"), (time_test, "1800-0600")])
def test_a_range_that_ends_before_it_starts_is_no_key(read, text: str) -> None:
    with pytest.raises(MomentError, match="ends before it starts"):
        read(text)


@given(st.dates(), st.dates(), st.dates())
def test_a_range_of_dates_includes_both_ends(first, last, held) -> None:
    first, last = sorted((first, last))
    texts = [f"{day.year:04}{day.month:02}{day.day:02}" for day in (first, last, held)]
    assert date_test(f"{texts[0]}-{texts[1]}")(texts[2]) is (first <= held <= last)
    assert date_test(f"-{texts[1]}")(texts[2]) is (held <= last)
    assert date_test(f"{texts[0]}-")(texts[2]) is (first <= held)


@pytest.mark.parametrize("value", [None, 20260705, "", "noon", "9:5", "202607055", ["20260705"], {}])
def test_a_held_value_that_is_no_moment_is_none(value: object) -> None:
    assert held_date(value) == ""
    assert held_time(value) == ""
    assert not date_time_test("1999-")(value)


@pytest.mark.parametrize(
    ("asked", "held", "expected"),
    [
        ("20260705", "20260705101500", True),
        ("20260705", "20260706", False),
        ("20260705-20260706", "20260706235959.999999", True),
        ("20260705-20260706", "20260707", False),
        ("20260705-", "20260704", False),
        ("-2026", "20261231", True),
        ("-2026", "20270101", False),
        ("202602", "20260228235959", True),
        ("202602", "20260301", False),
        ("2026-2027", "20270101", True),
        ("2026070510", "20260705105959.9", True),
        ("20260705100000.5", "20260705100000.59", True),
        ("20260705100000.5", "20260705100000.6", False),
        ("20261231235960", "20261231235960", True),
        ("20260705100000+0000", "20260705120000+0200", True),
        ("20260705100000+0000", "20260705100000+0200", False),
        ("20260705100000", "20260705100000+0200", True),
        ("20260705100000-0500-20260705120000-0500", "20260705160000+0000", True),
        ("20260705100000-0500-20260705120000-0500", "20260705110000+0000", False),
        ("20260705100000-0500-", "20260705160000+0000", True),
        ("-20260705100000-0500", "20260705160000+0000", False),
    ],
)
def test_date_times(asked: str, held: str, expected: bool) -> None:
    assert date_time_test(asked)(held) is expected


@pytest.mark.parametrize("text", ["noon", "20261301", "-", "2027-2026", "20260705100000+1500", "2026-2027-2028"])
def test_what_is_no_date_and_time_is_no_key(text: str) -> None:
    with pytest.raises(MomentError):
        date_time_test(text)


def test_a_date_time_without_offset_is_on_the_clock_of_its_side() -> None:
    test = date_time_test("20260705100000", timedelta(), BERLIN)
    assert test("20260705120000")
    assert test("20260705100000+0000")
    assert not test("20260705100000")


@pytest.mark.parametrize(
    ("said", "hours"), [("+0000", 0), ("+1400", 14), ("-1200", -12), ("+0530", 5.5), ("-0330", -3.5)]
)
def test_an_offset_is_signed_hours_and_minutes(said: str, hours: float) -> None:
    assert offset_of(said) == timedelta(hours=hours)


@pytest.mark.parametrize("said", ["-0000", "+1401", "-1201", "+0560", "0530", "+530", "+05:30", "", "UTC"])
def test_what_is_no_offset_is_none(said: str) -> None:
    assert offset_of(said) is None


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.integers(-48, 56), st.integers(-48, 56))
def test_a_start_is_moved_as_the_calendar_says(wall: datetime, here: int, there: int) -> None:
    own, asked = timedelta(minutes=15 * here), timedelta(minutes=15 * there)
    expected = wall.replace(tzinfo=timezone(own)).astimezone(timezone(asked))
    assert moved(f"{wall:%Y%m%d}", f"{wall:%H%M%S%f}", own, asked) == (f"{expected:%Y%m%d}", f"{expected:%H%M%S%f}")


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        ("20260329", "013000000000", ("20260329", "003000000000")),
        ("20260329", "023000000000", ("20260329", "013000000000")),  # left out: the offset before it
        ("20260329", "033000000000", ("20260329", "013000000000")),
        ("20261025", "023000000000", ("20261025", "003000000000")),  # comes twice: the first
        ("20261025", "033000000000", ("20261025", "023000000000")),
        ("20260705", "003000000000", ("20260704", "223000000000")),
    ],
)
def test_summer_time_begins_and_ends(day: str, time: str, expected: tuple[str, str]) -> None:
    assert moved(day, time, BERLIN, timedelta()) == expected


@pytest.mark.parametrize("start", [("20269999", "093000000000"), ("00010101", "000000000000"), ("20260705", "99")])
def test_a_start_that_cannot_be_moved_stays(start: tuple[str, str]) -> None:
    assert moved(*start, timedelta(hours=14), timedelta(hours=-12)) == start


def test_days_end_with_the_calendar() -> None:
    assert other_day("20260228", 1, "000000") == "20260301000000"
    assert other_day("99991231", 1, "000000") == ""
    assert other_day("00010101", -1, "999999") == ""
