"""For a refusal the nearest fix on our side: which file, and the line to put into it, ready to paste.

What the sender has to do says the refusal itself (`hint`).
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from gateway.domain.catalogue import COLUMNS
from gateway.domain.converters import part
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.order import OrderControl
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.rule_words import may_be_cut
from gateway.domain.rules import STEP_PREFIX, Rule
from gateway.domain.source import Entry

PROCEDURES = "mappings/procedures.csv"
_ALIKE = 0.8
"""From which likeness on a code is taken for a neighbour of another (CTHEAD and CTHEADC), with its modality."""

_UNDER_RULES = "under `rules:`, here or in a file that extends it"
_STARTS = {
    "ScheduledProcedureStepStartDate": "{from: CHANGE_ME}",
    "ScheduledProcedureStepStartTime": "{from: CHANGE_ME, convert: start-time}",
}


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, in words; for a line of a file, the file and the line. `CHANGE_ME` marks what nobody knows."""

    text: str
    file: str = ""
    line: str = ""


def fixes(refusal: Refusal, mapping: FieldMapping, entries: "tuple[Entry, ...]") -> tuple[Fix, ...]:
    """What an interface engineer could change here so that the message comes through; nothing where it is the sender's.

    `entries` are those of the message, none where it could not be read so far.
    """
    match refusal.kind:
        case RefusalKind.UNCOVERED:
            return tuple(_of_uncovered(refusal, mapping, entries))
        case RefusalKind.UNKNOWN_CODE | RefusalKind.BAD_VALUE:
            return tuple(_of_unknown_code(refusal, mapping))
        case RefusalKind.TOO_LONG:
            return tuple(_of_too_long(refusal, mapping))
        case RefusalKind.MISSING_FIELD | RefusalKind.MISSING_VALUE:
            return tuple(_of_missing(refusal, mapping))
        case RefusalKind.UNSUPPORTED_TYPE | RefusalKind.UNSUPPORTED_EVENT:
            return (Fix("if the sender need not know that nobody wants it, list the message type", "gateway.yaml",
                        "ignore: [CODE^EVENT]"),)  # fmt: skip
        case RefusalKind.UNREADABLE if refusal.where == "MSH-18" or "is not valid in" in refusal.text:
            return (Fix("if the sender declares a wrong character set, override it for its listener", "gateway.yaml",
                        "charset_override: 8859/1"),)  # fmt: skip
        case RefusalKind.UNSUPPORTED_PROCESSING_ID:
            return (Fix("for a listener of tests, take test messages", "gateway.yaml", "accept_test: true"),)
        case RefusalKind.UNKNOWN_ORDER | RefusalKind.UNKNOWN_KEY:
            return (Fix("find what came with this number: gateway messages list --key NUMBER"),)
    return ()


def _of_uncovered(refusal: Refusal, mapping: FieldMapping, entries: "tuple[Entry, ...]") -> Iterator[Fix]:
    keyword = refusal.text.split(" ")[0]
    if keyword in _STARTS:  # no catalogue knows it
        yield Fix(
            f"name the field where this sender has it ({_UNDER_RULES})",
            _file(mapping),
            f"{STEP_PREFIX}{keyword}: {_STARTS[keyword]}",
        )
        return
    lines: dict[str, None] = {}
    for entry in entries:
        if entry.control in (OrderControl.CA, OrderControl.DC):
            continue
        for path in mapping.rules.identity["ProcedureCode"].paths:
            for repetition in entry.repetitions(path):
                code, description, scheme = (part(repetition, place) for place in (1, 2, 3))
                if code and mapping.catalogue.find(code, scheme) is None:
                    lines.setdefault(_catalogue_line(mapping, code, scheme, description))
    for line in lines:
        yield Fix(f"add the procedure (columns {','.join(COLUMNS)})", PROCEDURES, line)
    if not lines:
        yield Fix("the procedure is in the catalogue without what is lacking: complete its row", PROCEDURES)


