"""Which orders, patients and visits changed resources speak of, and everything that those resources refer to.

An order is named by its root: the ServiceRequest that is based on no other one. What a resource concerns follows from
its type by the tables here; what it means is `fhir_meaning`'s. Everything is bounded: of a Practitioner who stands in
ten thousand open orders the newest `ORDERS_MAX` are said again at once, the others when something else of them changes,
and a note says so.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.domain.order import Order
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, Resource, ResourceKey
from gateway.wire.fhir_graph import listed
from gateway.wire.fhir_index import key_of
from gateway.wire.fhir_references import Way, read, references
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import INTENTS
from gateway.workflow.fhir_meaning import Speech
from gateway.workflow.ports import ResourceReader
from gateway.workflow.rederive import is_open

ORDERS_MAX = 1_000
"""Open orders that are said again because of one resource that they refer to."""
RESOURCES_MAX = 2_000
"""Resources gathered for one subject; an order of an ordinary sender has ten."""
DEPTH_MAX = 6
"""References followed one after the other: Task to order to requester's role to organization to its part."""
_FACTS_MAX = 200  # observations, allergies and the like of one patient, the newest
_SAME_MAX = 2  # patients of one identifier: one who was merged, and the other
_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("subject", "patient", "for"), "Patient"),
    **dict.fromkeys(("basedOn", "focus", "replaces"), "ServiceRequest"),
    "partOf": "Task", "requester": "Practitioner", "performer": "Device", "owner": "Device",
    "locationReference": "Location", "location": "Location", "encounter": "Encounter",
}  # fmt: skip
"""Elements that name a resource by address or by identifier, and its type where they do not say it."""

_NAMED = frozenset(_NAMES.values())

_ABOVE: Mapping[str, tuple[str, ...]] = {
    "ServiceRequest": ("basedOn",),
    "Task": ("basedOn", "focus"),
    "Appointment": ("basedOn",),
    "ImagingStudy": ("basedOn",),
}
"""What an order is made of, and the elements by which it hangs on what is above it."""

_PERSON: Mapping[str, str] = {
    "Observation": "subject", "AllergyIntolerance": "patient", "Condition": "subject", "Flag": "subject",
}  # fmt: skip
"""What says something of a patient, and the element that says of whom."""

_BELOW: Mapping[str, frozenset[str]] = {
    "ServiceRequest": frozenset(_ABOVE), "Task": frozenset({"Task"}), "Patient": frozenset(_PERSON),
}  # fmt: skip
"""What belongs to an order or a patient and refers to it."""

_SILENT = frozenset({"Coverage", "Provenance", "Subscription", "SubscriptionTopic", "Procedure", "Endpoint"})
"""What says nothing of an order, whatever it refers to."""

_ON_THE_WAY = frozenset({"Encounter", "PractitionerRole", "Location", "Organization", "Device", "HealthcareService"})
"""What orders refer to and what itself refers to others: a role to its practitioner, a visit to its room."""

_ENDED: Mapping[str, str] = {"Encounter": "entered-in-error"}
"""A deleted one of these speaks once more, with this status; of a deleted order nothing is said any more."""

SUBJECTS = ("Patient", "Encounter", "ServiceRequest")
"""What documents are made of, in the order in which they act: nobody's order comes before its patient."""


@dataclass(slots=True)
class Concerned:
    """The subjects (`ServiceRequest/1`) that a request concerns, each with the resources that made it so."""

    subjects: dict[ResourceKey, dict[ResourceKey, None]] = field(default_factory=dict)
    notes: dict[ResourceKey, str] = field(default_factory=dict)
    beside: set[ResourceKey] = field(default_factory=set)
    """Those of the subjects of which nothing was said: they speak of an order of another one, too."""

    def add(self, subject: ResourceKey, because: ResourceKey) -> None:
        self.subjects.setdefault(subject, {})[because] = None

    def indirect(self) -> frozenset[str]:
        """The subjects of which the request itself says nothing: they only refer to what it brings."""
        return frozenset(
            subject.reference
            for subject, causes in self.subjects.items()
            if subject in self.beside or (subject not in causes and not any(each.type in _ABOVE for each in causes))
        )

    def in_order(self) -> list[ResourceKey]:
        """Patients, then visits, then orders."""
        return sorted(self.subjects, key=lambda key: SUBJECTS.index(key.type))


