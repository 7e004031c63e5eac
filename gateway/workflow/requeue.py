"""What was sent before is sent again, because a person says so: a receiver lost it, or was restored from a backup.

It enters the outbox behind what waits, with the control ID or SOP Instance UID it had, by which receivers know a
repeat; and it is about the same patient or performed step, so that newer news about them do not overtake it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol

from gateway.domain.performed import MPPSState, Operation, RequestedStatus, requested_status
from gateway.wire.hl7_source import RESPONSES
from gateway.workflow.audience import PerformedTarget
from gateway.workflow.forwarding import delivery_to
from gateway.workflow.outbox import DROPPED, Delivery, OutboxState
from gateway.workflow.performed_request import PerformRequest, read_request
from gateway.workflow.ports import (
    MESSAGES,
    ORDER_LINK,
    PATIENT_LINK,
    ArchivedPerformed,
    DeliveryKind,
    MessageSearch,
    NewDelivery,
    StoredMessage,
    Unit,
    message_kind,
)

AGAIN = "sent again by hand"

SENT = frozenset({OutboxState.SENT.value, DROPPED})
"""Dispositions of messages of ours that are not in the outbox any more."""

NEWEST_MAX = 20
"""Of what was told of one order last so much is looked at for news; most of it is."""

_ANSWERS = RESPONSES | {"ACK"}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
_PASSED_ON = frozenset(Operation)
"""The archive of requests holds what image managers announce as well."""


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many of those looked at are to be sent again, and the number of the last one; `more` may follow it.

    `archived` are those that are to be sent again, by their numbers in the archive.
    """

    count: int
    last: int
    more: bool
    archived: tuple[tuple[DeliveryKind, int], ...] = ()


Sends = Literal["received", "coerced", "events"]
"""What a destination of performed steps gets (`PerformedTarget`)."""

_ENDS = {
    RequestedStatus.COMPLETED: MPPSState.COMPLETED,
    RequestedStatus.DISCONTINUED: MPPSState.DISCONTINUED,
}


class ArchiveUnit(Unit, Protocol):
    """A transaction that reads the archive in order."""

    def messages_in_order(self, search: MessageSearch, limit: int, after: int = 0) -> Sequence[StoredMessage]: ...
    def performed_requests_in_order(
        self, since: datetime, limit: int, after: int = 0, until: datetime | None = None
    ) -> Sequence[ArchivedPerformed]: ...


def requeue_messages(
    unit: ArchiveUnit,
    destination: str,
    since: datetime,
    at: datetime,
    limit: int = 100,
    after: int = 0,
    until: datetime | None = None,
) -> Requeued:
    """Send the next `limit` messages again that left for a destination in this time, from behind number `after`."""
    search = MessageSearch(listener=destination, direction="out", dispositions=SENT, since=since, until=until)
    found = unit.messages_in_order(search, limit, after)
    again = tuple(
        (message_kind(message.record.raw), message.id) for message in found if requeue_message(unit, message, at)
    )
    return Requeued(len(again), found[-1].id if found else after, len(found) == limit, again)


def requeue_message(unit: Unit, message: StoredMessage, at: datetime) -> bool:
    """Send this message of ours again; False where it waits still or is none of ours, or was never written."""
    record = message.record
    if record.direction != "out" or record.disposition not in SENT or not record.raw:
        return False
    unit.set_message_disposition(message.id, OutboxState.WAITING.value, AGAIN)
    kind = message_kind(record.raw)
    unit.add_delivery(
        NewDelivery(
            record.listener,
            _lane(unit, record.keys),
            record.control_id,
            record.raw,
            message.id,
            kind,
            record.message_type if kind is DeliveryKind.FHIR else "",
            attempts=1,
        ),
        at,
    )
    return True


def overtaken(archive: "Archive", delivery: Delivery) -> StoredMessage | None:
    """The newest message about the same order that the destination has accepted since this one was written.

    Sent now, this one would take it back. None where there is no such message, or this one is not about an order.
    """
    stored = archive.message(delivery.archive_id) if delivery.kind in MESSAGES else None
    if stored is None or not _is_news(stored):
        return None
    accepted = frozenset({OutboxState.SENT.value})
    for order in (value for kind, value in stored.record.keys if kind == ORDER_LINK):
        search = MessageSearch(
            order, ORDER_LINK, listener=delivery.destination, direction="out", dispositions=accepted
        )  # fmt: skip
        newer = (each for each in archive.find_messages(search, NEWEST_MAX) if each.id > stored.id and _is_news(each))
        newest = next(newer, None)
        if newest is not None:
            return newest
    return None


def _is_news(stored: StoredMessage) -> bool:
    """Whether it says how an order is, and does not only answer somebody."""
    code, _, _ = stored.record.message_type.partition("^")
    return code not in _ANSWERS


class Archive(Protocol):
    """What looks into the archive: a transaction, or a reader."""

    def message(self, message_id: int) -> StoredMessage | None: ...
    def find_messages(self, search: MessageSearch, limit: int) -> Sequence[StoredMessage]: ...


def requeue_performed(
    unit: ArchiveUnit,
    destination: str,
    since: datetime,
    at: datetime,
    limit: int = 100,
    after: int = 0,
    until: datetime | None = None,
    sends: Sends = "received",
) -> Requeued:
    """Tell a destination again of the next `limit` N-CREATE and N-SET of this time that were accepted.

    As it gets them: as received, coerced to what the worklist has by now, or as events.
    """
    found = unit.performed_requests_in_order(since, limit, after, until)
    accepted = [
        each for each in found if each.operation in _PASSED_ON and (each.status == 0 or each.status in _WARNINGS)
    ]
    deliveries = [_again(unit, PerformedTarget(destination, sends), each) for each in accepted]
    for delivery in deliveries:
        if delivery is not None:
            unit.add_delivery(replace(delivery, attempts=1), at)
    again = tuple((each.kind, each.archive_id) for each in deliveries if each is not None)
    return Requeued(len(again), found[-1].id if found else after, len(found) == limit, again)


def _again(unit: Unit, target: PerformedTarget, archived: ArchivedPerformed) -> NewDelivery | None:
    """What this destination gets of an archived request; None where its performed step is not held."""
    uid, operation = archived.sop_instance_uid, Operation(archived.operation)
    performed = unit.performed_step(uid)
    if target.sends == "received" and (operation is Operation.CREATE or performed is None):
        return NewDelivery(
            target.destination, uid, uid, archived.raw, archived.id, DeliveryKind.PERFORMED, operation.value,
            archived.transfer_syntax,
        )  # fmt: skip
    if performed is None:
        return None
    request = read_request(operation, PerformRequest(uid, "", archived.transfer_syntax, archived.raw))
    said = requested_status(request.said.attributes)
    state = _ENDS.get(said, MPPSState.IN_PROGRESS)
    return delivery_to(unit, target, operation, request, archived.id, performed, state)


def _lane(unit: Unit, keys: Sequence[tuple[str, str]]) -> str:
    """Whose message it is by now: what was told of a record that was merged since goes with its survivor's."""
    number = next((value for kind, value in keys if kind == PATIENT_LINK), "")
    patient = unit.patient(int(number)) if number else None
    return str(patient.id) if patient is not None else ""
