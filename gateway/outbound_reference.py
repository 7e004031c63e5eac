"""The reference pages on outbound mappings: the language from its tables, and each shipped mapping as compiled."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.domain.outbound import Condition, Group, Line, OutboundRule, OutboundWay, Part, RowsHere
from gateway.domain.outbound_converters import DEFAULT, OUTBOUND_CONVERTERS, TABLE
from gateway.domain.outbound_words import (
    EACH_PROCEDURE,
    PATHS,
    ROWS,
    RULE_KEYS,
    SEGMENT_KEYS,
    TOP_KEYS,
)
from gateway.domain.progress import STATUS_TOLD
from gateway.domain.report import FACTS, RESULT_STATUS, composed
from gateway.markdown import code, table
from gateway.wire.er7_writer import MessageWriter
from gateway.wire.hl7_names import field_name


def language() -> Iterator[str]:
    """The page on the language."""
    yield "Messages to others are written by rule sets in `mappings/outbound`, YAML files that read like those of"
    yield "`mappings/hl7v2` turned round: the target is a field of HL7 v2, `from` says what is written there. Editors"
    yield "check them by `mappings/schemas/outbound.json`; `gateway check` names every mistake with file, line and the"
    yield "word that was likely meant. A destination names its rule set in `gateway.yaml`."
    yield ""
    for title, keys in (
        ("A rule set", TOP_KEYS),
        ("A rule", RULE_KEYS),
        ("An entry of segments", SEGMENT_KEYS),
        ("What is read", PATHS),
    ):
        yield f"## {title}"
        yield ""
        yield from table(("Key" if keys is not PATHS else "Path", "Meaning"), _rows(keys))
    yield "A target is a field (`PID-5`), or what begins at a component (`OBR-4.4`) or stands in a subcomponent"
    yield "(`PID-3.4.2`). A list of rules: the first that gives a value wins; a list of paths is one rule. Segments and"
    yield f"rows without a value are left out. `{ROWS}` among the segments is where the rows stand; rows that only read"
    yield "the performed step are written with the first of its procedures: a dose told twice would be added up."
    yield "MSH is written by itself: type and version from the rule set, the rest from the destination."
    yield ""
    yield "## Facts"
    yield ""
    yield from table(("Path", "Holds"), ((code(f"event.{name}"), told) for name, told in FACTS.items()))
    yield "## What is told of an order"
    yield ""
    yield "ORC-1 and ORC-5 where the destination has no `tell` of its own, and OBR-25 with them."
    yield ""
    yield from table(
        ("What happened", "ORC-1", "ORC-5", "OBR-25"),
        (
            (what.value, code(control), code(status), code(RESULT_STATUS[status]))
            for what, (control, status) in STATUS_TOLD.items()
        ),
    )
    yield "## Converters"
    yield ""
    yield "What a rule may name under `convert:`. Edits are those of the [mapping language](mapping-language.md)."
    yield ""
    yield from table(
        ("Converter", "Reads", "Writes", "`with`", "Does"),
        (
            (
                code(row.name if row is not TABLE else "{table: NAME}"),
                ", ".join(sorted(row.vrs - {""}) + (["facts"] if "" in row.vrs else [])),
                ", ".join(sorted(row.types)) or "any",
                row.beside,
                row.summary,
            )
            for row in [*OUTBOUND_CONVERTERS.values(), TABLE]
        ),
    )
    yield "Where a rule names none, what is read decides, as far as it fits the target; else the only one that fits."
    yield ""
    yield from table(
        ("Read", "Converter"),
        ((vr or "fact", code(name)) for vr, name in sorted(DEFAULT.items())),
    )


def mapping_page(writer: MessageWriter) -> Iterator[str]:
    """The page on one mapping."""
    rules = writer.rules
    types = ", ".join(composed(way.constant) + _conditions(way) for way in rules.message.ways)
    yield f"Version {rules.version}, from `mappings/outbound/{rules.name}.yaml`. It writes {types} of HL7 v{rules.hl7},"
    yield f"one message for each {rules.about}. Sources are tried from left to right; the first that has a value wins."
    yield ""
    yield f"Segments: MSH {' '.join(_layout(rules.parts))}."
    yield ""
    for segment in dict.fromkeys(part.segment for part in _flat(rules.parts) if isinstance(part, Line)):
        yield f"## {segment}"
        yield ""
        yield from table(("Field", "Name", "Source", "Converter", "If missing"), map(_rule, rules.rules[segment]))
    if any(isinstance(part, RowsHere) for part in _flat(rules.parts)):
        yield "## Rows"
        yield ""
        for row in rules.rows:
            each = f", for each item of {code(row.each.text)}" if row.each else ""
            yield f"`{row.name}` ({row.segment}{each}):"
            yield ""
            yield from table(("Field", "Name", "Source", "Converter", "If missing"), map(_rule, row.rules))


def _rows(keys: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return ((code(key), meaning) for key, meaning in keys.items())


def _layout(parts: Sequence[Part]) -> list[str]:
    said: list[str] = []
    for part in parts:
        if isinstance(part, Line):
            said.append(f"[{part.segment}]" if part.when or part.unless else part.segment)
        elif isinstance(part, Group):
            each = EACH_PROCEDURE if part.each is None else part.each.text
            said.append(f"{{for each {each}: {' '.join(_layout(part.parts))}}}")
        else:
            said.append(ROWS)
    return said


def _flat(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Group):
            yield from _flat(part.parts)
        else:
            yield part


def _rule(rule: OutboundRule) -> tuple[str, str, str, str, str]:
    target = rule.target
    return (
        code(str(target)),
        field_name(str(target)),
        "; ".join(map(_source, rule.ways)),
        "; ".join(way.label for way in rule.ways if way.label),
        "; ".join(dict.fromkeys(way.otherwise for way in rule.ways if way.sources and way.missing != "omit")),
    )


def _source(way: OutboundWay) -> str:
    said = code(composed(way.constant)) if way.constant else ", ".join(code(source.text) for source in way.sources)
    if way.beside:
        said += f" with {code(way.beside.text)}"
    if way.repeat != "first":
        said += f" ({way.repeat})"
    return said + _conditions(way)


def _conditions(way: OutboundWay) -> str:
    said = "".join(f" if {_condition(each)}" for each in way.when)
    return said + "".join(f" unless {_condition(each)}" for each in way.unless)


def _condition(condition: Condition) -> str:
    source, texts = condition
    wanted = " or ".join({"*": "anything", "": "nothing"}.get(text, code(text)) for text in sorted(texts))
    return f"{code(source.text)} is {wanted}"
