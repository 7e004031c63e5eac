"""The mappings folder read: rule sets, code tables, translations, catalogue, stations, the site's own converters.

Rule sets of HL7 v2 are in the folder hl7v2, those of FHIR in fhir; outbound ones read reports. Every mistake is a
problem with its file and line. What was read can be written as text (`MappingFolder.content`) from which `mapping_of`
makes the same mapping again, so that the archive can keep what a message was read by. Python files are run only if a
rule set declares a function of theirs, and never from that text.
"""

import csv
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ruamel.yaml.comments import CommentedMap

from gateway.domain.catalogue import Catalogue
from gateway.domain.codes import Translation, compile_concept_map, compile_translation
from gateway.domain.edits import SiteFunction, line_raised
from gateway.domain.identifiers import Issuers
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.mapping import compile_mapping
from gateway.domain.modalities import is_code_string, meant_by
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.problem import MappingError, Problem
from gateway.domain.rows import Row, numbered
from gateway.domain.rule_checks import Library, LineOf
from gateway.domain.stations import Stations
from gateway.domain.tables import compile_table
from gateway.wire.er7_writer import MessageWriter
from gateway.wire.fhir_paths import reader
from gateway.wire.fhir_release import Release
from gateway.yaml_files import line_of, load_yaml, not_utf_8, plain

FILE_BYTES_MAX = 64 * 1_048_576
"""Fifty thousand catalogue rows are 10 MB; more is not a file of this folder."""

_Compiled = TypeVar("_Compiled")


class StationNamed(NamedTuple):
    """An AE title that a row of the folder schedules steps to: in which file, on which line."""

    ae_title: str
    source: str
    line: int


@dataclass
class _Files:
    """What the folder says, as plain data; `functions` is what of it is Python."""

    sources: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Sequence[Row]] = field(default_factory=dict)
    maps: dict[str, Sequence[Row]] = field(default_factory=dict)
    concept_maps: dict[str, Any] = field(default_factory=dict)
    procedures: Sequence[Row] = ()
    stations: Sequence[Row] = ()
    functions: Mapping[str, SiteFunction] = field(default_factory=dict)
    python: Mapping[Path, str] = field(default_factory=dict)
    """What the functions come from."""

    def chain(self, name: str) -> dict[str, Any]:
        """The rule set and what it extends."""
        chain: dict[str, Any] = {}
        while name in self.sources and name not in chain:
            chain[name] = self.sources[name]
            name = str(chain[name].get("extends") or "")
        return chain

    def content(self, name: str) -> str:
        """All that the rule set is made of, as JSON text."""
        if name not in self.sources:
            raise KeyError(name)
        return json.dumps(
            {
                "mapping": name,
                "sources": self.chain(name),
                "tables": _written(self.tables),
                "maps": _written(self.maps),
                "concept_maps": self.concept_maps,
                "procedures": _lines(self.procedures),
                "stations": _lines(self.stations),
            },
            ensure_ascii=False,
            default=str,  # YAML knows dates, which rules have no use for
        )


@dataclass(frozen=True)
class MappingRecipe:
    """What a folder's rule sets are made of, as values: another process makes the same of them and reads no file."""

    files: _Files = field(default_factory=_Files, repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)

    @property
    def systems(self) -> dict[str, str]:
        """The FHIR systems of the coding schemes that coding-schemes.csv adds, by designator: of several the first."""
        rows = reversed(self.files.tables.get("coding-schemes", ()))
        return {each.get("value", ""): each["code"] for each in rows if ":" in each.get("code", "")}

    def mappings(self, names: Iterable[str]) -> dict[str, FieldMapping]:
        """Those rule sets, compiled. Raises MappingError."""
        problems: list[Problem] = []
        files = replace(self.files, functions=_functions(self.files.python, problems))
        made = _made(files, problems)
        if problems:
            raise MappingError(problems)
        return {name: compile_mapping(files.sources, name, issuers=self.issuers, **made) for name in names}


@dataclass(frozen=True)
class MappingFolder:
    """The rule sets of a folder that have no problem, and what each is made of."""

    mappings: Mapping[str, FieldMapping] = field(default_factory=dict)
    content: Callable[[str], str] = field(default=lambda name: "", repr=False)
    """The name of a rule set -> all that it is made of, as text for `mapping_of`. Raises KeyError."""
    names: frozenset[str] = frozenset()
    """All that the folder has, also those with a problem."""
    stations: Sequence[StationNamed] = ()
    """The stations that the catalogue and the station rules name, each where it is named first."""
    outbound: Mapping[str, MessageWriter] = field(default_factory=dict)
    """The rule sets of the folder `outbound` that have no problem, ready to write messages."""
    outbound_names: frozenset[str] = frozenset()
    """All that there are, also those with a problem."""
    outbound_content: Callable[[str], str] = field(default=lambda name: "", repr=False)
    """As `content`, for `outbound_of`."""
    recipe: MappingRecipe = field(default_factory=MappingRecipe, repr=False)


