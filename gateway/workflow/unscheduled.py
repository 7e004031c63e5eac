"""An order made here from what was performed without one (RAD TF-1, unscheduled case), as a person decides.

It is held under the Study Instance UID that the images have, so it is found by whatever comes for it later; an order of
the RIS for the same study or accession number takes it over with numbers of its own. Its placer is told of it as a new
order of the filler's (order control SN) and may answer with a number of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gateway.domain.attributes import TAG, Attributes
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import Patient, PatientInput
from gateway.domain.performed import SCHEDULED_STEP_ATTRIBUTES, PerformedStep, StepReference, references, text_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import SPSStatus
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.orders import apply_events
from gateway.workflow.performed_effects import take_effect
from gateway.workflow.ports import Unit
from gateway.workflow.proposals import patients_meant
from gateway.workflow.reconcile import Action, By, Reconciled, conflict, decided, held_step, settled
from gateway.workflow.telling import tell_progress

# What was performed -> what the order says was scheduled. The first tag that has a value counts.
_OF_PROCEDURE = {
    "RequestedProcedureDescription": ("00400255", "00400254"),
    "RequestedProcedureCodeSequence": ("00081032",),
}
_OF_STEP = {
    "ScheduledStationAETitle": ("00400241",),
    "ScheduledStationName": ("00400242",),
    "ScheduledProcedureStepLocation": ("00400243",),
    "ScheduledProcedureStepStartDate": ("00400244",),
    "ScheduledProcedureStepStartTime": ("00400245",),
    "Modality": ("00080060",),
    "ScheduledProcedureStepDescription": ("00400254", "00400255"),
    "ScheduledProtocolCodeSequence": ("00400260",),
}

_MINTED = ("AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID")


class OrderingUnit(Unit, Protocol):
    """A transaction that finds patients by what a performed step says of them."""

    def patients_of_value(self, value: str) -> Sequence[Patient]: ...


def order_from(unit: OrderingUnit, uid: str, by: By, under: Circumstances) -> tuple[Order, Reconciled]:
    """Make an order of a performed step that has none, and link the two. Raises Refused.

    Its patient has to be known here. Keys that the modality did not give are minted.
    """
    held = held_step(unit, uid)
    if held.quarantined:
        raise conflict("it names another patient than the worklist does", "release it first")
    if held.steps:
        raise conflict("it is linked to a scheduled step", "unlink it first if that is wrong")
    meant = patients_meant(unit, held)
    if len(meant) > 1:
        raise conflict("several patients have the patient ID that it names", "link it to a scheduled step of one")
    patient = unit.patient(meant[0]) if meant else None
    if patient is None or not patient.identifiers:
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_KEY, "(0010,0020)", "its patient is not known here",
            "register the patient, or link it to a scheduled step",
        ))  # fmt: skip
    said = _references(unit, held)
    # From here on only this links it, so that the placer is told of one thing: an order that is under way.
    unit.save_performed_step(decided(held), by.at)
    outcome = apply_events(unit, [_event(held, said, patient, under)], under, by.at)
    held_now = unit.order(outcome.orders[0])
    assert held_now is not None  # noqa: S101  (it was saved a moment ago)
    order = unit.save_order(replace(held_now, provisional=True), under.cause, by.at)
    numbers = [step.id for procedure in order.procedures for step in procedure.steps if step.id is not None]
    after = settled(held, numbers, order.patient_id)
    unit.save_performed_step(after, by.at)
    effect = take_effect(unit, after, unit.steps(numbers), by.at, remark=f"order made by {by.actor}")
    notes: list[str] = []
    # First that there is such an order; then, where what was performed has ended, what became of it.
    for before in ({}, dict.fromkeys(numbers, SPSStatus.STARTED)):
        cause = f"{Action.ORDERED.value} {held.sop_instance_uid}"
        notes += tell_progress(unit, by.audience, outcome.orders[0], before, by.at, cause, after, by.zone)
    by.log(unit, held, Action.ORDERED, effect, order=order.id, steps=numbers)
    made = unit.order(outcome.orders[0]) or order
    return made, Reconciled(after, effect.changes, (*outcome.notes, *effect.notes, *notes))


def _references(unit: Unit, held: PerformedStep) -> Sequence[StepReference]:
    """What it says of studies, one procedure each. Raises Refused where an order is held for one of them."""
    said = [each for each in references(held.attributes) if each.study_instance_uid]
    said = list({each.study_instance_uid: each for each in reversed(said)}.values())[::-1]
    if not said:
        raise Refused(Refusal(
            RefusalKind.MISSING_VALUE, "(0040,0270)/(0020,000D)", "it names no Study Instance UID",
            "link it to a scheduled step",
        ))  # fmt: skip
    for each in said:
        accession = each.accession_number
        if unit.order_of_study(each.study_instance_uid) is not None:
            raise conflict("an order of this Study Instance UID is held", "link it to that")
        if accession and unit.orders_by_accession(Identifier(accession), any_issuer=True):
            raise conflict("an order of this accession number is held", "link it to that")
    return said


def _event(held: PerformedStep, said: Sequence[StepReference], patient: Patient, under: Circumstances) -> OrderEvent:
    """The performed step as if its order had come."""
    filler = Identifier(under.mint.short_id("F", f"performed:{held.sop_instance_uid}"))
    step = StepInput("", _taken(held, _OF_STEP))
    procedures = tuple(
        ProcedureInput(
            each.study_instance_uid,
            each.requested_procedure_id,
            Identifier(each.accession_number, under.default_issuer) if each.accession_number else None,
            _taken(held, _OF_PROCEDURE) | _requested(held, each),
            (step,),
        )
        for each in said
    )
    return OrderEvent(
        OrderControl.SN,
        "",
        None,
        filler,
        PatientInput(patient.identifiers, {}),
        None,
        {TAG["FillerOrderNumberImagingServiceRequest"]: {"vr": "LO", "Value": [filler.value]}},
        procedures,
        dict.fromkeys(_MINTED, Policy("generate")),
    )


def _taken(held: PerformedStep, table: dict[str, tuple[str, ...]]) -> Attributes:
    found = {
        TAG[keyword]: next(
            (held.attributes[tag] for tag in tags if (held.attributes.get(tag) or {}).get("Value")), None
        )
        for keyword, tags in table.items()
    }
    return {tag: said for tag, said in found.items() if said is not None}


def _requested(held: PerformedStep, reference: StepReference) -> Attributes:
    """What the modality says was requested: some let people type it."""
    for item in (held.attributes.get(SCHEDULED_STEP_ATTRIBUTES) or {}).get("Value") or ():
        if text_of(item, TAG["StudyInstanceUID"]) == reference.study_instance_uid:
            wanted = (TAG["RequestedProcedureDescription"], TAG["RequestedProcedureCodeSequence"])
            return {tag: item[tag] for tag in wanted if (item.get(tag) or {}).get("Value")}
    return {}
