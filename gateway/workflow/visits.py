"""Visits as feeds speak of them: insert, update, open, close, cancel. A visit belongs to a patient; orders name it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from gateway.domain.attributes import TAG, Attributes, element
from gateway.domain.facts import NO_STAMPS, UNSTAMPED, Stamp, Stamps, as_news, merge_said
from gateway.domain.patient import Visit, VisitChange, VisitInput
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.ports import Unit

VISIT_STATUSES: Mapping[VisitChange, str] = {
    VisitChange.PLAN: "SCHEDULED",
    VisitChange.OPEN: "ADMITTED",
    VisitChange.CLOSE: "DISCHARGED",
    VisitChange.REOPEN: "ADMITTED",
}
"""Visit Status ID (0038,0008) after an event, where the message itself says none (PS3.3 C.3.3)."""

_ADMISSION = frozenset({TAG["AdmissionID"], TAG["IssuerOfAdmissionIDSequence"]})
_CANCELLED = "cancelled"  # when the visit was cancelled, among its stamps


def upsert_visit(
    unit: Unit,
    patient: int,
    said: VisitInput | None,
    at: datetime,
    known: int | None = None,
    change: VisitChange = VisitChange.UPDATE,
    under: Circumstances | None = None,
) -> int | None:
    """The visit's id after insert or update; one without a number is the `known` one of the order, if there is one.

    A cancelled visit keeps its admission ID and shows nothing else, also when an older message about it comes late.
    """
    if said is None:
        return None
    stamp = under.stamp if under else UNSTAMPED
    held = unit.visit_by_id(known) if known is not None and said.number is None else unit.visit(patient, said.number)
    attributes, stamps = _after(
        held.attributes if held else {}, held.stamps if held else NO_STAMPS, said, change, stamp
    )
    if held is None:
        return unit.save_visit(Visit(None, patient, said.number, attributes, stamps), at)
    changed = replace(held, attributes=attributes, stamps=stamps)
    return unit.save_visit(changed, at) if changed != held else held.id


def _after(
    held: Attributes, stamps: Stamps, said: VisitInput, change: VisitChange, stamp: Stamp
) -> tuple[Attributes, Stamps]:
    """What is held of the visit after the event, and since when."""
    spoken = as_news(said.attributes, said.formerly.attributes if said.formerly else None, held)
    cancelled = stamps.others.get(_CANCELLED)
    if change is VisitChange.CANCEL:
        spoken = {tag: {"vr": each["vr"]} for tag, each in held.items() if tag not in _ADMISSION}
        spoken |= _admission_of(said.attributes)
        if stamp.replaces(cancelled):
            stamps = stamps.noted(_CANCELLED, stamp)
    elif cancelled is not None and not stamp.replaces(cancelled):
        spoken = _admission_of(said.attributes)
    elif change in VISIT_STATUSES:
        spoken = {TAG["VisitStatusID"]: element("VisitStatusID", VISIT_STATUSES[change]), **spoken}
    return merge_said(held, stamps, spoken, stamp)


def _admission_of(attributes: Attributes) -> Attributes:
    return {tag: each for tag, each in attributes.items() if tag in _ADMISSION}
