"""FHIR resources as documents for a mapping: which requests, Tasks and Appointments make which entries.

An entry is a leaf ServiceRequest (a requested procedure: the request itself, or each request that is based on it) with
one of its Tasks or Appointments (a scheduled step), or without one. It sees the patient, the visit, the studies and
what is known of the patient. What a status means is `fhir_states`. Nothing here reads an element, except those that say
how resources hang together, whether they count, and what is to be done: status, intent, doNotPerform, category.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from gateway.domain.identifiers import Issuers
from gateway.domain.order import HERE, REWORDED, OrderControl, Takes, effect_of
from gateway.domain.patient import VisitChange
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.domain.source import Kind
from gateway.wire.fhir_entries import FHIREntry
from gateway.wire.fhir_graph import Graph, bundle_graph, listed
from gateway.wire.fhir_index import date_range
from gateway.wire.fhir_paths import FHIRPaths, reader
from gateway.wire.fhir_performance import is_made
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import (
    ENCOUNTER_STATES,
    INTENTS,
    REQUESTS_ABOUT_ORDERS,
    TASK_CODES,
    Word,
    together,
    word_of,
)

__all__ = [
    "FHIRDocument", "FHIREntry", "Graph", "Reading", "bundle_graph", "documents", "encounter_document",
    "order_document", "patient_document", "root_of",
]  # fmt: skip

ABOVE_MAX = 16
"""Requests on top of each other, or Tasks that are part of each other. The guides know two."""
STEPS_MAX = 500
"""Entries of one order; 500 steps are ten years of weekly examinations."""


class Reading(NamedTuple):
    """What resources are read by: their release, the categories (SYSTEM|CODE or CODE) that are imaging, authorities."""

    release: Release
    categories: Sequence[str] = ()
    """Empty: every category counts."""
    issuers: Issuers = Issuers()
    listed: bool = False
    """Whether the order was on the list before: then "do not perform" takes it off, else it is refused."""

    @property
    def paths(self) -> FHIRPaths:
        """The expressions of this release."""
        return reader(self.release)


@dataclass(frozen=True, slots=True)
class FHIRDocument:
    """Resources cut into entries.

    `reworded` are those again whose state only takes away or holds, and those whose state schedules nothing, for what
    they say of what was scheduled of them before. `waits_for` are references to what has to come before it can be read
    (`Patient/9`); then there are no entries.
    """

    kind: Kind
    entries: tuple[FHIREntry, ...]
    visit_change: VisitChange = VisitChange.UPDATE
    notes: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    reworded: tuple[FHIREntry, ...] = ()


def documents(graph: Graph, reading: Reading) -> Iterator[FHIRDocument]:
    """All that the resources of a request say by themselves: people, visits, orders.

    Whoever an order is for, and its visit, are in the order. Raises Refused.
    """
    requests = dict(graph.of_type("ServiceRequest"))
    roots = dict.fromkeys(root_of(graph, key) for key in requests)
    told = {graph.key_of(each.get("encounter")) for each in requests.values()}
    visits = {key: each for key, each in graph.of_type("Encounter") if key not in told}
    told |= {graph.key_of(each.get("subject"), "Patient") for each in (*requests.values(), *visits.values())}
    for key, patient in graph.of_type("Patient"):
        if key not in told or patient.get("link"):
            yield patient_document(graph, key, reading)
    for key in visits:
        yield encounter_document(graph, key, reading)
    for key in roots:
        yield order_document(graph, key, reading)


def patient_document(graph: Graph, reference: str, reading: Reading) -> FHIRDocument:
    """What the Patient `reference` (`Patient/ID`) says: an update of the person, or a merge.

    A link `replaced-by` (or `replaces`, said by the other side) to a patient of other identifiers is a merge.
    """
    patient = graph[reference]
    surviving, prior = _merged(graph, patient)
    if surviving is None:
        return FHIRDocument(Kind.PATIENT_UPDATE, (_person(graph, reading, patient),))
    # The rules read a merge at the one that stays: its links name those that go.
    if prior is not None:
        surviving = {**surviving, "link": [{"type": "replaces", "other": {"reference": graph.key(prior)}}]}
    where = graph.place(patient)
    held = {"Patient": (surviving,)}
    return FHIRDocument(Kind.PATIENT_MERGE, (_entry(graph, reading, held, {}, where),))


def _merged(graph: Graph, patient: Resource) -> tuple[Resource | None, Resource | None]:
    """The patient that stays, and, where that does not say so itself, the one that goes; (None, None): no merge."""
    for link in listed(patient.get("link")):
        said = link.get("other")
        other = graph.resolve(said, "Patient")
        if other is None and isinstance(said, Mapping) and isinstance(said.get("identifier"), Mapping):
            other = {"resourceType": "Patient", "identifier": [said["identifier"]]}
        if other is None or other is patient:
            continue
        gone, stays = (patient, other) if link.get("type") == "replaced-by" else (other, patient)
        if link.get("type") in ("replaced-by", "replaces") and _identities(gone) - _identities(stays):
            return (stays, gone) if gone is patient else (stays, None)
    return None, None


def _identities(patient: Resource) -> set[tuple[str, str]]:
    named = (each for each in listed(patient.get("identifier")) if each.get("value"))
    return {(str(each.get("system") or ""), str(each["value"])) for each in named}


def encounter_document(graph: Graph, reference: str, reading: Reading) -> FHIRDocument:
    """What the Encounter `reference` (`Encounter/ID`) says of a visit. Raises Refused for whom no patient is named."""
    encounter = graph[reference]
    status = str(encounter.get("status") or "unknown")
    person = _subject(graph, encounter)
    if isinstance(person, str):
        return FHIRDocument(Kind.PATIENT_UPDATE, (), waits_for=(person,))
    held = {"Patient": (person,), "Encounter": (encounter,)}
    entry = _entry(graph, reading, held, {}, graph.place(encounter))
    return FHIRDocument(Kind.PATIENT_UPDATE, (entry,), ENCOUNTER_STATES.get(status, VisitChange.UPDATE))


def _person(graph: Graph, reading: Reading, patient: Resource) -> FHIREntry:
    return _entry(graph, reading, {"Patient": (patient,)}, {}, graph.place(patient))


def _entry(
    graph: Graph, reading: Reading, held: Mapping[str, tuple[Resource, ...]], said: Mapping[str, Any], where: str
) -> FHIREntry:
    variables = {"step": "", "procedure": "", "server": graph.server} | dict(said.get("variables") or {})
    rest = {name: value for name, value in said.items() if name != "variables"}
    return FHIREntry(graph, reading.paths, reading.issuers, held, variables, where, **rest)


# ---- orders ----


def root_of(graph: Graph, reference: str) -> str:
    """The request at the top of an order: `ServiceRequest/ID` itself, or the one that it is based on in the end.

    Raises Refused where requests are based on each other in a circle.
    """
    return graph.key(_above(graph, graph[reference])[0])


def order_document(graph: Graph, reference: str, reading: Reading) -> FHIRDocument:
    """The order at the top of which is the ServiceRequest `reference` (`ServiceRequest/ID`).

    Raises Refused with every reason: requests or Tasks in a circle, a subject that is no patient, doNotPerform,
    resources of one order that are about different people.
    """
    root = _above(graph, graph[reference])[0]
    cutting = _Cutting(graph, reading)
    cutting.order(root)
    if cutting.refusals:
        raise Refused(*dict.fromkeys(cutting.refusals))
    waits, notes = tuple(dict.fromkeys(cutting.waits)), tuple(dict.fromkeys(cutting.notes))
    if waits:
        return FHIRDocument(Kind.ORDER, (), notes=notes, waits_for=waits)
    return FHIRDocument(Kind.ORDER, tuple(cutting.entries), notes=notes, reworded=tuple(cutting.reworded))


def _above(graph: Graph, request: Resource) -> list[Resource]:
    """The requests from the top of an order down to this one."""
    chain = [request]
    while True:
        parents = [each for each in _based_on(graph, chain[0]) if INTENTS.get(str(each.get("intent")))]
        if not parents:
            return chain
        if any(parents[0] is each for each in chain) or len(chain) >= ABOVE_MAX:
            raise Refused(_circle(graph, chain[0], "basedOn", "requests are based on each other"))
        chain.insert(0, parents[0])


def _based_on(graph: Graph, request: Resource) -> Iterator[Resource]:
    """The requests that this one is based on, as far as they are held."""
    for reference in listed(request.get("basedOn")):
        parent = graph.resolve(reference, "ServiceRequest")
        if parent is not None and parent.get("resourceType") == "ServiceRequest":
            yield parent


def _circle(graph: Graph, at: Resource, element: str, text: str) -> Refusal:
    return Refusal(
        RefusalKind.BAD_VALUE, f"{graph.place(at)}.{element}", f"{text} in a circle, or more than {ABOVE_MAX} deep",
        f"let the one at the top have no {element}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Step:
    """What schedules a requested procedure: a Task or Appointment with those that go before it, or nothing."""

    resource: Resource | None
    words: tuple[Word, ...] = ()
    beside: tuple[Resource, ...] = ()
    """The Appointment that a Task's time is in."""


