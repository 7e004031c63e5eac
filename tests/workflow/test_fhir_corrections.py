"""What a sender corrects is corrected on the list: what it said and says no more is taken back, nothing else."""

import itertools
import shutil
from pathlib import Path

import pytest
from fhir_roads import ENCOUNTER, ORDER, PATIENT, PRACTITIONER, TASK, Road
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import TAG, element, text
from gateway.domain.facts import Stamp, as_news
from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderEvent, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput, PatientUpdate
from gateway.processing import now
from gateway.workflow.orders import apply_events

PLACER = {"system": "urn:oid:1.2.4", "value": "P1"}
ACCESSION = {"type": {"coding": [{"code": "ACSN"}]}, "system": "urn:oid:1.2.6", "value": "A1"}
WITH_ACCESSION = {**ORDER, "requisition": ACCESSION}
OTHER = {**ORDER, "id": "o2", "identifier": [{**PLACER, "value": "P2"}]}
OTHER_PATIENT = {**PATIENT, "id": "p2", "identifier": [{"system": "urn:oid:1.2.3", "value": "200"}]}
APPOINTMENT = {
    "resourceType": "Appointment", "id": "a1", "status": "booked", "basedOn": [{"reference": "ServiceRequest/o1"}],
    "start": "2026-07-06T11:00:00+02:00", "end": "2026-07-06T11:15:00+02:00",
    "participant": [{"actor": {"reference": "Patient/p1"}, "status": "accepted"}],
}  # fmt: skip
STARTED = {**TASK, "status": "in-progress"}


@pytest.fixture
def road(template, tmp_path):
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


def said_by_ris(road, *events):
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    road.store.write(lambda unit: apply_events(unit, list(events), under, now())).result()


def shown(road, *keywords):
    """(status, what is shown) of each step, in no order of their making."""
    return sorted(
        (item.status.value, *(text(item.attributes, each) or text(item.step, each) for each in keywords))
        for item in road.items()
    )


def test_an_order_that_replaces_one_of_the_same_number_is_that_order(road):
    road.put(PATIENT, ORDER)
    answer = road.put({**ORDER, "id": "o2", "replaces": [{"reference": "ServiceRequest/o1"}]})
    assert answer.status == 201
    assert road.statuses() == ["SCHEDULED"]


def test_an_order_that_replaces_another_takes_it_off_the_list(road):
    road.put(PATIENT, ORDER)
    road.put({**OTHER, "replaces": [{"reference": "ServiceRequest/o1"}]})
    number = "PlacerOrderNumberImagingServiceRequest"
    assert shown(road, number) == [("CANCELED", "P1"), ("SCHEDULED", "P2")]
    road.put({**OTHER, "replaces": [{"reference": "ServiceRequest/o1"}], "status": "revoked"})
    assert shown(road, number) == [("CANCELED", "P1"), ("CANCELED", "P2")]


def test_a_corrected_order_number_is_that_of_the_same_order(road):
    road.put(PATIENT, ORDER)
    study = road.said("StudyInstanceUID")
    road.put({**ORDER, "identifier": [{**PLACER, "value": "P9"}]})
    assert road.said("PlacerOrderNumberImagingServiceRequest") == "P9"
    assert road.said("StudyInstanceUID") == study
    road.put({**ORDER, "identifier": [{**PLACER, "value": "P9"}], "status": "revoked"})
    assert road.statuses() == ["CANCELED"]


def test_a_corrected_accession_number_is_that_of_the_same_procedure(road):
    road.put(PATIENT, WITH_ACCESSION)
    road.put({**ORDER, "requisition": {**ACCESSION, "value": "A9"}})
    assert road.said("AccessionNumber") == "A9"


def test_a_number_that_another_order_has_leaves_one_order_and_takes_the_former_back(road):
    road.put(PATIENT, ORDER, OTHER)
    road.put({**ORDER, "identifier": OTHER["identifier"]})
    number = "PlacerOrderNumberImagingServiceRequest"
    assert shown(road, number) == [("CANCELED", "P1"), ("SCHEDULED", "P2")]


