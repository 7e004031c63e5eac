"""Golden cases in a mappings folder: which there are, which mapping each is for, what it must give.

A case is `NAME.hl7`, or `NAME.json` with a FHIR resource or Bundle, and beside it `NAME.expected.json`. A folder in
`cases` that is called like a mapping holds the cases of that mapping; any other case names one under `given`, or is for
DEFAULT_MAPPING or DEFAULT_FHIR_MAPPING. Those in the folder OUTBOUND are of another kind.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.transcript import Readable, differences
from gateway.workflow.golden_cases import case_outcome, fhir_case_outcome

DEFAULT_MAPPING = "ihe-swf"
DEFAULT_FHIR_MAPPING = "imaging-order"
MESSAGE, RESOURCE, EXPECTED = ".hl7", ".json", ".expected.json"
OUTBOUND = "outbound"
"""The folder of the cases of outbound mappings (`outbound_cases`)."""

_GIVEN = ("mapping", "default_issuer", "default_charset")


class CaseError(ValueError):
    """A case that cannot be run, in words for people."""


@dataclass(frozen=True, slots=True)
class Case:
    """One golden case. `expected` is None where nobody said yet what it must give."""

    name: str
    message: Path
    mapping: str
    given: Mapping[str, str]
    expected: Readable | None = field(repr=False)

    @property
    def expected_file(self) -> Path:
        return self.message.with_name(self.message.stem + EXPECTED)

    @property
    def files(self) -> tuple[Path, ...]:
        return self.message, self.expected_file


@dataclass(frozen=True, slots=True)
class Result:
    """What a case gave, and where that is not what it must give."""

    case: Case
    got: Readable = field(repr=False)
    differences: tuple[str, ...] = field(repr=False)

    @property
    def passed(self) -> bool:
        return self.case.expected is not None and not self.differences

    def accept(self) -> None:
        """Say from now on that this is what the case must give."""
        case = self.case
        told = {**({"given": dict(case.given)} if case.given else {}), **self.got}
        case.expected_file.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


class Named(Protocol):
    """A golden case of either kind."""

    @property
    def name(self) -> str: ...
    @property
    def files(self) -> tuple[Path, ...]: ...


AnyCase = TypeVar("AnyCase", bound=Named)


def cases_in(folder: Path, known: Collection[str]) -> list[Case]:
    """The cases of `folder`, by name; `known` are the mappings that there are. Raises CaseError."""
    resources = (path for path in folder.rglob(f"*{RESOURCE}") if not path.name.endswith(EXPECTED))
    paths = sorted((*folder.rglob(f"*{MESSAGE}"), *resources))
    return [read_case(path, folder, known) for path in paths if path.relative_to(folder).parts[0] != OUTBOUND]


def chosen(cases: Sequence[AnyCase], wanted: Sequence[str]) -> list[AnyCase]:
    """Those of the cases that are named: by name, by pattern, or by one of their files. Raises CaseError."""
    if not wanted:
        return list(cases)
    found: dict[str, AnyCase] = {}
    for text in wanted:
        fitting = [case for case in cases if _is_named(case, text)]
        if not fitting:
            raise CaseError(f"there is no golden case {text}; have: {', '.join(case.name for case in cases) or 'none'}")
        found |= {case.name: case for case in fitting}
    return list(found.values())


def _is_named(case: Named, text: str) -> bool:
    return fnmatch(case.name, text) or Path(text).resolve() in [path.resolve() for path in case.files]


def read_case(message: Path, folder: Path, known: Collection[str]) -> Case:
    """The case of one message file in the cases folder. Raises CaseError."""
    name = message.relative_to(folder).with_suffix("").as_posix()
    expected_file = message.with_name(message.stem + EXPECTED)
    expected: Any = None
    if expected_file.is_file():
        try:
            expected = json.loads(expected_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CaseError(f"{expected_file}: is no JSON: {error}") from None
        if not isinstance(expected, dict):
            raise CaseError(f"{expected_file}: a transcript is an object")
    given = expected.pop("given", {}) if expected else {}
    strange = [key for key in given if key not in _GIVEN]
    if strange:
        raise CaseError(f"{expected_file}: `given` has no {strange[0]}; it may have {', '.join(_GIVEN)}")
    in_folder = name.split("/")[0] if "/" in name else ""
    default = DEFAULT_FHIR_MAPPING if message.suffix == RESOURCE else DEFAULT_MAPPING
    mapping = given.get("mapping") or (in_folder if in_folder in known else default)
    if mapping not in known:
        raise CaseError(f"{name}: there is no mapping {mapping}; have: {', '.join(sorted(known)) or 'none'}")
    return Case(name, message, mapping, given, expected)


def run_cases(cases: Sequence[Case], mappings: Mapping[str, FieldMapping]) -> Iterator[Result]:
    """Each case's result."""
    for case in cases:
        settings = {key: value for key, value in case.given.items() if key != "mapping"}
        outcome = fhir_case_outcome if case.message.suffix == RESOURCE else case_outcome
        got = outcome(mappings[case.mapping], case.message.read_bytes(), **settings)
        yield Result(case, got, tuple(differences(case.expected or {}, got)))


def write_case(folder: Path, name: str, message: bytes, mapping: FieldMapping, given: Mapping[str, str]) -> Case:
    """A new case with what the mapping makes of it now. Raises CaseError if there is one of that name."""
    file = folder / f"{name}{MESSAGE}"
    if file.exists():
        raise CaseError(f"{file} exists already; give another --name")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(message)
    case = Case(name, file, mapping.name, given, None)
    (result,) = run_cases([case], {mapping.name: mapping})
    result.accept()
    return case
