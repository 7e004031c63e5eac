"""One person or two: records merge and part again, visits move; each such change is a line of the log.

A merged record keeps its own facts. What a survivor shows is what was said of itself, and where nothing was, what was
said of the records merged into it, marked as lent: so the order in which merge and messages come makes no difference,
and a merge can be taken back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from gateway.domain.appointments import stands_for
from gateway.domain.attributes import TAG, Attributes
from gateway.domain.facts import UNSTAMPED, Stamps, lend
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order
from gateway.domain.patient import Belongings, IdentityChange, IdentityKind, Patient
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.ports import Identities, MessageSearch, StoredMessage, Unit

IDENTIFYING = frozenset(
    TAG[keyword]
    for keyword in (
        "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
        "OtherPatientIDsSequence",
    )
)  # fmt: skip
"""What says who a record is, and is therefore never lent to another."""

BY_HAND = "taken back by hand"

_MESSAGES_MAX = 1_000  # of one order; one with more is a test
_ORDER_KEYS = frozenset({"placer", "filler", "accession", "study"})

_MERGED = "merged"  # in details: whether two records became one; a mere link has no such entry


def number_of(patient: Patient) -> int:
    """The store's number of a patient that is held."""
    assert patient.id is not None  # noqa: S101  (held patients come from the store)
    return patient.id


def shown(unit: Identities, patient: Patient) -> Patient:
    """The patient with what was said of it, and with what the records merged into it fill in."""
    attributes, stamps = _own(patient)
    for record in unit.merged_into(number_of(patient)):
        theirs, since = _own(record)
        lent = {tag: element for tag, element in theirs.items() if tag not in IDENTIFYING}
        attributes, stamps = lend(attributes, stamps, lent, since)
    return replace(patient, attributes=attributes, stamps=stamps)


def _own(patient: Patient) -> tuple[Attributes, Stamps]:
    """What was said of this very record."""
    lent = patient.stamps.weak_names()
    attributes = {tag: element for tag, element in patient.attributes.items() if tag not in lent}
    others = {name: stamp for name, stamp in patient.stamps.others.items() if name not in lent}
    # What was held before anything was stamped is its own too, and a loan must not replace it.
    base = UNSTAMPED if patient.stamps.base is None and attributes else patient.stamps.base
    return attributes, replace(patient.stamps, base=base, others=others)


def merge_records(unit: Unit, prior: Patient, survivor: Patient, kind: IdentityKind, cause: str, at: datetime) -> None:
    """Everything of `prior` is the survivor's from now on; its own facts stay with its record."""
    prior_id, survivor_id = number_of(prior), number_of(survivor)
    stayed = unit.belongings(survivor_id)
    members = [record.id for record in unit.merged_into(prior_id)]
    moved = unit.merge_patient(prior_id, survivor_id, at)
    merged = unit.patient(survivor_id)
    assert merged is not None  # noqa: S101  (it was merged into a moment ago)
    unit.save_patient(shown(unit, merged), at)
    details = {
        _MERGED: True, "identifiers": _said(prior.identifiers), "retired": _said(prior.retired), "members": members,
        "stayed": list(stayed.orders), **_belongings_said(moved),
    }  # fmt: skip
    unit.log_identity(IdentityChange(None, at, kind, cause, survivor_id, prior_id, details))


def move_visit(unit: Unit, visit_id: int, from_id: int, to_id: int, cause: str, at: datetime) -> None:
    """A visit belongs to another patient, with its orders and what was performed of them."""
    moved = unit.hand_over(unit.belongings_of_visit(visit_id), from_id, to_id)
    unit.log_identity(
        IdentityChange(None, at, IdentityKind.MOVE, cause, to_id, from_id, _belongings_said(moved))
    )  # fmt: skip


def change_identifiers(unit: Unit, before: Patient, after: Patient, cause: str, at: datetime) -> None:
    """Some identifiers of a patient take the place of others."""
    patient_id = unit.save_patient(after, at)
    details = {
        "identifiers": _said(before.identifiers), "retired": _said(before.retired),
        "given": _said(each for each in after.identifiers if each not in before.identifiers),
        "identifying": {tag: element for tag, element in before.attributes.items() if tag in IDENTIFYING},
    }  # fmt: skip
    unit.log_identity(IdentityChange(None, at, IdentityKind.CHANGE, cause, patient_id, None, details))


