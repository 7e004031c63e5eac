"""What resources mean for orders, patients and visits, beside what they meant before. Pure.

A resource is the whole truth of itself, and one rule follows from that. What the resources meant before is compared
with what they mean now, key by key: orders, procedures, steps, patients, visits.

- What was said and is said no more is taken back: a step that nobody performs goes, an attribute is deleted.
- What is said again is no news: what a modality or another sender changed meanwhile stays. What is ordered again after
  it was cancelled, held or not scheduled is said anew, all of it.
- What an order says counts whatever its state: a draft schedules nothing, and what it says of what was scheduled before
  is told all the same (`REWORDED`), for the next version is compared with it.
- What differs is told, with what was said before beside it (`formerly`), so that whoever holds the order can tell what
  is held of that still (`domain.facts.as_news`); a number or a patient that changed is that of the same order.

HL7 v2 needs none of this: there silence keeps, and a message is said once.
"""

from collections import abc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gateway.domain.attributes import BY_TAG, TAG, Attributes
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping import Event, Mapping, MappingResult
from gateway.domain.order import (
    HERE,
    NEW,
    REWORDED,
    TAKEN_BACK,
    OrderControl,
    OrderEvent,
    ProcedureInput,
    StepInput,
    Takes,
    effect_of,
)
from gateway.domain.order_change import order_key
from gateway.domain.patient import (
    IdentifierChange,
    PatientInput,
    PatientMerge,
    PatientUpdate,
    VisitChange,
    VisitInput,
)
from gateway.domain.refusal import Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_graph import Graph, bundle_graph
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_source import FHIRDocument, documents, encounter_document, order_document, patient_document
from gateway.workflow.fhir_feed import FHIRFeed


@dataclass(frozen=True, slots=True)
class Speech:
    """What a request says: all resources that belong to its subjects, and those that were different before it.

    `subjects` are what documents are made of (`Patient/1`, `Encounter/1`, `ServiceRequest/1`), in the order in which
    they act. Of the resources `now`, those of `new` were not there before, and those of `before` were other than now.
    `places` say where a resource stands in the request. Of the subjects `heard` an order is held that they speak of.
    """

    release: Release
    server: str
    subjects: tuple[str, ...]
    now: abc.Mapping[str, Resource] = field(repr=False)
    before: abc.Mapping[str, Resource] = field(default_factory=dict, repr=False)
    new: tuple[str, ...] = ()
    places: abc.Mapping[str, str] = field(default_factory=dict)
    heard: tuple[str, ...] = ()

    def graph(self) -> Graph:
        """The resources as they are now."""
        return Graph(self.now, self.places, self.server)

    def former_graph(self) -> Graph:
        """The resources as they were."""
        kept = {name: content for name, content in self.now.items() if name not in self.new}
        return Graph({**kept, **self.before}, server=self.server)


@dataclass(frozen=True, slots=True)
class Meant:
    """What one subject means: all of it, and what of it is `news`. `document` is None where none could be made.

    `reworded` is what it says beside its state, where that takes away, holds or schedules nothing.
    """

    subject: str
    result: MappingResult
    news: tuple[Event, ...] = field(default=(), repr=False)
    document: FHIRDocument | None = field(default=None, repr=False)
    reworded: tuple[OrderEvent, ...] = field(default=(), repr=False)

    def said(self, heard: bool) -> tuple[Event, ...]:
        """Everything, as far as it can count: a word about what was scheduled before does where an order is held."""
        return (*self.result.events, *self.reworded) if heard else self.result.events


_DOCUMENTS = {"Patient": patient_document, "Encounter": encounter_document, "ServiceRequest": order_document}


def meanings(speech: Speech, feed: FHIRFeed, *, trace: bool = False) -> tuple[Meant, ...]:
    """What each subject means now that it did not mean before."""
    graph, former = speech.graph(), speech.former_graph()
    before = {subject: meaning_of(former, subject, speech.release, feed, listed=True) for subject in speech.subjects}
    meant = [
        meaning_of(graph, subject, speech.release, feed, trace=trace, listed=subject in speech.heard)
        for subject in speech.subjects
    ]
    said = _places(event for each in meant for event in each.result.events)
    return tuple(
        replace(each, news=tuple(_news(before[each.subject].said(heard), each.said(heard), said)))
        if not each.result.refusals
        else each
        for each in meant
        for heard in (each.subject in speech.heard,)
    )


