"""What is known of one FHIR resource, or of a number: what is held, how it came, what it became, what was sent of it.

It answers "why is this patient not on my list?" for the engineer of the other system. Reads and changes nothing; what
it tells holds patient data, and is for people with the right to see it. What a device is shown is `why`'s.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gateway.domain.attributes import person_name_text, text, values
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.refusal import Refusal
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, OrderPart, ResourceKey
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem, missing_for_listing, start_of
from gateway.wire.fhir_index import key_of
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_feed import OUR_SERVER, FHIRFeed
from gateway.workflow.fhir_kept import Kept, restored
from gateway.workflow.fhir_marks import Mark
from gateway.workflow.fhir_meaning import Meant, meaning_of
from gateway.workflow.fhir_orders import OrderReader, concerned, speech_of, views
from gateway.workflow.fhir_topics import key_of as subscription_of
from gateway.workflow.outbox import Backlog, OutboxState
from gateway.workflow.ports import (
    Identities,
    ItemKey,
    MessageSearch,
    Records,
    StepRef,
    StoredMessage,
)

REQUESTS_SHOWN = 8
"""Requests told of, the newest first."""
SENT_SHOWN = 8
OTHERS_SHOWN = 10
"""Further resources that bear a number."""
RECENT_MAX = 300
"""Of how many of a feed's newest requests it is asked whether they brought a resource: those of orders, patients and
numbers are found by their keys, so this is for what belongs to no order yet."""
_EACH_MAX = 30
_ORDERS_MAX = 20

_ASKING = ("ServiceRequest", "Task", "Appointment")
"""What an order is made of: of anything else nobody is on a list."""
_NUMBERED = ("ServiceRequest", "Patient", "Task", "Appointment")
"""What is looked for by a number, first what says most."""
_NUMBERS = ("identifier", "requisition", "group-identifier")
_NOT_DONE = frozenset({"refused", "unreadable"})
_WAITS = frozenset({"held", "early"})


class Looking(Records, Identities, OrderReader, Protocol):
    """Everything that is read for it."""

    def kept_report(self, message_id: int) -> bytes | None:
        """What was kept beside an archived request."""

    def queues(self) -> Sequence[Backlog]:
        """How it stands with every destination."""

    def steps(self, step_ids: Iterable[int]) -> Sequence[StepRef]:
        """Those scheduled steps as they are now."""


@dataclass(frozen=True, slots=True)
class Came:
    """A request or message of the archive. `brought` says that the resource was in it; else it is of the same order."""

    number: int
    at: datetime
    listener: str
    sender: str
    peer: str
    kind: str
    outcome: str
    reasons: tuple[str, ...] = field(repr=False)
    brought: bool = True


@dataclass(frozen=True, slots=True)
class StepSeen:
    """One step of an order that it concerns. `start` is the department's wall clock."""

    order: int
    placer: str
    filler: str
    accession: str
    step: str
    status: SPSStatus
    stations: tuple[str, ...]
    start: str
    description: str = field(repr=False)
    lacks: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """What people know the order by."""
        return self.placer or self.filler or self.accession


@dataclass(frozen=True, slots=True)
class Sent:
    """Something that was told of it: where it is in the outbox, or what became of it."""

    number: int
    at: datetime
    destination: str
    kind: str
    state: str
    reason: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Told:
    """An element in which the gateway's word stands, and what the resource's sender says of it (None: nothing)."""

    element: str
    ours: Any = field(repr=False)
    theirs: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Look:
    """All that is known. `sentence` says why it is or is not on a worklist, `advice` what to do."""

    sentence: str = field(repr=False)
    advice: str = field(repr=False)
    key: ResourceKey | None
    held: HeldResource | None
    told: tuple[Told, ...]
    requests: tuple[Came, ...]
    patients: tuple[str, ...] = field(repr=False)
    steps: tuple[StepSeen, ...]
    waits_for: tuple[str, ...]
    notes: tuple[str, ...] = field(repr=False)
    sent: tuple[Sent, ...]
    others: tuple[ResourceKey, ...] = ()


def look(reader: Looking, feeds: Mapping[str, FHIRFeed], key: ResourceKey) -> Look | None:
    """What is known of a resource; None where nothing is, and no archived request names it."""
    found = _Look(reader, feeds, key, _orders_of(reader, key))
    return found.look() if found.held is not None or found.requests or found.pending else None


