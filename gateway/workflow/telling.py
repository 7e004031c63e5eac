"""What others are told of what happens here: status to placers (RAD-3, and FHIR), received messages passed on (HL7 v2).

Everything is put into the outbox in the transaction that causes it, behind what already waits about the same patient.
Nothing here refuses: whoever caused it (a modality's report, an accepted message) must not suffer from it, so a message
that a mapping cannot write is parked in the outbox, with the reason. `tell_again` is for when its mapping is mended.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Protocol, Self

from gateway.domain.attributes import Attributes, text
from gateway.domain.discontinuation import DISCONTINUATION_REASON
from gateway.domain.order import Order
from gateway.domain.outbound_converters import Setting, code, stamp
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.performed_effect import Happening, happening
from gateway.domain.progress import Progress, left_out, performed_beside, progress, standing, status_of
from gateway.domain.refusal import Refused
from gateway.domain.report import OF_PROCEDURE, RESULT_STATUS, Report, composed, of_procedure
from gateway.domain.worklist import SPSStatus
from gateway.wire.er7 import NULL, Message, parse
from gateway.workflow.audience import Audience, MessageSource, PassOnTarget, StatusTarget, Writing
from gateway.workflow.fhir_offering import News, tell_by_fhir
from gateway.workflow.kept_reports import kept
from gateway.workflow.outbox import OutboxState, OutboxUnit, can_be_sent, enqueue
from gateway.workflow.ports import (
    ORDER_LINK,
    PATIENT_LINK,
    MessageRecord,
    MessageSearch,
    NewDelivery,
    Outcome,
    Unit,
)
from gateway.workflow.reporting import Performance, about_order, about_patient, performance_of, with_components

_Keys = tuple[tuple[str, str], ...]


def statuses(unit: Unit, order_id: int) -> dict[int, SPSStatus]:
    """The status of every step of an order, by the step's number; none where there is no such order."""
    order = unit.order(order_id)
    return _statuses(order) if order else {}


def tell_others(
    unit: Unit, audience: Audience, held: Order, at: datetime, cause: str, said_by: MessageSource, zone: tzinfo = UTC
) -> list[str]:
    """Tell what a message made of an order which was `held` so before, but for who said it; notes.

    To be called before anything else that changes the order. That it is complete now everybody is told
    (`tell_left_out`).
    """
    if not audience.told or held.id is None:
        return []
    before, after = _statuses(held), statuses(unit, held.id)
    if before == after or left_out(before, after):
        return []
    return tell_progress(unit, audience, held.id, before, at, cause, zone=zone, said_by=said_by)


def tell_left_out(
    unit: Unit, audience: Audience, held: Order, at: datetime, cause: str, zone: tzinfo = UTC
) -> list[str]:
    """Tell that an order is complete which was `held` so until its sender took away what was left of it; notes.

    Its sender is told as well: it may not know that the rest was done.
    """
    if not audience.told or held.id is None:
        return []
    before = _statuses(held)
    if not left_out(before, statuses(unit, held.id)):
        return []
    return tell_progress(unit, audience, held.id, before, at, cause, zone=zone)


def _statuses(order: Order) -> dict[int, SPSStatus]:
    steps = (step for procedure in order.procedures for step in procedure.steps)
    return {step.id: step.status for step in steps if step.id is not None}


# ---- status ----