# --- taking back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakingBack:
    """What taking back a line of the log will do: what returns to `other`, and what stays although it may not belong.

    `missing` moved then and belongs to somebody else by now; `since` are orders of the patient that came afterwards.
    Of those that came afterwards, `followed` return too: all their messages named identifiers of `other`.
    """

    change: IdentityChange
    patient: Patient
    other: Patient | None
    returning: Belongings
    missing: int
    since: tuple[int, ...]
    followed: tuple[int, ...] = ()


class Records(Identities, Protocol):
    """What tells whose an order is: the store's reader, or a transaction."""

    def order(self, order_id: int) -> Order | None: ...
    def order_of_study(self, study_instance_uid: str) -> Order | None: ...
    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]: ...


def taking_back(unit: Records, log_id: int) -> TakingBack:
    """What `unmerge` will do. Raises Refused: no such line (204), taken back before, or something later rests on it."""
    change = unit.identity_change(log_id)
    if change is None:
        raise _refused(RefusalKind.UNKNOWN_KEY, f"the log of identities has no line {log_id}",
                       "see `gateway patients merges`")  # fmt: skip
    if change.undone is not None:
        raise _refused(RefusalKind.CONFLICT, f"line {log_id} was taken back before", "there is nothing left to do")
    if change.kind in (IdentityKind.UNDO, IdentityKind.UNLINK):
        raise _refused(RefusalKind.CONFLICT, f"line {log_id} took something back itself", "merge or link again")
    patient = _living(unit, change, change.patient_id)
    merged = bool(change.details.get(_MERGED))
    other = None
    if change.other_id is not None:
        other = _living(unit, change, change.other_id, of=change.patient_id if merged else None)
    moved = _belongings_read(change.details)
    held = unit.belongings(number_of(patient))
    returning = Belongings(
        tuple(each for each in moved.orders if each in held.orders),
        tuple(each for each in moved.visits if each in held.visits),
        tuple(each for each in moved.performed_steps if each in held.performed_steps),
    )
    missing = _size(moved) - _size(returning)
    if not merged or other is None:
        return TakingBack(change, patient, other, returning, missing, ())
    known = {*moved.orders, *change.details.get("stayed", ())}
    came = [order for each in held.orders if each not in known and (order := unit.order(each)) is not None]
    followed = _came_for(unit, came, patient, {number_of(other), *change.details["members"]})
    numbers = tuple(order.id for order in followed if order.id is not None)
    since = tuple(each.id for each in came if each not in followed and each.id is not None and not stands_for(each))
    return TakingBack(change, patient, other, _with(unit, returning, followed), missing, since, numbers)


def _came_for(unit: Records, came: Sequence[Order], patient: Patient, records: set[int]) -> list[Order]:
    """Those orders whose every message named identifiers of these records and none of the patient's own.

    The archive keeps what messages named without its authority, so an identifier that both have tells nothing.
    """
    theirs: set[str] = set()
    own = {each.value for each in patient.identifiers}
    for identifier in patient.retired:
        source = unit.retired_from(identifier)
        (theirs if source is not None and source.id in records else own).add(identifier.value)
    found = [order for order in came if not stands_for(order) and _named(unit, order, theirs - own, own)]
    numbers = {order.id for order in found}
    for order in came:  # the number of an appointment goes where its order goes
        meant = unit.order_of_study(stands_for(order)) if stands_for(order) else None
        if meant is not None and meant.id in numbers:
            found.append(order)
    return found


def _named(unit: Records, order: Order, theirs: set[str], own: set[str]) -> bool:
    messages = unit.find_messages(MessageSearch(order=order.id, direction="in"), _MESSAGES_MAX)
    said = [
        {value for kind, value in message.record.keys if kind == "patient"}
        for message in messages
        if any(kind in _ORDER_KEYS for kind, _ in message.record.keys)  # not of a patient who arrives with all orders
    ]
    said = [names for names in said if names]  # a cancel may name nobody
    return len(messages) < _MESSAGES_MAX and bool(said) and all(names & theirs and not names & own for names in said)


def _with(unit: Records, returning: Belongings, followed: Sequence[Order]) -> Belongings:
    """These orders too, with what was performed of them, and with visits that have no orders but such."""
    orders = (*returning.orders, *(order.id for order in followed if order.id is not None))
    visits = dict.fromkeys(order.visit_id for order in followed if order.visit_id is not None)
    alone = (each for each in visits if set(unit.belongings_of_visit(each).orders) <= set(orders))
    performed = (uid for order in followed if order.id is not None for uid in unit.performed_of_order(order.id))
    return Belongings(
        orders,
        tuple(dict.fromkeys((*returning.visits, *alone))),
        tuple(dict.fromkeys((*returning.performed_steps, *performed))),
    )


