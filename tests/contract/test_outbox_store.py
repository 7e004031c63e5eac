"""The outbox in the store: what is next, what holds back what, and what the archive says of it."""

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.config import ArchiveSettings
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Patient
from gateway.edges.database import Prepared, database_path
from gateway.edges.metrics import Metrics
from gateway.edges.store import Store, StoreUnit
from gateway.edges.store_outbox import (
    DELIVERIES,
    DELIVERIES_OF,
    DELIVERY,
    DUE_DESTINATIONS,
    FAR_AHEAD,
    FIRST_OF_LANE,
    HEAD_OF_LANE,
    LANE_HAND_OVER,
    LANE_LEADS_TO,
    NEXT_DELIVERY,
    QUEUES,
    hand_over_lane,
    share_lane,
)
from gateway.retention import Pruned, prune
from gateway.workflow.outbox import Attempt, Backlog, Delivery, OutboxState, Patience, after, enqueue, park, retry
from gateway.workflow.ports import MESSAGES, DeliveryKind, MessageSearch, NewDelivery

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
    write(lambda unit: unit.save_delivery(settled, b"MSA", now))
    return settled


def heads(store: Store) -> set[tuple[str, str, int]]:
    """Destination, lane and number of what is marked as the head of its lane."""
    with closing(sqlite3.connect(database_path(str(store._engine.url)))) as database:
        return set(database.execute("SELECT destination, lane, id FROM outbox WHERE head = 1"))


def counted(store: Store) -> list[Backlog]:
    """What the queues would say if everything was counted."""
    deliveries = store.reader.deliveries(10_000)
    return [
        replace(
            queue,
            waiting=sum(each.state is OutboxState.WAITING for each in its),
            parked=sum(each.state is OutboxState.PARKED for each in its),
            oldest=next((each.created_at for each in its if each.state is OutboxState.WAITING), None),
        )
        for queue in store.reader.queues()
        for its in [[each for each in deliveries if each.destination == queue.destination]]
    ]


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
    settle(store, write, Attempt.ACCEPTED)
    assert next_of(store) == ""
    assert next_of(store, now=LATER) == "M1"
    settle(store, write, Attempt.ERROR, LATER)  # the second time: parked
    assert next_of(store, now=LATER) == "M2"


