"""FHIR resources as they are held: plain JSON values under a key, in versions, found by what they say and refer to.

Nothing here knows what an element means, and nothing parses: that is `wire`'s. A resource may hold patient data, so
it is never shown by `repr`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

Resource: TypeAlias = Mapping[str, Any]
"""A resource, or a part of one, as JSON gives it; numbers with a fraction are Decimal. Never changed in place."""


class ResourceKey(NamedTuple):
    """Which resource is meant. `source` is whose name space the id is of: one of our own bases, or another server."""

    source: str
    type: str
    id: str

    @property
    def reference(self) -> str:
        """How resources of the same server refer to it."""
        return f"{self.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class HeldResource:
    """The current version of a resource. A deleted one keeps its number, so that the next version has another."""

    key: ResourceKey
    version: int
    updated_at: datetime
    content: Resource = field(repr=False)
    deleted: bool = False
    release: str = ""
    """The release of FHIR that it is written in, as `fhir_release.Release` names it."""
    overruled: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What its sender says of the elements in which the gateway's word stands; None for one that it does not have."""

    @property
    def as_sent(self) -> Resource:
        """The resource in its sender's words alone: what an order is read from."""
        if not self.overruled:
            return self.content
        said = {**self.content, **self.overruled}
        return {name: value for name, value in said.items() if value is not None}


REFERS, REFERS_BY_IDENTIFIER = "_refers", "_refers:identifier"
"""Names of index rows, of resources of every type alike: what is referred to by its address, by its identifier."""


class Indexed(NamedTuple):
    """One thing that a resource is found by: the name of a search parameter, and what it has there.

    Tokens are (system, code), references ("", "Patient/1") or, by identifier, under `NAME:identifier`; dates have the
    first instant as value and the last as system, both in UTC with 14 digits; texts are folded, with the text as it is
    as system. Whatever a resource refers to, by whichever element, is there once more under `REFERS`, with the type
    of the resource itself as system.
    """

    name: str
    system: str
    value: str


class OrderPart(NamedTuple):
    """That a resource speaks of an order that is held, or of one procedure or step of it.

    `requested_procedure_id` and `sps_id` are '' where all of them are meant.
    """

    order_id: int
    key: ResourceKey
    requested_procedure_id: str = ""
    sps_id: str = ""
