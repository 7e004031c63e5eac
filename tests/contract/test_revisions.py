"""(step id, revision) names an item's content: what changes it gives it a new revision, and nothing else does."""

from dataclasses import replace

import pytest
from sample_department import LATER, NOW, attributes, order, patient, procedure, step, visit

from gateway.domain.attributes import text
from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import SPSStatus


@pytest.fixture
def held(write):
    """An order of two procedures with a visit, and another patient's order that nothing below concerns."""

    def save(unit):
        patient_id = unit.save_patient(patient(1), NOW)
        visit_id = unit.save_visit(visit(patient_id), NOW)
        bystander = unit.save_patient(patient(9), NOW)
        unit.save_order(order(bystander, 9, stations=("MR9",)), "NW", NOW)
        procedures = (procedure(1), procedure(2))
        return unit.save_order(order(patient_id, 1, visit_id, procedures=procedures), "NW", NOW)

    return write(save)


def _revisions(store):
    refs = dict(store.reader.candidates(Narrowing(statuses=frozenset(SPSStatus))))
    return {text(item.step, "ScheduledProcedureStepID"): refs[item.step_id] for item in store.reader.items(refs)}


def _touched(store, write, change):
    """Which items the change gave a new revision."""
    before = _revisions(store)
    write(change)
    after = _revisions(store)
    assert all(after[sps_id] >= before[sps_id] for sps_id in before)
    return {sps_id for sps_id in after if after[sps_id] != before.get(sps_id)}


def test_change_of_the_patient_revises_all_its_items(store, write, held):
    def change(unit):
        known = unit.patient(held.patient_id)
        unit.save_patient(replace(known, attributes=known.attributes | attributes(PatientSex="O")), LATER)

    assert _touched(store, write, change) == {"S1.1", "S2.1"}
    assert text(store.reader.item_of("S1.1")[0].attributes, "PatientSex") == "O"


def test_patient_said_again_revises_nothing(store, write, held):
    def change(unit):
        known = unit.patient(held.patient_id)
        reordered = dict(reversed(known.attributes.items()))
        unit.save_patient(replace(known, attributes=reordered), LATER)

    assert _touched(store, write, change) == set()


def test_change_of_the_visit_revises_the_items_of_its_orders(store, write, held):
    def change(unit):
        known = unit.visit(held.patient_id, None)
        unit.save_visit(replace(known, attributes=attributes(CurrentPatientLocation="ROOM 5")), LATER)

    assert _touched(store, write, change) == {"S1.1", "S2.1"}
    assert _touched(store, write, lambda unit: unit.save_visit(unit.visit(held.patient_id, None), LATER)) == set()
    assert text(store.reader.item_of("A1")[0].attributes, "CurrentPatientLocation") == "ROOM 5"


def test_change_of_the_order_revises_all_its_items(store, write, held):
    changed = replace(held, attributes=attributes(RequestingPhysician={"Alphabetic": "Example^Anna"}))
    assert _touched(store, write, lambda unit: unit.save_order(changed, "XO", LATER)) == {"S1.1", "S2.1"}


def test_order_that_moves_to_another_visit_revises_all_its_items(store, write, held):
    def change(unit):
        moved = unit.save_visit(visit(held.patient_id, Identifier("V2"), "OUTPATIENTS"), LATER)
        unit.save_order(replace(held, visit_id=moved), "XO", LATER)

    assert _touched(store, write, change) == {"S1.1", "S2.1"}
    assert text(store.reader.item_of("S1.1")[0].attributes, "CurrentPatientLocation") == "OUTPATIENTS"


def test_change_of_a_procedure_revises_its_own_items(store, write, held):
    first, second = held.procedures
    said = second.attributes | attributes(RequestedProcedureDescription="CT of the chest")
    changed = replace(held, procedures=(first, replace(second, attributes=said)))
    assert _touched(store, write, lambda unit: unit.save_order(changed, "XO", LATER)) == {"S2.1"}


def test_change_of_a_step_revises_that_item_only(store, write, held):
    first, second = held.procedures
    moved = replace(first.steps[0], attributes=step(1, start="20261124100000").attributes)
    changed = replace(held, procedures=(replace(first, steps=(moved,)), second))
    assert _touched(store, write, lambda unit: unit.save_order(changed, "XO", LATER)) == {"S1.1"}


def test_order_said_again_revises_nothing(store, write, held):
    assert _touched(store, write, lambda unit: unit.save_order(held, "NW", LATER)) == set()


def test_step_added_later_leaves_the_others_as_they_are(store, write, held):
    first, second = held.procedures
    grown = replace(held, procedures=(replace(first, steps=(*first.steps, step(1, part=2))), second))
    assert _touched(store, write, lambda unit: unit.save_order(grown, "XO", LATER)) == {"S1.2"}


def test_change_of_status_revises_the_item_and_the_same_status_does_not(store, write, held):
    step_id = held.procedures[0].steps[0].id

    def change(unit):
        unit.set_step_status(step_id, SPSStatus.COMPLETED, "MPPS", LATER)

    assert _touched(store, write, change) == {"S1.1"}
    assert _touched(store, write, change) == set()
    assert store.reader.item_of("S1.1")[0].status is SPSStatus.COMPLETED


def test_merge_revises_the_items_that_change_hands(store, write, held):
    def change(unit):
        survivor = unit.save_patient(patient(3, "Surviving^Sam"), LATER)
        unit.merge_patient(held.patient_id, survivor, LATER)

    assert _touched(store, write, change) == {"S1.1", "S2.1"}
    assert text(store.reader.item_of("S1.1")[0].attributes, "PatientID") == "P3"


def test_refused_change_leaves_the_revision(store, write, held):
    before = _revisions(store)

    def change(unit):
        unit.set_step_status(held.procedures[0].steps[0].id, SPSStatus.COMPLETED, "MPPS", LATER)
        raise LookupError

    with pytest.raises(LookupError):
        write(change)
    assert _revisions(store) == before


def test_item_shows_all_of_its_parts_in_one(store, write, held):
    (item,) = store.reader.item_of("S1.1")
    shown = {
        "PatientID": "P1", "CurrentPatientLocation": "WARD 3", "RequestingPhysician": "Example^Otto",
        "StudyInstanceUID": "2.25.1", "AccessionNumber": "A1", "RequestedProcedureID": "R1",
    }  # fmt: skip
    assert {keyword: text(item.attributes, keyword) for keyword in shown} == shown
    inside = {"ScheduledStationAETitle": "CT1", "Modality": "CT", "ScheduledProcedureStepStatus": "SCHEDULED"}
    assert {keyword: text(item.step, keyword) for keyword in inside} == inside


def test_items_come_in_the_order_asked_without_those_that_are_gone(store, write, held):
    first, second = (each.steps[0].id for each in held.procedures)
    assert [item.step_id for item in store.reader.items([second, 999, first, second])] == [second, first, second]
    assert store.reader.items([]) == []
