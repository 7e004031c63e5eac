"""The log of the queues in the store: what people decided about destinations and single messages.

A line is about a destination. Which messages it is about has an index of its own, so that a message finds its lines.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, bindparam, insert, literal_column, select

from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import performed_requests, queue_log, queue_log_messages
from gateway.edges.stored_values import utc_text
from gateway.workflow.ports import DeliveryKind
from gateway.workflow.queue_decisions import Archived, QueueAction, QueueDecision

_given = bindparam
_PERFORMED: list[ColumnElement[str]] = [
    literal_column(f"'{kind.value}'") for kind in (DeliveryKind.PERFORMED, DeliveryKind.NOTIFICATION)
]

_LINE = (queue_log.c.id, queue_log.c.at, queue_log.c.destination, queue_log.c.action, queue_log.c.actor,
         queue_log.c.details)  # fmt: skip
QUEUE_DECISIONS = Prepared(
    select(*_LINE)
    .where(queue_log.c.destination == _given("destination"))
    .order_by(queue_log.c.id.desc())
    .limit(_given("limit"))
)
LAST_KEPT = Prepared(
    select(*_LINE)
    .where(queue_log.c.destination == _given("destination"), queue_log.c.action == _given("action"))
    .order_by(queue_log.c.id.desc())
    .limit(1)
)
_OF_MESSAGE = select(*_LINE).join_from(queue_log_messages, queue_log, queue_log.c.id == queue_log_messages.c.log_id)
QUEUE_DECISIONS_OF_MESSAGE = Prepared(
    _OF_MESSAGE.where(
        queue_log_messages.c.kind == _given("kind"), queue_log_messages.c.archive_id == _given("archive_id")
    )
    .order_by(queue_log_messages.c.log_id.desc())
    .limit(_given("limit"))
)
QUEUE_DECISIONS_OF_INSTANCE = Prepared(
    _OF_MESSAGE.join(performed_requests, performed_requests.c.id == queue_log_messages.c.archive_id)
    .where(
        performed_requests.c.sop_instance_uid == _given("uid"),
        queue_log_messages.c.kind.in_(_PERFORMED),
    )  # of a few requests each, so they are sorted
    .distinct()
    .order_by(queue_log.c.id.desc())
    .limit(_given("limit"))
)
LINE_INSERT = Prepared(
    insert(queue_log).values({column.name: _given(column.name) for column in queue_log.columns if column.name != "id"})
)
LINE_MESSAGE_INSERT = Prepared(
    insert(queue_log_messages).values({column.name: _given(column.name) for column in queue_log_messages.columns})
)


class QueueLogReader:
    """The part of `StoreReader` about decisions on queues; all are given newest first, without their messages."""

    _connection: Queries

    def queue_decisions(self, destination: str, limit: int = 20) -> Sequence[QueueDecision]:
        """What was decided about a destination's queue and what was in it."""
        return self._lines(QUEUE_DECISIONS, destination=destination, limit=limit)

    def queue_held_by(self, destination: str) -> QueueDecision | None:
        """Who held it last, whether or not it was released since."""
        return next(iter(self._lines(LAST_KEPT, destination=destination, action=QueueAction.HELD.value)), None)

    def queue_decisions_of(self, archived: Archived, limit: int = 100) -> Sequence[QueueDecision]:
        """What was decided about one message of ours, wherever it was to go."""
        kind, number = archived
        return self._lines(QUEUE_DECISIONS_OF_MESSAGE, kind=kind.value, archive_id=number, limit=limit)

    def queue_decisions_of_instance(self, sop_instance_uid: str, limit: int = 100) -> Sequence[QueueDecision]:
        """What was decided about passing on a performed step."""
        return self._lines(QUEUE_DECISIONS_OF_INSTANCE, uid=sop_instance_uid, limit=limit)

    def _lines(self, statement: Prepared, **values: Any) -> list[QueueDecision]:
        return [_decision(row) for row in self._connection.rows(statement, **values)]


class QueueLogWriter(QueueLogReader):
    """The part of `StoreUnit` about decisions on queues."""

    _write: Connection

    def log_queue(self, decision: QueueDecision) -> int:
        """Note what was decided; the number of its line."""
        number = self._write.insert(
            LINE_INSERT,
            at=utc_text(decision.at), destination=decision.destination, action=decision.action, actor=decision.actor,
            details=to_json(dict(decision.details)).decode(),
        )  # fmt: skip
        self._write.run_many(
            LINE_MESSAGE_INSERT,
            [
                {"kind": kind.value, "archive_id": archive_id, "log_id": number}
                for kind, archive_id in dict.fromkeys(decision.messages)
            ],
        )
        return number


def _decision(row: Row) -> QueueDecision:
    _, at, destination, action, actor, details = row
    return QueueDecision(datetime.fromisoformat(at), destination, action, actor, (), from_json(details))