class _Cutting:
    """One order on its way into entries; collects problems instead of stopping at the first."""

    def __init__(self, graph: Graph, reading: Reading) -> None:
        self.graph, self.reading = graph, reading
        self.entries: list[FHIREntry] = []
        self.reworded: list[FHIREntry] = []
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        self.waits: list[str] = []
        self.known: dict[int, dict[str, tuple[Resource, ...]]] = {}

    def order(self, root: Resource) -> None:
        leaves = list(islice(self._leaves([root]), STEPS_MAX + 1))
        if len(leaves) > STEPS_MAX:  # of requests that are based on several others there are more than can be counted
            self._refuse_many(root)
            return
        people = [self._patient_of(chain[-1]) for chain in leaves]
        for chain, person in zip(leaves, people, strict=True):
            counts = self._counts(chain)
            if person is None:
                continue
            if counts and people[0] is not None and not self._same_person(people[0], person):
                self._refuse_other(chain[-1], "subject")
            # What is not scheduled has nothing that could be wrong with it.
            cutting = self if counts else _Cutting(self.graph, self.reading)
            for step in cutting._steps_of(chain, len(leaves) == 1):
                cutting._entry(chain, step, person, counts)
            if not counts:
                self.reworded += cutting.reworded
        if len(self.entries) + len(self.reworded) > STEPS_MAX:
            self._refuse_many(root)

    def _refuse_many(self, root: Resource) -> None:
        self.refusals.append(Refusal(
            RefusalKind.BAD_VALUE, self.graph.place(root), f"the order has more than {STEPS_MAX} steps", "divide it"
        ))  # fmt: skip

    def _leaves(self, chain: list[Resource]) -> Iterator[list[Resource]]:
        """Each requested procedure, with the requests above it."""
        children = [
            each for each in self.graph.referring(self.graph.key(chain[-1]), "ServiceRequest", "basedOn")
            if INTENTS.get(str(each.get("intent")))
        ]  # fmt: skip
        if not children:
            yield chain
        for child in children:
            if len(chain) >= ABOVE_MAX or any(child is each for each in chain):
                raise Refused(_circle(self.graph, child, "basedOn", "requests are based on each other"))
            yield from self._leaves([*chain, child])

    def _counts(self, chain: Sequence[Resource]) -> bool:
        """Whether the procedure is to be scheduled here at all; a note or a refusal where it is not."""
        for request in chain:
            place = self.graph.place(request)
            if request.get("doNotPerform") is True and self.reading.listed:
                self.notes.append(f"{place}.doNotPerform: the request is not to be performed; kept, not scheduled")
                return False
            if request.get("doNotPerform") is True:
                self.refusals.append(Refusal(
                    RefusalKind.BAD_VALUE, f"{place}.doNotPerform", "the request is not to be performed",
                    "send orders to be performed only; to take an order back, set its status to revoked",
                ))  # fmt: skip
                return False
            intent = str(request.get("intent") or "")
            if not INTENTS.get(intent):
                self.notes.append(f"{place}: the intent {intent or '(none)'} orders nothing; kept, not scheduled")
                return False
        if not self._is_imaging(chain):
            self.notes.append(
                f"{self.graph.place(chain[-1])}.category: is not imaging (`fhir.categories`); kept, not scheduled"
            )
            return False
        return True

    def _is_imaging(self, chain: Sequence[Resource]) -> bool:
        """By the categories of the request, else of the nearest one above it that has any; none at all counts."""
        wanted = self.reading.categories
        said = next((said for request in reversed(chain) if (said := _codings(request.get("category")))), None)
        return not wanted or said is None or any(f"{s}|{c}" in wanted or c in wanted for s, c in said)

    # ---- people ----

    def _patient_of(self, request: Resource) -> Resource | None:
        """The patient of a request; None where it waits for one, or none can be."""
        try:
            person = _subject(self.graph, request)
        except Refused as no:
            self.refusals += no.refusals
            return None
        if isinstance(person, str):
            place = self.graph.place(request)
            self.waits.append(person)
            self.notes.append(f"{place}.subject: waits for {person}, which is not here yet; scheduled when it comes")
            return None
        return person

    def _same_person(self, one: Resource, other: Resource) -> bool:
        return one is other or bool(_identities(one) & _identities(other)) or any(
            self.graph.resolve(link.get("other"), "Patient") is second
            for first, second in ((one, other), (other, one))
            for link in listed(first.get("link"))
        )  # fmt: skip

    def _refuse_other(self, resource: Resource, element: str) -> None:
        self.refusals.append(Refusal(
            RefusalKind.CONFLICT, f"{self.graph.place(resource)}.{element}",
            "is another patient than the order's subject", "send the parts of an order for one patient",
        ))  # fmt: skip

    def _check_person(self, resource: Resource, person: Resource, *elements: str) -> None:
        for element in elements:
            other = self.graph.resolve(resource.get(element), "Patient")
            if other is not None and other.get("resourceType") == "Patient" and not self._same_person(person, other):
                self._refuse_other(resource, element)

    def _check_participants(self, appointment: Resource, person: Resource) -> None:
        """Who comes to an Appointment is the order's patient, maybe beside others."""
        actors = (
            self.graph.resolve(each.get("actor"))
            for each in listed(appointment.get("participant")) if isinstance(each, Mapping)
        )  # fmt: skip
        patients = [each for each in actors if each is not None and each.get("resourceType") == "Patient"]
        if patients and not any(self._same_person(person, each) for each in patients):
            self._refuse_other(appointment, "participant")

    # ---- steps ----

    def _steps_of(self, chain: Sequence[Resource], alone: bool) -> list[_Step]:
        """What schedules the procedure at the end of the chain."""
        own = self._scheduling(chain[-1])
        for request in reversed(chain[:-1]) if not own else ():
            above = self._scheduling(request)
            if above and not alone:
                self.notes.append(
                    f"{self.graph.place(above[0].resource or request)}: is about an order of several procedures; it "
                    "schedules none of them: base it on one"
                )  # fmt: skip
            own = own or (above if alone else [])
        if not own and _is_repeated(chain[-1].get("occurrenceTiming")):
            self.notes.append(
                f"{self.graph.place(chain[-1])}.occurrenceTiming: only the first of several times is scheduled: send a "
                "Task or an Appointment for each"
            )  # fmt: skip
        return own or [_Step(None)]

    def _scheduling(self, request: Resource) -> list[_Step]:
        key = self.graph.key(request)
        appointments = self.graph.referring(key, "Appointment", "basedOn")
        tasks = self._tasks(key)
        if not tasks:
            return [_Step(each, (self._word(each),)) for each in appointments]
        return [self._step_of_task(task, appointments, tasks) for task in tasks]

    def _tasks(self, key: str) -> list[Resource]:
        """The Tasks of a request that are steps: not groups of others, not requests to do something else with it."""
        found = []
        for task in self.graph.referring(key, "Task", "focus", "basedOn"):
            asked = {code for system, code in _codings(task.get("code")) or () if system == TASK_CODES}
            if asked & REQUESTS_ABOUT_ORDERS:
                code = min(asked & REQUESTS_ABOUT_ORDERS)
                self.notes.append(
                    f"{self.graph.place(task)}: a Task that asks to {code} schedules nothing; change the request itself"
                )
            elif not self.graph.referring(self.graph.key(task), "Task", "partOf"):
                found.append(task)
        return found

    def _step_of_task(self, task: Resource, appointments: Sequence[Resource], tasks: Sequence[Resource]) -> _Step:
        """A Task under the Tasks that it is part of, with the Appointment that says when it is."""
        groups = self._groups(task)
        named = {
            id(self.graph.resolve(each, "ServiceRequest"))
            for each in (task.get("focus"), *listed(task.get("basedOn")))
            if each
        }  # fmt: skip
        taken = [each for each in appointments if word_of("Appointment", _status(each)).control is not None]
        beside = [each for each in taken if id(each) in named] or (taken if len(taken) == len(tasks) == 1 else [])
        words = [word_of("Appointment", _status(each)) for each in beside]
        arrived = any(word.arrived for word in words)
        own = self._word(task)
        own = own._replace(arrived=arrived) if arrived and own.control is not None else own
        return _Step(task, (*map(self._word, groups), own), tuple(beside))

    def _groups(self, task: Resource) -> list[Resource]:
        """The Tasks that a Task is part of, from the top."""
        chain = [task]
        while True:
            parents = (self.graph.resolve(each, "Task") for each in listed(chain[0].get("partOf")))
            parent = next((each for each in parents if each is not None and each.get("resourceType") == "Task"), None)
            if parent is None:
                return chain[:-1]
            if any(parent is each for each in chain) or len(chain) >= ABOVE_MAX:
                raise Refused(_circle(self.graph, chain[0], "partOf", "Tasks are part of each other"))
            chain.insert(0, parent)

    def _word(self, resource: Resource) -> Word:
        word = word_of(str(resource["resourceType"]), _status(resource))
        return word._replace(note=f"{self.graph.place(resource)}: {word.note}") if word.note else word

    def _order_words(self, chain: Sequence[Resource]) -> list[Word]:
        """What the requests say; one that another order replaces says nothing any more."""
        words = [self._word(each) for each in chain]
        for request in chain:
            heirs = self.graph.referring(self.graph.key(request), "ServiceRequest", "replaces")
            heir = next((each for each in heirs if each is not request and _status(each) in _REPLACING), None)
            if heir is not None and _status(request) in ("active", "on-hold"):
                note = f"{self.graph.place(request)}: {self.graph.key(heir)} replaces it; not scheduled any more"
                return [Word(None, note=note)]
        return words

    # ---- entries ----

    def _entry(self, chain: Sequence[Resource], step: _Step, person: Resource, counts: bool) -> None:
        graph, request = self.graph, chain[-1]
        word = together((*self._order_words(chain), *step.words)) if counts else Word(None)
        if word.note:
            self.notes.append(word.note)
        if word.control is not None and not self._has_come(chain):
            return
        encounters = (graph.resolve(each.get("encounter")) for each in reversed(chain))
        encounter = next((each for each in encounters if each is not None), None)
        if encounter is not None and word.control is not None:
            self._check_person(encounter, person, "subject")
        scheduling = tuple(each for each in (step.resource, *step.beside) if each is not None)
        for each in scheduling if word.control is not None else ():
            self._check_person(each, person, "for", "subject")
            self._check_participants(each, person)
        here = word.arrived or (word == word_of("ServiceRequest", "active") and _status(encounter or {}) == "arrived")
        held = dict(self._of_patient(person, chain))
        held |= {"Patient": (person,), "ServiceRequest": (request,)}
        if encounter is not None:
            held["Encounter"] = (encounter,)
        for each in scheduling:
            held[str(each["resourceType"])] = (each,)
        studies = self._studies(request, scheduling)
        if studies:
            held["ImagingStudy"] = studies
        parts = tuple(graph.key(each) for each in (*chain, *reversed(scheduling)))
        needs_id = len(chain) > 1 or _by_accession_alone(request)
        said = {
            "variables": {
                "step": short_id(str(step.resource.get("id") or "")) if step.resource is not None else "",
                "procedure": short_id(str(request.get("id") or "")) if needs_id else "",
            },
            "procedure_where": graph.place(scheduling[0] if scheduling else request),
            "parts": parts,
        }  # fmt: skip
        status = HERE if here else word.order_status
        if word.control is not None:
            scheduled = said | {"control": word.control, "order_status": status}
            self.entries.append(_entry(graph, self.reading, held, scheduled, graph.place(request)))
        if word.control is None or effect_of(word.control, status).takes is not Takes.EVERYTHING:
            reworded = said | {"control": OrderControl.SC, "order_status": REWORDED}
            self.reworded.append(_entry(graph, self.reading, held, reworded, graph.place(request)))

    def _has_come(self, chain: Sequence[Resource]) -> bool:
        """Whether the request above is here, where a procedure without a number of its own needs that one's."""
        top = chain[0]
        for reference in listed(top.get("basedOn")):
            said = str(reference.get("reference") or "") if isinstance(reference, Mapping) else ""
            if said.startswith("ServiceRequest/") and self.graph.resolve(reference) is None and not _numbered(top):
                self.waits.append(said)
                self.notes.append(f"{self.graph.place(top)}.basedOn: waits for {said}, which is not here yet")
                return False
        return True

    def _studies(self, request: Resource, scheduling: Sequence[Resource]) -> tuple[Resource, ...]:
        """The studies to be made that are based on the step, else on the request."""
        for each in (*scheduling, request):
            based = self.graph.referring(self.graph.key(each), "ImagingStudy", "basedOn")
            studies = tuple(study for study in based if _is_ordered(study))
            if studies:
                return studies
        return ()

    def _of_patient(self, person: Resource, chain: Sequence[Resource]) -> Mapping[str, tuple[Resource, ...]]:
        """What is known of the patient, and what the request names of it (supportingInfo), as far as it counts."""
        key = self.graph.key(person)
        told = [
            self.graph.resolve(each.get("reference") if isinstance(each.get("reference"), Mapping) else each)
            for request in chain
            for each in listed(request.get("supportingInfo"))
            if isinstance(each, Mapping)  # a Reference, in R5 a CodeableReference
        ]
        known: dict[str, tuple[Resource, ...]] = {}
        for kind, element in (
            ("Observation", "subject"), ("AllergyIntolerance", "patient"), ("Condition", "subject"), ("Flag", "subject")
        ):  # fmt: skip
            held = self.graph.referring(key, kind, element) if key else []
            held += [
                each for each in told
                if each is not None and each.get("resourceType") == kind and all(each is not one for one in held)
                and self._is_about(each, person, element)
            ]  # fmt: skip
            counting = [each for each in held if _counts_as_known(each)]
            if kind == "Observation":
                counting.sort(key=_when, reverse=True)
            if counting:
                known[kind] = tuple(counting)
        return known

    def _is_about(self, resource: Resource, person: Resource, element: str) -> bool:
        """Whether what a request names is about its patient; one that names nobody is."""
        if resource.get(element) is None:
            return True
        other = self.graph.resolve(resource[element], "Patient")
        return other is None or self._same_person(person, other)