def test_what_keeps_failing_does_not_keep_others_from_their_turn(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    put(write, "M1", patients[0])
    settle(store, write, Attempt.UNANSWERED)
    put(write, "M2", patients[1])
    assert next_of(store, now=LATER) == "M2"


def test_the_archive_tells_what_became_of_it(store: Store, write: Write) -> None:
    put(write, "M1")
    waiting = store.reader.next_delivery("ris", AT)
    assert waiting is not None
    stored = store.reader.message(waiting.archive_id)
    assert stored is not None
    assert (stored.record.direction, stored.record.disposition, stored.record.sender) == ("out", "waiting", "GATEWAY|X")
    assert stored.record.keys == (("placer", "P1"),)
    settle(store, write, Attempt.ACCEPTED)
    stored = store.reader.message(waiting.archive_id)
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


@pytest.mark.parametrize("visit_moves", [False, True])
@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_whatever_it_goes_by_what_waits_about_an_order_is_not_overtaken_when_the_order_goes_to_another_patient(
    store: Store, write: Write, patients: tuple[int, int], kind: DeliveryKind, visit_moves: bool
) -> None:
    prior, other = patients

    def tell(control_id: str, patient: int) -> None:
        made = NewDelivery("ehr", str(patient), control_id, b"{}", kind=kind)
        write(lambda unit: unit.add_delivery(made, AT))

    tell("M1", prior)
    if visit_moves:
        tell("M2", other)
        write(lambda unit: share_lane(unit._write, str(prior), str(other)))
    else:
        write(lambda unit: unit.merge_patient(prior, other, AT))
    tell("M3", other)
    came = []
    while waiting := store.reader.next_deliveries("ehr", AT, 5):
        (first,) = waiting
        came.append(first.control_id)
        sent = replace(first, state=OutboxState.SENT)
        write(lambda unit, sent=sent: unit.save_delivery(sent, b"", AT))
    assert came == (["M1", "M2", "M3"] if visit_moves else ["M1", "M3"])


def test_a_row_round_trips(store: Store, write: Write, patients: tuple[int, int]) -> None:
    put(write, "M1", patients[1])
    held = store.reader.next_delivery("ris", AT)
    assert held is not None
    changed = replace(held, attempts=3, errors=1, reason="ä", due_at=LATER)
    write(lambda unit: unit.save_delivery(changed, b""))
    assert store.reader.delivery(held.id) == changed
    assert store.reader.deliveries(5) == [changed]
    assert store.reader.deliveries(5, after=held.id) == []


def test_the_outbox_is_listed_by_destination_and_state(store: Store, write: Write) -> None:
    for control_id, destination in (("M1", "ris"), ("M2", "pacs"), ("M3", "ris"), ("M4", "ris")):
        put(write, control_id, None, destination)
    settle(store, write, Attempt.REJECTED)

    def listed(limit: int = 9, after: int = 0, **asked: Any) -> list[str]:
        return [each.control_id for each in store.reader.deliveries(limit, after, **asked)]

    assert listed() == ["M1", "M2", "M3", "M4"]
    assert listed(destination="ris") == ["M1", "M3", "M4"]
    assert listed(2, destination="ris") == ["M1", "M3"]
    assert listed(state=OutboxState.WAITING) == ["M2", "M3", "M4"]
    assert listed(1, destination="ris", state=OutboxState.WAITING) == ["M3"]
    third = next(each.id for each in store.reader.deliveries(9) if each.control_id == "M3")
    assert listed(after=third, destination="ris") == ["M4"]
    assert listed(destination="nobody") == []


def test_performed_steps_have_lanes_of_their_own(store: Store, write: Write) -> None:
    for uid, operation in (("1.2.1", "N-CREATE"), ("1.2.1", "N-SET"), ("1.2.2", "N-CREATE")):
        made = NewDelivery(
            "pacs", uid, uid, b"dataset", 7, DeliveryKind.PERFORMED, operation, transfer_syntax="1.2.840.10008.1.2"
        )
        write(lambda unit, made=made: unit.add_delivery(made, AT))
    first = store.reader.next_delivery("pacs", AT)
    assert first is not None
    assert (first.kind, first.archive_id, first.operation, first.transfer_syntax, first.payload) == (
        DeliveryKind.PERFORMED, 7, "N-CREATE", "1.2.840.10008.1.2", b"dataset",
    )  # fmt: skip
    write(lambda unit: unit.save_delivery(replace(first, due_at=LATER), b"", AT))
    assert next_of(store, "pacs") == "1.2.2"
    write(lambda unit: unit.save_delivery(replace(first, state=OutboxState.SENT), b"", AT))
    second = store.reader.next_delivery("pacs", AT)
    assert second is not None
    assert second.operation == "N-SET"


def test_what_could_not_be_written_is_parked_from_the_beginning(store: Store, write: Write) -> None:
    put(write, "M1")
    write(lambda unit: unit.add_delivery(NewDelivery("ris", "", "M2", b"", reason="no placer number"), AT))
    assert store.reader.queues() == [Backlog("ris", 1, 1, AT)]
    (parked,) = store.reader.deliveries(5, state=OutboxState.PARKED)
    assert (parked.control_id, parked.reason) == ("M2", "no placer number")


def test_a_destination_is_held_and_released(store: Store, write: Write) -> None:
    put(write, "M1")
    put(write, "M2", None, "pacs")
    write(lambda unit: unit.hold_queue("ris", True))
    put(write, "M3")
    assert [next_of(store), next_of(store, "pacs")] == ["", "M2"]
    assert [queue.held for queue in store.reader.queues()] == [False, True]
    write(lambda unit: unit.hold_queue("ris", False))
    assert next_of(store) == "M1"


def test_a_destination_may_be_held_before_anything_is_told_to_it(store: Store, write: Write) -> None:
    write(lambda unit: unit.hold_queue("ris", True))
    put(write, "M1")
    assert store.reader.queues() == [Backlog("ris", 1, 0, AT, held=True)]
    assert next_of(store) == ""


def test_what_is_dropped_lets_the_next_one_go_and_stays_in_the_archive(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    put(write, "M1", patients[0])
    put(write, "M2", patients[0])
    dropped = settle(store, write, Attempt.ERROR)
    assert write(lambda unit: unit.drop_delivery(dropped.id)) is True
    assert write(lambda unit: unit.drop_delivery(dropped.id)) is False
    assert store.reader.delivery(dropped.id) is None
    assert next_of(store) == "M2"
    stored = store.reader.message(dropped.archive_id)
    assert stored is not None
    assert (stored.record.disposition, stored.record.reasons, stored.record.answer) == (
        "dropped", "dropped by hand", b"MSA",
    )  # fmt: skip
    assert store.reader.queues()[0].waiting == 1


def test_what_was_dropped_while_it_was_sent_stays_dropped(store: Store, write: Write) -> None:
    put(write, "M1")
    delivery = store.reader.next_delivery("ris", AT)
    assert delivery is not None
    write(lambda unit: unit.drop_delivery(delivery.id))
    write(lambda unit: unit.save_delivery(replace(delivery, due_at=LATER), b"", AT))
    assert store.reader.delivery(delivery.id) is None
    assert store.reader.queues() == [Backlog("ris", 0, 0, None)]


def test_a_queue_says_when_something_last_went_and_failed(store: Store, write: Write) -> None:
    put(write, "M1")
    settle(store, write, Attempt.ERROR)
    (queue,) = store.reader.queues()
    assert (queue.last_error, queue.last_error_at, queue.last_sent_at) == (
        "answered with an error: told so", AT, None,
    )  # fmt: skip
    settle(store, write, Attempt.ACCEPTED, LATER)
    (queue,) = store.reader.queues()
    assert (queue.last_error_at, queue.last_sent_at, queue.waiting, queue.oldest) == (AT, LATER, 0, None)


@pytest.mark.parametrize("parked", [False, True])
def test_retention_leaves_what_waits_or_is_parked(store: Store, write: Write, parked: bool) -> None:
    put(write, "M1")
    if parked:
        settle(store, write, Attempt.REJECTED)
    put(write, "M2", None, "pacs")
    write(lambda unit: unit.drop_delivery(unit.next_delivery("pacs", AT).id))
    put(write, "M3", None, "newest")
    much_later = AT + timedelta(days=9999)
    assert prune(store, ArchiveSettings(days=1), much_later) == Pruned(1, 1)
    stored = store.reader.find_messages(MessageSearch(control_id="M1"), 5)
    assert [each.record.raw for each in stored] != []
    assert store.reader.find_messages(MessageSearch(control_id="M2"), 5) == []


@cache
def _empty() -> bytes:
    """A new database, made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        Store(f"sqlite:///{path}").close()
        return path.read_bytes()


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to messages in whatever order: the queues count right, and every lane has its first as head."""

    LANES = ("", "1", "2")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        (Path(self.folder.name) / "gateway.db").write_bytes(_empty())
        self.store = Store(f"sqlite:///{self.folder.name}/gateway.db")
        self.minutes = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def write(self, job: Callable[[StoreUnit], object]) -> None:
        self.store.write(job).result(timeout=10)

    def now(self) -> datetime:
        self.minutes += 1
        return AT + timedelta(minutes=self.minutes)

    def one_of(self, number: int) -> Delivery | None:
        held = self.store.reader.deliveries(100)
        return held[number % len(held)] if held else None

    @rule(destination=st.sampled_from(["ris", "pacs"]), lane=st.sampled_from(LANES), refused=st.booleans())
    def add(self, destination: str, lane: str, refused: bool) -> None:
        made = NewDelivery(destination, lane, f"M{self.minutes}", b"", reason="refused" if refused else "")
        self.write(lambda unit: unit.add_delivery(made, self.now()))

    @rule(destination=st.sampled_from(["ris", "pacs"]), attempt=st.sampled_from(Attempt))
    def send(self, destination: str, attempt: Attempt) -> None:
        at = self.now()
        delivery = self.store.reader.next_delivery(destination, at)
        if delivery is not None:
            settled = after(delivery, attempt, "", at, Patience(errors_max=2))
            self.write(lambda unit: unit.save_delivery(settled, b"", at))

    @rule(number=st.integers(0, 99), what=st.sampled_from(["retry", "park", "drop"]))
    def decide(self, number: int, what: str) -> None:
        delivery = self.one_of(number)
        if delivery is not None:
            decisions = {
                "retry": lambda unit: retry(unit, delivery.id, self.now()),
                "park": lambda unit: park(unit, delivery.id),
                "drop": lambda unit: unit.drop_delivery(delivery.id),
            }
            self.write(decisions[what])

    @rule(prior=st.sampled_from(LANES[1:]))
    def merge(self, prior: str) -> None:
        surviving = next(each for each in self.LANES[1:] if each != prior)
        self.write(lambda unit: hand_over_lane(unit._write, prior, surviving))

    @rule(source=st.sampled_from(LANES[1:]))
    def move(self, source: str) -> None:
        target = next(each for each in self.LANES[1:] if each != source)
        self.write(lambda unit: share_lane(unit._write, source, target))

    @invariant()
    def all_is_in_step(self) -> None:
        assert self.store.reader.queues() == counted(self.store)
        first: dict[tuple[str, str], int] = {}
        for each in self.store.reader.deliveries(10_000):
            if each.state is OutboxState.WAITING:
                first.setdefault((each.destination, each.lane), each.id)
        assert heads(self.store) == {(*where, number) for where, number in first.items()}


AnyHistory.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestAnyHistory = AnyHistory.TestCase


class OrdersMove(RuleBasedStateMachine):
    """Whoever an order belongs to meanwhile: what is told of it arrives in the order in which it was told."""

    PATIENTS = ("1", "2", "3")
    orders = st.integers(0, 3)
    patients = st.sampled_from(PATIENTS)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        (Path(self.folder.name) / "gateway.db").write_bytes(_empty())
        self.store = Store(f"sqlite:///{self.folder.name}/gateway.db")
        self.whose = dict(enumerate(("1", "1", "2", "3")))
        self.told: list[str] = []
        self.came: list[str] = []
        self.minutes = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def write(self, job: Callable[[StoreUnit], object]) -> None:
        self.store.write(job).result(timeout=10)

    @rule(order=orders)
    def tell(self, order: int) -> None:
        what = f"{order} {len(self.told)}"
        self.told.append(what)
        self.write(lambda unit: unit.add_delivery(NewDelivery("ris", self.whose[order], what, b""), AT))

    @rule(accepted=st.booleans())
    def send(self, accepted: bool) -> None:
        self.minutes += 1
        at = AT + timedelta(minutes=self.minutes)
        delivery = self.store.reader.next_delivery("ris", at)
        if delivery is not None:
            if accepted:
                self.came.append(delivery.control_id)
            attempt = Attempt.ACCEPTED if accepted else Attempt.UNANSWERED  # which waits while others go
            settled = after(delivery, attempt, "", at, Patience(first_s=300, most_s=300))
            self.write(lambda unit: unit.save_delivery(settled, b"", at))

    @rule(order=orders, to=patients)
    def move(self, order: int, to: str) -> None:
        source, self.whose[order] = self.whose[order], to
        self.write(lambda unit: share_lane(unit._write, source, to))

    @rule(prior=patients, surviving=patients)
    def merge(self, prior: str, surviving: str) -> None:
        self.whose = {order: surviving if whose == prior else whose for order, whose in self.whose.items()}
        self.write(lambda unit: hand_over_lane(unit._write, prior, surviving))

    @invariant()
    def no_message_of_an_order_overtook_another(self) -> None:
        for order in self.whose:
            mine = [what for what in self.told if what.startswith(f"{order} ")]
            came = [what for what in self.came if what.startswith(f"{order} ")]
            assert came == mine[: len(came)]


OrdersMove.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestOrdersMove = OrdersMove.TestCase


def test_lanes_part_again_when_nothing_waits_that_could_be_overtaken(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    one, other = map(str, patients)
    write(lambda unit: share_lane(unit._write, one, other))  # nothing waits: nothing is shared
    put(write, "M1", patients[0])
    put(write, "M2", patients[1])
    assert {lane for _, lane, _ in heads(store)} == {one, other}
    write(lambda unit: share_lane(unit._write, one, other))
    put(write, "M3", patients[1])
    assert {lane for _, lane, _ in heads(store)} == {one}
    for _ in range(3):
        settle(store, write, Attempt.ACCEPTED)
    put(write, "M4", patients[1])
    put(write, "M5", patients[0])
    assert {lane for _, lane, _ in heads(store)} == {one, other}


def test_of_each_destination_only_lanes_with_something_in_them_are_shared(
    store: Store, write: Write, patients: tuple[int, int]
) -> None:
    one, other = map(str, patients)
    put(write, "M1", patients[0])
    put(write, "M2", patients[1], "pacs")
    write(lambda unit: share_lane(unit._write, one, other))
    put(write, "M3", patients[1])
    put(write, "M4", patients[1], "pacs")
    assert {(name, lane) for name, lane, _ in heads(store)} == {("ris", one), ("pacs", other)}


def test_backlogs_are_counted_and_exposed(store: Store, write: Write) -> None:
    for control_id in ("M1", "M2", "M3"):
        put(write, control_id)
    put(write, "M4", None, "pacs")
    settle(store, write, Attempt.REJECTED)
    reason = "rejected: told so"
    assert store.reader.queues() == [
        Backlog("pacs", 1, 0, AT),
        Backlog("ris", 2, 1, AT, last_error=reason, last_error_at=AT),
    ]
    metrics = Metrics()
    metrics.backlogs = store.reader.queues
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }  # fmt: skip
    assert samples["gateway_outbox_messages", "ris", "waiting"] == 2
    assert samples["gateway_outbox_messages", "ris", "parked"] == 1
    assert samples["gateway_outbox_oldest_seconds", "pacs"] > 0


_PLANS = {
    DUE_DESTINATIONS: {"outbox_next"},
    NEXT_DELIVERY: {"outbox_next", "sqlite_autoindex_queues_1"},
    FAR_AHEAD: {"outbox_next", "sqlite_autoindex_queues_1"},
    FIRST_OF_LANE: {"outbox_by_lane"},
    HEAD_OF_LANE: {"outbox_heads"},
    LANE_HAND_OVER: {"outbox_by_lane"},
    LANE_LEADS_TO: {"PRIMARY KEY"},
    DELIVERIES_OF: {"outbox_in_order"},
    DELIVERIES: {"INTEGER PRIMARY KEY"},
    DELIVERY: {"INTEGER PRIMARY KEY"},
    QUEUES: {"outbox_in_order", "sqlite_autoindex_queues_1"},
}


def plan_of(store: Store, prepared: Prepared) -> list[str]:
    """What SQLite does for the statement, step by step."""
    values = {
        "destination": "ris",
        "now": "",
        "later": "",
        "id": 1,
        "after": 0,
        "limit": 1,
        "state": "",
        "lane": "",
        "key_lane": "",
    }
    sql, bind = prepared.on(store._engine.dialect)
    connection = store._engine.raw_connection()
    try:
        return [row[3] for row in connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(values))]
    finally:
        connection.close()


@pytest.mark.parametrize("prepared", _PLANS, ids=[" ".join(sorted(each)) for each in _PLANS.values()])
def test_whatever_waits_nothing_is_looked_through(store: Store, prepared: Prepared) -> None:
    plan = plan_of(store, prepared)
    scans = [step for step in plan if step.startswith("SCAN") and not step.startswith("SCAN CONSTANT")]
    # There are as many queues as destinations, and all of them are shown.
    assert scans == [step for step in scans if step.startswith("SCAN queues")], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    assert all(any(index in step for step in plan) for index in _PLANS[prepared]), plan


def test_what_is_next_is_found_in_order_in_its_index(store: Store) -> None:
    assert plan_of(store, NEXT_DELIVERY)[0] == "SEARCH outbox USING INDEX outbox_next (destination=? AND due_at<?)"
