"""Kept queries: the newest of each caller, of the known ones always, and never more than the bounds say."""

from datetime import timedelta

import pytest
from sample_department import LATER, NOW, query

from gateway.edges.store_unit import IDENTIFIER_KEPT_MAX


def add(write, records, per_device_max=10, **bounds):
    write(lambda unit: unit.add_queries(records, per_device_max, **bounds))


def test_a_query_comes_back_as_it_was_kept(store, write):
    said = query(
        1, at=LATER, status=0xA700, matches=7, milliseconds=1.25, negotiation=b"\x01\x01\x01",
        notes=("Specific Character Set is misspelt", "padding"),
    )  # fmt: skip
    add(write, [said])
    (stored,) = store.reader.queries()
    assert stored.record == said
    assert store.reader.query(stored.id) == stored
    assert store.reader.query(stored.id + 1) is None


def test_the_newest_queries_come_first_and_of_one_caller_where_it_is_named(store, write):
    add(write, [query(1, "CT1"), query(2, "MR1"), query(3, "CT1")])
    assert [each.record.identifier for each in store.reader.queries(limit=2)] == [b"identifier 3", b"identifier 2"]
    assert [each.record.identifier for each in store.reader.queries("CT1")] == [b"identifier 3", b"identifier 1"]
    assert store.reader.queries("XX") == []


def test_of_each_caller_only_the_newest_stay(store, write):
    for number in range(30):
        add(write, [query(number, "CT1"), query(number, "MR1")], per_device_max=4)
        if number == 3:
            add(write, [query(number, "SELDOM")], per_device_max=4)
    for caller in ("CT1", "MR1"):
        assert [each.record.identifier for each in store.reader.queries(caller)] == [
            b"identifier %d" % number for number in (29, 28, 27, 26)
        ]
    assert len(store.reader.queries("SELDOM")) == 1


def test_a_batch_larger_than_the_bound_leaves_its_newest(store, write):
    add(write, [query(number) for number in range(50)], per_device_max=3)
    assert [each.record.identifier for each in store.reader.queries()] == [
        b"identifier 49", b"identifier 48", b"identifier 47",
    ]  # fmt: skip


def test_numbers_are_never_used_again(store, write):
    add(write, [query(1)])
    (before,) = store.reader.queries()
    write(lambda unit: unit.delete_queries_before(LATER + timedelta(days=1)))
    add(write, [query(2)])
    (after,) = store.reader.queries()
    assert after.id > before.id


def test_a_peer_with_ever_new_names_fills_nothing_and_pushes_out_no_known_device(store, write):
    known = {"CT1", "MR1"}
    add(write, [query(0, "CT1")], known=known, unknown_callers_max=5)
    for number in range(40):
        add(write, [query(number, f"NEW{number:02}") for _ in range(2)], known=known, unknown_callers_max=5)
    callers = {each.record.calling_ae_title for each in store.reader.queries(limit=1000)}
    assert callers == {"CT1", "NEW35", "NEW36", "NEW37", "NEW38", "NEW39"}


def test_of_unknown_callers_those_stay_that_asked_last(store, write):
    for caller in ("A", "B", "C", "A", "D"):
        add(write, [query(1, caller)], unknown_callers_max=3)
    assert {each.record.calling_ae_title for each in store.reader.queries()} == {"A", "C", "D"}


def test_many_new_names_in_one_batch_are_bounded_too(store, write):
    add(write, [query(number, f"NEW{number:03}") for number in range(500)], unknown_callers_max=7)
    assert len(store.reader.queries(limit=1000)) == 7


def test_what_a_peer_chooses_is_cut_to_its_bounds_and_says_so(store, write):
    add(write, [query(1, identifier=b"x" * 60_000, negotiation=b"n" * 60_000, notes=("n" * 5_000,) * 500)])
    (stored,) = store.reader.queries()
    assert len(stored.record.identifier) == IDENTIFIER_KEPT_MAX
    assert len(stored.record.negotiation) <= 16
    assert "60000 bytes" in stored.record.notes[0]
    assert sum(map(len, stored.record.notes)) < 5_000


def test_a_name_of_characters_that_no_database_holds_costs_nobody_elses_record(store, write):
    add(write, [query(1, "BAD\udcff"), query(2, "CT1")])
    assert len(store.reader.queries("CT1")) == 1
    assert len(store.reader.queries("BAD\udcff")) == 1


@pytest.mark.parametrize("limit", [3, 1000])
def test_old_queries_are_dropped_in_portions_and_young_ones_stay(store, write, limit):
    add(write, [query(number, at=NOW) for number in range(7)] + [query(8, at=LATER)])
    dropped = 0
    while done := write(lambda unit: unit.delete_queries_before(LATER, limit)):
        assert done <= limit
        dropped += done
    assert dropped == 7
    assert [each.record.identifier for each in store.reader.queries()] == [b"identifier 8"]
