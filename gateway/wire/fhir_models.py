"""Whether a resource is what the specification says: elements, types, codes, targets, modifiers.

One walk through the resource beside its shape (`fhir_shapes`: what is known of it from fhir.resources) finds every
problem at once, each with its place; running the models themselves would stop at some, coerce others and take longer.
Wherever this finds nothing, the models find nothing either: a test holds that.

What is not judged here: profiles, codes outside required value sets, whether a reference leads anywhere outside of the
resource, and what an order needs for being scheduled. Nothing of a value is ever quoted.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.fhir_primitives import PRIMITIVES
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import Element, Shape, resource_shape, shape
from gateway.wire.fhir_value_sets import CONCEPTS

PROBLEMS_MAX = 50
"""More than a person mends at one time; a Bundle that is wrong everywhere is not walked to its end."""

NOTES_MAX = 20

DEPTH_MAX = 200
"""As deep as a body may be set to be (`fhir.limits.depth_max`); deeper is refused here too, rather than run into."""

TAKEN = (
    "ServiceRequest", "Patient", "Encounter", "Practitioner", "PractitionerRole", "Organization", "Location",
    "Appointment", "Task", "AllergyIntolerance", "Observation", "Condition", "Flag", "Device", "ImagingStudy",
    "Procedure", "Provenance", "Subscription", "Bundle", "MessageHeader", "OperationOutcome", "Parameters",
)  # fmt: skip
"""What senders of orders send; hints name these. Any other type of the release is judged alike."""

_K = RefusalKind
_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")
_REFERENCE = re.compile(
    r"(?:https?://[^\s?#]+/)?(?P<type>[A-Z][A-Za-z]{1,63})/[A-Za-z0-9.-]{1,64}(?:/_history/[A-Za-z0-9.-]{1,64})?(?:#.*)?"
)
_DEFINITIONS = "http://hl7.org/fhir/StructureDefinition/"
_CONDITIONAL = re.compile(r"(?P<type>[A-Z][A-Za-z]{1,63})\?")


_Place: TypeAlias = tuple[Any, str, int | None]
"""Where the walk is: below which place (or None), which element, which of several. A plain tuple, because there is one
for each value; it is written out only where something is wrong."""


def _path(place: _Place) -> str:
    steps: list[str] = []
    at: _Place | None = place
    while at is not None:
        at, name, number = at
        steps.append(name if number is None else f"{name}[{number}]")
    return ".".join(reversed(steps))


class _Enough(Exception):  # noqa: N818  (not an error: the walk has found what it may tell)
    """There are as many problems as are told."""


def problems(resource: Any, release: Release, where: str = "") -> tuple[list[Refusal], list[str]]:
    """What is wrong with `resource`, and remarks for whoever sent it. Never raises.

    `where` is its FHIRPath; empty, it is that of a resource by itself: its type. At most `PROBLEMS_MAX` are told.
    Profiles are not judged: a note says so.
    """
    walk = _Walk(release)
    try:
        walk.resource(resource, where)
    except _Enough:
        pass
    except RecursionError:
        walk.refusals.append(Refusal(_K.MALFORMED, where, "elements are too deep inside each other", _FLATTER))
    return walk.refusals, walk.notes


_FLATTER = "nest less"


class _Walk:
    def __init__(self, release: Release) -> None:
        self._release = release
        self._depth = 0
        self._local: frozenset[str] = frozenset()
        """What may be referred to by #id within the resource that the walk is in."""
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []

    # ---- resources ----

    def resource(self, value: Any, where: str) -> None:
        name = value.get("resourceType") if isinstance(value, Mapping) else None
        found = resource_shape(self._release, name)
        place = (None, f"{where}.resourceType" if where else "resourceType", None)
        if not isinstance(value, Mapping):
            self._refuse(_K.MALFORMED, (None, where, None) if where else None, "is no resource", "send a JSON object")
        elif name is None:
            self._refuse(_K.MISSING_FIELD, place, "is required", "name the type of the resource in `resourceType`")
        elif found is None:
            self._refuse(_K.UNSUPPORTED_TYPE, place, f"is no type of resource in {self._release}", _type_hint(name))
        else:
            self._local = _local_addresses(value)
            self._members(found, value, (None, where or found.type, None), 0)

    def _inner_resource(self, value: Mapping[str, Any], place: _Place, depth: int) -> None:
        """One in `contained`, in an entry or in a parameter."""
        name = value.get("resourceType")
        found = resource_shape(self._release, name)
        if name is None:
            hint = "name the type of the resource in `resourceType`"
            self._refuse(_K.MISSING_FIELD, (place, "resourceType", None), "is required", hint)
        elif found is None:
            text = f"is no type of resource in {self._release}"
            self._refuse(_K.BAD_VALUE, (place, "resourceType", None), text, _type_hint(name))
        elif place[1] != "contained":
            outside, self._local = self._local, _local_addresses(value)
            self._members(found, value, place, depth + 1)
            self._local = outside
        else:
            self._contained_resource(found, value, place, depth)

    def _contained_resource(self, found: Shape, value: Mapping[str, Any], place: _Place, depth: int) -> None:
        if "contained" in value:  # dom-2
            text = "a contained resource contains none itself"
            self._refuse(_K.MALFORMED, (place, "contained", None), text, "put all of them into the outer resource")
            value = {name: each for name, each in value.items() if name != "contained"}
        if "id" not in value:
            text = "a contained resource has an id, by which the outer one refers to it"
            self._refuse(_K.MISSING_FIELD, (place, "id", None), text, "give it an id, and refer to it by #id")
        self._members(found, value, place, depth + 1)

    # ---- elements ----

    def _members(self, found: Shape, value: Mapping[str, Any], place: _Place, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise RecursionError
        elements = found.elements
        chosen: dict[str, str] = {}
        for name, item in value.items():
            element = elements.get(name)
            if element is None:
                self._other_member(found, name, item, value, place, depth, chosen)
                continue
            if element.choice:
                self._choose(element, name, chosen, place)
            if not element.many:
                self._one(found, element, item, (place, element.path, None), depth)
            elif type(item) is not list:
                self._refuse(_K.MALFORMED, (place, element.path, None), "is a list in JSON", "put it into [ ]")
            elif not item:
                self._refuse(_K.MALFORMED, (place, element.path, None), "is an empty list", "leave it out")
            else:
                for index, each in enumerate(item):
                    at = (place, element.path, index)
                    if each is None and element.primitive:
                        self._placeholder(value.get(f"_{name}"), index, at)
                    else:
                        self._one(found, element, each, at, depth)
        for name in found.required:
            if name not in value and f"_{name}" not in value:
                self._refuse(_K.MISSING_FIELD, (place, name, None), "is required", f"give {found.type}.{name}")
        for choice, needed in found.choices.items():
            if needed and choice not in chosen:
                text = "is required, as one of its types"
                self._refuse(_K.MISSING_FIELD, (place, choice, None), text, f"give such as {choice}String")
        if found.is_resource or found.type in _RULES:
            self._rules(found, value, place)

    def _choose(self, element: Element, name: str, chosen: dict[str, str], place: _Place) -> None:
        before = chosen.setdefault(element.choice, name)
        if before != name:
            text = f"is given twice, as {before} and as {name}"
            self._refuse(_K.MALFORMED, (place, element.choice, None), text, "give it as one type only")

    def _one(self, found: Shape, element: Element, value: Any, place: _Place, depth: int) -> None:
        if element.primitive:
            self._primitive(element, value, place)
        elif type(value) is not dict and not isinstance(value, Mapping):  # the first is quicker, and usual
            self._refuse(_K.MALFORMED, place, "is no JSON object", f"send {element.type} as an object")
        elif not value:
            self._refuse(_K.MALFORMED, place, "is an empty object", "leave it out")
        elif element.name == "modifierExtension":
            text = "changes the meaning in a way that is not known here, so the whole must not be acted on"
            self._refuse(_K.NOT_UNDERSTOOD, place, text, "send it without, where it means the same without")
        elif element.type == "Resource":
            self._inner_resource(value, place, depth)
        else:
            inner = shape(self._release, element.type)
            if inner is None:
                self._refuse(_K.MALFORMED, place, f"{element.type} is no type of {self._release}", "leave it out")
                return
            self._members(inner, value, place, depth + 1)
            if element.targets:
                self._target(element, value.get("reference") if element.type == "CodeableReference" else value, place)
            concept = CONCEPTS.get((found.type, element.name))
            if concept is not None:
                self._concept(concept[self._release].system, concept[self._release].codes, value, place)

    def _primitive(self, element: Element, value: Any, place: _Place) -> None:
        primitive = PRIMITIVES[element.type]
        wrong = primitive.check(value)
        if wrong:
            kind = _K.BAD_VALUE if isinstance(value, str | int | float) else _K.MALFORMED
            self._refuse(kind, place, wrong, f"give it as {element.type}, such as {primitive.example}")
        elif element.codes and value not in element.codes:
            text = "is a code outside the required value set"
            self._refuse(_K.UNKNOWN_CODE, place, text, f"use one of {', '.join(sorted(element.codes))}")
        elif element.name == "implicitRules":
            text = "names rules that are not known here, so the resource cannot be understood"
            self._refuse(_K.NOT_UNDERSTOOD, place, text, "send it without implicitRules")

    def _other_member(
        self, found: Shape, name: str, item: Any, value: Mapping[str, Any], place: _Place, depth: int,
        chosen: dict[str, str],
    ) -> None:  # fmt: skip
        """What is no element: the type of the resource, the other half of a primitive, or a mistake."""
        if name == "resourceType" and found.is_resource:
            return
        element = found.elements.get(name[1:]) if name.startswith("_") else None
        if element is None or not element.primitive:
            at, hint = place, "mend the name of the member"
            text = "has a member that is no element of it"
            if _NAME.fullmatch(name):  # a name that looks like none may be anything, even a patient's
                at, text = (place, name, None), f"is no element of {found.type} in {self._release}"
                near = difflib.get_close_matches(name, found.elements, 1)
                hint = f"did you mean {near[0]}?" if near else "leave it out, or send it as an extension"
            self._refuse(_K.MALFORMED, at, text, hint)
            return
        if element.choice:
            self._choose(element, element.name, chosen, place)
        self._other_half(element, item, value, place, depth)

    def _other_half(self, element: Element, item: Any, value: Mapping[str, Any], place: _Place, depth: int) -> None:
        """`_birthDate`: id and extensions of a primitive (json.html 2.6.2.3)."""
        at = (place, element.path, None)
        halves = item if element.many else [item]
        primitives = value.get(element.name)
        if type(halves) is not list or not halves:
            text = f"_{element.name} is no list with something in it"
            self._refuse(_K.MALFORMED, at, text, "send a list, or nothing")
            return
        if element.many and type(primitives) is list and len(primitives) != len(halves):
            text = f"{element.name} and _{element.name} are not of the same length"
            self._refuse(_K.MALFORMED, at, text, "fill the shorter one up with null")
        inner = shape(self._release, "Element")
        for index, each in enumerate(halves):
            one = (place, element.path, index) if element.many else at
            if each is None and element.many:
                if not (type(primitives) is list and index < len(primitives)):
                    self._refuse(_K.MALFORMED, one, "is null, and has no value either", "leave it out")
                continue
            if inner is None or not isinstance(each, Mapping) or not each:
                text = f"_{element.name} is no JSON object with something in it"
                self._refuse(_K.MALFORMED, one, text, "send an object with extension or id")
                continue
            self._members(inner, each, one, depth + 1)
            if "extension" not in each and element.name not in value:  # ele-1
                self._refuse(_K.MISSING_VALUE, one, "has neither a value nor an extension", "give one of them")

    def _placeholder(self, halves: Any, index: int, place: _Place) -> None:
        """null in a list of primitives stands for a value of which there is only the other half."""
        if not (type(halves) is list and index < len(halves) and halves[index]):
            self._refuse(_K.MALFORMED, place, "is null, and has no extension either", "leave it out")

    # ---- rules ----

    def _target(self, element: Element, reference: Any, place: _Place) -> None:
        if not isinstance(reference, Mapping):
            return
        named, certain = _target_type(reference)
        if named and named not in element.targets:
            known = resource_shape(self._release, named) is not None
            if not known and not certain:  # an address elsewhere that only looks like a resource's
                return
            text = f"may not point to {named}" if known else "points to no type of resource"
            at = (place, "reference", None) if element.type == "CodeableReference" else place
            self._refuse(_K.BAD_VALUE, at, text, f"refer to {_one_of(element.targets)}")

    def _concept(self, system: str, codes: frozenset[str], value: Mapping[str, Any], place: _Place) -> None:
        codings = value.get("coding")
        said = [each for each in codings if isinstance(each, Mapping)] if isinstance(codings, list) else []
        if not any(each.get("system") == system and _in(codes, each.get("code")) for each in said):
            text = "has no code of the required value set"
            self._refuse(_K.UNKNOWN_CODE, place, text, f"give a coding of {system}: {', '.join(sorted(codes))}")

    def _rules(self, found: Shape, value: Mapping[str, Any], place: _Place) -> None:
        """Invariants that the rest of the gateway relies on, and that no model holds."""
        if found.is_resource:
            self._profiles(value)
        elif found.type == "Reference":
            if not _LEADING & value.keys():  # ref-1
                self._refuse(_K.MISSING_VALUE, place, "refers to nothing", "give reference, identifier or display")
            said = value.get("reference")
            if type(said) is str and said.startswith("#") and said not in self._local:
                text = "refers to a contained resource that is not there"
                self._refuse(_K.BAD_VALUE, place, text, "put that resource into `contained`, with this id")
        elif found.type == "Extension":
            chosen = any(name.lstrip("_").startswith("value") for name in value)
            if chosen == ("extension" in value):  # ext-1
                text = "has both a value and extensions" if chosen else "has neither a value nor extensions"
                self._refuse(_K.MALFORMED, place, text, "give one of the two")

    def _profiles(self, value: Mapping[str, Any]) -> None:
        meta = value.get("meta")
        claimed = meta.get("profile") if isinstance(meta, Mapping) else None
        for each in claimed if isinstance(claimed, list) else ():
            if not PRIMITIVES["canonical"].check(each) and len(self.notes) < NOTES_MAX:
                note = f"Taken without looking at the profile that it claims: {each[:200]}"
                if note not in self.notes:
                    self.notes.append(note)

    # ---- saying so ----

    def _refuse(self, kind: RefusalKind, place: _Place | None, text: str, hint: str) -> None:
        self.refusals.append(Refusal(kind, _path(place) if place is not None else "", text, hint))
        if len(self.refusals) >= PROBLEMS_MAX:
            raise _Enough


_RULES = frozenset({"Reference", "Extension"})
"""Types, other than resources, that have rules beyond their elements."""


_LEADING = frozenset({"reference", "identifier", "display", "extension", "_reference", "_display"})
"""Members of which a Reference has one at least."""


def _local_addresses(resource: Mapping[str, Any]) -> frozenset[str]:
    """`#` and the id of each contained resource; `#` alone is the resource itself."""
    contained = resource.get("contained")
    inner = contained if isinstance(contained, list) else ()
    return frozenset(["#", *(f"#{each.get('id')}" for each in inner if isinstance(each, Mapping))])


def _in(codes: frozenset[str], code: Any) -> bool:
    return isinstance(code, str) and code in codes


def _target_type(reference: Mapping[str, Any]) -> tuple[str, bool]:
    """The type that a reference points to, '' where it does not say (urn:uuid, #contained); whether that is certain."""
    said = reference.get("reference")
    if isinstance(said, str):
        found = _REFERENCE.fullmatch(said) or _CONDITIONAL.match(said)
        if found is not None:
            return found["type"], found.start("type") == 0
    named = reference.get("type")
    return (named.removeprefix(_DEFINITIONS), False) if isinstance(named, str) else ("", False)


def _one_of(names: frozenset[str]) -> str:
    *others, last = sorted(names)
    return f"{', '.join(others)} or {last}" if others else last


def _type_hint(name: Any) -> str:
    near = difflib.get_close_matches(name, TAKEN, 1) if isinstance(name, str) and len(name) < 64 else []
    return f"did you mean {near[0]}?" if near else f"send one of {', '.join(TAKEN[:12])}"