class OrderReader(ResourceReader, Protocol):
    """Reading resources, and the orders that they speak of."""

    def order(self, order_id: int) -> Order | None:
        """An order by number, with its procedures and steps."""


class View:
    """The resources of one name space, with some of them other than they are held now: `instead`, None for none."""

    def __init__(
        self, unit: ResourceReader, instead: Mapping[ResourceKey, Resource | None], bases: Sequence[str] = ()
    ) -> None:
        self._unit, self._instead, self._bases = unit, instead, bases
        self._seen: dict[ResourceKey, Resource | None] = {}
        self._targets_of: dict[ResourceKey, frozenset[ResourceKey]] = {}
        self._referring: dict[ResourceKey, list[ResourceKey]] | None = None
        self._bearers: dict[tuple[str, str, str], list[ResourceKey]] | None = None

    def resource(self, key: ResourceKey) -> Resource | None:
        """It, None where there is none or it is deleted."""
        if key not in self._seen:
            if key in self._instead:
                self._seen[key] = self._instead[key]
            else:
                self._seen[key] = _content(self._unit.resource(key))
        return self._seen[key]

    def is_heard(self, key: ResourceKey) -> bool:
        """Whether an order is held that it speaks of."""
        return bool(self._unit.parts_of(key))

    def below(self, key: ResourceKey) -> Iterator[ResourceKey]:
        """What belongs to an order, a step or a patient, and refers to it."""
        types = _BELOW.get(key.type)
        if types:
            # By their ids, so that it makes no difference in which order they came.
            yield from sorted(self.referring(key, types, _FACTS_MAX if key.type == "Patient" else RESOURCES_MAX))

    def referring(self, key: ResourceKey, types: frozenset[str], limit: int) -> Iterator[ResourceKey]:
        """Resources of these types that refer to it, at most so many of those that are held, the newest first."""
        found: dict[ResourceKey, None] = {}
        for held in (*self._unit.referring(key, types, limit), *self._meaning(key, types, limit)):
            if held.key not in self._instead and held.key not in found:
                found[held.key] = None
                self._seen.setdefault(held.key, held.as_sent)
        yield from found
        yield from (other for other in self._instead_referring(key) if other.type in types)

    def _instead_referring(self, key: ResourceKey) -> Sequence[ResourceKey]:
        """Those that are other than they are held and refer to it, in their order."""
        if self._referring is None:
            self._referring = {}
            for other, content in self._instead.items():
                for target in self.targets(other, content) if content is not None else ():
                    self._referring.setdefault(target, []).append(other)
        return self._referring.get(key, ())

    def _meaning(self, key: ResourceKey, types: frozenset[str], limit: int) -> Iterator[HeldResource]:
        """Resources of these types that mean it by one of its identifiers."""
        content = self.resource(key) if key.type in _NAMED else None
        for system, value in _identifiers(content) if content is not None else ():
            for held in self._unit.referring_by_identifier(key.source, system, key_of(value), limit):
                if held.key.type in types and key in self.targets(held.key, held.as_sent):
                    yield held

    def targets(self, key: ResourceKey, content: Resource) -> frozenset[ResourceKey]:
        """The resources of the same name space that it refers to, by address or by identifier."""
        if key not in self._targets_of:
            addressed = self._targets(key.source, (placed.element for placed in references(content)))
            self._targets_of[key] = frozenset((*addressed, *self._identified(key.source, content)))
        return self._targets_of[key]

    def _identified(self, source: str, content: Resource) -> Iterator[ResourceKey]:
        """What a resource names by an identifier."""
        for name, type_ in _NAMES.items():
            for element in listed(content.get(name)):
                if isinstance(element, Mapping) and "identifier" in element:
                    yield from self._meant_by(source, element, type_)

    def _meant_by(self, source: str, element: Resource, type_: str) -> Iterator[ResourceKey]:
        said = element.get("type")
        for system, value in _identifiers({"identifier": element["identifier"]}):
            yield from self._bearing(source, said if isinstance(said, str) else type_, system, value)

    def _bearing(self, source: str, type_: str, system: str, value: str) -> Iterator[ResourceKey]:
        if type_ not in _NAMED:
            return
        criterion = Criterion("identifier", (Comparison(How.VALUE_OF_SYSTEM, key_of(value), system),))
        for held in self._unit.find_resources(source, type_, (criterion,), _SAME_MAX):
            if held.key not in self._instead:
                yield held.key
        yield from self._instead_bearing().get((type_, system, value), ())

    def _instead_bearing(self) -> Mapping[tuple[str, str, str], Sequence[ResourceKey]]:
        """Those that are other than they are held, by their types and identifiers."""
        if self._bearers is None:
            self._bearers = {}
            for key, content in self._instead.items():
                for system, value in _identifiers(content) if key.type in _NAMED and content is not None else ():
                    self._bearers.setdefault((key.type, system, value), []).append(key)
        return self._bearers

    def numbered(self, key: ResourceKey, content: Resource) -> Iterator[ResourceKey]:
        """Some of those of its type that bear one of its identifiers."""
        for system, value in _identifiers(content):
            yield from self._bearing(key.source, key.type, system, value)

    def above(self, key: ResourceKey, content: Resource) -> Iterator[ResourceKey]:
        """What a part of an order hangs on."""
        for element in (each for name in _ABOVE[key.type] for each in listed(content.get(name))):
            yield from self.meant(key.source, element)

    def meant(self, source: str, element: object) -> Iterator[ResourceKey]:
        """The resource that a Reference to a part of an order means."""
        if isinstance(element, Mapping):
            addressed = list(self._targets(source, (element,)))
            yield from addressed or (
                self._meant_by(source, element, "ServiceRequest") if "identifier" in element else ()
            )

    def person(self, key: ResourceKey, content: Resource) -> Iterator[ResourceKey]:
        """Whose patient's it is."""
        elements = listed(content.get(_PERSON[key.type]))
        yield from self._targets(key.source, (each for each in elements if isinstance(each, Mapping)))
        yield from self._identified(key.source, content)

    def _targets(self, source: str, elements: Iterable[Resource]) -> Iterator[ResourceKey]:
        for element in elements:
            said = element.get("reference")
            found = read(said, self._bases) if isinstance(said, str) else None
            if found is not None and found.way is Way.LOCAL:
                yield ResourceKey(source, found.type, found.id)


