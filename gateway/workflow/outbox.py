"""The outbox: what is told to others by HL7 v2, DICOM and FHIR, in order for each destination and lane (design D8).

A message enters in the transaction that causes it, waits, and leaves when its receiver accepts it; what never will be
accepted is parked for a person to look at. Here are the tables and the decisions; `edges.delivery` has the way there.
Delivery is at least once: a repeat carries the same MSH-10 or SOP Instance UID, by which receivers know it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from gateway.domain.refusal import Refused
from gateway.wire.ack_received import Told
from gateway.wire.er7 import Message, parse_header
from gateway.workflow.ports import MESSAGES, DeliveryKind, MessageRecord, NewDelivery, Unit


class OutboxState(StrEnum):
    """Where a message of ours is, also its disposition in the archive."""

    WAITING = "waiting"
    SENT = "sent"
    PARKED = "parked"


SUBSCRIPTION = "subscription "
"""What the names of destinations begin with that are subscriptions of others; none that is configured has a blank."""

DROPPED = "dropped"
"""The disposition in the archive of a message that a person took out of the outbox unsent."""


class Move(StrEnum):
    """What happens to a message of ours."""

    ACCEPTED = "its receiver accepted it"
    FAILED = "it could not be delivered yet"
    GIVEN_UP = "it will not be accepted as it is"
    RETRIED = "a person sends it again"
    SET_ASIDE = "a person parks it"


TRANSITIONS: Mapping[tuple[OutboxState, Move], OutboxState] = {
    (OutboxState.WAITING, Move.ACCEPTED): OutboxState.SENT,
    (OutboxState.WAITING, Move.FAILED): OutboxState.WAITING,
    (OutboxState.WAITING, Move.GIVEN_UP): OutboxState.PARKED,
    (OutboxState.WAITING, Move.SET_ASIDE): OutboxState.PARKED,
    (OutboxState.WAITING, Move.RETRIED): OutboxState.WAITING,
    (OutboxState.PARKED, Move.RETRIED): OutboxState.WAITING,
    (OutboxState.PARKED, Move.SET_ASIDE): OutboxState.PARKED,
}
"""What is not here does not happen: a message that was sent stays sent."""


class Attempt(StrEnum):
    """What one attempt to deliver a message came to."""

    ACCEPTED = "accepted"
    HELD_ALREADY = "held there already"
    FINAL_ALREADY = "final there already"
    UNKNOWN_THERE = "unknown there"
    ERROR = "answered with an error"
    REJECTED = "rejected"
    UNSUPPORTED = "not supported there"
    UNUSABLE = "answered by what is no answer to it"
    UNANSWERED = "not answered"
    UNREACHABLE = "not reachable"
    FAILED_HERE = "could not be sent from here"


class Course(StrEnum):
    """What to do next (style 3.7)."""

    DONE = "done"
    DONE_IF_REPEATED = "done where it may have been sent before, else ask a person"
    RETRY = "retry"
    RETRY_A_FEW_TIMES = "retry a few times, then ask a person"
    ASK = "ask a person"


COURSES: Mapping[Attempt, Course] = {
    Attempt.ACCEPTED: Course.DONE,
    # A performed step is created by nobody but its modality: what is held there is what we tell.
    Attempt.HELD_ALREADY: Course.DONE,
    # A step that was closed by our own N-SET, whose answer was lost, or by somebody else.
    Attempt.FINAL_ALREADY: Course.DONE_IF_REPEATED,
    # Creating it anew from what we hold is part of the attempt (`edges.performed_channel`); that was in vain.
    Attempt.UNKNOWN_THERE: Course.RETRY_A_FEW_TIMES,
    # A record may be locked, a patient not yet known there.
    Attempt.ERROR: Course.RETRY_A_FEW_TIMES,
    Attempt.UNUSABLE: Course.RETRY_A_FEW_TIMES,
    Attempt.REJECTED: Course.ASK,
    Attempt.UNSUPPORTED: Course.ASK,
    # A defect of ours in one message must not keep the others for ever.
    Attempt.FAILED_HERE: Course.RETRY_A_FEW_TIMES,
    # A repeat does no harm, because it has the same MSH-10 or UID; a destination may be away for days. One that answers
    # others in between is not away (`after`).
    Attempt.UNANSWERED: Course.RETRY,
    Attempt.UNREACHABLE: Course.RETRY,
}

DESTINATION_AWAY = frozenset({Attempt.UNANSWERED, Attempt.UNREACHABLE})
"""Attempts after which the destination as a whole is left in peace for a while."""

ANSWERS = frozenset(Attempt) - DESTINATION_AWAY - {Attempt.UNUSABLE, Attempt.FAILED_HERE}
"""Attempts that a destination answered as one does that works; late answers to other messages are none."""

MAY_HAVE_ARRIVED = frozenset({Attempt.UNANSWERED, Attempt.UNUSABLE})
"""Attempts of which nobody here can tell whether they were one."""

_MSA_1: Mapping[str, Attempt] = {
    "AA": Attempt.ACCEPTED, "CA": Attempt.ACCEPTED,
    "AE": Attempt.ERROR, "CE": Attempt.ERROR,
    "AR": Attempt.REJECTED, "CR": Attempt.REJECTED,
}  # fmt: skip

_TEMPORARY = frozenset({"206", "207"})  # table 0357: record locked, application internal error

_ANY = ""
_DIMSE: Mapping[tuple[str, int], Attempt] = {
    (_ANY, 0x0000): Attempt.ACCEPTED,
    # Warnings: it was done, some attributes excepted (PS3.7 C.5).
    (_ANY, 0x0001): Attempt.ACCEPTED,
    (_ANY, 0x0107): Attempt.ACCEPTED,
    (_ANY, 0x0116): Attempt.ACCEPTED,
    ("N-CREATE", 0x0111): Attempt.HELD_ALREADY,  # duplicate SOP instance
    ("N-SET", 0x0112): Attempt.UNKNOWN_THERE,  # no such SOP instance
    ("N-EVENT-REPORT", 0x0112): Attempt.REJECTED,
    ("N-EVENT-REPORT", 0x0113): Attempt.UNSUPPORTED,  # no such event type
    (_ANY, 0x0118): Attempt.UNSUPPORTED,  # no such SOP class
    (_ANY, 0x0122): Attempt.UNSUPPORTED,  # SOP class not supported
    (_ANY, 0x0124): Attempt.REJECTED,  # not authorised
}
"""What an answer by DIMSE means (PS3.7 annex C), by operation and status; every other failure is an error."""

_PROCESSING_FAILURE, _MAY_NO_LONGER_BE_UPDATED = 0x0110, 0xA710  # status and Error ID (PS3.4 table F.7.2-2)
_WARNINGS = range(0xB000, 0xC000)

_HTTP: Mapping[int, Attempt] = {
    # It asks for peace, or does not let us in: no matter of this message, and the same for all others.
    **dict.fromkeys((401, 403, 429, 502, 503, 504), Attempt.UNREACHABLE),
    # Somebody else changed the resource between our reading and our writing, or it is locked (412, 409).
    **dict.fromkeys((408, 409, 412), Attempt.ERROR),
    **dict.fromkeys((404, 405, 406, 415, 501), Attempt.UNSUPPORTED),
}
"""What an answer by HTTP means; of the others 2xx is acceptance, 5xx an error, and everything else a rejection."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and after what time, delivery is tried again."""

    first_s: float = 1.0
    most_s: float = 60.0
    """A destination that is away is asked no more often, and no less: it is back within a minute of being back."""
    errors_max: int = 8
    """Negative answers to one message, over two minutes; later messages about the patient wait meanwhile. As such
    counts silence about a message while others are answered."""
    repeat_unanswered: bool = True
    """Whether what may have arrived is sent again; not to a system that does not know repeats by their control ID."""

    def back_off(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 20))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way. `attempts` are those that were sent, `errors` those that were answered negatively."""

    id: int
    kind: DeliveryKind
    archive_id: int
    destination: str
    lane: str
    control_id: str
    payload: bytes = field(repr=False)
    created_at: datetime
    due_at: datetime
    state: OutboxState = OutboxState.WAITING
    attempts: int = 0
    errors: int = 0
    reason: str = field(default="", repr=False)
    operation: str = ""
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of one destination waits, since when, and how much is parked; whether a person keeps it back."""

    destination: str
    waiting: int
    parked: int
    oldest: datetime | None
    held: bool = False
    last_error: str = field(default="", repr=False)
    last_error_at: datetime | None = None
    last_sent_at: datetime | None = None

    def age_s(self, now: datetime) -> float:
        """Seconds for which the oldest has waited, 0 where nothing waits.

        Where it is from a time that is still to come, a clock was wrong: by how much, for that is no age of 0.
        """
        return abs((now - self.oldest).total_seconds()) if self.oldest else 0.0


