"""Appointments that name no order: each is an order of its own, by its own number, until the order for it is known.

The order and the appointment are one where patient, procedure code, start and station are the same and nothing else
fits. The order then has its own numbers, and the number of the appointment becomes an order without procedures that
says which study it stands for (`other_number`), so that what comes for the appointment later finds it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gateway.domain.attributes import TAG, Attributes, element, text, values
from gateway.domain.facts import Stamps
from gateway.domain.mapping_orders import moved
from gateway.domain.order import Order, OrderEvent, Procedure, ProcedureInput, Step, StepInput
from gateway.domain.order_matching import codes, codes_said, taken_over
from gateway.domain.worklist import LISTED, start_of

_NUMBERS = frozenset(
    TAG[keyword]
    for keyword in (
        "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
        "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
    )
)  # fmt: skip
_STATION = "ScheduledStationAETitle"


def is_same(held: Order, event: OrderEvent) -> bool:
    """Whether both are for the same procedures at the same starts, and at the same stations where both name any.

    A catalogue's stations do not count as named. What is off the list is no longer the same.
    """
    if not event.procedures or len(held.procedures) != len(event.procedures):
        return False
    left = list(held.procedures)
    for said in event.procedures:
        fitting = [procedure for procedure in left if _is_same_procedure(procedure, said)]
        if len(fitting) != 1:
            return False
        left.remove(fitting[0])
    return True


def _is_same_procedure(held: Procedure, said: ProcedureInput) -> bool:
    named = codes_said(said)
    if not named or named != codes(held.attributes) or len(held.steps) != len(said.steps):
        return False
    steps = sorted(held.steps, key=lambda step: start_of(step.attributes))
    return all(map(_is_same_step, steps, sorted(said.steps, key=_start_said)))


def _is_same_step(held: Step, said: StepInput) -> bool:
    start = _start_said(said)
    if held.status not in LISTED or not start or start != start_of(held.attributes):
        return False
    there = frozenset() if TAG[_STATION] in held.stamps.weak_names() else _stations(held.attributes)
    asked = _stations(said.attributes)
    return not there or not asked or there == asked


def _start_said(said: StepInput) -> str:
    return start_of({**said.defaults, **said.attributes})


def _stations(attributes: Attributes) -> frozenset[str]:
    return frozenset(str(title) for title in values(attributes, _STATION) if title)


def appointments_for(event: OrderEvent, orders: Iterable[Order]) -> Sequence[Order]:
    """Those of the patient's provisional orders that are appointments for the order of this event."""
    if event.by_appointment or (event.placer is None and event.filler is None):
        return ()
    return [held for held in orders if held.of_appointment and is_same(held, event)]


def orders_for(event: OrderEvent, orders: Iterable[Order]) -> Sequence[Order]:
    """Those of the patient's orders that this appointment is for."""
    numbered = (held for held in orders if not held.provisional and (held.placer or held.filler))
    return list({held.id: held for held in numbered if is_same(held, event)}.values())


def given_to_order(appointment: Order) -> Order:
    """An appointment's order, as the order's whose it is: whatever that says counts, its keys and numbers too."""
    stamps = appointment.stamps
    others = {name: since for name, since in stamps.others.items() if name not in _NUMBERS}
    return replace(
        taken_over(appointment), placer=None, filler=None, attributes=_without_numbers(appointment.attributes),
        stamps=Stamps(stamps.base, others, stamps.events),
    )  # fmt: skip


def other_number(of: Order, numbered: Order | OrderEvent) -> Order | None:
    """The number of an appointment, kept as an order that stands for another; None where that has no study."""
    study = next((each.study_instance_uid for each in of.procedures if each.study_instance_uid), "")
    if not study:
        return None
    attributes = {TAG["StudyInstanceUID"]: element("StudyInstanceUID", study)}
    return Order(None, of.patient_id, None, numbered.placer, numbered.filler, attributes, (), of.site)


def stands_for(order: Order) -> str:
    """The Study Instance UID of the order that this is another number of; '' for an order of its own."""
    return "" if order.procedures else text(order.attributes, "StudyInstanceUID")


def as_of(order: Order, event: OrderEvent) -> OrderEvent:
    """What an appointment says of the order that it turned out to be for: when and where, as if it had named it."""
    known = (event.placer and event.placer == order.placer) or (event.filler and event.filler == order.filler)
    if known or not event.by_appointment or not (order.placer or order.filler):
        return event
    return replace(
        event, placer=order.placer, filler=order.filler, attributes=_without_numbers(event.attributes),
        procedures=tuple(map(moved, event.procedures)), by_appointment=False,
    )  # fmt: skip


def _without_numbers(attributes: Attributes) -> Attributes:
    return {tag: said for tag, said in attributes.items() if tag not in _NUMBERS}
