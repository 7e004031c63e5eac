"""Patients, visits and orders change as events say; every event of a message, or none.

Used by whatever brings events: HL7 messages and imported worklist files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.appointments import appointments_for, as_of, given_to_order, orders_for, other_number, stands_for
from gateway.domain.identifiers import Identifier
from gateway.domain.order import (
    REPLACE,
    TAKEN_BACK,
    Effect,
    Order,
    OrderControl,
    OrderEvent,
    OrderResponse,
    Takes,
    Unheld,
    effect_of,
    order_status_of,
    response_of,
)
from gateway.domain.order_change import Applied, apply, arrive, is_begun, renumbered
from gateway.domain.order_matching import is_order_typed, is_same_by_accession, taken_over
from gateway.domain.patient import PatientEvent, PatientMerge, PatientUpdate, VisitChange
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.fhir_identities import follow_identities
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.namesakes import said_of_namesakes
from gateway.workflow.order_parts import follow_keys
from gateway.workflow.patients import apply_patient_event, upsert_patient, upsert_visit
from gateway.workflow.perform import link_waiting
from gateway.workflow.ports import KeyTaken, Outcome, Unit
from gateway.workflow.telling import tell_left_out, tell_others


def apply_events(
    unit: Unit, events: Sequence[OrderEvent | PatientEvent], under: Circumstances, at: datetime
) -> Outcome:
    """Apply them all. Raises Refused with the problems of every event (D11)."""
    doing = _Doing(unit, under, at, any(_is(event, OrderControl.RO) for event in events))
    refusals: list[Refusal] = []
    for event in events:
        try:
            if isinstance(event, OrderEvent):
                doing.order_event(event)
            else:
                doing.patient_event(event)
        except Refused as refused:
            refusals += refused.refusals
        except KeyTaken as taken:
            refusals.append(_taken(event, taken.key))
    if refusals:
        raise Refused(*dict.fromkeys(refusals))
    return Outcome(
        tuple(dict.fromkeys(doing.notes)),
        tuple(doing.responses),
        tuple(dict.fromkeys(doing.orders)),
        tuple(dict.fromkeys(doing.patients)),
        tuple(dict.fromkeys(doing.created)),
    )


def arrive_patient(
    unit: Unit, patient_id: int, under: Circumstances, at: datetime, visit_id: int | None = None
) -> tuple[int, ...]:
    """A patient has come (ADT A10): what is scheduled becomes ARRIVED, of one visit alone if one is given.

    The store's numbers of the changed orders.
    """
    scheduled = unit.orders_of_patient(patient_id, SPSStatus.SCHEDULED)
    if visit_id is not None:
        scheduled = [order for order in scheduled if order.visit_id == visit_id]
    saved = (unit.save_order(arrive(held, under.stamp), under.cause, at) for held in scheduled)
    return tuple(order.id for order in saved if order.id is not None)


@dataclass(slots=True)
class _Doing:
    """The events of one message while they are applied. `replacing`: an order in place of another is among them."""

    unit: Unit
    under: Circumstances
    at: datetime
    replacing: bool
    replaced: Identifier | None = None
    appointment: Order | OrderEvent | None = None
    """The appointment that turned out to be for the order at hand; its number is to be kept beside the order's."""
    notes: list[str] = field(default_factory=list)
    responses: list[OrderResponse] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    created: list[Identifier] = field(default_factory=list)

    def patient_event(self, event: PatientEvent) -> None:
        touched = apply_patient_event(self.unit, event, self.under, self.at, self.notes)
        self.patients += touched
        if not isinstance(event, PatientUpdate):
            self.notes += follow_identities(self.unit, self.under, touched, self.at)
        if isinstance(event, PatientMerge):  # what was said of the prior one's orders under the new name may act now
            held = (self.unit.order(number) for number in self.unit.belongings(touched[0]).orders)
            self.created += _numbers(each for each in held if each is not None)
        if isinstance(event, PatientUpdate) and event.change is VisitChange.ARRIVE:
            visit = self.unit.visit(touched[0], event.visit.number) if event.visit_alone and event.visit else None
            if visit is not None or not event.visit_alone:
                self.orders += arrive_patient(self.unit, touched[0], self.under, self.at, visit.id if visit else None)

    def order_event(self, event: OrderEvent) -> None:
        effect = effect_of(event.control, event.order_status)
        other_numbers: list[Order] = []
        held = _held_order(self.unit, event, other_numbers)
        if event.formerly is not None:
            held = self._renumbered(event, event.formerly, held)
        if held is not None:
            event = as_of(held, event)
        if effect.takes is Takes.NOTHING and (held is not None or effect.unheld is Unheld.NOTED):
            self.notes.append(effect.note)
            self._tell(event, held)
            return
        if held is None and effect.unheld is not Unheld.CREATED:
            held = self._same_by_other_means(event, effect, self._known_patient(event))
            if held is None and self._may_be_unheld(event, effect):  # and nobody is noted for it
                if effect.takes is not Takes.HELD:
                    self.notes.append(f"no such order is held, so {event.control} changes nothing")
                self._tell(event, None)
                return
        patient = self._patient(event, held)
        held = self._moved(event, held, patient) if held is not None else None
        if held is None and effect.unheld is Unheld.CREATED:
            held = self._same_by_other_means(event, effect, patient)
            event = as_of(held, event) if held is not None else event
        for each in other_numbers if not event.by_appointment else ():  # an order may have it as its own number now
            if {each.placer, each.filler} & {event.placer, event.filler} - {None}:
                self.unit.save_order(replace(each, placer=None, filler=None), self.under.cause, self.at)
        saved = self._save(event, held, patient)
        self._keep_appointment(saved)
        self._tell(event, saved)
        if event.control in REPLACE:
            self.replaced = saved.placer or saved.filler
        if _grew(held, saved):
            self.created += _numbers([saved])
        if saved.id is not None:
            self.orders.append(saved.id)

    def _renumbered(self, event: OrderEvent, former: OrderEvent, held: Order | None) -> Order | None:
        """The order that is meant, under the numbers that it has from now on. Raises Refused where these are another
        order's and its own is performed."""
        if held is None or (former.placer, former.filler) != (event.placer, event.filler):
            known = _held_order(self.unit, former, [])
            if known is not None and held is not None and known.id != held.id:  # two orders are never merged
                if is_begun(known):
                    raise Refused(Refusal(
                        RefusalKind.CONFLICT, "ServiceRequest.identifier",
                        "this number is another order's, and a step of this one was performed under its own",
                        "send another number, or give the other order another one first",
                    ))  # fmt: skip
                self.order_event(replace(former, control=OrderControl.SC, order_status=TAKEN_BACK, formerly=None))
                return held
            held = held or known
        after = renumbered(held, event) if held is not None else None
        if held is None or after is None or after == held:
            return held
        saved = self.unit.save_order(after, self.under.cause, self.at)
        follow_keys(self.unit, held, saved)
        if _all_numbers(held) != _all_numbers(saved):
            self.notes.append("known by another number from now on")
        return saved

    def _moved(self, event: OrderEvent, held: Order, patient: int) -> Order:
        """The order as the patient's whom its source names now. Raises Refused once it is performed."""
        former = event.formerly.patient if event.formerly is not None else None
        if held.patient_id == patient or former is None or not former.identifiers:
            return held
        if all(each.id != held.patient_id for each in self.unit.patients(former.identifiers)):
            return held
        if is_begun(held):
            raise Refused(Refusal(
                RefusalKind.CONFLICT, "ServiceRequest.subject", "a step of this order was performed for its patient",
                "let it be corrected where the images are, and order anew under another number; of one person with two "
                "records, merge these (Patient.link)",
            ))  # fmt: skip
        self.notes.append("the order is another patient's from now on")
        return self.unit.save_order(replace(held, patient_id=patient, visit_id=None), self.under.cause, self.at)

    def _known_patient(self, event: OrderEvent) -> int | None:
        found = self.unit.patients(event.patient.identifiers) if event.patient.identifiers else ()
        return found[0].id if len(found) == 1 else None

    def _patient(self, event: OrderEvent, held: Order | None) -> int:
        if held is not None and not event.patient.identifiers:  # an imported item that names nobody stays whose it is
            return held.patient_id
        patient = upsert_patient(self.unit, event.patient, self.under, self.at, self.notes)
        self.patients.append(patient)
        return patient

    def _save(self, event: OrderEvent, held: Order | None, patient: int) -> Order:
        unit, under = self.unit, self.under
        before = held
        if held is not None and self._has_no_visit_now(event, held):
            held = replace(held, visit_id=None)
        known = held.visit_id if held else None
        visit = upsert_visit(unit, patient, event.visit, self.at, known, VisitChange.UPDATE, under)
        applied = self._applied(held, event, patient, visit)
        self.notes += applied.notes
        if applied.order == before:
            return applied.order
        held = before
        saved = unit.save_order(applied.order, self._cause(event), self.at)
        if held is not None:
            follow_keys(unit, held, saved)
            self.notes += tell_others(
                unit, under.audience, held, self.at, self._cause(event), under.said_by, under.zone
            )  # fmt: skip
        else:
            self.notes += said_of_namesakes(unit, saved, under.issuers)
        linked = link_waiting(
            unit,
            [procedure.study_instance_uid for procedure in saved.procedures if procedure.study_instance_uid],
            [procedure.accession.value for procedure in saved.procedures if procedure.accession],
            self.at,
            PatientIssuers(under.issuers, under.default_issuer),
            under.audience,
            under.zone,
        )
        self.notes += linked.notes
        if held is not None:
            self.notes += tell_left_out(unit, under.audience, held, self.at, self._cause(event), under.zone)
        return saved

    def _applied(self, held: Order | None, event: OrderEvent, patient: int, visit: int | None) -> Applied:
        """The order after the event, with no generated key that another order has: one had this number before."""
        under, taken = self.under, frozenset[str]()
        while True:
            applied = apply(
                held,
                event,
                patient,
                visit,
                under.mint,
                under.site,
                stamp=under.stamp,
                discontinue_started=under.discontinue_started,
                cancel_unsaid=under.cancel_unsaid,
                taken=taken,
            )
            others = self.unit.held_keys(applied.generated) if applied.generated else frozenset[str]()
            if not others:
                return applied
            taken |= others

    def _has_no_visit_now(self, event: OrderEvent, held: Order) -> bool:
        """Whether the order is of the visit still that its source named before, and names no more."""
        former = event.formerly.visit if event.formerly is not None else None
        if former is None or event.visit is not None or held.visit_id is None:
            return False
        visit = self.unit.visit_by_id(held.visit_id)
        takes = effect_of(event.control, event.order_status).takes
        return takes in (Takes.EVERYTHING, Takes.HELD) and visit is not None and visit.number == former.number

    def _cause(self, event: OrderEvent) -> str:
        """For the history of the steps, which also keeps what replaced what."""
        if event.control in REPLACE:
            return f"{self.under.cause} replaced"
        if event.control is OrderControl.RO and self.replaced is not None:
            return f"{self.under.cause} replaces {self.replaced.value}"
        return self.under.cause

    def _same_by_other_means(self, event: OrderEvent, effect: Effect, patient: int | None) -> Order | None:
        """The order of this patient that is meant though none of its numbers is known; None where nobody is known.

        One sender may know the placer number and another the filler number only: then one accession number tells. And a
        person may have typed the order while the RIS was down. Where several would do, nobody guesses.
        """
        if patient is None:
            return None
        if (event.placer is None) is not (event.filler is None):
            found = {
                order.id: order
                for procedure in event.procedures
                if procedure.accession is not None
                for order in self.unit.orders_by_accession(procedure.accession, any_issuer=True)
                if order.patient_id == patient and is_same_by_accession(order, event)
            }
            if len(found) == 1:
                self.notes.append("found by its accession number: it was known by another order number")
                return next(iter(found.values()))
        if effect.unheld is Unheld.CREATED:
            provisional = self.unit.provisional_orders(patient)
            typed = [order for order in provisional if is_order_typed(order, event)]
            if len(typed) == 1:
                made = "typed by hand" if typed[0].by_hand else "made here"
                self.notes.append(f"linked to the order {made}")
                return replace(taken_over(typed[0]), provisional=event.by_appointment)
            if typed:
                self.notes.append("several orders typed by hand may be this one; see `gateway worklist link`")
                return None
            return self._of_appointment(event, patient, provisional)
        return None

    def _of_appointment(self, event: OrderEvent, patient: int, provisional: Sequence[Order]) -> Order | None:
        """The order that an appointment is for, or that was made of one; None where none fits, or several."""
        if event.by_appointment:
            found = orders_for(
                event, (each for status in sorted(LISTED) for each in self.unit.orders_of_patient(patient, status))
            )
            if len(found) == 1:
                self.notes.append("joined to the order held for this procedure and start")
                self.appointment = event
                return found[0]
        else:
            found = appointments_for(event, provisional)
            if len(found) == 1:
                self.notes.append("joined to the appointment held for this procedure and start")
                self.appointment = found[0]
                return given_to_order(found[0])
        if found:
            self.notes.append("several orders or appointments fit; nothing was joined")
        return None

    def _keep_appointment(self, order: Order) -> None:
        """What comes for the appointment later finds the order by its number."""
        appointment, self.appointment = self.appointment, None
        number = other_number(order, appointment) if appointment is not None else None
        if number is not None:
            self.unit.save_order(number, self.under.cause, self.at)
            self.created += _numbers([number])

    def _may_be_unheld(self, event: OrderEvent, effect: Effect) -> bool:
        """Whether an unknown order is no reason to refuse, for instance where what takes its place comes with it."""
        return effect.unheld is Unheld.NOTED or (self.replacing and event.control in REPLACE)

    def _tell(self, event: OrderEvent, held: Order | None) -> None:
        answer = response_of(event.control, refused=False)
        if answer is not None:
            placer, filler = (held.placer, held.filler) if held else (event.placer, event.filler)
            self.responses.append(OrderResponse(answer, placer, filler, order_status_of(held) if held else ""))