def _subject(graph: Graph, resource: Resource) -> Resource | str:
    """The patient that a resource is about, or the reference of one that is not here yet.

    A patient that is only known by an identifier is one without a record. Raises Refused for any other subject.
    """
    said = resource.get("subject")
    place = f"{graph.place(resource)}.subject"
    if not isinstance(said, Mapping) or not (said.get("reference") or said.get("identifier")):
        raise Refused(Refusal(
            RefusalKind.MISSING_FIELD, place, "no patient is named", "send subject with a reference or an identifier"
        ))  # fmt: skip
    found = graph.resolve(said, "Patient")
    reference = str(said.get("reference") or "")
    kind = str(found["resourceType"]) if found is not None else _kind_of(reference, str(said.get("type") or "Patient"))
    if kind != "Patient":
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, place, f"a {kind} cannot be scheduled", "only a Patient can be on a worklist"
        ))  # fmt: skip
    if found is not None:
        return found
    if isinstance(said.get("identifier"), Mapping) and said["identifier"].get("value"):
        return {"resourceType": "Patient", "identifier": [said["identifier"]]}
    return reference


def _kind_of(reference: str, said: str) -> str:
    """The type of resource that a reference names; as it says elsewhere where it names none."""
    parts = reference.partition("/_history/")[0].split("/")
    return parts[-2] if len(parts) > 1 and parts[-2][:1].isupper() and parts[-2].isalpha() else said


