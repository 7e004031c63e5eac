"""One document read by the rules: values, identifiers, what is lacking or unusable and where, and the trace of it all.

What the values mean for patients and orders is `mapping_patients` and `mapping_orders`. Tracing costs only when asked
for.
"""

import hashlib
from collections import abc
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.domain.attributes import (
    LENGTH_MAX,
    TAG,
    Attributes,
    Element,
    Level,
    element,
    text,
    values,
)
from gateway.domain.catalogue import Catalogue, CatalogueProcedure
from gateway.domain.codes import code_of
from gateway.domain.converters import (
    DELETE,
    Assigned,
    Noted,
    Setting,
    Unconvertible,
    cx,
    ei,
    fit,
    identifier_text,
    part,
    uid,
)
from gateway.domain.edits import edited
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.mapping_identifiers import put_issuer
from gateway.domain.mapping_trace import TraceEntry, plain
from gateway.domain.mapping_values import FITTED, is_null, remembering
from gateway.domain.path_readers import HL7
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.rules import Alternative, IdentitySource, Rule, RuleSet, Simply
from gateway.domain.selection import any_holds, holds, selected
from gateway.domain.source import NULL, Entry, Path, Repetition, Sourced
from gateway.domain.stations import StationRow, Stations, Step

_SHAPES_MAX = 256  # sets of fields that entries say; a feed has some dozens
_NOTHING_SETTLED: abc.Mapping[str, Element] = {}


class Key(NamedTuple):
    """An identifier as it was found: which of the repetitions at a path of an entry."""

    identifier: Identifier
    assigned: Assigned
    entry: Entry
    path: Path
    at: int

    @property
    def where(self) -> str:
        return _at(self.entry.read(self.path)[self.at], self.path, 1)

    @property
    def raw(self) -> str:
        """The identifier as it was sent, before any edit."""
        return part(self.entry.read(self.path)[self.at].repetition, 1)


class Line(NamedTuple):
    """A rule as entries that say certain fields are put to it.

    `first` is where its value nearly always comes from, without any condition; `only` that there is no other path.
    """

    rule: Rule
    tag: str
    first: Simply | None
    only: bool


class RuleBook:
    """A rule set ready to run.

    `digest` names all that it is made of by content; so does `version_id`, for people, so that traces can be remade.
    """

    def __init__(self, rules: RuleSet, catalogue: Catalogue, issuers: Issuers, stations: Stations) -> None:
        self.rules = rules = remembering(rules)
        self.catalogue = catalogue
        self.issuers = issuers
        self.stations = stations
        self.name = rules.name
        self.language = rules.language
        self.ends = _end_rules(rules)
        self.policies = rules.policies
        # Those that refuse need coordinates, those that derive from an order number its length.
        self.policies_by_event = any(
            policy.action == "refuse" or policy.source.endswith("OrderNumberImagingServiceRequest")
            for policy in self.policies.values()
        )
        self.digest = hashlib.sha256((rules.digest + catalogue.digest + stations.digest).encode()).hexdigest()
        self._keys = rules.keys
        self._in_zone: dict[tzinfo, RuleBook] = {}
        self._spoken = lru_cache(maxsize=_SHAPES_MAX)(self._lines)
        self.version_id = f"{rules.name}@{rules.version or '0'}+{self.digest[:8]}"

    def in_zone(self, zone: tzinfo) -> "RuleBook":
        """The same with a department's wall clock; a gateway has few."""
        book = self._in_zone.get(zone)
        if book is None:
            book = self._in_zone[zone] = RuleBook(self.rules.in_zone(zone), self.catalogue, self.issuers, self.stations)
        return book

    def said_key(self, keyword: str, entry: Entry) -> str:
        """One key of an entry as `identity` has it, with pick and edits; '' where it is not said or cannot be used.

        `keyword` is one that names a single thing, such as ScheduledProcedureStepID or AccessionNumber.
        """
        reading = Reading(self, "", None)
        parse = _PARSED_AS.get(keyword)
        if parse is None:
            return reading.plain_key(keyword, entry)
        found = reading.identifier(keyword, entry, parse)
        return found.identifier.value if found is not None else ""

    def lines_for(self, entry: Entry) -> abc.Mapping[Level, tuple[Line, ...]]:
        """The rules that an entry can make speak; a feed's entries mostly say the same fields."""
        return self._spoken(entry.spoken(self._keys))

    def _lines(self, said: frozenset[str]) -> abc.Mapping[Level, tuple[Line, ...]]:
        return {level: tuple([_line(rule) for rule in rules]) for level, rules in self.rules.spoken(said).items()}


