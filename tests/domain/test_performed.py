"""The MPPS state table, the attribute rules of PS3.4 table F.7.2-1, and the effect on scheduled steps."""

import itertools
from typing import Any

import pytest

from gateway.domain.attributes import Attributes
from gateway.domain.performed import (
    REFERENCES_MAX,
    TRANSITIONS,
    MPPSState,
    Operation,
    PerformedStep,
    RequestedStatus,
    references,
    requested_status,
)
from gateway.domain.performed_faults import FOUND_MAX, place
from gateway.domain.performed_rules import LENIENT, STRICT, Change, Rules, judged
from gateway.domain.performed_rules import amend as amend_said
from gateway.domain.performed_rules import create as create_said
from gateway.domain.performed_table import BY_TAG, REQUIREMENTS, Requirement
from gateway.domain.refusal import RefusalKind

UID = "2.25.1"
STUDY = "2.25.100"


def create(held: PerformedStep | None, uid: str, said: dict[str, Any], caller: str, rules: Rules) -> Change:
    return create_said(held, uid, judged(Operation.CREATE, said), caller, rules)


def amend(held: PerformedStep | None, said: Attributes, rules: Rules, caller: str | None = None) -> Change:
    sender = caller if caller is not None else held.calling_ae_title if held else "CT1"
    return amend_said(held, judged(Operation.SET, said), sender, rules)


_ONE_VALUE = {"DA": "20240102", "TM": "1010", "UI": "2.25.7", "DS": "1.5", "US": 1}


def full(rows: tuple[Requirement, ...] = REQUIREMENTS) -> dict[str, Any]:
    """A dataset with every type 1 attribute valued and every type 2 attribute empty."""
    attributes: dict[str, Any] = {}
    for row in rows:
        kind = row.on_create.split("/")[0]
        if kind == "1":
            value = full(row.items) if row.vr == "SQ" else _ONE_VALUE.get(row.vr, "1")
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


def test_table_lookups_cover_what_an_n_set_may_carry() -> None:
    assert BY_TAG["00400340"].settable
    assert not BY_TAG["00400270"].settable


# --- values


BAD_VALUES = [
    ("00400244", "DA", "20240230"), ("00400244", "DA", "today"), ("00400245", "TM", "2561"),
    ("00400250", "DA", "2024"), ("00400251", "TM", "9am"), ("0018115E", "DS", "1,5"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "vr", "value"), BAD_VALUES)
def test_a_value_nobody_can_read_is_left_out_with_a_warning_or_refused(tag: str, vr: str, value: str) -> None:
    said = {**full(), tag: {"vr": vr, "Value": [value]}}
    change = create(None, UID, said, "CT1", LENIENT)
    assert change.performed is not None
    assert change.left_out == (tag,)
    assert tag not in change.performed.attributes
    assert [r.kind for r in create(None, UID, said, "CT1", STRICT).refusals] == [RefusalKind.BAD_VALUE]
    held = created()
    if BY_TAG[tag].settable:
        set_ = amend(held, {tag: {"vr": vr, "Value": [value]}, "00400280": {"vr": "ST", "Value": ["note"]}}, LENIENT)
        assert set_.performed is not None
        assert set_.left_out == (tag,)
        assert set_.performed.attributes.get(tag) == held.attributes.get(tag)
        assert set_.performed.attributes["00400280"]["Value"] == ["note"]


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        ("00100030", "DA", "1970"),
        ("00080060", "CS", "ct"),
        ("00400253", "SH", "longer than sixteen characters"),
        ("00400241", "AE", "STATION_WITH_A_LONG_NAME"),
    ],
)
def test_what_people_can_still_read_is_kept_and_noted_and_refused_only_on_demand(tag: str, vr: str, value: str) -> None:
    said = {**full(), tag: {"vr": vr, "Value": [value]}}
    change = create(None, UID, said, "CT1", LENIENT)
    assert change.performed is not None
    assert change.left_out == ()
    assert change.performed.attributes[tag]["Value"] == [value]
    assert [note.split(" ")[0] for note in change.notes] == [place(tag)]
    assert value not in change.notes[0]
    assert kinds(create(None, UID, said, "CT1", STRICT)) == {RefusalKind.BAD_VALUE}


@pytest.mark.parametrize(
    ("vr_tag", "value"),
    [("00400244", "2024.01.02"), ("00400245", "09:30:00"), ("00400245", "093000.123456"), ("00400245", "09")],
)
def test_old_and_short_forms_of_dates_and_times_are_no_fault(vr_tag: str, value: str) -> None:
    said = {**full(), vr_tag: {"vr": BY_TAG[vr_tag].vr, "Value": [value]}}
    assert create(None, UID, said, "CT1", STRICT).refusals == ()


def test_faults_deep_inside_are_named_by_their_place() -> None:
    said = {"00400340": {"vr": "SQ", "Value": [series("2.25.5"), series("no uid")]}}
    assert amend(created(), said, LENIENT).notes == ("(0040,0340)[1]/(0020,000E) is no UID",)
    assert [r.where for r in amend(created(), said, STRICT).refusals] == ["(0040,0340)[1]/(0020,000E)"]


def test_what_is_found_wrong_with_thousands_of_series_is_bounded_and_nothing_essential_is_lost() -> None:
    bare = {"00400340": {"vr": "SQ", "Value": [{} for _ in range(4000)]}}
    said = judged(Operation.CREATE, {**full(), **bare})
    assert len(said.lacks) == FOUND_MAX
    references_without_study = {"00400270": {"vr": "SQ", "Value": [{} for _ in range(FOUND_MAX)]}}
    lacks = judged(Operation.CREATE, {**bare, **references_without_study}).lacks
    essential = {lack.path[0] for lack in lacks if lack.essential}
    assert {"00400253", "00400241", "00400252", "00080060", "00400270"} <= essential


def test_another_caller_is_noted_and_refused_only_on_demand() -> None:
    held = created()
    change = amend(held, SERIES, LENIENT, caller="MR1")
    assert change.performed is not None
    assert change.performed.calling_ae_title == "CT1"
    assert "set by another AE title than created it" in change.notes
    assert kinds(amend(held, SERIES, STRICT, caller="MR1")) == {RefusalKind.NOT_AUTHORISED}
    assert amend(held, SERIES, STRICT, caller="CT1").refusals == ()


def test_the_character_set_of_the_creation_stays_and_another_one_is_noted() -> None:
    held = created({**full(), "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}})
    same_set = amend(held, {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, **SERIES}, STRICT)
    assert (same_set.notes, same_set.refusals) == ((), ())
    other = amend(held, {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}, **SERIES}, STRICT)
    assert other.performed is not None
    assert other.performed.attributes["00080005"]["Value"] == ["ISO_IR 100"]
    assert other.notes == ("its character set is not that of the N-CREATE",)
