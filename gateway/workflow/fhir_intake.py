"""A FHIR request arrives: resources change, and with them the orders, patients and visits that they concern.

`receive` is one transaction, as `intake.receive` is for HL7 v2: resources, orders, archive record and answer are
written together, and the answer may leave only after that. What is refused is raised as `Refused`, which undoes
everything; the caller then archives the request with its reasons through `archive_refused`.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping import Event, Mapping, MappingResult
from gateway.domain.order import Order
from gateway.domain.order_change import is_begun
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import OrderPart, Resource, ResourceKey
from gateway.wire import fhir_bundle
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_graph import listed
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_source import FHIREntry
from gateway.wire.fhir_states import INTENTS
from gateway.wire.hl7_stamps import stamp_text
from gateway.workflow import fhir_answers, fhir_server
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.fhir_feed import OUR_SERVER, FHIRFeed
from gateway.workflow.fhir_kept import Kept, answer_of, answer_text, kept, restored
from gateway.workflow.fhir_meaning import Meant, Speech, by_step, meanings
from gateway.workflow.fhir_orders import Concerned, concerned, speech_of, views
from gateway.workflow.fhir_topics import subscribed
from gateway.workflow.intake import keys_of, run_early
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import MessageRecord, Outcome, StoredMessage, Unit

__all__ = ["OUR_SERVER", "Again", "FHIRFeed", "Receipt", "archive_refused", "receive", "refuse_unarchived", "run_again"]

_EARLY = "it speaks of an order or a step that is not held; what it says is kept, and acts if that arrives"
_HELD = "held: no procedure rule covers this order yet"
_NEVER = "a step that was never scheduled need not be cancelled or held"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request. `answer` is what its sender gets; logs take the other fields."""

    answer: Answer = field(repr=False)
    disposition: str
    control_id: str = ""
    message_type: str = ""
    kinds: tuple[str, ...] = ()
    results: tuple[Result, ...] = field(default=(), repr=False)
    """Of each interaction, where they were done now."""


@dataclass(frozen=True, slots=True)
class Again:
    """A feed as the listeners of HL7 v2 know it: what came early by it is run again when its order comes by them."""

    feed: FHIRFeed

    def again(self, unit: Unit, stored: StoredMessage, at: datetime) -> str:
        """Run it again; what became of it. Raises Refused."""
        return run_again(unit, stored, self.feed, at).disposition


def receive(
    unit: Unit, request: FHIRRequest, feed: FHIRFeed, at: datetime, replay_of: int | None = None
) -> Receipt:  # fmt: skip
    """Process one request within the transaction `unit`. Raises Refused with every problem found."""
    record = _record(request, feed, at, replay_of)
    notes = list(request.notes)
    if replay_of is None:
        repeated = _repeated(unit, request, record, notes)
        if repeated is not None:
            return repeated
    bases = tuple(dict.fromkeys((*feed.bases(request.release), *([request.base] if request.base else ()))))
    done = fhir_server.transact(unit, request, at, bases)
    if request.kind is not Kind.FETCHED:
        subscribed(
            unit, request.release, done.changed, at, feed.audience, request.sender, request.base, request.may_read
        )  # fmt: skip
    _keep_patients_of_orders(unit, request, done)
    now, before = views(unit, done.changed, done.before, bases)
    found = concerned(unit, done.changed, now, before)
    places = {
        result.key.reference: f"{asked.where}.resource" if asked.where else asked.type
        for asked, result in zip(request.interactions, done.results, strict=True)
        if result.key is not None
    }
    speech = speech_of(request.release, places, found.in_order(), now, before, feed.server, found.beside)
    record = replace(record, made_at=_made_at(request, speech, at), keys=tuple(_named(request.interactions)))
    mapping = feed.mapping(request.release)
    acting = _Acting(
        unit, feed, request.source, request.release, mapping, _circumstances(record, feed), at, found.indirect()
    )
    acting.all(meanings(speech, feed))
    if acting.refusals:
        raise Refused(*dict.fromkeys(acting.refusals))
    acting.run_early()
    results = _with_notes(_as_held(unit, done.results), found, acting, notes)
    told = [note for result in results for note in result.notes]
    _settle(unit, replay_of)
    receipt = _conclude(unit, record, fhir_bundle.answer(request, results), speech, acting, told)
    return replace(receipt, results=results)


