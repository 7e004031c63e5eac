"""What nobody outside asks for: expiry of steps nobody performed, and running archived messages again."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo

from gateway.domain.progress import status_of
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.ports import StepRef, Unit
from gateway.workflow.telling import statuses, tell_progress

WAITING = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY})

CAUSE = "expired: day long passed"

_OVER = frozenset({"CM", "DC"})
"""Statuses of orders of which something was begun and nothing is to be done any more."""


def expiry_limit(wall_clock: datetime, after_days: int) -> str:
    """The start (14 digits, exclusive) before which a waiting step has expired on this department day."""
    day = (wall_clock - timedelta(days=after_days)).date()
    return day.strftime("%Y%m%d") + "000000"


def expire(
    unit: Unit, steps: Iterable[StepRef], at: datetime, audience: Audience = NOBODY, zone: tzinfo = UTC
) -> int:  # fmt: skip
    """Take these steps off the list, each by the status table; those that moved on meanwhile stay. Returns how many.

    Whoever is told status is told of orders that are over by it: what was done of them is all that will be.
    """
    expired: list[StepRef] = []
    for ref in unit.steps([step.step_id for step in steps]):
        status = TRANSITIONS[ref.status, StepEvent.EXPIRE]
        if status is not None and status is not ref.status:
            unit.set_step_status(ref.step_id, status, CAUSE, at)
            expired.append(ref)
    if audience.told:
        for order_id in dict.fromkeys(ref.order_id for ref in expired):
            _tell_if_over(unit, audience, order_id, expired, at, zone)
    return len(expired)


def _tell_if_over(
    unit: Unit, audience: Audience, order_id: int, expired: Iterable[StepRef], at: datetime, zone: tzinfo
) -> None:
    """Of an order of which nothing was done its placer was told nothing, and is told nothing now."""
    after = statuses(unit, order_id)
    if status_of(after.values()) in _OVER:
        before = after | {ref.step_id: ref.status for ref in expired if ref.order_id == order_id}
        tell_progress(unit, audience, order_id, before, at, CAUSE, zone=zone)
