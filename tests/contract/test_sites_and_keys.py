"""Whose order it is: said with the order, shown by its items, and not taken over by others."""

from dataclasses import replace

from sample_department import LATER, NOW, order, patient

from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.workflow.ports import ItemKey


def test_an_item_has_the_site_of_its_order(store, write):
    def populate(unit):
        person = unit.save_patient(patient(), NOW)
        for number, site in enumerate(("", "NORTH", "SOUTH"), 1):
            unit.save_order(order(person, number, site=site), "NW", NOW)

    write(populate)
    items = store.reader.items(step_id for step_id, _ in store.reader.candidates(Narrowing()))
    assert [item.site for item in items] == ["", "NORTH", "SOUTH"]
    north = store.reader.candidates(Narrowing(sites=frozenset({"NORTH", "WEST"})))
    assert [item.site for item in store.reader.items(step_id for step_id, _ in north)] == ["NORTH"]


def test_a_site_said_later_gives_every_item_a_new_revision(store, write):
    def populate(unit):
        return unit.save_order(order(unit.save_patient(patient(), NOW)), "NW", NOW)

    saved = write(populate)
    (before,) = store.reader.items([saved.procedures[0].steps[0].id])
    write(lambda unit: unit.save_order(replace(unit.order(saved.id), site="NORTH"), "XO", LATER))
    (after,) = store.reader.items([before.step_id])
    assert (after.site, store.reader.order(saved.id).site) == ("NORTH", "NORTH")
    assert after.revision > before.revision
    assert store.reader.candidates(Narrowing(sites=frozenset({"NORTH"}))) == [(after.step_id, after.revision)]


def test_a_step_added_later_has_the_site_of_its_order(store, write):
    saved = write(lambda unit: unit.save_order(order(unit.save_patient(patient(), NOW), site="NORTH"), "NW", NOW))
    more = order(saved.patient_id, 2).procedures
    write(lambda unit: unit.save_order(replace(saved, procedures=(*saved.procedures, *more)), "XO", LATER))
    assert len(store.reader.candidates(Narrowing(sites=frozenset({"NORTH"})))) == 2


def test_more_sites_than_the_longest_list_do_not_narrow(store, write):
    write(lambda unit: unit.save_order(order(unit.save_patient(patient(), NOW), site="NORTH"), "NW", NOW))
    assert store.reader.candidates(Narrowing(sites=frozenset(f"S{number}" for number in range(1000))))


def test_items_are_found_by_every_number_people_have(store, write):
    def populate(unit):
        one = unit.save_patient(patient(1), NOW)
        two = unit.save_patient(patient(2), NOW)
        unit.save_order(order(one, 1), "NW", NOW)
        unit.save_order(order(two, 2), "NW", NOW)
        canceled = unit.save_order(order(two, 3), "NW", NOW)
        unit.set_step_status(canceled.procedures[0].steps[0].id, "CANCELED", "CA", LATER)
        unit.merge_patient(two, one, LATER)

    write(populate)

    def found(key, value):
        return [item.step["00400009"]["Value"][0] for item in store.reader.items_by(key, value)]

    assert found(ItemKey.ACCESSION, " A2 ") == ["S2.1"]
    assert found(ItemKey.ORDER, "PL1") == ["S1.1"]
    assert found(ItemKey.ORDER, "FI3") == ["S3.1"]
    assert found(ItemKey.STEP, "S3.1") == ["S3.1"]
    assert found(ItemKey.PATIENT, "P2") == ["S1.1", "S2.1", "S3.1"]
    assert found(ItemKey.PATIENT, "ALIAS1") == ["S1.1", "S2.1", "S3.1"]
    for key in ItemKey:
        assert found(key, "nobody") == []
    assert Identifier("P2", "HOSPITAL") in store.reader.patient(1).retired
