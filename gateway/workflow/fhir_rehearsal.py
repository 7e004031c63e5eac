"""What a FHIR request would do if it were sent now: the whole intake runs, is looked at, and undone.

`rehearse` belongs in a job that is undone (`Store.rehearse`), and undoes what it did by itself as well, so that what is
held now can be told beside what would be. What it tells goes to whoever sent the request: of orders that the request
itself speaks of it tells step, station and start, as far as its sender may read them; of all others only how many they
are. Ids and numbers that would be made for it are not told: the next time they are others.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.attributes import text, values
from gateway.domain.order import Order
from gateway.domain.refusal import Refusal, Refused
from gateway.domain.worklist import LISTED, WorklistItem, start_of
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.workflow import fhir_intake
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK
from gateway.workflow.rehearsal import Rehearsing, differing, items_of, undone

ORDERS_MAX = 1_000
"""Orders whose items are looked at, of those that a change of a patient or a practitioner reaches."""

_REPEATED = "this message was answered before; it would get the same answer, and nothing would be done"
_NOTHING = "no worklist item would be made or changed"
_READS = (Verb.READ, Verb.SEARCH)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would come of a request: why it would be refused, else sentences about what it would do."""

    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class _Run:
    """What was seen before all was undone. `own` are the orders that the request's resources speak of."""

    receipt: fhir_intake.Receipt
    orders: tuple[int, ...] = ()
    own: frozenset[int] = frozenset()
    held: Mapping[int, Order] = field(default_factory=dict)
    items: Mapping[int, WorklistItem] = field(default_factory=dict)


def rehearse(unit: Rehearsing, request: FHIRRequest, feed: FHIRFeed, at: datetime) -> Rehearsal:
    """What would come of the request; of a batch, of each entry after those before it. Nothing that it does stays."""
    if request.kind is not Kind.BATCH:
        return _rehearsed(unit, request, feed, at)
    done = undone(unit, lambda: _batch(unit, request, feed, at))
    refusals = tuple(refusal for each in done for refusal in each.refusals)
    return Rehearsal(refusals, tuple(note for each in done for note in each.notes))


def _batch(unit: Rehearsing, request: FHIRRequest, feed: FHIRFeed, at: datetime) -> Sequence[Rehearsal]:
    """Of each entry; those that only read come last, as when it is sent, and all are told in their order."""
    done: dict[int, Rehearsal] = {}
    made: dict[str, str] = {}
    entries = enumerate(request.interactions)
    for place, each in sorted(entries, key=lambda numbered: numbered[1].verb in _READS):
        notes = request.notes if place == 0 else ()
        alone = replace(request, kind=Kind.SINGLE, interactions=(each,), notes=notes)
        said = _rehearsed(unit, alone, feed, at)
        done[place] = replace(said, notes=tuple(_without(note, made) for note in said.notes))
        if not said.refusals and each.verb not in _READS:  # what comes behind it finds what it does
            receipt = fhir_intake.receive(unit, alone, feed, at)
            made |= {
                result.key.reference: f"the {result.key.type} of {each.where}"
                for result in receipt.results if result.key is not None and result.key.id != each.id
            }  # fmt: skip
    return [done[place] for place in sorted(done)]


def _rehearsed(unit: Rehearsing, request: FHIRRequest, feed: FHIRFeed, at: datetime) -> Rehearsal:
    try:
        run = undone(unit, lambda: _run(unit, request, feed, at))
    except Refused as refused:
        return Rehearsal(refused.refusals)
    results = run.receipt.results
    if not results:
        return Rehearsal(notes=(_REPEATED,))
    named = dict(_named(unit, request, results))
    would = [_would(unit, asked, result, named) for asked, result in _pairs(request, results)]
    told = [_without(note, named) for result in results for note in result.notes]
    return Rehearsal(notes=tuple(dict.fromkeys((*filter(None, would), *_about_items(unit, request, run), *told))))


def _run(unit: Rehearsing, request: FHIRRequest, feed: FHIRFeed, at: datetime) -> _Run:
    """The intake, and what is there after it. Raises Refused."""
    before = unit.newest_message()
    receipt = fhir_intake.receive(unit, request, feed, at)
    archived = unit.message(unit.newest_message())
    if archived is None or archived.id == before:
        return _Run(receipt)
    keys = [(kind, int(value)) for kind, value in archived.record.keys if kind in (ORDER_LINK, PATIENT_LINK)]
    touched = dict.fromkeys(number for kind, number in keys if kind == ORDER_LINK)
    for kind, number in keys:
        if kind == PATIENT_LINK:
            touched |= dict.fromkeys(unit.belongings(number).orders)
    orders = tuple(touched)[:ORDERS_MAX]
    held = {number: order for number in orders if (order := unit.order(number)) is not None}
    return _Run(receipt, orders, _own(unit, orders, receipt.results), held, items_of(unit, orders))


