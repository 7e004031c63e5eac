"""An order or a patient update arrives by HL7 v2 (RAD-1, 2, 3, 4, 12, 13).

`read_message` asks the store nothing and may run in any process. `receive` is one transaction: the archive record, the
change and the answer are written together, and the answer may leave only after that (design rule 1). What it refuses it
raises as `Refused`, which undoes everything; the caller then archives the same bytes with their reasons through
`archive_refused`.
"""

import hashlib
from collections import abc
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Literal, Protocol

from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier, Issuers, Mint
from gateway.domain.mapping import Mapping, MappingResult
from gateway.domain.order import Order, OrderEvent, Unheld, effect_of, removes
from gateway.domain.order_change import apply
from gateway.domain.patient import IdentifierChange, PatientEvent, PatientLink, PatientMerge, PatientUpdate, VisitMove
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.senders import says_to_be
from gateway.domain.source import Document
from gateway.wire import er7, hl7_source
from gateway.wire.ack_modes import Answers, answers
from gateway.wire.hl7_stamps import made_at
from gateway.workflow import outbox
from gateway.workflow.audience import NOBODY, Audience, MessageSource
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK, MessageRecord, MessageSearch, Outcome, StoredMessage, Unit
from gateway.workflow.telling import pass_on_message

HELD_OF_ONE_ORDER_MAX = 100
"""Held or early messages looked at for one order; a sender repeats an order a few times, not a hundred."""

FROM_ELSEWHERE = "are not taken from this address or with this certificate"
"""How the archive says that a message is by somebody else than it says, or that its sender was moved."""

_POSITIVE = frozenset({"accepted", "held", "ignored", "withdrawn", "superseded"})
"""What was answered positively; what was held stays so answered, whatever became of it."""
_PASSED_ON = frozenset({"accepted", "ignored"})
"""What others may need, whether or not anything changed here."""
_COMES_BACK = frozenset({"held", "early"})


