"""The outbox in the store: what is next, what holds back what, and what the archive says of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Patient
from gateway.edges.metrics import Metrics
from gateway.edges.store import Store, StoreUnit
from gateway.edges.store_outbox import DELIVERIES, DELIVERY, NEXT_DELIVERY
from gateway.workflow.outbox import Attempt, Backlog, Delivery, Patience, after, enqueue

AT = datetime(2026, 7, 5, 8, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
Write = Callable[[Callable[[StoreUnit], object]], object]


@pytest.fixture
def patients(write: Write) -> tuple[int, int]:
    """Two."""

    def both(unit: StoreUnit) -> tuple[int, int]:
        first, second = (unit.save_patient(Patient(None, (Identifier(each, "OE"),), {}), AT) for each in "AB")
        return first, second

    made = write(both)
    assert isinstance(made, tuple)
    return made


def put(write: Write, control_id: str, patient: int | None = None, destination: str = "ris") -> None:
    raw = f"MSH|^~\\&|GATEWAY|X|RIS||||ORM^O01|{control_id}|P|2.5\r".encode()
    write(lambda unit: enqueue(unit, destination, patient, control_id, raw, AT, [("placer", "P1")]))


def next_of(store: Store, destination: str = "ris", now: datetime = AT) -> str:
    found = store.reader.next_delivery(destination, now)
    return found.control_id if found else ""


def settle(store: Store, write: Write, attempt: Attempt, now: datetime = AT) -> Delivery:
    delivery = store.reader.next_delivery("ris", now)
    assert delivery is not None
    settled = after(delivery, attempt, "told so", now, Patience(errors_max=2))
    write(lambda unit: unit.save_delivery(settled, b"MSA"))
    return settled


def test_the_oldest_goes_first_of_each_destination(store: Store, write: Write, patients: tuple[int, int]) -> None:
    put(write, "M1", patients[0], "pacs")
    put(write, "M2", patients[1])
    put(write, "M3", None)
    assert [next_of(store), next_of(store, "pacs"), next_of(store, "nobody")] == ["M2", "M1", ""]
    settle(store, write, Attempt.ACCEPTED)
    assert next_of(store) == "M3"


def test_what_waits_for_its_time_holds_back_its_patient_alone(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    for control_id, patient in (
        ("M1", patients[0]),
        ("M2", patients[0]),
        ("M3", None),
        ("M4", None),
        ("M5", patients[1]),
    ):
        put(write, control_id, patient)
    settle(store, write, Attempt.ERROR)
    assert next_of(store) == "M3"
    settle(store, write, Attempt.ERROR)
    assert next_of(store) == "M5"
    assert next_of(store, now=LATER) == "M1"
    settle(store, write, Attempt.ERROR, LATER)  # the second time: parked
    assert next_of(store, now=LATER) == "M2"


def test_the_archive_tells_what_became_of_it(store: Store, write: Write) -> None:
    put(write, "M1")
    waiting = store.reader.next_delivery("ris", AT)
    assert waiting is not None
    stored = store.reader.message(waiting.message_id)
    assert stored is not None
    assert (stored.record.direction, stored.record.disposition, stored.record.sender) == ("out", "waiting", "GATEWAY|X")
    assert stored.record.keys == (("placer", "P1"),)
    settle(store, write, Attempt.ACCEPTED)
    stored = store.reader.message(waiting.message_id)
    assert stored is not None
    assert (stored.record.disposition, stored.record.reasons, stored.record.answer) == ("sent", "told so", b"MSA")
    assert store.reader.delivery(waiting.id) is None


def test_numbers_are_never_used_again(store: Store, write: Write) -> None:
    put(write, "M1")
    first = settle(store, write, Attempt.ACCEPTED)
    put(write, "M2")
    second = store.reader.next_delivery("ris", AT)
    assert second is not None
    assert second.id > first.id


def test_what_a_merge_brings_together_is_told_in_one_order(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    put(write, "M1", patients[0])
    settle(store, write, Attempt.ERROR)
    write(lambda unit: unit.merge_patient(patients[0], patients[1], AT))
    put(write, "M2", patients[1])
    assert next_of(store) == ""
    assert next_of(store, now=LATER) == "M1"


def test_a_row_round_trips(store: Store, write: Write, patients: tuple[int, int]) -> None:
    put(write, "M1", patients[1])
    held = store.reader.next_delivery("ris", AT)
    assert held is not None
    changed = replace(held, attempts=3, errors=1, reason="ä", due_at=LATER)
    write(lambda unit: unit.save_delivery(changed, b""))
    assert store.reader.delivery(held.id) == changed
    assert store.reader.deliveries(5) == [changed]
    assert store.reader.deliveries(5, after=held.id) == []


def test_backlogs_are_counted_and_exposed(store: Store, write: Write) -> None:
    for control_id in ("M1", "M2", "M3"):
        put(write, control_id)
    put(write, "M4", None, "pacs")
    settle(store, write, Attempt.REJECTED)
    assert store.reader.backlogs() == [Backlog("pacs", 1, 0, AT), Backlog("ris", 2, 1, AT)]
    metrics = Metrics()
    metrics.backlogs = store.reader.backlogs
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }  # fmt: skip
    assert samples["gateway_outbox_messages", "ris", "waiting"] == 2
    assert samples["gateway_outbox_messages", "ris", "parked"] == 1
    assert samples["gateway_outbox_oldest_seconds", "pacs"] > 0


def test_the_next_message_is_found_without_looking_at_all(store: Store) -> None:
    connection = store._engine.raw_connection()
    plans = []
    try:
        for prepared in (NEXT_DELIVERY, DELIVERY, DELIVERIES):
            sql, bind = prepared.on(store._engine.dialect)
            values = {"destination": "ris", "now": "", "id": 1, "after": 0, "limit": 1}
            rows = connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(values)).fetchall()
            plans += [row[3] for row in rows]
    finally:
        connection.close()
    assert not [step for step in plans if step.startswith("SCAN") or "TEMP B-TREE" in step], plans
    assert any("outbox_in_order" in step for step in plans)
    assert any("outbox_by_patient" in step for step in plans)