def _is_ordered(study: Resource) -> bool:
    """Whether a study says what is to be made: one that the gateway tells of says what was made."""
    return _status(study) not in ("entered-in-error", "cancelled") and not is_made(study)


_REPLACING = frozenset({"active", "on-hold", "completed", "revoked"})
"""States of an order that takes the place of another: once it was ordered, whatever became of it."""


def _status(resource: Resource) -> str:
    return str(resource.get("status") or "")


def _codings(concepts: object) -> list[tuple[str, str]] | None:
    """(system, code) of every coding of CodeableConcepts; None where there is none."""
    found = [
        (str(coding.get("system") or ""), str(coding.get("code") or ""))
        for concept in listed(concepts)
        if isinstance(concept, Mapping)
        for coding in listed(concept.get("coding"))
        if isinstance(coding, Mapping) and coding.get("code")
    ]
    return found or None


_ORDER_NUMBERS = frozenset({"PLAC", "FILL", "ACSN"})


def _numbered(request: Resource) -> bool:
    """Whether a request has an order or accession number of its own (HL7 table 0203)."""
    return any(
        code in _ORDER_NUMBERS
        for each in listed(request.get("identifier"))
        for _, code in _codings(each.get("type")) or ()
    )  # fmt: skip


def _by_accession_alone(request: Resource) -> bool:
    """Whether an accession number is all that it is known by: several requests may share that, each a procedure."""
    codes = [{code for _, code in _codings(each.get("type")) or ()} for each in listed(request.get("identifier"))]
    return any("ACSN" in each for each in codes) and all(each and not each & {"PLAC", "FILL"} for each in codes)


