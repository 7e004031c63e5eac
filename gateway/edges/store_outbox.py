"""The outbox in the store: what waits to be sent, what is next for each destination, and what became of it.

Of everything in a lane of a destination only the oldest that waits, its head, may go; of the heads whose time has come
the one whose time came first. So a message that has to wait holds back its own lane alone, and one that keeps failing
does not keep the others from their turn. `head` is kept with every change: what is next is one look into an index,
however much waits, and so is the head of a lane. What was sent has left: the archive remembers it, and of performed
steps `performed_sent` the last that each destination got.

`queues` counts in the same transactions, so that nobody ever has to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, literal_column, select, update

from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import messages, outbox, outbox_lanes, performed_sent, queues
from gateway.edges.stored_values import utc_text
from gateway.workflow.outbox import DROPPED, Backlog, Delivery, OutboxState
from gateway.workflow.ports import MESSAGES, DeliveryKind, NewDelivery

_given = bindparam
_waits: ColumnElement[str] = literal_column("'waiting'")
_yes: ColumnElement[int] = literal_column("1")

_DELIVERY = select(
    outbox.c.id,
    outbox.c.kind,
    outbox.c.archive_id,
    outbox.c.destination,
    outbox.c.lane,
    outbox.c.control_id,
    outbox.c.payload,
    outbox.c.created_at,
    outbox.c.due_at,
    outbox.c.state,
    outbox.c.attempts,
    outbox.c.errors,
    outbox.c.reason,
    outbox.c.operation,
    outbox.c.transfer_syntax,
)
DELIVERY = Prepared(_DELIVERY.where(outbox.c.id == _given("id")))
_HEADS = _DELIVERY.where(  # of a destination that nobody holds
    outbox.c.destination == _given("destination"),
    outbox.c.head == _yes,
    ~select(queues.c.destination).where(queues.c.destination == _given("destination"), queues.c.held == _yes).exists(),
)
NEXT_DELIVERY = Prepared(
    _HEADS.where(outbox.c.due_at <= _given("now")).order_by(outbox.c.due_at, outbox.c.id).limit(_given("limit"))
)
FAR_AHEAD = Prepared(
    _HEADS.where(outbox.c.due_at > _given("later")).order_by(outbox.c.due_at, outbox.c.id).limit(_given("limit"))
)
DUE_DESTINATIONS = Prepared(
    select(queues.c.destination).where(
        queues.c.waiting > literal_column("0"),
        queues.c.held != _yes,
        select(outbox.c.id)
        .where(outbox.c.destination == queues.c.destination, outbox.c.head == _yes, outbox.c.due_at <= _given("now"))
        .exists(),
    )
)
DELIVERIES = Prepared(_DELIVERY.where(outbox.c.id > _given("after")).order_by(outbox.c.id).limit(_given("limit")))
DELIVERIES_OF = Prepared(
    _DELIVERY.where(
        outbox.c.destination == _given("destination"),
        outbox.c.state == _given("state"),
        outbox.c.id > _given("after"),
    )
    .order_by(outbox.c.id)
    .limit(_given("limit"))
)
DELIVERIES_IN_LANE = Prepared(
    _DELIVERY.where(
        outbox.c.destination == _given("destination"),
        outbox.c.state == _given("state"),
        outbox.c.lane == _given("lane"),
    )
    .order_by(outbox.c.id)
    .limit(_given("limit"))
)
LAST_NUMBER = Prepared(select(func.max(outbox.c.id)))
DELIVERY_INSERT = Prepared(
    insert(outbox).values({column.name: _given(column.name) for column in outbox.columns if not column.primary_key})
)
DELIVERY_UPDATE = Prepared(
    update(outbox)
    .values({name: _given(name) for name in ("state", "attempts", "errors", "due_at", "reason")})
    .where(outbox.c.id == _given("key_id"))
)
DELIVERY_DELETE = Prepared(delete(outbox).where(outbox.c.id == _given("id")))

# A lane's head.
FIRST_OF_LANE = Prepared(
    select(func.min(outbox.c.id)).where(
        outbox.c.destination == _given("destination"), outbox.c.state == _waits, outbox.c.lane == _given("lane")
    )
)
HEAD_OF_LANE = Prepared(
    select(outbox.c.id).where(
        outbox.c.destination == _given("destination"), outbox.c.lane == _given("lane"), outbox.c.head == _yes
    )
)
HEAD_SET = Prepared(update(outbox).values(head=_given("head")).where(outbox.c.id == _given("key_id")))
LANE_HAND_OVER = Prepared(
    update(outbox)
    .values(lane=_given("lane"), head=literal_column("0"))
    .where(
        outbox.c.destination == _given("destination"),
        outbox.c.state == _given("state"),
        outbox.c.lane == _given("key_lane"),
        outbox.c.kind.in_([literal_column(f"'{each.value}'") for each in sorted(MESSAGES)]),
    )
)

# Lanes that lead into another one.
_THIS_LANE = (outbox_lanes.c.destination == _given("destination"), outbox_lanes.c.lane == _given("lane"))
LANE_LEADS_TO = Prepared(select(outbox_lanes.c.leads_to).where(*_THIS_LANE))
LANE_INSERT = Prepared(insert(outbox_lanes).values({each.name: _given(each.name) for each in outbox_lanes.columns}))
LANE_DELETE = Prepared(delete(outbox_lanes).where(*_THIS_LANE))

# The queues.
_QUEUE = queues.c.destination == _given("key_destination")
_COUNTS = {
    "waiting": queues.c.waiting + _given("waiting_more"),
    "parked": queues.c.parked + _given("parked_more"),
}
_FAILED: dict[str, Any] = {name: _given(name) for name in ("last_error", "last_error_at")}
QUEUE_COUNT = Prepared(update(queues).values(_COUNTS).where(_QUEUE))
QUEUE_SENT = Prepared(update(queues).values({**_COUNTS, "last_sent_at": _given("last_sent_at")}).where(_QUEUE))
QUEUE_FAILED = Prepared(update(queues).values({**_COUNTS, **_FAILED}).where(_QUEUE))
QUEUE_HOLD = Prepared(update(queues).values(held=_given("held")).where(_QUEUE))
QUEUE_INSERT = Prepared(insert(queues).values({column.name: _given(column.name) for column in queues.columns}))
_oldest = (
    select(outbox.c.created_at)
    .where(outbox.c.destination == queues.c.destination, outbox.c.state == _waits)
    .order_by(outbox.c.id)
    .limit(_yes)
)
QUEUES = Prepared(select(*queues.columns, _oldest.scalar_subquery()).order_by(queues.c.destination))
QUEUE_NAMES = Prepared(select(queues.c.destination))

MESSAGE_SET_DELIVERED = Prepared(
    update(messages)
    .values({name: _given(name) for name in ("disposition", "reasons", "answer")})
    .where(messages.c.id == _given("key_id"))
)
MESSAGE_SET_STATE = Prepared(
    update(messages)
    .values({name: _given(name) for name in ("disposition", "reasons")})
    .where(messages.c.id == _given("key_id"))
)

# What was sent of performed steps.
PERFORMED_SENT = Prepared(
    select(performed_sent.c.destination, performed_sent.c.operation, performed_sent.c.answer, performed_sent.c.at)
    .where(performed_sent.c.sop_instance_uid == _given("uid"))
    .order_by(performed_sent.c.destination)
)
PERFORMED_SENT_UPDATE = Prepared(
    update(performed_sent)
    .values({name: _given(name) for name in ("operation", "answer", "at")})
    .where(performed_sent.c.sop_instance_uid == _given("key_uid"), performed_sent.c.destination == _given("key_to"))
)
PERFORMED_SENT_INSERT = Prepared(
    insert(performed_sent).values({column.name: _given(column.name) for column in performed_sent.columns})
)


@dataclass(frozen=True, slots=True)
class PerformedSent:
    """What a destination got of a performed step last, and what it answered; that may quote what was sent."""

    destination: str
    operation: str
    answer: str = field(repr=False)
    at: datetime


class OutboxReader:
    """The outbox's part of a `StoreReader`."""

    _connection: Queries

    def next_delivery(self, destination: str, now: datetime) -> Delivery | None:
        """What is to be sent there next, if anything is due and nobody holds the destination."""
        found = self.next_deliveries(destination, now, 1)
        return found[0] if found else None

    def next_deliveries(
        self, destination: str, now: datetime, limit: int, wait_most_s: float | None = None
    ) -> Sequence[Delivery]:
        """At most so many that may be sent there now, one after the other: each of another lane.

        Nothing is ever made to wait longer than `wait_most_s`. What is due later than that was put there or tried while
        the clock was ahead, and may be sent as well.
        """
        found = self._connection.rows(NEXT_DELIVERY, destination=destination, now=utc_text(now), limit=limit)
        if wait_most_s is not None and len(found) < limit:
            later = utc_text(now + timedelta(seconds=wait_most_s))
            left = limit - len(found)
            found = [*found, *self._connection.rows(FAR_AHEAD, destination=destination, later=later, limit=left)]
        return [_delivery(row) for row in found]

    def last_delivery_number(self) -> int:
        """The highest number of what waits or is parked for any destination; what comes gets a higher one."""
        row = self._connection.row(LAST_NUMBER)
        return (row[0] or 0) if row is not None else 0

    def due_destinations(self, now: datetime) -> Sequence[str]:
        """Those for which there is something to send now. One statement, however many destinations there are."""
        return [name for (name,) in self._connection.rows(DUE_DESTINATIONS, now=utc_text(now))]

    def delivery(self, delivery_id: int) -> Delivery | None:
        """A message that waits or is parked."""
        row = self._connection.row(DELIVERY, id=delivery_id)
        return _delivery(row) if row is not None else None

    def deliveries(
        self, limit: int, after: int = 0, destination: str = "", state: OutboxState | None = None
    ) -> Sequence[Delivery]:
        """What waits or is parked, oldest first, from behind number `after`; of one destination, or in one state."""
        if not destination and state is None:
            return [_delivery(row) for row in self._connection.rows(DELIVERIES, limit=limit, after=after)]
        destinations = [destination] if destination else [name for (name,) in self._connection.rows(QUEUE_NAMES)]
        states = (OutboxState.WAITING, OutboxState.PARKED) if state is None else (state,)
        found = chain.from_iterable(
            self._connection.rows(DELIVERIES_OF, destination=each, state=one.value, limit=limit, after=after)
            for each in destinations
            for one in states
        )
        return sorted((_delivery(row) for row in found), key=attrgetter("id"))[:limit]

    def deliveries_in_lane(self, lane: str, limit: int = 100) -> Sequence[Delivery]:
        """What waits or is parked in this lane of any destination, oldest first; at most so many of each."""
        found = chain.from_iterable(
            self._connection.rows(DELIVERIES_IN_LANE, destination=name, state=state.value, lane=lane, limit=limit)
            for (name,) in self._connection.rows(QUEUE_NAMES)
            for state in (OutboxState.WAITING, OutboxState.PARKED)
        )
        return sorted((_delivery(row) for row in found), key=attrgetter("id"))

    def performed_sent(self, sop_instance_uid: str) -> Sequence[PerformedSent]:
        """What each destination got of this performed step last, by the destinations' names."""
        return [
            PerformedSent(destination, operation, answer, datetime.fromisoformat(at))
            for destination, operation, answer, at in self._connection.rows(PERFORMED_SENT, uid=sop_instance_uid)
        ]

    def queues(self) -> Sequence[Backlog]:
        """Every destination that was ever told anything, with how much is there; nothing is counted for it."""
        return [
            Backlog(
                destination, waiting, parked, _moment(oldest), bool(held), last_error, _moment(last_error_at),
                _moment(last_sent_at),
            )
            for destination, waiting, parked, held, last_error, last_error_at, last_sent_at, oldest
            in self._connection.rows(QUEUES)
        ]  # fmt: skip


