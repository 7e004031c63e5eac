"""Patches of FHIR resources: JSON Patch (RFC 6902) and FHIRPath Patch (fhirpatch.html), each on plain paths.

A path walks elements by name and place (`Patient.name[0].given`); functions are left to those who send the whole
resource. What a patch makes is judged as anything else that comes, by `fhir_models`; here only what it says is. Every
problem has its operation's place.
"""

import copy
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import jsonpatch
from jsonpointer import JsonPointerException

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_bounds import PLAIN_BOUNDS
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import Element, shape

OPERATIONS_MAX = 200
"""Of one patch; whoever changes more sends the resource."""

VALUES_MAX = 100_000
"""Members and items that the resource may grow to: `copy` doubles what there is with each operation."""

DEPTH_MAX = PLAIN_BOUNDS.depth_max

_FIXED = frozenset({"id", "resourceType"})
_INDEX_MAX = 100_000
_STEP = re.compile(r"([A-Za-z][A-Za-z0-9]{0,63})((?:\[[0-9]{1,6}\])?)")
_JSON_OPERATIONS = frozenset({"add", "remove", "replace", "move", "copy", "test"})
_WHOLE = "send the whole resource with PUT"


def patched(
    content: Resource, patch: Sequence[Mapping[str, Any]] | Resource, release: Release, where: str = ""
) -> Resource:
    """The resource with the patch done. `where` is the patch's place in the request. Raises Refused."""
    if isinstance(patch, Mapping):
        return _Patching(content, release).all_of(patch, where or "Parameters")
    return _json_patched(content, patch, where or "patch")


def place_of(patch: Sequence[Mapping[str, Any]] | Resource, element: str, where: str = "") -> str:
    """The place of the last operation on this element of the resource (`status`), or of the patch as a whole."""
    if isinstance(patch, Mapping):
        where, operations = where or "Parameters", patch.get("parameter", [])
        parts = [_parts(each) for each in operations]
        touched = [f"{_plain(each.get('path'))}.{_plain(each.get('name'))}".split(".")[1] for each in parts]
        places = [f"{where}.parameter[{number}]" for number in range(len(parts))]
    else:
        where = where or "patch"
        touched = [str(each.get("path", "")).split("/")[1] for each in patch]
        places = [f"{where}[{number}]" for number in range(len(patch))]
    found = [place for place, name in zip(places, touched, strict=True) if name.partition("[")[0] == element]
    return found[-1] if found else where


def _refused(where: str, text: str, hint: str, kind: RefusalKind = RefusalKind.BAD_VALUE) -> Refused:
    return Refused(Refusal(kind, where, text, hint))


def _too_many(where: str) -> Refused:
    return _refused(where, f"a patch has at most {OPERATIONS_MAX} operations", _WHOLE, RefusalKind.TOO_LONG)


# -- JSON Patch