def _identifiers(content: Resource) -> Iterator[tuple[str, str]]:
    """(system, value) of the identifiers of a resource."""
    for each in listed(content.get("identifier")):
        if isinstance(each, Mapping) and isinstance(each.get("value"), str):
            yield str(each.get("system") or ""), each["value"]


def _content(held: HeldResource | None) -> Resource | None:
    return None if held is None or held.deleted else held.as_sent


def views(
    unit: ResourceReader,
    changed: Iterable[ResourceKey],
    before: Mapping[ResourceKey, HeldResource | None],
    bases: Sequence[str] = (),
) -> tuple[View, View]:
    """The resources after a request and before it. What it deleted is there as entered in error.

    `bases` are the URLs that stand before references to resources of this name space.
    """
    last: dict[ResourceKey, Resource | None] = {}
    former: dict[ResourceKey, Resource | None] = {}
    for key in changed:
        former[key] = said = _content(before.get(key))
        if said is not None and _content(unit.resource(key)) is None:
            last[key] = {**said, "status": _ENDED[key.type]} if key.type in _ENDED else None
        else:
            last[key] = _content(unit.resource(key))
    return View(unit, last, bases), View(unit, former, bases)


# --- what is concerned ------------------------------------------------------------------------------------------------


def concerned(unit: OrderReader, changed: Iterable[ResourceKey], now: View, before: View) -> Concerned:
    """What the changes of a request concern."""
    found = Concerned()
    for key in changed:
        for view in (now, before):  # what hung on one order and hangs on another now concerns both
            content = view.resource(key)
            if content is None:
                continue
            if key.type in _ABOVE:
                for root in (*_roots(view, key, content), *_roots_of_parts(view, key)):
                    found.add(root, key)
                for root in _replaced(view, key, content):
                    found.add(root, key)
                for root in _roots_of_planned(view, key, before.resource(key), now.resource(key)):
                    found.add(root, key)
            elif key.type in _PERSON:
                for patient in view.person(key, content):
                    found.add(patient, key)
                    _add_orders_with(unit, now, patient, found, key)
        if key.type in ("Patient", "Encounter") and now.resource(key) is not None:
            found.add(key, key)
        if key.type == "Patient" and before.resource(key) is None:  # visits and merges that waited, as orders do
            for other in now.referring(key, frozenset({"Encounter", "Patient"}), ORDERS_MAX):
                found.add(other, key)
        if key.type in _ABOVE and not any(key in causes for causes in found.subjects.values()):
            found.notes[key] = f"{key.reference} names no order that is here; it is kept, and counts when that comes"
        if key.type not in _ABOVE and key.type not in _SILENT:
            _add_orders_with(unit, now, key, found, new=before.resource(key) is None)
    _add_beside(unit, now, before, found)
    return found


