"""Open orders brought in line with changed mappings, catalogue or stations: what their messages mean by today's rules.

An order is made again from its archived messages, in the order in which they were made, and then takes over what it
must not lose: its keys, the status and history of every step, and everything about steps that have begun or are over.
Steps that only today's rules plan are added; a step that they plan no more stays, and is named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from gateway.domain.appointments import as_of
from gateway.domain.attributes import TAG, Attributes
from gateway.domain.facts import NO_STAMPS, Stamp, merge_said
from gateway.domain.order import Order, OrderControl, OrderEvent, Procedure, Step, Takes, effect_of
from gateway.domain.order_change import apply
from gateway.domain.patient import Patient, Visit
from gateway.domain.refusal import Refused
from gateway.domain.transcript import readable
from gateway.domain.worklist import SPSStatus
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.ports import MessageSearch, StoredMessage, Unit
from gateway.workflow.rereading import AnyFeed, meaning, stamp_of

CAUSE = "rederived"
MESSAGES_MAX = 1_000
"""Messages of one order that are read again; one with more is no order but a test, and is left."""

WAITING = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY})
"""Steps that may still change: nobody works on them."""

_TAKEN = frozenset({"accepted", "released"})
_KEYS = frozenset(TAG[each] for each in ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID"))
_STEP_KEYS = frozenset({TAG["ScheduledProcedureStepID"]})
_TELLING = frozenset({TAG["Modality"], TAG["RequestedProcedureCodeSequence"]})  # by which steps are told apart
_OF_PATIENT_ID = frozenset(
    TAG[each]
    for each in ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
                 "OtherPatientIDsSequence")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """One attribute that would be different; None where it is not given. `item` is a step's ID, '' for all of them."""

    item: str
    attribute: str
    old: object = field(repr=False)
    new: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rederived:
    """What today's rules make of an order. `left` says why it stays as it is, if it does; then nothing else counts."""

    order: Order = field(repr=False)
    patient: Patient | None = field(default=None, repr=False)
    visit: Visit | None = field(default=None, repr=False)
    changes: tuple[AttributeChange, ...] = field(default=(), repr=False)
    added: int = 0
    left: str = ""
    notes: tuple[str, ...] = ()


def is_open(order: Order) -> bool:
    """Whether any step of it may still change."""
    return any(step.status in WAITING for procedure in order.procedures for step in procedure.steps)


class Source(Protocol):
    """What an order is made again from: the store's reader, or a transaction."""

    def order(self, order_id: int) -> Order | None: ...
    def patient(self, patient_id: int) -> Patient | None: ...
    def visit_by_id(self, visit_id: int) -> Visit | None: ...
    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]: ...
    def kept_report(self, message_id: int) -> bytes | None: ...


def rederived(source: Source, order_id: int, feeds: Mapping[str, AnyFeed]) -> Rederived | None:
    """One order by today's rules; None where it is gone or not open."""
    order = source.order(order_id)
    if order is None or not is_open(order):
        return None
    newest = source.find_messages(MessageSearch(order=order_id, direction="in"), MESSAGES_MAX + 1)
    patient = source.patient(order.patient_id)
    visit = source.visit_by_id(order.visit_id) if order.visit_id is not None else None
    return derive(order, patient, visit, newest[::-1], feeds, source.kept_report)


def rederive(unit: Unit, order_id: int, feeds: Mapping[str, AnyFeed], at: datetime) -> Rederived | None:
    """The same, saved: patient, visit and order in this one transaction."""
    derived = rederived(unit, order_id, feeds)
    if derived is not None and (derived.changes or derived.added):
        if derived.patient is not None and derived.patient != unit.patient(derived.order.patient_id):
            unit.save_patient(derived.patient, at)
        if derived.visit is not None and derived.visit != unit.visit_by_id(derived.visit.id or 0):
            unit.save_visit(derived.visit, at)
        unit.save_order(derived.order, CAUSE, at)
    return derived


