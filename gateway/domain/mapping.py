"""The mapping engine: a compiled rule set applied to a document gives events, or every reason why not.

It groups what the entries say into orders, requested procedures and steps by their keys (never by position, so a feed
may put its keys where it likes), evaluates the rules of each level, and lets the procedure catalogue fill what is
lacking. It decides nothing about orders already held: that is `order.apply`. Tracing costs only when asked for.
"""

import hashlib
from collections import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.domain.attributes import (
    LENGTH_MAX,
    TAG,
    Attributes,
    Element,
    Level,
    code_item,
    element,
    issuer_item,
    person_name_text,
    text,
    values,
)
from gateway.domain.catalogue import Catalogue, CatalogueProcedure, CatalogueStep, Stated
from gateway.domain.converters import (
    CONVERTERS,
    DELETE,
    Assigned,
    Converter,
    Noted,
    Setting,
    Unconvertible,
    cx,
    ei,
    fit,
    identifier_text,
    part,
    scheme_designator,
    uid,
)
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import (
    OrderControl,
    OrderEvent,
    Policy,
    ProcedureInput,
    StepInput,
    removes,
)
from gateway.domain.patient import PatientInput, PatientMerge, PatientUpdate, VisitInput
from gateway.domain.problem import MappingError, Problem
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.rules import (
    Alternative,
    Condition,
    IdentitySource,
    LineOf,
    Rule,
    RuleSet,
    compile_rules,
)
from gateway.domain.source import NULL, Document, Entry, Kind, Path, Repetition, Sourced

__all__ = ["Mapping", "MappingError", "MappingResult", "Problem", "TraceEntry", "compile_mapping"]

Event = OrderEvent | PatientUpdate | PatientMerge

_FITTED = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "CS"})
_SHAPES_MAX = 256  # sets of fields that entries say; a feed has some dozens
_NOTHING_SETTLED: abc.Mapping[str, Element] = {}
_STATING = ("Modality", "ScheduledProtocolCodeSequence", "ScheduledStationAETitle")
_DERIVED_INTO_SH = ("AccessionNumber", "RequestedProcedureID")


class TraceEntry(NamedTuple):
    """Where one value came from: target, coordinates and raw text, the rule and converter that made the value.

    `subject` says of which order, procedure or step; `where` is empty for constants and made-up values.
    """

    target: str
    where: str
    raw: str
    rule: str
    converter: str
    value: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class MappingResult:
    """What a document means. With refusals there are no events: a message is all or nothing (design D11)."""

    events: tuple[Event, ...] = ()
    trace: tuple[TraceEntry, ...] = field(default=(), repr=False)
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = field(default=(), repr=False)


class Mapping:
    """A rule set ready to run. `version_id` names rules, tables and catalogue by content, so traces can be remade."""

    def __init__(self, rules: RuleSet, catalogue: Catalogue, issuers: Issuers) -> None:
        self.rules = rules
        self.catalogue = catalogue
        self.issuers = issuers
        self.name = rules.name
        self.ends = _end_rules(rules)
        self.policies = rules.policies
        # Those that refuse need coordinates, those that derive from an order number its length.
        self.policies_by_event = any(
            policy.action == "refuse" or policy.source.endswith("OrderNumberImagingServiceRequest")
            for policy in self.policies.values()
        )
        content = hashlib.sha256((rules.digest + catalogue.digest).encode()).hexdigest()
        self._keys = rules.keys
        self._spoken = lru_cache(maxsize=_SHAPES_MAX)(rules.spoken)
        self.version_id = f"{rules.name}@{rules.version or '0'}+{content[:8]}"

    def rules_for(self, entry: Entry) -> abc.Mapping[Level, tuple[Rule, ...]]:
        """The rules that an entry can make speak; a feed's entries mostly say the same fields."""
        return self._spoken(self._keys.intersection(entry.said))

    def apply(self, document: Document, *, default_issuer: str = "", trace: bool = False) -> MappingResult:
        """The events of the document, or all of its refusals. `default_issuer` is the listener's authority."""
        return _Run(self, default_issuer, [] if trace else None).result(document)


def compile_mapping(
    sources: abc.Mapping[str, abc.Mapping[str, Any]],
    name: str,
    *,
    catalogue: Catalogue | None = None,
    tables: abc.Mapping[str, abc.Mapping[str, str]] | None = None,
    issuers: Issuers | None = None,
    converters: abc.Mapping[str, Converter] | None = None,
    line_of: LineOf | None = None,
) -> Mapping:
    """The mapping `name` of these rule sets (plain data, as YAML gives it). `converters` are a site's own.

    Raises MappingError with every problem.
    """
    known = {**CONVERTERS, **(converters or {})}
    rules = compile_rules(sources, name, tables or {}, known, line_of)
    return Mapping(rules, catalogue or Catalogue(), issuers or Issuers())


class _Key(NamedTuple):
    """An identifier as it was found: which of the repetitions at a path of an entry."""

    identifier: Identifier
    assigned: Assigned
    entry: Entry
    path: Path
    at: int

    @property
    def where(self) -> str:
        return _at(self.entry.read(self.path)[self.at], self.path, 1)