def _written(files: Mapping[str, Sequence[Row]]) -> dict[str, list[list[Any]]]:
    return {name: _lines(rows) for name, rows in files.items()}


def _lines(rows: Iterable[Row]) -> list[list[Any]]:
    return [[row.line, dict(row)] for row in rows]


def _rows_of(lines: Iterable[Sequence[Any]]) -> list[Row]:
    return [Row(cells, line) for line, cells in lines]


def load_mappings(
    folder: Path,
    issuers: Issuers,
    problems: list[Problem],
    overlays: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    fhir: bool = True,
) -> MappingFolder:
    """Every rule set of the folder, compiled; problems are noted.

    `overlays` are rule sets by name that are no files: what a listener has otherwise than its mapping. Without `fhir`
    those of FHIR are left alone: reading and compiling them takes time that a site without FHIR need not wait.
    """
    if not folder.is_dir():
        problems.append(
            Problem(str(folder), "mappings", "is no folder", "run `gateway init DIR` for a complete example")
        )
        return MappingFolder()
    files = _Files()
    files.sources, lines = _both_languages(folder, problems) if fhir else _rule_sets(folder / "hl7v2", "", problems)
    outbound, outbound_lines = _rule_sets(folder / "outbound", "outbound/", problems)
    files.sources |= {
        name: overlay for name, overlay in (overlays or {}).items() if overlay["extends"] in files.sources
    }
    _read_codes(folder / "codes", files, problems)
    files.procedures = read_rows(folder / "procedures.csv", problems)
    files.stations = read_rows(folder / "stations.csv", problems)
    if any(source.get("converters") for source in (*files.sources.values(), *outbound.values())):
        files.python = _python(folder / "converters", problems)
        files.functions = _functions(files.python, problems)
    made = _made(files, problems)
    mappings = _compiled(
        files.sources, lines, problems,
        lambda name, where: compile_mapping(files.sources, name, issuers=issuers, line_of=where, **made),
    )  # fmt: skip
    writers = _compiled(
        outbound, outbound_lines, problems,
        lambda name, where: MessageWriter(compile_outbound(outbound, name, _library(made), where)),
    )  # fmt: skip
    problems += _modality_slips(files)
    return MappingFolder(
        mappings, files.content, frozenset(files.sources), tuple(_stations_named(files)), writers, frozenset(outbound),
        replace(files, sources=outbound, procedures=(), stations=()).content,
        MappingRecipe(replace(files, functions={}), issuers),
    )  # fmt: skip


_Lines = dict[str, tuple[str, CommentedMap]]
"""Of each rule set its file and the tree of it, for line numbers."""


def _both_languages(folder: Path, problems: list[Problem]) -> tuple[dict[str, Any], _Lines]:
    """The rule sets of HL7 v2 and of FHIR. Listeners call them by name, so no two have the same."""
    hl7, hl7_lines = _rule_sets(folder / "hl7v2", "", problems)
    fhir, fhir_lines = _rule_sets(folder / "fhir", "fhir/", problems)
    for name, (file, tree) in fhir_lines.items():
        if name in hl7:
            text = f"{hl7_lines[name][0]} is named {name} already"
            line = line_of(tree, ("name",)) or 1
            problems.append(Problem(file, "name", text, "give one of them another name", line))
        elif not tree.keys() & {"fhir", "extends"}:
            problems.append(Problem(file, "fhir", "names no release of FHIR", "write fhir: R4, or fhir: R5", 1))
    for file, tree in hl7_lines.values():
        if "fhir" in tree:
            text = "reads FHIR, and this is the folder of HL7 v2"
            problems.append(Problem(file, "fhir", text, "move it to the folder fhir", line_of(tree, ("fhir",))))
    return fhir | hl7, fhir_lines | hl7_lines


def _rule_sets(folder: Path, prefix: str, problems: list[Problem]) -> tuple[dict[str, Any], _Lines]:
    """The rule files of one folder by the names of their rule sets; `prefix` is the folder in problems."""
    sources: dict[str, Any] = {}
    lines: _Lines = {}
    for path in sorted(folder.glob("*.yaml")):
        shown = f"{prefix}{path.name}"
        tree = load_yaml(path, problems)
        if tree is None:
            continue
        if not isinstance(tree, CommentedMap):
            problems.append(Problem(shown, "", "is no mapping: key-value pairs expected", line=1))
            continue
        name = str(tree.get("name", path.stem))
        if name in lines:
            hint = "give one of them another name"
            text = f"{lines[name][0]} is named {name} already"
            problems.append(Problem(shown, "name", text, hint, line_of(tree, ("name",)) or 1))
            continue
        sources[name], lines[name] = plain(tree), (shown, tree)
    return sources, lines