def tell_progress(
    unit: Unit,
    audience: Audience,
    order_id: int,
    before: Mapping[int, SPSStatus],
    at: datetime,
    cause: str,
    performed: PerformedStep | None = None,
    zone: tzinfo = UTC,
    *,
    withdrawn: bool = False,
    said_by: MessageSource | None = None,
) -> list[str]:
    """Tell every status target what became of an order since its steps had the statuses `before`; notes.

    An order that had no steps before was made for what was performed. What `performed` did is told also where it
    changed no status, unless it was `withdrawn` from scheduled steps. Who said it itself in the message `said_by` is
    not told. To be called when all changes are saved.
    """
    order = unit.order(order_id) if audience.told else None
    if order is None:
        return []
    after = _statuses(order)
    what = Progress.ADDED if not before and performed is not None and order.placer is None else progress(before, after)
    about = ((PERFORMED_KEY, performed.sop_instance_uid),) if performed is not None else ()
    if audience.by_fhir:
        listener = said_by.listener if said_by is not None else ""
        keys = (*_keys(unit, order, order.patient_id), *about)
        tell_by_fhir(unit, audience, order, News(what, performed, cause, listener, keys), at.astimezone(zone))
    if what is None and (withdrawn or not has_ended(_linked(performed, order))):
        return []
    what = what or performed_beside(after.values())
    targets = [
        target
        for target in audience.status
        if what in target.tells and (not target.sites or order.site in target.sites)
        and not (said_by is not None and target.said_itself(said_by))
    ]  # fmt: skip
    if not targets:
        return []
    concerned = {step for step, status in after.items() if before.get(step) is not status}
    if performed is not None and not concerned:
        concerned = set(performed.steps)
    performance = performance_of(unit, order, performed, withdrawn)
    reason = "" if withdrawn else _reason(_linked(performed, order))
    return [
        note
        for target in targets
        for note in _tell(
            _Telling(unit, target.destination, at.astimezone(zone), cause, about, ((_TOLD, what.value),)),
            target.writing, order, what, target.tells[what], concerned, performance, reason,
        )
    ]  # fmt: skip


def has_ended(performed: PerformedStep | None) -> bool:
    """Whether it did something that counts, and does no more."""
    if performed is None or performed.quarantined:
        return False
    return happening(performed) not in (Happening.IN_PROGRESS, Happening.WITHDRAWN)


_BROKEN_OFF = frozenset({Progress.RETURNED, Progress.DISCONTINUED, Progress.CANCELED})
"""What a reason is told with: of an order that goes on or is done, a performed step that broke off is no news."""


def _tell(
    telling: "_Telling", writing: Writing, order: Order, what: Progress, words: tuple[str, str],
    concerned: Collection[int], performance: Performance, reason: str,
) -> list[str]:  # fmt: skip
    """`words` are ORC-1 and ORC-5."""
    control, status = words
    facts = {
        "OrderControl": control,
        "OrderStatus": status,
        "Progress": what.value,
        "ResultStatus": RESULT_STATUS.get(status, ""),
        "At": stamp(telling.at),
        "DiscontinuationReason": reason if what in _BROKEN_OFF else "",
    }
    # Of a group over several orders the dose is told with one of them, and with the end of what began without an order.
    done = performance.cause
    first = done is not None and min(done.steps) in _statuses(order)
    if what is Progress.ADDED and done is not None and done.state is not MPPSState.IN_PROGRESS:
        first = False
    report = about_order(telling.unit, order, facts, concerned, performance, telling.at.tzinfo)
    return telling.write(writing, replace(report, first=first), order, what.value)


def _linked(performed: PerformedStep | None, order: Order) -> PerformedStep | None:
    """The performed step where it is (still) linked to the order."""
    if performed is None or performed.quarantined or _statuses(order).keys().isdisjoint(performed.steps):
        return None
    return performed


def _reason(performed: PerformedStep | None) -> str:
    """Why a modality broke off, as an HL7 CE."""
    if performed is None or performed.state is not MPPSState.DISCONTINUED:
        return ""
    items = performed.attributes.get(DISCONTINUATION_REASON, {}).get("Value") or [None]
    return composed(code(items[0], None, Setting()))


# ---- received messages, passed on ----


def pass_on_message(
    unit: Unit, audience: Audience, listener: str, message: Message, raw: bytes, outcome: Outcome, at: datetime,
    zone: tzinfo = UTC,
) -> None:  # fmt: skip
    """Pass an accepted message on to those who get its kind: as it came, or written anew from what is held now."""
    for target in audience.passed_on:
        if not _gets(target, listener, message):
            continue
        cause = f"{listener} {message.control_id}"
        telling = _Telling(unit, target.destination, at.astimezone(zone), cause, kept=((_PASSED_ON, cause),))
        if target.writing is None:
            telling.forward(message.control_id, raw, outcome)
        else:
            _pass_on_mapped(telling, target.writing, message, outcome)


