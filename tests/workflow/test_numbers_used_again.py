"""An order number that a correction freed is that of the next order, which has keys of its own, and nobody's images."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import ORDER, PATIENT, RULES, TASK, Road, mapping_of, request_of

from gateway.domain.attributes import TAG, element, text
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput
from gateway.domain.resources import Resource
from gateway.domain.worklist import WorklistItem
from gateway.processing import now
from gateway.wire.fhir_interactions import Interaction, Verb
from gateway.wire.fhir_release import Release
from gateway.workflow.orders import apply_events

NUMBER = "PlacerOrderNumberImagingServiceRequest"
KEYS = "StudyInstanceUID", "AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID"
PLACER = ORDER["identifier"][0]
SECOND = {**ORDER, "id": "o2"}


@pytest.fixture
def road(template: tuple[Any, Path], tmp_path: Path) -> Iterator[Road]:
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


def numbered(order: Resource, number: str, **said: Any) -> Resource:
    return {**order, "identifier": [{**PLACER, "value": number}], **said}


def keys(items: Sequence[WorklistItem]) -> dict[str, tuple[str, ...]]:
    """The keys of each item by its order number; where an order has several, by the last."""
    return {
        text(item.attributes, NUMBER): tuple(text(item.attributes, key) or text(item.step, key) for key in KEYS)
        for item in items
    }


def differ(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(a and b and a != b for a, b in zip(one, other, strict=True))


def test_the_number_of_a_corrected_order_is_that_of_the_order_that_really_has_it(road: Road) -> None:
    road.put(PATIENT, ORDER)
    road.put(numbered(ORDER, "P7"))
    first = keys(road.items())["P7"]
    assert road.put(SECOND).status == 201
    assert keys(road.items())["P7"] == first  # published keys stay
    assert differ(first, keys(road.items())["P1"])


def test_a_number_may_be_freed_again_and_again(road: Road) -> None:
    road.put(PATIENT, ORDER)
    for place in range(3):
        assert road.put({**numbered(ORDER, f"P7{place}"), "id": f"o{place + 1}"}).status == 200
        assert road.put({**ORDER, "id": f"o{place + 2}"}).status == 201
    made = list(keys(road.items()).values())
    assert all(len(set(column)) == 4 for column in zip(*made, strict=True))


def test_keys_are_the_same_wherever_the_same_is_said(road: Road, tmp_path: Path, template: tuple[Any, Path]) -> None:
    other = Road(shutil.copy(template[1], tmp_path / "other.db"))
    for each in (road, other):
        each.put(PATIENT, ORDER)
        each.put(numbered(ORDER, "P7"))
        each.put(SECOND)
    assert keys(road.items()) == keys(other.items())
    other.close()


def test_a_key_that_alone_was_generated_is_not_generated_twice(road: Road) -> None:
    """The first order has its accession number from its sender, the second one has its own steps named."""
    accession = {"type": {"coding": [{"code": "ACSN"}]}, "system": "urn:oid:1.2.6", "value": "A1"}
    road.put(PATIENT, {**ORDER, "requisition": accession})
    road.put(numbered(ORDER, "P7", requisition=accession))
    road.put(SECOND)
    road.put(numbered(SECOND, "P8"))
    assert road.put({**SECOND, "id": "o3"}, {**TASK, "basedOn": [{"reference": "ServiceRequest/o3"}]}).status == 200
    made = [each for number, each in keys(road.items()).items() if number != "P7"]
    assert differ(*made)
    assert len({each[0] for each in keys(road.items()).values()}) == 3


def test_a_procedure_that_is_added_later_has_keys_of_its_own_too(road: Road) -> None:
    child = {"basedOn": [{"reference": "ServiceRequest/o1"}], "identifier": []}
    road.put(PATIENT, ORDER, {**ORDER, "id": "c1", **child}, {**ORDER, "id": "c2", **child})
    road.put(numbered(ORDER, "P7"))
    child = {"basedOn": [{"reference": "ServiceRequest/o2"}], "identifier": []}
    assert road.put(SECOND, {**SECOND, "id": "c3", **child}).status == 200
    assert road.put({**SECOND, "id": "c4", **child}).status == 201
    uids = [text(item.attributes, "StudyInstanceUID") for item in road.items()]
    assert len(set(uids)) == len(uids) == 4


def test_an_accession_number_that_was_derived_from_the_order_number_follows_it(road: Road) -> None:
    accession = {"from": "ServiceRequest.requisition", "missing": {"derive": NUMBER}}
    said = {**RULES, "identity": {**RULES["identity"], "AccessionNumber": accession}}
    road.feed = replace(road.feed, mappings={Release.R4: mapping_of(said)})
    road.put(PATIENT, ORDER)
    road.put(numbered(ORDER, "P7"))
    road.put(SECOND)
    assert {number: made[1] for number, made in keys(road.items()).items()} == {"P7": "P7", "P1": "P1"}


def ordered(placer: str, filler: str) -> OrderEvent:
    step = {
        TAG["Modality"]: element("Modality", "CT"),
        TAG["ScheduledProcedureStepStartDate"]: element("ScheduledProcedureStepStartDate", "20260706"),
        TAG["ScheduledProcedureStepStartTime"]: element("ScheduledProcedureStepStartTime", "0930"),
        TAG["ScheduledStationAETitle"]: element("ScheduledStationAETitle", "CT1"),
    }
    numbers = [Identifier(each, "1.2.4") if each else None for each in (placer, filler)]
    attributes = {TAG[NUMBER]: element(NUMBER, placer or filler)}
    patient = PatientInput((Identifier("100", "1.2.3"),), {TAG["PatientID"]: element("PatientID", "100")})
    procedure = ProcedureInput("", "", None, {}, (StepInput("", step),))
    policies = dict.fromkeys(KEYS, Policy("generate"))
    return OrderEvent(OrderControl.XO, "", *numbers, patient, None, attributes, (procedure,), policies, "ORC[1]")


def test_a_filler_number_that_the_ris_replaced_is_that_of_its_next_order(road: Road) -> None:
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    for event in (ordered("", "F1"), ordered("P1", "F1"), ordered("P1", "F2"), ordered("", "F1")):
        road.store.write(lambda unit, one=event: apply_events(unit, [one], under, now())).result()
    made = keys(road.items())
    assert differ(made["P1"], made["F1"])


NECK = numbered(ORDER, "P2", id="o2", code={"text": "CT neck"})
BEGUN = {**TASK, "status": "in-progress"}


def listed(road: Road) -> list[tuple[str, ...]]:
    """(order number, what is to be done, status) of each item."""
    return sorted(
        (text(item.attributes, NUMBER), text(item.attributes, "RequestedProcedureDescription"), item.status.value)
        for item in road.items()
    )


@pytest.mark.parametrize("begun", ["o1", "o2"])
@pytest.mark.parametrize(
    ("first", "second"), [("P2", "P1"), ("P2", "P3"), ("P3", "P1")], ids=["exchanged", "up", "down"]
)
def test_numbers_are_not_exchanged_at_once_after_work_on_one_of_the_orders_has_begun(
    road: Road, begun: str, first: str, second: str
) -> None:
    task = {**BEGUN, "basedOn": [{"reference": f"ServiceRequest/{begun}"}]}
    road.put(PATIENT, ORDER, NECK, {**task, "status": "requested"})
    road.put(task)
    before = listed(road)
    answer = road.put(numbered(ORDER, first), numbered(NECK, second))
    assert answer.status == 409
    assert "ServiceRequest.identifier: orders exchange numbers at once" in road.messages()[-1].record.reasons
    assert listed(road) == before
    for each in (numbered(ORDER, "P9"), numbered(NECK, second), numbered(ORDER, first)):  # as the refusal says
        assert road.put(each).status == 200
    status = {"o1": ("STARTED", "SCHEDULED"), "o2": ("SCHEDULED", "STARTED")}[begun]
    assert listed(road) == sorted([(first, "CT head", status[0]), (second, "CT neck", status[1])])


def test_a_number_is_not_taken_at_once_from_an_order_on_which_work_has_begun(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK)
    road.put(BEGUN)
    assert road.put(numbered(ORDER, "P7"), {**NECK, "identifier": ORDER["identifier"]}).status == 409
    assert road.put(numbered(ORDER, "P7")).status == 200
    assert road.put({**NECK, "identifier": ORDER["identifier"]}).status == 201
    assert listed(road) == [("P1", "CT neck", "SCHEDULED"), ("P7", "CT head", "STARTED")]


def test_an_order_on_which_work_has_begun_does_not_become_another(road: Road) -> None:
    road.put(PATIENT, ORDER, NECK, TASK)
    road.put(BEGUN)
    before = listed(road)
    assert road.put(numbered(ORDER, "P2")).status == 409
    assert "give the other order another one first" in str(road.put(numbered(ORDER, "P2")).body)
    assert listed(road) == before
    assert road.put(numbered(NECK, "P3")).status == 200
    assert road.put(numbered(ORDER, "P2")).status == 200
    assert listed(road) == [("P2", "CT head", "STARTED"), ("P3", "CT neck", "SCHEDULED")]


def test_an_order_that_goes_on_as_another_request_may_have_begun(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK)
    road.put(BEGUN)
    moved = {**BEGUN, "basedOn": [{"reference": "ServiceRequest/o2"}]}
    asked = [Interaction(Verb.UPDATE, each["resourceType"], each["id"], each) for each in (SECOND, moved)]
    assert road.run(request_of([*asked, Interaction(Verb.DELETE, "ServiceRequest", "o1")])).status == 200
    assert listed(road) == [("P1", "CT head", "STARTED")]
