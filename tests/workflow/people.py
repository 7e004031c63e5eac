"""Invented people as feeds speak of them, and jobs that leave no trace, so that one store serves many examples."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from gateway.domain.attributes import TAG, Attributes, element, person_name_value
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.patient import Patient, PatientEvent, PatientInput, PatientUpdate, VisitInput
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.patients import apply_patient_event

T = TypeVar("T")

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
_MINT = Mint(uuid.UUID(int=1))


def attributes(**held: Any) -> Attributes:
    """By keyword; None is a value that the feed deletes."""
    made: Attributes = {}
    for keyword, value in held.items():
        spoken = person_name_value(value) if keyword == "PatientName" and value else value
        made[TAG[keyword]] = element(keyword, *([] if spoken is None else [spoken]))
    return made


def key(value: str, issuer: str = "HOSPITAL") -> Identifier:
    return Identifier(value, issuer)


def person(*values: str, **said: Any) -> PatientInput:
    """What a message said of who bears these identifiers, the first one leading."""
    return PatientInput(tuple(key(value) for value in values), attributes(PatientID=values[0], **said))


def stay(number: str = "", **said: Any) -> VisitInput:
    named = {"AdmissionID": number} if number else {}
    return VisitInput(key(number) if number else None, attributes(**named, **said))


def under(made: int = 0, sender: str = "adt", **more: Any) -> Circumstances:
    """Said by a message made at this minute."""
    stamp = Stamp(f"2026-07-05T07:{made:02}:00.000000+00:00", sender)
    return Circumstances(more.pop("cause", "ADT"), _MINT, stamp=stamp, **more)


def order(patient_id: int, number: int, visit_id: int | None = None) -> Order:
    step = Step(
        None, f"S{number}", SPSStatus.SCHEDULED,
        attributes(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate="20260705",
                   ScheduledProcedureStepStartTime="093000", Modality="CT", ScheduledProcedureStepID=f"S{number}"),
    )  # fmt: skip
    procedure = Procedure(None, f"2.25.{number}", f"R{number}", key(f"A{number}"), {}, (step,))
    return Order(None, patient_id, visit_id, key(f"PL{number}", "RIS"), None, {}, (procedure,))


def told(
    unit: StoreUnit, event: PatientEvent, made: int = 0, notes: list[str] | None = None, **more: Any
) -> tuple[int, ...]:
    """An event of a message made at this minute; `more` are its circumstances."""
    return apply_patient_event(unit, event, under(made, **more), AT, [] if notes is None else notes)


def update(unit: StoreUnit, made: int, *values: str, **said: Any) -> int:
    """Somebody is as said; the patient's number."""
    return told(unit, PatientUpdate(person(*values, **said)), made)[0]


def held(unit: StoreUnit, value: str) -> Patient:
    """The one patient with this identifier."""
    (found,) = unit.patients([key(value)])
    return found


def kinds(refused: Any) -> list[tuple[str, str]]:
    """Kind and place of each refusal that `pytest.raises` caught."""
    return [(refusal.kind, refusal.where) for refusal in refused.value.refusals]


class _Undo(Exception):  # noqa: N818
    def __init__(self, result: Any) -> None:
        self.result = result


def tried(store: Store, use_case: Callable[[StoreUnit], T]) -> T:
    """What the job gives; whatever it writes is taken back."""

    def run(unit: StoreUnit) -> None:
        raise _Undo(use_case(unit))

    try:
        store.write(run).result(timeout=10)
    except _Undo as undo:
        result: T = undo.result
        return result
    raise AssertionError("the job did not end")
