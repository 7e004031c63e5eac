"""The status tables of FHIR are total over the codes of R4, R4B and R5, and agree with what orders can do."""

from itertools import product

import pytest

from gateway.domain.order import ORDER_STATUSES, OrderControl, Takes, Unheld, effect_of, removes
from gateway.domain.patient import VisitChange
from gateway.domain.worklist import StepEvent
from gateway.wire.fhir_states import (
    APPOINTMENT_STATES,
    ENCOUNTER_STATES,
    INTENTS,
    ORDER_STATES,
    STATES,
    TASK_STATES,
    together,
    word_of,
)

# The codes of the required value sets, R4 and R5 together (R4B has those of R4).
REQUEST_STATUS = {"draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"}
TASK_STATUS = {
    "draft", "requested", "received", "accepted", "rejected", "ready", "cancelled", "in-progress", "on-hold", "failed",
    "completed", "entered-in-error",
}  # fmt: skip
APPOINTMENT_STATUS = {
    "proposed", "pending", "booked", "arrived", "fulfilled", "cancelled", "noshow", "entered-in-error", "checked-in",
    "waitlist",
}  # fmt: skip
ENCOUNTER_STATUS = {
    "planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "entered-in-error", "unknown",
    "on-hold", "discharged", "completed", "discontinued",
}  # fmt: skip
REQUEST_INTENT = {
    "proposal", "plan", "directive", "order", "original-order", "reflex-order", "filler-order", "instance-order",
    "option",
}  # fmt: skip


STEPS = [(kind, status) for kind in ("Task", "Appointment") for status in STATES[kind]]
MEANINGS = {
    (order, kind, status): together((said, word_of(kind, status) if kind else ORDER_STATES["active"]))
    for order, said in ORDER_STATES.items()
    for kind, status in (("", ""), *STEPS)
}
"""(ServiceRequest.status, `Task`, `Appointment` or '', the status of that) -> what they mean together."""
PAIRS = frozenset(product(ORDER_STATES, ("", *TASK_STATES, *APPOINTMENT_STATES)))


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        (ORDER_STATES, REQUEST_STATUS | {"ended"}), (TASK_STATES, TASK_STATUS),
        (APPOINTMENT_STATES, APPOINTMENT_STATUS), (ENCOUNTER_STATES, ENCOUNTER_STATUS), (INTENTS, REQUEST_INTENT),
    ],
)  # fmt: skip
def test_every_code_has_a_row_and_no_row_is_of_another(table, codes):
    assert set(table) == codes


def test_every_pair_of_states_means_something_or_says_why_not():
    steps = (
        [("", "")] + [("Task", each) for each in TASK_STATUS] + [("Appointment", each) for each in APPOINTMENT_STATUS]
    )
    assert {(order, kind, status) for order, (kind, status) in product(ORDER_STATES, steps)} == set(MEANINGS)
    assert {(order, status) for order, _, status in MEANINGS} == PAIRS
    for meaning in MEANINGS.values():
        assert bool(meaning.note) == (meaning.control is None)
        assert meaning.order_status in ORDER_STATUSES


@pytest.mark.parametrize("pair", [key for key, word in MEANINGS.items() if word.control is not None])
def test_every_word_is_one_that_orders_understand(pair):
    word = MEANINGS[pair]
    effect = effect_of(word.control, word.order_status)
    assert effect.event is not None
    assert not effect.note
    assert (effect.unheld is Unheld.CREATED) == (word.control is OrderControl.NW)
    assert removes(word.control, word.order_status) == (word.control in (OrderControl.CA, OrderControl.DC))


@pytest.mark.parametrize(("kind", "status"), STEPS)
@pytest.mark.parametrize("order", sorted(set(ORDER_STATES) - {"active"}))
def test_what_takes_an_order_away_or_holds_it_goes_before_what_is_said_of_the_step(order, kind, status):
    assert MEANINGS[order, kind, status] == ORDER_STATES[order]


@pytest.mark.parametrize(("kind", "status"), STEPS)
def test_of_an_active_order_the_step_decides(kind, status):
    assert MEANINGS["active", kind, status] == word_of(kind, status)


@pytest.mark.parametrize(
    ("order", "kind", "status", "event"),
    [
        ("active", "", "", StepEvent.ORDERED_ANEW),
        ("active", "Task", "ready", StepEvent.ORDERED_ANEW),
        ("active", "Task", "in-progress", StepEvent.REPORTED_STARTED),
        ("active", "Task", "completed", StepEvent.REPORTED_COMPLETED),
        ("active", "Task", "failed", StepEvent.DISCONTINUE),
        ("active", "Task", "rejected", StepEvent.CANCEL),
        ("active", "Appointment", "noshow", StepEvent.CANCEL),
        ("active", "Appointment", "fulfilled", StepEvent.REPORTED_COMPLETED),
        ("on-hold", "Task", "in-progress", StepEvent.HOLD),
        ("revoked", "Task", "requested", StepEvent.CANCEL),
        ("completed", "", "", StepEvent.REPORTED_COMPLETED),
        ("entered-in-error", "Appointment", "booked", StepEvent.CANCEL),
    ],
)
def test_what_the_states_do_to_a_step(order, kind, status, event):
    word = MEANINGS[order, kind, status]
    assert effect_of(word.control, word.order_status).event is event


def test_only_an_appointment_brings_the_patient_and_only_one_that_is_listed():
    here = {(kind, status) for (order, kind, status), word in MEANINGS.items() if word.arrived}
    assert here == {("Appointment", "arrived"), ("Appointment", "checked-in")}
    assert {order for (order, _, _), word in MEANINGS.items() if word.arrived} == {"active"}


def test_a_status_that_nobody_knows_says_nothing():
    for kind in ("ServiceRequest", "Task", "Appointment"):
        assert word_of(kind, "zzz").control is None
        assert word_of(kind, "zzz").note


def test_a_removal_above_counts_whatever_is_below():
    active, revoked = word_of("ServiceRequest", "active"), word_of("ServiceRequest", "revoked")
    assert together([]).control is OrderControl.NW
    assert together([active, revoked, word_of("Task", "in-progress")]) == revoked
    assert effect_of(OrderControl.CA, "").takes is Takes.KEYS


def test_an_encounter_changes_the_visit_as_its_status_says():
    assert ENCOUNTER_STATES["in-progress"] is VisitChange.OPEN
    assert {ENCOUNTER_STATES[each] for each in ("finished", "completed", "discharged")} == {VisitChange.CLOSE}
    assert {ENCOUNTER_STATES[each] for each in ("cancelled", "entered-in-error")} == {VisitChange.CANCEL}