_DROPPED_AT_ONCE = 500


class OutboxWriter(OutboxReader):
    """The outbox's part of a `StoreUnit`."""

    _write: Connection

    def add_delivery(self, delivery: NewDelivery, at: datetime) -> int:
        """Put what is archived behind what waits for its destination, or among what is parked; its number there."""
        lane = delivery.lane
        if delivery.kind in MESSAGES and lane:
            lane = lane_of(self._write, delivery.destination, lane)
        where = {"destination": delivery.destination, "lane": lane}
        state = OutboxState.PARKED if delivery.reason else OutboxState.WAITING
        head = state is OutboxState.WAITING and self._write.row(HEAD_OF_LANE, **where) is None
        number = self._write.insert(
            DELIVERY_INSERT,
            **where, kind=delivery.kind.value, archive_id=delivery.archive_id, control_id=delivery.control_id,
            payload=delivery.payload, operation=delivery.operation, transfer_syntax=delivery.transfer_syntax,
            created_at=utc_text(at), due_at=utc_text(at), state=state.value, attempts=delivery.attempts,
            errors=0, reason=delivery.reason, head=int(head),
        )  # fmt: skip
        self._count(delivery.destination, **{state.value: 1})
        return number

    def save_delivery(self, delivery: Delivery, answer: bytes, attempted_at: datetime | None = None) -> None:
        """Keep what became of it, also in the archive; one that was sent leaves the outbox.

        `attempted_at` is when it was tried; None where a person changed it, of which its queue says nothing.
        """
        held = self.delivery(delivery.id)
        if held is None:  # somebody dropped it meanwhile
            return
        if delivery.state is OutboxState.SENT:
            self._write.run(DELIVERY_DELETE, id=delivery.id)
        else:
            self._write.run(
                DELIVERY_UPDATE,
                key_id=delivery.id, state=delivery.state.value, attempts=delivery.attempts, errors=delivery.errors,
                due_at=utc_text(delivery.due_at), reason=delivery.reason,
            )  # fmt: skip
        if delivery.state is not held.state:
            set_head(self._write, held.destination, held.lane)
        self._follow(held, delivery, attempted_at)
        if held.kind in MESSAGES:
            self._write.run(
                MESSAGE_SET_DELIVERED,
                key_id=held.archive_id, disposition=delivery.state.value, reasons=delivery.reason, answer=answer,
            )  # fmt: skip
        elif delivery.state is OutboxState.SENT and attempted_at is not None:
            self._note_sent(held, delivery.reason, attempted_at)

    def _note_sent(self, delivery: Delivery, reason: str, at: datetime) -> None:
        """A destination got this of a performed step; an answer that is a plain success has no reason."""
        said = {"operation": delivery.operation, "answer": reason.rstrip("; ") or "0000", "at": utc_text(at)}
        uid, to = delivery.control_id, delivery.destination
        if not self._write.run(PERFORMED_SENT_UPDATE, key_uid=uid, key_to=to, **said):
            self._write.run(PERFORMED_SENT_INSERT, sop_instance_uid=uid, destination=to, **said)

    def drop_delivery(self, delivery_id: int, reason: str = "dropped by hand") -> bool:
        """Take a message out of the outbox unsent, which its line in the archive says; False where there is none."""
        held = self.delivery(delivery_id)
        if held is None:
            return False
        self._write.run(DELIVERY_DELETE, id=delivery_id)
        set_head(self._write, held.destination, held.lane)
        self._count(held.destination, **{held.state.value: -1})
        if held.kind in MESSAGES:
            self._write.run(MESSAGE_SET_STATE, key_id=held.archive_id, disposition=DROPPED, reasons=reason)
        return True

    def drop_deliveries(self, destination: str, reason: str) -> int:
        """Take all that is in the outbox for a destination out unsent, which the archive says; how many."""
        count = 0
        while found := self.deliveries(_DROPPED_AT_ONCE, destination=destination):
            count += sum(self.drop_delivery(each.id, reason) for each in found)
        return count

    def note_failure(self, destination: str, reason: str, at: datetime) -> None:
        """Nothing could be delivered there, and nothing else is changed by it."""
        self._write.run(
            QUEUE_FAILED,
            key_destination=destination, waiting_more=0, parked_more=0, last_error=reason, last_error_at=utc_text(at),
        )  # fmt: skip

    def hold_queue(self, destination: str, held: bool) -> None:
        """Keep back what waits for a destination, or let it go on. What comes meanwhile waits as well."""
        self._count(destination)
        self._write.run(QUEUE_HOLD, key_destination=destination, held=int(held))

    def _follow(self, before: Delivery, after: Delivery, attempted_at: datetime | None) -> None:
        """The queue of its destination says what happened."""
        counts = {
            "waiting_more": (after.state is OutboxState.WAITING) - (before.state is OutboxState.WAITING),
            "parked_more": (after.state is OutboxState.PARKED) - (before.state is OutboxState.PARKED),
        }
        key = before.destination
        if attempted_at is None:
            if any(counts.values()):
                self._write.run(QUEUE_COUNT, key_destination=key, **counts)
        elif after.state is OutboxState.SENT:
            self._write.run(QUEUE_SENT, key_destination=key, **counts, last_sent_at=utc_text(attempted_at))
        else:
            self._write.run(
                QUEUE_FAILED,
                key_destination=key, **counts, last_error=after.reason, last_error_at=utc_text(attempted_at),
            )  # fmt: skip

    def _count(self, destination: str, waiting: int = 0, parked: int = 0) -> None:
        changed = self._write.run(
            QUEUE_COUNT, key_destination=destination, waiting_more=waiting, parked_more=parked
        )  # fmt: skip
        if not changed:
            self._write.run(
                QUEUE_INSERT,
                destination=destination, waiting=waiting, parked=parked, held=0, last_error="", last_error_at="",
                last_sent_at="",
            )  # fmt: skip


