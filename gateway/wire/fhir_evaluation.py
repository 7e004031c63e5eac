"""FHIRPath evaluated by fhirpathpy: expressions that `fhir_steps` does not know.

fhirpathpy is told what it cannot know by itself: how references are resolved, all extensions of a URL instead of the
first, and from which resource each node is, so that places can be named.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module, resources
from typing import Any

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_steps import NOWHERE, Found, Given, resolved
from gateway.wire.fhir_syntax import Node
from gateway.wire.fhir_types import PRIMITIVES

_MODELS: Mapping[Release, str] = {Release.R4: "r4", Release.R4B: "r4", Release.R5: "r5"}
Evaluation = Callable[[Given], Sequence[Found]]


def by_fhirpathpy(
    text: str, tree: Node, release: Release, types: Sequence[str], *, of_nothing: bool = False
) -> Evaluation:
    """The evaluation of a tree that begins with resources of these types; without any of them there is nothing, except
    where `of_nothing`.

    It raises Refused where fhirpathpy cannot: two values where the expression takes one, a text that is no number.
    """

    def evaluate(given: Given) -> list[Found]:
        if not of_nothing and not any(given.resources.get(name) for name in types):
            return []
        engine: Any = import_module("fhirpathpy.engine")  # late: most rule sets are all evaluated here
        model = _model(release)
        places = _Places(given)
        roots = [places.node(each, each, "") for name in types for each in given.resources.get(name, ())]
        engine.TypeInfo.model = model  # which `ofType` reads there
        variables = {name: [value] if value else [] for name, value in given.variables.items()}
        context = {
            "dataRoot": roots,
            "vars": {"ucum": "http://unitsofmeasure.org", **variables},
            "model": model,
            "userInvocationTable": {
                "resolve": {"fn": places.resolve},
                "extension": {"fn": places.extension, "arity": {1: ["String"]}},
            },
        }
        try:
            found = engine.do_eval(context, roots, tree)
        except Exception as error:  # whatever it raises is about these values; its text quotes them
            where = types[0] if types else ""
            raise Refused(
                Refusal(
                    RefusalKind.BAD_VALUE, where, f"{text!r} of the mapping cannot be evaluated on this "
                    f"({type(error).__name__})", "if several values are the reason: first(), or where(...)",
                )
            ) from None  # fmt: skip
        return [one for each in found if (one := places.found(each)) is not None]

    return evaluate


@cache
def _model(release: Release) -> dict[str, Any]:
    """What fhirpathpy has to know of the types of a release; its own loader reads all releases there are."""
    folder = resources.files("fhirpathpy") / "models" / _MODELS[release]
    return {
        each.name.removesuffix(".json"): json.loads(each.read_text(encoding="utf-8"))
        for each in folder.iterdir()
        if each.name.endswith(".json")
    }


class _Places:
    """Which resource each node of an evaluation is of: the path that fhirpathpy keeps begins with its number."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.held: list[tuple[Resource, Resource, str]] = []  # resource, its holder, its place there

    def node(self, resource: Resource, holder: Resource, where: str) -> Any:
        """A resource as a node."""
        self.held.append((resource, holder, where))
        return _root_class()(resource, None, None, str(len(self.held) - 1))

    def _of(self, node: Any) -> tuple[Resource, Resource, str]:
        number, _, path = str(getattr(node, "propName", None) or "").partition(".")
        if not number.isdigit():
            entry = (each for several in self.given.resources.values() for each in several)
            resource = self.held[0][0] if self.held else next(entry, NOWHERE)
            return resource, resource, ""
        resource, holder, where = self.held[int(number)]
        return resource, holder, f"{where}.{path}".strip(".")

    def resolve(self, context: Any, nodes: Sequence[Any]) -> list[Any]:
        """`resolve()`."""
        targets = (resolved(_data(node), self._of(node)[1], self.given.resolve) for node in nodes)
        return [self.node(each.resource, each.holder, each.where) for each in targets if each is not None]

    def extension(self, context: Any, nodes: Sequence[Any], url: Any) -> list[Any]:
        """`extension(URL)`."""
        nodes_made: Any = import_module("fhirpathpy.engine.nodes")
        made = []
        for node in nodes:
            data = _data(node)
            for index, one in enumerate((data.get("extension") or ()) if isinstance(data, Mapping) else ()):
                if isinstance(one, Mapping) and one.get("url") == url:
                    place = f"{getattr(node, 'propName', None) or ''}.extension[{index}]"
                    made.append(nodes_made.ResourceNode(one, "Extension", None, place))
        return made

    def found(self, node: Any) -> Found | None:
        """A result; None for a null, and for the extensions of a primitive, which fhirpathpy has beside its value."""
        value = _data(node)
        resource, holder, where = self._of(node)
        datatype = str(getattr(node, "path", None) or "")
        if isinstance(value, Mapping) and "resourceType" in value:
            datatype = str(value["resourceType"])
        elif datatype.startswith("System."):
            datatype = datatype.removeprefix("System.").lower()
        elif "." in datatype:
            datatype = "BackboneElement"
        if value is None or (isinstance(value, Mapping) and datatype in PRIMITIVES):
            return None
        if not datatype:
            value, datatype = _made(value)
        return Found(value, datatype, where, resource, holder)


@cache
def _root_class() -> Any:
    nodes: Any = import_module("fhirpathpy.engine.nodes")

    class Root(nodes.ResourceNode):  # type: ignore[misc]  # fhirpathpy does not say what it is
        """A resource at the beginning of an expression, which asks for its type as for a key."""

        def __getitem__(self, key: str) -> Any:
            return self.data.get(key)

    return Root


def _data(node: Any) -> Any:
    return getattr(node, "data", node)


def _made(value: Any) -> tuple[Any, str]:
    """A value that the expression made, and its type."""
    if isinstance(value, bool):
        return value, "boolean"
    if isinstance(value, str):
        return value, "string"
    if isinstance(value, int):
        return value, "integer"
    if type(value).__name__ == "FP_Quantity":
        return {"value": value.value, "unit": str(value.unit).strip("'")}, "Quantity"
    if type(value).__name__ == "FP_DateTime":
        return str(value), "dateTime"
    return str(value), "time" if type(value).__name__ == "FP_Time" else "decimal"