def _own(unit: Rehearsing, orders: Iterable[int], results: Iterable[Result]) -> frozenset[int]:
    keys = {result.key for result in results if result.key is not None}
    return frozenset(number for number in orders if any(part.key in keys for part in unit.order_parts(number)))


def _pairs(request: FHIRRequest, results: Sequence[Result]) -> Iterator[tuple[Interaction, Result]]:
    return zip(request.interactions, results, strict=True)


# --- resources --------------------------------------------------------------------------------------------------------


def _named(unit: Rehearsing, request: FHIRRequest, results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """What to call resources that would get an id, which is another one the next time."""
    for asked, result in _pairs(request, results):
        if result.key is not None and asked.verb in (Verb.CREATE, Verb.UPDATE) and not asked.id:
            own = (asked.resource or {}).get("id") if asked.verb is Verb.UPDATE else None
            if own != result.key.id and unit.resource(result.key) is None:
                yield result.key.reference, f"the {result.key.type} of {asked.where}" if asked.where else "it"


def _without(note: str, named: Mapping[str, str]) -> str:
    """The note with names in place of ids that nobody will see again."""
    for reference, name in named.items():
        note = note.replace(reference, name)
    return note


def _would(unit: Rehearsing, asked: Interaction, result: Result, named: Mapping[str, str]) -> str:
    """What would become of one resource, in the words of `unit`'s state before; '' for what only reads."""
    key = result.key
    if key is None or asked.verb in _READS:
        return ""
    held = unit.resource(key)
    there = held is not None and not held.deleted
    if asked.verb is Verb.DELETE:
        said = f"{key.reference} would be deleted" if there else f"{key.reference} is not held: nothing to delete"
    elif key.reference in named:
        said = f"a {key.type} would be created"
    elif not there:
        said = f"{key.reference} would be created"
    elif held is not None and held.version == result.version:
        said = f"{key.reference} says the same already: nothing would change"
    else:
        said = f"{key.reference} would be updated to version {result.version}"
    return f"{asked.where}: {said}" if asked.where else said


# --- worklist items ---------------------------------------------------------------------------------------------------


def _about_items(unit: Rehearsing, request: FHIRRequest, run: _Run) -> Iterator[str]:
    """Which worklist items would be made or changed. `unit` is as it was before."""
    before = items_of(unit, run.orders)
    own = run.own | _own(unit, run.orders, run.receipt.results)
    order_of = {
        step.id: order for order in run.held.values() for procedure in order.procedures for step in procedure.steps
    }
    may_read = request.may_read is None or "ServiceRequest" in request.may_read
    others = hidden = said = 0
    for step_id, item in run.items.items():
        held, order = before.get(step_id), order_of[step_id]
        changed = list(differing(held.attributes, item.attributes)) if held is not None else []
        if held is not None and not changed and held.status is item.status:
            continue
        if order.id not in own:
            others += 1
        elif held is not None and not may_read:
            hidden += 1
        else:
            said += 1
            yield _about_item(item, held, order, changed)
    if others:
        yield f"{_items(others)} of orders that are held already would show what changes"
    if hidden:
        yield f"{_items(hidden)} of what is held already would change"
    if not (others or hidden or said):
        yield _NOTHING


def _about_item(item: WorklistItem, held: WorklistItem | None, order: Order, changed: Collection[str]) -> str:
    said = (
        ("order", _number(item, order)), ("step", _step(item, order)),
        ("station", ", ".join(values(item.step, "ScheduledStationAETitle"))), ("start", _start(item)),
    )  # fmt: skip
    named = ", ".join(f"{name} {value}" for name, value in said if value)
    unlisted = "" if item.status in LISTED else ", which no device is shown"
    if held is None:
        return f"a worklist item would be made: {named}, {item.status}{unlisted}"
    status = f"{item.status} instead of {held.status}{unlisted}" if item.status is not held.status else ""
    what = f"in {', '.join(changed)}" if changed else ""
    return f"a worklist item would change: {named}: {'; '.join(filter(None, (status, what)))}"


def _number(item: WorklistItem, order: Order) -> str:
    """The number that people know the order by; one that would be made now is another the next time."""
    number = order.placer or order.filler
    if number is not None:
        return number.value
    minted = {keyword for procedure in order.procedures for keyword in procedure.minted}
    return "" if "AccessionNumber" in minted else text(item.attributes, "AccessionNumber")


def _step(item: WorklistItem, order: Order) -> str:
    """By its number, as for orders, else by what it is called."""
    steps = (step for procedure in order.procedures for step in procedure.steps)
    minted = any(step.minted for step in steps if step.id == item.step_id)
    number = "" if minted else text(item.step, "ScheduledProcedureStepID")
    return number or text(item.step, "ScheduledProcedureStepDescription")


def _start(item: WorklistItem) -> str:
    said = start_of(item.step)
    return f"{said[:4]}-{said[4:6]}-{said[6:8]} {said[8:10]}:{said[10:12]}" if said else ""


def _items(number: int) -> str:
    return f"{number} worklist item{'s' * (number > 1)}"
