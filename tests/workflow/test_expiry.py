"""The nightly expiry: what it takes off the list, and whom it tells of orders that are over by it."""

from dataclasses import replace

import pytest
from people import AT, attributes, order, person, told, tried

from gateway.domain.order import Order
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.patient import PatientUpdate
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.wire import er7
from gateway.wire.er7_writer import MessageWriter
from gateway.workflow.audience import NOBODY, Audience, StatusTarget, Writing
from gateway.workflow.maintain import expire
from gateway.workflow.telling import statuses

_S = SPSStatus
_RULES = {"ORC-1": "event.OrderControl", "ORC-5": "event.OrderStatus"}
_WRITTEN = {"message": "ORM^O01", "hl7": "2.5.1", "about": "order", "segments": ["MSH", "ORC"], "rules": _RULES}
PLACER = Audience((StatusTarget("ris", Writing(MessageWriter(compile_outbound({"m": _WRITTEN}, "m")))),))


def held(unit: StoreUnit, *steps: SPSStatus) -> Order:
    """An order of one procedure with steps of these statuses."""
    (patient_id,) = told(unit, PatientUpdate(person("4711", PatientName="Muster^Eva")))
    made = order(patient_id, 7)
    (procedure,) = made.procedures
    its = tuple(
        replace(procedure.steps[0], sps_id=f"S{number}", status=status,
                attributes=procedure.steps[0].attributes | attributes(ScheduledProcedureStepID=f"S{number}"))
        for number, status in enumerate(steps)
    )  # fmt: skip
    return unit.save_order(replace(made, procedures=(replace(procedure, steps=its),)), "test", AT)


def told_of(unit: StoreUnit, ours: Order, audience: Audience = PLACER) -> list[tuple[str, str]]:
    """ORC-1 and ORC-5 of what is told when all that waits of the order expires."""
    assert ours.id is not None
    refs = unit.steps(list(statuses(unit, ours.id)))
    expire(unit, [ref for ref in refs if ref.status in (_S.SCHEDULED, _S.ARRIVED)], AT, audience)
    orcs = [er7.parse(each.payload, "utf-8").first("ORC") for each in unit.deliveries(9)]
    return [(orc.text(1), orc.text(5)) for orc in orcs if orc is not None]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((_S.COMPLETED, _S.SCHEDULED), [("SC", "CM")]),
        ((_S.COMPLETED, _S.ARRIVED, _S.SCHEDULED), [("SC", "CM")]),  # told once
        ((_S.COMPLETED, _S.DISCONTINUED, _S.SCHEDULED), [("SC", "CM")]),
        ((_S.DISCONTINUED, _S.SCHEDULED), [("SC", "DC")]),
        ((_S.SCHEDULED,), []),  # never begun: nobody was told anything
        ((_S.CANCELED, _S.SCHEDULED), []),  # cancelled by its sender, as far as it was
        ((_S.COMPLETED, _S.STARTED, _S.SCHEDULED), []),  # goes on
        ((_S.COMPLETED, _S.HELD, _S.SCHEDULED), []),  # a hold has no end of its own
    ],
)
def test_an_order_that_is_over_when_its_last_steps_expire_is_told_so(
    store: Store, steps: tuple[SPSStatus, ...], expected: list[tuple[str, str]]
) -> None:
    assert tried(store, lambda unit: told_of(unit, held(unit, *steps))) == expected
    assert tried(store, lambda unit: told_of(unit, held(unit, *steps), NOBODY)) == []


def test_a_step_that_moved_on_after_it_was_found_stays(store: Store) -> None:
    def job(unit: StoreUnit) -> tuple[int, list[SPSStatus]]:
        ours = held(unit, _S.SCHEDULED, _S.SCHEDULED)
        assert ours.id is not None
        found = unit.steps(list(statuses(unit, ours.id)))
        unit.set_step_status(found[0].step_id, _S.STARTED, "MPPS", AT)
        return expire(unit, found, AT), list(statuses(unit, ours.id).values())

    assert tried(store, job) == (1, [_S.STARTED, _S.EXPIRED])