class Reading:
    """One document on its way through the rules."""

    def __init__(self, book: RuleBook, default_issuer: str, trace: list[TraceEntry] | None) -> None:
        self.lines_for = book.lines_for
        self.identity = book.rules.identity
        self.policies = book.policies
        self.policies_by_event = book.policies_by_event
        self.setting = book.rules.setting
        self.catalogue = book.catalogue
        self.stations = book.stations
        self.made: Attributes | None = None  # what the step whose station is asked for has so far
        self.procedure_codes: frozenset[str] = frozenset()
        self.issuers = book.issuers
        self.typed_identifiers = book.language != HL7  # FHIR has one data type for what HL7 v2 has CX and EI
        self.ends = book.ends
        self.default_issuer = default_issuer
        self.trace = trace
        self.subject = ""
        self.entry: Entry | None = None
        self.lines: abc.Mapping[Level, tuple[Line, ...]] = {}
        self.filled: set[str] = set()  # what the last level got from catalogue and defaults, not from the entry
        self.refuses_lacking = True
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []

    # ---- keys ----

    def identifiers(
        self, source: IdentitySource, entry: Entry, parse: Callable[..., Assigned], keyword: str
    ) -> list[Key]:
        """The distinct identifiers at the first path that has any."""
        limit = LENGTH_MAX[_VR[keyword]]
        found: list[Key] = []
        if self.typed_identifiers:
            parse = cx
        for path in source.paths:
            if not entry.says(path):
                continue
            for index, repetition in _counted(source, entry, path):
                try:
                    assigned = parse(edited(repetition, source.edits) if source.edits else repetition)
                    if not assigned.value:
                        continue
                    value = identifier_text(assigned.value, limit)
                except Unconvertible as problem:
                    where = _at(entry.read(path)[index], path, 1)
                    self.refuse(problem.kind, where, f"{keyword}: {problem.text}", problem.hint)
                    continue
                said = assigned.namespace, assigned.universal_id
                if assigned.universal_id and (two := self.issuers.contradiction(*said)):
                    where = _at(entry.read(path)[index], path, 4 if parse is cx else 2)
                    self.refuse(
                        RefusalKind.BAD_VALUE, where, f"{said[0]!r} is {two[0]}, {said[1]!r} is {two[1]}",
                        "send one authority, or correct `issuers` in the configuration",
                    )  # fmt: skip
                    continue
                identifier = Identifier(value, self.issuers.resolve(*said, self.default_issuer))
                if not found or all(key.identifier != identifier for key in found):
                    found.append(Key(identifier, assigned, entry, path, index))
            if found:
                break
        return found

    def identifier(self, keyword: str, entry: Entry, parse: Callable[..., Assigned]) -> Key | None:
        """The first identifier that the rule set names for this key."""
        found = self.identifiers(self.identity[keyword], entry, parse, keyword)
        return found[0] if found else None

    def plain_key(self, keyword: str, entry: Entry) -> str:
        vr = _VR[keyword]
        source = self.identity[keyword]
        for path in source.paths:
            if not entry.says(path):
                continue
            for index, repetition in _counted(source, entry, path):
                value = part(repetition, 1)
                if not value:
                    continue
                try:
                    if source.edits:
                        repetition = edited(repetition, source.edits)  # noqa: PLW2901  (it is what counts from here)
                        value = part(repetition, 1)
                    if vr == "UI":
                        return uid(repetition, self.setting) or ""
                    return identifier_text(value, LENGTH_MAX[vr])
                except Unconvertible as problem:
                    where = _at(entry.read(path)[index], path, 1)
                    self.refuse(problem.kind, where, f"{keyword}: {problem.text}", problem.hint)
                    return ""
        return ""

    def key_repetitions(self, source: IdentitySource, entry: Entry, path: Path) -> Iterable[Repetition]:
        """What a key is read from at a path, picked and edited as its source says."""
        if source.pick is None and not source.edits:
            return entry.repetitions(path)
        found: list[Repetition] = []
        for index, repetition in _counted(source, entry, path):
            try:
                found.append(edited(repetition, source.edits))
            except Unconvertible as problem:
                where = _at(entry.read(path)[index], path, 1)
                self.refuse(problem.kind, where, f"{source.keyword}: {problem.text}", problem.hint)
        return found

    def require(self, keyword: str, key: Key | None, entry: Entry) -> None:
        if key is None and self.identity[keyword].refuse:
            self.refuse(
                RefusalKind.MISSING_FIELD, self.place(keyword, entry), f"there is no {keyword}",
                "send it, or change `missing:` in the mapping",
            )  # fmt: skip

    def put_key(self, attributes: Attributes, keyword: str, issuer_keyword: str, key: Key | None) -> None:
        if key is None:
            source = self.identity[keyword]
            return self.traced(keyword, source.origin, "", "", "missing: omit", "") if source.paths else None
        attributes[TAG[keyword]] = element(keyword, key.identifier.value)
        put_issuer(attributes, issuer_keyword, key.assigned)
        if self.trace is not None:
            self.traced_key(keyword, key.entry, key.identifier.value, key)
        return None

    def traced_key(self, keyword: str, entry: Entry, value: str, key: Key | None = None) -> None:
        """A trace line for a key: where it was read, as sent and as taken."""
        source = self.identity[keyword]
        label = f"{source.label}, identifier" if source.label else "identifier"
        if key is not None:
            return self.traced(keyword, source.origin, key.where, key.raw, label, value)
        for path in source.paths:
            for index, repetition in _counted(source, entry, path):
                if part(repetition, 1):
                    where = _at(entry.read(path)[index], path, 0)
                    return self.traced(keyword, source.origin, where, part(repetition, 1), label, value)
        return None

    def place(self, keyword: str, entry: Entry) -> str:
        """Where a key would be: at the first of its paths whose segment is there."""
        paths = self.identity[keyword].paths
        return next((place for path in paths if (place := entry.place(path))), str(paths[-1]) if paths else entry.where)

    # ---- rules ----

    def lines_of(self, entry: Entry) -> abc.Mapping[Level, tuple[Line, ...]]:
        if entry is not self.entry:  # one entry is asked at several levels in turn
            self.entry, self.lines = entry, self.lines_for(entry)
        return self.lines

    def attributes(
        self,
        level: Level,
        entry: Entry,
        fill: Attributes | None = None,
        found: CatalogueProcedure | None = None,
        settled: abc.Mapping[str, Element] = _NOTHING_SETTLED,
    ) -> Attributes:
        attributes: Attributes = {}
        self.filled = set()
        self.made = attributes
        untraced, repetitions = self.trace is None, entry.repetitions
        for rule, tag, first, only in self.lines_of(entry)[level]:
            if first is not None and untraced:  # nearly always
                said = repetitions(first.field)
                if len(said) == 1:
                    try:
                        made = first.made(said[0])
                    except Unconvertible:  # to be told, by the long way
                        made = None
                    if made is not None and (only or "Value" in made):
                        attributes[tag] = made
                        continue
            made = settled.get(tag) or self.element(rule, entry, fill, found)
            if made is not None:
                attributes[tag] = made
        self.made = None
        return attributes

    def element(
        self, rule: Rule, entry: Entry, fill: Attributes | None, found: CatalogueProcedure | None
    ) -> Element | None:
        """What one rule makes of an entry: a value, a zero-length element (deleted), or None (silence)."""
        for way in rule.alternatives:
            if (way.when and not holds(entry, way.when)) or (way.unless and any_holds(entry, way.unless)):
                continue
            if way.constant:
                self.traced(rule.target, rule.origin, "", "", "value", way.constant)
                return {"vr": rule.vr, "Value": list(way.constant)}
            deleted: Sourced | None = None
            for place, (path, setting) in enumerate(way.paths):
                if way.simple and self.trace is None:
                    simply = way.simply[place]
                    said = entry.repetitions(simply.field)
                    if len(said) == 1:
                        try:
                            given = simply.made(said[0])
                        except Unconvertible:
                            pass  # to be told, by the long way
                        else:
                            if given is None:
                                continue
                            if "Value" in given or len(way.paths) == 1:
                                return given
                else:
                    said = entry.repetitions(path)
                if not said:
                    continue
                read: Sequence[Sourced]
                read = entry.read(path) if way.pick is None else [found for _, found in way.pick.of(entry, path)]
                if way.select:
                    read = [sourced for sourced in read if selected(entry, sourced, way.select)]
                try:
                    made, deleting = self._converted(rule, way, path, setting, read, entry)
                except Unconvertible:
                    return None  # already refused, with its place
                if made:
                    return {"vr": rule.vr, "Value": made}
                deleted = deleted or deleting
            if deleted is not None:
                return self._deleted(rule, deleted)
            if way.missing:
                given = self._without(rule, way, entry, fill, found)
                if given is not None:
                    return given
        return None

    def _without(
        self, rule: Rule, way: Alternative, entry: Entry, fill: Attributes | None, found: CatalogueProcedure | None
    ) -> Element | None:
        """What the missing policies of a rule give in turn; what they give must not replace what is held."""
        for policy in way.missing:
            if policy == "catalogue" and fill is not None and rule.tag in fill and found is not None:
                origin = f"procedure catalogue: {found.code}, line {found.line}"
                return self._filled(rule, origin, policy, fill[rule.tag])
            if policy == "stations":
                row = self._station(entry)
                if row is not None and rule.tag in row.attributes:
                    return self._filled(rule, str(row), policy, row.attributes[rule.tag])
            if policy == "default":
                return self._filled(rule, rule.origin, policy, {"vr": rule.vr, "Value": list(way.default)})
            if policy == "refuse" and self.refuses_lacking:
                self._lacking(rule, way, entry)
        return None

    def _filled(self, rule: Rule, origin: str, policy: str, given: Element) -> Element:
        self.filled.add(rule.tag)
        self.traced(rule.target, origin, "", "", f"missing: {policy}", given["Value"])
        return given

    def _station(self, entry: Entry) -> StationRow | None:
        """The station rule for the step that is being made; none while only what the order states is asked for."""
        if self.made is None or not self.stations.rows:
            return None
        coded = (code_of(item)[1] for item in values(self.made, "ScheduledProtocolCodeSequence"))
        named = frozenset(values(self.made, "ScheduledStationAETitle"))
        step = Step(text(self.made, "Modality"), self.procedure_codes, frozenset(coded), named)
        return self.stations.find(entry, step)

    def _converted(
        self, rule: Rule, way: Alternative, path: Path, setting: Setting, read: Sequence[Sourced], entry: Entry
    ) -> tuple[list[Any], Sourced | None]:
        """The values of what was read, and the first repetition that deletes. Raises Unconvertible once refused."""
        if way.converter.joint:
            return self._converted_together(rule, way, path, setting, read)
        convert, first = way.converter.function, way.repeat == "first"
        fits = way.repeat != "join" and rule.vr in FITTED
        made: list[Any] = []
        sources: list[Sourced] = []
        deleting: Sourced | None = None
        for sourced in read:
            repetition = sourced.repetition
            if repetition[0][0] == NULL and is_null(repetition):
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
                row = way.converter.row(sourced.repetition, setting) if way.converter.row else ""
                label = f"{way.label}, {row}" if row else way.label
                self.traced(rule.target, rule.origin, _at(sourced, path, 0), raw, label, value)
        return made, None

    def _converted_together(
        self, rule: Rule, way: Alternative, path: Path, setting: Setting, read: Sequence[Sourced]
    ) -> tuple[list[Any], Sourced | None]:
        """As `_converted`, for a converter that looks at all repetitions at once."""
        kept = [sourced for sourced in read if not is_null(sourced.repetition)]
        if not kept:
            return [], read[0] if read else None
        try:
            made = way.converter.function([sourced.repetition for sourced in kept], setting)
            if DELETE in made:
                return [], kept[0]
        except Unconvertible as problem:
            self._unusable(rule, path, kept[0], problem)
            raise
        if self.trace is not None:
            for value in made:
                self.traced(rule.target, rule.origin, _at(kept[0], path, 0), kept, way.label, value)
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
        self.refuse(problem.kind, where, f"{rule.keyword}: {problem.text}", problem.hint)

    def _noted(self, rule: Rule, path: Path, sourced: Sourced, noted: Noted) -> Any:
        self.notes.append(f"{_at(sourced, path, 0)}: {rule.keyword}: {noted.note}")
        return noted.value

    def _deleted(self, rule: Rule, sourced: Sourced) -> Element | None:
        if rule.type_1:
            self.refuse(
                RefusalKind.MISSING_VALUE, sourced.where, f"{rule.keyword} cannot be deleted: a worklist item needs it",
                "send a value, or leave the field empty to keep the one held",
            )  # fmt: skip
            return None
        self.traced(rule.target, rule.origin, sourced.where, [sourced], "delete", "")
        return {"vr": rule.vr}

    def _lacking(self, rule: Rule, way: Alternative, entry: Entry) -> None:
        paths = [path for path, _ in way.paths]
        place = next(
            (found for path in paths if (found := entry.place(path))), str(paths[-1]) if paths else entry.where
        )
        text = f"{rule.keyword} is not in the message, and its rule says to refuse"
        self.refuse(RefusalKind.MISSING_FIELD, place, text, "send it, or change `missing:` in the mapping")

    # ---- telling ----

    def refuse(self, kind: RefusalKind, where: str, text: str, hint: str = "") -> None:
        self.refusals.append(Refusal(kind, where, text, hint))

    def traced(self, target: str, rule: str, where: str, raw: Any, converter: str, value: Any) -> None:
        if self.trace is not None:
            self.trace.append(TraceEntry(target, where, plain(raw), rule, converter, plain(value), self.subject))


