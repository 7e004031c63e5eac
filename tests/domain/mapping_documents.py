"""Documents for the mapping engine without any HL7: entries given as {field: text with ^, & and ~}."""

from collections.abc import Sequence
from typing import Any

from gateway.domain.mapping import Mapping, MappingResult, compile_mapping
from gateway.domain.order import OrderControl, OrderEvent
from gateway.domain.patient import VisitChange
from gateway.domain.source import Kind, Path, Repetition, Sourced

STEP = "ScheduledProcedureStepSequence."
IDENTITY: dict[str, Any] = {
    "PatientID": "PID-3",
    "PlacerOrderNumberImagingServiceRequest": "ORC-2",
    "AccessionNumber": "OBR-18",
    "ProcedureCode": "OBR-4",
}


class PlainEntry:
    """An entry of fields; the null and the empty repetition are as in HL7."""

    control = OrderControl.NW
    order_status = ""
    where = procedure_where = "entry"

    def __init__(self, **fields: str) -> None:
        self.fields = {key.replace("_", "-"): text for key, text in fields.items()}

    def spoken(self, keys: frozenset[str]) -> frozenset[str]:
        return keys.intersection(self.fields)

    def says(self, path: Path) -> bool:
        return path.key in self.fields

    def repetitions(self, path: Path) -> Sequence[Repetition]:
        return [sourced.repetition for sourced in self.read(path)]

    def read(self, path: Path) -> Sequence[Sourced]:
        found = []
        for number, one in enumerate(self.fields.get(path.key, "").split("~"), 1):
            repetition: Repetition = tuple(tuple(part.split("&")) for part in one.split("^"))
            repetition = repetition[max(path.component - 1, 0) :]
            if repetition and any(map(any, repetition)):
                found.append(Sourced(path.key if number == 1 else f"{path.key}({number})", repetition, path.segment))
        return found

    def beside(self, origin: object, path: Path) -> Sequence[Sourced]:
        return self.read(path)

    def place(self, path: Path) -> str:
        return str(path)

    def joined(self, others: "Sequence[PlainEntry]") -> "PlainEntry":
        return self


class PlainDocument:
    """One order."""

    kind = Kind.ORDER
    visit_change = VisitChange.UPDATE
    notes: Sequence[str] = ()

    def __init__(self, **fields: str) -> None:
        self.entries = (PlainEntry(**{"PID_3": "100", "ORC_2": "P1"} | fields),)


def mapping(rules: dict[str, Any], identity: dict[str, Any] | None = None, **how: Any) -> Mapping:
    more = how.pop("more", {})
    source = {"name": "site", "version": "1", "identity": IDENTITY | (identity or {}), "rules": rules, **more}
    return compile_mapping({"site": source}, "site", **how)


def result(
    rules: dict[str, Any], identity: dict[str, Any] | None = None, zone: Any = None, **given: Any
) -> MappingResult:
    fields = {key: given.pop(key) for key in list(given) if key[:3].isupper()}
    return mapping(rules, identity, **given).apply(PlainDocument(**fields), zone=zone, trace=True)


def event(found: MappingResult) -> OrderEvent:
    assert not found.refusals
    (one,) = found.events
    assert isinstance(one, OrderEvent)
    return one