def left_behind(queues: Iterable[Backlog], configured: Iterable[str]) -> Sequence[Backlog]:
    """The queues in which something is, of destinations that are not among the configured ones, nor subscribed."""
    names = frozenset(configured)
    return [
        queue
        for queue in queues
        if queue.destination not in names
        and not queue.destination.startswith(SUBSCRIPTION)
        and (queue.waiting or queue.parked)
    ]


class OutboxUnit(Protocol):
    """A transaction over what is in the outbox."""

    def delivery(self, delivery_id: int) -> Delivery | None: ...
    def save_delivery(self, delivery: Delivery, answer: bytes, attempted_at: datetime | None = None) -> None:
        """Keep what became of it, also in the archive; one that was sent leaves the outbox.

        `attempted_at` is when it was tried; None where a person changed it.
        """


def enqueue(
    unit: Unit,
    destination: str,
    patient_id: int | None,
    control_id: str,
    payload: bytes,
    at: datetime,
    keys: Sequence[tuple[str, str]] = (),
    mapping: str = "",
) -> int:
    """Put an HL7 message of ours, with this MSH-10, behind those that wait already; its number in the archive.

    `patient_id` is whose order among messages counts; those about nobody are kept in order among themselves. `keys`
    are what the archive finds it by, `mapping` is the version of the outbound mapping that wrote it.
    """
    header = _header(payload)
    archived = _archived(destination, control_id, payload, at, keys, mapping)
    if header is not None:
        archived = replace(
            archived, sender=header.sender, message_type=f"{header.message_code}^{header.trigger_event}"
        )  # fmt: skip
    message_id = unit.add_message(archived)
    unit.add_delivery(NewDelivery(destination, _lane(patient_id), control_id, payload, message_id), at)
    return message_id