@pytest.mark.parametrize(
    ("numbers", "gone"),
    [(("P2", "P1"), []), (("P2", "P3"), [("CANCELED", "P1")]), (("P3", "P1"), [("CANCELED", "P2")])],
    ids=["exchanged", "up", "down"],
)  # fmt: skip
def test_numbers_that_go_on_to_the_next_order_leave_every_order_on_the_list(road, numbers, gone):
    neck = {**OTHER, "code": {"text": "CT neck"}}
    road.put(PATIENT, ORDER, neck)
    road.put(*({**each, "identifier": [{**PLACER, "value": number}]}
               for each, number in zip((ORDER, neck), numbers, strict=True)))  # fmt: skip
    said = "PlacerOrderNumberImagingServiceRequest", "RequestedProcedureDescription"
    listed = [("SCHEDULED", numbers[0], "CT head"), ("SCHEDULED", numbers[1], "CT neck")]
    assert [each for each in shown(road, *said) if each[0] == "SCHEDULED"] == sorted(listed)
    assert [each[:2] for each in shown(road, *said) if each[0] != "SCHEDULED"] == gone


def test_numbers_that_two_patients_orders_exchange_are_those_of_the_right_patient(road):
    neck = {**OTHER, "code": {"text": "CT neck"}, "subject": {"reference": "Patient/p2"}}
    road.put(PATIENT, OTHER_PATIENT, ORDER, neck)
    road.put({**ORDER, "identifier": OTHER["identifier"]}, {**neck, "identifier": ORDER["identifier"]})
    said = "PlacerOrderNumberImagingServiceRequest", "PatientID", "RequestedProcedureDescription"
    assert shown(road, *said) == [("SCHEDULED", "P1", "200", "CT neck"), ("SCHEDULED", "P2", "100", "CT head")]


def test_a_task_that_is_moved_to_another_order_is_a_step_of_that_alone(road):
    road.put(PATIENT, ORDER, OTHER, TASK)
    road.put({**TASK, "basedOn": [{"reference": "ServiceRequest/o2"}]})
    said = "PlacerOrderNumberImagingServiceRequest", "CommentsOnTheScheduledProcedureStep"
    assert shown(road, *said) == [("SCHEDULED", "P1", ""), ("SCHEDULED", "P2", "no contrast")]


def test_a_procedure_that_is_moved_to_another_order_is_on_that_alone(road):
    child = {**ORDER, "id": "c1", "basedOn": [{"reference": "ServiceRequest/o1"}], "code": {"text": "CT neck"}}
    del child["identifier"]
    other_child = {**child, "id": "c2", "code": {"text": "CT thorax"}}
    road.put(PATIENT, ORDER, OTHER, child, other_child)
    road.put({**child, "basedOn": [{"reference": "ServiceRequest/o2"}]})
    said = "PlacerOrderNumberImagingServiceRequest", "RequestedProcedureDescription"
    assert [each for each in shown(road, *said) if each[0] == "SCHEDULED"] == [
        ("SCHEDULED", "P1", "CT thorax"), ("SCHEDULED", "P2", "CT neck")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said", [{"status": "draft"}, {"intent": "plan"}, {"doNotPerform": True}, {"status": "unknown"}], ids=str
)
def test_what_is_not_scheduled_any_more_is_off_the_list_and_comes_back(road, said):
    road.put(PATIENT, ORDER)
    assert road.put({**ORDER, **said}).status == 200
    assert road.statuses() == ["CANCELED"]
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED"]


def test_a_new_order_not_to_be_performed_is_refused(road):
    road.put(PATIENT)
    assert road.put({**ORDER, "doNotPerform": True}).status == 422


def test_an_appointment_that_is_not_booked_any_more_schedules_nothing(road):
    road.put(PATIENT, ORDER, APPOINTMENT)
    road.put({**APPOINTMENT, "status": "pending"})
    assert road.statuses() == ["CANCELED"]


def test_what_is_performed_is_not_taken_back(road):
    road.put(PATIENT, ORDER, TASK)
    road.put(STARTED)
    assert road.put({**ORDER, "status": "draft"}).status == 200
    assert road.statuses() == ["STARTED"]


