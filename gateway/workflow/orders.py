"""Patients, visits and orders change as events say; every event of a message, or none.

Used by whatever brings events: HL7 messages and imported worklist files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.attributes import TAG, merge
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.order import Order, OrderEvent, apply
from gateway.domain.patient import Patient, PatientInput, PatientMerge, PatientUpdate, Visit, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.perform import PatientIssuers, link_waiting
from gateway.workflow.ports import Unit

_IDENTIFYING = frozenset(
    TAG[keyword]
    for keyword in (
        "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
        "OtherPatientIDsSequence",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What applies to all events of one input. `cause` goes into the history of steps, `site` to new orders."""

    cause: str
    mint: Mint = field(repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)
    default_issuer: str = ""
    redirect_merged: bool = True
    site: str = ""


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
    visit = _upsert_visit(unit, patient, event.visit, at, held.visit_id if held else None)
    applied = apply(held, event, patient, visit, under.mint, under.site)
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
    one = next(iter(found.values()), None)
    if len(found) > 1 or (one is not None and _is_another(one, event)):
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                event.where,
                "its placer number, filler number, Study Instance UID or accession number belong to different orders",
                "correct the identifiers; orders are never merged",
            )
        )
    return one


def _is_another(held: Order, event: OrderEvent) -> bool:
    """Whether the order that was found by some key has another placer number, or no placer number in common and another
    filler number."""
    if held.placer and event.placer:
        return held.placer != event.placer
    return bool(held.filler and event.filler and held.filler != event.filler)


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
    current = (identifier for identifier in said.identifiers if identifier not in held.retired)
    identifiers = tuple(dict.fromkeys((*held.identifiers, *current)))
    attributes = said.attributes
    if said.identifiers[0] != identifiers[0]:  # the ID that devices know the patient by stays
        attributes = {tag: element for tag, element in attributes.items() if tag not in _IDENTIFYING}
    changed = replace(held, identifiers=identifiers, attributes=merge(held.attributes, attributes))
    return unit.save_patient(changed, at) if changed != held else held.id


def _retire(unit: Unit, patient: Patient, event: PatientMerge, at: datetime) -> None:
    """The prior identifiers of a merge within one patient: they find the patient, and are said to nobody any more."""
    kept = tuple(each for each in patient.identifiers if each not in event.prior or each in event.surviving.identifiers)
    past = tuple(each for each in patient.identifiers if each not in kept)
    if past:
        attributes = merge(patient.attributes, event.surviving.attributes)
        unit.save_patient(
            replace(patient, identifiers=kept, retired=(*patient.retired, *past), attributes=attributes), at
        )


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


def _upsert_visit(
    unit: Unit, patient: int, said: VisitInput | None, at: datetime, known: int | None = None
) -> int | None:
    """The visit's id after insert or update; one without a number is the `known` one of the order, if there is one."""
    if said is None:
        return None
    held = unit.visit_by_id(known) if known is not None and said.number is None else unit.visit(patient, said.number)
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
        _retire(unit, found[0], event, at)
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
    survivor = event.surviving
    if not found and prior:  # a new survivor is the same person: what the message leaves out is as it was
        known = {tag: element for tag, element in prior[0].attributes.items() if tag not in _IDENTIFYING}
        survivor = replace(survivor, attributes=merge(known, survivor.attributes))
    surviving = _upsert_patient(unit, survivor, under, at, notes)
    # Unknown prior identifiers are kept as aliases, so that late messages with them find the survivor.
    before = prior[0] if prior else Patient(None, (), {})
    aliases = tuple(dict.fromkeys((*before.identifiers, *event.prior)))
    prior_id = unit.save_patient(replace(before, identifiers=aliases), at)
    unit.merge_patient(prior_id, surviving, at)