def meanings_of_file(resource: Resource, release: Release, feed: FHIRFeed) -> tuple[Meant, ...]:
    """What a resource or a Bundle means by itself, with traces. Raises Refused."""
    graph = bundle_graph(resource, feed.server)
    return tuple(
        _applied("", document, release, feed, trace=True) for document in documents(graph, feed.reading(release))
    )


def meaning_of(
    graph: Graph, subject: str, release: Release, feed: FHIRFeed, *, trace: bool = False, listed: bool = False
) -> Meant:
    """What one subject of a graph means, by itself; nothing where it is not there, or waits for what is not.

    `listed`: it was on the list before, so that "do not perform" takes it off.
    """
    if subject not in graph:
        return Meant(subject, MappingResult())
    try:
        document = _DOCUMENTS[subject.partition("/")[0]](graph, subject, feed.reading(release)._replace(listed=listed))
    except Refused as refused:
        return Meant(subject, MappingResult(refusals=refused.refusals))
    return _applied(subject, document, release, feed, trace=trace)


def _applied(subject: str, document: FHIRDocument, release: Release, feed: FHIRFeed, *, trace: bool) -> Meant:
    mapping = feed.mapping(release)
    reworded: tuple[OrderEvent, ...] = ()
    if document.reworded:
        again = replace(document, entries=document.reworded, notes=())
        said = mapping.apply(again, default_issuer=feed.issuer, zone=feed.department)
        # What is wrong with it is no reason to leave on the list what is cancelled.
        reworded = tuple(each for each in said.events if isinstance(each, OrderEvent)) if not said.refusals else ()
    if not document.entries:
        waits = tuple(f"{subject} waits for {each}" for each in document.waits_for if not document.notes)
        return Meant(subject, MappingResult(notes=(*document.notes, *waits)), (), document, reworded)
    result = mapping.apply(document, default_issuer=feed.issuer, zone=feed.department, trace=trace)
    notes = (*result.notes, *_shared_numbers(document, mapping))
    return Meant(subject, replace(result, notes=notes), result.events, document, reworded)


def _shared_numbers(document: FHIRDocument, mapping: Mapping) -> Iterator[str]:
    """That several Tasks or Appointments are one step, for they have one number."""
    first: dict[tuple[str, ...], str] = {}
    for entry in document.entries:
        if not entry.parts or entry.parts[-1].startswith("ServiceRequest/"):
            continue
        requests = tuple(part for part in entry.parts if part.startswith("ServiceRequest/"))
        step = entry.parts[-1]
        known = first.setdefault((*requests, mapping.said_key("ScheduledProcedureStepID", entry)), step)
        if known != step:
            yield f"{step} has the identifier of {known}, so both are one step; give each its own"


# --- what is news -----------------------------------------------------------------------------------------------------


def _news(before: Sequence[Event], now: Sequence[Event], said: frozenset["_Place"]) -> Iterator[Event]:
    """What is taken back, then who and what is as it was not, then who has come. `said` are the places of all that is
    said now, by whatever subject."""
    orders = [event for event in now if isinstance(event, OrderEvent)]
    former = _Former([event for event in before if isinstance(event, OrderEvent)], orders)
    people = [event for event in before if isinstance(event, PatientUpdate)]
    yield from former.taken_back(said)
    for event in now:
        if isinstance(event, PatientUpdate):
            yield from _person_news(people[0] if people else None, event)
        elif not isinstance(event, OrderEvent) and not (isinstance(event, PatientMerge) and event in before):
            yield event
    # What takes away goes before what is ordered: one may have the number of the other now.
    for event in sorted(orders, key=_takes_all):
        yield from former.reworded(event) if _is_reworded(event) else former.told_anew(event)
    for event in orders:
        yield from former.arrived(event)


def _person_news(before: PatientUpdate | None, now: PatientUpdate) -> Iterator[Event]:
    """A person under other identifiers than before is the same person: the resource is."""
    now = replace(now, visit_alone=now.visit is not None)
    if before is None:
        yield now
        return
    patient, change = _person(before.patient, now.patient), now.change
    gone = tuple(each for each in before.patient.identifiers if each not in patient.identifiers)
    if gone and patient.identifiers and now.visit is None and before.visit is None:
        yield IdentifierChange(patient, gone)
    elif gone and not set(before.patient.identifiers) & set(patient.identifiers):
        patient = now.patient  # a visit of somebody else
    if change is before.change is VisitChange.ARRIVE:  # who has arrived does not arrive again for another order
        change = VisitChange.UPDATE
    yield replace(now, patient=patient, visit=_visit(before.visit, now.visit), change=change)


