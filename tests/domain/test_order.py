"""What each order event does to what is held."""

import uuid
from dataclasses import replace

import pytest

from gateway.domain.attributes import TAG, code_item, element, text
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import (
    OrderControl,
    OrderEvent,
    Policy,
    ProcedureInput,
    StepInput,
)
from gateway.domain.order_change import apply
from gateway.domain.patient import PatientInput
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import SPSStatus

MINT = Mint(uuid.UUID("6f1d2b36-7a55-4a8e-9a43-5f0c36a0c001"))
GENERATE = {
    "StudyInstanceUID": Policy("generate"),
    "AccessionNumber": Policy("generate"),
    "RequestedProcedureID": Policy("derive", "AccessionNumber"),
    "ScheduledProcedureStepID": Policy("generate"),
}


def step_attributes(start="20260705", **changes):
    held = {
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": start,
        "ScheduledProcedureStepStartTime": "093000",
        "Modality": "CT",
    } | changes
    return {TAG[keyword]: element(keyword, value) for keyword, value in held.items() if value}


def event(control="NW", status="SC", steps=None, **changes):
    steps = (StepInput("", step_attributes()),) if steps is None else steps
    said = OrderEvent(
        control=OrderControl(control),
        order_status=status,
        placer=Identifier("P1", "OE"),
        filler=None,
        patient=PatientInput((Identifier("100", "HOSPA"),), {}),
        visit=None,
        attributes={},
        procedures=(ProcedureInput("", "", None, {}, tuple(steps), "ORC"),),
        policies=GENERATE,
        where="ORC",
    )
    return replace(said, **changes)


def applied(held, said, patient=1):
    return apply(held, said, patient, None, MINT)


def statuses(order):
    return [step.status for procedure in order.procedures for step in procedure.steps]


def refusal(held, said, patient=1):
    with pytest.raises(Refused) as caught:
        applied(held, said, patient)
    return caught.value.refusals[0]


def test_a_new_order_gets_every_key_it_lacks():
    procedure = applied(None, event()).order.procedures[0]
    assert procedure.study_instance_uid.startswith("2.25.")
    assert procedure.accession.value == procedure.requested_procedure_id
    assert len(procedure.accession.value) <= 16
    assert text(procedure.attributes, "StudyInstanceUID") == procedure.study_instance_uid
    assert procedure.steps[0].sps_id == text(procedure.steps[0].attributes, "ScheduledProcedureStepID")


def test_minted_keys_are_kept_when_the_order_comes_again():
    first = applied(None, event()).order
    moved = event("XO", steps=[StepInput("", step_attributes("20260706"))])
    second = applied(first, moved).order
    assert second.procedures[0].study_instance_uid == first.procedures[0].study_instance_uid
    assert second.procedures[0].accession == first.procedures[0].accession
    assert len(second.procedures) == len(second.procedures[0].steps) == 1
    assert text(second.procedures[0].steps[0].attributes, "ScheduledProcedureStepStartDate") == "20260706"


def test_the_same_order_makes_the_same_keys_on_an_empty_store():
    assert applied(None, event()).order == applied(None, event()).order


def test_a_lacking_key_is_refused_where_the_policy_says_so():
    strict = event(policies=GENERATE | {"AccessionNumber": Policy("refuse", where="OBR-18")})
    found = refusal(None, strict)
    assert (found.kind, found.where) == (RefusalKind.MISSING_FIELD, "OBR-18")


def test_a_step_without_station_that_no_rule_completes_is_uncovered():
    found = refusal(None, event(steps=[StepInput("", step_attributes(ScheduledStationAETitle=""))]))
    assert found.kind is RefusalKind.UNCOVERED
    assert "ScheduledStationAETitle" in found.text


def test_an_order_without_any_step_is_uncovered():
    assert refusal(None, event(steps=())).kind is RefusalKind.UNCOVERED


@pytest.mark.parametrize("control", ["CA", "DC"])
def test_a_cancel_for_an_unknown_order_is_refused(control):
    found = refusal(None, event(control, ""))
    assert (found.kind, found.where) == (RefusalKind.UNKNOWN_ORDER, "ORC-2.1")


def test_the_order_number_of_another_patient_is_refused():
    held = applied(None, event()).order
    assert refusal(held, event(), patient=2).kind is RefusalKind.DUPLICATE_KEY


@pytest.mark.parametrize(
    ("control", "status", "expected"),
    [
        ("CA", "CA", SPSStatus.CANCELED),
        ("CA", "", SPSStatus.CANCELED),
        ("DC", "CA", SPSStatus.DISCONTINUED),
        ("XO", "CM", SPSStatus.COMPLETED),
        ("SC", "CM", SPSStatus.COMPLETED),
        ("SC", "A", SPSStatus.COMPLETED),
        ("SC", "IP", SPSStatus.STARTED),
        ("XO", "SC", SPSStatus.SCHEDULED),
        ("NW", "", SPSStatus.SCHEDULED),
    ],
)
def test_order_control_and_status_set_the_step(control, status, expected):
    held = applied(None, event()).order
    assert statuses(applied(held, event(control, status)).order) == [expected]


