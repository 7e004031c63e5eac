"""The table of order control and order status, by brute force: every pair on every status of a step."""

import uuid
from dataclasses import replace
from itertools import product

import pytest

from gateway.domain.attributes import TAG, element, text
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import (
    CHANGE,
    EFFECTS,
    NEW,
    ORDER_STATUSES,
    Order,
    OrderControl,
    OrderEvent,
    Procedure,
    ProcedureInput,
    Step,
    StepInput,
    Takes,
    Unheld,
    effect_of,
    order_status_of,
    removes,
    response_of,
)
from gateway.domain.order_change import apply, arrive
from gateway.domain.patient import PatientInput
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import FINISHED, LISTED, TRANSITIONS, SPSStatus, StepEvent

MINT = Mint(uuid.UUID(int=4))
SAID = (*ORDER_STATUSES, "ZZ")
LOCATION = "ScheduledProcedureStepLocation"
REFUSED = {StepEvent.CANCEL, StepEvent.HOLD}


def attributes(sps_id="S1", location="OLD"):
    said = {
        "ScheduledStationAETitle": "CT1", "ScheduledProcedureStepStartDate": "20260705",
        "ScheduledProcedureStepStartTime": "093000", "Modality": "CT", "ScheduledProcedureStepID": sps_id,
        LOCATION: location,
    }  # fmt: skip
    return {TAG[keyword]: element(keyword, value) for keyword, value in said.items()}


def held(*statuses):
    steps = tuple(Step(n, f"S{n}", status, attributes(f"S{n}")) for n, status in enumerate(statuses, 1))
    procedure = Procedure(1, "1.2.3", "RP1", Identifier("A1"), {}, steps)
    return Order(1, 1, None, Identifier("P1"), None, {}, (procedure,))


def event(control, status="", sps_ids=("S1",), location="NEW"):
    steps = tuple(StepInput(sps_id, attributes(sps_id, location)) for sps_id in sps_ids)
    return OrderEvent(
        OrderControl(control), status, Identifier("P1"), Identifier("F1"), PatientInput((), {}), None, {},
        (ProcedureInput("1.2.3", "RP1", Identifier("A1"), {}, steps, "ORC"),), where="ORC",
    )  # fmt: skip


def applied(order, said, **how):
    return apply(order, said, 1, None, MINT, **how)


def statuses(order):
    return [step.status for procedure in order.procedures for step in procedure.steps]


def location(order):
    return text(order.procedures[0].steps[0].attributes, LOCATION)


def test_every_pair_has_a_row():
    assert set(EFFECTS) == set(product(OrderControl, ORDER_STATUSES))


@pytest.mark.parametrize("control", OrderControl)
def test_every_pair_on_every_status(control):
    for status, state in product(SAID, SPSStatus):
        effect, order, said = effect_of(control, status), held(state), event(control, status)
        after = TRANSITIONS[state, effect.event] if effect.event else state
        if after is None:
            with pytest.raises(Refused) as caught:
                applied(order, said)
            assert caught.value.refusals[0].kind is RefusalKind.CONFLICT
            assert effect.event in REFUSED
            continue
        result = applied(order, said)
        assert statuses(result.order) == [after], (status, state)
        reports = effect.event is StepEvent.REPORTED_COMPLETED
        told = effect.takes is Takes.EVERYTHING and (state not in FINISHED or reports)
        assert location(result.order) == ("NEW" if told else "OLD"), (status, state)
        if effect.takes is Takes.NOTHING:
            assert result.order is order
        unremarkable = (SPSStatus.SCHEDULED, SPSStatus.STARTED)
        if after is state and (state not in unremarkable or effect.event is None):  # no effect without a word
            assert result.notes, (status, state)


@pytest.mark.parametrize("control", OrderControl)
def test_every_pair_on_an_order_that_is_not_held(control):
    for status in SAID:
        effect, said = effect_of(control, status), event(control, status)
        if effect.unheld is Unheld.CREATED:
            (after,) = statuses(applied(None, said).order)
            assert after is (TRANSITIONS[SPSStatus.SCHEDULED, effect.event] if effect.event else SPSStatus.SCHEDULED)
            continue
        kind = RefusalKind.UNKNOWN_KEY if control is OrderControl.SS else RefusalKind.UNKNOWN_ORDER
        with pytest.raises(Refused) as caught:
            applied(None, said)
        assert [(each.kind, each.where) for each in caught.value.refusals] == [(kind, "ORC-2.1")]


def test_a_cancel_takes_its_keys_only_and_creates_nothing():
    removing = [pair for pair in product(OrderControl, SAID) if removes(*pair)]
    assert (OrderControl.CA, "") in removing
    for pair in removing:
        assert effect_of(*pair).takes is not Takes.EVERYTHING
        assert effect_of(*pair).unheld is not Unheld.CREATED


@pytest.mark.parametrize("control", [*NEW, *CHANGE])
def test_orders_and_changes_without_an_order_status_are_on_the_list(control):
    (after,) = statuses(applied(None, event(control)).order)
    assert after in LISTED