def _visit(before: VisitInput | None, now: VisitInput | None) -> VisitInput | None:
    if now is None or before is None or before.number != now.number:
        return now
    return replace(now, formerly=replace(before, attributes=_revocable(before.attributes, now.attributes)))


def _person(before: PatientInput, now: PatientInput) -> PatientInput:
    return replace(now, formerly=replace(before, attributes=_revocable(before.attributes, now.attributes)))


class _Place(NamedTuple):
    """One step by the keys of its order, its procedure and itself: without an ID, its place among them."""

    order: str
    procedure: object
    step: str | int


class _Spoken(NamedTuple):
    """What was said of one step, and the word about its state."""

    word: tuple[OrderControl, str]
    event: OrderEvent
    procedure: ProcedureInput
    step: StepInput


def _spoken(events: Iterable[OrderEvent]) -> dict[_Place, _Spoken]:
    """Each step of the events. A procedure without steps has one."""
    found: dict[_Place, _Spoken] = {}
    for event in events:
        for number, procedure in enumerate(event.procedures):
            for index, step in enumerate(procedure.steps or (_NO_STEP,)):
                place = _Place(order_key(event), _key(procedure, number), step.sps_id or index)
                word = found[place].word if place in found and _is_reworded(event) else _word(event)
                found[place] = _Spoken(word, event, procedure, step)
    return found


def _places(events: Iterable[Event]) -> frozenset[_Place]:
    return frozenset(_spoken(event for event in events if isinstance(event, OrderEvent)))


def _key(procedure: ProcedureInput, number: int) -> object:
    """By what a procedure is known again."""
    return procedure.requested_procedure_id or procedure.study_instance_uid or procedure.accession or number


def _word(event: OrderEvent) -> tuple[OrderControl, str]:
    return event.control, "" if event.order_status == HERE else event.order_status


def _takes_all(event: OrderEvent) -> bool:
    return _lists(_word(event))


def _lists(word: tuple[OrderControl, str]) -> bool:
    return effect_of(*word).takes is Takes.EVERYTHING


def _is_reworded(event: OrderEvent) -> bool:
    return event.order_status == REWORDED


_NO_STEP = StepInput("", {})


