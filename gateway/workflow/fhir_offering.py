"""What FHIR says of how orders get on: offered in our own tables, and put into the outbox for other servers.

Both happen in the transaction that changes the steps. Of an order that came by FHIR the resources that it is made of
get new versions, of every order the resources of what was performed are made. What a resource says already is not
written again, so whoever said it hears nothing back.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from gateway.domain.order import Order, Procedure
from gateway.domain.performed import PerformedStep
from gateway.domain.progress import Progress
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, OrderPart, Resource, ResourceKey
from gateway.domain.worklist import SPSStatus
from gateway.wire import fhir_json
from gateway.wire.fhir_elements import DICOM_UID, logical, typed_identifier
from gateway.wire.fhir_graph import listed
from gateway.wire.fhir_index import key_of
from gateway.wire.fhir_performance import dicom_uids, made_id, made_of, provenance
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_status import TOLD, Account, began, merged, renewed, word
from gateway.wire.fhir_transaction import Overruled, draft, query_of, renamed
from gateway.workflow.audience import Audience, FHIRTarget, FHIRWriting
from gateway.workflow.fhir_server import keep, tell_in
from gateway.workflow.fhir_subjects import by_number, whose
from gateway.workflow.fhir_topics import notify
from gateway.workflow.outbox import enqueue_fhir
from gateway.workflow.ports import Unit

_BASES: Mapping[str, Release] = {release.base: release for release in Release}


@dataclass(frozen=True, slots=True)
class News:
    """What happened to an order. `what` is None where the order as a whole stands as before.

    `performed` is the performed step that did it, `listener` the feed or listener by whose message it happened ('' for
    none), `keys` are what the archive finds what is told by.
    """

    what: Progress | None
    performed: PerformedStep | None = None
    cause: str = ""
    listener: str = ""
    keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def tell_by_fhir(unit: Unit, audience: Audience, order: Order, news: News, at: datetime) -> None:
    """Offer and tell how this order stands now. `at` is on the department's wall clock; all changes are saved."""
    parts = unit.order_parts(order.id) if order.id is not None else ()
    if audience.offered is not None:
        offer(unit, audience, audience.offered, order, parts, news, at)
    for target in audience.fhir:
        if _is_told(target, order, news):
            tell(unit, target, order, parts, news, at)


def _is_told(target: FHIRTarget, order: Order, news: News) -> bool:
    if target.sites and order.site not in target.sites:
        return False
    if target.feed and target.feed == news.listener and news.performed is None:
        return False  # it said so itself
    return news.what is None or news.what in target.tells


# ---- offered here ----


def offer(
    unit: Unit, audience: Audience, writing: FHIRWriting, order: Order, parts: Sequence[OrderPart], news: News,
    at: datetime,
) -> None:  # fmt: skip
    """Write how the order stands into each of our name spaces that it is in; that of `writing` where it is in none."""
    ours = dict.fromkeys(part.key.source for part in parts if part.key.source in _BASES)
    for source in ours or (writing.release.base,):
        release = _BASES[source]
        held = _held(unit, parts, source)
        account = _account(unit, order, news, writing, release, at, held)
        changed: list[tuple[ResourceKey, HeldResource]] = []
        for resource, steps in _told_of(unit, order, held):
            new = merged(resource.content, word(resource.key.type, account, steps), _sent(resource))
            if new is not None:
                changed.append((resource.key, tell_in(unit, resource, new, release, at)))
        for key, made in _as_held_here(unit, source, made_of(account).all):
            before = unit.resource(key)
            now = keep(unit, key, made, release, at)
            if before is None or before.version != now.version:
                changed.append((key, now))
        if changed:
            targets = [f"{key.reference}/_history/{one.version}" for key, one in dict(changed).items()]
            first = all(one.version == 1 for _, one in changed)
            said = provenance(account, targets, news.performed, _seed(unit, source, order, at, news), first)
            keep(unit, ResourceKey(source, "Provenance", str(said["id"])), said, release, at)
        notify(unit, source, release, news.what, _focuses(held, dict(changed), news.what), at, audience)


def _as_held_here(
    unit: Unit, source: str, every: Sequence[Resource]
) -> Iterable[tuple[ResourceKey, Resource]]:  # fmt: skip
    """Each resource of ours with the key that it has here: one that a client holds of the same UID is told with it."""
    keys = [ResourceKey(source, str(each["resourceType"]), str(each["id"])) for each in every]
    theirs = [_of_a_client(unit, key, each) for key, each in zip(keys, every, strict=True)]
    names = {key.reference: held.key.reference for key, held in zip(keys, theirs, strict=True) if held is not None}
    for key, held, each in zip(keys, theirs, every, strict=True):
        made = renamed(each, names) if names else each
        if held is None:
            yield key, made
        else:
            yield held.key, renewed(held.content, made) or held.content