def test_a_corrected_patient_number_is_that_of_the_same_person(road):
    road.put(PATIENT, ORDER)
    road.put({**PATIENT, "identifier": [{"system": "urn:oid:1.2.3", "value": "101"}]})
    assert road.said("PatientID") == "101"
    assert road.put({**ORDER, "status": "revoked"}).status == 200
    assert road.statuses() == ["CANCELED"]


def test_a_corrected_subject_takes_the_order_along(road):
    road.put(PATIENT, OTHER_PATIENT, ORDER)
    road.put({**ORDER, "subject": {"reference": "Patient/p2"}})
    assert road.said("PatientID") == "200"


def test_the_subject_of_what_is_performed_stays_and_the_refusal_says_where(road):
    road.put(PATIENT, OTHER_PATIENT, ORDER, TASK)
    road.put(STARTED)
    answer = road.put({**ORDER, "subject": {"reference": "Patient/p2"}})
    assert answer.status == 409
    assert road.said("PatientID") == "100"
    assert "ServiceRequest.subject" in road.messages()[-1].record.reasons
    assert "A40" not in road.messages()[-1].record.reasons


def test_an_order_number_of_another_patients_order_is_refused(road):
    road.put(PATIENT, OTHER_PATIENT, ORDER)
    answer = road.put({**ORDER, "id": "o9", "subject": {"reference": "Patient/p2"}})
    assert answer.status == 409
    assert road.said("PatientID") == "100"


def test_an_appointment_of_another_patient_is_refused(road):
    road.put(PATIENT, OTHER_PATIENT, ORDER)
    others, own = ({"actor": {"reference": f"Patient/{each}"}, "status": "accepted"} for each in ("p2", "p1"))
    answer = road.put({**APPOINTMENT, "participant": [others]})
    assert answer.status == 409
    assert "Appointment.participant: is another patient" in road.messages()[-1].record.reasons
    assert road.put({**APPOINTMENT, "participant": [others, own]}).status == 201
    assert road.statuses() == ["SCHEDULED"]


def test_tasks_of_one_identifier_are_one_step_with_a_note(road):
    rules = {"from": ["Task.identifier.value", "Task.select(%step)"], "missing": "generate"}
    road.feed = road.feed_with(road.rules["rules"], ScheduledProcedureStepID=rules)
    number = {"identifier": [{"value": "S1"}]}
    road.put(PATIENT, ORDER, TASK | number, {**TASK, "id": "t2"} | number)
    assert "Task/t2 has the identifier of Task/t1" in road.messages()[-1].record.reasons
    assert road.statuses() == ["SCHEDULED"]


MOVED = StepInput("", {
    TAG["ScheduledProcedureStepStartTime"]: element("ScheduledProcedureStepStartTime", "140000"),
})  # fmt: skip
PERSON = PatientInput((Identifier("100", "1.2.3"),), {})


def test_what_another_sender_moved_stays_where_something_else_is_corrected(road):
    road.put(PATIENT, ORDER, PRACTITIONER)
    moved = ProcedureInput("", "", None, {}, (MOVED,))
    said_by_ris(road, OrderEvent(OrderControl.XO, "", Identifier("P1", "1.2.4"), None, PERSON, None, {}, (moved,)))
    assert road.said("ScheduledProcedureStepStartTime") == "140000"
    road.put({**PRACTITIONER, "name": [{"family": "Inquirer"}]})
    assert road.said("RequestingPhysician").startswith("Inquirer")
    assert road.said("ScheduledProcedureStepStartTime") == "140000"
    road.put({**ORDER, "occurrenceDateTime": "2026-07-06T10:00:00+02:00"})
    assert road.said("ScheduledProcedureStepStartTime") == "100000"


def test_taking_back_leaves_what_another_sender_said(road):
    telecom = [{"system": "phone", "value": "1"}]
    road.put({**PATIENT, "telecom": telecom}, ORDER)
    phone = {TAG["PatientTelephoneNumbers"]: element("PatientTelephoneNumbers", "2")}
    said_by_ris(road, PatientUpdate(PatientInput(PERSON.identifiers, phone)))
    road.put(PATIENT)
    assert road.said("PatientTelephoneNumbers") == "2"
    road.put({**PATIENT, "telecom": [{"system": "phone", "value": "3"}]})
    road.put(PATIENT)
    assert road.said("PatientTelephoneNumbers") == ""


