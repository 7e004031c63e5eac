"""Identifiers that change (A47), visits that move (A45), records that are linked (A24, A37), and updates in time."""

from dataclasses import replace

import pytest
from people import AT, attributes, held, key, kinds, order, person, stay, told, tried, update

from gateway.domain.attributes import TAG, element, text, values
from gateway.domain.facts import Stamps
from gateway.domain.patient import (
    IdentifierChange,
    IdentityKind,
    PatientLink,
    PatientMerge,
    PatientUpdate,
    Visit,
    VisitMove,
)
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.refusal import Refused
from gateway.workflow.patients import unmerge


def change(unit, made, new, *prior, notes=None, **said):
    return told(unit, IdentifierChange(person(new, **said), tuple(key(each) for each in prior)), made, notes)


def link(unit, made, one, other, linked=True, notes=None, **more):
    return told(unit, PatientLink(person(one), person(other), linked), made, notes, **more)


def ids(unit, *names):
    return [held(unit, name).id for name in names]


def line(unit):
    return unit.identity_changes(limit=1)[0]


# --- updates ------------------------------------------------------------------------------------------------------


def test_an_update_blanks_nothing_it_does_not_mention_and_deletes_what_it_says_is_none(store):
    def run(unit):
        update(unit, 1, "A", PatientWeight=61, PatientComments="x", PatientName="Amber^Ada")
        update(unit, 2, "A", PatientComments=None)
        return held(unit, "A").attributes

    assert tried(store, run) == attributes(PatientID="A", PatientWeight=61, PatientName="Amber^Ada")


def test_a_late_update_fills_gaps_and_replaces_nothing_newer(store):
    def run(unit):
        update(unit, 5, "A", PatientName="New^Ada", PatientComments=None)
        update(unit, 3, "A", PatientName="Old^Ada", PatientComments="old", PatientWeight=61)
        return held(unit, "A").attributes

    assert tried(store, run) == attributes(PatientID="A", PatientName="New^Ada", PatientWeight=61)


def test_between_two_senders_the_later_to_arrive_counts(store):
    def run(unit):
        told(unit, PatientUpdate(person("A", PatientName="New^Ada")), 5, sender="ris")
        update(unit, 3, "A", PatientName="Other^Ada")
        return text(held(unit, "A").attributes, "PatientName")

    assert tried(store, run) == "Other^Ada"


# --- identifiers that change --------------------------------------------------------------------------------------


def test_a_changed_identifier_is_on_the_list_at_once_and_the_old_one_still_finds_the_patient(store):
    def run(unit):
        patient = update(unit, 1, "OLD", "CARD", PatientName="Amber^Ada")
        saved = unit.save_order(order(patient, 1), "NW", AT)
        change(unit, 2, "NEW", "OLD")
        (item,) = unit.items([saved.procedures[0].steps[0].id])
        assert text(item.attributes, "PatientID") == "NEW"
        assert item.revision > 1
        return ids(unit, "OLD", "NEW", "CARD") == [patient] * 3, held(unit, "NEW")

    same, found = tried(store, run)
    assert same
    assert (found.identifiers, found.retired) == ((key("NEW"), key("CARD")), (key("OLD"),))


def test_messages_with_the_old_identifier_speak_of_the_patient_and_do_not_change_the_id_back(store):
    def run(unit):
        update(unit, 1, "OLD", PatientName="Amber^Ada")
        change(unit, 3, "NEW", "OLD")
        notes = []
        told(unit, PatientUpdate(person("OLD", PatientName="Stone^Ada")), 4, notes)
        return held(unit, "NEW").attributes, notes

    shown, notes = tried(store, run)
    assert shown == attributes(PatientID="NEW", PatientName="Stone^Ada")
    assert "was changed" in notes[0]


def test_other_identifiers_count_whether_they_come_before_or_after_the_change(store):
    spoken = PatientUpdate(replace(person("A", "X"), attributes=attributes(
        PatientID="A", OtherPatientIDsSequence={TAG["PatientID"]: element("PatientID", "X")})))  # fmt: skip

    def run(unit, late):
        if not late:
            told(unit, spoken, 1)
        change(unit, 2, "N", "A")
        if late:
            told(unit, spoken, 3)
        found = held(unit, "X")
        return found.identifiers, found.attributes

    assert tried(store, lambda unit: run(unit, late=True)) == tried(store, lambda unit: run(unit, late=False))


