"""Notifications of other servers: of R5, of the backport to R4B and R4, and what is none."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refused
from gateway.wire.fhir_notifications import FOCUSES_MAX, Notification, Occasion, is_notification, read
from gateway.wire.fhir_release import Release

BASE = "https://emr.example/fhir"


def status(release: Release, occasion: str, number: int | None = None, focus: str = "", events: int = 7) -> Any:
    """The status of a subscription, in the form of this release."""
    if release is Release.R4:
        parameters: list[Any] = [
            {"name": "subscription", "valueReference": {"reference": f"{BASE}/Subscription/s1"}},
            {"name": "status", "valueCode": "active"},
            {"name": "type", "valueCode": occasion},
            {"name": "events-since-subscription-start", "valueString": str(events)},
        ]
        if number is not None:
            parameters.append({"name": "notification-event", "part": [
                {"name": "event-number", "valueString": str(number)},
                {"name": "focus", "valueReference": {"reference": focus}},
            ]})  # fmt: skip
        return {"resourceType": "Parameters", "parameter": parameters}
    told: dict[str, Any] = {
        "resourceType": "SubscriptionStatus", "status": "active", "type": occasion,
        "subscription": {"reference": f"{BASE}/Subscription/s1"},
        "eventsSinceSubscriptionStart": str(events),
    }  # fmt: skip
    if number is not None:
        told["notificationEvent"] = [{"eventNumber": str(number), "focus": {"reference": focus}}]
    return told


def notification(release: Release, said: Any, *entries: Any) -> dict[str, Any]:
    kind = "subscription-notification" if release is Release.R5 else "history"
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": said}, *entries]}


@pytest.mark.parametrize("release", Release)
def test_an_event_names_what_changed_and_its_number(release: Release) -> None:
    said = status(release, "event-notification", 7, f"{BASE}/ServiceRequest/o1")
    entry = {"fullUrl": f"{BASE}/Task/t1", "request": {"method": "PUT", "url": "Task/t1"}}
    assert read(notification(release, said, entry), release) == Notification(
        Occasion.EVENT, "active", f"{BASE}/Subscription/s1", 7, 7, ("ServiceRequest/o1", "Task/t1"), (), (7,)
    )


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize("occasion", ["handshake", "heartbeat"])
def test_signs_of_life_name_nothing(release: Release, occasion: str) -> None:
    told = read(notification(release, status(release, occasion, events=3)), release)
    assert (told.occasion.value, told.events, told.first, told.focuses) == (occasion, 3, None, ())


@pytest.mark.parametrize("release", Release)
def test_what_was_deleted_is_told_apart(release: Release) -> None:
    said = status(release, "event-notification", 7, f"{BASE}/Task/t1")
    entry = {"fullUrl": f"{BASE}/Task/t1", "request": {"method": "DELETE", "url": "Task/t1"}}
    told = read(notification(release, said, entry), release)
    assert (told.focuses, told.deleted) == ((), ("Task/t1",))


def test_a_whole_resource_without_an_address_is_named_by_its_own_id() -> None:
    said = status(Release.R5, "event-notification", 7, "")
    told = read(notification(Release.R5, said, {"resource": {"resourceType": "Task", "id": "t9"}}), Release.R5)
    assert told.focuses == ("Task/t9",)


def test_where_an_event_stands_in_the_count() -> None:
    """Of a notification of events 6 and 7 after the fifth; of a heartbeat nothing is told, so the next is meant."""
    said = status(Release.R5, "event-notification", 7, "Task/t1")
    said["notificationEvent"].append({"eventNumber": "6", "focus": {"reference": "Task/t2"}})
    told = read(notification(Release.R5, said), Release.R5)
    assert (told.begins, told.last, told.numbers) == (6, 7, (7, 6))
    beat = read(notification(Release.R5, status(Release.R5, "heartbeat", events=7)), Release.R5)
    assert (beat.begins, beat.last) == (8, 7)


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Bundle", "type": "history", "entry": []},
        {"resourceType": "Bundle", "type": "history"},
        {"resourceType": "Bundle", "type": "history", "entry": ["x"]},
        {"resourceType": "Bundle", "type": "history", "entry": [{"resource": {"resourceType": "Patient"}}]},
        {"resourceType": "Bundle", "type": "history", "entry": [{"resource": {"resourceType": "Parameters"}}]},
        {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": status(Release.R4, "heartbeat")}]},
        {"resourceType": "Patient", "id": "p1"},
    ],
)
def test_what_is_no_notification_is_refused(body: Any) -> None:
    assert not is_notification(body, Release.R4)
    with pytest.raises(Refused):
        read(body, Release.R4)


def test_an_unknown_type_of_notification_is_refused_at_its_place() -> None:
    with pytest.raises(Refused) as refused:
        read(notification(Release.R4, status(Release.R4, "surprise")), Release.R4)
    assert refused.value.refusals[0].where == "Bundle.entry[0].resource.type"


def test_one_notification_does_not_name_the_whole_server() -> None:
    entries = [{"fullUrl": f"{BASE}/Task/{number}"} for number in range(FOCUSES_MAX + 1)]
    with pytest.raises(Refused):
        read(notification(Release.R5, status(Release.R5, "event-notification"), *entries), Release.R5)


def test_numbers_and_references_that_are_none_are_passed_over() -> None:
    said = status(Release.R5, "event-notification", 7, "no/reference/at all")
    said["eventsSinceSubscriptionStart"] = "many"
    said["notificationEvent"] += ["x", {"eventNumber": "9" * 30}]
    told = read(notification(Release.R5, said), Release.R5)
    assert (told.focuses, told.events, told.numbers) == ((), None, (7,))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["²", "heartbeat", "DELETE"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reference", "name", "part"]), inner),
    max_leaves=6,
)
_STATUS = st.fixed_dictionaries(
    {"resourceType": st.just("SubscriptionStatus"), "type": st.sampled_from(list(map(str, Occasion))) | _JSON},
    optional=dict.fromkeys(("status", "subscription", "eventsSinceSubscriptionStart"), _JSON)
    | {"notificationEvent": _JSON | st.lists(st.fixed_dictionaries(
        {"eventNumber": _JSON}, optional={"focus": _JSON, "additionalContext": _JSON}), max_size=3)},
)  # fmt: skip
_PARAMETERS = st.fixed_dictionaries({
    "resourceType": st.just("Parameters"),
    "parameter": st.lists(st.fixed_dictionaries({
        "name": st.sampled_from(["subscription", "type", "status", "notification-event", "event-number"]),
        "valueString": _JSON, "part": _JSON,
    }), max_size=6),
})  # fmt: skip


@given(st.sampled_from(Release), _STATUS | _PARAMETERS, st.lists(_JSON, max_size=2))
def test_whatever_somebody_writes_is_read_or_refused(release: Release, said: Any, entries: list[Any]) -> None:
    """Nobody checks a notification against the models before it is read."""
    with suppress(Refused):  # anything else is a defect
        assert isinstance(read(notification(release, said, *entries), release).occasion, Occasion)
