"""When records of patients merge, part or change: what was made of their orders is told anew, of whom it is about now.

The log of identities says which orders went from one patient to another. Only of those of which something was performed
are there resources with a subject of ours.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from gateway.domain.order import Order
from gateway.domain.patient import IdentityChange, IdentityKind
from gateway.domain.progress import standing
from gateway.workflow.audience import Audience
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.fhir_offering import News, tell_by_fhir
from gateway.workflow.identities import unmerge
from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK, Unit

ORDERS_MAX = 1_000
"""Orders that are told anew at once: more than a person has. Those left out are told when something becomes of them."""


def take_back(unit: Unit, log_id: int, under: Circumstances, at: datetime) -> tuple[str, ...]:
    """Take back a line of the log of identities, and tell of whom the orders are again; notes. Raises as `unmerge`."""
    notes = unmerge(unit, log_id, at, under.cause)
    change = unit.identity_change(log_id)
    return (*notes, *follow_identities(unit, under, [change.patient_id] if change is not None else [], at))


def follow_identities(unit: Unit, under: Circumstances, patients: Iterable[int], at: datetime) -> list[str]:
    """Tell what was performed of the orders that changed hands by this input, in our resources and to other servers;
    notes. `patients` are those whom it touched.

    Also whoever said so is told: it may not know what it got from us.
    """
    if not under.audience.by_fhir:
        return []
    orders = [order_id for order_id in _moved(unit, under, patients, at) if unit.performed_of_order(order_id)]
    for order_id in orders[:ORDERS_MAX]:
        order = unit.order(order_id)
        if order is not None:
            keys = ((ORDER_LINK, str(order.id)), (PATIENT_LINK, str(order.patient_id)))
            news = News(None, cause=under.cause, keys=keys)
            tell_by_fhir(unit, _concerned(under.audience, order), order, news, at.astimezone(under.zone))
    if len(orders) > ORDERS_MAX:
        return [f"{len(orders) - ORDERS_MAX} order(s) name the former patient by FHIR until something becomes of them"]
    return []


def _moved(unit: Unit, under: Circumstances, patients: Iterable[int], at: datetime) -> Iterator[int]:
    """The orders whose patient is another one, or known by another number, by the lines that this input wrote."""
    lines = {
        line.id: line for each in patients for line in unit.identity_changes(each)
        if line.at == at and line.cause == under.cause
    }  # fmt: skip
    yield from dict.fromkeys(order for line in lines.values() for order in _orders(unit, line))


def _orders(unit: Unit, line: IdentityChange) -> Iterable[int]:
    if line.kind is IdentityKind.CHANGE:
        return unit.belongings(line.patient_id).orders
    if line.kind is IdentityKind.UNDO:
        undone = unit.identity_change(int(line.details["line"]))
        if undone is not None and undone.kind is IdentityKind.CHANGE:
            return _orders(unit, undone)
    return [int(each) for each in line.details.get("orders", ())]


def _concerned(audience: Audience, order: Order) -> Audience:
    """Those who were told how this order stands."""
    statuses = [step.status for procedure in order.procedures for step in procedure.steps]
    what = standing(statuses)
    return replace(audience, fhir=tuple(each for each in audience.fhir if what is None or what in each.tells))
