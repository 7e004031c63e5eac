"""An order or a patient update arrives by HL7 v2 (RAD-1, 2, 3, 4, 12, 13).

`receive` is one transaction: the archive record, the change and the answer are written together, and the answer
may leave only after that (design rule 1). What it refuses it raises as `Refused`, which undoes everything; the
caller then archives the same bytes with their reasons through `archive_refused`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.mapping import Mapping, MappingResult
from gateway.domain.order import Order, OrderEvent, apply, removes
from gateway.domain.patient import PatientMerge
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire import ack, er7, hl7_source
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import MessageRecord, StoredMessage, Unit

HELD_OF_ONE_ORDER_MAX = 100
"""Held messages looked at for one cancelled order; a sender repeats an order a few times, not a hundred."""

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
    site: str = ""

    def circumstances(self, cause: str) -> Circumstances:
        """How the events of one message are applied."""
        return Circumstances(cause, self.mint, self.issuers, self.issuer, self.redirect_merged, self.site)


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
    problems = [*er7.check_header(message, feed.processing_ids), *_several_patients(message)]
    if problems:
        raise Refused(*problems)
    result = feed.mapping.apply(hl7_source.document(message), default_issuer=feed.issuer)
    if result.refusals:
        raise Refused(*result.refusals)
    notes += result.notes
    withdrawn = _withdraw_held(unit, result, feed)
    if withdrawn:
        return _conclude(unit, message, replace(record, keys=_keys(result)), "accepted", [*notes, withdrawn], now)
    notes += apply_events(unit, result.events, feed.circumstances(f"{feed.name} {message.control_id}"), now)
    if replay_of is not None:
        replayed = unit.message(replay_of)
        if replayed is not None and replayed.record.disposition == "held":
            unit.set_message_disposition(replay_of, "released", replayed.record.reasons)
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
    may_hold = message is not None and feed.hold_uncovered and replay_of is None
    if message is not None and may_hold and all(r.kind is RefusalKind.UNCOVERED for r in refusals):
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


def release(unit: Unit, held: StoredMessage, feed: Feed, now: datetime) -> None:
    """Run a held message again, now that a rule may cover it. Raises Refused if none does: then it stays held.

    A held message must not undo what came later: if one about the same order was accepted since, it is superseded.
    """
    for kind, value in held.record.keys:
        newer = unit.list_messages(1, feed.name, "accepted", value) if kind in ("placer", "filler") else ()
        if newer and newer[0].id > held.id:
            reason = f"message {newer[0].id} about the same order was accepted since"
            unit.set_message_disposition(held.id, "superseded", f"{held.record.reasons}\n{reason}")
            return
    receive(unit, held.record.raw, feed, held.record.peer, now, replay_of=held.id)


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


def _several_patients(message: er7.Message) -> list[Refusal]:
    """More than one PID where the message is about one patient: nobody can tell whose the orders are."""
    if len(message.all("PID")) < 2 or message.trigger_event == "A40":
        return []
    return [Refusal(
        RefusalKind.SEGMENT_SEQUENCE, "PID[2]", "the message names a second patient",
        "send one message for each patient",
    )]  # fmt: skip


def _withdraw_held(unit: Unit, result: MappingResult, feed: Feed) -> str:
    """A cancel for an order that is only held: the held message will not come back. Returns what to tell the sender."""
    events = [event for event in result.events if isinstance(event, OrderEvent)]
    if not feed.hold_uncovered or not events or len(events) != len(result.events):
        return ""
    held: dict[int, StoredMessage] = {}
    for event in events:
        if not removes(event.control, event.order_status) or unit.orders(event.placer, event.filler):
            return ""
        for identifier in (event.placer, event.filler):
            if identifier is not None:
                found = unit.list_messages(HELD_OF_ONE_ORDER_MAX, feed.name, "held", identifier.value)
                held |= {stored.id: stored for stored in found}
    for stored in held.values():
        unit.set_message_disposition(stored.id, "withdrawn", f"{stored.record.reasons}\ncancelled by the sender")
    return "the held order was withdrawn" if held else ""


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