_VR = {
    "PatientID": "LO",
    "AdmissionID": "LO",
    "PlacerAppointmentID": "LO",
    "FillerAppointmentID": "LO",
    "PlacerOrderNumberImagingServiceRequest": "LO",
    "FillerOrderNumberImagingServiceRequest": "LO",
    "AccessionNumber": "SH",
    "StudyInstanceUID": "UI",
    "RequestedProcedureID": "SH",
    "ScheduledProcedureStepID": "SH",
}


_PARSED_AS: abc.Mapping[str, Callable[[Repetition], Assigned]] = {
    "PatientID": cx,
    "AdmissionID": cx,
    "PlacerAppointmentID": ei,
    "FillerAppointmentID": ei,
    "PlacerOrderNumberImagingServiceRequest": ei,
    "FillerOrderNumberImagingServiceRequest": ei,
    "AccessionNumber": ei,
}
"""Keys that are identifiers of an authority; the others are plain."""


def _end_rules(rules: RuleSet) -> tuple[Rule, ...]:
    """The rules for end date and end time, in this order, if both ask the catalogue."""
    asking = {
        rule.keyword: rule
        for rule in rules.rules[Level.STEP]
        if any("catalogue" in way.missing for way in rule.alternatives)
    }
    ends = [asking.get(keyword) for keyword in ("ScheduledProcedureStepEndDate", "ScheduledProcedureStepEndTime")]
    return tuple(rule for rule in ends if rule) if all(ends) else ()


def _line(rule: Rule) -> Line:
    way = rule.alternatives[0]
    plain = way.simple and way.paths and not (way.when or way.unless or way.constant)
    return Line(rule, rule.tag, way.simply[0] if plain else None, len(way.paths) == 1)


def _at(sourced: Sourced, path: Path, component: int) -> str:
    """Coordinates of a component counted from where reading began; the repetition itself for 0.

    A value that no field holds has no components, only a type that is read as one of those that have.
    """
    if not path.field:
        return sourced.where
    if not path.component:
        return f"{sourced.where}.{component}" if component else sourced.where
    place = f"{sourced.where}.{path.component + max(component, 1) - 1}"
    return f"{place}.{path.subcomponent}" if path.subcomponent else place


def _counted(source: IdentitySource, entry: Entry, path: Path) -> Iterable[tuple[int, Repetition]]:
    """The repetitions that count for a key, each with its place in what `entry.read` gives."""
    if source.pick is None:
        return enumerate(entry.repetitions(path))
    return [(index, sourced.repetition) for index, sourced in source.pick.of(entry, path)]