def test_taking_back_keeps_to_the_person(road):
    road.put({**PATIENT, "telecom": [{"system": "phone", "value": "1"}]}, ORDER)
    road.put(
        {**OTHER_PATIENT, "telecom": [{"system": "phone", "value": "1"}]},
        {**OTHER, "subject": {"reference": "Patient/p2"}},
    )
    road.put({**ORDER, "subject": {"reference": "Patient/p2"}})
    assert {each[2] for each in shown(road, "PatientID", "PatientTelephoneNumbers")} == {"1"}


def test_a_visit_that_the_order_does_not_name_any_more_is_not_its(road):
    road.put(PATIENT, ENCOUNTER, ORDER)
    assert road.said("AdmissionID") == "V1"
    without = {name: each for name, each in ORDER.items() if name != "encounter"}
    road.put(without)
    assert road.said("AdmissionID") == ""


def test_who_arrives_for_one_appointment_has_not_arrived_for_another_order(road):
    later = {**APPOINTMENT, "id": "a2", "basedOn": [{"reference": "ServiceRequest/o2"}]}
    road.put(PATIENT, ORDER, OTHER, APPOINTMENT, later)
    road.put({**APPOINTMENT, "status": "arrived"})
    number = "PlacerOrderNumberImagingServiceRequest"
    assert shown(road, number) == [("ARRIVED", "P1"), ("SCHEDULED", "P2")]


def test_an_arrival_that_comes_with_its_order_counts(road):
    road.put(PATIENT, ORDER, {**APPOINTMENT, "status": "arrived"})
    assert road.statuses() == ["ARRIVED"]


def test_who_arrives_for_a_visit_has_arrived_for_the_orders_of_that_visit(road):
    without = {name: each for name, each in OTHER.items() if name != "encounter"}
    road.put(PATIENT, ENCOUNTER, ORDER, without)
    road.put({**ENCOUNTER, "status": "arrived"})
    number = "PlacerOrderNumberImagingServiceRequest"
    assert shown(road, number) == [("ARRIVED", "P1"), ("SCHEDULED", "P2")]


def test_a_second_request_of_the_same_order_leaves_the_first_ones_parts(road):
    road.put(PATIENT, ORDER, TASK)
    road.put({**ORDER, "id": "o1b"})
    (order,) = road.store.reader.orders(Identifier("P1", "1.2.4"), None)
    parts = {each.key.reference for each in road.store.reader.order_parts(order.id)}
    assert {"ServiceRequest/o1", "ServiceRequest/o1b", "Task/t1"} <= parts


@pytest.mark.parametrize("first", [True, False], ids=["the order first", "the Task first"])
def test_a_task_names_its_order_by_a_number(road, first):
    task = {**TASK, "basedOn": [{"type": "ServiceRequest", "identifier": PLACER}]}
    road.put(PATIENT)
    for each in (ORDER, task) if first else (task, ORDER):
        road.put(each)
    assert road.said("CommentsOnTheScheduledProcedureStep") == "no contrast"


def test_a_hold_that_comes_too_late_names_the_status(road):
    road.put(PATIENT, ORDER, TASK)
    road.put(STARTED)
    answer = road.put({**ORDER, "status": "on-hold"})
    assert answer.status == 409
    reasons = road.messages()[-1].record.reasons
    assert "ServiceRequest.status" in reasons
    assert "send DC" not in reasons


def test_news_is_what_differs_and_what_is_held_still_of_what_is_said_no_more():
    def lo(value):
        return {"vr": "LO", "Value": [value]}

    former = {"1": lo("a"), "2": lo("b"), "3": lo("c"), "4": lo("d")}
    held = {"1": lo("other"), "2": lo("b"), "3": lo("other"), "4": lo("d")}
    said = {"1": lo("a"), "5": lo("e")}
    assert as_news(said, former, held, {"4": lo("usual")}) == {"2": {"vr": "LO"}, "4": lo("usual"), "5": lo("e")}
    assert as_news(said, None, held) == said


