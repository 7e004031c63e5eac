"""The JSON Schema of outbound rule sets, generated from the tables of their language."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.domain.edits import EDITS
from gateway.domain.outbound_converters import OUTBOUND_CONVERTERS
from gateway.domain.outbound_fields import HEADER_FIELDS, SEGMENT_FIELDS
from gateway.domain.outbound_words import ABOUT, MISSING, RULE_KEYS, SEGMENT_KEYS, TOP_KEYS, VERSIONS
from gateway.domain.report import FACTS
from gateway.domain.rule_words import CONVERTER_KEYS, REPEATS, UNKNOWNS

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_SCALAR: _Schema = {"type": ["string", "number", "boolean", "null"]}
_NAME: _Schema = {"anyOf": [{"type": "string"}, {"type": "number"}]}


def outbound() -> _Schema:
    """The schema of a file in mappings/outbound."""
    rule = _object(_described(RULE_KEYS, _rule_keys()))
    one = {"anyOf": [_ref("path"), rule]}
    conditional = _object({"value": _TEXT, "when": _ref("conditions"), "unless": _ref("conditions")})
    top = {
        "name": _TEXT,
        "version": _NAME,
        "extends": _TEXT,
        "description": _TEXT,
        "message": {"anyOf": [_TEXT, {"type": "array", "items": conditional, "minItems": 1}]},
        "hl7": {"enum": list(VERSIONS)},
        "about": {"enum": list(ABOUT)},
        "segments": _ref("segments"),
        "converters": {"type": "object", "additionalProperties": {"anyOf": [_own_converter(), {"type": "null"}]}},
        "rules": _targets(),
        "rows": {"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, _row()]}},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "rule set in mappings/outbound",
        **_object(_described(TOP_KEYS, top)),
        "definitions": {
            "path": {
                "description": "PatientName, performed.KEYWORD, event.NAME, number or turn",
                "anyOf": [
                    {"enum": [f"event.{name}" for name in FACTS]},
                    {"type": "string", "pattern": "^[A-Za-z.0-9]+$"},
                ],
            },
            "conditions": {"type": "object", "additionalProperties": _one_or_more(_SCALAR)},
            "rule": {"anyOf": [one, {"type": "null"}, {"type": "array", "items": one, "minItems": 1}]},
            "segments": {"type": "array", "items": {"anyOf": [_TEXT, _segment()]}, "minItems": 1},
        },
    }


def _segment() -> _Schema:
    keys = {
        "segment": {"type": "string", "pattern": "^[A-Z][A-Z0-9]{2}$"},
        "when": _ref("conditions"),
        "unless": _ref("conditions"),
        "each": _TEXT,
        "segments": _ref("segments"),
    }
    return _object(_described(SEGMENT_KEYS, keys))


def _rule_keys() -> dict[str, Any]:
    names = [{"const": row.name, "description": row.summary} for row in OUTBOUND_CONVERTERS.values()]
    default = _object({"default": _SCALAR}, required=["default"])
    return {
        "from": _one_or_more(_ref("path")),
        "with": _ref("path"),
        "when": _ref("conditions"),
        "unless": _ref("conditions"),
        "edit": _one_or_more({"anyOf": list(_edits())}),
        "convert": {"anyOf": [*names, _object({"table": _TEXT}, required=["table"]), _TEXT]},
        "unknown": {"enum": list(UNKNOWNS)},
        "repeat": {"enum": list(REPEATS)},
        "value": _SCALAR,
        "missing": {"anyOf": [{"enum": list(MISSING)}, default]},
    }


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


def _targets(**more: Any) -> _Schema:
    """The fields of every segment that is written, and parts of them."""
    segments = sorted([*SEGMENT_FIELDS, "Z[A-Z0-9]{2}"])
    header = "|".join(str(number) for number in range(1, 22) if number not in HEADER_FIELDS)
    others = "|".join(name for name in segments if name != "MSH")
    pattern = rf"^(MSH-({header})|({others})-[1-9][0-9]{{0,2}})(\.[1-9][0-9]?){{0,2}}$"
    return {"type": "object", "patternProperties": {pattern: _ref("rule")}, "additionalProperties": False, **more}


def _row() -> _Schema:
    return _targets(properties={"each": _ref("path")})


def _object(properties: Mapping[str, Any], **more: Any) -> _Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _described(keys: Mapping[str, str], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """A property for each key, with what the code's table says of it."""
    return {key: {"description": text, **schemas[key]} for key, text in keys.items()}


def _one_or_more(one: _Schema) -> _Schema:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/definitions/{name}"}