def unmerge(unit: Unit, log_id: int, at: datetime, cause: str = BY_HAND) -> tuple[str, ...]:
    """Take back a merge, move, link or change of identifiers; notes on what could not be. Raises as `taking_back`."""
    plan = taking_back(unit, log_id)
    change, patient_id = plan.change, number_of(plan.patient)
    notes: list[str] = []
    if change.details.get(_MERGED) and change.other_id is not None:
        retired = _identifiers_read(change.details["retired"])
        unit.part_patient(change.other_id, patient_id, retired, change.details["members"], at)
        unit.hand_over(plan.returning, patient_id, change.other_id)
        for each in (patient_id, change.other_id):
            parted = unit.patient(each)
            assert parted is not None  # noqa: S101  (both live now)
            unit.save_patient(shown(unit, parted), at)
    elif change.kind is IdentityKind.MOVE and change.other_id is not None:
        unit.hand_over(plan.returning, patient_id, change.other_id)
    elif change.kind is IdentityKind.CHANGE:
        unit.save_patient(_as_before(plan.patient, change.details), at)
    if plan.missing:
        notes.append(f"{plan.missing} of what moved then belongs to somebody else by now, and stays there")
    if plan.followed:
        notes.append(f"{len(plan.followed)} order(s) came since under identifiers of the prior patient and go with it")
    if plan.since:
        notes.append(f"{len(plan.since)} order(s) came since and stay with the surviving patient: check whose they are")
    unit.set_identity_change_undone(log_id, at)
    details = {"line": log_id, "orders": [*plan.returning.orders]}
    unit.log_identity(
        IdentityChange(None, at, IdentityKind.UNDO, cause, change.patient_id, change.other_id, details)
    )  # fmt: skip
    return tuple(notes)


def _living(unit: Identities, change: IdentityChange, record: int, of: int | None = None) -> Patient:
    """The patient whose record this is, which must not have been merged; or, with `of`, into that one only."""
    living = unit.patient(record)
    if living is not None and living.id == (record if of is None else of):
        return living if of is None else replace(living, id=record, identifiers=_identifiers_read(
            change.details["identifiers"]))  # fmt: skip
    later = next(
        (
            line
            for line in unit.identity_changes(record)
            if line.other_id == record and line.undone is None and line.details.get(_MERGED) and line.id != change.id
        ),
        None,
    )
    where = f"line {later.id}" if later else "a later merge"
    raise _refused(
        RefusalKind.CONFLICT, "the patient was itself merged into another since", f"take back {where} first"
    )  # fmt: skip


def _as_before(held: Patient, details: Mapping[str, Any]) -> Patient:
    """The patient with the identifiers of before the change; those it got from elsewhere since stay."""
    before, past, given = (_identifiers_read(details[name]) for name in ("identifiers", "retired", "given"))
    identifiers = (*before, *(each for each in held.identifiers if each not in given and each not in before))
    retired = tuple(
        each for each in held.retired if each not in identifiers and (each not in given or each in past)
    )  # fmt: skip
    attributes = {tag: element for tag, element in held.attributes.items() if tag not in IDENTIFYING}
    return replace(
        held, identifiers=identifiers, retired=retired, attributes=attributes | dict(details["identifying"])
    )  # fmt: skip


def _refused(kind: RefusalKind, text: str, hint: str) -> Refused:
    return Refused(Refusal(kind, "", text, hint))


def _size(what: Belongings) -> int:
    return len(what.orders) + len(what.visits) + len(what.performed_steps)


def _said(identifiers: Iterable[Identifier]) -> list[list[str]]:
    return [[each.value, each.issuer] for each in identifiers]


def _identifiers_read(said: Iterable[tuple[str, str]]) -> tuple[Identifier, ...]:
    return tuple(Identifier(value, issuer) for value, issuer in said)


def _belongings_said(what: Belongings) -> dict[str, list[Any]]:
    return {"orders": [*what.orders], "visits": [*what.visits], "performed_steps": [*what.performed_steps]}


def _belongings_read(details: Mapping[str, Any]) -> Belongings:
    return Belongings(*(tuple(details.get(name, ())) for name in ("orders", "visits", "performed_steps")))