def test_a_change_and_an_update_end_the_same_in_either_order(store):
    def run(late):
        def one(unit):
            update(unit, 1, "OLD", PatientWeight=61)
            for each in (2, 3) if not late else (3, 2):
                if each == 2:
                    update(unit, 2, "OLD", PatientWeight=70)
                else:
                    change(unit, 3, "NEW", "OLD", PatientName="Amber^Ada")
            found = held(unit, "NEW")
            return found.attributes, found.identifiers, found.retired

        return tried(store, one)

    assert run(late=False) == run(late=True)


def test_an_identifier_of_another_patient_is_refused(store):
    def run(unit):
        update(unit, 1, "OLD")
        update(unit, 1, "TAKEN")
        with pytest.raises(Refused) as refused:
            change(unit, 2, "TAKEN", "OLD")
        return kinds(refused)

    assert tried(store, run) == [("duplicate key", "PID-3")]


def test_an_identifier_that_a_merge_retired_is_refused_as_new_one(store):
    def run(unit):
        update(unit, 1, "A")
        told(unit, PatientMerge(person("B"), (key("A"),)), 2)
        with pytest.raises(Refused) as refused:
            change(unit, 3, "A", "B")
        return kinds(refused)

    assert tried(store, run) == [("duplicate key", "PID-3")]


def test_an_unknown_prior_identifier_is_kept_so_that_late_messages_find_the_patient(store):
    def run(unit):
        notes = []
        change(unit, 2, "NEW", "OLD", PatientName="Amber^Ada", notes=notes)
        update(unit, 1, "OLD", PatientWeight=61)
        return held(unit, "NEW").attributes, notes

    shown, notes = tried(store, run)
    assert shown == attributes(PatientID="NEW", PatientName="Amber^Ada", PatientWeight=61)
    assert "nobody is known by the prior identifier" in notes[0]


def test_a_change_said_again_is_noted(store):
    def run(unit):
        update(unit, 1, "OLD")
        change(unit, 2, "NEW", "OLD")
        before, notes = line(unit).id, []
        change(unit, 2, "NEW", "OLD", notes=notes)
        return notes, line(unit).id == before

    assert tried(store, run) == (["the identifier was changed before"], True)


def test_a_change_back_is_a_change(store):
    def run(unit):
        update(unit, 1, "OLD")
        change(unit, 2, "NEW", "OLD")
        change(unit, 3, "OLD", "NEW")
        return held(unit, "NEW")

    found = tried(store, run)
    assert (found.identifiers, found.retired) == ((key("OLD"),), (key("NEW"),))
    assert text(found.attributes, "PatientID") == "OLD"


def test_another_patient_id_that_changes_changes_where_it_is_shown(store):
    other = {TAG["OtherPatientIDsSequence"]: {"vr": "SQ", "Value": [attributes(PatientID="CARD")]}}

    def run(unit):
        said = person("A", "CARD")
        told(unit, PatientUpdate(type(said)(said.identifiers, said.attributes | other)), 1)
        change(unit, 2, "CARD2", "CARD")
        return held(unit, "CARD")

    found = tried(store, run)
    assert found.identifiers == (key("A"), key("CARD2"))
    assert text(found.attributes, "PatientID") == "A"
    assert [text(item, "PatientID") for item in values(found.attributes, "OtherPatientIDsSequence")] == ["CARD2"]


def test_a_change_taken_back_gives_the_old_identifier_back(store):
    def run(unit):
        update(unit, 1, "OLD", PatientName="Amber^Ada")
        before = held(unit, "OLD")
        change(unit, 2, "NEW", "OLD")
        unmerge(unit, line(unit).id, AT)
        after = held(unit, "OLD")
        return (before.identifiers, before.retired, before.attributes) == (
            after.identifiers, after.retired, after.attributes,
        ), unit.patients([key("NEW")])  # fmt: skip

    assert tried(store, run) == (True, [])


# --- visits that move ---------------------------------------------------------------------------------------------


def _with_visit(unit, name, number):
    patient = update(unit, 1, name)
    visit = unit.save_visit(Visit(None, patient, key(f"V{number}"), attributes(AdmissionID=f"V{number}")), AT)
    saved = unit.save_order(order(patient, number, visit), "NW", AT)
    step = saved.procedures[0].steps[0].id
    unit.save_performed_step(PerformedStep(f"1.2.{number}", MPPSState.IN_PROGRESS, {}, "CT1", patient, (step,)), AT)
    return patient, saved, step


