"""Outbound mappings as they run: a report in, the segments of an HL7 v2 message out, or every reason why not.

`outbound_compiler` makes the rules from what a site wrote; `wire.er7_writer` makes bytes of the segments.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gateway.domain.attributes import SPS_SEQUENCE
from gateway.domain.converters import Unconvertible
from gateway.domain.edits import Edit
from gateway.domain.mapping_trace import TraceEntry, plain
from gateway.domain.outbound_converters import OutboundConverter, Setting, one, said, stamp
from gateway.domain.outbound_fields import Target, field_type
from gateway.domain.outbound_sources import STEPS, Place, Source, companion
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.report import Header, Report, composed, taken_apart
from gateway.domain.source import NULL, Repetition

Condition = tuple[Source, frozenset[str]]
"""A source and the texts it may have, folded; '*' stands for any text, '' for none."""

EACH_MAX = 500
"""Items of one sequence that are gone through: four thousand series are no message that anybody can read."""

REPETITIONS_MAX = 200
"""Of one field: what listeners here take (`wire.er7.Bounds.repetitions_max`), so that no gateway refuses another's."""

JOINED = "; "
"""Between the texts of `repeat: join`."""


@dataclass(frozen=True, slots=True)
class OutboundWay:
    """One way to a field's value: sources tried in turn, or a constant, under conditions."""

    sources: tuple[Source, ...]
    converter: OutboundConverter
    setting: Setting
    edits: tuple[Edit, ...]
    beside: Source | None
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...]
    constant: tuple[Repetition, ...]
    repeat: str
    missing: str
    """`omit`, `refuse` or `default`."""
    default: tuple[Repetition, ...]
    label: str

    @property
    def otherwise(self) -> str:
        """What happens without a value, as people read it."""
        return f"default {composed(self.default)}" if self.missing == "default" else self.missing


@dataclass(frozen=True, slots=True)
class OutboundRule:
    """How one field, or a part of it, comes about: the first way that gives a value."""

    target: Target
    ways: tuple[OutboundWay, ...]
    origin: str

    def at(self, where: str) -> str:
        """The target in a segment of the message: `ORC[2]-5`."""
        return f"{where}{str(self.target)[3:]}"


@dataclass(frozen=True, slots=True)
class Row:
    """One segment of a list, as an OBX for the dose: written if a rule that reads something gave a value."""

    name: str
    segment: str
    rules: tuple[OutboundRule, ...]
    each: Source | None = None
    once: bool = False
    """Whether all that it reads is of the performed step: told with the first of its procedures only, because a dose
    that is told with each of them would be added up."""
    reads: tuple[Source, ...] = ()
    """What of the report it reads; without a value in any of these there is nothing to write."""


@dataclass(frozen=True, slots=True)
class Line:
    """A segment of the message; it is left out where none of its rules gives a value, or a condition does not hold."""

    segment: str
    when: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()


class RowsHere(NamedTuple):
    """Where the rows stand."""


@dataclass(frozen=True, slots=True)
class Group:
    """Segments written for each requested procedure (no `each`), or for each item of a sequence."""

    each: Source | None
    parts: tuple["Part", ...]


Part = Line | RowsHere | Group


class WrittenSegment(NamedTuple):
    """A segment as it is to be written: its name and fields, the first at index 0."""

    name: str
    fields: tuple[tuple[Repetition, ...], ...]


@dataclass(frozen=True, slots=True)
class OutboundRules:
    """A compiled outbound rule set. `about` is what one message is about: `order`, `procedure` or `patient`."""

    name: str
    version: str
    hl7: str
    about: str
    message: OutboundRule
    parts: tuple[Part, ...]
    rules: Mapping[str, tuple[OutboundRule, ...]]
    rows: tuple[Row, ...]
    digest: str
    description: str = ""

    @property
    def version_id(self) -> str:
        """Name, version and content, for the archive."""
        return f"{self.name} {self.version} {self.digest[:12]}".replace("  ", " ")

    def segments(
        self, report: Report, header: Header, trace: list[TraceEntry] | None = None
    ) -> tuple[WrittenSegment, ...]:
        """The message that tells the report, MSH first; `trace` gets where each value came from. Raises Refused."""
        return _Writing(self, report, header, trace).message()