def look_by_number(
    reader: Looking, feeds: Mapping[str, FHIRFeed], sources: Iterable[str], number: str
) -> Look | None:  # fmt: skip
    """The same of an order, accession or patient number: of the resource that says most of it, of whatever source."""
    orders = _orders_numbered(reader, number)
    keys = dict.fromkeys(key for source in sources for key in _bearing(reader, source, number))
    keys |= dict.fromkeys(part.key for order in orders for part in reader.order_parts(order))
    ranked = sorted(keys, key=lambda key: _rank(reader, key))
    first = ranked[0] if ranked else None
    every = dict.fromkeys((*orders, *(_orders_of(reader, first) if first is not None else ())))
    found = _Look(reader, feeds, first, tuple(every), number, tuple(ranked[1 : OTHERS_SHOWN + 1]))
    return found.look() if first is not None or every or found.requests else None


def _rank(reader: Looking, key: ResourceKey) -> tuple[bool, int]:
    held = reader.resource(key)
    gone = held is None or held.deleted
    return gone, _NUMBERED.index(key.type) if key.type in _NUMBERED else len(_NUMBERED)


def _bearing(reader: Looking, source: str, number: str) -> Iterator[ResourceKey]:
    test = Comparison(How.VALUE, key_of(number))
    for type_ in _NUMBERED:
        for name in _NUMBERS:
            for held in reader.find_resources(source, type_, (Criterion(name, (test,)),), OTHERS_SHOWN):
                yield held.key


def _orders_numbered(reader: Looking, number: str) -> tuple[int, ...]:
    for kind in (ItemKey.ORDER, ItemKey.ACCESSION, ItemKey.STEP, ItemKey.PATIENT):
        if items := reader.items_by(kind, number):
            return tuple(dict.fromkeys(ref.order_id for ref in reader.steps([item.step_id for item in items])))
    return ()


def _orders_of(reader: Looking, key: ResourceKey) -> tuple[int, ...]:
    """The orders that it speaks of; of a patient or whoever else the orders that name it."""
    found = [part.order_id for part in reader.parts_of(key)]
    if not found and key.type not in _ASKING:
        asking = reader.referring(key, _ASKING, _ORDERS_MAX)
        found = [part.order_id for each in asking for part in reader.parts_of(each.key)]
    return tuple(dict.fromkeys(found))