def test_a_visit_moves_with_its_orders_and_what_was_performed_and_nothing_else(store):
    def run(unit):
        wrong, moved, step = _with_visit(unit, "A", 1)
        stays = unit.save_order(order(wrong, 2), "NW", AT)
        right = update(unit, 1, "B")
        touched = told(unit, VisitMove(person("B"), (key("A"),), (key("V1"),)), 2)
        assert touched == (right, wrong)
        assert [unit.order(each.id).patient_id for each in (moved, stays)] == [right, wrong]
        assert unit.performed_step("1.2.1").patient_id == right
        assert unit.visit(right, key("V1")) is not None
        shown = [text(item.attributes, "PatientID") for item in unit.items([step, stays.procedures[0].steps[0].id])]
        assert shown == ["B", "A"]
        unmerge(unit, line(unit).id, AT)
        return unit.order(moved.id).patient_id == unit.performed_step("1.2.1").patient_id == wrong

    assert tried(store, run)


@pytest.mark.parametrize(("number", "note"), [("V9", "no such visit"), ("V1", "belongs to this patient already")])
def test_a_visit_that_cannot_move_is_noted(store, number, note):
    def run(unit):
        _with_visit(unit, "B", 1)
        update(unit, 1, "A")
        notes = []
        told(unit, VisitMove(person("B"), (key("A"),), (key(number),)), 2, notes)
        return notes

    (said,) = tried(store, run)
    assert note in said


# --- links --------------------------------------------------------------------------------------------------------


def test_a_link_is_noted_and_both_identifiers_stay_in_use(store):
    def run(unit):
        update(unit, 1, "A", PatientComments="A")
        update(unit, 1, "B", PatientComments="B")
        notes = []
        one, other = link(unit, 2, "A", "B", notes=notes)
        assert one != other
        assert unit.linked_patients(one) == {other}
        assert unit.linked_patients(other) == {one}
        link(unit, 2, "B", "A", notes=notes)
        assert [each.kind for each in unit.identity_changes()] == [IdentityKind.LINK]
        link(unit, 3, "B", "A", linked=False, notes=notes)
        return unit.linked_patients(one), notes

    linked, notes = tried(store, run)
    assert linked == frozenset()
    assert notes == ["the link is noted; both identifiers stay in use", "these patients are linked already"]


def test_a_listener_may_merge_what_is_linked_and_part_it_again(store):
    def run(unit):
        update(unit, 1, "A", PatientComments="A")
        update(unit, 1, "B", PatientComments="B", PatientWeight=61)
        link(unit, 2, "A", "B", merge_linked=True)
        assert ids(unit, "A") == ids(unit, "B")
        told(unit, PatientUpdate(person("B", PatientWeight=62)), 3, redirect_merged=False)  # still in use
        assert held(unit, "A").attributes == attributes(PatientID="A", PatientComments="A", PatientWeight=62)
        touched = link(unit, 4, "A", "B", linked=False, merge_linked=True)
        assert [*touched] == ids(unit, "A", "B")
        return held(unit, "A").attributes, held(unit, "B").attributes

    one, other = tried(store, run)
    assert one == attributes(PatientID="A", PatientComments="A")
    assert other == attributes(PatientID="B", PatientComments="B", PatientWeight=62)


def test_an_unlink_of_what_was_not_linked_is_noted(store):
    def run(unit):
        update(unit, 1, "A")
        notes = []
        link(unit, 2, "A", "B", linked=False, notes=notes)
        return notes, unit.patients([key("B")])

    assert tried(store, run) == (["these patients were not linked; nothing was changed"], [])


# --- what is held from before -------------------------------------------------------------------------------------


def test_data_held_before_anything_was_stamped_are_not_replaced_by_a_loan(store):
    def run(unit):
        update(unit, 1, "A", PatientName="Wrong^Ada", PatientWeight=61)
        survivor = update(unit, 2, "B", PatientName="Right^Ada")
        unit.save_patient(type(held(unit, "B"))(survivor, (key("B"),), held(unit, "B").attributes, (), Stamps()), AT)
        told(unit, PatientMerge(person("B"), (key("A"),)), 3)
        return held(unit, "B").attributes

    assert tried(store, run) == attributes(PatientID="B", PatientName="Right^Ada", PatientWeight=61)


def test_a_visit_unnumbered_is_one(store):
    def run(unit):
        patient, *_ = told(unit, PatientUpdate(person("A"), stay(CurrentPatientLocation="WARD 1")), 1)
        told(unit, PatientUpdate(person("A"), stay(CurrentPatientLocation="WARD 2")), 2)
        return [text(unit.visit_by_id(each).attributes, "CurrentPatientLocation")
                for each in unit.belongings(patient).visits]  # fmt: skip

    assert tried(store, run) == ["WARD 2"]