# --- any versions in any order ----------------------------------------------------------------------------------------

_BARE = {name: each for name, each in ORDER.items() if name not in ("requester", "encounter")}
_ORDERS = [
    {**ORDER, **numbers, **said}
    for numbers, said in itertools.product(
        ({}, {"identifier": [{**PLACER, "value": "P9"}]}, {"requisition": ACCESSION}),
        (
            {}, {"patientInstruction": "come sober"}, {"status": "draft"}, {"intent": "plan"}, {"status": "on-hold"},
            {"status": "revoked"}, {"status": "revoked", "patientInstruction": "come sober"},
        ),
    )
] + [
    _BARE, {**_BARE, "subject": {"reference": "Patient/p2"}}, {**_BARE, "status": "draft"},
    {**ORDER, "code": {"text": "CT neck"}},
]  # fmt: skip
_TASKS = [
    TASK, {**TASK, "description": "thin slices"}, {**TASK, "status": "draft"}, {**TASK, "status": "on-hold"},
    {**TASK, "basedOn": [{"reference": "ServiceRequest/o2"}]},
]  # fmt: skip
_BOOKED = {**APPOINTMENT, "participant": [{"actor": {"display": "CT 1"}, "status": "accepted"}]}  # for any patient
_APPOINTMENTS = [
    _BOOKED, {**_BOOKED, "status": "pending"}, {**_BOOKED, "status": "cancelled"},
    {**_BOOKED, "start": "2026-07-06T11:05:00+02:00"},
]  # fmt: skip
_PEOPLE = [
    PATIENT, {**PATIENT, "telecom": [{"system": "phone", "value": "1"}]},
    {**PATIENT, "identifier": [{"system": "urn:oid:1.2.3", "value": "101"}]},
]  # fmt: skip
_VISITS = [ENCOUNTER, {name: each for name, each in ENCOUNTER.items() if name != "location"}]
_DOCTORS = [PRACTITIONER, {**PRACTITIONER, "name": [{"family": "Inquirer"}]}]
_VERSIONS = [*_ORDERS, *_TASKS, *_APPOINTMENTS, *_PEOPLE, *_VISITS, *_DOCTORS]
_KEYWORDS = (
    "PatientID", "PatientTelephoneNumbers", "PlacerOrderNumberImagingServiceRequest", "RequestedProcedureComments",
    "RequestingPhysician", "AdmissionID", "CurrentPatientLocation", "RequestedProcedureDescription",
    "ScheduledProcedureStepStartTime", "CommentsOnTheScheduledProcedureStep",
)  # fmt: skip


@pytest.fixture(scope="module")
def empty(template, tmp_path_factory):
    return Path(shutil.copy(template[1], tmp_path_factory.mktemp("versions")))


def listed_after(empty, *posted):
    road = Road(shutil.copy(empty, empty.with_name("any.db")))
    try:
        for each in posted:
            assert road.put(each).status in (200, 201)
        return [each for each in shown(road, *_KEYWORDS) if each[0] == "SCHEDULED"]
    finally:
        road.close()
        for leftover in empty.parent.glob("any.db*"):
            leftover.unlink()


BASE = [PRACTITIONER, ENCOUNTER, PATIENT, OTHER_PATIENT, OTHER, ORDER]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posted=st.lists(st.sampled_from(_VERSIONS), max_size=6))
def test_any_versions_end_in_the_list_that_the_last_ones_make(empty, posted):
    last = {f"{each['resourceType']}/{each['id']}": each for each in (*BASE, *posted)}
    assert listed_after(empty, *BASE, *posted) == listed_after(empty, *last.values())


RENUMBERED = {"identifier": [{**PLACER, "value": "P9"}]}


