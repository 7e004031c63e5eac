"""One stored item that cannot be read spoils no answer: it is left out, and named (design rule 4)."""

import sqlite3

import pytest
from sample_department import NOW, attributes, order, patient

from gateway.domain.devices import Device, Devices
from gateway.domain.matching import Narrowing
from gateway.edges.database import StoreUnavailable, database_path
from gateway.wire.dicom_json import IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.workflow.query import Worklist, caller_of


def spoil(url, table, column, value, number):
    connection = sqlite3.connect(database_path(url))
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, number))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", '"text"', "17", '{"00091001": "text"}', '{"00091001": {"Value": ["text"]}}',
    '{"00091001": {"vr": "LO", "Value": "text"}}',
])  # fmt: skip
@pytest.mark.parametrize("table", ["steps", "requested_procedures", "orders", "patients"])
def test_an_item_with_unreadable_attributes_is_left_out_and_told_of(store, write, url, table, text):
    def populate(unit):
        for number in range(1, 6):
            unit.save_order(order(unit.save_patient(patient(number), NOW), number), "NW", NOW)

    write(populate)
    spoil(url, table, "attributes", text, 3)
    told = []
    store.reader.left_out = lambda step_id, reason: told.append(step_id)
    items = store.reader.items(step_id for step_id, _ in store.reader.candidates(Narrowing()))
    assert [item.step_id for item in items] == [1, 2, 4, 5]
    assert told == [3]


def test_a_device_is_answered_all_items_but_the_damaged_one_and_the_service_is_told(store, write, url):
    def populate(unit):
        for number in range(1, 41):
            unit.save_order(order(unit.save_patient(patient(number), NOW), number), "NW", NOW)

    write(populate)
    spoil(url, "steps", "attributes", "{", 17)
    told = []
    worklist = Worklist(store.reader, StoreUnavailable, lambda step_id, reason: told.append(step_id))
    caller = caller_of(Devices.of([Device("CT1")], accept_unknown=False), "CT1", "GATEWAY", b"", None, NOW.date())
    identifier = write_attributes(attributes(PatientID=None), IMPLICIT_VR_LITTLE_ENDIAN, ())
    answers = [answer for answer in worklist.answer(caller, IMPLICIT_VR_LITTLE_ENDIAN, identifier) if answer]
    assert [answer.is_pending for answer in answers] == [True] * 39 + [False]
    assert answers[-1].status == 0
    assert told == [17]


def test_an_item_of_a_status_that_there_is_not_is_left_out(store, write, url):
    write(lambda unit: unit.save_order(order(unit.save_patient(patient(), NOW)), "NW", NOW))
    spoil(url, "steps", "status", "PERHAPS", 1)
    assert store.reader.items([1]) == []
