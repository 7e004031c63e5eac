"""The reconciliation desk over a real store: what people decide, what follows for statuses, what is refused."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from people import AT, attributes, key, kinds, order, person, tried, under
from performed_steps import ISSUERS, begun, ended, named, valued

from gateway.domain.identifiers import Issuers
from gateway.domain.order import Order, OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import Patient
from gateway.domain.performed import Attention, MPPSState
from gateway.domain.problem import Problem
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.mapping_files import load_mappings
from gateway.wire import er7
from gateway.workflow.audience import Audience, StatusTarget, Writing
from gateway.workflow.orders import apply_events
from gateway.workflow.perform import link_waiting
from gateway.workflow.proposals import ACCESSION, MODALITY, PATIENT, STATION, STUDY, proposals
from gateway.workflow.reconcile import Action, By, bring_back, close, link, release, set_aside, unlink
from gateway.workflow.second_source import NOT_HELD, REPORTED, SEVERAL_PATIENTS, complete_study
from gateway.workflow.unscheduled import order_from

UID, OTHER = "1.2.3.1", "1.2.3.2"
ANNA = By("anna", AT + timedelta(hours=1), issuers=ISSUERS, note="saw the images")
UNSCHEDULED = named("2.25.999")


def _writing() -> Writing:
    problems: list[Problem] = []
    folder = load_mappings(Path(__file__).parents[2] / "mappings", Issuers(), problems)
    assert not problems
    return Writing(folder.outbound["status-orm"])


PUBLIC = replace(ANNA, audience=Audience((StatusTarget("ris", _writing()),)))


def patient(unit: StoreUnit, value: str = "P1") -> int:
    return unit.save_patient(Patient(None, (key(value),), attributes(PatientID=value)), AT)


def ordered(unit: StoreUnit, number: int = 1, of: str = "P1", status: SPSStatus = SPSStatus.SCHEDULED) -> Order:
    """An order with one step at CT1, 5 July, 09:30."""
    made = order(patient_of(unit, of), number)
    (procedure,) = made.procedures
    (step,) = procedure.steps
    procedure = replace(procedure, steps=(replace(step, status=status),))
    return unit.save_order(replace(made, procedures=(procedure,)), "NW", AT)


def patient_of(unit: StoreUnit, value: str) -> int:
    found = unit.patients([key(value)])
    number = found[0].id if found else patient(unit, value)
    assert number is not None
    return number


def step_of(held: Order) -> int:
    number = held.procedures[0].steps[0].id
    assert number is not None
    return number


def status(unit: StoreUnit, step: int) -> SPSStatus:
    return unit.steps([step])[0].status


def actions(unit: StoreUnit, uid: str = UID) -> list[tuple[str, str]]:
    return [(each.action, each.actor) for each in unit.performed_decisions(uid)]


# --- linking


def test_a_performed_step_without_an_order_is_linked_by_a_person(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        assert begun(unit, UID, UNSCHEDULED).attention is Attention.NO_ORDER
        done = link(unit, UID, [step], ANNA)
        assert (done.performed.steps, done.performed.attention) == ((step,), Attention.NONE)
        assert [(each.before, each.after) for each in done.changes] == [(SPSStatus.SCHEDULED, SPSStatus.STARTED)]
        assert unit.performed_step(UID) == done.performed
        assert "linked by anna" in unit.step_history(step)[-1].cause
        ended(unit, UID)
        assert status(unit, step) is SPSStatus.COMPLETED
        (decision,) = unit.performed_decisions(UID)
        assert (decision.at, decision.action, decision.actor) == (ANNA.at, "linked", "anna")
        assert decision.details == {
            "before": {"attention": "no order", "patient": patient_of(unit, "P1"), "steps": []},
            "changes": [[step, "SCHEDULED", "STARTED"]], "steps": [step], "forced": False, "note": "saw the images",
        }  # fmt: skip

    tried(store, job)


def test_one_that_ended_completes_what_it_is_linked_to(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        steps = [step_of(ordered(unit, number)) for number in (1, 2)]
        begun(unit, UID, UNSCHEDULED)
        ended(unit, UID)
        link(unit, UID, steps, ANNA)
        assert [status(unit, step) for step in steps] == [SPSStatus.COMPLETED] * 2

    tried(store, job)


def test_another_patients_step_needs_force(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        patient(unit)
        step = step_of(ordered(unit, of="P2"))
        begun(unit, UID, UNSCHEDULED)
        with pytest.raises(Refused) as refused:
            link(unit, UID, [step], ANNA)
        assert kinds(refused) == [(RefusalKind.CONFLICT, "")]
        assert status(unit, step) is SPSStatus.SCHEDULED
        assert actions(unit) == []
        done = link(unit, UID, [step], ANNA, force=True)
        assert (done.performed.patient_id, done.performed.quarantined) == (patient_of(unit, "P2"), False)
        assert status(unit, step) is SPSStatus.STARTED
        assert unit.performed_decisions(UID)[0].details["forced"] is True

    tried(store, job)


def test_one_without_a_patient_id_is_linked_without_force(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, UNSCHEDULED, patient="")
        assert link(unit, UID, [step], ANNA).performed.patient_id == patient_of(unit, "P1")

    tried(store, job)


@pytest.mark.parametrize("case", ["unknown", "no step", "unknown step", "linked", "two patients"])
def test_what_cannot_be_linked_is_refused(store: Store, case: str) -> None:
    def job(unit: StoreUnit) -> None:
        first, second = step_of(ordered(unit)), step_of(ordered(unit, 2, of="P2"))
        begun(unit, UID, named("2.25.1"))
        uid, steps, expected = {
            "unknown": (OTHER, [first], (RefusalKind.NO_SUCH_INSTANCE, "(0008,0018)")),
            "no step": (UID, [], (RefusalKind.MISSING_VALUE, "")),
            "unknown step": (UID, [first, 99_999], (RefusalKind.UNKNOWN_KEY, "")),
            "linked": (UID, [first], (RefusalKind.CONFLICT, "")),
            "two patients": (UID, [first, second], (RefusalKind.CONFLICT, "")),
        }[case]
        with pytest.raises(Refused) as refused:
            link(unit, uid, steps, ANNA, force=True)
        assert kinds(refused) == [expected]
        assert all(refusal.hint for refusal in refused.value.refusals)
        assert actions(unit) == []

    tried(store, job)


# --- unlinking


def test_what_was_linked_by_itself_is_unlinked_and_stays_so(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        held = ordered(unit, status=SPSStatus.ARRIVED)
        step = step_of(held)
        assert begun(unit, UID, named("2.25.1")).steps == (step,)
        done = unlink(unit, UID, ANNA)
        assert (done.performed.steps, done.performed.attention) == ((), Attention.UNLINKED)
        assert status(unit, step) is SPSStatus.ARRIVED
        ended(unit, UID)
        assert status(unit, step) is SPSStatus.ARRIVED
        # What the order's own keys say links it no more.
        assert unit.unlinked_performed_steps(["2.25.1"], ["A1"]) == []
        with pytest.raises(Refused):
            unlink(unit, UID, ANNA)
        link(unit, UID, [step], ANNA)
        assert status(unit, step) is SPSStatus.COMPLETED
        assert actions(unit) == [("linked", "anna"), ("unlinked", "anna")]

    tried(store, job)


def test_of_several_steps_one_is_unlinked(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        steps = [step_of(ordered(unit, number)) for number in (1, 2)]
        begun(unit, UID, named("2.25.1"), named("2.25.2"))
        assert unlink(unit, UID, ANNA, [steps[0]]).performed.steps == (steps[1],)
        assert [status(unit, step) for step in steps] == [SPSStatus.SCHEDULED, SPSStatus.STARTED]
        with pytest.raises(Refused):
            unlink(unit, UID, ANNA, [steps[0]])

    tried(store, job)


def test_a_status_follows_from_the_performed_steps_that_are_left(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, named("2.25.1"))
        ended(unit, UID)
        begun(unit, OTHER, named("2.25.1"))
        assert status(unit, step) is SPSStatus.STARTED
        unlink(unit, OTHER, ANNA)
        assert status(unit, step) is SPSStatus.COMPLETED
        unlink(unit, UID, ANNA)
        assert status(unit, step) is SPSStatus.SCHEDULED

    tried(store, job)


def test_what_the_order_said_meanwhile_stays(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, named("2.25.1"))
        unit.set_step_status(step, SPSStatus.DISCONTINUED, "DC", AT)
        assert unlink(unit, UID, ANNA).changes == ()
        assert status(unit, step) is SPSStatus.DISCONTINUED

    tried(store, job)


def test_a_new_start_meanwhile_does_not_make_the_status_the_orders_own(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        held = ordered(unit)
        begun(unit, UID, named("2.25.1"))
        moved = unit.order(held.id or 0)
        assert moved is not None
        (procedure,) = moved.procedures
        (step,) = procedure.steps
        later = replace(step, attributes=step.attributes | attributes(ScheduledProcedureStepStartTime="113000"))
        unit.save_order(replace(moved, procedures=(replace(procedure, steps=(later,)),)), "XO", AT)
        assert [each.cause for each in unit.step_history(step_of(held))][-1] == "XO"
        unlink(unit, UID, ANNA)
        assert status(unit, step_of(held)) is SPSStatus.SCHEDULED

    tried(store, job)


GIVEN_UP = "DISCONTINUED 110500"
_endings = st.sampled_from(["", "COMPLETED", "DISCONTINUED", GIVEN_UP, "DISCONTINUED 110514", "DISCONTINUED 110513"])


@settings(max_examples=150, deadline=None)
@given(
    held=st.sampled_from(SPSStatus),
    earlier=st.lists(_endings, max_size=2),
    ending=_endings,
    partly=st.booleans(),
)
def test_unlinking_what_was_linked_changes_no_status(
    store: Store, held: SPSStatus, earlier: list[str], ending: str, partly: bool
) -> None:
    # Of several that were broken off, what was given up counts more than what is to be repeated, in whatever order.
    assume(GIVEN_UP not in earlier[:-1] or not earlier[-1].startswith("DISCONTINUED"))

    def job(unit: StoreUnit) -> None:
        first, second = step_of(ordered(unit, status=held)), step_of(ordered(unit, 2))
        for number, how in enumerate(earlier):
            begun(unit, f"1.2.9.{number}", named("2.25.1"))
            if how:
                ended(unit, f"1.2.9.{number}", *how.split())
        begun(unit, UID, UNSCHEDULED)
        if ending:
            ended(unit, UID, *ending.split())
        before = [status(unit, step) for step in (first, second)]
        link(unit, UID, [first, second], ANNA)
        if partly:
            unlink(unit, UID, ANNA, [second])
        unlink(unit, UID, ANNA)
        assert [status(unit, step) for step in (first, second)] == before

    tried(store, job)


# --- quarantine


def quarantined(unit: StoreUnit) -> int:
    """A performed step of P2 that took the worklist entry of P1; that step."""
    patient(unit, "P2")
    step = step_of(ordered(unit))
    assert begun(unit, UID, named("2.25.1"), patient="P2").quarantined
    assert status(unit, step) is SPSStatus.SCHEDULED
    return step


def test_a_quarantined_one_is_believed(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = quarantined(unit)
        done = release(unit, UID, ANNA, believed=True)
        assert (done.performed.attention, done.performed.patient_id) == (Attention.NONE, patient_of(unit, "P1"))
        assert status(unit, step) is SPSStatus.STARTED
        ended(unit, UID)
        assert status(unit, step) is SPSStatus.COMPLETED
        assert actions(unit) == [(Action.BELIEVED, "anna")]
        with pytest.raises(Refused):
            release(unit, UID, ANNA, believed=True)

    tried(store, job)


def test_a_quarantined_one_is_somebody_elses(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = quarantined(unit)
        done = release(unit, UID, ANNA, believed=False)
        assert (done.performed.steps, done.performed.attention) == ((), Attention.UNLINKED)
        assert done.performed.patient_id == patient_of(unit, "P2")
        ended(unit, UID)
        assert status(unit, step) is SPSStatus.SCHEDULED
        theirs = step_of(ordered(unit, 2, of="P2"))
        link(unit, UID, [theirs], ANNA)
        assert [status(unit, each) for each in (step, theirs)] == [SPSStatus.SCHEDULED, SPSStatus.COMPLETED]

    tried(store, job)


def test_a_quarantined_one_is_linked_to_what_it_is_and_to_that_alone(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = quarantined(unit)
        theirs = step_of(ordered(unit, 2, of="P2"))
        with pytest.raises(Refused):
            unlink(unit, UID, ANNA)
        with pytest.raises(Refused):
            link(unit, UID, [step], ANNA)
        assert link(unit, UID, [theirs], ANNA).performed.steps == (theirs,)
        assert [status(unit, each) for each in (step, theirs)] == [SPSStatus.SCHEDULED, SPSStatus.STARTED]

    tried(store, job)


def test_what_a_person_linked_an_order_that_changes_does_not_decide_again(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        mine = step_of(ordered(unit))
        ordered(unit, 2, of="P2")
        assert begun(unit, UID, named("2.25.1"), named("2.25.2")).quarantined
        link(unit, UID, [mine], ANNA)
        changes = link_waiting(unit, ["2.25.1", "2.25.2"], ["A1", "A2"], AT, ISSUERS).changes
        held = unit.performed_step(UID)
        assert held is not None
        assert (changes, held.steps, held.quarantined) == ((), (mine,), False)
        assert status(unit, mine) is SPSStatus.STARTED

    tried(store, job)


# --- set aside, closed


def test_one_that_needs_no_order_is_set_aside_and_brought_back(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = quarantined(unit)
        before = unit.performed_step(UID)
        aside = set_aside(unit, UID, ANNA).performed
        assert (aside.attention, aside.steps) == (Attention.SET_ASIDE, ())
        ended(unit, UID)
        assert status(unit, step) is SPSStatus.SCHEDULED
        with pytest.raises(Refused):
            set_aside(unit, UID, ANNA)
        back = bring_back(unit, UID, ANNA).performed
        assert before is not None
        assert (back.attention, back.steps, back.patient_id) == (before.attention, before.steps, before.patient_id)
        assert actions(unit) == [("brought back", "anna"), ("set aside", "anna")]
        with pytest.raises(Refused):
            bring_back(unit, UID, ANNA)

    tried(store, job)


def test_no_order_takes_what_was_set_aside(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        begun(unit, UID, UNSCHEDULED)
        assert [each.sop_instance_uid for each in unit.unlinked_performed_steps(["2.25.999"], [])] == [UID]
        set_aside(unit, UID, ANNA)
        assert unit.unlinked_performed_steps(["2.25.999"], []) == []
        bring_back(unit, UID, ANNA)
        assert [each.sop_instance_uid for each in unit.unlinked_performed_steps(["2.25.999"], [])] == [UID]

    tried(store, job)


def test_what_has_its_order_is_not_set_aside(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ordered(unit)
        begun(unit, UID, named("2.25.1"))
        with pytest.raises(Refused) as refused:
            set_aside(unit, UID, ANNA)
        assert kinds(refused) == [(RefusalKind.CONFLICT, "")]

    tried(store, job)


def test_one_that_its_modality_never_ends_is_closed(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, named("2.25.1"))
        assert close(unit, UID, MPPSState.COMPLETED, ANNA).performed.state is MPPSState.COMPLETED
        assert status(unit, step) is SPSStatus.COMPLETED
        assert unit.performed_decisions(UID)[0].details["state"] == "COMPLETED"
        with pytest.raises(Refused) as refused:
            close(unit, UID, MPPSState.DISCONTINUED, ANNA)
        assert kinds(refused)[0][0] is RefusalKind.STEP_CLOSED
        assert actions(unit) == [("closed", "anna")]

    tried(store, job)


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        (MPPSState.DISCONTINUED, "xyz", RefusalKind.UNKNOWN_CODE),
        (MPPSState.DISCONTINUED, "110531", RefusalKind.UNKNOWN_CODE),
        (MPPSState.COMPLETED, "110501", RefusalKind.BAD_VALUE),
    ],
)
def test_a_reason_that_is_none_closes_nothing(store: Store, state: MPPSState, reason: str, kind: RefusalKind) -> None:
    def job(unit: StoreUnit) -> None:
        begun(unit, UID, named("2.25.1"))
        with pytest.raises(Refused) as refused:
            close(unit, UID, state, ANNA, reason)
        assert kinds(refused) == [(kind, "reason")]
        held = unit.performed_step(UID)
        assert held is not None
        assert held.state is MPPSState.IN_PROGRESS
        assert actions(unit) == []

    tried(store, job)


@pytest.mark.parametrize("given", ["110514", "110541", " 110514 "])
def test_the_misprinted_code_of_the_wrong_entry_is_written_as_it_should_be(store: Store, given: str) -> None:
    def job(unit: StoreUnit) -> None:
        begun(unit, UID, named("2.25.1"))
        said = close(unit, UID, MPPSState.DISCONTINUED, ANNA, given).performed.attributes["00400281"]
        (item,) = said["Value"]
        assert item["00080100"]["Value"] == ["110514"]
        assert item["00080104"]["Value"] == ["Incorrect worklist entry selected"]

    tried(store, job)


def test_what_closing_notes_is_said_in_words(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        begun(unit, UID, named("2.25.1"))
        notes = close(unit, UID, MPPSState.COMPLETED, ANNA).notes
        assert "Performed Series Sequence (0040,0340): the modality named no series" in notes
        assert not [note for note in notes if "in a final state" in note and "0040,0340" in note]

    tried(store, job)


# --- an order of one that nobody ordered


@pytest.mark.parametrize("ending", ["", "COMPLETED"])
def test_an_order_is_made_of_what_nobody_ordered(store: Store, ending: str) -> None:
    def job(unit: StoreUnit) -> None:
        whose = patient(unit)
        begun(unit, UID, UNSCHEDULED)
        if ending:
            ended(unit, UID)
        made, done = order_from(unit, UID, ANNA, under(cause="performed"))
        assert unit.order_of_study("2.25.999") == made
        assert (made.patient_id, made.placer, made.filler is not None) == (whose, None, True)
        (procedure,) = made.procedures
        (step,) = procedure.steps
        assert procedure.accession is not None
        assert step.status is (SPSStatus.COMPLETED if ending else SPSStatus.STARTED)
        (item,) = unit.items([step_of(made)])
        assert item.step["00400001"]["Value"] == ["CT1"]
        assert item.step["00400002"]["Value"] == ["20260705"]
        assert item.step["00400007"]["Value"] == ["Head native"]
        assert item.attributes["00402017"]["Value"] == [made.filler.value if made.filler else ""]
        assert (done.performed.steps, done.performed.attention) == ((step.id,), Attention.NONE)
        assert actions(unit) == [("order made", "anna")]
        with pytest.raises(Refused):
            order_from(unit, UID, ANNA, under())

    tried(store, job)


@pytest.mark.parametrize("case", ["unknown", "quarantined", "linked", "nobody", "study held", "accession held"])
def test_what_no_order_can_be_made_of_is_refused(store: Store, case: str) -> None:
    def job(unit: StoreUnit) -> None:
        kind = RefusalKind.CONFLICT
        if case == "unknown":
            kind = RefusalKind.NO_SUCH_INSTANCE
        elif case == "quarantined":
            quarantined(unit)
        elif case == "nobody":
            begun(unit, UID, UNSCHEDULED, patient="P77")
            kind = RefusalKind.UNKNOWN_KEY
        else:
            ordered(unit)
            begun(unit, UID, named("2.25.999", "A1") if case == "accession held" else named("2.25.1"))
            if case == "study held":
                unlink(unit, UID, ANNA)
        with pytest.raises(Refused) as refused:
            order_from(unit, UID, ANNA, under())
        assert kinds(refused)[0][0] is kind

    tried(store, job)


# --- who is told


def told(unit: StoreUnit) -> list[tuple[str, str, str]]:
    """ORC-1, ORC-5 and the message's number of the order, of what waits, oldest first."""
    found = []
    for each in unit.deliveries(50, destination="ris"):
        message = er7.parse(each.payload)
        orc = message.all("ORC")[0]
        found.append((orc.text(1), orc.text(5), orc.text(2) or orc.text(3)))
    return found


