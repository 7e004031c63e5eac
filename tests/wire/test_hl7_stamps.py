"""When a message was made: what MSH-7 says, in which zone, and what counts where it says less than a moment."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.wire.hl7_stamps import made_at

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
ARRIVED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "zone", "made"),
    [
        ("20261123090001.5", BERLIN, "2026-11-23T08:00:01.500000"),
        ("20261123090001.123456789", BERLIN, "2026-11-23T08:00:01.123456"),
        ("20260723090001.5", BERLIN, "2026-07-23T07:00:01.500000"),
        ("20261123030001.5", NEW_YORK, "2026-11-23T08:00:01.500000"),
        ("20261123090001.5+0500", BERLIN, "2026-11-23T04:00:01.500000"),
        ("20261122230001.5-0330", BERLIN, "2026-11-23T02:30:01.500000"),
        ("2026-11-23T09:00:01.5", BERLIN, "2026-11-23T08:00:01.500000"),
        ("2026-11-23 09:00:01.5+01:00", NEW_YORK, "2026-11-23T08:00:01.500000"),
        ("2026-11-23T09:00:01.5Z", NEW_YORK, "2026-11-23T09:00:01.500000"),
        ("  20261123090001.5 ", BERLIN, "2026-11-23T08:00:01.500000"),
    ],
)
def test_a_moment_is_told_in_utc(said: str, zone: ZoneInfo, made: str) -> None:
    assert made_at(said, zone, ARRIVED) == made


@pytest.mark.parametrize(
    ("said", "made"),
    [
        ("20261123090001", "2026-11-23T08:00:01.999999"),
        ("202611230900", "2026-11-23T08:00:59.999999"),
        ("2026112309", "2026-11-23T08:59:59.999999"),
        ("20261122", "2026-11-22T22:59:59.999999"),
        ("20261122235960", "2026-11-22T22:59:59.999999"),
    ],
)
def test_what_is_left_open_counts_as_late_as_it_can_be(said: str, made: str) -> None:
    assert made_at(said, BERLIN, ARRIVED) == made


def test_the_doubled_hour_of_autumn_is_the_later_one() -> None:
    assert made_at("20261025023000.0", BERLIN, ARRIVED) == "2026-10-25T01:30:00.000000"


def test_the_doubled_hour_is_not_later_than_the_arrival() -> None:
    arrived = datetime(2026, 10, 25, 0, 30, 5, tzinfo=UTC)
    assert made_at("20261025023000.0", BERLIN, arrived) == "2026-10-25T00:30:05.000000"


def test_the_hour_that_spring_leaves_out_is_still_a_moment() -> None:
    assert made_at("20260329023000.0", BERLIN, ARRIVED) == "2026-03-29T01:30:00.000000"


@pytest.mark.parametrize(
    "said",
    [
        "", '""', "today", "2026", "202611", "20261323", "20261123250000", "00010101000000+1400", "20270101",
        "20261123130001", "99991231235959-1200", "20261123090000+9999", "JSON{}",
    ],
)  # fmt: skip
def test_what_is_no_moment_or_lies_ahead_counts_as_made_on_arrival(said: str) -> None:
    assert made_at(said, BERLIN, ARRIVED) == "2026-11-23T12:00:00.000000"


def test_stamps_of_one_sender_compare_as_text() -> None:
    said = ["20261122", "202611230859", "20261123090000", "20261123090000.5", "20261123100000+0100"]
    made = [made_at(each, BERLIN, ARRIVED) for each in said]
    assert [len(each) for each in made] == [26] * len(made)
    assert sorted(made) == [made[0], made[1], made[3], made[2], made[4]]
