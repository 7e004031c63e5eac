"""Resources speak of the same procedures and steps when these get other keys."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.domain.order import Order, Procedure, Step
from gateway.domain.patient import Patient
from gateway.domain.resources import OrderPart, ResourceKey
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.edges.store_unit import StoreUnit
from gateway.workflow.order_parts import follow_keys, hand_over

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
REQUEST, TASK = ResourceKey("r4", "ServiceRequest", "o1"), ResourceKey("r4", "Task", "t1")


def _saved(unit: StoreUnit, number: int) -> Order:
    patient = unit.save_patient(Patient(None, (), {}), AT)
    steps = tuple(Step(None, f"S{number}{n}", SPSStatus.SCHEDULED, {}) for n in (1, 2))
    procedure = Procedure(None, f"2.25.{number}", f"R{number}", None, {}, steps)
    order = unit.save_order(Order(None, patient, None, None, None, {}, (procedure,)), "x", AT)
    parts = [
        OrderPart(order.id or 0, REQUEST),
        OrderPart(order.id or 0, TASK, f"R{number}", f"S{number}1"),
    ]
    unit.set_order_parts(order.id or 0, parts)
    return order


def _parts(unit: StoreUnit, order: Order) -> set[tuple[str, str, str]]:
    return {(part.key.id, part.requested_procedure_id, part.sps_id) for part in unit.order_parts(order.id or 0)}


def test_other_keys_are_followed(tmp_path: Path) -> None:
    def use_case(unit: StoreUnit) -> None:
        before = _saved(unit, 1)
        (procedure,) = before.procedures
        first, second = procedure.steps
        steps = (replace(first, sps_id="RIS1"), second)
        after = replace(before, procedures=(replace(procedure, requested_procedure_id="RIS", steps=steps),))
        follow_keys(unit, before, after)
        assert _parts(unit, before) == {("o1", "", ""), ("t1", "RIS", "RIS1")}

    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
        store.write(use_case).result()


def test_what_spoke_of_an_order_speaks_of_the_one_in_its_place(tmp_path: Path) -> None:
    def use_case(unit: StoreUnit) -> None:
        one, other = _saved(unit, 1), _saved(unit, 2)
        unit.set_order_parts(other.id or 0, ())
        hand_over(unit, one, other)
        assert _parts(unit, one) == set()
        assert _parts(unit, other) == {("o1", "", ""), ("t1", "", "")}, "that has other procedures and steps"

    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
        store.write(use_case).result()
