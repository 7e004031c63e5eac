"""What FHIR says of each element: its type, how often, which codes, which targets.

Read from tables beside this module, one for each release, which are made of the models of fhir.resources
(`python -m tests.fhir_tables`): the models themselves are pydantic's, and importing them takes a second and 30 MB. What
they leave out or have otherwise than the specification is put right here, from the tables of `fhir_value_sets`. A line
of a table is read when its type is first asked for.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from gateway.wire.fhir_release import Release
from gateway.wire.fhir_value_sets import CODES, EXTENSION_TYPES_LACKING, TARGETS_R4, TYPES_LACKING_IN_R4

PRIMITIVES = frozenset(
    {"base64Binary", "boolean", "canonical", "code", "date", "dateTime", "decimal", "id", "instant", "integer",
     "integer64", "markdown", "oid", "positiveInt", "string", "time", "unsignedInt", "uri", "url", "uuid", "xhtml"}
)  # fmt: skip
ANY_RESOURCE = "Resource"
"""The type of what may be any resource: `contained`, and what a reference without declared targets leads to."""
ABSTRACT = frozenset({"Resource", "DomainResource", "CanonicalResource", "MetadataResource"})
"""Types of which no resource is by itself."""
MANY, REQUIRED = "*", "!"
"""How the tables mark an element that is a list in JSON, and one that must be there (of a choice: one of its types)."""


class Element(NamedTuple):
    """One element of a type, under the name that JSON has for it (`valueQuantity`)."""

    name: str
    type: str
    """Its FHIR type: `code`, `Identifier`, `TaskInput` of elements with elements of their own, `Resource` of any."""
    many: bool
    primitive: bool
    choice: str
    """The name of the choice it is of (`value`), '' of others."""
    codes: frozenset[str]
    """The only codes it takes; empty for any."""
    targets: frozenset[str]
    """The only types that a reference or canonical may point to; empty for any."""

    @property
    def path(self) -> str:
        """Its name in FHIRPath: that of the choice, where it is of one."""
        return self.choice or self.name


class Shape(NamedTuple):
    """A type: its elements in the order of the specification, by their names in JSON."""

    type: str
    is_resource: bool
    elements: Mapping[str, Element]
    required: tuple[str, ...]
    choices: Mapping[str, bool]
    """Choices -> whether one of them must be there."""


@cache  # bounded by the types that FHIR has
def shape(release: Release, name: str) -> Shape | None:
    """The type of that name; None where the release has none, or a primitive one. Thread-safe."""
    line = _lines(_TABLES[release]).get(name) if name in type_names(release) else None
    if line is None:
        return None
    rows = {key: _Row(*row) for key, row in json.loads(line).items()}
    if name == "Extension":
        rows = _values_of_extensions(release, rows)
    found = {key: _element(release, name, key, row) for key, row in rows.items()}
    required = tuple(key for key, row in rows.items() if REQUIRED in row.marks and not row.choice)
    choices = {row.choice: REQUIRED in row.marks for row in rows.values() if row.choice}
    is_resource = "implicitRules" in rows and name not in ABSTRACT  # which all resources have and nothing else
    return Shape(name, is_resource, found, required, choices)


def resource_shape(release: Release, name: object) -> Shape | None:
    """The resource type of that name; None for anything else."""
    found = shape(release, name) if isinstance(name, str) and name.isascii() and name.isalpha() else None
    return found if found is not None and found.is_resource else None


@cache
def type_names(release: Release) -> frozenset[str]:
    """The types of the release: resources, data types, backbone elements and primitives."""
    known = PRIMITIVES | _lines(_TABLES[release]).keys()
    return known - TYPES_LACKING_IN_R4 if release is Release.R4 else known


_TABLES: Mapping[Release, str] = {
    Release.R4: "fhir_r4b.txt",  # there is no package of R4 models: its differences are in `fhir_value_sets`
    Release.R4B: "fhir_r4b.txt",
    Release.R5: "fhir_r5.txt",
}


@cache
def _lines(table: str) -> Mapping[str, str]:
    """The lines of a table by their types, unread: most types are never asked for."""
    text = (files("gateway.wire") / "tables" / table).read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())


class _Row(NamedTuple):
    """What a table says of an element; what is empty at the end of a row is left out there."""

    type: str
    marks: str = ""
    choice: str = ""
    only: Sequence[str] = ()
    """Codes of a code, targets of others."""


def _values_of_extensions(release: Release, rows: Mapping[str, _Row]) -> dict[str, _Row]:
    """Extension.value[x] as the release has it."""
    known = {key: row for key, row in rows.items() if row.type not in EXTENSION_TYPES_LACKING[release]}
    return {**known, "valueMeta": _Row("Meta", "", "value")}  # every release has it; the models leave it out


def _element(release: Release, of: str, name: str, row: _Row) -> Element:
    is_code = row.type == "code"
    codes = CODES.get((of, name), {}).get(release)
    if codes is None:
        codes = frozenset(row.only) if is_code else frozenset()
    targets = frozenset() if is_code or ANY_RESOURCE in row.only else frozenset(row.only)
    if release is Release.R4:
        targets = TARGETS_R4.get((of, name), targets)
    return Element(name, row.type, MANY in row.marks, row.type in PRIMITIVES, row.choice, codes, targets)
