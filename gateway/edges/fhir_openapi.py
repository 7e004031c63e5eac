"""What our FHIR server says of itself as OpenAPI: bodies, parameters and answers of each of its routes."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.wire.fhir_capability import SERVED
from gateway.wire.fhir_negotiation import MEDIA_TYPES, Format

_RESOURCE: Mapping[str, Any] = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}, "id": {"type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$"}},
}
_OUTCOME: Mapping[str, Any] = {
    "type": "object",
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code"],
                "properties": {
                    "severity": {"enum": ["fatal", "error", "warning", "information"]},
                    "code": {"type": "string"},
                    "details": {"type": "object", "properties": {"text": {"type": "string"}}},
                    "diagnostics": {"type": "string"},
                    "expression": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}
_BUNDLE: Mapping[str, Any] = {
    "type": "object",
    "required": ["resourceType", "type"],
    "properties": {
        "resourceType": {"const": "Bundle"},
        "type": {"type": "string"},
        "entry": {"type": "array", "items": {"type": "object"}},
    },
}
_PATCH: Mapping[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["op", "path"],
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {"type": "string"},
        },
    },
}
_PARAMETERS: Mapping[str, Any] = {
    "type": {"in": "path", "required": True, "schema": {"enum": list(SERVED)}, "description": "type of resources"},
    "id": {"in": "path", "required": True, "schema": {"type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$"}},
    "version": {"in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"}},
    "_count": {"in": "query", "schema": {"type": "integer", "minimum": 0}, "description": "resources on a page"},
    "identifier": {"in": "query", "schema": {"type": "string"}, "description": "SYSTEM|VALUE; others: see /metadata"},
    "If-Match": {"in": "header", "schema": {"type": "string"}, "description": 'the version to change, such as W/"3"'},
    "If-None-Match": {"in": "header", "schema": {"type": "string"}, "description": "304 where this is the version"},
    "If-None-Exist": {"in": "header", "schema": {"type": "string"}, "description": "search: made if nothing is found"},
    "Prefer": {"in": "header", "schema": {"type": "string"}, "description": "return=minimal, or handling=lenient"},
    "mode": {"in": "query", "schema": {"enum": ["create", "update", "delete"]}, "description": "what would be done"},
}
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "resource": {"application/fhir+json": _RESOURCE},
    "bundle": {"application/fhir+json": _BUNDLE},
    "patch": {"application/json-patch+json": _PATCH, "application/fhir+json": _RESOURCE},
    "form": {"application/x-www-form-urlencoded": {"type": "object", "additionalProperties": {"type": "string"}}},
}
_WORDS: Mapping[int, str] = {
    200: "done", 201: "made; Location says where", 204: "done, nothing to show", 304: "not changed",
}  # fmt: skip


def described(summary: str, parameters: Sequence[str], body: str, statuses: Sequence[int]) -> dict[str, Any]:
    """One operation: `parameters` and `body` by their names in the tables here. Refusals are all of one form."""
    made: dict[str, Any] = {
        "summary": summary,
        "parameters": [{"name": name, **_PARAMETERS[name]} for name in parameters],
        "responses": {
            **{str(status): _response(_WORDS[status], _RESOURCE, status) for status in statuses},
            "default": _response("refused: what, where, and what to do", _OUTCOME, 400),
        },
    }
    if body:
        content = {name: {"schema": schema} for name, schema in _BODIES[body].items()}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _response(words: str, schema: Mapping[str, Any], status: int) -> dict[str, Any]:
    if status in (204, 304):
        return {"description": words}
    content: dict[str, Any] = {MEDIA_TYPES[Format.JSON]: {"schema": schema}, MEDIA_TYPES[Format.XML]: {}}
    return {"description": words, "content": content}
