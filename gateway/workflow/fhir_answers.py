"""What Tasks that ask for something are answered: scheduled, kept until something is there, or not to be done so.

A Task in one of `fhir_status.ANSWERED` waits for a word of whoever is asked. That it is scheduled is told of the order
as everything else is; what became no order is told here, of the Task alone. Whoever sent it to our own server and was
refused has read why, so only servers that Tasks were fetched from are told that.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from gateway.domain.order import Order
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.resources import Resource, ResourceKey
from gateway.wire import fhir_json
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_status import ANSWERED, answer, merged
from gateway.wire.fhir_transaction import draft
from gateway.workflow.audience import Audience, FHIRTarget
from gateway.workflow.fhir_offering import News, control_id_of, name_of, tell_by_fhir
from gateway.workflow.fhir_server import tell_in
from gateway.workflow.outbox import enqueue_fhir
from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK, Unit

_KEPT, _DATA_ISSUE = "waits", "request-data-issue"
_PASSES = frozenset({RefusalKind.TRANSIENT, RefusalKind.INTERNAL})
"""Refusals that are no fault of what was asked."""


def scheduled(unit: Unit, audience: Audience, order: Order, cause: str, at: datetime) -> None:
    """Tell of an order that stands now, where one of its Tasks waits for that. `at` is the department's wall clock."""
    if not audience.by_fhir or order.id is None:
        return
    tasks = (part.key for part in unit.order_parts(order.id) if part.key.type == "Task")
    if any(_waits(unit, key) for key in tasks):
        keys = ((ORDER_LINK, str(order.id)), (PATIENT_LINK, str(order.patient_id)))
        tell_by_fhir(unit, audience, order, News(None, cause=cause, keys=keys), at)


def kept(
    unit: Unit, audience: Audience, keys: Iterable[ResourceKey], release: Release, reasons: Sequence[str], at: datetime
) -> None:  # fmt: skip
    """Tell Tasks of which nothing is scheduled yet that they are kept, and what they wait for."""
    for key in keys:
        if key.type != "Task" or not _waits(unit, key):
            continue
        word = answer(release, "received", reasons, _KEPT)
        if audience.offered is not None and key.source == release.base:
            held = unit.resource(key)
            new = merged(held.content, word) if held is not None else None
            if held is not None and new is not None:
                tell_in(unit, held, new, release, at)
        _tell(unit, audience, key, word, at)


def rejected(
    unit: Unit, audience: Audience, source: str, release: Release, tasks: Iterable[Resource],
    refusals: Sequence[Refusal], at: datetime,
) -> None:  # fmt: skip
    """Tell the server that these Tasks were fetched from why they cannot be scheduled as they are."""
    if _PASSES & {each.kind for each in refusals}:
        return
    for task in tasks:
        if task.get("status") in ANSWERED and task.get("id"):
            word = answer(release, "rejected", [str(each) for each in refusals], _DATA_ISSUE)
            _tell(unit, audience, ResourceKey(source, "Task", str(task["id"])), word, at)


def asking_for(tasks: Iterable[Resource], reference: str) -> list[Resource]:
    """Those Tasks that are this resource (`Task/1`), or are about it."""
    return [
        task
        for task in tasks
        if reference == f"Task/{task.get('id')}"
        or reference in {str(each.get("reference", "")) for each in (task.get("focus") or {}, *task.get("basedOn", ()))}
    ]


def _waits(unit: Unit, key: ResourceKey) -> bool:
    held = unit.resource(key)
    return held is not None and not held.deleted and held.content.get("status") in ANSWERED


def _tell(unit: Unit, audience: Audience, key: ResourceKey, word: Resource, at: datetime) -> None:
    for target in audience.fhir:
        if target.feed == key.source and "Task" in target.resources:
            _tell_one(unit, target, key, word, at)


def _tell_one(unit: Unit, target: FHIRTarget, key: ResourceKey, word: Resource, at: datetime) -> None:
    url = key.reference
    control_id = control_id_of(f"{target.destination}\n{url}\n{word['status']}\n{at.isoformat()}\n{unit.changes}")
    bundle = draft(control_id, [(url, {**word, "id": name_of("Task", url)})], ())
    keys = (("resource", url),)
    enqueue_fhir(unit, target.destination, None, control_id, fhir_json.write(bundle), "transaction", at, keys)