def _of_a_client(unit: Unit, key: ResourceKey, made: Resource) -> HeldResource | None:
    if unit.resource(key) is not None:
        return None
    tests = tuple(Comparison(How.VALUE_OF_SYSTEM, key_of(f"urn:oid:{uid}"), DICOM_UID) for uid in dicom_uids(made))
    found = unit.find_resources(key.source, key.type, (Criterion("identifier", tests),), 1) if tests else ()
    return found[0] if found else None


def _focuses(
    held: "_Held", changed: Mapping[ResourceKey, HeldResource], what: Progress | None
) -> Iterable[Resource]:  # fmt: skip
    """What an event is about: the order's ServiceRequests; where there is none its Tasks, or what was performed.

    Also where nothing changed by our word: whoever sent the order revoked it, and others do not know.
    """
    if not changed and what is None:
        return []
    requests = [changed.get(part.key, one) for part, one in held if part.key.type == "ServiceRequest"]
    found = [one for one in requests if not one.deleted]
    for kind in ("Task", "Procedure"):
        found = found or [one for key, one in changed.items() if key.type == kind]
    return [{"resourceType": one.key.type, "id": one.key.id, **one.content} for one in found]


# ---- told to another server ----

_WRITTEN = ("Task", "ServiceRequest", "Appointment")
"""What is there is written in this order, and what is ours behind it."""


def tell(
    unit: Unit, target: FHIRTarget, order: Order, parts: Sequence[OrderPart], news: News, at: datetime
) -> None:  # fmt: skip
    """Put a transaction that tells how the order stands into the outbox of a FHIR server."""
    release = target.writing.release
    theirs = _held(unit, parts, target.feed) if target.feed else []
    account = _account(unit, order, news, target.writing, release, at, theirs, other_server=True)
    known = theirs or _held(unit, parts, "", any_base=True)
    words: list[tuple[str, Resource]] = []
    overruled: dict[str, Overruled] = {}
    for resource, steps in _told_of(unit, order, known):
        kind = resource.key.type
        url = resource.key.reference if theirs else _found_by(resource, known)
        if url and kind in target.resources:
            told = word(kind, account, steps)
            named = url, {**told, "id": name_of(kind, url)}
            if named not in words:  # a second request of the same number says the same
                words.append(named)
            if theirs and (sent := _sent(resource)):
                overruled[url] = Overruled(str(resource.content["status"]), sent)
            new = merged(resource.content, told, _sent(resource)) if theirs else None
            if new is not None:  # what comes back from there is no word of its own
                tell_in(unit, resource, new, release, at, ours=False)
    words.sort(key=lambda each: _WRITTEN.index(str(each[1]["resourceType"])))
    if not theirs and not any(told["resourceType"] == "ServiceRequest" for _, told in words):
        words += _ordered_elsewhere(target, account)
    account = _with_requests(account, order, words)
    made = [each for each in made_of(account).all if each["resourceType"] in target.resources]
    control_id = control_id_of(_seed(unit, target.destination, order, at, news))
    if "Provenance" in target.resources:
        told_of = [f"urn:uuid:{each['id']}" for _, each in words]
        told_of += [f"urn:uuid:{each['id']}" for each in made]
        if told_of:
            made.append(provenance(account, told_of, news.performed, control_id))
    if not words and not made:
        return
    bundle = draft(control_id, words, made, overruled, _former_subject(theirs, account))
    payload = fhir_json.write(bundle)
    enqueue_fhir(
        unit, target.destination, order.patient_id, control_id, payload, "transaction", at, news.keys
    )  # fmt: skip


def _former_subject(theirs: "_Held", account: Account) -> str:
    """Whom the order's request there names still, where that is somebody who was merged into another; else ''."""
    said = (each.content.get("subject") or {} for part, each in theirs if part.key.type == "ServiceRequest")
    named = next((str(each.get("reference", "")) for each in said), "")
    return named if named and account.subject.get("reference") != named else ""


def _sent(held: HeldResource) -> str:
    """The status that the owner of a resource says, where the gateway's word stands in its place; else ''."""
    return str(held.as_sent.get("status", "")) if "status" in held.overruled else ""


_TURNS: Mapping[str, int] = {"PLAC": 0, "FILL": 1, "ACSN": 3}
"""Which number names a resource best, by its type (HL7 table 0203): an accession number is often that of several."""