class _Look:
    """One look."""

    def __init__(
        self, reader: Looking, feeds: Mapping[str, FHIRFeed], key: ResourceKey | None, orders: Sequence[int],
        number: str = "", others: tuple[ResourceKey, ...] = (),
    ) -> None:  # fmt: skip
        self._reader, self.key, self._number, self._others = reader, key, number, others
        self._feed = _feed_of(feeds, key.source) if key is not None else None
        self.held = reader.resource(key) if key is not None else None
        self._orders = [order for each in orders[:_ORDERS_MAX] if (order := reader.order(each)) is not None]
        self._steps, self._own = self._seen()
        self.requests = tuple(self._came())
        self._meant, self._waits, self._hints = self._meaning()

    def look(self) -> Look:
        """All of it, with the sentence that it comes to."""
        sentence, advice = self._verdict()
        notes = dict.fromkeys((
            *self._hints,
            *(note for each in self._meant for note in each.result.notes),
            *(str(each) for each in self._refusals()),
            *self._said_then(),
        ))  # fmt: skip
        return Look(
            sentence, advice, self.key, self.held, tuple(self._told()), self.requests[:REQUESTS_SHOWN],
            tuple(self._patients()), self._steps, self._waits, tuple(notes), tuple(self._sent()), self._others,
        )  # fmt: skip

    def _said_then(self) -> Iterator[str]:
        """What was remarked when it came the last time, and what of it was refused since."""
        done = next((each for each in self.requests if each.outcome not in _NOT_DONE and each.brought), None)
        for each in self.requests:
            if each.outcome in _NOT_DONE and (done is None or each.number > done.number):
                yield f"{_request(each)} was {each.outcome}, so its sender may mean something newer than what is held"
        yield from done.reasons if done is not None else ()

    # -- what is held

    def _told(self) -> Iterator[Told]:
        if self.held is not None:
            for element, theirs in sorted(self.held.overruled.items()):
                yield Told(element, self.held.content.get(element), theirs)

    def _patients(self) -> Iterator[str]:
        for number in dict.fromkeys(order.patient_id for order in self._orders):
            patient = self._reader.patient(number)
            if patient is not None:
                names = [person_name_text(each) for each in values(patient.attributes, "PatientName")[:1]]
                yield " ".join((*names, ", ".join(each.value for each in patient.identifiers)))

    def _seen(self) -> tuple[tuple[StepSeen, ...], tuple[StepSeen, ...]]:
        """The steps of the orders, and those of them that the resource speaks of: of a Task its own, else all."""
        found = {
            step.id: (order, procedure, step)
            for order in self._orders for procedure in order.procedures for step in procedure.steps
            if step.id is not None
        }  # fmt: skip
        parts = self._reader.parts_of(self.key) if self.key is not None else ()
        steps, own = [], []
        for item in self._reader.items(found):
            order, procedure, step = found[item.step_id]
            steps.append(_step_seen(item, order))
            if any(_is_part(part, order, procedure, step) for part in parts):
                own.append(steps[-1])
        return tuple(steps), tuple(own or steps)

    # -- how it came

    def _came(self) -> Iterator[Came]:
        found: dict[int, tuple[StoredMessage, bool]] = {}
        of_order = [
            stored for order in self._orders
            for stored in self._reader.find_messages(MessageSearch(order=order.id, direction="in"), _EACH_MAX)
        ]  # fmt: skip
        by_number = self._by_number()
        for stored in (*by_number, *of_order, *self._recent()):
            if stored.id not in found:
                found[stored.id] = stored, self._brought(stored)
        keep = {each.id for each in of_order} | ({each.id for each in by_number} if self._number else set())
        for number in sorted(found, reverse=True):
            stored, brought = found[number]
            if brought or number in keep:
                record = stored.record
                yield Came(
                    number, record.received_at, record.listener, record.sender, record.peer, record.message_type,
                    record.disposition, tuple(record.reasons.splitlines()), brought,
                )  # fmt: skip

    def _by_number(self) -> Sequence[StoredMessage]:
        """What names the number that was asked for, or one that the resource itself bears."""
        numbers = {self._number} - {""}
        for each in (self.held.content.get("identifier") or ()) if self.held is not None else ():
            if isinstance(each, dict) and isinstance(each.get("value"), str):
                numbers.add(each["value"])
        return [
            stored for number in sorted(numbers)
            for stored in self._reader.find_messages(MessageSearch(number, direction="in"), _EACH_MAX)
        ]  # fmt: skip

    def _recent(self) -> Sequence[StoredMessage]:
        if self.key is None or self._feed is None:
            return ()
        listener = self._feed.name
        newest = self._reader.find_messages(MessageSearch(listener=listener, direction="in"), RECENT_MAX)
        troubled = self._reader.troubled_messages(RECENT_MAX)
        return [*newest, *(each for each in troubled if each.record.listener == listener)]

    def _brought(self, stored: StoredMessage) -> bool:
        """Whether the resource was in it: by what was kept beside it, else by its text and its answer."""
        if self.key is None or self._feed is None or stored.record.listener != self._feed.name:
            return False
        data = self._reader.kept_report(stored.id)
        beside = restored(data) if data is not None else Kept()
        if beside.request is not None:
            return beside.request.source == self.key.source and self.key.reference in {
                f"{each.type}/{each.id or (each.resource or {}).get('id', '')}" for each in beside.request.interactions
            }
        if beside.speech is not None:
            if self._feed.source(beside.speech.release) != self.key.source:
                return False
            if self.key.reference in beside.speech.places:
                return True
        return _names(stored.record.raw, self.key) or _names(stored.record.answer, self.key)

    @property
    def pending(self) -> bool:
        """Whether another server told of it, and it is still to be fetched."""
        if self.key is None or self._feed is None or self._feed.name == OUR_SERVER:
            return False
        return self.key.reference in Mark.of(self._reader.feed_mark(self._feed.name)).pending

    # -- what it means by today's rules

    def _meaning(self) -> tuple[Sequence[Meant], tuple[str, ...], tuple[str, ...]]:
        """What its subjects mean, what they wait for, and what else is to be said of it."""
        if self.held is None or self.held.deleted or self.key is None or self._feed is None:
            return (), (), ()
        release = _release_of(self.held)
        bases = self._feed.bases(release)
        now, before = views(self._reader, [self.key], {}, bases)
        found = concerned(self._reader, [self.key], now, before)
        waits: dict[str, None] = {}
        if self.key.type in _ASKING:
            above = now.above(self.key, self.held.as_sent)
            waits |= dict.fromkeys(each.reference for each in above if now.resource(each) is None)
        meant = []
        if self.key.type in _ASKING or self.key.type in ("Patient", "Encounter"):
            asked = (each for each in found.in_order() if each not in found.beside)
            subjects = [each for each in asked if self.key.type in _ASKING or each == self.key]
            graph = speech_of(release, {}, subjects, now, before, self._feed.server).graph()
            meant = [meaning_of(graph, each.reference, release, self._feed) for each in subjects]
            waits |= dict.fromkeys(
                waited for each in meant if each.document is not None for waited in each.document.waits_for
            )
        return meant, tuple(waits), tuple(found.notes.values())

    def _refusals(self) -> Sequence[Refusal]:
        return [refusal for each in self._meant for refusal in each.result.refusals]

    # -- what was sent

    def _sent(self) -> Iterator[Sent]:
        searches = [MessageSearch(order=order.id, direction="out") for order in self._orders]
        if self.key is not None:
            searches.append(MessageSearch(self.key.reference, "resource", direction="out"))
        found = {stored.id: stored for search in searches for stored in self._reader.find_messages(search, _EACH_MAX)}
        backlogs = {each.destination: each for each in self._reader.queues()}
        told = (found[number] for number in sorted(found, reverse=True))
        for stored in list(filter(self._of_source, told))[:SENT_SHOWN]:
            record = stored.record
            reason = next(iter(record.reasons.splitlines()), "")
            backlog = backlogs.get(record.listener)
            if record.disposition == OutboxState.WAITING and backlog is not None:
                reason = "a person keeps this queue back" if backlog.held else reason or backlog.last_error
            yield Sent(
                stored.id, record.received_at, record.listener, record.message_type, record.disposition, reason
            )  # fmt: skip

    def _of_source(self, stored: StoredMessage) -> bool:
        """Whether a notification is to a subscription of the same name space: ids of others mean something else."""
        subscription = subscription_of(stored.record.listener)
        return subscription is None or self.key is None or subscription.source == self.key.source

    # -- the sentence

    def _verdict(self) -> tuple[str, str]:
        name = self.key.reference if self.key is not None else f"what bears the number {self._number}"
        listed = [step for step in self._own if step.status in LISTED]
        if self.held is not None and self.held.deleted and not listed:
            return f"Not on a worklist: {name} was deleted.", "send it again, or order anew, if it is still to be done."
        if listed:
            return self._shown(listed)
        if self._steps:
            return self._over()
        if self.held is None:
            return self._not_held(name)
        return self._not_ordered(name)

    def _shown(self, listed: Sequence[StepSeen]) -> tuple[str, str]:
        first = min(listed, key=lambda step: step.start)
        more = f", and {len(listed) - 1} more" if len(listed) > 1 else ""
        stations = ", ".join(first.stations) or "no station"
        told = f"On the worklist of {stations}: step {first.step}, {first.start}, {first.status}{more}."
        if self.held is not None and self.held.deleted:
            told += " The resource itself was deleted."
        if first.lacks:
            told += f" It lacks {', '.join(first.lacks)}: some devices hide such items."
        by = f"--order {first.placer or first.filler}" if first.placer or first.filler else f"--step {first.step}"
        return told, f"where a device does not show it: gateway worklist why --as AE_TITLE {by}"

    def _over(self) -> tuple[str, str]:
        statuses = tuple(dict.fromkeys(step.status for step in self._own))
        said = " and ".join(f"{_STATUS_WORDS[status][0]} ({status})" for status in statuses)
        return f"Not on a worklist any more: what was scheduled of it is {said}.", _STATUS_WORDS[statuses[0]][1]

    def _not_held(self, name: str) -> tuple[str, str]:
        if self.pending and self._feed is not None:
            return (
                f"Not on a worklist: the server of {self._feed.name} told of {name}, which is still to be fetched.",
                f"see what holds it up: gateway fhir feeds, and the log of feed {self._feed.name}",
            )
        last = self.requests[0]
        said = ": ".join([f"{_request(last)} was {last.outcome}", *last.reasons[:1]])
        return (
            f"Not on a worklist: {name} is not held; {said}.",
            _mend(last) if last.outcome in _NOT_DONE | _WAITS else "send the order",
        )

    def _not_ordered(self, name: str) -> tuple[str, str]:
        if self._waits:
            waited = " and ".join(self._waits)
            return (
                f"Not on a worklist: {name} waits for {waited}, which is not held.",
                f"have its sender send {waited}; what waits acts by itself then.",
            )
        if self.key is not None and self.key.type not in _ASKING:
            return f"Not on a worklist: nothing that is held orders anything for {name}.", (
                "see whether the order came at all: gateway fhir look NUMBER, or gateway messages list"
            )
        refusals = self._refusals()
        brought = next((each for each in self.requests if each.brought and each.outcome in _WAITS), None)
        if refusals:
            advice = refusals[0].hint or "have its sender mend it"
            again = f"; then gateway messages replay {brought.number}" if brought is not None else ""
            return f"Not on a worklist: {name} cannot be scheduled: {refusals[0].text}.", f"{advice}{again}"
        if brought is not None and brought.reasons:
            return f"Not on a worklist: {_request(brought)} is {brought.outcome}: {brought.reasons[0]}.", _mend(brought)
        notes = [*self._hints, *(note for each in self._meant for note in each.result.notes)]
        if notes:
            return f"Not on a worklist: {notes[0]}.", "have its sender change that, if it is to be done here."
        if any(each.result.events for each in self._meant) and self.requests:
            return (
                f"Not on a worklist: no order is held of {name}, though by today's rules it is one.",
                f"run again what brought it: gateway messages replay {self.requests[0].number}",
            )
        return (
            f"Not on a worklist: {name} orders nothing.",
            "have its sender send an order (ServiceRequest) for imaging.",
        )