def set_head(write: Connection, destination: str, lane: str) -> None:
    """The oldest that waits in this lane is its head, and nothing else in it."""
    row = write.row(FIRST_OF_LANE, destination=destination, lane=lane)
    first = row[0] if row is not None else None
    held = write.row(HEAD_OF_LANE, destination=destination, lane=lane)
    head = held[0] if held is not None else None
    if head == first:
        return
    if head is not None:
        write.run(HEAD_SET, key_id=head, head=0)
    if first is not None:
        write.run(HEAD_SET, key_id=first, head=1)


def hand_over_lane(write: Connection, prior: str, surviving: str) -> None:
    """Of a merged patient: what is to be told of both is told in one order from then on."""
    for (destination,) in write.rows(QUEUE_NAMES):
        _join(write, destination, lane_of(write, destination, prior), lane_of(write, destination, surviving))


def share_lane(write: Connection, source: str, target: str) -> None:
    """Orders went from one patient to another: what comes of either waits behind what waits of either.

    What waits may be about orders of both, or about the patients as they were, so it is not taken apart. Where nothing
    waits nothing can be overtaken, and the lanes part again as soon as nothing does.
    """
    for (destination,) in write.rows(QUEUE_NAMES):
        into = lane_of(write, destination, source)
        if write.row(HEAD_OF_LANE, destination=destination, lane=into) is not None:
            _join(write, destination, lane_of(write, destination, target), into)