class _Keys(NamedTuple):
    """The keys that one entry says."""

    placer: _Key | None
    filler: _Key | None
    accession: _Key | None
    study_instance_uid: str
    requested_procedure_id: str
    sps_id: str

    @property
    def order(self) -> tuple[str, Identifier] | None:
        """What makes two entries one order: the placer number, else the filler number."""
        if self.placer:
            return "placer", self.placer.identifier
        return ("filler", self.filler.identifier) if self.filler else None


class _Said(NamedTuple):
    entry: Entry
    keys: _Keys


class _Run:
    """One document on its way through the rules."""

    def __init__(self, mapping: Mapping, default_issuer: str, trace: list[TraceEntry] | None) -> None:
        self.rules_for = mapping.rules_for
        self.identity = mapping.rules.identity
        self.policies = mapping.policies
        self.policies_by_event = mapping.policies_by_event
        self.setting = mapping.rules.setting
        self.catalogue = mapping.catalogue
        self.issuers = mapping.issuers
        self.ends = mapping.ends
        self.default_issuer = default_issuer
        self.trace = trace
        self.subject = ""
        self.entry: Entry | None = None
        self.rules: abc.Mapping[Level, tuple[Rule, ...]] = {}
        self.filled: set[str] = set()  # what the last level got from catalogue and defaults, not from the entry
        self.refuses_lacking = True
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []

    def result(self, document: Document) -> MappingResult:
        events: list[Event] = []
        match document.kind:
            case Kind.ORDER:
                events += self._orders([_Said(entry, self._keys(entry)) for entry in document.entries])
            case Kind.PATIENT_UPDATE:
                events += [
                    PatientUpdate(self._patient(entry, complete=True), self._visit(entry)) for entry in document.entries
                ]
            case Kind.PATIENT_MERGE:
                self.refuses_lacking = False  # a merge is about identifiers; it need not describe the person
                events += [merge for entry in document.entries if (merge := self._merge(entry))]
        # One field may feed several attributes (a start: date, time, offset): what is wrong with it is told once.
        once: dict[tuple[RefusalKind, str], Refusal] = {}
        for refusal in self.refusals:
            once.setdefault((refusal.kind, refusal.where), refusal)
        refusals = tuple(once.values())
        return MappingResult(
            () if refusals else tuple(events), tuple(self.trace or ()), refusals, tuple(dict.fromkeys(self.notes))
        )

    # ---- orders ----

    def _orders(self, said: Sequence[_Said]) -> list[OrderEvent]:
        """Entries with one order number and one order control are one event."""
        groups: dict[object, list[_Said]] = {}
        order_of_study: dict[str, object] = {}
        for number, one in enumerate(said):
            keys, entry = one.keys, one.entry
            accession = keys.accession.identifier if keys.accession else None
            order = keys.order or (accession or keys.study_instance_uid or number)
            if keys.order is None and accession is None and not keys.study_instance_uid:
                self._refuse(
                    RefusalKind.MISSING_FIELD, self._place("PlacerOrderNumberImagingServiceRequest", entry),
                    "the order has neither a placer nor a filler order number, accession number or Study Instance UID",
                    "send at least one of them: it is what a later change or cancel refers to",
                )  # fmt: skip
            if keys.study_instance_uid and order_of_study.setdefault(keys.study_instance_uid, order) != order:
                self._refuse(
                    RefusalKind.DUPLICATE_KEY, self._place("PlacerOrderNumberImagingServiceRequest", entry),
                    "two orders of this message share one Study Instance UID",
                    "give each order its own, or use one order number for both",
                )  # fmt: skip
            groups.setdefault((order, entry.control, entry.order_status), []).append(one)
        return [self._order(group, number) for number, group in enumerate(groups.values(), 1)]

    def _order(self, said: Sequence[_Said], number: int) -> OrderEvent:
        entry = _joined([one.entry for one in said])
        control = entry.control or OrderControl.NW
        removing = removes(control, entry.order_status)
        self.subject = f"order {number}"
        keys = _joined_keys(said)
        placer, filler = keys.placer, keys.filler
        # A cancel needs its keys only: nothing else in it may be a reason to leave the procedure on the list.
        patient = self._patient(entry, complete=not removing)
        visit = None if removing else self._visit(entry)
        if not removing:
            self._require("PlacerOrderNumberImagingServiceRequest", placer, entry)
            self._require("FillerOrderNumberImagingServiceRequest", filler, entry)
        attributes = {} if removing else self._attributes(Level.ORDER, entry)
        self._put_key(attributes, "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence", placer)
        self._put_key(attributes, "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence", filler)
        procedures = tuple(
            self._procedure(group, control, removing, f"order {number}, procedure {n}")
            for n, group in enumerate(self._by_procedure(said), 1)
        )
        self.subject = f"order {number}"
        policies = self._policies(entry, placer, filler, procedures, removing)
        return OrderEvent(
            control,
            entry.order_status,
            placer.identifier if placer else None,
            filler.identifier if filler else None,
            patient,
            visit,
            attributes,
            procedures,
            policies,
            entry.where,
        )

    def _by_procedure(self, said: Sequence[_Said]) -> Iterable[Sequence[_Said]]:
        """Entries with one Study Instance UID are one procedure, else those with one accession number and RP ID."""
        if len(said) == 1:
            return [said]
        groups: dict[object, list[_Said]] = {}
        for one in said:
            keys = one.keys
            key: object = keys.study_instance_uid
            if not key:
                accession = keys.accession.identifier if keys.accession else None
                code = keys.requested_procedure_id or self._procedure_codes(one.entry)
                key = (accession, code)
            groups.setdefault(key, []).append(one)
        for group in groups.values():
            self._agree(group, "AccessionNumber", lambda keys: keys.accession and keys.accession.identifier)
            self._agree(group, "RequestedProcedureID", lambda keys: keys.requested_procedure_id)
        return groups.values()

    def _agree(self, group: Sequence[_Said], keyword: str, key: Callable[[_Keys], object]) -> None:
        """All entries of one procedure have the same accession number and RP ID (RAD TF-2 4.4.4.1.2)."""
        first: object = None
        for one in group:
            value = key(one.keys)
            if not value:
                continue
            first = first or value
            if value != first:
                self._refuse(
                    RefusalKind.DUPLICATE_KEY, self._place(keyword, one.entry),
                    f"entries with one Study Instance UID disagree in their {keyword}",
                    "one requested procedure has one Study Instance UID, accession number and requested procedure ID",
                )  # fmt: skip

    def _procedure(self, said: Sequence[_Said], control: OrderControl, removing: bool, subject: str) -> ProcedureInput:
        self.subject = subject
        entry = _joined([one.entry for one in said])
        keys = _joined_keys(said)
        accession = keys.accession
        steps: dict[object, list[_Said]] = {}
        for number, one in enumerate(said):
            steps.setdefault(one.keys.sps_id or number, []).append(one)
        attributes: Attributes = {}
        defaults: Attributes = {}
        if removing:
            inputs = [StepInput(str(sps_id), {}) for sps_id in steps if isinstance(sps_id, str)]
        else:
            found = self._catalogued(entry)
            attributes = self._attributes(Level.PROCEDURE, entry, found.attributes if found else None, found)
            defaults = self._defaults_of(attributes)
            if accession is not None:
                _put_issuer(attributes, "IssuerOfAccessionNumberSequence", accession.assigned)
            inputs = self._steps(list(steps.values()), found, control)
        if self.trace is not None:
            self._trace_keys(entry, keys)
        return ProcedureInput(
            keys.study_instance_uid,
            keys.requested_procedure_id,
            accession.identifier if accession else None,
            attributes,
            tuple(inputs),
            entry.procedure_where,
            defaults,
        )

    def _defaults_of(self, attributes: Attributes) -> Attributes:
        """Take out what the last level got from the catalogue or a default: it must not replace what is held."""
        return {tag: attributes.pop(tag) for tag in self.filled if tag in attributes}

    def _steps(
        self, groups: Sequence[Sequence[_Said]], found: CatalogueProcedure | None, control: OrderControl
    ) -> list[StepInput]:
        subject = self.subject
        inputs: list[StepInput] = []
        for index, group in enumerate(groups):
            entry = _joined([one.entry for one in group])
            sps_id = group[0].keys.sps_id
            planned: tuple[CatalogueStep | None, ...] = (None,)
            stated = Stated()
            settled: Attributes = {}
            if found is not None:
                stated, settled = self._stated(entry)
                fitting = found.fitting(stated)
                if not sps_id and len(groups) == 1 and fitting:
                    planned = fitting  # nobody numbered the steps, so the catalogue says how many there are
                elif len(fitting) == 1:
                    planned = fitting
                elif len(groups) == len(found.steps) and found.steps[index] in fitting:
                    planned = (found.steps[index],)
            for step in planned:
                self.subject = f"{subject}, step {len(inputs) + 1}"
                fill = step.for_stations(stated.stations) if step else None
                attributes = self._attributes(Level.STEP, entry, fill, found, settled)
                if step is not None:
                    self._end(attributes, step)
                defaults = self._defaults_of(attributes)
                if control is OrderControl.SC and not sps_id and not _is_scheduled(attributes):
                    continue  # the status of the order as a whole, not of a step of its own
                inputs.append(StepInput(sps_id, attributes, defaults))
        self.subject = subject
        return inputs

    def _stated(self, entry: Entry) -> tuple[Stated, Attributes]:
        """What an order states of a step on its own account, to choose the catalogue's steps by.

        With it come the elements that the step itself will have all the same, whatever the catalogue gives; none
        where making them told something, which has to be told of the step.
        """
        kept = self.trace, list(self.refusals), list(self.notes)
        self.trace = None
        self.filled = set()
        said: Attributes = {}
        settled: Attributes = {}
        for rule in self._rules(entry)[Level.STEP]:
            if rule.keyword in _STATING:
                made = self._element(rule, entry, None, None)
                if made is not None:
                    said[rule.tag] = made
                    if len(rule.alternatives) == 1 and rule.tag not in self.filled:
                        settled[rule.tag] = made
        if kept != (None, self.refusals, self.notes):
            settled = {}
        self.trace, self.refusals, self.notes = kept
        codes = (
            text(item, "CodeValue") or text(item, "LongCodeValue")
            for item in values(said, "ScheduledProtocolCodeSequence")
        )
        stations = frozenset(values(said, "ScheduledStationAETitle"))
        return Stated(text(said, "Modality"), frozenset(filter(None, codes)), stations), settled

    def _end(self, attributes: Attributes, step: CatalogueStep) -> None:
        """The end of a step from its start and the catalogue's duration, where a rule asks for it."""
        if not step.duration_min or not self.ends or not _is_scheduled(attributes):
            return
        day = text(attributes, "ScheduledProcedureStepStartDate")
        at = text(attributes, "ScheduledProcedureStepStartTime")
        for rule, value in zip(self.ends, _later(day, at, step.duration_min), strict=True):
            if rule.tag not in attributes:
                attributes[rule.tag] = {"vr": rule.vr, "Value": [value]}
                self._traced(rule.target, rule.origin, "", "", "missing: catalogue", value)

    def _catalogued(self, entry: Entry) -> CatalogueProcedure | None:
        for code, scheme in self._procedure_codes(entry):
            found = self.catalogue.find(code, scheme)
            if found is not None:
                return found
        return None

    def _procedure_codes(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """The (code, scheme) pairs that an entry orders by, in the order of the rule set's paths."""
        codes: list[tuple[str, str]] = []
        for path in self.identity["ProcedureCode"].paths:
            for repetition in entry.repetitions(path):
                code = part(repetition, 1)
                if code:
                    scheme = part(repetition, 3)
                    try:
                        codes.append((code, scheme_designator(scheme, self.setting) if scheme else ""))
                    except Unconvertible:
                        codes.append((code, ""))
        return tuple(codes)

    # ---- patients and visits ----

    def _patient(self, entry: Entry, complete: bool) -> PatientInput:
        """The patient of an entry; not `complete` means identifiers only."""
        source = self.identity["PatientID"]
        found = self._identifiers(source, entry, cx, "PatientID")
        if not found:
            place = self._place("PatientID", entry)
            nulled = any(_is_null(repetition) for path in source.paths for repetition in entry.repetitions(path))
            self._refuse(
                RefusalKind.MISSING_VALUE if nulled else RefusalKind.MISSING_FIELD, place,
                "there is no patient identifier", "send the patient's identifier with its assigning authority",
            )  # fmt: skip
            return PatientInput((), {})
        if source.prefer:
            preferred = self.issuers.resolve(source.prefer, source.prefer)
            found.sort(key=lambda key: key.identifier.issuer != preferred)  # stable: the first of the preferred wins
        attributes = self._attributes(Level.PATIENT, entry) if complete else {}
        attributes |= _patient_id_item(found[0].assigned, self.setting)
        if len(found) > 1:
            others = [_patient_id_item(key.assigned, self.setting) for key in found[1:]]
            attributes[TAG["OtherPatientIDsSequence"]] = element("OtherPatientIDsSequence", *others)
        if self.trace is not None:
            for number, key in enumerate(found):
                target = "PatientID" if number == 0 else "OtherPatientIDsSequence.PatientID"
                self._traced(target, source.origin, key.where, key.assigned.value, "cx", key.assigned.value)
        return PatientInput(tuple(key.identifier for key in found), attributes)

    def _visit(self, entry: Entry) -> VisitInput | None:
        source = self.identity["AdmissionID"]
        number = _first(self._identifiers(source, entry, cx, "AdmissionID"))
        attributes = self._attributes(Level.VISIT, entry)
        self._require("AdmissionID", number, entry)
        if number is None and not attributes:
            return None
        self._put_key(attributes, "AdmissionID", "IssuerOfAdmissionIDSequence", number)
        return VisitInput(number.identifier if number else None, attributes)

    def _merge(self, entry: Entry) -> PatientMerge | None:
        """One pair of surviving and prior identifiers; what both lists share is not taken away (A40)."""
        surviving = self._patient(entry, complete=True)
        source = self.identity["PriorPatientID"]
        prior = self._identifiers(source, entry, cx, "PatientID")
        place = self._place("PriorPatientID", entry)
        if not prior:
            self._refuse(RefusalKind.MISSING_FIELD, place, "there is no prior patient identifier", "send MRG-1")
            return None
        gone = tuple(key.identifier for key in prior if key.identifier not in surviving.identifiers)
        if not gone:
            self._refuse(
                RefusalKind.DUPLICATE_KEY, place, "the prior identifier is the surviving one",
                "send the identifier that stays in PID-3 and the one that goes in MRG-1",
            )  # fmt: skip
            return None
        for key in prior:
            self._traced("PriorPatientID", source.origin, key.where, key.assigned.value, "cx", key.assigned.value)
        return PatientMerge(surviving, gone)

    # ---- keys ----

    def _keys(self, entry: Entry) -> _Keys:
        def first(keyword: str) -> _Key | None:
            return _first(self._identifiers(self.identity[keyword], entry, ei, keyword))

        return _Keys(
            first("PlacerOrderNumberImagingServiceRequest"),
            first("FillerOrderNumberImagingServiceRequest"),
            first("AccessionNumber"),
            self._plain_key("StudyInstanceUID", entry),
            self._plain_key("RequestedProcedureID", entry),
            self._plain_key("ScheduledProcedureStepID", entry),
        )

    def _identifiers(
        self, source: IdentitySource, entry: Entry, parse: Callable[..., Assigned], keyword: str
    ) -> list[_Key]:
        """The distinct identifiers at the first path that has any."""
        limit = LENGTH_MAX[_VR[keyword]]
        found: list[_Key] = []
        for path in source.paths:
            for index, repetition in enumerate(entry.repetitions(path)):
                assigned = parse(repetition)
                if not assigned.value:
                    continue
                try:
                    value = identifier_text(assigned.value, limit)
                except Unconvertible as problem:
                    where = _at(entry.read(path)[index], path, 1)
                    self._refuse(problem.kind, where, f"{keyword}: {problem.text}", problem.hint)
                    continue
                issuer = self.issuers.resolve(assigned.namespace, assigned.universal_id, self.default_issuer)
                identifier = Identifier(value, issuer)
                if not found or all(key.identifier != identifier for key in found):
                    found.append(_Key(identifier, assigned, entry, path, index))
            if found:
                break
        return found

    def _plain_key(self, keyword: str, entry: Entry) -> str:
        vr = _VR[keyword]
        for path in self.identity[keyword].paths:
            for index, repetition in enumerate(entry.repetitions(path)):
                value = part(repetition, 1)
                if not value:
                    continue
                try:
                    if vr == "UI":
                        uid(repetition, self.setting)
                        return value
                    return identifier_text(value, LENGTH_MAX[vr])
                except Unconvertible as problem:
                    where = _at(entry.read(path)[index], path, 1)
                    self._refuse(problem.kind, where, f"{keyword}: {problem.text}", problem.hint)
                    return ""
        return ""

    def _require(self, keyword: str, key: _Key | None, entry: Entry) -> None:
        if key is None and self.identity[keyword].refuse:
            self._refuse(
                RefusalKind.MISSING_FIELD, self._place(keyword, entry), f"there is no {keyword}",
                "send it, or change `missing:` in the mapping",
            )  # fmt: skip

    def _put_key(self, attributes: Attributes, keyword: str, issuer_keyword: str, key: _Key | None) -> None:
        if key is None:
            source = self.identity[keyword]
            return self._traced(keyword, source.origin, "", "", "missing: omit", "") if source.paths else None
        attributes[TAG[keyword]] = element(keyword, key.identifier.value)
        _put_issuer(attributes, issuer_keyword, key.assigned)
        if self.trace is not None:
            said, origin = key.assigned.value, self.identity[keyword].origin
            self._traced(keyword, origin, key.where, said, "identifier", key.identifier.value)
        return None

    def _policies(
        self,
        entry: Entry,
        placer: _Key | None,
        filler: _Key | None,
        procedures: Sequence[ProcedureInput],
        removing: bool,
    ) -> abc.Mapping[str, Policy]:
        """The missing policies of the rule set, with coordinates for those that refuse."""
        if not self.policies_by_event:
            return self.policies
        policies = dict(self.policies)
        for keyword, policy in self.policies.items():
            if policy.action == "refuse":
                policies[keyword] = Policy("refuse", where=self._place(keyword, entry))
            source = {
                "PlacerOrderNumberImagingServiceRequest": placer,
                "FillerOrderNumberImagingServiceRequest": filler,
            }.get(policy.source)
            if removing or source is None or keyword not in _DERIVED_INTO_SH:
                continue
            held = [p.accession if keyword == "AccessionNumber" else p.requested_procedure_id for p in procedures]
            if not all(held) and len(source.identifier.value) > LENGTH_MAX["SH"]:
                self._refuse(
                    RefusalKind.TOO_LONG, source.where,
                    f"{keyword} is derived from this number and may have 16 characters",
                    f"send {keyword}, or let the mapping generate it",
                )  # fmt: skip
        return policies

    def _trace_keys(self, entry: Entry, keys: _Keys) -> None:
        """Trace lines for the keys of a procedure, and for the policy of those that are lacking."""
        said = {
            "AccessionNumber": keys.accession.identifier.value if keys.accession else "",
            "StudyInstanceUID": keys.study_instance_uid,
            "RequestedProcedureID": keys.requested_procedure_id,
        }
        for keyword, value in said.items():
            source = self.identity[keyword]
            if value:
                self._traced(keyword, source.origin, self._place(keyword, entry), value, "identifier", value)
            else:
                policy = self.policies.get(keyword)
                named = f"{policy.action} {policy.source}".strip() if policy else "omit"
                self._traced(keyword, source.origin, "", "", f"missing: {named}", "")

    def _place(self, keyword: str, entry: Entry) -> str:
        """Where a key would be: at the first of its paths whose segment is there."""
        paths = self.identity[keyword].paths
        return next((place for path in paths if (place := entry.place(path))), str(paths[-1]) if paths else entry.where)

    # ---- rules ----

    def _rules(self, entry: Entry) -> abc.Mapping[Level, tuple[Rule, ...]]:
        if entry is not self.entry:  # one entry is asked at several levels in turn
            self.entry, self.rules = entry, self.rules_for(entry)
        return self.rules

    def _attributes(
        self,
        level: Level,
        entry: Entry,
        fill: Attributes | None = None,
        found: CatalogueProcedure | None = None,
        settled: abc.Mapping[str, Element] = _NOTHING_SETTLED,
    ) -> Attributes:
        attributes: Attributes = {}
        self.filled = set()
        for rule in self._rules(entry)[level]:
            made = settled.get(rule.tag) or self._element(rule, entry, fill, found)
            if made is not None:
                attributes[rule.tag] = made
        return attributes

    def _element(
        self, rule: Rule, entry: Entry, fill: Attributes | None, found: CatalogueProcedure | None
    ) -> Element | None:
        """What one rule makes of an entry: a value, a zero-length element (deleted), or None (silence)."""
        for way in rule.alternatives:
            if way.when and not _holds(entry, way.when):
                continue
            if way.constant:
                self._traced(rule.target, rule.origin, "", "", "value", way.constant)
                return {"vr": rule.vr, "Value": list(way.constant)}
            deleted: Sourced | None = None
            for path, setting in way.paths:
                said = entry.repetitions(path)
                if not said:
                    continue
                if way.simple and len(said) == 1 and self.trace is None:
                    made = _simply_converted(rule, way, said[0], setting)
                    if made:
                        return {"vr": rule.vr, "Value": made}
                    if made is not None:
                        continue
                read: Sequence[Sourced] = entry.read(path)
                if way.select:
                    read = [sourced for sourced in read if _selected(entry, sourced, way.select)]
                try:
                    made, deleting = self._converted(rule, way, path, setting, read, entry)
                except Unconvertible:
                    return None  # already refused, with its place
                if made:
                    return {"vr": rule.vr, "Value": made}
                deleted = deleted or deleting
            if deleted is not None:
                return self._deleted(rule, deleted)
            if way.missing == "catalogue" and fill is not None and rule.tag in fill and found is not None:
                given = fill[rule.tag]
                self.filled.add(rule.tag)
                self._traced(
                    rule.target, f"procedure catalogue: {found.code}", "", "", "missing: catalogue", given["Value"]
                )
                return given
            if way.missing == "default":
                self.filled.add(rule.tag)
                self._traced(rule.target, rule.origin, "", "", "missing: default", way.default)
                return {"vr": rule.vr, "Value": list(way.default)}
            if way.missing == "refuse" and self.refuses_lacking:
                self._lacking(rule, way, entry)
        return None

    def _converted(
        self, rule: Rule, way: Alternative, path: Path, setting: Setting, read: Sequence[Sourced], entry: Entry
    ) -> tuple[list[Any], Sourced | None]:
        """The values of what was read, and the first repetition that deletes. Raises Unconvertible once refused."""
        if way.converter.joint:
            return self._converted_together(rule, way, path, setting, read)
        convert, first = way.converter.function, way.repeat == "first"
        fits = way.repeat != "join" and rule.vr in _FITTED
        made: list[Any] = []
        sources: list[Sourced] = []
        deleting: Sourced | None = None
        for sourced in read:
            repetition = sourced.repetition
            if repetition[0][0] == NULL and _is_null(repetition):
                deleting = deleting or sourced
                continue
            if way.beside is not None:
                units = entry.beside(sourced.origin, way.beside)
                setting = setting._replace(unit=part(units[0].repetition, 1) if units else "")
            try:
                value = convert(repetition, setting)
                if fits and type(value) is str:
                    value = fit(value, rule.vr, way.cut)
            except Unconvertible as problem:
                self._unusable(rule, path, sourced, problem)
                raise
            if type(value) is Noted:
                value = self._noted(rule, path, sourced, value)
            if value is DELETE:
                deleting = deleting or sourced
            elif value is not None and value not in made:
                made.append(value)
                sources.append(sourced)
                if first:
                    break
        if not made:
            return made, deleting
        if way.repeat == "join":
            made = self._joined_text(rule, way, path, made, sources)
        if self.trace is not None:
            for value, sourced in zip(made, sources, strict=False):
                raw = sources if way.repeat == "join" else [sourced]
                self._traced(rule.target, rule.origin, _at(sourced, path, 0), raw, way.label, value)
        return made, None

    def _converted_together(
        self, rule: Rule, way: Alternative, path: Path, setting: Setting, read: Sequence[Sourced]
    ) -> tuple[list[Any], Sourced | None]:
        """As `_converted`, for a converter that looks at all repetitions at once."""
        kept = [sourced for sourced in read if not _is_null(sourced.repetition)]
        if not kept:
            return [], read[0] if read else None
        try:
            made = way.converter.function([sourced.repetition for sourced in kept], setting)
        except Unconvertible as problem:
            self._unusable(rule, path, kept[0], problem)
            raise
        if self.trace is not None:
            for value in made:
                self._traced(rule.target, rule.origin, _at(kept[0], path, 0), kept, way.label, value)
        return list(made), None

    def _joined_text(
        self, rule: Rule, way: Alternative, path: Path, made: Sequence[str], sources: Sequence[Sourced]
    ) -> list[Any]:
        separator = "\n" if rule.vr in ("LT", "ST", "UT") else "; "
        try:
            value = fit(separator.join(made), rule.vr, way.cut)
        except Unconvertible as problem:
            self._unusable(rule, path, sources[0], problem)
            raise
        if type(value) is Noted:
            value = self._noted(rule, path, sources[0], value)
        return [] if value is None else [value]

    def _unusable(self, rule: Rule, path: Path, sourced: Sourced, problem: Unconvertible) -> None:
        where = _at(sourced, path, problem.component)
        self._refuse(problem.kind, where, f"{rule.keyword}: {problem.text}", problem.hint)

    def _noted(self, rule: Rule, path: Path, sourced: Sourced, noted: Noted) -> Any:
        self.notes.append(f"{_at(sourced, path, 0)}: {rule.keyword}: {noted.note}")
        return noted.value

    def _deleted(self, rule: Rule, sourced: Sourced) -> Element | None:
        if rule.type_1:
            self._refuse(
                RefusalKind.MISSING_VALUE, sourced.where, f"{rule.keyword} cannot be deleted: a worklist item needs it",
                "send a value, or leave the field empty to keep the one held",
            )  # fmt: skip
            return None
        self._traced(rule.target, rule.origin, sourced.where, [sourced], "delete", "")
        return {"vr": rule.vr}

    def _lacking(self, rule: Rule, way: Alternative, entry: Entry) -> None:
        paths = [path for path, _ in way.paths]
        place = next(
            (found for path in paths if (found := entry.place(path))), str(paths[-1]) if paths else entry.where
        )
        text = f"{rule.keyword} is not in the message, and its rule says to refuse"
        self._refuse(RefusalKind.MISSING_FIELD, place, text, "send it, or change `missing:` in the mapping")

    # ---- telling ----

    def _refuse(self, kind: RefusalKind, where: str, text: str, hint: str = "") -> None:
        self.refusals.append(Refusal(kind, where, text, hint))

    def _traced(self, target: str, rule: str, where: str, raw: Any, converter: str, value: Any) -> None:
        if self.trace is not None:
            self.trace.append(TraceEntry(target, where, _plain(raw), rule, converter, _plain(value), self.subject))


_VR = {
    "PatientID": "LO",
    "AdmissionID": "LO",
    "PlacerOrderNumberImagingServiceRequest": "LO",
    "FillerOrderNumberImagingServiceRequest": "LO",
    "AccessionNumber": "SH",
    "StudyInstanceUID": "UI",
    "RequestedProcedureID": "SH",
    "ScheduledProcedureStepID": "SH",
}


def _end_rules(rules: RuleSet) -> tuple[Rule, ...]:
    """The rules for end date and end time, in this order, if both ask the catalogue."""
    asking = {
        rule.keyword: rule
        for rule in rules.rules[Level.STEP]
        if any(way.missing == "catalogue" for way in rule.alternatives)
    }
    ends = [asking.get(keyword) for keyword in ("ScheduledProcedureStepEndDate", "ScheduledProcedureStepEndTime")]
    return tuple(rule for rule in ends if rule) if all(ends) else ()


def _joined(entries: Sequence[Entry]) -> Entry:
    return entries[0] if len(entries) == 1 else entries[0].joined(entries[1:])


def _simply_converted(rule: Rule, way: Alternative, repetition: Repetition, setting: Setting) -> list[Any] | None:
    """The values of a field that does not repeat, as nearly all; None where there is something to tell or delete.

    It spares the usual field everything that only a refusal, a note, a deletion or a trace needs.
    """
    if repetition[0][0] == NULL:
        return None
    try:
        if way.converter.joint:
            return list(way.converter.function((repetition,), setting))
        value = way.converter.function(repetition, setting)
        if type(value) is str and rule.vr in _FITTED:
            value = fit(value, rule.vr, way.cut)
    except Unconvertible:
        return None
    if value is None:
        return []
    return None if value is DELETE or type(value) is Noted else [value]


def _joined_keys(said: Sequence[_Said]) -> _Keys:
    """Of each key the first that any of them says."""
    if len(said) == 1:
        return said[0].keys
    columns = zip(*(one.keys for one in said), strict=True)
    return _Keys(*(next(filter(None, column), column[0]) for column in columns))


def _first(keys: Sequence[_Key]) -> _Key | None:
    return keys[0] if keys else None


def _at(sourced: Sourced, path: Path, component: int) -> str:
    """Coordinates of a component counted from where reading began; the repetition itself for 0."""
    if not path.component:
        return f"{sourced.where}.{component}" if component else sourced.where
    place = f"{sourced.where}.{path.component + max(component, 1) - 1}"
    return f"{place}.{path.subcomponent}" if path.subcomponent else place


def _is_null(repetition: Repetition) -> bool:
    return repetition[0][0] == NULL and not any(any(parts) for parts in repetition[1:])


def _holds(entry: Entry, conditions: Iterable[Condition]) -> bool:
    return all(_matches(entry.repetitions(path), wanted) for path, wanted in conditions)


def _selected(entry: Entry, sourced: Sourced, conditions: Iterable[Condition]) -> bool:
    """Whether the segment of a value has one of the texts at one of the paths."""
    return any(
        _matches([found.repetition for found in entry.beside(sourced.origin, path)], wanted)
        for path, wanted in conditions
    )


def _matches(repetitions: Sequence[Repetition], wanted: frozenset[str]) -> bool:
    said = [found.casefold() for repetition in repetitions if (found := part(repetition, 1))]
    return any(found in wanted for found in said) or (bool(said) and "*" in wanted) or (not said and "" in wanted)


def _is_scheduled(attributes: Attributes) -> bool:
    return bool(
        text(attributes, "ScheduledProcedureStepStartDate") and text(attributes, "ScheduledProcedureStepStartTime")
    )


def _later(day: str, at: str, minutes: int) -> tuple[str, str]:
    """The day (DA) and time (TM) so many minutes later, by the wall clock, without a zone (D13)."""
    days, minute = divmod(int(at[:2]) * 60 + int(at[2:4]) + minutes, _MINUTES_A_DAY)
    if days:
        day = (date(int(day[:4]), int(day[4:6]), int(day[6:8])) + timedelta(days)).isoformat().replace("-", "")
    return day, f"{minute // 60:02}{minute % 60:02}{at[4:6]}"


_MINUTES_A_DAY = 1440


def _put_issuer(attributes: Attributes, keyword: str, assigned: Assigned) -> None:
    """An issuer sequence of what was sent; nothing where no authority was (an empty one says nothing)."""
    item = issuer_item(assigned.namespace, assigned.universal_id, _universal_id_type(assigned))
    if item:
        attributes[TAG[keyword]] = element(keyword, item)


def _universal_id_type(assigned: Assigned) -> str:
    if assigned.universal_id_type or not assigned.universal_id:
        return assigned.universal_id_type.upper()
    return "ISO" if assigned.universal_id.replace(".", "").isdigit() else ""


def _patient_id_item(assigned: Assigned, setting: Setting) -> Attributes:
    """PatientID with its issuer attributes (PS3.3 table 10-18): of the patient, or an item of other patient IDs."""
    item: Attributes = {
        TAG["PatientID"]: element("PatientID", assigned.value),
        TAG["TypeOfPatientID"]: element("TypeOfPatientID", "TEXT"),
    }
    if assigned.namespace:
        item[TAG["IssuerOfPatientID"]] = element("IssuerOfPatientID", assigned.namespace[: LENGTH_MAX["LO"]])
    qualifiers = issuer_item("", assigned.universal_id, _universal_id_type(assigned))
    if assigned.type_code.isascii() and assigned.type_code.isalnum() and len(assigned.type_code) <= LENGTH_MAX["CS"]:
        qualifiers[TAG["IdentifierTypeCode"]] = element("IdentifierTypeCode", assigned.type_code.upper())
    facility = issuer_item(*assigned.facility)
    if facility:
        qualifiers[TAG["AssigningFacilitySequence"]] = element("AssigningFacilitySequence", facility)
    for keyword, coded in (
        ("AssigningJurisdictionCodeSequence", assigned.jurisdiction),
        ("AssigningAgencyOrDepartmentCodeSequence", assigned.agency),
    ):
        if coded and part(coded, 1):
            scheme = part(coded, 3) or setting.scheme
            qualifiers[TAG[keyword]] = element(keyword, code_item(part(coded, 1), scheme[:16], part(coded, 2)))
    if qualifiers:
        keyword = "IssuerOfPatientIDQualifiersSequence"
        item[TAG[keyword]] = element(keyword, qualifiers)
    return item


def _plain(value: Any) -> str:
    """A value or what was read, as people write it."""
    if isinstance(value, list | tuple) and not isinstance(value, Sourced):
        return "\\".join(_plain(one) for one in value)
    if isinstance(value, Sourced):
        return "^".join("&".join(parts) for parts in value.repetition)
    if isinstance(value, dict):
        if TAG["CodeMeaning"] in value:
            code = text(value, "CodeValue") or text(value, "LongCodeValue") or text(value, "URNCodeValue")
            return f"{code}^{text(value, 'CodeMeaning')}^{text(value, 'CodingSchemeDesignator')}"
        if any(group in value for group in ("Alphabetic", "Ideographic", "Phonetic")):
            return person_name_text(value)
        return " ".join(_plain(found.get("Value", "")) for found in value.values())
    return str(value)