# Columns whose values nobody else may have, with what they are called and where an order says them.
_UNIQUE = {
    "orders.placer": ("placer order number", "-2.1"),
    "orders.filler": ("filler order number", "-3.1"),
    "requested_procedures.study_instance_uid": ("Study Instance UID", ""),
    "steps.procedure_id": ("scheduled procedure step ID", ""),
    "patient_identifiers.value": ("patient identifier", ""),
}


def _taken(event: OrderEvent | PatientEvent, key: str) -> Refusal:
    """A key that is somebody else's, found out only when it was written: sent anew, or made from such a one before."""
    name, place = _UNIQUE.get(key, ("key", ""))
    where = (event.where or "ORC") + place if isinstance(event, OrderEvent) else "PID-3"
    return Refusal(
        RefusalKind.DUPLICATE_KEY, where, f"its {name} belongs to something else already",
        f"send another {name}, or correct what has it now",
    )  # fmt: skip


def _is(event: OrderEvent | PatientEvent, control: OrderControl) -> bool:
    return isinstance(event, OrderEvent) and event.control is control


def _numbers(orders: Iterable[Order]) -> list[Identifier]:
    return [number for order in orders for number in (order.placer, order.filler) if number is not None]


def _all_numbers(order: Order) -> tuple[Identifier | None, ...]:
    return order.placer, order.filler, *(procedure.accession for procedure in order.procedures)


