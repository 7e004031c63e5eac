"""A mapping result as people read it: keywords instead of tags, plain values. For golden cases and explanations."""

from collections.abc import Iterator
from typing import Any

from gateway.domain.attributes import BY_TAG, Attributes, Element, person_name_text
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping import MappingResult
from gateway.domain.order import OrderEvent, ProcedureInput
from gateway.domain.patient import (
    IdentifierChange,
    PatientEvent,
    PatientInput,
    PatientLink,
    PatientMerge,
    PatientUpdate,
    VisitChange,
    VisitInput,
    VisitMove,
)
from gateway.domain.refusal import Refusal

Readable = dict[str, Any]


def transcript(result: MappingResult) -> Readable:
    """Events or refusals, and notes; parts that are empty are left out. Plain JSON values only."""
    told: Readable = {}
    if result.events:
        told["events"] = [_event(event) for event in result.events]
    if result.refusals:
        told |= refused(result.refusals)
    if result.notes:
        told["notes"] = list(result.notes)
    return told


def refused(refusals: tuple[Refusal, ...]) -> Readable:
    """Refusals by kind and place; their wording may change without breaking a golden case."""
    return {"refusals": [{"kind": str(refusal.kind), "where": refusal.where} for refusal in refusals]}


def readable(attributes: Attributes) -> Readable:
    """Attributes by keyword. One value stands alone, several are a list, a zero-length element is null."""
    return {_keyword(tag): _values(element) for tag, element in attributes.items()}


def _keyword(tag: str) -> str:
    return BY_TAG[tag].keyword if tag in BY_TAG else tag


def _values(element: Element) -> Any:
    values = element.get("Value") or []
    if element["vr"] == "SQ":
        return [readable(item) for item in values]
    plain = [person_name_text(value) if isinstance(value, dict) else value for value in values]
    return plain[0] if len(plain) == 1 else plain or None


def _event(event: OrderEvent | PatientEvent) -> Readable:
    match event:
        case OrderEvent():
            return _present({
                "order": str(event.control),
                "status": event.order_status,
                "where": event.where,
                "placer": _identifier(event.placer),
                "filler": _identifier(event.filler),
                "patient": _patient(event.patient),
                "visit": _visit(event.visit),
                "attributes": readable(event.attributes),
                "procedures": [_procedure(procedure) for procedure in event.procedures],
            })  # fmt: skip
        case PatientUpdate():
            change = "" if event.change is VisitChange.UPDATE else str(event.change)
            return _present({
                "patient update": _patient(event.patient), "visit change": change, "visit": _visit(event.visit)
            })  # fmt: skip
        case PatientMerge():
            return {
                "patient merge": _patient(event.surviving),
                "prior": [_identifier(identifier) for identifier in event.prior],
            }
        case IdentifierChange():
            return {
                "identifier change": _patient(event.patient),
                "prior": [_identifier(identifier) for identifier in event.prior],
            }
        case VisitMove():
            return _present({
                "visit move": _patient(event.patient),
                "prior": [_identifier(identifier) for identifier in event.prior],
                "visits": [_identifier(identifier) for identifier in event.visits],
                "visit": _visit(event.visit),
            })  # fmt: skip
        case PatientLink():
            link = "patient link" if event.linked else "patient unlink"
            return {link: _patient(event.one), "other": _patient(event.other)}


def _present(told: Readable) -> Readable:
    return {key: value for key, value in told.items() if value not in (None, "", {}, [])}


def _identifier(identifier: Identifier | None) -> str | None:
    """`100 of HOSPA`; the value alone where nobody said who issued it."""
    if identifier is None:
        return None
    return f"{identifier.value} of {identifier.issuer}" if identifier.issuer else identifier.value


def _patient(patient: PatientInput) -> Readable:
    return {
        "identifiers": [_identifier(identifier) for identifier in patient.identifiers],
        **readable(patient.attributes),
    }


def _visit(visit: VisitInput | None) -> Readable | None:
    return _present({"number": _identifier(visit.number), **readable(visit.attributes)}) if visit else None


def _procedure(procedure: ProcedureInput) -> Readable:
    return _present({
        "StudyInstanceUID": procedure.study_instance_uid,
        "RequestedProcedureID": procedure.requested_procedure_id,
        "AccessionNumber": _identifier(procedure.accession),
        "where": procedure.where,
        "attributes": readable({**procedure.defaults, **procedure.attributes}),
        "steps": [
            _present({"ScheduledProcedureStepID": step.sps_id, **readable({**step.defaults, **step.attributes})})
            for step in procedure.steps
        ],
    })  # fmt: skip


def differences(expected: Any, got: Any, at: str = "") -> Iterator[str]:
    """Where two transcripts differ, one line each: `events[0].patient.PatientSex: expected F, got M`."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in dict.fromkeys((*expected, *got)):
            yield from differences(expected.get(key), got.get(key), f"{at}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list):
        for index in range(max(len(expected), len(got))):
            before = expected[index] if index < len(expected) else None
            after = got[index] if index < len(got) else None
            yield from differences(before, after, f"{at}[{index}]")
    elif expected != got:
        yield f"{at}: expected {expected!r}, got {got!r}"
