"""Who is who in the store: merged records keep their own row, retired identifiers know whose they were, and a log."""

from dataclasses import replace

import pytest
from sample_department import LATER, NOW, attributes, order, patient, performed, visit

from gateway.domain.attributes import text
from gateway.domain.facts import Stamp, Stamps
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Belongings, IdentityChange, IdentityKind
from gateway.edges import statements
from gateway.edges.database import StoreError

P1, ALIAS1 = patient(1).identifiers


def _two(unit):
    """Two patients with a visit, an order and a performed step each; (patient, order) numbers."""
    made = []
    for number in (1, 2):
        one = unit.save_patient(patient(number), NOW)
        saved = unit.save_order(order(one, number, unit.save_visit(visit(one), NOW)), "NW", NOW)
        unit.save_performed_step(performed(f"1.2.{number}", (saved.procedures[0].steps[0].id,), one), NOW)
        made.append((one, saved.id))
    return made


def test_a_merge_says_what_moved(store, write):
    (one, first), (two, _) = write(_two)
    owned = store.reader.belongings(one)
    assert (owned.orders, owned.performed_steps, len(owned.visits)) == ((first,), ("1.2.1",), 1)
    assert write(lambda unit: unit.merge_patient(one, two, LATER)) == owned
    assert store.reader.belongings(one) == Belongings()
    assert len(store.reader.belongings(two).orders) == 2


def test_a_merged_record_keeps_what_was_said_of_it(store, write):
    (one, _), (two, _) = write(_two)
    write(lambda unit: unit.merge_patient(one, two, LATER))
    (record,) = store.reader.merged_into(two)
    assert (record.id, record.attributes, record.identifiers) == (one, patient(1).attributes, ())
    learned = replace(record, attributes=attributes(PatientID="P1", PatientSize=1.7), stamps=Stamps(Stamp("1", "x")))
    write(lambda unit: unit.save_merged(learned, LATER))
    assert store.reader.merged_into(two) == [learned]
    assert store.reader.patient(two).attributes == patient(2).attributes


def test_a_retired_identifier_knows_whose_it_was_through_further_merges(store, write):
    (one, _), (two, _) = write(_two)
    three = write(lambda unit: unit.save_patient(patient(3), NOW))
    write(lambda unit: unit.merge_patient(one, two, LATER))
    write(lambda unit: unit.merge_patient(two, three, LATER))
    whose = [store.reader.retired_from(each).id for each in (P1, ALIAS1, patient(2).identifiers[0])]
    assert whose == [one, one, two]
    assert store.reader.retired_from(patient(3).identifiers[0]) is None


def test_an_identifier_that_a_patient_gave_up_is_its_own(store, write):
    one = write(lambda unit: unit.save_patient(patient(1), NOW))
    held = replace(store.reader.patient(one), identifiers=(ALIAS1,), retired=(P1,))
    write(lambda unit: unit.save_patient(held, LATER))
    assert store.reader.retired_from(P1) == store.reader.patient(one) == held


def test_a_record_that_parts_has_its_identifiers_and_name_again(store, write):
    (one, first), (two, _) = write(_two)
    before = store.reader.patient(one)
    moved = write(lambda unit: unit.merge_patient(one, two, LATER))

    def part(unit):
        unit.part_patient(one, two, (), (), LATER)
        return unit.hand_over(moved, two, one)

    assert write(part) == moved
    assert store.reader.patient(one) == before
    assert store.reader.patient(two).retired == ()
    assert store.reader.order(first).patient_id == one
    assert store.reader.performed_step("1.2.1").patient_id == one
    assert [each.id for each in store.reader.patients_of_name("sample", 10)] == [one, two]


def test_only_what_is_still_the_patients_is_handed_over(store, write):
    (one, first), (two, second) = write(_two)
    given = Belongings((first, second), (), ("1.2.1", "1.2.2"))
    assert write(lambda unit: unit.hand_over(given, one, two)) == Belongings((first,), (), ("1.2.1",))
    (item,) = store.reader.item_of("S1.1")
    assert (text(item.attributes, "PatientID"), item.revision) == ("P2", 2)
    (item,) = store.reader.item_of("S2.1")
    assert item.revision == 1