_ACTIVE = frozenset({"active", "recurrence", "relapse"})
_UNTRUE = frozenset({"refuted", "entered-in-error"})


def _counts_as_known(resource: Resource) -> bool:
    """Whether it is so: an observation made, an allergy or condition that is active and not refuted, an active flag."""
    match resource.get("resourceType"):
        case "Observation":
            return _status(resource) not in ("entered-in-error", "cancelled", "registered")
        case "Flag":
            return _status(resource) in ("active", "")
        case _:
            clinical = {code for _, code in _codings(resource.get("clinicalStatus")) or ()}
            verified = {code for _, code in _codings(resource.get("verificationStatus")) or ()}
            return (not clinical or bool(clinical & _ACTIVE)) and not verified & _UNTRUE


def _is_repeated(timing: object) -> bool:
    """Whether a Timing asks for more than one time."""
    if not isinstance(timing, Mapping):
        return False
    repeat = timing.get("repeat")
    said = repeat if isinstance(repeat, Mapping) else {}
    counts = [said.get(each) for each in ("count", "countMax", "frequency", "frequencyMax")]
    several = any(isinstance(each, int) and each > 1 for each in counts)
    return several or len(listed(timing.get("event"))) > 1 or (bool(said.get("period")) and said.get("count") != 1)


def _when(observation: Resource) -> tuple[str, str]:
    """When it was observed, and when that was issued, in UTC as texts that sort; '' where nobody says.

    What says only a day is from its begin, so that a measurement with a time on the same day is the newer one.
    """
    period = observation.get("effectivePeriod")
    within = period.get("end") or period.get("start") if isinstance(period, Mapping) else ""
    said = observation.get("effectiveDateTime") or observation.get("effectiveInstant") or within
    issued = observation.get("issued")
    return _begin(said or issued), _begin(issued)


def _begin(moment: object) -> str:
    covered = date_range(moment) if isinstance(moment, str) else None
    return covered.first if covered is not None else ""


SHORT_ID_MAX = 16


def short_id(resource_id: str) -> str:
    """An identifier of at most 16 characters (SH) made of a resource's id: the id itself where it is no longer."""
    if len(resource_id) <= SHORT_ID_MAX:
        return resource_id
    digest = hashlib.blake2b(resource_id.encode(), digest_size=9).digest()
    return "F" + base64.b32encode(digest).decode()[:13]
