"""The reconciliation desk: what people decide about performed steps, each decision with its line in the log.

A person may link a performed step to scheduled ones and take the link away, believe one that names another patient or
not, say that one needs no order, end one that its modality never will, and make an order of one that nobody ordered.
What follows for statuses and for whoever is told of them is that of any MPPS (`performed_effects`). Everything that
makes no sense is refused, and then nothing is changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any

from gateway.domain.discontinuation import chosen
from gateway.domain.performed import SCHEDULED_STEP_ATTRIBUTES, Attention, MPPSState, PerformedStep
from gateway.domain.performed_faults import place
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow import linking, perform
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.performed_effects import Effect, StepChange, take_effect
from gateway.workflow.ports import PerformedDecision, StepRef, Unit

BEFORE = "before"
"""In the details of a decision: attention, patient and steps as they were."""


class Action(StrEnum):
    """What is decided, as the log has it."""

    LINKED = "linked"
    UNLINKED = "unlinked"
    BELIEVED = "believed"
    RELEASED = "released"
    SET_ASIDE = "set aside"
    BROUGHT_BACK = "brought back"
    CLOSED = "closed"
    ORDERED = "order made"


@dataclass(frozen=True, slots=True)
class By:
    """Who decides, when, and who is told of what follows. `issuers` tell whose patient ID an MPPS has.

    `note` is the person's reason, for the log.
    """

    actor: str
    at: datetime
    audience: Audience = NOBODY
    zone: tzinfo = UTC
    issuers: PatientIssuers | None = None
    note: str = ""

    def log(self, unit: Unit, held: PerformedStep, action: Action, effect: Effect | None = None, **more: Any) -> None:
        """A line of the log: how the performed step was `held` before, and every status that was changed."""
        before = {"attention": held.attention.value, "patient": held.patient_id, "steps": list(held.steps)}
        changes = [[each.step_id, each.before.value, each.after.value] for each in (effect.changes if effect else ())]
        details = {BEFORE: before, "changes": changes, **more}
        noted = {**details, "note": self.note} if self.note else details
        unit.log_performed(PerformedDecision(self.at, held.sop_instance_uid, action.value, self.actor, noted))


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The performed step as it is held now, the scheduled steps whose status changed, and notes."""

    performed: PerformedStep
    changes: tuple[StepChange, ...] = ()
    notes: tuple[str, ...] = ()


def link(unit: Unit, uid: str, step_ids: Iterable[int], by: By, *, force: bool = False) -> Reconciled:
    """It is what was done for these scheduled steps. Raises Refused.

    One that is quarantined is believed from then on, and linked to these alone. `force` is needed where the performed
    step names another patient than the scheduled ones have.
    """
    held = held_step(unit, uid)
    wanted = tuple(dict.fromkeys(step_ids))
    before = () if held.quarantined else held.steps
    steps = _scheduled(unit, wanted)
    new = [step for step in steps if step.step_id not in before]
    if not new:
        raise conflict("it is linked to these steps already", "see `gateway performed show`")
    after = _of_patient(unit, replace(held, steps=tuple(dict.fromkeys((*before, *wanted)))), by.issuers)
    if after.quarantined and not force:
        raise conflict(
            "the performed step names another patient than the scheduled step has",
            "look at both; link by force if the modality had the wrong patient",
        )
    after = settled(held, after.steps, steps[0].patient_id)
    unit.save_performed_step(after, by.at)
    effect = take_effect(unit, after, new, by.at, by.audience, by.zone, remark=f"linked by {by.actor}")
    by.log(unit, held, Action.LINKED, effect, steps=list(wanted), forced=force)
    return Reconciled(after, effect.changes, effect.notes)


def unlink(unit: Unit, uid: str, by: By, step_ids: Iterable[int] = ()) -> Reconciled:
    """It is not what was done for these scheduled steps, or for any of those it is linked to. Raises Refused.

    Their status is again what orders and other performed steps make it. Only a person links it again.
    """
    held = held_step(unit, uid)
    if held.quarantined:
        raise conflict("it is quarantined, so it is linked to nothing", "release it")
    gone = tuple(dict.fromkeys(step_ids)) or held.steps
    if not gone or not set(gone) <= set(held.steps):
        raise conflict("it is not linked to this step", "see `gateway performed show`")
    rest = tuple(each for each in held.steps if each not in gone)
    after = decided(_of_patient(unit, replace(held, steps=rest), by.issuers))
    unit.save_performed_step(after, by.at)
    effect = take_effect(
        unit, after, unit.steps(gone), by.at, by.audience, by.zone, withdrawn=True, remark=f"unlinked by {by.actor}"
    )
    by.log(unit, held, Action.UNLINKED, effect, steps=list(gone))
    return Reconciled(after, effect.changes, effect.notes)


def release(unit: Unit, uid: str, by: By, *, believed: bool) -> Reconciled:
    """End a quarantine. Raises Refused.

    Either it is `believed` and counts for the scheduled steps that it names, whoever it says the patient is; or it is
    somebody else's and linked to nothing, until a person links it.
    """
    held = held_step(unit, uid)
    if not held.quarantined:
        raise conflict("it is not quarantined", "see `gateway performed show`")
    steps = unit.steps(held.steps)
    if believed and not steps:
        raise conflict("the scheduled steps that it named are gone", "link it to another one")
    if believed:
        after = settled(held, [step.step_id for step in steps], steps[0].patient_id)
    else:
        after = decided(_of_patient(unit, replace(held, steps=()), by.issuers))
    unit.save_performed_step(after, by.at)
    effect = Effect()
    if believed:
        effect = take_effect(unit, after, steps, by.at, by.audience, by.zone, remark=f"believed by {by.actor}")
    by.log(unit, held, Action.BELIEVED if believed else Action.RELEASED, effect)
    return Reconciled(after, effect.changes, effect.notes)


