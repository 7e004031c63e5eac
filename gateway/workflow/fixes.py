"""For a refusal the nearest fix on our side: which file, and the line to put into it, ready to paste.

What the sender has to do says the refusal itself (`hint`).
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from gateway.domain.catalogue import COLUMNS
from gateway.domain.converters import part
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.order import OrderControl
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.rules import Alternative
from gateway.domain.source import Entry

PROCEDURES = "mappings/procedures.csv"
_ALIKE = 0.8
"""From which likeness on a code is taken for a neighbour of another (CTHEAD and CTHEADC), with its modality."""


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
            return tuple(_of_uncovered(mapping, entries))
        case RefusalKind.UNKNOWN_CODE:
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


def _of_uncovered(mapping: FieldMapping, entries: "tuple[Entry, ...]") -> Iterator[Fix]:
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
    for way in _ways(refusal, mapping):
        tables = {setting.table_name: setting.table for _, setting in way.paths if setting.table_name}
        for table, known in tables.items():
            values = ", ".join(sorted({value for value in known.values() if value}))[:200]
            line = f"{said[1]},CHANGE_ME" if len(said) > 1 else "CODE,CHANGE_ME"
            yield Fix(f"add what it means (values used so far: {values})", f"mappings/codes/{table}.csv", line)
        if tables:
            yield Fix("or let the rule pass unknown codes over", _file(mapping), "unknown: omit")


def _of_too_long(refusal: Refusal, mapping: FieldMapping) -> Iterator[Fix]:
    for _way in _ways(refusal, mapping):
        yield Fix("let the rule cut it, with a note", _file(mapping), "length: cut")


def _of_missing(refusal: Refusal, mapping: FieldMapping) -> Iterator[Fix]:
    keyword = refusal.text.split(" ")[0]
    identity = mapping.rules.identity.get(keyword)
    if identity is not None and identity.policy is not None:
        yield Fix("let the key be made where it is lacking", _file(mapping), f"{keyword}: {{missing: generate}}")
    elif any("refuse" in way.missing for way in _ways(refusal, mapping)):
        yield Fix("let the rule do without it", _file(mapping), f"{keyword}: {{missing: omit}}")


def _file(mapping: FieldMapping) -> str:
    return f"mappings/hl7v2/{mapping.name}.yaml"


def _ways(refusal: Refusal, mapping: FieldMapping) -> Iterator[Alternative]:
    """The ways of the rule that a refusal is about: it begins with the attribute's keyword."""
    keyword = refusal.text.split(" ")[0].rstrip(":")
    for rules in mapping.rules.rules.values():
        for rule in rules:
            if rule.keyword == keyword:
                yield from rule.alternatives