def _found_by(held: HeldResource, parts: "_Held") -> str:
    """The search that finds this resource on the server where it came from, '' where it has no identifier.

    By a number that no other of the order's `parts` has, if there is one; order numbers before accession numbers.
    """
    others = [each for part, each in parts if part.key.type == held.key.type and each.key != held.key]
    shared = {number for each in others if not each.deleted for number, _ in _numbers(each)}
    numbers = sorted(_numbers(held), key=lambda each: (each[0] in shared, each[1]))
    if not numbers:
        return ""
    system, value = numbers[0][0]
    return query_of(held.key.type, {"system": system, "value": value})


def _numbers(held: HeldResource) -> Iterable[tuple[tuple[str, str], int]]:
    """The identifiers of a resource that name their system, as (system, value), with the turn of their type."""
    for each in held.content.get("identifier") or ():
        if each.get("system") and each.get("value"):
            codes = [str(coding.get("code")) for coding in (each.get("type") or {}).get("coding") or ()]
            yield (str(each["system"]), str(each["value"])), min((_TURNS.get(code, 2) for code in codes), default=2)


def _ordered_elsewhere(target: FHIRTarget, account: Account) -> Iterable[tuple[str, Resource]]:
    """The word for the ServiceRequest of an order that did not come by FHIR: it is found there by its number."""
    identifier = _number(account.order, account.order.procedures, target.writing.systems)
    if "ServiceRequest" not in target.resources or identifier is None or "system" not in identifier:
        return []
    url = query_of("ServiceRequest", identifier)
    told = word("ServiceRequest", account, _statuses(account.order.procedures))
    return [(url, {**told, "id": name_of("ServiceRequest", url)})]


def _with_requests(account: Account, order: Order, words: Sequence[tuple[str, Resource]]) -> Account:
    """The account whose resources refer to the ServiceRequest of the Bundle, where there is one and no other."""
    requests = [told for _, told in words if told["resourceType"] == "ServiceRequest"]
    if len(requests) != 1:
        return account
    name = f"urn:uuid:{requests[0]['id']}"
    ours = _statuses(order.procedures)
    named = {
        step: {**(logical_of(reference)), "reference": name} if step in ours else reference
        for step, reference in account.requests.items()
    }
    return replace(account, requests=named)


def logical_of(reference: Resource) -> dict[str, Any]:
    """What of a reference does not say where the resource is."""
    return {key: value for key, value in reference.items() if key != "reference"}


def name_of(kind: str, url: str) -> str:
    """What a Bundle calls the resource that is at this address there."""
    return made_id(kind, url)


# ---- what is known of an order ----

_Held = Sequence[tuple[OrderPart, HeldResource]]


def _held(unit: Unit, parts: Iterable[OrderPart], source: str, any_base: bool = False) -> _Held:
    found = []
    for part in parts:
        if part.key.source == source or (any_base and part.key.source in _BASES):
            resource = unit.resource(part.key)
            if resource is not None:
                found.append((part, resource))
    return found


def _account(
    unit: Unit, order: Order, news: News, writing: FHIRWriting, release: Release, at: datetime, held: _Held,
    other_server: bool = False,
) -> Account:  # fmt: skip
    """All that is told of the order. `held` are its resources as that server has them."""
    said_of = (each for part, each in held if part.key.type == "ServiceRequest" and not each.deleted)
    request = next(said_of, None)
    first: Resource = request.content if request is not None else {}
    patient = unit.patient(order.patient_id)
    said = first.get("subject")
    subject = whose(unit, request.key.source, said, patient, writing.systems) if request is not None and said else None
    visit = unit.visit_by_id(order.visit_id) if order.visit_id is not None else None
    encounter = logical("Encounter", typed_identifier(visit.number if visit else None, "VN", writing.systems))
    requests = _requests(order, held, writing.systems)
    account = Account(
        release, at, order, subject or by_number(patient, writing.systems),
        encounter=first.get("encounter") or encounter, requests=requests,
        systems=writing.systems, endpoint=writing.endpoint, gateway=writing.gateway, schemes=writing.schemes,
    )  # fmt: skip
    performed = _performed(unit, order, news.performed, account)
    for step_id in {step for each in performed for step in each.steps} - requests.keys():
        requests |= _requests_of_another(unit, step_id, held, writing, other_server)
    return replace(account, performed=performed, requests=requests)


def _performed(
    unit: Unit, order: Order, cause: PerformedStep | None, account: Account
) -> tuple[PerformedStep, ...]:  # fmt: skip
    """Every performed step of the order as it is now, with the one that was taken away from it just now.

    What belongs to another order by now is told with that one.
    """
    uids = dict.fromkeys(unit.performed_of_order(order.id) if order.id is not None else ())
    known = cause.sop_instance_uid if cause is not None else ""
    found = [unit.performed_step(uid) for uid in uids if uid != known]
    ours = _statuses(order.procedures).keys()
    elsewhere = cause is not None and bool(cause.steps) and ours.isdisjoint(cause.steps)
    every = [each for each in (*found, None if elsewhere else cause) if each is not None]
    return tuple(sorted(every, key=lambda each: (began(each, account), each.sop_instance_uid)))


