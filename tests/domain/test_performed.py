"""The MPPS state table, the attribute rules of PS3.4 table F.7.2-1, and the effect on scheduled steps."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.performed import (
    BY_TAG,
    LENIENT,
    REASONS,
    REFERENCES_MAX,
    REQUIREMENTS,
    STRICT,
    TRANSITIONS,
    Change,
    Consequence,
    MPPSState,
    Operation,
    PerformedStep,
    RequestedStatus,
    Requirement,
    Rules,
    amend,
    consequence,
    create,
    place,
    references,
    requested_status,
    step_event,
)
from gateway.domain.refusal import RefusalKind
from gateway.domain.worklist import TRANSITIONS as STEP_TRANSITIONS
from gateway.domain.worklist import SPSStatus, StepEvent

UID = "2.25.1"
STUDY = "2.25.100"


def full(rows: tuple[Requirement, ...] = REQUIREMENTS) -> dict[str, Any]:
    """A dataset with every type 1 attribute valued and every type 2 attribute empty."""
    attributes: dict[str, Any] = {}
    for row in rows:
        kind = row.on_create.split("/")[0]
        if kind == "1":
            value = full(row.items) if row.vr == "SQ" else "1"
            attributes[row.tag] = {"vr": row.vr, "Value": [value]}
        elif kind == "2":
            attributes[row.tag] = {"vr": row.vr}
    if rows is REQUIREMENTS:
        attributes["00400252"] = {"vr": "CS", "Value": ["IN PROGRESS"]}
        attributes["00400270"]["Value"][0]["0020000D"]["Value"] = [STUDY]
    return attributes


def series(uid: str, **more: Any) -> dict[str, Any]:
    empty = {"vr": "SQ"}
    return {
        "0020000E": {"vr": "UI", "Value": [uid]}, "00181030": {"vr": "LO", "Value": ["Head"]},
        "00081050": {"vr": "PN"}, "00081070": {"vr": "PN"}, "0008103E": {"vr": "LO"}, "00080054": {"vr": "AE"},
        "00081140": empty, "00400220": empty, **more,
    }  # fmt: skip


def status(value: str) -> dict[str, Any]:
    return {"00400252": {"vr": "CS", "Value": [value]}}


END = {"00400250": {"vr": "DA", "Value": ["20240102"]}, "00400251": {"vr": "TM", "Value": ["1010"]}}
SERIES = {"00400340": {"vr": "SQ", "Value": [series("2.25.5")]}}


def created(attributes: dict[str, Any] | None = None) -> PerformedStep:
    performed = create(None, UID, attributes or full(), "CT1", LENIENT).performed
    assert performed is not None
    return performed


def kinds(change: Change) -> set[RefusalKind]:
    return {refusal.kind for refusal in change.refusals}


def ended(uid: str, state: MPPSState, *codes: str, scheme: str = "DCM", **more: Any) -> PerformedStep:
    reasons = [
        {"00080100": {"vr": "SH", "Value": [code]}, "00080102": {"vr": "SH", "Value": [scheme]}} for code in codes
    ]
    return PerformedStep(uid, state, {"00400281": {"vr": "SQ", "Value": reasons}} if reasons else {}, **more)


# --- states


def test_state_table_is_total() -> None:
    for row in itertools.product(Operation, (None, *MPPSState), RequestedStatus):
        assert isinstance(TRANSITIONS[row], MPPSState | RefusalKind)
    assert len(TRANSITIONS) == len(Operation) * (len(MPPSState) + 1) * len(RequestedStatus)


def test_nothing_is_created_but_in_progress_and_nothing_leaves_a_final_state() -> None:
    for (operation, held, requested), after in TRANSITIONS.items():
        if operation is Operation.CREATE:
            allowed = held is None and requested is RequestedStatus.IN_PROGRESS
            assert (after is MPPSState.IN_PROGRESS) == allowed
        elif held is not MPPSState.IN_PROGRESS:
            assert after is (RefusalKind.NO_SUCH_INSTANCE if held is None else RefusalKind.STEP_CLOSED)


@pytest.mark.parametrize("row", list(itertools.product((None, *MPPSState), RequestedStatus)))
def test_operations_follow_the_table(row: tuple[MPPSState | None, RequestedStatus]) -> None:
    held_state, requested = row
    held = PerformedStep(UID, held_state, full()) if held_state else None
    text = "SUSPENDED" if requested is RequestedStatus.OTHER else requested.value
    said = status(text) if text else {}
    for operation, change in (
        (Operation.CREATE, create(held, UID, {**full(), "00400252": {"vr": "CS"}, **said}, "CT1", LENIENT)),
        (Operation.SET, amend(held, said, LENIENT)),
    ):
        expected = TRANSITIONS[operation, held_state, requested]
        if isinstance(expected, MPPSState):
            assert change.performed is not None
            assert change.performed.state is expected
        else:
            assert kinds(change) == {expected}


@pytest.mark.parametrize("text", ["IN PROGRESS ", " in progress", "IN PROGRESS"])
def test_padded_and_lower_case_status_is_understood_and_held_as_the_standard_spells_it(text: str) -> None:
    assert requested_status(status(text)) is RequestedStatus.IN_PROGRESS
    held = created({**full(), **status(text)})
    assert held.attributes["00400252"]["Value"] == ["IN PROGRESS"]


# --- attributes


def test_the_requirement_table_has_each_attribute_once_per_level() -> None:
    def walk(rows: tuple[Requirement, ...]) -> None:
        assert len({row.tag for row in rows}) == len(rows)
        for row in rows:
            assert row.vr == "SQ" or not row.items
            assert row.on_create in {"1/1", "2/2", "3/3", "1C/1C"}
            assert row.on_set in {"not allowed", "1/1", "2/2", "3/1", "3/2", "3/3", "1C/1C"}
            assert row.in_final in {"", "1", "2"}
            walk(row.items)

    walk(REQUIREMENTS)
    assert {row.keyword for row in REQUIREMENTS if row.in_final} == {
        "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime", "PerformedSeriesSequence",
    }  # fmt: skip


@pytest.mark.parametrize("rules", [LENIENT, STRICT])
def test_a_whole_dataset_is_accepted(rules: Rules) -> None:
    change = create(None, UID, full(), "CT1", rules)
    assert (change.refusals, change.notes) == ((), ())
    assert change.performed == PerformedStep(UID, MPPSState.IN_PROGRESS, full(), "CT1")


TYPE_1 = [row for row in REQUIREMENTS if row.on_create == "1/1" and row.keyword != "PerformedProcedureStepStatus"]
TYPE_2 = [row for row in REQUIREMENTS if row.on_create == "2/2"]


@pytest.mark.parametrize("row", TYPE_1, ids=lambda row: row.keyword)
def test_a_type_1_attribute_of_the_step_must_be_there_and_valued(row: Requirement) -> None:
    absent = {tag: held for tag, held in full().items() if tag != row.tag}
    refused = create(None, UID, absent, "CT1", LENIENT)
    assert [(r.kind, r.where) for r in refused.refusals] == [(RefusalKind.MISSING_FIELD, place(row.tag))]
    assert row.keyword in refused.refusals[0].hint
    for empty in ({"vr": row.vr}, {"vr": row.vr, "Value": [None]}, {"vr": row.vr, "Value": []}):
        refused = create(None, UID, {**full(), row.tag: empty}, "CT1", LENIENT)
        assert RefusalKind.MISSING_VALUE in kinds(refused)


@pytest.mark.parametrize("row", TYPE_2, ids=lambda row: row.keyword)
def test_an_absent_type_2_attribute_is_noted_and_refused_only_on_demand(row: Requirement) -> None:
    absent = {tag: held for tag, held in full().items() if tag != row.tag}
    lenient = create(None, UID, absent, "CT1", LENIENT)
    assert lenient.performed is not None
    assert lenient.notes == (f"{place(row.tag)} is missing",)
    assert kinds(create(None, UID, absent, "CT1", STRICT)) == {RefusalKind.MISSING_FIELD}


def test_every_problem_is_reported_at_once() -> None:
    said = {**full(), **status("COMPLETED"), "00400241": {"vr": "AE"}}
    del said["00400253"]
    refused = create(None, UID, said, "CT1", LENIENT)
    assert {(r.kind, r.where) for r in refused.refusals} == {
        (RefusalKind.BAD_VALUE, "(0040,0252)"),
        (RefusalKind.MISSING_VALUE, "(0040,0241)"),
        (RefusalKind.MISSING_FIELD, "(0040,0253)"),
    }


def test_a_scheduled_step_without_study_is_refused_with_its_place() -> None:
    said = full()
    said["00400270"]["Value"] = [said["00400270"]["Value"][0], {"00400009": {"vr": "SH", "Value": ["S2"]}}]
    refused = create(None, UID, said, "CT1", LENIENT)
    assert [r.where for r in refused.refusals] == ["(0040,0270)[1]/(0020,000D)"]


def test_items_deeper_down_are_judged_on_demand_only() -> None:
    said = {**full(), "00081120": {"vr": "SQ", "Value": [{}]}}  # an empty referenced patient, as consoles send it
    assert create(None, UID, said, "CT1", LENIENT).performed is not None
    assert [r.where for r in create(None, UID, said, "CT1", STRICT).refusals] == [
        "(0008,1120)[0]/(0008,1150)",
        "(0008,1120)[0]/(0008,1155)",
    ]


def test_a_sequence_is_replaced_whole() -> None:
    first = amend(created(), SERIES, LENIENT).performed
    assert first is not None
    second = {"00400340": {"vr": "SQ", "Value": [series("2.25.6")]}}
    after = amend(first, second, LENIENT).performed
    assert after is not None
    assert after.state is MPPSState.IN_PROGRESS
    assert after.attributes["00400340"] == second["00400340"]


def test_repeating_what_may_not_change_is_silent_however_it_is_padded() -> None:
    held = created({**full(), "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}})
    said = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane ", "Ideographic": ""}]},
        "00100040": {"vr": "CS", "Value": [None]},
        "00081120": {"vr": "SQ", "Value": []},
        "00400270": held.attributes["00400270"],
    }
    change = amend(held, said, STRICT)
    assert (change.refusals, change.kept, change.notes) == ((), (), ())


def test_a_change_of_what_may_not_change_is_left_out_and_the_rest_stored() -> None:
    said = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Roe^Ann"}]}, **SERIES}
    change = amend(created(), said, LENIENT)
    assert change.performed is not None
    assert change.kept == ("00100010",)
    assert change.performed.attributes["00100010"] == {"vr": "PN"}
    assert "00400340" in change.performed.attributes
    assert kinds(amend(created(), said, STRICT)) == {RefusalKind.BAD_VALUE}


def test_what_was_never_created_may_be_set_unless_the_device_is_held_to_the_table() -> None:
    said = ended("", MPPSState.DISCONTINUED, "110501").attributes
    change = amend(created(), said, LENIENT)
    assert change.performed is not None
    assert change.performed.attributes["00400281"] == said["00400281"]
    assert "(0040,0281) was set without having been created" in change.notes
    assert kinds(amend(created(), said, Rules(no_changes=True))) == {RefusalKind.BAD_VALUE}


def test_attributes_the_table_does_not_know_are_kept() -> None:
    private = {"00090010": {"vr": "LO", "Value": ["ACME"]}, "00091001": {"vr": "UN", "InlineBinary": "AAA="}}
    change = amend(created(), private, STRICT)
    assert change.performed is not None
    assert private.items() <= change.performed.attributes.items()


def test_an_empty_end_date_in_between_does_not_wipe_one_that_is_held() -> None:
    held = amend(created(), END, LENIENT).performed
    change = amend(held, {"00400250": {"vr": "DA"}}, LENIENT)
    assert change.performed is not None
    assert change.performed.attributes["00400250"] == END["00400250"]
    assert change.notes == ("(0040,0250) has no value",)
    assert kinds(amend(held, {"00400250": {"vr": "DA"}}, STRICT)) == {RefusalKind.MISSING_VALUE}


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_a_final_state_asks_for_end_and_series_on_demand_only(final: str) -> None:
    assert amend(created(), {**status(final), **END, **SERIES}, STRICT).refusals == ()
    lenient = amend(created(), status(final), LENIENT)
    assert lenient.performed is not None
    assert lenient.performed.state == final
    assert len(lenient.notes) == 3
    refused = amend(created(), status(final), Rules(complete_final=True))
    assert [(r.kind, r.where) for r in refused.refusals] == [
        (RefusalKind.MISSING_VALUE, place(tag)) for tag in ("00400250", "00400251", "00400340")
    ]


def test_a_final_state_asks_for_the_lists_of_each_series() -> None:
    item = series("2.25.5")
    del item["00081140"]
    said = {**status("COMPLETED"), **END, "00400340": {"vr": "SQ", "Value": [item]}}
    refused = amend(created(), said, Rules(complete_final=True))
    assert [r.where for r in refused.refusals] == ["(0040,0340)[0]/(0008,1140)"]


def test_a_closed_step_is_refused_before_its_content_is_judged() -> None:
    held = PerformedStep(UID, MPPSState.COMPLETED, full())
    assert kinds(amend(held, {**status("NONSENSE"), "00400250": {"vr": "DA"}}, STRICT)) == {RefusalKind.STEP_CLOSED}


def test_places_name_sequences_items_and_attributes() -> None:
    assert place("00400270", 0, "0020000D") == "(0040,0270)[0]/(0020,000D)"


def test_references_are_distinct_named_and_bounded() -> None:
    def item(study: str, sps_id: str = "") -> dict[str, Any]:
        return {"0020000D": {"vr": "UI", "Value": [study]}, "00400009": {"vr": "SH", "Value": [sps_id]}}

    sequence = {"00400270": {"vr": "SQ", "Value": [item("2.25.1", "A"), item("2.25.1", "A"), item("2.25.2"), {}]}}
    assert [(r.study_instance_uid, r.sps_id) for r in references(sequence)] == [("2.25.1", "A"), ("2.25.2", "")]
    many = {"00400270": {"vr": "SQ", "Value": [item(f"2.25.{number}") for number in range(1000)]}}
    assert len(references(many)) == REFERENCES_MAX
    assert references({}) == ()


# --- effect on scheduled steps

RUNS, DONE, STOPPED = MPPSState.IN_PROGRESS, MPPSState.COMPLETED, MPPSState.DISCONTINUED


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.code)
def test_each_reason_has_its_consequence(reason: Any) -> None:
    event = step_event(ended("2.25.1", STOPPED, reason.code), ())
    given_up = reason.consequence is Consequence.GIVE_UP
    assert event is (StepEvent.PERFORMANCE_GIVEN_UP if given_up else StepEvent.PERFORMANCE_RETURNED)


def test_what_gives_a_step_up_is_what_says_that_nobody_wants_it() -> None:
    given_up = {reason.code for reason in REASONS if reason.consequence is Consequence.GIVE_UP}
    assert given_up == {"110500", "110504", "110510", "110511"}


def test_reasons_of_other_schemes_and_unknown_codes_return_the_step() -> None:
    assert consequence(ended("2.25.1", STOPPED, "110510", scheme="99LOCAL")) is Consequence.RETURN
    assert consequence(ended("2.25.1", STOPPED, "49727002", scheme="SCT")) is Consequence.RETURN
    assert consequence(ended("2.25.1", STOPPED)) is Consequence.RETURN
    assert consequence(ended("2.25.1", STOPPED, "110501", "110510")) is Consequence.GIVE_UP


@pytest.mark.parametrize(
    ("changed", "others", "event"),
    [
        (ended("2.25.1", RUNS), [], StepEvent.PERFORMANCE_STARTED),
        (ended("2.25.1", RUNS), [ended("2.25.2", DONE)], StepEvent.PERFORMANCE_STARTED),  # append
        (ended("2.25.1", DONE), [], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", DONE), [ended("2.25.2", RUNS)], None),
        (ended("2.25.1", DONE), [ended("2.25.2", STOPPED)], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", STOPPED), [ended("2.25.2", RUNS)], None),
        (ended("2.25.1", STOPPED), [ended("2.25.2", DONE)], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", STOPPED, "110510"), [ended("2.25.2", DONE)], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", STOPPED), [ended("2.25.2", STOPPED, "110510")], StepEvent.PERFORMANCE_RETURNED),
        # The wrong entry: as if it had never been.
        (ended("2.25.1", STOPPED, "110514"), [], StepEvent.PERFORMANCE_RETURNED),
        (ended("2.25.1", STOPPED, "110514"), [ended("2.25.2", DONE)], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", STOPPED, "110514"), [ended("2.25.2", STOPPED, "110510")], StepEvent.PERFORMANCE_GIVEN_UP),
        # Quarantined ones touch nothing and count for nothing.
        (ended("2.25.1", DONE, quarantined=True), [], None),
        (ended("2.25.1", DONE), [ended("2.25.2", RUNS, quarantined=True)], StepEvent.PERFORMANCE_COMPLETED),
        (ended("2.25.1", STOPPED), [ended("2.25.2", DONE, quarantined=True)], StepEvent.PERFORMANCE_RETURNED),
    ],
)
def test_the_effect_depends_on_all_performed_steps_of_the_scheduled_one(
    changed: PerformedStep, others: list[PerformedStep], event: StepEvent | None
) -> None:
    assert step_event(changed, others) is event
    assert step_event(changed, [changed, *others]) is event


_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["2.25.1", "2.25.2", "2.25.3"]),
        st.sampled_from(["create", "", *MPPSState]),
        st.sampled_from(["110501", "110510", "110514", ""]),
    ),
    max_size=30,
)


@given(_OPERATIONS)
def test_no_sequence_of_requests_gives_a_step_a_status_its_performed_steps_deny(
    operations: list[tuple[str, str, str]],
) -> None:
    performed: dict[str, PerformedStep] = {}
    item = SPSStatus.SCHEDULED
    for uid, what, code in operations:
        held = performed.get(uid)
        if what == "create":
            change = create(held, uid, full(), "CT1", LENIENT)
        else:
            said = {**(status(what) if what else {}), **ended("", STOPPED, *([code] if code else [])).attributes}
            change = amend(held, said, LENIENT)
        after = change.performed
        assert (after is None) == bool(change.refusals)
        if after is None:
            continue
        performed[uid] = after
        event = step_event(after, performed.values()) if held is None or held.state is not after.state else None
        if event is not None:
            next_status = STEP_TRANSITIONS[item, event]
            assert next_status is not None
            item = next_status
        states = {one.state for one in performed.values()}
        if MPPSState.IN_PROGRESS in states:
            assert item is SPSStatus.STARTED
        elif MPPSState.COMPLETED in states:
            assert item is SPSStatus.COMPLETED
        else:
            assert item in (SPSStatus.SCHEDULED, SPSStatus.DISCONTINUED)


def test_table_lookups_cover_what_an_n_set_may_carry() -> None:
    assert BY_TAG["00400340"].settable
    assert not BY_TAG["00400270"].settable