def enqueue_fhir(
    unit: Unit,
    destination: str,
    patient_id: int | None,
    control_id: str,
    payload: bytes,
    operation: str,
    at: datetime,
    keys: Sequence[tuple[str, str]] = (),
) -> int:
    """The same for a Bundle as JSON, whose id is `control_id`.

    `operation` says what is done with it (`transaction`, or a kind of notification), also in the archive.
    """
    archived = replace(_archived(destination, control_id, payload, at, keys), message_type=operation)
    message_id = unit.add_message(archived)
    unit.add_delivery(
        NewDelivery(
            destination, _lane(patient_id), control_id, payload, message_id, DeliveryKind.FHIR, operation
        ), at,
    )  # fmt: skip
    return message_id


def _archived(
    destination: str, control_id: str, payload: bytes, at: datetime, keys: Sequence[tuple[str, str]], mapping: str = ""
) -> MessageRecord:
    return MessageRecord(
        received_at=at,
        listener=destination,
        peer="",
        sender="",
        control_id=control_id,
        message_type="",
        digest=hashlib.sha256(payload).digest(),
        raw=payload,
        disposition=OutboxState.WAITING.value,
        mapping=mapping,
        keys=tuple(keys),
        direction="out",
    )


def _lane(patient_id: int | None) -> str:
    return "" if patient_id is None else str(patient_id)


def _header(payload: bytes) -> Message | None:
    try:
        return parse_header(payload)
    except Refused:
        return None


def attempt_of(told: Told | None) -> Attempt:
    """What an answer means. A rejection for a reason that passes counts as an error: it may be accepted later."""
    if told is None:
        return Attempt.UNUSABLE
    attempt = _MSA_1.get(told.code, Attempt.UNUSABLE)
    return Attempt.ERROR if attempt is Attempt.REJECTED and told.errors & _TEMPORARY else attempt


