"""Which FHIR resources speak of which order, procedure and step, when these get other keys or become another order.

A resource is tied to a procedure and a step by the keys that these had when it was read. Keys that were made here give
way to those of a RIS, and an order typed by hand takes the place of the RIS's own; the ties follow.
"""

from gateway.domain.order import Order
from gateway.workflow.ports import Unit


def follow_keys(unit: Unit, before: Order, after: Order) -> None:
    """The resources of an order speak of the same procedures and steps as before, by their keys of now."""
    procedures = {
        old.requested_procedure_id: new.requested_procedure_id
        for old in before.procedures for new in after.procedures
        if old.id == new.id and old.requested_procedure_id != new.requested_procedure_id
    }  # fmt: skip
    known = {step.id: step.sps_id for each in before.procedures for step in each.steps}
    steps = {
        known[step.id]: step.sps_id
        for each in after.procedures for step in each.steps
        if step.id in known and known[step.id] != step.sps_id
    }  # fmt: skip
    if (procedures or steps) and after.id is not None:
        unit.set_order_parts(after.id, [
            part._replace(
                requested_procedure_id=procedures.get(part.requested_procedure_id, part.requested_procedure_id),
                sps_id=steps.get(part.sps_id, part.sps_id),
            )
            for part in unit.order_parts(after.id)
        ])  # fmt: skip


def hand_over(unit: Unit, before: Order, after: Order) -> None:
    """What spoke of one order speaks of another, which took its place; of all of it where a key is not there again."""
    if before.id is None or after.id is None:
        return
    procedures = {each.requested_procedure_id for each in after.procedures}
    steps = {step.sps_id for each in after.procedures for step in each.steps}
    moved = [
        part._replace(
            order_id=after.id,
            requested_procedure_id=part.requested_procedure_id if part.requested_procedure_id in procedures else "",
            sps_id=part.sps_id if part.sps_id in steps else "",
        )
        for part in unit.order_parts(before.id)
    ]
    if moved:
        unit.set_order_parts(before.id, ())
        unit.set_order_parts(after.id, [*unit.order_parts(after.id), *moved])