def _compiled(
    sources: Iterable[str], lines: _Lines, problems: list[Problem], compile_it: Callable[[str, LineOf], _Compiled]
) -> dict[str, _Compiled]:
    """The rule sets that have no problem."""

    def where(source: str, keys: tuple[str, ...]) -> int | None:
        return line_of(lines[source][1], keys) if source in lines else None

    found: dict[str, _Compiled] = {}
    for name in sorted(sources):
        try:
            found[name] = compile_it(name, where)
        except MappingError as error:
            told = (
                replace(each, source=lines[each.source][0]) if each.source in lines else each for each in error.problems
            )
            problems += [problem for problem in told if problem not in problems]  # a base is compiled with each overlay
    return found


def mapping_of(content: str, issuers: Issuers, folder: Path | None = None) -> FieldMapping:
    """The mapping that `content` describes.

    Python functions are those that the mappings `folder` has today; whether they are the ones of then, the
    `version_id` tells. Raises MappingError, also for a function that is not there any more.
    """
    name, files, made = _read_back(content, folder)
    return compile_mapping(files.sources, name, issuers=issuers, **made)


def outbound_of(content: str, folder: Path | None = None) -> MessageWriter:
    """The outbound mapping that `content` describes; as `mapping_of`."""
    name, files, made = _read_back(content, folder)
    return MessageWriter(compile_outbound(files.sources, name, _library(made)))


def _library(made: Mapping[str, Any]) -> Library:
    return Library(made["tables"], {}, made["translations"], made["functions"])  # it reads reports, not resources


def _read_back(content: str, folder: Path | None) -> tuple[str, _Files, dict[str, Any]]:
    """The name of the rule set that `content` describes, what it is made of, and that compiled. Raises MappingError."""
    said = json.loads(content)
    files = _Files(
        said["sources"],
        {name: _rows_of(rows) for name, rows in said["tables"].items()},
        {name: _rows_of(rows) for name, rows in said["maps"].items()},
        said["concept_maps"],
        _rows_of(said["procedures"]),
        _rows_of(said["stations"]),
    )
    problems: list[Problem] = []
    if folder is not None and any(source.get("converters") for source in files.sources.values()):
        files.functions = read_functions(folder / "converters", problems)
    made = _made(files, problems)
    if problems:
        raise MappingError(problems)
    return said["mapping"], files, made


def _made(files: _Files, problems: list[Problem]) -> dict[str, Any]:
    """What all rule sets share, compiled; what has a problem is as if it were empty."""

    def made(compile_it: Callable[[], _Compiled], empty: _Compiled) -> _Compiled:
        try:
            return compile_it()
        except MappingError as error:
            problems.extend(error.problems)
            return empty

    tables = {
        name: made(partial(compile_table, f"{name}.csv", rows), compile_table(name, ()))
        for name, rows in files.tables.items()
    }
    schemes = tables.get("coding-schemes")
    translations = {
        name: made(partial(compile_translation, name, rows, f"{name}.csv", schemes), Translation(name, {}))
        for name, rows in files.maps.items()
    } | {
        name: made(partial(compile_concept_map, name, resource, f"{name}.json", schemes), Translation(name, {}))
        for name, resource in files.concept_maps.items()
    }
    return {
        "catalogue": made(partial(Catalogue.compile, files.procedures), Catalogue()),
        "stations": made(partial(Stations.compile, files.stations), Stations()),
        "tables": tables,
        "translations": translations,
        "functions": files.functions,
        "readers": {release.value: reader(release) for release in Release},
    }


# ---- what is only checked in files: what an earlier release took and archived is still read by ----


def _rows_by_file(files: _Files) -> Iterator[tuple[str, int, Mapping[str, str]]]:
    for source, rows in (("procedures.csv", files.procedures), ("stations.csv", files.stations)):
        for line, cells in numbered(rows):
            yield source, line, cells


def _modality_slips(files: _Files) -> Iterator[Problem]:
    """A problem for each modality of the catalogue and the station rules that no device will ask for.

    Conditions of station rules may be several, and the beginning of a word (`CT*`).
    """
    words = files.tables.get("modality", ())
    translations = {row.get("code", "").strip(): row.get("value", "").strip() for row in words}
    for source, line, cells in _rows_by_file(files):
        for said in filter(None, (word.strip() for word in cells.get("modality", "").split("|"))):
            word = said.upper()
            if source == "stations.csv" and not is_code_string(word.removesuffix("*") or "CT"):
                text = f"{said[:40]!r} is not a modality code, so no step meets it"
                yield Problem(source, "modality", text, "such as CT, MR|US", line)
            elif is_code_string(word) and (meant := meant_by(word, translations)):
                text = f"{said!r} is not a modality of DICOM, so no device asks for it"
                yield Problem(source, "modality", text, f"did you mean {meant}?", line)


