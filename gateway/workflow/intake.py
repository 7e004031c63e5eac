"""An order or a patient update arrives by HL7 v2 (RAD-1, 2, 3, 4, 12, 13).

`receive` is one transaction: the archive record, the change and the answer are written together, and the answer
may leave only after that (design rule 1). What it refuses it raises as `Refused`, which undoes everything; the
caller then archives the same bytes with their reasons through `archive_refused`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.attributes import merge
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.mapping import Mapping, MappingResult
from gateway.domain.order import Order, OrderEvent, apply
from gateway.domain.patient import Patient, PatientInput, PatientMerge, PatientUpdate, Visit, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire import ack, er7, hl7_source
from gateway.workflow.perform import PatientIssuers, link_waiting
from gateway.workflow.ports import MessageRecord, Unit

POSITIVE = frozenset({"accepted", "held", "ignored"})


@dataclass(frozen=True, slots=True)
class Feed:
    """A listener's way of reading: everything about a sender that is not in its messages."""

    name: str
    mapping: Mapping = field(repr=False)
    mint: Mint = field(repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)
    charset: str = ""
    issuer: str = ""
    hold_uncovered: bool = False
    refuse_repeated_ids: bool = False
    redirect_merged: bool = True
    processing_ids: frozenset[str] = frozenset("PD")
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message. `answer` is the HL7 acknowledgement to send; logs take the other fields."""

    answer: bytes = field(repr=False)
    disposition: str
    control_id: str = ""
    message_type: str = ""
    kinds: tuple[str, ...] = ()


def receive(unit: Unit, raw: bytes, feed: Feed, peer: str, now: datetime, replay_of: int | None = None) -> Receipt:
    """Process one message within the transaction `unit`. Raises Refused with every problem found."""
    message = er7.parse(raw, feed.charset)
    record = _record(raw, feed, peer, now, message, replay_of)
    notes: list[str] = []
    if replay_of is None:
        repeated = _repeated(unit, record, feed, notes)
        if repeated is not None:
            return repeated
    if record.message_type in feed.ignore or message.message_code in feed.ignore:
        return _conclude(unit, message, record, "ignored", [f"{record.message_type} is ignored here"], now)
    problems = er7.check_header(message, feed.processing_ids)
    if problems:
        raise Refused(*problems)
    result = feed.mapping.apply(hl7_source.document(message), default_issuer=feed.issuer)
    if result.refusals:
        raise Refused(*result.refusals)
    notes += result.notes
    cause = f"{feed.name} {message.control_id}"
    _apply_all(unit, result, feed, cause, now, notes)
    return _conclude(unit, message, replace(record, keys=_keys(result)), "accepted", notes, now)


def archive_refused(
    unit: Unit,
    raw: bytes,
    refusals: Sequence[Refusal],
    feed: Feed,
    peer: str,
    now: datetime,
    replay_of: int | None = None,
) -> Receipt:
    """Keep a refused message with its reasons; hold it instead where the listener holds uncovered orders."""
    message, keys = _readable(raw, feed)
    record = replace(_record(raw, feed, peer, now, message, replay_of), keys=keys)
    reasons = "\n".join(map(str, refusals))
    if message is not None and feed.hold_uncovered and all(r.kind is RefusalKind.UNCOVERED for r in refusals):
        record = replace(record, reasons=reasons)
        return _conclude(unit, message, record, "held", ["held: no procedure rule covers this order yet"], now)
    answer = ack.acknowledge(message, refusals, now=now, raw=raw)
    disposition = "refused" if message is not None else "unreadable"
    unit.add_message(replace(record, disposition=disposition, reasons=reasons, answer=answer))
    return _receipt(answer, disposition, record, refusals)


def refuse_unarchived(raw: bytes, refusals: Sequence[Refusal], feed: Feed, now: datetime) -> Receipt:
    """The negative answer when not even the archive can be written (disk full, database away)."""
    message, _ = _readable(raw, feed)
    record = _record(raw, feed, "", now, message, None)
    return _receipt(ack.acknowledge(message, refusals, now=now, raw=raw), "refused", record, refusals)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a message would do, for `explain`: the mapping's result and the orders it would make on an empty store."""

    result: MappingResult
    orders: tuple[Order, ...]
    refusals: tuple[Refusal, ...]


