"""FHIR resources that refer to each other, and what a reference among them means.

Pure: the graph holds what somebody gathered, and nothing is fetched. Places are where a resource stands in the request
that brought it, as FHIRPath; one that came earlier is called by its type.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from gateway.domain.resources import Resource

REFERENCE_CHARACTERS_MAX = 2048


class Graph:
    """Resources by `Type/id`, each with its place.

    Contained resources are among them as `Type/id#id`. `full_urls` says what entries of a Bundle are called there;
    `server` is the base URL of the server that holds them, '' for none.
    """

    def __init__(
        self,
        resources: Mapping[str, Resource],
        places: Mapping[str, str] | None = None,
        server: str = "",
        full_urls: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.read: dict[Hashable, Any] = {}
        """What entries have read of these resources, for others that have the same."""
        self._full_urls = dict(full_urls or {})
        self._resources: dict[str, Resource] = {}
        self._keys: dict[int, str] = {}
        self._places: dict[str, str] = {}
        for key, resource in resources.items():
            self._hold(key, resource, (places or {}).get(key, ""))
        self._by_identifier: dict[tuple[str, str, str], str] | None = None
        self._referring: dict[tuple[str, str], list[str]] | None = None

    def _hold(self, key: str, resource: Resource, place: str) -> None:
        contained = resource.get("contained")
        if isinstance(contained, list) and contained:
            resource = _with_own_references(resource, key)
            contained = resource["contained"]
        else:
            contained = ()
        self._put(key, resource, place or str(resource.get("resourceType", "")))
        for number, part in enumerate(contained):
            if isinstance(part, Mapping) and part.get("id"):
                self._put(f"{key}#{part['id']}", part, f"{self._places[key]}.contained[{number}]")

    def _put(self, key: str, resource: Resource, place: str) -> None:
        self._resources[key] = resource
        self._keys[id(resource)] = key
        self._places[key] = place

    def __contains__(self, key: str) -> bool:
        return key in self._resources

    def __getitem__(self, key: str) -> Resource:
        return self._resources[key]

    def get(self, key: str) -> Resource | None:
        """The resource `Type/id`, if it is held."""
        return self._resources.get(key)

    def of_type(self, name: str) -> Iterator[tuple[str, Resource]]:
        """The resources of one type that stand by themselves, each with its `Type/id`."""
        return (
            (key, each)
            for key, each in self._resources.items()
            if each.get("resourceType") == name and "#" not in key
        )  # fmt: skip

    def key(self, resource: object) -> str:
        """The `Type/id` of a resource of this graph; '' for any other."""
        return self._keys.get(id(resource), "")

    def place(self, resource: Resource) -> str:
        """Where it stands in the request, as FHIRPath."""
        return self._places.get(self.key(resource)) or str(resource.get("resourceType", ""))

    def key_of(self, reference: object, wanted: str = "") -> str:
        """The `Type/id` that a Reference (or its text) means; '' where nothing of the kind is held.

        In this order: contained, a full URL of the Bundle, relative, absolute on this server, by identifier. `wanted`
        is the type of resource that a reference by identifier means, where it does not say so itself.
        """
        said = reference.get("reference") if isinstance(reference, Mapping) else reference
        if isinstance(said, str) and said and len(said) <= REFERENCE_CHARACTERS_MAX:
            key = self._full_urls.get(said) or self._relative(said)
            if key in self._resources:
                return key
        if isinstance(reference, Mapping) and isinstance(reference.get("identifier"), Mapping):
            return self._identified(reference["identifier"], str(reference.get("type") or wanted))
        return ""

    def resolve(self, reference: object, wanted: str = "") -> Resource | None:
        """The resource that a Reference (or its text) means, as `key_of` finds it."""
        key = self.key_of(reference, wanted)
        return self._resources[key] if key else None

    def _relative(self, said: str) -> str:
        """A reference as `Type/id`, without the version it may name."""
        if self.server and said.startswith(f"{self.server}/"):
            said = said.removeprefix(f"{self.server}/")
        return said.partition("/_history/")[0]

    def _identified(self, identifier: Mapping[str, Any], kind: str) -> str:
        if self._by_identifier is None:
            self._by_identifier = {}
            for key, resource in self._resources.items():
                for each in listed(resource.get("identifier")):
                    if isinstance(each, Mapping) and each.get("value"):
                        at = str(resource.get("resourceType")), str(each.get("system") or ""), str(each["value"])
                        self._by_identifier.setdefault(at, key)
        return self._by_identifier.get((kind, str(identifier.get("system") or ""), str(identifier.get("value"))), "")

    def referring(self, key: str, kind: str, *elements: str) -> list[Resource]:
        """The resources of one type that refer to `key` by one of these elements, in the order they are held."""
        if self._referring is None:
            self._referring = {}
            for name, held in self._resources.items():
                for element in _REFERRING.get(str(held.get("resourceType")), ()):
                    for reference in listed(held.get(element)):
                        target = self.key_of(reference, _NAMES[element])
                        if target and "#" not in name:
                            self._referring.setdefault((target, f"{held['resourceType']}.{element}"), []).append(name)
        names = (name for each in elements for name in self._referring.get((key, f"{kind}.{each}"), ()))
        return [self._resources[name] for name in dict.fromkeys(names)]


_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("subject", "patient"), "Patient"),
    **dict.fromkeys(("basedOn", "focus", "replaces"), "ServiceRequest"),
    "partOf": "Task",
}
"""The type of resource that an element names where it gives an identifier alone."""
_REFERRING: Mapping[str, tuple[str, ...]] = {
    "ServiceRequest": ("basedOn", "replaces"),
    "Task": ("basedOn", "focus", "partOf"),
    "Appointment": ("basedOn",),
    "ImagingStudy": ("basedOn",),
    "Observation": ("subject",),
    "AllergyIntolerance": ("patient",),
    "Condition": ("subject",),
    "Flag": ("subject",),
}
"""The elements by which resources are found that refer to another."""


def listed(value: object) -> list[Any]:
    """A value that may repeat, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _with_own_references(resource: Resource, key: str) -> dict[str, Any]:
    """The resource with references to what it contains written so that they mean the same anywhere."""

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):
            said = value.get("reference")
            inner = {name: renamed(each) for name, each in value.items()}
            if isinstance(said, str) and said.startswith("#"):
                inner["reference"] = key + (said if len(said) > 1 else "")
            return inner
        return [renamed(each) for each in value] if isinstance(value, list) else value

    return {name: renamed(value) for name, value in resource.items()}