def _add_beside(unit: OrderReader, now: View, before: View, found: Concerned) -> None:
    """Other requests that speak of the same orders, or have one of the numbers: what one of them says no more another
    may say still."""
    for subject, causes in list(found.subjects.items()):
        if subject.type != "ServiceRequest" or not any(each.type in _ABOVE for each in causes):
            continue
        orders = dict.fromkeys(part.order_id for part in unit.parts_of(subject))
        others = dict.fromkeys(part.key for order_id in orders for part in unit.order_parts(order_id))
        contents = (view.resource(subject) for view in (now, before))
        others |= dict.fromkeys(each for said in contents if said is not None for each in now.numbered(subject, said))
        for key in others:
            content = now.resource(key) if key.type == "ServiceRequest" and key.source == subject.source else None
            for root in _roots(now, key, content) if content is not None else ():
                if root not in found.subjects:
                    found.subjects[root] = dict(causes)
                    found.beside.add(root)


def _add_orders_with(
    unit: OrderReader, view: View, key: ResourceKey, found: Concerned, because: ResourceKey | None = None,
    new: bool = False,
) -> None:  # fmt: skip
    """The orders that refer to this resource: those of a patient that waited for it, else those that are open.

    `because` is what is known of the patient and changed: that is in the open orders, too. A `new` patient may be the
    one that orders named by an identifier until now, without anything known of it.
    """
    orders: dict[ResourceKey, None] = {}
    for root in _orders_with(view, key):
        if len(orders) >= ORDERS_MAX:
            found.notes[because or key] = (
                f"{key.reference} stands in more than {ORDERS_MAX} orders; those left out have it when they change"
            )
            break
        parts = unit.parts_of(root)
        told = key.type == "Patient" and because is None and not new  # in its own record, which all its orders share
        if not parts or (not told and any(_is_open(unit, part.order_id) for part in parts)):
            orders[root] = None
    for root in orders:
        found.add(root, because or key)


def _is_open(unit: OrderReader, order_id: int) -> bool:
    order = unit.order(order_id)
    return order is not None and is_open(order)


def _orders_with(view: View, key: ResourceKey) -> Iterator[ResourceKey]:
    """As far away as resources of an order are gathered."""
    seen, waiting = {key}, deque([(key, 0)])
    while waiting:
        near, depth = waiting.popleft()
        for other in view.referring(near, frozenset(_ABOVE) | _ON_THE_WAY, ORDERS_MAX + 1):
            if other in seen:
                continue
            seen.add(other)
            content = view.resource(other)
            if other.type in _ABOVE and content is not None:
                yield from (root for root in _roots(view, other, content) if root not in seen or root == other)
            elif len(seen) < RESOURCES_MAX and depth < DEPTH_MAX and near.type != "Patient":
                waiting.append((other, depth + 1))


def _roots(
    view: View, key: ResourceKey, content: Resource, depth: int = DEPTH_MAX,
    seen: set[tuple[ResourceKey, int]] | None = None,
) -> Iterator[ResourceKey]:  # fmt: skip
    """The ServiceRequests at the top of what this is a part of; the last one looked at where that is a circle.

    What hangs on something that is not here yet has none: when that comes, it finds what hangs on it. What is reached
    on several ways is looked at once, for the ways may be more than anybody can go.
    """
    seen = set() if seen is None else seen
    if (key, depth) in seen:
        return
    seen.add((key, depth))
    # A plan has no orders below it. What schedules a plan hangs on it all the same: it was an order, or becomes one.
    above = [
        (each, over) for each in view.above(key, content)
        if (over := view.resource(each)) and (key.type != "ServiceRequest" or _orders(each, over))
    ]  # fmt: skip
    if key.type == "ServiceRequest" and not (above and depth):
        yield key
    for each, over in above if depth else ():
        yield from _roots(view, each, over, depth - 1, seen)


