"""Patients, visits and orders change as events say; every event of a message, or none.

Used by whatever brings events: HL7 messages and imported worklist files.
"""

from collections.abc import Sequence
from datetime import datetime

from gateway.domain.order import Order, OrderEvent, apply
from gateway.domain.patient import PatientMerge, PatientUpdate
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.patients import merge_patients, upsert_patient, upsert_visit
from gateway.workflow.perform import PatientIssuers, link_waiting
from gateway.workflow.ports import Unit


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
                patient = upsert_patient(unit, event.patient, under, at, notes)
                upsert_visit(unit, patient, event.visit, at)
            else:
                merge_patients(unit, event, under, at, notes)
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
        patient = upsert_patient(unit, event.patient, under, at, notes)
    visit = upsert_visit(unit, patient, event.visit, at, held.visit_id if held else None)
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