def test_a_cancel_after_the_start_is_refused_and_says_what_to_send():
    held = applied(applied(None, event()).order, event("SC", "IP")).order
    found = refusal(held, event("CA", "CA"))
    assert found.kind is RefusalKind.CONFLICT
    assert "DC" in found.hint


def test_a_discontinue_after_the_start_is_taken():
    held = applied(applied(None, event()).order, event("SC", "IP")).order
    assert statuses(applied(held, event("DC", "CA")).order) == [SPSStatus.DISCONTINUED]


def test_a_cancel_changes_no_attribute():
    held = applied(None, event()).order
    cancel = event("CA", "CA", steps=[StepInput("", step_attributes("20991231"))])
    after = applied(held, cancel).order
    assert text(after.procedures[0].steps[0].attributes, "ScheduledProcedureStepStartDate") == "20260705"


def test_an_unknown_pair_updates_attributes_and_says_that_the_status_stays():
    held = applied(None, event()).order
    moved = event("XO", "ER", steps=[StepInput("", step_attributes("20260706"))])
    after = applied(held, moved)
    assert statuses(after.order) == [SPSStatus.SCHEDULED]
    assert text(after.order.procedures[0].steps[0].attributes, "ScheduledProcedureStepStartDate") == "20260706"
    assert "ER" in after.notes[0]


def test_a_cancel_that_names_one_step_leaves_the_others():
    two = [StepInput("S1", step_attributes()), StepInput("S2", step_attributes())]
    said = event(procedures=(ProcedureInput("1.2.3", "RP1", Identifier("A1"), {}, tuple(two), "ORC"),))
    held = applied(None, said).order
    one = replace(
        event("CA", "CA"),
        procedures=(ProcedureInput("1.2.3", "RP1", Identifier("A1"), {}, (two[1],), "ORC"),),
    )
    assert statuses(applied(held, one).order) == [SPSStatus.SCHEDULED, SPSStatus.CANCELED]


def test_a_step_left_out_of_an_update_stays():
    two = [StepInput("S1", step_attributes()), StepInput("S2", step_attributes())]
    said = event(procedures=(ProcedureInput("1.2.3", "RP1", Identifier("A1"), {}, tuple(two), "ORC"),))
    held = applied(None, said).order
    update = replace(said, procedures=(replace(said.procedures[0], steps=(two[0],)),))
    assert len(applied(held, update).order.procedures[0].steps) == 2


def test_a_second_procedure_of_the_order_is_added_and_the_first_stays():
    held = applied(None, event(procedures=(_procedure("1.2.3", "S1"),))).order
    after = applied(held, event(procedures=(_procedure("1.2.4", "S1"),))).order
    assert [procedure.study_instance_uid for procedure in after.procedures] == ["1.2.3", "1.2.4"]


def test_a_null_deletes_and_silence_keeps():
    step = step_attributes(ScheduledProcedureStepLocation="ROOM1")
    held = applied(None, event(steps=[StepInput("", step)])).order
    silent = applied(held, event("XO", steps=[StepInput("", step_attributes())])).order
    assert text(silent.procedures[0].steps[0].attributes, "ScheduledProcedureStepLocation") == "ROOM1"
    null = step_attributes() | {TAG["ScheduledProcedureStepLocation"]: element("ScheduledProcedureStepLocation")}
    cleared = applied(held, event("XO", steps=[StepInput("", null)])).order
    assert text(cleared.procedures[0].steps[0].attributes, "ScheduledProcedureStepLocation") == ""


def _procedure(uid, sps_id):
    return ProcedureInput(uid, "", None, {}, (StepInput(sps_id, step_attributes()),), "ORC")


def coded(code, **changes):
    """An order for this procedure code whose station only the catalogue knows."""
    attributes = {"00321064": {"vr": "SQ", "Value": [code_item(code, "99PROC")]}}
    station = {TAG["ScheduledStationAETitle"]: element("ScheduledStationAETitle", changes.pop("catalogue"))}
    said = step_attributes(ScheduledStationAETitle=changes.pop("station", ""))
    step = StepInput("", said, station)
    return event(procedures=(ProcedureInput("", "", None, attributes, (step,), "ORC"),), **changes)


def station_of(order):
    return text(order.procedures[0].steps[0].attributes, "ScheduledStationAETitle")


def test_the_catalogue_fills_what_the_order_lacks():
    assert station_of(applied(None, coded("CTHEAD", catalogue="CT1")).order) == "CT1"


def test_the_catalogue_does_not_replace_what_an_earlier_message_said():
    held = applied(None, coded("CTHEAD", catalogue="CT1", station="CT7")).order
    assert station_of(applied(held, coded("CTHEAD", catalogue="CT1", control="XO")).order) == "CT7"


def test_the_catalogue_of_another_procedure_replaces_what_was_held():
    held = applied(None, coded("CTHEAD", catalogue="CT1")).order
    assert station_of(applied(held, coded("MRHEAD", catalogue="MR1", control="XO")).order) == "MR1"