def derive(
    order: Order,
    patient: Patient | None,
    visit: Visit | None,
    messages: Sequence[StoredMessage],
    feeds: Mapping[str, AnyFeed],
    kept: Callable[[int], bytes | None] = lambda _: None,
) -> Rederived:
    """What the messages make of the order by the rules of the feeds they came by. `kept` is what is kept beside one."""
    taken = [stored for stored in messages if stored.record.disposition in _TAKEN]
    records = [stored.record for stored in taken]
    if not records:
        return Rederived(order, left="no message of it is archived")
    if len(messages) > MESSAGES_MAX:
        return Rederived(order, left=f"it has more than {MESSAGES_MAX} messages")
    said: list[tuple[OrderEvent, Stamp, AnyFeed]] = []
    for stored in sorted(taken, key=lambda stored: stored.record.made_at):  # stable: else as they came
        record = stored.record
        feed = feeds.get(record.listener)
        if feed is None:
            return Rederived(order, left=f"a message came by listener {record.listener}, which is not configured")
        problem = _read(stored, feed, order, said, kept)
        if problem:
            return Rederived(order, left=problem)
    if not said:
        return Rederived(order, left="its messages say nothing but its numbers")
    if not _makers(order) <= {Stamp(record.made_at, f"{record.listener} {record.sender}") for record in records}:
        return Rederived(order, left="not every message that it was made of is archived as one of it")
    try:
        after = _folded(order, said)
    except Refused as refused:
        return Rederived(order, left=f"today's rules refuse its messages: {refused}")
    if len(after.procedures) > len(order.procedures):
        return Rederived(order, left="today's rules make other procedures of its messages")
    restored, notes = _restored(order, after)
    person, stay = _said_again(patient, visit, said)
    changes = tuple(_changes(order, restored, patient, person, visit, stay))
    added = sum(step.id is None for procedure in restored.procedures for step in procedure.steps)
    return Rederived(restored, person, stay, changes, added, notes=tuple(notes))


def _makers(order: Order) -> set[Stamp]:
    """When and by whom what is held was said; nothing where an earlier release did not note it."""
    procedures = order.procedures
    held = [order.stamps, *(each.stamps for each in procedures), *(s.stamps for each in procedures for s in each.steps)]
    stamps = {stamp for each in held for stamp in (each.base, *each.others.values()) if stamp is not None}
    return {stamp._replace(weak=False) for stamp in stamps if stamp.made}


def _read(
    stored: StoredMessage,
    feed: AnyFeed,
    order: Order,
    said: list[tuple[OrderEvent, Stamp, AnyFeed]],
    kept: Callable[[int], bytes | None],
) -> str:
    """Note what the message says of the order; returns why that cannot be told."""
    record = stored.record
    result = meaning(record.raw, feed, kept(stored.id) if isinstance(feed, FHIRFeed) else None)
    if result.refusals:
        return f"today's rules refuse message {record.control_id}: {result.refusals[0].kind} at " + (
            result.refusals[0].where or "the message"
        )
    events = [event for event in result.events if isinstance(event, OrderEvent)]
    mine = [event for event in events if _is_of(event, order)] or (events if len(events) == 1 else [])
    stamp = stamp_of(record, feed)
    for event in (as_of(order, event) for event in mine):
        if effect_of(event.control, event.order_status).takes is Takes.EVERYTHING:
            said.append((replace(event, control=OrderControl.XO, order_status=""), stamp, feed))
    return ""


def _is_of(event: OrderEvent, order: Order) -> bool:
    studies = {procedure.study_instance_uid for procedure in order.procedures}
    accessions = {procedure.accession for procedure in order.procedures}
    return (
        (event.placer is not None and event.placer == order.placer)
        or (event.filler is not None and event.filler == order.filler)
        or any(each.study_instance_uid and each.study_instance_uid in studies for each in event.procedures)
        or any(each.accession and each.accession in accessions for each in event.procedures)
    )


def _folded(order: Order, said: Sequence[tuple[OrderEvent, Stamp, AnyFeed]]) -> Order:
    """The order as its messages make it from nothing but its keys.

    Steps are told apart by what they were; where that leaves one that nobody speaks of, by their places.
    """
    by_what_they_are = _fold(_skeleton(order, _KEYS | _STEP_KEYS | _TELLING), said)
    if _all_spoken_of(by_what_they_are):
        return by_what_they_are
    by_place = _fold(_skeleton(order, _KEYS | _STEP_KEYS), said)
    return by_place if _all_spoken_of(by_place) else by_what_they_are


def _fold(order: Order, said: Sequence[tuple[OrderEvent, Stamp, AnyFeed]]) -> Order:
    for event, stamp, feed in said:
        order = apply(order, event, order.patient_id, None, feed.mint, stamp=stamp).order
    return order