@dataclass(slots=True)
class _Writing:
    """One message being written."""

    rules: OutboundRules
    report: Report
    header: Header
    trace: list[TraceEntry] | None
    written: list[WrittenSegment] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def message(self) -> tuple[WrittenSegment, ...]:
        report = self.report
        first = {**report.person, **report.items[0]} if report.items else report.person
        place = Place(report, first)
        self._msh(place)
        self._parts(self.rules.parts, place)
        if self.refusals:
            raise Refused(*dict.fromkeys(self.refusals))
        return tuple(self.written)

    def _msh(self, place: Place) -> None:
        header = self.header
        fields, _ = self._fields("MSH", self.rules.rules.get("MSH", ()), place)
        types, _ = self._value(self.rules.message, place, "MSH")
        ascii_only = header.charset.upper() in ("", "ASCII")
        fields |= {
            3: one(header.sending_application),
            5: one(header.receiving_application),
            6: one(header.receiving_facility),
            7: one(stamp(header.at) if header.at is not None else ""),
            9: types,
            10: one(header.control_id),
            11: one(header.processing_id),
            12: one(self.rules.hl7),
            18: [] if ascii_only else list(taken_apart(header.charset)),
        }
        fields.setdefault(4, one(header.sending_facility))
        self._put("MSH", fields)

    def _parts(self, parts: Iterable[Part], place: Place) -> None:
        for part in parts:
            match part:
                case Group():
                    for turn in self._turns(part, place):
                        self._parts(part.parts, turn)
                case RowsHere():
                    self._rows(place)
                case Line():
                    if _holds(place, part.when, part.unless):
                        count = sum(line.name == part.segment for line in self.written) + 1
                        where = f"{part.segment}[{count}]" if count > 1 else part.segment
                        rules = self.rules.rules.get(part.segment, ())
                        fields, _ = self._fields(where, rules, replace(place, number=count))
                        self._put(part.segment, fields)

    def _turns(self, group: Group, place: Place) -> Iterator[Place]:
        if group.each is None:
            for number, item in enumerate(self.report.items, 1):
                yield replace(place, item={**self.report.person, **item}, procedure=number)
            return
        yield from _each(group.each, place)

    def _rows(self, place: Place) -> None:
        number = 0
        first = self.report.first and place.procedure == 1
        for row in self.rules.rows:
            if row.once and not first:
                continue
            for turn in _each(row.each, place) if row.each else [place]:
                if not any(turn.read(source) for source in row.reads):
                    continue
                fields, told = self._fields(f"{row.segment} of {row.name}", row.rules, replace(turn, number=number + 1))
                if told:
                    number += 1
                    self._put(row.segment, fields)

    def _put(self, segment: str, fields: Mapping[int, list[Repetition]]) -> None:
        last = max((number for number, repetitions in fields.items() if repetitions), default=0)
        if last:
            self.written.append(
                WrittenSegment(segment, tuple(tuple(fields.get(number, ())) for number in range(1, last + 1)))
            )

    # ---- fields ----

    def _fields(
        self, where: str, rules: Sequence[OutboundRule], place: Place
    ) -> tuple[dict[int, list[Repetition]], bool]:
        """The fields of a segment, and whether anything of the report (no constant, no count) is in them."""
        fields: dict[int, list[Repetition]] = {}
        told = False
        for rule in rules:
            made, read = self._value(rule, place, where)
            if not made:
                continue
            told = told or read
            target = rule.target
            if target.component:
                held = fields.setdefault(target.field, [(("",),)])
                held[0] = _placed(held[0], made[0], target)
            else:
                fields[target.field] = made if field_type(target).repeats else made[:1]
        return fields, told

    def _value(self, rule: OutboundRule, place: Place, where: str) -> tuple[list[Repetition], bool]:
        """What the rule gives, and whether it was read from the report."""
        for way in rule.ways:
            if (way.when or way.unless) and not _holds(place, way.when, way.unless):
                continue
            if way.constant:
                self._note(rule, where, way, way.constant)
                return list(way.constant), False
            made, source = self._read(rule, way, place, where)
            if made and source is not None:
                return made, bool(source.tags or source.name)
            if way.missing == "default":
                self._note(rule, where, way, way.default)
                return list(way.default), False
            if way.missing == "refuse":
                sources = ", ".join(source.text for source in way.sources)
                self.refusals.append(Refusal(
                    RefusalKind.MISSING_VALUE, rule.at(where), f"nothing to write: {sources} says nothing",
                    f"say missing: omit or a default in {rule.origin}",
                ))  # fmt: skip
                return [], False
        return [], False

    def _read(
        self, rule: OutboundRule, way: OutboundWay, place: Place, where: str
    ) -> tuple[list[Repetition], Source | None]:
        """What the first source with a value gives, and which it is."""
        setting = way.setting
        if way.converter.zoned and self.header.at is not None:
            setting = setting._replace(zone=self.header.at.tzinfo)
        for source in way.sources:
            found: dict[Repetition, None] = {}
            raws: list[Any] = []
            for value, node in place.read(source):
                beside = companion(place, source, node, way.beside) if way.beside else None
                try:
                    made = way.converter.function(_edited(value, way.edits), beside, setting)
                except Unconvertible as problem:
                    self.refusals.append(Refusal(problem.kind, rule.at(where), problem.text, problem.hint))
                    return [], None
                made = [repetition for repetition in made if repetition != _NOTHING and any(map(any, repetition))]
                if made:
                    raws.append(value)
                    found |= dict.fromkeys(made)
                    if way.repeat == "first":
                        break
                else:
                    self._note_left_out(rule, where, way, source, [value], "the converter writes nothing for it")
            if found:
                values = list(found)
                if way.repeat == "join":
                    values = [((JOINED.join(dict.fromkeys(value[0][0] for value in values)),),)]
                elif len(values) > REPETITIONS_MAX:
                    more = [composed([each]) for each in values[REPETITIONS_MAX:]]
                    self._note_left_out(rule, where, way, source, more, f"a field has {REPETITIONS_MAX} repetitions")
                    del values[REPETITIONS_MAX:]
                self._note(rule, where, way, values, source, raws)
                return values, source
        return [], None

    def _note(
        self, rule: OutboundRule, where: str, way: OutboundWay, made: Iterable[Repetition],
        source: Source | None = None, raws: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        if self.trace is not None:
            raw = "\\".join(map(plain, raws))
            read = source.text if source else ""
            self.trace.append(TraceEntry(rule.at(where), read, raw, rule.origin, way.label, composed(made)))

    def _note_left_out(
        self, rule: OutboundRule, where: str, way: OutboundWay, source: Source, read: Iterable[Any], why: str
    ) -> None:
        """What was read and is not written; of what says nothing there is nothing to note."""
        raw = "\\".join(filter(None, map(plain, read))) if self.trace is not None else ""
        if self.trace is not None and raw:
            told = f"{LEFT_OUT}{why}"
            self.trace.append(TraceEntry(rule.at(where), source.text, raw, rule.origin, way.label, told))


LEFT_OUT = "left out: "
"""Begins a trace entry of what a rule read and did not write."""

_NOTHING: Repetition = ((NULL,),)
"""What HL7 would take for "delete it": nobody who has such a text means that."""


def _edited(value: Any, edits: Sequence[Edit]) -> Any:
    if not edits or isinstance(value, dict):
        return value
    text = said(value)
    for edit in edits:
        text = edit(text) if text else text
    return text


def _placed(held: Repetition, value: Repetition, target: Target) -> Repetition:
    """The repetition with a value from a component (or at a subcomponent) on."""
    components = [list(component) or [""] for component in held]
    last = target.component - 1 + (1 if target.subcomponent else len(value))
    components += [[""]] * (last - len(components))
    if target.subcomponent:
        inner = [*components[target.component - 1]]
        inner += [""] * (target.subcomponent - len(inner))
        inner[target.subcomponent - 1] = value[0][0]
        components[target.component - 1] = inner
    else:
        components[target.component - 1 : last] = [list(component) for component in value]
    return tuple(tuple(component) for component in components)


def _each(source: Source, place: Place) -> Iterator[Place]:
    """The place for each item of a sequence; paths through it then read that item."""
    key = (source.root, *source.tags)
    items = [value for value, _ in place.read(source) if isinstance(value, dict)]
    for turn, item in enumerate(items[:EACH_MAX], 1):
        yield replace(place, bound={**place.bound, key: item}, turn=turn)


def _holds(place: Place, when: Iterable[Condition], unless: Iterable[Condition]) -> bool:
    return all(_says(place, *condition) for condition in when) and not any(
        _says(place, *condition) for condition in unless
    )


def _says(place: Place, source: Source, wanted: frozenset[str]) -> bool:
    texts = [text.casefold() for value, _ in place.read(source) if (text := said(value))]
    return any(text in wanted for text in texts) or (bool(texts) and "*" in wanted) or (not texts and "" in wanted)


STEPS_SOURCE = Source("step", STEPS[0], (SPS_SEQUENCE,), vr="SQ")
"""What `each: step` goes through."""
