"""Candidates found before are given again only while nobody has committed anything: no reader is ever behind."""

import pytest
from sample_department import LATER, NOW, order, patient

from gateway.domain.matching import Narrowing
from gateway.domain.worklist import SPSStatus
from gateway.edges import store_reader
from gateway.edges.store import Store

CT1 = Narrowing(station_ae_titles=frozenset({"CT1"}))


@pytest.fixture
def held(write):
    def save(unit):
        return unit.save_order(order(unit.save_patient(patient(1), NOW), 1), "NW", NOW)

    return write(save)


def _cancel(write, held):
    (step,) = held.procedures[0].steps
    write(lambda unit: unit.set_step_status(step.id, SPSStatus.CANCELED, "CA", LATER))


def test_the_same_question_is_answered_from_memory_while_nothing_is_committed(store, held, monkeypatch):
    first = store.reader.candidates(CT1)
    assert len(first) == 1
    asked = []
    monkeypatch.setattr(store_reader.statements, "candidates", asked.append)
    assert store.reader.candidates(CT1) == first
    assert asked == []


def test_every_reader_sees_a_commit_at_once(store, write, held):
    readers = [store.reader, store.open_reader(), store.open_reader()]
    assert [len(reader.candidates(CT1)) for reader in readers] == [1, 1, 1]
    _cancel(write, held)
    assert [len(reader.candidates(CT1)) for reader in readers] == [0, 0, 0]


def test_what_another_process_commits_is_seen_at_once(store, url, held):
    assert len(store.reader.candidates(CT1)) == 1
    with Store(url, zone="Europe/Berlin") as other:
        _cancel(lambda use_case: other.write(use_case).result(), held)
        assert store.reader.candidates(CT1) == []


def test_a_transaction_sees_what_it_has_changed_itself(store, write, held):
    (step,) = held.procedures[0].steps

    def look(unit):
        before = len(unit.candidates(CT1))
        unit.set_step_status(step.id, SPSStatus.CANCELED, "CA", LATER)
        return before, len(unit.candidates(CT1))

    assert write(look) == (1, 0)


def test_a_new_connection_knows_nothing_of_what_the_one_before_found(store, write, held):
    reader = store.open_reader()
    assert len(reader.candidates(CT1)) == 1
    reader._connection.close()  # as after a failure
    _cancel(write, held)
    assert reader.candidates(CT1) == []


def test_what_is_kept_is_bounded(store, held, monkeypatch):
    monkeypatch.setattr(store_reader, "FOUND_MAX", 3)
    for number in range(10):
        store.reader.candidates(Narrowing(sps_id=f"S{number}"))
        assert len(store.reader._found) <= 3
