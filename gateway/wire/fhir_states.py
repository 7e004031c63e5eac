"""What the states of FHIR resources mean for orders and visits: tables, total over the codes of R4, R4B and R5.

Everything that a status does is in these tables. Nothing here knows how resources hang together: that is `fhir_source`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange

_C, _V = OrderControl, VisitChange


class Word(NamedTuple):
    """What a state says of an order or a step: an order control and an order status, or nothing and why.

    `arrived` says that the patient is here.
    """

    control: OrderControl | None
    order_status: str = ""
    arrived: bool = False
    note: str = ""


_LISTED = Word(_C.NW)
_HELD = Word(_C.HD)
_CANCELLED = Word(_C.CA)
_DONE = Word(_C.SC, "CM")

ORDER_STATES: Mapping[str, Word] = {
    "draft": Word(None, note="is a draft; it is scheduled when its status is active"),
    "active": _LISTED,
    "on-hold": _HELD,
    "ended": _CANCELLED,
    "revoked": _CANCELLED,
    "completed": _DONE,
    "entered-in-error": _CANCELLED,
    "unknown": Word(None, note="has the status unknown, which schedules nothing; send active"),
}
"""ServiceRequest.status; `ended` is of the builds that follow R5."""

TASK_STATES: Mapping[str, Word] = {
    "draft": Word(None, note="is a draft; it is scheduled when its status is requested"),
    **dict.fromkeys(("requested", "received", "accepted", "ready"), _LISTED),
    "in-progress": Word(_C.SC, "IP"),
    "on-hold": _HELD,
    "completed": _DONE,
    **dict.fromkeys(("cancelled", "rejected", "entered-in-error"), _CANCELLED),
    "failed": Word(_C.DC),
}
"""Task.status, of a scheduled step or a group of them."""

APPOINTMENT_STATES: Mapping[str, Word] = {
    **dict.fromkeys(("proposed", "pending", "waitlist"), Word(None, note="is not booked yet; it schedules nothing")),
    "booked": _LISTED,
    **dict.fromkeys(("arrived", "checked-in"), Word(_C.NW, arrived=True)),
    "fulfilled": _DONE,
    **dict.fromkeys(("cancelled", "noshow", "entered-in-error"), _CANCELLED),
}
"""Appointment.status."""

STATES: Mapping[str, Mapping[str, Word]] = {
    "ServiceRequest": ORDER_STATES, "Task": TASK_STATES, "Appointment": APPOINTMENT_STATES,
}  # fmt: skip

INTENTS: Mapping[str, bool] = {
    **dict.fromkeys(("proposal", "plan", "option", "directive"), False),
    **dict.fromkeys(("order", "original-order", "reflex-order", "filler-order", "instance-order"), True),
}
"""ServiceRequest.intent -> whether it orders something."""

IMAGING_CATEGORIES = (
    "http://snomed.info/sct|363679005",
    "http://snomed.info/sct|394914008",
    *(f"http://terminology.hl7.org/CodeSystem/v2-0074|{code}"
      for code in ("RAD", "IMG", "NMR", "CT", "NMS", "RUS", "VUS", "RX")),
)  # fmt: skip
"""Categories of orders for imaging, where a site says nothing else."""

ENCOUNTER_STATES: Mapping[str, VisitChange] = {
    "planned": _V.PLAN,
    "arrived": _V.ARRIVE,
    **dict.fromkeys(("triaged", "in-progress"), _V.OPEN),
    **dict.fromkeys(("onleave", "on-hold", "unknown"), _V.UPDATE),
    **dict.fromkeys(("finished", "completed", "discharged", "discontinued"), _V.CLOSE),
    **dict.fromkeys(("cancelled", "entered-in-error"), _V.CANCEL),
}
"""Encounter.status of R4, R4B and R5 -> what it does to the visit."""

REQUESTS_ABOUT_ORDERS = frozenset({"approve", "replace", "change", "abort", "suspend", "resume"})
"""Codes of Task.code (http://hl7.org/fhir/CodeSystem/task-code) that ask for something else than to do the order."""

TASK_CODES = "http://hl7.org/fhir/CodeSystem/task-code"


def word_of(kind: str, status: str) -> Word:
    """What the status of a ServiceRequest, Task or Appointment says. One that nobody knows says nothing."""
    return STATES[kind].get(status) or Word(None, note="has a status that is not known here; it changes nothing")


def together(words: Iterable[Word]) -> Word:
    """What words from the top of an order down to its step come to: the first that does not just order it anew.

    So what takes the order away, holds it, ends it or leaves it unsaid goes before what is said of the step.
    """
    last = _LISTED
    for word in words:
        last = word
        if word.control is not _C.NW:
            break
    return last
