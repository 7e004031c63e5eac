"""Whatever order its resources come in, an order ends in the same item; and what each of them changes in it."""

import itertools
import shutil
from pathlib import Path

import pytest
from fhir_roads import ENCOUNTER, FLAG, ORDER, PATIENT, PRACTITIONER, TASK, Road
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import text
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderEvent
from gateway.domain.patient import PatientInput
from gateway.domain.resources import OrderPart, ResourceKey
from gateway.processing import now
from gateway.workflow.orders import apply_events


@pytest.fixture
def road(template, tmp_path):
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


def lasting(road):
    """What no clock made."""
    return [(item.status.value, item.attributes) for item in road.items()]


def test_an_order_with_its_patient_is_on_the_worklist(road):
    answer = road.put(PATIENT, ORDER)

    assert answer.status == 200
    assert road.item().status.value == "SCHEDULED"
    assert road.said("RequestedProcedureDescription") == "CT head"
    assert road.said("ScheduledProcedureStepStartTime") == "093000"
    assert road.messages()[0].record.disposition == "accepted"
    assert ("placer", "P1") in road.messages()[0].record.keys


def test_an_order_waits_for_its_patient_and_acts_when_the_patient_comes(road):
    waiting = road.put(ORDER)

    assert waiting.status == 201
    assert any("waits for Patient/p1" in note for note in waiting.notes)
    assert road.items() == []
    assert ("placer", "P1") in road.messages()[0].record.keys
    assert road.put(PATIENT).status == 201
    assert text(road.item().attributes, "PatientName") == "Doe^Jane"


ALL = (PATIENT, ORDER, TASK, PRACTITIONER, ENCOUNTER, FLAG)


@pytest.fixture(scope="module")
def empty(template, tmp_path_factory):
    """An empty database to copy."""
    return Path(shutil.copy(template[1], tmp_path_factory.mktemp("any")))


@pytest.fixture(scope="module")
def in_true_order(empty):
    opened = Road(shutil.copy(empty, empty.with_name("true.db")))
    opened.put(*ALL)
    yield lasting(opened)
    opened.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.permutations(range(len(ALL))), together=st.integers(0, 3))
def test_resources_in_any_order_end_in_the_same_item(empty, in_true_order, places, together):
    arriving = [ALL[place] for place in places]
    road = Road(shutil.copy(empty, empty.with_name("any.db")))
    try:
        if together:
            road.put(*arriving[:together])
        for resource in arriving[together:]:
            assert road.put(resource).status in (200, 201)
        assert [(status, _shown(attributes)) for status, attributes in lasting(road)] == [
            (status, _shown(attributes)) for status, attributes in in_true_order
        ]
    finally:
        road.close()
        for leftover in empty.parent.glob("any.db*"):
            leftover.unlink()


MADE_HERE = {"0020000D", "00400009", "00080050", "00401001"}
"""Keys that are minted: another store has others."""


def _shown(attributes):
    return {
        tag: [_shown(inner) for inner in each["Value"]] if each["vr"] == "SQ" else each
        for tag, each in attributes.items()
        if tag not in MADE_HERE
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [("revoked", "CANCELED"), ("on-hold", "ON HOLD"), ("completed", "COMPLETED"), ("entered-in-error", "CANCELED")],
)
def test_the_status_of_the_request_is_that_of_its_steps(road, status, expected):
    road.put(PATIENT, ORDER)
    road.put({**ORDER, "status": status})
    assert road.statuses() == [expected]


def test_what_was_held_goes_on_when_it_is_active_again(road):
    road.put(PATIENT, ORDER)
    road.put({**ORDER, "status": "on-hold"})
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED"]


def test_what_a_version_does_not_say_any_more_is_taken_back(road):
    road.put(PATIENT, {**ORDER, "patientInstruction": "come sober"})
    assert road.said("RequestedProcedureComments") == "come sober"
    road.put(ORDER)
    assert road.said("RequestedProcedureComments") == ""
    assert road.said("RequestedProcedureDescription") == "CT head"


def test_a_new_telephone_number_does_not_bring_back_what_another_sender_cancelled(road):
    road.put(PATIENT, ORDER)
    cancel = OrderEvent(
        OrderControl.CA, "", Identifier("P1", "1.2.4"), None, PatientInput((Identifier("100", "1.2.3"),), {}), None, {}
    )
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    road.store.write(lambda unit: apply_events(unit, [cancel], under, now())).result()
    assert road.statuses() == ["CANCELED"]
    road.put({**ORDER, "patientInstruction": "come sober"})
    road.put(PRACTITIONER)
    assert road.statuses() == ["CANCELED"]
    road.put({**ORDER, "status": "on-hold"})
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED"]


def test_a_practitioner_who_is_corrected_is_corrected_in_the_open_orders(road):
    road.put(PATIENT, ORDER, PRACTITIONER)
    road.put({**PRACTITIONER, "name": [{"family": "Inquirer"}]})
    assert road.said("RequestingPhysician").startswith("Inquirer")


def test_a_flag_of_the_patient_is_in_the_item(road):
    road.put(PATIENT, ORDER)
    road.put(FLAG)
    assert road.said("MedicalAlerts") == "pacemaker"
    road.delete(FLAG)
    assert road.said("MedicalAlerts") == ""


def test_a_visit_that_comes_later_is_that_of_the_order(road):
    road.put(PATIENT, ORDER)
    road.put(ENCOUNTER)
    assert road.said("CurrentPatientLocation") == "Ward 7"