def test_a_change_without_an_order_status_keeps_a_hold_and_one_that_says_scheduled_releases_it():
    order = applied(held(SPSStatus.SCHEDULED), event("HD")).order
    assert statuses(order) == [SPSStatus.HELD]
    assert statuses(applied(order, event("XO")).order) == [SPSStatus.HELD]
    assert statuses(applied(order, event("XO", "SC")).order) == [SPSStatus.SCHEDULED]


def test_a_cancel_after_the_start_discontinues_where_the_listener_says_so():
    order = held(SPSStatus.STARTED, SPSStatus.SCHEDULED)
    said = event("CA", sps_ids=())
    assert statuses(applied(order, said, discontinue_started=True).order) == [
        SPSStatus.DISCONTINUED, SPSStatus.CANCELED
    ]  # fmt: skip


def test_a_number_assigned_is_kept_and_nothing_else():
    order = replace(held(SPSStatus.SCHEDULED), placer=None, filler=Identifier("F1"))
    after = applied(order, event("NA")).order
    assert (after.placer, statuses(after), location(after)) == (Identifier("P1"), [SPSStatus.SCHEDULED], "OLD")


def test_a_step_that_a_change_leaves_out_is_cancelled_where_the_listener_says_so():
    order = held(SPSStatus.SCHEDULED, SPSStatus.HELD, SPSStatus.STARTED)
    kept = applied(order, event("XO"))
    assert statuses(kept.order) == [SPSStatus.SCHEDULED, SPSStatus.HELD, SPSStatus.STARTED]
    gone = applied(order, event("XO"), cancel_unsaid=True)
    assert statuses(gone.order) == [SPSStatus.SCHEDULED, SPSStatus.CANCELED, SPSStatus.STARTED]
    assert "leaves out" in gone.notes[0]
    again = applied(gone.order, event("XO", "SC", ("S1", "S2", "S3")), cancel_unsaid=True)
    assert statuses(again.order) == [SPSStatus.SCHEDULED, SPSStatus.SCHEDULED, SPSStatus.STARTED]


@pytest.mark.parametrize("control", ["SC", "CA"])
def test_what_is_no_description_of_the_whole_leaves_no_step_out(control):
    order = held(SPSStatus.SCHEDULED, SPSStatus.SCHEDULED)
    assert statuses(applied(order, event(control, "SC"), cancel_unsaid=True).order)[1] is SPSStatus.SCHEDULED


def test_a_new_order_with_the_number_of_a_cancelled_one_is_on_the_list_again():
    order = applied(held(SPSStatus.SCHEDULED), event("CA"), stamp=Stamp("2", "RIS")).order
    late = applied(order, event("NW"), stamp=Stamp("1", "RIS"))
    assert statuses(late.order) == [SPSStatus.CANCELED]
    newer = applied(order, event("NW"), stamp=Stamp("3", "RIS"))
    assert statuses(newer.order) == [SPSStatus.SCHEDULED]
    assert "the order was cancelled and is ordered again" in newer.notes


def test_what_a_modality_did_is_not_undone_by_a_late_message():
    order = applied(None, event("NW"), stamp=Stamp("1", "RIS")).order
    order = applied(order, event("HD"), stamp=Stamp("3", "RIS")).order
    step = replace(order.procedures[0].steps[0], status=SPSStatus.COMPLETED)  # as an MPPS sets it
    order = replace(order, procedures=(replace(order.procedures[0], steps=(step,)),))
    for control in ("CA", "DC", "RL", "NW"):
        assert statuses(applied(order, event(control), stamp=Stamp("2", "RIS")).order) == [SPSStatus.COMPLETED]


def test_only_scheduled_steps_arrive():
    order = arrive(held(*SPSStatus))
    assert statuses(order).count(SPSStatus.ARRIVED) == 2
    assert SPSStatus.SCHEDULED not in statuses(order)
    assert set(statuses(order)) == set(SPSStatus) - {SPSStatus.SCHEDULED}


def test_every_request_has_an_answer_and_no_answer_has_one():
    answers = {response_of(control, refused) for control in OrderControl for refused in (False, True)} - {None}
    for control in OrderControl:
        both = (response_of(control, refused=False), response_of(control, refused=True))
        assert (both[0] is None) is (both[1] is None)
        if control in answers - {OrderControl.NA} or control in (OrderControl.RR, OrderControl.DE):
            assert both == (None, None)
        elif control is not OrderControl.NA:
            assert None not in both


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((SPSStatus.SCHEDULED, SPSStatus.CANCELED), "SC"),
        ((SPSStatus.HELD,), "HD"),
        ((SPSStatus.COMPLETED, SPSStatus.STARTED), "IP"),
        ((SPSStatus.COMPLETED, SPSStatus.CANCELED), "CM"),
        ((SPSStatus.DISCONTINUED,), "DC"),
        ((SPSStatus.CANCELED,), "CA"),
        ((SPSStatus.EXPIRED,), ""),
    ],
)
def test_the_order_status_follows_from_the_steps(steps, expected):
    assert order_status_of(held(*steps)) == expected
