"""The procedure catalogue: what a procedure code means here — modality, stations, protocol codes, steps.

Most order feeds carry a bare code. The catalogue fills what the order lacks and overrides nothing that it says.
Rows come from `procedures.csv`; a code may have several rows: several steps, or several protocol codes of one step.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, code_item, element
from gateway.domain.coding_schemes import LOCAL
from gateway.domain.converters import Setting, Unconvertible, is_ae_title, scheme_designator
from gateway.domain.modalities import is_code_string
from gateway.domain.problem import MappingError, Problem
from gateway.domain.rows import numbered, unknown_columns

COLUMNS: Mapping[str, str] = {
    "code": "procedure code as ordered (required)",
    "scheme": "its coding scheme as the feed names it; empty: any",
    "description": "Requested Procedure Description",
    "modality": "modality of the step (DICOM code)",
    "protocol_code": "protocol code of the step; further rows add further codes",
    "protocol_scheme": "its coding scheme",
    "protocol_meaning": "its meaning, also the step's description",
    "step": "which step of the procedure, a number or a name; empty: the only one",
    "station_ae_titles": "stations that may do the step, separated by blanks or |",
    "station_name": "Scheduled Station Name",
    "location": "Scheduled Procedure Step Location",
    "duration_min": "planned minutes, for the end of the step",
}
"""The columns of procedures.csv and what they mean."""

STEP_KEYWORDS = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledStationName",
    "ScheduledProcedureStepLocation",
    "ScheduledProcedureStepDescription",
    "ScheduledProtocolCodeSequence",
    "ScheduledProcedureStepEndDate",
    "ScheduledProcedureStepEndTime",
)
"""What it can give to a step. The end is given where start and duration are known."""
PROCEDURE_KEYWORDS = ("RequestedProcedureDescription", "RequestedProcedureCodeSequence")
"""What it can give to a requested procedure."""

ROWS_MAX = 50_000
"""Ten times the code list of a large hospital group; more is a mistaken file."""
_STEP_COLUMNS = ("modality", "station_ae_titles", "station_name", "location", "duration_min")
_OF_A_STATION = (TAG["ScheduledStationName"], TAG["ScheduledProcedureStepLocation"])
_DURATION_MIN_MAX = 1440


@dataclass(frozen=True, slots=True)
class CatalogueStep:
    """One step of a catalogued procedure. `duration_min` is 0 where it is not known."""

    name: str
    modality: str
    stations: tuple[str, ...]
    protocol_codes: tuple[str, ...]
    duration_min: int
    attributes: Attributes = field(repr=False)

    def for_stations(self, stations: frozenset[str]) -> Attributes:
        """What it gives to an order for these stations: no name or place that belong to another one."""
        if stations <= frozenset(self.stations):
            return self.attributes
        return {tag: held for tag, held in self.attributes.items() if tag not in _OF_A_STATION}


@dataclass(frozen=True, slots=True)
class CatalogueProcedure:
    """One procedure code with its steps, in the order of the rows."""

    code: str
    scheme: str
    attributes: Attributes = field(repr=False)
    steps: tuple[CatalogueStep, ...]
    line: int = 0

    def fitting(self, stated: "Stated") -> tuple[CatalogueStep, ...]:
        """The steps that do not contradict what an order says of its own step."""
        steps = tuple(step for step in self.steps if not stated.modality or step.modality in ("", stated.modality))
        at_station = tuple(step for step in steps if stated.stations & set(step.stations))
        steps = at_station or steps
        if not stated.protocol_codes:
            return steps
        exact = tuple(step for step in steps if stated.protocol_codes & set(step.protocol_codes))
        return exact or (steps if len(steps) == 1 else ())


@dataclass(frozen=True, slots=True)
class Stated:
    """What an order says of a step itself; empty where it is silent."""

    modality: str = ""
    protocol_codes: frozenset[str] = frozenset()
    stations: frozenset[str] = frozenset()


class Catalogue:
    """The compiled rows, looked up by code and scheme."""

    def __init__(self, procedures: Sequence[CatalogueProcedure] = (), digest: str = "") -> None:
        self.procedures = tuple(procedures)
        self.digest = digest
        self._exact = {(procedure.code, procedure.scheme): procedure for procedure in procedures}
        self._by_code: dict[str, CatalogueProcedure | None] = {}
        for procedure in procedures:
            self._by_code[procedure.code] = None if procedure.code in self._by_code else procedure

    def find(self, code: str, scheme: str = "") -> CatalogueProcedure | None:
        """The procedure by code and scheme (a DICOM designator).

        A code of another scheme than the rows' is another code: it finds only rows that leave the scheme open. A code
        that names no scheme in particular finds the rows of any, if all are of one.
        """
        found = self._exact.get((code, scheme)) or self._exact.get((code, ""))
        return self._by_code.get(code) if found is None and scheme in LOCAL else found

    @classmethod
    def compile(cls, rows: Iterable[Mapping[str, str]], source: str = "procedures.csv") -> Self:
        """The catalogue of these rows. Raises MappingError with every problem."""
        problems: list[Problem] = []
        grouped: dict[tuple[str, str], list[tuple[int, Mapping[str, str]]]] = {}
        digest = hashlib.sha256()
        for number, (line, cells) in enumerate(numbered(rows), 1):
            if number == 1:
                problems += unknown_columns(cells, COLUMNS, source, ("code",))
            if number > ROWS_MAX:
                problems.append(Problem(source, "", f"more than {ROWS_MAX} rows", "is this the right file?", line))
                break
            digest.update(repr(sorted(cells.items())).encode())
            if not cells.get("code"):
                problems.append(Problem(source, "code", "a row without a procedure code", "", line))
                continue
            try:
                scheme = _designator(cells.get("scheme", ""))
            except Unconvertible as problem:
                problems.append(Problem(source, "scheme", problem.text, problem.hint, line))
                continue
            grouped.setdefault((cells["code"], scheme), []).append((line, cells))
        procedures = [_procedure(code, scheme, lines, source, problems) for (code, scheme), lines in grouped.items()]
        if problems:
            raise MappingError(problems)
        return cls(procedures, digest.hexdigest())


def _designator(scheme: str) -> str:
    return scheme_designator(scheme, Setting()) if scheme else ""


_Lines = Sequence[tuple[int, Mapping[str, str]]]


def _procedure(code: str, scheme: str, lines: _Lines, source: str, problems: list[Problem]) -> CatalogueProcedure:
    by_step: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for line, cells in lines:
        by_step.setdefault(cells.get("step", ""), []).append((line, cells))
    if len(by_step) > 1 and "" in by_step:
        problems.append(
            Problem(
                source, "step", f"{code}: some rows name a step and some do not", "name it in all of them", lines[0][0]
            )
        )
    description = _agreed("description", lines, source, problems)
    _bounded("description", description, LENGTH_MAX["LO"], lines[0][0], source, problems)
    attributes: Attributes = {}
    if description:
        _put(attributes, "RequestedProcedureDescription", description)
    if scheme:
        _put(attributes, "RequestedProcedureCodeSequence", code_item(code, scheme, description))
    return CatalogueProcedure(
        code,
        scheme,
        attributes,
        tuple(_step(name, rows, source, problems) for name, rows in by_step.items()),
        lines[0][0],
    )


def _step(name: str, lines: _Lines, source: str, problems: list[Problem]) -> CatalogueStep:
    first = lines[0][0]
    agreed = {column: _agreed(column, lines, source, problems) for column in _STEP_COLUMNS}
    modality = agreed["modality"].upper()
    if modality and not is_code_string(modality):
        problems.append(
            Problem(source, "modality", f"{modality!r} is not a modality code", "such as CT, MR, US", first)
        )
    stations = tuple(dict.fromkeys(agreed["station_ae_titles"].replace("|", " ").split()))
    for station in stations:
        if not is_ae_title(station):
            problems.append(
                Problem(
                    source, "station_ae_titles", f"{station!r} is not an AE title", "at most 16 ASCII characters", first
                )
            )
    duration = agreed["duration_min"]
    minutes = int(duration) if duration.isascii() and duration.isdigit() else 0
    if duration and not 0 < minutes <= _DURATION_MIN_MAX:
        problems.append(Problem(source, "duration_min", f"{duration!r} is not a number of minutes", "1 to 1440", first))
    _bounded("station_name", agreed["station_name"], LENGTH_MAX["SH"], first, source, problems)
    _bounded("location", agreed["location"], LENGTH_MAX["SH"], first, source, problems)
    protocols = [_protocol(cells, line, source, problems) for line, cells in lines if cells.get("protocol_code")]
    meanings = [cells["protocol_meaning"] for _, cells in lines if cells.get("protocol_meaning")]
    named = name if name and not name.isdigit() else ""
    label = named or (meanings[0] if meanings else "") or _first("description", lines)
    attributes: Attributes = {}
    if modality:
        _put(attributes, "Modality", modality)
    if stations:
        _put(attributes, "ScheduledStationAETitle", *stations)
    if agreed["station_name"]:
        _put(attributes, "ScheduledStationName", agreed["station_name"])
    if agreed["location"]:
        _put(attributes, "ScheduledProcedureStepLocation", agreed["location"])
    if label:
        _put(attributes, "ScheduledProcedureStepDescription", label[: LENGTH_MAX["LO"]])
    if protocols:
        _put(attributes, "ScheduledProtocolCodeSequence", *protocols)
    codes = tuple(cells["protocol_code"] for _, cells in lines if cells.get("protocol_code"))
    return CatalogueStep(name, modality, stations, codes, minutes, attributes)


def _protocol(cells: Mapping[str, str], line: int, source: str, problems: list[Problem]) -> Attributes:
    try:
        scheme = scheme_designator(cells.get("protocol_scheme", ""), Setting())
    except Unconvertible as problem:
        problems.append(Problem(source, "protocol_scheme", problem.text, problem.hint, line))
        scheme = ""
    return code_item(cells["protocol_code"], scheme, cells.get("protocol_meaning", ""))


def _first(column: str, lines: _Lines) -> str:
    return next((cells[column] for _, cells in lines if cells.get(column)), "")


def _agreed(column: str, lines: _Lines, source: str, problems: list[Problem]) -> str:
    """The one value of a column in rows that belong together; empty cells agree with anything."""
    value = _first(column, lines)
    for line, cells in lines:
        if cells.get(column) and cells[column] != value:
            problems.append(Problem(
                source, column, f"{cells['code']}: {cells[column]!r} contradicts {value!r} in an earlier row",
                "rows of one step may differ only in their protocol code", line,
            ))  # fmt: skip
    return value


def _bounded(column: str, value: str, limit: int, line: int, source: str, problems: list[Problem]) -> None:
    if len(value) > limit:
        problems.append(
            Problem(source, column, f"{len(value)} characters, but DICOM allows {limit}", "shorten it", line)
        )
    elif "\\" in value or not value.isprintable():
        problems.append(Problem(source, column, "a backslash or control character", "remove it", line))


def _put(attributes: Attributes, keyword: str, *values: object) -> None:
    attributes[TAG[keyword]] = element(keyword, *values)
