"""Orders of another FHIR server: asked for again and again, or told of, from servers that lie, are slow, or away."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fhir_emr import GONE, PATIENT, SEARCH, Followed, at, followed, order
from fhir_receiver import Answer, Asked, looped

from gateway import fhir_fetching, fhir_following
from gateway.edges.database import StoreError
from gateway.wire.fhir_release import Release
from tests.wire.test_fhir_notifications import notification, status

TOLD: dict[str, Any] = {"subscription": {"criteria": SEARCH, "secret": "s3cret"}}
BY_TOPIC: dict[str, Any] = {"subscription": {"criteria": SEARCH, "secret": "s3cret", "topic": "https://emr.example/t"}}


def failing(code: int, when: str = "") -> Any:
    return lambda asked: (code, GONE) if when in asked.path else None


async def begun(world: Followed) -> None:
    await world.follower.begin()
    await world.follower.idle()


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", Release)
@looped
async def test_an_order_is_found_with_its_patient_and_is_on_the_list(tmp_path: Path, release: Release) -> None:
    async with followed(tmp_path, release) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1, release), at(5))
        assert await world.follower.look()
        assert world.orders == ["P1"]
        (message,) = world.messages()
        assert (message.record.listener, message.record.message_type) == ("emr", "GET ServiceRequest")
        assert message.record.made_at.startswith("2026-07-06T08:05:00")  # by the clock of that server
        assert (world.follower.state.taken, world.follower.state.refused) == (2, 0)


@looped
async def test_what_a_look_finds_twice_is_taken_once(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        for _ in range(3):
            assert await world.follower.look()
        assert len(world.messages()) == 1
        asked = world.emr.reads("ServiceRequest?")
        assert "_lastUpdated=" not in asked[0]
        assert "_lastUpdated=ge2026-07-06T08:03:00.000%2B00:00" in asked[1]  # two minutes behind the newest
        assert asked[1] == asked[2]
        assert len(world.emr.reads("Patient/")) == 1


@looped
async def test_a_change_and_a_revocation_follow(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        await world.follower.look()
        world.emr.put(order(1, status="revoked"), at(6))
        await world.follower.look()
        assert world.orders == []


@pytest.mark.parametrize("sorts", [True, False])
@looped
async def test_a_look_that_broke_off_goes_on_where_it_was_after_a_restart(tmp_path: Path, sorts: bool) -> None:
    async with followed(tmp_path) as world:
        world.emr.page, world.emr.sorts = 1, sorts
        world.emr.put({**PATIENT, "id": "p1"})
        for number in range(1, 5):
            world.emr.put(order(number), at(number * 10))
        world.emr.trouble = failing(503, "_start=2")
        assert not await world.follower.look()
        assert len(world.orders) == 2
        assert world.mark.reading(SEARCH).since == ""
        world.emr.trouble = failing(0, "never")
        await world.restart()
        world.emr.asked.clear()
        assert await world.follower.look()
        assert world.orders == ["P1", "P2", "P3", "P4"]
        assert ["_start=" in each for each in world.emr.reads("ServiceRequest?")] == [True, True]
        assert world.mark.reading(SEARCH).since == at(40)


@looped
async def test_pages_that_the_server_has_forgotten_are_read_anew(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.page = 1
        world.emr.put({**PATIENT, "id": "p1"})
        for number in range(1, 4):
            world.emr.put(order(number), at(number))
        world.emr.trouble = failing(503, "_start=1")
        assert not await world.follower.look()
        forgotten = iter([(410, GONE)])
        world.emr.trouble = lambda asked: next(forgotten, None) if "_start=1" in asked.path else None
        assert await world.follower.look()
        assert world.orders == ["P1", "P2", "P3"]


@looped
async def test_a_bulk_load_at_one_instant_is_read_to_its_end_in_several_looks(tmp_path: Path) -> None:
    async with followed(tmp_path, poll={"search": [SEARCH], "page": 2, "pages_max": 2}) as world:
        world.emr.page = 2
        world.emr.put({**PATIENT, "id": "p1"})
        for number in range(1, 10):
            world.emr.put(order(number), at(5))
        looks = 0
        while len(world.orders) < 9 and looks < 5:
            assert await world.follower.look()
            looks += 1
        assert len(world.orders) == 9
        assert looks == 3
        assert world.mark.looked


@looped
async def test_pages_in_a_circle_end_and_what_is_on_them_is_taken(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))

        def circle(asked: Asked) -> Answer | None:
            if "ServiceRequest?" not in asked.path:
                return None
            link = [{"relation": "next", "url": f"{world.emr.url}/ServiceRequest?around"}]
            entry = [{"resource": world.emr.held["ServiceRequest/o1"]}]
            return 200, {"resourceType": "Bundle", "type": "searchset", "entry": entry, "link": link}

        world.emr.trouble = circle
        assert not await world.follower.look()
        assert world.orders == ["P1"]
        assert (world.mark.reading(SEARCH).since, world.mark.reading(SEARCH).next) == ("", "")
        world.emr.trouble = failing(0, "never")
        assert await world.follower.look()


@looped
async def test_a_next_page_on_another_server_is_not_asked_for(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        page = {
            "resourceType": "Bundle", "type": "searchset", "entry": [{"resource": world.emr.held["ServiceRequest/o1"]}],
            "link": [{"relation": "next", "url": "http://elsewhere.example/fhir/ServiceRequest"}],
        }  # fmt: skip
        world.emr.trouble = lambda asked: (200, page) if "ServiceRequest?" in asked.path else None
        assert not await world.follower.look()
        assert world.orders == ["P1"]


@looped
async def test_one_bad_resource_keeps_no_good_one_back_and_is_refused_once(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put({**PATIENT, "id": "p2", "identifier": []})  # nobody that could be told apart
        world.emr.put(order(1), at(5))
        world.emr.put(order(2, gender="not of a request"), at(6))
        world.emr.put(order(3, patient="Patient/p2"), at(7))
        for _ in range(3):
            assert await world.follower.look()
        assert world.orders == ["P1"]
        dispositions = [each.record.disposition for each in world.messages()]
        assert dispositions.count("refused") == world.follower.state.refused
        assert 1 <= dispositions.count("refused") <= 3
        world.emr.put(order(2), at(8))  # it is mended there
        assert await world.follower.look()
        assert world.orders == ["P1", "P2"]


@looped
async def test_a_server_that_is_away_for_days_is_caught_up_with(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        await world.follower.look()
        world.emr.trouble = failing(503)
        for _ in range(5):
            assert not await world.follower.look()
        assert world.follower.state.looks_failed == 5
        world.emr.put(order(2), at(9))
        world.emr.trouble = failing(0, "never")
        assert await world.follower.look()
        assert world.orders == ["P1", "P2"]


@looped
async def test_a_server_that_is_slower_than_it_may_be_fails_the_look_alone(tmp_path: Path) -> None:
    async with followed(tmp_path, poll={"search": [SEARCH]}, timeout_s=0.2) as world:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(asked: Asked) -> Answer | None:
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result()
            return None

        world.emr.trouble = slow
        assert not await world.follower.look()
        over.set()
        assert world.orders == []


@looped
async def test_a_resource_of_2099_does_not_hide_what_comes_after_it(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), "2099-01-01T00:00:00Z")
        await world.follower.look()
        assert world.mark.reading(SEARCH).since < "2099"


@looped
async def test_a_reference_to_what_is_not_there_waits_and_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path) as world:
        world.emr.put(order(1), at(5))
        assert await world.follower.look()
        assert world.orders == []
        assert world.held("ServiceRequest/o1")
        world.emr.put({**PATIENT, "id": "p1"}, at(9))
        await world.follower.look()
        assert world.orders == []  # not asked for at each look
        monkeypatch.setattr(fhir_fetching, "ABSENT_S", 0.0)
        await world.follower.look()
        assert world.orders == ["P1"]


@looped
async def test_references_are_followed_three_deep_and_not_to_other_servers(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put({
            "resourceType": "PractitionerRole", "id": "r1", "practitioner": {"reference": "Practitioner/d1"},
            "organization": {"reference": "https://elsewhere.example/fhir/Organization/x"},
        })  # fmt: skip
        world.emr.put({"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Asker"}]})
        world.emr.put(order(1, requester={"reference": f"{world.emr.url}/PractitionerRole/r1"}), at(5))
        assert await world.follower.look()
        assert all(map(world.held, ("PractitionerRole/r1", "Practitioner/d1", "Patient/p1")))
        assert not world.emr.reads("Organization")


# --- being told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", Release)
@looped
async def test_a_notification_fetches_what_it_names(tmp_path: Path, release: Release) -> None:
    async with followed(tmp_path, release, **BY_TOPIC) as world:
        await begun(world)
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1, release), at(5))
        said = status(release, "event-notification", 1, f"{world.emr.url}/ServiceRequest/o1", events=1)
        said = _of_ours(said)
        heard = await world.follower.notified(notification(release, said))
        await world.follower.idle()
        assert heard.status == 200
        assert world.orders == ["P1"]
        assert (world.mark.events, world.mark.pending) == (1, {})
        await world.follower.notified(notification(release, said))  # repeated
        await world.follower.idle()
        assert len(world.messages()) == 1


def _of_ours(said: Any) -> Any:
    """The status with the id that our subscription got."""
    if said["resourceType"] == "Parameters":
        said["parameter"][0]["valueReference"]["reference"] = "Subscription/s1"
    else:
        said["subscription"]["reference"] = "Subscription/s1"
    return said


@looped
async def test_the_resource_itself_or_nothing_at_all_may_come_by_a_hook_of_r4(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        world.emr.put(order(2), at(6))
        forged = order(1, status="revoked")
        assert (await world.follower.notified(forged, "ServiceRequest/o1")).status == 200
        await world.follower.idle()
        assert world.orders == ["P1"]  # as it is there, not as somebody says
        assert (await world.follower.notified(forged, "ServiceRequest/o7")).status == 400
        assert (await world.follower.notified(None)).status == 200
        await world.follower.idle()
        assert world.orders == ["P1", "P2"]
        assert not world.mark.is_behind


@looped
async def test_a_gap_is_asked_for_by_events_and_else_searched(tmp_path: Path) -> None:
    async with followed(tmp_path, Release.R5, **BY_TOPIC) as world:
        await begun(world)
        world.emr.put({**PATIENT, "id": "p1"})
        for number in (1, 2, 3):
            world.emr.put(order(number, Release.R5), at(number))
        events = status(Release.R5, "query-event", 1, "ServiceRequest/o1", events=2)
        world.emr.trouble = lambda asked: (200, notification(Release.R5, events)) if "$events" in asked.path else None
        world.emr.asked.clear()
        told = _of_ours(status(Release.R5, "event-notification", 2, "ServiceRequest/o2", events=2))
        await world.follower.notified(notification(Release.R5, told))
        await world.follower.idle()
        assert world.orders == ["P1", "P2"]
        assert world.emr.reads("Subscription/s1/$events") == [
            "Subscription/s1/$events?eventsSinceNumber=1&eventsUntilNumber=1"
        ]
        assert not world.emr.reads("ServiceRequest?")
        world.emr.trouble = failing(404, "$events")
        beat = _of_ours(status(Release.R5, "heartbeat", events=3))
        await world.follower.notified(notification(Release.R5, beat))
        await world.follower.idle()
        assert world.orders == ["P1", "P2", "P3"]


@looped
async def test_what_is_deleted_there_is_deleted_here_if_the_server_says_so_itself(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        await begun(world)
        assert world.orders == ["P1"]
        of_a_proxy = {"error": "maintenance"}
        for answer in ((404, of_a_proxy), (403, GONE), (200, of_a_proxy)):
            world.emr.trouble = lambda asked, answer=answer: answer if "/o1" in asked.path else None
            await world.follower.notified(order(1), "ServiceRequest/o1")
            await world.follower.idle()
            assert world.orders == ["P1"]
            assert list(world.mark.pending) == ["ServiceRequest/o1"]
        world.emr.trouble = failing(410, "/o1")
        world.follower.watch()
        await world.follower.idle()
        assert world.orders == []
        assert not world.held("ServiceRequest/o1")
        assert not world.mark.pending


@looped
async def test_what_is_never_given_is_dropped_for_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_following, "TRIES_MAX", 3)
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.trouble = failing(403, "/o1")
        await world.follower.notified(order(1), "ServiceRequest/o1")
        await world.follower.idle()
        world.emr.asked.clear()
        for _ in range(2):
            world.follower.watch()
            await world.follower.idle()
        assert not world.mark.is_behind
        assert world.emr.reads("ServiceRequest?")


@looped
async def test_what_was_told_survives_a_restart(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.trouble = failing(503)
        await world.follower.notified(order(1), "ServiceRequest/o1")
        await world.follower.idle()
        await world.restart()
        world.emr.trouble = failing(0, "never")
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), "1990-01-01T00:00:00Z")  # no search with a mark would find it
        await begun(world)
        assert world.orders == ["P1"]


# --- the subscription -----------------------------------------------------------------------------------------------


@looped
async def test_it_is_made_once_and_outlives_a_restart_with_the_same_secret(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        (made,) = world.emr.subscriptions.values()
        assert made["channel"]["endpoint"] == "https://gateway.example/fhir/notifications/emr"
        (post,) = [each for each in world.emr.asked if each.method == "POST"]
        assert post.headers["if-none-exist"].startswith("url=https%3A%2F%2Fgateway.example")
        await world.restart()
        await begun(world)
        assert len(world.emr.subscriptions) == 1
        assert not [each for each in world.emr.asked if each.method == "PUT"]
        assert world.follower.knows("Bearer s3cret")
        assert not world.follower.knows("Bearer other")
        assert not world.follower.knows("")


@looped
async def test_another_secret_or_an_error_there_is_a_reason_to_ask_for_it_again(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        await world.restart(subscription={"criteria": SEARCH, "secret": "n3w"})
        await begun(world)
        assert world.emr.subscriptions["s1"]["channel"]["header"] == ["Authorization: Bearer n3w"]
        world.emr.subscriptions["s1"]["status"] = "error"
        world.emr.asked.clear()
        await world.restart()
        await begun(world)
        assert [each.method for each in world.emr.asked if "Subscription" in each.path] == ["GET", "PUT"]
        assert world.emr.reads("ServiceRequest?")  # something went by meanwhile


@looped
async def test_one_that_is_gone_there_is_made_anew(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.subscriptions = {"other": {}}
        await world.restart()
        await begun(world)
        assert world.mark.subscription == "s2"


@looped
async def test_a_silence_longer_than_heartbeats_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(tmp_path, Release.R5, **BY_TOPIC) as world:
        await begun(world)
        world.emr.asked.clear()
        world.follower.watch()
        await world.follower.idle()
        assert world.emr.asked == []
        monkeypatch.setattr("gateway.fhir_subscribed.SILENT_FACTOR", 0)
        world.follower.watch()
        await world.follower.idle()
        assert world.emr.reads("Subscription/s1")
        assert world.emr.reads("ServiceRequest?")


@looped
async def test_a_subscription_that_is_refused_keeps_no_poll_back(tmp_path: Path) -> None:
    async with followed(tmp_path, poll={"search": [SEARCH]}, **TOLD) as world:
        world.emr.trouble = failing(403, "Subscription")
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        await begun(world)
        assert world.orders == ["P1"]


@looped
async def test_a_topic_without_a_search_is_searched_for_orders_all_the_same(tmp_path: Path) -> None:
    """What went by while nobody listened is found nowhere else."""
    said = {"subscription": {"criteria": "", "secret": "s3cret", "topic": "https://emr.example/t"}}
    async with followed(tmp_path, Release.R5, **said) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1, Release.R5), at(5))
        await begun(world)
        assert world.orders == ["P1"]


@looped
async def test_a_subscription_that_the_server_does_not_change_is_made_anew(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        await world.restart(subscription={"criteria": SEARCH, "secret": "n3w"})
        world.emr.trouble = lambda asked: (405, GONE) if asked.method == "PUT" else None
        await begun(world)
        assert world.mark.subscription == "s2"
        assert world.emr.subscriptions["s2"]["channel"]["header"] == ["Authorization: Bearer n3w"]


@looped
async def test_a_subscription_without_an_id_is_none(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        world.emr.trouble = lambda asked: (201, None) if asked.method == "POST" else None
        await begun(world)
        assert (world.mark.subscription, world.mark.status) == ("", "")
        world.emr.trouble = lambda asked: None
        world.follower.watch()
        await world.follower.idle()
        assert world.mark.subscription == "s1"


# --- servers that lie, and trouble in the middle --------------------------------------------------------------------


@looped
async def test_a_server_that_counts_to_the_stars_is_searched_and_not_asked_for_every_number(tmp_path: Path) -> None:
    async with followed(tmp_path, Release.R5, **BY_TOPIC) as world:
        await begun(world)
        world.emr.asked.clear()
        beat = _of_ours(status(Release.R5, "heartbeat", events=10**14))
        assert (await world.follower.notified(notification(Release.R5, beat))).status == 200
        await world.follower.idle()
        assert not world.emr.reads("Subscription/s1/$events")
        assert world.emr.reads("ServiceRequest?")
        assert not world.mark.is_behind


@looped
async def test_a_proof_that_is_not_taken_in_the_middle_ends_the_look_and_takes_no_half_orders(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        world.emr.trouble = failing(401, "Patient/")
        assert not await world.follower.look()
        assert world.messages() == []
        world.emr.trouble = lambda asked: None
        assert await world.follower.look()
        assert world.orders == ["P1"]


@looped
async def test_one_thing_that_is_never_given_in_time_does_not_keep_later_orders_back(tmp_path: Path) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put({**PATIENT, "id": "p2"})
        world.emr.put(order(1), at(5))
        world.emr.put(order(2, patient="Patient/p2"), at(6))
        world.emr.trouble = failing(504, "Patient/p1")
        for _ in range(fhir_fetching.STUBBORN_TRIES):
            assert not await world.follower.look()
        assert await world.follower.look()
        assert world.orders == ["P2"]
        assert world.held("ServiceRequest/o1")


@looped
async def test_one_thing_that_was_told_and_is_not_given_in_time_waits_alone(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        world.emr.put(order(2), at(6))
        world.emr.trouble = failing(504, "/o1")
        for number in (1, 2):
            await world.follower.notified(order(number), f"ServiceRequest/o{number}")
        await world.follower.idle()
        assert world.orders == ["P2"]
        assert list(world.mark.pending) == ["ServiceRequest/o1"]
        world.emr.trouble = lambda asked: None
        world.follower.watch()
        await world.follower.idle()
        assert world.orders == ["P1", "P2"]


@looped
async def test_a_crash_between_fetching_and_keeping_the_place_takes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path) as world:
        world.emr.page = 1
        world.emr.put({**PATIENT, "id": "p1"})
        for number in (1, 2, 3):
            world.emr.put(order(number), at(number))
        reached = asyncio.Event()

        async def crash(*_: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(world.follower, "_read", crash)
        world.follower.look_soon()
        await reached.wait()
        await world.restart()
        assert world.mark.readings == {}
        assert await world.follower.look()
        assert world.orders == ["P1", "P2", "P3"]
        assert len(world.messages()) == 3


@looped
async def test_a_notification_that_was_on_the_way_when_a_feed_ended_starts_nothing_and_is_kept(tmp_path: Path) -> None:
    async with followed(tmp_path, **TOLD) as world:
        await begun(world)
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))
        ended = world.follower
        await world.restart()
        world.emr.asked.clear()
        assert (await ended.notified(order(1), "ServiceRequest/o1")).status == 200
        await ended.idle()
        assert world.emr.asked == []
        await begun(world)
        assert world.orders == ["P1"]


@looped
async def test_a_store_that_fails_ends_the_work_and_not_the_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path) as world:
        world.emr.put({**PATIENT, "id": "p1"})
        world.emr.put(order(1), at(5))

        def fails() -> Any:
            raise StoreError("the disk is away")

        with monkeypatch.context() as broken:
            broken.setattr(world.follower, "_mark", fails)
            world.follower.look_soon()
            await world.follower.idle()
        assert await world.follower.look()
        assert world.orders == ["P1"]
