"""What a site wrote as outbound rules, checked whole and compiled: every mistake is found before the first message.

The language is that of inbound mappings (`rule_compiler`), turned round: targets are fields of HL7 v2, `from` reads a
report. What both have in common (chains of `extends`, a site's own converters, edits) is checked by `rule_checks`.
"""

from collections.abc import Mapping
from typing import Any

from gateway.domain.outbound import (
    STEPS_SOURCE,
    Condition,
    Group,
    Line,
    OutboundRule,
    OutboundRules,
    OutboundWay,
    Part,
    Row,
    RowsHere,
)
from gateway.domain.outbound_converters import (
    OUTBOUND_CONVERTERS,
    TABLE,
    OutboundConverter,
    Setting,
    default_for,
)
from gateway.domain.outbound_fields import SEGMENT_FIELDS, Target, field_type, parse_target
from gateway.domain.outbound_sources import NUMBER, PERFORMED, TURN, Source, parse_source
from gateway.domain.outbound_words import (
    ABOUT,
    EACH_PROCEDURE,
    EACH_STEP,
    MISSING,
    ROWS,
    RULE_KEYS,
    SEGMENT_KEYS,
    TOP_KEYS,
    VERSIONS,
)
from gateway.domain.problem import MappingError, did_you_mean, one_of
from gateway.domain.report import taken_apart
from gateway.domain.rule_checks import Library, LineOf, RuleChecker, digest_of, folded
from gateway.domain.rule_words import REPEATS, UNKNOWNS
from gateway.domain.source import Repetition

At = tuple[str, ...]


def compile_outbound(
    sources: Mapping[str, Mapping[str, Any]],
    name: str,
    library: Library = Library(),  # noqa: B008  (it is immutable)
    line_of: LineOf | None = None,
) -> OutboundRules:
    """The outbound rule set `name` on top of what it extends. Raises MappingError with every problem of the chain."""
    return _OutboundCompiler(sources, name, library, line_of).compiled()


