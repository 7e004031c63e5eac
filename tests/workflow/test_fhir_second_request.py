"""A second ServiceRequest with the number of one that is held: refused, taken with a word, or simply right."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import ORDER, PATIENT, TASK, Road, request_of

from gateway.domain.attributes import text
from gateway.domain.identifiers import Identifier
from gateway.domain.resources import Resource
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_release import Release

PLACER = {"type": {"coding": [{"code": "PLAC"}]}, "system": "urn:oid:1.2.4", "value": "P1"}
FIRST = {**ORDER, "identifier": [PLACER]}
SECOND = {**FIRST, "id": "o1b"}
CHANGED = {**SECOND, "code": {"text": "CT neck"}}
NOTE = "had this number already"
SPS = "ScheduledProcedureStepSequence"


@pytest.fixture
def road(template: tuple[Any, Path], tmp_path: Path) -> Iterator[Road]:
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


def without_id(content: Resource) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "id"}


def post(road: Road, content: Resource) -> Answer:
    return road.run(request_of([Interaction(Verb.CREATE, content["resourceType"], "", without_id(content))]))


def put_where(road: Road, query: str, content: Resource, **said: Any) -> Answer:
    """A conditional update."""
    asked = Interaction(Verb.UPDATE, content["resourceType"], "", content, query=query, **said)
    return road.run(FHIRRequest(Kind.SINGLE, "r4", Release.R4, (asked,), repr(asked).encode(), "test", "ehr"))


def reasons(road: Road) -> str:
    return str(road.messages()[-1].record.reasons)


def requests(road: Road) -> list[str]:
    return sorted(each.key.id for each in road.store.reader.find_resources("r4", "ServiceRequest"))


@pytest.mark.parametrize("number", [[PLACER], ORDER["identifier"]], ids=["typed", "untyped"])
def test_a_request_that_moved_to_another_id_is_taken_and_told_which_one_speaks_of_the_order(
    road: Road, number: list[Resource]
) -> None:
    road.put(PATIENT, {**FIRST, "identifier": number})
    answer = road.put({**SECOND, "identifier": number})
    assert answer.status == 201
    assert road.statuses() == ["SCHEDULED"]  # no second order
    assert f"ServiceRequest/o1 {NOTE}" in reasons(road)
    assert f"ServiceRequest/o1 {NOTE}" in "; ".join(answer.notes)
    assert road.put({**CHANGED, "identifier": number}).status == 200
    assert NOTE not in reasons(road)  # it is said once
    assert road.said("RequestedProcedureDescription") == "CT neck"


def test_an_entry_of_a_transaction_is_told_the_same_in_its_own_answer(road: Road) -> None:
    road.put(PATIENT, FIRST)
    answer = road.put({**PATIENT, "gender": "female"}, SECOND)
    assert answer.body is not None
    first, second = (str(each["response"].get("outcome", "")) for each in answer.body["entry"])
    assert (NOTE in first, NOTE in second) == (False, True)


def test_the_one_that_is_out_of_use_is_deleted_and_the_order_stays(road: Road) -> None:
    road.put(PATIENT, FIRST)
    road.put(SECOND)
    assert road.delete(FIRST).status == 204
    assert road.statuses() == ["SCHEDULED"]
    assert "ServiceRequest/o1b speaks of this order, too" in reasons(road)
    road.put({**SECOND, "status": "revoked"})
    assert road.statuses() == ["CANCELED"]


@pytest.mark.parametrize("status", ["revoked", "draft"])
def test_a_deletion_takes_the_order_along_where_nothing_orders_it_any_more(road: Road, status: str) -> None:
    road.put(PATIENT, FIRST)
    road.put(SECOND)
    road.put({**SECOND, "status": status})
    road.put({**FIRST, "priority": "stat"})
    assert road.delete(FIRST).status == 204
    assert road.statuses() == ["CANCELED"]


def test_a_number_that_becomes_that_of_another_request_is_told_as_well(road: Road) -> None:
    road.put(PATIENT, FIRST, {**SECOND, "identifier": [{**PLACER, "value": "P2"}]})
    assert NOTE not in reasons(road)
    road.put(SECOND)
    assert f"ServiceRequest/o1 {NOTE}" in reasons(road)


def test_who_leaves_the_id_to_us_makes_no_second_request(road: Road) -> None:
    """A POST and a conditional update that finds nothing are one in this."""
    road.put(PATIENT, FIRST)
    nowhere = "identifier=urn:oid:9|none"
    assert post(road, FIRST).status == put_where(road, nowhere, without_id(FIRST)).status == 200
    changed = without_id(CHANGED)
    assert post(road, changed).status == put_where(road, nowhere, changed).status == 409
    assert "PUT ServiceRequest/o1" in reasons(road)
    assert requests(road) == ["o1"]


def test_a_conditional_update_with_an_id_is_taken_as_a_plain_one_is(road: Road) -> None:
    road.put(PATIENT, FIRST)
    assert put_where(road, "identifier=urn:oid:9|none", SECOND).status == 201
    assert NOTE in reasons(road)


def test_a_message_changes_what_it_names_and_is_told_of_the_other_one(road: Road) -> None:
    """Its sender cannot say by which id it is known here."""
    road.put(PATIENT, FIRST)
    filler = {"type": {"coding": [{"code": "FILL"}]}, "system": "urn:oid:1.2.9", "value": "F1"}
    both = without_id({**SECOND, "identifier": [filler, PLACER]})
    assert put_where(road, "identifier=urn:oid:1.2.9|F1", both, by_number=True).status == 201


def test_a_posted_request_may_replace_the_one_whose_number_it_has(road: Road) -> None:
    road.put(PATIENT, FIRST)
    replacing = {**CHANGED, "replaces": [{"reference": "ServiceRequest/o1"}]}
    assert post(road, replacing).status == 201
    assert NOTE not in reasons(road)  # it says so itself
    assert road.statuses() == ["SCHEDULED"]
    assert road.said("RequestedProcedureDescription") == "CT neck"
    assert post(road, replacing).status == 200  # its answer was lost
    assert len(requests(road)) == 2


def test_a_bundle_brings_an_order_once(road: Road) -> None:
    road.put(PATIENT)
    new = Interaction(Verb.CREATE, "ServiceRequest", "", without_id(FIRST))
    answer = road.run(request_of([new, Interaction(Verb.UPDATE, "ServiceRequest", "o1b", SECOND)]))
    assert answer.status == 409
    assert requests(road) == []


def test_what_shares_numbers_rightly_is_told_nothing(road: Road) -> None:
    accession = {"type": {"coding": [{"code": "ACSN"}]}, "system": "urn:oid:1.2.6", "value": "A1"}
    one = {**FIRST, "requisition": accession}
    other = {**SECOND, "identifier": [{**PLACER, "value": "P2"}], "requisition": accession}
    child = {**FIRST, "id": "c1", "basedOn": [{"reference": "ServiceRequest/o1"}]}
    road.put(PATIENT, one)
    for each in (other, child, {**child, "id": "c2", "code": {"text": "CT thorax"}}):
        assert road.put(each).status == 201
        assert NOTE not in reasons(road)


def test_a_request_of_a_care_plan_speaks_of_its_order_beside_another(road: Road) -> None:
    plan = [{"reference": "https://plans.example/CarePlan/1"}]
    road.put(PATIENT, {**FIRST, "basedOn": plan})
    road.put({**SECOND, "basedOn": plan})
    (order,) = road.store.reader.orders(Identifier("P1", "1.2.4"), None)
    parts = {each.key.reference for each in road.store.reader.order_parts(order.id)}
    assert parts == {"ServiceRequest/o1", "ServiceRequest/o1b"}
    assert f"ServiceRequest/o1 {NOTE}" in reasons(road)


def described(road: Road) -> list[tuple[str, ...]]:
    """(status, placer order number, what is to be done) of each step."""
    keywords = "PlacerOrderNumberImagingServiceRequest", "RequestedProcedureDescription"
    return sorted(
        (item.status.value, *(text(item.attributes, keyword) for keyword in keywords)) for item in road.items()
    )


OTHER_NUMBER = {**CHANGED, "identifier": [{**PLACER, "value": "P2"}]}


@pytest.mark.parametrize("steps", [(), ("t1", "t2")], ids=["alone", "with Tasks"])
def test_one_that_gets_a_number_of_its_own_leaves_the_order_as_the_other_says(
    road: Road, steps: tuple[str, ...]
) -> None:
    road.put(PATIENT, FIRST, CHANGED)
    for step, order in zip(steps, (FIRST, CHANGED), strict=bool(steps)):
        road.put({**TASK, "id": step, "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}]})
    answer = road.put(OTHER_NUMBER)
    assert [each for each in described(road) if each[0] == "SCHEDULED"] == [
        ("SCHEDULED", "P1", "CT head"), ("SCHEDULED", "P2", "CT neck")
    ]  # fmt: skip
    assert "ServiceRequest/o1 speaks of this order, too, so the order stays" in answer.notes
    (order,) = road.store.reader.orders(Identifier("P1", "1.2.4"), None)
    parts = {each.key.id for each in road.store.reader.order_parts(order.id)}
    assert parts == {"o1", *steps[:1]}


@pytest.mark.parametrize("gone", ["deleted", "a draft"])
def test_what_the_one_that_goes_said_goes_with_it(road: Road, gone: str) -> None:
    road.put(PATIENT, FIRST)
    road.put({**CHANGED, "patientInstruction": "come sober"})
    if gone == "deleted":
        road.delete(CHANGED)
    else:
        road.put({**CHANGED, "status": "draft"})
    assert described(road) == [("SCHEDULED", "P1", "CT head")]
    assert road.said("RequestedProcedureComments") == ""
    road.put({**FIRST, "status": "revoked"})
    assert road.statuses() == ["CANCELED"]


def test_the_other_one_that_cannot_be_scheduled_any_more_is_no_reason_to_refuse(road: Road) -> None:
    road.put(PATIENT, FIRST, CHANGED)
    road.feed = road.feed_with({**road.rules["rules"], f"{SPS}.Modality": {"from": "ServiceRequest.note.text"}})
    assert road.delete(CHANGED).status == 204


def test_requests_of_one_plan_speak_of_one_order_if_they_say_its_number(road: Road) -> None:
    plan = {**FIRST, "id": "plan", "intent": "plan", "identifier": [{**PLACER, "value": "PLAN"}]}
    based = {"basedOn": [{"reference": "ServiceRequest/plan"}]}
    road.put(PATIENT, plan)
    road.put({**FIRST, **based})
    road.put({**SECOND, **based})
    assert f"ServiceRequest/o1 {NOTE}" in reasons(road)