def _gets(target: PassOnTarget, listener: str, message: Message) -> bool:
    code = message.message_code
    named = not target.types or code in target.types or f"{code}^{message.trigger_event}" in target.types
    return named and (not target.listeners or listener in target.listeners)


def _pass_on_mapped(
    telling: "_Telling", writing: Writing, message: Message, outcome: Outcome, studies: Collection[str] = ()
) -> None:
    """Of orders only the procedures of these studies, where some are named."""
    unit = telling.unit
    facts = {
        "At": stamp(telling.at),
        "ReceivedType": f"{message.message_code}^{message.trigger_event}",
        "ReceivedControlID": message.control_id,
    }
    if writing.mapping.about == "patient":
        people = (unit.patient(patient_id) for patient_id in outcome.patients)
        for person in {person.id: person for person in people if person is not None}.values():
            report = with_components(about_patient(unit, person, facts, message), message)
            telling.write(writing, report, None, str(person.id), person.id)
        return
    for order_id in outcome.orders:
        order = unit.order(order_id)
        if order is None:
            continue
        status = status_of(_statuses(order).values())
        more = {
            "OrderControl": _control_said(message, order) or "XO",
            "OrderStatus": status,
            "ResultStatus": RESULT_STATUS.get(status, ""),
        }
        report = with_components(about_order(unit, order, facts | more, _steps_of(order, studies)), message)
        telling.write(writing, report, order, f"order {order_id}")


def _control_said(message: Message, order: Order) -> str:
    """ORC-1 as the message says it of this order; a message with one order need not repeat its numbers."""
    orders = message.all("ORC")
    ours = [known.value for known in (order.placer, order.filler) if known]
    for orc in orders:
        if len(orders) == 1 or orc.text(2) in ours or orc.text(3) in ours:
            said = orc.text(1)
            return "" if said == NULL else said
    return ""


# ---- what could not be written, again ----


class TellingUnit(Unit, OutboxUnit, Protocol):
    """A transaction that takes something out of the outbox."""

    def drop_delivery(self, delivery_id: int, reason: str = ...) -> bool: ...


def tell_again(unit: TellingUnit, audience: Audience, delivery_id: int, at: datetime, zone: tzinfo = UTC) -> bool:
    """A person has a message sent that its mapping could not write: it is written now, of what is held now.

    It goes behind what waits, under a control ID of its own, and what was parked leaves the outbox. False where that
    is not possible; what is parked then says why.
    """
    held = unit.delivery(delivery_id)
    stored = unit.message(held.archive_id) if held is not None else None
    if held is None or can_be_sent(held) or stored is None:
        return False

    kept = _Kept.of(stored.record.keys)
    telling = _Telling(
        unit, held.destination, at.astimezone(zone), f"again {held.id}", kept.performed, parks=False
    )  # fmt: skip

    def written() -> None:
        unit.drop_delivery(held.id, "written anew")
        _tell_kept(telling, audience, kept)

    try:
        unit.attempt(written)
    except _NotWritten as not_written:
        unit.save_delivery(replace(held, reason=str(not_written)), b"")
        return False
    return True


class _NotWritten(Exception):  # noqa: N818  (reads as what happened)
    """It says why not."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the archive keeps of a message that could not be written, as far as it is needed to write it."""

    told: str
    received: str
    performed: _Keys
    orders: tuple[int, ...]
    patients: tuple[int, ...]
    studies: frozenset[str]

    @classmethod
    def of(cls, keys: _Keys) -> Self:
        def values(kind: str) -> tuple[str, ...]:
            return tuple(value for of, value in keys if of == kind)

        return cls(
            "".join(values(_TOLD)), "".join(values(_PASSED_ON)), tuple(key for key in keys if key[0] == PERFORMED_KEY),
            tuple(map(int, values(ORDER_LINK))), tuple(map(int, values(PATIENT_LINK))), frozenset(values("study")),
        )  # fmt: skip