class _OutboundCompiler(RuleChecker):
    """One compilation of an outbound rule set."""

    def compiled(self) -> OutboundRules:
        chain = self.chain()
        top: dict[str, tuple[str, Any]] = {}
        parts: dict[str, dict[str, tuple[str, Any]]] = {"converters": {}, "rules": {}, "rows": {}}
        for name in reversed(chain):
            source = self.sources[name]
            self.known_keys((name,), source, TOP_KEYS)
            top |= {key: (name, value) for key, value in source.items() if key not in parts}
            for part, into in parts.items():
                _overlay(into, name, self._map((name, part), source.get(part) or {}))
        for label, declared in parts["converters"].items():
            if label in OUTBOUND_CONVERTERS:
                self.problem((declared[0], "converters", label), f"{label} is a converter of ours", "choose another")
            self.site_converter(label, *declared)
        hl7 = self._top(top, "hl7", VERSIONS)
        about = self._top(top, "about", ABOUT) if "about" in top else ABOUT[0]
        message = self._message(top)
        rules = self._rules(parts["rules"])
        rows = tuple(filter(None, (self._row(*item) for item in parts["rows"].items())))
        where, said = top.get("segments", (self.name, None))
        laid_out = self._parts((where, "segments"), said, in_group=False)
        if self.whole:
            self._used(laid_out, rules, rows, {key: name for key, (name, _) in parts["rules"].items()})
        if self.problems:
            raise MappingError(self.problems)
        plain = {key: value for key, (_, value) in top.items()}
        content = [plain, *parts.values(), {table: dict(self.tables[table]) for table in sorted(self._tables(parts))}]
        return OutboundRules(
            self.name, str(plain.get("version", "")), hl7, about, message, laid_out, rules, rows, digest_of(content),
            str(plain.get("description", "")),
        )  # fmt: skip

    def _map(self, at: At, said: Any) -> Mapping[str, Any]:
        if isinstance(said, Mapping):
            return said
        self.problem(at, f"{at[-1]} is a map from name to rule", "such as `PID-3: event.PatientIDs`")
        return {}

    def _top(self, top: Mapping[str, tuple[str, Any]], key: str, allowed: tuple[str, ...]) -> str:
        name, said = top.get(key, (self.name, None))
        if said is None and not self.whole:
            return allowed[0]
        if said is None:
            self.problem((name, key), f"{key} is lacking", f"one of {', '.join(allowed)}")
        return self.choice((name, key), str(said), allowed) if said is not None else ""

    def _tables(self, parts: Mapping[str, Any]) -> set[str]:
        """The names of tables that rules may use, for the digest: all that are named anywhere."""
        text = repr(parts)
        return {table for table in self.tables if f"'{table}'" in text}

    # ---- the message ----

    def _message(self, top: Mapping[str, tuple[str, Any]]) -> OutboundRule:
        target = Target("MSH", 9)
        name, said = top.get("message", (self.name, None))
        if said is None:
            if self.whole:
                self.problem((name, "message"), "message is lacking", "such as ORM^O01")
            return OutboundRule(target, (), "")
        if isinstance(said, str):
            said = {"value": said}
        ways = self._ways((name, "message"), target, said)
        for way in ways:
            if not way.constant or len(way.constant[0]) < 2:
                self.problem((name, "message"), "a message type has a code and an event", "such as ORM^O01")
        return OutboundRule(target, ways, f"{name}: message")

    def _parts(self, at: At, said: Any, in_group: bool) -> tuple[Part, ...]:
        if not isinstance(said, list) or not said:
            if self.whole:
                self.problem(at, "segments is a list of segments", "such as [MSH, PID, PV1, ORC, OBR]")
            return ()
        found = [self._part((*at, str(number)), part, in_group) for number, part in enumerate(said)]
        if not in_group and said[0] != "MSH":
            self.problem(at, "a message begins with MSH", "put it first")
        return tuple(part for part in found if part is not None)

    def _part(self, at: At, said: Any, in_group: bool) -> Part | None:
        if said == ROWS:
            return RowsHere()
        if isinstance(said, str):
            return self._line(at, {"segment": said})
        if not isinstance(said, Mapping):
            self.problem(at, "a segment's name or a map", "such as PID, or {each: procedure, segments: [ORC, OBR]}")
            return None
        self.known_keys(at, said, SEGMENT_KEYS)
        if "segment" in said:
            return self._line(at, said)
        each = str(said.get("each", ""))
        source = STEPS_SOURCE if each == EACH_STEP else None
        if each not in (EACH_PROCEDURE, EACH_STEP):
            source = self._sequence((*at, "each"), each)
        if each == EACH_PROCEDURE and in_group:
            self.problem((*at, "each"), "procedures are not inside anything", "put this group beside the other")
        return Group(source, self._parts((*at, "segments"), said.get("segments"), in_group=True))

    def _sequence(self, at: At, path: str) -> Source | None:
        source = self._source(at, path)
        if source is not None and source.vr != "SQ":
            self.problem(at, f"{path} is no sequence", f"{EACH_PROCEDURE}, {EACH_STEP} or the path of a sequence")
        return source

    def _line(self, at: At, said: Mapping[str, Any]) -> Part | None:
        segment = str(said["segment"])
        if segment == "MSH":
            return None  # it is written anyway
        if segment not in SEGMENT_FIELDS and not (len(segment) == 3 and segment[0] == "Z"):
            hint = did_you_mean(segment, [*SEGMENT_FIELDS, ROWS]) or f"have: {', '.join(SEGMENT_FIELDS)}, or Z.."
            self.problem(at, f"no message that is written here has a segment {segment}", hint)
        when, unless = (self._tests((*at, key), said.get(key)) for key in ("when", "unless"))
        return Line(segment, when, unless)

    def _used(
        self, parts: tuple[Part, ...], rules: Mapping[str, Any], rows: tuple[Row, ...], origins: Mapping[str, str]
    ) -> None:
        """Rules and segments that never meet are mistakes: the one or the other is misspelt or forgotten.

        A rule that an extended set brings may well be for a segment that this one does without.
        """
        written = {part.segment for part in _flat(parts) if isinstance(part, Line)}
        for part in _flat(parts):
            if isinstance(part, Line) and part.segment not in rules:
                at = (self.name, "segments")
                self.problem(at, f"no rule says what is in {part.segment}", f"write rules: {{{part.segment}-1: ...}}")
        for key, name in origins.items():
            if name == self.name and key[:3] not in written | {"MSH"}:
                hint = did_you_mean(key[:3], written) or "add it to segments"
                self.problem((name, "rules", key), f"{key[:3]} is not among the segments", hint)
        placed = any(isinstance(part, RowsHere) for part in _flat(parts))
        if placed and not rows:
            self.problem((self.name, "segments"), "there are no rows", "take `rows` out, or say some")
        elif not placed and self.sources[self.name].get("rows"):
            self.problem((self.name, "rows"), "there is no place for rows", "put `rows` among the segments")

    # ---- rules ----

    def _rules(self, said: Mapping[str, tuple[str, Any]]) -> Mapping[str, tuple[OutboundRule, ...]]:
        found: dict[str, list[OutboundRule]] = {}
        for key, (name, rule) in said.items():
            made = self._field((name, "rules", key), key, rule)
            if made is not None:
                found.setdefault(made.target.segment, []).append(made)
        return {segment: tuple(sorted(rules, key=lambda rule: rule.target)) for segment, rules in found.items()}

    def _field(self, at: At, key: str, said: Any) -> OutboundRule | None:
        try:
            target = parse_target(key)
        except ValueError as error:
            self.problem(at, str(error), did_you_mean(key[:3], SEGMENT_FIELDS) if key[3:4] == "-" else "")
            return None
        return OutboundRule(target, self._ways(at, target, said), f"{at[0]}: {'.'.join(at[1:])}")

    def _row(self, row: str, declared: tuple[str, Any]) -> Row | None:
        name, said = declared
        at = (name, "rows", row)
        if not isinstance(said, Mapping):
            self.problem(at, "a row is a map from field to rule", "such as {OBX-3: {value: ...}, OBX-5: ...}")
            return None
        each = self._sequence((*at, "each"), str(said["each"])) if "each" in said else None
        rules = [self._field((*at, str(key)), str(key), rule) for key, rule in said.items() if key != "each" and rule]
        found = sorted((rule for rule in rules if rule is not None), key=lambda rule: rule.target)
        segments = sorted({rule.target.segment for rule in found})
        if len(segments) > 1:
            self.problem(at, f"a row is one segment, this has {' and '.join(segments)}", "make a row of each")
        if found and not any(way.sources for rule in found for way in rule.ways):
            self.problem(at, "nothing in it reads anything, so it is never written", "say `from` in one of its rules")
        read = [source for rule in found for way in rule.ways for source in way.sources]
        reads = tuple(dict.fromkeys(source for source in read if source.root not in (NUMBER, TURN)))
        once = {source.root for source in reads} == {PERFORMED}
        return Row(row, segments[0], tuple(found), each, once, reads) if segments else None

    def _ways(self, at: At, target: Target, said: Any) -> tuple[OutboundWay, ...]:
        ways = said if isinstance(said, list) else [said]
        if not ways:
            self.problem(at, "an empty list of rules", "write null to take the rule away")
        if isinstance(said, list) and said and all(isinstance(way, str) for way in said):
            ways, numbered = [{"from": said}], [at]  # a list of paths is one rule with several sources
        else:
            numbered = [(*at, str(number)) for number in range(len(ways))] if len(ways) > 1 else [at]
        found = [self._way(where, target, way) for where, way in zip(numbered, ways, strict=True)]
        for where, way in zip(numbered[:-1], found, strict=False):
            if way is not None and not way.when and not way.unless and way.missing != "omit":
                self.problem((*where, "missing"), "the rules below it never count", "say it in the last of the list")
        return tuple(way for way in found if way is not None)

    def _way(self, at: At, target: Target, said: Any) -> OutboundWay | None:
        if isinstance(said, str):
            said = {"from": said}
        if not isinstance(said, Mapping):
            self.problem(at, "a rule is a path or a map", "such as PatientName, or {from: PatientName, convert: xpn}")
            return None
        known = self.known_keys(at, said, RULE_KEYS)
        if "value" in said and "from" in said:
            self.problem(at, "either from or value, not both", "use a list of two rules")
        missing, default = self._lacking((*at, "missing"), said.get("missing", "omit"))
        if known and "value" not in said and "from" not in said and missing != "default":
            self.problem(at, "neither from nor value", "from: PATH, or value: TEXT")
        sources = self._sources((*at, "from"), said.get("from"))
        beside = self._source((*at, "with"), str(said["with"])) if "with" in said else None
        edits, edited = self.edits((*at, "edit"), said.get("edit"))
        if edits and any(source.vr in ("PN", "SQ") for source in sources):
            self.problem((*at, "edit"), "edits change texts, not names and codes", "convert: code-value gives a text")
        named, label = said.get("convert"), ""
        if isinstance(named, str) and named in self.own:  # a site's own converter is an edit of the text
            edits, edited, named = (*edits, self.own[named]), f"{edited}, {named}".removeprefix(", "), None
        converter, setting, label = self._written_by(at, target, said, named, sources)
        if beside is not None and not converter.beside:
            self.problem((*at, "with"), f"{converter.name} has no use for anything beside the value", "leave it out")
        repeat = self.choice((*at, "repeat"), said.get("repeat", "first"), REPEATS)
        if repeat == "all" and (target.component or not field_type(target).repeats):
            self.problem((*at, "repeat"), f"{target} does not repeat", "first or join")
        when, unless = (self._tests((*at, key), said.get(key)) for key in ("when", "unless"))
        constant = self._said((*at, "value"), said["value"]) if "value" in said else ()
        label = f"{edited}, {label}" if edited else label
        return OutboundWay(
            sources, converter, setting, edits, beside, when, unless, constant, repeat, missing, default, label
        )

    def _written_by(
        self, at: At, target: Target, said: Mapping[str, Any], named: Any, sources: tuple[Source, ...]
    ) -> tuple[OutboundConverter, Setting, str]:
        text = OUTBOUND_CONVERTERS["text"]
        if isinstance(named, Mapping):
            table = str(named.get("table"))
            unknown = self.choice((*at, "unknown"), said.get("unknown", "refuse"), UNKNOWNS)
            if list(named) != ["table"]:
                self.problem((*at, "convert"), "a converter is a name or {table: NAME}")
            elif table not in self.tables:
                self.problem((*at, "convert", "table"), f"there is no table {table}", one_of(table, self.tables))
            self._suits(at, TABLE, target, sources)
            return TABLE, Setting(self.tables.get(table, {}), table, unknown), f"table {table}"
        if "unknown" in said:
            self.problem((*at, "unknown"), "only a table knows unknown texts", "convert: {table: NAME}")
        if not sources:
            return text, Setting(), ""
        if named is None:
            usual = default_for(sources[0].vr, target)
            if usual is None:
                hint = f"one of {', '.join(_able(sources[0].vr, target)) or 'another field'}"
                self.problem((*at, "convert"), f"{sources[0].text} needs a converter for {target}", hint)
                return text, Setting(), ""
            self._suits(at, usual, target, sources)
            return usual, Setting(), usual.name
        row = OUTBOUND_CONVERTERS.get(str(named))
        if row is None:
            known = [*OUTBOUND_CONVERTERS, *self.own]
            hint = did_you_mean(str(named), known) or f"one of {', '.join(known)}"
            self.problem((*at, "convert"), f"unknown converter {named!r}", hint)
            return text, Setting(), ""
        self._suits(at, row, target, sources)
        return row, Setting(), row.name

    def _suits(self, at: At, row: OutboundConverter, target: Target, sources: tuple[Source, ...]) -> None:
        """A converter reads what it is given, and gives what the field holds."""
        for source in sources:
            if source.vr not in row.vrs:
                hint = f"one of {', '.join(_able(source.vr, target)) or 'another field'}"
                kind = f" ({source.vr})" if source.vr else ""
                self.problem((*at, "convert"), f"{row.name} cannot read {source.text}{kind}", hint)
                return
        if not row.fits(target):
            hint = ", ".join(_able(sources[0].vr if sources else "", target))
            kind = field_type(target).type
            self.problem((*at, "convert"), f"{row.name} cannot give {target} ({kind})", f"one of {hint or 'none'}")

    def _sources(self, at: At, said: Any) -> tuple[Source, ...]:
        texts = said if isinstance(said, list) else [said] if said is not None else []
        return tuple(source for text in texts if (source := self._source(at, str(text))) is not None)

    def _source(self, at: At, text: str) -> Source | None:
        try:
            return parse_source(text.strip())
        except ValueError as error:
            self.problem(at, error.args[0], error.args[1] if len(error.args) > 1 else "")
            return None

    def _tests(self, at: At, said: Any) -> tuple[Condition, ...]:
        if said is None:
            return ()
        if not isinstance(said, Mapping):
            self.problem(at, "conditions are a map from path to value or values")
            return ()
        found = ((self._source((*at, str(path)), str(path)), folded(values)) for path, values in said.items())
        return tuple((source, texts) for source, texts in found if source is not None)

    def _lacking(self, at: At, said: Any) -> tuple[str, tuple[Repetition, ...]]:
        if isinstance(said, Mapping) and list(said) == ["default"]:
            return "default", self._said((*at, "default"), said["default"])
        if said not in MISSING:
            hint = did_you_mean(str(said), MISSING) or f"{', '.join(MISSING)}, or {{default: VALUE}}"
            self.problem(at, f"unknown policy {said!r}", hint)
        return str(said), ()

    def _said(self, at: At, said: Any) -> tuple[Repetition, ...]:
        """A constant, written as in HL7."""
        if isinstance(said, Mapping | list) or said in (None, ""):
            self.problem(at, "a constant is a text", "such as 113014^DICOM Study^DCM")
            return ()
        return taken_apart(str(said))


def _able(vr: str, target: Target) -> list[str]:
    return [row.name for row in OUTBOUND_CONVERTERS.values() if vr in row.vrs and row.fits(target)]


def _flat(parts: tuple[Part, ...]) -> list[Part]:
    return [inner for part in parts for inner in ([part, *_flat(part.parts)] if isinstance(part, Group) else [part])]


def _overlay(into: dict[str, tuple[str, Any]], name: str, said: Mapping[str, Any]) -> None:
    """What an overlay says over what is said already: null takes away; a row changes by its rules."""
    for key, value in ((str(key), value) for key, value in said.items()):
        held = into.get(key)
        if value is None:
            into.pop(key, None)
        elif held is not None and isinstance(value, Mapping) and isinstance(held[1], Mapping) and _is_row(held[1]):
            into[key] = (name, {**held[1], **value})
        else:
            into[key] = (name, value)


def _is_row(said: Mapping[str, Any]) -> bool:
    return any("-" in str(key) for key in said)
