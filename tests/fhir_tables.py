"""Makes the tables that the gateway knows FHIR by: `python -m tests.fhir_tables` (`make docs` runs it too).

The types of each release are read off the models of fhir.resources, element by element (`gateway.wire.fhir_shapes`
reads what is written here); the shipped rule sets' expressions are parsed by fhirpathpy (`gateway.wire.fhir_syntax`).
A test makes the tables again and compares.
"""

import gzip
import importlib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from fhir_core.constraints import FHIR_PRIMITIVES_MAPS
from fhir_core.types import FhirBase

import gateway
from gateway.domain.identifiers import Issuers
from gateway.examples import folder
from gateway.mapping_files import load_mappings
from gateway.wire.fhir_paths import FHIRPaths
from gateway.wire.fhir_shapes import MANY, REQUIRED
from gateway.wire.fhir_syntax import by_grammar

FOLDER = Path(gateway.__file__).with_name("wire") / "tables"
TREES = "fhirpath_trees.json.gz"
PACKAGES: Mapping[str, str] = {"fhir_r4b.txt": "fhir.resources.R4B", "fhir_r5.txt": "fhir.resources"}
"""Tables -> the packages that they are read off."""


def table(package: str) -> str:
    """The table of a release: a line for each type, its name and then its elements as JSON."""
    types = vars(importlib.import_module(f"{package}.fhirtypes"))
    models = {
        name.removesuffix("Type"): each.get_model_klass()
        for name, each in types.items()
        if name.endswith("Type") and hasattr(each, "get_model_klass")
    }
    lines = (
        f"{name} {json.dumps(_elements(models[name]), separators=(',', ':'))}\n"
        for name in sorted(models)
        if name not in _OF_THE_LIBRARY
    )
    return "".join(lines)


_OF_THE_LIBRARY = frozenset({"FHIRResourceModel"})


def _elements(model: Any) -> dict[str, Sequence[Any]]:
    """The elements of a type in the order of the specification, as `fhir_shapes` reads them."""
    fields = {field.alias or key: field for key, field in model.model_fields.items()}
    return {name: _row(fields[name]) for name in model.elements_sequence()}


def _row(field: Any) -> Sequence[Any]:
    """[type, marks, choice, codes or targets], without what is empty at its end."""
    said = field.json_schema_extra or {}
    kind = _type(field)
    choice = said.get("one_of_many", "")
    needed = said.get("one_of_many_required") if choice else field.is_required() or said.get("element_required")
    is_list = any(typing.get_origin(part) is list for part in _parts(field.annotation))
    only = _whole_list(said.get("enum_values", ())) if kind == "code" else said.get("enum_reference_types", ())
    row = [kind, MANY * is_list + REQUIRED * bool(needed), choice, sorted(only)]
    while not row[-1]:
        del row[-1]
    return row


def _whole_list(codes: Sequence[str]) -> Sequence[str]:
    """Codes that the models list; nothing where they took them from a summary that ends in "+" or "etc."."""
    return () if {"+", "etc."} & set(codes) else codes


def _type(field: Any) -> str:
    """The FHIR type of a field of a model."""
    parts = (*_parts(field.annotation), *field.metadata)
    for each in parts:
        if isinstance(each, type) and issubclass(each, FhirBase):
            return each.__name__.removesuffix("Type")
    known = (FHIR_PRIMITIVES_MAPS.get(each) or FHIR_PRIMITIVES_MAPS.get(type(each)) for each in parts)
    return str(next(filter(None, known)))


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and what it is made of, from outside to inside: `Annotated` is one piece."""
    yield annotation
    for part in typing.get_args(annotation):
        if typing.get_origin(annotation) is not typing.Annotated:
            yield from _parts(part)


def trees() -> dict[str, str]:
    """The expressions of the shipped rule sets, each with the tree that fhirpathpy's grammar makes of it, as JSON."""
    texts: set[str] = set()

    class Noting(FHIRPaths):
        """Notes what it is asked for."""

        def expression(self, text: str) -> Any:
            texts.add(text)
            return super().expression(text)

    with mock.patch("gateway.mapping_files.reader", Noting):
        load_mappings(folder("mappings"), Issuers(), problems := [])
    if problems:
        raise ValueError("\n".join(map(str, problems)))
    return {text: json.dumps(by_grammar(text), separators=(",", ":")) for text in sorted(texts)}


if __name__ == "__main__":
    for file, package in PACKAGES.items():
        (FOLDER / file).write_text(table(package), encoding="utf-8")
    packed = json.dumps(trees(), indent=0, ensure_ascii=False).encode()
    (FOLDER / TREES).write_bytes(gzip.compress(packed, mtime=0))
