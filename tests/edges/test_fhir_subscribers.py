"""Others subscribe to what becomes of orders: handshake, events, heartbeats, and what happens when nobody is there."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir_receiver import Answer, Asked, Receiver, looped, receiving

from gateway.domain.progress import Progress
from gateway.domain.refusal import Refused
from gateway.domain.resources import ResourceKey
from gateway.domain.scopes import scopes
from gateway.edges.fhir_client import FHIRClient
from gateway.edges.fhir_subscribers import Subscribers
from gateway.edges.store import Store, StoreUnit
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_topics import MASK, canonical
from gateway.workflow.audience import NOBODY, Audience, Reach
from gateway.workflow.fhir_server import keep
from gateway.workflow.fhir_topics import (
    beat,
    destination_of,
    events_of,
    forbid,
    notify,
    publish,
    state_of,
    subscribed,
    subscribers,
    why_not_told,
)
from gateway.workflow.outbox import Patience
from gateway.workflow.ports import MessageSearch, StoredMessage

BASE = "https://gateway.example/fhir"
AT = datetime.now(UTC)
ORDER = {"resourceType": "ServiceRequest", "id": "sr", "status": "active", "subject": {"reference": "Patient/1"},
         "identifier": [{"system": "urn:oid:1.2.3", "value": "PL1"}]}  # fmt: skip
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as made:
        yield made


def subscription(release: Release, endpoint: str, topic: str = "order-started", **more: Any) -> dict[str, Any]:
    content, filters, beat = more.get("content", "id-only"), more.get("filters", {}), more.get("heartbeat", 0)
    if release is Release.R5:
        return {
            "resourceType": "Subscription", "id": "s", "status": "requested", "topic": canonical(BASE, topic),
            "channelType": {"code": more.get("type", "rest-hook")}, "endpoint": endpoint, "content": content,
            "filterBy": [{"filterParameter": name, "value": value} for name, value in filters.items()],
            "parameter": [{"name": "Authorization", "value": "Bearer x"}], "heartbeatPeriod": beat,
        }  # fmt: skip
    said = "&".join(f"{name}={value}" for name, value in filters.items())
    return {
        "resourceType": "Subscription", "id": "s", "status": "requested", "reason": "test",
        "criteria": canonical(BASE, topic),
        "_criteria": {"extension": [{"url": f"{_BACKPORT}backport-filter-criteria",
                                     "valueString": f"ServiceRequest?{said}"}]} if filters else None,
        "channel": {
            "type": more.get("type", "rest-hook"), "endpoint": endpoint, "payload": "application/fhir+json",
            "header": ["Authorization: Bearer x"],
            "_payload": {"extension": [{"url": f"{_BACKPORT}backport-payload-content", "valueCode": content}]},
            "extension": [{"url": f"{_BACKPORT}backport-heartbeat-period", "valueUnsignedInt": beat}],
        },
    }  # fmt: skip


def key_of(release: Release) -> ResourceKey:
    return ResourceKey(release.base, "Subscription", "s")


def subscribe(store: Store, release: Release, endpoint: str, topic: str = "order-started", **more: Any) -> None:
    def use_case(unit: StoreUnit) -> None:
        content = {key: value for key, value in subscription(release, endpoint, topic, **more).items() if value}
        keep(unit, key_of(release), content, release, AT)
        keep(unit, ResourceKey(release.base, "ServiceRequest", "sr"), ORDER, release, AT)
        subscribed(unit, release, [key_of(release)], AT, NOBODY)

    store.write(use_case).result()


def happens(store: Store, release: Release, what: Progress | None, **more: Any) -> None:
    store.write(lambda unit: notify(unit, release.base, release, what, [{**ORDER, **more}], AT, NOBODY)).result()


def status(store: Store, release: Release) -> str:
    found = store.reader.resource(key_of(release))
    assert found is not None
    return str(found.content["status"])


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110  (of what another thread does nobody here is told)
            await asyncio.sleep(0.01)


async def served(store: Store, work: Callable[[Subscribers], Awaitable[None]], **more: Any) -> None:
    serving = Subscribers(store, lambda event, **fields: None, **more)
    serving.start()
    try:
        await work(serving)
    finally:
        await serving.stop(1.0)


def kind_of(asked: Asked) -> str:
    said = asked.body["entry"][0]["resource"]
    if said["resourceType"] == "SubscriptionStatus":
        return str(said["type"])
    return next(str(each["valueCode"]) for each in said["parameter"] if each["name"] == "type")


def kinds(receiver: Receiver) -> list[str]:
    return [kind_of(each) for each in receiver.asked]


def taken(_: Asked) -> Answer:
    return 200, None


@pytest.mark.parametrize("release", Release)
@looped
async def test_a_handshake_makes_it_active_and_events_arrive(store: Store, release: Release) -> None:
    with receiving(taken) as receiver:
        subscribe(store, release, f"{receiver.url}/hook")

        async def work(serving: Subscribers) -> None:
            await until(lambda: status(store, release) == "active")
            happens(store, release, Progress.STARTED)
            happens(store, release, Progress.COMPLETED)  # another topic
            serving.wake()
            await until(lambda: kinds(receiver) == ["handshake", "event-notification"])

        await served(store, work)
    event = receiver.asked[1].body
    assert event["type"] == ("subscription-notification" if release is Release.R5 else "history")
    assert [each["request"]["url"] for each in event["entry"]] == ["Subscription/s/$status", "ServiceRequest/sr"]
    assert "resource" not in event["entry"][1]
    assert receiver.asked[1].headers["authorization"] == "Bearer x"


@pytest.mark.parametrize(("content", "entries", "resources"), [("empty", 1, 1), ("id-only", 2, 1),
                                                                ("full-resource", 2, 2)])  # fmt: skip
@looped
async def test_the_payload_is_what_was_asked_for(store: Store, content: str, entries: int, resources: int) -> None:
    with receiving(taken) as receiver:
        subscribe(store, Release.R4, receiver.url, content=content)

        async def work(serving: Subscribers) -> None:
            await until(lambda: status(store, Release.R4) == "active")
            happens(store, Release.R4, Progress.STARTED)
            serving.wake()
            await until(lambda: len(receiver.asked) == 2)

        await served(store, work)
    event = receiver.asked[1].body
    assert len(event["entry"]) == entries
    assert len([each for each in event["entry"] if "resource" in each]) == resources
    assert ("sr" in str(event)) is (content != "empty")


@pytest.mark.parametrize(
    ("filters", "is_told"),
    [({"patient": "Patient/1"}, True), ({"patient": "Patient/2"}, False), ({"status": "active,completed"}, True),
     ({"status": "completed"}, False), ({"identifier": "urn:oid:1.2.3|PL1"}, True), ({"identifier": "PL2"}, False),
     ({"patient": "1", "status": "revoked"}, False)],
)  # fmt: skip
def test_filters_leave_out_what_does_not_fit(store: Store, filters: dict[str, str], is_told: bool) -> None:
    subscribe(store, Release.R4, "https://ehr.example/hook", "order-status", filters=filters)
    active = {**subscription(Release.R4, "https://ehr.example/hook", "order-status", filters=filters),
              "status": "active"}  # fmt: skip
    store.write(lambda unit: keep(unit, key_of(Release.R4), active, Release.R4, AT)).result()
    happens(store, Release.R4, None)
    told = events_of(store.reader, key_of(Release.R4), AT)
    assert told is not None
    assert (len(told["entry"]) > 1) is is_told


@looped
async def test_who_refuses_the_handshake_is_in_error_and_gets_nothing(store: Store) -> None:
    with receiving(lambda _: (400, None)) as receiver:
        subscribe(store, Release.R4, receiver.url)

        async def work(serving: Subscribers) -> None:
            await until(lambda: bool(receiver.asked))
            await until(lambda: (serving.wake(), status(store, Release.R4) == "error")[1])

        await served(store, work, patience=Patience(first_s=0.01, errors_max=1))
        happens(store, Release.R4, Progress.STARTED)
    assert kinds(receiver) == ["handshake"]


@looped
async def test_a_heartbeat_comes_when_nothing_else_did(store: Store) -> None:
    clock = [AT]
    with receiving(taken) as receiver:
        subscribe(store, Release.R4B, receiver.url, heartbeat=60)

        async def work(serving: Subscribers) -> None:
            await until(lambda: status(store, Release.R4B) == "active")
            clock[0] = AT + timedelta(seconds=61)
            serving.wake()
            await until(lambda: (serving.wake(), len(receiver.asked) > 1)[1])

        await served(store, work, now=lambda: clock[0])
    assert kinds(receiver)[:2] == ["handshake", "heartbeat"]


def test_what_was_missed_is_answered_by_number(store: Store) -> None:
    subscribe(store, Release.R5, "https://ehr.example/hook", "order-status")
    active = {**subscription(Release.R5, "https://ehr.example/hook", "order-status"), "status": "active"}
    store.write(lambda unit: keep(unit, key_of(Release.R5), active, Release.R5, AT)).result()
    for what in (Progress.STARTED, Progress.STEP_COMPLETED, Progress.COMPLETED):
        happens(store, Release.R5, what)
    told = events_of(store.reader, key_of(Release.R5), AT, since=2, content="full-resource")
    assert told is not None
    said = told["entry"][0]["resource"]
    assert (said["type"], said["eventsSinceSubscriptionStart"]) == ("query-event", "3")
    assert [each["eventNumber"] for each in said["notificationEvent"]] == ["2", "3"]
    assert told["entry"][1]["resource"]["status"] == "active"
    state = state_of(store.reader, key_of(Release.R5), AT)
    assert state is not None
    assert state["entry"][0]["resource"]["type"] == "query-status"
    assert events_of(store.reader, ResourceKey("r5", "Subscription", "none"), AT) is None


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize(
    ("changed", "where"),
    [({"type": "websocket"}, "channel"), ({"endpoint": "http://ehr.example/hook"}, "endpoint"),
     ({"topic": "no-such-topic"}, "SubscriptionTopic"), ({"filters": {"birthdate": "2000"}}, "filter"),
     ({"content": "everything"}, "content"), ({"heartbeat": 1}, "heartbeat"),
     ({"endpoint": "mailto:a@b.example"}, "endpoint")],
    ids=["websocket", "plain", "topic", "filter", "content", "heartbeat", "mail"],
)  # fmt: skip
def test_what_is_not_offered_is_refused_in_words(
    store: Store, release: Release, changed: dict[str, Any], where: str
) -> None:
    more = {"endpoint": "https://ehr.example/hook", **changed}
    with pytest.raises(Refused) as refused:
        subscribe(store, release, more.pop("endpoint"), **more)
    (refusal,) = refused.value.refusals
    assert refusal.hint
    assert where in str(refusal)
    assert not store.reader.next_deliveries(destination_of(key_of(release)), datetime.now(UTC), 1, 60.0)


def test_topics_can_be_read_where_the_release_has_them(store: Store) -> None:
    store.write(lambda unit: publish(unit, AT)).result()
    found = {release: store.reader.find_resources(release.base, "SubscriptionTopic") for release in Release}
    assert {release: len(several) for release, several in found.items()} == {
        Release.R4: 0, Release.R4B: len(Progress) + 1, Release.R5: len(Progress) + 1,
    }  # fmt: skip


# ---- whose they are ----

CLIENTS = Audience(readers={"ehr": scopes("system/*.cruds"), "tasks": scopes("system/Task.rs system/Subscription.cud"),
                            "blind": scopes("system/Subscription.cruds")})  # fmt: skip


def subscribe_as(store: Store, client: str, **more: Any) -> None:
    content = subscription(Release.R4B, "https://ehr.example/hook", "order-status", **more)

    def use_case(unit: StoreUnit) -> None:
        held = {key: value for key, value in content.items() if value}
        keep(unit, key_of(Release.R4B), held, Release.R4B, AT)
        subscribed(unit, Release.R4B, [key_of(Release.R4B)], AT, CLIENTS, client, BASE)

    store.write(use_case).result()


def refusal_of(store: Store, client: str) -> str:
    with pytest.raises(Refused) as refused:
        subscribe_as(store, client)
    (refusal,) = refused.value.refusals
    assert refusal.hint
    return refusal.text


def activate(store: Store) -> None:
    held = store.reader.resource(key_of(Release.R4B))
    assert held is not None
    active = {**held.content, "status": "active"}
    store.write(lambda unit: keep(unit, key_of(Release.R4B), active, Release.R4B, AT)).result()


def test_who_may_read_nothing_that_events_are_about_subscribes_to_nothing(store: Store) -> None:
    for client in ("blind", "nobody"):
        assert "may read none of ServiceRequest, Task, Procedure" in refusal_of(store, client)


def test_a_client_is_told_of_what_it_may_read_alone(store: Store) -> None:
    subscribe_as(store, "tasks")
    activate(store)
    task = {"resourceType": "Task", "id": "t1", "status": "in-progress"}
    store.write(lambda unit: notify(unit, "r4b", Release.R4B, None, [ORDER, task], AT, CLIENTS)).result()
    told = events_of(store.reader, key_of(Release.R4B), AT)
    assert told is not None
    assert [each["request"]["url"] for each in told["entry"]] == ["Subscription/s/$status", "Task/t1"]
    assert told["entry"][1]["fullUrl"] == f"{BASE}/Task/t1"
    narrower = events_of(store.reader, key_of(Release.R4B), AT, may_read=lambda kind: kind != "Task")
    assert narrower is not None
    assert len(narrower["entry"]) == 1


def test_a_subscription_is_changed_and_ended_by_its_own_client(store: Store) -> None:
    subscribe_as(store, "ehr")
    assert "another client made this" in refusal_of(store, "tasks")
    subscribe_as(store, "ehr", heartbeat=60)


def test_what_is_ended_leaves_nothing_behind_in_the_outbox(store: Store) -> None:
    subscribe_as(store, "ehr")
    destination = destination_of(key_of(Release.R4B))
    assert len(store.reader.deliveries(10, destination=destination)) == 1

    def ended(unit: StoreUnit) -> None:
        unit.save_resource(key_of(Release.R4B), {}, AT, (), deleted=True)
        subscribed(unit, Release.R4B, [key_of(Release.R4B)], AT, CLIENTS, "ehr", BASE)

    store.write(ended).result()
    assert store.reader.deliveries(10, destination=destination) == []


def test_events_are_counted_on_after_the_archive_forgot_them(store: Store) -> None:
    subscribe_as(store, "ehr")
    activate(store)
    for _ in range(2):
        store.write(lambda unit: notify(unit, "r4b", Release.R4B, None, [ORDER], AT, CLIENTS)).result()
    store.write(lambda unit: unit.drop_deliveries(destination_of(key_of(Release.R4B)), "test")).result()
    store.write(lambda unit: unit.prune_messages(10**9, 100, 0)).result()
    assert _archived(store) == []
    store.write(lambda unit: notify(unit, "r4b", Release.R4B, None, [ORDER], AT, CLIENTS)).result()
    state = state_of(store.reader, key_of(Release.R4B), AT)
    assert state is not None
    assert state["entry"][0]["resource"]["eventsSinceSubscriptionStart"] == "3"


def _archived(store: Store) -> list[StoredMessage]:
    search = MessageSearch(listener=destination_of(key_of(Release.R4B)), direction="out")
    return list(store.reader.find_messages(search, 10))


def test_more_than_so_many_are_refused_with_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.workflow.fhir_topics.SUBSCRIPTIONS_MAX", 1)
    other = ResourceKey("r4b", "Subscription", "other")
    content = {key: value for key, value in subscription(Release.R4B, "https://a.example/hook").items() if value}
    store.write(lambda unit: keep(unit, other, {**content, "id": "other"}, Release.R4B, AT)).result()
    assert "subscriptions already" in refusal_of(store, "ehr")


LIMITED = Audience(
    readers={"ehr": scopes("system/*.cruds"), "portal": scopes("system/*.cruds")},
    notified={"portal": ("https://10.0.0.5/hooks",)},
)


@pytest.mark.parametrize(
    ("client", "endpoint", "reach"),
    [
        ("ehr", "https://ehr.example/hook", Reach.PUBLIC),
        ("ehr", "https://169.254.169.254/latest", Reach.NOWHERE),
        ("ehr", "https://10.0.0.5/hooks/1", Reach.NOWHERE),
        ("ehr", "https://[::1]/", Reach.NOWHERE),
        ("ehr", "https://localhost/", Reach.NOWHERE),
        ("ehr", "http://localhost:22/", Reach.NOWHERE),
        ("ehr", "https://2130706433/", Reach.NOWHERE),
        ("portal", "https://10.0.0.5/hooks/1", Reach.ANYWHERE),
        ("portal", "https://10.0.0.5/hooks", Reach.ANYWHERE),
        ("portal", "https://10.0.0.5/hooksmith", Reach.NOWHERE),
        ("portal", "https://10.0.0.5/hooks/../admin", Reach.NOWHERE),
        ("portal", "https://ehr.example/hook", Reach.NOWHERE),
        ("nobody", "https://ehr.example/hook", Reach.NOWHERE),
    ],
)
def test_a_client_has_notifications_sent_only_where_it_may(client: str, endpoint: str, reach: Reach) -> None:
    assert LIMITED.reach(client, endpoint) is reach


@pytest.mark.parametrize("release", [Release.R4, Release.R5])
def test_an_endpoint_out_of_reach_is_refused(store: Store, release: Release) -> None:
    with pytest.raises(Refused, match="endpoint") as refused:
        _written(store, release, "https://10.0.0.5/")
    assert "fhir.clients.notify" in refused.value.refusals[0].hint


@pytest.mark.parametrize("release", [Release.R4, Release.R5])
def test_the_secrets_of_a_subscription_are_sent_and_never_shown(store: Store, release: Release) -> None:
    endpoint = "https://ehr.example/hook"
    _written(store, release, endpoint)
    held = store.reader.resource(key_of(release))
    assert held is not None
    assert "Bearer" not in str(held.content)
    assert MASK in str(held.content)
    (known,) = subscribers(store.reader)
    assert (known.asks.headers, known.client) == ((("Authorization", "Bearer x"),), "ehr")

    def sent_back(unit: StoreUnit) -> None:
        keep(unit, key_of(release), {**held.content, "end": "2099-01-01T00:00:00Z"}, release, AT)
        subscribed(unit, release, [key_of(release)], AT, LIMITED, "ehr")

    store.write(sent_back).result()
    (known,) = subscribers(store.reader)
    assert (known.asks.headers, known.asks.end[:4]) == ((("Authorization", "Bearer x"),), "2099")


@looped
async def test_a_subscription_that_the_settings_forbid_by_now_is_in_error_and_nothing_is_sent(store: Store) -> None:
    with receiving(taken) as receiver:
        subscribe(store, Release.R4, receiver.url)

        async def work(serving: Subscribers) -> None:
            await until(lambda: (serving.wake(), status(store, Release.R4) == "error")[1])

        await served(store, work, audience=lambda: LIMITED)
    assert receiver.asked == []


def _written(store: Store, release: Release, endpoint: str) -> None:
    def use_case(unit: StoreUnit) -> None:
        content = {key: value for key, value in subscription(release, endpoint).items() if value}
        keep(unit, key_of(release), content, release, AT)
        subscribed(unit, release, [key_of(release)], AT, LIMITED, "ehr")

    store.write(use_case).result()


@looped
async def test_an_endpoint_that_is_no_address_ends_its_own_subscription_and_no_other_one(store: Store) -> None:
    """As one from before endpoints were read to their ports."""
    odd = ResourceKey("r4b", "Subscription", "odd")
    with receiving(taken) as receiver:
        subscribe(store, Release.R4, receiver.url)
        content = subscription(Release.R4B, "https://ehr.example/hook")
        known = {"reads": ["ServiceRequest"], "client": ""}

        def as_before(unit: StoreUnit) -> None:
            keep(unit, odd, {key: value for key, value in content.items() if value}, Release.R4B, AT)
            unit.set_feed_mark(destination_of(odd), json.dumps(known))

        store.write(as_before).result()
        clients: list[str] = []

        def client(url: str, *more: Any, **named: Any) -> FHIRClient:
            clients.append(url)
            if url == "https://ehr.example/hook":
                raise ValueError("that is no address")
            return FHIRClient(url, *more, **named)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("gateway.edges.fhir_subscribers.FHIRClient", client)

            async def work(serving: Subscribers) -> None:
                await until(lambda: status(store, Release.R4) == "active")

            await served(store, work)
    held = store.reader.resource(odd)
    assert held is not None
    assert (held.content["status"], held.content["error"]) == (
        "error", "its endpoint is no address that notifications can be sent to",
    )  # fmt: skip


@pytest.mark.parametrize("endpoint", ["https://ehr.example:x/", "https://ehr.example:99999/", "https://ehr.example:0/"])
def test_an_endpoint_with_a_port_that_is_none_is_refused(store: Store, endpoint: str) -> None:
    with pytest.raises(Refused, match="endpoint"):
        subscribe(store, Release.R4, endpoint)


@looped
async def test_a_look_that_fails_is_told_and_followed_by_another(store: Store) -> None:
    told: list[str] = []
    with receiving(taken) as receiver, pytest.MonkeyPatch.context() as patched:
        subscribe(store, Release.R4, receiver.url)
        looks = iter([RuntimeError("a defect")])

        def audience() -> Audience:
            for each in looks:
                raise each
            return NOBODY

        patched.setattr("gateway.edges.fhir_subscribers.LOOK_S", 0.01)
        serving = Subscribers(store, lambda event, **fields: told.append(event), audience=audience)
        serving.start()
        await until(lambda: status(store, Release.R4) == "active")
        await serving.stop(1.0)
    assert told[0] == "subscriptions_unavailable"


def test_one_whose_token_was_not_kept_is_told_nothing(store: Store) -> None:
    subscribe_as(store, "ehr")

    def as_before(unit: StoreUnit) -> None:
        destination = destination_of(key_of(Release.R4B))
        said = json.loads(unit.feed_mark(destination))
        unit.set_feed_mark(destination, json.dumps({name: said[name] for name in ("events", "client", "base")}))

    store.write(as_before).result()
    (found,) = subscribers(store.reader)
    assert "was not kept" in why_not_told(CLIENTS, found)
    assert store.write(lambda unit: forbid(unit, CLIENTS, AT)).result() == 1
    assert status(store, Release.R4B) == "error"


# ---- what is over, and what waits ----


def ended(store: Store, release: Release) -> None:
    """Its client turns it off by PUT, with all that it sent before."""
    content = {key: value for key, value in subscription(release, "https://ehr.example/hook").items() if value}

    def use_case(unit: StoreUnit) -> None:
        keep(unit, key_of(release), {**content, "status": "off"}, release, AT)
        subscribed(unit, release, [key_of(release)], AT, LIMITED, "ehr")

    store.write(use_case).result()


@pytest.mark.parametrize("release", [Release.R4, Release.R5])
def test_the_secrets_of_one_that_is_turned_off_are_not_shown_either(store: Store, release: Release) -> None:
    _written(store, release, "https://ehr.example/hook")
    ended(store, release)
    held = store.reader.resource(key_of(release))
    assert held is not None
    assert (held.content["status"], "Bearer" in str(held.content)) == ("off", False)


def test_those_that_have_ended_take_no_place_of_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.workflow.fhir_topics.SUBSCRIPTIONS_MAX", 1)
    old = {**subscription(Release.R4, "https://ehr.example/hook"), "id": "old", "status": "off"}
    content = {key: value for key, value in old.items() if value}
    store.write(lambda unit: keep(unit, ResourceKey("r4", "Subscription", "old"), content, Release.R4, AT)).result()
    _written(store, Release.R4, "https://ehr.example/hook")
    assert [each.key for each in subscribers(store.reader)] == [key_of(Release.R4)]


def test_heartbeats_do_not_pile_up_where_nobody_takes_them(store: Store) -> None:
    subscribe_as(store, "ehr", heartbeat=60)
    activate(store)
    for minute in range(1, 60):
        store.write(lambda unit, at=AT + timedelta(seconds=61 * minute): beat(unit, at)).result()
    waiting = store.reader.deliveries(100, destination=destination_of(key_of(Release.R4B)))
    assert [each.operation for each in waiting] == ["handshake"]


def test_what_one_of_the_same_id_was_told_before_is_no_event_of_the_new_one(store: Store) -> None:
    key = key_of(Release.R4B)

    def numbers() -> list[str]:
        told = events_of(store.reader, key, AT)
        assert told is not None
        return [each["eventNumber"] for each in told["entry"][0]["resource"].get("notificationEvent", ())]

    def deleted(unit: StoreUnit) -> None:
        unit.save_resource(key, {}, AT, (), deleted=True)
        subscribed(unit, Release.R4B, [key], AT, CLIENTS, "ehr", BASE)

    def event() -> None:
        store.write(lambda unit: notify(unit, "r4b", Release.R4B, None, [ORDER], AT, CLIENTS)).result()

    subscribe_as(store, "ehr")
    activate(store)
    for _ in range(3):
        event()
    assert numbers() == ["1", "2", "3"]
    store.write(deleted).result()
    subscribe_as(store, "ehr")
    activate(store)
    assert numbers() == []
    event()
    event()
    assert numbers() == ["1", "2"]


def test_what_the_endpoint_of_before_took_makes_no_subscription_active(store: Store) -> None:
    subscribe_as(store, "ehr")
    (before,) = store.reader.deliveries(10, destination=destination_of(key_of(Release.R4B)))
    subscribe_as(store, "ehr", heartbeat=60)  # what was under way is dropped, and answered all the same
    serving = Subscribers(store, lambda event, **fields: None)
    store.write(lambda unit: serving._hear(unit, before, b"")).result()
    assert status(store, Release.R4B) == "requested"
    (now,) = store.reader.deliveries(10, destination=destination_of(key_of(Release.R4B)))
    store.write(lambda unit: serving._hear(unit, now, b"")).result()
    assert status(store, Release.R4B) == "active"


@looped
async def test_however_often_it_is_woken_it_writes_now_and_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe_as(store, "ehr")
    tended: list[datetime] = []
    monkeypatch.setattr("gateway.edges.fhir_subscribers.TEND_S", 3600.0)
    monkeypatch.setattr("gateway.edges.fhir_subscribers._tend", lambda unit, audience, at: tended.append(at))
    serving = Subscribers(store, lambda event, **fields: None)
    for _ in range(20):
        await serving.look()
    await serving.stop(0.0)
    assert len(tended) == 1


def test_an_endpoint_may_answer_with_errors_for_longer_than_it_takes_to_start_anew(store: Store) -> None:
    patience = Subscribers(store, lambda event, **fields: None)._patience
    assert sum(patience.back_off(failures) for failures in range(1, patience.errors_max)) >= 60.0


@looped
async def test_the_end_waits_for_all_at_the_same_time(store: Store) -> None:
    meeting = asyncio.Barrier(2)

    class Slow:
        async def stop(self, grace_s: float) -> None:
            async with asyncio.timeout(10):
                await meeting.wait()

    serving = Subscribers(store, lambda event, **fields: None)
    serving._running = {name: (None, Reach.PUBLIC, Slow()) for name in ("one", "two")}
    await serving.stop(0.0)


@looped
async def test_who_subscribes_while_it_looks_waits_for_no_other_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.edges.fhir_subscribers.LOOK_S", 3600.0)
    serving = Subscribers(store, lambda event, **fields: None)
    looks: list[int] = []

    async def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            serving.wake()

    monkeypatch.setattr(serving, "look", look)
    serving.start()
    await until(lambda: len(looks) == 2)
    await serving.stop(0.0)