def preview(raw: bytes, feed: Feed) -> Preview:
    """Map a message with its trace, and apply its orders to nothing. Raises Refused if it cannot be read."""
    message = er7.parse(raw, feed.charset)
    refusals = [*er7.check_header(message, feed.processing_ids)]
    result = feed.mapping.apply(hl7_source.document(message), default_issuer=feed.issuer, trace=True)
    refusals += result.refusals
    orders = []
    for event in result.events:
        if isinstance(event, OrderEvent):
            try:
                orders.append(apply(None, event, 0, None, feed.mint).order)
            except Refused as refused:
                refusals += refused.refusals
    return Preview(result, tuple(orders), tuple(refusals))


def _record(
    raw: bytes, feed: Feed, peer: str, now: datetime, message: er7.Message | None, replay_of: int | None
) -> MessageRecord:
    return MessageRecord(
        received_at=now,
        listener=feed.name,
        peer=peer,
        sender=message.sender if message else "",
        control_id=message.control_id if message else "",
        message_type=f"{message.message_code}^{message.trigger_event}" if message else "",
        digest=hashlib.sha256(raw).digest(),
        raw=raw,
        mapping=feed.mapping.version_id,
        replay_of=replay_of,
    )


def _readable(raw: bytes, feed: Feed) -> tuple[er7.Message | None, tuple[tuple[str, str], ...]]:
    """The message and its search keys, as far as it can be read at all."""
    try:
        message = er7.parse(raw, feed.charset)
    except Refused:
        return None, ()
    patient = message.first("PID")
    order = message.first("ORC")
    keys = (
        ("patient", patient.text(3) if patient else ""),
        ("placer", order.text(2) if order else ""),
        ("filler", order.text(3) if order else ""),
    )
    return message, tuple((kind, value) for kind, value in keys if value)


def _repeated(unit: Unit, record: MessageRecord, feed: Feed, notes: list[str]) -> Receipt | None:
    """The answer given before to the same bytes, if it was positive (D11); otherwise a note or a refusal."""
    earlier = unit.earlier_messages(record.listener, record.sender, record.control_id)
    for stored in earlier:
        if stored.record.digest == record.digest and stored.record.disposition in POSITIVE:
            return _receipt(stored.record.answer, "repeated", record, ())
    if any(stored.record.digest != record.digest and stored.record.disposition in POSITIVE for stored in earlier):
        if feed.refuse_repeated_ids:
            raise Refused(
                Refusal(
                    RefusalKind.DUPLICATE_KEY,
                    "MSH-10",
                    "this control ID was used before for another message",
                    "give every message a control ID of its own",
                )
            )
        notes.append("control ID was used before for another message")
    return None


def _conclude(
    unit: Unit,
    message: er7.Message,
    record: MessageRecord,
    disposition: str,
    notes: Sequence[str],
    now: datetime,
) -> Receipt:
    answer = ack.acknowledge(message, (), now=now, notes=tuple(notes))
    reasons = record.reasons or "\n".join(notes)
    unit.add_message(replace(record, disposition=disposition, reasons=reasons, answer=answer))
    return _receipt(answer, disposition, record, ())


def _receipt(answer: bytes, disposition: str, record: MessageRecord, refusals: Sequence[Refusal]) -> Receipt:
    kinds = tuple(dict.fromkeys(refusal.kind.value for refusal in refusals))
    return Receipt(answer, disposition, record.control_id, record.message_type, kinds)


def _keys(result: MappingResult) -> tuple[tuple[str, str], ...]:
    """The business keys that the archive can be searched by."""
    keys: dict[tuple[str, str], None] = {}
    for event in result.events:
        patient = event.surviving if isinstance(event, PatientMerge) else event.patient
        for identifier in (*patient.identifiers, *(event.prior if isinstance(event, PatientMerge) else ())):
            keys["patient", identifier.value] = None
        if isinstance(event, OrderEvent):
            found = [("placer", event.placer), ("filler", event.filler)]
            found += [("accession", procedure.accession) for procedure in event.procedures]
            keys |= {(kind, identifier.value): None for kind, identifier in found if identifier}
    return tuple(keys)


def _apply_all(unit: Unit, result: MappingResult, feed: Feed, cause: str, now: datetime, notes: list[str]) -> None:
    """Apply every event; a message is all or nothing, and all of its problems are reported at once (D11)."""
    refusals: list[Refusal] = []
    for event in result.events:
        try:
            if isinstance(event, OrderEvent):
                _apply_order(unit, event, feed, cause, now, notes)
            elif isinstance(event, PatientUpdate):
                patient = _upsert_patient(unit, event.patient, feed, now, notes)
                _upsert_visit(unit, patient, event.visit, now)
            else:
                _merge_patients(unit, event, feed, now, notes)
        except Refused as refused:
            refusals += refused.refusals
    if refusals:
        raise Refused(*dict.fromkeys(refusals))