def run_again(unit: Unit, stored: StoredMessage, feed: FHIRFeed, at: datetime) -> Receipt:
    """Run an archived request again: one that was refused as it came, of any other what it said, with today's rules.

    What waited for an order or a rule acts only if nothing newer is held of it; where some of it can act now, the rest
    waits on. Raises Refused, also where nothing of it can act yet.
    """
    record = stored.record
    said = _kept_of(unit, stored)
    if said.request is not None:
        _check(said.request)
        return receive(unit, replace(said.request, raw=record.raw), feed, at, stored.id)
    speech = said.speech
    if speech is None:
        raise Refused(_not_kept())
    waited = record.disposition in _COMES_BACK
    source = feed.source(speech.release)
    if waited:
        current = (each for each in said.waiting if _is_current(unit, source, each, speech))
        speech = replace(speech, subjects=tuple(current))
        if not speech.subjects:
            reason = "what it speaks of was changed since"
            unit.set_message_disposition(stored.id, "superseded", f"{record.reasons}\n{reason}")
            return Receipt(answer_of(record.answer), "superseded", record.control_id, record.message_type)
    acting = _Acting(
        unit, feed, source, speech.release, feed.mapping(speech.release), _circumstances(record, feed), at
    )  # fmt: skip
    acting.all(meanings(speech, feed))
    refusals = [*acting.refusals, *(each for several in acting.waiting.values() for each in several)]
    if acting.refusals or (waited and refusals and not acting.orders):
        raise Refused(*dict.fromkeys(refusals))
    acting.run_early()
    _settle(unit, stored.id)
    again = replace(record, received_at=at, replay_of=stored.id, reasons="", keys=())
    told = [note for notes in acting.notes.values() for note in notes]
    return _conclude(unit, again, answer_of(record.answer), speech, acting, told)


def _check(request: FHIRRequest) -> None:
    """Raises Refused where a resource is not as the specification says: it may have been refused for that."""
    refusals: list[Refusal] = []
    for each in request.interactions:
        if each.resource is not None:
            refusals += problems(each.resource, request.release, f"{each.where}.resource" if each.where else "")[0]
    if refusals:
        raise Refused(*refusals)


def archive_refused(
    unit: Unit,
    request: FHIRRequest,
    refusals: Sequence[Refusal],
    feed: FHIRFeed,
    at: datetime,
    replay_of: int | None = None,
) -> Receipt:
    """Keep a refused request with its reasons; one without any interaction could not even be read."""
    answer = fhir_bundle.refused(request, refusals)
    record = replace(
        _record(request, feed, at, replay_of),
        disposition="refused" if request.interactions else "unreadable",
        reasons="\n".join(map(str, refusals)),
        answer=answer_text(answer),
        keys=tuple(dict.fromkeys(_named(request.interactions))),
    )
    number = unit.add_message(record)
    if request.interactions:
        _keep(unit, number, Kept(request=request))
    return _receipt(answer, record, refusals)


def archive_refused_again(
    unit: Unit, stored: StoredMessage, refusals: Sequence[Refusal], peer: str, at: datetime
) -> Receipt:
    """Note that an archived request was run again in vain. What it said stays with the original, which may be run once
    more."""
    told = replace(
        stored.record, received_at=at, peer=peer, replay_of=stored.id, disposition="refused",
        reasons="\n".join(map(str, refusals)),
    )  # fmt: skip
    unit.add_message(told)
    return Receipt(
        answer_of(told.answer), told.disposition, told.control_id, told.message_type,
        tuple(dict.fromkeys(refusal.kind.value for refusal in refusals)),
    )  # fmt: skip


def refuse_unarchived(request: FHIRRequest, refusals: Sequence[Refusal], feed: FHIRFeed, at: datetime) -> Receipt:
    """The negative answer when not even the archive can be written (disk full, database away)."""
    record = replace(_record(request, feed, at, None), disposition="refused")
    return _receipt(fhir_bundle.refused(request, refusals), record, refusals)


