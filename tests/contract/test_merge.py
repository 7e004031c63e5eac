"""After a merge everything of the prior patient is the surviving one's, in whatever order merges come."""

import itertools
from dataclasses import replace

import pytest
from sample_department import LATER, NOW, order, patient, performed, visit

from gateway.domain.attributes import text
from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing

NAMES = {1: "Amber^Ada", 2: "Birch^Ben", 3: "Cedar^Cleo", 4: "Dove^Dan"}


def _populate(unit):
    """Four patients, each with a visit, an order in it, and a performed step. Their numbers."""
    ids = {}
    for number, name in NAMES.items():
        ids[number] = patient_id = unit.save_patient(patient(number, name), NOW)
        visit_id = unit.save_visit(visit(patient_id, None, f"WARD {number}"), NOW)
        saved = unit.save_order(order(patient_id, number, visit_id), "NW", NOW)
        linked = (saved.procedures[0].steps[0].id,)
        unit.save_performed_step(performed(f"1.2.{number}", linked, patient_id), NOW)
    return ids


def _survivors(merges):
    """Who everyone is in the end, told by the sentences alone."""
    now = {number: number for number in NAMES}
    for prior, surviving in merges:
        old, new = now[prior], now[surviving]
        now = {number: new if owner == old else owner for number, owner in now.items()}
    return now


MERGES = [
    *itertools.permutations([(1, 2), (2, 3)]),
    *itertools.permutations([(1, 2), (2, 3), (3, 4)]),
    ((1, 2), (3, 4), (2, 4)),
    ((1, 3), (2, 3), (3, 4)),
    ((1, 2), (2, 1)),
    ((1, 2), (1, 2)),
    ((1, 1),),
    ((1, 2), (2, 3), (3, 1)),
    ((1, 2), (1, 3)),
]


@pytest.mark.parametrize("merges", MERGES, ids=lambda merges: " ".join(f"{a}>{b}" for a, b in merges))
def test_everything_follows_to_the_last_survivor(store, write, merges):
    ids = write(_populate)
    for prior, surviving in merges:
        write(lambda unit, a=prior, b=surviving: unit.merge_patient(ids[a], ids[b], LATER))
    survivors = _survivors(merges)
    for number in NAMES:
        owner = survivors[number]
        for identifier in (Identifier(f"P{number}", "HOSPITAL"), Identifier(f"ALIAS{number}", "CLINIC")):
            assert [each.id for each in store.reader.patients([identifier])] == [ids[owner]]
        assert store.reader.patient(ids[number]).id == ids[owner]
        (held,) = store.reader.orders(Identifier(f"PL{number}", "RIS"), None)
        assert held.patient_id == ids[owner]
        assert store.reader.performed_step(f"1.2.{number}").patient_id == ids[owner]
        (item,) = store.reader.item_of(f"S{number}.1")
        assert text(item.attributes, "PatientID") == f"P{owner}"
        assert text(item.attributes, "CurrentPatientLocation") == f"WARD {number}"

    def listed(narrowing):
        return store.reader.items(step_id for step_id, _ in store.reader.candidates(narrowing))

    for owner in set(survivors.values()):
        theirs = {item for item, whose in survivors.items() if whose == owner}
        by_id = listed(Narrowing(patient_id=f"P{owner}"))
        by_name = listed(Narrowing(patient_name_prefix=NAMES[owner].lower()))
        assert {text(item.step, "ScheduledProcedureStepID") for item in by_id} == {f"S{n}.1" for n in theirs}
        assert by_name == by_id


def test_merged_patient_is_not_found_by_its_former_name_or_id(store, write):
    ids = write(_populate)
    write(lambda unit: unit.merge_patient(ids[1], ids[2], LATER))
    assert store.reader.candidates(Narrowing(patient_name_prefix="amber")) == []
    assert store.reader.candidates(Narrowing(patient_id="P1")) == []


def test_survivor_keeps_its_own_identifiers_first_and_the_others_are_retired(store, write):
    ids = write(_populate)
    write(lambda unit: unit.merge_patient(ids[1], ids[2], LATER))
    held = store.reader.patient(ids[2])
    assert held.identifiers == patient(2).identifiers
    assert held.retired == patient(1).identifiers


def test_survivor_said_again_keeps_what_the_merge_brought(store, write):
    ids = write(_populate)
    write(lambda unit: unit.merge_patient(ids[1], ids[2], LATER))
    held = store.reader.patient(ids[2])
    write(lambda unit: unit.save_patient(replace(held, identifiers=held.identifiers[:1]), LATER))
    assert [each.id for each in store.reader.patients([Identifier("P1", "HOSPITAL")])] == [ids[2]]
    assert store.reader.patients([Identifier("ALIAS2", "CLINIC")]) == []
