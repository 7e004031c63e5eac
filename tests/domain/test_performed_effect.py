"""What performed steps mean for the scheduled step they are linked to: the table, and any history of them."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.discontinuation import REASONS, Consequence, consequence, reason_item
from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.performed_effect import EVENTS, Happening, Others, come_to, happening, step_events
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent

RUNS, DONE, STOPPED = MPPSState.IN_PROGRESS, MPPSState.COMPLETED, MPPSState.DISCONTINUED
STARTED, COMPLETED = StepEvent.PERFORMANCE_STARTED, StepEvent.PERFORMANCE_COMPLETED
RETURNED, GIVEN_UP = StepEvent.PERFORMANCE_RETURNED, StepEvent.PERFORMANCE_GIVEN_UP
WITHDRAWN = StepEvent.PERFORMANCE_WITHDRAWN


def one(uid: str, state: MPPSState, *codes: str, scheme: str = "DCM", **more: Any) -> PerformedStep:
    reasons = [
        {"00080100": {"vr": "SH", "Value": [code]}, "00080102": {"vr": "SH", "Value": [scheme]}} for code in codes
    ]
    return PerformedStep(uid, state, {"00400281": {"vr": "SQ", "Value": reasons}} if reasons else {}, **more)


def test_the_table_is_total() -> None:
    assert set(EVENTS) == set(itertools.product(Happening, Others))


def test_what_runs_starts_the_step_and_nothing_ends_it_while_another_runs() -> None:
    for (happens, others), events in EVENTS.items():
        if happens is Happening.IN_PROGRESS:
            assert events == (STARTED,)
        else:
            assert (events == ()) == (others is Others.RUNNING)
            assert STARTED not in events


def test_one_that_was_completed_decides_among_those_that_ended() -> None:
    for happens in set(Happening) - {Happening.IN_PROGRESS}:
        assert EVENTS[happens, Others.COMPLETED] == (COMPLETED,)


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.code)
def test_each_reason_has_its_consequence(reason: Any) -> None:
    expected = {
        Consequence.RETURN: (RETURNED,), Consequence.GIVE_UP: (GIVEN_UP,), Consequence.WRONG_ENTRY: (WITHDRAWN,)
    }  # fmt: skip
    assert step_events(one("2.25.1", STOPPED, reason.code), ()) == expected[reason.consequence]


def test_what_gives_a_step_up_is_what_says_that_nobody_wants_it() -> None:
    given_up = {reason.code for reason in REASONS if reason.consequence is Consequence.GIVE_UP}
    assert given_up == {"110500", "110504", "110510", "110511"}


def test_the_wrong_entry_is_understood_by_its_code_and_by_its_misprint() -> None:
    wrong = {reason.code for reason in REASONS if reason.consequence is Consequence.WRONG_ENTRY}
    assert wrong == {"110514", "110541"}


def test_reasons_of_other_schemes_and_unknown_codes_return_the_step() -> None:
    assert consequence(one("2.25.1", STOPPED, "110510", scheme="99LOCAL")) is Consequence.RETURN
    assert consequence(one("2.25.1", STOPPED, "49727002", scheme="SCT")) is Consequence.RETURN
    assert consequence(one("2.25.1", STOPPED)) is Consequence.RETURN
    assert consequence(one("2.25.1", STOPPED, "110501", "110510")) is Consequence.GIVE_UP


def test_a_reason_is_written_as_it_is_read() -> None:
    item = reason_item("110514")
    assert item["00080104"]["Value"] == ["Incorrect worklist entry selected"]
    held = PerformedStep("2.25.1", STOPPED, {"00400281": {"vr": "SQ", "Value": [item]}})
    assert happening(held) is Happening.WITHDRAWN


@pytest.mark.parametrize(
    ("changed", "others", "events"),
    [
        (one("2.25.1", RUNS), [], (STARTED,)),
        (one("2.25.1", RUNS), [one("2.25.2", DONE)], (STARTED,)),  # append
        (one("2.25.1", DONE), [], (COMPLETED,)),
        (one("2.25.1", DONE), [one("2.25.2", RUNS)], ()),
        (one("2.25.1", DONE), [one("2.25.2", STOPPED)], (COMPLETED,)),
        (one("2.25.1", STOPPED), [one("2.25.2", RUNS)], ()),
        (one("2.25.1", STOPPED), [one("2.25.2", DONE)], (COMPLETED,)),
        (one("2.25.1", STOPPED, "110510"), [one("2.25.2", DONE)], (COMPLETED,)),
        (one("2.25.1", STOPPED), [one("2.25.2", STOPPED, "110510")], (RETURNED,)),
        # The wrong entry: as if it had never been.
        (one("2.25.1", STOPPED, "110514"), [], (WITHDRAWN,)),
        (one("2.25.1", STOPPED, "110514"), [one("2.25.2", DONE)], (COMPLETED,)),
        (one("2.25.1", STOPPED, "110514"), [one("2.25.2", STOPPED)], (WITHDRAWN, RETURNED)),
        (one("2.25.1", STOPPED, "110514"), [one("2.25.2", STOPPED, "110510")], (WITHDRAWN, GIVEN_UP)),
        (one("2.25.1", DONE), [one("2.25.2", STOPPED, "110514")], (COMPLETED,)),
        (one("2.25.1", STOPPED), [one("2.25.2", STOPPED, "110514")], (RETURNED,)),
        # Quarantined ones touch nothing and count for nothing.
        (one("2.25.1", DONE, attention=Attention.ANOTHER_PATIENT), [], ()),
        (one("2.25.1", DONE), [one("2.25.2", RUNS, attention=Attention.ANOTHER_PATIENT)], (COMPLETED,)),
        (one("2.25.1", STOPPED), [one("2.25.2", DONE, attention=Attention.ANOTHER_PATIENT)], (RETURNED,)),
    ],
)
def test_the_effect_depends_on_all_performed_steps_of_the_scheduled_one(
    changed: PerformedStep, others: list[PerformedStep], events: tuple[StepEvent, ...]
) -> None:
    assert step_events(changed, others) == events
    assert step_events(changed, [changed, *others]) == events


@pytest.mark.parametrize("state", MPPSState)
@pytest.mark.parametrize("attention", Attention)
def test_one_that_is_withdrawn_takes_back_whatever_it_was(state: MPPSState, attention: Attention) -> None:
    changed = one("2.25.1", state, attention=attention)
    assert step_events(changed, [changed], withdrawn=True) == (WITHDRAWN,)
    assert step_events(changed, [one("2.25.2", RUNS)], withdrawn=True) == ()


_HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["2.25.1", "2.25.2", "2.25.3"]),
        st.sampled_from(["link", "unlink", "disbelieve", *MPPSState]),
        st.sampled_from(["110501", "110510", "110514", "110541", ""]),
    ),
    max_size=40,
)


@given(_HAPPENINGS)
def test_any_history_of_performed_steps_leaves_the_status_that_they_come_to(
    history: list[tuple[str, str, str]],
) -> None:
    """Created, ended, linked, unlinked, believed and not, in any order: the item is what the linked ones come to."""
    performed: dict[str, PerformedStep] = {}
    linked: set[str] = set()
    item = SPSStatus.SCHEDULED
    for uid, what, code in history:
        held = performed.get(uid)
        withdrawn = False
        match what:
            case MPPSState.IN_PROGRESS if held is None:
                performed[uid] = one(uid, RUNS)
                linked.add(uid)
            case MPPSState.COMPLETED | MPPSState.DISCONTINUED if held is not None and held.state is RUNS:
                performed[uid] = one(uid, MPPSState(what), *([code] if code else []), attention=held.attention)
                if uid not in linked:
                    continue
            case "link" if held is not None and uid not in linked:
                linked.add(uid)
            case "unlink" if uid in linked:
                linked.remove(uid)
                withdrawn = True
            case "disbelieve" if held is not None and not held.quarantined:
                codes = held.attributes
                performed[uid] = PerformedStep(uid, held.state, codes, attention=Attention.ANOTHER_PATIENT)
                withdrawn = uid in linked
                if not withdrawn:
                    continue
            case _:
                continue
        changed = performed[uid]
        if withdrawn and changed.quarantined and what == "unlink":
            continue  # it counted for nothing before
        for event in step_events(changed, [performed[each] for each in linked], withdrawn):
            item = TRANSITIONS[item, event] or item
        together = come_to(performed[each] for each in linked)
        expected = {
            Others.NONE: {SPSStatus.SCHEDULED},
            Others.RUNNING: {SPSStatus.STARTED},
            Others.COMPLETED: {SPSStatus.COMPLETED},
            Others.RETURNED: {SPSStatus.SCHEDULED},
            Others.GIVEN_UP: {SPSStatus.SCHEDULED, SPSStatus.DISCONTINUED},  # as the one that ended last says
        }[together]
        assert item in expected