class _Former:
    """What an order's resources said before, beside what they say `now`."""

    def __init__(self, before: Sequence[OrderEvent], now: Sequence[OrderEvent]) -> None:
        self.said, self.now = _spoken(before), _spoken(now)
        self.orders: dict[str, OrderEvent] = {}
        self.procedures: dict[tuple[str, object], ProcedureInput] = {}
        for place, said in self.said.items():
            self.orders[place.order] = _both(self.orders.get(place.order), said.event)
            at = place.order, place.procedure
            self.procedures[at] = _both_procedures(self.procedures.get(at), said.procedure)
        self.listed = {place for place, said in self.said.items() if _lists(said.word)}
        self.order_of = self._same_orders()
        self.procedure_of = self._same_procedures()
        self.place_of = self._same_steps()

    # -- what is the same under other keys

    def _same_orders(self) -> dict[str, str]:
        """The orders of now by what they were called: a new number is that of the order whose other number stays, or of
        the only one that would go."""
        now = {place.order: said.event for place, said in self.now.items()}
        gone = {key: event for key, event in self.orders.items() if key not in now}
        same = {key: key for key in now if key in self.orders}
        for key, event in now.items():
            sharing = [old for old, former in gone.items() if _numbers(event) & _numbers(former)]
            if key not in same and len(sharing) == 1:
                same[key] = sharing[0]
                del gone[sharing[0]]
        new = [key for key in now if key not in same]
        if len(new) == len(gone) == 1:
            same[new[0]] = next(iter(gone))
        return same

    def _same_procedures(self) -> dict[tuple[str, object], tuple[str, object]]:
        """The procedures of now by what they were called: one whose accession number alone is another is the same."""
        same: dict[tuple[str, object], tuple[str, object]] = {}
        said = {(place.order, place.procedure): each.procedure for place, each in self.now.items()}
        for order, former in self.order_of.items():
            new = [at for at in said if at[0] == order and (former, at[1]) not in self.procedures]
            old = [at for at in self.procedures if at[0] == former and (order, at[1]) not in said]
            same |= {at: (former, at[1]) for at in said if at[0] == order and at not in new}
            if len(new) == len(old) == 1 and not _told_apart(said[new[0]], self.procedures[old[0]]):
                same[new[0]] = old[0]
        return same

    def _same_steps(self) -> dict[_Place, _Place]:
        """The steps of now by what they were called: one that has no ID yet, or none any more, is any that would go."""
        same: dict[_Place, _Place] = {}
        for at, former in self.procedure_of.items():
            now = [place for place in self.now if (place.order, place.procedure) == at]
            gone = [place for place in self.said if (place.order, place.procedure) == former]
            for place in now:
                if _Place(*former, place.step) in gone:
                    same[place] = _Place(*former, place.step)
            gone = [place for place in gone if place not in same.values()]
            for place in now:
                fitting = [old for old in gone if isinstance(old.step, int) or isinstance(place.step, int)]
                if place not in same and fitting:
                    same[place] = fitting[0]
                    gone.remove(fitting[0])
        return same

    # -- what follows

    def taken_back(self, said: frozenset[_Place]) -> Iterator[OrderEvent]:
        """What nobody says any more, where it was ordered."""
        kept = {old for place, old in self.place_of.items() if self.now[place].word[1] != REWORDED} | said
        unnamed = {(place.order, place.procedure) for place in kept}
        for place, former in self.said.items():
            taken = isinstance(place.step, int) and (place.order, place.procedure) in unnamed  # by one that has an ID
            if place in kept or taken or not (place in self.listed or former.word[0] is OrderControl.HD):
                continue
            yield replace(
                former.event, control=OrderControl.SC, order_status=TAKEN_BACK, patient=_NOBODY, visit=None,
                attributes={},
                procedures=(replace(former.procedure, steps=(former.step,) if former.step.sps_id else ()),),
            )  # fmt: skip

    def told_anew(self, event: OrderEvent) -> Iterator[OrderEvent]:
        """The event, with the words that were said before as mere changes; what takes only keys is not said twice."""
        word = _word(event)
        again = {
            place for place in _spoken([event])
            if (old := self.place_of.get(place)) is not None and self.said[old].word == word
        }  # fmt: skip
        event = self._with_former(replace(event, order_status=word[1]))
        if again:
            if _takes_all(event):
                yield replace(_parted(event, again, wanted=True), control=OrderControl.XO, order_status="")
            event = _parted(event, again, wanted=False)
        if self.said and not _takes_all(event):  # of what was never listed nothing need be held or cancelled
            event = _parted(event, set(self.place_of), wanted=True)
        if event.procedures:
            # An order that is active again goes on: NW alone would leave a step that was held where it is.
            yield replace(event, order_status="SC") if self.said and event.control in NEW and not word[1] else event

    def reworded(self, event: OrderEvent) -> Iterator[OrderEvent]:
        """What is said now of steps that were spoken of before and are not listed by this."""
        known = {place for place in _spoken([event]) if place in self.place_of}
        if known:
            yield _parted(self._with_former(event), known, wanted=True)

    def arrived(self, event: OrderEvent) -> Iterator[OrderEvent]:
        """That the patient has come for these steps, where that is new."""
        if event.order_status != HERE:
            return
        new = {
            place for place in _spoken([event])
            if (old := self.place_of.get(place)) is None or self.said[old].event.order_status != HERE
        }  # fmt: skip
        if new:
            yield replace(
                _parted(event, new, wanted=True), control=OrderControl.SC, patient=_NOBODY, visit=None, attributes={}
            )

    def _with_former(self, event: OrderEvent) -> OrderEvent:
        """The event with what was said before beside it; where it lists what was not listed, all of it is news."""
        key = order_key(event)
        lists = _takes_all(event)

        def anew(*at: object) -> bool:
            """Whether it lists what stands here, and nothing of that was listed before."""
            return lists and all(place[: len(at)] != at for place in self.listed)

        former = self.orders.get(self.order_of.get(key, ""))
        if former is None:
            return event
        patient = event.patient
        says_all = lists or _is_reworded(event)  # else it names its patient by the identifiers alone
        if says_all and set(former.patient.identifiers) & set(patient.identifiers):
            patient = _person(former.patient, patient)
        procedures = []
        for number, procedure in enumerate(event.procedures):
            at = key, _key(procedure, number)
            old = self.procedures.get(self.procedure_of.get(at, ("", None)))
            steps = []
            for index, step in enumerate(procedure.steps):
                place = self.place_of.get(_Place(*at, step.sps_id or index))
                if place is not None:
                    before = self.said[place].step
                    news, said = _news_of(step.attributes, before.attributes, anew(*place), step.defaults)
                    step = replace(step, attributes=news, formerly=replace(before, attributes=said))  # noqa: PLW2901
                steps.append(step)
            procedure = replace(procedure, steps=tuple(steps))  # noqa: PLW2901
            if old is not None:
                again = anew(*self.procedure_of[at])
                news, said = _news_of(procedure.attributes, old.attributes, again, procedure.defaults)
                procedure = replace(procedure, attributes=news, formerly=replace(old, attributes=said))  # noqa: PLW2901
            procedures.append(procedure)
        news, said = _news_of(event.attributes, former.attributes, anew(self.order_of[key]))
        return replace(
            event, patient=patient, visit=_visit(former.visit, event.visit), procedures=tuple(procedures),
            attributes=news, formerly=replace(former, attributes=said),
        )  # fmt: skip


