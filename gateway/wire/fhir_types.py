"""The elements of FHIR's types as FHIRPath names them: `fhir_shapes` has them as JSON does.

A choice (`value[x]`) is one element with several types, each under a name of its own in JSON. Backbone elements have
the names of their models (`TaskInput`).
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import ANY_RESOURCE, PRIMITIVES, shape, type_names

__all__ = ["ANY_RESOURCE", "PRIMITIVES", "Element", "elements", "is_resource", "type_names"]


class Element(NamedTuple):
    """An element of a type."""

    choices: tuple[tuple[str, str], ...]
    """(name in JSON, type) of each type that it may have; one for most."""
    many: bool
    targets: frozenset[str] = frozenset()
    """Of a reference or canonical the resource types that it may lead to; empty: nobody knows."""

    @property
    def types(self) -> frozenset[str]:
        """The types that it may have."""
        return frozenset(name for _, name in self.choices)


@cache  # bounded by the types that FHIR has
def elements(release: Release, name: str) -> Mapping[str, Element]:
    """The elements of a type by their names. Raises LookupError for what is no type of the release."""
    if name in PRIMITIVES:
        return _OF_PRIMITIVES
    known = shape(release, name)
    if known is None:
        raise LookupError(name)
    found: dict[str, Element] = {}
    for each in known.elements.values():
        held = found.get(each.path, Element((), each.many))
        choices = (*held.choices, (each.name, each.type))
        found[each.path] = Element(choices, each.many, held.targets | each.targets)
    return found


def is_resource(release: Release, name: str) -> bool:
    """Whether this is a type of resource, or one that all resources are of."""
    known = shape(release, name)
    return known is not None and "implicitRules" in known.elements


_OF_PRIMITIVES: Mapping[str, Element] = {
    "id": Element((("id", "string"),), many=False),
    "extension": Element((("extension", "Extension"),), many=True),
}
