"""The status table of the scheduled procedure step, by brute force."""

import itertools

import pytest

from gateway.domain.attributes import element
from gateway.domain.worklist import LISTED, TRANSITIONS, SPSStatus, StepEvent, missing_for_listing, start_of

ALL = list(itertools.product(SPSStatus, StepEvent))


def test_every_state_has_an_entry_for_every_event():
    assert set(TRANSITIONS) == set(ALL)


def test_only_a_cancel_and_a_hold_after_the_start_are_refused():
    refused = {(SPSStatus.STARTED, StepEvent.CANCEL), (SPSStatus.STARTED, StepEvent.HOLD)}
    assert {pair for pair in ALL if TRANSITIONS[pair] is None} == refused


@pytest.mark.parametrize("state", SPSStatus)
def test_a_modality_is_believed_in_every_state(state):
    assert TRANSITIONS[state, StepEvent.PERFORMANCE_STARTED] is SPSStatus.STARTED
    assert TRANSITIONS[state, StepEvent.PERFORMANCE_COMPLETED] is SPSStatus.COMPLETED


_MODALITIES = {StepEvent.PERFORMANCE_STARTED, StepEvent.PERFORMANCE_COMPLETED, StepEvent.PERFORMANCE_WITHDRAWN}


@pytest.mark.parametrize("state", [SPSStatus.COMPLETED, SPSStatus.DEPARTED])
@pytest.mark.parametrize("event", [event for event in StepEvent if event not in _MODALITIES])
def test_finished_work_is_changed_by_modalities_only(state, event):
    assert TRANSITIONS[state, event] is state


def test_a_cancelled_step_returns_to_the_list_only_ordered_anew_or_when_a_modality_performs_it():
    back = {event for event in StepEvent if TRANSITIONS[SPSStatus.CANCELED, event] in LISTED}
    assert back == {StepEvent.PERFORMANCE_STARTED, StepEvent.ORDERED_ANEW, StepEvent.SCHEDULED_ANEW}


def test_a_step_on_hold_is_not_listed_and_returns_released_scheduled_or_performed():
    assert SPSStatus.HELD not in LISTED
    back = {event for event in StepEvent if TRANSITIONS[SPSStatus.HELD, event] in LISTED}
    assert back == {
        StepEvent.RELEASE, StepEvent.SCHEDULED_ANEW, StepEvent.REPORTED_STARTED, StepEvent.PERFORMANCE_STARTED
    }  # fmt: skip


def test_only_what_is_scheduled_arrives():
    assert [state for state in SPSStatus if TRANSITIONS[state, StepEvent.ARRIVED] is not state] == [SPSStatus.SCHEDULED]


def test_an_expired_step_comes_back_by_a_new_start():
    assert TRANSITIONS[SPSStatus.EXPIRED, StepEvent.ORDERED] is SPSStatus.EXPIRED
    assert TRANSITIONS[SPSStatus.EXPIRED, StepEvent.RESCHEDULED] is SPSStatus.SCHEDULED


@pytest.mark.parametrize(
    "event", [StepEvent.PERFORMANCE_RETURNED, StepEvent.PERFORMANCE_GIVEN_UP, StepEvent.PERFORMANCE_WITHDRAWN]
)
def test_a_discontinued_performance_leaves_started(event):
    assert TRANSITIONS[SPSStatus.STARTED, event] is not SPSStatus.STARTED


def test_what_only_a_modality_made_of_a_step_can_be_taken_back():
    back = {state for state in SPSStatus if TRANSITIONS[state, StepEvent.PERFORMANCE_WITHDRAWN] is not state}
    assert back == {SPSStatus.STARTED, SPSStatus.COMPLETED, SPSStatus.DISCONTINUED}


def test_the_start_is_indexed_by_wall_clock_with_missing_parts_filled():
    step = {
        "00400002": element("ScheduledProcedureStepStartDate", "20260705"),
        "00400003": element("ScheduledProcedureStepStartTime", "0930"),
    }
    assert start_of(step) == "20260705093000"
    assert start_of({}) == ""


def test_a_step_names_every_type_1_key_it_lacks():
    assert missing_for_listing({"00080060": element("Modality", "CT")}) == (
        "ScheduledStationAETitle",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepID",
    )