def _catalogue_line(mapping: FieldMapping, code: str, scheme: str, description: str) -> str:
    """A row for the code, after the most similar one that there is."""
    known = {procedure.code: procedure for procedure in mapping.catalogue.procedures}
    like = next(iter(get_close_matches(code, known, 1, _ALIKE)), None)
    step = known[like].steps[0] if like and known[like].steps else None
    cells: Mapping[str, str] = {
        "code": code,
        "scheme": scheme,
        "description": description,
        "modality": step.modality if step and step.modality else "CHANGE_ME",
        "station_ae_titles": " ".join(step.stations) if step and step.stations else "CHANGE_ME",
    }
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells.get(column, "") for column in COLUMNS)
    return line.getvalue()


def _of_unknown_code(refusal: Refusal, mapping: FieldMapping) -> Iterator[Fix]:
    said = refusal.text.split("'")
    for rule in _rules(refusal, mapping):
        ways = (setting for way in rule.alternatives for _, setting in way.paths)
        tables = {setting.table_name: setting.table for setting in ways if setting.table_name}
        for table, known in tables.items():
            values = ", ".join(sorted({value for value in known.values() if value}))[:200]
            line = f"{said[1]},CHANGE_ME" if len(said) > 1 else "CODE,CHANGE_ME"
            yield Fix(f"add what it means (values used so far: {values})", f"mappings/codes/{table}.csv", line)
        if tables and refusal.kind is RefusalKind.UNKNOWN_CODE:
            yield _rule_fix("or let the rule pass unknown codes over", rule, mapping, "unknown", "omit")


def _of_too_long(refusal: Refusal, mapping: FieldMapping) -> Iterator[Fix]:
    for rule in _rules(refusal, mapping):
        if may_be_cut(rule.keyword, rule.vr):
            yield _rule_fix("let the rule cut it, with a note", rule, mapping, "length", "cut")


def _of_missing(refusal: Refusal, mapping: FieldMapping) -> Iterator[Fix]:
    keyword = refusal.text.split(" ")[0]
    identity = mapping.rules.identity.get(keyword)
    if identity is not None and identity.policy is not None:
        if mapping.name not in identity.origin:  # the listener's own policy
            yield Fix("let the key be made where it is lacking", "gateway.yaml", f"keys: {{{keyword}: generate}}")
        line = f"{keyword}: {{missing: generate}}"
        yield Fix("let the key be made where it is lacking (under `identity:`)", _file(mapping), line)
    for rule in _rules(refusal, mapping):
        if any("refuse" in way.missing for way in rule.alternatives):
            yield _rule_fix("let the rule do without it", rule, mapping, "missing", "omit")


def _file(mapping: FieldMapping) -> str:
    """Where a site says otherwise; what listeners lay over a mapping (`ihe-swf+ris`) is in no file of its own."""
    return f"mappings/hl7v2/{mapping.name.partition('+')[0]}.yaml"


def _rule_fix(text: str, rule: Rule, mapping: FieldMapping, key: str, value: str) -> Fix:
    """The whole rule with another word: an overlay's rule takes the place of the one below it."""
    several = rule.said if isinstance(rule.said, list) else [rule.said]
    ways = [{**(way if isinstance(way, Mapping) else {"from": way}), key: value} for way in several]
    line = f"{rule.target}: {_flow(ways if len(ways) > 1 else ways[0])}"
    return Fix(f"{text} ({_UNDER_RULES})", _file(mapping), line)


_PLAIN = re.compile(r"[A-Za-z][\w./-]*(?: [\w./-]+)*")
_OTHER_THAN_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def _flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.casefold() not in _OTHER_THAN_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)


def _rules(refusal: Refusal, mapping: FieldMapping) -> Iterator[Rule]:
    """The rule that a refusal is about: it begins with the attribute's keyword."""
    keyword = refusal.text.split(" ")[0].rstrip(":")
    for rules in mapping.rules.rules.values():
        yield from (rule for rule in rules if rule.keyword == keyword)