_NOBODY = PatientInput((), {})


def _numbers(event: OrderEvent) -> set[Identifier]:
    return {each for each in (event.placer, event.filler) if each is not None}


def _told_apart(one: ProcedureInput, other: ProcedureInput) -> bool:
    """Whether a key that is no accession number says that they are two."""
    return any(
        a and b and a != b
        for a, b in (
            (one.requested_procedure_id, other.requested_procedure_id),
            (one.study_instance_uid, other.study_instance_uid),
        )
    )  # fmt: skip


def _both(one: OrderEvent | None, other: OrderEvent) -> OrderEvent:
    """What two events said of one order, as far as it can be taken back."""
    if one is None:
        return other
    return replace(
        one,
        attributes={**one.attributes, **other.attributes},
        patient=one.patient if one.patient.attributes else other.patient,
        visit=one.visit or other.visit,
    )


def _both_procedures(one: ProcedureInput | None, other: ProcedureInput) -> ProcedureInput:
    return replace(other, attributes={**(one.attributes if one else {}), **other.attributes})


def _parted(event: OrderEvent, places: set[_Place], *, wanted: bool) -> OrderEvent:
    """The event with those of its steps that are, or are not, at these places."""
    procedures = []
    for number, procedure in enumerate(event.procedures):
        at = order_key(event), _key(procedure, number)
        steps = tuple(
            step for index, step in enumerate(procedure.steps)
            if (_Place(*at, step.sps_id or index) in places) is wanted
        )  # fmt: skip
        if steps or (not procedure.steps and (_Place(*at, 0) in places) is wanted):
            procedures.append(replace(procedure, steps=steps))
    return replace(event, procedures=tuple(procedures))


_KEYS = frozenset(
    TAG[keyword]
    for keyword in (
        "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
        "OtherPatientIDsSequence", "AdmissionID", "IssuerOfAdmissionIDSequence", "AccessionNumber",
        "IssuerOfAccessionNumberSequence", "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence",
        "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence",
    )
)  # fmt: skip
_STAY = _KEYS | {attribute.tag for attribute in BY_TAG.values() if attribute.return_type == "1"}
"""What nobody can take back: the keys by which things are known, and what no worklist item is without, unless a default
takes its place."""


def _revocable(before: Attributes, now: Attributes, defaults: Attributes | None = None) -> Attributes:
    """What was said before, without what stays though nobody says it any more."""
    stay = {tag for tag in before if tag in _STAY and tag not in now and (tag in _KEYS or tag not in (defaults or {}))}
    return {tag: each for tag, each in before.items() if tag not in stay} if stay else before


def _news_of(
    now: Attributes, before: Attributes, anew: bool, defaults: Attributes | None = None
) -> tuple[Attributes, Attributes]:
    """What is to be told, and what was said before, as far as it can be taken back.

    What is listed `anew` is told whole, and what it says no more is deleted: meanwhile nobody was told of changes.
    """
    former = _revocable(before, now, defaults)
    if not anew:
        return now, former
    gone = {tag: (defaults or {}).get(tag) or {"vr": each["vr"]} for tag, each in former.items() if tag not in now}
    return {**now, **gone}, {}
