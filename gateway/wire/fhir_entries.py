"""What one entry of FHIR resources says, by the FHIRPath expressions that rules name.

Which resources make an entry is `fhir_source`; how an expression is evaluated is `fhir_paths`, what a value becomes
`fhir_datatypes`. What an element means nobody knows here.
"""

from collections.abc import Mapping, Sequence

from gateway.domain.identifiers import Issuers
from gateway.domain.order import OrderControl
from gateway.domain.resources import Resource
from gateway.domain.source import Path, Repetition, Sourced
from gateway.wire.fhir_datatypes import repetition
from gateway.wire.fhir_graph import Graph
from gateway.wire.fhir_paths import FHIRPaths

Held = Mapping[str, tuple[Resource, ...]]
"""The resources of an entry by their type."""


class FHIREntry:
    """One entry. `parts` are the resources (`Type/id`) that order it: the request, those above it, its Task or
    Appointment, the last one the nearest."""

    __slots__ = (
        "_found", "_graph", "_issuers", "_paths", "_resources", "_variables", "control", "order_status", "parts",
        "procedure_where", "where",
    )  # fmt: skip

    def __init__(
        self,
        graph: Graph,
        paths: FHIRPaths,
        issuers: Issuers,
        resources: Held,
        variables: Mapping[str, str],
        where: str,
        procedure_where: str = "",
        control: OrderControl | None = None,
        order_status: str = "",
        parts: tuple[str, ...] = (),
    ) -> None:
        self._graph, self._paths, self._issuers = graph, paths, issuers
        self._resources = resources
        self._variables = variables
        self._found: dict[str, Sequence[Sourced]] = {}
        self.where = where
        self.procedure_where = procedure_where or where
        self.control = control
        self.order_status = order_status
        self.parts = parts

    def spoken(self, keys: frozenset[str]) -> frozenset[str]:
        """Those of the expressions that may say something here."""
        return self._paths.possible(keys, self._resources)

    def says(self, path: Path) -> bool:
        """Whether there is anything at the path."""
        return bool(self.read(path))

    def repetitions(self, path: Path) -> Sequence[Repetition]:
        """Everything at the path, each as the HL7 v2 data type that corresponds to it."""
        return [sourced.repetition for sourced in self.read(path)]

    def read(self, path: Path) -> Sequence[Sourced]:
        """The same with places in the request, and the resource that each came from."""
        found = self._found.get(path.key)
        if found is None:
            found = self._found[path.key] = self._shared(path)
        return found

    def _shared(self, path: Path) -> Sequence[Sourced]:
        """What the path says of these resources; looked for once among all entries of a graph that have the same.

        The patient of an order is a document of its own, and stands in each of its steps.
        """
        begins = self._paths.begins(path)
        if not begins:
            return self._evaluated(path, self._resources)
        own = [self._resources.get(name, ()) for name in begins]
        key = path.key, self._paths, id(self._issuers), *[id(each) for several in own for each in several]
        held = self._graph.read.get(key)
        if held is None:  # kept with the resources, so that these stay who they are
            held = self._graph.read[key] = self._evaluated(path, self._resources), own, self._issuers
        return held[0]

    def beside(self, origin: object, path: Path) -> Sequence[Sourced]:
        """The same path in the one resource that a value came from."""
        if not path.key or not isinstance(origin, Mapping):
            return ()
        return self._evaluated(path, {str(origin.get("resourceType", "")): (origin,)})

    def _evaluated(self, path: Path, resources: Held) -> Sequence[Sourced]:
        told: list[Sourced] = []
        for found in self._paths.evaluate(path, resources, self._resolve, self._variables):
            said = repetition(found.value, found.datatype, self._issuers)
            if any(map(any, said)):
                place = self._graph.place(found.holder)
                told.append(Sourced(f"{place}.{found.where}" if found.where else place, said, found.resource))
        return told

    def _resolve(self, reference: object, within: Resource) -> Resource | None:
        return self._graph.resolve(reference)

    def place(self, path: Path) -> str:
        """Where the path would be in this entry; '' where it has no resource of that type."""
        resources = self._resources.get(path.segment)
        if path.field or not resources:
            return ""
        plain = self._paths.place(path)
        place = self._graph.place(resources[0])
        return f"{place}.{plain}" if plain else place

    def joined(self, others: "Sequence[FHIREntry]") -> "FHIREntry":
        """An entry that says what all say, each resource once."""
        resources: dict[str, tuple[Resource, ...]] = dict(self._resources)
        parts = list(self.parts)
        for other in others:
            for name, more in other._resources.items():
                held = resources.get(name, ())
                resources[name] = held + tuple(each for each in more if all(each is not one for one in held))
            parts += other.parts
        return FHIREntry(
            self._graph, self._paths, self._issuers, resources, self._variables, self.where, self.procedure_where,
            self.control, self.order_status, tuple(dict.fromkeys(parts)),
        )  # fmt: skip