_STATUS_WORDS: Mapping[SPSStatus, tuple[str, str]] = {
    **dict.fromkeys(LISTED, ("listed", "nothing")),
    SPSStatus.COMPLETED: ("done", "nothing; order anew if it is to be done again."),
    SPSStatus.DEPARTED: ("done", "nothing; order anew if it is to be done again."),
    SPSStatus.DISCONTINUED: ("given up", "order it anew if it is still to be done."),
    SPSStatus.CANCELED: ("cancelled", "have its sender set the order to active again, or order anew."),
    SPSStatus.EXPIRED: ("too long past", "have its sender send a new start, if it is still to be done."),
    SPSStatus.HELD: ("on hold", "have its sender set the order to active; it is listed then."),
}
"""What a status means to who asks, and what to do."""


def _is_part(part: OrderPart, order: Order, procedure: Procedure, step: Step) -> bool:
    """Whether the resource of this part speaks of the step: of its order, the procedure that it names, the step."""
    return (
        part.order_id == order.id
        and part.requested_procedure_id in ("", procedure.requested_procedure_id)
        and part.sps_id in ("", step.sps_id)
    )


def _step_seen(item: WorklistItem, order: Order) -> StepSeen:
    said = start_of(item.step)
    return StepSeen(
        order.id or 0,
        order.placer.value if order.placer else "",
        order.filler.value if order.filler else "",
        text(item.attributes, "AccessionNumber"),
        text(item.step, "ScheduledProcedureStepID"),
        item.status,
        tuple(map(str, values(item.step, "ScheduledStationAETitle"))),
        f"{said[:4]}-{said[4:6]}-{said[6:8]} {said[8:10]}:{said[10:12]}" if said else "",
        text(item.step, "ScheduledProcedureStepDescription"),
        tuple(missing_for_listing(item.step)),
    )