def test_each_task_is_a_step_and_one_that_is_deleted_is_cancelled(road):
    other = {**TASK, "id": "t2"}
    road.put(PATIENT, ORDER, TASK, other)
    assert road.statuses() == ["SCHEDULED", "SCHEDULED"]
    assert road.delete(other).status in (200, 204)
    assert road.statuses() == ["CANCELED", "SCHEDULED"]
    road.put({**TASK, "status": "cancelled"})
    assert road.statuses() == ["CANCELED", "CANCELED"]


def test_an_order_that_is_deleted_was_entered_in_error(road):
    road.put(PATIENT, ORDER)
    road.delete(ORDER)
    assert road.statuses() == ["CANCELED"]


def test_a_patient_with_orders_cannot_be_deleted(road):
    road.put(PATIENT, ORDER)
    answer = road.delete(PATIENT)
    assert answer.status == 409
    assert not road.held(PATIENT).deleted
    assert road.delete(ORDER, PATIENT).status == 200


def test_requested_procedures_of_one_order_are_one_order(road):
    children = [
        {**ORDER, "id": id_, "identifier": [], "basedOn": [{"reference": "ServiceRequest/o1"}], "code": {"text": id_}}
        for id_ in ("rp1", "rp2")
    ]
    for each in children:
        del each["identifier"]
    road.put(PATIENT, *children)
    assert road.items() == []
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED", "SCHEDULED"]
    assert len(road.store.reader.orders(Identifier("P1", "1.2.4"), None)) == 1


def test_the_resources_of_an_order_are_known(road):
    road.put(PATIENT, ORDER, TASK)
    (order,) = road.store.reader.orders(Identifier("P1", "1.2.4"), None)
    procedure = order.procedures[0]
    assert set(road.store.reader.order_parts(order.id)) == {
        OrderPart(order.id, ResourceKey("r4", "ServiceRequest", "o1")),
        OrderPart(
            order.id, ResourceKey("r4", "Task", "t1"), procedure.requested_procedure_id, procedure.steps[0].sps_id
        ),
    }


def test_requests_in_a_circle_end(road):
    one = {**ORDER, "basedOn": [{"reference": "ServiceRequest/o2"}]}
    two = {**ORDER, "id": "o2", "identifier": [{"system": "urn:oid:1.2.4", "value": "P2"}],
           "basedOn": [{"reference": "ServiceRequest/o1"}]}  # fmt: skip
    answer = road.put(PATIENT, one, two)
    assert answer.status == 422
    assert road.items() == []


def test_an_order_that_waited_and_cannot_be_scheduled_does_not_refuse_its_patient(road):
    late = {key: each for key, each in ORDER.items() if key != "occurrenceDateTime"}
    road.put(late)
    answer = road.put(PATIENT)
    assert answer.status == 201
    assert any("ServiceRequest/o1 cannot be scheduled" in note for note in answer.notes)
    assert road.messages()[-1].record.disposition == "held"
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED"]


@pytest.mark.parametrize("places", list(itertools.permutations(range(3))))
def test_the_task_says_when_whenever_it_comes(road, places):
    for place in places:
        road.put((PATIENT, ORDER, TASK)[place])
    assert road.said("ScheduledProcedureStepStartTime") == "110000"


def test_a_start_that_names_no_day_is_refused_in_the_words_of_fhir(road):
    answer = road.put(PATIENT, {**ORDER, "occurrenceDateTime": "2026-07"})
    assert answer.status == 422
    assert "send YYYY-MM-DD" in road.messages()[-1].record.reasons


PLAN = {**ORDER, "id": "plan", "intent": "plan", "identifier": [{"system": "urn:oid:1.2.4", "value": "PLAN"}]}


def test_an_order_waits_for_the_plan_that_it_is_based_on(road):
    road.put(PATIENT, {**ORDER, "basedOn": [{"reference": "ServiceRequest/plan"}]})
    assert road.statuses() == []
    road.put(PLAN)
    assert road.said("PlacerOrderNumberImagingServiceRequest") == "P1"


@pytest.mark.parametrize("intents", [("plan", "order"), ("order", "plan")])
def test_what_is_based_on_a_plan_follows_where_that_becomes_an_order(road, intents):
    bare = {name: each for name, each in ORDER.items() if name != "identifier"}
    road.put(PATIENT, {**PLAN, "intent": intents[0]}, {**bare, "basedOn": [{"reference": "ServiceRequest/plan"}]})
    road.put({**PLAN, "intent": intents[1]})
    assert road.statuses().count("SCHEDULED") == 1


def test_requests_on_more_ways_than_can_be_gone_are_refused_at_once(road):
    """Fourteen layers of three requests, each based on all of the layer above: five million ways."""
    bare = {name: each for name, each in ORDER.items() if name not in ("identifier", "requester", "encounter")}
    made, above = [], ["o1"]
    for layer in range(14):
        names = [f"l{layer}-{number}" for number in range(3)]
        based = [{"reference": f"ServiceRequest/{name}"} for name in above]
        made += [{**bare, "id": name, "basedOn": based} for name in names]
        above = names
    assert road.put(PATIENT, ORDER, *made).status == 422
    assert "more than 500 steps" in road.messages()[-1].record.reasons


def test_an_organization_at_the_top_of_very_many_is_taken(road):
    count = 1_100  # more than functions that may call each other
    chain = [
        {"resourceType": "Organization", "id": f"u{number}", "name": "Unit",
         "partOf": {"reference": f"Organization/u{number + 1}"}}
        for number in range(count)
    ]  # fmt: skip
    top = {"resourceType": "Organization", "id": f"u{count}", "name": "Hospital"}
    assert road.put(*chain, top).status == 200