def bundle_graph(resource: Resource, server: str = "") -> Graph:
    """The graph of a resource, or of all that a Bundle holds: by their own ids, else by what the Bundle calls them."""
    if resource.get("resourceType") != "Bundle":
        name = str(resource.get("resourceType"))
        key = f"{name}/{resource.get('id') or '1'}"
        return Graph({key: _with_id(resource, key)}, {key: name}, server)
    resources: dict[str, Resource] = {}
    places: dict[str, str] = {}
    full_urls: dict[str, str] = {}
    for number, full_url, held in _entries(resource):
        made = full_url.removeprefix("urn:uuid:").rpartition("/")[2] or f"entry-{number}"
        key = f"{held['resourceType']}/{held.get('id') or made}"
        resources[key] = _with_id(held, key)
        places[key] = f"Bundle.entry[{number}].resource"
        if full_url:
            full_urls[full_url] = key
    return Graph(resources, places, server, full_urls)


def _entries(bundle: Resource) -> Iterable[tuple[int, str, Resource]]:
    for number, entry in enumerate(listed(bundle.get("entry"))):
        held = entry.get("resource") if isinstance(entry, Mapping) else None
        if isinstance(held, Mapping) and held.get("resourceType"):
            yield number, str(entry.get("fullUrl") or ""), held


def _with_id(resource: Resource, key: str) -> Resource:
    return resource if resource.get("id") else {**resource, "id": key.partition("/")[2]}
