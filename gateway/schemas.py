"""JSON Schemas of the site's YAML files, generated from the tables that read them, for editors to complete and check.

`python -m gateway.schemas` writes them beside the files they describe; each file names its own in a comment for the
YAML language server. They say nothing that the code does not: a test fails when a schema and its table differ.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway import examples
from gateway.config import Settings
from gateway.device_settings import DevicesFile
from gateway.domain.attributes import ATTRIBUTES, BY_KEYWORD, Level
from gateway.domain.converters import CONVERTERS
from gateway.domain.edits import EDITS
from gateway.domain.rule_words import (
    CONVERTER_KEYS,
    FROM_IDENTITY,
    IDENTITY_KEYS,
    LENGTHS,
    LEVELS,
    MISSING,
    REPEATS,
    RULE_KEYS,
    TOP_KEYS,
    UNKNOWNS,
    level_of,
)
from gateway.domain.rules import IDENTITY, STEP_PREFIX
from gateway.domain.source import PATH_PATTERN
from gateway.outbound_schema import outbound
from gateway.profile_settings import ProfilesFile
from gateway.wire.fhir_paths import ROOTS, VARIABLES
from gateway.wire.fhir_release import Release
from gateway.yaml_files import Strict

_DIALECT = "http://json-schema.org/draft-07/schema#"  # what the YAML language server knows best
_Schema = dict[str, Any]


def render() -> dict[Path, str]:
    """Where each schema belongs -> its text."""
    config, mappings = examples.folder("config") / "schemas", examples.folder("mappings") / "schemas"
    schemas = {
        config / "gateway.json": _of_model(Settings, "gateway.yaml"),
        config / "devices.json": _of_model(DevicesFile, "devices.yaml"),
        config / "profiles.json": _of_model(ProfilesFile, "profiles.yaml"),
        mappings / "mapping.json": _mapping(),
        mappings / "outbound.json": outbound(),
    }
    return {path: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for path, schema in schemas.items()}


def write() -> None:
    """Write the schemas to where they belong."""
    for path, text in render().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _of_model(model: type[Strict], title: str) -> _Schema:
    return {"$schema": _DIALECT, **model.model_json_schema(by_alias=True), "title": title}


def _object(properties: Mapping[str, Any], **more: Any) -> _Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _described(keys: Mapping[str, str], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """A property for each key, with what the code's table says of it."""
    return {key: {"description": text, **schemas[key]} for key, text in keys.items()}


def _words(words: Iterable[str]) -> _Schema:
    return {"enum": list(words)}


def _one_or_more(one: _Schema) -> _Schema:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/definitions/{name}"}


_FHIRPATH = rf"^\s*(\(|[a-z]+\(|({'|'.join(ROOTS)})\b|%({'|'.join(VARIABLES)})\b)"  # the compiler reads the rest
_TEXT: _Schema = {"type": "string"}
_SCALAR: _Schema = {"type": ["string", "number", "boolean", "null"]}


def _mapping() -> _Schema:
    rule = _object(_described(RULE_KEYS, _rule_keys()))
    rule_or_path = {"anyOf": [_ref("path"), rule]}
    name = {"anyOf": [{"type": "string"}, {"type": "number"}]}
    top = {
        "name": _TEXT,
        "version": name,
        "fhir": _words(Release),
        "extends": _TEXT,
        "description": _TEXT,
        "default_scheme": {"type": "string", "minLength": 1, "maxLength": 16},
        "converters": {"type": "object", "additionalProperties": {"anyOf": [_own_converter(), {"type": "null"}]}},
        "identity": _object(
            {key: {"description": f"read as {text}", **_ref("identity")} for key, text in IDENTITY.items()}
        ),
        "rules": _object({target: {"description": text, **_ref("rule")} for target, text in _targets()}),
    }
    return {
        "$schema": _DIALECT,
        "title": "rule set in mappings/hl7v2 or mappings/fhir",
        **_object(_described(TOP_KEYS, top)),
        "definitions": {
            "path": {"anyOf": [
                {"type": "string", "pattern": f"^\\s*{PATH_PATTERN}\\s*$", "description": "such as PID-5, OBR-4.2"},
                {"type": "string", "pattern": _FHIRPATH, "description": "in mappings/fhir: such as Patient.birthDate"},
            ]},
            "conditions": {"type": "object", "additionalProperties": _one_or_more(_SCALAR)},
            "pick": _pick(),
            "edits": _one_or_more({"anyOf": list(_edits())}),
            "identity": {"anyOf": [*_one_or_more(_ref("path"))["anyOf"], {"type": "null"}, _identity()]},
            "rule": {"anyOf": [*rule_or_path["anyOf"], {"type": "null"}, {"type": "array", "items": rule_or_path}]},
        },
    }  # fmt: skip


def _rule_keys() -> dict[str, Any]:
    names = [{"const": row.name, "description": row.summary} for row in CONVERTERS.values()]
    default = _object({"default": {}}, required=["default"])
    missing = {"anyOf": [_words(MISSING), default]}
    translate = _object({"map": _one_or_more(_TEXT), "to": _TEXT}, required=["map"])
    return {
        "from": _one_or_more(_ref("path")),
        "pick": _ref("pick"),
        "select": _ref("conditions"),
        "when": _ref("conditions"),
        "unless": _ref("conditions"),
        "edit": _ref("edits"),
        "convert": {"anyOf": [*names, _object({"table": _TEXT}, required=["table"]), _TEXT]},
        "with": _ref("path"),
        "translate": {"anyOf": [_TEXT, translate]},
        "unknown": _words(UNKNOWNS),
        "repeat": _words(REPEATS),
        "length": _words(LENGTHS),
        "value": {},
        "missing": _one_or_more(missing),
    }


def _identity() -> _Schema:
    policy = {"anyOf": [_words(("omit", "refuse", "generate")), _object({"derive": _words(IDENTITY)})]}
    schemas = {
        "from": _one_or_more(_ref("path")),
        "pick": _ref("pick"),
        "edit": _ref("edits"),
        "missing": policy,
        "prefer": _TEXT,
    }
    return _object(_described(IDENTITY_KEYS, schemas))


def _pick() -> _Schema:
    components = {"type": "object", "additionalProperties": _one_or_more(_SCALAR), "minProperties": 1}
    return {"anyOf": [_words(("first", "last")), {"type": "integer", "minimum": 1}, components]}


def _edits() -> Iterable[_Schema]:
    kinds: dict[str, _Schema] = {"number": {"type": "integer", "minimum": 1}, "text": _SCALAR, "pattern": _TEXT}
    for row in EDITS.values():
        if row.needs:
            yield {"description": row.does, **_object({row.name: kinds[row.needs]}, required=[row.name])}
        else:
            yield {"description": row.does, "const": row.name}
    yield _TEXT  # a site's own


def _own_converter() -> _Schema:
    schemas = {"function": {"type": "string", "pattern": r"^\w+\.\w+$"}, "example": _SCALAR, "gives": _SCALAR}
    return _object(_described(CONVERTER_KEYS, schemas), required=["function", "example"])


def _targets() -> Iterable[tuple[str, str]]:
    """Every attribute that a rule may name, with what it is."""
    for row in ATTRIBUTES:
        level = level_of(row.keyword)
        if row.keyword in FROM_IDENTITY or level not in LEVELS or BY_KEYWORD.get(row.keyword) is not row:
            continue
        prefix = STEP_PREFIX if level is Level.STEP else ""
        yield f"{prefix}{row.keyword}", f"{row.tag}, {row.vr}, of the {level.value}"


if __name__ == "__main__":
    write()
