"""Tasks that ask for something are answered: accepted, kept, or rejected, each to whoever asked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import NOW, ORDER, PATIENT, TASK, Road

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.resources import ResourceKey
from gateway.testing.fhir_validity import check
from gateway.wire import fhir_json
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_status import answer, merged
from gateway.workflow.audience import Audience, FHIRTarget, FHIRWriting
from gateway.workflow.fhir_answers import asking_for, kept, rejected
from gateway.workflow.fhir_server import keep
from gateway.workflow.ports import MessageSearch

WRITING = FHIRWriting(gateway="GATEWAY")
EMR = FHIRTarget("emr", WRITING, frozenset({"ServiceRequest", "Task"}), "emr")
BOTH = Audience(fhir=(EMR,), offered=WRITING)
KEY = ResourceKey("r4", "Task", "t1")
WHY = Refusal(RefusalKind.MISSING_FIELD, "ServiceRequest.code", "says no code", "send one")


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    made = Road(tmp_path / "gateway.db", audience=BOTH)
    yield made
    made.close()


def waiting(road: Road) -> list[dict[str, Any]]:
    found = road.store.reader.find_messages(MessageSearch(listener="emr", direction="out"), 10)
    bundles = [fhir_json.parse(each.record.raw) for each in found]
    return [entry["resource"] | {"url": entry["request"]["url"]} for each in bundles for entry in each["entry"]]


def test_a_task_that_is_on_the_list_is_accepted_and_its_sender_reads_so(road: Road) -> None:
    done = road.put(PATIENT, ORDER, TASK)
    held = road.store.reader.resource(KEY)
    assert held is not None
    assert (held.content["status"], held.version) == ("accepted", 2)
    assert done.body is not None
    etags = [each["response"]["etag"] for each in done.body["entry"]]
    assert etags[-1] == 'W/"2"'
    assert road.put({**ORDER, "code": {"text": "CT neck"}}).status == 200
    again = road.store.reader.resource(KEY)
    assert again is not None
    assert again.version == 2  # an answer is given once


def test_a_task_that_waits_is_received_with_what_it_waits_for(road: Road) -> None:
    def waits(unit: Any) -> None:
        keep(unit, KEY, TASK, Release.R4, NOW)
        kept(unit, BOTH, [KEY, ResourceKey("r4", "ServiceRequest", "o1")], Release.R4, ["no rule covers it"], NOW)

    road.store.write(waits).result()
    held = road.store.reader.resource(KEY)
    assert held is not None
    assert (held.content["status"], held.content["statusReason"]) == ("received", {"text": "no rule covers it"})
    accepted = merged(held.content, {"resourceType": "Task", "status": "ready"})
    assert accepted is not None
    assert (accepted["status"], "statusReason" in accepted) == ("accepted", False)


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize(
    ("before", "told"), [("requested", "rejected"), ("received", "rejected"), ("accepted", ""), ("completed", "")]
)
def test_only_a_task_without_an_answer_is_rejected(release: Release, before: str, told: str) -> None:
    task = {"resourceType": "Task", "id": "t", "status": before, "intent": "order", "code": {"text": "image"}}
    new = merged(task, answer(release, "rejected", [str(WHY)], "request-data-issue"))
    assert (new or {}).get("status", "") == told
    if new is not None:
        check(new, release)


def test_the_server_that_an_order_was_fetched_from_is_told_why_it_is_refused(road: Road) -> None:
    wrong = {**ORDER, "doNotPerform": True}
    asked = tuple(Interaction(Verb.UPDATE, each["resourceType"], each["id"], each) for each in (PATIENT, wrong, TASK))
    road.feed = replace(road.feed, name="emr")
    road.run(FHIRRequest(Kind.FETCHED, "emr", Release.R4, asked, b"{}", event="GET"))
    (told,) = [each for each in waiting(road) if each["status"] == "rejected"]
    assert told["url"] == "Task/t1"
    assert "doNotPerform" in told["statusReason"]["text"]


def test_a_refusal_that_passes_rejects_nobody(road: Road) -> None:
    away = Refusal(RefusalKind.TRANSIENT, "", "the store is away", "send it again")
    road.store.write(lambda unit: rejected(unit, BOTH, "emr", Release.R4, [TASK], [away], NOW)).result()
    assert waiting(road) == []


def test_tasks_ask_for_what_they_are_or_are_about() -> None:
    focused = {"resourceType": "Task", "id": "t2", "focus": {"reference": "ServiceRequest/o1"}}
    other = {"resourceType": "Task", "id": "t3", "basedOn": [{"reference": "ServiceRequest/o2"}]}
    assert asking_for([TASK, focused, other], "ServiceRequest/o1") == [TASK, focused]
    assert asking_for([TASK, focused, other], "Task/t3") == [other]