def _roots_of_parts(view: View, key: ResourceKey) -> Iterator[ResourceKey]:
    """The orders of the Tasks that are part of a Task: what happens to a group happens to each of it."""
    seen, waiting = {key}, [key] if key.type == "Task" else []
    while waiting and len(seen) < RESOURCES_MAX:
        group = waiting.pop()
        for other in view.referring(group, _BELOW["Task"], RESOURCES_MAX):
            content = view.resource(other)
            elements = listed(content.get("partOf")) if content is not None and other not in seen else ()
            if content is not None and any(group in view.meant(key.source, each) for each in elements):
                seen.add(other)
                waiting.append(other)
                yield from _roots(view, other, content)


def _roots_of_planned(
    view: View, key: ResourceKey, before: Resource | None, now: Resource | None
) -> Iterator[ResourceKey]:  # fmt: skip
    """The orders that are based on a request that is a plan now, or was one: their numbers may be others by that."""
    if key.type != "ServiceRequest" or now is None:
        return
    is_plan, was_plan = not _orders(key, now), before is not None and not _orders(key, before)
    if is_plan is was_plan and (before is not None or not is_plan):
        return
    for other in view.referring(key, frozenset({"ServiceRequest"}), RESOURCES_MAX):
        content = view.resource(other)
        yield from _roots(view, other, content) if content is not None else ()


def _replaced(view: View, key: ResourceKey, content: Resource) -> Iterator[ResourceKey]:
    """The orders that a ServiceRequest takes the place of: they are taken back."""
    for element in listed(content.get("replaces")) if key.type == "ServiceRequest" else ():
        for other in view.meant(key.source, element):
            over = view.resource(other)
            if other.type == key.type and over is not None:
                yield from _roots(view, other, over)


def _orders(key: ResourceKey, content: Resource) -> bool:
    """Whether it can stand above parts of an order: a plan or a proposal orders nothing."""
    return key.type in _ABOVE and (key.type != "ServiceRequest" or INTENTS.get(str(content.get("intent")), False))


# --- everything that is said of it ------------------------------------------------------------------------------------


def speech_of(
    release: Release,
    places: Mapping[str, str],
    subjects: Iterable[ResourceKey],
    now: View,
    before: View,
    server: str,
    beside: Collection[ResourceKey] = (),
) -> Speech:
    """What is said of these subjects now, and what was said of them before the request.

    `places` say where the resources of the request stand in it; `beside` are subjects of which it says nothing.
    """
    subjects = list(subjects)
    resources, former = _gathered(now, subjects), _gathered(before, subjects)
    return Speech(
        release,
        server,
        tuple(key.reference for key in subjects),
        resources,
        {name: content for name, content in former.items() if resources.get(name) is not content},
        tuple(name for name in resources if name not in former),
        {name: place for name, place in places.items() if name in resources},
        tuple(key.reference for key in subjects if now.is_heard(key)),
        tuple(key.reference for key in subjects if key in beside),
    )


def _gathered(view: View, subjects: Iterable[ResourceKey]) -> dict[str, Resource]:
    resources: dict[str, Resource] = {}
    for subject in subjects:
        bound = len(resources) + RESOURCES_MAX
        waiting: deque[tuple[ResourceKey, int, bool]] = deque([(subject, 0, True)])
        seen: set[ResourceKey] = set()
        while waiting and len(resources) < bound:
            key, depth, within = waiting.popleft()
            content = view.resource(key) if key not in seen else None
            seen.add(key)
            if content is None:
                continue
            resources[key.reference] = content
            if within or key.type == "Patient":  # what hangs on an order that this one replaces is no part of this
                waiting.extend((each, depth + 1, True) for each in view.below(key))
            if depth < DEPTH_MAX:
                waiting.extend((each, depth + 1, False) for each in sorted(view.targets(key, content)))
    return resources
