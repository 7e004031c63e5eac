"""How far another FHIR server was read: looks that break off, and notifications that are lost, late or repeated."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.wire.fhir_notifications import Notification, Occasion
from gateway.workflow.fhir_marks import LATE_MAX, PENDING_MAX, Mark, Reading, going_back, instant

AT_8, AT_9, AT_10 = "2026-07-06T08:00:00Z", "2026-07-06T09:00:00Z", "2026-07-06T10:00:00Z"


def event(number: int, first: int | None = None, **said: str) -> Notification:
    numbers = tuple(range(number if first is None else first, number + 1))
    return Notification(Occasion.EVENT, "active", events=number, first=numbers[0], numbers=numbers, **said)


def beat(events: int) -> Notification:
    return Notification(Occasion.HEARTBEAT, "active", events=events)


def test_a_mark_is_written_and_read_back_whole() -> None:
    mark = Mark(
        {"Task": Reading(AT_8, "https://e.example/p2", AT_9, AT_10)}, {"Task/1": 2}, "s1", "abc", "active", 7, (3, 5),
        2, AT_9,
    )  # fmt: skip
    assert Mark.of(mark.text) == mark
    assert Mark.of("") == Mark()
    assert Mark.of(Mark().text) == Mark()


def test_a_look_that_broke_off_goes_on_with_its_next_page_and_moves_the_mark_at_its_end() -> None:
    first = Reading(AT_8).read(AT_9, "page2", AT_10)
    assert first == Reading(AT_8, "page2", AT_9, AT_10)
    assert first.read("", "page3", "2026-07-06T11:00:00Z").began == AT_10
    assert first.read("2026-07-06T08:30:00Z", "", "") == Reading(AT_9)
    assert first.restarted() == Reading(AT_8)


def test_the_next_look_begins_no_later_than_this_one_did() -> None:
    """While pages are turned something changes that stands on none of them; or a resource claims to be of 2099."""
    assert Reading(AT_8).read("2099-01-01T00:00:00Z", "", AT_9) == Reading(AT_9)


def test_the_mark_never_goes_back_and_stays_where_nothing_was_found() -> None:
    assert Reading(AT_9).read(AT_8, "", AT_10) == Reading(AT_9)
    assert Reading(AT_9).read("", "", AT_10) == Reading(AT_9)


@pytest.mark.parametrize(
    ("since", "begins"),
    [("", ""), ("2026-07-06T10:00:00+02:00", "2026-07-06T09:58:00.000+02:00"), ("0001-01-01T00:00:00Z", "")],
)
def test_a_look_goes_back_behind_the_mark(since: str, begins: str) -> None:
    assert going_back(since, 120) == begins


def test_an_instant_without_an_offset_is_none() -> None:
    with pytest.raises(ValueError, match="offset"):
        instant("2026-07-06T10:00:00")


def test_what_is_told_again_while_it_is_fetched_is_fetched_again() -> None:
    mark = Mark().told(["Task/1", "Task/2"])
    being_fetched = mark.pending
    mark = mark.told(["Task/1"]).fetched(being_fetched)
    assert list(mark.pending) == ["Task/1"]
    assert mark.fetched(mark.pending).pending == {}


def test_more_than_can_wait_is_searched_for() -> None:
    mark = Mark().told(f"Task/{number}" for number in range(PENDING_MAX))
    assert not mark.whole
    assert mark.told(["Task/0"]).whole == 0
    over = mark.told(["Task/x"])
    assert (len(over.pending), over.whole) == (PENDING_MAX, 1)


def test_events_in_order_miss_nothing() -> None:
    mark = Mark().heard(event(1)).heard(event(2)).heard(event(5, first=3))
    assert (mark.events, mark.missed, mark.whole, mark.status) == (5, None, 0, "active")


def test_a_gap_is_noted_and_grows() -> None:
    mark = Mark(events=5).heard(event(7))
    assert (mark.events, mark.missed) == (7, (6, 6))
    assert mark.heard(event(10)).missed == (6, 9)


def test_a_heartbeat_tells_of_lost_events() -> None:
    assert Mark(events=5).heard(beat(5)).missed is None
    assert Mark(events=5).heard(beat(6)).missed == (6, 6)


def test_repeated_and_late_events_change_nothing() -> None:
    mark = Mark(events=30)
    assert mark.heard(event(30)) == replace(mark, status="active")
    assert mark.heard(event(30 - LATE_MAX)) == replace(mark, status="active")


@pytest.mark.parametrize("said", [beat(2), event(2)])
def test_a_server_that_counts_anew_is_searched(said: Notification) -> None:
    mark = Mark(events=50, missed=(48, 49)).heard(said)
    assert (mark.events, mark.missed, mark.whole) == (2, None, 1)


def test_a_handshake_begins_to_count() -> None:
    assert Mark(events=50).heard(Notification(Occasion.HANDSHAKE, "requested", events=0)).events == 0


def test_a_server_that_does_not_count_says_only_its_status() -> None:
    assert Mark(events=3).heard(Notification(Occasion.EVENT, "active")) == Mark(events=3, status="active")


def test_another_subscription_does_not_count_here() -> None:
    mark = Mark(subscription="ours", events=5)
    assert mark.heard(event(90, subscription="Subscription/theirs")) == mark
    assert mark.heard(event(6, subscription="https://e.example/fhir/Subscription/ours")).events == 6


def test_a_search_that_became_due_while_searching_stays_due() -> None:
    at = datetime(2026, 7, 6, 9, tzinfo=UTC)
    mark = Mark(whole=1)
    searched = replace(mark, whole=2).searched(1, at)
    assert (searched.whole, searched.is_behind, searched.looked) == (1, True, "2026-07-06T09:00:00+00:00")
    assert not searched.searched(1, at).is_behind


def test_searches_that_nobody_asks_for_any_more_are_forgotten() -> None:
    mark = Mark().read("Task", Reading(AT_8)).read("Patient", Reading(AT_9))
    assert mark.only(["Task"]).readings == {"Task": Reading(AT_8)}
    assert mark.reading("Encounter") == Reading()


def test_a_handshake_that_is_ahead_tells_of_a_gap_and_one_behind_of_a_new_count() -> None:
    handshake = Notification(Occasion.HANDSHAKE, "active", events=7)
    ahead = Mark(events=4).heard(handshake)
    assert (ahead.events, ahead.missed, ahead.whole) == (7, (5, 7), 0)
    assert Mark(events=7).heard(handshake) == Mark(events=7, status="active")
    behind = Mark(events=9, missed=(8, 8)).heard(handshake)
    assert (behind.events, behind.missed, behind.whole) == (7, None, 1)


def test_numbers_between_those_of_one_notification_went_by() -> None:
    said = Notification(Occasion.EVENT, "active", events=6, first=2, numbers=(2, 4, 6))
    assert Mark(events=1).heard(said).missed == (3, 5)
    assert Mark(events=0).heard(said).missed == (1, 5)


def test_events_that_happened_and_are_not_told_yet_are_missed_where_they_stay_away() -> None:
    """A server that counts when it sends: of ten events it tells the third."""
    early = Notification(Occasion.EVENT, "active", events=10, first=3, numbers=(3,))
    mark = Mark(events=2).heard(early)
    assert (mark.events, mark.missed) == (3, None)
    assert mark.heard(beat(10)).missed == (4, 10)