def _feed_of(feeds: Mapping[str, FHIRFeed], source: str) -> FHIRFeed | None:
    """How this name space is read; None where it is configured no more."""
    return feeds.get(OUR_SERVER if source in {release.base for release in Release} else source)


def _release_of(held: HeldResource) -> Release:
    with suppress(ValueError):
        return Release(held.release)
    return next((each for each in Release if each.base == held.key.source), Release.R4)


def _names(said: bytes, key: ResourceKey) -> bool:
    """Whether a text has the resource in it: by its address, or by its type and id as JSON has them."""
    address = rb"(?<![\w-])" + re.escape(key.reference.encode()) + rb"(?:/_history|[\"'\s]|$)"
    own = rb'"id"\s*:\s*"' + re.escape(key.id.encode()) + rb'"'
    kind = rb'"resourceType"\s*:\s*"' + re.escape(key.type.encode()) + rb'"'
    located = re.search(rb"Location:[^\r\n]*" + address, said) is not None
    return located or (re.search(own, said) is not None and re.search(kind, said) is not None)


def _request(came: Came) -> str:
    return f"request {came.number}" if came.brought else f"message {came.number} by {came.listener}"


def _mend(came: Came) -> str:
    if came.outcome == "held":
        return (
            f"add what it lacks to mappings/procedures.csv (gateway explain --message {came.number} drafts the row); "
            "it acts by itself when the service has read the site again."
        )
    if came.outcome == "early":
        return f"have its sender send the order; what waits acts by itself then. gateway messages show {came.number}"
    return f"mend what it says, then gateway messages replay {came.number}; gateway explain --message {came.number}"