class RunsAgain(Protocol):
    """A feed of whatever format, as others need it."""

    def again(self, unit: Unit, stored: StoredMessage, at: datetime) -> str:
        """Run a message that came early by this feed, or was held, again; what became of it. Raises Refused where it
        still cannot act."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A listener's way of reading: everything about a sender that is not in its messages.

    `senders` are those taken, as `MSH-3|MSH-4` or MSH-3 alone; none means anyone. `zone` is that of an MSH-7 that
    names no offset, `department` the one by whose wall clock steps are scheduled. With `sort_late` a message made
    before what is held counts as the older one, else the last to arrive counts.
    """

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
    senders: frozenset[str] = frozenset()
    charset_override: str = ""
    header_required: tuple[int, ...] = er7.HEADER_REQUIRED
    zone: tzinfo = UTC
    department: tzinfo | None = None
    sort_late: bool = True
    discontinue_started: bool = False
    cancel_unsaid: bool = False
    merge_linked: bool = False
    strict: bool = False
    answer: Literal["ack", "order"] = "ack"
    acknowledge_to: str = ""
    answers_nobody: bool = False
    """For what is itself an answer."""
    audience: Audience = field(default=NOBODY, repr=False)
    others: abc.Mapping[str, "RunsAgain"] = field(default_factory=dict, repr=False, compare=False)
    """The site's feeds by name: a message that came early by another listener is read as that one reads."""

    def read(self, raw: bytes) -> er7.Message:
        """The message as this listener reads it. Raises Refused."""
        return er7.parse(raw, self.charset, charset_override=self.charset_override)

    def understand(self, document: Document, *, trace: bool = False) -> MappingResult:
        """What the message means, or all of its refusals."""
        return self.mapping.apply(document, default_issuer=self.issuer, zone=self.department, trace=trace)

    def again(self, unit: Unit, stored: StoredMessage, at: datetime) -> str:
        """Run a message that came early, or was held, again; what became of it. Raises Refused where it still cannot
        act."""
        return receive(unit, stored.record.raw, self, stored.record.peer, at, replay_of=stored.id).disposition

    def takes(self, message: er7.Message) -> bool:
        """Whether its sender is one of those that may speak here."""
        return not self.senders or message.sender in self.senders or message.msh.text(3) in self.senders

    def ignores(self, message: er7.Message) -> bool:
        """Whether nobody here needs to know what it says."""
        code = message.message_code
        return bool(self.ignore) and (code in self.ignore or f"{code}^{message.trigger_event}" in self.ignore)

    def stamp(self, message: er7.Message, arrived: datetime) -> Stamp:
        """When the message was made, and by whom."""
        said = message.msh.text(7) if self.sort_late else ""
        return Stamp(made_at(said, self.zone, arrived), f"{self.name} {message.sender}")

    def circumstances(self, cause: str, stamp: Stamp, application: str = "") -> Circumstances:
        """How the events of one message are applied. `application` is its MSH-3."""
        return Circumstances(
            cause,
            self.mint,
            self.issuers,
            self.issuer,
            self.redirect_merged,
            self.site,
            stamp,
            self.discontinue_started,
            self.cancel_unsaid,
            self.merge_linked,
            self.audience,
            self.department or UTC,
            MessageSource(self.name, application),
        )

    def answers(
        self,
        message: er7.Message | None,
        raw: bytes,
        now: datetime,
        refusals: Sequence[Refusal] = (),
        notes: Sequence[str] = (),
        outcome: Outcome = Outcome(),  # noqa: B008  (frozen)
        *,
        storable: bool = True,
    ) -> Answers:
        """What the sender is told; with `storable` also by a message of its own, where this listener sends such."""
        if self.answers_nobody:
            return Answers(b"")
        return answers(
            message,
            refusals,
            now=now,
            notes=tuple(notes),
            raw=raw if message is None else b"",
            responses=outcome.responses,
            structure=self.answer,
            destination=storable and bool(self.acknowledge_to),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message. `answer` is the HL7 acknowledgement to send, b"" where the sender wants none; logs
    take the other fields."""

    answer: bytes = field(repr=False)
    disposition: str
    control_id: str = ""
    message_type: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Understood:
    """A message as a feed reads it. The meaning has the refusals of all that is wrong with the message itself; it is
    empty where the feed does not want to know it."""

    message: er7.Message
    meaning: MappingResult = MappingResult()  # noqa: RUF009  (frozen)


def read_message(
    raw: bytes, feed: Feed, malformed: Sequence[Refusal] = (), barred: Sequence[str] = ()
) -> Understood:  # fmt: skip
    """Parse, check and map. `malformed` is what a strict listener found before (`wire.strict`); `barred` are senders
    that this one must not say to be (`domain.senders`).

    Raises Refused for what is no message, or is by somebody else than it says.
    """
    message = feed.read(raw)
    if barred and says_to_be(message.msh.text(3), message.msh.text(4), barred):
        raise Refused(_impostor(message))
    if not feed.takes(message) or feed.ignores(message):
        return Understood(message)
    problems = (*er7.check_header(message, feed.processing_ids, feed.header_required), *malformed)
    if problems:
        return Understood(message, MappingResult(refusals=problems))
    return Understood(message, feed.understand(hl7_source.document(message)))


def receive(
    unit: Unit,
    raw: bytes,
    feed: Feed,
    peer: str,
    now: datetime,
    replay_of: int | None = None,
    understood: Understood | None = None,
) -> Receipt:
    """Process one message within the transaction `unit`. Raises Refused with every problem found.

    `understood` is the message as this feed reads it, where that was done before. A message that is run again was made
    and arrived when it did the first time.
    """
    understood = understood or read_message(raw, feed)
    message, result = understood.message, understood.meaning
    first = unit.message(replay_of) if replay_of is not None else None
    stamp = feed.stamp(message, first.record.received_at if first else now)
    record = _record(raw, feed, peer, now, message, replay_of, stamp)
    notes: list[str] = []
    if not feed.takes(message):
        raise Refused(_stranger(message, feed))
    if replay_of is None:
        repeated = _repeated(unit, record, feed, notes)
        if repeated is not None:
            return repeated
    if feed.ignores(message):
        return _conclude(unit, feed, message, record, "ignored", [f"{record.message_type} is ignored here"], now)
    if result.refusals:
        raise Refused(*result.refusals)
    notes += result.notes
    withdrawn = _withdraw_held(unit, result, feed)
    if withdrawn:
        return _conclude(unit, feed, message, record, "accepted", [*notes, withdrawn], now, keys=keys_of(result))
    before = unit.changes
    under = feed.circumstances(f"{feed.name} {message.control_id}", stamp, message.msh.text(3))
    outcome = apply_events(unit, result.events, under, now)
    notes += outcome.notes
    if unit.changes == before and not notes:
        notes.append("nothing changed")
    if first is not None and first.record.disposition in _COMES_BACK:
        unit.set_message_disposition(first.id, "released", first.record.reasons)
    if outcome.created:
        notes += run_early(unit, outcome.created, {**feed.others, feed.name: feed}.get, now)
    return _conclude(unit, feed, message, record, "accepted", notes, now, outcome, keys=keys_of(result, outcome))


def archive_refused(
    unit: Unit,
    raw: bytes,
    refusals: Sequence[Refusal],
    feed: Feed,
    peer: str,
    now: datetime,
    replay_of: int | None = None,
) -> Receipt:
    """Keep a refused message with its reasons.

    It is held instead where the listener holds uncovered orders, and comes back by itself where all that it lacks is an
    order that may arrive later.
    """
    message, keys = _readable(raw, feed)
    stamp = feed.stamp(message, now) if message else Stamp()
    record = replace(_record(raw, feed, peer, now, message, replay_of, stamp), keys=keys)
    record = replace(record, reasons="\n".join(map(str, refusals)))
    kinds = {refusal.kind for refusal in refusals}
    if message is None:
        return _conclude(unit, feed, None, record, "unreadable", (), now, refusals=refusals)
    if replay_of is None and feed.hold_uncovered and kinds == {RefusalKind.UNCOVERED}:
        return _conclude(unit, feed, message, record, "held", ["held: no procedure rule covers this order yet"], now)
    if replay_of is None and kinds == {RefusalKind.UNKNOWN_ORDER}:
        result = feed.understand(hl7_source.document(message))
        record = replace(record, keys=keys_of(result))
        note = "the message is kept, and acts if the order arrives"
        return _conclude(unit, feed, message, record, "early", [note], now, refusals=refusals)
    return _conclude(unit, feed, message, record, "refused", (), now, refusals=refusals)


def refuse_unarchived(raw: bytes, refusals: Sequence[Refusal], feed: Feed, now: datetime) -> Receipt:
    """The negative answer when not even the archive can be written (disk full, database away)."""
    message, _ = _readable(raw, feed)
    record = _record(raw, feed, "", now, message, None, Stamp())
    # The outbox cannot be written either: whatever is wanted is said on the connection.
    return _receipt(feed.answers(message, raw, now, refusals, storable=False).here, "refused", record, refusals)


def release(unit: Unit, held: StoredMessage, feed: RunsAgain, now: datetime) -> None:
    """Run a held message again, now that a rule may cover it. Raises Refused if none does: then it stays held.

    A held message must not undo what came later: if one about the same order was accepted since, it is superseded.
    """
    for kind, value in held.record.keys:
        about = MessageSearch(value, kind, listener=held.record.listener, dispositions=frozenset({"accepted"}))
        newer = unit.find_messages(about, 1) if kind in ("placer", "filler") else ()
        if newer and newer[0].id > held.id:
            reason = f"message {newer[0].id} about the same order was accepted since"
            unit.set_message_disposition(held.id, "superseded", f"{held.record.reasons}\n{reason}")
            return
    feed.again(unit, held, now)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a message would do, for `explain`: the mapping's result and the orders it would make on an empty store.

    `notes` are about events that need an order which is held.
    """

    result: MappingResult
    orders: tuple[Order, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()


def preview(raw: bytes, feed: Feed) -> Preview:
    """Map a message with its trace, and apply its orders to nothing. Raises Refused if it cannot be read."""
    message = feed.read(raw)
    refusals = [] if feed.takes(message) else [_stranger(message, feed)]
    refusals += er7.check_header(message, feed.processing_ids, feed.header_required)
    result = feed.understand(hl7_source.document(message), trace=True)
    return previewed(result, feed.mint, refusals)


def previewed(result: MappingResult, mint: Mint, refusals: Sequence[Refusal] = ()) -> Preview:
    """What a document would do, with the orders that it makes of nothing. `refusals` were found before."""
    refused_for = [*refusals, *result.refusals]
    orders: list[Order] = []
    notes: list[str] = []
    for event in result.events:
        if not isinstance(event, OrderEvent):
            continue
        if effect_of(event.control, event.order_status).unheld is not Unheld.CREATED:
            notes.append(f"{event.where}: {event.control} acts on an order that is held, and makes none")
            continue
        try:
            orders.append(apply(None, event, 0, None, mint).order)
        except Refused as refused:
            refused_for += refused.refusals
    return Preview(result, tuple(orders), tuple(refused_for), tuple(notes))


def _record(
    raw: bytes,
    feed: Feed,
    peer: str,
    now: datetime,
    message: er7.Message | None,
    replay_of: int | None,
    stamp: Stamp,
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
        made_at=stamp.made,
    )


def _readable(raw: bytes, feed: Feed) -> tuple[er7.Message | None, tuple[tuple[str, str], ...]]:
    """The message and its search keys, as far as it can be read at all."""
    try:
        message = feed.read(raw)
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


def _stranger(message: er7.Message, feed: Feed) -> Refusal:
    return Refusal(
        RefusalKind.UNKNOWN_SENDER, "MSH-3", f"messages of {message.sender!r} (MSH-3|MSH-4) are not taken here",
        f"taken are {', '.join(sorted(feed.senders))}; the listener's `senders` names them",
    )  # fmt: skip


def _impostor(message: er7.Message) -> Refusal:
    return Refusal(
        RefusalKind.NOT_AUTHORISED, "MSH-3", f"messages of {message.sender!r} (MSH-3|MSH-4) {FROM_ELSEWHERE}",
        "send from where that system is; the listener's `bound_senders` says where",
    )  # fmt: skip


def is_from_elsewhere(record: MessageRecord) -> bool:
    """Whether an archived message was refused because its sender does not send from there."""
    return record.disposition == "refused" and FROM_ELSEWHERE in record.reasons


def run_early(
    unit: Unit, created: Collection[Identifier], reader_of: Callable[[str], RunsAgain | None], now: datetime
) -> list[str]:
    """Run the messages about these orders that came before them, as they were made. Returns what to tell the sender.

    `reader_of` gives the feed of a listener, None where it is not configured any more. One that still cannot act stays
    early: what it did is undone, and the order that just came is not refused for it.
    """
    found: dict[int, StoredMessage] = {}
    for identifier in created:
        early = unit.early_messages(identifier.value, HELD_OF_ONE_ORDER_MAX)
        found |= {stored.id: stored for stored in early}
    notes: list[str] = []
    for stored in sorted(found.values(), key=lambda each: (each.record.made_at, each.id)):
        record, reader = stored.record, reader_of(stored.record.listener)
        if reader is None:
            continue
        try:
            became = unit.attempt(partial(reader.again, unit, stored, now))
        except Refused as refused:
            reasons = "\n".join(map(str, refused.refusals))
            unit.set_message_disposition(stored.id, "early", f"{record.reasons}\nwhen the order arrived: {reasons}")
        else:
            if became != "superseded":
                notes.append(f"message {record.control_id}, which came before this order, took effect")
    return notes


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
                search = MessageSearch(identifier.value, listener=feed.name, dispositions=frozenset({"held"}))
                found = unit.find_messages(search, HELD_OF_ONE_ORDER_MAX)
                held |= {stored.id: stored for stored in found}
    for stored in held.values():
        unit.set_message_disposition(stored.id, "withdrawn", f"{stored.record.reasons}\ncancelled by the sender")
    return "the held order was withdrawn" if held else ""


def _repeated(unit: Unit, record: MessageRecord, feed: Feed, notes: list[str]) -> Receipt | None:
    """The answer given before to the same bytes, if it was positive (D11); otherwise a note or a refusal."""
    earlier = unit.earlier_messages(record.listener, record.sender, record.control_id)
    for stored in earlier:
        if stored.record.digest == record.digest and stored.record.disposition in _POSITIVE:
            return _receipt(stored.record.answer, "repeated", record, ())
    if record.control_id in ("", er7.NULL):
        return None  # a listener need not insist on MSH-10; what is empty names nothing twice
    if any(stored.record.digest != record.digest and stored.record.disposition in _POSITIVE for stored in earlier):
        if feed.refuse_repeated_ids:
            raise Refused(
                Refusal(
                    RefusalKind.DUPLICATE_KEY,
                    "MSH-10",
                    f"control ID {record.control_id!r} was used before for another message",
                    "give every message a control ID of its own",
                )
            )
        notes.append("control ID was used before for another message")
    return None


def _conclude(
    unit: Unit,
    feed: Feed,
    message: er7.Message | None,
    record: MessageRecord,
    disposition: str,
    notes: Sequence[str],
    now: datetime,
    outcome: Outcome = Outcome(),  # noqa: B008  (frozen)
    refusals: Sequence[Refusal] = (),
    keys: tuple[tuple[str, str], ...] = (),
) -> Receipt:
    """Archive the message with what became of it, and its answers: nobody is asked again when it is run again."""
    made = feed.answers(message, record.raw, now, refusals, notes, outcome, storable=record.replay_of is None)
    reasons = "\n".join(filter(None, [record.reasons, *notes, *(message.notes if message else ())]))
    keys = keys or record.keys
    unit.add_message(replace(record, disposition=disposition, reasons=reasons, answer=made.here, keys=keys))
    if message is not None and disposition in _PASSED_ON and feed.audience.passed_on:
        zone = feed.department or UTC
        pass_on_message(unit, feed.audience, feed.name, message, record.raw, outcome, now, zone)
    if made.apart:
        patient = outcome.patients[0] if outcome.patients else None
        control_id = er7.parse_header(made.apart).control_id
        outbox.enqueue(unit, feed.acknowledge_to, patient, control_id, made.apart, now, keys)
    return _receipt(made.here, disposition, record, refusals)


def _receipt(answer: bytes, disposition: str, record: MessageRecord, refusals: Sequence[Refusal]) -> Receipt:
    kinds = tuple(dict.fromkeys(refusal.kind.value for refusal in refusals))
    return Receipt(answer, disposition, record.control_id, record.message_type, kinds)


def keys_of(result: MappingResult, outcome: Outcome = Outcome()) -> tuple[tuple[str, str], ...]:  # noqa: B008  (frozen)
    """What the archive can be searched by: what the message names, and the store's numbers of what it touched."""
    keys: dict[tuple[str, str], None] = {}
    for event in result.events:
        keys |= {("patient", identifier.value): None for identifier in _people(event)}
        if isinstance(event, OrderEvent):
            found = [("placer", event.placer), ("filler", event.filler)]
            found += [("accession", procedure.accession) for procedure in event.procedures]
            keys |= {(kind, identifier.value): None for kind, identifier in found if identifier}
            studies = (procedure.study_instance_uid for procedure in event.procedures)
            keys |= {("study", uid): None for uid in studies if uid}
    keys |= {(ORDER_LINK, str(number)): None for number in outcome.orders}
    keys |= {(PATIENT_LINK, str(number)): None for number in outcome.patients}
    return tuple(keys)


def _people(event: OrderEvent | PatientEvent) -> tuple[Identifier, ...]:
    match event:
        case OrderEvent() | PatientUpdate():
            return event.patient.identifiers
        case PatientMerge():
            return (*event.surviving.identifiers, *event.prior)
        case IdentifierChange() | VisitMove():
            return (*event.patient.identifiers, *event.prior)
        case PatientLink():
            return (*event.one.identifiers, *event.other.identifiers)