def _skeleton(order: Order, kept: frozenset[str]) -> Order:
    """The order with its keys and nothing that was said of it."""
    return replace(
        order,
        attributes={},
        stamps=NO_STAMPS,
        procedures=tuple(
            replace(
                procedure,
                attributes=_only(procedure.attributes, kept),
                stamps=NO_STAMPS,
                steps=tuple(
                    replace(step, attributes=_only(step.attributes, kept), stamps=NO_STAMPS, status=SPSStatus.SCHEDULED)
                    for step in procedure.steps
                ),
            )
            for procedure in order.procedures
        ),
    )


def _only(attributes: Attributes, tags: frozenset[str]) -> Attributes:
    return {tag: element for tag, element in attributes.items() if tag in tags}


def _all_spoken_of(order: Order) -> bool:
    return all(step.stamps.base is not None for procedure in order.procedures for step in procedure.steps)


def _restored(held: Order, derived: Order) -> tuple[Order, list[str]]:
    """What was derived, with the keys, statuses and finished steps of the order that is held."""
    notes: list[str] = []
    procedures: list[Procedure] = []
    for before, after in zip(held.procedures, derived.procedures, strict=True):
        steps = [
            _restored_step(one, other, notes)
            for one, other in zip(before.steps, after.steps[: len(before.steps)], strict=True)
        ]
        procedures.append(
            replace(
                before,
                attributes={**_without(after.attributes, _KEYS), **_only(before.attributes, _KEYS)},
                steps=(*steps, *after.steps[len(before.steps) :]),
                stamps=replace(after.stamps, events=before.stamps.events),
            )
        )
    order = replace(
        held,
        attributes=derived.attributes,
        procedures=tuple(procedures),
        stamps=replace(derived.stamps, events=held.stamps.events),
    )
    return order, notes


def _restored_step(held: Step, derived: Step, notes: list[str]) -> Step:
    if held.status not in WAITING:
        return held
    if derived.stamps.base is None:
        notes.append(f"step {held.sps_id} is planned by no rule any more; it stays")
        return held
    return replace(
        held,
        attributes={**_without(derived.attributes, _STEP_KEYS), **_only(held.attributes, _STEP_KEYS)},
        stamps=replace(derived.stamps, events=held.stamps.events),
    )


def _without(attributes: Attributes, tags: frozenset[str]) -> Attributes:
    return {tag: element for tag, element in attributes.items() if tag not in tags}


def _said_again(
    patient: Patient | None, visit: Visit | None, said: Sequence[tuple[OrderEvent, Stamp, AnyFeed]]
) -> tuple[Patient | None, Visit | None]:
    """Patient and visit with what the messages say of them by today's rules, where nothing newer is known.

    They are not made from nothing: much of what is held of them came by other messages.
    """
    for event, stamp, _ in said:
        if patient is not None and set(event.patient.identifiers) & set(patient.identifiers):
            attributes, stamps = merge_said(
                patient.attributes, patient.stamps, _without(event.patient.attributes, _OF_PATIENT_ID), stamp
            )
            if attributes != patient.attributes:
                patient = replace(patient, attributes=attributes, stamps=stamps)
        if visit is not None and event.visit is not None and event.visit.number == visit.number:
            attributes, stamps = merge_said(visit.attributes, visit.stamps, event.visit.attributes, stamp)
            if attributes != visit.attributes:
                visit = replace(visit, attributes=attributes, stamps=stamps)
    return patient, visit


def _changes(
    order: Order,
    restored: Order,
    patient: Patient | None,
    person: Patient | None,
    visit: Visit | None,
    stay: Visit | None,
) -> Iterator[AttributeChange]:
    if patient is not None and person is not None:
        yield from _differences("", patient.attributes, person.attributes)
    if visit is not None and stay is not None:
        yield from _differences("", visit.attributes, stay.attributes)
    yield from _differences("", order.attributes, restored.attributes)
    for before, after in zip(order.procedures, restored.procedures, strict=True):
        yield from _differences("", before.attributes, after.attributes)
        for one, other in zip(before.steps, after.steps[: len(before.steps)], strict=True):
            yield from _differences(one.sps_id, one.attributes, other.attributes)


def _differences(item: str, old: Attributes, new: Attributes) -> Iterator[AttributeChange]:
    if old == new:
        return
    before, after = readable(old), readable(new)
    for keyword in dict.fromkeys((*before, *after)):
        if before.get(keyword) != after.get(keyword):
            yield AttributeChange(item, keyword, before.get(keyword), after.get(keyword))
