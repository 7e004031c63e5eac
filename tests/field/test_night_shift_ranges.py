"""Days and hours: one night as one list, a day that is none refused, today by the department's clock."""

from collections.abc import Mapping

import pytest
from consoles import DAY, TIME, Ask, key, of_station
from field_department import CLOCKS, NIGHT

from gateway.testing import ImagingOrder

TIME_ZONES = b"\x01\x01\x00\x01"
"""The extended negotiation of a console that wants times in its own zone."""


def found(ask: Ask, station: str, day: str, hours: str = "") -> set[str]:
    answer = ask(of_station(station, key(DAY, day), key(TIME, hours)))
    assert answer.status == "0000"
    return answer.accessions


def accessions(orders: Mapping[str, ImagingOrder], *names: str) -> set[str]:
    return {orders[name].accession for name in names}


def test_a_night_is_one_interval_and_not_every_night_hour_of_two_days(ask: Ask) -> None:
    assert found(ask, "NIGHT1", "20260710-20260711", "2000-0600") == accessions(NIGHT, "the evening", "past midnight")


@pytest.mark.parametrize(
    ("day", "hours", "names"),
    [
        ("20260710", "0000-0600", ["before dawn"]),
        ("20260710-20260711", "2000-2359", ["the evening", "past midnight", "just after", "the next evening"]),
        ("20260710-", "2000-", ["the evening", "past midnight", "just after", "the next evening"]),
        ("-20260711", "-0600", ["before dawn", "just before", "the evening", "past midnight"]),
    ],
)
def test_days_and_hours_of_the_same_form_are_one_interval(ask: Ask, day: str, hours: str, names: list[str]) -> None:
    assert found(ask, "NIGHT1", day, hours) == accessions(NIGHT, *names)


@pytest.mark.parametrize("day", ["20260710,", "20260710,20260711", ",20260710", "20260710;"])
def test_a_day_with_a_comma_is_refused_and_not_left_out(ask: Ask, day: str) -> None:
    answer = ask(of_station("NIGHT1", key(DAY, day.ljust(len(day) + len(day) % 2))))
    assert (answer.status, answer.offending, answer.items) == ("A900", (DAY,), ())


@pytest.mark.parametrize(
    ("day", "names"),
    [
        ("20261024", ["the last of the day before"]),
        ("20261025", ["the first of the long day", "in the hour that comes twice", "the last of the long day"]),
        ("20260329", ["the first of the short day", "the last of the short day"]),
    ],
)
def test_a_day_is_the_departments_day_to_its_last_minute_also_when_the_clocks_change(
    ask: Ask, day: str, names: list[str]
) -> None:
    for asked in (day, f"{day}-{day}"):
        assert found(ask, "CLOCKS", asked) == accessions(CLOCKS, *names)


def test_a_stored_start_comes_back_as_it_was_scheduled(ask: Ask) -> None:
    answer = ask(of_station("CLOCKS", key(DAY), key(TIME)))
    starts = {
        str(each.AccessionNumber): each.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate
        + each.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime[:4]
        for each in answer.items
    }
    assert starts == {order.accession: f"{order.start:%Y%m%d%H%M}" for order in CLOCKS.values()}


def test_a_console_of_another_zone_finds_the_instant_that_it_means(ask: Ask) -> None:
    # Ten minutes past midnight in Berlin's summer is 22:10 of the day before in UTC.
    offset = key(0x00080201, "+0000 ")
    hours = (key(DAY, "20261024"), key(TIME, "2200-2220 "))
    answer = ask(offset + of_station("CLOCKS", *hours), negotiate=TIME_ZONES)
    assert answer.accessions == accessions(CLOCKS, "the first of the long day")