def test_the_log_tells_of_both_records_newest_first(store, write):
    (one, _), (two, _) = write(_two)
    three = write(lambda unit: unit.save_patient(patient(3), NOW))
    said = [
        IdentityChange(
            None, NOW, IdentityKind.MERGE, "A40 M1", two, one, {"members": [], "identifiers": [["P1", "x"]]}
        ),
        IdentityChange(None, LATER, IdentityKind.CHANGE, "A47 M2", three, None),
    ]
    numbers = [write(lambda unit, each=each: unit.log_identity(each)) for each in said]
    first, second = (replace(each, id=number) for each, number in zip(said, numbers, strict=True))
    assert store.reader.identity_changes() == [second, first]
    assert store.reader.identity_changes(one) == store.reader.identity_changes(two) == [first]
    assert store.reader.identity_changes(since=LATER) == [second]
    write(lambda unit: unit.set_identity_change_undone(numbers[0], LATER))
    assert store.reader.identity_change(numbers[0]) == replace(first, undone=LATER)
    assert store.reader.identity_change(99) is None
    with pytest.raises(StoreError):
        write(lambda unit: unit.set_identity_change_undone(99, LATER))


def test_links_lead_to_the_patients_that_live(store, write):
    (one, _), (two, _) = write(_two)
    three = write(lambda unit: unit.save_patient(patient(3), NOW))
    line = write(lambda unit: unit.log_identity(IdentityChange(None, NOW, IdentityKind.LINK, "A24", one, two)))
    write(lambda unit: unit.merge_patient(two, three, LATER))
    assert store.reader.linked_patients(one) == {three}
    write(lambda unit: unit.set_identity_change_undone(line, LATER))
    assert store.reader.linked_patients(one) == frozenset()


def test_a_value_finds_the_patients_of_every_issuer(store, write):
    one = write(lambda unit: unit.save_patient(patient(1), NOW))
    other = replace(patient(2), identifiers=(Identifier("P1", "CLINIC"),))
    two = write(lambda unit: unit.save_patient(other, NOW))
    assert {each.id for each in store.reader.patients_of_value(" P1")} == {one, two}
    assert store.reader.patients_of_value("P9") == []


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("PATIENT_RETIRED_FROM", "USING PRIMARY KEY (value=? AND issuer=?)"),
        ("PATIENT_IDS_OF_VALUE", "USING PRIMARY KEY (value=?)"),
        ("PATIENT_IDS_OF_NAME", "patient_names_by_folded (folded>? AND folded<?)"),
        ("PATIENTS_MERGED_INTO", "patients_by_merged_into (merged_into=?)"),
        ("ORDERS_OF_PATIENT", "orders_by_patient (patient_id=?)"),
        ("ORDERS_OF_VISIT", "orders_by_visit (visit_id=?)"),
        ("VISITS_OF_PATIENT", "visits_by_number (patient_id=?)"),
        ("PERFORMED_OF_PATIENT", "performed_steps_by_patient (patient_id=?)"),
        ("PERFORMED_OF_ORDER", "performed_step_links_by_step (step_id=?)"),
        ("IDENTITY_CHANGES_OF_PATIENT", "identity_log_by_other (other_id=?)"),
        ("LINKED_PATIENTS", "identity_log_by_patient (patient_id=?)"),
    ],
)
def test_lookups_of_identities_use_their_index(store, write, name, index):
    class Anything(dict):
        def __missing__(self, key):
            return 1

    def plan(unit):
        sql, order_of = getattr(statements, name).on(unit._write._dialect)
        return "\n".join(
            row[3] for row in unit._write._driver.execute("EXPLAIN QUERY PLAN " + sql, order_of(Anything()))
        )

    found = write(plan)
    assert index in found
    assert "SCAN" not in found