def dimse_attempt_of(operation: str, status: int, error_id: int | None = None) -> Attempt:
    """What an answer to N-CREATE, N-SET or N-EVENT-REPORT means; `error_id` is (0000,0903)."""
    if (operation, status, error_id) == ("N-SET", _PROCESSING_FAILURE, _MAY_NO_LONGER_BE_UPDATED):
        return Attempt.FINAL_ALREADY
    if status in _WARNINGS:
        return Attempt.ACCEPTED
    return _DIMSE.get((operation, status)) or _DIMSE.get((_ANY, status), Attempt.ERROR)


def http_attempt_of(status: int) -> Attempt:
    """What the HTTP status of an answer to a Bundle of ours means; 0 is no answer."""
    if status == 0:
        return Attempt.UNANSWERED
    if 200 <= status < 300:
        return Attempt.ACCEPTED
    return _HTTP.get(status, Attempt.ERROR if status >= 500 else Attempt.REJECTED)


def after(
    delivery: Delivery,
    attempt: Attempt,
    reason: str,
    at: datetime,
    patience: Patience,
    *,
    in_doubt: bool = False,
    others_answered: bool = False,
) -> Delivery:
    """The delivery after this attempt. `in_doubt`: it may have been sent before without our noting it.

    `others_answered`: the destination answered another message since this one was tried the last time.
    """
    attempts = delivery.attempts + (attempt is not Attempt.UNREACHABLE)
    course = COURSES[attempt]
    if attempt is Attempt.UNANSWERED and others_answered:
        course = Course.RETRY_A_FEW_TIMES
        reason = "; ".join(filter(None, [reason, "others are answered"]))
    if attempt in MAY_HAVE_ARRIVED and not patience.repeat_unanswered:
        course = Course.ASK
    if course is Course.DONE_IF_REPEATED:
        course = Course.DONE if in_doubt or delivery.attempts else Course.ASK
    errors = delivery.errors + (course is Course.RETRY_A_FEW_TIMES)
    said = f"{attempt}: {reason}" if reason else str(attempt)
    if course is Course.DONE:
        noted = reason if attempt is Attempt.ACCEPTED else said
        return replace(_moved(delivery, Move.ACCEPTED), attempts=attempts, reason=noted)
    if course is Course.ASK or errors >= patience.errors_max:
        return replace(_moved(delivery, Move.GIVEN_UP), attempts=attempts, errors=errors, reason=said)
    # What cannot be reached is no matter of this message: it is due as soon as the destination is back.
    failures = attempts if attempt is Attempt.UNANSWERED else errors or attempts
    waits_s = 0.0 if attempt is Attempt.UNREACHABLE else patience.back_off(failures)
    due_at = at + timedelta(seconds=waits_s) if waits_s else delivery.due_at
    return replace(
        _moved(delivery, Move.FAILED), attempts=attempts, errors=errors, reason=said, due_at=due_at
    )  # fmt: skip


def retry(unit: OutboxUnit, delivery_id: int, at: datetime) -> bool:
    """A person has a message sent again, parked or waiting for its time; False where there is none that can be."""
    delivery = unit.delivery(delivery_id)
    if delivery is None or not can_be_sent(delivery):
        return False
    unit.save_delivery(replace(_moved(delivery, Move.RETRIED), due_at=at, errors=0), b"")
    return True


def can_be_sent(delivery: Delivery) -> bool:
    """Whether there is anything to send: a message that its mapping refused to write was parked without a byte."""
    return delivery.kind not in MESSAGES or bool(delivery.payload)


def park(unit: OutboxUnit, delivery_id: int, reason: str = "set aside by hand") -> bool:
    """A person sets a message aside, so that those behind it go on; False where there is none."""
    delivery = unit.delivery(delivery_id)
    if delivery is None:
        return False
    unit.save_delivery(replace(_moved(delivery, Move.SET_ASIDE), reason=reason), b"")
    return True


def _moved(delivery: Delivery, move: Move) -> Delivery:
    return replace(delivery, state=TRANSITIONS[delivery.state, move])
