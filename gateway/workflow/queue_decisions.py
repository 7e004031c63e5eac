"""What people decide about queues: hold, release, drop, park, send again; each decision with its line in the log.

Nobody refuses such a decision. What changes nothing leaves no line: a queue that is held already, a message that was
sent meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from gateway.workflow.outbox import Backlog, OutboxUnit
from gateway.workflow.ports import DeliveryKind
from gateway.workflow.reconcile import By


class QueueAction(StrEnum):
    """What is decided, as the log has it."""

    HELD = "held"
    RELEASED = "released"
    DROPPED = "dropped"
    PARKED = "parked"
    SENT_AGAIN = "sent again"


Archived = tuple[DeliveryKind, int]
"""What something in the outbox was archived as: a message or a performed request, and its number there."""


@dataclass(frozen=True, slots=True)
class QueueDecision:
    """A line of the log of a destination's queue: what a person (`actor`) decided, of which messages if of single ones.

    `details` are JSON: `count`, and the person's `note`.
    """

    at: datetime
    destination: str
    action: str
    actor: str
    messages: tuple[Archived, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)


class QueueUnit(OutboxUnit, Protocol):
    """A transaction over queues and their log."""

    def queues(self) -> Sequence[Backlog]: ...
    def hold_queue(self, destination: str, held: bool) -> None: ...
    def log_queue(self, decision: QueueDecision) -> int:
        """Note what was decided; the number of its line."""


def keep(unit: QueueUnit, destination: str, held: bool, by: By) -> bool:
    """Hold a destination's queue or let it go on; False where that is how it was."""
    if held is any(queue.held for queue in unit.queues() if queue.destination == destination):
        return False
    unit.hold_queue(destination, held)
    note(unit, destination, QueueAction.HELD if held else QueueAction.RELEASED, by)
    return True


def change(
    unit: QueueUnit, numbers: Iterable[int], action: QueueAction, by: By, each: Callable[[int], bool]
) -> list[bool]:
    """Do the same to several messages of the outbox, and log those of each destination of which `each` says True."""
    done: dict[str, list[Archived]] = {}
    outcomes = []
    for number in numbers:
        held = unit.delivery(number)
        outcomes.append(each(number))
        if outcomes[-1] and held is not None:
            done.setdefault(held.destination, []).append((held.kind, held.archive_id))
    for destination, messages in done.items():
        note(unit, destination, action, by, messages)
    return outcomes


def note(
    unit: QueueUnit, destination: str, action: QueueAction, by: By, messages: Sequence[Archived] | None = None
) -> None:
    """A line of the log; none for no messages."""
    if messages is not None and not messages:
        return
    details: dict[str, Any] = {} if messages is None else {"count": len(messages)}
    if by.note:
        details["note"] = by.note
    unit.log_queue(QueueDecision(by.at, destination, action.value, by.actor, tuple(messages or ()), details))


def by_whom(action: QueueAction, by: By) -> str:
    """What the archive says of a message: `dropped by anna: sent by fax`."""
    return f"{action} by {by.actor}" + (f": {by.note}" if by.note else "")
