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
    `places` say where a resource stands in the request. Of the subjects `heard` an order is held that they speak of;
    those `beside` others were not said anew, and speak of the same orders.
    """

    release: Release
    server: str
    subjects: tuple[str, ...]
    now: abc.Mapping[str, Resource] = field(repr=False)
    before: abc.Mapping[str, Resource] = field(default_factory=dict, repr=False)
    new: tuple[str, ...] = ()
    places: abc.Mapping[str, str] = field(default_factory=dict)
    heard: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

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

    `reworded` is what it says beside its state, where that takes away, holds or schedules nothing. Subjects that have
    `left` spoke before of orders that this one speaks of, and do not any more. `exchanged` is what was said before of
    orders whose numbers it has now, while whoever had them goes on under others, or it had others itself.
    """

    subject: str
    result: MappingResult
    news: tuple[Event, ...] = field(default=(), repr=False)
    document: FHIRDocument | None = field(default=None, repr=False)
    reworded: tuple[OrderEvent, ...] = field(default=(), repr=False)
    left: tuple[str, ...] = ()
    exchanged: tuple[OrderEvent, ...] = field(default=(), repr=False)

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
    formerly = {subject: list(each.said(subject in speech.heard)) for subject, each in before.items()}
    exchanged = _exchanged(formerly, meant)
    heirs = _handed_on(formerly, meant)
    meant = [_without_others(each, meant) for each in meant]
    return tuple(
        each if each.result.refusals else replace(
            each,
            news=tuple(_news(formerly[each.subject], each.said(each.subject in speech.heard), said)),
            result=_told_of(each.result, [heir for heir in heirs.get(each.subject, ()) if heir in speech.beside]),
            left=tuple(subject for subject, named in heirs.items() if each.subject in named),
            exchanged=exchanged.get(each.subject, ()),
        )
        for each in meant
        if each.subject not in speech.beside or any(each.subject in named for named in heirs.values())
    )  # fmt: skip


def _exchanged(
    formerly: abc.Mapping[str, Sequence[Event]], meant: Sequence[Meant]
) -> dict[str, tuple[OrderEvent, ...]]:  # fmt: skip
    """By subject, the former words about orders whose numbers go from one to another with one of the two renumbered."""
    before = {subject: [e for e in events if isinstance(e, OrderEvent)] for subject, events in formerly.items()}
    now = {each.subject: [e for e in each.result.events if isinstance(e, OrderEvent)] for each in meant}
    gone = {name: said for name, events in before.items() if (said := _not_among(events, now[name]))}
    new = {name: said for name, events in now.items() if gone and (said := _not_among(events, before[name]))}
    found: dict[str, tuple[OrderEvent, ...]] = {}
    for heir, events in new.items():
        taken = [
            event for giver, former in gone.items() if giver != heir and (giver in new or heir in gone)
            for event in former if _is_among(event, events)
        ]  # fmt: skip
        if taken:
            found[heir] = (*taken, *gone.get(heir, ()))
    return found


def _handed_on(formerly: dict[str, list[Event]], meant: Sequence[Meant]) -> dict[str, dict[str, None]]:
    """Let what a subject ordered, and does not any more, be the former words of another one that orders it now; who
    speaks of its orders, by the subject that spoke of them.

    So nothing of it is taken back, and what the other one says of it counts.
    """
    ordered = {each.subject: [e for e in each.result.events if isinstance(e, OrderEvent)] for each in meant}
    heirs: dict[str, dict[str, None]] = {}
    handed: list[tuple[str, OrderEvent]] = []
    for each in meant:
        for event in list(formerly[each.subject]) if not each.result.refusals else ():
            if not isinstance(event, OrderEvent) or _is_among(event, ordered[each.subject]):
                continue
            others = [name for name, said in ordered.items() if name != each.subject and _is_among(event, said)]
            if others:
                heir = max(others, key=lambda name: any(map(_takes_all, ordered[name])))
                formerly[each.subject].remove(event)
                heirs.setdefault(each.subject, {})[heir] = None
                handed.append((heir, event))
    for heir, event in handed:
        own = [each for each in formerly[heir] if isinstance(each, OrderEvent) and _is_among(event, [each])]
        if not (_takes_all(event) or _is_reworded(event)):  # it was taken away or held: who orders it does so anew
            formerly[heir] = [each for each in formerly[heir] if each not in own]
        else:  # who did not speak of it before orders it anew, too
            formerly[heir].append(event if own else replace(event, order_status=REWORDED))
    return heirs


def _without_others(meant: Meant, others: Iterable[Meant]) -> Meant:
    """Without what it says of orders that others order and it does not: of these a draft says nothing that counts."""
    if not meant.reworded:
        return meant
    theirs = [e for each in others if each is not meant for e in each.result.events if isinstance(e, OrderEvent)]
    own = [each for each in meant.result.events if isinstance(each, OrderEvent)]
    kept = tuple(each for each in meant.reworded if _is_among(each, own) or not _is_among(each, theirs))
    return replace(meant, reworded=kept) if len(kept) < len(meant.reworded) else meant


def _is_among(event: OrderEvent, others: Iterable[OrderEvent]) -> bool:
    """Whether one of them is about the same order."""
    return any(order_key(event) == order_key(each) or _numbers(event) & _numbers(each) for each in others)


def _not_among(events: Sequence[OrderEvent], others: Sequence[OrderEvent]) -> list[OrderEvent]:
    return [each for each in events if not _is_among(each, others)]


def _told_of(result: MappingResult, others: Iterable[str]) -> MappingResult:
    notes = (f"{other} speaks of this order, too, so the order stays" for other in others)
    return replace(result, notes=(*result.notes, *notes))


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
        told = () if said.refusals else said.events
        reworded = tuple(each for each in told if isinstance(each, OrderEvent))
    if not document.entries:
        waits = tuple(f"{subject} waits for {each}" for each in document.waits_for if not document.notes)
        return Meant(subject, MappingResult(notes=(*document.notes, *waits)), (), document, reworded)
    result = mapping.apply(document, default_issuer=feed.issuer, zone=feed.department, trace=trace)
    notes = (*result.notes, *_shared_numbers(document, mapping))
    return Meant(subject, replace(result, notes=notes), result.events, document, reworded)


def by_step(events: Iterable[Event]) -> list[Event]:
    """The events with those that only take away or hold cut into one for each step."""
    return [
        part
        for event in events
        for part in (
            [_parted(event, {place}, wanted=True) for place in _spoken([event])]
            if isinstance(event, OrderEvent) and not _takes_all(event) else [event]
        )
    ]  # fmt: skip


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
        yield from former.reworded(_whole(event, orders)) if _is_reworded(event) else former.told_anew(event)
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


def _whole(event: OrderEvent, said: Sequence[OrderEvent]) -> OrderEvent:
    """The event with what is `said` of the other steps of its procedures: a procedure that is another one from now on
    is that for all of its steps at once."""
    procedures = []
    for number, procedure in enumerate(event.procedures):
        at = order_key(event), _key(procedure, number)
        own = {step.sps_id for step in procedure.steps} | {""}
        others = {
            step.sps_id: step
            for other in said for place, same in enumerate(other.procedures)
            if (order_key(other), _key(same, place)) == at
            for step in same.steps if step.sps_id not in own
        }  # fmt: skip
        procedures.append(replace(procedure, steps=(*procedure.steps, *others.values())))
    return replace(event, procedures=tuple(procedures))


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