def test_the_placer_is_told_of_what_was_linked_and_unlinked(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, UNSCHEDULED)
        link(unit, UID, [step], PUBLIC)
        unlink(unit, UID, PUBLIC)
        assert told(unit) == [("SC", "IP", "PL1"), ("SC", "SC", "PL1")]

    tried(store, job)


def test_the_placer_is_told_of_a_quarantined_one_once_it_is_believed(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        quarantined(unit)
        ended(unit, UID)
        assert told(unit) == []
        release(unit, UID, PUBLIC, believed=True)
        assert told(unit) == [("SC", "CM", "PL1")]

    tried(store, job)


def test_the_placer_is_told_of_an_order_that_was_made_here_and_of_nothing_else(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        patient(unit)
        begun(unit, UID, UNSCHEDULED)
        made, done = order_from(unit, UID, PUBLIC, under())
        assert made.filler is not None
        assert (told(unit), done.notes) == ([("SN", "IP", made.filler.value)], ())

    tried(store, job)


def test_the_placer_is_told_of_a_study_that_is_there(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ordered(unit)
        complete_study(unit, "2.25.1", "", AT, "images available", PUBLIC.audience)
        assert told(unit) == [("SC", "CM", "PL1")]

    tried(store, job)


def test_of_what_had_ended_the_placer_is_told_the_order_and_its_end_and_the_dose_once(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        patient(unit)
        begun(unit, UID, UNSCHEDULED, t0018115E=valued("DS", "12.5"))
        ended(unit, UID)
        made, _ = order_from(unit, UID, PUBLIC, under())
        assert made.filler is not None
        assert told(unit) == [("SN", "IP", made.filler.value), ("SC", "CM", made.filler.value)]
        assert doses(unit) == [[], ["12.5"]]

    tried(store, job)


@pytest.mark.parametrize("by", ["study", "accession"])
def test_the_order_of_the_ris_takes_over_the_one_that_was_made_here(store: Store, by: str) -> None:
    def job(unit: StoreUnit) -> None:
        patient(unit)
        begun(unit, UID, UNSCHEDULED)
        ended(unit, UID)
        made, _ = order_from(unit, UID, ANNA, under())
        accession = made.procedures[0].accession if by == "accession" else None
        step = StepInput("", attributes(Modality="CT", ScheduledProcedureStepStartDate="20260705"))
        said = ProcedureInput("2.25.999" if by == "study" else "", "", accession, {}, (step,))
        numbers = key("PX", "RIS"), key("FX", "RIS")
        keys = ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID")
        event = OrderEvent(
            OrderControl.NW, "SC", *numbers, person("P1"), None, {}, (said,), dict.fromkeys(keys, Policy("generate"))
        )  # fmt: skip
        assert apply_events(unit, [event], under(30), AT).orders == (made.id,)
        now = unit.order_of_study("2.25.999")
        assert now is not None
        assert (now.id, now.placer, now.filler, now.provisional) == (made.id, *numbers, False)
        assert status(unit, step_of(now)) is SPSStatus.COMPLETED

    tried(store, job)


def test_what_was_taken_back_is_told_without_what_was_done(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ordered(unit)
        begun(unit, UID, named("2.25.1"), t0018115E=valued("DS", "12.5"))
        ended(unit, UID)
        unlink(unit, UID, PUBLIC)
        assert told(unit) == [("SC", "SC", "PL1")]
        assert doses(unit) == [[]]
        (message,) = (er7.parse(each.payload) for each in unit.deliveries(50, destination="ris"))
        assert [message.all("OBR")[0].text(field) for field in (7, 8)] == ["", ""]

    tried(store, job)


def test_the_wrong_entry_is_told_with_its_reason_and_without_what_was_done(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        begun(unit, UID, UNSCHEDULED, t0018115E=valued("DS", "12.5"))
        link(unit, UID, [step], PUBLIC)
        ended(unit, UID, "DISCONTINUED", "110514", audience=PUBLIC.audience)
        assert told(unit) == [("SC", "IP", "PL1"), ("SC", "SC", "PL1")]
        assert doses(unit) == [["12.5"], []]
        last = er7.parse(unit.deliveries(50, destination="ris")[-1].payload)
        assert (last.all("ORC")[0].text(16), last.all("OBR")[0].text(7)) == ("110514", "")

    tried(store, job)


def test_of_a_group_over_two_orders_each_is_told_its_own_procedure_and_one_the_dose(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        steps = [step_of(ordered(unit, number)) for number in (1, 2)]
        code = {"00080100": valued("SH", "CTA"), "00080102": valued("SH", "L"), "00080104": valued("LO", "Thorax")}
        more = {"t0018115E": valued("DS", "12.5"), "t00081032": valued("SQ", code)}
        begun(unit, UID, named("2.25.901"), named("2.25.902"), **more)
        link(unit, UID, steps, PUBLIC)
        assert [number for *_, number in told(unit)] == ["PL1", "PL2"]
        assert doses(unit) == [["12.5"], []]
        messages = [er7.parse(each.payload) for each in unit.deliveries(50, destination="ris")]
        assert [each.all("OBR")[0].text(44) for each in messages] == ["", ""]

    tried(store, job)


def test_an_order_without_any_number_is_told_under_its_accession_number(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        held = unit.save_order(replace(order(patient_of(unit, "P1"), 1), placer=None), "typed", AT)
        begun(unit, UID, UNSCHEDULED)
        link(unit, UID, [step_of(held)], PUBLIC)
        assert told(unit) == [("SC", "IP", "A1")]

    tried(store, job)


def test_an_order_whose_day_passed_is_told_to_be_back_where_it_was(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit, status=SPSStatus.EXPIRED))
        begun(unit, UID, UNSCHEDULED)
        link(unit, UID, [step], PUBLIC)
        unlink(unit, UID, PUBLIC)
        assert status(unit, step) is SPSStatus.EXPIRED
        assert told(unit) == [("SC", "IP", "PL1"), ("SC", "SC", "PL1")]

    tried(store, job)


def test_an_order_of_which_a_part_is_done_never_goes_back_and_ends_when_its_sender_takes_away_the_rest(
    store: Store,
) -> None:
    def job(unit: StoreUnit) -> None:
        made = order(patient_of(unit, "P1"), 1)
        (procedure,) = made.procedures
        second = replace(procedure.steps[0], sps_id="S1b")
        held = unit.save_order(
            replace(made, procedures=(replace(procedure, steps=(*procedure.steps, second)),)), "NW", AT
        )
        one, other = (step.id or 0 for step in held.procedures[0].steps)
        begun(unit, UID, UNSCHEDULED)
        ended(unit, UID)
        link(unit, UID, [one], PUBLIC)
        begun(unit, OTHER, named("2.25.998"))
        link(unit, OTHER, [other], PUBLIC)
        ended(unit, OTHER, "DISCONTINUED", audience=PUBLIC.audience)
        assert [status(unit, step) for step in (one, other)] == [SPSStatus.COMPLETED, SPSStatus.SCHEDULED]
        assert {said for _, said, _ in told(unit)} == {"IP"}
        cancel = OrderEvent(OrderControl.CA, "CA", key("PL1", "RIS"), None, person("P1"), None, {}, (), {})
        apply_events(unit, [cancel], replace(under(40), audience=PUBLIC.audience), AT)
        assert [status(unit, step) for step in (one, other)] == [SPSStatus.COMPLETED, SPSStatus.CANCELED]
        assert told(unit)[-1] == ("SC", "CM", "PL1")

    tried(store, job)


def test_the_sender_is_not_told_what_it_said_itself(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ordered(unit)
        cancel = OrderEvent(OrderControl.CA, "CA", key("PL1", "RIS"), None, person("P1"), None, {}, (), {})
        apply_events(unit, [cancel], replace(under(40), audience=PUBLIC.audience), AT)
        assert told(unit) == []

    tried(store, job)


def doses(unit: StoreUnit) -> list[list[str]]:
    """The dose area products of each message that waits, oldest first."""
    messages = (er7.parse(each.payload) for each in unit.deliveries(50, destination="ris"))
    return [[obx.text(5) for obx in each.all("OBX") if obx.text(3) == "113722"] for each in messages]


# --- proposals


def test_proposals_are_ranked_with_their_reasons_and_nothing_is_applied(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        near, far, theirs = (step_of(ordered(unit, number, of)) for number, of in ((1, "P1"), (2, "P1"), (3, "P2")))
        _started(unit, far, "20260707")
        begun(unit, UID, named("2.25.999", accession="A3"))
        found = proposals(unit, UID)
        assert [each.step.step_id for each in found] == [theirs, near]
        assert [each.reasons for each in found] == [(ACCESSION, STATION, MODALITY), (PATIENT, STATION, MODALITY)]
        assert found[1].apart == timedelta(minutes=15)
        assert {status(unit, step) for step in (near, far, theirs)} == {SPSStatus.SCHEDULED}
        assert actions(unit) == []

    tried(store, job)


def test_of_two_that_fit_alike_the_nearest_start_is_first(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        first, second = step_of(ordered(unit)), step_of(ordered(unit, 2))
        _started(unit, first, "20260706")
        begun(unit, UID, UNSCHEDULED)
        assert [each.step.step_id for each in proposals(unit, UID)] == [second, first]

    tried(store, job)


def test_what_was_performed_before_its_patient_was_known_is_proposed_by_the_patient(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        begun(unit, UID, UNSCHEDULED)
        step = step_of(ordered(unit))
        (found,) = proposals(unit, UID)
        assert (found.step.step_id, found.reasons) == (step, (PATIENT, STATION, MODALITY))

    tried(store, job)


def test_what_was_done_already_is_proposed_by_a_key_alone(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit, status=SPSStatus.COMPLETED))
        begun(unit, UID, UNSCHEDULED)
        assert proposals(unit, UID) == ()
        begun(unit, OTHER, named("2.25.1"))
        unlink(unit, OTHER, ANNA)
        (found,) = proposals(unit, OTHER)
        assert (found.step.step_id, found.reasons) == (step, (STUDY, PATIENT, STATION, MODALITY))
        link(unit, OTHER, [step], ANNA)
        assert proposals(unit, OTHER) == ()

    tried(store, job)


def _started(unit: StoreUnit, step: int, date: str) -> None:
    """The step's order gives it another day."""
    held = unit.order(unit.steps([step])[0].order_id)
    assert held is not None
    (procedure,) = held.procedures
    (scheduled,) = procedure.steps
    said = scheduled.attributes | attributes(ScheduledProcedureStepStartDate=date)
    unit.save_order(
        replace(held, procedures=(replace(procedure, steps=(replace(scheduled, attributes=said),)),)), "XO", AT
    )


# --- a second source


def test_a_study_that_is_there_completes_what_no_modality_reports(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step, reported = step_of(ordered(unit)), step_of(ordered(unit, 2))
        begun(unit, UID, named("2.25.2"))
        tell = partial(complete_study, unit, at=AT, cause="images available")
        done = tell(study_instance_uid="2.25.1", accession="")
        assert [(each.before, each.after) for each in done.changes] == [(SPSStatus.SCHEDULED, SPSStatus.COMPLETED)]
        assert unit.step_history(step)[-1].cause == "images available"
        assert tell(study_instance_uid="2.25.1", accession="").changes == ()
        assert tell(study_instance_uid="2.25.2", accession="").notes == (REPORTED,)
        assert status(unit, reported) is SPSStatus.STARTED
        assert tell(study_instance_uid="2.25.7", accession="A77").notes == (NOT_HELD,)

    tried(store, job)


def test_an_accession_number_completes_where_it_means_one_patient(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit))
        done = complete_study(unit, "2.25.777", "A1", AT, "images available")
        assert [each.step_id for each in done.changes] == [step]
        other = order(patient_of(unit, "P2"), 2)
        shared = replace(other.procedures[0], accession=key("A1", "ELSEWHERE"))
        held = unit.save_order(replace(other, procedures=(shared,)), "NW", AT)
        assert complete_study(unit, "2.25.777", "A1", AT, "images available").notes == (SEVERAL_PATIENTS,)
        assert status(unit, step_of(held)) is SPSStatus.SCHEDULED

    tried(store, job)


@pytest.mark.parametrize("before", [SPSStatus.CANCELED, SPSStatus.DISCONTINUED, SPSStatus.COMPLETED])
def test_what_is_over_stays_as_it_is(store: Store, before: SPSStatus) -> None:
    def job(unit: StoreUnit) -> None:
        step = step_of(ordered(unit, status=before))
        assert complete_study(unit, "2.25.1", "", AT, "images available").changes == ()
        assert status(unit, step) is before

    tried(store, job)