def _tell_kept(telling: "_Telling", audience: Audience, kept: _Kept) -> None:
    """Raises _NotWritten."""
    name = telling.destination
    if kept.told:
        target = next((each for each in audience.status if each.destination == name), None)
        if target is None:
            raise _NotWritten("the destination is not told status any more")
        _tell_standing(telling, target, kept)
    elif kept.received:
        writings = [each.writing for each in audience.passed_on if each.destination == name and each.writing]
        if not writings:
            raise _NotWritten("the destination does not get messages that are written anew any more")
        message = _received(telling.unit, kept.received)
        for writing in writings:
            _pass_on_mapped(
                telling, writing, message, Outcome(orders=kept.orders, patients=kept.patients), kept.studies
            )
    else:
        raise _NotWritten("it was not kept what was to be told")


def _tell_standing(telling: "_Telling", target: StatusTarget, kept: _Kept) -> None:
    """Tell how an order stands: what was told of it meanwhile must not be taken back. Raises _NotWritten."""
    order = telling.unit.order(kept.orders[0]) if kept.orders else None
    if order is None:
        raise _NotWritten("the order is not held any more")
    what = standing(_statuses(order).values())
    if what is None or what not in target.tells:
        raise _NotWritten("the destination is not told how the order stands now")
    words = target.tells[what]
    if kept.told == Progress.ADDED and order.placer is None:
        words = target.tells.get(Progress.ADDED, words)[0], words[1]  # it is not known there yet
    uid = kept.performed[0][1] if kept.performed else ""
    performed = telling.unit.performed_step(uid) if uid else None
    _tell(
        telling, target.writing, order, what, words, _steps_of(order, kept.studies),
        performance_of(telling.unit, order, performed), _reason(_linked(performed, order)),
    )  # fmt: skip


def _received(unit: Unit, said: str) -> Message:
    """The newest message of a listener with a control ID. Raises _NotWritten."""
    listener, _, control_id = said.partition(" ")
    found = unit.find_messages(MessageSearch(listener=listener, control_id=control_id, direction="in"), 1)
    if not found:
        raise _NotWritten("the message that was received is not held any more")
    try:
        return parse(found[0].record.raw, _ANY_BYTE)
    except Refused as refused:
        raise _NotWritten(str(refused)) from refused


def _steps_of(order: Order, studies: Collection[str]) -> Collection[int]:
    procedures = (each for each in order.procedures if each.study_instance_uid in studies)
    return {step.id for procedure in procedures for step in procedure.steps if step.id is not None}


# ---- the outbox ----

PERFORMED_KEY = "performed"
"""Kind of archive key: the SOP Instance UID of the performed step that made the status."""

_TOLD, _PASSED_ON = "told", "passed on"
"""Kinds of archive keys of what could not be written: what was to be told (a Progress), and of a message passed on its
listener and control ID."""

_ANY_BYTE = "iso8859-1"  # for what its listener read with a set of its own; of names nothing is taken from it


