"""A second source of status, for devices that never send MPPS: what an image manager or a timed rule knows of a study.

It speaks only for scheduled steps that no performed step is held for: where a modality reports, it knows better. One
that began with the wrong worklist entry counts as well: the images under the entry's study are somebody else's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from gateway.domain.worklist import TRANSITIONS, StepEvent
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.linking import accession_issuer
from gateway.workflow.performed_effects import StepChange
from gateway.workflow.ports import StepRef, Unit
from gateway.workflow.telling import statuses, tell_progress

NOT_HELD = "no scheduled step of this study is held"
SEVERAL_PATIENTS = "several patients have this accession number; nothing was completed"
SEVERAL_ISSUERS = "several issuers gave this accession number; nothing was completed"
REPORTED = "a modality reports on it; left to that"


@dataclass(frozen=True, slots=True)
class Completed:
    """The scheduled steps whose status changed, and notes on those that were left alone or could not be told."""

    changes: tuple[StepChange, ...] = ()
    notes: tuple[str, ...] = ()


def complete_study(
    unit: Unit,
    study_instance_uid: str,
    accession: str,
    at: datetime,
    cause: str,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
) -> Completed:
    """The images of this study are there, so what was to be done for it is done.

    By the Study Instance UID; where none is held under it, by the accession number, if one patient has it and one
    issuer gave it.
    """
    steps = unit.find_steps(study_instance_uid, "", "", "") or unit.find_steps("", "", accession, "")
    if not steps:
        return Completed(notes=(NOT_HELD,))
    if len({step.patient_id for step in steps}) > 1:
        return Completed(notes=(SEVERAL_PATIENTS,))
    if steps[0].study_instance_uid != study_instance_uid and len(_issuers(unit, steps)) > 1:
        return Completed(notes=(SEVERAL_ISSUERS,))
    return assume_completed(unit, steps, at, cause, audience, zone)


def _issuers(unit: Unit, steps: Iterable[StepRef]) -> set[str]:
    """Who issued the accession numbers of these steps."""
    return {accession_issuer(unit.order(step.order_id), step.step_id) for step in steps}


def assume_completed(
    unit: Unit, steps: Iterable[StepRef], at: datetime, cause: str, audience: Audience = NOBODY, zone: tzinfo = UTC
) -> Completed:
    """These scheduled steps are done, by the table of statuses, but for those that a modality reports on."""
    changes: list[StepChange] = []
    notes: list[str] = []
    orders: dict[int, list[StepRef]] = {}
    for step in steps:
        if any(not performed.quarantined for performed in unit.performed_steps_of(step.step_id)):
            notes.append(REPORTED)
        else:
            orders.setdefault(step.order_id, []).append(step)
    for order_id, its in orders.items():
        before = statuses(unit, order_id)
        for step in its:
            after = TRANSITIONS[step.status, StepEvent.REPORTED_COMPLETED]
            if after is not None and after is not step.status:
                unit.set_step_status(step.step_id, after, cause, at)
                changes.append(StepChange(step.step_id, step.status, after))
        if before != statuses(unit, order_id):
            notes += tell_progress(unit, audience, order_id, before, at, cause, zone=zone)
    return Completed(tuple(changes), tuple(dict.fromkeys(notes)))