def _grew(held: Order | None, saved: Order) -> bool:
    """Whether there is now something that a message about it could not find before: the order, a number, a step."""
    if held is None:
        return True
    known, now = (
        (order.placer is None, order.filler is None, len(order.procedures), [len(p.steps) for p in order.procedures])
        for order in (held, saved)
    )
    return known != now


def _held_order(unit: Unit, event: OrderEvent, other_numbers: list[Order]) -> Order | None:
    """The one order these identifiers mean. Raises Refused (205) if they point to two: never merged (D10).

    `other_numbers` gets those numbers of appointments by which it was found.
    """
    found: dict[int | None, Order] = {}
    for numbered in unit.orders(event.placer, event.filler):
        study = stands_for(numbered)
        meant = unit.order_of_study(study) if study else None
        if meant is not None:
            other_numbers.append(numbered)
        found[(meant or numbered).id] = meant or numbered
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
                    f"{event.where or 'ORC'}-2.1",
                    "several orders have this accession number, and no order number tells which is meant",
                    "send the placer or the filler order number",
                )
            )
    one = next(iter(found.values()), None)
    if len(found) > 1 or (one is not None and not event.by_appointment and _is_another(one, event)):
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                event.where,
                "its placer number, filler number, Study Instance UID or accession number belong to different orders",
                "correct the identifiers; orders are never merged",
            )
        )
    return one


def _is_another(held: Order, event: OrderEvent) -> bool:
    """Whether the order that was found by some key has another placer number, or no placer number in common and another
    filler number. The filler number of one that was made here gives way to the RIS's."""
    if held.placer and event.placer:
        return held.placer != event.placer
    return bool(held.filler and event.filler and held.filler != event.filler and not held.provisional)