def _json_patched(content: Resource, patch: Sequence[Mapping[str, Any]], where: str) -> Resource:
    if len(patch) > OPERATIONS_MAX:
        raise _too_many(where)
    made: Any = copy.deepcopy(dict(content))
    for number, operation in enumerate(patch):
        place = f"{where}[{number}]"
        _check_operation(operation, place)
        try:
            made = jsonpatch.apply_patch(made, [_exact(operation)], in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            raise _refused(
                place, "the test fails: the resource says something else there",
                "read the resource again, then patch it as it is now", RefusalKind.CONFLICT,
            ) from None  # fmt: skip
        except (jsonpatch.JsonPatchException, JsonPointerException, LookupError, TypeError, ValueError):
            raise _refused(
                place, "cannot be done: its path leads to nothing, or its value does not go there",
                "read the resource again; paths are such as /status and /identifier/0/value",
            ) from None  # fmt: skip
        if operation["op"] != "test":
            _check_size(made, place)
    return _sound(made, content, where)


def _check_operation(operation: Mapping[str, Any], place: str) -> None:
    name, paths = operation.get("op"), [operation.get("path")]
    if not isinstance(name, str) or name not in _JSON_OPERATIONS:
        raise _refused(place, "is no operation", f"`op` is one of {', '.join(sorted(_JSON_OPERATIONS))}")
    if name in ("move", "copy"):
        paths.append(operation.get("from"))
    if name in ("add", "replace", "test") and "value" not in operation:
        raise _refused(place, "has no value", "give `value`")
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/"):
            raise _refused(place, "has no path", "paths (and `from`) are such as /status")
    changed = [operation["path"]] if name != "test" else []
    if name == "move":
        changed.append(operation["from"])
    for path in changed:
        if path[1:].partition("/")[0] in _FIXED:
            raise _refused(place, "would change id or resourceType", "what a resource is and is called stays")


def _exact(value: Any) -> Any:
    """Numbers with a fraction as Decimal, as resources have them."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {name: _exact(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return value


def _check_size(made: Any, place: str) -> None:
    if _size(made, 0) > VALUES_MAX:
        text = f"makes the resource larger than {VALUES_MAX} values, or deeper than {DEPTH_MAX}"
        raise _refused(place, text, _WHOLE, RefusalKind.TOO_LONG)


def _size(value: Any, depth: int) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    if depth > DEPTH_MAX:
        return VALUES_MAX + 1
    return len(value) + sum(_size(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value))


def _sound(made: Any, before: Resource, where: str) -> Resource:
    if not isinstance(made, dict) or any(made.get(name) != before.get(name) for name in _FIXED):
        raise _refused(where, "would change id or resourceType", "what a resource is and is called stays")
    return made


# -- FHIRPath Patch


class _Step(NamedTuple):
    name: str
    at: int | None


class _Found(NamedTuple):
    """An element that a path leads to: what holds it, under which name in JSON, and at which place of its list."""

    holder: MutableMapping[str, Any]
    name: str
    at: int | None
    element: Element | None

    @property
    def value(self) -> Any:
        held = self.holder[self.name]
        return held if self.at is None else held[self.at]


class _Patching:
    """A resource while it is patched."""

    def __init__(self, content: Resource, release: Release) -> None:
        self._before, self._release = content, release
        self._made: dict[str, Any] = copy.deepcopy(dict(content))

    def all_of(self, patch: Resource, where: str) -> Resource:
        operations = patch.get("parameter", [])
        if patch.get("resourceType") != "Parameters" or not isinstance(operations, list) or not operations:
            raise _refused(where, "is no FHIRPath Patch", "send Parameters, each parameter an `operation`")
        if len(operations) > OPERATIONS_MAX:
            raise _too_many(where)
        for number, operation in enumerate(operations):
            place = f"{where}.parameter[{number}]"
            if not isinstance(operation, Mapping) or operation.get("name") != "operation":
                raise _refused(place, "is no operation", "each parameter has the name `operation` and parts")
            self._operate(_parts(operation), place)
            _check_size(self._made, place)
        return _sound(self._made, self._before, where)

    def _operate(self, parts: Mapping[str, Resource], place: str) -> None:
        match _plain(parts.get("type")):
            case "add":
                self._add(self._path(parts, place), parts, place)
            case "insert":
                steps = self._path(parts, place)
                held = self._list(steps, place)
                held.insert(_number(parts, "index", len(held), place), self._value(parts, None, place))
            case "delete":
                found = self._find(self._path(parts, place))
                if found is not None:  # what is not there is deleted (fhirpatch.html)
                    _remove(found)
            case "replace":
                self._replace(self._path(parts, place), parts, place)
            case "move":
                held = self._list(self._path(parts, place), place)
                source = _number(parts, "source", len(held) - 1, place)
                value = held.pop(source)
                held.insert(_number(parts, "destination", len(held), place), value)
            case _:
                raise _refused(place, "is no operation", "`type` is one of add, insert, delete, replace, move")

    def _path(self, parts: Mapping[str, Resource], place: str) -> list[_Step]:
        said = _plain(parts.get("path")) or ""
        names = said.split(".")
        if names[0] != self._made.get("resourceType"):
            raise _refused(place, "its path is not of this resource", f"begin with {self._made.get('resourceType')}")
        steps = []
        for name in names[1:]:
            read = _STEP.fullmatch(name)
            if read is None:
                raise _refused(
                    place,
                    "its path is not plain",
                    f"name elements and places, as in Patient.name[0].given; or {_WHOLE}",
                    RefusalKind.UNSUPPORTED_EVENT,
                )
            steps.append(_Step(read[1], int(read[2][1:-1]) if read[2] else None))
        if steps and steps[0].name in _FIXED:
            raise _refused(place, "would change id or resourceType", "what a resource is and is called stays")
        return steps

    def _find(self, steps: Sequence[_Step]) -> _Found | None:
        """Where the path leads to; None where that is not there. Without a place, a list's only item is meant."""
        found: _Found | None = None
        holder: Any = self._made
        type_ = str(self._made.get("resourceType"))
        for step in steps:
            if not isinstance(holder, dict):
                return None
            element = next(self._elements(type_, step.name, holder), None)
            name = element.name if element is not None else step.name
            if name not in holder:
                return None
            held, at = holder[name], step.at
            if isinstance(held, list):
                at = 0 if at is None and len(held) == 1 else at
                if at is not None and at >= len(held):
                    return None
            elif at:  # the only one is the first one
                return None
            else:
                at = None
            found = _Found(holder, name, at, element)
            holder = found.value
            type_ = element.type if element is not None else ""
        return found

    def _elements(self, type_: str, name: str, holder: Mapping[str, Any]) -> Iterator[Element]:
        """The elements that a name of a path may mean, those first that are there."""
        known = shape(self._release, type_) if type_ else None
        if known is None:
            return
        meant = [element for element in known.elements.values() if name in (element.name, element.choice)]
        yield from sorted(meant, key=lambda element: element.name not in holder)

    def _list(self, steps: Sequence[_Step], place: str) -> list[Any]:
        found = self._find([*steps[:-1], _Step(steps[-1].name, 0)]) if steps else None
        held = found.holder[found.name] if found is not None else None
        if not isinstance(held, list):
            raise _refused(place, "its path leads to no list", "read the resource again")
        return held

    def _add(self, steps: Sequence[_Step], parts: Mapping[str, Resource], place: str) -> None:
        name = _plain(parts.get("name")) or ""
        found = self._find(steps)
        holder = self._made if not steps else found.value if found is not None else None
        type_ = str(self._made.get("resourceType")) if found is None else found.element.type if found.element else ""
        if not isinstance(holder, dict) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,63}", name):
            raise _refused(place, "its path leads to nothing that has elements", "read the resource again")
        if not steps and name in _FIXED:
            raise _refused(place, "would change id or resourceType", "what a resource is and is called stays")
        element = self._meant(type_, name, holder, parts)
        if element is None:
            raise _refused(place, f"{name} is no element there", "see the specification for its elements")
        value = self._value(parts, element, place)
        if not element.many:
            holder[element.name] = value
        elif isinstance(holder.setdefault(element.name, []), list):
            holder[element.name].append(value)

    def _meant(self, type_: str, name: str, holder: Mapping[str, Any], parts: Mapping[str, Resource]) -> Element | None:
        """The element of this name, of a choice the one that its value is of."""
        given = next((key for key in parts.get("value", {}) if key.startswith("value")), "")
        elements = list(self._elements(type_, name, holder))
        for element in elements:
            if element.choice and element.name.removeprefix(element.choice) == given.removeprefix("value"):
                return element
        return next((element for element in elements if not element.choice), None)

    def _replace(self, steps: Sequence[_Step], parts: Mapping[str, Resource], place: str) -> None:
        found = self._find(steps)
        if found is None:
            raise _refused(place, "its path leads to nothing", "add what is not there")
        value = self._value(parts, found.element, place)
        if found.at is not None:
            found.holder[found.name][found.at] = value
            return
        held = found.holder[found.name]
        if isinstance(held, list):
            raise _refused(place, "its path leads to several", "name one of them, as in Patient.name[0]")
        last, holder = steps[-1].name, found.holder
        if found.element is not None and found.element.choice:
            above = self._find(steps[:-1])
            type_ = above.element.type if above is not None and above.element else str(self._made["resourceType"])
            meant = self._meant(type_, last, holder, parts) or found.element
            del holder[found.name]
            holder[meant.name] = value
        else:
            holder[found.name] = value

    def _value(self, parts: Mapping[str, Resource], element: Element | None, place: str) -> Any:
        """What the operation gives: a value of a data type, or an element made of parts."""
        given = parts.get("value", {})
        values = [each for name, each in given.items() if name.startswith("value")]
        if len(values) == 1:
            return copy.deepcopy(values[0])
        if isinstance(given.get("part"), list) and given["part"] and not values:
            return self._made_of(given["part"], element.type if element is not None else "", place)
        raise _refused(place, "has no value", "give `value` with one value[x], or with parts")

    def _made_of(self, said: Sequence[Any], type_: str, place: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for part in said:
            if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
                raise _refused(place, "has a part without a name", "each part has `name` and a value")
            element = self._meant(type_, part["name"], made, {"value": part})
            value = self._value({"value": part}, element, place)
            name = element.name if element is not None else part["name"]
            if element is not None and element.many:
                made.setdefault(name, []).append(value)
            else:
                made[name] = value
        return made


def _parts(operation: Mapping[str, Any]) -> dict[str, Resource]:
    said = operation.get("part")
    return {
        str(part.get("name")): part for part in (said if isinstance(said, list) else []) if isinstance(part, Mapping)
    }


def _plain(part: Resource | None) -> str | None:
    """The text of a part (valueString, valueCode)."""
    return next(
        (each for name, each in (part or {}).items() if name.startswith("value") and isinstance(each, str)), None
    )


def _number(parts: Mapping[str, Resource], name: str, most: int, place: str) -> int:
    value = parts.get(name, {}).get("valueInteger")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= min(most, _INDEX_MAX):
        raise _refused(place, f"{name} is no place of the list", f"give {name} as valueInteger, 0 for the first one")
    return value


def _remove(found: _Found) -> None:
    held = found.holder[found.name]
    if found.at is None:
        del found.holder[found.name]
    else:
        del held[found.at]
        if not held:  # FHIR has no empty lists
            del found.holder[found.name]
