"""The mapping engine: a compiled rule set applied to a document gives events, or every reason why not.

Reading values is `mapping_reading`, what they mean is `mapping_orders` and `mapping_patients`. Nothing here decides
about orders already held: that is `order_change`.
"""

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from gateway.domain.catalogue import Catalogue
from gateway.domain.codes import Translation
from gateway.domain.converters import CONVERTERS, Converter
from gateway.domain.edits import SiteFunction
from gateway.domain.identifiers import Issuers
from gateway.domain.mapping_orders import appointments, orders
from gateway.domain.mapping_patients import change_of, link_of, merge_of, move_of, patient_of, visit_of
from gateway.domain.mapping_reading import Reading, RuleBook
from gateway.domain.mapping_trace import TraceEntry
from gateway.domain.order import OrderEvent
from gateway.domain.path_readers import PathReader
from gateway.domain.patient import PatientEvent, PatientUpdate
from gateway.domain.problem import MappingError, Problem
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.rule_checks import Library, LineOf
from gateway.domain.rule_compiler import compile_rules
from gateway.domain.source import Document, Entry, Kind
from gateway.domain.stations import Stations

__all__ = ["Mapping", "MappingError", "MappingResult", "Problem", "TraceEntry", "compile_mapping"]

Event = OrderEvent | PatientEvent


@dataclass(frozen=True, slots=True)
class MappingResult:
    """What a document means. With refusals there are no events: a message is all or nothing (design D11)."""

    events: tuple[Event, ...] = ()
    trace: tuple[TraceEntry, ...] = field(default=(), repr=False)
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = field(default=(), repr=False)


class Mapping(RuleBook):
    """A rule set that documents can be put to."""

    def apply(
        self, document: Document, *, default_issuer: str = "", zone: tzinfo | None = None, trace: bool = False
    ) -> MappingResult:
        """The events of the document, or all of its refusals.

        `default_issuer` is the listener's authority. Times that name another offset from UTC are converted to the wall
        clock of `zone`; without one they stay as they were sent.
        """
        book = self if zone is None else self.in_zone(zone)
        reading = Reading(book, default_issuer, [] if trace else None)
        reading.notes += document.notes
        return _result(reading, _events(reading, document))


def compile_mapping(
    sources: abc.Mapping[str, abc.Mapping[str, Any]],
    name: str,
    *,
    catalogue: Catalogue | None = None,
    tables: abc.Mapping[str, abc.Mapping[str, str]] | None = None,
    issuers: Issuers | None = None,
    converters: abc.Mapping[str, Converter] | None = None,
    line_of: LineOf | None = None,
    stations: Stations | None = None,
    translations: abc.Mapping[str, Translation] | None = None,
    functions: abc.Mapping[str, SiteFunction] | None = None,
    readers: abc.Mapping[str, PathReader] | None = None,
) -> Mapping:
    """The mapping `name` of these rule sets (plain data, as YAML gives it). `functions` are the site's own Python.

    `readers` read the paths of other languages than HL7 v2's, by what `fhir:` calls them.

    Raises MappingError with every problem.
    """
    library = Library(
        tables or {}, {**CONVERTERS, **(converters or {})}, translations or {}, functions or {}, readers or {}
    )
    rules = compile_rules(sources, name, library, line_of)
    return Mapping(rules, catalogue or Catalogue(), issuers or Issuers(), stations or Stations())


def _events(reading: Reading, document: Document) -> list[Event]:
    events: list[Event] = []
    entries = document.entries
    match document.kind:
        case Kind.ORDER | Kind.RESULT:
            events += orders(reading, entries)
        case Kind.APPOINTMENT:
            events += appointments(reading, entries)
        case Kind.PATIENT_UPDATE:
            people = [entry for entry in entries if entry.control is None]
            events += [
                PatientUpdate(
                    patient_of(reading, entry, complete=True), visit_of(reading, entry), document.visit_change
                )
                for entry in people
            ]
            events += orders(reading, [entry for entry in entries if entry.control is not None])
        case _:
            reading.refuses_lacking = False  # these are about identifiers; they need not describe the person
            events += filter(None, _identities(reading, document.kind, entries))
    return events


def _identities(reading: Reading, kind: Kind, entries: Sequence[Entry]) -> list[PatientEvent | None]:
    match kind:
        case Kind.PATIENT_MERGE:
            return [merge_of(reading, entry) for entry in entries]
        case Kind.IDENTIFIER_CHANGE:
            return [change_of(reading, entry) for entry in entries]
        case Kind.VISIT_MOVE:
            return [move_of(reading, entry) for entry in entries]
        case _:
            return [link_of(reading, entries, linked=kind is Kind.PATIENT_LINK)]


def _result(reading: Reading, events: list[Event]) -> MappingResult:
    # One field may feed several attributes (a start: date, time, offset): what is wrong with it is told once.
    once: dict[tuple[RefusalKind, str], Refusal] = {}
    for refusal in reading.refusals:
        once.setdefault((refusal.kind, refusal.where), refusal)
    refusals = tuple(once.values())
    return MappingResult(
        () if refusals else tuple(events), tuple(reading.trace or ()), refusals, tuple(dict.fromkeys(reading.notes))
    )
