"""What nobody outside asks for: expiry of steps nobody performed, and running archived messages again."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent
from gateway.workflow.ports import StepRef, Unit

WAITING = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY})


def expiry_limit(wall_clock: datetime, after_days: int) -> str:
    """The start (14 digits, exclusive) before which a waiting step has expired on this department day."""
    day = (wall_clock - timedelta(days=after_days)).date()
    return day.strftime("%Y%m%d") + "000000"


def expire(unit: Unit, steps: Sequence[StepRef], at: datetime) -> int:
    """Take these steps off the list, each by the status table; those that moved on meanwhile stay. Returns how many."""
    expired = 0
    for ref in steps:
        status = TRANSITIONS[ref.status, StepEvent.EXPIRE]
        if status is not None and status is not ref.status:
            unit.set_step_status(ref.step_id, status, "expired: day long passed", at)
            expired += 1
    return expired