@dataclass(frozen=True, slots=True)
class _Telling:
    """Messages to one destination within one transaction. `at` is on the department's wall clock.

    `about` are archive keys of each of them, `kept` of those that cannot be written.
    """

    unit: Unit = field(repr=False)
    destination: str
    at: datetime
    cause: str
    about: _Keys = ()
    kept: _Keys = ()
    parks: bool = True
    """What cannot be written; else it raises _NotWritten."""

    def write(
        self, writing: Writing, report: Report, order: Order | None, what: str, patient_id: int | None = None
    ) -> list[str]:
        """Write the report, as one message or as one for each procedure, and put it into the outbox; notes."""
        lane = order.patient_id if order is not None else patient_id
        notes: list[str] = []
        for number, part in enumerate(_parts(report, writing.mapping.about), 1):
            keys = (*_keys(self.unit, order, lane, part.items), *self.about)
            control_id = self._control_id(what, number, lane)
            try:
                payload = writing.message(part, control_id, self.at)
            except Refused as refused:
                reason = "\n".join(map(str, refused.refusals))
                if not self.parks:
                    raise _NotWritten(reason) from refused
                message_id = self._park(control_id, lane, reason, (*keys, *self.kept), writing.mapping.name)
                notes.append(f"{self.destination} is not told: {refused}")
            else:
                mapping = writing.mapping.name
                message_id = enqueue(self.unit, self.destination, lane, control_id, payload, self.at, keys, mapping)
            read = kept(part, replace(writing.header, control_id=control_id, at=self.at))
            if read is not None:
                self.unit.keep_report(message_id, read)
        return notes

    def forward(self, control_id: str, raw: bytes, outcome: Outcome) -> None:
        """The bytes as they came, in the lane of the patient whom they are about."""
        person = self.unit.patient(outcome.patients[0]) if outcome.patients else None
        first = self.unit.order(outcome.orders[0]) if outcome.orders else None
        lane = person.id if person is not None else first.patient_id if first is not None else None
        keys: dict[tuple[str, str], None] = {}
        for order_id in outcome.orders:
            keys |= dict.fromkeys(_keys(self.unit, self.unit.order(order_id), None))
        for patient_id in outcome.patients:
            keys |= dict.fromkeys(_keys(self.unit, None, patient_id))
        enqueue(self.unit, self.destination, lane, control_id, raw, self.at, tuple(keys))

    def _control_id(self, what: str, number: int, lane: int | None) -> str:
        """MSH-10, 20 characters (the limit of v2.3.1): of all that is told at a time, one for each message.

        It is stored with the message, so a repeat has the same.
        """
        seed = f"{self.destination}\n{self.at.isoformat()}\n{self.cause}\n{self.unit.changes}\n{what}\n{number}\n{lane}"
        return hashlib.blake2b(seed.encode(), digest_size=10).hexdigest().upper()

    def _park(self, control_id: str, lane: int | None, reason: str, keys: _Keys, mapping: str) -> int:
        """What cannot be written has its line in archive and outbox, where people see it and why."""
        message_id = self.unit.add_message(
            MessageRecord(
                received_at=self.at, listener=self.destination, peer="", sender="", control_id=control_id,
                message_type="", digest=hashlib.sha256(b"").digest(), raw=b"",
                disposition=OutboxState.PARKED.value, reasons=reason, mapping=mapping, keys=keys, direction="out",
            )
        )  # fmt: skip
        where = "" if lane is None else str(lane)
        self.unit.add_delivery(
            NewDelivery(self.destination, where, control_id, b"", message_id, reason=reason or "not written"), self.at
        )
        return message_id


def _parts(report: Report, about: str) -> Iterable[Report]:
    """The reports of which each makes one message."""
    if about != "procedure":
        return [report]
    facts = report.facts
    return [
        replace(
            report,
            items=(item,),
            facts={**facts, **{name: facts.get(of_procedure(name, number), "") for name in OF_PROCEDURE}},
            first=report.first and number == 1,
        )
        for number, item in enumerate(report.items, 1)
    ]


def _keys(unit: Unit, order: Order | None, patient_id: int | None, items: Sequence[Attributes] | None = None) -> _Keys:
    """What the archive finds a message of ours by. `items` are the procedures that it tells of, if not all."""
    keys: dict[tuple[str, str], None] = {}
    if order is not None:
        told = None if items is None else {text(item, "StudyInstanceUID") for item in items}
        procedures = [each for each in order.procedures if told is None or each.study_instance_uid in told]
        found: Sequence[tuple[str, object]] = [("placer", order.placer), ("filler", order.filler)]
        found = [*found, *(("accession", procedure.accession) for procedure in procedures)]
        keys |= {(kind, number.value): None for kind, number in found if number}  # type: ignore[attr-defined]
        keys |= {("study", each.study_instance_uid): None for each in procedures if each.study_instance_uid}
        if order.id is not None:
            keys[ORDER_LINK, str(order.id)] = None
    whose = patient_id if patient_id is not None else order.patient_id if order is not None else None
    person = unit.patient(whose) if whose is not None else None
    if person is not None:
        keys |= {("patient", identifier.value): None for identifier in person.identifiers}
        keys[PATIENT_LINK, str(person.id)] = None
    return tuple(keys)