def _apply_order(unit: Unit, event: OrderEvent, feed: Feed, cause: str, now: datetime, notes: list[str]) -> None:
    patient = _upsert_patient(unit, event.patient, feed, now, notes)
    visit = _upsert_visit(unit, patient, event.visit, now)
    held = _held_order(unit, event)
    applied = apply(held, event, patient, visit, feed.mint)
    saved = unit.save_order(applied.order, cause, now) if applied.order != held else applied.order
    notes += applied.notes
    link_waiting(
        unit,
        [procedure.study_instance_uid for procedure in saved.procedures if procedure.study_instance_uid],
        [procedure.accession.value for procedure in saved.procedures if procedure.accession],
        now,
        PatientIssuers(feed.issuers, feed.issuer),
    )


def _held_order(unit: Unit, event: OrderEvent) -> Order | None:
    """The one order these identifiers mean. Raises Refused (205) if they point to two: never merged (D10)."""
    found = {order.id: order for order in unit.orders(event.placer, event.filler)}
    for procedure in event.procedures:
        if procedure.study_instance_uid:
            order = unit.order_of_study(procedure.study_instance_uid)
            if order is not None:
                found[order.id] = order
    if not found and event.placer is None and event.filler is None:
        for procedure in event.procedures:
            if procedure.accession is not None:
                found |= {order.id: order for order in unit.orders_by_accession(procedure.accession)}
    if len(found) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                event.where,
                "its placer number, filler number, Study Instance UID or accession number belong to different orders",
                "correct the identifiers; orders are never merged",
            )
        )
    return next(iter(found.values()), None)


def _upsert_patient(unit: Unit, said: PatientInput, feed: Feed, now: datetime, notes: list[str]) -> int:
    """The patient's id after insert or update. Raises Refused (205) for identifiers of two people."""
    found = unit.patients(said.identifiers)
    if len(found) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "PID-3",
                "these identifiers belong to different patients",
                "merge the patients first (ADT^A40) or correct the identifiers",
            )
        )
    if not found:
        return unit.save_patient(Patient(None, said.identifiers, said.attributes), now)
    held = found[0]
    assert held.id is not None  # noqa: S101  (held patients come from the store)
    if said.identifiers[0] not in held.identifiers:
        return _merged_away(held.id, feed, notes)
    identifiers = tuple(dict.fromkeys((*held.identifiers, *said.identifiers)))
    changed = replace(held, identifiers=identifiers, attributes=merge(held.attributes, said.attributes))
    return unit.save_patient(changed, now) if changed != held else held.id


def _merged_away(survivor: int, feed: Feed, notes: list[str]) -> int:
    """A message still uses an identifier that a merge retired: the survivor is meant, its data stay as they are."""
    if not feed.redirect_merged:
        raise Refused(
            Refusal(
                RefusalKind.UNKNOWN_KEY,
                "PID-3",
                "this patient ID was merged into another and is retired",
                "use the surviving patient ID",
            )
        )
    notes.append("the patient ID was merged into another; the surviving patient is used")
    return survivor


def _upsert_visit(unit: Unit, patient: int, said: VisitInput | None, now: datetime) -> int | None:
    if said is None:
        return None
    held = unit.visit(patient, said.number)
    if held is None:
        return unit.save_visit(Visit(None, patient, said.number, said.attributes), now)
    changed = replace(held, attributes=merge(held.attributes, said.attributes))
    return unit.save_visit(changed, now) if changed != held else held.id


def _merge_patients(unit: Unit, event: PatientMerge, feed: Feed, now: datetime, notes: list[str]) -> None:
    """A40: insert or update the survivor, then move everything of the prior patient to it."""
    prior = unit.patients(event.prior)
    found = unit.patients(event.surviving.identifiers)
    if found and {patient.id for patient in prior} == {patient.id for patient in found}:
        # Said before: nothing to do. The other way round would make a cycle: the survivor is retired already.
        if any(identifier in found[0].identifiers for identifier in event.surviving.identifiers):
            notes.append("these patients were merged before")
            return
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "MRG-1",
                "these patients were merged before, the other way round",
                "check which patient ID survives",
            )
        )
    surviving = _upsert_patient(unit, event.surviving, feed, now, notes)
    if len(prior) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "MRG-1",
                "the prior identifiers belong to different patients",
                "send one A40 for each",
            )
        )
    prior_id = prior[0].id if prior else unit.save_patient(Patient(None, event.prior, event.surviving.attributes), now)
    assert prior_id is not None  # noqa: S101  (just saved or from the store)
    unit.merge_patient(prior_id, surviving, now)
