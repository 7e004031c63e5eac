"""References of FHIR resources: what one says, where they all are, and resources with others in their place.

An element is a reference if it has `reference` as text or is only an `identifier` where a reference belongs; whether
its type is allowed there is judged by `fhir_models`. Nothing here looks anything up.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.domain.resources import Resource

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""What an id may be (datatypes.html#id)."""

_TYPE = r"[A-Z][A-Za-z]{1,63}"
_RELATIVE = re.compile(rf"({_TYPE})/([A-Za-z0-9\-.]{{1,64}})(?:/_history/([A-Za-z0-9\-.]{{1,64}}))?")
_ABSOLUTE = re.compile(rf"([A-Za-z][A-Za-z0-9+.\-]*://.+)/{_RELATIVE.pattern}", re.DOTALL)
_CONDITIONAL = re.compile(rf"({_TYPE})\?(.+)", re.DOTALL)


class Way(StrEnum):
    """How a reference says what it means."""

    LOCAL = "local"
    """To a resource of the same server, relative or by one of the bases that are its own."""
    ABSOLUTE = "absolute"
    """To a resource of another server, or to anything with a URL."""
    URN = "urn"
    """`urn:uuid:` or `urn:oid:`, by which entries of a Bundle name each other."""
    CONTAINED = "contained"
    CONDITIONAL = "conditional"
    """`Patient?identifier=...`, in transactions."""
    LOGICAL = "logical"
    """By `identifier` only."""
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference, read. `type` and `id` are there for LOCAL, and for ABSOLUTE where the URL is a resource's.

    `version` is that of a versioned one; `text` is the reference as it stands, `query` what is behind the `?` of a
    conditional one, `id` of CONTAINED what is behind the `#` ('' for the container itself).
    """

    way: Way
    text: str = ""
    type: str = ""
    id: str = ""
    version: str = ""
    query: str = ""

    @property
    def local(self) -> str:
        """As a resource of the same server writes it, without a version."""
        return f"{self.type}/{self.id}"


class Placed(NamedTuple):
    """A reference where it stands: its FHIRPath, and the element itself."""

    where: str
    element: Resource


def read(text: str, bases: Sequence[str] = ()) -> Reference:
    """What this `Reference.reference` means to a server that is known by `bases` (without `/` at the end)."""
    if text.startswith("#"):
        return Reference(Way.CONTAINED, text, id=text[1:])
    if text.startswith(("urn:uuid:", "urn:oid:")):
        return Reference(Way.URN, text)
    found = _RELATIVE.fullmatch(text)
    if found:
        return Reference(Way.LOCAL, text, found[1], found[2], found[3] or "")
    found = _ABSOLUTE.fullmatch(text)
    if found:
        way = Way.LOCAL if found[1] in bases else Way.ABSOLUTE
        return Reference(way, text, found[2], found[3], found[4] or "")
    found = _CONDITIONAL.fullmatch(text)
    if found:
        return Reference(Way.CONDITIONAL, text, found[1], query=found[2])
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:", text):
        return Reference(Way.ABSOLUTE, text)
    return Reference(Way.MALFORMED, text)


def base_of(full_url: str) -> str:
    """The base of a resource's URL, by which relative references beside it are meant; '' where it is none."""
    found = _ABSOLUTE.fullmatch(full_url)
    return found[1] if found else ""


def references(resource: Resource, where: str = "") -> Iterator[Placed]:
    """Every reference of a resource, also of those it contains. `where` is the place of the resource itself."""
    yield from _references(resource, where or str(resource.get("resourceType", "")))


def _references(value: Any, where: str) -> Iterator[Placed]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield Placed(where, value)
        for name, inner in value.items():
            if isinstance(inner, (dict, list)):
                yield from _references(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _references(inner, f"{where}[{at}]")


def rewritten(resource: Resource, replace: Callable[[str, str], str], where: str = "") -> Resource:
    """The resource with every `reference` as `replace(text, place)` says; itself where none is another one."""
    changed: Resource = _rewritten(resource, replace, where or str(resource.get("resourceType", "")))
    return changed


def _rewritten(value: Any, replace: Callable[[str, str], str], where: str) -> Any:
    if isinstance(value, dict):
        made: dict[str, Any] | None = None
        for name, inner in value.items():
            if isinstance(inner, (dict, list)):
                new = _rewritten(inner, replace, f"{where}.{name}")
            elif name == "reference" and isinstance(inner, str):
                new = replace(inner, where)
            else:
                continue
            if new is not inner:
                made = dict(value) if made is None else made
                made[name] = new
        return value if made is None else made
    inners = [_rewritten(inner, replace, f"{where}[{at}]") for at, inner in enumerate(value)] if isinstance(
        value, list
    ) else None  # fmt: skip
    if inners is None or all(new is old for new, old in zip(inners, value, strict=True)):
        return value
    return inners