def _stations_named(files: _Files) -> Iterator[StationNamed]:
    told: set[tuple[str, str]] = set()
    for source, line, cells in _rows_by_file(files):
        for ae_title in cells.get("station_ae_titles", "").replace("|", " ").split():
            if (source, ae_title) not in told:
                told.add((source, ae_title))
                yield StationNamed(ae_title, source, line)


def _read_codes(folder: Path, files: _Files, problems: list[Problem]) -> None:
    """Code tables and translations; the columns of a CSV file say which it is."""
    for path in sorted(folder.glob("*.csv")):
        rows = read_rows(path, problems)
        kind = files.maps if rows and "source_code" in rows[0] else files.tables
        kind[path.stem] = rows
    for path in sorted(folder.glob("*.json")):
        if path.stem in files.maps or path.stem in files.tables:
            problems.append(Problem(path.name, "", f"{path.stem}.csv has this name already", "rename one of them"))
        text = _text(path, problems)
        try:
            files.concept_maps[path.stem] = json.loads(text) if text else None
        except json.JSONDecodeError as error:
            problems.append(Problem(path.name, "", f"is not JSON: {error.msg}", line=error.lineno))
        except RecursionError:
            problems.append(Problem(path.name, "", "is nested too deeply"))


# ---- CSV ----


def read_rows(path: Path, problems: list[Problem]) -> list[Row]:
    """The rows of a CSV file with a header; none if there is no such file.

    Empty lines and lines that begin with # are skipped, but count for line numbers.
    """
    text = _text(path, problems) if path.is_file() else ""
    reader = csv.reader(_without_comments(text), strict=True)
    header: list[str] = []
    rows: list[Row] = []
    began = 1
    try:
        for cells in reader:
            line, began = began, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(path, line, cells, problems)
                if not header:
                    return []
            elif any(cell.strip() for cell in cells[len(header) :]):
                extra = ", ".join(filter(None, cells[len(header) :]))
                text = f"more cells than columns: {extra!r}"
                problems.append(Problem(path.name, "", text, "quote cells that have commas", line))
            else:
                rows.append(Row(dict(zip(header, cells, strict=False)), line))
    except csv.Error as error:
        problems.append(Problem(path.name, "", f"is not CSV: {error}", 'a " inside quotes is written ""', began))
    return rows


def _header(path: Path, line: int, cells: Sequence[str], problems: list[Problem]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        hint = "save it as CSV with commas"
        problems.append(Problem(path.name, "", f"cells are not separated by commas: {header[0]!r}", hint, line))
        return []
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        problems.append(Problem(path.name, twice[0], f"column {twice[0]!r} is there twice", "remove one", line))
        return []
    return header


def _without_comments(text: str) -> Iterator[str]:
    """The lines of a text, comments as empty lines so that the rest keeps its numbers."""
    for line in text.splitlines(keepends=True):
        yield "\n" if line.lstrip().startswith("#") else line


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            problems.append(Problem(path.name, "", f"has more than {FILE_BYTES_MAX} bytes", "is this the right file?"))
            return ""
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(not_utf_8(path, error))
    except OSError as error:
        problems.append(Problem(path.name, "", f"cannot be read: {error.strerror or type(error).__name__}"))
    return ""


# ---- Python ----


def read_functions(folder: Path, problems: list[Problem]) -> dict[str, SiteFunction]:
    """The functions of the folder's Python files, as FILE.FUNCTION. The files are run: they are the site's own code."""
    return _functions(_python(folder, problems), problems)


def _python(folder: Path, problems: list[Problem]) -> dict[Path, str]:
    return {path: _text(path, problems) for path in sorted(folder.glob("*.py"))}


def _functions(python: Mapping[Path, str], problems: list[Problem]) -> dict[str, SiteFunction]:
    found: dict[str, SiteFunction] = {}
    for path, text in python.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        module = types.ModuleType(path.stem)
        module.__file__ = str(path)
        try:
            exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102  (what the site put there for this)
        except SyntaxError as error:
            problems.append(Problem(path.name, "", f"is not Python: {error.msg}", line=error.lineno))
            continue
        except (Exception, SystemExit) as error:
            problems.append(Problem(path.name, "", f"fails when it is read: {type(error).__name__}: {error}",
                                    line=line_raised(error, str(path))))  # fmt: skip
            continue
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == path.stem and not name.startswith("_"):
                place = f"converters/{path.name}:{function.__code__.co_firstlineno}"
                found[f"{path.stem}.{name}"] = SiteFunction(f"{path.stem}.{name}", function, place, digest)
    return found
