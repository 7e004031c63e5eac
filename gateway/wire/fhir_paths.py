"""FHIRPath as the path language of rule sets: what a rule set's compiler reads, and what entries evaluate.

`fhir_expressions` compiles, `fhir_steps` and `fhir_evaluation` evaluate. Each expression is compiled once for each
release.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache

from gateway.domain.path_readers import UnreadablePath
from gateway.domain.resources import Resource
from gateway.domain.source import Path
from gateway.wire.fhir_datatypes import is_readable
from gateway.wire.fhir_expressions import ROOTS, Expression, compiled
from gateway.wire.fhir_functions import VARIABLES
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_steps import Found, Given, Resolve
from gateway.wire.fhir_types import elements

__all__ = ["ROOTS", "VARIABLES", "FHIRPaths", "Found", "Resolve", "reader"]

_Begins = Mapping[tuple[str, str], frozenset[str]]
"""(resource type, JSON name of the element that has to be there, '' for none) -> keys of the expressions."""


class FHIRPaths:
    """The expressions of one release: read once, checked against its models, evaluated."""

    unit_example = "Observation.value.unit"

    def __init__(self, release: Release) -> None:
        self.release = release
        self._held: dict[str, Expression] = {}
        self._begins = lru_cache(maxsize=64)(self._beginning)  # sets of keys: two for each rule set

    def expression(self, text: str) -> Expression:
        """The expression of a text, compiled once. Raises UnreadablePath."""
        held = self._held.get(text)
        if held is None:
            held = self._held[text] = compiled(text, self.release)
        return held

    def path(self, text: str) -> Path:
        """The path that a rule names. Raises UnreadablePath with what is wrong, and what was meant."""
        expression = self.expression(text.strip())
        types = expression.state.types
        if types and not any(map(is_readable, types)):
            names = [name for kind in sorted(types) for name in _names(self.release, kind)]
            hint = f"name one of its elements: {', '.join(names[:12])}" if names else "name something else"
            raise UnreadablePath(f"{expression.text!r} is a {' or '.join(sorted(types))}, which is no value", hint)
        return Path(next(iter(expression.begins), ""), 0, key=expression.text)

    def beside(self, text: str, values: Sequence[Path]) -> Path:
        """The path of `with:` and `select:`: an expression on the one resource that a value is of."""
        path = self.path(text)
        sources = [self.expression(value.key).state.sources for value in values]
        known = frozenset(each for source in sources for each in source)
        if path.segment and all(sources) and known and path.segment not in known:
            whose = " or ".join(sorted(known))
            raise UnreadablePath(f"{path.key!r} is not of the resource that the value is of", f"that is a {whose}")
        return path

    def place(self, path: Path) -> str:
        """The element that has to be filled, below the resource: `name` of `Patient.name.where(...).family`."""
        return self.expression(path.key).place

    def begins(self, path: Path) -> Collection[str]:
        """The types of the resources on which alone it depends what is found at the path; none where on more."""
        if path.field or not path.key:  # of another language
            return ()
        expression = self.expression(path.key)
        return () if expression.varies else expression.begins

    def possible(self, keys: frozenset[str], resources: Mapping[str, Sequence[Resource]]) -> frozenset[str]:
        """Those expressions (Path.key) that may find something: their resource is there with their first element.

        `resources` are by resource type.
        """
        begins = self._begins(keys)
        found = set(begins.get(("", ""), ()))
        for name, held in resources.items():
            found |= begins.get((name, ""), frozenset())
            for resource in held:
                for element in resource:
                    more = begins.get((name, element))
                    if more:
                        found |= more
        return frozenset(found)

    def _beginning(self, keys: frozenset[str]) -> _Begins:
        begins: dict[tuple[str, str], set[str]] = {}
        for key in keys:
            for name, names in self.expression(key).begins.items() or (("", frozenset({""})),):
                for element in names:
                    begins.setdefault((name, element), set()).add(key)
        return {place: frozenset(found) for place, found in begins.items()}

    def evaluate(
        self,
        path: Path,
        resources: Mapping[str, Sequence[Resource]],
        resolve: Resolve,
        variables: Mapping[str, str],
    ) -> Sequence[Found]:
        """Everything at the path, in document order; nothing at a path of another language.

        `variables` are `step`, `procedure` and `server`, without their %; an empty one is nothing. Raises Refused where
        an expression cannot be put to these values.
        """
        if path.field or not path.key:
            return ()
        return self.expression(path.key).evaluate(Given(resources, resolve, variables))


@cache
def reader(release: Release) -> FHIRPaths:
    """The expressions of a release; one for all rule sets."""
    return FHIRPaths(release)


def _names(release: Release, datatype: str) -> Sequence[str]:
    try:
        return [name for name in elements(release, datatype) if name not in _OF_EVERYTHING]
    except LookupError:
        return ()


_OF_EVERYTHING = frozenset({"id", "extension", "modifierExtension", "meta", "implicitRules", "language", "contained"})
