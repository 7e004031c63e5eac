"""Station rules: which stations may do a step that the order names none for, by what the order says.

Rows come from `stations.csv`. Filled cells are conditions; the row with the most of them wins, the earlier one of two
alike. A rule asks for them with `missing: stations`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, element
from gateway.domain.converters import is_ae_title, part
from gateway.domain.problem import MappingError, Problem, did_you_mean
from gateway.domain.rows import numbered
from gateway.domain.source import Entry, Path, parse_path

STATED: Mapping[str, str] = {
    "modality": "modality of the step, from the order or the procedure catalogue",
    "procedure_code": "a code that the procedure is ordered by",
    "protocol_code": "a protocol code of the step",
}
"""Conditions on what is known of the step."""

FIELDS: Mapping[str, str] = {
    "sending_application": "MSH-3",
    "sending_facility": "MSH-4",
    "patient_class": "PV1-2",
    "patient_location": "PV1-3",
    "priority": "OBR-5",
}
"""Conditions on fields of the message under a name; any path (`OBR-21`) may be a column too."""

GIVEN: Mapping[str, str] = {
    "station_ae_titles": "stations that may do the step, separated by blanks or |",
    "station_name": "Scheduled Station Name",
    "location": "Scheduled Procedure Step Location",
}
"""What a row gives; at least one of them."""

STATION_KEYWORDS: Mapping[str, str] = {
    "ScheduledStationAETitle": "station_ae_titles",
    "ScheduledStationName": "station_name",
    "ScheduledProcedureStepLocation": "location",
}
"""Attributes that may be asked for, and the columns that give them."""

ROWS_MAX = 1_000
"""The rows are tried in turn for each step that asks; a department has some dozens."""
_COMMENT = "comment"


class Condition(NamedTuple):
    """A filled cell: its column, the path of a field ('' for what is known of the step), the texts that meet it."""

    column: str
    path: Path | None
    texts: tuple[str, ...]

    def met(self, said: Iterable[str]) -> bool:
        """Whether one of the texts is said, in any case; `CT*` is met by all that begins so, `*` by anything."""
        folded = [one.casefold() for one in said if one]
        return any(
            any(one.startswith(text[:-1]) for one in folded) if text.endswith("*") else text in folded
            for text in self.texts
        )


class Step(NamedTuple):
    """What is known of a step when its station is asked for."""

    modality: str
    procedure_codes: frozenset[str]
    protocol_codes: frozenset[str]
    stations: frozenset[str]


@dataclass(frozen=True, slots=True)
class StationRow:
    """One row: its conditions, and what it gives."""

    line: int
    conditions: tuple[Condition, ...]
    stations: frozenset[str]
    attributes: Attributes = field(repr=False)

    def __str__(self) -> str:
        said = ", ".join(f"{each.column} {' or '.join(each.texts)}" for each in self.conditions)
        return f"stations.csv line {self.line}" + (f": {said}" if said else "")


class Stations:
    """The compiled rows, the most specific first."""

    def __init__(self, rows: Iterable[StationRow] = (), digest: str = "") -> None:
        self.rows = tuple(sorted(rows, key=lambda row: -len(row.conditions)))  # stable: the earlier of two alike
        self.digest = digest

    def find(self, entry: Entry, step: Step) -> StationRow | None:
        """The row for this step: one whose conditions all hold, and with the stations that the order itself names."""
        for row in self.rows:
            if step.stations and not step.stations <= row.stations:
                continue
            if all(each.met(_said(each, entry, step)) for each in row.conditions):
                return row
        return None

    @classmethod
    def compile(cls, rows: Iterable[Mapping[str, str]], source: str = "stations.csv") -> Self:
        """The station rules of these rows. Raises MappingError with every problem."""
        problems: list[Problem] = []
        compiled: list[StationRow] = []
        seen: dict[tuple[Condition, ...], int] = {}
        digest = hashlib.sha256()
        paths: dict[str, Path | None] | None = None
        for line, cells in numbered(rows):
            if len(compiled) == ROWS_MAX:
                problems.append(Problem(source, "", f"more than {ROWS_MAX} rows", "is this the right file?", line))
                break
            if paths is None:
                paths = _columns(cells, source, problems)
            digest.update(repr(sorted(cells.items())).encode())
            row = _row(line, cells, paths, source, problems)
            if row.conditions in seen:
                problems.append(Problem(
                    source, "", f"the conditions of line {seen[row.conditions]} again, so this row never counts",
                    "remove one of them", line,
                ))  # fmt: skip
            seen.setdefault(row.conditions, line)
            compiled.append(row)
        if problems:
            raise MappingError(problems)
        return cls(compiled, digest.hexdigest() if compiled else "")


def _said(condition: Condition, entry: Entry, step: Step) -> Iterable[str]:
    if condition.path is not None:
        return [part(repetition, 1) for repetition in entry.repetitions(condition.path)]
    if condition.column == "modality":
        return (step.modality,)
    return step.procedure_codes if condition.column == "procedure_code" else step.protocol_codes


def _columns(header: Mapping[str, str], source: str, problems: list[Problem]) -> dict[str, Path | None]:
    """The paths of the columns that are conditions; None for what is known of the step.

    Raises MappingError where unknown columns leave none that gives anything: then the rows cannot be understood.
    """
    known = [*STATED, *FIELDS, *GIVEN, _COMMENT]
    found: dict[str, Path | None] = {}
    for column in header:
        if column in STATED:
            found[column] = None
        elif column not in GIVEN and column != _COMMENT:
            try:
                found[column] = parse_path(FIELDS.get(column, column))
            except ValueError:
                hint = did_you_mean(column, known) or f"known are {', '.join(known)}, and paths such as OBR-21"
                problems.append(Problem(source, column, f"unknown column {column!r}", hint, 1))
    if problems and not header.keys() & set(GIVEN):
        raise MappingError(problems)
    return found


def _row(
    line: int, cells: Mapping[str, str], paths: Mapping[str, Path | None], source: str, problems: list[Problem]
) -> StationRow:
    conditions = tuple(
        Condition(column, path, tuple(text.strip().casefold() for text in cells[column].split("|") if text.strip()))
        for column, path in sorted(paths.items())
        if cells.get(column)
    )
    stations = tuple(dict.fromkeys(cells.get("station_ae_titles", "").replace("|", " ").split()))
    for station in stations:
        if not is_ae_title(station):
            hint = "at most 16 ASCII characters"
            problems.append(Problem(source, "station_ae_titles", f"{station!r} is not an AE title", hint, line))
    attributes: Attributes = {}
    if stations:
        attributes[TAG["ScheduledStationAETitle"]] = element("ScheduledStationAETitle", *stations)
    for keyword, column in STATION_KEYWORDS.items():
        text = cells.get(column, "")
        if column == "station_ae_titles" or not text:
            continue
        if len(text) > LENGTH_MAX["SH"] or "\\" in text or not text.isprintable():
            hint = "at most 16 characters, no backslash"
            problems.append(Problem(source, column, f"{text[:40]!r} does not fit DICOM", hint, line))
        attributes[TAG[keyword]] = element(keyword, text)
    if not attributes:
        problems.append(Problem(source, "", "the row gives nothing", f"fill one of {', '.join(GIVEN)}", line))
    return StationRow(line, conditions, frozenset(stations), attributes)
