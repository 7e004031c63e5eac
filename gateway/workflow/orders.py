"""Patients, visits and orders change as events say; every event of a message, or none.

Used by whatever brings events: HL7 messages and imported worklist files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.attributes import merge
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.order import Order, OrderEvent, apply
from gateway.domain.patient import Patient, PatientInput, PatientMerge, PatientUpdate, Visit, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.perform import PatientIssuers, link_waiting
from gateway.workflow.ports import Unit


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What applies to all events of one input. `cause` goes into the history of steps."""

    cause: str
    mint: Mint = field(repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)
    default_issuer: str = ""
    redirect_merged: bool = True


def apply_events(
    unit: Unit, events: Sequence[OrderEvent | PatientUpdate | PatientMerge], under: Circumstances, at: datetime
) -> list[str]:
    """Apply them all. Returns notes for the sender. Raises Refused with the problems of every event (D11)."""
    notes: list[str] = []
    refusals: list[Refusal] = []
    for event in events:
        try:
            if isinstance(event, OrderEvent):
                _apply_order(unit, event, under, at, notes)
            elif isinstance(event, PatientUpdate):
                patient = _upsert_patient(unit, event.patient, under, at, notes)
                _upsert_visit(unit, patient, event.visit, at)
            else:
                _merge_patients(unit, event, under, at, notes)
        except Refused as refused:
            refusals += refused.refusals
    if refusals:
        raise Refused(*dict.fromkeys(refusals))
    return notes


def _apply_order(unit: Unit, event: OrderEvent, under: Circumstances, at: datetime, notes: list[str]) -> None:
    held = _held_order(unit, event)
    if held is not None and not event.patient.identifiers:  # an imported item that names nobody stays whose it is
        patient = held.patient_id
    else:
        patient = _upsert_patient(unit, event.patient, under, at, notes)
    visit = _upsert_visit(unit, patient, event.visit, at)
    applied = apply(held, event, patient, visit, under.mint)
    saved = unit.save_order(applied.order, under.cause, at) if applied.order != held else applied.order
    notes += applied.notes
    link_waiting(
        unit,
        [procedure.study_instance_uid for procedure in saved.procedures if procedure.study_instance_uid],
        [procedure.accession.value for procedure in saved.procedures if procedure.accession],
        at,
        PatientIssuers(under.issuers, under.default_issuer),
    )


def _held_order(unit: Unit, event: OrderEvent) -> Order | None:
    """The one order these identifiers mean. Raises Refused (205) if they point to two: never merged (D10)."""
    found = {order.id: order for order in unit.orders(event.placer, event.filler)}
    for procedure in event.procedures:
        if procedure.study_instance_uid:
            order = unit.order_of_study(procedure.study_instance_uid)
            if order is not None:
                found[order.id] = order
    if not found and event.placer is None and event.filler is None:
        for procedure in event.procedures:
            if procedure.accession is not None:
                found |= {order.id: order for order in unit.orders_by_accession(procedure.accession)}
    if len(found) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                event.where,
                "its placer number, filler number, Study Instance UID or accession number belong to different orders",
                "correct the identifiers; orders are never merged",
            )
        )
    return next(iter(found.values()), None)


def _upsert_patient(unit: Unit, said: PatientInput, under: Circumstances, at: datetime, notes: list[str]) -> int:
    """The patient's id after insert or update. Raises Refused (205) for identifiers of two people."""
    found = unit.patients(said.identifiers) if said.identifiers else ()
    if len(found) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "PID-3",
                "these identifiers belong to different patients",
                "merge the patients first (ADT^A40) or correct the identifiers",
            )
        )
    if not found:
        return unit.save_patient(Patient(None, said.identifiers, said.attributes), at)
    held = found[0]
    assert held.id is not None  # noqa: S101  (held patients come from the store)
    if said.identifiers[0] in held.retired:
        return _merged_away(held.id, under, notes)
    identifiers = tuple(dict.fromkeys((*held.identifiers, *said.identifiers)))
    changed = replace(held, identifiers=identifiers, attributes=merge(held.attributes, said.attributes))
    return unit.save_patient(changed, at) if changed != held else held.id


def _merged_away(survivor: int, under: Circumstances, notes: list[str]) -> int:
    """A message still uses an identifier that a merge retired: the survivor is meant, its data stay as they are."""
    if not under.redirect_merged:
        raise Refused(
            Refusal(
                RefusalKind.UNKNOWN_KEY,
                "PID-3",
                "this patient ID was merged into another and is retired",
                "use the surviving patient ID",
            )
        )
    notes.append("the patient ID was merged into another; the surviving patient is used")
    return survivor


def _upsert_visit(unit: Unit, patient: int, said: VisitInput | None, at: datetime) -> int | None:
    if said is None:
        return None
    held = unit.visit(patient, said.number)
    if held is None:
        return unit.save_visit(Visit(None, patient, said.number, said.attributes), at)
    changed = replace(held, attributes=merge(held.attributes, said.attributes))
    return unit.save_visit(changed, at) if changed != held else held.id


def _merge_patients(unit: Unit, event: PatientMerge, under: Circumstances, at: datetime, notes: list[str]) -> None:
    """A40: insert or update the survivor, then move everything of the prior patient to it."""
    prior = unit.patients(event.prior)
    found = unit.patients(event.surviving.identifiers)
    if found and {patient.id for patient in prior} == {patient.id for patient in found}:
        if all(identifier in found[0].retired for identifier in event.surviving.identifiers):
            raise Refused(
                Refusal(
                    RefusalKind.DUPLICATE_KEY,
                    "MRG-1",
                    "these patients were merged before, the other way round",
                    "check which patient ID survives",
                )
            )
        notes.append("these identifiers belong to one patient already")
        return
    if len(prior) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "MRG-1",
                "the prior identifiers belong to different patients",
                "send one A40 for each",
            )
        )
    surviving = _upsert_patient(unit, event.surviving, under, at, notes)
    # An unknown prior patient is kept as an alias, so that its late messages find the survivor.
    prior_id = prior[0].id if prior else unit.save_patient(Patient(None, event.prior, {}), at)
    assert prior_id is not None  # noqa: S101  (just saved, or from the store)
    unit.merge_patient(prior_id, surviving, at)