@pytest.mark.parametrize(
    "posted",
    [
        ({**ORDER, "status": "draft"} | RENUMBERED, ORDER | RENUMBERED),
        ({**ORDER, "intent": "plan"} | RENUMBERED, ORDER),
        ({**ORDER, "patientInstruction": "come sober"}, {**ORDER, "status": "draft"}, ORDER),
        ({**ORDER, "patientInstruction": "come sober"}, {**ORDER, "status": "revoked"}, ORDER),
        ({**ORDER, "patientInstruction": "come sober"}, {**ORDER, "status": "on-hold"}, ORDER),
        (PATIENT | {"telecom": [{"system": "phone", "value": "1"}]}, {**ORDER, "status": "revoked"}),
        (TASK, {**ORDER, "intent": "plan"}, _TASKS[-1], ORDER),
        ({**ORDER, "status": "draft"} | RENUMBERED, _DOCTORS[1], _BARE),
        (APPOINTMENT, {**TASK, "status": "on-hold"}, {**_BARE, "status": "draft"}),
        (_ORDERS[-3], {**_BARE, "status": "draft"}, _BARE),
    ],
    ids=[
        "a draft under another number", "a plan under another number and back", "what a draft says no more",
        "what a revoked one says no more", "what a held one says no more", "a revoked one of a corrected patient",
        "a Task moved away from a plan", "a name corrected beside a draft, then not named",
        "a held Task in place of an appointment", "a draft of another patient's order",
    ],
)  # fmt: skip
def test_these_versions_end_in_the_list_that_the_last_ones_make(empty, posted):
    last = {f"{each['resourceType']}/{each['id']}": each for each in (*BASE, *posted)}
    assert listed_after(empty, *BASE, *posted) == listed_after(empty, *last.values())


def test_a_draft_with_the_number_of_another_request_changes_nothing_of_that(road):
    road.put(PATIENT, ORDER)
    draft = {**ORDER, "id": "o9", "status": "draft", "patientInstruction": "come sober"}
    road.put(draft)
    road.put({**draft, "patientInstruction": "come in the morning"})
    assert shown(road, "RequestedProcedureComments") == [("SCHEDULED", "")]
    road.put({**draft, "status": "active"})
    assert shown(road, "RequestedProcedureComments") == [("SCHEDULED", "come sober")]


def test_a_draft_under_the_number_of_another_request_says_nothing_of_that(road):
    neck = {**OTHER, "code": {"text": "CT neck"}}
    road.put(PATIENT, ORDER, neck)
    road.put({**neck, "status": "draft", "identifier": ORDER["identifier"]})
    said = "PlacerOrderNumberImagingServiceRequest", "RequestedProcedureDescription"
    assert shown(road, *said) == [("CANCELED", "P2", "CT neck"), ("SCHEDULED", "P1", "CT head")]
    road.put(neck)
    assert shown(road, *said) == [("SCHEDULED", "P1", "CT head"), ("SCHEDULED", "P2", "CT neck")]


@pytest.mark.parametrize("status", ["cancelled", "on-hold", "completed", "failed"])
@pytest.mark.parametrize("names", ["t1 t2", "t2 t1"])
def test_a_step_that_never_was_on_the_list_leaves_the_others_alone(road, status, names):
    first, second = ({**TASK, "id": name} for name in names.split())
    never = {**second, "status": status}
    assert road.put(PATIENT, ORDER, first, never).status == 200
    assert road.statuses().count("SCHEDULED") == 1
    assert road.put({**ORDER, "status": "on-hold"}).status == 200
    assert road.statuses().count("SCHEDULED") == 0
    road.put(ORDER)
    assert road.statuses().count("SCHEDULED") == 1
    road.put({**first, "status": "cancelled"})
    assert road.statuses().count("SCHEDULED") == 0


def test_an_order_of_which_nothing_is_held_waits(road):
    road.put(PATIENT, {**ORDER, "status": "on-hold"}, TASK)
    assert road.messages()[-1].record.disposition == "early"


def test_what_is_wrong_with_a_revoked_order_does_not_leave_it_on_the_list(road):
    road.put(PATIENT, ORDER)
    wrong = {name: each for name, each in ORDER.items() if name != "occurrenceDateTime"}
    assert road.put({**wrong, "status": "revoked"}).status == 200
    assert road.statuses() == ["CANCELED"]