def lane_of(write: Connection, destination: str, lane: str) -> str:
    """The lane in which is told what belongs into `lane`: another one, as long as something waits in that."""
    last = lane
    while (row := write.row(LANE_LEADS_TO, destination=destination, lane=last)) is not None:
        last = row[0]
    if last != lane and write.row(HEAD_OF_LANE, destination=destination, lane=last) is None:
        write.run(LANE_DELETE, destination=destination, lane=lane)
        return lane
    return last


def _join(write: Connection, destination: str, lane: str, into: str) -> None:
    """Everything of a lane is in another one from now on, in the order in which it came. Neither leads elsewhere."""
    if lane == into:
        return
    moved = sum(
        write.run(LANE_HAND_OVER, destination=destination, state=state.value, key_lane=lane, lane=into)
        for state in (OutboxState.WAITING, OutboxState.PARKED)
    )
    if moved:
        set_head(write, destination, into)
    if write.row(HEAD_OF_LANE, destination=destination, lane=into) is not None:
        write.run(LANE_INSERT, destination=destination, lane=lane, leads_to=into)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _delivery(row: Row) -> Delivery:
    values: tuple[Any, ...] = tuple(row)
    (number, kind, archive_id, destination, lane, control_id, payload, created_at, due_at, state, *rest) = values
    attempts, errors, reason, operation, transfer_syntax = rest
    return Delivery(
        number, DeliveryKind(kind), archive_id, destination, lane, control_id, bytes(payload),
        datetime.fromisoformat(created_at), datetime.fromisoformat(due_at), OutboxState(state), attempts, errors,
        reason, operation, transfer_syntax,
    )  # fmt: skip
