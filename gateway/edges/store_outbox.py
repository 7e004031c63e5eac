"""The outbox in the store: what waits to be sent, next for each destination, and what became of it.

Of a destination the oldest message goes first whose time has come and before which none about the same patient waits;
so a message that has to wait holds back only its own patient. What was sent has left: the archive remembers it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, literal_column, select, update

from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import messages, outbox
from gateway.edges.stored_values import utc_text
from gateway.workflow.outbox import Backlog, Delivery, OutboxState

_given = bindparam
_waits: ColumnElement[str] = literal_column("'waiting'")

_DELIVERY = select(
    outbox.c.id,
    outbox.c.message_id,
    outbox.c.destination,
    outbox.c.patient_id,
    outbox.c.control_id,
    outbox.c.payload,
    outbox.c.created_at,
    outbox.c.due_at,
    outbox.c.state,
    outbox.c.attempts,
    outbox.c.errors,
    outbox.c.reason,
)
_before = outbox.alias("before_it")
DELIVERY = Prepared(_DELIVERY.where(outbox.c.id == _given("id")))
NEXT_DELIVERY = Prepared(
    _DELIVERY.where(
        outbox.c.destination == _given("destination"),
        outbox.c.state == _waits,
        outbox.c.due_at <= _given("now"),
        ~select(_before.c.id)
        .where(
            _before.c.destination == _given("destination"),
            _before.c.patient_id.is_not_distinct_from(outbox.c.patient_id),
            _before.c.state == _waits,
            _before.c.id < outbox.c.id,
        )
        .exists(),
    )
    .order_by(outbox.c.id)
    .limit(literal_column("1"))
)
DELIVERIES = Prepared(
    _DELIVERY.where(outbox.c.id > _given("after")).order_by(outbox.c.id).limit(_given("limit"))
)  # fmt: skip
DELIVERY_INSERT = Prepared(
    insert(outbox)
    .values({column.name: _given(column.name) for column in outbox.columns if not column.primary_key})
    .returning(outbox.c.id)
)
DELIVERY_UPDATE = Prepared(
    update(outbox)
    .values({name: _given(name) for name in ("state", "attempts", "errors", "due_at", "reason")})
    .where(outbox.c.id == _given("key_id"))
)
DELIVERIES_HAND_OVER = Prepared(
    update(outbox)
    .values(patient_id=_given("patient_id"))
    .where(outbox.c.patient_id == _given("key_patient_id"), outbox.c.state == _waits)
)
"""Of a merged patient: what is to be told of both is told in one order from then on."""
DELIVERY_DELETE = Prepared(delete(outbox).where(outbox.c.id == _given("id")))
MESSAGE_SET_DELIVERED = Prepared(
    update(messages)
    .values({name: _given(name) for name in ("disposition", "reasons", "answer")})
    .where(messages.c.id == _given("key_id"))
)
BACKLOG = Prepared(
    select(outbox.c.destination, outbox.c.state, func.count(), func.min(outbox.c.created_at)).group_by(
        outbox.c.destination, outbox.c.state
    )
)


class OutboxReader:
    """The outbox's part of a `StoreReader`."""

    _connection: Queries

    def next_delivery(self, destination: str, now: datetime) -> Delivery | None:
        """What is to be sent there next, if anything is due."""
        row = self._connection.row(NEXT_DELIVERY, destination=destination, now=utc_text(now))
        return _delivery(row) if row is not None else None

    def delivery(self, delivery_id: int) -> Delivery | None:
        """A message that waits or is parked."""
        row = self._connection.row(DELIVERY, id=delivery_id)
        return _delivery(row) if row is not None else None

    def deliveries(self, limit: int, after: int = 0) -> Sequence[Delivery]:
        """What waits or is parked, oldest first, from behind number `after`."""
        return [_delivery(row) for row in self._connection.rows(DELIVERIES, limit=limit, after=after)]

    def backlogs(self) -> Sequence[Backlog]:
        """How much there is of each destination that has anything waiting or parked."""
        found: dict[str, dict[str, tuple[int, str]]] = {}
        for destination, state, count, oldest in self._connection.rows(BACKLOG):
            found.setdefault(destination, {})[state] = count, oldest
        backlogs = []
        for destination, states in sorted(found.items()):
            waiting, oldest = states.get(OutboxState.WAITING.value, (0, ""))
            parked, _ = states.get(OutboxState.PARKED.value, (0, ""))
            backlogs.append(
                Backlog(destination, waiting, parked, datetime.fromisoformat(oldest) if oldest else None)
            )  # fmt: skip
        return backlogs


class OutboxWriter(OutboxReader):
    """The outbox's part of a `StoreUnit`."""

    _write: Connection

    def add_delivery(
        self, message_id: int, destination: str, patient_id: int | None, control_id: str, payload: bytes, at: datetime
    ) -> int:
        """Put an archived message behind those that wait; its number in the outbox."""
        return self._write.number(
            DELIVERY_INSERT,
            message_id=message_id, destination=destination, patient_id=patient_id, control_id=control_id,
            payload=payload, created_at=utc_text(at), due_at=utc_text(at), state=OutboxState.WAITING.value,
            attempts=0, errors=0, reason="",
        )  # fmt: skip

    def save_delivery(self, delivery: Delivery, answer: bytes) -> None:
        """Keep what became of it, also in the archive; one that was sent leaves the outbox."""
        if delivery.state is OutboxState.SENT:
            self._write.run(DELIVERY_DELETE, id=delivery.id)
        else:
            self._write.run(
                DELIVERY_UPDATE,
                key_id=delivery.id, state=delivery.state.value, attempts=delivery.attempts, errors=delivery.errors,
                due_at=utc_text(delivery.due_at), reason=delivery.reason,
            )  # fmt: skip
        self._write.run(
            MESSAGE_SET_DELIVERED,
            key_id=delivery.message_id, disposition=delivery.state.value, reasons=delivery.reason, answer=answer,
        )  # fmt: skip


def _delivery(row: Row) -> Delivery:
    values: tuple[Any, ...] = tuple(row)
    (number, message_id, destination, patient_id, control_id, payload, created_at, due_at, state, *rest) = values
    attempts, errors, reason = rest
    return Delivery(
        number, message_id, destination, patient_id, control_id, bytes(payload), datetime.fromisoformat(created_at),
        datetime.fromisoformat(due_at), OutboxState(state), attempts, errors, reason,
    )  # fmt: skip