def set_aside(unit: Unit, uid: str, by: By) -> Reconciled:
    """It needs no order, and nobody has to look at it any more. Raises Refused. A quarantined one stays unlinked."""
    held = held_step(unit, uid)
    if held.attention is Attention.SET_ASIDE:
        raise conflict("it is set aside already", "bring it back first")
    if held.attention is Attention.NONE and held.steps:
        raise conflict("it has its order", "unlink it first if that is wrong")
    steps = () if held.quarantined else held.steps
    after = replace(held, steps=steps, attention=Attention.SET_ASIDE)
    unit.save_performed_step(after, by.at)
    by.log(unit, held, Action.SET_ASIDE)
    return Reconciled(after)


def bring_back(unit: Unit, uid: str, by: By) -> Reconciled:
    """It was wrong to set it aside: it is what it was before. Raises Refused."""
    held = held_step(unit, uid)
    decisions = unit.performed_decisions(uid)
    before = next((each.details[BEFORE] for each in decisions if each.action == Action.SET_ASIDE), None)
    if held.attention is not Attention.SET_ASIDE or before is None:
        raise conflict("it is not set aside", "see `gateway performed show`")
    steps = tuple(step.step_id for step in unit.steps(before["steps"]))
    after = replace(held, steps=steps, attention=Attention(before["attention"]))
    unit.save_performed_step(after, by.at)
    by.log(unit, held, Action.BROUGHT_BACK)
    return Reconciled(after)


_SERIES = "00400340"
_NO_SERIES = "Performed Series Sequence {}: the modality named no series"


def close(unit: Unit, uid: str, state: MPPSState, by: By, reason: str = "") -> Reconciled:
    """End one whose modality never will. Raises Refused. `reason` is one of `discontinuation.CHOICES`."""
    held = held_step(unit, uid)
    if held.state is not MPPSState.IN_PROGRESS:
        raise Refused(Refusal(
            RefusalKind.STEP_CLOSED, "", f"it has ended already, {held.state}, and may no longer be changed",
            "see `gateway performed show`; what follows from it is changed by linking and unlinking",
        ))  # fmt: skip
    if reason and state is not MPPSState.DISCONTINUED:
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, "reason", f"a performed step that is {state} has no reason for discontinuing it",
            "leave it out, or end the step DISCONTINUED",
        ))  # fmt: skip
    reason = chosen(reason) if reason else ""
    answer = perform.close_step(unit, uid, state, by.actor, by.at, by.audience, by.zone, reason)
    if answer.performed is None:
        raise Refused(*answer.refusals)
    series = place(_SERIES)
    notes = [_NO_SERIES.format(series) if each.startswith(f"{series} ") else each for each in answer.notes]
    effect = Effect(answer.changes, tuple(notes))
    by.log(unit, held, Action.CLOSED, effect, state=str(state), reason=reason)
    return Reconciled(answer.performed, effect.changes, effect.notes)


# --- in common ------------------------------------------------------------------------------------------------------


def held_step(held_here: perform.PerformedLookup, uid: str) -> PerformedStep:
    """The performed step. Raises Refused where there is none."""
    held = held_here.performed_step(uid)
    if held is None:
        raise Refused(Refusal(
            RefusalKind.NO_SUCH_INSTANCE, "(0008,0018)", "no performed step with this SOP Instance UID is held",
            "see `gateway performed list`",
        ))  # fmt: skip
    return held


def conflict(text: str, hint: str) -> Refused:
    """What is wanted does not fit what is held."""
    return Refused(Refusal(RefusalKind.CONFLICT, "", text, hint))


def decided(held: PerformedStep) -> PerformedStep:
    """Linked to nothing until a person does it: no order that comes takes it."""
    return replace(held, attention=Attention.UNLINKED)


def settled(held: PerformedStep, steps: Sequence[int], patient_id: int) -> PerformedStep:
    """What was done for these scheduled steps of this patient; nobody has to look at it."""
    return replace(held, steps=tuple(dict.fromkeys(steps)), patient_id=patient_id, attention=Attention.NONE)


def _scheduled(unit: Unit, step_ids: Sequence[int]) -> Sequence[StepRef]:
    """The scheduled steps, all of one patient. Raises Refused."""
    if not step_ids:
        raise Refused(Refusal(
            RefusalKind.MISSING_VALUE, "", "nothing says which scheduled step it is", "name one by its number"
        ))  # fmt: skip
    steps = unit.steps(step_ids)
    missing = set(step_ids) - {step.step_id for step in steps}
    if missing:
        named = ", ".join(f"#{each}" for each in sorted(missing))
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_KEY, "", f"there is no scheduled step {named}", "see `gateway worklist list`"
        ))  # fmt: skip
    if len({step.patient_id for step in steps}) > 1:
        raise conflict("the scheduled steps are of different patients", "link it to those of one patient")
    return steps


def _of_patient(unit: Unit, performed: PerformedStep, issuers: PatientIssuers | None) -> PerformedStep:
    """Whose it is by its own words and those of the scheduled steps it is linked to now; quarantined if they differ."""
    bare = {tag: said for tag, said in performed.attributes.items() if tag != SCHEDULED_STEP_ATTRIBUTES}
    judged = linking.link(unit, replace(performed, attributes=bare), issuers or PatientIssuers()).performed
    return replace(performed, patient_id=judged.patient_id, attention=judged.attention)