# --- what it does -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Acting:
    """The subjects of one request while they act, each by itself: one that has to wait leaves the others alone."""

    unit: Unit
    feed: FHIRFeed
    source: str
    release: Release
    mapping: Mapping
    under: Circumstances
    at: datetime
    indirect: frozenset[str] = frozenset()
    """Orders that only refer to what came: what is wrong with them is no reason to refuse it."""
    refusals: list[Refusal] = field(default_factory=list)
    waiting: dict[str, tuple[Refusal, ...]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    orders: dict[int, None] = field(default_factory=dict)
    patients: dict[int, None] = field(default_factory=dict)
    created: dict[Identifier, None] = field(default_factory=dict)

    def all(self, meant: Iterable[Meant]) -> None:
        for each in meant:
            self.notes[each.subject] = list(each.result.notes)
            self.events += each.result.events
            if each.result.refusals:
                self._refused(each, each.result.refusals)
            elif each.news:
                self._act(each)

    def _act(self, meant: Meant) -> None:
        try:
            self._check_exchanged(meant)
            outcome = self._applied(meant.news)
        except Refused as refused:
            self._refused(meant, refused.refusals)
            return
        self.notes[meant.subject] += outcome.notes
        self.orders |= dict.fromkeys(outcome.orders)
        self.patients |= dict.fromkeys(outcome.patients)
        self.created |= dict.fromkeys(outcome.created)
        self._link(meant, outcome)
        for number in outcome.orders:
            order = self.unit.order(number)
            if order is not None:
                at = self.at.astimezone(self.under.zone)
                fhir_answers.scheduled(self.unit, self.feed.audience, order, self.under.cause, at)

    def _check_exchanged(self, meant: Meant) -> None:
        """Raises Refused where a number goes to another order after work on one of the two has begun: what was done
        would count as done for the other."""
        orders = (order for each in meant.exchanged for order in self.unit.orders(each.placer, each.filler))
        if any(map(is_begun, orders)):
            raise Refused(Refusal(
                RefusalKind.CONFLICT, "ServiceRequest.identifier",
                "orders exchange numbers at once, and work on one of them has begun",
                "send it in steps: give the order whose number another one gets a number that is free, then the other "
                "one this number",
            ))  # fmt: skip

    def _applied(self, news: Sequence[Event]) -> Outcome:
        """What comes of the events. Raises Refused."""
        try:
            return self.unit.attempt(lambda: apply_events(self.unit, news, self.under, self.at))
        except Refused as refused:
            if all(each.kind is not RefusalKind.UNKNOWN_ORDER for each in refused.refusals):
                raise
            early = refused
        return self.unit.attempt(lambda: self._one_by_one(news, early))

    def _one_by_one(self, news: Sequence[Event], early: Refused) -> Outcome:
        """The same with each step by itself: of one that was never on the list nothing need be cancelled or held, and
        the others count. Raises Refused: `early` where none of the order is held."""
        outcomes: list[Outcome] = []
        refusals: list[Refusal] = []
        waiting = by_step(news)
        for _ in range(2):  # what waits for the order finds it the second time, where another step has made it
            left: list[Event] = []
            for event in waiting:
                try:
                    outcomes.append(self.unit.attempt(partial(apply_events, self.unit, [event], self.under, self.at)))
                except Refused as refused:
                    others = [each for each in refused.refusals if each.kind is not RefusalKind.UNKNOWN_ORDER]
                    refusals += others
                    left += [] if others else [event]
            waiting = left
        if refusals:
            raise Refused(*dict.fromkeys(refusals))
        if not any(each.orders for each in outcomes):
            raise early
        return Outcome(
            tuple(dict.fromkeys((*(note for each in outcomes for note in each.notes), *([_NEVER] if waiting else ())))),
            orders=tuple(dict.fromkeys(number for each in outcomes for number in each.orders)),
            patients=tuple(dict.fromkeys(number for each in outcomes for number in each.patients)),
            created=tuple(dict.fromkeys(each for outcome in outcomes for each in outcome.created)),
        )

    def _refused(self, meant: Meant, refusals: Sequence[Refusal]) -> None:
        subject = meant.subject
        kinds = {refusal.kind for refusal in refusals}
        if kinds == {RefusalKind.UNKNOWN_ORDER}:
            self.waiting[subject] = tuple(refusals)
            self.notes[subject].append(_EARLY)
        elif kinds == {RefusalKind.UNCOVERED} and self.feed.hold_uncovered:
            self.waiting[subject] = tuple(refusals)
            self.notes[subject].append(_HELD)
        elif subject in self.indirect:
            self.waiting[subject] = tuple(map(_in_fhir, refusals))
            self.notes[subject] += [f"{subject} cannot be scheduled so: {each}" for each in self.waiting[subject]]
        else:
            self.refusals += map(_in_fhir, refusals)
            return
        names = dict.fromkeys(
            part for entry in (meant.document.entries if meant.document else ()) for part in entry.parts
        )
        keys = [ResourceKey(self.source, *name.split("/", 1)) for name in names]
        at = self.at.astimezone(self.under.zone)
        fhir_answers.kept(self.unit, self.feed.audience, keys, self.release, [each.text for each in refusals], at)

    @property
    def disposition(self) -> str:
        """What became of the request as a whole."""
        kinds = {refusal.kind for refusals in self.waiting.values() for refusal in refusals}
        if kinds - {RefusalKind.UNKNOWN_ORDER}:
            return "held"
        return "early" if kinds else "accepted" if self.events else "ignored"

    def run_early(self) -> None:
        """Let those messages act that came before their order, by whatever listener."""
        if self.created:
            others = {**self.feed.others, self.feed.name: Again(self.feed)}
            notes = run_early(self.unit, self.created, others.get, self.at)
            next(iter(self.notes.values()), []).extend(notes)

    # -- which resource speaks of what

    def _link(self, meant: Meant, outcome: Outcome) -> None:
        """Note which resources speak of the orders that were touched, for whoever tells their status in FHIR."""
        entries = [each for each in (meant.document.entries if meant.document else ()) if each.parts]
        orders = [order for each in outcome.orders if (order := self.unit.order(each)) is not None]
        for order in orders if entries else ():
            parts = dict.fromkeys(part for entry in entries for part in self._parts(entry, order, len(orders) == 1))
            known = self.unit.order_parts(order.id or 0)
            others = self._of_others(known, {*meant.left, *(part for entry in entries for part in entry.parts)})
            self.unit.set_order_parts(order.id or 0, [*others, *parts])
            self._note_requests(meant.subject, known, others)

    def _note_requests(self, subject: str, known: Sequence[OrderPart], others: Sequence[OrderPart]) -> None:
        """Say which requests of this server spoke of an order before another one came to speak of it, too."""
        if not subject.startswith("ServiceRequest/") or self._among(known, subject):
            return
        said = self._content(subject)
        replaced = {each.get("reference") for each in listed(said.get("replaces")) if isinstance(each, dict)}
        if earlier := [name for name in self._requests(others) if name not in replaced]:
            self.notes[subject].append(
                f"{', '.join(earlier)} had this number already: both speak of one order, no second one was made. If "
                "that one is out of use, delete it; to revoke it would revoke the order"
            )

    def _requests(self, parts: Iterable[OrderPart]) -> Iterable[str]:
        """Those of these parts of an order that are requests of this server, at its top."""
        names = (part.key.reference for part in parts if part.key.source == self.source)
        found = (name for name in dict.fromkeys(names) if name.startswith("ServiceRequest/"))
        return [name for name in found if (said := self._content(name)) and not any(map(self._orders, _above(said)))]

    def _orders(self, reference: str | None) -> bool:
        """Whether what stands above a request may be an order, too: a plan, or a plan of care, is none."""
        if reference is None or not reference.startswith("ServiceRequest/"):
            return reference is None
        held = self._content(reference)
        return not held or INTENTS.get(str(held.get("intent")), False)

    def _among(self, parts: Iterable[OrderPart], name: str) -> bool:
        return any(part.key.source == self.source and part.key.reference == name for part in parts)

    def _content(self, name: str) -> Resource:
        """What is held of this name as its sender says it, nothing where it is deleted."""
        type_, _, id_ = name.partition("/")
        held = self.unit.resource(ResourceKey(self.source, type_, id_))
        return held.as_sent if held is not None and not held.deleted else {}

    def _of_others(self, parts: Sequence[OrderPart], own: set[str]) -> Sequence[OrderPart]:
        """What else speaks of an order of these `parts`: by other servers, and other requests of this one with the same
        number."""
        told = {
            part.key.reference: held.as_sent
            for part in parts if part.key.source == self.source and part.key.reference not in own
            and (held := self.unit.resource(part.key)) is not None and not held.deleted
        }  # fmt: skip
        above = {name: _above(said) for name, said in told.items()}
        tops = (name for name, over in above.items() if not any(map(self._orders, over)))
        roots = {name for name in tops if name.startswith("ServiceRequest/")}
        kept = {name for name, over in above.items() if name in roots or over & roots}
        return [part for part in parts if part.key.source != self.source or part.key.reference in kept]

    def _parts(self, entry: FHIREntry, order: Order, alone: bool) -> Iterable[OrderPart]:
        said = {
            keyword: self.mapping.said_key(keyword, entry)
            for keyword in (
                "RequestedProcedureID", "ScheduledProcedureStepID", "AccessionNumber",
                "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
            )
        }  # fmt: skip
        if not alone and not _is_of(order, said):
            return
        procedures = [each for each in order.procedures if each.requested_procedure_id == said["RequestedProcedureID"]]
        procedures = procedures or list(order.procedures)
        procedure = procedures[0] if len(procedures) == 1 else None
        steps = [step for each in procedures for step in each.steps]
        named = [step for step in steps if step.sps_id == said["ScheduledProcedureStepID"]] or steps
        requested = procedure.requested_procedure_id if procedure is not None else ""
        step_id = named[0].sps_id if len(named) == 1 else ""
        requests = [each for each in entry.parts if each.startswith("ServiceRequest/")]
        for name in entry.parts:
            type_, _, id_ = name.partition("/")
            key = ResourceKey(self.source, type_, id_)
            held = self.unit.resource(key)
            if held is None or held.deleted:
                continue
            if type_ != "ServiceRequest":
                yield OrderPart(order.id or 0, key, requested, step_id)
            elif len(requests) > 1 and name == requests[-1]:
                yield OrderPart(order.id or 0, key, requested)
            else:
                yield OrderPart(order.id or 0, key)


def _above(said: Resource) -> set[str | None]:
    """What a part of an order hangs on; None for what is named by its identifier."""
    return {each.get("reference") for key in ("basedOn", "focus") for each in listed(said.get(key))}


def _is_of(order: Order, said: dict[str, str]) -> bool:
    """Whether an entry is of this one of several orders that a request became."""
    numbers = {each.value for each in (order.placer, order.filler) if each is not None}
    accessions = {each.accession.value for each in order.procedures if each.accession is not None}
    own = {said["PlacerOrderNumberImagingServiceRequest"], said["FillerOrderNumberImagingServiceRequest"]} - {""}
    return bool(own & numbers) if own else said["AccessionNumber"] in accessions


def _keep_patients_of_orders(unit: Unit, request: FHIRRequest, done: fhir_server.Transacted) -> None:
    """Nobody goes for whom something is ordered. Raises Refused."""
    refusals = []
    for asked, result in zip(request.interactions, done.results, strict=True):
        key = result.key
        if key is None or key.type != "Patient" or key not in done.before:
            continue
        held = unit.resource(key)
        if held is not None and held.deleted and unit.referring(key, ("ServiceRequest", "Task", "Appointment"), 1):
            refusals.append(Refusal(
                RefusalKind.CONFLICT, asked.where or "Patient", "there are orders for this patient",
                "delete the orders first, or merge the patient into another (Patient.link replaced-by)",
            ))  # fmt: skip
    if refusals:
        raise Refused(*refusals)


_PLACES = (
    (re.compile(r"-[23](\.1)?$"), ".identifier"),
    (re.compile(r"^PID-3.*"), "Patient.identifier"),
    (re.compile(r"^MRG-1.*"), "Patient.link"),
    (re.compile(r"^PV1-19.*"), "Encounter.identifier"),
    (re.compile(r"^ORC$"), "ServiceRequest"),
    (re.compile(r"-1$"), ".status"),
)
_HINTS = (
    (re.compile(r"\((ADT\^)?A40\)"), "(Patient.link)"),
    (re.compile("^send DC to"), "set its Task to failed to"),
    (re.compile("^send YYYYMMDD$"), "send YYYY-MM-DD, best with a time of day"),
)


def _in_fhir(refusal: Refusal) -> Refusal:
    """A refusal of a use case, which counts places as HL7 v2 does, with its place as FHIRPath."""
    where = refusal.where
    for pattern, said in _PLACES:
        where = pattern.sub(said, where)
    hint = refusal.hint
    for pattern, said in _HINTS:
        hint = pattern.sub(said, hint)
    return replace(refusal, where=where, hint=hint) if (where, hint) != (refusal.where, refusal.hint) else refusal


# --- the archive ------------------------------------------------------------------------------------------------------

_COMES_BACK = frozenset({"held", "early"})
_NOT_DONE = frozenset({"refused", "unreadable"})
_DIGITS = 16


def _record(request: FHIRRequest, feed: FHIRFeed, at: datetime, replay_of: int | None) -> MessageRecord:
    digest = hashlib.sha256(request.raw).digest()
    asked = "".join(f"{each.verb} {each.type}/{each.id}?{each.query}" for each in request.interactions[:1])
    return MessageRecord(
        received_at=at,
        listener=feed.name,
        peer=request.peer,
        sender=request.sender,
        control_id=_known_by(request) or hashlib.sha256(asked.encode() + digest).hexdigest()[:_DIGITS],
        message_type=request.event,
        digest=digest,
        raw=request.raw,
        mapping=feed.mapping(request.release).version_id,
        replay_of=replay_of,
        made_at=stamp_text(at),
    )


def _known_by(request: FHIRRequest) -> str:
    """What a repeat of a message is known by: at another base it is another message, for its resources go elsewhere."""
    return f"{request.source}/{request.message_id}" if request.message_id else ""


def _made_at(request: FHIRRequest, speech: Speech, at: datetime) -> str:
    """When what is said was made: by our own clock, or by that of the server that the resources were fetched from.

    That of the newest of them all, since they are read together.
    """
    if request.kind is not Kind.FETCHED:
        return stamp_text(at)
    said = (_instant(content) for content in speech.now.values())
    newest = max((each for each in said if each is not None), default=at)
    return stamp_text(min(newest, at))


def _instant(content: Resource) -> datetime | None:
    meta = content.get("meta")
    said = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        made = datetime.fromisoformat(said) if isinstance(said, str) else None
        return made if made is None else made.astimezone(UTC) if made.tzinfo is not None else made.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the first or last day there is, by a clock ahead or behind
        return None


def _circumstances(record: MessageRecord, feed: FHIRFeed) -> Circumstances:
    stamp = Stamp(record.made_at, f"{feed.name} {record.sender}")
    return feed.circumstances(f"{feed.name} {record.control_id}", stamp, record.sender)


def _repeated(unit: Unit, request: FHIRRequest, record: MessageRecord, notes: list[str]) -> Receipt | None:
    """The answer given before to the same message, if it was positive (design D11)."""
    if not request.message_id:
        return None
    earlier = unit.earlier_messages(record.listener, record.sender, record.control_id)
    positive = [stored.record for stored in earlier if stored.record.disposition not in _NOT_DONE]
    for said in positive:
        if said.digest == record.digest:
            return Receipt(answer_of(said.answer), "repeated", record.control_id, record.message_type)
    if positive:
        notes.append("this message id was used before for another message")
    return None


def _as_held(unit: Unit, results: Sequence[Result]) -> Iterable[Result]:
    """The results with resources as they are now: a Task that is scheduled at once was answered meanwhile."""
    for each in results:
        held = unit.resource(each.key) if each.key is not None and each.resource is not None else None
        if held is None or held.deleted or held.version == each.version:
            yield each
        else:
            yield replace(each, version=held.version, updated_at=held.updated_at, resource=held.content)


def _with_notes(
    results: Iterable[Result], found: Concerned, acting: _Acting, notes: Iterable[str]
) -> tuple[Result, ...]:
    """The results with what is to be told of each: of a subject with itself, else the first that made it one."""
    results = list(results)
    told: dict[ResourceKey | None, list[str]] = {None: list(notes)}
    for subject, causes in found.subjects.items():
        told.setdefault(subject if subject in causes else next(iter(causes)), []).extend(
            acting.notes.get(subject.reference, ())
        )
    for key, note in found.notes.items():
        told.setdefault(key, []).append(note)
    keys = {result.key for result in results if result.key is not None}
    first = told.pop(None) + [note for key in told.keys() - keys for note in told[key]]
    return tuple(
        replace(result, notes=tuple(dict.fromkeys((
            *result.notes, *told.pop(result.key, ()), *(first if place == 0 else ())
        ))))
        for place, result in enumerate(results)
    )  # fmt: skip


def _settle(unit: Unit, replay_of: int | None) -> None:
    first = unit.message(replay_of) if replay_of is not None else None
    if first is not None and first.record.disposition in _COMES_BACK:
        unit.set_message_disposition(first.id, "released", first.record.reasons)


def _conclude(
    unit: Unit, record: MessageRecord, answer: Answer, speech: Speech, acting: _Acting, notes: Iterable[str]
) -> Receipt:
    reasons = dict.fromkeys((*map(str, (each for several in acting.waiting.values() for each in several)), *notes))
    said = MappingResult(tuple(acting.events))
    outcome = Outcome(orders=tuple(acting.orders), patients=tuple(acting.patients))
    record = replace(
        record,
        disposition=acting.disposition,
        reasons="\n".join(reasons),
        answer=answer_text(answer),
        keys=keys_of(said, outcome) or record.keys,
    )
    number = unit.add_message(record)
    _keep(unit, number, Kept(speech, waiting=tuple(acting.waiting)))
    return _receipt(answer, record, [each for several in acting.waiting.values() for each in several])


def _keep(unit: Unit, number: int, what: Kept) -> None:
    data = kept(what)
    if data is not None:
        unit.keep_report(number, data)


def _kept_of(unit: Unit, stored: StoredMessage) -> Kept:
    data = unit.kept_report(stored.id)
    if data is None:
        raise Refused(_not_kept())
    return restored(data)


def _not_kept() -> Refusal:
    return Refusal(
        RefusalKind.UNREADABLE, "", "what this request said is not kept: it was too large, or could not be read",
        "let its sender send it again",
    )  # fmt: skip


def _is_current(unit: Unit, source: str, subject: str, speech: Speech) -> bool:
    type_, _, id_ = subject.partition("/")
    held = unit.resource(ResourceKey(source, type_, id_))
    return held is not None and held.as_sent == speech.now.get(subject)


def _receipt(answer: Answer, record: MessageRecord, refusals: Sequence[Refusal]) -> Receipt:
    kinds = tuple(dict.fromkeys(refusal.kind.value for refusal in refusals))
    return Receipt(answer, record.disposition, record.control_id, record.message_type, kinds)


_NUMBERS = {"PLAC": "placer", "FILL": "filler", "ACSN": "accession"}  # HL7 table 0203


def _named(interactions: Iterable[Interaction]) -> Iterable[tuple[str, str]]:
    """The numbers in a request that was not taken, by which people look for it."""
    for each in interactions:
        identifiers = listed(each.resource.get("identifier")) if each.resource else ()
        for identifier in identifiers if each.type in ("Patient", "ServiceRequest") else ():
            value = identifier.get("value") if isinstance(identifier, dict) else None
            if not isinstance(value, str) or not value:
                continue
            if each.type == "Patient":
                yield "patient", value
                continue
            kind = identifier.get("type") if isinstance(identifier.get("type"), dict) else {}
            codes = [coding.get("code") for coding in listed(kind.get("coding")) if isinstance(coding, dict)]
            yield next((_NUMBERS[code] for code in codes if code in _NUMBERS), "placer"), value
