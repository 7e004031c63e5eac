"""When a FHIR resource says what another one says, and when it is an order that is held already.

An order that is sent again by POST, because its answer was lost, must not become a second one: it is known by the
numbers of placer and filler and by its accession number. These are shared where the standard lets them be: the
procedures of an order may have its numbers, and two orders one accession number.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from gateway.domain.resources import Resource

_NUMBERS = frozenset({"PLAC", "FILL", "ACSN"})  # of HL7 table 0203
_SET_BY_SERVER = ("id", "meta")
_META_SET_BY_SERVER = ("versionId", "lastUpdated")


def alike(one: Resource, other: Resource) -> bool:
    """Whether two resources say the same, but for their ids and what a server sets in their meta.

    Numbers are the same if they are written the same: 1.0 is less exact than 1.00.
    """
    return _equal(_bare(one), _bare(other))


def _bare(resource: Resource) -> Resource:
    bare = {name: value for name, value in resource.items() if name not in _SET_BY_SERVER}
    said = resource.get("meta")
    if isinstance(said, Mapping):
        meta = {name: value for name, value in said.items() if name not in _META_SET_BY_SERVER}
        if meta:
            bare["meta"] = meta
    return bare


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return str(one) == str(other)
    return type(one) is type(other) and bool(one == other)


def may_be_repeated(content: Resource) -> frozenset[tuple[str, str, str]]:
    """(type, system, value) of the numbers by which a POST of this is known as a repeat; none of most resources."""
    return frozenset(_numbers(content)) if content.get("resourceType") == "ServiceRequest" else frozenset()


def _numbers(content: Resource) -> Iterator[tuple[str, str, str]]:
    for identifier in _dicts(content.get("identifier")):
        type_, value, system = identifier.get("type"), identifier.get("value"), identifier.get("system", "")
        if isinstance(type_, Mapping) and isinstance(value, str) and isinstance(system, str):
            for coding in _dicts(type_.get("coding")):
                if coding.get("code") in _NUMBERS:
                    yield str(coding["code"]), system, value


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def same_order(one: Resource, other: Resource) -> bool:
    """Whether the two are one order by their numbers: they share one, and no other number tells them apart.

    Procedures of an order are one only if they say the same, references aside, for they share its numbers.
    """
    numbers, others = may_be_repeated(one), may_be_repeated(other)
    if not numbers & others:
        return False
    if one.get("basedOn") or other.get("basedOn"):
        return alike(_unreferred(one), _unreferred(other))
    told = {(type_, system): value for type_, system, value in others}
    return all(told.get((type_, system), value) == value for type_, system, value in numbers)


def _unreferred(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _unreferred(each) for name, each in value.items() if name != "reference"}
    return [_unreferred(each) for each in value] if isinstance(value, list) else value