def _requests(order: Order, held: _Held, systems: Mapping[str, str]) -> dict[int, Resource]:
    """The ServiceRequest of each scheduled step: that of its procedure before that of the order, else its number."""
    by_procedure: dict[str, Resource] = {}
    for part, resource in held:
        if part.key.type == "ServiceRequest" and not resource.deleted and not part.sps_id:
            by_procedure.setdefault(part.requested_procedure_id, {"reference": part.key.reference})
    found: dict[int, Resource] = {}
    for procedure in order.procedures:
        reference = by_procedure.get(procedure.requested_procedure_id) or by_procedure.get("")
        reference = reference or logical("ServiceRequest", _number(order, [procedure], systems))
        if reference is not None:
            found |= {step.id: reference for step in procedure.steps if step.id is not None}
    return found


def _requests_of_another(
    unit: Unit, step_id: int, held: _Held, writing: FHIRWriting, other_server: bool
) -> Mapping[int, Resource]:  # fmt: skip
    """The same for the step of another order, which was performed together with one of this order."""
    found = unit.steps([step_id])
    order = unit.order(found[0].order_id) if found else None
    if order is None or order.id is None:
        return {}
    sources = {part.key.source for part, _ in held} or (set() if other_server else {writing.release.base})
    theirs = [each for source in sources for each in _held(unit, unit.order_parts(order.id), source)]
    return _requests(order, theirs, writing.systems)


def _number(order: Order, procedures: Sequence[Procedure], systems: Mapping[str, str]) -> dict[str, Any] | None:
    """The number by which others know the order: the placer's, the filler's, or the accession number."""
    accession = next((each.accession for each in procedures if each.accession), None)
    numbers = ((order.placer, "PLAC"), (order.filler, "FILL"), (accession, "ACSN"))
    return next((made for number, kind in numbers if (made := typed_identifier(number, kind, systems))), None)


def _statuses(procedures: Iterable[Procedure]) -> dict[int, SPSStatus]:
    return {step.id: step.status for each in procedures for step in each.steps if step.id is not None}


def _told_of(unit: Unit, order: Order, held: _Held) -> Iterable[tuple[HeldResource, Mapping[int, SPSStatus]]]:
    """Each resource of which a status is told, once, with the scheduled steps that it is about.

    An Appointment may be for several procedures, and for several orders: it is off when all of them are.
    """
    found: dict[ResourceKey, tuple[HeldResource, dict[int, SPSStatus]]] = {}
    for part, resource in held:
        if part.key.type not in TOLD or resource.deleted:
            continue
        if part.key not in found:
            found[part.key] = resource, dict(_of_others(unit, order, resource))
        found[part.key][1].update(_steps(order, part))
    return found.values()


def _of_others(unit: Unit, order: Order, held: HeldResource) -> Mapping[int, SPSStatus]:
    """The scheduled steps of other orders that a Task or Appointment names as well."""
    elements = (each for name in ("basedOn", "focus") for each in listed(held.content.get(name)))
    named = {each.get("reference") for each in elements if isinstance(each, Mapping)}
    steps: dict[int, SPSStatus] = {}
    for part in unit.parts_of(held.key) if len(named) > 1 else ():
        other = unit.order(part.order_id) if part.order_id != order.id else None
        speaks = (each.key for each in unit.order_parts(part.order_id) if each.key.source == held.key.source)
        if other is not None and any(key.reference in named for key in speaks):
            steps |= _steps(other, part)
    return steps


def _steps(order: Order, part: OrderPart) -> Mapping[int, SPSStatus]:
    """The scheduled steps that a resource is about, with their statuses; all of the order where it names none."""
    procedures = [
        each for each in order.procedures
        if part.requested_procedure_id in ("", each.requested_procedure_id)
    ]  # fmt: skip
    return {
        step.id: step.status
        for each in procedures
        for step in each.steps
        if step.id is not None and part.sps_id in ("", step.sps_id)
    }


def _seed(unit: Unit, where: str, order: Order, at: datetime, news: News) -> str:
    """Tells one telling from all others; it is stored, so a repeat has the same."""
    return f"{where}\n{order.id}\n{at.isoformat()}\n{news.cause}\n{unit.changes}"


def control_id_of(seed: str) -> str:
    """The id of a Bundle of ours that is told from all others by this."""
    return str(uuid.UUID(bytes=hashlib.blake2b(seed.encode(), digest_size=16).digest()))
