"""What performed steps do to scheduled ones: statuses change by the tables of the domain, and whoever asked is told.

Everything that links, unlinks, believes or disbelieves a performed step ends in `take_effect`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.performed_effect import step_events
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.ports import StepRef, Unit
from gateway.workflow.telling import has_ended, statuses, tell_progress


@dataclass(frozen=True, slots=True)
class StepChange:
    """A scheduled step whose status was changed."""

    step_id: int
    before: SPSStatus
    after: SPSStatus


@dataclass(frozen=True, slots=True)
class Effect:
    """What was changed, and notes on what could not be told."""

    changes: tuple[StepChange, ...] = ()
    notes: tuple[str, ...] = ()


def take_effect(
    unit: Unit,
    performed: PerformedStep,
    steps: Iterable[StepRef],
    at: datetime,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
    *,
    withdrawn: bool = False,
    remark: str = "",
) -> Effect:
    """Give these scheduled steps the status that follows from a performed one as it is now held, and tell it.

    To be called after `performed` was saved. `steps` are those that are newly linked, or all of them where its state
    is new; `withdrawn` says that they are not linked to it any more, or that it is not believed any more. `remark`
    goes into their history, for instance who decided it. One that ended is told though no status changes: another one
    may run, and what it did is told with no other.
    """
    planned = []
    ended = set()
    linked = set()
    for step in steps:
        linked.add(step.order_id)
        after = _after(unit, performed, step, withdrawn)
        if after is not step.status:
            planned.append((step, after))
        if not withdrawn and has_ended(performed):
            ended.add(step.order_id)
    # HL7 v2 tells statuses, and what was done when it ended; FHIR has a resource of the performed step itself.
    told = linked if audience.by_fhir else ended if audience.status else set()
    if not planned and not told:
        return Effect()
    # A status whose cause begins with MPPS is one that modalities made (`Unit.status_before_performance`).
    cause = f"MPPS {'taken back' if withdrawn else performed.state} {performed.sop_instance_uid}"
    if remark:
        cause = f"{cause}, {remark}"
    if audience.told:
        told = told | {step.order_id for step, _ in planned}
    before = {order_id: statuses(unit, order_id) for order_id in sorted(told)}
    for step, after in planned:
        unit.set_step_status(step.step_id, after, cause, at)
    notes: list[str] = []
    for order_id, held in before.items():
        notes += tell_progress(unit, audience, order_id, held, at, cause, performed, zone, withdrawn=withdrawn)
    changes = (StepChange(step.step_id, step.status, after) for step, after in planned)
    return Effect(tuple(changes), tuple(dict.fromkeys(notes)))


def tell_more(
    unit: Unit, performed: PerformedStep, steps: Iterable[StepRef], at: datetime, audience: Audience, zone: tzinfo
) -> None:  # fmt: skip
    """Tell what a performed step says now though it goes on as before: only FHIR has resources for that."""
    if not audience.by_fhir:
        return
    cause = f"MPPS {performed.state} {performed.sop_instance_uid}"
    for order_id in sorted({step.order_id for step in steps}):
        tell_progress(unit, audience, order_id, statuses(unit, order_id), at, cause, performed, zone)


def _after(unit: Unit, performed: PerformedStep, step: StepRef, withdrawn: bool) -> SPSStatus:
    """The step's status by the tables; an order cancelled meanwhile stays cancelled."""
    runs = performed.state is MPPSState.IN_PROGRESS and not withdrawn  # one that runs needs no others
    status = step.status
    others = () if runs else unit.performed_steps_of(step.step_id, but=performed.sop_instance_uid)
    events = step_events(performed, others, withdrawn)
    for event in events:
        after = TRANSITIONS[status, event] or status
        if event is StepEvent.PERFORMANCE_WITHDRAWN:
            without = unit.status_without_performance(step.step_id, performed.sop_instance_uid)
            # Where others are left that were broken off, it was begun all the same; what they come to is next.
            after = status if without is None else without if len(events) == 1 else SPSStatus.STARTED
        elif event is StepEvent.PERFORMANCE_RETURNED and after is not status:
            after = unit.status_before_performance(step.step_id)
        status = after
    return status
